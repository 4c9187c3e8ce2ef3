//! Attributes of a user beside the id: a flaw in an attribute costs that attribute alone.

use ground::metrics::{Flaw, Label as _, RefusalKind};
use serde_json::json;

use super::values::odd_bytes;
use super::{
    EVERY_HEADER, as_ada, assert_ambiguous, dropped_count, every_header_and, refusal_count,
    refusals_are, refused,
};
use crate::support::Stage;
use crate::support::velt::user_of;

#[tokio::test]
async fn a_flaw_of_an_attribute_costs_that_attribute_alone() {
    let mut flaws = odd_bytes().map(|(_, flaw, values)| (flaw, values)).to_vec();
    flaws.push((Flaw::Empty, vec![b"".to_vec()]));
    let placeholders = ["(null)", "-", "{http.reverse_proxy.header.Remote-Email}"];
    flaws.push((Flaw::Placeholder, placeholders.map(|text| text.as_bytes().to_vec()).to_vec()));
    let stage = Stage::set(EVERY_HEADER).await;
    let mut user = 0;
    for (flaw, values) in flaws {
        let before = dropped_count(&stage, flaw).await;
        let count = values.len();
        for (name, left) in [
            ("x-auth-request-email", json!({ "name": "Ada", "isAdmin": true })),
            ("x-auth-request-name", json!({ "email": "ada@a.example", "isAdmin": true })),
        ] {
            for value in &values {
                user += 1;
                let mut sending =
                    stage.client().get("/").header("x-forwarded-user", format!("user-{user}"));
                for (other, good) in [
                    ("x-auth-request-email", "ada@a.example"),
                    ("x-auth-request-name", "Ada"),
                    ("x-auth-request-groups", "admins"),
                ] {
                    let good = if other == name { value } else { good.as_bytes() };
                    sending = sending.header(other, good);
                }
                let over_http2 = user % 2 == 0;
                let answer =
                    if over_http2 { sending.send_http2().await } else { sending.send().await };
                assert_eq!(user_of(answer.token().expect("a token")), format!("user-{user}"));
                let call = stage.velt.calls().pop().expect("a call");
                assert_eq!(call.body["data"]["userProperties"], left, "{name} {flaw:?}");
                let arrived = stage.app.journal().pop().expect("it arrived");
                assert_eq!(arrived.headers[name].as_bytes(), &**value, "as the front sent it");
            }
        }
        assert_eq!(dropped_count(&stage, flaw).await, before + 2.0 * count as f64, "{flaw:?}");
    }
    for kind in RefusalKind::ALL {
        assert_eq!(refusal_count(&stage, *kind).await, 0.0, "{kind:?}");
    }
}

#[tokio::test]
async fn an_unusable_organization_costs_the_token_alone() {
    let stage = Stage::set(EVERY_HEADER).await;
    for (value, flaw) in [
        (&b"Fran\xe7ais"[..], Flaw::BadBytes),
        (&[b'x'; 300], Flaw::TooLong),
        (b"a\tb", Flaw::BadBytes),
    ] {
        let before = dropped_count(&stage, flaw).await;
        let answer = as_ada(&stage, "/").header("x-auth-request-org", value).send().await;
        assert_eq!((answer.status(), answer.token_status()), (200, Some("no-organization")));
        let route = as_ada(&stage, "/api/velt/token").header("x-auth-request-org", value);
        let route = route.send().await;
        assert_eq!((route.status(), &*route.code()), (400, "no_organization"));
        assert_eq!(dropped_count(&stage, flaw).await, before + 2.0);
    }
    assert_eq!(stage.velt.call_count(), 0, "no user gets into the configured organization instead");
    for blank in ["", "-", "(null)"] {
        let answer = as_ada(&stage, "/").header("x-auth-request-org", blank).send().await;
        assert!(answer.token().is_some(), "{blank:?} names none");
    }
    let resources = &stage.velt.calls()[0].body["data"]["permissions"]["resources"];
    assert_eq!(*resources, json!([{ "type": "organization", "id": "org-of-the-config" }]));
}

#[tokio::test]
async fn t43_a_group_with_odd_bytes_takes_nothing_from_others() {
    let stage = Stage::set(EVERY_HEADER).await;
    let mut user = 0;
    for (groups, is_admin) in [
        (&b"admins\xff"[..], false),
        (b"admins\t\x80", false),
        (b"staff,\tadmins", false),
        (b"d\xe9veloppeurs,admins", true),
        (b"admins, d\xe9veloppeurs", true),
        (b"d\xe9veloppeurs,staff", false),
    ] {
        user += 1;
        let sending = stage.client().get("/").header("x-forwarded-user", format!("user-{user}"));
        let answer = sending.header("x-auth-request-groups", groups).send().await;
        assert!(answer.token().is_some(), "{}", groups.escape_ascii());
        let call = stage.velt.calls().pop().expect("a call");
        let said = &call.body["data"]["userProperties"]["isAdmin"];
        assert_eq!(*said, is_admin, "{}", groups.escape_ascii());
    }
    assert_eq!(dropped_count(&stage, Flaw::BadBytes).await, 6.0);
    let groups = "staff,".repeat(500) + "admins";
    as_ada(&stage, "/").header("x-auth-request-groups", groups).send().await;
    let call = stage.velt.calls().pop().expect("a call");
    assert_eq!(call.body["data"]["userProperties"]["isAdmin"], true, "a list may be long");
}

#[tokio::test]
async fn an_admin_is_a_member_of_one_of_the_admin_groups_exactly() {
    let stage = Stage::set(EVERY_HEADER).await;
    let mut user = 0;
    for (groups, is_admin) in [
        (&["admins"][..], true),
        (&["staff,admins"], true),
        (&["staff ,  velt team "], true),
        (&[], false),
        (&[""], false),
        (&["staff"], false),
        (&["Admins"], false),
        (&["admins2,xadmins,velt"], false),
        (&["velt,team"], false),
    ] {
        user += 1;
        let sending = stage.client().get("/").header("x-forwarded-user", format!("user-{user}"));
        let sending = groups
            .iter()
            .fold(sending, |sending, group| sending.header("x-auth-request-groups", group));
        assert!(sending.send().await.token().is_some());
        let call = stage.velt.calls().pop().expect("a call");
        assert_eq!(call.user(), format!("user-{user}"));
        assert_eq!(call.body["data"]["userProperties"]["isAdmin"], is_admin, "{groups:?}");
    }
}

#[tokio::test]
async fn second_groups_line_is_refused_unless_configured() {
    let lines = |stage: &Stage| {
        as_ada(stage, "/")
            .header("x-auth-request-groups", "staff")
            .header("x-auth-request-groups", "admins")
    };
    let stage = Stage::set(EVERY_HEADER).await;
    refused(lines(&stage)).await;
    assert_ambiguous(&lines(&stage).send_http2().await);
    refusals_are(&stage, RefusalKind::Repeated, 2).await;

    // An app might join the lines of a header that the sidecar does not read.
    let stage = Stage::set(
        "[identity]\npreset = \"oauth2-proxy\"\n[velt]\napi = \"v2\"\norganization = \"o\"",
    )
    .await;
    let unread = as_ada(&stage, "/").header("x-forwarded-groups", "staff");
    refused(unread.header("x-forwarded-groups", "admins")).await;
    refusals_are(&stage, RefusalKind::Repeated, 1).await;

    let stage = Stage::set(&every_header_and("groups_lines = \"several\"")).await;
    assert!(lines(&stage).send().await.token().is_some());
    let properties = &stage.velt.calls()[0].body["data"]["userProperties"];
    assert_eq!(properties["isAdmin"], true);
}

#[tokio::test]
async fn second_line_of_an_unread_guarded_header_is_refused() {
    let twice = |stage: &Stage, name: &str| {
        as_ada(stage, "/").header(name, "ada@a.example").header(name, "eve@a.example")
    };
    let stage = Stage::set("").await;
    let names = ["x-forwarded-email", "x-forwarded-groups", "x-forwarded-access-token"];
    for name in names {
        refused(twice(&stage, name)).await;
        assert_ambiguous(&twice(&stage, name).send_http2().await);
    }
    refusals_are(&stage, RefusalKind::Repeated, 2 * names.len()).await;
    let others = twice(&stage, "x-app").header("cookie", "a=1").header("cookie", "b=2");
    assert_eq!(others.send_http2().await.status(), 200, "no header about the user comes twice");

    let stage = Stage::set("[identity]\ngroups_lines = \"several\"").await;
    assert_eq!(twice(&stage, "x-forwarded-groups").send().await.status(), 200);
    refused(twice(&stage, "x-forwarded-user")).await;
}

#[tokio::test]
async fn an_email_that_is_no_address_is_left_out() {
    let stage = Stage::set(EVERY_HEADER).await;
    let flawed = ["ada", "@a.example", "ada@", "ada lovelace@a.example", "@"];
    for (user, email) in flawed.into_iter().enumerate() {
        let sending = stage.client().get("/").header("x-forwarded-user", format!("user-{user}"));
        let answer = sending.header("x-auth-request-email", email).send().await;
        assert!(answer.token().is_some(), "{email:?}");
        let properties = &stage.velt.calls().pop().expect("a call").body["data"]["userProperties"];
        assert_eq!(*properties, json!({ "isAdmin": false }), "{email:?}");
    }
    assert_eq!(dropped_count(&stage, Flaw::NoAddress).await, flawed.len() as f64);
    as_ada(&stage, "/").header("x-auth-request-email", "ada@intranet").send().await;
    let call = stage.velt.calls().pop().expect("a call");
    assert_eq!(call.body["data"]["userProperties"]["email"], "ada@intranet");
}

#[tokio::test]
async fn groups_are_separated_as_the_login_proxy_does_it() {
    let stage = Stage::set(&every_header_and("groups_separator = \"|\"")).await;
    for (user, groups, is_admin) in [
        ("a", "staff|admins", true),
        ("b", "staff,admins", false),
        ("c", "staff| velt team |x", true),
        ("d", "admins,x", false),
    ] {
        let sending = stage.client().get("/").header("x-forwarded-user", user);
        let answer = sending.header("x-auth-request-groups", groups).send().await;
        assert!(answer.token().is_some());
        let call = stage.velt.calls().pop().expect("a call");
        assert_eq!(call.body["data"]["userProperties"]["isAdmin"], is_admin, "{groups}");
    }
}

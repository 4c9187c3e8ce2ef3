//! Rights that are not known, or not to be believed: there is no token, and the app answers as always.

use ground::metrics::{Flaw, Label as _};

use super::{BOTH, as_ada, resources};
use crate::support::Stage;
use crate::support::client::{Answer, Sending};

/// Asserts that the request gets the app's response without a token, for want of grants.
async fn has_no_grants(sending: Sending) -> Answer {
    let answer = sending.send().await;
    assert_eq!((answer.status(), answer.text()), (200, "hello from the app".into()));
    assert_eq!((answer.token(), answer.token_status()), (None, Some("no-grants")), "{answer:?}");
    assert_eq!(answer.header("cache-control"), Some("private, no-store"));
    answer
}

#[tokio::test]
async fn t67_unusable_grants_give_no_token() {
    let stage = Stage::set(BOTH).await;
    let many = vec![r#"{"type":"folder","id":"f"}"#; 65].join(",");
    let lists = [
        String::new(),
        "-".into(),
        "null".into(),
        "{}".into(),
        "[".into(),
        "folder:f".into(),
        r#"[{"type":"folder"}]"#.into(),
        r#"[{"type":"workspace","id":"w"}]"#.into(),
        r#"[{"type":"folder","id":"f","accessRole":"owner"}]"#.into(),
        r#"[{"type":"folder","id":"f","role":"viewer"}]"#.into(),
        r#"[{"type":"folder","id":"f"},{"type":"folder","id":"f","accessRole":"viewer"}]"#.into(),
        // The resource of the configuration is for viewers.
        r#"[{"type":"document","id":"handbook","accessRole":"editor"}]"#.into(),
        r#"[{"type":"document","id":"handbook","accessRole":"viewer","expiresAt":4000000000}]"#
            .into(),
        format!("[{many}]"),
        format!("[{}]", " ".repeat(8 * 1024)),
    ];
    for grants in &lists {
        has_no_grants(as_ada(&stage, grants)).await;
        let asking = stage.client().get("/api/velt/token").header("x-forwarded-user", "ada");
        let route = asking.header("x-grants", grants).send().await;
        assert_eq!((route.status(), &*route.code()), (403, "no_grants"), "{grants}");
        assert_eq!(route.header("retry-after"), None);
    }
    has_no_grants(as_ada(&stage, b"[{\"type\":\"folder\",\"id\":\"\xe9\"}]")).await;
    let absent = stage.client().get("/").header("x-forwarded-user", "ada");
    has_no_grants(absent).await;
    assert_eq!(stage.velt.call_count(), 0);
    assert_eq!(stage.app.journal().len(), lists.len() + 2);

    let count = lists.len() as f64;
    assert_eq!(stage.metric("requests_total{outcome=\"no_grants\"}").await, count);
    let delivered = stage.metric("header_deliveries_total{result=\"no_grants\"}").await;
    assert_eq!(delivered, count + 2.0);
    let series =
        |flaw: Flaw| format!("identity_attributes_dropped_total{{reason=\"{}\"}}", flaw.as_str());
    // An empty line, and no line at all.
    assert_eq!(stage.metric(&series(Flaw::Empty)).await, 3.0);
    // Two lists contradict the configuration alone.
    assert_eq!(stage.metric(&series(Flaw::NoGrants)).await, 2.0 * (count - 3.0) + 1.0);
}

#[tokio::test]
async fn t67_unusable_groups_give_no_token() {
    let stage = Stage::set(BOTH).await;
    for groups in [&b"editors\xff"[..], b"editors,d\xe9veloppeurs", b"staff,\teditors"] {
        has_no_grants(as_ada(&stage, "[]").header("x-groups", groups)).await;
    }
    let several = as_ada(&stage, "[]").header("x-groups", "staff").header("x-groups", "editors");
    assert_eq!(several.send().await.status(), 400, "one line may be the client's");
    assert_eq!(stage.velt.call_count(), 0);
}

#[tokio::test]
async fn t67_groups_with_contradicting_roles_give_no_token() {
    let toml = "[identity]\ngroups_header = \"X-Groups\"\n\
        [velt]\napi = \"v2\"\norganization = \"acme\"\n\
        [[velt.resource]]\ntype = \"folder\"\nid = \"f\"\nrole = \"viewer\"\ngroups = [\"viewers\"]\n\
        [[velt.resource]]\ntype = \"folder\"\nid = \"f\"\nrole = \"editor\"\ngroups = [\"editors\"]";
    let stage = Stage::set(toml).await;
    let of = |groups| stage.client().get("/api/velt/token").header("x-groups", groups);
    for (user, groups, role) in [("a", "viewers", "viewer"), ("b", "editors", "editor")] {
        assert_eq!(of(groups).header("x-forwarded-user", user).send().await.status(), 200);
        assert_eq!(resources(&stage)[1]["accessRole"], role);
    }
    let both = of("viewers,editors").header("x-forwarded-user", "c").send().await;
    assert_eq!((both.status(), &*both.code()), (403, "no_grants"));
    assert_eq!(stage.velt.call_count(), 2);
}

#[tokio::test]
async fn t67_grants_of_a_client_count_for_nothing() {
    let stage = Stage::set(&format!("[identity]\ntrusted_peers = [\"10.0.0.0/8\"]\n{BOTH}")).await;
    let forged = r#"[{"type":"organization","id":"globex"}]"#;
    for name in ["x-grants", "X_Grants", "x-groups"] {
        let sending = stage.client().get("/").header("x-forwarded-user", "ada");
        let answer = sending.header(name, forged).send().await;
        assert_eq!((answer.status(), answer.token_status()), (200, Some("anonymous")), "{name}");
        let arrived = stage.app.journal().pop().expect("it arrived");
        assert_eq!(arrived.header(&name.to_lowercase()), None, "{name}");
    }
    let series = |kind| format!("spoof_attempts_total{{kind=\"{kind}\"}}");
    assert_eq!(stage.metric(&series("identity_header")).await, 5.0);
    assert_eq!(stage.metric(&series("alias")).await, 1.0);

    // A login proxy that knows no user lets the client's own copy through.
    let stage = Stage::set(BOTH).await;
    let anonymous = stage.client().get("/").header("x-grants", forged).send().await;
    assert_eq!((anonymous.status(), anonymous.token_status()), (200, Some("anonymous")));
    let arrived = stage.app.journal().pop().expect("it arrived");
    assert_eq!(arrived.header("x-grants"), None);
    assert_eq!(stage.metric(&series("identity_header")).await, 1.0);

    // A second line, or another spelling, may be the client's.
    for name in ["x-grants", "x_grants"] {
        let answer = as_ada(&stage, "[]").header(name, forged).send().await;
        assert_eq!((answer.status(), &*answer.code()), (400, "ambiguous_identity"), "{name}");
    }
    assert_eq!(stage.velt.call_count(), 0);
}

#[tokio::test]
async fn request_without_grants_is_refused_where_tokens_must_be() {
    let toml = BOTH.replacen("max_wait", "on_failure = \"refuse\"\nmax_wait", 1);
    let stage = Stage::set(&toml).await;
    let refused = as_ada(&stage, "{").send().await;
    assert_eq!((refused.status(), &*refused.code()), (403, "no_grants"));
    assert_eq!(stage.app.journal().len(), 0, "the app is not asked");
    assert!(as_ada(&stage, "[]").send().await.token().is_some());
}

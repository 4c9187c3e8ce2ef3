//! Values that a header may hold, and how much of them reaches Velt and the app.

use ground::metrics::{Flaw, RefusalKind};
use serde_json::json;

use super::{
    EVERY_HEADER, NAMES, as_ada, assert_ambiguous, assert_no_identity, every_header_and, raw,
    refusals_are, refused, spoof_count,
};
use crate::support::Stage;
use crate::support::raw::Wire;
use crate::support::velt::user_of;

#[tokio::test]
async fn t37_users_who_differ_in_a_byte_are_different_users() {
    let stage = Stage::set("").await;
    let users = ["Alice", "alice", "al ice", "Zo\u{eb}", "Zoe\u{308}", "zo\u{eb}", "alice\u{200b}"];
    for user in users {
        let answer = stage.get_as(user, "/api/velt/token").await;
        assert_eq!(user_of(answer.json()["token"].as_str().expect("a token")), user);
    }
    assert_eq!(stage.velt.calls_by_user().len(), users.len());
    assert_eq!(stage.velt.call_count(), users.len());
}

#[tokio::test]
async fn t43_odd_but_legal_user_ids_reach_velt_byte_for_byte() {
    let stage = Stage::set("").await;
    let longest = "x".repeat(256);
    let longest_in_bytes = "é".repeat(128);
    for user in [
        "ada",
        "a",
        "Ada Lovelace",
        "ada@example.com",
        "😀 crab 🦀",
        "王小明",
        r#"a"b\c/d"#,
        "{\"$gt\":\"\"}",
        "a|b;c=d&e?f#g%00",
        "Null",
        "NIL",
        "{6B29FC40-CA47-1067-B31D-00DD010662DA}",
        "../../etc/passwd",
        &longest,
        &longest_in_bytes,
    ] {
        let answer = stage.get_as(user, "/").await;
        assert_eq!(user_of(answer.token().expect("a token")), user);
        let over_http2 = stage.client().get("/").header("x-forwarded-user", user);
        assert_eq!(over_http2.send_http2().await.token(), answer.token());
    }
}

/// Bytes that no user id may hold, by what is wrong with them.
pub(super) fn odd_bytes() -> [(RefusalKind, Flaw, Vec<Vec<u8>>); 2] {
    let too_long = vec![vec![b'x'; 257], vec![b'x'; 4096], "é".repeat(129).into(), vec![0xff; 300]];
    let bad_bytes = vec![
        b"a\tb".to_vec(),
        b"\xff".to_vec(),
        b"ada\x80".to_vec(),
        // ISO-8859-1, as some fronts write names.
        b"J\xf6rg M\xfcller".to_vec(),
        // An overlong slash and half of a surrogate pair.
        b"\xc0\xaf".to_vec(),
        b"\xed\xa0\x80".to_vec(),
        "next\u{85}line".into(),
        "\u{a0}ada".into(),
        "ada\u{2003}".into(),
    ];
    [
        (RefusalKind::TooLong, Flaw::TooLong, too_long),
        (RefusalKind::BadBytes, Flaw::BadBytes, bad_bytes),
    ]
}

#[tokio::test]
async fn t43_odd_bytes_in_a_user_id_are_refused_by_kind() {
    for (kind, _, values) in odd_bytes() {
        let stage = Stage::set(EVERY_HEADER).await;
        let count = 2 * values.len();
        for value in values {
            refused(stage.client().get("/").header("x-forwarded-user", &value)).await;
            let over_http2 = stage.client().get("/").header("x-forwarded-user", &value);
            assert_ambiguous(&over_http2.send_http2().await);
        }
        refusals_are(&stage, kind, count).await;
    }
}

#[tokio::test]
async fn t43_outer_spaces_are_trimmed_by_http1_and_refused_over_http2() {
    let stage = Stage::set("").await;
    for padded in [" ada", "ada ", "\tada"] {
        let over_http2 = stage.client().get("/").header("x-forwarded-user", padded);
        assert_ambiguous(&over_http2.send_http2().await);
    }
    refusals_are(&stage, RefusalKind::BadBytes, 3).await;

    // Spaces around the value are no part of the value (RFC 9112 section 5.1).
    let received = raw(&stage, "x-forwarded-user: \t ada \r\nconnection: close\r\n").await;
    assert!(received.starts_with("HTTP/1.1 200 "), "{received}");
    assert_eq!(stage.velt.calls()[0].user(), "ada");
}

#[tokio::test]
async fn t43_bytes_that_no_header_may_hold_end_the_connection() {
    let stage = Stage::set("").await;
    for value in [&b"a\0b"[..], b"a\x7fb", b"a\rb", b"a\x01b", b"a\x1b[31m"] {
        let mut wire = Wire::to(stage.sidecar.addresses.traffic).await;
        wire.send(
            [b"GET / HTTP/1.1\r\nhost: a\r\nx-forwarded-user: ", value, b"\r\n\r\n"].concat(),
        )
        .await;
        let received = wire.rest().await;
        assert!(received.starts_with("HTTP/1.1 400 "), "{value:?}: {received}");
    }
    assert_eq!((stage.app.journal().len(), stage.velt.call_count()), (0, 0));
}

#[tokio::test]
async fn identity_header_reaches_the_app_unless_told_otherwise() {
    let stage = Stage::set(EVERY_HEADER).await;
    let all = |stage: &Stage| {
        let sending = as_ada(stage, "/").header("x-auth-request-email", "ada@example.com");
        let sending = sending.header("x-auth-request-name", "Ada");
        let sending = sending.header("x-auth-request-org", "org");
        sending.header("x-auth-request-groups", "staff").header("x-forwarded-proto", "https")
    };
    assert!(all(&stage).send().await.token().is_some());
    let arrived = stage.app.only();
    for (name, value) in NAMES.into_iter().zip(["ada", "ada@example.com", "Ada", "org", "staff"]) {
        assert_eq!(arrived.header(name), Some(value));
    }

    let stage = Stage::set(&every_header_and("forward_headers = \"strip\"")).await;
    assert!(all(&stage).send().await.token().is_some(), "read before it is removed");
    let arrived = stage.app.only();
    assert_no_identity(&arrived.headers);
    assert_eq!(arrived.header("x-forwarded-proto"), Some("https"), "that is no identity");
    assert_eq!(spoof_count(&stage, "identity_header").await, 0.0, "nobody forged anything");
}

#[tokio::test]
async fn all_that_the_login_proxy_says_reaches_velt() {
    let stage = Stage::set(EVERY_HEADER).await;
    let sending = as_ada(&stage, "/").header("x-auth-request-email", "ada@example.com");
    let sending = sending.header("x-auth-request-name", "Lovelace, Ada");
    let sending = sending.header("x-auth-request-org", "org-1");
    assert!(sending.header("x-auth-request-groups", "admins").send().await.token().is_some());
    assert_eq!(
        stage.velt.calls()[0].body,
        json!({ "data": {
            "userId": "ada",
            "userProperties":
                { "name": "Lovelace, Ada", "email": "ada@example.com", "isAdmin": true },
            "permissions": { "resources": [{ "type": "organization", "id": "org-1" }] },
        }})
    );
}

#[tokio::test]
async fn missing_headers_are_absent_and_the_organization_configured() {
    let stage = Stage::set(EVERY_HEADER).await;
    assert!(stage.get_as("ada", "/").await.token().is_some());
    let resources = json!([{ "type": "organization", "id": "org-of-the-config" }]);
    assert_eq!(
        stage.velt.calls()[0].body,
        json!({ "data": {
            "userId": "ada",
            "userProperties": { "isAdmin": false },
            "permissions": { "resources": resources },
        }})
    );
}

#[tokio::test]
async fn missing_organization_prevents_the_mint_and_is_told() {
    let toml = "[identity]\norganization_header = \"X-Org\"\n[velt]\napi = \"v2\"";
    let stage = Stage::set(toml).await;
    let answer = stage.get_as("ada", "/").await;
    assert_eq!((answer.status(), answer.token_status()), (200, Some("no-organization")));
    let route = stage.get_as("ada", "/api/velt/token").await;
    assert_eq!((route.status(), &*route.code()), (400, "no_organization"));
    assert_eq!(stage.velt.call_count(), 0);
}

#[tokio::test]
async fn t10_unread_headers_about_the_user_are_guarded() {
    let guarded = "guarded_headers = [\"X-Forwarded-Access-Token\"]";
    let stage = Stage::set(&format!("[identity]\n{guarded}")).await;
    let answer = as_ada(&stage, "/").header("x-forwarded-access-token", "t").send().await;
    assert!(answer.token().is_some());
    assert_eq!(stage.app.only().header("x-forwarded-access-token"), Some("t"));
    refused(as_ada(&stage, "/").header("x_forwarded_access_token", "t")).await;

    let stage =
        Stage::set(&format!("[identity]\n{guarded}\ntrusted_peers = [\"10.0.0.0/8\"]")).await;
    let forged = stage.client().get("/").header("x-forwarded-access-token", "t");
    forged.header("x_forwarded_access_token", "t").send().await;
    let arrived = stage.app.only();
    assert!(arrived.headers.keys().all(|name| !name.as_str().contains("token")));
}

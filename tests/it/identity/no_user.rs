//! Lines that name no user: empty ones, placeholders, and templates that were not filled in.

use ground::metrics::{Label as _, RefusalKind};

use super::{EVERY_HEADER, as_ada, raw, refusal_count, refusals_are, refused, spoof_count};
use crate::support::Stage;
use crate::support::velt::user_of;

#[tokio::test]
async fn empty_user_header_names_no_user() {
    let stage = Stage::set(EVERY_HEADER).await;
    let empty = |path: &str, blank: &str| {
        stage
            .client()
            .get(path)
            .header("x-forwarded-user", blank)
            .header("x-auth-request-email", "")
    };
    for answer in [
        empty("/", "").send().await,
        empty("/", "").send_http2().await,
        // HTTP/1.1 trims the spaces, HTTP/2 does not.
        empty("/login", "  ").send_http2().await,
        empty("/", "\u{a0}").send_http2().await,
        // Characters that can't be seen.
        empty("/", "\u{200b}").send_http2().await,
    ] {
        assert_eq!((answer.status(), answer.token_status()), (200, Some("anonymous")));
    }
    let received = raw(&stage, "x-forwarded-user:  \t \r\nconnection: close\r\n").await;
    assert!(received.starts_with("HTTP/1.1 200 "), "{received}");
    let route = empty("/api/velt/token", "").send().await;
    assert_eq!((route.status(), &*route.code()), (401, "no_identity"));
    assert_eq!(stage.app.journal().len(), 6);
    for kind in RefusalKind::ALL {
        assert_eq!(refusal_count(&stage, *kind).await, 0.0, "{kind:?}");
    }
    // The front's own empty line is no attempt of a client's.
    assert_eq!(spoof_count(&stage, "identity_header").await, 0.0);
    assert_eq!(stage.velt.call_count(), 0);
}

#[tokio::test]
async fn empty_user_header_among_others_is_refused() {
    let stage = Stage::set("").await;
    refused(stage.client().get("/").header("x-forwarded-user", "").header("x-forwarded-user", ""))
        .await;
    refused(as_ada(&stage, "/").header("x-forwarded-user", "")).await;
    refusals_are(&stage, RefusalKind::Repeated, 2).await;

    let stage = Stage::set("").await;
    refused(
        stage.client().get("/").header("x-forwarded-user", "").header("x_forwarded_user", "eve"),
    )
    .await;
    refusals_are(&stage, RefusalKind::Alias, 1).await;

    let stage = Stage::set("").await;
    let empty = stage.client().get("/").header("x-forwarded-user", "");
    refused(empty.header("connection", "x-forwarded-user")).await;
    refusals_are(&stage, RefusalKind::ConnectionNominated, 1).await;
}

/// Placeholders that fronts and apps write where they have no user.
const PLACEHOLDERS: [&str; 38] = [
    "{}",
    "${}",
    "(null)",
    "-",
    "null",
    "nil",
    "undefined",
    "None",
    "NaN",
    "<nil>",
    "<no value>",
    "[object Object]",
    "{http.auth.user.id}",
    "{http.reverse_proxy.header.Remote-User}",
    "{http.auth.user.id}@example.com",
    "{{ .Sub }}",
    "{{user.sub}}",
    "${user.sub}",
    "%{REMOTE_USER}e",
    "%[var(txn.user)]",
    "$http_x_user",
    "$remote_user",
    "$(USER)",
    "%REQ(X-USER)%",
    "%DOWNSTREAM_PEER_SUBJECT%",
    "<%= user %>",
    // Placeholders of Django, Spring, Lua and Go.
    "AnonymousUser",
    "anonymousUser",
    "userdata: NULL",
    "(nil)",
    "(none)",
    "<null>",
    "<undefined>",
    "\"\"",
    "(null)@example.com",
    "-@example.com",
    "$context.authorizer.claims.sub",
    "{{!user}}",
];

#[tokio::test]
async fn placeholder_in_a_header_names_no_user() {
    let stage = Stage::set("").await;
    for word in PLACEHOLDERS {
        let sending = || stage.client().get("/").header("x-forwarded-user", word);
        for answer in [sending().send().await, sending().send_http2().await] {
            assert_eq!(
                (answer.status(), answer.token_status()),
                (200, Some("anonymous")),
                "{word}"
            );
        }
        let route = stage.get_as(word, "/api/velt/token").await;
        assert_eq!((route.status(), &*route.code()), (401, "no_identity"), "{word}");
    }
    assert_eq!(stage.velt.call_count(), 0);
    let count = 3.0 * PLACEHOLDERS.len() as f64;
    assert_eq!(refusal_count(&stage, RefusalKind::Placeholder).await, count);
}

#[tokio::test]
async fn people_called_null_keep_their_names() {
    let stage = Stage::set("").await;
    let people =
        ["Null", "NULL", "Nil", "none", "Undefined", "nan", "null@example.com", "jon.null"];
    for person in people {
        let answer = stage.get_as(person, "/").await;
        assert_eq!(user_of(answer.token().expect("a token")), person);
    }
    assert_eq!(refusal_count(&stage, RefusalKind::Placeholder).await, 0.0);
}

#[tokio::test]
async fn placeholder_words_can_be_configured() {
    let stage = Stage::set("[identity]\nplaceholders = [\"anonymous\", \"guest-...\"]").await;
    for nobody in ["anonymous", "guest-user"] {
        assert_eq!(stage.get_as(nobody, "/").await.token_status(), Some("anonymous"), "{nobody}");
    }
    for user in ["null", "(null)", "Anonymous", "{user}", "guest-7"] {
        let answer = stage.get_as(user, "/").await;
        assert_eq!(user_of(answer.token().expect("a token")), user);
    }
    let none = Stage::set("[identity]\nplaceholders = []").await;
    assert!(none.get_as("undefined", "/").await.token().is_some());
}

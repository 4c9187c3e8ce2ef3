//! Headers and bodies of the calls, by each API of Velt.

use std::collections::BTreeSet;

use http::HeaderName;
use serde_json::json;

use crate::support::app::FakeApp;
use crate::support::velt::{Call, FakeVelt, unix_seconds, user_of};
use crate::support::{API_KEY, AUTH_TOKEN, Stage, TestSidecar};

/// A stage whose sidecar calls `path` at Velt.
async fn calling(path: &str, toml: &str) -> Stage {
    let (app, velt) = (FakeApp::start().await, FakeVelt::start().await);
    let toml = format!("[velt]\nendpoint = \"http://{}{path}\"\n{toml}", velt.address);
    let sidecar = TestSidecar::start(&app.address.to_string(), velt.address, &toml);
    Stage { app, velt, sidecar }
}

/// Returns the only call, after a request with all that a browser and a login proxy send.
async fn only_call(stage: &Stage, identity: &[(&str, &str)]) -> Call {
    let sending = stage.client().post("/api/velt/token", r#"{"userId":"ada"}"#);
    let sending = sending.header("cookie", "session=canary").header("x-forwarded-user", "ada");
    let sending = sending.header("authorization", "Bearer canary").header("accept", "text/html");
    let sending = sending.header("traceparent", "00-canary").header("accept-encoding", "gzip");
    let sending =
        identity.iter().fold(sending, |sending, (name, value)| sending.header(name, value));
    let answer = sending.send().await;
    assert_eq!(user_of(answer.json()["token"].as_str().expect("a token")), "ada");
    let mut calls = stage.velt.calls();
    assert_eq!(calls.len(), 1);
    calls.remove(0)
}

/// Asserts that a call carries nothing of the client's request.
fn assert_headers(call: &Call, credentials: &[&str]) {
    let names: BTreeSet<&str> = call.headers.keys().map(HeaderName::as_str).collect();
    let expected = ["accept", "content-length", "content-type", "host", "user-agent"];
    assert_eq!(names, expected.into_iter().chain(credentials.iter().copied()).collect());
    assert_eq!(call.headers["content-type"], "application/json");
    assert_eq!(call.headers["accept"], "*/*");
    let agent = concat!("velt-sidecar/", env!("CARGO_PKG_VERSION"));
    assert_eq!(call.headers["user-agent"], agent);
}

const IDENTITY: &str = "[identity]\nemail_header = \"X-Email\"\norganization_header = \"X-Org\"\n\
                        groups_header = \"X-Groups\"\nadmin_groups = [\"admins\"]\n";

#[tokio::test]
async fn legacy_sends_the_user_and_the_credentials_in_the_body() {
    let stage = calling("/", "").await;
    let call = only_call(&stage, &[("x-email", "ada@example.com"), ("x-org", "o")]).await;
    assert_eq!(call.path, "/");
    assert_headers(&call, &[]);
    let data = json!({ "userId": "ada", "apiKey": API_KEY, "authToken": AUTH_TOKEN });
    assert_eq!(call.body, json!({ "data": data }));
}

#[tokio::test]
async fn v1_adds_the_users_properties() {
    let path = "/v1/auth/token/get";
    let toml = format!("{IDENTITY}[velt]\napi = \"v1\"");
    let stage = calling(path, &toml).await;
    let identity = [("x-email", "ada@example.com"), ("x-org", "org-1"), ("x-groups", "admins")];
    let call = only_call(&stage, &identity).await;
    assert_eq!(call.path, path);
    assert_headers(&call, &[]);
    let properties =
        json!({ "organizationId": "org-1", "email": "ada@example.com", "isAdmin": true });
    assert_eq!(
        call.body,
        json!({ "data": {
            "userId": "ada",
            "apiKey": API_KEY,
            "authToken": AUTH_TOKEN,
            "userProperties": properties,
        }})
    );
}

#[tokio::test]
async fn v2_sends_credentials_in_headers_and_the_organization() {
    let path = "/v2/auth/generate_token";
    let toml =
        format!("{IDENTITY}name_header = \"X-Name\"\n[velt]\napi = \"v2\"\norganization = \"o\"");
    let stage = calling(path, &toml).await;
    let identity = [
        ("x-email", "ada@example.com"),
        ("x-name", "Ada \u{201c}A\u{201d} Lovelace"),
        ("x-org", "org-1"),
        ("x-groups", "staff"),
    ];
    let call = only_call(&stage, &identity).await;
    assert_eq!(call.path, path);
    assert_headers(&call, &["x-velt-api-key", "x-velt-auth-token"]);
    assert_eq!(call.headers["x-velt-api-key"], API_KEY);
    assert_eq!(call.headers["x-velt-auth-token"], AUTH_TOKEN);
    let name = "Ada \u{201c}A\u{201d} Lovelace";
    assert_eq!(
        call.body,
        json!({ "data": {
            "userId": "ada",
            "userProperties": { "name": name, "email": "ada@example.com", "isAdmin": false },
            "permissions": { "resources": [{ "type": "organization", "id": "org-1" }] },
        }})
    );
}

#[tokio::test]
async fn unknown_property_is_absent_and_not_an_empty_string() {
    let identity = "[identity]\nemail_header = \"X-Email\"\norganization_header = \"X-Org\"\n";
    for (api, expected) in [
        (
            "v1",
            json!({
                "userId": "ada",
                "apiKey": API_KEY,
                "authToken": AUTH_TOKEN,
                "userProperties": { "organizationId": "org" },
            }),
        ),
        (
            "v2",
            json!({
                "userId": "ada",
                "userProperties": {},
                "permissions": { "resources": [{ "type": "organization", "id": "org" }] },
            }),
        ),
    ] {
        let toml = format!("{identity}[velt]\napi = \"{api}\"\norganization = \"org\"");
        let stage = calling("/", &toml).await;
        assert_eq!(only_call(&stage, &[]).await.body, json!({ "data": expected }), "{api}");
    }
}

const RESOURCES: &str = r#"
    [velt]
    api = "v2"
    organization = "org"
    [[velt.resource]]
    type = "folder"
    id = "folder-1"
    [[velt.resource]]
    type = "document"
    id = "document-1"
    organization = "other-org"
    role = "viewer"
    expires_in = "2h"
    [[velt.resource]]
    type = "organization"
    id = "guests"
    role = "editor"
"#;

#[tokio::test]
async fn configured_resources_are_dated_at_the_mint() {
    let stage = calling("/", RESOURCES).await;
    let before = unix_seconds();
    let mut body = only_call(&stage, &[]).await.body;
    let expires_at = body["data"]["permissions"]["resources"][2]["expiresAt"].take();
    let expires_at = expires_at.as_u64().expect("whole seconds");
    assert!((before + 7200..=unix_seconds() + 7200).contains(&expires_at), "{expires_at}");
    assert_eq!(
        body["data"]["permissions"]["resources"],
        json!([
            { "type": "organization", "id": "org" },
            { "type": "folder", "id": "folder-1", "organizationId": "org" },
            {
                "type": "document",
                "id": "document-1",
                "organizationId": "other-org",
                "accessRole": "viewer",
                "expiresAt": null,
            },
            { "type": "organization", "id": "guests", "accessRole": "editor" },
        ])
    );
    let headroom = stage.metric("outage_headroom_seconds").await;
    assert!((7000.0..=7200.0).contains(&headroom), "a token lives no longer than its grants");
}

//! The audit log: a line for each mint, with the rights in the token and without the user.

use serde_json::{Value, json};

use crate::support::app::FakeApp;
use crate::support::binary::Running;
use crate::support::client::Client;
use crate::support::document;
use crate::support::velt::FakeVelt;

const KEY: &str = "a key of the audit log, of over 32 bytes";

const TOML: &str = r#"
[log]
format = "json"
[identity]
groups_header = "X-Forwarded-Groups"
grants_header = "X-Grants"
[velt]
api = "v2"
organization = "acme"
[[velt.resource]]
type = "folder"
id = "drafts"
role = "editor"
expires_in = "1h"
groups = ["editors"]
"#;

async fn running(environment: &[(&str, &str)]) -> (Running, Client, FakeVelt) {
    let (app, velt) = (FakeApp::start().await, FakeVelt::start().await);
    let document = document(&app.address.to_string(), velt.address, TOML);
    let (running, traffic, _) = Running::configured(&document, environment).await;
    // The app may end: a token route does without it.
    (running, Client::to(traffic), velt)
}

async fn ask(client: &Client, user: &str) {
    let asking = client.get("/api/velt/token").header("x-forwarded-user", user);
    let asking = asking.header("x-forwarded-groups", "staff,editors");
    let grants =
        r#"[{"type":"organization","id":"guests","accessRole":"viewer","expiresAt":4102444800}]"#;
    assert_eq!(asking.header("x-grants", grants).send().await.status(), 200);
}

#[tokio::test]
async fn audit_log_has_a_line_for_each_mint_without_the_user() {
    let environment = [("VELT_SIDECAR_AUDIT_LOG__KEY", KEY)];
    let (mut running, client, velt) = running(&environment).await;
    ask(&client, "ada@example.com").await;
    let line = running.line_with("audit: a token was minted").await;
    let line: Value = serde_json::from_str(&line).expect("JSON");
    let fields = if line.get("fields").is_some() { &line["fields"] } else { &line };
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, KEY.as_bytes());
    assert_eq!(fields["user"], token::audit::pseudonym(&key, "ada@example.com"));
    assert_eq!((&fields["organization"], &fields["source"]), (&json!("acme"), &json!("header")));
    let resources: Value =
        serde_json::from_str(fields["resources"].as_str().expect("a text")).expect("JSON");
    let expected = json!([
        { "type": "organization", "id": "acme", "by": "organization" },
        { "type": "folder", "id": "drafts", "organizationId": "acme", "accessRole": "editor",
          "expiresIn": 3600, "by": "configuration" },
        { "type": "organization", "id": "guests", "accessRole": "viewer", "expiresAt": 4_102_444_800_u64,
          "by": "user" },
    ]);
    assert_eq!(resources, expected);
    // A token from the cache is no mint.
    ask(&client, "ada@example.com").await;
    ask(&client, "eve").await;
    running.line_with("audit: a token was minted").await;
    assert_eq!(velt.call_count(), 2);
    assert!(!line.to_string().contains("ada"), "{line}");
}

//! Calls that a program signs as Standard Webhooks does.

use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::hmac::{HMAC_SHA256, Key, sign};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use tokio::task::JoinSet;

use super::{TOKEN, served};
use crate::support::app::FakeApp;
use crate::support::binary::Running;
use crate::support::client::{Answer, Client, Sending};
use crate::support::raw::unused_address;
use crate::support::velt::{FakeVelt, unix_seconds};
use crate::support::{Stage, document};

const SECRET: [u8; 32] = [7; 32];

/// Writes a secret of a webhook, and returns the settings that name its file.
fn webhook_toml(folder: &Path) -> String {
    let file = folder.join("secret");
    std::fs::write(&file, format!("whsec_{}\n", STANDARD.encode(SECRET))).expect("written");
    format!(
        "[logout.webhook]\npath = \"/velt/logout-webhook\"\nsecret_file = \"{}\"\n",
        file.display()
    )
}

/// Signs a call.
fn signed(call: Sending, id: &str, at: u64, body: &str, secret: [u8; 32]) -> Sending {
    let message = format!("{id}.{at}.{body}");
    let signature = sign(&Key::new(HMAC_SHA256, &secret), message.as_bytes());
    call.header("content-type", "application/json")
        .header("webhook-id", id)
        .header("webhook-timestamp", at.to_string())
        .header("webhook-signature", format!("v1,{}", STANDARD.encode(signature)))
}

async fn call(stage: &Stage, id: &str, at: u64, body: &str, secret: [u8; 32]) -> Answer {
    let call = stage.client().post("/velt/logout-webhook", body.to_owned());
    signed(call, id, at, body, secret).send().await
}

#[tokio::test]
async fn t70_signed_call_signs_its_user_out_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let stage = Stage::set(&webhook_toml(folder.path())).await;
    let bobs = served(&stage, "bob").await;
    served(&stage, "ada").await;
    let (now, ada) = (unix_seconds(), r#"{"user":"ada"}"#);
    let answer = call(&stage, "1", now, ada, SECRET).await;
    assert_eq!((answer.status(), &answer.json()["result"]), (200, &json!("done")));
    assert_eq!(stage.get_as("ada", TOKEN).await.code(), "signed_out");
    // A sender that had no answer repeats its call.
    let again = call(&stage, "1", now, ada, SECRET).await;
    assert_eq!((again.status(), &again.json()["result"]), (200, &json!("replayed")));

    for (id, at, body, secret, status, code) in [
        ("2", now, r#"{"user":"bob"}"#, [8; 32], 401, "signature"),
        ("3", now - 301, r#"{"user":"bob"}"#, SECRET, 401, "time"),
        ("4", now + 400, r#"{"user":"bob"}"#, SECRET, 401, "time"),
        ("5.6", now, r#"{"user":"bob"}"#, SECRET, 401, "malformed"),
        ("7", now, r#"{"user":"bob","organization":"acme"}"#, SECRET, 400, "malformed"),
        ("8", now, "{}", SECRET, 400, "malformed"),
    ] {
        let refused = call(&stage, id, at, body, secret).await;
        assert_eq!((refused.status(), &*refused.code()), (status, code), "{body}");
        assert_eq!(refused.header("cache-control"), Some("no-store"));
    }
    assert_eq!(served(&stage, "bob").await, bobs, "the same bytes");
    assert_eq!(stage.metric("logouts_total{source=\"webhook\"}").await, 1.0);
    assert!(stage.app.journal().is_empty());
}

/// A call that arrives late, or that an attacker sends again elsewhere, must not sign a user out who has signed in since.
#[tokio::test]
async fn logout_counts_from_the_time_that_was_signed() {
    let folder = tempfile::tempdir().expect("a folder");
    let toml = format!("[logout]\nrefuse_for = \"100s\"\n{}", webhook_toml(folder.path()));
    let stage = Stage::set(&toml).await;
    let before = served(&stage, "ada").await;
    let now = unix_seconds();
    for (id, at, user) in [("1", now - 130, "ada"), ("2", now - 70, "bob"), ("3", now + 200, "eve")]
    {
        let answer = call(&stage, id, at, &json!({ "user": user }).to_string(), SECRET).await;
        assert_eq!(answer.status(), 200);
    }
    assert_ne!(served(&stage, "ada").await, before, "forgotten, and not refused");
    assert_eq!(stage.get_as("bob", TOKEN).await.code(), "signed_out");
    // A sender whose clock is ahead signs no user out for longer.
    assert_eq!(stage.get_as("eve", TOKEN).await.code(), "signed_out");
}

#[tokio::test]
async fn signed_call_forgets_an_organization() {
    let folder = tempfile::tempdir().expect("a folder");
    let toml = format!(
        "[velt]\napi = \"v2\"\n[identity]\norganization_header = \"X-Org\"\n{}",
        webhook_toml(folder.path())
    );
    let stage = Stage::set(&toml).await;
    let token = async |user: &str, organization: &str| {
        let asking = stage.client().get(TOKEN).header("x-forwarded-user", user);
        asking.header("x-org", organization).send().await.json()["token"].clone()
    };
    let (acme, other) = (token("ada", "acme").await, token("bob", "other").await);
    let now = unix_seconds();
    let answer = call(&stage, "1", now, r#"{"organization":"acme"}"#, SECRET).await;
    assert_eq!(answer.status(), 200);
    assert_ne!(token("ada", "acme").await, acme, "minted anew, and not refused");
    assert_eq!(token("bob", "other").await, other);
}

#[tokio::test]
async fn call_that_other_replicas_miss_may_be_sent_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let key = folder.path().join("seal-key");
    std::fs::write(&key, STANDARD.encode([1; 32])).expect("written");
    // No server is there.
    let store = unused_address().await;
    let toml = format!(
        "{}[shared]\naddresses = [\"{store}\"]\nseal_key_file = \"{}\"\n",
        webhook_toml(folder.path()),
        key.display()
    );
    let stage = Stage::set(&toml).await;
    served(&stage, "ada").await;
    let now = unix_seconds();
    for _ in 0..2 {
        let answer = call(&stage, "1", now, r#"{"user":"ada"}"#, SECRET).await;
        assert_eq!((answer.status(), &*answer.code()), (503, "not_announced"));
        assert_eq!(answer.header("retry-after"), Some("1"));
        // Here, the logout is in force.
        assert_eq!(stage.get_as("ada", TOKEN).await.code(), "signed_out");
    }
}

#[tokio::test]
async fn wave_of_logouts_takes_every_users_token() {
    let folder = tempfile::tempdir().expect("a folder");
    let stage = Arc::new(Stage::set(&webhook_toml(folder.path())).await);
    let bobs = served(&stage, "bob").await;
    let mut calls = JoinSet::new();
    for number in 0..300 {
        let stage = Arc::clone(&stage);
        calls.spawn(async move {
            let user = format!("user-{number}");
            served(&stage, &user).await;
            let body = format!("{{\"user\":\"{user}\"}}");
            let answer = call(&stage, &user, unix_seconds(), &body, SECRET).await;
            (answer.status(), stage.get_as(&user, TOKEN).await.status())
        });
    }
    while let Some(answered) = calls.join_next().await {
        assert_eq!(answered.expect("no panic"), (200, 401));
    }
    assert_eq!(served(&stage, "bob").await, bobs, "the same bytes");
    assert_eq!(stage.metric("tokens_cached").await, 1.0);
    assert_eq!(stage.metric("logouts_remembered").await, 300.0);
}

/// A provider that names users otherwise than requests do ends no session, and has 200 for it (keycloak #12142).
#[tokio::test]
async fn log_tells_what_a_logout_found_and_names_no_user() {
    let folder = tempfile::tempdir().expect("a folder");
    let (app, velt) = (FakeApp::start().await, FakeVelt::start().await);
    let document = document(&app.address.to_string(), velt.address, &webhook_toml(folder.path()));
    let (mut running, traffic, _) = Running::configured(&document, &[]).await;
    let client = Client::to(traffic);
    let token = client.get(TOKEN).header("x-forwarded-user", "canary-user");
    assert_eq!(token.send().await.status(), 200);
    for (id, user, entries) in [("canary-1", "canary-other", 0), ("canary-2", "canary-user", 1)] {
        let body = format!("{{\"user\":\"{user}\"}}");
        let call = signed(
            client.post("/velt/logout-webhook", body.clone()),
            id,
            unix_seconds(),
            &body,
            SECRET,
        );
        assert_eq!(call.send().await.status(), 200);
        let line = running.line_with("a logout was carried out").await;
        assert!(line.contains(&format!("entries={entries}")), "{line}");
    }
    let forged = client.post("/velt/logout-webhook", "{}").header("webhook-id", "canary-3");
    assert_eq!(forged.send().await.status(), 401);
    running.line_with("a logout was refused").await;
    running.signal("TERM");
    let (_, printed) = running.ended().await;
    assert!(!printed.contains("canary"), "{printed}");
}

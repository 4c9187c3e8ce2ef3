//! Who tries to be somebody else is told of in the log, now and then, without what he said.

use crate::support::app::FakeApp;
use crate::support::binary::Running;
use crate::support::client::Client;
use crate::support::document;
use crate::support::velt::FakeVelt;

/// What a sidecar has logged of fifty requests with these headers.
async fn logged(toml: &str, headers: &[(&str, &str)]) -> Vec<String> {
    let (app, velt) = (FakeApp::start().await, FakeVelt::start().await);
    let document = document(&app.address.to_string(), velt.address, toml);
    let (running, traffic, _) = Running::configured(&document, &[]).await;
    for _ in 0..50 {
        let mut sending = Client::to(traffic).get("/");
        for (name, value) in headers {
            sending = sending.header(name, value);
        }
        sending.send().await;
    }
    running.signal("TERM");
    let (_, printed) = running.ended().await;
    assert!(!printed.contains("canary"), "{printed}");
    printed.lines().filter(|line| line.contains("peer=")).map(str::to_owned).collect()
}

#[tokio::test]
async fn fifty_forged_headers_are_one_line_for_each_kind() {
    let lines = logged(
        "[identity]\ntrusted_peers = [\"10.0.0.0/8\"]",
        &[("x-forwarded-user", "canary"), ("x_forwarded_user", "canary")],
    )
    .await;
    assert_eq!(lines.len(), 2, "{lines:?}");
    for (line, kind) in lines.iter().zip(["identity_header", "alias"]) {
        assert!(line.contains(&format!("kind=\"{kind}\" count=1 peer=127.0.0.1")), "{line}");
        assert!(line.contains("identity.trusted_peers"), "it says where to look: {line}");
    }
}

#[tokio::test]
async fn so_are_fifty_ambiguous_ones() {
    let headers = [("x-forwarded-user", "canary"), ("x-forwarded-user", "canary")];
    let lines = logged("", &headers).await;
    let [line] = &lines[..] else { panic!("{lines:?}") };
    assert!(line.contains("header=x-forwarded-user") && line.contains("more than once"), "{line}");
}

#[tokio::test]
async fn fifty_flawed_attributes_are_one_line_for_each_kind() {
    let toml = "[identity]\nemail_header = \"X-Email\"\nname_header = \"X-Name\"\n\
        [velt]\napi = \"v2\"\norganization = \"o\"";
    let name = "canary".repeat(50);
    let headers = [("x-forwarded-user", "ada"), ("x-email", ""), ("x-name", &*name)];
    let lines = logged(toml, &headers).await;
    let [email, name] = &lines[..] else { panic!("{lines:?}") };
    assert!(email.contains("attribute=\"email\"") && email.contains("it is empty"), "{email}");
    assert!(email.contains("INFO"), "a user without an address is no fault: {email}");
    assert!(name.contains("attribute=\"name\"") && name.contains("over 256 bytes"), "{name}");
    assert!(name.contains("WARN") && name.contains("count=1 peer=127.0.0.1"), "{name}");
}

#[tokio::test]
async fn fifty_placeholders_are_one_line_that_says_what_to_do() {
    let lines = logged("", &[("x-forwarded-user", "{canary.user}")]).await;
    let [line] = &lines[..] else { panic!("{lines:?}") };
    assert!(line.contains("WARN") && line.contains("header=x-forwarded-user"), "{line}");
    assert!(line.contains("identity.placeholders"), "{line}");
}

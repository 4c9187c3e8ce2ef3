//! Attempts to pass for another user: the sidecar logs them now and then, and without the client's
//! words.

use http::{HeaderValue, Response};

use crate::support::app::{AppBody, Arrived, FakeApp, full, plain};
use crate::support::binary::Running;
use crate::support::client::Client;
use crate::support::document;
use crate::support::velt::FakeVelt;

/// Returns the lines that a sidecar logs about the peer of fifty requests with these headers.
async fn logged(toml: &str, headers: &[(&str, &str)]) -> Vec<String> {
    let lines = logged_of(FakeApp::start().await, toml, &[], headers).await;
    lines.into_iter().filter(|line| line.contains("peer=")).collect()
}

/// Returns all lines that a sidecar in front of `app` logs during fifty requests with these headers.
async fn logged_of(
    app: FakeApp,
    toml: &str,
    environment: &[(&str, &str)],
    headers: &[(&str, &str)],
) -> Vec<String> {
    let velt = FakeVelt::start().await;
    let document = document(&app.address.to_string(), velt.address, toml);
    let (running, traffic, _) = Running::configured(&document, environment).await;
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
    printed.lines().map(str::to_owned).collect()
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
async fn fifty_ambiguous_headers_are_one_line() {
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

/// Names a user with the flaw that the request asks for.
fn with_a_flaw(request: &Arrived) -> Response<AppBody> {
    let mut response = plain("hello");
    let words: &[&[u8]] = match request.header("x-flaw") {
        Some("twice") => &[b"canary", b"canary"],
        Some("comma") => &[b"canary,canary"],
        _ => &[b"canary\xff"],
    };
    for word in words {
        let word = HeaderValue::from_bytes(word).expect("a value");
        response.headers_mut().append("x-velt-user", word);
    }
    response
}

#[tokio::test]
async fn fifty_ambiguous_answers_of_the_app_are_one_line() {
    for (flaw, reason) in [("twice", "more than once"), ("comma", "comma"), ("bytes", "UTF-8")] {
        let app = FakeApp::answering(with_a_flaw).await;
        let toml = "[identity]\nsource = \"app\"\napp_path = \"/me\"";
        let lines = logged_of(app, toml, &[], &[("x-flaw", flaw)]).await;
        let lines: Vec<_> = lines.iter().filter(|line| line.contains("x-velt-user")).collect();
        let [line] = &lines[..] else { panic!("{flaw}: {lines:?}") };
        assert!(line.contains("WARN") && line.contains(reason), "{flaw}: {line}");
        assert!(line.contains("the app's response") && !line.contains("peer"), "{flaw}: {line}");
    }
}

#[tokio::test]
async fn useless_details_of_the_app_are_one_line_without_values() {
    for (body, level, part) in [
        ("{\"userId\":\"canary-eve\"}", "ERROR", "with the details of another user"),
        ("{\"name\":\"\",\"x-canary\":1}", "WARN", "the app gave no details of a user"),
        ("<p>canary</p>", "WARN", "not one JSON object"),
    ] {
        let app = FakeApp::answering(move |_| Response::new(full(body))).await;
        let toml = "[identity]\ndetails_path = \"/details\"\n[delivery.header]\nmax_wait = \"10s\"";
        let lines = logged_of(app, toml, &[], &[("x-forwarded-user", "canary-ada")]).await;
        let lines: Vec<_> = lines.iter().filter(|line| line.contains("detail")).collect();
        let [line] = &lines[..] else { panic!("{body}: {lines:?}") };
        assert!(line.contains(level) && line.contains(part), "{line}");
    }
}

#[tokio::test]
async fn forged_app_header_is_told_without_naming_trusted_peers() {
    let toml = "[identity]\nsource = \"app\"\napp_path = \"/me\"";
    let lines = logged(toml, &[("x-velt-user", "canary")]).await;
    let [line] = &lines[..] else { panic!("{lines:?}") };
    assert!(line.contains("the app may set") && !line.contains("trusted_peers"), "{line}");
}

#[tokio::test]
async fn a_header_without_the_secret_is_told_with_its_setting() {
    let toml = "[identity]\nsecret_header = \"X-Sidecar-Secret\"";
    let secret = [("VELT_SIDECAR_IDENTITY__SECRET", "the-secret-of-the-front-and-the-sidecar")];
    for more in [("x-other", "1"), ("x-sidecar-secret", "wrong-canary")] {
        let headers = [("x-forwarded-user", "canary"), more];
        let lines = logged_of(FakeApp::start().await, toml, &secret, &headers).await;
        let lines: Vec<_> = lines.iter().filter(|line| line.contains("were removed")).collect();
        assert!(!lines.is_empty(), "{more:?}");
        for line in lines {
            assert!(line.contains("identity.secret_header"), "{line}");
            assert!(line.contains("VELT_SIDECAR_IDENTITY__SECRET"), "{line}");
            assert!(!line.contains("trusted_peers"), "{line}");
        }
    }
}

#[tokio::test]
async fn sessions_of_another_secret_are_one_line() {
    let toml = "[identity]\npreset = \"nextauth\"\n";
    let secret =
        ("VELT_SIDECAR_IDENTITY__ASSERTION__SECRET", "a secret of more than 32 bytes, or so");
    // `{"alg":"dir","enc":"A256GCM"}`, a vector, nothing encrypted, and a tag.
    let sealed =
        "eyJhbGciOiJkaXIiLCJlbmMiOiJBMjU2R0NNIn0..AAAAAAAAAAAAAAAA..AAAAAAAAAAAAAAAAAAAAAA";
    let cookie = format!("next-auth.session-token={sealed}; canary=canary");
    let app = FakeApp::start().await;
    let lines = logged_of(app, toml, &[secret], &[("cookie", &cookie)]).await;
    let about: Vec<_> =
        lines.iter().filter(|line| line.contains("assertion was refused")).collect();
    let [line] = &about[..] else { panic!("{lines:?}") };
    assert!(line.contains("another secret has sealed it"), "{line}");
}

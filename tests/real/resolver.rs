//! Tokens for resolvers, checked by Velt's own Python SDK over TLS, as a team's resolver endpoint checks them.

use std::fs;
use std::path::Path;
use std::process::Command;

use http::Response;
use http_body_util::Full;
use serde_json::{Value, json};
use tokio::task::spawn_blocking;

use crate::neighbour::{Sidecar, http_client_builder, serve_app, tool};

const ISSUER: &str = "https://app.example";
const AUDIENCE: &str = "resolvers";

/// Writes a certificate for `localhost`, which vouches for itself, and two signing keys.
fn write_files(folder: &Path) {
    let certificate = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]);
    let certificate = certificate.expect("a certificate");
    let write = |name: &str, text: String| fs::write(folder.join(name), text).expect("written");
    write("tls.crt", certificate.cert.pem());
    write("tls.key", certificate.signing_key.serialize_pem());
    for name in ["key.pem", "other.pem"] {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key");
        write(name, key.serialize_pem());
    }
}

/// Has the SDK check a token for `audience`.
async fn verdict(token: &str, keys: &str, audience: &str, roots: &Path) -> Value {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/real/apps/resolver.py");
    let mut command = Command::new(tool("python-of-velt"));
    command.args([script, token, keys, ISSUER, audience]).env("REQUESTS_CA_BUNDLE", roots);
    let output = spawn_blocking(move || command.output()).await.expect("no panic");
    let output = output.expect("Python runs");
    let text = String::from_utf8(output.stdout).expect("text");
    text.lines().last().and_then(|line| line.parse().ok()).unwrap_or_else(|| {
        panic!("{text}{}", String::from_utf8_lossy(&output.stderr));
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn python_sdk_of_velt_accepts_a_resolver_token() {
    let folder = tempfile::tempdir().expect("a folder");
    write_files(folder.path());
    let (_app, app) = serve_app(|_| Response::new(Full::default())).await;
    let file = |name: &str| folder.path().join(name).display().to_string();
    let settings = [
        ("VELT_SIDECAR_LISTEN__TLS__CERTIFICATE_FILE", &*file("tls.crt")),
        ("VELT_SIDECAR_LISTEN__TLS__KEY_FILE", &file("tls.key")),
        ("VELT_SIDECAR_RESOLVER__KEY_FILE", &file("key.pem")),
        ("VELT_SIDECAR_RESOLVER__OTHER_KEY_FILE", &file("other.pem")),
        ("VELT_SIDECAR_RESOLVER__ISSUER", ISSUER),
        ("VELT_SIDECAR_RESOLVER__AUDIENCE", AUDIENCE),
    ];
    let sidecar = Sidecar::start_with(app, &settings).await;
    let port = sidecar.addresses.traffic.port();

    let roots = folder.path().join("tls.crt");
    let pem = fs::read(&roots).expect("the certificate");
    let certificate = reqwest::Certificate::from_pem(&pem).expect("a certificate");
    let http = http_client_builder().add_root_certificate(certificate).build().expect("a client");
    let base = format!("https://localhost:{port}");
    let asking = http.get(format!("{base}/api/velt/resolver-token"));
    let answer = asking.header("x-forwarded-user", "ada").send().await.expect("an answer");
    let answer: Value = answer.text().await.expect("text").parse().expect("JSON");
    let token = answer["token"].as_str().expect("a token");
    let keys = format!("{base}/api/velt/resolver-keys");

    let accepted = verdict(token, &keys, AUDIENCE, &roots).await;
    assert_eq!(accepted, json!({ "verified": true, "code": null, "user": "ada" }));
    let other = verdict(token, &keys, "another", &roots).await;
    assert_eq!(other["code"], "CLAIM_MISMATCH");
    let (message, _) = token.rsplit_once('.').expect("three parts");
    let forged = verdict(&format!("{message}.{}", "A".repeat(86)), &keys, AUDIENCE, &roots).await;
    assert_eq!(forged["code"], "INVALID_SIGNATURE");
}

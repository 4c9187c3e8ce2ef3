//! Tokens for resolvers, checked by Velt's own Python SDK over TLS, as a team's resolver endpoint checks them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use http::Response;
use http_body_util::Full;
use serde_json::{Value, json};
use server::Server;
use server::config::Config;
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;

use crate::neighbour::{CREDENTIALS, http_client_builder, serve_app, tool};

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

fn toml(folder: &Path, app: std::net::SocketAddr) -> String {
    let file = |name: &str| folder.join(name).display().to_string();
    format!(
        r#"
        [listen]
        address = "127.0.0.1:0"
        [listen.tls]
        certificate_file = "{}"
        key_file = "{}"
        [admin]
        address = "127.0.0.1:0"
        [app]
        address = "{app}"
        [resolver]
        key_file = "{}"
        other_key_file = "{}"
        issuer = "{ISSUER}"
        audience = "{AUDIENCE}"
        "#,
        file("tls.crt"),
        file("tls.key"),
        file("key.pem"),
        file("other.pem"),
    )
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
    let (api_key, auth_token) = CREDENTIALS;
    let environment = [("VELT_API_KEY", api_key), ("VELT_AUTH_TOKEN", auth_token)];
    let environment: BTreeMap<_, _> =
        environment.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let config = Config::parse("sidecar.toml", &toml(folder.path(), app), &environment);
    let server = Server::bind(config.unwrap_or_else(|error| panic!("{error}")));
    let server = server.unwrap_or_else(|error| panic!("{error}"));
    let port = server.addresses().traffic.port();
    let (_stop, stopped) = oneshot::channel::<()>();
    tokio::spawn(server.run(async move {
        // A dropped sender stops the sidecar too.
        let _ = stopped.await;
    }));

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

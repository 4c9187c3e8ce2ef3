//! A real Apache in front that has no user for some pages: it sends an empty header, or `(null)`, as
//! `RequestHeader` does for a variable that is not set.

use std::net::SocketAddr;
use std::process::Command;

use http::{Request, Response};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::apache::apache;
use crate::neighbour::{Process, Sidecar, claims_of, http_client, is_in_front_of, serve_app};

const SETTINGS: [(&str, &str); 3] = [
    ("VELT_SIDECAR_VELT__API", "v2"),
    ("VELT_SIDECAR_VELT__ORGANIZATION", "acme"),
    ("VELT_SIDECAR_IDENTITY__EMAIL_HEADER", "X-Forwarded-Email"),
];

/// Answers as the app: with the user's headers, and at `/whose` with the sidecar in front.
fn show(request: &Request<Incoming>) -> Response<Full<Bytes>> {
    if request.uri().path() == "/whose" {
        let sidecar = request.headers()["x-sidecar"].as_bytes().to_vec();
        return Response::new(Full::from(sidecar));
    }
    let names = ["x-forwarded-user", "x-forwarded-email"];
    let said = |name: &&str| {
        let value = request.headers().get(*name).and_then(|value| value.to_str().ok());
        (String::from(*name), json!(value))
    };
    let seen: serde_json::Map<_, _> = names.iter().map(said).collect();
    Response::new(Full::from(Value::from(seen).to_string()))
}

/// Users and `{SHA}` of their passwords; the password here is "secret".
const PASSWORDS: &str = "ada:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\n";

fn apache_of(folder: &TempDir, port: u16, sidecar: SocketAddr) -> Command {
    let lines = format!(
        r#"
        Listen 127.0.0.1:{port}
        RequestHeader set X-Sidecar "{sidecar}"
        <Location "/expr">
            RequestHeader set X-Forwarded-User "expr=%{{REMOTE_USER}}"
        </Location>
        <Location "/env">
            RequestHeader set X-Forwarded-User "%{{REMOTE_USER}}e"
            RequestHeader set X-Forwarded-Email "%{{MAIL}}e"
        </Location>
        <Location "/private">
            AuthType Basic
            AuthName app
            AuthBasicProvider file
            AuthUserFile "{root}/passwords"
            Require valid-user
            RequestHeader set X-Forwarded-User "expr=%{{REMOTE_USER}}"
            RequestHeader set X-Forwarded-Email "%{{MAIL}}e"
        </Location>
        ProxyPass "/" "http://{sidecar}/"
        "#,
        root = folder.path().display(),
    );
    apache(folder.path(), &["authn_file", "auth_basic"], &lines)
}

#[tokio::test]
async fn request_without_an_apache_user_is_anonymous() {
    let (_app, app) = serve_app(show).await;
    let sidecar = Sidecar::start_with(app, &SETTINGS).await;
    let behind = sidecar.addresses.traffic;
    let folder = TempDir::new().expect("a folder for Apache");
    std::fs::write(folder.path().join("passwords"), PASSWORDS).expect("a file in it");
    let command = |port: u16| apache_of(&folder, port, behind);
    let http = http_client();
    let ready = async |address| is_in_front_of(&http, address, behind).await;
    // Apache started by root gives up root's rights, and still has to read the passwords.
    let readable = Command::new("chmod").arg("-R").arg("a+rX").arg(folder.path()).status();
    assert!(readable.is_ok_and(|status| status.success()));
    let (_apache, front) = Process::start_on_free_port(command, ready).await;

    for path in ["/expr", "/env"] {
        // Where Apache sets no header, a header that the client adds is the client's own.
        let asking = http.get(format!("http://{front}{path}"));
        let answer = asking.header("x-forwarded-email", "eve@a.example").send().await;
        let answer = answer.expect("an answer");
        let status = answer.headers().get("x-velt-token-status").cloned();
        assert_eq!(
            (answer.status().as_u16(), status),
            (200, Some("anonymous".parse().expect("a value")))
        );
        let seen: Value = answer.text().await.expect("text").parse().expect("JSON");
        assert_ne!(seen["x-forwarded-email"], "eve@a.example", "{path}: {seen}");
    }
    let answer = http.get(format!("http://{front}/private")).basic_auth("ada", Some("secret"));
    let answer = answer.send().await.expect("an answer");
    assert_eq!(answer.status(), 200, "an address that is (null) refuses nobody");
    let token = answer.headers()["x-velt-token"].to_str().expect("a token").to_owned();
    assert_eq!(claims_of(&token)["userId"], "ada");
}

//! Findings about what the sidecar calls: names, Velt, keys, the app.

use std::net::SocketAddr;

use http::Response;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tools::doctor::{Check, Finding, Report, Severity, Tolerated};

use super::{Patient, only};
use crate::support::app::{FakeApp, full, plain};
use crate::support::certificates::{Authority, VALID, terminate};
use crate::support::document;
use crate::support::issuer::{Issuer, Pen};
use crate::support::velt::{answer, jwt, minted, refused, unix_seconds};

/// Returns a name with a label longer than RFC 1035 section 2.3.4 allows: no resolver sends such a name
/// anywhere.
fn no_name() -> String {
    format!("{}.example", "a".repeat(64))
}

fn find<'r>(report: &'r Report, check: Check, part: &str) -> &'r Finding {
    let is_it = |finding: &&Finding| finding.check == check && finding.what.contains(part);
    let found = report.findings().iter().find(is_it);
    found.unwrap_or_else(|| panic!("no {check:?} with {part:?} in\n{}", report.text()))
}

#[tokio::test]
async fn doctor_tells_the_claims_of_a_mint_without_the_token() {
    use Severity::{Note, Ok, Problem, Warning};
    let now = unix_seconds();
    let user = "canary-user";
    let whole = json!({ "userId": user, "iat": now, "exp": now + 172_800 });
    let claims = |claims| answer_with(&jwt(&claims));
    let opaque = answer_with("canary.token");
    for (velt, toml, severity, part) in [
        (claims(whole.clone()), "", Ok, "a JWT (HS256) with the claims exp, iat, userId"),
        (claims(whole.clone()), "", Ok, "no nbf, exp 48.0 h ahead; served for 48.0 h at most"),
        (claims(whole.clone()), "", Ok, "its userId is the one that was asked for"),
        (
            claims(json!({ "userId": user, "exp": now + 600 })),
            "",
            Note,
            "served for 10 min at most",
        ),
        (claims(json!({ "userId": user })), "", Note, "no iat, no nbf, no exp"),
        (claims(json!({ "sub": user, "exp": now + 9000 })), "", Note, "it has no claim userId"),
        (
            claims(json!({ "userId": user, "exp": now + 9000, "a\u{1b}[31m": 1 })),
            "",
            Ok,
            "exp, userId and 1 not shown",
        ),
        (opaque, "", Note, "the token is no JWT"),
        (claims(json!({ "userId": "other" })), "", Problem, "names another user"),
        (
            claims(json!({ "userId": "other", "exp": now + 9000 })),
            "[velt]\nverify_user = \"off\"",
            Warning,
            "its userId is another one",
        ),
        (
            claims(json!({ "exp": now + 9000 })),
            "[velt]\nverify_user = \"require\"",
            Problem,
            "carries no user claim",
        ),
        (claims(json!({ "exp": now - 1 })), "", Problem, "has already expired"),
        (
            claims(whole),
            "[velt]\nattempt_timeout = \"1ms\"",
            Warning,
            "which is more than the 1ms that are allowed",
        ),
    ] {
        let patient = Patient::new().await;
        let slow = toml.contains("attempt_timeout");
        patient.velt.script(move |_, _| {
            if slow {
                busy();
            }
            velt()
        });
        only(&patient.examine(toml).await, Check::Mint, severity, part);
    }
}

/// Keeps this thread busy for longer than a millisecond.
fn busy() {
    let began = tokio::time::Instant::now();
    while began.elapsed() < std::time::Duration::from_millis(5) {
        std::hint::spin_loop();
    }
}

type Answer = Box<dyn Fn() -> Response<http_body_util::Full<bytes::Bytes>> + Send + Sync>;

fn answer_with(token: &str) -> Answer {
    let token = token.to_owned();
    Box::new(move || minted(&token))
}

#[tokio::test]
async fn refusal_of_velt_is_told_with_a_remedy() {
    for (velt, part, remedy) in [
        (refused(403, "PERMISSION_DENIED"), "HTTP 403 PERMISSION_DENIED", "copy the API key"),
        (refused(401, "UNAUTHENTICATED"), "HTTP 401 UNAUTHENTICATED", "copy the API key"),
        (refused(404, "NOT_FOUND"), "HTTP 404 NOT_FOUND", "copy the API key"),
        (refused(400, "INVALID_ARGUMENT"), "HTTP 400 INVALID_ARGUMENT", "velt.api"),
        (refused(429, "RESOURCE_EXHAUSTED"), "HTTP 429 RESOURCE_EXHAUSTED", "wait"),
        (refused(503, "canary: a word that is none"), "HTTP 503 after", "velt.endpoint"),
        (answer(200, "<html>canary</html>"), "not JSON", "another server answers there"),
        (answer(200, "{}"), "no result.data.token", "another server answers there"),
    ] {
        let patient = Patient::new().await;
        let velt = std::sync::Mutex::new(Some(velt));
        patient.velt.script(move |_, _| velt.lock().expect("no panic").take().expect("one call"));
        let finding = only(&patient.examine("").await, Check::Mint, Severity::Problem, part);
        let said = finding.remedy.expect("a remedy");
        assert!(said.contains(remedy), "{said}");
    }
}

#[tokio::test]
async fn doctor_mints_nothing_if_each_user_has_an_organization() {
    let patient = Patient::new().await;
    let toml = "[velt]\napi = \"v2\"\n[identity]\norganization_header = \"x-organization\"";
    only(&patient.examine(toml).await, Check::Mint, Severity::Note, "not minted");
    assert_eq!(patient.velt.call_count(), 0);
}

#[tokio::test]
async fn an_outage_at_velt_is_a_problem_unless_it_is_tolerated() {
    let mut patient = Patient::new().await;
    let gone = gone().await;
    let app = patient.app.address.to_string();
    let report = patient.examine_with(&app, gone, "").await;
    assert_eq!(report.exit_code(false), 69);
    for (check, part) in [(Check::Velt, "can't be reached directly"), (Check::Mint, "no answer")] {
        assert_eq!(find(&report, check, part).severity, Severity::Problem);
    }
    (patient.mint, patient.tolerated) = (false, Tolerated::Velt);
    let report = patient.examine_with(&app, gone, "").await;
    only(&report, Check::Velt, Severity::Warning, "can't be reached directly");
    assert_eq!(report.exit_code(false), 0);
}

/// Returns an address at which no socket listens any more.
async fn gone() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    listener.local_addr().expect("an address")
}

#[tokio::test]
async fn a_name_without_an_address_is_named_with_its_setting() {
    let mut patient = Patient::new().await;
    patient.mint = false;
    let name = no_name();
    let report = patient.examine(&format!("[velt]\nendpoint = \"https://{name}/\"")).await;
    let finding = find(&report, Check::Resolution, "it has no address");
    assert_eq!(finding.r#where, format!("velt.endpoint {name}"));
    assert_eq!((finding.severity, report.exit_code(false)), (Severity::Problem, 69));

    let velt = patient.velt.address;
    let report = patient.examine_with("localhost:1", velt, "").await;
    assert!(find(&report, Check::Resolution, "127.0.0.1").severity == Severity::Ok);
}

#[tokio::test]
async fn clocks_that_differ_are_told() {
    use Severity::{Note, Ok, Problem, Warning};
    for (shift, severity, part) in [
        (0, Ok, "agree to within 5 s"),
        (20, Warning, "behind Velt's"),
        (-20, Warning, "ahead of Velt's"),
        (3600, Problem, "behind Velt's"),
        (-3600, Problem, "ahead of Velt's"),
    ] {
        let velt = dated(move || {
            let now = unix_seconds().checked_add_signed(shift).expect("after 1970");
            let now = std::time::UNIX_EPOCH + std::time::Duration::from_secs(now);
            httpdate::fmt_http_date(now)
        });
        let mut patient = Patient::new().await;
        patient.mint = false;
        let (velt, app) = (velt.await, patient.app.address.to_string());
        let report = patient.examine_with(&app, velt.address, "").await;
        only(&report, Check::Clock, severity, part);
    }
    let velt = dated(|| "yesterday".to_owned()).await;
    let mut patient = Patient::new().await;
    patient.mint = false;
    let report = patient.examine_with(&patient.app.address.to_string(), velt.address, "").await;
    only(&report, Check::Clock, Note, "it sends no Date");
}

async fn dated(date: impl Fn() -> String + Send + Sync + 'static) -> FakeApp {
    FakeApp::answering(move |_| {
        let mut response = plain("");
        response.headers_mut().insert("date", date().parse().expect("a value"));
        response
    })
    .await
}

#[tokio::test]
async fn a_redirect_at_velts_address_is_a_problem() {
    let velt = FakeApp::answering(|_| {
        let mut response = plain("");
        *response.status_mut() = http::StatusCode::FOUND;
        response
    })
    .await;
    let mut patient = Patient::new().await;
    patient.mint = false;
    let report = patient.examine_with(&patient.app.address.to_string(), velt.address, "").await;
    only(&report, Check::Velt, Severity::Problem, "which is a redirect");
}

#[tokio::test]
async fn velts_certificate_is_shown_and_a_problem_if_untrusted() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let mut patient = Patient::new().await;
    patient.mint = false;
    let config = ours.issue(&["localhost"], VALID).server(&["http/1.1"]);
    let velt = terminate(patient.velt.address, config).await;
    let endpoint = format!("[velt]\nendpoint = \"https://localhost:{}/\"\n", velt.port());
    for (authority, severity, part) in [
        (&ours, Severity::Ok, "its certificate is by \"CN=root"),
        (&ours, Severity::Ok, "TLS after"),
        (&theirs, Severity::Problem, "but no TLS: invalid peer certificate"),
    ] {
        let ca = patient.folder.write("ca.crt", authority.pem());
        let toml = format!("{endpoint}[outgoing]\nca_file = {ca:?}");
        let finding = only(&patient.examine(&toml).await, Check::Velt, severity, part);
        let remedy = finding.remedy.unwrap_or_default();
        assert_eq!(remedy.contains("outgoing.ca_file"), severity == Severity::Problem);
    }
}

#[tokio::test]
async fn assertion_keys_are_fetched_and_compared_with_the_settings() {
    use Severity::{Ok, Problem};
    let (es, rs) = (Pen::es256("canary-1"), Pen::rs256("canary-2"));
    let status = |status: u16| {
        move || Response::builder().status(status).body(full("")).expect("a response")
    };
    for (answer, algorithms, severity, part) in [
        (None, "[\"ES256\"]", Ok, "2 keys (ES256, RS256), 1 of them for an algorithm"),
        (None, "[\"EdDSA\"]", Problem, "none of which is for an algorithm that is allowed"),
        (Some(status(200)), "[\"ES256\"]", Problem, "there is no JWK set"),
        (Some(status(404)), "[\"ES256\"]", Problem, "no such document"),
        (Some(status(302)), "[\"ES256\"]", Problem, "redirects elsewhere"),
        (Some(status(500)), "[\"ES256\"]", Problem, "answered with an error"),
    ] {
        let issuer = Issuer::publishing(&[&es, &rs]).await;
        if let Some(answer) = answer {
            issuer.answer(move |_| answer());
        }
        let patient = Patient::new().await;
        let toml = format!("{}algorithms = {algorithms}", issuer.toml());
        let mut report = patient.examine(&toml).await;
        only(&report, Check::Keys, severity, part);
        if severity == Problem {
            let tolerant = Patient { tolerated: Tolerated::Velt, ..patient };
            report = tolerant.examine(&toml).await;
            only(&report, Check::Keys, Severity::Warning, part);
        }
    }
}

#[tokio::test]
async fn keys_of_logout_tokens_are_fetched_too() {
    let issuer = Issuer::publishing(&[&Pen::es256("1")]).await;
    let patient = Patient::new().await;
    let toml = format!(
        "[logout.oidc]\npath = \"/velt/logout\"\nissuer = \"i\"\naudience = [\"a\"]\n\
         jwks_url = \"http://{}/keys\"",
        issuer.server.address
    );
    let report = patient.examine(&toml).await;
    only(&report, Check::Keys, Severity::Ok, "1 keys (ES256), 1 of them");
    issuer.answer(|_| plain("no keys"));
    let report = patient.examine(&toml).await;
    only(&report, Check::Keys, Severity::Problem, "there is no JWK set");
}

#[tokio::test]
async fn missing_app_is_a_problem_unless_it_may_come_later() {
    let mut patient = Patient::new().await;
    let (gone, velt) = (gone().await.to_string(), patient.velt.address);
    for app in [gone.as_str(), "unix:/nowhere/app.sock"] {
        patient.tolerated = Tolerated::Velt;
        let report = patient.examine_with(app, velt, "").await;
        only(&report, Check::App, Severity::Problem, "no connection to the app could be opened");
        patient.tolerated = Tolerated::Everything;
        let report = patient.examine_with(app, velt, "").await;
        only(&report, Check::App, Severity::Warning, "no connection to the app could be opened");
    }
}

#[tokio::test]
async fn wrong_app_protocol_is_told_from_a_broken_app() {
    let patient = Patient::new().await;
    let velt = patient.velt.address;
    let h2c = FakeApp::serving_h2c(|_| async { plain("") }).await.address.to_string();
    let http1 = patient.app.address.to_string();
    let (gate, silent) = FakeApp::gated().await;
    let silent = silent.address.to_string();
    let no_http = answering_bytes(b"canary\r\n\r\n").await.to_string();
    for (app, toml, severity, part) in [
        (&h2c, "protocol = \"h2c\"", Severity::Ok, "it answers HTTP/2 without TLS"),
        (&h2c, "", Severity::Problem, "speaks HTTP/2 without TLS and not HTTP/1.1"),
        (&http1, "protocol = \"h2c\"", Severity::Problem, "speaks HTTP/1.1 and not HTTP/2"),
        (&silent, "response_timeout = \"50ms\"", Severity::Problem, "did not begin to answer"),
        (&no_http, "", Severity::Problem, "its answer is not HTTP"),
    ] {
        let report = patient.examine_with(app, velt, &format!("[app]\n{toml}")).await;
        only(&report, Check::App, severity, part);
    }
    drop(gate);
}

#[tokio::test]
async fn app_over_tls_needs_a_trusted_certificate() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let patient = Patient::new().await;
    let config = ours.issue(&["localhost"], VALID).server(&["http/1.1"]);
    let app = terminate(patient.app.address, config).await;
    let app = format!("https://localhost:{}", app.port());
    for (authority, severity, part) in [
        (&ours, Severity::Ok, "it answers HTTP/1.1"),
        (&theirs, Severity::Problem, "no connection to the app could be opened"),
    ] {
        let ca = patient.folder.write("ca.crt", authority.pem());
        let toml = format!("[app]\nca_file = {ca:?}");
        let report = patient.examine_with(&app, patient.velt.address, &toml).await;
        only(&report, Check::App, severity, part);
    }
    let toml = "[app]\nca_file = \"/nowhere/ca.crt\"";
    let report = patient.examine_with(&app, patient.velt.address, toml).await;
    assert_eq!(find(&report, Check::App, "/nowhere/ca.crt").severity, Severity::Problem);
}

#[tokio::test]
async fn an_app_that_drops_idle_connections_first_is_told() {
    let patient = Patient::new().await;
    let velt = patient.velt.address;
    let closing = FakeApp::answering(|_| {
        let mut response = plain("");
        response.headers_mut().insert("connection", "close".parse().expect("a value"));
        response
    });
    let announcing = FakeApp::answering(|_| {
        let mut response = plain("");
        response.headers_mut().insert("keep-alive", "timeout=4, max=9".parse().expect("a value"));
        response
    });
    let failing = FakeApp::answering(|_| {
        let mut response = plain("");
        *response.status_mut() = http::StatusCode::BAD_GATEWAY;
        response
    });
    let (closing, announcing, failing) = (closing.await, announcing.await, failing.await);
    let dropping = answering_bytes(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    for (app, toml, severity, part) in [
        (closing.address, "", Severity::Warning, "closes every connection after its response"),
        (
            announcing.address,
            "idle_timeout = \"5s\"",
            Severity::Warning,
            "says Keep-Alive: timeout=4",
        ),
        (announcing.address, "", Severity::Ok, "for more than 50.0ms, which is longer"),
        (
            dropping,
            "idle_timeout = \"10s\"",
            Severity::Warning,
            "the app closed an idle connection",
        ),
        (dropping, "max_idle = 0", Severity::Ok, "each request has a connection of its own"),
        (failing.address, "", Severity::Warning, "GET / gave 502"),
        (unspecified(patient.app.address), "", Severity::Warning, "0.0.0.0 is not loopback"),
    ] {
        let toml = format!("[app]\n{toml}");
        let report = patient.examine_with(&app.to_string(), velt, &toml).await;
        only(&report, Check::App, severity, part);
    }
}

#[tokio::test]
async fn doctor_advises_max_idle_0_if_the_app_closes_at_once() {
    let patient = Patient::new().await;
    let dropping = answering_bytes(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let toml = "[app]\nidle_timeout = \"10s\"";
    let report = patient.examine_with(&dropping.to_string(), patient.velt.address, toml).await;
    let finding = only(&report, Check::App, Severity::Warning, "unannounced");
    let remedy = finding.remedy.as_deref().expect("there is one");
    assert!(remedy.contains("write max_idle = 0 in [app]"), "{remedy}");
}

#[tokio::test]
async fn doctor_of_a_sidecar_without_an_app_asks_no_app() {
    let patient = Patient::new().await;
    let none = "[app]\naddress = \"none\"\n[delivery.check]\npath = \"/velt/check\"";
    let text = document(
        "none",
        patient.velt.address,
        &format!("{none}\n[listen]\nmax_connections = 10\n[cache]\nmax_bytes = \"1MiB\""),
    );
    let report = patient.examine_text(Ok(text)).await;
    let finding = only(&report, Check::App, Severity::Note, "no app is behind the sidecar");
    assert!(finding.what.ends_with("/api/velt/token, /velt/check"), "{}", finding.what);
    assert!(patient.app.journal().is_empty());
}

/// Replaces the address by the unspecified one, through which this machine still reaches loopback.
fn unspecified(address: SocketAddr) -> SocketAddr {
    SocketAddr::from(([0, 0, 0, 0], address.port()))
}

/// Serves `bytes` to each client that has sent something, and closes the connection.
async fn answering_bytes(bytes: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut asked = [0; 1024];
                // A client that has gone meanwhile does not matter here.
                if stream.read(&mut asked).await.is_ok_and(|length| length > 0) {
                    let _ = stream.write_all(bytes).await;
                }
            });
        }
    });
    address
}

const APP: &str = "[identity]\nsource = \"app\"\napp_path = \"/me\"";

/// An app that answers `GET /` with 200 and `/me` with this status, location and user.
async fn app_with(
    status: u16,
    location: Option<&'static str>,
    unless_https: bool,
    user: Option<&'static str>,
) -> FakeApp {
    FakeApp::answering(move |request| {
        let mut response = plain("hello");
        let by_https = request.header("x-forwarded-proto") == Some("https");
        if request.target != "/me" || unless_https && by_https {
            return response;
        }
        *response.status_mut() = status.try_into().expect("a status");
        for (name, value) in [("location", location), ("x-velt-user", user)] {
            if let Some(value) = value {
                let value = http::HeaderValue::from_static(value);
                response.headers_mut().insert(name, value);
            }
        }
        response
    })
    .await
}

#[tokio::test]
async fn b4_doctor_asks_where_the_sidecar_will_ask() {
    use Severity::{Note, Ok, Warning};
    let https = Some("https://app.example/me");
    for (app, severity, part) in [
        (app_with(200, None, false, None).await, Ok, "answers 200 and names no user"),
        (app_with(401, None, false, None).await, Ok, "answers 401 and names no user"),
        (app_with(302, Some("/login"), false, None).await, Ok, "answers 302 and names no user"),
        (app_with(301, https, true, None).await, Note, "unless told X-Forwarded-Proto: https"),
        (app_with(301, https, false, None).await, Warning, "even with X-Forwarded-Proto: https"),
        (app_with(404, None, false, None).await, Warning, "answers 404: it names no user"),
        (app_with(500, None, false, None).await, Warning, "answers 500: it names no user"),
        (app_with(200, None, false, Some("canary")).await, Warning, "every visitor would be"),
    ] {
        let patient = Patient::new().await;
        let report =
            patient.examine_with(&app.address.to_string(), patient.velt.address, APP).await;
        let finding = only(&report, Check::App, severity, part);
        assert_eq!(finding.r#where, "identity.app_path /me");
    }
}

#[tokio::test]
async fn doctor_asks_for_the_details_of_no_user() {
    use Severity::{Note, Ok, Warning};
    for (status, severity, part) in [
        (401, Ok, "answers 401, as it should"),
        (404, Note, "no such page"),
        (200, Warning, "may answer about another user"),
        (302, Warning, "no user would get a token"),
        (500, Warning, "no user would get a token"),
    ] {
        let app = app_with(status, Some("/login"), false, None).await;
        let patient = Patient::new().await;
        let toml = "[identity]\ndetails_path = \"/me\"";
        let app = app.address.to_string();
        let report = patient.examine_with(&app, patient.velt.address, toml).await;
        let finding = only(&report, Check::App, severity, part);
        assert_eq!(finding.r#where, "identity.details_path /me");
    }
}

#[tokio::test]
async fn b3_doctor_finds_an_app_that_insists_on_https() {
    for (believes, severity, part) in [
        (true, Severity::Note, "redirects GET / to https, unless it is told"),
        (false, Severity::Warning, "redirects GET / to https, even with"),
    ] {
        let app = FakeApp::answering(move |request| {
            let mut response = plain("hello");
            if !believes || request.header("x-forwarded-proto") != Some("https") {
                *response.status_mut() = http::StatusCode::MOVED_PERMANENTLY;
                let location = http::HeaderValue::from_static("https://app.example/");
                response.headers_mut().insert("location", location);
            }
            response
        })
        .await;
        let patient = Patient::new().await;
        let report = patient.examine_with(&app.address.to_string(), patient.velt.address, "").await;
        only(&report, Check::App, severity, part);
    }
}

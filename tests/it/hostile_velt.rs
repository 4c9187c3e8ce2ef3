//! Faults of Velt, or of a server in its place: certificates, bytes and silence. `velt_api.rs` tests
//! single answers; this module tests that a run of failures suspends the calls, and TLS.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, LOCATION};
use http::{HeaderValue, Response};
use http_body_util::Full;
use rustls::ServerConfig;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use crate::support::app::FakeApp;
use crate::support::binary::{PORTS, Running};
use crate::support::certificates::{Authority, Leaf};
use crate::support::client::Client;
use crate::support::record::{Tally, record};
use crate::support::velt::{Call, answer, jwt, minted, refused};
use crate::support::{Stage, TestSidecar};

/// Starts a Velt behind TLS that answers all that it reads with a token for ada.
async fn serve(config: Arc<ServerConfig>) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let acceptor = TlsAcceptor::from(config);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.expect("accept");
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                // A client that does not like the certificate says so and goes.
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let mut read = [0; 4096];
                while !matches!(stream.read(&mut read).await, Ok(0) | Err(_)) {
                    let token = jwt(&serde_json::json!({ "userId": "ada" }));
                    let body = format!("{{\"result\":{{\"data\":{{\"token\":\"{token}\"}}}}}}");
                    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
                    if stream.write_all(format!("{head}{body}").as_bytes()).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

/// Asserts the effect of a certificate: a token, or an outage whose reason is in the log.
async fn assert_certificate(
    what: &'static str,
    config: Arc<ServerConfig>,
    roots: String,
    reason: Option<&'static str>,
) {
    let velt = serve(config).await;
    let app = FakeApp::start().await;
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), roots).expect("written");
    let (endpoint, app_address) =
        (format!("https://localhost:{}/", velt.port()), app.address.to_string());
    let environment = [
        ("SSL_CERT_FILE", file.path().to_str().expect("a plain path")),
        ("VELT_SIDECAR_VELT__ENDPOINT", &endpoint),
        ("VELT_SIDECAR_APP__ADDRESS", &app_address),
        ("VELT_SIDECAR_DELIVERY__HEADER__MAX_WAIT", "20s"),
        ("VELT_SIDECAR_SHUTDOWN__GRACE", "0s"),
    ];
    let (running, traffic, admin) = Running::sidecar(&[&environment[..], &PORTS].concat()).await;
    let ask = |user: &'static str, path: &'static str| {
        Client::to(traffic).get(path).header("x-forwarded-user", user).send()
    };
    let begun = Instant::now();
    let header = ask("ada", "/").await;
    let mut tally = Tally::default();
    tally.add(begun.elapsed(), header.status() == 200);
    record("velt", &format!("certificate: {what}"), &tally.figures());
    let Some(reason) = reason else {
        assert!(header.token().is_some(), "{what}: {header:?}");
        return;
    };
    assert_eq!((header.status(), header.token()), (200, None), "{what}");
    assert_eq!(header.token_status(), Some("unavailable"), "{what}");
    // The second user's attempts include the fifth failure in a row, after which the sidecar no longer
    // calls Velt.
    let route = ask("grace", "/api/velt/token").await;
    assert_eq!((route.status(), &*route.code()), (503, "token_unavailable"), "{what}");
    assert!(!route.text().to_lowercase().contains("cert"), "{what}: {}", route.text());
    let scrape = Client::to(admin).get("/metrics").send().await.text();
    for series in ["breaker_open 1", "mints_total{outcome=\"minted\"} 0"] {
        assert!(scrape.contains(&format!("\nvelt_sidecar_{series}\n")), "{what}: {series}");
    }
    running.signal("TERM");
    let (_, printed) = running.ended().await;
    assert!(printed.contains(reason), "{what}: the log says why: {printed}");
}

#[tokio::test]
async fn t44_a_certificate_that_is_not_velts_is_an_outage() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let roots = ours.pem();
    let years = (2020, 4000);
    let localhost = &["localhost"][..];
    let rows = [
        // A good certificate proves that this Velt mints, and that these roots are in force.
        ("a good one", ours.issue(localhost, years).server(&[]), None),
        (
            "another name",
            ours.issue(&["velt.example"], years).server(&[]),
            Some("certificate not valid for name"),
        ),
        ("an address", ours.issue(&["127.0.0.1"], years).server(&[]), Some("not valid for name")),
        ("expired", ours.issue(localhost, (2020, 2021)).server(&[]), Some("certificate expired")),
        ("not yet valid", ours.issue(localhost, (3000, 4000)).server(&[]), Some("not valid yet")),
        (
            "self-signed",
            Leaf::self_signed(localhost, years).server(&[]),
            Some("invalid peer certificate"),
        ),
        (
            "of another authority",
            theirs.issue(localhost, years).server(&[]),
            Some("invalid peer certificate"),
        ),
    ];
    let mut checks = JoinSet::new();
    for (what, config, reason) in rows {
        checks.spawn(assert_certificate(what, config, roots.clone(), reason));
    }
    checks.join_all().await;
}

/// Returns gzip (RFC 1952) of nothing but zeros, as long as an answer may be: ten megabytes when
/// unpacked.
fn gzip_bomb() -> Vec<u8> {
    let mut packed = b"\x1f\x8b\x08\0\0\0\0\0\x02\x03".to_vec();
    let (mut byte, mut count) = (0_u8, 0);
    let mut push = |bits: &str| {
        for bit in bits.bytes() {
            byte |= (bit - b'0') << count;
            count += 1;
            if count == 8 {
                packed.push(byte);
                (byte, count) = (0, 0);
            }
        }
    };
    // One block of fixed codes (RFC 1951 section 3.2.6): a zero, then 258 bytes from one byte ago,
    // over and over.
    push("110");
    push("00110000");
    for _ in 0..39_000 {
        push("1100010100000");
    }
    push("0000000");
    packed
}

/// Asks for new users' tokens until the gauge `suspended` shows that calls are suspended, and returns
/// the number of calls. A suspended user is told `status` and `code`.
async fn calls_until_suspended(stage: &Stage, suspended: &str, status: u16, code: &str) -> usize {
    for n in 0..60 {
        stage.get_as(&format!("user-{n}"), "/api/velt/token").await;
        let calls = stage.velt.call_count();
        if stage.metric(suspended).await > 0.0 {
            let answer = stage.get_as(&format!("late-{n}"), "/api/velt/token").await;
            if stage.velt.call_count() == calls {
                assert_eq!((answer.status(), &*answer.code()), (status, code));
                assert!(answer.header("retry-after").is_some());
                return calls;
            }
        }
        // The pause was over before the late user asked; the next pause is twice as long.
    }
    panic!("failure after failure, and calls go on");
}

/// Sends requests for the app while calls to Velt fail or are suspended, and records how the app answered and how
/// many calls the fault took. The app must answer each request.
async fn app_goes_on(stage: &Stage, fault: &str, calls: usize) {
    let mut tally = Tally::default();
    for n in 0..23 {
        let begun = Instant::now();
        let answer = stage.get_as(&format!("reader-{n}"), "/").await;
        let served = answer.status() == 200 && answer.text() == "hello from the app";
        tally.add(begun.elapsed(), served);
    }
    let mut figures = tally.figures();
    figures["calls"] = calls.into();
    record("velt", fault, &figures);
    assert_eq!(tally.failed, 0, "{fault}");
}

/// Settings with which a mint ends at its first failure, so that the next user's mint follows soon.
const HASTY: &str = "[velt]\nattempt_timeout = \"400ms\"\ndeadline = \"400ms\"";

#[tokio::test]
async fn t44_every_failure_of_velt_suspends_calls_after_a_few() {
    let with = |name, value| {
        move |mut response: Response<Full<Bytes>>| {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
            response
        }
    };
    let bomb = gzip_bomb();
    assert!((60_000..65_536).contains(&bomb.len()), "{}", bomb.len());
    let mut packed = with(CONTENT_ENCODING, "gzip")(answer(200, ""));
    *packed.body_mut() = Full::new(bomb.into());
    let rows = [
        ("down", answer(503, "")),
        ("late", answer(504, "")),
        ("a page", with(CONTENT_TYPE, "text/html")(answer(200, "<html>canary</html>"))),
        ("a redirect", with(LOCATION, "http://127.0.0.1:1/")(answer(302, ""))),
        ("nothing", answer(200, "{}")),
        ("a bomb", packed),
        ("another user's", minted(&jwt(&serde_json::json!({ "userId": "eve" })))),
    ];
    let mut checks = JoinSet::new();
    for (what, response) in rows {
        checks.spawn(async move {
            let stage = Stage::set(HASTY).await;
            stage.velt.script(move |_: &Call, _| response.clone());
            let calls =
                calls_until_suspended(&stage, "breaker_open", 503, "token_unavailable").await;
            // Calls are suspended after five failures that last for half a second, or after twenty
            // failures.
            assert!((5..=25).contains(&calls), "{what}: {calls} calls");
            app_goes_on(&stage, what, calls).await;
        });
    }
    checks.spawn(async {
        let stage = Stage::set(HASTY).await;
        stage.velt.close_gate();
        let calls = calls_until_suspended(&stage, "breaker_open", 503, "token_unavailable").await;
        assert!((5..=10).contains(&calls), "silent: {calls} calls");
        app_goes_on(&stage, "silence", calls).await;
    });
    checks.join_all().await;
}

#[tokio::test]
async fn t44_refusals_suspend_calls_without_an_outage() {
    let rows = [
        ("forbidden", refused(403, "PERMISSION_DENIED"), 5),
        // One user alone may be at fault for these refusals, so the sidecar tolerates more of the refusals.
        ("invalid", refused(400, "INVALID_ARGUMENT"), 20),
        ("unknown", refused(404, "NOT_FOUND"), 20),
    ];
    let mut checks = JoinSet::new();
    for (what, response, expected) in rows {
        checks.spawn(async move {
            let stage = Stage::set(HASTY).await;
            stage.velt.script(move |_: &Call, _| response.clone());
            let calls =
                calls_until_suspended(&stage, "refusals_suspended", 502, "token_refused").await;
            assert!((expected..=expected + 2).contains(&calls), "{what}: {calls} calls");
            assert_eq!(stage.metric("breaker_open").await, 0.0, "{what}");
            app_goes_on(&stage, what, calls).await;
        });
    }
    checks.join_all().await;
}

#[tokio::test]
async fn t44_decompression_bomb_is_never_unpacked() {
    let stage = Stage::set("[delivery.header]\nmax_wait = \"20s\"").await;
    let bomb = Bytes::from(gzip_bomb());
    stage.velt.script(move |_, _| {
        let mut response = answer(200, "");
        *response.body_mut() = Full::new(bomb.clone());
        response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        response
    });
    let header = stage.get_as("ada", "/").await;
    assert_eq!((header.token(), header.token_status()), (None, Some("malformed")));
    assert_eq!(stage.metric("mints_total{outcome=\"malformed\"}").await, 1.0);
}

#[tokio::test]
async fn t44_content_of_an_answer_counts_and_not_its_content_type() {
    for (content_type, body, served) in [
        ("text/html", None, true),
        ("text/plain; charset=utf-7", None, true),
        ("application/json", Some("<html>canary</html>"), false),
        ("text/html", Some("<html>canary</html>"), false),
    ] {
        let stage = Stage::set("[delivery.header]\nmax_wait = \"20s\"").await;
        stage.velt.script(move |call, _| {
            let token = jwt(&serde_json::json!({ "userId": call.user() }));
            let mut response = body.map_or_else(|| minted(&token), |body| answer(200, body));
            let content_type = HeaderValue::from_static(content_type);
            response.headers_mut().insert(CONTENT_TYPE, content_type);
            response
        });
        let header = stage.get_as("ada", "/").await;
        assert_eq!(header.token().is_some(), served, "{content_type}: {body:?}");
        assert!(!format!("{header:?}").contains("canary"));
    }
}

#[tokio::test]
async fn t44_a_server_without_tls_is_an_outage() {
    let app = FakeApp::start().await;
    // The app answers in plain text to all that it is sent.
    let toml = format!(
        "[velt]\nendpoint = \"https://{}/\"\n[delivery.header]\nmax_wait = \"20s\"",
        app.address
    );
    let velt = crate::support::raw::unused_address().await;
    let sidecar = TestSidecar::start(&app.address.to_string(), velt, &toml);
    let asking = Client::to(sidecar.addresses.traffic).get("/").header("x-forwarded-user", "ada");
    let answer = asking.send().await;
    assert_eq!((answer.status(), answer.token_status()), (200, Some("unavailable")));
    assert_eq!(sidecar.metric("mints_total{outcome=\"connect_failed\"}").await, 1.0);
}

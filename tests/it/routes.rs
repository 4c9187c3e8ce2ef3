//! Requests that the sidecar answers itself: the request line alone decides, in one spelling, and no
//! answer sends a client elsewhere.

use ground::metrics::{Label as _, Outcome};
use http::{HeaderValue, Request, Version};
use http_body_util::Empty;
use hyper::body::Bytes;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use crate::support::Stage;
use crate::support::TestSidecar;
use crate::support::client::Answer;
use crate::support::issuer::{base64, claims};
use crate::support::outcomes::{Said, Surroundings};
use crate::support::raw::{RawApp, Wire, unused_address};

/// Header delivery on one path, so that a token on any other path is a fault.
const NARROW: &str = "[delivery.header]\npaths = [\"/api/me\"]";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    /// The request is for a token route of the sidecar's.
    Ours,
    /// The request goes to the app, which sees the same target.
    Apps,
    /// The sidecar answers 400.
    Refused,
}
use Whose::{Apps, Ours, Refused};

/// Targets that HTTP/1.1 and HTTP/2 can both carry.
const SPELLINGS: &[(&str, Whose)] = &[
    ("/api/velt/token", Ours),
    // The query is no part of the path, and the sidecar does not read it.
    ("/api/velt/token?", Ours),
    ("/api/velt/token?userId=grace", Ours),
    ("/api/velt/token?/../../", Ours),
    ("/API/velt/token", Apps),
    ("/api/velt/Token", Apps),
    ("/api/velt/token/", Apps),
    ("//api/velt/token", Apps),
    ("/api//velt/token", Apps),
    ("/api/velt//token", Apps),
    ("/./api/velt/token", Apps),
    ("/api/./velt/token", Apps),
    ("/api/velt/token/.", Apps),
    ("/api/velt/token/..", Apps),
    ("/api/x/../velt/token", Apps),
    ("/%2e/api/velt/token", Apps),
    ("/api/%2E/velt/token", Apps),
    ("/api/x/%2e%2e/velt/token", Apps),
    ("/api%2fvelt%2ftoken", Apps),
    ("/api%2Fvelt%2Ftoken", Apps),
    ("/api/velt%2ftoken", Apps),
    ("/api/velt%252ftoken", Apps),
    ("/api%5cvelt%5ctoken", Apps),
    ("/api\\velt\\token", Apps),
    ("/\\api/velt/token", Apps),
    ("/api/velt/%74oken", Apps),
    ("/api/velt/token;x", Apps),
    ("/api;x/velt/token", Apps),
    ("/api/velt/token;.js", Apps),
    ("/api/velt/token.css", Apps),
    ("/api/velt/token/x.css", Apps),
    ("/api/velt/token%00", Apps),
    ("/api/velt/token%00.css", Apps),
    ("/api/velt/token%23", Apps),
    ("/api/velt/token%23x", Apps),
    ("/api/velt/token%3f", Apps),
    ("/api/velt/token%3Fx=.css", Apps),
    ("/api/velt/token%20", Apps),
    ("/api/velt/token%0d%0a", Apps),
    ("/api/velt/token%c0%ae", Apps),
    ("/api%c0%afvelt%c0%aftoken", Apps),
    ("/api%e0%80%afvelt%e0%80%aftoken", Apps),
    ("/api/velt/t\u{f6}ken", Apps),
    ("/api/velt/\u{ff54}oken", Apps),
    ("/api/velt/toke", Apps),
    ("/api/velt/tokens", Apps),
    ("/other?/api/velt/token", Apps),
    ("/other?x#/api/velt/token", Apps),
    ("/generate-velt-jwt-token", Ours),
    ("/generate_velt_jwt_token", Apps),
];

/// Targets that only HTTP/1.1 can carry.
const SPELLINGS_OF_HTTP1: &[(&str, Whose)] = &[
    // hyper drops a fragment before other code can see it; see docs/delivery.md.
    ("/api/velt/token#x", Ours),
    ("/api/velt/tokens#/../token", Apps),
    ("http://app.example/api/velt/token", Apps),
    ("HTTP://app.example/api/velt/token", Apps),
    ("http://APP.EXAMPLE/api/velt/token", Apps),
    ("https://app.example/api/velt/token", Apps),
    ("http://other.example/api/velt/token", Refused),
    ("http://app.example:81/api/velt/token", Refused),
    ("http://user@app.example/api/velt/token", Refused),
    ("app.example", Refused),
    ("app.example:80", Refused),
    ("api/velt/token", Refused),
    ("*", Refused),
    ("/api/velt/token\u{0}", Refused),
    ("/api/velt/token\t", Refused),
    ("/api/velt/token x", Refused),
];

/// Asserts the effect of a spelling, over either protocol.
fn check(stage: &Stage, target: &str, whose: Whose, answer: &str, before: usize) {
    let head = answer.split("\r\n\r\n").next().expect("a head").to_lowercase();
    let status: u16 = head[9..12].parse().unwrap_or_else(|_| panic!("{target}: {answer}"));
    assert!(!head.contains("\r\nlocation:"), "{target}: {answer}");
    assert!(!(300..400).contains(&status), "{target}: {answer}");
    assert!(!head.contains("\r\nx-velt-token:"), "{target}: {answer}");
    let arrived = stage.app.journal();
    let served = answer.contains("eyJ");
    assert_eq!(served, whose == Ours, "{target}: {answer}");
    match whose {
        Ours => assert_eq!((status, arrived.len()), (200, before), "{target}: {answer}"),
        Refused => assert_eq!((status, arrived.len()), (400, before), "{target}: {answer}"),
        Apps => {
            assert_eq!((status, arrived.len()), (200, before + 1), "{target}: {answer}");
            let target = target.split('#').next().expect("the rest");
            let origin = target
                .find("://")
                .map_or(0, |scheme| scheme + 3 + target[scheme + 3..].find('/').expect("a path"));
            assert_eq!(arrived[before].target, target[origin..], "byte for byte");
        }
    }
}

async fn raw(stage: &Stage, target: &str, more: &str) -> String {
    let mut wire = Wire::to(stage.sidecar.addresses.traffic).await;
    wire.send(format!(
        "GET {target} HTTP/1.1\r\nconnection: close\r\nx-forwarded-user: ada\r\n{more}\r\n"
    ))
    .await;
    wire.rest().await
}

#[tokio::test]
async fn t24_one_spelling_serves_a_token_over_http1() {
    let stage = Stage::set(NARROW).await;
    for (target, whose) in SPELLINGS.iter().chain(SPELLINGS_OF_HTTP1) {
        let before = stage.app.journal().len();
        let answer = raw(&stage, target, "host: app.example\r\n").await;
        check(&stage, target, *whose, &answer, before);
    }
    assert_eq!(stage.velt.call_count(), 1, "only the routes have looked a token up");
}

#[tokio::test]
async fn t24_bytes_that_are_no_text_are_no_target() {
    let stage = Stage::set(NARROW).await;
    for path in [&b"/api/velt/token\xc0\xaf"[..], b"/api\xc0\xafvelt\xc0\xaftoken", b"/\xff"] {
        let mut wire = Wire::to(stage.sidecar.addresses.traffic).await;
        let head = b" HTTP/1.1\r\nhost: a\r\nx-forwarded-user: ada\r\nconnection: close\r\n\r\n";
        wire.send([b"GET ", path, &head[..]].concat()).await;
        let answer = wire.rest().await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{path:?}: {answer}");
    }
    assert_eq!((stage.app.journal().len(), stage.velt.call_count()), (0, 0));
}

/// Sends `GET` over HTTP/2 with this authority, and with a `Host` beside it.
async fn over_http2(stage: &Stage, authority: &str, path: &str, host: Option<&str>) -> Answer {
    let stream = TcpStream::connect(stage.sidecar.addresses.traffic).await.expect("it listens");
    let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.expect("HTTP/2");
    tokio::spawn(connection);
    let request = Request::get(format!("http://{authority}{path}")).version(Version::HTTP_2);
    let mut request = request.header("x-forwarded-user", "ada").body(Empty::<Bytes>::new());
    let headers = request.as_mut().expect("a request").headers_mut();
    if let Some(host) = host {
        headers.insert("host", HeaderValue::from_str(host).expect("a value"));
    }
    Answer::read(sender.send_request(request.expect("a request")).await.expect("an answer")).await
}

/// Writes the answer in the form that [`check`] reads.
fn as_text(answer: &Answer) -> String {
    let headers = answer.headers().iter();
    let lines = headers.map(|(name, value)| format!("{name}: {value:?}\r\n"));
    format!("HTTP/2.0 {}\r\n{}\r\n{}", answer.status(), lines.collect::<String>(), answer.text())
}

#[tokio::test]
async fn t24_one_spelling_serves_a_token_over_http2() {
    let stage = Stage::set(NARROW).await;
    for (target, whose) in SPELLINGS {
        let before = stage.app.journal().len();
        let answer = over_http2(&stage, "app.example", target, None).await;
        check(&stage, target, *whose, &as_text(&answer), before);
    }
    assert_eq!(stage.velt.call_count(), 1, "only the routes have looked a token up");
}

#[tokio::test]
async fn t24_the_host_has_no_say() {
    let stage = Stage::set(NARROW).await;
    for (more, whose) in [
        ("host: APP.EXAMPLE\r\n", Ours),
        ("host: app.example:8080\r\n", Ours),
        ("host: 127.0.0.1:9901\r\n", Ours),
        ("host:\r\n", Ours),
        ("", Refused),
        ("host: a\r\nhost: b\r\n", Refused),
        ("host: a/api/velt/token\r\n", Refused),
        ("host: user@a\r\n", Refused),
    ] {
        let before = stage.app.journal().len();
        let answer = raw(&stage, "/api/velt/token", more).await;
        check(&stage, more, whose, &answer, before);
    }
    for (authority, host, whose) in [
        ("app.example", Some("APP.EXAMPLE"), Ours),
        ("APP.example:80", None, Ours),
        ("app.example", Some("other.example"), Refused),
        ("app.example:80", Some("app.example"), Refused),
    ] {
        let before = stage.app.journal().len();
        let answer = over_http2(&stage, authority, "/api/velt/token", host).await;
        check(&stage, authority, whose, &as_text(&answer), before);
    }
}

/// Headers by which some front or framework chooses another path or method.
const OVERRIDES: [&str; 24] = [
    "x-original-url",
    "x-original-uri",
    "x-original-path",
    "x-original-method",
    "x-rewrite-url",
    "x-forwarded-uri",
    "x-forwarded-url",
    "x-forwarded-path",
    "x-forwarded-prefix",
    "x-forwarded-method",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-envoy-original-path",
    "x-envoy-decorator-operation",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-script-name",
    "x-accel-redirect",
    "x-host",
    "forwarded",
    "referer",
    "user-agent",
    "origin",
];

#[tokio::test]
async fn t25_no_header_makes_a_route_of_another_path() {
    let stage = Stage::set(NARROW).await;
    for name in OVERRIDES {
        for value in ["/api/velt/token", "http://app.example/api/velt/token", "GET", "/api/me"] {
            let before = stage.app.journal().len();
            let more = format!("host: app.example\r\n{name}: {value}\r\n");
            let answer = raw(&stage, "/other", &more).await;
            check(&stage, "/other", Apps, &answer, before);
        }
    }
    assert_eq!(stage.velt.call_count(), 0, "nor of one that carries a token");
}

#[tokio::test]
async fn t25_no_header_query_or_fragment_takes_a_route_away() {
    let stage = Stage::set(NARROW).await;
    for name in OVERRIDES {
        for value in ["/other", "http://app.example/other", "PUT", "OPTIONS", "kube-probe/1.30"] {
            let more = format!("host: app.example\r\n{name}: {value}\r\n");
            for target in ["/api/velt/token", "/api/velt/token?path=/other&_method=PUT"] {
                let answer = raw(&stage, target, &more).await;
                check(&stage, target, Ours, &answer, 0);
            }
        }
    }
}

#[tokio::test]
async fn t25_no_header_stands_in_for_signing_in() {
    let stage = Stage::set("").await;
    for name in OVERRIDES {
        for value in ["/healthz/live", "/generate-velt-jwt-token", "GET", "kube-probe/1.30"] {
            let asking = stage.client().get("/api/velt/token").header(name, value);
            let answer = asking.send().await;
            assert_eq!((answer.status(), &*answer.code()), (401, "no_identity"), "{name}: {value}");
        }
    }
}

#[tokio::test]
async fn t26_health_and_metrics_paths_reach_the_app() {
    let stage = Stage::set(NARROW).await;
    let admin = stage.sidecar.addresses.admin;
    for path in ["/metrics", "/healthz/live", "/healthz/ready", "/healthz/startup"] {
        let headers = [
            "host: app.example\r\n".to_owned(),
            format!("host: {admin}\r\n"),
            format!("host: app.example\r\nx-forwarded-port: {}\r\n", admin.port()),
            format!("host: app.example\r\nx-forwarded-host: {admin}\r\n"),
            "host: app.example\r\nuser-agent: kube-probe/1.30\r\n".to_owned(),
            format!("host: app.example\r\nx-original-url: http://{admin}{path}\r\n"),
        ];
        for more in headers {
            let before = stage.app.journal().len();
            let answer = raw(&stage, path, &more).await;
            check(&stage, path, Apps, &answer, before);
        }
        // The sidecar connects to the app only.
        let before = stage.app.journal().len();
        let target = format!("http://{admin}{path}");
        let answer = raw(&stage, &target, &format!("host: {admin}\r\n")).await;
        check(&stage, &target, Apps, &answer, before);
        assert!(!answer.contains("velt_sidecar_"), "{answer}");
    }
}

/// Returns the answers that [`Surroundings`] does not provoke, from a sidecar that has neither an app
/// nor keys to check an assertion with.
async fn forsaken() -> Vec<Said> {
    let nobody = unused_address().await;
    let assertion = format!(
        "[identity]\nsource = \"assertion\"\n[identity.assertion]\nheader = \"X-Assertion\"\n\
         jwks_url = \"http://{nobody}/keys\"\nissuer = \"https://issuer.example\"\n\
         audience = [\"app\"]\n"
    );
    let sidecar = TestSidecar::start(&nobody.to_string(), nobody, &assertion);
    let head = |claims: &str| format!("{}.{}.AA", base64(r#"{"alg":"ES256"}"#), base64(claims));
    let mut said = Vec::new();
    for (outcome, status, path, assertion) in [
        (Outcome::AppUnreachable, 502, "/", None),
        (Outcome::InvalidAssertion, 401, "/", Some("not.a.token".to_owned())),
        (
            Outcome::IdentityUnverified,
            503,
            "/api/velt/token",
            Some(head(&claims("ada").to_string())),
        ),
    ] {
        let mut wire = Wire::to(sidecar.addresses.traffic).await;
        let line = assertion.map_or(String::new(), |one| format!("x-assertion: {one}\r\n"));
        let head = format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{line}\r\n");
        wire.send(head).await;
        let text = wire.rest().await;
        assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{outcome:?}: {text}");
        let series = format!("requests_total{{outcome=\"{}\"}}", outcome.as_str());
        assert_eq!(sidecar.metric(&series).await, 1.0, "{outcome:?}");
        said.push(Said { outcome, text });
    }
    said
}

#[tokio::test]
async fn t27_no_answer_of_the_sidecar_redirects() {
    let surroundings = Surroundings::start().await;
    let sidecar = surroundings.sidecar();
    let addresses = sidecar.addresses;
    let mut answers = surroundings.provoke(addresses.traffic, addresses.admin).await;
    // Answers of the admin port are the sidecar's own, too.
    for path in ["/", "/metrics", "/healthz", "/healthz/", "//evil.example", "/\\evil.example"] {
        let mut wire = Wire::to(addresses.admin).await;
        wire.send(format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")).await;
        let text = wire.rest().await;
        let outcome = Outcome::Forwarded;
        answers.push(Said { outcome, text });
    }
    answers.extend(forsaken().await);
    for said in answers {
        let head = said.text.split("\r\n\r\n").next().expect("a head").to_lowercase();
        for name in ["location", "refresh", "content-location", "link"] {
            let sent = head.contains(&format!("\r\n{name}:"));
            assert!(!sent, "{:?} has {name}: {}", said.outcome, said.text);
        }
        assert!(!head.starts_with("http/1.1 3"), "{:?}: {}", said.outcome, said.text);
    }
}

#[tokio::test]
async fn t28_the_apps_redirects_pass_byte_for_byte() {
    const LOCATIONS: [&[u8]; 11] = [
        b"/next",
        b"//evil.example/",
        b"/\\evil.example",
        b"https:///evil.example",
        b"https://user:pass@other.example:8443/a?b=%0d%0a&c=/../#frag",
        b"?only=query",
        b"#",
        b"",
        b"/a b\tc",
        b"/%2f%2E%2e/;x=1",
        b"/caf\xe9/\xff",
    ];
    let app = RawApp::serving(|mut wire, _| async move {
        let head = wire.head().await;
        let target = head.split(' ').nth(1).expect("a target");
        let (status, n) = target[1..].split_once('/').expect("two parts");
        let location = LOCATIONS[n.parse::<usize>().expect("a number")];
        let start = format!("HTTP/1.1 {status} Over There\r\ncontent-length: 4\r\nlocation: ");
        wire.send([start.as_bytes(), location, b"\r\n\r\nmove"].concat()).await;
    })
    .await;
    let sidecar = TestSidecar::before(app.address).await;
    for status in [201, 300, 301, 302, 303, 307, 308] {
        for (n, location) in LOCATIONS.iter().enumerate() {
            let mut wire = Wire::to(sidecar.addresses.traffic).await;
            let line = format!("GET /{status}/{n} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n");
            wire.send(format!("{line}x-forwarded-user: ada\r\n\r\n")).await;
            let received = wire.rest_of_bytes().await;
            let line = format!("HTTP/1.1 {status} Over There\r\n");
            assert!(received.starts_with(line.as_bytes()), "{status} {location:?}");
            assert!(received.ends_with(b"\r\n\r\nmove"), "{status} {location:?}");
            let expected = [b"\r\nlocation: ", *location, b"\r\n"].concat();
            let found = received.windows(expected.len()).filter(|window| *window == expected);
            assert_eq!(found.count(), 1, "{}", String::from_utf8_lossy(&received));
            let text = String::from_utf8_lossy(&received);
            assert_eq!(text.contains("\r\nx-velt-token: "), status == 201, "{text}");
        }
    }
}

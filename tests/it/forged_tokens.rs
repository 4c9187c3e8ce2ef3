//! Header that carries tokens: no value that an app sets in it goes out, in any kind of response, with
//! or without a token of the sidecar's.

use http::{HeaderMap, HeaderValue, Response};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};

use crate::support::app::{FakeApp, full};
use crate::support::raw::{RawApp, Wire};
use crate::support::velt::user_of;
use crate::support::{Stage, TestSidecar};

const FORGED: &str = "x-velt-token: forged\r\nX-VELT-TOKEN: forged-too\r\n\
                      X-Velt-Token-Status: forged\r\n";

/// Answers of an app, and whether a token belongs in each.
const ANSWERS: &[(&str, &str, bool)] = &[
    ("200 OK", "content-length: 2\r\n\r\nok", true),
    ("200 OK", "content-length: 2\r\nconnection: X-Velt-Token\r\n\r\nok", true),
    ("200 OK", "content-length: 2\r\ncache-control: public, max-age=60\r\n\r\nok", false),
    ("201 Created", "content-length: 0\r\nlocation: /x\r\n\r\n", true),
    ("204 No Content", "\r\n", true),
    ("206 Partial Content", "content-length: 2\r\ncontent-range: bytes 0-1/9\r\n\r\nok", false),
    ("301 Moved Permanently", "content-length: 0\r\nlocation: /x\r\n\r\n", false),
    ("304 Not Modified", "etag: \"1\"\r\n\r\n", false),
    ("307 Temporary Redirect", "content-length: 0\r\nlocation: /x\r\n\r\n", false),
    ("401 Unauthorized", "content-length: 2\r\n\r\nno", false),
    ("404 Not Found", "content-length: 2\r\n\r\nno", false),
    ("500 Internal Server Error", "content-length: 2\r\n\r\nno", false),
    ("503 Service Unavailable", "content-length: 2\r\n\r\nno", false),
    (
        "200 OK",
        "transfer-encoding: chunked\r\ntrailer: x-velt-token\r\n\r\n2\r\nok\r\n0\r\n\
         x-velt-token: forged\r\nX-Velt-Token-Status: forged\r\n\r\n",
        true,
    ),
    (
        "101 Switching Protocols",
        "connection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
        false,
    ),
];

/// An app that answers to `/<n>` with the `n`th of [`ANSWERS`], with forgeries in it. The head of an
/// interim answer, also forged, comes before the last head, except before a 101.
async fn forging_app() -> RawApp {
    RawApp::serving(|mut wire, _| async move {
        let head = wire.head().await;
        let target = head.split(' ').nth(1).expect("a target");
        let n: usize = target[1..].parse().expect("a number");
        let (status, rest, _) = ANSWERS[n];
        if !status.starts_with("101") {
            wire.send(format!("HTTP/1.1 103 Early Hints\r\n{FORGED}\r\n")).await;
        }
        wire.send(format!("HTTP/1.1 {status}\r\n{FORGED}{rest}")).await;
    })
    .await
}

async fn ask(sidecar: &TestSidecar, method: &str, n: usize, more: &str) -> String {
    let mut wire = Wire::to(sidecar.addresses.traffic).await;
    let upgrade = ANSWERS[n].0.starts_with("101");
    let connection = if upgrade {
        "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
         sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    } else {
        "connection: close, te\r\nte: trailers\r\n"
    };
    wire.send(format!("{method} /{n} HTTP/1.1\r\nhost: a\r\n{connection}{more}\r\n")).await;
    if upgrade { wire.head().await } else { wire.rest().await }
}

#[tokio::test]
async fn t45_an_apps_own_token_header_never_goes_out() {
    let app = forging_app().await;
    let velt = crate::support::velt::FakeVelt::start().await;
    let patient = "[delivery.header]\nmax_wait = \"20s\"\n";
    for (toml, more, injects) in [
        (patient.to_owned(), "x-forwarded-user: ada\r\n", true),
        // No user, another path, a page load, and no header delivery at all.
        (patient.to_owned(), "", false),
        (format!("{patient}paths = [\"/elsewhere\"]"), "x-forwarded-user: ada\r\n", false),
        (patient.to_owned(), "x-forwarded-user: ada\r\nsec-fetch-dest: document\r\n", false),
        ("[delivery.header]\nenabled = false".to_owned(), "x-forwarded-user: ada\r\n", false),
    ] {
        let sidecar = TestSidecar::start(&app.address.to_string(), velt.address, &toml);
        for (n, (status, _, eligible)) in ANSWERS.iter().enumerate() {
            let what = format!("{toml} {more} {:?}", ANSWERS[n]);
            let received = ask(&sidecar, "GET", n, more).await;
            assert!(received.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{what}: {received}");
            assert!(!received.contains("forged"), "{what}: {received}");
            let tokens: Vec<_> = received
                .split("\r\n")
                .filter_map(|line| line.strip_prefix("x-velt-token: "))
                .collect();
            assert_eq!(tokens.len(), usize::from(injects && *eligible), "{what}: {received}");
            assert!(tokens.iter().all(|token| user_of(token) == "ada"), "{what}");
        }
        let head = ask(&sidecar, "HEAD", 0, more).await;
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        assert!(!head.to_lowercase().contains("\r\nx-velt-token"), "{head}");
    }
}

#[tokio::test]
async fn t45_app_token_header_ends_over_http2_and_in_trailers() {
    let app = FakeApp::serving_h2c(|_| async {
        let mut trailers = HeaderMap::new();
        for name in ["x-velt-token", "x-velt-token-status", "x-app-checksum"] {
            trailers.insert(name, HeaderValue::from_static("forged"));
        }
        let frames = [Ok(Frame::data("ok".into())), Ok(Frame::trailers(trailers))];
        let mut response =
            Response::new(StreamBody::new(futures_util::stream::iter(frames)).boxed());
        for name in ["x-velt-token", "x-velt-token-status"] {
            response.headers_mut().append(name, HeaderValue::from_static("forged"));
            response.headers_mut().append(name, HeaderValue::from_static("twice"));
        }
        response
    })
    .await;
    for header in ["max_wait = \"20s\"", "enabled = false"] {
        let toml = format!("[app]\nprotocol = \"h2c\"\n[delivery.header]\n{header}");
        let sidecar = TestSidecar::start(
            &app.address.to_string(),
            crate::support::velt::FakeVelt::start().await.address,
            &toml,
        );
        let client = crate::support::client::Client::to(sidecar.addresses.traffic);
        let answer = client.get("/").header("x-forwarded-user", "ada").send_http2().await;
        assert_eq!(
            answer.token().map(user_of).as_deref(),
            header.contains("wait").then_some("ada")
        );
        assert_eq!(answer.token_status(), None);
        let trailers = answer.trailers.expect("trailers");
        let left: Vec<_> = trailers.keys().map(http::HeaderName::as_str).collect();
        assert_eq!(left, ["x-app-checksum"], "they were forged as trailers too");
    }
}

/// A header as an app sends it.
type Line = (&'static str, &'static str);

/// Statuses and caching of an app's response, and the outcome that is counted.
const COUNTED: &[(u16, Option<Line>, &str)] = &[
    (200, None, "injected"),
    (200, Some(("cache-control", "no-cache")), "injected"),
    (206, None, "not_eligible"),
    (301, None, "not_eligible"),
    (304, None, "not_eligible"),
    (404, None, "not_eligible"),
    (500, None, "not_eligible"),
    (200, Some(("cache-control", "public")), "storable"),
    (200, Some(("cache-control", "max-age=60")), "storable"),
    (200, Some(("cache-control", "private, max-age=60")), "storable"),
    (200, Some(("cache-control", "s-maxage=60, no-cache")), "storable"),
    (200, Some(("cache-control", "immutable")), "storable"),
    (200, Some(("cdn-cache-control", "max-age=60")), "storable"),
    (200, Some(("surrogate-control", "max-age=60")), "storable"),
    (200, Some(("expires", "Wed, 01 Jan 3000 00:00:00 GMT")), "storable"),
];

#[tokio::test]
async fn t30_response_unfit_for_a_token_has_none_and_is_counted() {
    let app = FakeApp::answering(|arrived| {
        let n: usize = arrived.target[1..].parse().expect("a number");
        let (status, header, _) = COUNTED[n];
        let response = Response::builder().status(status);
        let response = header
            .into_iter()
            .fold(response, |response, (name, value)| response.header(name, value));
        response.body(full("")).expect("a response")
    })
    .await;
    let stage = Stage::with(app, "[delivery.header]\nmax_wait = \"20s\"").await;
    for (n, (status, header, counted)) in COUNTED.iter().enumerate() {
        let what = format!("{status} {header:?}");
        let series = format!("header_deliveries_total{{result=\"{counted}\"}}");
        let before = stage.metric(&series).await;
        let mut wire = Wire::to(stage.sidecar.addresses.traffic).await;
        let head = format!("GET /{n} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n");
        wire.send(format!("{head}x-forwarded-user: ada\r\n\r\n")).await;
        let received = wire.rest().await;
        let injected = received.contains("\r\nx-velt-token: ");
        assert_eq!(injected, *counted == "injected", "{what}: {received}");
        assert!(!received.contains("x-velt-token-status"), "{what}: {received}");
        let unstorable = received.contains("\r\ncache-control: private, no-store\r\n");
        assert_eq!(unstorable, injected, "{what}: {received}");
        assert_eq!(stage.metric(&series).await - before, 1.0, "{what}");
        if let Some((name, value)) = header.filter(|_| !injected) {
            let kept = received.contains(&format!("\r\n{name}: {value}\r\n"));
            assert!(kept, "the app's own caching is the app's: {received}");
        }
    }
    // No script could read a token in the answer to HEAD or OPTIONS, so neither answer is counted.
    for method in [http::Method::HEAD, http::Method::OPTIONS] {
        let asking = stage.client().request(method, "/0").header("x-forwarded-user", "ada");
        assert_eq!(asking.send().await.token(), None);
    }
    let injected = stage.metric("header_deliveries_total{result=\"injected\"}").await;
    assert_eq!(injected, 2.0);
}

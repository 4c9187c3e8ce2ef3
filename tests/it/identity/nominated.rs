//! Headers that another header names, and headers that come after the body.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use bytes::Bytes;
use ground::metrics::RefusalKind;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use super::{
    DROP, EVERY_HEADER, NAMES, UNTRUSTED, as_ada, assert_ambiguous, assert_no_identity,
    every_header_and, raw_is_refused, refusal_count, refusals_are, refused, spoof_count,
};
use crate::support::Stage;
use crate::support::app::{AppBody, FakeApp, plain};
use crate::support::client::Answer;
use crate::support::raw::Wire;

/// Answers with the names of all headers and trailers that arrived.
async fn names_of_everything(request: Request<Incoming>) -> Response<AppBody> {
    let (parts, body) = request.into_parts();
    let received = body.collect().await.expect("a body");
    let trailers = received.trailers().cloned().unwrap_or_default();
    let names: BTreeSet<&str> =
        parts.headers.keys().chain(trailers.keys()).map(HeaderName::as_str).collect();
    let names: Vec<_> = names.into_iter().collect();
    let mut response = plain("read");
    let names = HeaderValue::from_str(&names.join(" ")).expect("names");
    response.headers_mut().insert("x-app-received", names);
    response
}

/// Sends `POST /` over HTTP/2 with `trailers` after the body.
async fn post_with_trailers_over_http2(address: SocketAddr, trailers: &[(&str, &str)]) -> Answer {
    let mut map = HeaderMap::new();
    for (name, value) in trailers {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
        map.append(name, HeaderValue::from_str(value).expect("a value"));
    }
    let frames = [Ok(Frame::data(Bytes::from_static(b"x"))), Ok(Frame::trailers(map))];
    let body: AppBody = StreamBody::new(futures_util::stream::iter(frames)).boxed();
    let request = Request::post("http://app.example/").body(body).expect("a request");
    let stream = TcpStream::connect(address).await.expect("it listens");
    let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.expect("HTTP/2");
    tokio::spawn(connection);
    Answer::read(sender.send_request(request).await.expect("an answer")).await
}

const FORGED_TRAILERS: [(&str, &str); 5] = [
    ("x-forwarded-user", "eve"),
    ("x_forwarded_user", "eve"),
    ("x-velt-token", "forged"),
    ("x-velt-token-status", "forged"),
    ("x-sum", "1"),
];

#[tokio::test]
async fn t11_a_trailer_never_becomes_an_identity() {
    for peers in ["", UNTRUSTED] {
        for protocol in ["http1", "h2c"] {
            let app = match protocol {
                "http1" => FakeApp::serving(names_of_everything).await,
                _ => FakeApp::serving_h2c(names_of_everything).await,
            };
            let toml = format!("[app]\nprotocol = \"{protocol}\"\n[identity]\n{peers}");
            let stage = Stage::with(app, &toml).await;

            let mut wire = Wire::to(stage.sidecar.addresses.traffic).await;
            let trailers = FORGED_TRAILERS.map(|(name, value)| format!("{name}: {value}\r\n"));
            wire.send(format!(
                "POST / HTTP/1.1\r\nhost: a\r\nte: trailers\r\ntrailer: x-sum\r\n\
                 connection: te, close\r\ntransfer-encoding: chunked\r\n\r\n\
                 1\r\nx\r\n0\r\n{}\r\n",
                trailers.concat()
            ))
            .await;
            let received = wire.rest().await;
            assert!(received.contains("x-velt-token-status: anonymous\r\n"), "{received}");
            let names = received.lines().find_map(|line| line.strip_prefix("x-app-received: "));
            assert_only_the_sum(names.expect("an answer of the app"));
            assert_eq!(spoof_count(&stage, "trailer").await, 4.0, "{protocol}");

            let address = stage.sidecar.addresses.traffic;
            let answer = post_with_trailers_over_http2(address, &FORGED_TRAILERS).await;
            assert_eq!(answer.token_status(), Some("anonymous"));
            assert_only_the_sum_or_less(answer.header("x-app-received").expect("an answer"));
            assert_eq!(spoof_count(&stage, "trailer").await, 8.0, "{protocol}");
            assert_eq!(stage.velt.call_count(), 0);
        }
    }
}

fn assert_only_the_sum(names: &str) {
    assert!(names.split(' ').any(|name| name == "x-sum"), "{names}");
    assert_only_the_sum_or_less(names);
}

/// Asserts that no forged trailer arrived. The harmless trailer may be missing too, since an HTTP/1.1
/// hop drops trailers that are not announced.
fn assert_only_the_sum_or_less(names: &str) {
    for (name, _) in &FORGED_TRAILERS[..4] {
        assert!(names.split(' ').all(|arrived| arrived != *name), "{names}");
    }
}

#[tokio::test]
async fn t11_a_header_announced_as_a_trailer_is_refused() {
    let stage = Stage::set(EVERY_HEADER).await;
    let mut count = 0;
    for name in NAMES.into_iter().chain(["x-velt-token", "x-velt-token-status"]) {
        let upper = name.to_ascii_uppercase();
        for value in [name.to_owned(), upper.clone(), format!("x-sum ,\t{upper}, x-other")] {
            refused(as_ada(&stage, "/").header("trailer", &value)).await;
            count += 1;
        }
        let second_line = stage.client().get("/").header("trailer", "x-sum");
        assert_ambiguous(&second_line.header("trailer", name).send_http2().await);
        count += 1;
    }
    refusals_are(&stage, RefusalKind::Trailer, count).await;
}

#[tokio::test]
async fn t12_a_header_named_in_connection_is_refused() {
    let stage = Stage::set(EVERY_HEADER).await;
    let mut count = 0;
    for name in NAMES.into_iter().chain(["x-velt-token", "x-velt-token-status"]) {
        let upper = name.to_ascii_uppercase();
        for value in [name.to_owned(), upper.clone(), format!("close ,\t{upper}, x-internal")] {
            refused(as_ada(&stage, "/").header("connection", &value)).await;
            count += 1;
        }
        // The header may be missing because a hop has stripped it, so the request must not count as
        // anonymous.
        let second_line = stage.client().get("/api/velt/token").header("connection", "keep-alive");
        refused(second_line.header("connection", name)).await;
        count += 1;
    }
    refusals_are(&stage, RefusalKind::ConnectionNominated, count).await;
}

#[tokio::test]
async fn t12_dropped_nominated_header_makes_the_request_anonymous() {
    let stage = Stage::set(&every_header_and(DROP)).await;
    let sending = as_ada(&stage, "/").header("connection", "X-Auth-Request-Email");
    let answer = sending.header("x-auth-request-email", "ada@example.com").send().await;
    assert_eq!((answer.status(), answer.token_status()), (200, Some("anonymous")));
    assert_no_identity(&stage.app.only().headers);
    let count = refusal_count(&stage, RefusalKind::ConnectionNominated).await;
    assert_eq!((count, stage.velt.call_count()), (1.0, 0));
}

#[tokio::test]
async fn t12_untrusted_peer_cannot_nominate_a_forwarding_header() {
    let stage = Stage::set(&format!("[identity]\n{UNTRUSTED}")).await;
    let answer = as_ada(&stage, "/").header("connection", "X-Forwarded-User").send().await;
    assert_eq!((answer.status(), &*answer.code()), (400, "bad_request"));
    assert_eq!((stage.app.journal().len(), stage.velt.call_count()), (0, 0));
}

#[tokio::test]
async fn t14_a_huge_or_odd_connection_header_is_read_to_its_end() {
    let stage = Stage::set("").await;
    let padding = "x-internal, ".repeat(8 * 1024 / 12);
    raw_is_refused(&stage, &format!("connection: {padding}x-forwarded-user\r\n")).await;
    refusals_are(&stage, RefusalKind::ConnectionNominated, 1).await;
    let mut wire = Wire::to(stage.sidecar.addresses.traffic).await;
    wire.send(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close, \xff\xfe\r\n\r\n").await;
    let head = wire.head().await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert!(!stage.app.only().headers.contains_key("connection"));
}

//! Clients that use up their time, and clients beside them that do not.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::try_join_all;
use ground::metrics::ListenerMetrics;
use hop::listener::{self, Listener};
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::frames::{DATA, END_STREAM, GOAWAY, HEADERS, frame, opening, request};
use crate::support::app::FakeApp;
use crate::support::raw::Wire;
use crate::support::{Stage, config};
use crate::websocket;

const SHORT: &str = "[listen]\nidle_timeout = \"300ms\"\nheader_timeout = \"100ms\"\n\
                     write_timeout = \"200ms\"";

fn closed(reason: &str) -> String {
    format!("connections_closed_total{{reason=\"{reason}\"}}")
}

#[tokio::test]
async fn t39_a_head_that_comes_slowly_is_cut_off() {
    let stage = Stage::set(SHORT).await;
    let mut slow = Wire::to(stage.sidecar.addresses.traffic).await;
    slow.send("GET / HTTP/1.1\r\nhost: a\r\nx-slow").await;
    assert_eq!(slow.rest().await, "");
    stage.sidecar.metric_reaches(&closed("slow_head"), 1.0).await;
    assert_eq!(stage.app.journal().len(), 0);
}

#[tokio::test]
async fn t39_a_preface_that_comes_slowly_is_cut_off() {
    // Half an HTTP/2 preface, half a method, and a whole preface but for one byte.
    for start in ["PR", "P", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r"] {
        let stage = Stage::set(SHORT).await;
        let mut slow = Wire::to(stage.sidecar.addresses.traffic).await;
        slow.send(start).await;
        assert_eq!(slow.rest().await, "");
        stage.sidecar.metric_reaches(&closed("slow_head"), 1.0).await;
    }
}

#[tokio::test]
async fn a_preface_may_come_in_pieces() {
    let stage = Stage::set("").await;
    let mut wire = Wire::to(stage.sidecar.addresses.traffic).await;
    for byte in opening() {
        wire.send([byte]).await;
    }
    wire.send(request(1, END_STREAM, "GET", "/")).await;
    assert_eq!(wire.frame_of(HEADERS).await.stream, 1);
}

#[tokio::test]
async fn a_connection_that_says_nothing_is_closed_after_the_idle_time() {
    let stage = Stage::set(SHORT).await;
    assert_eq!(Wire::to(stage.sidecar.addresses.traffic).await.rest().await, "");
    stage.sidecar.metric_reaches(&closed("idle"), 1.0).await;
}

#[tokio::test]
async fn a_connection_without_a_request_is_closed_after_the_idle_time() {
    let stage = Stage::set(SHORT).await;
    let mut wire = Wire::to(stage.sidecar.addresses.traffic).await;
    wire.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let received = wire.rest().await;
    assert!(received.starts_with("HTTP/1.1 200"), "{received}");
    stage.sidecar.metric_reaches(&closed("idle"), 1.0).await;
}

#[tokio::test]
async fn a_request_may_take_longer_than_the_idle_time() {
    let app = FakeApp::serving(|_| async {
        // The answer has to come after the idle time of `SHORT`.
        tokio::time::sleep(Duration::from_secs(1)).await;
        crate::support::app::plain("late")
    })
    .await;
    let stage = Stage::with(app, SHORT).await;
    assert_eq!(stage.client().get("/").send().await.text(), "late");
    assert_eq!(stage.client().get("/").send_http2().await.text(), "late");
}

#[tokio::test]
async fn t39_client_that_reads_nothing_is_cut_off_with_its_request() {
    let app = FakeApp::answering(|_| {
        let chunk = Bytes::from(vec![b'x'; 64 * 1024]);
        let frames = futures_util::stream::repeat_with(move || Ok(Frame::data(chunk.clone())));
        Response::new(StreamBody::new(frames).boxed())
    })
    .await;
    let stage = Stage::with(app, SHORT).await;
    let mut lazy = Wire::to(stage.sidecar.addresses.traffic).await;
    lazy.send("GET /endless HTTP/1.1\r\nhost: a\r\n\r\n").await;
    stage.sidecar.metric_reaches(&closed("stalled"), 1.0).await;
    stage.sidecar.metric_reaches("requests_in_flight", 0.0).await;
    stage.sidecar.metric_reaches("app_connections", 0.0).await;
}

#[tokio::test]
async fn an_idle_http2_connection_is_told_and_closed() {
    let stage = Stage::set(SHORT).await;
    let stream = tokio::net::TcpStream::connect(stage.sidecar.addresses.traffic).await;
    let io = hyper_util::rt::TokioIo::new(stream.expect("it listens"));
    let executor = hyper_util::rt::TokioExecutor::new();
    let handshake = hyper::client::conn::http2::handshake::<_, _, String>(executor, io).await;
    let (_sender, connection) = handshake.expect("HTTP/2");
    connection.await.expect("closed in order");
    stage.sidecar.metric_reaches(&closed("idle"), 1.0).await;
}

#[tokio::test]
async fn idle_http2_connection_is_closed_if_its_client_stays() {
    let stage = Stage::set(SHORT).await;
    let mut deaf = Wire::to(stage.sidecar.addresses.traffic).await;
    deaf.send(opening()).await;
    // The client does not answer the ping that comes with the GOAWAY. An orderly end of HTTP/2 waits for
    // that answer.
    deaf.frame_of(GOAWAY).await;
    deaf.rest().await;
    stage.sidecar.metric_reaches(&closed("idle"), 1.0).await;
    stage.sidecar.metric_reaches("connections_open", 0.0).await;
}

#[tokio::test]
async fn more_headers_than_allowed_are_refused_over_either_protocol() {
    // Both limits are lower than the limit of the tests' app.
    for most in [40, 90] {
        let stage = Stage::set(&format!("[listen]\nmax_headers = {most}")).await;
        // `Host` is one header over HTTP/1.1, and none over HTTP/2.
        for (host, http2) in [(1, false), (0, true)] {
            for (count, status) in [(most, 200), (most + 1, 431)] {
                let mut sending = stage.client().get("/");
                for nth in host..count {
                    sending = sending.header(&format!("x-{nth}"), "a");
                }
                let answer = if http2 { sending.send_http2().await } else { sending.send().await };
                assert_eq!(answer.status(), status, "{count} headers, HTTP/2: {http2}");
            }
        }
        stage.sidecar.metric_reaches(&closed("too_large"), 1.0).await;
        assert_eq!(stage.metric("http2_heads_refused_total").await, 1.0);
        assert_eq!(stage.app.journal().len(), 2, "the app has seen those within the limit");
    }
}

#[tokio::test]
async fn client_that_repeats_large_http2_heads_is_disconnected() {
    let stage = Stage::set("[listen]\nmax_headers = 2").await;
    let stream = TcpStream::connect(stage.sidecar.addresses.traffic).await.expect("it listens");
    let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.expect("HTTP/2");
    tokio::spawn(connection);
    let mut refused = 0;
    while refused < 100 {
        let request = Request::get("http://a/").header("x-1", "").header("x-2", "");
        let request = request.header("x-3", "").body(String::new()).expect("a request");
        let Ok(answer) = sender.send_request(request).await else { break };
        assert_eq!(answer.status(), 431);
        refused += 1;
    }
    assert!((16..=17).contains(&refused), "{refused} heads were refused");
    stage.sidecar.metric_reaches(&closed("http2_flood"), 1.0).await;
    assert_eq!(stage.app.journal().len(), 0);
}

#[tokio::test]
async fn a_cookie_in_crumbs_is_one_header() {
    let stage = Stage::set("[listen]\nmax_headers = 40").await;
    for (others, status) in [(39, 200), (40, 431)] {
        let mut sending = stage.client().get("/");
        for nth in 0..others {
            sending = sending.header(&format!("x-{nth}"), "a");
        }
        for nth in 0..100 {
            sending = sending.header("cookie", format!("c{nth}=1"));
        }
        assert_eq!(sending.send_http2().await.status(), status, "beside {others}");
    }
}

#[tokio::test]
async fn invalid_http_is_answered_and_counted() {
    let long = "a".repeat(70_000);
    for (name, bytes, status, reason) in [
        ("TLS", "\x16\x03\x01\x02\0\x01\0\x01\r\n\r\n", "400", "bad_request"),
        ("a line without a colon", "GET / HTTP/1.1\r\nhost\r\n\r\n", "400", "bad_request"),
        ("HTTP/2 in a request line", "PRI * HTTP/2.0\r\n\r\nXX", "400", "bad_request"),
        ("a long head", &format!("GET / HTTP/1.1\r\nx: {long}"), "431", "too_large"),
        ("a long target", &format!("GET /{long} HTTP/1.1\r\n\r\n"), "414", "too_large"),
    ] {
        let size = if status == "414" { "1MiB" } else { "64KiB" };
        let stage = Stage::set(&format!("[listen]\nmax_header_bytes = \"{size}\"")).await;
        let mut wire = Wire::to(stage.sidecar.addresses.traffic).await;
        // The sidecar may not read all of the bytes.
        wire.try_send(bytes).await;
        let answer = wire.rest().await;
        assert_eq!(answer.split(' ').nth(1).unwrap_or_default(), status, "{name}: {answer}");
        stage.sidecar.metric_reaches(&closed(reason), 1.0).await;
        assert_eq!(stage.app.journal().len(), 0, "{name}");
    }
}

#[tokio::test]
async fn invalid_http2_is_told_and_counted() {
    const PROTOCOL_ERROR: [u8; 4] = [0, 0, 0, 1];
    let stage = Stage::set("").await;
    let mut wire = Wire::to(stage.sidecar.addresses.traffic).await;
    wire.send([opening(), frame(DATA, 0, 0, b"on no stream")].concat()).await;
    let told = wire.frame_of(GOAWAY).await;
    assert_eq!(told.payload[4..8], PROTOCOL_ERROR);
    wire.rest().await;
    stage.sidecar.metric_reaches(&closed("http2_error"), 1.0).await;
}

#[tokio::test]
async fn clients_that_merely_leave_are_in_no_count_of_errors() {
    const INTERNAL_ERROR: [u8; 8] = [0, 0, 0, 0, 0, 0, 0, 2];
    let (_gate, app) = FakeApp::gated().await;
    let stage = Stage::with(app, "").await;
    let whole = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    let asked = [opening(), request(1, END_STREAM, "GET", "/")].concat();
    for bytes in [
        Vec::new(),
        b"P".to_vec(),
        b"GET / HTTP/1.1\r\nhost: a\r\nx-half".to_vec(),
        whole.into(),
        b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nhalf".to_vec(),
        opening()[..10].to_vec(),
        opening(),
        asked.clone(),
        [opening(), request(1, 0, "POST", "/")].concat(),
        asked[..asked.len() - 5].to_vec(),
        [asked.clone(), frame(GOAWAY, 0, 0, &INTERNAL_ERROR)].concat(),
        [opening(), frame(GOAWAY, 0, 0, &INTERNAL_ERROR)].concat(),
    ] {
        let mut wire = Wire::to(stage.sidecar.addresses.traffic).await;
        wire.send(&bytes).await;
        wire.end().await;
        drop(wire);
    }
    stage.sidecar.metric_reaches("connections_open", 0.0).await;
    let scrape = stage.sidecar.scrape().await;
    let counts = scrape.lines().filter(|line| line.contains("connections_closed_total{"));
    let wrong: Vec<_> = counts.filter(|line| !line.ends_with(" 0")).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[tokio::test]
async fn connections_over_the_limit_are_closed_at_once_and_counted() {
    let stage = Stage::set("[listen]\nmax_connections = 2").await;
    let mut kept = Vec::new();
    for _ in 0..2 {
        let mut wire = Wire::to(stage.sidecar.addresses.traffic).await;
        wire.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        wire.head().await;
        kept.push(wire);
    }
    assert_eq!(Wire::to(stage.sidecar.addresses.traffic).await.rest().await, "");
    assert_eq!(stage.metric("connections_refused_total").await, 1.0);
    drop(kept);
    stage.sidecar.metric_reaches("connections_open", 0.0).await;
    assert_eq!(stage.client().get("/").send().await.status(), 200);
}

#[tokio::test]
async fn a_websocket_counts_as_the_connection_that_it_is() {
    let app = FakeApp::serving(websocket::echo).await;
    let stage = Stage::with(app, "[listen]\nmax_connections = 1").await;
    let mut socket = websocket::connect(&stage).await;
    // After an answer to a message, HTTP is done with the connection.
    websocket::exchange(&mut socket).await;
    assert_eq!(stage.metric("connections_open").await, 1.0);
    let mut another = Wire::to(stage.sidecar.addresses.traffic).await;
    assert_eq!(another.rest().await, "", "there is no room for it");
    assert_eq!(stage.metric("connections_refused_total").await, 1.0);
    drop(socket);
    stage.sidecar.metric_reaches("connections_open", 0.0).await;
    websocket::exchange(&mut websocket::connect(&stage).await).await;
}

/// Checks that, when an app's pod is replaced, all of its browsers and WebSockets can come back in one
/// moment.
#[tokio::test]
async fn a_burst_of_connections_waits_to_be_accepted() {
    let settings = listener::Settings::at(([127, 0, 0, 1], 0).into());
    // The test accepts no connection: each connection waits in the kernel's queue.
    let listener = Listener::bind(settings, ListenerMetrics::detached()).expect("a free port");
    let address = listener.address().expect("it is bound");
    let most = std::fs::read_to_string("/proc/sys/net/core/somaxconn").expect("this is Linux");
    let count = most.trim().parse::<usize>().expect("a number").min(400);
    let burst = (0..count).map(|_| TcpStream::connect(address));
    let waiting = timeout(Duration::from_secs(10), try_join_all(burst)).await;
    let waiting = waiting.expect("none has to knock again").expect("none is refused");
    assert_eq!(waiting.len(), count);
}

#[test]
fn default_idle_timeout_outlasts_every_front() {
    // Idle timeouts of fronts as in docs/configuration.md: HTTP clients of Go, Caddy, Google Cloud,
    // Envoy.
    let limits = config("").expect("the defaults are valid").listen.limits;
    for front in [60, 90, 120, 350, 600, 3600].map(Duration::from_secs) {
        assert!(limits.idle > front, "{front:?}");
    }
    // A connection that has brought no request is no idle connection of a front.
    assert_eq!(limits.first_byte, Duration::from_secs(75));
    let short = config("[listen]\nidle_timeout = \"5s\"").expect("valid").listen.limits;
    assert_eq!(short.first_byte, Duration::from_secs(5));
}

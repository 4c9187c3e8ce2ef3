//! Checks that an app can do through the sidecar all that it could do before.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, Version};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::timeout;

use crate::support::app::{AppBody, FakeApp, full, plain};
use crate::support::client::Client;
use crate::support::raw::{RawApp, Wire, unused_address};
use crate::support::velt::FakeVelt;
use crate::support::{ONE_WORKER, PATIENCE, Stage, TestSidecar};

/// A body whose frames a test sends one by one.
fn by_hand() -> (mpsc::Sender<Result<Frame<Bytes>, std::io::Error>>, AppBody) {
    let (sender, mut receiver) = mpsc::channel(1);
    let frames = futures_util::stream::poll_fn(move |context| receiver.poll_recv(context));
    (sender, StreamBody::new(frames).boxed())
}

fn data(text: &'static str) -> Frame<Bytes> {
    Frame::data(Bytes::from_static(text.as_bytes()))
}

async fn echo(request: Request<Incoming>) -> Response<AppBody> {
    let body = request.into_body().map_err(std::io::Error::other).boxed();
    Response::new(body)
}

async fn next_text(body: &mut Incoming) -> String {
    let frame = timeout(PATIENCE, body.frame()).await.expect("a frame in time");
    let frame = frame.expect("no end yet").expect("no error");
    String::from_utf8(frame.into_data().expect("data").to_vec()).expect("text")
}

#[tokio::test]
async fn a_response_streams_event_by_event() {
    let (events, body) = by_hand();
    let body = std::sync::Mutex::new(Some(body));
    let app = FakeApp::answering(move |_| {
        Response::new(body.lock().expect("no panic").take().expect("asked once"))
    })
    .await;
    let stage = Stage::with(app, "").await;
    let mut response = stage.client().get("/events").begin().await.into_body();
    for event in ["data: 1\n\n", "data: 2\n\n", "data: 3\n\n"] {
        events.send(Ok(data(event))).await.expect("it is read");
        assert_eq!(next_text(&mut response).await, event);
    }
    assert!(stage.metric("requests_in_flight").await >= 1.0);
    drop(events);
    assert!(timeout(PATIENCE, response.frame()).await.expect("in time").is_none());
    stage.sidecar.metric_reaches("requests_in_flight", 0.0).await;
}

#[tokio::test]
async fn a_request_streams_to_an_app_that_answers_as_it_reads() {
    let stage = Stage::with(FakeApp::serving(echo).await, "").await;
    let mut wire = Wire::to(stage.sidecar.addresses.traffic).await;
    wire.send("POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n").await;
    wire.send("5\r\nfirst\r\n").await;
    wire.head().await;
    assert_eq!(wire.read_to("\r\nfirst\r\n").await, "5\r\nfirst\r\n");
    wire.send("6\r\nsecond\r\n0\r\n\r\n").await;
    assert_eq!(wire.read_to("0\r\n\r\n").await, "6\r\nsecond\r\n0\r\n\r\n");
}

#[tokio::test]
async fn a_get_with_a_body_of_unknown_length_keeps_it() {
    let stage = Stage::with(FakeApp::serving(echo).await, "").await;
    let mut wire = Wire::to(stage.sidecar.addresses.traffic).await;
    wire.send(
        "GET / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n",
    )
    .await;
    assert!(wire.head().await.starts_with("HTTP/1.1 200"));
    assert_eq!(wire.read_to("0\r\n\r\n").await, "4\r\nbody\r\n0\r\n\r\n");
}

#[tokio::test]
async fn large_bodies_pass_whole_in_both_directions() {
    let stage = Stage::with(FakeApp::serving(echo).await, "").await;
    let body: Vec<u8> = (0..8 << 20).map(|n: u32| (n % 251) as u8).collect();
    let over_http1 = stage.client().post("/", body.clone()).send().await;
    assert!(over_http1.body() == &body);
    let over_http2 = stage.client().post("/", body.clone()).send_http2().await;
    assert!(over_http2.body() == &body);
}

#[tokio::test]
async fn hop_by_hop_headers_are_removed_and_forwarding_is_added() {
    let app = FakeApp::answering(|_| {
        let mut response = plain("x");
        let headers = response.headers_mut();
        headers.insert("connection", HeaderValue::from_static("x-app-internal"));
        headers.insert("x-app-internal", HeaderValue::from_static("1"));
        headers.insert("keep-alive", HeaderValue::from_static("timeout=5"));
        response
    })
    .await;
    let stage = Stage::with(app, "").await;
    let sending = stage.client().get("/a%2Fb/?q=%20&&").header("x-forwarded-user", "ada");
    let sending = sending.header("connection", "x-internal, keep-alive").header("x-internal", "1");
    let sending = sending.header("keep-alive", "timeout=5").header("te", "gzip");
    let sending = sending.header("proxy-authorization", "Basic eA==").header("upgrade", "h2c");
    let answer = sending.header("x-forwarded-for", "192.0.2.1").send().await;
    assert_eq!(answer.header("x-app-internal"), None);
    assert_eq!(answer.header("keep-alive"), None);
    let arrived = stage.app.only();
    assert_eq!(arrived.target, "/a%2Fb/?q=%20&&");
    for gone in ["connection", "x-internal", "keep-alive", "te", "proxy-authorization", "upgrade"] {
        assert_eq!(arrived.header(gone), None, "{gone}");
    }
    assert_eq!(arrived.header("host"), Some("app.example"));
    assert_eq!(arrived.header("x-forwarded-for"), Some("192.0.2.1"));
    assert_eq!(arrived.header("x-forwarded-proto"), Some("http"));
    assert_eq!(arrived.header("x-forwarded-host"), Some("app.example"));
    assert_eq!(arrived.header("x-forwarded-user"), Some("ada"), "the app may need it");
}

#[tokio::test]
async fn split_cookies_of_http2_are_one_for_an_http1_app() {
    let stage = Stage::set("").await;
    let sending = stage.client().get("/").header("cookie", "a=1").header("cookie", "b=2");
    sending.send_http2().await;
    let arrived = stage.app.only();
    assert_eq!(arrived.header("cookie"), Some("a=1; b=2"));
    assert_eq!(arrived.version, Version::HTTP_11);
}

#[tokio::test]
async fn a_head_request_keeps_its_length_and_has_no_body() {
    let stage = Stage::set("").await;
    let answer = stage.client().request(Method::HEAD, "/").send().await;
    assert_eq!((answer.status(), answer.body().len()), (200, 0));
    assert_eq!(answer.header("content-length"), Some("18"));
    assert_eq!(stage.app.only().method, Method::HEAD);
    assert_eq!(stage.metric("responses_aborted_total{by=\"client\"}").await, 0.0);
}

/// Answers with a trailer and says in a header which trailers the request had.
async fn with_trailers(request: Request<Incoming>) -> Response<AppBody> {
    let received = request.into_body().collect().await.expect("a body");
    let names = received.trailers().map(|trailers| {
        trailers.keys().map(http::HeaderName::as_str).collect::<Vec<_>>().join(" ")
    });
    let mut trailers = HeaderMap::new();
    trailers.insert("x-app-checksum", HeaderValue::from_static("abc"));
    trailers.insert("x-velt-token", HeaderValue::from_static("forged"));
    let frames = [Ok(data("body")), Ok(Frame::trailers(trailers))];
    let mut response = Response::new(StreamBody::new(futures_util::stream::iter(frames)).boxed());
    let headers = response.headers_mut();
    headers.insert("trailer", HeaderValue::from_static("x-app-checksum, x-velt-token"));
    let names = names.unwrap_or_default();
    headers.insert("x-app-received", HeaderValue::from_str(&names).expect("names"));
    response
}

#[tokio::test]
async fn trailers_pass_both_ways_unless_they_name_an_identity() {
    let stage = Stage::with(FakeApp::serving(with_trailers).await, "").await;
    let mut wire = Wire::to(stage.sidecar.addresses.traffic).await;
    wire.send(
        "POST / HTTP/1.1\r\nhost: a\r\nte: trailers\r\ntrailer: x-sum\r\n\
         transfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nx-sum: 1\r\n\r\n",
    )
    .await;
    let head = wire.head().await;
    assert!(head.contains("x-app-received: x-sum\r\n"), "{head}");
    assert_eq!(
        wire.read_to("\r\n\r\n").await,
        "4\r\nbody\r\n0\r\nx-app-checksum: abc\r\n\r\n",
        "the forged token is gone"
    );
    let over_http2 = stage.client().get("/").header("te", "trailers").send_http2().await;
    let trailers = over_http2.trailers.expect("trailers");
    assert_eq!(trailers.len(), 1);
    assert_eq!(trailers["x-app-checksum"], "abc");
}

#[tokio::test]
async fn response_with_trailers_is_whole_and_frees_its_connection() {
    let stage = Stage::with(FakeApp::serving(with_trailers).await, ONE_WORKER).await;
    for n in 0..5 {
        let sending = stage.client().get("/").header("te", "trailers");
        let answer = if n % 2 == 0 { sending.send().await } else { sending.send_http2().await };
        assert!(answer.trailers.is_some());
    }
    stage.sidecar.metric_reaches("requests_in_flight", 0.0).await;
    assert_eq!(stage.metric("responses_aborted_total{by=\"client\"}").await, 0.0);
    assert_eq!(stage.app.connection_count(), 1);
    assert_eq!(stage.app.journal()[0].header("connection"), Some("TE"), "RFC 9110 section 10.1.4");
}

#[tokio::test]
async fn unreachable_h2c_app_fails_all_waiting_requests_at_once() {
    // The app accepts no connection: its backlog is full.
    let full = tokio::net::TcpSocket::new_v4().expect("a socket");
    full.bind("127.0.0.1:0".parse().expect("an address")).expect("a free port");
    let listener = full.listen(0).expect("it listens");
    let address = listener.local_addr().expect("an address");
    let mut filling = Vec::new();
    for _ in 0..8 {
        let connecting = tokio::net::TcpStream::connect(address);
        filling.push(timeout(Duration::from_millis(50), connecting).await);
    }
    let velt = FakeVelt::start().await;
    let toml =
        "[app]\nprotocol = \"h2c\"\nconnect_timeout = \"500ms\"\nresponse_timeout = \"1500ms\"";
    let sidecar = TestSidecar::start(&address.to_string(), velt.address, toml);
    let client = Client::to(sidecar.addresses.traffic);
    let requests: Vec<_> = (0..8).map(|_| tokio::spawn(client.get("/").send())).collect();
    for request in requests {
        let answer = request.await.expect("no panic");
        assert_eq!((answer.status(), &*answer.code()), (502, "app_unreachable"));
    }
}

#[tokio::test]
async fn heads_up_to_64_kib_pass_and_longer_ones_are_431() {
    let stage = Stage::set("").await;
    for (bytes, status) in [(60_000, 200), (66_000, 431)] {
        let mut wire = Wire::to(stage.sidecar.addresses.traffic).await;
        let padding = "x".repeat(bytes);
        wire.send(format!("GET / HTTP/1.1\r\nhost: a\r\nx-padding: {padding}\r\n\r\n")).await;
        let head = wire.head().await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{bytes}: {head}");
    }
}

#[tokio::test]
async fn an_h2c_app_gets_http2_with_trailers_and_its_authority() {
    let app = FakeApp::serving_h2c(with_trailers).await;
    let toml = format!("{ONE_WORKER}[app]\nprotocol = \"h2c\"");
    let stage = Stage::with(app, &toml).await;
    for over_http2 in [true, false] {
        let sending = stage.client().post("/svc/Method", "x").header("te", "trailers");
        let sending = sending.header("x-forwarded-user", "ada");
        let answer = if over_http2 { sending.send_http2().await } else { sending.send().await };
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.trailers.as_ref().expect("trailers")["x-app-checksum"], "abc");
        assert!(answer.token().is_some());
    }
    for arrived in stage.app.journal() {
        assert_eq!(arrived.version, Version::HTTP_2);
        assert_eq!(arrived.target, "http://app.example/svc/Method");
        assert_eq!(arrived.header("te"), Some("trailers"));
    }
    assert_eq!(stage.app.connection_count(), 1);
}

#[tokio::test]
async fn an_app_on_a_unix_socket_is_reached() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("app.sock");
    let listener = tokio::net::UnixListener::bind(&path).expect("a socket");
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("accept");
        let service = hyper::service::service_fn(|_| async { Ok::<_, String>(plain("over unix")) });
        let serving = hyper::server::conn::http1::Builder::new();
        serving.serve_connection(TokioIo::new(stream), service).await
    });
    let velt = FakeVelt::start().await;
    let address = format!("unix:{}", path.display());
    let sidecar = TestSidecar::start(&address, velt.address, "");
    let client = Client::to(sidecar.addresses.traffic);
    assert_eq!(client.get("/").send().await.text(), "over unix");
}

#[tokio::test]
async fn an_app_that_is_down_is_502_with_a_reason() {
    let sidecar = TestSidecar::before(unused_address().await).await;
    let client = Client::to(sidecar.addresses.traffic);
    let answer = client.get("/").send().await;
    assert_eq!((answer.status(), &*answer.code()), (502, "app_unreachable"));
    assert_eq!(sidecar.metric("requests_total{outcome=\"app_unreachable\"}").await, 1.0);
    let route = client.get("/api/velt/token").header("x-forwarded-user", "ada").send().await;
    assert_eq!(route.status(), 200, "the token routes don't need the app");
}

#[tokio::test]
async fn an_app_that_does_not_answer_is_504_after_the_configured_time() {
    let app = FakeApp::serving(|_| std::future::pending()).await;
    let stage = Stage::with(app, "[app]\nresponse_timeout = \"50ms\"").await;
    let answer = stage.client().get("/").send().await;
    assert_eq!((answer.status(), &*answer.code()), (504, "app_timeout"));
    assert_eq!(stage.metric("requests_total{outcome=\"app_timeout\"}").await, 1.0);
}

#[tokio::test]
async fn the_apps_time_begins_when_it_has_the_whole_request() {
    let toml = "[app]\nresponse_timeout = \"200ms\"";
    let stage = Stage::with(FakeApp::serving(echo_late).await, toml).await;
    let mut wire = Wire::to(stage.sidecar.addresses.traffic).await;
    wire.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\n").await;
    for byte in ["a", "b", "c"] {
        // The upload takes longer than the app may take to answer.
        tokio::time::sleep(Duration::from_millis(150)).await;
        wire.send(byte).await;
    }
    assert!(wire.head().await.starts_with("HTTP/1.1 200"));
}

async fn echo_late(request: Request<Incoming>) -> Response<AppBody> {
    Response::new(full(request.into_body().collect().await.expect("a body").to_bytes()))
}

#[tokio::test]
async fn app_that_breaks_off_leaves_a_broken_message() {
    let app = RawApp::serving(|mut wire, _| async move {
        wire.head().await;
        wire.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n").await;
    })
    .await;
    let sidecar = TestSidecar::before(app.address).await;
    let mut wire = Wire::to(sidecar.addresses.traffic).await;
    wire.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let received = wire.rest().await;
    assert!(received.ends_with("4\r\nhalf\r\n"), "no last chunk: {received}");
    sidecar.metric_reaches("responses_aborted_total{by=\"app\"}", 1.0).await;
}

/// Reads answers whose end must be missing, over both protocols. The app breaks off when the test says
/// that "half" has come: over HTTP/2 a reset may overtake earlier bytes.
async fn assert_broken_off(sidecar: &TestSidecar, half_has_come: &Notify) {
    let client = Client::to(sidecar.addresses.traffic);
    for over_http2 in [false, true] {
        let request = client.get("/");
        let response = if over_http2 { request.begin_http2().await } else { request.begin().await };
        assert_eq!(response.status(), 200);
        let mut body = response.into_body();
        assert_eq!(next_text(&mut body).await, "half");
        half_has_come.notify_one();
        let end = timeout(PATIENCE, body.frame()).await.expect("an end in time");
        let error = end.expect("no end that looks like one").expect_err("nothing more");
        // Over HTTP/2 the stream is reset, and the connection goes on.
        assert_eq!(format!("{error:?}").contains("Reset("), over_http2, "{error:?}");
    }
    sidecar.metric_reaches("responses_aborted_total{by=\"app\"}", 2.0).await;
}

#[tokio::test]
async fn answer_that_breaks_off_is_broken_in_any_framing() {
    for (framing, part, tail) in [
        ("content-length: 10", "half", ""),
        ("transfer-encoding: chunked", "4\r\nhalf\r\n", ""),
        ("transfer-encoding: chunked", "8\r\nhalf", ""),
        ("transfer-encoding: chunked", "4\r\nhalf\r\n", "no length\r\n"),
        ("transfer-encoding: chunked", "4\r\nhalf\r\n", "0\r\n"),
    ] {
        let half_has_come = Arc::new(Notify::new());
        let told = Arc::clone(&half_has_come);
        let app = RawApp::serving(move |mut wire, _| {
            let told = Arc::clone(&told);
            async move {
                wire.head().await;
                wire.send(format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n{part}")).await;
                told.notified().await;
                wire.send(tail).await;
            }
        })
        .await;
        let sidecar = TestSidecar::before(app.address).await;
        assert_broken_off(&sidecar, &half_has_come).await;
    }
}

#[tokio::test]
async fn a_stream_that_an_h2c_app_resets_is_a_broken_answer() {
    let half_has_come = Arc::new(Notify::new());
    let told = Arc::clone(&half_has_come);
    let app = FakeApp::serving_h2c(move |_| {
        let told = Arc::clone(&told);
        async move {
            let (frames, body) = by_hand();
            tokio::spawn(async move {
                frames.send(Ok(data("half"))).await.expect("it is read");
                told.notified().await;
                let reset = std::io::Error::other("it resets the stream");
                frames.send(Err(reset)).await.expect("it is read");
            });
            Response::new(body)
        }
    })
    .await;
    let stage = Stage::with(app, "[app]\nprotocol = \"h2c\"").await;
    assert_broken_off(&stage.sidecar, &half_has_come).await;
}

#[tokio::test]
async fn an_app_that_is_not_http_is_502() {
    let app = RawApp::serving(|mut wire, _| async move {
        wire.head().await;
        wire.send("SSH-2.0-OpenSSH\r\n\r\n").await;
    })
    .await;
    let sidecar = TestSidecar::before(app.address).await;
    let answer = Client::to(sidecar.addresses.traffic).get("/").send().await;
    assert_eq!((answer.status(), &*answer.code()), (502, "app_broken"));
}

#[tokio::test]
async fn a_client_that_leaves_cancels_its_request_at_the_app() {
    let stage = Stage::with(FakeApp::serving(|_| std::future::pending()).await, "").await;
    let leaving = tokio::spawn(stage.client().get("/").send());
    stage.app.requests_reach(1).await;
    leaving.abort();
    stage.sidecar.metric_reaches("requests_total{outcome=\"client_gone\"}", 1.0).await;
    stage.sidecar.metric_reaches("app_connections", 0.0).await;
}

#[tokio::test]
async fn connections_to_the_app_are_used_again() {
    let stage = Stage::set(ONE_WORKER).await;
    for n in 0..20 {
        assert_eq!(stage.client().get("/").send().await.status(), 200, "{n}");
    }
    assert_eq!(stage.app.connection_count(), 1);
}

/// Answers the first request of each connection and closes when the second arrives, as a kept-alive
/// connection does that dies at the wrong moment.
async fn dying_app() -> RawApp {
    RawApp::serving(|mut wire, _| async move {
        wire.head().await;
        wire.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
        wire.head().await;
    })
    .await
}

#[tokio::test]
async fn idempotent_request_survives_a_dead_idle_connection() {
    let (app, velt) = (dying_app().await, FakeVelt::start().await);
    let sidecar = TestSidecar::start(&app.address.to_string(), velt.address, ONE_WORKER);
    let client = Client::to(sidecar.addresses.traffic);
    for _ in 0..4 {
        assert_eq!(client.get("/").send().await.text(), "ok");
    }
    assert_eq!(sidecar.metric("app_retries_total").await, 3.0);
    assert_eq!(app.connection_count(), 4, "once, and on a new connection");
}

#[tokio::test]
async fn request_sent_again_equals_the_first() {
    let heads = Arc::new(std::sync::Mutex::new(Vec::new()));
    let noted = Arc::clone(&heads);
    let app = RawApp::serving(move |mut wire, _| {
        let noted = Arc::clone(&noted);
        async move {
            for answer in ["HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", ""] {
                let head = wire.head().await;
                noted.lock().expect("no panic").push(head);
                wire.send(answer).await;
            }
        }
    })
    .await;
    let velt = FakeVelt::start().await;
    let sidecar = TestSidecar::start(&app.address.to_string(), velt.address, ONE_WORKER);
    let mut wire = Wire::to(sidecar.addresses.traffic).await;
    let long = "x".repeat(20_000);
    for request in [
        "GET / HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(),
        format!(
            "DELETE /a%2Fb?q=%41&x=[1] HTTP/1.1\r\nHost: a\r\nX-Empty:\r\nX-Many: 1\r\n\
             Accept: */*\r\nX-Many: 2\r\nX-Latin: \u{e9}:\t{long}\r\n\r\n"
        ),
    ] {
        wire.send(&request).await;
        assert!(wire.head().await.starts_with("HTTP/1.1 200"));
        wire.read_to("ok").await;
    }
    assert_eq!(sidecar.metric("app_retries_total").await, 1.0);
    let heads = heads.lock().expect("no panic");
    let [_, lost, again] = &heads[..] else { panic!("{heads:?}") };
    assert!(lost.contains(&long) && lost.starts_with("DELETE /a%2Fb?q=%41&x=[1] "), "{lost}");
    assert_eq!(lost, again);
}

#[tokio::test]
async fn a_post_that_was_written_is_never_sent_twice() {
    let (app, velt) = (dying_app().await, FakeVelt::start().await);
    let sidecar = TestSidecar::start(&app.address.to_string(), velt.address, ONE_WORKER);
    let client = Client::to(sidecar.addresses.traffic);
    assert_eq!(client.get("/").send().await.text(), "ok");
    let answer = client.post("/", "x").send().await;
    assert_eq!((answer.status(), &*answer.code()), (502, "app_broken"));
    assert_eq!(sidecar.metric("app_retries_total").await, 0.0);
}

#[tokio::test]
async fn app_head_passes_up_to_192_kib_and_is_502_at_twice_that() {
    let app = FakeApp::answering(|arrived| {
        let kib: usize = arrived.target[1..].parse().expect("a number");
        Response::builder()
            .header("x-app-header", "x".repeat(kib * 1024))
            .body(full("ok"))
            .expect("a head")
    })
    .await;
    let stage = Stage::with(app, "").await;
    let passed = stage.get_as("ada", "/191").await;
    assert_eq!(
        (passed.status(), passed.header("x-app-header").map(str::len)),
        (200, Some(191 * 1024))
    );
    let refused = stage.get_as("ada", "/385").await;
    assert_eq!((refused.status(), &*refused.code()), (502, "app_broken"));
}

#[tokio::test]
async fn client_is_told_to_continue_only_when_the_app_asks() {
    let (ask, asked) = oneshot::channel::<()>();
    let asked = Arc::new(std::sync::Mutex::new(Some(asked)));
    let (reached, mut at_the_app) = mpsc::channel(1);
    let app = RawApp::serving(move |mut wire, _| {
        let (asked, reached) = (Arc::clone(&asked), reached.clone());
        async move {
            let head = wire.head().await;
            assert!(head.contains("expect: 100-continue"), "{head}");
            reached.send(()).await.expect("the test waits");
            let asked = asked.lock().expect("no panic").take().expect("asked once");
            asked.await.expect("the test asks");
            wire.send("HTTP/1.1 100 Continue\r\n\r\n").await;
            wire.read_to("body").await;
            wire.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        }
    })
    .await;
    let sidecar = TestSidecar::before(app.address).await;
    let mut wire = Wire::to(sidecar.addresses.traffic).await;
    wire.send("POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\n")
        .await;
    at_the_app.recv().await.expect("it arrives");
    assert!(wire.is_silent(), "the app has not asked yet");
    ask.send(()).expect("the app waits");
    assert_eq!(wire.head().await, "HTTP/1.1 100 Continue\r\n\r\n");
    wire.send("body").await;
    assert!(wire.head().await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_client_whose_body_is_not_wanted_is_not_told_to_continue() {
    let app = RawApp::serving(|mut wire, _| async move {
        wire.head().await;
        wire.send("HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno").await;
        assert_eq!(wire.rest().await, "", "not a byte of the body");
    })
    .await;
    let sidecar = TestSidecar::before(app.address).await;
    let mut wire = Wire::to(sidecar.addresses.traffic).await;
    wire.send("POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\n")
        .await;
    assert!(wire.head().await.starts_with("HTTP/1.1 403"));
    assert_eq!(wire.read_to("no").await, "no");
    sidecar.metric_reaches("app_connections", 0.0).await;
}

#[tokio::test]
async fn ambiguous_messages_are_refused_and_their_connection_closed() {
    let stage = Stage::set("").await;
    for (request, status) in [
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nhost: a\r\nhost: a\r\n\r\n", 400),
        ("GET http://b/ HTTP/1.1\r\nhost: a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nhost: a\r\nconnection: x-forwarded-for\r\n\r\n", 400),
        ("CONNECT a:80 HTTP/1.1\r\nhost: a:80\r\n\r\n", 501),
        ("TRACE / HTTP/1.1\r\nhost: a\r\n\r\n", 501),
        ("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
        ("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nx", 400),
        ("POST / HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    ] {
        let mut wire = Wire::to(stage.sidecar.addresses.traffic).await;
        wire.send(request).await;
        let received = wire.rest().await;
        assert!(received.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {received}");
    }
    assert_eq!(stage.app.journal().len(), 0);
}

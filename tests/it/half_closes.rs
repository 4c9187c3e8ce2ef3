//! Clients that end their half of the connection after their request, and clients that have left.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use http::Response;
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use rustls::ClientConfig;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::support::app::{FakeApp, plain};
use crate::support::certificates::{Authority, Folder, VALID, connect};
use crate::support::raw::Wire;
use crate::support::{PATIENCE, Stage};

/// Time after which the sidecar has found out whether a client has left.
const LONG: Duration = Duration::from_millis(3_700);

const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
const POST: &str = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello";
const TOKEN: &str = "GET /api/velt/token HTTP/1.1\r\nhost: a\r\nx-forwarded-user: ada\r\n\r\n";

/// Sends a request, ends this half, and reads the answer to the end of the connection.
async fn ask<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, request: &str) -> String {
    stream.write_all(request.as_bytes()).await.expect("the sidecar reads");
    stream.shutdown().await.expect("still open");
    let mut answer = Vec::new();
    let read = timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
    read.expect("an end in time").expect("an end in order");
    String::from_utf8(answer).expect("text")
}

async fn slow_app() -> FakeApp {
    FakeApp::serving(|_| async {
        // The answer has to come after the sidecar has looked for a client that has left.
        sleep(LONG).await;
        plain("late")
    })
    .await
}

async fn over_tls(app: FakeApp) -> (Stage, Arc<ClientConfig>, Folder) {
    let (authority, folder) = (Authority::new(), Folder::new());
    folder.write_pair(&authority.issue(&["localhost"], VALID));
    let stage = Stage::with(app, &folder.toml()).await;
    (stage, authority.client(None, &[]), folder)
}

async fn has_its_answer(stage: &Stage, request: &str) {
    let stream = TcpStream::connect(stage.sidecar.addresses.traffic).await;
    let answer = ask(stream.expect("it listens"), request).await;
    let whole = answer.starts_with("HTTP/1.1 200 ") || answer.starts_with("HTTP/1.0 200 ");
    assert!(whole && answer.ends_with("late"), "{answer:?}");
}

#[tokio::test]
async fn half_closed_client_has_its_late_answer() {
    let stage = Stage::with(slow_app().await, "").await;
    let two = format!("{GET}{GET}");
    tokio::join!(
        has_its_answer(&stage, GET),
        has_its_answer(&stage, POST),
        has_its_answer(&stage, "GET / HTTP/1.0\r\n\r\n"),
        has_its_answer(&stage, &two),
    );
    assert_eq!(stage.metric("requests_total{outcome=\"forwarded\"}").await, 5.0);
    stage.sidecar.metric_reaches("connections_open", 0.0).await;
}

#[tokio::test]
async fn half_closed_client_has_its_late_answer_over_tls() {
    let (stage, config, _folder) = over_tls(slow_app().await).await;
    let asking = async |request| {
        let stream = connect(stage.sidecar.addresses.traffic, &config).await;
        let answer = ask(stream.expect("a handshake"), request).await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("late"), "{answer:?}");
    };
    tokio::join!(asking(GET), asking(POST));
}

#[tokio::test]
async fn half_closed_client_has_its_token() {
    let stage = Stage::set("").await;
    stage.velt.close_gate();
    let stream = TcpStream::connect(stage.sidecar.addresses.traffic).await.expect("it listens");
    let asking = tokio::spawn(ask(stream, TOKEN));
    stage.velt.calls_reach(1).await;
    // No event tells that the sidecar has read the half-close, which must not end the request.
    sleep(Duration::from_millis(200)).await;
    stage.velt.open_gate();
    let answer = asking.await.expect("no panic");
    assert!(answer.contains("{\"token\":\""), "{answer:?}");
}

/// Way in which a client leaves.
#[derive(Clone, Copy, Debug)]
enum Leaving {
    Closing,
    ClosingHalfFirst,
    Resetting,
}

async fn leave<S: AsyncWrite + Unpin>(mut stream: S, stage: &Stage, leaving: Leaving) {
    if let Leaving::ClosingHalfFirst = leaving {
        stream.shutdown().await.expect("still open");
        // The sidecar has noticed by then.
        sleep(Duration::from_millis(300)).await;
        assert_eq!(stage.metric("requests_in_flight").await, 1.0);
    }
    drop(stream);
    stage.sidecar.metric_reaches("requests_in_flight", 0.0).await;
    stage.sidecar.metric_reaches("app_connections", 0.0).await;
}

#[tokio::test]
async fn client_that_is_gone_cancels_its_request() {
    let stage = Stage::with(FakeApp::serving(|_| pending()).await, "").await;
    let (secure, config, _folder) = over_tls(FakeApp::serving(|_| pending()).await).await;
    for (count, leaving) in
        [Leaving::Closing, Leaving::ClosingHalfFirst, Leaving::Resetting].into_iter().enumerate()
    {
        let linger = matches!(leaving, Leaving::Resetting).then_some(Duration::ZERO);
        let stream = TcpStream::connect(stage.sidecar.addresses.traffic).await;
        let mut stream = stream.expect("it listens");
        socket2::SockRef::from(&stream).set_linger(linger).expect("a socket's option");
        stream.write_all(GET.as_bytes()).await.expect("the sidecar reads");
        let encrypted = connect(secure.sidecar.addresses.traffic, &config).await;
        let mut encrypted = encrypted.expect("a handshake");
        socket2::SockRef::from(encrypted.get_ref().0).set_linger(linger).expect("an option");
        encrypted.write_all(GET.as_bytes()).await.expect("the sidecar reads");
        stage.app.requests_reach(count + 1).await;
        secure.app.requests_reach(count + 1).await;
        tokio::join!(leave(stream, &stage, leaving), leave(encrypted, &secure, leaving));
    }
    assert_eq!(stage.metric("requests_total{outcome=\"client_gone\"}").await, 3.0);
}

/// App that sends one event, then pauses, and sends another.
async fn events(pause: Duration) -> FakeApp {
    FakeApp::answering(move |_| {
        let events = futures_util::stream::unfold(false, move |paused| async move {
            if paused {
                // The second event has to come after the sidecar has looked for a client that has left.
                sleep(pause).await;
            }
            Some((Ok(Frame::data("data: 1\n\n".into())), !paused))
        });
        Response::new(StreamBody::new(events).boxed())
    })
    .await
}

#[tokio::test]
async fn event_stream_goes_on_after_half_a_close() {
    let stage = Stage::with(events(LONG).await, "").await;
    let mut answer = stage.client().get("/").begin().await;
    let mut wire = Wire::to(stage.sidecar.addresses.traffic).await;
    wire.send(GET).await;
    wire.end().await;
    let received = wire.read_to("data: 1\n\n\r\n").await;
    assert!(received.contains("transfer-encoding: chunked"), "{received}");
    // The event comes in a chunk of 9 bytes, whose size may have zeros in front.
    let next = wire.read_to("9\r\ndata: 1\n\n\r\n").await;
    let (size, event) = next.split_once("\r\n").expect("a chunk");
    assert_eq!((size.trim_start_matches('0'), event), ("9", "data: 1\n\n\r\n"), "{next:?}");
    assert!(size.len() > 1, "it was asked whether it is still there: {next:?}");
    drop(wire);
    stage.sidecar.metric_reaches("app_connections", 1.0).await;
    let frame = timeout(PATIENCE, answer.body_mut().frame()).await.expect("in time");
    assert!(frame.is_some(), "the other client's stream goes on");
}

#[tokio::test]
async fn silent_event_stream_ends_with_its_client() {
    let stage = Stage::with(events(Duration::MAX).await, "").await;
    let mut wire = Wire::to(stage.sidecar.addresses.traffic).await;
    wire.send(GET).await;
    wire.read_to("data: 1\n\n").await;
    drop(wire);
    stage.sidecar.metric_reaches("app_connections", 0.0).await;
}

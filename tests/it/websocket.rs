//! WebSockets: the tunnel begins only after the app has agreed to it.

use futures_util::{SinkExt as _, StreamExt as _};
use http::{HeaderValue, Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixListener};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::support::Stage;
use crate::support::app::{AppBody, FakeApp, full};
use crate::support::raw::{RawApp, SWITCHED, Wire, unused_address};

const HANDSHAKE: &str = "GET /ws HTTP/1.1\r\nhost: a\r\nconnection: Upgrade\r\n\
    upgrade: websocket\r\nsec-websocket-version: 13\r\n\
    sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// Echoes messages until the client closes.
pub async fn echo(mut request: Request<Incoming>) -> Response<AppBody> {
    let key = request.headers()["sec-websocket-key"].clone();
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let io = TokioIo::new(upgrade.await.expect("an upgrade"));
        let mut socket = WebSocketStream::from_raw_socket(io, Role::Server, None).await;
        while let Some(Ok(message)) = socket.next().await {
            if message.is_text() {
                socket.send(message).await.expect("the client reads");
            }
        }
    });
    let mut response = Response::new(full(""));
    *response.status_mut() = http::StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert("connection", HeaderValue::from_static("Upgrade"));
    headers.insert("upgrade", HeaderValue::from_static("websocket"));
    let accept = derive_accept_key(key.as_bytes());
    headers.insert("sec-websocket-accept", HeaderValue::from_str(&accept).expect("base64"));
    response
}

#[tokio::test]
async fn messages_pass_both_ways_and_the_close_arrives() {
    let stage = Stage::with(FakeApp::serving(echo).await, "").await;
    let stream = TcpStream::connect(stage.sidecar.addresses.traffic).await.expect("it listens");
    let request = Request::builder()
        .uri("ws://app.example/ws")
        .header("host", "app.example")
        .header("connection", "keep-alive, Upgrade")
        .header("upgrade", "WebSocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
        .header("x-forwarded-user", "ada")
        .body(())
        .expect("a request");
    let (mut socket, response) =
        tokio_tungstenite::client_async(request, stream).await.expect("a WebSocket");
    assert!(!response.headers().contains_key("x-velt-token"), "never on an upgrade");
    stage.sidecar.metric_reaches("tunnels_open", 1.0).await;
    exchange(&mut socket).await;
    close(&mut socket).await;
    drop(socket);
    stage.sidecar.metric_reaches("tunnels_open", 0.0).await;
    assert_eq!(stage.metric("requests_total{outcome=\"upgraded\"}").await, 1.0);
    let arrived = stage.app.only();
    assert_eq!(arrived.header("upgrade"), Some("websocket"));
    assert_eq!(arrived.header("x-forwarded-user"), Some("ada"));
}

#[tokio::test]
async fn t16_bytes_before_a_refused_upgrade_become_no_request() {
    let stage = Stage::set("").await;
    let mut wire = Wire::to(stage.sidecar.addresses.traffic).await;
    wire.send(format!("{HANDSHAKE}\r\nGET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n")).await;
    let received = wire.rest().await;
    assert!(received.starts_with("HTTP/1.1 200"), "the app's own answer: {received}");
    assert!(received.contains("connection: close\r\n"), "{received}");
    assert_eq!(stage.app.only().target, "/ws");
}

#[tokio::test]
async fn t16_bytes_after_an_unanswered_handshake_become_no_request() {
    let velt = crate::support::velt::FakeVelt::start().await;
    let app = unused_address().await.to_string();
    let sidecar = crate::support::TestSidecar::start(&app, velt.address, "");
    let mut wire = Wire::to(sidecar.addresses.traffic).await;
    let smuggled = "GET /api/velt/token HTTP/1.1\r\nhost: a\r\nx-forwarded-user: eve\r\n\r\n";
    wire.send(format!("{HANDSHAKE}\r\n{smuggled}")).await;
    let received = wire.rest().await;
    assert!(received.starts_with("HTTP/1.1 502"), "{received}");
    assert_eq!(received.matches("HTTP/1.1").count(), 1, "{received}");
}

#[tokio::test]
async fn a_101_that_does_not_answer_the_handshake_is_502() {
    for answer in [
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-accept: d3Jvbmc=\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: h2c\r\n\
         sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
    ] {
        let app = RawApp::serving(move |mut wire, _| async move {
            wire.head().await;
            wire.send(answer).await;
            wire.rest().await;
        })
        .await;
        let velt = crate::support::velt::FakeVelt::start().await;
        let address = app.address.to_string();
        let sidecar = crate::support::TestSidecar::start(&address, velt.address, "");
        let mut wire = Wire::to(sidecar.addresses.traffic).await;
        wire.send(format!("{HANDSHAKE}\r\n")).await;
        let head = wire.head().await;
        assert!(head.starts_with("HTTP/1.1 502"), "{answer}: {head}");
    }
}

#[tokio::test]
async fn no_upgrade_but_websocket_is_offered_to_the_app() {
    let stage = Stage::set("").await;
    for upgrade in ["h2c", "tls/1.3", "websocket, h2c"] {
        let sending = stage.client().get("/").header("connection", "upgrade");
        let answer = sending.header("upgrade", upgrade).header("sec-websocket-key", "eA==").send();
        assert_eq!(answer.await.status(), 200, "{upgrade}");
    }
    for arrived in stage.app.journal() {
        assert_eq!((arrived.header("upgrade"), arrived.header("connection")), (None, None));
    }
}

#[tokio::test]
async fn half_a_close_leaves_the_other_half_open() {
    let app = RawApp::serving(|mut wire, _| async move {
        wire.head().await;
        wire.send(SWITCHED).await;
        assert_eq!(wire.rest().await, "last words", "the client has ended its half");
        wire.send("and an answer").await;
    })
    .await;
    let sidecar = crate::support::TestSidecar::before(app.address).await;
    let mut wire = Wire::to(sidecar.addresses.traffic).await;
    wire.send(format!("{HANDSHAKE}\r\n")).await;
    wire.head().await;
    wire.send("last words").await;
    wire.end().await;
    assert_eq!(wire.rest().await, "and an answer");
}

#[tokio::test]
async fn bytes_sent_with_the_handshake_are_carried() {
    let app = RawApp::serving(|mut wire, _| async move {
        wire.head().await;
        wire.send([SWITCHED.as_bytes(), b"from the app"].concat()).await;
        assert_eq!(wire.rest().await, "from the client, and more");
    })
    .await;
    let sidecar = crate::support::TestSidecar::before(app.address).await;
    let mut wire = Wire::to(sidecar.addresses.traffic).await;
    wire.send(format!("{HANDSHAKE}\r\nfrom the client")).await;
    wire.head().await;
    assert_eq!(wire.read_exactly(12).await, b"from the app");
    wire.send(", and more").await;
    wire.end().await;
    assert_eq!(wire.rest().await, "");
}

/// A WebSocket over a connection to the sidecar.
async fn open<S: AsyncRead + AsyncWrite + Unpin>(stream: S) -> WebSocketStream<S> {
    let opened = tokio_tungstenite::client_async("ws://app.example/ws", stream).await;
    opened.expect("a WebSocket").0
}

/// A WebSocket through the sidecar.
pub async fn connect(stage: &Stage) -> WebSocketStream<TcpStream> {
    open(TcpStream::connect(stage.sidecar.addresses.traffic).await.expect("it listens")).await
}

/// Sends messages of all sizes over a connection to a sidecar, whose app answers with [`echo`].
pub async fn assert_echoes(stream: impl AsyncRead + AsyncWrite + Unpin) {
    let mut socket = open(stream).await;
    exchange(&mut socket).await;
    close(&mut socket).await;
}

/// Sends messages of all sizes, which come back.
pub async fn exchange(socket: &mut WebSocketStream<impl AsyncRead + AsyncWrite + Unpin>) {
    for text in ["one", "two", &"long ".repeat(100_000)] {
        socket.send(Message::text(text)).await.expect("it is read");
        let echoed = socket.next().await.expect("an echo").expect("a message");
        assert_eq!(echoed.into_text().expect("text").as_str(), text);
    }
}

async fn close(socket: &mut WebSocketStream<impl AsyncRead + AsyncWrite + Unpin>) {
    socket.close(None).await.expect("a close");
    while let Some(Ok(_)) = socket.next().await {}
}

#[tokio::test]
async fn messages_pass_to_an_app_on_a_unix_socket() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("app.sock");
    let listener = UnixListener::bind(&path).expect("a socket");
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("accept");
        let service = hyper::service::service_fn(|request| async {
            Ok::<_, std::convert::Infallible>(echo(request).await)
        });
        let serving = hyper::server::conn::http1::Builder::new();
        serving.serve_connection(TokioIo::new(stream), service).with_upgrades().await
    });
    let velt = crate::support::velt::FakeVelt::start().await;
    let address = format!("unix:{}", path.display());
    let sidecar = crate::support::TestSidecar::start(&address, velt.address, "");
    let stream = TcpStream::connect(sidecar.addresses.traffic).await.expect("it listens");
    assert_echoes(stream).await;
    sidecar.metric_reaches("tunnels_closed_total{end=\"closed\"}", 1.0).await;
}

#[tokio::test]
async fn shutdown_tells_clients_and_closes_both_sides() {
    let mut stage = Stage::with(FakeApp::serving(echo).await, "").await;
    let (mut socket, mut other) = (connect(&stage).await, connect(&stage).await);
    socket.send(Message::text("hello")).await.expect("it is read");
    socket.next().await.expect("an echo").expect("a message");
    stage.sidecar.terminate();
    for socket in [&mut socket, &mut other] {
        let told = socket.next().await.expect("a message").expect("a Close");
        let Message::Close(Some(close)) = told else { panic!("{told:?}") };
        assert_eq!(u16::from(close.code), 1001);
    }
    // Reading on sends the answer to the Close, and finds the end that the app then makes.
    assert!(socket.next().await.is_none_or(|read| read.is_err()));
    stage.sidecar.metric_reaches("tunnels_closed_total{end=\"told\"}", 1.0).await;
    assert!(other.next().await.is_none_or(|read| read.is_err()));
    stage.sidecar.ended().await;
}

#[tokio::test]
async fn the_close_waits_for_the_end_of_the_frame_under_way() {
    let (gate, opened) = tokio::sync::watch::channel(false);
    let app = RawApp::serving(move |mut wire, _| {
        let mut opened = opened.clone();
        async move {
            wire.head().await;
            wire.send(SWITCHED).await;
            wire.send([0x82, 8, b'h', b'a']).await;
            opened.wait_for(|open| *open).await.expect("the gate outlives the app");
            wire.send("lf way").await;
            wire.send([0x82, 4]).await;
            wire.send("more").await;
            assert_eq!(wire.rest().await, "answered");
        }
    })
    .await;
    let mut sidecar = crate::support::TestSidecar::before(app.address).await;
    let mut wire = Wire::to(sidecar.addresses.traffic).await;
    wire.send(format!("{HANDSHAKE}\r\n")).await;
    wire.head().await;
    assert_eq!(wire.read_exactly(4).await, [0x82, 8, b'h', b'a']);
    sidecar.terminate();
    sidecar.metric_reaches("ready", 0.0).await;
    gate.send_replace(true);
    assert_eq!(wire.read_exactly(6).await, b"lf way");
    // The next frame comes first if the end of the sidecar came late.
    let next = wire.read_exactly(4).await;
    let close = [0x88, 2, 0x03, 0xe9];
    if next != close {
        assert_eq!([next, wire.read_exactly(2).await].concat(), b"\x82\x04more");
        assert_eq!(wire.read_exactly(4).await, close);
    }
    wire.send("answered").await;
    wire.end().await;
    assert_eq!(wire.rest().await, "", "nothing after the Close");
    sidecar.ended().await;
}

#[tokio::test]
async fn client_that_ignores_the_close_is_cut_off_at_the_deadline() {
    let app = FakeApp::serving(echo).await;
    let mut stage = Stage::with(app, "[shutdown]\ndeadline = \"50ms\"").await;
    let _deaf = connect(&stage).await;
    stage.sidecar.metric_reaches("tunnels_open", 1.0).await;
    stage.sidecar.terminate();
    stage.sidecar.ended().await;
}

#[tokio::test]
async fn a_tunnel_that_stands_still_ends_if_a_limit_is_set() {
    let app = FakeApp::serving(echo).await;
    let stage = Stage::with(app, "[app]\nstream_idle_timeout = \"50ms\"").await;
    let mut socket = connect(&stage).await;
    assert!(socket.next().await.is_none_or(|read| read.is_err()), "it just ends");
    stage.sidecar.metric_reaches("tunnels_closed_total{end=\"idle\"}", 1.0).await;
}

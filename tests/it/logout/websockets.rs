//! WebSockets of users who are signed out.

use futures_util::{SinkExt as _, StreamExt as _};
use http::{HeaderValue, Request};
use serde_json::json;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use super::{Provider, post};
use crate::support::app::FakeApp;
use crate::support::{PATIENCE, Stage};
use crate::websocket::echo;

/// Opens a WebSocket to an app that echoes.
async fn open(stage: &Stage, user: Option<&str>) -> WebSocketStream<TcpStream> {
    let stream = TcpStream::connect(stage.sidecar.addresses.traffic).await.expect("it listens");
    let mut request = Request::builder()
        .uri("ws://app.example/ws")
        .header("host", "app.example")
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
    if let Some(user) = user {
        request = request.header("x-forwarded-user", user);
    }
    let request = request.body(()).expect("a request");
    tokio_tungstenite::client_async(request, stream).await.expect("a WebSocket").0
}

async fn echoes(socket: &mut WebSocketStream<TcpStream>) -> bool {
    socket.send(Message::text("hello")).await.expect("open");
    let echoed = socket.next().await.expect("an answer").expect("no error");
    echoed.to_text().is_ok_and(|text| text == "hello")
}

/// Waits for the Close frame, and returns its code.
async fn closed(socket: &mut WebSocketStream<TcpStream>) -> u16 {
    let closing = timeout(PATIENCE, socket.next());
    match closing.await.expect("in time").expect("a frame").expect("no error") {
        Message::Close(Some(frame)) => frame.code.into(),
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn logout_ends_websockets_of_its_user_alone() {
    let provider = Provider::start().await;
    let toml = provider.toml("end_websockets = true");
    let stage = Stage::with(FakeApp::serving(echo).await, &toml).await;
    let mut adas = [open(&stage, Some("ada")).await, open(&stage, Some("ada")).await];
    let (mut bobs, mut nameless) = (open(&stage, Some("bob")).await, open(&stage, None).await);
    assert!(echoes(&mut adas[0]).await && echoes(&mut bobs).await);
    assert_eq!(post(&stage, &provider.token("ada", &json!({}))).await.status(), 200);
    for socket in &mut adas {
        assert_eq!(closed(socket).await, 1008);
        // Sends the answer to the Close frame, and reads up to the end.
        while let Some(Ok(_)) = socket.next().await {}
    }
    stage.sidecar.metric_reaches("tunnels_closed_total{end=\"signed_out\"}", 2.0).await;
    assert!(echoes(&mut bobs).await && echoes(&mut nameless).await);
    // A WebSocket is the app's own, so it may open again.
    assert!(echoes(&mut open(&stage, Some("ada")).await).await);
}

#[tokio::test]
async fn logout_leaves_websockets_open_unless_told() {
    let provider = Provider::start().await;
    let stage = Stage::with(FakeApp::serving(echo).await, &provider.toml("")).await;
    let mut socket = open(&stage, Some("ada")).await;
    assert_eq!(post(&stage, &provider.token("ada", &json!({}))).await.status(), 200);
    assert!(echoes(&mut socket).await);
}

#[tokio::test]
async fn logout_ends_websockets_of_a_user_whom_the_app_names() {
    let provider = Provider::start().await;
    let toml = format!(
        "[identity]\nsource = \"app\"\napp_path = \"/session\"\n{}",
        provider.toml("end_websockets = true")
    );
    let app = FakeApp::serving(|request| async {
        let mut answer = echo(request).await;
        answer.headers_mut().insert("x-velt-user", HeaderValue::from_static("ada"));
        answer
    });
    let stage = Stage::with(app.await, &toml).await;
    let mut socket = open(&stage, None).await;
    assert!(echoes(&mut socket).await);
    assert_eq!(post(&stage, &provider.token("ada", &json!({}))).await.status(), 200);
    assert_eq!(closed(&mut socket).await, 1008);
}

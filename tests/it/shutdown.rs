//! The end of life: not ready, still accepting, drained, gone.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use http::Request;
use http_body_util::BodyExt as _;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::Instant;
use velt_sidecar::app::{App, StartError};

use crate::support::app::FakeApp;
use crate::support::client::Client;
use crate::support::raw::Wire;
use crate::support::{Stage, TestSidecar, config, document};

#[tokio::test]
async fn requests_in_flight_are_finished_and_idle_connections_closed() {
    let (gate, app) = FakeApp::gated().await;
    let mut stage = Stage::with(app, "").await;
    let mut idle = Wire::to(stage.sidecar.addresses.traffic).await;
    let mut busy = Wire::to(stage.sidecar.addresses.traffic).await;
    busy.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    stage.app.requests_reach(1).await;
    stage.sidecar.metric_reaches("connections_open", 2.0).await;
    stage.sidecar.terminate();
    assert_eq!(idle.rest().await, "", "closed at once");
    gate.send_replace(true);
    let received = busy.rest().await;
    assert!(received.starts_with("HTTP/1.1 200"), "{received}");
    assert!(received.ends_with("late"));
    let address = stage.sidecar.addresses.traffic;
    stage.sidecar.ended().await;
    assert!(TcpStream::connect(address).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn during_the_grace_time_it_is_not_ready_but_serves() {
    let mut stage = Stage::set("[shutdown]\ngrace = \"60s\"").await;
    let admin = Client::to(stage.sidecar.addresses.admin);
    for path in ["/healthz/live", "/healthz/ready", "/healthz/startup"] {
        assert_eq!(admin.get(path).send().await.status(), 200, "{path}");
    }
    stage.sidecar.terminate();
    stage.sidecar.metric_reaches("ready", 0.0).await;
    assert_eq!(admin.get("/healthz/ready").send().await.status(), 503);
    assert_eq!(admin.get("/healthz/live").send().await.status(), 200);
    let answer = stage.get_as("ada", "/").await;
    assert_eq!(answer.status(), 200, "new connections are still served");
    assert_eq!(answer.header("connection"), Some("close"), "and none is kept alive");
}

#[tokio::test]
async fn the_deadline_ends_what_does_not_end() {
    let (_gate, app) = FakeApp::gated().await;
    let mut stage = Stage::with(app, "[shutdown]\ndeadline = \"50ms\"").await;
    let mut busy = Wire::to(stage.sidecar.addresses.traffic).await;
    busy.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    stage.app.requests_reach(1).await;
    stage.sidecar.terminate();
    stage.sidecar.ended().await;
}

#[tokio::test]
async fn velt_being_down_does_not_make_it_unready() {
    let stage = Stage::set("").await;
    stage.velt.answer_with(503, "{}");
    stage.get_as("ada", "/api/velt/token").await;
    let admin = Client::to(stage.sidecar.addresses.admin);
    assert_eq!(admin.get("/healthz/ready").send().await.status(), 200);
}

#[tokio::test]
async fn an_address_in_use_is_found_before_anything_serves() {
    let taken = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = taken.local_addr().expect("an address");
    for key in ["listen", "admin"] {
        let toml = format!("[{key}]\naddress = \"{address}\"");
        let velt = "127.0.0.1:9".parse().expect("an address");
        let config = config(&document("127.0.0.1:9", velt, &toml)).expect("valid");
        let error = App::bind(config).await.err().expect("it is taken");
        assert!(matches!(error, StartError::Bind { .. }));
        let text = error.to_string();
        assert!(text.contains(&address.to_string()) && text.contains(key), "{text}");
    }
}

/// The grace time of the restarts.
const GRACE: Duration = Duration::from_millis(200);

/// Sends one request after the other until told to stop. Retries nothing but refused connections,
/// and keeps no connection for longer than the grace time, as a front proxy's pool is set to.
async fn load(address: SocketAddr, mut stop: watch::Receiver<bool>) -> Result<u32, String> {
    let mut answered = 0;
    while !*stop.borrow_and_update() {
        let stream = match TcpStream::connect(address).await {
            Ok(stream) => stream,
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                tokio::task::yield_now().await;
                continue;
            }
            Err(error) => return Err(format!("connect: {error}")),
        };
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(|error| format!("handshake: {error}"))?;
        tokio::spawn(connection);
        loop {
            let request = Request::get("/").header("host", "a").body(String::new());
            let sent = sender.send_request(request.expect("a request")).await;
            let response = sent.map_err(|error| format!("request {answered}: {error:?}"))?;
            let leaving = response.headers().contains_key("connection");
            let (parts, body) = response.into_parts();
            let body = body.collect().await.map_err(|error| format!("body: {error}"))?;
            if parts.status != 200 || body.to_bytes() != "hello from the app" {
                return Err(format!("answered {}", parts.status));
            }
            answered += 1;
            if leaving || *stop.borrow() {
                break;
            }
            let idle = Instant::now();
            sender.ready().await.map_err(|error| format!("kept alive: {error}"))?;
            if idle.elapsed() > GRACE / 2 {
                break;
            }
        }
    }
    Ok(answered)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_restarts_under_load_lose_no_request() {
    let mut stage = Stage::set("[shutdown]\ngrace = \"200ms\"").await;
    let address = stage.sidecar.addresses.traffic;
    let stop = watch::Sender::new(false);
    let clients: Vec<_> = (0..4).map(|_| tokio::spawn(load(address, stop.subscribe()))).collect();
    let app = stage.app.address.to_string();
    for _ in 0..50 {
        stage.sidecar.metric_reaches("ready", 1.0).await;
        stage.sidecar.terminate();
        stage.sidecar.ended().await;
        let toml = format!("[shutdown]\ngrace = \"200ms\"\n[listen]\naddress = \"{address}\"");
        stage.sidecar = TestSidecar::start(&app, stage.velt.address, &toml).await;
    }
    stop.send_replace(true);
    let mut answered = 0;
    for client in clients {
        answered += client.await.expect("no panic").expect("no failed request");
    }
    assert!(answered > 500, "only {answered} requests were under way");
}

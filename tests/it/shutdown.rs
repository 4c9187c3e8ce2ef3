//! Shutdown of a sidecar: not ready, still accepting, drained, gone.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use http::Request;
use http_body_util::BodyExt as _;
use hyper_util::rt::TokioIo;
use server::{Server, StartError};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::frames::{
    ACK, DATA, END_STREAM, Frame, GOAWAY, HEADERS, PING, RESET, SETTINGS, STATUS_200,
    WINDOW_UPDATE, frame, opening, request, stream,
};
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
async fn sidecar_serves_but_is_not_ready_in_the_grace_time() {
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

/// Returns the last stream that a GOAWAY promises to answer, and the reason for the end of the
/// connection.
fn told(goaway: &Frame) -> (u32, u32) {
    let number = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().expect("four bytes"));
    (number(&goaway.payload[..4]), number(&goaway.payload[4..8]))
}

/// Reads up to the notice that a connection is about to end, and answers its ping.
async fn be_told(wire: &mut Wire) {
    let any_stream = ((1 << 31) - 1, 0);
    assert_eq!(told(&wire.frame_of(GOAWAY).await), any_stream, "no error, and nothing is lost");
    let ping = wire.frame_of(PING).await;
    wire.send(frame(PING, ACK, 0, &ping.payload)).await;
}

#[tokio::test]
async fn http2_clients_lose_nothing_in_the_grace_time() {
    let (gate, app) = FakeApp::gated().await;
    let mut stage = Stage::with(app, "[shutdown]\ngrace = \"60s\"").await;
    let mut early = Wire::to(stage.sidecar.addresses.traffic).await;
    early.send([opening(), request(1, END_STREAM, "GET", "/")].concat()).await;
    stage.app.requests_reach(1).await;
    stage.sidecar.terminate();
    // A request that has crossed the notice is served.
    assert_eq!(told(&early.frame_of(GOAWAY).await).0, (1 << 31) - 1);
    early.send(request(3, END_STREAM, "GET", "/")).await;
    stage.app.requests_reach(2).await;
    let ping = early.frame_of(PING).await;
    early.send(frame(PING, ACK, 0, &ping.payload)).await;
    assert_eq!(told(&early.frame_of(GOAWAY).await), (3, 0), "the last that will be");

    // A client that connects now is told only after its first request; told earlier, it would connect
    // again at once.
    let mut late = Wire::to(stage.sidecar.addresses.traffic).await;
    late.send(opening()).await;
    late.send(frame(PING, 0, 0, b"together")).await;
    loop {
        let frame = late.frame().await;
        assert_ne!(frame.kind, GOAWAY, "before its request");
        if frame.kind == PING && frame.flags == ACK {
            break;
        }
    }
    late.send(request(1, END_STREAM, "GET", "/")).await;
    be_told(&mut late).await;

    gate.send_replace(true);
    for (wire, streams) in [(&mut early, 2), (&mut late, 1)] {
        let mut answers = 0;
        while answers < streams {
            let frame = wire.frame().await;
            answers += usize::from(frame.kind == DATA && frame.flags & END_STREAM > 0);
        }
        wire.rest().await;
    }
    stage.sidecar.metric_reaches("connections_open", 0.0).await;
    let closed = stage.sidecar.scrape().await;
    let closed = closed.lines().filter(|line| line.contains("connections_closed_total{"));
    assert!(closed.into_iter().all(|line| line.ends_with(" 0")), "nobody did anything wrong");
}

#[tokio::test]
async fn an_http2_request_in_flight_is_finished_at_the_end() {
    let (gate, app) = FakeApp::gated().await;
    let mut stage = Stage::with(app, "").await;
    let mut busy = Wire::to(stage.sidecar.addresses.traffic).await;
    busy.send([opening(), request(1, END_STREAM, "GET", "/")].concat()).await;
    stage.app.requests_reach(1).await;
    stage.sidecar.terminate();
    be_told(&mut busy).await;
    gate.send_replace(true);
    assert_eq!(busy.frame_of(HEADERS).await.stream, 1);
    busy.rest().await;
    stage.sidecar.ended().await;
}

#[tokio::test]
async fn deadline_ends_requests_that_do_not_end() {
    let (_gate, app) = FakeApp::gated().await;
    let mut stage = Stage::with(app, "[shutdown]\ndeadline = \"50ms\"").await;
    let mut busy = Wire::to(stage.sidecar.addresses.traffic).await;
    busy.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    stage.app.requests_reach(1).await;
    stage.sidecar.terminate();
    stage.sidecar.ended().await;
}

#[tokio::test]
async fn outage_of_velt_leaves_the_sidecar_ready() {
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
        let error = Server::bind(config).err().expect("it is taken");
        assert!(matches!(error, StartError::Bind { .. }));
        let text = error.to_string();
        assert!(text.contains(&address.to_string()) && text.contains(key), "{text}");
    }
}

/// The grace time of the restarts.
const GRACE: Duration = Duration::from_millis(200);

/// Sends one request after the other until told to stop. Retries nothing but refused connections,
/// and keeps no connection for longer than the grace time, as a login proxy's pool is set to.
pub async fn load(address: SocketAddr, mut stop: watch::Receiver<bool>) -> Result<u32, String> {
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

/// Sends requests over HTTP/2, four at a time on one connection until the sidecar ends it. Writes its
/// own frames, because hyper's client may take the notice for the answer to a request just sent.
async fn http2_load(address: SocketAddr, stop: watch::Receiver<bool>) -> Result<u32, String> {
    let mut answered = 0;
    while !*stop.borrow() {
        match TcpStream::connect(address).await {
            Ok(stream) => answered += converse(Wire::over(stream), &stop).await?,
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                tokio::task::yield_now().await;
            }
            Err(error) => return Err(format!("connect: {error}")),
        }
    }
    Ok(answered)
}

/// Sends requests on one connection until the sidecar ends it or `stop` is true, and waits for every
/// answer.
async fn converse(mut wire: Wire, stop: &watch::Receiver<bool>) -> Result<u32, String> {
    let get = |nth| request(stream(nth), END_STREAM, "GET", "/");
    let window = frame(WINDOW_UPDATE, 0, 0, &(1_u32 << 30).to_be_bytes());
    wire.send([opening(), window, (0..4).flat_map(get).collect()].concat()).await;
    let (mut asked, mut answered, mut leaving) = (4, 0, false);
    loop {
        let received = wire.next_frame().await;
        let Some(Frame { kind, flags, payload, .. }) = received else {
            return Err(format!("ended with {answered} of {asked} answered"));
        };
        match kind {
            PING if flags & ACK == 0 => wire.send(frame(PING, ACK, 0, &payload)).await,
            SETTINGS if flags & ACK == 0 => wire.send(frame(SETTINGS, ACK, 0, &[])).await,
            GOAWAY => leaving = true,
            HEADERS if payload[0] != STATUS_200 => return Err("another status".to_owned()),
            RESET => return Err("reset".to_owned()),
            DATA if flags & END_STREAM > 0 => {
                answered += 1;
                if !leaving && !*stop.borrow() {
                    wire.send(get(asked)).await;
                    asked += 1;
                }
            }
            _ => {}
        }
        if asked == answered {
            return Ok(answered);
        }
    }
}

/// Restarts a sidecar fifty times under the load of four clients that run `load`.
async fn restart_under<F>(load: impl Fn(SocketAddr, watch::Receiver<bool>) -> F)
where
    F: Future<Output = Result<u32, String>> + Send + 'static,
{
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
        stage.sidecar = TestSidecar::start(&app, stage.velt.address, &toml);
    }
    stop.send_replace(true);
    let mut answered = 0;
    for client in clients {
        answered += client.await.expect("no panic").expect("no failed request");
    }
    // At least one request for each client and restart.
    assert!(answered >= 200, "only {answered} requests were under way");
    assert_eq!(answered as usize, stage.app.journal().len(), "each that the app had was answered");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_restarts_under_load_lose_no_request() {
    restart_under(load).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_restarts_under_load_lose_no_request_over_http2() {
    restart_under(http2_load).await;
}

//! Connections to Velt that die while they are idle, and connections that are never opened: what these
//! failures cost users, and which fault they are reported as.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use socket2::{Domain, SockRef, Socket, Type};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::support::TestSidecar;
use crate::support::app::FakeApp;
use crate::support::client::Client;
use crate::support::velt::token;

/// Fate of a connection that was opened before the network changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Silent,
    ResetOnUse,
}

/// A Velt that serves each connection until the network has changed since the connection was opened.
struct MovedVelt {
    address: SocketAddr,
    epoch: watch::Sender<usize>,
    opened: Arc<AtomicUsize>,
}

impl MovedVelt {
    async fn start(fate: Fate) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (epoch, watched) = watch::channel(0);
        let opened = Arc::<AtomicUsize>::default();
        let count = Arc::clone(&opened);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("accept");
                count.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(serve(stream, fate, watched.clone()));
            }
        });
        Self { address, epoch, opened }
    }

    fn change_network(&self) {
        self.epoch.send_modify(|epoch| *epoch += 1);
    }
}

/// Answers call by call, after 50 ms, so that calls at once need connections of their own.
async fn serve(stream: TcpStream, fate: Fate, epoch: watch::Receiver<usize>) {
    let born = *epoch.borrow();
    let mut stream = BufReader::new(stream);
    loop {
        let (mut line, mut length) = (String::new(), 0);
        while line != "\r\n" {
            line.clear();
            if !matches!(stream.read_line(&mut line).await, Ok(1..)) {
                return;
            }
            let lower = line.to_ascii_lowercase();
            if let Some(value) = lower.strip_prefix("content-length:") {
                length = value.trim().parse().expect("a number");
            }
        }
        if *epoch.borrow() != born {
            match fate {
                Fate::Silent => return std::future::pending().await,
                Fate::ResetOnUse => {
                    let linger = SockRef::from(stream.get_ref()).set_linger(Some(Duration::ZERO));
                    return linger.expect("a socket option");
                }
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.expect("a whole body");
        let body: Value = serde_json::from_slice(&body).expect("JSON");
        let user = body["data"]["userId"].as_str().expect("a user");
        let answer = json!({ "result": { "data": { "token": token(user, 1) } } }).to_string();
        // The call lasts until other calls have begun.
        tokio::time::sleep(Duration::from_millis(50)).await;
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", answer.len());
        if stream.get_mut().write_all(format!("{head}{answer}").as_bytes()).await.is_err() {
            return;
        }
    }
}

const PATIENT: &str = "[velt]\nattempt_timeout = \"1100ms\"\n\
    [[delivery.route]]\npath = \"/api/velt/token\"\nmax_wait = \"20s\"";

async fn ask(sidecar: &TestSidecar, user: String) -> u16 {
    let asking = Client::to(sidecar.addresses.traffic).get("/api/velt/token");
    asking.header("x-forwarded-user", &user).send().await.status()
}

async fn ask_at_once(sidecar: &TestSidecar, prefix: &str, users: usize) -> Vec<u16> {
    let asking = (0..users).map(|n| ask(sidecar, format!("{prefix}-{n}")));
    futures_util::future::join_all(asking).await
}

#[tokio::test]
async fn dead_idle_connections_cost_one_attempt_and_open_no_breaker() {
    for fate in [Fate::Silent, Fate::ResetOnUse] {
        let (velt, app) = (MovedVelt::start(fate).await, FakeApp::start().await);
        let sidecar = TestSidecar::start(&app.address.to_string(), velt.address, PATIENT);
        assert_eq!(ask_at_once(&sidecar, "early", 16).await, [200; 16]);
        let opened = velt.opened.load(Ordering::Relaxed);
        assert!(opened >= 12, "{opened} connections");

        velt.change_network();
        let asked = Instant::now();
        assert_eq!(ask(&sidecar, "ada".into()).await, 200, "{fate:?}");
        assert!(asked.elapsed() < Duration::from_secs(2), "{fate:?}: {:?}", asked.elapsed());
        // The first failure has replaced all idle connections.
        let asked = Instant::now();
        assert_eq!(ask_at_once(&sidecar, "late", 17).await, [200; 17], "{fate:?}");
        assert!(asked.elapsed() < Duration::from_secs(1), "{fate:?}: {:?}", asked.elapsed());
        assert_eq!(sidecar.metric("breaker_open").await, 0.0);

        // Repeats the check with many users who meet dead connections at once.
        velt.change_network();
        assert_eq!(ask_at_once(&sidecar, "later", 15).await, [200; 15], "{fate:?}");
        assert_eq!(sidecar.metric("mints_total{outcome=\"minted\"}").await, 49.0);
        assert_eq!(sidecar.metric("breaker_open").await, 0.0);
    }
}

/// An address where no connection is ever accepted or refused: its queue is full.
struct FullQueue {
    _listener: Socket,
    _queued: Vec<Socket>,
    address: SocketAddr,
}

impl FullQueue {
    fn new() -> Self {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        listener.bind(&any.into()).expect("a free port");
        listener.listen(0).expect("listens");
        let address = listener.local_addr().expect("an address");
        let queued = (0..4)
            .map(|_| {
                let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
                socket.set_nonblocking(true).expect("a socket option");
                // The attempt to connect is in progress, and stays so.
                let _ = socket.connect(&address);
                socket
            })
            .collect();
        let address = address.as_socket().expect("an address");
        Self { _listener: listener, _queued: queued, address }
    }
}

#[tokio::test]
async fn each_way_to_get_no_answer_has_its_own_word() {
    let full = FullQueue::new();
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
    let silent = silent.local_addr().map(|address| (silent, address)).expect("an address");
    let rows = [
        ("connect_failed", format!("http://{}/", full.address), "no connection to Velt"),
        ("lookup_failed", "https://velt.invalid/".into(), "the name of Velt's host"),
        ("timeout", format!("http://{}/", silent.1), "did not answer in time"),
    ];
    for (outcome, endpoint, says) in rows {
        let app = FakeApp::start().await;
        let toml = format!(
            "[velt]\nendpoint = \"{endpoint}\"\nattempt_timeout = \"400ms\"\ndeadline = \"400ms\"\n\
             [[delivery.route]]\npath = \"/api/velt/token\"\nmax_wait = \"20s\""
        );
        let sidecar = TestSidecar::start(&app.address.to_string(), silent.1, &toml);
        let asking = Client::to(sidecar.addresses.traffic).get("/api/velt/token");
        let answer = asking.header("x-forwarded-user", "ada").send().await;
        let text = answer.text();
        assert!(text.contains(says), "{outcome}: {text}");
        let series = format!("mints_total{{outcome=\"{outcome}\"}}");
        assert_eq!(sidecar.metric(&series).await, 1.0, "{text}");
    }
}

#[tokio::test]
async fn queue_for_velt_is_not_reported_as_velts_fault() {
    let (velt, app) = (crate::support::velt::FakeVelt::start().await, FakeApp::start().await);
    velt.close_gate();
    let toml = "[velt]\nmax_concurrent = 1\nattempt_timeout = \"20s\"\ndeadline = \"20s\"\n\
        [[delivery.route]]\npath = \"/api/velt/token\"\nmax_wait = \"300ms\"";
    let sidecar = TestSidecar::start(&app.address.to_string(), velt.address, toml);
    let client = Client::to(sidecar.addresses.traffic);
    let called = client.get("/api/velt/token").header("x-forwarded-user", "ada").send().await;
    assert_eq!((called.status(), &*called.code()), (504, "token_pending"));
    let queued = client.get("/api/velt/token").header("x-forwarded-user", "grace").send().await;
    assert_eq!((queued.status(), &*queued.code()), (503, "token_queued"), "{}", queued.text());
    assert!(queued.text().contains("velt.max_concurrent"), "{}", queued.text());
    assert_eq!(queued.header("retry-after"), Some("1"));
    assert_eq!(sidecar.metric("requests_total{outcome=\"token_queued\"}").await, 1.0);
    assert_eq!(sidecar.metric("mints_queued").await, 1.0);
    velt.open_gate();
}

#[tokio::test]
async fn token_life_begins_when_its_call_begins() {
    let (velt, app) = (crate::support::velt::FakeVelt::start().await, FakeApp::start().await);
    // Without an `exp`, the documented 48 h count from the call's begin.
    velt.script(|_, _| crate::support::velt::minted("opaque"));
    velt.close_gate();
    let toml = "[velt]\nattempt_timeout = \"20s\"\ndeadline = \"20s\"\nverify_user = \"off\"\n\
        [[delivery.route]]\npath = \"/api/velt/token\"\nmax_wait = \"20s\"";
    let sidecar = TestSidecar::start(&app.address.to_string(), velt.address, toml);
    let traffic = sidecar.addresses.traffic;
    let asking = tokio::spawn(async move {
        Client::to(traffic).get("/api/velt/token").header("x-forwarded-user", "ada").send().await
    });
    velt.calls_reach(1).await;
    let held = Duration::from_millis(1730);
    // The test subtracts this time from the token's life.
    tokio::time::sleep(held).await;
    velt.open_gate();
    assert_eq!(asking.await.expect("no panic").status(), 200);
    let margin = 60.0;
    let left = sidecar.metric("outage_headroom_seconds").await;
    let most = 48.0 * 3600.0 - margin - held.as_secs_f64();
    assert!((most - 60.0..=most + 0.1).contains(&left), "{left} of {most}");
}

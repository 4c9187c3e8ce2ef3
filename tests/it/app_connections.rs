//! Connections to the app: how they are opened, shared and closed, so that one request does not wait
//! for a connection that another request keeps.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::support::app::FakeApp;
use crate::support::client::Client;
use crate::support::raw::{RawApp, SWITCHED, Wire};
use crate::support::velt::FakeVelt;
use crate::support::{ONE_WORKER, Stage, TestSidecar};

/// An app's socket whose accept queue is short.
fn short_queue() -> (TcpListener, SocketAddr) {
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.bind(([127, 0, 0, 1], 0).into()).expect("a free port");
    let listener = socket.listen(5).expect("it listens");
    let address = listener.local_addr().expect("an address");
    (listener, address)
}

async fn sidecar(app: &str, toml: &str) -> TestSidecar {
    TestSidecar::start(app, FakeVelt::start().await.address, toml)
}

/// Statuses of `count` requests sent at once.
async fn statuses(address: SocketAddr, count: usize) -> Vec<u16> {
    let mut asking = JoinSet::new();
    for _ in 0..count {
        asking.spawn(async move { Client::to(address).get("/").send().await.status() });
    }
    asking.join_all().await
}

const PLAIN: &str = "HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok";

#[tokio::test]
async fn burst_before_a_short_accept_queue_is_served() {
    let (listener, address) = short_queue();
    // The app answers one request after the other, each over its own connection, as Python's
    // http.server does.
    tokio::spawn(async move {
        loop {
            let mut wire = Wire::over(listener.accept().await.expect("a connection").0);
            if wire.try_head().await.is_some() {
                wire.send(PLAIN).await;
            }
        }
    });
    let sidecar = sidecar(&address.to_string(), "").await;
    let statuses = statuses(sidecar.addresses.traffic, 31).await;
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
}

#[tokio::test]
async fn burst_before_a_busy_app_is_served_as_connections_become_idle() {
    let (listener, address) = short_queue();
    tokio::spawn(async move {
        // The app is busy before it accepts.
        sleep(Duration::from_millis(400)).await;
        loop {
            let mut wire = Wire::over(listener.accept().await.expect("a connection").0);
            tokio::spawn(async move {
                while wire.try_head().await.is_some() {
                    wire.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
                }
            });
        }
    });
    let sidecar = sidecar(&address.to_string(), ONE_WORKER).await;
    let began = Instant::now();
    let statuses = statuses(sidecar.addresses.traffic, 71).await;
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
    // The kernel tries a dropped SYN again after 1 s, and after 3 s.
    assert!(began.elapsed() < Duration::from_millis(2900), "{:?}", began.elapsed());
}

#[tokio::test]
async fn burst_of_websockets_before_a_short_accept_queue_is_served() {
    let (listener, address) = short_queue();
    tokio::spawn(async move {
        let mut tunnels = Vec::new();
        loop {
            let mut wire = Wire::over(listener.accept().await.expect("a connection").0);
            if wire.try_head().await.is_some() {
                wire.send(SWITCHED).await;
                tunnels.push(wire);
            }
        }
    });
    let sidecar = sidecar(&address.to_string(), "").await;
    let address = sidecar.addresses.traffic;
    let mut opening = JoinSet::new();
    for _ in 0..53 {
        opening.spawn(async move {
            let mut wire = Wire::to(address).await;
            wire.send(
                "GET /ws HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                 sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            )
            .await;
            (wire.head().await, wire)
        });
    }
    for (head, _) in opening.join_all().await {
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    }
}

#[tokio::test]
async fn burst_before_a_full_unix_socket_is_served() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("app.sock");
    let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None);
    let socket = socket.expect("a socket");
    socket.bind(&socket2::SockAddr::unix(&path).expect("a path")).expect("it is free");
    socket.listen(5).expect("it listens");
    socket.set_nonblocking(true).expect("an option");
    let listener = UnixListener::from_std(socket.into()).expect("a listener");
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            // The app takes its time for each connection, so that its queue is full when others come.
            sleep(Duration::from_millis(3)).await;
            let mut head = [0; 4096];
            let read = stream.read(&mut head).await.unwrap_or(0);
            if read > 0 {
                stream.write_all(PLAIN.as_bytes()).await.expect("the sidecar reads");
            }
        }
    });
    let sidecar = sidecar(&format!("unix:{}", path.display()), "").await;
    let statuses = statuses(sidecar.addresses.traffic, 31).await;
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
}

#[tokio::test]
async fn slow_connection_leaves_the_app_its_time_to_answer() {
    let (listener, address) = short_queue();
    tokio::spawn(async move {
        // The app is busy before it accepts, so that connections wait in the queue.
        sleep(Duration::from_millis(300)).await;
        loop {
            let mut wire = Wire::over(listener.accept().await.expect("a connection").0);
            tokio::spawn(async move {
                if wire.try_head().await.is_some() {
                    // The app takes a tenth of its time limit, which must begin only after the wait for the
                    // connection.
                    sleep(Duration::from_millis(70)).await;
                    wire.send(PLAIN).await;
                }
            });
        }
    });
    let sidecar = sidecar(&address.to_string(), "[app]\nresponse_timeout = \"700ms\"").await;
    let statuses = statuses(sidecar.addresses.traffic, 13).await;
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
}

/// App with `workers` workers, each of which serves one connection at a time.
async fn worker_for_each_connection(workers: usize) -> RawApp {
    let workers = Arc::new(Semaphore::new(workers));
    RawApp::serving(move |mut wire, _| {
        let workers = Arc::clone(&workers);
        async move {
            let _worker = workers.acquire().await.expect("never closed");
            while wire.try_head().await.is_some() {
                wire.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
            }
        }
    })
    .await
}

#[tokio::test]
async fn idle_connections_of_one_thread_do_not_starve_another() {
    const APP_WORKERS: usize = 8;
    let app = worker_for_each_connection(APP_WORKERS).await;
    let sidecar = sidecar(&app.address.to_string(), "[runtime]\nworkers = \"2\"\n").await;
    let mut wires = Vec::new();
    for count in 1..=2 * APP_WORKERS {
        wires.push(Wire::to(sidecar.addresses.traffic).await);
        sidecar.metric_reaches("connections_open", count as f64).await;
    }
    for round in 0..5 {
        // Connections are dealt out to the threads in turn.
        let mut of_thread: Vec<_> = wires.iter_mut().skip(round % 2).step_by(2).collect();
        let began = Instant::now();
        for wire in &mut of_thread {
            wire.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        }
        for wire in &mut of_thread {
            assert!(wire.head().await.starts_with("HTTP/1.1 200"));
            wire.read_exactly(2).await;
        }
        assert!(began.elapsed() < Duration::from_secs(1), "{round}: {:?}", began.elapsed());
    }
}

#[tokio::test]
async fn more_requests_than_app_workers_wait_for_no_idle_connection() {
    let app = worker_for_each_connection(3).await;
    let sidecar = sidecar(&app.address.to_string(), ONE_WORKER).await;
    let began = Instant::now();
    let statuses = statuses(sidecar.addresses.traffic, 11).await;
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
}

#[tokio::test]
async fn each_request_has_its_own_connection_without_idle_ones() {
    let stage = Stage::set(&format!("{ONE_WORKER}[app]\nmax_idle = 0\n")).await;
    let mut wire = Wire::to(stage.sidecar.addresses.traffic).await;
    for count in 1..=5 {
        wire.send("GET / HTTP/1.1\r\nhost: a\r\nte: trailers\r\n\r\n").await;
        let head = wire.head().await;
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        assert!(!head.to_lowercase().contains("close"), "the client's connection stays: {head}");
        wire.read_exactly("hello from the app".len()).await;
        assert_eq!(stage.app.connection_count(), count);
    }
    for request in stage.app.journal() {
        let said = request.headers.get_all("connection").iter();
        let said: Vec<_> = said.map(|value| value.to_str().expect("text")).collect();
        assert_eq!(said, ["TE", "close"]);
    }
    stage.sidecar.metric_reaches("app_connections", 0.0).await;
}

#[tokio::test]
async fn app_that_closes_connections_loses_no_post_without_max_idle() {
    let app = RawApp::serving(|mut wire, _| async move {
        if wire.try_head().await.is_some() {
            wire.read_exactly(3).await;
            wire.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
        }
    })
    .await;
    let sidecar = sidecar(&app.address.to_string(), "[app]\nmax_idle = 0\n").await;
    let client = Client::to(sidecar.addresses.traffic);
    for _ in 0..100 {
        assert_eq!(client.post("/", "abc").send().await.status(), 200);
    }
    assert_eq!(app.connection_count(), 100);
}

#[tokio::test]
async fn idle_connections_are_shared_out_among_the_threads() {
    let (gate, app) = FakeApp::gated().await;
    let toml = "[runtime]\nworkers = \"2\"\n[app]\nmax_idle = 3\nidle_timeout = \"60s\"\n";
    let stage = Stage::with(app, toml).await;
    let mut wires = Vec::new();
    for count in 1..=10 {
        let mut wire = Wire::to(stage.sidecar.addresses.traffic).await;
        stage.sidecar.metric_reaches("connections_open", f64::from(count)).await;
        wire.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        wires.push(wire);
    }
    stage.app.requests_reach(10).await;
    stage.sidecar.metric_reaches("app_connections", 10.0).await;
    gate.send_replace(true);
    for wire in &mut wires {
        assert!(wire.head().await.starts_with("HTTP/1.1 200"));
    }
    // Each thread keeps half of three, rounded up.
    stage.sidecar.metric_reaches("app_connections", 4.0).await;
}

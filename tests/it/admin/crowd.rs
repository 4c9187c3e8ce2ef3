//! Connections to the admin port that stand still, and probes that are answered in time beside them.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, timeout};

use crate::frames::{END_STREAM, opening, request, stream};
use crate::support::app::FakeApp;
use crate::support::binary::{Running, finished};
use crate::support::client::{Answer, Client};
use crate::support::raw::Wire;
use crate::support::{Stage, document};

/// Connections, more than the admin port holds.
const CROWD: usize = 300;
const ADDRESSES: [u8; 3] = [2, 3, 4];

/// Time that the kubelet waits for a probe by default.
const PROBE_PATIENCE: Duration = Duration::from_secs(1);

const PATHS: [&str; 4] = ["/healthz/live", "/healthz/ready", "/healthz/startup", "/metrics"];

/// Way in which a connection stands still.
#[derive(Clone, Copy, Debug)]
enum Still {
    Silent,
    HalfAHead,
    HalfABody,
    AnswerUnread,
    IdleAfterAnAnswer,
    Http2,
    Http2AnswersUnread,
}

/// Connects from 127.0.0.`host`, with a small receive buffer.
async fn connect_from(host: u8, address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("an option");
    socket.bind((Ipv4Addr::new(127, 0, 0, host), 0).into()).expect("all of 127/8 is this machine");
    socket.connect(address).await.expect("it listens")
}

async fn stand_still(how: Still, host: u8, address: SocketAddr) -> Wire {
    let mut wire = Wire::over(connect_from(host, address).await);
    let scrape = "GET /metrics HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n";
    match how {
        Still::Silent => {}
        Still::HalfAHead => wire.send("GET /metrics HTTP/1.1\r\nhost: 127").await,
        Still::HalfABody => {
            wire.send(
                "POST /drain HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n\
                 content-length: 1000\r\n\r\n{",
            )
            .await;
        }
        Still::AnswerUnread => wire.send(scrape).await,
        Still::IdleAfterAnAnswer => {
            wire.send(scrape.replace("/metrics", "/healthz/live")).await;
            wire.head().await;
        }
        Still::Http2 => wire.send(opening()).await,
        Still::Http2AnswersUnread => {
            let scrapes =
                (0..4).flat_map(|nth| request(stream(nth), END_STREAM, "GET", "/metrics"));
            wire.send([opening(), scrapes.collect()].concat()).await;
        }
    }
    wire
}

/// Asks over a connection of its own, as a kubelet would.
async fn probe(host: u8, address: SocketAddr, path: &str) -> Answer {
    let asking = async {
        let stream = connect_from(host, address).await;
        let response = Client::to(address).get(path).try_send_over(stream).await;
        Answer::read(response.expect("an answer")).await
    };
    let answer = timeout(PROBE_PATIENCE, asking).await;
    answer.unwrap_or_else(|_| panic!("127.0.0.{host} {path} in time"))
}

/// Fills the admin port from `hosts` and probes it from each of them and from an address of its own.
async fn crowd_starves_no_probe(how: Still, hosts: &[u8]) {
    let stage = Stage::set("").await;
    let address = stage.sidecar.addresses.admin;
    let mut crowd = Vec::new();
    for host in hosts {
        for _ in 0..CROWD / hosts.len() {
            crowd.push(stand_still(how, *host, address).await);
        }
    }
    for host in hosts.iter().chain(&[9]) {
        for path in PATHS {
            let answer = probe(*host, address, path).await;
            assert_eq!(answer.status(), 200, "{how:?} {path} from 127.0.0.{host}");
        }
    }
}

#[tokio::test]
async fn standing_connections_of_one_peer_starve_no_probe() {
    for how in [Still::Silent, Still::HalfAHead, Still::HalfABody, Still::Http2] {
        crowd_starves_no_probe(how, &ADDRESSES[..1]).await;
    }
}

#[tokio::test]
async fn standing_connections_of_several_peers_starve_no_probe() {
    for how in [Still::Silent, Still::HalfAHead, Still::HalfABody, Still::Http2] {
        crowd_starves_no_probe(how, &ADDRESSES).await;
    }
}

#[tokio::test]
async fn connections_that_read_no_answer_starve_no_probe() {
    for how in [Still::AnswerUnread, Still::IdleAfterAnAnswer, Still::Http2AnswersUnread] {
        crowd_starves_no_probe(how, &ADDRESSES[..1]).await;
        crowd_starves_no_probe(how, &ADDRESSES).await;
    }
}

#[tokio::test]
async fn peer_with_few_connections_keeps_them_in_a_crowd() {
    let stage = Stage::set("").await;
    let address = stage.sidecar.addresses.admin;
    let mut prometheus = stand_still(Still::IdleAfterAnAnswer, 9, address).await;
    let mut crowd = Vec::new();
    for nth in 0..CROWD {
        let host = ADDRESSES[nth % ADDRESSES.len()];
        crowd.push(stand_still(Still::Silent, host, address).await);
    }
    assert!(stage.metric("admin_evictions_total").await > 50.0);
    prometheus.send("GET /healthz/ready HTTP/1.1\r\nhost: a\r\n\r\n").await;
    prometheus.read_to("HTTP/1.1 200").await;
}

#[tokio::test]
async fn silent_connection_is_closed_within_seconds() {
    let stage = Stage::set("").await;
    let started = Instant::now();
    let mut silent = Wire::to(stage.sidecar.addresses.admin).await;
    assert_eq!(silent.rest().await, "");
    assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
}

/// Open files of the whole process, a dozen of which are the admin port's.
const FILES: u32 = 96;

#[tokio::test]
async fn probes_are_answered_when_clients_hold_all_descriptors() {
    let (_gate, app) = FakeApp::gated().await;
    let nobody = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
    let configuration = document(&app.address.to_string(), nobody, "");
    let (sidecar, traffic, admin) = Running::with_files(FILES, &configuration).await;
    // Each stream takes a connection to the app.
    let mut attacker = Wire::to(traffic).await;
    let held = (0..100).flat_map(|nth| request(stream(nth), END_STREAM, "GET", "/held"));
    attacker.send([opening(), held.collect()].concat()).await;
    let none_left = "velt_sidecar_app_connects_total{result=\"failed\"}";
    loop {
        let scrape = probe(9, admin, "/metrics").await.text();
        let failed = scrape.lines().find_map(|line| line.strip_prefix(none_left));
        if failed.expect("a series").trim() != "0" {
            break;
        }
    }
    // This connection waits in the kernel's queue, and would take each descriptor that becomes free.
    let _waiting = Wire::to(traffic).await;
    for path in PATHS.into_iter().cycle().take(20) {
        assert_eq!(probe(9, admin, path).await.status(), 200, "{path}");
    }
    let mut crowd = Vec::new();
    for nth in 0..CROWD {
        crowd.push(stand_still(Still::Silent, ADDRESSES[nth % 3], admin).await);
    }
    for path in PATHS.into_iter().cycle().take(20) {
        assert_eq!(probe(9, admin, path).await.status(), 200, "{path} in a crowd");
    }
    drop(sidecar);
}

#[tokio::test]
async fn commands_are_answered_in_a_crowd() {
    let stage = Stage::set("[shutdown]\ngrace = \"60s\"").await;
    let address = stage.sidecar.addresses.admin;
    let mut crowd = Vec::new();
    // Connections from the commands' own address are among the crowd.
    for nth in 0..CROWD {
        let host = [1, 2, 3][nth % 3];
        crowd.push(stand_still(Still::Silent, host, address).await);
    }
    let url = format!("http://{address}");
    for command in [&["health", "--live"][..], &["admin", "refusals"], &["drain"]] {
        let finished = finished(&[command, &["--admin", &url]].concat(), &[]).await;
        assert_eq!(finished.code, Some(0), "{command:?} {}", finished.stderr);
    }
    assert_eq!(probe(1, address, "/healthz/ready").await.status(), 503, "draining");
}

//! No request fails because the store is slow, gone, full, read-only or speaks nonsense.

use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio::time::Instant;

use super::fleet::{Asked, Fleet, counts};
use crate::certificates::{Authority, Folder};
use crate::neighbour::{LOOPBACK, Task};
use crate::record::{Tally, record};
use crate::shared_store::servers::{Options, RedisServer, Tls};
use shared::store::{Address, Place};

/// Time that a request without a token in memory may take: the 50 ms for which the sidecar waits for the store, and
/// more because the machine may be busy.
const PROMPT: Duration = Duration::from_millis(900);

/// Checks that a token in memory is served, and that users without a token get one in time.
async fn serves(fleet: &Fleet, what: &str) {
    let held = fleet.ask(0, "held").await;
    let (mut first, mut again) = (Tally::default(), Tally::default());
    for number in 0..9 {
        let begun = Instant::now();
        let asked = fleet.ask(0, &format!("{what}-{number}")).await;
        first.add(begun.elapsed(), matches!(asked, Asked::Token(_)));
        let begun = Instant::now();
        let asked = fleet.ask(0, "held").await;
        again.add(begun.elapsed(), asked == held);
    }
    for (tally, users) in [(first, "users without a token"), (again, "a user with a token")] {
        let mut figures = tally.figures();
        figures["users"] = users.into();
        record("store", what, &figures);
        assert_eq!(tally.failed, 0, "{what}: {users}");
    }
    assert!(first.slowest < PROMPT, "{what}: {:?}", first.slowest);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn store_that_fails_costs_no_request() {
    let mut redis = RedisServer::start().await;
    let fleet = Fleet::start(1, &redis.place(), &[]).await;
    let held = fleet.ask(0, "held").await.token();
    redis.stall();
    serves(&fleet, "stalled").await;
    redis.resume();
    fleet.all_hear().await;
    redis.kill();
    serves(&fleet, "gone").await;
    redis.restart().await;
    fleet.all_hear().await;
    redis.ask(&["CONFIG", "SET", "maxmemory", "1"]).await;
    serves(&fleet, "full").await;
    redis.ask(&["CONFIG", "SET", "maxmemory", "0"]).await;
    redis.ask(&["REPLICAOF", "127.0.0.1", "1"]).await;
    serves(&fleet, "read-only").await;
    redis.ask(&["REPLICAOF", "NO", "ONE"]).await;
    redis.ask(&["FLUSHALL"]).await;
    serves(&fleet, "flushed").await;
    redis.ask(&["CONFIG", "SET", "requirepass", "another"]).await;
    redis.ask(&["CLIENT", "KILL", "TYPE", "normal"]).await;
    serves(&fleet, "denied").await;
    redis.ask(&["CONFIG", "SET", "requirepass", ""]).await;
    fleet.all_hear().await;
    // The tokens that were minted meanwhile are in the store now.
    counts(&fleet.replicas[0], "shared_unwritten", 0).await;
    let newcomer = Fleet::start(1, &redis.place(), &[]).await;
    newcomer.velt.answer_with(503, "{}");
    assert_eq!(fleet.ask(0, "held").await.token(), held);
    assert_eq!(fleet.velt.call_count(), 1 + 6 * 9, "a mint for each user");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_password_and_missing_rights_cost_no_request() {
    let options = Options { password: Some("of-the-store"), ..Options::default() };
    let redis = RedisServer::start_with(&options).await;
    let settings = [("SHARED__PASSWORD", "another")];
    let fleet = start_without_hearing(&redis.place(), &settings).await;
    serves(&fleet, "wrong password").await;
    let options = Options { user: Some("sidecar on nopass ~* +get +ping"), ..Options::default() };
    let redis = RedisServer::start_with(&options).await;
    let settings = [("SHARED__USER", "sidecar"), ("SHARED__PASSWORD", "any")];
    let fleet = start_without_hearing(&redis.place(), &settings).await;
    serves(&fleet, "missing rights").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificate_that_does_not_fit_costs_no_request() {
    let (authority, folder) = (Authority::new(), Folder::new());
    let elsewhere = Tls { authority: &authority, names: &["elsewhere.example"] };
    let options = Options { tls: Some(elsewhere), ..Options::default() };
    let redis = RedisServer::start_with(&options).await;
    let ca_file = folder.write("ca.crt", authority.pem());
    let settings = [("SHARED__TLS", "true"), ("SHARED__CA_FILE", &*ca_file)];
    let fleet = start_without_hearing(&redis.place(), &settings).await;
    serves(&fleet, "certificate of another name").await;
    let refused = "shared_connects_total{result=\"untrusted\"}";
    fleet.replicas[0].metric_is(refused, |count| count > 0.0).await;
    // With a certificate that fits, the replica shares its tokens.
    redis.present(&Tls::of(&authority)).await;
    fleet.all_hear().await;
    counts(&fleet.replicas[0], "shared_writes_total{result=\"written\"}", 10).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_that_speaks_nonsense_costs_no_request() {
    let listener = TcpListener::bind(LOOPBACK).await.expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    let _server = Task::spawn(async move {
        let mut number = 0_u32;
        while let Ok((mut stream, _)) = listener.accept().await {
            number += 1;
            let nonsense: &[u8] = match number % 4 {
                0 => b"HTTP/1.1 400 Bad Request\r\n\r\n",
                1 => b"$900000000\r\nxxxxxxxx",
                2 => b"*1000000000\r\n",
                _ => b"+OK\r\n-ERR nonsense\r\n:12\r\n$-1\r\n*0\r\n",
            };
            // The client may have closed the connection; the next one is served all the same.
            let _ = stream.write_all(nonsense).await;
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    });
    let place = Place::Server(Address::Tcp { host: "127.0.0.1".into(), port });
    let fleet = start_without_hearing(&place, &[]).await;
    serves(&fleet, "nonsense in place of answers").await;
}

/// Starts a replica, and does not wait until it hears of forgets.
async fn start_without_hearing(place: &Place, settings: &[(&str, &str)]) -> Fleet {
    let mut fleet = Fleet::start(0, place, settings).await;
    let replica = fleet.one(&[]).await;
    fleet.replicas.push(replica);
    fleet
}

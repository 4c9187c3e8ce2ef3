//! Balancers, names that move and firewalls that forget, between a sidecar and its store.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use redis::Value;
use shared::store::{Address, Fault, Place};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep};

use super::servers::{Options, RedisServer};
use super::{IN_TIME, Subject, bulk, get, set};
use crate::neighbour::{LOOPBACK, Task, eventually};

/// Passes connections on, the first to the first target, the second to the second, and so on in turn.
struct Relay {
    port: u16,
    targets: watch::Sender<Vec<u16>>,
    forget: Arc<Notify>,
    _task: Task,
}

impl Relay {
    async fn to(servers: &[&RedisServer]) -> Self {
        let listener = TcpListener::bind(LOOPBACK).await.expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let (targets, current) = watch::channel(ports(servers));
        let forget = Arc::<Notify>::default();
        let forgetting = Arc::clone(&forget);
        let task = Task::spawn(async move {
            let mut turn = 0;
            while let Ok((mut client, _)) = listener.accept().await {
                let target = {
                    let targets = current.borrow();
                    targets[turn % targets.len()]
                };
                turn += 1;
                let forgetting = Arc::clone(&forgetting);
                tokio::spawn(async move {
                    let target = SocketAddr::from(([127, 0, 0, 1], target));
                    let Ok(mut server) = TcpStream::connect(target).await else { return };
                    tokio::select! {
                        // An end of either side ends both.
                        _ = copy_bidirectional(&mut client, &mut server) => {}
                        // Both sockets stay open, and are silent.
                        () = forgetting.notified() => std::future::pending().await,
                    }
                });
            }
        });
        Self { port, targets, forget, _task: task }
    }

    fn place(&self) -> Place {
        Place::Server(Address::Tcp { host: "127.0.0.1".to_owned(), port: self.port })
    }
}

fn ports(servers: &[&RedisServer]) -> Vec<u16> {
    servers.iter().map(|server| server.port).collect()
}

async fn replica_of(server: &RedisServer) -> RedisServer {
    let port = server.port.to_string();
    let settings = ["--replicaof", "127.0.0.1", &port, "--repl-diskless-sync-delay", "0"];
    let replica =
        RedisServer::start_with(&Options { settings: &settings, ..Options::default() }).await;
    eventually("the replica to follow", async || {
        let state = replica.info("master_link_status").await;
        if state.as_deref() == Some("up") { Ok(()) } else { Err(format!("{state:?}")) }
    })
    .await;
    replica
}

#[tokio::test]
async fn balancer_over_replicas_leads_to_the_primary() {
    let primary = RedisServer::start().await;
    let replica = replica_of(&primary).await;
    let relay = Relay::to(&[&replica, &replica, &primary]).await;
    let subject = Subject::connected(relay.place()).await;
    assert_eq!(subject.call(set("key", "value")).await, Ok(Value::Okay));
    assert_eq!(primary.ask(&["GET", "key"]).await, bulk("value"));
}

#[tokio::test]
async fn name_that_moves_to_another_server_is_followed() {
    let first = RedisServer::start().await;
    let second = replica_of(&first).await;
    let relay = Relay::to(&[&first]).await;
    let subject = Subject::connected(relay.place()).await;
    // The name of a managed primary moves, and connections to the server of before stay open.
    second.ask(&["REPLICAOF", "NO", "ONE"]).await;
    first.ask(&["REPLICAOF", "127.0.0.1", &second.port.to_string()]).await;
    relay.targets.send_replace(ports(&[&second]));
    assert_eq!(subject.call(set("key", "value")).await, Err(Fault::ReadOnly));
    let took = subject.is_back().await;
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert_eq!(second.info("role").await.as_deref(), Some("master"));
    assert_eq!(subject.call(set("key", "value")).await, Ok(Value::Okay));
    assert_eq!(second.ask(&["GET", "key"]).await, bulk("value"));
}

#[tokio::test]
async fn connection_that_a_firewall_forgets_is_replaced() {
    let server = RedisServer::start().await;
    let relay = Relay::to(&[&server]).await;
    let subject = Subject::connected(relay.place()).await;
    assert_eq!(subject.call(set("key", "value")).await, Ok(Value::Okay));
    relay.forget.notify_waiters();
    let started = Instant::now();
    loop {
        let asked = Instant::now();
        let called = subject.call_in_haste(get("key")).await;
        assert!(asked.elapsed() < IN_TIME, "{:?}", asked.elapsed());
        if called.is_ok() {
            break;
        }
        assert!(started.elapsed() < Duration::from_secs(3), "{called:?}");
        sleep(Duration::from_millis(3)).await;
    }
}

#[tokio::test]
async fn server_that_can_t_save_still_serves_reads() {
    let server = RedisServer::start().await;
    let subject = Subject::connected(server.place()).await;
    assert_eq!(subject.call(set("key", "value")).await, Ok(Value::Okay));
    server.fail_to_save().await;
    assert_eq!(subject.call(set("key", "other")).await, Err(Fault::Other("MISCONF")));
    assert_eq!(subject.call(get("key")).await, Ok(bulk("value")));
    // A new connection is no different.
    let subject = Subject::connected(server.place()).await;
    assert_eq!(subject.call(get("key")).await, Ok(bulk("value")));
}

//! One server that stalls, dies, fills up or becomes a replica: calls cost what they may cost, and the store comes
//! back by itself.

use std::time::Duration;

use ground::metrics::StoreCallResult;
use redis::Value;
use shared::store::{Blame, Fault, Place, State};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::servers::{Options, RedisServer, Version};
use super::{AT_ONCE, IN_TIME, LEISURE, PATIENCE, Subject, bulk, get, set};

/// Calls once, and returns how the call ended and how long it took.
async fn timed(subject: &Subject) -> (Option<Fault>, Duration) {
    let started = Instant::now();
    let fault = subject.call_in_haste(set("key", "value")).await.err();
    (fault, started.elapsed())
}

with_each_version!(commands_are_answered_in_order);

/// Calls over each sort of socket.
async fn commands_are_answered_in_order(version: Version) {
    let server = RedisServer::start_with(&Options { version, ..Options::default() }).await;
    let by_name = shared::store::Address::Tcp { host: "localhost".to_owned(), port: server.port };
    for address in [server.address(), server.socket(), by_name] {
        let subject = Subject::connected(Place::Server(address)).await;
        let commands = vec![set("a", "1"), get("a"), get("absent"), set("a", "2"), get("a")];
        let answers = subject.store.call(commands, LEISURE).await;
        let expected = vec![Value::Okay, bulk("1"), Value::Nil, Value::Okay, bulk("2")];
        assert_eq!(answers, Ok(expected));
        assert_eq!(subject.store.call(Vec::new(), PATIENCE).await, Ok(Vec::new()));
        assert_eq!((subject.metrics.connected.get(), subject.count(StoreCallResult::Ok)), (1, 2));
    }
}

#[tokio::test]
async fn calls_fail_at_once_until_a_server_is_there() {
    let mut server = RedisServer::start().await;
    server.kill();
    let subject = Subject::at(server.place());
    for _ in 0..50 {
        let (fault, took) = timed(&subject).await;
        assert_eq!(fault, Some(Fault::NotConnected));
        assert!(took < AT_ONCE, "{took:?}");
    }
    subject.is_refused(Fault::Broken).await;
    assert_eq!(subject.metrics.connected.get(), 0);
    server.restart().await;
    subject.is_connected().await;
    assert_eq!(subject.call(get("key")).await, Ok(Value::Nil));
    assert_eq!(subject.metrics.connected.get(), 1);
}

#[tokio::test]
async fn stalled_server_is_waited_for_five_times_and_no_more() {
    let server = RedisServer::start().await;
    let subject = Subject::connected(server.place()).await;
    server.stall();
    let started = Instant::now();
    let mut waited = Vec::new();
    while started.elapsed() < Duration::from_secs(2) {
        let (fault, took) = timed(&subject).await;
        assert!(fault.is_some());
        if took > AT_ONCE {
            waited.push((fault, took));
        }
        sleep(Duration::from_millis(3)).await;
    }
    assert!(waited.len() <= 5, "{waited:?}");
    assert!(
        waited.iter().all(|(fault, took)| { *fault == Some(Fault::Timeout) && *took < IN_TIME })
    );
    assert!(subject.count(StoreCallResult::Suspended) > 0);
    server.resume();
    let took = subject.is_back().await;
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert_eq!(subject.metrics.suspended.get(), 0);
}

#[tokio::test]
async fn settings_that_change_while_calls_are_suspended_take_effect() {
    let server = RedisServer::start().await;
    let subject = Subject::connected(server.place()).await;
    server.stall();
    while timed(&subject).await.0 != Some(Fault::Suspended) {}
    subject.store.replace(super::settings(server.place())).expect("settings that fit");
    server.resume();
    let took = subject.is_back().await;
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[tokio::test]
async fn pause_under_load_is_one_outage() {
    let server = RedisServer::start().await;
    let subject = Subject::connected(server.place()).await;
    server.stall();
    let mut calls = JoinSet::new();
    for _ in 0..200 {
        let store = subject.store.clone();
        calls.spawn(async move { store.call(vec![get("key")], PATIENCE).await });
    }
    assert!(calls.join_all().await.iter().all(|called| *called == Err(Fault::Timeout)));
    server.resume();
    assert_eq!(subject.store.state(), State::Connected, "no suspension for one pause");
    assert_eq!(subject.call(get("key")).await, Ok(Value::Nil));
}

#[tokio::test]
async fn idle_connection_that_went_dead_is_noticed() {
    let server = RedisServer::start().await;
    let subject = Subject::connected(server.place()).await;
    server.stall();
    subject.state_is("a ping in vain", |state| state != State::Connected).await;
    let (fault, took) = timed(&subject).await;
    assert_eq!(fault, Some(Fault::NotConnected), "no request has paid for it");
    assert!(took < AT_ONCE, "{took:?}");
}

#[tokio::test]
async fn killed_server_is_used_again_when_it_is_back() {
    let mut server = RedisServer::start().await;
    let subject = Subject::connected(server.place()).await;
    server.kill();
    subject.is_refused(Fault::Broken).await;
    assert_eq!(timed(&subject).await.0, Some(Fault::NotConnected));
    server.restart().await;
    let took = subject.is_back().await;
    assert!(took < Duration::from_secs(4), "{took:?}");
}

#[tokio::test]
async fn connections_that_an_operator_closes_are_opened_again() {
    let server = RedisServer::start().await;
    let subject = Subject::connected(server.place()).await;
    for round in 0..3 {
        server.ask(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await;
        let took = subject.is_back().await;
        assert!(took < Duration::from_secs(2), "{round}: {took:?}");
    }
}

#[tokio::test]
async fn full_server_still_serves_reads() {
    let settings = ["--maxmemory", "3mb", "--maxmemory-policy", "noeviction"];
    let server =
        RedisServer::start_with(&Options { settings: &settings, ..Options::default() }).await;
    let subject = Subject::connected(server.place()).await;
    assert_eq!(subject.call(set("small", "value")).await, Ok(Value::Okay));
    server.ask(&["EVAL", "redis.call('SET', 'filler', string.rep('x', 4000000))", "0"]).await;
    let full = subject.call(set("key", "value")).await;
    assert_eq!(full, Err(Fault::Full));
    assert_eq!(Fault::Full.blame(), Blame::Operator);
    assert_eq!(subject.call(get("small")).await, Ok(bulk("value")));
    let seen = subject.store.inspect().await.expect("facts");
    assert_eq!((&*seen.memory_policy, seen.most_memory), ("noeviction", Some(3 << 20)));
    assert!(seen.used_memory > 3 << 20 && seen.clock_difference < Duration::from_secs(1));
    // The tests also run with Valkey under the name of Redis.
    assert!(["redis", "valkey"].contains(&&*seen.software), "{}", seen.software);
    assert_eq!(seen.role, "master");
    // Valkey 8 frees the memory later, unless told otherwise.
    server.ask(&["FLUSHALL", "SYNC"]).await;
    assert_eq!(subject.call(set("key", "value")).await, Ok(Value::Okay));
}

#[tokio::test]
async fn server_that_becomes_a_replica_is_left() {
    let server = RedisServer::start().await;
    let subject = Subject::connected(server.place()).await;
    server.ask(&["REPLICAOF", "127.0.0.1", "1"]).await;
    assert_eq!(subject.call(set("key", "value")).await, Err(Fault::ReadOnly));
    // No read of old content either: a replica may not have heard of a forget.
    assert_eq!(subject.call(get("key")).await, Err(Fault::NotConnected));
    subject.is_refused(Fault::ReadOnly).await;
    server.ask(&["REPLICAOF", "NO", "ONE"]).await;
    subject.is_back().await;
}

#[tokio::test]
async fn other_errors_have_their_code_and_change_no_state() {
    let server = RedisServer::start().await;
    let subject = Subject::connected(server.place()).await;
    server.ask(&["LPUSH", "list", "value"]).await;
    assert_eq!(subject.call(get("list")).await, Err(Fault::Other("WRONGTYPE")));
    let mut script = redis::cmd("EVALSHA");
    script.arg("0".repeat(40)).arg(0);
    assert_eq!(subject.call(script).await, Err(Fault::Other("NOSCRIPT")));
    assert_eq!(subject.store.state(), State::Connected);
    assert_eq!(subject.count(StoreCallResult::Failed), 2);
}

#[tokio::test]
async fn calls_over_the_bound_fail_at_once() {
    let server = RedisServer::start().await;
    let subject = Subject::connected(server.place()).await;
    server.stall();
    let mut calls = JoinSet::new();
    for _ in 0..1_500 {
        let store = subject.store.clone();
        calls.spawn(async move { store.call(vec![get("key")], PATIENCE).await });
    }
    let ended = calls.join_all().await;
    let busy = ended.iter().filter(|called| **called == Err(Fault::Busy)).count();
    assert_eq!(busy, 1_500 - 1_024);
    server.resume();
}

#[tokio::test]
async fn answers_never_reach_another_call() {
    let server = RedisServer::start().await;
    let subject = Subject::connected(server.place()).await;
    let mut calls = JoinSet::new();
    for call in 0..600_u64 {
        let store = subject.store.clone();
        calls.spawn(async move {
            let (key, value) = (format!("key-{call}"), format!("value-{call}"));
            // Some callers leave before their answer, some at the same moment as it comes.
            let patience = Duration::from_micros(97 * (call % 61));
            let written = store.call(vec![set(&key, &value)], patience).await;
            let read = store.call(vec![get(&key)], LEISURE).await;
            let Ok(read) = read else { return 0 };
            assert!(read == [bulk(&value)] || written.is_err() && read == [Value::Nil], "{read:?}");
            1
        });
        if call % 100 == 50 {
            server.stall();
            sleep(Duration::from_millis(17)).await;
            server.resume();
        }
    }
    let answered: u64 = calls.join_all().await.into_iter().sum();
    assert!(answered > 300, "{answered}");
}

#[test]
fn threads_with_runtimes_of_their_own_share_the_connection() {
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().build().expect("a runtime")
    };
    runtime().block_on(async {
        let server = RedisServer::start().await;
        let subject = Subject::connected(server.place()).await;
        let threads: Vec<_> = (0..4)
            .map(|thread| {
                let store = subject.store.clone();
                std::thread::spawn(move || {
                    runtime().block_on(async {
                        let key = format!("thread-{thread}");
                        let commands = vec![set(&key, &key), get(&key)];
                        store.call(commands, LEISURE).await
                    })
                })
            })
            .collect();
        while threads.iter().any(|thread| !thread.is_finished()) {
            sleep(Duration::from_millis(1)).await;
        }
        for (index, thread) in threads.into_iter().enumerate() {
            let answers = thread.join().expect("no panic").expect("answers");
            assert_eq!(answers[1], bulk(&format!("thread-{index}")));
        }
        let clients = server.info("connected_clients").await;
        assert_eq!(clients.as_deref(), Some("2"), "the store's one, and the test's own");
    });
}

//! Attacks by a client with the password of the store, and users with too few rights: the replicas go on.

use std::time::Duration;

use aws_lc_rs::hmac::{HMAC_SHA256, Key, sign};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ground::metrics::{StoreConnectResult, StoreMetrics};
use secrecy::SecretString;
use serde_json::{Value, json};
use shared::store::{Fault, Settings, State, Store};
use tokio::time::sleep;

use super::fleet::{Asked, Fleet, counts, hears};
use crate::neighbour::{eventually, http_client};
use crate::shared_store::servers::{Options, RedisServer};
use crate::shared_store::settings;

const STREAM: &str = "{velt-sidecar}:forgets";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t65_long_lines_of_an_attacker_are_passed_over() {
    let redis = RedisServer::start().await;
    let mut fleet = Fleet::start(2, &redis.place(), &[]).await;
    let ada = fleet.ask_all("ada").await.remove(0);
    redis.ask(&["XADD", STREAM, "*", "e", &"x".repeat(70_000)]).await;
    // Lines of a length that one value may have, and many of them at once that no answer may have.
    let many =
        "for n = 1, 1301 do redis.call('xadd', KEYS[1], '*', 'e', string.rep('x', 2003)) end";
    redis.ask(&["EVAL", many, "1", STREAM]).await;
    redis.ask(&["XADD", STREAM, "*", "e", &"x".repeat(900_000), "more", "fields"]).await;
    let newcomer = fleet.one(&[]).await;
    hears(&newcomer).await;
    fleet.replicas.push(newcomer);
    for replica in &fleet.replicas {
        counts(replica, "shared_events_unread_total", 1_303).await;
        hears(replica).await;
    }
    assert_eq!(fleet.forget(0, &json!({ "user": "ada" })).await, "told");
    for replica in &fleet.replicas[1..] {
        counts(replica, "shared_forgets_total{origin=\"elsewhere\"}", 1).await;
    }
    let after = fleet.ask_all("ada").await;
    assert!(after.iter().all(|token| *token != ada && *token == after[0]), "{after:?}");
    // The lines are gone, or their last: the store has lost nothing that a sidecar has written.
    redis.ask(&["XTRIM", STREAM, "MAXLEN", "1"]).await;
    redis.ask(&["CLIENT", "KILL", "TYPE", "normal"]).await;
    fleet.all_hear().await;
    assert_eq!(fleet.sum("shared_gaps_total").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t65_values_of_another_kind_in_the_lists_place_are_removed() {
    let redis = RedisServer::start().await;
    let mut fleet = Fleet::start(2, &redis.place(), &[]).await;
    let ada = fleet.ask_all("ada").await.remove(0);
    for (key, set) in [
        (STREAM, &["SET", STREAM, "x"][..]),
        ("{velt-sidecar}:replaced", &["LPUSH", "{velt-sidecar}:replaced", "x"]),
        ("{velt-sidecar}:era", &["LPUSH", "{velt-sidecar}:era", "x"]),
    ] {
        redis.ask(&["DEL", key]).await;
        redis.ask(set).await;
        for replica in &fleet.replicas {
            eventually("a look at the value", async || {
                let kind = redis.ask(&["TYPE", key]).await;
                let is_left = [&b"string"[..], b"list"].iter().any(|it| kind == bulk_or_text(it));
                let is_wrong =
                    is_left && !(key.ends_with("era") && kind == bulk_or_text(b"string"));
                if is_wrong { Err(format!("{key}: {kind:?}")) } else { Ok(()) }
            })
            .await;
            hears(replica).await;
        }
    }
    let mut told = 0;
    for replica in &mut fleet.replicas {
        told +=
            usize::from(replica.metric("shared_events_unread_total").await.unwrap_or(0.0) > 0.0);
    }
    assert!(told > 0, "it is counted by the replica that has removed it");
    // Forgets reach the other replica again.
    assert_eq!(fleet.forget(0, &json!({ "user": "ada" })).await, "told");
    eventually("another token", async || {
        let after = fleet.ask_all("ada").await;
        if after.iter().all(|token| *token != ada) { Ok(()) } else { Err("the old one".into()) }
    })
    .await;
}

/// The answer to `TYPE`.
fn bulk_or_text(text: &[u8]) -> redis::Value {
    redis::Value::SimpleString(String::from_utf8(text.to_vec()).expect("ASCII"))
}

/// Puts a value longer than any that a sidecar writes in the place of each entry.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t65_values_too_long_for_a_token_cost_no_user_a_token() {
    let redis = RedisServer::start().await;
    let fleet = Fleet::start(2, &redis.place(), &[]).await;
    fleet.ask(0, "ada").await.token();
    let keys = redis.ask(&["KEYS", "velt-sidecar:t:*"]).await;
    let redis::Value::Array(keys) = keys else { panic!("{keys:?}") };
    assert!(!keys.is_empty(), "an entry");
    for key in keys {
        let redis::Value::BulkString(key) = key else { panic!("{key:?}") };
        let key = String::from_utf8(key).expect("a plain name");
        redis.ask(&["SET", &key, &"x".repeat(70_000)]).await;
    }
    // The other replica meets the values, mints for itself, and cuts them.
    fleet.ask(1, "ada").await.token();
    eventually("an entry of a usual length", async || {
        let keys = redis.ask(&["KEYS", "velt-sidecar:t:*"]).await;
        let redis::Value::Array(keys) = keys else { return Err(format!("{keys:?}")) };
        for key in keys {
            let redis::Value::BulkString(key) = key else { continue };
            let key = String::from_utf8(key).expect("a plain name");
            let length = redis.ask(&["STRLEN", &key]).await;
            if length == redis::Value::Int(70_000) {
                return Err(format!("{key}: {length:?}"));
            }
        }
        Ok(())
    })
    .await;
    fleet.replicas[1].metric_is("shared_events_unread_total", |count| count > 0.0).await;
    // A newcomer puts its token there, and the next one reads it.
    let http = http_client();
    let mut tokens = Vec::new();
    for _ in 0..2 {
        let newcomer = fleet.one(&[]).await;
        hears(&newcomer).await;
        tokens.push(super::fleet::ask(&http, newcomer.traffic, "ada").await.token());
        let broken = newcomer.metric("shared_calls_total{result=\"broken\"}").await;
        assert_eq!(broken, Ok(0.0), "no connection breaks any more");
    }
    assert_eq!(tokens[0], tokens[1], "the store shares again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn user_without_xread_is_counted_told_once_and_patient() {
    let rules = "sidecar on >pass ~* +@all -xread";
    let redis = RedisServer::start_with(&Options { user: Some(rules), ..Options::default() }).await;
    let login = [("SHARED__USER", "sidecar"), ("SHARED__PASSWORD", "pass")];
    let fleet = Fleet::start(0, &redis.place(), &login).await;
    let mut replica = fleet.one(&[]).await;
    let line = replica.line_with("the shared store is not heard").await;
    assert!(line.contains("rights are not accepted"), "{line}");
    let connections = async || redis.count("total_connections_received").await;
    let before = connections().await;
    sleep(Duration::from_millis(5_300)).await;
    // One of them is this test's.
    let made = connections().await - before;
    println!("connections in 5.3 s: {made}");
    assert!(made <= 8, "{made}");
    replica.metric_is("shared_calls_total{result=\"denied\"}", |count| count >= 3.0).await;
    replica.metric_is("shared_connects_total{result=\"connected\"}", |count| count >= 4.0).await;
    // The right is granted: no restart is needed.
    redis.ask(&["ACL", "SETUSER", "sidecar", "+xread"]).await;
    hears(&replica).await;
    replica.line_with("the shared store is heard again").await;
    assert!(!replica.has_logged("the shared store is not heard"), "told once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_store_with_a_wrong_password_is_not_connected() {
    let options = Options { password: Some("right"), ..Options::default() };
    let mut redis = RedisServer::start_with(&options).await;
    let with = |password: &str| Settings {
        password: Some(SecretString::from(password)),
        ..settings(redis.place())
    };
    let (right, wrong) = (with("right"), with("wrong"));
    let metrics = StoreMetrics::detached();
    let store = Store::start(right, metrics.clone()).expect("settings that fit");
    let is_connected = async |expected: i64| {
        eventually("the gauge", async || match metrics.connected.get() {
            found if found == expected => Ok(()),
            found => Err(found.to_string()),
        })
        .await;
    };
    is_connected(1).await;
    store.replace(wrong).expect("settings that fit");
    eventually("a refused login", async || {
        let refused = metrics.connects.get(StoreConnectResult::Denied);
        if refused > 0 { Ok(()) } else { Err("none".to_owned()) }
    })
    .await;
    assert_eq!(metrics.connected.get(), 1, "the former connection is still in use");
    redis.kill();
    is_connected(0).await;
}

#[tokio::test]
async fn database_that_the_server_lacks_is_told() {
    let redis = RedisServer::start().await;
    let settings = Settings { database: 99_999, ..settings(redis.place()) };
    let store = Store::start(settings, StoreMetrics::detached()).expect("settings that fit");
    let expected = State::Connecting { last: Some(Fault::NoDatabase) };
    eventually("a refusal", async || {
        let state = store.state();
        if state == expected { Ok(()) } else { Err(format!("{state:?}")) }
    })
    .await;
    assert!(Fault::NoDatabase.to_string().contains("shared.database"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn store_that_is_flushed_again_and_again_is_told_once() {
    let redis = RedisServer::start().await;
    let mut fleet = Fleet::start(1, &redis.place(), &[]).await;
    for flushes in 1..=3 {
        redis.ask(&["FLUSHALL"]).await;
        counts(&fleet.replicas[0], "shared_gaps_total", flushes).await;
    }
    let replica = &mut fleet.replicas[0];
    let line = replica.line_with("the shared store has lost data").await;
    assert!(line.contains("times=1"), "{line}");
    replica.terminate();
    replica.line_with("ended").await;
    assert!(!replica.has_logged("the shared store has lost data"), "a second line");
}

/// Signs a call as Standard Webhooks does, and sends it to a replica. Returns the word of the answer.
async fn call(fleet: &Fleet, replica: usize, id: &str, at: u64) -> String {
    let body = json!({ "user": "ada" }).to_string();
    let key = Key::new(HMAC_SHA256, &[7; 32]);
    let signature = STANDARD.encode(sign(&key, format!("{id}.{at}.{body}").as_bytes()));
    let url = format!("http://{}/velt/signed-out", fleet.replicas[replica].traffic);
    let call = http_client().post(url).header("content-type", "application/json");
    let call = call.header("webhook-id", id).header("webhook-timestamp", at.to_string());
    let answer = call.header("webhook-signature", format!("v1,{signature}")).body(body).send();
    let answer = answer.await.expect("an answer").bytes().await.expect("a body");
    let answer: Value = serde_json::from_slice(&answer).expect("JSON");
    answer["result"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t70_signed_call_counts_once_over_all_replicas() {
    let redis = RedisServer::start().await;
    let secret = format!("whsec_{}", STANDARD.encode([7; 32]));
    let settings = [
        ("LOGOUT__WEBHOOK__PATH", "/velt/signed-out"),
        ("LOGOUT__WEBHOOK__SECRET", &*secret),
        // The next login counts from this time on, for an identity without its time.
        ("LOGOUT__REFUSE_FOR", "1s"),
    ];
    let fleet = Fleet::start(2, &redis.place(), &settings).await;
    let before = fleet.ask_all("ada").await;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = now.expect("after 1970").as_secs();
    assert_eq!(call(&fleet, 0, "msg_1", now).await, "done");
    let series = "logouts_total{source=\"replica\"}";
    counts(&fleet.replicas[1], series, 1).await;
    let after = eventually("the next login", async || match fleet.ask(1, "ada").await {
        Asked::Token(token) => Ok(token),
        without @ Asked::Without(..) => Err(format!("{without:?}")),
    })
    .await;
    assert!(!before.contains(&after));
    // An attacker sends the call to the other replica, and the sender repeats the call with a new time.
    for at in [now, now + 2] {
        assert_eq!(call(&fleet, 1, "msg_1", at).await, "replayed");
    }
    assert_eq!(fleet.ask(1, "ada").await.token(), after, "the user stays signed in");
    // Another call is another logout. A note of the attacker's own hides none.
    redis
        .ask(&[
            "EVAL",
            "for _, k in ipairs(redis.call('keys', '*:c:*')) do redis.call('set', k, 'x') end",
            "0",
        ])
        .await;
    assert_eq!(call(&fleet, 1, "msg_1", now).await, "done");
}

/// Some services charge for each command: docs/shared.md gives the number.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_replica_sends_two_commands_a_second() {
    let redis = RedisServer::start().await;
    let _fleet = Fleet::start(1, &redis.place(), &[]).await;
    let commands = async || redis.count("total_commands_processed").await;
    let before = commands().await;
    sleep(Duration::from_millis(9_700)).await;
    let sent = commands().await - before;
    println!("commands in 9.7 s: {sent}");
    // Some of them are this test's own.
    assert!((16..=26).contains(&sent), "{sent}");
}

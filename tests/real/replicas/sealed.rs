//! Attackers with access to the store: what they can read, and what they can change.

use redis::Value;
use serde_json::json;

use super::fleet::{Fleet, counts, hears};
use crate::shared_store::servers::RedisServer;

/// Returns each key with its content, as the server has it.
async fn content(redis: &RedisServer) -> Vec<(String, Vec<u8>)> {
    let keys = redis.ask(&["KEYS", "*"]).await;
    let keys: Vec<String> = redis::from_redis_value(keys).expect("keys");
    let mut content = Vec::new();
    for key in keys {
        let dumped = redis.ask(&["DUMP", &key]).await;
        let Value::BulkString(bytes) = dumped else { panic!("{dumped:?}") };
        content.push((key, bytes));
    }
    content
}

/// Has two replicas serve Ada's token, keeps its sealed form under the key `kept`, and has both forget it. Returns the
/// token and its key.
async fn keep_and_forget(redis: &RedisServer, fleet: &Fleet) -> (String, String) {
    let old = fleet.ask_all("ada").await.remove(0);
    counts(&fleet.replicas[0], "shared_writes_total{result=\"written\"}", 1).await;
    let key = tokens(redis).await.remove(0);
    redis.ask(&["COPY", &key, "kept"]).await;
    fleet.forget(0, &json!({ "user": "ada" })).await;
    counts(&fleet.replicas[1], "shared_forgets_total{origin=\"elsewhere\"}", 1).await;
    (old, key)
}

/// Returns the keys of tokens.
async fn tokens(redis: &RedisServer) -> Vec<String> {
    let mut keys: Vec<_> = content(redis).await.into_iter().map(|(key, _)| key).collect();
    keys.retain(|key| key.contains(":t:"));
    keys
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t65_store_holds_neither_token_nor_user() {
    let redis = RedisServer::start().await;
    let fleet = Fleet::start(1, &redis.place(), &[]).await;
    let token = fleet.ask(0, "ada-of-the-test").await.token();
    fleet.forget(0, &json!({ "user": "ada-of-the-test" })).await;
    let second = fleet.ask(0, "ada-of-the-test").await.token();
    counts(&fleet.replicas[0], "shared_writes_total{result=\"written\"}", 2).await;
    let content = content(&redis).await;
    assert!(content.len() >= 4, "a token, a mark, a stream, an era");
    for (key, bytes) in content {
        for secret in ["ada-of-the-test", &token, &second, "eyJ", "key"] {
            let found = bytes.windows(secret.len()).any(|part| part == secret.as_bytes());
            assert!(!found && !key.contains(secret), "{key} shows {secret}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t65_token_in_another_users_place_is_ignored() {
    let redis = RedisServer::start().await;
    let mut fleet = Fleet::start(1, &redis.place(), &[]).await;
    let (ada, eve) = (fleet.ask(0, "ada").await.token(), fleet.ask(0, "eve").await.token());
    counts(&fleet.replicas[0], "shared_writes_total{result=\"written\"}", 2).await;
    let keys = tokens(&redis).await;
    redis.ask(&["RENAME", &keys[0], "aside"]).await;
    redis.ask(&["RENAME", &keys[1], &keys[0]]).await;
    redis.ask(&["RENAME", "aside", &keys[1]]).await;
    let newcomer = fleet.one(&[]).await;
    fleet.replicas.push(newcomer);
    let (new_ada, new_eve) = (fleet.ask(1, "ada").await.token(), fleet.ask(1, "eve").await.token());
    assert!(![&ada, &eve].contains(&&new_ada) && ![&ada, &eve].contains(&&new_eve));
    let user = |token: &str| crate::pages::velt::user_of(token);
    assert_eq!((user(&new_ada), user(&new_eve)), ("ada".into(), "eve".into()));
    fleet.replicas[1].metric_is("shared_reads_total{result=\"foreign\"}", |it| it >= 2.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t65_forgotten_token_stays_forgotten_without_its_mark() {
    let redis = RedisServer::start().await;
    let mut fleet = Fleet::start(2, &redis.place(), &[]).await;
    let (old, key) = keep_and_forget(&redis, &fleet).await;
    // The old token is also refused by a replica that has only just started, and has no token in memory.
    let newcomer = fleet.one(&[]).await;
    hears(&newcomer).await;
    fleet.replicas.push(newcomer);
    for replica in [2, 1, 0] {
        redis.ask(&["COPY", "kept", &key, "REPLACE"]).await;
        assert_ne!(fleet.ask(replica, "ada").await.token(), old, "replica {replica}");
    }
    // Replicas that have heard of the forget refuse the old token even without the mark.
    fleet.forget(0, &json!({ "user": "ada" })).await;
    fleet.replicas[2].metric_is("shared_forgets_total{origin=\"elsewhere\"}", |it| it >= 1.0).await;
    redis
        .ask(&[
            "EVAL",
            "for _, k in ipairs(redis.call('keys', '*:f:*')) do redis.call('del', k) end",
            "0",
        ])
        .await;
    for replica in [2, 1, 0] {
        redis.ask(&["COPY", "kept", &key, "REPLACE"]).await;
        assert_ne!(fleet.ask(replica, "ada").await.token(), old, "replica {replica}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replica_with_another_seal_key_mints_by_itself() {
    let redis = RedisServer::start().await;
    let mut fleet = Fleet::start(1, &redis.place(), &[]).await;
    let token = fleet.ask(0, "ada").await.token();
    let other = "HxsdHBsaGRgXFhUUExIREA8ODQwLCgkIBwYFBAMCAQA=";
    let stranger = fleet.one(&[("SHARED__SEAL_KEY", other)]).await;
    // While the seal key is being changed, a replica has both keys.
    let both = [("SHARED__SEAL_KEY", other), ("SHARED__OTHER_SEAL_KEY", super::fleet::SEAL_KEY)];
    let rotated = fleet.one(&both).await;
    fleet.replicas.extend([stranger, rotated]);
    assert_ne!(fleet.ask(1, "ada").await.token(), token);
    counts(&fleet.replicas[0], "shared_writes_total{result=\"written\"}", 1).await;
    let seen = fleet.ask(2, "ada").await.token();
    let known = [token, fleet.ask(1, "ada").await.token()];
    assert!(known.contains(&seen), "a token that is stored under one of the keys");
    assert_eq!(fleet.velt.call_count(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t65_deleted_forgets_are_put_back() {
    let redis = RedisServer::start().await;
    let mut fleet = Fleet::start(2, &redis.place(), &[]).await;
    let (old, key) = keep_and_forget(&redis, &fleet).await;
    let marks = "for _, k in ipairs(redis.call('keys', '*:f*')) do redis.call('del', k) end";
    redis.ask(&["EVAL", marks, "0"]).await;
    redis.ask(&["COPY", "kept", &key, "REPLACE"]).await;
    // The next mint for the user finds that the store has lost the forget.
    assert_ne!(fleet.ask(1, "ada").await.token(), old);
    counts(&fleet.replicas[1], "shared_forgets_total{origin=\"put_back\"}", 1).await;
    let newcomer = fleet.one(&[]).await;
    hears(&newcomer).await;
    fleet.replicas.push(newcomer);
    redis.ask(&["COPY", "kept", &key, "REPLACE"]).await;
    assert_ne!(fleet.ask(2, "ada").await.token(), old);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t65_forged_event_forgets_nothing() {
    let redis = RedisServer::start().await;
    let fleet = Fleet::start(2, &redis.place(), &[]).await;
    let before = fleet.ask_all("ada").await;
    let stream = "{velt-sidecar}:forgets";
    for (field, value) in [("e", "forged"), ("e", ""), ("other", "forged")] {
        redis.ask(&["XADD", stream, "*", field, value]).await;
    }
    counts(&fleet.replicas[1], "shared_events_unread_total", 3).await;
    // A true event that is added a second time has no effect.
    fleet.forget(0, &json!({ "user": "eve" })).await;
    counts(&fleet.replicas[1], "shared_forgets_total{origin=\"elsewhere\"}", 1).await;
    let again = "local e = redis.call('xrevrange', KEYS[1], '+', '-', 'COUNT', 1)[1][2] \
                 redis.call('xadd', KEYS[1], '*', e[1], e[2])";
    redis.ask(&["EVAL", again, "1", stream]).await;
    fleet.forget(0, &json!({ "user": "bob" })).await;
    counts(&fleet.replicas[1], "shared_forgets_total{origin=\"elsewhere\"}", 2).await;
    assert_eq!(fleet.ask_all("ada").await, before);
    assert_eq!(fleet.velt.call_count(), 1);
}

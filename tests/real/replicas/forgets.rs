//! Forgets that reach all replicas, also replicas that were cut off from the store.

use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, sleep};

use super::fleet::{Fleet, counts, hears};
use crate::neighbour::eventually;
use crate::shared_store::servers::RedisServer;

/// Returns the number of forgets for which the time to the last replica is measured.
fn rounds() -> usize {
    if std::env::var_os("VELT_SIDECAR_LONG").is_some() { 200 } else { 13 }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forget_reaches_the_last_replica_within_a_second() {
    let redis = RedisServer::start().await;
    let fleet = Fleet::start(3, &redis.place(), &[]).await;
    let mut times = Vec::new();
    for round in 0..rounds() {
        let user = format!("user-{}", round % 7);
        let before = fleet.ask_all(&user).await.remove(0);
        let begun = Instant::now();
        assert_eq!(fleet.forget(round % 3, &json!({ "user": user })).await, "told");
        eventually("no replica to have the old token", async || {
            let tokens = fleet.ask_all(&user).await;
            if tokens.iter().all(|token| *token != before) { Ok(()) } else { Err("it has".into()) }
        })
        .await;
        times.push(begun.elapsed());
    }
    times.sort_unstable();
    let slowest = times[times.len() * 99 / 100];
    println!("forgets: median {:?}, p99 {slowest:?}", times[times.len() / 2]);
    assert!(slowest < Duration::from_secs(1), "{times:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forget_of_an_organization_and_of_everything_reach_all() {
    let redis = RedisServer::start().await;
    let settings = [("VELT__API", "v2"), ("VELT__ORGANIZATION", "acme")];
    let fleet = Fleet::start(2, &redis.place(), &settings).await;
    for (calls, whose) in
        [(2, json!({ "organization": "acme" })), (3, json!({ "everything": true }))]
    {
        let before = fleet.ask_all("ada").await;
        fleet.forget(0, &whose).await;
        counts(&fleet.replicas[1], "shared_forgets_total{origin=\"elsewhere\"}", calls - 1).await;
        let after = eventually("a new token", async || {
            let after = fleet.ask_all("ada").await;
            if after.iter().any(|token| before.contains(token)) {
                Err("old".into())
            } else {
                Ok(after)
            }
        })
        .await;
        assert_eq!(after[0], after[1]);
        assert_eq!(fleet.velt.call_count(), usize::try_from(calls).expect("few"));
    }
    // Another organization is not concerned.
    let before = fleet.ask_all("ada").await;
    fleet.forget(0, &json!({ "organization": "other" })).await;
    counts(&fleet.replicas[1], "shared_forgets_total{origin=\"elsewhere\"}", 3).await;
    assert_eq!(fleet.ask_all("ada").await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mint_begun_before_a_forget_is_not_kept() {
    let redis = RedisServer::start().await;
    let fleet = Fleet::start(2, &redis.place(), &[("VELT__ATTEMPT_TIMEOUT", "15s")]).await;
    fleet.velt.close_gate();
    let (early, ()) = tokio::join!(fleet.ask(0, "ada"), async {
        fleet.velt.calls_reach(1).await;
        assert_eq!(fleet.forget(1, &json!({ "user": "ada" })).await, "told");
        counts(&fleet.replicas[0], "shared_forgets_total{origin=\"elsewhere\"}", 1).await;
        fleet.velt.open_gate();
    });
    let early = early.token();
    // The early mint may write its token only after the first requests.
    for _ in 0..5 {
        for token in fleet.ask_all("ada").await {
            assert_ne!(token, early);
        }
        sleep(Duration::from_millis(40)).await;
    }
    assert_eq!(fleet.velt.call_count(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replica_that_was_cut_off_catches_up() {
    let mut redis = RedisServer::start().await;
    let fleet = Fleet::start(2, &redis.place(), &[]).await;
    let before = fleet.ask_all("ada").await.remove(0);
    counts(&fleet.replicas[0], "shared_writes_total{result=\"written\"}", 1).await;
    // No replica can hear of the forget, and the called replica forgets all the same.
    redis.kill();
    assert_eq!(fleet.forget(0, &json!({ "user": "ada" })).await, "later");
    let after = fleet.ask(0, "ada").await.token();
    assert_ne!(after, before, "the called replica forgets at once");
    assert_eq!(fleet.ask(1, "ada").await.token(), before, "the other still serves it");
    redis.restart().await;
    fleet.all_hear().await;
    let after = eventually("the other replica to forget", async || {
        let tokens = fleet.ask_all("ada").await;
        if tokens.contains(&before) || tokens[0] != tokens[1] {
            Err("two tokens".into())
        } else {
            Ok(tokens)
        }
    })
    .await;
    assert_ne!(after[0], before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forget_outlives_a_flush_and_a_new_replica_knows_it() {
    let redis = RedisServer::start().await;
    let mut fleet = Fleet::start(2, &redis.place(), &[]).await;
    fleet.ask_all("ada").await;
    fleet.ask_all("eve").await;
    fleet.forget(0, &json!({ "user": "ada" })).await;
    let after = fleet.ask_all("ada").await;
    redis.ask(&["FLUSHALL"]).await;
    let put_back = async |metric: &str, least: u64| {
        eventually(metric, async || {
            let sum = fleet.sum(metric).await;
            if sum >= least { Ok(()) } else { Err(sum.to_string()) }
        })
        .await;
    };
    put_back("shared_gaps_total", 2).await;
    put_back("shared_forgets_total{origin=\"put_back\"}", 1).await;
    // Both tokens are in the store again, for a replica without tokens in memory.
    eventually("the tokens to be back", async || {
        let count = redis.ask(&["EVAL", "return #redis.call('keys', '*:t:*')", "0"]).await;
        if count == redis::Value::Int(2) { Ok(()) } else { Err(format!("{count:?}")) }
    })
    .await;
    let newcomer = fleet.one(&[]).await;
    hears(&newcomer).await;
    fleet.replicas.push(newcomer);
    let calls = fleet.velt.call_count();
    assert_eq!(fleet.ask(2, "ada").await.token(), after[0]);
    assert_eq!(fleet.velt.call_count(), calls);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cut_off_replica_mints_anew_after_the_longest_time() {
    let mut redis = RedisServer::start().await;
    let place = redis.place();
    let fleet = Fleet::start(1, &place, &[("SHARED__LONGEST_CUT_OFF", "30s")]).await;
    let before = fleet.ask(0, "ada").await.token();
    redis.kill();
    counts(&fleet.replicas[0], "shared_cut_off", 1).await;
    assert_eq!(fleet.ask(0, "ada").await.token(), before);
    if std::env::var_os("VELT_SIDECAR_LONG").is_none() {
        return;
    }
    sleep(Duration::from_secs(31)).await;
    assert_ne!(fleet.ask(0, "ada").await.token(), before);
}

//! Replicas that start and end: the tokens that they find in the store, and the tokens that they leave there.

use serde_json::json;

use super::fleet::{Asked, Fleet, counts, hears};
use crate::record::record;
use crate::shared_store::servers::RedisServer;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rollout_while_velt_is_down_leaves_every_user_a_token() {
    let redis = RedisServer::start().await;
    let mut fleet = Fleet::start(2, &redis.place(), &[]).await;
    let users: Vec<String> = (0..31).map(|number| format!("user-{number}")).collect();
    let mut tokens = Vec::new();
    for (number, user) in users.iter().enumerate() {
        tokens.push(fleet.ask(number % 2, user).await.token());
    }
    fleet.velt.answer_with(503, "{}");
    for _ in 0..2 {
        let newcomer = fleet.one(&[]).await;
        fleet.replicas.push(newcomer);
        let old = fleet.replicas.remove(0);
        old.terminate();
        old.ended().await;
    }
    let mut lost = Vec::new();
    for (user, token) in users.iter().zip(&tokens) {
        for replica in 0..2 {
            let asked = fleet.ask(replica, user).await;
            if asked != Asked::Token(token.clone()) {
                lost.push((user, asked));
            }
        }
    }
    let figures = json!({ "pods": 2, "requests": 2 * users.len(), "lost": lost.len() });
    record("rollouts", "shared store, while Velt is down", &figures);
    assert!(lost.is_empty(), "{lost:?}");
    assert_eq!(fleet.velt.call_count(), users.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replica_writes_before_its_end_what_the_store_did_not_take() {
    let mut redis = RedisServer::start().await;
    let mut fleet = Fleet::start(1, &redis.place(), &[("SHUTDOWN__GRACE", "3s")]).await;
    redis.kill();
    counts(&fleet.replicas[0], "shared_cut_off", 1).await;
    let token = fleet.ask(0, "ada").await.token();
    fleet.replicas[0].terminate();
    redis.restart().await;
    fleet.replicas.remove(0).ended().await;
    let newcomer = fleet.one(&[]).await;
    hears(&newcomer).await;
    fleet.replicas.push(newcomer);
    fleet.velt.answer_with(503, "{}");
    assert_eq!(fleet.ask(0, "ada").await.token(), token);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logout_is_known_to_a_replica_that_starts_later() {
    let redis = RedisServer::start().await;
    let mut fleet = Fleet::start(1, &redis.place(), &[]).await;
    let before = fleet.ask(0, "ada").await.token();
    fleet.forget(0, &json!({ "user": "ada" })).await;
    let newcomer = fleet.one(&[]).await;
    fleet.replicas.push(newcomer);
    assert_ne!(fleet.ask(1, "ada").await.token(), before);
}

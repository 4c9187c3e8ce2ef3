//! Tokens that several replicas serve: the same bytes, minted once, and replaced on all replicas.

use std::time::Duration;

use super::fleet::{Asked, Fleet, all_answer, counts};
use crate::certificates::{Authority, Folder};
use crate::neighbour::eventually;
use crate::shared_store::families::has_ipv6;
use crate::shared_store::servers::{Cluster, Options, RedisServer, SentinelGroup, Tls, Version};
use shared::store::Place;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_serve_one_token_minted_once() {
    let redis = RedisServer::start().await;
    let fleet = Fleet::start(3, &redis.place(), &[]).await;
    for user in ["ada", "eve"] {
        let tokens = fleet.ask_all(user).await;
        assert!(tokens.iter().all(|token| *token == tokens[0]), "{user}");
    }
    assert_eq!(fleet.velt.call_count(), 2);
    assert_ne!(fleet.ask(0, "ada").await, fleet.ask(0, "eve").await);
    assert_eq!(fleet.sum("shared_reads_total{result=\"served\"}").await, 4);
    assert_eq!(fleet.sum("mints_total{outcome=\"minted\"}").await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn token_in_memory_asks_the_store_nothing() {
    let redis = RedisServer::start().await;
    let fleet = Fleet::start(1, &redis.place(), &[]).await;
    fleet.ask(0, "ada").await.token();
    counts(&fleet.replicas[0], "shared_writes_total{result=\"written\"}", 1).await;
    let reads = || async { fleet.sum("shared_reads_total{result=\"absent\"}").await };
    let before = (reads().await, fleet.sum("shared_reads_total{result=\"served\"}").await);
    for _ in 0..23 {
        fleet.ask(0, "ada").await.token();
    }
    let after = (reads().await, fleet.sum("shared_reads_total{result=\"served\"}").await);
    assert_eq!(before, after);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replaced_token_is_replaced_on_all_replicas_within_a_second() {
    let redis = RedisServer::start().await;
    let fleet = Fleet::start(3, &redis.place(), &[]).await;
    let first = fleet.ask_all("ada").await.remove(0);
    let eve = fleet.ask_all("eve").await.remove(0);
    fleet.velt.close_gate();
    let reporting = fleet.report_refused(1, "ada", &first);
    let meanwhile = async {
        fleet.velt.calls_reach(3).await;
        assert_eq!(fleet.ask(0, "ada").await.token(), first, "served until the new token is there");
        fleet.velt.open_gate();
    };
    let (second, ()) = tokio::join!(reporting, meanwhile);
    let second = second.token();
    assert_ne!(second, first);
    all_answer(&fleet, "ada", &second, Duration::from_secs(1)).await;
    assert_eq!(fleet.velt.call_count(), 3);
    assert_eq!(fleet.ask_all("eve").await, [eve.clone(), eve.clone(), eve]);
    // A page that reports the old token to another replica does not cause a further mint.
    let late = fleet.report_refused(2, "ada", &first).await.token();
    assert_eq!((late, fleet.velt.call_count()), (second, 3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replica_awaits_the_mint_of_another() {
    let redis = RedisServer::start().await;
    let fleet = Fleet::start(2, &redis.place(), &[("VELT__ATTEMPT_TIMEOUT", "15s")]).await;
    fleet.velt.close_gate();
    let (one, other) = tokio::join!(fleet.ask(0, "ada"), async {
        fleet.velt.calls_reach(1).await;
        let (other, ()) = tokio::join!(fleet.ask(1, "ada"), async {
            tokio::time::sleep(Duration::from_millis(733)).await;
            assert_eq!(fleet.velt.call_count(), 1, "the second replica waits");
            fleet.velt.open_gate();
        });
        other
    });
    assert_eq!(one.token(), other.token());
    assert_eq!(fleet.sum("shared_leases_total{result=\"awaited\"}").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lease_of_a_dead_replica_is_taken_over() {
    let redis = RedisServer::start().await;
    let mut fleet = Fleet::start(2, &redis.place(), &[("VELT__ATTEMPT_TIMEOUT", "15s")]).await;
    fleet.velt.close_gate();
    let begun = tokio::time::timeout(Duration::from_millis(300), fleet.ask(0, "ada")).await;
    assert!(begun.is_err(), "the gate is closed");
    fleet.velt.calls_reach(1).await;
    drop(fleet.replicas.remove(0));
    fleet.velt.open_gate();
    // The token of the first call is lost with its replica.
    let asked =
        eventually("the survivor to have a token", async || match fleet.ask(0, "ada").await {
            Asked::Token(token) => Ok(token),
            Asked::Without(status, code) => {
                assert_eq!(code, "token_pending", "{status}");
                Err(code)
            }
        });
    asked.await;
    assert_eq!(fleet.velt.call_count(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_mint_frees_the_lease() {
    let redis = RedisServer::start().await;
    let fleet = Fleet::start(2, &redis.place(), &[]).await;
    fleet.velt.answer_with(403, r#"{"error":{"message":"","status":"PERMISSION_DENIED"}}"#);
    let refused = fleet.ask(0, "ada").await;
    assert_eq!(refused, Asked::Without(502, "token_refused".into()));
    fleet.velt.recover();
    // The lease was given back: by itself it would have ended much later.
    let begun = tokio::time::Instant::now();
    fleet.ask(1, "ada").await.token();
    assert!(begun.elapsed() < Duration::from_millis(1500), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_share_through_sentinel_and_cluster() {
    let (group, cluster) = tokio::join!(SentinelGroup::start(), Cluster::start());
    shares(&[group.place(), cluster.place()], &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_share_through_the_oldest_version() {
    let options = Options { version: Version::Oldest, ..Options::default() };
    let (server, group, cluster) = tokio::join!(
        RedisServer::start_with(&options),
        SentinelGroup::start_with(&options),
        Cluster::start_with(&options)
    );
    shares(&[server.place(), group.place(), cluster.place()], &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_share_over_tls_and_ipv6() {
    if !has_ipv6() {
        return;
    }
    let (authority, folder) = (Authority::new(), Folder::new());
    let tls = Some(Tls { authority: &authority, names: &["::1"] });
    let options = Options { host: Some("::1"), tls, ..Options::default() };
    let (group, cluster) =
        tokio::join!(SentinelGroup::start_with(&options), Cluster::start_with(&options));
    let ca_file = folder.write("ca.crt", authority.pem());
    let settings = [("SHARED__TLS", "true"), ("SHARED__CA_FILE", &*ca_file)];
    shares(&[group.place(), cluster.place()], &settings).await;
}

/// Checks that two replicas share tokens and forgets at each place.
async fn shares(places: &[Place], settings: &[(&str, &str)]) {
    for place in places {
        let fleet = Fleet::start(2, place, settings).await;
        for user in ["ada", "eve", "bob", "zoe"] {
            let tokens = fleet.ask_all(user).await;
            assert_eq!(tokens[0], tokens[1], "{user}");
        }
        assert_eq!(fleet.velt.call_count(), 4);
        let word = fleet.forget(0, &serde_json::json!({ "user": "ada" })).await;
        assert_eq!(word, "told");
        counts(&fleet.replicas[1], "shared_forgets_total{origin=\"elsewhere\"}", 1).await;
        let tokens = fleet.ask_all("ada").await;
        assert_eq!((&tokens[0], fleet.velt.call_count()), (&tokens[1], 5));
    }
}

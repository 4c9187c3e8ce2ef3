//! New credentials: which mint is called from then on, and what becomes of the old credentials' tokens.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{advance, sleep};

use super::{Bench, refused, settle};
use crate::support::double::Double;

const MINUTE: Duration = Duration::from_secs(60);

/// Replaces the mint by another double.
fn succeed(bench: &Bench, new_credentials: bool) -> Double {
    let next = Double::default();
    bench.cache.replace_mint(Arc::new(next.clone()), new_credentials);
    next
}

#[tokio::test(start_paused = true)]
async fn old_tokens_are_served_and_refreshed_within_ten_minutes() {
    let bench = Bench::new();
    let users: Vec<String> = (0..200).map(|user| format!("user{user}")).collect();
    for user in &users {
        bench.get(user).await.expect("a token");
    }
    let next = succeed(&bench, true);
    bench.cache.observe();
    assert_eq!(bench.metrics.superseded.get(), 200);
    let mut minutes = Vec::new();
    for _ in 0..11 {
        let before = next.calls();
        for user in &users {
            bench.get(user).await.expect("served all the while");
        }
        settle().await;
        minutes.push(next.calls() - before);
        advance(MINUTE).await;
    }
    assert_eq!(next.calls(), 200, "each once: {minutes:?}");
    assert!(minutes.iter().all(|count| *count < 60), "not all in one minute: {minutes:?}");
    assert_eq!(bench.double.calls(), 200, "nobody asks in the old name any more");
    for user in &users {
        bench.get(user).await.expect("a token");
    }
    bench.cache.observe();
    assert_eq!(bench.metrics.superseded.get(), 0);
    assert_eq!(next.calls(), 200, "a token of the new ones is left alone");
}

#[tokio::test(start_paused = true)]
async fn new_credentials_that_fail_cost_no_token_that_is_still_good() {
    let bench = Bench::new();
    let first = bench.get("ada").await.expect("a token");
    let next = succeed(&bench, true);
    next.otherwise(Some(refused()));
    for _ in 0..30 {
        advance(MINUTE).await;
        assert_eq!(bench.get("ada").await.expect("a token"), first);
        settle().await;
    }
    // The new credentials are tried again now and then, not with each request.
    assert!((1..=30).contains(&next.calls()), "{}", next.calls());
    next.otherwise(None);
    sleep(2 * MINUTE).await;
    bench.get("ada").await.expect("a token");
    settle().await;
    assert_ne!(bench.get("ada").await.expect("a token"), first);
}

#[tokio::test(start_paused = true)]
async fn a_failure_of_the_old_credentials_is_forgotten_with_them() {
    let bench = Bench::new();
    bench.double.otherwise(Some(refused()));
    bench.get("ada").await.expect_err("refused");
    bench.get("ada").await.expect_err("from memory");
    assert_eq!(bench.double.calls(), 1);
    let next = succeed(&bench, true);
    bench.get("ada").await.expect("a token");
    assert_eq!((bench.double.calls(), next.calls()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn mint_under_way_counts_for_the_old_credentials() {
    let bench = Bench::new();
    bench.double.latency(Duration::from_secs(5));
    let pending = bench.cache.get(crate::support::double::request("ada"));
    settle().await;
    let next = succeed(&bench, true);
    pending.within(MINUTE).await.expect("in time").expect("a token");
    bench.cache.observe();
    assert_eq!(bench.metrics.superseded.get(), 1, "it is one of the old ones");
    advance(11 * MINUTE).await;
    bench.get("ada").await.expect("a token");
    settle().await;
    assert_eq!(next.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn new_timeouts_with_the_same_credentials_refresh_nothing() {
    let bench = Bench::new();
    let first = bench.get("ada").await.expect("a token");
    let next = succeed(&bench, false);
    advance(60 * MINUTE).await;
    assert_eq!(bench.get("ada").await.expect("a token"), first);
    settle().await;
    assert_eq!(next.calls(), 0);
    bench.get("grace").await.expect("a token");
    assert_eq!(next.calls(), 1);
}

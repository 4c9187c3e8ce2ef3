//! The cache and the patience behind it, in virtual time and without a socket.

mod invalidation;
mod renewal;
mod rotation;
mod shared_calls;

use std::sync::Arc;
use std::time::Duration;

use ground::metrics::{Metrics, TokenMetrics};
use token::cache::{self, Lookup, TokenCache};
use token::{
    Demand, Details, Issuer, Mint, MintError, MintFuture, MintPlan, MintRequest, RefusedStatus,
};
use tokio::time::{Instant, advance, sleep};

use crate::support::double::{Double, HOUR, LIFE, plan, request, resilient, text};

struct Bench {
    double: Double,
    cache: TokenCache,
    metrics: TokenMetrics,
}

impl Bench {
    fn new() -> Self {
        Self::bounded(&cache::Settings { max_entries: 1000, max_bytes: 1 << 30 })
    }

    fn bounded(settings: &cache::Settings) -> Self {
        let double = Double::default();
        let metrics = Metrics::new().tokens;
        let cache = TokenCache::new(Arc::new(double.clone()), settings, metrics.clone());
        Self { double, cache, metrics }
    }

    async fn get(&self, user: &str) -> Result<String, MintError> {
        let result = self.cache.get(request(user)).within(HOUR).await.expect("an hour is enough");
        result.map(|token| text(&token))
    }
}

fn refused() -> MintError {
    MintError::Refused { status: RefusedStatus::PermissionDenied, http_status: 403 }
}

fn unavailable() -> MintError {
    MintError::Unavailable { http_status: Some(503), retry_after: None, source: None }
}

/// Lets spawned tasks run to where they wait.
async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_fresh_token_is_served_byte_for_byte_until_its_refresh() {
    let bench = Bench::new();
    let first = bench.get("ada").await.expect("a token");
    for _ in 0..33 {
        assert_eq!(bench.get("ada").await.expect("a token"), first);
        advance(HOUR).await;
    }
    assert_eq!(bench.double.calls(), 1, "not due before 70 % of 48 h");
}

#[tokio::test(start_paused = true)]
async fn a_due_token_is_served_and_refreshed_once_in_the_background() {
    let bench = Bench::new();
    let first = bench.get("ada").await.expect("a token");
    bench.double.latency(Duration::from_secs(1));
    advance(39 * HOUR).await;
    for _ in 0..100 {
        let ready = bench.cache.get(request("ada"));
        assert!(matches!(ready, Lookup::Ready(Ok(token)) if text(&token) == first));
    }
    settle().await;
    assert_eq!(bench.double.calls(), 2);
    sleep(Duration::from_secs(2)).await;
    let second = bench.get("ada").await.expect("a token");
    assert_ne!(second, first);
    assert_eq!(bench.double.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_valid_token_outlives_any_outage_but_not_its_own_life() {
    let bench = Bench::new();
    let first = bench.get("ada").await.expect("a token");
    bench.double.otherwise(Some(unavailable()));
    let start = Instant::now();
    let mut served_until = start;
    while start.elapsed() < 50 * HOUR {
        match bench.get("ada").await {
            Ok(token) => {
                assert_eq!(token, first);
                served_until = Instant::now();
            }
            Err(error) => assert!(matches!(error, MintError::Unavailable { .. })),
        }
        advance(Duration::from_secs(600)).await;
        settle().await;
    }
    let served = served_until - start;
    assert!(served < LIFE, "served for {served:?}");
    assert!(served + Duration::from_secs(1300) > LIFE, "given up after {served:?}");
    bench.double.otherwise(None);
    assert_ne!(bench.get("ada").await.expect("a token"), first);
}

#[tokio::test(start_paused = true)]
async fn refused_refresh_discards_no_valid_token() {
    let bench = Bench::new();
    let first = bench.get("ada").await.expect("a token");
    bench.double.otherwise(Some(refused()));
    advance(40 * HOUR).await;
    for _ in 0..5 {
        assert_eq!(bench.get("ada").await.expect("a token"), first);
        settle().await;
    }
    assert_eq!(bench.double.calls(), 2, "the refusal is remembered for the refresh too");
}

#[tokio::test(start_paused = true)]
async fn concurrent_callers_share_one_mint_and_its_error() {
    let bench = Bench::new();
    bench.double.latency(Duration::from_secs(1));
    bench.double.then(Err(refused()));
    let lookups: Vec<_> = (0..1000).map(|_| bench.cache.get(request("ada"))).collect();
    for lookup in lookups {
        let result = lookup.within(HOUR).await.expect("the mint has ended");
        assert!(matches!(result, Err(MintError::Refused { .. })));
    }
    assert_eq!(bench.double.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_mint_goes_on_when_every_caller_has_left() {
    let bench = Bench::new();
    bench.double.latency(Duration::from_secs(1));
    drop(bench.cache.get(request("ada")));
    sleep(Duration::from_secs(2)).await;
    assert!(matches!(bench.cache.get(request("ada")), Lookup::Ready(Ok(_))));
    assert_eq!(bench.double.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_impatient_caller_leaves_without_stopping_the_mint() {
    let bench = Bench::new();
    bench.double.latency(Duration::from_secs(1));
    let pending = bench.cache.get(request("ada"));
    settle().await;
    let impatient = pending.within(Duration::from_millis(250)).await;
    assert!(impatient.is_err(), "it is under way");
    assert!(bench.get("ada").await.is_ok());
    assert_eq!(bench.double.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn failures_are_remembered_longer_as_they_repeat() {
    let bench = Bench::new();
    bench.double.otherwise(Some(unavailable()));
    let mut calls = 0;
    for expected_pause in [1, 2, 4, 8, 16, 30, 30] {
        assert!(bench.get("ada").await.is_err());
        calls += 1;
        assert_eq!(bench.double.calls(), calls);
        advance(Duration::from_millis(1000 * expected_pause - 1)).await;
        assert!(bench.get("ada").await.is_err());
        assert_eq!(bench.double.calls(), calls, "still remembered");
        advance(Duration::from_millis(1)).await;
    }
    bench.double.otherwise(None);
    assert!(bench.get("ada").await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_remembered_for_a_minute() {
    let bench = Bench::new();
    bench.double.then(Err(refused()));
    assert!(bench.get("ada").await.is_err());
    bench.cache.observe();
    assert_eq!(bench.metrics.cached.get(), 0, "a remembered failure is no token");
    advance(Duration::from_secs(59)).await;
    assert!(bench.get("ada").await.is_err());
    assert_eq!(bench.double.calls(), 1);
    advance(Duration::from_secs(1)).await;
    assert!(bench.get("ada").await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_short_lived_token_is_given_up_before_its_end() {
    let bench = Bench::new();
    bench.double.then(Ok(Duration::from_secs(600)));
    let first = bench.get("ada").await.expect("a token");
    advance(Duration::from_secs(300)).await;
    assert_eq!(bench.get("ada").await.expect("a token"), first);
    advance(Duration::from_secs(240)).await;
    assert_ne!(bench.get("ada").await.expect("a token"), first, "a minute before its end");
}

#[tokio::test(start_paused = true)]
async fn refreshes_of_users_who_came_together_are_spread() {
    let bench = Bench::new();
    for n in 0..1000 {
        bench.get(&format!("user-{n}")).await.expect("a token");
    }
    let mut due_in_hour = Vec::new();
    for _ in 0..48 {
        let before = bench.double.calls();
        for n in 0..1000 {
            bench.get(&format!("user-{n}")).await.expect("a token");
        }
        settle().await;
        due_in_hour.push(bench.double.calls() - before);
        advance(HOUR).await;
    }
    let first = due_in_hour.iter().position(|due| *due > 0).expect("some were due");
    assert!((32..=35).contains(&first), "first due after {first} h");
    let spread = due_in_hour.iter().filter(|due| **due > 0).count();
    assert!(spread >= 4, "due within {spread} h: {due_in_hour:?}");
    assert_eq!(due_in_hour.iter().sum::<usize>(), 1000);
}

#[tokio::test(start_paused = true)]
async fn every_field_of_a_request_tells_tokens_apart() {
    let bench = Bench::new();
    let mut all = vec![request("ada"), request("Ada"), request("ada ")];
    let mut issuer = |change: &dyn Fn(&mut Issuer)| {
        let mut issuer = plan().issuer().clone();
        change(&mut issuer);
        let plan = MintPlan::new(issuer, false);
        all.extend(plan.request("ada".into(), Details::default()));
    };
    issuer(&|issuer| issuer.endpoint = "https://other".into());
    issuer(&|issuer| issuer.credentials_generation = 1);
    issuer(&|issuer| issuer.organization = Some("a".into()));
    let mut detail = |change: &dyn Fn(&mut Details)| {
        let mut details = Details::default();
        change(&mut details);
        all.extend(plan().request("ada".into(), details));
    };
    detail(&|details| details.organization = Some("a".into()));
    detail(&|details| details.email = Some("a".into()));
    detail(&|details| details.name = Some("a".into()));
    detail(&|details| details.is_admin = Some(false));
    detail(&|details| details.is_admin = Some(true));
    assert_eq!(all.len(), 11);
    for request in all {
        let token = bench.cache.get(request).within(HOUR).await.expect("the mint has ended");
        token.expect("a token");
    }
    assert_eq!(bench.double.calls(), 11);
}

#[tokio::test(start_paused = true)]
async fn full_cache_forgets_the_longest_unused_entry() {
    let bench = Bench::bounded(&cache::Settings { max_entries: 100, max_bytes: 1 << 30 });
    bench.get("first").await.expect("a token");
    for n in 0..500 {
        bench.get(&format!("user-{n}")).await.expect("a token");
        bench.get("first").await.expect("a token");
    }
    bench.cache.observe();
    let cached = bench.metrics.cached.get();
    assert!((90..=100).contains(&cached), "{cached} entries");
    assert_eq!(bench.double.calls(), 501, "the user of every moment was never evicted");
    assert!(bench.metrics.evictions.get() >= 400);
}

#[tokio::test(start_paused = true)]
async fn the_cache_keeps_to_its_bytes() {
    let bench = Bench::bounded(&cache::Settings { max_entries: 1000, max_bytes: 64 * 1024 });
    for n in 0..1000 {
        bench.get(&format!("user-{n}")).await.expect("a token");
    }
    bench.cache.observe();
    assert!(bench.metrics.cached_bytes.get() <= 64 * 1024);
    assert!(bench.metrics.cached.get() > 30);
}

#[tokio::test(start_paused = true)]
async fn the_headroom_is_the_least_remaining_life_of_active_users() {
    let bench = Bench::new();
    bench.cache.observe();
    assert!(bench.metrics.headroom.get().is_nan());
    bench.double.then(Ok(10 * HOUR));
    bench.get("ada").await.expect("a token");
    bench.get("grace").await.expect("a token");
    bench.cache.observe();
    let least = bench.metrics.headroom.get();
    assert!((least - 10.0 * 3600.0).abs() < 100.0, "{least}");
    advance(2 * HOUR).await;
    bench.get("grace").await.expect("a token");
    bench.cache.observe();
    let active_only = bench.metrics.headroom.get();
    assert!((active_only - 46.0 * 3600.0).abs() < 100.0, "ada has left: {active_only}");
}

#[tokio::test(start_paused = true)]
async fn headroom_counts_a_user_until_an_hour_after_the_last_use() {
    let bench = Bench::new();
    let headroom = || {
        bench.cache.observe();
        bench.metrics.headroom.get()
    };
    bench.get("ada").await.expect("a token");
    for _ in 0..40 {
        advance(Duration::from_secs(240)).await;
        bench.get("ada").await.expect("a token");
        assert!(headroom() > 0.0);
    }
    advance(Duration::from_secs(54 * 60)).await;
    assert!(headroom() > 0.0, "his last visit is noted to within five minutes");
    advance(Duration::from_secs(7 * 60)).await;
    assert!(headroom().is_nan(), "he has left");
}

#[tokio::test(start_paused = true)]
async fn an_active_user_without_a_token_leaves_no_headroom() {
    let bench = Bench::new();
    bench.get("ada").await.expect("a token");
    bench.double.otherwise(Some(unavailable()));
    advance(Duration::from_secs(60 * 30) + 47 * HOUR).await;
    bench.get("ada").await.expect("the token is still good");
    settle().await;
    bench.cache.observe();
    let left = bench.metrics.headroom.get();
    assert!((left - 29.0 * 60.0).abs() < 100.0, "{left}");
    advance(Duration::from_secs(45 * 60)).await;
    assert!(bench.get("ada").await.is_err(), "it has ended");
    bench.cache.observe();
    assert_eq!(bench.metrics.headroom.get().to_bits(), 0.0_f64.to_bits());
}

#[test]
fn look_up_without_a_runtime_panics_and_does_not_hang() {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let bench = runtime.block_on(async { Bench::new() });
    for _ in 0..2 {
        let look_up = std::panic::AssertUnwindSafe(|| bench.cache.get(request("ada")));
        assert!(std::panic::catch_unwind(look_up).is_err());
    }
    let after = runtime.block_on(bench.get("ada"));
    assert!(after.is_ok(), "no mint was left on the board");
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_a_mint_is_an_error_and_not_a_hang() {
    struct Panics;
    impl Mint for Panics {
        fn mint<'a>(&'a self, _: &'a MintRequest, _: &'a Arc<Demand>) -> MintFuture<'a> {
            Box::pin(async { panic!("a bug") })
        }
    }
    let metrics = Metrics::new().tokens;
    let settings = cache::Settings { max_entries: 10, max_bytes: 1 << 20 };
    let cache = TokenCache::new(Arc::new(Panics), &settings, metrics);
    for _ in 0..2 {
        let result = cache.get(request("ada")).within(HOUR).await.expect("the mint has ended");
        assert!(matches!(result, Err(MintError::Panicked)));
    }
}

#[tokio::test(start_paused = true)]
async fn transient_errors_are_tried_three_times_and_others_once() {
    for (error, calls) in
        [(unavailable(), 3), (MintError::Timeout, 3), (refused(), 1), (MintError::Mismatch, 1)]
    {
        let double = Double::default();
        double.otherwise(Some(error.clone()));
        let result = resilient(&double, 1).mint(&request("ada"), &Demand::urgent()).await;
        assert!(result.is_err());
        assert_eq!(double.calls(), calls, "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_second_attempt_that_succeeds_is_a_success() {
    let double = Double::default();
    double.then(Err(unavailable()));
    assert!(resilient(&double, 1).mint(&request("ada"), &Demand::urgent()).await.is_ok());
    assert_eq!(double.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn retry_after_is_waited_for_unless_it_is_past_the_deadline() {
    let double = Double::default();
    let start = Instant::now();
    double.then(Err(MintError::RateLimited { retry_after: Some(Duration::from_secs(5)) }));
    assert!(resilient(&double, 1).mint(&request("ada"), &Demand::urgent()).await.is_ok());
    assert_eq!(start.elapsed().as_secs(), 5);

    let double = Double::default();
    let start = Instant::now();
    double.then(Err(MintError::RateLimited { retry_after: Some(Duration::from_secs(60)) }));
    assert!(resilient(&double, 1).mint(&request("ada"), &Demand::urgent()).await.is_err());
    assert_eq!((start.elapsed().as_secs(), double.calls()), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn no_mint_outlives_its_deadline() {
    let double = Double::default();
    double.latency(HOUR);
    let start = Instant::now();
    let result = resilient(&double, 1).mint(&request("ada"), &Demand::urgent()).await;
    assert!(matches!(result, Err(MintError::Timeout)));
    // Three calls of 3 s each; the last began before the deadline of 8 s.
    assert!(start.elapsed() <= Duration::from_secs(11), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn unasked_mints_leave_the_queue_after_the_deadline() {
    let double = Double::default();
    double.latency(Duration::from_secs(1));
    let mint = Arc::new(resilient(&double, 4));
    let mints: Vec<_> = (0..100)
        .map(|n| {
            let mint = Arc::clone(&mint);
            tokio::spawn(
                async move { mint.mint(&request(&n.to_string()), &Demand::urgent()).await },
            )
        })
        .collect();
    let mut minted = 0;
    for mint in mints {
        let result = mint.await.expect("no panic");
        assert!(matches!(result, Ok(_) | Err(MintError::Queued)), "{result:?}");
        minted += usize::from(result.is_ok());
    }
    assert_eq!(double.peak(), 4);
    assert!((32..=36).contains(&minted), "4 a second for 8 s, and {minted} were minted");
}

#[tokio::test(start_paused = true)]
async fn t48_dead_credentials_cost_few_calls_for_any_number_of_users() {
    let double = Double::default();
    double.otherwise(Some(refused()));
    let settings = cache::Settings { max_entries: 100_000, max_bytes: 1 << 30 };
    let mint = Arc::new(resilient(&double, 16));
    let cache = TokenCache::new(mint, &settings, Metrics::new().tokens);
    let (start, mut n) = (Instant::now(), 0);
    while start.elapsed() < Duration::from_secs(600) {
        for _ in 0..100 {
            n += 1;
            let result = cache.get(request(&format!("user-{}", n % 5003))).within(HOUR).await;
            assert!(result.expect("the mint has ended").is_err());
        }
        advance(Duration::from_secs(1)).await;
    }
    let calls = double.calls();
    assert!((20..50).contains(&calls), "{calls} calls in ten minutes");
}

#[tokio::test(start_paused = true)]
async fn users_get_tokens_within_half_a_minute_after_an_outage() {
    let double = Double::default();
    double.otherwise(Some(unavailable()));
    let settings = cache::Settings { max_entries: 1000, max_bytes: 1 << 30 };
    let mint = Arc::new(resilient(&double, 16));
    let cache = TokenCache::new(mint, &settings, Metrics::new().tokens);
    let outage = Instant::now();
    while outage.elapsed() < HOUR {
        let lookup = cache.get(request("ada")).within(HOUR).await.expect("the mint has ended");
        assert!(lookup.is_err());
        advance(Duration::from_secs(1)).await;
    }
    double.otherwise(None);
    let back = Instant::now();
    while cache.get(request("ada")).within(HOUR).await.expect("the mint has ended").is_err() {
        advance(Duration::from_millis(100)).await;
    }
    assert!(back.elapsed() <= Duration::from_secs(31), "{:?}", back.elapsed());
}

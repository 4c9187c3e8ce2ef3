//! The simulation next to the product's own cache.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use ground::metrics::Metrics;
use token::cache::{self, TokenCache};
use token::velt::DOCUMENTED_LIFE;
use token::{Demand, Mint, MintFuture, MintRequest, Minted, TokenValue};
use tokio::time::{Instant, sleep};

use super::model::cluster::{Cluster, MINT_LATENCY};
use super::model::lives::{Lives, plan, request};
use super::model::traffic::Request;
use super::model::{BOUNDS, DAY, ENTRY_OVERHEAD, MINUTE, SEED, TOKEN_BYTES, User, entries_within};
use super::{ALONE, every, no_census, size};
use crate::support::double::{Double, HOUR};

/// A mint that answers at once, with a token of the simulated length.
struct Instantly;

impl Mint for Instantly {
    fn mint<'a>(&'a self, _: &'a MintRequest, _: &'a Arc<Demand>) -> MintFuture<'a> {
        let value = TokenValue::parse(&"x".repeat(TOKEN_BYTES)).expect("visible ASCII");
        Box::pin(async move { Ok(Minted::now(value, DOCUMENTED_LIFE)) })
    }
}

/// Fills a cache within `settings` by `users`. Returns the entries it counts, and their bytes.
async fn filled(settings: &cache::Settings, users: User) -> (i64, i64) {
    let metrics = Metrics::new().tokens;
    let cache = TokenCache::new(Arc::new(Instantly), settings, metrics.clone());
    let plan = plan();
    for user in 0..users {
        let result = cache.get(request(&plan, user)).within(HOUR).await.expect("at once");
        result.expect("a token");
    }
    cache.observe();
    (metrics.cached.get(), metrics.cached_bytes.get())
}

#[tokio::test(start_paused = true)]
async fn simulated_entries_are_as_large_and_as_many_as_the_caches() {
    let entry = i64::try_from(TOKEN_BYTES + ENTRY_OVERHEAD).expect("small");
    assert_eq!(filled(&BOUNDS, 100).await, (100, 100 * entry));
    // Once the bytes and once the entries are the bound.
    for (max_entries, max_bytes) in [(1_000, 200_000), (150, 10 << 20)] {
        let settings = cache::Settings { max_entries, max_bytes };
        let (held, _) = filled(&settings, 600).await;
        assert_eq!(usize::try_from(held).ok(), Some(entries_within(&settings)), "{settings:?}");
    }
    assert_eq!(entries_within(&BOUNDS), 100_000);
}

#[test]
fn simulated_bounds_are_the_defaults() {
    let toml = fs::read_to_string("sidecar.toml").expect("sidecar.toml");
    for line in [
        format!("max_entries = {}", BOUNDS.max_entries),
        format!("max_bytes = \"{}MiB\"", BOUNDS.max_bytes >> 20),
    ] {
        assert!(toml.contains(&line), "no {line}");
    }
}

#[tokio::test(start_paused = true)]
async fn simulated_replica_mints_when_the_cache_does() {
    const PAUSE: u32 = 10 * MINUTE;
    const USERS: User = 5;
    let double = Double::default();
    double.latency(Duration::from_millis(MINT_LATENCY.into()));
    let cache = TokenCache::new(Arc::new(double.clone()), &BOUNDS, Metrics::new().tokens);
    let lives = Lives::of(USERS);
    let mut cluster = Cluster::new(size(1, USERS), ALONE, &lives, no_census(), SEED);
    let (plan, start) = (plan(), Instant::now());
    for at in every(PAUSE, 12 * DAY) {
        for user in 0..USERS {
            cluster.ask(Request { at, user, begins_session: false });
            let _is_pending = cache.get(request(&plan, user));
        }
        sleep(Duration::from_millis(PAUSE.into())).await;
    }
    let came = double.came().into_iter().map(|came| {
        let minutes = (came - start).as_secs() / 60;
        usize::try_from(minutes).expect("12 days")
    });
    let mut came: Vec<_> = came.collect();
    came.sort_unstable();
    let figures = cluster.end(13 * DAY);
    let simulated: Vec<_> = figures.tally.minutes_of_mints().collect();
    assert_eq!(simulated, came);
    assert!(came.len() > 5 * 7, "{} mints in 12 days", came.len());
}

//! Time of a look-up in the token cache, and memory of a cached user.
//!
//! `Mint` is an in-memory double that answers at once, so that only the cache is measured.

use std::cell::RefCell;
use std::future::ready;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use ground::metrics::Metrics;
use mimalloc::MiMalloc;
use token::cache::{Lookup, Settings, TokenCache};
use token::velt::Api;
use token::{
    Demand, Details, Issuer, Mint, MintFuture, MintPlan, MintRequest, Minted, Token, TokenValue,
};
use tokio::runtime::{Builder, Runtime};

/// Users of a large installation: their entries do not fit a processor's caches.
const MANY: u64 = 100_000;

/// Look-ups of one user at once: a page that sends all its requests together, many times over.
const BURST: usize = 1_000;

/// Bytes of a token: the length of Velt's tokens with a few resources in them.
const TOKEN_BYTES: usize = 900;

/// Shortest time of each bench. divan's default end, 100 samples, comes too soon on a busy machine.
const MIN_TIME: Duration = Duration::from_millis(500);

const PATIENCE: Duration = Duration::from_secs(60);

/// The allocator of the sidecar.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() {
    // Runs first, since later the allocator would serve the cache from memory that the other benches have
    // freed.
    if std::env::args().any(|argument| argument == "--bench") {
        report_memory();
    }
    divan::Divan::default().min_time(MIN_TIME).config_with_args().main();
}

/// Look-ups of one hot user. Two threads read and count in the same place.
#[divan::bench(threads = [1, 2], sample_size = 100)]
fn hit(bencher: Bencher<'_, '_>) {
    let (_runtime, cache) = filled(1);
    bencher.with_inputs(|| request(0)).bench_values(|request| write(cache.get(request)));
}

/// Look-ups among 100,000 users, all equally likely.
#[divan::bench(threads = [1, 2], sample_size = 100)]
fn hit_among_many(bencher: Bencher<'_, '_>) {
    let (_runtime, cache) = filled(MANY);
    let next = AtomicU64::new(0);
    bencher
        .with_inputs(|| {
            // A step that is coprime to the number of users visits all users, far from each other.
            request(next.fetch_add(61_803, Ordering::Relaxed) % MANY)
        })
        .bench_values(|request| write(cache.get(request)));
}

/// Writes the token into the head of a response, as each hit does, and so reads the bytes that the look-up
/// has left cold.
fn write(lookup: Lookup) {
    thread_local! {
        static HEAD: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    }
    let Lookup::Ready(Ok(token)) = lookup else { panic!("the cache was filled") };
    let value = token.value().header();
    HEAD.with_borrow_mut(|head| {
        head.clear();
        head.extend_from_slice(value.as_bytes());
        black_box(head.as_slice());
    });
}

/// Miss of a cold user: the look-up, the task, the mint, the store.
#[divan::bench(sample_size = 100)]
fn miss(bencher: Bencher<'_, '_>) {
    let (runtime, cache) = filled(0);
    let next = AtomicU64::new(0);
    bencher
        .with_inputs(|| request(next.fetch_add(1, Ordering::Relaxed)))
        .bench_local_values(|request| runtime.block_on(async { token(cache.get(request)).await }));
}

/// Miss in a full cache, where each new user evicts an old one.
#[divan::bench(sample_size = 100)]
fn miss_past_capacity(bencher: Bencher<'_, '_>) {
    const CAPACITY: u64 = 1_000;
    let runtime = runtime();
    let (cache, _) = cache(&Settings { max_entries: CAPACITY, max_bytes: 1 << 30 });
    runtime.block_on(fill(&cache, 0..2 * CAPACITY));
    let next = AtomicU64::new(2 * CAPACITY);
    bencher
        .with_inputs(|| request(next.fetch_add(1, Ordering::Relaxed)))
        .bench_local_values(|request| runtime.block_on(async { token(cache.get(request)).await }));
}

/// Makes 1,000 look-ups of one cold user before the user's mint has ended; checks that there was one mint.
#[divan::bench(sample_size = 1, counters = [ItemsCount::new(BURST)])]
fn burst_on_a_cold_user(bencher: Bencher<'_, '_>) {
    let runtime = runtime();
    let (cache, mints) = cache(&unbounded());
    let next = AtomicU64::new(0);
    bencher
        .with_inputs(|| vec![request(next.fetch_add(1, Ordering::Relaxed)); BURST])
        .bench_local_values(|burst| {
            let before = mints.load(Ordering::Relaxed);
            runtime.block_on(async {
                let lookups: Vec<Lookup> =
                    burst.into_iter().map(|request| cache.get(request)).collect();
                for lookup in lookups {
                    black_box(token(lookup).await);
                }
            });
            assert_eq!(mints.load(Ordering::Relaxed) - before, 1);
        });
}

/// Prints resident bytes per cached user. The bytes beyond the token are fewer than `ENTRY_OVERHEAD` of
/// `token::cache::slot`; ids of this length take no memory of their own.
fn report_memory() {
    let runtime = runtime();
    let (cache, _) = cache(&unbounded());
    // Memory that the first uses allocate once does not belong to a user.
    runtime.block_on(fill(&cache, MANY..MANY + 100));
    let per_user = |before: u64| (resident_bytes() - before) / MANY;

    let before = resident_bytes();
    runtime.block_on(fill(&cache, 0..MANY));
    cache.observe();
    let bytes = per_user(before);
    let user_bytes = request(0).user.len();
    let overhead = bytes - TOKEN_BYTES as u64;
    println!(
        "resident memory of {MANY} cached users: {bytes} bytes each = {TOKEN_BYTES} of token \
         + {overhead} of overhead, a user id of {user_bytes} included\n"
    );
}

fn resident_bytes() -> u64 {
    // `statm` counts pages, and there is no safe way to ask for the page size.
    let status = std::fs::read_to_string("/proc/self/status").expect("this is Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a running one");
    let kib = line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number of KiB");
    kib * 1024
}

/// Returns a cache with fresh tokens for this many users, and the runtime on which the mints ran.
fn filled(users: u64) -> (Runtime, TokenCache) {
    let runtime = runtime();
    let (cache, _) = cache(&unbounded());
    runtime.block_on(fill(&cache, 0..users));
    (runtime, cache)
}

async fn fill(cache: &TokenCache, users: std::ops::Range<u64>) {
    for user in users {
        token(cache.get(request(user))).await;
    }
}

fn cache(settings: &Settings) -> (TokenCache, Arc<AtomicU64>) {
    let mints = Arc::new(AtomicU64::new(0));
    let double = InstantMint { mints: Arc::clone(&mints) };
    (TokenCache::new(Arc::new(double), settings, Metrics::new().tokens), mints)
}

fn unbounded() -> Settings {
    Settings { max_entries: 1 << 32, max_bytes: 1 << 40 }
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime")
}

async fn token(lookup: Lookup) -> Token {
    lookup.within(PATIENCE).await.expect("in time").expect("a token")
}

fn request(user: u64) -> MintRequest {
    // Shared by all requests, as in the sidecar.
    static PLAN: LazyLock<MintPlan> = LazyLock::new(|| {
        let issuer = Issuer {
            api: Api::V2,
            endpoint: Arc::from("https://api.velt.dev/v2/auth/generate_token"),
            credentials_generation: 0,
            organization: None,
            resources: Arc::from([]),
        };
        MintPlan::new(issuer, false)
    });
    let user = format!("user-{user:07}@example.com");
    PLAN.request(user.as_str().into(), Details::default()).expect("no organization is needed")
}

/// A [`Mint`] that answers at once, and counts.
struct InstantMint {
    mints: Arc<AtomicU64>,
}

impl Mint for InstantMint {
    fn mint<'a>(&'a self, _: &'a MintRequest, _: &'a Arc<Demand>) -> MintFuture<'a> {
        self.mints.fetch_add(1, Ordering::Relaxed);
        let value = TokenValue::parse(&"x".repeat(TOKEN_BYTES)).expect("visible ASCII");
        Box::pin(ready(Ok(Minted::now(value, Duration::from_secs(48 * 3600)))))
    }
}

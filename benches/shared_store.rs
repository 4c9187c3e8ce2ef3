//! Time until a user without a token in memory has one: from the shared store, and by a mint that takes 200 ms.
//!
//! Starts `redis-server` on a free port of loopback. The mint is a double that sleeps; the store is real.

use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use ground::metrics::Metrics;
use secrecy::SecretString;
use shared::store::{self, Address, Place, State};
use shared::{Settings, Shared};
use token::cache::{self, TokenCache};
use token::velt::Api;
use token::{Demand, Details, Issuer, Mint, MintFuture, MintPlan, MintRequest, Minted, TokenValue};
use tokio::runtime::Builder;
use tokio::time::{Instant, sleep};

/// Time of a mint.
const MINT: Duration = Duration::from_millis(200);

/// Users whose token is in the store, and rounds in which a new replica asks for all of them.
const USERS: u32 = 300;
const ROUNDS: u32 = 9;

/// Mints in each round.
const MINTS: u32 = 5;

const PATIENCE: Duration = Duration::from_secs(60);

/// Bytes of a token: the length of Velt's tokens with a few resources in them.
const TOKEN_BYTES: usize = 900;

struct Sleeping;

impl Mint for Sleeping {
    fn mint<'a>(&'a self, _: &'a MintRequest, _: &'a Arc<Demand>) -> MintFuture<'a> {
        Box::pin(async {
            sleep(MINT).await;
            let value = TokenValue::parse(&"x".repeat(TOKEN_BYTES)).expect("a token");
            Ok(Minted::now(value, Duration::from_secs(48 * 3600)))
        })
    }
}

/// A running server. Dropping it ends the server.
struct Redis(Child, u16);

impl Redis {
    fn start() -> Self {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = free.local_addr().expect("it is bound").port();
        drop(free);
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
        command.args(["--port", &port.to_string(), "--dir", "/tmp"]).stdout(Stdio::null());
        Self(
            command.spawn().expect("redis-server is installed: apt-get install redis-server"),
            port,
        )
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // A server that has ended by itself needs no end.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn main() {
    // Tests start each bench too, without this word.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(measure());
}

async fn measure() {
    let redis = Redis::start();
    let (metrics, shared) = connect(redis.1).await;
    let cache = |mint| {
        let settings = cache::Settings { max_entries: 100_000, max_bytes: 256 << 20 };
        TokenCache::new(mint, &settings, metrics.tokens.clone())
    };
    let (key, token) = (SecretString::from("key"), SecretString::from("token"));
    let replica = || cache(shared.around(Arc::new(Sleeping), &key, &token));
    let plan = plan();
    let request = |user: u32| {
        plan.request(format!("user-{user}").as_str().into(), Details::default()).expect("one")
    };
    let first = replica();
    let minting: Vec<_> = (0..USERS).map(|user| first.get(request(user))).collect();
    for lookup in minting {
        lookup.within(PATIENCE).await.expect("in time").expect("a token");
    }
    // The store has the tokens when the writes behind the mints have ended.
    sleep(Duration::from_secs(1)).await;
    let (mut stored, mut minted, mut held) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let (newcomer, alone) = (replica(), cache(Arc::new(Sleeping) as Arc<dyn Mint>));
        for user in 0..USERS {
            stored.push(time_of(&newcomer, request(user)).await);
            held.push(time_of(&newcomer, request(user)).await);
            if user % (USERS / MINTS) == round % (USERS / MINTS) {
                minted.push(time_of(&alone, request(user)).await);
            }
        }
    }
    let (stored, minted, held) = (median(stored), median(minted), median(held));
    let times = minted.as_secs_f64() / stored.as_secs_f64();
    println!("token in memory       {held:>12.1?}");
    println!("token in the store    {stored:>12.1?}");
    println!(
        "mint of {MINT:?}         {minted:>12.1?}   {times:.0} times as long as from the store"
    );
}

async fn connect(port: u16) -> (Metrics, Shared) {
    let metrics = Metrics::new();
    let settings = Settings {
        store: store::Settings {
            place: Place::Server(Address::Tcp { host: "127.0.0.1".into(), port }),
            tls: None,
            user: None,
            password: None,
            sentinel_user: None,
            sentinel_password: None,
            database: 0,
            patience: Duration::from_millis(50),
        },
        prefix: "bench".into(),
        seal_keys: SecretString::from("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="),
        longest_cut_off: None,
        max_entries: 100_000,
    };
    let shared = Shared::start(settings, metrics.shared.clone(), metrics.store.clone());
    let shared = shared.expect("settings that fit");
    let deadline = Instant::now() + PATIENCE;
    while shared.report().store != State::Connected {
        assert!(Instant::now() < deadline, "Redis does not answer");
        sleep(Duration::from_millis(10)).await;
    }
    (metrics, shared)
}

fn plan() -> MintPlan {
    let issuer = Issuer {
        api: Api::V2,
        endpoint: "https://velt".into(),
        credentials_generation: 0,
        organization: Some("acme".into()),
        resources: [].into(),
    };
    MintPlan::new(issuer, true)
}

async fn time_of(cache: &TokenCache, request: MintRequest) -> Duration {
    let begun = Instant::now();
    cache.get(request).within(PATIENCE).await.expect("in time").expect("a token");
    begun.elapsed()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

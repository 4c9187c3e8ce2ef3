//! The second level of the token cache: tokens that the replicas of a sidecar share in a store (Redis 6.2 or later,
//! or Valkey), sealed, so that the store learns neither token nor user.
//!
//! - `mint` is what the cache asks on a miss or for a refresh: it reads the store, waits for another replica that mints,
//!   or mints under a lease and shares the token. A hit in memory never comes here.
//! - `follow` hears of forgets and of replaced tokens, and notices when the store has lost something.
//! - `rewrite` shares later what the store did not take at once, and before the end.
//! - `protocol` has the decisions, as pure functions; `seal` the names and seals.
//!
//! The store is an optimization. Each call to it has a time limit, and each fault of it means that this replica goes
//! on as if there were no store: from its memory, and by minting. One mint spends at most [`store::Settings::patience`]
//! waiting for a store that does not answer; a request that finds its token in memory spends none.

#![forbid(unsafe_code)]

pub mod entry;
mod follow;
mod forget;
mod heard;
mod lease;
mod look;
mod mint;
mod place;
pub mod protocol;
mod rehearsal;
mod rewrite;
pub mod seal;
pub mod store;
mod value;

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::{ArcSwap, ArcSwapOption};
use moka::policy::EvictionPolicy;
use secrecy::{ExposeSecret as _, SecretString};

use self::follow::Hearing;
use self::heard::{FORGET_LIFE, Heard};
use self::mint::{Credentials, SharedMint};
use self::place::StoreKeys;
use self::protocol::millis;
pub use self::rehearsal::rehearse;
use self::rewrite::Unwritten;
use self::seal::{KeyError, Name, SealKeys};
use self::store::{StartError, State, Store};
use ground::alarm::Alarm;
use ground::metrics::{SharedMetrics, StoreMetrics};
use token::announce::Event;
use token::cache::TokenCache;
use token::{Mint, MintRequest};

/// Time after which a name of a request that is not asked for is forgotten: just over the longest life of a token.
const NAMES_KEPT: Duration = Duration::from_secs(49 * 3600);

/// Settings of the second level.
#[derive(Clone, Debug)]
pub struct Settings {
    pub store: store::Settings,
    /// Text before each key of the store, so that several apps can use one store.
    pub prefix: String,
    /// Content of the key file: see [`SealKeys::parse`].
    pub seal_keys: SecretString,
    /// Time for which this replica serves tokens from memory while it can't hear of forgets; `None` is no limit.
    pub longest_cut_off: Option<Duration>,
    /// Names kept for tokens in memory: as many as the cache holds.
    pub max_entries: u64,
}

/// Applies events of other replicas in this one. Resolves when their tokens are forgotten.
pub type Apply = Arc<dyn Fn(Vec<Event>) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// The second level. Clones share it.
#[derive(Clone)]
pub struct Shared(Arc<Inner>);

struct Inner {
    store: Store,
    keys: ArcSwap<SealKeys>,
    /// Credentials in force; `None` until the first mint was wrapped.
    credentials: ArcSwapOption<Credentials>,
    store_keys: StoreKeys,
    patience: Duration,
    longest_cut_off: Option<Duration>,
    heard: Heard,
    hearing: Hearing,
    /// Requests by the names of their tokens, to know an event of a replaced token.
    index: moka::sync::Cache<Name, MintRequest>,
    unwritten: Unwritten,
    metrics: SharedMetrics,
    /// Log lines about events that can't be read.
    alarm: Alarm,
}

/// State of the second level, for reports.
#[derive(Clone, Copy, Debug)]
pub struct Report {
    pub store: State,
    /// Time since which this replica can't hear of forgets.
    pub cut_off: Option<Duration>,
    /// Tokens that the store has yet to take.
    pub unwritten: usize,
}

impl Shared {
    /// Starts to connect to the store, and does not wait for it.
    ///
    /// # Errors
    ///
    /// See [`StartError`].
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime, or if `settings.seal_keys` were not checked by [`SealKeys::parse`].
    pub fn start(
        settings: Settings,
        metrics: SharedMetrics,
        store: StoreMetrics,
    ) -> Result<Self, StartError> {
        let keys = parsed(&settings).expect("checked when the configuration was read");
        let patience = settings.store.patience;
        let index = moka::sync::Cache::builder()
            .max_capacity(settings.max_entries)
            .eviction_policy(EvictionPolicy::lru())
            .time_to_idle(NAMES_KEPT)
            .build();
        let inner = Inner {
            store: Store::start(settings.store, store)?,
            keys: ArcSwap::from_pointee(keys),
            credentials: ArcSwapOption::empty(),
            store_keys: StoreKeys::new(settings.prefix),
            patience,
            longest_cut_off: settings.longest_cut_off,
            heard: Heard::default(),
            hearing: Hearing::default(),
            index,
            unwritten: Unwritten::default(),
            metrics,
            alarm: Alarm::new(),
        };
        Ok(Self(Arc::new(inner)))
    }

    /// Puts other keys, credentials or roots into force.
    ///
    /// # Errors
    ///
    /// See [`StartError`]; then the former settings stay in force.
    ///
    /// # Panics
    ///
    /// Panics like [`Self::start`].
    pub fn replace(&self, settings: &Settings) -> Result<(), StartError> {
        let keys = parsed(settings).expect("checked when the configuration was read");
        self.0.store.replace(settings.store.clone())?;
        self.0.keys.store(Arc::new(keys));
        Ok(())
    }

    /// Makes a mint that shares what `mint` mints with these credentials.
    pub fn around(
        &self,
        mint: Arc<dyn Mint>,
        api_key: &SecretString,
        auth_token: &SecretString,
    ) -> Arc<dyn Mint> {
        let (api_key, auth_token) = (api_key.expose_secret(), auth_token.expose_secret());
        let fingerprint = self.0.keys().fingerprint(auth_token.as_bytes());
        let credentials = Arc::new(Credentials { api_key: api_key.to_owned(), fingerprint });
        self.0.credentials.store(Some(Arc::clone(&credentials)));
        Arc::new(SharedMint::new(mint, Arc::clone(&self.0), credentials))
    }

    /// Hears of forgets and replaced tokens, and shares what could not be shared at once, for as long as the process
    /// runs.
    pub async fn run(self, tokens: TokenCache, apply: Apply) {
        tokio::join!(
            follow::follow(&self.0, &tokens, &apply),
            rewrite::rewrite(&self.0, &tokens, &apply)
        );
    }

    /// Shares what could not be shared so far, for `within` at most: before the end of this replica.
    pub async fn finish(&self, tokens: &TokenCache, apply: &Apply, within: Duration) {
        // What is not shared by then is minted anew by another replica.
        let _ = tokio::time::timeout(within, rewrite::rewrite_all(&self.0, tokens, apply)).await;
    }

    /// Tells the state, for reports.
    pub fn report(&self) -> Report {
        let Inner { store, hearing, unwritten, .. } = &*self.0;
        Report { store: store.state(), cut_off: hearing.cut_off(), unwritten: unwritten.count() }
    }

    /// Returns the store, for `doctor`.
    pub fn store(&self) -> &Store {
        &self.0.store
    }
}

fn parsed(settings: &Settings) -> Result<SealKeys, KeyError> {
    SealKeys::parse(settings.seal_keys.expose_secret())
}

impl Inner {
    fn keys(&self) -> Arc<SealKeys> {
        self.keys.load_full()
    }
}

/// Returns a time as milliseconds since 1970.
fn since_1970(time: SystemTime) -> u64 {
    millis(time.duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// Returns the milliseconds since 1970.
fn now() -> u64 {
    since_1970(SystemTime::now())
}

/// Returns a random number.
fn nonce() -> protocol::Nonce {
    let mut nonce = [0; 16];
    aws_lc_rs::rand::fill(&mut nonce).expect("the system has random numbers");
    nonce
}

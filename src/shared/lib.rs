//! The second level of the token cache: tokens that the replicas of a sidecar share in a store (Redis 6.2 or later,
//! or Valkey). Tokens are sealed, so that the store learns neither token nor user.
//!
//! - `mint` is called by the cache on a miss or for a refresh. It takes the token from the store, waits for another
//!   replica that mints, or mints under a lease and shares the token. A hit in memory calls nothing of this crate.
//! - `follow` hears of forgets and of replaced tokens, and notices when the store has lost data. `hearing` knows whether
//!   this replica hears of forgets.
//! - `rewrite` writes tokens and forgets that the store did not take at once: later, and before this replica ends.
//! - `protocol` has the decisions, as pure functions.
//! - `seal` has the names and the seals of content in the store.
//!
//! A forget is an event after which no token from before it may be served: a call of `admin invalidate`, or a logout.
//! Its mark in the store, a time and a random number, tells forgets of the same subject apart.
//!
//! The store is an optimization. Each call to the store has a time limit, and after each fault of the store this
//! replica goes on as if there were no store: it serves from memory, and mints. One mint waits at most
//! [`store::Settings::patience`] for a store that does not answer; a request whose token is in memory does not wait.

#![forbid(unsafe_code)]

pub mod entry;
mod follow;
mod forget;
mod heard;
mod hearing;
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
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::{ArcSwap, ArcSwapOption};
use moka::policy::EvictionPolicy;
use secrecy::{ExposeSecret as _, SecretString};

use self::heard::{FORGET_LIFE, Heard};
use self::hearing::Hearing;
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

/// Time after which the index drops the name of a request that was not used: just over the longest life of a token.
const NAMES_KEPT: Duration = Duration::from_secs(49 * 3600);

/// Settings of the second level.
#[derive(Clone, Debug)]
pub struct Settings {
    pub store: store::Settings,
    /// Text at the beginning of each key in the store, so that several apps can use one store.
    pub prefix: String,
    /// Content of the key file: see [`SealKeys::parse`].
    pub seal_keys: SecretString,
    /// Time for which this replica serves tokens from memory while it can't hear of forgets; `None` is no limit.
    pub longest_cut_off: Option<Duration>,
    /// Most names that the index keeps: as many as the cache holds tokens.
    pub max_entries: u64,
}

/// Carries out events of other replicas on this replica. Resolves when the tokens that they name are forgotten.
pub type Apply = Arc<dyn Fn(Vec<Event>) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// The second level of the token cache. Clones share one state.
#[derive(Clone)]
pub struct Shared(Arc<Inner>);

struct Inner {
    store: Store,
    keys: ArcSwap<SealKeys>,
    /// Credentials in force; `None` before the first call of [`Shared::around`].
    credentials: ArcSwapOption<Credentials>,
    store_keys: StoreKeys,
    patience: Duration,
    longest_cut_off: Option<Duration>,
    heard: Heard,
    hearing: Hearing,
    /// Requests by the names of their tokens, to find the request when an event says that a token was replaced.
    index: moka::sync::Cache<Name, MintRequest>,
    unwritten: Unwritten,
    /// Applies forgets in this replica.
    apply: OnceLock<Apply>,
    metrics: SharedMetrics,
    /// Limit on log lines about events that can't be read.
    alarm: Alarm,
    /// Limit on log lines about data that the store has lost.
    losses: Alarm,
}

/// State of the second level, for reports.
#[derive(Clone, Copy, Debug)]
pub struct Report {
    pub store: State,
    /// Time for which this replica has not been able to hear of forgets.
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
    /// Panics outside a tokio runtime, and if [`SealKeys::parse`] refuses `settings.seal_keys`.
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
            apply: OnceLock::new(),
            metrics,
            alarm: Alarm::new(),
            losses: Alarm::new(),
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

    /// Wraps `mint`, which mints with these credentials, so that its tokens are shared.
    pub fn around(
        &self,
        mint: Arc<dyn Mint>,
        api_key: &SecretString,
        auth_token: &SecretString,
    ) -> Arc<dyn Mint> {
        let (api_key, auth_token) = (api_key.expose_secret(), auth_token.expose_secret());
        let fingerprints = self.0.keys().fingerprints(auth_token.as_bytes());
        let credentials = Arc::new(Credentials { api_key: api_key.to_owned(), fingerprints });
        self.0.credentials.store(Some(Arc::clone(&credentials)));
        Arc::new(SharedMint::new(mint, Arc::clone(&self.0), credentials))
    }

    /// Sets the function that applies forgets in this replica. The first call counts; before it, no forget is applied.
    pub fn applies_by(&self, apply: Apply) {
        let _ = self.0.apply.set(apply);
    }

    /// Hears of forgets and replaced tokens, and writes the tokens and forgets that the store did not take at once,
    /// for as long as the process runs.
    pub async fn run(self, tokens: TokenCache) {
        tokio::join!(follow::follow(&self.0, &tokens), rewrite::rewrite(&self.0, &tokens));
    }

    /// Writes the tokens and forgets that the store did not take so far, for at most `within`. Called before this
    /// replica ends.
    pub async fn finish(&self, tokens: &TokenCache, within: Duration) {
        // Another replica mints the tokens that are not shared by then.
        let _ = tokio::time::timeout(within, rewrite::rewrite_all(&self.0, tokens)).await;
    }

    /// Returns the state, for reports.
    pub fn report(&self) -> Report {
        let Inner { store, hearing, unwritten, .. } = &*self.0;
        Report { store: store.state(), cut_off: hearing.cut_off(), unwritten: unwritten.count() }
    }
}

fn parsed(settings: &Settings) -> Result<SealKeys, KeyError> {
    SealKeys::parse(settings.seal_keys.expose_secret())
}

impl Inner {
    /// Applies events in this replica. Returns when memory no longer holds their tokens.
    async fn apply(&self, events: Vec<Event>) {
        if let Some(apply) = self.apply.get() {
            apply(events).await;
        }
    }

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

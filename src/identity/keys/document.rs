//! One document of keys and its age. Every fetch is a task of its own, one at a time, so that the fetch goes
//! on when a client leaves.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use reqwest::Url;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{info, warn};

use super::fetch::{Fetch, FetchError, Fetched};
use super::set::KeySet;
use ground::metrics::{IdentityMetrics, KeyFetchResult};

/// Age at which keys are fetched again, unless `Cache-Control` of the document names a shorter one
/// (RFC 9111 section 5.2.2.1). Providers publish a new key days before they use it, but take a
/// stolen key back at once.
const FRESH: Duration = Duration::from_secs(3600);

/// Least age at which keys are fetched again, even if their publisher calls them fresh for a shorter time.
const LEAST_FRESH: Duration = Duration::from_secs(300);

/// Age up to which keys are used that can't be fetched again: a provider may be down for a night, but a key
/// that was taken back must not be believed for ever.
pub(super) const STALE: Duration = Duration::from_secs(24 * 3600);

/// Wait before the second attempt; doubles up to [`LONGEST_BACKOFF`].
const FIRST_BACKOFF: Duration = Duration::from_secs(1);

const LONGEST_BACKOFF: Duration = Duration::from_secs(60);

/// Least time between two fetches for keys that are not there: any client can write assertions that name such
/// keys.
const UNKNOWN_KEY_INTERVAL: Duration = Duration::from_secs(30);

pub(super) struct Document {
    url: Url,
    content: Content,
    fetch: Arc<dyn Fetch>,
    state: Mutex<State>,
    fetching: watch::Sender<bool>,
    jitter: RandomState,
    metrics: IdentityMetrics,
}

/// Content of a document.
pub(super) enum Content {
    /// A JWK set.
    Set,
    /// One key as PEM, with this id.
    One(String),
    /// Certificates by key id.
    Certificates,
}

struct State {
    /// Keys, and when they were fetched. The set is empty if the publisher has no such document.
    keys: Option<(Arc<KeySet>, Instant)>,
    /// Number of failed attempts in a row.
    failures: u32,
    due: Instant,
    /// Time at which an unknown key last led to a fetch.
    asked_at: Option<Instant>,
}

/// Guard of a fetch: its drop says that the fetch has ended, with or without a result.
struct Fetching(Arc<Document>);

impl Drop for Fetching {
    fn drop(&mut self) {
        self.0.fetching.send_replace(false);
    }
}

impl Document {
    pub(super) fn new(
        url: Url,
        content: Content,
        fetch: Arc<dyn Fetch>,
        metrics: IdentityMetrics,
    ) -> Arc<Self> {
        let state = State { keys: None, failures: 0, due: Instant::now(), asked_at: None };
        Arc::new(Self {
            url,
            content,
            fetch,
            state: Mutex::new(state),
            fetching: watch::Sender::new(false),
            jitter: RandomState::new(),
            metrics,
        })
    }

    /// Returns the keys and the time of their fetch, unless the keys are too old to be used.
    pub(super) fn held(&self, now: Instant) -> Option<(Arc<KeySet>, Instant)> {
        let held = self.lock().keys.clone();
        held.filter(|(_, fetched_at)| now.saturating_duration_since(*fetched_at) < STALE)
    }

    /// Returns the time of the next fetch.
    pub(super) fn due(&self) -> Instant {
        self.lock().due
    }

    /// Whether the last attempt has succeeded, and none is under way.
    pub(super) fn is_current(&self) -> bool {
        !*self.fetching.borrow() && self.lock().failures == 0
    }

    /// Waits until no fetch is under way.
    pub(super) async fn settled(&self) {
        // There is no error: this document owns the sender.
        let _ = self.fetching.subscribe().wait_for(|fetching| !fetching).await;
    }

    /// Begins a fetch if one is due, and none is under way.
    pub(super) fn refresh_if_due(self: &Arc<Self>, now: Instant) {
        if self.due() <= now {
            self.begin();
        }
    }

    /// Begins a fetch because a key is not there, at most once in [`UNKNOWN_KEY_INTERVAL`].
    pub(super) fn refresh_once(self: &Arc<Self>, now: Instant) {
        let mut state = self.lock();
        let lately = |at: Instant| now.saturating_duration_since(at) < UNKNOWN_KEY_INTERVAL;
        if state.asked_at.is_some_and(lately) || state.failures > 0 && now < state.due {
            return;
        }
        state.asked_at = Some(now);
        drop(state);
        self.begin();
    }

    fn begin(self: &Arc<Self>) {
        let is_first =
            self.fetching.send_if_modified(|fetching| !std::mem::replace(fetching, true));
        if is_first {
            // For a fetch that ends without a result: `learn` sets the time anew after every result.
            self.lock().due = Instant::now() + LONGEST_BACKOFF;
            let fetching = Fetching(Arc::clone(self));
            tokio::spawn(async move {
                let fetched = fetching.0.fetch.fetch(&fetching.0.url).await;
                fetching.0.learn(fetching.0.read(fetched), Instant::now());
            });
        }
    }

    /// Fetches the keys before a request needs them. Counts and logs no failure: the caller does.
    pub(super) async fn fetch_first(&self) -> Result<(), FetchError> {
        let keys = self.read(self.fetch.fetch(&self.url).await)?;
        self.learn(Ok(keys), Instant::now());
        Ok(())
    }

    /// Reads a document, and the time for which its publisher calls it fresh.
    fn read(&self, fetched: Result<Fetched, FetchError>) -> Result<(KeySet, Duration), FetchError> {
        let Fetched { document, max_age } = fetched?;
        let keys = match &self.content {
            Content::Set => KeySet::from_jwks(&document),
            Content::One(id) => KeySet::from_pem(id, &document),
            Content::Certificates => KeySet::from_certificates(&document),
        };
        let keys = keys.map_err(|_| FetchError::Malformed)?;
        Ok((keys, max_age.map_or(FRESH, |age| age.clamp(LEAST_FRESH, FRESH))))
    }

    fn learn(&self, keys: Result<(KeySet, Duration), FetchError>, now: Instant) {
        let mut state = self.lock();
        let (result, keys) = match keys {
            Ok(keys) => (KeyFetchResult::Fetched, Ok(keys)),
            // The publisher has no such key, which is a result and no failure.
            Err(FetchError::NotFound) if matches!(self.content, Content::One(_)) => {
                (KeyFetchResult::NotFound, Ok((KeySet::default(), FRESH)))
            }
            Err(FetchError::NotFound) => (KeyFetchResult::Status, Err(FetchError::Status)),
            Err(error) => (error.result(), Err(error)),
        };
        self.metrics.key_fetches.increment(result);
        match keys {
            Ok((keys, fresh)) => {
                if state.failures > 0 {
                    info!(url = %self.url, "the keys of signed tokens can be fetched again");
                }
                state.due = now + self.jittered(fresh);
                state.failures = 0;
                state.keys = Some((Arc::new(keys), now));
            }
            Err(error) => {
                if state.failures == 0 {
                    warn!(
                        reason = ?error,
                        url = %self.url,
                        "the keys of signed tokens could not be fetched; the keys fetched before \
                         stay in use for a day"
                    );
                }
                let backoff = FIRST_BACKOFF * (1 << state.failures.min(6));
                state.due = now + self.jittered(backoff.min(LONGEST_BACKOFF));
                state.failures = state.failures.saturating_add(1);
            }
        }
    }

    /// Returns three quarters to all of `wait`, so that sidecars that were started together do not fetch
    /// together.
    fn jittered(&self, wait: Duration) -> Duration {
        let noise = self.jitter.hash_one(Instant::now()) % 1024;
        wait.mul_f64(0.75 + 0.25 * noise as f64 / 1024.0)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

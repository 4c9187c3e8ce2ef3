//! One document of keys and its age. Every fetch is a task of its own, one at a time, so that a
//! client who leaves costs nobody anything.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use reqwest::Url;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{info, warn};

use super::fetch::{Fetch, FetchError};
use super::set::KeySet;
use crate::metrics::{IdentityMetrics, KeyFetchResult};

/// When keys are fetched again. Providers publish a new key days before they use it, but take a
/// stolen one back at once.
const FRESH: Duration = Duration::from_secs(3600);

/// How long keys are used that can't be fetched again: a provider may be down for a night, but a
/// key that was taken back must not be believed for ever.
pub(super) const STALE: Duration = Duration::from_secs(24 * 3600);

/// Wait before the second attempt; doubles up to [`LONGEST_BACKOFF`].
const FIRST_BACKOFF: Duration = Duration::from_secs(1);

const LONGEST_BACKOFF: Duration = Duration::from_secs(60);

/// At most one fetch in so much time because an assertion names a key that is not there: anybody
/// can write such assertions.
const UNKNOWN_KEY_INTERVAL: Duration = Duration::from_secs(30);

pub(super) struct Document {
    url: Url,
    /// Of the one key in it, if it is no set.
    id: Option<String>,
    fetch: Arc<dyn Fetch>,
    state: Mutex<State>,
    fetching: watch::Sender<bool>,
    jitter: RandomState,
    metrics: IdentityMetrics,
}

struct State {
    /// Empty where there is no such document.
    keys: Option<(Arc<KeySet>, Instant)>,
    /// How many attempts in a row have failed.
    failures: u32,
    due: Instant,
    /// When an unknown key last led to a fetch.
    asked_at: Option<Instant>,
}

/// Says that a fetch has ended, however it did.
struct Fetching(Arc<Document>);

impl Drop for Fetching {
    fn drop(&mut self) {
        self.0.fetching.send_replace(false);
    }
}

impl Document {
    pub(super) fn new(
        url: Url,
        id: Option<String>,
        fetch: Arc<dyn Fetch>,
        metrics: IdentityMetrics,
    ) -> Arc<Self> {
        let state = State { keys: None, failures: 0, due: Instant::now(), asked_at: None };
        Arc::new(Self {
            url,
            id,
            fetch,
            state: Mutex::new(state),
            fetching: watch::Sender::new(false),
            jitter: RandomState::new(),
            metrics,
        })
    }

    /// The keys and when they came, unless they are too old to be used.
    pub(super) fn held(&self, now: Instant) -> Option<(Arc<KeySet>, Instant)> {
        let held = self.lock().keys.clone();
        held.filter(|(_, fetched_at)| now.saturating_duration_since(*fetched_at) < STALE)
    }

    /// When to fetch next.
    pub(super) fn due(&self) -> Instant {
        self.lock().due
    }

    /// Whether the last attempt has succeeded, and none is under way.
    pub(super) fn is_current(&self) -> bool {
        !*self.fetching.borrow() && self.lock().failures == 0
    }

    /// Waits until no fetch is under way.
    pub(super) async fn settled(&self) {
        // The sender is this document's own.
        let _ = self.fetching.subscribe().wait_for(|fetching| !fetching).await;
    }

    /// Begins to fetch if it is time, and none is under way.
    pub(super) fn refresh_if_due(self: &Arc<Self>, now: Instant) {
        if self.due() <= now {
            self.begin();
        }
    }

    /// Begins to fetch because a key is not there, though not after every such request.
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
            // Moved again by whatever the attempt yields; this is for one that yields nothing.
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

    fn read(&self, fetched: Result<Vec<u8>, FetchError>) -> Result<KeySet, FetchError> {
        let document = fetched?;
        let keys = match &self.id {
            Some(id) => KeySet::from_pem(id, &document),
            None => KeySet::from_jwks(&document),
        };
        keys.map_err(|_| FetchError::Malformed)
    }

    fn learn(&self, keys: Result<KeySet, FetchError>, now: Instant) {
        let mut state = self.lock();
        let (result, keys) = match keys {
            Ok(keys) => (KeyFetchResult::Fetched, Ok(keys)),
            // That one key is not there, which is as good as knowing it.
            Err(FetchError::NotFound) if self.id.is_some() => {
                (KeyFetchResult::NotFound, Ok(KeySet::default()))
            }
            Err(FetchError::NotFound) => (KeyFetchResult::Status, Err(FetchError::Status)),
            Err(error) => (error.result(), Err(error)),
        };
        self.metrics.key_fetches.increment(result);
        match keys {
            Ok(keys) => {
                if state.failures > 0 {
                    info!("the keys of identity assertions can be fetched again");
                }
                state.due = now + self.jittered(FRESH);
                state.failures = 0;
                state.keys = Some((Arc::new(keys), now));
            }
            Err(error) => {
                if state.failures == 0 {
                    warn!(
                        reason = ?error,
                        "the keys of identity assertions could not be fetched; those at hand \
                         stay in use for a day"
                    );
                }
                let backoff = FIRST_BACKOFF * (1 << state.failures.min(6));
                state.due = now + self.jittered(backoff.min(LONGEST_BACKOFF));
                state.failures = state.failures.saturating_add(1);
            }
        }
    }

    /// Three quarters to all of `wait`, so that sidecars that were started together do not ask
    /// together.
    fn jittered(&self, wait: Duration) -> Duration {
        let noise = self.jitter.hash_one(Instant::now()) % 1024;
        wait.mul_f64(0.75 + 0.25 * noise as f64 / 1024.0)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

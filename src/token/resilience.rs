//! One mint, made of calls to Velt: its turn among all calls, a time limit for each call, and retries.
//!
//! Wraps any [`Mint`], so that all of it is tested in virtual time without a socket.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use crate::admission::{Admission, Change, Patience, Permit, Verdict};
use crate::demand::{Demand, Stage};
pub use crate::limit::Bounds;
use crate::refusals::{Party, Suspended};
use crate::{Mint, MintError, MintFuture, MintRequest, Minted};
use ground::logging::Chain;
use ground::metrics::TokenMetrics;

/// Calls per mint, the first call included. Calls that met the rate limit or a dead connection are not
/// counted.
const ATTEMPTS: u32 = 3;

/// Wait before the second attempt; doubles before the third. Velt's advice starts at 1 s, but a page waits
/// for the token, and the jitter spreads the added calls.
const FIRST_BACKOFF: Duration = Duration::from_millis(200);

/// Time limits of a mint, and bounds of calls to Velt at once.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Time limit of one call, from its begin. A call that was sent is never cut off sooner.
    pub attempt_timeout: Duration,
    /// Time limit of one mint, from its first turn: no call of it begins later. Time in the queue is
    /// not counted.
    pub deadline: Duration,
    /// Calls under way at the same time, over all users.
    pub concurrency: Bounds,
}

/// A [`Mint`] that retries failed calls of the inner one, and makes few calls during an outage.
pub struct Resilient<M> {
    inner: M,
    settings: Settings,
    admission: Arc<Admission>,
    jitter: RandomState,
    /// Waits so far, which make each jitter differ.
    waits: AtomicU64,
    metrics: TokenMetrics,
}

impl<M: Mint> Resilient<M> {
    /// Wraps `inner`.
    pub fn new(inner: M, settings: Settings, metrics: TokenMetrics) -> Self {
        let admission = Arc::new(Admission::new(settings.deadline, settings.concurrency));
        let (jitter, waits) = (RandomState::new(), AtomicU64::new(0));
        Self { inner, settings, admission, jitter, waits, metrics }
    }

    /// State of calls to Velt, for reports and gauges.
    pub fn admission(&self) -> Arc<Admission> {
        Arc::clone(&self.admission)
    }

    async fn attempts(
        &self,
        request: &MintRequest,
        demand: &Arc<Demand>,
    ) -> Result<Minted, MintError> {
        let (party, mut patience) = (Party::of(request), Patience::default());
        let (mut attempts, mut backoff) = (0, FIRST_BACKOFF);
        let (mut called, mut met_dead_connection) = (false, false);
        loop {
            demand.reached(Stage::Queued);
            let permit = self.admission.enter(party, demand, &mut patience, called).await?;
            called = true;
            let (result, on_dead_connection) = self.attempt(request, demand, permit).await;
            let error = match result {
                Ok(minted) => return Ok(minted),
                Err(error) => error,
            };
            if on_dead_connection && !met_dead_connection {
                // Retries at once over a new connection, past the deadline if necessary: Velt is not to
                // blame for the time that is lost.
                met_dead_connection = true;
                continue;
            }
            if let MintError::RateLimited { .. } = error {
                // Velt's pause holds the queue, or ends the mint.
                continue;
            }
            attempts += 1;
            let wait = error.retry_after().unwrap_or_else(|| self.jittered(backoff));
            let in_time = patience.lasts_until(Instant::now() + wait);
            if !error.is_retryable() || attempts == ATTEMPTS || !in_time {
                return Err(error);
            }
            demand.reached(Stage::Queued);
            demand.note_failure(error);
            sleep(wait).await;
            backoff *= 2;
        }
    }

    /// Makes one call. Returns too whether a dead connection of the pool is to blame for its failure.
    async fn attempt(
        &self,
        request: &MintRequest,
        demand: &Arc<Demand>,
        permit: Permit,
    ) -> (Result<Minted, MintError>, bool) {
        self.metrics.mint_attempts.inc();
        let begun = Instant::now();
        demand.reached(Stage::Called);
        let answer = timeout(self.settings.attempt_timeout, self.inner.mint(request, demand)).await;
        let result = answer.unwrap_or(Err(MintError::Timeout));
        let unanswered = demand.stage() == Stage::CalledOnReused;
        let on_dead_connection = unanswered && matches!(&result, Err(error) if error.is_silence());
        let verdict = match &result {
            _ if on_dead_connection => Verdict::DeadConnection,
            Ok(_) => Verdict::Minted,
            Err(error) => Verdict::Failed(error),
        };
        if let Some(change) = self.admission.learn(permit, begun, verdict) {
            tell(change, result.as_ref().err());
        }
        (result, on_dead_connection)
    }

    /// Wait of half to all of `backoff`, so that mints that failed together do not return together.
    fn jittered(&self, backoff: Duration) -> Duration {
        let noise = self.jitter.hash_one(self.waits.fetch_add(1, Ordering::Relaxed)) % 1024;
        backoff.mul_f64(0.5 + 0.5 * noise as f64 / 1024.0)
    }
}

impl<M: Mint> Mint for Resilient<M> {
    fn mint<'a>(&'a self, request: &'a MintRequest, demand: &'a Arc<Demand>) -> MintFuture<'a> {
        Box::pin(self.attempts(request, demand))
    }
}

/// Logs a change for the operator, once per change.
fn tell(change: Change, error: Option<&MintError>) {
    let error = error.map(|error| Chain(error).to_string()).unwrap_or_default();
    match change {
        Change::Suspended => warn!(
            error,
            "calls to Velt suspended after repeated failures; users with a cached token do not \
             notice"
        ),
        Change::Resumed => info!("Velt works again; calls resumed"),
        Change::Limited(pause) => {
            warn!(?pause, "Velt's rate limit for this API key is reached; all calls pause");
        }
        Change::Refused(Suspended::Organization) => warn!(
            error,
            "Velt refuses the tokens of one organization; calls for it are made now and then only"
        ),
        Change::Refused(Suspended::Credentials) => warn!(
            error,
            "Velt refuses the tokens of several organizations and mints none: check the API key and \
             auth token; calls are made now and then only"
        ),
    }
}

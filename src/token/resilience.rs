//! What stands between the cache and a single call to Velt: a deadline, retries, a cap on
//! concurrent calls, and the breaker.
//!
//! Wraps any [`Mint`], so that all of it is tested in virtual time without a socket.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::Duration;

use prometheus::IntGauge;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout_at};
use tracing::{info, warn};

use crate::logging::Chain;
use crate::metrics::TokenMetrics;
use crate::token::breaker::{Blame, Breaker};
use crate::token::{Mint, MintError, MintFuture, MintRequest, Minted, RefusedStatus};

/// Calls per mint, the first one included.
const ATTEMPTS: u32 = 3;

/// Wait before the second attempt; doubles before the third. Velt's own advice starts at 1 s, but
/// a page is waiting here, and the jitter spreads what this adds.
const FIRST_BACKOFF: Duration = Duration::from_millis(200);

/// How patient to be with Velt.
#[derive(Clone, Debug)]
pub struct Settings {
    /// For one call.
    pub attempt_timeout: Duration,
    /// For all attempts of one mint and the waits between them, queueing included.
    pub deadline: Duration,
    /// Calls under way at the same time, over all users.
    pub max_concurrent: usize,
}

/// A [`Mint`] that survives a bad moment of the one within, and spares it in a bad hour.
pub struct Resilient<M> {
    inner: M,
    settings: Settings,
    permits: Semaphore,
    breaker: Arc<Breaker>,
    jitter: RandomState,
    metrics: TokenMetrics,
}

impl<M: Mint> Resilient<M> {
    /// Wraps `inner`.
    pub fn new(inner: M, settings: Settings, metrics: TokenMetrics) -> Self {
        let permits = Semaphore::new(settings.max_concurrent);
        Self {
            inner,
            settings,
            permits,
            breaker: Arc::default(),
            jitter: RandomState::new(),
            metrics,
        }
    }

    /// The breaker, for whoever wants to know its state.
    pub fn breaker(&self) -> Arc<Breaker> {
        Arc::clone(&self.breaker)
    }

    async fn attempts(
        &self,
        request: &MintRequest,
        deadline: Instant,
    ) -> Result<Minted, MintError> {
        let mut backoff = FIRST_BACKOFF;
        for attempt in 1.. {
            let error = match self.attempt(request, deadline).await {
                Ok(minted) => return Ok(minted),
                Err(error) => error,
            };
            let wait = error.retry_after().unwrap_or_else(|| self.jittered(backoff, attempt));
            let worthwhile =
                error.is_retryable() && attempt < ATTEMPTS && Instant::now() + wait < deadline;
            if !worthwhile {
                return Err(error);
            }
            sleep(wait).await;
            backoff *= 2;
        }
        unreachable!("the last attempt returns")
    }

    async fn attempt(&self, request: &MintRequest, deadline: Instant) -> Result<Minted, MintError> {
        let permit = timeout_at(deadline, self.permits.acquire()).await;
        let _permit = permit.map_err(|_| MintError::Timeout)?.expect("never closed");
        let admitted = self.breaker.admit(Instant::now());
        admitted.map_err(|retry_after| MintError::Suspended { retry_after })?;

        self.metrics.mint_attempts.inc();
        // Cut off in here and not around it, so that the breaker hears of every call.
        let patience = deadline.min(Instant::now() + self.settings.attempt_timeout);
        let answer = timeout_at(patience, self.inner.mint(request)).await;
        let result = answer.unwrap_or(Err(MintError::Timeout));
        self.learn_from(result.as_ref().err());
        result
    }

    /// Tells the breaker, and a person reading the log once per change of state.
    fn learn_from(&self, error: Option<&MintError>) {
        let was_open = self.breaker.is_open();
        match error {
            None => self.breaker.succeeded(),
            Some(error) => self.breaker.failed(blame(error), Instant::now()),
        }
        let is_open = self.breaker.is_open();
        set_flag(&self.metrics.breaker_open, is_open);
        match (was_open, is_open, error) {
            (false, true, Some(error)) => warn!(
                error = %Chain(error),
                "calls to Velt suspended after repeated failures; \
                 users with a cached token do not notice"
            ),
            (true, false, _) => info!("Velt works again; calls resumed"),
            _ => {}
        }
    }

    /// Half to all of `backoff`, so that those who failed together do not return together.
    fn jittered(&self, backoff: Duration, attempt: u32) -> Duration {
        let noise = self.jitter.hash_one((Instant::now(), attempt)) % 1024;
        backoff.mul_f64(0.5 + 0.5 * noise as f64 / 1024.0)
    }
}

impl<M: Mint> Mint for Resilient<M> {
    fn mint<'a>(&'a self, request: &'a MintRequest) -> MintFuture<'a> {
        Box::pin(
            async move { self.attempts(request, Instant::now() + self.settings.deadline).await },
        )
    }
}

fn blame(error: &MintError) -> Blame {
    match error {
        MintError::Refused { status: RefusedStatus::InvalidArgument, .. } => Blame::PerhapsOneUser,
        _ => Blame::Everybody,
    }
}

fn set_flag(gauge: &IntGauge, on: bool) {
    gauge.set(i64::from(on));
}

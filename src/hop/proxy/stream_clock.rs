//! Time that a request's stream has stood still, in both directions together.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// Tells when nothing has moved for too long. Clones are the same clock: the two bodies of a request share a
/// clock, and so do the two directions of a tunnel. Without a limit, as by default, the clock never runs out.
#[derive(Clone, Debug, Default)]
pub(super) struct StreamClock(Option<Arc<Ticking>>);

#[derive(Debug)]
struct Ticking {
    limit: Duration,
    started: Instant,
    /// Time of the last movement, in milliseconds since the start.
    moved: AtomicU64,
}

impl StreamClock {
    /// Starts a clock with this limit.
    pub(super) fn start(limit: Option<Duration>) -> Self {
        Self(limit.map(|limit| {
            Arc::new(Ticking { limit, started: Instant::now(), moved: AtomicU64::new(0) })
        }))
    }

    /// Whether there is a limit.
    pub(super) fn has_limit(&self) -> bool {
        self.0.is_some()
    }

    /// Notes that something has moved.
    pub(super) fn moved(&self) {
        if let Some(clock) = &self.0 {
            let elapsed = clock.started.elapsed().as_millis();
            clock.moved.store(u64::try_from(elapsed).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
    }

    /// Resolves when nothing has moved for the limit.
    pub(super) async fn ran_out(&self) {
        let Some(clock) = &self.0 else { return std::future::pending().await };
        loop {
            let moved = Duration::from_millis(clock.moved.load(Ordering::Relaxed));
            let due = clock.started + moved + clock.limit;
            if due <= Instant::now() {
                return;
            }
            sleep_until(due).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{sleep, timeout};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn clock_runs_out_when_nothing_moved_for_the_limit() {
        let clock = StreamClock::start(Some(Duration::from_secs(10)));
        let start = Instant::now();
        let moving = async {
            for _ in 0..5 {
                sleep(Duration::from_secs(9)).await;
                clock.moved();
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = moving => {}
            () = clock.ran_out() => {}
        }
        assert_eq!(start.elapsed().as_secs(), 55);
        let unlimited = StreamClock::start(None);
        assert!(timeout(Duration::from_secs(86_400), unlimited.ran_out()).await.is_err());
    }
}

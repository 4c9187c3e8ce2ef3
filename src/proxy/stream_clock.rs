//! How long a request's stream has stood still, in both directions together.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// Tells when nothing has moved for too long. Shared by the two bodies of a request, or the two
/// directions of a tunnel.
#[derive(Debug)]
pub(super) struct StreamClock {
    limit: Duration,
    started: Instant,
    /// Milliseconds since the start.
    moved: AtomicU64,
}

impl StreamClock {
    /// Ticks from now on; none without a limit.
    pub(super) fn start(limit: Option<Duration>) -> Option<Arc<Self>> {
        limit.map(|limit| {
            Arc::new(Self { limit, started: Instant::now(), moved: AtomicU64::new(0) })
        })
    }

    /// Something has moved.
    pub(super) fn moved(&self) {
        let elapsed = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.moved.store(elapsed, Ordering::Relaxed);
    }

    /// Resolves when nothing has moved for the limit.
    pub(super) async fn ran_out(&self) {
        loop {
            let moved = Duration::from_millis(self.moved.load(Ordering::Relaxed));
            let due = self.started + moved + self.limit;
            if due <= Instant::now() {
                return;
            }
            sleep_until(due).await;
        }
    }
}

/// As [`StreamClock::ran_out`]; never without a clock.
pub(super) async fn ran_out(clock: Option<&Arc<StreamClock>>) {
    match clock {
        Some(clock) => clock.ran_out().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_runs_out_when_nothing_has_moved_for_the_limit() {
        let clock = StreamClock::start(Some(Duration::from_secs(10))).expect("a limit");
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
        assert!(StreamClock::start(None).is_none());
    }
}

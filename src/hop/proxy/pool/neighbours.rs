//! Pools of all threads that serve, so that an idle connection of one does not hold up another.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::Pool;

/// Time that a request waits for its answer on a new connection before the sidecar closes an idle connection
/// for it. Also the time that a connection must have been idle to be closed: a connection that is used now
/// and again stays.
const PATIENCE: Duration = Duration::from_millis(50);

/// Wait before closing an idle connection, once closing one has helped.
const SHORT_PATIENCE: Duration = Duration::from_millis(5);

/// Time within which an answer counts as an effect of closing a connection.
const AT_ONCE: Duration = Duration::from_millis(10);

/// Pools of all threads that serve. Clones share one list.
///
/// An app may give a worker of its own to each connection that it keeps alive. When all of them have
/// idle connections of one thread, the kernel still accepts a new connection of another thread, but the
/// app does not serve it.
#[derive(Clone, Default)]
pub struct Neighbours(Arc<Shared>);

#[derive(Default)]
struct Shared {
    pools: Mutex<Vec<Weak<Pool>>>,
    /// Whether closing an idle connection helped last time.
    helped: AtomicBool,
}

impl Neighbours {
    /// Adds the pool of one more thread.
    pub(in crate::proxy) fn add(&self, pool: &Arc<Pool>) {
        self.pools().push(Arc::downgrade(pool));
    }

    /// Closes an idle connection of any thread after a short wait, and further connections ever more rarely,
    /// for as long as the future is polled, which is until the app has answered. If the app is merely slow,
    /// this costs a few idle connections.
    pub(in crate::proxy) async fn make_room(&self) {
        let mut attempt = Attempt { helped: &self.0.helped, closed: None };
        let has_helped = self.0.helped.load(Ordering::Relaxed);
        let mut pause = if has_helped { SHORT_PATIENCE } else { PATIENCE };
        loop {
            sleep(pause).await;
            if self.close_longest_idle(pause) {
                attempt.closed = Some(Instant::now());
            }
            pause = (2 * pause).max(PATIENCE);
        }
    }

    /// Closes the longest idle connection of all threads. Returns whether one was idle for `long`.
    fn close_longest_idle(&self, long: Duration) -> bool {
        let now = Instant::now();
        let pools = self.pools();
        let pools = pools.iter().filter_map(Weak::upgrade);
        let longest = pools.filter_map(|pool| Some((pool.idle_since()?, pool)));
        let longest = longest.min_by_key(|(since, _)| *since);
        let longest = longest.filter(|(since, _)| now.saturating_duration_since(*since) >= long);
        longest.is_some_and(|(_, pool)| pool.close_longest_idle())
    }

    fn pools(&self) -> MutexGuard<'_, Vec<Weak<Pool>>> {
        self.0.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request's attempt to make room, dropped when its answer is there.
struct Attempt<'a> {
    helped: &'a AtomicBool,
    /// Time at which the request last closed an idle connection.
    closed: Option<Instant>,
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if let Some(closed) = self.closed {
            self.helped.store(closed.elapsed() <= AT_ONCE, Ordering::Relaxed);
        }
    }
}

//! Walks over the whole token cache, for scrapes and admin calls.
//!
//! A walk takes a time that grows with the cache. So one walk of each sort runs at a time, in a thread
//! of tokio's for blocking work, and the sort rests after each walk. However many connections ask for
//! walks, each sort costs one thread and a bounded share of a processor. Callers wait for their turn in
//! the order in which they came.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Mutex, oneshot};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep_until};
use tracing::error;

use ground::metrics::Metrics;

/// Rest after a walk, as a multiple of the time that the walk took: a fifth of a processor at most.
const REST: u32 = 4;

/// Bound of the rest, since Prometheus waits 10 s for a scrape by default.
const LONGEST_REST: Duration = Duration::from_secs(2);

/// One sort of walk, and its last result.
pub(super) struct Walks<L> {
    turn: Arc<Mutex<Turn<L>>>,
}

struct Turn<L> {
    rested_at: Instant,
    last: L,
}

impl<L: Clone + Default + Send + 'static> Walks<L> {
    pub(super) fn new() -> Self {
        let turn = Turn { rested_at: Instant::now(), last: L::default() };
        Self { turn: Arc::new(Mutex::new(turn)) }
    }

    /// Returns the result of the last walk if `will_do` accepts it when this caller's turn has come, else the
    /// result of `walk`.
    pub(super) async fn result(
        &self,
        will_do: impl FnOnce(&L) -> bool,
        walk: impl FnOnce() -> L + Send + 'static,
    ) -> L {
        let mut turn = Arc::clone(&self.turn).lock_owned().await;
        if will_do(&turn.last) {
            return turn.last.clone();
        }
        // A task, because a blocking thread runs on when its caller leaves: the turn must not pass to
        // the next caller before the walk has ended.
        let walking = tokio::spawn(async move {
            sleep_until(turn.rested_at).await;
            let begun = Instant::now();
            let walked = spawn_blocking(walk).await.expect("a walk does not panic");
            turn.last = walked.clone();
            turn.rested_at = Instant::now() + (REST * begun.elapsed()).min(LONGEST_REST);
            walked
        });
        walking.await.expect("a walk does not panic")
    }
}

impl Walks<()> {
    /// Runs `walk` for this caller alone and returns its result.
    pub(super) async fn own<T: Send + 'static>(
        &self,
        walk: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        let (result, walked) = oneshot::channel();
        // An error says that the caller has left.
        let walk = move || drop(result.send(walk()));
        self.result(|()| false, walk).await;
        walked.await.expect("a walk does not panic")
    }
}

/// Scrapes of the metrics. One walk answers all that wait for it.
pub(super) struct Scrapes {
    metrics: Arc<Metrics>,
    /// Callback that updates the gauges that are only computed for a scrape, by a walk over the cache.
    before: Arc<dyn Fn() + Send + Sync>,
    /// Scrapes that have begun to walk.
    begun: Arc<AtomicU64>,
    walks: Walks<Scrape>,
}

/// Result of one walk.
#[derive(Clone, Default)]
struct Scrape {
    number: u64,
    /// Text of the scrape; `None` if the metrics could not be written.
    text: Option<Bytes>,
}

impl Scrapes {
    pub(super) fn new(metrics: Arc<Metrics>, before: Arc<dyn Fn() + Send + Sync>) -> Self {
        Self { metrics, before, begun: Arc::default(), walks: Walks::new() }
    }

    /// Returns the text of a scrape that begins after this call. `None` if the metrics could not be written.
    pub(super) async fn next(&self) -> Option<Bytes> {
        let arrived = self.begun.load(Ordering::SeqCst);
        let (metrics, before) = (Arc::clone(&self.metrics), Arc::clone(&self.before));
        let begun = Arc::clone(&self.begun);
        let walk = move || {
            let number = begun.fetch_add(1, Ordering::SeqCst) + 1;
            before();
            let text = metrics.encode();
            let text = text.inspect_err(|error| error!(%error, "metrics could not be written"));
            Scrape { number, text: text.ok().map(Bytes::from) }
        };
        self.walks.result(|last| last.number > arrived, walk).await.text
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use futures_util::future::join_all;
    use tokio::task::yield_now;

    use super::*;

    /// Scrapes whose walks wait to be let go, and the count of those that have begun.
    fn gated() -> (Arc<Scrapes>, mpsc::Sender<()>, Arc<AtomicU64>) {
        let (go, gate) = mpsc::channel();
        let gate = std::sync::Mutex::new(gate);
        let walks = Arc::<AtomicU64>::default();
        let counted = Arc::clone(&walks);
        let before = move || {
            counted.fetch_add(1, Ordering::SeqCst);
            gate.lock().expect("no panic").recv().expect("the gate outlives the test");
        };
        let scrapes = Scrapes::new(Arc::new(Metrics::new()), Arc::new(before));
        (Arc::new(scrapes), go, walks)
    }

    async fn reaches(walks: &AtomicU64, count: u64) {
        while walks.load(Ordering::SeqCst) < count {
            yield_now().await;
        }
    }

    #[tokio::test]
    async fn one_walk_answers_all_scrapes_that_wait() {
        let (scrapes, go, walks) = gated();
        let spawn = || {
            let scrapes = Arc::clone(&scrapes);
            tokio::spawn(async move { scrapes.next().await })
        };
        let first = spawn();
        reaches(&walks, 1).await;
        // The walk under way may have begun before the change that these scrapes are to see.
        let waiting: Vec<_> = std::iter::repeat_with(spawn).take(100).collect();
        yield_now().await;
        go.send(()).expect("a walk waits");
        go.send(()).expect("a walk waits");
        let texts = join_all(waiting).await;
        assert!(texts.iter().all(|text| matches!(text, Ok(Some(_)))));
        assert!(first.await.expect("no panic").is_some());
        assert_eq!(walks.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn new_scrapes_wait_for_a_walk_whose_callers_left() {
        let (scrapes, go, walks) = gated();
        for _ in 0..50 {
            let leaving = Arc::clone(&scrapes);
            let leaving = tokio::spawn(async move { leaving.next().await });
            reaches(&walks, 1).await;
            leaving.abort();
            assert!(leaving.await.expect_err("aborted").is_cancelled());
        }
        assert_eq!(walks.load(Ordering::SeqCst), 1);
        go.send(()).expect("a walk waits");
        go.send(()).expect("a walk waits");
        assert!(scrapes.next().await.is_some());
        assert_eq!(walks.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn repeated_walks_rest_in_between() {
        const WALK: Duration = Duration::from_millis(7);
        let walks = Walks::<()>::new();
        let begun = Instant::now();
        for nth in 0..4 {
            #[allow(clippy::disallowed_methods, reason = "a walk blocks its thread")]
            let walked = walks.own(move || {
                std::thread::sleep(WALK);
                nth
            });
            assert_eq!(walked.await, nth);
        }
        let (worked, rested) = (4 * WALK, 3 * REST * WALK);
        assert!(begun.elapsed() >= worked + rested, "{:?}", begun.elapsed());
    }
}

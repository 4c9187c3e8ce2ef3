//! Log lines about requests that clients send in floods: at most one line a minute for each kind, so that a
//! flood of requests is no flood of lines. Counters count all requests.

use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::time::Instant;

use crate::metrics::Label;

/// Least time between two lines of one kind, in milliseconds.
const INTERVAL: u64 = 60_000;

/// Decides which lines of one kind are due.
pub struct Alarm {
    started: Instant,
    /// Milliseconds since the start from which on the next line may be written.
    next: AtomicU64,
    /// Requests that no line has told of.
    untold: AtomicU64,
}

impl Alarm {
    /// Makes an alarm whose first line is due at once.
    pub fn new() -> Self {
        let (next, untold) = Default::default();
        Self { started: Instant::now(), next, untold }
    }

    /// Takes note of `requests`. Returns the number of requests that a line tells of, if a line is due.
    pub fn raise(&self, requests: u64) -> Option<u64> {
        if requests == 0 {
            return None;
        }
        self.untold.fetch_add(requests, Ordering::Relaxed);
        let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let next = self.next.load(Ordering::Relaxed);
        let later = now.saturating_add(INTERVAL);
        // If another thread wins the compare-exchange, its log line, or the next line, includes these
        // requests.
        let wins = || {
            self.next.compare_exchange(next, later, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        };
        (now >= next && wins()).then(|| self.untold.swap(0, Ordering::Relaxed))
    }
}

impl Default for Alarm {
    fn default() -> Self {
        Self::new()
    }
}

/// One [`Alarm`] for each kind of `L`.
pub struct Alarms<L> {
    by_kind: Vec<Alarm>,
    label: PhantomData<L>,
}

impl<L: Label> Alarms<L> {
    /// Makes alarms whose first lines are due at once.
    pub fn new() -> Self {
        Self { by_kind: L::ALL.iter().map(|_| Alarm::new()).collect(), label: PhantomData }
    }

    /// Takes note of `requests` of this kind, see [`Alarm::raise`].
    pub fn raise(&self, kind: L, requests: u64) -> Option<u64> {
        self.by_kind[kind.index()].raise(requests)
    }
}

impl<L: Label> Default for Alarms<L> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::advance;

    use super::*;
    use crate::metrics::SpoofKind;

    #[tokio::test(start_paused = true)]
    async fn alarm_prints_one_line_per_minute_and_kind() {
        let alarms = Alarms::new();
        assert_eq!(alarms.raise(SpoofKind::Alias, 0), None, "nothing happened");
        assert_eq!(alarms.raise(SpoofKind::Alias, 2), Some(2), "the first is told at once");
        assert_eq!(alarms.raise(SpoofKind::Secret, 1), Some(1), "each kind by itself");
        for _ in 0..1000 {
            assert_eq!(alarms.raise(SpoofKind::Alias, 1), None);
        }
        advance(Duration::from_millis(INTERVAL)).await;
        assert_eq!(alarms.raise(SpoofKind::Alias, 1), Some(1001));
        assert_eq!(alarms.raise(SpoofKind::Alias, 1), None);
    }
}

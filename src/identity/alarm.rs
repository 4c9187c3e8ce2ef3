//! Log lines for what somebody tries: at most one a minute for each kind, so that a flood of
//! attempts is no flood of lines. The counters have them all.

use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::time::Instant;

use crate::metrics::Label;

/// Between two lines of one kind, in milliseconds.
const INTERVAL: u64 = 60_000;

/// Says for which attempts a line is due.
pub(super) struct Alarms<L> {
    started: Instant,
    by_kind: Vec<Alarm>,
    label: PhantomData<L>,
}

#[derive(Default)]
struct Alarm {
    /// Milliseconds since the start from which on the next line may be written.
    next: AtomicU64,
    /// Attempts that no line has told of.
    untold: AtomicU64,
}

impl<L: Label> Alarms<L> {
    pub(super) fn new() -> Self {
        let by_kind = L::ALL.iter().map(|_| Alarm::default()).collect();
        Self { started: Instant::now(), by_kind, label: PhantomData }
    }

    /// Takes note of `attempts` of this kind. If a line is due for them, it tells of as many as are
    /// returned.
    pub(super) fn raise(&self, kind: L, attempts: u64) -> Option<u64> {
        if attempts == 0 {
            return None;
        }
        let alarm = &self.by_kind[kind.index()];
        alarm.untold.fetch_add(attempts, Ordering::Relaxed);
        let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let next = alarm.next.load(Ordering::Relaxed);
        let later = now.saturating_add(INTERVAL);
        // Whoever loses the race has been told of by the winner, or will be.
        let wins = || {
            alarm.next.compare_exchange(next, later, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        };
        (now >= next && wins()).then(|| alarm.untold.swap(0, Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::advance;

    use super::*;
    use crate::metrics::SpoofKind;

    #[tokio::test(start_paused = true)]
    async fn one_line_a_minute_and_kind_tells_of_all() {
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

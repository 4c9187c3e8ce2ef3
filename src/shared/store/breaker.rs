//! Suspends calls to a server that does not answer. Decides only, without I/O.

use std::time::Duration;

use tokio::time::Instant;

/// Outages in a row after which calls are suspended. A single lost packet does not suspend calls.
const OUTAGES: u32 = 5;

/// Length of the first suspension: short, because a failover takes about a second.
const FIRST: Duration = Duration::from_millis(500);

/// Length of the longest suspension: a server that is down gets six attempts a minute.
const LONGEST: Duration = Duration::from_secs(10);

/// Counts outages in a row.
#[derive(Debug)]
pub(super) struct Breaker {
    in_a_row: u32,
    /// Length of the next suspension.
    next: Duration,
    until: Option<Instant>,
    counted: Option<Instant>,
}

impl Breaker {
    pub(super) fn new() -> Self {
        Self { in_a_row: 0, next: FIRST, until: None, counted: None }
    }

    /// Notes that a call was answered.
    pub(super) fn answered(&mut self) {
        // An answer to a call that was sent before the suspension does not end it.
        *self = Self { until: self.until, ..Self::new() };
    }

    /// Notes that a call was not answered. Calls that were under way at the same time count once: a pause of the
    /// server is one outage, even if many calls fail in it. Returns whether this failure suspends calls.
    pub(super) fn failed(&mut self, started: Instant, now: Instant) -> bool {
        if self.until.is_some() || self.counted.is_some_and(|counted| started < counted) {
            return false;
        }
        self.counted = Some(now);
        self.in_a_row += 1;
        if self.in_a_row < OUTAGES {
            return false;
        }
        self.until = Some(now + self.next);
        self.next = (self.next * 2).min(LONGEST);
        self.in_a_row = 0;
        true
    }

    /// Returns the end of the suspension, while calls are suspended.
    pub(super) fn until(&self) -> Option<Instant> {
        self.until
    }

    /// Ends a suspension. The next suspension is no shorter, unless a call is answered before it.
    pub(super) fn resume(&mut self) {
        self.until = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: Duration = Duration::from_millis(53);

    /// Has calls fail one after another, and returns after how many they are suspended.
    fn failures_to_suspend(breaker: &mut Breaker, now: &mut Instant) -> Option<usize> {
        (1..100).find(|_| {
            let started = *now;
            *now += STEP;
            breaker.failed(started, *now)
        })
    }

    #[test]
    fn five_outages_in_a_row_suspend_calls() {
        let (mut now, mut breaker) = (Instant::now(), Breaker::new());
        for _ in 0..100 {
            for _ in 0..4 {
                assert!(!breaker.failed(now, now + STEP));
                now += STEP;
            }
            breaker.answered();
        }
        assert_eq!(failures_to_suspend(&mut breaker, &mut now), Some(5));
        assert_eq!(breaker.until(), Some(now + FIRST));
        assert!(!breaker.failed(now, now + STEP), "a call that was under way");
    }

    #[test]
    fn calls_of_one_pause_count_as_one_outage() {
        let (started, mut breaker) = (Instant::now(), Breaker::new());
        for call in 0..1_000 {
            assert!(!breaker.failed(started, started + STEP), "{call}");
        }
    }

    #[test]
    fn suspensions_double_until_a_call_is_answered() {
        let (mut now, mut breaker) = (Instant::now(), Breaker::new());
        let mut lengths = Vec::new();
        for _ in 0..7 {
            failures_to_suspend(&mut breaker, &mut now).expect("suspended");
            lengths.push((breaker.until().expect("suspended") - now).as_millis());
            breaker.resume();
        }
        assert_eq!(lengths, [500, 1_000, 2_000, 4_000, 8_000, 10_000, 10_000]);
        breaker.answered();
        failures_to_suspend(&mut breaker, &mut now).expect("suspended");
        assert_eq!(breaker.until(), Some(now + FIRST));
    }
}

//! Limit on calls to Velt at once, which follows what Velt shows that it can take.
//!
//! Additive increase, multiplicative decrease, as in TCP (RFC 5681): the limit grows with each success
//! while all calls are in use, is halved by a failure, and shrinks again where more calls make each
//! call slower. A pure state machine over `now`.

use std::time::Duration;

use tokio::time::Instant;

/// Factor by which calls may take longer than before the limit grew, with [`SLACK`] on top.
const SLOWER: u32 = 2;

/// Noise of the network and of a busy machine, which says nothing about Velt.
const SLACK: Duration = Duration::from_millis(100);

/// Bounds of the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Calls at once that remain after failures. At least 1.
    pub floor: usize,
    /// Calls at once at most.
    pub ceiling: usize,
}

impl Bounds {
    /// Limit before Velt has answered: two thirds of the ceiling, so that one round of fast answers
    /// reaches the ceiling, and a first burst does not use all of it.
    fn start(self) -> usize {
        (self.ceiling * 2).div_ceil(3).clamp(self.floor, self.ceiling)
    }
}

/// The limit in force.
#[derive(Debug)]
pub(super) struct Limit {
    bounds: Bounds,
    current: f64,
    /// Limit below which each success adds one call; above it, each round of calls adds one.
    threshold: f64,
    /// Fastest call of a round at or below [`Bounds::start`].
    yardstick: Option<Duration>,
    /// Calls of the running round that have not ended, and the fastest that has.
    left: usize,
    fastest: Duration,
    cut_at: Option<Instant>,
}

impl Limit {
    pub(super) fn new(bounds: Bounds) -> Self {
        let start = bounds.start();
        Self {
            bounds,
            current: start as f64,
            threshold: bounds.ceiling as f64,
            yardstick: None,
            left: start,
            fastest: Duration::MAX,
            cut_at: None,
        }
    }

    /// Calls that may run at once.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within bounds")]
    pub(super) fn current(&self) -> usize {
        self.current as usize
    }

    /// Notes a call that was answered after `latency`; `busy` says that as many calls ran as may.
    pub(super) fn answered(&mut self, latency: Duration, busy: bool) {
        self.fastest = self.fastest.min(latency);
        self.left = self.left.saturating_sub(1);
        if busy {
            self.current += if self.current < self.threshold { 1.0 } else { 1.0 / self.current };
        }
        if self.left == 0 {
            self.end_round();
        }
        self.current = self.current.min(self.bounds.ceiling as f64);
    }

    /// Compares the round's fastest call with the yardstick, and takes growth back if the call was
    /// slow.
    fn end_round(&mut self) {
        let start = self.bounds.start() as f64;
        let slow = self.yardstick.is_some_and(|yardstick| is_slow(self.fastest, yardstick));
        if slow && self.current > start + 1.0 {
            self.current = (self.current * 0.75).max(start);
            self.threshold = self.current;
        } else {
            if slow {
                // As few calls as at the start are slow too, so the number of calls is not the cause.
                self.threshold = self.bounds.ceiling as f64;
            }
            if slow || self.yardstick.is_none() || self.current <= start + 1.0 {
                self.yardstick = Some(self.fastest);
            }
        }
        (self.left, self.fastest) = (self.current(), Duration::MAX);
    }

    /// Notes a call, begun at `begun`, that Velt could not take. Calls that ran together cut the limit
    /// once.
    pub(super) fn failed(&mut self, begun: Instant, now: Instant) {
        if self.cut_at.is_some_and(|at| begun < at) {
            return;
        }
        self.cut_at = Some(now);
        self.current = (self.current / 2.0).max(self.bounds.floor as f64);
        self.threshold = self.current;
        (self.left, self.fastest) = (self.current(), Duration::MAX);
    }
}

fn is_slow(latency: Duration, yardstick: Duration) -> bool {
    latency > yardstick * SLOWER + SLACK
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { floor: 4, ceiling: 48 };
    const FAST: Duration = Duration::from_millis(53);

    fn rounds(limit: &mut Limit, count: usize, latency: impl Fn(usize) -> Duration) {
        for _ in 0..count {
            let running = limit.current();
            for _ in 0..running {
                limit.answered(latency(running), true);
            }
        }
    }

    #[test]
    fn limit_reaches_ceiling_after_one_fast_round() {
        let mut limit = Limit::new(BOUNDS);
        assert_eq!(limit.current(), 32);
        rounds(&mut limit, 1, |_| FAST);
        assert_eq!(limit.current(), 48);
        rounds(&mut limit, 5, |_| FAST);
        assert_eq!(limit.current(), 48, "and no further");
    }

    #[test]
    fn limit_stays_where_calls_do_not_fill_it() {
        let mut limit = Limit::new(BOUNDS);
        for _ in 0..1000 {
            limit.answered(FAST, false);
        }
        assert_eq!(limit.current(), 32);
    }

    #[tokio::test]
    async fn failures_of_one_round_halve_the_limit_once() {
        let start = Instant::now();
        let mut limit = Limit::new(BOUNDS);
        for n in 0..16 {
            limit.failed(start, start + Duration::from_millis(7 * n + 1));
        }
        assert_eq!(limit.current(), 16);
        let mut begun = start + Duration::from_secs(1);
        for expected in [8, 4, 4] {
            limit.failed(begun, begun + Duration::from_millis(7));
            assert_eq!(limit.current(), expected);
            begun += Duration::from_secs(1);
        }
    }

    #[tokio::test]
    async fn limit_recovers_by_one_for_each_round() {
        let now = Instant::now();
        let mut limit = Limit::new(BOUNDS);
        for n in 0..3 {
            limit.failed(now + Duration::from_secs(n), now + Duration::from_secs(n));
        }
        assert_eq!(limit.current(), 4);
        rounds(&mut limit, 1, |_| FAST);
        assert!((4..=5).contains(&limit.current()), "{}", limit.current());
        rounds(&mut limit, 60, |_| FAST);
        assert_eq!(limit.current(), 48);
    }

    #[test]
    fn limit_gives_growth_back_where_calls_slow_down() {
        let mut limit = Limit::new(BOUNDS);
        // 11 ms for each call above 32: a queue at Velt's end.
        let crowded =
            |running: usize| FAST + Duration::from_millis(11 * (running as u64).saturating_sub(32));
        rounds(&mut limit, 40, crowded);
        assert!((32..48).contains(&limit.current()), "{}", limit.current());
    }

    #[test]
    fn limit_adapts_to_a_velt_that_became_slower() {
        let mut limit = Limit::new(BOUNDS);
        rounds(&mut limit, 3, |_| Duration::from_millis(2));
        // Slow at any limit: fewer calls at once would not make Velt faster, only serve fewer users.
        rounds(&mut limit, 12, |_| Duration::from_millis(1300));
        assert_eq!(limit.current(), 48);
    }
}

//! Circuit breaker: suspends calls after repeated failures, then lets one call through as a probe.
//!
//! A pure state machine over `now`. One breaker stands for Velt as a whole and hears only of failures
//! that are Velt's; others stand for refusals (`refusals`). Without a breaker, renewals of a revoked
//! credential never end: Hashicorp/vault #25712.

use std::time::Duration;

use tokio::time::Instant;

/// Evidence that suspends calls once it has lasted for [`Policy::span`].
const ENOUGH: f64 = 20.0;

/// Evidence that suspends calls at once.
const PLENTY: f64 = 4.0 * ENOUGH;

/// Weight of evidence that is forgotten in a second: a heavy failure is forgotten in half a minute.
const FADING: f64 = HEAVY / 30.0;

/// Weight of a failure that is hardly the user's fault: five such failures are enough.
pub(super) const HEAVY: f64 = ENOUGH / 5.0;

/// Weight of a failure that may well be the user's fault: twenty such failures are enough.
pub(super) const LIGHT: f64 = ENOUGH / 20.0;

/// Evidence that suspends calls, and the length of the pauses.
#[derive(Clone, Copy, Debug)]
pub(super) struct Policy {
    /// Time that failures must last, from the begin of the first failed call, unless there are plenty.
    pub(super) span: Duration,
    /// Number of users or organizations whose calls must have failed.
    pub(super) sources: usize,
    /// The first pause. Doubles with every probe that fails.
    pub(super) first_pause: Duration,
    /// The longest pause.
    pub(super) longest_pause: Duration,
}

/// Circuit breaker, which lets calls through or says how long to wait.
#[derive(Debug)]
pub(super) struct Breaker {
    policy: Policy,
    state: State,
}

#[derive(Clone, Debug)]
enum State {
    Closed(Evidence),
    /// No call before `until`; `pause` is the length of this pause.
    Open {
        until: Instant,
        pause: Duration,
    },
    /// One call, the probe, is under way.
    Probing {
        pause: Duration,
    },
}

/// Weight of the failures without a success between them.
#[derive(Clone, Debug, Default)]
struct Evidence {
    weight: f64,
    /// Begin of the first of the failed calls.
    since: Option<Instant>,
    last: Option<Instant>,
    /// Hashes of the first users or organizations, up to the number in the policy.
    sources: Vec<u64>,
}

impl Evidence {
    fn add(&mut self, failure: &Failure, wanted: usize, now: Instant) {
        let left = self.weight_at(now);
        if left == 0.0 {
            *self = Self::default();
        }
        if self.sources.len() < wanted && !self.sources.contains(&failure.source) {
            self.sources.push(failure.source);
        }
        self.weight = left + failure.weight;
        if self.sources.len() < wanted {
            // Cap the weight of too few users or organizations, however often their calls fail: one failure
            // of another user must not be enough.
            self.weight = self.weight.min(ENOUGH * share(self.sources.len(), wanted));
        }
        self.since.get_or_insert(failure.begun);
        self.last = Some(now);
    }

    /// Weight that is left at `now`.
    fn weight_at(&self, now: Instant) -> f64 {
        let age = self.last.map_or(Duration::ZERO, |last| now.saturating_duration_since(last));
        (self.weight - age.as_secs_f64() * FADING).max(0.0)
    }

    fn suffices(&self, policy: &Policy, now: Instant) -> bool {
        let lasted = self.since.is_some_and(|since| now >= since + policy.span);
        let weighs = self.weight >= PLENTY - 0.5 || (self.weight >= ENOUGH - 0.5 && lasted);
        weighs && self.sources.len() >= policy.sources
    }
}

/// Returns `part` divided by `whole`.
fn share(part: usize, whole: usize) -> f64 {
    let number = |count: usize| f64::from(u32::try_from(count).unwrap_or(u32::MAX));
    number(part) / number(whole)
}

/// A failed call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Failure {
    pub(super) weight: f64,
    /// Begin of the call.
    pub(super) begun: Instant,
    /// Hash of the user or organization.
    pub(super) source: u64,
}

/// Whether a call may be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gate {
    Open,
    /// The pause is over: one call may probe, by [`Breaker::begin_probe`].
    ProbeDue,
    /// Closed for this time. While a probe is under way, calls wait for its result.
    Closed {
        remaining: Duration,
    },
}

impl Gate {
    /// The stricter of two gates.
    pub(super) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Closed { remaining: one }, Self::Closed { remaining }) => {
                Self::Closed { remaining: remaining.max(one) }
            }
            (closed @ Self::Closed { .. }, _) | (_, closed @ Self::Closed { .. }) => closed,
            (Self::Open, Self::Open) => Self::Open,
            _ => Self::ProbeDue,
        }
    }
}

impl Breaker {
    pub(super) fn new(policy: Policy) -> Self {
        Self { policy, state: State::Closed(Evidence::default()) }
    }

    /// Whether calls may be made at `now`. Changes nothing.
    pub(super) fn gate(&self, now: Instant) -> Gate {
        match self.state {
            State::Closed(_) => Gate::Open,
            State::Open { until, .. } if until <= now => Gate::ProbeDue,
            State::Open { until, .. } => Gate::Closed { remaining: until - now },
            State::Probing { pause } => {
                Gate::Closed { remaining: pause.min(self.policy.first_pause) }
            }
        }
    }

    /// Notes that the probe is under way.
    pub(super) fn begin_probe(&mut self) {
        if let State::Open { pause, .. } = self.state {
            self.state = State::Probing { pause };
        }
    }

    /// Notes that the probe ended without a result. The next call probes.
    pub(super) fn lose_probe(&mut self, now: Instant) {
        if let State::Probing { pause } = self.state {
            self.state = State::Open { until: now, pause };
        }
    }

    /// Notes a call that succeeded: evidence is forgotten, and a suspension ends. Returns whether calls
    /// were suspended.
    pub(super) fn succeeded(&mut self) -> bool {
        let was_suspended = self.is_suspended();
        self.state = State::Closed(Evidence::default());
        was_suspended
    }

    /// Notes a failed call. Returns whether this call begins a suspension.
    pub(super) fn failed(&mut self, failure: &Failure, now: Instant) -> bool {
        match &mut self.state {
            State::Closed(evidence) => {
                evidence.add(failure, self.policy.sources, now);
                if !evidence.suffices(&self.policy, now) {
                    return false;
                }
                let pause = self.policy.first_pause;
                self.state = State::Open { until: now + pause, pause };
                true
            }
            State::Probing { pause } => {
                let pause = (*pause * 2).min(self.policy.longest_pause);
                self.state = State::Open { until: now + pause, pause };
                false
            }
            // A call that began before the suspension shows nothing new.
            State::Open { .. } => false,
        }
    }

    /// Whether calls are suspended, in a pause or by a probe. A pause that is over suspends nothing.
    pub(super) fn is_suspended_at(&self, now: Instant) -> bool {
        matches!(self.gate(now), Gate::Closed { .. })
    }

    fn is_suspended(&self) -> bool {
        !matches!(self.state, State::Closed(_))
    }

    /// Time at which the last failure was noted. `None` before the first failure and while a probe is under
    /// way.
    pub(super) fn last_failure(&self) -> Option<Instant> {
        match &self.state {
            State::Closed(evidence) => evidence.last,
            State::Open { until, pause } => until.checked_sub(*pause),
            State::Probing { .. } => None,
        }
    }

    /// Whether no evidence is left, so that the breaker can be forgotten.
    pub(super) fn is_idle(&self, now: Instant) -> bool {
        match &self.state {
            State::Closed(evidence) => evidence.weight_at(now) == 0.0,
            State::Open { until, .. } => now >= *until + self.policy.longest_pause * 4,
            State::Probing { .. } => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: Policy = Policy {
        span: Duration::from_millis(500),
        sources: 2,
        first_pause: Duration::from_millis(700),
        longest_pause: Duration::from_secs(30),
    };

    /// A call that began and failed at `now`.
    fn failure(weight: f64, source: u64, now: Instant) -> Failure {
        Failure { weight, begun: now, source }
    }

    /// Breaker that is suspended since `now`, by failures that began before.
    fn suspended(now: Instant) -> Breaker {
        let mut breaker = Breaker::new(POLICY);
        for user in 0..5 {
            assert_eq!(breaker.gate(now), Gate::Open);
            let begun = now - POLICY.span;
            breaker.failed(&Failure { weight: HEAVY, begun, source: user }, now);
        }
        breaker
    }

    #[tokio::test]
    async fn repeated_failures_suspend_until_one_probe_succeeds() {
        let now = Instant::now();
        let mut breaker = suspended(now);
        assert_eq!(breaker.gate(now), Gate::Closed { remaining: POLICY.first_pause });
        assert!(breaker.is_suspended_at(now));
        let later = now + POLICY.first_pause;
        assert_eq!(breaker.gate(later), Gate::ProbeDue);
        assert!(!breaker.is_suspended_at(later), "the next call goes through");
        breaker.begin_probe();
        assert!(matches!(breaker.gate(later), Gate::Closed { .. }), "one probe only");
        assert!(breaker.succeeded());
        assert_eq!(breaker.gate(later), Gate::Open);
        assert!(!breaker.succeeded(), "nothing was suspended any more");
    }

    #[tokio::test]
    async fn success_between_failures_keeps_the_breaker_closed() {
        let mut now = Instant::now();
        let mut breaker = Breaker::new(POLICY);
        for round in 0..50 {
            for user in 0..4 {
                let newly = breaker.failed(&failure(HEAVY, user, now), now);
                assert!(!newly && breaker.gate(now) == Gate::Open, "round {round}, user {user}");
                now += POLICY.span;
            }
            breaker.succeeded();
        }
        for user in 0..5 {
            assert_eq!(breaker.gate(now), Gate::Open, "user {user}");
            breaker.failed(&failure(HEAVY, user, now), now);
            now += POLICY.span / 3;
        }
        assert_ne!(breaker.gate(now), Gate::Open, "without a success they suspend");
    }

    #[tokio::test]
    async fn five_failures_of_one_moment_suspend_nothing() {
        let now = Instant::now();
        let mut breaker = Breaker::new(POLICY);
        for user in 0..19 {
            breaker.failed(&failure(HEAVY, user, now), now);
            assert_eq!(breaker.gate(now), Gate::Open, "user {user}");
        }
        breaker.failed(&failure(HEAVY, 19, now), now);
        assert_ne!(breaker.gate(now), Gate::Open, "twenty suspend at once");
    }

    #[tokio::test]
    async fn one_source_alone_suspends_nothing() {
        let mut now = Instant::now();
        let mut breaker = Breaker::new(POLICY);
        for _ in 0..200 {
            breaker.failed(&failure(HEAVY, 7, now), now);
            now += Duration::from_millis(730);
        }
        assert_eq!(breaker.gate(now), Gate::Open);
    }

    #[tokio::test]
    async fn evidence_fades_with_time() {
        let mut now = Instant::now();
        let mut breaker = Breaker::new(POLICY);
        for call in 0..600 {
            assert!(!breaker.is_idle(now - Duration::from_secs(1)) || call == 0, "call {call}");
            assert!(breaker.is_idle(now), "call {call}");
            breaker.failed(&failure(HEAVY, call % 2, now), now);
            assert_eq!(breaker.gate(now), Gate::Open, "call {call}");
            now += Duration::from_secs(30);
        }
        for call in 0..7 {
            assert_eq!(breaker.gate(now), Gate::Open, "call {call}");
            breaker.failed(&failure(HEAVY, call % 2, now), now);
            now += Duration::from_secs(10);
        }
        assert_ne!(breaker.gate(now - Duration::from_secs(10)), Gate::Open, "three times as often");
    }

    #[tokio::test]
    async fn failures_of_one_source_are_not_held_against_the_next() {
        let mut now = Instant::now();
        let mut breaker = Breaker::new(POLICY);
        for _ in 0..500 {
            breaker.failed(&failure(HEAVY, 7, now), now);
            now += Duration::from_millis(730);
        }
        for _ in 0..2 {
            breaker.failed(&failure(HEAVY, 8, now), now);
            assert_eq!(breaker.gate(now), Gate::Open);
        }
        breaker.failed(&failure(HEAVY, 9, now), now);
        assert_ne!(breaker.gate(now), Gate::Open, "half of the evidence is of others");
    }

    #[tokio::test]
    async fn an_hour_of_failures_costs_a_handful_of_calls_a_minute() {
        let start = Instant::now();
        let mut breaker = Breaker::new(POLICY);
        let mut calls = 0;
        for tick in 0..3_600_000_u64 / 10 {
            let now = start + Duration::from_millis(10 * tick);
            match breaker.gate(now) {
                Gate::Closed { .. } => continue,
                Gate::ProbeDue => breaker.begin_probe(),
                Gate::Open => {}
            }
            calls += 1;
            breaker.failed(&failure(HEAVY, tick, now), now);
        }
        assert!((115..=150).contains(&calls), "{calls} calls in an hour");
    }

    #[tokio::test]
    async fn lost_probe_lets_the_next_one_through() {
        let now = Instant::now();
        let mut breaker = suspended(now);
        let probed = now + POLICY.first_pause;
        breaker.begin_probe();
        breaker.lose_probe(probed);
        assert_eq!(breaker.gate(probed), Gate::ProbeDue);
    }
}

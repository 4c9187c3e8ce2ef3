//! The breaker in front of Velt: after repeated failures nobody calls for a while, then one does.
//!
//! A pure state machine over `now`. Every kind of failure counts, refusals too: credentials that
//! Velt has revoked fail for every user alike, and must cost a handful of calls a minute however
//! many users come (Vault Agent's renewal storms, hashicorp/vault #25712, are what happens else).

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Weight of consecutive failed calls that opens the breaker.
const WEIGHT_TO_OPEN: u32 = 20;

/// What a failed call says about the next one, for another user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// Velt or our credentials: five in a row open the breaker, which is more than one mint's own
    /// retries, so that a single unlucky user does not open it alone.
    Everybody,
    /// Perhaps only what was sent for this user, perhaps the credentials after all (the older
    /// APIs say `INVALID_ARGUMENT` for both): it takes twenty different users in a row.
    PerhapsOneUser,
}

impl Blame {
    fn weight(self) -> u32 {
        match self {
            Self::Everybody => WEIGHT_TO_OPEN / 5,
            Self::PerhapsOneUser => WEIGHT_TO_OPEN / 20,
        }
    }
}

/// The first pause. Doubles with every probe that fails.
const FIRST_PAUSE: Duration = Duration::from_secs(2);

/// The longest pause: two calls a minute for as long as an outage lasts, and never more than this
/// between Velt's return and ours.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// A probe that has not been heard of for this long is given up and another one let through.
const PROBE_PATIENCE: Duration = Duration::from_secs(30);

/// Lets calls through, or says how long to wait.
#[derive(Debug, Default)]
pub struct Breaker {
    state: Mutex<State>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Closed {
        weight: u32,
    },
    /// Nobody calls before `until`; `pause` is how long this pause is.
    Open {
        until: Instant,
        pause: Duration,
    },
    /// One call is under way to find out whether Velt is back.
    Probing {
        since: Instant,
        pause: Duration,
    },
}

impl Default for State {
    fn default() -> Self {
        Self::Closed { weight: 0 }
    }
}

impl Breaker {
    /// Lets a call through.
    ///
    /// # Errors
    ///
    /// The time after which asking again makes sense.
    pub fn admit(&self, now: Instant) -> Result<(), Duration> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match *state {
            State::Closed { .. } => Ok(()),
            State::Open { until, .. } if now < until => Err(until - now),
            State::Probing { since, .. } if now < since + PROBE_PATIENCE => Err(FIRST_PAUSE),
            State::Open { pause, .. } | State::Probing { pause, .. } => {
                *state = State::Probing { since: now, pause };
                Ok(())
            }
        }
    }

    /// A call succeeded: Velt works, whatever was thought before.
    pub fn succeeded(&self) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = State::Closed { weight: 0 };
    }

    /// A call failed.
    pub fn failed(&self, blame: Blame, now: Instant) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        *state = match *state {
            State::Closed { weight } if weight + blame.weight() < WEIGHT_TO_OPEN => {
                State::Closed { weight: weight + blame.weight() }
            }
            State::Closed { .. } => State::Open { until: now + FIRST_PAUSE, pause: FIRST_PAUSE },
            State::Probing { pause, .. } => {
                let pause = (pause * 2).min(LONGEST_PAUSE);
                State::Open { until: now + pause, pause }
            }
            // A straggler that was admitted before the breaker opened tells nothing new.
            open @ State::Open { .. } => open,
        };
    }

    /// How long calls are suspended for, `None` if they are not. Zero says that the next call
    /// probes. Lets none through itself.
    pub fn suspended_for(&self, now: Instant) -> Option<Duration> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match *state {
            State::Closed { .. } => None,
            State::Open { until, .. } => Some(until.saturating_duration_since(now)),
            State::Probing { since, .. } => {
                Some((since + PROBE_PATIENCE).saturating_duration_since(now).min(FIRST_PAUSE))
            }
        }
    }

    /// Whether calls are suspended or being probed.
    pub fn is_open(&self) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        !matches!(*state, State::Closed { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(now: Instant) -> Breaker {
        let breaker = Breaker::default();
        for _ in 0..5 {
            assert_eq!(breaker.admit(now), Ok(()));
            breaker.failed(Blame::Everybody, now);
        }
        breaker
    }

    #[tokio::test]
    async fn opens_after_repeated_failures_and_lets_one_probe_through() {
        let now = Instant::now();
        let breaker = opened(now);
        assert!(breaker.is_open());
        assert_eq!(breaker.admit(now), Err(FIRST_PAUSE));

        let later = now + FIRST_PAUSE;
        assert_eq!(breaker.admit(later), Ok(()), "the probe");
        assert!(breaker.admit(later).is_err(), "only one");
        breaker.succeeded();
        assert!(!breaker.is_open());
        assert_eq!(breaker.admit(later), Ok(()));
    }

    #[tokio::test]
    async fn a_success_between_failures_keeps_it_closed() {
        let now = Instant::now();
        let breaker = Breaker::default();
        for _ in 0..50 {
            for _ in 0..4 {
                breaker.failed(Blame::Everybody, now);
            }
            breaker.succeeded();
        }
        assert!(!breaker.is_open());
    }

    #[tokio::test]
    async fn a_few_users_with_bad_data_do_not_suspend_everybody() {
        let now = Instant::now();
        let breaker = Breaker::default();
        for _ in 0..19 {
            breaker.failed(Blame::PerhapsOneUser, now);
        }
        assert!(!breaker.is_open());
        breaker.failed(Blame::PerhapsOneUser, now);
        assert!(breaker.is_open(), "twenty in a row are the credentials after all");
    }

    #[tokio::test]
    async fn an_hour_of_failures_costs_a_handful_of_calls_a_minute() {
        let start = Instant::now();
        let breaker = Breaker::default();
        let mut calls = 0;
        for tick in 0..3_600_000_u64 / 10 {
            let now = start + Duration::from_millis(10 * tick);
            if breaker.admit(now).is_ok() {
                calls += 1;
                breaker.failed(Blame::Everybody, now);
            }
        }
        assert!((115..=135).contains(&calls), "{calls} calls in an hour");
    }

    #[tokio::test]
    async fn a_lost_probe_does_not_keep_it_open_for_ever() {
        let now = Instant::now();
        let breaker = opened(now);
        let probed = now + FIRST_PAUSE;
        assert_eq!(breaker.admit(probed), Ok(()));
        assert!(breaker.admit(probed + PROBE_PATIENCE / 2).is_err());
        assert_eq!(breaker.admit(probed + PROBE_PATIENCE), Ok(()));
    }
}

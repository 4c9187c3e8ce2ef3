//! Rate limit of the API key: after a 429 no call is made until the time that Velt named, then one call
//! probes. The limit is the key's, so it holds all users; it is no outage.

use std::time::Duration;

use tokio::time::Instant;

use super::breaker::Gate;

/// First pause if Velt names none, or names zero. Doubles with each 429 in a row.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// Longest pause that the sidecar chooses itself. Velt's messages speak of a minute.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// State of Velt's rate limit.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// End of the pause.
    until: Option<Instant>,
    /// 429s in a row; all 429s of one pause count once.
    in_a_row: u32,
    probing: bool,
}

impl Pace {
    /// Whether calls may be made at `now`.
    pub(super) fn gate(&self, now: Instant) -> Gate {
        match self.until {
            None => Gate::Open,
            Some(until) if until > now => Gate::Closed { remaining: until - now },
            Some(_) if self.probing => Gate::Closed { remaining: FIRST_PAUSE },
            Some(_) => Gate::ProbeDue,
        }
    }

    /// Notes that the probe is under way.
    pub(super) fn begin_probe(&mut self) {
        self.probing = true;
    }

    /// Notes that the probe ended without a result.
    pub(super) fn lose_probe(&mut self) {
        self.probing = false;
    }

    /// Notes an answer to the probe other than 429: the pause is over.
    pub(super) fn resume(&mut self) {
        *self = Self::default();
    }

    /// Notes a 429 with `retry_after`. Returns whether it began a pause.
    pub(super) fn limited(&mut self, retry_after: Option<Duration>, now: Instant) -> bool {
        let begins = self.until.is_none_or(|until| until <= now);
        if begins {
            self.in_a_row = self.in_a_row.saturating_add(1);
        }
        let doubled = 1 << (self.in_a_row - 1).min(16);
        let own = FIRST_PAUSE.saturating_mul(doubled).min(LONGEST_PAUSE);
        let until = now + retry_after.unwrap_or_default().max(own);
        self.until = Some(self.until.map_or(until, |before| before.max(until)));
        self.probing = false;
        begins
    }
}

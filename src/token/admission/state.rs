//! State of the queue of mints: which mints wait, how many calls run, and what is held against Velt, an
//! organization or the credentials. Changes with each call's result; knows no tasks.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::breaker::{Breaker, Failure, Gate, HEAVY, Policy};
use crate::demand::Rank;
use crate::limit::{Bounds, Limit};
use crate::pace::Pace;
use crate::refusals::{self, Party, RefusedByVelt};
use crate::{MintError, SuspendedFor};
use ground::metrics::TokenMetrics;

/// Policy for evidence about Velt as a whole. The span is longer than a hiccup of a load balancer. The
/// first pause is short, since a mint with time left waits for its end.
const OF_VELT: Policy = Policy {
    span: Duration::from_millis(500),
    sources: 2,
    first_pause: Duration::from_millis(500),
    longest_pause: Duration::from_secs(30),
};

/// Mints that wait, calls that run, and evidence that holds calls back.
#[derive(Debug)]
pub(super) struct State {
    velt: Breaker,
    pace: Pace,
    pub(super) refusals: RefusedByVelt,
    limit: Limit,
    running: usize,
    refreshing: usize,
    pub(super) urgent: VecDeque<Turn>,
    pub(super) refreshes: VecDeque<Turn>,
    /// Mints for no user.
    spare: VecDeque<Turn>,
    /// Places given up since the queues were last cleaned.
    given_up: usize,
}

/// Mint in the queue. The channel is closed if the mint's task has ended.
pub(super) type Turn = oneshot::Sender<Grant>;

/// Turn that a mint is granted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Grant {
    rank: Rank,
    /// Whether the call is a probe, which finds out for all mints whether Velt works again.
    pub(super) probe: bool,
}

/// Change that an operator wants to know about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Suspended,
    Resumed,
    Limited(Duration),
    Refused(refusals::Suspended),
}

/// Result of a call, as evidence.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Verdict<'a> {
    Minted,
    Failed(&'a MintError),
    /// The call met a connection that had died while idle, which shows nothing about Velt.
    DeadConnection,
}

impl State {
    /// Makes a state without a call under way and without evidence against Velt.
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            velt: Breaker::new(OF_VELT),
            pace: Pace::default(),
            refusals: RefusedByVelt::default(),
            limit: Limit::new(bounds),
            running: 0,
            refreshing: 0,
            urgent: VecDeque::new(),
            refreshes: VecDeque::new(),
            spare: VecDeque::new(),
            given_up: 0,
        }
    }

    /// Returns the pause that holds every call, and the error of a mint that can't wait for the end of the
    /// pause.
    pub(super) fn held(&self, now: Instant) -> Option<(Duration, MintError)> {
        let limited = |remaining| MintError::RateLimited { retry_after: Some(remaining) };
        let suspended =
            |retry_after| MintError::Suspended { retry_after, suspended: SuspendedFor::Outage };
        match (self.pace.gate(now), self.velt.gate(now)) {
            (Gate::Closed { remaining }, Gate::Closed { remaining: longer })
                if longer > remaining =>
            {
                Some((longer, suspended(longer)))
            }
            (Gate::Closed { remaining }, _) => Some((remaining, limited(remaining))),
            (_, Gate::Closed { remaining }) => Some((remaining, suspended(remaining))),
            _ => None,
        }
    }

    /// Grants turns for as long as calls may begin.
    pub(super) fn grant(&mut self, now: Instant) {
        while self.running < self.limit.current() {
            let probe = match self.velt.gate(now).and(self.pace.gate(now)) {
                Gate::Closed { .. } => return,
                Gate::ProbeDue => true,
                Gate::Open => false,
            };
            let Some((turn, rank)) = self.next() else { return };
            if turn.send(Grant { rank, probe }).is_err() {
                continue;
            }
            self.running += usize::from(rank != Rank::Spare);
            self.refreshing += usize::from(rank == Rank::Refresh);
            if probe {
                self.velt.begin_probe();
                self.pace.begin_probe();
            }
        }
    }

    /// Returns the queue of the mints of a rank.
    pub(super) fn queue(&mut self, rank: Rank) -> &mut VecDeque<Turn> {
        match rank {
            Rank::Urgent => &mut self.urgent,
            Rank::Refresh => &mut self.refreshes,
            Rank::Spare => &mut self.spare,
        }
    }

    /// Takes the next mint in the queue. Refreshes come after users who have no token, and leave half of the calls to
    /// them. A mint for no user comes last, and leaves the last call free.
    fn next(&mut self) -> Option<(Turn, Rank)> {
        if let Some(turn) = self.urgent.pop_front() {
            return Some((turn, Rank::Urgent));
        }
        if self.refreshing >= (self.limit.current() / 2).max(1) {
            return None;
        }
        if let Some(turn) = self.refreshes.pop_front() {
            return Some((turn, Rank::Refresh));
        }
        if self.running + 1 >= self.limit.current() {
            return None;
        }
        self.spare.pop_front().map(|turn| (turn, Rank::Spare))
    }

    /// Ends a call, or a turn that was granted and not used. A probe is lost with it.
    pub(super) fn release(&mut self, grant: Grant) {
        let now = Instant::now();
        self.running -= usize::from(grant.rank != Rank::Spare);
        self.refreshing -= usize::from(grant.rank == Rank::Refresh);
        if grant.probe {
            self.lose_probe(now);
        }
        self.grant(now);
    }

    fn lose_probe(&mut self, now: Instant) {
        self.velt.lose_probe(now);
        self.pace.lose_probe();
    }

    pub(super) fn learn(
        &mut self,
        probe: bool,
        party: Party,
        begun: Instant,
        verdict: Verdict<'_>,
        now: Instant,
    ) -> Option<Change> {
        let error = match verdict {
            Verdict::DeadConnection => {
                self.refusals.lose_probe(party, now);
                if probe {
                    self.lose_probe(now);
                }
                return None;
            }
            Verdict::Minted => None,
            Verdict::Failed(error) => Some(error),
        };
        match error {
            None => self.refusals.minted(party),
            Some(MintError::Refused { status, .. }) => {
                let change = self.refusals.refused(party, *status, begun, now);
                return change.map(Change::Refused).or(self.answered(probe, begun, now));
            }
            Some(MintError::RateLimited { retry_after }) => {
                self.refusals.lose_probe(party, now);
                self.limit.failed(begun, now);
                self.velt.succeeded();
                let begins = self.pace.limited(*retry_after, now);
                let (pause, _) = self.held(now)?;
                return begins.then_some(Change::Limited(pause));
            }
            Some(error) => {
                self.refusals.lose_probe(party, now);
                return self.failed(error, probe, party, begun, now);
            }
        }
        self.answered(probe, begun, now)
    }

    /// Notes that Velt has answered as it should, even if with a refusal: Velt is not down.
    fn answered(&mut self, probe: bool, begun: Instant, now: Instant) -> Option<Change> {
        self.limit.answered(now - begun, self.running >= self.limit.current());
        let resumed = self.velt.succeeded();
        if probe {
            // A call that began before the pause says nothing about the pause.
            self.pace.resume();
        }
        resumed.then_some(Change::Resumed)
    }

    fn failed(
        &mut self,
        error: &MintError,
        probe: bool,
        party: Party,
        begun: Instant,
        now: Instant,
    ) -> Option<Change> {
        if !matches!(error, MintError::Malformed { .. } | MintError::Mismatch) {
            self.limit.failed(begun, now);
        }
        if probe {
            self.pace.lose_probe();
        }
        let failure = Failure { weight: HEAVY, begun, source: party.user };
        self.velt.failed(&failure, now).then_some(Change::Suspended)
    }

    /// Notes that a place was given up. Removes such places when they are half of the queues, so that the
    /// queues hold at most twice the mints that wait, and each removal is paid for by a place given up.
    pub(super) fn give_up(&mut self) {
        self.given_up += 1;
        let queues = [&mut self.urgent, &mut self.refreshes, &mut self.spare];
        if 2 * self.given_up > queues.iter().map(|queue| queue.len()).sum() {
            for queue in queues {
                queue.retain(|turn| !turn.is_closed());
            }
            self.given_up = 0;
        }
    }

    /// Sets the gauges to the state at `now`.
    pub(super) fn observe(&self, metrics: &TokenMetrics, now: Instant) {
        let gauge = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        metrics.breaker_open.set(i64::from(self.velt.is_suspended_at(now)));
        metrics.refusals_suspended.set(gauge(self.refusals.suspended(now)));
        metrics
            .rate_limit_paused
            .set(i64::from(matches!(self.pace.gate(now), Gate::Closed { .. })));
        metrics.call_limit.set(gauge(self.limit.current()));
        let queued = self.urgent.iter().chain(&self.refreshes);
        metrics.mints_queued.set(gauge(queued.filter(|turn| !turn.is_closed()).count()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queue_holds_at_most_twice_the_mints_that_wait() {
        let mut state = State::new(Bounds { floor: 1, ceiling: 1 });
        let (sender, _waiting) = oneshot::channel();
        state.urgent.push_back(sender);
        for n in 0..1000 {
            // One mint waits at the front all the time; others come and leave.
            let (sender, waiting) = oneshot::channel();
            state.refreshes.push_back(sender);
            drop(waiting);
            state.give_up();
            let held = state.urgent.len() + state.refreshes.len();
            assert!(held <= 3, "{held} places after {n} were given up");
        }
    }
}

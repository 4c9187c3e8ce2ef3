//! Queue of mints, which decides when each call to Velt may begin.
//!
//! Four causes hold calls back, and each has evidence of its own: the number of calls under way
//! (`limit`), Velt's rate limit (`pace`), an outage of Velt (`breaker`), and refusals of one
//! organization or of the credentials (`refusals`). The first three hold the queue, so that a mint
//! keeps its place and loses none of its own time; refusals hold only the mints concerned.

mod state;

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep_until};

pub(super) use self::state::{Change, Verdict};
use self::state::{Grant, State};
use super::breaker::Gate;
use super::demand::{Demand, Rank};
use super::limit::Bounds;
use super::refusals::Party;
use super::{MintError, MintRequest, SuspendedFor};
use ground::metrics::TokenMetrics;

/// Delay of a timer that must not fire.
const FAR: Duration = Duration::from_secs(24 * 3600);

/// Decides which call to Velt begins next. Each set of credentials has its own.
#[derive(Debug)]
pub struct Admission {
    state: Mutex<State>,
    /// Notified when a suspension has begun or ended.
    changed: Notify,
    /// Time that a mint may take once it has its turn, and time that it stays queued when no client asks
    /// for it.
    patience: Duration,
}

/// Time that is left to one mint. It starts when the mint has its first turn.
#[derive(Debug, Default)]
pub(super) struct Patience {
    end: Option<Instant>,
}

impl Patience {
    fn start(&mut self, now: Instant, patience: Duration) {
        self.end.get_or_insert(now + patience);
    }

    /// End of the patience, if it started `now` at the latest.
    fn end(&self, now: Instant, patience: Duration) -> Instant {
        self.end.unwrap_or(now + patience)
    }

    /// Whether the patience lasts longer than until `at`.
    pub(super) fn lasts_until(&self, at: Instant) -> bool {
        self.end.is_none_or(|end| at < end)
    }
}

impl Admission {
    /// State with no call under way and nothing held against Velt. `patience` is for one mint; `bounds`
    /// limit the calls that run at once.
    pub(super) fn new(patience: Duration, bounds: Bounds) -> Self {
        let state = State::new(bounds);
        Self { state: Mutex::new(state), changed: Notify::new(), patience }
    }

    /// Waits until a call for `party` may begin. `again` puts it ahead of mints that had no call yet.
    ///
    /// # Errors
    ///
    /// The reason why no call may begin before `patience` ends, or before the demand has lapsed.
    pub(super) async fn enter(
        self: &Arc<Self>,
        party: Party,
        demand: &Demand,
        patience: &mut Patience,
        mut again: bool,
    ) -> Result<Permit, MintError> {
        loop {
            if let Some(remaining) = self.refused_for(party) {
                let now = Instant::now();
                patience.start(now, self.patience);
                let suspended = SuspendedFor::Refusals;
                let error = MintError::Suspended { retry_after: remaining, suspended };
                if !patience.lasts_until(now + remaining) {
                    return Err(error);
                }
                demand.hold(Some(error));
                sleep_until(now + remaining).await;
                again = true;
                continue;
            }
            let mut permit = self.turn(demand, patience, again).await?;
            let now = Instant::now();
            patience.start(now, self.patience);
            if self.state().refusals.begin(party, now) {
                permit.party = Some(party);
                return Ok(permit);
            }
            again = true;
        }
    }

    /// Time for which refusals of other users keep `party` from a call.
    fn refused_for(&self, party: Party) -> Option<Duration> {
        match self.state().refusals.gate(party, Instant::now()) {
            Gate::Closed { remaining } => Some(remaining),
            Gate::Open | Gate::ProbeDue => None,
        }
    }

    /// Waits in the queue.
    async fn turn(
        self: &Arc<Self>,
        demand: &Demand,
        patience: &Patience,
        again: bool,
    ) -> Result<Permit, MintError> {
        let mut place = self.queue(demand.rank(), again);
        let mut lapsed = pin!(demand.lapsed(self.patience));
        loop {
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            let now = Instant::now();
            let held = self.state().held(now);
            let pause_ends = now + held.as_ref().map_or(FAR, |(remaining, _)| *remaining);
            match held {
                Some((_, error)) if pause_ends >= patience.end(now, self.patience) => {
                    return Err(error);
                }
                held => demand.hold(held.map(|(_, error)| error)),
            }
            tokio::select! {
                biased;
                grant = &mut place.turn => {
                    let grant = grant.expect("the queue drops no turn");
                    place.taken = true;
                    return Ok(Permit { admission: Arc::clone(self), grant, party: None });
                }
                () = demand.became_urgent() => place = self.queue(Rank::Urgent, again),
                () = changed => {}
                () = sleep_until(pause_ends) => self.state().grant(Instant::now()),
                () = &mut lapsed => return Err(MintError::Queued),
            }
        }
    }

    fn queue(self: &Arc<Self>, rank: Rank, again: bool) -> Place {
        let (sender, turn) = oneshot::channel();
        let mut state = self.state();
        let queue = state.queue(rank);
        if again {
            queue.push_front(sender);
        } else {
            queue.push_back(sender);
        }
        state.grant(Instant::now());
        drop(state);
        Place { admission: Arc::clone(self), turn, taken: false }
    }

    /// Learns from a call that began at `begun` whether later calls will succeed.
    pub(super) fn learn(
        &self,
        mut permit: Permit,
        begun: Instant,
        verdict: Verdict<'_>,
    ) -> Option<Change> {
        let party = permit.party.take().expect("set where the permit was given");
        let mut state = self.state();
        let change = state.learn(permit.grant.probe, party, begun, verdict, Instant::now());
        permit.grant.probe = false;
        drop(state);
        if change.is_some() {
            self.changed.notify_waiters();
        }
        change
    }

    /// Error that a call for `request` would get now, with its wait; `None` if the call would be made.
    pub fn suspended_for(&self, request: &MintRequest, now: Instant) -> Option<MintError> {
        let state = self.state();
        if let Some((_, error)) = state.held(now) {
            return Some(error);
        }
        match state.refusals.gate(Party::of(request), now) {
            Gate::Closed { remaining: retry_after } => {
                Some(MintError::Suspended { retry_after, suspended: SuspendedFor::Refusals })
            }
            Gate::Open | Gate::ProbeDue => None,
        }
    }

    /// Updates the gauges; called before a scrape, and only for the set of credentials in force.
    pub fn observe(&self, metrics: &TokenMetrics) {
        self.state().observe(metrics, Instant::now());
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Place of a mint in the queue. Dropping it gives an unused turn back.
struct Place {
    admission: Arc<Admission>,
    turn: oneshot::Receiver<Grant>,
    taken: bool,
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.taken {
            return;
        }
        let mut state = self.admission.state();
        self.turn.close();
        if let Ok(grant) = self.turn.try_recv() {
            state.release(grant);
        } else {
            state.give_up();
        }
    }
}

/// Right to one call, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Permit {
    admission: Arc<Admission>,
    grant: Grant,
    /// User and organization of the call, until its result has been learnt.
    party: Option<Party>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut state = self.admission.state();
        if let Some(party) = self.party {
            state.refusals.lose_probe(party, Instant::now());
        }
        state.release(self.grant);
    }
}

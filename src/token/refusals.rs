//! Refusals by Velt, of one user, of one organization, or of the credentials.
//!
//! A refusal counts against its organization. The credentials are at fault only if several
//! organizations are refused and none is served. So refusals of one organization's users cost no other
//! organization a token, and dead credentials cost a handful of calls a minute.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::breaker::{Breaker, Failure, Gate, HEAVY, LIGHT, Policy};
use super::{MintRequest, RefusedStatus};

/// Organizations that are remembered at most.
const MAX_ORGANIZATIONS: usize = 1024;

/// First pause. Short, since a user whom Velt would serve may be the next to ask.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// Longest pause: three calls a minute for an organization, or for dead credentials.
const LONGEST_PAUSE: Duration = Duration::from_secs(20);

const OF_ORGANIZATION: Policy = Policy {
    span: Duration::ZERO,
    sources: 2,
    first_pause: FIRST_PAUSE,
    longest_pause: LONGEST_PAUSE,
};

const OF_CREDENTIALS: Policy = Policy { sources: 3, ..OF_ORGANIZATION };

/// User and organization of a mint, as hashes, so that no name is kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Party {
    pub(super) user: u64,
    pub(super) organization: u64,
}

impl Party {
    /// Party of `request`.
    pub(super) fn of(request: &MintRequest) -> Self {
        let (user, organization) = request.hashes();
        Self { user, organization }
    }
}

/// Refusals, by organization and for the credentials.
#[derive(Debug)]
pub(super) struct Refusals {
    credentials: Breaker,
    organizations: HashMap<u64, Breaker>,
}

impl Default for Refusals {
    fn default() -> Self {
        Self { credentials: Breaker::new(OF_CREDENTIALS), organizations: HashMap::new() }
    }
}

impl Refusals {
    /// Whether calls for `party` may be made at `now`.
    pub(super) fn gate(&self, party: Party, now: Instant) -> Gate {
        let own = self.organizations.get(&party.organization);
        let own = own.map_or(Gate::Open, |breaker| breaker.gate(now));
        self.credentials.gate(now).and(own)
    }

    /// Begins a call for `party`, as a probe if a pause is over. `false` if no call may be made now.
    pub(super) fn begin(&mut self, party: Party, now: Instant) -> bool {
        if matches!(self.gate(party, now), Gate::Closed { .. }) {
            return false;
        }
        for breaker in self.concerned(party) {
            if breaker.gate(now) == Gate::ProbeDue {
                breaker.begin_probe();
            }
        }
        true
    }

    /// Notes that a call for `party` ended without saying anything about refusals.
    pub(super) fn lose_probe(&mut self, party: Party, now: Instant) {
        self.concerned(party).for_each(|breaker| breaker.lose_probe(now));
    }

    /// Notes a token for `party`: the credentials and the organization are good.
    pub(super) fn minted(&mut self, party: Party) {
        self.credentials.succeeded();
        self.organizations.remove(&party.organization);
    }

    /// Notes a refusal. Returns whether it begins a suspension.
    pub(super) fn refused(
        &mut self,
        party: Party,
        status: RefusedStatus,
        begun: Instant,
        now: Instant,
    ) -> Option<Suspended> {
        let weight = match status {
            RefusedStatus::PermissionDenied | RefusedStatus::Unauthenticated => HEAVY,
            RefusedStatus::InvalidArgument
            | RefusedStatus::NotFound
            | RefusedStatus::FailedPrecondition
            | RefusedStatus::Unnamed => LIGHT,
        };
        self.make_room(party, now);
        let own = self.organizations.entry(party.organization);
        let own = own.or_insert_with(|| Breaker::new(OF_ORGANIZATION));
        let of_user = Failure { weight, begun, source: party.user };
        let organization = own.failed(&of_user, now);
        let of_organization = Failure { source: party.organization, ..of_user };
        let credentials = self.credentials.failed(&of_organization, now);
        match (credentials, organization) {
            (true, _) => Some(Suspended::Credentials),
            (false, true) => Some(Suspended::Organization),
            (false, false) => None,
        }
    }

    /// Organizations whose calls are suspended, plus one if all calls are.
    pub(super) fn suspended(&self, now: Instant) -> usize {
        let breakers = self.organizations.values().chain([&self.credentials]);
        breakers.filter(|breaker| breaker.is_suspended_at(now)).count()
    }

    fn concerned(&mut self, party: Party) -> impl Iterator<Item = &mut Breaker> {
        let own = self.organizations.get_mut(&party.organization);
        own.into_iter().chain([&mut self.credentials])
    }

    /// Forgets old records before one more organization is remembered, or any record if none is old.
    fn make_room(&mut self, party: Party, now: Instant) {
        if self.organizations.len() < MAX_ORGANIZATIONS
            || self.organizations.contains_key(&party.organization)
        {
            return;
        }
        self.organizations.retain(|_, breaker| !breaker.is_idle(now));
        if self.organizations.len() >= MAX_ORGANIZATIONS {
            let any = self.organizations.keys().next().copied();
            any.map(|any| self.organizations.remove(&any));
        }
    }
}

/// Scope of a suspension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Suspended {
    Organization,
    Credentials,
}

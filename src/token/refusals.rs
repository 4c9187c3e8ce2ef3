//! Refusals by Velt, of one user, of one organization, or of the credentials.
//!
//! A refusal counts against its organization. The credentials are under suspicion only if several
//! organizations are refused and none is served. Even then an organization that has not been refused may
//! make a call (`Exemptions`). So refusals of some organizations' users cost no other organization a
//! token, and dead credentials cost a handful of calls a minute.

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

/// Calls in a row that are exempt from the suspicion against the credentials.
const EXEMPT_CALLS: u32 = 50;
/// Time after which one more call is exempt: three calls a minute.
const EXEMPT_EVERY: Duration = Duration::from_secs(20);

/// Time after which an organization counts as not refused.
const FORGIVEN: Duration = Duration::from_secs(600);

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
pub(super) struct RefusedByVelt {
    credentials: Breaker,
    exemptions: Exemptions,
    organizations: HashMap<u64, Breaker>,
}

/// Calls that are made although the credentials are under suspicion. Bounds calls as a leaky bucket does.
#[derive(Debug, Default)]
struct Exemptions {
    /// Time at which all exemptions are available again.
    full: Option<Instant>,
}

impl Exemptions {
    /// Time until the next call is exempt.
    fn wait(&self, now: Instant) -> Duration {
        let spent = self.full.map_or(Duration::ZERO, |full| full.saturating_duration_since(now));
        spent.saturating_sub(EXEMPT_EVERY * (EXEMPT_CALLS - 1))
    }

    fn take(&mut self, now: Instant) {
        self.full = Some(self.full.map_or(now, |full| full.max(now)) + EXEMPT_EVERY);
    }
}

impl Default for RefusedByVelt {
    fn default() -> Self {
        let credentials = Breaker::new(OF_CREDENTIALS);
        Self { credentials, exemptions: Exemptions::default(), organizations: HashMap::new() }
    }
}

impl RefusedByVelt {
    /// Whether calls for `party` may be made at `now`.
    pub(super) fn gate(&self, party: Party, now: Instant) -> Gate {
        let own = self.organizations.get(&party.organization);
        let own = own.map_or(Gate::Open, |breaker| breaker.gate(now));
        match self.credentials.gate(now) {
            Gate::Closed { remaining } if self.is_exempt(party, now) => {
                match self.exemptions.wait(now) {
                    Duration::ZERO => own,
                    wait => own.and(Gate::Closed { remaining: remaining.min(wait) }),
                }
            }
            credentials => own.and(credentials),
        }
    }

    /// Whether the organization of `party` has not been refused for [`FORGIVEN`].
    fn is_exempt(&self, party: Party, now: Instant) -> bool {
        let own = self.organizations.get(&party.organization);
        own.is_none_or(|breaker| breaker.last_failure().is_some_and(|last| now >= last + FORGIVEN))
    }

    /// Begins a call for `party`, as a probe if a pause is over. `false` if no call may be made now.
    pub(super) fn begin(&mut self, party: Party, now: Instant) -> bool {
        if matches!(self.gate(party, now), Gate::Closed { .. }) {
            return false;
        }
        if self.credentials.is_suspended_at(now) {
            self.exemptions.take(now);
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

#[cfg(test)]
mod tests {
    use super::*;

    const DENIED: RefusedStatus = RefusedStatus::PermissionDenied;

    fn party(organization: u64, user: u64) -> Party {
        Party { user, organization }
    }

    /// Refusals of users of `organizations`, until the credentials are under suspicion.
    fn refused(organizations: std::ops::Range<u64>, now: Instant) -> RefusedByVelt {
        let mut refusals = RefusedByVelt::default();
        for call in 0..60 {
            let organization =
                organizations.start + call % (organizations.end - organizations.start);
            refusals.refused(party(organization, call % 2), DENIED, now, now);
        }
        refusals
    }

    #[tokio::test]
    async fn suspension_spares_organizations_that_are_not_refused() {
        let now = Instant::now();
        let mut refusals = refused(0..3, now);
        assert!(refusals.credentials.is_suspended_at(now));
        assert!(!refusals.begin(party(1, 7), now), "this organization is refused");
        let newcomer = party(9, 7);
        assert!(refusals.begin(newcomer, now));
        refusals.minted(newcomer);
        assert_eq!(refusals.gate(party(8, 8), now), Gate::Open, "the credentials are good");
        assert!(!refusals.begin(party(1, 7), now), "and the organization is still refused");
    }

    #[tokio::test]
    async fn dead_credentials_of_many_organizations_cost_few_calls() {
        let start = Instant::now();
        let mut refusals = refused(0..3, start);
        let mut calls = 0;
        for second in 0..7_200 {
            let now = start + Duration::from_secs(second);
            // Every organization is new.
            let party = party(100 + second, second);
            if refusals.begin(party, now) {
                calls += usize::from(second >= 3_600);
                refusals.refused(party, DENIED, now, now);
            }
        }
        assert!((300..=370).contains(&calls), "{calls} calls in the second hour");
    }

    #[tokio::test]
    async fn organization_is_forgiven_after_ten_minutes() {
        let now = Instant::now();
        let mut refusals = refused(0..3, now);
        let once = party(5, 1);
        assert!(refusals.begin(once, now));
        refusals.refused(once, DENIED, now, now);
        assert!(!refusals.begin(once, now), "refused a moment ago");
        assert!(!refusals.is_exempt(once, now + FORGIVEN - Duration::from_secs(1)));
        assert!(refusals.is_exempt(once, now + FORGIVEN));
    }

    #[tokio::test]
    async fn spent_exemptions_make_callers_wait() {
        let now = Instant::now();
        let mut refusals = refused(0..3, now);
        for organization in 10..10 + u64::from(EXEMPT_CALLS) {
            assert!(refusals.begin(party(organization, 1), now));
        }
        // The next exemption comes later than the end of the credentials' first pause.
        assert_eq!(refusals.gate(party(20, 1), now), Gate::Closed { remaining: FIRST_PAUSE });
        assert_eq!(refusals.exemptions.wait(now), EXEMPT_EVERY);
        assert_eq!(refusals.exemptions.wait(now + EXEMPT_EVERY), Duration::ZERO);
    }
}

//! What a person may ask of the cache from outside: what is known for a request, and to forget it.

use std::time::Duration;

use super::{Board, TokenCache};
use crate::token::{Freshness, MintError, MintRequest, Moment};

/// What the cache knows for a request. The token itself is not in here.
#[derive(Clone, Debug)]
pub enum Known {
    Fresh {
        remaining: Duration,
    },
    /// Served, and refreshed with the next request unless a refresh is under way.
    Due {
        remaining: Duration,
        refreshing: bool,
    },
    /// Nothing valid is held, and a mint is under way.
    InFlight,
    /// The last mint failed; `error` is answered from memory for `retry_in` more.
    FailedRecently {
        error: MintError,
        retry_in: Duration,
    },
    /// There was a token, which may not be served any more.
    Expired,
    Absent,
}

/// Whose tokens to forget.
#[derive(Clone, Copy, Debug)]
pub enum Whose<'a> {
    /// Those of this user id, whatever the organization.
    User(&'a str),
    Everybody,
}

/// How much was forgotten.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Forgotten {
    /// Users and organizations with a token or a remembered failure.
    pub entries: usize,
    /// Mints under way. They go on for whoever waits for them, and are not kept.
    pub mints: usize,
}

impl TokenCache {
    /// What is known for `request`. Starts no mint, counts nothing, and keeps no entry alive.
    /// Takes a time that grows with the cache: up to 60 ms at 100,000 entries, so not for a worker.
    pub fn peek(&self, request: &MintRequest) -> Known {
        let (now, shared) = (Moment::now(), &self.shared);
        let in_flight = shared.flights().by_request.contains_key(request);
        // A look-up by key would count as a use of it; an iteration does not.
        let is_held = shared.slots.contains_key(request);
        let slot = is_held.then(|| shared.slots.iter().find(|(key, _)| **key == *request));
        let Some((_, slot)) = slot.flatten() else {
            return if in_flight { Known::InFlight } else { Known::Absent };
        };
        if let Some((token, freshness)) = shared.servable(request, &slot, now) {
            let remaining = token.remaining(now);
            return if freshness == Freshness::Fresh {
                Known::Fresh { remaining }
            } else {
                Known::Due { remaining, refreshing: in_flight }
            };
        }
        match slot.failure_of(shared.minters.epoch(), now) {
            _ if in_flight => Known::InFlight,
            Some(failure) => Known::FailedRecently {
                error: failure
                    .error
                    .clone()
                    .after(now.steady.saturating_duration_since(failure.failed_at)),
                retry_in: failure.retry_at - now.steady,
            },
            None if slot.token().is_some() => Known::Expired,
            None => Known::Absent,
        }
    }

    /// Forgets tokens and remembered failures, so that the next request mints anew. What a mint
    /// under way brings is not kept either: it may have been asked before whatever is the reason
    /// to forget. Only who waited for it already is given it.
    ///
    /// Takes as long as [`Self::peek`] may, but holds nobody up.
    pub fn invalidate(&self, whose: Whose<'_>) -> Forgotten {
        let shared = &self.shared;
        let is_theirs = |request: &MintRequest| match whose {
            Whose::User(user) => *request.user == *user,
            Whose::Everybody => true,
        };
        let theirs = || shared.slots.iter().filter(|(request, _)| is_theirs(request));
        if let Whose::Everybody = whose {
            let entries = theirs().count();
            let mut flights = shared.flights();
            let mints = flights.call_off(is_theirs);
            shared.slots.invalidate_all();
            return Forgotten { entries, mints };
        }
        // From here on only mints land that have begun after the call.
        let mints = shared.flights().call_off(is_theirs);
        let keys: Vec<_> = theirs().map(|(request, _)| request).collect();
        // One that failed meanwhile may have kept the old token beside its failure. So no mint
        // may land between the first and the last of these.
        let _landing_waits = shared.flights();
        for request in &keys {
            shared.slots.invalidate(&**request);
        }
        Forgotten { entries: keys.len(), mints }
    }
}

impl TokenCache {
    /// Forgets the tokens of all generations of credentials before `generation`, and keeps no token
    /// that a mint in flight brings for such a generation.
    pub fn retire(&self, generation: u64) {
        let shared = &self.shared;
        let is_old = |request: &MintRequest| request.issuer().credentials_generation < generation;
        {
            let mut flights = shared.flights();
            flights.oldest_generation = generation;
            flights.call_off(is_old);
        }
        let old: Vec<_> =
            shared.slots.iter().map(|(key, _)| key).filter(|key| is_old(key)).collect();
        for request in old {
            shared.slots.invalidate(&*request);
        }
    }
}

impl Board {
    /// Takes mints off, so that what they bring is not kept. Returns how many.
    fn call_off(&mut self, is_theirs: impl Fn(&MintRequest) -> bool) -> usize {
        let before = self.by_request.len();
        self.by_request.retain(|request, _| !is_theirs(request));
        before - self.by_request.len()
    }
}

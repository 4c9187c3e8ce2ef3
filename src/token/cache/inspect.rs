//! Admin operations on the cache: show the state of a request, and forget tokens.

use std::collections::HashSet;
use std::ops::AddAssign;
use std::time::Duration;

use super::{Board, TokenCache};
use crate::{Freshness, MintError, MintRequest, Moment};
use ground::user_id::UserId;

/// State of a request in the cache, without the token itself.
#[derive(Clone, Debug)]
pub enum Known {
    Fresh {
        remaining: Duration,
    },
    /// The token is served, and refreshed with the next request unless a refresh is under way.
    Due {
        remaining: Duration,
        refreshing: bool,
    },
    /// The cache holds no valid token, and a mint is under way.
    InFlight,
    /// The last mint failed; `error` is answered from memory for `retry_in` more.
    FailedRecently {
        error: MintError,
        retry_in: Duration,
    },
    /// The cache holds a token that may not be served any more.
    Expired,
    Absent,
}

/// Users whose tokens are forgotten. No `Debug`, so that no log shows a user.
#[derive(Clone, Copy)]
pub enum Whose<'a> {
    /// Tokens of this user id, in all organizations.
    User(&'a str),
    /// Tokens of these user ids, in all organizations: one walk for a wave of logouts.
    Users(&'a HashSet<UserId>),
    /// Tokens of all users of this organization, also where it is the configured organization, and of the users
    /// who have a right in it.
    Organization(&'a str),
    Everybody,
}

/// Number of entries and mints that were forgotten.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Forgotten {
    /// Users and organizations with a token or a remembered failure.
    pub entries: usize,
    /// Mints under way. Their waiting callers still get the result, but the cache does not keep the token.
    pub mints: usize,
}

impl AddAssign for Forgotten {
    fn add_assign(&mut self, other: Self) {
        self.entries += other.entries;
        self.mints += other.mints;
    }
}

impl TokenCache {
    /// Returns the state of `request`. Starts no mint, counts nothing, and keeps no entry alive. The time
    /// grows with the cache, up to 60 ms at 100,000 entries, so a tokio worker must not call this function.
    pub fn peek(&self, request: &MintRequest) -> Known {
        let (now, shared) = (Moment::now(), &self.shared);
        let in_flight = shared.board().by_request.contains_key(request);
        // A look-up by key would count as a use of the entry; an iteration does not.
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

    /// Forgets tokens and remembered failures, so that the next request mints anew. A token that a mint under
    /// way brings is not kept either: Velt may have been asked before the event that is the reason to forget.
    /// Only callers that already wait for the mint get the token.
    ///
    /// Takes as long as [`Self::peek`], but blocks no request.
    pub fn invalidate(&self, whose: Whose<'_>) -> Forgotten {
        let shared = &self.shared;
        let is_theirs = |request: &MintRequest| match whose {
            Whose::User(user) => *request.user == *user,
            Whose::Users(users) => users.contains(&request.user),
            Whose::Organization(organization) => names(request, organization),
            Whose::Everybody => true,
        };
        let theirs = || shared.slots.iter().filter(|(request, _)| is_theirs(request));
        if let Whose::Everybody = whose {
            let entries = theirs().count();
            let mut board = shared.board();
            let mints = board.call_off(is_theirs);
            shared.slots.invalidate_all();
            return Forgotten { entries, mints };
        }
        // From here on, only mints that begin later store a result.
        let mints = shared.board().call_off(is_theirs);
        let keys: Vec<_> = theirs().map(|(request, _)| request).collect();
        // A mint that failed meanwhile may have kept the old token beside its failure. So no result may be
        // stored between the first and the last `invalidate`.
        let _no_result_is_stored = shared.board();
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
            let mut board = shared.board();
            board.oldest_generation = generation;
            board.call_off(is_old);
        }
        let old: Vec<_> =
            shared.slots.iter().map(|(key, _)| key).filter(|key| is_old(key)).collect();
        for request in old {
            shared.slots.invalidate(&*request);
        }
    }
}

/// Whether the token of `request` names this organization.
fn names(request: &MintRequest, organization: &str) -> bool {
    request.organization() == Some(organization)
        || request.rights().iter().any(|right| right.is_in(organization))
}

impl Board {
    /// Removes mints from the board, so that their results are not kept. Returns the number of mints removed.
    fn call_off(&mut self, is_theirs: impl Fn(&MintRequest) -> bool) -> usize {
        let before = self.by_request.len();
        self.by_request.retain(|request, _| !is_theirs(request));
        before - self.by_request.len()
    }
}

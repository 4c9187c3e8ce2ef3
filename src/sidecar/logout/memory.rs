//! Memory of the users who were signed out, and the rule by which they get no token.
//!
//! An entry stays until later logouts push it out: a session that was open at the logout may live for weeks. The
//! memory is this process's: after a restart, only a shared store tells of earlier logouts.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use ground::metrics::LogoutMetrics;
use ground::user_id::UserId;
use identity::SignedIn;

/// Most users who are remembered, about 20 MiB. The user whose logout is the longest ago leaves first.
const MAX_USERS: usize = 100_000;

/// Users who were signed out.
pub(super) struct Memory {
    table: RwLock<Table>,
    /// Whether there is no entry, which costs a request one load.
    is_empty: AtomicBool,
    most: usize,
    metrics: LogoutMetrics,
}

#[derive(Default)]
struct Table {
    by_user: HashMap<UserId, Entry>,
    /// Users by the number of their last logout.
    by_number: BTreeMap<u64, UserId>,
    /// Number of logouts so far.
    noted: u64,
}

#[derive(Clone, Copy)]
struct Entry {
    /// Time of the last logout since 1970.
    at: Duration,
    number: u64,
}

impl Memory {
    pub(super) fn new(metrics: LogoutMetrics) -> Self {
        let table = RwLock::default();
        Self { table, is_empty: AtomicBool::new(true), most: MAX_USERS, metrics }
    }

    /// Whether no user was signed out.
    pub(super) fn is_empty(&self) -> bool {
        self.is_empty.load(Ordering::Acquire)
    }

    /// Takes note of a logout at `at`, the time since 1970. An earlier logout of the user counts no more.
    pub(super) fn note(&self, user: &UserId, at: Duration) {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        let dropped = table.note(user, at, self.most);
        self.is_empty.store(false, Ordering::Release);
        self.metrics.remembered.set(i64::try_from(table.by_user.len()).unwrap_or(i64::MAX));
        self.metrics.dropped.inc_by(u64::from(dropped));
    }

    /// Whether a logout of the user at `at`, the time since 1970, or a later one is noted.
    pub(super) fn knows(&self, user: &UserId, at: Duration) -> bool {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        table.by_user.get(user).is_some_and(|entry| entry.at >= at)
    }

    /// Whether a user who has `signed_in` at these times gets no token at `now`, the time since 1970.
    pub(super) fn refuses(
        &self,
        user: &str,
        signed_in: SignedIn,
        now: Duration,
        refuse_for: Option<Duration>,
    ) -> bool {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        let entry = table.by_user.get(&UserId::from(user));
        entry.is_some_and(|entry| is_refused(entry.at, signed_in, now, refuse_for))
    }
}

impl Table {
    /// Takes note of a logout. Returns whether another user was pushed out.
    fn note(&mut self, user: &UserId, at: Duration, most: usize) -> bool {
        self.noted += 1;
        let number = self.noted;
        let old = self.by_user.get(user).copied();
        let at = old.map_or(at, |old| old.at.max(at));
        if let Some(old) = old {
            self.by_number.remove(&old.number);
        }
        self.by_user.insert(user.clone(), Entry { at, number });
        self.by_number.insert(number, user.clone());
        if self.by_user.len() <= most {
            return false;
        }
        if let Some((_, oldest)) = self.by_number.pop_first() {
            self.by_user.remove(&oldest);
        }
        true
    }
}

/// Whether a logout at `at` leaves a user without a token.
///
/// A login later than the logout lifts it. Times are compared in whole seconds, as tokens have them, and a login in
/// the very second of the logout counts as before it. The time at which an assertion was made (`iat`) can only show
/// that the assertion is old: proxies and libraries make new ones from an old session. Without the time of the
/// login, the refusal ends `refuse_for` after the logout.
fn is_refused(
    at: Duration,
    signed_in: SignedIn,
    now: Duration,
    refuse_for: Option<Duration>,
) -> bool {
    if let Some(login) = signed_in.at {
        return login.as_secs() <= at.as_secs();
    }
    let is_old = signed_in.issued.is_some_and(|issued| issued.as_secs() <= at.as_secs());
    is_old || refuse_for.is_some_and(|refuse_for| now < at.saturating_add(refuse_for))
}

#[cfg(test)]
mod tests {
    use ground::metrics::Metrics;

    use super::*;

    const LOGOUT: Duration = Duration::from_secs(1000);
    const QUARTER: Option<Duration> = Some(Duration::from_secs(900));

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn later_login_lifts_the_refusal_and_an_earlier_one_does_not() {
        for (login, refused) in [(0, true), (999, true), (1000, true), (1001, false)] {
            let signed_in = SignedIn { at: Some(at(login)), issued: Some(at(1500)) };
            for now in [at(1000), at(1_000_000)] {
                assert_eq!(is_refused(LOGOUT, signed_in, now, QUARTER), refused, "{login}");
                assert_eq!(is_refused(LOGOUT, signed_in, now, None), refused, "{login}");
            }
        }
    }

    #[test]
    fn logout_that_is_told_again_is_known() {
        let memory = Memory::new(ground::metrics::Metrics::new().logout);
        let (ada, eve) = (UserId::from("ada"), UserId::from("eve"));
        memory.note(&ada, at(1000));
        let known = [at(999), at(1000), at(1001)].map(|at| memory.knows(&ada, at));
        assert_eq!(known, [true, true, false]);
        assert!(!memory.knows(&eve, at(1000)));
    }

    #[test]
    fn t71_identity_without_a_login_time_waits() {
        let unknown = SignedIn::default();
        assert!(is_refused(LOGOUT, unknown, at(1899), QUARTER));
        assert!(!is_refused(LOGOUT, unknown, at(1900), QUARTER));
        assert!(!is_refused(LOGOUT, unknown, at(1000), None));
        // A session that a library renews has a new `iat` for each request.
        let renewed = SignedIn { at: None, issued: Some(at(1100)) };
        assert!(is_refused(LOGOUT, renewed, at(1100), QUARTER));
        assert!(!is_refused(LOGOUT, renewed, at(1900), QUARTER));
        // An assertion from before the logout never gets a token.
        let old = SignedIn { at: None, issued: Some(at(900)) };
        assert!(is_refused(LOGOUT, old, at(9000), QUARTER));
        assert!(is_refused(LOGOUT, old, at(9000), None));
    }

    #[test]
    fn t70_memory_is_bounded_and_the_oldest_logout_leaves() {
        let metrics = Metrics::new().logout;
        let memory = Memory { most: 3, ..Memory::new(metrics.clone()) };
        assert!(memory.is_empty());
        for (user, when) in [("a", 1), ("b", 2), ("c", 3), ("a", 4), ("d", 5)] {
            memory.note(&user.into(), at(when));
        }
        assert!(!memory.is_empty());
        let refused = |user| memory.refuses(user, SignedIn::default(), at(5), QUARTER);
        assert_eq!(["a", "b", "c", "d"].map(refused), [true, false, true, true]);
        assert_eq!((metrics.remembered.get(), metrics.dropped.get()), (3, 1));
    }

    #[test]
    fn earlier_logout_that_is_heard_late_moves_no_time_back() {
        let memory = Memory::new(Metrics::new().logout);
        memory.note(&"a".into(), at(1000));
        memory.note(&"a".into(), at(500));
        let between = SignedIn { at: Some(at(700)), issued: None };
        assert!(memory.refuses("a", between, at(1001), None));
    }
}

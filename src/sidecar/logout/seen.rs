//! Memory of the calls that were carried out, so that each has its effect once.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};

use ground::metrics::{Label as _, LogoutSource};

/// Most calls that are remembered, about 3 MiB. A call enters only if its signature is right, and leaves when it
/// could not be valid any more, after six minutes at most.
const MAX_CALLS: usize = 20_000;

/// Name of a call, as a digest: a sender's names can be of any length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct CallId([u8; 32]);

impl CallId {
    /// Makes the name of a call that `source` calls `id`.
    pub(super) fn of(source: LogoutSource, id: &str) -> Self {
        let mut context = Context::new(&SHA256);
        // No word of a source is the start of another.
        context.update(source.as_str().as_bytes());
        context.update(&[0]);
        context.update(id.as_bytes());
        Self(context.finish().as_ref().try_into().expect("SHA-256 has 32 bytes"))
    }
}

impl From<CallId> for [u8; 32] {
    fn from(id: CallId) -> Self {
        id.0
    }
}

/// Calls that were carried out, each until the end of its validity.
#[derive(Default)]
pub(super) struct Seen(Mutex<Calls>);

#[derive(Default)]
struct Calls {
    until: HashMap<CallId, Duration>,
    by_end: BTreeSet<(Duration, CallId)>,
}

impl Seen {
    /// Enters a call that is valid until `until`. Returns `false` if the call was entered before.
    pub(super) fn enter(&self, id: CallId, until: Duration, now: Duration) -> bool {
        let mut calls = self.calls();
        while let Some((end, first)) = calls.by_end.first().copied()
            && (end <= now || calls.by_end.len() >= MAX_CALLS)
        {
            calls.remove(end, first);
        }
        if calls.until.contains_key(&id) {
            return false;
        }
        calls.until.insert(id, until);
        calls.by_end.insert((until, id));
        true
    }

    /// Takes a call out again whose effect was not complete.
    pub(super) fn leave(&self, id: CallId) {
        let mut calls = self.calls();
        if let Some(until) = calls.until.get(&id).copied() {
            calls.remove(until, id);
        }
    }

    fn calls(&self) -> MutexGuard<'_, Calls> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Calls {
    fn remove(&mut self, until: Duration, id: CallId) {
        self.by_end.remove(&(until, id));
        self.until.remove(&id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: usize) -> Duration {
        Duration::from_secs(seconds as u64)
    }

    #[test]
    fn call_is_entered_once_until_it_ends_or_leaves() {
        let seen = Seen::default();
        let id = CallId::of(LogoutSource::Oidc, "1");
        assert!(seen.enter(id, at(10), at(0)));
        assert!(!seen.enter(id, at(10), at(9)));
        assert!(seen.enter(CallId::of(LogoutSource::Webhook, "1"), at(10), at(9)));
        seen.leave(id);
        assert!(seen.enter(id, at(20), at(9)));
        assert!(!seen.enter(id, at(20), at(19)));
        assert!(seen.enter(id, at(30), at(20)), "the first has ended");
    }

    #[test]
    fn t70_memory_of_calls_is_bounded() {
        let seen = Seen::default();
        let id = |number: usize| CallId::of(LogoutSource::Oidc, &number.to_string());
        for number in 0..MAX_CALLS + 10 {
            assert!(seen.enter(id(number), at(100 + number), at(0)));
        }
        assert_eq!(seen.calls().until.len(), MAX_CALLS);
        assert_eq!(seen.calls().by_end.len(), MAX_CALLS);
        assert!(!seen.enter(id(MAX_CALLS + 9), at(1), at(0)), "the latest is remembered");
        assert!(seen.enter(id(0), at(1), at(0)), "the one that would have ended first is not");
    }
}

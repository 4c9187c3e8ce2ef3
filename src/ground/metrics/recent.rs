//! The last refusals one by one. Counters say how many refusals there were; this list says when, from which
//! peer and about which header. No user, path or value is in the list.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use http::HeaderName;

use super::{AssertionResult, Label as _, MintOutcome, RefusalKind, SpoofKind};

/// Number of refusals of each sort that are remembered, so that a flood of one sort does not push out the
/// others.
pub const REMEMBERED: usize = 32;

/// One refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    pub at: SystemTime,
    /// Sort of refusal: `identity`, `assertion`, `spoof` or `token`. `kind` has the same words as the counter
    /// of this sort.
    pub what: &'static str,
    pub kind: &'static str,
    /// `None` for a mint, which is for all requests that wait for it, for trailers, and for the app's
    /// responses.
    pub peer: Option<IpAddr>,
    /// Header that the refusal is about.
    pub header: Option<HeaderName>,
}

/// The last [`REMEMBERED`] refusals of each sort.
#[derive(Debug, Default)]
pub struct Recent(Mutex<VecDeque<Refused>>);

impl Recent {
    /// Notes an ambiguous identity.
    pub fn ambiguous(&self, kind: RefusalKind, header: &HeaderName, peer: Option<IpAddr>) {
        self.push("identity", kind.as_str(), peer, Some(header.clone()));
    }

    /// Notes an assertion that is not valid.
    pub fn invalid(&self, result: AssertionResult, peer: IpAddr) {
        self.push("assertion", result.as_str(), Some(peer), None);
    }

    /// Notes a header that only the login proxy may set.
    pub fn spoofed(&self, kind: SpoofKind, header: Option<HeaderName>, peer: Option<IpAddr>) {
        self.push("spoof", kind.as_str(), peer, header);
    }

    /// Notes a mint that brought no token.
    pub fn mint_failed(&self, outcome: MintOutcome) {
        self.push("token", outcome.as_str(), None, None);
    }

    /// Returns the refusals, the newest first.
    pub fn all(&self) -> Vec<Refused> {
        self.lock().iter().rev().cloned().collect()
    }

    fn push(
        &self,
        what: &'static str,
        kind: &'static str,
        peer: Option<IpAddr>,
        header: Option<HeaderName>,
    ) {
        let mut last = self.lock();
        if last.iter().filter(|refused| refused.what == what).count() == REMEMBERED {
            let oldest = last.iter().position(|refused| refused.what == what);
            last.remove(oldest.expect("there are some"));
        }
        let peer = peer.map(|peer| peer.to_canonical());
        last.push_back(Refused { at: SystemTime::now(), what, kind, peer, header });
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Refused>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

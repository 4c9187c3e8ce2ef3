//! What the cache holds for one key, in as little memory as it takes: there may be a hundred
//! thousand of them.

use std::sync::atomic::{AtomicU32, Ordering};

use tokio::time::Instant;

use crate::token::{Freshness, MintError, MintRequest, Moment, Token};

/// What an entry costs beside the strings it owns: moka's nodes, the slot, the key, the map entries,
/// and what the allocator rounds up. Measured as resident memory over 100,000 entries: 484 bytes for
/// a token of 900 (`benches/token_cache.rs` prints it), 617 for the one of up to 2 KB that fits worst.
const ENTRY_OVERHEAD: usize = 620;

/// What is known for one key. Immutable but for the time of last use; each mint replaces it.
pub(super) struct Slot {
    pub(super) token: Option<Token>,
    /// On the heap: hardly any slot has one.
    pub(super) failure: Option<Box<Failure>>,
    /// Of whoever minted the token.
    pub(super) epoch: u32,
    /// Seconds since the cache was made, for the outage headroom only; 0 is never.
    last_served: AtomicU32,
}

/// The memory of a failed mint.
#[derive(Clone)]
pub(super) struct Failure {
    pub(super) error: MintError,
    /// Of whoever failed.
    pub(super) epoch: u32,
    /// In a row, this one included.
    pub(super) count: u32,
    pub(super) retry_at: Instant,
}

impl Slot {
    pub(super) fn new(
        token: Option<Token>,
        epoch: u32,
        failure: Option<Box<Failure>>,
        last_served: u32,
    ) -> Self {
        Self { token, failure, epoch, last_served: AtomicU32::new(last_served) }
    }

    /// The token and its freshness, unless it has expired.
    pub(super) fn servable(&self, now: Moment) -> Option<(Token, Freshness)> {
        let token = self.token.as_ref()?;
        match token.freshness(now) {
            Freshness::Expired => None,
            freshness => Some((token.clone(), freshness)),
        }
    }

    /// The failure that may still be answered from memory while `epoch` mints.
    pub(super) fn failure_of(&self, epoch: u32, now: Moment) -> Option<&Failure> {
        let is_remembered =
            |failure: &&Failure| now.steady < failure.retry_at && failure.epoch == epoch;
        self.failure.as_deref().filter(is_remembered)
    }

    pub(super) fn served(&self, seconds: u32) {
        // As a rule it is the same second, and a write would take the memory from another thread.
        if self.last_served() != seconds {
            self.last_served.store(seconds, Ordering::Relaxed);
        }
    }

    pub(super) fn last_served(&self) -> u32 {
        self.last_served.load(Ordering::Relaxed)
    }

    /// What it costs with its key.
    pub(super) fn bytes(&self, request: &MintRequest) -> u64 {
        let token = self.token.as_ref().map_or(0, |token| token.value().expose().len());
        (request.owned_bytes() + token + ENTRY_OVERHEAD) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_each_user_costs_has_not_grown() {
        // With the counts of an `Arc`, 96 bytes: a size of the allocator's.
        assert_eq!(size_of::<Slot>(), 80);
    }
}

//! Value that the cache holds for one key, in as little memory as possible: there may be a hundred thousand.

use std::sync::Arc;

use tokio::time::Instant;

use crate::{Freshness, MintError, MintRequest, Moment, Token};

/// Memory of an entry in bytes, without the strings that the entry owns: moka's nodes, the slot, the key, the
/// map entries, and the rounding of the allocator. Measured as resident memory over 100,000 entries: 469
/// bytes for a token of 900 bytes (`benches/token_cache.rs` prints this figure), 602 for the length up to 2
/// KB that fits worst.
const ENTRY_OVERHEAD: usize = 620;

/// Token or failure known for one key. moka returns a copy for each look-up; copies share the large parts.
#[derive(Clone)]
pub(super) struct Slot {
    held: Held,
    /// Credential epoch under which the token was minted.
    pub(super) epoch: u32,
    /// Time of the last use in seconds since the cache was made, for the outage headroom only; 0 is never.
    pub(super) last_served: u32,
}

#[derive(Clone)]
enum Held {
    Token(Token),
    /// Held by an `Arc`, so that the rare failure does not make every slot larger.
    Failed(Arc<FailedMint>),
}

/// A failed mint, and the token that was still good then.
struct FailedMint {
    failure: RememberedFailure,
    token: Option<Token>,
}

/// A failed mint that is answered from memory.
pub(super) struct RememberedFailure {
    pub(super) error: MintError,
    /// Credential epoch of the failed mint.
    pub(super) epoch: u32,
    /// Number of failures in a row, this failure included.
    pub(super) count: u32,
    pub(super) failed_at: Instant,
    pub(super) retry_at: Instant,
}

impl Slot {
    /// Returns the slot after a mint under `epoch` that brought `token`; the token is served at `seconds`.
    pub(super) fn minted(token: Token, epoch: u32, seconds: u32) -> Self {
        Self { held: Held::Token(token), epoch, last_served: seconds }
    }

    /// Returns the slot after a failed mint. Keeps the token of the slot `before`, if the token is still
    /// good.
    pub(super) fn failed(failure: RememberedFailure, before: Option<&Self>, now: Moment) -> Self {
        let good = before.filter(|slot| slot.servable(now).is_some());
        let epoch = good.map_or(failure.epoch, |slot| slot.epoch);
        let failed = FailedMint { failure, token: good.and_then(Self::token).cloned() };
        let last_served = before.map_or(0, |slot| slot.last_served);
        Self { held: Held::Failed(Arc::new(failed)), epoch, last_served }
    }

    /// Returns the slot with `seconds` as the time of its last use.
    pub(super) fn served(self, seconds: u32) -> Self {
        Self { last_served: seconds, ..self }
    }

    pub(super) fn token(&self) -> Option<&Token> {
        match &self.held {
            Held::Token(token) => Some(token),
            Held::Failed(failed) => failed.token.as_ref(),
        }
    }

    pub(super) fn failure(&self) -> Option<&RememberedFailure> {
        match &self.held {
            Held::Token(_) => None,
            Held::Failed(failed) => Some(&failed.failure),
        }
    }

    /// Returns the token and its freshness, unless the token has expired.
    pub(super) fn servable(&self, now: Moment) -> Option<(&Token, Freshness)> {
        let token = self.token()?;
        match token.freshness(now) {
            Freshness::Expired => None,
            freshness => Some((token, freshness)),
        }
    }

    /// Returns the failure that may still be answered from memory while `epoch` is the current one.
    pub(super) fn failure_of(&self, epoch: u32, now: Moment) -> Option<&RememberedFailure> {
        self.failure().filter(|failure| now.steady < failure.retry_at && failure.epoch == epoch)
    }

    /// Returns the memory of the slot and its key, in bytes.
    pub(super) fn bytes(&self, request: &MintRequest) -> u64 {
        let token = self.token().map_or(0, |token| token.value().expose().len());
        (request.owned_bytes() + token + ENTRY_OVERHEAD) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cache_slot_keeps_its_size() {
        // With the fields that moka stores beside the slot, 96 bytes: a size of the allocator.
        assert_eq!(size_of::<Slot>(), 72);
    }
}

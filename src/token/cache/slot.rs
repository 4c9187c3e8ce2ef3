//! What the cache holds for one key, in as little memory as it takes: there may be a hundred
//! thousand of them.

use std::sync::Arc;

use tokio::time::Instant;

use crate::token::{Freshness, MintError, MintRequest, Moment, Token};

/// What an entry costs beside the strings it owns: moka's nodes, the slot, the key, the map entries,
/// and what the allocator rounds up. Measured as resident memory over 100,000 entries: 469 bytes for
/// a token of 900 (`benches/token_cache.rs` prints it), 602 for the one of up to 2 KB that fits worst.
const ENTRY_OVERHEAD: usize = 620;

/// What is known for one key. moka hands out a copy for each look-up, which shares what is large.
#[derive(Clone)]
pub(super) struct Slot {
    held: Held,
    /// Of whoever minted the token.
    pub(super) epoch: u32,
    /// Seconds since the cache was made, for the outage headroom only; 0 is never.
    pub(super) last_served: u32,
}

#[derive(Clone)]
enum Held {
    Token(Token),
    /// On the heap: hardly any slot is one of these.
    Failed(Arc<Failed>),
}

/// A failed mint, and the token that was still good then.
struct Failed {
    failure: Failure,
    token: Option<Token>,
}

/// The memory of a failed mint.
pub(super) struct Failure {
    pub(super) error: MintError,
    /// Of whoever failed.
    pub(super) epoch: u32,
    /// In a row, this one included.
    pub(super) count: u32,
    pub(super) failed_at: Instant,
    pub(super) retry_at: Instant,
}

impl Slot {
    /// After a mint: `epoch` has minted `token`, which is served at `seconds`.
    pub(super) fn minted(token: Token, epoch: u32, seconds: u32) -> Self {
        Self { held: Held::Token(token), epoch, last_served: seconds }
    }

    /// After a mint that failed. Of the one before, if any, a token that is still good is kept.
    pub(super) fn failed(failure: Failure, before: Option<&Self>, now: Moment) -> Self {
        let good = before.filter(|slot| slot.servable(now).is_some());
        let epoch = good.map_or(failure.epoch, |slot| slot.epoch);
        let failed = Failed { failure, token: good.and_then(Self::token).cloned() };
        let last_served = before.map_or(0, |slot| slot.last_served);
        Self { held: Held::Failed(Arc::new(failed)), epoch, last_served }
    }

    /// The same, served at `seconds`.
    pub(super) fn served(self, seconds: u32) -> Self {
        Self { last_served: seconds, ..self }
    }

    pub(super) fn token(&self) -> Option<&Token> {
        match &self.held {
            Held::Token(token) => Some(token),
            Held::Failed(failed) => failed.token.as_ref(),
        }
    }

    pub(super) fn failure(&self) -> Option<&Failure> {
        match &self.held {
            Held::Token(_) => None,
            Held::Failed(failed) => Some(&failed.failure),
        }
    }

    /// The token and its freshness, unless it has expired.
    pub(super) fn servable(&self, now: Moment) -> Option<(&Token, Freshness)> {
        let token = self.token()?;
        match token.freshness(now) {
            Freshness::Expired => None,
            freshness => Some((token, freshness)),
        }
    }

    /// The failure that may still be answered from memory while `epoch` mints.
    pub(super) fn failure_of(&self, epoch: u32, now: Moment) -> Option<&Failure> {
        self.failure().filter(|failure| now.steady < failure.retry_at && failure.epoch == epoch)
    }

    /// What it costs with its key.
    pub(super) fn bytes(&self, request: &MintRequest) -> u64 {
        let token = self.token().map_or(0, |token| token.value().expose().len());
        (request.owned_bytes() + token + ENTRY_OVERHEAD) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_each_user_costs_has_not_grown() {
        // With what moka puts beside it, 96 bytes: a size of the allocator's.
        assert_eq!(size_of::<Slot>(), 72);
    }
}

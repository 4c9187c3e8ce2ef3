//! Tokens that go from one replica to another: what a replica holds, and a younger token that another replica has.

use super::{Slot, TokenCache};
use crate::{MintRequest, Minted, Moment, Origin, Token};

impl TokenCache {
    /// Replaces the token held for `request` by a younger one that another replica has had minted. Keeps to itself
    /// what is not asked for: does nothing if no token is held, or a token that is as young. Returns whether the
    /// token was replaced.
    pub fn take(&self, request: &MintRequest, minted: Minted) -> bool {
        let (shared, now) = (&self.shared, Moment::now());
        let superseded = matches!(minted.origin, Origin::Replica { superseded: true, .. });
        let token = Token::new(minted, request, now);
        // Locked to the end, so that no token is forgotten between the look-up and the insertion.
        let board = shared.board();
        if superseded || request.issuer().credentials_generation < board.oldest_generation {
            return false;
        }
        let Some(slot) = shared.slots.get(request) else { return false };
        let is_younger =
            |held: &Token| held.value() != token.value() && held.minted_at() < token.minted_at();
        if !slot.token().is_some_and(is_younger) {
            return false;
        }
        let slot = Slot::minted(token, shared.minters.epoch(), slot.last_served);
        shared.slots.insert(request.clone(), slot);
        true
    }

    /// Returns the tokens that may be served and were minted with the credentials in force. Takes as long as
    /// [`Self::peek`], so a tokio worker must not call this function.
    pub fn held(&self) -> Vec<(MintRequest, Token)> {
        let (shared, now) = (&self.shared, Moment::now());
        let epoch = shared.minters.epoch();
        let current = shared.slots.iter().filter(|(_, slot)| slot.epoch == epoch);
        let good = current.filter_map(|(request, slot)| {
            let (token, _) = slot.servable(now)?;
            Some((MintRequest::clone(&request), token.clone()))
        });
        good.collect()
    }

    /// Returns the token held for `request`, if it may be served and was minted with the credentials in force.
    pub fn held_for(&self, request: &MintRequest) -> Option<Token> {
        let shared = &self.shared;
        let slot = shared.slots.get(request)?;
        let (token, _) = slot.servable(Moment::now())?;
        (slot.epoch == shared.minters.epoch()).then(|| token.clone())
    }
}

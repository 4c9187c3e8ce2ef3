//! Pages report that Velt refused their token, and the sidecar mints another.
//!
//! A report counts only if it names the token that the cache holds, and causes at most one mint a minute for each user,
//! so that no page can make the sidecar mint without bound.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use moka::policy::EvictionPolicy;
use tokio::time::Instant;

use super::{Lookup, MintInFlight, Shared, TokenCache};
use crate::{Demand, MintRequest, Moment, TokenValue};
use ground::metrics::RefusedTokenResult;
use ground::trace::Recording;
use ground::user_id::UserId;

/// Shortest time between two renewals of one user.
const RENEWED_EVERY: Duration = Duration::from_secs(60);

/// Most users whose last renewal is remembered. Beyond that the earliest is forgotten, so more users than this
/// would have to report within a minute before one of them has two renewals in it. About 150 bytes each.
const MAX_REMEMBERED: u64 = 20_000;

/// SHA-256 of a token's text. Tells a page's token from another without a copy of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Returns the fingerprint of a token.
    pub fn of(token: &TokenValue) -> Self {
        let hash = digest(&SHA256, token.expose().as_bytes());
        Self(hash.as_ref().try_into().expect("SHA-256 has 32 bytes"))
    }

    /// Reads 64 hexadecimal digits in lower case. Returns `None` for any other text.
    pub fn parse(text: &str) -> Option<Self> {
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            _ => None,
        };
        let digits: [u8; 64] = text.as_bytes().try_into().ok()?;
        let mut hash = [0; 32];
        for (byte, pair) in hash.iter_mut().zip(digits.as_chunks::<2>().0) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Some(Self(hash))
    }

    /// Writes the fingerprint as [`Self::parse`] reads it.
    pub fn to_hex(self) -> String {
        self.0.iter().fold(String::with_capacity(64), |mut hex, byte| {
            write!(hex, "{byte:02x}").expect("a string takes any text");
            hex
        })
    }
}

/// Times of the last renewals by user. Written only while the board is locked.
pub(super) struct Renewals(moka::sync::Cache<UserId, Instant>);

impl Default for Renewals {
    fn default() -> Self {
        let times = moka::sync::Cache::builder()
            .max_capacity(MAX_REMEMBERED)
            .eviction_policy(EvictionPolicy::lru())
            // Only frees memory: the stored time decides, by a clock that tests move.
            .time_to_live(RENEWED_EVERY * 2)
            .build();
        Self(times)
    }
}

impl Renewals {
    /// Forgets a renewal of this time that brought no token. A later renewal of the user stays.
    fn take_back(&self, user: &UserId, at: Instant) {
        if self.0.get(user) == Some(at) {
            self.0.invalidate(user);
        }
    }

    /// Returns the rest of the time in which this user's pages cause no other renewal.
    fn wait(&self, user: &UserId, now: Instant) -> Option<Duration> {
        let until = self.0.get(user)? + RENEWED_EVERY;
        until.checked_duration_since(now).filter(|wait| !wait.is_zero())
    }
}

/// Answer to a report that Velt has refused a token.
pub enum Renewal {
    /// The report is believed: a mint is under way, or has just failed for the reason in the look-up.
    Renewing(Lookup),
    /// The cache holds another token than the refused one, or none.
    NotHeld,
    /// The user's token was renewed less than a minute ago.
    TooSoon { retry_after: Duration },
}

impl TokenCache {
    /// Mints anew if `refused` is the token held for `request`. The held token stays until the new one is there.
    /// The mint comes after those of users who have no token.
    ///
    /// # Panics
    ///
    /// Panics outside a tokio runtime, like [`Self::get_for`].
    pub fn renew(
        &self,
        request: MintRequest,
        refused: Fingerprint,
        cause: Option<&Recording>,
        now: Moment,
    ) -> Renewal {
        let (renewal, result) = self.shared.renew(request, refused, cause, now);
        self.shared.metrics.refused_tokens.increment(result);
        renewal
    }

    /// Joins the refresh of the token for `request` that is under way, if there is one. The mints of users without
    /// a token still go first. Returns `None` after a failed refresh: then the next one most likely fails too.
    pub fn refresh_under_way(&self, request: &MintRequest) -> Option<MintInFlight> {
        let shared = &self.shared;
        let has_failed = shared.slots.get(request).is_some_and(|slot| slot.failure().is_some());
        if has_failed { None } else { shared.board().join(request) }
    }
}

impl Shared {
    fn renew(
        self: &Arc<Self>,
        request: MintRequest,
        refused: Fingerprint,
        cause: Option<&Recording>,
        now: Moment,
    ) -> (Renewal, RefusedTokenResult) {
        let mut board = self.board();
        let slot = self.slots.get(&request);
        let held = slot.as_ref().and_then(|slot| slot.servable(now));
        if held.is_none_or(|(token, _)| Fingerprint::of(token.value()) != refused) {
            return (Renewal::NotHeld, RefusedTokenResult::NotHeld);
        }
        let replaced = held.map(|(token, _)| token.clone());
        if let Some(mint) = board.join(&request) {
            return (Renewal::Renewing(Lookup::Pending(mint)), RefusedTokenResult::Joined);
        }
        let failure = slot.as_ref().and_then(|slot| self.remembered_failure(slot, now));
        if let Some(error) = failure {
            return (Renewal::Renewing(Lookup::Ready(Err(error))), RefusedTokenResult::Failed);
        }
        // Velt refuses tokens of former credentials, so such a report need not wait for the minute.
        let is_superseded = slot.is_some_and(|slot| slot.epoch != self.minters.epoch());
        if let Some(retry_after) = self.renewals.wait(&request.user, now.steady)
            && !is_superseded
        {
            return (Renewal::TooSoon { retry_after }, RefusedTokenResult::TooSoon);
        }
        let user = request.user.clone();
        self.renewals.0.insert(user.clone(), now.steady);
        let demand = Demand::refresh(replaced);
        let span = cause.map(Recording::begin_call);
        let (receiver, minting) = self.enter_mint(&mut board, request, &demand, span);
        // See `TokenCache::absent` for why the board is unlocked first.
        drop(board);
        let mint = MintInFlight { receiver, demand };
        let (shared, ended) = (Arc::clone(self), mint.receiver.clone());
        tokio::spawn(async move {
            minting.await;
            // A failed mint does not use up the user's minute: the remembered failure already limits further calls.
            if !matches!(&*ended.borrow(), Some(Ok(_))) {
                let _no_renewal_begins = shared.board();
                shared.renewals.take_back(&user, now.steady);
            }
        });
        (Renewal::Renewing(Lookup::Pending(mint)), RefusedTokenResult::Renewed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprint_is_the_sha_256_of_the_text() {
        let token = TokenValue::parse("abc").expect("a token");
        // printf abc | sha256sum
        let hash = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(Fingerprint::of(&token).to_hex(), hash);
        assert_eq!(Fingerprint::parse(hash), Some(Fingerprint::of(&token)));
    }

    #[test]
    fn fingerprint_of_another_form_is_not_read() {
        let hash = "0123456789abcdef".repeat(4);
        assert!(Fingerprint::parse(&hash).is_some_and(|read| read.to_hex() == hash));
        for other in
            ["", &hash[1..], &hash.to_uppercase(), &format!("{hash}0"), &format!(" {hash}")]
        {
            assert_eq!(Fingerprint::parse(other), None, "{other}");
        }
        for odd in ['/', ':', '`', 'g', 'G', ' ', '\u{e9}'] {
            for at in [0, 31, 63] {
                let mut digits: Vec<char> = hash.chars().collect();
                digits[at] = odd;
                assert_eq!(Fingerprint::parse(&String::from_iter(digits)), None, "{odd} at {at}");
            }
        }
    }
}

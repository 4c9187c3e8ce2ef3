//! States of the token for a response of the app, from the look-up to the delivery.

use std::time::Duration;

use super::error::NoToken;
use token::Token;
use token::cache::{Lookup, MintInFlight};

/// Token for a response of the app: found, being minted, or missing for a reason.
pub(super) enum TokenState {
    /// Only the app can name the caller: the token is looked up when the app has done so.
    AfterApp,
    /// There is no token, for this reason.
    Absent(NoToken),
    /// A mint is under way.
    Minting(MintInFlight),
    /// The token is at hand.
    Ready(Token),
}

impl From<Result<Lookup, NoToken>> for TokenState {
    fn from(found: Result<Lookup, NoToken>) -> Self {
        match found {
            Ok(Lookup::Ready(Ok(token))) => Self::Ready(token),
            Ok(Lookup::Ready(Err(error))) => Self::Absent(NoToken::Failed(error)),
            Ok(Lookup::Pending(mint)) => Self::Minting(mint),
            Err(absent) => Self::Absent(absent),
        }
    }
}

impl TokenState {
    /// Returns the token; waits at most `patience` for a mint under way.
    pub(super) async fn within(self, patience: Duration) -> Result<Token, NoToken> {
        match self {
            Self::Ready(token) => Ok(token),
            Self::Absent(absent) => Err(absent),
            Self::AfterApp => Err(NoToken::Unnamed),
            Self::Minting(mint) => match Lookup::Pending(mint).within(patience).await {
                Ok(result) => result.map_err(NoToken::Failed),
                Err(unfinished) => Err(unfinished.into()),
            },
        }
    }

    /// Waits for the token before the app is asked: the app would have acted on a request that was refused
    /// later. Anonymous callers pass, and callers whom only the app can name.
    pub(super) async fn insist(&mut self, patience: Duration) -> Result<(), NoToken> {
        if !matches!(self, Self::AfterApp | Self::Absent(NoToken::Anonymous)) {
            let state = std::mem::replace(self, Self::AfterApp);
            *self = Self::Ready(state.within(patience).await?);
        }
        Ok(())
    }
}

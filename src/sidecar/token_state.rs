//! States of the token for a response of the app, from the look-up to the delivery.

use std::time::Duration;

use std::sync::Arc;

use super::details::{InFlight, Question};
use super::error::NoToken;
use crate::inject::TokenStatus;
use ground::metrics::HeaderDelivery;
use identity::User;
use token::Token;
use token::cache::{Lookup, MintInFlight};

/// Token for a response of the app: found, being minted, or missing for a reason.
pub(super) enum TokenState {
    /// Only the app can name the caller: the token is looked up when the app has done so. The question is
    /// for the caller's details, if the app is asked for any.
    AfterApp(Option<Box<Question>>),
    /// The app is asked for the caller's details.
    Asking(InFlight),
    /// The caller with the app's details, and what the look-up has found for them.
    Detailed(Box<(Arc<User>, Result<Lookup, NoToken>)>),
    /// There is no token, for this reason.
    Absent(NoToken),
    /// A mint is under way.
    Minting(MintInFlight),
    /// The token is at hand.
    Ready(Token),
}

/// Absence of a token, as the app is told of it and as it is counted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Absence {
    pub(super) status: TokenStatus,
    pub(super) delivery: HeaderDelivery,
}

impl Absence {
    pub(super) fn of(absent: &NoToken) -> Self {
        Self { status: absent.status(), delivery: absent.delivery() }
    }
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
    /// Returns the caller with the app's details, once these are known.
    pub(super) fn user(&self) -> Option<Arc<User>> {
        match self {
            Self::Detailed(detailed) => Some(Arc::clone(&detailed.0)),
            _ => None,
        }
    }

    /// Returns the token, or says why there is none; waits at most `patience` for a mint under way. Does not wait
    /// for details. The state stays, for a later wait.
    pub(super) async fn arrive(&self, patience: Duration) -> Result<Token, Absence> {
        let lookup = match self {
            Self::Ready(token) => return Ok(token.clone()),
            Self::Absent(absent) => return Err(Absence::of(absent)),
            Self::AfterApp(_) => return Err(Absence::of(&NoToken::Unnamed)),
            Self::Asking(_) => return Err(Absence::of(&NoToken::DetailsPending)),
            Self::Minting(mint) => Lookup::Pending(mint.clone()),
            Self::Detailed(detailed) => match &detailed.1 {
                Ok(lookup) => lookup.clone(),
                Err(absent) => return Err(Absence::of(absent)),
            },
        };
        match lookup.within(patience).await {
            Ok(result) => result.map_err(|error| Absence::of(&NoToken::Failed(error))),
            Err(unfinished) => Err(Absence::of(&unfinished.into())),
        }
    }

    /// Returns the token; waits at most `patience` for a mint under way. Does not wait for details.
    pub(super) async fn within(self, patience: Duration) -> Result<Token, NoToken> {
        let state = match self {
            Self::Detailed(detailed) => Self::from(detailed.1),
            state => state,
        };
        match state {
            Self::Ready(token) => Ok(token),
            Self::Absent(absent) => Err(absent),
            Self::AfterApp(_) => Err(NoToken::Unnamed),
            Self::Asking(_) | Self::Detailed(_) => Err(NoToken::DetailsPending),
            Self::Minting(mint) => match Lookup::Pending(mint).within(patience).await {
                Ok(result) => result.map_err(NoToken::Failed),
                Err(unfinished) => Err(unfinished.into()),
            },
        }
    }

    /// Waits for the token before the app is asked: the app would have acted on a request that was refused
    /// later. Anonymous callers pass, callers who were signed out, and callers whom only the app can name.
    pub(super) async fn insist(&mut self, patience: Duration) -> Result<(), NoToken> {
        let passes = matches!(self, Self::Absent(NoToken::Anonymous | NoToken::SignedOut));
        if passes || matches!(self, Self::AfterApp(_)) {
            return Ok(());
        }
        let user = self.user();
        let state = std::mem::replace(self, Self::AfterApp(None));
        let token = state.within(patience).await?;
        *self = match user {
            // Kept, because the token is looked up again if it expires while the app works.
            Some(user) => Self::Detailed(Box::new((user, Ok(Lookup::Ready(Ok(token)))))),
            None => Self::Ready(token),
        };
        Ok(())
    }
}

//! Delivery to the app: the sidecar adds the token, or the reason why there is none, to the request's headers.

use std::sync::Arc;

use http::header::{IF_MODIFIED_SINCE, IF_NONE_MATCH};
use http::{HeaderMap, Request, StatusCode};
use tokio::time::{Instant, timeout_at};

use crate::error::{NoToken, RequestError};
use crate::inject::{Injection, TokenStatus};
use crate::record::Record;
use crate::token_state::{Absence, TokenState};
use crate::{Rules, Sidecar};
use ground::client_connection::ClientConnection;
use ground::metrics::HeaderDelivery;
use hop::proxy::{Client, RequestBody};
use identity::{Caller, SignedIn};
use token::Token;

/// Content of the request's headers for the app, which the app may have put into its response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HandedOver {
    /// No user is signed in, or the app was told nothing.
    Nothing,
    /// A token, or a status that may soon be another.
    Private,
}

impl HandedOver {
    /// Keeps caches from storing a response that may have the token in it.
    pub(super) fn guard(self, injection: &Injection, status: StatusCode, headers: &mut HeaderMap) {
        if self == Self::Private && status != StatusCode::SWITCHING_PROTOCOLS {
            injection.keep_private(headers);
        }
    }
}

impl Sidecar {
    /// Gives the app the token, or the reason why there is none. Waits at most `delivery.app_header.max_wait`. A
    /// mint that takes longer goes on, and `token` still awaits it.
    pub(super) async fn hand_over(
        self: &Arc<Self>,
        rules: &Arc<Rules>,
        caller: &Caller,
        request: &mut Request<RequestBody>,
        (client, connection): (&Client, Option<&Arc<ClientConnection>>),
        token: &mut TokenState,
        record: &Record,
    ) -> HandedOver {
        let settings = rules.injection.app_header();
        let deadline = Instant::now() + settings.max_wait;
        let arrived = if let Caller::Unnamed = caller {
            // The app names the caller in its response only, which is too late for its page.
            let asking = self.ask_app(rules, request, client, connection);
            match timeout_at(deadline, asking).await {
                Ok(Ok(named)) => {
                    let mut token = match self.admit(rules, &named, SignedIn::default()) {
                        Ok(()) => self.seek(rules, &named, request, client, record),
                        Err(absent) => TokenState::Absent(absent),
                    };
                    self.arrive(rules, &mut token, record, deadline).await
                }
                Ok(Err(error)) => Err(absence_of(&error)),
                Err(_) => Err(Absence::of(&NoToken::DetailsPending)),
            }
        } else {
            self.arrive(rules, token, record, deadline).await
        };
        let headers = request.headers_mut();
        let (told, counted, handed_over) = match &arrived {
            Ok(token) => (Ok(token.value()), HeaderDelivery::Injected, HandedOver::Private),
            Err(absence) => {
                let is_anonymous = absence.status == TokenStatus::Anonymous;
                let handed_over =
                    if is_anonymous { HandedOver::Nothing } else { HandedOver::Private };
                (Err(absence.status), absence.delivery, handed_over)
            }
        };
        settings.tell(headers, told);
        self.metrics.app_header_deliveries.increment(counted);
        if handed_over == HandedOver::Private {
            make_unconditional(headers);
        }
        handed_over
    }

    /// Waits until `deadline` for a token. `token` keeps its state, so that the response can wait for it too.
    async fn arrive(
        &self,
        rules: &Rules,
        token: &mut TokenState,
        record: &Record,
        deadline: Instant,
    ) -> Result<Token, Absence> {
        let mut patience = deadline.saturating_duration_since(Instant::now());
        if let TokenState::Asking(_) = token {
            patience = self.settle(rules, token, record, patience).await;
        }
        token.arrive(patience).await
    }
}

/// Asks for the page as it is now. The page that a browser or a cache has kept was made with another token or none, and
/// the headers of a 304 would be stored beside it (RFC 9111, section 4.3.4).
fn make_unconditional(headers: &mut HeaderMap) {
    for name in [IF_NONE_MATCH, IF_MODIFIED_SINCE] {
        headers.remove(name);
    }
}

/// Returns the absence of a token after the app could not say who is signed in.
fn absence_of(error: &RequestError) -> Absence {
    match error {
        RequestError::NoToken(absent) => Absence::of(absent),
        _ => Absence { status: TokenStatus::Unverified, delivery: HeaderDelivery::Unverified },
    }
}

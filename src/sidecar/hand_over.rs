//! Delivery to the app: the token, or the reason why there is none, goes along with the request.

use std::sync::Arc;

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
use identity::Caller;
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
    /// Keeps caches from storing a response that may have the token in it. A 304 has no content; its headers would
    /// be stored beside a response that was made without the token.
    pub(super) fn guard(self, injection: &Injection, status: StatusCode, headers: &mut HeaderMap) {
        let is_stored_elsewhere =
            matches!(status, StatusCode::NOT_MODIFIED | StatusCode::SWITCHING_PROTOCOLS);
        if self == Self::Private && !is_stored_elsewhere {
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
                    let mut token = self.seek(rules, &named, request, client, record);
                    self.arrive(rules, &mut token, record, deadline).await
                }
                Ok(Err(error)) => Err(absence_of(&error)),
                Err(_) => Err(Absence::of(&NoToken::DetailsPending)),
            }
        } else {
            self.arrive(rules, token, record, deadline).await
        };
        let headers = request.headers_mut();
        match arrived {
            Ok(token) => {
                settings.tell(headers, Ok(token.value()));
                self.metrics.app_header_deliveries.increment(HeaderDelivery::Injected);
                HandedOver::Private
            }
            Err(absence) => {
                settings.tell(headers, Err(absence.status));
                self.metrics.app_header_deliveries.increment(absence.delivery);
                match absence.status {
                    TokenStatus::Anonymous => HandedOver::Nothing,
                    _ => HandedOver::Private,
                }
            }
        }
    }

    /// Waits until `deadline` for a token, and leaves its state to others.
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

/// Returns the absence of a token after the app could not say who is signed in.
fn absence_of(error: &RequestError) -> Absence {
    match error {
        RequestError::NoToken(absent) => Absence::of(absent),
        _ => Absence { status: TokenStatus::Unverified, delivery: HeaderDelivery::Unverified },
    }
}

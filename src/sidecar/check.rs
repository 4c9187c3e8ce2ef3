//! The check: a gateway asks about a request of one of its clients, and copies the token from the answer. The app is
//! the gateway's own, and the sidecar sees no request for it.
//!
//! The gateway is the peer, so the anchors of `identity` decide whether it is believed. What it says of the client's
//! request (`X-Original-URI`, `X-Forwarded-Uri`, the rest of the path, the method) decides nothing. The body of the
//! check is never read.

use std::sync::Arc;

use bytes::Bytes;
use http::header::CONNECTION;
use http::{HeaderValue, Request, Response, StatusCode, Version};
use http_body::Body as _;
use tokio::time::{Instant, timeout_at};

use crate::error::{NoToken, RequestError, is_page_load};
use crate::inject::TokenStatus;
use crate::record::Record;
use crate::route::known_user;
use crate::token_state::{Absence, TokenState};
use crate::{Rules, Sidecar, scheme_of};
use ground::client_connection::ClientConnection;
use ground::metrics::{HeaderDelivery, Outcome};
use ground::peer::Peer;
use hop::proxy::headers::validate;
use hop::proxy::{Client, RequestBody};
use identity::{Caller, Identified, Refusal, SignedIn};
use token::Token;

/// Client of a gateway, with a user.
struct Visitor {
    caller: Caller,
    signed_in: SignedIn,
    /// The gateway, as the app is told of it.
    client: Client,
}

impl Sidecar {
    /// Answers a check: 200 with the token or a status in headers, or 401 or 403 if `delivery.check.require_user` is set
    /// and no user is known. nginx turns any other status into an error of the client's request.
    pub(super) async fn serve_check(
        self: &Arc<Self>,
        rules: &Arc<Rules>,
        (peer, connection): (&Peer, Option<&Arc<ClientConnection>>),
        request: &mut Request<RequestBody>,
        record: &mut Record,
    ) -> Result<(Response<Bytes>, Outcome), RequestError> {
        validate(request)?;
        let settings = rules.injection.check();
        record.routed(settings.path.as_deref().unwrap_or_default());
        let deadline = Instant::now() + settings.max_wait;
        let visitor = self.visitor(rules, (peer, connection), request, deadline, record).await;
        let (token, has_user) = match visitor {
            Ok(visitor) => {
                let token = self.visitors_token(rules, &visitor, request, deadline, record).await;
                let has_user = !matches!(token, Err(NoToken::SignedOut));
                (token.map_err(RequestError::from), has_user)
            }
            Err(error) => (Err(error), false),
        };
        let (told, delivery) = match &token {
            Ok(token) => (Ok(token.value()), HeaderDelivery::Injected),
            Err(error) => {
                let Absence { status, delivery } = absence_of(error);
                (Err(status), delivery)
            }
        };
        self.metrics.check_deliveries.increment(delivery);
        record.delivered(delivery);
        let (mut answer, outcome) = match &token {
            Err(error) if settings.require_user && !has_user => {
                (refused(error, is_page_load(request)), error.outcome())
            }
            _ => (rules.injection.checked(told), Outcome::CheckAnswered),
        };
        // The gateway may have sent its client's length and no body. Then the next check on this connection, of another
        // client, would be read as the body.
        if request.version() < Version::HTTP_2 && !request.body().is_end_stream() {
            answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Ok((answer, outcome))
    }

    /// Finds the user of the gateway's client until `deadline`: keys of an issuer may have to be fetched, and an app that
    /// alone knows its users asked.
    async fn visitor(
        self: &Arc<Self>,
        rules: &Arc<Rules>,
        (peer, connection): (&Peer, Option<&Arc<ClientConnection>>),
        request: &mut Request<RequestBody>,
        deadline: Instant,
        record: &mut Record,
    ) -> Result<Visitor, RequestError> {
        let identifying = rules.identity.identify(peer, request.headers_mut());
        let identified = timeout_at(deadline, identifying).await;
        let Identified { caller, lacks_secret, unbelieved, believed, signed_in, .. } =
            identified.map_err(|_| NoToken::Unverified)??;
        let (address, trusted) = (peer.address(), believed.is_kept());
        let client = Client { address, trusted, scheme: scheme_of(peer) };
        let caller = if let Caller::Unnamed = caller {
            // Boxed, because this way is rare and the future would grow.
            let asking = Box::pin(self.ask_app(rules, request, &client, connection));
            timeout_at(deadline, asking).await.map_err(|_| NoToken::DetailsPending)??
        } else {
            caller
        };
        record.identified(&caller);
        known_user(&caller)
            .map_err(|absent| RequestError::from(absent).for_want_of(lacks_secret, unbelieved))?;
        Ok(Visitor { caller, signed_in, client })
    }

    /// Returns the visitor's token; waits until `deadline` for details and a mint. Both go on after that.
    async fn visitors_token(
        self: &Arc<Self>,
        rules: &Arc<Rules>,
        visitor: &Visitor,
        request: &Request<RequestBody>,
        deadline: Instant,
        record: &Record,
    ) -> Result<Token, NoToken> {
        let Visitor { caller, signed_in, client } = visitor;
        self.admit(rules, caller, *signed_in)?;
        let mut token = self.seek(rules, caller, request, client, record);
        let mut patience = deadline.saturating_duration_since(Instant::now());
        if let TokenState::Asking(_) = token {
            patience = Box::pin(self.settle(rules, &mut token, record, patience)).await;
        }
        let token = token.within(patience).await?;
        // A logout may have come while the token was waited for.
        self.admit(rules, caller, *signed_in)?;
        Ok(token)
    }
}

/// Returns the absence of a token, as a gateway's client is told of it.
pub(super) fn absence_of(error: &RequestError) -> Absence {
    let (status, delivery) = match error {
        RequestError::NoToken(absent) => return Absence::of(absent),
        RequestError::Identity(Refusal::Ambiguous { .. }) => {
            (TokenStatus::Ambiguous, HeaderDelivery::Failed)
        }
        RequestError::Identity(Refusal::Invalid(_)) => {
            (TokenStatus::Anonymous, HeaderDelivery::Anonymous)
        }
        // The app, which alone knows its users, did not answer.
        _ => (TokenStatus::Unverified, HeaderDelivery::Unverified),
    };
    Absence { status, delivery }
}

/// Returns the status of a refusal: 401 if signing in may help, else 403.
pub(super) fn status_of_refusal(error: &RequestError) -> StatusCode {
    match error.public().0 {
        StatusCode::UNAUTHORIZED => StatusCode::UNAUTHORIZED,
        _ => StatusCode::FORBIDDEN,
    }
}

/// Makes the answer that has the gateway refuse its client.
fn refused(error: &RequestError, loads_page: bool) -> Response<Bytes> {
    let mut answer = error.answer(loads_page);
    *answer.status_mut() = status_of_refusal(error);
    answer
}

//! Errors of a request, and the one table that turns them into answers: status, code, text, and the outcome
//! under which the error is counted. A new error does not compile without them.

mod no_grants;
mod no_token;
mod page;

use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, Response, StatusCode};
use serde::Serialize;
use tracing::debug;

pub(super) use self::no_grants::NoGrants;
pub(super) use self::no_token::NoToken;
pub(super) use self::page::is_page_load;
use crate::inject::own_answer;
use ground::logging::Chain;
use ground::metrics::Outcome;
use hop::proxy::{BadRequest, UpstreamError};
use identity::{InvalidAssertion, Refusal};
use token::{MintError, SuspendedFor};

/// Error that the sidecar itself answers a request with.
#[derive(Debug)]
pub(super) enum RequestError {
    /// The client's fault.
    BadRequest(BadRequest),
    /// The login proxy's fault, or an attacker's.
    Identity(Refusal),
    NoToken(NoToken),
    UserMismatch,
    /// The body has a `refused` that is no fingerprint.
    BadFingerprint,
    /// A page says that Velt refused a token, and the user's last renewal was less than a minute ago. The
    /// rest of that minute.
    RenewedRecently(Duration),
    /// A page of another origin asks for a token.
    CrossOrigin,
    /// A cookie says who asks, and the request does not show that a page of this host has made it.
    CookieAlone,
    MethodNotAllowed,
    /// The limit in bytes.
    BodyTooLarge(usize),
    SlowBody,
    BrokenBody,
    /// No app is behind the sidecar, and the path is none of its own.
    NoApp,
    /// The app's fault.
    App(UpstreamError),
    /// The app failed, with this status, when it was asked who the user is.
    AppFailed(StatusCode),
    /// The sidecar's fault.
    Panicked,
}

impl From<BadRequest> for RequestError {
    fn from(error: BadRequest) -> Self {
        Self::BadRequest(error)
    }
}

impl From<Refusal> for RequestError {
    fn from(refusal: Refusal) -> Self {
        Self::Identity(refusal)
    }
}

impl From<NoToken> for RequestError {
    fn from(absent: NoToken) -> Self {
        Self::NoToken(absent)
    }
}

impl From<UpstreamError> for RequestError {
    fn from(error: UpstreamError) -> Self {
        Self::App(error)
    }
}

impl RequestError {
    /// Returns this error, or the more exact one if the caller is anonymous for want of the secret, or because
    /// an assertion was not believed.
    pub(super) fn for_want_of(
        self,
        lacks_secret: bool,
        unbelieved: Option<InvalidAssertion>,
    ) -> Self {
        match (self, unbelieved) {
            (Self::NoToken(NoToken::Anonymous), _) if lacks_secret => NoToken::NoSecret.into(),
            (Self::NoToken(NoToken::Anonymous), Some(invalid)) => {
                NoToken::Unbelieved(invalid).into()
            }
            (other, _) => other,
        }
    }

    /// Returns the outcome under which the error is counted.
    pub(super) fn outcome(&self) -> Outcome {
        match self {
            Self::BadRequest(_)
            | Self::SlowBody
            | Self::BrokenBody
            | Self::BadFingerprint
            | Self::App(UpstreamError::Expectation) => Outcome::BadRequest,
            Self::Identity(Refusal::Ambiguous { .. }) => Outcome::IdentityRefused,
            Self::Identity(Refusal::Invalid(_)) => Outcome::InvalidAssertion,
            Self::NoToken(absent) => match absent {
                NoToken::Anonymous
                | NoToken::NoSecret
                | NoToken::Unbelieved(_)
                | NoToken::Unnamed
                | NoToken::UnnamedBy(_) => Outcome::NoIdentity,
                NoToken::AppWord(_) => Outcome::IdentityRefused,
                NoToken::Unverified => Outcome::IdentityUnverified,
                NoToken::SignedOut => Outcome::SignedOut,
                NoToken::NoOrganization => Outcome::NoOrganization,
                NoToken::NoGrants(_) => Outcome::NoGrants,
                NoToken::NoDetails(_) | NoToken::DetailsPending => Outcome::NoDetails,
                NoToken::Queued | NoToken::Failed(MintError::Queued) => Outcome::TokenQueued,
                NoToken::Pending | NoToken::Failed(MintError::Timeout) => Outcome::TokenTimeout,
                NoToken::Failed(
                    MintError::Refused { .. }
                    | MintError::Suspended { suspended: SuspendedFor::Refusals, .. },
                ) => Outcome::TokenRefused,
                NoToken::Failed(MintError::RateLimited { .. }) => Outcome::TokenRateLimited,
                NoToken::Failed(MintError::Malformed { .. } | MintError::Mismatch) => {
                    Outcome::TokenMalformed
                }
                NoToken::Failed(
                    MintError::Unavailable { .. }
                    | MintError::LookUp { .. }
                    | MintError::Connect { .. }
                    | MintError::Suspended { suspended: SuspendedFor::Outage, .. }
                    | MintError::Panicked,
                ) => Outcome::TokenUnavailable,
            },
            Self::UserMismatch => Outcome::UserMismatch,
            Self::RenewedRecently(_) => Outcome::RenewedRecently,
            Self::CrossOrigin | Self::CookieAlone => Outcome::CrossOrigin,
            Self::MethodNotAllowed => Outcome::MethodNotAllowed,
            Self::BodyTooLarge(_) => Outcome::BodyTooLarge,
            Self::NoApp => Outcome::NoApp,
            Self::App(UpstreamError::Unreachable(_)) => Outcome::AppUnreachable,
            Self::App(UpstreamError::Timeout) => Outcome::AppTimeout,
            Self::App(
                UpstreamError::Broken(_)
                | UpstreamError::BrokenStream(_)
                | UpstreamError::HeadTooLarge(_)
                | UpstreamError::Framing
                | UpstreamError::BadUpgrade,
            )
            | Self::AppFailed(_) => Outcome::AppBroken,
            Self::App(UpstreamError::Idle) => Outcome::StreamIdle,
            Self::App(UpstreamError::ClientGone(_)) => Outcome::ClientGone,
            Self::Panicked => Outcome::Panicked,
        }
    }

    /// Returns what goes out: a status, a code for programs and a text that a developer can act on.
    pub(super) fn public(&self) -> (StatusCode, &'static str, String) {
        match self {
            Self::BadRequest(error) => (error.status(), "bad_request", error.to_string()),
            Self::Identity(refusal) => {
                let (status, code) = match refusal {
                    Refusal::Ambiguous { .. } => (StatusCode::BAD_REQUEST, "ambiguous_identity"),
                    Refusal::Invalid(_) => (StatusCode::UNAUTHORIZED, "invalid_assertion"),
                };
                (status, code, refusal.to_string())
            }
            Self::NoToken(absent) => absent.public(),
            Self::UserMismatch => (
                StatusCode::FORBIDDEN,
                "user_mismatch",
                "The body names a userId that is not the signed-in user's. Either another user has \
                 signed in since the page was loaded: load it again. Or the page spells the id \
                 otherwise than the login does: they must be equal byte for byte. The posted id never \
                 decides whom a token is for."
                    .into(),
            ),
            Self::BadFingerprint => (
                StatusCode::BAD_REQUEST,
                "bad_fingerprint",
                "\"refused\" in the body has to be the SHA-256 of the refused token, as 64 \
                 hexadecimal digits in lower case."
                    .into(),
            ),
            Self::RenewedRecently(_) => (
                StatusCode::TOO_MANY_REQUESTS,
                "renewed_recently",
                "The page says that Velt refused this token, which was minted anew less than a \
                 minute ago. If Velt refuses each one, its console or the page's user object \
                 differs from the token: compare userId, organizationId and the managed domains."
                    .into(),
            ),
            Self::CrossOrigin => (
                StatusCode::FORBIDDEN,
                "cross_origin",
                "The browser says that a page of another origin asks (Sec-Fetch-Site). Tokens are \
                 for the app's own pages; to serve pages on a sibling subdomain, set \
                 delivery.allow_same_site."
                    .into(),
            ),
            Self::CookieAlone => (
                StatusCode::FORBIDDEN,
                "cross_origin",
                "A cookie says who asks, and browsers send it along with requests of any site's \
                 pages. Neither Sec-Fetch-Site nor Origin nor Referer shows that a page of this \
                 host asks; a program may send Sec-Fetch-Site: same-origin."
                    .into(),
            ),
            Self::MethodNotAllowed => (
                StatusCode::METHOD_NOT_ALLOWED,
                "method_not_allowed",
                "Ask for a token with GET, HEAD or POST.".into(),
            ),
            Self::BodyTooLarge(limit) => (
                StatusCode::PAYLOAD_TOO_LARGE,
                "body_too_large",
                format!(
                    "The body is over {limit} bytes (delivery.max_body): leave it out, a token \
                     route needs none."
                ),
            ),
            Self::SlowBody => (
                StatusCode::REQUEST_TIMEOUT,
                "slow_body",
                "The body did not arrive in time: leave it out, a token route needs none.".into(),
            ),
            Self::BrokenBody => (
                StatusCode::BAD_REQUEST,
                "broken_body",
                "The request body broke off before its end.".into(),
            ),
            Self::NoApp => (
                StatusCode::NOT_FOUND,
                "no_app",
                "velt-sidecar has no app behind it (app.address = \"none\"): it answers token routes and \
                 the checks of a gateway. Have the gateway send this path to the app itself."
                    .into(),
            ),
            Self::App(error) => app_error(error),
            Self::AppFailed(status) => (
                StatusCode::BAD_GATEWAY,
                "app_failed",
                format!(
                    "The sidecar asked the app at identity.app_path who is signed in, and the app \
                     answered {status}."
                ),
            ),
            Self::Panicked => (
                StatusCode::INTERNAL_SERVER_ERROR,
                "internal_error",
                "velt-sidecar failed on this request; its log says where.".into(),
            ),
        }
    }

    /// Makes the answer: a page for a person who loads one, else JSON.
    pub(super) fn answer(&self, loads_page: bool) -> Response<Bytes> {
        let (status, code, text) = self.public();
        let mut response = if loads_page {
            page::answer(status, code, &text)
        } else {
            let json = serde_json::to_string(&PublicError { error: &text, code });
            own_answer(status, json.expect("two strings"))
        };
        let headers = response.headers_mut();
        if let Self::MethodNotAllowed = self {
            headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD, POST"));
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(self.challenge()));
        }
        if let Some(wait) = self.retry_after() {
            // Round up, so that the client does not come back too early.
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        response
    }

    /// Returns when to try again, if that may help.
    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::NoToken(absent) => absent.retry_after(),
            Self::RenewedRecently(wait) => Some(*wait),
            _ => None,
        }
    }

    /// Returns the challenge of a 401, which must have one (RFC 9110 section 15.5.2): clients may take a 401
    /// without a challenge for a broken answer. The scheme is `Bearer` (RFC 6750 section 3), because no
    /// browser opens a dialog for it.
    fn challenge(&self) -> &'static str {
        match self {
            Self::Identity(Refusal::Invalid(_)) => "Bearer error=\"invalid_token\"",
            _ => "Bearer realm=\"velt-sidecar\"",
        }
    }

    /// Logs only errors of the app, because metrics count the rest.
    pub(super) fn log(&self) {
        if let Self::App(app) = self {
            debug!(error = %Chain(app), "the app gave no answer");
        }
    }
}

/// The body of an error.
#[derive(Serialize)]
struct PublicError<'a> {
    error: &'a str,
    code: &'static str,
}

fn app_error(error: &UpstreamError) -> (StatusCode, &'static str, String) {
    match error {
        UpstreamError::Unreachable(_) => (
            StatusCode::BAD_GATEWAY,
            "app_unreachable",
            "velt-sidecar could not connect to the app (app.address): it is down or still starting."
                .into(),
        ),
        UpstreamError::Timeout => (
            StatusCode::GATEWAY_TIMEOUT,
            "app_timeout",
            "The app did not begin to answer within app.response_timeout.".into(),
        ),
        UpstreamError::Idle => (
            StatusCode::REQUEST_TIMEOUT,
            "stream_idle",
            "Nothing of the request's body moved for app.stream_idle_timeout.".into(),
        ),
        UpstreamError::Expectation => (
            StatusCode::EXPECTATION_FAILED,
            "expectation_failed",
            "The sidecar does not send 100 Continue over HTTP/2: send the request without \
             Expect."
                .into(),
        ),
        UpstreamError::ClientGone(_) => (
            StatusCode::BAD_REQUEST,
            "broken_body",
            "The request body broke off before its end.".into(),
        ),
        UpstreamError::Broken(_)
        | UpstreamError::BrokenStream(_)
        | UpstreamError::HeadTooLarge(_)
        | UpstreamError::Framing
        | UpstreamError::BadUpgrade => {
            (StatusCode::BAD_GATEWAY, "app_broken", format!("velt-sidecar: {error}."))
        }
    }
}

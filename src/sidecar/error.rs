//! Errors of a request, and the one table that turns them into answers: status, code, text, and the outcome
//! under which the error is counted. A new error does not compile without them.

mod no_grants;

use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, Response, StatusCode};
use serde::Serialize;
use tracing::debug;

pub(super) use self::no_grants::NoGrants;
use crate::details::NoDetails;
use crate::inject::{TokenStatus, own_answer};
use ground::logging::Chain;
use ground::metrics::{HeaderDelivery, Outcome};
use hop::proxy::{BadRequest, UpstreamError};
use identity::{AnswerFault, InvalidAssertion, Refusal};
use token::{MintError, SuspendedFor, Unfinished};

/// Reason why there is no token for a request.
#[derive(Debug)]
pub(super) enum NoToken {
    Anonymous,
    /// The caller is anonymous because the peer has not shown the secret, so that no user's header counts.
    NoSecret,
    /// The caller is anonymous because the assertion, or the session, that came is not valid.
    Unbelieved(InvalidAssertion),
    /// The sidecar has no keys to check the caller's assertion with.
    Unverified,
    /// The app, which alone knows the user, named none.
    Unnamed,
    /// The app was asked at `identity.app_path`, and named no user in an answer with this status.
    UnnamedBy(StatusCode),
    /// The app's word on the user could be read in two ways.
    AppWord(Refusal),
    NoOrganization,
    /// The app gave no details of the user that can be used.
    NoDetails(NoDetails),
    /// The app has not yet answered the question for the user's details, which goes on for the next request.
    DetailsPending,
    NoGrants(NoGrants),
    /// Velt was called and has not answered. The mint goes on, for the next request.
    Pending,
    /// The mint waits for its turn, and goes on for the next request.
    Queued,
    Failed(MintError),
}

impl From<Unfinished> for NoToken {
    fn from(unfinished: Unfinished) -> Self {
        match unfinished {
            Unfinished::Queued => Self::Queued,
            Unfinished::Called => Self::Pending,
            Unfinished::Held(error) => Self::Failed(error),
        }
    }
}

impl NoToken {
    pub(super) fn status(&self) -> TokenStatus {
        match self {
            Self::Anonymous
            | Self::NoSecret
            | Self::Unbelieved(_)
            | Self::Unnamed
            | Self::UnnamedBy(_) => TokenStatus::Anonymous,
            Self::AppWord(_) => TokenStatus::Ambiguous,
            Self::Unverified => TokenStatus::Unverified,
            Self::NoOrganization => TokenStatus::NoOrganization,
            Self::NoDetails(_) => TokenStatus::NoDetails,
            Self::Pending | Self::Queued | Self::DetailsPending => TokenStatus::Pending,
            Self::NoGrants(_) => TokenStatus::NoGrants,
            Self::Failed(error) => match error {
                MintError::Refused { .. }
                | MintError::Suspended { suspended: SuspendedFor::Refusals, .. } => {
                    TokenStatus::Refused
                }
                MintError::Queued => TokenStatus::Pending,
                MintError::RateLimited { .. } => TokenStatus::RateLimited,
                MintError::Timeout => TokenStatus::Timeout,
                MintError::Malformed { .. } | MintError::Mismatch => TokenStatus::Malformed,
                MintError::Unavailable { .. }
                | MintError::LookUp { .. }
                | MintError::Connect { .. }
                | MintError::Suspended { suspended: SuspendedFor::Outage, .. }
                | MintError::Panicked => TokenStatus::Unavailable,
            },
        }
    }

    pub(super) fn delivery(&self) -> HeaderDelivery {
        match self {
            Self::Anonymous
            | Self::NoSecret
            | Self::Unbelieved(_)
            | Self::Unnamed
            | Self::UnnamedBy(_) => HeaderDelivery::Anonymous,
            Self::Unverified => HeaderDelivery::Unverified,
            Self::NoGrants(_) => HeaderDelivery::NoGrants,
            Self::Pending | Self::Queued | Self::DetailsPending => HeaderDelivery::Pending,
            Self::NoDetails(_) => HeaderDelivery::NoDetails,
            Self::AppWord(_) | Self::NoOrganization | Self::Failed(_) => HeaderDelivery::Failed,
        }
    }
}

/// Error that the sidecar itself answers a request with.
#[derive(Debug)]
pub(super) enum RequestError {
    /// The client's fault.
    BadRequest(BadRequest),
    /// The front proxy's fault, or an attacker's.
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
                "The body names a userId that is not the signed-in user's. Another user may have \
                 signed in since the page was loaded: load it again. The posted id never decides: \
                 tokens are minted for the user of the login."
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

    pub(super) fn answer(&self) -> Response<Bytes> {
        let (status, code, text) = self.public();
        let json = serde_json::to_string(&PublicError { error: &text, code });
        let mut response = own_answer(status, json.expect("two strings"));
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

impl NoToken {
    fn public(&self) -> (StatusCode, &'static str, String) {
        match self {
            Self::Anonymous => (
                StatusCode::UNAUTHORIZED,
                "no_identity",
                "No user is signed in: the request came without an identity that the sidecar \
                 trusts. Sign in first. If you are signed in, your identity is not where [identity] \
                 says, or comes from a peer that is not trusted: velt-sidecar explain says how the \
                 sidecar reads the request."
                    .into(),
            ),
            Self::NoSecret => (
                StatusCode::UNAUTHORIZED,
                "no_identity",
                "No user is signed in: the request came without the login proxy's secret, or with \
                 another one, so the sidecar ignores its user header. Have the login proxy send \
                 the secret in the header identity.secret_header, with the sidecar's own value: \
                 VELT_SIDECAR_IDENTITY__SECRET or identity.secret_file."
                    .into(),
            ),
            Self::Unbelieved(invalid) => (
                StatusCode::UNAUTHORIZED,
                "no_identity",
                format!(
                    "No user is signed in: a session or an assertion came, and it is not valid: {}.",
                    invalid.reason()
                ),
            ),
            Self::Unnamed => (
                StatusCode::UNAUTHORIZED,
                "no_identity",
                "No user is signed in: asked at identity.app_path with this browser's cookies, the \
                 app named no user in the header identity.user_header. Sign in first."
                    .into(),
            ),
            Self::UnnamedBy(status) => {
                (StatusCode::UNAUTHORIZED, "no_identity", unnamed_by(*status))
            }
            Self::AppWord(refusal) => (
                StatusCode::BAD_GATEWAY,
                "ambiguous_identity",
                format!("The sidecar can't use the user that the app named. {refusal}"),
            ),
            Self::Unverified => (
                StatusCode::SERVICE_UNAVAILABLE,
                "identity_unverified",
                "The sidecar could not check who is signed in: the keys of identity.assertion \
                 can't be fetched at the moment. Try again."
                    .into(),
            ),
            Self::NoOrganization => (
                StatusCode::BAD_REQUEST,
                "no_organization",
                "The request came without an organization that can be used, which this Velt API \
                 needs: set velt.organization, or have the identity bring it in \
                 identity.organization_header or identity.assertion.organization_claim."
                    .into(),
            ),
            Self::NoDetails(reason) => no_details(*reason),
            Self::DetailsPending => (
                StatusCode::GATEWAY_TIMEOUT,
                "details_pending",
                "The app has not told the user's details yet (identity.details_path). Try again."
                    .into(),
            ),
            Self::NoGrants(reason) => (StatusCode::FORBIDDEN, "no_grants", reason.to_string()),
            Self::Queued => (
                StatusCode::SERVICE_UNAVAILABLE,
                "token_queued",
                "The token waits for its turn: the sidecar makes as many calls to Velt at once as \
                 it may (velt.max_concurrent). Try again."
                    .into(),
            ),
            Self::Pending => (
                StatusCode::GATEWAY_TIMEOUT,
                "token_pending",
                "Velt has not answered yet; the token is still being minted. Try again.".into(),
            ),
            Self::Failed(error) => {
                let (status, code) = match error {
                    MintError::Refused { .. }
                    | MintError::Suspended { suspended: SuspendedFor::Refusals, .. } => {
                        (StatusCode::BAD_GATEWAY, "token_refused")
                    }
                    MintError::Queued => (StatusCode::SERVICE_UNAVAILABLE, "token_queued"),
                    MintError::Malformed { .. } | MintError::Mismatch => {
                        (StatusCode::BAD_GATEWAY, "token_malformed")
                    }
                    MintError::RateLimited { .. } => {
                        (StatusCode::TOO_MANY_REQUESTS, "token_rate_limited")
                    }
                    MintError::Timeout => (StatusCode::GATEWAY_TIMEOUT, "token_timeout"),
                    MintError::Unavailable { .. }
                    | MintError::LookUp { .. }
                    | MintError::Connect { .. }
                    | MintError::Suspended { suspended: SuspendedFor::Outage, .. }
                    | MintError::Panicked => (StatusCode::SERVICE_UNAVAILABLE, "token_unavailable"),
                };
                (status, code, format!("No token: {error}."))
            }
        }
    }

    /// Returns when to try again after an error that passes: the time that Velt or the breaker gave, else one
    /// second.
    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Anonymous
            | Self::NoSecret
            | Self::Unbelieved(_)
            | Self::Unnamed
            | Self::UnnamedBy(_)
            | Self::AppWord(_)
            | Self::NoOrganization
            | Self::NoGrants(_) => None,
            Self::Pending | Self::Queued | Self::Unverified | Self::DetailsPending => {
                Some(Duration::from_secs(1))
            }
            Self::NoDetails(reason) => reason.passes().then_some(Duration::from_secs(1)),
            Self::Failed(error) => match error {
                MintError::Refused { .. } | MintError::Malformed { .. } | MintError::Mismatch => {
                    None
                }
                other => Some(other.retry_after().unwrap_or(Duration::from_secs(1))),
            },
        }
    }
}

/// Describes an answer of the app that leaves a user without a token.
fn no_details(reason: NoDetails) -> (StatusCode, &'static str, String) {
    let (status, remedy) = match reason {
        NoDetails::Refused(_) => (
            StatusCode::FORBIDDEN,
            "If this user should get one, have the app answer 200 with a JSON object, or 204.",
        ),
        NoDetails::LongHost => (
            StatusCode::BAD_REQUEST,
            "Ask with the host name of the app, which has at most 255 bytes.",
        ),
        NoDetails::Unusable(AnswerFault::OtherUser) => (
            StatusCode::BAD_GATEWAY,
            "Have the app answer for the user in X-Velt-User only: its own session may be another \
             user's.",
        ),
        // The reason says what to write.
        NoDetails::Unusable(AnswerFault::DetailsAtAppPath) => {
            (StatusCode::BAD_GATEWAY, "Or have the app leave the rest out (docs/identity.md).")
        }
        NoDetails::Unusable(_) => (
            StatusCode::BAD_GATEWAY,
            "Have the app answer as docs/identity.md says (identity.details_path, identity.app_path).",
        ),
        reason if reason.passes() => (
            StatusCode::SERVICE_UNAVAILABLE,
            "Try again; if it persists, see what the app does at identity.details_path.",
        ),
        _ => (
            StatusCode::BAD_GATEWAY,
            "Have the app answer at identity.details_path with 200 and a JSON object, or with 204.",
        ),
    };
    (status, "no_details", format!("No token, since {reason}. {remedy}"))
}

/// Says what an answer with this status most likely means if it names no user.
fn unnamed_by(status: StatusCode) -> String {
    let meaning = if status.is_redirection() {
        "a redirect: to its login page, or to https, if it was not told that the browser came by \
         https (identity.trusted_proxies says whose X-Forwarded-Proto the app gets)"
    } else if status == StatusCode::NOT_FOUND || status == StatusCode::METHOD_NOT_ALLOWED {
        "so it may have no such page: see identity.app_path"
    } else {
        "and named no user in the header identity.user_header. Sign in first"
    };
    format!(
        "No user is signed in: asked at identity.app_path with this browser's cookies, the app \
         answered {status}, {meaning}."
    )
}

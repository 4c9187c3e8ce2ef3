//! Reasons why there is no token, and how a page, a developer and the metrics are told of each.

use std::time::Duration;

use http::StatusCode;

use super::NoGrants;
use crate::details::NoDetails;
use crate::inject::TokenStatus;
use ground::metrics::HeaderDelivery;
use identity::{AnswerFault, InvalidAssertion, Refusal};
use token::{MintError, SuspendedFor, Unfinished};

/// Reason why there is no token for a request.
#[derive(Debug)]
pub(crate) enum NoToken {
    Anonymous,
    /// The caller is anonymous because the peer has not shown the secret, so that no user's header counts.
    NoSecret,
    /// The caller is anonymous because the assertion, or the session, that came is not valid.
    Unbelieved(InvalidAssertion),
    /// The sidecar has no keys to check the caller's assertion with.
    Unverified,
    /// The user was signed out, and has not signed in again as far as the identity tells.
    SignedOut,
    /// The app, which alone knows the user, named none.
    Unnamed,
    /// The app was asked at `identity.app_path`, and named no user in an answer with this status.
    UnnamedBy(StatusCode),
    /// The app named the user in a way that can be read as two users.
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
    pub(crate) fn status(&self) -> TokenStatus {
        match self {
            Self::Anonymous
            | Self::NoSecret
            | Self::Unbelieved(_)
            | Self::Unnamed
            | Self::UnnamedBy(_) => TokenStatus::Anonymous,
            Self::AppWord(_) => TokenStatus::Ambiguous,
            Self::Unverified => TokenStatus::Unverified,
            Self::SignedOut => TokenStatus::SignedOut,
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

    pub(crate) fn delivery(&self) -> HeaderDelivery {
        match self {
            Self::Anonymous
            | Self::NoSecret
            | Self::Unbelieved(_)
            | Self::Unnamed
            | Self::UnnamedBy(_) => HeaderDelivery::Anonymous,
            Self::Unverified => HeaderDelivery::Unverified,
            Self::SignedOut => HeaderDelivery::SignedOut,
            Self::NoGrants(_) => HeaderDelivery::NoGrants,
            Self::Pending | Self::Queued | Self::DetailsPending => HeaderDelivery::Pending,
            Self::NoDetails(_) => HeaderDelivery::NoDetails,
            Self::AppWord(_) | Self::NoOrganization | Self::Failed(_) => HeaderDelivery::Failed,
        }
    }
}

impl NoToken {
    pub(super) fn public(&self) -> (StatusCode, &'static str, String) {
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
            Self::Unbelieved(invalid) => unbelieved(*invalid),
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
            Self::SignedOut => signed_out(),
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
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Anonymous
            | Self::NoSecret
            | Self::Unbelieved(_)
            | Self::Unnamed
            | Self::UnnamedBy(_)
            | Self::AppWord(_)
            | Self::SignedOut
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

/// Tells why an assertion or a session counts for nothing.
fn unbelieved(invalid: InvalidAssertion) -> (StatusCode, &'static str, String) {
    let reason = invalid.reason();
    let text = format!(
        "No user is signed in: a session or an assertion came, and it is not valid: {reason}."
    );
    (StatusCode::UNAUTHORIZED, "no_identity", text)
}

/// Tells a user who was signed out what to do.
fn signed_out() -> (StatusCode, &'static str, String) {
    let text = "This user was signed out, by the word of the identity provider or of a webhook. Sign in \
                again. If you have just signed in: an identity that does not tell when the user signed \
                in gets no token for logout.refuse_for after the logout (docs/logout.md).";
    (StatusCode::UNAUTHORIZED, "signed_out", text.into())
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
        "so this path may not exist in the app: see identity.app_path"
    } else {
        "and named no user in the header identity.user_header. Sign in first"
    };
    format!(
        "No user is signed in: asked at identity.app_path with this browser's cookies, the app \
         answered {status}, {meaning}."
    )
}

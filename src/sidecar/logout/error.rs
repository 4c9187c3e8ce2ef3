//! Reasons why a logout is not carried out, and how its sender and the metrics are told.

use std::fmt;

use http::StatusCode;

use super::form::FormFault;
use super::webhook::WebhookFault;
use crate::error::RequestError;
use ground::metrics::LogoutResult;
use identity::{InvalidLogout, LogoutRefusal};

/// Reason why a logout is not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LogoutError {
    Method,
    BodyTooLarge,
    SlowBody,
    BrokenBody,
    Form(FormFault),
    Token(InvalidLogout),
    /// The keys of the identity provider can't be fetched: no fault of the call.
    KeysUnavailable,
    Webhook(WebhookFault),
    /// The call was carried out before.
    Replayed,
    /// The user was signed out on this replica, and the store did not take the news for the others.
    NotAnnounced,
}

impl LogoutError {
    /// Takes the error of the body's reader.
    pub(super) fn from_body(error: &RequestError) -> Self {
        match error {
            RequestError::BodyTooLarge(_) => Self::BodyTooLarge,
            RequestError::SlowBody => Self::SlowBody,
            _ => Self::BrokenBody,
        }
    }

    /// Returns the status. A provider takes each status but 200 and 204 for a failure.
    pub(super) fn status(self) -> StatusCode {
        match self {
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::SlowBody => StatusCode::REQUEST_TIMEOUT,
            Self::BrokenBody | Self::Form(_) | Self::Token(_) | Self::Replayed => {
                StatusCode::BAD_REQUEST
            }
            Self::Webhook(WebhookFault::Body) => StatusCode::BAD_REQUEST,
            Self::Webhook(_) => StatusCode::UNAUTHORIZED,
            Self::KeysUnavailable | Self::NotAnnounced => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// Returns the result under which the call is counted.
    pub(super) fn result(self) -> LogoutResult {
        match self {
            Self::Method
            | Self::BodyTooLarge
            | Self::SlowBody
            | Self::BrokenBody
            | Self::Form(_)
            | Self::Token(InvalidLogout::Malformed)
            | Self::Webhook(WebhookFault::Headers | WebhookFault::Body) => LogoutResult::Malformed,
            Self::Token(
                InvalidLogout::Algorithm | InvalidLogout::UnknownKey | InvalidLogout::Signature,
            )
            | Self::Webhook(WebhookFault::Signature) => LogoutResult::Signature,
            Self::Token(
                InvalidLogout::Issuer
                | InvalidLogout::Audience
                | InvalidLogout::NoId
                | InvalidLogout::Events
                | InvalidLogout::Nonce,
            ) => LogoutResult::Claims,
            Self::Token(
                InvalidLogout::NoTime | InvalidLogout::Expired | InvalidLogout::NotYetValid,
            )
            | Self::Webhook(WebhookFault::Time) => LogoutResult::Time,
            Self::Token(
                InvalidLogout::SessionAlone | InvalidLogout::NoSubject | InvalidLogout::User,
            ) => LogoutResult::User,
            Self::KeysUnavailable => LogoutResult::KeysUnavailable,
            Self::Replayed => LogoutResult::Replayed,
            Self::NotAnnounced => LogoutResult::NotAnnounced,
        }
    }
}

impl From<FormFault> for LogoutError {
    fn from(fault: FormFault) -> Self {
        Self::Form(fault)
    }
}

impl From<WebhookFault> for LogoutError {
    fn from(fault: WebhookFault) -> Self {
        Self::Webhook(fault)
    }
}

impl From<LogoutRefusal> for LogoutError {
    fn from(refusal: LogoutRefusal) -> Self {
        match refusal {
            LogoutRefusal::Invalid(invalid) => Self::Token(invalid),
            LogoutRefusal::KeysUnavailable => Self::KeysUnavailable,
        }
    }
}

/// Text for the sender. Names no user.
impl fmt::Display for LogoutError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Method => formatter.write_str("Tell of a logout with POST."),
            Self::BodyTooLarge => formatter.write_str("The body is over 64 KiB."),
            Self::SlowBody => formatter.write_str("The body did not arrive in time."),
            Self::BrokenBody => formatter.write_str("The body broke off before its end."),
            Self::Form(fault) => write!(formatter, "No logout token: {fault}."),
            Self::Token(invalid) => write!(formatter, "The logout token is not valid: {invalid}."),
            Self::KeysUnavailable => formatter.write_str(
                "The keys at logout.oidc.jwks_url can't be fetched at the moment. Send the logout again.",
            ),
            Self::Webhook(fault) => write!(formatter, "The call is refused: {fault}."),
            Self::Replayed => formatter.write_str("This logout was carried out before."),
            Self::NotAnnounced => formatter.write_str(
                "The user is signed out on this replica, but the shared store did not take the news for \
                 the other replicas. Send the logout again.",
            ),
        }
    }
}

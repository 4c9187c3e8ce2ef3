//! JSON sent to Velt and received from Velt: the request body of each API, and the meaning of an answer.

use std::time::Duration;

use http::StatusCode;
use secrecy::{ExposeSecret as _, SecretString};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use super::dated::{Dated, Resource};
use super::{Api, Settings};
use crate::{Details, MalformedReason, MintError, MintRequest, RefusedStatus, TokenValue};

/// Returns the request body. `dated` has the resources for v2.
pub(super) fn body(settings: &Settings, request: &MintRequest, dated: Dated<'_>) -> Vec<u8> {
    let in_body = |secret: &SecretString| Some(secret.expose_secret().to_owned());
    let mut data = Data { user_id: Some(&request.user), ..Data::default() };
    match settings.api {
        Api::Legacy => {}
        Api::V1 => {
            data.user_properties = Some(UserProperties {
                organization_id: request.organization(),
                ..UserProperties::of(request.details())
            });
        }
        Api::V2 => {
            // The organization goes into the resources only: in `userProperties` it is a
            // documented cause of INVALID_ARGUMENT.
            data.user_properties = Some(UserProperties::of(request.details()));
            data.permissions = Some(Permissions { resources: dated.resources });
        }
    }
    if settings.api != Api::V2 {
        data.api_key = in_body(&settings.api_key);
        data.auth_token = in_body(&settings.auth_token);
    }
    serde_json::to_vec(&Envelope { data }).expect("strings and numbers only")
}

#[derive(Serialize)]
struct Envelope<'a> {
    data: Data<'a>,
}

#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Data<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    api_key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    auth_token: Option<String>,
    user_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_properties: Option<UserProperties<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    permissions: Option<Permissions<'a>>,
}

/// `userProperties` of the request. Absent fields are left out: Velt refuses empty strings.
#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct UserProperties<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    organization_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    email: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    is_admin: Option<bool>,
}

impl<'a> UserProperties<'a> {
    fn of(details: &'a Details) -> Self {
        Self {
            organization_id: None,
            name: details.name.as_deref(),
            email: details.email.as_deref(),
            is_admin: details.is_admin,
        }
    }
}

#[derive(Serialize)]
struct Permissions<'a> {
    resources: Vec<Resource<'a>>,
}

/// JSON of Velt's answer: `result.data.token`, or `error.status`.
#[derive(Deserialize)]
struct Answer {
    result: Option<AnswerResult>,
    error: Option<AnswerError>,
}

#[derive(Deserialize)]
struct AnswerResult {
    data: Option<AnswerData>,
}

#[derive(Deserialize)]
struct AnswerData {
    token: Option<String>,
}

#[derive(Deserialize)]
struct AnswerError {
    status: Option<String>,
}

/// The body of an answer.
pub(super) enum Content {
    Plain(Vec<u8>),
    /// A compressed body, which the sidecar did not ask for, so it is not Velt's.
    Encoded,
    /// An error too long to be Velt's.
    Foreign,
}

/// Kind of body.
enum Read {
    Envelope(Answer),
    /// JSON, but not of the form that Velt's answers have.
    OtherJson,
    Nothing,
    /// Content that no answer of Velt's has.
    Foreign(MalformedReason),
}

impl Content {
    /// Whether the body is empty, or has only the braces of an empty object.
    fn is_bare(&self) -> bool {
        let is_brace = |byte: &u8| b"{}".contains(byte) || byte.is_ascii_whitespace();
        matches!(self, Self::Plain(body) if body.iter().all(is_brace))
    }

    fn read(&self, http_status: StatusCode) -> Read {
        let not_velt = MalformedReason::NotVelt { http_status: http_status.as_u16() };
        let body = match self {
            Self::Plain(body) => body,
            Self::Encoded => return Read::Foreign(MalformedReason::Encoded),
            Self::Foreign => return Read::Foreign(not_velt),
        };
        // RFC 8259 section 8.1 lets a byte order mark be ignored.
        let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
        if let Ok(answer) = serde_json::from_slice(body) {
            return Read::Envelope(answer);
        }
        if body.trim_ascii().is_empty() {
            return Read::Nothing;
        }
        match serde_json::from_slice::<IgnoredAny>(body) {
            Ok(_) => Read::OtherJson,
            Err(_) => Read::Foreign(not_velt),
        }
    }
}

/// Returns the token, or the class of the failure: by `error.status` first, by HTTP status second. A refusal
/// without the form of Velt's errors does not come from Velt, but from a firewall or proxy in between.
pub(super) fn classify(
    http_status: StatusCode,
    retry_after: Option<Duration>,
    body: &Content,
) -> Result<TokenValue, MintError> {
    let malformed = |reason| MintError::Malformed { reason };
    let read = body.read(http_status);
    if let Read::Envelope(Answer { error: Some(AnswerError { status: Some(word) }), .. }) = &read
        && let Some(error) = error_named(word, http_status, retry_after)
    {
        return Err(error);
    }
    if !http_status.is_success() {
        let numbered = error_numbered(http_status, retry_after);
        if !matches!(numbered, MintError::Refused { .. }) {
            return Err(numbered);
        }
        return Err(match read {
            Read::Foreign(reason) => malformed(reason),
            // Velt's errors have an `error` in them. An empty object may come from a proxy: count it as
            // Velt's.
            Read::Envelope(Answer { error: None, .. }) if !body.is_bare() => {
                malformed(MalformedReason::NotVelt { http_status: http_status.as_u16() })
            }
            _ => numbered,
        });
    }
    let answer = match read {
        Read::Envelope(answer) => answer,
        Read::Foreign(MalformedReason::Encoded) => return Err(malformed(MalformedReason::Encoded)),
        Read::OtherJson | Read::Nothing | Read::Foreign(_) => {
            return Err(malformed(MalformedReason::NotJson));
        }
    };
    let token = answer.result.and_then(|result| result.data?.token);
    let token = token.ok_or(malformed(MalformedReason::NoToken))?;
    TokenValue::parse(&token).ok_or(malformed(MalformedReason::UnusableToken))
}

/// Returns `error.status` of Velt's answer, if the text has the form of an error word. Any other text is not
/// repeated.
pub(super) fn error_word(body: &Content) -> Option<String> {
    let Read::Envelope(answer) = body.read(StatusCode::OK) else { return None };
    let word = answer.error?.status?;
    let plain = |byte: u8| byte.is_ascii_uppercase() || byte == b'_';
    (word.len() <= 40 && word.bytes().all(plain)).then_some(word)
}

/// Returns the error for a canonical Google code, as Velt's envelope carries it; `None` for an unknown word.
fn error_named(
    status: &str,
    http_status: StatusCode,
    retry_after: Option<Duration>,
) -> Option<MintError> {
    let http_status = http_status.as_u16();
    let refused = |status| MintError::Refused { status, http_status };
    let unavailable =
        MintError::Unavailable { http_status: Some(http_status), retry_after, source: None };
    Some(match status {
        "INVALID_ARGUMENT" => refused(RefusedStatus::InvalidArgument),
        "PERMISSION_DENIED" => refused(RefusedStatus::PermissionDenied),
        "UNAUTHENTICATED" => refused(RefusedStatus::Unauthenticated),
        "NOT_FOUND" => refused(RefusedStatus::NotFound),
        "FAILED_PRECONDITION" => refused(RefusedStatus::FailedPrecondition),
        "ALREADY_EXISTS" | "OUT_OF_RANGE" | "UNIMPLEMENTED" => refused(RefusedStatus::Unnamed),
        "RESOURCE_EXHAUSTED" => MintError::RateLimited { retry_after },
        "DEADLINE_EXCEEDED" => MintError::Timeout,
        "INTERNAL" | "UNAVAILABLE" | "ABORTED" | "UNKNOWN" | "DATA_LOSS" | "CANCELLED" => {
            unavailable
        }
        _ => return None,
    })
}

fn error_numbered(status: StatusCode, retry_after: Option<Duration>) -> MintError {
    let http_status = status.as_u16();
    let refused = |status| MintError::Refused { status, http_status };
    match status {
        StatusCode::TOO_MANY_REQUESTS => MintError::RateLimited { retry_after },
        StatusCode::REQUEST_TIMEOUT | StatusCode::GATEWAY_TIMEOUT => MintError::Timeout,
        StatusCode::BAD_REQUEST => refused(RefusedStatus::InvalidArgument),
        StatusCode::UNAUTHORIZED => refused(RefusedStatus::Unauthenticated),
        StatusCode::FORBIDDEN => refused(RefusedStatus::PermissionDenied),
        StatusCode::NOT_FOUND => refused(RefusedStatus::NotFound),
        status if status.is_client_error() => refused(RefusedStatus::Unnamed),
        _ => MintError::Unavailable { http_status: Some(http_status), retry_after, source: None },
    }
}

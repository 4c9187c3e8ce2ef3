//! The JSON on the wire to and from Velt: what is sent for each API, and what an answer means.

use std::time::Duration;

use http::StatusCode;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};

use super::{Api, Settings};
use crate::token::{
    AccessRole, Details, MalformedReason, MintError, MintRequest, RefusedStatus, Resource,
    ResourceKind, TokenValue,
};

/// The request's body. `unix_now` dates the grants that expire.
pub(super) fn body(settings: &Settings, request: &MintRequest, unix_now: Duration) -> Vec<u8> {
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
            data.permissions = Some(Permissions { resources: grants(request, unix_now) });
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

/// `userProperties`. Absent fields are left out: Velt refuses empty strings.
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
    resources: Vec<Grant<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Grant<'a> {
    r#type: &'static str,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    organization_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    access_role: Option<&'static str>,
    /// Unix seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<u64>,
}

/// The organization itself, then what the configuration adds.
fn grants(request: &MintRequest, unix_now: Duration) -> Vec<Grant<'_>> {
    let own = request.organization().map(|id| Grant {
        r#type: "organization",
        id,
        organization_id: None,
        access_role: None,
        expires_at: None,
    });
    let configured = request.issuer().resources.iter().map(|resource: &Resource| {
        let (r#type, needs_organization) = match resource.kind {
            ResourceKind::Organization => ("organization", false),
            ResourceKind::Folder => ("folder", true),
            ResourceKind::Document => ("document", true),
        };
        let organization = resource.organization.as_deref().or(request.organization());
        Grant {
            r#type,
            id: &resource.id,
            organization_id: organization.filter(|_| needs_organization),
            access_role: resource.role.map(|role| match role {
                AccessRole::Viewer => "viewer",
                AccessRole::Editor => "editor",
            }),
            expires_at: resource.expires_in.map(|life| (unix_now + life).as_secs()),
        }
    });
    own.into_iter().chain(configured).collect()
}

/// What Velt answers: `result.data.token`, or `error.status`.
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

/// The token, or the class of the failure: by `error.status` first, by HTTP status second.
pub(super) fn classify(
    http_status: StatusCode,
    retry_after: Option<Duration>,
    body: &[u8],
) -> Result<TokenValue, MintError> {
    let answer: Option<Answer> = serde_json::from_slice(body).ok();
    let malformed = |reason| MintError::Malformed { reason };
    let named = answer
        .as_ref()
        .and_then(|answer| answer.error.as_ref()?.status.as_deref())
        .and_then(|status| error_named(status, http_status, retry_after));
    if let Some(error) = named {
        return Err(error);
    }
    if !http_status.is_success() {
        return Err(error_numbered(http_status, retry_after));
    }
    let answer = answer.ok_or(malformed(MalformedReason::NotJson))?;
    let token = answer.result.and_then(|result| result.data?.token);
    let token = token.ok_or(malformed(MalformedReason::NoToken))?;
    TokenValue::parse(&token).ok_or(malformed(MalformedReason::UnusableToken))
}

/// Velt's own word for a failure, if it has the form of one: whatever else stands there is not
/// repeated.
pub(super) fn error_word(body: &[u8]) -> Option<String> {
    let answer: Answer = serde_json::from_slice(body).ok()?;
    let word = answer.error?.status?;
    let plain = |byte: u8| byte.is_ascii_uppercase() || byte == b'_';
    (word.len() <= 40 && word.bytes().all(plain)).then_some(word)
}

/// The canonical Google codes that Velt's envelope carries; `None` for a word that is none.
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

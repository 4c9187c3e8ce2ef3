//! Answer that a client would get.

use http::{Method, StatusCode};
use serde::{Deserialize, Serialize};

use super::super::error::RequestError;
use super::delivery::{written_status, written_token};
use crate::inject::{Injection, Place, TokenRoute, TokenStatus};
use ground::metrics::{Label as _, LogoutResult, Outcome};

/// Answer that the client would get.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    pub by: AnsweredBy,
    pub status: u16,
    /// Value of the label `outcome` under which the request would be counted.
    pub outcome: String,
    /// The `code` of the sidecar's own error.
    pub code: Option<String>,
    pub token: TokenFate,
    /// Value of `X-Velt-Token-Status`.
    pub token_status: Option<String>,
    /// Description of the answer.
    pub summary: String,
    /// Advice on what to change if the answer is not the wanted one.
    pub advice: Option<String>,
}

/// Origin of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AnsweredBy {
    App,
    Sidecar,
}

/// Fate of the token in the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenFate {
    Delivered,
    /// The answer has a token if Velt mints one in time, which is not known before.
    IfMinted,
    None,
}

pub(super) fn of_route_answer(route: &TokenRoute, token: TokenFate) -> Answer {
    let shape = route.shape.around("<token>", "<seconds since 1970>");
    let summary = match token {
        TokenFate::IfMinted => format!(
            "{shape} if Velt mints it within {:?} (max_wait of the route), else an error",
            route.max_wait
        ),
        _ => shape,
    };
    Answer {
        by: AnsweredBy::Sidecar,
        status: 200,
        outcome: Outcome::TokenServed.as_str().into(),
        code: None,
        token,
        token_status: None,
        summary,
        advice: None,
    }
}

pub(super) fn of_resolver(summary: &str) -> Answer {
    Answer {
        by: AnsweredBy::Sidecar,
        status: 200,
        outcome: Outcome::ResolverServed.as_str().into(),
        code: None,
        token: TokenFate::None,
        token_status: None,
        summary: summary.into(),
        advice: None,
    }
}

/// Answers a call of a logout path. Whether the call is signed, and for whom, is not looked at.
pub(super) fn of_logout(method: &Method) -> Answer {
    let (status, outcome, code, summary) = if method == Method::POST {
        let summary = "the user is signed out, if the call is signed as it should be";
        (200, Outcome::LogoutDone, None, summary)
    } else {
        let code = LogoutResult::Malformed.as_str();
        (405, Outcome::LogoutRefused, Some(code.into()), "Tell of a logout with POST.")
    };
    Answer {
        by: AnsweredBy::Sidecar,
        status,
        outcome: outcome.as_str().into(),
        code,
        token: TokenFate::None,
        token_status: None,
        summary: summary.into(),
        advice: None,
    }
}

pub(super) fn of_app_answer(
    injection: &Injection,
    place: Place,
    status: StatusCode,
    token: TokenFate,
    absent: Option<TokenStatus>,
) -> Answer {
    let upgraded = status == StatusCode::SWITCHING_PROTOCOLS;
    let outcome = if upgraded { Outcome::Upgraded } else { Outcome::Forwarded };
    let summary = match (token, absent) {
        (TokenFate::Delivered, _) => {
            format!("the app's response with {}", written_token(injection, place))
        }
        (TokenFate::IfMinted, _) => format!(
            "the app's response with {} if Velt mints it in time, else with {}, or the name of \
             Velt's failure",
            written_token(injection, place),
            written_status(injection, place, TokenStatus::Pending)
        ),
        (TokenFate::None, Some(status)) => {
            format!("the app's response with {}", written_status(injection, place, status))
        }
        (TokenFate::None, None) => "the app's response, without a token".into(),
    };
    Answer {
        by: AnsweredBy::App,
        status: status.as_u16(),
        outcome: outcome.as_str().into(),
        code: None,
        token,
        token_status: absent.map(|status| status.as_str().into()),
        summary,
        advice: None,
    }
}

pub(super) fn of_error(error: &RequestError, advice: Option<String>) -> Answer {
    let (status, code, text) = error.public();
    Answer {
        by: AnsweredBy::Sidecar,
        status: status.as_u16(),
        outcome: error.outcome().as_str().into(),
        code: Some(code.into()),
        token: TokenFate::None,
        token_status: None,
        summary: text,
        advice,
    }
}

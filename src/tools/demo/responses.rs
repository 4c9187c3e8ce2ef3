//! The last responses of the reader's app, and what of Velt each carried. Shown on the demo's own page, where
//! the panel cannot be put into the app's pages.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use http::{Response, StatusCode};
use serde_json::{Value, json};

/// Responses kept.
const KEPT: usize = 50;

/// Longest path that is kept, in characters.
const LONGEST_PATH: usize = 200;

/// Word of a response on the user's token.
enum Carried {
    Token,
    Status(String),
    Nothing,
}

struct Noted {
    number: u64,
    path: String,
    status: StatusCode,
    carried: Carried,
}

/// The last responses, oldest first.
#[derive(Default)]
pub struct Responses(Mutex<VecDeque<Noted>>);

impl Responses {
    /// Notes the response to a request for `path`. The token itself is not kept.
    pub fn note<B>(&self, path: &str, response: &Response<B>) {
        let mut responses = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let number = responses.back().map_or(1, |last| last.number + 1);
        if responses.len() == KEPT {
            responses.pop_front();
        }
        let path = path.chars().take(LONGEST_PATH).collect();
        let (status, carried) = (response.status(), carried(response));
        responses.push_back(Noted { number, path, status, carried });
    }

    /// Returns the responses, newest first.
    pub fn shown(&self) -> Value {
        let responses = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let shown = responses.iter().rev().map(|noted| {
            let carried = match &noted.carried {
                Carried::Token => "token",
                Carried::Status(status) => status,
                Carried::Nothing => "",
            };
            json!({
                "number": noted.number,
                "path": noted.path,
                "status": noted.status.as_u16(),
                "carried": carried,
            })
        });
        shown.collect()
    }
}

fn carried<B>(response: &Response<B>) -> Carried {
    let headers = response.headers();
    if headers.contains_key("x-velt-token") {
        return Carried::Token;
    }
    match headers.get("x-velt-token-status").and_then(|status| status.to_str().ok()) {
        Some(status) => Carried::Status(status.to_owned()),
        None => Carried::Nothing,
    }
}

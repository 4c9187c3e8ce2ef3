//! Token routes: paths that the sidecar answers itself, and the shape of the answer.

use std::fmt::{Display, Write as _};
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use http::{Response, StatusCode};

use super::own_answer;
use token::{Moment, Token};

/// A path that the sidecar answers itself.
#[derive(Clone, Debug)]
pub struct TokenRoute {
    /// The one spelling that serves a token.
    pub path: String,
    pub shape: Shape,
    /// Longest time that the page waits for a token that is still being minted.
    pub max_wait: Duration,
}

/// Key in the object of a token route's answer that says how long the token may be used.
pub const EXPIRES_AT: &str = "expiresAt";

/// Shape of a token route's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shape {
    /// `"<jwt>"`, as the older pages of Velt's docs have it.
    String,
    /// `{"<key>":"<jwt>","expiresAt":1764400000}`.
    Object {
        /// The text before the token.
        before: String,
    },
}

impl Shape {
    /// Makes the shape of an object with the token under `key`, which must not be [`EXPIRES_AT`].
    pub fn object(key: &str) -> Self {
        let key = serde_json::Value::from(key);
        Self::Object { before: format!("{{{key}:\"") }
    }

    /// Puts a token into the shape, and where there is room for it the end of the token's use in seconds since
    /// 1970. A token needs no escaping in JSON (see [`token::TokenValue::parse`]).
    pub fn around(&self, token: &str, expires_at: impl Display) -> String {
        match self {
            Self::String => format!("\"{token}\""),
            Self::Object { before } => {
                // Room for the key and the number, so that the text is not moved while it grows.
                let mut text = String::with_capacity(before.len() + token.len() + 32);
                text.push_str(before);
                text.push_str(token);
                write!(text, "\",\"{EXPIRES_AT}\":{expires_at}}}")
                    .expect("a string takes any text");
                text
            }
        }
    }
}

impl TokenRoute {
    /// The answer with the token in it.
    pub fn answer(&self, token: &Token, now: Moment) -> Response<Bytes> {
        // A clock before 1970 makes no difference to the token.
        let end = token.expires_at(now).duration_since(UNIX_EPOCH).unwrap_or_default();
        own_answer(StatusCode::OK, self.shape.around(token.value().expose(), end.as_secs()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn route_answer_has_the_configured_shape() {
        let object = Shape::object("a\"b").around("aaa.bbb.ccc", 7);
        assert_eq!(object, r#"{"a\"b":"aaa.bbb.ccc","expiresAt":7}"#);
        assert_eq!(Shape::String.around("aaa.bbb.ccc", 7), "\"aaa.bbb.ccc\"");
    }
}

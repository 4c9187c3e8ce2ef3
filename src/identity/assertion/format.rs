//! Forms in which libraries of logins keep a session in a cookie.

use std::borrow::Cow;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde_json::Value;

use super::jwe::Sealing;
use super::place::Cookie;
use super::{InvalidAssertion, json};

/// Base64url as libraries write it into cookies, with padding or without.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Marks a value of `@supabase/ssr` that is base64url.
const BASE64_MARK: &[u8] = b"base64-";

/// Form of a cookie that holds an assertion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The value is a signed JWT.
    Jwt,
    /// The value is the session of Supabase as JSON, which holds a signed JWT in `access_token`.
    Supabase,
    /// The value is the encrypted session of Auth.js (NextAuth 5).
    Authjs,
    /// The value is the encrypted session of NextAuth 4.
    Nextauth,
}

/// Assertion in a form that can be checked.
pub(super) enum Form<'a> {
    /// A compact JWS.
    Signed(Cow<'a, [u8]>),
    /// A compact JWE under a key that is derived from a secret and the cookie's name.
    Sealed { token: Cow<'a, [u8]>, sealing: Sealing, name: &'a str },
}

impl Format {
    /// Whether a secret opens the cookie, so that no signature is checked.
    pub fn is_sealed(self) -> bool {
        matches!(self, Self::Authjs | Self::Nextauth)
    }

    /// Unpacks a cookie.
    ///
    /// # Errors
    ///
    /// [`InvalidAssertion::Malformed`] if the cookie has not this form.
    pub(super) fn unpack(self, cookie: Cookie<'_>) -> Result<Form<'_>, InvalidAssertion> {
        let Cookie { name, value } = cookie;
        Ok(match self {
            Self::Jwt => Form::Signed(value),
            Self::Supabase => Form::Signed(Cow::Owned(access_token(&value)?)),
            Self::Authjs => Form::Sealed { token: value, sealing: Sealing::Authjs, name },
            Self::Nextauth => Form::Sealed { token: value, sealing: Sealing::Nextauth, name },
        })
    }
}

/// Returns the access token in a session of Supabase. `@supabase/ssr` writes the session as JSON in base64url
/// behind `base64-`; its older versions wrote JSON with percent signs, and the packages before it an
/// array whose first item is the token.
fn access_token(value: &[u8]) -> Result<Vec<u8>, InvalidAssertion> {
    let malformed = InvalidAssertion::Malformed;
    let text: Cow<'_, [u8]> = match value.strip_prefix(BASE64_MARK) {
        Some(text) => Cow::Owned(BASE64.decode(text).map_err(|_| malformed)?),
        None => percent_encoding::percent_decode(value).into(),
    };
    let token = if text.first() == Some(&b'[') {
        let array: Vec<Value> = serde_json::from_slice(&text).map_err(|_| malformed)?;
        array.into_iter().next()
    } else {
        json::object(&text).ok_or(malformed)?.remove("access_token")
    };
    match token {
        Some(Value::String(token)) => Ok(token.into_bytes()),
        _ => Err(malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(value: &str) -> Option<String> {
        access_token(value.as_bytes()).ok().and_then(|token| String::from_utf8(token).ok())
    }

    #[test]
    fn access_token_is_found_in_each_form_of_a_session() {
        let json = r#"{"access_token":"a.b.c","user":{"id":"ä"}}"#;
        let encoded = BASE64.encode(json);
        assert_eq!(token(&format!("base64-{encoded}")).as_deref(), Some("a.b.c"));
        let unpadded = encoded.trim_end_matches('=');
        assert_eq!(token(&format!("base64-{unpadded}")).as_deref(), Some("a.b.c"));
        assert_eq!(token("%7B%22access_token%22%3A%22a.b.c%22%7D").as_deref(), Some("a.b.c"));
        assert_eq!(token("%5B%22a.b.c%22%2Cnull%5D").as_deref(), Some("a.b.c"));
        for faulty in
            ["", "a.b.c", "base64-", "base64-!", "{}", "[]", "[1]", "%7B", "{\"access_token\":1}"]
        {
            assert_eq!(token(faulty), None, "{faulty:?}");
        }
    }

    #[test]
    fn session_that_names_two_tokens_is_malformed() {
        assert_eq!(token(r#"{"access_token":"a","access_token":"b"}"#), None);
    }
}

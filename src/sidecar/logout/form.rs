//! Reader of a back-channel logout request: a form with the parameter `logout_token` (OpenID Connect Back-Channel
//! Logout 1.0, section 2.5).

use std::borrow::Cow;
use std::fmt;

use http::HeaderMap;
use percent_encoding::percent_decode;

use crate::ask_app::is_of_type;

/// Parameter with the logout token.
const PARAMETER: &str = "logout_token";

/// Most parameters of a form. A provider sends one.
const MAX_PARAMETERS: usize = 64;

/// Reason why a body has no logout token: a fault of its sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FormFault {
    Type,
    Missing,
    Repeated,
    TooMany,
    /// The token has bytes that are no text.
    Bytes,
}

impl fmt::Display for FormFault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Type => "the Content-Type is not application/x-www-form-urlencoded",
            Self::Missing => "the form has no parameter logout_token",
            Self::Repeated => "the form has logout_token more than once",
            Self::TooMany => "the form has over 64 parameters",
            Self::Bytes => "logout_token is no text",
        })
    }
}

/// Checks that a request says that its body is a form.
pub(super) fn check_type(headers: &HeaderMap) -> Result<(), FormFault> {
    let is_form = is_of_type("application/x-www-form-urlencoded", headers);
    if is_form { Ok(()) } else { Err(FormFault::Type) }
}

/// Returns the logout token in the form that `body` is. Other parameters are not read, as the specification asks.
pub(super) fn logout_token(body: &[u8]) -> Result<String, FormFault> {
    let mut found = None;
    for (number, parameter) in body.split(|byte| *byte == b'&').enumerate() {
        if number == MAX_PARAMETERS {
            return Err(FormFault::TooMany);
        }
        let mut parts = parameter.splitn(2, |byte| *byte == b'=');
        let (name, value) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        if *decoded(name) != *PARAMETER.as_bytes() {
            continue;
        }
        if found.replace(value).is_some() {
            return Err(FormFault::Repeated);
        }
    }
    let value = decoded(found.ok_or(FormFault::Missing)?);
    match String::from_utf8(value.into_owned()) {
        Ok(token) if token.is_empty() => Err(FormFault::Missing),
        Ok(token) => Ok(token),
        Err(_) => Err(FormFault::Bytes),
    }
}

/// Decodes a name or a value (URL standard, section 5.1): `+` is a space, `%` begins an escaped byte.
fn decoded(text: &[u8]) -> Cow<'_, [u8]> {
    if !text.contains(&b'+') {
        return percent_decode(text).into();
    }
    let spaced: Vec<u8> =
        text.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
    Cow::Owned(percent_decode(&spaced).collect())
}

#[cfg(test)]
mod tests {
    use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn logout_token_is_found_among_other_parameters() {
        for body in [
            "logout_token=a.b-c_d",
            "logout_token=a%2Eb%2Dc_d&x=1",
            "state=&x=logout_token=1&logout_token=a.b-c_d&&",
            "%6Cogout_token=a.b-c_d&LOGOUT_TOKEN=x",
        ] {
            assert_eq!(logout_token(body.as_bytes()).as_deref(), Ok("a.b-c_d"), "{body}");
        }
        assert_eq!(logout_token(b"logout_token=a+b%2B").as_deref(), Ok("a b+"));
    }

    #[test]
    fn form_without_exactly_one_logout_token_is_refused() {
        for (body, fault) in [
            ("", FormFault::Missing),
            ("logout_token", FormFault::Missing),
            ("logout_token=", FormFault::Missing),
            ("{\"logout_token\":\"a\"}", FormFault::Missing),
            ("logout_token=a&logout_token=a", FormFault::Repeated),
            ("logout_token=a&logout%5Ftoken=b", FormFault::Repeated),
            ("logout_token=%ff", FormFault::Bytes),
        ] {
            assert_eq!(logout_token(body.as_bytes()), Err(fault), "{body}");
        }
        let many = format!("{}logout_token=a", "x=1&".repeat(64));
        assert_eq!(logout_token(many.as_bytes()), Err(FormFault::TooMany));
    }

    proptest! {
        #[test]
        fn any_token_comes_back_from_an_encoded_form(
            token in "\\PC{1,40}",
            before in "([a-z]{1,8}=[a-z%+]{0,8}&){0,5}",
            after in "(&[a-z]{1,5}=[a-z]{0,5}){0,5}",
        ) {
            let encoded = percent_encode(token.as_bytes(), NON_ALPHANUMERIC);
            let body = format!("{before}logout_token={encoded}{after}");
            prop_assert_eq!(logout_token(body.as_bytes()), Ok(token));
        }

        #[test]
        fn no_body_panics_or_yields_an_empty_token(
            body in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            prop_assert!(logout_token(&body) != Ok(String::new()));
        }
    }
}

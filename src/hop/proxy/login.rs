//! Logins that an app ties to a TCP connection, as Windows logins do (NTLM and Negotiate, RFC 4559).
//! The app takes every request on such a connection for a request of the user who has logged in there,
//! even if the request names another user. So a connection with a login is kept for one client
//! connection alone (`tests/it/app_logins.rs`).

use std::any::Any;
use std::sync::Arc;

use http::header::{AUTHORIZATION, PROXY_AUTHENTICATE, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::headers::said_of_client;
use super::pool::Lease;
use ground::client_connection::ClientConnection;
use ground::names::Names;

/// Schemes of logins that hold for a connection and not for a message.
const SCHEMES: [&[u8]; 6] = [b"ntlm", b"negotiate", b"kerberos", b"nego2", b"spnego", b"credssp"];

/// Header that says whether a login holds for the connection (MS-N2HT).
const PERSISTENT_AUTH: HeaderName = HeaderName::from_static("persistent-auth");
/// Header that says that a login at the proxy holds for the connection (RFC 4559 section 6).
const PROXY_SUPPORT: HeaderName = HeaderName::from_static("proxy-support");

/// Whether a request with these `names` of headers is part of a login that holds for its connection.
pub(super) fn is_in(headers: &HeaderMap, names: Names) -> bool {
    names.may_have(&AUTHORIZATION)
        && headers.get_all(AUTHORIZATION).iter().any(|value| {
            let value = value.as_bytes();
            // A bearer's token is long and has no comma.
            let (scheme, _) = first_word(value);
            SCHEMES.iter().any(|wanted| wanted.eq_ignore_ascii_case(scheme))
                || value.contains(&b',') && SCHEMES.iter().any(|wanted| is_word_of(value, wanted))
        })
}

/// Whether a response says that its connection has a login, or asks for one.
pub(super) fn is_in_answer(headers: &HeaderMap, names: Names) -> bool {
    let marks: [(HeaderName, &[&[u8]]); 4] = [
        (WWW_AUTHENTICATE, &SCHEMES),
        (PROXY_AUTHENTICATE, &SCHEMES),
        (PERSISTENT_AUTH, &[b"true"]),
        (PROXY_SUPPORT, &[b"session-based-authentication"]),
    ];
    marks.iter().any(|(name, words)| names.may_have(name) && has_word(headers, name, words))
}

/// Whether one of the words in a header's values is one of `wanted`. Challenges may stand in one line or in
/// several, so every word is looked at: a word too many costs a connection, a word too few lets one
/// user see another user's page.
fn has_word(headers: &HeaderMap, name: &HeaderName, wanted: &[&[u8]]) -> bool {
    let mut values = headers.get_all(name).iter().map(HeaderValue::as_bytes);
    values.any(|value| wanted.iter().any(|word| is_word_of(value, word)))
}

fn is_word_of(value: &[u8], wanted: &[u8]) -> bool {
    let mut rest = value;
    while !rest.is_empty() {
        let (word, after) = first_word(rest);
        if word.eq_ignore_ascii_case(wanted) {
            return true;
        }
        rest = after;
    }
    false
}

/// The first word of a value, and what comes after the byte that ends it.
fn first_word(value: &[u8]) -> (&[u8], &[u8]) {
    let is_in_word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'-';
    let end = value.iter().position(|byte| !is_in_word(byte)).unwrap_or(value.len());
    (&value[..end], value.get(end + 1..).unwrap_or_default())
}

/// Client of a request: the connection over which the request came, and the chain of addresses that
/// goes to the app. A front that sends several clients' requests over one connection names each client
/// in the chain.
#[derive(Clone, Copy)]
pub(super) struct Asker<'a> {
    /// `None` over HTTP/2, where requests share a connection: there, a login holds for one request.
    pub(super) connection: Option<&'a Arc<ClientConnection>>,
    /// Whether the request is part of a login.
    pub(super) logs_in: bool,
}

impl Asker<'_> {
    /// Whether the request must use a connection that belongs to its client alone.
    pub(super) fn has_own(self) -> bool {
        self.logs_in || self.connection.is_some_and(|connection| connection.keeps())
    }

    /// Takes out the connection to the app on which the client has logged in. Closes the connection if
    /// another client of the same front has logged in on it.
    pub(super) fn take_own(self, chain: &[HeaderValue]) -> Option<Lease> {
        let kept = self.connection?.take()?.downcast::<Kept>().ok()?;
        (kept.chain == chain).then_some(kept.lease)
    }

    /// Client that the connection to the app will belong to.
    pub(super) fn owner(self, chain: Vec<HeaderValue>) -> Owner {
        Owner { connection: self.connection.map(Arc::clone), chain }
    }
}

/// Client that a connection to the app belongs to.
#[derive(Default)]
pub(super) struct Owner {
    /// Connection of the client; `None` if the connection to the app closes after its response.
    connection: Option<Arc<ClientConnection>>,
    chain: Vec<HeaderValue>,
}

struct Kept {
    lease: Lease,
    chain: Vec<HeaderValue>,
}

impl Owner {
    /// Keeps `lease` until its client's next request, or closes it.
    pub(super) fn keep(self, lease: Lease) {
        if let Some(connection) = self.connection {
            let kept: Box<dyn Any + Send> = Box::new(Kept { lease, chain: self.chain });
            connection.keep(kept);
        }
    }
}

/// Addresses through which a request has come, as the app reads them. The addresses tell the clients of one
/// front apart.
pub(super) fn chain(headers: &HeaderMap) -> Vec<HeaderValue> {
    said_of_client(headers).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
            headers.append(name, HeaderValue::from_str(value).expect("a value"));
        }
        headers
    }

    #[test]
    fn login_is_seen_in_requests_in_any_spelling() {
        let is = |lines: &[(&str, &str)]| {
            let headers = headers(lines);
            is_in(&headers, Names::of(&headers))
        };
        for value in ["NTLM TlRMTVNTUAAB", "negotiate YII", "nTlM\tTlRM", "Kerberos x", "NTLM"] {
            assert!(is(&[("authorization", value)]), "{value}");
            assert!(is(&[("authorization", "Basic eDp5"), ("authorization", value)]), "{value}");
            assert!(is(&[("authorization", &format!("Basic eDp5,{value}"))]), "{value}");
        }
        for value in ["Basic eDp5", "Bearer negotiated", "NTLMv9 x", ""] {
            assert!(!is(&[("authorization", value)]), "{value}");
        }
        assert!(!is(&[("x-authorization", "NTLM x")]));
    }

    #[test]
    fn login_is_seen_in_answers_in_any_spelling() {
        let is = |lines: &[(&str, &str)]| {
            let headers = headers(lines);
            is_in_answer(&headers, Names::of(&headers))
        };
        for line in [
            ("www-authenticate", "NTLM"),
            ("www-authenticate", "Basic realm=\"a, b\", negotiate"),
            ("www-authenticate", "Negotiate oYG2MIGz,Basic realm=x"),
            ("proxy-authenticate", "NTLM TlRM"),
            ("persistent-auth", "True"),
            ("proxy-support", "Session-Based-Authentication"),
        ] {
            assert!(is(&[line]), "{line:?}");
            assert!(is(&[("www-authenticate", "Digest realm=\"x\""), line]), "{line:?}");
        }
        for line in [
            ("www-authenticate", "Basic realm=\"x\", Digest nonce=\"y\""),
            ("persistent-auth", "false"),
            ("x-auth", "NTLM"),
        ] {
            assert!(!is(&[line]), "{line:?}");
        }
    }
}

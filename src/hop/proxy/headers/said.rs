//! Headers in which fronts speak of the client's address, the scheme and the host. Each front has headers of
//! its own for these topics, and each app reads others.

use std::ops::BitOr;
use std::sync::LazyLock;

use http::header::FORWARDED;
use http::{HeaderMap, HeaderName, HeaderValue};

use ground::spelling::{begins_with, is_read_as};

/// Topics of which the headers of a front speak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Said(u8);

impl Said {
    pub(super) const CLIENT: Self = Self(1);
    pub(super) const SCHEME: Self = Self(2);
    pub(super) const HOST: Self = Self(4);
    /// Scheme and host together: the port is part of the URL that the client has asked for.
    const PORT: Self = Self(Self::SCHEME.0 | Self::HOST.0);

    /// Whether one of these headers speaks of `topic`.
    pub(super) fn has(self, topic: Self) -> bool {
        self.0 & topic.0 != 0
    }

    /// Topics of which any of `headers` speaks.
    pub(super) fn in_headers(headers: &HeaderMap) -> Self {
        let mut said = Self::default();
        for name in headers.keys() {
            if *name == FORWARDED {
                said = said | Self::in_forwarded(headers);
            } else if let Some(topic) = topic_of(name).or_else(|| topic_by_ending(name)) {
                said = said | topic;
            }
        }
        said
    }

    /// Topics of the parameters of `Forwarded` (RFC 7239 section 4).
    fn in_forwarded(headers: &HeaderMap) -> Self {
        let mut said = Self::default();
        for value in headers.get_all(FORWARDED) {
            let mut quoted = false;
            let pairs = value.as_bytes().split(|byte| {
                quoted ^= *byte == b'"';
                !quoted && matches!(byte, b';' | b',')
            });
            for pair in pairs {
                let name = pair.split(|byte| *byte == b'=').next().unwrap_or_default().trim_ascii();
                said = said
                    | match name.to_ascii_lowercase().as_slice() {
                        b"for" => Self::CLIENT,
                        b"proto" => Self::SCHEME,
                        b"host" => Self::HOST,
                        _ => Self::default(),
                    };
            }
        }
        said
    }
}

impl BitOr for Said {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Headers of one topic each, beside `Forwarded`.
const TOPICS: &[(&str, Said)] = &[
    ("x-forwarded-for", Said::CLIENT),
    ("x-real-ip", Said::CLIENT),
    ("x-client-ip", Said::CLIENT),
    ("client-ip", Said::CLIENT),
    ("true-client-ip", Said::CLIENT),
    ("cf-connecting-ip", Said::CLIENT),
    ("cf-connecting-ipv6", Said::CLIENT),
    ("do-connecting-ip", Said::CLIENT),
    ("fastly-client-ip", Said::CLIENT),
    ("fly-client-ip", Said::CLIENT),
    ("x-cluster-client-ip", Said::CLIENT),
    ("x-original-for", Said::CLIENT),
    ("x-original-forwarded-for", Said::CLIENT),
    ("x-envoy-external-address", Said::CLIENT),
    ("x-azure-clientip", Said::CLIENT),
    ("x-azure-socketip", Said::CLIENT),
    ("x-appengine-user-ip", Said::CLIENT),
    ("x-nf-client-connection-ip", Said::CLIENT),
    ("x-vercel-forwarded-for", Said::CLIENT),
    ("wl-proxy-client-ip", Said::CLIENT),
    ("proxy-client-ip", Said::CLIENT),
    ("x-forwarded", Said::CLIENT),
    ("forwarded-for", Said::CLIENT),
    ("cloudfront-viewer-address", Said::CLIENT),
    ("incap-client-ip", Said::CLIENT),
    ("x-sucuri-clientip", Said::CLIENT),
    ("ali-cdn-real-ip", Said::CLIENT),
    ("cdn-src-ip", Said::CLIENT),
    ("x-remote-ip", Said::CLIENT),
    ("x-remote-addr", Said::CLIENT),
    ("x-originating-ip", Said::CLIENT),
    ("$wsra", Said::CLIENT),
    ("x-forwarded-proto", Said::SCHEME),
    ("x-forwarded-protocol", Said::SCHEME),
    ("x-forwarded-scheme", Said::SCHEME),
    ("x-forwarded-ssl", Said::SCHEME),
    ("x-forwarded-https", Said::SCHEME),
    ("x-original-proto", Said::SCHEME),
    ("x-original-scheme", Said::SCHEME),
    ("x-client-proto", Said::SCHEME),
    ("x-client-scheme", Said::SCHEME),
    ("x-url-scheme", Said::SCHEME),
    ("x-scheme", Said::SCHEME),
    ("x-https", Said::SCHEME),
    ("https", Said::SCHEME),
    ("x-arr-ssl", Said::SCHEME),
    ("x-appengine-https", Said::SCHEME),
    ("front-end-https", Said::SCHEME),
    ("cloudfront-forwarded-proto", Said::SCHEME),
    ("cf-visitor", Said::SCHEME),
    ("fastly-ssl", Said::SCHEME),
    ("wl-proxy-ssl", Said::SCHEME),
    ("ssl-offloaded", Said::SCHEME),
    ("$wssc", Said::SCHEME),
    ("$wsis", Said::SCHEME),
    ("x-forwarded-host", Said::HOST),
    ("x-original-host", Said::HOST),
    ("x-host", Said::HOST),
    ("$wssn", Said::HOST),
    ("$wssp", Said::PORT),
    ("x-forwarded-port", Said::PORT),
    ("x-original-port", Said::PORT),
    ("x-forwarded-prefix", Said(0)),
];

/// Names of `TOPICS` by their length in bytes, so that most headers are compared with few names.
static BY_LENGTH: LazyLock<Vec<Vec<(&str, Said)>>> = LazyLock::new(|| {
    let mut by_length = Vec::new();
    for (name, topic) in TOPICS.iter().copied() {
        by_length.resize(by_length.len().max(name.len() + 1), Vec::new());
        by_length[name.len()].push((name, topic));
    }
    by_length
});

/// Topic of `name`, in every spelling that an app may read as one of the known names.
fn topic_of(name: &HeaderName) -> Option<Said> {
    let name = name.as_str();
    let alike = BY_LENGTH.get(name.len())?.iter().find(|(known, _)| {
        // The last letters differ for most names of one length.
        known.as_bytes().last() == name.as_bytes().last() && is_read_as(name, known)
    });
    alike.map(|(_, topic)| *topic)
}

/// Endings of names in which fronts that are on no list speak of the scheme.
const SCHEME_WORDS: [&str; 6] = ["-proto", "-protocol", "-scheme", "-ssl", "-https", "-tls"];

/// Likely topic of a name that is on no list. A guess: it may keep the sidecar from adding a header, but must
/// not make the sidecar remove the peer's header.
fn topic_by_ending(name: &HeaderName) -> Option<Said> {
    let name = name.as_str();
    let ends_with = |word: &&str| {
        name.len() > word.len()
            && name.as_bytes().last() == word.as_bytes().last()
            && name.get(name.len() - word.len()..).is_some_and(|end| is_read_as(end, word))
    };
    // Sec-WebSocket-Protocol is the browser's.
    let is_said = !name.starts_with("sec-") && SCHEME_WORDS.iter().any(ends_with);
    is_said.then_some(Said::SCHEME)
}

/// Whether only a front may send `name`: a header that speaks of the client, the scheme or the host, or any
/// other `X-Forwarded-*`.
fn is_of_a_front(name: &HeaderName) -> bool {
    begins_with(name.as_str(), "x-forwarded-") || *name == FORWARDED || topic_of(name).is_some()
}

/// The headers in which `headers` claim what only a front may say.
pub fn claimed(headers: &HeaderMap) -> impl Iterator<Item = &HeaderName> {
    headers.keys().filter(|name| is_of_a_front(name))
}

/// The headers in which `headers` speak of the client, the scheme and the host, and not of the user.
pub fn said(headers: &HeaderMap) -> impl Iterator<Item = &HeaderName> {
    headers.keys().filter(|name| is_said(name))
}

fn is_said(name: &HeaderName) -> bool {
    *name == FORWARDED || topic_of(name).is_some()
}

/// Values of all headers that speak of the client.
pub(in super::super) fn said_of_client(headers: &HeaderMap) -> impl Iterator<Item = &HeaderValue> {
    let is_of_client = |name: &HeaderName| {
        *name == FORWARDED || topic_of(name).is_some_and(|topic| topic.has(Said::CLIENT))
    };
    headers.iter().filter(move |(name, _)| is_of_client(name)).map(|(_, value)| value)
}

/// The headers of [`copy_said`] by which an app may tell its sites apart, in the order of their names: all but
/// those that speak of the client, and of `Forwarded` the parameters that do not.
pub fn said_of_site(headers: &HeaderMap) -> Vec<(HeaderName, HeaderValue)> {
    let is_of_client =
        |name: &HeaderName| topic_of(name).is_some_and(|topic| topic.has(Said::CLIENT));
    let of_site = headers.iter().filter(|(name, _)| is_copied(name) && !is_of_client(name));
    let mut said: Vec<_> = of_site
        .map(|(name, value)| {
            let value = if *name == FORWARDED { without_client(value) } else { value.clone() };
            (name.clone(), value)
        })
        .collect();
    // Stable: lines of one name keep their order.
    said.sort_by(|(one, _), (other, _)| one.as_str().cmp(other.as_str()));
    said
}

/// Returns a value of `Forwarded` without its parameters `for` and `by` (RFC 7239 sections 5.1 and 5.2).
/// Leaves the separators, so that what is left stays in its element. A parameter that a reader could take for
/// something else, because of quotes, is left too, and so is a whole value with a backslash.
fn without_client(forwarded: &HeaderValue) -> HeaderValue {
    if forwarded.as_bytes().contains(&b'\\') {
        return forwarded.clone();
    }
    let mut quoted = false;
    let mut left = Vec::with_capacity(forwarded.len());
    for pair in forwarded.as_bytes().split_inclusive(|byte| matches!(byte, b';' | b',')) {
        let was_quoted = quoted;
        quoted = pair.iter().fold(quoted, |quoted, byte| quoted ^ (*byte == b'"'));
        let name = pair.split(|byte| *byte == b'=').next().unwrap_or_default().trim_ascii();
        let is_of_client = name.eq_ignore_ascii_case(b"for") || name.eq_ignore_ascii_case(b"by");
        if was_quoted || quoted || !is_of_client {
            left.extend_from_slice(pair);
        } else {
            left.extend(pair.last().filter(|byte| matches!(byte, b';' | b',')));
        }
    }
    HeaderValue::from_bytes(&left).unwrap_or_else(|_| forwarded.clone())
}

/// Copies the headers that speak of the client, the scheme and the host, also in a name that is on no list,
/// and none that speaks of the user.
pub fn copy_said(from: &HeaderMap, to: &mut HeaderMap) {
    for (name, value) in from.iter().filter(|(name, _)| is_copied(name)) {
        to.append(name, value.clone());
    }
}

fn is_copied(name: &HeaderName) -> bool {
    is_said(name) || topic_by_ending(name).is_some()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn topics(lines: &[(&'static str, &'static str)]) -> Said {
        let line = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        Said::in_headers(&lines.iter().map(line).collect())
    }

    #[test]
    fn each_forwarding_header_has_its_topic_in_any_spelling() {
        for (name, topic) in TOPICS.iter().copied() {
            for spelling in [name.to_owned(), name.replace('-', "_"), name.replacen('-', ".", 1)] {
                let name = HeaderName::from_bytes(spelling.as_bytes()).expect("a name");
                assert_eq!(topic_of(&name), Some(topic), "{spelling}");
                assert!(is_of_a_front(&name), "{spelling}");
            }
        }
    }

    #[test]
    fn forwarded_header_has_the_topics_of_its_parameters() {
        for (value, expected) in [
            ("proto=https", Said::SCHEME),
            ("Proto=https", Said::SCHEME),
            ("for=192.0.2.1;host=a.example", Said::CLIENT | Said::HOST),
            ("for=192.0.2.1, for=\"[2001:db8::1]:80\";proto=https", Said::CLIENT | Said::SCHEME),
            ("for=\"a;host=b, proto=c\"", Said::CLIENT),
            ("by=203.0.113.7", Said::default()),
            ("", Said::default()),
        ] {
            assert_eq!(topics(&[("forwarded", value)]), expected, "{value}");
        }
    }

    #[test]
    fn headers_about_the_site_are_all_copied_but_the_clients() {
        let lines = [
            ("x_original_host", "b.example"),
            ("x-forwarded-prefix", "/tenant"),
            ("x-forwarded-port", "8443"),
            ("x-forwarded-host", "a.example"),
            ("x-some-lb-proto", "https"),
            ("forwarded", "for=192.0.2.1;host=f.example"),
            ("x-forwarded-for", "192.0.2.1"),
            ("x-real-ip", "192.0.2.1"),
            ("x-forwarded-user", "ada"),
            ("host", "c.example"),
        ];
        let line = |(name, value): (&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        let headers: HeaderMap = lines.map(line).into_iter().collect();
        let found: Vec<_> = said_of_site(&headers)
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().expect("ASCII")))
            .collect();
        let expected = [
            "forwarded: ;host=f.example",
            "x-forwarded-host: a.example",
            "x-forwarded-port: 8443",
            "x-forwarded-prefix: /tenant",
            "x-some-lb-proto: https",
            "x_original_host: b.example",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn forwarded_header_loses_the_client_and_no_host() {
        for (value, left) in [
            ("for=192.0.2.1", ""),
            ("For=\"[2001:db8::1]:80\"; by=a;proto=https", ";;proto=https"),
            ("for=a;host=b, for=c;host=d", ";host=b,;host=d"),
            ("host=b;for=a", "host=b;"),
            ("host=\"a;for=b;c\"", "host=\"a;for=b;c\""),
            ("for=\"a;host=b\"", "for=\"a;host=b\""),
            ("for=\";host=b", "for=\";host=b"),
            ("for=\"\\\"\";host=b", "for=\"\\\"\";host=b"),
            ("force=1", "force=1"),
        ] {
            assert_eq!(without_client(&HeaderValue::from_static(value)), left, "{value}");
        }
    }

    #[test]
    fn other_headers_have_no_topic() {
        for name in [
            "host",
            "upgrade-insecure-requests",
            "sec-websocket-protocol",
            "x-forwarded-user",
            "x-app-header",
            "proto",
        ] {
            assert_eq!(topics(&[(name, "x")]), Said::default(), "{name}");
        }
        assert_eq!(topics(&[("x-some-lb-proto", "https")]), Said::SCHEME);
        assert_eq!(topics(&[("x_some_lb_ssl", "on")]), Said::SCHEME);
    }
}

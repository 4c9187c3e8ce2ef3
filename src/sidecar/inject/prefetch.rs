//! Requests that a browser sends ahead of the user: prefetches and prerenders.
//!
//! The browser keeps the response of a prefetch for the page that the user may open next, unless the response
//! says `no-store`. A response with a token must say `no-store`, so a prefetch gets no token.

use std::sync::LazyLock;

use http::{HeaderMap, HeaderName};

use ground::names::{NameSet, Names};

/// Headers in which a browser says why it fetches: `Sec-Purpose` (Fetch standard, section 3.9) and its
/// predecessors in Chrome and Safari, Safari, and Firefox.
static PURPOSES: LazyLock<NameSet> = LazyLock::new(|| {
    let names = ["sec-purpose", "purpose", "x-purpose", "x-moz"];
    NameSet::new(names.map(HeaderName::from_static))
});

/// Values of these headers that mark a request ahead of the user. Safari sent `preview` for its page of
/// favourite sites.
const AHEAD: [&[u8]; 3] = [b"prefetch", b"prerender", b"preview"];

/// Whether a request with these headers is sent ahead of the user.
pub(super) fn is_prefetch(headers: &HeaderMap) -> bool {
    let mut values = PURPOSES.among(Names::of(headers)).flat_map(|name| headers.get_all(name));
    values.any(|value| {
        // Parameters are looked at like values: "prefetch;prerender".
        let mut words = value.as_bytes().split(|byte| matches!(byte, b',' | b';'));
        words.any(|word| AHEAD.iter().any(|ahead| ahead.eq_ignore_ascii_case(word.trim_ascii())))
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn says(name: &'static str, value: &'static str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert("accept", HeaderValue::from_static("prefetch"));
        headers.append(name, HeaderValue::from_static("x"));
        headers.append(name, HeaderValue::from_static(value));
        is_prefetch(&headers)
    }

    #[test]
    fn prefetch_header_of_every_browser_is_known() {
        for (name, value) in [
            ("sec-purpose", "prefetch"),
            ("sec-purpose", "prefetch;prerender"),
            ("sec-purpose", "prefetch; anonymous-client-ip"),
            ("sec-purpose", "Prefetch"),
            ("sec-purpose", "other, prefetch"),
            ("sec-purpose", "prerender"),
            ("purpose", "prefetch"),
            ("purpose", "preview"),
            ("x-purpose", "preview"),
            ("x-moz", "prefetch"),
        ] {
            assert!(says(name, value), "{name}: {value}");
        }
        for (name, value) in [
            ("sec-purpose", ""),
            ("sec-purpose", "prefetched"),
            ("sec-purpose", "fetch"),
            ("x-prefetch", "prefetch"),
            ("sec-fetch-dest", "empty"),
        ] {
            assert!(!says(name, value), "{name}: {value}");
        }
    }
}

//! Directives on storing a response: the app's, and the sidecar's for a response with a token.

use std::sync::LazyLock;
use std::time::SystemTime;

use http::header::{CACHE_CONTROL, EXPIRES};
use http::{HeaderMap, HeaderName, HeaderValue};

use ground::names::{NameSet, Names};

/// Headers by which an app instructs one kind of shared cache, but no browser. The last is nginx's, which
/// overrides `Cache-Control` there. Beside these, a header whose name ends in [`TARGETED`].
static CDN_CACHE_HEADERS: LazyLock<NameSet> = LazyLock::new(|| {
    NameSet::new([
        HeaderName::from_static("surrogate-control"),
        HeaderName::from_static("edge-control"),
        HeaderName::from_static("x-accel-expires"),
    ])
});

/// End of the names of headers for one kind of cache (RFC 9213, section 2): `CDN-Cache-Control`,
/// `Vercel-CDN-Cache-Control`, `X-LiteSpeed-Cache-Control`.
const TARGETED: &str = "-cache-control";

/// The app's directive that stays beside the sidecar's own directives.
const NO_TRANSFORM: &[u8] = b"no-transform";

/// Returns the header by which the app allows a cache, private or shared, to store this response (RFC 9111
/// sections 5.2.2 and 5.3, RFC 9213). A doubtful header counts as allowing, so that no token goes in.
pub fn storable_by(headers: &HeaderMap, now: SystemTime) -> Option<&HeaderName> {
    let names = Names::of(headers);
    let mut storable = false;
    for (word, argument) in directives(headers, &CACHE_CONTROL) {
        let is = |other: &[u8]| word.eq_ignore_ascii_case(other);
        if is(b"no-store") {
            // `no-store` overrides all other directives of `Cache-Control`.
            return storable_by_cdn(headers, names);
        }
        if is(b"public") || is(b"s-maxage") || is(b"immutable") {
            storable = true;
        } else if is(b"max-age") {
            storable |= !matches!(argument, Some(b"0" | b"\"0\""));
        }
    }
    if storable {
        return Some(&CACHE_CONTROL);
    }
    if names.may_have(&EXPIRES) {
        let expires = headers.get(EXPIRES).and_then(|expires| expires.to_str().ok());
        let expires = expires.and_then(|expires| httpdate::parse_http_date(expires).ok());
        if expires.is_some_and(|expires| expires > now) {
            return Some(&EXPIRES);
        }
    }
    storable_by_cdn(headers, names)
}

/// Returns the first header for shared caches that lets such a cache store the response. Each line has to
/// forbid storing by itself: of two lines that contradict each other, caches believe different ones.
fn storable_by_cdn(headers: &HeaderMap, names: Names) -> Option<&HeaderName> {
    let forbids = |line: &HeaderValue| {
        let mut words = line.to_str().unwrap_or_default().split(',').map(str::trim);
        words.any(|word| word.eq_ignore_ascii_case("no-store") || word == "0")
    };
    let listed = CDN_CACHE_HEADERS.among(names);
    listed.chain(targeted(headers)).find(|name| !headers.get_all(*name).iter().all(forbids))
}

/// Returns the headers for one kind of cache.
fn targeted(headers: &HeaderMap) -> impl Iterator<Item = &HeaderName> {
    headers.keys().filter(|name| name.as_str().ends_with(TARGETED))
}

/// Returns `private, no-store`, with `no-transform` if the app asked for it: an event stream behind a
/// compressing proxy depends on `no-transform`.
pub(super) fn unstorable(headers: &HeaderMap) -> HeaderValue {
    let is_wanted = |(word, _): (&[u8], _)| word.eq_ignore_ascii_case(NO_TRANSFORM);
    // Compare the length first: most values of `Cache-Control` are shorter.
    let has_room = |line: &HeaderValue| line.len() >= NO_TRANSFORM.len();
    let may_be_wanted = headers.get_all(CACHE_CONTROL).iter().any(has_room);
    HeaderValue::from_static(
        if may_be_wanted && directives(headers, &CACHE_CONTROL).any(is_wanted) {
            "private, no-store, no-transform"
        } else {
            "private, no-store"
        },
    )
}

/// Removes what an app says to caches beside `Cache-Control`.
pub(super) fn forbid_shared_storing(headers: &mut HeaderMap) {
    CDN_CACHE_HEADERS.remove_from(headers, Names::of(headers));
    let targeted: Vec<HeaderName> = targeted(headers).cloned().collect();
    for name in targeted.iter().chain([&EXPIRES]) {
        headers.remove(name);
    }
}

/// Returns the directives of a cache header with their arguments. A line that is not text counts as `public`,
/// so that no token goes in.
fn directives<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)> {
    let lines = headers.get_all(name).into_iter().map(|line| line.to_str().unwrap_or("public"));
    lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b',')).map(|directive| {
        match directive.iter().position(|byte| *byte == b'=') {
            Some(equals) => {
                let (word, argument) = directive.split_at(equals);
                (word.trim_ascii(), Some(argument[1..].trim_ascii()))
            }
            None => (directive.trim_ascii(), None),
        }
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn storable_response_carries_no_token() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let table: &[(&[(&str, &str)], bool)] = &[
            (&[], false),
            (&[("cache-control", "no-cache")], false),
            (&[("cache-control", "private")], false),
            (&[("cache-control", "private, max-age=0")], false),
            (&[("cache-control", "no-store, max-age=60")], false),
            (&[("cache-control", "public")], true),
            (&[("cache-control", "PUBLIC")], true),
            (&[("cache-control", "private, max-age=60")], true),
            (&[("cache-control", "max-age=\"60\"")], true),
            (&[("cache-control", "max-age")], true),
            (&[("cache-control", "no-cache"), ("cache-control", "s-maxage=0")], true),
            (&[("cache-control", "immutable")], true),
            (&[("cdn-cache-control", "max-age=60")], true),
            (&[("cdn-cache-control", "no-store")], false),
            (&[("cache-control", "no-store"), ("surrogate-control", "max-age=9")], true),
            (&[("x-litespeed-cache-control", "public,max-age=60")], true),
            (&[("akamai-cache-control", "max-age=60")], true),
            (&[("akamai-cache-control", "no-store")], false),
            (&[("x-accel-expires", "60")], true),
            (&[("x-accel-expires", "0")], false),
            (&[("x-accel-expires", "0"), ("x-accel-expires", "60")], true),
            (&[("cdn-cache-control", "max-age=60"), ("cdn-cache-control", "no-store")], true),
            (&[("expires", "Tue, 14 Nov 2023 22:13:21 GMT")], true),
            (&[("expires", "Tue, 14 Nov 2023 22:13:20 GMT")], false),
            (&[("expires", "0")], false),
        ];
        for (lines, storable) in table {
            let headers: HeaderMap =
                lines.iter().fold(HeaderMap::new(), |mut map, (name, value)| {
                    let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
                    map.append(name, HeaderValue::from_str(value).expect("a value"));
                    map
                });
            assert_eq!(storable_by(&headers, now).is_some(), *storable, "{lines:?}");
        }
    }
}

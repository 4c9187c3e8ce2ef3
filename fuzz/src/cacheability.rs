//! Choice of the responses that may carry a token, and proof that no cache may keep such a response.
//!
//! First line: the response's status. Then its headers.

use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use http::header::{
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, CACHE_CONTROL,
    CONTENT_SECURITY_POLICY,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use sidecar::inject::{
    AppHeaderSettings, CheckSettings, DocumentSettings, Eligibility, HeaderSettings, Injection,
    OnMintFailure, PathPattern, Place, Settings, TokenStatus,
};
use token::TokenValue;

use super::lines;

const TOKEN: HeaderName = HeaderName::from_static("x-velt-token");
const STATUS: HeaderName = HeaderName::from_static("x-velt-token-status");
const TIMING: HeaderName = HeaderName::from_static("server-timing");

/// # Panics
///
/// Panics if a cache could store a response with a token in it.
pub fn check(input: &[u8]) {
    let (status, rest) = lines::first_line(input);
    let Ok(status) = StatusCode::from_bytes(status.trim_ascii()) else { return };
    let said = lines::headers(rest);
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    let _ = INJECTION.coverage(&Method::GET, "/", &said);

    let mut stripped = said.clone();
    INJECTION.strip(&mut stripped);
    let own = |name: &HeaderName| *name == TOKEN || *name == STATUS;
    let timing = |name: &HeaderName| own(name) || *name == TIMING;
    assert_eq!(lines::without(&stripped, timing), lines::without(&said, timing));
    assert!(!stripped.contains_key(TOKEN) && !stripped.contains_key(STATUS));
    let mut again = stripped.clone();
    INJECTION.strip(&mut again);
    assert_eq!(again, stripped, "a forged metric was left");

    let eligibility = INJECTION.eligibility(Place::Header, status, &stripped, now);
    let whole = status.is_success() && status != StatusCode::PARTIAL_CONTENT;
    assert_eq!(eligibility == Eligibility::NotEligible, !whole);
    let of_document = INJECTION.eligibility(Place::Timing, status, &stripped, now);
    let sandboxed = stripped.get_all(CONTENT_SECURITY_POLICY).iter().any(|policy| {
        let policy = policy.as_bytes().to_ascii_lowercase();
        policy.windows(b"sandbox".len()).any(|word| word == b"sandbox")
    });
    let shared = whole && (sandboxed || stripped.contains_key("timing-allow-origin"));
    assert_eq!(of_document, if shared { Eligibility::Shared } else { eligibility });

    let mut private = said.clone();
    INJECTION.keep_private(&mut private);
    assert_unstorable(&said, &private);
    assert_not_storable(&private);
    assert!(!private.contains_key("expires"));

    let mut timed = stripped.clone();
    INJECTION.apply(Place::Timing, &mut timed, &token());
    assert_unstorable(&said, &timed);
    let told = all(&timed, &TIMING);
    let (own, others) = told.split_first().expect("a metric");
    assert_eq!(*own, "velt-token;desc=\"aaa.bbb.ccc\"");
    assert_eq!(others, all(&stripped, &TIMING));
    if eligibility == Eligibility::Eligible {
        assert_not_storable(&stripped);
    }

    let mut carrying = said.clone();
    INJECTION.apply(Place::Header, &mut carrying, &token());
    assert_unstorable(&said, &carrying);
    assert_eq!(all(&carrying, &TOKEN), ["aaa.bbb.ccc"]);
    assert_rest(&said, &carrying, &TOKEN);

    for status in [TokenStatus::Anonymous, TokenStatus::Pending, TokenStatus::Unavailable] {
        let mut explained = said.clone();
        INJECTION.explain(Place::Header, &mut explained, status);
        if status == TokenStatus::Anonymous {
            assert_eq!(all(&explained, &CACHE_CONTROL), all(&said, &CACHE_CONTROL));
        } else {
            assert_unstorable(&said, &explained);
        }
        assert_eq!(all(&explained, &STATUS).len(), 1);
        assert_rest(&said, &explained, &STATUS);
    }
}

/// Asserts that no header of an eligible response lets a cache store it.
fn assert_not_storable(headers: &HeaderMap) {
    let words = lines::elements(headers, "cache-control");
    let forbids = |words: &[Vec<u8>]| words.iter().any(|word| name_of(word) == b"no-store");
    if !forbids(&words) {
        for word in &words {
            let name = name_of(word);
            let storable = [&b"public"[..], b"s-maxage", b"immutable"].contains(&name);
            assert!(!storable, "stored by {}", word.escape_ascii());
            let age = word.strip_prefix(b"max-age=").map(<[u8]>::trim_ascii);
            let age = age.and_then(|age| std::str::from_utf8(age).ok()?.parse::<u32>().ok());
            assert!(age.is_none_or(|age| age == 0), "stored by {}", word.escape_ascii());
        }
    }
    let cdn = ["cdn-cache-control", "surrogate-control", "cloudflare-cdn-cache-control"];
    for list in cdn {
        let words = lines::elements(headers, list);
        let stored = words.iter().any(|word| {
            let age = word.strip_prefix(b"max-age=");
            let age = age.and_then(|age| std::str::from_utf8(age).ok()?.parse::<u32>().ok());
            age.is_some_and(|age| age > 0)
        });
        assert!(!stored || forbids(&words), "stored by {list}");
    }
    // nginx prefers this header to Cache-Control.
    for line in headers.get_all("x-accel-expires") {
        let seconds = line.to_str().ok().and_then(|line| line.parse::<u32>().ok());
        assert!(seconds.is_none_or(|seconds| seconds == 0), "stored by X-Accel-Expires");
    }
}

fn name_of(word: &[u8]) -> &[u8] {
    let end = word.iter().position(|byte| *byte == b'=').unwrap_or(word.len());
    word[..end].trim_ascii()
}

/// Asserts that there is exactly one `Cache-Control`, and that no cache can misread it.
fn assert_unstorable(said: &HeaderMap, headers: &HeaderMap) {
    let asked = said.get_all(CACHE_CONTROL).iter().any(|line| {
        // A line that is not text has no directives.
        let words = line.to_str().unwrap_or_default().to_ascii_lowercase();
        words.split(',').any(|word| name_of(word.as_bytes()) == b"no-transform")
    });
    let expected = if asked { "private, no-store, no-transform" } else { "private, no-store" };
    assert_eq!(all(headers, &CACHE_CONTROL), [expected]);
}

/// Asserts that no other header has changed, except that scripts of other origins may read `name`.
fn assert_rest(said: &HeaderMap, headers: &HeaderMap, name: &HeaderName) {
    let mut expected = said.clone();
    if said.contains_key(ACCESS_CONTROL_ALLOW_ORIGIN) {
        expected.append(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from(name.clone()));
    }
    let rest = |headers| lines::without(headers, |other| other == name || other == CACHE_CONTROL);
    assert_eq!(rest(headers), rest(&expected));
}

fn all<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Vec<&'a HeaderValue> {
    headers.get_all(name).iter().collect()
}

fn token() -> TokenValue {
    TokenValue::parse("aaa.bbb.ccc").expect("a token")
}

static INJECTION: LazyLock<Injection> = LazyLock::new(|| {
    Injection::new(Settings {
        header: HeaderSettings {
            enabled: true,
            name: TOKEN,
            status_name: STATUS,
            paths: vec![PathPattern::Prefix("/".into())],
            max_wait: Duration::ZERO,
            on_failure: OnMintFailure::Omit,
        },
        app_header: AppHeaderSettings {
            paths: Vec::new(),
            name: TOKEN,
            status_name: STATUS,
            max_wait: Duration::ZERO,
        },
        document: DocumentSettings {
            paths: vec![PathPattern::Prefix("/".into())],
            max_wait: Duration::ZERO,
        },
        check: CheckSettings { path: None, max_wait: Duration::ZERO, require_user: false },
        routes: Vec::new(),
        max_body: 1024,
        allow_same_site: false,
    })
});

//! Delivery with the load of a page, each for the paths that the configuration names: to the app, in headers of the
//! request, so that the app can put the token into the page; and to the page's own scripts, in `Server-Timing` (W3C
//! Server Timing), which they read without another request.

use std::time::Duration;

use http::header::CONTENT_SECURITY_POLICY;
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::prefetch::is_prefetch;
use super::{PathPattern, SEC_FETCH_DEST, TokenStatus};
use token::TokenValue;

const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// Header by which a server lets pages of other origins read its timings, `Server-Timing` among them.
const TIMING_ALLOW_ORIGIN: HeaderName = HeaderName::from_static("timing-allow-origin");

/// Metric in `Server-Timing` whose description is the token.
const TOKEN_METRIC: &str = "velt-token";

/// Metric in `Server-Timing` whose description says why there is no token.
const STATUS_METRIC: &str = "velt-token-status";

/// Values of `Sec-Fetch-Dest` of requests that the app may answer with a page or a part of a page. Requests for images
/// and scripts do not wait for a token.
const PAGES: [&str; 4] = ["document", "empty", "iframe", "frame"];

/// Delivery to the app, in a header of the request.
#[derive(Clone, Debug)]
pub struct AppHeaderSettings {
    /// Paths whose requests get the headers. None by default.
    pub paths: Vec<PathPattern>,
    pub name: HeaderName,
    /// Name of the header that says why there is no token.
    pub status_name: HeaderName,
    /// Longest time that a request is held back for a token that is still being minted.
    pub max_wait: Duration,
}

/// Delivery to the scripts of a page, in the `Server-Timing` of its document.
#[derive(Clone, Debug)]
pub struct DocumentSettings {
    /// Paths of the documents. None by default.
    pub paths: Vec<PathPattern>,
    /// Longest time that a document is held back for a token that is still being minted.
    pub max_wait: Duration,
}

/// A token, or the reason why there is none.
pub type TokenOrStatus<'a> = Result<&'a TokenValue, TokenStatus>;

impl AppHeaderSettings {
    /// Returns the pattern by which the app is given the token with this request.
    pub fn covering(
        &self,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
    ) -> Option<&PathPattern> {
        let pattern = self.paths.iter().find(|pattern| pattern.matches(path))?;
        let may_be_page = headers
            .get(SEC_FETCH_DEST)
            .is_none_or(|dest| PAGES.iter().any(|page| dest.as_bytes() == page.as_bytes()));
        let covered = method != Method::OPTIONS && may_be_page && !is_prefetch(headers);
        covered.then_some(pattern)
    }

    /// Tells the app. Only the sidecar sets these names: a client's own headers have been removed before.
    pub fn tell(&self, headers: &mut HeaderMap, token: TokenOrStatus<'_>) {
        match token {
            Ok(token) => headers.insert(self.name.clone(), token.header()),
            Err(status) => {
                let status = HeaderValue::from_static(status.as_str());
                headers.insert(self.status_name.clone(), status)
            }
        };
    }
}

impl DocumentSettings {
    /// Returns the pattern by which the document that answers this request may have the token.
    ///
    /// Only a top-level document: a page of another origin that frames the document may read the timings too.
    pub(super) fn covering(
        &self,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
    ) -> Option<&PathPattern> {
        let pattern = self.paths.iter().find(|pattern| pattern.matches(path))?;
        let is_document = headers.get(SEC_FETCH_DEST).is_some_and(|dest| dest == "document");
        let loads = method == Method::GET || method == Method::POST;
        (loads && is_document && !is_prefetch(headers)).then_some(pattern)
    }

    /// Removes each line that names a metric of the sidecar's, wherever in the line: browsers read lists that the
    /// standard does not allow in ways of their own. Removes nothing while no document path is configured.
    pub(super) fn strip(&self, headers: &mut HeaderMap) {
        if self.paths.is_empty() || !headers.get_all(SERVER_TIMING).iter().any(names_own) {
            return;
        }
        let lines = headers.get_all(SERVER_TIMING).iter();
        let kept: Vec<HeaderValue> = lines.filter(|line| !names_own(line)).cloned().collect();
        put_lines(headers, kept);
    }
}

/// Whether scripts that are not the app's own may read the timings of this response: those of other origins, or those
/// of a document that the app itself has put into an origin of its own, such as a file that a user has uploaded
/// (Content Security Policy Level 3, section 6.3.4).
pub(super) fn shows_timings(headers: &HeaderMap) -> bool {
    let mut policies = headers.get_all(CONTENT_SECURITY_POLICY).iter();
    headers.contains_key(TIMING_ALLOW_ORIGIN)
        || policies.any(|policy| contains(policy.as_bytes(), b"sandbox"))
}

/// Puts a token, or the reason why there is none, into the timings of a document. The sidecar's line comes first: a
/// browser stops reading at the first character that it does not understand.
pub(super) fn tell_scripts(headers: &mut HeaderMap, token: TokenOrStatus<'_>) {
    let metric = match token {
        // A token needs no escaping in a quoted string, as in JSON.
        Ok(token) => format!("{TOKEN_METRIC};desc=\"{}\"", token.expose()),
        Err(status) => format!("{STATUS_METRIC};desc=\"{}\"", status.as_str()),
    };
    let mut metric = HeaderValue::from_str(&metric).expect("visible ASCII");
    metric.set_sensitive(true);
    let others = headers.get_all(SERVER_TIMING).iter().cloned();
    let lines = std::iter::once(metric).chain(others).collect();
    put_lines(headers, lines);
}

/// Makes these the lines of `Server-Timing`.
fn put_lines(headers: &mut HeaderMap, lines: Vec<HeaderValue>) {
    headers.remove(SERVER_TIMING);
    for line in lines {
        headers.append(SERVER_TIMING, line);
    }
}

/// Whether a line has one of the sidecar's names in it. The name of the status begins with that of the token.
fn names_own(line: &HeaderValue) -> bool {
    contains(line.as_bytes(), TOKEN_METRIC.as_bytes())
}

/// Whether `text` has `word` in it, in letters of any case.
fn contains(text: &[u8], word: &[u8]) -> bool {
    text.windows(word.len()).any(|part| part.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        headers
    }

    fn document() -> DocumentSettings {
        let paths = vec![PathPattern::Prefix("/".into())];
        DocumentSettings { paths, max_wait: Duration::ZERO }
    }

    #[test]
    fn only_top_level_documents_are_told() {
        let covers = |method: Method, lines: &[_]| {
            document().covering(&method, "/page", &headers(lines)).is_some()
        };
        assert!(covers(Method::GET, &[("sec-fetch-dest", "document")]));
        assert!(covers(Method::POST, &[("sec-fetch-dest", "document")]));
        assert!(!covers(Method::HEAD, &[("sec-fetch-dest", "document")]));
        assert!(!covers(Method::GET, &[]));
        assert!(!covers(
            Method::GET,
            &[("sec-fetch-dest", "document"), ("sec-purpose", "prefetch;prerender")]
        ));
        for dest in ["empty", "iframe", "frame", "embed", "object", "fencedframe", "image"] {
            assert!(!covers(Method::GET, &[("sec-fetch-dest", dest)]), "{dest}");
        }
    }

    #[test]
    fn app_is_told_where_it_may_make_a_page() {
        let settings = AppHeaderSettings {
            paths: vec![PathPattern::Exact("/page".into())],
            name: HeaderName::from_static("x-velt-token"),
            status_name: HeaderName::from_static("x-velt-token-status"),
            max_wait: Duration::ZERO,
        };
        let covers = |method: Method, path, lines: &[_]| {
            settings.covering(&method, path, &headers(lines)).is_some()
        };
        assert!(covers(Method::GET, "/page", &[]));
        assert!(!covers(Method::GET, "/pages", &[]));
        assert!(!covers(Method::OPTIONS, "/page", &[]));
        for (dest, expected) in [
            ("document", true),
            ("empty", true),
            ("iframe", true),
            ("image", false),
            ("script", false),
        ] {
            let lines = [("sec-fetch-dest", dest)];
            assert_eq!(covers(Method::GET, "/page", &lines), expected, "{dest}");
        }
        assert!(!covers(Method::GET, "/page", &[("purpose", "prefetch")]));
    }

    #[test]
    fn forged_metrics_are_removed_and_others_stay() {
        for (line, stays) in [
            (&b"db;dur=53"[..], true),
            (b"velt-token;desc=\"forged\"", false),
            (b"VELT-Token;desc=x", false),
            (b"velt-token-status;desc=y", false),
            (b"db;dur=1, velt-token;desc=\"a,b\",cache", false),
            // Browsers take the first two for the name that they begin with, and open no string in the third.
            (b"velt-token x;desc=forged", false),
            (b"velt-token\xa0;desc=forged", false),
            (b"db;desc=a\"b, velt-token;desc=forged, x\"", false),
            (b"db;desc=\"velt-token\"", false),
            (b"velt;desc=x", true),
            (b"db;desc=\"abc", true),
        ] {
            let mut headers = HeaderMap::new();
            let value = HeaderValue::from_bytes(line).expect("a header value");
            headers.append(SERVER_TIMING, value.clone());
            headers.append(SERVER_TIMING, HeaderValue::from_static("app;dur=2"));
            document().strip(&mut headers);
            let left: Vec<_> = headers.get_all(SERVER_TIMING).iter().collect();
            let app = HeaderValue::from_static("app;dur=2");
            let expected: Vec<_> = [&value].into_iter().filter(|_| stays).chain([&app]).collect();
            assert_eq!(left, expected, "{value:?}");
        }
    }

    #[test]
    fn token_is_the_first_metric() {
        let token = TokenValue::parse("aaa.bbb.ccc").expect("a token");
        let mut headers = headers(&[("server-timing", ",x"), ("server-timing", "db;desc=\"a")]);
        tell_scripts(&mut headers, Ok(&token));
        let lines: Vec<_> = headers.get_all(SERVER_TIMING).iter().collect();
        assert_eq!(lines, ["velt-token;desc=\"aaa.bbb.ccc\"", ",x", "db;desc=\"a"]);
    }

    #[test]
    fn timings_of_sandboxed_and_shared_documents_carry_no_token() {
        for (name, value, shown) in [
            ("timing-allow-origin", "*", true),
            ("timing-allow-origin", "", true),
            ("content-security-policy", "sandbox", true),
            ("content-security-policy", "default-src 'self'; Sandbox allow-scripts", true),
            ("content-security-policy", "default-src 'self'", false),
            ("content-security-policy-report-only", "sandbox", false),
        ] {
            assert_eq!(shows_timings(&headers(&[(name, value)])), shown, "{name}: {value}");
        }
    }

    #[test]
    fn token_in_timings_is_not_shown_by_debug() {
        let token = TokenValue::parse("aaa.bbb.ccc").expect("a token");
        let mut headers = HeaderMap::new();
        tell_scripts(&mut headers, Ok(&token));
        assert_eq!(headers[SERVER_TIMING], "velt-token;desc=\"aaa.bbb.ccc\"");
        assert!(!format!("{headers:?}").contains("aaa"));
    }
}

//! Delivery with the load of a page, each for the paths that the configuration names: to the app, in headers of the
//! request, so that the app can put the token into the page; and to the page's own scripts, in `Server-Timing` (W3C
//! Server Timing), which they read without another request.

use std::time::Duration;

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

/// Kinds of request whose response may be a page, or a part of a page that a script has asked for. Of images and
/// scripts the app makes none, so they do not wait for a token.
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
    /// Only a document that has a window of its own: for a frame in another origin's page, the outer page has the
    /// timings too.
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

    /// Removes the metrics that only the sidecar may set. Without documents to tell, the app's are its own.
    pub(super) fn strip(&self, headers: &mut HeaderMap) {
        if self.paths.is_empty() || !headers.contains_key(SERVER_TIMING) {
            return;
        }
        let lines: Vec<HeaderValue> = headers.get_all(SERVER_TIMING).iter().cloned().collect();
        if lines.iter().all(|line| members(line.as_bytes()).all(|member| !is_own(member))) {
            return;
        }
        headers.remove(SERVER_TIMING);
        for line in lines {
            let kept: Vec<&[u8]> =
                members(line.as_bytes()).filter(|member| !is_own(member)).collect();
            // A part of a valid value is valid.
            if let Ok(line) = HeaderValue::from_bytes(&kept.join(&b','))
                && !kept.is_empty()
            {
                headers.append(SERVER_TIMING, line);
            }
        }
    }
}

/// Whether scripts of other origins may read the timings of this response.
pub(super) fn shows_timings(headers: &HeaderMap) -> bool {
    headers.contains_key(TIMING_ALLOW_ORIGIN)
}

/// Puts a token, or the reason why there is none, into the timings of a document.
pub(super) fn tell_scripts(headers: &mut HeaderMap, token: TokenOrStatus<'_>) {
    let metric = match token {
        // A token needs no escaping in a quoted string, as in JSON.
        Ok(token) => format!("{TOKEN_METRIC};desc=\"{}\"", token.expose()),
        Err(status) => format!("{STATUS_METRIC};desc=\"{}\"", status.as_str()),
    };
    let mut metric = HeaderValue::from_str(&metric).expect("visible ASCII");
    metric.set_sensitive(true);
    headers.append(SERVER_TIMING, metric);
}

/// Splits a list at its commas, but not within quoted strings (RFC 9110, section 5.6.1).
fn members(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let (mut quoted, mut escaped) = (false, false);
    line.split(move |byte| {
        let ends = *byte == b',' && !quoted;
        if *byte == b'"' && !escaped {
            quoted = !quoted;
        }
        escaped = quoted && *byte == b'\\' && !escaped;
        ends
    })
}

/// Whether a metric has one of the sidecar's names. Browsers compare names as they are; letters in another case
/// are the sidecar's all the same.
fn is_own(member: &[u8]) -> bool {
    let end = member.iter().position(|byte| matches!(byte, b';' | b'=')).unwrap_or(member.len());
    let name = member[..end].trim_ascii();
    [TOKEN_METRIC, STATUS_METRIC].iter().any(|own| name.eq_ignore_ascii_case(own.as_bytes()))
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
    fn only_whole_documents_of_a_window_are_told() {
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
        for (line, kept) in [
            ("db;dur=53", Some("db;dur=53")),
            ("velt-token;desc=\"forged\"", None),
            ("VELT-Token;desc=x", None),
            ("db;dur=1, velt-token;desc=\"a,b\",cache", Some("db;dur=1,cache")),
            (
                "db;desc=\"velt-token, x\", velt-token-status;desc=y",
                Some("db;desc=\"velt-token, x\""),
            ),
            ("db;desc=\"a\\\", velt-token;desc=x\"", Some("db;desc=\"a\\\", velt-token;desc=x\"")),
            ("  velt-token  ", None),
            ("velt-tokens", Some("velt-tokens")),
        ] {
            let mut headers = HeaderMap::new();
            headers.append(SERVER_TIMING, HeaderValue::from_static(line));
            headers.append(SERVER_TIMING, HeaderValue::from_static("app;dur=2"));
            document().strip(&mut headers);
            let left: Vec<_> = headers.get_all(SERVER_TIMING).iter().collect();
            let expected: Vec<_> = kept.into_iter().chain(["app;dur=2"]).collect();
            assert_eq!(left, expected, "{line}");
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

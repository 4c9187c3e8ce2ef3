//! Paths of the app that only known callers may ask (`identity.require_on`).

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, Method};

use crate::inject::PathPattern;

const ACCESS_CONTROL_REQUEST_METHOD: HeaderName =
    HeaderName::from_static("access-control-request-method");

/// Paths of the app for which a user must be known.
#[derive(Clone, Debug, Default)]
pub struct RequiredOn(Vec<PathPattern>);

impl RequiredOn {
    /// Makes a list of paths. Patterns are compared in lower case.
    pub fn new(patterns: Vec<PathPattern>) -> Self {
        let lower = |pattern| match pattern {
            PathPattern::Exact(path) => PathPattern::Exact(path.to_ascii_lowercase()),
            PathPattern::Prefix(path) => PathPattern::Prefix(path.to_ascii_lowercase()),
        };
        Self(patterns.into_iter().map(lower).collect())
    }

    /// Whether a request needs a user. Every spelling that an app may take for one of the paths counts, since
    /// to ask for a user once too often is the lesser fault. A preflight of CORS has no cookies and no effect
    /// (Fetch standard, section 3.3.1), and needs none.
    pub fn covers(&self, method: &Method, path: &str, headers: &HeaderMap) -> bool {
        if self.0.is_empty() {
            return false;
        }
        if method == Method::OPTIONS && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD) {
            return false;
        }
        let plain = plain(path);
        let bare = plain.strip_suffix('/').filter(|bare| !bare.is_empty());
        self.0.iter().any(|pattern| {
            pattern.matches(&plain) || bare.is_some_and(|bare| pattern.matches(bare))
        })
    }
}

/// Most rounds of decoding: an app behind another decoder may decode twice.
const ROUNDS: usize = 3;

/// Returns the plainest spelling of a path: decoded, in lower case, with `/` for `\`, without parameters
/// behind `;`, without empty segments, and with dot segments resolved (RFC 3986 section 5.2.4).
fn plain(path: &str) -> String {
    let mut text: Cow<'_, str> = path.into();
    for _ in 0..ROUNDS {
        let decoded = percent_encoding::percent_decode_str(&text).decode_utf8_lossy().into_owned();
        if decoded == *text {
            break;
        }
        text = decoded.into();
    }
    let text = text.to_lowercase().replace('\\', "/");
    let mut segments: Vec<&str> = Vec::new();
    for segment in text.split('/') {
        match segment.split(';').next().unwrap_or_default().trim_end_matches('\0') {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            segment => segments.push(segment),
        }
    }
    let end = if text.ends_with('/') && !segments.is_empty() { "/" } else { "" };
    format!("/{}{end}", segments.join("/"))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn every_spelling_of_a_path_is_covered() {
        let required = RequiredOn::new(vec![
            PathPattern::Prefix("/API/Velt/".into()),
            PathPattern::Exact("/admin".into()),
        ]);
        let covers = |path| required.covers(&Method::GET, path, &HeaderMap::new());
        for path in [
            "/api/velt/x",
            "/API/velt/x",
            "//api//velt//x",
            "/api/./velt/x",
            "/x/../api/velt/x",
            "/api%2Fvelt%2fx",
            "/%61pi/velt/x",
            "/%2561pi/velt/x",
            "/api/velt;a=b/x",
            "/api\\velt\\x",
            "/admin",
            "/admin/",
            "/ADMIN;x",
        ] {
            assert!(covers(path), "{path}");
        }
        for path in ["/", "/api/velt", "/api/velt/../x", "/administrator", "/x/admin"] {
            assert!(!covers(path), "{path}");
        }
    }

    #[test]
    fn preflights_need_no_user() {
        let required = RequiredOn::new(vec![PathPattern::Exact("/a".into())]);
        let mut headers = HeaderMap::new();
        assert!(required.covers(&Method::OPTIONS, "/a", &headers));
        headers.insert(ACCESS_CONTROL_REQUEST_METHOD, HeaderValue::from_static("POST"));
        assert!(!required.covers(&Method::OPTIONS, "/a", &headers));
        assert!(required.covers(&Method::POST, "/a", &headers));
        assert!(!RequiredOn::default().covers(&Method::GET, "/a", &HeaderMap::new()));
    }
}

//! Delivery of a token to the page: into a response header, into the answer of a token route, or with the load of
//! the page.
//!
//! Pure functions over header maps, which insert or remove. Values that the app or an attacker put under the
//! sidecar's names are removed (`tests/it/forged_tokens.rs`). A response with a token tells every cache not
//! to store it (`tests/it/pages.rs`, `tests/real/caches.rs`).

mod asking;
mod check;
mod first_render;
mod prefetch;
mod storing;
mod token_route;

use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, CACHE_CONTROL, CONTENT_LENGTH,
    CONTENT_TYPE, VARY, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};

pub use self::check::CheckSettings;
pub use self::first_render::{AppHeaderSettings, DocumentSettings, TokenOrStatus};
use self::first_render::{shows_timings, tell_scripts};
use self::prefetch::is_prefetch;
pub use self::storing::storable_by;
use self::storing::{forbid_shared_storing, unstorable};
pub use self::token_route::{EXPIRES_AT, Shape, TokenRoute};
use ground::names::{NameSet, Names};
use token::TokenValue;

const CROSS_ORIGIN_RESOURCE_POLICY: HeaderName =
    HeaderName::from_static("cross-origin-resource-policy");
const SEC_FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");

/// Settings of the delivery of tokens.
#[derive(Clone, Debug)]
pub struct Settings {
    pub header: HeaderSettings,
    pub app_header: AppHeaderSettings,
    pub document: DocumentSettings,
    pub check: CheckSettings,
    pub routes: Vec<TokenRoute>,
    /// Most bytes of a request's body that a token route reads: enough for a user object, not for a document.
    pub max_body: usize,
    /// Whether pages of the same site but another origin may ask a token route.
    pub allow_same_site: bool,
}

/// Delivery in a header of the app's own responses.
#[derive(Clone, Debug)]
pub struct HeaderSettings {
    pub enabled: bool,
    pub name: HeaderName,
    /// Name of the header that says why there is no token where there could be one.
    pub status_name: HeaderName,
    pub paths: Vec<PathPattern>,
    /// Longest time that a response of the app is held back for a token that is still being minted.
    pub max_wait: Duration,
    pub on_failure: OnMintFailure,
}

/// Treatment of a proxied request for which there is no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnMintFailure {
    /// The app answers the request, without the token.
    Omit,
    /// The sidecar refuses the request before it asks the app: the app would have acted on a request that was
    /// refused later.
    Refuse,
}

/// A path, or every path below a path. Compared byte for byte with the request's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathPattern {
    Exact(String),
    /// Written with a trailing `*`.
    Prefix(String),
}

impl PathPattern {
    pub(super) fn matches(&self, path: &str) -> bool {
        match self {
            Self::Exact(exact) => path == exact,
            Self::Prefix(prefix) => path.starts_with(prefix.as_str()),
        }
    }
}

/// Reason why there is no token in the header, as the page sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenStatus {
    Anonymous,
    Ambiguous,
    Unverified,
    SignedOut,
    Pending,
    Refused,
    RateLimited,
    Unavailable,
    Timeout,
    Malformed,
    NoOrganization,
    NoDetails,
    NoGrants,
}

impl TokenStatus {
    /// Returns the word in the header.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Anonymous => "anonymous",
            Self::Ambiguous => "ambiguous",
            Self::Unverified => "unverified",
            Self::SignedOut => "signed-out",
            Self::Pending => "pending",
            Self::Refused => "refused",
            Self::RateLimited => "rate-limited",
            Self::Unavailable => "unavailable",
            Self::Timeout => "timeout",
            Self::Malformed => "malformed",
            Self::NoOrganization => "no-organization",
            Self::NoDetails => "no-details",
            Self::NoGrants => "no-grants",
        }
    }
}

/// Whether the response to a request could carry a token, and what decided it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coverage<'a> {
    /// The path is covered by this pattern, the first that fits.
    Covered(&'a PathPattern),
    /// The document is covered by this pattern: its scripts read the token in the timings of its load.
    Document(&'a PathPattern),
    /// Delivery in headers is off.
    Disabled,
    /// No script reads the headers of a response to this method.
    Method,
    /// No pattern fits the path.
    Path,
    /// The browser says that no script will read the response.
    Destination,
    /// The browser fetches ahead, for a page that may never be opened.
    Prefetch,
}

impl Coverage<'_> {
    /// Returns the place for the token, if a token is wanted.
    pub fn place(self) -> Option<Place> {
        match self {
            Self::Covered(_) => Some(Place::Header),
            Self::Document(_) => Some(Place::Timing),
            _ => None,
        }
    }
}

/// Place for a token in a response of the app.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A header, which the script that asked for the response reads.
    Header,
    /// The `Server-Timing` of a document, which the document's own scripts read.
    Timing,
}

/// Whether a response of the app may carry a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Eligibility {
    Eligible,
    /// The app allows some cache to keep the response.
    Storable,
    /// Scripts that are not the app's own may read the timings of the document.
    Shared,
    /// An error, a redirect, a fragment or a switch of protocols.
    NotEligible,
}

/// Applies [`Settings`].
pub struct Injection {
    settings: Settings,
    /// Names that only the sidecar may set in a response.
    own: NameSet,
}

impl Injection {
    /// Builds an injection from settings that the configuration has checked.
    pub fn new(settings: Settings) -> Self {
        let HeaderSettings { name, status_name, .. } = &settings.header;
        let own = NameSet::new([name.clone(), status_name.clone()]);
        Self { settings, own }
    }

    /// The settings of header delivery.
    pub fn header(&self) -> &HeaderSettings {
        &self.settings.header
    }

    /// The settings of delivery to the app.
    pub fn app_header(&self) -> &AppHeaderSettings {
        &self.settings.app_header
    }

    /// Longest time that a response of the app is held back for the token in this place.
    pub fn max_wait(&self, place: Place) -> Duration {
        match place {
            Place::Header => self.settings.header.max_wait,
            Place::Timing => self.settings.document.max_wait,
        }
    }

    /// Most bytes of a request's body that a token route reads.
    pub fn max_body(&self) -> usize {
        self.settings.max_body
    }

    /// The token route with exactly this path.
    pub fn route(&self, path: &str) -> Option<&TokenRoute> {
        self.settings.routes.iter().find(|route| route.path == path)
    }

    /// Whether the response to this request could carry a token: the path is configured, and a script will
    /// be able to read the response.
    pub fn coverage(&self, method: &Method, path: &str, headers: &HeaderMap) -> Coverage<'_> {
        if let Some(pattern) = self.settings.document.covering(method, path, headers) {
            return Coverage::Document(pattern);
        }
        let settings = &self.settings.header;
        if !settings.enabled {
            return Coverage::Disabled;
        }
        if method == Method::HEAD || method == Method::OPTIONS {
            return Coverage::Method;
        }
        let Some(pattern) = settings.paths.iter().find(|pattern| pattern.matches(path)) else {
            return Coverage::Path;
        };
        // Absent in old browsers and in tools; `empty` is what fetch() and XHR send.
        if headers.get(SEC_FETCH_DEST).is_some_and(|dest| dest != "empty") {
            return Coverage::Destination;
        }
        if is_prefetch(headers) {
            return Coverage::Prefetch;
        }
        Coverage::Covered(pattern)
    }

    /// Returns the paths that the sidecar answers itself.
    pub fn routes(&self) -> &[TokenRoute] {
        &self.settings.routes
    }

    /// Removes from the app's response the names that only the sidecar may set.
    pub fn strip(&self, headers: &mut HeaderMap) {
        self.own.remove_from(headers, Names::of(headers));
        self.settings.document.strip(headers);
    }

    /// Whether this response may carry a token in this place.
    pub fn eligibility(
        &self,
        place: Place,
        status: StatusCode,
        headers: &HeaderMap,
        now: SystemTime,
    ) -> Eligibility {
        if !status.is_success() || status == StatusCode::PARTIAL_CONTENT {
            Eligibility::NotEligible
        } else if place == Place::Timing && shows_timings(headers) {
            Eligibility::Shared
        } else if storable_by(headers, now).is_some() {
            Eligibility::Storable
        } else {
            Eligibility::Eligible
        }
    }

    /// Puts the token into an eligible response and keeps every cache from storing it.
    pub fn apply(&self, place: Place, headers: &mut HeaderMap, token: &TokenValue) {
        match place {
            Place::Header => {
                let name = &self.settings.header.name;
                headers.insert(name.clone(), token.header());
                expose(headers, name);
            }
            Place::Timing => tell_scripts(headers, Ok(token)),
        }
        headers.insert(CACHE_CONTROL, unstorable(headers));
    }

    /// Says in an eligible response why it carries no token. A response whose status may soon be another must
    /// not be stored; for an anonymous response the app decides.
    pub fn explain(&self, place: Place, headers: &mut HeaderMap, status: TokenStatus) {
        if status != TokenStatus::Anonymous {
            headers.insert(CACHE_CONTROL, unstorable(headers));
        }
        match place {
            Place::Header => {
                let name = &self.settings.header.status_name;
                headers.insert(name.clone(), HeaderValue::from_static(status.as_str()));
                expose(headers, name);
            }
            Place::Timing => tell_scripts(headers, Err(status)),
        }
    }

    /// Keeps every cache from storing a response that the app has made with a token at hand, or with a status that
    /// may soon be another: it may be in the page. The app's word for caches does not count.
    pub fn keep_private(&self, headers: &mut HeaderMap) {
        forbid_shared_storing(headers);
        headers.insert(CACHE_CONTROL, unstorable(headers));
    }
}

/// Headers of every answer of the sidecar itself. Copying the map costs less than inserting each header.
static OWN_HEADERS: LazyLock<HeaderMap> = LazyLock::new(|| {
    let headers = [
        (CONTENT_TYPE, "application/json"),
        (CACHE_CONTROL, "no-store"),
        // No request is like another (RFC 9110 section 12.5.5): for caches that were told to ignore
        // the line above.
        (VARY, "*"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (CROSS_ORIGIN_RESOURCE_POLICY, "same-origin"),
    ];
    headers.into_iter().map(|(name, value)| (name, HeaderValue::from_static(value))).collect()
});

/// Returns an answer of the sidecar in JSON, with headers against caching, sniffing and embedding.
pub fn own_answer(status: StatusCode, json: String) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(json));
    *response.status_mut() = status;
    response.headers_mut().clone_from(&OWN_HEADERS);
    response
}

/// Turns the answer to a GET into the answer to a HEAD (RFC 9110 section 9.3.2): the same head, with the
/// length that the content would have, and no content. Over HTTP/2 content would be an error.
pub fn without_content(mut answer: Response<Bytes>) -> Response<Bytes> {
    let length = HeaderValue::from(answer.body().len());
    answer.headers_mut().insert(CONTENT_LENGTH, length);
    answer.map(|_| Bytes::new())
}

/// Lets scripts of other origins read `name`, where the app lets them read the response at all.
/// Another `Access-Control-Expose-Headers` line adds to the list (Fetch standard, section 3.3.4).
fn expose(headers: &mut HeaderMap, name: &HeaderName) {
    if headers.contains_key(ACCESS_CONTROL_ALLOW_ORIGIN) {
        headers.append(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from(name.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        lines
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    fn injection() -> Injection {
        Injection::new(Settings {
            header: HeaderSettings {
                enabled: true,
                name: HeaderName::from_static("x-velt-token"),
                status_name: HeaderName::from_static("x-velt-token-status"),
                paths: vec![PathPattern::Exact("/me".into()), PathPattern::Prefix("/api/".into())],
                max_wait: Duration::ZERO,
                on_failure: OnMintFailure::Omit,
            },
            app_header: AppHeaderSettings {
                paths: Vec::new(),
                name: HeaderName::from_static("x-velt-token"),
                status_name: HeaderName::from_static("x-velt-token-status"),
                max_wait: Duration::ZERO,
            },
            document: DocumentSettings { paths: Vec::new(), max_wait: Duration::ZERO },
            check: CheckSettings { path: None, max_wait: Duration::ZERO, require_user: false },
            routes: Vec::new(),
            max_body: 64 * 1024,
            allow_same_site: false,
        })
    }

    fn token() -> TokenValue {
        TokenValue::parse("aaa.bbb.ccc").expect("a token")
    }

    #[test]
    fn only_whole_successes_may_carry_a_token() {
        let now = SystemTime::now();
        for status in 100..=599 {
            let status = StatusCode::from_u16(status).expect("a status");
            let eligible = injection().eligibility(Place::Header, status, &HeaderMap::new(), now);
            let expected = matches!(status.as_u16(), 200..=205 | 207..=299);
            assert_eq!(eligible == Eligibility::Eligible, expected, "{status}");
        }
    }

    #[test]
    fn only_requests_that_scripts_can_read_want_the_header() {
        let wants = |method: Method, path, lines: &[_]| {
            injection().coverage(&method, path, &headers(lines)).place().is_some()
        };
        assert!(wants(Method::GET, "/me", &[]));
        assert!(wants(Method::POST, "/api/", &[("sec-fetch-dest", "empty")]));
        assert!(!wants(Method::GET, "/me/", &[]));
        assert!(!wants(Method::GET, "/api", &[]));
        assert!(!wants(Method::HEAD, "/me", &[]));
        assert!(!wants(Method::OPTIONS, "/me", &[]));
        for dest in ["document", "image", "script", "iframe"] {
            assert!(!wants(Method::GET, "/me", &[("sec-fetch-dest", dest)]), "{dest}");
        }
    }

    #[test]
    fn token_response_is_unstorable_and_keeps_no_transform() {
        let mut plain = HeaderMap::new();
        injection().apply(Place::Header, &mut plain, &token());
        assert_eq!(plain["cache-control"], "private, no-store");
        assert_eq!(plain["x-velt-token"], "aaa.bbb.ccc");
        assert!(!plain.contains_key("access-control-expose-headers"));

        let mut stream = headers(&[("cache-control", "no-cache, no-transform")]);
        injection().apply(Place::Header, &mut stream, &token());
        assert_eq!(stream["cache-control"], "private, no-store, no-transform");
    }

    #[test]
    fn cors_response_exposes_the_token_header_beside_the_apps() {
        let mut cors = headers(&[
            ("access-control-allow-origin", "https://app.example"),
            ("access-control-expose-headers", "ETag"),
        ]);
        injection().apply(Place::Header, &mut cors, &token());
        let exposed: Vec<_> = cors.get_all("access-control-expose-headers").iter().collect();
        assert_eq!(exposed, ["ETag", "x-velt-token"]);
    }

    #[test]
    fn own_answers_tell_caches_and_browsers_to_keep_away() {
        let answer = own_answer(StatusCode::OK, "{}".into());
        assert_eq!(answer.headers()["cache-control"], "no-store");
        assert_eq!(answer.headers()["vary"], "*");
        assert_eq!(answer.headers()["x-content-type-options"], "nosniff");
        assert_eq!(answer.headers()["cross-origin-resource-policy"], "same-origin");
    }
}

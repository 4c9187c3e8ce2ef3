//! Header law: the fields that a proxy must refuse, remove, add and keep, each rule with its RFC section.
//!
//! hyper already refuses messages that can be parsed in more than one way (`Transfer-Encoding` on HTTP/1.0,
//! two unlike `Content-Length`s, obs-fold, ...). This module has the rules that hyper leaves out.

mod forwarded;
mod host;
mod said;

use std::fmt;
use std::net::IpAddr;
use std::sync::LazyLock;

use http::header::{
    CONNECTION, CONTENT_LENGTH, COOKIE, FORWARDED, HOST, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION,
    SEC_WEBSOCKET_KEY, TE, TRANSFER_ENCODING, UPGRADE,
};
use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, Version};

pub use self::forwarded::{ForwardedFor, Replaced, set_forwarded};
use self::host::check_host;
pub use self::host::{ensure_host, name_host};
pub(super) use self::said::said_of_client;
pub use self::said::{claimed, copy_said, said, said_of_site};
use ground::names::{NameSet, Names};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// Fields about one connection and not about the message (RFC 9110 section 7.6.1, and the two
/// `Proxy-*` fields that RFC 2616 section 13.5.1 had in that list).
static HOP_BY_HOP: LazyLock<NameSet> = LazyLock::new(|| {
    NameSet::new([
        KEEP_ALIVE,
        PROXY_CONNECTION,
        PROXY_AUTHENTICATE,
        PROXY_AUTHORIZATION,
        TE,
        TRANSFER_ENCODING,
        UPGRADE,
    ])
});

/// Fields that a trailer must not carry (RFC 9110 section 6.5.1): framing, routing and
/// credentials are never taken from there.
const FORBIDDEN_TRAILERS: [HeaderName; 7] = [
    TRANSFER_ENCODING,
    CONTENT_LENGTH,
    HOST,
    CONNECTION,
    COOKIE,
    http::header::AUTHORIZATION,
    http::header::SET_COOKIE,
];

/// The client's side of a request, as far as the app may know it.
#[derive(Clone, Copy, Debug)]
pub struct Client {
    pub address: IpAddr,
    /// Whether the peer's word about its own client, the scheme and the host is kept.
    pub trusted: bool,
    pub scheme: Scheme,
}

/// Scheme in which the client speaks to the sidecar, or the sidecar to the app.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    Http,
    Https,
}

impl Scheme {
    /// Returns the scheme as it stands in a URL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// A request that means different things to different readers. The client's fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadRequest {
    /// HTTP/1.1 without `Host`, or HTTP/2 without an authority (RFC 9112 section 3.2).
    NoHost,
    /// More than one `Host`.
    RepeatedHost,
    /// `Host` is not a host, or unlike the target's authority (RFC 9113 section 8.3.1).
    WrongHost,
    /// CONNECT or TRACE: the sidecar is neither a tunnel nor an echo.
    Method,
    /// `*` with another method than OPTIONS, or a target without a path (RFC 9112 section 3.2).
    Target,
    /// Another transfer coding than exactly `chunked` (RFC 9112 section 6.1).
    TransferCoding,
    /// `Connection` names a field that is not about the connection.
    Nominated,
}

impl BadRequest {
    /// Returns 501 for a request that the sidecar does not support, and 400 for a request that is wrong.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Method | Self::TransferCoding => StatusCode::NOT_IMPLEMENTED,
            _ => StatusCode::BAD_REQUEST,
        }
    }
}

impl fmt::Display for BadRequest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::NoHost => "the request names no host",
            Self::RepeatedHost => "the request has more than one Host header",
            Self::WrongHost => {
                "the Host header is not a valid host, or differs from the request's target"
            }
            Self::Method => "CONNECT and TRACE are not proxied",
            Self::Target => "the request's target has no path",
            Self::TransferCoding => "chunked is the only transfer coding that the sidecar reads",
            Self::Nominated => "the Connection header names a header that is not hop-by-hop",
        })
    }
}

/// Checks what hyper leaves unchecked, so that the sidecar and the app read the same request
/// (`tests/real/framing.rs`).
///
/// # Errors
///
/// The reason why the request is ambiguous.
pub fn validate<B>(request: &Request<B>) -> Result<(), BadRequest> {
    let (uri, headers) = (request.uri(), request.headers());
    if matches!(*request.method(), Method::CONNECT | Method::TRACE) {
        return Err(BadRequest::Method);
    }
    if uri.path() == "*" && request.method() != Method::OPTIONS || uri.path_and_query().is_none() {
        return Err(BadRequest::Target);
    }
    check_host(request)?;
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    if let Some(coding) = codings.next() {
        let only = codings.next().is_none();
        if !only || !coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked") {
            return Err(BadRequest::TransferCoding);
        }
    }
    if nominated(headers).any(is_end_to_end) {
        return Err(BadRequest::Nominated);
    }
    Ok(())
}

/// Whether `Connection` must not name this field: framing, routing and forwarding.
fn is_end_to_end(name: &[u8]) -> bool {
    [HOST, CONTENT_LENGTH, TRANSFER_ENCODING, FORWARDED, X_REAL_IP]
        .iter()
        .any(|field| field.as_str().as_bytes().eq_ignore_ascii_case(name))
        || name.len() >= 12 && name[..12].eq_ignore_ascii_case(b"x-forwarded-")
}

/// The fields that `Connection` names.
fn nominated(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    items(headers, &CONNECTION)
}

/// Items of a list that may stand in several lines (RFC 9110 section 5.6.1), empty items among them.
pub(super) fn items<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> impl Iterator<Item = &'a [u8]> + use<'a> {
    let values = headers.get_all(name).into_iter();
    values.flat_map(|value| value.as_bytes().split(|byte| *byte == b',')).map(<[u8]>::trim_ascii)
}

/// Removes every field that concerns one hop only: the known fields and the fields that `Connection` names
/// (RFC 9110 section 7.6.1).
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    strip_hop_by_hop_among(Names::of(headers), headers);
}

/// Removes the same fields from `headers`, which have these `names`.
pub(super) fn strip_hop_by_hop_among(names: Names, headers: &mut HeaderMap) {
    if names.may_have(&CONNECTION) {
        // The usual names are no field, or a field that is removed below: then nothing is collected.
        let usual = |name: &&[u8]| {
            let usual: [&[u8]; 4] = [b"close", b"keep-alive", b"upgrade", b"te"];
            usual.iter().any(|usual| usual.eq_ignore_ascii_case(name))
        };
        let unusual = nominated(headers).filter(|name| !usual(name));
        let nominees: Vec<HeaderName> =
            unusual.filter_map(|name| HeaderName::from_bytes(name).ok()).collect();
        for name in nominees {
            headers.remove(name);
        }
        headers.remove(CONNECTION);
    }
    HOP_BY_HOP.remove_from(headers, names);
}

/// Keeps one `Content-Length` of several. hyper and h2 have made sure that all say the same, but h2 leaves
/// all of them in place, and apps refuse a message with more than one (RFC 9112 section 6.3).
pub fn keep_one_length(headers: &mut HeaderMap) {
    if let Some(length) = headers.get(CONTENT_LENGTH).cloned() {
        headers.insert(CONTENT_LENGTH, length);
    }
}

/// Adds `Content-Length: 0` to a request without a body whose method lets an app expect one (RFC 9110
/// section 8.6). Some apps answer 411 otherwise; a request that came over HTTP/2 need not have the header.
pub(super) fn say_empty<B>(request: &mut Request<B>) {
    let expects = matches!(*request.method(), Method::POST | Method::PUT | Method::PATCH);
    if expects && !request.headers().contains_key(CONTENT_LENGTH) {
        request.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    }
}

/// Asks the app to close its connection after the response (RFC 9112 section 9.6).
pub(super) fn close_after(headers: &mut HeaderMap) {
    headers.append(CONNECTION, HeaderValue::from_static("close"));
}

/// Removes from trailers the fields that must not be there.
pub fn strip_trailers(trailers: &mut HeaderMap) {
    strip_hop_by_hop(trailers);
    for name in &FORBIDDEN_TRAILERS {
        trailers.remove(name);
    }
}

/// Whether the client can take trailers (RFC 9110 section 10.1.4). `TE` is hop-by-hop, so the sidecar has to
/// say this again on the next hop.
pub fn takes_trailers(headers: &HeaderMap) -> bool {
    headers.get_all(TE).iter().any(|value| {
        let mut codings = value.as_bytes().split(|byte| *byte == b',');
        codings.any(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"trailers"))
    })
}

/// Whether a request asks for a WebSocket (RFC 6455 section 4.1), the only upgrade that is carried out.
pub fn is_websocket<B>(request: &Request<B>) -> bool {
    let headers = request.headers();
    request.version() == Version::HTTP_11
        && request.method() == Method::GET
        && nominated(headers).any(|name| name.eq_ignore_ascii_case(b"upgrade"))
        && headers
            .get(UPGRADE)
            .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"))
        // Without a key, the right answer could not be told from any other.
        && headers.contains_key(SEC_WEBSOCKET_KEY)
}

/// Turns a request of any version into HTTP/1.1 for the app: one `Cookie` (RFC 9113 section 8.2.3), a target
/// in origin form (RFC 9112 section 3.2.1).
pub fn to_http1<B>(request: &mut Request<B>) {
    join_cookies(request.headers_mut());
    *request.version_mut() = Version::HTTP_11;
    let uri = request.uri();
    if uri.authority().is_none() && uri.path_and_query().is_some() {
        // The target is in origin form.
        return;
    }
    // Keeps the path and query byte for byte.
    let target = uri.path_and_query().cloned();
    let target = target.unwrap_or(PathAndQuery::from_static("/"));
    *request.uri_mut() = Uri::from(target);
}

/// Turns a request of any version into HTTP/2: `:authority` instead of the `Host` that [`ensure_host`] has
/// put there (RFC 9113 section 8.3.1).
pub fn to_http2<B>(request: &mut Request<B>, default_host: &HeaderValue, scheme: Scheme) {
    let host = request.headers_mut().remove(HOST).filter(|host| !host.is_empty());
    let host = host.as_ref().unwrap_or(default_host);
    let authority = Authority::try_from(host.as_bytes()).expect("checked by `validate`");
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    // A target like `http://host?query` has no path (RFC 9113 section 8.3.1 wants one).
    let bare = parts.path_and_query.as_ref().map(PathAndQuery::as_str);
    if let Some(query) = bare.filter(|target| target.starts_with('?')) {
        let target = PathAndQuery::try_from(format!("/{query}")).expect("a path and that query");
        parts.path_and_query = Some(target);
    }
    parts.scheme = Some(match scheme {
        Scheme::Http => http::uri::Scheme::HTTP,
        Scheme::Https => http::uri::Scheme::HTTPS,
    });
    parts.authority = Some(authority);
    *request.uri_mut() = Uri::from_parts(parts).expect("scheme, authority and path are there");
    *request.version_mut() = Version::HTTP_2;
}

fn join_cookies(headers: &mut HeaderMap) {
    let mut cookies = headers.get_all(COOKIE).iter();
    let (Some(first), Some(second)) = (cookies.next(), cookies.next()) else { return };
    let mut joined = first.as_bytes().to_vec();
    for cookie in std::iter::once(second).chain(cookies) {
        joined.extend_from_slice(b"; ");
        joined.extend_from_slice(cookie.as_bytes());
    }
    let joined = HeaderValue::from_bytes(&joined).expect("made of header values");
    headers.insert(COOKIE, joined);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(target: &str, lines: &[(&str, &str)]) -> Request<()> {
        let mut request = Request::builder().uri(target);
        for (name, value) in lines {
            request = request.header(*name, *value);
        }
        request.body(()).expect("a request")
    }

    #[test]
    fn nominated_headers_are_removed_and_the_rest_stays() {
        let mut headers = request(
            "/",
            &[
                ("connection", "close, X-Internal"),
                ("connection", "keep-alive"),
                ("x-internal", "1"),
                ("keep-alive", "timeout=5"),
                ("te", "trailers"),
                ("upgrade", "h2c"),
                ("proxy-authorization", "Basic x"),
                ("trailer", "x-checksum"),
                ("cookie", "a=1"),
            ],
        );
        strip_hop_by_hop(headers.headers_mut());
        let left: Vec<_> = headers.headers().keys().map(HeaderName::as_str).collect();
        assert_eq!(left, ["trailer", "cookie"]);
    }

    #[test]
    fn connection_header_names_no_routing_or_framing_header() {
        for name in
            ["Host", "content-length", "X-Forwarded-For", "x-forwarded-anything", "Forwarded"]
        {
            let request = request("/", &[("host", "a"), ("connection", name)]);
            assert_eq!(validate(&request), Err(BadRequest::Nominated), "{name}");
        }
        for name in ["close", "keep-alive, Upgrade", "TE", "X-Custom", "x-forwarded"] {
            let request = request("/", &[("host", "a"), ("connection", name)]);
            assert_eq!(validate(&request), Ok(()), "{name}");
        }
    }

    #[test]
    fn request_has_one_host_equal_in_all_places() {
        type Case = (&'static str, &'static [(&'static str, &'static str)], Result<(), BadRequest>);
        let cases: &[Case] = &[
            ("/", &[], Err(BadRequest::NoHost)),
            ("/", &[("host", "")], Ok(())),
            ("/", &[("host", "a.example:80")], Ok(())),
            ("/", &[("host", "a"), ("host", "a")], Err(BadRequest::RepeatedHost)),
            ("/", &[("host", "a/b")], Err(BadRequest::WrongHost)),
            ("/", &[("host", "user@a")], Err(BadRequest::WrongHost)),
            ("http://a.example/", &[("host", "a.example")], Ok(())),
            ("http://a.example/", &[("host", "A.EXAMPLE")], Ok(())),
            ("http://a.example/", &[("host", "b.example")], Err(BadRequest::WrongHost)),
            ("http://a.example/", &[], Err(BadRequest::NoHost)),
            ("http://user@a.example/", &[("host", "a.example")], Err(BadRequest::WrongHost)),
        ];
        for (target, lines, expected) in cases {
            assert_eq!(validate(&request(target, lines)), *expected, "{target} {lines:?}");
        }
    }

    #[test]
    fn request_coding_other_than_chunked_is_refused() {
        for (coding, expected) in [
            ("chunked", Ok(())),
            (" Chunked ", Ok(())),
            ("gzip, chunked", Err(BadRequest::TransferCoding)),
            ("identity", Err(BadRequest::TransferCoding)),
        ] {
            let request = request("/", &[("host", "a"), ("transfer-encoding", coding)]);
            assert_eq!(validate(&request), expected, "{coding}");
        }
    }

    #[test]
    fn http2_becomes_http1_and_back_without_touching_the_path() {
        let mut request = request(
            "http://app.example/a%2Fb/%20?q=%41&;x",
            &[("cookie", "a=1"), ("cookie", "b=2")],
        );
        *request.version_mut() = Version::HTTP_2;
        ensure_host(&mut request, &HeaderValue::from_static("localhost"));
        to_http1(&mut request);
        assert_eq!(request.uri(), "/a%2Fb/%20?q=%41&;x");
        assert_eq!(request.headers()["host"], "app.example");
        assert_eq!(request.headers()["cookie"], "a=1; b=2");
        assert_eq!(request.version(), Version::HTTP_11);

        to_http2(&mut request, &HeaderValue::from_static("localhost"), Scheme::Http);
        assert_eq!(request.uri(), "http://app.example/a%2Fb/%20?q=%41&;x");
        assert!(!request.headers().contains_key("host"));
    }

    #[test]
    fn target_with_a_query_alone_gets_a_path() {
        let mut request = request("http://a.example?x=1", &[("host", "a.example")]);
        to_http2(&mut request, &HeaderValue::from_static("localhost"), Scheme::Http);
        let target = request.uri().path_and_query().map(PathAndQuery::as_str);
        assert_eq!(target, Some("/?x=1"));
    }
}

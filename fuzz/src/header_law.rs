//! What a request looks like after everything that a proxy does to its head.
//!
//! First line: the letters `t` (a trusted peer), `0` or `2` (HTTP/1.0, HTTP/2), `h` (the app speaks
//! HTTP/2). Second line: method and target. Then headers.

use std::net::{IpAddr, Ipv4Addr};

use http::header::{CONNECTION, CONTENT_LENGTH, COOKIE, HOST};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version};
use velt_sidecar::proxy::headers::{
    ensure_host, is_websocket, set_forwarded, strip_hop_by_hop, strip_trailers, takes_trailers,
    to_http1, to_http2, validate,
};
use velt_sidecar::proxy::{Client, Scheme};

use super::lines;

const HOP_BY_HOP: [&str; 8] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "transfer-encoding",
    "upgrade",
];

const PEER: &str = "198.51.100.7";

/// # Panics
///
/// If the app would read another request than the client wrote.
pub fn check(input: &[u8]) {
    let (options, rest) = lines::first_line(input);
    let (line, rest) = lines::first_line(rest);
    let Some(request) = read(options, line, rest) else { return };
    assert_strip(request.headers());

    if is_websocket(&request) {
        assert_eq!((request.method(), request.version()), (&Method::GET, Version::HTTP_11));
        assert!(lines::elements(request.headers(), "connection").contains(&b"upgrade".to_vec()));
    }
    let _ = takes_trailers(request.headers());
    match validate(&request) {
        Ok(()) => {}
        Err(error) => {
            assert!(error.status().is_client_error() || error.status().as_u16() == 501);
            assert!(!error.to_string().is_empty());
            return;
        }
    }
    assert_forwarded(request, options.contains(&b't'), options.contains(&b'h'));
}

fn read(options: &[u8], line: &[u8], rest: &[u8]) -> Option<Request<()>> {
    let line = std::str::from_utf8(line).ok()?;
    let (method, target) = line.split_once(' ')?;
    let mut request = Request::new(());
    *request.method_mut() = method.parse().ok()?;
    *request.uri_mut() = target.parse::<Uri>().ok()?;
    *request.version_mut() = match options {
        options if options.contains(&b'0') => Version::HTTP_10,
        options if options.contains(&b'2') => Version::HTTP_2,
        _ => Version::HTTP_11,
    };
    *request.headers_mut() = lines::headers(rest);
    Some(request)
}

/// What concerns one hop goes, and nothing else.
fn assert_strip(said: &HeaderMap) {
    let nominated = lines::elements(said, "connection");
    let hop = |name: &HeaderName| {
        HOP_BY_HOP.contains(&name.as_str()) || nominated.contains(&name.as_str().into())
    };
    let mut left = said.clone();
    strip_hop_by_hop(&mut left);
    assert_eq!(left, lines::without(said, hop));

    let forbidden = ["content-length", "host", "cookie", "authorization", "set-cookie"];
    let mut trailers = said.clone();
    strip_trailers(&mut trailers);
    let rest = lines::without(said, |name| hop(name) || forbidden.contains(&name.as_str()));
    assert_eq!(trailers, rest);
}

/// The steps of a forwarded request, in their order.
fn assert_forwarded(mut request: Request<()>, trusted: bool, over_http2: bool) {
    let default_host = HeaderValue::from_static("127.0.0.1:3000");
    let before = request.headers().clone();
    let authority = request.uri().authority().cloned();
    let target = request.uri().path_and_query().expect("checked by `validate`").clone();

    ensure_host(&mut request, &default_host);
    let hosts: Vec<HeaderValue> = request.headers().get_all(HOST).iter().cloned().collect();
    let [host] = &hosts[..] else { panic!("not one Host but {hosts:?}") };
    let expected = match (&authority, before.get(HOST)) {
        (Some(authority), _) => HeaderValue::from_str(authority.as_str()).expect("an authority"),
        (None, Some(host)) => host.clone(),
        (None, None) => default_host.clone(),
    };
    assert_eq!(*host, expected);

    strip_hop_by_hop(request.headers_mut());
    for name in [HOST, CONTENT_LENGTH] {
        let (left, was) = (request.headers().get_all(&name), before.get_all(&name));
        let kept = name == HOST && authority.is_some() || left.iter().eq(was.iter());
        assert!(kept || !before.contains_key(&name), "Connection can't take {name} away");
    }

    let claimed = request.headers().clone();
    let mapped = PEER.parse::<Ipv4Addr>().expect("an address").to_ipv6_mapped();
    let client = Client { address: IpAddr::V6(mapped), trusted, scheme: Scheme::Http };
    set_forwarded(request.headers_mut(), &client);
    assert_client(&claimed, request.headers(), trusted);

    let cookies: Vec<HeaderValue> = before.get_all(COOKIE).iter().cloned().collect();
    let cookies_stripped = !request.headers().contains_key(COOKIE);
    if over_http2 {
        to_http2(&mut request, &default_host, Scheme::Http);
        assert_eq!(request.version(), Version::HTTP_2);
        assert!(!request.headers().contains_key(HOST), ":authority has taken its place");
        let authority = request.uri().authority().expect("put there");
        let host = if host.is_empty() { &default_host } else { host };
        assert_eq!(authority.as_str().as_bytes(), host.as_bytes());
    } else {
        to_http1(&mut request);
        assert_eq!(request.version(), Version::HTTP_11);
        assert!(request.uri().authority().is_none() && request.uri().scheme().is_none());
        assert_eq!(request.headers().get_all(HOST).iter().count(), 1);
        let joined: Vec<&HeaderValue> = request.headers().get_all(COOKIE).iter().collect();
        if cookies_stripped || cookies.is_empty() {
            assert!(joined.is_empty());
        } else {
            let expected: Vec<&[u8]> = cookies.iter().map(HeaderValue::as_bytes).collect();
            assert_eq!(joined.len(), 1);
            assert_eq!(joined[0].as_bytes(), expected.join(&b"; "[..]));
        }
    }
    let left = request.uri().path_and_query().expect("kept");
    // An empty path is said as `/` over HTTP/2 (RFC 9113 section 8.3.1), and nothing else differs.
    let target = target.as_str();
    let slash = if over_http2 && target.starts_with('?') { "/" } else { "" };
    assert_eq!(left.as_str(), format!("{slash}{target}"), "path and query, byte for byte");
    assert!(!request.headers().contains_key(CONNECTION));
}

/// The app learns of this hop's client, and of nobody else from a stranger.
fn assert_client(claimed: &HeaderMap, headers: &HeaderMap, trusted: bool) {
    let one = |name: &str| {
        let values: Vec<&HeaderValue> = headers.get_all(name).iter().collect();
        assert_eq!(values.len(), 1, "{name}");
        values[0].as_bytes().to_vec()
    };
    let list = one("x-forwarded-for");
    if !trusted {
        assert_eq!(list, PEER.as_bytes());
        assert_eq!(one("x-forwarded-proto"), b"http");
        assert_eq!(headers.get_all("x-forwarded-host").iter().count(), 1);
        assert_eq!(headers.get("x-forwarded-host"), headers.get(HOST));
    }
    let mut hops: Vec<&[u8]> =
        claimed.get_all("x-forwarded-for").iter().map(HeaderValue::as_bytes).collect();
    hops.push(PEER.as_bytes());
    let ours = ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"];
    let forged = |name: &HeaderName| {
        let name = lines::folded(name);
        name.starts_with("x-forwarded-") || name == "forwarded" || name == "x-real-ip"
    };
    if trusted {
        assert_eq!(list, hops.join(&b", "[..]), "the list so far, and the peer at its end");
        for name in ["x-forwarded-proto", "x-forwarded-host"] {
            let (left, was) = (headers.get_all(name), claimed.get_all(name));
            assert!(!claimed.contains_key(name) || left.iter().eq(was.iter()), "{name} is kept");
        }
    }
    let others = lines::without(headers, |name| ours.contains(&name.as_str()));
    let before =
        lines::without(claimed, |name| ours.contains(&name.as_str()) || !trusted && forged(name));
    assert_eq!(others, before);
}

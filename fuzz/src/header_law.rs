//! Request head after all the steps that a proxy applies to it.
//!
//! First line: the letters `t` (a trusted peer), `0` or `2` (HTTP/1.0, HTTP/2), `h` (the app speaks HTTP/2).
//! Second line: method and target. Then headers.

use std::net::{IpAddr, Ipv4Addr};

use hop::proxy::headers::{
    ForwardedFor, claimed, ensure_host, is_websocket, set_forwarded, strip_hop_by_hop,
    strip_trailers, takes_trailers, to_http1, to_http2, validate,
};
use hop::proxy::{Client, Scheme};
use http::header::{CONNECTION, CONTENT_LENGTH, COOKIE, HOST};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version};

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
/// Panics if the app would read another request than the client wrote.
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

/// Asserts that the headers of one hop are removed, and no others.
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

/// Applies the steps of a forwarded request in their order, and checks the result of each.
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

    let said = request.headers().clone();
    let mapped = PEER.parse::<Ipv4Addr>().expect("an address").to_ipv6_mapped();
    let client = Client { address: IpAddr::V6(mapped), trusted, scheme: Scheme::Http };
    let replaced = set_forwarded(request.headers_mut(), &client, ForwardedFor::Keep);
    assert_eq!(replaced.count > 0, !trusted && claimed(&said).next().is_some());
    assert_client(&said, request.headers(), trusted);

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
    // The `:path` of an empty path is `/` over HTTP/2 (RFC 9113 section 8.3.1); all else is equal.
    let target = target.as_str();
    let slash = if over_http2 && target.starts_with('?') { "/" } else { "" };
    assert_eq!(left.as_str(), format!("{slash}{target}"), "path and query, byte for byte");
    assert!(!request.headers().contains_key(CONNECTION));
}

/// Asserts what the app learns about the client: the headers of a trusted front, or else the address of this
/// hop's peer.
fn assert_client(said: &HeaderMap, headers: &HeaderMap, trusted: bool) {
    let host = headers.get(HOST).map(HeaderValue::as_bytes);
    let ours = [
        ("x-forwarded-for", Some(PEER.as_bytes())),
        ("x-forwarded-proto", Some(&b"http"[..])),
        ("x-forwarded-host", host),
    ];
    let forged: Vec<&HeaderName> = if trusted { Vec::new() } else { claimed(said).collect() };
    for (name, own) in ours {
        let left: Vec<&[u8]> = headers.get_all(name).iter().map(HeaderValue::as_bytes).collect();
        let was: Vec<&[u8]> = said.get_all(name).iter().map(HeaderValue::as_bytes).collect();
        if trusted && !was.is_empty() {
            assert_eq!(left, was, "{name} is kept");
        } else if trusted && left.is_empty() {
            assert!(claimed(said).next().is_some() || own.is_none() || speaks(said), "{name}");
        } else {
            assert_eq!(left, own.into_iter().collect::<Vec<_>>(), "{name}");
        }
    }
    let is_ours = |name: &HeaderName| ours.iter().any(|(ours, _)| ours == name);
    let others = lines::without(headers, |name| is_ours(name));
    let before = lines::without(said, |name| is_ours(name) || forged.contains(&name));
    assert_eq!(others, before);
}

/// Whether a front may have named the scheme in a header that is on no list.
fn speaks(said: &HeaderMap) -> bool {
    let words = ["-proto", "-protocol", "-scheme", "-ssl", "-https", "-tls"];
    said.keys().any(|name| words.iter().any(|word| lines::folded(name).ends_with(word)))
}

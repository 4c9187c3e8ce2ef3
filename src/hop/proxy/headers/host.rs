//! Host of a request: a single host, and the same host to every reader.

use http::header::HOST;
use http::uri::Authority;
use http::{HeaderValue, Request, Version};

use super::BadRequest;

/// Checks `Host` and the target's authority.
pub(super) fn check_host<B>(request: &Request<B>) -> Result<(), BadRequest> {
    let mut hosts = request.headers().get_all(HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(BadRequest::RepeatedHost);
    }
    let target = request.uri().authority();
    let is_of_target = |host: &HeaderValue| target.is_none_or(|target| host == target.as_str());
    if host.is_some_and(|host| is_plain_host(host.as_bytes()) && is_of_target(host)) {
        return Ok(());
    }
    // An empty `Host` is legal where the target has no authority.
    let parsed = match host.filter(|host| !host.is_empty()) {
        None => None,
        Some(host) => {
            let authority = Authority::try_from(host.as_bytes());
            let authority = authority.map_err(|_| BadRequest::WrongHost)?;
            if authority.as_str().contains('@') {
                return Err(BadRequest::WrongHost);
            }
            Some(authority)
        }
    };
    if target.is_some_and(|target| target.as_str().contains('@')) {
        return Err(BadRequest::WrongHost);
    }
    match (target, parsed) {
        (Some(target), Some(host)) if *target != host => Err(BadRequest::WrongHost),
        // HTTP/2 has the target's authority instead of a `Host`.
        _ if host.is_none() && request.version() == Version::HTTP_11 => Err(BadRequest::NoHost),
        (None, None) if request.version() == Version::HTTP_2 => Err(BadRequest::NoHost),
        _ => Ok(()),
    }
}

/// Whether a host consists of letters, digits, dots and dashes, with a port or without, as nearly all hosts
/// do: such a host need not be parsed.
fn is_plain_host(host: &[u8]) -> bool {
    let colon = host.iter().position(|byte| *byte == b':').unwrap_or(host.len());
    let (name, port) = host.split_at(colon);
    let port = port.strip_prefix(b":").unwrap_or(b"0");
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
    let has_name = !name.is_empty() && name.iter().all(is_plain);
    has_name && matches!(port.len(), 1..=5) && port.iter().all(u8::is_ascii_digit)
}

/// Puts the authority of a target into a `Host` of its own where there is none, as in nearly every request
/// over HTTP/2, so that later code finds the host in one place. HTTP/1.1 demands a `Host` beside an
/// authority.
pub fn name_host<B>(request: &mut Request<B>) {
    if request.version() == Version::HTTP_11 || request.headers().contains_key(HOST) {
        return;
    }
    if let Some(host) = authority(request) {
        request.headers_mut().insert(HOST, host);
    }
}

/// The authority of a request's target, as a header's value.
fn authority<B>(request: &Request<B>) -> Option<HeaderValue> {
    let authority = request.uri().authority()?;
    Some(HeaderValue::from_str(authority.as_str()).expect("an authority is visible ASCII"))
}

/// Makes sure that there is a `Host`. An authority in the target replaces the header's value (RFC 9112
/// section 3.2.2). HTTP/2 may have only the authority, and HTTP/1.0 may have neither.
pub fn ensure_host<B>(request: &mut Request<B>, default_host: &HeaderValue) {
    let said = request.headers().get(HOST);
    let host = match request.uri().authority() {
        Some(authority) if said.is_some_and(|said| said == authority.as_str()) => return,
        None if said.is_some() => return,
        _ => authority(request).unwrap_or_else(|| default_host.clone()),
    };
    request.headers_mut().insert(HOST, host);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn plain_host_check_agrees_with_the_authority_parser(
            host in "[a-zA-Z0-9.:@_%\\[\\] -]{0,12}|[a-z0-9.-]{0,9}:?[0-9]{0,6}",
        ) {
            let parsed = Authority::try_from(host.as_bytes());
            if is_plain_host(host.as_bytes()) {
                let parsed = parsed.map_err(|error| TestCaseError::fail(error.to_string()))?;
                prop_assert_eq!(parsed.as_str(), host.as_str());
                prop_assert!(!parsed.host().is_empty());
            }
        }
    }
}

//! Decides which callers may make admin calls.
//!
//! A caller without a token must be on this machine, and be neither a page in a browser nor behind a
//! proxy. "On this machine" means `127.0.0.1` or `::1`, from which a command here connects: a service mesh
//! hands calls of other pods on from other loopback addresses (Istio from 127.0.0.6). With a token, only
//! a caller that shows the token may call. All containers of a pod share loopback, so only a token keeps
//! an app that was broken into from making admin calls.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{Digest, SHA256, digest};
use http::header::{AUTHORIZATION, FORWARDED, HOST, ORIGIN, REFERER, VIA};
use http::uri::Authority;
use http::{HeaderMap, HeaderName, Request, StatusCode};
use secrecy::{ExposeSecret as _, SecretString};

/// Check of the callers.
pub(super) struct Access {
    /// Digest of the token, so that the time of a comparison tells neither the token's bytes nor its length.
    token: Option<Digest>,
}

/// Reason why a caller may not call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AccessError {
    /// A token is needed, and none was shown.
    NoToken,
    /// The token that was shown is another one.
    WrongToken,
    /// The caller is not on this machine, and no token is set.
    Elsewhere,
    /// A page in a browser on this machine (W3C Fetch Metadata; Fetch standard, section 3.2).
    Page,
    /// A caller through a proxy on this machine.
    Proxied,
    /// The request names another host than this machine: a page whose name was pointed here (DNS rebinding).
    Name,
}

impl AccessError {
    pub(super) fn status(self) -> StatusCode {
        match self {
            Self::NoToken | Self::WrongToken => StatusCode::UNAUTHORIZED,
            _ => StatusCode::FORBIDDEN,
        }
    }
}

impl fmt::Display for AccessError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::NoToken => {
                "Admin calls need the token of admin.token_file here: send it as Authorization: \
                 Bearer, or with --admin-token-file."
            }
            Self::WrongToken => {
                "This is not the token of admin.token_file. If the file was replaced, the sidecar \
                 reads it again within reload.interval."
            }
            Self::Elsewhere => {
                "Without a token, admin calls are for 127.0.0.1 and ::1 only: call from the \
                 sidecar's own pod, without a service mesh in between, or set admin.token_file."
            }
            Self::Page => "Admin calls are not for web pages. Use velt-sidecar admin, or curl.",
            Self::Proxied => {
                "Without a token, admin calls through a proxy are refused: call the sidecar \
                 directly, or set admin.token_file."
            }
            Self::Name => {
                "Without a token, the host of an admin call must be an IP address or localhost: \
                 write http://127.0.0.1:9901, or set admin.token_file."
            }
        })
    }
}

impl Access {
    pub(super) fn new(token: Option<&SecretString>) -> Self {
        let digest_of = |token: &SecretString| digest(&SHA256, token.expose_secret().as_bytes());
        Self { token: token.map(digest_of) }
    }

    /// Checks whether the caller at `peer` may make `request`.
    pub(super) fn check<B>(
        &self,
        peer: SocketAddr,
        request: &Request<B>,
    ) -> Result<(), AccessError> {
        let headers = request.headers();
        match &self.token {
            Some(token) => check_token(token, headers),
            None if !is_this_machine(peer.ip().to_canonical()) => Err(AccessError::Elsewhere),
            None if headers.keys().any(is_of_a_browser) => Err(AccessError::Page),
            None if headers.keys().any(is_of_a_proxy) => Err(AccessError::Proxied),
            None if !names_this_machine(request) => Err(AccessError::Name),
            None => Ok(()),
        }
    }
}

fn is_this_machine(address: IpAddr) -> bool {
    address == Ipv4Addr::LOCALHOST || address == Ipv6Addr::LOCALHOST
}

fn check_token(token: &Digest, headers: &HeaderMap) -> Result<(), AccessError> {
    let mut shown = headers.get_all(AUTHORIZATION).iter();
    let (Some(shown), None) = (shown.next(), shown.next()) else {
        return Err(AccessError::NoToken);
    };
    // RFC 9110 section 11.1: the scheme is case-insensitive.
    let (scheme, shown) = shown.as_bytes().split_at_checked(7).ok_or(AccessError::NoToken)?;
    if !scheme.eq_ignore_ascii_case(b"bearer ") {
        return Err(AccessError::NoToken);
    }
    let shown = digest(&SHA256, shown.trim_ascii());
    let same = verify_slices_are_equal(token.as_ref(), shown.as_ref());
    same.map_err(|_| AccessError::WrongToken)
}

fn is_of_a_browser(name: &HeaderName) -> bool {
    *name == ORIGIN || *name == REFERER || name.as_str().starts_with("sec-fetch-")
}

fn is_of_a_proxy(name: &HeaderName) -> bool {
    let text = name.as_str();
    *name == FORWARDED
        || *name == VIA
        || text == "x-real-ip"
        || ["x-forwarded-", "x-envoy-", "l5d-"].iter().any(|prefix| text.starts_with(prefix))
}

fn names_this_machine<B>(request: &Request<B>) -> bool {
    let mut hosts = request.headers().get_all(HOST).iter();
    let host = match (request.uri().authority(), hosts.next(), hosts.next()) {
        (Some(authority), None, None) => Some(authority.clone()),
        (None, Some(host), None) => Authority::try_from(host.as_bytes()).ok(),
        _ => None,
    };
    host.filter(|host| !host.as_str().contains('@')).is_some_and(|host| {
        let host = host.host();
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        host.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok()
    })
}

#[cfg(test)]
mod tests {
    use http::Version;

    use super::*;

    /// A request to the admin port, in the way that is let through.
    fn request(more: &[(&str, &str)]) -> Request<()> {
        let mut request = Request::new(());
        let headers = request.headers_mut();
        headers.insert(HOST, "127.0.0.1:9901".parse().expect("a value"));
        for (name, value) in more {
            let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
            if name == HOST {
                headers.remove(HOST);
            }
            if !value.is_empty() {
                headers.append(name, value.parse().expect("a value"));
            }
        }
        request
    }

    #[test]
    fn t51_only_local_programs_may_call_without_a_token() {
        let access = Access::new(None);
        for (peer, more, expected) in [
            ("127.0.0.1:5", &[][..], Ok(())),
            ("127.0.0.6:5", &[], Err(AccessError::Elsewhere)),
            ("127.9.9.9:5", &[], Err(AccessError::Elsewhere)),
            ("[::ffff:127.0.0.6]:5", &[], Err(AccessError::Elsewhere)),
            ("[::1]:5", &[], Ok(())),
            ("[::ffff:127.0.0.1]:5", &[], Ok(())),
            ("10.0.0.7:5", &[], Err(AccessError::Elsewhere)),
            ("[fd00::7]:5", &[], Err(AccessError::Elsewhere)),
            ("[::ffff:10.0.0.7]:5", &[], Err(AccessError::Elsewhere)),
            ("10.0.0.7:5", &[("authorization", "Bearer x")], Err(AccessError::Elsewhere)),
            ("127.0.0.1:5", &[("origin", "null")], Err(AccessError::Page)),
            ("127.0.0.1:5", &[("referer", "http://127.0.0.1:9901/")], Err(AccessError::Page)),
            ("127.0.0.1:5", &[("sec-fetch-site", "none")], Err(AccessError::Page)),
            ("127.0.0.1:5", &[("sec-fetch-mode", "cors")], Err(AccessError::Page)),
            ("127.0.0.1:5", &[("x-forwarded-for", "127.0.0.1")], Err(AccessError::Proxied)),
            ("127.0.0.1:5", &[("x-forwarded-host", "a")], Err(AccessError::Proxied)),
            ("127.0.0.1:5", &[("x-real-ip", "127.0.0.1")], Err(AccessError::Proxied)),
            ("127.0.0.1:5", &[("forwarded", "for=127.0.0.1")], Err(AccessError::Proxied)),
            ("127.0.0.1:5", &[("via", "1.1 a")], Err(AccessError::Proxied)),
            ("127.0.0.1:5", &[("x-envoy-attempt-count", "1")], Err(AccessError::Proxied)),
            ("127.0.0.1:5", &[("l5d-client-id", "a")], Err(AccessError::Proxied)),
            ("127.0.0.1:5", &[("host", "localhost:9901")], Ok(())),
            ("127.0.0.1:5", &[("host", "LOCALHOST")], Ok(())),
            ("127.0.0.1:5", &[("host", "[::1]:9901")], Ok(())),
            ("127.0.0.1:5", &[("host", "10.0.0.7")], Ok(())),
            ("127.0.0.1:5", &[("host", "evil.example:9901")], Err(AccessError::Name)),
            ("127.0.0.1:5", &[("host", "127.0.0.1.evil.example")], Err(AccessError::Name)),
            ("127.0.0.1:5", &[("host", "localhost.evil.example")], Err(AccessError::Name)),
            ("127.0.0.1:5", &[("host", "localhost.")], Err(AccessError::Name)),
            ("127.0.0.1:5", &[("host", "evil@127.0.0.1")], Err(AccessError::Name)),
            ("127.0.0.1:5", &[("host", "")], Err(AccessError::Name)),
        ] {
            let peer = peer.parse().expect("an address");
            assert_eq!(access.check(peer, &request(more)), expected, "{peer} {more:?}");
        }
        // Two of them are none.
        let mut twice = request(&[]);
        twice.headers_mut().append(HOST, "127.0.0.1".parse().expect("a value"));
        let peer = "127.0.0.1:5".parse().expect("an address");
        assert_eq!(access.check(peer, &twice), Err(AccessError::Name));
    }

    #[test]
    fn t51_host_check_reads_the_target_of_http2() {
        let access = Access::new(None);
        let peer = "127.0.0.1:5".parse().expect("an address");
        for (target, expected) in [
            ("http://127.0.0.1:9901/config", Ok(())),
            ("http://[::1]:9901/config", Ok(())),
            ("http://evil.example/config", Err(AccessError::Name)),
        ] {
            let mut request = Request::new(());
            *request.uri_mut() = target.parse().expect("a URI");
            *request.version_mut() = Version::HTTP_2;
            assert_eq!(access.check(peer, &request), expected, "{target}");
        }
    }

    #[test]
    fn t51_configured_token_lets_only_its_holders_call() {
        let token = SecretString::from("0123456789abcdef0123456789abcdef");
        let access = Access::new(Some(&token));
        let right = "Bearer 0123456789abcdef0123456789abcdef";
        for (more, expected) in [
            (&[][..], Err(AccessError::NoToken)),
            (&[("authorization", right)], Ok(())),
            (&[("authorization", "bearer 0123456789abcdef0123456789abcdef")], Ok(())),
            (&[("authorization", right), ("x-forwarded-for", "10.0.0.9")], Ok(())),
            (&[("authorization", right), ("host", "sidecar.example")], Ok(())),
            (&[("authorization", right), ("authorization", right)], Err(AccessError::NoToken)),
            (
                &[("authorization", "Bearer 0123456789abcdef0123456789abcde")],
                Err(AccessError::WrongToken),
            ),
            (&[("authorization", "Bearer x")], Err(AccessError::WrongToken)),
            (&[("authorization", "Bearer")], Err(AccessError::NoToken)),
            (
                &[("authorization", "Basic 0123456789abcdef0123456789abcdef")],
                Err(AccessError::NoToken),
            ),
            (&[("x-admin-token", right)], Err(AccessError::NoToken)),
        ] {
            for peer in ["127.0.0.1:5", "10.0.0.7:5"] {
                let peer = peer.parse().expect("an address");
                assert_eq!(access.check(peer, &request(more)), expected, "{peer} {more:?}");
            }
        }
    }
}

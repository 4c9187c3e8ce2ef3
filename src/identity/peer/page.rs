//! Recognizes requests that a browser itself sends, for a page of another site than the app's.
//!
//! An attacker can let a host name resolve to this machine (DNS rebinding). To the browser, a page of that
//! name then has the same origin as this port, so a script of the page may set any header but those that
//! belong to the browser (Fetch standard, section 2.2.2): `Host`, `Connection`, `Via`, `Origin` and `Sec-*`
//! among them. These headers tell such a page from a login proxy, which hands a browser's other headers on:
//!
//! - Every browser sends `Connection: keep-alive` over HTTP/1.1. nginx sends `close` or none, oauth2-proxy,
//!   Caddy, Traefik, `HAProxy` and Envoy none, Apache `Keep-Alive`.
//! - The `Host` of such a page is a name, with the port to which the browser has connected. The name is
//!   neither `localhost` nor an address, since no name server is asked for `localhost` or an address.
//! - The `Origin` of a page that was loaded from another site names that site.

use http::header::{
    ACCEPT_LANGUAGE, CONNECTION, FORWARDED, HOST, ORIGIN, REFERER, USER_AGENT, VIA,
};
use http::uri::Authority;
use http::{HeaderMap, HeaderName};

const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Headers that fronts add, beside `x-forwarded-*`. A script may set them too.
const OF_PROXIES: [&str; 7] = [
    "x-real-ip",
    "x-request-id",
    "x-original-url",
    "x-original-uri",
    "x-original-method",
    "x-scheme",
    "x-url-scheme",
];

/// Endings of `x-forwarded-*` headers that name the user. They are no sign of a front: a script that wants
/// to pass for a user sets them.
const OF_USERS: [&str; 5] = ["user", "email", "groups", "preferred-username", "access-token"];

/// Kind of sender that `Connection` points to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sender {
    /// A value that every browser sends.
    Browser,
    /// A value that no browser sends.
    Proxy,
    /// No `Connection`: HTTP/2, most proxies, or a filter between a browser and this port.
    Either,
}

/// Whether a browser sends this request for a page that is not the app's. `port` is the port at which the
/// request has come in. `hosts` are the app's own names; if there are any, every other name is another site.
pub(super) fn is_of_another_site(headers: &HeaderMap, port: Option<u16>, hosts: &[String]) -> bool {
    if is_of_other_host(headers, hosts) {
        return true;
    }
    let (sender, by_proxy) = (sender(headers), has_proxys_marks(headers));
    // Return early for the requests of nearly every front.
    if sender == Sender::Proxy || sender == Sender::Either && by_proxy {
        return false;
    }
    if !has_browsers_marks(headers) || is_no_script(headers) {
        return false;
    }
    let host = headers.get(HOST).and_then(|host| Authority::try_from(host.as_bytes()).ok());
    let named = host.as_ref().filter(|host| !is_of_this_machine(host.host()));
    let stranger =
        named.filter(|host| !hosts.iter().any(|own| own.eq_ignore_ascii_case(host.host())));
    let at_our_port = stranger.is_some_and(|host| port.is_some() && host.port_u16() == port);
    if by_proxy {
        // A script can forge these marks, so they do not outweigh a browser's `Connection` together with
        // the sidecar's port in `Host`: clients of a front ask for the front's port.
        return at_our_port || is_of_default_port(stranger, port);
    }
    let elsewhere = is_from_elsewhere(headers, host.as_ref());
    if sender == Sender::Browser {
        return stranger.is_some() || elsewhere;
    }
    if named.is_none() {
        return elsewhere && headers.get(SEC_FETCH_SITE).is_some_and(|site| site == "cross-site");
    }
    at_our_port || stranger.is_some_and(|host| is_own_plain_origin(headers, host))
}

/// Whether a request is for a host that is not among `hosts`, the app's own names. If `hosts` is empty, no
/// host counts as another one.
pub(super) fn is_of_other_host(headers: &HeaderMap, hosts: &[String]) -> bool {
    if hosts.is_empty() {
        return false;
    }
    let is_own = |name: &str| {
        is_of_this_machine(name) || hosts.iter().any(|own| own.eq_ignore_ascii_case(name))
    };
    let host = headers.get(HOST).and_then(|host| Authority::try_from(host.as_bytes()).ok());
    host.is_some_and(|host| !is_own(host.host()))
}

/// Whether `host` leaves out the sidecar's port, as a browser does with the port of its scheme.
fn is_of_default_port(host: Option<&Authority>, port: Option<u16>) -> bool {
    host.is_some_and(|host| host.port().is_none()) && matches!(port, Some(80 | 443))
}

fn sender(headers: &HeaderMap) -> Sender {
    let mut values = headers.get_all(CONNECTION).iter();
    match (values.next(), values.next()) {
        _ if headers.contains_key(VIA) => Sender::Proxy,
        (None, _) => Sender::Either,
        (Some(value), None) if value == "keep-alive" => Sender::Browser,
        _ => Sender::Proxy,
    }
}

fn has_browsers_marks(headers: &HeaderMap) -> bool {
    let is_browsers = |agent: &http::HeaderValue| agent.as_bytes().starts_with(b"Mozilla/");
    headers.get(USER_AGENT).is_some_and(is_browsers)
        || headers.keys().any(|name| {
            matches!(*name, ORIGIN | REFERER | ACCEPT_LANGUAGE)
                || name.as_str().starts_with("sec-fetch-")
                || name.as_str().starts_with("sec-ch-")
        })
}

fn has_proxys_marks(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| {
        // Most names begin otherwise.
        let Some(rest) = name.as_str().strip_prefix("x-") else { return *name == FORWARDED };
        OF_PROXIES.contains(&name.as_str())
            || rest.starts_with("envoy-")
            || rest.strip_prefix("forwarded-").is_some_and(|rest| !OF_USERS.contains(&rest))
    })
}

/// Whether the browser says that no script has made this request. Only a script can add a header that names
/// a user.
fn is_no_script(headers: &HeaderMap) -> bool {
    headers.get(SEC_FETCH_MODE).is_some_and(|mode| mode != "cors" && mode != "same-origin")
}

/// Whether the page was loaded from a name that is neither this machine's nor the request's.
fn is_from_elsewhere(headers: &HeaderMap, host: Option<&Authority>) -> bool {
    let Some(origin) = headers.get(ORIGIN) else { return false };
    let origin = origin.as_bytes().splitn(2, |byte| *byte == b'/').nth(1);
    let origin = origin.and_then(|rest| Authority::try_from(rest.strip_prefix(b"/")?).ok());
    // `null` is the origin of a page without an origin: a file, or a frame in a sandbox.
    let Some(origin) = origin else { return true };
    !is_of_this_machine(origin.host())
        && host.is_none_or(|host| !host.host().eq_ignore_ascii_case(origin.host()))
}

/// Whether the page was loaded from the request's own host without TLS, so that a front that ends TLS is
/// ruled out.
fn is_own_plain_origin(headers: &HeaderMap, host: &Authority) -> bool {
    let origin = headers.get(ORIGIN).and_then(|origin| origin.as_bytes().strip_prefix(b"http://"));
    host.port().is_none()
        && origin.is_some_and(|origin| origin.eq_ignore_ascii_case(host.as_str().as_bytes()))
}

/// Whether `host` is `localhost` or an address, for which no name server is asked.
fn is_of_this_machine(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let name = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost") || bare.parse::<std::net::IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn page(host: &'static str, mark: &'static str) -> HeaderMap {
        let lines = [
            ("host", host),
            ("connection", "keep-alive"),
            ("user-agent", "Mozilla/5.0"),
            ("accept-language", "en"),
            (mark, "192.0.2.1"),
        ];
        let line = |(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value));
        lines.into_iter().map(line).collect()
    }

    #[test]
    fn page_at_a_default_port_is_found_without_port_in_its_host() {
        for (host, port, expected) in [
            ("evil.example", 80, true),
            ("evil.example", 443, true),
            ("evil.example:80", 80, true),
            ("evil.example:8080", 8080, true),
            // A front at the default port hands on to another one.
            ("app.example", 8080, false),
            ("localhost", 80, false),
            ("127.0.0.1", 80, false),
        ] {
            for mark in ["x-forwarded-for", "x-request-id", "forwarded"] {
                let found = is_of_another_site(&page(host, mark), Some(port), &[]);
                assert_eq!(found, expected, "{host} at {port} with {mark}");
            }
        }
    }

    #[test]
    fn host_check_needs_configured_hosts() {
        let own = ["dev.example".to_owned()];
        for (host, hosts, expected) in [
            ("evil.example", &own[..], true),
            ("dev.example", &own[..], false),
            ("DEV.example:81", &own[..], false),
            ("10.0.0.1", &own[..], false),
            ("evil.example", &[], false),
        ] {
            assert_eq!(is_of_other_host(&page(host, "via"), hosts), expected, "{host}");
        }
    }
}

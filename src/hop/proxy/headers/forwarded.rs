//! Headers that tell the app of the client, the scheme and the host: `X-Forwarded-For`, `-Proto`, `-Host`.

use std::io::Write as _;
use std::net::IpAddr;

use bytes::Bytes;
use http::header::HOST;
use http::{HeaderMap, HeaderName, HeaderValue};
use tracing::warn;

use super::Client;
use super::said::{Said, claimed};
use ground::alarm::Alarm;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Treatment of the `X-Forwarded-For` of a peer whose word is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForwardedFor {
    /// The header stays as it came: the sidecar shares the app's address, so an app that counts hops must not
    /// see one more.
    Keep,
    /// The peer's address is added to the end of the header.
    Append,
}

/// Headers of a peer whose word is not kept, which were removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replaced {
    pub count: u64,
    /// Name of one of these headers, for the log.
    pub header: Option<HeaderName>,
}

impl Replaced {
    /// Logs that headers of `peer` were replaced, now and then. If the peer is the front, the app sees the
    /// wrong scheme and may answer with redirects that never end: the line says why.
    pub(in super::super) fn tell(&self, alarm: &Alarm, peer: IpAddr) {
        let Some(requests) = alarm.raise(1) else { return };
        let header = self.header.as_ref().map_or("", |header| header.as_str());
        warn!(
            %peer,
            header,
            requests,
            "the X-Forwarded-* headers of a peer that is not trusted to set them were replaced: if \
             the peer is your front, name it in identity.trusted_proxies"
        );
    }
}

/// Tells the app who the client is, by which scheme and host. If the peer's word is kept, the sidecar adds a
/// header only for a topic of which the peer has said nothing in any header: an app that compares two headers
/// would refuse the request. The word of any other peer is replaced: an app may take that word for the
/// front's.
pub fn set_forwarded(
    headers: &mut HeaderMap,
    client: &Client,
    forwarded_for: ForwardedFor,
) -> Replaced {
    let (said, replaced) = if client.trusted {
        (Said::in_headers(headers), Replaced::default())
    } else {
        (Said::default(), remove_claims(headers))
    };
    if !said.has(Said::CLIENT) || forwarded_for == ForwardedFor::Append {
        let list = list_with(headers, client.address);
        headers.insert(X_FORWARDED_FOR, list);
    }
    if !said.has(Said::SCHEME) {
        headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(client.scheme.as_str()));
    }
    if !said.has(Said::HOST)
        && let Some(host) = headers.get(HOST).cloned()
    {
        headers.insert(X_FORWARDED_HOST, host);
    }
    replaced
}

fn remove_claims(headers: &mut HeaderMap) -> Replaced {
    let names: Vec<HeaderName> = claimed(headers).cloned().collect();
    for name in &names {
        headers.remove(name);
    }
    Replaced { count: names.len() as u64, header: names.into_iter().next() }
}

/// Returns the addresses so far, with this hop's client at their end.
fn list_with(headers: &HeaderMap, address: IpAddr) -> HeaderValue {
    let mut list = Vec::with_capacity(64);
    for value in headers.get_all(X_FORWARDED_FOR) {
        list.extend_from_slice(value.as_bytes());
        list.extend_from_slice(b", ");
    }
    match address.to_canonical() {
        // The text of `Display`, for a tenth of its cost.
        IpAddr::V4(address) => push_dotted(&mut list, address.octets()),
        // Writing to a vector does not fail.
        IpAddr::V6(address) => drop(write!(list, "{address}")),
    }
    HeaderValue::from_maybe_shared(Bytes::from(list)).expect("header values and an address")
}

/// Writes an IPv4 address in its usual form.
fn push_dotted(list: &mut Vec<u8>, octets: [u8; 4]) {
    for (index, octet) in octets.into_iter().enumerate() {
        if index > 0 {
            list.push(b'.');
        }
        let digits = [b'0' + octet / 100, b'0' + octet / 10 % 10, b'0' + octet % 10];
        let leading_zeros = usize::from(octet < 100) + usize::from(octet < 10);
        list.extend_from_slice(&digits[leading_zeros..]);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Scheme;
    use super::*;

    fn client(trusted: bool) -> Client {
        let address = "::ffff:198.51.100.7".parse().expect("an address");
        Client { address, trusted, scheme: Scheme::Http }
    }

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert("host", HeaderValue::from_static("app.example"));
        for (name, value) in lines {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn forwarding_headers_are_kept_only_from_trusted_peers() {
        let said = headers(&[
            ("x-forwarded-for", "192.0.2.1"),
            ("x-forwarded-for", "192.0.2.2"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-prefix", "/base"),
            ("x-real-ip", "192.0.2.1"),
            ("x_forwarded_for", "192.0.2.9"),
        ]);
        let mut kept = said.clone();
        let replaced = set_forwarded(&mut kept, &client(true), ForwardedFor::Keep);
        assert_eq!(replaced, Replaced::default());
        assert_eq!(kept["x-forwarded-host"], "app.example");
        kept.remove("x-forwarded-host");
        assert_eq!(kept, said, "nothing else is added, and nothing changed");

        let mut appended = said.clone();
        set_forwarded(&mut appended, &client(true), ForwardedFor::Append);
        assert_eq!(appended["x-forwarded-for"], "192.0.2.1, 192.0.2.2, 198.51.100.7");

        let mut replaced = said;
        let told = set_forwarded(&mut replaced, &client(false), ForwardedFor::Keep);
        assert_eq!(told.count, 5);
        assert_eq!(replaced["x-forwarded-for"], "198.51.100.7");
        assert_eq!(replaced["x-forwarded-proto"], "http");
        assert!(!replaced.contains_key("x-forwarded-prefix"));
        assert!(!replaced.contains_key("x-real-ip"));
        assert!(!replaced.contains_key("x_forwarded_for"));
    }

    #[test]
    fn sidecar_adds_no_header_on_the_topic_of_a_trusted_peer() {
        let ours = ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"];
        for (name, value, left_out) in [
            ("x-forwarded-ssl", "on", &["x-forwarded-proto"][..]),
            ("x-forwarded-protocol", "ssl", &["x-forwarded-proto"]),
            ("x_forwarded_proto", "https", &["x-forwarded-proto"]),
            ("front-end-https", "on", &["x-forwarded-proto"]),
            ("cf-visitor", "{\"scheme\":\"https\"}", &["x-forwarded-proto"]),
            ("forwarded", "proto=https", &["x-forwarded-proto"]),
            ("forwarded", "for=192.0.2.1;host=a.example", &["x-forwarded-for", "x-forwarded-host"]),
            ("x-forwarded-port", "443", &["x-forwarded-proto", "x-forwarded-host"]),
            ("x-original-host", "a.example", &["x-forwarded-host"]),
            ("client-ip", "192.0.2.1", &["x-forwarded-for"]),
            ("x-app-header", "1", &[]),
        ] {
            let mut headers = headers(&[(name, value)]);
            set_forwarded(&mut headers, &client(true), ForwardedFor::Keep);
            for ours in ours {
                assert_eq!(headers.contains_key(ours), !left_out.contains(&ours), "{name}: {ours}");
            }
            assert_eq!(headers[name], value);
        }
    }

    proptest! {
        #[test]
        fn ipv4_address_is_written_as_the_standard_library_does(octets: [u8; 4]) {
            let mut written = Vec::new();
            push_dotted(&mut written, octets);
            prop_assert_eq!(String::from_utf8(written), Ok(IpAddr::from(octets).to_string()));
        }
    }
}

//! Who the client is, as the app is told: `X-Forwarded-For`, `-Proto` and `-Host`.

use std::io::Write as _;
use std::net::IpAddr;

use bytes::Bytes;
use http::header::{Entry, HOST};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::Client;
use crate::spelling::{begins_with, is_read_as};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Says who the client is. A trusted peer's own words are kept and added to; anybody else's are
/// replaced, since an app may take them for the front proxy's.
pub fn set_forwarded(headers: &mut HeaderMap, client: &Client) {
    if !client.trusted {
        let claimed = |name: &&HeaderName| {
            let name = name.as_str();
            begins_with(name, "x-forwarded-")
                || is_read_as(name, "forwarded")
                || is_read_as(name, "x-real-ip")
        };
        let claimed: Vec<HeaderName> = headers.keys().filter(claimed).cloned().collect();
        for name in claimed {
            headers.remove(name);
        }
    }
    match headers.entry(X_FORWARDED_FOR) {
        Entry::Occupied(mut entry) => {
            let list = forwarded_for(entry.iter(), client.address);
            entry.insert(list);
        }
        Entry::Vacant(entry) => {
            entry.insert(forwarded_for(std::iter::empty(), client.address));
        }
    }
    if !headers.contains_key(X_FORWARDED_PROTO) {
        headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(client.scheme.as_str()));
    }
    if let Some(host) = headers.get(HOST).cloned()
        && let Entry::Vacant(entry) = headers.entry(X_FORWARDED_HOST)
    {
        entry.insert(host);
    }
}

/// The addresses so far and this hop's client at their end.
fn forwarded_for<'a>(
    so_far: impl Iterator<Item = &'a HeaderValue>,
    address: IpAddr,
) -> HeaderValue {
    let mut list = Vec::with_capacity(64);
    for value in so_far {
        list.extend_from_slice(value.as_bytes());
        list.extend_from_slice(b", ");
    }
    match address.to_canonical() {
        // As `Display` has it, for a tenth of its cost.
        IpAddr::V4(address) => push_dotted(&mut list, address.octets()),
        // Writing to a vector does not fail.
        IpAddr::V6(address) => drop(write!(list, "{address}")),
    }
    HeaderValue::from_maybe_shared(Bytes::from(list)).expect("header values and an address")
}

/// An IPv4 address as it is written.
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

    #[test]
    fn a_trusted_peers_words_are_kept_and_anybody_elses_replaced() {
        let said = [
            ("host", "app.example"),
            ("x-forwarded-for", "192.0.2.1"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-prefix", "/base"),
            ("x-real-ip", "192.0.2.1"),
            ("x_forwarded_for", "192.0.2.9"),
        ];
        let client = |trusted| Client {
            address: "::ffff:198.51.100.7".parse().expect("an address"),
            trusted,
            scheme: Scheme::Http,
        };
        let said: HeaderMap = said
            .into_iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect();
        let mut kept = said.clone();
        set_forwarded(&mut kept, &client(true));
        assert_eq!(kept["x-forwarded-for"], "192.0.2.1, 198.51.100.7");
        assert_eq!(kept["x-forwarded-proto"], "https");
        assert_eq!(kept["x-forwarded-host"], "app.example");
        assert_eq!(kept["x-forwarded-prefix"], "/base");

        let mut replaced = said;
        set_forwarded(&mut replaced, &client(false));
        assert_eq!(replaced["x-forwarded-for"], "198.51.100.7");
        assert_eq!(replaced["x-forwarded-proto"], "http");
        assert!(!replaced.contains_key("x-forwarded-prefix"));
        assert!(!replaced.contains_key("x-real-ip"));
        assert!(!replaced.contains_key("x_forwarded_for"));
    }

    proptest! {
        #[test]
        fn an_address_is_written_as_it_always_is(octets: [u8; 4]) {
            let mut written = Vec::new();
            push_dotted(&mut written, octets);
            prop_assert_eq!(String::from_utf8(written), Ok(IpAddr::from(octets).to_string()));
        }
    }
}

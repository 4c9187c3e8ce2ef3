//! Site of the app for which a user's details hold: the host, and what a trusted front says beside it.

use http::header::HOST;
use http::{HeaderName, HeaderValue, Request};

use super::NoDetails;
use crate::ask_app::host;
use hop::proxy::Client;
use hop::proxy::headers::said_of_site;

/// Longest host, in bytes: a name has at most 255 (RFC 1035 section 2.3.4), and a port may follow it. A client
/// chooses its host, so a longer one is not worth memory.
const MAX_HOST_BYTES: usize = 255 + ":65535".len();

/// Largest sum of the names and values in which a front speaks of the site, in bytes. They are one host, one scheme
/// and one path in several spellings; each front on the way may add its own.
const MAX_SAID_BYTES: usize = 2048;

/// Names and values of all headers of a question by which the app may tell its sites and tenants apart. The
/// scheme and the port of the sidecar itself are missing: they are the same for all requests.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Site(Vec<(HeaderName, HeaderValue)>);

impl Site {
    /// Reads the site for which `request` asks.
    ///
    /// # Errors
    ///
    /// [`NoDetails::LongHost`] if it takes more memory than a site may.
    pub(crate) fn of<B>(request: &Request<B>, client: &Client) -> Result<Self, NoDetails> {
        let host = host(request);
        let said = if client.trusted { said_of_site(request.headers()) } else { Vec::new() };
        let said_bytes: usize =
            said.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
        if host.as_ref().is_some_and(|host| host.len() > MAX_HOST_BYTES)
            || said_bytes > MAX_SAID_BYTES
        {
            return Err(NoDetails::LongHost);
        }
        Ok(Self(host.map(|host| (HOST, host)).into_iter().chain(said).collect()))
    }

    /// Takes the host away if it is `localhost`. A person who asks for an explanation and names no host asks
    /// for `localhost`, and means any host.
    pub(crate) fn without_localhost(mut self) -> Self {
        self.0.retain(|(name, value)| *name != HOST || value != "localhost");
        self
    }

    /// Whether `other` is this site or, where this one leaves something out, may be it.
    pub(super) fn may_be(&self, other: &Self) -> bool {
        self.0.iter().all(|said| other.0.contains(said))
    }

    /// Returns the memory on the heap, in bytes.
    pub(super) fn owned_bytes(&self) -> usize {
        self.0.iter().map(|said| size_of_val(said) + said.0.as_str().len() + said.1.len()).sum()
    }

    /// Makes the site with this host.
    #[cfg(test)]
    pub(super) fn with_host(host: &str) -> Self {
        Self(vec![(HOST, host.parse().expect("a value"))])
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use hop::proxy::Scheme;

    fn site(trusted: bool, headers: &[(&str, &str)]) -> Result<Site, NoDetails> {
        let mut request = Request::new(());
        for (name, value) in headers {
            let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
            request.headers_mut().append(name, value.parse().expect("a value"));
        }
        let client = Client { address: Ipv4Addr::LOCALHOST.into(), trusted, scheme: Scheme::Http };
        Site::of(&request, &client)
    }

    #[test]
    fn t67_each_header_that_tells_tenants_apart_makes_a_site() {
        let plain = site(true, &[("host", "a")]).ok();
        let named = ["x-forwarded-prefix", "x-original-host", "x-forwarded-proto", "x-host"];
        let mut sites = vec![plain.clone(), site(true, &[("host", "b")]).ok()];
        sites.extend(named.map(|name| site(true, &[("host", "a"), (name, "b")]).ok()));
        for (index, site) in sites.iter().enumerate() {
            assert!(site.is_some() && !sites[..index].contains(site), "{index}");
        }
        let client = [("host", "a"), ("x-forwarded-for", "192.0.2.1"), ("x-real-ip", "192.0.2.1")];
        assert!(site(true, &client).ok() == plain, "the client's address makes none");
        let untrusted = [("host", "a"), ("x-forwarded-prefix", "b")];
        assert!(site(false, &untrusted).ok() == plain, "the app gets none of it");
    }

    #[test]
    fn site_that_is_too_long_is_none() {
        let host = |length: usize| site(true, &[("host", &"a".repeat(length))]).err();
        assert_eq!((host(255), host(MAX_HOST_BYTES)), (None, None));
        assert_eq!(host(MAX_HOST_BYTES + 1), Some(NoDetails::LongHost));
        let prefix = |length: usize| {
            let long = "a".repeat(length);
            site(true, &[("host", "a"), ("x-forwarded-prefix", &long)]).err()
        };
        let rest = MAX_SAID_BYTES - "x-forwarded-prefix".len();
        assert_eq!((prefix(rest), prefix(rest + 1)), (None, Some(NoDetails::LongHost)));
    }
}

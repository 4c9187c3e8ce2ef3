//! Anchors of trust: the conditions under which a peer is the login proxy.

mod page;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{Digest, SHA256, digest};
use http::{HeaderMap, HeaderName};
use ipnet::IpNet;
use secrecy::{ExposeSecret as _, SecretString};

use ground::peer::Peer;

/// Addresses from which Istio's proxy hands all callers of a mesh on, and no other program connects.
pub const OF_MESHES: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(127, 0, 0, 6)), IpAddr::V6(Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 6))];

/// A secret that the login proxy shows in a header.
#[derive(Clone, Debug)]
pub struct SecretSettings {
    /// Header of the secret. Removed from every request, so that the app does not see the secret.
    pub header: HeaderName,
    /// Secrets of which any is accepted, so that the operator can change the secret without a gap.
    pub accepted: Vec<SecretString>,
}

/// Anchors of trust: every anchor that is configured has to hold.
pub(super) struct Anchors {
    ranges: Vec<IpNet>,
    /// Names of client certificates, of which any is accepted. If this is empty, no name is needed.
    names: Vec<String>,
    secret: Option<Secret>,
    /// The app's own names in `Host`, if they are known.
    hosts: Vec<String>,
}

/// Peers whose word about the client's address, the scheme and the host is kept.
pub(super) enum Proxies {
    /// Every peer, as without the sidecar: no plain header names a user here.
    Everyone,
    /// Peers that are believed about users.
    Trusted,
    /// Peers in these ranges.
    In(Vec<IpNet>),
}

/// A secret by its digests. Digests are compared, so that the time of a comparison tells neither the bytes of
/// the secret nor its length.
struct Secret {
    header: HeaderName,
    accepted: Vec<Digest>,
}

/// Verdict on whether a peer is the login proxy, with its reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// The peer is in this range, the first that fits, and has shown what else is needed.
    Trusted(IpNet),
    /// The peer is in none of the ranges.
    Stranger,
    /// The peer is in a range, but has the sidecar's own address, which no setting names by itself.
    Itself,
    /// The peer has shown no certificate with one of the trusted names.
    NoName,
    /// The peer has not shown the secret, or not the right one.
    NoSecret(Shown),
    /// The peer is a browser on this machine, and sends the request for a page of another site.
    Page,
}

impl Trust {
    /// Whether the peer is believed.
    pub fn is_trusted(self) -> bool {
        matches!(self, Self::Trusted(_))
    }
}

/// Result of a look for the secret in a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// No secret is configured.
    Unneeded,
    Right,
    Wrong,
    Nothing,
}

impl Shown {
    pub(super) fn is_wrong(self) -> bool {
        self == Self::Wrong
    }
}

impl Anchors {
    pub(super) fn new(
        ranges: Vec<IpNet>,
        names: Vec<String>,
        secret: Option<SecretSettings>,
        hosts: Vec<String>,
    ) -> Self {
        let secret = secret.map(|SecretSettings { header, accepted }| {
            let digest_of =
                |secret: &SecretString| digest(&SHA256, secret.expose_secret().as_bytes());
            Secret { header, accepted: accepted.iter().map(digest_of).collect() }
        });
        Self { ranges, names, secret, hosts }
    }

    /// Judges whether `peer` is the login proxy. `headers` are the headers of the peer's request.
    pub(super) fn trust(&self, peer: &Peer, headers: &HeaderMap, shown: Shown) -> Trust {
        // An IPv4 peer of a dual-stack socket is written as ::ffff:a.b.c.d.
        let address = peer.address().to_canonical();
        match self.ranges.iter().find(|range| range.contains(&address)) {
            None => Trust::Stranger,
            Some(_) if self.is_itself(peer, address) => Trust::Itself,
            Some(_) if !self.names.is_empty() && !self.knows(peer) => Trust::NoName,
            Some(_) if self.is_page(peer, address, headers) => Trust::Page,
            Some(range) if matches!(shown, Shown::Unneeded | Shown::Right) => {
                Trust::Trusted(*range)
            }
            Some(_) => Trust::NoSecret(shown),
        }
    }

    /// Whether `peer` comes from the sidecar's own address, which no range names exactly. The proxies of some
    /// service meshes hand every caller on from there (Linkerd; Istio in some versions), and a range of pods
    /// holds the pod itself. Matters where an address is the only anchor. A range of all addresses is the
    /// operator's word that something else keeps other clients out.
    fn is_itself(&self, peer: &Peer, address: IpAddr) -> bool {
        let names_it = |range: &IpNet| {
            let is_single = range.prefix_len() == range.max_prefix_len();
            range.contains(&address) && (is_single || holds_everyone(range))
        };
        !self.is_vouched() && peer.has_own_address() && !self.ranges.iter().any(names_it)
    }

    /// Whether a peer has to show more than an address.
    fn is_vouched(&self) -> bool {
        self.secret.is_some() || !self.names.is_empty()
    }

    /// Whether the request is from a page in a browser on this machine. Matters where an address is the only
    /// anchor: a login proxy on this machine has the same address, but a page has no secret and no
    /// certificate. Only the app's names reveal a page that comes from another address, such as a container's
    /// gateway.
    fn is_page(&self, peer: &Peer, address: IpAddr, headers: &HeaderMap) -> bool {
        if self.is_vouched() {
            return false;
        }
        if address.is_loopback() {
            return page::is_of_another_site(headers, peer.local_port(), &self.hosts);
        }
        page::is_of_other_host(headers, &self.hosts)
    }

    fn knows(&self, peer: &Peer) -> bool {
        let shown = peer.names.as_deref();
        shown.is_some_and(|shown| self.names.iter().any(|name| shown.contain(name)))
    }

    /// Whether a peer has to show a name.
    pub(super) fn needs_name(&self) -> bool {
        !self.names.is_empty()
    }

    /// Returns the header of the secret, if a secret is configured.
    pub(super) fn secret_header(&self) -> Option<&HeaderName> {
        self.secret.as_ref().map(|secret| &secret.header)
    }

    /// Removes the secret, and says whether it was the right one. A secret that is shown twice is wrong: one
    /// of the two lines may be the client's.
    pub(super) fn take_secret(&self, headers: &mut HeaderMap) -> Shown {
        let shown = self.shown(headers);
        if let Some(secret) = &self.secret {
            headers.remove(&secret.header);
        }
        shown
    }

    /// Judges the secret that `headers` show, and leaves it there.
    pub(super) fn shown(&self, headers: &HeaderMap) -> Shown {
        let Some(secret) = &self.secret else { return Shown::Unneeded };
        let mut values = headers.get_all(&secret.header).iter();
        match (values.next(), values.next()) {
            (None, _) => Shown::Nothing,
            (Some(value), None) if secret.is(value.as_bytes()) => Shown::Right,
            _ => Shown::Wrong,
        }
    }
}

/// Whether a range holds all addresses of its family, or nearly all: no private network is larger than
/// `10.0.0.0/8` and `fc00::/7`.
pub fn holds_everyone(range: &IpNet) -> bool {
    match range {
        IpNet::V4(range) => range.prefix_len() < 8,
        IpNet::V6(range) => range.prefix_len() < 7,
    }
}

impl Proxies {
    /// Takes the ranges that the operator has `written`, or the default: with `by_header`, where a plain
    /// header names the user, peers that are believed about users; else every peer.
    pub(super) fn new(written: Option<Vec<IpNet>>, by_header: bool) -> Self {
        match written {
            Some(ranges) => Self::In(ranges),
            None if by_header => Self::Trusted,
            None => Self::Everyone,
        }
    }

    /// Decides whether the word of `peer` is kept, and says why.
    pub(super) fn believe(&self, peer: &Peer, trust: Trust) -> Believed {
        let address = peer.address().to_canonical();
        match self {
            Self::Everyone => Believed::AsEverybody,
            Self::Trusted if trust.is_trusted() => Believed::AsTrusted,
            Self::Trusted => Believed::NotTrusted,
            Self::In(ranges) => match ranges.iter().find(|range| range.contains(&address)) {
                Some(range) => Believed::In(*range),
                None => Believed::InNone,
            },
        }
    }
}

/// Decision about a peer's word on the client's address, the scheme and the host, with its reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Believed {
    /// The word is kept, as from every peer.
    AsEverybody,
    /// The word is kept: the peer is believed about users too.
    AsTrusted,
    /// The word is kept: the peer is in this range of `identity.trusted_proxies`.
    In(IpNet),
    /// The word is replaced: the peer is not believed about users.
    NotTrusted,
    /// The word is replaced: the peer is in none of the ranges of `identity.trusted_proxies`.
    InNone,
}

impl Believed {
    /// Whether the peer's word is kept.
    pub fn is_kept(self) -> bool {
        !matches!(self, Self::NotTrusted | Self::InNone)
    }
}

impl Secret {
    fn is(&self, shown: &[u8]) -> bool {
        let shown = digest(&SHA256, shown);
        // Compare all secrets (`|` and not `||`), so that the time does not tell which secret fits.
        self.accepted.iter().fold(false, |is, accepted| {
            is | verify_slices_are_equal(accepted.as_ref(), shown.as_ref()).is_ok()
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ground::tls::CertificateNames;
    use http::HeaderValue;
    use http::header::HOST;

    use super::*;

    #[test]
    fn t53_sidecars_own_address_counts_only_by_itself() {
        let trust = |ranges: &[&str], peer: &str, local: &str| {
            let ranges = ranges.iter().map(|range| range.parse().expect("a range")).collect();
            let anchors = Anchors::new(ranges, Vec::new(), None, Vec::new());
            let local = Some(local.parse().expect("an address with a port"));
            let peer = Peer { local, ..Peer::at(peer.parse().expect("an address")) };
            anchors.trust(&peer, &HeaderMap::new(), Shown::Unneeded)
        };
        let (pods, pods6) = ("10.42.0.0/16", "fd00:10:42::/56");
        for (ranges, peer, local, trusted) in [
            (&[pods][..], "10.42.7.7", "10.42.3.3:8080", true),
            (&[pods], "10.42.3.3", "10.42.3.3:8080", false),
            (&[pods], "10.42.3.3", "[::ffff:10.42.3.3]:8080", false),
            (&[pods], "::ffff:10.42.3.3", "10.42.3.3:8080", false),
            (&[pods, "10.42.3.3/32"], "10.42.3.3", "10.42.3.3:8080", true),
            (&[pods, "10.42.3.4/32"], "10.42.3.3", "10.42.3.3:8080", false),
            (&["0.0.0.0/0"], "10.42.3.3", "10.42.3.3:8080", true),
            (&[pods6], "fd00:10:42::3", "[fd00:10:42::3]:8080", false),
            (&[pods6], "fd00:10:42::4", "[fd00:10:42::3]:8080", true),
            (&["127.0.0.0/30"], "127.0.0.1", "127.0.0.1:8080", true),
            (&["::1/128"], "::1", "[::1]:8080", true),
        ] {
            let found = trust(ranges, peer, local);
            assert_eq!(found.is_trusted(), trusted, "{ranges:?}: {peer} to {local}: {found:?}");
        }
    }

    #[test]
    fn t53_secret_or_name_vouches_for_the_sidecars_own_address() {
        let own = IpAddr::V4(Ipv4Addr::new(10, 42, 3, 3));
        let secret = SecretSettings {
            header: HeaderName::from_static("x-secret"),
            accepted: vec![SecretString::from("a secret")],
        };
        let names = vec!["proxy.example".to_owned()];
        for (names, secret, shown, trusted) in [
            (Vec::new(), Some(secret.clone()), Shown::Right, true),
            (Vec::new(), Some(secret), Shown::Wrong, false),
            (names, None, Shown::Unneeded, true),
            (Vec::new(), None, Shown::Unneeded, false),
        ] {
            let ranges = vec!["10.42.0.0/16".parse().expect("a range")];
            let anchors = Anchors::new(ranges, names, secret, Vec::new());
            let names = Some(Arc::new(CertificateNames::from_names(["proxy.example"])));
            let peer = Peer { local: Some((own, 8080).into()), names, ..Peer::at(own) };
            let trust = anchors.trust(&peer, &HeaderMap::new(), shown);
            assert_eq!(trust.is_trusted(), trusted, "{shown:?}: {trust:?}");
        }
    }

    #[test]
    fn trusted_hosts_apply_to_peers_trusted_by_address_alone() {
        let ranges = vec!["10.9.9.0/24".parse().expect("a range")];
        let hosts = vec!["dev.example".to_owned()];
        let anchors = Anchors::new(ranges, Vec::new(), None, hosts);
        let peer = Peer::at([10, 9, 9, 9].into());
        for (host, trusted) in [("evil.example", false), ("dev.example", true), ("10.9.9.1", true)]
        {
            let headers = HeaderMap::from_iter([(HOST, HeaderValue::from_static(host))]);
            let trust = anchors.trust(&peer, &headers, Shown::Unneeded);
            assert_eq!(trust.is_trusted(), trusted, "{host}: {trust:?}");
        }
    }
}

//! The anchors of trust: what makes a peer the front proxy.

use std::net::IpAddr;
use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{Digest, SHA256, digest};
use http::{HeaderMap, HeaderName};
use ipnet::IpNet;
use secrecy::{ExposeSecret as _, SecretString};

use crate::tls::CertificateNames;

/// Who sent a request over the connection that it came on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    pub address: IpAddr,
    /// Whether the connection is encrypted.
    pub encrypted: bool,
    /// The names in the certificate that it has shown and TLS has verified.
    pub names: Option<Arc<CertificateNames>>,
}

impl Peer {
    /// Over a connection without TLS.
    pub fn at(address: IpAddr) -> Self {
        Self { address, encrypted: false, names: None }
    }
}

/// A secret that the front proxy shows in a header.
#[derive(Clone, Debug)]
pub struct SecretSettings {
    /// Removed from every request, so that the app never sees it.
    pub header: HeaderName,
    /// Any of them will do, so that they can be changed without a gap.
    pub accepted: Vec<SecretString>,
}

/// Whom to believe: every anchor that is configured has to hold.
pub(super) struct Anchors {
    ranges: Vec<IpNet>,
    /// Names of client certificates, any of which will do; without any, none is needed.
    names: Vec<String>,
    secret: Option<Secret>,
}

/// A secret by its digests: compared by them, neither its bytes nor its length can be told from
/// the time it takes.
struct Secret {
    header: HeaderName,
    accepted: Vec<Digest>,
}

/// Whether a peer is the front proxy, and what decided it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// It is in this range, the first that fits, and has shown what else is needed.
    Trusted(IpNet),
    /// It is in none of the ranges.
    Stranger,
    /// It has shown no certificate with one of the trusted names.
    NoName,
    /// It has not shown the secret, or not the right one.
    NoSecret(Shown),
}

impl Trust {
    /// Whether it is believed.
    pub fn is_trusted(self) -> bool {
        matches!(self, Self::Trusted(_))
    }
}

/// What a request shows of the secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// None is configured.
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
    ) -> Self {
        let secret = secret.map(|SecretSettings { header, accepted }| {
            let digest_of =
                |secret: &SecretString| digest(&SHA256, secret.expose_secret().as_bytes());
            Secret { header, accepted: accepted.iter().map(digest_of).collect() }
        });
        Self { ranges, names, secret }
    }

    pub(super) fn trust(&self, peer: &Peer, shown: Shown) -> Trust {
        // An IPv4 peer of a dual-stack socket is written as ::ffff:a.b.c.d.
        let address = peer.address.to_canonical();
        match self.ranges.iter().find(|range| range.contains(&address)) {
            None => Trust::Stranger,
            Some(_) if !self.names.is_empty() && !self.knows(peer) => Trust::NoName,
            Some(range) if matches!(shown, Shown::Unneeded | Shown::Right) => {
                Trust::Trusted(*range)
            }
            Some(_) => Trust::NoSecret(shown),
        }
    }

    fn knows(&self, peer: &Peer) -> bool {
        let shown = peer.names.as_deref();
        shown.is_some_and(|shown| self.names.iter().any(|name| shown.contain(name)))
    }

    /// Whether a peer has to show a name.
    pub(super) fn needs_name(&self) -> bool {
        !self.names.is_empty()
    }

    /// The header with the secret, if one is needed.
    pub(super) fn secret_header(&self) -> Option<&HeaderName> {
        self.secret.as_ref().map(|secret| &secret.header)
    }

    /// Removes the secret and says whether it was one. Shown twice it is none: one of the two
    /// may be the client's.
    pub(super) fn take_secret(&self, headers: &mut HeaderMap) -> Shown {
        let shown = self.shown(headers);
        if let Some(secret) = &self.secret {
            headers.remove(&secret.header);
        }
        shown
    }

    /// What is shown of the secret, which stays where it is.
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

impl Secret {
    fn is(&self, shown: &[u8]) -> bool {
        let shown = digest(&SHA256, shown);
        // All of them, whichever fits: `|` and not `||`.
        self.accepted.iter().fold(false, |is, accepted| {
            is | verify_slices_are_equal(accepted.as_ref(), shown.as_ref()).is_ok()
        })
    }
}

//! The peer of a connection: the program that has connected to the sidecar.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;

use crate::tls::CertificateNames;

/// Peer of a connection, as the connection shows it: the login proxy, a client, Prometheus. Headers of a
/// request change nothing here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Address and port, with the zone that an IPv6 address of the link has. The port is 0 for a peer that is
    /// only described, as by `explain`.
    pub socket: SocketAddr,
    /// Whether the connection is encrypted.
    pub encrypted: bool,
    /// Names in the certificate that the peer has shown and TLS has verified.
    pub names: Option<Arc<CertificateNames>>,
    /// Address and port of the sidecar to which the peer has connected, if known.
    pub local: Option<SocketAddr>,
    /// Whether the peer has an address of this machine or pod ([`is_own`]).
    pub is_here: bool,
}

/// Port of a socket that sends nothing (RFC 863).
const DISCARD: u16 = 9;

/// Whether a program of this machine or pod that connects to `address` has that address too. Not so for loopback, and
/// for an address that a program here must choose by itself to have.
pub fn is_own(address: IpAddr) -> bool {
    let address = address.to_canonical();
    let any = match address {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    // The system chooses the source as for a connection, and sends nothing. To bind the address would prove less: with
    // ip_nonlocal_bind, as machines of keepalived have, every address can be bound.
    let source = || {
        let socket = UdpSocket::bind((any, 0)).ok()?;
        socket.connect((address, DISCARD)).ok()?;
        socket.local_addr().ok()
    };
    let is_source = || source().is_some_and(|source| source.ip() == address);
    !address.is_loopback() && !address.is_unspecified() && is_source()
}

impl Peer {
    /// Makes a peer at the other end of a connection without TLS.
    pub fn at(address: IpAddr) -> Self {
        Self::of(SocketAddr::new(address, 0))
    }

    /// Makes the peer of a connection without TLS that comes from `socket`.
    pub fn of(socket: SocketAddr) -> Self {
        Self { socket, encrypted: false, names: None, local: None, is_here: false }
    }

    /// Returns the address of the peer.
    pub fn address(&self) -> IpAddr {
        self.socket.ip()
    }

    /// Returns the port of the sidecar to which the peer has connected, if known.
    pub fn local_port(&self) -> Option<u16> {
        self.local.map(|local| local.port())
    }

    /// Whether the peer has an address of this machine or pod, other than loopback: a program that connects by the
    /// machine's own address, as the proxy of a service mesh does. By a second address of the machine it connects from
    /// the first, as a rule, so that the address to which it has connected does not tell alone.
    pub fn has_own_address(&self) -> bool {
        let address = self.address().to_canonical();
        let local = self.local.map(|local| local.ip().to_canonical());
        (self.is_here || local == Some(address)) && !address.is_loopback()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_that_can_be_bound_is_not_yet_our_own() {
        // An address that every machine can bind, and that no connection comes from.
        let group = IpAddr::V4(Ipv4Addr::new(224, 0, 0, 1));
        UdpSocket::bind((group, 0)).expect("it can be bound");
        for other in ["224.0.0.1", "127.0.0.1", "::1", "::ffff:127.0.0.1", "0.0.0.0", "192.0.2.77"]
        {
            assert!(!is_own(other.parse().expect("an address")), "{other}");
        }
    }

    #[test]
    fn peer_of_this_machine_is_known_at_any_of_its_addresses() {
        let [first, second] = ["10.42.3.3", "10.42.9.9"].map(|it| it.parse().expect("an address"));
        let peer =
            |is_here| Peer { local: Some(SocketAddr::new(second, 80)), is_here, ..Peer::at(first) };
        assert!(peer(true).has_own_address());
        assert!(!peer(false).has_own_address());
        assert!(Peer { local: None, ..peer(true) }.has_own_address());
        let loopback = Peer { is_here: true, ..Peer::at(Ipv4Addr::LOCALHOST.into()) };
        assert!(!loopback.has_own_address());
    }
}

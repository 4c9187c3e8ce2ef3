//! The peer of a connection: the program that has connected to the sidecar.

use std::net::{IpAddr, SocketAddr};
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
}

impl Peer {
    /// Makes a peer at the other end of a connection without TLS.
    pub fn at(address: IpAddr) -> Self {
        Self::of(SocketAddr::new(address, 0))
    }

    /// Makes the peer of a connection without TLS that comes from `socket`.
    pub fn of(socket: SocketAddr) -> Self {
        Self { socket, encrypted: false, names: None, local: None }
    }

    /// Returns the address of the peer.
    pub fn address(&self) -> IpAddr {
        self.socket.ip()
    }

    /// Returns the port of the sidecar to which the peer has connected, if known.
    pub fn local_port(&self) -> Option<u16> {
        self.local.map(|local| local.port())
    }

    /// Whether the peer has the address to which it has connected, other than loopback: a program of this
    /// machine or pod that connects by the machine's own address, as the proxy of a service mesh does.
    pub fn has_own_address(&self) -> bool {
        let address = self.address().to_canonical();
        let local = self.local.map(|local| local.ip().to_canonical());
        local == Some(address) && !address.is_loopback()
    }
}

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
    /// Port of the sidecar to which the peer has connected, if known.
    pub local_port: Option<u16>,
}

impl Peer {
    /// Makes a peer at the other end of a connection without TLS.
    pub fn at(address: IpAddr) -> Self {
        Self::of(SocketAddr::new(address, 0))
    }

    /// Makes the peer of a connection without TLS that comes from `socket`.
    pub fn of(socket: SocketAddr) -> Self {
        Self { socket, encrypted: false, names: None, local_port: None }
    }

    /// Returns the address of the peer.
    pub fn address(&self) -> IpAddr {
        self.socket.ip()
    }
}

//! The peer of a connection: the program that has connected to the sidecar.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::tls::CertificateNames;

/// Peer of a connection, as the connection shows it: the login proxy, a client, Prometheus. Headers of a
/// request change nothing here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    pub address: IpAddr,
    /// Port of the peer; 0 for a peer that is only described, as by `explain`.
    pub port: u16,
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
        Self { address, port: 0, encrypted: false, names: None, local_port: None }
    }

    /// Returns address and port of the peer.
    pub fn socket(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.port)
    }
}

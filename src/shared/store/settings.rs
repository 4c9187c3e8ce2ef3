//! Settings of the connections to the store.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use ground::tls::Roots;
use secrecy::SecretString;

/// Place of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// One server, or the address of a load balancer or proxy that leads to the primary.
    Server(Address),
    /// A primary that the Sentinels elect.
    Sentinel { sentinels: Vec<Address>, primary: String },
    /// A cluster, by the addresses of some of its nodes. These tell the addresses of the others.
    Cluster(Vec<Address>),
}

/// Address of one server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// A host name or an IP address without brackets, and a port.
    Tcp { host: String, port: u16 },
    /// The path of a unix socket.
    Unix(PathBuf),
}

impl fmt::Display for Address {
    /// Writes the address as an operator would, IPv6 in brackets.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(formatter, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(formatter, "{host}:{port}"),
            Self::Unix(path) => write!(formatter, "{}", path.display()),
        }
    }
}

/// Settings of a [`Store`](super::Store).
#[derive(Clone, Debug)]
pub struct Settings {
    pub place: Place,
    /// Roots that vouch for the servers, Sentinels included; `None` for connections without TLS. A unix socket
    /// carries no TLS in either case.
    pub tls: Option<Roots>,
    /// Name of the ACL user; `None` for the user `default`.
    pub user: Option<String>,
    pub password: Option<SecretString>,
    pub sentinel_user: Option<String>,
    pub sentinel_password: Option<SecretString>,
    /// Number of the database; a cluster has database 0 only.
    pub database: u32,
    /// Longest time for which one mint may wait for the store.
    pub patience: Duration,
}

//! Users, passwords and roots with which connections are opened, read once from the settings.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use ground::tls::FileError;
use rustls::ClientConfig;
use secrecy::SecretString;

use super::settings::{Place, Settings};

/// Flaw of the settings, which the operator has to correct.
#[derive(Debug)]
pub enum StartError {
    /// The roots that vouch for the servers can't be read.
    Roots(FileError),
    /// No address is given.
    NoAddress,
    /// The settings name a cluster, and a database other than 0.
    DatabaseInCluster,
}

impl fmt::Display for StartError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Roots(_) => "the roots that vouch for the store can't be used",
            Self::NoAddress => "the store has no address: give one at least",
            Self::DatabaseInCluster => "a cluster has database 0 only: leave the database out",
        })
    }
}

impl Error for StartError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Roots(error) => Some(error),
            Self::NoAddress | Self::DatabaseInCluster => None,
        }
    }
}

/// User and password, for the servers of the store or for the Sentinels.
#[derive(Default)]
pub(super) struct Login {
    pub(super) user: Option<String>,
    pub(super) password: Option<SecretString>,
}

/// Settings of a new connection besides its address.
pub(super) struct Access {
    pub(super) tls: Option<Arc<ClientConfig>>,
    pub(super) server: Login,
    pub(super) sentinel: Login,
    pub(super) database: u32,
}

impl Access {
    /// Reads the roots, and checks that the settings fit each other.
    pub(super) fn new(settings: &Settings) -> Result<Self, StartError> {
        let addresses = match &settings.place {
            Place::Server(_) => 1,
            Place::Sentinel { sentinels, .. } => sentinels.len(),
            Place::Cluster(seeds) => seeds.len(),
        };
        if addresses == 0 {
            return Err(StartError::NoAddress);
        }
        if settings.database != 0 && matches!(settings.place, Place::Cluster(_)) {
            return Err(StartError::DatabaseInCluster);
        }
        let tls = settings.tls.as_ref().map(ground::tls::Roots::client_config).transpose();
        let login = |user: &Option<String>, password: &Option<SecretString>| Login {
            user: user.clone(),
            password: password.clone(),
        };
        Ok(Self {
            tls: tls.map_err(StartError::Roots)?.map(Arc::new),
            server: login(&settings.user, &settings.password),
            sentinel: login(&settings.sentinel_user, &settings.sentinel_password),
            database: settings.database,
        })
    }
}

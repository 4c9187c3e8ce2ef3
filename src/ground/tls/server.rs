//! TLS on the listener: the sidecar's certificate, and the client certificates that it accepts.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::pki_types::CertificateDer;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoClientAuth, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use tracing::warn;

use super::certificate::validity;
use super::material::{Contents, FileError, Material, Refreshed};
use super::provider;

/// Protocols that the listener offers, the preferred first.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Settings of TLS on the listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerSettings {
    /// File of the certificate and of the chain to its root, in PEM form.
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// File of the authorities that sign clients' certificates; if `None`, no client certificate is asked
    /// for.
    pub client_ca: Option<PathBuf>,
    pub client_certificate: ClientCertificate,
    /// Longest time of a handshake, with the wait for its first byte and for a turn.
    pub handshake_timeout: Duration,
    /// Most handshakes under way at the same time; more handshakes wait, within their timeout.
    pub max_handshakes: usize,
}

/// Rule for clients without a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientCertificate {
    Required,
    /// A client without a certificate is served as a peer without a name.
    Optional,
}

/// TLS on the listener, with the certificate in force. New content of the files replaces the certificate.
pub struct ServerTls {
    settings: ServerSettings,
    material: Material<Server>,
}

struct Server {
    config: Arc<ServerConfig>,
    valid_from: SystemTime,
    valid_to: SystemTime,
    client_ca_valid_to: Option<SystemTime>,
}

impl ServerTls {
    /// Reads the files. A certificate that is not valid now is taken all the same, with a warning: there is
    /// no better one, and a front that does not check it would be locked out for nothing.
    ///
    /// # Errors
    ///
    /// See [`FileError`].
    pub fn load(settings: ServerSettings) -> Result<Self, FileError> {
        let mut paths = vec![settings.certificate.clone(), settings.key.clone()];
        paths.extend(settings.client_ca.clone());
        let required = settings.client_certificate;
        let material = Material::load(paths, move |contents| Server::build(contents, required))?;
        let server = Self { settings, material };
        if let Err(error) = server.check_validity(&server.material.current()) {
            warn!(%error, "listen.tls: starting with a certificate that is not valid now");
        }
        Ok(server)
    }

    /// Returns the configuration for the next handshake. Open connections keep their configuration.
    pub fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.material.current().config)
    }

    /// Takes new files if they fit each other and the certificate is valid now. Returns the error of the same
    /// bad content once, or each time with `again`. A certificate that is not valid yet is taken when its
    /// time has come.
    ///
    /// # Errors
    ///
    /// See [`FileError`]; the certificate in force stays in force.
    pub fn refresh(&self, again: bool) -> Result<Refreshed, FileError> {
        self.material.refresh(again, |server| self.check_validity(server))
    }

    /// Returns the earliest time at which a certificate of the chain expires.
    pub fn valid_to(&self) -> SystemTime {
        self.material.current().valid_to
    }

    /// Returns the earliest time at which an authority of clients' certificates expires.
    pub fn client_ca_valid_to(&self) -> Option<SystemTime> {
        self.material.current().client_ca_valid_to
    }

    /// Returns the settings of this listener.
    pub fn settings(&self) -> &ServerSettings {
        &self.settings
    }

    fn check_validity(&self, server: &Server) -> Result<(), FileError> {
        let &Server { valid_from, valid_to, .. } = server;
        if (valid_from..valid_to).contains(&SystemTime::now()) {
            return Ok(());
        }
        Err(FileError::NotValid { path: self.settings.certificate.clone(), valid_from, valid_to })
    }
}

impl Server {
    fn build(contents: &Contents<'_>, required: ClientCertificate) -> Result<Self, FileError> {
        let (chain, key) = (contents.certificates(0)?, contents.key(1)?);
        let unusable = |index: usize| {
            let path = contents.path(index);
            move |source: rustls::Error| FileError::Unusable { path, source: source.into() }
        };
        let no_dates = || FileError::Missing { path: contents.path(0), what: "certificate" };
        let (valid_from, valid_to) = validity(&chain).ok_or_else(no_dates)?;
        let (verifier, client_ca_valid_to) = match contents.len() {
            3 => {
                let authorities = contents.certificates(2)?;
                let valid_to = validity(&authorities).map(|(_, to)| to);
                (client_verifier(contents, authorities, required)?, valid_to)
            }
            _ => (Arc::new(NoClientAuth) as Arc<dyn ClientCertVerifier>, None),
        };
        let builder = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(unusable(0))?
            .with_client_cert_verifier(verifier);
        let built = builder.with_single_cert(chain, key);
        let mut config = built.map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => {
                FileError::Mismatch { certificate: contents.path(0), key: contents.path(1) }
            }
            other => unusable(1)(other),
        })?;
        // Take the server's order of cipher suites: every suite is sound, but scanners ask for an order.
        config.ignore_client_order = true;
        config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
        Ok(Self { config: Arc::new(config), valid_from, valid_to, client_ca_valid_to })
    }
}

/// Makes a verifier that takes client certificates signed by one of `authorities`.
fn client_verifier(
    contents: &Contents<'_>,
    authorities: Vec<CertificateDer<'static>>,
    required: ClientCertificate,
) -> Result<Arc<dyn ClientCertVerifier>, FileError> {
    let path = || contents.path(2);
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        let unusable =
            |source: rustls::Error| FileError::Unusable { path: path(), source: source.into() };
        roots.add(authority).map_err(unusable)?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
    let builder = match required {
        ClientCertificate::Required => builder,
        ClientCertificate::Optional => builder.allow_unauthenticated(),
    };
    builder.build().map_err(|error| FileError::Unusable { path: path(), source: error.into() })
}

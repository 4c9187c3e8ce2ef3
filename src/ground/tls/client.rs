//! TLS to the app and for the sidecar's own calls: the roots that are trusted.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};

use super::material::{Contents, FileError, Material, Refreshed, read};
use super::provider;

/// Variables that name the system's roots, as in OpenSSL.
const CERT_FILE: &str = "SSL_CERT_FILE";
const CERT_DIR: &str = "SSL_CERT_DIR";

/// Certificate authorities that vouch for a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Roots {
    /// The system's roots, or the roots that are compiled in where an image has none.
    Auto,
    /// The system's roots (or `SSL_CERT_FILE`) and no others.
    System,
    /// Mozilla's roots, compiled in.
    Bundled,
    /// The roots in this file, and no others.
    File(PathBuf),
}

/// Settings of TLS with one server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientSettings {
    pub roots: Roots,
    /// Name that the server's certificate must carry.
    pub server_name: ServerName<'static>,
}

/// TLS with one server, with the roots in force. New content of the file replaces the roots.
pub struct ClientTls {
    server_name: ServerName<'static>,
    material: Material<Protocols>,
}

/// Two configurations that differ only in the protocol within TLS (RFC 7301).
struct Protocols {
    http1: Arc<ClientConfig>,
    http2: Arc<ClientConfig>,
}

impl ClientTls {
    /// Reads the roots.
    ///
    /// # Errors
    ///
    /// See [`FileError`].
    pub fn load(settings: &ClientSettings) -> Result<Self, FileError> {
        let roots = settings.roots.clone();
        let build = move |contents: &Contents<'_>| {
            let config = client_config(roots_of(&roots, contents)?);
            let speaking = |protocol: &[u8]| {
                let mut config = config.clone();
                config.alpn_protocols = vec![protocol.to_vec()];
                Arc::new(config)
            };
            Ok(Protocols { http1: speaking(b"http/1.1"), http2: speaking(b"h2") })
        };
        let material = Material::load(settings.roots.paths(), build)?;
        Ok(Self { server_name: settings.server_name.clone(), material })
    }

    /// Returns the configuration of a connection for HTTP/1.1.
    pub fn http1(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.material.current().http1)
    }

    /// Returns the configuration of a connection for HTTP/2, which the server may not offer.
    pub fn http2(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.material.current().http2)
    }

    /// Returns the name that the server's certificate must carry.
    pub fn server_name(&self) -> ServerName<'static> {
        self.server_name.clone()
    }

    /// Takes new roots, as [`super::ServerTls::refresh`] takes a new certificate.
    ///
    /// # Errors
    ///
    /// See [`FileError`]; the roots in force stay in force.
    pub fn refresh(&self, again: bool) -> Result<Refreshed, FileError> {
        self.material.refresh(again, |_| Ok(()))
    }
}

impl Roots {
    /// Makes a configuration that trusts these roots. The caller sets the protocols within TLS.
    ///
    /// # Errors
    ///
    /// See [`FileError`].
    pub fn client_config(&self) -> Result<ClientConfig, FileError> {
        Ok(client_config(self.store()?))
    }

    /// Loads the root certificates.
    pub(super) fn store(&self) -> Result<RootCertStore, FileError> {
        read(&self.paths(), |contents| roots_of(self, contents))
    }

    fn paths(&self) -> Vec<PathBuf> {
        match self {
            Self::File(path) => vec![path.clone()],
            Self::Auto | Self::System | Self::Bundled => Vec::new(),
        }
    }
}

fn client_config(roots: RootCertStore) -> ClientConfig {
    ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("the provider has cipher suites for these")
        .with_root_certificates(roots)
        .with_no_client_auth()
}

fn roots_of(roots: &Roots, contents: &Contents<'_>) -> Result<RootCertStore, FileError> {
    let mut store = RootCertStore::empty();
    match roots {
        Roots::Auto => {
            add_system(&mut store)?;
            if store.is_empty() {
                store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
            }
        }
        Roots::System => add_system(&mut store)?,
        Roots::Bundled => store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Roots::File(path) => add_file(&mut store, path, contents.certificates(0)?)?,
    }
    if store.is_empty() {
        return Err(FileError::NoRoots);
    }
    Ok(store)
}

/// Adds the system's roots, or those that the environment names in their place.
///
/// A file or folder that the environment names must be readable: it is the operator's choice, and without it
/// the sidecar would trust other roots than those the operator meant.
fn add_system(store: &mut RootCertStore) -> Result<(), FileError> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    if let Some(file) = set(CERT_FILE) {
        let paths = [PathBuf::from(file)];
        let certificates = read(&paths, |contents| contents.certificates(0));
        let named = |error| FileError::Named { variable: CERT_FILE, error: Box::new(error) };
        // Skip roots that rustls can't use: a bundle of a system may hold some.
        store.add_parsable_certificates(certificates.map_err(named)?);
        if set(CERT_DIR).is_none() {
            return Ok(());
        }
    }
    let native = rustls_native_certs::load_native_certs();
    store.add_parsable_certificates(native.certs);
    match set(CERT_DIR) {
        Some(folders) if store.is_empty() => {
            Err(FileError::NoneIn { variable: CERT_DIR, folders: folders.into() })
        }
        _ => Ok(()),
    }
}

fn add_file(
    store: &mut RootCertStore,
    path: &std::path::Path,
    certificates: Vec<CertificateDer<'static>>,
) -> Result<(), FileError> {
    for certificate in certificates {
        let unusable = |source: rustls::Error| FileError::Unusable {
            path: path.into(),
            source: source.into(),
        };
        store.add(certificate).map_err(unusable)?;
    }
    Ok(())
}

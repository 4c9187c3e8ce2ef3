//! Certificates of the tests' own, in memory and in files.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType,
    date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tempfile::TempDir;
use tokio::io::{self, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// Years in which a certificate is valid for as long as the tests run.
pub const VALID: (i32, i32) = (2020, 2100);
pub const EXPIRED: (i32, i32) = (2020, 2021);

/// An authority that signs certificates.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key.
pub struct Leaf {
    pub certificate: String,
    pub key: String,
    chain: Vec<CertificateDer<'static>>,
    der: Vec<u8>,
}

impl Authority {
    pub fn new() -> Self {
        Self::valid_to(VALID.1)
    }

    /// Makes an authority whose own certificate is valid up to this year.
    pub fn valid_to(year: i32) -> Self {
        let (params, key) = authority("root", year);
        Self(CertifiedIssuer::self_signed(params, key).expect("signed"))
    }

    /// Makes an authority whose certificate this authority has signed.
    pub fn intermediate(&self) -> Self {
        let (params, key) = authority("intermediate", VALID.1);
        Self(CertifiedIssuer::signed_by(params, key, &self.0).expect("signed"))
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// Issues a certificate for `names`; names with a scheme are URIs.
    pub fn issue(&self, names: &[&str], years: (i32, i32)) -> Leaf {
        issue(names, years, Some(self))
    }

    /// Issues a certificate that is valid for `left` from now on.
    pub fn issue_for(&self, names: &[&str], left: Duration) -> Leaf {
        let mut params = params(names);
        params.not_after = (SystemTime::now() + left).into();
        sign(&params, Some(self))
    }

    /// Issues a certificate that is valid only after `wait`.
    pub fn issue_after(&self, names: &[&str], wait: Duration) -> Leaf {
        let mut params = params(names);
        params.not_before = (SystemTime::now() + wait).into();
        sign(&params, Some(self))
    }

    /// Returns the settings of a client that trusts this authority only.
    pub fn client(&self, certificate: Option<&Leaf>, protocols: &[&str]) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).expect("a certificate");
        let config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots);
        let mut config = match certificate {
            None => config.with_no_client_auth(),
            Some(leaf) => config
                .with_client_auth_cert(leaf.chain.clone(), leaf.private_key())
                .expect("a certificate and its key"),
        };
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config)
    }
}

impl Leaf {
    /// Makes a certificate that no authority has signed.
    pub fn self_signed(names: &[&str], years: (i32, i32)) -> Self {
        issue(names, years, None)
    }

    pub fn server(&self, protocols: &[&str]) -> Arc<ServerConfig> {
        let config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth();
        let mut config = config
            .with_single_cert(self.chain.clone(), self.private_key())
            .expect("a certificate and its key");
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config)
    }

    fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::try_from(self.der.clone()).expect("a key")
    }
}

fn authority(name: &str, year: i32) -> (CertificateParams, KeyPair) {
    let mut params = params(&[]);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_after = date_time_ymd(year, 1, 1);
    (params, KeyPair::generate().expect("a key"))
}

fn issue(names: &[&str], years: (i32, i32), issuer: Option<&Authority>) -> Leaf {
    let mut params = params(names);
    params.not_before = date_time_ymd(years.0, 1, 1);
    params.not_after = date_time_ymd(years.1, 1, 1);
    sign(&params, issuer)
}

fn params(names: &[&str]) -> CertificateParams {
    let (uris, hosts): (Vec<&str>, Vec<&str>) = names.iter().partition(|name| name.contains("://"));
    let hosts: Vec<String> = hosts.into_iter().map(str::to_owned).collect();
    let mut params = CertificateParams::new(hosts).expect("names");
    for uri in uris {
        params.subject_alt_names.push(SanType::URI(uri.try_into().expect("ASCII")));
    }
    params.not_before = date_time_ymd(VALID.0, 1, 1);
    params.not_after = date_time_ymd(VALID.1, 1, 1);
    params
}

fn sign(params: &CertificateParams, issuer: Option<&Authority>) -> Leaf {
    let key = KeyPair::generate().expect("a key");
    let certificate = match issuer {
        Some(issuer) => params.signed_by(&key, &issuer.0),
        None => params.self_signed(&key),
    };
    let certificate = certificate.expect("signed");
    Leaf {
        certificate: certificate.pem(),
        key: key.serialize_pem(),
        chain: vec![certificate.der().clone()],
        der: key.serialize_der(),
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// A folder of certificates, as a mounted Secret is.
pub struct Folder(TempDir);

impl Folder {
    pub fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    /// Returns a path as plain text, so that a configuration can hold the path.
    pub fn path(&self, name: &str) -> String {
        self.0.path().join(name).into_os_string().into_string().expect("a plain path")
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.path(name);
        std::fs::write(&path, content).expect("written");
        path
    }

    /// Writes `tls.crt` and `tls.key`, as in a Secret of type kubernetes.io/tls.
    pub fn write_pair(&self, leaf: &Leaf) {
        self.write("tls.crt", &leaf.certificate);
        self.write("tls.key", &leaf.key);
    }

    /// Returns the table `listen.tls` for `tls.crt` and `tls.key`.
    pub fn toml(&self) -> String {
        format!(
            "[listen.tls]\ncertificate_file = {:?}\nkey_file = {:?}\n",
            self.path("tls.crt"),
            self.path("tls.key")
        )
    }
}

/// Speaks TLS with `address` as `localhost`.
pub async fn connect(
    address: std::net::SocketAddr,
    config: &Arc<ClientConfig>,
) -> io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from("localhost").expect("a name");
    TlsConnector::from(Arc::clone(config)).connect(name, stream).await
}

/// Terminates TLS in front of `behind`, and returns the address at which it does so.
pub async fn terminate(
    behind: std::net::SocketAddr,
    config: Arc<ServerConfig>,
) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let acceptor = TlsAcceptor::from(config);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                // A client that rejects the certificate closes the connection; the test sees this at the
                // client.
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let mut app = TcpStream::connect(behind).await.expect("it listens");
                let _ = copy_bidirectional(&mut stream, &mut app).await;
            });
        }
    });
    address
}

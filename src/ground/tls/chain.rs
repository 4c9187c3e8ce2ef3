//! View that a client has of the listener's certificate and the rest of its file: for `doctor`.
//!
//! The sidecar itself serves any chain that its file holds. Only a client finds out whether the chain leads
//! to a root, and then it is too late.

use std::sync::Arc;
use std::time::SystemTime;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, Error, RootCertStore};
use x509_parser::prelude::{GeneralName, X509Certificate, parse_x509_certificate};

use super::certificate::{one_validity, validity};
use super::client::Roots;
use super::material::{FileError, read};
use super::{ServerSettings, provider};

/// Facts about one certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFacts {
    /// Host names, addresses and URIs, in the order of the certificate.
    pub names: Vec<String>,
    /// Distinguished name of the issuer.
    pub issuer: String,
    pub valid_to: SystemTime,
}

/// Facts about a file with a certificate and its chain.
#[derive(Clone, Debug)]
pub struct ChainFacts {
    pub leaf: CertificateFacts,
    /// Certificates in the file, the leaf included.
    pub length: usize,
    pub valid_from: SystemTime,
    /// Earliest time at which a certificate in the file expires.
    pub valid_to: SystemTime,
    pub order: Order,
    pub anchor: Anchor,
}

/// Order of the certificates in a file. In the right order, each certificate is followed by its issuer, as
/// RFC 5246 section 7.4.2 demands and RFC 8446 section 4.4.2 no longer does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    Right,
    /// The certificates belong together, but stand in another order.
    Wrong,
    /// A certificate after the leaf is the issuer of no certificate in the file.
    Unrelated,
}

/// End of a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Anchor {
    /// A root of this system, so that any client can follow the chain.
    System,
    /// The root in the same file, which clients have to know.
    Own,
    /// The certificate has signed itself.
    SelfSigned,
    /// An issuer that is neither in the file nor among the system's roots: a private root that clients know,
    /// or an intermediate certificate that is missing.
    Unknown { issuer: String },
    /// No end: the chain is broken, for this reason.
    Broken { reason: String },
}

impl CertificateFacts {
    /// Reads the facts of a certificate; `None` if it can't be read.
    pub fn of(certificate: &[u8]) -> Option<Self> {
        let (_, parsed) = parse_x509_certificate(certificate).ok()?;
        let (_, valid_to) = one_validity(&parsed);
        Some(Self { names: names(&parsed), issuer: parsed.issuer().to_string(), valid_to })
    }
}

impl ChainFacts {
    /// Reads the certificate file of `settings`, which [`super::ServerTls::load`] can use.
    ///
    /// # Errors
    ///
    /// See [`FileError`].
    pub fn read(settings: &ServerSettings) -> Result<Self, FileError> {
        let path = &settings.certificate;
        read(std::slice::from_ref(path), |contents| {
            let missing = || FileError::Missing { path: path.clone(), what: "certificate" };
            Self::of(&contents.certificates(0)?).ok_or_else(missing)
        })
    }

    fn of(chain: &[CertificateDer<'_>]) -> Option<Self> {
        let parsed: Option<Vec<_>> =
            chain.iter().map(|der| Some(parse_x509_certificate(der).ok()?.1)).collect();
        let parsed = parsed?;
        let (valid_from, valid_to) = validity(chain)?;
        let leaf = CertificateFacts::of(chain.first()?)?;
        let anchor = anchor(chain, &parsed, &leaf, valid_from);
        Some(Self {
            leaf,
            length: chain.len(),
            valid_from,
            valid_to,
            order: order(&parsed),
            anchor,
        })
    }
}

fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(alternatives)) = certificate.subject_alternative_name() else { return Vec::new() };
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::URI(uri) => Some((*uri).to_owned()),
        GeneralName::IPAddress(bytes) => {
            let four = <[u8; 4]>::try_from(*bytes).map(std::net::IpAddr::from);
            let address =
                four.or_else(|_| <[u8; 16]>::try_from(*bytes).map(std::net::IpAddr::from));
            Some(address.ok()?.to_string())
        }
        _ => None,
    };
    alternatives.value.general_names.iter().filter_map(name).collect()
}

fn is_self_signed(certificate: &X509Certificate<'_>) -> bool {
    certificate.issuer().as_raw() == certificate.subject().as_raw()
}

fn order(chain: &[X509Certificate<'_>]) -> Order {
    let signs = |issuer: &X509Certificate<'_>, subject: &X509Certificate<'_>| {
        issuer.subject().as_raw() == subject.issuer().as_raw()
    };
    if chain.windows(2).all(|pair| signs(&pair[1], &pair[0])) {
        return Order::Right;
    }
    let used = |issuer: &X509Certificate<'_>| {
        chain.iter().any(|other| other.raw_serial() != issuer.raw_serial() && signs(issuer, other))
    };
    if chain.iter().skip(1).all(used) { Order::Wrong } else { Order::Unrelated }
}

fn anchor(
    chain: &[CertificateDer<'_>],
    parsed: &[X509Certificate<'_>],
    leaf: &CertificateFacts,
    valid_from: SystemTime,
) -> Anchor {
    if chain.len() == 1 && is_self_signed(&parsed[0]) {
        return Anchor::SelfSigned;
    }
    let since = valid_from.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    // Verify for the time at which all are valid: another check judges whether they are valid now.
    let then = UnixTime::since_unix_epoch(since);
    let system = Roots::System.store().unwrap_or_else(|_| RootCertStore::empty());
    if follows(chain, leaf, system, then) == Ok(()) {
        return Anchor::System;
    }
    let mut own = RootCertStore::empty();
    let roots = chain.iter().zip(parsed).filter(|(_, parsed)| is_self_signed(parsed));
    own.add_parsable_certificates(roots.map(|(der, _)| der.clone().into_owned()));
    match follows(chain, leaf, own, then) {
        Ok(()) => Anchor::Own,
        Err(Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {
            // Name the first issuer that is not in the file.
            let here = |issuer: &[u8]| parsed.iter().any(|one| one.subject().as_raw() == issuer);
            let missing = parsed.iter().find(|one| !here(one.issuer().as_raw()));
            let issuer = missing.unwrap_or(&parsed[0]).issuer().to_string();
            Anchor::Unknown { issuer }
        }
        Err(error) => Anchor::Broken { reason: error.to_string() },
    }
}

/// Follows the chain to one of `roots`, as a client does.
fn follows(
    chain: &[CertificateDer<'_>],
    leaf: &CertificateFacts,
    roots: RootCertStore,
    now: UnixTime,
) -> Result<(), Error> {
    let unknown = || Error::InvalidCertificate(CertificateError::UnknownIssuer);
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider());
    // An error means that there are no roots.
    let verifier = verifier.build().map_err(|_| unknown())?;
    let any_label = |name: &String| name.replacen('*', "x", 1);
    let name = leaf.names.iter().map(any_label).find_map(|name| ServerName::try_from(name).ok());
    let name = name.unwrap_or_else(|| ServerName::try_from("nameless.invalid").expect("a name"));
    match verifier.verify_server_cert(&chain[0], &chain[1..], &name, &[], now) {
        // A leaf without a host name does not break its chain: `leaf.names` shows that there is no name.
        Ok(_)
        | Err(Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        )) => Ok(()),
        Err(error) => Err(error),
    }
}

//! Names and dates of a certificate. rustls verifies certificates, but does not return their names and dates.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{GeneralName, X509Certificate, parse_x509_certificate};

/// The names in a client's certificate: its subject alternative names that are host names or URIs,
/// such as a SPIFFE id. The common name is none (RFC 9525 section 2).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CertificateNames {
    dns: Vec<Box<str>>,
    uris: Vec<Box<str>>,
}

/// Kind of name in a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameKind {
    Dns,
    Uri,
}

/// Separator by which a URI is told from a host name.
const AFTER_SCHEME: &str = "://";

fn is_uri(name: &str) -> bool {
    name.contains(AFTER_SCHEME)
}

/// Returns the kind of name that `text` is; `None` if it is neither a host name without a wildcard nor a URI.
pub fn name_kind(text: &str) -> Option<NameKind> {
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) || text.len() > 2048 {
        return None;
    }
    if let Some((scheme, rest)) = text.split_once(AFTER_SCHEME) {
        let alphabetic = !scheme.is_empty() && scheme.bytes().all(|byte| byte.is_ascii_lowercase());
        return (alphabetic && !rest.is_empty()).then_some(NameKind::Uri);
    }
    let label = |label: &str| {
        let letters = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        !label.is_empty() && label.len() <= 63 && letters
    };
    (text.len() <= 253 && text.split('.').all(label)).then_some(NameKind::Dns)
}

impl CertificateNames {
    /// Reads the names of a certificate that rustls has verified. Returns no names if it can't be read.
    pub fn of(certificate: &CertificateDer<'_>) -> Self {
        let mut names = Self::default();
        let Ok((_, certificate)) = parse_x509_certificate(certificate) else { return names };
        let Ok(Some(alternatives)) = certificate.subject_alternative_name() else { return names };
        for name in &alternatives.value.general_names {
            match name {
                GeneralName::DNSName(name) => names.dns.push((*name).into()),
                GeneralName::URI(uri) => names.uris.push((*uri).into()),
                _ => {}
            }
        }
        names
    }

    /// Whether the certificate carries `name`. Host names in any case (RFC 5280 section 7.2), URIs
    /// byte for byte. A wildcard in a certificate stands for itself only.
    pub fn contain(&self, name: &str) -> bool {
        if is_uri(name) {
            self.uris.iter().any(|uri| **uri == *name)
        } else {
            self.dns.iter().any(|dns| dns.eq_ignore_ascii_case(name))
        }
    }

    /// Makes up names, for a test or an explanation.
    pub fn from_names<'n>(names: impl IntoIterator<Item = &'n str>) -> Self {
        let (uris, dns) = names.into_iter().partition::<Vec<_>, _>(|name| is_uri(name));
        let owned = |names: Vec<&str>| names.into_iter().map(Box::from).collect();
        Self { dns: owned(dns), uris: owned(uris) }
    }
}

/// Returns the time from which and the time up to which all of `chain` is valid; `None` if one of its
/// certificates can't be read.
pub(super) fn validity(chain: &[CertificateDer<'_>]) -> Option<(SystemTime, SystemTime)> {
    let mut valid: Option<(SystemTime, SystemTime)> = None;
    for certificate in chain {
        let (_, certificate) = parse_x509_certificate(certificate).ok()?;
        let (from, to) = one_validity(&certificate);
        let (earliest, latest) = valid.unwrap_or((from, to));
        valid = Some((from.max(earliest), to.min(latest)));
    }
    valid
}

/// Returns the time from which and the time up to which one certificate is valid.
pub(super) fn one_validity(certificate: &X509Certificate<'_>) -> (SystemTime, SystemTime) {
    let time = |timestamp: i64| {
        UNIX_EPOCH + Duration::from_secs(u64::try_from(timestamp).unwrap_or_default())
    };
    let validity = certificate.validity();
    (time(validity.not_before.timestamp()), time(validity.not_after.timestamp()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_host_a_uri_or_none() {
        for (text, kind) in [
            ("oauth2-proxy", Some(NameKind::Dns)),
            ("oauth2-proxy.auth.svc.cluster.local", Some(NameKind::Dns)),
            ("spiffe://cluster.local/ns/auth/sa/oauth2-proxy", Some(NameKind::Uri)),
            ("", None),
            ("*.example.com", None),
            ("a..b", None),
            ("CN=oauth2-proxy", None),
            ("spiffe://", None),
            ("://x", None),
            ("two words", None),
        ] {
            assert_eq!(name_kind(text), kind, "{text:?}");
        }
    }

    #[test]
    fn names_are_compared_by_their_kind() {
        let names = CertificateNames::from_names(["Proxy.Auth.svc", "spiffe://a/b", "*.wild"]);
        for name in ["proxy.auth.svc", "PROXY.auth.SVC", "spiffe://a/b"] {
            assert!(names.contain(name), "{name}");
        }
        for name in ["proxy.auth", "auth.svc", "spiffe://A/b", "spiffe://a/b/c", "x.wild", ""] {
            assert!(!names.contain(name), "{name}");
        }
    }

    #[test]
    fn names_and_dates_are_read_from_a_certificate() {
        let names = ["front.auth.svc".to_owned(), "10.0.0.7".to_owned()];
        let mut parameters = rcgen::CertificateParams::new(names).expect("names");
        let uri = "spiffe://cluster.local/ns/auth/sa/front".try_into().expect("ASCII");
        parameters.subject_alt_names.push(rcgen::SanType::URI(uri));
        parameters.distinguished_name.push(rcgen::DnType::CommonName, "common.name");
        parameters.not_before = rcgen::date_time_ymd(2020, 1, 1);
        parameters.not_after = rcgen::date_time_ymd(2021, 1, 1);
        let key = rcgen::KeyPair::generate().expect("a key");
        let certificate = parameters.self_signed(&key).expect("a certificate");
        let names = CertificateNames::of(certificate.der());
        assert!(names.contain("front.auth.svc"));
        assert!(names.contain("spiffe://cluster.local/ns/auth/sa/front"));
        for name in ["common.name", "10.0.0.7", "auth.svc"] {
            assert!(!names.contain(name), "{name}");
        }
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        let valid = validity(&[certificate.der().clone()]);
        assert_eq!(valid, Some((at(1_577_836_800), at(1_609_459_200))));
        assert_eq!(
            CertificateNames::of(&CertificateDer::from(&b"junk"[..])),
            CertificateNames::default()
        );
        assert_eq!(validity(&[CertificateDer::from(&b"junk"[..])]), None);
    }
}

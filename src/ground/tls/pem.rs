//! PEM as editors, shells and consoles leave it: with a byte order mark, indented, with comments.
//!
//! Each certificate in a file is read, or the file is refused. rustls's reader alone would not do: it skips a
//! section with an unknown label and a line that does not begin with dashes, so that a bundle would lose a
//! certificate in silence.

use std::fmt;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use secrecy::zeroize::Zeroizing;

/// Invisible characters that may surround a line, in UTF-8: byte order mark, no-break space, zero-width
/// space.
const INVISIBLE: [&[u8]; 3] = [b"\xef\xbb\xbf", b"\xc2\xa0", b"\xe2\x80\x8b"];

/// Hyphen, and the characters that editors put in its place, in UTF-8: en dash, em dash, minus.
const DASHES: [&[u8]; 4] = [b"-", b"\xe2\x80\x93", b"\xe2\x80\x94", b"\xe2\x88\x92"];

/// Most characters of a label that a message repeats.
const MAX_LABEL: usize = 40;

/// Reason why no certificate, or no key, can be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PemError {
    /// No certificate or key is there, or one is cut off.
    Missing,
    /// A section that holds certificates in another form, by its label.
    OtherForm(String),
    /// A certificate begins on this line, counted from 1, but its first line breaks the form of PEM.
    Damaged(usize),
    /// The key is encrypted with a passphrase.
    Encrypted,
}

/// Kind of section that a line begins.
enum Begins {
    Certificate,
    /// A certificate under its older label, `X509 CERTIFICATE`.
    OldCertificate,
    OtherForm(String),
    Damaged,
}

/// Reads all certificates in `content`, at least one.
pub(super) fn certificates(content: &[u8]) -> Result<Vec<CertificateDer<'static>>, PemError> {
    let mut text = Vec::with_capacity(content.len() + 1);
    let mut begun = 0;
    for (index, line) in lines(content).enumerate() {
        match begins(line) {
            Some(Begins::OtherForm(label)) => return Err(PemError::OtherForm(label)),
            Some(Begins::Damaged) => return Err(PemError::Damaged(index + 1)),
            Some(Begins::Certificate) => begun += 1,
            Some(Begins::OldCertificate) => {
                begun += 1;
                text.extend_from_slice(b"-----BEGIN CERTIFICATE-----\n");
                continue;
            }
            None => {}
        }
        let is_old_end = line == b"-----END X509 CERTIFICATE-----";
        text.extend_from_slice(if is_old_end { b"-----END CERTIFICATE-----" } else { line });
        text.push(b'\n');
    }
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    read.ok().filter(|read| !read.is_empty() && read.len() == begun).ok_or(PemError::Missing)
}

/// Reads the first private key in `content`.
pub(super) fn key(content: &[u8]) -> Result<PrivateKeyDer<'static>, PemError> {
    let mut text = Zeroizing::new(Vec::with_capacity(content.len() + 1));
    for line in lines(content) {
        text.extend_from_slice(line);
        text.push(b'\n');
    }
    PrivateKeyDer::from_pem_slice(&text).map_err(|_| {
        let encrypted = |line: &[u8]| {
            line == b"-----BEGIN ENCRYPTED PRIVATE KEY-----" || line == b"Proc-Type: 4,ENCRYPTED"
        };
        if lines(content).any(encrypted) { PemError::Encrypted } else { PemError::Missing }
    })
}

/// Lines of `content`, without spaces and invisible characters around each line.
fn lines(content: &[u8]) -> impl Iterator<Item = &[u8]> {
    let newline = if content.contains(&b'\n') { b'\n' } else { b'\r' };
    let content = content.strip_suffix(&[newline]).unwrap_or(content);
    content.split(move |byte| *byte == newline).map(|line| {
        let mut line = line.trim_ascii();
        while let Some(rest) = INVISIBLE
            .iter()
            .find_map(|unseen| line.strip_prefix(*unseen).or_else(|| line.strip_suffix(*unseen)))
        {
            line = rest.trim_ascii();
        }
        line
    })
}

/// Kind of section that `line` begins. `None` for a section without certificates, a comment, and any other
/// line.
fn begins(line: &[u8]) -> Option<Begins> {
    if line.starts_with(b"#") || line.starts_with(b";") {
        return None;
    }
    let upper = line.to_ascii_uppercase();
    let at = upper.windows(b"BEGIN".len()).position(|window| window == b"BEGIN")?;
    let before = upper[..at].trim_ascii_end();
    if !DASHES.iter().any(|dash| before.ends_with(dash)) {
        return None;
    }
    let rest = upper[at + b"BEGIN".len()..].trim_ascii_start();
    let end = (0..rest.len()).find(|at| DASHES.iter().any(|dash| rest[*at..].starts_with(dash)));
    let label = rest[..end.unwrap_or(rest.len())].trim_ascii_end();
    let holds = |word: &[u8]| label.windows(word.len()).any(|window| window == word);
    if holds(b"REQUEST") || !(holds(b"CERTIFICATE") || holds(b"PKCS") || label == b"CMS") {
        return None;
    }
    Some(match line {
        b"-----BEGIN CERTIFICATE-----" => Begins::Certificate,
        b"-----BEGIN X509 CERTIFICATE-----" => Begins::OldCertificate,
        _ if label == b"CERTIFICATE" || label == b"X509 CERTIFICATE" => Begins::Damaged,
        _ => Begins::OtherForm(shown(label)),
    })
}

/// Cleans a label for a message.
fn shown(label: &[u8]) -> String {
    let plain = label.iter().filter(|byte| byte.is_ascii_graphic() || **byte == b' ');
    plain.take(MAX_LABEL).map(|byte| char::from(*byte)).collect()
}

/// Writes the end of a sentence that begins with the file's name.
impl fmt::Display for PemError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => {
                formatter.write_str("has no whole certificate or key in PEM form in it")
            }
            Self::OtherForm(label) => write!(
                formatter,
                "has a section BEGIN {label}, whose certificates are not read: convert it to BEGIN \
                 CERTIFICATE (openssl x509 -in OLD -out NEW; for PKCS7, openssl pkcs7 -print_certs)"
            ),
            Self::Damaged(line) => write!(
                formatter,
                "begins a certificate on line {line}, but not as PEM has it: -----BEGIN \
                 CERTIFICATE----- has to stand alone on its line"
            ),
            Self::Encrypted => formatter.write_str(
                "holds a key that is encrypted with a passphrase, which the sidecar can't ask for: \
                 decrypt it (openssl pkey -in OLD -out NEW)",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two certificates as PEM.
    fn two() -> [String; 2] {
        [(), ()].map(|()| {
            let key = rcgen::KeyPair::generate().expect("a key");
            let parameters = rcgen::CertificateParams::new(["a".to_owned()]).expect("names");
            parameters.self_signed(&key).expect("a certificate").pem()
        })
    }

    #[test]
    fn each_certificate_is_read_with_any_text_around() {
        let [one, other] = two();
        let indented = other.replace('\n', "\n  ");
        for (what, text) in [
            ("as written", format!("{one}{other}")),
            ("a byte order mark", format!("\u{feff}{one}{other}")),
            ("a second mark, of a second file", format!("\u{feff}{one}\u{feff}{other}")),
            ("an indent", format!("{one}  {indented}")),
            ("a tab, and a space that does not break", format!("\t{one}\u{a0}{other}")),
            ("lines of Windows", format!("{one}{other}").replace('\n', "\r\n")),
            ("lines of an old Mac", format!("{one}{other}").replace('\n', "\r")),
            ("a label of old", format!("{one}{}", other.replace("CERT", "X509 CERT"))),
            ("no newline at the end", format!("{one}{}", other.trim_end())),
            ("attributes", format!("Bag Attributes\n  friendlyName: a\n{one}\n# b\n{other}")),
        ] {
            let read =
                certificates(text.as_bytes()).unwrap_or_else(|fault| panic!("{what}: {fault}"));
            assert_eq!(read.len(), 2, "{what}");
        }
    }

    #[test]
    fn a_certificate_that_is_not_read_is_refused() {
        let [one, other] = two();
        let damaged = PemError::Damaged(one.lines().count() + 1);
        let of = |from: &str, to: &str| format!("{one}{}", other.replace(from, to));
        for (what, text, fault) in [
            ("OpenSSL's own form", of("CERT", "TRUSTED CERT"), None),
            ("PKCS #7", of("CERTIFICATE", "PKCS7"), None),
            ("four dashes", of("-----BEGIN", "----BEGIN"), Some(&damaged)),
            ("typographic dashes", of("-----BEGIN", "\u{2014}\u{2014}BEGIN"), Some(&damaged)),
            ("lower case", of("BEGIN CERTIFICATE", "begin certificate"), Some(&damaged)),
            ("all on one line", format!("{one}{}", other.replace('\n', " ")), Some(&damaged)),
            (
                "written out newlines",
                format!("{one}{}", other.replace('\n', "\\n")),
                Some(&damaged),
            ),
            ("cut off", format!("{one}{}", &other[..other.len() / 2]), Some(&PemError::Missing)),
            ("no end", of("-----END CERTIFICATE-----", ""), Some(&PemError::Missing)),
            ("nothing", String::new(), Some(&PemError::Missing)),
        ] {
            let refused = certificates(text.as_bytes()).expect_err(what);
            match fault {
                Some(fault) => assert_eq!(&refused, fault, "{what}"),
                None => assert!(matches!(refused, PemError::OtherForm(_)), "{what}: {refused:?}"),
            }
        }
    }

    #[test]
    fn key_is_read_behind_a_mark_and_an_encrypted_key_is_named() {
        let pem = rcgen::KeyPair::generate().expect("a key").serialize_pem();
        for text in [pem.clone(), format!("\u{feff}{pem}"), pem.replace('\n', "\n  ")] {
            key(text.as_bytes()).unwrap_or_else(|fault| panic!("{fault}"));
        }
        let encrypted = pem.replace("PRIVATE", "ENCRYPTED PRIVATE");
        assert_eq!(key(encrypted.as_bytes()), Err(PemError::Encrypted));
        assert_eq!(key(b"-----BEGIN CERTIFICATE-----"), Err(PemError::Missing));
    }
}

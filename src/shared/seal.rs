//! Names and seals: keyed names in place of users, and encryption that binds content to its place in the store.
//!
//! All keys are derived from the operator's seal key (HKDF, RFC 5869). A name is a keyed hash (HMAC-SHA-256, RFC
//! 2104), so the store learns no user. Content is sealed by AES-256-GCM (NIST SP 800-38D) with its kind and its name
//! as additional data, so content in the place of other content does not open. Nonces are random: one key may seal
//! 2^32 times. That is enough for over a year of a hundred seals a second, or over ten years of ten a second, as a
//! million users need.

use std::error::Error;
use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use aws_lc_rs::hmac::{HMAC_SHA256, Key, sign};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Bytes of a key in the key file, before base64.
const KEY_BYTES: usize = 32;

/// Most keys in the key file.
const MAX_KEYS: usize = 2;

/// Bytes of a name: enough that no two of a trillion requests share a name.
const NAME_BYTES: usize = 16;

/// Bytes of the id, at the front of sealed content, of the key that opens it.
const KEY_ID_BYTES: usize = 4;

/// Bytes of sealed content beside the content: key id, nonce, tag.
const OVERHEAD: usize = KEY_ID_BYTES + NONCE_LEN + 16;

/// Name of an entry or a mark in the store: a keyed hash.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name([u8; NAME_BYTES]);

impl Name {
    /// Makes a name of its bytes.
    pub fn new(bytes: [u8; NAME_BYTES]) -> Self {
        Self(bytes)
    }

    /// Returns the bytes.
    pub fn bytes(&self) -> &[u8; NAME_BYTES] {
        &self.0
    }
}

/// Writes the name in hexadecimal, as it stands in the store.
impl fmt::Display for Name {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// Kind of sealed content. Content of one kind does not open as another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A token.
    Entry = 1,
    /// The mark of a forget.
    Mark = 2,
    /// An event of the stream.
    Event = 3,
    /// A call that was carried out.
    Call = 4,
}

/// Keys for names and seals. The first key seals; each key opens.
pub struct SealKeys {
    keys: Vec<Derived>,
}

/// Keys that are derived from one seal key of the operator.
struct Derived {
    id: [u8; KEY_ID_BYTES],
    names: Key,
    seal: RandomizedNonceKey,
}

/// Flaw of the seal keys that the operator has given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyError {
    Empty,
    TooMany,
    /// A line is no base64 of 32 bytes.
    Form {
        line: usize,
    },
    /// Both keys are the same.
    Twice,
    /// All bytes of a key are zero: a placeholder, and no secret.
    Zero,
}

impl fmt::Display for KeyError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => formatter.write_str("it has no key"),
            Self::TooMany => formatter.write_str("it has more than two keys"),
            Self::Form { line } => write!(formatter, "line {line} is no base64 of 32 bytes"),
            Self::Twice => formatter.write_str("it has the same key twice"),
            Self::Zero => formatter.write_str("it has a key whose bytes are all zero"),
        }
    }
}

impl Error for KeyError {}

impl SealKeys {
    /// Reads one or two keys, each on a line, in base64 (RFC 4648 section 4). Empty lines do not count.
    ///
    /// # Errors
    ///
    /// See [`KeyError`].
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let lines = text.lines().enumerate().map(|(at, line)| (at + 1, line.trim()));
        let lines: Vec<_> = lines.filter(|(_, line)| !line.is_empty()).collect();
        if lines.is_empty() {
            return Err(KeyError::Empty);
        }
        if lines.len() > MAX_KEYS {
            return Err(KeyError::TooMany);
        }
        let read = |(line, text): (usize, &str)| {
            let bytes = STANDARD.decode(text).ok().filter(|bytes| bytes.len() == KEY_BYTES);
            bytes.ok_or(KeyError::Form { line })
        };
        let keys = lines.into_iter().map(read).collect::<Result<Vec<_>, _>>()?;
        if keys.iter().any(|key| key.iter().all(|byte| *byte == 0)) {
            return Err(KeyError::Zero);
        }
        if let [one, other] = &keys[..]
            && one == other
        {
            return Err(KeyError::Twice);
        }
        Ok(Self { keys: keys.iter().map(|key| Derived::new(key)).collect() })
    }

    /// Returns the names of `content`, one by each key. Content is written under the first name.
    pub fn names(&self, kind: Kind, content: &[u8]) -> Vec<Name> {
        self.keys.iter().map(|key| key.name(kind, content)).collect()
    }

    /// Returns the name of `content` by the key that seals.
    pub fn name(&self, kind: Kind, content: &[u8]) -> Name {
        self.keys[0].name(kind, content)
    }

    /// Returns a keyed hash of `secret`. It shows whether two replicas have the same secret, and nothing else about
    /// it.
    pub fn fingerprints(&self, secret: &[u8]) -> Vec<[u8; 8]> {
        let hashes = self.keys.iter().map(|key| sign(&key.names, &[b"\0", secret].concat()));
        hashes.map(|hash| *hash.as_ref().first_chunk().expect("a hash has 32 bytes")).collect()
    }

    /// Seals `content` for the place `name`.
    pub fn seal(&self, kind: Kind, name: &[u8], content: Vec<u8>) -> Vec<u8> {
        let Derived { id, seal, .. } = &self.keys[0];
        let mut sealed = content;
        let aad = Aad::from(additional(kind, name));
        let nonce = seal.seal_in_place_append_tag(aad, &mut sealed);
        let nonce = nonce.expect("the content is shorter than 64 GiB");
        let mut whole = Vec::with_capacity(sealed.len() + KEY_ID_BYTES + NONCE_LEN);
        whole.extend_from_slice(id);
        whole.extend_from_slice(nonce.as_ref());
        whole.extend_from_slice(&sealed);
        whole
    }

    /// Opens content that was sealed for the place `name`; `None` if no key of this replica has sealed it for `name`.
    pub fn open(&self, kind: Kind, name: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        if sealed.len() < OVERHEAD {
            return None;
        }
        let (id, rest) = sealed.split_at(KEY_ID_BYTES);
        let (nonce, content) = rest.split_at(NONCE_LEN);
        let key = self.keys.iter().find(|key| key.id == id)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut content = content.to_vec();
        let aad = Aad::from(additional(kind, name));
        let length = key.seal.open_in_place(nonce, aad, &mut content).ok()?.len();
        content.truncate(length);
        Some(content)
    }
}

impl fmt::Debug for SealKeys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "SealKeys({})", self.keys.len())
    }
}

impl Derived {
    fn new(key: &[u8]) -> Self {
        let derived = |label: &[u8]| {
            let bytes = expand(key, label);
            Key::new(HMAC_SHA256, &bytes)
        };
        let id = expand(key, b"id");
        let seal = RandomizedNonceKey::new(&AES_256_GCM, &expand(key, b"seal"));
        Self {
            id: *id.first_chunk().expect("32 bytes"),
            names: derived(b"names"),
            seal: seal.expect("32 bytes are a key of AES-256"),
        }
    }

    fn name(&self, kind: Kind, content: &[u8]) -> Name {
        let hash = sign(&self.names, &[&[kind as u8], content].concat());
        Name(*hash.as_ref().first_chunk().expect("a hash has 32 bytes"))
    }
}

/// Returns 32 bytes derived from `key` for the purpose `label`.
fn expand(key: &[u8], label: &[u8]) -> [u8; KEY_BYTES] {
    struct Length;
    impl KeyType for Length {
        fn len(&self) -> usize {
            KEY_BYTES
        }
    }
    let mut bytes = [0; KEY_BYTES];
    let pseudorandom = Salt::new(HKDF_SHA256, b"velt-sidecar shared store").extract(key);
    let info = [label];
    let okm = pseudorandom.expand(&info, Length).expect("32 bytes are few");
    okm.fill(&mut bytes).expect("the lengths are the same");
    bytes
}

fn additional(kind: Kind, name: &[u8]) -> Vec<u8> {
    [b"velt-sidecar 1 ", &[kind as u8][..], name].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    const OTHER: &str = "HxsdHBsaGRgXFhUUExIREA8ODQwLCgkIBwYFBAMCAQA=";

    fn keys(text: &str) -> SealKeys {
        SealKeys::parse(text).expect("keys")
    }

    #[test]
    fn sealed_content_opens_in_its_place_alone() {
        let keys = keys(ONE);
        let sealed = keys.seal(Kind::Entry, b"ada", b"content".to_vec());
        assert!(!sealed.windows(7).any(|part| part == b"content"));
        let open = |kind, name: &[u8], sealed: &[u8]| keys.open(kind, name, sealed);
        assert_eq!(open(Kind::Entry, b"ada", &sealed).as_deref(), Some(&b"content"[..]));
        assert_eq!(open(Kind::Entry, b"eve", &sealed), None);
        assert_eq!(open(Kind::Mark, b"ada", &sealed), None);
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert_eq!(open(Kind::Entry, b"ada", &changed), None, "byte {at}");
            assert_eq!(open(Kind::Entry, b"ada", &sealed[..at]), None, "{at} bytes");
        }
        let again = keys.seal(Kind::Entry, b"ada", b"content".to_vec());
        assert_ne!(again, sealed, "a nonce of its own");
    }

    #[test]
    fn second_key_opens_and_does_not_seal() {
        let (old, both, new) =
            (keys(ONE), keys(&format!("{OTHER}\n{ONE}\n")), keys(&format!("\n {OTHER} \n")));
        let by = |keys: &SealKeys| keys.seal(Kind::Entry, b"", b"content".to_vec());
        assert!(both.open(Kind::Entry, b"", &by(&old)).is_some());
        assert!(new.open(Kind::Entry, b"", &by(&both)).is_some());
        assert!(old.open(Kind::Entry, b"", &by(&both)).is_none());
        let names = both.names(Kind::Entry, b"ada");
        assert_eq!(names, [new.name(Kind::Entry, b"ada"), old.name(Kind::Entry, b"ada")]);
        assert_ne!(names[0], names[1]);
        assert_ne!(names[0], both.name(Kind::Mark, b"ada"));
        let prints = |keys: &SealKeys| keys.fingerprints(b"secret");
        assert_eq!(prints(&both), [prints(&new), prints(&old)].concat());
        assert_ne!(prints(&new), prints(&old));
    }

    #[test]
    fn key_files_with_flaws_are_refused() {
        let error = |text: &str| SealKeys::parse(text).expect_err("a flaw");
        assert_eq!(error("\n\n"), KeyError::Empty);
        assert_eq!(error(&format!("{ONE}\n{OTHER}\n{ONE}")), KeyError::TooMany);
        assert_eq!(error(&format!("{ONE}\n{ONE}")), KeyError::Twice);
        assert_eq!(error("AAECAwQFBgcICQoLDA0ODw=="), KeyError::Form { line: 1 });
        assert_eq!(error(&format!("{ONE}\n\nnot a key")), KeyError::Form { line: 3 });
        assert_eq!(format!("{:?}", keys(ONE)), "SealKeys(1)");
        let zero = STANDARD.encode([0; KEY_BYTES]);
        assert_eq!(error(&zero), KeyError::Zero);
        assert_eq!(error(&format!("{ONE}\n{zero}")), KeyError::Zero);
    }
}

//! Results of reading a configuration beside the settings: complaints, and the values in force.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac::{HMAC_SHA256, Key, sign};

/// A mistake in the configuration, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    pub code: Code,
    /// Path of the setting, such as `velt.auth_token`. `None` if the complaint is about no single setting.
    pub key: Option<String>,
    /// The line or the variable at fault, or neither if a setting is missing.
    pub place: Place,
    pub problem: String,
    pub remedy: String,
}

/// Sort of a mistake, for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// The text is no TOML.
    NotToml,
    UnknownKey,
    UnknownVariable,
    WrongType,
    InvalidValue,
    /// A setting that is needed is missing.
    Missing,
    /// Another setting leaves this one without effect.
    NoEffect,
    /// A secret stands in the file, or in a variable that is not for the secret.
    SecretInPlainSight,
    /// A secret is given in more than one place.
    GivenTwice,
    /// A secret, or the file that should hold it, can't be used.
    UnusableSecret,
    /// The value is valid, and does not go together with the rest.
    Conflict,
}

impl Code {
    /// Returns the word for the sort of mistake. Programs depend on these words.
    pub fn word(self) -> &'static str {
        match self {
            Self::NotToml => "not_toml",
            Self::UnknownKey => "unknown_key",
            Self::UnknownVariable => "unknown_variable",
            Self::WrongType => "wrong_type",
            Self::InvalidValue => "invalid_value",
            Self::Missing => "missing",
            Self::NoEffect => "no_effect",
            Self::SecretInPlainSight => "secret_in_plain_sight",
            Self::GivenTwice => "given_twice",
            Self::UnusableSecret => "unusable_secret",
            Self::Conflict => "conflict",
        }
    }
}

/// A secret that the configuration needs and that is not on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unchecked {
    /// Path of the setting, such as `velt.auth_token`.
    pub key: String,
    /// Place where the secret was looked for: a variable or a file.
    pub place: String,
}

/// Place of a value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// A line of the file, counted from 1.
    Line(usize),
    Environment(String),
    /// The value is missing.
    Missing,
}

/// A value in force and its source.
#[derive(Clone, Debug)]
pub struct Effective {
    /// The table's header, such as `[delivery.header]` or `[[delivery.route]]`.
    pub header: String,
    /// Number that tells tables with the same header apart.
    pub table: usize,
    pub key: String,
    /// Value as TOML, with a placeholder for a secret.
    pub value: String,
    /// Fingerprint of a secret, or of the content of a file that counts as configuration.
    pub fingerprint: Option<Fingerprint>,
    pub source: Source,
}

impl Effective {
    /// Returns the setting's path, such as `delivery.header.max_wait`. All tables of an array have the same
    /// path.
    pub fn path(&self) -> String {
        format!("{}.{}", self.header.trim_matches(['[', ']']), self.key)
    }

    /// Whether this value and `other` are the same: the same text, secret and content of a file.
    pub fn is_same(&self, other: &Self) -> bool {
        let has_same_content = match (&self.fingerprint, &other.fingerprint) {
            (Some(ours), Some(theirs)) => ours.is_same(theirs),
            (ours, theirs) => ours.is_none() && theirs.is_none(),
        };
        self.value == other.value && has_same_content
    }

    /// Returns the value in a form to show: a secret as its fingerprint, a file's path with
    /// the fingerprint of its content.
    pub fn shown(&self) -> String {
        match &self.fingerprint {
            None => self.value.clone(),
            Some(fingerprint) if self.value == REDACTED => fingerprint.to_string(),
            Some(fingerprint) => format!("{} ({fingerprint})", self.value),
        }
    }
}

/// Text in place of a secret, as TOML.
pub const REDACTED: &str = "\"<redacted>\"";

/// Fingerprint of a secret, or of a file's content: enough to see that it has changed.
///
/// People choose some secrets, such as the password of a store, and a plain digest of such a secret can be guessed. So the
/// fingerprint of a secret is keyed with a secret that is never shown ([`FingerprintKey`]). The content of a file is no
/// secret, and its fingerprint is the one that `sha256sum` shows.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint {
    /// Digest by which fingerprints are compared. Never shown.
    digest: [u8; 32],
    shown: Shown,
}

/// Digits that a fingerprint shows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shown {
    /// The first 32 bits of the digest.
    Plain,
    /// 32 bits of a keyed digest; `None` until the key is known.
    Keyed(Option<[u8; 4]>),
}

/// Key of the fingerprints of secrets. It is derived from Velt's auth token, which all replicas of a sidecar have, so that
/// their fingerprints can be compared.
pub(super) struct FingerprintKey(Key);

impl FingerprintKey {
    /// Derives the key from the fingerprint of the auth token. Without an auth token the key is random.
    pub(super) fn of(auth_token: Option<&Fingerprint>) -> Self {
        let bytes = auth_token.map_or_else(random, |token| token.digest);
        Self(Key::new(HMAC_SHA256, &bytes))
    }
}

fn random() -> [u8; 32] {
    let mut bytes = [0; 32];
    aws_lc_rs::rand::fill(&mut bytes).expect("the system has random numbers");
    bytes
}

impl Fingerprint {
    /// Returns the fingerprint of a file's content.
    pub fn of(content: &[u8]) -> Self {
        Self { digest: sha256(content), shown: Shown::Plain }
    }

    /// Returns the fingerprint of a secret, which shows no digits before [`Self::keyed`].
    pub(super) fn of_secret(secret: &[u8]) -> Self {
        Self { digest: sha256(secret), shown: Shown::Keyed(None) }
    }

    /// Returns the fingerprint with the digits by `key`, if it is the fingerprint of a secret.
    pub(super) fn keyed(self, key: &FingerprintKey) -> Self {
        let Shown::Keyed(_) = self.shown else { return self };
        let tag = sign(&key.0, &self.digest);
        let digits = *tag.as_ref().first_chunk().expect("it is longer");
        Self { shown: Shown::Keyed(Some(digits)), ..self }
    }

    /// Whether both are of the same content. The digits depend on the auth token too, which may have changed.
    pub fn is_same(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

fn sha256(content: &[u8]) -> [u8; 32] {
    digest(&SHA256, content).as_ref().try_into().expect("SHA-256 has 32 bytes")
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, digits) = match self.shown {
            Shown::Plain => ("sha256", self.digest.first_chunk()),
            Shown::Keyed(ref digits) => ("keyed", digits.as_ref()),
        };
        match digits {
            Some(digits) => write!(formatter, "{kind}:{:08x}", u32::from_be_bytes(*digits)),
            None => formatter.write_str("not known yet"),
        }
    }
}

/// Shows no more than `Display`: the digest of a secret must stay hidden.
impl fmt::Debug for Fingerprint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// Source of a value in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    Default,
    /// The preset that is in force.
    Preset,
    /// The setting is not written and its default has no effect: the text names what decides instead.
    LeftOut(&'static str),
    Place(Place),
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(line) => write!(formatter, "line {line}"),
            Self::Environment(name) => write!(formatter, "environment variable {name}"),
            Self::Missing => formatter.write_str("not set"),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => formatter.write_str("default"),
            Self::Preset => formatter.write_str("preset"),
            Self::LeftOut(decider) => write!(formatter, "{decider} decides"),
            Self::Place(place) => place.fmt(formatter),
        }
    }
}

//! Results of reading a configuration beside the settings: complaints, and the values in force.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};

/// A mistake in the configuration, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// The line or the variable at fault, or neither if a setting is missing.
    pub place: Place,
    pub problem: String,
    pub remedy: String,
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

    /// Returns the value in a form to show and to compare: a secret as its fingerprint, a file's path with
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

/// The first 32 bits of a SHA-256 digest: enough to see that a secret has changed, but not to learn the
/// secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint([u8; 4]);

impl Fingerprint {
    /// Returns the fingerprint of `content`.
    pub fn of(content: &[u8]) -> Self {
        let digest = digest(&SHA256, content);
        Self(digest.as_ref()[..4].try_into().expect("it is longer"))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "sha256:{:08x}", u32::from_be_bytes(self.0))
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

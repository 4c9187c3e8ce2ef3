//! What reading a configuration yields beside the settings: complaints, and the values in force.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};

/// Something wrong with the configuration, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// The file and line, the variable, or neither if something is missing.
    pub place: Place,
    pub problem: String,
    pub remedy: String,
}

/// Where a value stands.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// A line of the file, counted from 1.
    Line(usize),
    Environment(String),
    /// Nowhere yet.
    Missing,
}

/// A value in force and where it came from.
#[derive(Clone, Debug)]
pub struct Effective {
    /// The table's header, such as `[delivery.header]` or `[[delivery.route]]`.
    pub header: String,
    /// Tells tables with the same header apart.
    pub table: usize,
    pub key: String,
    /// As TOML; secrets are not in here.
    pub value: String,
    /// What tells one content from another, of a secret or of a file.
    pub fingerprint: Option<Fingerprint>,
    pub source: Source,
}

impl Effective {
    /// Such as `delivery.header.max_wait`; of an array's tables, without which of them.
    pub fn path(&self) -> String {
        format!("{}.{}", self.header.trim_matches(['[', ']']), self.key)
    }

    /// The value as it may be shown and compared: secrets by their fingerprint, and of files the
    /// content too.
    pub fn shown(&self) -> String {
        match &self.fingerprint {
            None => self.value.clone(),
            Some(fingerprint) if self.value == REDACTED => fingerprint.to_string(),
            Some(fingerprint) => format!("{} ({fingerprint})", self.value),
        }
    }
}

/// What stands in a secret's place, as TOML.
pub const REDACTED: &str = "\"<redacted>\"";

/// The first 32 bits of a SHA-256: enough to see that a secret has changed, and not what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint([u8; 4]);

impl Fingerprint {
    /// Of `content`.
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

/// Where a value in force came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    Default,
    /// By the preset that is in force.
    Preset,
    /// Not written, and without a say: this decides instead.
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

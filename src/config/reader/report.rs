//! What reading a configuration yields beside the settings: complaints, and the values in force.

use std::fmt;

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
    pub source: Source,
}

/// Where a value in force came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    Default,
    /// By the preset that is in force.
    Preset,
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
            Self::Place(place) => place.fmt(formatter),
        }
    }
}

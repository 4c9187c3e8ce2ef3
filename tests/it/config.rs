//! Messages about mistakes in the configuration, word for word, and the values of a valid one.

mod check;
mod combinations;
mod described;
mod keys;
mod random;
mod resources;
mod routes;
pub(crate) mod schema;
mod secrets;
mod shared;
mod telemetry;
mod trust;
mod values;
mod variables;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use server::config::{Config, ConfigError};

use crate::support::{API_KEY, AUTH_TOKEN, environment};

/// Name and value of an environment variable.
pub(crate) type Variable<'a> = (&'a str, &'a str);

fn with(pairs: &[Variable<'_>]) -> BTreeMap<String, String> {
    let mut environment = environment();
    environment.extend(pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())));
    environment
}

#[track_caller]
pub(crate) fn parse(toml: &str, pairs: &[Variable<'_>]) -> Result<Config, ConfigError> {
    let parsed = Config::parse("sidecar.toml", toml, &with(pairs));
    // A variable may stand in for what the file lacks, or has wrong.
    if pairs.is_empty() {
        schema::agrees(toml, &parsed);
    }
    parsed
}

pub(crate) fn fine(toml: &str, pairs: &[Variable<'_>]) -> Config {
    parse(toml, pairs).unwrap_or_else(|error| panic!("{error}"))
}

/// Returns the whole text of the error, without secrets.
#[track_caller]
fn complaint(parsed: Result<Config, ConfigError>) -> String {
    let Err(error) = parsed else { panic!("no complaint, but there should be one") };
    let text = error.to_string();
    for secret in [API_KEY, AUTH_TOKEN] {
        assert!(!text.contains(secret), "a secret is in the message");
    }
    let count = error.complaints.len();
    let things = if count == 1 { "problem" } else { "problems" };
    assert!(text.starts_with(&format!("the configuration has {count} {things}:\n")), "{text}");
    // A snapshot does not show white space at the end.
    assert_eq!(text.trim_end(), text);
    text
}

/// Asserts the error's whole text from the second line on.
#[track_caller]
pub(crate) fn tells(parsed: Result<Config, ConfigError>, expected: &str) {
    let text = complaint(parsed);
    let (_, told) = text.split_once('\n').expect("a first line");
    assert_eq!(told, expected);
}

/// Configurations, each with the complaint about it.
#[derive(Default)]
pub(crate) struct Complaints(String);

impl Complaints {
    /// Adds a file and variables, and what was said about them.
    #[track_caller]
    pub(crate) fn add(
        &mut self,
        toml: &str,
        pairs: &[Variable<'_>],
        parsed: Result<Config, ConfigError>,
    ) {
        let complaint = complaint(parsed);
        let written = &mut self.0;
        let separator = if written.is_empty() { "" } else { "\n\n----\n\n" };
        written.push_str(separator);
        for (index, line) in toml.lines().enumerate() {
            writeln!(written, "{} | {line}", index + 1).expect("a string takes all");
        }
        for (name, value) in pairs {
            writeln!(written, "{name}={value:?}").expect("a string takes all");
        }
        write!(written, "\n{complaint}").expect("a string takes all");
    }

    /// Replaces a text that is another one in each run.
    fn replacing(self, volatile: &str, stable: &str) -> Self {
        Self(self.0.replace(volatile, stable))
    }

    /// Compares everything that was added with the snapshot of this name.
    pub(crate) fn are(self, snapshot: &str) {
        let mut settings = insta::Settings::clone_current();
        settings.set_snapshot_path("config/snapshots");
        settings.set_prepend_module_to_snapshot(false);
        settings.set_omit_expression(true);
        settings.bind(|| insta::assert_snapshot!(snapshot, self.0));
    }
}

/// Compares the complaints about these files with the snapshot of this name.
#[track_caller]
pub(crate) fn says<T: AsRef<str>>(snapshot: &str, tomls: &[T]) {
    let mut complaints = Complaints::default();
    for toml in tomls {
        complaints.add(toml.as_ref(), &[], parse(toml.as_ref(), &[]));
    }
    complaints.are(snapshot);
}

/// Compares the complaints about these files and variables with the snapshot of this name.
#[track_caller]
pub(crate) fn says_of<T: AsRef<str>>(snapshot: &str, cases: &[(T, &[Variable<'_>])]) {
    let mut complaints = Complaints::default();
    for (toml, pairs) in cases {
        complaints.add(toml.as_ref(), pairs, parse(toml.as_ref(), pairs));
    }
    complaints.are(snapshot);
}

/// Compares the complaints about these variables, each alone, with the snapshot of this name.
#[track_caller]
fn says_of_variables(snapshot: &str, variables: &[Variable<'_>]) {
    let cases: Vec<_> = variables.iter().map(|pair| ("", std::slice::from_ref(pair))).collect();
    says_of(snapshot, &cases);
}

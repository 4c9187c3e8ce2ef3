//! Complaints about a configuration, for any text of the file and the environment.
//!
//! Lines `$NAME=value` at the beginning are the environment; the rest is the file.

use std::collections::BTreeMap;

use server::config::{Complaint, Config, ConfigError, Place};

/// Begin of every secret, which must not be in any printed text. Long enough for each kind of secret.
const CANARY: &str = "canary-5f1d0c-5f1d0c-5f1d0c-5f1d0c";

/// Environment variable and key of each secret.
const SECRETS: [(&str, &str); 5] = [
    ("VELT_API_KEY", "api_key"),
    ("VELT_AUTH_TOKEN", "auth_token"),
    ("VELT_SIDECAR_IDENTITY__SECRET", "secret"),
    ("VELT_SIDECAR_IDENTITY__NEXT_SECRET", "next_secret"),
    ("VELT_SIDECAR_ADMIN_TOKEN", "token"),
];

/// Returns the secret of this variable. The secrets differ, since the sidecar refuses two equal secrets.
fn secret_of(name: &str) -> String {
    format!("{CANARY}-{name}")
}

/// # Panics
///
/// Panics if a complaint leads nowhere, if a text shows a secret, or if `check` shows other settings than
/// those in force.
pub fn check(input: &[u8]) {
    let Ok(mut text) = std::str::from_utf8(input) else { return };
    // A secret may be read from any file, and a device may never end.
    if text.contains("_file") && (text.contains("dev") || text.contains("proc")) {
        return;
    }
    let mut environment = BTreeMap::new();
    while let Some((name, value, rest)) = variable(text) {
        environment.insert(name.to_owned(), value.to_owned());
        text = rest;
    }
    for (name, _) in SECRETS {
        if let Some(value) = environment.get_mut(name).filter(|value| !value.is_empty()) {
            *value = secret_of(name);
        }
    }
    match Config::parse("sidecar.toml", text, &environment) {
        Ok(config) => assert_described(&config),
        Err(error) => assert_helpful(&error, text, &environment),
    }
}

fn variable(text: &str) -> Option<(&str, &str, &str)> {
    let line = text.strip_prefix('$')?;
    let (line, rest) = line.split_once('\n').unwrap_or((line, ""));
    let (name, value) = line.split_once('=')?;
    Some((name, value, rest))
}

/// Asserts that every complaint has a place and a remedy.
fn assert_helpful(error: &ConfigError, text: &str, environment: &BTreeMap<String, String>) {
    assert!(!error.complaints.is_empty(), "refused without a reason");
    let lines = 1 + text.bytes().filter(|byte| *byte == b'\n').count();
    for Complaint { place, problem, remedy, .. } in &error.complaints {
        match place {
            Place::Line(line) => assert!((1..=lines).contains(line), "line {line} of {lines}"),
            Place::Environment(name) => assert!(environment.contains_key(name), "{name}"),
            Place::Missing => {}
        }
        assert!(!problem.is_empty() && !remedy.is_empty(), "{problem:?} {remedy:?}");
    }
    assert!(!error.to_string().contains(CANARY), "a secret is shown");
}

/// Asserts that the text of `check` is a file with the same settings.
fn assert_described(config: &Config) {
    let description = config.describe();
    assert!(!description.contains(CANARY) && !format!("{config:?}").contains(CANARY));
    let mut secrets: BTreeMap<String, String> = BTreeMap::new();
    let redacted = |key: &str| format!("{key} = \"<redacted>\"");
    for (name, key) in SECRETS {
        let shown = description.contains(&format!("\n{}", redacted(key)));
        if shown && !description.contains(&format!("\n{key}_file = ")) {
            secrets.insert(name.to_owned(), secret_of(name));
        }
    }
    let secret = |line: &&str| SECRETS.iter().any(|(_, key)| line.starts_with(&redacted(key)));
    let shown: Vec<&str> = description.lines().filter(|line| !secret(line)).collect();
    let again = Config::parse("again.toml", &shown.join("\n"), &secrets);
    let again = again.unwrap_or_else(|error| panic!("{error}\n{description}"));
    assert_eq!(settings(config), settings(&again), "{description}");
}

fn settings(config: &Config) -> String {
    format!("{:?}", Config { effective: Vec::new(), ..config.clone() })
}

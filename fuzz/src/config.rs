//! What is said of a configuration, whatever stands in it.
//!
//! Lines `$NAME=value` at the beginning are the environment; the rest is the file.

use std::collections::BTreeMap;

use velt_sidecar::config::{Complaint, Config, ConfigError, Place};

/// What every secret begins with: must not be in anything that is printed. Long enough for each.
const CANARY: &str = "canary-5f1d0c-5f1d0c-5f1d0c-5f1d0c";

/// Each secret's variable, and its key.
const SECRETS: [(&str, &str); 5] = [
    ("VELT_API_KEY", "api_key"),
    ("VELT_AUTH_TOKEN", "auth_token"),
    ("VELT_SIDECAR_IDENTITY__SECRET", "secret"),
    ("VELT_SIDECAR_IDENTITY__NEXT_SECRET", "next_secret"),
    ("VELT_SIDECAR_ADMIN_TOKEN", "token"),
];

/// The secret of this variable: each has its own, since no two may be the same.
fn secret_of(name: &str) -> String {
    format!("{CANARY}-{name}")
}

/// # Panics
///
/// If a complaint leads nowhere, a secret is shown, or `check` shows other settings than those in
/// force.
pub fn check(input: &[u8]) {
    let Ok(mut text) = std::str::from_utf8(input) else { return };
    // A secret's file may be any: a device never ends.
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

/// Every complaint says where and what to do.
fn assert_helpful(error: &ConfigError, text: &str, environment: &BTreeMap<String, String>) {
    assert!(!error.complaints.is_empty(), "refused without a reason");
    let lines = 1 + text.bytes().filter(|byte| *byte == b'\n').count();
    for Complaint { place, problem, remedy } in &error.complaints {
        match place {
            Place::Line(line) => assert!((1..=lines).contains(line), "line {line} of {lines}"),
            Place::Environment(name) => assert!(environment.contains_key(name), "{name}"),
            Place::Missing => {}
        }
        assert!(!problem.is_empty() && !remedy.is_empty(), "{problem:?} {remedy:?}");
    }
    assert!(!error.to_string().contains(CANARY), "a secret is shown");
}

/// What `check` shows is a file that means the same.
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

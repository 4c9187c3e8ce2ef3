//! Credentials: the places that may give them, and the places that must not.

use std::collections::BTreeMap;
use std::path::Path;

use secrecy::ExposeSecret as _;
use server::config::{Config, ConfigError};

use super::{Complaints, says, says_of_variables};
use crate::support::environment;

/// Returns the environment without the variable of the API key.
fn without_api_key() -> BTreeMap<String, String> {
    let mut environment = environment();
    environment.remove("VELT_API_KEY");
    environment
}

#[test]
fn missing_credentials_are_told_with_both_ways_to_give_them() {
    let mut complaints = Complaints::default();
    complaints.add("", &[], Config::parse("sidecar.toml", "", &BTreeMap::new()));
    complaints.are("missing_credentials");
}

#[test]
fn empty_credential_is_refused() {
    let name = "VELT_AUTH_TOKEN";
    says_of_variables("empty_auth_token", &[(name, ""), (name, " "), (name, "\n")]);
    let toml = "[velt]\napi_key = \"\"";
    let mut complaints = Complaints::default();
    complaints.add(toml, &[], Config::parse("sidecar.toml", toml, &without_api_key()));
    complaints.are("empty_api_key");
}

#[test]
fn credential_that_no_header_can_carry_is_refused() {
    says_of_variables("credential_of_two_lines", &[("VELT_AUTH_TOKEN", "two\nlines")]);
}

#[test]
fn auth_token_is_refused_in_the_file_and_in_a_setting() {
    says("auth_token_in_the_file", &["[velt]\nauth_token = \"hush\""]);
    says_of_variables("auth_token_in_a_setting", &[("VELT_SIDECAR_VELT__AUTH_TOKEN", "hush")]);
}

#[test]
fn api_key_is_accepted_in_the_file() {
    // Every page shows the API key to its readers.
    let toml = "[velt]\napi_key = \"public\"";
    let config = Config::parse("sidecar.toml", toml, &without_api_key());
    assert_eq!(config.expect("valid").velt.api_key.expose_secret(), "public");
}

/// Returns a file that takes both credentials from files.
fn naming(api_key: &Path, auth_token: &Path) -> String {
    format!(
        "[velt]\napi_key_file = \"{}\"\nauth_token_file = \"{}\"\n",
        api_key.display(),
        auth_token.display()
    )
}

/// Parses a configuration whose credentials stand in files only.
fn from_files(api_key: &Path, auth_token: &Path) -> Result<Config, ConfigError> {
    Config::parse("sidecar.toml", &naming(api_key, auth_token), &BTreeMap::new())
}

#[test]
fn secret_file_is_read_without_trailing_newlines() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("written");
        path
    };
    let config = from_files(&file("key", "the key\r\n"), &file("token", "the token\n\n"));
    let config = config.expect("valid");
    assert_eq!(config.velt.api_key.expose_secret(), "the key");
    assert_eq!(config.velt.auth_token.expose_secret(), "the token");
    let text = config.describe();
    assert!(!text.contains("the key") && !text.contains("the token"), "{text}");
}

#[test]
fn unusable_secret_file_is_named_with_the_reason() {
    let folder = tempfile::tempdir().expect("a folder");
    let empty = folder.path().join("empty");
    std::fs::write(&empty, "\n").expect("written");
    let missing = folder.path().join("missing");
    let mut complaints = Complaints::default();
    for (api_key, auth_token) in [(&*missing, &*empty), (folder.path(), folder.path())] {
        complaints.add(&naming(api_key, auth_token), &[], from_files(api_key, auth_token));
    }
    // The folder has another name in each run.
    let path = folder.path().to_str().expect("a plain path");
    complaints.replacing(path, "/folder").are("unusable_secret_file");
}

#[test]
fn secret_from_two_places_is_refused() {
    // One of the places is unusable in the second case.
    says(
        "secret_from_two_places",
        &["[velt]\napi_key = \"x\"", "[velt]\nauth_token_file = \"/nowhere/token\""],
    );
}

//! The token of admin calls in the configuration.

use secrecy::ExposeSecret;

use crate::config::{fine, parse, says, says_of, tells};

const VARIABLE: &str = "VELT_SIDECAR_ADMIN_TOKEN";
const TOKEN: &str = "0123456789abcdef0123456789abcdef";

fn token_of(config: &server::config::Config) -> Option<&str> {
    config.admin_token.as_ref().map(ExposeSecret::expose_secret)
}

#[test]
fn the_token_is_a_variable_or_a_file_and_none_by_default() {
    assert_eq!(token_of(&fine("", &[])), None);
    let config = fine("", &[(VARIABLE, &format!("{TOKEN}\r\n"))]);
    assert_eq!(token_of(&config), Some(TOKEN));
    let described = config.describe();
    let line = "token = \"<redacted>\"                             # environment variable \
                VELT_SIDECAR_ADMIN_TOKEN, keyed:";
    assert!(described.contains(line) && !described.contains(TOKEN), "{described}");
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("token");
    std::fs::write(&file, format!("{TOKEN}\n")).expect("written");
    let toml = format!("[admin]\ntoken_file = {file:?}");
    assert_eq!(token_of(&fine(&toml, &[])), Some(TOKEN));
    let both = parse(&toml, &[(VARIABLE, TOKEN)]);
    tells(
        both,
        "  sidecar.toml:2: admin.token is given in more than one place\n    \
         -> keep one of them, such as the variable VELT_SIDECAR_ADMIN_TOKEN or token_file",
    );
}

#[test]
fn a_token_that_would_not_protect_is_refused() {
    says_of(
        "admin_token_that_does_not_protect",
        &[
            ("", &[(VARIABLE, "short")]),
            // A name with two underscores, as other settings have, is an error, not a token that the
            // sidecar ignores.
            ("", &[("VELT_SIDECAR_ADMIN__TOKEN", TOKEN)]),
        ],
    );
    says("admin_token_in_the_file", &[format!("[admin]\ntoken = \"{TOKEN}\"")]);
}

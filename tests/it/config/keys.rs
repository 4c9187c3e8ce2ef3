//! Keys that do not exist, values of a wrong type, and text that is no TOML.

use std::collections::BTreeMap;

use secrecy::ExposeSecret as _;
use server::config::Config;

use super::{Complaints, fine, says};
use crate::support::{API_KEY, AUTH_TOKEN};

#[test]
fn empty_file_is_a_valid_configuration() {
    let config = fine("", &[]);
    assert_eq!(config.listen.address.to_string(), "0.0.0.0:8080");
    assert_eq!(config.admin.address.to_string(), "127.0.0.1:9901");
    assert_eq!(config.velt.api_key.expose_secret(), API_KEY);
    assert_eq!(config.velt.auth_token.expose_secret(), AUTH_TOKEN);
    assert_eq!(config.delivery.routes.len(), 2);
}

#[test]
fn misspelt_key_is_answered_with_the_nearest_one() {
    says("misspelt_key", &["[app]\nadress = \"127.0.0.1:3000\""]);
}

#[test]
fn key_unlike_all_others_is_to_be_removed() {
    says("unknown_key", &["[app]\n\nfoo = 1"]);
}

#[test]
fn guessed_names_are_answered_with_what_to_write() {
    says(
        "guessed_names",
        &[
            "[app]\nport = 5000",
            "[app]\nurl = \"http://127.0.0.1:5000\"",
            "upstream = \"http://127.0.0.1:5000\"",
            "[server]\nport = 80",
            "[listen]\nport = 80",
            "[admin]\nport = 9000",
            "[velt]\ntoken = \"a\"\nurl = \"https://api.velt.dev\"\nkey = \"a\"",
            "[identity]\nheader = \"X-User\"",
        ],
    );
}

#[test]
fn address_of_the_app_with_scheme_or_path_is_corrected() {
    says(
        "address_of_the_app_corrected",
        &["http://127.0.0.1:5000", "http://app/", "https://app:3443/base", "http://[::1]:5000"]
            .map(|address| format!("[app]\naddress = \"{address}\"")),
    );
    // The text may hold a password, so it is not repeated.
    let Err(error) = super::parse("[app]\naddress = \"http://u:p@app:1\"", &[]) else {
        panic!("no complaint")
    };
    assert!(!error.to_string().contains("u:p"), "{error}");
}

#[test]
fn unknown_section_is_named_at_its_header() {
    says("unknown_section", &["[lisen]\naddress = \"0.0.0.0:1\"\n[telemetry]\n"]);
}

#[test]
fn unknown_key_of_a_route_is_named_with_its_line() {
    says(
        "unknown_key_of_a_route",
        &[
            "[[delivery.route]]\npath = \"/token\"\n\n[[delivery.route]]\npath = \"/jwt\"\nshap = \"string\"",
        ],
    );
}

#[test]
fn value_of_a_wrong_type_is_answered_with_the_right_type() {
    says(
        "wrong_type",
        &[
            "[listen]\naddress = 8080",
            "[listen]\nmax_connections = \"10\"",
            "[listen]\nmax_connections = 1.5",
            "[delivery.header]\nenabled = \"yes\"",
            "[runtime]\nworkers = 2",
            "[shutdown]\ngrace = 5",
            "[identity]\ntrusted_peers = \"127.0.0.1\"",
            "[identity]\ntrusted_peers = [\"127.0.0.1\", 1]",
            "velt = \"legacy\"",
            "[delivery]\nheader = []",
            "[delivery.route]\npath = \"/token\"",
            "[delivery]\nroute = [\"/token\"]",
        ],
    );
}

#[test]
fn invalid_toml_is_named_and_the_rest_is_still_read() {
    says(
        "invalid_toml",
        &[
            "[listen",
            "[listen]\naddress",
            "[log]\nlevel = \"info\"\nlevel = \"warn\"\n[app]\nadress = \"x\"",
        ],
    );
}

#[test]
fn all_mistakes_are_told_in_the_order_of_lines() {
    let toml = "[velt]\napi = \"v2\"\nattempt_timeout = \"1m\"\n\n[app]\nadress = \"x\"\n\
                [listen]\naddress = 8080\nmax_connections = 0\n";
    let pairs = [("VELT_API_KEY", API_KEY), ("VELT_SIDECAR_LOG__LEVEL", "loud")];
    let environment: BTreeMap<_, _> =
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let parsed = Config::parse("/etc/velt/sidecar.toml", toml, &environment);
    let mut complaints = Complaints::default();
    complaints.add(toml, &pairs, parsed);
    complaints.are("all_mistakes_at_once");
}

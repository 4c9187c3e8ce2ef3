//! Messages about mistakes in the configuration, word for word.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;
use secrecy::ExposeSecret as _;
use velt_sidecar::access_log::Format;
use velt_sidecar::config::{Config, ConfigError, Workers};
use velt_sidecar::inject::Shape;

use crate::support::{API_KEY, AUTH_TOKEN, environment};

fn with(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let mut environment = environment();
    environment.extend(pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())));
    environment
}

pub(crate) fn parse(toml: &str, pairs: &[(&str, &str)]) -> Result<Config, ConfigError> {
    Config::parse("sidecar.toml", toml, &with(pairs))
}

pub(crate) fn fine(toml: &str, pairs: &[(&str, &str)]) -> Config {
    parse(toml, pairs).unwrap_or_else(|error| panic!("{error}"))
}

/// Asserts the error's whole text from the second line on.
#[track_caller]
pub(crate) fn says_of(parsed: Result<Config, ConfigError>, expected: &str) {
    let Err(error) = parsed else { panic!("no complaint, but there should be: {expected}") };
    let text = error.to_string();
    let count = error.complaints.len();
    let things = if count == 1 { "problem" } else { "problems" };
    let head = format!("the configuration has {count} {things}:\n");
    assert_eq!(text.strip_prefix(&head), Some(expected), "{text}");
    for secret in [API_KEY, AUTH_TOKEN] {
        assert!(!text.contains(secret), "a secret is in the message");
    }
}

/// Asserts the whole complaint about `toml`.
#[track_caller]
pub(crate) fn says(toml: &str, expected: &str) {
    says_of(parse(toml, &[]), expected);
}

/// Asserts the whole complaint about one variable.
#[track_caller]
fn says_of_variable(name: &str, value: &str, expected: &str) {
    says_of(parse("", &[(name, value)]), expected);
}

#[test]
fn an_empty_file_is_a_valid_configuration() {
    let config = fine("", &[]);
    assert_eq!(config.listen.address.to_string(), "0.0.0.0:8080");
    assert_eq!(config.admin.address.to_string(), "127.0.0.1:9901");
    assert_eq!(config.velt.api_key.expose_secret(), API_KEY);
    assert_eq!(config.velt.auth_token.expose_secret(), AUTH_TOKEN);
    assert_eq!(config.delivery.routes.len(), 2);
}

#[test]
fn a_misspelt_key_is_answered_with_the_nearest_one() {
    says(
        "[app]\nadress = \"127.0.0.1:3000\"",
        "  sidecar.toml:2: there is no setting app.adress\n    -> did you mean address?",
    );
}

#[test]
fn a_key_like_no_other_is_to_be_removed() {
    says("[app]\n\nfoo = 1", "  sidecar.toml:3: there is no setting app.foo\n    -> remove it");
}

#[test]
fn an_unknown_section_is_named_at_its_header() {
    says(
        "[lisen]\naddress = \"0.0.0.0:1\"\n[telemetry]\n",
        "  sidecar.toml:1: there is no setting lisen\n    -> did you mean listen?\n  \
         sidecar.toml:3: there is no setting telemetry\n    -> remove it",
    );
}

#[test]
fn an_unknown_key_of_a_route_is_named_with_its_line() {
    says(
        "[[delivery.route]]\npath = \"/token\"\n\n[[delivery.route]]\npath = \"/jwt\"\nshap = \"string\"",
        "  sidecar.toml:6: there is no setting delivery.route.shap\n    -> did you mean shape?",
    );
}

#[test]
fn a_value_of_the_wrong_type_is_answered_with_one_of_the_right_type() {
    for (toml, expected) in [
        (
            "[listen]\naddress = 8080",
            "  sidecar.toml:2: listen.address has the wrong type\n    \
             -> write an IP address and port, such as \"0.0.0.0:8080\"",
        ),
        (
            "[listen]\nmax_connections = \"10\"",
            "  sidecar.toml:2: listen.max_connections has the wrong type\n    \
             -> write a whole number from 1 on",
        ),
        (
            "[listen]\nmax_connections = 1.5",
            "  sidecar.toml:2: listen.max_connections: \"1.5\" won't do\n    \
             -> write a whole number from 1 on",
        ),
        (
            "[delivery.header]\nenabled = \"yes\"",
            "  sidecar.toml:2: delivery.header.enabled has the wrong type\n    \
             -> write true or false",
        ),
        (
            "[runtime]\nworkers = 2",
            "  sidecar.toml:2: runtime.workers has the wrong type\n    \
             -> write \"auto\" or a number of threads in quotes, such as \"4\"",
        ),
        (
            "[shutdown]\ngrace = 5",
            "  sidecar.toml:2: shutdown.grace has the wrong type\n    \
             -> write a time of at most a day, such as \"250ms\", \"5s\" or \"2m\"",
        ),
        (
            "[identity]\ntrusted_peers = \"127.0.0.1\"",
            "  sidecar.toml:2: identity.trusted_peers has the wrong type\n    \
             -> write a list: [an address range, such as \"10.0.0.0/8\" or \"10.0.0.7\", ...]",
        ),
        (
            "[identity]\ntrusted_peers = [\"127.0.0.1\", 1]",
            "  sidecar.toml:2: identity.trusted_peers has the wrong type\n    \
             -> write a list: [an address range, such as \"10.0.0.0/8\" or \"10.0.0.7\", ...]",
        ),
        (
            "velt = \"legacy\"",
            "  sidecar.toml:1: velt has the wrong type\n    -> write a table: [velt]",
        ),
        (
            "[delivery]\nheader = []",
            "  sidecar.toml:2: delivery.header has the wrong type\n    \
             -> write a table: [delivery.header]",
        ),
        (
            "[delivery.route]\npath = \"/token\"",
            "  sidecar.toml:1: delivery.route has the wrong type\n    \
             -> write an array of tables: [[delivery.route]]",
        ),
        (
            "[delivery]\nroute = [\"/token\"]",
            "  sidecar.toml:2: delivery.route has the wrong type\n    \
             -> write a table: [[delivery.route]]\n  \
             sidecar.toml:2: delivery.route.path is missing\n    \
             -> write path = a plain path, such as \"/api/velt/token\": \
             no query, escapes, empty or dot segments",
        ),
    ] {
        says(toml, expected);
    }
}

#[test]
fn a_value_that_will_not_do_is_answered_with_what_will() {
    let address = "an IP address and port, such as \"0.0.0.0:8080\"";
    let app = "the app's address, such as \"127.0.0.1:3000\", \"https://127.0.0.1:3443\" or \
         \"unix:/run/app.sock\"";
    let header = "the name of a header, such as \"X-Forwarded-User\"";
    let range = "an address range, such as \"10.0.0.0/8\" or \"10.0.0.7\"";
    let time = "a time of at most a day, such as \"250ms\", \"5s\" or \"2m\"";
    let span = "a time from \"1ms\" to \"24h\", such as \"5s\" or \"2m\"";
    let count = "a whole number from 1 on";
    let size = "a size, such as \"512KiB\" or \"64MiB\"";
    let url = "an https:// URL without user, query or fragment";
    let pattern = "a path such as \"/api/me\", or a prefix such as \"/api/*\"";
    for (section, key, values, expected) in [
        ("listen", "address", &["", "8080", "localhost:8080", ":8080", "1.2.3.4"][..], address),
        ("listen", "idle_timeout", &["", "5", "5 s", "-5s", "0s", "1d", "25h", "5S"], span),
        (
            "listen",
            "max_header_bytes",
            &["", "7KiB", "2MiB", "5GiB"],
            "a size from \"8KiB\" to \"1MiB\"",
        ),
        ("app", "address", &["", "localhost", "a:0", "a:65536", "http://a:1", "u@a:1"], app),
        ("app", "address", &["unix:app.sock", "unix:"], app),
        ("app", "protocol", &["", "http2", "HTTP1", "h3"], "\"http1\", \"h2c\" or \"h2\""),
        ("identity", "user_header", &["", "X User", "X:User", "Benutzer-ü"], header),
        ("identity", "on_ambiguous", &["", "Refuse", "allow"], "\"refuse\" or \"drop\""),
        ("identity", "forward_headers", &["", "remove"], "\"keep\" or \"strip\""),
        ("velt", "api", &["", "v3", "V2"], "\"legacy\", \"v1\" or \"v2\""),
        ("velt", "endpoint", &["", "velt", "ftp://a/", "https://", "https://a/?key=1"], url),
        ("velt", "endpoint", &["https://a/#x"], url),
        ("velt", "verify_user", &["", "on", "always"], "\"auto\", \"require\" or \"off\""),
        ("velt", "organization", &[" "], "a string that is not empty"),
        ("cache", "max_bytes", &["", "64", "64MB", "0MiB", "1.5GiB", "99999999999GiB"], size),
        ("shutdown", "grace", &["", "5", "1441m", "99999999999999999999s"], time),
        (
            "runtime",
            "workers",
            &["", "0", "65", "two", "-1"],
            "\"auto\" or a number of threads in quotes, such as \"4\"",
        ),
        (
            "runtime",
            "memory_limit",
            &["", "256", "31MiB", "256MB", "none"],
            "\"auto\", \"off\" or a size from \"32MiB\" on, such as \"200MiB\"",
        ),
        ("log", "level", &["", "trace", "INFO"], "\"error\", \"warn\", \"info\" or \"debug\""),
        ("log", "format", &["", "logfmt"], "\"text\" or \"json\""),
        ("delivery.header", "on_failure", &["", "fail"], "\"omit\" or \"refuse\""),
    ] {
        for value in values {
            says(
                &format!("[{section}]\n{key} = \"{value}\""),
                &format!(
                    "  sidecar.toml:2: {section}.{key}: {value:?} won't do\n    -> write {expected}"
                ),
            );
        }
    }
    for value in ["0", "-1", "1099511627777", "0x10", "0b11", "+7"] {
        says(
            &format!("[cache]\nmax_entries = {value}"),
            &format!(
                "  sidecar.toml:2: cache.max_entries: {value:?} won't do\n    -> write {count}"
            ),
        );
    }
    let counts =
        ["max_headers", "http2_max_streams", "http2_max_pending_resets", "http2_max_error_resets"];
    for (key, value) in counts.into_iter().flat_map(|key| [(key, "0"), (key, "10001")]) {
        says(
            &format!("[listen]\n{key} = {value}"),
            &format!(
                "  sidecar.toml:2: listen.{key}: {value:?} won't do\n    \
                 -> write a whole number from 1 to 10000"
            ),
        );
    }
    for value in ["localhost", "10.0.0.0/33", "10.0.0", "*", ""] {
        says(
            &format!("[identity]\ntrusted_peers = [\"127.0.0.1\", \"{value}\"]"),
            &format!(
                "  sidecar.toml:2: identity.trusted_peers: {value:?} won't do\n    -> write {range}"
            ),
        );
    }
    for value in ["api", "/a*b", "/a?b", "*", ""] {
        says(
            &format!("[delivery.header]\npaths = [\"{value}\"]"),
            &format!(
                "  sidecar.toml:2: delivery.header.paths: {value:?} won't do\n    -> write {pattern}"
            ),
        );
    }
}

#[test]
fn what_is_not_toml_is_named_with_its_line_and_the_rest_is_still_read() {
    says(
        "[listen",
        "  sidecar.toml:1: this is not TOML: unclosed table, expected `]`\n    \
         -> see sidecar.toml of the release for every key",
    );
    says(
        "[listen]\naddress",
        "  sidecar.toml:2: this is not TOML: key with no value, expected `=`\n    \
         -> see sidecar.toml of the release for every key",
    );
    says(
        "[log]\nlevel = \"info\"\nlevel = \"warn\"\n[app]\nadress = \"x\"",
        "  sidecar.toml:3: this is not TOML: duplicate key\n    \
         -> see sidecar.toml of the release for every key\n  \
         sidecar.toml:5: there is no setting app.adress\n    -> did you mean address?",
    );
}

#[test]
fn missing_credentials_are_told_with_both_ways_to_give_them() {
    says_of(
        Config::parse("sidecar.toml", "", &BTreeMap::new()),
        "  velt.api_key is missing\n    \
         -> set the environment variable VELT_API_KEY, or api_key_file = \"/path/to/file\" in [velt]\n  \
         velt.auth_token is missing\n    \
         -> set the environment variable VELT_AUTH_TOKEN, or auth_token_file = \"/path/to/file\" in [velt]",
    );
}

#[test]
fn an_empty_credential_is_one_that_is_missing() {
    for value in ["", " ", "\n"] {
        says_of_variable(
            "VELT_AUTH_TOKEN",
            value,
            "  VELT_AUTH_TOKEN: velt.auth_token is empty\n    \
             -> set the environment variable VELT_AUTH_TOKEN, or auth_token_file = \"/path/to/file\" in [velt]",
        );
    }
    let mut environment = environment();
    environment.remove("VELT_API_KEY");
    says_of(
        Config::parse("sidecar.toml", "[velt]\napi_key = \"\"", &environment),
        "  sidecar.toml:2: velt.api_key is empty\n    \
         -> set the environment variable VELT_API_KEY, or api_key_file = \"/path/to/file\" in [velt]",
    );
}

#[test]
fn a_credential_that_no_header_can_carry_is_found_before_the_start() {
    says_of_variable(
        "VELT_AUTH_TOKEN",
        "two\nlines",
        "  VELT_AUTH_TOKEN: velt.auth_token holds bytes that no header can carry\n    \
         -> copy it again, alone and whole",
    );
}

#[test]
fn the_auth_token_must_not_stand_in_the_file_nor_in_a_variable_of_a_setting() {
    let remedy = "remove it; set the variable VELT_AUTH_TOKEN, or auth_token_file = \"/path\"";
    says(
        "[velt]\nauth_token = \"hush\"",
        &format!(
            "  sidecar.toml:2: velt.auth_token is a secret and must not stand here\n    -> {remedy}"
        ),
    );
    says_of_variable(
        "VELT_SIDECAR_VELT__AUTH_TOKEN",
        "hush",
        &format!(
            "  VELT_SIDECAR_VELT__AUTH_TOKEN: velt.auth_token is a secret and must not stand here\n    \
             -> {remedy}"
        ),
    );
}

#[test]
fn the_api_key_may_stand_in_the_file_since_every_page_shows_it() {
    let mut environment = environment();
    environment.remove("VELT_API_KEY");
    let config = Config::parse("sidecar.toml", "[velt]\napi_key = \"public\"", &environment);
    assert_eq!(config.expect("valid").velt.api_key.expose_secret(), "public");
}

/// Parses a configuration whose credentials stand in files only.
fn from_files(api_key: &Path, auth_token: &Path) -> Result<Config, ConfigError> {
    let toml = format!(
        "[velt]\napi_key_file = \"{}\"\nauth_token_file = \"{}\"\n",
        api_key.display(),
        auth_token.display()
    );
    Config::parse("sidecar.toml", &toml, &BTreeMap::new())
}

#[test]
fn a_secret_file_is_read_without_its_trailing_newlines() {
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
fn a_secret_file_that_cannot_be_used_is_named_with_the_reason() {
    let folder = tempfile::tempdir().expect("a folder");
    let empty = folder.path().join("empty");
    std::fs::write(&empty, "\n").expect("written");
    let missing = folder.path().join("missing");
    let remedy = "mount the Secret there, readable by the sidecar's user, or name another file";
    says_of(
        from_files(&missing, &empty),
        &format!(
            "  sidecar.toml:2: {} can't be used: No such file or directory (os error 2)\n    \
             -> {remedy}\n  \
             sidecar.toml:3: {} can't be used: it is empty\n    -> {remedy}",
            missing.display(),
            empty.display()
        ),
    );
    says_of(
        from_files(folder.path(), folder.path()),
        &format!(
            "  sidecar.toml:2: {0} can't be used: Is a directory (os error 21)\n    \
             -> {remedy}\n  \
             sidecar.toml:3: {0} can't be used: Is a directory (os error 21)\n    -> {remedy}",
            folder.path().display()
        ),
    );
}

#[test]
fn a_secret_from_two_places_is_refused_even_if_one_is_unusable() {
    says(
        "[velt]\napi_key = \"x\"",
        "  sidecar.toml:2: velt.api_key is given in more than one place\n    \
         -> keep one of them, such as the variable VELT_API_KEY or api_key_file",
    );
    says(
        "[velt]\nauth_token_file = \"/nowhere/token\"",
        "  sidecar.toml:2: velt.auth_token is given in more than one place\n    \
         -> keep one of them, such as the variable VELT_AUTH_TOKEN or auth_token_file\n  \
         sidecar.toml:2: /nowhere/token can't be used: No such file or directory (os error 2)\n    \
         -> mount the Secret there, readable by the sidecar's user, or name another file",
    );
}

#[test]
fn trusting_nobody_is_refused() {
    says(
        "[identity]\ntrusted_peers = []",
        "  sidecar.toml:2: identity.trusted_peers: no peer is trusted, so there would never be an identity\n    \
         -> name the login proxy's addresses: trusted_peers = [\"127.0.0.1\", \"::1\"] if it runs in the same pod",
    );
}

#[test]
fn t10_trusting_everybody_is_refused_unless_its_dangerous_name_is_written() {
    // Half of all addresses is refused like all addresses: two halves would be all of them.
    for everyone in ["0.0.0.0/0", "::/0", "128.0.0.0/1", "10.0.0.0/7", "8000::/1", "fc00::/6"] {
        let toml = format!("[identity]\ntrusted_peers = [\"10.0.0.0/8\", \"{everyone}\"]");
        says(
            &toml,
            "  sidecar.toml:2: identity.trusted_peers: any client that reaches this port could name any user and get their token\n    \
             -> name the login proxy's addresses, such as [\"10.42.0.0/16\"]; if a network policy lets only the login proxy in, write dangerously_trust_every_peer = true",
        );
        fine(&format!("{toml}\ndangerously_trust_every_peer = true"), &[]);
    }
    says(
        "[identity]\ndangerously_trust_every_peer = true",
        "  sidecar.toml:2: identity.dangerously_trust_every_peer: it has no effect while trusted_peers names ranges\n    \
         -> remove it",
    );
}

#[test]
fn a_private_network_is_not_everybody() {
    fine("[identity]\ntrusted_peers = [\"10.0.0.0/8\", \"fc00::/7\", \"172.16.0.0/12\"]", &[]);
}

#[test]
fn an_app_that_is_the_sidecar_itself_is_refused() {
    for (listen, app) in [
        ("0.0.0.0:8080", "127.0.0.1:8080"),
        ("0.0.0.0:8080", "localhost:8080"),
        ("127.0.0.1:8080", "localhost:8080"),
        ("127.0.0.1:8080", "127.0.0.1:8080"),
        ("10.0.0.5:8080", "10.0.0.5:8080"),
        ("[::]:8080", "[::1]:8080"),
        ("[::]:8080", "127.0.0.1:8080"),
    ] {
        says(
            &format!("[app]\naddress = \"{app}\"\n[listen]\naddress = \"{listen}\""),
            "  sidecar.toml:2: app.address: this is the sidecar's own listen.address, \
             so requests would go in circles\n    \
             -> write the app's address, or give the sidecar another port in [listen]",
        );
    }
    for (listen, app) in [
        ("0.0.0.0:8080", "127.0.0.1:8081"),
        ("0.0.0.0:8080", "app.test:8080"),
        ("10.0.0.5:8080", "127.0.0.1:8080"),
        ("10.0.0.5:8080", "localhost:8080"),
        ("0.0.0.0:8080", "unix:/run/8080"),
    ] {
        fine(&format!("[app]\naddress = \"{app}\"\n[listen]\naddress = \"{listen}\""), &[]);
    }
}

#[test]
fn refusing_without_waiting_would_refuse_every_user_once() {
    says(
        "[delivery.header]\non_failure = \"refuse\"",
        "  sidecar.toml:2: delivery.header.on_failure: with so short a max_wait it would refuse \
         every user's first request\n    -> write max_wait = \"5s\" beside it",
    );
    fine("[delivery.header]\non_failure = \"refuse\"\nmax_wait = \"1s\"", &[]);
}

#[test]
fn a_setting_that_the_chosen_api_does_not_send_is_refused() {
    let header = |line: usize, key: &str| {
        format!(
            "  sidecar.toml:{line}: identity.{key}: the chosen velt.api does not send it, so it has no effect\n    \
             -> remove it, or set velt.api to one that does (docs/configuration.md)"
        )
    };
    says(
        "[identity]\nemail_header = \"X-E\"\nname_header = \"X-N\"\norganization_header = \"X-O\"\n\
         groups_header = \"X-G\"\nadmin_groups = [\"a\"]",
        &[
            header(2, "email_header"),
            header(3, "name_header"),
            header(4, "organization_header"),
            header(5, "groups_header"),
        ]
        .join("\n"),
    );
    says(
        "[identity]\nname_header = \"X-N\"\n[velt]\napi = \"v1\"\norganization = \"org\"",
        &header(2, "name_header"),
    );
    says(
        "[velt]\norganization = \"org\"",
        "  sidecar.toml:2: velt.organization: the legacy API does not send it, so it has no effect\n    \
         -> remove it, or write api = \"v2\"",
    );
    says(
        "[velt]\napi = \"v1\"\norganization = \"o\"\n[[velt.resource]]\ntype = \"folder\"\nid = \"f\"",
        "  sidecar.toml:4: velt.resource: only the v2 API sends resources, so they have no effect\n    \
         -> remove them, or write api = \"v2\"",
    );
}

#[test]
fn groups_without_admin_groups_have_no_effect_and_the_other_way_round() {
    says(
        "[identity]\ngroups_header = \"X-G\"\n[velt]\napi = \"v2\"\norganization = \"o\"",
        "  sidecar.toml:2: identity.groups_header: it has no effect alone\n    \
         -> set identity.admin_groups as well, or remove groups_header",
    );
    says(
        "[identity]\nadmin_groups = [\"admins\"]",
        "  sidecar.toml:2: identity.admin_groups: it has no effect alone\n    \
         -> set identity.groups_header as well, or remove admin_groups",
    );
}

#[test]
fn an_api_that_needs_an_organization_says_so() {
    for api in ["v1", "v2"] {
        says(
            &format!("\n[velt]\napi = \"{api}\""),
            "  sidecar.toml:2: velt.organization: it is missing, and this API needs one\n    \
             -> write organization = \"your-organization-id\" in [velt], or name the header that carries it: \
             organization_header in [identity]",
        );
        fine(&format!("[velt]\napi = \"{api}\"\norganization = \"o\""), &[]);
        fine(&format!("[velt]\napi = \"{api}\"\n[identity]\norganization_header = \"X-O\""), &[]);
    }
}

#[test]
fn the_auth_token_crosses_no_network_in_plain_text_unawares() {
    for far in ["http://velt.test/", "http://10.0.0.7:4190/", "http://[fd00::1]/"] {
        let toml = format!("[velt]\nendpoint = \"{far}\"");
        says(
            &toml,
            "  sidecar.toml:2: velt.endpoint: the auth token would cross the network in plain text\n    \
             -> write an https:// URL; for an emulator in a test cluster, allow_plaintext = true",
        );
        fine(&format!("{toml}\nallow_plaintext = true"), &[]);
    }
    for near in ["http://127.0.0.1:4190/", "http://[::1]:4190/", "http://localhost:4190/"] {
        fine(&format!("[velt]\nendpoint = \"{near}\""), &[]);
    }
    for lookalike in ["http://127.0.0.1.evil.test/", "http://localhost.evil.test/"] {
        assert!(parse(&format!("[velt]\nendpoint = \"{lookalike}\""), &[]).is_err());
    }
    says(
        "[velt]\nallow_plaintext = true",
        "  sidecar.toml:2: velt.allow_plaintext: it has no effect on an https:// endpoint\n    -> remove it",
    );
}

#[test]
fn two_routes_of_one_path_are_refused() {
    says(
        "[[delivery.route]]\npath = \"/token\"\n[[delivery.route]]\npath = \"/token\"\nshape = \"string\"",
        "  sidecar.toml:1: delivery.route: two routes have the path /token\n    \
         -> give each route a path of its own",
    );
}

#[test]
fn a_route_has_a_path_in_one_spelling_only() {
    for path in [
        "", "token", "/", "//token", "/token/", "/a//b", "/./a", "/a/..", "/a?b", "/a#b", "/a%2fb",
        "/a b", "/a\\\\b", "/ü", "/a;b", "/*",
    ] {
        let Err(error) = parse(&format!("[[delivery.route]]\npath = \"{path}\""), &[]) else {
            // A star is a plain character of a path.
            assert_eq!(path, "/*");
            continue;
        };
        let text = error.to_string();
        let end = "won't do\n    -> write a plain path, such as \"/api/velt/token\": \
                   no query, escapes, empty or dot segments";
        assert!(text.contains("\n  sidecar.toml:2: delivery.route.path: "), "{text}");
        assert!(text.ends_with(end), "{text}");
    }
    says(
        "\n[[delivery.route]]\nshape = \"string\"",
        "  sidecar.toml:2: delivery.route.path is missing\n    \
         -> write path = a plain path, such as \"/api/velt/token\": no query, escapes, empty or dot segments",
    );
}

#[test]
fn a_key_has_no_effect_on_a_bare_string() {
    says(
        "[[delivery.route]]\npath = \"/token\"\nshape = \"string\"\nkey = \"jwt\"",
        "  sidecar.toml:4: delivery.route.key: it has no effect on a route that answers a bare string\n    \
         -> remove it, or write shape = \"object\"",
    );
}

#[test]
fn without_route_and_header_nobody_would_get_a_token() {
    says(
        "[delivery]\nroute = []\n[delivery.header]\nenabled = false",
        "  sidecar.toml:2: delivery.route: there is neither a route nor header delivery, so no page would get a token\n    \
         -> add a [[delivery.route]], or set delivery.header.enabled = true",
    );
}

#[test]
fn one_attempt_may_not_take_longer_than_all_of_them() {
    says(
        "[velt]\ndeadline = \"1s\"\nattempt_timeout = \"1001ms\"",
        "  sidecar.toml:3: velt.attempt_timeout: one attempt could take longer than velt.deadline allows for all attempts\n    \
         -> write at most velt.deadline",
    );
    fine("[velt]\ndeadline = \"1s\"\nattempt_timeout = \"1000ms\"", &[]);
}

#[test]
fn two_settings_may_not_name_the_same_header_in_any_spelling() {
    let remedy = "name a header of its own for each of user, email, name, organization, groups and delivery.header";
    for email in ["X-Forwarded-User", "x-forwarded-user", "X_Forwarded-User", "x-velt-token"] {
        says(
            &format!(
                "[identity]\nemail_header = \"{email}\"\n[velt]\napi = \"v2\"\norganization = \"o\""
            ),
            &format!(
                "  sidecar.toml:1: identity.user_header: two settings name the same header\n    -> {remedy}"
            ),
        );
    }
    says(
        "[identity]\nuser_header = \"X-User\"\n[delivery.header]\nname = \"x-user\"",
        &format!(
            "  sidecar.toml:2: identity.user_header: two settings name the same header\n    -> {remedy}"
        ),
    );
}

#[test]
fn a_resource_needs_a_type_and_an_id() {
    says(
        "[velt]\napi = \"v2\"\norganization = \"o\"\n[[velt.resource]]\ntype = \"page\"\nrole = \"owner\"",
        "  sidecar.toml:4: velt.resource.id is missing\n    -> write id = a string that is not empty\n  \
         sidecar.toml:5: velt.resource.type: \"page\" won't do\n    \
         -> write \"organization\", \"folder\" or \"document\"\n  \
         sidecar.toml:6: velt.resource.role: \"owner\" won't do\n    -> write \"viewer\" or \"editor\"",
    );
}

#[test]
fn an_unknown_variable_is_a_mistake_too() {
    says_of_variable(
        "VELT_SIDECAR_LISTEN__ADRESS",
        "0.0.0.0:1",
        "  VELT_SIDECAR_LISTEN__ADRESS: there is no such setting\n    \
         -> did you mean VELT_SIDECAR_LISTEN__ADDRESS?",
    );
    says_of_variable(
        "VELT_SIDECAR_X__Y",
        "1",
        "  VELT_SIDECAR_X__Y: there is no such setting\n    -> unset it",
    );
}

#[test]
fn the_variables_that_kubernetes_sets_for_a_service_of_our_name_are_ignored() {
    fine(
        "",
        &[
            ("VELT_SIDECAR_PORT", "tcp://10.96.0.1:8080"),
            ("VELT_SIDECAR_PORT_8080_TCP", "tcp://10.96.0.1:8080"),
            ("VELT_SIDECAR_PORT_8080_TCP_ADDR", "10.96.0.1"),
            ("VELT_SIDECAR_PORT_8080_TCP_PORT", "8080"),
            ("VELT_SIDECAR_PORT_8080_TCP_PROTO", "tcp"),
            ("VELT_SIDECAR_SERVICE_HOST", "10.96.0.1"),
            ("VELT_SIDECAR_SERVICE_PORT", "8080"),
            ("VELT_SIDECAR_SERVICE_PORT_HTTP", "8080"),
            ("VELT_OTHER__THING", "1"),
        ],
    );
}

#[test]
fn a_bad_value_of_a_variable_is_named_by_the_variable() {
    says_of_variable(
        "VELT_SIDECAR_LISTEN__MAX_CONNECTIONS",
        "many",
        "  VELT_SIDECAR_LISTEN__MAX_CONNECTIONS: listen.max_connections: \"many\" won't do\n    \
         -> write a whole number from 1 on",
    );
    says_of_variable(
        "VELT_SIDECAR_DELIVERY__HEADER__MAX_WAIT",
        "",
        "  VELT_SIDECAR_DELIVERY__HEADER__MAX_WAIT: delivery.header.max_wait: \"\" won't do\n    \
         -> write a time of at most a day, such as \"250ms\", \"5s\" or \"2m\"",
    );
    says_of_variable(
        "VELT_SIDECAR_IDENTITY__TRUSTED_PEERS",
        "127.0.0.1, everyone",
        "  VELT_SIDECAR_IDENTITY__TRUSTED_PEERS: identity.trusted_peers: \"everyone\" won't do\n    \
         -> write an address range, such as \"10.0.0.0/8\" or \"10.0.0.7\"",
    );
    says_of_variable(
        "VELT_SIDECAR_IDENTITY__TRUSTED_PEERS",
        "[\"127.0.0.1\"",
        "  VELT_SIDECAR_IDENTITY__TRUSTED_PEERS: identity.trusted_peers has the wrong type\n    \
         -> write a list: [an address range, such as \"10.0.0.0/8\" or \"10.0.0.7\", ...]",
    );
    for nonsense in ["/token", "[1", "[{ path = }]"] {
        says_of_variable(
            "VELT_SIDECAR_DELIVERY__ROUTE",
            nonsense,
            "  VELT_SIDECAR_DELIVERY__ROUTE: delivery.route has the wrong type\n    \
             -> write an array of tables: [{ key = \"value\" }, ...]",
        );
    }
    says_of_variable(
        "VELT_SIDECAR_DELIVERY__ROUTE",
        "[{ path = \"/token\", shap = \"string\" }]",
        "  VELT_SIDECAR_DELIVERY__ROUTE: there is no setting delivery.route.shap\n    \
         -> did you mean shape?",
    );
}

#[test]
fn every_mistake_is_told_at_once_in_the_order_of_the_lines() {
    says_of(
        Config::parse(
            "/etc/velt/sidecar.toml",
            "[velt]\napi = \"v2\"\nattempt_timeout = \"1m\"\n\n[app]\nadress = \"x\"\n\
             [listen]\naddress = 8080\nmax_connections = 0\n",
            &BTreeMap::from([
                ("VELT_API_KEY".to_owned(), API_KEY.to_owned()),
                ("VELT_SIDECAR_LOG__LEVEL".to_owned(), "loud".to_owned()),
            ]),
        ),
        "  /etc/velt/sidecar.toml:1: velt.organization: it is missing, and this API needs one\n    \
         -> write organization = \"your-organization-id\" in [velt], or name the header that carries it: \
         organization_header in [identity]\n  \
         /etc/velt/sidecar.toml:3: velt.attempt_timeout: one attempt could take longer than velt.deadline allows for all attempts\n    \
         -> write at most velt.deadline\n  \
         /etc/velt/sidecar.toml:6: there is no setting app.adress\n    \
         -> did you mean address?\n  \
         /etc/velt/sidecar.toml:8: listen.address has the wrong type\n    \
         -> write an IP address and port, such as \"0.0.0.0:8080\"\n  \
         /etc/velt/sidecar.toml:9: listen.max_connections: \"0\" won't do\n    \
         -> write a whole number from 1 on\n  \
         VELT_SIDECAR_LOG__LEVEL: log.level: \"loud\" won't do\n    \
         -> write \"error\", \"warn\", \"info\" or \"debug\"\n  \
         velt.auth_token is missing\n    \
         -> set the environment variable VELT_AUTH_TOKEN, or auth_token_file = \"/path/to/file\" in [velt]",
    );
}

#[test]
fn a_variable_beats_the_file() {
    let toml = "[listen]\naddress = \"127.0.0.1:1\"\nmax_connections = 5\n\
                [runtime]\nworkers = \"auto\"\n[delivery.header]\nenabled = true\npaths = [\"/a\"]";
    let config = fine(
        toml,
        &[
            ("VELT_SIDECAR_LISTEN__ADDRESS", "127.0.0.1:2"),
            ("VELT_SIDECAR_RUNTIME__WORKERS", "3"),
            ("VELT_SIDECAR_RUNTIME__MEMORY_LIMIT", "48MiB"),
            ("VELT_SIDECAR_DELIVERY__HEADER__ENABLED", "false"),
            ("VELT_SIDECAR_SHUTDOWN__GRACE", "0s"),
        ],
    );
    assert_eq!(config.listen.address.port(), 2);
    assert_eq!(config.listen.max_connections, 5, "what no variable names stays");
    assert_eq!(config.workers, Workers::Exactly(3));
    assert_eq!(config.memory_limit.bytes(), Some(48 << 20));
    assert!(!config.delivery.header.enabled);
    assert_eq!(config.shutdown.grace, Duration::ZERO);
}

#[test]
fn a_valid_variable_beats_even_a_wrong_value_in_the_file() {
    let toml = "[listen]\naddress = 8080";
    let config = fine(toml, &[("VELT_SIDECAR_LISTEN__ADDRESS", "127.0.0.1:2")]);
    assert_eq!(config.listen.address.port(), 2);
}

#[test]
fn lists_come_from_a_variable_with_commas_or_as_toml() {
    for value in ["10.0.0.0/8,::1", " 10.0.0.0/8 , ::1,", "[\"10.0.0.0/8\", \"::1\"]"] {
        let config = fine("", &[("VELT_SIDECAR_IDENTITY__TRUSTED_PEERS", value)]);
        let peers: Vec<_> = config.identity.trusted_peers.iter().map(ToString::to_string).collect();
        assert_eq!(peers, ["10.0.0.0/8", "::1/128"], "{value}");
    }
}

#[test]
fn routes_come_from_a_variable_as_toml_and_replace_those_of_the_file() {
    let config = fine(
        "[[delivery.route]]\npath = \"/from-the-file\"",
        &[(
            "VELT_SIDECAR_DELIVERY__ROUTE",
            r#" [{ path = "/a", shape = "string" }, { path = "/b", key = "jwt", max_wait = "1s" }] "#,
        )],
    );
    let routes = &config.delivery.routes;
    assert_eq!(routes.len(), 2);
    assert_eq!((&*routes[0].path, &routes[0].shape), ("/a", &Shape::string()));
    let object = Shape::object("jwt");
    assert_eq!((&*routes[1].path, &routes[1].shape), ("/b", &object));
    assert_eq!(routes[1].max_wait, Duration::from_secs(1));
}

const EVERYTHING: &str = r#"
[listen]
address = "127.0.0.1:1"
[delivery.header]
paths = ["/", "/api/*"]
[[delivery.route]]
path = "/a"
[[delivery.route]]
path = "/b"
shape = "string"
[identity]
email_header = "X-Email"
organization_header = "X-\u004frg"
[velt]
api = "v2"
organization = "say \"hello\""
[[velt.resource]]
type = "folder"
id = "f"
[[velt.resource]]
type = "document"
id = "d"
expires_in = "2h"
"#;

/// Lines of the shape `key = value # source`, with single spaces.
fn described(config: &Config) -> Vec<String> {
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    config.describe().lines().map(words).collect()
}

#[test]
fn each_value_in_force_is_described_with_its_source() {
    let config = fine(EVERYTHING, &[("VELT_SIDECAR_LOG__LEVEL", "warn")]);
    let lines = described(&config);
    for expected in [
        r#"address = "127.0.0.1:1" # line 3"#,
        "max_connections = 10000 # default",
        r#"paths = ["/", "/api/*"] # line 5"#,
        r#"path = "/a" # line 7"#,
        r#"path = "/b" # line 9"#,
        r#"shape = "string" # line 10"#,
        r#"organization_header = "X-Org" # line 13"#,
        r#"endpoint = "https://api.velt.dev/v2/auth/generate_token" # default"#,
        r#"api_key = "<redacted>" # environment variable VELT_API_KEY, sha256:e3214c48"#,
        r#"auth_token = "<redacted>" # environment variable VELT_AUTH_TOKEN, sha256:2e76ef18"#,
        r#"organization = "say \"hello\"" # line 16"#,
        r#"expires_in = "2h" # line 23"#,
        r#"level = "warn" # environment variable VELT_SIDECAR_LOG__LEVEL"#,
        "dangerously_trust_every_peer = false # default",
    ] {
        let count = lines.iter().filter(|line| *line == expected).count();
        assert!(count == 1, "{expected} is there {count} times in\n{}", lines.join("\n"));
    }
    for secret in [API_KEY, AUTH_TOKEN] {
        assert!(!config.describe().contains(secret));
    }
    let debug = format!("{config:?}");
    assert!(!debug.contains(API_KEY) && !debug.contains(AUTH_TOKEN), "{debug}");
}

#[test]
fn a_secret_of_the_file_is_described_without_its_value() {
    let mut environment = environment();
    environment.remove("VELT_API_KEY");
    let config = Config::parse("f", "[velt]\n\napi_key = \"hush-hush\"", &environment);
    let config = config.expect("valid");
    // printf %s hush-hush | sha256sum | cut -c1-8
    let line = "api_key = \"<redacted>\" # line 3, sha256:fbdc0774";
    assert!(described(&config).contains(&line.to_owned()));
    assert!(!config.describe().contains("hush-hush"));
}

#[test]
fn the_description_is_toml_and_means_the_same() {
    let config = fine(EVERYTHING, &[]);
    let is_secret = |line: &&str| line.contains("<redacted>");
    let described = config.describe();
    let toml: Vec<_> = described.lines().filter(|line| !is_secret(line)).collect();
    let again = fine(&toml.join("\n"), &[]);
    let values = |config: &Config| {
        let values = config.effective.iter();
        values
            .map(|value| {
                format!("{}.{} = {}", value.header.trim_matches(['[', ']']), value.key, value.value)
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(values(&again), values(&config));
    assert_eq!(again.plan.issuer().resources.len(), 2);
}

#[test]
fn whatever_is_in_a_string_its_description_is_toml() {
    let text = "[velt]\napi = \"v2\"\norganization = \"a\\u007f\\u0000\\u0085\\\"\\\\\"";
    let config = fine(text, &[]);
    let described = config.describe();
    let toml: Vec<_> = described.lines().filter(|line| !line.contains("<redacted>")).collect();
    assert_eq!(
        fine(&toml.join("\n"), &[]).plan.issuer().organization,
        config.plan.issuer().organization
    );
}

#[test]
fn a_number_of_a_variable_is_written_as_toml_has_it() {
    for value in ["007", "+7", " 7", "1_000"] {
        let problem = format!(
            "  VELT_SIDECAR_CACHE__MAX_ENTRIES: cache.max_entries: {value:?} won't do\n    \
             -> write a whole number from 1 on"
        );
        says_of_variable("VELT_SIDECAR_CACHE__MAX_ENTRIES", value, &problem);
    }
}

/// Generates documents of keys that exist and keys that do not, with valid and invalid values.
fn some_document() -> impl Strategy<Value = String> {
    let headers = [
        "[listen]",
        "[app]",
        "[identity]",
        "[velt]",
        "[[velt.resource]]",
        "[delivery]",
        "[delivery.header]",
        "[[delivery.route]]",
        "[delivery.route]",
        "[cache]",
        "[log]",
        "[x.y]",
    ];
    let keys = [
        "address",
        "idle_timeout",
        "max_connections",
        "user_header",
        "groups_header",
        "admin_groups",
        "trusted_peers",
        "dangerously_trust_every_peer",
        "api",
        "endpoint",
        "api_key",
        "auth_token",
        "organization",
        "attempt_timeout",
        "deadline",
        "path",
        "shape",
        "key",
        "type",
        "id",
        "expires_in",
        "enabled",
        "max_bytes",
        "route",
        "resource",
        "level",
    ];
    let values = [
        "\"\"",
        "\"x\"",
        "\"/x\"",
        "\"v2\"",
        "\"string\"",
        "\"10.0.0.0/8\"",
        "\"127.0.0.1:1\"",
        "\"5s\"",
        "\"99999999999999999999h\"",
        "\"64MiB\"",
        "\"http://x\"",
        "\"folder\"",
        "0",
        "1",
        "-1",
        "1e9",
        "0x10",
        "99999999999999999999",
        "true",
        "[]",
        "[\"x\"]",
        "[1]",
        "[{}]",
        "[{ path = \"/p\" }]",
        "{}",
        "{ a = 1 }",
        "1979-05-27",
        "\"\\u0000\"",
        "'ü'",
    ];
    let pair = (prop::sample::select(keys.to_vec()), prop::sample::select(values.to_vec()));
    let line = prop_oneof![
        3 => prop::sample::select(headers.to_vec()).prop_map(str::to_owned),
        8 => pair.prop_map(|(key, value)| format!("{key} = {value}")),
        1 => "\\PC{0,12}",
    ];
    prop::collection::vec(line, 0..16).prop_map(|lines| lines.join("\n"))
}

fn some_variables() -> impl Strategy<Value = BTreeMap<String, String>> {
    let names = [
        "VELT_API_KEY",
        "VELT_AUTH_TOKEN",
        "VELT_SIDECAR_LISTEN__ADDRESS",
        "VELT_SIDECAR_IDENTITY__TRUSTED_PEERS",
        "VELT_SIDECAR_IDENTITY__ADMIN_GROUPS",
        "VELT_SIDECAR_DELIVERY__ROUTE",
        "VELT_SIDECAR_VELT__RESOURCE",
        "VELT_SIDECAR_VELT__API",
        "VELT_SIDECAR_VELT__API_KEY",
        "VELT_SIDECAR_VELT__AUTH_TOKEN",
        "VELT_SIDECAR_CACHE__MAX_BYTES",
        "VELT_SIDECAR_NO__SUCH",
        "VELT_SIDECAR_",
        "VELT_SIDECAR___",
    ];
    let values = ["", " ", "x", "v2", "1", "[", "[]", "[{}]", "[1]", "[\"a\"]", "a,b", ",", "1MiB"];
    let value = prop_oneof![
        3 => prop::sample::select(values.to_vec()).prop_map(str::to_owned),
        1 => "\\PC{0,20}",
    ];
    prop::collection::btree_map(
        prop::sample::select(names.to_vec()).prop_map(str::to_owned),
        value,
        0..6,
    )
}

#[test]
fn a_share_is_a_number_from_nothing_to_all() {
    for (written, share) in [("0", 0.0), ("0.0", 0.0), ("0.05", 0.05), ("1", 1.0), ("1.00", 1.0)] {
        assert_eq!(
            fine(&format!("[access_log]\nsample = {written}"), &[]).access_log.sample,
            share
        );
        let variable = ("VELT_SIDECAR_ACCESS_LOG__SAMPLE", written);
        assert_eq!(fine("", &[variable]).access_log.sample, share);
    }
    for written in ["1.01", "-0.1", "5", "1e-1", "nan", "inf", "true"] {
        says(
            &format!("[access_log]\nsample = {written}"),
            &format!(
                "  sidecar.toml:2: access_log.sample: \"{}\" won't do\n    \
                 -> write a number from 0.0 to 1.0, such as 0.05",
                // The parser hands NaN on as `nan`.
                if written == "nan" { "nan" } else { written }
            ),
        );
    }
}

#[test]
fn the_access_log_has_a_format_and_is_off_by_default() {
    let log = fine("", &[]).access_log;
    assert_eq!((log.format, log.sample, log.user), (Format::Off, 1.0, false));
    for (word, format) in [("json", Format::Json), ("text", Format::Text), ("off", Format::Off)] {
        let toml = format!("[access_log]\nformat = \"{word}\"\nuser = true\nsample = 0.5");
        let log = fine(&toml, &[]).access_log;
        assert_eq!((log.format, log.sample, log.user), (format, 0.5, true));
    }
    says(
        "[access_log]\nformat = \"combined\"",
        "  sidecar.toml:2: access_log.format: \"combined\" won't do\n    \
         -> write \"json\", \"text\" or \"off\"",
    );
}

#[test]
fn tracing_is_off_by_default_and_names_its_collector() {
    let tracing = fine("", &[]).tracing;
    assert!(!tracing.create && tracing.export.is_none());
    let toml = "[tracing]\ncreate = true\nsample = 0.25\n\
                otlp_endpoint = \"http://collector:4318/v1/traces\"\nservice_name = \"shop\"";
    let tracing = fine(toml, &[]).tracing;
    let export = tracing.export.expect("an endpoint");
    assert_eq!((tracing.create, tracing.sample), (true, 0.25));
    assert_eq!(export.endpoint.as_str(), "http://collector:4318/v1/traces");
    assert_eq!(export.service_name, "shop");
    let toml = toml.replace("service_name = \"shop\"", "");
    assert_eq!(fine(&toml, &[]).tracing.export.expect("one").service_name, "velt-sidecar");
}

#[test]
fn settings_of_tracing_without_effect_are_errors() {
    says(
        "[tracing]\nsample = 0.5",
        "  sidecar.toml:2: tracing.sample: it has no effect on traces that others start\n    \
         -> write create = true, or remove it: the program that starts a trace decides what is sampled",
    );
    says(
        "[tracing]\nservice_name = \"shop\"",
        "  sidecar.toml:2: tracing.service_name: without otlp_endpoint it has no effect\n    \
         -> write otlp_endpoint = \"http://collector:4318/v1/traces\", or remove it",
    );
    says(
        "[tracing]\notlp_endpoint = \"collector:4318\"\nservice_name = \"shop\"",
        "  sidecar.toml:2: tracing.otlp_endpoint: \"collector:4318\" won't do\n    \
         -> write an https:// URL without user, query or fragment",
    );
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_written_is_a_configuration_or_a_reason_why_not(
        text in prop_oneof![some_document(), any::<String>()],
        variables in some_variables(),
        with_credentials in any::<bool>(),
    ) {
        let mut all = variables;
        if with_credentials {
            all.extend(environment());
        }
        match Config::parse("f", &text, &all) {
            Ok(config) => prop_assert!(!config.describe().is_empty()),
            Err(error) => {
                prop_assert!(!error.complaints.is_empty(), "refused without a reason");
                let places: Vec<_> = error.complaints.iter().map(|it| &it.place).collect();
                prop_assert!(places.is_sorted(), "{error}");
            }
        }
    }
}

#[test]
fn a_header_with_a_meaning_of_its_own_is_not_an_identity_header() {
    for name in ["Host", "cookie", "Connection", "X-Forwarded-For"] {
        let toml = format!("[identity]\nuser_header = \"{name}\"");
        let error = crate::support::config(&toml).expect_err("refused").to_string();
        let expected = format!("{} has a meaning of its own in HTTP", name.to_lowercase());
        assert!(error.contains(&expected), "{error}");
    }
}

#[test]
fn a_url_that_will_not_do_is_not_repeated_since_it_may_hold_a_password() {
    let toml = "[velt]\nendpoint = \"https://user:hunter2@velt.example/\"";
    let error = crate::support::config(toml).expect_err("refused").to_string();
    assert!(error.contains("velt.endpoint: its value won't do"), "{error}");
    assert!(!error.contains("hunter2"), "{error}");
}

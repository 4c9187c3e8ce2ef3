//! Documents and variables at random: each is a configuration, or is refused with a reason.

use std::collections::BTreeMap;

use proptest::prelude::*;
use server::config::Config;

use crate::support::environment;

/// Headers of tables, valid and invalid.
const HEADERS: [&str; 12] = [
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

/// Keys that exist in some table.
const KEYS: [&str; 26] = [
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

/// Values as TOML has them, of every type.
const VALUES: [&str; 29] = [
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

/// Names of variables, valid and invalid.
const VARIABLES: [&str; 14] = [
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

/// Values of variables.
const TEXTS: [&str; 13] =
    ["", " ", "x", "v2", "1", "[", "[]", "[{}]", "[1]", "[\"a\"]", "a,b", ",", "1MiB"];

/// Generates documents of keys that exist and keys that do not, with valid and invalid values.
fn some_document() -> impl Strategy<Value = String> {
    let pair = (prop::sample::select(KEYS.to_vec()), prop::sample::select(VALUES.to_vec()));
    let line = prop_oneof![
        3 => prop::sample::select(HEADERS.to_vec()).prop_map(str::to_owned),
        8 => pair.prop_map(|(key, value)| format!("{key} = {value}")),
        1 => "\\PC{0,12}",
    ];
    prop::collection::vec(line, 0..16).prop_map(|lines| lines.join("\n"))
}

fn some_variables() -> impl Strategy<Value = BTreeMap<String, String>> {
    let value = prop_oneof![
        3 => prop::sample::select(TEXTS.to_vec()).prop_map(str::to_owned),
        1 => "\\PC{0,20}",
    ];
    prop::collection::btree_map(
        prop::sample::select(VARIABLES.to_vec()).prop_map(str::to_owned),
        value,
        0..6,
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_text_is_a_configuration_or_has_a_complaint(
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

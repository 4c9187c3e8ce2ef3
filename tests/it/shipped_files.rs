//! What is shipped beside the code says what the code does.

use std::collections::BTreeMap;
use std::fs;

use velt_sidecar::config::Config;

use crate::support::{config, environment};

/// Header, key and value of every setting in force.
fn in_force(config: &Config) -> BTreeMap<(String, String), String> {
    let settings = config.effective.iter();
    settings.map(|one| ((one.header.clone(), one.key.clone()), one.value.clone())).collect()
}

#[test]
fn sidecar_toml_is_valid_and_writes_out_the_defaults() {
    let text = fs::read_to_string("sidecar.toml").expect("sidecar.toml");
    let written = config(&text).unwrap_or_else(|error| panic!("{error}"));
    let mut defaults = in_force(&config("").expect("the defaults are valid"));
    let mut shipped = in_force(&written);
    // The default routes stand in the file as tables, and in the defaults as one value.
    defaults.retain(|(_, key), _| key != "route");
    shipped.retain(|(header, _), _| header != "[[delivery.route]]");
    assert_eq!(shipped, defaults);
    let routes = |config: &Config| format!("{:?}", config.delivery.routes);
    assert_eq!(routes(&written), routes(&config("").expect("valid")));
}

#[test]
fn sidecar_toml_mentions_every_key_even_those_without_a_default() {
    let text = fs::read_to_string("sidecar.toml").expect("sidecar.toml");
    let mut source = fs::read_to_string("src/config.rs").expect("src/config.rs");
    for file in fs::read_dir("src/config/table").expect("the tables") {
        source += &fs::read_to_string(file.expect("an entry").path()).expect("a table");
    }
    let mut keys = 0;
    for call in ["value(\"", "optional(\"", "required(\"", "list(\"", "secret(\"", ">(\"", "_or(\""]
    {
        for rest in source.split(call).skip(1) {
            let key = rest.split('"').next().expect("a key");
            let mentioned = text.lines().any(|line| {
                let line = line.trim_start_matches(['#', ' ']);
                let rest = line.strip_prefix(key).map(str::trim_start);
                // Secrets stand in the file only as the name of another file.
                rest.is_some_and(|rest| rest.starts_with('=') || rest.starts_with("_file"))
            });
            assert!(mentioned, "sidecar.toml does not mention {key}");
            keys += 1;
        }
    }
    assert!(keys > 40, "only {keys} keys were looked for");
}

#[test]
fn the_manifests_environment_is_a_valid_configuration() {
    let text = fs::read_to_string("deploy/k8s/sidecar.yaml").expect("the manifest");
    let mut environment = environment();
    let mut lines = text.lines().map(str::trim);
    while let Some(line) = lines.next() {
        let Some(name) = line.strip_prefix("- name: VELT_SIDECAR_") else { continue };
        let value = lines.next().and_then(|line| line.strip_prefix("value: "));
        let value = value.unwrap_or_else(|| panic!("{name} has no value"));
        let value = value.split(" #").next().unwrap_or_default().trim();
        environment.insert(format!("VELT_SIDECAR_{name}"), value.trim_matches(['"', '\'']).into());
    }
    assert!(environment.len() > 4, "the manifest sets something");
    let config = Config::parse("sidecar.toml", "", &environment);
    let config = config.unwrap_or_else(|error| panic!("{error}"));
    for port in [config.listen.address.port(), config.admin.address.port()] {
        assert!(text.contains(&format!("containerPort: {port}")), "port {port} is declared");
    }
}

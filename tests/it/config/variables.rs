//! Settings from environment variables.

use std::time::Duration;

use server::config::Workers;
use shared::store::Place;
use sidecar::inject::Shape;

use super::{fine, parse, says_of_variables, tells};

#[test]
fn unknown_variable_is_refused() {
    says_of_variables(
        "unknown_variable",
        &[("VELT_SIDECAR_LISTEN__ADRESS", "0.0.0.0:1"), ("VELT_SIDECAR_X__Y", "1")],
    );
}

#[test]
fn variables_of_a_kubernetes_service_are_ignored() {
    // Kubernetes sets these for a service that is named like the sidecar.
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
fn bad_value_of_a_variable_is_named_by_the_variable() {
    let route = "VELT_SIDECAR_DELIVERY__ROUTE";
    says_of_variables(
        "bad_variable",
        &[
            ("VELT_SIDECAR_LISTEN__MAX_CONNECTIONS", "many"),
            ("VELT_SIDECAR_DELIVERY__HEADER__MAX_WAIT", ""),
            ("VELT_SIDECAR_IDENTITY__TRUSTED_PEERS", "127.0.0.1, everyone"),
            ("VELT_SIDECAR_IDENTITY__TRUSTED_PEERS", "[\"127.0.0.1\""),
            (route, "/token"),
            (route, "[1"),
            (route, "[{ path = }]"),
            (route, "[{ path = \"/token\", shap = \"string\" }]"),
        ],
    );
}

#[test]
fn number_of_a_variable_is_written_as_in_toml() {
    let name = "VELT_SIDECAR_CACHE__MAX_ENTRIES";
    for value in ["007", "+7", " 7", "1_000"] {
        let problem = format!(
            "  {name}: cache.max_entries: {value:?} won't do\n    -> write a whole number from 1 on"
        );
        tells(parse("", &[(name, value)]), &problem);
    }
}

#[test]
fn variable_with_addresses_of_ipv6_is_a_list() {
    let key = ("VELT_SIDECAR_SHARED__SEAL_KEY", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=");
    let mode = ("VELT_SIDECAR_SHARED__MODE", "cluster");
    for text in ["[::1]:6379,[fd00::7]:6380", r#" ["[::1]:6379", "[fd00::7]:6380"]"#] {
        let config = fine("", &[key, mode, ("VELT_SIDECAR_SHARED__ADDRESSES", text)]);
        let Some(Place::Cluster(addresses)) = config.shared.map(|shared| shared.store.place) else {
            panic!("a cluster: {text}");
        };
        let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
        assert_eq!(addresses, ["[::1]:6379", "[fd00::7]:6380"]);
    }
}

#[test]
fn variable_beats_the_file() {
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
fn valid_variable_beats_a_wrong_value_in_the_file() {
    let toml = "[listen]\naddress = 8080";
    let config = fine(toml, &[("VELT_SIDECAR_LISTEN__ADDRESS", "127.0.0.1:2")]);
    assert_eq!(config.listen.address.port(), 2);
}

#[test]
fn list_variable_has_commas_or_is_toml() {
    for value in ["10.0.0.0/8,::1", " 10.0.0.0/8 , ::1,", "[\"10.0.0.0/8\", \"::1\"]"] {
        let config = fine("", &[("VELT_SIDECAR_IDENTITY__TRUSTED_PEERS", value)]);
        let peers: Vec<_> = config.identity.trusted_peers.iter().map(ToString::to_string).collect();
        assert_eq!(peers, ["10.0.0.0/8", "::1/128"], "{value}");
    }
}

#[test]
fn route_variable_replaces_the_routes_of_the_file() {
    let config = fine(
        "[[delivery.route]]\npath = \"/from-the-file\"",
        &[(
            "VELT_SIDECAR_DELIVERY__ROUTE",
            r#" [{ path = "/a", shape = "string" }, { path = "/b", key = "jwt", max_wait = "1s" }] "#,
        )],
    );
    let routes = &config.delivery.routes;
    assert_eq!(routes.len(), 2);
    assert_eq!((&*routes[0].path, &routes[0].shape), ("/a", &Shape::String));
    let object = Shape::object("jwt");
    assert_eq!((&*routes[1].path, &routes[1].shape), ("/b", &object));
    assert_eq!(routes[1].max_wait, Duration::from_secs(1));
}

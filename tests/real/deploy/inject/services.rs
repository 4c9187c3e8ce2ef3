//! A Service's port that an annotation points at the sidecar.

use serde_json::{Value, json};

use super::{Asked, Cluster};
use crate::deploy::complaints;

/// Returns a Service with an annotation that names a port, and these ports.
fn service(asked: &str, ports: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "web", "annotations": {"velt-sidecar/port": asked}},
        "spec": {"selector": {"app": "web"}, "ports": ports}})
}

#[test]
fn the_annotation_points_one_port_by_name_or_number() {
    let several = json!([
        {"name": "metrics", "port": 9090},
        {"name": "http", "port": 80, "targetPort": 3000},
        {"name": "web", "port": 81, "targetPort": "web", "protocol": "TCP"},
    ]);
    let single = json!([{"port": 80, "targetPort": 3000}]);
    let cluster = Cluster::of("v1");
    for (asked, ports, place) in [
        ("http", &several, 1),
        ("web", &several, 2),
        ("metrics", &several, 0),
        ("81", &several, 2),
        ("80", &single, 0),
    ] {
        let before = service(asked, ports);
        let after = cluster.create(&before);
        let mut expected = before.clone();
        expected["spec"]["ports"][place]["targetPort"] = 8080.into();
        assert_eq!(after, expected, "{asked}");
        assert_eq!(cluster.create(&after), after, "twice changes nothing");
        // An update that brings the manifest's own port back is pointed again.
        assert_eq!(cluster.admit(Asked::update(&before)).object, expected);
        assert_eq!(complaints(&[after], super::NEW), "");
    }
}

#[test]
fn services_that_do_not_ask_stay_unchanged() {
    let cluster = Cluster::of("v1");
    let ports = json!([{"name": "http", "port": 80}]);
    let mut plain = service("http", &ports);
    plain["metadata"]["annotations"] = Value::Null;
    plain["metadata"].as_object_mut().expect("metadata").remove("annotations");
    let mut off = service("http", &ports);
    off["metadata"]["annotations"]["velt-sidecar/inject"] = "off".into();
    for service in [plain, off] {
        assert_eq!(cluster.create(&service), service);
    }
}

#[test]
fn services_that_lead_to_no_sidecar_are_refused() {
    let http = json!([{"name": "http", "port": 80}]);
    let mut external = service("http", &http);
    external["spec"]["type"] = "ExternalName".into();
    let mut no_selector = service("http", &http);
    no_selector["spec"].as_object_mut().expect("a spec").remove("selector");
    let mut no_ports = service("http", &http);
    no_ports["spec"].as_object_mut().expect("a spec").remove("ports");
    let mut misspelt = service("http", &http);
    misspelt["metadata"]["annotations"] = json!({"velt-sidecar/prot": "http"});
    let mut on = service("http", &http);
    on["metadata"]["annotations"]["velt-sidecar/inject"] = "no".into();
    let udp = json!([{"name": "dns", "port": 53, "protocol": "UDP"}]);
    let cluster = Cluster::of("v1");
    for (service, said) in [
        (service("grpc", &http), "The Service has no port \"grpc\". Write the name or the number"),
        (service("", &http), "The Service has no port \"\""),
        (no_ports, "The Service has no port \"http\""),
        (external, "The Service selects no pods"),
        (no_selector, "The Service selects no pods"),
        (misspelt, "does not know the annotation velt-sidecar/prot of a Service"),
        (on, "Write \"off\" for a Service that goes past the sidecar"),
        (service("dns", &udp), "names a port that is not TCP"),
    ] {
        let refused = cluster.admit(Asked::create(&service)).refused;
        assert!(refused.iter().any(|it| it.contains(said)), "{said}: {refused:?}");
        let mut deleted = service;
        deleted["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        assert_eq!(cluster.admit(Asked::update(&deleted)).refused, [""; 0], "it can go");
    }
}

#[test]
fn a_service_without_its_mutation_is_refused() {
    let mut cluster = Cluster::of("v1");
    cluster.policies.retain(|it| it["kind"] != "MutatingAdmissionPolicy");
    for port in [json!({"port": 80}), json!({"port": 80, "targetPort": 3000})] {
        let refused = cluster.admit(Asked::create(&service("80", &json!([port])))).refused;
        assert!(refused[0].contains("its port does not lead there"), "{refused:?}");
    }
}

//! The component, and the examples that use it.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::pod::Pod;
use super::{BEFORE_NATIVE, NATIVE, complaints, documents, file, of_kind, run_well};
use crate::neighbour::tool;

const DOCUMENT: &str = "docs/kubernetes.md";

fn build_with(kubectl: &str, folder: &Path) -> String {
    run_well(Command::new(tool(kubectl)).arg("kustomize").arg(folder), "")
}

/// What both versions of kubectl make of a folder: the same.
fn build(folder: &Path) -> Vec<Value> {
    let built = build_with("kubectl", folder);
    assert_eq!(documents(&build_with("kubectl-old", folder)), documents(&built));
    documents(&built)
}

/// An overlay of a test's own, beside a copy of deploy/.
fn overlay(manifests: &str, kustomization: &str) -> Vec<Value> {
    let folder = tempfile::tempdir().expect("a folder");
    let own = folder.path().join("overlay");
    copy(&file("deploy"), &folder.path().join("deploy"));
    fs::create_dir(&own).expect("a folder");
    fs::write(own.join("manifests.yaml"), manifests).expect("a disk");
    fs::write(own.join("kustomization.yaml"), kustomization).expect("a disk");
    build(&own)
}

/// Copies a folder.
pub fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let to = to.join(entry.file_name());
        if entry.file_type().expect("a type").is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).expect("a disk");
        }
    }
}

#[test]
fn the_overlay_puts_a_native_sidecar_into_the_example() {
    let objects = build(&file("deploy/kustomize/example/overlay"));
    assert_eq!(complaints(&objects, NATIVE), "");
    let [workload] = of_kind(&objects, "Deployment")[..] else { panic!("one Deployment") };
    let pod = Pod::of(workload, &objects);
    pod.assert_fits();
    pod.assert_restricted(true);
    pod.assert_restricted(false);
    assert_eq!(
        pod.container("initContainers", "velt-sidecar").expect("native")["restartPolicy"],
        "Always"
    );
    let [service] = of_kind(&objects, "Service")[..] else { panic!("one Service") };
    assert_eq!(service["spec"]["ports"][0]["targetPort"], 8080);
}

const ANY: &str = "
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: shop}
spec:
  serviceName: shop
  selector: {matchLabels: {app: shop}}
  template:
    metadata: {labels: {app: shop}}
    spec:
      initContainers:
        - {name: migrate, image: shop, command: [migrate]}
      containers:
        - {name: web, image: shop, env: [{name: A, value: b}]}
        - {name: worker, image: shop}
      volumes:
        - {name: data, emptyDir: {}}
---
apiVersion: v1
kind: Service
metadata: {name: shop}
spec: {selector: {app: shop}, ports: [{name: http, port: 80}, {name: grpc, port: 81}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: redis, labels: {velt-sidecar/inject: \"false\"}}
spec:
  selector: {matchLabels: {app: redis}}
  template:
    metadata: {labels: {app: redis}}
    spec: {containers: [{name: redis, image: redis}]}
";

/// All that an overlay needs: the component, and a Secret that somebody has made.
fn minimal(component: &str) -> String {
    format!("resources: [manifests.yaml]\ncomponents: [../deploy/kustomize/{component}]\n")
}

#[test]
fn any_workload_gets_it_and_keeps_what_it_has() {
    let objects = overlay(ANY, &minimal("component"));
    assert_eq!(complaints(&objects, NATIVE), "");
    let [workload] = of_kind(&objects, "StatefulSet")[..] else { panic!("one StatefulSet") };
    let pod = Pod::of(workload, &objects);
    pod.assert_fits();
    pod.assert_restricted(true);
    let spec = &workload["spec"]["template"]["spec"];
    let before = documents(ANY);
    assert_eq!(spec["containers"], before[0]["spec"]["template"]["spec"]["containers"]);
    assert!(pod.container("initContainers", "migrate").is_some(), "{spec}");
    assert_eq!(spec["volumes"].as_array().map(Vec::len), Some(2), "{spec}");
    let [service] = of_kind(&objects, "Service")[..] else { panic!("one Service") };
    let ports = &service["spec"]["ports"];
    assert_eq!((&ports[0]["targetPort"], &ports[1]["targetPort"]), (&8080.into(), &Value::Null));
    // What says that it wants none has none.
    assert_eq!(of_kind(&objects, "Deployment"), [&before[2]]);
}

#[test]
fn before_1_29_it_is_an_ordinary_container_that_drains_first() {
    let objects = overlay(ANY, &minimal("component-before-1.29"));
    assert_eq!(complaints(&objects, BEFORE_NATIVE), "");
    assert_eq!(complaints(&objects, NATIVE), "");
    let [workload] = of_kind(&objects, "StatefulSet")[..] else { panic!("one StatefulSet") };
    let pod = Pod::of(workload, &objects);
    pod.assert_fits();
    pod.assert_restricted(true);
    assert!(pod.container("initContainers", "velt-sidecar").is_none());
}

#[test]
fn the_pre_stop_hooks_are_commands_that_there_are() {
    for (component, expected) in [
        ("component", &["/usr/local/bin/velt-sidecar", "drain"][..]),
        ("component-before-1.29", &["/usr/local/bin/velt-sidecar", "drain", "--wait", "10s"]),
    ] {
        let objects = overlay(ANY, &minimal(component));
        let [workload] = of_kind(&objects, "StatefulSet")[..] else { panic!("one StatefulSet") };
        let sidecar = Pod::of(workload, &objects).sidecar();
        let command = &sidecar["lifecycle"]["preStop"]["exec"]["command"];
        assert_eq!(*command, serde_json::json!(expected), "{component}");
    }
}

#[test]
fn the_example_behind_oauth2_proxy_leaves_one_way_in() {
    let objects = build(&file("deploy/examples/oauth2-proxy"));
    assert_eq!(complaints(&objects, NATIVE), "");
    let workloads = of_kind(&objects, "Deployment");
    assert_eq!(workloads.len(), 2);
    for workload in workloads {
        let pod = Pod::of(workload, &objects);
        pod.assert_restricted(false);
        if workload["metadata"]["name"] == "app" {
            pod.assert_fits();
        }
    }
    // Who may reach which pods at all, beside Prometheus.
    let policies = of_kind(&objects, "NetworkPolicy");
    let named = |name: &str| {
        let found = policies.iter().find(|policy| policy["metadata"]["name"] == name);
        &found.unwrap_or_else(|| panic!("the policy {name}"))["spec"]
    };
    assert_eq!(named("default-deny")["podSelector"], serde_json::json!({}));
    assert!(
        named("default-deny")["ingress"].is_null() && named("default-deny")["egress"].is_null()
    );
    let way_in = &named("app")["ingress"][0];
    assert_eq!(way_in["ports"], serde_json::json!([{"protocol": "TCP", "port": 8080}]));
    let selector = &way_in["from"][0]["podSelector"]["matchLabels"];
    assert_eq!(*selector, serde_json::json!({"app.kubernetes.io/name": "oauth2-proxy"}));
    let [ingress] = of_kind(&objects, "Ingress")[..] else { panic!("one Ingress") };
    let backend = &ingress["spec"]["rules"][0]["http"]["paths"][0]["backend"];
    assert_eq!(backend["service"]["name"], "oauth2-proxy");
}

#[test]
fn every_component_is_valid_by_itself() {
    for component in ["scrape-annotations", "network-policy", "app-pre-stop"] {
        let objects = overlay(ANY, &minimal(component));
        assert_eq!(complaints(&objects, &NATIVE[1..]), "", "{component}");
    }
    let objects = overlay(ANY, &minimal("../monitoring"));
    assert_eq!(complaints(&objects, NATIVE), "");
}

#[test]
fn the_document_shows_what_the_overlay_changes() {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, of) in [("before.yaml", "app"), ("after.yaml", "overlay")] {
        let built = build_with("kubectl", &file("deploy/kustomize/example").join(of));
        fs::write(folder.path().join(name), built).expect("a disk");
    }
    let mut diff = Command::new(tool("diff"));
    diff.args(["-U2", "--label=before", "--label=after", "before.yaml", "after.yaml"]);
    let differ = diff.current_dir(folder.path()).output().expect("diff runs");
    assert_eq!(differ.status.code(), Some(1), "they differ");
    let shown = String::from_utf8(differ.stdout).expect("text");
    let document = fs::read_to_string(file(DOCUMENT)).expect("the document");
    let (_, rest) = document.split_once("```diff\n").expect("a diff in it");
    let (written, _) = rest.split_once("```").expect("an end");
    assert!(written == shown, "{DOCUMENT} should show this:\n{shown}");
}

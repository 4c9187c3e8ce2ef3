//! The component, and the examples that use it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::pod::Pod;
use super::{BEFORE_NATIVE, NATIVE, complaints, documents, file, of_kind, run, run_well};
use crate::neighbour::tool;

pub const DOCUMENT: &str = "docs/kubernetes.md";

fn build_with(kubectl: &str, folder: &Path) -> String {
    run_well(Command::new(tool(kubectl)).arg("kustomize").arg(folder), "")
}

/// Builds a folder with both versions of kubectl, and returns the result after a check that both are the
/// same.
pub fn build(folder: &Path) -> Vec<Value> {
    let built = build_with("kubectl", folder);
    assert_eq!(documents(&build_with("kubectl-old", folder)), documents(&built));
    documents(&built)
}

/// An overlay of a test, beside a copy of deploy/.
pub struct Overlay {
    folder: TempDir,
}

impl Overlay {
    pub fn of(manifests: &str, kustomization: &str) -> Self {
        let overlay = Self { folder: tempfile::tempdir().expect("a folder") };
        copy(&file("deploy"), &overlay.folder.path().join("deploy"));
        fs::create_dir(overlay.path()).expect("a folder");
        fs::write(overlay.path().join("manifests.yaml"), manifests).expect("a disk");
        fs::write(overlay.path().join("kustomization.yaml"), kustomization).expect("a disk");
        overlay
    }

    pub fn path(&self) -> PathBuf {
        self.folder.path().join("overlay")
    }

    /// Returns the errors of both versions of kubectl.
    pub fn complaints(&self) -> [String; 2] {
        ["kubectl", "kubectl-old"].map(|kubectl| {
            let built = run(Command::new(tool(kubectl)).arg("kustomize").arg(self.path()), "");
            built.expect_err("the build ends")
        })
    }
}

pub fn overlay(manifests: &str, kustomization: &str) -> Vec<Value> {
    build(&Overlay::of(manifests, kustomization).path())
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

/// Returns the pods of the example.
pub fn example() -> Value {
    let objects = build(&file("deploy/kustomize/example/overlay"));
    of_kind(&objects, "Deployment")[0]["spec"]["template"].clone()
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

/// A workload and a Service that are chosen, and a workload that is not.
pub const ANY: &str = "
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: shop, labels: {velt-sidecar/inject: \"true\"}}
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
metadata: {name: shop, labels: {velt-sidecar/inject: first-port}}
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

/// Objects that no label chooses: a database with its Services, another app, a Service without ports.
pub const OTHERS: &str = "
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: postgres}
spec:
  serviceName: postgres
  selector: {matchLabels: {app: postgres}}
  template:
    metadata: {labels: {app: postgres}}
    spec: {containers: [{name: postgres, image: postgres}]}
---
apiVersion: v1
kind: Service
metadata: {name: postgres}
spec: {selector: {app: postgres}, ports: [{name: sql, port: 5432}]}
---
apiVersion: v1
kind: Service
metadata: {name: mail}
spec: {type: ExternalName, externalName: mail.example.com}
---
apiVersion: v1
kind: Service
metadata: {name: peers}
spec: {clusterIP: None, selector: {app: shop}}
";

/// Returns the least that an overlay needs: the component, and an existing Secret.
pub fn minimal(component: &str) -> String {
    format!("resources: [manifests.yaml]\ncomponents: [../deploy/kustomize/{component}]\n")
}

#[test]
fn any_workload_gets_the_sidecar_and_keeps_the_rest() {
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
    // The workload that opts out has no sidecar.
    assert_eq!(of_kind(&objects, "Deployment"), [&before[2]]);
}

#[test]
fn sidecar_before_1_29_is_a_container_that_drains_first() {
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
fn pre_stop_hooks_are_existing_commands() {
    for (component, expected) in [
        ("component", &["/usr/local/bin/velt-sidecar", "drain"][..]),
        ("component-before-1.29", &["/usr/local/bin/velt-sidecar", "drain", "--wait", "10s"]),
    ] {
        let objects = overlay(ANY, &minimal(component));
        let [workload] = of_kind(&objects, "StatefulSet")[..] else { panic!("one StatefulSet") };
        let sidecar = Pod::of(workload, &objects).sidecar();
        let command = &sidecar["lifecycle"]["preStop"]["exec"]["command"];
        assert_eq!(*command, json!(expected), "{component}");
    }
}

#[test]
fn the_example_behind_oauth2_proxy_leaves_one_way_in() {
    let objects = build(&file("deploy/examples/oauth2-proxy"));
    assert_eq!(complaints(&objects, NATIVE), "");
    let workloads = of_kind(&objects, "Deployment");
    assert_eq!(workloads.len(), 3);
    for workload in workloads {
        let pod = Pod::of(workload, &objects);
        pod.assert_restricted(false);
        if workload["metadata"]["name"] == "app" {
            pod.assert_fits();
        }
    }
    // Peers that may reach the pods, beside Prometheus.
    let policies = of_kind(&objects, "NetworkPolicy");
    let named = |name: &str| {
        let found = policies.iter().find(|policy| policy["metadata"]["name"] == name);
        &found.unwrap_or_else(|| panic!("the policy {name}"))["spec"]
    };
    assert_eq!(named("default-deny")["podSelector"], json!({}));
    assert!(
        named("default-deny")["ingress"].is_null() && named("default-deny")["egress"].is_null()
    );
    let way_in = &named("app")["ingress"][0];
    assert_eq!(way_in["ports"], json!([{"protocol": "TCP", "port": 8080}]));
    let selector = &way_in["from"][0]["podSelector"]["matchLabels"];
    assert_eq!(*selector, json!({"app.kubernetes.io/name": "oauth2-proxy"}));
    // The sidecar gets to the store, and only pods with a sidecar do.
    let port = json!([{"protocol": "TCP", "port": 6379}]);
    let store = json!({"app.kubernetes.io/name": "valkey"});
    let way_to_it = &named("app")["egress"][0];
    assert_eq!(way_to_it["to"][0]["podSelector"]["matchLabels"], store);
    assert_eq!((&way_to_it["ports"], &named("valkey")["ingress"][0]["ports"]), (&port, &port));
    let from = json!([{"podSelector": {"matchLabels": {"velt-sidecar/injected": "true"}}}]);
    assert_eq!(named("valkey")["ingress"][0]["from"], from);
    assert!(named("valkey")["egress"].is_null(), "the store calls no other server");
    let [ingress] = of_kind(&objects, "Ingress")[..] else { panic!("one Ingress") };
    let backend = &ingress["spec"]["rules"][0]["http"]["paths"][0]["backend"];
    assert_eq!(backend["service"]["name"], "oauth2-proxy");
}

#[test]
fn every_component_is_valid_by_itself() {
    for component in ["scrape-annotations", "network-policy", "app-pre-stop", "valkey"] {
        let objects = overlay(ANY, &minimal(component));
        assert_eq!(complaints(&objects, &NATIVE[1..]), "", "{component}");
    }
    let objects = overlay(ANY, &minimal("../monitoring"));
    assert_eq!(complaints(&objects, NATIVE), "");
}

#[test]
fn objects_without_the_label_stay_unchanged() {
    for component in ["component", "component-before-1.29"] {
        let manifests = format!("{ANY}{OTHERS}");
        let objects = overlay(&manifests, &minimal(component));
        assert_eq!(complaints(&objects, NATIVE), "");
        let before = documents(OTHERS);
        assert_eq!(before.len(), 4);
        for other in before {
            assert!(objects.contains(&other), "{component}: {other}");
        }
    }
}

#[test]
fn a_label_says_which_port_of_a_service_leads_to_the_sidecar() {
    let ports = [
        json!({"name": "metrics", "port": 9090}),
        json!({"name": "http", "port": 80}),
        json!({"name": "web", "port": 81, "targetPort": "web"}),
        json!({"name": "https", "port": 443, "targetPort": 3000}),
    ];
    for (place, label) in
        ["first-port", "second-port", "third-port", "fourth-port"].iter().enumerate()
    {
        let service = json!({"apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "shop", "labels": {"velt-sidecar/inject": label}},
            "spec": {"selector": {"app": "shop"}, "ports": ports}});
        let objects = overlay(&service.to_string(), &minimal("component"));
        assert_eq!(complaints(&objects, NATIVE), "");
        let [service] = of_kind(&objects, "Service")[..] else { panic!("one Service") };
        for (other, port) in ports.iter().enumerate() {
            let mut expected = port.clone();
            if other == place {
                expected["targetPort"] = 8080.into();
            }
            assert_eq!(service["spec"]["ports"][other], expected, "{label}");
        }
    }
}

#[test]
fn a_label_that_chooses_nothing_ends_the_build_and_says_why() {
    for (from, to, said) in [
        ("inject: \"true\"", "inject: enabled", "a Deployment or StatefulSet is"),
        ("inject: first-port", "inject: \"true\"", "a Service is first-port to fourth-port"),
        ("inject: first-port", "inject: third-port", "/spec/ports/2/targetPort"),
        ("kind: StatefulSet", "kind: DaemonSet", "chooses only a Deployment"),
    ] {
        assert_eq!(ANY.matches(from).count(), 1, "{from}");
        let overlay = Overlay::of(&ANY.replace(from, to), &minimal("component"));
        for complaint in overlay.complaints() {
            assert!(complaint.contains(said), "{to}: {complaint}");
        }
    }
}

/// Returns the container that `kubectl logs` and `kubectl exec` use without `-c`.
fn default_container(workload: &Value) -> &str {
    let template = &workload["spec"]["template"];
    let annotation =
        &template["metadata"]["annotations"]["kubectl.kubernetes.io/default-container"];
    let first = &template["spec"]["containers"][0]["name"];
    annotation.as_str().or(first.as_str()).expect("a name")
}

#[test]
fn app_pre_stop_and_kubectl_go_to_the_app_by_either_component() {
    for component in ["component", "component-before-1.29"] {
        for order in [[component, "app-pre-stop"], ["app-pre-stop", component]] {
            let components = order.map(|it| format!("../deploy/kustomize/{it}")).join(", ");
            let kustomization =
                format!("resources: [manifests.yaml]\ncomponents: [{components}]\n");
            let objects = overlay(&format!("{ANY}{OTHERS}"), &kustomization);
            assert_eq!(complaints(&objects, &NATIVE[1..]), "");
            let workloads = of_kind(&objects, "StatefulSet");
            let shop = workloads.iter().find(|it| it["metadata"]["name"] == "shop").expect("it");
            let pod = Pod::of(shop, &objects);
            let web = pod.container("containers", "web").expect("the app");
            assert_eq!(web["lifecycle"]["preStop"]["sleep"]["seconds"], 10, "{order:?}");
            let hook = &pod.sidecar()["lifecycle"]["preStop"]["exec"]["command"];
            assert_eq!(hook[1], "drain", "{order:?}");
            assert_eq!(default_container(shop), "web", "{order:?}");
            let postgres = workloads.iter().find(|it| it["metadata"]["name"] == "postgres");
            let postgres =
                postgres.expect("it")["spec"]["template"]["spec"]["containers"][0].clone();
            assert!(postgres["lifecycle"].is_null(), "not chosen");
        }
    }
    let objects = build(&file("deploy/examples/oauth2-proxy"));
    for workload in of_kind(&objects, "Deployment") {
        assert_eq!(default_container(workload), workload["metadata"]["name"]);
    }
}

#[test]
fn openshift_component_leaves_the_user_to_the_cluster() {
    let components = "[../deploy/kustomize/component, ../deploy/kustomize/openshift]";
    let kustomization = format!("resources: [manifests.yaml]\ncomponents: {components}\n");
    let objects = overlay(&format!("{ANY}{OTHERS}"), &kustomization);
    assert_eq!(complaints(&objects, NATIVE), "");
    let workloads = of_kind(&objects, "StatefulSet");
    let shop = workloads.iter().find(|it| it["metadata"]["name"] == "shop").expect("it");
    let pod = Pod::of(shop, &objects);
    pod.assert_fits();
    pod.assert_restricted(true);
    let context = &pod.sidecar()["securityContext"];
    assert!(context["runAsUser"].is_null() && context["runAsGroup"].is_null(), "{context}");
}

#[test]
fn the_document_shows_how_a_quota_gets_its_cpu_limit() {
    let document = fs::read_to_string(file(DOCUMENT)).expect("the document");
    let patch = document.split("```yaml\n").find(|it| it.starts_with("# A CPU limit")).expect("it");
    let (patch, _) = patch.split_once("```").expect("an end");
    let objects = overlay(ANY, &format!("{}{patch}", minimal("component")));
    assert_eq!(complaints(&objects, NATIVE), "");
    let [workload] = of_kind(&objects, "StatefulSet")[..] else { panic!("one StatefulSet") };
    let resources = &Pod::of(workload, &objects).sidecar()["resources"];
    assert_eq!(resources["limits"], json!({"cpu": "1", "memory": "256Mi"}), "{resources}");
    let redis = of_kind(&objects, "Deployment")[0];
    assert!(redis["spec"]["template"]["spec"]["initContainers"].is_null(), "{redis}");
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

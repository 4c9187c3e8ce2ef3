//! The Helm chart of the policies, compared with the Kustomize base, with Helm 4 and Helm 3.

use std::process::Command;

use serde_json::{Value, json};

use super::{BETA, Cluster, NEW, merge, pod};
use crate::deploy::kustomize::build;
use crate::deploy::{complaints, documents, file, of_kind, run, run_well};
use crate::neighbour::tool;

const CHART: &str = "deploy/helm/velt-sidecar-injector";
const HELMS: [&str; 2] = ["helm", "helm-old"];

fn helm(helm: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(tool(helm));
    command.args(arguments).current_dir(file(CHART)).env_clear().env("HOME", "/nonexistent");
    command
}

/// Renders the chart with both versions of Helm, which must agree.
fn template(version: &str, namespace: &str, more: &[&str]) -> Result<Vec<Value>, String> {
    let basic = ["template", "demo", ".", "--kube-version", version, "--namespace", namespace];
    let arguments = [&basic[..], more].concat();
    let [new, old] = HELMS.map(|it| run(&mut helm(it, &arguments), ""));
    let new = new.map(|rendered| documents(&rendered));
    assert_eq!(new.as_ref().ok(), old.map(|rendered| documents(&rendered)).as_ref().ok());
    new
}

fn rendered(version: &str, namespace: &str, more: &[&str]) -> Vec<Value> {
    template(version, namespace, more).unwrap_or_else(|error| panic!("{error}"))
}

fn sorted(objects: Vec<Value>) -> Vec<Value> {
    let mut objects = objects;
    objects.retain(|it| it["kind"] != "Namespace");
    objects.sort_by_key(|it| format!("{} {}", it["kind"], it["metadata"]["name"]));
    objects
}

#[test]
fn chart_renders_what_the_kustomize_base_has() {
    for name in HELMS {
        run_well(&mut helm(name, &["lint", "--strict", "."]), "");
        let folder = tempfile::tempdir().expect("a folder");
        let to = folder.path().to_str().expect("a plain path");
        run_well(&mut helm(name, &["package", ".", "--destination", to]), "");
    }
    for (version, base, versions) in [("1.36.2", "v1", NEW), ("1.34.0", "v1beta1", BETA)] {
        let objects = rendered(version, "velt-system", &[]);
        assert_eq!(complaints(&objects, versions), "", "{version}");
        assert_eq!(sorted(objects), sorted(build(&file("deploy/inject").join(base))), "{version}");
    }
}

#[test]
fn chart_works_in_another_namespace_and_with_other_values() {
    let digest = format!("sha256:{}", "0123456789abcdef".repeat(4));
    let image = format!("image.digest={digest},image.pullPolicy=Never,secret=keys,user=null");
    let more = "resources.cpuLimit=1,config.cache\\.max_entries=1000000,config.log\\.format=null";
    let objects = rendered("1.37.0", "auth", &["--set", &image, "--set", more]);
    assert!(!json!(objects).to_string().contains("velt-system"), "the release's namespace");
    let settings = of_kind(&objects, "ConfigMap")[0].clone();
    let mut policies = objects;
    policies.retain(|it| it["kind"] != "ConfigMap");
    let cluster = Cluster { settings: Some(settings.clone()), policies };
    let asked = super::Asked::within(&settings, json!({"name": "auth"}));
    assert_eq!(cluster.admit(asked).refused, [""; 0], "the policies take the chart's settings");
    let created = cluster.create(&pod(&json!({})));
    let sidecar = &created["spec"]["initContainers"][0];
    assert_eq!(sidecar["image"], format!("velt-sidecar@{digest}"));
    assert_eq!(
        (&sidecar["imagePullPolicy"], &sidecar["resources"]["limits"]["cpu"]),
        (&"Never".into(), &"1".into())
    );
    assert!(sidecar["securityContext"]["runAsUser"].is_null(), "{sidecar}");
    let settings = super::settings_of(&created);
    assert_eq!(settings["VELT_SIDECAR_CACHE__MAX_ENTRIES"], "1000000");
    assert!(!settings.contains_key("VELT_SIDECAR_LOG__FORMAT"), "{settings:?}");
    assert_eq!(created["spec"]["volumes"][0]["secret"]["secretName"], "keys");
    let mut own = pod(&json!({}));
    merge(&mut own, &json!({"metadata": {"namespace": "auth"}}));
    let asked = super::Asked::within(&own, json!({"name": "auth"}));
    assert_eq!(cluster.admit(asked).object, own, "its own namespace is left out");
}

#[test]
fn values_that_make_no_sense_are_refused_by_the_chart() {
    for (value, said) in [
        ("imagee.tag=1", "imagee"),
        ("image.digest=sha256:abc", "digest"),
        ("user=0", "user"),
        ("resources.memoryLimit=lots", "memoryLimit"),
        ("resources.cpu=1", "cpu"),
        ("config.listen\\.address=x", "listen.address"),
        ("config.velt\\.auth_token=x", "velt.auth_token"),
    ] {
        let error = template("1.36.0", "velt-system", &["--set", value]).expect_err(value);
        assert!(error.contains(said), "{value}: {error}");
    }
    let error = template("1.33.0", "velt-system", &[]).expect_err("no mutating policies there");
    assert!(error.contains("1.34"), "{error}");
    let error = template("1.36.0", "default", &[]).expect_err("pods live there");
    assert!(error.contains("--namespace velt-system"), "{error}");
}

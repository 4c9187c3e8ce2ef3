//! The library chart, used by the example chart, with Helm 4 and Helm 3.

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use super::kustomize::copy;
use super::pod::Pod;
use super::{NATIVE, complaints, documents, file, of_kind, run, run_well};
use crate::neighbour::tool;

const HELMS: [&str; 2] = ["helm", "helm-old"];

/// A copy of both charts, with the library vendored into the example by `helm`.
struct Charts {
    folder: TempDir,
    helm: PathBuf,
}

impl Charts {
    fn with(helm: &str) -> Self {
        let charts = Self { folder: tempfile::tempdir().expect("a folder"), helm: tool(helm) };
        copy(&file("deploy/helm"), &charts.folder.path().join("helm"));
        run_well(charts.helm(&["dependency", "build"]).arg("."), "");
        charts
    }

    /// Runs Helm in the example's folder, without this machine's settings.
    fn helm(&self, arguments: &[&str]) -> Command {
        let mut helm = Command::new(&self.helm);
        helm.args(arguments).current_dir(self.folder.path().join("helm/example"));
        helm.env_clear().env("HOME", self.folder.path());
        helm
    }

    fn template(&self, more: &[&str]) -> Result<Vec<Value>, String> {
        let arguments = [&["template", "demo", ".", "--kube-version", "1.30.0"], more].concat();
        run(&mut self.helm(&arguments), "").map(|rendered| documents(&rendered))
    }
}

/// Values that change what is rendered.
const VALUES: &[&[&str]] = &[
    &[],
    &["--set", "velt-sidecar.secret.mounted=true"],
    &["--set", STORE],
    &["--set", "velt-sidecar.secret.mounted=true", "--set", STORE],
    &["--set", "velt-sidecar.shared.secret.password=null", "--set", STORE],
    &["--set", "velt-sidecar.ports.http=9090,velt-sidecar.ports.admin=9191"],
    &["--set", "velt-sidecar.config.cache\\.max_entries=1000000"],
    &["--set", "velt-sidecar.config.log\\.format=null"],
    &["--set", "velt-sidecar.config.identity\\.on_ambiguous=drop"],
    &["--set", "velt-sidecar.resources.limits.cpu=500m"],
    &["--set", "velt-sidecar.securityContext.runAsUser=null"],
    &["--set", "velt-sidecar.securityContext.runAsUser=1000680000"],
    ON_OPENSHIFT,
];

/// Value that has the replicas share tokens.
const STORE: &str = "velt-sidecar.shared.addresses={valkey:6379}";

/// Arguments that make Helm see a cluster of `OpenShift`.
const ON_OPENSHIFT: &[&str] = &["--api-versions", "security.openshift.io/v1"];

#[test]
fn the_charts_lint_package_and_render_a_pod_that_fits_the_code() {
    let [new, old] = HELMS.map(|helm| {
        let charts = Charts::with(helm);
        run_well(&mut charts.helm(&["lint", "--strict", ".", "../velt-sidecar"]), "");
        run_well(&mut charts.helm(&["package", ".", "../velt-sidecar", "--destination", ".."]), "");
        assert!(charts.folder.path().join("helm/velt-sidecar-0.1.0.tgz").is_file());
        let rendered = VALUES.iter().map(|more| charts.template(more));
        rendered.collect::<Result<Vec<_>, _>>().unwrap_or_else(|error| panic!("{helm}: {error}"))
    });
    for (more, (objects, by_old)) in VALUES.iter().zip(new.iter().zip(&old)) {
        for kind in ["Deployment", "Service", "NetworkPolicy"] {
            assert_eq!(of_kind(objects, kind), of_kind(by_old, kind), "{more:?}");
        }
        let [workload] = of_kind(objects, "Deployment")[..] else { panic!("one Deployment") };
        let pod = Pod::of(workload, objects);
        pod.assert_fits();
        pod.assert_restricted(true);
        pod.assert_restricted(false);
        let image = concat!("registry.example/velt-sidecar:", env!("CARGO_PKG_VERSION"));
        assert_eq!(pod.sidecar()["image"], image, "the chart's appVersion is the crate's");
        assert_eq!(pod.sidecar()["restartPolicy"], "Always");
    }
    assert_eq!(complaints(&new.concat(), &NATIVE[1..]), "");
}

#[test]
fn values_that_make_no_sense_are_refused() {
    for helm in HELMS {
        let charts = Charts::with(helm);
        for (value, said) in [
            ("imagee.tag=1", "imagee"),
            ("image.pullPolicy=Sometimes", "pullPolicy"),
            ("image.digest=sha256:abc", "digest"),
            ("ports.http=80000", "http"),
            ("securityContext.runAsUser=0", "runAsUser"),
            ("secret.mounted=perhaps", "mounted"),
            ("config.listen_address=x", "listen_address"),
            ("config.velt\\.auth_token=secret", "velt.auth_token"),
            ("config.listen\\.address=0.0.0.0:1", "change velt-sidecar.ports"),
            ("config.shared\\.seal_key=secret", "shared.seal_key"),
            ("shared.adresses={valkey:6379}", "adresses"),
            ("shared.addresses={a:1},velt-sidecar.config.shared\\.addresses=b:2", "keep those in"),
        ] {
            let refused = charts.template(&["--set", &format!("velt-sidecar.{value}")]);
            let error = refused.expect_err(value);
            assert!(error.contains(said), "{value}: {error}");
        }
        let old = ["template", "demo", ".", "--kube-version", "1.28.0"];
        let error = run(&mut charts.helm(&old), "").expect_err("no native sidecars there");
        assert!(error.contains("1.30"), "{error}");
    }
}

#[test]
fn a_digest_wins_over_the_tag() {
    let charts = Charts::with(HELMS[0]);
    let digest = format!("sha256:{}", "0123456789abcdef".repeat(4));
    let value = format!("velt-sidecar.image.digest={digest},velt-sidecar.image.tag=latest");
    let objects = charts.template(&["--set", &value]).unwrap_or_else(|error| panic!("{error}"));
    let [workload] = of_kind(&objects, "Deployment")[..] else { panic!("one Deployment") };
    let image = &Pod::of(workload, &objects).sidecar()["image"];
    assert_eq!(*image, format!("registry.example/velt-sidecar@{digest}"));
}

/// Returns the sidecar's container with some values, after a check that both versions of Helm render the
/// same.
fn container(more: &[&str]) -> Value {
    let [new, old] = HELMS.map(|helm| {
        let rendered = Charts::with(helm).template(more);
        let objects = rendered.unwrap_or_else(|error| panic!("{helm}: {error}"));
        let [workload] = of_kind(&objects, "Deployment")[..] else { panic!("one Deployment") };
        Pod::of(workload, &objects).sidecar().clone()
    });
    assert_eq!(new, old, "{more:?}");
    new
}

#[test]
fn values_adapt_the_charts_to_openshift_and_quotas() {
    let user = |more: &[&str]| {
        let context = &container(more)["securityContext"];
        [context["runAsUser"].clone(), context["runAsGroup"].clone()]
    };
    assert_eq!(user(&[]), [Value::from(65532), Value::from(65532)], "the image's own");
    assert_eq!(user(ON_OPENSHIFT), [Value::Null, Value::Null]);
    let of_namespace = "velt-sidecar.securityContext.runAsUser=1000680000";
    for cluster in [&[][..], ON_OPENSHIFT] {
        let [uid, _] = user(&[cluster, &["--set", of_namespace]].concat());
        assert_eq!(uid, 1_000_680_000, "what is said wins");
    }
    let none = "velt-sidecar.securityContext.runAsUser=null";
    assert_eq!(user(&["--set", none]), [Value::Null, Value::from(65532)]);
    let limited = container(&["--set", "velt-sidecar.resources.limits.cpu=500m"]);
    let expected = serde_json::json!({"cpu": "500m", "memory": "256Mi"});
    assert_eq!(limited["resources"]["limits"], expected);
}

#[test]
fn second_seal_key_and_settings_of_the_store_reach_the_sidecar() {
    let other = "velt-sidecar.shared.secret.otherSealKey=store-other-seal-key";
    let cluster = "velt-sidecar.config.shared\\.mode=cluster";
    let nodes = "velt-sidecar.shared.addresses={a:6379,b:6379}";
    let container = container(&["--set", nodes, "--set", other, "--set", cluster]);
    let settings = container["env"].as_array().expect("variables").iter();
    let settings: Vec<_> = settings
        .filter_map(|one| Some((one["name"].as_str()?, one["value"].as_str()?)))
        .filter(|(name, _)| name.contains("SHARED"))
        .collect();
    let expected = [
        ("VELT_SIDECAR_SHARED__ADDRESSES", "a:6379, b:6379"),
        ("VELT_SIDECAR_SHARED__MODE", "cluster"),
        (
            "VELT_SIDECAR_SHARED__OTHER_SEAL_KEY_FILE",
            "/run/secrets/velt-store/store-other-seal-key",
        ),
        ("VELT_SIDECAR_SHARED__PASSWORD_FILE", "/run/secrets/velt-store/store-password"),
        ("VELT_SIDECAR_SHARED__SEAL_KEY_FILE", "/run/secrets/velt-store/store-seal-key"),
    ];
    assert_eq!(settings, expected);
}

#[test]
fn kubectl_logs_goes_to_the_examples_app() {
    let charts = Charts::with(HELMS[0]);
    let objects = charts.template(&[]).unwrap_or_else(|error| panic!("{error}"));
    let [workload] = of_kind(&objects, "Deployment")[..] else { panic!("one Deployment") };
    let annotations = &workload["spec"]["template"]["metadata"]["annotations"];
    assert_eq!(annotations["kubectl.kubernetes.io/default-container"], "app");
}

/// Returns the pods of the example, as labels and ports, for tests of label selectors.
pub fn example() -> Value {
    let charts = Charts::with(HELMS[0]);
    let objects = charts.template(&[]).unwrap_or_else(|error| panic!("{error}"));
    of_kind(&objects, "Deployment")[0]["spec"]["template"].clone()
}

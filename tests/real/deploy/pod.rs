//! A pod with a sidecar in it, as a manifest describes it, compared with the code.

use std::collections::BTreeMap;
use std::fs;
use std::net::Ipv6Addr;
use std::process::Command;

use serde_json::Value;
use server::config::Config;
use tools::probe::Probe;

use super::run;

/// Folders into which the manifests mount Secrets. None begins as another one before it.
const SECRET_FOLDERS: [&str; 2] = ["/run/secrets/velt-store", "/run/secrets/velt"];

/// A key for `shared.seal_key_file`.
pub const SEAL_KEY: &str = "c2VhbCBrZXkgb2YgMzIgYnl0ZXMgZm9yIGEgdGVzdC4=";

/// Kubernetes' default for `terminationGracePeriodSeconds`.
const DEFAULT_TERMINATION_GRACE: u64 = 30;

/// The pod of a Deployment or `StatefulSet`, and the other objects rendered with it.
pub struct Pod<'a> {
    spec: &'a Value,
    objects: &'a [Value],
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}"))
}

impl<'a> Pod<'a> {
    pub fn of(workload: &'a Value, objects: &'a [Value]) -> Self {
        Self { spec: &workload["spec"]["template"]["spec"], objects }
    }

    pub fn container(&self, kind: &str, name: &str) -> Option<&'a Value> {
        list(&self.spec[kind]).iter().find(|container| container["name"] == name)
    }

    /// Returns the sidecar, native or not.
    pub fn sidecar(&self) -> &'a Value {
        let native = self.container("initContainers", "velt-sidecar");
        native.or(self.container("containers", "velt-sidecar")).expect("a sidecar")
    }

    /// Returns the sidecar's environment as the kubelet puts it together.
    pub fn environment(&self) -> BTreeMap<String, String> {
        let sidecar = self.sidecar();
        let mut environment = BTreeMap::new();
        for from in list(&sidecar["envFrom"]) {
            let name = &from["configMapRef"]["name"];
            let mut maps = self.objects.iter().filter(|object| object["kind"] == "ConfigMap");
            let Some(map) = maps.find(|map| map["metadata"]["name"] == *name) else {
                assert_eq!(from["configMapRef"]["optional"], true, "{name} is there");
                continue;
            };
            for (name, value) in map["data"].as_object().expect("data") {
                environment.insert(name.clone(), text(value).to_owned());
            }
        }
        for variable in list(&sidecar["env"]) {
            let value = match &variable["value"] {
                Value::Null => {
                    text(&variable["valueFrom"]["secretKeyRef"]["key"]).to_owned() + "-as-secret"
                }
                value => text(value).to_owned(),
            };
            environment.insert(text(&variable["name"]).to_owned(), value);
        }
        environment
    }

    /// Asserts that all settings of the manifest fit the code, the ports, and the time for the end.
    pub fn assert_fits(&self) {
        let config = self.checked();
        self.assert_ports(&config);
        self.assert_ends_in_time(&config);
    }

    /// Asserts that the sidecar accepts the manifest's environment, and returns the settings.
    pub fn checked(&self) -> Config {
        let mounted = tempfile::tempdir().expect("a folder");
        for key in ["api-key", "auth-token", "front-secret", "store-password"] {
            fs::write(mounted.path().join(key), format!("the-{key}-of-32-bytes-or-more\n"))
                .expect("a disk");
        }
        fs::write(mounted.path().join("store-seal-key"), SEAL_KEY).expect("a disk");
        let here = mounted.path().to_str().expect("a plain path");
        let mut environment = self.environment();
        for value in environment.values_mut() {
            let folder = SECRET_FOLDERS.iter().find(|folder| value.starts_with(**folder));
            if let Some(folder) = folder {
                self.assert_mounted(folder);
                *value = value.replace(folder, here);
            }
        }
        let mut check = Command::new(env!("CARGO_BIN_EXE_velt-sidecar"));
        check.arg("check").current_dir(here).env_clear().envs(&environment);
        run(&mut check, "").unwrap_or_else(|error| panic!("{error}"));
        Config::parse("", "", &environment).expect("it has just been checked")
    }

    fn assert_mounted(&self, folder: &str) {
        let mounts = list(&self.sidecar()["volumeMounts"]);
        let mount = mounts.iter().find(|mount| mount["mountPath"] == folder);
        let name = &mount.expect("a mount")["name"];
        let mut volumes = list(&self.spec["volumes"]).iter();
        assert!(volumes.any(|volume| volume["name"] == *name), "the volume {name}");
    }

    fn assert_ports(&self, config: &Config) {
        let sidecar = self.sidecar();
        let ports: BTreeMap<_, _> = list(&sidecar["ports"])
            .iter()
            .map(|port| (text(&port["name"]), port["containerPort"].as_u64().expect("a number")))
            .collect();
        let expected = [
            ("velt-http", u64::from(config.listen.address.port())),
            ("velt-admin", u64::from(config.admin.address.port())),
        ];
        assert_eq!(ports, BTreeMap::from(expected));
        for address in [config.listen.address, config.admin.address] {
            // A pod's addresses may be of either family, or of both.
            assert_eq!(address.ip(), Ipv6Addr::UNSPECIFIED, "{address}");
        }
        for (probe, expected) in [
            ("startupProbe", Probe::Startup),
            ("readinessProbe", Probe::Ready),
            ("livenessProbe", Probe::Live),
        ] {
            let asked = &sidecar[probe]["httpGet"];
            assert_eq!(
                (&asked["path"], &asked["port"]),
                (&expected.path().into(), &"velt-admin".into())
            );
        }
    }

    /// Asserts that hooks, grace and deadline, one after another, end before the kubelet kills the pod.
    fn assert_ends_in_time(&self, config: &Config) {
        let sleeps = list(&self.spec["containers"]).iter().map(|container| {
            let hook = &container["lifecycle"]["preStop"];
            let exec = list(&hook["exec"]["command"]).last().and_then(Value::as_str);
            let exec = exec.and_then(|last| last.trim_end_matches('s').parse().ok());
            hook["sleep"]["seconds"].as_u64().or(exec).unwrap_or_default()
        });
        let ours = (config.shutdown.grace + config.shutdown.deadline).as_secs();
        let needed = sleeps.max().unwrap_or_default() + ours;
        let patience = &self.spec["terminationGracePeriodSeconds"];
        let patience = patience.as_u64().unwrap_or(DEFAULT_TERMINATION_GRACE);
        assert!(needed + 5 < patience, "{needed} s and the app's own end, of {patience} s");
    }

    /// Asserts the Pod Security level `restricted`, as far as it concerns a container `alone`, or a container
    /// together with its pod.
    pub fn assert_restricted(&self, alone: bool) {
        let containers = ["initContainers", "containers"].map(|kind| list(&self.spec[kind]));
        for container in containers.into_iter().flatten() {
            if alone && container["name"] != "velt-sidecar" {
                continue;
            }
            let (name, own) = (&container["name"], &container["securityContext"]);
            let pods = if alone { &Value::Null } else { &self.spec["securityContext"] };
            let either = |key: &str| {
                if own[key].is_null() { pods[key].clone() } else { own[key].clone() }
            };
            assert_eq!(either("runAsNonRoot"), true, "{name}");
            assert_ne!(either("runAsUser"), 0, "{name}");
            assert_eq!(either("seccompProfile")["type"], "RuntimeDefault", "{name}");
            assert_eq!(own["allowPrivilegeEscalation"], false, "{name}");
            assert_eq!(own["capabilities"]["drop"], serde_json::json!(["ALL"]), "{name}");
            assert_eq!(own["readOnlyRootFilesystem"], true, "{name}");
            assert!(own["capabilities"]["add"].is_null() && own["privileged"].is_null(), "{name}");
            for port in list(&container["ports"]) {
                assert!(port["hostPort"].is_null(), "{name}");
            }
        }
        for key in ["hostNetwork", "hostPID", "hostIPC"] {
            assert!(self.spec[key].is_null(), "{key}");
        }
        for volume in list(&self.spec["volumes"]) {
            assert!(volume["hostPath"].is_null(), "{volume}");
        }
    }
}

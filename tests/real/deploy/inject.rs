//! Policies by which one annotation puts the sidecar into a pod, with `admission.py` in the API server's place.

mod chart;
mod refusals;
mod services;

use std::collections::BTreeMap;
use std::fs;

use serde_json::{Value, json};

use super::kustomize::{ANY, Overlay, build, minimal};
use super::pod::Pod;
use super::{complaints, documents, file, of_kind, python};

/// Versions of the API that have the policies as `v1`, and those that have them as `v1beta1`.
const NEW: &[&str] = &["1.36", "1.37"];
const BETA: &[&str] = &["1.34", "1.35"];

const POD_ANNOTATION: &str = "velt-sidecar/app-port";

/// A cluster with the policies of `deploy/inject`, and the settings that its administrator wrote.
struct Cluster {
    policies: Vec<Value>,
    settings: Option<Value>,
}

/// One request to the API server.
struct Asked {
    object: Value,
    operation: &'static str,
    namespace: Value,
}

/// Answer of the API server to a request.
struct Admitted {
    object: Value,
    /// Messages of the policies that refused the object.
    refused: Vec<String>,
    /// Failures of mutations that the API server ignored.
    errors: Vec<String>,
}

impl Asked {
    fn create(object: &Value) -> Self {
        Self { object: object.clone(), operation: "CREATE", namespace: json!({"name": "shop"}) }
    }

    fn within(object: &Value, namespace: Value) -> Self {
        Self { namespace, ..Self::create(object) }
    }

    fn update(object: &Value) -> Self {
        Self { operation: "UPDATE", ..Self::create(object) }
    }
}

impl Cluster {
    /// Returns a cluster with what a folder of `deploy/inject` makes.
    fn of(folder: &str) -> Self {
        let objects = build(&file("deploy/inject").join(folder));
        let settings = of_kind(&objects, "ConfigMap")[0].clone();
        let policies = objects
            .into_iter()
            .filter(|it| it["kind"].as_str().expect("a kind").contains("Policy"));
        Self { policies: policies.collect(), settings: Some(settings) }
    }

    /// Returns a cluster with changes of the settings. Null removes a key.
    fn with(changes: &Value) -> Self {
        let mut cluster = Self::of("v1");
        let data = &mut cluster.settings.as_mut().expect("settings")["data"];
        merge(data, changes);
        cluster
    }

    fn policy(&mut self, kind: &str, name: &str) -> &mut Value {
        let mut found = self.policies.iter_mut();
        found.find(|it| it["kind"] == kind && it["metadata"]["name"] == name).expect("the policy")
    }

    fn admit_all(&self, asked: Vec<Asked>) -> Vec<Admitted> {
        let requests: Vec<_> = asked
            .into_iter()
            .map(|it| {
                json!({"object": it.object, "operation": it.operation, "namespace": it.namespace,
                "settings": self.settings})
            })
            .collect();
        let input = json!({"policies": self.policies, "requests": requests}).to_string();
        let admitted: Vec<Value> =
            serde_json::from_str(&python("admission.py", &[], &input)).expect("JSON");
        let texts = |it: &Value| serde_json::from_value(it.clone()).expect("texts");
        let of = |it: &Value| Admitted {
            object: it["object"].clone(),
            refused: texts(&it["refused"]),
            errors: texts(&it["errors"]),
        };
        admitted.iter().map(of).collect()
    }

    fn admit(&self, asked: Asked) -> Admitted {
        self.admit_all(vec![asked]).remove(0)
    }

    /// Returns the object after its creation, which no policy refuses.
    fn create(&self, object: &Value) -> Value {
        let admitted = self.admit(Asked::create(object));
        assert_eq!(admitted.refused, [""; 0], "{object}");
        assert_eq!(admitted.errors, [""; 0], "{object}");
        admitted.object
    }
}

/// Changes an object as a merge patch does.
fn merge(object: &mut Value, changes: &Value) {
    for (key, change) in changes.as_object().expect("changes") {
        if change.is_null() {
            object.as_object_mut().expect("an object").remove(key);
        } else if change.is_object() && object[key].is_object() {
            merge(&mut object[key], change);
        } else {
            object[key] = change.clone();
        }
    }
}

/// Returns a pod that asks for the sidecar, with some changes.
fn pod(changes: &Value) -> Value {
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "web", "labels": {"app": "web"}, "annotations": {POD_ANNOTATION: "3000"}},
        "spec": {"containers": [{"name": "web", "image": "web", "ports": [{"containerPort": 3000}]}]}});
    merge(&mut pod, changes);
    pod
}

/// Returns a Deployment whose template is a pod.
fn deployment(pod: &Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {"selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}, "annotations": pod["metadata"]["annotations"]},
                "spec": pod["spec"]}}})
}

fn names(containers: &Value) -> Vec<&str> {
    let containers = containers.as_array().expect("containers");
    containers.iter().map(|it| it["name"].as_str().expect("a name")).collect()
}

#[test]
fn both_forms_fit_the_strict_schemas_of_their_versions() {
    let objects = build(&file("deploy/inject/v1"));
    assert_eq!(complaints(&objects, NEW), "");
    let beta = build(&file("deploy/inject/v1beta1"));
    assert_eq!(complaints(&beta, BETA), "");
    let mutating = |objects: &[Value]| -> Vec<Value> {
        let kinds = ["MutatingAdmissionPolicy", "MutatingAdmissionPolicyBinding"];
        kinds.iter().flat_map(|kind| of_kind(objects, kind)).cloned().collect()
    };
    assert_eq!(mutating(&objects).len(), 4);
    // Nothing but the version differs.
    let text = serde_json::to_string(&objects).expect("JSON");
    let parts = ["v1\",\"kind\":\"Mutating", "v1beta1\",\"kind\":\"Mutating"];
    let renamed: Vec<Value> =
        serde_json::from_str(&text.replace(parts[0], parts[1])).expect("JSON");
    assert_eq!(beta.len(), objects.len());
    assert!(renamed.iter().all(|it| beta.contains(it)), "{beta:?}");
    let misspelt = text.replace("\"reinvocationPolicy\"", "\"reinvocationpolicy\"");
    let misspelt: Vec<Value> = serde_json::from_str(&misspelt).expect("JSON");
    assert!(complaints(&misspelt, NEW).contains("reinvocationpolicy"), "the schemas are strict");
}

#[test]
fn mutations_use_only_what_each_version_of_the_api_has() {
    for policy in Cluster::of("v1").policies {
        let text = policy.to_string();
        // Kubernetes 1.34 takes new expressions of 1.33 alone, which has no `lists` and no `sort`.
        for newer in ["lists.", ".sort(", "optional.", "?."] {
            assert!(!text.contains(newer), "{newer}: {text}");
        }
        let spec = &policy["spec"];
        if policy["kind"] == "MutatingAdmissionPolicy" {
            assert!(spec["variables"].is_null(), "kubernetes/kubernetes#134808");
            assert_eq!(spec["failurePolicy"], "Ignore", "pods that did not ask go on");
            assert_eq!(spec["mutations"].as_array().map(Vec::len), Some(1), "one patch");
        }
        // The API asks for a message if an expression has several lines, and wants no line break in it.
        for validation in spec["validations"].as_array().into_iter().flatten() {
            for key in ["expression", "message"] {
                let text = validation[key].as_str().expect("a text");
                assert!(!text.contains('\n') && !text.is_empty(), "{key}: {text}");
            }
        }
    }
}

/// The pod of [`ANY`] as the controller of a `StatefulSet` creates it, without and with the component.
fn with_the_component() -> (Value, Vec<Value>) {
    let before = documents(ANY).remove(0);
    let template = &before["spec"]["template"];
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": template["metadata"],
        "spec": template["spec"]});
    pod["metadata"]["annotations"] = json!({POD_ANNOTATION: "3000"});
    (pod, build(&Overlay::of(ANY, &minimal("component")).path()))
}

#[test]
fn injected_sidecar_is_that_of_the_component() {
    let (pod, objects) = with_the_component();
    let workload = of_kind(&objects, "StatefulSet")[0];
    let component = Pod::of(workload, &objects);
    let created = Cluster::of("v1").create(&pod);
    let workload_of_it = json!({"spec": {"template": created}});
    let injected = Pod::of(&workload_of_it, &[]);
    injected.assert_fits();
    injected.assert_restricted(true);
    let mut expected = component.environment();
    expected.insert("VELT_SIDECAR_APP__ADDRESS".into(), "127.0.0.1:3000".into());
    assert_eq!(injected.environment(), expected);
    // All but the way in which the settings come.
    let without = |sidecar: &Value| {
        let mut sidecar = sidecar.clone();
        merge(&mut sidecar, &json!({"env": null, "envFrom": null}));
        sidecar
    };
    assert_eq!(without(injected.sidecar()), without(component.sidecar()));
    let optional = json!([{"configMapRef": {"name": "velt-sidecar", "optional": true}}]);
    assert_eq!(injected.sidecar()["envFrom"], optional);
    let template = &workload["spec"]["template"];
    let sorted = |list: &Value| {
        let mut list = list.as_array().expect("a list").clone();
        list.sort_by_key(|it| it["name"].to_string());
        list
    };
    assert_eq!(sorted(&created["spec"]["volumes"]), sorted(&template["spec"]["volumes"]));
    assert_eq!(created["spec"]["containers"], template["spec"]["containers"]);
    assert_eq!(created["metadata"]["labels"], template["metadata"]["labels"]);
    assert_eq!(names(&created["spec"]["initContainers"]), ["velt-sidecar", "migrate"]);
}

#[test]
fn sidecar_comes_first_and_once_into_any_pod_that_asks() {
    let init = |name: &str| json!([{"name": name, "image": "a", "restartPolicy": "Always"}]);
    let volume = json!([{"name": "data", "emptyDir": {}}]);
    let two = json!([{"name": "web", "image": "web"}, {"name": "worker", "image": "web"}]);
    let pods = [
        json!({}),
        json!({"spec": {"initContainers": init("istio-proxy")}}),
        json!({"spec": {"initContainers": [], "volumes": []}}),
        json!({"spec": {"volumes": volume, "containers": two}}),
        json!({"metadata": {"labels": null, "name": null, "generateName": "web-"}}),
        json!({"spec": {"restartPolicy": "Never"}}),
        json!({"metadata": {"annotations": {"a.example/b": "velt-sidecar/c"}}}),
    ];
    let cluster = Cluster::of("v1");
    for changes in pods {
        let pod = pod(&changes);
        let created = cluster.create(&pod);
        let containers = names(&created["spec"]["initContainers"]);
        assert_eq!(containers[0], "velt-sidecar", "{created}");
        let there = pod["spec"]["initContainers"].as_array().map_or(0, Vec::len);
        assert_eq!(containers.len(), 1 + there, "{created}");
        assert_eq!(created["spec"]["containers"], pod["spec"]["containers"]);
        assert_eq!(created["metadata"]["labels"]["velt-sidecar/injected"], "true");
        let volumes = created["spec"]["volumes"].as_array().expect("volumes");
        assert_eq!(volumes.last().expect("one")["secret"]["secretName"], "velt", "{created}");
        assert_eq!(cluster.create(&created), created, "twice changes nothing");
        let mut valid = created;
        merge(&mut valid, &json!({"metadata": {"name": "web"}}));
        assert_eq!(complaints(&[valid], NEW), "");
    }
}

#[test]
fn pods_and_namespaces_that_opt_out_stay_unchanged() {
    let off = json!({"metadata": {"annotations": {"velt-sidecar/inject": "off"}}});
    let not_asked = json!({"metadata": {"annotations": null}, "spec": {"hostNetwork": true}});
    let own = json!([{"name": "velt-sidecar", "image": "own", "restartPolicy": "Always"}]);
    let ordinary =
        json!([{"name": "web", "image": "web"}, {"name": "velt-sidecar", "image": "own"}]);
    let mirror = json!({"metadata": {"annotations": {"kubernetes.io/config.mirror": "a"}}});
    let mut asked: Vec<_> = [
        off,
        not_asked,
        json!({"spec": {"initContainers": own}}),
        json!({"spec": {"containers": ordinary}}),
        mirror,
    ]
    .iter()
    .map(|changes| Asked::create(&pod(changes)))
    .collect();
    for namespace in [
        json!({"name": "kube-system"}),
        json!({"name": "velt-system"}),
        json!({"name": "shop", "labels": {"velt-sidecar/inject": "off"}}),
    ] {
        asked.push(Asked::within(&pod(&json!({})), namespace));
    }
    asked.push(Asked::update(&pod(&json!({}))));
    let before: Vec<_> = asked.iter().map(|it| it.object.clone()).collect();
    for (before, after) in before.iter().zip(Cluster::of("v1").admit_all(asked)) {
        assert_eq!(after.object, *before);
        assert_eq!((after.refused, after.errors), (vec![], vec![]), "{before}");
    }
}

/// Returns the injected container's settings by name.
fn settings_of(pod: &Value) -> BTreeMap<String, String> {
    Pod::of(&json!({"spec": {"template": pod}}), &[]).environment()
}

#[test]
fn settings_of_the_pod_win_over_those_of_the_cluster() {
    let cluster = Cluster::of("example");
    let annotations = json!({"metadata": {"annotations": {
        POD_ANNOTATION: "8000",
        "velt-sidecar/secret": "velt-of-shop",
        "velt-sidecar/set.cache.max_bytes": "128MiB",
        "velt-sidecar/set.log.level": "debug",
    }}});
    let created = cluster.create(&pod(&annotations));
    let settings = settings_of(&created);
    for (name, value) in [
        ("APP__ADDRESS", "127.0.0.1:8000"),
        ("CACHE__MAX_BYTES", "128MiB"),
        ("LOG__LEVEL", "debug"),
        ("IDENTITY__TRUSTED_PEERS", "10.42.0.0/16"),
        ("SHUTDOWN__GRACE", "0s"),
    ] {
        assert_eq!(settings[&format!("VELT_SIDECAR_{name}")], value);
    }
    let env = created["spec"]["initContainers"][0]["env"].as_array().expect("variables");
    assert_eq!(env.len(), settings.len(), "no variable stands there twice");
    assert_eq!(created["spec"]["volumes"][0]["secret"]["secretName"], "velt-of-shop");
    Pod::of(&json!({"spec": {"template": created}}), &[]).assert_fits();
}

#[test]
fn settings_adapt_the_sidecar_to_openshift_and_quotas() {
    let changes = json!({"user": null, "cpuLimit": "500m", "imagePullPolicy": "Always"});
    let created = Cluster::with(&changes).create(&pod(&json!({})));
    let sidecar = &created["spec"]["initContainers"][0];
    let context = &sidecar["securityContext"];
    assert!(context["runAsUser"].is_null() && context["runAsGroup"].is_null(), "{context}");
    assert_eq!(sidecar["resources"]["limits"], json!({"cpu": "500m", "memory": "256Mi"}));
    assert_eq!(sidecar["imagePullPolicy"], "Always");
    assert_eq!(complaints(&[created], NEW), "");
}

#[test]
fn types_of_literals_are_checked_by_the_stand_in() {
    let mut cluster = Cluster::of("v1");
    let policy = cluster.policy("MutatingAdmissionPolicy", "velt-sidecar-pods");
    let expression = &mut policy["spec"]["mutations"][0]["jsonPatch"]["expression"];
    let right = "startupProbe: Object.spec.initContainers.startupProbe{";
    let wrong =
        expression.as_str().expect("CEL").replace(right, "startupProbe: Object.spec.wrong{");
    *expression = wrong.into();
    let input = json!({"policies": cluster.policies, "requests": []}).to_string();
    let mut stand_in = std::process::Command::new(crate::neighbour::tool("python-of-deploy"));
    stand_in.arg(file("tests/real/deploy/admission.py"));
    let refused = super::run(&mut stand_in, &input).expect_err("a wrong type");
    assert!(refused.contains("the type Object.spec.wrong stands where"), "{refused}");
}

#[test]
fn the_document_shows_a_deployment_that_the_policies_take() {
    let text = fs::read_to_string(file("docs/kubernetes-annotation.md")).expect("the document");
    let start = text.split("```yaml\n").find(|it| it.starts_with("# The app's own manifests"));
    let (shown, _) = start.expect("the example").split_once("```").expect("an end");
    let objects = documents(shown);
    assert_eq!(complaints(&objects, NEW), "");
    let cluster = Cluster::of("v1");
    let workload = cluster.create(of_kind(&objects, "Deployment")[0]);
    let template = &workload["spec"]["template"];
    let created = cluster.create(&json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": template["metadata"], "spec": template["spec"]}));
    assert_eq!(names(&created["spec"]["initContainers"]), ["velt-sidecar"]);
    let service = cluster.create(of_kind(&objects, "Service")[0]);
    assert_eq!(service["spec"]["ports"][0]["targetPort"], 8080);
}

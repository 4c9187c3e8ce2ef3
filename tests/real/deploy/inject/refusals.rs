//! Refusals: pods, workloads and settings that can't have the sidecar, and what each message says to write.

use std::fs;

use serde_json::{Value, json};

use super::{Asked, Cluster, POD_ANNOTATION, deployment, pod};
use crate::deploy::file;

fn annotated(name: &str, value: &str) -> Value {
    json!({"metadata": {"annotations": {name: value}}})
}

/// Returns changes that make a pod impossible, and a part of the message for each.
fn impossible() -> Vec<(Value, &'static str)> {
    let port = |value: &str| annotated(POD_ANNOTATION, value);
    let set = |name: &str| annotated(&format!("velt-sidecar/set.{name}"), "1");
    let declared = |port: u16| json!([{"name": "web", "ports": [{"containerPort": port}]}]);
    let misspelt =
        json!({"metadata": {"annotations": {POD_ANNOTATION: null, "velt-sidecar/appport": "1"}}});
    let no_port =
        json!({"metadata": {"annotations": {POD_ANNOTATION: null, "velt-sidecar/secret": "a"}}});
    vec![
        (misspelt, "does not know the annotation velt-sidecar/appport"),
        (annotated("velt-sidecar/port", "http"), "does not know the annotation velt-sidecar/port"),
        (annotated("velt-sidecar/inject", "false"), "The only value of the annotation"),
        (no_port, "Write velt-sidecar/app-port: \"3000\""),
        (port(""), "Write velt-sidecar/app-port: \"3000\""),
        (port("http"), "is \"http\". Write the number"),
        (port("0"), "is \"0\""),
        (port("65536"), "is \"65536\""),
        (port("99999999999"), "is \"99999999999\""),
        (port("3000 "), "is \"3000 \""),
        (port("8080"), "is 8080, on which the sidecar listens"),
        (port("9901"), "is 9901, on which the sidecar listens"),
        (json!({"spec": {"containers": declared(8080)}}), "The container web declares port 8080"),
        (
            json!({"spec": {"initContainers": declared(9901)}}),
            "The container web declares port 8080",
        ),
        (json!({"spec": {"hostNetwork": true}}), "Remove hostNetwork"),
        (json!({"spec": {"os": {"name": "windows"}}}), "for Linux only"),
        (annotated("velt-sidecar/secret", "My Secret"), "does not name a Secret"),
        (set("listen.address"), "velt-sidecar/set.listen.address"),
        (set("velt.auth_token"), "secrets are keys of the Secret"),
        (set("maxbytes"), "such as velt-sidecar/set.cache.max_bytes"),
        (set("Cache.max_bytes"), "such as velt-sidecar/set.cache.max_bytes"),
    ]
}

#[test]
fn pods_that_can_not_have_the_sidecar_are_told_what_to_write() {
    let cluster = Cluster::of("v1");
    let asked = impossible().iter().map(|(changes, _)| Asked::create(&pod(changes))).collect();
    let admitted = cluster.admit_all(asked);
    for ((changes, said), admitted) in impossible().iter().zip(admitted) {
        let [refused] = &admitted.refused[..] else { panic!("{changes}: {:?}", admitted.refused) };
        assert!(refused.starts_with("velt-sidecar-pods: ") && refused.contains(said), "{refused}");
    }
}

#[test]
fn workloads_are_refused_for_the_mistakes_of_their_pods() {
    let cluster = Cluster::of("v1");
    let asked =
        impossible().into_iter().map(|(changes, _)| Asked::create(&deployment(&pod(&changes))));
    for ((changes, said), admitted) in impossible().iter().zip(cluster.admit_all(asked.collect())) {
        let [refused] = &admitted.refused[..] else { panic!("{changes}: {:?}", admitted.refused) };
        assert!(refused.contains(said), "{refused}");
        assert_eq!(admitted.object["kind"], "Deployment", "unchanged: the mutation is of pods");
    }
    let checks = |name: &str| {
        let policies =
            cluster.policies.iter().filter(|it| it["kind"] == "ValidatingAdmissionPolicy");
        let mut policies = policies.filter(|it| it["metadata"]["name"] == name);
        let policy = policies.next().expect("the policy").clone();
        let messages = policy["spec"]["validations"].as_array().expect("checks").iter();
        messages.map(|it| it["message"].to_string()).collect::<Vec<_>>()
    };
    let (pods, workloads) = (checks("velt-sidecar-pods"), checks("velt-sidecar-workloads"));
    assert_eq!(pods[..pods.len() - 1], workloads[1..], "each but the first and the last");
}

#[test]
fn annotations_at_the_workload_itself_are_refused() {
    let cluster = Cluster::of("v1");
    let mut misplaced = deployment(&pod(&json!({"metadata": {"annotations": null}})));
    misplaced["spec"]["template"]["metadata"] = json!({"labels": {"app": "web"}});
    misplaced["metadata"]["annotations"] = json!({POD_ANNOTATION: "3000"});
    for kind in ["Deployment", "StatefulSet", "DaemonSet", "Job"] {
        let mut workload = misplaced.clone();
        workload["kind"] = kind.into();
        let refused = cluster.admit(Asked::update(&workload)).refused;
        let [refused] = &refused[..] else { panic!("{refused:?}") };
        assert!(refused.contains("below spec.template.metadata.annotations"), "{refused}");
        workload["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        assert_eq!(cluster.admit(Asked::update(&workload)).refused, [""; 0], "it can go");
    }
    cluster.create(&deployment(&pod(&json!({}))));
    let off = json!({"metadata": {"annotations": {"velt-sidecar/inject": "off"}}, "spec": {"hostNetwork": true}});
    cluster.create(&deployment(&pod(&off)));
}

#[test]
fn missing_settings_refuse_only_pods_that_ask() {
    let none = Cluster { settings: None, ..Cluster::of("v1") };
    for cluster in
        [none, Cluster::with(&json!({"image": null})), Cluster::with(&json!({"secret": null}))]
    {
        let plain = pod(&json!({"metadata": {"annotations": null}}));
        assert_eq!(cluster.create(&plain), plain);
        let refused = cluster.admit(Asked::create(&pod(&json!({})))).refused;
        let [refused] = &refused[..] else { panic!("{refused:?}") };
        assert!(
            refused.contains("the ConfigMap velt-sidecar in the namespace velt-system"),
            "{refused}"
        );
    }
    // With Deny, the API server would refuse pods that did not ask.
    let mut strict = Cluster { settings: None, ..Cluster::of("v1") };
    let binding = strict.policy("MutatingAdmissionPolicyBinding", "velt-sidecar-pods");
    binding["spec"]["paramRef"]["parameterNotFoundAction"] = "Deny".into();
    strict.policy("MutatingAdmissionPolicy", "velt-sidecar-pods")["spec"]["failurePolicy"] =
        "Fail".into();
    let plain = pod(&json!({"metadata": {"annotations": null}}));
    let refused = strict.admit(Asked::create(&plain)).refused;
    assert!(refused[0].contains("no params found"), "{refused:?}");
}

#[test]
fn pods_that_lost_the_sidecar_are_refused() {
    let mut cluster = Cluster::of("v1");
    cluster.policies.retain(|it| it["kind"] != "MutatingAdmissionPolicy");
    let refused = cluster.admit(Asked::create(&pod(&json!({})))).refused;
    let [refused] = &refused[..] else { panic!("{refused:?}") };
    assert!(refused.contains("asks for velt-sidecar and did not get it"), "{refused}");
}

#[test]
fn settings_with_a_mistake_are_refused_when_they_are_written() {
    let cluster = Cluster::of("v1");
    let namespace = json!({"name": "velt-system"});
    let written = |changes: &Value| {
        let settings = Cluster::with(changes).settings.expect("settings");
        cluster.admit(Asked::within(&settings, namespace.clone())).refused
    };
    assert_eq!(written(&json!({})), [""; 0]);
    let every = json!({"cpuLimit": "1", "imagePullPolicy": "Never", "user": null, "VELT_SIDECAR_VELT__API": "v2"});
    assert_eq!(written(&every), [""; 0]);
    for (changes, said) in [
        (json!({"image": null}), "lack image"),
        (json!({"image": "", "memoryLimit": null}), "lack image, memoryLimit"),
        (json!({"imagee": "a"}), "does not know the key imagee"),
        (json!({"velt.api": "v2"}), "does not know the key velt.api"),
        (json!({"VELT_SIDECAR_LISTEN__ADDRESS": "a"}), "Remove VELT_SIDECAR_LISTEN__ADDRESS"),
        (json!({"VELT_SIDECAR_VELT__AUTH_TOKEN": "a"}), "secrets are keys of the Secret"),
        (json!({"memoryLimit": "lots"}), "Write a quantity, such as 20m or 256Mi, for memoryLimit"),
        (json!({"user": "0"}), "not the number of a user that is not root"),
        (json!({"user": "root"}), "not the number of a user"),
        (json!({"imagePullPolicy": "Sometimes"}), "none of Always"),
    ] {
        let refused = written(&changes);
        let [refused] = &refused[..] else { panic!("{changes}: {refused:?}") };
        assert!(refused.contains(said), "{refused}");
    }
    let elsewhere = Cluster::with(&json!({"image": null})).settings.expect("settings");
    assert_eq!(
        cluster.admit(Asked::create(&elsewhere)).refused,
        [""; 0],
        "another namespace's own"
    );
}

/// Returns the settings that a text between quotes of a kind names, such as `admin.token`.
fn quoted(text: &str, quote: char) -> Vec<String> {
    let mut names: Vec<_> = text.split(quote).skip(1).step_by(2).map(str::to_owned).collect();
    names.sort();
    names
}

/// Returns what follows the last `name.substring(17) in` or `key in` of a variable's expression.
fn refused_by(cluster: &Cluster, policy: &str, before: &str) -> Vec<String> {
    let mut policies = cluster.policies.iter().filter(|it| it["metadata"]["name"] == policy);
    let policy = policies.find(|it| it["kind"] == "ValidatingAdmissionPolicy").expect("it");
    let mut variables = policy["spec"]["variables"].as_array().expect("variables").iter();
    let variable = variables.find(|it| it["name"] == "refused").expect("the variable");
    let (_, list) = variable["expression"].as_str().expect("CEL").split_once(before).expect("it");
    quoted(list, '\'')
}

#[test]
fn fixed_and_secret_settings_are_the_same_everywhere() {
    let cluster = Cluster::of("v1");
    let pods = refused_by(&cluster, "velt-sidecar-pods", "name.substring(17) in");
    assert_eq!(pods.len(), 15, "{pods:?}");
    let workloads = refused_by(&cluster, "velt-sidecar-workloads", "name.substring(17) in");
    assert_eq!(workloads, pods);
    let mut variables: Vec<_> = pods
        .iter()
        .map(|it| format!("VELT_SIDECAR_{}", it.to_uppercase().replace('.', "__")))
        .collect();
    variables.sort();
    assert_eq!(refused_by(&cluster, "velt-sidecar-settings", "key in"), variables);
    let schema = |chart: &str| {
        let text = fs::read_to_string(file(&format!("deploy/helm/{chart}/values.schema.json")));
        let schema: Value = serde_json::from_str(&text.expect("the schema")).expect("JSON");
        schema["properties"]["config"]["propertyNames"]["not"]["enum"].to_string()
    };
    assert_eq!(quoted(&schema("velt-sidecar-injector"), '"'), pods);
    for secret in quoted(&schema("velt-sidecar"), '"') {
        assert!(pods.contains(&secret), "{secret}");
    }
}

#[test]
fn the_document_lists_messages_that_exist() {
    let text = fs::read_to_string(file("docs/kubernetes-annotation.md")).expect("the document");
    let (_, section) = text.split_once("## Refusals\n").expect("the section");
    let (section, _) = section.split_once("\n## ").expect("an end");
    let rows = section.lines().filter(|line| line.starts_with('|')).skip(2);
    let rows: Vec<_> = rows.map(|row| row.split('|').nth(1).expect("a column").trim()).collect();
    assert!(rows.len() >= 10, "{rows:?}");
    // A message in CEL has the value between its parts.
    let policies = json!(Cluster::of("v1").policies).to_string().replace("\\\"", "\"");
    for row in rows {
        let parts = row.split("\"http\"").filter(|part| !part.trim().is_empty());
        for part in parts {
            assert!(policies.contains(part.trim()), "{part}");
        }
    }
}

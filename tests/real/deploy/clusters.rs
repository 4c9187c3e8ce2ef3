//! Components for kinds of clusters and for meshes, each with a page in docs/platforms. Objects of the API go by its
//! schemas; custom resources are compared with what they name.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};
use tools::probe::Probe;

use super::kustomize::{ANY, minimal, overlay};
use super::pod::Pod;
use super::{NATIVE, complaints, documents, file, of_kind, run_well};
use crate::neighbour::tool;

/// Groups of the API whose schemas are to be had.
const OF_THE_API: [&str; 4] = ["v1", "apps/v1", "networking.k8s.io/v1", "policy/v1"];

/// Builds an overlay with these components, and checks the objects of the API.
fn built(manifests: &str, components: &[&str], versions: &[&str]) -> Vec<Value> {
    let listed: Vec<_> = components.iter().map(|it| format!("../deploy/kustomize/{it}")).collect();
    let components = listed.join(", ");
    let objects =
        overlay(manifests, &format!("resources: [manifests.yaml]\ncomponents: [{components}]\n"));
    let known: Vec<Value> = objects
        .iter()
        .filter(|object| OF_THE_API.iter().any(|group| object["apiVersion"] == **group))
        .cloned()
        .collect();
    assert_eq!(complaints(&known, versions), "");
    objects
}

fn only<'a>(objects: &'a [Value], kind: &str) -> &'a Value {
    let [one] = of_kind(objects, kind)[..] else { panic!("one {kind}: {objects:#?}") };
    one
}

fn annotations(workload: &Value) -> &Value {
    &workload["spec"]["template"]["metadata"]["annotations"]
}

/// Returns the block of a page that begins with `start`.
fn block(page: &str, start: &str) -> String {
    let text = fs::read_to_string(file(page)).unwrap_or_else(|error| panic!("{page}: {error}"));
    let found = text.split("```yaml\n").find(|block| block.starts_with(start));
    let (block, _) = found.expect("the block").split_once("```").expect("an end");
    block.to_owned()
}

#[test]
fn openshift_login_proxy_is_the_only_way_to_the_sidecar() {
    // The Route has a Service of its own.
    let manifests = ANY.replace(", labels: {velt-sidecar/inject: first-port}", "");
    let components = ["component", "openshift", "openshift-oauth-proxy"];
    let objects = built(&manifests, &components, &NATIVE[1..]);
    let pod = Pod::of(only(&objects, "StatefulSet"), &objects);
    let config = pod.checked();
    assert!(config.listen.address.ip().is_loopback(), "no other pod can connect");
    assert!(config.identity.trusted_peers.iter().all(|range| range.addr().is_loopback()));
    pod.assert_restricted(true);
    let ids = pod.sidecar()["securityContext"]["runAsUser"].clone();
    assert!(ids.is_null(), "the cluster chooses the user: {ids}");

    let proxy = pod.container("containers", "oauth-proxy").expect("the login proxy");
    let containers = &only(&objects, "StatefulSet")["spec"]["template"]["spec"]["containers"];
    assert_eq!(containers[0]["name"], "web", "kubectl logs and app-pre-stop go to the first");
    let arguments = proxy["args"].as_array().expect("arguments");
    let upstream = format!("--upstream=http://{}", config.listen.address);
    assert!(arguments.contains(&json!(upstream)), "{arguments:?}");
    // On such a path the login proxy hands a client's own X-Forwarded-User on.
    let all = proxy.to_string();
    assert!(!all.contains("skip-auth") && !all.contains("bypass-auth"), "{all}");

    let services = of_kind(&objects, "Service");
    let service = services.iter().find(|it| it["metadata"]["name"] == "my-app").expect("it");
    let secret =
        &service["metadata"]["annotations"]["service.beta.openshift.io/serving-cert-secret-name"];
    let volumes = &only(&objects, "StatefulSet")["spec"]["template"]["spec"]["volumes"];
    let mounted = volumes.as_array().expect("volumes").iter();
    assert!(mounted.clone().any(|volume| volume["secret"]["secretName"] == *secret), "{volumes}");
    let port = proxy["ports"][0]["name"].clone();
    assert_eq!(service["spec"]["ports"][0]["targetPort"], port);
    let route = only(&objects, "Route");
    assert_eq!(route["spec"]["to"]["name"], service["metadata"]["name"]);
    assert_eq!(route["spec"]["port"]["targetPort"], service["spec"]["ports"][0]["name"]);
    // The login proxy talks TLS.
    assert_eq!(route["spec"]["tls"]["termination"], "reencrypt");
    let account = only(&objects, "ServiceAccount");
    let redirect = account["metadata"]["annotations"]
        ["serviceaccounts.openshift.io/oauth-redirectreference.primary"]
        .as_str();
    let redirect: Value = serde_json::from_str(redirect.expect("text")).expect("JSON");
    assert_eq!(redirect["reference"]["name"], route["metadata"]["name"]);
}

#[test]
fn autopilot_need_not_raise_the_requests_of_the_component() {
    let objects = built(ANY, &["component", "gke-autopilot"], NATIVE);
    let pod = Pod::of(only(&objects, "StatefulSet"), &objects);
    pod.assert_fits();
    pod.assert_restricted(true);
    let resources = &pod.sidecar()["resources"];
    let number = |text: &Value, unit: &str| {
        let text = text.as_str().and_then(|text| text.strip_suffix(unit)).expect("a unit");
        text.parse::<u32>().expect("a number")
    };
    let requests = &resources["requests"];
    assert!(number(&requests["cpu"], "m") >= 50 && number(&requests["memory"], "Mi") >= 52);
    assert!(number(&requests["ephemeral-storage"], "Mi") >= 10, "{requests}");
    // Autopilot lowers a limit to the request where pods can't burst.
    assert_eq!(requests["memory"], resources["limits"]["memory"]);
    let check =
        &only(&objects, "HealthCheckPolicy")["spec"]["default"]["config"]["httpHealthCheck"];
    let admin = pod.checked().admin.address.port();
    assert_eq!(*check, json!({"port": admin, "requestPath": Probe::Ready.path()}));
    let page = fs::read_to_string(file("docs/platforms/gke-autopilot.md")).expect("the page");
    let inline = format!("{{ type: HTTP, port: {admin}, requestPath: {} }}", Probe::Ready.path());
    assert!(page.contains(&inline), "{inline}");
}

#[test]
fn t53_components_for_meshes_have_anchors_that_are_no_addresses() {
    let listed = |component| ["component", component];
    for (component, excluded) in [
        ("istio", "traffic.sidecar.istio.io/excludeInboundPorts"),
        ("linkerd", "config.linkerd.io/skip-inbound-ports"),
    ] {
        let objects = built(ANY, &listed(component), NATIVE);
        let workload = only(&objects, "StatefulSet");
        let pod = Pod::of(workload, &objects);
        pod.assert_fits();
        pod.assert_restricted(true);
        let config = pod.checked();
        assert!(config.identity.secret.is_some(), "{component}");
        // The admin port alone is out of the mesh: the policy guards the other.
        let admin = config.admin.address.port().to_string();
        assert_eq!(annotations(workload)[excluded], *admin, "{component}");
        let others = of_kind(&objects, "Deployment");
        assert!(annotations(others[0]).is_null(), "{component}: not chosen");
    }
    let istio = built(ANY, &listed("istio"), NATIVE);
    let injected = json!({"matchLabels": {"velt-sidecar/injected": "true"}});
    let policy = &only(&istio, "AuthorizationPolicy")["spec"];
    assert_eq!((&policy["selector"], &policy["action"]), (&injected, &json!("ALLOW")));
    let rule = &policy["rules"][0];
    assert_eq!(rule["to"][0]["operation"]["ports"], json!(["8080"]));
    assert!(rule["from"][0]["source"]["principals"].is_array(), "{rule}");
    assert_eq!(only(&istio, "PeerAuthentication")["spec"]["mtls"]["mode"], "STRICT");
    assert_eq!(only(&istio, "ServiceEntry")["spec"]["hosts"], json!(["api.velt.dev"]));

    let linkerd = built(ANY, &listed("linkerd"), NATIVE);
    let server = only(&linkerd, "Server");
    assert_eq!(
        (&server["spec"]["podSelector"], &server["spec"]["port"]),
        (&injected, &json!(8080))
    );
    let policy = &only(&linkerd, "AuthorizationPolicy")["spec"];
    assert_eq!(policy["targetRef"]["name"], server["metadata"]["name"]);
    let front = only(&linkerd, "MeshTLSAuthentication");
    assert_eq!(policy["requiredAuthenticationRefs"][0]["name"], front["metadata"]["name"]);
}

#[test]
fn manifests_in_json_get_the_components_too() {
    // Kustomize merges comments of a patch into the text of the manifests, where JSON has no place for them.
    let manifests: Vec<_> = documents(ANY).iter().map(Value::to_string).collect();
    let manifests = manifests.join("\n---\n");
    for components in [
        &["component"][..],
        &["component-before-1.29"],
        &["component", "app-pre-stop", "scrape-annotations", "network-policy"],
        &["component", "shared-store"],
        &["component", "gke-autopilot"],
        &["component", "istio"],
        &["component", "linkerd"],
        &["component", "openshift", "openshift-oauth-proxy"],
    ] {
        let sorted = |objects: Vec<Value>| {
            let mut texts: Vec<_> = objects.iter().map(Value::to_string).collect();
            texts.sort();
            texts
        };
        let of_json = sorted(built(&manifests, components, &NATIVE[1..]));
        assert_eq!(of_json, sorted(built(ANY, components, &NATIVE[1..])), "{components:?}");
    }
}

#[test]
fn overlays_of_the_pages_can_be_built() {
    for page in ["openshift", "gke-autopilot", "istio-mesh", "linkerd-mesh"] {
        let written = block(&format!("docs/platforms/{page}.md"), "# kustomization.yaml");
        let kustomization = written.replace("app.yaml", "manifests.yaml");
        let objects = overlay(ANY, &kustomization);
        Pod::of(only(&objects, "StatefulSet"), &objects).checked();
        assert!(objects.len() > overlay(ANY, &minimal("component")).len(), "{page}");
    }
}

#[test]
fn prometheus_rule_of_the_page_keeps_addresses_of_ipv6() {
    let rule = block("docs/platforms/ipv6.md", "# For the port of the annotation");
    let [rule] = &documents(&rule)[..] else { panic!("one document") };
    let port = "__meta_kubernetes_pod_annotation_prometheus_io_port";
    let targets = ["[fd00:10:42::7]:3000", "[fd00:10:42::8]:8080", "10.42.0.7:3000"];
    let config = json!({"scrape_configs": [{
        "job_name": "pods",
        "static_configs": [{"targets": targets, "labels": {port: "9901"}}],
        "relabel_configs": rule,
    }]});
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("prometheus.yaml");
    // JSON is YAML.
    fs::write(&path, config.to_string()).expect("a disk");
    let mut promtool = Command::new(tool("promtool"));
    promtool.args(["check", "service-discovery", "--timeout=1s"]).arg(&path).arg("pods");
    let found = run_well(&mut promtool, "");
    for target in ["[fd00:10:42::7]:9901", "[fd00:10:42::8]:9901", "10.42.0.7:9901"] {
        assert!(found.contains(&format!("\"__address__\": \"{target}\"")), "{target}: {found}");
    }
}

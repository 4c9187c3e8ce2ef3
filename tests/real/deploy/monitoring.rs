//! Alerts and the dashboard, checked by Prometheus itself.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::pod::SEAL_KEY;
use super::{NATIVE, complaints, documents, file, helm, kustomize, run, run_well};
use crate::certificates::{Authority, Folder, VALID};
use crate::neighbour::{eventually, http_client, tool};
use crate::promtool::{busy_sidecar, make_traffic, start_prometheus};
use crate::shared_store::servers::RedisServer;
use crate::sidecar_process::SidecarProcess;

const RULES: &str = "deploy/monitoring/prometheus-rule.yaml";
const DASHBOARD: &str = "deploy/monitoring/dashboard.json";

/// Labels that a `PodMonitor` gives to scraped series.
const LABELS: &str = "{ namespace: shop, pod: app-0, container: velt-sidecar }";

fn read(path: &str) -> String {
    fs::read_to_string(file(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Returns the rule file within the object of the Prometheus Operator.
fn rules() -> Value {
    let objects = documents(&read(RULES));
    assert_eq!(complaints(&objects, &NATIVE[..1]), "");
    objects[0]["spec"].clone()
}

/// Writes `rules` beside their tests, and runs the tests.
fn test_rules(folder: &Path, rules: &Value) -> Result<String, String> {
    // JSON is YAML.
    fs::write(folder.join("rules.yaml"), rules.to_string()).expect("a disk");
    let mut promtool = Command::new(tool("promtool"));
    promtool.args(["test", "rules"]);
    for name in [
        "rules_test.yaml",
        "long_rules_test.yaml",
        "store_rules_test.yaml",
        "logout_rules_test.yaml",
        "trial_rules_test.yaml",
    ] {
        let tests = folder.join(name);
        fs::copy(file("tests/real/deploy").join(name), &tests).expect("a disk");
        promtool.arg(tests);
    }
    run(&mut promtool, "")
}

#[test]
fn each_alert_fires_when_it_should_and_says_so() {
    let (rules, folder) = (rules(), tempfile::tempdir().expect("a folder"));
    test_rules(folder.path(), &rules).unwrap_or_else(|error| panic!("{error}"));
    let file = folder.path().join("rules.yaml");
    run_well(Command::new(tool("promtool")).args(["check", "rules"]).arg(file), "");

    // Proves that each rule is tested: a rule that never or always fires fails a test.
    for expression in ["vector(1) < 0", "vector(1)"] {
        let mut changed = rules.clone();
        let alerts = changed["groups"][0]["rules"].as_array_mut().expect("rules");
        for alert in alerts {
            alert["expr"] = expression.into();
        }
        let failed = test_rules(folder.path(), &changed).expect_err(expression);
        for alert in rules["groups"][0]["rules"].as_array().expect("rules") {
            let name = alert["alert"].as_str().expect("a name");
            assert!(failed.contains(&format!("alertname: {name},")), "{name}: {failed}");
        }
    }
}

/// Returns title and query of every panel of the dashboard, for a Prometheus that scrapes each second.
fn queries(dashboard: &Value) -> Vec<(String, String)> {
    let panels = dashboard["panels"].as_array().expect("panels").iter();
    let panels = panels.filter(|panel| panel["type"] != "row");
    let queries = panels.flat_map(|panel| {
        let targets = panel["targets"].as_array().expect("targets");
        assert!(!targets.is_empty() && panel["description"].is_string(), "{}", panel["title"]);
        targets.iter().map(|target| {
            let query = target["expr"].as_str().expect("a query");
            let query = query.replace("$__rate_interval", "10s");
            let query = query.replace("$namespace", ".*").replace("$pod", ".*");
            assert!(!query.contains('$'), "{query}");
            (panel["title"].to_string(), query)
        })
    });
    queries.collect()
}

/// Returns the number of numeric values of an instant query.
async fn numbers(prometheus: &str, query: &str) -> Result<usize, String> {
    let url = format!("http://{prometheus}/api/v1/query");
    let mut url = reqwest::Url::parse(&url).expect("a URL");
    url.query_pairs_mut().append_pair("query", query);
    let answer = http_client().get(url).send().await.map_err(|error| error.to_string())?;
    let answer: Value =
        serde_json::from_slice(&answer.bytes().await.expect("to its end")).expect("JSON");
    assert_eq!(answer["status"], "success", "{query}: {answer}");
    let found = answer["data"]["result"].as_array().expect("a list").iter();
    Ok(found.filter(|one| one["value"][1] != "NaN").count())
}

#[tokio::test(flavor = "multi_thread")]
async fn no_dashboard_panel_is_empty_and_no_alert_is_false() {
    let dashboard: Value = serde_json::from_str(&read(DASHBOARD)).expect("JSON");
    let queries = queries(&dashboard);
    assert!(queries.len() > 30, "{} queries", queries.len());
    let (sidecar, _app) = busy_sidecar(&["ada"]).await;
    let admin = sidecar.addresses.admin;
    // Certificates expire only where there is TLS, which this traffic does not use.
    let (authority, certificates) = (Authority::new(), Folder::new());
    certificates.write_pair(&authority.issue(&["localhost"], VALID));
    let ca = certificates.write("ca.crt", authority.pem());
    let (certificate, key) = (certificates.path("tls.crt"), certificates.path("tls.key"));
    let encrypted = [
        ("VELT_SIDECAR_LISTEN__TLS__CERTIFICATE_FILE", certificate.as_str()),
        ("VELT_SIDECAR_LISTEN__TLS__KEY_FILE", key.as_str()),
        ("VELT_SIDECAR_LISTEN__TLS__CLIENT_CA_FILE", ca.as_str()),
    ];
    let encrypted = SidecarProcess::start(SocketAddr::from(([127, 0, 0, 1], 9)), &encrypted).await;
    // Calls to a store take time only where there is one.
    let store = RedisServer::start().await;
    let place = store.address().to_string();
    let sharing =
        [("VELT_SIDECAR_SHARED__ADDRESSES", &*place), ("VELT_SIDECAR_SHARED__SEAL_KEY", SEAL_KEY)];
    let sharing = SidecarProcess::start(SocketAddr::from(([127, 0, 0, 1], 9)), &sharing).await;
    let scraped = [admin, encrypted.admin, sharing.admin];
    let (_folder, _prometheus, address) = start_prometheus(&scraped, LABELS).await;
    let prometheus = address.to_string();
    // Traffic goes on, with new users, so that the rates are not zero.
    let traffic = sidecar.addresses.traffic;
    let (stop, mut stopped) = tokio::sync::watch::channel(false);
    let busy = tokio::spawn(async move {
        let mut number = 0_u64;
        while !*stopped.borrow_and_update() {
            make_traffic(traffic, &[&format!("user-{number}")]).await;
            number += 1;
        }
    });
    for (title, query) in &queries {
        eventually(&format!("{title}: {query}"), async || {
            match numbers(&prometheus, query).await? {
                0 => Err("nothing, or NaN".to_owned()),
                found => Ok(found),
            }
        })
        .await;
    }
    let mut asked = BTreeSet::new();
    for rule in rules()["groups"][0]["rules"].as_array().expect("rules") {
        let (alert, query) = (rule["alert"].to_string(), rule["expr"].as_str().expect("a query"));
        asked.insert(alert.clone());
        // This traffic has forged headers in it.
        let expected = usize::from(alert.contains("SpoofAttempts"));
        assert_eq!(numbers(&prometheus, query).await, Ok(expected), "{alert}");
    }
    assert!(asked.len() > 10, "{asked:?}");
    stop.send_replace(true);
    busy.await.expect("no panic");
    drop(sidecar);
}

#[test]
fn grafana_finds_what_it_needs_in_the_dashboard() {
    let dashboard: Value = serde_json::from_str(&read(DASHBOARD)).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64()).collect();
    assert_eq!(ids.len(), panels.len(), "each panel has an id of its own");
    let mut taken = BTreeSet::new();
    for panel in panels {
        let place = |key: &str| panel["gridPos"][key].as_u64().expect("a number");
        assert!(place("x") + place("w") <= 24, "{}", panel["title"]);
        for cell in (place("x")..place("x") + place("w"))
            .flat_map(|x| (place("y")..place("y") + place("h")).map(move |y| (x, y)))
        {
            assert!(taken.insert(cell), "{} lies over another one", panel["title"]);
        }
    }
}

#[test]
fn the_pod_monitor_finds_the_pods_of_both_charts() {
    let monitor = &documents(&read("deploy/monitoring/pod-monitor.yaml"))[0]["spec"];
    let wanted = monitor["selector"]["matchLabels"].as_object().cloned().unwrap_or_default();
    assert!(monitor["selector"]["matchExpressions"].is_null(), "{monitor}");
    for pod in [helm::example(), kustomize::example()] {
        let labels = &pod["metadata"]["labels"];
        assert!(wanted.iter().all(|(name, value)| labels[name] == *value), "{labels}");
        assert_eq!(labels["velt-sidecar/injected"], "true", "for policies");
        let containers = ["initContainers", "containers"].map(|kind| pod["spec"][kind].as_array());
        let mut ports = containers.into_iter().flatten().flatten().flat_map(|container| {
            let ports = container["ports"].as_array().into_iter().flatten();
            ports.map(|port| port["name"].clone())
        });
        let scraped = &monitor["podMetricsEndpoints"][0]["port"];
        assert!(ports.any(|port| port == *scraped), "{scraped}");
    }
}

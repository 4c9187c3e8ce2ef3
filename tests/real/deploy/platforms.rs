//! Files for platforms other than Kubernetes: by the schemas that are to be had, and by the code, which accepts each
//! environment and ends before the platform kills.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use server::config::Config;

use super::{complaints, documents, file, python_of, run};
use crate::neighbour::tool;

pub const UNIT: &str = "deploy/systemd/velt-sidecar.service";

/// Exposure level that the unit may have at most, in tenths, as `systemd-analyze security` takes it.
pub const EXPOSURE: &str = "20";

fn read(path: &str) -> String {
    fs::read_to_string(file(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn check(kind: &str, text: &str) -> String {
    python_of("python-of-platforms", "platforms.py", &[kind], text)
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// Returns the text of a value that has to be one.
fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}"))
}

fn seconds(text: &str) -> Duration {
    let number = text.trim_end_matches('s').parse();
    Duration::from_secs(number.unwrap_or_else(|_| panic!("no seconds: {text}")))
}

/// Environment of a container, from an object of names and values.
fn environment(object: &Value) -> BTreeMap<String, String> {
    let variables = object.as_object().expect("names and values");
    variables.iter().map(|(name, value)| (name.clone(), text(value).to_owned())).collect()
}

/// Environment of a container, from a list of `name` and `value`.
fn environment_of_list(variables: &Value) -> BTreeMap<String, String> {
    let pair = |one: &Value| (text(&one["name"]).to_owned(), text(&one["value"]).to_owned());
    list(variables).iter().map(pair).collect()
}

/// Asserts that the sidecar accepts the environment, with the app on loopback, and ends before the platform kills.
/// Secrets in files are put where their variables say.
fn assert_fits(mut environment: BTreeMap<String, String>, killed_after: Duration) {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, value) in &mut environment {
        if name.ends_with("_FILE") {
            let secret = folder.path().join(name);
            fs::write(
                &secret,
                format!("the secret of {name}, of 32 bytes or more\n").replace(' ', "-"),
            )
            .expect("a disk");
            secret.to_str().expect("a plain path").clone_into(value);
        }
    }
    let mut check = Command::new(env!("CARGO_BIN_EXE_velt-sidecar"));
    check.arg("check").current_dir(folder.path()).env_clear().envs(&environment);
    run(&mut check, "").unwrap_or_else(|error| panic!("{error}"));
    let config = Config::parse("", "", &environment).expect("it has just been checked");
    let needed = config.shutdown.grace + config.shutdown.deadline;
    // The log and the spans have a second each at the end.
    assert!(needed + Duration::from_secs(2) < killed_after, "{needed:?} of {killed_after:?}");
}

/// Values of a key of the unit.
fn of_unit<'a>(unit: &'a str, key: &str) -> Vec<&'a str> {
    unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('=')).collect()
}

#[test]
fn unit_is_valid_hardened_and_outlives_the_drain() {
    let unit = read(UNIT);
    let folder = tempfile::tempdir().expect("a folder");
    let copy = folder.path().join("velt-sidecar.service");
    let binary = env!("CARGO_BIN_EXE_velt-sidecar");
    fs::write(&copy, unit.replace("/usr/local/bin/velt-sidecar", binary)).expect("a disk");
    let analyze = |arguments: &[&str]| {
        let mut analyze = Command::new(tool("systemd-analyze"));
        run(analyze.args(arguments).arg("--no-pager").arg(&copy), "")
    };
    // Of a key that systemd does not know, it only warns.
    let verified =
        Command::new(tool("systemd-analyze")).args(["verify", "--man=no"]).arg(&copy).output();
    let verified = verified.expect("it starts");
    let said = String::from_utf8_lossy(&verified.stderr);
    assert!(verified.status.success() && !said.contains("velt-sidecar.service"), "{said}");
    let threshold = format!("--threshold={EXPOSURE}");
    let security = ["security", "--offline=true", &threshold];
    analyze(&security).unwrap_or_else(|error| panic!("{error}"));

    // All settings of the unit are files of credentials.
    let pairs = of_unit(&unit, "Environment").into_iter().filter_map(|pair| pair.split_once('='));
    let environment: BTreeMap<_, _> =
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    for value in environment.values() {
        let credential = value.strip_prefix("%d/").expect("a credential");
        let loaded = of_unit(&unit, "LoadCredential");
        assert!(loaded.iter().any(|one| one.starts_with(&format!("{credential}:"))), "{value}");
    }
    assert_fits(environment, seconds(of_unit(&unit, "TimeoutStopSec")[0]));
    assert_eq!(of_unit(&unit, "Type"), ["notify"]);

    fs::write(&copy, unit.replace("SystemCallFilter=", "#").replace("DynamicUser=", "#"))
        .expect("a disk");
    assert!(analyze(&security).is_err(), "the tool looks at all");
}

/// Returns the Compose file with each variable replaced by its default, as Compose does.
fn with_defaults(compose: &str) -> String {
    let mut parts = compose.split("${");
    let mut text = parts.next().expect("split has a first part").to_owned();
    for part in parts {
        let (variable, rest) = part.split_once('}').expect("an end of the variable");
        let (_, default) = variable.split_once(":-").expect("a default");
        text.push_str(default);
        text.push_str(rest);
    }
    text
}

#[test]
fn compose_file_is_valid_and_shares_one_loopback() {
    let compose = with_defaults(&read("deploy/compose/compose.yaml"));
    assert_eq!(check("compose", &compose), "");
    let misspelt = compose.replace("stop_grace_period", "stop_grace_time");
    assert!(check("compose", &misspelt).contains("stop_grace_time"), "the parser looks at all");

    let services = &documents(&compose)[0]["services"];
    for name in ["app", "velt-sidecar", "emulator"] {
        let service = &services[name];
        assert_eq!(service["network_mode"], "service:pod", "{name}");
        assert!(service["ports"].is_null(), "{name}: ports belong to the namespace");
        assert_eq!(service["depends_on"]["pod"]["restart"], true, "{name}");
    }
    let sidecar = &services["velt-sidecar"];
    assert!(sidecar["depends_on"]["app"].is_object(), "the sidecar ends before the app");
    assert_eq!(sidecar["healthcheck"]["test"][0], "CMD", "the image has no shell");
    let variables = environment(&sidecar["environment"]);
    for (name, value) in variables.iter().filter(|(name, _)| name.ends_with("_FILE")) {
        let secret = value.strip_prefix("/run/secrets/").expect("a secret of Compose");
        assert!(list(&sidecar["secrets"]).contains(&secret.into()), "{name}");
    }
    assert_fits(variables.clone(), seconds(text(&sidecar["stop_grace_period"])));
    let mut development = variables;
    let endpoint = "http://127.0.0.1:4191/v2/auth/generate_token".to_owned();
    development.insert("VELT_SIDECAR_VELT__ENDPOINT".into(), endpoint.clone());
    assert_fits(development, seconds(text(&sidecar["stop_grace_period"])));
    assert!(read("docs/platforms/compose.md").contains(&format!("VELT_ENDPOINT={endpoint}\n")));
    assert_eq!(services["emulator"]["profiles"], json!(["development"]));
}

#[test]
fn ecs_task_is_valid_and_stops_the_sidecar_first() {
    let task_text = read("deploy/ecs/task-definition.json");
    assert_eq!(check("ecs", &task_text), "");
    for (right, wrong) in [("startPeriod", "startperiod"), ("\"START\"", "\"STARTED\"")] {
        let complaint = check("ecs", &task_text.replace(right, wrong));
        assert!(complaint.contains(wrong.trim_matches('"')), "{complaint}");
    }
    let task: Value = serde_json::from_str(&task_text).expect("JSON");
    assert_eq!(task["networkMode"], "awsvpc", "one loopback for the task");
    let containers = list(&task["containerDefinitions"]);
    let sidecar = containers.iter().find(|one| one["name"] == "velt-sidecar").expect("a sidecar");
    // ECS stops in the reverse order of the dependencies.
    assert_eq!(sidecar["dependsOn"][0]["containerName"], "app");
    assert_eq!(sidecar["healthCheck"]["command"][0], "CMD", "the image has no shell");
    let mut variables = environment_of_list(&sidecar["environment"]);
    for secret in list(&sidecar["secrets"]) {
        variables.insert(text(&secret["name"]).to_owned(), text(&secret["valueFrom"]).to_owned());
    }
    let stop = sidecar["stopTimeout"].as_u64().expect("a number");
    assert!(stop <= 120, "Fargate allows no more");
    assert_fits(variables, Duration::from_secs(stop));
}

#[test]
fn cloud_run_service_has_one_port_and_probes_for_dependencies() {
    let service = &documents(&read("deploy/cloud-run/service.yaml"))[0];
    let template = &service["spec"]["template"];
    // A revision's containers and volumes are a pod's.
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "my-app"}, "spec": template["spec"],
    });
    assert_eq!(complaints(&[pod], &["1.29", "1.37"]), "");
    let containers = list(&template["spec"]["containers"]);
    let with_port: Vec<_> = containers.iter().filter(|one| !one["ports"].is_null()).collect();
    assert_eq!(with_port.len(), 1, "the container that gets the requests");
    assert_eq!(
        (with_port[0]["name"].as_str(), list(&with_port[0]["ports"]).len()),
        (Some("velt-sidecar"), 1)
    );
    let order = &template["metadata"]["annotations"]["run.googleapis.com/container-dependencies"];
    let order: Value = serde_json::from_str(text(order)).expect("JSON in the annotation");
    for dependency in order.as_object().expect("an object").values().flat_map(list) {
        let container = containers.iter().find(|one| one["name"] == *dependency);
        let probe = &container.expect("a container of that name")["startupProbe"];
        assert!(probe.is_object(), "{dependency}: Cloud Run asks for a startup probe");
    }
    // Cloud Run kills after 10 s.
    assert_fits(environment_of_list(&with_port[0]["env"]), Duration::from_secs(10));
}

#[test]
fn nomad_job_stops_the_sidecar_first() {
    let job = check("hcl", &read("deploy/nomad/my-app.nomad.hcl"));
    let job: Value = serde_json::from_str(&job).expect("JSON");
    let group = &job["job"][0]["my-app"]["group"][0]["my-app"];
    assert_eq!(group["network"][0]["mode"], "bridge", "one loopback for the group");
    let task = |name: &str| {
        let task = list(&group["task"]).iter().find_map(|task| task.get(name));
        task.unwrap_or_else(|| panic!("no task {name}"))
    };
    let sidecar = task("velt-sidecar");
    assert_eq!(sidecar["leader"], true, "Nomad stops the leader first");
    assert!(sidecar["lifecycle"].is_null() && task("app")["leader"].is_null());
    let variables = environment(&sidecar["env"][0]);
    let written: Vec<_> = list(&sidecar["template"])
        .iter()
        .map(|one| format!("/{}", text(&one["destination"])))
        .collect();
    for (name, value) in variables.iter().filter(|(name, _)| name.ends_with("_FILE")) {
        assert!(written.contains(value), "{name}: no template writes {value}");
    }
    assert_fits(variables, seconds(text(&sidecar["kill_timeout"])));
}

#[test]
fn fly_machine_has_the_containers_that_its_app_names() {
    let app = read("deploy/fly/fly.toml");
    let value = |key: &str| {
        let line = app.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = "));
        line.unwrap_or_else(|| panic!("no {key}")).trim_matches('"')
    };
    let machine: Value =
        serde_json::from_str(&read(&format!("deploy/fly/{}", value("machine_config"))))
            .expect("JSON");
    let container =
        |name: &str| list(&machine["containers"]).iter().find(|one| one["name"] == name);
    assert!(container(value("container")).is_some(), "the container of the app's image");
    let sidecar = container("velt-sidecar").expect("a sidecar");
    assert!(container(text(&sidecar["depends_on"][0]["name"])).is_some());
    let mut variables = environment(&sidecar["env"]);
    let port = format!(":{}", value("internal_port"));
    assert!(variables["VELT_SIDECAR_LISTEN__ADDRESS"].ends_with(&port));
    for secret in ["VELT_API_KEY", "VELT_AUTH_TOKEN", "VELT_SIDECAR_IDENTITY__SECRET"] {
        let set = read("docs/platforms/fly.md").contains(&format!("{secret}=..."));
        assert!(set, "the page sets {secret}");
        variables.insert(secret.into(), format!("{secret}-of-32-bytes-or-more-for-a-test"));
    }
    assert_fits(variables, seconds(value("kill_timeout")));
}

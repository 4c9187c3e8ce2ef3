//! The component that has replicas share tokens, and the small store beside it, whose command is run with Redis in
//! Valkey's place.

use std::fs;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::kustomize::{ANY, Overlay, build, minimal};
use super::pod::Pod;
use super::{NATIVE, complaints, documents, file, of_kind, run};
use crate::neighbour::{Process, tool};

/// Settings that the component leaves to the overlay: where the store is, and as whom to log in.
const PLACE: &str = "
configMapGenerator:
  - name: velt-sidecar
    literals:
      - VELT_SIDECAR_SHARED__ADDRESSES=valkey:6379
      - VELT_SIDECAR_SHARED__USER=velt-sidecar
";

const PASSWORD: &str = "0123456789abcdef";

fn shared(components: [&str; 2]) -> String {
    let components = components.map(|it| format!("../deploy/kustomize/{it}")).join(", ");
    format!("resources: [manifests.yaml]\ncomponents: [{components}]\n{PLACE}")
}

#[test]
fn shared_store_gives_either_sort_of_sidecar_both_secrets() {
    for component in ["component", "component-before-1.29"] {
        let objects = build(&Overlay::of(ANY, &shared([component, "shared-store"])).path());
        assert_eq!(complaints(&objects, NATIVE), "", "{component}");
        let [workload] = of_kind(&objects, "StatefulSet")[..] else { panic!("one StatefulSet") };
        let pod = Pod::of(workload, &objects);
        pod.assert_fits();
        pod.assert_restricted(true);
        let volumes = workload["spec"]["template"]["spec"]["volumes"].as_array().expect("volumes");
        let secrets: Vec<_> =
            volumes.iter().filter(|it| it["name"] == "velt-sidecar-secret").collect();
        let sources = json!([{"secret": {"name": "velt"}}, {"secret": {"name": "velt-store"}}]);
        let expected = json!({"name": "velt-sidecar-secret", "projected": {"sources": sources}});
        assert_eq!(secrets, [&expected], "{component}");
        let before = documents(ANY);
        assert_eq!(of_kind(&objects, "Deployment"), [&before[2]], "not chosen");
    }
}

#[test]
fn shared_store_alone_or_before_the_component_ends_the_build() {
    for kustomization in [minimal("shared-store"), shared(["shared-store", "component"])] {
        for complaint in Overlay::of(ANY, &kustomization).complaints() {
            assert!(complaint.contains("velt-sidecar-defaults"), "{complaint}");
        }
    }
}

/// The Deployment of the store in the example.
fn store() -> Value {
    let objects = build(&file("deploy/examples/oauth2-proxy"));
    let deployments = of_kind(&objects, "Deployment");
    let found = deployments.into_iter().find(|it| it["metadata"]["name"] == "valkey");
    found.expect("the store").clone()
}

#[test]
fn store_is_given_the_password_and_not_the_seal_key() {
    let store = store();
    let volumes = store["spec"]["template"]["spec"]["volumes"].as_array().expect("volumes");
    let [volume] = &volumes[..] else { panic!("one volume: {volumes:?}") };
    let items = json!([{"key": "store-password", "path": "password"}]);
    assert_eq!(volume["secret"]["items"], items);
    assert_eq!(store["spec"]["strategy"]["type"], "Recreate", "never two stores");
}

/// The store of the manifest, started with Redis.
struct Started {
    _process: Process,
    _folder: TempDir,
    port: u16,
}

impl Started {
    async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("password"), format!("{PASSWORD}\n")).expect("a disk");
        let command = &store()["spec"]["template"]["spec"]["containers"][0]["command"];
        let words: Vec<_> = command.as_array().expect("words").iter().collect();
        let [shell, flags, script] = words[..] else { panic!("a script: {command}") };
        let [shell, flags, script] = [shell, flags, script].map(|it| it.as_str().expect("text"));
        let here = folder.path().to_str().expect("a plain path");
        let script = script.replace("/run/secrets/store/", &format!("{here}/"));
        assert_eq!(script.matches("exec valkey-server -").count(), 1, "{script}");
        let redis = tool("redis-server");
        let start = |port: u16| {
            let own = format!("exec {} - --bind 127.0.0.1 --port {port}", redis.display());
            let mut started = Command::new(shell);
            started.arg(flags).arg(script.replace("exec valkey-server -", &own));
            started.current_dir(here).stdout(Stdio::null());
            started
        };
        let is_ready =
            async |address: std::net::SocketAddr| said(address.port(), &["PING"]).map(drop);
        let (process, address) = Process::start_on_free_port(start, is_ready).await;
        Self { _process: process, _folder: folder, port: address.port() }
    }

    /// Returns the answer to a command of the sidecar's user.
    fn asked(&self, command: &[&str]) -> String {
        let login = ["--no-auth-warning", "--user", "velt-sidecar", "--pass", PASSWORD];
        let words = [&login, command].concat();
        said(self.port, &words).unwrap_or_else(|error| panic!("{error}"))
    }
}

fn said(port: u16, words: &[&str]) -> Result<String, String> {
    let mut client = Command::new(tool("redis-cli"));
    client.args(["-h", "127.0.0.1", "-p", &port.to_string()]).args(words);
    run(&mut client, "")
}

/// Commands with which the crate `shared` uses the store, on keys of the sidecar's own.
const NEEDED: [&[&str]; 13] = [
    &["PING"],
    &["ROLE"],
    &["INFO"],
    &["TIME"],
    &["SET", "velt-sidecar:l:{aa}", "n", "NX", "PX", "3000"],
    &["SET", "velt-sidecar:t:{aa}", "v", "PX", "3000"],
    &["GET", "velt-sidecar:t:{aa}"],
    &["PTTL", "velt-sidecar:t:{aa}"],
    &["EVAL", "return redis.call('pexpire', KEYS[1], ARGV[1])", "1", "velt-sidecar:l:{aa}", "9"],
    &["EVAL", "return redis.call('del', KEYS[1])", "1", "velt-sidecar:l:{aa}"],
    &["XADD", "{velt-sidecar}:forgets", "MINID", "~", "1", "*", "e", "x"],
    &["XREAD", "COUNT", "1", "BLOCK", "9", "STREAMS", "{velt-sidecar}:forgets", "0-0"],
    &["XRANGE", "{velt-sidecar}:forgets", "-", "+", "COUNT", "1"],
];

#[tokio::test]
async fn store_lets_the_sidecar_do_its_work_and_no_more() {
    let store = Started::new().await;
    for command in NEEDED {
        let answer = store.asked(command);
        assert!(!answer.contains("NOPERM") && !answer.contains("ERR"), "{command:?}: {answer}");
    }
    let refused: [&[&str]; 7] = [
        &["FLUSHALL"],
        &["KEYS", "*"],
        &["CONFIG", "GET", "maxmemory"],
        &["ACL", "LIST"],
        &["SET", "another:t:{aa}", "v"],
        &["GET", "velt-sidecar-2:t:{aa}"],
        &["EVAL", "return redis.call('get', 'another:t:{aa}')", "0"],
    ];
    for command in refused {
        let answer = store.asked(command);
        // A script is refused in other words, those of Redis 7.0 or of Valkey.
        let words = ["NOPERM", "can't access", "ACL failure in script"];
        assert!(words.iter().any(|it| answer.contains(it)), "{command:?}: {answer}");
    }
    let stranger = said(store.port, &["PING"]).expect("an answer");
    assert!(stranger.contains("NOAUTH"), "{stranger}");
    let wrong = said(store.port, &["--user", "velt-sidecar", "--pass", "wrong", "PING"]);
    assert!(wrong.is_ok_and(|answer| answer.contains("NOAUTH")), "a wrong password");
    let memory = store.asked(&["INFO", "memory"]);
    assert!(memory.contains("maxmemory_policy:volatile-ttl"), "{memory}");
    assert!(memory.contains(&format!("maxmemory:{}\r", 192 << 20)), "{memory}");
}

//! An example, started by its documented command.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::neighbour::{LOOPBACK, PORTS_TO_TRY, Process, http_client, lines_of, tool};

/// Ports that an example takes, one after the other.
const PORTS: u16 = 5;

/// Time limit of the installation, and of the start. Only a first installation takes minutes.
const START_PATIENCE: Duration = Duration::from_secs(300);

/// Held while packages are installed, since npm can't install twice at once into one folder.
static INSTALLATION: Mutex<()> = Mutex::const_new(());

/// Place where an example's login is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Login {
    /// Login proxy in front of the sidecar, with a page of its own.
    Proxy,
    /// App whose users have their names as ids.
    App,
    /// Django, whose users are numbered.
    Django,
}

impl Login {
    /// Returns the id of one of the tests' two users. Ada signs in first.
    pub fn id_of(self, user: &str) -> &str {
        match (self, user) {
            (Self::Django, "ada") => "1",
            (Self::Django, _) => "2",
            (Self::Proxy | Self::App, name) => name,
        }
    }
}

/// A running example. All its programs end when this value is dropped.
pub struct Example {
    name: String,
    process: Process,
    pub site: SocketAddr,
    emulator: SocketAddr,
}

impl Example {
    /// Starts an example on free ports.
    pub async fn start(name: &str) -> Self {
        install(name).await;
        let mut said = Vec::new();
        for _ in 0..PORTS_TO_TRY {
            let first = free_ports();
            let mut command = command(name);
            command.args(["--ports-from", &first.to_string()]).stdout(Stdio::piped());
            let mut process = Process::start(&mut command);
            let output = process.child().stdout.take().expect("it is piped");
            let mut lines = lines_of(output);
            let (site, emulator) = (at(first), at(first + 2));
            let example = Self { name: name.to_owned(), process, site, emulator };
            if is_open(&mut lines, &mut said).await {
                // Read on, since the programs would wait for a full pipe.
                tokio::spawn(async move { while lines.recv().await.is_some() {} });
                return example;
            }
            if !said.iter().any(|line| line.contains("in use")) {
                break;
            }
        }
        panic!("examples/run {name} did not start: {said:#?}");
    }

    /// Returns the emulator's journal.
    pub async fn journal(&self) -> Value {
        let url = format!("http://{}/emulator/journal", self.emulator);
        let answer = http_client().get(url).send().await.expect("the emulator answers");
        let answer = answer.bytes().await.expect("a body");
        serde_json::from_slice(&answer).expect("JSON")
    }

    /// Checks the example's code with TypeScript, against Velt's types.
    pub fn assert_types_fit(&self) {
        let folder = folder().join(&self.name);
        let compiler = folder.join("node_modules/typescript/bin/tsc");
        let checked = Command::new(tool("node")).arg(compiler).arg("-p").arg(&folder).output();
        let checked = checked.expect("node");
        let said = String::from_utf8_lossy(&checked.stdout);
        assert!(checked.status.success(), "{}: {said}", self.name);
    }

    /// Lets each mint take a time.
    pub async fn delay_mints(&self, time: Duration) {
        let url = format!("http://{}/emulator/behaviour", self.emulator);
        let behaviour = json!({ "latency_ms": time.as_millis() }).to_string();
        let answer = http_client().put(url).body(behaviour).send().await;
        assert_eq!(answer.expect("the emulator answers").status(), 200);
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        // SIGTERM, since a command that is killed ends none of the programs that it has started.
        self.process.terminate();
        self.process.wait();
    }
}

/// Folder of all examples.
fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples")
}

/// Installs what an example needs.
async fn install(name: &str) {
    let _alone = INSTALLATION.lock().await;
    let mut command = command(name);
    command.arg("--install");
    let installing = spawn_blocking(move || command.output().expect("bash"));
    let installed = timeout(START_PATIENCE, installing).await.expect("npm ends in time");
    let installed = installed.expect("no panic");
    let said = String::from_utf8_lossy(&installed.stdout);
    assert!(installed.status.success(), "examples/run {name} --install: {said}");
}

fn command(name: &str) -> Command {
    let mut command = Command::new("bash");
    command.args(["-c", "exec \"$0\" \"$@\" 2>&1"]).arg(folder().join("run")).arg(name);
    command.stdin(Stdio::null());
    for (variable, _) in std::env::vars_os() {
        // A setting of the machine's would be a setting of the sidecar.
        if variable.to_string_lossy().starts_with("VELT_") {
            command.env_remove(variable);
        }
    }
    command.env("VELT_SIDECAR", env!("CARGO_BIN_EXE_velt-sidecar"));
    command
}

/// Waits until the command says that the site is open. Returns `false` if the command ends before.
async fn is_open(lines: &mut UnboundedReceiver<String>, said: &mut Vec<String>) -> bool {
    let opening = async {
        while let Some(line) = lines.recv().await {
            let is_open = line.starts_with("Open http://");
            said.push(line);
            if is_open {
                return true;
            }
        }
        false
    };
    timeout(START_PATIENCE, opening).await.unwrap_or(false)
}

/// Returns the first of [`PORTS`] free ports in a row. Another program may take one of them before the example
/// does; then the example ends at once.
fn free_ports() -> u16 {
    let free = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
    loop {
        let any = TcpListener::bind(LOOPBACK).expect("a free port");
        let first = any.local_addr().expect("it is bound").port();
        let last = first.checked_add(PORTS - 1);
        if last.is_some_and(|last| (first + 1..=last).all(|port| free(port).is_ok())) {
            return first;
        }
    }
}

fn at(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

//! The life of the service under a real systemd: installed, started, reloaded, killed, upgraded, removed and purged,
//! with the user, the credentials and the limits that the unit says.

use std::fs::{self, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use http::Response;
use serde_json::Value;
use tempfile::TempDir;

use super::super::run_well;
use super::PACKAGE;
use super::machine::{Machine, install};
use crate::neighbour::{
    CREDENTIALS, claims_of, eventually, http_client, serve_app, start_emulator,
};

const CONFIG: &str = "/etc/velt-sidecar/sidecar.toml";

/// Version of the package to which the test upgrades.
const NEXT_VERSION: &str = "99.0.0";

/// A booted Debian with the service, and the addresses of the app and of Velt's stand-in in this process.
struct Installed {
    machine: Machine,
    app: SocketAddr,
    velt: SocketAddr,
}

impl Installed {
    /// Writes the configuration and its secrets, as the operator does.
    fn configure(&self, user_header: &str) {
        let Self { machine, app, velt } = self;
        let text = format!(
            "[listen]\naddress = \"127.0.0.1:0\"\n[admin]\naddress = \"127.0.0.1:0\"\n\
             [app]\naddress = \"{app}\"\n[velt]\nendpoint = \"http://{velt}/\"\n\
             [identity]\nuser_header = \"{user_header}\"\n[shutdown]\ngrace = \"0s\"\n"
        );
        fs::write(machine.root.path(CONFIG), text).expect("a disk");
        let (api_key, auth_token) = CREDENTIALS;
        for (name, secret) in [("velt-api-key", api_key), ("velt-auth-token", auth_token)] {
            let path = machine.root.path(&format!("/etc/velt-sidecar/{name}"));
            fs::write(&path, format!("{secret}\n")).expect("a disk");
            fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("our file");
        }
    }

    /// Returns the address of the traffic port, from the status that the sidecar has told systemd.
    fn traffic(&self) -> SocketAddr {
        let status = self.machine.property("StatusText");
        let address = status.strip_prefix("listening on ").and_then(|rest| rest.split(',').next());
        let address = address.and_then(|address| address.parse().ok());
        address.unwrap_or_else(|| panic!("no address: {status}\n{}", self.machine.journal()))
    }

    /// Asks for the app and for a token as the user that this header names. Returns the token's user.
    async fn user_of_token(&self, header: &str) -> Result<Value, String> {
        let url = |path: &str| format!("http://{}{path}", self.traffic());
        let app = http_client().get(url("/")).send().await.map_err(|error| error.to_string())?;
        assert_eq!(app.headers()["x-app"], "answers");
        let asking = http_client().get(url("/api/velt/token")).header(header, "ada");
        let answer = asking.send().await.map_err(|error| error.to_string())?;
        let body = answer.text().await.map_err(|error| error.to_string())?;
        let body: Value = serde_json::from_str(&body).map_err(|_| body)?;
        let token = body["token"].as_str().ok_or_else(|| body.to_string())?;
        Ok(claims_of(token)["userId"].clone())
    }

    fn process(&self) -> String {
        let process = self.machine.property("MainPID");
        assert_ne!(process, "0", "{}", self.machine.journal());
        process
    }

    async fn active_again_as_another_than(&self, process: &str) {
        eventually("the service to be active again", async || {
            let seen = ["ActiveState", "MainPID"].map(|name| self.machine.property(name));
            let is_another = seen[0] == "active" && seen[1] != process;
            is_another.then_some(()).ok_or_else(|| self.machine.journal())
        })
        .await;
    }
}

/// Makes a package of a later version, with another default configuration.
fn next_version(folder: &Path) -> PathBuf {
    let files = folder.join("files");
    run_well(Command::new("dpkg-deb").arg("--raw-extract").arg(&*PACKAGE).arg(&files), "");
    let change = |path: &str, change: &dyn Fn(&str) -> String| {
        let path = files.join(path);
        let text = fs::read_to_string(&path).expect("it is in the package");
        let changed = change(&text);
        assert_ne!(changed, text);
        fs::write(path, changed).expect("a disk");
    };
    let version = format!("Version: {}", super::VERSION);
    change("DEBIAN/control", &|text| text.replace(&version, &format!("Version: {NEXT_VERSION}")));
    change("etc/velt-sidecar/sidecar.toml", &|text| format!("# Another default.\n{text}"));
    let package = folder.join("next.deb");
    let mut build = Command::new("dpkg-deb");
    build.args(["-Znone", "--root-owner-group", "--build"]).arg(&files).arg(&package);
    run_well(&mut build, "");
    package
}

#[tokio::test(flavor = "multi_thread")]
async fn service_lives_under_systemd_as_its_unit_says() {
    let machine = Machine::boot().await;
    let emulator = start_emulator().await;
    let answer = |_: &_| {
        let answer =
            Response::builder().header("x-app", "answers").body(http_body_util::Full::default());
        answer.expect("a valid response")
    };
    let (_app, app) = serve_app(answer).await;
    let installed = Installed { machine, app, velt: emulator.address };
    starts_when_told(&installed).await;
    has_no_rights(&installed);
    reloads(&installed).await;
    comes_back_after_a_crash(&installed).await;
    upgrade_restarts_and_keeps_the_configuration(&installed).await;
    leaves_nothing_behind(&installed);
}

async fn starts_when_told(installed: &Installed) {
    let machine = &installed.machine;
    let package = machine.root.bring(&PACKAGE);
    machine.run(&install(&package));
    let told = machine.try_run(&["systemctl", "is-enabled", "velt-sidecar"]);
    assert!(told.expect_err("not by the package").contains("disabled"));
    assert_eq!(machine.property("ActiveState"), "inactive");
    installed.configure("X-Forwarded-User");
    // Returns when the sidecar says that it is ready.
    machine.run(&["systemctl", "enable", "--now", "velt-sidecar"]);
    assert_eq!(machine.property("ActiveState"), "active");
    assert_eq!(installed.user_of_token("x-forwarded-user").await, Ok("ada".into()));
}

fn has_no_rights(installed: &Installed) {
    let machine = &installed.machine;
    let process = installed.process();
    let status = machine.run(&["cat", &format!("/proc/{process}/status")]);
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"));
        line.unwrap_or_else(|| panic!("no {name}: {status}"))
    };
    for capabilities in ["CapEff", "CapPrm", "CapBnd", "CapAmb"] {
        assert_eq!(field(capabilities), "0000000000000000", "{capabilities}");
    }
    assert_eq!((field("NoNewPrivs"), field("Seccomp")), ("1", "2"));
    // The user exists only while the service runs (DynamicUser).
    let user: u32 = field("Uid").split('\t').next().and_then(|id| id.parse().ok()).expect("an id");
    assert!((61_184..=65_519).contains(&user), "{user}");
    let secrets = "/run/credentials/velt-sidecar.service/velt-api-key";
    let seen = machine.run(&["stat", "--format=%a %u", secrets]);
    assert_eq!(seen, format!("400 {user}"));
    let environment = machine.run(&["cat", &format!("/proc/{process}/environ")]);
    let (api_key, auth_token) = CREDENTIALS;
    assert!(!environment.contains(api_key) && !environment.contains(auth_token), "{environment}");
    let mounts = machine.run(&["cat", &format!("/proc/{process}/mountinfo")]);
    let options = mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(4);
        (fields.next()? == "/").then(|| fields.next())?
    });
    assert!(options.is_some_and(|options| options.starts_with("ro,")), "{mounts}");
}

async fn reloads(installed: &Installed) {
    let machine = &installed.machine;
    let process = installed.process();
    installed.configure("X-Other-User");
    machine.run(&["systemctl", "reload", "velt-sidecar"]);
    eventually("the new configuration to be in force", async || {
        installed.user_of_token("x-other-user").await
    })
    .await;
    assert_eq!(machine.property("ActiveState"), "active");
    assert_eq!(installed.process(), process, "the same process");
    assert!(machine.journal().contains("a new configuration is in force"), "{}", machine.journal());
}

async fn comes_back_after_a_crash(installed: &Installed) {
    let process = installed.process();
    // By the shell, since a small system has no other `kill`.
    installed.machine.run(&["sh", "-c", &format!("kill -s KILL {process}")]);
    installed.active_again_as_another_than(&process).await;
    assert_eq!(installed.machine.property("NRestarts"), "1");
    let limit = installed.machine.property("StartLimitIntervalUSec");
    assert_eq!(limit, "0", "systemd never gives up");
    assert_eq!(installed.user_of_token("x-other-user").await, Ok("ada".into()));
}

async fn upgrade_restarts_and_keeps_the_configuration(installed: &Installed) {
    let machine = &installed.machine;
    let folder = TempDir::new().expect("a folder");
    let next = machine.root.bring(&next_version(folder.path()));
    let process = installed.process();
    machine.run(&install(&next));
    let version = machine.run(&["dpkg-query", "-Wf", "${Version}", "velt-sidecar"]);
    assert_eq!(version, NEXT_VERSION);
    installed.active_again_as_another_than(&process).await;
    assert_eq!(installed.user_of_token("x-other-user").await, Ok("ada".into()));
    let new_default = fs::read_to_string(machine.root.path(&format!("{CONFIG}.dpkg-dist")));
    assert!(new_default.expect("for the operator to compare").contains("# Another default."));
}

fn leaves_nothing_behind(installed: &Installed) {
    let machine = &installed.machine;
    machine.run(&["apt-get", "--yes", "remove", "velt-sidecar"]);
    assert_eq!(machine.property("ActiveState"), "inactive");
    assert!(machine.journal().contains("ended"), "{}", machine.journal());
    let kept = machine.run(&["ls", "/etc/velt-sidecar"]);
    assert_eq!(kept, "sidecar.toml\nsidecar.toml.dpkg-dist\nvelt-api-key\nvelt-auth-token");
    assert!(!machine.root.path("/usr/bin/velt-sidecar").exists());

    machine.run(&["apt-get", "--yes", "purge", "velt-sidecar"]);
    let left =
        machine.run(&["find", "/etc", "/usr", "/var/lib", "/run", "-name", "*velt-sidecar*"]);
    assert_eq!(left, "");
    assert_eq!(machine.property("LoadState"), "not-found");
}

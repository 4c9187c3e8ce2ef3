//! The image: its root file system laid out by the script that the Dockerfile runs, the Dockerfile's own last
//! stage built by buildah, and the result run as a container by runc, locked down as in a pod.
//!
//! The build stage is not built here: it starts from an image that is in no registry of these tests. The
//! binary in this image is the test's own, without its debug information.

use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use http::Response;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{file, run, run_well};
use crate::neighbour::{
    CREDENTIALS, Process, eventually, http_client, lines_of, serve_app, start_emulator, tool,
};

/// Address at which the container finds a name server. A separate address, so that no other program uses it.
const NAME_SERVER: &str = "127.0.61.53:53";

/// Linux's number of the IPv6 address family, and the error of a kernel without IPv6.
const AF_INET6: u32 = 10;
const EAFNOSUPPORT: u32 = 97;

/// Lays out the root file system with deploy/rootfs.
pub(super) fn root_files(folder: &Path) -> PathBuf {
    let (binary, root) = (folder.join("velt-sidecar"), folder.join("rootfs"));
    let mut strip = Command::new(tool("strip"));
    run_well(strip.arg("-o").arg(&binary).arg(env!("CARGO_BIN_EXE_velt-sidecar")), "");
    run_well(Command::new(file("deploy/rootfs")).arg(&binary).arg(&root), "");
    root
}

/// Returns the last stage of the Dockerfile, after a stage that has that root file system already.
fn last_stage() -> String {
    let text = fs::read_to_string(file("deploy/Dockerfile")).expect("the Dockerfile");
    let start = text.rfind("\nFROM scratch\n").expect("the last stage starts from nothing");
    assert!(text.contains("&& deploy/rootfs /velt-sidecar/velt-sidecar /rootfs\n"), "{text}");
    format!("FROM scratch AS build\nCOPY rootfs /rootfs\n{}", &text[start..])
}

fn buildah(folder: &Path, arguments: &[&str]) -> String {
    let mut buildah = Command::new(tool("buildah"));
    let (root, runroot) = (folder.join("storage"), folder.join("run"));
    buildah.arg("--root").arg(root).arg("--runroot").arg(runroot);
    buildah.args(["--storage-driver", "vfs"]).args(arguments);
    run_well(buildah.current_dir(folder), "")
}

/// Builds the image, and returns its configuration.
fn build(folder: &Path) -> Value {
    fs::write(folder.join("Dockerfile"), last_stage()).expect("a disk");
    buildah(folder, &["bud", "--isolation=chroot", "--format=docker", "--tag=image", "."]);
    let inspected = buildah(folder, &["inspect", "--type=image", "image"]);
    let mut inspected: Value = serde_json::from_str(&inspected).expect("JSON");
    inspected["Docker"]["config"].take()
}

#[test]
fn the_image_says_what_it_is_and_how_to_run_it() {
    let folder = TempDir::new().expect("a folder");
    let root = root_files(folder.path());
    let config = build(folder.path());
    assert_eq!(config["User"], "65532:65532");
    assert_eq!(config["Entrypoint"], json!(["/usr/local/bin/velt-sidecar"]));
    let health = &config["Healthcheck"]["Test"];
    assert_eq!(*health, json!(["CMD", "/usr/local/bin/velt-sidecar", "health"]));
    assert_eq!(config["ExposedPorts"], json!({"8080/tcp": {}, "9901/tcp": {}}));
    let label = |name: &str| &config["Labels"][format!("org.opencontainers.image.{name}")];
    assert_eq!(*label("version"), env!("CARGO_PKG_VERSION"));
    assert_eq!(*label("licenses"), "Apache-2.0");
    // Beside the binary: glibc, its loader, certificates. No shell, and no writable file.
    let mut files = Command::new(tool("find"));
    files.arg(&root).args(["-type", "f", "-perm", "/111", "-printf", "%f\n"]);
    let mut files: Vec<_> = run_well(&mut files, "").lines().map(str::to_owned).collect();
    files.retain(|name| name != "velt-sidecar" && !name.contains(".so"));
    assert_eq!(files, [""; 0], "nothing else can be run");
    let mut writable = Command::new(tool("find"));
    writable.arg(&root).args(["-not", "-type", "l", "-perm", "/022"]);
    assert_eq!(run_well(&mut writable, ""), "", "nobody else may write");
}

/// Answers every question for an address with the machine's own address.
fn serve_names() {
    let socket = UdpSocket::bind(NAME_SERVER).expect("root may, and nobody else is there");
    std::thread::spawn(move || {
        let mut packet = [0; 512];
        while let Ok((length, peer)) = socket.recv_from(&mut packet) {
            let question = &packet[12..length];
            // The name ends with an empty label (RFC 1035, section 4.1.2); type and class follow.
            let end = 5 + question.iter().position(|byte| *byte == 0).expect("a name");
            let wants_address = question[end - 4..end - 2] == [0, 1];
            let mut answer = packet[..2].to_vec();
            answer.extend([0x81, 0x80, 0, 1, 0, u8::from(wants_address), 0, 0, 0, 0]);
            answer.extend(&question[..end]);
            if wants_address {
                answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4, 127, 0, 0, 1]);
            }
            let _ = socket.send_to(&answer, peer);
        }
    });
}

/// A container of the image in runc, on this machine's network.
struct Container {
    bundle: TempDir,
    name: String,
}

impl Container {
    /// Makes a container of buildah's image, with the settings of a pod's security context and of a container
    /// engine.
    fn new(environment: &[String]) -> Self {
        let bundle = TempDir::new().expect("a folder");
        let path = bundle.path();
        let root = root_files(path);
        let config = build(path);
        for (name, text) in [
            ("hosts", "127.0.0.1 app.hosts.test\n".to_owned()),
            ("resolv.conf", format!("nameserver {}\n", NAME_SERVER.replace(":53", ""))),
        ] {
            fs::write(path.join(name), text).expect("a disk");
            // A file must exist for another file to be mounted over it.
            fs::write(root.join("etc").join(name), "").expect("a disk");
        }
        let name = format!("velt-sidecar-test-{}", path.file_name().expect("a name").display());
        let container = Self { name: name.replace('.', "-"), bundle };
        run_well(container.runc(&["spec"]).current_dir(container.bundle.path()), "");
        container.lock_down(&config, environment);
        container
    }

    fn lock_down(&self, image: &Value, environment: &[String]) {
        let path = self.bundle.path().join("config.json");
        let text = fs::read_to_string(&path).expect("runc has written it");
        let mut spec: Value = serde_json::from_str(&text).expect("JSON");
        let (uid, gid) =
            image["User"].as_str().and_then(|user| user.split_once(':')).expect("both");
        let number = |id: &str| id.parse::<u32>().expect("a number");
        spec["process"]["user"] = json!({"uid": number(uid), "gid": number(gid)});
        spec["process"]["args"] = image["Entrypoint"].clone();
        spec["process"]["env"] = json!(environment);
        spec["process"]["terminal"] = json!(false);
        spec["process"]["capabilities"] = json!({});
        spec["process"]["noNewPrivileges"] = json!(true);
        spec["root"]["readonly"] = json!(true);
        let namespaces = spec["linux"]["namespaces"].as_array_mut().expect("a list");
        namespaces.retain(|namespace| namespace["type"] != "network");
        let mounts = spec["mounts"].as_array_mut().expect("a list");
        mounts.retain(|mount| mount["destination"] == "/proc" || mount["destination"] == "/dev");
        for name in ["hosts", "resolv.conf"] {
            let source = self.bundle.path().join(name);
            mounts.push(json!({"destination": format!("/etc/{name}"), "type": "bind",
                "source": source, "options": ["bind", "ro"]}));
        }
        fs::write(path, spec.to_string()).expect("a disk");
    }

    /// Changes the configuration that runc reads.
    fn change(&self, change: impl FnOnce(&mut Value)) {
        let path = self.bundle.path().join("config.json");
        let text = fs::read_to_string(&path).expect("it is written");
        let mut spec: Value = serde_json::from_str(&text).expect("JSON");
        change(&mut spec);
        fs::write(path, spec.to_string()).expect("a disk");
    }

    /// Takes IPv6 away, as a kernel does that is started with `ipv6.disable=1`.
    fn without_ipv6(&self) {
        let of_ipv6 = json!({"index": 0, "value": AF_INET6, "op": "SCMP_CMP_EQ"});
        let refused = json!({"names": ["socket"], "action": "SCMP_ACT_ERRNO",
            "errnoRet": EAFNOSUPPORT, "args": [of_ipv6]});
        self.change(|spec| {
            spec["linux"]["seccomp"] =
                json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [refused]});
        });
    }

    /// Gives the container a network of its own, in which IPv6 sockets take IPv4 connections only on request.
    fn with_separate_families(&self) {
        self.change(|spec| {
            let namespaces = spec["linux"]["namespaces"].as_array_mut().expect("a list");
            namespaces.push(json!({"type": "network"}));
            spec["linux"]["sysctl"] = json!({"net.ipv6.bindv6only": "1"});
        });
    }

    fn runc(&self, arguments: &[&str]) -> Command {
        let mut runc = Command::new(tool("runc"));
        runc.arg("--root").arg(self.bundle.path().join("runc")).args(arguments);
        runc.stdin(Stdio::null());
        runc
    }

    fn start(&self) -> Process {
        let mut runc = self.runc(&["run", "--bundle"]);
        Process::start(runc.arg(self.bundle.path()).arg(&self.name).stderr(Stdio::piped()))
    }

    /// Runs a command of the image within the container.
    fn exec(&self, arguments: &[&str]) -> Result<String, String> {
        let command = [&["exec", &self.name, "/usr/local/bin/velt-sidecar"], arguments].concat();
        run(&mut self.runc(&command), "")
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // An error only says that the container has ended by itself.
        let _ = self.runc(&["delete", "--force", &self.name]).stderr(Stdio::null()).status();
    }
}

/// Returns the two addresses on which a sidecar says that it listens.
fn addresses(line: &str) -> [SocketAddr; 2] {
    ["traffic=", "admin="].map(|name| {
        let (_, rest) = line.split_once(name).expect("an address");
        rest.split(' ').next().expect("an end").parse().expect("an address")
    })
}

/// Waits until the sidecar says that it listens. Returns all its output so far.
async fn listening(lines: &mut tokio::sync::mpsc::UnboundedReceiver<String>) -> String {
    let mut printed = String::new();
    while !printed.contains("velt-sidecar is listening") {
        printed += &lines.recv().await.unwrap_or_else(|| panic!("it ended: {printed}"));
        printed.push('\n');
    }
    printed
}

#[tokio::test(flavor = "multi_thread")]
async fn chart_addresses_serve_by_ipv4_without_ipv6() {
    let (_app, app) = serve_app(|_| Response::default()).await;
    let (api_key, auth_token) = CREDENTIALS;
    // The hooks and probes by command need to know the port.
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let admin = free.local_addr().expect("it is bound");
    drop(free);
    let container = Container::new(&[
        format!("VELT_API_KEY={api_key}"),
        format!("VELT_AUTH_TOKEN={auth_token}"),
        "VELT_SIDECAR_LISTEN__ADDRESS=[::]:0".to_owned(),
        format!("VELT_SIDECAR_ADMIN__ADDRESS=[::]:{}", admin.port()),
        format!("VELT_SIDECAR_APP__ADDRESS={app}"),
    ]);
    container.without_ipv6();
    let mut process = container.start();
    let mut lines = lines_of(process.child().stderr.take().expect("piped"));
    let printed = listening(&mut lines).await;
    assert!(printed.contains("this system has no IPv6"), "{printed}");
    let [traffic, _] = addresses(printed.lines().last().expect("a line"));
    assert!(traffic.ip().is_unspecified() && traffic.is_ipv4(), "{printed}");
    let answer = http_client().get(format!("http://127.0.0.1:{}/", traffic.port())).send().await;
    assert_eq!(answer.expect("an answer").status(), 200);
    container.exec(&["health", "--ready"]).expect("it is ready");
    container.exec(&["drain"]).expect("it drains");
    let error = container.exec(&["health", "--ready"]).expect_err("it leaves");
    assert!(error.contains("503"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn chart_addresses_serve_both_families_by_any_sysctl() {
    let (api_key, auth_token) = CREDENTIALS;
    let container = Container::new(&[
        format!("VELT_API_KEY={api_key}"),
        format!("VELT_AUTH_TOKEN={auth_token}"),
        "VELT_SIDECAR_LISTEN__ADDRESS=[::]:8080".to_owned(),
        "VELT_SIDECAR_ADMIN__ADDRESS=[::]:9901".to_owned(),
    ]);
    container.with_separate_families();
    let mut process = container.start();
    let mut lines = lines_of(process.child().stderr.take().expect("piped"));
    listening(&mut lines).await;
    for url in ["http://127.0.0.1:9901", "http://[::1]:9901"] {
        let health = container.exec(&["health", "--ready", "--admin", url]);
        health.unwrap_or_else(|error| panic!("{url}: {error}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn container_without_rights_serves_and_resolves_names() {
    serve_names();
    let emulator = start_emulator().await;
    let (_app, app) = serve_app(|_| Response::default()).await;
    let (api_key, auth_token) = CREDENTIALS;
    let container = Container::new(&[
        format!("VELT_API_KEY={api_key}"),
        format!("VELT_AUTH_TOKEN={auth_token}"),
        "VELT_SIDECAR_LISTEN__ADDRESS=127.0.0.1:0".to_owned(),
        "VELT_SIDECAR_ADMIN__ADDRESS=127.0.0.1:0".to_owned(),
        // One name is in /etc/hosts; only the name server knows the other name.
        format!("VELT_SIDECAR_APP__ADDRESS=app.hosts.test:{}", app.port()),
        format!("VELT_SIDECAR_VELT__ENDPOINT=http://velt.dns.test:{}/", emulator.address.port()),
        "VELT_SIDECAR_VELT__ALLOW_PLAINTEXT=true".to_owned(),
        // Only the image's own certificate authorities, for a server that is called over TLS: without them
        // the sidecar would not start.
        "VELT_SIDECAR_OUTGOING__ROOTS=system".to_owned(),
        "VELT_SIDECAR_TRACING__OTLP_ENDPOINT=https://127.0.0.1:1/v1/traces".to_owned(),
        "VELT_SIDECAR_SHUTDOWN__GRACE=0s".to_owned(),
    ]);
    let mut process = container.start();
    let mut lines = lines_of(process.child().stderr.take().expect("piped"));
    let mut printed = String::new();
    let [traffic, admin] = loop {
        let line = lines.recv().await.unwrap_or_else(|| panic!("it ended: {printed}"));
        if line.contains("velt-sidecar is listening") {
            break addresses(&line);
        }
        printed += &line;
    };
    let http = http_client();
    for path in ["/", "/api/velt/token"] {
        let asking = http.get(format!("http://{traffic}{path}")).header("x-forwarded-user", "ada");
        let answer = asking.send().await.expect("an answer");
        assert_eq!(answer.status(), 200, "{path}: {:?}", answer.text().await);
    }

    let state = run_well(&mut container.runc(&["state", &container.name]), "");
    let state: Value = serde_json::from_str(&state).expect("JSON");
    let id = state["pid"].as_u64().expect("a number");
    let status = fs::read_to_string(format!("/proc/{id}/status")).expect("it runs");
    for expected in [
        "\nUid:\t65532\t65532\t65532\t65532\n",
        "\nGid:\t65532\t65532\t65532\t65532\n",
        "\nCapEff:\t0000000000000000\n",
        "\nCapBnd:\t0000000000000000\n",
        "\nNoNewPrivs:\t1\n",
    ] {
        assert!(status.contains(expected), "{expected}: {status}");
    }
    let mounts = fs::read_to_string(format!("/proc/{id}/mountinfo")).expect("it runs");
    assert!(
        mounts.lines().any(|line| line.contains(" / / ro") || line.contains(" / ro,")),
        "{mounts}"
    );

    let url = format!("http://{admin}");
    container.exec(&["health", "--ready", "--admin", &url]).expect("it is ready");
    container.exec(&["drain", "--admin", &url]).expect("it drains");
    let error = container.exec(&["health", "--ready", "--admin", &url]).expect_err("it leaves");
    assert!(error.contains("503"), "{error}");
    run_well(&mut container.runc(&["kill", &container.name, "TERM"]), "");
    eventually("the container to end", async || {
        let ended = process.child().try_wait().map_err(|error| error.to_string())?;
        let status = ended.ok_or("it runs")?;
        assert!(status.success(), "{status}");
        Ok(())
    })
    .await;
}

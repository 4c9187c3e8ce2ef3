//! The binary as a person or a kubelet runs it: arguments, signals, exit codes.

use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::support::client::Client;
use crate::support::velt::{FakeVelt, user_of};
use crate::support::{API_KEY, AUTH_TOKEN, PATIENCE};

/// sysexits.h
const USAGE: i32 = 64;
const UNAVAILABLE: i32 = 69;
const CONFIG: i32 = 78;

const CREDENTIALS: [(&str, &str); 2] = [("VELT_API_KEY", API_KEY), ("VELT_AUTH_TOKEN", AUTH_TOKEN)];

/// Free ports for both listeners.
const PORTS: [(&str, &str); 2] = [
    ("VELT_SIDECAR_LISTEN__ADDRESS", "127.0.0.1:0"),
    ("VELT_SIDECAR_ADMIN__ADDRESS", "127.0.0.1:0"),
];

/// The binary in `folder`, with nothing in its environment but what is given.
fn command(folder: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_velt-sidecar"));
    command.args(arguments).current_dir(folder).env_clear();
    command.envs(environment.iter().copied()).stdin(Stdio::null());
    command
}

/// What a command that ends by itself has printed.
struct Finished {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

async fn finished_in(folder: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Finished {
    let mut command = command(folder, arguments, environment);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let id = child.id();
    let waiting = tokio::task::spawn_blocking(move || child.wait_with_output());
    let Ok(waited) = timeout(PATIENCE, waiting).await else {
        send("KILL", id);
        panic!("{arguments:?} does not end");
    };
    let Output { status, stdout, stderr } = waited.expect("no panic").expect("it ended");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    Finished { code: status.code(), stdout: text(stdout), stderr: text(stderr) }
}

/// As above, in a folder without a configuration file.
async fn finished(arguments: &[&str], environment: &[(&str, &str)]) -> Finished {
    let folder = tempfile::tempdir().expect("a folder");
    finished_in(folder.path(), arguments, environment).await
}

fn send(signal: &str, id: u32) {
    let sent = Command::new("kill").args([format!("-{signal}"), id.to_string()]).status();
    assert!(sent.expect("kill is installed").success(), "{signal} was not sent");
}

/// A command that runs until it is told to end. Dropping it kills it.
struct Running {
    child: Child,
    lines: mpsc::UnboundedReceiver<String>,
    /// Everything that was printed so far, on both streams.
    printed: String,
    _folder: tempfile::TempDir,
}

impl Running {
    fn start(arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut command = command(folder.path(), arguments, environment);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        let (sender, lines) = mpsc::unbounded_channel();
        read_lines(child.stdout.take().expect("piped"), sender.clone());
        read_lines(child.stderr.take().expect("piped"), sender);
        Self { child, lines, printed: String::new(), _folder: folder }
    }

    /// A sidecar on free ports, and where it listens for traffic and for the kubelet.
    async fn sidecar(environment: &[(&str, &str)]) -> (Self, SocketAddr, SocketAddr) {
        let environment = [&CREDENTIALS[..], &PORTS, environment].concat();
        let mut running = Self::start(&["run"], &environment);
        let line = running.line_with("velt-sidecar is listening").await;
        let address = |name: &str| {
            // `name=address` or `"name":"address"`.
            let (_, rest) = line.split_once(name).expect("an address");
            let rest = rest.trim_start_matches(['=', ':', '"']);
            rest.split([' ', '"']).next().expect("an end").parse().expect("an address")
        };
        let (traffic, admin) = (address("traffic"), address("admin"));
        (running, traffic, admin)
    }

    /// Waits for a line that holds `part`.
    async fn line_with(&mut self, part: &str) -> String {
        loop {
            let line = timeout(PATIENCE, self.lines.recv()).await;
            let line = line.unwrap_or_else(|_| panic!("no {part} in time: {}", self.printed));
            let line = line.unwrap_or_else(|| panic!("ended without {part}: {}", self.printed));
            self.printed.push_str(&line);
            self.printed.push('\n');
            if line.contains(part) {
                return line;
            }
        }
    }

    fn signal(&self, signal: &str) {
        send(signal, self.child.id());
    }

    /// Waits for the end; everything that was printed until then.
    async fn ended(mut self) -> (ExitStatus, String) {
        let reading = async {
            // Ends when the process has closed both streams.
            while let Some(line) = self.lines.recv().await {
                self.printed.push_str(&line);
                self.printed.push('\n');
            }
        };
        let ended = timeout(PATIENCE, reading).await.is_ok();
        let printed = std::mem::take(&mut self.printed);
        assert!(ended, "it does not end: {printed}");
        (self.child.wait().expect("it ended"), printed)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Errors only say that it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read_lines(stream: impl std::io::Read + Send + 'static, lines: mpsc::UnboundedSender<String>) {
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if lines.send(line).is_err() {
                break;
            }
        }
    });
}

#[tokio::test]
async fn without_credentials_it_ends_at_once_and_says_how_to_give_them() {
    for arguments in [&[][..], &["run"], &["check"]] {
        let finished = finished(arguments, &[]).await;
        assert_eq!(finished.code, Some(CONFIG), "{arguments:?}");
        for name in ["VELT_API_KEY", "api_key_file", "VELT_AUTH_TOKEN", "auth_token_file"] {
            assert!(finished.stderr.contains(name), "{name}: {}", finished.stderr);
        }
        assert!(finished.stderr.contains("velt.auth_token is missing"), "{}", finished.stderr);
        assert_eq!(finished.stdout, "");
    }
}

#[tokio::test]
async fn a_wrong_command_line_is_a_usage_error() {
    for arguments in [
        &["--no-such-flag"][..],
        &["no-such-command"],
        &["run", "--config"],
        &["run", "extra"],
        &["demo", "--listen", "not-an-address"],
        &["emulator", "--failure", "no-such-failure"],
        &["emulator", "--api-key", "alone"],
    ] {
        let finished = finished(arguments, &CREDENTIALS).await;
        assert_eq!(finished.code, Some(USAGE), "{arguments:?}");
        assert!(finished.stderr.starts_with("error: "), "{}", finished.stderr);
        assert_eq!(finished.stdout, "");
    }
}

#[tokio::test]
async fn version_is_printed_in_both_ways() {
    let expected = concat!("velt-sidecar ", env!("CARGO_PKG_VERSION"), "\n");
    for arguments in [["version"], ["--version"]] {
        let finished = finished(&arguments, &[]).await;
        assert_eq!((finished.code, &*finished.stdout), (Some(0), expected));
        assert_eq!(finished.stderr, "");
    }
}

#[tokio::test]
async fn help_lists_every_command_and_the_exit_codes() {
    let finished = finished(&["--help"], &[]).await;
    assert_eq!(finished.code, Some(0));
    let commands: Vec<_> = finished
        .stdout
        .lines()
        .filter_map(|line| line.strip_prefix("  ")?.split_once("  "))
        .map(|(command, _)| command)
        .collect();
    for command in ["run", "check", "demo", "emulator", "version"] {
        assert!(commands.contains(&command), "{command} is not in\n{}", finished.stdout);
    }
    for code in ["64 usage", "69 an address", "78 configuration"] {
        assert!(finished.stdout.contains(code), "{}", finished.stdout);
    }
}

#[tokio::test]
async fn check_prints_what_is_in_force_and_no_secret() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("sidecar.toml"), "[app]\naddress = \"127.0.0.1:5000\"\n")
        .expect("written");
    let environment = [&CREDENTIALS[..], &[("VELT_SIDECAR_LOG__LEVEL", "debug")]].concat();
    let finished = finished_in(folder.path(), &["check"], &environment).await;
    assert_eq!((finished.code, &*finished.stderr), (Some(0), ""));
    for (value, source) in [
        ("address = \"127.0.0.1:5000\"", "# line 2"),
        ("level = \"debug\"", "# environment variable VELT_SIDECAR_LOG__LEVEL"),
        ("api_key = \"<redacted>\"", "# environment variable VELT_API_KEY"),
        ("auth_token = \"<redacted>\"", "# environment variable VELT_AUTH_TOKEN"),
        ("user_header = \"X-Forwarded-User\"", "# default"),
    ] {
        let mut lines = finished.stdout.lines();
        let there = lines.any(|line| line.starts_with(value) && line.ends_with(source));
        assert!(there, "{value} {source} is not in\n{}", finished.stdout);
    }
    assert!(!finished.stdout.contains(API_KEY) && !finished.stdout.contains(AUTH_TOKEN));
}

#[tokio::test]
async fn check_names_the_file_and_line_of_a_mistake() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("my.toml"), "\n[app]\nadress = \"x\"\n").expect("written");
    for arguments in [["check", "--config", "my.toml"], ["--config", "my.toml", "run"]] {
        let finished = finished_in(folder.path(), &arguments, &CREDENTIALS).await;
        assert_eq!((finished.code, &*finished.stdout), (Some(CONFIG), ""));
        assert_eq!(
            finished.stderr,
            "velt-sidecar: the configuration has 1 problem:\n  \
             my.toml:3: there is no setting app.adress\n    -> did you mean address?\n"
        );
    }
}

#[tokio::test]
async fn a_file_that_was_asked_for_must_be_there() {
    for command in ["run", "check"] {
        let finished = finished(&[command, "--config", "nowhere.toml"], &CREDENTIALS).await;
        assert_eq!((finished.code, &*finished.stdout), (Some(CONFIG), ""));
        assert_eq!(
            finished.stderr,
            "velt-sidecar: nowhere.toml can't be read: No such file or directory (os error 2)\n"
        );
    }
}

#[tokio::test]
async fn a_port_in_use_is_named_with_its_setting() {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let address = taken.local_addr().expect("an address").to_string();
    for (variable, setting) in [
        ("VELT_SIDECAR_LISTEN__ADDRESS", "listen.address"),
        ("VELT_SIDECAR_ADMIN__ADDRESS", "admin.address"),
    ] {
        // So few that no system's limit on open files is worth a warning.
        let few = ("VELT_SIDECAR_LISTEN__MAX_CONNECTIONS", "10");
        let environment = [&CREDENTIALS[..], &PORTS, &[(variable, &*address), few]].concat();
        let finished = finished(&["run"], &environment).await;
        assert_eq!(finished.code, Some(UNAVAILABLE));
        assert_eq!(
            finished.stderr,
            format!(
                "velt-sidecar: can't listen on {address}: choose another {setting}, \
                 or end what uses it: Address already in use (os error 98)\n"
            )
        );
    }
    for command in ["demo", "emulator"] {
        let finished = finished(&[command, "--listen", &address], &[]).await;
        assert_eq!(finished.code, Some(UNAVAILABLE), "{command}");
        assert!(finished.stderr.contains(&address), "{}", finished.stderr);
    }
}

#[tokio::test]
async fn it_is_ready_when_it_says_so_and_ends_with_0_when_told() {
    for signal in ["TERM", "INT"] {
        let grace = [("VELT_SIDECAR_SHUTDOWN__GRACE", "0s")];
        let (running, traffic, admin) = Running::sidecar(&grace).await;
        for path in ["/healthz/ready", "/healthz/live", "/healthz/startup", "/metrics"] {
            assert_eq!(Client::to(admin).get(path).send().await.status(), 200, "{path}");
        }
        // Nobody is behind it, and it says so itself.
        let answer = Client::to(traffic).get("/").send().await;
        assert_eq!(answer.status(), 502);
        running.signal(signal);
        let (status, printed) = running.ended().await;
        assert_eq!(status.code(), Some(0), "{printed}");
    }
}

#[tokio::test]
async fn run_is_what_it_does_without_a_command() {
    let mut running = Running::start(&[], &[&CREDENTIALS[..], &PORTS].concat());
    running.line_with("velt-sidecar is listening").await;
}

#[tokio::test]
async fn a_second_signal_ends_a_long_grace_time_at_once() {
    let grace = [("VELT_SIDECAR_SHUTDOWN__GRACE", "1h")];
    let (mut running, traffic, admin) = Running::sidecar(&grace).await;
    running.signal("TERM");
    running.line_with("ending").await;
    let ready = Client::to(admin).get("/healthz/ready").send().await;
    assert_eq!((ready.status(), &*ready.text()), (503, "draining\n"));
    assert_eq!(Client::to(traffic).get("/").send().await.status(), 502, "it still serves");
    running.signal("TERM");
    let (status, printed) = running.ended().await;
    assert_eq!(status.code(), Some(0), "{printed}");
}

#[tokio::test]
async fn t40_no_log_line_holds_a_secret_a_token_or_a_user() {
    let velt = FakeVelt::start().await;
    let endpoint = format!("http://{}/", velt.address);
    for format in ["text", "json"] {
        let (running, traffic, _) = Running::sidecar(&[
            ("VELT_SIDECAR_VELT__ENDPOINT", &endpoint),
            ("VELT_SIDECAR_LOG__LEVEL", "debug"),
            ("VELT_SIDECAR_SHUTDOWN__GRACE", "0s"),
            ("VELT_SIDECAR_LOG__FORMAT", format),
        ])
        .await;
        velt.recover();
        let ask = |user: &'static str| {
            let sending = Client::to(traffic).get("/api/velt/token");
            sending.header("x-forwarded-user", user).header("cookie", "canary-cookie").send()
        };
        let token = ask("canary-user").await.json()["token"].as_str().expect("a token").to_owned();
        assert_eq!(user_of(&token), "canary-user");
        velt.answer_with(
            403,
            r#"{"error":{"status":"PERMISSION_DENIED","message":"canary-message"}}"#,
        );
        assert_eq!(ask("canary-other").await.status(), 502);
        running.signal("TERM");
        let (_, printed) = running.ended().await;
        assert!(printed.contains("a mint failed"), "{printed}");
        assert!(!printed.contains("canary") && !printed.contains(&token), "{printed}");
    }
}

#[tokio::test]
async fn the_emulator_says_where_it_is_and_mints() {
    let mut running = Running::start(&["emulator", "--listen", "127.0.0.1:0"], &[]);
    let line = running.line_with("Velt emulator").await;
    let (_, address) = line.split_once("http://").expect("an address");
    let address = address.split('/').next().expect("an end").parse().expect("an address");
    let body = r#"{"data":{"userId":"ada","apiKey":"k","authToken":"t"}}"#;
    let answer = Client::to(address).post("/", body).send().await;
    let token = answer.json()["result"]["data"]["token"].clone();
    assert_eq!(user_of(token.as_str().expect("a token")), "ada");
    running.signal("TERM");
    assert_eq!(running.ended().await.0.code(), Some(0));
}

#[tokio::test]
async fn the_demo_shows_its_page_and_ends_when_told() {
    let mut running = Running::start(&["demo", "--listen", "127.0.0.1:0"], &[]);
    let line = running.line_with("open http://").await;
    let (_, address) = line.split_once("http://").expect("an address");
    let address = address.trim_end_matches('/').parse().expect("an address");
    assert_eq!(Client::to(address).get("/").begin().await.status(), 200);
    running.signal("INT");
    let ended =
        timeout(Duration::from_secs(10), running.ended()).await.expect("without a grace time");
    assert_eq!(ended.0.code(), Some(0));
}

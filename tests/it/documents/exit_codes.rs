//! Exit codes: each code of each command on the page is provoked, and no command is missing there.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Stdio};

use crate::support::app::FakeApp;
use crate::support::binary::{CREDENTIALS, PORTS, Running, finished};

const PAGE: &str = "docs/reference/exit-codes.md";

/// Address at which no program answers.
const NOTHING: &str = "http://127.0.0.1:1";

/// Returns command and code of each pair on the page.
fn pairs_of_the_page() -> BTreeSet<(String, i32)> {
    let page = fs::read_to_string(PAGE).expect("the page");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `"));
    let rows = rows.map(|row| row.trim_end_matches('|').split_once('|').expect("two cells"));
    let pairs = rows.flat_map(|(command, codes)| {
        let command = command.split('`').next().expect("a name").to_owned();
        codes.split(',').map(move |code| (command.clone(), code.trim().parse().expect("a code")))
    });
    pairs.collect()
}

/// Pairs that were provoked.
#[derive(Default)]
struct Provoked(BTreeSet<(String, i32)>);

impl Provoked {
    async fn provoke(&mut self, code: i32, line: &str, environment: &[(&str, &str)]) {
        let arguments: Vec<_> = line.split(' ').collect();
        let ended = finished(&arguments, environment).await;
        assert_eq!(ended.code, Some(code), "{line}: {}{}", ended.stdout, ended.stderr);
        self.note(&arguments, code);
    }

    fn note(&mut self, arguments: &[&str], code: i32) {
        self.0.insert((arguments[0].to_owned(), code));
    }

    /// Provokes the code of a result that can't be written.
    fn write_nowhere(&mut self, line: &str, environment: &[(&str, &str)]) {
        let arguments: Vec<_> = line.split(' ').collect();
        let full = File::create("/dev/full").expect("a device that is always full");
        let mut command = Command::new(env!("CARGO_BIN_EXE_velt-sidecar"));
        command.args(&arguments).env_clear().envs(environment.iter().copied());
        let folder = tempfile::tempdir().expect("a folder");
        command.current_dir(folder.path()).stdin(Stdio::null()).stderr(Stdio::null());
        let code = command.stdout(full).status().expect("it starts").code();
        assert_eq!(code, Some(74), "{line}");
        self.note(&arguments, 74);
    }

    async fn end_by_signal(&mut self, line: &str, started: &str, environment: &[(&str, &str)]) {
        let arguments: Vec<_> = line.split(' ').collect();
        let mut running = Running::start(&arguments, environment);
        running.line_with(started).await;
        running.signal("TERM");
        let (status, said) = running.ended().await;
        assert_eq!(status.code(), Some(0), "{line}: {said}");
        self.note(&arguments, 0);
    }
}

#[tokio::test]
async fn each_command_ends_with_the_codes_of_the_page() {
    let mut provoked = Provoked::default();
    provoke_without_a_sidecar(&mut provoked).await;
    provoke_with_a_sidecar(&mut provoked).await;
    assert_eq!(provoked.0, pairs_of_the_page(), "provoked, and on the page");
}

async fn provoke_without_a_sidecar(provoked: &mut Provoked) {
    for line in [
        "run extra",
        "check --json",
        "schema extra",
        "version extra",
        "doctor --timeout soon",
        "explain",
        "admin",
        "health --admin ftp://x",
        "drain --wait 10",
        "demo --listen x",
        "emulator --listen x",
    ] {
        provoked.provoke(64, line, &CREDENTIALS).await;
    }
    for line in ["run", "check", "doctor", "explain /"] {
        provoked.provoke(78, line, &[]).await;
    }
    for command in ["admin log-level", "health", "drain"] {
        provoked.provoke(78, &format!("{command} --config nowhere.toml"), &[]).await;
    }
    let calls = ["admin log-level", "drain", "explain /"];
    for command in calls {
        provoked.provoke(69, &format!("{command} --admin {NOTHING}"), &[]).await;
    }
    provoked.provoke(1, &format!("health --admin {NOTHING}"), &[]).await;
    for line in ["check", "explain /", "schema", "version"] {
        provoked.provoke(0, line, &CREDENTIALS).await;
        provoked.write_nowhere(line, &CREDENTIALS);
    }
    let nothing =
        [("VELT_SIDECAR_VELT__ENDPOINT", NOTHING), ("VELT_SIDECAR_APP__ADDRESS", "127.0.0.1:1")];
    let set_up = [&CREDENTIALS[..], &PORTS, &nothing].concat();
    provoked.provoke(0, "doctor --init", &set_up).await;
    provoked.provoke(69, "doctor --no-mint", &set_up).await;
    provoked.write_nowhere("doctor --init", &set_up);
}

async fn provoke_with_a_sidecar(provoked: &mut Provoked) {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let admin = taken.local_addr().expect("it is bound").to_string();
    let traffic = ("VELT_SIDECAR_LISTEN__ADDRESS", "127.0.0.1:0");
    let set_up = [&CREDENTIALS[..], &[traffic, ("VELT_SIDECAR_ADMIN__ADDRESS", &admin)]].concat();
    provoked.provoke(69, "run", &set_up).await;
    for command in ["demo", "emulator"] {
        provoked.provoke(69, &format!("{command} --listen {admin}"), &[]).await;
    }
    provoked.end_by_signal("run", "is listening", &[&CREDENTIALS[..], &PORTS].concat()).await;
    provoked.end_by_signal("demo --listen 127.0.0.1:0", "http://127.0.0.1:", &[]).await;
    provoked.end_by_signal("emulator --listen 127.0.0.1:0", "Velt emulator", &[]).await;

    let secret = [("VELT_SIDECAR_ADMIN_TOKEN", "an-admin-token-of-thirty-two-bytes-or-more")];
    let app = FakeApp::start().await;
    let address = app.address.to_string();
    let set_up = [&secret[..], &[("VELT_SIDECAR_APP__ADDRESS", &*address)]].concat();
    let (_running, _, admin): (_, SocketAddr, SocketAddr) = Running::sidecar(&set_up).await;
    provoked.write_nowhere(&format!("admin log-level --admin http://{admin}"), &secret);
    provoked.provoke(0, &format!("health --admin http://{admin}"), &[]).await;
    for command in ["admin log-level", "drain", "explain /"] {
        let line = format!("{command} --admin http://{admin}");
        provoked.provoke(77, &line, &[]).await;
        provoked.provoke(0, &line, &secret).await;
    }
}

#[tokio::test]
async fn page_names_each_command() {
    let help = finished(&["--help"], &[]).await.stdout;
    let (_, commands) = help.split_once("Commands:\n").expect("a list of commands");
    let commands = commands.lines().take_while(|line| line.starts_with("  "));
    // A line with a greater indent goes on with the line before.
    let commands =
        commands.filter_map(|line| line.strip_prefix("  ").filter(|it| !it.starts_with(' ')));
    let names = commands.filter_map(|line| line.split_whitespace().next());
    let names: BTreeSet<_> = names.filter(|name| *name != "help").map(str::to_owned).collect();
    let on_page: BTreeSet<_> = pairs_of_the_page().into_iter().map(|(name, _)| name).collect();
    assert_eq!(on_page, names);
}

//! The binary as a process: commands that end by themselves, and commands that have to be told to end.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};

use tokio::sync::mpsc;
use tokio::time::timeout;

use super::{API_KEY, AUTH_TOKEN, PATIENCE};

/// Both secrets, as in production.
pub const CREDENTIALS: [(&str, &str); 2] =
    [("VELT_API_KEY", API_KEY), ("VELT_AUTH_TOKEN", AUTH_TOKEN)];

/// Free ports for both listeners.
pub const PORTS: [(&str, &str); 2] = [
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

/// Output of a command that ends by itself.
pub struct Finished {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// Runs a command in `folder` to its end.
pub async fn finished_in(
    folder: &Path,
    arguments: &[&str],
    environment: &[(&str, &str)],
) -> Finished {
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

/// Runs a command to its end, in a folder without a configuration file.
pub async fn finished(arguments: &[&str], environment: &[(&str, &str)]) -> Finished {
    let folder = tempfile::tempdir().expect("a folder");
    finished_in(folder.path(), arguments, environment).await
}

fn send(signal: &str, id: u32) {
    let sent = Command::new("kill").args([format!("-{signal}"), id.to_string()]).status();
    assert!(sent.expect("kill is installed").success(), "{signal} was not sent");
}

/// A command that runs until it is told to end. Dropping the value kills the process.
pub struct Running {
    child: Child,
    lines: mpsc::UnboundedReceiver<String>,
    /// Text that was printed so far, on both streams.
    printed: String,
    /// Configuration file, which the process reads again while it runs.
    configuration: Option<tempfile::NamedTempFile>,
    _folder: tempfile::TempDir,
}

impl Running {
    pub fn start(arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        Self::spawn(command(folder.path(), arguments, environment), folder)
    }

    fn spawn(mut command: Command, folder: tempfile::TempDir) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        let (sender, lines) = mpsc::unbounded_channel();
        read_lines(child.stdout.take().expect("piped"), sender.clone());
        read_lines(child.stderr.take().expect("piped"), sender);
        Self { child, lines, printed: String::new(), configuration: None, _folder: folder }
    }

    /// Starts a sidecar with this configuration file, and returns its addresses for traffic and for the
    /// kubelet.
    pub async fn configured(
        document: &str,
        environment: &[(&str, &str)],
    ) -> (Self, SocketAddr, SocketAddr) {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        file.write_all(document.as_bytes()).expect("a disk");
        let path = file.path().to_str().expect("a plain path").to_owned();
        let environment = [&CREDENTIALS[..], environment].concat();
        let mut running = Self::start(&["run", "--config", &path], &environment);
        running.configuration = Some(file);
        running.listening().await
    }

    /// Starts a sidecar with this configuration, on a system that allows only `files` open files.
    pub async fn with_files(files: u32, document: &str) -> (Self, SocketAddr, SocketAddr) {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("sidecar.toml"), document).expect("a disk");
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(format!("ulimit -n {files}; exec \"$0\""));
        shell.arg(env!("CARGO_BIN_EXE_velt-sidecar"));
        shell.current_dir(folder.path()).env_clear().envs(CREDENTIALS).stdin(Stdio::null());
        Self::spawn(shell, folder).listening().await
    }

    /// Starts a sidecar on free ports, and returns its addresses for traffic and for the kubelet.
    pub async fn sidecar(environment: &[(&str, &str)]) -> (Self, SocketAddr, SocketAddr) {
        let environment = [&CREDENTIALS[..], &PORTS, environment].concat();
        Self::start(&["run"], &environment).listening().await
    }

    /// Waits until the sidecar listens, and returns its addresses for traffic and for the kubelet.
    pub async fn listening(mut self) -> (Self, SocketAddr, SocketAddr) {
        let line = self.line_with("velt-sidecar is listening").await;
        let address = |name: &str| {
            // The line holds `name=address` or `"name":"address"`.
            let (_, rest) = line.split_once(name).expect("an address");
            let rest = rest.trim_start_matches(['=', ':', '"']);
            rest.split([' ', '"']).next().expect("an end").parse().expect("an address")
        };
        let (traffic, admin) = (address("traffic"), address("admin"));
        (self, traffic, admin)
    }

    /// Waits for a line that holds `part`.
    pub async fn line_with(&mut self, part: &str) -> String {
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

    pub fn signal(&self, signal: &str) {
        send(signal, self.child.id());
    }

    /// Waits for the end, and returns all text that was printed until then.
    pub async fn ended(mut self) -> (ExitStatus, String) {
        let reading = async {
            // The loop ends when the process has closed both streams.
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
        // An error only says that the process has ended.
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

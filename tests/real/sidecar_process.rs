//! The sidecar as a process of its own, with its own memory, CPU time and log.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::{Mutex, mpsc};
use tokio::time::timeout;

use crate::neighbour::{PATIENCE, Process, eventually, lines_of, tool};

/// A running sidecar. Dropping this value kills the sidecar.
pub struct SidecarProcess {
    process: Process,
    pub traffic: SocketAddr,
    pub admin: SocketAddr,
    lines: mpsc::UnboundedReceiver<String>,
    /// Logged lines for which no test has waited.
    passed: Vec<String>,
    /// Number of lines for which a test has waited.
    awaited: usize,
    /// The one connection over which all metrics are read: when descriptors have run out, no other connection
    /// can be opened.
    scraping: Mutex<Option<SendRequest<Empty<Bytes>>>>,
}

impl SidecarProcess {
    /// Starts a sidecar on free ports in front of `app`.
    pub async fn start(app: SocketAddr, environment: &[(&str, &str)]) -> Self {
        let command = Command::new(env!("CARGO_BIN_EXE_velt-sidecar"));
        Self::start_as(command, app, environment).await
    }

    /// Starts a sidecar with a file of settings.
    pub async fn start_with_config(
        file: &Path,
        app: SocketAddr,
        environment: &[(&str, &str)],
    ) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_velt-sidecar"));
        command.arg("run").arg("--config").arg(file);
        Self::start_as(command, app, environment).await
    }

    /// Starts a sidecar with at most `limit` open files, which it can't raise.
    pub async fn start_with_files(
        limit: u32,
        app: SocketAddr,
        environment: &[(&str, &str)],
    ) -> Self {
        Self::start_after(&format!("ulimit -n {limit}"), app, environment).await
    }

    /// Starts a sidecar with a soft limit of open files, which it can raise.
    pub async fn start_with_soft_limit(
        limit: u32,
        app: SocketAddr,
        environment: &[(&str, &str)],
    ) -> Self {
        Self::start_after(&format!("ulimit -S -n {limit}"), app, environment).await
    }

    /// Starts the sidecar in a control group.
    pub async fn start_in(group: &Path, app: SocketAddr, environment: &[(&str, &str)]) -> Self {
        let processes = group.join("cgroup.procs");
        Self::start_after(&format!("echo $$ > {}", processes.display()), app, environment).await
    }

    /// Starts a sidecar in a network namespace. The environment has to name addresses of that namespace.
    pub async fn start_in_namespace(
        name: &str,
        app: SocketAddr,
        environment: &[(&str, &str)],
    ) -> Self {
        let mut command = Command::new(tool("ip"));
        command.args(["netns", "exec", name, env!("CARGO_BIN_EXE_velt-sidecar")]);
        Self::start_as(command, app, environment).await
    }

    async fn start_after(command: &str, app: SocketAddr, environment: &[(&str, &str)]) -> Self {
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(format!("{command}; exec \"$0\""));
        shell.arg(env!("CARGO_BIN_EXE_velt-sidecar"));
        Self::start_as(shell, app, environment).await
    }

    async fn start_as(mut command: Command, app: SocketAddr, environment: &[(&str, &str)]) -> Self {
        command.env_clear().current_dir("/").stdin(Stdio::null());
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        command.envs([("VELT_API_KEY", "key"), ("VELT_AUTH_TOKEN", "token")]);
        command.envs([
            ("VELT_SIDECAR_LISTEN__ADDRESS", "127.0.0.1:0"),
            ("VELT_SIDECAR_ADMIN__ADDRESS", "127.0.0.1:0"),
            ("VELT_SIDECAR_RUNTIME__WORKERS", "2"),
        ]);
        command.env("VELT_SIDECAR_APP__ADDRESS", app.to_string());
        command.envs(environment.iter().copied());
        let mut process = Process::start(&mut command);
        let lines = lines_of(process.child().stderr.take().expect("piped"));
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let (traffic, admin, scraping) = (nowhere, nowhere, Mutex::default());
        let passed = Vec::new();
        let mut sidecar = Self { process, traffic, admin, lines, passed, awaited: 0, scraping };
        let line = sidecar.line_with("velt-sidecar is listening").await;
        let address = |name: &str| {
            let (_, rest) = line.split_once(name).expect("an address");
            rest.split(' ').next().expect("an end").parse().expect("an address")
        };
        (sidecar.traffic, sidecar.admin) = (address("traffic="), address("admin="));
        sidecar
    }

    /// Waits for a line of the log that holds `part`.
    pub async fn line_with(&mut self, part: &str) -> String {
        let mut before = Vec::new();
        loop {
            let line = timeout(PATIENCE, self.lines.recv()).await;
            let line = line.unwrap_or_else(|_| panic!("no {part:?} in time: {before:#?}"));
            let line = line.unwrap_or_else(|| panic!("ended without {part:?}: {before:#?}"));
            if line.contains(part) {
                self.passed.append(&mut before);
                self.awaited += 1;
                return line;
            }
            before.push(line);
        }
    }

    /// Whether a line with `part` came before a line for which a test has waited.
    pub fn has_logged(&self, part: &str) -> bool {
        self.passed.iter().any(|line| line.contains(part))
    }

    /// Returns the number of lines that the sidecar has logged.
    pub fn line_count(&mut self) -> usize {
        while let Ok(line) = self.lines.try_recv() {
            self.passed.push(line);
        }
        self.passed.len() + self.awaited
    }

    /// Sends SIGTERM to the sidecar.
    pub fn terminate(&self) {
        self.process.terminate();
    }

    /// Waits until the sidecar has ended by itself, with success.
    pub async fn ended(mut self) {
        eventually("the sidecar to end", async || {
            let ended = self.process.child().try_wait().map_err(|error| error.to_string())?;
            let status = ended.ok_or("it runs")?;
            assert!(status.success(), "{status}");
            Ok(())
        })
        .await;
    }

    async fn scrape(&self) -> Result<String, String> {
        let mut scraping = self.scraping.lock().await;
        let broken = |error: hyper::Error| error.to_string();
        let mut sender = if let Some(sender) = scraping.take() {
            sender
        } else {
            let stream = TcpStream::connect(self.admin).await.map_err(|error| error.to_string())?;
            let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(broken)?;
            tokio::spawn(connection);
            sender
        };
        let scraped = async {
            sender.ready().await?;
            let request = Request::get("/metrics").header("host", "sidecar");
            let request = request.body(Empty::new()).expect("a request");
            sender.send_request(request).await?.into_body().collect().await
        };
        let body = timeout(PATIENCE, scraped).await.map_err(|_| "no answer")?.map_err(broken)?;
        *scraping = Some(sender);
        String::from_utf8(body.to_bytes().to_vec()).map_err(|error| error.to_string())
    }

    /// Returns the value of a series, named without the prefix.
    pub async fn metric(&self, series: &str) -> Result<f64, String> {
        let text = self.scrape().await?;
        let name = format!("velt_sidecar_{series} ");
        let value = text.lines().find_map(|line| line.strip_prefix(&name));
        value.and_then(|value| value.parse().ok()).ok_or_else(|| format!("no {series} in {text}"))
    }

    /// Returns every series that is not zero, for a failure's message.
    pub async fn metrics(&self) -> String {
        let Ok(text) = self.scrape().await else { return String::new() };
        let told = |line: &&str| line.starts_with("velt_sidecar_") && !line.ends_with(" 0");
        let plain = |line: &&str| !line.contains("_bucket");
        text.lines().filter(told).filter(plain).collect::<Vec<_>>().join("\n")
    }

    /// Waits until a series has a value for which `fits` is true.
    pub async fn metric_is(&self, series: &str, fits: impl Fn(f64) -> bool) -> f64 {
        eventually(series, async || {
            let value = self.metric(series).await?;
            if fits(value) { Ok(value) } else { Err(self.metrics().await) }
        })
        .await
    }

    /// Returns the resident memory in KiB.
    pub fn memory(&mut self) -> u64 {
        let status = self.read("status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")).expect("VmRSS");
        kib.parse().expect("a number")
    }

    /// Returns the process's own memory in KiB: no page of a file, and no page that another process shares.
    pub fn own_memory(&mut self) -> u64 {
        let rollup = self.read("smaps_rollup");
        let line = rollup.lines().find_map(|line| line.strip_prefix("Pss_Anon:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")).expect("Pss_Anon");
        kib.trim().parse().expect("a number")
    }

    /// Returns the CPU time used in user and system mode (proc(5), in hundredths of a second).
    pub fn cpu_time(&mut self) -> Duration {
        let stat = self.read("stat");
        let (_, fields) = stat.rsplit_once(") ").expect("the name of a program");
        let fields = fields.split(' ').skip(11).take(2);
        let ticks: u64 = fields.map(|ticks| ticks.parse::<u64>().expect("ticks")).sum();
        Duration::from_millis(10 * ticks)
    }

    fn read(&mut self, what: &str) -> String {
        let path = format!("/proc/{}/{what}", self.process.child().id());
        fs::read_to_string(path).expect("it runs")
    }
}

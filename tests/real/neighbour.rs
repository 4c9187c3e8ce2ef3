//! Programs that run next to a sidecar, and the sidecar itself with an app behind it and an emulator in
//! Velt's place; shared by the tests. All programs listen on free loopback ports.

use std::collections::BTreeMap;
use std::env;
use std::fmt::Display;
use std::io::{BufRead as _, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::Once;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ground::metrics::ListenerMetrics;
use ground::peer::Peer;
use hop::listener::{self, Listener, Phase};
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use serde_json::Value;
use server::config::Config;
use server::{Addresses, Server};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tools::emulator::{self, Behaviour, Credentials, Emulator};

/// Time limit for all that happens by itself. Only a failing test waits so long.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Time between two looks at a condition that no event announces.
const GLANCE: Duration = Duration::from_millis(25);

/// Number of ports that are tried: another program may take a port that was free a moment ago.
pub const PORTS_TO_TRY: usize = 5;

pub const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Returns the path where `name` is installed.
///
/// # Panics
///
/// Panics if `name` is not installed.
pub fn tool(name: &str) -> PathBuf {
    let found = folders_of_tools().into_iter().map(|folder| folder.join(name));
    installed(name, found.filter(|file| file.is_file()))
}

/// Returns the path of a tool whose file name has its version, such as `php-fpm8.2`.
///
/// # Panics
///
/// Panics if the tool is not installed.
pub fn versioned_tool(name: &str) -> PathBuf {
    let files = folders_of_tools().into_iter().filter_map(|folder| folder.read_dir().ok());
    let files = files.flatten().filter_map(|entry| Some(entry.ok()?.path()));
    let is_version = |rest: &str| rest.chars().all(|it| it.is_ascii_digit() || it == '.');
    let found = files.filter(|file| {
        let own = file.file_name().and_then(|own| own.to_str());
        own.and_then(|own| own.strip_prefix(name)).is_some_and(is_version)
    });
    installed(name, found)
}

fn folders_of_tools() -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    // Daemons are in `sbin`, which is not on every user's path.
    env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]).collect()
}

fn installed(name: &str, mut found: impl Iterator<Item = PathBuf>) -> PathBuf {
    found
        .next()
        .unwrap_or_else(|| panic!("`{name}` is not installed: run tests/run, which installs it"))
}

/// Calls `look` until it finds something.
///
/// # Panics
///
/// Panics if that takes longer than [`PATIENCE`]; the message has the last error of `look`.
pub async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match look().await {
            Ok(found) => return found,
            Err(seen) if Instant::now() > deadline => {
                panic!("waited {PATIENCE:?} in vain for {what}; last seen: {seen}")
            }
            // Other programs send no event when they are ready, so `look` is called again.
            Err(_) => sleep(GLANCE).await,
        }
    }
}

/// Makes a client that speaks to this machine only, and follows no redirect.
pub fn http_client() -> reqwest::Client {
    http_client_builder().build().expect("a client without settings of the machine's")
}

/// Returns the settings of [`http_client`].
pub fn http_client_builder() -> reqwest::ClientBuilder {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| {
        // The client wants a provider even for plain HTTP. A provider installed by other code is as good.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    });
    reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(PATIENCE)
}

/// Checks that the cache or proxy at `front` answers `/whose` with the sidecar that it was given: another
/// program may have got the front's port.
pub async fn is_in_front_of(
    http: &reqwest::Client,
    front: SocketAddr,
    sidecar: SocketAddr,
) -> Result<(), String> {
    let answer = http.get(format!("http://{front}/whose")).send().await;
    let answer = answer.map_err(|error| error.to_string())?;
    let whose = answer.text().await.map_err(|error| error.to_string())?;
    if whose == sidecar.to_string() { Ok(()) } else { Err(whose) }
}

/// Reads the claims of a token without checking its signature.
pub fn claims_of(token: &str) -> Value {
    let payload = token.split('.').nth(1).expect("three parts");
    let payload = URL_SAFE_NO_PAD.decode(payload).expect("base64url");
    serde_json::from_slice(&payload).expect("claims in JSON")
}

/// A program next to the sidecar, which ends when this value is dropped.
pub struct Process(Child);

impl Process {
    /// Starts `command`.
    pub fn start(command: &mut Command) -> Self {
        let child = command.spawn();
        Self(child.unwrap_or_else(|error| panic!("{command:?} does not start: {error}")))
    }

    /// Starts the command that `command` makes for a free port, and waits until the program is `ready` there.
    pub async fn start_on_free_port(
        mut command: impl FnMut(u16) -> Command,
        ready: impl AsyncFn(SocketAddr) -> Result<(), String>,
    ) -> (Self, SocketAddr) {
        for _ in 0..PORTS_TO_TRY {
            let free = TcpListener::bind(LOOPBACK).expect("a free port");
            let address = free.local_addr().expect("it is bound");
            drop(free);
            let mut process = Self::start(&mut command(address.port()));
            let started = eventually("a program to be ready", async || {
                if process.has_ended() {
                    return Ok(false);
                }
                ready(address).await.map(|()| true)
            });
            if started.await {
                return (process, address);
            }
        }
        panic!("{:?} ended at once, {PORTS_TO_TRY} times", command(0));
    }

    /// Returns the child process, for its pipes.
    pub fn child(&mut self) -> &mut Child {
        &mut self.0
    }

    /// Sends SIGTERM to the program.
    pub fn terminate(&self) {
        self.signal("TERM");
    }

    /// Sends the signal of this name, such as `STOP`, to the program.
    pub fn signal(&self, name: &str) {
        let process = self.0.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &process]).status();
        assert!(sent.is_ok_and(|status| status.success()), "kill -s {name} {process}");
    }

    /// Waits for the program's end, which another call has requested.
    pub fn wait(&mut self) {
        // An error only says that the program has been waited for already.
        let _ = self.0.wait();
    }

    pub fn has_ended(&mut self) -> bool {
        self.0.try_wait().is_ok_and(|status| status.is_some())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // An error only says that the program has ended by itself.
        let _ = self.0.kill();
        self.wait();
    }
}

/// Returns the lines that a program prints on one of its pipes.
pub fn lines_of(output: impl Read + Send + 'static) -> mpsc::UnboundedReceiver<String> {
    let (sender, lines) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            // The test may be over.
            let _ = sender.send(line);
        }
    });
    lines
}

/// A task inside the test, which ends when this value is dropped.
pub struct Task(JoinHandle<()>);

impl Task {
    pub fn spawn(future: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(tokio::spawn(future))
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Serves `answer` as an app.
pub async fn serve_app<A>(answer: A) -> (Task, SocketAddr)
where
    A: Fn(&Request<Incoming>) -> Response<Full<Bytes>> + Clone + Send + Sync + 'static,
{
    serve_app_at(LOOPBACK, answer).await
}

/// Serves `answer` as an app at `address`, which must be free.
pub async fn serve_app_at<A>(address: SocketAddr, answer: A) -> (Task, SocketAddr)
where
    A: Fn(&Request<Incoming>) -> Response<Full<Bytes>> + Clone + Send + Sync + 'static,
{
    let settings = listener::Settings::at(address);
    let listener = Listener::bind(settings, ListenerMetrics::detached()).expect("a free port");
    let address = listener.address().expect("it is bound");
    let (stop, stopping) = watch::channel(Phase::Serving);
    let task = Task::spawn(async move {
        let handler =
            move |_: &Peer, _: &_, request: Request<Incoming>| std::future::ready(answer(&request));
        listener.serve(handler, stopping).await;
        drop(stop);
    });
    (task, address)
}

/// API key and auth token that emulators accept.
pub const CREDENTIALS: (&str, &str) = ("key-of-the-test", "token-of-the-test");

/// An emulator in Velt's place, which ends when this value is dropped.
pub struct RunningEmulator {
    pub address: SocketAddr,
    _serving: Task,
    _stop: watch::Sender<Phase>,
}

/// Starts an emulator on a free port.
pub async fn start_emulator() -> RunningEmulator {
    start_emulator_at(LOOPBACK).await
}

/// Starts an emulator at `address`, which must be free.
pub async fn start_emulator_at(address: SocketAddr) -> RunningEmulator {
    let (api_key, auth_token) = CREDENTIALS;
    let emulator = Emulator::bind(emulator::Settings {
        address,
        credentials: Some(Credentials { api_key: api_key.into(), auth_token: auth_token.into() }),
        token_life: Duration::from_secs(48 * 3600),
        behaviour: Behaviour::default(),
    })
    .expect("a free port");
    let (stop, stopping) = watch::channel(Phase::Serving);
    let address = emulator.address();
    RunningEmulator { address, _serving: Task::spawn(emulator.run(stopping)), _stop: stop }
}

/// A sidecar in front of an app, with an emulator in Velt's place.
pub struct Sidecar {
    pub addresses: Addresses,
    _server: RunningServer,
    _emulator: RunningEmulator,
}

impl Sidecar {
    /// Starts a sidecar as `main` does, from a configuration file.
    pub async fn start(app: impl Display) -> Self {
        Self::start_with(app, &[]).await
    }

    /// Starts a sidecar with more settings in its environment.
    pub async fn start_with(app: impl Display, settings: &[(&str, &str)]) -> Self {
        let emulator = start_emulator().await;
        // The emulator tells Velt's APIs apart by their paths.
        let is_v2 = settings.contains(&("VELT_SIDECAR_VELT__API", "v2"));
        let path = if is_v2 { "v2/auth/generate_token" } else { "" };
        let text = format!(
            r#"
            [listen]
            address = "127.0.0.1:0"
            [admin]
            address = "127.0.0.1:0"
            [app]
            address = "{app}"
            [velt]
            endpoint = "http://{}/{path}"
            [delivery.header]
            # Long enough that a busy machine does not make it a miss.
            max_wait = "20s"
            [shutdown]
            grace = "0s"
            deadline = "1s"
            "#,
            emulator.address
        );
        let server = RunningServer::start(&text, settings);
        Self { addresses: server.addresses, _server: server, _emulator: emulator }
    }
}

/// A sidecar in this process, which ends when this value is dropped.
pub struct RunningServer {
    pub addresses: Addresses,
    /// Ends the sidecar when dropped.
    _stop: oneshot::Sender<()>,
}

impl RunningServer {
    /// Starts a sidecar with the file `text`, and with [`CREDENTIALS`] and `settings` in its environment.
    pub fn start(text: &str, settings: &[(&str, &str)]) -> Self {
        let (api_key, auth_token) = CREDENTIALS;
        let credentials = [("VELT_API_KEY", api_key), ("VELT_AUTH_TOKEN", auth_token)];
        let environment = credentials.iter().chain(settings);
        let environment: BTreeMap<_, _> =
            environment.map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
        let config = Config::parse("the test's file", text, &environment);
        let config = config.unwrap_or_else(|error| panic!("{error}"));
        let server = Server::bind(config).unwrap_or_else(|error| panic!("{error}"));
        let addresses = server.addresses();
        let (stop, stopped) = oneshot::channel();
        tokio::spawn(server.run(async move {
            // A dropped sender stops the sidecar too.
            let _ = stopped.await;
        }));
        Self { addresses, _stop: stop }
    }
}

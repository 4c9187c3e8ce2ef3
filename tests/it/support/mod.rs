//! A real sidecar on free ports, between real stand-ins of the app and of Velt.

pub mod app;
pub mod binary;
pub mod certificates;
pub mod client;
pub mod collector;
pub mod issuer;
pub mod double;
pub mod outcomes;
pub mod raw;
pub mod record;
pub mod velt;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use server::config::{Config, ConfigError};
use server::reload::Trigger;
use server::{Addresses, Server};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use self::app::FakeApp;
use self::client::{Answer, Client};
use self::velt::FakeVelt;

pub const API_KEY: &str = "canary-api-key";
pub const AUTH_TOKEN: &str = "canary-auth-token";

/// Time that is long enough for a loaded machine; only a failing test waits for so long.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Setting for a test that counts connections to the app, since each thread that serves has its own.
pub const ONE_WORKER: &str = "[runtime]\nworkers = \"1\"\n";

/// A sidecar with an app behind it and Velt beside it.
pub struct Stage {
    pub app: FakeApp,
    pub velt: FakeVelt,
    pub sidecar: TestSidecar,
}

impl Stage {
    /// Sets a stage with the defaults, and with `toml` added to them.
    pub async fn set(toml: &str) -> Self {
        Self::with(FakeApp::start().await, toml).await
    }

    pub async fn with(app: FakeApp, toml: &str) -> Self {
        let velt = FakeVelt::start().await;
        let sidecar = TestSidecar::start(&app.address.to_string(), velt.address, toml);
        Self { app, velt, sidecar }
    }

    /// Returns a client, whose connections are its own.
    pub fn client(&self) -> Client {
        Client::to(self.sidecar.addresses.traffic)
    }

    /// Sends `GET path` as `user`, in the way the login proxy would.
    pub async fn get_as(&self, user: &str, path: &str) -> Answer {
        self.client().get(path).header("x-forwarded-user", user).send().await
    }

    /// The value of one series.
    pub async fn metric(&self, series: &str) -> f64 {
        self.sidecar.metric(series).await
    }
}

/// A sidecar that was started in the way `main` starts it. Dropping the value ends the sidecar.
pub struct TestSidecar {
    pub addresses: Addresses,
    shutdown: Option<oneshot::Sender<()>>,
    running: JoinHandle<()>,
}

impl TestSidecar {
    /// Starts a sidecar in front of `app`, which mints at `velt`. `toml` may add to the tables of
    /// [`document`] or bring other tables.
    pub fn start(app: &str, velt: SocketAddr, toml: &str) -> Self {
        let config = config(&document(app, velt, toml)).unwrap_or_else(|error| panic!("{error}"));
        Self::run(config)
    }

    /// Starts a sidecar with `config`.
    pub fn run(config: Config) -> Self {
        Self::serve(Server::bind(config).expect("free ports are free"))
    }

    fn serve(sidecar: Server) -> Self {
        let addresses = sidecar.addresses();
        let (shutdown, ended) = oneshot::channel();
        let running = tokio::spawn(sidecar.run(async {
            // A dropped sender ends the sidecar just as well.
            let _ = ended.await;
        }));
        Self { addresses, shutdown: Some(shutdown), running }
    }

    /// Starts a sidecar with `config`, and returns the trigger that makes it read its files again.
    pub fn run_reloading(config: Config) -> (Self, Trigger) {
        let sidecar = Server::bind(config).expect("free ports are free");
        let trigger = sidecar.reload_trigger();
        (Self::serve(sidecar), trigger)
    }

    /// Starts a sidecar with the defaults, in front of an app that is not a `FakeApp`.
    pub async fn before(app: SocketAddr) -> Self {
        // The stand-in goes on serving when `velt` is dropped.
        let velt = FakeVelt::start().await;
        Self::start(&app.to_string(), velt.address, "")
    }

    /// Ends the sidecar as SIGTERM does.
    pub fn terminate(&mut self) {
        let shutdown = self.shutdown.take().expect("terminated once");
        shutdown.send(()).expect("the sidecar runs");
    }

    /// Waits until the sidecar has ended by itself.
    pub async fn ended(mut self) {
        let ended = tokio::time::timeout(PATIENCE, &mut self.running).await;
        ended.expect("the sidecar ends").expect("without a panic");
    }

    pub async fn scrape(&self) -> String {
        let answer = Client::to(self.addresses.admin).get("/metrics").send().await;
        assert_eq!(answer.status(), 200);
        answer.text()
    }

    /// The value of one series, written as in the exposition format without the prefix.
    pub async fn metric(&self, series: &str) -> f64 {
        let scrape = self.scrape().await;
        let name = format!("velt_sidecar_{series} ");
        let line = scrape.lines().find_map(|line| line.strip_prefix(&name));
        let value = line.unwrap_or_else(|| panic!("no series {series} in\n{scrape}"));
        value.parse().expect("a number")
    }

    /// Waits until a series is more than `bound`.
    pub async fn metric_exceeds(&self, series: &str, bound: f64) {
        let exceeded = async {
            while self.metric(series).await <= bound {
                tokio::task::yield_now().await;
            }
        };
        let exceeded = tokio::time::timeout(PATIENCE, exceeded).await.is_ok();
        assert!(exceeded, "{series} is not over {bound}");
    }

    /// Waits until a series has this value, since some events are counted just after a client has its
    /// answer.
    pub async fn metric_reaches(&self, series: &str, expected: f64) {
        let mut last = f64::NAN;
        let reached = async {
            loop {
                last = self.metric(series).await;
                if (last - expected).abs() < f64::EPSILON {
                    break;
                }
                tokio::task::yield_now().await;
            }
        };
        let reached = tokio::time::timeout(PATIENCE, reached).await.is_ok();
        assert!(reached, "{series} is {last} and not {expected}");
    }
}

impl Drop for TestSidecar {
    fn drop(&mut self) {
        self.running.abort();
    }
}

/// Returns a whole document: `toml` over what every test needs. Tables in `toml` replace no table; the
/// tables are merged key by key.
pub fn document(app: &str, velt: SocketAddr, toml: &str) -> String {
    let mut tables: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let base = format!(
        "[listen]\naddress = \"127.0.0.1:0\"\n[admin]\naddress = \"127.0.0.1:0\"\n\
         [app]\naddress = \"{app}\"\n[velt]\nendpoint = \"http://{velt}/\"\n\
         [shutdown]\ngrace = \"0s\"\ndeadline = \"10s\"\n[runtime]\n"
    );
    let mut header = String::new();
    for line in toml.lines().map(str::trim).chain(["\0"]).chain(base.lines()) {
        if line.starts_with('[') {
            line.clone_into(&mut header);
            // Each `[[table]]` is a table of its own.
            if line.starts_with("[[") {
                header = format!("{header}\0{}", tables.len());
            }
            tables.entry(header.clone()).or_default();
        } else if let Some((key, _)) = line.split_once('=') {
            let lines = tables.entry(header.clone()).or_default();
            // The test's own lines come first and win.
            if !lines.iter().any(|earlier| earlier.split('=').next() == Some(key)) {
                lines.push(line.to_owned());
            }
        }
    }
    let mut document = String::new();
    for (header, lines) in tables {
        let header = header.split('\0').next().unwrap_or_default();
        let _ = writeln!(document, "{header}\n{}", lines.join("\n"));
    }
    document
}

/// Parses a document with credentials in the environment, as in production.
pub fn config(document: &str) -> Result<Config, ConfigError> {
    Config::parse("sidecar.toml", document, &environment())
}

pub fn environment() -> BTreeMap<String, String> {
    let pairs = [("VELT_API_KEY", API_KEY), ("VELT_AUTH_TOKEN", AUTH_TOKEN)];
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}

//! The whole product on loopback, with no account and nothing else installed: a login proxy, a
//! real sidecar, an app behind it, and an emulator in the place of Velt.
//!
//! The sidecar is the one that runs in production, with a configuration that an operator could have written.

mod app;
mod front;

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use serde_json::json;
use tokio::sync::watch;

use self::front::Front;
use crate::emulator::{self, Behaviour, Credentials, Emulator};
use ground::memory::Memory;
use ground::metrics::{ListenerMetrics, Metrics};
use ground::peer::Peer;
use hop::listener::{self, Listener, Phase};
use hop::proxy::{self, Address, AppProtocol, ForwardedFor, Upstream};
use server::config::{Config, ConfigError};
use server::{Server, StartError};

const API_KEY: &str = "demo-api-key";
const AUTH_TOKEN: &str = "demo-auth-token";

/// A user who can sign in to the demo.
#[derive(Clone, Copy, Debug)]
struct User {
    id: &'static str,
    name: &'static str,
    email: &'static str,
}

const USERS: [User; 3] = [
    User { id: "ada", name: "Ada Lovelace", email: "ada@example.com" },
    User { id: "grace", name: "Grace Hopper", email: "grace@example.com" },
    User { id: "linus", name: "Linus Torvalds", email: "linus@example.com" },
];

impl User {
    fn with_id(id: &str) -> Option<Self> {
        USERS.into_iter().find(|user| user.id == id)
    }
}

/// The addresses of a running demo.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    /// The page, through the login proxy.
    pub front: SocketAddr,
    pub sidecar: SocketAddr,
    pub admin: SocketAddr,
    pub app: SocketAddr,
    pub emulator: SocketAddr,
}

/// Reason why the demo did not start.
#[derive(Debug)]
pub enum DemoError {
    /// The page's address is in use.
    Listen(SocketAddr, io::Error),
    /// The system refused another socket.
    Io(io::Error),
    Config(ConfigError),
    Start(StartError),
}

impl fmt::Display for DemoError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listen(address, _) => write!(
                formatter,
                "can't listen on {address}: choose another address with --listen 127.0.0.1:PORT"
            ),
            Self::Io(_) => formatter.write_str("the demo could not open its sockets"),
            Self::Config(error) => error.fmt(formatter),
            Self::Start(error) => error.fmt(formatter),
        }
    }
}

impl Error for DemoError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Listen(_, source) | Self::Io(source) => Some(source),
            Self::Config(_) => None,
            Self::Start(error) => error.source(),
        }
    }
}

/// A demo with all its sockets bound.
pub struct Demo {
    front: Arc<Front>,
    front_listener: Listener,
    app_listener: Listener,
    sidecar: Server,
    emulator: Emulator,
    addresses: Addresses,
}

impl Demo {
    /// Binds the page to `front` and everything else to free loopback ports.
    ///
    /// # Errors
    ///
    /// See [`DemoError`].
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn bind(front: SocketAddr) -> Result<Self, DemoError> {
        let free = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let (front_listener, front) =
            bind(front).map_err(|error| DemoError::Listen(front, error))?;
        let (app_listener, app) = bind(free).map_err(DemoError::Io)?;
        let emulator = emulator::Settings {
            address: free,
            credentials: Some(Credentials {
                api_key: API_KEY.into(),
                auth_token: AUTH_TOKEN.into(),
            }),
            token_life: Duration::from_secs(48 * 3600),
            // About the time that a call to a cloud function takes, so that a mint can be seen.
            behaviour: Behaviour { failure: None, latency_ms: 120 },
        };
        let emulator = Emulator::bind(emulator).map_err(DemoError::Io)?;
        let config = config(app, emulator.address()).map_err(DemoError::Config)?;
        let sidecar = Server::bind(config).map_err(DemoError::Start)?;
        let addresses = Addresses {
            front,
            sidecar: sidecar.addresses().traffic,
            admin: sidecar.addresses().admin,
            app,
            emulator: emulator.address(),
        };
        let front = Arc::new(Front {
            sidecar: upstream(addresses.sidecar),
            admin: upstream(addresses.admin),
            config: page_config(&addresses),
        });
        Ok(Self { front, front_listener, app_listener, sidecar, emulator, addresses })
    }

    /// Returns the addresses of all parts.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Runs until `shutdown` resolves.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let (phase, watched) = watch::channel(Phase::Serving);
        let front = self.front;
        let login_proxy =
            move |peer: &Peer, _: &_, request| Arc::clone(&front).answer(peer.address(), request);
        let tasks = [
            tokio::spawn(self.front_listener.serve(login_proxy, watched.clone())),
            tokio::spawn(self.app_listener.serve(
                |_: &Peer, _: &_, request| std::future::ready(app::answer(request)),
                watched.clone(),
            )),
            tokio::spawn(self.emulator.run(watched)),
        ];
        // Boxed, because the future is large and is made only once.
        Box::pin(self.sidecar.run(shutdown)).await;
        phase.send_replace(Phase::Stopped);
        // Event streams never end by themselves.
        for task in tasks {
            task.abort();
        }
    }
}

/// Returns a configuration for the demo's app, written as an operator would write it.
fn config(app: SocketAddr, emulator: SocketAddr) -> Result<Config, ConfigError> {
    let text = format!(
        r#"
        [listen]
        address = "127.0.0.1:0"
        [admin]
        address = "127.0.0.1:0"
        [app]
        address = "{app}"
        [velt]
        endpoint = "http://{emulator}/"
        [delivery.header]
        paths = ["/api/*"]
        max_wait = "2s"
        [shutdown]
        grace = "0s"
        deadline = "1s"
        "#
    );
    let secrets = [("VELT_API_KEY", API_KEY), ("VELT_AUTH_TOKEN", AUTH_TOKEN)];
    let secrets = secrets.map(|(name, value)| (name.to_owned(), value.to_owned()));
    Config::parse("the demo's configuration", &text, &BTreeMap::from(secrets))
}

fn page_config(addresses: &Addresses) -> serde_json::Value {
    let users =
        USERS.map(|User { id, name, email }| json!({ "id": id, "name": name, "email": email }));
    json!({
        "emulatorUrl": format!("http://{}", addresses.emulator),
        "sidecarUrl": format!("http://{}", addresses.sidecar),
        "adminUrl": format!("http://{}", addresses.admin),
        "apiKey": API_KEY,
        "users": users,
    })
}

/// Returns the login proxy's upstream for `address`.
fn upstream(address: SocketAddr) -> Upstream {
    let settings = proxy::Settings {
        address: Address::Tcp(address.to_string()),
        tls: None,
        protocol: AppProtocol::Http1,
        connect_timeout: Duration::from_secs(1),
        response_timeout: Duration::from_secs(60),
        idle_timeout: Duration::from_secs(60),
        forwarded_for: ForwardedFor::Keep,
        max_idle: 64,
        max_headers: 100,
        stream_idle_timeout: None,
        memory: Memory::default(),
    };
    let untouched = Arc::new(|_: &mut HeaderMap| {});
    // Metrics of its own: the figures of the login proxy are not the sidecar's.
    Upstream::new(settings, None, untouched.clone(), untouched, Metrics::new().app)
}

fn bind(address: SocketAddr) -> io::Result<(Listener, SocketAddr)> {
    let settings = listener::Settings::at(address);
    let listener = Listener::bind(settings, ListenerMetrics::detached())?;
    let address = listener.address()?;
    Ok((listener, address))
}

//! The whole product on loopback, with no account and nothing else installed: a login proxy, a
//! real sidecar, an app behind it, and an emulator in place of Velt. The app is the demo's own or the
//! reader's.
//!
//! The sidecar is the one that runs in production, with a configuration that an operator could have written.

mod app;
mod front;
mod own_app;
mod panel;
mod responses;
mod session;

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use serde_json::json;
use tokio::sync::watch;

use self::front::{Around, Front};
pub use self::own_app::{OwnApp, OwnAppError};
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
const FREE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
const ORGANIZATION: &str = "demo";

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
    /// The demo's own app, `None` in front of the reader's.
    pub app: Option<SocketAddr>,
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

/// The app behind the sidecar.
enum App {
    /// The demo's own. Boxed, because a listener is large.
    Shipped(Box<Listener>, SocketAddr),
    Readers(OwnApp),
}

impl App {
    fn bind(own_app: Option<OwnApp>) -> io::Result<Self> {
        let Some(app) = own_app else {
            let (listener, address) = bind(FREE)?;
            return Ok(Self::Shipped(Box::new(listener), address));
        };
        Ok(Self::Readers(app))
    }

    /// Returns the configuration of a sidecar in front of this app.
    fn config(&self, emulator: SocketAddr) -> Result<Config, ConfigError> {
        match self {
            Self::Shipped(_, address) => config(&address.to_string(), AROUND_SHIPPED_APP, emulator),
            Self::Readers(app) => config(&app.to_string(), AROUND_READERS_APP, emulator),
        }
    }
}

/// A demo with all its sockets bound.
pub struct Demo {
    front: Arc<Front>,
    front_listener: Listener,
    app: App,
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
        Self::bind_around(front, None)
    }

    /// Binds like [`Self::bind`], around the reader's app if there is one.
    ///
    /// # Errors
    ///
    /// See [`DemoError`].
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn bind_around(front: SocketAddr, own_app: Option<OwnApp>) -> Result<Self, DemoError> {
        let (front_listener, front) =
            bind(front).map_err(|error| DemoError::Listen(front, error))?;
        let app = App::bind(own_app.clone()).map_err(DemoError::Io)?;
        let emulator = emulator().map_err(DemoError::Io)?;
        let config = app.config(emulator.address()).map_err(DemoError::Config)?;
        let sidecar = Server::bind(config).map_err(DemoError::Start)?;
        let addresses = Addresses {
            front,
            sidecar: sidecar.addresses().traffic,
            admin: sidecar.addresses().admin,
            app: match &app {
                App::Shipped(_, address) => Some(*address),
                App::Readers(_) => None,
            },
            emulator: emulator.address(),
        };
        let front = Arc::new(Front {
            sidecar: upstream(addresses.sidecar),
            admin: upstream(addresses.admin),
            emulator: upstream(addresses.emulator),
            config: page_config(&addresses, &app),
            users: users(),
            own_app: own_app.map(Around::new),
        });
        Ok(Self { front, front_listener, app, sidecar, emulator, addresses })
    }

    /// Returns the addresses of all parts.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Returns what the reader is told at the start.
    pub fn introduction(&self) -> String {
        let Addresses { front, sidecar, admin, emulator, .. } = self.addresses;
        let (page, whose, app, more) = match &self.app {
            App::Shipped(_, address) => (
                "the page",
                "the app, which knows nothing of Velt",
                address.to_string(),
                format!(
                    "Try: curl -i -H 'X-Forwarded-User: ada' http://{sidecar}/api/me\n     \
                     curl -X POST -H 'X-Forwarded-User: ada' http://{sidecar}/api/velt/token\n"
                ),
            ),
            App::Readers(app) => (
                "your app",
                "your app, without the demo",
                app.to_string(),
                format!(
                    "You are signed in as Ada. A panel in your app's pages signs others in, and shows \
                     what each\nresponse carried. More: http://{front}/__velt-demo/\n"
                ),
            ),
        };
        let page = format!("{page}, behind a stand-in for a login proxy");
        format!(
            "velt-sidecar demo: open http://{front}/\n\n  \
             {page:<48}http://{front}/\n  \
             the sidecar                                     http://{sidecar}/\n  \
             the sidecar's metrics and health                http://{admin}/metrics\n  \
             {whose:<48}http://{app}/\n  \
             the emulator, in place of Velt                  http://{emulator}/emulator/journal\n\n\
             {more}\nCtrl-C ends it.\n"
        )
    }

    /// Runs until `shutdown` resolves.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let (phase, watched) = watch::channel(Phase::Serving);
        let front = self.front;
        let login_proxy =
            move |peer: &Peer, _: &_, request| Arc::clone(&front).answer(peer.address(), request);
        let mut tasks = vec![
            tokio::spawn(self.front_listener.serve(login_proxy, watched.clone())),
            tokio::spawn(self.emulator.run(watched.clone())),
        ];
        if let App::Shipped(listener, _) = self.app {
            let answer = |_: &Peer, _: &_, request| std::future::ready(app::answer(request));
            tasks.push(tokio::spawn(listener.serve(answer, watched)));
        }
        // Boxed, because the future is large and is made only once.
        Box::pin(self.sidecar.run(shutdown)).await;
        phase.send_replace(Phase::Stopped);
        // Event streams never end by themselves.
        for task in tasks {
            task.abort();
        }
    }
}

/// Settings in front of the demo's own app, whose page reads the header of `/api/me`.
const AROUND_SHIPPED_APP: &str = r#"
    [delivery.header]
    paths = ["/api/*"]
    max_wait = "2s"
"#;

/// Settings in front of the reader's app: the defaults, but for the patience with a development server, which
/// may compile before it answers.
const AROUND_READERS_APP: &str = "response_timeout = \"5m\"";

/// Patience of the login proxy: longer than the sidecar's, so that the sidecar says what is wrong.
const PATIENCE: Duration = Duration::from_secs(310);

/// Returns a configuration for the app, written as an operator would write it. `more` goes on in its table
/// `app`.
fn config(app: &str, more: &str, emulator: SocketAddr) -> Result<Config, ConfigError> {
    let text = format!(
        r#"
        [listen]
        address = "127.0.0.1:0"
        [admin]
        address = "127.0.0.1:0"
        [velt]
        api = "v2"
        endpoint = "http://{emulator}/v2/auth/generate_token"
        organization = "{ORGANIZATION}"
        [shutdown]
        grace = "0s"
        deadline = "1s"
        [app]
        address = "{app}"
        {more}
        "#
    );
    let secrets = [("VELT_API_KEY", API_KEY), ("VELT_AUTH_TOKEN", AUTH_TOKEN)];
    let secrets = secrets.map(|(name, value)| (name.to_owned(), value.to_owned()));
    Config::parse("the demo's configuration", &text, &BTreeMap::from(secrets))
}

fn emulator() -> io::Result<Emulator> {
    Emulator::bind(emulator::Settings {
        address: FREE,
        credentials: Some(Credentials { api_key: API_KEY.into(), auth_token: AUTH_TOKEN.into() }),
        token_life: Duration::from_secs(48 * 3600),
        // About the time that a call to a cloud function takes, so that a mint can be seen.
        behaviour: Behaviour { failure: None, latency_ms: 120 },
    })
}

fn users() -> serde_json::Value {
    USERS.map(|User { id, name, email }| json!({ "id": id, "name": name, "email": email })).into()
}

/// Returns what the page needs to know. The addresses are for the reader's terminal: the page itself asks its
/// own origin for everything.
fn page_config(addresses: &Addresses, app: &App) -> serde_json::Value {
    let app = match app {
        App::Shipped(_, address) => address.to_string(),
        App::Readers(app) => app.to_string(),
    };
    json!({
        "appUrl": format!("http://{app}"),
        "emulatorUrl": format!("http://{}", addresses.emulator),
        "sidecarUrl": format!("http://{}", addresses.sidecar),
        "adminUrl": format!("http://{}", addresses.admin),
        "apiKey": API_KEY,
        "users": users(),
    })
}

/// Returns the login proxy's upstream for `address`.
fn upstream(address: SocketAddr) -> Upstream {
    let settings = proxy::Settings {
        address: Address::Tcp(address.to_string()),
        tls: None,
        protocol: AppProtocol::Http1,
        connect_timeout: Duration::from_secs(1),
        response_timeout: PATIENCE,
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

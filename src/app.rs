//! The composition root: builds every part from its settings, binds, runs, drains.
//!
//! The one door to a running sidecar, for `main`, the demo and the tests alike.

use std::error::Error;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::{info, warn};

use crate::access_log::AccessLog;
use crate::admin::{Admin, Calls, Readiness};
use crate::config::{Config, Shutdown};
use crate::explain::InForce;
use crate::identity::{Identity, Peer};
use crate::inject::Injection;
use crate::listener::{Listener, Phase, Remote};
use crate::logging::LevelSwitch;
use crate::metrics::{ListenerMetrics, Metrics};
use crate::outgoing::TlsError;
use crate::proxy::Upstream;
use crate::sidecar::Sidecar;
use crate::tls::{ClientTls, FileError, ServerTls};
use crate::token::cache::TokenCache;
use crate::token::resilience::Resilient;
use crate::token::velt::{BuildError, VeltClient};
use crate::trace::{Exporter, Tracing};

/// How long the end waits for who reads the access log, and as long for the collector of spans.
const FLUSH_PATIENCE: Duration = Duration::from_secs(1);

/// Where a running sidecar can be reached.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    pub traffic: SocketAddr,
    pub admin: SocketAddr,
}

/// Why a sidecar did not start.
#[derive(Debug)]
pub enum StartError {
    /// An address could not be bound: in use, or not this machine's.
    Bind {
        what: &'static str,
        address: SocketAddr,
        source: io::Error,
    },
    /// A certificate or a key, or whoever should vouch for the app.
    Tls(FileError),
    Velt(BuildError),
    Identity(TlsError),
    Tracing(TlsError),
    /// The access log can't be opened. The machine's fault.
    AccessLog(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bind { what, address, .. } => write!(
                formatter,
                "can't listen on {address}: choose another {what}, or end what uses it"
            ),
            Self::Tls(error) => error.fmt(formatter),
            Self::Velt(error) => error.fmt(formatter),
            Self::Identity(error) | Self::Tracing(error) => error.fmt(formatter),
            Self::AccessLog(_) => formatter.write_str(
                "the access log can't be written to standard output: the system has no thread or file \
                 descriptor left",
            ),
        }
    }
}

impl Error for StartError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Bind { source, .. } | Self::AccessLog(source) => Some(source),
            Self::Tls(error) => error.source(),
            Self::Velt(error) => error.source(),
            Self::Identity(error) | Self::Tracing(error) => error.source(),
        }
    }
}

/// What is read from files of certificates and keys.
struct Certificates {
    listener: Option<Arc<ServerTls>>,
    app: Option<Arc<ClientTls>>,
}

impl Certificates {
    fn load(config: &Config) -> Result<Self, FileError> {
        let listener = config.tls.clone().map(ServerTls::load).transpose()?.map(Arc::new);
        let app = config.app.tls.as_ref().map(ClientTls::load).transpose()?.map(Arc::new);
        Ok(Self { listener, app })
    }
}

/// Whether what `config` names can be used: what [`App::bind`] would find wrong before it binds.
///
/// # Errors
///
/// See [`StartError`].
pub fn check(config: &Config) -> Result<(), StartError> {
    Certificates::load(config).map_err(StartError::Tls)?;
    mint(config, &Metrics::new())?;
    identity(config, &Metrics::new()).map(|_| ())
}

/// A sidecar with its sockets bound, serving nothing yet.
pub struct App {
    sidecar: Arc<Sidecar>,
    admin: Arc<Admin>,
    traffic_listener: Listener,
    admin_listener: Listener,
    addresses: Addresses,
    shutdown: Shutdown,
    readiness: Readiness,
    metrics: Arc<Metrics>,
}

impl App {
    /// Builds everything and binds every socket before any of them serves.
    ///
    /// # Errors
    ///
    /// See [`StartError`].
    pub async fn bind(config: Config) -> Result<Self, StartError> {
        let level = LevelSwitch::fixed(config.log.level);
        Self::bind_with(config, level).await
    }

    /// The same for a process whose log `level` switches.
    ///
    /// # Errors
    ///
    /// See [`StartError`].
    pub async fn bind_with(config: Config, level: LevelSwitch) -> Result<Self, StartError> {
        let metrics = Arc::new(Metrics::new());
        let certificates = Certificates::load(&config).map_err(StartError::Tls)?;
        let sidecar = Arc::new(sidecar(&config, &certificates, &metrics)?);
        let calls = Calls {
            sidecar: Arc::clone(&sidecar),
            in_force: Arc::new(InForce::of(&config)),
            level,
            metrics: Arc::clone(&metrics),
            token: config.admin_token.clone(),
        };
        let (mut traffic_listener, traffic) =
            bind("listen.address", config.listen, metrics.listener.clone()).await?;
        if let Some(tls) = &certificates.listener {
            traffic_listener = traffic_listener.with_tls(Arc::clone(tls));
        }
        let (admin_listener, admin_address) =
            bind("admin.address", config.admin, ListenerMetrics::detached()).await?;
        let readiness = Readiness::default();
        let (tokens, identity) = (sidecar.tokens.clone(), Arc::clone(&sidecar.identity));
        // Nobody waits for its keys: until they are there, its callers are unverified.
        identity.start();
        let before_scrape = Box::new(move || {
            tokens.observe();
            identity.observe();
        });
        let admin = Admin::new(Arc::clone(&metrics), readiness.clone(), before_scrape, calls);
        Ok(Self {
            admin: Arc::new(admin),
            sidecar,
            traffic_listener,
            admin_listener,
            addresses: Addresses { traffic, admin: admin_address },
            shutdown: config.shutdown,
            readiness,
            metrics,
        })
    }

    /// Where it listens.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Serves until `shutdown` resolves, then drains: not ready at once, accepting for the grace
    /// time but keeping no connection alive, then the requests in flight, tunnels last.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let (phase, traffic_phase) = watch::channel(Phase::Serving);
        let (admin_phase, admin_watched) = watch::channel(Phase::Serving);
        // The sockets are bound: whoever connects from now on is served.
        self.readiness.set(true, &self.metrics);
        let sidecar = Arc::clone(&self.sidecar);
        let handler = move |remote: &Remote, request| {
            let Remote { address, encrypted, names } = remote;
            let peer = Peer { address: address.ip(), encrypted: *encrypted, names: names.clone() };
            Arc::clone(&sidecar).handle(peer, request)
        };
        let traffic = tokio::spawn(self.traffic_listener.serve(handler, traffic_phase));
        let admin = self.admin;
        let answer = move |remote: &Remote, request| {
            let (admin, peer) = (Arc::clone(&admin), remote.address);
            async move { admin.answer(peer, request).await }
        };
        let admin = tokio::spawn(self.admin_listener.serve(answer, admin_watched));
        let reaping = Arc::clone(&self.sidecar);
        let reaper = tokio::spawn(async move { reaping.upstream.reap_idle().await });

        shutdown.await;
        self.readiness.set(false, &self.metrics);
        phase.send_replace(Phase::Leaving);
        info!(grace = ?self.shutdown.grace, "ending: not ready, still accepting");
        sleep(self.shutdown.grace).await;

        let deadline = Instant::now() + self.shutdown.deadline;
        phase.send_replace(Phase::Stopped);
        let upstream = &self.sidecar.upstream;
        upstream.close_tunnels();
        let drained = timeout_at(deadline, async {
            // A panic in the accept loop would have been printed; there is nothing left to drain.
            let _ = traffic.await;
            upstream.tunnels_ended().await;
        });
        if drained.await.is_err() {
            warn!("shutdown.deadline reached; what is still in flight is cut off");
            upstream.cut_tunnels();
            // They end at once; the bound is for a bug.
            let _ = timeout(Duration::from_secs(1), upstream.tunnels_ended()).await;
        }
        admin_phase.send_replace(Phase::Stopped);
        reaper.abort();
        admin.abort();
        let Sidecar { access_log, tracing, .. } = &*self.sidecar;
        tokio::join!(access_log.flush(FLUSH_PATIENCE), tracing.flush(FLUSH_PATIENCE));
        info!("ended");
    }
}

fn identity(config: &Config, metrics: &Metrics) -> Result<Identity, StartError> {
    Identity::new(config.identity.clone(), metrics.identity.clone()).map_err(StartError::Identity)
}

/// What the cache asks for tokens.
fn mint(config: &Config, metrics: &Metrics) -> Result<Resilient<VeltClient>, StartError> {
    let velt = VeltClient::new(config.velt.clone()).map_err(StartError::Velt)?;
    Ok(Resilient::new(velt, config.resilience.clone(), metrics.tokens.clone()))
}

/// The request path and its parts.
fn sidecar(
    config: &Config,
    certificates: &Certificates,
    metrics: &Metrics,
) -> Result<Sidecar, StartError> {
    let requests = &metrics.requests;
    let mint = mint(config, metrics)?;
    let identity = Arc::new(identity(config, metrics)?);
    let injection = Arc::new(Injection::new(config.delivery.clone()));
    let (guard, stripper) = (Arc::clone(&identity), Arc::clone(&injection));
    let reader = Arc::clone(&identity);
    let upstream = Upstream::new(
        config.app.clone(),
        certificates.app.clone(),
        Arc::new(move |trailers: &mut HeaderMap| guard.sanitize_trailers(trailers)),
        Arc::new(move |trailers: &mut HeaderMap| {
            stripper.strip(trailers);
            // A trailer is nobody's word.
            let _ = reader.word_of_app(trailers);
        }),
        metrics.app.clone(),
    );
    let dropped = metrics.access_log_dropped.clone();
    let access_log =
        AccessLog::start(&config.access_log, dropped).map_err(StartError::AccessLog)?;
    let exporter = config.tracing.export.clone();
    let exporter = exporter.map(|export| Exporter::start(export, metrics.trace.clone()));
    let exporter = exporter.transpose().map_err(StartError::Tracing)?;
    Ok(Sidecar {
        identity,
        plan: config.plan.clone(),
        breaker: mint.breaker(),
        tokens: TokenCache::new(Arc::new(mint), &config.cache, metrics.tokens.clone()),
        upstream,
        injection,
        metrics: Arc::new(requests.clone()),
        access_log,
        tracing: Tracing::new(&config.tracing, exporter),
    })
}

async fn bind(
    what: &'static str,
    settings: crate::listener::Settings,
    metrics: ListenerMetrics,
) -> Result<(Listener, SocketAddr), StartError> {
    let address = settings.address;
    let refused = |source| StartError::Bind { what, address, source };
    let listener = Listener::bind(settings, metrics).await.map_err(refused)?;
    let address = listener.address().map_err(refused)?;
    Ok((listener, address))
}

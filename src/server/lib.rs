//! The process: builds every part from its settings, binds every socket, runs, drains.
//!
//! The command `run`, the demo and the tests all start a sidecar by [`Server::bind`].

#![forbid(unsafe_code)]

pub mod admin;
pub mod config;
pub mod explain;
mod parts;
pub mod reload;
mod threads;

use std::error::Error;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::future::join_all;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tracing::{info, warn};

use self::parts::{Certificates, Replaceable, shared, sidecars};
pub use self::parts::{absent_files, check, check_present};
use self::threads::Threads;
use crate::admin::{Admin, Calls, CurrentSettings, Readiness};
use crate::config::{Config, Shutdown};
use crate::explain::InForce;
use crate::reload::{Reload, Trigger};
use ground::logging::Log;
use ground::memory::{Memory, Watch};
use ground::metrics::{ListenerMetrics, Metrics};
use ground::outgoing::TlsError;
use ground::peer::Peer;
use ground::tls::FileError;
use hop::listener::{Listener, Phase, Worker};
use hop::proxy::Upstream;
use shared::{Apply, Shared, store};
use sidecar::Sidecar;
use sidecar::resolver::KeyError;
use token::trial::Trial;
use token::velt::BuildError;

/// Time that the end waits for the reader of the access log, for the collector of spans, and for the store that
/// replicas share.
const FLUSH_PATIENCE: Duration = Duration::from_secs(1);

/// Connections to the admin port that one address may hold: a quarter of all.
const ADMIN_CONNECTIONS_OF_ONE_PEER: usize = 64;

/// Addresses at which a running sidecar can be reached.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    pub traffic: SocketAddr,
    pub admin: SocketAddr,
}

/// Reason why a sidecar did not start.
#[derive(Debug)]
pub enum StartError {
    /// An address could not be bound: in use, or not this machine's.
    Bind {
        what: &'static str,
        address: SocketAddr,
        source: io::Error,
    },
    /// A certificate, a key or the CAs that vouch for the app can't be used.
    Tls(FileError),
    Velt(BuildError),
    Identity(TlsError),
    /// The store that replicas share can't be used.
    Shared(store::StartError),
    Tracing(TlsError),
    /// The key that signs tokens for resolvers can't be used.
    Resolver(KeyError),
    /// A thread to serve on can't be started. The machine is at fault.
    Threads(io::Error),
    /// The access log can't be opened. The machine is at fault.
    AccessLog(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bind { what, address, source } => {
                write!(formatter, "can't listen on {address}: ")?;
                match source.kind() {
                    io::ErrorKind::AddrInUse => {
                        write!(formatter, "choose another {what}, or stop the process that uses it")
                    }
                    io::ErrorKind::PermissionDenied => write!(
                        formatter,
                        "choose a port from 1024 on for {what}, such as 8080, since lower ones are for \
                         privileged users; or give the container the capability NET_BIND_SERVICE"
                    ),
                    io::ErrorKind::AddrNotAvailable => {
                        write!(formatter, "write an address of this machine for {what}")
                    }
                    _ => write!(formatter, "choose another {what}"),
                }
            }
            Self::Tls(error) => error.fmt(formatter),
            Self::Resolver(error) => error.fmt(formatter),
            Self::Velt(error) => error.fmt(formatter),
            Self::Shared(error) => error.fmt(formatter),
            Self::Identity(error) | Self::Tracing(error) => error.fmt(formatter),
            Self::Threads(_) => formatter.write_str(
                "the system has no thread or file descriptor left for runtime.workers: lower it, or \
                 raise the limits on processes (pids) and open files",
            ),
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
            Self::Bind { source, .. } | Self::Threads(source) | Self::AccessLog(source) => {
                Some(source)
            }
            Self::Tls(error) => error.source(),
            Self::Resolver(error) => error.source(),
            Self::Velt(error) => error.source(),
            Self::Identity(error) | Self::Tracing(error) => error.source(),
            Self::Shared(error) => error.source(),
        }
    }
}

/// A sidecar with its sockets bound, serving nothing yet.
pub struct Server {
    /// One sidecar for each thread that serves; the first belongs to the thread that calls [`Server::run`].
    sidecars: Vec<Arc<Sidecar>>,
    /// The store that replicas share.
    shared: Option<Shared>,
    trial: Arc<Trial>,
    threads: Threads,
    /// Watch over the process's memory, for as long as anything is served.
    _watch: Watch,
    admin: Arc<Admin>,
    traffic_listener: Listener,
    admin_listener: Listener,
    addresses: Addresses,
    /// Settings of the shutdown, which a reload may change.
    shutdown: Arc<Mutex<Shutdown>>,
    reload: Reload,
    trigger: Trigger,
    drain_start: Arc<DrainStart>,
}

/// Start of the drain, which SIGTERM or an admin call brings; the first of them counts.
struct DrainStart {
    phase: watch::Sender<Phase>,
    readiness: Readiness,
    metrics: Arc<Metrics>,
    begun: OnceLock<Instant>,
}

impl DrainStart {
    fn new(readiness: Readiness, metrics: Arc<Metrics>) -> Self {
        let phase = watch::Sender::new(Phase::Serving);
        Self { phase, readiness, metrics, begun: OnceLock::new() }
    }

    /// Ends readiness, and keeps no connection alive from now on. Returns the time of the first call.
    fn begin(&self) -> Instant {
        *self.begun.get_or_init(|| {
            self.readiness.set(false, &self.metrics);
            self.phase.send_replace(Phase::Leaving);
            Instant::now()
        })
    }
}

impl Server {
    /// Builds everything and binds every socket before any of them serves.
    ///
    /// # Errors
    ///
    /// See [`StartError`].
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn bind(config: Config) -> Result<Self, StartError> {
        let log = Log::fixed(config.log.level);
        Self::bind_with(config, log)
    }

    /// Builds and binds like [`Self::bind`], for a process whose log is the sidecar's own.
    ///
    /// # Errors
    ///
    /// See [`StartError`].
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn bind_with(mut config: Config, log: Log) -> Result<Self, StartError> {
        let metrics = Arc::new(Metrics::new());
        let memory = Memory::default();
        config.listen.memory = memory.clone();
        if let Some(app) = &mut config.app {
            app.memory = memory.clone();
        }
        let limit = config.memory_limit.bytes();
        if let Some(limit) = limit {
            // A quarter for tokens: connections are bounded at seven tenths of the limit.
            config.cache.max_bytes = config.cache.max_bytes.min(limit / 4);
        }
        let certificates = Certificates::load(&config).map_err(StartError::Tls)?;
        let threads = Threads::start(config.workers.count()).map_err(StartError::Threads)?;
        let count = threads.runtimes().len();
        let watch =
            Watch::start(&memory, limit, threads.runtimes().to_vec(), metrics.memory.clone());
        let watch = watch.map_err(StartError::Threads)?;
        let shared = shared(&config, &metrics)?;
        let trial = Arc::new(Trial::new(metrics.trial.clone()));
        let sidecars = sidecars(&config, &certificates, shared.as_ref(), &trial, &metrics, count)?;
        // Parts that all sidecars share can be reached through any sidecar.
        let sidecar = Arc::clone(&sidecars[0]);
        let (in_force, token) = (InForce::of(&config), config.admin_token.clone());
        let current = Arc::new(ArcSwap::from_pointee(CurrentSettings { in_force, token }));
        let shutdown = Arc::new(Mutex::new(config.shutdown.clone()));
        let replaceable = Replaceable {
            sidecar: Arc::clone(&sidecar),
            shared: shared.clone(),
            trial: Arc::clone(&trial),
            current: Arc::clone(&current),
            log: log.clone(),
            shutdown: Arc::clone(&shutdown),
            metrics: Arc::clone(&metrics),
        };
        let (reload, trigger) = Reload::new(
            &config,
            Arc::new(move |config, changes, in_force| replaceable.apply(config, changes, in_force)),
            certificates.refreshes(),
            metrics.reload.clone(),
        );
        let (mut traffic_listener, traffic) =
            bind("listen.address", config.listen, metrics.listener.clone())?;
        if let Some(tls) = &certificates.listener {
            traffic_listener = traffic_listener.with_tls(Arc::clone(tls));
        }
        let (admin_listener, admin_address) =
            bind("admin.address", config.admin, ListenerMetrics::detached())?;
        let admin_listener =
            admin_listener.evicting(ADMIN_CONNECTIONS_OF_ONE_PEER, metrics.admin_evictions.clone());
        let readiness = Readiness::default();
        let drain_start = Arc::new(DrainStart::new(readiness.clone(), Arc::clone(&metrics)));
        let leaving = Arc::clone(&drain_start);
        // The start does not wait for the keys of assertions: until the keys are there, callers are
        // unverified.
        let rules = sidecar.rules.load();
        rules.identity.start();
        if let Some(logout) = &rules.logout {
            logout.start();
        }
        let (observed, counted) = (Arc::clone(&sidecar), Arc::clone(&metrics));
        let observed_log = log.clone();
        let before_scrape = Arc::new(move || {
            observed.tokens.observe();
            observed.admission.load().observe(&counted.tokens);
            observed.rules.load().identity.observe();
            certificates.observe(&counted);
            let lost = observed_log.dropped().saturating_sub(counted.log_dropped.get());
            counted.log_dropped.inc_by(lost);
        });
        let calls = Calls {
            sidecar: Arc::clone(&sidecar),
            shared: shared.clone(),
            current,
            log,
            metrics: Arc::clone(&metrics),
            leave: Box::new(move || {
                leaving.begin();
            }),
        };
        let admin = Admin::new(metrics, readiness, before_scrape, calls);
        if let Some(shared) = &shared {
            shared.applies_by(applying(sidecar));
        }
        Ok(Self {
            admin: Arc::new(admin),
            sidecars,
            shared,
            trial,
            threads,
            _watch: watch,
            traffic_listener,
            admin_listener,
            addresses: Addresses { traffic, admin: admin_address },
            shutdown,
            reload,
            trigger,
            drain_start,
        })
    }

    /// Returns the trigger that makes the sidecar read every source again and apply what has changed.
    pub fn reload_trigger(&self) -> Trigger {
        self.trigger.clone()
    }

    /// Returns the addresses on which the sidecar listens.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Serves until `shutdown` resolves, then drains. Readiness ends at once; during the grace time
    /// connections are accepted but not kept alive; then the requests in flight end, tunnels last. If an
    /// admin call has begun to drain before, the time since then counts.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let DrainStart { phase, readiness, metrics, .. } = &*self.drain_start;
        let (admin_phase, admin_watched) = watch::channel(Phase::Serving);
        // The sockets are bound: each client that connects from now on is served.
        readiness.set(true, metrics);
        let workers = self.threads.runtimes().iter().zip(&self.sidecars);
        let workers = workers.map(|(runtime, sidecar)| {
            let sidecar = Arc::clone(sidecar);
            Worker::new(runtime.clone(), move |peer: &Peer, connection: &_, request| {
                Arc::clone(&sidecar).handle(peer.clone(), Arc::clone(connection), request)
            })
        });
        let serving = self.traffic_listener.serve_by(workers.collect(), phase.subscribe());
        let traffic = tokio::spawn(serving);
        let admin = self.admin;
        let answer = move |peer: &Peer, _: &_, request| {
            let (admin, peer) = (Arc::clone(&admin), peer.socket);
            async move { admin.answer(peer, request).await }
        };
        let admin = tokio::spawn(self.admin_listener.serve(answer, admin_watched));
        let reaping = self.sidecars.iter().map(Arc::clone);
        let reaping = reaping.map(|sidecar| async move {
            if let Some(upstream) = &sidecar.upstream {
                upstream.reap_idle().await;
            }
        });
        let reaper = tokio::spawn(join_all(reaping.collect::<Vec<_>>()));
        let reloading = tokio::spawn(self.reload.run());
        let trial = tokio::spawn(async move { self.trial.run().await });
        let tokens = self.sidecars[0].tokens.clone();
        let sharing = self.shared.clone();
        let sharing = sharing.map(|shared| tokio::spawn(shared.run(tokens.clone())));

        shutdown.await;
        reloading.abort();
        trial.abort();
        let Shutdown { grace, deadline } =
            self.shutdown.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let begun = self.drain_start.begin();
        info!(?grace, "shutdown begins: not ready, still accepting; a second signal ends at once");
        sleep_until(begun + grace).await;

        let deadline = Instant::now() + deadline;
        phase.send_replace(Phase::Stopped);
        let upstreams = || self.sidecars.iter().filter_map(|sidecar| sidecar.upstream.as_ref());
        let tunnels_ended = || join_all(upstreams().map(Upstream::tunnels_ended));
        upstreams().for_each(Upstream::close_tunnels);
        let drained = timeout_at(deadline, async {
            // A panic in the accept loop would have been printed; there is nothing left to drain.
            let _ = traffic.await;
            tunnels_ended().await;
        });
        if drained.await.is_err() {
            warn!("shutdown.deadline reached; requests and tunnels still in flight are cut off");
            upstreams().for_each(Upstream::cut_tunnels);
            // Cut tunnels end at once; the bound is for a bug.
            let _ = timeout(Duration::from_secs(1), tunnels_ended()).await;
        }
        if let Some(shared) = &self.shared {
            sharing.inspect(JoinHandle::abort);
            shared.finish(&tokens, FLUSH_PATIENCE).await;
        }
        admin_phase.send_replace(Phase::Stopped);
        reaper.abort();
        admin.abort();
        let Sidecar { access_log, tracing, .. } = &*self.sidecars[0];
        tokio::join!(access_log.flush(FLUSH_PATIENCE), tracing.flush(FLUSH_PATIENCE));
        info!("ended");
    }
}

/// Returns the function that applies forgets of other replicas in `sidecar`.
fn applying(sidecar: Arc<Sidecar>) -> Apply {
    Arc::new(move |events| {
        let sidecar = Arc::clone(&sidecar);
        Box::pin(async move {
            sidecar.apply(&events).await;
        })
    })
}

fn bind(
    what: &'static str,
    settings: hop::listener::Settings,
    metrics: ListenerMetrics,
) -> Result<(Listener, SocketAddr), StartError> {
    let address = settings.address;
    let refused = |source| StartError::Bind { what, address, source };
    let listener = Listener::bind(settings, metrics).map_err(refused)?;
    let address = listener.address().map_err(refused)?;
    Ok((listener, address))
}

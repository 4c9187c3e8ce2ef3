//! Connections to the store. No request waits for a connection, and no call waits longer than its time limit.
//!
//! | module | decides |
//! |---|---|
//! | [`settings`](Settings) | where the store is |
//! | `link` | how one connection to one server is kept: connects, pings, connects again |
//! | `pauses` | how long to wait before the next attempt to connect |
//! | `breaker` | when calls to a server are suspended |
//! | `sentinel`, `cluster`, `slots` | which server is the primary, or has a key |
//! | `connection`, `stream`, `access` | login, checks of a new connection, TLS |
//! | `bounded` | how much a server may send |
//! | `listener` | a connection for calls that block |
//! | `fault`, `inspection` | what an operator learns about faults and about the server |

mod access;
mod board;
mod bounded;
mod breaker;
mod cluster;
mod connection;
mod fault;
mod inspection;
mod link;
mod listener;
mod pauses;
mod sentinel;
mod settings;
mod slots;
mod stream;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use ground::alarm::Alarms;
use ground::metrics::{StoreCallResult, StoreMetrics, observe};
use redis::{Cmd, Value};
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;
use tracing::warn;

pub use self::access::StartError;
pub(crate) use self::bounded::LONGEST_VALUE;
pub use self::fault::{Blame, Fault};
pub use self::inspection::Inspection;
pub use self::listener::Listener;
pub use self::pauses::Pauses;
pub use self::settings::{Address, Place, Settings};

use self::access::Access;
use self::board::Board;
use self::cluster::Cluster;
use self::connection::{CONNECT, Connection};
use self::link::{Link, Target};
use self::sentinel::Sentinels;

/// Most calls under way. A call holds less than a kilobyte, and a healthy store answers thousands of calls in the
/// time limit of one.
const MOST_CALLS: usize = 1_024;

/// Connections to the store. Clones share the connections, which close with the last clone.
#[derive(Clone)]
pub struct Store {
    core: Arc<Core>,
}

struct Core {
    routes: ArcSwap<Routes>,
    place: Mutex<Place>,
    access: watch::Sender<Arc<Access>>,
    board: Arc<Board>,
    permits: Semaphore,
    alarms: Alarms<StoreCallResult>,
}

/// Links to the servers: to one, or to each node of a cluster.
enum Routes {
    One(Link),
    Cluster(Cluster),
}

/// State of the connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Every server is connected.
    Connected,
    /// A server is not connected. `last` is the fault of the last attempt; `None` before the first has ended.
    Connecting { last: Option<Fault> },
    /// Calls to a server are suspended for the time that is `left`.
    Suspended { left: Duration },
}

impl Store {
    /// Starts to connect, and does not wait for it. Must be called in a tokio runtime.
    ///
    /// # Errors
    ///
    /// See [`StartError`].
    pub fn start(settings: Settings, metrics: StoreMetrics) -> Result<Self, StartError> {
        let (access, receiver) = watch::channel(Arc::new(Access::new(&settings)?));
        let board = Arc::new(Board::new(metrics, settings.patience));
        let routes = Routes::start(settings.place.clone(), receiver, &board);
        let core = Core {
            routes: ArcSwap::from_pointee(routes),
            place: Mutex::new(settings.place),
            access,
            board,
            permits: Semaphore::new(MOST_CALLS),
            alarms: Alarms::new(),
        };
        Ok(Self { core: Arc::new(core) })
    }

    /// Sends commands together, in one round trip, and returns their answers in order. In a cluster, each command is
    /// sent to the node that has its first key, all at the same time.
    ///
    /// A caller that drops the future gives up the answers; the server may run the commands all the same.
    ///
    /// # Errors
    ///
    /// See [`Fault`]. Fails at once without a connection, while calls are suspended, and with too many calls under
    /// way. An answer that is an error fails the whole call, even if the server has run the other commands.
    pub async fn call(&self, commands: Vec<Cmd>, within: Duration) -> Result<Vec<Value>, Fault> {
        let started = Instant::now();
        let called = self.call_uncounted(&commands, within).await;
        let result = called.as_ref().err().map_or(StoreCallResult::Ok, |fault| fault.call_result());
        let metrics = self.core.board.metrics();
        metrics.calls.increment(result);
        let unsent =
            [StoreCallResult::NotConnected, StoreCallResult::Suspended, StoreCallResult::Busy];
        if !unsent.contains(&result) {
            observe(&metrics.call_duration, started.elapsed());
        }
        if let Err(fault) = called {
            self.tell(fault, result);
        }
        called
    }

    async fn call_uncounted(
        &self,
        commands: &[Cmd],
        within: Duration,
    ) -> Result<Vec<Value>, Fault> {
        if commands.is_empty() {
            return Ok(Vec::new());
        }
        let _permit = self.core.permits.try_acquire().map_err(|_| Fault::Busy)?;
        let routes = self.core.routes.load_full();
        let answers = match &*routes {
            Routes::One(link) => link.call(commands, within).await,
            Routes::Cluster(cluster) => cluster.call(commands, within).await,
        }?;
        let first_fault = answers.iter().find_map(link::fault_of);
        first_fault.map_or(Ok(answers), Err)
    }

    /// Logs the faults of calls, except faults of the connection, which the links log.
    fn tell(&self, fault: Fault, result: StoreCallResult) {
        use StoreCallResult::{Busy, Denied, Failed, Full, ReadOnly};
        if !matches!(result, Busy | Denied | Failed | Full | ReadOnly) {
            return;
        }
        if let Some(calls) = self.core.alarms.raise(result, 1) {
            warn!(
                %fault, calls,
                "calls to the store of shared tokens fail, and requests go on without it"
            );
        }
    }

    /// Opens a connection of its own for calls that block.
    ///
    /// # Errors
    ///
    /// See [`Fault`]. Fails at once while the store is not connected.
    pub async fn listener(&self) -> Result<Listener, Fault> {
        let routes = self.core.routes.load_full();
        let connection = match &*routes {
            Routes::One(link) => {
                let address = link.address().ok_or(Fault::NotConnected)?;
                Some(self.open_own(&address).await?)
            }
            // The key of the first command decides which node to connect to.
            Routes::Cluster(_) => None,
        };
        Ok(Listener::new(self.clone(), connection))
    }

    /// Opens, and counts, a connection that no link keeps.
    async fn open_own(&self, address: &Address) -> Result<Connection, Fault> {
        let opened = Connection::open(address, &self.access()).await;
        self.core.board.count_connect(opened.as_ref().err().copied());
        opened
    }

    /// Counts a call over a connection that no link keeps. The time for which the call blocked says nothing about the
    /// store.
    fn count_own(&self, fault: Option<Fault>) {
        let result = fault.map_or(StoreCallResult::Ok, Fault::call_result);
        self.core.board.metrics().calls.increment(result);
    }

    /// Takes other settings. New connections use them, and an open connection is closed as soon as a new one has
    /// taken its place. `patience` stays as it was at the start.
    ///
    /// # Errors
    ///
    /// See [`StartError`]; the settings in force stay in force.
    pub fn replace(&self, settings: Settings) -> Result<(), StartError> {
        let access = Access::new(&settings)?;
        self.core.access.send_replace(Arc::new(access));
        let mut place = self.core.place.lock().unwrap_or_else(PoisonError::into_inner);
        if *place != settings.place {
            let receiver = self.core.access.subscribe();
            let routes = Routes::start(settings.place.clone(), receiver, &self.core.board);
            self.core.routes.store(Arc::new(routes));
            *place = settings.place;
        }
        Ok(())
    }

    /// Returns the state of the connection; in a cluster, of one that is not connected, if there is one.
    pub fn state(&self) -> State {
        let states = match &**self.core.routes.load() {
            Routes::One(link) => vec![link.state()],
            Routes::Cluster(cluster) => cluster.states(),
        };
        let worst = states.into_iter().find(|state| *state != State::Connected);
        worst.unwrap_or(State::Connected)
    }

    /// Asks the server, or a node of the cluster, for the facts of an [`Inspection`].
    ///
    /// # Errors
    ///
    /// See [`Fault`].
    pub async fn inspect(&self) -> Result<Inspection, Fault> {
        let answers = self.call(inspection::commands(), CONNECT).await?;
        Inspection::read(&answers, SystemTime::now())
    }

    fn access(&self) -> Arc<Access> {
        Arc::clone(&self.core.access.borrow())
    }

    fn address_for(&self, command: &Cmd) -> Option<Address> {
        match &**self.core.routes.load() {
            Routes::One(link) => link.address(),
            Routes::Cluster(cluster) => cluster.address_for(command),
        }
    }

    fn look(&self) {
        if let Routes::Cluster(cluster) = &**self.core.routes.load() {
            cluster.look();
        }
    }
}

impl Routes {
    fn start(place: Place, access: watch::Receiver<Arc<Access>>, board: &Arc<Board>) -> Self {
        let link = |target| Self::One(Link::start(target, access.clone(), board));
        match place {
            Place::Server(address) => link(Target::Address(address)),
            Place::Sentinel { sentinels, primary } => {
                link(Target::Primary(Sentinels::new(sentinels, primary)))
            }
            Place::Cluster(seeds) => Self::Cluster(Cluster::start(seeds, access, board)),
        }
    }
}

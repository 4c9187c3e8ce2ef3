//! The connection to one server, and the task that opens it and opens it again.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use ground::alarm::Alarm;
use redis::{Cmd, Value};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{info, warn};

use super::State;
use super::access::Access;
use super::board::Board;
use super::breaker::Breaker;
use super::connection::Connection;
use super::fault::Fault;
use super::pauses::Pauses;
use super::sentinel::Sentinels;
use super::settings::Address;

/// First and longest pause between attempts to connect, before jitter. Each attempt costs the server a login, and 200
/// replicas may try at once when the server comes back.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Life of a connection after which the pauses begin with the first again. A server that accepts connections and soon
/// breaks them off gets longer and longer pauses.
const STABLE: Duration = Duration::from_secs(5);

/// Pause between pings of an idle connection. Firewalls and address translation drop idle connections without telling
/// either side, some after less than a minute.
const PING: Duration = Duration::from_secs(3);

/// Server to which a link connects.
pub(super) enum Target {
    Address(Address),
    /// The primary that the Sentinels name, looked up at each attempt.
    Primary(Sentinels),
}

impl fmt::Display for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(formatter),
            Self::Primary(sentinels) => sentinels.fmt(formatter),
        }
    }
}

impl Target {
    async fn open(&self, access: &Access) -> Result<Connection, Fault> {
        match self {
            Self::Address(address) => Connection::open(address, access).await,
            Self::Primary(sentinels) => sentinels.open_primary(access).await,
        }
    }

    /// Waits until the Sentinels name another server as the primary. The connected server may not have noticed: a
    /// primary that is cut off from its Sentinels goes on serving.
    async fn replaced(&self, connection: &Connection, access: &Access) {
        match self {
            Self::Address(_) => std::future::pending().await,
            Self::Primary(sentinels) => sentinels.replaced(connection.address(), access).await,
        }
    }
}

/// The connection to one server, which a task (the keeper) opens again after each fault. The keeper ends when the
/// link is dropped.
pub(super) struct Link {
    kept: Arc<Kept>,
    keeper: AbortHandle,
}

/// Parts of a link that the keeper shares with calls.
pub(super) struct Kept {
    target: Target,
    current: ArcSwapOption<Connection>,
    health: Mutex<Health>,
    board: Arc<Board>,
}

struct Health {
    breaker: Breaker,
    /// Fault of the last attempt to connect, until an attempt succeeds.
    last: Option<Fault>,
    /// Time of the last answer.
    answered: Instant,
}

impl Link {
    /// Starts to connect. Must be called in a tokio runtime.
    pub(super) fn start(
        target: Target,
        access: watch::Receiver<Arc<Access>>,
        board: &Arc<Board>,
    ) -> Self {
        let health = Health { breaker: Breaker::new(), last: None, answered: Instant::now() };
        let kept = Arc::new(Kept {
            target,
            current: ArcSwapOption::empty(),
            health: Mutex::new(health),
            board: Arc::clone(board),
        });
        board.add(&kept);
        let keeper = Keeper::new(Arc::clone(&kept), access);
        Self { kept, keeper: tokio::spawn(keeper.run()).abort_handle() }
    }

    /// Sends commands in one piece, and returns their answers; an answer may be an error.
    pub(super) async fn call(
        &self,
        commands: &[Cmd],
        within: Duration,
    ) -> Result<Vec<Value>, Fault> {
        if self.kept.health().breaker.until().is_some() {
            return Err(Fault::Suspended);
        }
        let connection = self.kept.connection().ok_or(Fault::NotConnected)?;
        let started = Instant::now();
        let answers = timeout(within, connection.call(commands)).await;
        let answers = answers.unwrap_or(Err(Fault::Timeout));
        self.kept.note(&connection, &answers, started, within);
        answers
    }

    /// Returns the address of the server that is connected.
    pub(super) fn address(&self) -> Option<Address> {
        self.kept.connection().map(|connection| connection.address().clone())
    }

    /// Has the keeper connect again, with a new look-up of the host name.
    pub(super) fn connect_anew(&self) {
        if let Some(connection) = self.kept.connection() {
            connection.give_up(Fault::Other("MOVED"));
        }
    }

    pub(super) fn state(&self) -> State {
        self.kept.state()
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.keeper.abort();
        self.kept.current.store(None);
    }
}

impl Kept {
    fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the connection in use, unless it has a fault: a call may see a fault before the keeper does.
    fn connection(&self) -> Option<Arc<Connection>> {
        self.current.load_full().filter(|connection| connection.fault().is_none())
    }

    pub(super) fn state(&self) -> State {
        let health = self.health();
        match health.breaker.until() {
            Some(until) => {
                State::Suspended { left: until.saturating_duration_since(Instant::now()) }
            }
            None if self.connection().is_some() => State::Connected,
            None => State::Connecting { last: health.last },
        }
    }

    /// Closes the former connection if its server no longer answers. While logins with new settings fail, the former
    /// connection stays in use, and no other task watches it.
    async fn part_with_the_dead(&self) {
        let Some(former) = self.current.load_full() else { return };
        if former.fault().is_some() || former.ping().await.is_err() {
            self.current.store(None);
        }
        self.board.update();
    }

    /// Updates the breaker by the outcome of a call, and gives up the connection if it is of no more use.
    fn note(
        &self,
        connection: &Connection,
        answers: &Result<Vec<Value>, Fault>,
        started: Instant,
        within: Duration,
    ) {
        let now = Instant::now();
        match answers {
            Ok(answers) => {
                let mut health = self.health();
                health.answered = now;
                health.breaker.answered();
                drop(health);
                if answers.iter().filter_map(fault_of).any(|fault| fault == Fault::ReadOnly) {
                    connection.give_up(Fault::ReadOnly);
                }
            }
            // A time limit that was short from the start says little about the server.
            Err(Fault::Timeout) if within < self.board.patience() / 2 => {}
            Err(fault) if fault.is_outage() => {
                let suspended = self.health().breaker.failed(started, now);
                if suspended || *fault != Fault::Timeout {
                    connection.give_up(*fault);
                }
            }
            Err(_) => {}
        }
    }
}

/// The task that connects, watches the connection, and connects again.
struct Keeper {
    kept: Arc<Kept>,
    access: watch::Receiver<Arc<Access>>,
    pauses: Pauses,
    /// Fault that was logged last; `None` once the log says that the server is back.
    told: Option<Fault>,
    alarm: Alarm,
}

impl Keeper {
    fn new(kept: Arc<Kept>, access: watch::Receiver<Arc<Access>>) -> Self {
        let pauses = Pauses::new(FIRST_PAUSE, LONGEST_PAUSE);
        Self { kept, access, pauses, told: None, alarm: Alarm::new() }
    }

    async fn run(mut self) {
        loop {
            self.await_end_of_suspension().await;
            let access = Arc::clone(&self.access.borrow_and_update());
            // A connection that is in use goes on serving until the new one is open.
            let opened = self.kept.target.open(&access).await;
            self.kept.board.count_connect(opened.as_ref().err().copied());
            match opened {
                Ok(connection) => self.keep(&Arc::new(connection), &access).await,
                Err(fault) => {
                    self.kept.health().last = Some(fault);
                    self.kept.part_with_the_dead().await;
                    self.tell("no connection to the store of shared tokens", fault);
                }
            }
            self.rest().await;
        }
    }

    async fn await_end_of_suspension(&self) {
        let until = self.kept.health().breaker.until();
        let Some(until) = until else { return };
        sleep_until(until).await;
        self.kept.health().breaker.resume();
        self.kept.board.update();
    }

    /// Lets calls use a connection until it fails, or until the settings change.
    async fn keep(&mut self, connection: &Arc<Connection>, access: &Access) {
        let started = Instant::now();
        self.kept.current.store(Some(Arc::clone(connection)));
        {
            let mut health = self.kept.health();
            (health.last, health.answered) = (None, started);
            // Calls over the previous connection may have caused a suspension meanwhile.
            health.breaker.resume();
        }
        self.kept.board.update();
        if self.told.take().is_some() {
            info!(server = %connection.address(), "the store of shared tokens is back");
        }
        let mut settings = self.access.clone();
        let fault = tokio::select! {
            fault = connection.given_up() => Some(fault),
            fault = self.watch(connection) => Some(fault),
            () = self.kept.target.replaced(connection, access) => Some(Fault::ReadOnly),
            () = changed(&mut settings) => None,
        };
        if let Some(fault) = fault {
            self.kept.current.store(None);
            self.kept.board.update();
            if self.kept.health().breaker.until().is_some() {
                self.tell("calls to the store of shared tokens are suspended", fault);
            }
        }
        if fault.is_none() || started.elapsed() > STABLE {
            self.pauses.reset();
        }
    }

    /// Pings the connection whenever it is idle, until a ping fails.
    async fn watch(&self, connection: &Connection) -> Fault {
        loop {
            let due = self.kept.health().answered + PING;
            if due > Instant::now() {
                sleep_until(due).await;
                continue;
            }
            match connection.ping().await {
                Ok(()) => self.kept.health().answered = Instant::now(),
                Err(fault) => return fault,
            }
        }
    }

    /// Pauses before the next attempt, or until there are other settings.
    async fn rest(&mut self) {
        let pause = self.pauses.take();
        let mut settings = self.access.clone();
        tokio::select! {
            () = sleep(pause) => {}
            () = changed(&mut settings) => {}
        }
    }

    /// Logs each fault once, and at most one fault a minute of a server that comes and goes.
    fn tell(&mut self, what: &str, fault: Fault) {
        if self.told != Some(fault) && self.alarm.raise(1).is_some() {
            self.told = Some(fault);
            let server = &self.kept.target;
            warn!(%server, %fault, "{what}, and requests go on without it");
        }
    }
}

/// Returns the fault that an answer shows, if the answer is an error.
pub(super) fn fault_of(answer: &Value) -> Option<Fault> {
    match answer {
        Value::ServerError(error) => Some(Fault::of_answer(error)),
        _ => None,
    }
}

/// Waits for other settings.
async fn changed(access: &mut watch::Receiver<Arc<Access>>) {
    if access.changed().await.is_err() {
        // The store was dropped, and the link will be dropped with it.
        std::future::pending::<()>().await;
    }
}

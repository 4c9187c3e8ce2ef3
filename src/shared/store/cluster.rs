//! A cluster: a link to each node that has slots, and the map from slots to nodes.
//!
//! The client for clusters of the crate `redis` is not used: it makes requests wait for connections, and does not
//! bound the size of answers.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::future::join_all;
use ground::alarm::Alarm;
use redis::{Cmd, Value, cmd};
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout};
use tracing::warn;

use super::State;
use super::access::Access;
use super::board::Board;
use super::connection::{CONNECT, Connection};
use super::fault::Fault;
use super::link::{Link, Target};
use super::settings::Address;
use super::slots::{self, Owned};

/// Pause between two updates of the map. A call that was sent to the wrong node asks for an update at once.
const LOOK: Duration = Duration::from_secs(10);

/// Pause after an update that failed.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// Shortest pause between two updates, because a failover makes all calls ask for an update.
const LEAST_PAUSE: Duration = Duration::from_millis(200);

/// A cluster. Its links and its task end when it is dropped.
pub(super) struct Cluster {
    shared: Arc<Shared>,
    looking: AbortHandle,
}

struct Shared {
    seeds: Vec<Address>,
    map: ArcSwap<Map>,
    look: Notify,
    access: watch::Receiver<Arc<Access>>,
    board: Arc<Board>,
    /// Fault of the last update of the map, until an update succeeds.
    last: Mutex<Option<Fault>>,
}

/// Nodes and their slots.
#[derive(Default)]
struct Map {
    nodes: HashMap<Address, Arc<Link>>,
    /// Ranges of slots in ascending order, each with its node.
    owned: Vec<(RangeInclusive<u16>, Arc<Link>)>,
}

impl Map {
    /// Returns the node that has `slot`; any node for a command without a key.
    fn node_of(&self, slot: Option<u16>) -> Option<&Arc<Link>> {
        let Some(slot) = slot else { return self.owned.first().map(|(_, link)| link) };
        let index = self.owned.partition_point(|(slots, _)| *slots.end() < slot);
        self.owned.get(index).filter(|(slots, _)| slots.contains(&slot)).map(|(_, link)| link)
    }
}

impl Cluster {
    /// Starts the task that finds the nodes. Must be called in a tokio runtime.
    pub(super) fn start(
        seeds: Vec<Address>,
        access: watch::Receiver<Arc<Access>>,
        board: &Arc<Board>,
    ) -> Self {
        let (map, look, board) = (ArcSwap::default(), Notify::new(), Arc::clone(board));
        let last = Mutex::default();
        let shared = Arc::new(Shared { seeds, map, look, access, board, last });
        let looking = tokio::spawn(Arc::clone(&shared).keep_looking()).abort_handle();
        Self { shared, looking }
    }

    /// Sends each command to its node, all at the same time, and follows redirections once.
    pub(super) async fn call(
        &self,
        commands: &[Cmd],
        within: Duration,
    ) -> Result<Vec<Value>, Fault> {
        let deadline = Instant::now() + within;
        let map = self.shared.map.load_full();
        let mut groups: Vec<(&Arc<Link>, Vec<usize>)> = Vec::new();
        for (index, command) in commands.iter().enumerate() {
            let link = map.node_of(slots::slot_of(command)).ok_or_else(|| self.miss())?;
            match groups.iter_mut().find(|(other, _)| Arc::ptr_eq(other, link)) {
                Some((_, indexes)) => indexes.push(index),
                None => groups.push((link, vec![index])),
            }
        }
        let sent = groups.iter().map(|(link, indexes)| async move {
            let own: Vec<Cmd> = indexes.iter().map(|index| commands[*index].clone()).collect();
            link.call(&own, within).await
        });
        let mut answers = vec![Value::Nil; commands.len()];
        for ((_, indexes), answered) in groups.iter().zip(join_all(sent).await) {
            let answered = answered.inspect_err(|_| self.shared.look.notify_one())?;
            for (index, answer) in indexes.iter().zip(answered) {
                answers[*index] = answer;
            }
        }
        for (command, answer) in commands.iter().zip(&mut answers) {
            if let Some(other) = self.follow(&map, command, answer, deadline).await? {
                *answer = other;
            }
        }
        Ok(answers)
    }

    /// Asks for an update of the map, because a slot has no node in it.
    fn miss(&self) -> Fault {
        self.shared.look.notify_one();
        Fault::NotConnected
    }

    /// Sends a command to the node that an answer names, if the answer names one.
    async fn follow(
        &self,
        map: &Map,
        command: &Cmd,
        answer: &Value,
        deadline: Instant,
    ) -> Result<Option<Value>, Fault> {
        let Value::ServerError(error) = answer else { return Ok(None) };
        match error.code() {
            "MOVED" | "ASK" => {}
            "CLUSTERDOWN" | "READONLY" => {
                self.shared.look.notify_one();
                return Ok(None);
            }
            _ => return Ok(None),
        }
        self.shared.look.notify_one();
        let asking = map.node_of(slots::slot_of(command)).ok_or(Fault::NotConnected)?;
        let asked = asking.address().ok_or(Fault::NotConnected)?;
        let named = error.details().and_then(|details| slots::redirected_to(details, &asked));
        // A node that has only just joined is not connected yet, and a request does not wait for its connection.
        let link = named.and_then(|address| map.nodes.get(&address)).ok_or(Fault::NotConnected)?;
        if Arc::ptr_eq(link, asking) {
            // The name of the node that was asked now leads to another server.
            link.connect_anew();
            return Err(Fault::NotConnected);
        }
        let mut commands = Vec::new();
        if error.code() == "ASK" {
            commands.push(cmd("ASKING"));
        }
        commands.push(command.clone());
        let left = deadline.saturating_duration_since(Instant::now());
        Ok(link.call(&commands, left).await?.pop())
    }

    /// Returns the address of the node that has a key of `command`.
    pub(super) fn address_for(&self, command: &Cmd) -> Option<Address> {
        let map = self.shared.map.load();
        map.node_of(slots::slot_of(command)).and_then(|link| link.address())
    }

    /// Asks for an update of the map, because a server has answered a listener with an error.
    pub(super) fn look(&self) {
        self.shared.look.notify_one();
    }

    /// Returns the state of the connection to each node; of the search for nodes while no node is known.
    pub(super) fn states(&self) -> Vec<State> {
        let map = self.shared.map.load();
        if map.nodes.is_empty() {
            let last = *self.shared.last.lock().unwrap_or_else(PoisonError::into_inner);
            return vec![State::Connecting { last }];
        }
        map.nodes.values().map(|link| link.state()).collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.looking.abort();
    }
}

impl Shared {
    async fn keep_looking(self: Arc<Self>) {
        let alarm = Alarm::new();
        loop {
            let found = self.ask_for_slots().await;
            *self.last.lock().unwrap_or_else(PoisonError::into_inner) =
                found.as_ref().err().copied();
            let pause = match found {
                Ok(owned) => {
                    self.take(owned);
                    LOOK
                }
                // Keep the links: a cluster that does not tell its slots may answer other calls all the same.
                Err(fault) => {
                    if alarm.raise(1).is_some() {
                        warn!(
                            %fault,
                            "no node of the cluster for shared tokens tells which node has which keys: check \
                             shared.addresses, and shared.mode if the store is no cluster"
                        );
                    }
                    AFTER_FAILURE
                }
            };
            sleep(LEAST_PAUSE).await;
            // Update the map after the pause, or as soon as a call asks for it.
            let _ = timeout(pause, self.look.notified()).await;
        }
    }

    /// Asks the connected nodes for their slots, then the configured addresses, until a node answers.
    async fn ask_for_slots(&self) -> Result<Vec<Owned>, Fault> {
        let mut question = cmd("CLUSTER");
        question.arg("SLOTS");
        let question = [question];
        let map = self.map.load_full();
        for link in map.nodes.values() {
            let Some(address) = link.address() else { continue };
            if let Ok(answers) = link.call(&question, CONNECT).await
                && let Ok(owned) = slots::parse(&answers[0], &address)
            {
                return Ok(owned);
            }
        }
        let access = Arc::clone(&self.access.borrow());
        let mut fault = Fault::NotConnected;
        for seed in &self.seeds {
            let asked = async {
                let connection = Connection::open(seed, &access).await?;
                let answers = timeout(CONNECT, connection.call(&question)).await;
                slots::parse(&answers.unwrap_or(Err(Fault::Timeout))?[0], seed)
            };
            match asked.await {
                Ok(owned) => return Ok(owned),
                Err(error) => fault = error,
            }
        }
        self.board.count_connect(Some(fault));
        Err(fault)
    }

    /// Replaces the map. Keeps the links to nodes that are in the new map; the other links end.
    fn take(&self, owned: Vec<Owned>) {
        let before = self.map.load_full();
        let mut map = Map::default();
        for Owned { slots, node } in owned {
            let link = map.nodes.entry(node.clone()).or_insert_with(|| {
                before.nodes.get(&node).cloned().unwrap_or_else(|| {
                    let target = Target::Address(node);
                    Arc::new(Link::start(target, self.access.clone(), &self.board))
                })
            });
            map.owned.push((slots, Arc::clone(link)));
        }
        self.map.store(Arc::new(map));
        drop(before);
        self.board.update();
    }
}

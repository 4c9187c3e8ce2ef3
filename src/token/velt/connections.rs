//! Connections to Velt, all replaced when one of them turns out to be dead.
//!
//! A load balancer, a NAT table or a node that ends one idle connection in silence has as a rule ended
//! all of them. reqwest would use the next dead connection for each retry.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use reqwest::Client;
use tracing::warn;

use crate::Stage;
use ground::logging::Chain;
use ground::outgoing::{Recipe, TlsError};

/// All connections to Velt.
pub(super) struct Connections {
    recipe: Recipe,
    pool: ArcSwap<Pool>,
}

/// A client and its connections.
struct Pool {
    client: Client,
    /// Whether an answer has come over one of the connections, so that it may lie idle.
    used: AtomicBool,
}

impl Pool {
    fn of(client: Client) -> Self {
        Self { client, used: AtomicBool::new(false) }
    }
}

impl Connections {
    /// Starts without an open connection.
    pub(super) fn new(recipe: Recipe) -> Result<Self, TlsError> {
        let pool = ArcSwap::from_pointee(Pool::of(recipe.client()?));
        Ok(Self { recipe, pool })
    }

    /// Lends a connection for one call, which must say when its answer has begun.
    pub(super) fn lend(&self) -> Lent<'_> {
        let pool = self.pool.load_full();
        let reused = pool.used.load(Ordering::Relaxed);
        Lent { connections: self, pool, reused, answered: false.into() }
    }

    /// Makes all later calls open new connections, unless `dead` has been replaced already.
    fn replace(&self, dead: &Arc<Pool>) {
        match self.recipe.client() {
            Ok(client) => {
                self.pool.compare_and_swap(dead, Arc::new(Pool::of(client)));
            }
            // The next failure of a call tries again to build a client.
            Err(error) => warn!(error = %Chain(&error), "no new connections to Velt can be set up"),
        }
    }
}

/// Use of a connection for one call. If it is dropped before an answer has begun, by an error or by a
/// time limit, all idle connections are replaced.
pub(super) struct Lent<'a> {
    connections: &'a Connections,
    pool: Arc<Pool>,
    reused: bool,
    answered: AtomicBool,
}

impl Lent<'_> {
    /// Client that makes the call.
    pub(super) fn client(&self) -> &Client {
        &self.pool.client
    }

    /// Whether the call may go out on a connection that has lain idle.
    pub(super) fn stage(&self) -> Stage {
        if self.reused { Stage::CalledOnReused } else { Stage::Called }
    }

    /// Notes that the head of an answer has come.
    pub(super) fn answered(&self) {
        self.answered.store(true, Ordering::Relaxed);
        self.pool.used.store(true, Ordering::Relaxed);
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        if self.reused && !self.answered.load(Ordering::Relaxed) {
            self.connections.replace(&self.pool);
        }
    }
}

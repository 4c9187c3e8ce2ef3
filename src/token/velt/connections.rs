//! The connections to Velt, thrown away as a whole when one of them turns out to be dead.
//!
//! What ends one idle connection in silence (a load balancer, a NAT table, a node that went away)
//! has as a rule ended all of them. reqwest would hand out the next dead one for each retry.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use reqwest::Client;
use tracing::warn;

use crate::logging::Chain;
use crate::outgoing::{Recipe, TlsError};
use crate::token::Stage;

/// All connections to Velt.
pub(super) struct Connections {
    recipe: Recipe,
    pool: ArcSwap<Pool>,
}

/// A client and its connections.
struct Pool {
    client: Client,
    /// Whether an answer has come over one of them, so that one may lie idle.
    used: AtomicBool,
}

impl Pool {
    fn of(client: Client) -> Self {
        Self { client, used: AtomicBool::new(false) }
    }
}

impl Connections {
    /// None open.
    pub(super) fn new(recipe: Recipe) -> Result<Self, TlsError> {
        let pool = ArcSwap::from_pointee(Pool::of(recipe.client()?));
        Ok(Self { recipe, pool })
    }

    /// A connection for one call, which must say when its answer has begun.
    pub(super) fn lend(&self) -> Lent<'_> {
        let pool = self.pool.load_full();
        let reused = pool.used.load(Ordering::Relaxed);
        Lent { connections: self, pool, reused, answered: false.into() }
    }

    /// Has all later calls open connections of their own, unless `dead` has been replaced already.
    fn replace(&self, dead: &Arc<Pool>) {
        match self.recipe.client() {
            Ok(client) => {
                self.pool.compare_and_swap(dead, Arc::new(Pool::of(client)));
            }
            // The next failure tries again.
            Err(error) => warn!(error = %Chain(&error), "no new connections to Velt can be set up"),
        }
    }
}

/// The use of a connection for one call. Dropped before an answer has begun, by an error or by a
/// time limit, it takes all idle connections with it.
pub(super) struct Lent<'a> {
    connections: &'a Connections,
    pool: Arc<Pool>,
    reused: bool,
    answered: AtomicBool,
}

impl Lent<'_> {
    /// The client to call with.
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

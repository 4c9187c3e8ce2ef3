//! How much memory connections may take: small buffers when many requests are under way, a budget below
//! the container's limit, and memory given back to the system when a load has gone.
//!
//! The kernel ends a process that passes its container's limit, and the app has no other door. So a
//! thread (`watch`) measures what the process takes (`meter`) against the limit (`limit`). Near it, new
//! connections wait, then are refused, and those which hold most without moving are ended.

mod limit;
mod meter;
mod thrifty;
mod watch;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

pub use self::thrifty::Thrifty;
pub use self::watch::Watch;
pub use crate::metrics::MemoryMetrics;

/// Connections to the app up to which every connection reads as much at once as there is. A stalled one
/// then holds up to 400 KiB; with more of them it holds two reads of 8 KiB.
const ROOMY_EXCHANGES: usize = 72;

/// The same for what clients send: an upload that the app does not read holds up to 350 KiB then.
const ROOMY_UPLOADS: usize = 16;

/// How long a new connection waits for memory before it is refused, and how often it asks.
const PATIENCE: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(5);

/// Entries of ended connections that are kept until the next look at all of them.
const MOST_GONE: usize = 1024;

/// `runtime.memory_limit`: what the process may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// The control group's, if it has one.
    Auto,
    Off,
    Bytes(u64),
}

impl Limit {
    /// The limit in bytes, `None` if there is none.
    pub fn bytes(self) -> Option<u64> {
        match self {
            Self::Auto => limit::of_control_groups("/".as_ref()),
            Self::Off => None,
            Self::Bytes(bytes) => Some(bytes),
        }
    }
}

/// A connection that takes memory.
pub trait Holder: Send + Sync {
    /// An estimate of the bytes that are held by what has not moved since the last [`Holder::mark`].
    fn holds(&self) -> u64;

    /// Begins to watch anew what moves.
    fn mark(&self);

    /// Ends the connection, for the memory that it takes. `false` if it was ended before.
    fn end(&self) -> bool;
}

/// Memory that all connections of a process share. Its clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Memory(Arc<State>);

#[derive(Default)]
struct State {
    /// Connections to the app that are open: each carries a request, or did so a few seconds ago.
    exchanges: AtomicUsize,
    /// Connections to the app that have been closed.
    closed: AtomicUsize,
    /// More than half of the limit is taken.
    wary: AtomicBool,
    /// What `is_short` says.
    short: AtomicBool,
    /// What `is_short_for_uploads` says.
    short_for_uploads: AtomicBool,
    /// Since when there has been no room, if there is none.
    full: Mutex<Option<Instant>>,
    holders: Mutex<Holders>,
}

/// Connections, some of which have ended since.
#[derive(Default)]
struct Holders {
    all: Vec<Weak<dyn Holder>>,
    /// How many were open at the last look at all.
    open: usize,
    /// How many had ended by the looks so far.
    gone: usize,
}

impl std::fmt::Debug for State {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("State").field("exchanges", &self.exchanges).finish_non_exhaustive()
    }
}

impl Memory {
    /// Whether to read little at once, since any of many requests may come to stand still.
    pub fn is_short(&self) -> bool {
        self.0.short.load(Ordering::Relaxed)
    }

    /// The same for what is read of clients.
    pub fn is_short_for_uploads(&self) -> bool {
        self.0.short_for_uploads.load(Ordering::Relaxed)
    }

    /// Whether so much is taken that it matters which connection takes it.
    pub fn is_wary(&self) -> bool {
        self.0.wary.load(Ordering::Relaxed)
    }

    /// Counts a connection to the app until the guard is dropped.
    pub fn count_exchange(&self) -> Exchange {
        self.0.exchanges.fetch_add(1, Ordering::Relaxed);
        self.0.judge();
        Exchange(Arc::clone(&self.0))
    }

    /// Takes a connection into account for as long as it lives.
    pub fn register(&self, holder: Weak<dyn Holder>) {
        let mut holders = self.0.holders();
        if holders.all.len() > 2 * holders.open + MOST_GONE {
            holders.forget_gone();
        }
        holders.all.push(holder);
    }

    /// Waits until there is room for a new connection. `false` if there has been none for [`PATIENCE`].
    pub async fn has_room(&self) -> bool {
        loop {
            let full = *self.0.full();
            let Some(since) = full else { return true };
            if since.elapsed() >= PATIENCE {
                return false;
            }
            sleep_until(Instant::now() + LOOK).await;
        }
    }
}

impl State {
    fn judge(&self) {
        let (exchanges, wary) =
            (self.exchanges.load(Ordering::Relaxed), self.wary.load(Ordering::Relaxed));
        self.short.store(wary || exchanges > ROOMY_EXCHANGES, Ordering::Relaxed);
        self.short_for_uploads.store(wary || exchanges > ROOMY_UPLOADS, Ordering::Relaxed);
    }

    fn full(&self) -> MutexGuard<'_, Option<Instant>> {
        self.full.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn holders(&self) -> MutexGuard<'_, Holders> {
        self.holders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every connection that is open.
    fn open(&self) -> Vec<Arc<dyn Holder>> {
        let mut holders = self.holders();
        holders.forget_gone();
        holders.all.iter().filter_map(Weak::upgrade).collect()
    }

    /// How many connections have ended so far, the clients' and the app's.
    fn gone(&self) -> usize {
        let mut holders = self.holders();
        holders.forget_gone();
        holders.gone + self.closed.load(Ordering::Relaxed)
    }
}

impl Holders {
    fn forget_gone(&mut self) {
        let before = self.all.len();
        self.all.retain(|holder| holder.strong_count() > 0);
        self.open = self.all.len();
        self.gone += before - self.open;
        self.all.shrink_to(2 * self.open + MOST_GONE);
    }
}

/// A connection to the app that is counted.
pub struct Exchange(Arc<State>);

impl Drop for Exchange {
    fn drop(&mut self) {
        self.0.exchanges.fetch_sub(1, Ordering::Relaxed);
        self.0.closed.fetch_add(1, Ordering::Relaxed);
        self.0.judge();
    }
}

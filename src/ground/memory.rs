//! Memory that connections may take: small buffers when many requests are under way, a budget below the
//! container's limit, and free memory given back to the system after a load.
//!
//! The kernel ends a process that passes its container's limit, and then the app is unreachable. So a
//! thread (`watch`) measures the memory of the process (`meter`) against the limit (`limit`). Near the
//! limit, new connections wait and are then refused, and the connections that hold most without moving
//! are ended. Just below the limit, clients are not read for a moment (`pause`), so that memory is freed
//! sooner than it is taken.

mod limit;
mod meter;
mod pause;
mod thrifty;
mod watch;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use self::pause::Pause;
pub use self::pause::Paused;
pub use self::thrifty::{Demand, Thrift, Thrifty};
pub use self::watch::Watch;
pub use crate::metrics::MemoryMetrics;

/// Open connections to the app up to which each connection reads as much at once as has arrived. With more
/// connections, each reads at most 8 KiB at once, and only when its reader wants more, so that a stalled
/// download holds one such read.
const ROOMY_EXCHANGES: usize = 64;

/// Open connections to the app up to which the sidecar reads as much at once as a client has sent. With more
/// connections, the sidecar reads at most 8 KiB at once.
const ROOMY_UPLOADS: usize = 16;

/// Longest rest of a response, in bytes, that is read ahead while memory is not short. A longer rest is
/// always read on demand.
const MUCH: u64 = 256 * 1024;

/// Time that a new connection waits for memory before it is refused, and the pause between two looks.
const PATIENCE: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(5);

/// Entries of ended connections that may be kept before the list is cleaned.
const MOST_GONE: usize = 1024;

/// `runtime.memory_limit`: memory that the process may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Limit of the control group, if it has one.
    Auto,
    Off,
    Bytes(u64),
}

impl Limit {
    /// Returns the limit in bytes, `None` if there is none.
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
    /// Estimates the bytes held by requests that have not moved since the last [`Holder::mark`].
    fn holds(&self) -> u64;

    /// Forgets which requests have moved so far.
    fn mark(&self);

    /// Ends the connection because of the memory that it holds. `false` if it was ended before.
    fn end(&self) -> bool;
}

/// Memory that all connections of a process share. Clones share one state.
#[derive(Clone, Debug, Default)]
pub struct Memory(Arc<State>);

#[derive(Default)]
struct State {
    /// Connections to the app that are open: each carries a request, or did so a few seconds ago.
    exchanges: AtomicUsize,
    /// Connections to the app that have been closed.
    closed: AtomicUsize,
    /// Whether more than half of the limit is taken.
    wary: AtomicBool,
    /// Result of [`Memory::is_short`].
    short: AtomicBool,
    /// Result of [`Memory::is_short_for_uploads`].
    short_for_uploads: AtomicBool,
    /// Time since which there has been no room; `None` while there is room.
    full: Mutex<Option<Instant>>,
    pause: Pause,
    holders: Mutex<Holders>,
}

/// Clients' connections, some of which have ended.
#[derive(Default)]
struct Holders {
    all: Vec<Weak<dyn Holder>>,
    /// Number of connections that were open when the list was last cleaned.
    open: usize,
    /// Number of connections that had ended when the list was last cleaned.
    gone: usize,
}

impl std::fmt::Debug for State {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("State").field("exchanges", &self.exchanges).finish_non_exhaustive()
    }
}

impl Memory {
    /// Whether to read little at once from the app, since any of many requests may come to stand still.
    pub fn is_short(&self) -> bool {
        self.0.short.load(Ordering::Relaxed)
    }

    /// Whether to read little at once from clients.
    pub fn is_short_for_uploads(&self) -> bool {
        self.0.short_for_uploads.load(Ordering::Relaxed)
    }

    /// Whether to hold one read at most of a response of which at least `to_come` bytes are to come.
    pub fn is_spared(&self, to_come: u64) -> bool {
        to_come > MUCH || self.is_short()
    }

    /// Whether more than half of the limit is taken, so that the largest holders must be known.
    pub fn is_wary(&self) -> bool {
        self.0.wary.load(Ordering::Relaxed)
    }

    /// Waits while memory is so nearly used up that clients are not read.
    pub fn poll_may_read(&self, context: &mut Context<'_>) -> Poll<()> {
        self.0.pause.poll_over(context)
    }

    /// Counts a connection to the app until the guard is dropped.
    pub fn count_exchange(&self) -> Exchange {
        self.0.exchanges.fetch_add(1, Ordering::Relaxed);
        self.0.update_shortage();
        Exchange(Arc::clone(&self.0))
    }

    /// Enters a connection in the list, for as long as it lives.
    pub fn register(&self, holder: Weak<dyn Holder>) {
        let mut holders = self.0.holders();
        if holders.all.len() > 2 * holders.open + MOST_GONE {
            holders.forget_gone();
        }
        holders.all.push(holder);
    }

    /// Waits until there is room for a new connection. `false` if there has been none for `PATIENCE`.
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
    fn update_shortage(&self) {
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

    /// Returns every connection that is open.
    fn open(&self) -> Vec<Arc<dyn Holder>> {
        let mut holders = self.holders();
        holders.forget_gone();
        holders.all.iter().filter_map(Weak::upgrade).collect()
    }

    /// Returns the number of connections, of clients and to the app, that have ended so far.
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

/// Guard that counts a connection to the app, or a request on an HTTP/2 connection.
pub struct Exchange(Arc<State>);

impl Drop for Exchange {
    fn drop(&mut self) {
        self.0.exchanges.fetch_sub(1, Ordering::Relaxed);
        self.0.closed.fetch_add(1, Ordering::Relaxed);
        self.0.update_shortage();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn response_is_spared_if_much_is_to_come_or_memory_is_short() {
        let memory = Memory::default();
        assert!(!memory.is_spared(0) && !memory.is_spared(256 * 1024));
        assert!(memory.is_spared(256 * 1024 + 1));
        let _held: Vec<_> = (0..=ROOMY_EXCHANGES).map(|_| memory.count_exchange()).collect();
        assert!(memory.is_spared(0));
    }
}

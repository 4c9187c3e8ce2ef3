//! Threads that serve requests, each with a runtime of its own.
//!
//! A connection, its requests and its connections to the app stay on one thread, so that no thread has to
//! wake another thread or wait for its locks. Two threads cost 26 % less CPU per request than under a
//! scheduler that moves tasks between threads (docs/decisions/03-one-runtime-per-thread.md).

use std::io;
use std::thread;

use tokio::runtime::{Builder, Handle};
use tokio::sync::watch;

/// Runtimes of one thread each. Dropping `Threads` ends all runtimes but the first, with all that they still
/// serve.
pub(super) struct Threads {
    runtimes: Vec<Handle>,
    _running: watch::Sender<()>,
}

impl Threads {
    /// Starts `count` runtimes, of which the first is the caller's own.
    ///
    /// # Errors
    ///
    /// The system's error if no thread or no descriptor is left.
    pub(super) fn start(count: usize) -> io::Result<Self> {
        let (running, ended) = watch::channel(());
        let mut runtimes = vec![Handle::current()];
        for number in 1..count {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            runtimes.push(runtime.handle().clone());
            let mut ended = ended.clone();
            thread::Builder::new().name(format!("velt-worker-{number}")).spawn(move || {
                // Nothing is ever sent: an error says that the sender is gone.
                runtime.block_on(ended.changed()).unwrap_or_default();
            })?;
        }
        Ok(Self { runtimes, _running: running })
    }

    /// Returns the runtimes to serve on, at least one.
    pub(super) fn runtimes(&self) -> &[Handle] {
        &self.runtimes
    }
}

//! The threads that serve, each with a runtime of its own.
//!
//! Nothing moves between them: a connection, its requests and its connections to the app stay with one,
//! so that no thread has to wake another, nor waits for its locks. Under a scheduler that shares tasks
//! out, two threads cost a quarter more CPU per request (docs/performance.md).

use std::io;
use std::thread;

use tokio::runtime::{Builder, Handle};
use tokio::sync::watch;

/// Runtimes of one thread each. Dropping this ends all but the first, and whatever they still serve.
pub(super) struct Threads {
    runtimes: Vec<Handle>,
    _running: watch::Sender<()>,
}

impl Threads {
    /// `count` of them, the caller's own included, which is the first.
    ///
    /// # Errors
    ///
    /// The system's, which has no thread or no descriptor left.
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

    /// The runtimes to serve on, one at least.
    pub(super) fn runtimes(&self) -> &[Handle] {
        &self.runtimes
    }
}

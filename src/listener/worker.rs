//! Which thread serves which connection: each stays with one from its first byte to its last.

use std::io;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio::runtime::Handle;

/// A thread that serves: its runtime, and what answers the requests there.
pub struct Worker<H> {
    runtime: Handle,
    handler: H,
    /// Each of its connections has a copy.
    open: Arc<()>,
}

impl<H: Clone> Worker<H> {
    /// Serves connections on `runtime`, which has one thread, by `handler`.
    pub fn new(runtime: Handle, handler: H) -> Self {
        Self { runtime, handler, open: Arc::default() }
    }

    /// The caller's own runtime.
    pub fn here(handler: H) -> Self {
        Self::new(Handle::current(), handler)
    }

    fn connections(&self) -> usize {
        Arc::strong_count(&self.open)
    }

    /// Has `serve` serve a connection that was accepted here.
    ///
    /// # Errors
    ///
    /// The system's: the connection can't be taken from this runtime.
    pub(super) fn take<F>(
        &self,
        stream: TcpStream,
        serve: impl FnOnce(TcpStream, H) -> F + Send + 'static,
    ) -> io::Result<()>
    where
        H: Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let (handler, open) = (self.handler.clone(), Arc::clone(&self.open));
        if self.runtime.id() == Handle::current().id() {
            let serving = serve(stream, handler);
            tokio::spawn(async move {
                serving.await;
                drop(open);
            });
            return Ok(());
        }
        // A socket is watched by the runtime that it was registered with.
        let stream = stream.into_std()?;
        self.runtime.spawn(async move {
            // An error leaves nothing to serve: the system has no room to watch one more.
            if let Ok(stream) = TcpStream::from_std(stream) {
                serve(stream, handler).await;
            }
            drop(open);
        });
        Ok(())
    }
}

/// The one with the fewest connections, and of equals the first: that of the thread which accepts, so
/// that a single connection is not handed over.
pub(super) fn least_busy<H: Clone>(workers: &[Worker<H>]) -> &Worker<H> {
    workers.iter().min_by_key(|worker| worker.connections()).expect("there is one")
}

//! Threads that serve connections: each connection stays with one thread from its first byte to its last.

use std::io;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use tracing::warn;

/// A thread that serves: its runtime, and the handler that answers the requests there.
pub struct Worker<H> {
    runtime: Handle,
    handler: H,
    /// Each connection of the worker has a copy, so that the copies count the connections.
    seat: Seat,
}

/// Counts a connection as one of its worker's, until dropped.
#[derive(Clone, Debug, Default)]
pub struct Seat {
    taken: Arc<()>,
}

impl<H: Clone> Worker<H> {
    /// Serves connections on `runtime`, which has one thread, by `handler`.
    pub fn new(runtime: Handle, handler: H) -> Self {
        Self { runtime, handler, seat: Seat::default() }
    }

    /// Makes a worker on the caller's own runtime.
    pub fn here(handler: H) -> Self {
        Self::new(Handle::current(), handler)
    }

    fn connections(&self) -> usize {
        Arc::strong_count(&self.seat.taken)
    }

    /// Has `serve` serve a connection that was accepted on this thread. Returns the handle that ends
    /// its task.
    ///
    /// # Errors
    ///
    /// The system's error if the connection can't be taken from this runtime.
    pub(super) fn take<F>(
        &self,
        stream: TcpStream,
        serve: impl FnOnce(TcpStream, H, Seat) -> F + Send + 'static,
    ) -> io::Result<AbortHandle>
    where
        H: Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let (handler, seat) = (self.handler.clone(), self.seat.clone());
        if self.runtime.id() == Handle::current().id() {
            return Ok(tokio::spawn(serve(stream, handler, seat)).abort_handle());
        }
        // A socket is watched by the runtime that it was registered with.
        let stream = stream.into_std()?;
        let serving = self.runtime.spawn(async move {
            match TcpStream::from_std(stream) {
                Ok(stream) => serve(stream, handler, seat).await,
                Err(error) => warn!(%error, "a connection is closed: the system can't watch it"),
            }
        });
        Ok(serving.abort_handle())
    }
}

/// Returns the worker with the fewest connections, and among equals the first. The first worker's thread
/// accepts, so a single connection is not handed over.
pub(super) fn least_busy<H: Clone>(workers: &[Worker<H>]) -> &Worker<H> {
    workers.iter().min_by_key(|worker| worker.connections()).expect("there is one")
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;
    use tokio::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn place_is_taken_until_its_socket_is_closed() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let workers = [Worker::here(0), Worker::here(1)];
        let (seats, mut taken) = mpsc::unbounded_channel();
        let mut served = async || {
            let stream = TcpStream::connect(address).await.expect("it listens");
            let seats = seats.clone();
            // A request that becomes a tunnel: served at once, and the rest goes on elsewhere.
            let serve = |_, number: usize, seat| async move {
                seats.send((number, seat)).expect("a receiver waits");
            };
            least_busy(&workers).take(stream, serve).expect("the same runtime");
            taken.recv().await.expect("it is served")
        };
        let tunnels = [served().await, served().await, served().await];
        assert_eq!(tunnels.each_ref().map(|(number, _)| *number), [0, 1, 0]);
        let [(_, first), (_, second), _third] = tunnels;
        drop(second);
        assert_eq!(served().await.0, 1);
        drop(first);
        assert_eq!(served().await.0, 1, "one to none");
    }
}

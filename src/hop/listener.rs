//! The way from a socket to requests: accept, cap, tell HTTP/1.1 from HTTP/2, drain.
//!
//! The listener serves any handler of requests.

mod connection_state;
mod connection;
mod descriptors;
mod handshake;
mod lingering;
mod preface;
mod room;
mod stream;
mod turn;
mod worker;

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{Request, Response};
use http_body::Body;
use http_body_util::BodyExt as _;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use prometheus::IntCounter;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::yield_now;
use tokio::time::sleep;
use tracing::{debug, info, warn};

use self::connection::Connection;
use self::connection_state::Held;
pub use self::connection_state::{Limits, SHORT_IDLE};
pub use self::descriptors::{RESERVED_DESCRIPTORS, raise_descriptor_limit};
use self::descriptors::{beyond_limit, is_exhausted};
use self::handshake::Handshakes;
use self::room::Room;
pub use self::worker::Worker;
use self::worker::{Seat, least_busy};
use ground::client_connection::ClientConnection;
use ground::memory::Memory;
use ground::metrics::ListenerMetrics;
use ground::peer::Peer;
use ground::platform::drop_connection_requests;
use ground::tcp;
use ground::tls::ServerTls;

/// Pause after a failed accept. Running out of descriptors lasts; spinning would not help.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);

/// Time that the listener waits for TCP handshakes that have begun when it stops.
const LAST_HANDSHAKES: Duration = Duration::from_millis(100);

/// Descriptors that belong to no client and no app connection: standard streams, listeners, the runtime's
/// own, connections to Velt.
const SPARE_DESCRIPTORS: u64 = 64;

/// Descriptors of each further thread that serves: its runtime's own (tokio: two for epoll, one to be woken
/// by, one for signals).
const DESCRIPTORS_OF_A_THREAD: u64 = 4;

/// Returns the number of descriptors that `threads` serving threads keep from connections.
pub fn spare_descriptors(threads: usize) -> u64 {
    let more = u64::try_from(threads.saturating_sub(1)).unwrap_or(u64::MAX);
    SPARE_DESCRIPTORS.saturating_add(more.saturating_mul(DESCRIPTORS_OF_A_THREAD))
}

/// Binds `address` as a listener would, and frees the address again. Does not listen, so that a sidecar that
/// starts at the same moment is not disturbed.
///
/// # Errors
///
/// The system's error if the address can't be bound.
pub fn claim(address: SocketAddr) -> io::Result<()> {
    tcp::bind(address).map(drop)
}

/// Settings of a listener.
#[derive(Clone, Debug)]
pub struct Settings {
    pub address: SocketAddr,
    pub max_connections: usize,
    pub limits: Limits,
    /// Longest head of a request, in bytes; over HTTP/2 each field counts 32 bytes more (RFC 9113 section
    /// 6.5.2).
    pub max_header_bytes: u32,
    /// Header lines of one request.
    pub max_headers: usize,
    /// Concurrent requests on one HTTP/2 connection.
    pub http2_max_streams: u32,
    /// Streams that a client has reset before they were taken up (CVE-2023-44487).
    pub http2_max_pending_resets: usize,
    /// Streams of one connection that had to be reset for what the client sent on them.
    pub http2_max_error_resets: usize,
    /// Memory that connections of clients share with connections to the app.
    pub memory: Memory,
}

impl Settings {
    /// Returns settings for a listener that is not the product's own.
    pub fn at(address: SocketAddr) -> Self {
        Self {
            address,
            max_connections: 10_000,
            limits: Limits {
                first_byte: SHORT_IDLE,
                idle: SHORT_IDLE,
                head: Duration::from_secs(10),
                stalled: Duration::from_secs(60),
            },
            max_header_bytes: 64 * 1024,
            max_headers: 100,
            http2_max_streams: 200,
            http2_max_pending_resets: 20,
            http2_max_error_resets: 1024,
            memory: Memory::default(),
        }
    }

    /// Lowers `max_connections` to the number that `limit` file descriptors serve, when `spare` of them have
    /// other uses. Each connection needs two: without a descriptor for the app, a request would be accepted
    /// only to be answered 502.
    #[must_use]
    pub fn within_descriptors(mut self, limit: u64, spare: u64) -> Self {
        let fitting = usize::try_from(limit.saturating_sub(spare) / 2);
        let fitting = fitting.unwrap_or(usize::MAX).max(1);
        if fitting < self.max_connections {
            warn!(
                limit,
                "the system allows too few open files for listen.max_connections = {}: taking \
                 {fitting}; raise the limit (ulimit -n) to two for each and {}, \
                 or lower the setting",
                self.max_connections,
                spare + RESERVED_DESCRIPTORS,
            );
            self.max_connections = fitting;
        }
        self
    }
}

type Answer = Response<UnsyncBoxBody<Bytes, Box<dyn Error + Send + Sync>>>;
type Answering = Pin<Box<dyn Future<Output = Answer> + Send>>;
type Handler = dyn Fn(&Peer, &Arc<ClientConnection>, Request<Incoming>) -> Answering + Send + Sync;

/// Phase in the life of a listener. Phases only ever go forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    Serving,
    /// The listener still accepts, but asks each client that it answers to come back on another connection.
    /// So no connection is kept alive into the end: closing a connection while its client sends the next
    /// request would fail that request.
    Leaving,
    /// The listener no longer accepts; connections finish the requests they have.
    Stopped,
}

/// A bound socket that does not serve yet.
pub struct Listener {
    socket: TcpListener,
    settings: Settings,
    handshakes: Option<Handshakes>,
    /// `None` refuses connections beyond `max_connections`.
    room: Option<Arc<Room>>,
    metrics: ListenerMetrics,
}

impl Listener {
    /// Binds, so that a port in use is found before anything is served.
    ///
    /// # Errors
    ///
    /// The system's error.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime, which watches the socket.
    pub fn bind(settings: Settings, metrics: ListenerMetrics) -> io::Result<Self> {
        let socket = tcp::listen(settings.address)?;
        let bound = socket.local_addr()?;
        if bound.is_ipv4() != settings.address.is_ipv4() {
            info!(asked = %settings.address, %bound, "this system has no IPv6; listening by IPv4 alone");
        }
        Ok(Self { socket, settings, handshakes: None, room: None, metrics })
    }

    /// Makes the listener speak TLS, and nothing else.
    #[must_use]
    pub fn with_tls(mut self, tls: Arc<ServerTls>) -> Self {
        self.handshakes = Some(Handshakes::new(tls, self.metrics.clone()));
        self
    }

    /// Refuses no connection. At `max_connections`, at `per_peer` connections of one address, or
    /// without a file descriptor, the listener closes the connection that has been idle longest to take
    /// the new one, and counts it in `evicted`. For [`Self::serve`] only.
    #[must_use]
    pub fn evicting(mut self, per_peer: usize, evicted: IntCounter) -> Self {
        self.room = Some(Room::new(self.settings.max_connections, per_peer, evicted));
        self
    }

    /// The address bound, with the real port if the settings asked for port 0.
    ///
    /// # Errors
    ///
    /// The system's error.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Serves on the caller's runtime until the phase is [`Phase::Stopped`], then lets every connection
    /// finish its requests.
    ///
    /// Serves every port but the product's traffic, and is therefore compiled once for all handlers. A copy
    /// for each kind of handler would repeat all of HTTP in the binary, and again over TLS. The copies would
    /// lie between the code that a sidecar calls, and an idle sidecar would have them in memory.
    pub async fn serve<H, F, B>(self, handler: H, phase: watch::Receiver<Phase>)
    where
        H: Fn(&Peer, &Arc<ClientConnection>, Request<Incoming>) -> F + Send + Sync + 'static,
        F: Future<Output = Response<B>> + Send + 'static,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let boxed = move |peer: &Peer, connection: &Arc<ClientConnection>, request| -> Answering {
            let answer = handler(peer, connection, request);
            Box::pin(
                async move { answer.await.map(|body| body.map_err(Into::into).boxed_unsync()) },
            )
        };
        self.serve_boxed(Arc::new(boxed), phase).await;
    }

    async fn serve_boxed(self, handler: Arc<Handler>, phase: watch::Receiver<Phase>) {
        let handler = match &self.room {
            Some(room) => room.watched(handler),
            None => handler,
        };
        let handler =
            move |peer: &Peer, connection: &_, request| handler(peer, connection, request);
        self.serve_by(vec![Worker::here(handler)], phase).await;
    }

    /// Serves like [`Self::serve`], but by `workers` and for one kind of handler. Each connection keeps its
    /// worker to its end.
    pub async fn serve_by<H, F, B>(self, workers: Vec<Worker<H>>, phase: watch::Receiver<Phase>)
    where
        H: Fn(&Peer, &Arc<ClientConnection>, Request<Incoming>) -> F
            + Clone
            + Send
            + Sync
            + 'static,
        F: Future<Output = Response<B>> + Send + 'static,
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        // Each connection holds a receiver; when no receiver is left, all connections have ended.
        let open = watch::Sender::new(());
        // An evicted connection keeps its slot until its task has ended.
        let evictions = self.room.as_ref().map_or(0, |_| self.settings.max_connections);
        let slots = Arc::new(Semaphore::new(self.settings.max_connections + evictions));
        let spawn = |(stream, peer)| {
            let peer = tcp::canonical(peer);
            let place = self.room.as_ref().map(|room| Box::new(room.enter(peer)));
            let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else {
                self.metrics.refused.inc();
                return;
            };
            let (settings, phase) = (self.settings.clone(), phase.clone());
            let (handshakes, metrics) = (self.handshakes.clone(), self.metrics.clone());
            let serving = (open.subscribe(), place);
            let taken =
                least_busy(&workers).take(stream, move |stream, handler, seat| async move {
                    let held = Held::new(slot, seat, &metrics.connections);
                    let connection =
                        Connection { stream, peer, held, settings, handshakes, metrics };
                    connection.serve(handler, phase).await;
                    drop(serving);
                });
            match (taken, &self.room) {
                (Ok(task), Some(room)) => room.set_task(peer, task),
                (Ok(_), None) => {}
                (Err(error), _) => {
                    self.metrics.accept_errors.inc();
                    warn!(%error, "a connection can't be handed to the thread that would serve it");
                }
            }
        };
        let mut stopped = phase.clone();
        loop {
            tokio::select! {
                accepted = self.accept() => {
                    spawn(accepted);
                    if self.room.is_some() {
                        // Answers a request that has already arrived before later connections can evict
                        // its connection.
                        yield_now().await;
                    }
                }
                () = stopped_in(&mut stopped) => break,
            }
        }
        // No new clients from here on, but clients that have begun to connect are served.
        refuse_new_connections(&self.socket);
        let mut handshakes = pin!(sleep(LAST_HANDSHAKES));
        loop {
            tokio::select! {
                accepted = self.accept() => spawn(accepted),
                () = &mut handshakes => break,
            }
        }
        drop_after_queue(self.socket, spawn);
        open.closed().await;
    }

    /// Answers 503 for want of memory, if the socket takes the answer at once.
    fn turn_away(&self, stream: &TcpStream) {
        self.metrics.refused_for_memory.inc();
        if self.handshakes.is_none() {
            // Bytes left unread would make the kernel reset the connection, and the client would lose
            // the answer.
            let _ = stream.try_read(&mut [0; 4096]);
            let _ = stream.try_write(NO_MEMORY);
        }
    }

    /// Accepts the next connection for which there is memory. Errors are counted and waited out, so that the
    /// listener outlives them.
    async fn accept(&self) -> (TcpStream, SocketAddr) {
        let mut failures = 0_u64;
        loop {
            let accepted = match (self.socket.accept().await, &self.room) {
                (Err(error), Some(room)) if is_exhausted(&error) => {
                    self.accept_from_reserve(room).await.unwrap_or(Err(error))
                }
                (accepted, _) => accepted,
            };
            match accepted {
                Ok(accepted) => {
                    if failures > 0 {
                        info!(failures, "accepting connections again");
                        failures = 0;
                    }
                    if self.settings.memory.has_room().await {
                        return accepted;
                    }
                    self.turn_away(&accepted.0);
                }
                Err(error) => {
                    self.metrics.accept_errors.inc();
                    // A client that left while queued says nothing about the sidecar.
                    if error.kind() != io::ErrorKind::ConnectionAborted {
                        // One warning for each series of failures: there may be twenty failures a second.
                        if failures == 0 {
                            warn!(%error, "can't accept connections; trying again until it works");
                        }
                        failures += 1;
                        sleep(ACCEPT_BACKOFF).await;
                    }
                }
            }
        }
    }

    /// Accepts with a descriptor of the reserve. If none is left there, closes an idle connection and
    /// takes its descriptor. `None` if neither yields a connection.
    async fn accept_from_reserve(
        &self,
        room: &Room,
    ) -> Option<io::Result<(TcpStream, SocketAddr)>> {
        loop {
            match beyond_limit(|| self.socket.accept().now_or_never()) {
                Some(Err(error)) if is_exhausted(&error) && room.evict_one() => {
                    // The evicted connection's task closes its socket.
                    yield_now().await;
                }
                accepted => return accepted,
            }
        }
    }
}

/// Answer to a client for whose connection there is no memory.
const NO_MEMORY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\n\
    Content-Length: 0\r\nConnection: close\r\n\r\n";

/// Serves the clients in the queue before the socket closes: they have connected already, and would be reset.
fn drop_after_queue(socket: TcpListener, spawn: impl Fn((TcpStream, SocketAddr))) {
    // A std socket, because tokio only looks when it has been told of a new connection.
    let Ok(socket) = socket.into_std() else { return };
    while let Ok((stream, peer)) = socket.accept() {
        let stream = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream));
        if let Ok(stream) = stream {
            spawn((stream, peer));
        }
    }
}

/// Has the kernel drop every SYN from here on, so that a client that connects asks again, and is refused once
/// the socket is gone. Best effort: without the filter, closing the socket resets
/// each client that connects at that moment.
fn refuse_new_connections(socket: &TcpListener) {
    if let Err(error) = drop_connection_requests(&SockRef::from(socket)) {
        debug!(%error, "new connections can't be kept out while the listener closes");
    }
}

/// Resolves when the phase is [`Phase::Stopped`], or when the sender of the phase is gone.
async fn stopped_in(phase: &mut watch::Receiver<Phase>) {
    let _ = phase.wait_for(|phase| *phase == Phase::Stopped).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_leave_fewer_descriptors_to_connections() {
        let fitting = |limit, threads| {
            let settings = Settings::at(([127, 0, 0, 1], 0).into());
            settings.within_descriptors(limit, spare_descriptors(threads)).max_connections
        };
        assert_eq!(fitting(200, 1), 68);
        assert_eq!(fitting(200, 2), 66);
        assert_eq!(fitting(200, 17), 36);
        assert_eq!(fitting(100, 64), 1, "one at least");
        assert_eq!(fitting(1_000_000, 64), 10_000, "as set");
    }
}

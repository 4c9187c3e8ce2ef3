//! From a socket to requests: accept, cap, tell HTTP/1.1 from HTTP/2, drain.
//!
//! Serves any handler; knows nothing of what a request is for.

mod activity;

use std::convert::Infallible;
use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use http::header::CONNECTION;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

pub use self::activity::Limits;
use self::activity::{Activity, Attended, Watched};
use crate::metrics::{CloseReason, GaugeGuard, ListenerMetrics, Protocol};
use crate::tcp;

/// Read buffer of one HTTP/1.1 connection beyond the longest head. It grows only as far as a peer
/// makes it; hyper's own limit of 400 KiB is too much for 10,000 connections.
const HTTP1_BUFFER: usize = 64 * 1024;

/// Response bytes buffered per HTTP/2 stream.
const HTTP2_SEND_BUFFER: usize = 64 * 1024;

/// HTTP/2 has no other way to notice a dead peer.
const HTTP2_PING_INTERVAL: Duration = Duration::from_secs(30);
const HTTP2_PING_PATIENCE: Duration = Duration::from_secs(10);

/// Pause after a failed accept. Running out of descriptors lasts; spinning would not help.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);

/// How long a connection without a request is kept when the listener stops: for one that its
/// client has sent already.
const LAST_WORDS: Duration = Duration::from_millis(250);

/// How long the listener waits for handshakes that have begun when it stops.
const HANDSHAKES: Duration = Duration::from_millis(100);

/// Pause between looks at a connection preface that comes in pieces of one or two bytes.
const PREFACE_PAUSE: Duration = Duration::from_millis(5);

/// The first bytes of the HTTP/2 preface (RFC 9113 section 3.4); no HTTP/1.1 method begins so.
const HTTP2_PREFACE: &[u8; 4] = b"PRI ";

/// Where to listen, and how patiently.
#[derive(Clone, Debug)]
pub struct Settings {
    pub address: SocketAddr,
    pub max_connections: usize,
    pub limits: Limits,
    /// The longest head of a request, in bytes.
    pub max_header_bytes: u32,
    /// Concurrent requests on one HTTP/2 connection.
    pub http2_max_streams: u32,
}

impl Settings {
    /// What does for a listener that is not the product's own.
    pub fn at(address: SocketAddr) -> Self {
        Self {
            address,
            max_connections: 10_000,
            limits: Limits {
                idle: Duration::from_secs(75),
                head: Duration::from_secs(10),
                stalled: Duration::from_secs(60),
            },
            max_header_bytes: 64 * 1024,
            http2_max_streams: 200,
        }
    }
}

/// Where a listener is in its life. It only ever goes forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    Serving,
    /// Still accepting, but answers over HTTP/1.1 ask the client to come back on another
    /// connection, so that none is kept alive into the end: closing one while its client sends
    /// the next request would fail that request.
    Leaving,
    /// No longer accepting; connections finish the requests they have.
    Stopped,
}

/// A bound socket that does not serve yet.
pub struct Listener {
    socket: TcpListener,
    settings: Settings,
    metrics: ListenerMetrics,
}

impl Listener {
    /// Binds, so that a port in use is found before anything is served.
    ///
    /// # Errors
    ///
    /// The system's.
    pub async fn bind(settings: Settings, metrics: ListenerMetrics) -> io::Result<Self> {
        let socket = TcpListener::bind(settings.address).await?;
        Ok(Self { socket, settings, metrics })
    }

    /// The address bound, with the real port if the settings asked for port 0.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Serves until the phase is [`Phase::Stopped`], then lets every connection finish its requests.
    pub async fn serve<H, F, B>(self, handler: H, phase: watch::Receiver<Phase>)
    where
        H: Fn(SocketAddr, Request<Incoming>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<B>> + Send + 'static,
        B: Body + Send + Unpin + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        // Each connection holds a receiver; none left means that all have ended.
        let open = watch::Sender::new(());
        let slots = Arc::new(Semaphore::new(self.settings.max_connections));
        let spawn = |(stream, peer)| {
            let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else {
                self.metrics.refused.inc();
                return;
            };
            let settings = self.settings.clone();
            let connection = Connection { stream, peer, settings, metrics: self.metrics.clone() };
            let serving = connection.serve(handler.clone(), phase.clone());
            let held = (slot, open.subscribe());
            tokio::spawn(async move {
                serving.await;
                drop(held);
            });
        };
        let mut stopped = phase.clone();
        loop {
            tokio::select! {
                accepted = self.accept() => spawn(accepted),
                () = stopped_in(&mut stopped) => break,
            }
        }
        // Nobody new, but whoever has begun to connect.
        shut_the_door(&self.socket);
        let mut handshakes = pin!(sleep(HANDSHAKES));
        loop {
            tokio::select! {
                accepted = self.accept() => spawn(accepted),
                () = &mut handshakes => break,
            }
        }
        drop_after_queue(self.socket, spawn);
        open.closed().await;
    }

    /// The next connection. Errors are counted and waited out: the listener outlives them.
    async fn accept(&self) -> (TcpStream, SocketAddr) {
        loop {
            match self.socket.accept().await {
                Ok(accepted) => return accepted,
                Err(error) => {
                    self.metrics.accept_errors.inc();
                    // A client that left while queued says nothing about us.
                    if error.kind() != io::ErrorKind::ConnectionAborted {
                        warn!(%error, "accept failed; trying again");
                        sleep(ACCEPT_BACKOFF).await;
                    }
                }
            }
        }
    }
}

/// One client's connection.
struct Connection {
    stream: TcpStream,
    peer: SocketAddr,
    settings: Settings,
    metrics: ListenerMetrics,
}

impl Connection {
    async fn serve<H, F, B>(self, handler: H, mut phase: watch::Receiver<Phase>)
    where
        H: Fn(SocketAddr, Request<Incoming>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<B>> + Send + 'static,
        B: Body + Send + Unpin + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let Self { stream, peer, settings, metrics } = self;
        let _open = GaugeGuard::raise(&metrics.connections);
        tcp::tune(&stream);
        let mut limits = settings.limits;
        let sniffed = tokio::select! {
            biased;
            sniffed = timeout(limits.idle, speaks_http2(&stream)) => sniffed,
            // Its first request may be on its way.
            () = async { stopped_in(&mut phase).await; sleep(LAST_WORDS).await } => return,
        };
        // Neither a peer that says nothing nor one that leaves at once is worth a word.
        let Ok(Ok(http2)) = sniffed else { return };

        let activity = Activity::new();
        let requests = Arc::clone(&activity);
        let phase_now = phase.clone();
        let service = service_fn(move |request| {
            let in_progress = requests.begin();
            let responding = handler(peer, request);
            let phase = phase_now.clone();
            // Not an async block, which would hold the handler's large future twice.
            responding.map(move |mut response| {
                if !http2 && *phase.borrow() >= Phase::Leaving && !is_upgrade(&response) {
                    let close = HeaderValue::from_static("close");
                    response.headers_mut().insert(CONNECTION, close);
                }
                Ok::<_, Infallible>(response.map(|body| Attended::new(body, in_progress)))
            })
        });
        let io = TokioIo::new(Watched::new(stream, Arc::clone(&activity)));
        let served = if http2 {
            metrics.accepted.increment(Protocol::Http2);
            // Frames between requests are not the beginning of one.
            limits.head = Duration::MAX;
            let connection = http2_builder(&settings).serve_connection(io, service);
            let end = http2::Connection::graceful_shutdown;
            drive(connection, end, activity.overdue(limits), phase).await
        } else {
            metrics.accepted.increment(Protocol::Http1);
            let connection = http1_builder(&settings).serve_connection(io, service);
            let end = http1::UpgradeableConnection::graceful_shutdown;
            drive(connection.with_upgrades(), end, activity.overdue(limits), phase).await
        };
        match served {
            Ended::ByItself(Ok(())) => {}
            Ended::ByItself(Err(error)) => debug!(%error, "connection ended"),
            Ended::Overdue(reason) => metrics.closed.increment(reason),
        }
    }
}

/// Takes whoever is in the queue before the socket closes: they have connected already, and would
/// be reset.
fn drop_after_queue(socket: TcpListener, spawn: impl Fn((TcpStream, SocketAddr))) {
    // Without tokio, which only looks when it has been told of a new connection.
    let Ok(socket) = socket.into_std() else { return };
    while let Ok((stream, peer)) = socket.accept() {
        let stream = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream));
        if let Ok(stream) = stream {
            spawn((stream, peer));
        }
    }
}

/// Lets nobody else begin to connect: from here on the kernel drops every SYN, so that a client asks
/// again, and is refused once the socket is gone. Best effort: without it, closing the socket resets
/// whoever connects in that very moment.
#[cfg(target_os = "linux")]
fn shut_the_door(socket: &TcpListener) {
    use socket2::{SockFilter, SockRef};
    // Classic BPF over a segment's TCP header (kernel.org, "Linux Socket Filtering"): if the flags,
    // byte 13, have SYN in them, take nothing of it, else take it whole.
    let drop_syn = [
        SockFilter::new(0x30, 0, 0, 13),       // A = byte at 13
        SockFilter::new(0x45, 0, 1, 0x02),     // if A & SYN go on, else skip one
        SockFilter::new(0x06, 0, 0, 0),        // return 0
        SockFilter::new(0x06, 0, 0, u32::MAX), // return all
    ];
    if let Err(error) = SockRef::from(socket).attach_filter(&drop_syn) {
        debug!(%error, "new connections can't be kept out while the listener closes");
    }
}

#[cfg(not(target_os = "linux"))]
fn shut_the_door(_: &TcpListener) {}

/// Resolves when the phase is [`Phase::Stopped`]; its sender being gone counts as that.
async fn stopped_in(phase: &mut watch::Receiver<Phase>) {
    let _ = phase.wait_for(|phase| *phase == Phase::Stopped).await;
}

fn is_upgrade<B>(response: &Response<B>) -> bool {
    response.status() == StatusCode::SWITCHING_PROTOCOLS
}

/// How a connection ended.
enum Ended<T> {
    ByItself(T),
    Overdue(CloseReason),
}

/// Drives a connection to its end: by itself, by its watchdog, or, once told to stop, as far as
/// the requests it has.
async fn drive<C: Future>(
    connection: C,
    graceful_shutdown: fn(Pin<&mut C>),
    overdue: impl Future<Output = CloseReason>,
    mut phase: watch::Receiver<Phase>,
) -> Ended<C::Output> {
    let (mut connection, mut overdue) = (pin!(connection), pin!(overdue));
    let reason = tokio::select! {
        served = &mut connection => return Ended::ByItself(served),
        reason = &mut overdue => Some(reason),
        () = stopped_in(&mut phase) => None,
    };
    match reason {
        // It is between requests: HTTP/1.1 just closes, HTTP/2 is told.
        Some(CloseReason::Idle) => {
            graceful_shutdown(connection.as_mut());
            connection.await;
            Ended::Overdue(CloseReason::Idle)
        }
        Some(reason) => Ended::Overdue(reason),
        None => {
            // A request may be on its way, and hyper would not look for it.
            if let Ok(served) = timeout(LAST_WORDS, &mut connection).await {
                return Ended::ByItself(served);
            }
            graceful_shutdown(connection.as_mut());
            tokio::select! {
                served = connection => Ended::ByItself(served),
                reason = overdue => Ended::Overdue(reason),
            }
        }
    }
}

fn http1_builder(settings: &Settings) -> http1::Builder {
    let head = settings.max_header_bytes as usize;
    let mut builder = http1::Builder::new();
    // No timer of hyper's: see `Activity`.
    builder.max_header_size(head).max_buf_size(head + HTTP1_BUFFER);
    builder
}

fn http2_builder(settings: &Settings) -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .keep_alive_interval(HTTP2_PING_INTERVAL)
        .keep_alive_timeout(HTTP2_PING_PATIENCE)
        .max_concurrent_streams(settings.http2_max_streams)
        .max_header_list_size(settings.max_header_bytes)
        .max_send_buf_size(HTTP2_SEND_BUFFER);
    builder
}

/// Looks at the first bytes without taking them, so that nothing has to be put back.
async fn speaks_http2(stream: &TcpStream) -> io::Result<bool> {
    let mut start = [0; HTTP2_PREFACE.len()];
    loop {
        let seen = stream.peek(&mut start).await?;
        if seen == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if start[..seen] != HTTP2_PREFACE[..seen] {
            return Ok(false);
        }
        if seen == HTTP2_PREFACE.len() {
            return Ok(true);
        }
        sleep(PREFACE_PAUSE).await;
    }
}

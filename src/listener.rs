//! From a socket to requests: accept, cap, tell HTTP/1.1 from HTTP/2, drain.
//!
//! Serves any handler; knows nothing of what a request is for.

use std::convert::Infallible;
use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use crate::metrics::{GaugeGuard, ListenerMetrics, Protocol};

/// The longest head of an HTTP/1.1 request. Envoy allows 60 KiB, nginx 32.
const HTTP1_HEAD: usize = 64 * 1024;

/// Read buffer of one HTTP/1.1 connection. It grows only as far as a peer makes it; hyper's own
/// limit of 400 KiB is too much for 10,000 connections.
const HTTP1_BUFFER: usize = 128 * 1024;

/// What an HTTP/2 request may have of headers: the same as over HTTP/1.1.
const HTTP2_HEADER_LIST: u32 = 64 * 1024;

/// Concurrent requests on one HTTP/2 connection. RFC 9113 section 6.5.2 asks for at least 100.
const HTTP2_STREAMS: u32 = 200;

/// Response bytes buffered per HTTP/2 stream.
const HTTP2_SEND_BUFFER: usize = 64 * 1024;

/// HTTP/2 has no other way to notice a dead peer.
const HTTP2_PING_INTERVAL: Duration = Duration::from_secs(30);
const HTTP2_PING_PATIENCE: Duration = Duration::from_secs(10);

/// Pause after a failed accept. Running out of descriptors lasts; spinning would not help.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);

/// Pause between looks at a connection preface that comes in pieces of one or two bytes.
const PREFACE_PAUSE: Duration = Duration::from_millis(5);

/// The first bytes of the HTTP/2 preface (RFC 9113 section 3.4); no HTTP/1.1 method begins so.
const HTTP2_PREFACE: &[u8; 4] = b"PRI ";

/// Where to listen, and how patiently.
#[derive(Clone, Debug)]
pub struct Settings {
    pub address: SocketAddr,
    pub max_connections: usize,
    /// How long a connection may take to send a request's head, waiting for it included. Must
    /// exceed the keep-alive of whatever stands in front.
    pub idle_timeout: Duration,
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

    /// Serves until `stop` becomes true, then lets every connection finish its requests.
    pub async fn serve<H, F, B>(self, handler: H, mut stop: watch::Receiver<bool>)
    where
        H: Fn(SocketAddr, Request<Incoming>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<B>> + Send + 'static,
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        // Each connection holds a receiver; none left means that all have ended.
        let open = watch::Sender::new(());
        let slots = Arc::new(Semaphore::new(self.settings.max_connections));
        loop {
            let (stream, peer) = tokio::select! {
                accepted = self.accept() => accepted,
                // Gone altogether counts as stop.
                _ = stop.wait_for(|stop| *stop) => break,
            };
            let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else {
                self.metrics.refused.inc();
                continue;
            };
            let connection = Connection {
                stream,
                peer,
                idle_timeout: self.settings.idle_timeout,
                metrics: self.metrics.clone(),
            };
            let serving = connection.serve(handler.clone(), stop.clone());
            let held = (slot, open.subscribe());
            tokio::spawn(async move {
                serving.await;
                drop(held);
            });
        }
        drop(self.socket);
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
    idle_timeout: Duration,
    metrics: ListenerMetrics,
}

impl Connection {
    async fn serve<H, F, B>(self, handler: H, mut stop: watch::Receiver<bool>)
    where
        H: Fn(SocketAddr, Request<Incoming>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<B>> + Send + 'static,
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let Self { stream, peer, idle_timeout, metrics } = self;
        let _open = GaugeGuard::raise(&metrics.connections);
        // Best effort: without it small messages are slow, not wrong.
        let _ = stream.set_nodelay(true);
        let sniffed = tokio::select! {
            sniffed = timeout(idle_timeout, speaks_http2(&stream)) => sniffed,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        // Neither a peer that says nothing nor one that leaves at once is worth a word.
        let Ok(Ok(http2)) = sniffed else { return };

        let service = service_fn(move |request| {
            let responding = handler(peer, request);
            async move { Ok::<_, Infallible>(responding.await) }
        });
        let io = TokioIo::new(stream);
        let served = if http2 {
            metrics.accepted.increment(Protocol::Http2);
            let connection = http2_builder().serve_connection(io, service);
            until_drained(connection, http2::Connection::graceful_shutdown, stop).await
        } else {
            metrics.accepted.increment(Protocol::Http1);
            let connection = http1_builder(idle_timeout).serve_connection(io, service);
            let connection = connection.with_upgrades();
            until_drained(connection, http1::UpgradeableConnection::graceful_shutdown, stop).await
        };
        if let Err(error) = served {
            debug!(%error, "connection ended");
        }
    }
}

/// Drives a connection to its end; once told to stop, only as far as the requests it has.
async fn until_drained<C: Future>(
    connection: C,
    graceful_shutdown: fn(Pin<&mut C>),
    mut stop: watch::Receiver<bool>,
) -> C::Output {
    let mut connection = pin!(connection);
    tokio::select! {
        served = &mut connection => return served,
        _ = stop.wait_for(|stop| *stop) => {}
    }
    graceful_shutdown(connection.as_mut());
    connection.await
}

fn http1_builder(idle_timeout: Duration) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(idle_timeout)
        .max_header_size(HTTP1_HEAD)
        .max_buf_size(HTTP1_BUFFER);
    builder
}

fn http2_builder() -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .keep_alive_interval(HTTP2_PING_INTERVAL)
        .keep_alive_timeout(HTTP2_PING_PATIENCE)
        .max_concurrent_streams(HTTP2_STREAMS)
        .max_header_list_size(HTTP2_HEADER_LIST)
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

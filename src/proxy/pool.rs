//! Connections to the app: a LIFO stack of idle HTTP/1.1 ones, or one shared HTTP/2 one.
//!
//! Our own over hyper's connection API, since that is what lets the retry rule see whether a
//! connection was reused and whether a request ever reached it.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::Request;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, Sleep, sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::request_body::RequestBody;
use super::spare::Sent;
use super::{Address, Settings, UpstreamError};
use crate::memory::{Memory, Thrifty};
use crate::metrics::{AppMetrics, ConnectResult, GaugeGuard};
use crate::tcp::{self, Gathering, Watched};
use crate::tls::ClientTls;

/// Read buffer of one HTTP/1.1 connection, and so long a head of a response is sure to pass. It grows
/// only as far as the app makes it, and where the client does not read, two of them wait: hyper's own
/// 400 KiB would be a gigabyte for 1,300 such clients. A body of 100 KiB is still taken in one read.
const HTTP1_BUFFER: usize = 192 * 1024;

/// Encrypted bytes that wait for an app which does not read: one record, and not rustls' 64 KiB.
const TLS_BUFFER: usize = 16 * 1024;

type Http1 = http1::SendRequest<RequestBody>;
type Http2 = http2::SendRequest<RequestBody>;

/// All connections to one app.
pub(super) struct Pool {
    address: Address,
    tls: Option<Arc<ClientTls>>,
    connect_timeout: Duration,
    idle_timeout: Duration,
    max_idle: usize,
    memory: Memory,
    /// The most recently used last, so that a quiet app keeps few connections busy and warm.
    idle: Mutex<Vec<Idle>>,
    http2: tokio::sync::Mutex<SharedHttp2>,
    metrics: AppMetrics,
}

/// The one HTTP/2 connection.
#[derive(Default)]
struct SharedHttp2 {
    sender: Option<Http2>,
    /// Counts the connections that there have been.
    number: u64,
    /// When opening one took too long last.
    timed_out: Option<Instant>,
}

/// The shared use of the HTTP/2 connection.
pub(super) struct Shared {
    /// The connection to send on.
    pub(super) sender: Http2,
    number: u64,
    reused: bool,
}

impl Shared {
    /// Whether others have used it before, so that the app may be closing it.
    pub(super) fn is_reused(&self) -> bool {
        self.reused
    }
}

struct Idle {
    sender: Http1,
    timer: Pin<Box<Sleep>>,
    sent: Arc<Sent>,
    since: Instant,
}

/// The exclusive use of one HTTP/1.1 connection.
pub(super) struct Lease {
    sender: Http1,
    /// Stays with its connection: to set a timer anew costs less than to make one for each request.
    timer: Pin<Box<Sleep>>,
    sent: Arc<Sent>,
    pool: Arc<Pool>,
    reused: bool,
}

impl Lease {
    /// The connection to send on, and a timer, set to anything, for what is sent.
    pub(super) fn sender_and_timer(&mut self) -> (&mut Http1, Pin<&mut Sleep>) {
        (&mut self.sender, self.timer.as_mut())
    }

    /// From here on `request` goes out on it.
    pub(super) fn begin(&self, request: &mut Request<RequestBody>) {
        request.body_mut().leave_by(&self.sent);
        self.sent.begin(request, self.reused);
    }

    /// The request that went out on it, to go out on another: if it lay idle before, so that the app may
    /// have closed it, and if such a request may be sent twice.
    pub(super) fn sent(&self) -> Option<Request<RequestBody>> {
        self.sent.request()
    }

    /// From here on it is a WebSocket's.
    pub(super) fn switch(&self) {
        self.sent.end();
    }

    /// Whether the app may have closed it while it lay idle.
    pub(super) fn is_reused(&self) -> bool {
        self.reused
    }

    /// Makes it available again after a complete response.
    pub(super) fn give_back(self) {
        if self.sender.is_closed() {
            return;
        }
        let Self { sender, timer, sent, pool, .. } = self;
        let mut idle = pool.idle();
        if idle.len() < pool.max_idle {
            idle.push(Idle { sender, timer, sent, since: Instant::now() });
        }
    }
}

impl Pool {
    pub(super) fn new(
        settings: &Settings,
        tls: Option<Arc<ClientTls>>,
        metrics: AppMetrics,
    ) -> Self {
        Self {
            address: settings.address.clone(),
            tls,
            connect_timeout: settings.connect_timeout,
            idle_timeout: settings.idle_timeout,
            max_idle: settings.max_idle,
            memory: settings.memory.clone(),
            idle: Mutex::default(),
            http2: tokio::sync::Mutex::default(),
            metrics,
        }
    }

    /// The idle connection used last, if one is still good.
    pub(super) fn reuse(self: &Arc<Self>, now: Instant) -> Option<Lease> {
        let mut idle = self.idle();
        loop {
            // Not ready means that its task has not yet noticed the end of the last response.
            let position = idle.iter().rposition(|entry| entry.sender.is_ready())?;
            let entry = idle.remove(position);
            if !self.is_good(&entry, now) {
                // The ones below lay idle for longer still.
                idle.retain(|entry| self.is_good(entry, now));
                continue;
            }
            let Idle { sender, timer, sent, .. } = entry;
            return Some(Lease { sender, timer, sent, pool: Arc::clone(self), reused: true });
        }
    }

    /// A new HTTP/1.1 connection.
    pub(super) async fn connect(self: &Arc<Self>) -> Result<Lease, UpstreamError> {
        let sent = Arc::new(Sent::default());
        let sender = match self.dial(false).await? {
            Stream::Tcp(stream) => self.handshake_http1(stream, &sent).await?,
            Stream::Tls(stream) => self.handshake_http1(stream, &sent).await?,
            Stream::Unix(stream) => self.handshake_http1(stream, &sent).await?,
        };
        let timer = Box::pin(sleep(Duration::ZERO));
        Ok(Lease { sender, timer, sent, pool: Arc::clone(self), reused: false })
    }

    /// The shared HTTP/2 connection, opened if need be. Whoever comes meanwhile waits for it
    /// instead of opening another, and if it takes too long, all have waited long enough. One that
    /// has been seen to be `dead` is not handed out again, even if its task has not noticed yet.
    pub(super) async fn http2(&self, dead: Option<Shared>) -> Result<Shared, UpstreamError> {
        let came = Instant::now();
        let mut shared = self.http2.lock().await;
        let number = shared.number;
        let is_dead = dead.is_some_and(|dead| dead.number == number);
        let usable = shared.sender.as_ref().filter(|sender| !sender.is_closed() && !is_dead);
        if let Some(sender) = usable {
            return Ok(Shared { sender: sender.clone(), number, reused: true });
        }
        if shared.timed_out.is_some_and(|at| at >= came) {
            return Err(UpstreamError::Unreachable(io::ErrorKind::TimedOut.into()));
        }
        let connected = self.connect_http2().await;
        if let Err(UpstreamError::Unreachable(cause)) = &connected
            && cause.kind() == io::ErrorKind::TimedOut
        {
            shared.timed_out = Some(Instant::now());
        }
        let sender = connected?;
        shared.number += 1;
        shared.sender = Some(sender.clone());
        Ok(Shared { sender, number: shared.number, reused: false })
    }

    /// Closes connections that have been idle for too long. Without this a quiet sidecar would
    /// keep them until the app closes its end.
    pub(super) fn reap(&self) {
        let now = Instant::now();
        self.idle().retain(|entry| self.is_good(entry, now));
    }

    fn is_good(&self, entry: &Idle, now: Instant) -> bool {
        !entry.sender.is_closed() && now.saturating_duration_since(entry.since) < self.idle_timeout
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn dial(&self, http2: bool) -> Result<Stream, UpstreamError> {
        let dialling = dial(&self.address, self.tls.as_deref(), http2);
        let dialled = timeout(self.connect_timeout, dialling).await;
        let (result, counted) = match dialled {
            Ok(Ok(stream)) => (Ok(stream), ConnectResult::Connected),
            Ok(Err(error)) => (Err(UpstreamError::Unreachable(error)), ConnectResult::Failed),
            Err(_) => {
                let error = io::Error::from(io::ErrorKind::TimedOut);
                (Err(UpstreamError::Unreachable(error)), ConnectResult::Timeout)
            }
        };
        self.metrics.connects.increment(counted);
        result
    }

    async fn handshake_http1<T>(&self, stream: T, sent: &Arc<Sent>) -> Result<Http1, UpstreamError>
    where
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let watched = Watched::new(Gathering(stream), Arc::clone(sent) as _);
        let io = TokioIo::new(Thrifty::app(watched, self.memory.clone()));
        let handshake = http1::Builder::new().max_buf_size(HTTP1_BUFFER).handshake(io).await;
        let (sender, connection) = handshake.map_err(UpstreamError::Broken)?;
        self.drive(connection.with_upgrades());
        Ok(sender)
    }

    async fn handshake_http2<T>(&self, stream: T) -> Result<Http2, UpstreamError>
    where
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let builder = http2::Builder::new(TokioExecutor::new());
        let handshake = builder.handshake(TokioIo::new(stream)).await;
        let (sender, connection) = handshake.map_err(UpstreamError::Broken)?;
        self.drive(connection);
        Ok(sender)
    }

    async fn connect_http2(&self) -> Result<Http2, UpstreamError> {
        match self.dial(true).await? {
            Stream::Tcp(stream) => self.handshake_http2(stream).await,
            Stream::Tls(stream) => self.handshake_http2(stream).await,
            Stream::Unix(stream) => self.handshake_http2(stream).await,
        }
    }

    fn drive(&self, connection: impl Future<Output = hyper::Result<()>> + Send + 'static) {
        let open = (GaugeGuard::raise(&self.metrics.connections), self.memory.count_exchange());
        tokio::spawn(async move {
            // Whoever has a request on it gets the error; an idle connection's end is no news.
            let _ = connection.await;
            drop(open);
        });
    }
}

/// A connection before anything is spoken on it.
pub(super) enum Stream {
    Tcp(TcpStream),
    /// Large, and rare enough.
    Tls(Box<TlsStream<TcpStream>>),
    Unix(UnixStream),
}

/// Opens a connection to `address`, for HTTP/1.1 or for HTTP/2. In its own time.
pub(super) async fn dial(
    address: &Address,
    tls: Option<&ClientTls>,
    http2: bool,
) -> io::Result<Stream> {
    let stream = address.dial().await?;
    match tls {
        Some(tls) => encrypt(stream, tls, http2).await,
        None => Ok(stream),
    }
}

/// Speaks TLS over a connection, for HTTP/1.1 or for HTTP/2.
async fn encrypt(stream: Stream, tls: &ClientTls, http2: bool) -> io::Result<Stream> {
    let Stream::Tcp(stream) = stream else { return Ok(stream) };
    let config = if http2 { tls.http2() } else { tls.http1() };
    let mut stream = TlsConnector::from(config).connect(tls.server_name(), stream).await?;
    stream.get_mut().1.set_buffer_limit(Some(TLS_BUFFER));
    if http2 && stream.get_ref().1.alpn_protocol() != Some(b"h2") {
        return Err(io::Error::other("the app does not offer h2 in its TLS handshake"));
    }
    Ok(Stream::Tls(Box::new(stream)))
}

impl Address {
    async fn dial(&self) -> io::Result<Stream> {
        match self {
            Self::Tcp(authority) => {
                let stream = TcpStream::connect(authority.as_str()).await?;
                tcp::tune(&stream);
                Ok(Stream::Tcp(stream))
            }
            Self::Unix(path) => UnixStream::connect(path).await.map(Stream::Unix),
        }
    }
}

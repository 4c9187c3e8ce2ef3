//! Connections to the app: a LIFO stack of idle HTTP/1.1 connections, or shared HTTP/2 connections.
//!
//! The pool is written over hyper's connection API, because the retry rule must see whether a connection was
//! reused and whether a request ever reached it.

mod dial;
pub(super) mod http2;
mod neighbours;

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::ready;
use std::time::Duration;

use http::{HeaderMap, Request};
use http_body::Body as _;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot::error::TryRecvError;
use tokio::sync::{Notify, oneshot};
use tokio::task::AbortHandle;
use tokio::time::{Instant, Sleep, sleep, timeout};

pub(super) use self::dial::{Stream, dial};
use self::http2::Connections;
pub use self::neighbours::Neighbours;
use super::login::Owner;
use super::request_body::RequestBody;
use super::resend::RequestInFlight;
use super::{Address, Settings, UpstreamError};
use ground::memory::{Demand, Memory, Thrift};
use ground::metrics::{AppMetrics, ConnectResult, GaugeGuard};
use ground::tcp::Watch;
use ground::tls::ClientTls;

/// Read buffer of one HTTP/1.1 connection, and the length up to which the head of a response is sure to pass.
/// The buffer grows only as far as the app fills it. Where the client does not read, two buffers wait:
/// hyper's own 400 KiB would be a gigabyte for 1,300 such clients. A body of 100 KiB is still taken in one
/// read.
const HTTP1_BUFFER: usize = 192 * 1024;

/// Header lines that hyper reads without an allocation.
const FREE_HEADERS: usize = 100;

/// Time for which the app may take nothing of the rest of a request that it has answered early, before the
/// connection is closed; in the worst case twice as long.
const LEFTOVER_PATIENCE: Duration = Duration::from_secs(5);

/// First pause before the pool looks again for an idle connection while it opens a new one: a
/// connection that was given back may not be ready at once.
const IDLE_LOOK: Duration = Duration::from_millis(10);

type Http1 = http1::SendRequest<RequestBody>;

/// All connections to one app.
pub(super) struct Pool {
    address: Address,
    tls: Option<Arc<ClientTls>>,
    connect_timeout: Duration,
    /// Time limit for an app that takes a connection and says nothing.
    response_timeout: Duration,
    idle_timeout: Duration,
    max_idle: usize,
    /// Most header lines of one response over HTTP/1.1.
    max_headers: usize,
    memory: Memory,
    /// Idle connections, the most recently used last, so that a quiet app keeps few connections busy and
    /// warm.
    idle: Mutex<Vec<IdleConnection>>,
    /// Requests that wait for a new connection and would take an idle one.
    waiting: AtomicUsize,
    given_back: Notify,
    http2: Mutex<Connections>,
    metrics: AppMetrics,
}

struct IdleConnection {
    sender: Http1,
    timer: Pin<Box<Sleep>>,
    in_flight: Arc<RequestInFlight>,
    demand: Arc<Demand>,
    task: AbortHandle,
    since: Instant,
}

/// The exclusive use of one HTTP/1.1 connection.
pub(super) struct Lease {
    sender: Http1,
    /// Stays with its connection: setting a timer again costs less than making a timer for each request.
    timer: Pin<Box<Sleep>>,
    in_flight: Arc<RequestInFlight>,
    demand: Arc<Demand>,
    pool: Arc<Pool>,
    reused: bool,
    /// Client that has logged in on the connection and alone may use it.
    owner: Option<Box<Owner>>,
    task: LeasedTask,
}

/// Task of a leased connection. Ends with the lease, since hyper would keep the connection for as long as
/// a request is being sent, and an app that does not read keeps a request from ending.
struct LeasedTask {
    handle: AbortHandle,
    /// Whether the connection outlives the lease: it is idle again, or has become a WebSocket's.
    outlives: AtomicBool,
}

impl LeasedTask {
    fn new(handle: AbortHandle) -> Self {
        Self { handle, outlives: AtomicBool::new(false) }
    }

    /// Has the connection outlive the lease.
    fn release(&self) -> AbortHandle {
        self.outlives.store(true, Ordering::Relaxed);
        self.handle.clone()
    }
}

impl Drop for LeasedTask {
    fn drop(&mut self) {
        if !self.outlives.load(Ordering::Relaxed) {
            self.handle.abort();
        }
    }
}

impl Lease {
    /// Returns the connection to send on, and a timer for the request, which may be set to any time.
    pub(super) fn sender_and_timer(&mut self) -> (&mut Http1, Pin<&mut Sleep>) {
        (&mut self.sender, self.timer.as_mut())
    }

    /// Notes that `request` goes out on the connection from here on.
    pub(super) fn begin(&self, request: &mut Request<RequestBody>) {
        self.demand.begin(!request.body().is_end_stream());
        request.body_mut().leave_by(&self.in_flight);
        self.in_flight.begin(request, self.reused);
    }

    /// Returns the request that went out on the connection, to go out on another connection. `None` unless
    /// the connection lay idle before, so that the app may have closed it, and the request may be sent twice.
    pub(super) fn sent_request(&self) -> Option<Request<RequestBody>> {
        self.in_flight.request()
    }

    /// Whether the connection ends with its response because the response is of HTTP/1.0. `headers` are the
    /// response's.
    pub(super) fn ends_with(&self, headers: &HeaderMap) -> bool {
        self.in_flight.ends_with_answer(headers)
    }

    /// Handle by which the response's reader tells the connection that it wants more.
    pub(super) fn demand(&self) -> Arc<Demand> {
        Arc::clone(&self.demand)
    }

    /// Hands the connection over to a WebSocket.
    pub(super) fn switch(&self) {
        self.task.release();
        self.in_flight.end();
    }

    /// Whether the app may have closed the connection while it lay idle.
    pub(super) fn is_reused(&self) -> bool {
        self.reused
    }

    /// Keeps the connection for `owner` alone once its response is complete.
    pub(super) fn belong_to(&mut self, owner: Owner) {
        self.owner = Some(Box::new(owner));
    }

    /// Keeps the connection from all other clients, if no client owns it yet: it closes after its
    /// response.
    pub(super) fn belong_to_none(&mut self) {
        self.owner.get_or_insert_default();
    }

    /// Makes the connection available again after a complete response.
    pub(super) fn give_back(mut self) {
        if self.sender.is_closed() {
            return;
        }
        if let Some(owner) = self.owner.take() {
            self.reused = true;
            return owner.keep(self);
        }
        let Self { sender, timer, in_flight, demand, pool, task, .. } = self;
        let mut idle = pool.idle();
        // A connection that finds no place ends in an orderly way, because its sender is dropped.
        let task = task.release();
        if idle.len() < pool.max_idle {
            idle.push(IdleConnection {
                sender,
                timer,
                in_flight,
                demand,
                task,
                since: Instant::now(),
            });
        }
        drop(idle);
        if pool.waiting.load(Ordering::Relaxed) > 0 {
            pool.given_back.notify_one();
        }
    }

    /// Makes the connection available again after a complete response whose request is still being
    /// sent. Waits until `sending` has come to its end too, and closes the connection if the app takes
    /// nothing more.
    pub(super) fn give_back_after(self, mut sending: oneshot::Receiver<()>) {
        if sending.try_recv() == Err(TryRecvError::Closed) {
            return self.give_back();
        }
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    // An error only says that the sender is dropped, which marks the end of the request.
                    _ = &mut sending => return self.give_back(),
                    () = sleep(LEFTOVER_PATIENCE) => {}
                }
                if self.in_flight.stands_still() {
                    return drop(self);
                }
            }
        });
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
            response_timeout: settings.response_timeout,
            idle_timeout: settings.idle_timeout,
            max_idle: settings.max_idle,
            max_headers: settings.max_headers,
            memory: settings.memory.clone(),
            idle: Mutex::default(),
            waiting: AtomicUsize::new(0),
            given_back: Notify::new(),
            http2: Mutex::default(),
            metrics,
        }
    }

    /// Returns the idle connection that was used last, if one is still good.
    pub(super) fn reuse(self: &Arc<Self>, now: Instant) -> Option<Lease> {
        let mut idle = self.idle();
        loop {
            // A sender is not ready while its task has not yet noticed the end of the last response.
            let position = idle.iter().rposition(|entry| entry.sender.is_ready())?;
            let entry = idle.remove(position);
            if !self.is_good(&entry, now) {
                // The connections below lay idle for longer still.
                idle.retain(|entry| self.is_good(entry, now));
                continue;
            }
            let IdleConnection { sender, timer, in_flight, demand, task, .. } = entry;
            let (pool, owner) = (Arc::clone(self), None);
            let (reused, task) = (true, LeasedTask::new(task));
            return Some(Lease { sender, timer, in_flight, demand, pool, reused, owner, task });
        }
    }

    /// Opens a new HTTP/1.1 connection, or takes one that becomes idle before the new one is open: if
    /// the app's accept queue is full, the kernel tries again only after a second.
    pub(super) async fn soonest(self: &Arc<Self>) -> Result<Lease, UpstreamError> {
        let _waiting = Waiting::count(&self.waiting);
        let mut connecting = pin!(self.connect());
        let mut pause = IDLE_LOOK;
        loop {
            tokio::select! {
                biased;
                lease = &mut connecting => return lease,
                () = self.given_back.notified() => {}
                () = sleep(pause) => pause *= 2,
            }
            if let Some(lease) = self.reuse(Instant::now()) {
                return Ok(lease);
            }
        }
    }

    /// Opens a new HTTP/1.1 connection.
    pub(super) async fn connect(self: &Arc<Self>) -> Result<Lease, UpstreamError> {
        match self.dial(false).await? {
            Stream::Tcp(stream) => self.handshake_http1(stream).await,
            Stream::Tls(stream) => self.handshake_http1(stream).await,
            Stream::Unix(stream) => self.handshake_http1(stream).await,
        }
    }

    /// Returns the time since which the longest idle connection has been idle.
    fn idle_since(&self) -> Option<Instant> {
        self.idle().first().map(|entry| entry.since)
    }

    /// Closes the connection that has been idle for longest. `false` if there is none.
    fn close_longest_idle(&self) -> bool {
        let mut idle = self.idle();
        let longest = (!idle.is_empty()).then(|| idle.remove(0));
        longest.is_some()
    }

    /// Closes connections that have been idle for too long. Otherwise a quiet sidecar would keep the
    /// connections until the app closes its end.
    pub(super) fn reap(&self) {
        let now = Instant::now();
        self.idle().retain(|entry| self.is_good(entry, now));
        self.reap_http2();
    }

    fn is_good(&self, entry: &IdleConnection, now: Instant) -> bool {
        !entry.sender.is_closed() && now.saturating_duration_since(entry.since) < self.idle_timeout
    }

    fn idle(&self) -> MutexGuard<'_, Vec<IdleConnection>> {
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

    async fn handshake_http1<T>(self: &Arc<Self>, stream: T) -> Result<Lease, UpstreamError>
    where
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (in_flight, demand) =
            (Arc::new(RequestInFlight::default()), Arc::new(Demand::default()));
        let watched = Watch::over(stream, Arc::clone(&in_flight) as _);
        let thrifty = Thrift::app(watched, self.memory.clone(), Arc::clone(&demand));
        let io = TokioIo::new(thrifty);
        let handshake = http1_builder(self.max_headers).handshake(io).await;
        let (sender, connection) = handshake.map_err(UpstreamError::Broken)?;
        let task = LeasedTask::new(self.drive(connection.with_upgrades(), Arc::clone(&demand)));
        let timer = Box::pin(sleep(Duration::ZERO));
        let (pool, reused, owner) = (Arc::clone(self), false, None);
        Ok(Lease { sender, timer, in_flight, demand, pool, reused, owner, task })
    }

    fn drive(
        &self,
        connection: impl Future<Output = hyper::Result<()>> + Send + 'static,
        demand: Arc<Demand>,
    ) -> AbortHandle {
        let open = (GaugeGuard::raise(&self.metrics.connections), self.memory.count_exchange());
        let memory = self.memory.clone();
        let driving = tokio::spawn(async move {
            let mut connection = pin!(connection);
            let connection = poll_fn(|context| {
                ready!(demand.poll_busy(&memory, context));
                connection.as_mut().poll(context)
            });
            // The request on the connection gets the error; the end of an idle connection is not reported.
            let _ = connection.await;
            drop(open);
        });
        driving.abort_handle()
    }
}

/// Makes a builder that reads responses leniently: hyper corrects a space before a header's colon and a
/// folded line, as a proxy must before it passes the header on (RFC 9112 sections 5.1 and 5.2).
pub(super) fn http1_builder(max_headers: usize) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .max_buf_size(HTTP1_BUFFER)
        .allow_spaces_after_header_name_in_responses(true)
        .allow_obsolete_multiline_headers_in_responses(true);
    if max_headers != FREE_HEADERS {
        builder.max_headers(max_headers);
    }
    builder
}

/// A request that waits for a connection.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn count(waiting: &'a AtomicUsize) -> Self {
        waiting.fetch_add(1, Ordering::Relaxed);
        Self(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use http::header::{CONNECTION, UPGRADE};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::super::{AppProtocol, ForwardedFor};
    use super::*;
    use ground::metrics::Metrics;
    use ground::tcp::Plain;

    fn pool_to(address: String) -> Arc<Pool> {
        let settings = Settings {
            address: Address::Tcp(address),
            tls: None,
            protocol: AppProtocol::Http1,
            forwarded_for: ForwardedFor::Keep,
            connect_timeout: Duration::from_secs(10),
            response_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(10),
            max_idle: 1,
            max_headers: FREE_HEADERS,
            stream_idle_timeout: None,
            memory: Memory::default(),
        };
        Arc::new(Pool::new(&settings, None, Metrics::new().app))
    }

    #[tokio::test]
    async fn upgraded_connection_is_handed_back_as_a_socket() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let app = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let _ = stream.read(&mut [0; 1024]).await.expect("a request");
            let head = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nhi";
            stream.write_all(head.as_bytes()).await.expect("room");
            stream
        });
        let mut lease = pool_to(address).connect().await.expect("a connection");
        let request = Request::get("/").header(CONNECTION, "upgrade").header(UPGRADE, "websocket");
        let request = request.body(RequestBody::default()).expect("a request");
        let response = lease.sender_and_timer().0.send_request(request).await.expect("an answer");
        lease.switch();
        let upgraded = hyper::upgrade::on(response).await.expect("an upgrade");
        // Otherwise each message passes hyper, and both sides keep its buffers.
        let Ok(plain) = Plain::take(upgraded) else { panic!("no plain socket") };
        assert_eq!(plain.read, "hi");
        drop(app.await.expect("no panic"));
    }
}

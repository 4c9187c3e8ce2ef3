//! One HTTP/2 connection to the app: its windows, the task that drives it, and the pings that find it
//! dead.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{Builder, SendRequest};
use h2::{Ping, PingPong};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use ground::tcp::Filtered;

use super::line::{Line, Traffic};
use super::mailbox::Round;
use super::place::Load;

/// Unread bytes of one response that the app may send ahead of the client.
const STREAM_WINDOW: u32 = 16 * 1024;

/// Streams opened on one connection at most, or fewer if the app says so.
const MAX_STREAMS: usize = 100;

/// Window of a connection: more than all its streams can leave unread together, so that the other
/// streams have room.
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;

/// Bytes of a request's body that wait in a connection for the app to take them.
const SEND_BUFFER: usize = 16 * 1024;

/// Bytes that the open request bodies on one connection may have together, or one longer body alone. An
/// app's window for a connection is 65,535 bytes unless the app says otherwise, and h2 does not report
/// it.
const SHARED_WINDOW: u64 = 48 * 1024;

/// The longest head or trailers, by HTTP/2's own count. Over HTTP/1.1 the read buffer allows 192 KiB.
const MAX_HEAD: u32 = 256 * 1024;

/// Silence of the app after which a connection is pinged; in the worst case twice as long.
const QUIET: Duration = Duration::from_secs(5);

/// Time that the sidecar waits for the app's answer to a ping.
const PATIENCE: Duration = Duration::from_secs(5);

/// Pings in a row, and the pause after them. gRPC servers close a connection at the third ping that
/// comes within five minutes of the one before, unless the servers have sent something between.
const PINGS: u32 = 2;
const PAUSE: Duration = Duration::from_secs(301);

/// One HTTP/2 connection to the app.
pub(super) struct Connection {
    sender: SendRequest<Bytes>,
    vitals: Arc<Vitals>,
}

/// State of a connection for its tasks, which must not keep it open.
#[derive(Default)]
pub(super) struct Vitals {
    round: Arc<Round>,
    traffic: Arc<Traffic>,
    streams: AtomicUsize,
    /// Bytes of the bodies of open requests.
    charge: AtomicU64,
    /// Number of streams after which the app has asked for calm; 0 if the app has not asked.
    enough: AtomicUsize,
    /// Whether a request has come since the last look for unused connections.
    used: AtomicBool,
    /// Whether the connection has had a request.
    has_begun: AtomicBool,
    /// Whether the app has sent nothing for a while.
    quiet: AtomicBool,
    /// Notified when a request comes on a quiet connection.
    wanted: Notify,
    dead: AtomicBool,
}

impl Connection {
    /// Speaks HTTP/2 over `stream`. Returns the connection, its pings, and the future that drives it to
    /// its end.
    pub(super) async fn open<T>(stream: T) -> Result<(Self, PingPong, Driving), h2::Error>
    where
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let vitals = Arc::<Vitals>::default();
        let (sender, mut connection) = Builder::new()
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .data_frame_budget(CONNECTION_WINDOW as usize)
            .max_header_list_size(MAX_HEAD)
            .max_send_buffer_size(SEND_BUFFER)
            // These errors concern single streams, so they must not end the others.
            .max_local_error_reset_streams(None)
            .enable_push(false)
            .handshake::<_, Bytes>(Line::over(stream, Arc::clone(&vitals.traffic)))
            .await?;
        let pings = connection.ping_pong().expect("taken once");
        let driving = Box::pin(drive(connection, Arc::clone(&vitals)));
        Ok((Self { sender, vitals }, pings, driving))
    }

    pub(super) fn vitals(&self) -> &Arc<Vitals> {
        &self.vitals
    }

    /// Mailboxes of the connection's streams.
    pub(super) fn round(&self) -> &Arc<Round> {
        &self.vitals.round
    }

    /// Whether one more stream may be opened.
    pub(super) fn room(&self) -> Room {
        let mut sender = self.sender.clone();
        match sender.poll_ready(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Err(_)) => Room::Gone,
            Poll::Ready(Ok(())) if self.vitals.streams() < self.limit() => Room::For(sender),
            _ => Room::None,
        }
    }

    /// Streams that may be open at a time.
    pub(super) fn limit(&self) -> usize {
        let limit = self.sender.current_max_send_streams().min(MAX_STREAMS);
        match self.vitals.enough.load(Ordering::Relaxed) {
            0 => limit,
            enough => limit.min(enough),
        }
    }

    /// Notes that the app has refused a stream with `ENHANCE_YOUR_CALM`, as Node.js does when unread
    /// data on a connection fill 10 MB. No further stream is opened before one of the others has ended.
    pub(super) fn calm(&self) {
        let others = self.vitals.streams().saturating_sub(1);
        self.vitals.enough.store(others, Ordering::Relaxed);
    }

    /// Whether the connection has requests, or has had any since the last call.
    pub(super) fn is_wanted(&self) -> bool {
        self.vitals.used.swap(false, Ordering::Relaxed) || self.vitals.streams() > 0
    }

    /// Counts a stream. Returns whether the connection had streams before.
    pub(super) fn begin_stream(&self) -> bool {
        let Vitals { streams, quiet, wanted, used, has_begun, .. } = &*self.vitals;
        streams.fetch_add(1, Ordering::Relaxed);
        used.store(true, Ordering::Relaxed);
        if quiet.load(Ordering::Relaxed) {
            wanted.notify_one();
        }
        has_begun.swap(true, Ordering::Relaxed)
    }

    pub(super) fn end_stream(&self) {
        let before = self.vitals.streams.fetch_sub(1, Ordering::Relaxed);
        if before <= self.vitals.enough.load(Ordering::Relaxed) {
            self.vitals.enough.store(0, Ordering::Relaxed);
        }
    }

    /// Whether a request's body finds room in the app's window for the connection, even if the app
    /// reads none of the other bodies.
    pub(super) fn fits(&self, load: Load) -> bool {
        let charge = self.charged();
        match load {
            Load::None => true,
            _ if charge == 0 => true,
            Load::Known(bytes) => charge.saturating_add(bytes) <= SHARED_WINDOW,
            Load::Unknown => charge < SHARED_WINDOW,
        }
    }

    /// Bytes of the bodies of all requests that are open.
    pub(super) fn charged(&self) -> u64 {
        self.vitals.charge.load(Ordering::Relaxed)
    }

    pub(super) fn charge(&self, bytes: u64) {
        self.vitals.charge.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn discharge(&self, bytes: u64) {
        self.vitals.charge.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Bytes that the connection has sent so far.
    pub(super) fn written(&self) -> u64 {
        self.vitals.traffic.written()
    }
}

impl Vitals {
    fn streams(&self) -> usize {
        self.streams.load(Ordering::Relaxed)
    }

    /// Ends the connection when the app has gone without closing it.
    pub(super) async fn watch(&self, mut pings: PingPong) {
        let (mut asked, mut next) = (0, Instant::now());
        loop {
            sleep(QUIET).await;
            if self.traffic.was_heard() {
                asked = 0;
                continue;
            }
            self.quiet.store(true, Ordering::Relaxed);
            if self.streams() == 0 {
                // TCP keep-alive looks after idle connections, but is too slow for a request.
                self.wanted.notified().await;
            } else if asked >= PINGS {
                tokio::select! {
                    () = self.wanted.notified() => {}
                    () = sleep_until(next) => {}
                }
            }
            self.quiet.store(false, Ordering::Relaxed);
            if self.traffic.was_heard() {
                asked = 0;
                continue;
            }
            let answered = timeout(PATIENCE, pings.ping(Ping::opaque())).await;
            let heard = self.traffic.was_heard();
            if !matches!(answered, Ok(Ok(_))) && !heard {
                self.dead.store(true, Ordering::Relaxed);
                self.round.wake();
                return;
            }
            asked += 1;
            next = Instant::now() + PAUSE;
        }
    }
}

/// Connection on its way to its end.
pub(super) type Driving = Pin<Box<dyn Future<Output = Result<(), h2::Error>> + Send>>;

async fn drive<T>(
    connection: h2::client::Connection<Filtered<Line, T>, Bytes>,
    vitals: Arc<Vitals>,
) -> Result<(), h2::Error>
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let Vitals { round, traffic, dead, .. } = &*vitals;
    let ended = {
        let mut connection = pin!(connection);
        poll_fn(|context| {
            if dead.load(Ordering::Relaxed) {
                return Poll::Ready(Err(h2::Reason::CANCEL.into()));
            }
            round.begin(context.waker());
            traffic.begin_turn();
            let ended = connection.as_mut().poll(context);
            round.deliver();
            ended
        })
        .await
    };
    // Polls the streams once more, now that the connection's end has reached them.
    round.deliver();
    ended
}

/// Whether a connection takes one more stream.
pub(super) enum Room {
    For(SendRequest<Bytes>),
    /// No room now: as many streams are open as may be.
    None,
    /// No room ever again: the connection is closing.
    Gone,
}

#[cfg(test)]
mod tests {
    use http::Request;
    use tokio::io::duplex;

    use super::*;

    /// An app that reads what it is sent until it freezes, and answers nothing but pings.
    struct Frozen {
        connection: Connection,
        driving: Driving,
        watching: tokio::task::JoinHandle<()>,
        freeze: Arc<Notify>,
    }

    async fn app() -> Frozen {
        let (ours, theirs) = duplex(64 * 1024);
        let freeze = Arc::new(Notify::new());
        let frozen = Arc::clone(&freeze);
        tokio::spawn(async move {
            let mut app = h2::server::handshake(theirs).await.expect("HTTP/2");
            let mut streams = Vec::new();
            loop {
                tokio::select! {
                    Some(accepted) = app.accept() => streams.push(accepted.expect("a request")),
                    () = frozen.notified() => std::future::pending().await,
                }
            }
        });
        let (connection, pings, driving) = Connection::open(ours).await.expect("HTTP/2");
        let vitals = Arc::clone(connection.vitals());
        let watching = tokio::spawn(async move { vitals.watch(pings).await });
        Frozen { connection, driving, watching, freeze }
    }

    impl Frozen {
        /// Opens a stream, which stays open.
        fn ask(&self) -> impl Sized + use<> {
            self.connection.begin_stream();
            let Room::For(mut sender) = self.connection.room() else { panic!("no room") };
            sender.send_request(Request::new(()), true).expect("it is sent")
        }

        async fn is_found_dead_within(&mut self, time: Duration) -> bool {
            timeout(time, &mut self.driving).await.is_ok_and(|ended| ended.is_err())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn frozen_app_is_found_and_quiet_app_is_kept() {
        let mut app = app().await;
        let _stream = app.ask();
        // The app's streams are quiet on purpose.
        assert!(!app.is_found_dead_within(Duration::from_secs(3600)).await);
        app.freeze.notify_one();
        let _another = app.ask();
        assert!(app.is_found_dead_within(2 * QUIET + PATIENCE).await, "by the next request");
    }

    #[tokio::test(start_paused = true)]
    async fn idle_connection_is_not_pinged_before_it_is_used() {
        let mut app = app().await;
        app.freeze.notify_one();
        assert!(!app.is_found_dead_within(Duration::from_secs(3600)).await);
        assert!(!app.watching.is_finished());
        let _stream = app.ask();
        assert!(app.is_found_dead_within(PATIENCE + Duration::from_secs(1)).await);
    }
}

//! State of one connection, and the time since when it lasts: the socket and the requests report, and the
//! connection's watchdog compares the time with the limits.
//!
//! hyper has one timer for a connection that is idle and for one that sends its head slowly, arms the timer
//! for each request, and has no timer for a peer that does not read. In this module the socket and the
//! requests leave the time in passing, and a watchdog looks at the time now and then.

mod attended;

use std::io::{self, IoSlice};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::task::Poll;
use std::time::Duration;

use prometheus::IntGauge;
use tokio::sync::{Notify, OwnedSemaphorePermit, SetOnce};
use tokio::task::coop::has_budget_remaining;
use tokio::time::{Instant, sleep};

pub use self::attended::Attended;
use super::Seat;
use super::stream::patience;
use ground::client_connection::ClientConnection;
use ground::memory::{Holder, Memory};
use ground::metrics::{CloseReason, GaugeGuard};
use ground::tcp::{Waiting, Watcher};

/// Time between two looks at a client that waits for its answer and may leave without waking anything.
const OFTEN: Duration = Duration::from_secs(1);

/// Heads with too many headers that are answered on one HTTP/2 connection; one more ends it. To
/// take such a head apart costs more than to answer it. Over HTTP/1.1 the first ends the connection.
const REFUSED_HEADS: usize = 16;

/// Bytes that may wait unread at a client, in its kernel and in proxies before it.
const MOST_TAKEN: usize = 4 * 1024 * 1024;
/// Estimated bytes of a connection and of each of its requests that stands still (`benches/peers
/// stalls` measures both), and how many copies of a head are held while its request waits: one in the
/// app's connection, one for a second try, one in the access log.
const OPEN_BYTES: usize = 16 * 1024;
const STILL_BYTES: usize = 32 * 1024;
const HEAD_COPIES: usize = 3;

/// Least time left of a limit that is not used up: times are kept in milliseconds.
const MILLISECOND: Duration = Duration::from_millis(1);

/// Age up to which a connection counts as new: most answers have come by then.
const JUST_ACCEPTED: Duration = Duration::from_secs(1);

/// Longest time that a connection may be without its first request, or without a further request while few
/// connections are free: a long [`Limits::idle`] is for a front that will send more.
pub const SHORT_IDLE: Duration = Duration::from_secs(75);

/// Limits of the patience with a client.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Time from the accept to the first byte.
    pub first_byte: Duration,
    /// Longest time without a request. See [`SHORT_IDLE`] for when it is shorter.
    pub idle: Duration,
    /// Time from the first byte of a request's head to its last.
    pub head: Duration,
    /// Time for a client that does not read what it has asked for.
    pub stalled: Duration,
}

impl Limits {
    /// Longest time between two looks of the watchdog. No limit is shorter, so the watchdog looks at least once
    /// between the beginning of a limit's time and its end.
    fn shortest(self) -> Duration {
        let shortest = self.idle.min(SHORT_IDLE).min(self.head).min(self.stalled);
        shortest.max(Duration::from_millis(10))
    }
}

/// Event for which a connection waits, and since when. Times are milliseconds since the connection was
/// accepted, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The connection has no request in progress. The rest of an upload that was answered before its end may
    /// come.
    Idle { since: u64 },
    /// Bytes have arrived that may be the beginning of a request's head. The connection counts as idle
    /// meanwhile, because over HTTP/2 these bytes may be frames between requests.
    Head { since: u64, idle_since: u64 },
    /// Requests are in progress. They have time limits of their own.
    Requests,
}

/// The state of one connection. Times are milliseconds since it was accepted, from 1; 0 is never.
pub struct ConnectionState {
    accepted: Instant,
    connection: Arc<ClientConnection>,
    /// Requests whose response has not been sent to its end.
    requests: AtomicUsize,
    /// Whether the last request had a body, which may not have been read to its end.
    had_body: AtomicBool,
    /// Whether the answer to the last request is sent in chunks.
    chunked: AtomicBool,
    /// Set with the first request.
    begun: SetOnce<()>,
    refused_heads: AtomicUsize,
    /// Set when too many heads had to be refused.
    flooded: SetOnce<()>,
    /// Time since when no request is in progress. Has no meaning while there is one.
    idle_since: AtomicU64,
    /// Time at which the head of the next request began to arrive; 0 if nothing has arrived.
    head_since: AtomicU64,
    /// Time since when the client does not read; 0 while the client reads.
    stalled_since: AtomicU64,
    /// Bytes written since the last request, or since the client last stood still for [`OFTEN`] or longer.
    taken: AtomicUsize,
    /// Whether the watchdog looks every [`OFTEN`]; `look_often` wakes the watchdog to begin.
    looks_often: AtomicBool,
    look_often: Notify,
    /// Frames of bodies and whole responses that have passed since the last [`Holder::mark`].
    moved: AtomicUsize,
    /// Requests that have begun since the last [`Holder::mark`].
    fresh: AtomicUsize,
    /// Bytes of the heads of requests in progress, counted only for requests that began while memory
    /// was scarce.
    heads: AtomicUsize,
    memory: Memory,
    /// Set when the connection must end because of the memory that it holds.
    evicted: SetOnce<()>,
    /// Kept here, because the socket holds this state for as long as it is open.
    held: Held,
}

/// Resources that a connection takes up for as long as its socket is open. The socket of a WebSocket outlives
/// all of HTTP.
pub struct Held {
    slot: OwnedSemaphorePermit,
    _seat: Seat,
    /// Dropped last: a connection that no longer counts takes up nothing.
    _open: GaugeGuard,
}

impl Held {
    /// Takes one of the slots of `listen.max_connections`, and counts one connection for its worker and one
    /// in `open`.
    pub fn new(slot: OwnedSemaphorePermit, seat: Seat, open: &IntGauge) -> Self {
        Self { slot, _seat: seat, _open: GaugeGuard::raise(open) }
    }
}

impl ConnectionState {
    pub fn new(held: Held, memory: &Memory) -> Arc<Self> {
        let state = Arc::new(Self {
            accepted: Instant::now(),
            connection: Arc::default(),
            requests: AtomicUsize::new(0),
            had_body: AtomicBool::new(false),
            chunked: AtomicBool::new(false),
            begun: SetOnce::new(),
            refused_heads: AtomicUsize::new(0),
            flooded: SetOnce::new(),
            idle_since: AtomicU64::new(1),
            head_since: AtomicU64::new(0),
            stalled_since: AtomicU64::new(0),
            taken: AtomicUsize::new(0),
            looks_often: AtomicBool::new(false),
            look_often: Notify::new(),
            moved: AtomicUsize::new(0),
            fresh: AtomicUsize::new(0),
            heads: AtomicUsize::new(0),
            memory: memory.clone(),
            evicted: SetOnce::new(),
            held,
        });
        let holder: Weak<Self> = Arc::downgrade(&state);
        memory.register(holder);
        state
    }

    /// Returns the state of the connection that the handler of its requests may read and keep things in.
    pub fn connection(&self) -> Arc<ClientConnection> {
        Arc::clone(&self.connection)
    }

    /// Begins the wait for requests: the time and the bytes so far went into finding out the protocol.
    pub fn rest(&self) {
        self.idle_since.store(self.now(), Ordering::Relaxed);
        self.head_since.store(0, Ordering::Relaxed);
    }

    /// Returns what the connection waits for.
    fn stage(&self) -> Stage {
        if self.waits() {
            return Stage::Requests;
        }
        let idle_since = self.idle_since.load(Ordering::Relaxed);
        match self.head_since.load(Ordering::Relaxed) {
            0 => Stage::Idle { since: idle_since },
            since => Stage::Head { since, idle_since },
        }
    }

    /// Notes that a request's head is complete and a body may follow.
    pub fn begin(self: &Arc<Self>, has_body: bool) -> InProgress {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.fresh.store(self.fresh.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        self.had_body.store(has_body, Ordering::Relaxed);
        self.chunked.store(false, Ordering::Relaxed);
        self.taken.store(0, Ordering::Relaxed);
        self.head_since.store(0, Ordering::Relaxed);
        // An error says that this request was not the first.
        let _ = self.begun.set(());
        InProgress { state: Arc::clone(self), head: 0 }
    }

    /// Counts a head that had to be refused. The connection goes on until too many heads were refused.
    pub fn refuse_head(&self) {
        if self.refused_heads.fetch_add(1, Ordering::Relaxed) >= REFUSED_HEADS {
            // An error says that this head was not the first over the limit.
            let _ = self.flooded.set(());
        }
    }

    /// Notes that the answer to the last request is sent in chunks.
    pub fn answer_in_chunks(&self) {
        self.chunked.store(true, Ordering::Relaxed);
    }

    /// Whether the client may still be sending the body of a request that has been answered.
    pub fn owes_body(&self) -> bool {
        self.had_body.load(Ordering::Relaxed)
    }

    /// Whether fewer than a quarter of `most` connections are free.
    pub fn is_crowded(&self, most: usize) -> bool {
        self.held.slot.semaphore().available_permits() < most / 4
    }

    /// Counts a frame or a response that has passed. A load and a store, because `fetch_add` would cost each
    /// frame more: requests of one connection usually share a thread, and an estimate is enough where they do
    /// not.
    fn count_move(&self) {
        self.moved.store(self.moved.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// Whether the client does not read: the sidecar has bytes for which the client's socket has no
    /// room.
    fn is_stuck(&self) -> bool {
        self.stalled_since.load(Ordering::Relaxed) > 0
    }

    /// Resolves when there has been a request.
    pub async fn first_request(&self) {
        self.begun.wait().await;
    }

    /// Resolves when the connection, one of `most`, has used up one of its limits, in time or in refused
    /// heads.
    pub async fn overdue(&self, mut limits: Limits, most: usize) -> CloseReason {
        let usual = limits.idle;
        let look = limits.shortest();
        let mut pause = look;
        loop {
            // The timer itself wakes the connection's task, which then looks at its socket.
            let often = self.looks_often.load(Ordering::Relaxed);
            tokio::select! {
                () = sleep(if often { pause.min(OFTEN) } else { pause }) => {}
                () = self.look_often.notified() => {}
                () = self.flooded.wait() => return CloseReason::Http2Flood,
                () = self.evicted.wait() => return CloseReason::Memory,
            }
            if often && !self.waits() {
                self.looks_often.store(false, Ordering::Relaxed);
            }
            let short = self.is_crowded(most) || !self.begun.initialized();
            limits.idle = if short { usual.min(SHORT_IDLE) } else { usual };
            match self.time_left(limits) {
                Ok(left) => pause = look.min(left),
                Err(reason) => return reason,
            }
        }
    }

    /// Returns the time until the connection has used up one of its limits.
    ///
    /// # Errors
    ///
    /// The limit that is used up.
    fn time_left(&self, limits: Limits) -> Result<Duration, CloseReason> {
        let now = self.now();
        let left = |since: u64, limit: Duration, reason| {
            let left = limit.saturating_sub(Duration::from_millis(now.saturating_sub(since)));
            if left < MILLISECOND { Err(reason) } else { Ok(left) }
        };
        let stalled = match self.stalled_since.load(Ordering::Relaxed) {
            0 => Duration::MAX,
            since => {
                let taken = self.taken.load(Ordering::Relaxed).min(MOST_TAKEN);
                left(since, patience(limits.stalled, taken), CloseReason::Stalled)?
            }
        };
        let (head, idle) = match self.stage() {
            Stage::Requests => return Ok(stalled),
            Stage::Head { since, idle_since } => {
                (left(since, limits.head, CloseReason::SlowHead)?, idle_since)
            }
            Stage::Idle { since } => (Duration::MAX, since),
        };
        Ok(stalled.min(head).min(left(idle, limits.idle, CloseReason::Idle)?))
    }

    fn now(&self) -> u64 {
        1 + u64::try_from(self.accepted.elapsed().as_millis()).unwrap_or(u64::MAX - 1)
    }
}

impl Watcher for ConnectionState {
    /// Takes bytes between requests as the beginning of a head.
    fn received(&self, _: &mut [u8]) {
        match self.stage() {
            Stage::Requests => {}
            // These bytes are the rest of a request that was answered before its end.
            _ if self.connection.is_uploading() => self.rest(),
            Stage::Idle { .. } => self.head_since.store(self.now(), Ordering::Relaxed),
            Stage::Head { .. } => {}
        }
    }

    fn wrote(&self, _: &[IoSlice<'_>], written: &mut Poll<io::Result<usize>>) {
        let bytes = match written {
            Poll::Ready(written) => *written.as_ref().unwrap_or(&0),
            // tokio lets other tasks have their turn now; the client is not the reason.
            Poll::Pending if !has_budget_remaining() => return,
            Poll::Pending => {
                if self.stalled_since.load(Ordering::Relaxed) == 0 {
                    self.stalled_since.store(self.now(), Ordering::Relaxed);
                }
                return;
            }
        };
        let since = self.stalled_since.load(Ordering::Relaxed);
        let mut before = self.taken.load(Ordering::Relaxed);
        if since > 0 {
            self.stalled_since.store(0, Ordering::Relaxed);
            if u128::from(self.now().saturating_sub(since)) >= OFTEN.as_millis() {
                before = 0;
            }
        }
        self.taken.store(before.saturating_add(bytes), Ordering::Relaxed);
    }
}

impl Waiting for ConnectionState {
    fn waits(&self) -> bool {
        self.requests.load(Ordering::Relaxed) > 0
    }

    fn is_chunked(&self) -> bool {
        self.chunked.load(Ordering::Relaxed)
    }

    fn look_often(&self) {
        if !self.looks_often.swap(true, Ordering::Relaxed) {
            self.look_often.notify_one();
        }
    }
}

impl Holder for ConnectionState {
    fn holds(&self) -> u64 {
        let requests = self.requests.load(Ordering::Relaxed);
        let still = requests.saturating_sub(self.moved.load(Ordering::Relaxed));
        // Ends clients that do not read first, then clients that wait, last clients that have just
        // come or asked.
        let each = match self.is_stuck() {
            true => 2 * STILL_BYTES,
            false if still <= self.fresh.load(Ordering::Relaxed) => STILL_BYTES / 8,
            false if self.accepted.elapsed() < JUST_ACCEPTED => STILL_BYTES / 4,
            false => STILL_BYTES,
        };
        (OPEN_BYTES + still * each + HEAD_COPIES * self.heads.load(Ordering::Relaxed)) as u64
    }

    fn mark(&self) {
        self.moved.store(0, Ordering::Relaxed);
        self.fresh.store(0, Ordering::Relaxed);
    }

    fn end(&self) -> bool {
        self.evicted.set(()).is_ok()
    }
}

/// A request in progress on a connection.
pub struct InProgress {
    state: Arc<ConnectionState>,
    head: usize,
}

impl InProgress {
    /// Adds the bytes of the request's head to what the connection holds.
    pub fn weigh(&mut self, head: usize) {
        self.head = head;
        self.state.heads.fetch_add(head, Ordering::Relaxed);
    }
}

impl Drop for InProgress {
    fn drop(&mut self) {
        let state = &self.state;
        if state.requests.fetch_sub(1, Ordering::Relaxed) == 1 {
            state.idle_since.store(state.now(), Ordering::Relaxed);
        }
        state.count_move();
        if self.head > 0 {
            state.heads.fetch_sub(self.head, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::Semaphore;
    use tokio::time::advance;

    use super::*;
    use ground::metrics::ListenerMetrics;

    const LIMITS: Limits = Limits {
        first_byte: Duration::from_secs(75),
        idle: Duration::from_secs(75),
        head: Duration::from_secs(10),
        stalled: Duration::from_secs(60),
    };

    fn held() -> Held {
        let slot = Arc::new(Semaphore::new(1)).try_acquire_owned().expect("one is free");
        Held::new(slot, Seat::default(), &ListenerMetrics::detached().connections)
    }

    /// Lets `seconds` pass, and returns the limit that is used up then.
    async fn after(seconds: u64, state: &ConnectionState) -> Option<CloseReason> {
        advance(Duration::from_secs(seconds)).await;
        state.time_left(LIMITS).err()
    }

    #[tokio::test(start_paused = true)]
    async fn connection_is_closed_by_the_limit_of_its_stage() {
        let state = ConnectionState::new(held(), &Memory::default());
        assert_eq!(after(74, &state).await, None);
        assert_eq!(after(1, &state).await, Some(CloseReason::Idle));

        drop(state.begin(false));
        state.received(&mut []);
        assert_eq!(after(9, &state).await, None);
        state.received(&mut []);
        assert_eq!(after(1, &state).await, Some(CloseReason::SlowHead), "since its first byte");

        let request = state.begin(false);
        assert_eq!(after(1000, &state).await, None, "a request may take its time");
        state.received(&mut []);
        state.wrote(&[], &mut Poll::Pending);
        assert_eq!(after(59, &state).await, None);
        assert_eq!(after(1, &state).await, Some(CloseReason::Stalled));
        state.wrote(&[], &mut Poll::Ready(Ok(1)));
        assert_eq!(after(1000, &state).await, None);

        // A client that has taken much at once may still be reading these bytes.
        state.wrote(&[], &mut Poll::Ready(Ok(1024 * 1024)));
        state.wrote(&[], &mut Poll::Pending);
        assert_eq!(after(119, &state).await, None);
        assert_eq!(after(2, &state).await, Some(CloseReason::Stalled));
        state.wrote(&[], &mut Poll::Ready(Ok(1)));

        drop(request);
        assert_eq!(after(74, &state).await, None);
        assert_eq!(after(1, &state).await, Some(CloseReason::Idle));
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_between_requests_leave_the_connection_idle() {
        // Over HTTP/2 frames between requests are not the beginning of a head.
        for (head, expected) in
            [(LIMITS.head, CloseReason::SlowHead), (Duration::MAX, CloseReason::Idle)]
        {
            let limits = Limits { head, ..LIMITS };
            let state = ConnectionState::new(held(), &Memory::default());
            drop(state.begin(false));
            state.received(&mut []);
            assert_eq!(state.overdue(limits, 1).await, expected);
        }
        // A head that begins shortly before the end of the idle time does not prolong the idle time.
        let state = ConnectionState::new(held(), &Memory::default());
        drop(state.begin(false));
        assert_eq!(after(70, &state).await, None);
        state.received(&mut []);
        assert_eq!(after(4, &state).await, None);
        assert_eq!(after(1, &state).await, Some(CloseReason::Idle));
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_of_a_handshake_or_beside_a_request_begin_no_head() {
        let shaken = ConnectionState::new(held(), &Memory::default());
        shaken.received(&mut []);
        assert_eq!(after(9, &shaken).await, None);
        shaken.rest();
        assert_eq!(after(74, &shaken).await, None);
        assert_eq!(after(1, &shaken).await, Some(CloseReason::Idle));

        // Half of a pipelined head: the connection ends like one without a further request.
        let pipelined = ConnectionState::new(held(), &Memory::default());
        let request = pipelined.begin(false);
        pipelined.received(&mut []);
        drop(request);
        assert_eq!(after(74, &pipelined).await, None);
        assert_eq!(after(1, &pipelined).await, Some(CloseReason::Idle));
    }

    #[tokio::test(start_paused = true)]
    async fn one_of_two_requests_leaves_the_connection_busy() {
        let state = ConnectionState::new(held(), &Memory::default());
        let (first, second) = (state.begin(false), state.begin(false));
        drop(first);
        assert_eq!(after(1000, &state).await, None);
        drop(second);
        assert_eq!(after(75, &state).await, Some(CloseReason::Idle));
    }

    #[tokio::test(start_paused = true)]
    async fn rest_of_an_answered_upload_counts_as_no_head() {
        let state = ConnectionState::new(held(), &Memory::default());
        let connection = state.connection();
        let (request, upload) = (state.begin(true), connection.begin_upload());
        drop(request);
        for _ in 0..4 {
            assert_eq!(after(40, &state).await, None);
            state.received(&mut []);
        }
        assert_eq!(after(74, &state).await, None);
        assert_eq!(after(1, &state).await, Some(CloseReason::Idle));
        state.received(&mut []);
        drop(upload);
        state.received(&mut []);
        assert_eq!(after(9, &state).await, None);
        assert_eq!(after(1, &state).await, Some(CloseReason::SlowHead));
    }

    /// Begins one limit's time at `begins_after`, and checks that the watchdog ends the connection on time.
    async fn ends_on_time(
        begin: fn(&Arc<ConnectionState>),
        begins_after: Duration,
        limits: Limits,
        (reason, limit): (CloseReason, Duration),
    ) {
        let state = ConnectionState::new(held(), &Memory::default());
        drop(state.begin(false));
        let begins = async {
            sleep(begins_after).await;
            begin(&state);
            Instant::now()
        };
        let overdue = async { (state.overdue(limits, 1).await, Instant::now()) };
        let ((reported, ended), start) = tokio::join!(overdue, begins);
        assert_eq!(reported, reason, "{begins_after:?}");
        let late = (ended - start).checked_sub(limit).expect("not too early");
        assert!(late <= 2 * MILLISECOND, "{reason:?} {begins_after:?}: {late:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn limits_are_kept_to_the_millisecond() {
        // Over HTTP/2 the frames between requests are no head, so the looks are further apart.
        for limits in [LIMITS, Limits { head: Duration::MAX, ..LIMITS }] {
            for begins_after in [0, 1, 9_999, 10_001, 33_333, 59_999] {
                let begins_after = Duration::from_millis(begins_after);
                let idle = (CloseReason::Idle, limits.idle);
                ends_on_time(|state| drop(state.begin(false)), begins_after, limits, idle).await;
                if limits.head < Duration::MAX {
                    let head = (CloseReason::SlowHead, limits.head);
                    ends_on_time(|state| state.received(&mut []), begins_after, limits, head).await;
                }
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn idle_connections_end_earlier_while_few_are_free() {
        let limits = Limits { idle: Duration::from_secs(3900), ..LIMITS };
        for (open, asked, expected) in [
            (1, true, limits.idle),
            (75, true, limits.idle),
            (76, true, SHORT_IDLE),
            (1, false, SHORT_IDLE),
        ] {
            let slots = Arc::new(Semaphore::new(100));
            let mut held = (0..open).map(|_| {
                let slot = Arc::clone(&slots).try_acquire_owned().expect("one is free");
                Held::new(slot, Seat::default(), &ListenerMetrics::detached().connections)
            });
            let state = ConnectionState::new(held.next().expect("one"), &Memory::default());
            let _others: Vec<_> = held.collect();
            if asked {
                drop(state.begin(false));
            }
            let start = Instant::now();
            assert_eq!(state.overdue(limits, 100).await, CloseReason::Idle);
            let after = start.elapsed();
            assert!(after >= expected && after <= expected + limits.head, "{open}: {after:?}");
        }
    }
}

//! Reads that leave little behind where memory is short.

use std::cell::RefCell;
use std::io;
use std::mem;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use tokio::io::{AsyncRead, ReadBuf};

use super::{MUCH, Memory};
use crate::tcp::{Filter, Filtered};

/// Bytes read at once while memory is short. hyper asks for 8,192 bytes at first, and for twice as many after
/// each read that filled its buffer, up to its limit: a read that is one byte shorter keeps hyper at 8,192.
const SHORT_READ: usize = 8 * 1024 - 1;

thread_local! {
    /// Buffer of short reads, from which the bytes are copied. A loan of a part of hyper's own buffer would
    /// need all of that buffer to be written first.
    static READ_BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; SHORT_READ].into());
}

/// Tells the connection to the app whether the reader of a response wants more of the response. By itself,
/// hyper reads one piece ahead of the reader. With `Demand`, that piece stays in the kernel if the response
/// is long or memory is short.
#[derive(Default)]
pub struct Demand {
    /// [`WANTS`], [`MET`] or [`MET_BY_MUCH`].
    state: AtomicU8,
    /// Whether the connection has only to read, because its request has no body.
    only_reads: AtomicBool,
    /// Task that would have read ahead.
    reading: Mutex<Option<Waker>>,
}

/// The reader wants more.
const WANTS: u8 = 0;
/// The reader has a piece to work on.
const MET: u8 = 1;
/// The reader has a piece to work on, and much is to come.
const MET_BY_MUCH: u8 = 2;

impl Demand {
    /// Begins with a request, which has a body or none.
    pub fn begin(&self, has_body: bool) {
        self.only_reads.store(!has_body, Ordering::Relaxed);
        self.wants();
    }

    /// Waits until there is something to do for the connection. A connection that only reads need not be
    /// polled while its reader has a piece to work on: hyper would allocate a buffer for the next piece,
    /// and find that it may not read.
    pub fn poll_busy(&self, memory: &Memory, context: &mut Context<'_>) -> Poll<()> {
        if self.only_reads.load(Ordering::Relaxed) {
            ready!(self.poll_wanted(memory.is_short(), context));
        }
        Poll::Ready(())
    }

    /// Notes that the reader has a piece to work on, and that at least `rest` bytes are to come. Until the
    /// next call of [`Demand::wants`], the stream is not read if the rest is long or memory is short.
    pub fn meet(&self, rest: u64) {
        let state = if rest > MUCH { MET_BY_MUCH } else { MET };
        self.state.store(state, Ordering::Release);
    }

    /// Notes that the reader wants more.
    pub fn wants(&self) {
        if self.state.load(Ordering::Relaxed) != WANTS {
            self.state.store(WANTS, Ordering::Release);
            if let Some(reading) = mem::take(&mut *self.reading()) {
                reading.wake();
            }
        }
    }

    /// Waits until the reader wants more.
    fn poll_wanted(&self, is_short: bool, context: &mut Context<'_>) -> Poll<()> {
        let is_met = || match self.state.load(Ordering::Acquire) {
            WANTS => false,
            MET => is_short,
            _ => true,
        };
        if is_met() {
            *self.reading() = Some(context.waker().clone());
            // Look again: the reader may have looked for the waker before the waker was stored.
            if is_met() {
                return Poll::Pending;
            }
        }
        Poll::Ready(())
    }

    fn reading(&self) -> MutexGuard<'_, Option<Waker>> {
        self.reading.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Stream that is read in small pieces while [`Memory::is_short`]. hyper passes on each piece as it was
/// read, so each read stays in memory until the other side takes it.
pub type Thrifty<S> = Filtered<Thrift, S>;

/// Limits the bytes that are read at once while memory is short.
pub struct Thrift {
    memory: Memory,
    is_short: fn(&Memory) -> bool,
    demand: Option<Arc<Demand>>,
}

impl Thrift {
    /// Limits reads of the app's connection of HTTP/1.1, whose responses are read on `demand`.
    pub fn app<S>(stream: S, memory: Memory, demand: Arc<Demand>) -> Thrifty<S> {
        let filter = Self { memory, is_short: Memory::is_short, demand: Some(demand) };
        Filtered { filter, stream }
    }

    /// Limits reads of a client's connection of HTTP/1.1, and pauses them as [`super::Paused`] does.
    pub fn client<S>(stream: S, memory: Memory) -> Thrifty<S> {
        let filter = Self { memory, is_short: Memory::is_short_for_uploads, demand: None };
        Filtered { filter, stream }
    }
}

impl Filter for Thrift {
    fn poll_read<S: AsyncRead + Unpin>(
        &mut self,
        stream: &mut S,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let is_short = (self.is_short)(&self.memory);
        ready!(match &self.demand {
            Some(demand) => demand.poll_wanted(is_short, context),
            None => self.memory.poll_may_read(context),
        });
        let stream = Pin::new(stream);
        if !is_short || buffer.remaining() <= SHORT_READ {
            return stream.poll_read(context, buffer);
        }
        READ_BUFFER.with_borrow_mut(|bytes| {
            let mut read = ReadBuf::new(bytes);
            ready!(stream.poll_read(context, &mut read))?;
            buffer.put_slice(read.filled());
            Poll::Ready(Ok(()))
        })
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt as _, Empty};
    use hyper::client::conn::http1::handshake;
    use hyper_util::rt::TokioIo;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::super::ROOMY_EXCHANGES;
    use super::*;

    /// The longest piece of a body that hyper hands on from a connection with `exchanges` beside it.
    async fn longest_piece(exchanges: usize) -> usize {
        let memory = Memory::default();
        let _held: Vec<_> = (0..exchanges).map(|_| memory.count_exchange()).collect();
        let (ours, mut theirs) = duplex(1024 * 1024);
        let io = TokioIo::new(Thrift::app(ours, memory.clone(), Arc::default()));
        let (mut sender, connection) = handshake(io).await.expect("a connection");
        tokio::spawn(connection);
        tokio::spawn(async move {
            let mut head = [0; 1024];
            let _ = theirs.read(&mut head).await.expect("a request");
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 900000\r\n\r\n";
            theirs.write_all(answer).await.expect("room");
            theirs.write_all(&vec![b'x'; 900_000]).await.expect("room");
        });
        let request = http::Request::new(Empty::<bytes::Bytes>::new());
        let mut body = sender.send_request(request).await.expect("an answer").into_body();
        let (mut longest, mut total) = (0, 0);
        while let Some(frame) = body.frame().await {
            let length = frame.expect("a frame").data_ref().expect("data").len();
            longest = longest.max(length);
            total += length;
        }
        assert_eq!(total, 900_000);
        longest
    }

    /// Bytes of a body that are read while its reader has a piece to work on and `rest` is to come.
    async fn read_ahead(exchanges: usize, rest: u64) -> usize {
        let memory = Memory::default();
        let _held: Vec<_> = (0..exchanges).map(|_| memory.count_exchange()).collect();
        let (ours, mut theirs) = duplex(1024);
        let demand = Arc::new(Demand::default());
        let mut stream = Thrift::app(ours, memory, Arc::clone(&demand));
        demand.meet(rest);
        let reading = tokio::spawn(async move {
            let mut bytes = [0; 100];
            stream.read_exact(&mut bytes).await.map(|_| bytes.len())
        });
        theirs.write_all(&[b'x'; 100]).await.expect("room");
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        let ahead = if reading.is_finished() { 100 } else { 0 };
        demand.wants();
        assert_eq!(reading.await.expect("no panic").expect("bytes"), 100, "it is woken");
        ahead
    }

    #[test]
    fn connection_that_only_reads_waits_while_its_reader_works() {
        let (memory, demand) = (Memory::default(), Demand::default());
        let waits =
            || demand.poll_busy(&memory, &mut Context::from_waker(Waker::noop())).is_pending();
        demand.begin(false);
        assert!(!waits(), "nothing has come yet");
        demand.meet(MUCH);
        assert!(!waits(), "little is to come, and memory is not short");
        demand.meet(MUCH + 1);
        assert!(waits());
        demand.wants();
        assert!(!waits());
        demand.meet(MUCH + 1);
        demand.begin(false);
        assert!(!waits(), "the next request goes out");
        demand.begin(true);
        demand.meet(MUCH + 1);
        assert!(!waits(), "a body may still have to be sent");
    }

    #[tokio::test]
    async fn nothing_is_read_ahead_if_memory_is_short_or_much_to_come() {
        assert_eq!(read_ahead(ROOMY_EXCHANGES, MUCH).await, 100);
        assert_eq!(read_ahead(ROOMY_EXCHANGES, MUCH + 1).await, 0);
        assert_eq!(read_ahead(ROOMY_EXCHANGES + 1, 0).await, 0);
    }

    #[tokio::test]
    async fn many_exchanges_keep_reads_short() {
        assert!(longest_piece(ROOMY_EXCHANGES).await > 64 * 1024);
        assert_eq!(longest_piece(ROOMY_EXCHANGES + 1).await, SHORT_READ);
    }
}

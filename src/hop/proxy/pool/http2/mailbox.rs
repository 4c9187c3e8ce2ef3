//! The body of a response over HTTP/2 as it arrives, kept for a client that may not read it.

use std::collections::VecDeque;
use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use bytes::{Bytes, BytesMut};
use h2::RecvStream;
use http::HeaderMap;
use http_body::{Frame, SizeHint};

use super::Ticket;

/// Step by which the buffer for unread bytes grows.
const STEP: usize = 4096;

/// Mailboxes of one connection for which frames have arrived.
///
/// h2 calls a stream's waker while h2 is locked, so the frame can't be taken then. The frame is taken
/// at the end of the same turn of the connection's task.
#[derive(Default)]
pub(super) struct Round {
    due: Mutex<Due>,
    /// Mailboxes of the turn before.
    lately: Mutex<Vec<Arc<Mailbox>>>,
}

#[derive(Default)]
struct Due {
    mailboxes: Vec<Arc<Mailbox>>,
    /// Whether the task will look at the mailboxes before it sleeps.
    is_awake: bool,
    task: Option<Waker>,
}

impl Round {
    /// Begins a turn of the connection's task.
    pub(super) fn begin(&self, task: &Waker) {
        let mut due = locked(&self.due);
        if !due.task.as_ref().is_some_and(|known| known.will_wake(task)) {
            due.task = Some(task.clone());
        }
        due.is_awake = true;
    }

    /// Ends a turn: moves what has arrived from h2 into the mailboxes.
    pub(super) fn deliver(&self) {
        // Clients that read have taken their bytes since the last turn.
        for mailbox in mem::take(&mut *locked(&self.lately)) {
            mailbox.settle();
        }
        while let Some(mailboxes) = self.take() {
            for mailbox in &mailboxes {
                mailbox.fill();
            }
            locked(&self.lately).extend(mailboxes);
        }
    }

    /// Takes the mailboxes for which frames have arrived. If there are none, the turn is over.
    fn take(&self) -> Option<Vec<Arc<Mailbox>>> {
        let mut due = locked(&self.due);
        if due.mailboxes.is_empty() {
            due.is_awake = false;
            return None;
        }
        Some(mem::take(&mut due.mailboxes))
    }

    /// Wakes the connection's task.
    pub(super) fn wake(&self) {
        if let Some(task) = &locked(&self.due).task {
            task.wake_by_ref();
        }
    }

    fn add(&self, mailbox: Arc<Mailbox>) {
        let mut due = locked(&self.due);
        due.mailboxes.push(mailbox);
        if !due.is_awake
            && let Some(task) = &due.task
        {
            task.wake_by_ref();
        }
    }
}

/// Unread part of one response. Frames leave h2 as soon as they arrive, so that h2's records of frames,
/// which all streams of a connection share, never grow. The window is given back only when the client
/// takes the bytes.
pub(super) struct Mailbox {
    round: Arc<Round>,
    is_due: AtomicBool,
    content: Mutex<Content>,
}

struct Content {
    /// Stream; `None` once all has arrived, or the reader is dropped.
    stream: Option<RecvStream>,
    ticket: Option<Arc<Ticket>>,
    /// Bytes that have stayed for longer than a turn, copied: a frame would keep the whole buffer into
    /// which it was read.
    settled: BytesMut,
    frames: VecDeque<Bytes>,
    unread: usize,
    trailers: Option<HeaderMap>,
    end: Option<Result<(), h2::Error>>,
    reader: Option<Waker>,
}

impl Mailbox {
    fn fill(self: &Arc<Self>) {
        self.is_due.store(false, Ordering::Release);
        let waker = Waker::from(Arc::clone(self));
        let mut content = locked(&self.content);
        let ticket = content.fill(&mut Context::from_waker(&waker));
        let reader = content.reader.take();
        drop(content);
        drop(ticket);
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    fn settle(&self) {
        locked(&self.content).settle();
    }
}

impl Content {
    /// Takes all that has arrived. At the end, returns the ticket, for which other requests may be
    /// waiting.
    fn fill(&mut self, context: &mut Context<'_>) -> Option<Arc<Ticket>> {
        let stream = self.stream.as_mut()?;
        let end = loop {
            match stream.poll_data(context) {
                Poll::Ready(Some(Ok(bytes))) => {
                    self.unread += bytes.len();
                    if !bytes.is_empty() {
                        self.frames.push_back(bytes);
                    }
                }
                Poll::Ready(Some(Err(error))) => break Err(error),
                Poll::Ready(None) => match stream.poll_trailers(context) {
                    Poll::Ready(Ok(trailers)) => {
                        self.trailers = trailers;
                        break Ok(());
                    }
                    Poll::Ready(Err(error)) => break Err(error),
                    Poll::Pending => return None,
                },
                Poll::Pending => return None,
            }
        };
        // All has arrived, so the connection's window need not wait for the client.
        let _ = stream.flow_control().release_capacity(self.unread);
        self.end = Some(end);
        self.stream = None;
        self.ticket.take()
    }

    fn settle(&mut self) {
        if self.frames.is_empty() {
            return;
        }
        let needed = self.unread - self.settled.len();
        if self.settled.capacity() - self.settled.len() < needed {
            let room = self.unread.next_multiple_of(STEP);
            let mut grown = BytesMut::with_capacity(room);
            grown.extend_from_slice(&self.settled);
            self.settled = grown;
        }
        for frame in mem::take(&mut self.frames) {
            self.settled.extend_from_slice(&frame);
        }
    }

    fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        let bytes = if self.settled.is_empty() {
            self.frames.pop_front()
        } else {
            Some(mem::take(&mut self.settled).freeze())
        };
        if let Some(bytes) = bytes {
            self.unread -= bytes.len();
            if let Some(stream) = &mut self.stream {
                let _ = stream.flow_control().release_capacity(bytes.len());
            }
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        if let Some(trailers) = self.trailers.take() {
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
        match &mut self.end {
            Some(Ok(())) => Poll::Ready(None),
            Some(end) => Poll::Ready(mem::replace(end, Ok(())).err().map(Err)),
            None => {
                self.reader = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }

    fn is_at_end(&self) -> bool {
        let nothing_left = self.unread == 0 && self.trailers.is_none();
        nothing_left && matches!(self.end, Some(Ok(())))
    }
}

impl Wake for Mailbox {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.is_due.swap(true, Ordering::AcqRel) {
            self.round.add(Arc::clone(self));
        }
    }
}

/// Reader's end of a [`Mailbox`]. Resets the stream if it is dropped before the end.
struct Reader(Arc<Mailbox>);

impl Reader {
    /// Reads `stream`, which counts as open for as long as `ticket` lives.
    fn of(stream: RecvStream, round: &Arc<Round>, ticket: Arc<Ticket>) -> Self {
        let content = Content {
            stream: Some(stream),
            ticket: Some(ticket),
            settled: BytesMut::new(),
            frames: VecDeque::new(),
            unread: 0,
            trailers: None,
            end: None,
            reader: None,
        };
        let mailbox = Arc::new(Mailbox {
            round: Arc::clone(round),
            is_due: AtomicBool::new(false),
            content: Mutex::new(content),
        });
        mailbox.fill();
        Self(mailbox)
    }

    fn poll_frame(
        &self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        locked(&self.0.content).poll_frame(context)
    }

    /// Whether all bytes have been read.
    fn is_at_end(&self) -> bool {
        locked(&self.0.content).is_at_end()
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut content = locked(&self.0.content);
        let (stream, ticket) = (content.stream.take(), content.ticket.take());
        drop(content);
        // The place is freed before the next request is woken, which must find it free.
        drop(stream);
        drop(ticket);
    }
}

/// Body of a response over HTTP/2.
pub(in crate::proxy) struct Inbound {
    /// Reader; `None` if the response has no body.
    reader: Option<Reader>,
    length: Option<u64>,
}

impl Inbound {
    /// Makes the body of a response that says that it has `length` bytes.
    pub(in crate::proxy) fn new(
        stream: RecvStream,
        ticket: Arc<Ticket>,
        length: Option<u64>,
    ) -> Self {
        if stream.is_end_stream() {
            return Self { reader: None, length: length.or(Some(0)) };
        }
        let round = Arc::clone(ticket.connection().round());
        Self { reader: Some(Reader::of(stream, &round, ticket)), length }
    }

    pub(in crate::proxy) fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        let Some(reader) = &self.reader else { return Poll::Ready(None) };
        let frame = reader.poll_frame(context);
        if let (Poll::Ready(Some(Ok(frame))), Some(length)) = (&frame, &mut self.length) {
            let bytes = frame.data_ref().map_or(0, Bytes::len);
            *length = length.saturating_sub(bytes as u64);
        }
        frame
    }

    pub(in crate::proxy) fn is_end_stream(&self) -> bool {
        self.reader.as_ref().is_none_or(Reader::is_at_end)
    }

    pub(in crate::proxy) fn size_hint(&self) -> SizeHint {
        self.length.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

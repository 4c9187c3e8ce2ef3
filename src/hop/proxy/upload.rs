//! Body of a request on its way to an app over HTTP/2, and its beginning, kept to be sent once more.

use std::future::poll_fn;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use h2::{Reason, SendStream};
use http::HeaderMap;
use http_body::Body as _;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::pool::http2::{Load, Ticket};
use super::request_body::{RequestBody, RequestBodyError};

/// Bytes of a body's beginning that are kept for a second try.
const KEPT: usize = 16 * 1024;

/// Time for which an app that has answered in full may leave the rest of the request unread.
const LINGER: Duration = Duration::from_secs(30);

/// Body of a request, and how much of it has been sent.
pub(super) struct Source {
    rest: RequestBody,
    /// Bytes that have come from the client so far, if they are few. Copied, since a piece of a body
    /// keeps the whole buffer into which it was read.
    kept: Option<BytesMut>,
    trailers: Option<HeaderMap>,
    /// Bytes that are sent again before more is read from the client.
    replayed: Bytes,
    is_drained: bool,
    moved: u64,
}

/// A piece of a body.
enum Piece {
    Data(Bytes),
    Trailers(HeaderMap),
}

impl Source {
    pub(super) fn new(rest: RequestBody) -> Self {
        let is_drained = rest.is_end_stream();
        let is_short = rest.size_hint().lower() <= KEPT as u64;
        let kept = is_short.then(BytesMut::new);
        Self { rest, kept, trailers: None, replayed: Bytes::new(), is_drained, moved: 0 }
    }

    /// Whether nothing is left to send.
    pub(super) fn is_empty(&self) -> bool {
        self.is_drained && self.replayed.is_empty() && self.trailers.is_none()
    }

    /// Load that the body adds to its connection.
    pub(super) fn load(&self) -> Load {
        if self.is_empty() {
            return Load::None;
        }
        let length = self.rest.size_hint().exact();
        length.map_or(Load::Unknown, |rest| Load::Known(rest + self.moved))
    }

    /// Goes back to the beginning. `false` if more bytes have come than are kept.
    pub(super) fn rewind(&mut self) -> bool {
        let Some(kept) = &self.kept else { return false };
        self.replayed = Bytes::copy_from_slice(kept);
        true
    }

    fn poll_piece(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Piece, RequestBodyError>>> {
        if !self.replayed.is_empty() {
            return Poll::Ready(Some(Ok(Piece::Data(mem::take(&mut self.replayed)))));
        }
        if self.is_drained {
            return Poll::Ready(
                self.trailers.clone().map(|trailers| Ok(Piece::Trailers(trailers))),
            );
        }
        let frame = match ready!(Pin::new(&mut self.rest).poll_frame(context)) {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => return Poll::Ready(Some(Err(error))),
            None => {
                self.drain();
                return Poll::Ready(None);
            }
        };
        let piece = match frame.into_data() {
            Ok(bytes) => {
                self.moved += bytes.len() as u64;
                self.keep(&bytes);
                Piece::Data(bytes)
            }
            Err(frame) => {
                let trailers = frame.into_trailers().unwrap_or_default();
                self.trailers = Some(trailers.clone());
                Piece::Trailers(trailers)
            }
        };
        if self.rest.is_end_stream() || self.trailers.is_some() {
            self.drain();
        }
        Poll::Ready(Some(Ok(piece)))
    }

    fn keep(&mut self, bytes: &Bytes) {
        if let Some(kept) = &mut self.kept {
            if kept.len() + bytes.len() > KEPT {
                self.kept = None;
            } else {
                kept.extend_from_slice(bytes);
            }
        }
    }

    /// Notes that the whole body has come. Drops the client's body, which tells others that it has been
    /// sent.
    fn drain(&mut self) {
        self.is_drained = true;
        self.rest = RequestBody::default();
    }
}

/// Body on its way over one stream.
pub(super) struct Upload {
    source: Source,
    stream: SendStream<Bytes>,
    /// Bytes for which the app has no room yet.
    left: Bytes,
    ticket: Arc<Ticket>,
    is_done: bool,
}

impl Upload {
    /// Begins to send `source`. A body that ended with the head is done already.
    pub(super) fn new(source: Source, stream: SendStream<Bytes>, ticket: &Arc<Ticket>) -> Self {
        let is_done = source.is_empty();
        let ticket = Arc::clone(ticket);
        Self { source, stream, left: Bytes::new(), ticket, is_done }
    }

    pub(super) fn is_done(&self) -> bool {
        self.is_done
    }

    /// Takes out the body, to send it again.
    pub(super) fn into_source(self) -> Source {
        self.source
    }

    /// Sends as much as has come and the app takes. An app that takes no more says so in its answer.
    ///
    /// # Errors
    ///
    /// The error of the client's body.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<(), RequestBodyError>> {
        if self.is_done {
            return Poll::Ready(Ok(()));
        }
        let sent = ready!(self.poll_sent(context));
        self.is_done = true;
        if sent.is_err() {
            self.stream.send_reset(Reason::CANCEL);
        }
        Poll::Ready(sent)
    }

    fn poll_sent(&mut self, context: &mut Context<'_>) -> Poll<Result<(), RequestBodyError>> {
        loop {
            if !self.left.is_empty() {
                let Some(room) = ready!(self.poll_room(context)) else {
                    return Poll::Ready(Ok(()));
                };
                let piece = self.left.split_to(room.min(self.left.len()));
                let is_last = self.left.is_empty() && self.source.is_empty();
                self.ticket.charge(piece.len());
                if self.stream.send_data(piece, is_last).is_err() || is_last {
                    return Poll::Ready(Ok(()));
                }
                continue;
            }
            // Looks for a reset before the body is polled, since the client may send nothing for long.
            if self.stream.poll_reset(context).is_ready() {
                return Poll::Ready(Ok(()));
            }
            match ready!(self.source.poll_piece(context)) {
                Some(Ok(Piece::Data(bytes))) => {
                    self.left = bytes;
                    if self.left.is_empty() && self.source.is_empty() {
                        let _ = self.stream.send_data(Bytes::new(), true);
                        return Poll::Ready(Ok(()));
                    }
                }
                Some(Ok(Piece::Trailers(trailers))) => {
                    let _ = self.stream.send_trailers(trailers);
                    return Poll::Ready(Ok(()));
                }
                Some(Err(error)) => return Poll::Ready(Err(error)),
                None => {
                    let _ = self.stream.send_data(Bytes::new(), true);
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }

    /// Bytes that the app takes now. `None` if it takes no more at all.
    fn poll_room(&mut self, context: &mut Context<'_>) -> Poll<Option<usize>> {
        self.stream.reserve_capacity(self.left.len());
        let room = self.stream.capacity();
        if room > 0 {
            return Poll::Ready(Some(room));
        }
        self.stream.poll_capacity(context).map(|room| room.and_then(Result::ok))
    }

    /// Goes on after the app has begun to answer, for as long as the answer is read, and then for as
    /// long as the app goes on reading the request. Ends at once when the guard is dropped.
    pub(super) fn go_on(mut self) -> Uploading {
        // A request that has been answered is not sent again.
        self.source.kept = None;
        let (guard, mut answered) = oneshot::channel::<()>();
        tokio::spawn(async move {
            let reading = &mut answered;
            tokio::select! {
                _ = poll_fn(|context| self.poll(context)) => return,
                // Resolves when the answer has been read to its end, or has been dropped before.
                read = reading => if read.is_err() {
                    return self.stream.send_reset(Reason::CANCEL);
                }
            }
            loop {
                let before = self.progress();
                let more = poll_fn(|context| self.poll(context));
                match timeout(LINGER, more).await {
                    Ok(_) => return,
                    Err(_) if self.progress() == before => {
                        return self.stream.send_reset(Reason::CANCEL);
                    }
                    Err(_) => {}
                }
            }
        });
        Uploading(Some(guard))
    }

    fn progress(&self) -> (u64, usize) {
        (self.source.moved, self.left.len())
    }
}

/// Guard of a body that is still on its way. Dropping the guard resets the stream.
pub(super) struct Uploading(Option<oneshot::Sender<()>>);

impl Uploading {
    /// Notes that the answer has been read to its end: the app may go on reading the request.
    pub(super) fn answered(&mut self) {
        if let Some(guard) = mem::take(&mut self.0) {
            let _ = guard.send(());
        }
    }
}

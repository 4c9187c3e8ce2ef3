//! The body of a response in progress, as the connection's watchdog and the memory budget see it.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::{Activity, InProgress};
use crate::listener::stream::hands_out;

/// Bytes of a piece into which an HTTP/2 frame is cut while memory is short. hyper holds two frames for
/// a client that does not read; cut, the two are parts of one read of 8 KiB.
const PIECE_BYTES: usize = 4 * 1024;

/// The body of a response in progress.
pub struct Attended<B> {
    /// `None` for an answer of the listener's own, which has nothing in it.
    body: Option<B>,
    /// Rest of a frame that goes out in pieces.
    rest: Bytes,
    http2: bool,
    in_progress: InProgress,
}

impl<B> Attended<B> {
    /// Connection over which the body is sent.
    pub fn connection(&self) -> &Activity {
        &self.in_progress.activity
    }

    pub fn new(body: B, http2: bool, in_progress: InProgress) -> Self {
        Self { body: Some(body), rest: Bytes::new(), http2, in_progress }
    }

    pub fn nothing(in_progress: InProgress) -> Self {
        Self { body: None, rest: Bytes::new(), http2: true, in_progress }
    }
}

impl<B> Attended<B> {
    /// Cuts an HTTP/2 frame that is longer than a piece, and returns the first piece.
    fn begin_pieces(&mut self, frame: Frame<Bytes>) -> Frame<Bytes> {
        match frame.into_data() {
            Ok(data) if data.len() > PIECE_BYTES => {
                self.rest = data;
                self.piece()
            }
            Ok(data) => Frame::data(data),
            Err(frame) => frame,
        }
    }

    fn piece(&mut self) -> Frame<Bytes> {
        let length = self.rest.len().min(PIECE_BYTES);
        Frame::data(self.rest.split_to(length))
    }
}

impl<B: Body<Data = Bytes> + Unpin> Attended<B> {
    fn poll_next(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        if !self.rest.is_empty() {
            return Poll::Ready(Some(Ok(self.piece())));
        }
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let Poll::Ready(frame) = Pin::new(body).poll_frame(context) else { return Poll::Pending };
        self.in_progress.activity.count_move();
        if !self.http2 || !self.in_progress.activity.memory.is_short() {
            return Poll::Ready(frame);
        }
        Poll::Ready(frame.map(|frame| Ok(self.begin_pieces(frame?))))
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Attended<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        // Offers hyper no more while the client does not read: hyper would queue up to its buffer's
        // limit. hyper polls again when it has written what it holds.
        if !self.http2 && self.in_progress.activity.is_stuck() {
            return Poll::Pending;
        }
        let polled = self.poll_next(context);
        let bytes = match &polled {
            Poll::Ready(Some(Ok(frame))) => frame.data_ref().map(Bytes::len),
            _ => None,
        };
        hands_out(bytes);
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or(SizeHint::with_exact(0), Body::size_hint)
    }
}

//! The body of a response in progress, as the connection's watchdog and the memory budget see it.

use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::{ConnectionState, InProgress};
use crate::listener::stream::hands_out;

/// Least bytes of a piece into which an HTTP/2 frame is cut if little of a response is to be held. hyper
/// holds two frames for a client that does not read. Both halves of a cut frame are parts of one read, of 8
/// KiB while memory is short.
const PIECE_BYTES: usize = 4 * 1024;

/// The body of a response in progress.
pub struct Attended<B> {
    /// `None` for an answer of the listener's own, which has nothing in it.
    body: Option<B>,
    /// Second half of a frame that was cut.
    rest: Bytes,
    http2: bool,
    in_progress: InProgress,
}

impl<B> Attended<B> {
    /// Connection over which the body is sent.
    pub fn connection(&self) -> &ConnectionState {
        &self.in_progress.state
    }

    pub fn new(body: B, http2: bool, in_progress: InProgress) -> Self {
        Self { body: Some(body), rest: Bytes::new(), http2, in_progress }
    }

    pub fn nothing(in_progress: InProgress) -> Self {
        Self { body: None, rest: Bytes::new(), http2: true, in_progress }
    }
}

impl<B> Attended<B> {
    /// Cuts an HTTP/2 frame in two, if it is longer than a piece, and returns the first half.
    fn cut(&mut self, frame: Frame<Bytes>) -> Frame<Bytes> {
        match frame.into_data() {
            Ok(data) if data.len() > PIECE_BYTES => {
                let half = data.len().div_ceil(2);
                self.rest = data;
                Frame::data(self.rest.split_to(half))
            }
            Ok(data) => Frame::data(data),
            Err(frame) => frame,
        }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Attended<B> {
    fn poll_next(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        if !self.rest.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(mem::take(&mut self.rest)))));
        }
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let Poll::Ready(frame) = Pin::new(&mut *body).poll_frame(context) else {
            return Poll::Pending;
        };
        self.in_progress.state.count_move();
        let to_come = body.size_hint().lower();
        if !self.http2 || !self.in_progress.state.memory.is_spared(to_come) {
            return Poll::Ready(frame);
        }
        Poll::Ready(frame.map(|frame| Ok(self.cut(frame?))))
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
        if !self.http2 && self.in_progress.state.is_stuck() {
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

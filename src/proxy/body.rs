//! Responses on their way out: streamed frame by frame, never gathered.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;

use super::pool::Lease;
use super::request_body::{GateKeeper, TrailerFilter, filter_trailers};

/// What the sidecar answers with: the app's body as it comes, or a few bytes of our own.
pub struct Body(Inner);

enum Inner {
    Own(Option<Bytes>),
    App(AppBody),
}

impl Body {
    /// A body of ours.
    pub fn own(bytes: Bytes) -> Self {
        Self(Inner::Own(Some(bytes).filter(|bytes| !bytes.is_empty())))
    }

    /// Whether there is more of the app's body to come.
    pub fn is_cut_off(&self) -> bool {
        match &self.0 {
            Inner::Own(_) => false,
            Inner::App(body) => !body.incoming.is_end_stream(),
        }
    }

    pub(super) fn app(body: AppBody) -> Self {
        Self(Inner::App(body))
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut self.get_mut().0 {
            Inner::Own(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Inner::App(body) => body.poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Inner::Own(bytes) => bytes.is_none(),
            Inner::App(body) => body.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Inner::Own(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Inner::App(body) => body.incoming.size_hint(),
        }
    }
}

/// The app's response body. Once it has been read to its end, its connection is free again; if it
/// is dropped before, the connection is closed, which tells the app that nobody listens.
pub(super) struct AppBody {
    incoming: Incoming,
    lease: Option<Lease>,
    trailers: TrailerFilter,
    /// Still closed if the app answered without asking for the request's body.
    _gate: Option<GateKeeper>,
}

impl AppBody {
    pub(super) fn new(
        incoming: Incoming,
        lease: Option<Lease>,
        trailers: TrailerFilter,
        gate: Option<GateKeeper>,
    ) -> Self {
        Self { incoming, lease, trailers, _gate: gate }
    }

    fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let mut frame = ready!(Pin::new(&mut self.incoming).poll_frame(context));
        match &mut frame {
            Some(Ok(frame)) => {
                // Trailers are the end: hyper polls no further once it has written them.
                if frame.is_trailers() {
                    self.give_back();
                }
                filter_trailers(frame, &self.trailers);
            }
            Some(Err(_)) => self.lease = None,
            None => self.give_back(),
        }
        Poll::Ready(frame)
    }

    fn give_back(&mut self) {
        if let Some(lease) = self.lease.take() {
            lease.give_back();
        }
    }
}

impl Drop for AppBody {
    fn drop(&mut self) {
        // hyper does not poll past the last byte of a known length.
        if self.incoming.is_end_stream() {
            self.give_back();
        }
    }
}

//! Responses on their way out: streamed frame by frame, in bounded memory (`tests/real/bulk.rs`).

use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::sync::oneshot;

use super::arriving::Arriving;
use super::pool::Lease;
use super::request_body::{GateKeeper, TrailerFilter, filter_trailers};
use super::stream_clock::StreamClock;

/// Body of an answer: the app's body as it comes, or a few bytes of the sidecar's own.
pub struct Body(Inner);

/// Reason why a response's body was cut off.
#[derive(Debug)]
pub enum BodyError {
    /// The app broke off.
    App(hyper::Error),
    /// The app broke its response off, over HTTP/2.
    AppStream(h2::Error),
    /// Neither the request nor the response has moved for `app.stream_idle_timeout`.
    Idle,
}

impl fmt::Display for BodyError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::App(_) | Self::AppStream(_) => "the app broke its response off",
            Self::Idle => "the response stood still for too long",
        })
    }
}

impl Error for BodyError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::App(source) => Some(source),
            Self::AppStream(source) => Some(source),
            Self::Idle => None,
        }
    }
}

enum Inner {
    Own(Option<Bytes>),
    App(AppBody),
}

impl Body {
    /// Makes a body of the sidecar's own.
    pub fn own(bytes: Bytes) -> Self {
        Self(Inner::Own(Some(bytes).filter(|bytes| !bytes.is_empty())))
    }

    /// Whether more of the app's body is to come.
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
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
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

/// The app's response body. Once the body has been read to its end, its connection is free again. If the body
/// is dropped before, the connection is closed, which tells the app that the client no longer reads.
pub(super) struct AppBody {
    incoming: Arriving,
    lease: Option<Lease>,
    trailers: TrailerFilter,
    clock: StreamClock,
    /// Resolves at the end of the request, if the app has answered before that end.
    sending: Option<oneshot::Receiver<()>>,
    /// Runs while the body is waited for, if there is a limit.
    idle: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    /// Still closed if the app answered without asking for the request's body.
    _gate: Option<GateKeeper>,
}

impl AppBody {
    pub(super) fn new(
        incoming: Arriving,
        lease: Option<Lease>,
        trailers: TrailerFilter,
        gate: Option<GateKeeper>,
        clock: StreamClock,
        sending: Option<oneshot::Receiver<()>>,
    ) -> Self {
        Self { incoming, lease, trailers, clock, sending, idle: None, _gate: gate }
    }

    fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Poll::Ready(mut frame) = self.incoming.poll_frame(context) else {
            return self.poll_idle(context).map(|()| Some(Err(BodyError::Idle)));
        };
        self.clock.moved();
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

    fn poll_idle(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if !self.clock.has_limit() {
            return Poll::Pending;
        }
        let idle = self.idle.get_or_insert_with(|| {
            let clock = self.clock.clone();
            Box::pin(async move { clock.ran_out().await })
        });
        idle.as_mut().poll(context)
    }

    fn give_back(&mut self) {
        if let Some(lease) = self.lease.take() {
            match self.sending.take() {
                None => lease.give_back(),
                Some(sending) => lease.give_back_after(sending),
            }
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

//! Requests on their way in: streamed frame by frame, held back only while the app has not asked.

use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::sync::oneshot;

use super::headers::strip_trailers;
use super::stream_clock::StreamClock;

/// Removes from trailers what must not pass in this direction.
pub type TrailerFilter = Arc<dyn Fn(&mut HeaderMap) + Send + Sync>;

/// Counts the bytes of a request's body as they pass. Its clones count together.
#[derive(Clone, Debug, Default)]
pub struct BodyMeter(Arc<AtomicU64>);

impl BodyMeter {
    /// So many have passed.
    pub fn add(&self, bytes: usize) {
        self.0.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// All that have passed so far.
    pub fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The client's request body: none, or one that is read here, or on its way to the app.
#[derive(Default)]
pub struct RequestBody {
    incoming: Option<Incoming>,
    meter: Option<BodyMeter>,
    trailers: Option<TrailerFilter>,
    clock: StreamClock,
    gate: Option<oneshot::Receiver<()>>,
    /// Dropped when the body has been sent to its end, or given up.
    sent: Option<oneshot::Sender<()>>,
}

impl From<Incoming> for RequestBody {
    fn from(incoming: Incoming) -> Self {
        Self { incoming: Some(incoming), ..Self::default() }
    }
}

impl RequestBody {
    /// Counts what passes from now on, if there is a body.
    pub fn measured(&mut self) -> Option<BodyMeter> {
        if self.is_end_stream() {
            return None;
        }
        Some(self.meter.insert(BodyMeter::default()).clone())
    }

    /// Begins its way to the app.
    pub(super) fn set_out(&mut self, trailers: TrailerFilter, clock: StreamClock) {
        self.trailers = Some(trailers);
        self.clock = clock;
    }

    /// Resolves when the body has been sent to its end, or given up.
    pub(super) fn sent(&mut self) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        self.sent = Some(sender);
        receiver
    }

    /// Holds the body back until the keeper opens the gate. Not polling it is what keeps hyper
    /// from telling the client to continue (RFC 9110 section 10.1.1).
    pub(super) fn hold_back(&mut self) -> GateKeeper {
        let (sender, receiver) = oneshot::channel();
        self.gate = Some(receiver);
        GateKeeper(Some(sender))
    }
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = RequestBodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, RequestBodyError>>> {
        let this = self.get_mut();
        if let Some(gate) = &mut this.gate {
            let opened = ready!(Pin::new(gate).poll(context));
            this.gate = None;
            if opened.is_err() {
                this.sent = None;
                return Poll::Ready(Some(Err(RequestBodyError::NotWanted)));
            }
        }
        let Some(incoming) = &mut this.incoming else { return Poll::Ready(None) };
        let mut frame = ready!(Pin::new(incoming).poll_frame(context));
        this.clock.moved();
        if let (Some(meter), Some(Ok(frame))) = (&this.meter, &frame) {
            meter.add(frame.data_ref().map_or(0, Bytes::len));
        }
        match (&mut frame, &this.trailers) {
            (Some(Ok(frame)), Some(filter)) => filter_trailers(frame, filter),
            _ => this.sent = None,
        }
        Poll::Ready(frame.map(|frame| frame.map_err(RequestBodyError::Client)))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.as_ref().map_or_else(|| SizeHint::with_exact(0), Incoming::size_hint)
    }
}

/// Opens the gate of a [`RequestBody`]. Dropped without that, the body ends in an error, so that
/// the app's connection closes instead of waiting for a body that nobody wants.
pub(super) struct GateKeeper(Option<oneshot::Sender<()>>);

impl GateKeeper {
    pub(super) fn open(&mut self) {
        if let Some(sender) = self.0.take() {
            // The other end is gone if the connection broke; then there is nothing to open.
            let _ = sender.send(());
        }
    }
}

/// Why a request body ended before its end.
#[derive(Debug)]
pub enum RequestBodyError {
    /// The client broke off.
    Client(hyper::Error),
    /// The app answered without asking for it.
    NotWanted,
}

impl fmt::Display for RequestBodyError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Client(_) => "the client broke off its request body",
            Self::NotWanted => "the app answered without asking for the request body",
        })
    }
}

impl Error for RequestBodyError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Client(source) => Some(source),
            Self::NotWanted => None,
        }
    }
}

/// Filters a frame, if it is one of trailers.
pub(super) fn filter_trailers(frame: &mut Frame<Bytes>, filter: &TrailerFilter) {
    if let Some(trailers) = frame.trailers_mut() {
        strip_trailers(trailers);
        filter(trailers);
    }
}

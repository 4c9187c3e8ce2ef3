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
use super::resend::RequestInFlight;
use super::stream_clock::StreamClock;
use super::unread::Unread;
use ground::client_connection::{ClientConnection, Upload};

/// Filter that removes from trailers the fields that must not pass in this direction.
pub type TrailerFilter = Arc<dyn Fn(&mut HeaderMap) + Send + Sync>;

/// Counts the bytes of a request's body as they pass. Clones count together.
#[derive(Clone, Debug, Default)]
pub struct BodyMeter(Arc<AtomicU64>);

impl BodyMeter {
    /// Notes that `bytes` bytes have passed.
    fn add(&self, bytes: usize) {
        self.0.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Returns the number of bytes that have passed so far.
    pub fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Body of a client's request: absent, read by the sidecar itself, or on its way to the app.
///
/// Most requests have no body and pass through several functions, so this is a pointer, and nothing more
/// where there is no body.
#[derive(Default)]
pub struct RequestBody(Option<Box<Stream>>);

struct Stream {
    incoming: Unread,
    meter: Option<BodyMeter>,
    trailers: Option<TrailerFilter>,
    clock: StreamClock,
    gate: Option<oneshot::Receiver<()>>,
    /// Sender that is dropped when the body begins to come.
    begun: Option<oneshot::Sender<()>>,
    /// Connection to the app by which the body is sent.
    way: Option<Arc<RequestInFlight>>,
    /// Dropped when the body has been sent to its end, or given up.
    sent: Option<oneshot::Sender<()>>,
    /// Guard that tells the listener that the body is still coming in.
    upload: Option<Upload>,
}

impl From<Incoming> for RequestBody {
    fn from(incoming: Incoming) -> Self {
        if incoming.is_end_stream() {
            return Self(None);
        }
        let clock = StreamClock::default();
        let incoming = Unread::new(incoming);
        let (meter, trailers, gate, begun) = (None, None, None, None);
        let (way, sent, upload) = (None, None, None);
        let stream = Stream { incoming, meter, trailers, clock, gate, begun, way, sent, upload };
        Self(Some(Box::new(stream)))
    }
}

impl RequestBody {
    /// Counts the body, if there is one, as an upload of `connection` until the body's end.
    pub fn comes_over(&mut self, connection: &Arc<ClientConnection>) {
        if let Some(stream) = &mut self.0 {
            stream.upload = Some(connection.begin_upload());
        }
    }

    /// Makes the rest of the body be read when it is dropped, because it has come over HTTP/2.
    pub fn linger(&mut self) {
        if let Some(stream) = &mut self.0 {
            stream.incoming.linger();
        }
    }

    /// Counts the bytes that pass from now on, if there is a body.
    pub fn measured(&mut self) -> Option<BodyMeter> {
        Some(self.0.as_mut()?.meter.insert(BodyMeter::default()).clone())
    }

    /// Begins the body's way to the app. The receiver, which is returned if there is a body, resolves when
    /// the body has been sent to its end, or given up.
    pub(super) fn set_out(
        &mut self,
        trailers: &TrailerFilter,
        clock: &StreamClock,
    ) -> Option<oneshot::Receiver<()>> {
        let stream = self.0.as_mut()?;
        stream.trailers = Some(Arc::clone(trailers));
        stream.clock = clock.clone();
        let (sender, receiver) = oneshot::channel();
        stream.sent = Some(sender);
        Some(receiver)
    }

    /// Sends the body, if there is one, over the connection that `way` watches, and only while the app
    /// reads: otherwise hyper would queue up to its buffer's limit, which is meant for responses.
    pub(super) fn leave_by(&mut self, way: &Arc<RequestInFlight>) {
        if let Some(stream) = &mut self.0 {
            stream.way = Some(Arc::clone(way));
        }
    }

    /// Holds the body back, if there is one, until the keeper opens the gate. While the body is not polled,
    /// hyper does not tell the client to continue (RFC 9110 section 10.1.1).
    pub(super) fn hold_back(&mut self) -> Option<GateKeeper> {
        let (sender, receiver) = oneshot::channel();
        self.0.as_mut()?.gate = Some(receiver);
        Some(GateKeeper(Some(sender)))
    }

    /// Returns a receiver, if there is a body, which resolves when the first frame has come or the body was
    /// dropped.
    pub(super) fn announce(&mut self) -> Option<oneshot::Receiver<()>> {
        let (sender, receiver) = oneshot::channel();
        self.0.as_mut()?.begun = Some(sender);
        Some(receiver)
    }
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = RequestBodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, RequestBodyError>>> {
        match &mut self.get_mut().0 {
            Some(stream) => stream.poll_frame(context),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(|stream| stream.incoming.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let stream = self.0.as_ref();
        stream.map_or_else(|| SizeHint::with_exact(0), |stream| stream.incoming.size_hint())
    }
}

impl Stream {
    fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, RequestBodyError>>> {
        if let Some(gate) = &mut self.gate {
            let opened = ready!(Pin::new(gate).poll(context));
            self.gate = None;
            if opened.is_err() {
                self.sent = None;
                return Poll::Ready(Some(Err(RequestBodyError::NotWanted)));
            }
        }
        if let Some(way) = &self.way {
            ready!(way.poll_room(context));
        }
        let mut frame = ready!(Pin::new(&mut *self.incoming).poll_frame(context));
        self.clock.moved();
        self.begun = None;
        if let Some(Ok(frame)) = &frame {
            let bytes = frame.data_ref().map_or(0, Bytes::len);
            self.meter.iter().for_each(|meter| meter.add(bytes));
            self.way.iter().for_each(|way| way.took(bytes));
        }
        match (&mut frame, &self.trailers) {
            (Some(Ok(frame)), Some(filter)) => filter_trailers(frame, filter),
            (Some(Ok(_)), None) => {}
            _ => self.sent = None,
        }
        Poll::Ready(frame.map(|frame| frame.map_err(RequestBodyError::Client)))
    }
}

/// Opens the gate of a [`RequestBody`]. If the keeper is dropped before, the body ends in an error, so that
/// the app's connection closes instead of waiting for a body that the app does not want.
pub(super) struct GateKeeper(Option<oneshot::Sender<()>>);

impl GateKeeper {
    pub(super) fn open(&mut self) {
        if let Some(sender) = self.0.take() {
            // The receiver is gone if the connection broke; then there is nothing to open.
            let _ = sender.send(());
        }
    }
}

/// Reason why a request body was cut off.
#[derive(Debug)]
pub enum RequestBodyError {
    /// The client broke off.
    Client(hyper::Error),
    /// The app answered without asking for the body.
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

/// Filters a frame of trailers; leaves other frames as they are.
pub(super) fn filter_trailers(frame: &mut Frame<Bytes>, filter: &TrailerFilter) {
    if let Some(trailers) = frame.trailers_mut() {
        strip_trailers(trailers);
        filter(trailers);
    }
}

//! Counts and records a request: from its head to its response's head, and to the last byte of the response's
//! body.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Frame, SizeHint};

use super::Sidecar;
use super::record::{Notes, Record};
use crate::access_log::End;
use ground::metrics::{AbortedBy, GaugeGuard, Outcome, RequestMetrics, observe};
use ground::peer::Peer;
use hop::proxy::{Body, BodyError, RequestBody};

/// Counts a request from its head to its response's head, or until the client leaves.
pub(super) struct RequestGuard {
    metrics: Arc<RequestMetrics>,
    pub(super) record: Record,
    in_flight: Option<GaugeGuard>,
}

impl RequestGuard {
    pub(super) fn begin(
        sidecar: &Sidecar,
        peer: &Peer,
        request: &mut Request<RequestBody>,
    ) -> Self {
        let metrics = Arc::clone(&sidecar.metrics);
        let in_flight = Some(GaugeGuard::raise(&metrics.in_flight));
        Self { metrics, record: Record::begin(sidecar, peer, request), in_flight }
    }

    /// Counts a response's head; the request stays in flight until its body has ended.
    pub(super) fn finish(
        mut self,
        response: Response<Body>,
        outcome: Outcome,
    ) -> Response<ResponseBody> {
        let (total, added) = self.record.elapsed();
        self.metrics.requests.increment(outcome);
        observe(&self.metrics.duration, total);
        observe(&self.metrics.added, added);
        let notes = self.record.answer(response.status(), outcome, added);
        let in_flight = self.in_flight.take().expect("finished once");
        let metrics = Arc::clone(&self.metrics);
        let finished = false;
        response.map(|body| ResponseBody { body, finished, metrics, notes, _in_flight: in_flight })
    }
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        if self.in_flight.is_some() {
            self.metrics.requests.increment(Outcome::ClientGone);
        }
    }
}

/// A response's body that knows whether it was sent to its end.
pub struct ResponseBody {
    body: Body,
    finished: bool,
    metrics: Arc<RequestMetrics>,
    notes: Option<Box<Notes>>,
    _in_flight: GaugeGuard,
}

impl ResponseBody {
    fn end(&mut self, end: End) {
        if let Some(notes) = &mut self.notes {
            notes.ended(end);
        }
    }
}

impl http_body::Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        match &frame {
            Some(Ok(frame)) => {
                // Trailers are the end: hyper polls no further.
                self.finished = frame.is_trailers();
                if let (Some(notes), Some(data)) = (&mut self.notes, frame.data_ref()) {
                    notes.sent(data.len());
                }
            }
            Some(Err(error)) => {
                self.finished = true;
                let (by, end) = match error {
                    BodyError::App(_) | BodyError::AppStream(_) => {
                        (AbortedBy::App, End::AppBrokeOff)
                    }
                    BodyError::Idle => (AbortedBy::Idle, End::Idle),
                };
                self.metrics.aborted.increment(by);
                self.end(end);
            }
            None => self.finished = true,
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        if !self.finished && self.body.is_cut_off() {
            self.metrics.aborted.increment(AbortedBy::Client);
        } else {
            self.end(End::Whole);
        }
    }
}

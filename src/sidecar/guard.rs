//! Counting a request: from its head to its response's, and to the last byte of its body.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http_body::{Frame, SizeHint};
use tokio::time::Instant;

use crate::metrics::{AbortedBy, GaugeGuard, Outcome, RequestMetrics, observe};
use crate::proxy::{Body, BodyError};

/// Counts a request from its head to its response's, or to the client's leaving.
pub(super) struct RequestGuard {
    metrics: Arc<RequestMetrics>,
    started: Instant,
    /// Time spent waiting for the app.
    pub(super) app_time: Duration,
    in_flight: Option<GaugeGuard>,
}

impl RequestGuard {
    pub(super) fn begin(metrics: &Arc<RequestMetrics>) -> Self {
        let in_flight = Some(GaugeGuard::raise(&metrics.in_flight));
        let (metrics, started) = (Arc::clone(metrics), Instant::now());
        Self { metrics, started, app_time: Duration::ZERO, in_flight }
    }

    /// Counts a response's head; the request stays in flight until its body has ended.
    pub(super) fn finish(
        mut self,
        response: Response<Body>,
        outcome: Outcome,
    ) -> Response<ResponseBody> {
        let total = self.started.elapsed();
        self.metrics.requests.increment(outcome);
        observe(&self.metrics.duration, total);
        observe(&self.metrics.added, total.saturating_sub(self.app_time));
        let in_flight = self.in_flight.take().expect("finished once");
        let metrics = Arc::clone(&self.metrics);
        response.map(|body| ResponseBody { body, finished: false, metrics, _in_flight: in_flight })
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
    _in_flight: GaugeGuard,
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
            // Trailers are the end: nobody polls any further.
            Some(Ok(frame)) => self.finished = frame.is_trailers(),
            Some(Err(error)) => {
                self.finished = true;
                self.metrics.aborted.increment(match error {
                    BodyError::App(_) => AbortedBy::App,
                    BodyError::Idle => AbortedBy::Idle,
                });
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
        }
    }
}

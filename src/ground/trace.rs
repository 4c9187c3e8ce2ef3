//! Distributed tracing: the trace that a request is part of (W3C Trace Context, level 1), and the spans that
//! the sidecar adds to the trace where spans are exported (OTLP).
//!
//! A stranger's sampled trace passes, but is not recorded unless `tracing.sampled_by` says so. A request
//! without a sampled trace costs the reading of one header. The request's headers are changed in two cases
//! only: the sidecar makes spans and so becomes the app's parent, or it starts a trace because
//! `tracing.create` asks for a trace. The response stays as it is
//! (`trace_passes_byte_for_byte_and_is_not_in_the_response` in `tests/it/tracing.rs`).

mod context;
mod export;
mod id;
mod otlp;
mod span;

use std::time::Duration;

use http::HeaderMap;
use http::header::HeaderName;

pub use self::context::{Context, Flags};
pub use self::export::{ExportSettings, Exporter};
pub use self::id::{Hex, SpanId, TraceId};
use self::id::{random_spans, random_trace};
pub use self::span::{OpenSpan, Recording, Value, Work};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Settings of traces and of the export of spans.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Whether a trace is started for a request that comes without a readable trace.
    pub create: bool,
    /// Share of the traces started here that are sampled, from 0 to 1.
    pub sample: f64,
    /// Export of spans; `None` exports nothing.
    pub export: Option<ExportSettings>,
}

/// Clients whose sampled flag in `traceparent` has spans exported. Such a client decides how much the
/// collector has to take, and under which traces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SampledBy {
    /// Peers that are believed about users.
    TrustedPeers,
    /// Any client.
    Anyone,
}

/// Finds the trace that a request is part of.
#[derive(Clone)]
pub struct Tracing {
    create: bool,
    sample: f64,
    sampled_by: SampledBy,
    exporter: Option<Exporter>,
}

/// A request's place in a trace.
pub struct Trace {
    pub id: TraceId,
    /// The spans to come, if this trace is sampled and spans are exported.
    pub recording: Option<Recording>,
}

impl Tracing {
    /// Traces by `settings`; the spans of sampled traces go to `exporter`.
    pub fn new(settings: &Settings, exporter: Option<Exporter>) -> Self {
        let (create, sample, sampled_by) = (settings.create, settings.sample, SampledBy::Anyone);
        Self { create, sample, sampled_by, exporter }
    }

    /// Sets the clients whose sampled traces are exported.
    pub fn sampled_by(self, sampled_by: SampledBy) -> Self {
        Self { sampled_by, ..self }
    }

    /// Whether a request's headers may be changed, or spans exported.
    pub fn is_on(&self) -> bool {
        self.create || self.exporter.is_some()
    }

    /// Calls [`Self::enter_from`] for a peer that is believed.
    pub fn enter(&self, headers: &mut HeaderMap) -> Option<Trace> {
        self.enter_from(headers, |_| true)
    }

    /// Finds the trace that a request is part of, or starts a trace, and leaves the headers as the app is to
    /// see them. `is_trusted` says whether the request comes from a peer that is believed; it is called only
    /// if the answer matters.
    pub fn enter_from(
        &self,
        headers: &mut HeaderMap,
        is_trusted: impl FnOnce(&HeaderMap) -> bool,
    ) -> Option<Trace> {
        let came = Context::read(headers);
        let (context, parent) = match came {
            Some(context) => (context, Some(context.parent)),
            None if self.create => (self.start(headers), None),
            None => return None,
        };
        let exporter = self.exporter.as_ref().filter(|_| {
            context.flags.is_sampled()
                // A trace without a parent was started and sampled here.
                && (parent.is_none()
                    || self.sampled_by == SampledBy::Anyone
                    || is_trusted(headers))
        });
        let recording = exporter.map(|exporter| {
            let (request, app_call) = random_spans();
            let ours = Context { parent: app_call, ..context };
            headers.insert(TRACEPARENT, ours.header());
            Recording::new(exporter.clone(), context, parent, request, app_call)
        });
        Some(Trace { id: context.trace, recording })
    }

    /// Starts a trace. Replaces a `traceparent` that could not be read, and removes its `tracestate`.
    fn start(&self, headers: &mut HeaderMap) -> Context {
        let (trace, parent) = random_trace();
        let flags = Flags::of_new(trace.fraction() < self.sample);
        let context = Context { trace, parent, flags };
        headers.insert(TRACEPARENT, context.header());
        headers.remove(TRACESTATE);
        context
    }

    /// Waits until the spans that have ended are exported, at most `patience`.
    pub async fn flush(&self, patience: Duration) {
        if let Some(exporter) = &self.exporter {
            exporter.flush(patience).await;
        }
    }
}

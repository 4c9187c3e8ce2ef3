//! Spans: work that the sidecar did for a request, its time, and its result.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::{Context, Exporter, SpanId, TraceId};

/// Work that has ended.
pub struct Work {
    pub name: Cow<'static, str>,
    pub started: SystemTime,
    pub duration: Duration,
    pub attributes: Vec<(&'static str, Value)>,
    pub failed: bool,
}

/// Value of a span's attribute.
pub enum Value {
    Text(Cow<'static, str>),
    Number(i64),
}

impl From<&'static str> for Value {
    fn from(text: &'static str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

impl From<u16> for Value {
    fn from(number: u16) -> Self {
        Self::Number(number.into())
    }
}

/// Side of a call that a span shows.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Server,
    Client,
}

/// Span as exported.
pub(super) struct Span {
    pub(super) trace: TraceId,
    pub(super) id: SpanId,
    pub(super) parent: Option<SpanId>,
    /// Whether the parent is in another process.
    pub(super) has_remote_parent: bool,
    pub(super) flags: u8,
    pub(super) kind: Kind,
    pub(super) work: Work,
}

/// Spans of a request. Their ids are made before the spans begin, because the app is told the id of its call.
#[derive(Clone)]
pub struct Recording {
    exporter: Exporter,
    trace: TraceId,
    flags: u8,
    parent: Option<SpanId>,
    request: SpanId,
    app_call: SpanId,
}

impl Recording {
    pub(super) fn new(
        exporter: Exporter,
        context: Context,
        parent: Option<SpanId>,
        request: SpanId,
        app_call: SpanId,
    ) -> Self {
        let Context { trace, flags, .. } = context;
        Self { exporter, trace, flags: flags.bits(), parent, request, app_call }
    }

    /// Exports the span of the whole request.
    pub fn request(&self, work: Work) {
        self.export(self.request, self.parent, Kind::Server, work);
    }

    /// Exports the span of the call to the app. The app was told the id of this span as its parent.
    pub fn app_call(&self, work: Work) {
        self.export(self.app_call, Some(self.request), Kind::Client, work);
    }

    /// Begins a span for a call that this request has started and that may outlive the request.
    pub fn begin_call(&self) -> OpenSpan {
        OpenSpan {
            exporter: self.exporter.clone(),
            trace: self.trace,
            flags: self.flags,
            parent: self.request,
            started: SystemTime::now(),
            since: Instant::now(),
        }
    }

    fn export(&self, id: SpanId, parent: Option<SpanId>, kind: Kind, work: Work) {
        let (trace, flags) = (self.trace, self.flags);
        // Only the request's span can have a parent in another process.
        let has_remote_parent = matches!(kind, Kind::Server) && parent.is_some();
        self.exporter.export(Span { trace, id, parent, has_remote_parent, flags, kind, work });
    }
}

/// A span that has begun.
pub struct OpenSpan {
    exporter: Exporter,
    trace: TraceId,
    flags: u8,
    parent: SpanId,
    started: SystemTime,
    since: Instant,
}

impl OpenSpan {
    /// Ends and exports the span.
    pub fn end(self, name: &'static str, attributes: Vec<(&'static str, Value)>, failed: bool) {
        let (id, _) = super::random_spans();
        let duration = self.since.elapsed();
        let work = Work { name: name.into(), started: self.started, duration, attributes, failed };
        self.exporter.export(Span {
            trace: self.trace,
            id,
            parent: Some(self.parent),
            has_remote_parent: false,
            flags: self.flags,
            kind: Kind::Client,
            work,
        });
    }
}

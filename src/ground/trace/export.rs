//! Sends spans to a collector: OTLP over HTTP, as JSON (OpenTelemetry protocol specification,
//! "OTLP/HTTP").
//!
//! Written here instead of using OpenTelemetry's SDK: three kinds of spans are a hundred lines of serde,
//! while the SDK brings some 28 crates that break several times a year. No request waits for an export: spans
//! go into a queue of bounded length. A span that does not fit, or can't be delivered, is dropped and
//! counted.

use std::fmt;
use std::time::Duration;

use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use reqwest::{Client, Url};
use serde::Deserialize;
use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::{info, warn};

use super::otlp;
use super::span::Span;
use crate::metrics::{SpanResult, TraceMetrics};
use crate::outgoing::{self, TlsError};
use crate::tls::Roots;

/// Spans that may wait in the queue.
const QUEUE_LENGTH: usize = 4096;

/// Longest batch: spans in one call.
const BATCH_LENGTH: usize = 512;

/// Time for which the first span of a batch waits for more spans.
const GATHERING: Duration = Duration::from_secs(5);

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Time limit of one call.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// Wait before the second attempt, unless the collector sends `Retry-After`.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Longest `Retry-After` that is obeyed. The queue would be full long before, and drop spans.
const LONGEST_RETRY_PAUSE: Duration = Duration::from_secs(30);

/// Longest answer read. An answer says how many spans were rejected, and why.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// Address and name under which spans are exported.
#[derive(Clone, Debug)]
pub struct ExportSettings {
    /// Whole URL, such as `http://collector:4318/v1/traces`.
    pub endpoint: Url,
    /// `service.name` of the resource.
    pub service_name: String,
    /// Certificate authorities that vouch for the collector.
    pub roots: Roots,
}

/// Queue of spans for the task that sends them. Clones share the queue.
#[derive(Clone)]
pub struct Exporter {
    queue: mpsc::Sender<Message>,
    metrics: TraceMetrics,
}

enum Message {
    Span(Span),
    /// Request to send all queued spans now, and to answer when this is done.
    Flush(oneshot::Sender<()>),
}

impl Exporter {
    /// Starts the task that sends. The task ends when the last clone is dropped.
    ///
    /// # Errors
    ///
    /// See [`TlsError`].
    ///
    /// # Panics
    ///
    /// Panics outside a tokio runtime.
    pub fn start(settings: ExportSettings, metrics: TraceMetrics) -> Result<Self, TlsError> {
        let http = outgoing::client(&settings.endpoint, &settings.roots, CONNECT_TIMEOUT)?;
        let (queue, receiver) = mpsc::channel(QUEUE_LENGTH);
        let collector = Collector { http, settings, metrics: metrics.clone(), works: true };
        tokio::spawn(collector.send_all(receiver));
        Ok(Self { queue, metrics })
    }

    /// Queues a span. If the queue is full, drops and counts the span. Never waits.
    pub(super) fn export(&self, span: Span) {
        if self.queue.try_send(Message::Span(span)).is_err() {
            self.metrics.spans.increment(SpanResult::Dropped);
        }
    }

    /// Waits until the queued spans have been sent or given up, but at most `patience`.
    pub(super) async fn flush(&self, patience: Duration) {
        let (sender, flushed) = oneshot::channel();
        let flushing = async {
            // An error says that the task that sends has ended.
            if self.queue.send(Message::Flush(sender)).await.is_ok() {
                let _ = flushed.await;
            }
        };
        if timeout(patience, flushing).await.is_err() {
            warn!("the collector (tracing.otlp_endpoint) is too slow; the last spans are dropped");
        }
    }
}

/// Task that sends spans to the collector.
struct Collector {
    http: Client,
    settings: ExportSettings,
    metrics: TraceMetrics,
    /// Whether the last batch arrived, so that only changes are logged.
    works: bool,
}

/// Reason why a batch was not accepted.
enum ExportError {
    /// The collector may accept the batch a moment later.
    Busy { status: StatusCode, retry_after: Option<Duration> },
    /// The collector will never accept the batch: the URL is wrong, or the collector wants another format.
    Refused(StatusCode),
    /// No answer came.
    Unreachable(reqwest::Error),
}

impl fmt::Display for ExportError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy { status, .. } | Self::Refused(status) => {
                write!(formatter, "it answered {status}")
            }
            Self::Unreachable(error) => write!(formatter, "{}", crate::logging::Chain(error)),
        }
    }
}

impl Collector {
    async fn send_all(mut self, mut queue: mpsc::Receiver<Message>) {
        while let Some(first) = queue.recv().await {
            let (spans, flush) = gather(first, &mut queue).await;
            if !spans.is_empty() {
                self.send(spans).await;
            }
            if let Some(flush) = flush {
                // An error says that the caller of `flush` has stopped waiting.
                let _ = flush.send(());
            }
        }
    }

    async fn send(&mut self, spans: Vec<Span>) {
        let count = spans.len() as u64;
        let name = self.settings.service_name.clone();
        // Encoding a full batch takes a millisecond, during which a tokio worker could serve no request.
        let encoding = spawn_blocking(move || otlp::encode(&name, &spans));
        let Ok(body) = encoding.await else { return };
        let body = bytes::Bytes::from(body);
        let mut result = self.call(body.clone()).await;
        if let Err(error) = &result
            && let Some(pause) = pause_after(error)
        {
            sleep(pause).await;
            result = self.call(body).await;
        }
        let rejected = match &result {
            Ok(rejected) => (*rejected).min(count),
            Err(_) => count,
        };
        self.metrics.spans.add(SpanResult::Exported, count - rejected);
        let lost = match &result {
            Err(ExportError::Unreachable(_)) => SpanResult::Unreachable,
            _ => SpanResult::Refused,
        };
        self.metrics.spans.add(lost, rejected);
        self.log(result.err());
    }

    /// Sends a batch once. Returns the number of spans that were rejected.
    async fn call(&self, body: bytes::Bytes) -> Result<u64, ExportError> {
        let call = self.http.post(self.settings.endpoint.clone()).timeout(CALL_TIMEOUT);
        let call = call.header(CONTENT_TYPE, "application/json").body(body);
        // The operator's URL could hold a secret, and errors are logged.
        let unreachable = |error: reqwest::Error| ExportError::Unreachable(error.without_url());
        let answer = call.send().await.map_err(unreachable)?;
        let status = answer.status();
        if status.is_success() {
            let body = outgoing::read_capped(answer, MAX_ANSWER_BYTES).await.unwrap_or_default();
            return Ok(rejected(&body.unwrap_or_default()));
        }
        // Only these statuses may be tried again ("OTLP/HTTP Response").
        Err(match status.as_u16() {
            429 | 502 | 503 | 504 => {
                ExportError::Busy { status, retry_after: retry_after(answer.headers()) }
            }
            _ => ExportError::Refused(status),
        })
    }

    fn log(&mut self, error: Option<ExportError>) {
        let works = error.is_none();
        match error {
            Some(error) if self.works => warn!(
                %error,
                "the collector takes no spans, they are dropped: check tracing.otlp_endpoint, and the \
                 collector there"
            ),
            None if !self.works => info!("the collector takes spans again"),
            _ => {}
        }
        self.works = works;
    }
}

/// Collects a batch: `first` and the spans after it, until the batch is full, its time is over, or a flush
/// comes.
async fn gather(
    first: Message,
    queue: &mut mpsc::Receiver<Message>,
) -> (Vec<Span>, Option<oneshot::Sender<()>>) {
    let deadline = Instant::now() + GATHERING;
    let mut spans = Vec::new();
    let mut next = Some(first);
    loop {
        match next {
            Some(Message::Span(span)) => spans.push(span),
            Some(Message::Flush(flush)) => return (spans, Some(flush)),
            None => return (spans, None),
        }
        if spans.len() == BATCH_LENGTH {
            return (spans, None);
        }
        next = timeout_at(deadline, queue.recv()).await.unwrap_or(None);
    }
}

/// Returns the wait before the second attempt, which is the last; `None` if no second attempt is allowed.
fn pause_after(error: &ExportError) -> Option<Duration> {
    match error {
        ExportError::Busy { retry_after, .. } => {
            Some(retry_after.unwrap_or(RETRY_PAUSE).min(LONGEST_RETRY_PAUSE))
        }
        ExportError::Unreachable(_) => Some(RETRY_PAUSE),
        ExportError::Refused(_) => None,
    }
}

/// Reads `Retry-After` in seconds. A date, which is allowed too, counts as absent.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// Reads from an answer how many spans were rejected: a 64-bit number, which JSON has as a string. Some
/// collectors send a number.
fn rejected(answer: &[u8]) -> u64 {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Answer {
        partial_success: Option<PartialSuccess>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct PartialSuccess {
        rejected_spans: Option<serde_json::Value>,
    }
    let answer: Option<Answer> = serde_json::from_slice(answer).ok();
    let rejected = answer.and_then(|answer| answer.partial_success?.rejected_spans);
    rejected
        .and_then(|count| count.as_u64().or_else(|| count.as_str()?.parse().ok()))
        .unwrap_or_default()
}

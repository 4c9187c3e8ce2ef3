//! OTLP spans in JSON (opentelemetry-proto, trace.proto and "JSON Protobuf Encoding"): ids in hexadecimal,
//! 64-bit numbers as strings, enums as numbers.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Serialize, Serializer};

use super::span::{Kind, Span, Value};

/// Flag of a span: the sidecar knows whether the parent is remote (trace.proto, `SpanFlags`).
const HAS_IS_REMOTE: u32 = 0x100;
/// Flag of a span: the parent is remote.
const IS_REMOTE: u32 = 0x200;
/// `STATUS_CODE_ERROR`. A success stays unset: only the operator may call a span good.
const ERROR: u8 = 2;

/// Encodes the body of an export: one resource, one scope, the spans.
pub(super) fn encode(service_name: &str, spans: &[Span]) -> Vec<u8> {
    let version = env!("CARGO_PKG_VERSION");
    let attributes = [("service.name", service_name), ("service.version", version)];
    let attributes =
        attributes.map(|(key, value)| KeyValue { key, value: AnyValue::StringValue(value) });
    let scope = Scope { name: "velt-sidecar", version };
    let scope_spans = [ScopeSpans { scope, spans: spans.iter().map(ExportedSpan::of).collect() }];
    let resource_spans = [ResourceSpans { resource: Resource { attributes }, scope_spans }];
    serde_json::to_vec(&Request { resource_spans }).expect("strings and numbers")
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Request<'a> {
    resource_spans: [ResourceSpans<'a>; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ResourceSpans<'a> {
    resource: Resource<'a>,
    scope_spans: [ScopeSpans<'a>; 1],
}

#[derive(Serialize)]
struct Resource<'a> {
    attributes: [KeyValue<'a>; 2],
}

#[derive(Serialize)]
struct ScopeSpans<'a> {
    scope: Scope,
    spans: Vec<ExportedSpan<'a>>,
}

#[derive(Serialize)]
struct Scope {
    name: &'static str,
    version: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ExportedSpan<'a> {
    trace_id: String,
    span_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_span_id: Option<String>,
    flags: u32,
    name: &'a str,
    kind: u8,
    #[serde(serialize_with = "as_string")]
    start_time_unix_nano: u128,
    #[serde(serialize_with = "as_string")]
    end_time_unix_nano: u128,
    attributes: Vec<KeyValue<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Status>,
}

#[derive(Serialize)]
struct Status {
    code: u8,
}

#[derive(Serialize)]
struct KeyValue<'a> {
    key: &'a str,
    value: AnyValue<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
enum AnyValue<'a> {
    StringValue(&'a str),
    #[serde(serialize_with = "as_string")]
    IntValue(i64),
}

impl<'a> ExportedSpan<'a> {
    fn of(span: &'a Span) -> Self {
        let started = nanoseconds(span.work.started);
        let remote = if span.has_remote_parent { IS_REMOTE } else { 0 };
        let attributes = span.work.attributes.iter();
        Self {
            trace_id: span.trace.hex().to_string(),
            span_id: span.id.hex().to_string(),
            parent_span_id: span.parent.map(|parent| parent.hex().to_string()),
            flags: u32::from(span.flags) | HAS_IS_REMOTE | remote,
            name: &span.work.name,
            kind: match span.kind {
                Kind::Server => 2,
                Kind::Client => 3,
            },
            start_time_unix_nano: started,
            end_time_unix_nano: started + span.work.duration.as_nanos(),
            attributes: attributes
                .map(|(key, value)| KeyValue { key, value: value.into() })
                .collect(),
            status: span.work.failed.then_some(Status { code: ERROR }),
        }
    }
}

impl<'a> From<&'a Value> for AnyValue<'a> {
    fn from(value: &'a Value) -> Self {
        match value {
            Value::Text(text) => Self::StringValue(text),
            Value::Number(number) => Self::IntValue(*number),
        }
    }
}

fn nanoseconds(time: SystemTime) -> u128 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos()
}

fn as_string<S: Serializer>(number: &impl ToString, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&number.to_string())
}

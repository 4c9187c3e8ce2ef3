//! Traces: the sidecar passes them on, starts them where the operator asks for them, and sends them to a
//! collector.

mod strangers;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ground::metrics::Metrics;
use ground::tls::Roots;
use ground::trace::{Context, ExportSettings, Exporter, Settings, Tracing, Work};
use http::{HeaderMap, HeaderValue};
use proptest::prelude::*;
use serde_json::{Value, json};
use token::Moment;
use token::cache::{self, TokenCache};

use crate::support::app::{FakeApp, plain};
use crate::support::certificates::{Authority, Folder, VALID, connect, terminate};
use crate::support::client::Sending;
use crate::support::collector::{ACCEPTED, FakeCollector, Reply};
use crate::support::double::{Double, HOUR, LIFE, request};
use crate::support::raw::unused_address;
use crate::support::{PATIENCE, Stage};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const SPAN: &str = "b7ad6b7169203331";
const SAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const UNSAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";

/// Values of `traceparent` that name no trace (W3C Trace Context, sections 3.2.2 and 3.2.3).
const INVALID: &[&str] = &[
    "",
    "00",
    "00-",
    "00-0af7651916cd43dd8448eb211c80319c",
    "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
    "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-",
    "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0",
    "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-001",
    "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-",
    "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what-the-future-holds",
    "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01,00-1-2-3",
    "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
    "00-0af7651916cd43dd8448eb211c80319c-B7AD6B7169203331-01",
    "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0A",
    "0A-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "00-00000000000000000000000000000000-b7ad6b7169203331-01",
    "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
    "00-0af7651916cd43dd8448eb211c8031g9-b7ad6b7169203331-01",
    "00-0af7651916cd43dd8448eb211c80319c-b7ad6b716920333g-01",
    "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0g",
    "00-0af7651916cd43dd8448eb211c8031-b7ad6b716920333100-01",
    "00_0af7651916cd43dd8448eb211c80319c_b7ad6b7169203331_01",
    " 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0",
    "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01.what-the-future-holds",
    "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-010",
    "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0",
    "cc-00000000000000000000000000000000-b7ad6b7169203331-01",
    "c-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-",
];

#[test]
fn a_traceparent_is_read_strictly() {
    for invalid in INVALID {
        assert_eq!(Context::parse(invalid.as_bytes()), None, "{invalid}");
    }
    for (value, sampled, written) in [
        (SAMPLED, true, SAMPLED),
        (UNSAMPLED, false, UNSAMPLED),
        // The sidecar hands on the flag of a random id, but no unknown flag (section 3.2.2.5).
        (&SAMPLED.replace("-01", "-03"), true, &SAMPLED.replace("-01", "-03")),
        (&SAMPLED.replace("-01", "-ff"), true, &SAMPLED.replace("-01", "-03")),
        (&SAMPLED.replace("-01", "-fe"), false, &SAMPLED.replace("-01", "-02")),
        // The sidecar reads a later version as far as it is known, and writes its own version (section
        // 3.2.4).
        (&SAMPLED.replacen("00", "01", 1), true, SAMPLED),
        (&SAMPLED.replacen("00", "fe", 1), true, SAMPLED),
        (&format!("{}-what-the-future-holds", SAMPLED.replacen("00", "cc", 1)), true, SAMPLED),
        (&format!("{}-", UNSAMPLED.replacen("00", "cc", 1)), false, UNSAMPLED),
    ] {
        let context = Context::parse(value.as_bytes()).unwrap_or_else(|| panic!("{value}"));
        assert_eq!(context.trace.hex().as_str(), TRACE);
        assert_eq!(context.parent.hex().as_str(), SPAN);
        assert_eq!(context.flags.is_sampled(), sampled, "{value}");
        assert_eq!(context.header(), written, "{value}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn parsed_traceparent_survives_being_written_again(
        value in prop_oneof![
            "[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-.{0,5})?",
            "[0-9a-fg-]{0,60}",
            ".{0,60}",
        ],
    ) {
        if let Some(context) = Context::parse(value.as_bytes()) {
            prop_assert_eq!(Context::parse(context.header().as_bytes()), Some(context));
        }
    }
}

fn send_all(mut sending: Sending, headers: &[(&str, &str)]) -> Sending {
    for (name, value) in headers {
        sending = sending.header(name, value);
    }
    sending
}

/// The headers of a trace as the app has seen them.
fn seen(app: &FakeApp) -> Vec<(String, String)> {
    let arrived = app.journal().pop().expect("a request");
    let headers = arrived.headers.iter();
    let of_trace = headers.filter(|(name, _)| name.as_str().starts_with("trace"));
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    of_trace.map(|(name, value)| (name.to_string(), text(value))).collect()
}

fn owned(headers: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    headers.iter().map(owned).collect()
}

#[tokio::test]
async fn trace_passes_byte_for_byte_and_is_not_in_the_response() {
    let collector = FakeCollector::start().await;
    for toml in ["", "[tracing]\ncreate = true\n", &collector.toml()] {
        let stage = Stage::set(toml).await;
        let mut requests: Vec<Vec<(&str, &str)>> = vec![
            vec![("traceparent", UNSAMPLED), ("tracestate", "rojo=00f067aa0ba902b7,congo=t61rc")],
            vec![("traceparent", UNSAMPLED), ("tracestate", "a=1"), ("tracestate", "b=2, ,c=3")],
        ];
        if toml.is_empty() {
            requests.push(vec![("traceparent", SAMPLED), ("tracestate", "a=1")]);
        }
        if !toml.contains("create") {
            // The sidecar neither repairs nor starts traces unless it may create them.
            requests.push(vec![]);
            requests.push(vec![("traceparent", SAMPLED), ("traceparent", UNSAMPLED)]);
            requests.push(vec![("tracestate", "a=1")]);
            requests.extend(INVALID.iter().map(|value| vec![("traceparent", value.trim())]));
        }
        for headers in requests {
            let answer = send_all(stage.client().get("/"), &headers).send().await;
            assert_eq!(answer.status(), 200, "{headers:?}");
            assert_eq!(seen(&stage.app), owned(&headers), "{toml}");
            assert!(answer.header("traceparent").is_none());
        }
    }
    assert!(collector.bodies().is_empty());
}

#[tokio::test]
async fn trace_is_started_if_configured_and_none_can_be_read() {
    let stage = Stage::set("[tracing]\ncreate = true\n").await;
    let mut traces = BTreeSet::new();
    let twice = vec![("traceparent", SAMPLED), ("traceparent", SAMPLED), ("tracestate", "a=1")];
    let invalid =
        INVALID.iter().map(|value| vec![("traceparent", value.trim()), ("tracestate", "a=1")]);
    for headers in [vec![], vec![("tracestate", "a=1")], twice].into_iter().chain(invalid) {
        send_all(stage.client().get("/"), &headers).send().await;
        let [(name, value)] = &seen(&stage.app)[..] else { panic!("one header: {headers:?}") };
        assert_eq!(name, "traceparent");
        let context = Context::parse(value.as_bytes()).expect("a trace");
        assert!(value.starts_with("00-") && value.ends_with("-01"), "{value}");
        assert!(traces.insert(context.trace.hex().to_string()), "a trace of its own");
    }
}

#[test]
fn sampled_share_applies_to_traces_started_here() {
    for (sample, least, most) in [(0.0, 0, 0), (0.25, 2200, 2800), (1.0, 10_000, 10_000)] {
        let tracing = Tracing::new(&Settings { create: true, sample, export: None }, None);
        let sampled = (0..10_000).filter(|_| {
            let mut headers = HeaderMap::new();
            tracing.enter(&mut headers).expect("a trace");
            Context::read(&headers).expect("a header").flags.is_sampled()
        });
        let count = sampled.count();
        assert!((least..=most).contains(&count), "{count} of {sample}");
    }
}

/// The value of an attribute, as OTLP has it.
fn attribute<'a>(span: &'a Value, key: &str) -> Option<&'a Value> {
    let attributes = span["attributes"].as_array().expect("attributes");
    let found = attributes.iter().find(|attribute| attribute["key"] == key)?;
    found["value"].as_object().expect("a value").values().next()
}

/// The spans of one name.
fn named(spans: &[Value], name: &str) -> Vec<Value> {
    spans.iter().filter(|span| span["name"] == name).cloned().collect()
}

fn nanoseconds(span: &Value, key: &str) -> u128 {
    span[key].as_str().expect("a string").parse().expect("a number")
}

#[tokio::test]
async fn collector_gets_spans_of_request_app_call_and_mint() {
    let collector = FakeCollector::start().await;
    let mut stage = Stage::set(&collector.toml()).await;
    let sending = stage.client().get("/api/me?secret=1").header("x-forwarded-user", "ada");
    sending.header("traceparent", SAMPLED).header("tracestate", "a=1").send().await;
    let at_app = seen(&stage.app);
    // Everything in flight ends before the sidecar does.
    stage.sidecar.terminate();
    let Stage { app, velt, sidecar } = stage;
    sidecar.ended().await;

    let spans = collector.spans();
    assert_eq!(spans.len(), 3, "{spans:#?}");
    let kind = |kind: u64| {
        let found = spans.iter().find(|span| span["kind"] == kind && span["name"] == "GET");
        found.unwrap_or_else(|| panic!("{spans:#?}"))
    };
    let (request, call, mint) = (kind(2), kind(3), &named(&spans, "mint")[0]);
    assert!(spans.iter().all(|span| span["traceId"] == TRACE));
    assert_eq!(request["parentSpanId"], SPAN);
    assert_eq!([&call["parentSpanId"], &mint["parentSpanId"]], [&request["spanId"]; 2]);
    // The parent of the first span is remote, the parent of its children is not.
    let flags = [request, call, mint].map(|span| span["flags"].as_u64());
    assert_eq!(flags, [Some(0x301), Some(0x101), Some(0x101)]);
    let parent = format!("00-{TRACE}-{}-01", call["spanId"].as_str().expect("an id"));
    let expected = owned(&[("traceparent", &parent), ("tracestate", "a=1")]);
    assert_eq!(at_app, expected, "the app's parent is the call");
    assert!(!velt.calls()[0].headers.contains_key("traceparent"), "Velt is told nothing of it");
    for (key, expected) in [
        ("http.request.method", json!("GET")),
        ("url.path", json!("/api/me")),
        ("url.scheme", json!("http")),
        ("http.response.status_code", json!("200")),
        ("network.protocol.version", json!("1.1")),
        ("network.peer.address", json!("127.0.0.1")),
        ("velt_sidecar.outcome", json!("forwarded")),
        ("velt_sidecar.token", json!("injected")),
    ] {
        assert_eq!(attribute(request, key), Some(&expected), "{key}");
    }
    let url = format!("http://{}/api/me", app.address);
    for (key, expected) in [
        ("http.request.method", json!("GET")),
        ("url.full", json!(url)),
        ("server.address", json!("127.0.0.1")),
        ("server.port", json!(app.address.port().to_string())),
        ("http.response.status_code", json!("200")),
    ] {
        assert_eq!(attribute(call, key), Some(&expected), "{key}");
    }
    assert_eq!(attribute(mint, "velt_sidecar.outcome"), Some(&json!("minted")));
    assert_eq!(attribute(mint, "server.port"), Some(&json!(velt.address.port().to_string())));
    let times = |span| ["startTimeUnixNano", "endTimeUnixNano"].map(|key| nanoseconds(span, key));
    let ([from, to], [asked, answered]) = (times(request), times(call));
    assert!(from <= asked && asked < answered && answered <= to, "the call is within the request");
    assert!(spans.iter().all(|span| span.get("status").is_none()), "all went well");
}

#[tokio::test]
async fn spans_say_what_goes_over_tls() {
    let (authority, folder) = (Authority::new(), Folder::new());
    folder.write_pair(&authority.issue(&["localhost"], VALID));
    let ca = folder.write("ca.crt", authority.pem());
    let (collector, app) = (FakeCollector::start().await, FakeApp::start().await);
    let server = authority.issue(&["127.0.0.1"], VALID).server(&[]);
    let address = terminate(app.address, server).await;
    let toml = format!(
        "[app]\naddress = \"https://{address}\"\nca_file = \"{ca}\"\n{}{}",
        folder.toml(),
        collector.toml()
    );
    let mut stage = Stage::with(app, &toml).await;
    let traffic = stage.sidecar.addresses.traffic;
    let stream = connect(traffic, &authority.client(None, &[])).await.expect("a handshake");
    let sending = stage.client().get("/").header("traceparent", SAMPLED);
    assert_eq!(sending.send_over(stream, http::Version::HTTP_11).await.status(), 200);
    stage.sidecar.terminate();
    stage.sidecar.ended().await;
    let spans = collector.spans();
    let told = |key: &str| spans.iter().find_map(|span| attribute(span, key)).cloned();
    assert_eq!(told("url.scheme"), Some(json!("https")));
    assert_eq!(told("url.full"), Some(json!(format!("https://{address}/"))));
}

#[tokio::test]
async fn failed_span_is_that_of_the_side_at_fault() {
    let collector = FakeCollector::start().await;
    let app = FakeApp::answering(|arrived| {
        let mut response = plain("x");
        *response.status_mut() = arrived.target[1..].parse().expect("a status");
        response
    })
    .await;
    let mut stage = Stage::with(app, &collector.toml()).await;
    for (path, status) in [("/200", 200), ("/404", 404), ("/503", 503), ("/api/velt/token", 401)] {
        let sending = stage.client().get(path).header("traceparent", SAMPLED);
        assert_eq!(sending.send().await.status(), status);
    }
    stage.velt.script(|_, _| crate::support::velt::refused(403, "PERMISSION_DENIED"));
    let sending = stage.client().get("/api/velt/token").header("traceparent", SAMPLED);
    assert_eq!(sending.header("x-forwarded-user", "ada").send().await.status(), 502);
    stage.app.die().await;
    let sending = stage.client().request("BREW".parse().expect("a method"), "/200");
    assert_eq!(sending.header("traceparent", SAMPLED).send().await.status(), 502);
    stage.sidecar.terminate();
    stage.sidecar.ended().await;

    let spans = collector.spans();
    let mut told: Vec<_> = spans
        .iter()
        .map(|span| {
            let text = |key| attribute(span, key).and_then(Value::as_str).unwrap_or("-");
            let side = if span["kind"] == 2 { "server" } else { "client" };
            let (status, error) = (text("http.response.status_code"), text("error.type"));
            let failed = if span["status"]["code"] == 2 { "failed" } else { "unset" };
            format!("{} {side} {status} {error} {failed}", span["name"].as_str().expect("a name"))
        })
        .collect();
    told.sort();
    assert_eq!(
        told,
        [
            "GET /api/velt/token server 401 - unset",
            "GET /api/velt/token server 502 token_refused failed",
            "GET client 200 - unset",
            "GET client 404 404 failed",
            "GET client 503 503 failed",
            "GET server 200 - unset",
            "GET server 404 - unset",
            "GET server 503 503 failed",
            "HTTP client - app_unreachable failed",
            "HTTP server 502 app_unreachable failed",
            "mint client - refused failed",
        ]
    );
    let other = named(&spans, "HTTP");
    assert_eq!(attribute(&other[0], "http.request.method"), Some(&json!("_OTHER")));
}

/// An exporter to `collector`, and the counts of its spans by result.
fn exporter(collector: SocketAddr) -> (Tracing, impl Fn() -> [u64; 4]) {
    use ground::metrics::SpanResult as R;
    let metrics = Metrics::new().trace;
    let service_name = "shop".to_owned();
    let export = ExportSettings {
        endpoint: format!("http://{collector}/v1/traces").parse().expect("a URL"),
        service_name,
        roots: Roots::Bundled,
    };
    let exporter = Exporter::start(export, metrics.clone()).expect("TLS");
    let settings = Settings { create: true, sample: 1.0, export: None };
    let counts = move || {
        [R::Exported, R::Dropped, R::Refused, R::Unreachable]
            .map(|result| metrics.spans.get(result))
    };
    (Tracing::new(&settings, Some(exporter)), counts)
}

fn record(tracing: &Tracing, count: usize) {
    for _ in 0..count {
        let trace = tracing.enter(&mut HeaderMap::new()).expect("a trace");
        trace.recording.expect("it is sampled").request(Work {
            name: "GET".into(),
            started: std::time::SystemTime::now(),
            duration: Duration::from_millis(1),
            attributes: vec![("url.path", "/\u{202e}\"\n".into())],
            failed: false,
        });
    }
}

#[tokio::test]
async fn spans_are_sent_in_batches_of_a_bounded_size() {
    let collector = FakeCollector::start().await;
    let (tracing, counts) = exporter(collector.address);
    record(&tracing, 1030);
    // Two full batches go at once, the rest goes when the exporter is told to flush.
    collector.calls_reach(2).await;
    tracing.flush(PATIENCE).await;
    assert_eq!(counts(), [1030, 0, 0, 0]);
    let bodies: Vec<Value> =
        collector.bodies().iter().map(|body| serde_json::from_str(body).expect("JSON")).collect();
    let sizes = bodies.iter().map(|body| {
        body["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().expect("spans").len()
    });
    assert_eq!(sizes.collect::<Vec<_>>(), [512, 512, 6]);
    let service = &bodies[0]["resourceSpans"][0]["resource"];
    assert_eq!(attribute(service, "service.name"), Some(&json!("shop")));
    assert_eq!(attribute(service, "service.version"), Some(&json!(env!("CARGO_PKG_VERSION"))));
    let ids: BTreeSet<_> =
        collector.spans().iter().map(|span| span["spanId"].to_string()).collect();
    assert_eq!(ids.len(), 1030);
}

#[tokio::test]
async fn few_spans_are_sent_without_a_full_batch() {
    let collector = FakeCollector::start().await;
    let (tracing, _) = exporter(collector.address);
    record(&tracing, 1);
    collector.calls_reach(1).await;
    assert_eq!(collector.spans().len(), 1);
}

#[tokio::test]
async fn batch_is_tried_twice_at_most_and_its_result_is_counted() {
    const BUSY: Reply = Reply { status: 503, retry_after: Some("0"), body: "" };
    const PARTLY: &str = "{\"partialSuccess\":{\"rejectedSpans\":\"3\",\"errorMessage\":\"x\"}}";
    // The collector's first two answers, the number of calls, and the counts.
    for (replies, calls, expected) in [
        ([ACCEPTED, ACCEPTED], 1, [10, 0, 0, 0]),
        ([BUSY, ACCEPTED], 2, [10, 0, 0, 0]),
        ([Reply { status: 429, ..BUSY }, ACCEPTED], 2, [10, 0, 0, 0]),
        ([BUSY, BUSY], 2, [0, 0, 10, 0]),
        ([Reply { status: 400, ..BUSY }, ACCEPTED], 1, [0, 0, 10, 0]),
        ([Reply { status: 302, ..BUSY }, ACCEPTED], 1, [0, 0, 10, 0]),
        ([Reply { body: PARTLY, ..ACCEPTED }, ACCEPTED], 1, [7, 0, 3, 0]),
        ([Reply { body: "{\"partialSuccess\":null}", ..ACCEPTED }, ACCEPTED], 1, [10, 0, 0, 0]),
        ([Reply { body: "no JSON", ..ACCEPTED }, ACCEPTED], 1, [10, 0, 0, 0]),
    ] {
        let collector = FakeCollector::answering(move |number| replies[number]).await;
        let (tracing, counts) = exporter(collector.address);
        record(&tracing, 10);
        tracing.flush(PATIENCE).await;
        let status = replies.map(|reply| reply.status);
        assert_eq!((collector.bodies().len(), counts()), (calls, expected), "{status:?}");
    }
    let (tracing, counts) = exporter(unused_address().await);
    record(&tracing, 10);
    tracing.flush(PATIENCE).await;
    assert_eq!(counts(), [0, 0, 0, 10]);
}

#[tokio::test]
async fn a_collector_that_stalls_costs_spans_and_no_request_waits() {
    let (_gate, collector) = FakeApp::gated().await;
    let (tracing, counts) = exporter(collector.address);
    record(&tracing, 512);
    collector.requests_reach(1).await;
    // A batch is on its way, the queue takes 4096 spans, and the rest is dropped.
    record(&tracing, 4096 + 100);
    assert_eq!(counts(), [0, 100, 0, 0]);
    tracing.flush(Duration::from_millis(10)).await;

    let toml = format!("[tracing]\notlp_endpoint = \"http://{}/v1/traces\"\n", collector.address);
    let mut stage = Stage::set(&toml).await;
    for _ in 0..20 {
        let answer = stage.client().get("/").header("traceparent", SAMPLED).send().await;
        assert_eq!(answer.status(), 200);
    }
    stage.sidecar.terminate();
    stage.sidecar.ended().await;
}

#[tokio::test]
async fn mint_span_belongs_only_to_the_request_that_started_it() {
    let collector = FakeCollector::start().await;
    let mut stage = Stage::set(&collector.toml()).await;
    // The first request is not sampled, so its mint is not sent to the collector. The second request
    // finds the token in the cache.
    for parent in [UNSAMPLED, SAMPLED] {
        let sending = stage.client().get("/").header("x-forwarded-user", "ada");
        assert!(sending.header("traceparent", parent).send().await.token().is_some());
    }
    stage.sidecar.terminate();
    stage.sidecar.ended().await;
    assert_eq!(collector.spans().len(), 2, "the request and its call");
}

#[tokio::test(start_paused = true)]
async fn refresh_span_belongs_to_the_request_that_found_it_due() {
    // In virtual time no call reaches a collector, but each call is counted.
    let (tracing, counts) = exporter(unused_address().await);
    let double = Double::default();
    let bounds = cache::Settings { max_entries: 10, max_bytes: 1 << 20 };
    let tokens = TokenCache::new(Arc::new(double.clone()), &bounds, Metrics::new().tokens);
    let first = tokens.get(request("ada")).within(HOUR).await.expect("in time");
    assert!(first.is_ok());
    tokio::time::advance(LIFE.mul_f64(0.9)).await;
    let trace = tracing.enter(&mut HeaderMap::new()).expect("a trace");
    let recording = trace.recording.expect("it is sampled");
    let due = tokens.get_for(request("ada"), Some(&recording), Moment::now()).within(HOUR).await;
    assert!(due.expect("at hand").is_ok());
    while double.calls() < 2 {
        tokio::task::yield_now().await;
    }
    tokio::time::sleep(HOUR).await;
    tracing.flush(HOUR).await;
    assert_eq!(counts(), [0, 0, 0, 1]);
}

//! Spans as OpenTelemetry reads them: checked by OpenTelemetry's own definitions of the protocol, without an
//! unknown field, and sent through a collector of another project (Rotel).

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use http::Response;
use serde_json::{Value, json};

use crate::neighbour::{Process, Sidecar, http_client, serve_app};
use crate::program::{APPS, Program};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

/// Starts a program that takes spans and prints their content.
async fn receiver() -> (Program, SocketAddr) {
    Program::python("otel/receiver.py", &[]).listening().await
}

fn collector_file() -> PathBuf {
    let file = Path::new(APPS).join("otel/packages/rotel/rotel-agent");
    assert!(file.is_file(), "Rotel is not installed: run tests/run, which installs it");
    file
}

/// Starts a collector that passes spans on as protobuf. Returns its process and its address.
async fn collector(receiver: SocketAddr) -> (Process, SocketAddr) {
    let folder = tempfile::tempdir().expect("a folder");
    let start = |port: u16| {
        let mut rotel = Command::new(collector_file());
        rotel.arg("start").arg(format!("--otlp-http-endpoint=127.0.0.1:{port}"));
        // The collector always listens for the other protocol too, so it gets any free port.
        rotel.arg("--otlp-grpc-endpoint=127.0.0.1:0").arg("--exporter=otlp");
        rotel.arg(format!("--otlp-exporter-endpoint=http://{receiver}"));
        rotel.arg("--otlp-exporter-protocol=http");
        rotel.arg(format!("--pid-file={}", folder.path().join("pid").display()));
        rotel.arg(format!("--log-file={}", folder.path().join("log").display()));
        rotel.env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        rotel
    };
    let ready = async |address: SocketAddr| {
        let call = http_client().post(format!("http://{address}/v1/traces"));
        let call = call.header("content-type", "application/json").body("{\"resourceSpans\":[]}");
        match call.send().await {
            Ok(answer) if answer.status().is_success() => Ok(()),
            Ok(answer) => Err(answer.status().to_string()),
            Err(error) => Err(error.to_string()),
        }
    };
    Process::start_on_free_port(start, ready).await
}

/// Sends a traced request for a user without a token through a sidecar that exports to `endpoint`, and ends
/// the sidecar, which sends its last spans then.
async fn one_request(endpoint: SocketAddr) {
    let (_serving, app) = serve_app(|_| Response::default()).await;
    let endpoint = format!("http://{endpoint}/v1/traces");
    let settings = [
        ("VELT_SIDECAR_TRACING__OTLP_ENDPOINT", endpoint.as_str()),
        ("VELT_SIDECAR_TRACING__SERVICE_NAME", "shop's \"sidecar\""),
    ];
    let sidecar = Sidecar::start_with(app, &settings).await;
    let url = format!("http://{}/a/%22path%22?and=query", sidecar.addresses.traffic);
    let request = http_client().get(url).header("x-forwarded-user", "ada");
    let request = request.header("traceparent", format!("00-{TRACE}-{PARENT}-01"));
    assert_eq!(request.send().await.expect("an answer").status(), 200);
}

/// Returns the spans of a line of the receiver, ordered by kind and name. Panics if the receiver reports an
/// error.
fn spans(line: &Value) -> Vec<Value> {
    assert!(line.get("error").is_none(), "{line:#}");
    assert_eq!(line["path"], "/v1/traces");
    let resource = &line["message"]["resourceSpans"][0];
    let attributes = resource["resource"]["attributes"].as_array().expect("attributes");
    for expected in [
        json!({"key": "service.name", "value": {"stringValue": "shop's \"sidecar\""}}),
        json!({"key": "service.version", "value": {"stringValue": env!("CARGO_PKG_VERSION")}}),
    ] {
        assert!(attributes.contains(&expected), "{expected} in {line:#}");
    }
    assert_eq!(resource["scopeSpans"][0]["scope"]["name"], "velt-sidecar");
    let spans = resource["scopeSpans"][0]["spans"].as_array().expect("spans");
    let mut spans = spans.clone();
    spans.sort_by_key(|span| (span["kind"].as_u64(), span["name"].to_string()));
    spans
}

/// Asserts the meaning of the three spans of [`one_request`].
fn check(spans: &[Value]) {
    let [request, call, mint] = spans else { panic!("three spans: {spans:#?}") };
    let names = [request, call, mint].map(|span| (span["name"].as_str(), span["kind"].as_u64()));
    assert_eq!(names, [(Some("GET"), Some(2)), (Some("GET"), Some(3)), (Some("mint"), Some(3))]);
    assert_eq!(request["parentSpanId"], PARENT);
    for span in spans {
        assert_eq!(span["traceId"], TRACE);
        assert_eq!(span["spanId"].as_str().map(str::len), Some(16));
        let times = ["startTimeUnixNano", "endTimeUnixNano"]
            .map(|time| span[time].as_str().expect("a time").parse::<u64>().expect("a number"));
        // After the year 2020, and in order.
        assert!(times[0] > 1_577_836_800_000_000_000 && times[0] <= times[1], "{span}");
    }
    for child in [call, mint] {
        assert_eq!(child["parentSpanId"], request["spanId"]);
    }
    let attributes = request["attributes"].as_array().expect("attributes");
    for expected in [
        json!({"key": "url.path", "value": {"stringValue": "/a/%22path%22"}}),
        json!({"key": "http.response.status_code", "value": {"intValue": "200"}}),
        json!({"key": "velt_sidecar.outcome", "value": {"stringValue": "forwarded"}}),
    ] {
        assert!(attributes.contains(&expected), "{expected} in {request:#}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn protocol_definitions_know_every_field_of_our_json() {
    let (mut receiver, address) = receiver().await;
    one_request(address).await;
    let line = receiver.line().await;
    assert_eq!(line["kind"], "application/json");
    let spans = spans(&line);
    check(&spans);
    // SpanFlags: sampled, and whether the parent is in another process is known.
    assert_eq!(spans[0]["flags"], 0x301);
    assert_eq!(spans[1]["flags"], 0x101);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_takes_our_spans_and_hands_them_on_unchanged() {
    let (mut receiver, address) = receiver().await;
    let (_collector, endpoint) = collector(address).await;
    one_request(endpoint).await;
    let line = receiver.line().await;
    assert_eq!(line["kind"], "application/x-protobuf");
    check(&spans(&line));
}

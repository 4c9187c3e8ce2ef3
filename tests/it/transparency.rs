//! Transparency of the proxy: generated requests are sent to an app directly and through the sidecar,
//! and both ends see the same, but for the documented list (docs/proxying.md).

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};

use crate::support::Stage;
use crate::support::app::{AppBody, FakeApp, full};
use crate::support::raw::Wire;

/// Headers that the sidecar adds to a request; all else must arrive as it was sent.
const ADDED_TO_REQUESTS: [&str; 3] = ["x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"];

/// Headers that the sidecar adds to a response.
const ADDED_TO_RESPONSES: [&str; 1] = ["x-velt-token-status"];

#[derive(Clone, Debug)]
struct Sent {
    method: &'static str,
    target: String,
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
    framing: Framing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    None,
    Length,
    /// Body in chunks of at most this many bytes.
    Chunked(usize),
}

impl Sent {
    fn bytes(&self) -> Vec<u8> {
        let mut bytes =
            format!("{} {} HTTP/1.1\r\nHost: app.example\r\n", self.method, self.target)
                .into_bytes();
        for (name, value) in &self.headers {
            bytes.extend_from_slice(name.as_bytes());
            bytes.extend_from_slice(b": ");
            bytes.extend_from_slice(value);
            bytes.extend_from_slice(b"\r\n");
        }
        match self.framing {
            Framing::None => bytes.extend_from_slice(b"\r\n"),
            Framing::Length => {
                let length = format!("Content-Length: {}\r\n\r\n", self.body.len());
                bytes.extend_from_slice(length.as_bytes());
                bytes.extend_from_slice(&self.body);
            }
            Framing::Chunked(size) => {
                bytes.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
                for chunk in self.body.chunks(size) {
                    bytes.extend_from_slice(format!("{:X}\r\n", chunk.len()).as_bytes());
                    bytes.extend_from_slice(chunk);
                    bytes.extend_from_slice(b"\r\n");
                }
                bytes.extend_from_slice(b"0\r\n\r\n");
            }
        }
        bytes
    }
}

fn requests() -> impl Strategy<Value = Sent> {
    const METHODS: [&str; 9] =
        ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "M-SEARCH", "x!"];
    // Every byte that a path and a query may hold (RFC 3986 section 3.3 and 3.4).
    let path = r"/([A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-Fa-f]{2}){0,40}";
    let query = r"(\?([A-Za-z0-9._~!$&'()*+,;=:@/?-]|%[0-9A-Fa-f]{2}){0,40})?";
    // Every byte that a name and a value may hold (RFC 9110 sections 5.1 and 5.5).
    let name = r"[Xx]-[Aa]pp-[A-Za-z0-9!#$%&'*+.^_`|~-]{1,12}";
    let visible = prop_oneof![0x21..=0x7e_u8, 0x80..=0xff_u8];
    let value = prop::collection::vec(prop_oneof![8 => visible, 1 => Just(b' ')], 0..30);
    let value = value.prop_map(|bytes| bytes.trim_ascii().to_vec());
    let framing = prop_oneof![
        Just(Framing::None),
        Just(Framing::Length),
        (1..2000_usize).prop_map(Framing::Chunked)
    ];
    (
        prop::sample::select(&METHODS[..]),
        (path, query).prop_map(|(path, query)| path + &query),
        prop::collection::vec((name, value), 0..12),
        prop::collection::vec(any::<u8>(), 0..5000),
        framing,
    )
        .prop_map(|(method, target, headers, mut body, framing)| {
            if framing == Framing::None {
                body.clear();
            }
            Sent { method, target, headers, body, framing }
        })
}

/// Reports what arrived, and sends the request's own headers back beside the report.
async fn report(request: Request<Incoming>) -> Response<AppBody> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.expect("a whole body").to_bytes();
    let mut arrived: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (name, value) in &parts.headers {
        let value = URL_SAFE_NO_PAD.encode(value.as_bytes());
        arrived.entry(name.as_str()).or_default().push(value);
    }
    let seen = json!({
        "method": parts.method.as_str(),
        "target": parts.uri.to_string(),
        "headers": arrived,
        "body": URL_SAFE_NO_PAD.encode(body),
    });
    let mut response = Response::new(full(seen.to_string()));
    for (name, value) in &parts.headers {
        if name.as_str().starts_with("x-app-") {
            response.headers_mut().append(name, value.clone());
        }
    }
    response
}

/// Answer that came back: status line, headers by name, and what the app had seen.
#[derive(Debug, PartialEq)]
struct Seen {
    status: String,
    headers: BTreeMap<String, Vec<String>>,
    at_the_app: Value,
}

async fn exchange(wire: &mut Wire, sent: &Sent) -> Seen {
    wire.send(sent.bytes()).await;
    let head = wire.head().await;
    let mut lines = head.trim_end().split("\r\n");
    let status = lines.next().expect("a status line").to_owned();
    let mut headers: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in lines {
        let (name, value) = line.split_once(':').expect("a header");
        headers.entry(name.to_lowercase()).or_default().push(value.trim().to_owned());
    }
    let length = headers.get("content-length").expect("a length")[0].parse().expect("a number");
    let body = wire.read_exactly(length).await;
    headers.remove("date");
    // The app's report differs, and so does its length.
    headers.remove("content-length");
    let at_the_app = serde_json::from_slice(&body).expect("JSON");
    Seen { status, headers, at_the_app }
}

/// Removes what is documented to differ.
fn without_documented(mut seen: Seen) -> Seen {
    for name in ADDED_TO_RESPONSES {
        seen.headers.remove(name);
    }
    let arrived = seen.at_the_app["headers"].as_object_mut().expect("headers");
    for name in ADDED_TO_REQUESTS {
        arrived.remove(name);
    }
    seen
}

#[tokio::test]
async fn generated_requests_look_the_same_with_the_sidecar() {
    let stage = Stage::with(FakeApp::serving(report).await, "").await;
    let mut direct = Wire::to(stage.app.address).await;
    let mut through = Wire::to(stage.sidecar.addresses.traffic).await;
    // The generator is deterministic, so that a failure can be looked at again.
    let mut runner = TestRunner::new_with_rng(
        Config::default(),
        proptest::test_runner::TestRng::deterministic_rng(
            proptest::test_runner::RngAlgorithm::ChaCha,
        ),
    );
    let strategy = requests();
    for _ in 0..2000 {
        let sent = strategy.new_tree(&mut runner).expect("a request").current();
        let expected = exchange(&mut direct, &sent).await;
        let seen = without_documented(exchange(&mut through, &sent).await);
        assert_eq!(seen, expected, "{sent:?}");
        assert_eq!(expected.at_the_app["target"], sent.target, "byte for byte");
    }
    assert_eq!(stage.metric("requests_total{outcome=\"forwarded\"}").await, 2000.0);
}

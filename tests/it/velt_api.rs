//! Calls to Velt, and the meaning of each of Velt's answers, over real HTTP.

mod place;

use std::collections::BTreeSet;
use std::future::pending;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, LOCATION, RETRY_AFTER};
use http::{HeaderName, HeaderValue, Response};
use http_body_util::{BodyExt as _, Full};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval};
use velt_sidecar::emulator::{Behaviour, Credentials, Emulator, Failure, Settings};
use velt_sidecar::listener::Phase;

use crate::support::app::FakeApp;
use crate::support::client::{Answer, Client};
use crate::support::raw::RawApp;
use crate::support::velt::{
    Call, FakeVelt, answer, jwt, minted, refused, token, unix_seconds, user_of,
};
use crate::support::{API_KEY, AUTH_TOKEN, Stage, TestSidecar};

/// A stage whose sidecar calls `path` at Velt.
async fn calling(path: &str, toml: &str) -> Stage {
    let (app, velt) = (FakeApp::start().await, FakeVelt::start().await);
    let toml = format!("[velt]\nendpoint = \"http://{}{path}\"\n{toml}", velt.address);
    let sidecar = TestSidecar::start(&app.address.to_string(), velt.address, &toml);
    Stage { app, velt, sidecar }
}

/// Returns the only call, after a request with all that a browser and a login proxy send.
async fn only_call(stage: &Stage, identity: &[(&str, &str)]) -> Call {
    let sending = stage.client().post("/api/velt/token", r#"{"userId":"ada"}"#);
    let sending = sending.header("cookie", "session=canary").header("x-forwarded-user", "ada");
    let sending = sending.header("authorization", "Bearer canary").header("accept", "text/html");
    let sending = sending.header("traceparent", "00-canary").header("accept-encoding", "gzip");
    let sending =
        identity.iter().fold(sending, |sending, (name, value)| sending.header(name, value));
    let answer = sending.send().await;
    assert_eq!(user_of(answer.json()["token"].as_str().expect("a token")), "ada");
    let mut calls = stage.velt.calls();
    assert_eq!(calls.len(), 1);
    calls.remove(0)
}

/// Asserts that a call carries nothing of the client's request.
fn assert_headers(call: &Call, credentials: &[&str]) {
    let names: BTreeSet<&str> = call.headers.keys().map(HeaderName::as_str).collect();
    let expected = ["accept", "content-length", "content-type", "host", "user-agent"];
    assert_eq!(names, expected.into_iter().chain(credentials.iter().copied()).collect());
    assert_eq!(call.headers["content-type"], "application/json");
    assert_eq!(call.headers["accept"], "*/*");
    let agent = concat!("velt-sidecar/", env!("CARGO_PKG_VERSION"));
    assert_eq!(call.headers["user-agent"], agent);
}

const IDENTITY: &str = "[identity]\nemail_header = \"X-Email\"\norganization_header = \"X-Org\"\n\
                        groups_header = \"X-Groups\"\nadmin_groups = [\"admins\"]\n";

#[tokio::test]
async fn legacy_sends_the_user_and_the_credentials_in_the_body() {
    let stage = calling("/", "").await;
    let call = only_call(&stage, &[("x-email", "ada@example.com"), ("x-org", "o")]).await;
    assert_eq!(call.path, "/");
    assert_headers(&call, &[]);
    let data = json!({ "userId": "ada", "apiKey": API_KEY, "authToken": AUTH_TOKEN });
    assert_eq!(call.body, json!({ "data": data }));
}

#[tokio::test]
async fn v1_adds_the_users_properties() {
    let path = "/v1/auth/token/get";
    let toml = format!("{IDENTITY}[velt]\napi = \"v1\"");
    let stage = calling(path, &toml).await;
    let identity = [("x-email", "ada@example.com"), ("x-org", "org-1"), ("x-groups", "admins")];
    let call = only_call(&stage, &identity).await;
    assert_eq!(call.path, path);
    assert_headers(&call, &[]);
    let properties =
        json!({ "organizationId": "org-1", "email": "ada@example.com", "isAdmin": true });
    assert_eq!(
        call.body,
        json!({ "data": {
            "userId": "ada",
            "apiKey": API_KEY,
            "authToken": AUTH_TOKEN,
            "userProperties": properties,
        }})
    );
}

#[tokio::test]
async fn v2_sends_the_credentials_in_headers_and_the_organization_among_the_resources() {
    let path = "/v2/auth/generate_token";
    let toml =
        format!("{IDENTITY}name_header = \"X-Name\"\n[velt]\napi = \"v2\"\norganization = \"o\"");
    let stage = calling(path, &toml).await;
    let identity = [
        ("x-email", "ada@example.com"),
        ("x-name", "Ada \u{201c}A\u{201d} Lovelace"),
        ("x-org", "org-1"),
        ("x-groups", "staff"),
    ];
    let call = only_call(&stage, &identity).await;
    assert_eq!(call.path, path);
    assert_headers(&call, &["x-velt-api-key", "x-velt-auth-token"]);
    assert_eq!(call.headers["x-velt-api-key"], API_KEY);
    assert_eq!(call.headers["x-velt-auth-token"], AUTH_TOKEN);
    let name = "Ada \u{201c}A\u{201d} Lovelace";
    assert_eq!(
        call.body,
        json!({ "data": {
            "userId": "ada",
            "userProperties": { "name": name, "email": "ada@example.com", "isAdmin": false },
            "permissions": { "resources": [{ "type": "organization", "id": "org-1" }] },
        }})
    );
}

#[tokio::test]
async fn what_is_not_known_is_absent_and_never_an_empty_string() {
    let identity = "[identity]\nemail_header = \"X-Email\"\norganization_header = \"X-Org\"\n";
    for (api, expected) in [
        (
            "v1",
            json!({
                "userId": "ada",
                "apiKey": API_KEY,
                "authToken": AUTH_TOKEN,
                "userProperties": { "organizationId": "org" },
            }),
        ),
        (
            "v2",
            json!({
                "userId": "ada",
                "userProperties": {},
                "permissions": { "resources": [{ "type": "organization", "id": "org" }] },
            }),
        ),
    ] {
        let toml = format!("{identity}[velt]\napi = \"{api}\"\norganization = \"org\"");
        let stage = calling("/", &toml).await;
        assert_eq!(only_call(&stage, &[]).await.body, json!({ "data": expected }), "{api}");
    }
}

#[tokio::test]
async fn configured_resources_follow_the_organization_and_are_dated_at_the_mint() {
    let stage = calling(
        "/",
        r#"
        [velt]
        api = "v2"
        organization = "org"
        [[velt.resource]]
        type = "folder"
        id = "folder-1"
        [[velt.resource]]
        type = "document"
        id = "document-1"
        organization = "other-org"
        role = "viewer"
        expires_in = "2h"
        [[velt.resource]]
        type = "organization"
        id = "guests"
        role = "editor"
        "#,
    )
    .await;
    let before = unix_seconds();
    let mut body = only_call(&stage, &[]).await.body;
    let expires_at = body["data"]["permissions"]["resources"][2]["expiresAt"].take();
    let expires_at = expires_at.as_u64().expect("whole seconds");
    assert!((before + 7200..=unix_seconds() + 7200).contains(&expires_at), "{expires_at}");
    assert_eq!(
        body["data"]["permissions"]["resources"],
        json!([
            { "type": "organization", "id": "org" },
            { "type": "folder", "id": "folder-1", "organizationId": "org" },
            {
                "type": "document",
                "id": "document-1",
                "organizationId": "other-org",
                "accessRole": "viewer",
                "expiresAt": null,
            },
            { "type": "organization", "id": "guests", "accessRole": "editor" },
        ])
    );
    let headroom = stage.metric("outage_headroom_seconds").await;
    assert!((7000.0..=7200.0).contains(&headroom), "a token lives no longer than its grants");
}

/// Starts an emulator that knows one workspace, and returns its address and the means to end it.
fn emulator(behaviour: Behaviour) -> (SocketAddr, watch::Sender<Phase>) {
    let credentials = Credentials { api_key: API_KEY.into(), auth_token: AUTH_TOKEN.into() };
    let settings = Settings {
        address: (Ipv4Addr::LOCALHOST, 0).into(),
        credentials: Some(credentials),
        token_life: Duration::from_secs(3600),
        behaviour,
    };
    let emulator = Emulator::bind(settings).expect("a free port");
    let address = emulator.address();
    let (stop, stopping) = watch::channel(Phase::Serving);
    tokio::spawn(emulator.run(stopping));
    (address, stop)
}

/// Returns the answer of the token route in front of an emulator.
async fn ask_emulator(address: SocketAddr, path: &str, toml: &str) -> (Answer, Stage) {
    let toml = format!("[velt]\nendpoint = \"http://{address}{path}\"\n{toml}");
    let stage = Stage::set(&toml).await;
    let answer = stage.get_as("ada", "/api/velt/token").await;
    assert_eq!(stage.velt.call_count(), 0, "the stand-in is not asked");
    (answer, stage)
}

const ORGANIZATION: &str = "organization = \"org\"";

#[tokio::test]
async fn the_emulator_mints_by_every_api() {
    let (address, _running) = emulator(Behaviour::default());
    for (api, path, organization) in [
        ("legacy", "/", ""),
        ("v1", "/v1/auth/token/get", ORGANIZATION),
        ("v2", "/v2/auth/generate_token", ORGANIZATION),
    ] {
        let toml = format!("[velt]\napi = \"{api}\"\n{organization}");
        let (answer, stage) = ask_emulator(address, path, &toml).await;
        assert_eq!(answer.status(), 200, "{api}: {}", answer.text());
        let verifying = Client::to(address).post("/emulator/verify", answer.text());
        let verified = verifying.begin().await.into_body().collect().await.expect("a body");
        let verified: Value = serde_json::from_slice(&verified.to_bytes()).expect("JSON");
        assert_eq!(
            (&verified["valid"], &verified["claims"]["userId"]),
            (&json!(true), &json!("ada"))
        );
        let headroom = stage.metric("outage_headroom_seconds").await;
        assert!((3000.0..=3600.0).contains(&headroom), "exp shortens a life: {headroom}");
    }
}

#[tokio::test]
async fn the_emulator_refuses_what_velt_documents_as_refused() {
    let (address, _running) = emulator(Behaviour::default());
    let v2 = format!("[velt]\napi = \"v2\"\n{ORGANIZATION}");
    for (mistake, path, toml) in [
        ("v1 without an organization", "/v1/auth/token/get", ""),
        ("v2 without headers", "/v2/auth/generate_token", ""),
        ("v1 with the credentials in headers", "/v1/auth/token/get", &*v2),
        ("no such endpoint", "/v3/auth/token", ""),
    ] {
        let (answer, stage) = ask_emulator(address, path, toml).await;
        assert_eq!((answer.status(), &*answer.code()), (502, "token_refused"), "{mistake}");
        assert_eq!(stage.metric("mints_total{outcome=\"refused\"}").await, 1.0);
        assert_eq!(stage.metric("mint_attempts_total").await, 1.0, "{mistake}");
        let header = stage.get_as("ada", "/").await;
        assert_eq!(header.token_status(), Some("refused"), "{mistake}");
    }
}

#[tokio::test]
async fn the_emulator_refuses_wrong_credentials_by_every_api() {
    let settings = Settings {
        address: (Ipv4Addr::LOCALHOST, 0).into(),
        credentials: Some(Credentials { api_key: API_KEY.into(), auth_token: "another".into() }),
        token_life: Duration::from_secs(3600),
        behaviour: Behaviour::default(),
    };
    let emulator = Emulator::bind(settings).expect("a free port");
    let address = emulator.address();
    let (_stop, stopping) = watch::channel(Phase::Serving);
    tokio::spawn(emulator.run(stopping));
    for (api, path, organization, status) in [
        ("legacy", "/", "", "INVALID_ARGUMENT, HTTP 400"),
        ("v1", "/v1/auth/token/get", ORGANIZATION, "INVALID_ARGUMENT, HTTP 400"),
        ("v2", "/v2/auth/generate_token", ORGANIZATION, "PERMISSION_DENIED, HTTP 403"),
    ] {
        let toml = format!("[velt]\napi = \"{api}\"\n{organization}");
        let (answer, _stage) = ask_emulator(address, path, &toml).await;
        assert_eq!((answer.status(), &*answer.code()), (502, "token_refused"), "{api}");
        let text = answer.text();
        assert!(text.contains(status), "{text}");
        assert!(text.contains("check the API key and auth token"), "{text}");
    }
}

#[tokio::test]
async fn each_failure_of_the_emulator_is_of_its_class() {
    for (failure, expected) in [
        (Failure::Unavailable, UNAVAILABLE),
        (Failure::Internal, UNAVAILABLE),
        (Failure::RateLimited, RATE_LIMITED.after(1)),
        (Failure::PermissionDenied, REFUSED),
        (Failure::InvalidArgument, REFUSED),
        (Failure::Malformed, MALFORMED),
    ] {
        let (address, _running) = emulator(Behaviour { failure: Some(failure), latency_ms: 0 });
        let toml =
            format!("[delivery.header]\nmax_wait = \"20s\"\n[velt]\n{}", patient_with(address));
        let stage = Stage::set(&toml).await;
        let header = stage.get_as("ada", "/").await;
        assert_eq!(header.token_status(), Some(expected.word), "{failure:?}");
        let series = format!("mints_total{{outcome=\"{}\"}}", expected.label);
        assert_eq!(stage.metric(&series).await, 1.0, "{failure:?}");
        assert_eq!(stage.metric("mint_attempts_total").await, expected.calls as f64);
    }
}

fn patient_with(address: SocketAddr) -> String {
    format!("endpoint = \"http://{address}/\"\nattempt_timeout = \"20s\"\ndeadline = \"20s\"\n")
}

/// Effects that a test expects of an answer of Velt's.
#[derive(Clone, Copy, Debug)]
struct Expected {
    /// Value of `X-Velt-Token-Status`.
    word: &'static str,
    /// Status of the token route.
    status: u16,
    code: &'static str,
    /// Label of `mints_total`.
    label: &'static str,
    calls: usize,
}

impl Expected {
    fn after(self, calls: usize) -> Self {
        Self { calls, ..self }
    }
}

const REFUSED: Expected =
    Expected { word: "refused", status: 502, code: "token_refused", label: "refused", calls: 1 };
const MALFORMED: Expected = Expected {
    word: "malformed",
    status: 502,
    code: "token_malformed",
    label: "malformed",
    calls: 1,
};
const MISMATCH: Expected = Expected { label: "mismatch", ..MALFORMED };
const RATE_LIMITED: Expected = Expected {
    word: "rate-limited",
    status: 429,
    code: "token_rate_limited",
    label: "rate_limited",
    calls: 1,
};
const UNAVAILABLE: Expected = Expected {
    word: "unavailable",
    status: 503,
    code: "token_unavailable",
    label: "unavailable",
    calls: 3,
};
const TIMEOUT: Expected =
    Expected { word: "timeout", status: 504, code: "token_timeout", label: "timeout", calls: 3 };

/// Settings with limits so long that only Velt's answers decide.
const PATIENT: &str = r#"
    [velt]
    attempt_timeout = "20s"
    deadline = "20s"
    [delivery.header]
    max_wait = "20s"
    [[delivery.route]]
    path = "/api/velt/token"
    max_wait = "20s"
"#;

/// Asks in both ways for the same token while the mint is held, so that one mint answers both.
async fn ask_twice(stage: &Stage) -> (Answer, Answer) {
    stage.velt.close_gate();
    let ask = |path| {
        let sending = stage.client().get(path).header("x-forwarded-user", "ada");
        tokio::spawn(sending.send())
    };
    let (header, route) = (ask("/"), ask("/api/velt/token"));
    stage.sidecar.metric_reaches("token_lookups_total{result=\"joined\"}", 1.0).await;
    stage.velt.open_gate();
    (header.await.expect("no panic"), route.await.expect("no panic"))
}

/// Asserts the expected effects of one answer of Velt's.
async fn assert_comes_to<F>(name: String, toml: &str, script: F, expected: Expected)
where
    F: Fn(&Call, usize) -> Response<Full<Bytes>> + Send + Sync + 'static,
{
    let stage = Stage::set(&format!("{PATIENT}{toml}")).await;
    stage.velt.script(script);
    let (header, route) = ask_twice(&stage).await;
    assert_eq!((header.status(), header.token()), (200, None), "{name}: the app is answered");
    assert_eq!(header.token_status(), Some(expected.word), "{name}");
    assert_eq!((route.status(), &*route.code()), (expected.status, expected.code), "{name}");
    let passing = !matches!(expected.status, 502);
    assert_eq!(route.header("retry-after").is_some(), passing, "{name}");
    assert_eq!(stage.velt.call_count(), expected.calls, "{name}");
    let series = format!("mints_total{{outcome=\"{}\"}}", expected.label);
    assert_eq!(stage.metric(&series).await, 1.0, "{name}");
    assert_eq!(stage.metric("mint_attempts_total").await, expected.calls as f64, "{name}");
    for answer in [header, route] {
        let everything = format!("{answer:?}");
        assert!(!everything.contains("canary"), "{name}: Velt's words are passed on");
    }
}

/// Checks many answers at the same time, since some of them take the time of their retries.
async fn assert_each_comes_to(rows: Vec<(String, Response<Full<Bytes>>, Expected)>) {
    let mut checks = JoinSet::new();
    for (name, mut response, expected) in rows {
        if expected.label == RATE_LIMITED.label {
            // The wait is longer than a mint may take; otherwise the mint would wait for the end of the
            // pause.
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("30"));
        }
        let script = move |_: &Call, _: usize| response.clone();
        checks.spawn(async move { assert_comes_to(name, "", script, expected).await });
    }
    checks.join_all().await;
}

#[tokio::test]
async fn an_error_is_classified_by_its_status_word_first() {
    let rows = [
        (400, "INVALID_ARGUMENT", REFUSED),
        (403, "PERMISSION_DENIED", REFUSED),
        (401, "UNAUTHENTICATED", REFUSED),
        (404, "NOT_FOUND", REFUSED),
        (400, "FAILED_PRECONDITION", REFUSED),
        (409, "ALREADY_EXISTS", REFUSED),
        (400, "OUT_OF_RANGE", REFUSED),
        (501, "UNIMPLEMENTED", REFUSED),
        (429, "RESOURCE_EXHAUSTED", RATE_LIMITED),
        (504, "DEADLINE_EXCEEDED", TIMEOUT),
        (500, "INTERNAL", UNAVAILABLE),
        (503, "UNAVAILABLE", UNAVAILABLE),
        (409, "ABORTED", UNAVAILABLE),
        (499, "CANCELLED", UNAVAILABLE),
        // The status word wins over the number.
        (200, "PERMISSION_DENIED", REFUSED),
        (500, "INVALID_ARGUMENT", REFUSED),
        (400, "RESOURCE_EXHAUSTED", RATE_LIMITED),
        (400, "UNAVAILABLE", UNAVAILABLE),
        (200, "INTERNAL", UNAVAILABLE),
        // An unknown status word leaves the decision to the number.
        (403, "canary", REFUSED),
        (500, "canary", UNAVAILABLE),
        (200, "canary", MALFORMED),
    ];
    let row = |(http, word, expected)| (format!("{http} {word}"), refused(http, word), expected);
    assert_each_comes_to(rows.map(row).into()).await;
}

#[tokio::test]
async fn an_error_without_a_status_word_is_classified_by_its_number() {
    let rows = [
        (400, REFUSED),
        // A page is no answer of Velt's own.
        (401, MALFORMED),
        (402, REFUSED),
        (403, REFUSED),
        (404, REFUSED),
        (405, REFUSED),
        (422, MALFORMED),
        (408, TIMEOUT),
        (504, TIMEOUT),
        (429, RATE_LIMITED),
        (500, UNAVAILABLE),
        (502, UNAVAILABLE),
        (503, UNAVAILABLE),
        (520, UNAVAILABLE),
    ];
    let bodies = ["", "<html>canary</html>", "{\"error\":\"canary\"}", "[\"canary\"]", "null"];
    let row = |(n, (http, expected)): (usize, _)| {
        let body = bodies[n % bodies.len()];
        (format!("{http} {body}"), answer(http, body), expected)
    };
    assert_each_comes_to(rows.into_iter().enumerate().map(row).collect()).await;
}

/// Velt's envelope around `token`.
fn holding(token: &Value) -> String {
    json!({ "result": { "status": "success", "data": { "token": token } } }).to_string()
}

#[tokio::test]
async fn t44_a_success_without_a_usable_token_is_malformed() {
    let bodies = [
        String::new(),
        "<!doctype html><title>canary</title>".into(),
        "canary".into(),
        "\"a.b.c\"".into(),
        "[]".into(),
        "{}".into(),
        json!({ "token": "a.b.c" }).to_string(),
        json!({ "data": { "token": "a.b.c" } }).to_string(),
        json!({ "result": null }).to_string(),
        json!({ "result": { "data": {} } }).to_string(),
        holding(&Value::Null),
        holding(&json!(5)),
        holding(&json!("")),
        holding(&json!(" ")),
        holding(&json!("a b")),
        holding(&json!("a.b.c\n")),
        holding(&json!("a\r\nset-cookie: canary=1")),
        holding(&json!("a\"b")),
        holding(&json!("a\\b")),
        holding(&json!("a\0b")),
        holding(&json!("t\u{f6}ken")),
        holding(&json!("x".repeat(12 * 1024 + 1))),
        format!("{}{}", holding(&json!("a.b.c")), " ".repeat(70 * 1024)),
    ];
    let rows = bodies.into_iter().map(|body| {
        let name = body.chars().take(80).collect();
        (name, answer(200, &body), MALFORMED)
    });
    let mut rows: Vec<_> = rows.collect();
    rows.push(("204".into(), answer(204, ""), MALFORMED));
    assert_each_comes_to(rows).await;
}

#[tokio::test]
async fn t44_the_largest_token_and_the_largest_answer_pass() {
    let largest = "x".repeat(12 * 1024);
    let stage = Stage::set(PATIENT).await;
    let script = largest.clone();
    stage.velt.script(move |_, _| minted(&script));
    let (header, route) = ask_twice(&stage).await;
    assert_eq!(header.token(), Some(&*largest));
    assert_eq!(route.json()["token"], largest);

    let stage = Stage::set(PATIENT).await;
    let body = holding(&json!("a.b.c"));
    let body = format!("{body}{}", " ".repeat(64 * 1024 - body.len()));
    stage.velt.answer_with(200, &body);
    assert_eq!(ask_twice(&stage).await.0.token(), Some("a.b.c"));
}

#[tokio::test]
async fn t44_an_endless_error_page_is_still_the_error_that_it_says() {
    let page = "<p>canary</p>".repeat(70 * 1024 / 13);
    assert_each_comes_to(vec![
        ("a large 503".into(), answer(503, &page), UNAVAILABLE),
        // Velt's own refusals are shorter.
        ("a large 403".into(), answer(403, &page), MALFORMED),
    ])
    .await;
}

#[tokio::test]
async fn t44_compressed_answer_is_not_unpacked() {
    // `{"result":{"data":{"token":"a.b.c"}}}` by gzip.
    const PACKED: &[u8] =
        b"\x1f\x8b\x08\0\0\0\0\0\x02\x03\xabV*J-.\xcd)Q\xb2\xaaVJI,I\x04\xd1%\xf9\
                            \xd9\xa9yJVJ\x89zIz\xc9J\xb5\xb5\xb5\0\xf1\xf8\xbeH%\0\0\0";
    let script = |_: &Call, _: usize| {
        let mut response = answer(200, "");
        *response.body_mut() = Full::new(Bytes::from_static(PACKED));
        response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        response
    };
    assert_comes_to("gzip".into(), "", script, MALFORMED).await;
}

#[tokio::test]
async fn t44_a_redirect_is_never_followed() {
    let elsewhere = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
    let location = format!("http://{}/", elsewhere.local_addr().expect("an address"));
    let rows = [300, 301, 302, 303, 304, 307, 308].map(|status| {
        let mut response = answer(status, "");
        let location = HeaderValue::from_str(&location).expect("a value");
        response.headers_mut().insert(LOCATION, location);
        (status.to_string(), response, MALFORMED)
    });
    assert_each_comes_to(rows.into()).await;
    // A connection would be in the queue by now.
    let accepting = elsewhere.into_std().expect("a socket").accept();
    let error = accepting.expect_err("nobody connected");
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
}

const HASTY: &str = r#"
    [velt]
    attempt_timeout = "300ms"
    deadline = "5s"
    [delivery.header]
    max_wait = "20s"
    [[delivery.route]]
    path = "/api/velt/token"
    max_wait = "20s"
"#;

/// Asserts the effects of a Velt that is nothing but a socket, as [`assert_comes_to`] does.
async fn assert_socket_comes_to(velt: &RawApp, expected: Expected) {
    let stage =
        Stage::set(&format!("{HASTY}[velt]\nendpoint = \"http://{}/\"", velt.address)).await;
    let header = stage.get_as("ada", "/").await;
    assert_eq!((header.status(), header.token()), (200, None));
    assert_eq!(header.token_status(), Some(expected.word));
    let series = format!("mints_total{{outcome=\"{}\"}}", expected.label);
    assert_eq!(stage.metric(&series).await, 1.0);
    assert_eq!(stage.metric("mint_attempts_total").await, expected.calls as f64);
    assert_eq!(velt.connection_count(), expected.calls);
}

#[tokio::test]
async fn t44_an_answer_that_never_comes_is_a_timeout() {
    for path in ["/", "/api/velt/token"] {
        let stage = Stage::set(HASTY).await;
        stage.velt.close_gate();
        let answer = stage.get_as("ada", path).await;
        if path == "/" {
            assert_eq!((answer.status(), answer.token_status()), (200, Some("timeout")));
        } else {
            assert_eq!((answer.status(), &*answer.code()), (504, "token_timeout"));
            assert_eq!(answer.header("retry-after"), Some("1"));
        }
        assert_eq!(stage.velt.call_count(), 3);
    }
}

#[tokio::test]
async fn t44_an_answer_that_never_ends_is_a_timeout() {
    let stuck = RawApp::serving(|mut wire, _| async move {
        wire.read_to("}}").await;
        wire.send("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"result\":").await;
        pending::<()>().await;
    })
    .await;
    assert_socket_comes_to(&stuck, TIMEOUT).await;

    let dripping = RawApp::serving(|mut wire, _| async move {
        wire.read_to("}}").await;
        wire.send("HTTP/1.1 200 OK\r\ncontent-length: 60000\r\n\r\n").await;
        let mut ticks = interval(Duration::from_millis(20));
        // The loop ends when the sidecar has had enough of the answer.
        while wire.try_send(" ").await {
            ticks.tick().await;
        }
    })
    .await;
    assert_socket_comes_to(&dripping, TIMEOUT).await;
}

#[tokio::test]
async fn t44_a_connection_that_breaks_is_unavailable() {
    for said in [
        "",
        "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"result\":",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{}",
        "SSH-2.0-canary\r\n\r\n",
    ] {
        let breaking = RawApp::serving(move |mut wire, _| async move {
            wire.read_to("}}").await;
            wire.send(said).await;
            wire.end().await;
        })
        .await;
        assert_socket_comes_to(&breaking, UNAVAILABLE).await;
    }
}

#[tokio::test]
async fn the_deadline_ends_a_mint_before_its_attempts_are_used_up() {
    let toml = "[velt]\nattempt_timeout = \"300ms\"\ndeadline = \"300ms\"\n\
                [delivery.header]\nmax_wait = \"20s\"";
    let stage = Stage::set(toml).await;
    stage.velt.close_gate();
    assert_eq!(stage.get_as("ada", "/").await.token_status(), Some("timeout"));
    assert_eq!(stage.velt.call_count(), 1);
}

#[tokio::test]
async fn a_mint_survives_two_bad_answers() {
    for status in [500, 503, 429, 504] {
        let stage = Stage::set(PATIENT).await;
        stage.velt.script(move |call, n| match n {
            1 | 2 => answer(status, ""),
            _ => minted(&token(call.user(), n)),
        });
        let (header, route) = ask_twice(&stage).await;
        assert_eq!(user_of(header.token().expect("a token")), "ada");
        assert_eq!(route.status(), 200);
        assert_eq!(stage.velt.call_count(), 3);
        assert_eq!(stage.metric("mint_attempts_total").await, 3.0);
        assert_eq!(stage.metric("mints_total{outcome=\"minted\"}").await, 1.0);
    }
}

#[tokio::test]
async fn retry_after_is_honoured_in_seconds_and_as_a_date() {
    let date = || httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(2));
    for as_date in [false, true] {
        let stage = Stage::set(PATIENT).await;
        let times: Arc<Mutex<Vec<Instant>>> = Arc::default();
        let journal = Arc::clone(&times);
        stage.velt.script(move |call, n| {
            journal.lock().expect("no panic").push(Instant::now());
            if n > 1 {
                return minted(&token(call.user(), n));
            }
            let mut response = refused(429, "RESOURCE_EXHAUSTED");
            let wait = if as_date { date() } else { "1".to_owned() };
            let wait = HeaderValue::from_str(&wait).expect("a value");
            response.headers_mut().insert(RETRY_AFTER, wait);
            response
        });
        assert!(ask_twice(&stage).await.0.token().is_some());
        let times = times.lock().expect("no panic").clone();
        assert_eq!(times.len(), 2);
        // A date has whole seconds, so up to one of the two seconds may be lost; no backoff is as long.
        let waited = times[1] - times[0];
        assert!(waited >= Duration::from_millis(990), "{waited:?}");
    }
}

#[tokio::test]
async fn a_retry_after_beyond_the_deadline_is_passed_on_instead_of_waited_for() {
    for (status, said, told, calls) in [
        (429, "60", Some("60"), 1),
        (503, "61", Some("61"), 1),
        // The sidecar believes a `Retry-After` only within limits, and a nonsensical one not at all.
        (429, "99999999999", Some("300"), 1),
        (429, "soon", Some("1"), 1),
        (429, "-5", Some("1"), 1),
        (503, "", Some("1"), 3),
        (403, "60", None, 1),
    ] {
        // If Velt names no time, the pause of half a second must be longer than a mint may take.
        let hasty = if calls == 1 { "400ms" } else { "20s" };
        let stage = Stage::set(&PATIENT.replacen("\"20s\"", &format!("\"{hasty}\""), 2)).await;
        stage.velt.script(move |_, _| {
            let mut response = answer(status, "");
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static(said));
            response
        });
        let (_, route) = ask_twice(&stage).await;
        assert_eq!(route.header("retry-after"), told, "{status} {said}");
        assert_eq!(stage.velt.call_count(), calls, "{status} {said}");
    }
}

fn claiming(claims: Value) -> impl Fn(&Call, usize) -> Response<Full<Bytes>> + Send + Sync {
    move |_, _| minted(&jwt(&claims))
}

#[tokio::test]
async fn t36_a_token_that_names_another_user_is_never_served() {
    for (n, claims) in [
        json!({ "userId": "eve" }),
        json!({ "userId": "Ada" }),
        json!({ "userId": "ada " }),
        json!({ "userId": "" }),
        json!({ "userId": 5 }),
        json!({ "userId": true }),
        json!({ "userId": ["ada"] }),
        json!({ "userId": { "id": "ada" } }),
        // Another odd claim changes nothing.
        json!({ "userId": "eve", "exp": "tomorrow" }),
        json!({ "userId": "eve", "exp": null }),
    ]
    .into_iter()
    .enumerate()
    {
        let mode = if n % 2 == 0 { "" } else { "[velt]\nverify_user = \"require\"" };
        assert_comes_to(claims.to_string(), mode, claiming(claims), MISMATCH).await;
    }
}

#[tokio::test]
async fn t36_a_mismatch_does_not_displace_a_token_of_another_user() {
    let stage = Stage::set(PATIENT).await;
    let ada = stage.get_as("ada", "/api/velt/token").await;
    stage.velt.script(|_, n| minted(&token("ada", n)));
    let eve = stage.get_as("eve", "/api/velt/token").await;
    assert_eq!((eve.status(), &*eve.code()), (502, "token_malformed"));
    assert_eq!(stage.get_as("ada", "/api/velt/token").await.text(), ada.text());
    assert_eq!(stage.get_as("eve", "/").await.token(), None);
    assert_eq!(stage.velt.call_count(), 2);
}

#[tokio::test]
async fn t36_auto_serves_userless_tokens_and_require_refuses_them() {
    let unreadable = ["opaque", "a.b.c", "!!.!!.!!", "a.b", &format!("x.{}.y", "A".repeat(500))]
        .map(str::to_owned);
    let silent = [json!({}), json!({ "sub": "eve" }), json!({ "userId": null }), json!([1])];
    for served in unreadable.into_iter().chain(silent.iter().map(jwt)) {
        let stage = Stage::set(PATIENT).await;
        let script = served.clone();
        stage.velt.script(move |_, _| minted(&script));
        assert_eq!(ask_twice(&stage).await.0.token(), Some(&*served));
        let script = move |_: &Call, _: usize| minted(&served);
        let require = "[velt]\nverify_user = \"require\"";
        assert_comes_to("require".into(), require, script, MALFORMED).await;
    }
}

#[tokio::test]
async fn t36_a_number_that_is_the_users_id_is_the_user() {
    let stage = Stage::set("[velt]\nverify_user = \"require\"").await;
    stage.velt.script(claiming(json!({ "userId": 42 })));
    assert_eq!(stage.get_as("42", "/api/velt/token").await.status(), 200);
}

#[tokio::test]
async fn t36_off_serves_any_token_of_velt() {
    let stage = Stage::set(&format!("{PATIENT}[velt]\nverify_user = \"off\"")).await;
    stage.velt.script(claiming(json!({ "userId": "eve" })));
    assert_eq!(user_of(ask_twice(&stage).await.0.token().expect("a token")), "eve");
}

#[tokio::test]
async fn a_token_that_has_expired_is_malformed() {
    for exp in [json!(unix_seconds() - 1), json!(0), json!(-1), json!(1.5), json!(-1e300)] {
        let claims = json!({ "userId": "ada", "exp": exp });
        assert_comes_to(claims.to_string(), "", claiming(claims), MALFORMED).await;
    }
}

#[tokio::test]
async fn exp_shortens_a_tokens_life_and_never_lengthens_it() {
    let documented = 48.0 * 3600.0;
    let now = unix_seconds();
    for (exp, longest) in [
        (json!(now + 600), 600.0),
        (json!(now as f64 + 600.5), 600.5),
        (json!(now + 1_000_000), documented),
        (json!(1e300), documented),
        (json!("tomorrow"), documented),
        (json!(null), documented),
    ] {
        let stage = Stage::set(PATIENT).await;
        stage.velt.script(claiming(json!({ "userId": "ada", "exp": exp })));
        assert!(ask_twice(&stage).await.0.token().is_some(), "{exp}");
        let headroom = stage.metric("outage_headroom_seconds").await;
        // The headroom is less a margin of a minute, and less the time of a loaded machine.
        assert!((longest - 120.0..=longest).contains(&headroom), "{exp}: {headroom}");
    }
}

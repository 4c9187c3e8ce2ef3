//! The emulator in place of Velt: it mints, refuses and fails as Velt does.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use hop::listener::Phase;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tokio::sync::watch;
use tools::emulator::{Behaviour, Credentials, Emulator, Failure, Settings};

use super::{MALFORMED, RATE_LIMITED, REFUSED, UNAVAILABLE};
use crate::support::client::{Answer, Client};
use crate::support::{API_KEY, AUTH_TOKEN, Stage};

/// Starts an emulator that knows one workspace, and returns its address and the means to end it.
fn emulator(behaviour: Behaviour) -> (SocketAddr, watch::Sender<Phase>) {
    emulator_with(AUTH_TOKEN, behaviour)
}

fn emulator_with(auth_token: &str, behaviour: Behaviour) -> (SocketAddr, watch::Sender<Phase>) {
    let credentials = Credentials { api_key: API_KEY.into(), auth_token: auth_token.into() };
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
async fn emulator_mints_by_every_api() {
    let (address, _running) = emulator(Behaviour::default());
    let apis = [
        ("legacy", "/", ""),
        ("v1", "/v1/auth/token/get", ORGANIZATION),
        ("v2", "/v2/auth/generate_token", ORGANIZATION),
    ];
    for ((api, path, organization), count) in apis.into_iter().zip(1_u64..) {
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
        let journal = Client::to(address).get("/emulator/journal").begin().await;
        let journal = journal.into_body().collect().await.expect("a body").to_bytes();
        let journal: Value = serde_json::from_slice(&journal).expect("JSON");
        assert_eq!(journal["verifications"], count, "{api}");
        let headroom = stage.metric("outage_headroom_seconds").await;
        assert!((3000.0..=3600.0).contains(&headroom), "exp shortens a life: {headroom}");
    }
}

#[tokio::test]
async fn emulator_refuses_mistakes_that_velt_refuses() {
    let (address, _running) = emulator(Behaviour::default());
    let (answer, stage) = ask_emulator(address, "/v3/auth/token", "").await;
    assert_eq!((answer.status(), &*answer.code()), (502, "token_refused"));
    assert_eq!(stage.metric("mints_total{outcome=\"refused\"}").await, 1.0);
    assert_eq!(stage.metric("mint_attempts_total").await, 1.0);
    assert_eq!(stage.get_as("ada", "/").await.token_status(), Some("refused"));
    // A sidecar that would make one of these mistakes does not start.
    let in_body =
        format!(r#"{{"data":{{"userId":"ada","apiKey":"{API_KEY}","authToken":"{AUTH_TOKEN}"}}}}"#);
    for (mistake, path, body) in [
        ("v1 without an organization", "/v1/auth/token/get", &*in_body),
        ("v2 without headers", "/v2/auth/generate_token", &in_body),
        (
            "v1 without credentials",
            "/v1/auth/token/get",
            r#"{"data":{"userId":"ada","organizationId":"acme"}}"#,
        ),
    ] {
        let answer = Client::to(address).post(path, body.to_owned()).send().await;
        assert!([400, 401, 403].contains(&answer.status()), "{mistake}: {}", answer.status());
        assert!(answer.json()["error"]["status"].is_string(), "{mistake}: {}", answer.text());
    }
}

#[tokio::test]
async fn emulator_refuses_wrong_credentials_by_every_api() {
    let (address, _running) = emulator_with("another", Behaviour::default());
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

/// Sends a v2 request of this body, and returns the status and the message of a refusal.
async fn refusal_of(address: SocketAddr, body: &Value) -> (u16, String) {
    let answer = Client::to(address)
        .post("/v2/auth/generate_token", body.to_string())
        .header("x-velt-api-key", API_KEY)
        .header("x-velt-auth-token", AUTH_TOKEN)
        .send()
        .await;
    let json = answer.json();
    (answer.status(), json["error"]["message"].as_str().unwrap_or_default().to_owned())
}

fn resource(kind: &str, more: &Value) -> Value {
    let mut resource = json!({ "type": kind, "id": "r" });
    for (key, value) in more.as_object().expect("an object") {
        resource[key] = value.clone();
    }
    json!({ "userId": "ada", "permissions": { "resources": [resource] } })
}

#[tokio::test]
async fn emulator_says_which_field_breaks_a_rule() {
    let (address, _running) = emulator(Behaviour::default());
    let data = resource("organization", &json!({}));
    assert_eq!(refusal_of(address, &json!({ "data": data })).await, (200, String::new()));
    let with = |key: &str, value: Value| {
        let mut data = data.clone();
        data[key] = value;
        json!({ "data": data })
    };
    let named = |key: &str, value: Value| with("userProperties", json!({ key: value }));
    let of = |kind, more| json!({ "data": resource(kind, &more) });
    for (body, message) in [
        (data.clone(), "The body must be wrapped in data."),
        (with("userId", json!("  ")), "userId must be"),
        (named("name", json!("")), "userProperties.name must be"),
        (named("email", json!("")), "userProperties.email must be"),
        (named("email", json!("ada")), "userProperties.email is not"),
        (named("isAdmin", json!("yes")), "userProperties.isAdmin must be"),
        (named("organizationId", json!("o")), "organizationId does not belong in userProperties"),
        (with("permissions", json!({})), "permissions.resources must be a list"),
        (of("page", json!({})), "permissions.resources[0].type must be"),
        (of("folder", json!({})), "permissions.resources[0].organizationId is required"),
        (of("organization", json!({ "id": " " })), "permissions.resources[0].id must be"),
        (of("organization", json!({ "accessRole": "owner" })), "resources[0].accessRole must be"),
        (of("organization", json!({ "expiresAt": 1 })), "resources[0].expiresAt is in the past"),
        (of("organization", json!({ "expiresAt": "1" })), "resources[0].expiresAt must be"),
    ] {
        let (status, told) = refusal_of(address, &body).await;
        assert_eq!(status, 400, "{body}");
        assert!(told.contains(message), "{body}: {told}");
    }
}

#[tokio::test]
async fn emulator_journal_shows_calls_without_secrets() {
    let (address, _running) = emulator(Behaviour::default());
    let (answer, _stage) = ask_emulator(address, "/", "").await;
    assert_eq!(answer.status(), 200);
    let viewer = resource("organization", &json!({ "accessRole": "viewer" }));
    assert_eq!(refusal_of(address, &json!({ "data": viewer })).await.0, 200);
    refusal_of(address, &viewer).await;
    let reading = || Client::to(address).get("/emulator/journal");
    let shown = reading().begin().await.into_body().collect().await.expect("a body");
    let text = String::from_utf8(shown.to_bytes().to_vec()).expect("text");
    assert!(!text.contains(API_KEY) && !text.contains(AUTH_TOKEN), "{text}");
    let journal: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(journal["mints"], 2);
    assert_eq!(journal["verifications"], 0);
    let calls = &journal["calls"];
    assert_eq!(calls[0]["sent"]["data"]["userId"], "ada");
    assert_eq!(calls[0]["sent"]["data"]["authToken"], "<redacted>");
    assert_eq!(calls[1]["sent"]["data"], viewer);
    assert!(calls[1]["warning"].as_str().is_some_and(|it| it.contains("viewer")), "{calls}");
    assert_eq!(calls[2]["status"], 400);
    assert_eq!(calls[2]["refused"], "The body must be wrapped in data.");

    let page = reading().header("origin", "https://page.example").begin().await;
    let page = page.into_body().collect().await.expect("a body").to_bytes();
    assert_eq!(page, "{\"mints\":2}", "a page sees the count alone");
}

#[tokio::test]
async fn emulator_refuses_an_organization_as_viewer_alone_at_identify() {
    let (address, _running) = emulator(Behaviour::default());
    let toml = "[velt]\napi = \"v2\"\norganization = \"org\"\n\
        [[velt.resource]]\ntype = \"organization\"\nid = \"org\"\nrole = \"viewer\"\n";
    let folder = "[[velt.resource]]\ntype = \"folder\"\nid = \"f\"";
    for (more, status) in [("", 400), (folder, 200)] {
        let toml = format!("{toml}{more}");
        let (answer, _stage) = ask_emulator(address, "/v2/auth/generate_token", &toml).await;
        assert_eq!(answer.status(), 200, "{}", answer.text());
        let verifying = Client::to(address).post("/emulator/verify", answer.text());
        let verified = verifying.begin().await;
        assert_eq!(verified.status(), status, "{toml}");
        let verified = verified.into_body().collect().await.expect("a body").to_bytes();
        let verified: Value = serde_json::from_slice(&verified).expect("JSON");
        let message = verified["error"]["message"].as_str().unwrap_or_default();
        assert_eq!(message.starts_with("Invalid user token"), status == 400, "{verified}");
    }
}

#[tokio::test]
async fn emulator_serves_the_sdk_where_loaders_look_for_it() {
    let (address, _running) = emulator(Behaviour::default());
    let get = async |path: &str| {
        // The loaders' script is a module, which a browser fetches with an Origin.
        let asking = Client::to(address).get(path).header("origin", "http://page.example");
        let answer = asking.begin().await;
        let (head, body) = answer.into_parts();
        let body = body.collect().await.expect("a body").to_bytes();
        (head, String::from_utf8(body.to_vec()).expect("text"))
    };
    for version in ["6.0.6", "4.5.1", "latest"] {
        let (head, text) = get(&format!("/lib/sdk@{version}/velt.js")).await;
        assert_eq!(head.status, 200);
        assert_eq!(head.headers["content-type"], "text/javascript; charset=utf-8");
        assert_eq!(head.headers["access-control-allow-origin"], "*");
        assert!(text.contains("setVeltAuthProvider"), "{text}");
    }
    assert_eq!(get("/lib/sdk@6.0.6/other.js").await.0.status, 404);
}

fn patient_with(address: SocketAddr) -> String {
    format!("endpoint = \"http://{address}/\"\nattempt_timeout = \"20s\"\ndeadline = \"20s\"\n")
}

#[tokio::test]
async fn emulator_failure_belongs_to_its_class() {
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

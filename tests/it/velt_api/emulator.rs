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
async fn emulator_refuses_mistakes_that_velt_refuses() {
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

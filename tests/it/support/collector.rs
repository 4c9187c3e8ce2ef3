//! A stand-in of an OpenTelemetry collector: takes spans as told, and keeps them.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use http::{Response, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::timeout;

use super::PATIENCE;
use super::app::{FakeApp, full};

/// Answer of a collector.
#[derive(Clone, Copy)]
pub struct Reply {
    pub status: u16,
    pub retry_after: Option<&'static str>,
    pub body: &'static str,
}

pub const ACCEPTED: Reply =
    Reply { status: 200, retry_after: None, body: "{\"partialSuccess\":{}}" };

pub struct FakeCollector {
    pub address: SocketAddr,
    bodies: Arc<Mutex<Vec<String>>>,
    calls: watch::Sender<usize>,
    _server: FakeApp,
}

impl FakeCollector {
    pub async fn start() -> Self {
        Self::answering(|_| ACCEPTED).await
    }

    /// Starts a collector that answers the call of each number, counted from 0, by `reply`.
    pub async fn answering<F>(reply: F) -> Self
    where
        F: Fn(usize) -> Reply + Send + Sync + 'static,
    {
        let (bodies, calls) = (Arc::<Mutex<Vec<String>>>::default(), watch::Sender::new(0));
        let (kept, counted, reply) = (Arc::clone(&bodies), calls.clone(), Arc::new(reply));
        let server = FakeApp::serving(move |request| {
            let (kept, counted, reply) = (Arc::clone(&kept), counted.clone(), Arc::clone(&reply));
            async move {
                assert_eq!(request.headers()["content-type"], "application/json");
                assert_eq!(request.uri(), "/v1/traces");
                let body = request.into_body().collect().await.expect("a body").to_bytes();
                let number = {
                    let mut kept = kept.lock().expect("no panic");
                    kept.push(String::from_utf8(body.to_vec()).expect("text"));
                    kept.len() - 1
                };
                counted.send_modify(|calls| *calls += 1);
                let Reply { status, retry_after, body } = reply(number);
                let mut response = Response::new(full(body));
                *response.status_mut() = StatusCode::from_u16(status).expect("a status");
                if let Some(seconds) = retry_after {
                    response.headers_mut().insert("retry-after", seconds.parse().expect("a value"));
                }
                response
            }
        })
        .await;
        Self { address: server.address, bodies, calls, _server: server }
    }

    /// Returns the settings that make a sidecar send to this collector.
    pub fn toml(&self) -> String {
        format!("[tracing]\notlp_endpoint = \"http://{}/v1/traces\"\n", self.address)
    }

    pub async fn calls_reach(&self, count: usize) {
        let mut calls = self.calls.subscribe();
        let reached = timeout(PATIENCE, calls.wait_for(|calls| *calls >= count)).await;
        assert!(reached.is_ok(), "{} calls and not {count}", self.bodies().len());
    }

    /// Returns all bodies as they were sent.
    pub fn bodies(&self) -> Vec<String> {
        self.bodies.lock().expect("no panic").clone()
    }

    /// Returns every span, as often as it was sent.
    pub fn spans(&self) -> Vec<Value> {
        let mut spans = Vec::new();
        for body in self.bodies() {
            let body: Value = serde_json::from_str(&body).expect("JSON");
            spans.extend(
                body["resourceSpans"][0]["scopeSpans"][0]["spans"]
                    .as_array()
                    .expect("spans")
                    .clone(),
            );
        }
        spans
    }
}

//! A stand-in of Velt over real HTTP: scripted answers, a journal of calls, and a gate.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::PATIENCE;

/// One call as it arrived.
#[derive(Clone, Debug)]
pub struct Call {
    pub path: String,
    pub headers: HeaderMap,
    pub body: Value,
}

impl Call {
    pub fn user(&self) -> &str {
        self.body["data"]["userId"].as_str().expect("a user id")
    }
}

/// Function that answers the `n`th call, counted from 1.
type Script = Arc<dyn Fn(&Call, usize) -> Response<Full<Bytes>> + Send + Sync>;

pub struct FakeVelt {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    calls: Mutex<Vec<Call>>,
    script: Mutex<Script>,
    delay: Mutex<Duration>,
    open: watch::Sender<bool>,
    /// User whose calls the gate holds back, if it holds back only those.
    held: Mutex<Option<String>>,
    arrived: watch::Sender<usize>,
}

impl FakeVelt {
    /// Starts a stand-in that mints a token for every user, at once.
    pub async fn start() -> Self {
        Self::start_at(Ipv4Addr::LOCALHOST).await
    }

    /// Starts a stand-in at this address of the machine.
    pub async fn start_at(address: Ipv4Addr) -> Self {
        let listener = TcpListener::bind((address, 0)).await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared {
            calls: Mutex::default(),
            script: Mutex::new(Arc::new(|call, n| minted(&token(call.user(), n)))),
            delay: Mutex::default(),
            open: watch::Sender::new(true),
            held: Mutex::default(),
            arrived: watch::Sender::new(0),
        });
        let serving = Arc::clone(&shared);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("accept");
                let shared = Arc::clone(&serving);
                let service = service_fn(move |request| Arc::clone(&shared).answer(request));
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        Self { address, shared }
    }

    /// Answers by `script` from now on.
    pub fn script<F>(&self, script: F)
    where
        F: Fn(&Call, usize) -> Response<Full<Bytes>> + Send + Sync + 'static,
    {
        *self.shared.script.lock().expect("no panic") = Arc::new(script);
    }

    /// Answers all calls with this status and body.
    pub fn answer_with(&self, status: u16, body: &str) {
        let body = body.to_owned();
        self.script(move |_, _| answer(status, &body));
    }

    /// Mints again, as at the start.
    pub fn recover(&self) {
        self.script(|call, n| minted(&token(call.user(), n)));
    }

    /// Answers each call only this long after it has arrived.
    #[allow(dead_code, reason = "tests with real tools use it")]
    pub fn answer_after(&self, delay: Duration) {
        *self.shared.delay.lock().expect("no panic") = delay;
    }

    /// Holds every answer back until the gate opens.
    pub fn close_gate(&self) {
        self.shared.open.send_replace(false);
    }

    /// Holds back the answers to calls for `user` until the gate opens.
    #[allow(dead_code, reason = "tests with real tools use it")]
    pub fn close_gate_for(&self, user: &str) {
        *self.shared.held.lock().expect("no panic") = Some(user.to_owned());
        self.close_gate();
    }

    pub fn open_gate(&self) {
        self.shared.open.send_replace(true);
    }

    /// Waits until this many calls have arrived.
    pub async fn calls_reach(&self, count: usize) {
        let mut arrived = self.shared.arrived.subscribe();
        let reached = timeout(PATIENCE, arrived.wait_for(|arrived| *arrived >= count)).await;
        assert!(reached.is_ok(), "{} calls and not {count}", self.calls().len());
    }

    pub fn calls(&self) -> Vec<Call> {
        self.shared.calls.lock().expect("no panic").clone()
    }

    pub fn call_count(&self) -> usize {
        self.calls().len()
    }

    /// Number of calls by user.
    pub fn calls_by_user(&self) -> BTreeMap<String, usize> {
        let mut by_user = BTreeMap::new();
        for call in self.calls() {
            *by_user.entry(call.user().to_owned()).or_default() += 1;
        }
        by_user
    }
}

impl Shared {
    async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> hyper::Result<Response<Full<Bytes>>> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        if parts.method != Method::POST {
            return Ok(answer(404, ""));
        }
        let call = Call {
            path: parts.uri.path().to_owned(),
            headers: parts.headers,
            body: serde_json::from_slice(&body).expect("JSON"),
        };
        let n = {
            let mut calls = self.calls.lock().expect("no panic");
            calls.push(call.clone());
            calls.len()
        };
        self.arrived.send_modify(|arrived| *arrived += 1);
        let delay = *self.delay.lock().expect("no panic");
        sleep(delay).await;
        let held = self.held.lock().expect("no panic").clone();
        let mut open = self.open.subscribe();
        let passes = held.is_some_and(|held| held != call.user());
        open.wait_for(|open| *open || passes).await.expect("the gate outlives its calls");
        let script = self.script.lock().expect("no panic").clone();
        Ok(script(&call, n))
    }
}

/// A JWT for `user` that lives for two days; `n` tells tokens of one user apart.
pub fn token(user: &str, n: usize) -> String {
    jwt(&json!({ "userId": user, "n": n, "exp": unix_seconds() + 172_800 }))
}

pub fn jwt(claims: &Value) -> String {
    let part = |text: String| URL_SAFE_NO_PAD.encode(text);
    let header = part(r#"{"alg":"HS256","typ":"JWT"}"#.into());
    format!("{header}.{}.c2lnbmF0dXJl", part(claims.to_string()))
}

/// The user that a token names.
pub fn user_of(token: &str) -> String {
    let payload = token.split('.').nth(1).expect("a JWT");
    let payload = URL_SAFE_NO_PAD.decode(payload).expect("base64url");
    let claims: Value = serde_json::from_slice(&payload).expect("claims");
    claims["userId"].as_str().expect("a user").to_owned()
}

pub fn minted(token: &str) -> Response<Full<Bytes>> {
    let body = json!({ "result": {
        "status": "success",
        "message": "Token generated successfully.",
        "data": { "token": token },
    }});
    answer(200, &body.to_string())
}

/// Velt's error envelope.
pub fn refused(http_status: u16, status: &str) -> Response<Full<Bytes>> {
    let body = json!({ "error": { "message": "canary-message", "status": status } });
    answer(http_status, &body.to_string())
}

pub fn answer(status: u16, body: &str) -> Response<Full<Bytes>> {
    let response = Response::builder().status(status).header("content-type", "application/json");
    response.body(Full::new(Bytes::from(body.to_owned()))).expect("a response")
}

pub fn unix_seconds() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.expect("after 1970").as_secs()
}

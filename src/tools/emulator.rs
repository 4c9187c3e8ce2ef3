//! Velt's documented token APIs on a loopback port, for the demo and for CI.
//!
//! The emulator speaks `legacy`, `v1` and `v2` with their error envelopes, and issues JWTs with `exp` that it
//! can verify again. The claims and the signature are the emulator's own, because Velt does not document
//! them. Control lives under `/emulator/`, open to pages of other origins. A stand-in of Velt's browser SDK is at
//! the path where Velt's loaders look for the SDK.

mod browser_sdk;
mod journal;
mod schema;

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    CONTENT_TYPE, ORIGIN, RETRY_AFTER,
};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::sleep;

use self::journal::Journal;
use self::schema::{
    VeltError, check_properties, check_resources, data_of, filled, invalid, is_viewer_alone,
    user_id,
};
use crate::probe::Probe;
use ground::metrics::ListenerMetrics;
use ground::peer::Peer;
use hop::listener::{self, Listener, Phase};

const MAX_BODY: usize = 64 * 1024;

/// Questions about its health that the emulator answers.
const PROBES: [Probe; 3] = [Probe::Live, Probe::Ready, Probe::Startup];

/// Settings of an emulator.
#[derive(Clone, Debug)]
pub struct Settings {
    pub address: SocketAddr,
    /// The credentials accepted; `None` accepts any.
    pub credentials: Option<Credentials>,
    /// Time from `iat` to `exp`.
    pub token_life: Duration,
    pub behaviour: Behaviour,
}

/// One workspace's credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    pub api_key: String,
    pub auth_token: String,
}

/// Misbehaviour of the emulator. Read and replaced at `/emulator/behaviour`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Behaviour {
    /// Every mint fails like this.
    #[serde(default)]
    pub failure: Option<Failure>,
    /// Every mint takes this long, in milliseconds.
    #[serde(default)]
    pub latency_ms: u64,
}

/// A documented way to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum Failure {
    Unavailable,
    Internal,
    RateLimited,
    PermissionDenied,
    InvalidArgument,
    /// Says 200 and sends no token.
    Malformed,
}

/// An emulator with its socket bound.
pub struct Emulator {
    listener: Listener,
    address: SocketAddr,
    state: Arc<State>,
}

struct State {
    settings: Settings,
    behaviour: Mutex<Behaviour>,
    key: hmac::Key,
    mints: AtomicU64,
    /// Tokens found valid at `/emulator/verify`: one for each sign-in of the browser SDK's stand-in.
    verifications: AtomicU64,
    journal: Journal,
}

impl Emulator {
    /// Binds the socket.
    ///
    /// # Errors
    ///
    /// The system's error.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn bind(settings: Settings) -> io::Result<Self> {
        let listen = listener::Settings::at(settings.address);
        let listener = Listener::bind(listen, ListenerMetrics::detached())?;
        let address = listener.address()?;
        let state = State {
            behaviour: Mutex::new(settings.behaviour),
            // The tokens of one emulator mean nothing to the next.
            key: hmac::Key::new(hmac::HMAC_SHA256, &random_bytes()?),
            mints: AtomicU64::new(0),
            verifications: AtomicU64::new(0),
            journal: Journal::default(),
            settings,
        };
        Ok(Self { listener, address, state: Arc::new(state) })
    }

    /// Returns the address on which the emulator listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until the phase is [`Phase::Stopped`].
    pub async fn run(self, phase: watch::Receiver<Phase>) {
        let state = self.state;
        let handler = move |_: &Peer, _: &_, request| Arc::clone(&state).answer(request);
        self.listener.serve(handler, phase).await;
    }
}

impl State {
    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (parts, body) = request.into_parts();
        let path = parts.uri.path();
        if path.starts_with("/emulator/") && parts.method == Method::OPTIONS {
            return allowing_every_origin(Response::default());
        }
        let Ok(body) = Limited::new(body, MAX_BODY).collect().await else {
            return error_answer(&invalid("The request body is broken or over 64 KiB."));
        };
        let body = body.to_bytes();
        match (&parts.method, path) {
            (&Method::POST, "/" | "/generateveltauthtoken" | "/v1/auth/token/get") => {
                let minted = self.mint_with(|| self.body_credentials(path, &body)).await;
                self.noted(path, &body, minted)
            }
            (&Method::POST, "/v2/auth/generate_token") => {
                let earn = || self.header_credentials(&parts.headers, &body);
                let minted = self.mint_with(earn).await;
                self.noted(path, &body, minted)
            }
            (&Method::GET, path) if browser_sdk::is_at(path) => {
                allowing_every_origin(browser_sdk::answer())
            }
            (&Method::GET, "/emulator/journal") => {
                allowing_every_origin(self.shown_journal(&parts.headers))
            }
            // For `velt-sidecar health`, the only probe in an image without a shell.
            (&Method::GET, path) if PROBES.iter().any(|probe| probe.path() == path) => {
                json_answer(StatusCode::OK, &json!({ "status": "ok" }))
            }
            (_, path) if path.starts_with("/emulator/") => {
                allowing_every_origin(self.control(&parts.method, path, &body))
            }
            _ => json_answer(
                StatusCode::NOT_FOUND,
                &json!({ "error": { "message": "No such endpoint.", "status": "NOT_FOUND" } }),
            ),
        }
    }

    /// Waits and fails as the behaviour says, or mints for the claims that the request earns.
    async fn mint_with(
        &self,
        earn: impl FnOnce() -> Result<Value, VeltError>,
    ) -> Result<Response<Full<Bytes>>, VeltError> {
        let behaviour = *self.behaviour.lock().unwrap_or_else(PoisonError::into_inner);
        sleep(Duration::from_millis(behaviour.latency_ms)).await;
        if let Some(failure) = behaviour.failure {
            return Ok(fail(failure));
        }
        let claims = earn()?;
        self.mints.fetch_add(1, Ordering::Relaxed);
        Ok(json_answer(
            StatusCode::OK,
            &json!({ "result": {
                "status": "success",
                "message": "Token generated successfully.",
                "data": { "token": self.sign(claims) },
            }}),
        ))
    }

    /// Notes a call in the journal, and returns its answer.
    fn noted(
        &self,
        path: &str,
        body: &[u8],
        minted: Result<Response<Full<Bytes>>, VeltError>,
    ) -> Response<Full<Bytes>> {
        let refused = minted.as_ref().err().map(|error| error.message.clone());
        let response = minted.unwrap_or_else(|error| error_answer(&error));
        self.journal.note(path, body, response.status(), refused.as_deref());
        response
    }

    /// Shows the journal. A page of another origin sees the count of mints alone, not what was sent.
    fn shown_journal(&self, headers: &HeaderMap) -> Response<Full<Bytes>> {
        let mut journal = json!({ "mints": self.mints.load(Ordering::Relaxed) });
        if !headers.contains_key(ORIGIN) {
            journal["verifications"] = json!(self.verifications.load(Ordering::Relaxed));
            journal["calls"] = json!(self.journal.all());
        }
        json_answer(StatusCode::OK, &journal)
    }

    /// Checks the credentials in the body, for `legacy` and `v1`, and returns the claims.
    fn body_credentials(&self, path: &str, body: &[u8]) -> Result<Value, VeltError> {
        let data = data_of(body)?;
        let is_known = self.settings.credentials.as_ref().is_none_or(|known| {
            data["apiKey"] == *known.api_key && data["authToken"] == *known.auth_token
        });
        if data["apiKey"].as_str().is_none_or(str::is_empty)
            || data["authToken"].as_str().is_none_or(str::is_empty)
            || !is_known
        {
            return Err(invalid("Auth token not found."));
        }
        let mut claims = json!({ "userId": user_id(&data)? });
        let properties = &data["userProperties"];
        check_properties(properties)?;
        if path.starts_with("/v1/") {
            let organization = filled(&properties["organizationId"]);
            claims["organizationId"] =
                organization.ok_or(invalid("userProperties.organizationId is required."))?.into();
        }
        Ok(claims)
    }

    /// Checks the credentials in headers, for `v2`, and returns the claims; the organization is among the
    /// resources.
    fn header_credentials(&self, headers: &HeaderMap, body: &[u8]) -> Result<Value, VeltError> {
        let header = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        let api_key = header("x-velt-api-key").ok_or(invalid("API Key not found in headers."))?;
        let auth_token =
            header("x-velt-auth-token").ok_or(invalid("Auth Token not found in headers."))?;
        let is_known = self
            .settings
            .credentials
            .as_ref()
            .is_none_or(|known| known.api_key == api_key && known.auth_token == auth_token);
        if !is_known {
            return Err(VeltError {
                http_status: StatusCode::FORBIDDEN,
                status: "PERMISSION_DENIED",
                message: "Invalid API key.".into(),
            });
        }
        let data = data_of(body)?;
        let properties = &data["userProperties"];
        check_properties(properties)?;
        if !properties["organizationId"].is_null() {
            return Err(invalid("organizationId does not belong in userProperties."));
        }
        let resources = check_resources(&data)?;
        Ok(json!({ "userId": user_id(&data)?, "resources": resources }))
    }

    fn sign(&self, mut claims: Value) -> String {
        let now = unix_seconds();
        claims["iss"] = "velt-emulator".into();
        claims["iat"] = now.into();
        claims["exp"] = (now + self.settings.token_life.as_secs()).into();
        // Makes every token a different string, as a real signature with time in it would.
        claims["jti"] = self.mints.load(Ordering::Relaxed).into();
        let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","typ":"JWT"}"#);
        let payload = URL_SAFE_NO_PAD.encode(claims.to_string());
        let signed = format!("{header}.{payload}");
        let signature = hmac::sign(&self.key, signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// Returns the claims of a token of this emulator that has not expired.
    fn verify(&self, token: &str) -> Option<Value> {
        let (signed, signature) = token.rsplit_once('.')?;
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        hmac::verify(&self.key, signed.as_bytes(), &signature).ok()?;
        let (_, payload) = signed.split_once('.')?;
        let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()?;
        (claims["exp"].as_u64()? > unix_seconds()).then_some(claims)
    }

    fn control(&self, method: &Method, path: &str, body: &[u8]) -> Response<Full<Bytes>> {
        match (method, path) {
            (&Method::POST, "/emulator/verify") => self.verification(body),
            (&Method::GET, "/emulator/behaviour") => self.shown_behaviour(),
            (&Method::PUT, "/emulator/behaviour") => match serde_json::from_slice(body) {
                Ok(behaviour) => {
                    *self.behaviour.lock().unwrap_or_else(PoisonError::into_inner) = behaviour;
                    self.shown_behaviour()
                }
                Err(error) => json_answer(
                    StatusCode::BAD_REQUEST,
                    &json!({ "error": { "message": error.to_string(), "status": "INVALID_ARGUMENT" } }),
                ),
            },
            _ => json_answer(
                StatusCode::NOT_FOUND,
                &json!({ "error": {
                    "message": "The emulator has POST verify, GET journal, GET and PUT behaviour.",
                    "status": "NOT_FOUND",
                }}),
            ),
        }
    }

    fn shown_behaviour(&self) -> Response<Full<Bytes>> {
        let behaviour = *self.behaviour.lock().unwrap_or_else(PoisonError::into_inner);
        json_answer(StatusCode::OK, &json!(behaviour))
    }

    /// Answers as Velt's SDK would find at identify: with the claims of a token, or why it is refused.
    fn verification(&self, body: &[u8]) -> Response<Full<Bytes>> {
        let token: Option<Value> = serde_json::from_slice(body).ok();
        let claims = token.and_then(|body| self.verify(body["token"].as_str()?));
        match claims {
            Some(claims) if is_viewer_alone(&claims["resources"]) => error_answer(&invalid(
                "Invalid user token: its only resource is an organization with the role viewer.",
            )),
            Some(claims) => {
                self.verifications.fetch_add(1, Ordering::Relaxed);
                let left = claims["exp"].as_u64().unwrap_or(0).saturating_sub(unix_seconds());
                let answer = json!({ "valid": true, "claims": claims, "remainingSeconds": left });
                json_answer(StatusCode::OK, &answer)
            }
            None => error_answer(&VeltError {
                http_status: StatusCode::UNAUTHORIZED,
                status: "UNAUTHENTICATED",
                message: "The token is not from this emulator, or has expired.".into(),
            }),
        }
    }
}

fn fail(failure: Failure) -> Response<Full<Bytes>> {
    let (http_status, status, message) = match failure {
        Failure::Unavailable => (503, "UNAVAILABLE", "The service is unavailable."),
        Failure::Internal => (500, "INTERNAL", "Internal error."),
        Failure::RateLimited => {
            (429, "RESOURCE_EXHAUSTED", "Rate limit exceeded. Try again after 1 minute.")
        }
        Failure::PermissionDenied => (403, "PERMISSION_DENIED", "Invalid API key."),
        Failure::InvalidArgument => (400, "INVALID_ARGUMENT", "Auth token not found."),
        Failure::Malformed => {
            return json_answer(StatusCode::OK, &json!({ "result": { "status": "success" } }));
        }
    };
    let http_status = StatusCode::from_u16(http_status).expect("a status");
    let mut response = error_answer(&VeltError { http_status, status, message: message.into() });
    if failure == Failure::RateLimited {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("60"));
    }
    response
}

fn error_answer(error: &VeltError) -> Response<Full<Bytes>> {
    let VeltError { http_status, status, message } = error;
    json_answer(*http_status, &json!({ "error": { "message": message, "status": status } }))
}

fn json_answer(status: StatusCode, json: &Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(json.to_string())));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Allows every origin: the demo's page is of another origin than the emulator, as any page is of another
/// origin than Velt.
fn allowing_every_origin(mut response: Response<Full<Bytes>>) -> Response<Full<Bytes>> {
    let headers = response.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST, PUT"));
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("content-type"));
    response
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn random_bytes() -> io::Result<[u8; 32]> {
    let mut bytes = [0; 32];
    let filled = aws_lc_rs::rand::fill(&mut bytes);
    filled.map_err(|_| io::Error::other("the system has no random bytes"))?;
    Ok(bytes)
}

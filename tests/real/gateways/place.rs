//! Programs around a gateway: a sidecar without an app, with the page's `sidecar.toml`, an app that knows nothing of it,
//! an emulator in Velt's place, and a stand-in for the login program that Envoy asks.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::response::Builder;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use serde_json::{Map, Value, json};
use tokio::net::TcpStream;

use crate::front_pages::front::Front;
use crate::front_pages::page::Page;
use crate::front_pages::site::{Recording, SECRET, record};
use crate::front_pages::visitor::PASSWORD;
use crate::neighbour::{
    RunningEmulator, RunningServer, Task, claims_of, eventually, http_client, serve_app,
    start_emulator,
};

/// All programs but the gateway.
pub struct Place {
    pub sidecar: SocketAddr,
    pub app: SocketAddr,
    /// Address at which Envoy asks for the user.
    pub login: SocketAddr,
    /// Session of Ada's at the login program.
    pub cookie: &'static str,
    velt: SocketAddr,
    asked: Recording,
    /// Requests whose connection the app has broken off.
    broken: Arc<AtomicUsize>,
    server: Option<RunningServer>,
    _tasks: (Task, Task, Task),
    _emulator: RunningEmulator,
}

impl Place {
    /// Starts the page's `sidecar.toml`.
    pub async fn open(page: &Page) -> Self {
        Self::open_with(page, &[]).await
    }

    /// Starts the page's `sidecar.toml` with more settings in the environment.
    pub async fn open_with(page: &Page, more: &[(&str, &str)]) -> Self {
        let broken = Arc::<AtomicUsize>::default();
        let count = Arc::clone(&broken);
        let (app_task, app) = serve_app(move |request| show(request, &count)).await;
        let (login_task, login) = serve_app(sign_in).await;
        let emulator = start_emulator().await;
        let asked = Recording::default();
        let (relay, relayed) = record(emulator.address, asked.clone()).await;
        let endpoint = format!("http://{relayed}/v2/auth/generate_token");
        // Settings of this machine alone. All other settings are the page's.
        let mut environment = vec![
            ("VELT_SIDECAR_LISTEN__ADDRESS", "127.0.0.1:0"),
            ("VELT_SIDECAR_ADMIN__ADDRESS", "127.0.0.1:0"),
            ("VELT_SIDECAR_VELT__ENDPOINT", &*endpoint),
            ("VELT_SIDECAR_IDENTITY__SECRET", SECRET),
            ("VELT_SIDECAR_SHUTDOWN__GRACE", "0s"),
            ("VELT_SIDECAR_SHUTDOWN__DEADLINE", "1s"),
        ];
        environment.extend(more);
        let text = page.block("toml", 0);
        // A reader who adds an email must not get a client's own with it.
        if text.contains("user_header = \"X-Forwarded-User\"") {
            environment.push(("VELT_SIDECAR_IDENTITY__EMAIL_HEADER", "X-Forwarded-Email"));
        }
        let server = RunningServer::start(text, &environment);
        let (sidecar, velt) = (server.addresses.traffic, emulator.address);
        let place = Self {
            sidecar,
            app,
            login,
            cookie: "session=of-ada",
            velt,
            asked,
            broken,
            server: Some(server),
            _tasks: (app_task, login_task, relay),
            _emulator: emulator,
        };
        place.mint_ahead().await;
        place
    }

    /// Has tokens minted at the route: the check of a busy machine waits for a mint for a short time only.
    async fn mint_ahead(&self) {
        for user in ["ada", "grace"] {
            for header in ["x-forwarded-user", "x-auth-request-user"] {
                let url = format!("http://{}/api/velt/token", self.sidecar);
                let asking = http_client().post(url).header("x-sidecar-secret", SECRET);
                asking.header(header, user).send().await.expect("an answer");
            }
        }
    }

    /// Sends a request of this user's, or of a stranger's, through the gateway. A POST has a body of 17 bytes.
    pub async fn ask(
        &self,
        front: &Front,
        method: Method,
        path: &str,
        user: &str,
        headers: &[(&str, &str)],
    ) -> Seen {
        let url = format!("http://{}{path}", front.address);
        let mut request = http_client().request(method.clone(), url);
        if !user.is_empty() {
            let password = STANDARD.encode(format!("{user}:{PASSWORD}"));
            request = request.header("authorization", format!("Basic {password}"));
            request = request.header("cookie", format!("session=of-{user}"));
        }
        if method == Method::POST {
            request = request.body("seventeen letters");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = request.send().await.expect("an answer");
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        let body = answer.bytes().await.expect("to its end");
        Seen { status, headers, body: serde_json::from_slice(&body).unwrap_or_default() }
    }

    /// Has the emulator behave like this.
    pub async fn velt_behaves(&self, behaviour: Value) {
        let url = format!("http://{}/emulator/behaviour", self.velt);
        let answer = http_client().put(url).body(behaviour.to_string()).send().await;
        assert_eq!(answer.expect("an answer").status(), StatusCode::OK);
    }

    /// Ends the sidecar, and waits until it listens no more.
    pub async fn end_the_sidecar(&mut self) {
        self.server = None;
        let at = self.sidecar;
        eventually("the sidecar to end", async || match TcpStream::connect(at).await {
            Ok(_) => Err("it still listens".to_owned()),
            Err(_) => Ok(()),
        })
        .await;
    }

    /// Returns the number of requests whose connection the app has broken off.
    pub fn broken(&self) -> usize {
        self.broken.load(Ordering::Relaxed)
    }

    /// Returns all bytes that the sidecar has sent to Velt.
    pub fn asked_of_velt(&self) -> String {
        String::from_utf8_lossy(&self.asked.lock().expect("no panic")).into_owned()
    }
}

/// A response as a browser sees it.
#[derive(Debug)]
pub struct Seen {
    pub status: u16,
    headers: HeaderMap,
    /// The request that the app has got.
    pub body: Value,
}

impl Seen {
    /// Returns the only line of this header.
    pub fn told(&self, name: &str) -> Option<&str> {
        let mut lines = self.headers.get_all(name).iter();
        let line = lines.next()?.to_str().expect("visible ASCII");
        assert!(lines.next().is_none(), "{name} came twice: {self:?}");
        Some(line)
    }

    /// Returns all headers as one text.
    pub fn headers(&self) -> String {
        format!("{:?}", self.headers)
    }

    /// Returns the user of the token.
    pub fn user(&self) -> String {
        let token = self.told("x-velt-token").unwrap_or_else(|| panic!("no token: {self:?}"));
        claims_of(token)["userId"].as_str().expect("a user").to_owned()
    }

    /// Returns the target of the request that the app has got.
    pub fn target(&self) -> &str {
        self.body["target"].as_str().unwrap_or_else(|| panic!("not the app's: {self:?}"))
    }
}

/// Headers for caches, beside `Cache-Control`, that the gateway must remove.
pub const FOR_CACHES: [&str; 8] = [
    "expires",
    "cdn-cache-control",
    "cloudflare-cdn-cache-control",
    "edge-control",
    "surrogate-control",
    "vercel-cdn-cache-control",
    "x-accel-expires",
    "x-litespeed-cache-control",
];

/// Answers as an app that lets caches store everything, and that uses the names of the sidecar's headers itself.
fn show(request: &Request<Incoming>, broken: &AtomicUsize) -> Response<Full<Bytes>> {
    let asked = request.uri().query().and_then(|query| query.strip_prefix("answer="));
    if let Some(answer) = asked {
        // A panic breaks the connection off.
        let status = answer.parse::<u16>().unwrap_or_else(|_| {
            broken.fetch_add(1, Ordering::Relaxed);
            panic!("the connection is to break")
        });
        let response = Response::builder().status(status).header("cache-control", "public");
        return response.body(Full::default()).expect("a response");
    }
    let mut headers = Map::new();
    for (name, value) in request.headers() {
        let lines = headers.entry(name.as_str()).or_insert_with(|| json!([]));
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        lines.as_array_mut().expect("it is one").push(value.into());
    }
    let seen = json!({ "target": request.uri().to_string(), "headers": headers });
    let response = Response::builder()
        .header("cache-control", "public, max-age=600")
        .header("expires", "Wed, 01 Jan 3000 00:00:00 GMT")
        .header("x-velt-token", "of-the-app")
        .header("x-velt-token-status", "of-the-app");
    let control = |response: Builder, name: &&str| response.header(*name, "max-age=600");
    let response = FOR_CACHES.iter().skip(1).fold(response, control);
    response.body(Full::from(seen.to_string())).expect("a response")
}

/// Answers as a login program: 200 with the user of the session, or 401. Lets strangers pass below `/strangers`.
fn sign_in(request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let cookies = request.headers().get("cookie").and_then(|cookies| cookies.to_str().ok());
    let session =
        cookies.unwrap_or_default().split("; ").find_map(|it| it.strip_prefix("session=of-"));
    let mut response = Response::new(Full::default());
    match session {
        Some(user) => {
            let user = user.parse().expect("visible ASCII");
            response.headers_mut().insert("x-auth-request-user", user);
        }
        None if request.uri().path().starts_with("/strangers") => {}
        None => *response.status_mut() = StatusCode::UNAUTHORIZED,
    }
    response
}

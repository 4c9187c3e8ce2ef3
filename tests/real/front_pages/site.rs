//! Programs around a front: a sidecar with the page's `sidecar.toml`, an app behind it, an emulator in Velt's
//! place, and a stand-in for the login program that a front asks for the user.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use http::header::COOKIE;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use serde_json::{Map, Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy};
use tokio::net::{TcpListener, TcpStream};

use super::page::Page;
use crate::neighbour::{RunningEmulator, RunningServer, Task, serve_app, start_emulator};

/// Secret that front and sidecar share.
pub const SECRET: &str = "the-secret-of-the-front-and-the-sidecar";

/// Path at which the app answers with [`LONG_HEADERS`].
pub const LONG_PATH: &str = "/api/long";

/// Path for which the login program says yes, without a user.
pub const OPEN_PATH: &str = "/robots.txt";

/// Headers as long as the longest token that a sidecar accepts, and as long as an app's own head may be.
const LONG_HEADERS: [(&str, usize); 2] = [("x-like-a-token", 12 * 1024), ("x-own", 4 * 1024)];

/// All programs but the front.
pub struct Site {
    pub sidecar: SocketAddr,
    /// Address at which the front asks for the user.
    pub login: SocketAddr,
    asked: Recording,
    _server: RunningServer,
    _tasks: (Task, Task, Task),
    _emulator: RunningEmulator,
}

impl Site {
    /// Starts the page's `sidecar.toml` number `number`, and a login program that answers as `login` does.
    pub async fn open(page: &Page, number: usize, login: fn(&str) -> Headers) -> Self {
        let (app_task, app) = serve_app(show).await;
        let (login_task, login) = serve_app(move |request| answer(request, login)).await;
        let emulator = start_emulator().await;
        let asked = Recording::default();
        let (relay, velt) = record(emulator.address, asked.clone()).await;
        let app = app.to_string();
        let velt = format!("http://{velt}/v2/auth/generate_token");
        let text = page.block("toml", number);
        // Settings of this machine alone. All other settings are the page's.
        let mut environment = vec![
            ("VELT_SIDECAR_LISTEN__ADDRESS", "127.0.0.1:0"),
            ("VELT_SIDECAR_ADMIN__ADDRESS", "127.0.0.1:0"),
            ("VELT_SIDECAR_APP__ADDRESS", &app),
            ("VELT_SIDECAR_VELT__ENDPOINT", &velt),
            // Long enough that a busy machine does not cause an answer without a token.
            ("VELT_SIDECAR_DELIVERY__HEADER__MAX_WAIT", "20s"),
            ("VELT_SIDECAR_SHUTDOWN__GRACE", "0s"),
            ("VELT_SIDECAR_SHUTDOWN__DEADLINE", "1s"),
        ];
        if text.contains("secret_header") {
            environment.push(("VELT_SIDECAR_IDENTITY__SECRET", SECRET));
        }
        // A reader who adds the README's settings must not get a client's headers with them.
        if text.contains("user_header = \"X-Forwarded-User\"") {
            environment.extend([
                ("VELT_SIDECAR_IDENTITY__EMAIL_HEADER", "X-Forwarded-Email"),
                ("VELT_SIDECAR_IDENTITY__NAME_HEADER", "X-Forwarded-Preferred-Username"),
                ("VELT_SIDECAR_IDENTITY__GROUPS_HEADER", "X-Forwarded-Groups"),
                ("VELT_SIDECAR_IDENTITY__ADMIN_GROUPS", "grace"),
            ]);
        }
        let server = RunningServer::start(text, &environment);
        let sidecar = server.addresses.traffic;
        let tasks = (app_task, login_task, relay);
        Self { sidecar, login, asked, _server: server, _tasks: tasks, _emulator: emulator }
    }

    /// Returns all bytes that the sidecar has sent to Velt.
    pub fn asked_of_velt(&self) -> String {
        String::from_utf8_lossy(&self.asked.lock().expect("no panic")).into_owned()
    }
}

/// Bytes that a sidecar has sent to Velt.
pub type Recording = Arc<Mutex<Vec<u8>>>;

/// Passes connections on to `velt`, and records the bytes sent to it.
pub async fn record(velt: SocketAddr, asked: Recording) -> (Task, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let relay = Task::spawn(async move {
        while let Ok((from, _)) = listener.accept().await {
            let asked = asked.clone();
            tokio::spawn(async move {
                let to = TcpStream::connect(velt).await.expect("the emulator");
                let ((mut from, mut back), (mut answer, mut to)) =
                    (from.into_split(), to.into_split());
                // Each side may end the connection at any time.
                tokio::spawn(async move { copy(&mut answer, &mut back).await });
                let mut bytes = [0; 4096];
                while let Ok(length @ 1..) = from.read(&mut bytes).await {
                    asked.lock().expect("no panic").extend_from_slice(&bytes[..length]);
                    if to.write_all(&bytes[..length]).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    (relay, address)
}

/// Headers of an answer.
pub type Headers = Vec<(&'static str, String)>;

/// Answers as the app: with the headers that it has got.
fn show(request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let mut headers = Map::new();
    for (name, value) in request.headers() {
        let lines = headers.entry(name.as_str()).or_insert_with(|| json!([]));
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        lines.as_array_mut().expect("it is one").push(value.into());
    }
    let mut response = Response::new(Full::from(Value::Object(headers).to_string()));
    if request.uri().path() == LONG_PATH {
        for (name, length) in LONG_HEADERS {
            let value = "x".repeat(length).parse().expect("visible ASCII");
            response.headers_mut().insert(name, value);
        }
    }
    response
}

/// Returns the user of the request's session.
fn session_of(request: &Request<Incoming>) -> Option<String> {
    let cookies = request.headers().get(COOKIE)?.to_str().ok()?;
    cookies.split("; ").find_map(|cookie| cookie.strip_prefix("session=of-")).map(str::to_owned)
}

/// Answers as a login program: with 401, or with the headers of the user, and with 202 where oauth2-proxy
/// answers 202.
fn answer(request: &Request<Incoming>, login: fn(&str) -> Headers) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    // oauth2-proxy answers this path to strangers too.
    if request.uri().path() == OPEN_PATH {
        return response;
    }
    let Some(user) = session_of(request) else {
        *response.status_mut() = StatusCode::UNAUTHORIZED;
        return response;
    };
    if request.uri().path() == "/oauth2/auth" {
        *response.status_mut() = StatusCode::ACCEPTED;
    }
    for (name, value) in login(&user) {
        response.headers_mut().insert(name, value.parse().expect("visible ASCII"));
    }
    response
}

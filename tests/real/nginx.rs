//! A real nginx as the login proxy in front of a sidecar. nginx knows the user by a cookie, and caches as
//! carelessly as its configuration allows.

use std::net::SocketAddr;
use std::process::{Command, Stdio};

use futures_util::{SinkExt as _, StreamExt as _};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, COOKIE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use reqwest::Client;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tools::demo::Demo;

use crate::neighbour::{
    LOOPBACK, Process, Sidecar, Task, claims_of, http_client, is_in_front_of, serve_app, tool,
};

/// Requests of each user in the tests of caching.
const ROUNDS: usize = 50;

/// Treatment of headers that have an underscore in their name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Underscores {
    /// nginx drops such headers, which is its default.
    Drop,
    /// nginx passes such headers on, as some operators need.
    Keep,
}

/// An nginx in front of a sidecar.
pub struct Nginx {
    pub address: SocketAddr,
    http: Client,
    process: Process,
    folder: TempDir,
}

impl Nginx {
    async fn start(sidecar: SocketAddr, underscores: Underscores) -> Self {
        Self::caching(sidecar, underscores, "").await
    }

    /// Starts an nginx with more lines about the cache.
    pub async fn caching(sidecar: SocketAddr, underscores: Underscores, cache: &str) -> Self {
        let folder = TempDir::new().expect("a folder for nginx");
        let command = |port: u16| {
            let config = configuration(port, sidecar, underscores, cache);
            std::fs::write(folder.path().join("nginx.conf"), config).expect("a file in it");
            let mut nginx = nginx_in(&folder);
            nginx.args(["-g", "daemon off;"]);
            nginx
        };
        let http = http_client();
        let ready = async |address| is_in_front_of(&http, address, sidecar).await;
        let (process, address) = Process::start_on_free_port(command, ready).await;
        Self { address, http, process, folder }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Returns a request of `user`'s browser, or an anonymous request if `user` is empty.
    pub fn request(&self, method: Method, path: &str, user: &str) -> reqwest::RequestBuilder {
        self.http.request(method, self.url(path)).headers(session_of(user))
    }
}

impl Drop for Nginx {
    /// Ends the workers too, which would outlive a master that is killed.
    fn drop(&mut self) {
        let stopped = nginx_in(&self.folder).args(["-s", "stop"]).status();
        if stopped.is_ok_and(|status| status.success()) {
            self.process.wait();
        }
    }
}

fn nginx_in(folder: &TempDir) -> Command {
    let mut nginx = Command::new(tool("nginx"));
    nginx.arg("-p").arg(folder.path()).args(["-c", "nginx.conf", "-e", "error.log"]);
    nginx.stdin(Stdio::null());
    nginx
}

/// Returns a team's usual configuration, except for the cache: it keeps every answer, to GET and POST alike,
/// for all users under the same key, unless the answer itself forbids it.
fn configuration(port: u16, sidecar: SocketAddr, underscores: Underscores, cache: &str) -> String {
    let underscores = if underscores == Underscores::Keep { "on" } else { "off" };
    format!(
        r#"
        # Only root's nginx changes its user; then the worker needs to reach this folder.
        user root root;
        worker_processes 2;
        pid nginx.pid;
        events {{ worker_connections 256; }}
        http {{
            access_log off;
            client_body_temp_path body;
            proxy_temp_path proxy;
            fastcgi_temp_path fastcgi;
            uwsgi_temp_path uwsgi;
            scgi_temp_path scgi;
            proxy_cache_path cache keys_zone=app:1m;
            underscores_in_headers {underscores};
            map $cookie_session $signed_in {{ default ""; of-ada ada; of-grace grace; }}
            upstream sidecar {{ server {sidecar}; keepalive 8; }}
            server {{
                listen 127.0.0.1:{port};
                location = /whose {{ return 200 "{sidecar}"; }}
                # Empty, as for nobody, means that the header is not sent.
                proxy_set_header X-Forwarded-User $signed_in;
                proxy_set_header Host $http_host;
                proxy_set_header Connection "";
                proxy_http_version 1.1;
                location / {{
                    proxy_pass http://sidecar;
                    proxy_cache app;
                    proxy_cache_key $request_method$request_uri;
                    proxy_cache_methods GET HEAD POST;
                    proxy_cache_valid any 10m;
                    add_header X-Cache $upstream_cache_status always;
                    {cache}
                }}
                location = /ws {{
                    proxy_pass http://sidecar;
                    proxy_set_header X-Forwarded-User $signed_in;
                    proxy_set_header Host $http_host;
                    proxy_set_header Upgrade $http_upgrade;
                    proxy_set_header Connection upgrade;
                }}
                location = /api/events {{
                    proxy_pass http://sidecar;
                    proxy_buffering off;
                }}
            }}
        }}
        "#
    )
}

pub fn session_of(user: &str) -> HeaderMap {
    let cookie = format!("theme=dark; session=of-{user}");
    let cookie = HeaderValue::from_str(&cookie).expect("a plain name");
    HeaderMap::from_iter([(COOKIE, cookie)])
}

/// Answers with every header that could be taken for the user's, and with the cacheability that the path asks
/// for. Knows nothing about Velt.
fn answer(request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let named = request
        .headers()
        .iter()
        .filter(|(name, _)| name.as_str().replace('_', "-") == "x-forwarded-user");
    let named: Vec<_> = named.map(|(_, value)| String::from_utf8_lossy(value.as_bytes())).collect();
    let body = json!({ "users": named, "path": request.uri().path() });
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
    let cache_control = match request.uri().path() {
        "/api/list" => Some("public, max-age=600"),
        "/api/mine" => Some("private"),
        _ => None,
    };
    if let Some(cache_control) = cache_control {
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static(cache_control));
    }
    response
}

/// An answer as a browser sees it.
pub struct Seen {
    pub status: StatusCode,
    headers: HeaderMap,
    body: Value,
}

impl Seen {
    pub async fn of(request: reqwest::RequestBuilder) -> Self {
        let answer = request.send().await.expect("an answer");
        let (status, headers) = (answer.status(), answer.headers().clone());
        let body = answer.bytes().await.expect("to its end");
        let body = serde_json::from_slice(&body).expect("JSON");
        Self { status, headers, body }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("visible ASCII"))
    }

    /// Returns the token from the header or the body.
    pub fn token(&self) -> Option<&str> {
        let in_body = self.body.as_str().or(self.body["token"].as_str());
        self.header("x-velt-token").or(in_body)
    }
}

/// Returns the token that the route has for `user`, after a check that the token names `user`.
async fn token_of(nginx: &Nginx, user: &str) -> String {
    let seen = Seen::of(nginx.request(Method::POST, "/api/velt/token", user)).await;
    assert_eq!(seen.status, StatusCode::OK, "{}", seen.body);
    let token = seen.token().expect("a token").to_owned();
    assert_eq!(claims_of(&token)["userId"], user);
    token
}

#[tokio::test(flavor = "multi_thread")]
async fn the_user_whom_nginx_names_gets_the_token_by_both_ways() {
    let (_app, app) = serve_app(answer).await;
    let sidecar = Sidecar::start(app).await;
    let nginx = Nginx::start(sidecar.addresses.traffic, Underscores::Drop).await;
    for user in ["ada", "grace"] {
        let token = token_of(&nginx, user).await;
        let page = Seen::of(nginx.request(Method::GET, "/api/me", user)).await;
        assert_eq!(page.header("x-velt-token"), Some(&*token));
        assert_eq!(page.header("cache-control"), Some("private, no-store"));
        assert_eq!(page.body["users"], json!([user]));
    }
    let page = Seen::of(nginx.request(Method::GET, "/api/nobody-s", "")).await;
    assert_eq!((page.status, page.token()), (StatusCode::OK, None));
    assert_eq!(page.header("x-velt-token-status"), Some("anonymous"));
    assert_eq!(page.body["users"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn identity_headers_of_a_client_never_win() {
    let (_app, app) = serve_app(answer).await;
    let sidecar = Sidecar::start(app).await;
    let forgeries: &[&[(&str, &str)]] = &[
        &[("x-forwarded-user", "grace")],
        &[("x-forwarded-user", "ada"), ("x-forwarded-user", "grace")],
        &[("x_forwarded_user", "grace")],
        &[("x-forwarded_user", "grace")],
        &[("x-forwarded-user", "grace"), ("x_forwarded_user", "grace")],
        &[("x-forwarded-user", "grace"), ("connection", "x-forwarded-user")],
        &[("x-forwarded-user", ""), ("x-velt-token", "forged")],
    ];
    for underscores in [Underscores::Drop, Underscores::Keep] {
        let nginx = Nginx::start(sidecar.addresses.traffic, underscores).await;
        let graces = token_of(&nginx, "grace").await;
        let adas = token_of(&nginx, "ada").await;
        assert_ne!(adas, graces);
        for (number, forgery) in forgeries.iter().enumerate() {
            let alias = forgery.iter().any(|(name, _)| name.contains('_'));
            // nginx passes the alias on beside its own header, and an app could read either header.
            let refused = alias && underscores == Underscores::Keep;
            for (user, token) in [("ada", Some(&*adas)), ("", None)] {
                let what = format!("{forgery:?} of {user:?} with underscores: {underscores:?}");
                let path = format!("/api/forged/{number}/{user}");
                let mut request = nginx.request(Method::GET, &path, user);
                for (name, value) in *forgery {
                    request = request.header(*name, *value);
                }
                let seen = Seen::of(request).await;
                if refused {
                    assert_eq!(seen.status, StatusCode::BAD_REQUEST, "{what}: {}", seen.body);
                    assert_eq!(seen.body["code"], "ambiguous_identity", "{what}");
                    assert_eq!(seen.token(), None, "{what}");
                } else {
                    assert_eq!(seen.status, StatusCode::OK, "{what}: {}", seen.body);
                    assert_eq!(seen.token(), token, "{what}");
                    let users: Vec<_> = token.iter().map(|_| user).collect();
                    assert_eq!(seen.body["users"], json!(users), "{what}: the app was told");
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_token_gets_into_a_shared_cache() {
    let (_app, app) = serve_app(answer).await;
    let sidecar = Sidecar::start(app).await;
    let nginx = Nginx::start(sidecar.addresses.traffic, Underscores::Drop).await;
    let tokens = [token_of(&nginx, "ada").await, token_of(&nginx, "grace").await];
    let requests = [
        (Method::GET, "/api/me"),
        (Method::POST, "/api/me"),
        (Method::GET, "/api/mine"),
        (Method::GET, "/api/velt/token"),
        (Method::POST, "/api/velt/token"),
        (Method::GET, "/generate-velt-jwt-token"),
    ];
    for _ in 0..ROUNDS {
        for (method, path) in &requests {
            // In turn within a round, so that each user could get the other user's token.
            for (user, token) in ["ada", "grace"].into_iter().zip(&tokens) {
                let seen = Seen::of(nginx.request(method.clone(), path, user)).await;
                assert_eq!(seen.token(), Some(&**token), "{method} {path} of {user}");
                assert_ne!(seen.header("x-cache"), Some("HIT"), "{method} {path}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn storable_answer_is_stored_without_a_token() {
    let (_app, app) = serve_app(answer).await;
    let sidecar = Sidecar::start(app).await;
    let nginx = Nginx::start(sidecar.addresses.traffic, Underscores::Drop).await;
    for round in 0..ROUNDS {
        for user in ["ada", "grace"] {
            let seen = Seen::of(nginx.request(Method::GET, "/api/list", user)).await;
            assert_eq!(seen.token(), None);
            // Proves that this nginx would have stored a token.
            let expected = if (round, user) == (0, "ada") { "MISS" } else { "HIT" };
            assert_eq!(seen.header("x-cache"), Some(expected), "round {round} of {user}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn web_sockets_and_event_streams_pass_nginx_and_the_sidecar() {
    let demo = Demo::bind(LOOPBACK).unwrap_or_else(|error| panic!("{error}"));
    let sidecar = demo.addresses().sidecar;
    let (stop, stopped) = oneshot::channel::<()>();
    let _demo = Task::spawn(demo.run(async move {
        // A dropped sender stops the program too.
        let _ = stopped.await;
    }));
    let nginx = Nginx::start(sidecar, Underscores::Drop).await;

    let mut handshake = format!("ws://{}/ws", nginx.address).into_client_request().expect("a URL");
    handshake.headers_mut().extend(session_of("ada"));
    let stream = TcpStream::connect(nginx.address).await.expect("nginx accepts");
    let (mut socket, _) = client_async(handshake, stream).await.expect("an upgrade");
    for number in 1..=3 {
        socket.send(Message::text("hello")).await.expect("it is open");
        let echo = socket.next().await.expect("it stays open").expect("a message");
        let echo: Value = serde_json::from_str(echo.to_text().expect("a text")).expect("JSON");
        assert_eq!(echo, json!({ "echo": "hello", "user": "ada", "n": number }));
    }

    let request = nginx.request(Method::GET, "/api/events", "grace");
    let mut events = request.send().await.expect("an answer");
    assert_eq!(events.headers()[CONTENT_TYPE], "text/event-stream");
    assert!(events.headers().contains_key("x-velt-token"), "{:?}", events.headers());
    let mut text = String::new();
    while text.matches("event: tick").count() < 2 {
        let chunk = events.chunk().await.expect("no error").expect("it never ends");
        text.push_str(&String::from_utf8_lossy(&chunk));
    }
    assert!(text.contains("\"user\":\"grace\""), "{text}");
    drop(stop);
}

/// Returns the buffer settings that the runbook recommends for a longer head.
fn buffers_of_the_runbook() -> String {
    let runbooks =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/runbooks.md"));
    let runbooks = runbooks.expect("the runbooks");
    let row = runbooks.lines().find(|line| line.starts_with("| nginx |")).expect("a row");
    row.split('`').nth(1).expect("what to write").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn head_that_grows_over_4_kb_passes_with_the_runbooks_buffers() {
    let (_app, app) = serve_app(|request: &Request<Incoming>| {
        let mut response = answer(request);
        let length = request.uri().path().rsplit('/').next().and_then(|last| last.parse().ok());
        let header = "x".repeat(length.unwrap_or(0));
        let header = HeaderValue::from_str(&header).expect("a value");
        response.headers_mut().insert("x-app-header", header);
        response
    })
    .await;
    let sidecar = Sidecar::start(app).await;
    let short = Nginx::start(sidecar.addresses.traffic, Underscores::Drop).await;
    let status = async |nginx: &Nginx, user: &str, length: usize| {
        let request = nginx.request(Method::GET, &format!("/api/{user}/{length}"), user);
        request.send().await.expect("an answer").status()
    };
    // The longest head that passes for a client without a token.
    let mut length = 4000;
    while status(&short, "", length).await != StatusCode::OK {
        length -= 50;
    }
    assert!(length > 2000, "{length}");
    assert_eq!(status(&short, "ada", length).await, StatusCode::BAD_GATEWAY);
    let buffers = buffers_of_the_runbook();
    let long = Nginx::caching(sidecar.addresses.traffic, Underscores::Drop, &buffers).await;
    let page = Seen::of(long.request(Method::GET, &format!("/api/ada/{length}"), "ada")).await;
    assert_eq!(page.status, StatusCode::OK);
    assert!(page.token().is_some());
}

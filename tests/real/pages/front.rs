//! A small login front: it signs users in by cookie, tells the sidecar the user, and keeps a journal.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use ground::client_connection::ClientConnection;
use ground::metrics::ListenerMetrics;
use ground::peer::Peer;
use hop::listener::{self, Listener, Phase};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, COOKIE, LOCATION, SET_COOKIE, TRANSFER_ENCODING};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use reqwest::Client;
use serde_json::Value;
use tokio::sync::watch;

use crate::neighbour::{LOOPBACK, Task, http_client};

/// Header in which the front names the user. A client's own is removed.
const USER: &str = "x-forwarded-user";

/// Page of the front's own.
const LOGIN_PAGE: &str = "<!doctype html><title>login</title><link rel=icon href=data:,>\
     <h1 data-testid=login>Sign in</h1>";

/// Answer of the front to a request for the app without a session.
#[derive(Clone, Copy)]
pub enum SignedOut {
    /// A redirect to the login page, as most fronts answer.
    Redirects,
    /// A redirect to the login page of another host.
    RedirectsElsewhere,
    /// The login page itself, with 200.
    ShowsLogin,
    /// 401 without a body.
    Refuses,
}

/// Request of a browser, as the front has passed it on.
#[derive(Clone)]
pub struct Seen {
    pub path: String,
    pub body: Value,
}

/// A running front, which ends when this value is dropped.
pub struct Front {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    _serving: Task,
    _phase: watch::Sender<Phase>,
}

struct Shared {
    sidecar: SocketAddr,
    http: Client,
    seen: Mutex<Vec<Seen>>,
    signed_out: Mutex<SignedOut>,
}

impl Front {
    /// Starts a front in front of `sidecar`.
    pub fn start(sidecar: SocketAddr) -> Self {
        let settings = listener::Settings::at(LOOPBACK);
        let listener = Listener::bind(settings, ListenerMetrics::detached()).expect("a free port");
        let address = listener.address().expect("it is bound");
        let shared = Arc::new(Shared {
            sidecar,
            http: http_client(),
            seen: Mutex::default(),
            signed_out: Mutex::new(SignedOut::Redirects),
        });
        let (phase, phases) = watch::channel(Phase::Serving);
        let serving = Arc::clone(&shared);
        let handler = move |_: &Peer, _: &Arc<ClientConnection>, request: Request<Incoming>| {
            let shared = Arc::clone(&serving);
            async move { shared.answer(request).await }
        };
        let serving = Task::spawn(listener.serve(handler, phases));
        Self { address, shared, _serving: serving, _phase: phase }
    }

    /// Answers requests without a session like this from now on.
    pub fn when_signed_out(&self, answer: SignedOut) {
        *self.shared.signed_out.lock().expect("no panic") = answer;
    }

    /// Returns the requests for `path` that had a session.
    pub fn seen_at(&self, path: &str) -> Vec<Seen> {
        let seen = self.shared.seen.lock().expect("no panic");
        seen.iter().filter(|seen| seen.path == path).cloned().collect()
    }
}

impl Shared {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let host = request.headers().get("host").and_then(|host| host.to_str().ok());
        let host = host.unwrap_or_default().to_owned();
        let query = request.uri().query().unwrap_or_default().to_owned();
        match request.uri().path() {
            "/login" => login_page(),
            "/sign-in" => {
                let user = query.strip_prefix("user=").unwrap_or_default();
                redirect("/", Some(&cookie(user, &host)))
            }
            "/sign-out" => redirect("/login", Some("user=; Path=/; Max-Age=0")),
            _ => match user_of(request.headers()) {
                Some(user) => self.pass_on(request, &user).await,
                None => self.signed_out(&host),
            },
        }
    }

    fn signed_out(&self, host: &str) -> Response<Full<Bytes>> {
        let answer = *self.signed_out.lock().expect("no panic");
        match answer {
            SignedOut::Redirects => redirect("/login", None),
            SignedOut::RedirectsElsewhere => {
                let (_, port) = host.rsplit_once(':').unwrap_or_default();
                redirect(&format!("http://login.localhost:{port}/login"), None)
            }
            SignedOut::ShowsLogin => login_page(),
            SignedOut::Refuses => status(StatusCode::UNAUTHORIZED),
        }
    }

    /// Sends the request to the sidecar, as the user's.
    async fn pass_on(&self, request: Request<Incoming>, user: &str) -> Response<Full<Bytes>> {
        let (parts, body) = request.into_parts();
        let Ok(body) = body.collect().await else { return status(StatusCode::BAD_REQUEST) };
        let body = body.to_bytes();
        self.seen.lock().expect("no panic").push(Seen {
            path: parts.uri.path().to_owned(),
            body: serde_json::from_slice(&body).unwrap_or_default(),
        });
        let mut headers = parts.headers;
        headers.remove(USER);
        headers.remove(CONTENT_LENGTH);
        headers.insert(USER, user.parse().expect("it was in a header"));
        let url = format!("http://{}{}", self.sidecar, parts.uri);
        let request = self.http.request(parts.method, url).headers(headers).body(body);
        // A browser that leaves takes its request with it, so an error is no error of the test's.
        let Ok(answer) = request.send().await else { return status(StatusCode::BAD_GATEWAY) };
        let (code, headers) = (answer.status(), answer.headers().clone());
        let Ok(body) = answer.bytes().await else { return status(StatusCode::BAD_GATEWAY) };
        let mut response = Response::new(Full::new(body));
        *response.status_mut() = code;
        *response.headers_mut() = headers;
        response.headers_mut().remove(TRANSFER_ENCODING);
        response
    }
}

fn user_of(headers: &HeaderMap) -> Option<String> {
    let cookies = headers.get(COOKIE)?.to_str().ok()?;
    let user = cookies.split("; ").find_map(|cookie| cookie.strip_prefix("user="))?;
    Some(user.to_owned())
}

/// Returns the cookie of a session, the most permissive that the browser takes: pages of other sites send it
/// along where the browser trusts the host, as it does `localhost`.
fn cookie(user: &str, host: &str) -> String {
    let more = if host.contains("localhost") { "; SameSite=None; Secure" } else { "" };
    format!("user={user}; Path=/; HttpOnly{more}")
}

fn login_page() -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(LOGIN_PAGE));
    let kind = "text/html; charset=utf-8".parse().expect("legal");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

fn redirect(to: &str, cookie: Option<&str>) -> Response<Full<Bytes>> {
    let mut response = status(StatusCode::FOUND);
    response.headers_mut().insert(LOCATION, to.parse().expect("legal"));
    if let Some(cookie) = cookie {
        response.headers_mut().insert(SET_COOKIE, cookie.parse().expect("legal"));
    }
    response
}

fn status(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}

//! The demo's login proxy: a stand-in for oauth2-proxy, with the user id in a cookie as the session.
//!
//! The front does what a login proxy in front of a sidecar has to do: it removes the identity that the
//! browser claims, and sets the identity of the session. All that the demo's pages need is below
//! `/__velt-demo/`, so that one forwarded port shows the whole demo, and every other path is the app's.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, LOCATION, RETRY_AFTER, SET_COOKIE,
};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use reqwest::Url;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::own_app::OwnApp;
use super::panel::{self, FrontBody, Placed};
use super::responses::Responses;
use super::{User, session};
use ground::spelling::begins_with;
use hop::proxy::{Body, Client, RequestBody, Scheme, Upstream, UpstreamError};

/// Beginning of the front's own paths.
const OWN_PATHS: &str = "/__velt-demo";

const X_FORWARDED_USER: HeaderName = HeaderName::from_static("x-forwarded-user");
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

const HTML: &str = "text/html; charset=utf-8";
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";

/// Files of the pages about the reader's app: path below [`OWN_PATHS`], content type, text.
const FILES: [(&str, &str, &str); 6] = [
    ("/", HTML, include_str!("page/around.html")),
    ("/around.js", JAVASCRIPT, include_str!("page/around.js")),
    ("/requests.js", JAVASCRIPT, include_str!("page/requests.js")),
    ("/token-panel.js", JAVASCRIPT, include_str!("page/token-panel.js")),
    ("/style.css", CSS, include_str!("page/style.css")),
    ("/waiting.js", JAVASCRIPT, include_str!("page/waiting.js")),
];

const WAITING: &str = include_str!("page/waiting.html");
const PANEL: &str = include_str!("page/panel.js");

/// A login proxy in front of the sidecar.
pub struct Front {
    pub sidecar: Upstream,
    pub admin: Upstream,
    pub emulator: Upstream,
    /// Answer at `/__velt-demo/config`.
    pub config: Value,
    /// The users who can sign in, for the panel.
    pub users: Value,
    /// The reader's app, `None` for the demo's own.
    pub own_app: Option<Around>,
}

/// State that the front has only in front of a developer's app.
pub struct Around {
    pub app: OwnApp,
    pub responses: Responses,
    /// Documents of which the reader has been told.
    told: Mutex<BTreeSet<Placed>>,
}

impl Around {
    pub fn new(app: OwnApp) -> Self {
        Self { app, responses: Responses::default(), told: Mutex::default() }
    }

    /// Tells the developer, once for each reason, why a document needed a wider policy or has no panel.
    fn tell(&self, placed: Placed, path: &str) {
        let told = match placed {
            Placed::In(panel::Admission::Widened) => format!(
                "the Content-Security-Policy of {path} allows no script of the demo: the demo adds \
                 its panel to script-src-elem on the way to the browser"
            ),
            Placed::Compressed => format!(
                "the app compressed {path}, although the demo asked for it uncompressed: no panel there, \
                 see {OWN_PATHS}/"
            ),
            Placed::In(_) | Placed::NoDocument => return,
        };
        if self.told.lock().unwrap_or_else(PoisonError::into_inner).insert(placed) {
            eprintln!("velt-sidecar demo: {told}");
        }
    }
}

impl Front {
    /// Answers one request, or has the sidecar answer it.
    pub async fn answer(
        self: Arc<Self>,
        client: IpAddr,
        request: Request<Incoming>,
    ) -> Response<FrontBody> {
        let request = request.map(RequestBody::from);
        // Trusted, because `set_identity` leaves only this proxy's own `X-Forwarded-*`.
        let client = Client { address: client, trusted: true, scheme: Scheme::Http };
        let own = request.uri().path().strip_prefix(OWN_PATHS).map(str::to_owned);
        match own {
            Some(path) if path.is_empty() || path.starts_with('/') => {
                panel::unchanged(self.answer_own(&path, &client, request).await)
            }
            _ => self.through_sidecar(&client, request).await,
        }
    }

    /// Has the sidecar answer, as the user of the session.
    async fn through_sidecar(
        &self,
        client: &Client,
        mut request: Request<RequestBody>,
    ) -> Response<FrontBody> {
        set_identity(request.headers_mut());
        let Some(around) = &self.own_app else {
            return panel::unchanged(forward(&self.sidecar, client, &mut request).await);
        };
        let path = request.uri().path().to_owned();
        let navigates = panel::is_navigation(&request);
        if navigates {
            panel::ask_for_whole(request.headers_mut());
        }
        let response = forward(&self.sidecar, client, &mut request).await;
        around.responses.note(&path, &response);
        if !navigates {
            return panel::unchanged(response);
        }
        if response.status() == StatusCode::BAD_GATEWAY && !around.app.is_up().await {
            return panel::unchanged(waiting(&around.app));
        }
        let (placed, response) = panel::place(response);
        around.tell(placed, &path);
        response
    }

    /// Answers at one of the front's own paths.
    async fn answer_own(
        &self,
        path: &str,
        client: &Client,
        mut request: Request<RequestBody>,
    ) -> Response<Body> {
        let opens_page = panel::is_navigation(&request) && path == "/";
        if !opens_page && is_of_other_site(request.headers()) {
            return refused("a page of another site asks");
        }
        let file = FILES.iter().find(|(file, ..)| *file == path && self.own_app.is_some());
        if let Some((_, content_type, text)) = file {
            return own_file(content_type, (*text).into());
        }
        match (request.method(), path) {
            (&Method::POST, "/login") => log_in(request).await,
            (&Method::GET, "/login") => log_in_and_return(request.uri()),
            (&Method::GET, "/config") => json_answer(StatusCode::OK, &self.config),
            (&Method::GET, "/panel.js") => self.panel(request.headers()),
            (&Method::GET, "/session") => {
                let user = session::signed_in(request.headers()).map(|user| user.id);
                json_answer(StatusCode::OK, &json!({ "user": user }))
            }
            (&Method::GET, "/responses") => self.shown_responses(),
            (&Method::GET, "/app") => self.app_state().await,
            (&Method::GET, "/metrics") => {
                *request.uri_mut() = Uri::from(PathAndQuery::from_static("/metrics"));
                // The admin port refuses pages, so remove the header that shows that a page asks.
                request.headers_mut().remove(SEC_FETCH_SITE);
                forward(&self.admin, client, &mut request).await
            }
            (_, path) if path.starts_with("/emulator/") => {
                let Ok(target) = path.parse::<PathAndQuery>() else { return not_found() };
                *request.uri_mut() = Uri::from(target);
                let mut response = forward(&self.emulator, client, &mut request).await;
                deny_other_origins(response.headers_mut());
                response
            }
            (&Method::GET, "") => see_other("/__velt-demo/"),
            (&Method::GET, "/") => see_other("/"),
            _ => not_found(),
        }
    }

    /// Returns the panel's script, with the user of this session.
    fn panel(&self, headers: &HeaderMap) -> Response<Body> {
        let user = session::signed_in(headers).map(|user| user.id);
        let state = json!({ "user": user, "users": self.users });
        own_file(JAVASCRIPT, format!("globalThis.__veltDemo = {state};\n{PANEL}"))
    }

    fn shown_responses(&self) -> Response<Body> {
        match &self.own_app {
            Some(around) => json_answer(StatusCode::OK, &around.responses.shown()),
            None => not_found(),
        }
    }

    async fn app_state(&self) -> Response<Body> {
        let Some(around) = &self.own_app else { return not_found() };
        let state = json!({ "address": around.app.to_string(), "up": around.app.is_up().await });
        json_answer(StatusCode::OK, &state)
    }
}

async fn forward(
    to: &Upstream,
    client: &Client,
    request: &mut Request<RequestBody>,
) -> Response<Body> {
    let response = to.forward(request, client, None, Instant::now()).await;
    response.unwrap_or_else(|error: UpstreamError| {
        json_answer(StatusCode::BAD_GATEWAY, &json!({ "error": error.to_string() }))
    })
}

/// Replaces the identity that a browser claims, under any spelling, by the identity of the session.
fn set_identity(headers: &mut HeaderMap) {
    let claimed = |name: &&HeaderName| begins_with(name.as_str(), "x-forwarded-");
    let claimed: Vec<HeaderName> = headers.keys().filter(claimed).cloned().collect();
    for name in claimed {
        headers.remove(name);
    }
    if let Some(user) = session::signed_in(headers) {
        headers.insert(X_FORWARDED_USER, HeaderValue::from_static(user.id));
    }
}

/// Whether a page of another site asks (W3C Fetch Metadata, section 2.3): it has no say in who is signed in,
/// nor in what the emulator does.
fn is_of_other_site(headers: &HeaderMap) -> bool {
    let mut sites = headers.get_all(SEC_FETCH_SITE).into_iter();
    sites.any(|site| site != "same-origin" && site != "none")
}

/// Removes what the emulator says to pages of other origins: the front's own pages need no permission.
fn deny_other_origins(headers: &mut HeaderMap) {
    let allowing = |name: &&HeaderName| name.as_str().starts_with("access-control-");
    let allowing: Vec<HeaderName> = headers.keys().filter(allowing).cloned().collect();
    for name in allowing {
        headers.remove(name);
    }
}

/// Signs the user of the body in: `{"user":"ada"}`, or `{"user":""}` for no user.
async fn log_in(request: Request<RequestBody>) -> Response<Body> {
    let body = Limited::new(request.into_body(), 1024).collect().await.ok();
    let named = body.and_then(|body| serde_json::from_slice::<Value>(&body.to_bytes()).ok());
    let Some(Ok(user)) = named.and_then(|named| named["user"].as_str().map(chosen)) else {
        return json_answer(StatusCode::BAD_REQUEST, &json!({ "error": "there is no such user" }));
    };
    let mut response = empty(StatusCode::NO_CONTENT);
    response.headers_mut().insert(SET_COOKIE, session::cookie(user));
    response
}

/// Signs a user in and leads back to the page, for a page whose policy lets the panel fetch nothing:
/// `?user=ada&to=/page`.
fn log_in_and_return(uri: &Uri) -> Response<Body> {
    let url = Url::parse("http://demo/").and_then(|base| base.join(&uri.to_string()));
    let Ok(url) = url else { return not_found() };
    let query = |name| url.query_pairs().find_map(|(key, value)| (key == name).then_some(value));
    let Some(Ok(user)) = query("user").map(|user| chosen(&user)) else { return not_found() };
    let to = query("to").filter(|to| is_path(to)).unwrap_or("/".into());
    let mut response = see_other(&to);
    response.headers_mut().insert(SET_COOKIE, session::cookie(user));
    response
}

/// The browser asked for a user whom the demo does not have.
struct NoSuchUser;

/// Returns the user of an id, and no user for an empty id.
fn chosen(id: &str) -> Result<Option<User>, NoSuchUser> {
    if id.is_empty() { Ok(None) } else { User::with_id(id).map(Some).ok_or(NoSuchUser) }
}

/// Whether a browser reads `to` as a path of this origin. `//host`, `/\host`, and both with a tab in between
/// are other origins.
fn is_path(to: &str) -> bool {
    let is_plain = to.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    is_plain && to.starts_with('/') && !to.starts_with("//")
}

/// Returns the page that waits for the reader's app.
fn waiting(app: &OwnApp) -> Response<Body> {
    // Escaped, although no address of an app has a character of HTML's markup.
    let address = app.to_string().replace('&', "&amp;").replace('<', "&lt;");
    let mut response = own_file(HTML, WAITING.replace("{app}", &address));
    *response.status_mut() = StatusCode::BAD_GATEWAY;
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

fn own_file(content_type: &'static str, text: String) -> Response<Body> {
    let mut response = Response::new(Body::own(Bytes::from(text)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if content_type == HTML {
        let policy = HeaderValue::from_static("default-src 'self'; frame-ancestors 'self'");
        headers.insert(CONTENT_SECURITY_POLICY, policy);
    }
    response
}

fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::own(Bytes::new()));
    *response.status_mut() = status;
    response
}

fn see_other(to: &str) -> Response<Body> {
    let mut response = empty(StatusCode::SEE_OTHER);
    let to = HeaderValue::from_str(to).expect("the caller's path is plain");
    response.headers_mut().insert(LOCATION, to);
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn not_found() -> Response<Body> {
    json_answer(StatusCode::NOT_FOUND, &json!({ "error": "the demo has no such path" }))
}

fn refused(why: &str) -> Response<Body> {
    json_answer(StatusCode::FORBIDDEN, &json!({ "error": why }))
}

fn json_answer(status: StatusCode, json: &Value) -> Response<Body> {
    let mut response = Response::new(Body::own(Bytes::from(json.to_string())));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

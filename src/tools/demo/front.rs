//! The demo's login proxy: a stand-in for oauth2-proxy, with the user id in a cookie as the session.
//!
//! The front does what a login proxy in front of a sidecar has to do: it removes the identity that the
//! browser claims, and sets the identity of the session.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, COOKIE, SET_COOKIE};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::User;
use ground::spelling::begins_with;
use hop::proxy::{Body, Client, RequestBody, Scheme, Upstream};

const COOKIE_NAME: &str = "demo_user";
const X_FORWARDED_USER: HeaderName = HeaderName::from_static("x-forwarded-user");

/// A login proxy in front of the sidecar.
pub struct Front {
    pub sidecar: Upstream,
    pub admin: Upstream,
    /// Answer at `/demo/config`.
    pub config: Value,
}

impl Front {
    /// Answers one request, or has the sidecar answer it.
    pub async fn answer(
        self: Arc<Self>,
        client: IpAddr,
        request: Request<Incoming>,
    ) -> Response<Body> {
        let mut request = request.map(RequestBody::from);
        // Trusted, because `set_identity` leaves only this proxy's own `X-Forwarded-*`.
        let client = Client { address: client, trusted: true, scheme: Scheme::Http };
        set_identity(request.headers_mut());
        let forwarded = match (request.method(), request.uri().path()) {
            (&Method::POST, "/demo/login") => return log_in(request).await,
            (&Method::POST, "/demo/logout") => return session(None),
            (&Method::GET, "/demo/config") => return json_answer(StatusCode::OK, &self.config),
            (&Method::GET, "/demo/metrics") => {
                *request.uri_mut() = Uri::from(PathAndQuery::from_static("/metrics"));
                // The admin port refuses pages, so remove the header that shows that a page asks.
                request.headers_mut().remove("sec-fetch-site");
                self.admin.forward(&mut request, &client, None, Instant::now()).await
            }
            _ => self.sidecar.forward(&mut request, &client, None, Instant::now()).await,
        };
        forwarded.unwrap_or_else(|error| {
            json_answer(StatusCode::BAD_GATEWAY, &json!({ "error": error.to_string() }))
        })
    }
}

/// Replaces the identity that a browser claims, under any spelling, by the identity of the session.
fn set_identity(headers: &mut HeaderMap) {
    let claimed = |name: &&HeaderName| begins_with(name.as_str(), "x-forwarded-");
    let claimed: Vec<HeaderName> = headers.keys().filter(claimed).cloned().collect();
    for name in claimed {
        headers.remove(name);
    }
    if let Some(user) = signed_in(headers) {
        headers.insert(X_FORWARDED_USER, HeaderValue::from_static(user.id));
    }
}

/// Returns the user of the session, which in the demo is the bare user id in a cookie.
fn signed_in(headers: &HeaderMap) -> Option<User> {
    let cookies = headers.get_all(COOKIE).into_iter().filter_map(|cookie| cookie.to_str().ok());
    let mut pairs = cookies.flat_map(|cookies| cookies.split(';')).map(str::trim);
    let id = pairs.find_map(|pair| pair.strip_prefix(COOKIE_NAME)?.strip_prefix('='))?;
    User::with_id(id)
}

async fn log_in(request: Request<RequestBody>) -> Response<Body> {
    let body = Limited::new(request.into_body(), 1024).collect().await.ok();
    let named = body.and_then(|body| serde_json::from_slice::<Value>(&body.to_bytes()).ok());
    match named.and_then(|named| User::with_id(named["user"].as_str()?)) {
        Some(user) => session(Some(user)),
        None => json_answer(StatusCode::BAD_REQUEST, &json!({ "error": "there is no such user" })),
    }
}

fn session(user: Option<User>) -> Response<Body> {
    let cookie = match user {
        Some(user) => format!("{COOKIE_NAME}={}; Path=/; HttpOnly; SameSite=Lax", user.id),
        None => format!("{COOKIE_NAME}=; Path=/; HttpOnly; SameSite=Lax; Max-Age=0"),
    };
    let mut response = Response::new(Body::own(Bytes::new()));
    *response.status_mut() = StatusCode::NO_CONTENT;
    let cookie = HeaderValue::from_str(&cookie).expect("user ids of the demo are plain");
    response.headers_mut().insert(SET_COOKIE, cookie);
    response
}

fn json_answer(status: StatusCode, json: &Value) -> Response<Body> {
    let mut response = Response::new(Body::own(Bytes::from(json.to_string())));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

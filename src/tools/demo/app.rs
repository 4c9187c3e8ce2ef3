//! The demo's app: a page, a little API, an event stream, a WebSocket. The app believes the header of the
//! login proxy in front, and knows nothing of Velt.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use http::header::{
    CACHE_CONTROL, CONNECTION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, SEC_WEBSOCKET_ACCEPT,
    SEC_WEBSOCKET_KEY, UPGRADE,
};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::time::{Interval, interval};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::User;

/// Body of the app's responses.
pub type AppBody = Either<Full<Bytes>, Ticks>;

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";

/// Files of the page: path, content type, text.
const FILES: [(&str, &str, &str); 11] = [
    ("/", HTML, include_str!("page/index.html")),
    ("/assets/style.css", CSS, include_str!("page/style.css")),
    ("/assets/demo.js", JAVASCRIPT, include_str!("page/demo.js")),
    ("/assets/deliveries.js", JAVASCRIPT, include_str!("page/deliveries.js")),
    ("/assets/experiments.js", JAVASCRIPT, include_str!("page/experiments.js")),
    ("/assets/guide.js", JAVASCRIPT, include_str!("page/guide.js")),
    ("/assets/live.js", JAVASCRIPT, include_str!("page/live.js")),
    ("/assets/requests.js", JAVASCRIPT, include_str!("page/requests.js")),
    ("/assets/token-panel.js", JAVASCRIPT, include_str!("page/token-panel.js")),
    // The package itself, as an app has it from npm.
    ("/assets/velt-sidecar.js", JAVASCRIPT, include_str!("../../../frontend/dist/index.js")),
    ("/assets/velt-stand-in.js", JAVASCRIPT, include_str!("page/velt-stand-in.js")),
];

/// Answers one request.
pub fn answer(request: Request<Incoming>) -> Response<AppBody> {
    let user = user_of(request.headers());
    let path = request.uri().path();
    if let Some((_, content_type, text)) = FILES.iter().find(|(file, ..)| *file == path) {
        return file(content_type, text);
    }
    match (request.method(), path) {
        (&Method::GET, "/api/me") => json_answer(&profile(user)),
        (&Method::GET, "/api/events") => events(user),
        (&Method::GET, "/ws") => echo(request, user),
        (_, "/favicon.ico") => status(StatusCode::NO_CONTENT),
        _ => status(StatusCode::NOT_FOUND),
    }
}

/// Returns the user that the login proxy names. The app trusts its callers, since it listens on loopback
/// only.
fn user_of(headers: &HeaderMap) -> Option<User> {
    User::with_id(headers.get("x-forwarded-user")?.to_str().ok()?)
}

fn profile(user: Option<User>) -> Value {
    match user {
        Some(user) => json!({
            "userId": user.id,
            "name": user.name,
            "email": user.email,
            "organizationId": "demo",
        }),
        None => json!({ "userId": null }),
    }
}

fn file(content_type: &'static str, text: &'static str) -> Response<AppBody> {
    let mut response = Response::new(Either::Left(Full::new(Bytes::from_static(text.as_bytes()))));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    let policy = "default-src 'self'; connect-src 'self' ws: wss:";
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    response
}

fn json_answer(json: &Value) -> Response<AppBody> {
    let mut response = Response::new(Either::Left(Full::new(Bytes::from(json.to_string()))));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn status(status: StatusCode) -> Response<AppBody> {
    let mut response = Response::new(Either::Left(Full::default()));
    *response.status_mut() = status;
    response
}

fn events(user: Option<User>) -> Response<AppBody> {
    let ticks = Ticks { interval: interval(Duration::from_secs(1)), count: 0, user };
    let mut response = Response::new(Either::Right(ticks));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, no-transform"));
    response
}

/// An endless body: one event a second.
pub struct Ticks {
    interval: Interval,
    count: u64,
    user: Option<User>,
}

impl Body for Ticks {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        ready!(self.interval.poll_tick(context));
        self.count += 1;
        let at = httpdate::fmt_http_date(SystemTime::now());
        let user = self.user.map(|user| user.id);
        let data = json!({ "n": self.count, "at": at, "user": user });
        let event = format!("event: tick\ndata: {data}\n\n");
        Poll::Ready(Some(Ok(Frame::data(Bytes::from(event)))))
    }
}

fn echo(mut request: Request<Incoming>, user: Option<User>) -> Response<AppBody> {
    let Some(key) = request.headers().get(SEC_WEBSOCKET_KEY) else {
        return status(StatusCode::UPGRADE_REQUIRED);
    };
    let accept = derive_accept_key(key.as_bytes());
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let Ok(upgraded) = upgraded.await else { return };
        let io = TokioIo::new(upgraded);
        let socket = WebSocketStream::from_raw_socket(io, Role::Server, None).await;
        if let Err(error) = echo_all(socket, user).await {
            tracing::debug!(%error, "the demo's WebSocket ended");
        }
    });
    let mut response = status(StatusCode::SWITCHING_PROTOCOLS);
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    let accept = HeaderValue::from_str(&accept).expect("base64 is visible ASCII");
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    response
}

async fn echo_all<S>(mut socket: WebSocketStream<S>, user: Option<User>) -> Result<(), Error>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let mut count = 0;
    while let Some(message) = socket.next().await {
        if let Message::Text(text) = message? {
            count += 1;
            let user = user.map(|user| user.id);
            let echo = json!({ "echo": text.as_str(), "user": user, "n": count });
            socket.send(Message::text(echo.to_string())).await?;
        }
    }
    Ok(())
}

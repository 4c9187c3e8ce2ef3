//! A client that sends what a test says, and looks at every header that comes back.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Version};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::PATIENCE;

/// The only headers that may reach a client, beside those that the app of the tests sends, which
/// begin with `x-app-`.
const ALLOWED: &[&str] = &[
    "access-control-allow-origin",
    "access-control-expose-headers",
    "allow",
    "cache-control",
    "cdn-cache-control",
    "connection",
    "content-encoding",
    "content-length",
    "content-range",
    "content-security-policy",
    "content-type",
    "cross-origin-resource-policy",
    "date",
    "etag",
    "expires",
    "location",
    "retry-after",
    "sec-websocket-accept",
    "server-timing",
    "set-cookie",
    "surrogate-control",
    "timing-allow-origin",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "vary",
    "www-authenticate",
    "x-accel-expires",
    "x-content-type-options",
    "x-velt-token",
    "x-velt-token-status",
];

/// A client of one address. Each request has a connection of its own.
pub struct Client {
    address: SocketAddr,
}

/// A request in the making.
pub struct Sending {
    address: SocketAddr,
    request: Request<Full<Bytes>>,
}

/// A response read to its end.
#[derive(Debug)]
pub struct Answer {
    response: Response<Bytes>,
    pub trailers: Option<HeaderMap>,
}

impl Client {
    pub fn to(address: SocketAddr) -> Self {
        Self { address }
    }

    pub fn get(&self, path: &str) -> Sending {
        self.request(Method::GET, path)
    }

    pub fn post(&self, path: &str, body: impl Into<Bytes>) -> Sending {
        let mut sending = self.request(Method::POST, path);
        *sending.request.body_mut() = Full::new(body.into());
        sending
    }

    pub fn request(&self, method: Method, path: &str) -> Sending {
        let mut request = Request::new(Full::default());
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().expect("a path");
        request.headers_mut().insert("host", HeaderValue::from_static("app.example"));
        Sending { address: self.address, request }
    }
}

impl Sending {
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a header name");
        let value = HeaderValue::from_bytes(value.as_ref()).expect("a header value");
        self.request.headers_mut().append(name, value);
        self
    }

    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        *self.request.body_mut() = Full::new(body.into());
        self
    }

    pub fn without(mut self, name: &str) -> Self {
        self.request.headers_mut().remove(name);
        self
    }

    /// Sends over HTTP/1.1, and reads the answer to its end.
    pub async fn send(self) -> Answer {
        Answer::read(self.begin().await).await
    }

    /// Sends over HTTP/2 with prior knowledge, and reads the answer to its end.
    pub async fn send_http2(self) -> Answer {
        Answer::read(self.begin_http2().await).await
    }

    /// Sends over HTTP/2 with prior knowledge, and reads the head of the response.
    pub async fn begin_http2(mut self) -> Response<Incoming> {
        self.address_http2("http");
        let stream = TcpStream::connect(self.address).await.expect("it listens");
        let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.expect("HTTP/2");
        tokio::spawn(connection);
        let response = timeout(PATIENCE, sender.send_request(self.request)).await;
        response.expect("an answer in time").expect("an answer")
    }

    /// Sends over HTTP/1.1, and reads the head of the response.
    pub async fn begin(self) -> Response<Incoming> {
        let response = timeout(PATIENCE, self.try_begin()).await.expect("an answer in time");
        response.expect("an answer")
    }

    /// Sends over a connection that is there already, and reads the answer to its end.
    pub async fn send_over<S>(mut self, stream: S, version: Version) -> Answer
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let response = if version == Version::HTTP_2 {
            self.address_http2("https");
            let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
            let (mut sender, connection) = handshake.expect("HTTP/2");
            tokio::spawn(connection);
            timeout(PATIENCE, sender.send_request(self.request)).await
        } else {
            let handshake = http1::handshake(TokioIo::new(stream)).await;
            let (mut sender, connection) = handshake.expect("HTTP/1.1");
            tokio::spawn(connection.with_upgrades());
            timeout(PATIENCE, sender.send_request(self.request)).await
        };
        Answer::read(response.expect("an answer in time").expect("an answer")).await
    }

    /// Sends over HTTP/1.1 on a connection that is there already, if the connection carries the request.
    pub async fn try_send_over<S>(self, stream: S) -> hyper::Result<Response<Incoming>>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection.with_upgrades());
        timeout(PATIENCE, sender.send_request(self.request)).await.expect("an answer in time")
    }

    fn address_http2(&mut self, scheme: &str) {
        let host = self.request.headers_mut().remove("host").expect("a host");
        let host = host.to_str().expect("a host");
        let uri = format!("{scheme}://{host}{}", self.request.uri());
        *self.request.uri_mut() = uri.parse().expect("a URI");
        *self.request.version_mut() = Version::HTTP_2;
    }

    pub async fn try_begin(self) -> hyper::Result<Response<Incoming>> {
        let stream = TcpStream::connect(self.address).await.expect("it listens");
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection.with_upgrades());
        sender.send_request(self.request).await
    }
}

impl Answer {
    pub async fn read(response: Response<Incoming>) -> Self {
        check_headers(response.headers());
        let (parts, body) = response.into_parts();
        let body = timeout(PATIENCE, body.collect()).await.expect("a body in time");
        let body = body.expect("a whole body");
        let trailers = body.trailers().cloned();
        Self { response: Response::from_parts(parts, body.to_bytes()), trailers }
    }

    pub fn status(&self) -> u16 {
        self.response.status().as_u16()
    }

    pub fn headers(&self) -> &HeaderMap {
        self.response.headers()
    }

    /// Returns the only value of a header, `None` if the header is not there.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers().get_all(name).iter();
        let value = values.next()?;
        assert!(values.next().is_none(), "{name} is there twice");
        Some(value.to_str().expect("visible ASCII"))
    }

    pub fn token(&self) -> Option<&str> {
        self.header("x-velt-token")
    }

    pub fn token_status(&self) -> Option<&str> {
        self.header("x-velt-token-status")
    }

    pub fn body(&self) -> &Bytes {
        self.response.body()
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.body().to_vec()).expect("text")
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(self.body()).unwrap_or_else(|_| panic!("JSON: {}", self.text()))
    }

    /// Returns the `code` of an error of the sidecar's, whose text says what happened and what to do.
    pub fn code(&self) -> String {
        let json = self.json();
        assert!(json["error"].as_str().is_some_and(|text| text.len() > 10), "{json}");
        json["code"].as_str().expect("a code").to_owned()
    }
}

pub fn check_headers(headers: &HeaderMap) {
    for name in headers.keys() {
        let allowed = name.as_str().starts_with("x-app-") || ALLOWED.contains(&name.as_str());
        assert!(allowed, "the header {name} is not on the list of what may be there");
    }
}

//! One connection to the app, watched while no request is on it: for `doctor`.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, HOST, LOCATION, USER_AGENT};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::pool::{Stream, dial, http1_builder};
use super::resend::RequestInFlight;
use super::{Address, AppProtocol, Settings, UpstreamError};
use ground::tcp::Watch;
use ground::tls::ClientTls;

/// Longest time that the body of the one response is read. A page that never ends does not show how long an
/// idle connection is kept.
const BODY_PATIENCE: Duration = Duration::from_secs(2);

/// Findings about one connection to the app.
#[derive(Clone, Copy, Debug)]
pub struct Probe {
    /// Time to open the connection, TLS included.
    pub connect_time: Duration,
    /// Time from the open connection to the head of the response to `GET /`.
    pub response_time: Duration,
    pub status: StatusCode,
    /// Whether the response is a redirect to https.
    pub to_https: bool,
    /// Idle time that the app announces: `timeout` in `Keep-Alive` (RFC 2068 section 19.7.1.1).
    pub announced: Option<Duration>,
    pub idle: IdleTime,
}

/// Fate of the connection after its only request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdleTime {
    /// The app closed the connection after this time.
    Closed(Duration),
    /// The connection was still open after this time, the whole of the wait.
    Open(Duration),
    /// The response did not end, so the connection never was idle.
    Busy,
}

type Connection = JoinHandle<()>;

/// Opens a connection as `settings` say, asks for `GET /`, and waits at most `hold` for the app to close the
/// connection.
///
/// # Errors
///
/// The error that a client's request would meet. Connecting and the response each have their own timeout.
pub async fn probe(
    settings: &Settings,
    tls: Option<&ClientTls>,
    hold: Duration,
) -> Result<Probe, UpstreamError> {
    let began = Instant::now();
    let stream = connect(settings, tls).await?;
    let connect_time = began.elapsed();
    let request = request(settings, tls.is_some(), "/");
    let began = Instant::now();
    let (response, sender, connection) = ask_over(stream, request, settings).await?;
    let (response_time, status) = (began.elapsed(), response.status());
    let announced = announced(response.headers());
    let to_https = is_to_https(&response);
    let idle = watch(response, connection, hold).await;
    // Held until here: without the sender, the connection would end by itself.
    drop(sender);
    Ok(Probe { connect_time, response_time, status, to_https, announced, idle })
}

/// Head of an app's response to one request.
#[derive(Debug)]
pub struct Asked {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// Whether the response is a redirect to https.
    pub to_https: bool,
}

/// Opens a connection for one `GET` of `path`, with the headers of a front whose client has come by https or
/// by plain HTTP.
///
/// # Errors
///
/// See [`probe`].
pub async fn ask_once(
    settings: &Settings,
    tls: Option<&ClientTls>,
    path: &str,
    by_https: bool,
) -> Result<Asked, UpstreamError> {
    let stream = connect(settings, tls).await?;
    let mut request = request(settings, tls.is_some(), path);
    let scheme = HeaderValue::from_static(if by_https { "https" } else { "http" });
    request.headers_mut().insert("x-forwarded-proto", scheme);
    let (response, _sender, connection) = ask_over(stream, request, settings).await?;
    connection.abort();
    let to_https = is_to_https(&response);
    let (head, _) = response.into_parts();
    Ok(Asked { status: head.status, headers: head.headers, to_https })
}

async fn connect(settings: &Settings, tls: Option<&ClientTls>) -> Result<Stream, UpstreamError> {
    let dialling = dial(&settings.address, tls, settings.protocol != AppProtocol::Http1);
    match timeout(settings.connect_timeout, dialling).await {
        Ok(dialled) => dialled.map_err(UpstreamError::Unreachable),
        Err(_) => Err(UpstreamError::Unreachable(std::io::ErrorKind::TimedOut.into())),
    }
}

async fn ask_over(
    stream: Stream,
    request: Request<Empty<Bytes>>,
    settings: &Settings,
) -> Result<(Response<Incoming>, Sender, Connection), UpstreamError> {
    let asking = async {
        match stream {
            Stream::Tcp(stream) => ask(stream, request, settings).await,
            Stream::Tls(stream) => ask(stream, request, settings).await,
            Stream::Unix(stream) => ask(stream, request, settings).await,
        }
    };
    timeout(settings.response_timeout, asking).await.map_err(|_| UpstreamError::Timeout)?
}

fn is_to_https<B>(response: &Response<B>) -> bool {
    let location = response.headers().get(LOCATION).map(HeaderValue::as_bytes);
    let is_https = |location: &[u8]| {
        location.get(..8).is_some_and(|start| start.eq_ignore_ascii_case(b"https://"))
    };
    response.status().is_redirection() && location.is_some_and(is_https)
}

fn request(settings: &Settings, encrypted: bool, path: &str) -> Request<Empty<Bytes>> {
    let over_http2 = settings.protocol != AppProtocol::Http1;
    let host = match &settings.address {
        Address::Tcp(authority) => authority,
        Address::Unix(_) => "localhost",
    };
    let scheme = if encrypted { "https" } else { "http" };
    let request =
        Request::get(if over_http2 { format!("{scheme}://{host}{path}") } else { path.to_owned() });
    let request = if over_http2 { request } else { request.header(HOST, host) };
    let request = request.header(USER_AGENT, "velt-sidecar-doctor").body(Empty::new());
    request.expect("the configuration has checked address and path")
}

/// Sender that keeps a connection open.
enum Sender {
    Http1(#[expect(dead_code, reason = "held")] http1::SendRequest<Empty<Bytes>>),
    Http2(#[expect(dead_code, reason = "held")] http2::SendRequest<Empty<Bytes>>),
}

async fn ask<T>(
    stream: T,
    request: Request<Empty<Bytes>>,
    settings: &Settings,
) -> Result<(Response<Incoming>, Sender, Connection), UpstreamError>
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    if settings.protocol != AppProtocol::Http1 {
        let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(UpstreamError::Broken)?;
        let connection = drive(connection);
        let response = sender.send_request(request).await.map_err(UpstreamError::Broken)?;
        return Ok((response, Sender::Http2(sender), connection));
    }
    let stream = TokioIo::new(Watch::over(stream, Arc::new(RequestInFlight::default())));
    let handshake = http1_builder(settings.max_headers).handshake(stream).await;
    let (mut sender, connection) = handshake.map_err(UpstreamError::Broken)?;
    let connection = drive(connection);
    let response = sender.send_request(request).await.map_err(UpstreamError::Broken)?;
    Ok((response, Sender::Http1(sender), connection))
}

fn drive(connection: impl Future<Output = hyper::Result<()>> + Send + 'static) -> Connection {
    tokio::spawn(async move {
        // The result does not matter: the probe only asks for the time of the end.
        let _ = connection.await;
    })
}

/// Reads the response to its end and waits for the end of its connection.
async fn watch(
    response: Response<Incoming>,
    mut connection: Connection,
    hold: Duration,
) -> IdleTime {
    let closes = response
        .headers()
        .get_all(CONNECTION)
        .iter()
        .any(|value| value.to_str().is_ok_and(|value| value.eq_ignore_ascii_case("close")));
    let mut body = response.into_body();
    let reading = async { while let Some(Ok(_)) = body.frame().await {} };
    let idle = if timeout(BODY_PATIENCE, reading).await.is_err() {
        IdleTime::Busy
    } else if closes {
        IdleTime::Closed(Duration::ZERO)
    } else {
        let since = Instant::now();
        match timeout(hold, &mut connection).await {
            Ok(_) => IdleTime::Closed(since.elapsed()),
            Err(_) => IdleTime::Open(hold),
        }
    };
    connection.abort();
    idle
}

fn announced(headers: &HeaderMap) -> Option<Duration> {
    let said = headers.get("keep-alive")?.to_str().ok()?;
    let timeout = said.split(',').find_map(|part| part.trim().strip_prefix("timeout="))?;
    timeout.trim().parse().ok().map(Duration::from_secs)
}

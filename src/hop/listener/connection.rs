//! One client's connection, from its first byte to its last: its protocol, its orderly end, and the client's
//! fault if the connection ended badly.

use std::convert::Infallible;
use std::error::Error;
use std::future::ready;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::Either;
use http::header::{CONNECTION, CONTENT_LENGTH, COOKIE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tracing::debug;

use super::connection_state::{Attended, ConnectionState, Held};
use super::handshake::Handshakes;
use super::lingering::{Patience, linger};
use super::stream::Requests;
use super::turn::Turns;
use super::{Limits, Phase, Settings, preface, stopped_in};
use ground::client_connection::ClientConnection;
use ground::dozing::Dozing;
use ground::memory::{Paused, Thrift};
use ground::metrics::{CloseReason, ListenerMetrics, Protocol};
use ground::peer::{Peer, is_own};
use ground::tcp::{self, HalfOpen, OverTcp, Watch};

/// Read buffer of one HTTP/1.1 connection beyond the longest head. The buffer grows only as far as a peer
/// fills it; hyper's own limit of 400 KiB is too much for 10,000 connections.
const HTTP1_BUFFER: usize = 64 * 1024;

/// Number of headers that hyper parses without allocating.
const HTTP1_FREE_HEADERS: usize = 100;

/// Bytes that an HTTP/2 client may send on one stream before the app has read them, and so the cost of
/// an upload that stands still.
///
/// Must be more than a third of the 65,535 bytes with which HTTP/2 begins (RFC 9113 section 6.9.2). Of the
/// bytes that arrive before the client knows this window, h2 0.4 gives back less than a third only together
/// with later bytes, and with a window of 16 KiB no later bytes could come.
const HTTP2_STREAM_WINDOW: u32 = 32 * 1024;

/// Bytes that an HTTP/2 connection may have under way beyond the windows of all its streams: for
/// streams that the sidecar has reset before the client knows.
const HTTP2_SPARE_WINDOW: u32 = 256 * 1024;

/// Largest window that HTTP/2 has (RFC 9113 section 6.9.1).
const HTTP2_MAX_WINDOW: u32 = i32::MAX.unsigned_abs();

/// Response bytes buffered per HTTP/2 stream.
const HTTP2_SEND_BUFFER: usize = 16 * 1024;

/// Interval of pings, which find an HTTP/2 client whose kernel still answers but whose program does
/// not.
const HTTP2_PING_INTERVAL: Duration = Duration::from_secs(30);

/// Time for which a connection without a request is kept when the listener stops, because the client may have
/// sent a request already.
const LAST_WORDS: Duration = Duration::from_millis(250);

/// One client's connection.
pub struct Connection {
    pub stream: TcpStream,
    pub peer: SocketAddr,
    pub held: Held,
    pub settings: Settings,
    /// TLS handshakes; `None` without TLS.
    pub handshakes: Option<Handshakes>,
    pub metrics: ListenerMetrics,
}

/// A connection that is ready for requests.
struct Established {
    peer: Peer,
    protocol: Protocol,
    state: Arc<ConnectionState>,
    settings: Settings,
    metrics: ListenerMetrics,
}

impl Connection {
    /// Serves the connection to its end.
    pub async fn serve<H, F, B>(self, handler: H, phase: watch::Receiver<Phase>)
    where
        H: Fn(&Peer, &Arc<ClientConnection>, Request<Incoming>) -> F
            + Clone
            + Send
            + Sync
            + 'static,
        F: Future<Output = Response<B>> + Send + 'static,
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let Self { stream, peer, held, settings, handshakes, metrics } = self;
        let local = stream.local_addr().ok();
        tcp::tune(&stream, peer, settings.limits.stalled * 3 / 2);
        let (limits, state) = (settings.limits, ConnectionState::new(held, &settings.memory));
        // The first request of the client may be on its way.
        let mut ending = phase.clone();
        let too_late = async {
            stopped_in(&mut ending).await;
            sleep(LAST_WORDS).await;
        };
        let established = |protocol, names, encrypted| {
            metrics.accepted.increment(protocol);
            state.rest();
            let is_here = is_own(peer.ip());
            let peer = Peer { encrypted, names, local, is_here, ..Peer::of(peer) };
            let (state, metrics) = (Arc::clone(&state), metrics.clone());
            Established { peer, protocol, state, settings, metrics }
        };
        match handshakes {
            None => {
                let protocol = tokio::select! {
                    biased;
                    protocol = preface::protocol(&stream, limits) => protocol,
                    () = too_late => return,
                };
                match protocol {
                    Ok(protocol) => {
                        let stream = Watch::over(stream, Arc::clone(&state) as _);
                        established(protocol, None, false).serve(stream, handler, phase).await;
                    }
                    Err(reason) => {
                        if let Some(reason) = reason {
                            metrics.closed.increment(reason);
                        }
                    }
                }
            }
            // Boxed, so that a connection without TLS does not pay for the size of this future.
            Some(handshakes) => {
                let greeted = tokio::select! {
                    biased;
                    greeted = Box::pin(handshakes.greet(stream, &state)) => greeted,
                    () = too_late => return,
                };
                // A failed handshake has been counted.
                let Ok((stream, protocol, names)) = greeted else { return };
                Box::pin(established(protocol, names, true).serve(stream, handler, phase)).await;
            }
        }
    }
}

impl Established {
    async fn serve<S, H, F, B>(self, stream: S, handler: H, phase: watch::Receiver<Phase>)
    where
        S: AsyncRead + AsyncWrite + OverTcp + Send + Unpin + 'static,
        H: Fn(&Peer, &Arc<ClientConnection>, Request<Incoming>) -> F
            + Clone
            + Send
            + Sync
            + 'static,
        F: Future<Output = Response<B>> + Send + 'static,
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let Self { peer, protocol, state, settings, metrics } = self;
        let connection = state.connection();
        let http2 = protocol == Protocol::Http2;
        let (mut limits, most) = (settings.limits, settings.max_connections);
        let (requests, memory) = (Arc::clone(&state), settings.memory.clone());
        let phase_now = phase.clone();
        let (max_headers, refused) = (settings.max_headers, metrics.heads_refused.clone());
        let respond = move |request: Request<Incoming>| {
            let mut in_progress = requests.begin(!request.body().is_end_stream());
            if http2 && memory.is_wary() {
                in_progress.weigh(head_bytes(&request));
            }
            // Over HTTP/1.1 hyper has counted the headers.
            if http2 && too_many(request.headers(), max_headers) {
                refused.inc();
                requests.refuse_head();
                let mut refusal = Response::new(Attended::nothing(in_progress));
                *refusal.status_mut() = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
                return Either::Left(ready(Ok::<_, Infallible>(refusal)));
            }
            let may_chunk =
                request.version() == Version::HTTP_11 && request.method() != Method::HEAD;
            let responding = handler(&peer, &connection, request);
            let phase = phase_now.clone();
            // Not an async block, which would hold the handler's large future twice.
            Either::Right(responding.map(move |mut response| {
                if !http2 && *phase.borrow() >= Phase::Leaving && !is_upgrade(&response) {
                    let close = HeaderValue::from_static("close");
                    response.headers_mut().insert(CONNECTION, close);
                }
                let response = response.map(|body| Attended::new(body, http2, in_progress));
                if may_chunk && is_chunked(&response) {
                    response.body().connection().answer_in_chunks();
                }
                Ok(response)
            }))
        };
        // Stream that is left when the last answer of a connection has been sent.
        let mut rest = None;
        let served = if http2 {
            let stream = Paused::over(stream, settings.memory.clone());
            let io = TokioIo::new(Turns::of(stream));
            // Frames between requests are not the beginning of a request.
            limits.head = Duration::MAX;
            // Boxed, because each request becomes a task, and its future is moved several times on the way
            // there.
            let service = service_fn(move |request| Box::pin(respond(request)));
            let mut connection = http2_builder(&settings).serve_connection(io, service);
            let end = http2::Connection::graceful_shutdown;
            // An HTTP/1.1 client is told in its answers.
            let leaving = leaving(phase.clone(), &state);
            drive(Pin::new(&mut connection), end, &state, limits, most, leaving, phase.clone())
                .await
        } else {
            let stream = Thrift::client(stream, settings.memory.clone());
            let io = TokioIo::new(HalfOpen::new(stream, Arc::clone(&state) as _));
            let service = service_fn(respond);
            let connection = http1_builder(&settings).serve_connection(io, service);
            let mut connection = connection.with_upgrades();
            let end = http1::UpgradeableConnection::graceful_shutdown;
            let leaving = std::future::pending();
            let driven = Pin::new(&mut connection);
            let served = drive(driven, end, &state, limits, most, leaving, phase.clone()).await;
            // An upgraded connection is skipped: its tunnel has the socket.
            if let (Ended::ByItself(_), Some(parts)) = (&served, connection.into_parts()) {
                rest = Some(parts.io.into_inner());
            }
            served
        };
        let reason = served.reason();
        if let Some(reason) = reason {
            metrics.closed.increment(reason);
        }
        if let Some(stream) = rest {
            let owes = state.owes_body() || reason.is_some();
            let patience = move || {
                let short =
                    *phase.borrow() == Phase::Stopped || state.is_crowded(settings.max_connections);
                if short { Patience::SHORT } else { Patience::USUAL }
            };
            // Boxed, because the future of every connection would grow.
            Box::pin(linger(stream, owes, patience)).await;
        }
    }
}

/// Returns the client's fault if its connection ended with `error`; `None` if the client merely left.
fn fault(error: &hyper::Error) -> Option<CloseReason> {
    if error.is_parse_too_large() {
        return Some(CloseReason::TooLarge);
    }
    if error.is_parse() {
        return Some(CloseReason::BadRequest);
    }
    if error.is_timeout() {
        return Some(CloseReason::Unresponsive);
    }
    let error: &h2::Error = error.source()?.downcast_ref()?;
    // A GOAWAY of the client is the client's complaint, not a fault of the client.
    match error.reason()? {
        _ if !error.is_library() => None,
        h2::Reason::NO_ERROR => None,
        h2::Reason::ENHANCE_YOUR_CALM => Some(CloseReason::Http2Flood),
        _ => Some(CloseReason::Http2Error),
    }
}

/// Whether there are more header lines than `max`. A cookie that HTTP/2 has cut into crumbs counts
/// as the one line it becomes again (RFC 9113 section 8.2.3).
fn too_many(headers: &HeaderMap, max: usize) -> bool {
    let crumbs = || headers.get_all(COOKIE).iter().count();
    headers.len() > max && headers.len() - crumbs().saturating_sub(1) > max
}

/// Whether hyper sends a response in chunks, if it may.
fn is_chunked<B: Body>(response: &Response<B>) -> bool {
    let (status, body) = (response.status(), response.body());
    let has_body = !status.is_informational()
        && status != StatusCode::NO_CONTENT
        && status != StatusCode::NOT_MODIFIED;
    body.size_hint().exact().is_none()
        && has_body
        && !body.is_end_stream()
        && !response.headers().contains_key(CONTENT_LENGTH)
}

/// Bytes of a request's head, counted unpacked: over HTTP/2 a few bytes on the wire can stand for
/// kilobytes.
fn head_bytes<B>(request: &Request<B>) -> usize {
    let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
    let line = |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len() + 32;
    target + request.headers().iter().map(line).sum::<usize>()
}

fn is_upgrade<B>(response: &Response<B>) -> bool {
    response.status() == StatusCode::SWITCHING_PROTOCOLS
}

/// Resolves when the listener is about to stop and the client has had an answer or will have one: a client
/// that is sent away without an answer would only come back.
async fn leaving(mut phase: watch::Receiver<Phase>, state: &ConnectionState) {
    // A sender that is gone counts as stopped.
    let _ = phase.wait_for(|phase| *phase >= Phase::Leaving).await;
    state.first_request().await;
}

/// End of a connection.
enum Ended<T> {
    ByItself(T),
    Overdue(CloseReason),
}

impl Ended<hyper::Result<()>> {
    /// Returns the client's fault, if there is one.
    fn reason(self) -> Option<CloseReason> {
        match self {
            Self::ByItself(Ok(())) => None,
            Self::ByItself(Err(error)) => {
                debug!(error = &error as &dyn Error, "connection ended");
                fault(&error)
            }
            Self::Overdue(reason) => Some(reason),
        }
    }
}

/// Event outside a connection that concerns it.
enum Event {
    Overdue(CloseReason),
    Leaving,
    Stopped,
}

/// Drives a connection to its end. The connection ends by itself, by its watchdog, or, when the listener has
/// stopped, after the requests it has. `most` connections may be open; `leaving` resolves when the client is
/// to be told to go elsewhere.
async fn drive<C: Future>(
    mut connection: Pin<&mut C>,
    graceful_shutdown: fn(Pin<&mut C>),
    state: &ConnectionState,
    limits: Limits,
    most: usize,
    leaving: impl Future<Output = ()>,
    mut phase: watch::Receiver<Phase>,
) -> Ended<C::Output> {
    let mut leaving = pin!(leaving.fuse());
    let mut idle = false;
    loop {
        let event = pin!(async {
            tokio::select! {
                reason = state.overdue(limits, most) => Event::Overdue(reason),
                () = &mut leaving => Event::Leaving,
                () = stopped_in(&mut phase) => Event::Stopped,
            }
        });
        let event = tokio::select! {
            served = &mut connection => {
                return if idle { Ended::Overdue(CloseReason::Idle) } else { Ended::ByItself(served) };
            }
            event = Dozing::new(event) => event,
        };
        match event {
            // The connection is between requests: HTTP/1.1 just closes, an HTTP/2 client is told. A client
            // that does not take the hint is overdue again at the next look.
            Event::Overdue(CloseReason::Idle) if !idle => {
                idle = true;
                graceful_shutdown(connection.as_mut());
            }
            Event::Overdue(reason) => return Ended::Overdue(reason),
            Event::Leaving => graceful_shutdown(connection.as_mut()),
            Event::Stopped => break,
        }
    }
    // A request may be on its way, and hyper would not look for it.
    if let Ok(served) = timeout(LAST_WORDS, &mut connection).await {
        return Ended::ByItself(served);
    }
    graceful_shutdown(connection.as_mut());
    tokio::select! {
        served = connection => Ended::ByItself(served),
        reason = state.overdue(limits, most) => Ended::Overdue(reason),
    }
}

fn http1_builder(settings: &Settings) -> http1::Builder {
    let head = settings.max_header_bytes as usize;
    let mut builder = http1::Builder::new();
    // hyper's own timers stay off: see `ConnectionState`. A client that has ended its half still gets its
    // answer: see `HalfOpen`.
    builder.half_close(true).max_header_size(head).max_buf_size(head + HTTP1_BUFFER);
    if settings.max_headers != HTTP1_FREE_HEADERS {
        builder.max_headers(settings.max_headers);
    }
    builder
}

fn http2_builder(settings: &Settings) -> http2::Builder<Requests> {
    let mut builder = http2::Builder::new(Requests { stalled: settings.limits.stalled });
    builder
        .timer(TokioTimer::new())
        .keep_alive_interval(HTTP2_PING_INTERVAL)
        // A slow reader reads what was sent before the ping first, so the answer to the ping takes
        // long.
        .keep_alive_timeout(settings.limits.stalled)
        .initial_stream_window_size(HTTP2_STREAM_WINDOW)
        .initial_connection_window_size(connection_window(settings.http2_max_streams))
        .max_concurrent_streams(settings.http2_max_streams)
        .max_pending_accept_reset_streams(settings.http2_max_pending_resets)
        .max_local_error_reset_streams(settings.http2_max_error_resets)
        .max_header_list_size(settings.max_header_bytes)
        .max_send_buf_size(HTTP2_SEND_BUFFER);
    builder
}

/// Window of an HTTP/2 connection with room for `streams` uploads that stand still, so that the
/// connection's other requests can still send.
fn connection_window(streams: u32) -> u32 {
    let all = streams.saturating_mul(HTTP2_STREAM_WINDOW);
    all.saturating_add(HTTP2_SPARE_WINDOW).min(HTTP2_MAX_WINDOW)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connection_window_holds_every_stream() {
        assert_eq!(connection_window(200), 200 * 32 * 1024 + 256 * 1024);
        assert_eq!(connection_window(1), 32 * 1024 + 256 * 1024);
        assert_eq!(connection_window(u32::MAX), 0x7fff_ffff, "the most that HTTP/2 has");
    }
}

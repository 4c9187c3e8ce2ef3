//! One client's connection, from its first byte to its last: what it speaks, how it is told to go,
//! and whose fault it was if it ended badly.

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
use http::header::{CONNECTION, COOKIE};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tracing::debug;

use super::activity::{Activity, Attended, Held};
use super::handshake::Handshakes;
use super::turn::InTurns;
use super::{Limits, Phase, Remote, Settings, preface, stopped_in};
use crate::dozing::Dozing;
use crate::memory::Thrifty;
use crate::metrics::{CloseReason, ListenerMetrics, Protocol};
use crate::tcp::{self, Gathering, Watched};

/// Read buffer of one HTTP/1.1 connection beyond the longest head. It grows only as far as a peer
/// makes it; hyper's own limit of 400 KiB is too much for 10,000 connections.
const HTTP1_BUFFER: usize = 64 * 1024;

/// Up to so many headers hyper parses without allocating.
const HTTP1_FREE_HEADERS: usize = 100;

/// Response bytes buffered per HTTP/2 stream.
const HTTP2_SEND_BUFFER: usize = 16 * 1024;

/// HTTP/2 has no other way to notice a dead peer.
const HTTP2_PING_INTERVAL: Duration = Duration::from_secs(30);
const HTTP2_PING_PATIENCE: Duration = Duration::from_secs(10);

/// How long a connection without a request is kept when the listener stops: for one that its
/// client has sent already.
const LAST_WORDS: Duration = Duration::from_millis(250);

/// One client's connection.
pub struct Connection {
    pub stream: TcpStream,
    pub peer: SocketAddr,
    pub held: Held,
    pub settings: Settings,
    /// With TLS only.
    pub handshakes: Option<Handshakes>,
    pub metrics: ListenerMetrics,
}

/// A connection that is ready for requests.
struct Established {
    remote: Remote,
    protocol: Protocol,
    activity: Arc<Activity>,
    settings: Settings,
    metrics: ListenerMetrics,
}

impl Connection {
    /// Serves it to its end.
    pub async fn serve<H, F, B>(self, handler: H, phase: watch::Receiver<Phase>)
    where
        H: Fn(&Remote, Request<Incoming>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<B>> + Send + 'static,
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let Self { stream, peer, held, settings, handshakes, metrics } = self;
        tcp::tune(&stream);
        let (limits, activity) = (settings.limits, Activity::new(held, &settings.memory));
        // Its first request may be on its way.
        let mut ending = phase.clone();
        let too_late = async {
            stopped_in(&mut ending).await;
            sleep(LAST_WORDS).await;
        };
        let established = |protocol, names, encrypted| {
            metrics.accepted.increment(protocol);
            activity.rest();
            let remote = Remote { address: peer, encrypted, names };
            let (activity, metrics) = (Arc::clone(&activity), metrics.clone());
            Established { remote, protocol, activity, settings, metrics }
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
                        let stream = Watched::new(Gathering(stream), Arc::clone(&activity) as _);
                        established(protocol, None, false).serve(stream, handler, phase).await;
                    }
                    Err(reason) => {
                        if let Some(reason) = reason {
                            metrics.closed.increment(reason);
                        }
                    }
                }
            }
            // On the heap, so that a connection without TLS does not pay for its size.
            Some(handshakes) => {
                let greeted = tokio::select! {
                    biased;
                    greeted = Box::pin(handshakes.greet(stream, &activity)) => greeted,
                    () = too_late => return,
                };
                // If not, it has been counted.
                let Ok((stream, protocol, names)) = greeted else { return };
                Box::pin(established(protocol, names, true).serve(stream, handler, phase)).await;
            }
        }
    }
}

impl Established {
    async fn serve<S, H, F, B>(self, stream: S, handler: H, phase: watch::Receiver<Phase>)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
        H: Fn(&Remote, Request<Incoming>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<B>> + Send + 'static,
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let Self { remote, protocol, activity, settings, metrics } = self;
        let http2 = protocol == Protocol::Http2;
        let mut limits = settings.limits;
        let (requests, memory) = (Arc::clone(&activity), settings.memory.clone());
        let phase_now = phase.clone();
        let (max_headers, refused) = (settings.max_headers, metrics.heads_refused.clone());
        let respond = move |request: Request<Incoming>| {
            let mut in_progress = requests.begin();
            if http2 && memory.is_wary() {
                in_progress.weigh(head_bytes(&request));
            }
            // Over HTTP/1.1 hyper has counted them.
            if http2 && too_many(request.headers(), max_headers) {
                refused.inc();
                requests.refuse_head();
                let mut refusal = Response::new(Attended::nothing(in_progress));
                *refusal.status_mut() = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
                return Either::Left(ready(Ok::<_, Infallible>(refusal)));
            }
            let responding = handler(&remote, request);
            let phase = phase_now.clone();
            // Not an async block, which would hold the handler's large future twice.
            Either::Right(responding.map(move |mut response| {
                if !http2 && *phase.borrow() >= Phase::Leaving && !is_upgrade(&response) {
                    let close = HeaderValue::from_static("close");
                    response.headers_mut().insert(CONNECTION, close);
                }
                Ok(response.map(|body| Attended::new(body, http2, in_progress)))
            }))
        };
        let served = if http2 {
            let io = TokioIo::new(InTurns(stream));
            // Frames between requests are not the beginning of one.
            limits.head = Duration::MAX;
            // Each request becomes a task, and on its way there is moved from hand to hand.
            let service = service_fn(move |request| Box::pin(respond(request)));
            let connection = http2_builder(&settings).serve_connection(io, service);
            let end = http2::Connection::graceful_shutdown;
            // HTTP/1.1 is told in its answers.
            let leaving = leaving(phase.clone(), &activity);
            drive(connection, end, &activity, limits, leaving, phase).await
        } else {
            let io = TokioIo::new(Thrifty::client(stream, settings.memory.clone()));
            let service = service_fn(respond);
            let connection = http1_builder(&settings).serve_connection(io, service);
            let end = http1::UpgradeableConnection::graceful_shutdown;
            let leaving = std::future::pending();
            drive(connection.with_upgrades(), end, &activity, limits, leaving, phase).await
        };
        if let Some(reason) = served.reason() {
            metrics.closed.increment(reason);
        }
    }
}

/// What a client did wrong for its connection to end with `error`; `None` if it merely left.
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
    // What a client complains of in its GOAWAY is not what we have against it.
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

/// Bytes of a request's head: over HTTP/2 a few bytes on the wire can stand for kilobytes.
fn head_bytes<B>(request: &Request<B>) -> usize {
    let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
    let line = |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len() + 32;
    target + request.headers().iter().map(line).sum::<usize>()
}

fn is_upgrade<B>(response: &Response<B>) -> bool {
    response.status() == StatusCode::SWITCHING_PROTOCOLS
}

/// Resolves when the listener is about to stop and the client has had an answer or will have one:
/// whoever is sent away without it would only come back.
async fn leaving(mut phase: watch::Receiver<Phase>, activity: &Activity) {
    // Its sender being gone counts as stopped.
    let _ = phase.wait_for(|phase| *phase >= Phase::Leaving).await;
    activity.first_request().await;
}

/// How a connection ended.
enum Ended<T> {
    ByItself(T),
    Overdue(CloseReason),
}

impl Ended<hyper::Result<()>> {
    /// What to hold against the client, if anything.
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

/// What happens to a connection from without.
enum Event {
    Overdue(CloseReason),
    Leaving,
    Stopped,
}

/// Drives a connection to its end: by itself, by its watchdog, or, once told to stop, as far as
/// the requests it has. `leaving` says when to tell the client to go elsewhere.
async fn drive<C: Future>(
    connection: C,
    graceful_shutdown: fn(Pin<&mut C>),
    activity: &Activity,
    limits: Limits,
    leaving: impl Future<Output = ()>,
    mut phase: watch::Receiver<Phase>,
) -> Ended<C::Output> {
    let (mut connection, mut leaving) = (pin!(connection), pin!(leaving.fuse()));
    let mut idle = false;
    loop {
        let event = pin!(async {
            tokio::select! {
                reason = activity.overdue(limits) => Event::Overdue(reason),
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
            // It is between requests: HTTP/1.1 just closes, HTTP/2 is told. Whoever does not take
            // the hint is overdue again at the next look.
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
        reason = activity.overdue(limits) => Ended::Overdue(reason),
    }
}

fn http1_builder(settings: &Settings) -> http1::Builder {
    let head = settings.max_header_bytes as usize;
    let mut builder = http1::Builder::new();
    // No timer of hyper's: see `Activity`.
    builder.max_header_size(head).max_buf_size(head + HTTP1_BUFFER);
    if settings.max_headers != HTTP1_FREE_HEADERS {
        builder.max_headers(settings.max_headers);
    }
    builder
}

fn http2_builder(settings: &Settings) -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .keep_alive_interval(HTTP2_PING_INTERVAL)
        .keep_alive_timeout(HTTP2_PING_PATIENCE)
        .max_concurrent_streams(settings.http2_max_streams)
        .max_pending_accept_reset_streams(settings.http2_max_pending_resets)
        .max_local_error_reset_streams(settings.http2_max_error_resets)
        .max_header_list_size(settings.max_header_bytes)
        .max_send_buf_size(HTTP2_SEND_BUFFER);
    builder
}

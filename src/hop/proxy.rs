//! The way to the app: sends a request to the app and brings the response back, both streaming.
//!
//! The rules of the hop are in [`headers`], connections in `pool`, one request in `send_http1` and
//! `send_http2`, copies for a second try in `resend`, the length of an answer in `framing`, bodies in
//! `request_body` and `body`, the wait for an answer in `progress`, WebSockets in `tunnel`, and in
//! `stream_clock` the limit on a request or WebSocket that stands still. hyper 1.12 is the oldest version
//! that will do: 1.11 stopped keeping a `Content-Length` beside a `Transfer-Encoding` (hyper #4124), 1.12
//! honours every `Connection` line.

mod arriving;
mod body;
mod framing;
pub mod headers;
mod login;
mod old_version;
mod pool;
mod probe;
mod progress;
mod request_body;
mod send_http1;
mod send_http2;
mod resend;
mod stream_clock;
mod tunnel;
mod unread;
mod upload;

use std::error::Error;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::header::{CONNECTION, CONTENT_LENGTH, TE, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Version};
use hyper::client::conn::TrySendError;
use tokio::sync::oneshot::error::TryRecvError;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, interval, sleep};

use self::arriving::Arriving;
use self::body::AppBody;
pub use self::body::{Body, BodyError};
pub use self::headers::{BadRequest, Client, ForwardedFor, Scheme};
use self::login::Asker;
pub use self::pool::Neighbours;
use self::pool::{Lease, Pool};
pub use self::probe::{Asked, IdleTime, Probe, ask_once, probe};
use self::progress::{Gate, Progress};
pub use self::request_body::{BodyMeter, RequestBody, RequestBodyError, TrailerFilter};
use self::stream_clock::StreamClock;
use self::tunnel::{Closing, Handshake, set_upgrade};
pub use self::tunnel::{Frames, Recall, Recaller};
use ground::alarm::Alarm;
use ground::client_connection::ClientConnection;
use ground::memory::Memory;
use ground::metrics::AppMetrics;
use ground::names::Names;
use ground::tls::{ClientSettings, ClientTls};

/// Address at which the app listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// `host:port`.
    Tcp(String),
    /// A unix socket.
    Unix(PathBuf),
}

/// Protocol that the app speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppProtocol {
    Http1,
    /// HTTP/2 with prior knowledge. WebSockets still go over HTTP/1.1.
    H2c,
    /// HTTP/2 over TLS.
    H2,
}

/// Settings of the connections to the app.
#[derive(Clone, Debug)]
pub struct Settings {
    pub address: Address,
    /// TLS with the app; `None` without TLS.
    pub tls: Option<ClientSettings>,
    pub protocol: AppProtocol,
    /// Treatment of the `X-Forwarded-For` of a peer whose word is kept.
    pub forwarded_for: ForwardedFor,
    pub connect_timeout: Duration,
    /// Longest time from the end of the request to the head of the response.
    pub response_timeout: Duration,
    /// Time for which an unused connection is kept. Must be below the app's own keep-alive.
    pub idle_timeout: Duration,
    /// Unused connections kept.
    pub max_idle: usize,
    /// Most header lines of one response over HTTP/1.1.
    pub max_headers: usize,
    /// Longest time that a request, a response or a tunnel may stand still in both directions.
    pub stream_idle_timeout: Option<Duration>,
    /// Memory that connections to the app share with connections of clients.
    pub memory: Memory,
}

/// Reason why the app gave no answer.
#[derive(Debug)]
pub enum UpstreamError {
    /// The app could not be connected to: it is down, or not where the configuration says.
    Unreachable(io::Error),
    /// The app did not begin its answer in time.
    Timeout,
    /// Nothing moved for too long while the request's body was being sent: the client did not send the body,
    /// or the app did not read it.
    Idle,
    /// The app broke off, or its answer is not HTTP.
    Broken(hyper::Error),
    /// The app broke its response off, over HTTP/2.
    BrokenStream(h2::Error),
    /// The head of the app's answer is longer than `app.max_headers` or the read buffer allow.
    HeadTooLarge(hyper::Error),
    /// The app's answer does not say clearly where its body ends.
    Framing,
    /// The app switched protocols without being asked to, or to another protocol than it was asked for.
    BadUpgrade,
    /// The client broke off while sending its request.
    ClientGone(hyper::Error),
    /// The client waits for `100 Continue` before it sends the body, and hyper can't send it over
    /// HTTP/2.
    Expectation,
}

impl fmt::Display for UpstreamError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Unreachable(_) => "no connection to the app could be opened",
            Self::Timeout => "the app did not begin to answer in time",
            Self::Idle => "the request's body stood still for too long",
            Self::Broken(_) | Self::BrokenStream(_) => {
                "the app broke off before it had answered, or its answer is not HTTP"
            }
            Self::HeadTooLarge(_) => {
                "the head of the app's answer has more lines than app.max_headers, or over 192 KiB"
            }
            Self::Framing => {
                "the app's answer has a Transfer-Encoding other than chunked, or unequal \
                 Content-Lengths"
            }
            Self::BadUpgrade => "the app answered 101 without a matching WebSocket handshake",
            Self::ClientGone(_) => "the client broke off while sending its request",
            Self::Expectation => {
                "the client waits for 100 Continue, which the sidecar does not send over HTTP/2"
            }
        })
    }
}

impl Error for UpstreamError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Unreachable(source) => Some(source),
            Self::Broken(source) | Self::HeadTooLarge(source) | Self::ClientGone(source) => {
                Some(source)
            }
            Self::BrokenStream(source) => Some(source),
            Self::Timeout | Self::Idle | Self::Framing | Self::BadUpgrade | Self::Expectation => {
                None
            }
        }
    }
}

/// The app, with the connections to it.
pub struct Upstream {
    settings: Settings,
    /// Whether the app is spoken to over HTTP/2. WebSockets go over HTTP/1.1 in any case.
    http2: bool,
    scheme: Scheme,
    /// Host for HTTP/1.0 requests that name no host.
    default_host: HeaderValue,
    pool: Arc<Pool>,
    /// Pools of all threads that serve, this thread's among them.
    neighbours: Neighbours,
    request_trailers: TrailerFilter,
    response_trailers: TrailerFilter,
    /// Tells tunnels about the end.
    closing: watch::Sender<Closing>,
    /// Alarm about peers whose `X-Forwarded-*` were replaced.
    replaced: Alarm,
    metrics: AppMetrics,
}

impl Upstream {
    /// Makes the upstream. The filters remove from trailers what other parts of the sidecar would have
    /// removed from headers. `tls` is built from `settings.tls`.
    pub fn new(
        settings: Settings,
        tls: Option<Arc<ClientTls>>,
        request_trailers: TrailerFilter,
        response_trailers: TrailerFilter,
        metrics: AppMetrics,
    ) -> Self {
        let default_host = match &settings.address {
            Address::Tcp(authority) => HeaderValue::from_str(authority).ok(),
            Address::Unix(_) => None,
        };
        let scheme = if tls.is_some() { Scheme::Https } else { Scheme::Http };
        let pool = Arc::new(Pool::new(&settings, tls, metrics.clone()));
        let neighbours = Neighbours::default();
        neighbours.add(&pool);
        Self {
            neighbours,
            default_host: default_host.unwrap_or(HeaderValue::from_static("localhost")),
            http2: settings.protocol != AppProtocol::Http1,
            scheme,
            pool,
            settings,
            request_trailers,
            response_trailers,
            closing: watch::Sender::new(Closing::NotYet),
            replaced: Alarm::new(),
            metrics,
        }
    }

    /// Adds this pool to the `neighbours`, one for each thread that serves: a request here may have an idle
    /// connection of another thread closed.
    #[must_use]
    pub fn beside(mut self, neighbours: &Neighbours) -> Self {
        neighbours.add(&self.pool);
        self.neighbours = neighbours.clone();
        self
    }

    /// Returns the scheme of connections to the app.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Returns the address at which the app listens.
    pub fn address(&self) -> &Address {
        &self.settings.address
    }

    /// Sends a validated request, taken up `now`, to the app and returns its response, body still streaming.
    /// Leaves an empty request behind.
    ///
    /// The request is passed by reference, as all the way down to the connection: each function that took it
    /// by value would have room for it twice in its future, and every request pays for the size of a future.
    ///
    /// # Errors
    ///
    /// See [`UpstreamError`]. A dropped future cancels the request at the app.
    pub async fn forward(
        &self,
        request: &mut Request<RequestBody>,
        client: &Client,
        connection: Option<&Arc<ClientConnection>>,
        now: Instant,
    ) -> Result<Response<Body>, UpstreamError> {
        let handshake = headers::is_websocket(request).then(|| Handshake::begin(request));
        let over_http2 = self.http2 && handshake.is_none();
        let from_http2 = request.version() == Version::HTTP_2;
        let names = Names::of(request.headers());
        let asker = Asker { connection, logs_in: login::is_in(request.headers(), names) };
        self.rewrite(request, names, client, handshake.is_some(), over_http2);
        if self.settings.max_idle == 0 && !over_http2 && handshake.is_none() && !asker.has_own() {
            headers::close_after(request.headers_mut());
        }

        let clock = StreamClock::start(self.settings.stream_idle_timeout);
        let sent = request.body_mut().set_out(&self.request_trailers, &clock);
        let has_body = sent.is_some();
        if !over_http2 && has_body && !request.headers().contains_key(CONTENT_LENGTH) {
            // Set again for this hop, or hyper would send a GET without its body.
            let chunked = HeaderValue::from_static("chunked");
            request.headers_mut().insert(TRANSFER_ENCODING, chunked);
        }
        if !over_http2 && !has_body && from_http2 {
            headers::say_empty(request);
        }
        let gate = if has_body { Gate::before(request, from_http2) } else { None };
        let progress = Progress { begun: now, gate, sent, clock };
        self.exchange(request, over_http2, handshake, progress, asker).await
    }

    /// Sends the app a request of the sidecar's own, without a body, on behalf of a client's request
    /// with the headers `of_client`. A login that the client has on its connection holds for this request
    /// too. A front's word on the client, the scheme and the host is copied if it is kept: without it, an
    /// app that insists on https would answer with a redirect.
    ///
    /// # Errors
    ///
    /// See [`UpstreamError`].
    pub async fn ask(
        &self,
        request: Request<()>,
        of_client: &HeaderMap,
        client: &Client,
        connection: Option<&Arc<ClientConnection>>,
    ) -> Result<Response<Body>, UpstreamError> {
        let over_http2 = self.http2;
        let mut request = request.map(|()| RequestBody::default());
        if client.trusted {
            // Includes the addresses by which `login` tells the clients of one front apart.
            headers::copy_said(of_client, request.headers_mut());
        }
        let names = Names::of(request.headers());
        self.rewrite(&mut request, names, client, false, over_http2);
        let asker = Asker { connection, logs_in: false };
        let clock = StreamClock::start(self.settings.stream_idle_timeout);
        let progress = Progress { begun: Instant::now(), gate: None, sent: None, clock };
        self.exchange(&mut request, over_http2, None, progress, asker).await
    }

    async fn exchange(
        &self,
        request: &mut Request<RequestBody>,
        over_http2: bool,
        handshake: Option<Handshake>,
        mut progress: Progress,
        asker: Asker<'_>,
    ) -> Result<Response<Body>, UpstreamError> {
        let patience = self.settings.response_timeout;
        let (response, lease) = if over_http2 {
            // Boxed, so that requests over HTTP/1.1 do not pay for the size of this future.
            let wanted = progress.gate.as_ref().map(Gate::asked);
            let sending = Box::pin(self.send_http2(request, wanted));
            let mut timer = Box::pin(sleep(Duration::ZERO));
            (progress.bound(pin!(sending), timer.as_mut(), patience).await??, None)
        } else {
            let (response, lease) = self.send_http1(request, &mut progress, asker).await?;
            (response.map(|body| Arriving::Http1 { body, demand: lease.demand() }), Some(lease))
        };
        self.receive(response, lease, handshake, progress)
    }

    /// Closes idle connections in time. Runs for as long as the sidecar does.
    pub async fn reap_idle(&self) {
        let mut ticks = interval(self.settings.idle_timeout.max(Duration::from_secs(1)));
        loop {
            ticks.tick().await;
            self.pool.reap();
        }
    }

    /// Tells the client of every tunnel, now or later, that the sidecar is going away (RFC 6455 section
    /// 7.4.1).
    pub fn close_tunnels(&self) {
        self.closing.send_replace(Closing::Told);
    }

    /// Ends every tunnel that is left.
    pub fn cut_tunnels(&self) {
        self.closing.send_replace(Closing::Cut);
    }

    /// Waits until no tunnel is open.
    pub async fn tunnels_ended(&self) {
        self.closing.closed().await;
    }

    fn rewrite<B>(
        &self,
        request: &mut Request<B>,
        names: Names,
        client: &Client,
        upgrade: bool,
        over_http2: bool,
    ) {
        headers::ensure_host(request, &self.default_host);
        let takes_trailers = names.may_have(&TE) && headers::takes_trailers(request.headers());
        headers::strip_hop_by_hop_among(names, request.headers_mut());
        if names.may_have(&CONTENT_LENGTH) {
            headers::keep_one_length(request.headers_mut());
        }
        let forwarded_for = self.settings.forwarded_for;
        let replaced = headers::set_forwarded(request.headers_mut(), client, forwarded_for);
        if replaced.count > 0 {
            self.metrics.forwarding_replaced.inc();
            replaced.tell(&self.replaced, client.address);
        }
        if takes_trailers {
            request.headers_mut().insert(TE, HeaderValue::from_static("trailers"));
        }
        if over_http2 {
            headers::to_http2(request, &self.default_host, self.scheme);
        } else {
            headers::to_http1(request);
            if takes_trailers {
                // RFC 9110 section 10.1.4: TE is itself hop-by-hop.
                request.headers_mut().insert(CONNECTION, HeaderValue::from_static("TE"));
            }
        }
        if upgrade {
            set_upgrade(request.headers_mut());
        }
    }

    /// Returns the request that the retry rule may send again: the request itself, if it never left, or else
    /// its `copy`.
    fn again(
        &self,
        mut error: TrySendError<Request<RequestBody>>,
        copy: impl FnOnce() -> Option<Request<RequestBody>>,
        reused: bool,
    ) -> Result<Request<RequestBody>, UpstreamError> {
        let unsent = error.take_message();
        let error = classify(error);
        if !reused || !has_died(&error) {
            return Err(error);
        }
        let again = unsent.or_else(copy).ok_or(error)?;
        self.metrics.retries.inc();
        Ok(again)
    }

    fn receive(
        &self,
        mut response: Response<Arriving>,
        mut lease: Option<Lease>,
        handshake: Option<Handshake>,
        progress: Progress,
    ) -> Result<Response<Body>, UpstreamError> {
        let Progress { gate, clock, mut sent, .. } = progress;
        // Most often the request has come to its end before the app answers.
        let is_over =
            |sent: &mut oneshot::Receiver<()>| sent.try_recv() != Err(TryRecvError::Empty);
        let sending = sent.take_if(|sent| !is_over(sent));
        let switching = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        if switching {
            if let Some(lease) = &lease {
                lease.switch();
            }
            let handshake = handshake.filter(|handshake| handshake.is_answered_by(&response));
            let handshake = handshake.ok_or(UpstreamError::BadUpgrade)?;
            let app = hyper::upgrade::on(&mut response);
            handshake.join(app, &self.metrics, self.closing.subscribe(), clock.clone());
        }
        *response.version_mut() = Version::HTTP_11;
        let names = Names::of(response.headers());
        if let Some(lease) = &mut lease
            && (login::is_in_answer(response.headers(), names)
                || lease.ends_with(response.headers())
                || framing::may_be_followed(response.status(), response.headers(), names))
        {
            lease.belong_to_none();
        }
        framing::settle(&mut response, names)?;
        headers::strip_hop_by_hop_among(names, response.headers_mut());
        if switching {
            set_upgrade(response.headers_mut());
        }
        let trailers = Arc::clone(&self.response_trailers);
        let keeper = gate.map(|gate| gate.keeper);
        Ok(response.map(|incoming| {
            Body::app(AppBody::new(incoming, lease, trailers, keeper, clock, sending))
        }))
    }
}

/// Takes the request out of the reference, for hyper, which wants the whole request.
fn taken(request: &mut Request<RequestBody>) -> Request<RequestBody> {
    std::mem::replace(request, Request::new(RequestBody::default()))
}

/// Whether there is no response because the connection died, and not because of the app's answer.
fn has_died(error: &UpstreamError) -> bool {
    matches!(error, UpstreamError::Broken(error) if !error.is_parse())
}

/// Decides whose fault it is that there is no response.
fn classify<B>(error: TrySendError<B>) -> UpstreamError {
    let error = error.into_error();
    let by_client = error
        .source()
        .and_then(|source| source.downcast_ref::<RequestBodyError>())
        .is_some_and(|error| matches!(error, RequestBodyError::Client(_)));
    if by_client {
        UpstreamError::ClientGone(error)
    } else if error.is_parse_too_large() {
        UpstreamError::HeadTooLarge(error)
    } else {
        UpstreamError::Broken(error)
    }
}

//! Every metric that the sidecar exports, on one page: name, help, labels, buckets.
//!
//! This page is the contract that `docs/metrics.md` documents and a test holds equal to a scrape.
//! Label sets are closed enums, so no user id, path or message can become a label, and every
//! series exists from the first scrape on. Parts hold the handles they need, resolved once at
//! start: counting on the request path is an atomic add, never a look-up by string.

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use prometheus::core::{Atomic, GenericGauge};
use prometheus::{
    Encoder as _, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
    TextEncoder,
};

const PREFIX: &str = "velt_sidecar";

/// Whole requests: an app answers in 1 ms to 10 s, and event streams are counted to their head.
const REQUEST_SECONDS: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// The sidecar's own share of a request: tens of microseconds on a hit, up to `max_wait` on a miss.
const ADDED_SECONDS: &[f64] = &[
    0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.005, 0.025, 0.1, 0.25, 0.5,
    1.0, 5.0,
];

/// A mint is an HTTPS call to a cloud function: tens of milliseconds, seconds when it starts cold.
const MINT_SECONDS: &[f64] = &[0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// A closed set of label values.
pub trait Label: Copy + 'static {
    /// The label's name.
    const NAME: &'static str;
    /// Every value, in the order of the enum's discriminants.
    const ALL: &'static [Self];
    /// The value as exported.
    fn as_str(self) -> &'static str;
    /// The position of this value in [`Label::ALL`].
    fn index(self) -> usize;
}

/// Declares a label enum: its Rust names beside its exported words.
macro_rules! label {
    ($(#[$meta:meta])* $name:ident, $label:literal, { $($(#[$variant_meta:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$variant_meta])* $variant),+ }

        impl Label for $name {
            const NAME: &'static str = $label;
            const ALL: &'static [Self] = &[$(Self::$variant),+];
            fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
            fn index(self) -> usize {
                self as usize
            }
        }
    };
}

label!(
    /// How a request ended, as counted and (later) logged. One word per way to end.
    Outcome, "outcome", {
    /// The app answered and its answer went out.
    Forwarded = "forwarded",
    /// The app accepted a WebSocket; a tunnel carries it now.
    Upgraded = "upgraded",
    /// A token route answered with a token.
    TokenServed = "token_served",
    /// The client left before there was a response head.
    ClientGone = "client_gone",
    /// A malformed or refused message: see `docs/proxying.md`.
    BadRequest = "bad_request",
    /// The identity headers were ambiguous.
    IdentityRefused = "identity_refused",
    /// A token route was asked by nobody in particular.
    NoIdentity = "no_identity",
    /// An assertion that is not valid, where the settings say to refuse it.
    InvalidAssertion = "invalid_assertion",
    /// A token was needed and the caller's assertion could not be checked: there are no keys.
    IdentityUnverified = "identity_unverified",
    /// The organization that Velt's API needs was not in the request.
    NoOrganization = "no_organization",
    /// A token route was asked in the name of somebody else.
    UserMismatch = "user_mismatch",
    /// A token route was asked by a page of another origin.
    CrossOrigin = "cross_origin",
    /// A token route was asked with a method that it does not have.
    MethodNotAllowed = "method_not_allowed",
    /// A token route was sent more than it reads.
    BodyTooLarge = "body_too_large",
    /// Nothing moved for `app.stream_idle_timeout` while a request's body was being sent.
    StreamIdle = "stream_idle",
    /// A token was needed and Velt refused it.
    TokenRefused = "token_refused",
    /// A token was needed and Velt's rate limit stood in the way.
    TokenRateLimited = "token_rate_limited",
    /// A token was needed and Velt could not be reached, or calls are suspended.
    TokenUnavailable = "token_unavailable",
    /// A token was needed and Velt took too long.
    TokenTimeout = "token_timeout",
    /// A token was needed and Velt's answer held none that can be used.
    TokenMalformed = "token_malformed",
    /// The app could not be connected to.
    AppUnreachable = "app_unreachable",
    /// The app took longer than `app.response_timeout` to begin its answer.
    AppTimeout = "app_timeout",
    /// The app broke the connection off or answered with something that is not HTTP.
    AppBroken = "app_broken",
    /// A bug of ours: the request's code panicked.
    Panicked = "panicked",
});

label!(
    /// What a token look-up found.
    LookupResult, "result", {
    Fresh = "fresh",
    /// Served, and refreshed in the background.
    Due = "due",
    /// Nothing valid was held; this look-up started a mint.
    Started = "started",
    /// Nothing valid was held; this look-up joined the mint in flight.
    Joined = "joined",
    /// The last mint failed a moment ago; its error was answered from memory.
    FailedRecently = "failed_recently",
});

label!(
    /// How a mint (all of its attempts together) ended.
    MintOutcome, "outcome", {
    Minted = "minted",
    Refused = "refused",
    RateLimited = "rate_limited",
    Unavailable = "unavailable",
    Timeout = "timeout",
    Malformed = "malformed",
    /// Velt's token named another user and was dropped. An alarm.
    Mismatch = "mismatch",
    /// No call was made: the breaker is open.
    Suspended = "suspended",
    /// A bug of ours: the mint's task panicked.
    Panicked = "panicked",
});

label!(
    /// Why an identity was refused.
    RefusalKind, "kind", {
    Repeated = "repeated",
    List = "list",
    Alias = "alias",
    ConnectionNominated = "connection_nominated",
    Trailer = "trailer",
    Empty = "empty",
    TooLong = "too_long",
    BadBytes = "bad_bytes",
});

impl RefusalKind {
    /// In words, for the answer to the request.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Repeated => "it is there more than once",
            Self::List => "it holds a comma, so it may be several values joined",
            Self::Alias => "another header differs from it only in - and _",
            Self::ConnectionNominated => "the Connection header names it",
            Self::Trailer => "it is announced as a trailer",
            Self::Empty => "it is empty",
            Self::TooLong => "it is over 256 bytes",
            Self::BadBytes => {
                "it holds control characters, outer spaces or bytes that are not UTF-8"
            }
        }
    }
}

label!(
    /// What a client tried that only the front proxy may do.
    SpoofKind, "kind", {
    /// An identity header from a peer that is not trusted, or that no assertion backs.
    IdentityHeader = "identity_header",
    /// An underscore alias of an identity header from such a peer.
    Alias = "alias",
    /// A token header on a request, in whatever spelling.
    TokenHeader = "token_header",
    /// The shared secret's header with something else in it, or an alias of that header.
    Secret = "secret",
    /// An identity or token header among the trailers of a request.
    Trailer = "trailer",
});

label!(
    /// What came of an assertion.
    AssertionResult, "result", {
    /// Its signature and claims were checked.
    Verified = "verified",
    /// It was checked a moment ago.
    Cached = "cached",
    /// Valid, but it names no user, as those of machines do.
    NoUser = "no_user",
    Malformed = "malformed",
    Algorithm = "algorithm",
    UnknownKey = "unknown_key",
    Signature = "signature",
    Signer = "signer",
    Issuer = "issuer",
    Audience = "audience",
    Expired = "expired",
    NotYetValid = "not_yet_valid",
    /// A claim that is needed is missing, or holds what no user id and the like may hold.
    Claims = "claims",
    /// There were no keys to check it with.
    KeysUnavailable = "keys_unavailable",
});

label!(
    /// How an attempt to fetch the keys of assertions ended.
    KeyFetchResult, "result", {
    Fetched = "fetched",
    /// There is no such key. Only where each key has a URL of its own.
    NotFound = "not_found",
    Unreachable = "unreachable",
    Timeout = "timeout",
    Status = "status",
    Redirect = "redirect",
    TooLarge = "too_large",
    Malformed = "malformed",
});

label!(
    /// What the response header did on a response of the app.
    HeaderDelivery, "result", {
    Injected = "injected",
    Anonymous = "anonymous",
    /// The caller's assertion could not be checked: there are no keys.
    Unverified = "unverified",
    /// The mint had not ended within `max_wait`.
    Pending = "pending",
    /// The mint failed; the response went out without.
    Failed = "failed",
    /// The app marked the response storable; a token must not be stored with it.
    Storable = "storable",
    /// Not a response that a script can read, or not one that may carry a token.
    NotEligible = "not_eligible",
});

label!(
    /// Protocol of a client's connection.
    Protocol, "protocol", {
    Http1 = "http1",
    Http2 = "http2",
});

label!(
    /// Why the sidecar closed a client's connection of its own accord.
    CloseReason, "reason", {
    /// No request for `listen.idle_timeout`.
    Idle = "idle",
    /// A request's head took longer than `listen.header_timeout`.
    SlowHead = "slow_head",
    /// The client read nothing of its response for `listen.write_timeout`.
    Stalled = "stalled",
    /// What it sent is not HTTP/1.1 that can be read one way only; answered 400.
    BadRequest = "bad_request",
    /// A head, target or number of headers over the limits; answered 431 or 414. HTTP/1.1.
    TooLarge = "too_large",
    /// It broke the rules of HTTP/2 (GOAWAY with another error than the next).
    Http2Error = "http2_error",
    /// It overdid what HTTP/2 allows: resets, CONTINUATION or small frames, header lists
    /// (GOAWAY with `ENHANCE_YOUR_CALM`).
    Http2Flood = "http2_flood",
    /// It did not answer a ping. HTTP/2.
    Unresponsive = "unresponsive",
});

label!(
    /// How an attempt to connect to the app ended.
    ConnectResult, "result", {
    Connected = "connected",
    Failed = "failed",
    Timeout = "timeout",
});

label!(
    /// Who ended a response before its end.
    AbortedBy, "by", {
    Client = "client",
    App = "app",
    /// We did: nothing had moved for `app.stream_idle_timeout`.
    Idle = "idle",
});

label!(
    /// How a WebSocket tunnel ended.
    TunnelEnd, "end", {
    /// Both sides had closed their half.
    Closed = "closed",
    /// One side broke off.
    Broken = "broken",
    /// Nothing had moved for `app.stream_idle_timeout`.
    Idle = "idle",
    /// At the sidecar's end: the client was told, and both sides closed.
    Told = "told",
    /// At the sidecar's end: still open at `shutdown.deadline`.
    Cut = "cut",
});

/// One counter per value of a label.
#[derive(Clone)]
pub struct Counters<L> {
    counters: Arc<[IntCounter]>,
    label: PhantomData<L>,
}

impl<L: Label> Counters<L> {
    /// Counts one.
    pub fn increment(&self, value: L) {
        self.counters[value.index()].inc();
    }

    /// How many there are so far.
    pub fn get(&self, value: L) -> u64 {
        self.counters[value.index()].get()
    }

    /// Counts `amount` at once.
    pub fn add(&self, value: L, amount: u64) {
        self.counters[value.index()].inc_by(amount);
    }
}

/// A gauge that is one higher for as long as this lives.
pub struct GaugeGuard(IntGauge);

impl GaugeGuard {
    /// Raises `gauge` until the guard is dropped.
    pub fn raise(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for GaugeGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// What the request path counts.
#[derive(Clone)]
pub struct RequestMetrics {
    pub requests: Counters<Outcome>,
    pub duration: Histogram,
    pub added: Histogram,
    pub in_flight: IntGauge,
    pub aborted: Counters<AbortedBy>,
    pub header_deliveries: Counters<HeaderDelivery>,
}

/// What is counted about who is asking.
#[derive(Clone)]
pub struct IdentityMetrics {
    pub refusals: Counters<RefusalKind>,
    pub spoofs: Counters<SpoofKind>,
    pub assertions: Counters<AssertionResult>,
    pub key_fetches: Counters<KeyFetchResult>,
    pub keys: IntGauge,
    pub keys_age: prometheus::Gauge,
}

/// What the token cache and the mints behind it count.
#[derive(Clone)]
pub struct TokenMetrics {
    pub lookups: Counters<LookupResult>,
    pub mints: Counters<MintOutcome>,
    pub mint_duration: Histogram,
    pub mint_attempts: IntCounter,
    pub mints_in_flight: IntGauge,
    pub cached: IntGauge,
    pub cached_bytes: IntGauge,
    pub evictions: IntCounter,
    pub headroom: prometheus::Gauge,
    pub breaker_open: IntGauge,
}

/// What the proxy counts about the app.
#[derive(Clone)]
pub struct AppMetrics {
    pub connects: Counters<ConnectResult>,
    pub connections: IntGauge,
    pub retries: IntCounter,
    pub tunnels: IntGauge,
    pub tunnel_ends: Counters<TunnelEnd>,
}

/// What the listener counts about clients.
#[derive(Clone)]
pub struct ListenerMetrics {
    pub connections: IntGauge,
    pub accepted: Counters<Protocol>,
    pub closed: Counters<CloseReason>,
    pub heads_refused: IntCounter,
    pub accept_errors: IntCounter,
    pub refused: IntCounter,
}

impl ListenerMetrics {
    fn on(page: &Page) -> Self {
        Self {
            connections: page.gauge("connections_open", "Open connections of clients."),
            accepted: page
                .counters("connections_total", "Connections of clients by protocol spoken."),
            closed: page.counters(
                "connections_closed_total",
                "Connections closed because of what a client did or left undone, by kind.",
            ),
            heads_refused: page.counter(
                "http2_heads_refused_total",
                "Requests over HTTP/2 answered 431 because they had more than listen.max_headers.",
            ),
            accept_errors: page.counter(
                "accept_errors_total",
                "Errors of accept(2), such as running out of file descriptors.",
            ),
            refused: page.counter(
                "connections_refused_total",
                "Connections closed at once because listen.max_connections was reached.",
            ),
        }
    }

    /// Counts that nobody reads, for a listener that is not the product's own.
    pub fn detached() -> Self {
        Self::on(&Page { registry: Registry::new() })
    }
}

/// Everything, and the registry that a scrape reads.
pub struct Metrics {
    registry: Registry,
    pub requests: RequestMetrics,
    pub identity: IdentityMetrics,
    pub tokens: TokenMetrics,
    pub app: AppMetrics,
    pub listener: ListenerMetrics,
    pub ready: IntGauge,
}

impl Metrics {
    /// Registers every metric. Each call makes a registry of its own, so that several sidecars
    /// can live in one process, as they do in the tests.
    ///
    /// # Panics
    ///
    /// If two metrics on this page share a name, which the first test that runs would show.
    pub fn new() -> Self {
        let page = Page { registry: Registry::new() };
        let requests = RequestMetrics {
            requests: page.counters("requests_total", "Requests by how they ended."),
            duration: page.histogram(
                "request_duration_seconds",
                "Time from a request's head to its response's head, the app's time included.",
                REQUEST_SECONDS,
            ),
            added: page.histogram(
                "added_seconds",
                "The sidecar's own share of that time: all but the wait for the app.",
                ADDED_SECONDS,
            ),
            in_flight: page.gauge(
                "requests_in_flight",
                "Requests whose response has not yet been sent to its end.",
            ),
            aborted: page.counters(
                "responses_aborted_total",
                "Responses cut off after their head, by who ended them.",
            ),
            header_deliveries: page.counters(
                "header_deliveries_total",
                "Responses on paths with header delivery, by what happened to the token.",
            ),
        };
        let identity = IdentityMetrics {
            refusals: page.counters(
                "identity_refusals_total",
                "Requests whose identity was ambiguous, by kind.",
            ),
            spoofs: page.counters(
                "spoof_attempts_total",
                "Headers stripped because only the front proxy may set them, by kind.",
            ),
            assertions: page
                .counters("identity_assertions_total", "Assertions by what came of them."),
            key_fetches: page.counters(
                "identity_key_fetches_total",
                "Attempts to fetch the keys of assertions, by how they ended.",
            ),
            keys: page.gauge("identity_keys", "Keys held that assertions are checked with."),
            keys_age: page.float_gauge(
                "identity_keys_age_seconds",
                "Time since the oldest of these keys was fetched. NaN without any.",
            ),
        };
        identity.keys_age.set(f64::NAN);
        let tokens = TokenMetrics {
            lookups: page.counters("token_lookups_total", "Token look-ups by what was found."),
            mints: page.counters("mints_total", "Mints by how they ended, retries included."),
            mint_duration: page.histogram(
                "mint_duration_seconds",
                "Time of a mint from its start to its end, retries included.",
                MINT_SECONDS,
            ),
            mint_attempts: page.counter("mint_attempts_total", "Calls made to Velt."),
            mints_in_flight: page.gauge("mints_in_flight", "Mints under way."),
            cached: page.gauge("tokens_cached", "Users with a valid token in the cache."),
            cached_bytes: page
                .gauge("token_cache_bytes", "Estimated size of the token cache in bytes."),
            evictions: page.counter(
                "token_evictions_total",
                "Entries that left the token cache to keep it within its bounds.",
            ),
            headroom: page.float_gauge(
                "outage_headroom_seconds",
                "Least remaining life among the tokens served in the last hour: \
                 how long until the first active user feels it if Velt stops now. NaN without any.",
            ),
            breaker_open: page.gauge(
                "breaker_open",
                "1 while calls to Velt are suspended after repeated failures, else 0.",
            ),
        };
        tokens.headroom.set(f64::NAN);
        let app = AppMetrics {
            connects: page.counters("app_connects_total", "Connections opened to the app."),
            connections: page.gauge("app_connections", "Open connections to the app."),
            retries: page.counter(
                "app_retries_total",
                "Requests sent again because a kept-alive connection had died.",
            ),
            tunnels: page.gauge("tunnels_open", "Open WebSocket tunnels."),
            tunnel_ends: page
                .counters("tunnels_closed_total", "WebSocket tunnels by how they ended."),
        };
        let listener = ListenerMetrics::on(&page);
        let ready =
            page.gauge("ready", "1 while the sidecar is ready, 0 before and from SIGTERM on.");
        page.build_info();
        page.process();
        Self { registry: page.registry, requests, identity, tokens, app, listener, ready }
    }

    /// The text exposition format, version 0.0.4.
    ///
    /// # Errors
    ///
    /// Only if a collector hands out a metric family that cannot be written.
    pub fn encode(&self) -> prometheus::Result<Vec<u8>> {
        let mut text = Vec::with_capacity(16 * 1024);
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// Records the time since `start` in seconds.
pub fn observe(histogram: &Histogram, elapsed: Duration) {
    histogram.observe(elapsed.as_secs_f64());
}

/// The page while it is being written.
struct Page {
    registry: Registry,
}

impl Page {
    fn counters<L: Label>(&self, name: &str, help: &str) -> Counters<L> {
        let family = IntCounterVec::new(options(name, help), &[L::NAME]).expect("valid metric");
        self.register(&family);
        let counters = L::ALL.iter().map(|value| family.with_label_values(&[value.as_str()]));
        Counters { counters: counters.collect(), label: PhantomData }
    }

    fn counter(&self, name: &str, help: &str) -> IntCounter {
        let counter = IntCounter::with_opts(options(name, help)).expect("valid metric");
        self.register(&counter);
        counter
    }

    fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.generic_gauge(name, help)
    }

    fn float_gauge(&self, name: &str, help: &str) -> prometheus::Gauge {
        self.generic_gauge(name, help)
    }

    fn generic_gauge<P: Atomic + 'static>(&self, name: &str, help: &str) -> GenericGauge<P> {
        let gauge = GenericGauge::with_opts(options(name, help)).expect("valid metric");
        self.register(&gauge);
        gauge
    }

    fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Histogram {
        let histogram = Histogram::with_opts(
            HistogramOpts::from(options(name, help)).buckets(buckets.to_vec()),
        )
        .expect("valid metric");
        self.register(&histogram);
        histogram
    }

    fn build_info(&self) {
        let info = prometheus::IntGaugeVec::new(
            options("build_info", "Always 1; the label says which version runs."),
            &["version"],
        )
        .expect("valid metric");
        info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        self.register(&info);
    }

    /// The process's own figures under their conventional, unprefixed names.
    fn process(&self) {
        let process = prometheus::process_collector::ProcessCollector::for_self();
        self.registry.register(Box::new(process)).expect("registered once");
    }

    fn register<C: prometheus::core::Collector + Clone + 'static>(&self, collector: &C) {
        self.registry.register(Box::new(collector.clone())).expect("each name stands once");
    }
}

fn options(name: &str, help: &str) -> Opts {
    Opts::new(name, help).namespace(PREFIX)
}

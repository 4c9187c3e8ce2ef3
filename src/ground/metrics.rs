//! All metrics that the sidecar exports, on one page: name, help, buckets. The words of the labels are in
//! `labels`.
//!
//! `docs/metrics.md` documents this page, and `tests/it/metrics.rs` compares that document with a scrape.
//! Label sets are closed enums, so no user id, path or message can become a label, and every series exists
//! from the first scrape on. Parts hold the handles they need, resolved once at start: counting on the
//! request path is an atomic add, never a look-up by string.

mod trial;
mod labels;
mod recent;
mod reload;
mod shared;
mod store;

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus::core::{Atomic, GenericGauge};
use prometheus::{
    Encoder as _, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
    TextEncoder,
};

use crate::platform::export_process;

pub use self::labels::*;
pub use self::recent::{REMEMBERED, Recent, Refused};
pub use self::reload::ReloadMetrics;
pub use self::shared::SharedMetrics;
pub use self::store::StoreMetrics;
pub use self::trial::TrialMetrics;

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

/// One counter per value of a label.
#[derive(Clone)]
pub struct Counters<L> {
    counters: Arc<[IntCounter]>,
    label: PhantomData<L>,
}

impl<L: Label> Counters<L> {
    /// Counts one of `value`.
    pub fn increment(&self, value: L) {
        self.counters[value.index()].inc();
    }

    /// Returns the count of `value` so far.
    pub fn get(&self, value: L) -> u64 {
        self.counters[value.index()].get()
    }

    /// Counts `amount` at once, which may be 0.
    pub fn add(&self, value: L, amount: u64) {
        // An atomic addition of 0 costs as much as any.
        if amount > 0 {
            self.counters[value.index()].inc_by(amount);
        }
    }
}

/// One gauge per value of a label.
#[derive(Clone)]
pub struct Gauges<L> {
    gauges: Arc<[prometheus::Gauge]>,
    label: PhantomData<L>,
}

impl<L: Label> Gauges<L> {
    /// Sets the gauge of `value`.
    pub fn set(&self, value: L, to: f64) {
        self.gauges[value.index()].set(to);
    }

    /// Sets the gauge of `value` to a time, as seconds since 1970.
    pub fn set_time(&self, value: L, to: SystemTime) {
        self.set(value, to.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64());
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

/// Metrics of the request path.
#[derive(Clone)]
pub struct RequestMetrics {
    pub requests: Counters<Outcome>,
    pub duration: Histogram,
    pub added: Histogram,
    pub in_flight: IntGauge,
    pub aborted: Counters<AbortedBy>,
    pub header_deliveries: Counters<HeaderDelivery>,
    pub app_header_deliveries: Counters<HeaderDelivery>,
    pub document_deliveries: Counters<HeaderDelivery>,
    pub check_deliveries: Counters<HeaderDelivery>,
}

/// Metrics of the callers' identity.
#[derive(Clone)]
pub struct IdentityMetrics {
    pub refusals: Counters<RefusalKind>,
    pub attributes_dropped: Counters<Flaw>,
    pub spoofs: Counters<SpoofKind>,
    pub assertions: Counters<AssertionResult>,
    pub key_fetches: Counters<KeyFetchResult>,
    pub answers: Counters<AppAnswerResult>,
    pub keys: IntGauge,
    pub keys_age: prometheus::Gauge,
    /// The last refusals one by one, for the admin port.
    pub recent: Arc<Recent>,
}

/// Metrics of the token cache and the mints behind it.
#[derive(Clone)]
pub struct TokenMetrics {
    pub lookups: Counters<LookupResult>,
    pub mints: Counters<MintOutcome>,
    pub refused_tokens: Counters<RefusedTokenResult>,
    pub mint_duration: Histogram,
    pub mint_attempts: IntCounter,
    pub mints_in_flight: IntGauge,
    pub cached: IntGauge,
    pub superseded: IntGauge,
    pub cached_bytes: IntGauge,
    pub evictions: IntCounter,
    pub headroom: prometheus::Gauge,
    pub breaker_open: IntGauge,
    pub refusals_suspended: IntGauge,
    pub rate_limit_paused: IntGauge,
    pub call_limit: IntGauge,
    pub mints_queued: IntGauge,
    /// Shared with [`IdentityMetrics`].
    pub recent: Arc<Recent>,
}

/// Metrics of logouts.
#[derive(Clone)]
pub struct LogoutMetrics {
    pub calls: Counters<LogoutResult>,
    pub logouts: Counters<LogoutSource>,
    pub remembered: IntGauge,
    pub dropped: IntCounter,
}

impl LogoutMetrics {
    fn on(page: &Page) -> Self {
        Self {
            calls: page
                .counters("logout_calls_total", "Calls of the logout paths by how they ended."),
            logouts: page
                .counters("logouts_total", "Logouts of a user by where they were heard from."),
            remembered: page.gauge("logouts_remembered", "Users whose last logout is remembered."),
            dropped: page.counter(
                "logouts_dropped_total",
                "Logouts forgotten to make room for later ones: their users get tokens again.",
            ),
        }
    }
}

impl IdentityMetrics {
    fn on(page: &Page, recent: Arc<Recent>) -> Self {
        let metrics = Self {
            recent,
            refusals: page.counters(
                "identity_refusals_total",
                "Requests whose identity was ambiguous, or a placeholder, by kind.",
            ),
            attributes_dropped: page.counters(
                "identity_attributes_dropped_total",
                "Emails, names, organizations, groups and grants that can't be used, by reason.",
            ),
            spoofs: page.counters(
                "spoof_attempts_total",
                "Headers stripped because only the login proxy may set them, by kind.",
            ),
            assertions: page
                .counters("identity_assertions_total", "Assertions by the result of their check."),
            key_fetches: page.counters(
                "identity_key_fetches_total",
                "Attempts to fetch the keys of assertions, by how they ended.",
            ),
            answers: page.counters(
                "app_answers_total",
                "Questions to the app about a user, answered in JSON, by how they ended.",
            ),
            keys: page.gauge("identity_keys", "Keys with which assertions are checked."),
            keys_age: page.float_gauge(
                "identity_keys_age_seconds",
                "Time since the oldest of the keys for assertions was fetched. NaN without keys.",
            ),
        };
        metrics.keys_age.set(f64::NAN);
        metrics
    }
}

impl TokenMetrics {
    fn on(page: &Page, recent: Arc<Recent>) -> Self {
        let metrics = Self {
            recent,
            lookups: page.counters(
                "token_lookups_total",
                "Token look-ups by the state in which they found the token.",
            ),
            refused_tokens: page.counters(
                "refused_tokens_total",
                "Reports of pages that Velt refused a token, by what the sidecar did.",
            ),
            mints: page.counters("mints_total", "Mints by how they ended, retries included."),
            mint_duration: page.histogram(
                "mint_duration_seconds",
                "Time of a mint from its start to its end, retries included.",
                MINT_SECONDS,
            ),
            mint_attempts: page.counter("mint_attempts_total", "Calls made to Velt."),
            mints_in_flight: page.gauge("mints_in_flight", "Mints under way."),
            cached: page.gauge("tokens_cached", "Users with a valid token in the cache."),
            superseded: page.gauge(
                "tokens_of_old_credentials",
                "Users whose cached token was minted before the credentials were changed.",
            ),
            cached_bytes: page
                .gauge("token_cache_bytes", "Estimated size of the token cache in bytes."),
            evictions: page.counter(
                "token_evictions_total",
                "Entries that left the token cache to keep it within its bounds.",
            ),
            headroom: page.float_gauge(
                "outage_headroom_seconds",
                "Least remaining life among the tokens served in the last hour, to within five \
                 minutes: the time until the first active user has no token if Velt stops now. NaN \
                 if no token was served.",
            ),
            breaker_open: page.gauge(
                "breaker_open",
                "1 while calls to Velt are suspended after repeated failures, else 0.",
            ),
            refusals_suspended: page.gauge(
                "refusals_suspended",
                "Organizations whose calls are suspended since Velt refused their last tokens.",
            ),
            rate_limit_paused: page.gauge(
                "rate_limit_paused",
                "1 while all calls to Velt pause for its rate limit, else 0.",
            ),
            call_limit: page.gauge(
                "velt_call_limit",
                "Calls to Velt that may run at once; follows Velt's answers.",
            ),
            mints_queued: page
                .gauge("mints_queued", "Mints under way that wait for a turn to call Velt."),
        };
        metrics.headroom.set(f64::NAN);
        metrics
    }
}

/// Metrics of the proxy about the app.
#[derive(Clone)]
pub struct AppMetrics {
    pub connects: Counters<ConnectResult>,
    pub connections: IntGauge,
    pub retries: IntCounter,
    pub forwarding_replaced: IntCounter,
    pub tunnels: IntGauge,
    pub tunnel_ends: Counters<TunnelEnd>,
}

impl AppMetrics {
    fn on(page: &Page) -> Self {
        Self {
            connects: page.counters("app_connects_total", "Connections opened to the app."),
            connections: page.gauge("app_connections", "Open connections to the app."),
            retries: page.counter(
                "app_retries_total",
                "Requests sent again because a kept-alive connection had died.",
            ),
            forwarding_replaced: page.counter(
                "forwarding_replaced_total",
                "Requests whose X-Forwarded-* headers were replaced, since their peer is not \
                 trusted to set them.",
            ),
            tunnels: page.gauge("tunnels_open", "Open WebSocket tunnels."),
            tunnel_ends: page
                .counters("tunnels_closed_total", "WebSocket tunnels by how they ended."),
        }
    }
}

/// Metrics of the listener about clients.
#[derive(Clone)]
pub struct ListenerMetrics {
    pub connections: IntGauge,
    pub accepted: Counters<Protocol>,
    pub closed: Counters<CloseReason>,
    pub heads_refused: IntCounter,
    pub accept_errors: IntCounter,
    pub refused: IntCounter,
    pub refused_for_memory: IntCounter,
    pub handshakes: Counters<HandshakeResult>,
}

impl ListenerMetrics {
    fn on(page: &Page) -> Self {
        Self {
            connections: page
                .gauge("connections_open", "Open connections of clients, WebSockets among them."),
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
            refused_for_memory: page.counter(
                "memory_refused_total",
                "Connections answered 503, or closed if TLS, because memory was nearly used up.",
            ),
            handshakes: page
                .counters("tls_handshakes_total", "TLS handshakes of clients by how they ended."),
        }
    }

    /// Makes metrics that are not exported, for a listener that is not the product's own.
    pub fn detached() -> Self {
        Self::on(&Page { registry: Registry::new() })
    }
}

/// Metrics of the memory that connections take.
#[derive(Clone)]
pub struct MemoryMetrics {
    pub used: IntGauge,
    pub limit: IntGauge,
}

impl MemoryMetrics {
    fn on(page: &Page) -> Self {
        Self {
            used: page.gauge(
                "memory_used_bytes",
                "Memory that counts towards the limit and can't be taken back.",
            ),
            limit: page.gauge(
                "memory_limit_bytes",
                "Memory that the sidecar may take; 0 without a limit.",
            ),
        }
    }
}

/// Metrics of the spans to be exported.
#[derive(Clone)]
pub struct TraceMetrics {
    pub spans: Counters<SpanResult>,
}

impl TraceMetrics {
    fn on(page: &Page) -> Self {
        let help = "Spans to be exported, by how they ended.";
        Self { spans: page.counters("trace_spans_total", help) }
    }
}

fn access_log_dropped(page: &Page) -> IntCounter {
    page.counter(
        "access_log_dropped_total",
        "Lines of the access log dropped because standard output did not take them in time.",
    )
}

/// All metrics, and the registry that a scrape reads.
pub struct Metrics {
    registry: Registry,
    pub requests: RequestMetrics,
    pub identity: IdentityMetrics,
    pub tokens: TokenMetrics,
    pub trial: TrialMetrics,
    pub shared: SharedMetrics,
    pub logout: LogoutMetrics,
    pub app: AppMetrics,
    pub listener: ListenerMetrics,
    pub memory: MemoryMetrics,
    pub reload: ReloadMetrics,
    pub store: StoreMetrics,
    pub trace: TraceMetrics,
    /// Lines of the access log that could not be written.
    pub access_log_dropped: IntCounter,
    /// Lines of the log that were dropped, as of the last scrape.
    pub log_dropped: IntCounter,
    pub ready: IntGauge,
    /// Calls to the admin port that change or reveal something.
    pub admin_calls: Counters<AdminCall>,
    /// Connections to the admin port that were closed for a new one.
    pub admin_evictions: IntCounter,
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
                "Time from a request's head to its response's head without the wait for the app: \
                 the sidecar's own share.",
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
            app_header_deliveries: page.counters(
                "app_header_deliveries_total",
                "Requests that the app got with a token or a status, by what happened to the token.",
            ),
            document_deliveries: page.counters(
                "document_deliveries_total",
                "Documents on paths with delivery in Server-Timing, by what happened to the token.",
            ),
            check_deliveries: page.counters(
                "check_deliveries_total",
                "Checks of gateways, by what happened to the token.",
            ),
        };
        let recent = Arc::<Recent>::default();
        let identity = IdentityMetrics::on(&page, Arc::clone(&recent));
        let tokens = TokenMetrics::on(&page, recent);
        let trial = TrialMetrics::on(&page);
        let shared = SharedMetrics::on(&page);
        let logout = LogoutMetrics::on(&page);
        let app = AppMetrics::on(&page);
        let listener = ListenerMetrics::on(&page);
        let memory = MemoryMetrics::on(&page);
        let (trace, access_log_dropped) = (TraceMetrics::on(&page), access_log_dropped(&page));
        let log_dropped = page.counter(
            "log_dropped_total",
            "Lines of the log dropped because standard error did not take them in time.",
        );
        let (reload, store) = (ReloadMetrics::on(&page), StoreMetrics::on(&page));
        let ready =
            page.gauge("ready", "1 while the sidecar is ready, 0 before and from SIGTERM on.");
        let admin_calls = page.counters("admin_calls_total", "Admin calls by how they ended.");
        let admin_evictions = page.counter(
            "admin_evictions_total",
            "Connections to the admin port closed as the longest idle, to make room for a new one.",
        );
        page.build_info();
        export_process(&page.registry);
        Self {
            registry: page.registry,
            requests,
            identity,
            tokens,
            trial,
            shared,
            logout,
            app,
            listener,
            memory,
            reload,
            store,
            trace,
            access_log_dropped,
            log_dropped,
            ready,
            admin_calls,
            admin_evictions,
        }
    }

    /// Returns the text exposition format, version 0.0.4.
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

/// Records `elapsed` in seconds.
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

    fn gauges<L: Label>(&self, name: &str, help: &str) -> Gauges<L> {
        let family = prometheus::GaugeVec::new(options(name, help), &[L::NAME]);
        let family = family.expect("valid metric");
        self.register(&family);
        let gauges = L::ALL.iter().map(|value| family.with_label_values(&[value.as_str()]));
        Gauges { gauges: gauges.collect(), label: PhantomData }
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

    fn register<C: prometheus::core::Collector + Clone + 'static>(&self, collector: &C) {
        self.registry.register(Box::new(collector.clone())).expect("each name stands once");
    }
}

fn options(name: &str, help: &str) -> Opts {
    Opts::new(name, help).namespace(PREFIX)
}

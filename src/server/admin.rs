//! The admin port: metrics and health, for Prometheus and the kubelet, and calls for people.
//!
//! Ready means listening and not draining. Velt's health is no part of readiness: an outage at Velt must not
//! take the app's pods out of service.

mod access;
mod calls;
mod walks;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use prometheus::TEXT_FORMAT;

use self::calls::GuardedCalls;
pub use self::calls::{Calls, CurrentSettings};
use self::walks::Scrapes;
use ground::metrics::Metrics;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Whether traffic should come here.
#[derive(Clone, Default)]
pub struct Readiness(Arc<AtomicBool>);

impl Readiness {
    /// Sets readiness, here and in the metric.
    pub fn set(&self, ready: bool, metrics: &Metrics) {
        self.0.store(ready, Ordering::Release);
        metrics.ready.set(i64::from(ready));
    }

    fn is_ready(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Answers on the admin port.
pub struct Admin {
    readiness: Readiness,
    scrapes: Scrapes,
    calls: GuardedCalls,
}

impl Admin {
    /// Makes the admin port, which answers with `metrics`. `before_scrape` brings gauges up to date that are
    /// only computed for a scrape.
    pub fn new(
        metrics: Arc<Metrics>,
        readiness: Readiness,
        before_scrape: Arc<dyn Fn() + Send + Sync>,
        calls: Calls,
    ) -> Self {
        let scrapes = Scrapes::new(metrics, before_scrape);
        Self { readiness, scrapes, calls: GuardedCalls::new(calls) }
    }

    /// Answers one request.
    pub async fn answer(
        &self,
        peer: SocketAddr,
        request: Request<Incoming>,
    ) -> Response<Full<Bytes>> {
        if is_from_a_page(request.headers()) {
            return text(
                StatusCode::FORBIDDEN,
                "not for web pages; open it in a tab, or use curl\n",
            );
        }
        if GuardedCalls::is_call(request.uri().path()) {
            return self.calls.answer(peer, request).await;
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "use GET\n");
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        match request.uri().path() {
            "/metrics" => self.scrape().await,
            "/healthz/live" | "/healthz/startup" => text(StatusCode::OK, "ok\n"),
            "/healthz/ready" if self.readiness.is_ready() => text(StatusCode::OK, "ok\n"),
            "/healthz/ready" => text(StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
            _ => text(
                StatusCode::NOT_FOUND,
                "no such path; the admin port has /metrics, /healthz/live, /healthz/ready, \
                 /healthz/startup, and the calls /config, /drain, /explain, /cache/invalidate, \
                 /log/level, /refusals\n",
            ),
        }
    }

    async fn scrape(&self) -> Response<Full<Bytes>> {
        let Some(scrape) = self.scrapes.next().await else {
            let problem = "metrics could not be written; see the log\n";
            return text(StatusCode::INTERNAL_SERVER_ERROR, problem);
        };
        let mut response = text(StatusCode::OK, scrape);
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(TEXT_FORMAT));
        response
    }
}

/// Whether a page in a browser asks, which can reach loopback too. A tab that a person opens sends `none`;
/// kubelets and Prometheus send no such header (W3C Fetch Metadata, section 2.3).
fn is_from_a_page(headers: &HeaderMap) -> bool {
    headers.get_all(SEC_FETCH_SITE).iter().any(|site| site != "none")
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

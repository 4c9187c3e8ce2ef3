//! Metrics of the store that replicas share.

use prometheus::{Histogram, IntGauge, Registry};

use super::{Counters, Page, StoreCallResult, StoreConnectResult};

/// Calls to the store: a tenth of a millisecond on the same host, up to the 50 ms that a mint may wait for it.
const CALL_SECONDS: &[f64] = &[0.000_1, 0.000_25, 0.000_5, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05];

/// Metrics of the connections to the store of shared tokens.
#[derive(Clone)]
pub struct StoreMetrics {
    pub calls: Counters<StoreCallResult>,
    pub call_duration: Histogram,
    pub connected: IntGauge,
    pub suspended: IntGauge,
    pub connects: Counters<StoreConnectResult>,
}

impl StoreMetrics {
    pub(super) fn on(page: &Page) -> Self {
        Self {
            calls: page.counters(
                "shared_calls_total",
                "Calls to the store of shared tokens by how they ended.",
            ),
            call_duration: page.histogram(
                "shared_call_duration_seconds",
                "Time of a call that was sent to the store of shared tokens.",
                CALL_SECONDS,
            ),
            connected: page.gauge(
                "shared_connected",
                "1 while every server of the store of shared tokens is connected, else 0.",
            ),
            suspended: page.gauge(
                "shared_suspended",
                "1 while calls to a server of the store of shared tokens are suspended, else 0.",
            ),
            connects: page.counters(
                "shared_connects_total",
                "Attempts to connect to a server of the store of shared tokens, by how they ended.",
            ),
        }
    }

    /// Makes metrics that are not exported, for a store outside a sidecar.
    pub fn detached() -> Self {
        Self::on(&Page { registry: Registry::new() })
    }
}

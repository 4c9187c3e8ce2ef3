//! Metrics of trial mints.

use std::time::{SystemTime, UNIX_EPOCH};

use prometheus::IntGauge;

use super::labels::MintOutcome;
use super::{Counters, Page};

/// Metrics of trial mints. Without `[velt.trial]` the metrics exist too.
#[derive(Clone)]
pub struct TrialMetrics {
    pub mints: Counters<MintOutcome>,
    failures: IntGauge,
    last_success: prometheus::Gauge,
}

impl TrialMetrics {
    pub(super) fn on(page: &Page) -> Self {
        let metrics = Self {
            mints: page.counters("trial_mints_total", "Mints of [velt.trial] by how they ended."),
            failures: page.gauge(
                "trial_failures",
                "Mints of [velt.trial] that failed in a row. 0 without [velt.trial].",
            ),
            last_success: page.float_gauge(
                "trial_last_success_timestamp_seconds",
                "Time at which a mint of [velt.trial] last succeeded. NaN before the first.",
            ),
        };
        metrics.off();
        metrics
    }

    /// Notes that no trial mints are made any more.
    pub fn off(&self) {
        self.failures.set(0);
        self.last_success.set(f64::NAN);
    }

    /// Notes a success at `now`. Returns how many mints in a row had failed before.
    pub fn succeeded(&self, now: SystemTime) -> i64 {
        self.mints.increment(MintOutcome::Minted);
        self.last_success.set(now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64());
        let before = self.failures.get();
        self.failures.set(0);
        before
    }

    /// Notes a failure. Returns how many mints in a row have failed.
    pub fn failed(&self, outcome: MintOutcome) -> i64 {
        self.mints.increment(outcome);
        self.failures.inc();
        self.failures.get()
    }
}

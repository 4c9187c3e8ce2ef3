//! Metrics of the settings and files that are read again while the sidecar runs.

use std::time::SystemTime;

use prometheus::{IntCounter, IntGauge};

use super::{Certificate, Counters, Gauges, Label as _, Page, ReloadPart};

/// Metrics of the settings and files that are read again.
#[derive(Clone)]
pub struct ReloadMetrics {
    reloads: Counters<ReloadPart>,
    rejections: Counters<ReloadPart>,
    failing: Gauges<ReloadPart>,
    last_success: Gauges<ReloadPart>,
    pub restart_needed: IntGauge,
    pub certificate_expiry: Gauges<Certificate>,
    pub looks: IntCounter,
}

impl ReloadMetrics {
    pub(super) fn on(page: &Page) -> Self {
        let metrics = Self {
            reloads: page.counters("reloads_total", "New content put into force, by part."),
            rejections: page.counters(
                "reload_rejections_total",
                "New content rejected, so that the last good content stays in force.",
            ),
            failing: page.gauges(
                "reload_failing",
                "1 while the content on disk is rejected and older content is in force, else 0.",
            ),
            last_success: page.gauges(
                "reload_last_success_timestamp_seconds",
                "Time at which the content in force was put into force. NaN if the part is not \
                 configured.",
            ),
            restart_needed: page.gauge(
                "config_restart_needed",
                "Settings that were changed and take effect at the next start only.",
            ),
            certificate_expiry: page.gauges(
                "certificate_expiry_timestamp_seconds",
                "Time at which the certificate in force expires. NaN without a certificate.",
            ),
            looks: page.counter(
                "reload_looks_total",
                "Looks at the files that are read again, whether their content was new or not.",
            ),
        };
        for part in ReloadPart::ALL {
            metrics.last_success.set(*part, f64::NAN);
        }
        for certificate in Certificate::ALL {
            metrics.certificate_expiry.set(*certificate, f64::NAN);
        }
        metrics
    }

    /// Notes that content was put into force, at the start or later.
    pub fn succeeded(&self, part: ReloadPart, now: SystemTime) {
        self.last_success.set_time(part, now);
        self.good(part);
    }

    /// Notes that new content was put into force.
    pub fn applied(&self, part: ReloadPart, now: SystemTime) {
        self.reloads.increment(part);
        self.succeeded(part, now);
    }

    /// Notes that the content found is the content in force.
    pub fn good(&self, part: ReloadPart) {
        self.failing.set(part, 0.0);
    }

    /// Notes that the rejected content is still there, although secrets beside it were put into force.
    pub fn still_rejected(&self, part: ReloadPart) {
        self.failing.set(part, 1.0);
    }

    /// Notes that the content found can't be put into force.
    pub fn rejected(&self, part: ReloadPart) {
        self.rejections.increment(part);
        self.failing.set(part, 1.0);
    }
}

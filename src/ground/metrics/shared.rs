//! Metrics of the tokens that replicas share.

use prometheus::{IntCounter, IntGauge};

use super::labels::{SharedForget, SharedLease, SharedRead, SharedWrite};
use super::{Counters, Page};

/// Metrics of the tokens that replicas share. Without `[shared]` the metrics exist too, and stay at 0.
#[derive(Clone)]
pub struct SharedMetrics {
    pub reads: Counters<SharedRead>,
    pub leases: Counters<SharedLease>,
    pub writes: Counters<SharedWrite>,
    pub forgets: Counters<SharedForget>,
    pub taken: IntCounter,
    pub unread: IntCounter,
    pub gaps: IntCounter,
    pub cut_off: IntGauge,
    pub unwritten: IntGauge,
}

impl SharedMetrics {
    pub(super) fn on(page: &Page) -> Self {
        Self {
            reads: page.counters(
                "shared_reads_total",
                "Looks for a token in the shared store, by what was found.",
            ),
            leases: page.counters(
                "shared_leases_total",
                "Mints that needed the lease of the shared store, by its course.",
            ),
            writes: page.counters(
                "shared_writes_total",
                "Attempts to share a minted token, by how they ended.",
            ),
            forgets: page.counters(
                "shared_forgets_total",
                "Forgets that all replicas are told, by the replica that was asked.",
            ),
            taken: page.counter(
                "shared_tokens_taken_total",
                "Tokens replaced in memory because another replica had a younger one minted.",
            ),
            unread: page.counter(
                "shared_events_unread_total",
                "Events of the shared store that no key of this replica opens: it may have missed a forget.",
            ),
            gaps: page.counter(
                "shared_gaps_total",
                "Times that events of other replicas may have been missed, since the store had lost some.",
            ),
            cut_off: page.gauge(
                "shared_cut_off",
                "1 while this replica can't hear of forgets of other replicas, else 0. 0 without [shared].",
            ),
            unwritten: page.gauge(
                "shared_unwritten",
                "Minted tokens that the shared store has yet to take.",
            ),
        }
    }
}

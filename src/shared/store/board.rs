//! Metrics over all links of a store, and the longest time for which a mint may wait for the store.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use ground::metrics::{StoreConnectResult, StoreMetrics};

use super::State;
use super::fault::Fault;
use super::link::Kept;

/// Metrics over all links of a store.
pub(super) struct Board {
    metrics: StoreMetrics,
    patience: Duration,
    links: Mutex<Vec<Weak<Kept>>>,
}

impl Board {
    pub(super) fn new(metrics: StoreMetrics, patience: Duration) -> Self {
        Self { metrics, patience, links: Mutex::default() }
    }

    /// Returns the longest time for which one mint may wait for the store.
    pub(super) fn patience(&self) -> Duration {
        self.patience
    }

    pub(super) fn metrics(&self) -> &StoreMetrics {
        &self.metrics
    }

    pub(super) fn count_connect(&self, fault: Option<Fault>) {
        let result = fault.map_or(StoreConnectResult::Connected, Fault::connect_result);
        self.metrics.connects.increment(result);
    }

    pub(super) fn add(&self, link: &Arc<Kept>) {
        self.links.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(link));
        self.update();
    }

    /// Sets the gauges from the states of all links.
    pub(super) fn update(&self) {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        links.retain(|link| link.strong_count() > 0);
        let states: Vec<State> =
            links.iter().filter_map(Weak::upgrade).map(|link| link.state()).collect();
        let connected = !states.is_empty() && states.iter().all(|state| *state == State::Connected);
        let suspended = states.iter().any(|state| matches!(state, State::Suspended { .. }));
        self.metrics.connected.set(connected.into());
        self.metrics.suspended.set(suspended.into());
    }
}

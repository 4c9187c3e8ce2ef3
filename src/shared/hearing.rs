//! Whether this replica hears of forgets, and which of its own it has yet to hear.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tracing::{info, warn};

use crate::Inner;
use crate::entry::Forget;
use crate::store::Fault;
use ground::alarm::Alarm;
use token::announce::{self, Subject};

/// Time for which this replica is cut off before a log line says so: a look at the streams takes as long.
const BRIEF: Duration = Duration::from_secs(1);

/// Time after which an event that this replica has added counts as lost. Events are heard in milliseconds.
const OVERDUE: Duration = Duration::from_secs(5);

/// Most events that this replica has added and waits for: more than it can add in [`OVERDUE`].
const MOST_EXPECTED: usize = 10_000;

/// Whether this replica hears of forgets.
pub struct Hearing {
    state: Mutex<HearingState>,
    /// Limit on log lines about a store that comes and goes.
    alarm: Alarm,
}

struct HearingState {
    cut_off_since: Option<Instant>,
    /// Whether a log line has said that this replica is cut off.
    is_told: bool,
    /// Last time at which this replica emptied its memory because it was cut off.
    emptied: Instant,
    /// Events that this replica has added and not heard yet, by their ids.
    expected: HashMap<Vec<u8>, (Instant, Forget)>,
}

impl Default for Hearing {
    /// Returns the state of a replica that has heard nothing yet: cut off.
    fn default() -> Self {
        let now = Instant::now();
        let state = HearingState {
            cut_off_since: Some(now),
            is_told: false,
            emptied: now,
            expected: HashMap::new(),
        };
        Self { state: Mutex::new(state), alarm: Alarm::new() }
    }
}

impl Hearing {
    /// Notes the id of an event that this replica has added, and that it must hear like each other event.
    pub fn expect(&self, id: Vec<u8>, forget: Forget) {
        let mut heard = self.locked();
        if heard.expected.len() < MOST_EXPECTED {
            heard.expected.insert(id, (Instant::now(), forget));
        }
    }

    /// Notes that the event with this id was heard. Returns whether this replica has added it.
    pub fn has_come(&self, id: &[u8]) -> bool {
        self.locked().expected.remove(id).is_some()
    }

    /// Returns the forgets that this replica has added and that were not heard in time.
    pub fn overdue(&self) -> Vec<Forget> {
        let is_overdue =
            |_: &Vec<u8>, (added, _): &mut (Instant, Forget)| added.elapsed() >= OVERDUE;
        self.locked().expected.extract_if(is_overdue).map(|(_, (_, forget))| forget).collect()
    }

    fn locked(&self) -> MutexGuard<'_, HearingState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns for how long this replica has not been able to hear of forgets.
    pub fn cut_off(&self) -> Option<Duration> {
        self.locked().cut_off_since.map(|at| at.elapsed())
    }
}

impl Inner {
    /// Notes that this replica has caught up with the forgets of other replicas.
    pub(crate) fn note_heard(&self) {
        let mut heard = self.hearing.locked();
        heard.cut_off_since = None;
        self.metrics.cut_off.set(0);
        if std::mem::take(&mut heard.is_told) {
            info!(
                "the shared store is heard again, and this replica has caught up with the forgets \
                 of other replicas"
            );
        }
    }

    /// Notes that this replica is cut off, and empties its memory if it was cut off for `shared.longest_cut_off`.
    pub(crate) async fn note_cut_off(&self, fault: Fault) {
        let empties = {
            let mut heard = self.hearing.locked();
            let now = Instant::now();
            let since = *heard.cut_off_since.get_or_insert(now);
            self.metrics.cut_off.set(1);
            let is_due = !heard.is_told && since.elapsed() >= BRIEF;
            if is_due && let Some(times) = self.hearing.alarm.raise(1) {
                heard.is_told = true;
                warn!(
                    %fault, times,
                    "the shared store is not heard: forgets of other replicas arrive later; until \
                     then this replica serves the tokens in its memory"
                );
            }
            let due = self.longest_cut_off.is_some_and(|longest| {
                since.elapsed() >= longest && heard.emptied.max(since).elapsed() >= longest
            });
            if due {
                heard.emptied = now;
            }
            due
        };
        if empties {
            warn!(
                "the shared store was not heard for shared.longest_cut_off: tokens in memory \
                 are forgotten and minted anew"
            );
            self.apply(vec![announce::Event::Forget(Subject::Everything)]).await;
        }
    }
}

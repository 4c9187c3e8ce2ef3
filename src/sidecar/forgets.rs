//! Forgets tokens, on this replica and, through a shared store, on the others.
//!
//! A walk over the cache takes a time that grows with the cache. So one walk runs at a time for the whole process,
//! in a thread of tokio's for blocking work. What arrives meanwhile waits, and the next walk does all of it at
//! once: an identity provider that signs out ten thousand users costs a handful of walks.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep_until, timeout};

use super::Sidecar;
use ground::user_id::UserId;
use token::announce::{Announce, Announced, Call, Event, Subject};
use token::cache::{Forgotten, Whose};

/// Rest after a walk, as a multiple of the time that the walk took: a fifth of a processor at most.
const REST: u32 = 4;

/// Bound of the rest. A forget must reach the last replica within a second.
const LONGEST_REST: Duration = Duration::from_millis(250);

/// Time limit for an announcement, beyond which it counts as failed. The announcer has a limit of its own; this
/// one is for a bug.
const ANNOUNCE_PATIENCE: Duration = Duration::from_secs(5);

/// Result of an event that was applied here and announced to the other replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Entries and mints forgotten on this replica.
    pub forgotten: Forgotten,
    /// `None` without a shared store.
    pub announced: Option<Announced>,
}

/// Queue of what has to be forgotten, and the way to the other replicas. All threads that serve share it.
pub struct Forgets {
    waiting: Mutex<Batch>,
    /// Turn of the one walk; holds the time at which the last walk has rested.
    turn: Arc<tokio::sync::Mutex<Instant>>,
    announcer: Option<Arc<dyn Announce>>,
}

/// Subjects that the next walk forgets, and the callers that wait for it.
#[derive(Default)]
struct Batch {
    subjects: HashSet<Subject>,
    callers: Vec<oneshot::Sender<Forgotten>>,
}

impl Forgets {
    /// Makes an empty queue. Without an `announcer`, events stay within this process.
    pub fn new(announcer: Option<Arc<dyn Announce>>) -> Self {
        let turn = Arc::new(tokio::sync::Mutex::new(Instant::now()));
        Self { waiting: Mutex::default(), turn, announcer }
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, Batch> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sidecar {
    /// Applies events that other replicas have announced. Returns when a walk that began after this call has
    /// forgotten the tokens; the count is that walk's, which may have worked for other callers too.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub async fn apply(self: &Arc<Self>, events: &[Event]) -> Forgotten {
        self.note_announced(events);
        self.forget(events.iter().map(Event::subject)).await
    }

    async fn apply_here(self: &Arc<Self>, events: &[Event]) -> Forgotten {
        for event in events {
            if let Event::Logout(logout) = event {
                // Before the walk: a request during the walk must not get a new token.
                self.note_logout(logout);
            }
        }
        self.forget(events.iter().map(Event::subject)).await
    }

    /// Applies an event that this replica is the first to hear of, and announces it to the other replicas.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub async fn apply_and_announce(self: &Arc<Self>, event: Event) -> Applied {
        self.apply_call(event, None).await
    }

    /// Whether another replica has carried out `call`.
    pub(super) async fn is_carried_out(&self, call: &Call) -> bool {
        let Some(announcer) = &self.forgets.announcer else { return false };
        announcer.is_carried_out(call).await
    }

    /// Applies and announces like [`Self::apply_and_announce`], and tells the other replicas of the `call` that asked for
    /// the event.
    pub(super) async fn apply_call(self: &Arc<Self>, event: Event, call: Option<Call>) -> Applied {
        let sidecar = Arc::clone(self);
        // A task, because a caller that leaves must not keep the other replicas from learning of the event.
        let applying = tokio::spawn(async move {
            let events = [event];
            let forgotten = sidecar.apply_here(&events).await;
            let Some(announcer) = &sidecar.forgets.announcer else {
                return Applied { forgotten, announced: None };
            };
            let announcing = announcer.announce(&events[0]);
            let result = timeout(ANNOUNCE_PATIENCE, announcing).await;
            if result.is_err() {
                // The announcer has not come to forget. A logout is noted once: the user may have signed in again by
                // now.
                sidecar.forget(events.iter().map(Event::subject)).await;
            }
            let result = result.unwrap_or(Announced::Later);
            if let (Announced::Told, Some(call)) = (result, &call) {
                announcer.note_carried_out(call).await;
            }
            Applied { forgotten, announced: Some(result) }
        });
        applying.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
    }

    async fn forget(self: &Arc<Self>, subjects: impl Iterator<Item = Subject>) -> Forgotten {
        let (caller, forgotten) = oneshot::channel();
        {
            let mut waiting = self.forgets.waiting();
            waiting.subjects.extend(subjects);
            waiting.callers.push(caller);
        }
        let sidecar = Arc::clone(self);
        // A task, because the turn must not pass to the next caller before the walk has ended.
        tokio::spawn(async move {
            let mut rested_at = Arc::clone(&sidecar.forgets.turn).lock_owned().await;
            sleep_until(*rested_at).await;
            let Batch { subjects, callers } = std::mem::take(&mut *sidecar.forgets.waiting());
            if callers.is_empty() {
                return;
            }
            let begun = Instant::now();
            let walking = spawn_blocking(move || sidecar.walk(subjects));
            let forgotten = walking.await.expect("a walk does not panic");
            *rested_at = Instant::now() + (REST * begun.elapsed()).min(LONGEST_REST);
            for caller in callers {
                // An error says that the caller has left.
                let _ = caller.send(forgotten);
            }
        });
        forgotten.await.expect("a walk does not panic")
    }

    /// Forgets tokens, remembered failures and details of these users: see
    /// [`token::cache::TokenCache::invalidate`].
    fn walk(&self, subjects: HashSet<Subject>) -> Forgotten {
        if subjects.contains(&Subject::Everything) {
            return self.forget_now(Whose::Everybody);
        }
        let (mut users, mut forgotten) = (HashSet::<UserId>::new(), Forgotten::default());
        for subject in subjects {
            match subject {
                Subject::User(user) => {
                    users.insert(user);
                }
                others => forgotten += self.forget_now(others.whose()),
            }
        }
        if !users.is_empty() {
            forgotten += self.forget_now(Whose::Users(&users));
        }
        forgotten
    }

    fn forget_now(&self, whose: Whose<'_>) -> Forgotten {
        let rules = self.rules.load();
        // The details first: an answer that is still kept could start a mint after its token is forgotten.
        if let Some(details) = &rules.details {
            details.forget(whose, rules.plan.issuer().organization.as_deref());
        }
        self.tokens.invalidate(whose)
    }
}

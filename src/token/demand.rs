//! Demand for a token and progress of its mint, shared by the cache, which hears the callers, and the
//! calls to Velt, which are made in the order of urgency.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::{MintError, Token};

/// Stage that a mint has reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Stage {
    /// No call is under way: all calls that may run at once are taken, or calls pause.
    Queued,
    /// A call is under way, over a new connection or with an answer begun.
    Called,
    /// A call is under way over a connection that had been used before and may be dead.
    CalledOnReused,
}

/// Rank of a mint among those that wait for a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rank {
    /// The user has no token.
    Urgent,
    /// The user has a token that is due.
    Refresh,
    /// The mint is for no user.
    Spare,
}

/// Reason why a mint has not ended yet.
#[derive(Clone, Debug)]
pub enum Unfinished {
    /// The mint waits for its turn: all calls that may run at once are taken.
    Queued,
    /// Velt was called and has not answered.
    Called,
    /// No call is made at the moment, or the call before has failed, because of this error.
    Held(MintError),
}

/// Demand for one token, shared by all parts of its mint.
#[derive(Debug)]
pub struct Demand {
    /// Token that is to be replaced; `None` if there is none.
    replaces: Option<Token>,
    urgent: AtomicBool,
    /// Whether the token is for no user's sake.
    is_spare: bool,
    stage: AtomicU8,
    /// Callers that wait at this moment.
    waiting: AtomicUsize,
    asked: Mutex<Instant>,
    raised: Notify,
    /// Reason why no call is made, and when the reason was noted.
    held: Mutex<Option<(Instant, MintError)>>,
    /// Error of the last call, and when the call ended.
    failed: Mutex<Option<(Instant, MintError)>>,
    /// Begin of the call under way.
    called: Mutex<Instant>,
}

impl Demand {
    /// Demand of a user who has no token that could be served.
    pub fn urgent() -> Arc<Self> {
        Self::new(true, None)
    }

    /// Demand for a younger token than `replaces`, which is still good.
    pub fn refresh(replaces: Option<Token>) -> Arc<Self> {
        Self::new(false, replaces)
    }

    /// Demand for a token that no user waits for. Its call begins only while no other mint waits and one more call
    /// may run, and is not counted among the calls at once.
    pub fn spare() -> Arc<Self> {
        Self::of(false, true, None)
    }

    fn new(urgent: bool, replaces: Option<Token>) -> Arc<Self> {
        Self::of(urgent, false, replaces)
    }

    fn of(urgent: bool, is_spare: bool, replaces: Option<Token>) -> Arc<Self> {
        Arc::new(Self {
            replaces,
            urgent: AtomicBool::new(urgent),
            is_spare,
            stage: AtomicU8::new(Stage::Queued as u8),
            waiting: AtomicUsize::new(0),
            asked: Mutex::new(Instant::now()),
            raised: Notify::new(),
            held: Mutex::new(None),
            failed: Mutex::new(None),
            called: Mutex::new(Instant::now()),
        })
    }

    /// Returns the token that is to be replaced; `None` if any token will do.
    pub fn replaces(&self) -> Option<&Token> {
        self.replaces.as_ref()
    }

    /// Whether the user has no token until the mint has ended.
    pub fn is_urgent(&self) -> bool {
        self.urgent.load(Ordering::Relaxed)
    }

    /// Returns the rank of the mint among those that wait.
    pub(super) fn rank(&self) -> Rank {
        match (self.is_spare, self.is_urgent()) {
            (true, _) => Rank::Spare,
            (false, true) => Rank::Urgent,
            (false, false) => Rank::Refresh,
        }
    }

    /// Notes that a user without a token has asked. Makes a refresh urgent.
    pub(super) fn ask(&self) {
        *self.asked.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        if !self.urgent.swap(true, Ordering::Relaxed) {
            self.raised.notify_waiters();
        }
    }

    /// Counts a caller as waiting until the guard is dropped.
    pub(super) fn wait(self: &Arc<Self>) -> Waiting {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        Waiting(Arc::clone(self))
    }

    /// Resolves when the demand has become urgent. Never resolves if it was urgent from the start.
    pub(super) async fn became_urgent(&self) {
        if self.is_urgent() {
            return std::future::pending().await;
        }
        let raised = self.raised.notified();
        // If the demand was raised since the check above, `notified` would wait in vain.
        if !self.is_urgent() {
            raised.await;
        }
    }

    /// Resolves when no caller waits and no caller has asked for `patience`.
    pub(super) async fn lapsed(&self, patience: Duration) {
        loop {
            let now = Instant::now();
            if self.waiting.load(Ordering::Relaxed) > 0 {
                sleep_until(now + patience).await;
                continue;
            }
            let until = *self.asked.lock().unwrap_or_else(PoisonError::into_inner) + patience;
            if until <= now {
                return;
            }
            sleep_until(until).await;
        }
    }

    /// Notes why no call is made at the moment, if no call is under way.
    pub(super) fn hold(&self, error: Option<MintError>) {
        let held = error.map(|error| (Instant::now(), error));
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = held;
    }

    /// Notes the error of a call that will be made again.
    pub(super) fn note_failure(&self, error: MintError) {
        let failed = Some((Instant::now(), error));
        *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = failed;
    }

    /// Reason why the mint has not ended for a caller that has waited for `waited`, with the wait that
    /// is left if no call is made. Names the cause that took most of the wait: a call that began a
    /// moment ago is not to blame, but a failed call before it is.
    pub(super) fn unfinished(&self, waited: Duration) -> Unfinished {
        let reason = |reason: &Mutex<Option<(Instant, MintError)>>| {
            let reason = reason.lock().unwrap_or_else(PoisonError::into_inner).clone();
            reason.map(|(at, error)| Unfinished::Held(error.after(at.elapsed())))
        };
        if self.stage() == Stage::Queued {
            return reason(&self.held).or(reason(&self.failed)).unwrap_or(Unfinished::Queued);
        }
        let called = *self.called.lock().unwrap_or_else(PoisonError::into_inner);
        if called.elapsed() >= waited / 2 {
            return Unfinished::Called;
        }
        reason(&self.failed).unwrap_or(Unfinished::Queued)
    }

    /// Returns the stage that the mint has reached.
    pub fn stage(&self) -> Stage {
        match self.stage.load(Ordering::Relaxed) {
            stage if stage == Stage::Called as u8 => Stage::Called,
            stage if stage == Stage::CalledOnReused as u8 => Stage::CalledOnReused,
            _ => Stage::Queued,
        }
    }

    /// Notes the stage that the mint has reached.
    pub fn reached(&self, stage: Stage) {
        let before = self.stage.swap(stage as u8, Ordering::Relaxed);
        if before == Stage::Queued as u8 {
            *self.called.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        }
    }
}

/// Guard of a caller that waits for a mint.
#[derive(Debug)]
pub(super) struct Waiting(Arc<Demand>);

impl Drop for Waiting {
    fn drop(&mut self) {
        *self.0.asked.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

//! Writes later what the store did not take at once: tokens that were minted while the store could not be reached,
//! tokens that it has lost, and forgets.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use crate::entry::{Entry, Forget};
use crate::look::RawLook;
use crate::place::Place;
use crate::protocol::{Facts, Verdict, Wanted, judge};
use crate::store::Fault;
use crate::{Inner, now, since_1970};
use ground::metrics::{SharedForget, SharedWrite};
use token::MintRequest;
use token::announce::Subject;
use token::cache::TokenCache;

/// Pause between two checks whether there is something to write.
const PAUSE: Duration = Duration::from_millis(500);

/// Most tokens that are written at the same time.
const AT_ONCE: usize = 64;

/// Time limit of each call. No request waits for it.
const PATIENCE: Duration = Duration::from_secs(1);

/// Most tokens that are noted, and most forgets. With more tokens than that, all tokens in memory are checked
/// instead.
const MAX_NOTED: usize = 10_000;

/// Tokens and forgets that the store has yet to take.
#[derive(Default)]
pub struct Unwritten(Mutex<Rest>);

#[derive(Default)]
struct Rest {
    requests: HashSet<MintRequest>,
    forgets: HashMap<Subject, Forget>,
    /// Whether there were too many forgets to note, so that each one heard of is looked at.
    all_forgets: bool,
    /// Whether each token in memory has to be checked.
    all: bool,
}

impl Unwritten {
    /// Returns the number of tokens noted.
    pub fn count(&self) -> usize {
        self.locked().requests.len()
    }

    /// Notes a forget of which the other replicas have yet to be told. Beyond the bound, all forgets heard of are looked
    /// at.
    pub fn note_forget(&self, forget: Forget) {
        let mut rest = self.locked();
        if rest.forgets.len() < MAX_NOTED {
            rest.forgets.insert(forget.subject.clone(), forget);
        } else {
            rest.all_forgets = true;
        }
    }

    /// Notes that each token in memory has to be checked.
    pub fn note_all(&self) {
        let mut rest = self.locked();
        rest.all = true;
        rest.requests.clear();
    }

    fn note(&self, request: MintRequest) {
        let mut rest = self.locked();
        if rest.all {
            return;
        }
        rest.requests.insert(request);
        if rest.requests.len() > MAX_NOTED {
            rest.all = true;
            rest.requests.clear();
        }
    }

    /// Whether the other replicas have yet to be told of a forget of `subject`.
    pub fn has_forget(&self, subject: &Subject) -> bool {
        self.locked().forgets.contains_key(subject)
    }

    fn is_empty(&self) -> bool {
        let rest = self.locked();
        rest.requests.is_empty() && rest.forgets.is_empty() && !rest.all && !rest.all_forgets
    }

    fn forgets(&self) -> Vec<Forget> {
        self.locked().forgets.values().cloned().collect()
    }

    /// Notes that the other replicas were told of `forget`. Only then does it leave: this replica may end at any time.
    fn told(&self, forget: &Forget) {
        let mut rest = self.locked();
        if rest.forgets.get(&forget.subject).is_some_and(|noted| noted.mark == forget.mark) {
            rest.forgets.remove(&forget.subject);
        }
    }

    fn take_all_forgets(&self) -> bool {
        std::mem::take(&mut self.locked().all_forgets)
    }

    fn take_all(&self) -> bool {
        std::mem::take(&mut self.locked().all)
    }

    fn take_requests(&self) -> Vec<MintRequest> {
        let mut rest = self.locked();
        let batch: Vec<_> = rest.requests.iter().take(AT_ONCE).cloned().collect();
        for request in &batch {
            rest.requests.remove(request);
        }
        batch
    }

    fn locked(&self) -> MutexGuard<'_, Rest> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes the noted tokens and forgets into the store, for as long as the process runs.
pub async fn rewrite(shared: &Arc<Inner>, tokens: &TokenCache) {
    loop {
        sleep(PAUSE).await;
        // While this replica has not heard of all forgets, it does not know which tokens in memory still count.
        if shared.hearing.cut_off().is_none() {
            rewrite_all(shared, tokens).await;
        }
        shared.metrics.unwritten.set(i64::try_from(shared.unwritten.count()).unwrap_or(i64::MAX));
    }
}

/// Writes the noted tokens and forgets, until none is left or a write fails.
pub async fn rewrite_all(shared: &Arc<Inner>, tokens: &TokenCache) {
    while !shared.unwritten.is_empty() {
        if shared.rewrite_some(tokens).await.is_err() {
            return;
        }
    }
}

impl Inner {
    /// Notes that the token of `request` is not shared yet.
    pub(crate) fn note_unwritten(&self, request: MintRequest) {
        self.unwritten.note(request);
    }

    async fn rewrite_some(self: &Arc<Self>, tokens: &TokenCache) -> Result<(), Fault> {
        if self.unwritten.take_all_forgets() {
            self.put_back_all().await;
        }
        for forget in self.unwritten.forgets() {
            self.announce(&forget).await?;
            self.unwritten.told(&forget);
            self.metrics.forgets.increment(SharedForget::PutBack);
        }
        if self.unwritten.take_all() {
            let tokens = tokens.clone();
            let held = spawn_blocking(move || tokens.held()).await;
            let held = held.expect("a walk over the cache does not panic");
            let mut rest = self.unwritten.locked();
            rest.requests.extend(held.into_iter().map(|(request, _)| request));
        }
        let batch = self.unwritten.take_requests();
        let writes = join_all(batch.iter().map(|request| self.rewrite_one(request, tokens)));
        let mut result = Ok(());
        for (request, written) in batch.iter().zip(writes.await) {
            match written {
                Ok(outcome) => self.metrics.writes.increment(outcome),
                Err(fault) => {
                    self.unwritten.locked().requests.insert(request.clone());
                    result = Err(fault);
                }
            }
        }
        result
    }

    /// Writes the token that memory has for `request`, unless the store has one that is no older.
    async fn rewrite_one(
        self: &Arc<Self>,
        request: &MintRequest,
        tokens: &TokenCache,
    ) -> Result<SharedWrite, Fault> {
        let Some(credentials) = self.credentials.load_full() else {
            return Ok(SharedWrite::Needless);
        };
        // Tried again in a moment.
        let settled = self.heard.settled().ok_or(Fault::Busy)?;
        let place = Place::of(request, &credentials.api_key, &self.keys());
        let looked = self.look(&place, None, PATIENCE).await?;
        if !looked.unheard.is_empty() {
            // This replica has read the mark of a forget before its event, or the event is lost. The token in memory
            // may be older than the forget.
            let count = looked.unheard.len();
            let settling = self.heard.begin(count);
            let news = looked.unheard.iter().filter(|forget| self.heard.note(forget, now()));
            self.apply(news.map(Forget::event).collect()).await;
            drop(settling);
            return Ok(SharedWrite::Needless);
        }
        let (Some(held), Some(marks)) = (tokens.held_for(request), &looked.marks) else {
            return Ok(SharedWrite::Needless);
        };
        // A forget that was noted meanwhile may not have reached the token in memory yet.
        if self.heard.settled() != Some(settled) {
            return Err(Fault::Busy);
        }
        let facts = Facts {
            minted_at: since_1970(held.minted_at()),
            life: held.whole_life(),
            known: marks.iter().map(|mark| mark.nonce).collect(),
            credentials: credentials.fingerprint(),
        };
        if has_as_good(&looked, &facts, now()) {
            if let (_, Some(younger)) = looked.found(Some(&held), &credentials)
                && tokens.take(request, younger)
            {
                self.metrics.taken.inc();
            }
            return Ok(SharedWrite::Needless);
        }
        let entry = Entry { facts, token: held.value().clone() };
        // Other replicas may hold an older token.
        let commands = vec![self.set_entry(place.name(), &entry), self.add_replaced(place.name())];
        self.store.call(commands, PATIENCE).await?;
        Ok(SharedWrite::Written)
    }
}

/// Whether the store has a token that may be served and is no older than the token of `ours`.
fn has_as_good(looked: &RawLook, ours: &Facts, now: u64) -> bool {
    let marks = looked.marks.as_deref().unwrap_or_default();
    looked.entries.iter().any(|(entry, _)| {
        let verdict = judge(&entry.facts, marks, Wanted::Any, ours.credentials, now);
        let is_served = matches!(verdict, Verdict::Serve { superseded: false, .. });
        is_served && entry.facts.minted_at >= ours.minted_at
    })
}

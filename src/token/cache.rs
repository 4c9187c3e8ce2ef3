//! Token cache: four cases of freshness, one mint under way per key, and a memory of failures.
//!
//! moka stores, bounds and evicts. This module does all that depends on time: a test can't move moka's clock,
//! and moka's own rule of one call per key restarts a mint whose first caller leaves. A mint runs in a task
//! of its own, so a caller that leaves does not stop it for the other callers.

mod inspect;
mod ending;
mod minters;
mod renewal;
mod replicas;
mod slot;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use moka::policy::EvictionPolicy;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tracing::warn;

pub(crate) use self::ending::outcome_of;
use self::ending::{end_span, memory_of, outcome};
pub use self::inspect::{Forgotten, Known, Whose};
use self::minters::Minters;
use self::renewal::Renewals;
pub use self::renewal::{Fingerprint, Renewal};
use self::slot::{RememberedFailure, Slot};
use crate::{Demand, Freshness, Mint, MintError, MintRequest, Moment, Origin, Token, Unfinished};
use ground::logging::Chain;
use ground::metrics::{GaugeGuard, LookupResult, MintOutcome, TokenMetrics, observe};
use ground::trace::{OpenSpan, Recording};

/// Time without a use after which moka removes an entry. Only frees memory: the token decides whether it may
/// be served. Just over the longest life of a token. Counted from the last use, because for counting from the
/// mint moka keeps a list with a node for each entry.
const SWEEP_AFTER: Duration = Duration::from_secs(49 * 3600);

/// Time since a token was last served for which its user counts as active, for the outage headroom.
const ACTIVE_WITHIN: Duration = Duration::from_secs(3600);

/// Shortest time between two updates of `last_served`, because an update inserts the slot again and costs
/// more than a look-up.
const NOTED_EVERY: Duration = Duration::from_secs(300);

/// Bounds of the cache. Both bounds hold; 0 is not a bound.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Users held at most.
    pub max_entries: u64,
    /// Estimated memory at most, in bytes.
    pub max_bytes: u64,
}

/// Tokens by mint request. Clones share the cache.
#[derive(Clone)]
pub struct TokenCache {
    shared: Arc<Shared>,
}

struct Shared {
    slots: moka::sync::Cache<MintRequest, Slot>,
    board: Mutex<Board>,
    minters: Minters,
    renewals: Renewals,
    metrics: TokenMetrics,
    started: Instant,
}

type MintResult = Result<Token, MintError>;

/// Receiver of the result of a mint under way.
type ResultReceiver = watch::Receiver<Option<MintResult>>;

/// List of the mints in flight (begun and not ended), one for each key.
#[derive(Default)]
struct Board {
    by_request: HashMap<Arc<MintRequest>, Listed>,
    /// Number of mints started. Tells a mint from a later mint for the same key.
    started: u64,
    /// Oldest generation of credentials whose tokens are kept.
    oldest_generation: u64,
}

/// One mint in flight.
struct Listed {
    number: u64,
    receiver: ResultReceiver,
    demand: Arc<Demand>,
}

/// Answer to a look-up.
#[derive(Clone)]
pub enum Lookup {
    /// A token that may be served now, or the remembered reason why there is none.
    Ready(MintResult),
    /// A mint is under way. Dropping this value does not stop the mint.
    Pending(MintInFlight),
}

/// A mint under way that this caller started or joined.
#[derive(Clone)]
pub struct MintInFlight {
    receiver: ResultReceiver,
    demand: Arc<Demand>,
}

impl Lookup {
    /// Returns the result of the mint; waits at most `patience` for a mint under way.
    ///
    /// # Errors
    ///
    /// Returns the reason why the mint had not ended when `patience` ran out.
    pub async fn within(self, patience: Duration) -> Result<MintResult, Unfinished> {
        match self {
            Self::Ready(result) => Ok(result),
            // Boxed, because this case is rare and would make every request's future larger.
            Self::Pending(mint) => Box::pin(mint.result_within(patience)).await,
        }
    }
}

impl MintInFlight {
    async fn result_within(self, patience: Duration) -> Result<MintResult, Unfinished> {
        let demand = Arc::clone(&self.demand);
        let _waiting = demand.wait();
        timeout(patience, self.result()).await.map_err(|_| demand.unfinished(patience))
    }

    async fn result(mut self) -> MintResult {
        match self.receiver.wait_for(Option::is_some).await {
            Ok(result) => result.clone().expect("waited for"),
            // The sender was dropped without a result: only a panic does so.
            Err(_) => Err(MintError::Panicked),
        }
    }
}

impl TokenCache {
    /// Makes an empty cache in front of `mint`.
    pub fn new(mint: Arc<dyn Mint>, settings: &Settings, metrics: TokenMetrics) -> Self {
        // One weight keeps both bounds: an entry weighs its bytes, but at least its share of the bytes at the
        // largest number of entries.
        let least_weight = (settings.max_bytes / settings.max_entries).max(1);
        let capacity = (least_weight * settings.max_entries).min(settings.max_bytes);
        let evictions = metrics.evictions.clone();
        let slots = moka::sync::Cache::builder()
            .max_capacity(capacity)
            .weigher(move |key: &MintRequest, slot: &Slot| {
                u32::try_from(slot.bytes(key).max(least_weight)).unwrap_or(u32::MAX)
            })
            // TinyLFU could refuse a new user for ever while the cache is full of active users.
            .eviction_policy(EvictionPolicy::lru())
            .time_to_idle(SWEEP_AFTER)
            .eviction_listener(move |_, _, cause| {
                if cause == moka::notification::RemovalCause::Size {
                    evictions.inc();
                }
            })
            .build();
        let board = Mutex::default();
        let (minters, started) = (Minters::new(mint), Instant::now());
        let renewals = Renewals::default();
        let shared = Shared { slots, board, minters, renewals, metrics, started };
        Self { shared: Arc::new(shared) }
    }

    /// Looks `request` up and, if necessary, starts a mint or joins the mint under way. Never waits.
    ///
    /// # Panics
    ///
    /// Panics outside a tokio runtime, since a mint is a task.
    pub fn get(&self, request: MintRequest) -> Lookup {
        self.get_for(request, None, Moment::now())
    }

    /// Looks `request` up like [`Self::get`], at `now`. The mint's span goes into the trace of `cause`, if
    /// the request is recorded.
    ///
    /// # Panics
    ///
    /// Panics outside a tokio runtime, like [`Self::get`].
    pub fn get_for(&self, request: MintRequest, cause: Option<&Recording>, now: Moment) -> Lookup {
        let shared = &self.shared;
        if let Some(slot) = shared.slots.get(&request)
            && let Some((token, freshness)) = shared.servable(&request, &slot, now)
        {
            shared.note_served(&request, &slot, now);
            if freshness == Freshness::Fresh {
                shared.metrics.lookups.increment(LookupResult::Fresh);
            } else {
                shared.metrics.lookups.increment(LookupResult::Due);
                if shared.remembered_failure(&slot, now).is_none() {
                    shared.refresh(request, now, cause);
                }
            }
            return Lookup::Ready(Ok(token.clone()));
        }
        self.absent(request, now, cause)
    }

    /// Answers where no token may be served: with a remembered failure, the mint under way, or a new mint.
    fn absent(&self, request: MintRequest, now: Moment, cause: Option<&Recording>) -> Lookup {
        let shared = &self.shared;
        let mut board = shared.board();
        if let Some(mint) = board.join(&request) {
            shared.metrics.lookups.increment(LookupResult::Joined);
            mint.demand.ask();
            return Lookup::Pending(mint);
        }
        // Looks again under the lock: a mint may have stored its result since the first look.
        if let Some(slot) = shared.slots.get(&request) {
            if let Some((token, _)) = slot.servable(now) {
                shared.metrics.lookups.increment(LookupResult::Fresh);
                return Lookup::Ready(Ok(token.clone()));
            }
            if let Some(error) = shared.remembered_failure(&slot, now) {
                shared.metrics.lookups.increment(LookupResult::FailedRecently);
                return Lookup::Ready(Err(error));
            }
        }
        shared.metrics.lookups.increment(LookupResult::Started);
        let span = cause.map(Recording::begin_call);
        let demand = Demand::urgent();
        let (receiver, minting) = shared.enter_mint(&mut board, request, &demand, span);
        // A runtime that is shutting down drops a task where it is spawned, and the dropped task locks the
        // board to remove its entry.
        drop(board);
        tokio::spawn(minting);
        Lookup::Pending(MintInFlight { receiver, demand })
    }

    /// Makes `mint` the current one; mints under way go on with the previous one. With `new_credentials`,
    /// every token is refreshed at its next use, within ten minutes from now, and no failure of the old
    /// credentials is answered from memory any more.
    pub fn replace_mint(&self, mint: Arc<dyn Mint>, new_credentials: bool) {
        self.shared.minters.replace(mint, new_credentials);
    }

    /// Updates the gauges that describe the whole cache; called before a scrape.
    pub fn observe(&self) {
        let shared = &self.shared;
        shared.slots.run_pending_tasks();
        let now = Moment::now();
        let active_since = shared.seconds(now).saturating_sub(seconds(ACTIVE_WITHIN));
        let (mut bytes, mut tokens, mut superseded) = (0, 0, 0);
        let epoch = shared.minters.epoch();
        let mut headroom = f64::NAN;
        for (request, slot) in &shared.slots {
            bytes += slot.bytes(&request);
            let is_servable = slot.servable(now).is_some();
            tokens += i64::from(is_servable);
            superseded += i64::from(is_servable && slot.epoch != epoch);
            if slot.last_served > active_since {
                let left = slot.token().map_or(Duration::ZERO, |token| token.remaining(now));
                headroom = headroom.min(left.as_secs_f64());
            }
        }
        shared.metrics.cached.set(tokens);
        shared.metrics.superseded.set(superseded);
        shared.metrics.cached_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        shared.metrics.headroom.set(headroom);
    }
}

impl Shared {
    fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn seconds(&self, now: Moment) -> u32 {
        // Starts at 1, so that 0 can mean never.
        seconds(now.steady.saturating_duration_since(self.started)).saturating_add(1)
    }

    /// Returns the token and its freshness, unless there is no token or it has expired.
    fn servable<'a>(
        &self,
        request: &MintRequest,
        slot: &'a Slot,
        now: Moment,
    ) -> Option<(&'a Token, Freshness)> {
        let (token, freshness) = slot.servable(now)?;
        let superseded = self.minters.is_turn(slot.epoch, request, now);
        Some((token, if superseded { Freshness::Due } else { freshness }))
    }

    /// Notes for the outage headroom that the token of `slot` is served.
    fn note_served(&self, request: &MintRequest, slot: &Slot, now: Moment) {
        let at = self.seconds(now);
        if at < slot.last_served.saturating_add(seconds(NOTED_EVERY)) {
            return;
        }
        // Locked, so that no mint stores a result and no entry is forgotten between `get` and `insert`.
        let _no_result_is_stored = self.board();
        if let Some(slot) = self.slots.get(request) {
            self.slots.insert(request.clone(), slot.served(at));
        }
    }

    fn remembered_failure(&self, slot: &Slot, now: Moment) -> Option<MintError> {
        let failure = slot.failure_of(self.minters.epoch(), now)?;
        let elapsed = now.steady.saturating_duration_since(failure.failed_at);
        Some(failure.error.clone().after(elapsed))
    }

    /// Starts a mint for a token that is still good, unless a mint is under way or has just ended.
    fn refresh(self: &Arc<Self>, request: MintRequest, now: Moment, cause: Option<&Recording>) {
        let mut board = self.board();
        let held = self.slots.get(&request);
        let still_due = || {
            let slot = held.as_ref()?;
            let (_, freshness) = self.servable(&request, slot, now)?;
            Some(freshness == Freshness::Due && self.remembered_failure(slot, now).is_none())
        };
        if !board.by_request.contains_key(&request) && still_due().unwrap_or(true) {
            let span = cause.map(Recording::begin_call);
            let replaced = held.as_ref().and_then(Slot::token).cloned();
            let demand = Demand::refresh(replaced);
            let (_, minting) = self.enter_mint(&mut board, request, &demand, span);
            drop(board);
            tokio::spawn(minting);
        }
    }

    /// Enters a mint for `request` in `board`, so that there is one mint per key. The caller unlocks the
    /// board and then spawns the returned future, which mints.
    fn enter_mint(
        self: &Arc<Self>,
        board: &mut Board,
        request: MintRequest,
        demand: &Arc<Demand>,
        span: Option<OpenSpan>,
    ) -> (ResultReceiver, impl Future<Output = ()> + Send + 'static) {
        let request = Arc::new(request);
        let (sender, receiver) = watch::channel(None);
        board.started += 1;
        let number = board.started;
        let demand = Arc::clone(demand);
        let listed = Listed { number, receiver: receiver.clone(), demand: Arc::clone(&demand) };
        board.by_request.insert(Arc::clone(&request), listed);
        let entry = BoardEntry { shared: Arc::clone(self), request, number };
        let minting = async move {
            let result = entry.shared.mint(&entry.request, number, &demand).await;
            if let Some(span) = span {
                end_span(span, &entry.request, &result);
            }
            // The slot is stored, so the next caller may find no mint on the board from here on.
            drop(entry);
            sender.send_replace(Some(result));
        };
        (receiver, minting)
    }

    async fn mint(
        &self,
        request: &Arc<MintRequest>,
        number: u64,
        demand: &Arc<Demand>,
    ) -> MintResult {
        let _in_flight = GaugeGuard::raise(&self.metrics.mints_in_flight);
        let started = Moment::now();
        let asked = self.minters.current();
        let minted = asked.mint.mint(request, demand).await;
        let now = Moment::now();
        let epoch = match minted.as_ref().map(|minted| minted.origin) {
            Ok(Origin::Replica { superseded: true, .. }) => asked.epoch.wrapping_sub(1),
            _ => asked.epoch,
        };
        let is_from_replica = minted.as_ref().is_ok_and(|minted| minted.origin != Origin::Velt);
        let result = minted.map(|minted| Token::new(minted, request, now));
        if !is_from_replica {
            observe(&self.metrics.mint_duration, now.steady - started.steady);
            self.metrics.mints.increment(outcome(&result));
        }
        if let Err(error) = &result {
            // While calls are suspended or queued, Velt was not asked.
            if !matches!(error, MintError::Suspended { .. } | MintError::Queued) {
                self.metrics.recent.mint_failed(outcome(&result));
                warn!(error = %Chain(error), "a mint failed; it is not asked for again at once");
            }
        }
        self.store(request, (number, epoch), &result, now);
        result
    }

    /// Keeps the result of a mint, unless the mint was called off. A failure displaces no token that is still
    /// valid (`refused_refresh_discards_no_valid_token` in `tests/it/token_cache.rs`).
    fn store(
        &self,
        request: &Arc<MintRequest>,
        (number, epoch): (u64, u32),
        result: &MintResult,
        now: Moment,
    ) {
        // Locked to the end, so that no mint is called off between the check and the insertion.
        let board = self.board();
        let is_retired = request.issuer().credentials_generation < board.oldest_generation;
        if is_retired || !board.has(request, number) {
            return;
        }
        let old = self.slots.get(&**request);
        let slot = match result {
            // Mark the user as active: a mint starts only because this user has asked for a token.
            Ok(token) => Slot::minted(token.clone(), epoch, self.seconds(now)),
            Err(error) => {
                let last = old.as_ref().and_then(Slot::failure);
                let last = last.filter(|failure| failure.epoch == epoch);
                let count = last.map_or(0, |failure| failure.count) + 1;
                let retry_at = now.steady + memory_of(error, count);
                let (error, failed_at) = (error.clone(), now.steady);
                let failure = RememberedFailure { error, epoch, count, failed_at, retry_at };
                Slot::failed(failure, old.as_ref(), now)
            }
        };
        self.slots.insert(MintRequest::clone(request), slot);
    }
}

impl Board {
    /// Joins the mint for `request`, if one is under way.
    fn join(&self, request: &MintRequest) -> Option<MintInFlight> {
        let Listed { receiver, demand, .. } = self.by_request.get(request)?;
        Some(MintInFlight { receiver: receiver.clone(), demand: Arc::clone(demand) })
    }

    /// Whether the mint with this number is on the board for `request`.
    fn has(&self, request: &MintRequest, number: u64) -> bool {
        self.by_request.get(request).is_some_and(|listed| listed.number == number)
    }
}

/// Guard that takes a mint off the board when its task ends, also by a panic or by being dropped.
struct BoardEntry {
    shared: Arc<Shared>,
    request: Arc<MintRequest>,
    number: u64,
}

impl Drop for BoardEntry {
    fn drop(&mut self) {
        let mut board = self.shared.board();
        if board.has(&self.request, self.number) {
            board.by_request.remove(&self.request);
        }
        drop(board);
        if std::thread::panicking() {
            self.shared.metrics.mints.increment(MintOutcome::Panicked);
            self.shared.metrics.recent.mint_failed(MintOutcome::Panicked);
        }
    }
}

fn seconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(u32::MAX)
}

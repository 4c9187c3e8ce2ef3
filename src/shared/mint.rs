//! A mint that first looks whether another replica has had the token minted, and shares what it mints.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use crate::Inner;
use crate::entry::{Entry, Forget, parse_mark, subject_bytes};
use crate::place::Place;
use crate::protocol::{
    Answer, CLOCK_DIFFERENCE, Course, Facts, LEASE_LIFE, Mark, Nonce, Reason, Step, Verdict,
    Wanted, in_force, judge, millis,
};
use crate::seal::{Kind, Name};
use crate::store::Fault;
use crate::value::{bytes_of, is_ok, number_of};
use ground::metrics::{SharedLease, SharedRead, SharedWrite};
use token::{Demand, Mint, MintError, MintFuture, MintRequest, Minted, Origin, Stage, Token};

/// Time limit of a write, for which no request waits.
const WRITE_PATIENCE: Duration = Duration::from_secs(1);

/// Tokens with less life than this are not shared.
const SHORTEST_LIFE: Duration = Duration::from_secs(1);

/// Deletes a lease if this replica still holds it.
const RELEASE: &str =
    "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) end return 0";

/// Renews a lease if this replica still holds it.
const RENEW: &str = "if redis.call('get', KEYS[1]) == ARGV[1] then \
                     return redis.call('pexpire', KEYS[1], ARGV[2]) end return 0";

/// Events of replaced tokens that the store keeps at most. A replica that misses one serves its older token until it
/// refreshes itself.
const MAX_REPLACED: usize = 10_000;

/// A [`Mint`] that shares tokens through the store.
pub struct SharedMint {
    mint: Arc<dyn Mint>,
    shared: Arc<Inner>,
    credentials: Arc<Credentials>,
}

/// What a token's place and its worth depend on beside the request.
pub(crate) struct Credentials {
    pub(crate) api_key: String,
    /// Fingerprint of the auth token.
    pub(crate) fingerprint: [u8; 8],
}

/// What the store has for a request.
pub(crate) struct Look {
    /// Whether the lease was asked for and won.
    won: bool,
    /// Marks in force; `None` if one can't be read, so that no stored token can be judged.
    pub(crate) marks: Option<Vec<Mark>>,
    /// Token that may be served.
    found: Option<Minted>,
}

/// Time that one mint may still spend waiting for answers of the store.
struct Budget(Duration);

impl SharedMint {
    pub(crate) fn new(
        mint: Arc<dyn Mint>,
        shared: Arc<Inner>,
        credentials: Arc<Credentials>,
    ) -> Self {
        Self { mint, shared, credentials }
    }

    async fn course(
        &self,
        request: &MintRequest,
        demand: &Arc<Demand>,
    ) -> Result<Minted, MintError> {
        let place = Place::of(request, &self.credentials.api_key, &self.shared.keys());
        self.shared.index.insert(place.name(), request.clone());
        let (mut budget, mut course) = (Budget(self.shared.patience), Course::default());
        let (mut lease, mut waited) = (None, false);
        loop {
            let look = self.look(&place, lease.as_ref(), demand, &mut budget).await;
            let answer = match (&look, &lease) {
                (Err(_), _) => Answer::Fault,
                (Ok(look), None) => Answer::Read { usable: look.found.is_some() },
                (Ok(look), Some(_)) => {
                    Answer::Lease { won: look.won, usable: look.found.is_some() }
                }
            };
            let step = course.after(answer);
            match step {
                Step::TakeLease => lease = Some(nonce()),
                Step::Wait(pause) => {
                    waited = true;
                    // A store that answers takes no time from a request that waits for another replica's mint.
                    budget = Budget(self.shared.patience);
                    demand.reached(Stage::Called);
                    sleep(pause).await;
                }
                Step::Serve => {
                    let won = matches!(answer, Answer::Lease { won: true, .. });
                    self.release(&place, lease.filter(|_| won));
                    if waited {
                        self.shared.metrics.leases.increment(SharedLease::Awaited);
                    }
                    let found = look.ok().and_then(|look| look.found);
                    return Ok(found.expect("the step is to serve what was found"));
                }
                Step::Mint { leased } => {
                    let marks = look.ok().and_then(|look| look.marks);
                    if leased || waited {
                        let course = if leased { SharedLease::Won } else { SharedLease::GaveUp };
                        self.shared.metrics.leases.increment(course);
                    }
                    let lease = lease.filter(|_| leased);
                    return self.mint_and_share(request, demand, place, marks, lease).await;
                }
            }
        }
    }

    /// Reads what the store has, and asks for the lease if there is a nonce for it.
    async fn look(
        &self,
        place: &Place,
        lease: Option<&Nonce>,
        demand: &Demand,
        budget: &mut Budget,
    ) -> Result<Look, Fault> {
        let begun = Instant::now();
        let look = self.shared.look(place, lease, budget.0).await;
        budget.0 = budget.0.saturating_sub(begun.elapsed());
        let look = look.map(|raw| {
            let (result, found) =
                self.shared.found(&raw, demand.replaces(), self.credentials.fingerprint);
            (result, Look { won: raw.won, marks: raw.marks, found })
        });
        let result = look.as_ref().map_or(SharedRead::Fault, |(result, _)| *result);
        self.shared.metrics.reads.increment(result);
        look.map(|(_, look)| look)
    }

    async fn mint_and_share(
        &self,
        request: &MintRequest,
        demand: &Arc<Demand>,
        place: Place,
        marks: Option<Vec<Mark>>,
        lease: Option<Nonce>,
    ) -> Result<Minted, MintError> {
        let held = lease.map(|nonce| Lease {
            shared: Arc::clone(&self.shared),
            name: place.name(),
            nonce,
        });
        let minting = self.mint.mint(request, demand);
        let minted = match &held {
            Some(lease) => lease.renewed_while(minting).await,
            None => minting.await,
        };
        let Ok(minted) = minted else { return minted };
        let replaces = demand.replaces().is_some();
        let entry = self.entry(&minted, marks.as_deref());
        let (shared, request) = (Arc::clone(&self.shared), request.clone());
        // No request waits for the write.
        tokio::spawn(async move {
            shared.write(&place, entry, request, replaces).await;
            drop(held);
        });
        Ok(minted)
    }

    /// Makes the entry of a minted token. `None` if it can't be told which forgets the mint knew.
    fn entry(&self, minted: &Minted, marks: Option<&[Mark]>) -> Option<Entry> {
        let facts = Facts {
            minted_at: self.shared.now(),
            life: minted.life,
            known: marks?.iter().map(|mark| mark.nonce).collect(),
            credentials: self.credentials.fingerprint,
        };
        Some(Entry { facts, token: minted.value.clone() })
    }

    fn release(&self, place: &Place, lease: Option<Nonce>) {
        drop(lease.map(|nonce| Lease {
            shared: Arc::clone(&self.shared),
            name: place.name(),
            nonce,
        }));
    }
}

impl Mint for SharedMint {
    fn mint<'a>(&'a self, request: &'a MintRequest, demand: &'a Arc<Demand>) -> MintFuture<'a> {
        Box::pin(self.course(request, demand))
    }
}

/// A lease that this replica holds. Dropping it gives it back, also if the mint failed.
struct Lease {
    shared: Arc<Inner>,
    name: Name,
    nonce: Nonce,
}

impl Lease {
    /// Renews the lease until `minting` has ended.
    async fn renewed_while<T>(&self, minting: impl Future<Output = T>) -> T {
        let renewing = async {
            let mut ticks = interval(LEASE_LIFE / 3);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            // The first tick comes at once, and the lease is new.
            ticks.tick().await;
            let mut lost = false;
            loop {
                ticks.tick().await;
                let renewed = self.renew().await;
                // Told once. The mint goes on: it costs one more at most.
                if renewed == Ok(false) && !lost {
                    lost = true;
                    self.shared.metrics.leases.increment(SharedLease::Lost);
                }
            }
        };
        tokio::select! {
            minted = minting => minted,
            () = renewing => unreachable!("renews for ever"),
        }
    }

    async fn renew(&self) -> Result<bool, Fault> {
        let mut command = redis::cmd("EVAL");
        command.arg(RENEW).arg(1).arg(self.shared.store_keys.lease(self.name));
        command.arg(&self.nonce[..]).arg(millis(LEASE_LIFE));
        let answers = self.shared.store.call(vec![command], WRITE_PATIENCE).await?;
        Ok(answers.first().and_then(number_of) == Some(1))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut command = redis::cmd("EVAL");
        command
            .arg(RELEASE)
            .arg(1)
            .arg(self.shared.store_keys.lease(self.name))
            .arg(&self.nonce[..]);
        let store = self.shared.store.clone();
        // A runtime that ends drops its tasks; then the lease ends by itself.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                // A lease that is not given back ends by itself in a few seconds.
                let _ = store.call(vec![command], WRITE_PATIENCE).await;
            });
        }
    }
}

/// What was read of the store, opened and not yet judged.
pub(crate) struct RawLook {
    won: bool,
    /// Each with the time that the store will keep it.
    pub(crate) entries: Vec<(Entry, Option<Duration>)>,
    /// Whether there was content that does not open.
    unreadable: bool,
    /// Marks in force; `None` if one can't be read, so that no stored token can be judged.
    pub(crate) marks: Option<Vec<Mark>>,
    /// Forgets of which the store has a mark, and this replica has not heard.
    pub(crate) unheard: Vec<Forget>,
}

impl Inner {
    /// Reads the entries and marks of `place` in one round trip, after asking for the lease if there is a nonce.
    pub(crate) async fn look(
        &self,
        place: &Place,
        lease: Option<&Nonce>,
        within: Duration,
    ) -> Result<RawLook, Fault> {
        let mut commands = Vec::with_capacity(8);
        if let Some(nonce) = lease {
            let mut set = redis::cmd("SET");
            set.arg(self.store_keys.lease(place.name())).arg(&nonce[..]);
            set.arg("NX").arg("PX").arg(millis(LEASE_LIFE));
            commands.push(set);
        }
        for name in place.names() {
            let key = self.store_keys.entry(*name);
            let mut get = redis::cmd("GET");
            get.arg(&key);
            let mut left = redis::cmd("PTTL");
            left.arg(&key);
            commands.extend([get, left]);
        }
        let keys = self.keys();
        let marks =
            place.subjects().iter().map(|subject| keys.names(Kind::Mark, &subject_bytes(subject)));
        let marks: Vec<Vec<Name>> = marks.collect();
        for name in marks.iter().flatten() {
            let mut get = redis::cmd("GET");
            get.arg(self.store_keys.mark(*name));
            commands.push(get);
        }
        let answers = self.store.call(commands, within).await?;
        let mut answers = answers.iter();
        let won = lease.is_some() && answers.next().is_some_and(is_ok);
        let (mut entries, mut unreadable) = (Vec::new(), false);
        for name in place.names() {
            let (sealed, left) = (answers.next().and_then(bytes_of), answers.next());
            let Some(sealed) = sealed else { continue };
            let opened = keys.open(Kind::Entry, name.bytes(), sealed);
            match opened.as_deref().and_then(Entry::parse) {
                Some(entry) => entries.push((entry, left.and_then(time_left))),
                None => unreadable = true,
            }
        }
        let (mut in_force_marks, mut unheard) = (Some(Vec::new()), Vec::new());
        for (subject, names) in place.subjects().iter().zip(&marks) {
            let mut stored = None;
            for name in names {
                let Some(sealed) = answers.next().and_then(bytes_of) else { continue };
                let opened = keys.open(Kind::Mark, name.bytes(), sealed);
                match opened.as_deref().and_then(parse_mark) {
                    Some(mark) => stored = in_force(stored, Some(mark)),
                    None => in_force_marks = None,
                }
            }
            let heard = self.heard.mark(subject);
            if let Some(mark) = stored.filter(|mark| Some(*mark) > heard) {
                unheard.push(Forget { subject: subject.clone(), mark, logout_at: None });
            }
            if let (Some(marks), Some(mark)) = (&mut in_force_marks, in_force(stored, heard)) {
                marks.push(mark);
            }
        }
        Ok(RawLook { won, entries, unreadable, marks: in_force_marks, unheard })
    }

    /// Returns the token to be served of what was read, if there is one: another and younger one than `replaces`.
    fn found(
        &self,
        raw: &RawLook,
        replaces: Option<&Token>,
        credentials: [u8; 8],
    ) -> (SharedRead, Option<Minted>) {
        let Some(marks) = &raw.marks else { return (SharedRead::Unreadable, None) };
        let wanted = replaces.map_or(Wanted::Any, |token| {
            Wanted::Younger(millis(self.since_1970(token.minted_at())))
        });
        let mut result = if raw.unreadable { SharedRead::Unreadable } else { SharedRead::Absent };
        for (entry, left) in &raw.entries {
            let life = entry.facts.life;
            let is_same = replaces.is_some_and(|token| *token.value() == entry.token);
            result = match judge(&entry.facts, marks, wanted, credentials, self.now()) {
                Verdict::Serve { .. } if is_same => SharedRead::Old,
                Verdict::Serve { age, superseded } => {
                    // The store's clock tells a clock that is late here.
                    let by_store = left.map_or(age, |left| life.saturating_sub(left));
                    let is_late = by_store > age + CLOCK_DIFFERENCE;
                    let age = if is_late { by_store } else { age };
                    let origin = Origin::Replica { age, superseded };
                    let minted = Minted { value: entry.token.clone(), life, origin };
                    return (SharedRead::Served, Some(minted));
                }
                Verdict::Ignore(Reason::Forgotten) => SharedRead::Forgotten,
                Verdict::Ignore(Reason::Ended) => SharedRead::Ended,
                Verdict::Ignore(Reason::Old) => SharedRead::Old,
                Verdict::Ignore(Reason::Clock) => SharedRead::Clock,
            };
        }
        (result, None)
    }

    /// Reads the store for a younger token than the one that is held for `request`.
    pub(crate) async fn younger(&self, request: &MintRequest, held: &Token) -> Option<Minted> {
        let credentials = self.credentials.load_full()?;
        let place = Place::of(request, &credentials.api_key, &self.keys());
        // A fault only means that this replica serves its older token until it refreshes itself.
        let raw = self.look(&place, None, WRITE_PATIENCE).await.ok()?;
        self.found(&raw, Some(held), credentials.fingerprint).1
    }

    /// Writes a minted token, and tells the other replicas if it replaces one. A token that the store does not take is
    /// noted, and tried again later.
    async fn write(
        &self,
        place: &Place,
        entry: Option<Entry>,
        request: MintRequest,
        replaces: bool,
    ) {
        let Some(entry) = entry else { return self.note_unwritten(request) };
        if entry.facts.life < SHORTEST_LIFE {
            return;
        }
        let mut commands = vec![self.set_entry(place.name(), &entry)];
        if replaces {
            commands.push(self.add_replaced(place.name()));
        }
        match self.store.call(commands, WRITE_PATIENCE).await {
            Ok(_) => self.metrics.writes.increment(SharedWrite::Written),
            Err(_) => {
                self.metrics.writes.increment(SharedWrite::Failed);
                self.note_unwritten(request);
            }
        }
    }

    /// Makes the command that stores `entry` for the rest of its life.
    pub(crate) fn set_entry(&self, name: Name, entry: &Entry) -> redis::Cmd {
        let sealed = self.keys().seal(Kind::Entry, name.bytes(), entry.bytes());
        let age = self.now().saturating_sub(entry.facts.minted_at);
        let left = millis(entry.facts.life).saturating_sub(age).max(1);
        let mut set = redis::cmd("SET");
        set.arg(self.store_keys.entry(name)).arg(sealed).arg("PX").arg(left);
        set
    }

    fn add_replaced(&self, name: Name) -> redis::Cmd {
        let event = crate::entry::Event::Replaced(name);
        let sealed = self.keys().seal(Kind::Event, b"", event.bytes());
        let mut add = redis::cmd("XADD");
        add.arg(self.store_keys.replaced()).arg("MAXLEN").arg("~").arg(MAX_REPLACED);
        add.arg("*").arg("e").arg(sealed);
        add
    }
}

/// Returns the time that the store keeps a key; `None` if it keeps it for ever, or has no such key.
fn time_left(answer: &redis::Value) -> Option<Duration> {
    number_of(answer).and_then(|left| u64::try_from(left).ok()).map(Duration::from_millis)
}

/// Returns a random number.
pub(crate) fn nonce() -> Nonce {
    let mut nonce = [0; 16];
    aws_lc_rs::rand::fill(&mut nonce).expect("the system has random numbers");
    nonce
}

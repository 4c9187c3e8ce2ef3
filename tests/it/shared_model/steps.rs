//! Steps of the model: what each replica, the store, its operator and an attacker may do next.

use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};
use std::time::Duration;

use shared::protocol::{
    Answer, Course, Facts, Mark, Step as Decision, Verdict, Wanted, in_force, judge,
};
use stateright::{Model, Property};

use super::flaw::Flaw;
use super::forgets::announce;
use super::world::{
    Content, Entry, Limits, Minting, Replica, Seen, Stage, Telling, Token, User, World,
};

const NOW: u64 = 1_800_000_000_000;
pub const LIFE: Duration = Duration::from_secs(48 * 3600);
pub const CREDENTIALS: [u8; 8] = [7; 8];

/// One step. The first number is the replica's, the second the mint's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Ask(usize),
    Refresh(usize),
    Mint(usize, usize),
    Forget(usize),
    Tell(usize),
    TellLater(usize),
    Hear(usize),
    Walk(usize),
    Rewrite(usize),
    Die(usize),
    Cut(usize),
    Heal(usize),
    Expire,
    Copy,
    Lose,
    Flush,
    Swap(usize),
    SwapUser,
}

/// Replicas and a store, and the bounds within which their steps are explored.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// Milliseconds by which the clock of each replica is ahead.
    pub clocks: Vec<u64>,
    pub limits: Limits,
    /// Time for which a replica waits for another replica's mint.
    pub patience: Duration,
    pub flaw: Flaw,
}

impl Cluster {
    pub fn now(&self, replica: usize, world: &World) -> u64 {
        NOW + u64::from(world.tokens) + self.clocks[replica]
    }

    pub fn has(&self, flaw: Flaw) -> bool {
        self.flaw == flaw
    }

    /// Takes a request: a hit, a mint that is joined, or a new mint.
    fn ask(&self, world: &mut World, at: usize) {
        let replica = &mut world.replicas[at];
        let asked_after = replica.forgot;
        if let Some(token) = replica.held {
            world.hand(token, asked_after);
        } else if let Some(mint) = replica.mints.iter_mut().find(|mint| !mint.is_called_off) {
            mint.awaited_after = mint.awaited_after.max(Some(asked_after));
        } else {
            replica.mints.push(self.mint(Wanted::Any, Some(asked_after)));
        }
    }

    fn mint(&self, wanted: Wanted, awaited_after: Option<u8>) -> Minting {
        Minting {
            stage: Stage::Look { lease: None },
            course: Course::with_patience(self.patience),
            waits_out: false,
            wanted,
            awaited_after,
            is_called_off: false,
            is_expired: false,
            steps: 0,
        }
    }

    /// Takes one step of a mint.
    fn go_on(&self, world: &mut World, at: usize, index: usize) {
        let mut mint = world.replicas[at].mints.remove(index);
        let is_connected = world.replicas[at].is_connected;
        let goes_on = match mint.stage.clone() {
            Stage::Look { .. } | Stage::Judge { .. } if !is_connected => {
                self.decide(world, at, &mut mint, Answer::Fault, None)
            }
            Stage::Look { lease } => {
                mint.steps += 1;
                let won = lease.is_some() && world.store.lease.is_none();
                if won {
                    world.store.lease = lease;
                }
                mint.stage = Stage::Judge { lease, won, entry: world.store.entry.clone() };
                true
            }
            Stage::Judge { lease, won, entry } => {
                let found = entry.filter(|entry| self.is_usable(world, at, entry, mint.wanted));
                let usable = found.is_some();
                let answer = match lease {
                    None => Answer::Read { usable },
                    Some(_) => Answer::Lease { won, usable },
                };
                self.decide(world, at, &mut mint, answer, found)
            }
            Stage::Velt { lease, known, after } => {
                self.end_call(world, at, &mut mint, lease, known, after);
                true
            }
            Stage::Write { lease, entry } => {
                self.write(world, at, lease, entry);
                false
            }
        };
        if goes_on {
            world.replicas[at].mints.insert(index, mint);
        }
    }

    /// Returns the marks in force on a replica.
    pub fn marks(&self, world: &World, at: usize) -> Vec<Mark> {
        let heard = world.replicas[at].heard.filter(|_| !self.has(Flaw::TrustsTheStore));
        in_force(world.store.mark, heard).into_iter().collect()
    }

    /// Whether a replica serves a stored entry.
    pub fn is_usable(&self, world: &World, at: usize, entry: &Entry, wanted: Wanted) -> bool {
        let opens = entry.sealed_for == User::Ours || self.has(Flaw::SealsForAnyPlace);
        let marks = if self.has(Flaw::IgnoresMarks) { Vec::new() } else { self.marks(world, at) };
        let verdict = judge(&entry.facts, &marks, wanted, CREDENTIALS, self.now(at, world));
        opens && matches!(verdict, Verdict::Serve { .. })
    }

    /// Lets the product decide what a mint does next. Returns whether the mint goes on.
    fn decide(
        &self,
        world: &mut World,
        at: usize,
        mint: &mut Minting,
        answer: Answer,
        found: Option<Entry>,
    ) -> bool {
        let (Stage::Look { lease } | Stage::Judge { lease, .. }) = mint.stage else {
            unreachable!("only these stages have an answer of the store's")
        };
        let waits = matches!(answer, Answer::Lease { won: false, usable: false });
        let decision = if waits && self.has(Flaw::WaitsForEver) {
            Decision::Wait(Duration::ZERO)
        } else {
            mint.course.after(answer)
        };
        match decision {
            Decision::TakeLease => {
                world.leases += 1;
                mint.stage = Stage::Look { lease: Some(world.leases) };
            }
            // Each step may come at any time, so the pause is no step of its own.
            Decision::Wait(_) => mint.stage = Stage::Look { lease },
            Decision::WaitOut(_) => {
                mint.waits_out = true;
                mint.stage = Stage::Look { lease: None };
            }
            Decision::Serve => {
                let token = found.expect("the step is to serve what was found").token;
                Self::settle(world, at, mint, token);
                world.seen.shared = true;
                world.seen.outlasted |= mint.waits_out;
                if matches!(answer, Answer::Lease { won: true, .. }) {
                    self.release(world, lease);
                }
                return false;
            }
            Decision::Mint { leased } => {
                world.seen.gave_up |= waits;
                let marks = self.marks(world, at);
                let known = (answer != Answer::Fault)
                    .then(|| marks.into_iter().map(|mark| mark.nonce).collect());
                let (lease, after) = (lease.filter(|_| leased), world.forgets);
                mint.stage = Stage::Velt { lease, known, after };
            }
        }
        true
    }

    /// Ends a call to Velt.
    fn end_call(
        &self,
        world: &mut World,
        at: usize,
        mint: &mut Minting,
        lease: Option<u8>,
        known: Option<Vec<[u8; 16]>>,
        after: u8,
    ) {
        world.tokens += 1;
        let minted_at = self.now(at, world);
        let token = Token { user: User::Ours, minted_at, after };
        Self::settle(world, at, mint, token);
        let known = if self.has(Flaw::ReadsMarksLate) {
            Some(self.marks(world, at).into_iter().map(|mark| mark.nonce).collect())
        } else {
            known
        };
        let entry = known.map(|known| Entry {
            sealed_for: User::Ours,
            facts: Facts { minted_at, life: LIFE, known, credentials: CREDENTIALS },
            token,
        });
        mint.stage = Stage::Write { lease, entry };
        mint.awaited_after = None;
        // The task of the cache has ended; the write goes on by itself.
        mint.is_called_off = true;
    }

    /// Hands a token to those who wait, and keeps it, unless a forget came in between.
    fn settle(world: &mut World, at: usize, mint: &Minting, token: Token) {
        if let Some(asked_after) = mint.awaited_after {
            world.hand(token, asked_after);
        }
        if !mint.is_called_off {
            world.replicas[at].held = Some(token);
        }
    }

    fn write(&self, world: &mut World, at: usize, lease: Option<u8>, entry: Option<Entry>) {
        if !world.replicas[at].is_connected || entry.is_none() {
            world.replicas[at].is_unshared = true;
        }
        if !world.replicas[at].is_connected {
            return;
        }
        if let Some(entry) = entry {
            self.put(world, entry);
        }
        if lease.is_some() {
            self.release(world, lease);
        }
    }

    /// Stores an entry. An attacker keeps what was there.
    pub fn put(&self, world: &mut World, entry: Entry) {
        if self.limits.swaps > 0 && !world.kept.contains(&entry) {
            world.kept.push(entry.clone());
        }
        world.store.entry = Some(entry);
    }

    fn release(&self, world: &mut World, lease: Option<u8>) {
        if world.store.lease == lease || self.has(Flaw::ReleasesAnyLease) {
            world.store.lease = None;
        }
    }

    /// Ends the lease of the store before its holder gives it back.
    fn expire(world: &mut World) {
        if let Some(ended) = world.store.lease.take() {
            let mints = world.replicas.iter_mut().flat_map(|replica| &mut replica.mints);
            for mint in mints.filter(|mint| lease_of(mint) == Some(ended)) {
                mint.is_expired = true;
            }
        }
    }

    /// Replaces the store's content; each replica has to connect anew.
    fn replace(world: &mut World, content: Content) {
        let lease = content.lease;
        if world.store.lease != lease {
            Self::expire(world);
        }
        world.store = content;
        world.replicas.iter_mut().for_each(|replica| replica.hears = false);
    }

    /// Returns an entry of another user, sealed for its own place.
    fn foreign() -> Entry {
        let token = Token { user: User::Other, minted_at: NOW, after: u8::MAX };
        let facts =
            Facts { minted_at: NOW, life: LIFE, known: Vec::new(), credentials: CREDENTIALS };
        Entry { sealed_for: User::Other, facts, token }
    }
}

/// Returns the lease that a mint believes to hold.
pub fn lease_of(mint: &Minting) -> Option<u8> {
    match &mint.stage {
        Stage::Velt { lease, .. }
        | Stage::Write { lease, .. }
        | Stage::Judge { lease, won: true, .. } => *lease,
        _ => None,
    }
}

impl Model for Cluster {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        // As after a while without a request.
        let heard = Replica { hears: true, era: Some(0), ..Replica::new() };
        let replicas = self.clocks.iter().map(|_| heard.clone()).collect();
        vec![World {
            store: Content::default(),
            copy: None,
            kept: Vec::new(),
            replicas,
            left: self.limits,
            forgets: 0,
            tokens: 0,
            leases: 0,
            ids: 0,
            seen: Seen::default(),
        }]
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        steps.extend(own_steps(world));
        let left = world.left;
        for (at, replica) in world.replicas.iter().enumerate() {
            let may = |times: u8, is_possible: bool, step: fn(usize) -> Step| {
                (times > 0 && is_possible).then(|| step(at))
            };
            let is_free = replica.mints.iter().all(|mint| mint.is_called_off);
            steps.extend(
                [
                    may(left.asks, true, Step::Ask),
                    may(left.refreshes, replica.held.is_some() && is_free, Step::Refresh),
                    may(left.forgets, replica.telling.is_none(), Step::Forget),
                    may(left.deaths, true, Step::Die),
                    may(left.cuts, replica.is_connected, Step::Cut),
                ]
                .into_iter()
                .flatten(),
            );
        }
        let store = [
            (left.expiries > 0 && world.store.lease.is_some(), Step::Expire),
            (left.losses > 0 && world.copy.as_ref() != Some(&world.store), Step::Copy),
            (left.losses > 0 && world.copy.is_some(), Step::Lose),
            (left.flushes > 0, Step::Flush),
            (left.swaps > 0, Step::SwapUser),
        ];
        steps.extend(store.into_iter().filter_map(|(may, step)| may.then_some(step)));
        if left.swaps > 0 {
            steps.extend((0..world.kept.len()).map(Step::Swap));
        }
    }

    fn next_state(&self, last: &World, step: Step) -> Option<World> {
        let mut world = last.clone();
        let left = &mut world.left;
        match step {
            Step::Ask(at) => {
                left.asks -= 1;
                self.ask(&mut world, at);
            }
            Step::Refresh(at) => {
                left.refreshes -= 1;
                let held = world.replicas[at].held.expect("only a token that is held is due");
                let mint = self.mint(Wanted::Younger(held.minted_at), None);
                world.replicas[at].mints.push(mint);
            }
            Step::Mint(at, index) => self.go_on(&mut world, at, index),
            Step::Forget(at) => {
                left.forgets -= 1;
                world.forgets += 1;
                world.replicas[at].telling = Some(Telling::Forget(world.forgets));
            }
            Step::Tell(at) => self.tell(&mut world, at),
            Step::TellLater(at) => {
                let World { store, replicas, ids, .. } = &mut world;
                if let Some(mark) = replicas[at].untold.take() {
                    announce(store, ids, mark);
                }
            }
            Step::Hear(at) => self.hear(&mut world, at),
            Step::Walk(at) => self.walk(&mut world.replicas[at]),
            Step::Rewrite(at) => self.rewrite(&mut world, at),
            Step::Die(at) => {
                left.deaths -= 1;
                world.replicas[at] = Replica::new();
            }
            Step::Cut(at) => {
                left.cuts -= 1;
                (world.replicas[at].is_connected, world.replicas[at].hears) = (false, false);
            }
            Step::Heal(at) => world.replicas[at].is_connected = true,
            Step::Expire => {
                left.expiries -= 1;
                Self::expire(&mut world);
            }
            Step::Copy => world.copy = Some(world.store.clone()),
            Step::Lose => {
                left.losses -= 1;
                let copy = world.copy.take().expect("only a copy that was made");
                Self::replace(&mut world, copy);
            }
            Step::Flush => {
                left.flushes -= 1;
                let era = world.store.era + 1;
                Self::replace(&mut world, Content { era, ..Content::default() });
            }
            Step::Swap(index) => {
                left.swaps -= 1;
                world.store.entry = Some(world.kept[index].clone());
            }
            Step::SwapUser => {
                left.swaps -= 1;
                world.store.entry = Some(Self::foreign());
            }
        }
        let is_new = world != *last;
        if self.clocks.iter().all(|clock| *clock == self.clocks[0]) {
            // Replicas whose clocks are the same can change their places: explores one order of them.
            world.replicas.sort_by_cached_key(|it| {
                BuildHasherDefault::<DefaultHasher>::default().hash_one(it)
            });
        }
        is_new.then_some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        super::properties()
    }
}

/// Returns the steps that replicas take by themselves.
pub fn own_steps(world: &World) -> Vec<Step> {
    let mut steps = Vec::new();
    for (at, replica) in world.replicas.iter().enumerate() {
        steps.extend((0..replica.mints.len()).map(|index| Step::Mint(at, index)));
        let is_heard = replica.hears
            && replica.era == Some(world.store.era)
            && world.store.events.iter().all(|event| event.id <= replica.position);
        let may = [
            (replica.telling.is_some(), Step::Tell(at)),
            (replica.is_connected && !is_heard && replica.due.is_none(), Step::Hear(at)),
            (replica.due.is_some(), Step::Walk(at)),
            (replica.hears && replica.untold.is_some(), Step::TellLater(at)),
            (
                replica.rewriting.is_some() || (replica.hears && replica.is_unshared),
                Step::Rewrite(at),
            ),
            (!replica.is_connected, Step::Heal(at)),
        ];
        steps.extend(may.into_iter().filter_map(|(may, step)| may.then_some(step)));
    }
    steps
}

//! Replicas, the store and Velt, driven by requests.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::ops::Range;

use shared::protocol::{Answer, Course, Step, Wanted, millis};

use super::draws::Draws;
use super::held::{Held, Known};
use super::lives::Lives;
use super::store::{Call, Store};
use super::tally::{Census, Figures, Seen, Tally};
use super::traffic::Request;
use super::{BOUNDS, Events, Millis, SECOND, Scenario, Size, User, entries_within};

/// Time that Velt takes for a mint.
pub const MINT_LATENCY: Millis = 200;

/// Time for which the first failure is answered from memory; doubles with each failure in a row, up to 30 s
/// (`memory_of` in `src/token/cache/ending.rs`).
const FAILURE_MEMORY: Millis = SECOND;
const LONGEST_FAILURE_MEMORY: Millis = 30 * SECOND;

/// All replicas in virtual time.
pub struct Cluster<'a> {
    size: Size,
    scenario: Scenario,
    lives: &'a Lives,
    events: Events,
    /// Waves of rollouts that have passed.
    waves_done: usize,
    pods: Vec<(Pod, Held)>,
    /// Number of pods so far.
    pods_begun: u32,
    /// Pod with which each user stays.
    homes: Vec<Option<Pod>>,
    store: Option<Store>,
    /// Replicas that may hold the token of a user: a bit for each replica, in as many words for each user.
    /// Empty without a store, when no replica hears of another.
    holders: Vec<u64>,
    words: usize,
    /// Mints under way, from the first question to the store on.
    minting: HashMap<(Pod, User), Minting>,
    /// Calls to Velt, in the order of their ends.
    calls: VecDeque<(Millis, Pod, User)>,
    /// Ends of the pauses of those who wait for another replica's mint.
    pauses: BinaryHeap<Reverse<(Millis, Pod, User)>>,
    failures: HashMap<(Pod, User), Failure>,
    draws: Draws,
    seen: Vec<Seen>,
    /// Number of tokens so far.
    minted: u32,
    tally: Tally,
}

/// Pod in the place of a replica. Its number tells it from the pod that takes its place.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Pod {
    place: u32,
    number: u32,
}

/// A mint under way.
struct Minting {
    wanted: Wanted,
    /// Whether a request waits for it.
    is_awaited: bool,
    is_leased: bool,
    course: Course,
}

struct Failure {
    count: u32,
    until: Millis,
}

impl<'a> Cluster<'a> {
    /// Starts replicas with empty caches.
    pub fn new(
        size: Size,
        scenario: Scenario,
        lives: &'a Lives,
        events: Events,
        seed: u64,
    ) -> Self {
        let pods = (0..size.replicas).map(|place| (Pod { place, number: place }, empty()));
        let words = size.replicas.div_ceil(64) as usize;
        let bits = if scenario.second_level { size.users as usize * words } else { 0 };
        Self {
            size,
            scenario,
            lives,
            events,
            waves_done: 0,
            pods: pods.collect(),
            pods_begun: size.replicas,
            homes: vec![None; size.users as usize],
            store: scenario.second_level.then(|| Store::new(size.users)),
            holders: vec![0; bits],
            words,
            minting: HashMap::new(),
            calls: VecDeque::new(),
            pauses: BinaryHeap::new(),
            failures: HashMap::new(),
            // The traffic has a sequence of its own, so that it is the same in each scenario.
            draws: Draws::new(!seed),
            seen: vec![Seen::default(); size.users as usize],
            minted: 0,
            tally: Tally::default(),
        }
    }

    /// Takes a request, after all that happens before it.
    pub fn ask(&mut self, request: Request) {
        let Request { at, user, begins_session } = request;
        self.go_on_until(at);
        let is_down = self.events.outage.contains(&at);
        self.seen[user as usize].ask(begins_session, at, is_down, &mut self.tally);
        let pod = self.route(user);
        let held = self.held(pod).and_then(|held| held.look_up(user, at));
        match held.filter(|known| self.lives.lives(known.minted_at, at)) {
            Some(known) => {
                self.hand(user, known, at);
                if self.lives.is_due(user, known.minted_at, at) {
                    let wanted = Wanted::Younger(known.minted_at.into());
                    self.ask_once(pod, user, wanted, at);
                }
            }
            None => self.miss(pod, user, at),
        }
    }

    /// Lets the time pass to the end, and returns the counts.
    pub fn end(mut self, until: Millis) -> Figures {
        self.go_on_until(until);
        Figures { size: self.size, scenario: self.scenario, tally: self.tally }
    }

    /// Lets everything happen that is to happen up to `now`, in its order.
    fn go_on_until(&mut self, now: Millis) {
        loop {
            let call = self.calls.front().map_or(Millis::MAX, |(ends_at, ..)| *ends_at);
            let pause = self.pauses.peek().map_or(Millis::MAX, |Reverse((ends_at, ..))| *ends_at);
            let wave = self.events.waves.get(self.waves_done).map_or(Millis::MAX, |wave| wave.0);
            let census = self.events.census;
            let next = call.min(pause).min(wave).min(census);
            if next > now {
                return;
            }
            if next == census {
                self.events.census = Millis::MAX;
                self.count_tokens(census);
            } else if next == call {
                let (_, pod, user) = self.calls.pop_front().expect("the front was looked at");
                self.end_call(pod, user, next);
            } else if next == pause {
                let Reverse((_, pod, user)) = self.pauses.pop().expect("the top was looked at");
                let answer = self.take_lease(pod, user, next);
                self.go_on(pod, user, answer, next);
            } else {
                self.replace_pods();
            }
        }
    }

    /// Picks the replica for a request of `user`.
    fn route(&mut self, user: User) -> Pod {
        if let Some(home) = self.homes[user as usize]
            && self.pods[home.place as usize].0 == home
        {
            return home;
        }
        let (pod, _) = self.pods[self.draws.below(self.size.replicas) as usize];
        if self.scenario.affinity {
            self.homes[user as usize] = Some(pod);
        }
        pod
    }

    /// Returns the cache of a pod that has not been replaced.
    fn held(&mut self, pod: Pod) -> Option<&mut Held> {
        let (in_place, held) = &mut self.pods[pod.place as usize];
        (*in_place == pod).then_some(held)
    }

    /// Answers where the replica holds no token that may be served.
    fn miss(&mut self, pod: Pod, user: User, at: Millis) {
        if self.failed_recently(pod, user, at) {
            self.deny(user, at);
            return;
        }
        self.tally.day(at).waits += 1;
        self.ask_once(pod, user, Wanted::Any, at);
    }

    /// Begins a mint, or joins the one under way in the same pod. A request waits for any token, and no
    /// request for a younger one.
    fn ask_once(&mut self, pod: Pod, user: User, wanted: Wanted, at: Millis) {
        let is_awaited = wanted == Wanted::Any;
        if let Some(minting) = self.minting.get_mut(&(pod, user)) {
            minting.is_awaited |= is_awaited;
            return;
        }
        if self.failed_recently(pod, user, at) {
            return;
        }
        let course = Course::default();
        let minting = Minting { wanted, is_awaited, is_leased: false, course };
        self.minting.insert((pod, user), minting);
        if self.store.is_some() {
            self.tally.call(Call::Read, at);
            let usable = self.usable(pod, user, at).is_some();
            self.go_on(pod, user, Answer::Read { usable }, at);
        } else {
            self.call_velt(pod, user, at);
        }
    }

    /// Takes the steps of a mint through the store, as the product decides them.
    fn go_on(&mut self, pod: Pod, user: User, mut answer: Answer, at: Millis) {
        loop {
            // A mint that has ended in between asks no more.
            let Some(minting) = self.minting.get_mut(&(pod, user)) else { return };
            match minting.course.after(answer) {
                Step::TakeLease => answer = self.take_lease(pod, user, at),
                Step::Wait(pause) | Step::WaitOut(pause) => {
                    let pause = Millis::try_from(millis(pause)).expect("a short pause");
                    self.pauses.push(Reverse((at + pause, pod, user)));
                    return;
                }
                Step::Mint { leased } => {
                    minting.is_leased = leased;
                    self.call_velt(pod, user, at);
                    return;
                }
                Step::Serve => {
                    let known = self.usable(pod, user, at).expect("the answer said so");
                    self.settle(pod, user, known, at);
                    return;
                }
            }
        }
    }

    /// Returns the stored token that the mint of `user` under way in `pod` makes use of.
    fn usable(&self, pod: Pod, user: User, at: Millis) -> Option<Known> {
        let wanted = self.minting.get(&(pod, user))?.wanted;
        let known = self.store.as_ref()?.entry(user)?;
        Lives::is_usable(known.minted_at, wanted, at).then_some(known)
    }

    /// Asks for the lease, and reads again. Gives the lease back if there is no need of it any more.
    fn take_lease(&mut self, pod: Pod, user: User, at: Millis) -> Answer {
        let usable = self.usable(pod, user, at).is_some();
        let Some(store) = &mut self.store else { return Answer::Fault };
        self.tally.call(Call::Lease, at);
        let won = store.lease(user);
        if won && usable {
            store.release(user);
            self.tally.call(Call::Release, at);
        }
        Answer::Lease { won, usable }
    }

    fn call_velt(&mut self, pod: Pod, user: User, at: Millis) {
        if self.events.outage.contains(&at) {
            self.fail(pod, user, at);
            return;
        }
        self.tally.mint(at);
        self.calls.push_back((at + MINT_LATENCY, pod, user));
    }

    /// Ends a mint while Velt is down: at once, and remembered.
    fn fail(&mut self, pod: Pod, user: User, at: Millis) {
        let Some(minting) = self.minting.remove(&(pod, user)) else { return };
        self.release(user, minting.is_leased, at);
        let failure = self.failures.entry((pod, user)).or_insert(Failure { count: 0, until: 0 });
        let memory = FAILURE_MEMORY << failure.count.min(16);
        failure.until = at + memory.min(LONGEST_FAILURE_MEMORY);
        failure.count += 1;
        if minting.is_awaited {
            self.deny(user, at);
        }
    }

    fn release(&mut self, user: User, is_leased: bool, at: Millis) {
        if let Some(store) = self.store.as_mut().filter(|_| is_leased) {
            store.release(user);
            self.tally.call(Call::Release, at);
        }
    }

    fn failed_recently(&self, pod: Pod, user: User, at: Millis) -> bool {
        self.failures.get(&(pod, user)).is_some_and(|failure| at < failure.until)
    }

    /// Ends a call to Velt with a token: for its replica, for the store, and for the replicas that follow.
    fn end_call(&mut self, pod: Pod, user: User, at: Millis) {
        self.minted += 1;
        let known = Known { minted_at: at, number: self.minted };
        self.seen[user as usize].mint(at);
        let Some(minting) = self.settle(pod, user, known, at) else { return };
        let Some(store) = &mut self.store else { return };
        store.write(user, known);
        self.tally.call(Call::Write, at);
        self.release(user, minting.is_leased, at);
        if minting.wanted != Wanted::Any {
            self.announce(user, known, at);
        }
    }

    /// Ends a mint with a token. Also in a pod that has been replaced in between: it ends its last requests.
    fn settle(&mut self, pod: Pod, user: User, known: Known, at: Millis) -> Option<Minting> {
        self.hold(pod, user, known, at);
        self.failures.remove(&(pod, user));
        let minting = self.minting.remove(&(pod, user));
        if minting.as_ref().is_some_and(|minting| minting.is_awaited) {
            self.hand(user, known, at);
        }
        minting
    }

    /// Tells all replicas that the token of `user` was replaced. Those that hold an older token read the new
    /// one.
    fn announce(&mut self, user: User, known: Known, at: Millis) {
        self.tally.event(at);
        for index in self.holder_words(user) {
            let mut left = self.holders[index];
            while left != 0 {
                let bit = left.trailing_zeros();
                left &= left - 1;
                let (pod, held) = &self.pods[(index % self.words) * 64 + bit as usize];
                let (pod, held) = (*pod, held.peek(user));
                if held.is_none() {
                    self.holders[index] &= !(1 << bit);
                } else if held.is_some_and(|old| old.minted_at < known.minted_at) {
                    self.tally.call(Call::Follow, at);
                    self.hold(pod, user, known, at);
                }
            }
        }
    }

    /// Returns the places in `holders` of a user's bits; none without a store.
    fn holder_words(&self, user: User) -> Range<usize> {
        let first = user as usize * self.words;
        if self.store.is_some() { first..first + self.words } else { 0..0 }
    }

    /// Holds a token in the cache of a replica.
    fn hold(&mut self, pod: Pod, user: User, known: Known, at: Millis) {
        let evicts = self.held(pod).is_some_and(|held| held.put(user, known, at));
        self.tally.day(at).evictions += u64::from(evicts);
        let first = self.holder_words(user).start;
        if let Some(word) = self.holders.get_mut(first + pod.place as usize / 64) {
            *word |= 1 << (pod.place % 64);
        }
    }

    fn hand(&mut self, user: User, known: Known, at: Millis) {
        self.seen[user as usize].hand(known, self.tally.day(at));
    }

    fn deny(&mut self, user: User, at: Millis) {
        let lives = |minted_at| self.lives.lives(minted_at, at);
        self.seen[user as usize].deny(lives, &mut self.tally.outage);
    }

    /// Replaces the pods of a wave by pods with empty caches.
    fn replace_pods(&mut self) {
        let (_, places) = self.events.waves[self.waves_done].clone();
        self.waves_done += 1;
        for place in places {
            self.pods[place as usize] = (Pod { place, number: self.pods_begun }, empty());
            self.pods_begun += 1;
        }
    }

    /// Counts the tokens that are held and stored.
    fn count_tokens(&mut self, at: Millis) {
        let held = self.pods.iter_mut().map(|(_, held)| {
            held.sweep(at);
            held.len()
        });
        let held: Vec<_> = held.collect();
        let stored = self.store.iter().flat_map(Store::entries);
        let stored = stored.filter(|known| self.lives.lives(known.minted_at, at)).count();
        self.tally.census = Census {
            held: held.iter().sum::<usize>() as f64 / held.len() as f64,
            most_held: held.into_iter().max().unwrap_or(0),
            stored,
        };
    }
}

/// Returns the cache of a new pod.
fn empty() -> Held {
    Held::new(entries_within(&BOUNDS))
}

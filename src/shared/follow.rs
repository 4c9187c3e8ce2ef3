//! A task that reads the store's streams of forgets and of replaced tokens, from the last event that it has read.

use std::sync::Arc;
use std::time::Duration;

use redis::Value;
use tokio::time::{Instant, sleep};
use tracing::warn;

use crate::entry::Event;
use crate::protocol::millis;
use crate::seal::{Kind, Name};
use crate::store::{Fault, Listener, Pauses};
use crate::value::{bytes_of, items_of, number_of};
use crate::{FORGET_LIFE, Inner, nonce, now};
use ground::metrics::SharedForget;
use token::cache::TokenCache;

/// Longest time for which a read waits for an event. The task checks between two reads whether the store was flushed.
const BLOCK: Duration = Duration::from_secs(1);

/// Time beyond [`BLOCK`] after which a read counts as failed.
const PATIENCE: Duration = Duration::from_secs(1);

/// Most events of one stream in one read.
const EVENTS_AT_ONCE: usize = 1_000;

/// First and longest pause before the store is asked again after a fault, before jitter. Each attempt costs the server a
/// login, and a right that the user lacks stays lacking until an operator grants it.
const PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Time without a fault after which the pauses begin with the first again.
const STABLE: Duration = Duration::from_secs(5);

/// Most events of one stream in one read of [`READ_SHORT`], and longest event that it returns. Twice their product is
/// less than the longest answer that a connection takes. A sidecar's events are half as long at most.
const SHORT_AT_ONCE: usize = 100;
const LONGEST_EVENT: usize = 4 * 1024;

/// Script that reads events as `XREAD` does, without the content of those that are too long to be a sidecar's. It needs no
/// right that reading the streams does not need.
const READ_SHORT: &str = "local streams = {} for at, key in ipairs(KEYS) do local events = {} \
     for number, event in ipairs(redis.call('xrange', key, '(' .. ARGV[at], '+', 'COUNT', ARGV[3])) do \
     local content = event[2][2] if #content > tonumber(ARGV[4]) then content = '' end \
     events[number] = {event[1], {'e', content}} end streams[at] = {key, events} end return streams";

/// Script that removes the streams, and the mark of the store's flushes, where another program has put a value of another
/// kind there. It asks and removes in one step, so that no stream is removed that a replica has just begun. It needs no
/// right that following the streams does not need.
const REMOVE_WRONG_KINDS: &str = "local removed = 0 for at, key in ipairs(KEYS) do local answer \
     if at < 3 then answer = redis.pcall('xrange', key, '-', '+', 'COUNT', 1) \
     else answer = redis.pcall('get', key) end \
     if type(answer) == 'table' and answer.err and string.find(answer.err, 'WRONGTYPE') \
     then removed = removed + redis.call('del', key) end end return removed";

/// Number of the latest forgets that are announced again when the store has lost data, even if it has their marks: it
/// may have lost their events.
const TOLD_AGAIN: usize = 100;

/// Place in the streams up to which this replica has heard everything.
struct Position {
    /// Random text of the store since its last flush.
    era: Option<Vec<u8>>,
    forgets: Vec<u8>,
    /// The last forget that a sidecar has written: an attacker may remove a line of their own again.
    proven: Vec<u8>,
    replaced: Vec<u8>,
}

impl Position {
    const BEGIN: &[u8] = b"0-0";

    fn new() -> Self {
        let begin = || Self::BEGIN.to_vec();
        Self { era: None, forgets: begin(), proven: begin(), replaced: begin() }
    }

    /// Whether the last forget that was heard is too recent to have been trimmed from the stream for its age. The id
    /// of an event begins with the event's time in milliseconds (Redis, "Entry IDs").
    fn is_recent(&self, now: u64) -> bool {
        let time = self.proven.split(|byte| *byte == b'-').next();
        let time = time.and_then(|time| str::from_utf8(time).ok()?.parse::<u64>().ok());
        time.is_some_and(|time| time > now.saturating_sub(millis(FORGET_LIFE / 2)))
    }
}

/// Way of reading after an answer that was too large: without the content of long lines, until the end of the streams.
#[derive(Default)]
struct Passing {
    /// Number of events that were read in this way; `None` while answers are not too large.
    events: Option<usize>,
}

impl Passing {
    /// Notes the number of events in an answer. Fails if no event explains why the answer was too large.
    fn note(&mut self, count: usize) -> Result<(), Fault> {
        match &mut self.events {
            Some(0) if count == 0 => return Err(Fault::Garbage),
            Some(_) if count == 0 => self.events = None,
            Some(events) => *events += count,
            None => {}
        }
        Ok(())
    }
}

/// An event of a stream, with its id; no event if it can't be read.
struct Told<'a> {
    id: &'a [u8],
    event: Option<Event>,
}

/// Follows the streams for as long as the process runs.
pub async fn follow(shared: &Arc<Inner>, tokens: &TokenCache) {
    let mut position = Position::new();
    let mut pauses = Pauses::new(PAUSE, LONGEST_PAUSE);
    loop {
        let begun = Instant::now();
        let fault = attend(shared, tokens, &mut position).await;
        shared.note_cut_off(fault).await;
        if fault == Fault::WRONG_KIND {
            shared.remove_wrong_kinds().await;
        }
        // Without a connection, the look-up for one costs no server anything.
        if fault == Fault::NotConnected || begun.elapsed() > STABLE {
            pauses.reset();
        }
        sleep(pauses.take()).await;
    }
}

/// Follows the streams until a fault.
async fn attend(shared: &Arc<Inner>, tokens: &TokenCache, position: &mut Position) -> Fault {
    let mut listener = match shared.store.listener().await {
        Ok(listener) => listener,
        Err(fault) => return fault,
    };
    let mut is_caught_up = false;
    let mut passing = Passing::default();
    let mut checked: Option<Instant> = None;
    loop {
        if checked.is_none_or(|checked| checked.elapsed() >= BLOCK) {
            let has_lost = match shared.check_era(position, checked.is_none()).await {
                Ok(has_lost) => has_lost,
                Err(fault) => return fault,
            };
            checked = Some(Instant::now());
            if has_lost {
                shared.mend(position);
            }
        }
        let block = is_caught_up.then_some(BLOCK);
        let answer = match shared.read_on(&mut listener, position, block, &mut passing).await {
            Ok(answer) => answer,
            Err(fault) => return fault,
        };
        let count = shared.hear(&answer, position, tokens).await;
        if let Err(fault) = passing.note(count) {
            return fault;
        }
        if count == 0 && !is_caught_up {
            is_caught_up = true;
            shared.note_heard();
        }
        if is_caught_up {
            // The store has lost what it had taken, such as in a failover.
            shared
                .hearing
                .overdue()
                .into_iter()
                .for_each(|forget| shared.unwritten.note_forget(forget));
        }
    }
}

impl Inner {
    /// Reads the events after `position`, also if a line is too long for a sidecar's, or many lines are long: then each
    /// read leaves out the content of long lines, until the streams have no more events.
    async fn read_on(
        &self,
        listener: &mut Listener,
        position: &Position,
        block: Option<Duration>,
        passing: &mut Passing,
    ) -> Result<Value, Fault> {
        if passing.events.is_none() {
            match self.read(listener, position, block).await {
                Err(Fault::Garbage) => passing.events = Some(0),
                answer => return answer,
            }
        }
        self.read_short(position).await
    }

    /// Reads the events after `position`; with `block`, waits for one.
    async fn read(
        &self,
        listener: &mut Listener,
        position: &Position,
        block: Option<Duration>,
    ) -> Result<Value, Fault> {
        let mut read = redis::cmd("XREAD");
        read.arg("COUNT").arg(EVENTS_AT_ONCE);
        if let Some(block) = block {
            read.arg("BLOCK").arg(millis(block));
        }
        read.arg("STREAMS").arg(self.store_keys.forgets()).arg(self.store_keys.replaced());
        read.arg(&position.forgets).arg(&position.replaced);
        listener.call(read, block.unwrap_or_default() + PATIENCE).await
    }

    /// Reads the events after `position` whose answer to [`Self::read`] is too large. Those that are too long come without
    /// content, so that they are counted like other events that can't be read.
    async fn read_short(&self, position: &Position) -> Result<Value, Fault> {
        let mut read = redis::cmd("EVAL");
        read.arg(READ_SHORT).arg(2).arg(self.store_keys.forgets()).arg(self.store_keys.replaced());
        read.arg(&position.forgets).arg(&position.replaced);
        read.arg(SHORT_AT_ONCE).arg(LONGEST_EVENT);
        let mut answers = self.store.call(vec![read], PATIENCE).await?;
        answers.pop().ok_or(Fault::Garbage)
    }

    /// Removes values of the wrong kind from the places that the task reads. The next look at the store finds that
    /// it has lost events, and puts back those that this replica has heard of.
    async fn remove_wrong_kinds(&self) {
        let mut remove = redis::cmd("EVAL");
        remove.arg(REMOVE_WRONG_KINDS).arg(3);
        remove.arg(self.store_keys.forgets()).arg(self.store_keys.replaced());
        remove.arg(self.store_keys.era());
        let removed = self.store.call(vec![remove], PATIENCE).await;
        let removed = removed.ok().and_then(|answers| number_of(answers.first()?));
        if removed.is_some_and(|removed| removed > 0) {
            self.metrics.unread.inc();
            warn!(
                "another program has put a value of another kind in the place of the shared store's list of forgets, \
                 and it was removed: give each app a shared.prefix and an ACL user of its own"
            );
        }
    }

    /// Carries out the events in `answer`. Returns their number.
    async fn hear(
        self: &Arc<Self>,
        answer: &Value,
        position: &mut Position,
        tokens: &TokenCache,
    ) -> usize {
        let forgets = self.told(answer, &self.store_keys.forgets());
        let replaced = self.told(answer, &self.store_keys.replaced());
        let count = forgets.len() + replaced.len();
        if let Some(last) = forgets.last() {
            position.forgets = last.id.to_vec();
        }
        if let Some(last) = replaced.last() {
            position.replaced = last.id.to_vec();
        }
        let mut news = Vec::new();
        if let Some(proven) = forgets.iter().rfind(|told| told.event.is_some()) {
            position.proven = proven.id.to_vec();
        }
        let settling = self.heard.begin(forgets.len());
        for Told { id, event } in forgets {
            let is_own = self.hearing.has_come(id);
            let Some(Event::Forget(forget)) = event else { continue };
            // The forget of a replica whose clock is behind seems earlier than one of this replica's that no other
            // replica has been told of yet. It is news all the same.
            let is_news = self.heard.note(&forget, now())
                || !is_own && self.unwritten.has_forget(&forget.subject);
            if is_news {
                self.metrics.forgets.increment(SharedForget::Elsewhere);
                news.push(forget.event());
            }
        }
        if !news.is_empty() {
            self.apply(news).await;
        }
        drop(settling);
        let names = replaced.into_iter().filter_map(|told| match told.event {
            Some(Event::Replaced(name)) => Some(name),
            _ => None,
        });
        let names: Vec<_> = names.filter(|name| self.index.contains_key(name)).collect();
        if !names.is_empty() {
            let (shared, tokens) = (Arc::clone(self), tokens.clone());
            // A task of its own, so that a slow store does not delay the next forget.
            tokio::spawn(async move {
                for name in names {
                    shared.take(name, &tokens).await;
                }
            });
        }
        count
    }

    /// Returns the events of one stream in an answer of XREAD.
    fn told<'a>(&self, answer: &'a Value, stream: &str) -> Vec<Told<'a>> {
        let keys = self.keys();
        let entries = streams(answer).find(|(name, _)| *name == stream.as_bytes());
        let entries = entries.map_or(&[][..], |(_, entries)| entries);
        let told = entries.iter().filter_map(|entry| {
            let [id, fields] = items_of(entry) else { return None };
            let sealed = items_of(fields).get(1).and_then(bytes_of);
            let opened = sealed.and_then(|sealed| keys.open(Kind::Event, b"", sealed));
            let event = opened.as_deref().and_then(Event::parse);
            if event.is_none() {
                self.pass_over();
            }
            Some(Told { id: bytes_of(id)?, event })
        });
        told.collect()
    }

    /// Counts and logs an event that can't be read: a replica with another seal key, a later version of the sidecar
    /// or an attacker has written it.
    fn pass_over(&self) {
        self.metrics.unread.inc();
        if self.alarm.raise(1).is_some() {
            warn!(
                "an event in the shared store can't be read, so this replica may miss a forget: give all replicas the \
                 same shared.seal_key, and each app a shared.prefix of its own"
            );
        }
    }

    /// Replaces the token in memory for the request with this name, if the store has a younger token.
    async fn take(&self, name: Name, tokens: &TokenCache) {
        let Some(request) = self.index.get(&name) else { return };
        let Some(held) = tokens.held_for(&request) else { return };
        if let Some(minted) = self.younger(&request, &held).await
            && tokens.take(&request, minted)
        {
            self.metrics.taken.inc();
        }
    }

    /// Compares the era of the store with the era in `position`. If `thorough`, also checks that the last forget that
    /// was heard is still in the stream. Returns whether the store has lost data.
    async fn check_era(&self, position: &mut Position, thorough: bool) -> Result<bool, Fault> {
        let key = self.store_keys.era();
        let mut get = redis::cmd("GET");
        get.arg(&key);
        let mut commands = vec![get];
        if thorough {
            let mut range = redis::cmd("XRANGE");
            let last = &position.proven;
            range.arg(self.store_keys.forgets()).arg(last).arg(last).arg("COUNT").arg(1);
            commands.push(range);
        }
        let answers = self.store.call(commands, PATIENCE).await?;
        let era = match answers.first().and_then(bytes_of) {
            Some(era) => Some(era.to_vec()),
            None => self.begin_era(&key).await?,
        };
        let known = std::mem::replace(&mut position.era, era);
        let flushed = known.is_some() && known != position.era;
        let has_last = answers.get(1).is_none_or(|found| !items_of(found).is_empty());
        Ok(flushed || !has_last && position.is_recent(now()))
    }

    /// Begins an era of a store that is new or was flushed, and returns the era; `None` if the store takes no writes.
    async fn begin_era(&self, key: &str) -> Result<Option<Vec<u8>>, Fault> {
        let (mut set, mut get) = (redis::cmd("SET"), redis::cmd("GET"));
        set.arg(key).arg(&nonce()[..]).arg("NX");
        get.arg(key);
        let answers = match self.store.call(vec![set, get], PATIENCE).await {
            Err(Fault::Full | Fault::ReadOnly) => return Ok(None),
            answers => answers?,
        };
        Ok(answers.get(1).and_then(bytes_of).map(<[u8]>::to_vec))
    }

    /// Puts back the forgets and tokens that the store has lost.
    fn mend(self: &Arc<Self>, position: &mut Position) {
        self.metrics.gaps.inc();
        if let Some(times) = self.losses.raise(1) {
            warn!(
                times,
                "the shared store has lost data (flushed, or failed over); tokens and forgets are put back"
            );
        }
        // Read the streams from the beginning. Forgets that were heard before are not carried out again.
        *position = Position { era: position.era.take(), ..Position::new() };
        self.unwritten.note_all();
        let shared = Arc::clone(self);
        // A task of its own, so that this replica hears of further forgets meanwhile.
        tokio::spawn(async move { shared.put_back_all().await });
    }

    /// Puts back the forgets that the store has lost, and tells of the last ones again: their events may be lost where
    /// their marks are not.
    pub(crate) async fn put_back_all(&self) {
        for (at, forget) in self.heard.all(now()).into_iter().enumerate() {
            let stored = self.stored_mark(&forget.subject).await;
            let is_lost = stored.is_ok_and(|stored| stored < Some(forget.mark));
            if !is_lost && at >= TOLD_AGAIN {
                continue;
            }
            match self.announce(&forget).await {
                Ok(()) if is_lost => self.metrics.forgets.increment(SharedForget::PutBack),
                Ok(()) => {}
                Err(_) => self.unwritten.note_forget(forget),
            }
        }
    }
}

/// Returns the streams of an answer of XREAD, each with its entries.
fn streams(answer: &Value) -> impl Iterator<Item = (&[u8], &[Value])> {
    items_of(answer).iter().filter_map(|stream| {
        let [name, entries] = items_of(stream) else { return None };
        Some((bytes_of(name)?, items_of(entries)))
    })
}

//! Content of the store for one mint request: how it is read, and how a token is put there.

use std::time::Duration;

use redis::{Cmd, Value};
use tokio::time::sleep;
use tracing::warn;

use crate::entry::{Entry, Event, Forget, parse_mark, subject_bytes};
use crate::mint::Credentials;
use crate::place::Place;
use crate::protocol::{
    CLOCK_DIFFERENCE, LEASE_LIFE, Mark, Nonce, Reason, Verdict, Wanted, in_force, judge, millis,
};
use crate::seal::{Kind, Name, SealKeys};
use crate::store::{Fault, LONGEST_VALUE};
use crate::value::{bytes_of, is_ok, number_of};
use crate::{Inner, now, since_1970};
use ground::metrics::{SharedRead, SharedWrite};
use token::announce::Subject;
use token::{MintRequest, Minted, Origin, Token};

/// Time limit of a call for which no request waits.
const PATIENCE: Duration = Duration::from_secs(1);

/// Tokens with less life than this are not shared.
const SHORTEST_LIFE: Duration = Duration::from_secs(1);

/// Script that puts a short value in the place of one that is too long for an answer. A mark is not removed, because then
/// a token that was forgotten would count again: like the long value, the short one is nothing that a sidecar wrote.
/// It needs no right that reading and sharing tokens do not need.
const SHORTEN: &str = "local value = redis.pcall('get', KEYS[1]) \
     if type(value) == 'string' and #value > tonumber(ARGV[1]) \
     then redis.call('set', KEYS[1], '?', 'KEEPTTL') return 1 end return 0";

/// Attempts to shorten values, with a pause between two: the long answer has broken the connection.
const ATTEMPTS: usize = 5;
const PAUSE: Duration = Duration::from_millis(300);

/// Most events of replaced tokens that the store keeps. A replica that misses an event serves its older token until
/// it refreshes that token itself.
const MAX_REPLACED: usize = 10_000;

/// Content that was read from the store, opened and not yet judged.
pub(crate) struct RawLook {
    /// Whether the lease was asked for and won.
    pub(crate) won: bool,
    /// Stored tokens, each with the time for which the store will keep it.
    pub(crate) entries: Vec<(Entry, Option<Duration>)>,
    /// Whether there was content in a token's place that no key of this replica opens.
    unreadable: bool,
    /// Marks in force; `None` if a mark can't be read, so that no stored token can be judged.
    pub(crate) marks: Option<Vec<Mark>>,
    /// Forgets whose mark is in the store, and of which this replica has not heard.
    pub(crate) unheard: Vec<Forget>,
}

impl RawLook {
    /// Returns the stored token to be served, if there is one: with `replaces`, another token that is younger.
    pub(crate) fn found(
        &self,
        replaces: Option<&Token>,
        credentials: &Credentials,
    ) -> (SharedRead, Option<Minted>) {
        let Some(marks) = &self.marks else { return (SharedRead::Foreign, None) };
        let wanted =
            replaces.map_or(Wanted::Any, |token| Wanted::Younger(since_1970(token.minted_at())));
        let mut result = if self.unreadable { SharedRead::Foreign } else { SharedRead::Absent };
        for (entry, left) in &self.entries {
            let life = entry.facts.life;
            let is_same = replaces.is_some_and(|token| *token.value() == entry.token);
            let ours = credentials.as_in(&entry.facts);
            result = match judge(&entry.facts, marks, wanted, ours, now()) {
                Verdict::Serve { .. } if is_same => SharedRead::Old,
                Verdict::Serve { age, superseded } => {
                    // If this replica's clock is behind, the store's time to live shows the token's true age.
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
}

impl Inner {
    /// Reads the entries and marks of `place` in one round trip. Asks for the lease first if there is a nonce for it.
    pub(crate) async fn look(
        &self,
        place: &Place,
        lease: Option<&Nonce>,
        within: Duration,
    ) -> Result<RawLook, Fault> {
        let keys = self.keys();
        let marks = place.subjects().iter();
        let marks: Vec<_> =
            marks.map(|subject| keys.names(Kind::Mark, &subject_bytes(subject))).collect();
        let lease_command = lease.map(|nonce| self.ask_for_lease(place.name(), nonce));
        let of_entries = place.names().iter().flat_map(|name| self.read_entry(*name));
        let of_marks = marks.iter().flatten().map(|name| self.read_mark(*name));
        let commands = lease_command.into_iter().chain(of_entries).chain(of_marks).collect();
        let answers = self.store.call(commands, within).await.inspect_err(|fault| {
            if *fault == Fault::Garbage {
                self.shorten(place, marks.iter().flatten());
            }
        })?;
        let mut answers = answers.iter();
        let won = lease.is_some() && answers.next().is_some_and(is_ok);
        let (entries, unreadable) = opened_entries(place, &keys, &mut answers);
        let (marks, unheard) = self.opened_marks(place, &marks, &keys, &mut answers);
        Ok(RawLook { won, entries, unreadable, marks, unheard })
    }

    /// Shortens values among the entries and marks of a place that are too long for an answer, in a task of its own.
    /// Otherwise each read of them would break the connection that all calls share.
    fn shorten<'a>(&self, place: &Place, marks: impl Iterator<Item = &'a Name>) {
        let entries = place.names().iter().map(|name| self.store_keys.entry(*name));
        let keys = entries.chain(marks.map(|name| self.store_keys.mark(*name)));
        let shorten = |key: String| {
            let mut shorten = redis::cmd("EVAL");
            shorten.arg(SHORTEN).arg(1).arg(key).arg(LONGEST_VALUE);
            shorten
        };
        let commands: Vec<Cmd> = keys.map(shorten).collect();
        let (store, unread) = (self.store.clone(), self.metrics.unread.clone());
        tokio::spawn(async move {
            for _ in 0..ATTEMPTS {
                sleep(PAUSE).await;
                let Ok(answers) = store.call(commands.clone(), PATIENCE).await else { continue };
                let count = answers.iter().filter(|answer| number_of(answer) == Some(1)).count();
                if count > 0 {
                    unread.inc();
                    warn!(
                        count,
                        "another program has put values in the shared store that are longer than any of a sidecar's, \
                         and they were cut: give each app a shared.prefix and an ACL user of its own"
                    );
                }
                return;
            }
        });
    }

    fn ask_for_lease(&self, name: Name, nonce: &Nonce) -> Cmd {
        let mut set = redis::cmd("SET");
        set.arg(self.store_keys.lease(name)).arg(&nonce[..]);
        set.arg("NX").arg("PX").arg(millis(LEASE_LIFE));
        set
    }

    fn read_entry(&self, name: Name) -> [Cmd; 2] {
        let key = self.store_keys.entry(name);
        ["GET", "PTTL"].map(|word| {
            let mut command = redis::cmd(word);
            command.arg(&key);
            command
        })
    }

    pub(crate) fn read_mark(&self, name: Name) -> Cmd {
        let mut get = redis::cmd("GET");
        get.arg(self.store_keys.mark(name));
        get
    }

    /// Returns the marks in force, and the forgets of which this replica has not heard.
    fn opened_marks<'a>(
        &self,
        place: &Place,
        names: &[Vec<Name>],
        keys: &SealKeys,
        answers: &mut impl Iterator<Item = &'a Value>,
    ) -> (Option<Vec<Mark>>, Vec<Forget>) {
        let (mut marks, mut unheard) = (Some(Vec::new()), Vec::new());
        for (subject, names) in place.subjects().iter().zip(names) {
            let mut stored = None;
            for (name, answer) in names.iter().zip(answers.by_ref()) {
                let Some(sealed) = bytes_of(answer) else { continue };
                let opened = keys.open(Kind::Mark, name.bytes(), sealed);
                match opened.as_deref().and_then(parse_mark) {
                    Some(mark) => stored = in_force(stored, Some(mark)),
                    None => marks = None,
                }
            }
            let heard = self.heard.mark(subject, now());
            if let Some(mark) = heard.filter(|mark| Some(*mark) > stored) {
                // The store has lost the forget, or an attacker has deleted it.
                self.put_back(subject, mark);
            }
            if let Some(mark) = stored.filter(|mark| Some(*mark) > heard) {
                unheard.push(Forget { subject: subject.clone(), mark, logout_at: None });
            }
            if let (Some(marks), Some(mark)) = (&mut marks, in_force(stored, heard)) {
                marks.push(mark);
            }
        }
        (marks, unheard)
    }

    fn put_back(&self, subject: &Subject, mark: Mark) {
        if let Some(forget) = self.heard.forget(subject).filter(|forget| forget.mark == mark) {
            self.unwritten.note_forget(forget);
        }
    }

    /// Looks in the store for a token of `request` that is younger than `held`.
    pub(crate) async fn younger(&self, request: &MintRequest, held: &Token) -> Option<Minted> {
        let credentials = self.credentials.load_full()?;
        let place = Place::of(request, &credentials.api_key, &self.keys());
        // After a fault, this replica serves its older token until it refreshes that token itself.
        let raw = self.look(&place, None, PATIENCE).await.ok()?;
        raw.found(Some(held), &credentials).1
    }

    /// Writes a minted token, and tells the other replicas if the token replaces another. Notes a token that the
    /// store does not take, so that `rewrite` tries again later.
    pub(crate) async fn write(
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
        if self.store.call(commands, PATIENCE).await.is_ok() {
            self.metrics.writes.increment(SharedWrite::Written);
        } else {
            self.metrics.writes.increment(SharedWrite::Failed);
            self.note_unwritten(request);
        }
    }

    /// Makes the command that stores `entry` for the rest of its life.
    pub(crate) fn set_entry(&self, name: Name, entry: &Entry) -> Cmd {
        let sealed = self.keys().seal(Kind::Entry, name.bytes(), entry.bytes());
        let age = now().saturating_sub(entry.facts.minted_at);
        let left = millis(entry.facts.life).saturating_sub(age).max(1);
        let mut set = redis::cmd("SET");
        set.arg(self.store_keys.entry(name)).arg(sealed).arg("PX").arg(left);
        set
    }

    pub(crate) fn add_replaced(&self, name: Name) -> Cmd {
        let event = Event::Replaced(name);
        let sealed = self.keys().seal(Kind::Event, b"", event.bytes());
        let mut add = redis::cmd("XADD");
        add.arg(self.store_keys.replaced()).arg("MAXLEN").arg("~").arg(MAX_REPLACED);
        add.arg("*").arg("e").arg(sealed);
        add
    }
}

/// Returns the entries of `place`, and whether there was content that no key of this replica opens.
fn opened_entries<'a>(
    place: &Place,
    keys: &SealKeys,
    answers: &mut impl Iterator<Item = &'a Value>,
) -> (Vec<(Entry, Option<Duration>)>, bool) {
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
    (entries, unreadable)
}

/// Returns the time for which the store keeps a key; `None` if the key does not expire, or does not exist.
fn time_left(answer: &Value) -> Option<Duration> {
    number_of(answer).and_then(|left| u64::try_from(left).ok()).map(Duration::from_millis)
}

//! State of the model: the store, the replicas, and what has happened to requests.

use shared::protocol::{Course, Facts, Mark, Nonce, Wanted};

/// User of a token. All replicas ask for the tokens of [`User::Ours`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum User {
    Ours,
    Other,
}

/// A token, with what a checker knows of it and no replica does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token {
    pub user: User,
    /// Milliseconds since 1970, by the clock of the replica that had it minted.
    pub minted_at: u64,
    /// Number of forgets that had begun when its mint began.
    pub after: u8,
}

/// A sealed entry. The seal holds for one place.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    pub sealed_for: User,
    pub facts: Facts,
    pub token: Token,
}

/// An event of a forget. Later ids are greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Event {
    pub id: u8,
    pub mark: Mark,
}

/// Content of the store, as far as it concerns one user's token.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Content {
    pub entry: Option<Entry>,
    pub mark: Option<Mark>,
    /// Nonce of the lease's holder.
    pub lease: Option<u8>,
    pub events: Vec<Event>,
    /// Changes with each flush.
    pub era: u8,
}

/// Stage of a mint.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// About to ask the store for the entry, and for the lease if there is a nonce for it.
    Look { lease: Option<u8> },
    /// The entry was read, the mark was not.
    Judge { lease: Option<u8>, won: bool, entry: Option<Entry> },
    /// Waiting for Velt. `known` is `None` if the marks could not be read.
    Velt { lease: Option<u8>, known: Option<Vec<Nonce>>, after: u8 },
    /// About to write, and to give the lease back.
    Write { lease: Option<u8>, entry: Option<Entry> },
}

/// A mint under way on one replica.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Minting {
    pub stage: Stage,
    pub course: Course,
    /// Whether the store did not answer while the mint waited for another one.
    pub waits_out: bool,
    pub wanted: Wanted,
    /// Highest forget that the replica had carried out when the last request joined; `None` if none waits.
    pub awaited_after: Option<u8>,
    /// Whether a forget has come in between, so that the result is not kept.
    pub is_called_off: bool,
    /// Whether its lease ended before it was given back.
    pub is_expired: bool,
    /// Steps through the store so far.
    pub steps: u8,
}

/// Stage of a forget on the replica where it begins, with its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Telling {
    Forget(u8),
    Note(u8),
    SetMark(Mark),
    AddEvent(Mark),
    ForgetAgain(Mark),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Replica {
    pub is_connected: bool,
    /// Whether all events are heard as they come.
    pub hears: bool,
    /// Latest mark heard of.
    pub heard: Option<Mark>,
    /// Highest forget that is heard of and has to be carried out in memory.
    pub due: Option<u8>,
    /// Highest forget that was carried out in memory.
    pub forgot: u8,
    /// Id of the last event heard.
    pub position: u8,
    pub era: Option<u8>,
    /// Token in memory.
    pub held: Option<Token>,
    pub mints: Vec<Minting>,
    pub telling: Option<Telling>,
    /// Mark that the store has not taken yet.
    pub untold: Option<Mark>,
    /// Whether the token in memory has to be shared.
    pub is_unshared: bool,
    /// Entry about to be written for the token in memory.
    pub rewriting: Option<Entry>,
}

impl Replica {
    /// Returns a new pod.
    pub fn new() -> Self {
        Self {
            is_connected: true,
            hears: false,
            heard: None,
            due: None,
            forgot: 0,
            position: 0,
            era: None,
            held: None,
            mints: Vec::new(),
            telling: None,
            untold: None,
            is_unshared: false,
            rewriting: None,
        }
    }

    /// Forgets what is in memory, and calls off the mints under way.
    pub fn forget(&mut self, keeps_mints: bool) {
        self.held = None;
        if !keeps_mints {
            self.mints.iter_mut().for_each(|mint| mint.is_called_off = true);
        }
    }

    /// Notes that a forget was carried out.
    pub fn carried_out(&mut self, forget: u8) {
        self.forgot = self.forgot.max(forget);
        if self.due <= Some(forget) {
            self.due = None;
        }
    }
}

/// Bounds: the number of times that each event may still happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Limits {
    pub asks: u8,
    pub refreshes: u8,
    pub forgets: u8,
    pub deaths: u8,
    pub cuts: u8,
    pub expiries: u8,
    /// Failovers to a copy that lacks the last writes.
    pub losses: u8,
    pub flushes: u8,
    /// Writes of an attacker: the entry of another user, or an earlier entry.
    pub swaps: u8,
}

/// History that the properties look at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[allow(clippy::struct_excessive_bools, reason = "facts that do not exclude each other")]
pub struct Seen {
    /// A request was answered with a token from before a forget that the replica had carried out before the
    /// request.
    pub forgotten: bool,
    /// A request was answered with the token of another user.
    pub foreign: bool,
    /// A request was answered with a token that another replica had minted.
    pub shared: bool,
    /// A replica minted because its patience with another one was over.
    pub gave_up: bool,
    /// A request was answered with a shared token after the store had not answered while it waited.
    pub outlasted: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    pub store: Content,
    /// Content of the store's copy, once there is one.
    pub copy: Option<Content>,
    /// Entries that an attacker has kept.
    pub kept: Vec<Entry>,
    pub replicas: Vec<Replica>,
    pub left: Limits,
    /// Forgets that have begun.
    pub forgets: u8,
    /// Tokens, nonces of leases, ids of events and eras so far.
    pub tokens: u8,
    pub leases: u8,
    pub ids: u8,
    pub seen: Seen,
}

impl World {
    /// Tells the requests that wait, or the one that asks, of a token.
    pub fn hand(&mut self, token: Token, asked_after: u8) {
        self.seen.forgotten |= token.after < asked_after;
        self.seen.foreign |= token.user != User::Ours;
    }
}

//! Tokens that one replica holds: least recently used first out, as moka's LRU policy has it.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use super::{HOUR, Millis, User};

/// Time without a use after which the product's cache drops an entry (`SWEEP_AFTER` in `src/token/cache.rs`).
const IDLE: Millis = 49 * HOUR;

/// Mark of an end of the list.
const NONE: u32 = u32::MAX;

/// A token, told from all others by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    pub minted_at: Millis,
    /// Number of the mint: two tokens are the same string if the number is the same.
    pub number: u32,
}

/// The tokens of a replica.
pub struct Held {
    bound: usize,
    places: HashMap<User, u32, BuildHasherDefault<Spread>>,
    entries: Vec<Entry>,
    newest: u32,
    oldest: u32,
}

struct Entry {
    user: User,
    known: Known,
    used_at: Millis,
    newer: u32,
    older: u32,
}

/// Hash of a user's number: multiplied, because neighbours must not share the upper bits.
#[derive(Default)]
struct Spread(u64);

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u32(byte.into());
        }
    }

    fn write_u32(&mut self, value: u32) {
        self.0 = (self.0 ^ u64::from(value)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(26);
    }
}

impl Held {
    /// Makes an empty cache of at most `bound` entries.
    pub fn new(bound: usize) -> Self {
        let places = HashMap::default();
        Self { bound, places, entries: Vec::new(), newest: NONE, oldest: NONE }
    }

    /// Returns what is held for `user`, and notes the use.
    pub fn look_up(&mut self, user: User, now: Millis) -> Option<Known> {
        let place = *self.places.get(&user)?;
        self.entries[place as usize].used_at = now;
        self.unlink(place);
        self.link(place);
        Some(self.entries[place as usize].known)
    }

    /// Returns what is held for `user`, without a use.
    pub fn peek(&self, user: User) -> Option<Known> {
        self.places.get(&user).map(|&place| self.entries[place as usize].known)
    }

    /// Holds `known` for `user`. Returns whether an entry of another user had to go.
    pub fn put(&mut self, user: User, known: Known, now: Millis) -> bool {
        if let Some(&place) = self.places.get(&user) {
            let entry = &mut self.entries[place as usize];
            (entry.known, entry.used_at) = (known, now);
            self.unlink(place);
            self.link(place);
            return false;
        }
        let evicts = self.places.len() >= self.bound;
        if evicts {
            self.drop_oldest();
        }
        let place = u32::try_from(self.entries.len()).expect("a bound below 2^32");
        self.entries.push(Entry { user, known, used_at: now, newer: NONE, older: NONE });
        self.places.insert(user, place);
        self.link(place);
        evicts
    }

    /// Drops the entries that were not used for [`IDLE`].
    pub fn sweep(&mut self, now: Millis) {
        while self.oldest != NONE && now - self.entries[self.oldest as usize].used_at >= IDLE {
            self.drop_oldest();
        }
    }

    /// Returns the number of entries.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    fn drop_oldest(&mut self) {
        let place = self.oldest;
        self.unlink(place);
        self.places.remove(&self.entries[place as usize].user);
        // The last entry takes the free place.
        let last = u32::try_from(self.entries.len() - 1).expect("as many as were pushed");
        self.entries.swap_remove(place as usize);
        if place != last {
            let Entry { user, newer, older, .. } = self.entries[place as usize];
            self.places.insert(user, place);
            *self.newer_link(older) = place;
            *self.older_link(newer) = place;
        }
    }

    /// Takes an entry out of the order of use.
    fn unlink(&mut self, place: u32) {
        let Entry { newer, older, .. } = self.entries[place as usize];
        *self.newer_link(older) = newer;
        *self.older_link(newer) = older;
    }

    /// Puts an entry that is in no order of use to its recent end.
    fn link(&mut self, place: u32) {
        let second = self.newest;
        let entry = &mut self.entries[place as usize];
        (entry.newer, entry.older) = (NONE, second);
        *self.newer_link(second) = place;
        self.newest = place;
    }

    /// Returns the link from an entry to the entry used after it; without an entry, the oldest end.
    fn newer_link(&mut self, place: u32) -> &mut u32 {
        if place == NONE { &mut self.oldest } else { &mut self.entries[place as usize].newer }
    }

    /// Returns the link from an entry to the entry used before it; without an entry, the recent end.
    fn older_link(&mut self, place: u32) -> &mut u32 {
        if place == NONE { &mut self.newest } else { &mut self.entries[place as usize].older }
    }
}

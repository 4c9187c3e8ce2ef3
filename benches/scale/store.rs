//! The store that replicas share, and the calls to it.

use std::collections::HashSet;

use super::User;
use super::held::Known;

/// A call to the store: one round trip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// Reads an entry before a mint.
    Read,
    /// Asks for the lease of a key, and reads its entry again.
    Lease,
    /// Writes an entry, and adds the event that it replaces one.
    Write,
    /// Gives a lease back.
    Release,
    /// Reads an entry because of an event.
    Follow,
}

impl Call {
    pub const ALL: [Self; Self::COUNT] =
        [Self::Read, Self::Lease, Self::Write, Self::Release, Self::Follow];

    pub const COUNT: usize = 5;
}

/// Content of the store.
pub struct Store {
    /// Newest token of each user.
    entries: Vec<Option<Known>>,
    leases: HashSet<User>,
}

impl Store {
    pub fn new(users: User) -> Self {
        Self { entries: vec![None; users as usize], leases: HashSet::new() }
    }

    /// Returns what is stored for `user`, living or not.
    pub fn entry(&self, user: User) -> Option<Known> {
        self.entries[user as usize]
    }

    /// Returns all that is stored.
    pub fn entries(&self) -> impl Iterator<Item = Known> {
        self.entries.iter().copied().flatten()
    }

    pub fn write(&mut self, user: User, known: Known) {
        self.entries[user as usize] = Some(known);
    }

    /// Takes the lease of `user`. Returns whether it was free.
    pub fn lease(&mut self, user: User) -> bool {
        self.leases.insert(user)
    }

    /// Gives the lease back.
    pub fn release(&mut self, user: User) {
        self.leases.remove(&user);
    }
}

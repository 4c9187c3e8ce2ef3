//! Steps of a forget: told to the store, heard by the other replicas, carried out in memory, and kept in mind
//! by what a replica shares later.

use shared::protocol::{Facts, Mark, Wanted};

use super::flaw::Flaw;
use super::steps::{CREDENTIALS, Cluster, LIFE};
use super::world::{Content, Entry, Event, Replica, Telling, Token, User, World};

/// Tells the store of a forget in one go.
pub fn announce(store: &mut Content, ids: &mut u8, mark: Mark) {
    *ids += 1;
    store.mark = Some(mark);
    store.events.push(Event { id: *ids, mark });
}

impl Cluster {
    /// Takes the next step of a forget that has begun on this replica.
    pub fn tell(&self, world: &mut World, at: usize) {
        let now = self.now(at, world);
        let keeps_mints = self.has(Flaw::KeepsCalledOff);
        let World { store, replicas, ids, .. } = world;
        let replica = &mut replicas[at];
        replica.telling = match replica.telling {
            None => None,
            Some(Telling::Forget(number)) => {
                replica.forget(keeps_mints);
                Some(Telling::Note(number))
            }
            Some(Telling::Note(number)) => {
                let stored = store.mark.filter(|_| replica.is_connected);
                let mark = Mark::after(stored.max(replica.heard), now, [number; 16]);
                replica.heard = replica.heard.max(Some(mark));
                Some(Telling::SetMark(mark))
            }
            Some(Telling::SetMark(mark) | Telling::AddEvent(mark)) if !replica.is_connected => {
                replica.untold = Some(mark);
                Some(Telling::ForgetAgain(mark))
            }
            Some(Telling::SetMark(mark)) => {
                store.mark = Some(mark);
                Some(Telling::AddEvent(mark))
            }
            Some(Telling::AddEvent(mark)) => {
                *ids += 1;
                store.events.push(Event { id: *ids, mark });
                Some(Telling::ForgetAgain(mark))
            }
            Some(Telling::ForgetAgain(mark)) => {
                if !self.has(Flaw::ForgetsOnce) {
                    replica.forget(keeps_mints);
                }
                replica.carried_out(mark.nonce[0]);
                None
            }
        };
    }

    /// Hears the next event, or notices that there is none, or that the store has lost something.
    pub fn hear(&self, world: &mut World, at: usize) {
        let World { store, replicas, ids, .. } = world;
        let replica = &mut replicas[at];
        let has_last = store.events.iter().any(|event| event.id == replica.position);
        let is_cut = !replica.hears && replica.position > 0 && !has_last;
        let is_flushed = replica.era.replace(store.era).is_some_and(|era| era != store.era);
        if (is_flushed && !self.has(Flaw::OverlooksFlushes)) || is_cut {
            (replica.position, replica.is_unshared) = (0, true);
            if let Some(heard) = replica.heard {
                announce(store, ids, heard);
            }
            return;
        }
        let next = store.events.iter().find(|event| event.id > replica.position);
        let Some(&Event { id, mark }) = next else {
            replica.hears = true;
            return;
        };
        replica.position = id;
        let number = mark.nonce[0];
        if replica.heard < Some(mark) {
            replica.heard = Some(mark);
            replica.due = replica.due.max(Some(number));
        } else if replica.due.is_some() {
            // A walk is to come anyway.
            replica.due = replica.due.max(Some(number));
        } else {
            // The replica takes the forget for carried out.
            replica.carried_out(number);
        }
    }

    /// Carries out in memory what was heard.
    pub fn walk(&self, replica: &mut Replica) {
        if let Some(due) = replica.due {
            replica.forget(self.has(Flaw::KeepsCalledOff));
            replica.carried_out(due);
        }
    }

    /// Shares the token in memory: reads the store, and writes in a step of its own.
    pub fn rewrite(&self, world: &mut World, at: usize) {
        if let Some(entry) = world.replicas[at].rewriting.take() {
            if world.replicas[at].is_connected {
                self.put(world, entry);
            } else {
                world.replicas[at].is_unshared = true;
            }
            return;
        }
        let marks = self.marks(world, at);
        let usable = world.store.entry.clone();
        let usable = usable.filter(|entry| self.is_usable(world, at, entry, Wanted::Any));
        let stored = world.store.mark;
        let replica = &mut world.replicas[at];
        replica.is_unshared = false;
        if stored > replica.heard {
            // The mark is here sooner than its event.
            replica.heard = stored;
            replica.due = replica.due.max(stored.map(|mark| mark.nonce[0]));
            return;
        }
        let Some(token) = replica.held else { return };
        let is_carried_out = |mark: &Mark| mark.nonce[0] <= replica.forgot;
        if !marks.iter().all(is_carried_out) && !self.has(Flaw::SharesTooEarly) {
            replica.is_unshared = true;
            return;
        }
        if usable.is_some_and(|entry| entry.facts.minted_at >= token.minted_at) {
            return;
        }
        let known = marks.iter().map(|mark| mark.nonce).collect();
        let Token { minted_at, .. } = token;
        let facts = Facts { minted_at, life: LIFE, known, credentials: CREDENTIALS };
        replica.rewriting = Some(Entry { sealed_for: User::Ours, facts, token });
    }
}

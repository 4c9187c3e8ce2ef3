//! Open WebSockets by user, so that a logout can end them.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ground::user_id::UserId;
use hop::proxy::Recaller;

/// Entries from which on WebSockets that have ended are looked for. As often as the number has doubled, so that an
/// entry costs a constant time on average.
const SWEPT_FROM: usize = 64;

/// WebSockets of all users. Holds at most twice as many entries as there are open WebSockets, and [`SWEPT_FROM`].
#[derive(Default)]
pub(super) struct Tunnels(Mutex<Open>);

#[derive(Default)]
struct Open {
    by_user: HashMap<UserId, Vec<Recaller>>,
    entries: usize,
    /// Number of entries at which the next sweep is due.
    sweep_at: usize,
}

impl Tunnels {
    /// Enters a WebSocket of `user`, which is open or about to open.
    pub(super) fn enter(&self, user: &UserId, recaller: Recaller) {
        let mut open = self.open();
        if open.entries >= open.sweep_at.max(SWEPT_FROM) {
            open.sweep();
        }
        open.by_user.entry(user.clone()).or_default().push(recaller);
        open.entries += 1;
    }

    /// Ends the WebSockets of `user`.
    pub(super) fn end(&self, user: &UserId) {
        let ended = {
            let mut open = self.open();
            let ended = open.by_user.remove(user).unwrap_or_default();
            open.entries -= ended.len();
            ended
        };
        ended.iter().for_each(Recaller::recall);
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    /// Removes WebSockets that have ended.
    fn sweep(&mut self) {
        self.by_user.retain(|_, tunnels| {
            tunnels.retain(|tunnel| !tunnel.is_over());
            !tunnels.is_empty()
        });
        self.entries = self.by_user.values().map(Vec::len).sum();
        self.sweep_at = 2 * self.entries;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ended_websockets_leave_the_list() {
        let tunnels = Tunnels::default();
        let (kept, recall) = Recaller::pair();
        tunnels.enter(&"ada".into(), kept);
        for number in 0..10_000 {
            let (recaller, _) = Recaller::pair();
            tunnels.enter(&number.to_string().as_str().into(), recaller);
            assert!(tunnels.open().entries <= SWEPT_FROM + 1);
        }
        tunnels.end(&"bob".into());
        let (again, _) = Recaller::pair();
        tunnels.enter(&"ada".into(), again);
        assert_eq!(tunnels.open().by_user[&UserId::from("ada")].len(), 2);
        drop(recall);
    }
}

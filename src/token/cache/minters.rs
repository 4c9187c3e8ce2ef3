//! The current [`Mint`], and the tokens of its predecessors.
//!
//! New credentials begin a new epoch. A token of an earlier epoch is served on, since only Velt can tell
//! whether it still works. It is refreshed at its next use, but not in the same moment as the tokens of all
//! other users. A failure of an earlier epoch is not answered from memory any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::{Mint, MintRequest, Moment};

/// Time over which the refreshes after new credentials are spread.
const SPREAD: Duration = Duration::from_secs(600);

/// The current [`Mint`] and the epoch of its credentials.
pub(super) struct Minters {
    current: ArcSwap<Minter>,
    /// Epoch of `current`, to be read without loading the pointer.
    epoch: AtomicU32,
}

/// A [`Mint`] and the epoch of its credentials.
pub(super) struct Minter {
    pub(super) mint: Arc<dyn Mint>,
    pub(super) epoch: u32,
    /// Begin of the epoch.
    since: Moment,
}

impl Minters {
    pub(super) fn new(mint: Arc<dyn Mint>) -> Self {
        let minter = Minter { mint, epoch: 0, since: Moment::now() };
        Self { current: ArcSwap::from_pointee(minter), epoch: AtomicU32::new(0) }
    }

    /// Returns the current minter.
    pub(super) fn current(&self) -> Arc<Minter> {
        self.current.load_full()
    }

    /// Returns the epoch of the current minter.
    pub(super) fn epoch(&self) -> u32 {
        self.epoch.load(Ordering::Relaxed)
    }

    /// Makes `mint` the current one. With `new_credentials`, `mint` begins an epoch.
    pub(super) fn replace(&self, mint: Arc<dyn Mint>, new_credentials: bool) {
        let old = self.current();
        let minter = if new_credentials {
            Minter { mint, epoch: old.epoch + 1, since: Moment::now() }
        } else {
            Minter { mint, epoch: old.epoch, since: old.since }
        };
        self.epoch.store(minter.epoch, Ordering::Relaxed);
        self.current.store(Arc::new(minter));
    }

    /// Whether a token of `epoch` is due for a refresh only because its epoch has ended.
    pub(super) fn is_turn(&self, epoch: u32, request: &MintRequest, now: Moment) -> bool {
        epoch != self.epoch()
            && now.since(self.current().since) >= SPREAD.mul_f64(request.fraction())
    }
}

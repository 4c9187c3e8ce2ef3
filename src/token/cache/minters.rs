//! Who mints, and what becomes of the tokens of those who did before.
//!
//! New credentials begin a new epoch. A token of an earlier one is as good as it was, as far as
//! anybody but Velt can tell: it is served on, and refreshed at its next use, but not everybody's in
//! the same moment. A failure of an earlier one says nothing any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::token::{Mint, MintRequest, Moment};

/// Over how long the refreshes are spread that follow new credentials.
const SPREAD: Duration = Duration::from_secs(600);

/// Who mints now.
pub(super) struct Minters {
    current: ArcSwap<Minter>,
    /// The current one's, to be read without the pointer.
    epoch: AtomicU32,
}

/// One [`Mint`], and whose credentials it has.
pub(super) struct Minter {
    pub(super) mint: Arc<dyn Mint>,
    pub(super) epoch: u32,
    /// When the epoch began.
    since: Moment,
}

impl Minters {
    pub(super) fn new(mint: Arc<dyn Mint>) -> Self {
        let minter = Minter { mint, epoch: 0, since: Moment::now() };
        Self { current: ArcSwap::from_pointee(minter), epoch: AtomicU32::new(0) }
    }

    /// Who mints now.
    pub(super) fn current(&self) -> Arc<Minter> {
        self.current.load_full()
    }

    /// The epoch of whoever mints now.
    pub(super) fn epoch(&self) -> u32 {
        self.epoch.load(Ordering::Relaxed)
    }

    /// Has `mint` mint from now on. With `new_credentials` it begins an epoch.
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

    /// Whether it is time to refresh a token of `epoch` only because it is of that epoch.
    pub(super) fn is_turn(&self, epoch: u32, request: &MintRequest, now: Moment) -> bool {
        epoch != self.epoch()
            && now.since(self.current().since) >= SPREAD.mul_f64(request.fraction())
    }
}

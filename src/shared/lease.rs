//! The lease of a mint: a key in the store that one replica holds, renews while it mints, and gives back.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use crate::Inner;
use crate::protocol::{LEASE_LIFE, Nonce, millis};
use crate::seal::Name;
use crate::store::Fault;
use crate::value::number_of;
use ground::metrics::SharedLease;

/// Time limit of a call that renews or gives back a lease. No request waits for such a call.
const PATIENCE: Duration = Duration::from_secs(1);

/// Script that deletes a lease if this replica still holds it.
pub(crate) const RELEASE: &str =
    "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) end return 0";

/// Script that renews a lease if this replica still holds it.
pub(crate) const RENEW: &str = "if redis.call('get', KEYS[1]) == ARGV[1] then \
                     return redis.call('pexpire', KEYS[1], ARGV[2]) end return 0";

/// A lease that this replica holds. Gives the lease back when dropped, also if the mint failed.
pub(crate) struct Lease {
    shared: Arc<Inner>,
    name: Name,
    nonce: Nonce,
}

impl Lease {
    /// Makes the guard of a lease that this replica has taken with `nonce`.
    pub(crate) fn new(shared: &Arc<Inner>, name: Name, nonce: Nonce) -> Self {
        Self { shared: Arc::clone(shared), name, nonce }
    }

    /// Renews the lease until `minting` has ended.
    pub(crate) async fn renewed_while<T>(&self, minting: impl Future<Output = T>) -> T {
        let renewing = async {
            let mut ticks = interval(LEASE_LIFE / 3);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            // The first tick comes at once, when the lease needs no renewal yet.
            ticks.tick().await;
            let mut lost = false;
            loop {
                ticks.tick().await;
                let renewed = self.renew().await;
                // Counted once. The mint goes on: a lost lease costs one mint more at most.
                if renewed == Ok(false) && !lost {
                    lost = true;
                    self.shared.metrics.leases.increment(SharedLease::Lost);
                }
            }
        };
        tokio::select! {
            minted = minting => minted,
            () = renewing => unreachable!("renews for ever"),
        }
    }

    async fn renew(&self) -> Result<bool, Fault> {
        let mut command = redis::cmd("EVAL");
        command.arg(RENEW).arg(1).arg(self.shared.store_keys.lease(self.name));
        command.arg(&self.nonce[..]).arg(millis(LEASE_LIFE));
        let answers = self.shared.store.call(vec![command], PATIENCE).await?;
        Ok(answers.first().and_then(number_of) == Some(1))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut command = redis::cmd("EVAL");
        command
            .arg(RELEASE)
            .arg(1)
            .arg(self.shared.store_keys.lease(self.name))
            .arg(&self.nonce[..]);
        let store = self.shared.store.clone();
        // Without a running runtime, the lease is not given back, and ends by itself.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                // A lease that is not given back ends by itself in a few seconds.
                let _ = store.call(vec![command], PATIENCE).await;
            });
        }
    }
}

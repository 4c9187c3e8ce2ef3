//! A mint that first looks whether another replica has had the token minted, and shares what it mints.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::entry::Entry;
use crate::lease::Lease;
use crate::place::Place;
use crate::protocol::{Answer, Course, Facts, Mark, Nonce, Step};
use crate::store::Fault;
use crate::{Inner, nonce, now};
use ground::metrics::{SharedLease, SharedRead};
use token::{Demand, Mint, MintError, MintFuture, MintRequest, Minted, Stage};

/// A [`Mint`] that shares tokens through the store.
pub struct SharedMint {
    mint: Arc<dyn Mint>,
    shared: Arc<Inner>,
    credentials: Arc<Credentials>,
}

/// Credentials of a mint, on which the token's place and its worth depend.
pub(crate) struct Credentials {
    pub(crate) api_key: String,
    /// Fingerprints of the auth token, by each seal key; the first goes into new entries.
    pub(crate) fingerprints: Vec<[u8; 8]>,
}

impl Credentials {
    /// Returns the fingerprint for new entries.
    pub(crate) fn fingerprint(&self) -> [u8; 8] {
        self.fingerprints[0]
    }

    /// Returns these credentials as the entry with `facts` names them: by the key that has sealed it.
    pub(crate) fn as_in(&self, facts: &Facts) -> [u8; 8] {
        let named = self.fingerprints.iter().find(|print| **print == facts.credentials);
        named.copied().unwrap_or_else(|| self.fingerprint())
    }
}

/// Content of the store for a request, judged.
pub(crate) struct Look {
    /// Whether the lease was asked for and won.
    won: bool,
    /// Marks in force; `None` if one can't be read, so that no stored token can be judged.
    pub(crate) marks: Option<Vec<Mark>>,
    /// Token that may be served.
    found: Option<Minted>,
}

/// Time for which one mint may still wait for answers of the store.
struct Budget(Duration);

impl SharedMint {
    pub(crate) fn new(
        mint: Arc<dyn Mint>,
        shared: Arc<Inner>,
        credentials: Arc<Credentials>,
    ) -> Self {
        Self { mint, shared, credentials }
    }

    async fn course(
        &self,
        request: &MintRequest,
        demand: &Arc<Demand>,
    ) -> Result<Minted, MintError> {
        let place = Place::of(request, &self.credentials.api_key, &self.shared.keys());
        self.shared.index.insert(place.name(), request.clone());
        let (mut budget, mut course) = (Budget(self.shared.patience), Course::default());
        let (mut lease, mut waited) = (None, false);
        loop {
            let look = self.look(&place, lease.as_ref(), demand, &mut budget).await;
            let answer = match (&look, &lease) {
                (Err(_), _) => Answer::Fault,
                (Ok(look), None) => Answer::Read { usable: look.found.is_some() },
                (Ok(look), Some(_)) => {
                    Answer::Lease { won: look.won, usable: look.found.is_some() }
                }
            };
            let step = course.after(answer);
            match step {
                Step::TakeLease => lease = Some(nonce()),
                Step::Wait(pause) | Step::WaitOut(pause) => {
                    waited = true;
                    lease = lease.filter(|_| matches!(step, Step::Wait(_)));
                    // The store has answered. Each look while another replica mints may take the full time again.
                    budget = Budget(self.shared.patience);
                    demand.reached(Stage::Called);
                    sleep(pause).await;
                }
                Step::Serve => {
                    let won = matches!(answer, Answer::Lease { won: true, .. });
                    self.release(&place, lease.filter(|_| won));
                    if waited {
                        self.shared.metrics.leases.increment(SharedLease::Awaited);
                    }
                    let found = look.ok().and_then(|look| look.found);
                    return Ok(found.expect("the step is to serve what was found"));
                }
                Step::Mint { leased } => {
                    let marks = look.ok().and_then(|look| look.marks);
                    if leased || waited {
                        let course = if leased { SharedLease::Won } else { SharedLease::GaveUp };
                        self.shared.metrics.leases.increment(course);
                    }
                    let lease = lease.filter(|_| leased);
                    return self.mint_and_share(request, demand, place, marks, lease).await;
                }
            }
        }
    }

    /// Reads the store, and counts the result. Asks for the lease if there is a nonce for it.
    async fn look(
        &self,
        place: &Place,
        lease: Option<&Nonce>,
        demand: &Demand,
        budget: &mut Budget,
    ) -> Result<Look, Fault> {
        let begun = Instant::now();
        let look = self.shared.look(place, lease, budget.0).await;
        budget.0 = budget.0.saturating_sub(begun.elapsed());
        let look = look.map(|raw| {
            let (result, found) = raw.found(demand.replaces(), &self.credentials);
            (result, Look { won: raw.won, marks: raw.marks, found })
        });
        let result = look.as_ref().map_or(SharedRead::Fault, |(result, _)| *result);
        self.shared.metrics.reads.increment(result);
        look.map(|(_, look)| look)
    }

    async fn mint_and_share(
        &self,
        request: &MintRequest,
        demand: &Arc<Demand>,
        place: Place,
        marks: Option<Vec<Mark>>,
        lease: Option<Nonce>,
    ) -> Result<Minted, MintError> {
        let held = lease.map(|nonce| Lease::new(&self.shared, place.name(), nonce));
        let minting = self.mint.mint(request, demand);
        let minted = match &held {
            Some(lease) => lease.renewed_while(minting).await,
            None => minting.await,
        };
        let Ok(minted) = minted else { return minted };
        // Without the lease, another replica may have minted too. Tell all replicas, so that they take the same
        // token.
        let replaces = demand.replaces().is_some() || held.is_none();
        let entry = self.entry(&minted, marks.as_deref());
        let (shared, request) = (Arc::clone(&self.shared), request.clone());
        // No request waits for the write.
        tokio::spawn(async move {
            shared.write(&place, entry, request, replaces).await;
            drop(held);
        });
        Ok(minted)
    }

    /// Makes the entry of a minted token; `None` without `marks`, because the forgets that the mint knew are unknown.
    fn entry(&self, minted: &Minted, marks: Option<&[Mark]>) -> Option<Entry> {
        let facts = Facts {
            minted_at: now(),
            life: minted.life,
            known: marks?.iter().map(|mark| mark.nonce).collect(),
            credentials: self.credentials.fingerprint(),
        };
        Some(Entry { facts, token: minted.value.clone() })
    }

    fn release(&self, place: &Place, lease: Option<Nonce>) {
        drop(lease.map(|nonce| Lease::new(&self.shared, place.name(), nonce)));
    }
}

impl Mint for SharedMint {
    fn mint<'a>(&'a self, request: &'a MintRequest, demand: &'a Arc<Demand>) -> MintFuture<'a> {
        Box::pin(self.course(request, demand))
    }
}

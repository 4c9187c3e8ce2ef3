//! Trial mints: a mint on a timer for a user whom the operator names, so that an alert comes before users notice.
//!
//! The token is dropped: no cache and no store has it, and no request can get it. The call of a trial comes last in the
//! queue and is none of the calls that users' mints may make ([`Demand::spare`]).

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use crate::cache::outcome_of;
use crate::{Demand, Details, Mint, MintError, MintPlan, MintRequest, Minted, Unplanned};
use ground::logging::Chain;
use ground::metrics::{MintOutcome, TrialMetrics};

/// Share of the interval within which the first mint begins: replicas that start together do not call together.
const FIRST_WITHIN: f64 = 0.1;

/// Share of the interval by which a wait may be shorter or longer.
const JITTER: f64 = 0.1;

/// Settings of trial mints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    pub user: String,
    /// Organization of the user; `None` for the organization of all users.
    pub organization: Option<String>,
    pub interval: Duration,
}

impl Settings {
    /// Returns the request of a trial mint under `plan`.
    ///
    /// # Errors
    ///
    /// See [`MintPlan::request`].
    pub fn request(&self, plan: &MintPlan) -> Result<MintRequest, Unplanned> {
        let organization = self.organization.as_deref().map(Box::from);
        let details = Details { organization, ..Details::default() };
        plan.request(self.user.as_str().into(), details)
    }
}

/// Job of the trial: the request, the mint that carries it out, and the interval.
#[derive(Clone)]
struct Job {
    mint: Arc<dyn Mint>,
    request: MintRequest,
    interval: Duration,
}

impl Job {
    /// Whether `other` mints the same at the same times, perhaps by another client.
    fn is_same(&self, other: &Self) -> bool {
        self.request == other.request && self.interval == other.interval
    }
}

/// Trial mints of one sidecar.
pub struct Trial {
    job: watch::Sender<Option<Job>>,
    metrics: TrialMetrics,
    noise: RandomState,
}

impl Trial {
    /// Makes the trial without a job.
    pub fn new(metrics: TrialMetrics) -> Self {
        Self { job: watch::Sender::new(None), metrics, noise: RandomState::new() }
    }

    /// Sets what the trial mints from now on: nothing without `settings`. Without `mint`, the former one stays.
    pub fn set(&self, settings: Option<&Settings>, plan: &MintPlan, mint: Option<Arc<dyn Mint>>) {
        self.job.send_modify(|job| {
            let mint = mint.or_else(|| job.as_ref().map(|job| Arc::clone(&job.mint)));
            // The reading of the settings has complained of a user for whom nothing can be minted.
            let request = settings.and_then(|settings| settings.request(plan).ok());
            let interval = settings.map(|settings| settings.interval);
            *job = mint.zip(request).zip(interval).map(|((mint, request), interval)| Job {
                mint,
                request,
                interval,
            });
        });
    }

    /// Mints for as long as the sidecar runs.
    pub async fn run(&self) {
        let mut jobs = self.job.subscribe();
        let mut scheduled: Option<(Job, Instant)> = None;
        let mut turns: u64 = 0;
        loop {
            let job = jobs.borrow_and_update().clone();
            let Some(job) = job else {
                scheduled = None;
                self.metrics.off();
                // An error says that the trial is gone.
                if jobs.changed().await.is_err() {
                    return;
                }
                continue;
            };
            let kept = scheduled.take().filter(|(former, _)| former.is_same(&job));
            let at = kept.map_or_else(
                || Instant::now() + job.interval.mul_f64(FIRST_WITHIN * self.noise(turns)),
                |(_, at)| at,
            );
            tokio::select! {
                changed = jobs.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    scheduled = Some((job, at));
                }
                () = sleep_until(at) => {
                    turns += 1;
                    self.mint(&job).await;
                    let factor = 1.0 - JITTER + 2.0 * JITTER * self.noise(turns);
                    let next = Instant::now() + job.interval.mul_f64(factor);
                    scheduled = Some((job, next));
                }
            }
        }
    }

    /// Returns a number from 0 to 1 that another replica does not share.
    fn noise(&self, turn: u64) -> f64 {
        (self.noise.hash_one(turn) % 1024) as f64 / 1024.0
    }

    async fn mint(&self, job: &Job) {
        let job = job.clone();
        // A task of its own, so that a panic ends the mint alone.
        let minting = tokio::spawn(async move {
            let demand = Demand::spare();
            job.mint.mint(&job.request, &demand).await
        });
        self.note(minting.await.unwrap_or(Err(MintError::Panicked)));
    }

    /// Counts and logs the result. The token is dropped with it.
    fn note(&self, result: Result<Minted, MintError>) {
        match result {
            Ok(_) => {
                let failed_before = self.metrics.succeeded(SystemTime::now());
                if failed_before > 0 {
                    info!(failed_before, "a trial mint succeeded again");
                }
            }
            // Users' mints took all calls, which shows nothing about Velt.
            Err(MintError::Queued) => self.metrics.mints.increment(MintOutcome::Queued),
            Err(error) => {
                let in_a_row = self.metrics.failed(outcome_of(&error));
                warn!(
                    error = %Chain(&error),
                    in_a_row,
                    "a trial mint failed; if more fail, velt-sidecar doctor says what to mend"
                );
            }
        }
    }
}

//! Reading again, while the sidecar runs, what it was started with: the configuration with its
//! secrets, and the files of certificates.
//!
//! What is good takes effect as a whole; of what is not, the last good one stays, and that is counted
//! and told. The files are looked at now and then, since what Kubernetes mounts is replaced behind a
//! symlink, which no watch of a file survives; and at once on SIGHUP. Nothing here knows the parts
//! that change: the composition root hands in what replaces them.

mod changes;

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval};
use tracing::{error, info, warn};

pub use self::changes::{Change, Changes};
use crate::config::{Config, Effective, Origin};
use crate::logging::Chain;
use crate::metrics::{Label as _, ReloadMetrics, ReloadPart};

/// Why something could not be put into force.
pub type Refusal = Box<dyn Error + Send + Sync>;

/// Puts a configuration into force, as far as it has changed; what is in force then comes last.
pub type Apply = Arc<dyn Fn(&Config, &Changes, &[Effective]) -> Result<(), Refusal> + Send + Sync>;

/// Looks at some files again; says whether it has put something new into force. The same bad content
/// is complained of once, unless it is asked `again`.
pub type Refresh = Arc<dyn Fn(bool) -> Result<bool, Refusal> + Send + Sync>;

/// Asks for a look now.
#[derive(Clone)]
pub struct Trigger(mpsc::Sender<oneshot::Sender<()>>);

impl Trigger {
    /// Looks at everything, tells of everything that is wrong even if it has been told before, and
    /// returns when what is good is in force.
    pub async fn look(&self) {
        let (done, finished) = oneshot::channel();
        // Errors only say that the sidecar is ending, when nobody looks any more.
        if self.0.send(done).await.is_ok() {
            let _ = finished.await;
        }
    }
}

/// Everything that is read again.
pub struct Reload {
    /// Between two looks; `None` leaves it to SIGHUP.
    interval: Option<Duration>,
    configuration: Option<Configuration>,
    files: Vec<(ReloadPart, Refresh)>,
    asked: mpsc::Receiver<oneshot::Sender<()>>,
    metrics: ReloadMetrics,
}

/// The configuration that is in force.
struct Configuration {
    origin: Origin,
    effective: Vec<Effective>,
    /// What differs from it but waits for a restart, as it was told last.
    waiting: Vec<Change>,
    /// What was wrong with the last one that was read.
    complaint: Option<String>,
    apply: Apply,
}

impl Reload {
    /// `config` is in force; `apply` and `files` replace what came of it. A configuration without an
    /// origin is never read again.
    pub fn new(
        config: &Config,
        apply: Apply,
        files: Vec<(ReloadPart, Refresh)>,
        metrics: ReloadMetrics,
    ) -> (Self, Trigger) {
        let configuration = config.origin.clone().map(|origin| Configuration {
            origin,
            effective: config.effective.clone(),
            waiting: Vec::new(),
            complaint: None,
            apply,
        });
        if configuration.is_some() {
            metrics.succeeded(ReloadPart::Config, SystemTime::now());
        }
        for (part, _) in &files {
            metrics.succeeded(*part, SystemTime::now());
        }
        let (sender, asked) = mpsc::channel(1);
        (
            Self { interval: config.reload_interval, configuration, files, asked, metrics },
            Trigger(sender),
        )
    }

    /// Looks for as long as the sidecar runs.
    pub async fn run(mut self) {
        let mut ticks = interval(self.interval.unwrap_or(Duration::from_secs(3600)));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first is now, and everything has just been read.
        ticks.tick().await;
        loop {
            tokio::select! {
                _ = ticks.tick(), if self.interval.is_some() => self.look(false).await,
                Some(done) = self.asked.recv() => {
                    self.look(true).await;
                    // An error only says that whoever has asked does not wait.
                    let _ = done.send(());
                }
            }
        }
    }

    async fn look(&mut self, again: bool) {
        self.metrics.looks.inc();
        if let Some(configuration) = &mut self.configuration {
            configuration.look(again, &self.metrics).await;
        }
        for (part, refresh) in &self.files {
            let refresh = Arc::clone(refresh);
            let refreshed = off_the_runtime(move || refresh(again)).await;
            match refreshed {
                Ok(false) => {}
                Ok(true) => {
                    info!(part = part.as_str(), "new certificates are in force");
                    self.metrics.applied(*part, SystemTime::now());
                }
                Err(error) => {
                    error!(%error, part = part.as_str(), "rejected; the last good ones stay in force");
                    self.metrics.rejected(*part);
                }
            }
        }
    }
}

impl Configuration {
    async fn look(&mut self, again: bool, metrics: &ReloadMetrics) {
        let part = ReloadPart::Config;
        let (origin, apply, effective) =
            (self.origin.clone(), Arc::clone(&self.apply), self.effective.clone());
        let looked = off_the_runtime(move || {
            let config = origin.load_settled()?;
            let changes = Changes::between(&effective, &config.effective);
            let effective = changes::in_force(&effective, &config.effective);
            if !changes.live.is_empty() {
                apply(&config, &changes, &effective)?;
            }
            Ok::<_, Refusal>((effective, changes))
        });
        let (effective, changes) = match looked.await {
            Ok(looked) => looked,
            Err(error) => {
                let complaint = Chain(error.as_ref()).to_string();
                if again || self.complaint.as_ref() != Some(&complaint) {
                    error!(%complaint, "the configuration was rejected; the last good one stays in force");
                    metrics.rejected(part);
                }
                self.complaint = Some(complaint);
                return;
            }
        };
        self.complaint = None;
        metrics.restart_needed.set(i64::try_from(changes.at_restart.len()).unwrap_or(i64::MAX));
        if self.waiting != changes.at_restart {
            if !changes.at_restart.is_empty() {
                let settings = listed(&changes.at_restart);
                warn!(settings, "settings were changed that take effect at the next start only");
            }
            self.waiting.clone_from(&changes.at_restart);
        }
        if changes.live.is_empty() {
            metrics.good(part);
            if again {
                info!("the configuration was read again; nothing new takes effect");
            }
            return;
        }
        info!(changes = listed(&changes.live), "a new configuration is in force");
        metrics.applied(part, SystemTime::now());
        self.effective = effective;
    }
}

fn listed(changes: &[Change]) -> String {
    let changes: Vec<String> = changes.iter().map(ToString::to_string).collect();
    changes.join("; ")
}

/// Runs what reads files elsewhere, since they may lie on a disk that is slow.
async fn off_the_runtime<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

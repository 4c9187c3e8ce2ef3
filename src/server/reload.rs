//! Reload while the sidecar runs: reads again the configuration with its secrets, and the files of
//! certificates.
//!
//! Good content takes effect as a whole. Bad content is rejected, counted and logged, and the last good
//! content stays in force. Secrets are replaced all the same: a mistake in the configuration must not keep a
//! revoked token in use. The files are looked at once per interval, because a watch on a file does not
//! survive when Kubernetes replaces a mounted file behind a symlink. SIGHUP brings an immediate look. The
//! caller of [`Reload::new`] hands in the functions that replace the parts.

mod changes;

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tracing::{error, info, warn};

pub use self::changes::{Change, Changes};
use crate::config::{Config, Effective, LoadError, Origin, RESTED, Reading};
use ground::logging::Chain;
use ground::metrics::{Label as _, ReloadMetrics, ReloadPart};
use ground::tls::Refreshed;

/// Reason why something could not be put into force.
pub type ReloadError = Box<dyn Error + Send + Sync>;

/// Puts a configuration into force, as far as it has changed. The last argument has the settings that are
/// then in force.
pub type Apply =
    Arc<dyn Fn(&Config, &Changes, &[Effective]) -> Result<(), ReloadError> + Send + Sync>;

/// Looks at some files again, and puts new and good content into force. Complains of the same bad content
/// once; with the argument `true` (`again`), once more.
pub type Refresh = Arc<dyn Fn(bool) -> Result<Refreshed, ReloadError> + Send + Sync>;

/// Handle that asks for a look now.
#[derive(Clone)]
pub struct Trigger(mpsc::Sender<oneshot::Sender<()>>);

impl Trigger {
    /// Looks at everything, reports every problem even if it was reported before, and returns when all good
    /// content is in force.
    pub async fn reload(&self) {
        let (done, finished) = oneshot::channel();
        // Errors only say that the sidecar is ending, and looks no more.
        if self.0.send(done).await.is_ok() {
            let _ = finished.await;
        }
    }
}

/// Sources that are read again.
pub struct Reload {
    /// Time between two looks; `None` leaves looks to SIGHUP.
    interval: Option<Duration>,
    configuration: Option<Configuration>,
    files: Vec<(ReloadPart, Refresh)>,
    asked: mpsc::Receiver<oneshot::Sender<()>>,
    metrics: ReloadMetrics,
    /// Whether the last look has found content that may be half written.
    unsettled: bool,
}

/// The configuration that is in force.
struct Configuration {
    /// File and environment of the configuration, with the text that is in force.
    origin: Origin,
    effective: Vec<Effective>,
    /// Last reading, if it is not in force, and the time since which the files have had its content.
    found: Option<(Arc<Reading>, Instant)>,
    /// Changes that wait for a restart, as they were last logged.
    waiting: Vec<Change>,
    /// Problem of the last reading, if it was rejected.
    complaint: Option<String>,
    apply: Apply,
}

impl Reload {
    /// Makes the reload and its trigger. `config` is in force; `apply` and `files` replace the parts that
    /// were made from it. A configuration without an origin is never read again.
    pub fn new(
        config: &Config,
        apply: Apply,
        files: Vec<(ReloadPart, Refresh)>,
        metrics: ReloadMetrics,
    ) -> (Self, Trigger) {
        let configuration = config.origin.clone().map(|origin| Configuration {
            origin,
            effective: config.effective.clone(),
            found: None,
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
        let interval = config.reload_interval;
        let reload = Self { interval, configuration, files, asked, metrics, unsettled: false };
        (reload, Trigger(sender))
    }

    /// Looks for as long as the sidecar runs.
    pub async fn run(mut self) {
        let mut ticks = interval(self.interval.unwrap_or(Duration::from_secs(3600)));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first tick comes at once, and everything has just been read.
        ticks.tick().await;
        loop {
            tokio::select! {
                _ = ticks.tick(), if self.interval.is_some() => self.check(false).await,
                () = sleep(RESTED), if self.unsettled => self.check(false).await,
                Some(done) = self.asked.recv() => {
                    self.check(true).await;
                    // An error only says that the caller of `look` does not wait.
                    let _ = done.send(());
                }
            }
        }
    }

    async fn check(&mut self, again: bool) {
        self.metrics.looks.inc();
        self.unsettled = false;
        if let Some(configuration) = &mut self.configuration {
            self.unsettled = configuration.check(again, &self.metrics).await;
        }
        for (part, refresh) in &self.files {
            let refresh = Arc::clone(refresh);
            let refreshed = off_the_runtime(move || refresh(again)).await;
            match refreshed {
                Ok(Refreshed::Same | Refreshed::Rejected) => {}
                Ok(Refreshed::Unsettled) => self.unsettled = true,
                Ok(Refreshed::Mended) => {
                    info!(
                        part = part.as_str(),
                        "the files have the content in force again, and it is good"
                    );
                    self.metrics.good(*part);
                }
                Ok(Refreshed::Replaced) => {
                    info!(part = part.as_str(), "new certificates are in force");
                    self.metrics.applied(*part, SystemTime::now());
                }
                Err(error) => {
                    error!(
                        %error,
                        part = part.as_str(),
                        "new certificates were rejected; the last good ones stay in force"
                    );
                    self.metrics.rejected(*part);
                }
            }
        }
    }
}

/// Part of a reading that was put into force.
struct Applied {
    origin: Option<Origin>,
    effective: Vec<Effective>,
    changes: Vec<Change>,
}

/// Result of a reading.
#[derive(Default)]
struct Reloaded {
    applied: Option<Applied>,
    /// Changes that wait for a restart.
    waiting: Vec<Change>,
    /// Whether live settings are among `waiting`.
    together: bool,
    refusal: Option<ReloadError>,
}

impl Configuration {
    /// Looks at the configuration. Returns whether its content may be half written, and so has to be looked at again.
    async fn check(&mut self, again: bool, metrics: &ReloadMetrics) -> bool {
        let origin = self.origin.clone();
        let reading = Arc::new(off_the_runtime(move || origin.read_settled()).await);
        if !self.has_rested(&reading) && !again {
            return true;
        }
        let (apply, effective) = (Arc::clone(&self.apply), self.effective.clone());
        let reloaded =
            off_the_runtime(move || put_reading_into_force(&reading, &effective, &apply)).await;
        self.tell(reloaded, again, metrics);
        false
    }

    /// Whether `reading` may be put into force: it is in force already, can't be half written, or has been the same for
    /// [`RESTED`].
    fn has_rested(&mut self, reading: &Arc<Reading>) -> bool {
        let now = Instant::now();
        let at_once = reading.config.as_ref().is_ok_and(|config| {
            let changes = Changes::between(&self.effective, &config.effective).all();
            changes.iter().all(|change| self.origin.is_replaced_at_once(reading, &change.path))
        });
        if at_once {
            self.found = None;
            return true;
        }
        match &self.found {
            Some((found, since)) if found.shows_the_same_as(reading) => {
                now.saturating_duration_since(*since) >= RESTED
            }
            _ => {
                self.found = Some((Arc::clone(reading), now));
                false
            }
        }
    }

    /// Notes, logs and counts the result of a look.
    fn tell(&mut self, reloaded: Reloaded, again: bool, metrics: &ReloadMetrics) {
        let part = ReloadPart::Config;
        let Reloaded { applied, waiting, together, refusal } = reloaded;
        metrics.restart_needed.set(i64::try_from(waiting.len()).unwrap_or(i64::MAX));
        if self.waiting != waiting {
            if !waiting.is_empty() {
                let settings = listed(&waiting);
                if together {
                    warn!(
                        settings,
                        "a setting was changed that says which clients or which app the sidecar \
                         serves; it takes effect at the next start only, and all other changed \
                         settings but secrets wait with it"
                    );
                } else {
                    warn!(
                        settings,
                        "settings were changed that take effect at the next start only"
                    );
                }
            }
            self.waiting = waiting;
        }
        let is_new = applied.is_some();
        if let Some(Applied { origin, effective, changes }) = applied {
            let changes = listed(&changes);
            if refusal.is_none() {
                info!(changes, "a new configuration is in force");
            } else {
                info!(changes, "new secrets are in force");
            }
            metrics.applied(part, SystemTime::now());
            self.effective = effective;
            if let Some(origin) = origin {
                self.origin = origin;
            }
        }
        let Some(refusal) = refusal else {
            self.complaint = None;
            metrics.good(part);
            if again && !is_new {
                info!("the configuration was read again; nothing new takes effect");
            }
            return;
        };
        let complaint = Chain(refusal.as_ref()).to_string();
        let is_known = self.complaint.as_ref() == Some(&complaint);
        if again || !is_known {
            error!(%complaint, "the configuration was rejected; the last good one stays in force");
            metrics.rejected(part);
        } else {
            // New secrets may have been applied above, which set the gauge to good.
            metrics.still_rejected(part);
        }
        self.complaint = Some(complaint);
    }
}

/// Puts as much of `reading` into force as may be. `in_force` are the settings so far.
fn put_reading_into_force(reading: &Reading, in_force: &[Effective], apply: &Apply) -> Reloaded {
    let mut reloaded = Reloaded::default();
    let together = match &reading.config {
        Ok(config) => {
            let changes = Changes::between(in_force, &config.effective);
            changes.wait_together() && !changes.live.is_empty()
        }
        Err(error) => {
            reloaded.refusal = Some(error.to_string().into());
            true
        }
    };
    // If the new text is wrong or has to wait, keep the old text and take only the present secrets.
    let config = if together { reading.taken.as_ref() } else { Some(&reading.config) };
    match config.map(|config| put_into_force(config, in_force, apply)) {
        Some(Ok(applied)) => reloaded.applied = applied,
        Some(Err(error)) => {
            reloaded.refusal.get_or_insert(error);
        }
        None => {}
    }
    if let Ok(config) = &reading.config {
        let now = reloaded.applied.as_ref().map_or(in_force, |applied| &applied.effective);
        let changes = Changes::between(now, &config.effective);
        reloaded.together = together && !changes.live.is_empty();
        reloaded.waiting = if reloaded.together { changes.all() } else { changes.at_restart };
    }
    reloaded
}

/// Puts a configuration into force as far as it has changed; `None` if it has not.
fn put_into_force(
    config: &Result<Config, LoadError>,
    in_force: &[Effective],
    apply: &Apply,
) -> Result<Option<Applied>, ReloadError> {
    let config = config.as_ref().map_err(|error| ReloadError::from(error.to_string()))?;
    let changes = Changes::between(in_force, &config.effective);
    if changes.live.is_empty() {
        return Ok(None);
    }
    let effective = changes::in_force(in_force, &config.effective);
    apply(config, &changes, &effective)?;
    Ok(Some(Applied { origin: config.origin.clone(), effective, changes: changes.live }))
}

fn listed(changes: &[Change]) -> String {
    let changes: Vec<String> = changes.iter().map(ToString::to_string).collect();
    changes.join("; ")
}

/// Runs `work`, which reads files, on another thread, because the files may lie on a slow disk.
async fn off_the_runtime<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

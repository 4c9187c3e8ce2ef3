//! `doctor`: looks at the whole set-up and says what to do about each thing it finds.
//!
//! Each check runs beside the others and within a time of its own, so that a check that hangs or fails hides
//! nothing. Checks of the app, of a mint and of certificates use the code that serves requests, so the
//! sidecar will meet what they report; only `route` goes the way to Velt by itself. The doctor changes
//! nothing, but mints one token and drops the token.

mod app;
mod app_path;
mod certificate;
mod files;
mod keys;
mod limits;
mod listening;
mod mint;
mod report;
mod resolution;
mod route;
mod shared;
mod velt;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::timeout;

use self::report::Findings;
pub use self::report::{Check, Finding, Report, Severity};
use crate::caution::{Caution, cautions};
use server::config::{Config, ConfigError, Place, Source};

/// Settings of an examination.
pub struct Examination {
    /// Name of the configuration file in messages.
    pub file: String,
    /// Text of the configuration file, or the reason why there is none.
    pub text: io::Result<String>,
    pub environment: BTreeMap<String, String>,
    /// User for whom to mint; `None` mints nothing.
    pub canary: Option<Canary>,
    pub tolerated: Tolerated,
    /// Time limit of each check.
    pub patience: Duration,
    /// Directory that holds the system's own files (`proc`, `sys`): `/`.
    pub root: PathBuf,
}

/// Problems that count only as warnings, because the sidecar starts and serves all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tolerated {
    Nothing,
    /// Problems with Velt, or with the server that publishes the keys of assertions.
    Velt,
    /// All problems that let the sidecar start.
    Everything,
}

impl Tolerated {
    fn covers(self, finding: &Finding) -> bool {
        let velt = matches!(finding.check, Check::Resolution | Check::Keys | Check::Velt);
        !finding.prevents_start
            && match self {
                Self::Nothing => false,
                Self::Velt => velt,
                Self::Everything => true,
            }
    }
}

/// The user for whom one token is minted.
#[derive(Clone, Debug)]
pub struct Canary {
    pub user: String,
    /// Organization of the user, where the configuration sets none for all users.
    pub organization: Option<String>,
}

/// Data that every check may look at.
struct Surroundings {
    config: Config,
    environment: BTreeMap<String, String>,
    canary: Option<Canary>,
    root: PathBuf,
}

impl Surroundings {
    /// Whether this is a container of a pod.
    fn in_kubernetes(&self) -> bool {
        self.environment.contains_key("KUBERNETES_SERVICE_HOST")
    }
}

type Checking = Pin<Box<dyn Future<Output = Vec<Finding>> + Send>>;

impl Examination {
    /// Runs all checks. Takes as long as the slowest check, and no longer than twice the patience.
    pub async fn run(self) -> Report {
        let Self { file, text, environment, canary, tolerated, patience, root } = self;
        let (name, variables) = (file.clone(), environment.clone());
        let reading = async move {
            let text = text.map_err(|error| unreadable(&name, &error))?;
            // Files with secrets are read here, and a file may hang.
            let parsed = spawn_blocking(move || Config::parse(&name, &text, &variables));
            let parsed = parsed.await.expect("reading settings does not panic");
            parsed.map_err(|error| complaints(&error))
        };
        let config = match timeout(patience, reading).await {
            Ok(Ok(config)) => config,
            Ok(Err(findings)) => return Report::new(findings),
            Err(_) => return Report::new(vec![too_slow(Check::Config, patience)]),
        };
        let mut findings = vec![in_force(&file, &config)];
        let around = Arc::new(Surroundings { config, environment, canary, root });
        let checks = checks(&around).into_iter().map(|(check, checking)| {
            tokio::spawn(async move {
                let found = timeout(patience, checking).await;
                found.unwrap_or_else(|_| vec![too_slow(check, patience)])
            })
        });
        // All checks are under way before the first is waited for.
        for checking in checks.collect::<Vec<_>>() {
            findings.extend(checking.await.expect("a check does not panic"));
        }
        for finding in &mut findings {
            if finding.severity == Severity::Problem && tolerated.covers(finding) {
                finding.severity = Severity::Warning;
            }
        }
        Report::new(findings)
    }
}

fn checks(around: &Arc<Surroundings>) -> Vec<(Check, Checking)> {
    let blocking = |check: fn(&Surroundings) -> Vec<Finding>| -> Checking {
        let around = Arc::clone(around);
        let looking = spawn_blocking(move || check(&around));
        Box::pin(async move { looking.await.expect("a check does not panic") })
    };
    vec![
        (Check::Files, blocking(files::check)),
        (Check::Certificate, blocking(certificate::check)),
        (Check::Trust, blocking(listening::look_at_trust)),
        (Check::Rights, blocking(look_at_rights)),
        (Check::Limits, blocking(limits::check)),
        (Check::Shutdown, blocking(limits::look_at_shutdown)),
        (Check::Ports, Box::pin(listening::look_at_ports(Arc::clone(around)))),
        (Check::Resolution, Box::pin(resolution::check(Arc::clone(around)))),
        (Check::Keys, Box::pin(keys::check(Arc::clone(around)))),
        (Check::App, Box::pin(app::check(Arc::clone(around)))),
        (Check::Velt, Box::pin(velt::check(Arc::clone(around)))),
        (Check::Mint, Box::pin(mint::check(Arc::clone(around)))),
        (Check::Shared, Box::pin(shared::check(Arc::clone(around)))),
    ]
}

fn look_at_rights(around: &Surroundings) -> Vec<Finding> {
    let mut findings = Findings::of(Check::Rights);
    for Caution { place, what, remedy, is_warning } in cautions(&around.config) {
        let tell = if is_warning { Findings::warning } else { Findings::note };
        tell(&mut findings, place, what, remedy);
    }
    findings.all()
}

fn in_force(file: &str, config: &Config) -> Finding {
    let written = config.effective.iter();
    let written = written.filter(|one| matches!(one.source, Source::Place(_))).count();
    let mut findings = Findings::of(Check::Config);
    findings.ok(file, format!("no mistakes; {written} settings are written, the rest defaults"));
    findings.only()
}

fn unreadable(file: &str, error: &io::Error) -> Vec<Finding> {
    let mut findings = Findings::of(Check::Config);
    findings.fatal(
        file,
        format!("it can't be read: {error}"),
        "mount the configuration there, readable by the sidecar's user, or name it by --config",
    );
    findings.all()
}

fn complaints(error: &ConfigError) -> Vec<Finding> {
    let mut findings = Findings::of(Check::Config);
    for complaint in &error.complaints {
        let place = match &complaint.place {
            Place::Line(line) => format!("{}:{line}", error.file),
            Place::Environment(name) => name.clone(),
            Place::Missing => error.file.clone(),
        };
        findings.fatal(place, &complaint.problem, &complaint.remedy);
    }
    findings.all()
}

fn too_slow(check: Check, patience: Duration) -> Finding {
    let mut findings = Findings::of(check);
    // The sidecar reads these before it serves, so it would not start.
    let tell = match check {
        Check::Config | Check::Files | Check::Certificate => Findings::fatal,
        _ => Findings::problem,
    };
    tell(
        &mut findings,
        "--timeout",
        format!("this check did not end within {patience:?}"),
        "find out what hangs: a file on a network disk, a name server, a host that does not \
         answer; or allow more by --timeout",
    );
    findings.only()
}

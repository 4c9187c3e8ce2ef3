//! Findings of `doctor`: none in a good set-up, and in each broken set-up exactly what is broken.

mod others;
mod own;
mod printed;
mod rights;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tools::doctor::{Canary, Check, Examination, Finding, Report, Severity, Tolerated};

use crate::support::app::FakeApp;
use crate::support::certificates::Folder;
use crate::support::velt::FakeVelt;
use crate::support::{PATIENCE, document, environment};

/// A set-up to examine: an app and a stand-in of Velt, with nothing wrong unless a test adds a fault.
struct Patient {
    app: FakeApp,
    velt: FakeVelt,
    /// Files of the configuration, and below `root` the files of the system.
    folder: Folder,
    environment: BTreeMap<String, String>,
    tolerated: Tolerated,
    mint: bool,
    patience: Duration,
}

impl Patient {
    async fn new() -> Self {
        let folder = Folder::new();
        for parent in ["root/proc/self", "root/sys/fs/cgroup/pod/container"] {
            std::fs::create_dir_all(folder.path(parent)).expect("folders");
        }
        Self {
            app: FakeApp::start().await,
            velt: FakeVelt::start().await,
            folder,
            environment: environment(),
            tolerated: Tolerated::Nothing,
            mint: true,
            patience: PATIENCE,
        }
    }

    fn set(&mut self, name: &str, value: &str) {
        self.environment.insert(name.to_owned(), value.to_owned());
    }

    /// Examines the set-up with `toml` added to its configuration.
    async fn examine(&self, toml: &str) -> Report {
        self.examine_with(&self.app.address.to_string(), self.velt.address, toml).await
    }

    /// Examines the set-up with this app and this Velt, and with `toml` added to its configuration.
    async fn examine_with(&self, app: &str, velt: SocketAddr, toml: &str) -> Report {
        // The tests' app keeps connections for ever, so a short idle timeout keeps the tests fast. With
        // few connections and a small cache, no machine that runs the tests has too few files or too
        // little memory.
        let usual = "[listen]\nmax_connections = 10\n[app]\nidle_timeout = \"40ms\"\n\
                     [cache]\nmax_bytes = \"1MiB\"\n";
        self.examine_text(Ok(document(app, velt, &format!("{toml}\n{usual}")))).await
    }

    async fn examine_text(&self, text: io::Result<String>) -> Report {
        let canary = Canary { user: "canary-user".into(), organization: None };
        let examination = Examination {
            file: "sidecar.toml".into(),
            text,
            environment: self.environment.clone(),
            canary: self.mint.then_some(canary),
            tolerated: self.tolerated,
            patience: self.patience,
            root: self.folder.path("root").into(),
        };
        let report = examination.run().await;
        for shown in [report.text(), report.json(false)] {
            no_secret(&shown);
        }
        report
    }
}

/// Asserts that `shown` holds no secret, no word of Velt's, no user and no JWT.
fn no_secret(shown: &str) {
    for secret in ["canary", "eyJ"] {
        assert!(!shown.contains(secret), "{secret} is in\n{shown}");
    }
}

/// Returns the only finding of `check` that holds `part`, and asserts that no other finding is worse
/// than a note.
fn only(report: &Report, check: Check, severity: Severity, part: &str) -> Finding {
    let is_it = |finding: &&Finding| finding.check == check && finding.what.contains(part);
    let text = report.text();
    let mut found = report.findings().iter().filter(is_it);
    let finding = found.next().unwrap_or_else(|| panic!("no {check:?} with {part:?} in\n{text}"));
    assert!(found.next().is_none(), "{part:?} twice in\n{text}");
    assert_eq!(finding.severity, severity, "{text}");
    let worse = |other: &&Finding| *other != finding && other.severity > Severity::Note;
    assert_eq!(report.findings().iter().find(worse), None, "{text}");
    let has_remedy = finding.remedy.as_ref().is_some_and(|remedy| remedy.len() > 10);
    assert_eq!(has_remedy, severity != Severity::Ok, "{text}");
    let code = if severity == Severity::Problem { 69 } else { 0 };
    assert_eq!(report.exit_code(false), code, "{text}");
    let strict = if severity >= Severity::Warning { 69 } else { 0 };
    assert_eq!(report.exit_code(true), strict, "{text}");
    finding.clone()
}

#[tokio::test]
async fn doctor_finds_no_fault_in_a_good_set_up() {
    let patient = Patient::new().await;
    let report = patient.examine("").await;
    let text = report.text();
    assert!(report.findings().iter().all(|finding| finding.severity == Severity::Ok), "{text}");
    assert_eq!((report.exit_code(false), report.exit_code(true)), (0, 0));
    let checks: Vec<Check> = report.findings().iter().map(|finding| finding.check).collect();
    assert!(checks.is_sorted(), "{text}");
    for check in [
        Check::Config,
        Check::Ports,
        Check::Trust,
        Check::App,
        Check::Velt,
        Check::Clock,
        Check::Mint,
        Check::Limits,
        Check::Shutdown,
    ] {
        assert!(checks.contains(&check), "{check:?} is not in\n{text}");
    }
    assert_eq!(patient.velt.call_count(), 1, "one mint, and that is all");
}

#[tokio::test]
async fn wrong_configuration_ends_doctor_with_all_complaints() {
    let mut patient = Patient::new().await;
    patient.environment.remove("VELT_AUTH_TOKEN");
    let text = "[app]\nadress = \"x\"\n[log]\nlevel = \"verbose\"\n";
    let report = patient.examine_text(Ok(text.to_owned())).await;
    let places: Vec<&str> = report.findings().iter().map(|finding| &*finding.r#where).collect();
    assert_eq!(places, ["sidecar.toml:2", "sidecar.toml:4", "sidecar.toml"]);
    for finding in report.findings() {
        assert_eq!((finding.check, finding.severity), (Check::Config, Severity::Problem));
        assert!(finding.remedy.is_some(), "{finding:?}");
    }
    assert_eq!(report.exit_code(false), 78);
    assert_eq!((patient.velt.call_count(), patient.app.journal().len()), (0, 0));

    let denied = io::Error::from(io::ErrorKind::PermissionDenied);
    let report = patient.examine_text(Err(denied)).await;
    assert_eq!((report.findings().len(), report.exit_code(false)), (1, 78));
}

#[tokio::test]
async fn a_check_that_hangs_hides_none_of_the_others() {
    let mut patient = Patient::new().await;
    patient.patience = Duration::from_millis(300);
    patient.velt.close_gate();
    let finding = only(
        &patient.examine("").await,
        Check::Mint,
        Severity::Problem,
        "did not end within 300ms",
    );
    assert_eq!(finding.r#where, "--timeout");
    patient.velt.open_gate();
}

//! Report of the findings: as text for a person, as JSON for a program, as an exit code for an init
//! container.

use std::fmt::Write as _;

use serde::Serialize;

use ground::logging::{Chain, escaped};
use ground::outgoing::TlsError;

/// sysexits.h: something that is needed is not available.
const EX_UNAVAILABLE: u8 = 69;
/// sysexits.h: the configuration was wrong.
const EX_CONFIG: u8 = 78;

/// Parts that are looked at, in the order in which a request or a token passes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Check {
    Config,
    Files,
    Certificate,
    Ports,
    Trust,
    /// Sources of the rights in tokens.
    Rights,
    /// Addresses of the servers that the sidecar calls.
    Resolution,
    /// Keys that assertions are checked with.
    Keys,
    App,
    Velt,
    Clock,
    Mint,
    /// The store that replicas share.
    Shared,
    Limits,
    Shutdown,
}

/// Severity of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// The part is as it should be.
    Ok,
    /// The finding is worth knowing. Only the operator can say whether it is meant.
    Note,
    /// The part works, but will cause trouble some day.
    Warning,
    /// The part does not work.
    Problem,
}

/// One finding. Holds no secret, no token and no user's data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub check: Check,
    pub severity: Severity,
    /// Observation, with what was measured.
    pub what: String,
    /// Setting, file or variable that the finding is about.
    pub r#where: String,
    /// Advice on what to do. `None` if the part is as it should be.
    pub remedy: Option<String>,
    /// Whether the sidecar would not start. True only for a problem.
    pub prevents_start: bool,
}

/// All findings.
#[derive(Clone, Debug)]
pub struct Report {
    findings: Vec<Finding>,
}

/// Number of findings of each severity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    pub ok: usize,
    pub note: usize,
    pub warning: usize,
    pub problem: usize,
}

impl Report {
    /// Returns the findings in the order of the data path.
    pub(super) fn new(mut findings: Vec<Finding>) -> Self {
        findings.sort_by_key(|finding| finding.check);
        Self { findings }
    }

    /// Returns the findings in the order of the data path.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// Counts the findings by severity.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for finding in &self.findings {
            *match finding.severity {
                Severity::Ok => &mut counts.ok,
                Severity::Note => &mut counts.note,
                Severity::Warning => &mut counts.warning,
                Severity::Problem => &mut counts.problem,
            } += 1;
        }
        counts
    }

    /// Returns 0 unless there is a problem: 78 if the configuration is wrong, else 69 (sysexits.h). `strict`
    /// counts warnings as problems.
    pub fn exit_code(&self, strict: bool) -> u8 {
        let least = if strict { Severity::Warning } else { Severity::Problem };
        let mut bad = self.findings.iter().filter(|finding| finding.severity >= least).peekable();
        if bad.peek().is_none() {
            return 0;
        }
        let config = bad.any(|finding| finding.check == Check::Config);
        if config { EX_CONFIG } else { EX_UNAVAILABLE }
    }

    /// Returns the report as text: a line for each finding, its remedy below the line, and the counts at the
    /// end.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for Finding { check, severity, what, r#where, remedy, .. } in &self.findings {
            let (mark, check) = (severity.mark(), check.as_str());
            let line = format!("{mark:<8} {check:<12} {where}: {what}");
            // Writing to a string does not fail.
            let _ = writeln!(text, "{}", escaped(&line));
            if let Some(remedy) = remedy {
                let _ = writeln!(text, "           -> {}", escaped(remedy));
            }
        }
        let Counts { ok, note, warning, problem } = self.counts();
        let _ = writeln!(
            text,
            "{ok} ok, {note} {}, {warning} {}, {problem} {}",
            plural(note, "note"),
            plural(warning, "warning"),
            plural(problem, "problem")
        );
        text
    }

    /// Returns the report as one JSON object.
    pub fn json(&self, strict: bool) -> String {
        let document = serde_json::json!({
            "findings": self.findings,
            "counts": self.counts(),
            "exit_code": self.exit_code(strict),
        });
        let mut text = serde_json::to_string_pretty(&document).expect("strings and numbers only");
        text.push('\n');
        text
    }
}

fn plural(count: usize, word: &str) -> String {
    if count == 1 { word.to_owned() } else { format!("{word}s") }
}

impl Check {
    /// Returns the name of the check, as in the JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Files => "files",
            Self::Certificate => "certificate",
            Self::Ports => "ports",
            Self::Trust => "trust",
            Self::Rights => "rights",
            Self::Resolution => "resolution",
            Self::Keys => "keys",
            Self::App => "app",
            Self::Velt => "velt",
            Self::Clock => "clock",
            Self::Mint => "mint",
            Self::Shared => "shared store",
            Self::Limits => "limits",
            Self::Shutdown => "shutdown",
        }
    }
}

impl Severity {
    /// Returns the mark at the start of a line, in capitals if the operator has to act.
    fn mark(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Warning => "WARNING",
            Self::Problem => "PROBLEM",
        }
    }
}

/// The findings of one check, while it runs.
pub(super) struct Findings {
    check: Check,
    findings: Vec<Finding>,
}

impl Findings {
    pub(super) fn of(check: Check) -> Self {
        Self { check, findings: Vec::new() }
    }

    pub(super) fn ok(&mut self, place: impl Into<String>, what: impl Into<String>) {
        self.add(Severity::Ok, place.into(), what.into(), None);
    }

    pub(super) fn note(
        &mut self,
        place: impl Into<String>,
        what: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.add(Severity::Note, place.into(), what.into(), Some(remedy.into()));
    }

    pub(super) fn warning(
        &mut self,
        place: impl Into<String>,
        what: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.add(Severity::Warning, place.into(), what.into(), Some(remedy.into()));
    }

    pub(super) fn problem(
        &mut self,
        place: impl Into<String>,
        what: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.add(Severity::Problem, place.into(), what.into(), Some(remedy.into()));
    }

    /// Adds a problem that prevents the sidecar's start.
    pub(super) fn fatal(
        &mut self,
        place: impl Into<String>,
        what: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.problem(place, what, remedy);
        if let Some(finding) = self.findings.last_mut() {
            finding.prevents_start = true;
        }
    }

    /// Adds a problem that prevents the start: the root certificates for the sidecar's own calls can't be
    /// read.
    pub(super) fn no_roots(&mut self, error: &TlsError) {
        let remedy = "correct what it names, install ca-certificates, or choose another \
                      outgoing.roots or ca_file";
        self.fatal("[outgoing]", Chain(error).to_string(), remedy);
    }

    fn add(&mut self, severity: Severity, place: String, what: String, remedy: Option<String>) {
        let (check, prevents_start) = (self.check, false);
        let finding = Finding { check, severity, what, r#where: place, remedy, prevents_start };
        self.findings.push(finding);
    }

    pub(super) fn len(&self) -> usize {
        self.findings.len()
    }

    pub(super) fn all(self) -> Vec<Finding> {
        self.findings
    }

    /// Returns the only finding.
    pub(super) fn only(mut self) -> Finding {
        self.findings.pop().expect("there is one")
    }
}

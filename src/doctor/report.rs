//! What was found: as text for a person, as JSON for a program, as an exit code for an init
//! container.

use std::fmt::Write as _;

use serde::Serialize;

use crate::logging::{Chain, escaped};
use crate::outgoing::TlsError;

/// sysexits.h: something that is needed is not available.
const EX_UNAVAILABLE: u8 = 69;
/// sysexits.h: the configuration was wrong.
const EX_CONFIG: u8 = 78;

/// What is looked at, in the order in which a request or a token passes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Check {
    Config,
    Files,
    Certificate,
    Ports,
    Trust,
    /// The addresses of whoever is called.
    Resolution,
    /// What assertions are checked with.
    Keys,
    App,
    Velt,
    Clock,
    Mint,
    Limits,
    Shutdown,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// As it should be.
    Ok,
    /// Worth knowing; only the operator can say whether it is meant.
    Note,
    /// It works, and will bite some day.
    Warning,
    /// It does not work.
    Problem,
}

/// One thing that was found. Holds no secret, no token and no user's data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub check: Check,
    pub severity: Severity,
    /// What was seen, with what was measured.
    pub what: String,
    /// The setting, file or variable that it is about.
    pub r#where: String,
    /// What to do about it; nothing about what is as it should be.
    pub remedy: Option<String>,
    /// Whether the sidecar would not start. Only a problem does that.
    pub prevents_start: bool,
}

/// Everything that was found.
#[derive(Clone, Debug)]
pub struct Report {
    findings: Vec<Finding>,
}

/// How many findings there are of each severity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    pub ok: usize,
    pub note: usize,
    pub warning: usize,
    pub problem: usize,
}

impl Report {
    /// In the order of the data path.
    pub(super) fn new(mut findings: Vec<Finding>) -> Self {
        findings.sort_by_key(|finding| finding.check);
        Self { findings }
    }

    /// In the order of the data path.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// How many there are.
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

    /// 0 unless there is a problem: 78 if the configuration is wrong, else 69 (sysexits.h).
    /// `strict` takes warnings for problems.
    pub fn exit_code(&self, strict: bool) -> u8 {
        let least = if strict { Severity::Warning } else { Severity::Problem };
        let mut bad = self.findings.iter().filter(|finding| finding.severity >= least).peekable();
        if bad.peek().is_none() {
            return 0;
        }
        let config = bad.any(|finding| finding.check == Check::Config);
        if config { EX_CONFIG } else { EX_UNAVAILABLE }
    }

    /// A line for each finding, its remedy below it, and a count at the end.
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

    /// The same as one JSON object.
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
    /// As in the JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Files => "files",
            Self::Certificate => "certificate",
            Self::Ports => "ports",
            Self::Trust => "trust",
            Self::Resolution => "resolution",
            Self::Keys => "keys",
            Self::App => "app",
            Self::Velt => "velt",
            Self::Clock => "clock",
            Self::Mint => "mint",
            Self::Limits => "limits",
            Self::Shutdown => "shutdown",
        }
    }
}

impl Severity {
    /// At the start of a line: what needs doing stands out.
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

    /// A problem with which the sidecar does not even start.
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

    /// Calls of our own can't be made: whoever should vouch for servers can't be read.
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

    /// The only one there is.
    pub(super) fn only(mut self) -> Finding {
        self.findings.pop().expect("there is one")
    }
}

//! The command `check`: complaints about the configuration, as text for people or as JSON for programs.

use std::path::Path;
use std::process::ExitCode;

use ground::logging::Chain;
use serde_json::{Value, json};
use server::config::{Complaint, Config, LoadError, Origin, Place, Secrets, Unchecked};
use server::{StartError, absent_files, check_present};

use super::arguments::{CheckArguments, CheckFormat};
use super::caution::{Caution, cautions};
use super::{EX_CONFIG, environment, print_out};

/// Remedy for a part that can't be made from the configuration. The message names the file at fault.
const PART_REMEDY: &str =
    "mend what the message names, or give another file in sidecar.toml, and check again";

/// Reason why the configuration is not accepted.
enum Refusal {
    Load(LoadError),
    /// A part can't be made from the configuration.
    Part(StartError),
}

/// Result of the check.
struct Report {
    file: String,
    is_there: bool,
    /// Whether the operator has named the file.
    is_named: bool,
    refusal: Option<Refusal>,
    config: Option<Box<Config>>,
    cautions: Vec<Caution>,
    unchecked: Vec<Unchecked>,
}

/// Checks the configuration, and prints what is in force and what is wrong.
pub fn check(file: Option<&Path>, arguments: &CheckArguments) -> ExitCode {
    let secrets = if arguments.without_secrets { Secrets::MayBeAbsent } else { Secrets::Needed };
    let origin = Origin::new(file, environment()).with_secrets(secrets);
    let report = Report::of(&origin, file.is_some(), secrets);
    match arguments.format {
        CheckFormat::Text => report.print(),
        CheckFormat::Json => {
            print_out(&(serde_json::to_string_pretty(&report.json()).expect("string keys") + "\n"));
        }
    }
    if report.refusal.is_some() { EX_CONFIG.into() } else { ExitCode::SUCCESS }
}

impl Report {
    fn of(origin: &Origin, is_named: bool, secrets: Secrets) -> Self {
        let file = origin.file();
        let mut report = Self {
            file: file.display().to_string(),
            is_there: file.exists(),
            is_named,
            refusal: None,
            config: None,
            cautions: Vec::new(),
            unchecked: Vec::new(),
        };
        match origin.load() {
            Ok(config) => report.look_at(config, secrets),
            Err(error) => report.refusal = Some(Refusal::Load(error)),
        }
        report
    }

    fn look_at(&mut self, config: Config, secrets: Secrets) {
        let absent = match secrets {
            Secrets::Needed => Vec::new(),
            Secrets::MayBeAbsent => absent_files(&config),
        };
        self.refusal = check_present(&config, &absent).err().map(Refusal::Part);
        self.cautions = cautions(&config);
        self.unchecked = config.unchecked.iter().cloned().chain(absent).collect();
        self.config = Some(Box::new(config));
    }

    /// Prints the settings in force to standard output, and the rest to standard error, since it is no part of the
    /// description.
    fn print(&self) {
        match &self.refusal {
            Some(Refusal::Load(error)) => eprintln!("velt-sidecar: {error}"),
            Some(Refusal::Part(error)) => eprintln!("velt-sidecar: {}", Chain(error)),
            None => self.print_settings(),
        }
    }

    fn print_settings(&self) {
        if let Some(config) = &self.config {
            print_out(&config.describe());
        }
        for Caution { place, what, remedy, is_warning } in &self.cautions {
            let word = if *is_warning { "warning" } else { "note" };
            eprintln!("{word}: {place}: {what}\n    -> {remedy}");
        }
        for Unchecked { key, place } in &self.unchecked {
            eprintln!("not checked: {key}: {place} is not here");
        }
        eprintln!("velt-sidecar: {}", self.verdict());
    }

    /// Returns the last line for people.
    fn verdict(&self) -> String {
        let place = if self.is_there {
            self.file.clone()
        } else {
            format!("the environment (there is no {})", self.file)
        };
        match (self.unchecked.len(), self.cautions.len()) {
            (0, 0) => format!("all is well with {place}"),
            (0, _) => format!("no mistake in {place}; see the lines above"),
            (count, _) => {
                format!("no mistake in {place}; not checked: {count}, see the lines above")
            }
        }
    }

    fn json(&self) -> Value {
        let problems: Vec<Value> = match &self.refusal {
            None => Vec::new(),
            Some(Refusal::Load(LoadError::Wrong(error))) => {
                error.complaints.iter().map(|complaint| self.complaint(complaint)).collect()
            }
            Some(Refusal::Load(error)) => {
                let code = match error {
                    LoadError::Empty { .. } => "empty_file",
                    _ => "unreadable_file",
                };
                vec![self.problem(code, &error.problem(), error.remedy())]
            }
            Some(Refusal::Part(error)) => {
                vec![self.problem("unusable_part", &Chain(error).to_string(), PART_REMEDY)]
            }
        };
        let cautions = self.cautions.iter().map(|caution| {
            json!({
                "key": caution.place,
                "message": caution.what,
                "remedy": caution.remedy,
                "is_warning": caution.is_warning,
            })
        });
        let unchecked = self.unchecked.iter();
        let unchecked = unchecked.map(|it| json!({"key": it.key, "place": it.place}));
        json!({
            "ok": self.refusal.is_none(),
            "file": self.named(),
            "problems": problems,
            "cautions": cautions.collect::<Vec<_>>(),
            "not_checked": unchecked.collect::<Vec<_>>(),
        })
    }

    /// Returns the file that was read, or that the operator has named.
    fn named(&self) -> Option<&str> {
        (self.is_there || self.is_named).then_some(&*self.file)
    }

    fn complaint(&self, complaint: &Complaint) -> Value {
        let (file, line, variable) = match &complaint.place {
            Place::Line(line) => (Some(&self.file), Some(line), None),
            Place::Environment(name) => (None, None, Some(name)),
            Place::Missing => (None, None, None),
        };
        json!({
            "code": complaint.code.word(),
            "key": complaint.key,
            "file": file,
            "line": line,
            "variable": variable,
            "message": complaint.problem,
            "remedy": complaint.remedy,
        })
    }

    fn problem(&self, code: &str, message: &str, remedy: &str) -> Value {
        json!({
            "code": code,
            "key": null,
            "file": self.named(),
            "line": null,
            "variable": null,
            "message": message,
            "remedy": remedy,
        })
    }
}

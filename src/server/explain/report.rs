//! Report on what would become of a request.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::config::{Config, Effective, describe};
use shared::Report as SharedReport;
use shared::store::State;
use sidecar::explain::{Answer, AnsweredBy, Explanation, Key};

/// An explanation with the settings that decided it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Method, target and peer.
    pub request: String,
    pub steps: Vec<ReportedStep>,
    pub answer: Answer,
    /// Notes on the parts of a curl command that were not understood.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// One decision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportedStep {
    pub step: String,
    pub verdict: String,
    pub why: String,
    pub settings: Vec<Setting>,
}

/// A setting that took part in a decision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    pub key: String,
    /// Value as TOML, or `not set`.
    pub value: String,
    /// The line of the file, the variable, `default` or `preset`.
    pub place: String,
}

/// The settings in force, each with its place. Holds no secret.
pub struct InForce {
    settings: Vec<Effective>,
    text: String,
}

impl InForce {
    /// Takes the settings in force from `config`.
    pub fn of(config: &Config) -> Self {
        Self::new(config.effective.clone())
    }

    /// Takes `settings` as the settings in force.
    pub fn new(settings: Vec<Effective>) -> Self {
        Self { text: describe(&settings), settings }
    }

    /// Returns all settings, as `check` prints them.
    pub fn text(&self) -> &str {
        &self.text
    }

    fn setting(&self, key: &Key) -> Setting {
        let (name, found) = match key {
            Key::Named(name) => ((*name).to_owned(), self.named(name)),
            Key::Route(path) => {
                let quoted = format!("{path:?}");
                let written = self.settings.iter().find(|setting| {
                    setting.header == "[[delivery.route]]"
                        && setting.key == "path"
                        && setting.value == quoted
                });
                let name = if written.is_some() { "delivery.route.path" } else { "delivery.route" };
                (name.to_owned(), written.or_else(|| self.named("delivery.route")))
            }
            Key::Resources => return self.resources(),
        };
        match found {
            Some(Effective { value, source, .. }) => {
                Setting { key: name, value: value.clone(), place: source.to_string() }
            }
            None => Setting { key: name, value: "not set".into(), place: "default".into() },
        }
    }

    /// Returns the number of the tables `[[velt.resource]]`, and the place of the first.
    fn resources(&self) -> Setting {
        let types = self.settings.iter();
        let mut types =
            types.filter(|it| it.header == "[[velt.resource]]" && it.key == "type").peekable();
        let first = types.peek().map(|setting| setting.source.to_string());
        let value = match types.count() {
            0 => "not set".into(),
            1 => "1 table".into(),
            tables => format!("{tables} tables"),
        };
        let place = first.unwrap_or_else(|| "default".into());
        Setting { key: "velt.resource".into(), value, place }
    }

    fn named(&self, name: &str) -> Option<&Effective> {
        let (table, key) = name.rsplit_once('.')?;
        let header = format!("[{table}]");
        self.settings.iter().find(|setting| setting.header == header && setting.key == key)
    }
}

impl Report {
    pub(super) fn new(
        request: String,
        explanation: Explanation,
        shared: Option<SharedReport>,
        in_force: &InForce,
    ) -> Self {
        let steps = explanation.steps.into_iter().map(|step| ReportedStep {
            step: step.name.into(),
            verdict: step.verdict,
            why: step.why,
            settings: step.settings.iter().map(|key| in_force.setting(key)).collect(),
        });
        let mut steps: Vec<_> = steps.collect();
        let token = steps.iter().position(|step: &ReportedStep| step.step == "token");
        if let (Some(shared), Some(token)) = (shared, token) {
            steps.insert(token + 1, of_shared(shared, in_force));
        }
        Self { request, steps, answer: explanation.answer, notes: Vec::new() }
    }
}

/// Tells what the store that replicas share has to do with a mint.
fn of_shared(shared: SharedReport, in_force: &InForce) -> ReportedStep {
    let SharedReport { store, cut_off, unwritten } = shared;
    let verdict = match store {
        State::Connected => "connected".into(),
        State::Connecting { last: None } => "connecting".into(),
        State::Connecting { last: Some(fault) } => format!("not connected: {fault}"),
        State::Suspended { left } => {
            format!("suspended for {} s more, since calls failed", left.as_secs() + 1)
        }
    };
    let mint = match store {
        State::Connected => "a mint asks it first for a token that another replica has",
        _ => "mints go on without it",
    };
    let heard = cut_off.map_or("forgets of other replicas are heard".into(), |since| {
        format!("forgets of other replicas have not been heard for {} s", since.as_secs())
    });
    let waiting = match unwritten {
        0 => String::new(),
        count => format!("; {count} tokens are yet to be shared"),
    };
    ReportedStep {
        step: "shared store".into(),
        verdict,
        why: format!("{mint}; {heard}{waiting}"),
        settings: vec![in_force.setting(&Key::Named("shared.addresses"))],
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "{}", self.request)?;
        for note in &self.notes {
            writeln!(formatter, "note: {note}")?;
        }
        for (number, step) in (1..).zip(&self.steps) {
            writeln!(formatter, "\n{number}. {}: {}", step.step, step.verdict)?;
            writeln!(formatter, "   {}", step.why)?;
            for Setting { key, value, place } in &step.settings {
                writeln!(formatter, "   - {key} = {value}  # {place}")?;
            }
        }
        let Answer { by, status, code, summary, advice, .. } = &self.answer;
        let by = match by {
            AnsweredBy::App => "from the app",
            AnsweredBy::Sidecar => "from the sidecar",
        };
        let code = code.as_ref().map_or_else(String::new, |code| format!(", {code}"));
        writeln!(formatter, "\n=> {status} {by}{code}: {summary}")?;
        if let Some(advice) = advice {
            writeln!(formatter, "   To change that: {advice}.")?;
        }
        Ok(())
    }
}

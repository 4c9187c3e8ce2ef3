//! `explain`: the fate of a request, and the setting that decided each step.
//!
//! [`sidecar::explain`] walks through the steps of a request. This module has the input and the output of
//! that walk: a request to explain, and a report as text or JSON.

mod report;
mod request;

use std::error::Error;
use std::fmt;

pub use self::report::{InForce, Report, ReportedStep, Setting};
pub use self::request::{AppResponse, Asked};
use shared::Report as SharedReport;
use sidecar::Rules;
use sidecar::explain::{Live, explain};

/// Problem with a request that can't be explained. The fault of the person who asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuestionError {
    pub problem: String,
    pub remedy: String,
}

impl fmt::Display for QuestionError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}\n    -> {}", self.problem, self.remedy)
    }
}

impl Error for QuestionError {}

impl QuestionError {
    /// Makes the error from what is wrong and what to do.
    pub fn new(problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { problem: problem.into(), remedy: remedy.into() }
    }
}

/// Explains a request by `rules`, and by what a running sidecar knows; `shared` is the state of its store.
///
/// # Errors
///
/// If no client could have sent such a request.
pub async fn report(
    rules: &Rules,
    live: Option<Live<'_>>,
    shared: Option<SharedReport>,
    in_force: &InForce,
    asked: Asked,
) -> Result<Report, QuestionError> {
    let head = asked.head();
    let explanation = explain(rules, live, asked.into_question()?).await;
    Ok(Report::new(head, explanation, shared, in_force))
}

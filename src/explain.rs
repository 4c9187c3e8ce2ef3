//! `explain`: the fate of a request, and the setting that decided each step.
//!
//! The walk itself is [`crate::sidecar::explain`], over the code that requests go through. This module has
//! its input and its output: a request as arguments, JSON or a pasted curl command, and a report as text or
//! JSON.

pub mod curl;
mod report;
mod request;

use std::error::Error;
use std::fmt;
use std::sync::Arc;

pub use self::report::{InForce, Report, ReportedStep, Setting};
pub use self::request::{AppResponse, Asked, Flags};
use crate::config::Config;
use crate::identity::Identity;
use crate::inject::Injection;
use crate::metrics::Metrics;
use crate::outgoing::TlsError;
use crate::sidecar::Rules;
use crate::sidecar::explain::{Live, explain};

/// Problem with a request that can't be explained. The fault of the person who asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unclear {
    pub problem: String,
    pub remedy: String,
}

impl fmt::Display for Unclear {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}\n    -> {}", self.problem, self.remedy)
    }
}

impl Error for Unclear {}

impl Unclear {
    pub(crate) fn new(problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { problem: problem.into(), remedy: remedy.into() }
    }
}

/// Explains a request by `rules`, and by what a running sidecar knows.
///
/// # Errors
///
/// If no client could have sent such a request.
pub async fn report(
    rules: &Rules,
    live: Option<Live<'_>>,
    in_force: &InForce,
    asked: Asked,
) -> Result<Report, Unclear> {
    let head = asked.head();
    let explanation = explain(rules, live, asked.into_question()?).await;
    Ok(Report::new(head, explanation, in_force))
}

/// Reason why a configuration alone explains nothing.
#[derive(Debug)]
pub enum Unexplained {
    Unclear(Unclear),
    Tls(TlsError),
}

/// Explains a request by a configuration alone: without a cache, and without keys for assertions.
///
/// # Errors
///
/// See [`Unexplained`].
pub async fn by_config(config: &Config, asked: Asked) -> Result<Report, Unexplained> {
    // The counts of these metrics are not exported, and no keys are fetched.
    let metrics = Metrics::new();
    let identity = Identity::new(config.identity.clone(), metrics.identity.clone());
    let identity = identity.map_err(Unexplained::Tls)?;
    let rules = Rules {
        identity: Arc::new(identity),
        plan: config.plan.clone(),
        injection: Arc::new(Injection::new(config.delivery.clone())),
    };
    let report = report(&rules, None, &InForce::of(config), asked).await;
    report.map_err(Unexplained::Unclear)
}

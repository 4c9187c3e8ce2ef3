//! `explain` on the command line: a request as arguments or as a pasted curl command, and a report from the
//! configuration alone. [`sidecar::explain`] walks through the steps of the request.

pub mod curl;
mod flags;

use std::sync::Arc;

use ground::metrics::Metrics;
use ground::outgoing::TlsError;
use identity::Identity;
use server::config::Config;
use server::explain::{Asked, InForce, QuestionError, Report, report};
use sidecar::Rules;
use sidecar::details::AppDetails;
use sidecar::inject::Injection;
use sidecar::logout::Logout;
use sidecar::required::RequiredOn;
use sidecar::resolver::{KeyError, Resolver};

pub use self::flags::Flags;

/// Reason why a configuration alone explains nothing.
#[derive(Debug)]
pub enum Unexplained {
    Question(QuestionError),
    Tls(TlsError),
    /// The key that signs tokens for resolvers can't be read here.
    Resolver(KeyError),
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
    let logout = config.logout.clone();
    let logout = logout.map(|settings| Logout::new(settings, None, &metrics.identity)).transpose();
    let resolver = config.resolver.clone().map(Resolver::load).transpose();
    let rules = Rules {
        details: AppDetails::of(&identity),
        identity: Arc::new(identity),
        plan: config.plan.clone(),
        injection: Arc::new(Injection::new(config.delivery.clone())),
        required_on: Arc::new(RequiredOn::new(config.required_on.clone())),
        resolver: resolver.map_err(Unexplained::Resolver)?.map(Arc::new),
        logout: logout.map_err(Unexplained::Tls)?.map(Arc::new),
        has_app: config.app.is_some(),
    };
    let report = report(&rules, None, None, &InForce::of(config), asked).await;
    report.map_err(Unexplained::Question)
}

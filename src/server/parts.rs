//! Makes each part from its settings, at the start and when the settings change.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use http::HeaderMap;
use tokio::runtime::Handle;

use super::StartError;
use crate::admin::CurrentSettings;
use crate::config::{Config, Effective, Shutdown, Unchecked};
use crate::explain::InForce;
use crate::reload::{Changes, Refresh, ReloadError};
use ground::logging::Log;
use ground::metrics::{Certificate, Metrics, ReloadPart};
use ground::tls::{ClientTls, FileError, ServerTls};
use ground::trace::{Exporter, Tracing};
use hop::proxy::{Neighbours, Upstream};
use identity::Identity;
use shared::Shared;
use sidecar::access_log::AccessLog;
use sidecar::details::AppDetails;
use sidecar::inject::Injection;
use sidecar::logout::{Logout, Logouts};
use sidecar::required::RequiredOn;
use sidecar::resolver::Resolver;
use sidecar::{Forgets, Rules, Sidecar};
use token::Mint;
use token::audit::Audited;
use token::cache::TokenCache;
use token::resilience::Resilient;
use token::trial::Trial;
use token::velt::VeltClient;

/// Checks the files and other parts that `config` names, and fails where [`super::Server::bind`] would fail
/// before it binds.
///
/// # Errors
///
/// See [`StartError`].
pub fn check(config: &Config) -> Result<(), StartError> {
    check_present(config, &[])
}

/// Checks like [`check`], without the parts that need a file out of `absent`.
///
/// # Errors
///
/// See [`StartError`].
pub fn check_present(config: &Config, absent: &[Unchecked]) -> Result<(), StartError> {
    let metrics = Metrics::new();
    let has = |table: &str| !absent.iter().any(|file| file.key.starts_with(table));
    if has("listen.tls.") {
        Certificates::of_listener(config).map_err(StartError::Tls)?;
    }
    if has("app.") {
        Certificates::of_app(config).map_err(StartError::Tls)?;
    }
    if has("resolver.") {
        resolver(config)?;
    }
    if has("outgoing.") {
        mint(config, &metrics)?;
        logout(config, None, &metrics)?;
        identity(config, None, &metrics)?;
    }
    Ok(())
}

/// Returns the files that `config` names and that are not on this machine, without the files of secrets.
pub fn absent_files(config: &Config) -> Vec<Unchecked> {
    let is_absent = |file: &PathBuf| matches!(file.try_exists(), Ok(false));
    let named = config.effective.iter().filter(|setting| setting.key.ends_with("_file"));
    let absent = named.filter_map(|setting| {
        let file = config.file_of(&setting.path()).filter(is_absent)?;
        Some(Unchecked { key: setting.path(), place: file.display().to_string() })
    });
    let is_noted = |file: &Unchecked| {
        let secret = file.key.strip_suffix("_file");
        config.unchecked.iter().any(|unchecked| Some(&*unchecked.key) == secret)
    };
    absent.filter(|file| !is_noted(file)).collect()
}

/// Parts that are read from files of certificates and keys.
pub(super) struct Certificates {
    pub(super) listener: Option<Arc<ServerTls>>,
    pub(super) app: Option<Arc<ClientTls>>,
}

impl Certificates {
    pub(super) fn load(config: &Config) -> Result<Self, FileError> {
        Ok(Self { listener: Self::of_listener(config)?, app: Self::of_app(config)? })
    }

    fn of_listener(config: &Config) -> Result<Option<Arc<ServerTls>>, FileError> {
        Ok(config.tls.clone().map(ServerTls::load).transpose()?.map(Arc::new))
    }

    fn of_app(config: &Config) -> Result<Option<Arc<ClientTls>>, FileError> {
        let tls = config.app.as_ref().and_then(|app| app.tls.as_ref());
        Ok(tls.map(ClientTls::load).transpose()?.map(Arc::new))
    }

    /// Returns the functions that look at the files again.
    pub(super) fn refreshes(&self) -> Vec<(ReloadPart, Refresh)> {
        let listener = self.listener.clone().map(|tls| -> (_, Refresh) {
            (ReloadPart::ListenTls, Arc::new(move |again| Ok(tls.refresh(again)?)))
        });
        let app = self.app.clone().map(|tls| -> (_, Refresh) {
            (ReloadPart::AppTls, Arc::new(move |again| Ok(tls.refresh(again)?)))
        });
        listener.into_iter().chain(app).collect()
    }

    /// Sets the gauges of the certificates' expiry, before a scrape.
    pub(super) fn observe(&self, metrics: &Metrics) {
        let Some(listener) = &self.listener else { return };
        let expiry = &metrics.reload.certificate_expiry;
        expiry.set_time(Certificate::Listen, listener.valid_to());
        if let Some(valid_to) = listener.client_ca_valid_to() {
            expiry.set_time(Certificate::ClientCa, valid_to);
        }
    }
}

fn identity(
    config: &Config,
    old: Option<&Identity>,
    metrics: &Metrics,
) -> Result<Identity, StartError> {
    let settings = config.identity.clone();
    Identity::succeeding(old, settings, metrics.identity.clone()).map_err(StartError::Identity)
}

/// Makes the signer of tokens for resolvers; `None` if the configuration has none.
fn resolver(config: &Config) -> Result<Option<Arc<Resolver>>, StartError> {
    let resolver = config.resolver.clone().map(Resolver::load).transpose();
    Ok(resolver.map_err(StartError::Resolver)?.map(Arc::new))
}

/// Makes the rules of logouts; `None` if the configuration takes none.
fn logout(
    config: &Config,
    old: Option<&Logout>,
    metrics: &Metrics,
) -> Result<Option<Arc<Logout>>, StartError> {
    let settings = config.logout.clone();
    let logout = settings.map(|settings| Logout::new(settings, old, &metrics.identity));
    Ok(logout.transpose().map_err(StartError::Identity)?.map(Arc::new))
}

/// Makes the client that the cache asks for tokens.
fn mint(config: &Config, metrics: &Metrics) -> Result<Arc<Resilient<VeltClient>>, StartError> {
    let velt = VeltClient::new(config.velt.clone()).map_err(StartError::Velt)?;
    let settings = config.resilience.clone();
    Ok(Arc::new(Resilient::new(velt, settings, metrics.tokens.clone())))
}

/// Puts the audit log around `mint`, if the configuration has one.
fn audited(config: &Config, mint: Arc<Resilient<VeltClient>>) -> Arc<dyn Mint> {
    match &config.audit {
        Some(settings) => Arc::new(Audited::new(mint, settings)),
        None => mint,
    }
}

/// Starts to connect to the store that replicas share; `None` if the configuration has none.
pub(super) fn shared(config: &Config, metrics: &Metrics) -> Result<Option<Shared>, StartError> {
    let settings = config.shared.clone();
    let start = |settings| Shared::start(settings, metrics.shared.clone(), metrics.store.clone());
    settings.map(start).transpose().map_err(StartError::Shared)
}

/// Makes the mint that the cache asks: what `audited` makes, with the shared store before it, if there is one.
fn sharing(
    config: &Config,
    shared: Option<&Shared>,
    mint: Arc<Resilient<VeltClient>>,
) -> Arc<dyn Mint> {
    let mint = audited(config, mint);
    match shared {
        Some(shared) => shared.around(mint, &config.velt.api_key, &config.velt.auth_token),
        None => mint,
    }
}

/// Makes the request path and its parts, once for each of `workers`. The workers share everything but their
/// connections to the app.
pub(super) fn sidecars(
    config: &Config,
    certificates: &Certificates,
    shared: Option<&Shared>,
    trial: &Trial,
    metrics: &Metrics,
    workers: usize,
) -> Result<Vec<Arc<Sidecar>>, StartError> {
    let mint = mint(config, metrics)?;
    let identity = Arc::new(identity(config, None, metrics)?);
    let rules = Arc::new(ArcSwap::from_pointee(Rules {
        details: AppDetails::of(&identity),
        identity,
        plan: config.plan.clone(),
        injection: Arc::new(Injection::new(config.delivery.clone())),
        required_on: Arc::new(RequiredOn::new(config.required_on.clone())),
        resolver: resolver(config)?,
        logout: logout(config, None, metrics)?,
        has_app: config.app.is_some(),
    }));
    let dropped = metrics.access_log_dropped.clone();
    let access_log =
        AccessLog::start(&config.access_log, dropped).map_err(StartError::AccessLog)?;
    let exporter = config.tracing.export.clone();
    let exporter = exporter.map(|export| Exporter::start(export, metrics.trace.clone()));
    let exporter = exporter.transpose().map_err(StartError::Tracing)?;
    let admission = Arc::new(ArcSwap::from(mint.admission()));
    // Trial mints go past the cache, the store and the audit log.
    trial.set(config.trial.as_ref(), &config.plan, Some(Arc::clone(&mint) as _));
    let mint = sharing(config, shared, mint);
    let tokens = TokenCache::new(mint, &config.cache, metrics.tokens.clone());
    let tracing = Tracing::new(&config.tracing, exporter).sampled_by(config.sampled_by);
    let neighbours = Neighbours::default();
    let forgets = Arc::new(Forgets::new(shared.map(|shared| Arc::new(shared.clone()) as _)));
    let logouts = Arc::new(Logouts::new(metrics.logout.clone()));
    let one = || Sidecar {
        rules: Arc::clone(&rules),
        tokens: tokens.clone(),
        admission: Arc::clone(&admission),
        forgets: Arc::clone(&forgets),
        logouts: Arc::clone(&logouts),
        upstream: upstream(config, certificates, &rules, metrics, workers)
            .map(|upstream| upstream.beside(&neighbours)),
        metrics: Arc::new(metrics.requests.clone()),
        access_log: access_log.clone(),
        tracing: tracing.clone(),
    };
    Ok(std::iter::repeat_with(|| Arc::new(one())).take(workers).collect())
}

/// Makes the way to the app for one of `workers`; `None` if there is no app.
fn upstream(
    config: &Config,
    certificates: &Certificates,
    rules: &Arc<ArcSwap<Rules>>,
    metrics: &Metrics,
    workers: usize,
) -> Option<Upstream> {
    let mut settings = config.app.clone()?;
    settings.max_idle = settings.max_idle.div_ceil(workers);
    let (of_requests, of_responses) = (Arc::clone(rules), Arc::clone(rules));
    Some(Upstream::new(
        settings,
        certificates.app.clone(),
        Arc::new(move |trailers: &mut HeaderMap| {
            of_requests.load().identity.sanitize_trailers(trailers);
        }),
        Arc::new(move |trailers: &mut HeaderMap| {
            let rules = of_responses.load();
            rules.injection.strip(trailers);
            // Remove the user's headers. A user that trailers name does not count.
            let _ = rules.identity.word_of_app(trailers);
        }),
        metrics.app.clone(),
    ))
}

/// Parts that a reload replaces.
pub(super) struct Replaceable {
    pub(super) sidecar: Arc<Sidecar>,
    pub(super) shared: Option<Shared>,
    pub(super) trial: Arc<Trial>,
    pub(super) current: Arc<ArcSwap<CurrentSettings>>,
    pub(super) log: Log,
    pub(super) shutdown: Arc<Mutex<Shutdown>>,
    pub(super) metrics: Arc<Metrics>,
}

impl Replaceable {
    /// Puts the changes into force. Everything that can fail comes first, so that either all changes are in
    /// force or none. Blocks while keys are fetched.
    pub(super) fn apply(
        &self,
        config: &Config,
        changes: &Changes,
        in_force: &[Effective],
    ) -> Result<(), ReloadError> {
        let old = self.sidecar.rules.load_full();
        let mint = changes
            .concern(&["velt", "outgoing", "audit_log", "identity", "shared"])
            .then(|| mint(config, &self.metrics))
            .transpose()?;
        // Resources name the groups that the identity looks for.
        let tables = ["identity", "outgoing", "delivery", "velt.resource"];
        let identity = if changes.concern(&tables) {
            // Do not keep keys that were fetched with other roots.
            let keeps_keys = !changes.concern(&["outgoing"]);
            let kept = keeps_keys.then_some(&*old.identity);
            Arc::new(identity(config, kept, &self.metrics)?)
        } else {
            Arc::clone(&old.identity)
        };

        let resolver = resolver(config)?;
        // Do not keep keys that were fetched with other roots.
        let kept = old.logout.as_deref().filter(|_| !changes.concern(&["outgoing"]));
        let logout = logout(config, kept, &self.metrics)?;

        // Wait for keys if they come from another place now: until then, the old identity with its keys
        // stays in force.
        Handle::current().block_on(identity.keys_arrive())?;

        // Last of what can fail, since it takes effect at once.
        if let (Some(shared), Some(settings)) = (&self.shared, &config.shared)
            && changes.concern(&["shared", "outgoing"])
        {
            shared.replace(settings)?;
        }

        // Another API key is another workspace, where the old tokens are of no use.
        let generation = old.plan.issuer().credentials_generation;
        let moved = changes.names("velt.api_key");
        let plan = config.plan.of_generation(generation + u64::from(moved));
        let by = mint.as_ref().map(|mint| Arc::clone(mint) as _);
        self.trial.set(config.trial.as_ref(), &plan, by);
        if let Some(mint) = mint {
            // Replace the mint before the plan: no request of the new plan may get a token minted with the
            // old key.
            self.sidecar.admission.store(mint.admission());
            let new_credentials = moved || changes.names("velt.auth_token");
            let mint = sharing(config, self.shared.as_ref(), mint);
            self.sidecar.tokens.replace_mint(mint, new_credentials);
        }
        if moved {
            self.sidecar.tokens.retire(generation + 1);
        }
        identity.start();
        if let Some(logout) = &logout {
            logout.start();
        }
        let injection = Arc::new(Injection::new(config.delivery.clone()));
        let required_on = Arc::new(RequiredOn::new(config.required_on.clone()));
        let details = if changes.concern(&["identity"]) {
            // Another identity or place may mean other answers.
            AppDetails::of(&identity)
        } else {
            old.details.clone()
        };
        // Another app waits for a restart.
        let has_app = old.has_app;
        let rules =
            Rules { identity, plan, injection, required_on, resolver, logout, details, has_app };
        self.sidecar.rules.store(Arc::new(rules));
        if changes.concern(&["log"]) {
            // The log of a process with several sidecars is not ours to change.
            let _ = self.log.set_level(config.log.level);
        }
        *self.shutdown.lock().unwrap_or_else(PoisonError::into_inner) = config.shutdown.clone();
        let in_force = InForce::new(in_force.to_vec());
        let token = config.admin_token.clone();
        self.current.store(Arc::new(CurrentSettings { in_force, token }));
        Ok(())
    }
}

//! `sidecar.toml` and the environment, parsed once into checked settings, with every complaint at once.
//!
//! Each part of the sidecar declares its own settings; this module only reads them. Only this crate and the
//! commands (`tools`) see a whole [`Config`].

mod origin;
mod reader;
mod schema;
mod setting;
mod table;
mod words;

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::{self, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};

pub use self::origin::{LoadError, Origin, Reading};
pub use self::reader::{Code, Complaint, Effective, Place, Secrets, Source, Unchecked};
use self::reader::{Findings, Reader, Section};
pub use self::schema::schema;
use self::setting::{Bytes, Limit, Setting, Share};
pub use self::table::admin::TOKEN_VARIABLE as ADMIN_TOKEN_VARIABLE;
use ground::logging;
use ground::memory;
use ground::tls;
pub use ground::tls::RESTED;
use ground::trace;
use hop::listener;
use hop::proxy;
use identity;
use sidecar::access_log;
use sidecar::inject;
use sidecar::logout::LogoutSettings;
use sidecar::resolver::ResolverSettings;
use token::audit;
use token::trial;
use token::velt;
use token::{MintPlan, cache, resilience};

/// All settings.
#[derive(Clone, Debug)]
pub struct Config {
    pub listen: listener::Settings,
    /// TLS of the traffic port; `None` without TLS.
    pub tls: Option<tls::ServerSettings>,
    pub admin: listener::Settings,
    /// Token that admin calls must show, if there is one.
    pub admin_token: Option<SecretString>,
    /// The app; `None` if a gateway has the app, and the sidecar serves token routes and checks alone.
    pub app: Option<proxy::Settings>,
    pub identity: identity::Settings,
    pub velt: velt::Settings,
    pub plan: MintPlan,
    pub resilience: resilience::Settings,
    /// The user for whom a token is minted on a timer; `None` if there is none.
    pub trial: Option<trial::Settings>,
    pub cache: cache::Settings,
    /// The store that replicas share; `None` if each keeps its tokens to itself.
    pub shared: Option<shared::Settings>,
    pub delivery: inject::Settings,
    /// Paths of the app that only known callers may ask.
    pub required_on: Vec<inject::PathPattern>,
    /// Tokens for resolvers; `None` if the sidecar makes none.
    pub resolver: Option<ResolverSettings>,
    /// Logouts by the word of others; `None` if none are taken.
    pub logout: Option<LogoutSettings>,
    pub shutdown: Shutdown,
    pub workers: Workers,
    pub memory_limit: memory::Limit,
    pub log: logging::Settings,
    pub access_log: access_log::Settings,
    /// Log of minted tokens; `None` if there is none.
    pub audit: Option<audit::Settings>,
    pub tracing: trace::Settings,
    /// Peers whose sampled traces are exported.
    pub sampled_by: trace::SampledBy,
    /// Time between two looks for changes of the configuration; `None` leaves reloads to SIGHUP.
    pub reload_interval: Option<Duration>,
    /// Settings as text, each with the source of its value, for `check`.
    pub effective: Vec<Effective>,
    /// Secrets that were not there to be checked; none unless [`Secrets::MayBeAbsent`].
    pub unchecked: Vec<Unchecked>,
    /// Place from which to read the configuration again; `None` if it was not read from anywhere.
    pub origin: Option<Origin>,
}

/// Threads that serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workers {
    /// The CPU quota, at most 2: a sidecar shares its node.
    Auto,
    Exactly(usize),
}

impl Workers {
    /// Returns the number of threads on this machine.
    pub fn count(self) -> usize {
        match self {
            Self::Exactly(count) => count,
            Self::Auto => std::thread::available_parallelism().map_or(1, usize::from).min(2),
        }
    }
}

/// Settings of the shutdown.
#[derive(Clone, Debug)]
pub struct Shutdown {
    /// Time in which the sidecar is not ready but still accepts, for balancers that have not noticed yet.
    pub grace: Duration,
    /// Time for requests and tunnels in flight, after the grace time. The sum of both times must stay below
    /// the pod's `terminationGracePeriodSeconds`.
    pub deadline: Duration,
}

/// All problems of a configuration.
#[derive(Clone, Debug)]
pub struct ConfigError {
    /// Name of the file in messages.
    pub file: String,
    pub complaints: Vec<Complaint>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.complaints.len();
        let things = if count == 1 { "problem" } else { "problems" };
        write!(formatter, "the configuration has {count} {things}:")?;
        for Complaint { place, problem, remedy, .. } in &self.complaints {
            match place {
                Place::Line(line) => write!(formatter, "\n  {}:{line}: {problem}", self.file)?,
                Place::Environment(name) => write!(formatter, "\n  {name}: {problem}")?,
                Place::Missing => write!(formatter, "\n  {problem}")?,
            }
            write!(formatter, "\n    -> {remedy}")?;
        }
        Ok(())
    }
}

impl Error for ConfigError {}

/// Parses a time as it is written in the file, such as `250ms`, `5s` or `2m`; of at most a day.
pub fn time(text: &str) -> Option<Duration> {
    <Duration as Setting>::parse(text)
}

impl Config {
    /// Reads `text`, which messages call `file`, with `environment` laid over it.
    ///
    /// # Errors
    ///
    /// Every complaint at once.
    pub fn parse(
        file: &str,
        text: &str,
        environment: &BTreeMap<String, String>,
    ) -> Result<Self, ConfigError> {
        Self::parse_with(file, text, environment, Secrets::Needed)
    }

    /// Reads like [`Self::parse`], with or without the secrets.
    ///
    /// # Errors
    ///
    /// Every complaint at once.
    pub fn parse_with(
        file: &str,
        text: &str,
        environment: &BTreeMap<String, String>,
        secrets: Secrets,
    ) -> Result<Self, ConfigError> {
        let reader = Reader::new(text, environment).with_secrets(secrets);
        let document = reader.document();
        let config = Section::top(&reader, &document, Self::read);
        let Findings { effective, complaints, unchecked } = reader.finish();
        match config {
            Some(config) if complaints.is_empty() => Ok(Self { effective, unchecked, ..config }),
            _ => Err(ConfigError { file: file.into(), complaints }),
        }
    }

    /// Reads all tables. `None` if a setting without a default is missing; the reader has complained about
    /// it.
    fn read(top: &Section<'_, '_>) -> Option<Self> {
        let (listen, tls) = top.section("listen", |section| {
            (table::listen::read(section), section.section("tls", table::listen::read_tls))
        });
        let (admin, admin_token) = top.section("admin", table::admin::read);
        let app = top.section("app", |section| table::app::read(section, listen.address));
        let roots = top.section("outgoing", table::outgoing::read);
        let delivery =
            top.section("delivery", |section| table::delivery::read(section, app.is_some()));
        let (required_on, identity, velt) = top.section("identity", |section| {
            let required_on = section.list("require_on", &[]);
            section.section("assertion", |assertion| {
                let mut identity = table::identity::read(section, assertion, &delivery, &roots);
                check_names(section, identity.as_ref(), tls.as_ref());
                // Read within `identity`, because `velt.api` may leave keys of that table without effect.
                let (velt, known_groups) = top.section("velt", |velt| {
                    let (keys, suffix) = match identity.as_ref().map(|settings| &settings.source) {
                        Some(identity::Source::Assertion(_)) => (assertion, "claim"),
                        _ => (section, "header"),
                    };
                    let (read, known_groups) =
                        table::velt::read(velt, keys, suffix, identity.as_ref(), roots.clone());
                    check_secrets(velt, read.as_ref(), identity.as_ref(), admin_token.as_ref());
                    (read, known_groups)
                });
                let source = identity.as_ref().map(|identity| &identity.source);
                check_required_on(section, &required_on, source);
                table::app::check_identity(section, source, app.is_some());
                if let Some(identity) = &mut identity {
                    let source = &mut identity.source;
                    table::identity::check_groups(section, assertion, source, &known_groups);
                    source.set_known_groups(known_groups);
                }
                (required_on, identity, velt)
            })
        });
        let resolver = top.section("resolver", |section| table::resolver::read(section, &delivery));
        let logout = top.section("logout", |section| {
            table::logout::read(section, (&delivery, app.is_some()), resolver.as_ref(), &roots)
        });
        let cache = top.section("cache", |section| cache::Settings {
            max_entries: section.value("max_entries", "100000"),
            max_bytes: section.value::<Bytes>("max_bytes", "256MiB").0,
        });
        let shared = top
            .section("shared", |section| table::shared::read(section, &roots, cache.max_entries));
        let shutdown = top.section("shutdown", |section| Shutdown {
            grace: section.value("grace", "5s"),
            deadline: section.value("deadline", "20s"),
        });
        let (workers, memory_limit) = top.section("runtime", |section| {
            (section.value("workers", "auto"), section.value("memory_limit", "auto"))
        });
        let log = top.section("log", |section| logging::Settings {
            level: section.value("level", "info"),
            format: section.value("format", "text"),
        });
        let access_log = top.section("access_log", |section| access_log::Settings {
            format: section.value("format", "off"),
            sample: section.value::<Share>("sample", "1.0").0,
            user: section.value("user", "false"),
        });
        let source = identity.as_ref().map_or("header", |identity| identity.source.word());
        let audit = top.section("audit_log", |section| table::read_audit(section, source, &log));
        let (tracing, sampled_by) =
            top.section("tracing", |section| table::tracing::read(section, &roots));
        let reload_interval =
            top.section("reload", |section| section.value::<Limit>("interval", "10s").0);
        // Without `?`, which would leave tables unread, and so unknown.
        identity.zip(velt).map(|(identity, (velt, plan, resilience, trial))| Self {
            listen,
            tls,
            admin,
            admin_token,
            app,
            delivery,
            required_on,
            resolver,
            logout,
            identity,
            velt,
            plan,
            resilience,
            trial,
            cache,
            shared,
            shutdown,
            workers,
            memory_limit,
            log,
            access_log,
            audit,
            tracing,
            sampled_by,
            reload_interval,
            effective: Vec::new(),
            unchecked: Vec::new(),
            origin: None,
        })
    }

    /// The file that holds the value of the setting `path`, such as `velt.auth_token`, if it is not in the
    /// configuration itself.
    pub(crate) fn file_of(&self, path: &str) -> Option<PathBuf> {
        let key = if path.ends_with("_file") { path.to_owned() } else { format!("{path}_file") };
        let named = self.effective.iter().find(|setting| setting.path() == key)?;
        serde_json::from_str(&named.value).ok()
    }

    /// Returns the settings in force as text, see [`describe`].
    pub fn describe(&self) -> String {
        describe(&self.effective)
    }
}

/// Returns values in force as TOML, each with its source. Secrets are left out.
pub fn describe(effective: &[Effective]) -> String {
    let mut text = String::new();
    let mut described = None;
    for Effective { header, table, key, value, fingerprint, source } in effective {
        // Values of a preset are shown as comments: as plain lines they would be settings of the operator.
        let is_comment = matches!(source, Source::Preset | Source::LeftOut(_));
        let mark = if is_comment { "# " } else { "" };
        if described.replace(table) != Some(table) {
            let gap = if text.is_empty() { "" } else { "\n" };
            // Writing to a string does not fail.
            let _ = writeln!(text, "{gap}{header}");
        }
        let line = format!("{mark}{key} = {value}");
        let content = fingerprint.map_or_else(String::new, |print| format!(", {print}"));
        let _ = writeln!(text, "{line:<48} # {source}{content}");
    }
    text
}

/// Returns the address of the admin port, by the same rules as [`Config::parse`]. Other mistakes in the
/// configuration are ignored: a probe must not fail for a file that a running sidecar read long ago.
pub fn admin_address(text: &str, environment: &BTreeMap<String, String>) -> SocketAddr {
    let reader = Reader::new(text, environment);
    let document = reader.document();
    Section::top(&reader, &document, |top| top.section("admin", table::admin::read_address))
}

/// Complains about a credential of Velt's that stands in a second place as well: the API key is known to
/// every browser, and the auth token is for Velt alone.
fn check_secrets(
    section: &Section<'_, '_>,
    velt: Option<&table::velt::Parts>,
    identity: Option<&identity::Settings>,
    admin_token: Option<&SecretString>,
) {
    let Some((velt, ..)) = velt else { return };
    let (api_key, auth_token) = (velt.api_key.expose_secret(), velt.auth_token.expose_secret());
    // The emulator, at an http:// endpoint, accepts any credentials.
    if api_key == auth_token && velt.endpoint.scheme() == "https" {
        section.complain_about(
            "auth_token",
            "it is the same as velt.api_key, which every browser knows",
            "copy each of the two again from Velt's console",
        );
    }
    let shown = identity.and_then(|identity| identity.secret.as_ref());
    let shown = shown.into_iter().flat_map(|secret| &secret.accepted);
    let others = shown.map(|secret| ("identity.secret", secret));
    let others = others.chain(admin_token.map(|token| ("admin.token", token)));
    for (name, secret) in others {
        let secret = secret.expose_secret();
        if secret == api_key || secret == auth_token {
            section.complain_about(
                "auth_token",
                &format!("one of Velt's credentials is also given as {name}"),
                "make another one with: openssl rand -hex 32",
            );
        }
    }
}

/// Complains about paths that only known callers may ask, if only the app knows its callers.
fn check_required_on(
    section: &Section<'_, '_>,
    required_on: &[inject::PathPattern],
    source: Option<&identity::Source>,
) {
    if let (false, Some(identity::Source::App(_))) = (required_on.is_empty(), source) {
        section.complain_about(
            "require_on",
            "the app alone knows its users before it answers",
            "remove it, and have the app refuse anonymous callers there",
        );
    }
}

/// Complains about trusted names without a client CA: a name in a certificate proves nothing unless a CA
/// signs the certificate.
fn check_names(
    section: &Section<'_, '_>,
    identity: Option<&identity::Settings>,
    tls: Option<&tls::ServerSettings>,
) {
    let named = identity.is_some_and(|identity| !identity.trusted_names.is_empty());
    if named && tls.is_none_or(|tls| tls.client_ca.is_none()) {
        section.complain_about(
            "trusted_names",
            "no client can show a certificate here, so no peer would ever be trusted",
            "write client_ca_file = \"/path/to/ca.crt\" in [listen.tls]: the authority that signs \
             the login proxy's certificate",
        );
    }
}

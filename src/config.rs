//! `sidecar.toml` and the environment, parsed once into settings that can't be wrong.
//!
//! Each part of the sidecar declares its own settings; this module only reads them. Nothing but
//! `main`, the demo and the composition root see a whole [`Config`].

mod reader;
mod setting;
mod words;

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::{self, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use ipnet::IpNet;
use reqwest::Url;

pub use self::reader::{Complaint, Effective, Place};
use self::reader::{Inline, Reader, Section, Source};
use self::setting::{Bytes, Span};
use self::words::{HeaderBytes, RoutePath, ShapeName, StreamCount};
use crate::identity::{self, HeaderSource};
use crate::inject::{self, HeaderSettings, OnMintFailure, Shape, TokenRoute};
use crate::listener::{self, Limits};
use crate::logging;
use crate::proxy;
use crate::token::velt::{self, Api};
use crate::token::{Issuer, MintPlan, Resource, cache, resilience};

/// Everything that can be set.
#[derive(Clone, Debug)]
pub struct Config {
    pub listen: listener::Settings,
    pub admin: listener::Settings,
    pub app: proxy::Settings,
    pub identity: identity::Settings,
    pub velt: velt::Settings,
    pub plan: MintPlan,
    pub resilience: resilience::Settings,
    pub cache: cache::Settings,
    pub delivery: inject::Settings,
    pub shutdown: Shutdown,
    pub workers: Workers,
    pub log: logging::Settings,
    /// The same as text with the source of each value, for `check`.
    pub effective: Vec<Effective>,
}

/// Threads that serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workers {
    /// The CPU quota, at most 2: a sidecar shares its node.
    Auto,
    Exactly(usize),
}

/// How to end.
#[derive(Clone, Debug)]
pub struct Shutdown {
    /// Not ready, but still accepting: for balancers that have not noticed yet.
    pub grace: Duration,
    /// For requests and tunnels in flight, after that. Both together must stay below the pod's
    /// `terminationGracePeriodSeconds`.
    pub deadline: Duration,
}

/// What is wrong with a configuration: everything at once.
#[derive(Clone, Debug)]
pub struct ConfigError {
    /// How to name the file in messages.
    pub file: String,
    pub complaints: Vec<Complaint>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.complaints.len();
        let things = if count == 1 { "problem" } else { "problems" };
        write!(formatter, "the configuration has {count} {things}:")?;
        for Complaint { place, problem, remedy } in &self.complaints {
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
        let reader = Reader::new(text, environment);
        let document = reader.document();
        let config = Self::read(&Section::top(&reader, &document));
        let (effective, complaints) = reader.finish();
        match config {
            Some(config) if complaints.is_empty() => Ok(Self { effective, ..config }),
            _ => Err(ConfigError { file: file.into(), complaints }),
        }
    }

    /// `None` if something without a default is missing, which has been complained of.
    fn read(top: &Section<'_, '_>) -> Option<Self> {
        let listen = {
            let section = top.section("listen");
            listener::Settings {
                address: section.value("address", "0.0.0.0:8080"),
                max_connections: section.value("max_connections", "10000"),
                limits: Limits {
                    idle: section.value::<Span>("idle_timeout", "75s").0,
                    head: section.value::<Span>("header_timeout", "10s").0,
                    stalled: section.value::<Span>("write_timeout", "60s").0,
                },
                max_header_bytes: section.value::<HeaderBytes>("max_header_bytes", "64KiB").0,
                http2_max_streams: section.value::<StreamCount>("http2_max_streams", "200").0,
            }
        };
        let admin = listener::Settings {
            max_connections: 256,
            ..listener::Settings::at(top.section("admin").value("address", "127.0.0.1:9901"))
        };
        let app = {
            let section = top.section("app");
            let app = read_app(&section);
            check_loop(&section, &app.address, listen.address);
            app
        };
        let delivery = read_delivery(&top.section("delivery"));
        let token_headers = vec![delivery.header.name.clone(), delivery.header.status_name.clone()];
        let section = top.section("identity");
        let identity = read_identity(&section, token_headers);
        let velt = read_velt(&top.section("velt"), &section, &identity.source);
        let cache = {
            let section = top.section("cache");
            cache::Settings {
                max_entries: section.value("max_entries", "100000"),
                max_bytes: section.value::<Bytes>("max_bytes", "256MiB").0,
            }
        };
        let shutdown = {
            let section = top.section("shutdown");
            Shutdown {
                grace: section.value("grace", "5s"),
                deadline: section.value("deadline", "20s"),
            }
        };
        let workers = top.section("runtime").value("workers", "auto");
        let log = {
            let section = top.section("log");
            logging::Settings {
                level: section.value("level", "info"),
                format: section.value("format", "text"),
            }
        };
        let (velt, plan, resilience) = velt?;
        Some(Self {
            listen,
            admin,
            app,
            delivery,
            identity,
            velt,
            plan,
            resilience,
            cache,
            shutdown,
            workers,
            log,
            effective: Vec::new(),
        })
    }

    /// The values in force as TOML, each with where it came from. Secrets are not in there.
    pub fn describe(&self) -> String {
        let mut text = String::new();
        let mut described = None;
        for Effective { header, table, key, value, source } in &self.effective {
            if described.replace(table) != Some(table) {
                let gap = if text.is_empty() { "" } else { "\n" };
                // Writing to a string does not fail.
                let _ = writeln!(text, "{gap}{header}");
            }
            let source = match source {
                Source::Default => "default".to_owned(),
                Source::Place(place) => place.to_string(),
            };
            let line = format!("{key} = {value}");
            let _ = writeln!(text, "{line:<48} # {source}");
        }
        text
    }
}

fn read_app(section: &Section<'_, '_>) -> proxy::Settings {
    proxy::Settings {
        address: section.value("address", "127.0.0.1:3000"),
        protocol: section.value("protocol", "http1"),
        connect_timeout: section.value::<Span>("connect_timeout", "1s").0,
        response_timeout: section.value::<Span>("response_timeout", "60s").0,
        idle_timeout: section.value::<Span>("idle_timeout", "4s").0,
        max_idle: section.value("max_idle", "256"),
    }
}

/// Refuses to forward to ourselves: each request would come back until no connection is left.
fn check_loop(section: &Section<'_, '_>, app: &proxy::Address, listen: SocketAddr) {
    let proxy::Address::Tcp(authority) = app else { return };
    let Some((host, port)) = authority.rsplit_once(':') else { return };
    let host = host.trim_matches(['[', ']']);
    let ours = match host.parse::<IpAddr>() {
        Ok(address) => {
            address == listen.ip() || listen.ip().is_unspecified() && address.is_loopback()
        }
        Err(_) => {
            host == "localhost" && (listen.ip().is_unspecified() || listen.ip().is_loopback())
        }
    };
    if ours && port.parse() == Ok(listen.port()) {
        section.complain_about(
            "address",
            "this is the sidecar's own listen.address, so requests would go in circles",
            "write the app's address, or give the sidecar another port in [listen]",
        );
    }
}

/// Headers that say something else than who is asking, and would break requests if they were
/// guarded as identity.
const NOT_IDENTITY: [&str; 12] = [
    "authorization",
    "connection",
    "content-length",
    "content-type",
    "cookie",
    "host",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-forwarded-for",
    "x-forwarded-host",
];

fn read_identity(section: &Section<'_, '_>, token_headers: Vec<HeaderName>) -> identity::Settings {
    let source = HeaderSource {
        user: section.value("user_header", "X-Forwarded-User"),
        email: section.optional("email_header"),
        name: section.optional("name_header"),
        organization: section.optional("organization_header"),
        groups: section.optional("groups_header"),
        admin_groups: section.list("admin_groups", &[]),
    };
    if source.groups.is_some() == source.admin_groups.is_empty() {
        let (key, other) = match source.groups {
            Some(_) => ("groups_header", "admin_groups"),
            None => ("admin_groups", "groups_header"),
        };
        if section.has(key) {
            let remedy = format!("set identity.{other} as well, or remove {key}");
            section.complain_about(key, "it has no effect alone", &remedy);
        }
    }
    let named = [&source.email, &source.name, &source.organization, &source.groups];
    let named = named.into_iter().flatten().chain([&source.user]).chain(&token_headers);
    // Names that differ in - and _ only would be each other's aliases, which are refused.
    let mut taken: Vec<String> = named.map(|name| name.as_str().replace('_', "-")).collect();
    taken.sort_unstable();
    if taken.windows(2).any(|pair| pair[0] == pair[1]) {
        section.complain_about(
            "user_header",
            "two settings name the same header",
            "name a header of its own for each of user, email, name, organization, groups and \
             delivery.header",
        );
    }
    let reserved = taken.iter().find(|name| NOT_IDENTITY.contains(&name.as_str()));
    if let Some(name) = reserved {
        section.complain_about(
            "user_header",
            &format!("{name} has a meaning of its own in HTTP"),
            "name the header that the login proxy sets, such as \"X-Forwarded-User\"",
        );
    }
    let settings = identity::Settings {
        source,
        trusted_peers: section.list("trusted_peers", &["127.0.0.0/8", "::1/128"]),
        ambiguous: section.value("on_ambiguous", "refuse"),
        forward: section.value("forward_headers", "keep"),
        token_headers,
    };
    let reckless: bool = section.value("dangerously_trust_every_peer", "false");
    check_trust(section, &settings.trusted_peers, reckless);
    settings
}

/// Refuses to believe nobody, and to believe everybody without being told so in plain words.
fn check_trust(section: &Section<'_, '_>, peers: &[IpNet], reckless: bool) {
    if peers.is_empty() {
        section.complain_about(
            "trusted_peers",
            "nobody is trusted, so there would never be an identity",
            "name the login proxy's addresses: trusted_peers = [\"127.0.0.0/8\", \"::1/128\"] if it \
             runs in the same pod",
        );
    }
    // No private network is larger than 10.0.0.0/8 and fc00::/7.
    let everyone = peers.iter().any(|range| match range {
        IpNet::V4(range) => range.prefix_len() < 8,
        IpNet::V6(range) => range.prefix_len() < 7,
    });
    if everyone && !reckless {
        section.complain_about(
            "trusted_peers",
            "whoever reaches this port could name any user and get his token",
            "name the login proxy's addresses, such as [\"10.42.0.0/16\"]; if a network policy \
             really lets nobody else in, write dangerously_trust_every_peer = true",
        );
    }
    if reckless && !everyone {
        section.complain_about(
            "dangerously_trust_every_peer",
            "it has no effect while trusted_peers names ranges",
            "remove it",
        );
    }
}

type VeltParts = (velt::Settings, MintPlan, resilience::Settings);

fn read_velt(
    section: &Section<'_, '_>,
    identity: &Section<'_, '_>,
    source: &HeaderSource,
) -> Option<VeltParts> {
    let api: Api = section.value("api", "legacy");
    let endpoint = read_endpoint(section, api);
    let api_key = section.secret("api_key", "VELT_API_KEY", Inline::Allowed);
    let auth_token = section.secret("auth_token", "VELT_AUTH_TOKEN", Inline::Refused);
    let organization: Option<String> = section.optional("organization");
    check_effect(section, identity, source, api, organization.is_some());
    let verify_user = section.value("verify_user", "auto");
    let connect_timeout = section.value::<Span>("connect_timeout", "2s").0;
    let resilience = resilience::Settings {
        attempt_timeout: section.value::<Span>("attempt_timeout", "3s").0,
        deadline: section.value::<Span>("deadline", "8s").0,
        max_concurrent: section.value("max_concurrent", "16"),
    };
    if resilience.attempt_timeout > resilience.deadline {
        section.complain_about(
            "attempt_timeout",
            "one attempt may take longer than all of them",
            "write at most velt.deadline",
        );
    }
    // The last of the table's keys, as TOML has it.
    let resources = read_resources(section, api);
    let plan = MintPlan {
        issuer: Issuer {
            endpoint: Arc::from(endpoint.as_str()),
            credentials_generation: 0,
            resources: resources.into(),
        },
        organization: organization.map(String::into_boxed_str),
        needs_organization: api != Api::Legacy,
    };
    let (api_key, auth_token) = (api_key?, auth_token?);
    let settings =
        velt::Settings { api, endpoint, api_key, auth_token, verify_user, connect_timeout };
    Some((settings, plan, resilience))
}

fn read_endpoint(section: &Section<'_, '_>, api: Api) -> Url {
    let endpoint: Url = section.value("endpoint", api.default_endpoint());
    let allow_plaintext: bool = section.value("allow_plaintext", "false");
    let is_loopback = match endpoint.host_str() {
        Some("localhost") => true,
        Some(host) => {
            let host = host.trim_matches(['[', ']']);
            host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
        }
        None => false,
    };
    if endpoint.scheme() == "http" && !is_loopback && !allow_plaintext {
        section.complain_about(
            "endpoint",
            "the auth token would cross the network in plain text",
            "write an https:// URL; for an emulator in a test cluster, allow_plaintext = true",
        );
    }
    if allow_plaintext && endpoint.scheme() != "http" {
        section.complain_about(
            "allow_plaintext",
            "it has no effect on an https:// endpoint",
            "remove it",
        );
    }
    endpoint
}

/// Complains about what the chosen API does not send, and about what it can't do without.
fn check_effect(
    section: &Section<'_, '_>,
    identity: &Section<'_, '_>,
    source: &HeaderSource,
    api: Api,
    has_organization: bool,
) {
    let sent: &[&str] = match api {
        Api::Legacy => &[],
        Api::V1 => &["email_header", "organization_header", "groups_header"],
        Api::V2 => &["email_header", "organization_header", "groups_header", "name_header"],
    };
    for key in ["email_header", "name_header", "organization_header", "groups_header"] {
        if identity.has(key) && !sent.contains(&key) {
            identity.complain_about(
                key,
                "the chosen velt.api does not send it, so it has no effect",
                "remove it, or set velt.api to one that does (docs/configuration.md)",
            );
        }
    }
    if api == Api::Legacy && has_organization {
        section.complain_about(
            "organization",
            "the legacy API does not send it, so it has no effect",
            "remove it, or write api = \"v2\"",
        );
    }
    if api != Api::Legacy && !has_organization && source.organization.is_none() {
        section.complain_about(
            "organization",
            "it is missing, and this API needs one",
            "write organization = \"your-organization-id\" in [velt], or name the header that \
             carries it: organization_header in [identity]",
        );
    }
}

fn read_resources(section: &Section<'_, '_>, api: Api) -> Vec<Resource> {
    let Some(tables) = section.sections("resource") else { return Vec::new() };
    if api != Api::V2 {
        section.complain_about(
            "resource",
            "only the v2 API sends resources, so they have no effect",
            "remove them, or write api = \"v2\"",
        );
    }
    let read = |table: &Section<'_, '_>| {
        let kind = table.required("type");
        let id = table.required("id");
        let organization = table.optional("organization");
        let role = table.optional("role");
        let expires_in = table.optional::<Span>("expires_in").map(|span| span.0);
        Some(Resource { kind: kind?, id: id?, organization, role, expires_in })
    };
    tables.iter().filter_map(read).collect()
}

fn read_delivery(section: &Section<'_, '_>) -> inject::Settings {
    let header = {
        let section = section.section("header");
        let header = HeaderSettings {
            enabled: section.value("enabled", "true"),
            name: section.value("name", "X-Velt-Token"),
            status_name: section.value("status_name", "X-Velt-Token-Status"),
            paths: section.list("paths", &["/*"]),
            max_wait: section.value("max_wait", "250ms"),
            on_failure: section.value("on_failure", "omit"),
        };
        let hasty = header.max_wait < Duration::from_secs(1);
        if header.on_failure == OnMintFailure::Refuse && hasty {
            section.complain_about(
                "on_failure",
                "with so short a max_wait it would refuse every user's first request",
                "write max_wait = \"5s\" beside it",
            );
        }
        header
    };
    let routes: Vec<TokenRoute> = if let Some(tables) = section.sections("route") {
        tables.iter().filter_map(read_route).collect()
    } else {
        section.note_default(
            "route",
            "[{ path = \"/generate-velt-jwt-token\", shape = \"string\" }, \
             { path = \"/api/velt/token\", shape = \"object\" }]",
        );
        default_routes()
    };
    for (position, route) in routes.iter().enumerate() {
        if routes[..position].iter().any(|earlier| earlier.path == route.path) {
            let problem = format!("two routes have the path {}", route.path);
            section.complain_about("route", &problem, "give each route a path of its own");
        }
    }
    if routes.is_empty() && !header.enabled {
        section.complain_about(
            "route",
            "there is neither a route nor header delivery, so nobody would get a token",
            "add a [[delivery.route]], or set delivery.header.enabled = true",
        );
    }
    inject::Settings { header, routes }
}

fn default_routes() -> Vec<TokenRoute> {
    let route = |path: &str, shape| TokenRoute {
        path: path.into(),
        shape,
        max_wait: Duration::from_secs(5),
    };
    vec![
        route("/generate-velt-jwt-token", Shape::String),
        route("/api/velt/token", Shape::Object { key: "token".into() }),
    ]
}

fn read_route(table: &Section<'_, '_>) -> Option<TokenRoute> {
    let path = table.required::<RoutePath>("path");
    let shape: ShapeName = table.value("shape", "object");
    let key: Option<String> = table.optional("key");
    let max_wait = table.value::<Span>("max_wait", "5s").0;
    let shape = match (shape, key) {
        (ShapeName::String, Some(_)) => {
            table.complain_about(
                "key",
                "it has no effect on a route that answers a bare string",
                "remove it, or write shape = \"object\"",
            );
            Shape::String
        }
        (ShapeName::String, None) => Shape::String,
        (ShapeName::Object, key) => Shape::Object { key: key.unwrap_or_else(|| "token".into()) },
    };
    Some(TokenRoute { path: path?.0, shape, max_wait })
}

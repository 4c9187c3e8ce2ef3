//! The table `identity`: the source of the user's identity, and the peers to believe.

use http::HeaderName;
use http::uri::PathAndQuery;

use super::super::reader::{Inline, Section};
use super::super::setting::Span;
use super::super::words::{CertificateName, Separator, SourceName};
use super::preset::Preset;
use super::{Groups, anchors, assertion, check_length};
use ground::groups::KnownGroups;
use ground::spelling::folded;
use ground::tls::Roots;
use identity::{
    AppSource, DetailsSource, GroupsLines, HeaderSource, Placeholder, Placeholders, SecretSettings,
    Settings, Source,
};
use sidecar::details::ASKED_USER;
use sidecar::inject::{self, OnMintFailure};

/// Headers with another meaning than identity. Guarding them as identity would break requests. (An assertion
/// may stand in `authorization`, which is made for credentials.)
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

/// Default of `guarded_headers` with `source = "assertion"`: the plain headers that an app most likely reads.
const PLAIN_HEADERS: [&str; 4] = [
    "X-Forwarded-User",
    "X-Forwarded-Email",
    "X-Forwarded-Preferred-Username",
    "X-Forwarded-Groups",
];

/// Default of `guarded_headers` with `source = "header"`. With an assertion, `X-Forwarded-Access-Token` is
/// not guarded: the token is the front's, also where no address is trusted.
const HEADERS_BESIDE_A_USER: [&str; 5] = [
    "X-Forwarded-User",
    "X-Forwarded-Email",
    "X-Forwarded-Preferred-Username",
    "X-Forwarded-Groups",
    "X-Forwarded-Access-Token",
];

/// Values that fronts and apps are known to send where they have no user: those of Apache, Envoy,
/// JavaScript, Lua, Python and Go, and the templates of Caddy, Envoy, nginx, Kubernetes and others.
const PLACEHOLDERS: [&str; 26] = [
    "(null)",
    "-",
    "null",
    "nil",
    "undefined",
    "None",
    "NaN",
    "AnonymousUser",
    "anonymousUser",
    "userdata: NULL",
    "(nil)",
    "(none)",
    "<nil>",
    "<null>",
    "<undefined>",
    "<no value>",
    "[object Object]",
    "\"\"",
    "Optional.empty",
    "{...}",
    "%[...]",
    "$(...)",
    "<%...%>",
    "$...",
    "%...%",
    "%(...)s",
];

const SECRET_VARIABLE: &str = "VELT_SIDECAR_IDENTITY__SECRET";

const NEXT_SECRET_VARIABLE: &str = "VELT_SIDECAR_IDENTITY__NEXT_SECRET";

const EVERYONE: [&str; 2] = ["0.0.0.0/0", "::/0"];

/// Reads the table `identity` and its table `assertion`. Returns `None`, after a complaint, if a setting
/// without a default is missing.
pub fn read(
    section: &Section<'_, '_>,
    assertion: &Section<'_, '_>,
    delivery: &inject::Settings,
    roots: &Roots,
) -> Option<Settings> {
    let preset: Option<&'static Preset> = section.optional("preset");
    let name = read_source_name(section, preset);
    let groups_separator = match preset {
        Some(preset) if preset.groups_separator != "," => {
            section.optional_or("groups_separator", Some(preset.groups_separator))
        }
        _ => Some(section.value("groups_separator", ",")),
    };
    let Separator(groups_separator) = groups_separator.unwrap_or(Separator(','));
    let admin_groups: Vec<String> = section.list("admin_groups", &[]);
    let groups = Groups { separator: groups_separator, admins: admin_groups };
    let placeholders = section.list::<Placeholder>("placeholders", &PLACEHOLDERS);
    let placeholders = Placeholders::new(placeholders);
    let headers = match name {
        SourceName::Header | SourceName::App => {
            let default = if name == SourceName::App { "X-Velt-User" } else { "X-Forwarded-User" };
            read_headers(section, preset, default, &groups, &placeholders)
        }
        SourceName::Assertion => {
            refuse_headers(section);
            None
        }
    };
    let app_path = read_app_path(section, name, delivery);
    let details = read_details(section);
    let mut guarded = read_guarded(section, preset, name);
    let trusted_names = section.list::<CertificateName>("trusted_names", &[]);
    let trusted_names: Vec<String> = trusted_names.into_iter().map(|name| name.0).collect();
    let secret = read_secret(section);
    // No other loopback address: a service mesh hands every caller on from such an address, as Istio does
    // from 127.0.0.6.
    let nearby = ["127.0.0.1", "::1"];
    // A secret vouches for the peer that shows it, from any address, and so does a certificate.
    let vouching = match (&secret, trusted_names.is_empty()) {
        (Some(_), true) => Some("the secret"),
        (Some(_), false) => Some("the secret with the certificate"),
        (None, false) => Some("the certificate"),
        (None, true) => None,
    };
    let vouched = vouching.is_some();
    let trusted_peers = match vouching {
        Some(decider) => section.list_unless("trusted_peers", decider, &EVERYONE),
        None => section.list("trusted_peers", &nearby),
    };
    anchors::check_mesh(section, preset, name, vouched);
    let trusted_hosts = anchors::read_hosts(section, !vouched);
    let trusted_proxies = anchors::read_proxies(section);
    let ambiguous = section.value("on_ambiguous", "refuse");
    let forward = section.value("forward_headers", "keep");
    let reckless: bool = section.value("dangerously_trust_every_peer", "false");
    // Read the table `assertion` after the keys of `identity`, as TOML has them.
    let source = match name {
        SourceName::Header => {
            assertion::refuse(assertion);
            Source::Header(Box::new(headers?))
        }
        SourceName::App => {
            assertion::refuse(assertion);
            Source::App(Box::new(AppSource { headers: headers?, path: app_path? }))
        }
        SourceName::Assertion => {
            let preset = preset.map(|preset| &preset.assertion);
            let source = assertion::read(assertion, preset, &groups, placeholders, roots)?;
            Source::Assertion(Box::new(source))
        }
    };
    // A header that is read is guarded anyway.
    guarded.retain(|name| source.names().all(|read| read != name));
    let header = &delivery.header;
    let mut token_headers = vec![header.name.clone(), header.status_name.clone()];
    // Removed from requests also where the app gets none: an app may go on reading them after that is turned off.
    let to_app = &delivery.app_header;
    for name in [&to_app.name, &to_app.status_name] {
        // The names of both ways may be the same, one in requests and one in responses.
        if !token_headers.contains(name) {
            token_headers.push(name.clone());
        }
    }
    // A user whom the front or the app names in this header is guarded already.
    if details.is_some() && source.names().all(|read| *read != ASKED_USER) {
        guarded.retain(|name| *name != ASKED_USER);
        token_headers.push(ASKED_USER);
    }
    let settings = Settings {
        source,
        details,
        guarded,
        trusted_peers,
        trusted_names,
        secret,
        trusted_hosts,
        trusted_proxies,
        ambiguous,
        forward,
        token_headers,
    };
    check_names(section, &settings);
    anchors::check_trust(section, &settings, reckless);
    Some(settings)
}

/// Reads the path at which to ask an app that names the user itself, and complains about settings that make
/// no sense with such an app.
fn read_app_path(
    section: &Section<'_, '_>,
    name: SourceName,
    delivery: &inject::Settings,
) -> Option<PathAndQuery> {
    if name != SourceName::App {
        let remedy = "write source = \"app\" beside it, or remove it";
        section.refuse("app_path", "it has no effect unless identity.source is \"app\"", remedy);
        return None;
    }
    for key in ["on_ambiguous", "forward_headers"] {
        if section.has(key) {
            let problem = "it is about requests, and with identity.source = \"app\" responses name \
                           the user";
            section.complain_about(key, problem, "remove it");
        }
    }
    if delivery.header.on_failure == OnMintFailure::Refuse {
        section.complain_about(
            "source",
            "with delivery.header.on_failure = \"refuse\" a token would be needed before the app \
             has named the user",
            "write on_failure = \"omit\"",
        );
    }
    section.required("app_path")
}

/// Reads the place at which the app tells details of a user, and the bounds of the question.
fn read_details(section: &Section<'_, '_>) -> Option<DetailsSource> {
    let path: Option<PathAndQuery> = section.optional("details_path");
    if !section.has("details_path") {
        let remedy = "write details_path = \"/api/velt/details\" beside it, or remove it";
        for key in ["details_timeout", "details_max_age"] {
            section.refuse(key, "it has no effect without details_path", remedy);
        }
        return None;
    }
    let timeout = section.value::<Span>("details_timeout", "2s").0;
    let max_age = section.value::<Span>("details_max_age", "5m").0;
    Some(DetailsSource { path: path?, timeout, max_age })
}

fn refuse_headers(section: &Section<'_, '_>) {
    for field in ["user", "email", "name", "organization", "groups", "grants"] {
        section.refuse(
            &format!("{field}_header"),
            "it has no effect while identity.source is \"assertion\"",
            &format!("remove it, or write {field}_claim in [identity.assertion]"),
        );
    }
    section.refuse(
        "groups_lines",
        "it has no effect while identity.source is \"assertion\"",
        "remove it: groups_claim may be a list",
    );
}

fn read_source_name(section: &Section<'_, '_>, preset: Option<&'static Preset>) -> SourceName {
    let Some(preset) = preset else { return section.value("source", "header") };
    let its = match preset.source {
        SourceName::Header => "header",
        SourceName::Assertion => "assertion",
        SourceName::App => "app",
    };
    let source = section.optional_or("source", Some(its)).unwrap_or(preset.source);
    if preset.is_behind_mesh && source == SourceName::Assertion {
        return source;
    }
    if source != preset.source {
        section.complain_about(
            "source",
            &format!("the preset {:?} is for another source", preset.name),
            &format!("remove it, or write source = {its:?}, or remove the preset"),
        );
    }
    preset.source
}

fn read_headers(
    section: &Section<'_, '_>,
    preset: Option<&'static Preset>,
    default: &str,
    groups: &Groups,
    placeholders: &Placeholders,
) -> Option<HeaderSource> {
    let of = |field: fn(&Preset) -> Option<&'static str>| preset.and_then(field);
    let user = match preset {
        None => Some(section.value("user_header", default)),
        Some(preset) if preset.user_header.is_some() => {
            section.optional_or("user_header", preset.user_header)
        }
        // The operator chooses the header names, so the preset has none.
        Some(_) => section.required("user_header"),
    };
    let groups_lines: GroupsLines = section.value("groups_lines", "one");
    let source = HeaderSource {
        email: section.optional_or("email_header", of(|preset| preset.email_header)),
        name: section.optional_or("name_header", of(|preset| preset.name_header)),
        organization: section.optional("organization_header"),
        groups: section.optional_or("groups_header", of(|preset| preset.groups_header)),
        groups_separator: groups.separator,
        groups_lines,
        admin_groups: groups.admins.clone(),
        known_groups: KnownGroups::default(),
        grants: section.optional("grants_header"),
        placeholders: placeholders.clone(),
        user: user?,
    };
    Some(source)
}

/// Complains about groups on which nothing depends, and about admin groups without groups. A preset's groups
/// alone are no mistake. `known` has the groups on which resources depend.
pub fn check_groups<'s>(
    section: &'s Section<'_, '_>,
    assertion: &'s Section<'_, '_>,
    source: &'s Source,
    known: &KnownGroups,
) {
    let of_headers = |source: &'s HeaderSource| {
        (section, "groups_header", source.groups.is_some(), &source.admin_groups)
    };
    let (place, key, groups, admin_groups) = match source {
        Source::Header(source) => of_headers(source),
        Source::App(source) => of_headers(&source.headers),
        Source::Assertion(source) => {
            let claims = &source.policy.claims;
            (assertion, "groups_claim", claims.groups.is_some(), &claims.admin_groups)
        }
    };
    if groups && admin_groups.is_empty() && known.is_empty() && place.has(key) {
        let remedy = format!(
            "set identity.admin_groups or groups of a [[velt.resource]] as well, or remove {key}"
        );
        place.complain_of_no_effect(key, "it has no effect alone", &remedy);
    }
    if !groups && section.has("admin_groups") && !admin_groups.is_empty() {
        let table = if key == "groups_header" { "identity" } else { "identity.assertion" };
        let remedy = format!("set {table}.{key} as well, or remove admin_groups");
        section.complain_of_no_effect("admin_groups", "it has no effect alone", &remedy);
    }
}

/// Reads the headers that are guarded beside the headers that are read.
fn read_guarded(
    section: &Section<'_, '_>,
    preset: Option<&'static Preset>,
    source: SourceName,
) -> Vec<HeaderName> {
    let default: &[&str] = match source {
        SourceName::Header => &HEADERS_BESIDE_A_USER,
        // Only the app names the user here. Headers of the front are not guarded: the app may read them.
        SourceName::App => &[],
        SourceName::Assertion => &PLAIN_HEADERS,
    };
    match preset.filter(|preset| preset.source == source) {
        Some(preset) => section.list_or("guarded_headers", preset.guarded).unwrap_or_default(),
        None => section.list("guarded_headers", default),
    }
}

/// Reads the shared secret, and the next secret while the operator changes it.
fn read_secret(section: &Section<'_, '_>) -> Option<SecretSettings> {
    let header: Option<HeaderName> = section.optional("secret_header");
    let read = |key: &str, variable: &str| {
        let secret = section.optional_secret(key, variable, Inline::Refused)?;
        check_length(section, key, &secret);
        Some(secret)
    };
    let secret = read("secret", SECRET_VARIABLE);
    let next = read("next_secret", NEXT_SECRET_VARIABLE);
    let given = ["secret", "secret_file"].into_iter().any(|key| section.has(key));
    let awaited = header.is_some() && !given;
    let stand_in = awaited.then(|| section.stand_in("secret", SECRET_VARIABLE)).flatten();
    let given = given || stand_in.is_some();
    let secret = secret.or(stand_in);
    if next.is_some() && !given {
        let remedy = "give the secret in force as identity.secret";
        section.complain_about(
            "next_secret",
            "there is no identity.secret that it could follow",
            remedy,
        );
    }
    match (header, given) {
        (Some(header), true) => {
            let accepted: Vec<_> = secret.into_iter().chain(next).collect();
            Some(SecretSettings { header, accepted })
        }
        (Some(_), false) => {
            section.complain_of_missing(
                "secret_header",
                "the secret that it should hold is missing",
                &format!(
                    "set the environment variable {SECRET_VARIABLE}, or secret_file = \
                     \"/path/to/file\" in [identity]"
                ),
            );
            None
        }
        (None, true) => {
            section.complain_of_no_effect(
                "secret",
                "it has no effect without the header that holds it",
                "write secret_header = \"X-Sidecar-Secret\" in [identity], or remove it",
            );
            None
        }
        (None, false) => None,
    }
}

fn check_names(section: &Section<'_, '_>, settings: &Settings) {
    let secret = settings.secret.iter().map(|secret| &secret.header);
    let names = settings.source.names().chain(&settings.guarded).chain(&settings.token_headers);
    // Compare the names as an app may fold them, because aliases of a header are refused.
    let fold = |name: &HeaderName| folded(name.as_str()).map(char::from).collect();
    let mut taken: Vec<String> = names.chain(secret).map(fold).collect();
    taken.sort_unstable();
    if taken.windows(2).any(|pair| pair[0] == pair[1]) {
        section.complain_about(
            "user_header",
            "two settings name the same header",
            "name a header of its own for each of user, email, name, organization, groups, grants \
             and delivery.header",
        );
    }
    let signed = matches!(settings.source, Source::Assertion(_));
    let reserved = taken.iter().find(|name| {
        NOT_IDENTITY.contains(&name.as_str()) && !(signed && *name == "authorization")
    });
    if let Some(name) = reserved {
        section.complain_about(
            "user_header",
            &format!("{name} has a meaning of its own in HTTP"),
            "name the header that the login proxy sets, such as \"X-Forwarded-User\"",
        );
    }
}

//! The table `delivery`: how the token reaches the page.

use std::time::Duration;

use http::HeaderName;

use super::super::reader::Section;
use super::super::setting::Span;
use super::super::words::{BodyBytes, RoutePath, ShapeName};
use super::app::{REMOVE, WITHOUT_APP};
use sidecar::inject::{
    AppHeaderSettings, CheckSettings, DocumentSettings, EXPIRES_AT, HeaderSettings, OnMintFailure,
    Settings, Shape, TokenRoute,
};

/// Longest `max_wait`. Clients and gateways give up earlier.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Names that no token may have, beside those that no identity may have.
const TAKEN: [&str; 18] = [
    "accept",
    "accept-encoding",
    "accept-language",
    "cache-control",
    "expect",
    "expires",
    "forwarded",
    "origin",
    "purpose",
    "range",
    "referer",
    "remote-user",
    "server-timing",
    "user-agent",
    "vary",
    "www-authenticate",
    "x-content-type-options",
    "x-velt-user",
];

/// Beginnings of names that no token may have.
const TAKEN_BEGINNINGS: [&str; 8] = [
    "access-control-",
    "cross-origin-",
    "if-",
    "sec-",
    "trace",
    "x-accel-",
    "x-auth-request-",
    "x-forwarded-",
];

/// Reads the table `delivery`. Without an app, there are no responses and requests of the app's.
pub fn read(section: &Section<'_, '_>, has_app: bool) -> Settings {
    let max_body = section.value::<BodyBytes>("max_body", "64KiB").0;
    let allow_same_site = section.value("allow_same_site", "false");
    // Read the table's own keys before its inner tables, as TOML has them.
    let routes = section
        .sections("route", |tables| tables.iter().filter_map(read_route).collect::<Vec<_>>());
    let routes = routes.unwrap_or_else(|| {
        section.note_default(
            "route",
            "[{ path = \"/generate-velt-jwt-token\", shape = \"string\" }, \
             { path = \"/api/velt/token\", shape = \"object\" }]",
        );
        default_routes()
    });
    let refuse = |table: &Section<'_, '_>, keys: &[&str]| {
        if !has_app {
            table.refuse_other(keys, WITHOUT_APP, REMOVE);
        }
    };
    let header = section.section("header", |table| {
        let header = read_header(table);
        refuse(table, &["enabled", "paths", "max_wait", "on_failure"]);
        HeaderSettings { enabled: header.enabled && has_app, ..header }
    });
    let app_header = section.section("app_header", |table| {
        let settings = read_app_header(table);
        refuse(table, &["paths", "name", "status_name", "max_wait"]);
        settings
    });
    let document = section.section("document", |table| {
        let (paths, max_wait) = (table.list("paths", &[]), read_wait(table, "250ms"));
        refuse(table, &["paths", "max_wait"]);
        DocumentSettings { paths, max_wait }
    });
    let check = section.section("check", |table| read_check(table, &routes));
    for (position, route) in routes.iter().enumerate() {
        if routes[..position].iter().any(|earlier| earlier.path == route.path) {
            let problem = format!("two routes have the path {}", route.path);
            section.complain_about("route", &problem, "give each route a path of its own");
        }
    }
    let by_page = !app_header.paths.is_empty() || !document.paths.is_empty();
    let by_gateway = check.path.is_some();
    if routes.is_empty() && !has_app && !by_gateway {
        section.complain_about(
            "route",
            "with app.address = \"none\" there is neither a route nor a check, so no page would get a token",
            "add a [[delivery.route]], or write path = \"/velt/check\" in [delivery.check]",
        );
    } else if routes.is_empty() && !header.enabled && !by_page && !by_gateway {
        section.complain_about(
            "route",
            "there is neither a route nor header delivery, so no page would get a token",
            "add a [[delivery.route]], or set delivery.header.enabled = true",
        );
    }
    Settings { header, app_header, document, check, routes, max_body, allow_same_site }
}

/// Reads the name of a header with a token or a status. Complains about a name that the sidecar, a browser or a cache
/// reads for another reason: the header would be removed from requests before it is read.
fn read_name(section: &Section<'_, '_>, key: &str, default: &str) -> HeaderName {
    let name: HeaderName = section.value(key, default);
    let begins = |start: &&str| name.as_str().starts_with(start);
    if TAKEN.contains(&name.as_str()) || TAKEN_BEGINNINGS.iter().any(begins) {
        let problem = format!("{name} has a meaning of its own in HTTP");
        section.complain_about(
            key,
            &problem,
            &format!("choose another name, such as \"{default}\""),
        );
    }
    name
}

/// Reads `max_wait`: how long a message waits for its token.
fn read_wait(section: &Section<'_, '_>, default: &str) -> Duration {
    let wait = section.value("max_wait", default);
    check_wait(section, wait);
    wait
}

fn check_wait(section: &Section<'_, '_>, wait: Duration) {
    if wait > LONGEST_WAIT {
        section.complain_about(
            "max_wait",
            "no client and no gateway waits that long for an answer",
            "write \"60s\" or less",
        );
    }
}

/// Reads the table `delivery.header`.
fn read_header(section: &Section<'_, '_>) -> HeaderSettings {
    let header = HeaderSettings {
        enabled: section.value("enabled", "true"),
        name: read_name(section, "name", "X-Velt-Token"),
        status_name: read_name(section, "status_name", "X-Velt-Token-Status"),
        paths: section.list("paths", &["/*"]),
        max_wait: read_wait(section, "250ms"),
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
}

/// Reads the table `delivery.check`. The check answers all paths below its own, so no route may be there.
fn read_check(section: &Section<'_, '_>, routes: &[TokenRoute]) -> CheckSettings {
    let path: Option<RoutePath> = section.optional("path");
    let check = CheckSettings {
        path: path.map(|path| path.0),
        max_wait: read_wait(section, "150ms"),
        require_user: section.value("require_user", "false"),
    };
    if routes.iter().any(|route| check.covers(&route.path)) {
        section.complain_about(
            "path",
            "a token route is at this path or below it",
            "give the check a path of its own: it answers all paths below that path too",
        );
    }
    if check.require_user && !section.has("path") {
        section.complain_of_no_effect(
            "require_user",
            "it has no effect without the path at which gateways ask",
            "write path = \"/velt/check\" in [delivery.check], or remove it",
        );
    }
    check
}

/// Reads the table `delivery.app_header`.
fn read_app_header(section: &Section<'_, '_>) -> AppHeaderSettings {
    let settings = AppHeaderSettings {
        paths: section.list("paths", &[]),
        name: read_name(section, "name", "X-Velt-Token"),
        status_name: read_name(section, "status_name", "X-Velt-Token-Status"),
        max_wait: read_wait(section, "250ms"),
    };
    if settings.name == settings.status_name {
        section.complain_about(
            "status_name",
            "one header can't hold both the token and the reason why there is none",
            "choose another name, such as \"X-Velt-Token-Status\"",
        );
    }
    settings
}

fn default_routes() -> Vec<TokenRoute> {
    let route = |path: &str, shape| TokenRoute {
        path: path.into(),
        shape,
        max_wait: Duration::from_secs(5),
    };
    vec![
        route("/generate-velt-jwt-token", Shape::String),
        route("/api/velt/token", Shape::object("token")),
    ]
}

fn read_route(table: &Section<'_, '_>) -> Option<TokenRoute> {
    let path = table.required::<RoutePath>("path");
    let shape: ShapeName = table.value("shape", "object");
    let key: Option<String> = table.optional("key");
    let max_wait = table.value::<Span>("max_wait", "5s").0;
    check_wait(table, max_wait);
    let shape = match (shape, key) {
        (ShapeName::String, Some(_)) => {
            table.complain_of_no_effect(
                "key",
                "it has no effect on a route that answers a bare string",
                "remove it, or write shape = \"object\"",
            );
            Shape::String
        }
        (ShapeName::String, None) => Shape::String,
        (ShapeName::Object, Some(key)) if key == EXPIRES_AT => {
            table.complain_about(
                "key",
                "the answer says there how long the token may be used",
                "choose another key, such as \"token\"",
            );
            return None;
        }
        (ShapeName::Object, key) => Shape::object(key.as_deref().unwrap_or("token")),
    };
    Some(TokenRoute { path: path?.0, shape, max_wait })
}

//! Wording of the route of a request, and of the token's way into a message.

use http::{HeaderName, Request, StatusCode};

use super::super::logout::Teller;
use super::super::route::{Own, Route};
use super::advice::nearly;
use super::words::step;
use super::{Found, Key, Step};
use crate::inject::{Coverage, Eligibility, Injection, PathPattern, Place, TokenStatus};

/// Explains who answers a request.
pub(super) fn of_route<B>(
    route: &Route<'_>,
    request: &Request<B>,
    injection: &Injection,
    has_app: bool,
) -> Step {
    let path = request.uri().path();
    let (verdict, why, key) = match route {
        Route::Own(Own::Resolver(_)) => (
            "a token for resolvers",
            format!("{path} is the path of tokens for resolvers"),
            "resolver.path",
        ),
        Route::Keys(_) => (
            "the keys of tokens for resolvers",
            format!("{path} is the path of these keys"),
            "resolver.keys_path",
        ),
        Route::Own(Own::Token(route)) => {
            return Step {
                name: "route",
                verdict: "a token route".into(),
                why: format!("{path} is one of the paths that the sidecar answers itself"),
                settings: vec![Key::Route(route.path.clone())],
            };
        }
        Route::Forward { .. } if !has_app => (
            "no route of the sidecar's own",
            format!(
                "{path} is none of the paths that the sidecar answers, and no app is behind it"
            ),
            "app.address",
        ),
        Route::Forward { coverage, .. } => match coverage {
            Coverage::Document(pattern) => (
                "to the app, with a token for the document's scripts",
                format!("{path} matches {:?}", written(pattern)),
                "delivery.document.paths",
            ),
            Coverage::Covered(pattern) => (
                "to the app, with a token",
                format!("{path} matches {:?}", written(pattern)),
                "delivery.header.paths",
            ),
            Coverage::Disabled => (
                "to the app, without a token",
                "delivery in headers is turned off".into(),
                "delivery.header.enabled",
            ),
            Coverage::Method => (
                "to the app, without a token",
                format!("no script reads the headers of an answer to {}", request.method()),
                "delivery.header.paths",
            ),
            Coverage::Path => (
                "to the app, without a token",
                format!("{path} matches none of the patterns"),
                "delivery.header.paths",
            ),
            Coverage::Destination => (
                "to the app, without a token",
                "Sec-Fetch-Dest says that no script will read the answer".into(),
                "delivery.header.paths",
            ),
            Coverage::Prefetch => (
                "to the app, without a token",
                "the browser prefetches, and could not keep an answer with a token".into(),
                "delivery.header.paths",
            ),
        },
    };
    let mut step = step("route", verdict, why, &[key]);
    if let Some(route) = nearly(path, injection) {
        step.why = format!("{}; it is not the token route {}", step.why, route.path);
        step.settings.push(Key::Route(route.path.clone()));
    }
    step
}

/// Explains a path at which logouts are told.
pub(super) fn of_logout_route<B>(teller: Teller<'_>, request: &Request<B>) -> Step {
    let path = request.uri().path();
    let (what, key) = match teller {
        Teller::Oidc(_) => ("the identity provider's logout tokens", "logout.oidc.path"),
        Teller::Webhook(_) => ("signed calls that sign a user out", "logout.webhook.path"),
    };
    step("route", "a logout", format!("{path} is the path of {what}"), &[key])
}

fn written(pattern: &PathPattern) -> String {
    match pattern {
        PathPattern::Exact(path) => path.clone(),
        PathPattern::Prefix(path) => format!("{path}*"),
    }
}

/// Explains the token in the request that goes to the app.
pub(super) fn of_hand_over(injection: &Injection, pattern: &PathPattern, found: &Found) -> Step {
    let header = injection.app_header();
    let covered = format!("the path matches {:?}", written(pattern));
    let paths = "delivery.app_header.paths";
    match found {
        Found::Token => {
            step("first render", format!("the app gets {}", header.name), covered, &[paths])
        }
        Found::Minting => step(
            "first render",
            format!("the app gets {}, if Velt answers in time", header.name),
            format!("{covered}, and the request waits up to {:?}", header.max_wait),
            &[paths, "delivery.app_header.max_wait"],
        ),
        Found::Nothing(absent) => step(
            "first render",
            format!("the app gets {}: {}", header.status_name, absent.status().as_str()),
            covered,
            &[paths],
        ),
    }
}

/// Explains the token in the app's response.
pub(super) fn of_delivery(
    injection: &Injection,
    place: Place,
    eligibility: Eligibility,
    found: &Found,
    status: StatusCode,
    storable_by: Option<&HeaderName>,
    assumed: bool,
) -> Step {
    let whose = if assumed { "taken to be 200 without caching headers" } else { "as it was given" };
    let response = format!("the app's response, {whose},");
    let wait = injection.max_wait(place);
    let (header, names): (_, [&'static str; 3]) = match place {
        Place::Header => (
            injection.header().name.to_string(),
            ["delivery.header.name", "delivery.header.max_wait", "delivery.header.status_name"],
        ),
        Place::Timing => (
            "velt-token in Server-Timing".into(),
            ["delivery.document.paths", "delivery.document.max_wait", "delivery.document.paths"],
        ),
    };
    let [name, max_wait, status_name] = names;
    match (eligibility, found) {
        (Eligibility::NotEligible, _) => step(
            "delivery",
            "no token",
            format!(
                "only a whole response with a 2xx status carries one, and the app answers {}",
                status.as_u16()
            ),
            &[],
        ),
        (Eligibility::Storable, _) => {
            let by = storable_by.map_or("", HeaderName::as_str);
            let why = format!("with {by} the app lets caches store its response");
            step("delivery", "no token", why, &[])
        }
        (Eligibility::Shared, _) => step(
            "delivery",
            "no token",
            "the response has Timing-Allow-Origin or the CSP directive sandbox, so scripts that are not the \
             app's own may read its timings",
            &[],
        ),
        (Eligibility::Eligible, Found::Token) => step(
            "delivery",
            format!("{header} is set"),
            format!("{response} may carry it; Cache-Control becomes private, no-store"),
            &[name],
        ),
        (Eligibility::Eligible, Found::Minting) => step(
            "delivery",
            format!("{header} is set, if Velt answers in time"),
            format!("{response} may carry it, and waits up to {wait:?}"),
            &[name, max_wait],
        ),
        (Eligibility::Eligible, Found::Nothing(absent)) => step(
            "delivery",
            written_status(injection, place, absent.status()),
            format!("{response} could carry a token, and says why there is none"),
            &[status_name, "delivery.header.on_failure"]
                [..if place == Place::Header { 2 } else { 1 }],
        ),
    }
}

/// Writes the line of the response that has the token.
pub(super) fn written_token(injection: &Injection, place: Place) -> String {
    match place {
        Place::Header => format!("{}: <token>", injection.header().name),
        Place::Timing => "Server-Timing: velt-token;desc=\"<token>\"".into(),
    }
}

/// Writes the line of the response that says why there is no token.
pub(super) fn written_status(injection: &Injection, place: Place, status: TokenStatus) -> String {
    let status = status.as_str();
    match place {
        Place::Header => format!("{}: {status}", injection.header().status_name),
        Place::Timing => format!("Server-Timing: velt-token-status;desc=\"{status}\""),
    }
}

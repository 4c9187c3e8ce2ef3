//! Checks whether the app answers at `identity.app_path` and `identity.details_path`, and whether it insists on
//! https.

use http::StatusCode;

use super::{Findings, Surroundings};
use ground::logging::Chain;
use ground::tls::ClientTls;
use hop::proxy::{Asked, Settings, UpstreamError, ask_once};
use identity::Source;

const REDIRECTS_FOR_EVER: &str = "make sure that the front sends X-Forwarded-Proto: https and that \
                                  the sidecar passes it on (identity.trusted_proxies): otherwise \
                                  browsers are redirected for ever";

/// Looks at an app whose answer to `GET /` was a redirect to https.
pub(super) async fn look_at_https(
    settings: &Settings,
    tls: Option<&ClientTls>,
    place: &str,
    findings: &mut Findings,
) {
    match ask_once(settings, tls, "/", true).await {
        Ok(asked) if asked.to_https => findings.warning(
            place,
            "the app redirects GET / to https, even with X-Forwarded-Proto: https",
            "have the app believe X-Forwarded-Proto of a proxy on loopback (Django \
             SECURE_PROXY_SSL_HEADER, Express trust proxy), or browsers are redirected for ever",
        ),
        Ok(_) => findings.note(
            place,
            "the app redirects GET / to https, unless it is told X-Forwarded-Proto: https",
            REDIRECTS_FOR_EVER,
        ),
        // `doctor::app` has just had an answer from the app, and reports apps that don't answer.
        Err(_) => {}
    }
}

/// Asks the app at `identity.app_path` without cookies, if the app has to say who is signed in.
pub(super) async fn look_at_path(
    around: &Surroundings,
    settings: &Settings,
    tls: Option<&ClientTls>,
    findings: &mut Findings,
) {
    let Source::App(source) = &around.config.identity.source else { return };
    let path = source.path.as_str();
    let place = format!("identity.app_path {path}");
    let mut asked = ask_once(settings, tls, path, false).await;
    let insists = asked.as_ref().is_ok_and(|asked| asked.to_https);
    if insists {
        asked = ask_once(settings, tls, path, true).await;
    }
    let asked = match asked {
        Ok(asked) => asked,
        Err(error) => return failed(&error, place, findings),
    };
    let Asked { status, headers, to_https } = asked;
    let what = format!("without cookies the app answers {}", status.as_u16());
    if headers.contains_key(&source.headers.user) {
        findings.warning(
            place,
            format!(
                "{what} and names a user in {}: every visitor would be that user",
                source.headers.user
            ),
            "let the app send the header to signed-in users only",
        );
    } else if to_https {
        findings.warning(
            place,
            format!("{what}, a redirect to https, even with X-Forwarded-Proto: https"),
            "have the app believe X-Forwarded-Proto of a proxy on loopback, or no user gets a \
             token",
        );
    } else if status.is_server_error() || status == StatusCode::NOT_FOUND {
        findings.warning(
            place,
            format!("{what}: it names no user there"),
            "write the path at which the app answers a signed-in user with 2xx and the header",
        );
    } else if insists {
        findings.note(
            place,
            format!("{what} and names no user, but redirects to https unless told X-Forwarded-Proto: https"),
            REDIRECTS_FOR_EVER,
        );
    } else {
        findings.ok(place, format!("{what} and names no user, as it should"));
    }
}

/// Asks the app at `identity.details_path`, if it has to tell details of users, for those of no user.
pub(super) async fn look_at_details(
    around: &Surroundings,
    settings: &Settings,
    tls: Option<&ClientTls>,
    findings: &mut Findings,
) {
    let Some(source) = &around.config.identity.details else { return };
    let path = source.path.as_str();
    let place = format!("identity.details_path {path}");
    // As if the browser had come by https, because an app may insist on it.
    let Asked { status, to_https, .. } = match ask_once(settings, tls, path, true).await {
        Ok(asked) => asked,
        Err(error) => return failed(&error, place, findings),
    };
    let what = format!("asked about no user, the app answers {}", status.as_u16());
    match status.as_u16() {
        200 => findings.warning(
            place,
            format!("{what}: it may answer about another user than the one in X-Velt-User"),
            "answer 404 if X-Velt-User is missing or names no user",
        ),
        404 => findings.note(
            place,
            format!("{what}, as it should; it does the same if it has no such page"),
            "try a user whom the app knows: velt-sidecar explain says what became of the question",
        ),
        204 | 400..=403 => findings.ok(place, format!("{what}, as it should")),
        _ => findings.warning(
            place,
            format!("{what}{}: no user would get a token", if to_https { ", to https" } else { "" }),
            "write the path at which the app answers with 200 and a JSON object, and without a login \
             page of its own",
        ),
    }
}

fn failed(error: &UpstreamError, place: String, findings: &mut Findings) {
    let what = Chain(error).to_string();
    findings.warning(place, what, "see what the app does at this path");
}

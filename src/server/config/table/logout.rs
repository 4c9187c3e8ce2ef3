//! The table `logout`: who may tell that a user was signed out, and what follows.

use reqwest::Url;
use secrecy::{ExposeSecret as _, SecretString};

use super::super::reader::{Inline, Section};
use super::super::setting::Limit;
use super::super::words::RoutePath;
use super::app::{REMOVE, WITHOUT_APP};
use super::check_plaintext;
use ground::tls::Roots;
use identity::LogoutSource;
use identity::assertion::Algorithm;
use identity::keys::KeyLocation;
use sidecar::inject;
use sidecar::logout::{LogoutSettings, is_secret};
use sidecar::resolver::ResolverSettings;

/// Keys of the two tables without which the other keys have no effect.
const PATH: &str = "path";

/// Environment variables of the secrets.
const SECRET_VARIABLE: &str = "VELT_SIDECAR_LOGOUT__WEBHOOK__SECRET";
const NEXT_SECRET_VARIABLE: &str = "VELT_SIDECAR_LOGOUT__WEBHOOK__NEXT_SECRET";

/// Reads the table. `None` if no path is given, so that no logout is taken. Without an app there are no WebSockets.
pub fn read(
    section: &Section<'_, '_>,
    (delivery, has_app): (&inject::Settings, bool),
    resolver: Option<&ResolverSettings>,
    roots: &Roots,
) -> Option<LogoutSettings> {
    let refuse_for = section.value::<Limit>("refuse_for", "15m").0;
    let end_websockets: bool = section.value("end_websockets", "false");
    if !has_app {
        section.refuse_other(&["end_websockets"], WITHOUT_APP, REMOVE);
    }
    let routes = delivery.routes.iter().map(|route| &*route.path);
    let keys = resolver.iter().flat_map(|resolver| [&*resolver.path, &*resolver.keys_path]);
    let mut taken: Vec<&str> = routes.chain(keys).collect();
    let (has_oidc, oidc) = section.section("oidc", |oidc| {
        let path = read_path(oidc, &taken, &delivery.check);
        (oidc.has(PATH), read_oidc(oidc, path, roots))
    });
    taken.extend(oidc.iter().map(|(path, _)| &**path));
    let (has_webhook, webhook) = section.section("webhook", |webhook| {
        let path = read_path(webhook, &taken, &delivery.check);
        (webhook.has(PATH), read_webhook(webhook, path))
    });
    if end_websockets && !has_oidc && !has_webhook {
        section.complain_of_no_effect(
            "end_websockets",
            "it has no effect without a path at which logouts are taken",
            "write path = \"/velt/logout\" in [logout.oidc] or in [logout.webhook], or remove it",
        );
    }
    (has_oidc || has_webhook).then_some(LogoutSettings {
        refuse_for,
        end_websockets,
        oidc,
        webhook,
    })
}

/// Reads the path of a table, which must not be one of the paths that are `taken`.
fn read_path(
    section: &Section<'_, '_>,
    taken: &[&str],
    check: &inject::CheckSettings,
) -> Option<String> {
    let RoutePath(path) = section.optional(PATH)?;
    if taken.contains(&&*path) || check.covers(&path) {
        section.complain_about(
            PATH,
            "the sidecar answers this path already",
            "give each route, and each path of [resolver] and [logout], a path of its own",
        );
    }
    Some(path)
}

/// Reads `logout.oidc`: OpenID Connect Back-Channel Logout.
fn read_oidc(
    section: &Section<'_, '_>,
    path: Option<String>,
    roots: &Roots,
) -> Option<(String, LogoutSource)> {
    let algorithms: Vec<Algorithm> = section.list("algorithms", &["RS256", "ES256"]);
    let user = section.value("user_claim", "sub");
    let issuer: Option<String> = section.optional("issuer");
    let audience: Vec<String> = section.optional_list("audience").unwrap_or_default();
    let jwks_url: Option<Url> = section.optional("jwks_url");
    if !section.has(PATH) {
        // Asks for the key, so that it counts as known.
        let _: bool = section.value("allow_plaintext", "false");
        complain_without_path(section, &["issuer", "audience", "jwks_url"]);
        return None;
    }
    if algorithms.is_empty() || algorithms.iter().any(|algorithm| algorithm.is_symmetric()) {
        section.complain_about(
            "algorithms",
            "logout tokens are checked with the provider's public keys",
            "write those that the provider signs ID tokens with, such as [\"RS256\"]; not \"HS256\"",
        );
    }
    for (key, is_missing, remedy) in [
        (
            "issuer",
            issuer.is_none(),
            "issuer = \"https://id.example.com\": the iss of its ID tokens",
        ),
        ("audience", audience.is_empty(), "audience = [\"...\"]: the client id of the app's login"),
        (
            "jwks_url",
            jwks_url.is_none(),
            "jwks_url = \"https://id.example.com/keys\": the jwks_uri of the provider's metadata",
        ),
    ] {
        if is_missing && !section.has(key) {
            let problem = "it is missing, and a logout token could not be checked without it";
            section.complain_of_missing(key, problem, &format!("write {remedy}"));
        } else if is_missing && key == "audience" {
            let problem = "it is empty, so that no logout token could be valid";
            section.complain_about(key, problem, &format!("write {remedy}"));
        }
    }
    let url = jwks_url?;
    let problem = "keys that come over the network in plain text can be replaced on the way";
    check_plaintext(section, "jwks_url", &url, problem, "a stand-in of the provider");
    let (keys, roots) = (KeyLocation::Set(url), roots.clone());
    let source = LogoutSource { issuer: issuer?, audience, algorithms, keys, roots, user };
    Some((path?, source))
}

/// Reads `logout.webhook`: signed calls.
fn read_webhook(
    section: &Section<'_, '_>,
    path: Option<String>,
) -> Option<(String, Vec<SecretString>)> {
    let read = |key: &str, variable: &str| {
        let secret = section.optional_secret(key, variable, Inline::Refused)?;
        if !is_secret(secret.expose_secret()) {
            section.complain_about(
                key,
                "it is not whsec_ and the base64 of 24 to 64 bytes",
                "make one with: echo \"whsec_$(openssl rand -base64 32)\"",
            );
        }
        Some(secret)
    };
    let secret = read("secret", SECRET_VARIABLE);
    let next = read("next_secret", NEXT_SECRET_VARIABLE);
    if !section.has(PATH) {
        let keys = ["secret", "secret_file", "next_secret", "next_secret_file"];
        complain_without_path(section, &keys);
        return None;
    }
    let given = secret.is_some() || section.has("secret_file") || section.has("secret");
    if !given && section.stand_in("secret", SECRET_VARIABLE).is_none() {
        section.complain_of_missing(
            "secret",
            "it is missing, and calls could not be checked without it",
            &format!(
                "set the environment variable {SECRET_VARIABLE}, or secret_file = \"/path/to/file\" in \
                 [logout.webhook]"
            ),
        );
    }
    Some((path?, secret.into_iter().chain(next).collect()))
}

/// Complains about each of `keys` that is given, since there is no path. Keys with a default stand in every file that
/// was copied from `sidecar.toml`.
fn complain_without_path(section: &Section<'_, '_>, keys: &[&str]) {
    for key in keys {
        if section.has(key) {
            let problem = "it has no effect without the path at which logouts are taken";
            section.complain_of_no_effect(
                key,
                problem,
                "write path = \"/velt/logout\" beside it, or remove it",
            );
        }
    }
}

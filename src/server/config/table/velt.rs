//! The table `velt`: what to mint, with which API and credentials, and the limits of calls.

use std::sync::Arc;

use reqwest::Url;

use super::super::reader::{Inline, Section};
use super::super::setting::Span;
use super::{check_plaintext, resource, trial};
use ground::groups::KnownGroups;
use ground::tls::Roots;
use identity::Source;
use token::resilience::{self, Bounds};
use token::velt::{self, Api};
use token::{Issuer, MintPlan};

/// Settings of the client, the plan of mints, the limits of calls, and trial mints.
pub type Parts = (velt::Settings, MintPlan, resilience::Settings, Option<token::trial::Settings>);

/// Reads the table `velt`. `users` says which attributes of a user there are, and `identity` has the keys
/// that name these attributes, each with the ending `suffix`. `users` is `None` if the table `identity`
/// could not be read. Returns the settings, or `None` if a credential is missing, and the groups on which
/// resources depend.
pub fn read(
    section: &Section<'_, '_>,
    identity: &Section<'_, '_>,
    suffix: &str,
    users: Option<&identity::Settings>,
    roots: Roots,
) -> (Option<Parts>, KnownGroups) {
    let api: Api = section.value("api", "legacy");
    let endpoint = read_endpoint(section, api);
    let api_key = section.secret("api_key", "VELT_API_KEY", Inline::Allowed);
    let auth_token = section.secret("auth_token", "VELT_AUTH_TOKEN", Inline::Refused);
    let organization: Option<String> = section.optional("organization");
    if let Some(users) = users {
        check_effect(section, identity, suffix, users, api, organization.is_some());
    }
    let verify_user = section.value("verify_user", "auto");
    let connect_timeout = section.value::<Span>("connect_timeout", "2s").0;
    let resilience = resilience::Settings {
        attempt_timeout: section.value::<Span>("attempt_timeout", "3s").0,
        deadline: section.value::<Span>("deadline", "8s").0,
        concurrency: read_concurrency(section),
    };
    // Opening a connection must time out before the call does, so that the error names the connection.
    let connect_timeout = connect_timeout.min(resilience.attempt_timeout.mul_f64(0.75));
    if resilience.attempt_timeout > resilience.deadline {
        section.complain_about(
            "attempt_timeout",
            "one attempt could take longer than velt.deadline allows for all attempts",
            "write at most velt.deadline",
        );
    }
    // Read the array of tables after the table's own keys, as TOML has them.
    let table = if suffix == "claim" { "identity.assertion" } else { "identity" };
    let groups_key = format!("{table}.groups_{suffix}");
    let source = users.map(|users| &users.source);
    let (resources, known_groups) = resource::read(section, api, source, &groups_key);
    let issuer = Issuer {
        api,
        endpoint: Arc::from(endpoint.as_str()),
        credentials_generation: 0,
        organization: organization.map(String::into_boxed_str),
        resources: resources.into(),
    };
    let plan = MintPlan::new(issuer, api != Api::Legacy);
    let bounds = resilience.concurrency;
    let trial = section.section("trial", |trial| trial::read(trial, &plan, bounds));
    let parts = api_key.zip(auth_token).map(|(api_key, auth_token)| {
        let settings = velt::Settings {
            api,
            endpoint,
            api_key,
            auth_token,
            verify_user,
            connect_timeout,
            roots,
        };
        (settings, plan, resilience, trial)
    });
    (parts, known_groups)
}

fn read_concurrency(section: &Section<'_, '_>) -> Bounds {
    let ceiling = section.value("max_concurrent", "48");
    let floor: usize = section.value("min_concurrent", "4");
    if floor > ceiling && section.has("min_concurrent") {
        section.complain_about(
            "min_concurrent",
            "it is above velt.max_concurrent",
            "write at most velt.max_concurrent",
        );
    }
    Bounds { floor: floor.min(ceiling), ceiling }
}

fn read_endpoint(section: &Section<'_, '_>, api: Api) -> Url {
    let endpoint: Url = section.value("endpoint", api.default_endpoint());
    check_api(section, &endpoint, api);
    check_plaintext(
        section,
        "endpoint",
        &endpoint,
        "the auth token would cross the network in plain text",
        "an emulator",
    );
    endpoint
}

/// Complains about an endpoint that is known to be another API's: by its path, or by the host of the API without a path.
fn check_api(section: &Section<'_, '_>, endpoint: &Url, api: Api) {
    let path = |url: &Url| url.path().trim_end_matches('/').to_owned();
    for (other, word) in [(Api::Legacy, "legacy"), (Api::V1, "v1"), (Api::V2, "v2")] {
        let its: Url = other.default_endpoint().parse().expect("a URL");
        let is_its = match &*path(&its) {
            "" => endpoint.host() == its.host(),
            known => path(endpoint) == known,
        };
        if is_its && other != api {
            section.complain_about(
                "endpoint",
                &format!("it is the URL of the API {word}, but velt.api names another API"),
                &format!(
                    "write api = \"{word}\" in [velt], or remove the endpoint: each API has its own"
                ),
            );
        }
    }
}

/// Complains about settings that the chosen API does not send, and about a missing organization that the API
/// needs.
fn check_effect(
    section: &Section<'_, '_>,
    identity: &Section<'_, '_>,
    suffix: &str,
    users: &identity::Settings,
    api: Api,
    has_organization: bool,
) {
    let sent: &[&str] = match api {
        Api::Legacy => &[],
        Api::V1 => &["email", "organization", "groups"],
        Api::V2 => &["email", "organization", "groups", "name", "grants"],
    };
    for field in ["email", "name", "organization", "groups", "grants"] {
        let key = format!("{field}_{suffix}");
        if identity.has(&key) && !sent.contains(&field) {
            identity.complain_of_no_effect(
                &key,
                "the chosen velt.api does not send it, so it has no effect",
                "remove it, or set velt.api to one that does (docs/configuration.md)",
            );
        }
    }
    if api == Api::Legacy && has_organization {
        section.complain_of_no_effect(
            "organization",
            "the legacy API does not send it, so it has no effect",
            "remove it, or write api = \"v2\"",
        );
    }
    if api != Api::Legacy && !has_organization && !users.names_organization() {
        let remedy = match users.source {
            Source::Header(_) | Source::App(_) => {
                "write organization = \"your-organization-id\" in [velt], or name the header that \
                 carries it: organization_header in [identity]"
            }
            Source::Assertion(_) => {
                "write organization = \"your-organization-id\" in [velt], or name the claim that \
                 carries it: organization_claim in [identity.assertion]"
            }
        };
        section.complain_of_missing(
            "organization",
            "it is missing, and this API needs one",
            remedy,
        );
    }
}

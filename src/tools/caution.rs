//! Cautions about settings that are valid and may give users other rights than the operator means. `check` and
//! `doctor` tell them.

use http::HeaderName;
use server::config::Config;

use identity::Source;
use identity::assertion::ClaimPath;
use token::{Details, is_viewer_alone};

/// Parts of a token that users may write themselves, where a login service lets them: `user_metadata` of Supabase,
/// `unsafe_metadata` of Clerk.
const WRITTEN_BY_USERS: [&str; 3] = ["user_metadata", "unsafe_metadata", "unsafeMetadata"];

/// A caution about one setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caution {
    /// Setting that the caution is about.
    pub place: &'static str,
    pub what: String,
    pub remedy: &'static str,
    /// Whether the setting does harm unless another program prevents it. Else only the operator can say.
    pub is_warning: bool,
}

/// Returns the cautions about `config`.
pub fn cautions(config: &Config) -> Vec<Caution> {
    let mut cautions = Vec::from_iter(viewer_alone(config));
    match &config.identity.source {
        Source::Header(source) => {
            let headers = [
                ("identity.organization_header", &source.organization),
                ("identity.grants_header", &source.grants),
            ];
            let named = headers.into_iter().filter_map(|(key, name)| Some((key, name.as_ref()?)));
            cautions.extend(named.map(|(key, name)| unguarded(config, key, name)));
        }
        Source::Assertion(source) => {
            let claims = &source.policy.claims;
            let paths = [
                ("identity.assertion.organization_claim", &claims.organization),
                ("identity.assertion.groups_claim", &claims.groups),
                ("identity.assertion.grants_claim", &claims.grants),
            ];
            let named = paths.into_iter().filter_map(|(key, path)| Some((key, path.as_ref()?)));
            cautions.extend(named.filter_map(|(key, path)| written_by_users(key, path)));
        }
        // The app itself names the organization and the grants.
        Source::App(_) => {}
    }
    cautions
}

/// Finds a token whose only resource is an organization with the role viewer.
fn viewer_alone(config: &Config) -> Option<Caution> {
    let request = config.plan.request("canary".into(), Details::default()).ok()?;
    is_viewer_alone(&request.rights()).then(|| Caution {
        place: "velt.resource",
        what: "the token of a user without other groups or grants names an organization with the role \
               viewer and nothing else, and Velt is reported to refuse such a token at identify: \
               \"Invalid user token\""
            .into(),
        remedy: "add a folder or document that every user may see, or leave the role to Velt's default",
        is_warning: true,
    })
}

/// Tells of a header that decides about rights and that the login proxy may let through from a client.
fn unguarded(config: &Config, place: &'static str, name: &HeaderName) -> Caution {
    let written = |key: &str| {
        let mut settings = config.effective.iter();
        settings.find(|it| it.header == "[identity]" && it.key == key).map(|it| it.value.as_str())
    };
    let is_reckless = written("dangerously_trust_every_peer") == Some("true");
    let why = match written("preset") {
        _ if is_reckless => "any client that reaches this port can set it".to_owned(),
        Some(preset) => {
            format!("the front of preset {preset} neither sets nor removes it by itself")
        }
        None => "the sidecar can't tell whether the login proxy sets it or lets a client's through"
            .to_owned(),
    };
    Caution {
        place,
        what: format!(
            "{name} decides about rights (an organization makes the user its member): {why}"
        ),
        remedy: "have the login proxy set or remove this header in every request (docs/fronts/README.md), \
                 or take it from a signed assertion",
        is_warning: is_reckless || written("preset").is_some(),
    }
}

/// Tells of a claim that decides about rights and that users may write themselves.
fn written_by_users(place: &'static str, path: &ClaimPath) -> Option<Caution> {
    let path = path.to_string();
    let first = path.split('.').next().unwrap_or_default();
    WRITTEN_BY_USERS.contains(&first).then(|| Caution {
        place,
        what: format!("{path} decides about rights, and users may write {first} themselves"),
        remedy: "name a claim that only your server writes, such as one below app_metadata or \
                 public_metadata",
        is_warning: true,
    })
}

//! Rights that a token would carry, in words: kinds and counts, and the settings that gave them. Ids are left
//! out, because ids of folders and documents may name people.

use super::super::error::NoGrants;
use super::words::step;
use super::{Key, Step};
use ground::grants::ResourceKind;
use identity::{Identity, Reads};
use token::velt::Api;
use token::{GrantedBy, MintPlan, MintRequest, Right, is_viewer_alone};

/// Describes the rights in `request`. Returns `None` where every token has its user's organization alone.
pub(super) fn of_rights(
    identity: &Identity,
    plan: &MintPlan,
    request: &MintRequest,
) -> Option<Step> {
    let rights = request.rights();
    let by = |source| rights.iter().filter(move |right| right.by == source).count();
    let (resources, given) = (plan.issuer().resources.len(), by(GrantedBy::User));
    let (place, told) = (identity.asks_for_grants(), identity.details_source().is_some());
    if plan.issuer().api != Api::V2 || (resources == 0 && place.is_none() && !told) {
        return None;
    }
    let mut why = Vec::new();
    if by(GrantedBy::Organization) > 0 {
        why.push("the user's organization".to_owned());
    }
    let mut settings = Vec::new();
    if resources > 0 {
        let own = by(GrantedBy::Configuration);
        why.push(format!("{own} of {resources} from [[velt.resource]]"));
        settings.push(Key::Resources);
    }
    let by_group = plan.issuer().resources.iter().any(|resource| resource.groups.is_some());
    if by_group {
        settings.push(Key::Named(groups_setting(identity)));
    }
    match (&place, told) {
        (Some(place), false) => why.push(format!("{given} from {place}")),
        (Some(place), true) => why.push(format!("{given} from {place} or the app's details")),
        (None, true) => why.push(format!("{given} from the app's details")),
        (None, false) => {}
    }
    if place.is_some() {
        settings.push(Key::Named(grants_setting(identity)));
    }
    if told {
        settings.push(Key::Named("identity.details_path"));
    }
    let mut why = why.join(", ");
    if is_viewer_alone(&rights) {
        why += "; the only resource is an organization with the role viewer, and Velt is reported to \
                refuse such a token at identify (\"Invalid user token\")";
    }
    Some(Step { name: "rights", verdict: counted(&rights), why, settings })
}

/// Writes rights as counts of kinds: `1 organization, 2 folders`.
fn counted(rights: &[Right<'_>]) -> String {
    let kinds = [ResourceKind::Organization, ResourceKind::Folder, ResourceKind::Document];
    let counts = kinds.into_iter().filter_map(|kind| {
        let count = rights.iter().filter(|right| right.kind == kind).count();
        let plural = if count == 1 { "" } else { "s" };
        (count > 0).then(|| format!("{count} {}{plural}", kind.as_str()))
    });
    counts.collect::<Vec<_>>().join(", ")
}

pub(super) fn of_no_grants(identity: &Identity, reason: NoGrants) -> Step {
    let (why, setting) = match reason {
        NoGrants::Unusable(error) => {
            let place = identity.asks_for_grants().unwrap_or_default();
            (format!("the grants in {place} can't be used: {error}"), grants_setting(identity))
        }
        NoGrants::Groups => ("the user's groups can't be used".into(), groups_setting(identity)),
        NoGrants::Contradiction => {
            let why = "the token would name a resource twice, with different roles or ends";
            let setting = match identity.asks_for_grants() {
                Some(_) => grants_setting(identity),
                None => groups_setting(identity),
            };
            (why.into(), setting)
        }
        NoGrants::Unsent => {
            let why = "the app's answer has resources, which the chosen API does not send";
            (why.into(), "velt.api")
        }
    };
    let mut step = step("token", "none", why, &[setting]);
    if reason == NoGrants::Contradiction {
        step.settings.insert(0, Key::Resources);
    }
    step
}

fn grants_setting(identity: &Identity) -> &'static str {
    match identity.reads() {
        Reads::Header(_) | Reads::App(_) => "identity.grants_header",
        Reads::Assertion(_) => "identity.assertion.grants_claim",
    }
}

fn groups_setting(identity: &Identity) -> &'static str {
    match identity.reads() {
        Reads::Header(_) | Reads::App(_) => "identity.groups_header",
        Reads::Assertion(_) => "identity.assertion.groups_claim",
    }
}

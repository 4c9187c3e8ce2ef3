//! Grants of a user, for any text of a login proxy, and the rights that they become in a token.
//!
//! The whole input is the text.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use ground::grants::{Grant, Grants, GrantsError, MAX_GRANTS, MAX_GRANTS_BYTES, ResourceKind};
use ground::groups::GroupSet;
use serde_json::{Value, json};
use token::velt::Api;
use token::{Details, Issuer, MintPlan, Resource, Rights};

const OWN: &str = "acme";

/// # Panics
///
/// Panics if a grant is read that the text does not have, if one of the text's is left out, or if a token would
/// name a resource twice.
pub fn check(input: &[u8]) {
    let grants = match Grants::parse(input) {
        Ok(grants) => grants,
        Err(error) => {
            assert_eq!(error == GrantsError::TooLong, input.len() > MAX_GRANTS_BYTES);
            return;
        }
    };
    let json: Value = serde_json::from_slice(input).expect("JSON");
    let list = json.get("resources").unwrap_or(&json).as_array().expect("a list").clone();
    assert!(list.len() <= MAX_GRANTS);
    let elements: BTreeSet<String> = list.iter().map(canonical).collect();
    let read: Vec<String> = grants.iter().map(|grant| canonical(&written(grant))).collect();
    assert_eq!(read.iter().cloned().collect::<BTreeSet<_>>(), elements);
    assert_eq!(read.len(), elements.len(), "duplicates collapse");
    for grant in grants.iter() {
        let texts = [Some(&grant.id), grant.organization.as_ref()].into_iter().flatten();
        for text in texts {
            assert!(!text.trim().is_empty() && !text.chars().any(char::is_control));
        }
    }
    let mut again: Vec<Value> = grants.iter().map(written).chain(list).collect();
    again.reverse();
    if again.len() <= MAX_GRANTS {
        assert!(Grants::from_json(&again.into()).is_ok_and(|again| again == grants));
    }
    check_token(&grants);
}

/// Writes a grant in Velt's schema.
fn written(grant: &Grant) -> Value {
    json!({
        "type": grant.kind.as_str(),
        "id": grant.id,
        "organizationId": grant.organization,
        "accessRole": grant.role.map(ground::grants::AccessRole::as_str),
        "expiresAt": grant.expires_at,
    })
}

/// Writes an element so that elements of the same meaning are the same text.
fn canonical(element: &Value) -> String {
    let of = |key: &str| element.get(key).cloned().unwrap_or_default();
    let organization = of("organizationId");
    let is_organization = of("type") == "organization";
    let organization = if is_organization { Value::Null } else { organization };
    json!([of("type"), of("id"), organization, of("accessRole"), of("expiresAt")]).to_string()
}

/// Checks that a token with these grants names each resource once, and the user's organization first.
fn check_token(grants: &Grants) {
    let rights = Rights::new(GroupSet::default(), Some(grants));
    let Ok(request) = PLAN.request_with("ada".into(), Details::default(), rights) else { return };
    let rights = request.rights();
    let resources: BTreeSet<_> =
        rights.iter().map(|right| (right.kind, right.id, right.organization)).collect();
    assert_eq!(resources.len(), rights.len(), "each once");
    assert!(rights[0].kind == ResourceKind::Organization && rights[0].id == OWN);
    for right in &rights {
        let is_organization = right.kind == ResourceKind::Organization;
        assert_eq!(right.organization.is_none(), is_organization);
    }
    for grant in grants.iter() {
        let is_there = rights.iter().any(|right| {
            let organization = grant.organization.as_deref().unwrap_or(OWN);
            (right.kind, right.id, right.role) == (grant.kind, &*grant.id, grant.role)
                && right.organization.is_none_or(|it| it == organization)
        });
        assert!(is_there, "no grant is lost");
    }
}

static PLAN: LazyLock<MintPlan> = LazyLock::new(|| {
    let folder = Resource {
        kind: ResourceKind::Folder,
        id: "f".into(),
        organization: None,
        role: None,
        expires_in: None,
        groups: None,
    };
    let issuer = Issuer {
        api: Api::V2,
        endpoint: "https://velt".into(),
        credentials_generation: 0,
        organization: Some(OWN.into()),
        resources: [folder].into(),
    };
    MintPlan::new(issuer, true)
});

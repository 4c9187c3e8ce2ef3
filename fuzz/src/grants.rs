//! Grants that a JSON text gives, for any text.

use ground::grants::{Grants, GrantsError, MAX_GRANTS, MAX_GRANTS_BYTES, ResourceKind};
use serde_json::Value;

/// # Panics
///
/// Panics if a text gives a grant that does not stand in it, or if the order of grants matters.
pub fn check(input: &[u8]) {
    let parsed = Grants::parse(input);
    let Ok(grants) = parsed else {
        let long = input.len() > MAX_GRANTS_BYTES;
        assert_eq!(matches!(parsed.err(), Some(GrantsError::TooLong)), long);
        return;
    };
    let json: Value = serde_json::from_slice(input).expect("it was read once");
    let list = json.get("resources").unwrap_or(&json).as_array().expect("a list").clone();
    assert!(grants.iter().count() <= list.len().min(MAX_GRANTS));
    for grant in grants.iter() {
        let kind = match grant.kind {
            ResourceKind::Organization => "organization",
            ResourceKind::Folder => "folder",
            ResourceKind::Document => "document",
        };
        let stands = |one: &&Value| one["type"] == kind && one["id"] == *grant.id;
        let found = list.iter().find(stands).expect("the grant stands in the text");
        let end = found.get("expiresAt").filter(|end| !end.is_null());
        assert!(grant.expires_at.is_some() || end.is_none() || list.len() > 1, "an end is lost");
        assert!(!grant.id.trim().is_empty() && grant.id.len() <= 256);
    }
    let turned: Vec<Value> = list.into_iter().rev().collect();
    let turned = Value::from([turned.clone(), turned].concat());
    if turned.as_array().is_some_and(|list| list.len() <= MAX_GRANTS) {
        let again = Grants::from_json(&turned).unwrap_or_else(|error| panic!("turned: {error}"));
        assert!(again == grants, "order and duplicates do not matter");
    }
}

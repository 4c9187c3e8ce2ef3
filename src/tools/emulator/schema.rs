//! Rules on requests that Velt documents, each refused with a message that names the field.
//!
//! Sources: docs.velt.dev, REST API v2 "Generate Token", and the data model `VeltAuthTokenRequest`. Velt's own
//! messages are not documented, so these are the emulator's.

use std::borrow::Cow;

use http::StatusCode;
use serde_json::Value;

use super::unix_seconds;

/// An error in Velt's envelope.
#[derive(Debug)]
pub(super) struct VeltError {
    pub(super) http_status: StatusCode,
    pub(super) status: &'static str,
    pub(super) message: Cow<'static, str>,
}

pub(super) fn invalid(message: impl Into<Cow<'static, str>>) -> VeltError {
    let message = message.into();
    VeltError { http_status: StatusCode::BAD_REQUEST, status: "INVALID_ARGUMENT", message }
}

/// Unwraps the documented envelope of a request; a body without it is INVALID_ARGUMENT.
pub(super) fn data_of(body: &[u8]) -> Result<Value, VeltError> {
    let mut body: Value =
        serde_json::from_slice(body).map_err(|_| invalid("The body is not JSON."))?;
    match body.get_mut("data").map(Value::take) {
        Some(data @ Value::Object(_)) => Ok(data),
        _ => Err(invalid("The body must be wrapped in data.")),
    }
}

pub(super) fn user_id(data: &Value) -> Result<String, VeltError> {
    let id = filled(&data["userId"]);
    id.map(str::to_owned).ok_or(invalid("userId must be a text that is not blank."))
}

/// Checks what `userProperties` may hold in every API.
pub(super) fn check_properties(properties: &Value) -> Result<(), VeltError> {
    if !properties.is_null() && !properties.is_object() {
        return Err(invalid("userProperties must be an object."));
    }
    for key in ["name", "email", "organizationId"] {
        if !properties[key].is_null() && filled(&properties[key]).is_none() {
            let message = format!("userProperties.{key} must be a text that is not blank.");
            return Err(invalid(message));
        }
    }
    if properties["email"].as_str().is_some_and(|email| !email.contains('@')) {
        return Err(invalid("userProperties.email is not an email address."));
    }
    if !properties["isAdmin"].is_null() && !properties["isAdmin"].is_boolean() {
        return Err(invalid("userProperties.isAdmin must be true or false."));
    }
    Ok(())
}

/// Checks the resources of a v2 request, and returns them.
pub(super) fn check_resources(data: &Value) -> Result<&Vec<Value>, VeltError> {
    let resources = data["permissions"]["resources"].as_array();
    let resources = resources.ok_or(invalid("permissions.resources must be a list."))?;
    for (position, resource) in resources.iter().enumerate() {
        check_resource(resource).map_err(|(field, rule)| {
            invalid(format!("permissions.resources[{position}].{field} {rule}."))
        })?;
    }
    Ok(resources)
}

/// Returns the first field that breaks a rule, and the rule.
fn check_resource(resource: &Value) -> Result<(), (&'static str, &'static str)> {
    const TEXT: &str = "must be a text that is not blank";
    let needs_organization = match resource["type"].as_str() {
        Some("organization") => false,
        Some("folder" | "document") => true,
        _ => return Err(("type", "must be organization, folder or document")),
    };
    filled(&resource["id"]).ok_or(("id", TEXT))?;
    let organization = &resource["organizationId"];
    if organization.is_null() && needs_organization {
        return Err(("organizationId", "is required for a folder or document"));
    }
    if !organization.is_null() && filled(organization).is_none() {
        return Err(("organizationId", TEXT));
    }
    let role = &resource["accessRole"];
    if !role.is_null() && role != "viewer" && role != "editor" {
        return Err(("accessRole", "must be viewer or editor"));
    }
    let expires_at = &resource["expiresAt"];
    match expires_at.as_u64() {
        None if expires_at.is_null() => Ok(()),
        Some(end) if end > unix_seconds() => Ok(()),
        Some(1..) => Err(("expiresAt", "is in the past")),
        _ => Err(("expiresAt", "must be a positive whole number of seconds")),
    }
}

/// Whether these resources are an organization with the role viewer and nothing else. Velt's demo for a customer
/// (velt-js/velt-agent-comments-demo) reports that identify refuses such a token with "Invalid user token".
pub(super) fn is_viewer_alone(resources: &Value) -> bool {
    let Some([only]) = resources.as_array().map(Vec::as_slice) else { return false };
    only["type"] == "organization" && only["accessRole"] == "viewer"
}

pub(super) fn filled(value: &Value) -> Option<&str> {
    value.as_str().filter(|text| !text.trim().is_empty())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn message(resource: &Value) -> Option<String> {
        let data = json!({ "permissions": { "resources": [{
            "type": "organization", "id": "o",
        }, resource] } });
        check_resources(&data).err().map(|error| error.message.into_owned())
    }

    #[test]
    fn broken_rule_is_told_with_its_field() {
        let folder = |key: &str, value: Value| {
            let mut folder = json!({ "type": "folder", "id": "f", "organizationId": "o" });
            folder[key] = value;
            message(&folder)
        };
        assert_eq!(folder("accessRole", json!("viewer")), None);
        assert_eq!(folder("expiresAt", json!(4_000_000_000_u64)), None);
        for (key, value, rule) in [
            ("type", json!("page"), "type must be organization, folder or document"),
            ("type", json!(null), "type must be organization, folder or document"),
            ("id", json!(" "), "id must be a text that is not blank"),
            ("id", json!(7), "id must be a text that is not blank"),
            ("organizationId", json!(null), "organizationId is required for a folder or document"),
            ("organizationId", json!(""), "organizationId must be a text that is not blank"),
            ("accessRole", json!("owner"), "accessRole must be viewer or editor"),
            ("expiresAt", json!(5), "expiresAt is in the past"),
            ("expiresAt", json!(0), "expiresAt must be a positive whole number of seconds"),
            ("expiresAt", json!(-1), "expiresAt must be a positive whole number of seconds"),
            ("expiresAt", json!("1"), "expiresAt must be a positive whole number of seconds"),
            ("expiresAt", json!(4e9), "expiresAt must be a positive whole number of seconds"),
        ] {
            let expected = format!("permissions.resources[1].{rule}.");
            assert_eq!(folder(key, value.clone()), Some(expected), "{key} {value}");
        }
        let data = json!({ "permissions": {} });
        let error = check_resources(&data).expect_err("no list");
        assert_eq!(error.message, "permissions.resources must be a list.");
    }

    #[test]
    fn organization_as_viewer_alone_is_found() {
        let viewer = json!({ "type": "organization", "id": "o", "accessRole": "viewer" });
        let folder = json!({ "type": "folder", "id": "f", "organizationId": "o" });
        assert!(is_viewer_alone(&json!([viewer])));
        for other in [
            json!([viewer, folder]),
            json!([{ "type": "organization", "id": "o" }]),
            json!([{ "type": "folder", "id": "f", "accessRole": "viewer" }]),
            json!([]),
            json!(null),
        ] {
            assert!(!is_viewer_alone(&other), "{other}");
        }
    }
}

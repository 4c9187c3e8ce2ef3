//! Grants: rights on an organization, a folder or a document, as Velt's tokens carry them.
//!
//! A list of grants is read once, checked as a whole and put into one order, so that equal rights are equal
//! values: order does not matter, duplicates collapse, and a list that contradicts itself is refused.

use std::fmt;
use std::sync::Arc;

use serde_json::{Map, Value};

use crate::json;

/// Most grants that are read for one user.
pub const MAX_GRANTS: usize = 64;

/// Largest JSON text of grants, in bytes, and largest sum of the texts in them where the JSON was read with other
/// things: in an assertion, in an answer of the app.
pub const MAX_GRANTS_BYTES: usize = 8 * 1024;

/// End of the range of `expiresAt`: the year 10000. Milliseconds in the place of seconds, as other APIs of
/// Velt's have them, would be later and make a grant last for ever.
const END_OF_TIME: u64 = 253_402_300_800;

/// Longest id of a resource, in bytes.
const MAX_ID_BYTES: usize = 256;

/// Kind of resource on which a grant gives rights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResourceKind {
    Organization,
    Folder,
    Document,
}

/// Access that a grant gives. Velt's default is editor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AccessRole {
    Viewer,
    Editor,
}

/// Right of one user on one resource
/// (docs.velt.dev, REST API v2, "Generate Token", `permissions.resources`). Has no `Debug`, because ids of
/// resources may name people.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Grant {
    pub kind: ResourceKind,
    pub id: Box<str>,
    /// Organization to which a folder or document belongs; `None` means the user's own.
    pub organization: Option<Box<str>>,
    pub role: Option<AccessRole>,
    /// End of the grant in seconds since 1970.
    pub expires_at: Option<u64>,
}

/// Grants of one user, in one order and without duplicates. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Grants(Arc<[Grant]>);

/// Reason why a list of grants can't be used. No grant of such a list counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GrantsError {
    /// There is no list, not even an empty one.
    Absent,
    /// The JSON text, or the texts in it together, are longer than [`MAX_GRANTS_BYTES`].
    TooLong,
    /// There are more than [`MAX_GRANTS`].
    TooMany,
    /// The text is no JSON, or an object in it has a name twice.
    NotJson,
    /// The JSON is no list of resources in Velt's schema.
    WrongForm,
    /// Two grants give different rights on the same resource.
    Contradiction,
}

impl ResourceKind {
    /// Returns the word in Velt's schema.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Organization => "organization",
            Self::Folder => "folder",
            Self::Document => "document",
        }
    }
}

impl AccessRole {
    /// Returns the word in Velt's schema.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Editor => "editor",
        }
    }
}

impl fmt::Display for GrantsError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Absent => "there are none, not even an empty list",
            Self::TooLong => "they are longer than 8 KiB",
            Self::TooMany => "there are more than 64",
            Self::NotJson => "they are no JSON, or name something twice",
            Self::WrongForm => "they are no list of resources as Velt's documents have it",
            Self::Contradiction => "two of them give different rights on the same resource",
        })
    }
}

impl Grants {
    /// Reads a JSON text: an array of resources in Velt's schema, or an object with this array in `resources`.
    ///
    /// # Errors
    ///
    /// The first fault found. No grant of a list with a fault counts.
    pub fn parse(text: &[u8]) -> Result<Self, GrantsError> {
        if text.len() > MAX_GRANTS_BYTES {
            return Err(GrantsError::TooLong);
        }
        let json = json::value(text).ok_or(GrantsError::NotJson)?;
        Self::from_list_or_object(&json)
    }

    /// Reads JSON that was parsed already, in either of the forms of [`Self::parse`].
    ///
    /// # Errors
    ///
    /// See [`Self::parse`].
    pub fn from_list_or_object(json: &Value) -> Result<Self, GrantsError> {
        match json {
            Value::Object(object) => {
                let resources = object.get("resources").filter(|_| object.len() == 1);
                Self::from_json(resources.ok_or(GrantsError::WrongForm)?)
            }
            array => Self::from_json(array),
        }
    }

    /// Reads an array of resources in Velt's schema.
    ///
    /// # Errors
    ///
    /// See [`Grants::parse`].
    pub fn from_json(json: &Value) -> Result<Self, GrantsError> {
        let array = json.as_array().ok_or(GrantsError::WrongForm)?;
        if array.len() > MAX_GRANTS {
            return Err(GrantsError::TooMany);
        }
        let grants: Option<Vec<Grant>> = array.iter().map(Grant::from_json).collect();
        Self::new(grants.ok_or(GrantsError::WrongForm)?)
    }

    /// Puts grants into their order.
    ///
    /// # Errors
    ///
    /// If there are too many, if their texts are too long, or if two contradict each other.
    pub fn new(mut grants: Vec<Grant>) -> Result<Self, GrantsError> {
        grants.sort_unstable();
        grants.dedup();
        if grants.len() > MAX_GRANTS {
            return Err(GrantsError::TooMany);
        }
        if grants.iter().map(Grant::text_bytes).sum::<usize>() > MAX_GRANTS_BYTES {
            return Err(GrantsError::TooLong);
        }
        let contradict = |pair: &[Grant]| pair[0].resource() == pair[1].resource();
        if grants.windows(2).any(contradict) {
            return Err(GrantsError::Contradiction);
        }
        Ok(Self(grants.into()))
    }

    /// Returns the grants in their order.
    pub fn iter(&self) -> impl Iterator<Item = &Grant> {
        self.0.iter()
    }

    /// Whether there is no grant.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the memory of the grants, in bytes.
    pub fn bytes(&self) -> usize {
        self.iter().map(Grant::text_bytes).sum::<usize>() + size_of_val(&*self.0)
    }
}

impl Grant {
    /// Whether the grant is on this organization, or on a resource that names it. A resource without an
    /// organization is in the user's own.
    pub fn is_in(&self, organization: &str) -> bool {
        match self.kind {
            ResourceKind::Organization => *self.id == *organization,
            ResourceKind::Folder | ResourceKind::Document => {
                self.organization.as_deref() == Some(organization)
            }
        }
    }

    /// Returns the length of the texts, in bytes.
    fn text_bytes(&self) -> usize {
        self.id.len() + self.organization.as_ref().map_or(0, |organization| organization.len())
    }

    /// Returns what the grant is for, without the rights that it gives.
    fn resource(&self) -> (ResourceKind, &str, Option<&str>) {
        (self.kind, &self.id, self.organization.as_deref())
    }

    fn from_json(json: &Value) -> Option<Self> {
        const KEYS: [&str; 5] = ["type", "id", "organizationId", "accessRole", "expiresAt"];
        let object = json.as_object()?;
        // A right that is not understood must not be widened by leaving it out.
        if !object.keys().all(|key| KEYS.contains(&key.as_str())) {
            return None;
        }
        let kind = match text(object, "type")?? {
            "organization" => ResourceKind::Organization,
            "folder" => ResourceKind::Folder,
            "document" => ResourceKind::Document,
            _ => return None,
        };
        let id = text(object, "id")??;
        let organization = text(object, "organizationId")?;
        let role = match text(object, "accessRole")? {
            None => None,
            Some("viewer") => Some(AccessRole::Viewer),
            Some("editor") => Some(AccessRole::Editor),
            Some(_) => return None,
        };
        let expires_at = match object.get("expiresAt") {
            None | Some(Value::Null) => None,
            Some(seconds) => Some(seconds.as_u64().filter(|it| (1..END_OF_TIME).contains(it))?),
        };
        if kind == ResourceKind::Organization && organization.is_some_and(|named| named != id) {
            return None;
        }
        let organization = organization.filter(|_| kind != ResourceKind::Organization);
        Some(Self {
            kind,
            id: id.into(),
            organization: organization.map(Box::from),
            role,
            expires_at,
        })
    }
}

/// Reads a text that Velt takes: not blank, without control characters, of at most [`MAX_ID_BYTES`].
/// `None` if the value is no such text, `Some(None)` if there is no value.
#[allow(clippy::option_option, reason = "a value that is absent, and one that is wrong")]
fn text<'a>(object: &'a Map<String, Value>, key: &str) -> Option<Option<&'a str>> {
    match object.get(key) {
        None | Some(Value::Null) => Some(None),
        Some(Value::String(text)) => {
            let legal = text.trim() == text
                && (1..=MAX_ID_BYTES).contains(&text.len())
                && !text.chars().any(char::is_control);
            legal.then_some(Some(text))
        }
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Grants, GrantsError> {
        Grants::parse(text.as_bytes())
    }

    #[test]
    fn order_and_duplicates_do_not_matter() {
        let one = r#"[{"type":"folder","id":"f","accessRole":"viewer"},{"type":"organization","id":"o"}]"#;
        let other = r#"{"resources":[{"id":"o","type":"organization","organizationId":"o"},
            {"type":"folder","id":"f","accessRole":"viewer"},
            {"type":"folder","id":"f","accessRole":"viewer","organizationId":null}]}"#;
        assert!(parse(one).expect("grants") == parse(other).expect("grants"));
    }

    #[test]
    fn faulty_lists_are_refused_as_a_whole() {
        let good = r#"{"type":"document","id":"d"}"#;
        let list = |more: &str| parse(&format!("[{good},{more}]")).err();
        for (more, error) in [
            (r#"{"type":"document","id":"d","accessRole":"viewer"}"#, GrantsError::Contradiction),
            (r#"{"type":"document","id":"d","expiresAt":5}"#, GrantsError::Contradiction),
            (r#"{"type":"document"}"#, GrantsError::WrongForm),
            (r#"{"type":"document","id":""}"#, GrantsError::WrongForm),
            (r#"{"type":"document","id":" e"}"#, GrantsError::WrongForm),
            (r#"{"type":"document","id":7}"#, GrantsError::WrongForm),
            (r#"{"type":"workspace","id":"e"}"#, GrantsError::WrongForm),
            (r#"{"type":"document","id":"e","accessRole":"owner"}"#, GrantsError::WrongForm),
            (r#"{"type":"document","id":"e","accessrole":"viewer"}"#, GrantsError::WrongForm),
            (r#"{"type":"document","id":"e","expiresAt":"soon"}"#, GrantsError::WrongForm),
            (r#"{"type":"document","id":"e","expiresAt":1796000000000}"#, GrantsError::WrongForm),
            (r#"{"type":"organization","id":"e","organizationId":"f"}"#, GrantsError::WrongForm),
            (r#"{"type":"document","id":"e","id":"f"}"#, GrantsError::NotJson),
            ("null", GrantsError::WrongForm),
            ("", GrantsError::NotJson),
        ] {
            assert_eq!(list(more), Some(error), "{more}");
        }
        assert_eq!(parse("7").err(), Some(GrantsError::WrongForm));
        assert_eq!(parse(r#"{"resources":[],"more":1}"#).err(), Some(GrantsError::WrongForm));
        assert_eq!(parse(&" ".repeat(MAX_GRANTS_BYTES + 1)).err(), Some(GrantsError::TooLong));
        let many = vec![good; MAX_GRANTS + 1].join(",");
        assert_eq!(parse(&format!("[{many}]")).err(), Some(GrantsError::TooMany));
        assert!(parse("[]").is_ok());
    }

    #[test]
    fn t67_grants_read_with_other_things_have_the_same_bound() {
        let list = |count: usize, organization: &str| {
            let id = |index: usize| format!("{index:0>256}");
            (0..count)
                .map(|index| {
                    serde_json::json!({ "type": "folder", "id": id(index), "organizationId": organization })
                })
                .collect::<Value>()
        };
        let error = |list: &Value| Grants::from_json(list).err();
        assert_eq!(error(&list(31, "acme")), None, "31 * 260 bytes");
        assert_eq!(error(&list(32, "acme")), Some(GrantsError::TooLong), "32 * 260 bytes");
        assert_eq!(error(&list(16, &"o".repeat(256))), None, "8192 bytes");
        assert_eq!(error(&list(17, &"o".repeat(256))), Some(GrantsError::TooLong));
    }
}

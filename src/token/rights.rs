//! Rights of one token: the resources that a mint names, which come from the user's organization, from the
//! configuration, and from the source of the user's identity.

use std::collections::HashSet;
use std::time::Duration;

use super::MintRequest;
use super::request::Resource;
use ground::grants::{AccessRole, Grant, Grants, ResourceKind};
use ground::groups::GroupSet;

/// Rights of a user beside the rights that all users have.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Rights {
    /// Groups of the user, which decide about resources of the configuration.
    pub(super) groups: GroupSet,
    /// Grants of the user alone. `None` instead of an empty list, or equal requests could differ.
    pub(super) grants: Option<Grants>,
}

impl Rights {
    /// Makes the rights of a user in `groups`, with `grants` of their own.
    pub fn new(groups: GroupSet, grants: Option<&Grants>) -> Self {
        Self { groups, grants: grants.filter(|grants| !grants.is_empty()).cloned() }
    }

    /// Whether the user has no rights beside the rights that all users have.
    pub(super) fn are_common(&self) -> bool {
        self.groups.is_empty() && self.grants.is_none()
    }

    /// Returns the memory of the grants, in bytes.
    pub(super) fn owned_bytes(&self) -> usize {
        self.grants.as_ref().map_or(0, Grants::bytes)
    }
}

/// A resource as a token names it. Has no `Debug`, because ids of resources may name people.
#[derive(Clone, Copy)]
pub struct Right<'a> {
    pub kind: ResourceKind,
    pub id: &'a str,
    /// Organization of a folder or document; `None` for an organization.
    pub organization: Option<&'a str>,
    pub role: Option<AccessRole>,
    pub end: Option<End>,
    pub by: GrantedBy,
}

impl Right<'_> {
    /// Whether the right is on this organization, or on a resource in it.
    pub fn is_in(&self, organization: &str) -> bool {
        match self.kind {
            ResourceKind::Organization => self.id == organization,
            ResourceKind::Folder | ResourceKind::Document => {
                self.organization == Some(organization)
            }
        }
    }
}

/// End of a right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum End {
    /// Time from the mint.
    In(Duration),
    /// Seconds since 1970.
    At(u64),
}

/// Source of a right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GrantedBy {
    /// The user's organization: its members reach the organization itself.
    Organization,
    /// A resource of the configuration.
    Configuration,
    /// A grant of the user alone.
    User,
}

impl<'a> Right<'a> {
    fn of_organization(id: &'a str) -> Self {
        Self {
            kind: ResourceKind::Organization,
            id,
            organization: None,
            role: None,
            end: None,
            by: GrantedBy::Organization,
        }
    }

    fn of_resource(resource: &'a Resource, own: Option<&'a str>) -> Self {
        Self {
            kind: resource.kind,
            id: &resource.id,
            organization: place(resource.kind, resource.organization.as_deref(), own),
            role: resource.role,
            end: resource.expires_in.map(End::In),
            by: GrantedBy::Configuration,
        }
    }

    fn of_grant(grant: &'a Grant, own: Option<&'a str>) -> Self {
        Self {
            kind: grant.kind,
            id: &grant.id,
            organization: place(grant.kind, grant.organization.as_deref(), own),
            role: grant.role,
            end: grant.expires_at.map(End::At),
            by: GrantedBy::User,
        }
    }

    /// Returns what the right is for, without what it allows.
    fn resource(&self) -> (ResourceKind, &'a str, Option<&'a str>) {
        (self.kind, self.id, self.organization)
    }

    /// Returns what the right allows.
    fn extent(&self) -> (Option<AccessRole>, Option<End>) {
        (self.role, self.end)
    }
}

/// Whether a token with these rights names an organization with the role viewer and nothing else. Velt's SDK is
/// reported to refuse such a token at identify (velt-js/velt-agent-comments-demo: "Invalid user token").
pub fn is_viewer_alone(rights: &[Right<'_>]) -> bool {
    let [only] = rights else { return false };
    only.kind == ResourceKind::Organization && only.role == Some(AccessRole::Viewer)
}

/// Returns the organization of a resource: the organization that is named, else the user's `own`.
fn place<'a>(kind: ResourceKind, named: Option<&'a str>, own: Option<&'a str>) -> Option<&'a str> {
    named.or(own).filter(|_| kind != ResourceKind::Organization)
}

impl MintRequest {
    /// Returns the resources that the token names, each once: the user's organization, then the resources of
    /// the configuration, then the user's own grants. A resource or grant that names the user's organization
    /// stands in its place, with the role given there.
    pub fn rights(&self) -> Vec<Right<'_>> {
        let (own, Rights { groups, grants }) = (self.organization(), self.own_rights());
        let configured = self.issuer().resources.iter().filter(|it| it.applies_to(*groups));
        let configured = configured.map(|resource| Right::of_resource(resource, own));
        let given = grants.iter().flat_map(Grants::iter).map(|grant| Right::of_grant(grant, own));
        let mut rights: Vec<Right<'_>> = configured.chain(given).collect();
        if let Some(own) = own {
            let is_own =
                |right: &Right<'_>| right.kind == ResourceKind::Organization && right.id == own;
            match rights.iter().position(is_own) {
                Some(position) => rights[..=position].rotate_right(1),
                None => rights.insert(0, Right::of_organization(own)),
            }
        }
        let mut seen = HashSet::new();
        rights.retain(|right| seen.insert((right.resource(), right.extent())));
        rights
    }

    /// Whether two resources of the token are the same with different rights.
    pub(super) fn contradicts_itself(&self) -> bool {
        let rights = self.rights();
        // Equal rights were collapsed, so that a resource that is there twice has different rights.
        let mut seen = HashSet::new();
        !rights.iter().all(|right| seen.insert(right.resource()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::velt::Api;
    use crate::{Details, Issuer, MintPlan, Unplanned};
    use ground::groups::KnownGroups;

    const OWN: &str = "acme";

    fn folder(id: &str) -> Resource {
        Resource {
            kind: ResourceKind::Folder,
            id: id.into(),
            organization: None,
            role: None,
            expires_in: None,
            groups: None,
        }
    }

    fn request(resources: &[Resource], rights: Rights) -> Result<MintRequest, Unplanned> {
        let issuer = Issuer {
            api: Api::V2,
            endpoint: "https://velt".into(),
            credentials_generation: 0,
            organization: Some(OWN.into()),
            resources: resources.into(),
        };
        MintPlan::new(issuer, true).request_with("ada".into(), Details::default(), rights)
    }

    fn given(json: &str) -> Rights {
        let grants = Grants::parse(json.as_bytes()).expect("grants");
        Rights::new(GroupSet::default(), Some(&grants))
    }

    fn shown(request: &MintRequest) -> Vec<String> {
        let role = |right: &Right<'_>| right.role.map_or("", AccessRole::as_str);
        let rights = request.rights();
        let line = |right: &Right<'_>| {
            let place = right.organization.unwrap_or("-");
            format!("{} {} {place} {}", right.kind.as_str(), right.id, role(right))
        };
        rights.iter().map(|right| line(right).trim_end().to_owned()).collect()
    }

    #[test]
    fn organization_comes_first_and_duplicates_collapse() {
        let rights = given(
            r#"[{"type":"folder","id":"g","organizationId":"guest"},{"type":"folder","id":"f"},
                {"type":"organization","id":"guest","accessRole":"viewer"}]"#,
        );
        let request = request(&[folder("f"), folder("h")], rights).expect("a request");
        let expected = [
            "organization acme -",
            "folder f acme",
            "folder h acme",
            "organization guest - viewer",
            "folder g guest",
        ];
        assert_eq!(shown(&request), expected);
    }

    #[test]
    fn grant_of_the_own_organization_replaces_it() {
        let rights = given(r#"[{"type":"organization","id":"acme","accessRole":"viewer"}]"#);
        let request = request(&[folder("f")], rights).expect("a request");
        assert_eq!(shown(&request), ["organization acme - viewer", "folder f acme"]);
    }

    #[test]
    fn same_resource_with_other_rights_is_a_contradiction() {
        for grant in [
            r#"[{"type":"folder","id":"f","accessRole":"viewer"}]"#,
            r#"[{"type":"folder","id":"f","organizationId":"acme","expiresAt":9}]"#,
            r#"[{"type":"folder","id":"g"},{"type":"folder","id":"g","organizationId":"acme","accessRole":"viewer"}]"#,
        ] {
            let made = request(&[folder("f")], given(grant)).err();
            assert_eq!(made, Some(Unplanned::Contradiction), "{grant}");
        }
        let elsewhere =
            r#"[{"type":"folder","id":"f","organizationId":"b","accessRole":"viewer"}]"#;
        assert!(request(&[folder("f")], given(elsewhere)).is_ok());
        let viewer = Resource { role: Some(AccessRole::Viewer), ..folder("f") };
        let named = Resource { organization: Some(OWN.into()), ..folder("f") };
        assert!(request(&[folder("f"), viewer.clone()], Rights::default()).is_err());
        assert!(request(&[named, viewer], Rights::default()).is_err());
    }

    #[test]
    fn group_decides_about_a_resource() {
        let known = KnownGroups::new(["editors", "staff"]).expect("two");
        let resources = [
            Resource { groups: Some(known.find("editors")), ..folder("drafts") },
            Resource { groups: Some(known.set(["editors", "staff"])), ..folder("news") },
            folder("all"),
        ];
        let of = |groups: Vec<&str>| {
            let rights = Rights::new(known.set(groups), None);
            shown(&request(&resources, rights).expect("a request")).join(", ")
        };
        let all = "organization acme -, ";
        assert_eq!(of(vec![]), format!("{all}folder all acme"));
        assert_eq!(of(vec!["staff"]), format!("{all}folder news acme, folder all acme"));
        let editors = format!("{all}folder drafts acme, folder news acme, folder all acme");
        assert_eq!(of(vec!["editors"]), editors);
    }
}

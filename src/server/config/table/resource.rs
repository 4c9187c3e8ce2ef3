//! The array of tables `velt.resource`: what tokens name beside the user's organization, and for which groups.

use super::super::reader::Section;
use super::super::setting::Span;
use ground::grants::ResourceKind;
use ground::groups::{GroupSet, KnownGroups, MAX_GROUPS};
use identity::Source;
use token::Resource;
use token::velt::Api;

/// A table as it stands in the file.
struct Table<'s, 'r, 'a> {
    section: &'s Section<'r, 'a>,
    /// The resource, without its groups.
    resource: Resource,
    groups: Option<Vec<String>>,
}

/// Reads the resources, and the groups on which they depend. `source` says whether a user's groups are known,
/// and `groups_key` is the setting that names the place of the groups.
pub fn read(
    section: &Section<'_, '_>,
    api: Api,
    source: Option<&Source>,
    groups_key: &str,
) -> (Vec<Resource>, KnownGroups) {
    let read = section.sections("resource", |sections| {
        if api != Api::V2 {
            section.complain_of_no_effect(
                "resource",
                "only the v2 API sends resources, so they have no effect",
                "remove them, or write api = \"v2\"",
            );
        }
        let tables: Vec<_> = sections.iter().filter_map(read_table).collect();
        check_source(&tables, source, groups_key);
        let known = known_groups(section, &tables);
        let resources = tables.iter().map(|table| table.resource(&known)).collect();
        check_clashes(&tables, &resources);
        (resources, known)
    });
    read.unwrap_or_default()
}

fn read_table<'s, 'r, 'a>(section: &'s Section<'r, 'a>) -> Option<Table<'s, 'r, 'a>> {
    let kind = section.required("type");
    let id = section.required("id");
    let organization = section.optional("organization");
    let role = section.optional("role");
    let expires_in = section.optional::<Span>("expires_in").map(|span| span.0);
    let groups = section.optional_list("groups");
    // Velt's own words: without such a key, the grant would be wider than the operator meant.
    for (key, ours) in
        [("organizationId", "organization"), ("accessRole", "role"), ("expiresAt", "expires_in")]
    {
        let remedy = format!("write {ours} in its place");
        section.refuse(key, "this is Velt's word, and not the setting's", &remedy);
    }
    if groups.as_ref().is_some_and(Vec::is_empty) {
        section.complain_about(
            "groups",
            "without a group in it, no user gets the resource",
            "name the groups whose members get it, or remove it to give it to all users",
        );
    }
    let resource = Resource { kind: kind?, id: id?, organization, role, expires_in, groups: None };
    Some(Table { section, resource, groups })
}

impl Table<'_, '_, '_> {
    fn resource(&self, known: &KnownGroups) -> Resource {
        let set = |groups: &Vec<String>| known.set(groups.iter().map(String::as_str));
        Resource { groups: self.groups.as_ref().map(set), ..self.resource.clone() }
    }
}

/// Complains about groups where no user's groups are known.
fn check_source(tables: &[Table<'_, '_, '_>], source: Option<&Source>, groups_key: &str) {
    if source.is_none_or(Source::names_groups) {
        return;
    }
    let named = |table: &&Table<'_, '_, '_>| table.groups.as_ref().is_some_and(|it| !it.is_empty());
    for table in tables.iter().filter(named) {
        table.section.complain_about(
            "groups",
            "no user's groups are known, so no user would get the resource",
            &format!("set {groups_key} as well, or remove it"),
        );
    }
}

fn known_groups(section: &Section<'_, '_>, tables: &[Table<'_, '_, '_>]) -> KnownGroups {
    let names = tables.iter().filter_map(|table| table.groups.as_ref()).flatten();
    let names = names.map(String::as_str);
    KnownGroups::new(names.clone()).unwrap_or_else(|too_many| {
        let remedy = format!("name at most {MAX_GROUPS} groups in all of them together");
        section.complain_about("resource", &too_many.to_string(), &remedy);
        // Some groups are known, so that no complaint says that groups of users have no effect.
        KnownGroups::new(names.take(MAX_GROUPS)).unwrap_or_default()
    })
}

/// Complains about a resource that stands there twice with different rights, if some user would get both.
fn check_clashes(tables: &[Table<'_, '_, '_>], resources: &Vec<Resource>) {
    for (n, (table, later)) in tables.iter().zip(resources).enumerate() {
        let clashes = |earlier: &Resource| {
            target(earlier) == target(later)
                && (earlier.role, earlier.expires_in) != (later.role, later.expires_in)
                && share_users(earlier.groups, later.groups)
        };
        if resources[..n].iter().any(clashes) {
            table.section.complain_about(
                "id",
                "an earlier [[velt.resource]] is the same one with another role or expires_in, and \
                 a user who got both would have no token",
                "keep one of them, or name other groups in each",
            );
        }
    }
}

/// Returns what a resource is, without the rights on it.
fn target(resource: &Resource) -> (ResourceKind, &str, Option<&str>) {
    let organization = resource.organization.as_deref();
    let organization = organization.filter(|_| resource.kind != ResourceKind::Organization);
    (resource.kind, &resource.id, organization)
}

/// Whether a user surely gets both resources: one is for all users, or both are for the same group.
fn share_users(one: Option<GroupSet>, other: Option<GroupSet>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => one.meets(other),
        _ => true,
    }
}

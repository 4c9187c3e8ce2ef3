//! Settings about the rights that tokens carry.

use super::{fine, says};

const GROUPED: &str = "[velt]\napi = \"v2\"\norganization = \"o\"\n\
    [[velt.resource]]\ntype = \"folder\"\nid = \"f\"\ngroups = [\"editors\"]";

#[test]
fn groups_of_a_resource_need_groups_of_users() {
    says(
        "groups_of_resources_alone",
        &[
            GROUPED.to_owned(),
            GROUPED.replace("[\"editors\"]", "[]"),
            format!(
                "[identity]\npreset = \"google-iap\"\n[identity.assertion]\naudience = [\"a\"]\n{GROUPED}"
            ),
        ],
    );
    let config = fine(&format!("[identity]\ngroups_header = \"X-G\"\n{GROUPED}"), &[]);
    assert!(config.identity.source.names_groups());
}

#[test]
fn words_of_velt_are_answered_with_the_settings() {
    let resource = "[velt]\napi = \"v2\"\norganization = \"o\"\n\
        [[velt.resource]]\ntype = \"folder\"\nid = \"f\"";
    let keys = ["accessRole = \"viewer\"", "organizationId = \"p\"", "expiresAt = 1893456000"];
    says("words_of_velt", &keys.map(|key| format!("{resource}\n{key}\n")));
}

#[test]
fn resources_name_at_most_64_groups() {
    let groups = |count: usize| {
        let names: Vec<_> = (0..count).map(|n| format!("\"g{n}\"")).collect();
        let toml = GROUPED.replace("\"editors\"", &names.join(", "));
        format!("[identity]\ngroups_header = \"X-G\"\n{toml}")
    };
    says("too_many_groups", &[groups(65)]);
    fine(&groups(64), &[]);
}

#[test]
fn resource_with_two_roles_for_one_user_is_refused() {
    let base = format!("[identity]\ngroups_header = \"X-G\"\n{GROUPED}");
    let again = |more: &str| {
        format!(
            "{base}\n[[velt.resource]]\ntype = \"folder\"\nid = \"f\"\nrole = \"viewer\"\n{more}"
        )
    };
    says("resource_with_two_roles", &[again(""), again("groups = [\"staff\", \"editors\"]")]);
    fine(&again("groups = [\"staff\"]"), &[]);
    fine(&again("organization = \"p\""), &[]);
    fine(&again("").replace("role = \"viewer\"", ""), &[]);
}

#[test]
fn grants_have_an_effect_with_v2_alone() {
    says(
        "grants_without_effect",
        &[
            "[identity]\ngrants_header = \"X-Grants\"",
            "[identity]\ngrants_header = \"X-Grants\"\n[velt]\napi = \"v1\"\norganization = \"o\"",
            "[identity]\ngrants_header = \"x-forwarded-user\"\n[velt]\napi = \"v2\"\norganization = \"o\"",
            "[identity.assertion]\ngrants_claim = \"grants\"",
        ],
    );
    fine(
        "[identity]\ngrants_header = \"X-Grants\"\n[velt]\napi = \"v2\"\norganization = \"o\"",
        &[],
    );
}

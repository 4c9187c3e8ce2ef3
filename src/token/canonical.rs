//! A mint request as bytes, the same in each replica: the name of a shared token is a keyed hash of them.

use std::collections::BTreeSet;

use super::MintRequest;
use super::rights::{End, Right};
use ground::grants::ResourceKind;

/// Version of the form below. Another form has to have another number, so that replicas of two versions never take
/// each other's bytes for those of another request.
const FORM: u8 = 1;

/// Appends fields so that different lists of fields are different bytes: each with its length before it.
struct Fields<'a>(&'a mut Vec<u8>);

impl Fields<'_> {
    fn text(&mut self, text: &str) {
        let length = u32::try_from(text.len()).expect("shorter than a request's head");
        self.0.extend_from_slice(&length.to_le_bytes());
        self.0.extend_from_slice(text.as_bytes());
    }

    fn optional(&mut self, text: Option<&str>) {
        self.0.push(text.is_some().into());
        if let Some(text) = text {
            self.text(text);
        }
    }

    fn number(&mut self, number: u64) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    fn right(&mut self, right: &Right<'_>) {
        let Right { kind, id, organization, role, end, by: _ } = right;
        self.text(kind.as_str());
        self.text(id);
        self.optional(*organization);
        self.optional(role.map(ground::grants::AccessRole::as_str));
        match end {
            None => self.0.push(0),
            Some(End::In(life)) => {
                self.0.push(1);
                self.number(life.as_secs());
            }
            Some(End::At(seconds)) => {
                self.0.push(2);
                self.number(*seconds);
            }
        }
    }
}

impl MintRequest {
    /// Appends the request to `out`, all but the generation of the credentials, which is a number of this process.
    /// Requests that are equal but for the generation give equal bytes in each process; requests for which Velt
    /// would be asked differently give different bytes.
    pub fn write_canonical(&self, out: &mut Vec<u8>) {
        let mut fields = Fields(out);
        fields.0.push(FORM);
        fields.text(self.issuer().api.name());
        fields.text(&self.issuer().endpoint);
        fields.text(self.user.as_str());
        fields.optional(self.organization());
        let details = self.details();
        fields.optional(details.email.as_deref());
        fields.optional(details.name.as_deref());
        fields.0.push(match details.is_admin {
            None => 0,
            Some(false) => 1,
            Some(true) => 2,
        });
        // The rights themselves and not the groups, whose numbers are this process's own.
        let rights = self.rights();
        fields.number(rights.len() as u64);
        for right in &rights {
            fields.right(right);
        }
    }

    /// Returns the organizations that the token names: those of [`crate::cache::Whose::Organization`] that concern
    /// this request, in order and each once.
    pub fn organizations(&self) -> Vec<&str> {
        let of_rights = self.rights().into_iter().filter_map(|right| match right.kind {
            ResourceKind::Organization => Some(right.id),
            ResourceKind::Folder | ResourceKind::Document => right.organization,
        });
        let named: BTreeSet<&str> = self.organization().into_iter().chain(of_rights).collect();
        named.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::time::Duration;

    use super::*;
    use crate::velt::Api;
    use crate::{Details, Issuer, MintPlan, Resource, Rights};
    use ground::grants::{AccessRole, Grants};
    use ground::groups::GroupSet;

    fn plan(
        api: Api,
        endpoint: &str,
        organization: Option<&str>,
        resources: Vec<Resource>,
    ) -> MintPlan {
        let issuer = Issuer {
            api,
            endpoint: endpoint.into(),
            credentials_generation: 0,
            organization: organization.map(Box::from),
            resources: resources.into(),
        };
        MintPlan::new(issuer, false)
    }

    fn bytes(request: &MintRequest) -> Vec<u8> {
        let mut bytes = Vec::new();
        request.write_canonical(&mut bytes);
        bytes
    }

    fn details(organization: Option<&str>, email: Option<&str>, name: Option<&str>) -> Details {
        let own = |text: Option<&str>| text.map(Box::from);
        Details {
            organization: own(organization),
            email: own(email),
            name: own(name),
            is_admin: None,
        }
    }

    fn folder(role: Option<AccessRole>, expires_in: Option<u64>) -> Resource {
        Resource {
            kind: ResourceKind::Folder,
            id: "f".into(),
            organization: None,
            role,
            expires_in: expires_in.map(Duration::from_secs),
            groups: None,
        }
    }

    #[test]
    fn different_requests_have_different_bytes() {
        let with = |grants: &str| {
            let grants = Grants::parse(grants.as_bytes()).expect("grants");
            Rights::new(GroupSet::default(), Some(&grants))
        };
        let base = || plan(Api::V2, "https://velt", Some("acme"), vec![]);
        let of = |plan: &MintPlan, user: &str, details, rights| {
            plan.request_with(user.into(), details, rights).expect("a request")
        };
        let none = || details(None, None, None);
        let plain = |plan: MintPlan| of(&plan, "ada", none(), Rights::default());
        let mut requests = vec![
            plain(base()),
            plain(plan(Api::V1, "https://velt", Some("acme"), vec![])),
            plain(plan(Api::V2, "https://velt2", Some("acme"), vec![])),
            plain(plan(Api::V2, "https://velt", None, vec![])),
            plain(plan(Api::V2, "https://velt", Some("acme"), vec![folder(None, None)])),
            plain(plan(Api::V2, "https://velt", Some("acme"), vec![folder(None, Some(60))])),
            plain(plan(
                Api::V2,
                "https://velt",
                Some("acme"),
                vec![folder(Some(AccessRole::Viewer), None)],
            )),
            of(&base(), "adab", none(), Rights::default()),
            of(&base(), "", none(), Rights::default()),
        ];
        // Texts that change places, or move from one field into its neighbour.
        for (organization, email, name) in [
            (Some("a"), Some("b"), Some("c")),
            (Some("b"), Some("a"), Some("c")),
            (None, Some("ab"), Some("c")),
            (None, Some("a"), Some("bc")),
            (None, Some("abc"), None),
            (None, None, Some("abc")),
            (None, Some("abc"), Some("")),
            (None, Some(""), Some("abc")),
        ] {
            requests.push(of(
                &base(),
                "ada",
                details(organization, email, name),
                Rights::default(),
            ));
        }
        for is_admin in [Some(true), Some(false)] {
            requests.push(of(&base(), "ada", Details { is_admin, ..none() }, Rights::default()));
        }
        for grants in [
            r#"[{"type":"folder","id":"g"}]"#,
            r#"[{"type":"document","id":"g"}]"#,
            r#"[{"type":"folder","id":"g","organizationId":"b"}]"#,
            r#"[{"type":"folder","id":"g","expiresAt":9999999999}]"#,
            r#"[{"type":"folder","id":"g"},{"type":"folder","id":"h"}]"#,
        ] {
            requests.push(of(&base(), "ada", none(), with(grants)));
        }
        let mut seen = HashMap::new();
        for (number, request) in requests.iter().enumerate() {
            if let Some(other) = seen.insert(bytes(request), number) {
                panic!("requests {other} and {number} have the same bytes");
            }
        }
    }

    #[test]
    fn equal_requests_of_two_processes_have_equal_bytes() {
        let here = plan(Api::V2, "https://velt", Some("acme"), vec![]);
        let there = here.of_generation(7);
        let grants = |text: &str| Grants::parse(text.as_bytes()).expect("grants");
        let (one, other) = (
            grants(r#"[{"type":"folder","id":"a"},{"type":"folder","id":"b"}]"#),
            grants(r#"[{"type":"folder","id":"b"},{"type":"folder","id":"a"}]"#),
        );
        let of = |plan: &MintPlan, organization, grants: &Grants| {
            let rights = Rights::new(GroupSet::default(), Some(grants));
            plan.request_with("ada".into(), details(organization, None, None), rights).expect("one")
        };
        assert_eq!(bytes(&of(&here, None, &one)), bytes(&of(&there, Some("acme"), &other)));
    }

    #[test]
    fn organizations_are_those_of_user_and_rights() {
        let plan = plan(Api::V2, "https://velt", Some("acme"), vec![folder(None, None)]);
        let grants =
            r#"[{"type":"folder","id":"a","organizationId":"b"},{"type":"organization","id":"c"}]"#;
        let grants = Grants::parse(grants.as_bytes()).expect("grants");
        let rights = Rights::new(GroupSet::default(), Some(&grants));
        let request = plan.request_with("ada".into(), Details::default(), rights).expect("one");
        assert_eq!(request.organizations(), ["acme", "b", "c"]);
    }
}

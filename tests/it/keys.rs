//! Two users never share a token, and one user never needs two mints for the same token: the cache's key
//! is the whole mint request.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ground::grants::{AccessRole, Grant, Grants, ResourceKind};
use ground::groups::{GroupSet, KnownGroups};
use ground::metrics::Metrics;
use proptest::prelude::*;
use token::cache::{Settings, TokenCache};
use token::velt::Api;
use token::{Details, Issuer, MintPlan, MintRequest, Resource, Rights, Unplanned};
use tokio::runtime::Builder;

use crate::support::double::{Double, HOUR, text};
use crate::support::velt::user_of;
use crate::support::{Stage, config, document};

/// Kind, id, organization, whether the grant is for an editor, hours, groups.
type PlainResource =
    (u8, String, Option<String>, Option<bool>, Option<u64>, Option<BTreeSet<usize>>);

/// Kind, id, organization, whether the grant is for an editor, end.
type PlainGrant = (u8, String, Option<String>, Option<bool>, Option<u64>);

/// Groups that resources name.
const GROUPS: [&str; 3] = ["a", "ab", "b"];

fn groups(positions: &BTreeSet<usize>) -> GroupSet {
    let known = KnownGroups::new(GROUPS).expect("few");
    known.set(positions.iter().map(|position| GROUPS[*position]))
}

fn kind(number: u8) -> ResourceKind {
    [ResourceKind::Organization, ResourceKind::Folder, ResourceKind::Document]
        [usize::from(number % 3)]
}

fn role(editor: Option<bool>) -> Option<AccessRole> {
    editor.map(|is| if is { AccessRole::Editor } else { AccessRole::Viewer })
}

fn grant((number, id, organization, editor, expires_at): &PlainGrant) -> Grant {
    Grant {
        kind: kind(*number),
        id: id.as_str().into(),
        organization: organization.as_deref().map(Box::from),
        role: role(*editor),
        expires_at: *expires_at,
    }
}

/// A mint request of plain types, whose equality does not depend on the product's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Plain {
    api: u8,
    endpoint: String,
    generation: u64,
    user: String,
    organization: Option<String>,
    email: Option<String>,
    name: Option<String>,
    admin: Option<bool>,
    groups: BTreeSet<usize>,
    grants: BTreeSet<PlainGrant>,
    resources: Vec<PlainResource>,
}

impl Plain {
    /// Returns the request, unless the rights in it contradict each other.
    fn request(&self) -> Option<MintRequest> {
        let boxed = |text: &Option<String>| text.as_deref().map(Box::from);
        let resources = self.resources.iter();
        let resources =
            resources.map(|(number, id, organization, editor, hours, members)| Resource {
                kind: kind(*number),
                id: id.clone(),
                organization: organization.clone(),
                role: role(*editor),
                expires_in: hours.map(|hours| Duration::from_secs(hours * 3600)),
                groups: members.as_ref().map(groups),
            });
        let issuer = Issuer {
            api: [Api::Legacy, Api::V1, Api::V2][usize::from(self.api % 3)],
            endpoint: self.endpoint.as_str().into(),
            credentials_generation: self.generation,
            organization: None,
            resources: resources.collect(),
        };
        let details = Details {
            organization: boxed(&self.organization),
            email: boxed(&self.email),
            name: boxed(&self.name),
            is_admin: self.admin,
        };
        let grants = Grants::new(self.grants.iter().map(grant).collect()).ok()?;
        let rights = Rights::new(groups(&self.groups), Some(&grants));
        let plan = MintPlan::new(issuer, false);
        match plan.request_with(self.user.as_str().into(), details, rights) {
            Ok(request) => Some(request),
            Err(Unplanned::Contradiction) => None,
            Err(Unplanned::NoOrganization) => panic!("no organization is needed"),
        }
    }
}

/// Generates words that would collide if fields were concatenated. The words are few, so that collisions
/// are likely.
fn word() -> impl Strategy<Value = String> {
    const WORDS: [&str; 18] = [
        "", "a", "b", "ab", "c", "bc", "abc", "A", "a ", "|", "a|b", "\0", "a\0b", "a,b", "1",
        "\u{e9}", "e\u{301}", "true",
    ];
    prop_oneof![4 => prop::sample::select(&WORDS[..]).prop_map(str::to_owned), 1 => ".{0,6}"]
}

fn plain() -> impl Strategy<Value = Plain> {
    let optional = || prop::option::of(word());
    let members = || prop::collection::btree_set(0..GROUPS.len(), 0..3);
    let right = || (0..3_u8, word(), optional(), any::<Option<bool>>(), prop::option::of(1..3_u64));
    let resource = (right(), prop::option::of(members()));
    let resource = resource.prop_map(|((kind, id, organization, editor, hours), groups)| {
        (kind, id, organization, editor, hours, groups)
    });
    let resources = prop::collection::vec(resource, 0..3);
    let rights = (members(), prop::collection::btree_set(right(), 0..3), resources);
    let subject = (word(), optional(), optional(), optional(), any::<Option<bool>>());
    (0..3_u8, word(), 0..2_u64, subject, rights).prop_map(
        |(api, endpoint, generation, subject, (groups, grants, resources))| {
            let (user, organization, email, name, admin) = subject;
            Plain {
                api,
                endpoint,
                generation,
                user,
                organization,
                email,
                name,
                admin,
                groups,
                grants,
                resources,
            }
        },
    )
}

/// Generates requests that differ from the first in one field, or by chance in none. Two requests that
/// were generated apart differ in so many fields that a key which forgets one field would go unnoticed.
fn neighbours() -> impl Strategy<Value = Vec<Plain>> {
    let changes = prop::collection::vec((0..11, plain()), 1..40);
    (plain(), changes).prop_map(|(first, changes)| {
        let others = changes.into_iter().map(|(field, other): (i32, Plain)| {
            let mut plain = first.clone();
            match field {
                0 => plain.api = other.api,
                1 => plain.endpoint = other.endpoint,
                2 => plain.generation = other.generation,
                3 => plain.user = other.user,
                4 => plain.organization = other.organization,
                5 => plain.email = other.email,
                6 => plain.name = other.name,
                7 => plain.admin = other.admin,
                8 => plain.groups = other.groups,
                9 => plain.grants = other.grants,
                _ => plain.resources = other.resources,
            }
            plain
        });
        others.chain([first.clone()]).collect()
    })
}

/// Asks a cache for each of `requests` in turn, twice, and returns the tokens of each round and the
/// number of mints.
fn tokens_of(requests: &[Plain]) -> (Vec<String>, Vec<String>, usize) {
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(async {
        let double = Double::default();
        let settings = Settings { max_entries: 10_000, max_bytes: 1 << 30 };
        let cache = TokenCache::new(Arc::new(double.clone()), &settings, Metrics::new().tokens);
        let mut rounds = [Vec::new(), Vec::new()];
        for round in &mut rounds {
            for plain in requests {
                let looked_up =
                    cache.get(plain.request().expect("no contradiction")).within(HOUR).await;
                round.push(text(&looked_up.expect("in time").expect("a token")));
            }
        }
        let [first, second] = rounds;
        (first, second, double.calls())
    })
}

/// Asserts that requests share a token exactly if the requests are the same. Leaves out requests whose rights
/// contradict each other, for which there is no token. Returns the number of mints.
fn assert_kept_apart(requests: &[Plain]) -> usize {
    let requests: Vec<_> = requests.iter().filter(|it| it.request().is_some()).cloned().collect();
    let requests = &requests[..];
    let (first, second, mints) = tokens_of(requests);
    assert_eq!(first, second, "the same request, the same token");
    let mut by_request: BTreeMap<&Plain, &String> = BTreeMap::new();
    let mut by_token: BTreeMap<&String, &Plain> = BTreeMap::new();
    for (plain, token) in requests.iter().zip(&first) {
        assert_eq!(*by_request.entry(plain).or_insert(token), token, "{plain:?} has two tokens");
        assert_eq!(*by_token.entry(token).or_insert(plain), plain, "two share {token}");
    }
    assert_eq!(mints, by_request.len());
    mints
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn t33_only_equal_requests_share_a_token(
        requests in neighbours(),
    ) {
        assert_kept_apart(&requests);
    }

    #[test]
    fn t33_letter_moved_between_fields_makes_another_request(
        request in plain(), user in "[a-c|\u{0}]{1,3}", organization in "[a-c|\u{0}]{1,3}",
    ) {
        let joined = format!("{user}{organization}");
        let splits = (0..=joined.len()).map(|at| {
            let (user, organization) = joined.split_at(at);
            Plain { user: user.into(), organization: Some(organization.into()), ..request.clone() }
        });
        let splits: Vec<_> = splits.collect();
        let made = splits.iter().filter(|split| split.request().is_some()).count();
        prop_assert_eq!(assert_kept_apart(&splits), made);
    }

    #[test]
    fn t67_order_of_grants_does_not_matter(
        request in plain(),
        grants in prop::collection::vec(
            (0..3_u8, word(), prop::option::of(word()), any::<Option<bool>>(), 1..3_u64), 1..6,
        ),
        turn in 0..6_usize,
        again in 0..6_usize,
    ) {
        let grants: Vec<PlainGrant> = grants
            .into_iter()
            .map(|(kind, id, organization, editor, end)| (kind, id, organization, editor, Some(end)))
            .collect();
        let mut other: Vec<Grant> = grants.iter().map(grant).collect();
        other.rotate_left(turn % grants.len());
        other.push(grant(&grants[again % grants.len()]));
        let one = Grants::new(grants.iter().map(grant).collect());
        let other = Grants::new(other);
        prop_assert!(one == other);
        let mut fewer = grants.clone();
        fewer.retain(|grant| *grant != grants[again % grants.len()]);
        prop_assert!(one.is_err() || one != Grants::new(fewer.iter().map(grant).collect()));
        let with = |grants: &[PlainGrant]| Plain {
            grants: grants.iter().cloned().collect(),
            ..request.clone()
        };
        assert_kept_apart(&[with(&grants), with(&fewer), with(&[])]);
    }
}

#[test]
fn t33_no_separator_can_be_forged() {
    let base = Plain {
        api: 2,
        endpoint: "https://velt".into(),
        generation: 0,
        user: "u".into(),
        organization: None,
        email: None,
        name: None,
        admin: None,
        groups: BTreeSet::new(),
        grants: BTreeSet::new(),
        resources: Vec::new(),
    };
    let pairs = [
        ("ab", "c"),
        ("a", "bc"),
        ("abc", ""),
        ("", "abc"),
        ("a|b", "c"),
        ("a", "b|c"),
        ("a\0b", "c"),
        ("a", "\0bc"),
        ("a", "b"),
        ("b", "a"),
        ("a\u{1f}b", "c"),
        ("a\n", "bc"),
    ];
    let mut requests = vec![base.clone()];
    for (one, other) in pairs {
        let (one, other) = (one.to_owned(), Some(other.to_owned()));
        let named = Plain { user: one.clone(), ..base.clone() };
        requests.push(Plain { organization: other.clone(), ..named.clone() });
        requests.push(Plain { email: other.clone(), ..named.clone() });
        requests.push(Plain { name: other.clone(), ..named.clone() });
        let organized = Plain { organization: Some(one.clone()), ..base.clone() };
        requests.push(Plain { email: other.clone(), ..organized.clone() });
        requests.push(Plain { name: other.clone(), ..organized });
        let resource = (1, one.clone(), other.clone(), None, None, None);
        requests.push(Plain { resources: vec![resource], ..base.clone() });
        requests.push(Plain { grants: [(1, one, other, None, None)].into(), ..base.clone() });
    }
    assert_eq!(assert_kept_apart(&requests), requests.len(), "all of them differ");
}

#[test]
fn t34_key_holds_all_that_the_configuration_fixes() {
    let velt = "127.0.0.1:1".parse().expect("an address");
    let configurations = [
        "[velt]\norganization = \"o\"\napi = \"v1\"",
        "[velt]\norganization = \"o\"\napi = \"v2\"",
        "[velt]\norganization = \"p\"\napi = \"v2\"",
        "[velt]\napi = \"legacy\"",
        "[velt]\nendpoint = \"http://127.0.0.1:1/other\"",
        "[velt]\napi = \"v2\"\norganization = \"o\"\n[[velt.resource]]\ntype = \"folder\"\nid = \"f\"",
        "[velt]\napi = \"v2\"\norganization = \"o\"\n[[velt.resource]]\ntype = \"document\"\nid = \"f\"",
        "[velt]\napi = \"v2\"\norganization = \"o\"\n[[velt.resource]]\ntype = \"folder\"\nid = \"f\"\nrole = \"viewer\"",
        "[velt]\napi = \"v2\"\norganization = \"o\"\n[[velt.resource]]\ntype = \"folder\"\nid = \"f\"\nexpires_in = \"1h\"",
        "[identity]\ngroups_header = \"G\"\n[velt]\napi = \"v2\"\norganization = \"o\"\n[[velt.resource]]\ntype = \"folder\"\nid = \"f\"\ngroups = [\"a\"]",
    ];
    let plans = configurations.map(|toml| {
        let config = config(&document("127.0.0.1:2", velt, toml));
        config.unwrap_or_else(|error| panic!("{error}")).plan
    });
    let request =
        |plan: &MintPlan| plan.request("ada".into(), Details::default()).expect("an organization");
    let requests = plans.each_ref().map(request);
    for (n, one) in requests.iter().enumerate() {
        for (m, other) in requests.iter().enumerate() {
            assert_eq!(one == other, n == m, "{} and {}", configurations[n], configurations[m]);
        }
    }
    assert!(request(&plans[0].of_generation(0)) == requests[0]);
    let rotated = request(&plans[0].of_generation(1));
    assert!(rotated != requests[0], "a token does not outlive its credentials");
}

#[test]
fn t35_the_same_request_a_thousand_times_is_one_mint() {
    let plain = Plain {
        api: 2,
        endpoint: "https://velt".into(),
        generation: 3,
        user: "ada".into(),
        organization: Some("org".into()),
        email: Some("ada@example.com".into()),
        name: Some("Ada".into()),
        admin: Some(true),
        groups: [0].into(),
        grants: [(2, "grant".into(), None, Some(false), Some(9))].into(),
        resources: vec![
            (1, "folder".into(), None, Some(true), Some(1), Some([0, 1].into())),
            (2, "document".into(), Some("other".into()), None, None, None),
        ],
    };
    let (tokens, _, mints) = tokens_of(&vec![plain; 1000]);
    assert_eq!((mints, tokens.len()), (1, 1000));
}

#[tokio::test]
async fn t35_the_order_of_headers_does_not_matter() {
    let identity = "[identity]\nemail_header = \"X-Email\"\nname_header = \"X-Name\"\n\
                    organization_header = \"X-Org\"\n[velt]\napi = \"v2\"";
    let stage = Stage::set(identity).await;
    let headers =
        [("x-forwarded-user", "ada"), ("x-email", "a@b.c"), ("x-name", "Ada"), ("x-org", "o")];
    for n in 0..24 {
        let mut rest = headers.to_vec();
        let mut asking = stage.client().get("/api/velt/token");
        for (position, choices) in [(n / 6, 4), (n / 2 % 3, 3), (n % 2, 2), (0, 1)] {
            assert_eq!(rest.len(), choices);
            let (name, value) = rest.remove(position);
            asking = asking.header(name, value);
        }
        let answer = asking.send().await;
        assert_eq!(user_of(answer.json()["token"].as_str().expect("a token")), "ada");
    }
    assert_eq!(stage.velt.call_count(), 1);
}

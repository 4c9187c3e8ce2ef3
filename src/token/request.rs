//! What a mint asks for: which user, and what the configuration fixes for all of them.

use std::fmt;
use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use super::velt;

/// Everything that is sent to Velt for one token, and therefore the cache's key.
///
/// Equality is structural over typed fields: equal requests share a token, unequal ones never do,
/// and no separator can be forged because nothing is glued together.
#[derive(Clone, PartialEq, Eq)]
pub struct MintRequest {
    /// Nearly always the same for all, and then the same in memory.
    pub issuer: Arc<Issuer>,
    pub subject: Subject,
}

/// By whom it is for alone: the issuer is hardly ever another one.
impl Hash for MintRequest {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.subject.hash(state);
    }
}

/// Who mints, and with which rights: the part of a request that the configuration fixes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issuer {
    /// Two APIs may be called at the same URL, and mint tokens of different rights.
    pub api: velt::Api,
    pub endpoint: Arc<str>,
    /// For subjects that come without one. Here and not with each of them, since as a rule it is
    /// the same for all.
    pub organization: Option<Box<str>>,
    /// Counts up whenever the credentials change, so that no token outlives its credentials.
    pub credentials_generation: u64,
    /// Grants beyond the organization itself.
    pub resources: Arc<[Resource]>,
}

/// A grant that a v2 token carries
/// (docs.velt.dev, REST API v2, "Generate Token", `permissions.resources`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    pub kind: ResourceKind,
    pub id: String,
    /// The organization that a folder or document belongs to; the user's own when `None`.
    pub organization: Option<String>,
    pub role: Option<AccessRole>,
    /// How long the grant lasts, counted from the mint.
    pub expires_in: Option<Duration>,
}

/// What a [`Resource`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResourceKind {
    Organization,
    Folder,
    Document,
}

/// What a [`Resource`] may be used for. Velt's default is editor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessRole {
    Viewer,
    Editor,
}

/// For whom a token is minted. There is one for each cached user, so what most users come without
/// takes no space in those who do.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Subject {
    pub user: Box<str>,
    /// Never empty ones, or equal subjects could differ: hence not public.
    details: Option<Box<Details>>,
}

/// What may be known of a [`Subject`] beside the id. Absent fields are not sent: Velt refuses
/// empty strings.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Details {
    pub organization: Option<Box<str>>,
    pub email: Option<Box<str>>,
    pub name: Option<Box<str>>,
    pub is_admin: Option<bool>,
}

impl Subject {
    /// A user of whom that much is known.
    pub fn new(user: impl Into<Box<str>>, details: Details) -> Self {
        let details = (details != Details::default()).then(|| Box::new(details));
        Self { user: user.into(), details }
    }

    /// What is known beside the id.
    pub fn details(&self) -> &Details {
        static NONE: Details =
            Details { organization: None, email: None, name: None, is_admin: None };
        self.details.as_deref().unwrap_or(&NONE)
    }

    /// Bytes on the heap, for the cache's accounting.
    fn owned_bytes(&self) -> usize {
        let Details { organization, email, name, is_admin: _ } = self.details();
        let texts = [organization, email, name].into_iter().flatten();
        let boxed = self.details.as_deref().map_or(0, size_of_val);
        self.user.len() + boxed + texts.map(|text| text.len()).sum::<usize>()
    }
}

/// A user of whom nothing else is known.
impl From<&str> for Subject {
    fn from(user: &str) -> Self {
        Self::new(user, Details::default())
    }
}

/// Turns a subject into a mint request: the part that the configuration fixes.
#[derive(Clone, Debug)]
pub struct MintPlan {
    pub issuer: Arc<Issuer>,
    /// Whether Velt's API can do without an organization.
    pub needs_organization: bool,
}

impl MintPlan {
    /// For `user`, of whom `details` are known. `None` if an organization is needed and there is
    /// none.
    pub fn request(&self, user: Box<str>, mut details: Details) -> Option<MintRequest> {
        // Who names the configured one asks for the same as who names none, and shares his token.
        details.organization.take_if(|named| Some(&*named) == self.issuer.organization.as_ref());
        let subject = Subject::new(user, details);
        let request = MintRequest { issuer: Arc::clone(&self.issuer), subject };
        (!self.needs_organization || request.organization().is_some()).then_some(request)
    }
}

impl MintRequest {
    /// A number between 0 and 1 that is the same for equal requests within this process.
    pub(super) fn fraction(&self) -> f64 {
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(self);
        // The upper 53 bits fill an f64's mantissa exactly.
        (hash >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Where the user is: the one he comes with, or else the configured one.
    pub fn organization(&self) -> Option<&str> {
        let own = self.subject.details().organization.as_deref();
        own.or(self.issuer.organization.as_deref())
    }

    /// Bytes on the heap that are this request's alone, for the cache's accounting.
    pub(super) fn owned_bytes(&self) -> usize {
        self.subject.owned_bytes()
    }
}

impl fmt::Debug for MintRequest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("MintRequest(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIGURED: &str = "acme";

    fn plan(organization: Option<&str>) -> MintPlan {
        let issuer = Issuer {
            api: velt::Api::V2,
            endpoint: "https://velt".into(),
            credentials_generation: 0,
            organization: organization.map(Box::from),
            resources: [].into(),
        };
        MintPlan { issuer: Arc::new(issuer), needs_organization: true }
    }

    fn of(organization: Option<&str>) -> Details {
        Details { organization: organization.map(Box::from), ..Details::default() }
    }

    fn hash_of(value: &impl Hash) -> u64 {
        BuildHasherDefault::<DefaultHasher>::default().hash_one(value)
    }

    #[test]
    fn what_each_user_costs_has_not_grown() {
        // With the counts of an `Arc`, 48 bytes: a size of the allocator's.
        assert_eq!(size_of::<MintRequest>(), 32);
    }

    #[test]
    fn a_subject_without_details_is_always_the_same() {
        let (plain, built) = (Subject::from("ada"), Subject::new("ada", Details::default()));
        assert!(plain == built && built.details.is_none());
        assert_eq!(hash_of(&plain), hash_of(&built));
        assert_eq!(built.owned_bytes(), 3);
        let not_an_admin = Details { is_admin: Some(false), ..Details::default() };
        assert!(Subject::new("ada", not_an_admin) != plain);
    }

    #[test]
    fn the_configured_organization_is_the_same_named_or_not() {
        let plan = plan(Some(CONFIGURED));
        let request = |organization| plan.request("ada".into(), of(organization)).expect("one");
        let (named, unnamed, other) =
            (request(Some(CONFIGURED)), request(None), request(Some("b")));
        assert!(named == unnamed && named.subject.details.is_none());
        assert_eq!(hash_of(&named), hash_of(&unnamed));
        assert_eq!(named.organization(), Some(CONFIGURED));
        assert!(other != unnamed);
        assert_eq!(other.organization(), Some("b"));
    }

    #[test]
    fn where_an_organization_is_needed_there_is_no_request_without() {
        let mut plan = plan(None);
        assert!(plan.request("ada".into(), of(None)).is_none());
        assert!(plan.request("ada".into(), of(Some("b"))).is_some());
        plan.needs_organization = false;
        assert!(plan.request("ada".into(), of(None)).is_some());
    }
}

//! Content of a mint request: the user, and the part that the configuration fixes for all users.

use std::fmt;
use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use super::rights::Rights;
use super::velt;
use ground::grants::{AccessRole, ResourceKind};
use ground::groups::GroupSet;
use ground::user_id::UserId;

/// Content sent to Velt for one token, and therefore the cache's key.
///
/// Equality is structural over typed fields: equal requests share a token, unequal requests do not
/// (`tests/it/keys.rs`). A user can't forge a separator, because no fields are joined into one string.
///
/// Small, because the cache holds a request for each user.
#[derive(Clone, PartialEq, Eq)]
pub struct MintRequest {
    pub user: UserId,
    /// Issuer, rights and details. Requests of users without rights or details of their own share them in
    /// memory.
    terms: Arc<Terms>,
}

/// Content of a mint request without the user.
#[derive(Clone, PartialEq, Eq)]
struct Terms {
    base: Arc<Base>,
    /// Details of the user. `None` instead of empty details, or equal requests could differ.
    details: Option<Details>,
}

/// Issuer, and the rights of the user. Apart from [`Terms`], because few users have rights of their own: the
/// terms of all other users are no larger for them.
#[derive(Clone, PartialEq, Eq)]
struct Base {
    issuer: Arc<Issuer>,
    rights: Rights,
}

/// Prints the issuer alone, since details of a user must not be printed.
impl fmt::Debug for Terms {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.base.issuer.fmt(formatter)
    }
}

/// Hashes all but the issuer, which is nearly always the same.
impl Hash for MintRequest {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.user.hash(state);
        self.terms.base.rights.hash(state);
        self.terms.details.hash(state);
    }
}

/// Part of a mint request that the configuration fixes: the address of Velt and the rights of the tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issuer {
    /// Token API. Two APIs may be called at the same URL, and mint tokens of different rights.
    pub api: velt::Api,
    pub endpoint: Arc<str>,
    /// Organization of users who come without an organization. Kept here and not with each user, because it
    /// is nearly always the same for all users.
    pub organization: Option<Box<str>>,
    /// Number of the credentials. Grows with each change of the credentials, so that no token outlives its
    /// credentials.
    pub credentials_generation: u64,
    /// Resources beside the organization itself.
    pub resources: Arc<[Resource]>,
}

/// A resource of the configuration, which v2 tokens name
/// (docs.velt.dev, REST API v2, "Generate Token", `permissions.resources`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    pub kind: ResourceKind,
    pub id: String,
    /// Organization to which a folder or document belongs; `None` means the user's organization.
    pub organization: Option<String>,
    pub role: Option<AccessRole>,
    /// Life of the grant, counted from the mint.
    pub expires_in: Option<Duration>,
    /// Groups whose members get the resource; `None` gives the resource to all users.
    pub groups: Option<GroupSet>,
}

impl Resource {
    /// Whether a user in `groups` gets the resource.
    pub(super) fn applies_to(&self, groups: GroupSet) -> bool {
        self.groups.is_none_or(|own| own.meets(groups))
    }
}

/// Facts about a user beside the id. Absent fields are not sent: Velt refuses empty strings.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Details {
    pub organization: Option<Box<str>>,
    pub email: Option<Box<str>>,
    pub name: Option<Box<str>>,
    pub is_admin: Option<bool>,
}

/// Part of all mint requests that the configuration fixes; turns a user into a mint request.
#[derive(Clone, Debug)]
pub struct MintPlan {
    /// Terms of all users who come without details and without rights of their own.
    terms: Arc<Terms>,
    needs_organization: bool,
    /// Whether two resources may turn out to be the same one with different rights, for some user.
    may_clash: bool,
}

/// Reason why a plan makes no request for a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unplanned {
    /// The API needs an organization, and neither the user nor the configuration has one.
    NoOrganization,
    /// The token would name a resource twice, with different rights.
    Contradiction,
}

impl MintPlan {
    /// Makes a plan for `issuer`. `needs_organization` says whether Velt's API requires an organization.
    pub fn new(issuer: Issuer, needs_organization: bool) -> Self {
        let resources = issuer.resources.iter().enumerate();
        let may_clash = resources.clone().any(|(n, one)| {
            let mut others = issuer.resources[..n].iter();
            others.any(|other| one.kind == other.kind && one.id == other.id && one != other)
        });
        let base = Base { issuer: Arc::new(issuer), rights: Rights::default() };
        let terms = Arc::new(Terms { base: Arc::new(base), details: None });
        Self { terms, needs_organization, may_clash }
    }

    /// Returns a copy of this plan with the credentials of another generation.
    pub fn of_generation(&self, credentials_generation: u64) -> Self {
        let issuer = Issuer { credentials_generation, ..self.issuer().clone() };
        Self::new(issuer, self.needs_organization)
    }

    /// Returns the issuer.
    pub fn issuer(&self) -> &Issuer {
        &self.terms.base.issuer
    }

    /// Returns the request for `user` with `details`, and with the rights that all users have.
    ///
    /// # Errors
    ///
    /// See [`Self::request_with`].
    pub fn request(&self, user: UserId, details: Details) -> Result<MintRequest, Unplanned> {
        self.request_with(user, details, Rights::default())
    }

    /// Returns the request for `user` with `details` and with `rights` of their own.
    ///
    /// # Errors
    ///
    /// If an organization is needed and neither `details` nor the configuration has one, or if the rights
    /// contradict each other.
    pub fn request_with(
        &self,
        user: UserId,
        mut details: Details,
        rights: Rights,
    ) -> Result<MintRequest, Unplanned> {
        // A user who names the configured organization shares the token of a request that names none.
        details.organization.take_if(|named| Some(&*named) == self.issuer().organization.as_ref());
        let is_plain = details == Details::default();
        let terms = if is_plain && rights.are_common() {
            Arc::clone(&self.terms)
        } else {
            let base = self.base(rights);
            Arc::new(Terms { base, details: (!is_plain).then_some(details) })
        };
        let request = MintRequest { user, terms };
        if self.needs_organization && request.organization().is_none() {
            return Err(Unplanned::NoOrganization);
        }
        let may_clash = self.may_clash || request.own_rights().grants.is_some();
        if may_clash && request.contradicts_itself() {
            return Err(Unplanned::Contradiction);
        }
        Ok(request)
    }

    fn base(&self, rights: Rights) -> Arc<Base> {
        if rights.are_common() {
            return Arc::clone(&self.terms.base);
        }
        Arc::new(Base { issuer: Arc::clone(&self.terms.base.issuer), rights })
    }
}

impl MintRequest {
    /// Returns two hashes: of the whole request without the issuer, and of the organization.
    pub(super) fn hashes(&self) -> (u64, u64) {
        let hasher = BuildHasherDefault::<DefaultHasher>::default();
        (hasher.hash_one(self), hasher.hash_one(self.organization()))
    }

    /// Returns a number between 0 and 1 that is the same for equal requests within this process.
    pub(super) fn fraction(&self) -> f64 {
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(self);
        // The upper 53 bits fill an f64's mantissa exactly.
        (hash >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Returns the issuer.
    pub fn issuer(&self) -> &Issuer {
        &self.terms.base.issuer
    }

    /// Returns the rights of the user beside the rights that all users have.
    pub(super) fn own_rights(&self) -> &Rights {
        &self.terms.base.rights
    }

    /// Returns the facts about the user beside the id.
    pub fn details(&self) -> &Details {
        static NONE: Details =
            Details { organization: None, email: None, name: None, is_admin: None };
        self.terms.details.as_ref().unwrap_or(&NONE)
    }

    /// Returns the organization of the user: named by the request, or else the configured organization.
    pub fn organization(&self) -> Option<&str> {
        let own = self.details().organization.as_deref();
        own.or(self.issuer().organization.as_deref())
    }

    /// Returns the bytes on the heap that belong to this request alone, for the cache's accounting.
    pub(super) fn owned_bytes(&self) -> usize {
        let Details { organization, email, name, is_admin: _ } = self.details();
        let texts = [organization, email, name].into_iter().flatten();
        let rights = self.own_rights();
        let base = if rights.are_common() { 0 } else { size_of::<Base>() + rights.owned_bytes() };
        let has_terms = base > 0 || self.terms.details.is_some();
        let terms = if has_terms { size_of::<Terms>() } else { 0 };
        self.user.owned_bytes() + base + terms + texts.map(|text| text.len()).sum::<usize>()
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
    use ground::grants::{Grant, Grants};

    const CONFIGURED: &str = "acme";

    fn issuer(organization: Option<&str>) -> Issuer {
        Issuer {
            api: velt::Api::V2,
            endpoint: "https://velt".into(),
            credentials_generation: 0,
            organization: organization.map(Box::from),
            resources: [].into(),
        }
    }

    fn plan(organization: Option<&str>) -> MintPlan {
        MintPlan::new(issuer(organization), true)
    }

    fn of(organization: Option<&str>) -> Details {
        Details { organization: organization.map(Box::from), ..Details::default() }
    }

    fn hash_of(value: &impl Hash) -> u64 {
        BuildHasherDefault::<DefaultHasher>::default().hash_one(value)
    }

    #[test]
    fn mint_request_keeps_its_size() {
        // With the counts of an `Arc`, 64 bytes and 80 bytes: sizes of the allocator.
        assert_eq!(size_of::<MintRequest>(), 48);
        assert_eq!(size_of::<Terms>(), 64);
        let request =
            |length| plan(None).request("a".repeat(length).as_str().into(), of(Some("b")));
        let owned = |length| request(length).expect("one").owned_bytes();
        assert_eq!((owned(36), owned(256)), (65, 65 + 256));
    }

    #[test]
    fn own_rights_count_beside_the_terms() {
        let owned = |grants: &str| {
            let grants = Grants::parse(grants.as_bytes()).expect("grants");
            let rights = Rights::new(GroupSet::default(), Some(&grants));
            let request = plan(None).request_with("ada".into(), of(Some("b")), rights);
            request.expect("one").owned_bytes()
        };
        let base = 65 + size_of::<Base>() + size_of::<Grant>();
        assert_eq!(owned("[]"), 65, "shared by all users");
        assert_eq!(owned(r#"[{"type":"folder","id":"f"}]"#), base + 1);
        let placed = r#"[{"type":"folder","id":"folder","organizationId":"acme"}]"#;
        assert_eq!(owned(placed), base + 6 + 4);
    }

    #[test]
    fn users_without_details_share_their_terms() {
        let of_plan = |plan: &MintPlan, user: &str, details| {
            plan.request(user.into(), details).expect("an organization")
        };
        let (now, reloaded) = (plan(Some(CONFIGURED)), plan(Some(CONFIGURED)));
        let (ada, eve) = (of_plan(&now, "ada", of(None)), of_plan(&now, "eve", of(None)));
        assert!(Arc::ptr_eq(&ada.terms, &eve.terms) && ada != eve);
        // A cache outlives the plan that filled the cache.
        let later = of_plan(&reloaded, "ada", of(None));
        assert!(!Arc::ptr_eq(&ada.terms, &later.terms) && ada == later);
        assert_eq!(hash_of(&ada), hash_of(&later));
        let not_an_admin = Details { is_admin: Some(false), ..Details::default() };
        assert!(of_plan(&now, "ada", not_an_admin) != ada);
    }

    #[test]
    fn configured_organization_is_equal_named_or_not() {
        let plan = plan(Some(CONFIGURED));
        let request = |organization| plan.request("ada".into(), of(organization)).expect("one");
        let (named, unnamed, other) =
            (request(Some(CONFIGURED)), request(None), request(Some("b")));
        assert!(named == unnamed && named.terms.details.is_none());
        assert_eq!(hash_of(&named), hash_of(&unnamed));
        assert_eq!(named.organization(), Some(CONFIGURED));
        assert!(other != unnamed);
        assert_eq!(other.organization(), Some("b"));
    }

    #[test]
    fn request_has_an_organization_where_the_api_needs_one() {
        let needed = plan(None);
        let without = needed.request("ada".into(), of(None));
        assert_eq!(without.err(), Some(Unplanned::NoOrganization));
        assert!(needed.request("ada".into(), of(Some("b"))).is_ok());
        let not_needed = MintPlan::new(issuer(None), false);
        assert!(not_needed.request("ada".into(), of(None)).is_ok());
    }
}

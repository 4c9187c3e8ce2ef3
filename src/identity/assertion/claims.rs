//! Checks of the claims of an assertion whose signature is right.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use serde_json::{Map, Value};

use super::{Algorithm, InvalidAssertion};
use crate::Placeholders;
use crate::user::{
    Attribute, Flaws, Granted, Groups, Organization, Said, SignedIn, User, flaw, is_address,
};
use ground::grants::{Grants, GrantsError};
use ground::groups::{GroupSet, KnownGroups};
use ground::metrics::Flaw;

/// Conditions under which an assertion is believed.
#[derive(Clone, Debug)]
pub struct Policy {
    /// `None` if the assertion names no issuer, because a secret proves it.
    pub issuer: Option<String>,
    /// Audiences, of which the assertion must name at least one. May be empty with a `signer`, with
    /// `authorized_parties`, or where a secret proves the assertion.
    pub audience: Vec<String>,
    /// Origins or clients, one of which the assertion must name in `azp`. Without any, `azp` is not read.
    pub authorized_parties: Vec<String>,
    /// Claims that must have a certain value.
    pub required: Vec<RequiredClaim>,
    pub algorithms: Vec<Algorithm>,
    /// Largest difference between the clocks that is tolerated.
    pub leeway: Duration,
    /// ARN of the AWS load balancer that signs. If set, the token is read as AWS writes it: with padding, and
    /// with `exp`, `iss` and `client` in the header.
    pub signer: Option<String>,
    pub claims: ClaimNames,
}

/// Claims of an assertion that describe the user.
#[derive(Clone, Debug)]
pub struct ClaimNames {
    pub user: ClaimPath,
    pub email: Option<ClaimPath>,
    pub name: Option<ClaimPath>,
    /// Claims of which the first that is there names the organization.
    pub organization: Vec<ClaimPath>,
    pub groups: Option<ClaimPath>,
    /// Character between two groups, where the claim is a string and no array.
    pub groups_separator: char,
    /// Groups whose members are Velt admins. Without any, `is_admin` is not sent.
    pub admin_groups: Vec<String>,
    /// Groups on which resources depend.
    pub known_groups: KnownGroups,
    /// Claim with the user's grants in Velt's schema.
    pub grants: Option<ClaimPath>,
    /// Values that stand for no value.
    pub placeholders: Placeholders,
}

/// The way to a claim, from the outside in: `sub`, `custom.user.id`, or as a JSON pointer
/// (RFC 6901) where a name has a dot in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimPath(Vec<String>);

/// A claim that must have one value (`token_use=id`), or must not have it (`sts!=pending`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequiredClaim {
    path: ClaimPath,
    value: String,
    /// Whether the claim must have the value. Where it must not, it may also be missing.
    has: bool,
}

impl RequiredClaim {
    /// Reads a claim and a value with `=` or `!=` between them. `None` if `text` is no such pair.
    pub fn parse(text: &str) -> Option<Self> {
        let (path, value) = text.split_once('=')?;
        let (path, has) = match path.strip_suffix('!') {
            Some(path) => (path, false),
            None => (path, true),
        };
        let path = ClaimPath::parse(path)?;
        (!value.is_empty()).then(|| Self { path, value: value.to_owned(), has })
    }

    /// Whether the claim binds an assertion to one app: it must name the client to which the assertion was
    /// issued.
    pub fn names_client(&self) -> bool {
        let client = |name: &String| ["azp", "client_id", "cid", "appid"].contains(&name.as_str());
        self.has && self.path.0.len() == 1 && self.path.0.iter().all(client)
    }

    /// Whether the claims are as they must be. Numbers and booleans are compared by their text in JSON.
    fn is_met(&self, claims: &Map<String, Value>) -> bool {
        let is_there = match self.path.find(claims) {
            Some(Value::String(text)) => *text == self.value,
            Some(Value::Number(number)) => number.to_string() == self.value,
            Some(Value::Bool(flag)) => self.value == if *flag { "true" } else { "false" },
            _ => false,
        };
        is_there == self.has
    }
}

impl ClaimPath {
    /// Reads a path. `None` if `text` is no path.
    pub fn parse(text: &str) -> Option<Self> {
        let names: Option<Vec<String>> = match text.strip_prefix('/') {
            Some(pointer) => pointer.split('/').map(unescape).collect(),
            None => text.split('.').map(plain).collect(),
        };
        names.map(Self)
    }

    /// Returns the value of the claim, if it is there and not `null`.
    pub(crate) fn find<'a>(&self, claims: &'a Map<String, Value>) -> Option<&'a Value> {
        let (first, rest) = self.0.split_first()?;
        let step = |value: &'a Value, name: &String| value.as_object()?.get(name);
        rest.iter().try_fold(claims.get(first)?, step).filter(|value| !value.is_null())
    }

    /// Path of the claim that says whether the value of this claim is verified: `email_verified` beside
    /// `email`.
    fn verification(&self) -> Self {
        let mut names = self.0.clone();
        if let Some(last) = names.last_mut() {
            last.push_str("_verified");
        }
        Self(names)
    }

    fn is_address(&self) -> bool {
        self.0.last().is_some_and(|name| name.ends_with("email"))
    }
}

/// Writes the names from the outside in, with dots between them.
impl fmt::Display for ClaimPath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0.join("."))
    }
}

/// Returns `name`, if it needs no escaping.
fn plain(name: &str) -> Option<String> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"_-:$".contains(&byte);
    (!name.is_empty() && name.bytes().all(legal)).then(|| name.to_owned())
}

/// Replaces the escapes of RFC 6901 section 4: `~1` is a slash and `~0` a tilde.
fn unescape(token: &str) -> Option<String> {
    let mut escapes = token.split('~').skip(1);
    let legal = !token.is_empty() && escapes.all(|rest| rest.starts_with(['0', '1']));
    legal.then(|| token.replace("~1", "/").replace("~0", "~"))
}

/// Content of a valid assertion.
pub struct Claims {
    /// `None` if the assertion names no user.
    pub user: Option<User>,
    /// Attributes in the assertion that can't be used.
    pub flaws: Flaws,
    /// End of the assertion's life, as time since 1970.
    pub expires: Duration,
    pub signed_in: SignedIn,
}

impl Claims {
    pub(super) fn into_said(self) -> Said {
        Said { user: self.user, flaws: self.flaws, signed_in: self.signed_in }
    }
}

impl Policy {
    /// Judges the `claims` of a token, and the claims that AWS puts into its `header`.
    pub(super) fn validate(
        &self,
        header: &Map<String, Value>,
        claims: &Map<String, Value>,
        now: Duration,
    ) -> Result<Claims, InvalidAssertion> {
        let no_header = Map::new();
        let header = if self.signer.is_some() { header } else { &no_header };
        let expires = self.check_times(header, claims, now)?;
        let issuers: Vec<_> =
            [claims.get("iss"), header.get("iss")].into_iter().flatten().collect();
        if let Some(ours) = &self.issuer
            && (issuers.is_empty() || issuers.iter().any(|issuer| *issuer != ours.as_str()))
        {
            return Err(InvalidAssertion::Issuer);
        }
        self.check_audience(claims.get("aud").or_else(|| header.get("client")))?;
        self.check_party(claims.get("azp"))?;
        if !self.required.iter().all(|required| required.is_met(claims)) {
            return Err(InvalidAssertion::Claims);
        }
        let Said { user, flaws, .. } = self.claims.read(claims)?;
        Ok(Claims { user, flaws, expires, signed_in: signed_in(claims) })
    }

    /// Checks begin and end of the token's life against `now`, with the leeway. Returns the end.
    fn check_times(
        &self,
        header: &Map<String, Value>,
        claims: &Map<String, Value>,
        now: Duration,
    ) -> Result<Duration, InvalidAssertion> {
        let ends = [claims.get("exp"), header.get("exp")].into_iter().flatten().map(seconds);
        let ends = ends.collect::<Option<Vec<_>>>().ok_or(InvalidAssertion::Claims)?;
        // Refuse a token without an end: a stolen token would be good for ever.
        let expires = ends.into_iter().min().ok_or(InvalidAssertion::Claims)?;
        if now >= expires.saturating_add(self.leeway) {
            return Err(InvalidAssertion::Expired);
        }
        for name in ["nbf", "iat"] {
            let Some(from) = claims.get(name) else { continue };
            if seconds(from).ok_or(InvalidAssertion::Claims)? > now.saturating_add(self.leeway) {
                return Err(InvalidAssertion::NotYetValid);
            }
        }
        Ok(expires)
    }

    fn check_audience(&self, audience: Option<&Value>) -> Result<(), InvalidAssertion> {
        if self.audience.is_empty() {
            return Ok(());
        }
        let ours = |value: &Value| self.audience.iter().any(|ours| value == ours.as_str());
        let fits = match audience {
            Some(Value::Array(audience)) => audience.iter().any(ours),
            Some(audience) => ours(audience),
            None => false,
        };
        if fits { Ok(()) } else { Err(InvalidAssertion::Audience) }
    }
}

impl Policy {
    /// Checks the party to which the assertion was issued (OpenID Connect Core 1.0, section 2, `azp`).
    fn check_party(&self, party: Option<&Value>) -> Result<(), InvalidAssertion> {
        let ours =
            |party: &Value| self.authorized_parties.iter().any(|ours| party == ours.as_str());
        if self.authorized_parties.is_empty() || party.is_some_and(ours) {
            Ok(())
        } else {
            Err(InvalidAssertion::Audience)
        }
    }
}

impl ClaimNames {
    /// Names the claim with the user's id, and no other claim.
    pub fn of_user(user: ClaimPath) -> Self {
        Self {
            user,
            email: None,
            name: None,
            organization: Vec::new(),
            groups: None,
            groups_separator: ',',
            admin_groups: Vec::new(),
            known_groups: KnownGroups::default(),
            grants: None,
            placeholders: Placeholders::default(),
        }
    }

    /// Reads the user. A flaw of the user's id is a fault of the assertion; a flaw of another attribute
    /// costs that attribute alone.
    fn read(&self, claims: &Map<String, Value>) -> Result<Said, InvalidAssertion> {
        let mut flaws = Flaws::default();
        let id = match self.text(self.user.find(claims)) {
            Ok(Some(id)) => id,
            // Cloudflare sends an empty `sub` for a machine.
            Ok(None) | Err(Flaw::Empty) => return Ok(Said::of(None, flaws)),
            Err(Flaw::Placeholder) => {
                return Ok(Said::of(None, Flaws::placeholder()));
            }
            Err(_) => return Err(InvalidAssertion::Claims),
        };
        // Some providers let users write any address into their profile.
        if self.user.is_address() && is_unverified(&self.user, claims) {
            return Err(InvalidAssertion::Claims);
        }
        let mut attribute = |attribute, path: Option<&ClaimPath>| {
            let path = path?;
            let said = match self.text(path.find(claims)) {
                Ok(Some(email)) if attribute == Attribute::Email => {
                    check_address(&email, path, claims).map(|()| Some(email))
                }
                said => said,
            };
            said.unwrap_or_else(|flaw| {
                flaws.add(attribute, flaw);
                None
            })
            .map(Box::from)
        };
        let email = attribute(Attribute::Email, self.email.as_ref());
        let name = attribute(Attribute::Name, self.name.as_ref());
        let organization = self.organization.iter().find(|path| path.find(claims).is_some());
        let named = attribute(Attribute::Organization, organization);
        let (is_admin, groups) = self.groups(claims, &mut flaws);
        let user = User {
            id: (&*id).into(),
            email,
            name,
            organization: Organization::new(named, flaws.of(Attribute::Organization)),
            is_admin,
            groups,
            grants: self.grants(claims, &mut flaws),
        };
        Ok(Said::of(Some(user), flaws))
    }

    /// Reads the user's groups: whether one of them is an admin group, and those on which resources depend. A
    /// group that is not text is no admin group.
    fn groups(&self, claims: &Map<String, Value>, flaws: &mut Flaws) -> (Option<bool>, Groups) {
        let (mut is_admin, mut known) = (false, GroupSet::default());
        let Some(path) = &self.groups else { return (None, Groups::In(known)) };
        let mut add = |group: &str| {
            is_admin |= self.admin_groups.iter().any(|admin| admin == group);
            known = known.and(self.known_groups.find(group));
        };
        let is_text = match path.find(claims) {
            None => true,
            Some(Value::String(groups)) => {
                let groups = groups.split(self.groups_separator);
                groups.for_each(|group| add(group.trim_matches(' ')));
                true
            }
            Some(Value::Array(groups)) => {
                groups.iter().filter_map(Value::as_str).for_each(add);
                groups.iter().all(Value::is_string)
            }
            Some(_) => false,
        };
        let are_read = !self.admin_groups.is_empty() || !self.known_groups.is_empty();
        if are_read && !is_text {
            flaws.add(Attribute::Groups, Flaw::WrongType);
        }
        let is_spoilt = !is_text && !self.known_groups.is_empty();
        let groups = if is_spoilt { Groups::Unusable } else { Groups::In(known) };
        ((!self.admin_groups.is_empty()).then_some(is_admin), groups)
    }

    /// Reads the user's grants: the list itself, an object with the list in `resources`, or a text with either.
    fn grants(&self, claims: &Map<String, Value>, flaws: &mut Flaws) -> Granted {
        let Some(path) = &self.grants else { return Granted::NotAsked };
        let read = match path.find(claims) {
            None => Err(GrantsError::Absent),
            Some(Value::String(text)) if text.trim().is_empty() => Err(GrantsError::Absent),
            Some(Value::String(text)) => Grants::parse(text.as_bytes()),
            Some(claim) => Grants::from_list_or_object(claim),
        };
        flaws.note_grants(&read);
        read.into()
    }

    /// Returns a claim as text, byte for byte. A whole number becomes the text of its digits.
    pub(crate) fn text<'c>(&self, claim: Option<&'c Value>) -> Result<Option<Cow<'c, str>>, Flaw> {
        let text = match claim {
            None => return Ok(None),
            Some(Value::String(text)) => Cow::Borrowed(text.as_str()),
            Some(Value::Number(number)) if !number.is_f64() => Cow::Owned(number.to_string()),
            Some(_) => return Err(Flaw::WrongType),
        };
        flaw(&text, &self.placeholders).map_or(Ok(Some(text)), Err)
    }
}

/// Reads the times of the login. A time that is no time counts as missing: without one, a logout holds for longer.
fn signed_in(claims: &Map<String, Value>) -> SignedIn {
    let time = |name: &str| claims.get(name).and_then(seconds);
    SignedIn { at: time("auth_time"), issued: time("iat") }
}

/// Checks an `email` that was found at `path`.
fn check_address(email: &str, path: &ClaimPath, claims: &Map<String, Value>) -> Result<(), Flaw> {
    if !is_address(email) {
        return Err(Flaw::NoAddress);
    }
    if is_unverified(path, claims) { Err(Flaw::Unverified) } else { Ok(()) }
}

/// Whether the issuer does not vouch for the address at `path`: in `..._verified` beside the address, or in
/// `email_verified` at the top if `email` there is the same address. Without either claim the address
/// counts as verified, since many issuers verify all addresses.
fn is_unverified(path: &ClaimPath, claims: &Map<String, Value>) -> bool {
    let beside = path.verification();
    let at_top = claims.get("email").filter(|email| path.find(claims) == Some(*email));
    // Claims of OpenID Connect, of older Google and Firebase libraries, and of Microsoft Entra.
    let names = ["email_verified", "emailVerified", "verified_email", "xms_edov"];
    let at_top = names.iter().filter_map(|name| at_top.and(claims.get(*name)));
    !beside.find(claims).into_iter().chain(at_top).all(confirms)
}

/// Whether a claim says yes, in one of the spellings that issuers use. `null` counts as yes.
fn confirms(claim: &Value) -> bool {
    match claim {
        Value::Null => true,
        Value::Bool(verified) => *verified,
        Value::Number(number) => number.as_f64() == Some(1.0),
        Value::String(text) => {
            ["true", "1", "yes"].iter().any(|yes| text.trim().eq_ignore_ascii_case(yes))
        }
        Value::Array(_) | Value::Object(_) => false,
    }
}

/// Reads a `NumericDate` (RFC 7519 section 2) as time since 1970.
pub(crate) fn seconds(value: &Value) -> Option<Duration> {
    let seconds = value.as_f64()?;
    // Times from the year 10000 on are refused: `from_secs_f64` panics if a `Duration` can't hold the value.
    (0.0..253_402_300_800.0).contains(&seconds).then(|| Duration::from_secs_f64(seconds))
}

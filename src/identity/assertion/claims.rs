//! What an assertion whose signature is right has to say before it is believed.

use std::borrow::Cow;
use std::time::Duration;

use serde_json::{Map, Value};

use super::{Algorithm, Fault};
use crate::identity::{User, flaw};

/// Which assertions are believed.
#[derive(Clone, Debug)]
pub struct Policy {
    pub issuer: String,
    /// One of them has to be among the assertion's. May be empty with a `signer` only.
    pub audience: Vec<String>,
    pub algorithms: Vec<Algorithm>,
    /// How far the clocks may be apart.
    pub leeway: Duration,
    /// The ARN of the AWS load balancer that signs. With it, the token is read as those are:
    /// padding, and `exp`, `iss` and `client` in its header.
    pub signer: Option<String>,
    pub claims: ClaimNames,
}

/// Where in an assertion the user stands.
#[derive(Clone, Debug)]
pub struct ClaimNames {
    pub user: ClaimPath,
    pub email: Option<ClaimPath>,
    pub name: Option<ClaimPath>,
    pub organization: Option<ClaimPath>,
    pub groups: Option<ClaimPath>,
    /// What stands between two groups, where the claim is a string and no array.
    pub groups_separator: char,
    /// Groups whose members are Velt admins. Without any, `is_admin` is not sent.
    pub admin_groups: Vec<String>,
}

/// The way to a claim, from the outside in: `sub`, `custom.user.id`, or as a JSON pointer
/// (RFC 6901) where a name has a dot in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimPath(Vec<String>);

impl ClaimPath {
    /// `None` if `text` is no such path.
    pub fn parse(text: &str) -> Option<Self> {
        let names: Option<Vec<String>> = match text.strip_prefix('/') {
            Some(pointer) => pointer.split('/').map(unescape).collect(),
            None => text.split('.').map(plain).collect(),
        };
        names.map(Self)
    }

    fn find<'a>(&self, claims: &'a Map<String, Value>) -> Option<&'a Value> {
        let (first, rest) = self.0.split_first()?;
        let step = |value: &'a Value, name: &String| value.as_object()?.get(name);
        rest.iter().try_fold(claims.get(first)?, step).filter(|value| !value.is_null())
    }

    fn is(&self, name: &str) -> bool {
        matches!(&self.0[..], [only] if only == name)
    }
}

/// A name that needs no escaping.
fn plain(name: &str) -> Option<String> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"_-:$".contains(&byte);
    (!name.is_empty() && name.bytes().all(legal)).then(|| name.to_owned())
}

/// RFC 6901 section 4: `~1` is a slash and `~0` a tilde.
fn unescape(token: &str) -> Option<String> {
    let mut escapes = token.split('~').skip(1);
    let legal = !token.is_empty() && escapes.all(|rest| rest.starts_with(['0', '1']));
    legal.then(|| token.replace("~1", "/").replace("~0", "~"))
}

/// What a valid assertion says.
pub struct Claims {
    /// `None` if it names nobody.
    pub user: Option<User>,
    /// The end of its life, as time since 1970.
    pub expires: Duration,
}

impl Policy {
    /// Judges the `claims` of a token, and of its `header` what AWS puts there.
    pub(super) fn judge(
        &self,
        header: &Map<String, Value>,
        claims: &Map<String, Value>,
        now: Duration,
    ) -> Result<Claims, Fault> {
        let no_header = Map::new();
        let header = if self.signer.is_some() { header } else { &no_header };
        let expires = self.check_times(header, claims, now)?;
        let issuers: Vec<_> =
            [claims.get("iss"), header.get("iss")].into_iter().flatten().collect();
        if issuers.is_empty() || issuers.iter().any(|issuer| *issuer != self.issuer.as_str()) {
            return Err(Fault::Issuer);
        }
        self.check_audience(claims.get("aud").or_else(|| header.get("client")))?;
        Ok(Claims { user: self.user(claims)?, expires })
    }

    /// When it expires; both ends by our clock give or take the leeway.
    fn check_times(
        &self,
        header: &Map<String, Value>,
        claims: &Map<String, Value>,
        now: Duration,
    ) -> Result<Duration, Fault> {
        let ends = [claims.get("exp"), header.get("exp")].into_iter().flatten().map(seconds);
        let ends = ends.collect::<Option<Vec<_>>>().ok_or(Fault::Claims)?;
        // A token without an end would be good for ever in the wrong hands.
        let expires = ends.into_iter().min().ok_or(Fault::Claims)?;
        if now >= expires.saturating_add(self.leeway) {
            return Err(Fault::Expired);
        }
        for name in ["nbf", "iat"] {
            let Some(from) = claims.get(name) else { continue };
            if seconds(from).ok_or(Fault::Claims)? > now.saturating_add(self.leeway) {
                return Err(Fault::NotYetValid);
            }
        }
        Ok(expires)
    }

    fn check_audience(&self, audience: Option<&Value>) -> Result<(), Fault> {
        if self.audience.is_empty() {
            return Ok(());
        }
        let ours = |value: &Value| self.audience.iter().any(|ours| value == ours.as_str());
        let fits = match audience {
            Some(Value::Array(audience)) => audience.iter().any(ours),
            Some(audience) => ours(audience),
            None => false,
        };
        if fits { Ok(()) } else { Err(Fault::Audience) }
    }

    fn user(&self, claims: &Map<String, Value>) -> Result<Option<User>, Fault> {
        let ClaimNames { user, email, name, organization, .. } = &self.claims;
        let optional = |path: &Option<ClaimPath>| match path {
            Some(path) => Ok(text(path.find(claims))?.map(Box::from)),
            None => Ok(None),
        };
        let Some(id) = text(user.find(claims))? else { return Ok(None) };
        // Anybody can write any address into his profile at some providers.
        let unverified = |value: &Value| *value == false || *value == "false";
        if user.is("email") && claims.get("email_verified").is_some_and(unverified) {
            return Err(Fault::Claims);
        }
        Ok(Some(User {
            id: (&*id).into(),
            email: optional(email)?,
            name: optional(name)?,
            organization: optional(organization)?,
            is_admin: self.is_admin(claims)?,
        }))
    }

    fn is_admin(&self, claims: &Map<String, Value>) -> Result<Option<bool>, Fault> {
        let ClaimNames { groups, groups_separator, admin_groups, .. } = &self.claims;
        let Some(path) = groups.as_ref().filter(|_| !admin_groups.is_empty()) else {
            return Ok(None);
        };
        let is_admin = |group: &str| admin_groups.iter().any(|admin| admin == group);
        match path.find(claims) {
            None => Ok(Some(false)),
            Some(Value::String(groups)) => Ok(Some(
                groups.split(*groups_separator).any(|group| is_admin(group.trim_matches(' '))),
            )),
            Some(Value::Array(groups)) => {
                let groups: Option<Vec<&str>> = groups.iter().map(Value::as_str).collect();
                Ok(Some(groups.ok_or(Fault::Claims)?.into_iter().any(is_admin)))
            }
            Some(_) => Err(Fault::Claims),
        }
    }
}

/// A claim as text, byte for byte. An empty one is none: so Cloudflare writes the `sub` of a
/// machine. A whole number is the text of its digits.
fn text(claim: Option<&Value>) -> Result<Option<Cow<'_, str>>, Fault> {
    let text = match claim {
        None => return Ok(None),
        Some(Value::String(text)) if text.is_empty() => return Ok(None),
        Some(Value::String(text)) => Cow::Borrowed(text.as_str()),
        Some(Value::Number(number)) if !number.is_f64() => Cow::Owned(number.to_string()),
        Some(_) => return Err(Fault::Claims),
    };
    if flaw(&text).is_some() { Err(Fault::Claims) } else { Ok(Some(text)) }
}

/// A `NumericDate` (RFC 7519 section 2) as time since 1970.
fn seconds(value: &Value) -> Option<Duration> {
    let seconds = value.as_f64()?;
    // Beyond the year 10000, `Duration` and common sense end.
    (0.0..253_402_300_800.0).contains(&seconds).then(|| Duration::from_secs_f64(seconds))
}

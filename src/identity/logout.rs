//! Logout tokens: an identity provider's signed word that a user was signed out (OpenID Connect Back-Channel
//! Logout 1.0, section 2).
//!
//! A logout token is checked as an assertion is, by a key and an algorithm of the configuration. It is no assertion,
//! and an assertion is no logout token: each lacks a claim that the other must have.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

use super::assertion::{Algorithm, ClaimNames, ClaimPath, InvalidAssertion, Jws};
use super::keys::{Found, KeyLocation, Keys};
use super::user::MAX_VALUE_BYTES;
use ground::metrics::IdentityMetrics;
use ground::outgoing::TlsError;
use ground::tls::Roots;
use ground::user_id::UserId;

/// Member of `events` that makes a JWT a logout token (section 2.4).
const EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";

/// Types that a logout token may name (section 2.4). Providers older than the final specification name `JWT`.
const TYPES: [&str; 2] = ["logout+jwt", "jwt"];

/// Longest time since `iat`. The specification recommends an `exp` of two minutes; a provider may send its token
/// again if it had no answer.
const MAX_AGE: Duration = Duration::from_secs(300);

/// Largest difference between the clocks that is tolerated.
const LEEWAY: Duration = Duration::from_secs(60);

/// Settings of logout tokens: what proves them, and where they name the user.
#[derive(Clone, Debug)]
pub struct LogoutSource {
    pub issuer: String,
    /// Audiences, of which the token must name at least one: the client ids of the login.
    pub audience: Vec<String>,
    /// Asymmetric algorithms. A shared secret would let each server that knows the secret sign users out.
    pub algorithms: Vec<Algorithm>,
    pub keys: KeyLocation,
    /// Certificate authorities that vouch for the server of the keys.
    pub roots: Roots,
    /// Claim that names the user as the identity of requests names them.
    pub user: ClaimPath,
}

/// Content of a valid logout token.
pub struct LogoutToken {
    pub user: UserId,
    /// Time at which the provider made the token, as time since 1970.
    pub issued: Duration,
    /// Name of the token, which the provider uses once.
    pub id: String,
    /// End of the time for which the token could be valid, as time since 1970.
    pub until: Duration,
}

/// Reason why a logout token is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogoutRefusal {
    /// The fault of the sender, or of the configuration.
    Invalid(InvalidLogout),
    /// The keys can't be fetched at the moment.
    KeysUnavailable,
}

/// Reason why a logout token is not valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidLogout {
    /// No JWS of the usual form, or of another type than `logout+jwt`.
    Malformed,
    Algorithm,
    UnknownKey,
    Signature,
    Issuer,
    Audience,
    /// `iat` is missing, or is no time.
    NoTime,
    /// `exp` has passed, or `iat` is too long ago.
    Expired,
    /// `iat` is in the future.
    NotYetValid,
    /// `jti` is missing, empty or too long.
    NoId,
    /// `events` does not have the member of a logout.
    Events,
    /// The token has a `nonce`: it may be an ID token.
    Nonce,
    /// The token has a `sid` and does not name the user.
    SessionAlone,
    /// The token names neither user nor session.
    NoSubject,
    /// The claim of the user is no text that can be a user's id.
    User,
}

/// Text for the answer to the provider.
impl fmt::Display for InvalidLogout {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Malformed => {
                "the logout token is no signed JWT of the type logout+jwt; an encrypted one can't be read"
            }
            Self::Algorithm => "its algorithm is not one of logout.oidc.algorithms",
            Self::UnknownKey => "the keys at logout.oidc.jwks_url do not include its key",
            Self::Signature => "its signature is wrong",
            Self::Issuer => "its iss is not logout.oidc.issuer",
            Self::Audience => "its aud does not name one of logout.oidc.audience",
            Self::NoTime => "its iat is missing, or one of its times is no number",
            Self::Expired => "it has expired, or was issued over five minutes ago; compare the clocks",
            Self::NotYetValid => "it was issued in the future; compare the clocks",
            Self::NoId => "its jti is missing, empty or over 256 bytes",
            Self::Events => {
                "its events claim does not have the member \
                 http://schemas.openid.net/event/backchannel-logout with an object"
            }
            Self::Nonce => "it has a nonce, which a logout token must not have",
            Self::SessionAlone => {
                "it names a session (sid) and no user. velt-sidecar knows users and no sessions: have \
                 the provider send sub too, and see logout.oidc.user_claim"
            }
            Self::NoSubject => "it has neither sub nor sid, and not the claim logout.oidc.user_claim",
            Self::User => {
                "the claim logout.oidc.user_claim, or sid, is no text of at most 256 bytes that \
                 can be an id"
            }
        })
    }
}

impl From<InvalidAssertion> for InvalidLogout {
    fn from(invalid: InvalidAssertion) -> Self {
        match invalid {
            InvalidAssertion::Algorithm => Self::Algorithm,
            InvalidAssertion::UnknownKey => Self::UnknownKey,
            InvalidAssertion::Signature => Self::Signature,
            // The other faults are of claims, which this module reads itself.
            _ => Self::Malformed,
        }
    }
}

/// Checks logout tokens.
pub struct LogoutTokens {
    source: LogoutSource,
    /// Reader of the claim that names the user.
    names: ClaimNames,
    keys: Arc<Keys>,
}

impl LogoutTokens {
    /// Makes a checker of logout tokens. Takes over the keys of `old` if both read the keys from the same place.
    ///
    /// # Errors
    ///
    /// If TLS for fetching keys can't be set up.
    pub fn new(
        source: LogoutSource,
        old: Option<&Self>,
        metrics: IdentityMetrics,
    ) -> Result<Self, TlsError> {
        let keys = match old {
            Some(old) if *old.keys.location() == source.keys => Arc::clone(&old.keys),
            _ => Arc::new(Keys::over_http(source.keys.clone(), &source.roots, metrics)?),
        };
        Ok(Self::with_keys(source, keys))
    }

    fn with_keys(source: LogoutSource, keys: Arc<Keys>) -> Self {
        Self { names: ClaimNames::of_user(source.user.clone()), source, keys }
    }

    /// Begins to fetch the keys, and returns at once. Needs a tokio runtime.
    pub fn start(&self) {
        self.keys.start();
    }

    /// Checks a logout token at `now`, the time since 1970. Waits a moment for keys, if need be.
    ///
    /// # Errors
    ///
    /// See [`LogoutRefusal`].
    pub async fn check(&self, token: &[u8], now: Duration) -> Result<LogoutToken, LogoutRefusal> {
        let claims = self.verified(token).await?;
        self.validate(&claims, now).map_err(LogoutRefusal::Invalid)
    }

    /// Returns the claims of a token whose signature is right. No claim is read before.
    async fn verified(&self, token: &[u8]) -> Result<Map<String, Value>, LogoutRefusal> {
        let invalid = |error: InvalidAssertion| LogoutRefusal::Invalid(error.into());
        let jws = Jws::parse(token, false).map_err(invalid)?;
        let algorithm = jws.algorithm(&self.source.algorithms, &TYPES).map_err(invalid)?;
        if algorithm.is_symmetric() {
            return Err(LogoutRefusal::Invalid(InvalidLogout::Algorithm));
        }
        let key = jws.key().map_err(invalid)?;
        let found = match self.keys.held(key) {
            Some(keys) => Found::Keys(keys),
            None => self.keys.wait_for(key).await,
        };
        match found {
            Found::Keys(keys) => jws.verified(&keys, key, algorithm).map_err(invalid),
            Found::Missing | Found::Unknown => {
                Err(LogoutRefusal::Invalid(InvalidLogout::UnknownKey))
            }
            Found::Unavailable => Err(LogoutRefusal::KeysUnavailable),
        }
    }

    /// Validates the claims, in the order of section 2.6.
    fn validate(
        &self,
        claims: &Map<String, Value>,
        now: Duration,
    ) -> Result<LogoutToken, InvalidLogout> {
        if claims.get("iss").is_none_or(|issuer| *issuer != *self.source.issuer) {
            return Err(InvalidLogout::Issuer);
        }
        if !self.is_for_us(claims.get("aud")) {
            return Err(InvalidLogout::Audience);
        }
        let (issued, until) = times(claims, now)?;
        let user = self.user(claims)?;
        let events = claims.get("events").and_then(Value::as_object);
        if !events.and_then(|events| events.get(EVENT)).is_some_and(Value::is_object) {
            return Err(InvalidLogout::Events);
        }
        if claims.contains_key("nonce") {
            return Err(InvalidLogout::Nonce);
        }
        let id = claims.get("jti").and_then(Value::as_str).filter(|id| is_name(id));
        let id = id.ok_or(InvalidLogout::NoId)?.to_owned();
        Ok(LogoutToken { user, issued, id, until })
    }

    fn is_for_us(&self, audience: Option<&Value>) -> bool {
        let ours = |value: &Value| self.source.audience.iter().any(|ours| value == ours.as_str());
        match audience {
            Some(Value::Array(audience)) => audience.iter().any(ours),
            Some(audience) => ours(audience),
            None => false,
        }
    }

    /// Reads the user. A token must have `sub`, `sid` or both; the claim of the user may be another one.
    fn user(&self, claims: &Map<String, Value>) -> Result<UserId, InvalidLogout> {
        let session = claims.get("sid");
        if session.is_some_and(|session| !session.as_str().is_some_and(is_name)) {
            return Err(InvalidLogout::User);
        }
        match self.names.text(self.names.user.find(claims)) {
            Ok(Some(user)) => Ok((&*user).into()),
            Ok(None) if session.is_some() => Err(InvalidLogout::SessionAlone),
            Ok(None) => Err(InvalidLogout::NoSubject),
            Err(_) => Err(InvalidLogout::User),
        }
    }
}

/// Whether `text` can be the name of a token or of a session.
fn is_name(text: &str) -> bool {
    matches!(text.len(), 1..=MAX_VALUE_BYTES)
}

/// Checks the times of a token. Returns the time at which it was made, and the end of its life.
///
/// The specification has required `exp` since 2022. A token of an older provider lacks it, and `iat` bounds its life
/// as closely.
fn times(
    claims: &Map<String, Value>,
    now: Duration,
) -> Result<(Duration, Duration), InvalidLogout> {
    let time = |name: &str| match claims.get(name) {
        None => Ok(None),
        Some(value) => super::assertion::seconds(value).map(Some).ok_or(InvalidLogout::NoTime),
    };
    let issued = time("iat")?.ok_or(InvalidLogout::NoTime)?;
    let latest = now.saturating_add(LEEWAY);
    if issued > latest || time("nbf")?.is_some_and(|from| from > latest) {
        return Err(InvalidLogout::NotYetValid);
    }
    let oldest = issued.saturating_add(MAX_AGE);
    let until = time("exp")?.map_or(oldest, |expires| expires.min(oldest)).saturating_add(LEEWAY);
    if now >= until {
        return Err(InvalidLogout::Expired);
    }
    Ok((issued, until))
}

#[cfg(test)]
mod tests;

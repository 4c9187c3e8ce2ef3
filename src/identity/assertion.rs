//! Identity in a signed JWT, in which a login proxy or an identity provider describes the user, and in the
//! session that a library of logins keeps in a cookie (`place`, `format`, `jwe`).
//!
//! There is no mode without a signature or a secret. An assertion is checked once and remembered by its exact
//! bytes for at most [`REMEMBERED`], so that most requests cost a digest and a look-up, and a key
//! that its owner takes back is out of use soon after.

mod claims;
mod format;
mod jwe;
mod jws;
mod place;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName};
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use secrecy::SecretString;
use serde_json::Map;

pub(crate) use self::claims::seconds;
pub use self::claims::{ClaimNames, ClaimPath, Claims, Policy, RequiredClaim};
use self::format::Form;
pub use self::format::Format;
pub(crate) use self::jws::Jws;
pub use self::jws::verify;
use self::place::bearer;
pub use self::place::{CookieName, Place, Places};
pub use super::algorithm::Algorithm;
use super::guard::Removal;
use super::headers::{checked, only};
use super::keys::{Found, KeyLocation, KeySet, Keys, Unfetched};
use super::user::{Flaws, Said};
use super::{Placeholders, Refusal};
use ground::json;
use ground::metrics::{AssertionResult, Flaw, IdentityMetrics};
use ground::outgoing::TlsError;
use ground::tls::Roots;

/// The longest assertion that is looked at, in bytes. Assertions of the large providers have 1 to 4 KiB.
pub const MAX_ASSERTION_BYTES: usize = 16 * 1024;

/// Time for which a checked assertion is believed without another check, if the assertion lives that long.
pub const REMEMBERED: Duration = Duration::from_secs(60);

/// Most assertions that are remembered: one for each user and browser of the last minute.
const MAX_REMEMBERED: u64 = 10_000;

/// Settings of assertions: their places, what proves them, and their claims.
#[derive(Clone, Debug)]
pub struct AssertionSource {
    pub places: Places,
    /// Form of the cookies among the places.
    pub format: Format,
    /// Place of the keys that check signatures; `None` if only secrets prove an assertion.
    pub keys: Option<KeyLocation>,
    /// Secrets that the login shares with the sidecar: they open sealed cookies, or check HS256. The second is
    /// there while the secret is being changed.
    pub secrets: Vec<SecretString>,
    /// Certificate authorities that vouch for the server of the keys.
    pub roots: Roots,
    pub policy: Policy,
    pub on_invalid: OnInvalid,
}

/// Treatment of a request with an assertion that is not valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnInvalid {
    /// The request is answered with 401.
    Refuse,
    /// The request goes on as anonymous.
    Anonymous,
}

/// Reason why an assertion is not valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidAssertion {
    Malformed,
    /// The cookie holds the id of a session that the app keeps, and no claims.
    SessionId,
    /// Cookies of several names fit the pattern of the configuration.
    SeveralCookies,
    /// The assertion's algorithm is not on the list.
    Algorithm,
    /// The publisher of the keys does not have the key that the assertion names.
    UnknownKey,
    Signature,
    /// Another load balancer signed the assertion.
    Signer,
    Issuer,
    Audience,
    Expired,
    /// The assertion's `nbf` or `iat` is in the future.
    NotYetValid,
    /// A claim is missing or has a value that it may not have.
    Claims,
}

/// Content of the assertion's places in a request.
pub(super) enum Presented<'a> {
    /// The first assertion, in the order of the places, and the further ones, which must not name another
    /// user.
    Assertions(Presentation<'a>, Vec<Presentation<'a>>),
    /// No assertion: the places are empty or blank, or `Authorization` has another scheme than `Bearer`. A
    /// placeholder stands for no assertion too, and is the flaw.
    Nothing(Flaws),
}

/// An assertion as a request presents it.
pub(super) struct Presentation<'a> {
    /// `Err` if the cookie has not the form that it should have.
    form: Result<Form<'a>, InvalidAssertion>,
    pub(super) by_cookie: bool,
}

/// Result of the look for an assertion and of the assertion's check.
pub(super) enum Verdict {
    /// A valid assertion, with or without a user.
    Valid(Said),
    /// No assertion, as in [`Presented::Nothing`].
    Absent(Flaws),
    Invalid(InvalidAssertion),
    /// Credentials of the app's own in `Authorization`, which the sidecar leaves to the app.
    OtherScheme,
    /// No keys are there to check the assertion with.
    Unavailable,
}

/// Checks assertions.
pub(super) struct Assertions {
    places: Places,
    format: Format,
    policy: Policy,
    on_invalid: OnInvalid,
    /// `None` if only secrets prove an assertion.
    keys: Option<Arc<Keys>>,
    secrets: Vec<SecretString>,
    /// Keys of HS256, made of the secrets.
    shared_keys: KeySet,
    remembered: Cache<[u8; 32], Remembered>,
    metrics: IdentityMetrics,
}

/// Result of a check, usable between two times since 1970. Wall-clock times, as in the assertion itself.
#[derive(Clone)]
struct Remembered {
    said: Said,
    from: Duration,
    until: Duration,
}

impl Assertions {
    /// Makes a checker of assertions. Takes over the keys of `old` if both read the keys from the same place.
    pub(super) fn new(
        source: AssertionSource,
        old: Option<&Self>,
        metrics: IdentityMetrics,
    ) -> Result<Self, TlsError> {
        let old = old.and_then(|old| old.keys.as_ref());
        let keys = match &source.keys {
            None => None,
            Some(location) if old.is_some_and(|old| old.location() == location) => old.cloned(),
            Some(location) => {
                let keys = Keys::over_http(location.clone(), &source.roots, metrics.clone())?;
                Some(Arc::new(keys))
            }
        };
        Ok(Self::with_keys(source, keys, metrics))
    }

    fn with_keys(
        source: AssertionSource,
        keys: Option<Arc<Keys>>,
        metrics: IdentityMetrics,
    ) -> Self {
        let remembered = Cache::builder()
            .max_capacity(MAX_REMEMBERED)
            .eviction_policy(EvictionPolicy::lru())
            // Only sweeps old entries: `until` decides whether an entry is still good.
            .time_to_live(REMEMBERED)
            .build();
        Self {
            places: source.places,
            format: source.format,
            policy: source.policy,
            on_invalid: source.on_invalid,
            keys,
            shared_keys: KeySet::of_secrets(&source.secrets),
            secrets: source.secrets,
            remembered,
            metrics,
        }
    }

    pub(super) fn start(&self) {
        if let Some(keys) = &self.keys {
            keys.start();
        }
    }

    pub(super) async fn keys_arrive(&self) -> Result<(), Unfetched> {
        match &self.keys {
            Some(keys) => keys.arrive().await,
            None => Ok(()),
        }
    }

    pub(super) fn observe(&self) {
        if let Some(keys) = &self.keys {
            keys.observe();
        }
    }

    pub(super) fn places(&self) -> &Places {
        &self.places
    }

    pub(super) fn refuses(&self) -> bool {
        self.on_invalid == OnInvalid::Refuse
    }

    /// Finds the assertions of a request. A blank line is no assertion: fronts that know no user send such
    /// lines.
    pub(super) fn find<'a>(&'a self, headers: &'a HeaderMap) -> Result<Presented<'a>, Refusal> {
        let (mut first, mut further, mut flaws) = (None, Vec::new(), Flaws::default());
        let mut cookies: Vec<&CookieName> = Vec::new();
        for place in self.places.iter() {
            if Places::is_superseded(place, &cookies) {
                continue;
            }
            let presentation = match place {
                Place::Header(header) => self.in_header(headers, header, &mut flaws)?,
                Place::Cookie(name) => name.find(headers)?.map(|found| {
                    cookies.push(name);
                    let form = found.and_then(|cookie| self.format.unpack(cookie));
                    Presentation { form, by_cookie: true }
                }),
            };
            match presentation {
                Some(presentation) if first.is_none() => first = Some(presentation),
                Some(presentation) => further.push(presentation),
                None => {}
            }
        }
        Ok(match first {
            Some(first) => Presented::Assertions(first, further),
            None => Presented::Nothing(flaws),
        })
    }

    /// Finds the assertion in a header. A placeholder in its place is added to `flaws`.
    fn in_header<'a>(
        &self,
        headers: &'a HeaderMap,
        header: &HeaderName,
        flaws: &mut Flaws,
    ) -> Result<Option<Presentation<'a>>, Refusal> {
        let Some(value) = only(headers, header)? else { return Ok(None) };
        let Some(token) = bearer(header, value.as_bytes()) else { return Ok(None) };
        if header != AUTHORIZATION {
            match checked(value, self.placeholders()) {
                Err(Flaw::Empty) => return Ok(None),
                Err(Flaw::Placeholder) => {
                    *flaws = Flaws::placeholder();
                    return Ok(None);
                }
                // Other flaws of a user's id don't count here: an assertion is longer, for instance.
                Ok(_) | Err(_) => {}
            }
        }
        let form = Ok(Form::Signed(Cow::Borrowed(token)));
        Ok(Some(Presentation { form, by_cookie: false }))
    }

    /// Returns the path of the claim with the user's grants.
    pub(super) fn grants_claim(&self) -> Option<&ClaimPath> {
        self.policy.claims.grants.as_ref()
    }

    /// Returns the values that stand for no value.
    pub(super) fn placeholders(&self) -> &Placeholders {
        &self.policy.claims.placeholders
    }

    /// Returns the removal by which the app does not see the assertion's header. `Authorization` stays: the
    /// header may be meant for the app, which has to check its value with or without the sidecar. So do
    /// cookies.
    pub(super) fn removal(&self) -> Removal<'_> {
        match self.places.header() {
            Some(header) if header != AUTHORIZATION => Removal::One(header),
            _ => Removal::Nothing,
        }
    }

    /// Returns the removal of every plain header beside the assertion's own.
    pub(super) fn plain_headers(&self) -> Removal<'_> {
        self.places.header().map_or(Removal::All, Removal::AllBut)
    }

    /// Returns the verdict on an assertion at `now`, the time since 1970, if it was checked a moment ago.
    pub(super) fn recall(&self, presented: &Presentation<'_>, now: Duration) -> Option<Verdict> {
        let form = presented.form.as_ref().ok()?;
        let remembered = self.remembered.get(&name_of(form))?;
        // The clock was set back if the check is later than `now`: such a check does not count.
        if now < remembered.from || remembered.until <= now {
            return None;
        }
        self.metrics.assertions.increment(AssertionResult::Cached);
        Some(Verdict::Valid(remembered.said))
    }

    /// Checks the proof and the claims of an assertion. Waits a moment for keys, if need be.
    pub(super) async fn verify(&self, presented: &Presentation<'_>, now: Duration) -> Verdict {
        let checked = match &presented.form {
            Ok(form) => self.check(form, now).await,
            Err(invalid) => Err(*invalid),
        };
        self.metrics.assertions.increment(match &checked {
            Ok(Some(checked)) if checked.said.user.is_some() => AssertionResult::Verified,
            Ok(Some(_)) => AssertionResult::NoUser,
            Ok(None) => AssertionResult::KeysUnavailable,
            Err(invalid) if self.is_other_scheme(presented, *invalid) => {
                return Verdict::OtherScheme;
            }
            Err(invalid) => invalid.result(),
        });
        match checked {
            Ok(Some(checked)) => {
                if checked.until > now
                    && let Ok(form) = &presented.form
                {
                    self.remembered.insert(name_of(form), checked.clone());
                }
                Verdict::Valid(checked.said)
            }
            Ok(None) => Verdict::Unavailable,
            Err(invalid) => Verdict::Invalid(invalid),
        }
    }

    /// Returns the verdict of [`Self::verify`] with the keys at hand: fetches no keys, waits for no keys, and
    /// counts and remembers nothing.
    pub(super) fn examine(&self, presented: &Presentation<'_>, now: Duration) -> Verdict {
        let checked = match &presented.form {
            Ok(form) => self.check_with(form, now, Keys::peek),
            Err(invalid) => Err(*invalid),
        };
        match checked {
            Ok(Checked::Claims(claims)) => Verdict::Valid(claims.into_said()),
            Ok(Checked::NoKeys | Checked::Missing(_)) => Verdict::Unavailable,
            Err(invalid) if self.is_other_scheme(presented, invalid) => Verdict::OtherScheme,
            Err(invalid) => Verdict::Invalid(invalid),
        }
    }

    /// Whether an assertion is in `Authorization` and has not the form of a JWT. Such a token (opaque,
    /// encrypted) is the app's own, and not an invalid assertion.
    fn is_other_scheme(&self, presented: &Presentation<'_>, invalid: InvalidAssertion) -> bool {
        let Ok(Form::Signed(token)) = &presented.form else { return false };
        !presented.by_cookie
            && self.places.header() == Some(&AUTHORIZATION)
            && invalid == InvalidAssertion::Malformed
            && !jws::has_form(token)
    }

    /// Checks an assertion. `None` if there are no keys for the check.
    async fn check(
        &self,
        form: &Form<'_>,
        now: Duration,
    ) -> Result<Option<Remembered>, InvalidAssertion> {
        let held =
            |keys: &Keys, id: Option<&str>| keys.held(id).map_or(Found::Missing, Found::Keys);
        let checked = match self.check_with(form, now, held)? {
            Checked::Missing(id) => {
                let keys = self.keys.as_ref().ok_or(InvalidAssertion::Algorithm)?;
                let found = keys.wait_for(id.as_deref()).await;
                self.check_with(form, now, |_, _| found)?
            }
            checked => checked,
        };
        let Checked::Claims(claims) = checked else { return Ok(None) };
        let until = claims.expires.min(now + REMEMBERED);
        Ok(Some(Remembered { said: claims.into_said(), from: now, until }))
    }

    /// Checks an assertion by the secrets, or by the keys that `look_up` finds.
    fn check_with(
        &self,
        form: &Form<'_>,
        now: Duration,
        look_up: impl FnOnce(&Keys, Option<&str>) -> Found,
    ) -> Result<Checked, InvalidAssertion> {
        let token = match form {
            Form::Signed(token) => token,
            Form::Sealed { token, sealing, name } => {
                let claims = jwe::open(token, *sealing, &self.secrets, name)?;
                return self.policy.validate(&Map::new(), &claims, now).map(Checked::Claims);
            }
        };
        let (algorithm, id) = jws::key_of(token, &self.policy)?;
        if algorithm.is_symmetric() {
            return verify(token, &self.policy, &self.shared_keys, now).map(Checked::Claims);
        }
        // A token that is signed with a private key, where only secrets are configured.
        let keys = self.keys.as_ref().ok_or(InvalidAssertion::Algorithm)?;
        match look_up(keys, id.as_deref()) {
            Found::Keys(keys) => verify(token, &self.policy, &keys, now).map(Checked::Claims),
            Found::Missing => Ok(Checked::Missing(id)),
            Found::Unknown => Err(InvalidAssertion::UnknownKey),
            Found::Unavailable => Ok(Checked::NoKeys),
        }
    }
}

/// Result of a check with the keys at hand.
enum Checked {
    Claims(Claims),
    /// The key of this id is not at hand, and may be fetched.
    Missing(Option<String>),
    /// There are no keys, and none can be fetched now.
    NoKeys,
}

/// Returns the digest by which an assertion is remembered: a digest can't be used in place of the assertion.
/// The name of a sealed cookie is part of its key, and so of its digest.
fn name_of(form: &Form<'_>) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    match form {
        Form::Signed(token) => context.update(token),
        Form::Sealed { token, name, .. } => {
            // No token and no cookie's name has a zero byte.
            context.update(name.as_bytes());
            context.update(&[0]);
            context.update(token);
        }
    }
    context.finish().as_ref().try_into().expect("SHA-256 has 32 bytes")
}

impl InvalidAssertion {
    /// Returns the reason in words, for the answer to the request.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Malformed => "it is not a signed JWT, or a session, of the usual form",
            Self::SessionId => {
                "the cookie holds the id of a session that the app keeps in a database, and no claims: \
                 use identity.source = \"app\""
            }
            Self::SeveralCookies => {
                "cookies of several names fit identity.assertion.cookie, as after a change of the user \
                 without signing out; sign out, or write the whole name"
            }
            Self::Algorithm => "its algorithm is not one of identity.assertion.algorithms",
            Self::UnknownKey => "its issuer's keys do not include the key that it names",
            Self::Signature => "its signature is wrong, or another secret has sealed it",
            Self::Signer => "identity.assertion.signer did not sign it",
            Self::Issuer => "it is not from identity.assertion.issuer",
            Self::Audience => {
                "it is not meant for identity.assertion.audience or authorized_parties"
            }
            Self::Expired => "it has expired; sign in again",
            Self::NotYetValid => "it is not valid yet; compare the clocks",
            Self::Claims => "a claim that is needed is missing or is not valid",
        }
    }

    pub(super) fn result(self) -> AssertionResult {
        match self {
            Self::Malformed => AssertionResult::Malformed,
            Self::SessionId => AssertionResult::SessionId,
            Self::SeveralCookies => AssertionResult::SeveralCookies,
            Self::Algorithm => AssertionResult::Algorithm,
            Self::UnknownKey => AssertionResult::UnknownKey,
            Self::Signature => AssertionResult::Signature,
            Self::Signer => AssertionResult::Signer,
            Self::Issuer => AssertionResult::Issuer,
            Self::Audience => AssertionResult::Audience,
            Self::Expired => AssertionResult::Expired,
            Self::NotYetValid => AssertionResult::NotYetValid,
            Self::Claims => AssertionResult::Claims,
        }
    }
}

#[cfg(test)]
mod tests;

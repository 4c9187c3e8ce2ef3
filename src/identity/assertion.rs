//! Identity in a signed JWT, in which a login proxy or an identity provider describes the user.
//!
//! There is no mode without a signature. An assertion is checked once and remembered by its exact
//! bytes for at most [`REMEMBERED`], so that most requests cost a digest and a look-up, and a key
//! that its owner takes back is out of use soon after.

mod claims;
mod jws;

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue};
use moka::policy::EvictionPolicy;
use moka::sync::Cache;

pub use self::claims::{ClaimNames, ClaimPath, Claims, Policy};
pub use self::jws::verify;
pub use super::algorithm::Algorithm;
use super::guard::Removal;
use super::headers::{checked, only};
use super::keys::{Found, KeyLocation, Keys, Unfetched};
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

/// Settings of signed assertions: their header, their signer's keys, and their claims.
#[derive(Clone, Debug)]
pub struct AssertionSource {
    /// Header of the assertion. `Authorization` is read as `Bearer`, any other header as the bare token.
    pub header: HeaderName,
    pub keys: KeyLocation,
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

/// Content of the assertion's header in a request.
pub(super) enum Presented<'a> {
    Assertion(&'a HeaderValue),
    /// No assertion: the header is absent or blank, or `Authorization` has another scheme than `Bearer`. A
    /// placeholder stands for no assertion too, and is the flaw.
    Nothing(Flaws),
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
    header: HeaderName,
    policy: Policy,
    on_invalid: OnInvalid,
    keys: Arc<Keys>,
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
        let old = old.filter(|old| *old.keys.location() == source.keys);
        let keys = match old {
            Some(old) => Arc::clone(&old.keys),
            None => Arc::new(Keys::over_http(source.keys.clone(), &source.roots, metrics.clone())?),
        };
        Ok(Self::with_keys(source, keys, metrics))
    }

    fn with_keys(source: AssertionSource, keys: Arc<Keys>, metrics: IdentityMetrics) -> Self {
        let remembered = Cache::builder()
            .max_capacity(MAX_REMEMBERED)
            .eviction_policy(EvictionPolicy::lru())
            // Only sweeps old entries: `until` decides whether an entry is still good.
            .time_to_live(REMEMBERED)
            .build();
        Self {
            header: source.header,
            policy: source.policy,
            on_invalid: source.on_invalid,
            keys,
            remembered,
            metrics,
        }
    }

    pub(super) fn start(&self) {
        self.keys.start();
    }

    pub(super) async fn keys_arrive(&self) -> Result<(), Unfetched> {
        self.keys.arrive().await
    }

    pub(super) fn observe(&self) {
        self.keys.observe();
    }

    pub(super) fn header(&self) -> &HeaderName {
        &self.header
    }

    pub(super) fn refuses(&self) -> bool {
        self.on_invalid == OnInvalid::Refuse
    }

    /// Finds the assertion of a request. A blank line is no assertion: fronts that know no user send such
    /// lines.
    pub(super) fn find<'a>(&self, headers: &'a HeaderMap) -> Result<Presented<'a>, Refusal> {
        let nothing = Presented::Nothing(Flaws::default());
        let Some(value) = only(headers, &self.header)? else { return Ok(nothing) };
        let presented = match bearer(&self.header, value.as_bytes()) {
            None => nothing,
            Some(_) if self.header == AUTHORIZATION => Presented::Assertion(value),
            Some(_) => match checked(value, self.placeholders()) {
                Err(Flaw::Empty) => nothing,
                Err(Flaw::Placeholder) => Presented::Nothing(Flaws::placeholder()),
                // Other flaws of a user's id don't count here: an assertion is longer, for instance.
                Ok(_) | Err(_) => Presented::Assertion(value),
            },
        };
        Ok(presented)
    }

    /// Returns the path of the claim with the user's grants.
    pub(super) fn grants_claim(&self) -> Option<&ClaimPath> {
        self.policy.claims.grants.as_ref()
    }

    /// Returns the values that stand for no value.
    pub(super) fn placeholders(&self) -> &Placeholders {
        &self.policy.claims.placeholders
    }

    /// Returns the removal by which the app does not see the assertion. `Authorization` stays: the header may
    /// be meant for the app, which has to check its value with or without the sidecar.
    pub(super) fn removal(&self) -> Removal<'_> {
        if self.header == AUTHORIZATION { Removal::Nothing } else { Removal::One(&self.header) }
    }

    /// Returns the verdict on `assertion` at `now`, the time since 1970, if it was checked a moment ago.
    pub(super) fn recall(&self, assertion: &HeaderValue, now: Duration) -> Option<Verdict> {
        let remembered = self.remembered.get(&name_of(self.token(assertion)))?;
        // The clock was set back if the check is later than `now`: such a check does not count.
        if now < remembered.from || remembered.until <= now {
            return None;
        }
        self.metrics.assertions.increment(AssertionResult::Cached);
        Some(Verdict::Valid(remembered.said))
    }

    /// Checks the signature and the claims of `assertion`. Waits a moment for keys, if need be.
    pub(super) async fn verify(&self, assertion: &HeaderValue, now: Duration) -> Verdict {
        let token = self.token(assertion);
        let checked = self.check(token, now).await;
        self.metrics.assertions.increment(match &checked {
            Ok(Some(checked)) if checked.said.user.is_some() => AssertionResult::Verified,
            Ok(Some(_)) => AssertionResult::NoUser,
            Ok(None) => AssertionResult::KeysUnavailable,
            Err(invalid) if self.is_other_scheme(token, *invalid) => return Verdict::OtherScheme,
            Err(invalid) => invalid.result(),
        });
        match checked {
            Ok(Some(checked)) => {
                if checked.until > now {
                    self.remembered.insert(name_of(token), checked.clone());
                }
                Verdict::Valid(checked.said)
            }
            Ok(None) => Verdict::Unavailable,
            Err(invalid) => Verdict::Invalid(invalid),
        }
    }

    /// Returns the verdict of [`Self::verify`] with the keys at hand: fetches no keys, waits for no keys, and
    /// counts and remembers nothing.
    pub(super) fn examine(&self, assertion: &HeaderValue, now: Duration) -> Verdict {
        let token = self.token(assertion);
        let checked =
            jws::key_of(token, &self.policy).and_then(|key| match self.keys.peek(key.as_deref()) {
                Found::Keys(keys) => verify(token, &self.policy, &keys, now).map(Some),
                Found::Unknown => Err(InvalidAssertion::UnknownKey),
                Found::Unavailable => Ok(None),
            });
        match checked {
            Ok(Some(claims)) => Verdict::Valid(claims.into_said()),
            Ok(None) => Verdict::Unavailable,
            Err(invalid) if self.is_other_scheme(token, invalid) => Verdict::OtherScheme,
            Err(invalid) => Verdict::Invalid(invalid),
        }
    }

    /// Whether `token` is in `Authorization` and has not the form of a JWT. Such a token (opaque, encrypted)
    /// is the app's own, and not an invalid assertion.
    fn is_other_scheme(&self, token: &[u8], invalid: InvalidAssertion) -> bool {
        self.header == AUTHORIZATION
            && invalid == InvalidAssertion::Malformed
            && !jws::has_form(token)
    }

    fn token<'a>(&self, assertion: &'a HeaderValue) -> &'a [u8] {
        bearer(&self.header, assertion.as_bytes()).unwrap_or_default()
    }

    /// Checks `token`. `None` if there are no keys for the check.
    async fn check(
        &self,
        token: &[u8],
        now: Duration,
    ) -> Result<Option<Remembered>, InvalidAssertion> {
        let key = jws::key_of(token, &self.policy)?;
        let found = match self.keys.held(key.as_deref()) {
            Some(keys) => Found::Keys(keys),
            None => self.keys.wait_for(key.as_deref()).await,
        };
        let keys = match found {
            Found::Keys(keys) => keys,
            Found::Unknown => return Err(InvalidAssertion::UnknownKey),
            Found::Unavailable => return Ok(None),
        };
        let claims = verify(token, &self.policy, &keys, now)?;
        let until = claims.expires.min(now + REMEMBERED);
        Ok(Some(Remembered { said: claims.into_said(), from: now, until }))
    }
}

/// Returns the digest by which an assertion is remembered: a digest can't be used in place of the assertion.
fn name_of(token: &[u8]) -> [u8; 32] {
    digest(&SHA256, token).as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// Returns the token in a header's value; `None` if the value is no assertion at all.
fn bearer<'a>(header: &HeaderName, value: &'a [u8]) -> Option<&'a [u8]> {
    if header != AUTHORIZATION {
        return Some(value);
    }
    // RFC 9110 section 11.1: the scheme is in any case, one or more spaces follow.
    let (scheme, token) = value.split_at_checked("bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

impl InvalidAssertion {
    /// Returns the reason in words, for the answer to the request.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Malformed => "it is not a signed JWT of the usual form",
            Self::Algorithm => "its algorithm is not one of identity.assertion.algorithms",
            Self::UnknownKey => "its issuer's keys do not include the key that it names",
            Self::Signature => "its signature is wrong",
            Self::Signer => "identity.assertion.signer did not sign it",
            Self::Issuer => "it is not from identity.assertion.issuer",
            Self::Audience => "it is not meant for identity.assertion.audience",
            Self::Expired => "it has expired; sign in again",
            Self::NotYetValid => "it is not valid yet; compare the clocks",
            Self::Claims => "a claim that is needed is missing or is not valid",
        }
    }

    pub(super) fn result(self) -> AssertionResult {
        match self {
            Self::Malformed => AssertionResult::Malformed,
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

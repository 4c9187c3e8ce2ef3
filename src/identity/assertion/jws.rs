//! Reader of a signed assertion, a compact JWS (RFC 7515). Nothing in a token decides how it is checked.
//!
//! Key and algorithm come from the configuration; the token's header only has to agree. `jku`, `jwk`, `x5u`
//! and `x5c`, by which a token brings its own key, are not looked at.

use std::time::Duration;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde_json::{Map, Value};

use super::claims::{Claims, Policy};
use super::{InvalidAssertion, MAX_ASSERTION_BYTES, json};
use crate::algorithm::Algorithm;
use crate::keys::KeySet;

/// Base64url as in RFC 7515: without padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::RequireNone),
);

/// Base64url as AWS writes it: with padding, though AWS's own libraries also read it without.
const PADDED_BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Types of assertions. A logout token (OpenID Connect Back-Channel Logout 1.0) has the same issuer, audience and
/// subject as an ID token, but is no ID token.
const TYPES: [&str; 2] = ["jwt", "at+jwt"];

/// Parts of a token whose signature is not checked yet: no part may be believed.
pub(crate) struct Jws<'a> {
    header: Map<String, Value>,
    payload: &'a str,
    /// Bytes that the signature covers: header and payload as they came, in a token of an AWS load balancer
    /// with the padding.
    signed: &'a [u8],
    signature: &'a str,
    base64: &'static GeneralPurpose,
}

impl<'a> Jws<'a> {
    /// Takes a token apart. `padded` allows padding, as AWS writes it.
    pub(crate) fn parse(token: &'a [u8], padded: bool) -> Result<Self, InvalidAssertion> {
        if token.len() > MAX_ASSERTION_BYTES {
            return Err(InvalidAssertion::Malformed);
        }
        let token = std::str::from_utf8(token).map_err(|_| InvalidAssertion::Malformed)?;
        let mut parts = token.split('.');
        let (Some(header), Some(payload), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(InvalidAssertion::Malformed);
        };
        let base64 = if padded { &PADDED_BASE64 } else { &BASE64 };
        let decoded = base64.decode(header).map_err(|_| InvalidAssertion::Malformed)?;
        let signature = if padded { signature.trim_end_matches('=') } else { signature };
        Ok(Self {
            header: json::object(&decoded).ok_or(InvalidAssertion::Malformed)?,
            payload,
            signed: &token.as_bytes()[..header.len() + 1 + payload.len()],
            signature,
            base64,
        })
    }

    /// Returns the algorithm if it is one of `allowed`. Refuses extensions, and tokens of other types than `types`
    /// (RFC 8725 section 3.11). A token may leave its type out.
    pub(crate) fn algorithm(
        &self,
        allowed: &[Algorithm],
        types: &[&str],
    ) -> Result<Algorithm, InvalidAssertion> {
        // Extensions that a reader has to understand (RFC 7515 section 4.1.11): the sidecar knows none.
        if self.header.contains_key("crit") || self.header.contains_key("b64") {
            return Err(InvalidAssertion::Malformed);
        }
        match self.header.get("typ") {
            None => {}
            Some(Value::String(kind)) => {
                let kind = kind.to_ascii_lowercase();
                let kind = kind.strip_prefix("application/").unwrap_or(&kind);
                if !types.contains(&kind) {
                    return Err(InvalidAssertion::Malformed);
                }
            }
            Some(_) => return Err(InvalidAssertion::Malformed),
        }
        let name =
            self.header.get("alg").and_then(Value::as_str).ok_or(InvalidAssertion::Malformed)?;
        let algorithm = Algorithm::from_name(name).ok_or(InvalidAssertion::Algorithm)?;
        if allowed.contains(&algorithm) { Ok(algorithm) } else { Err(InvalidAssertion::Algorithm) }
    }

    /// Returns the id of the key that the token names.
    pub(crate) fn key(&self) -> Result<Option<&str>, InvalidAssertion> {
        match self.header.get("kid") {
            None => Ok(None),
            Some(Value::String(key)) if !key.is_empty() && key.len() <= 256 => Ok(Some(key)),
            Some(_) => Err(InvalidAssertion::Malformed),
        }
    }

    /// Returns the claims, if one of `keys` made the signature.
    pub(crate) fn verified(
        &self,
        keys: &KeySet,
        key: Option<&str>,
        algorithm: Algorithm,
    ) -> Result<Map<String, Value>, InvalidAssertion> {
        let mut fitting = keys.fitting(key, algorithm).peekable();
        if fitting.peek().is_none() {
            return Err(InvalidAssertion::UnknownKey);
        }
        if !fitting.any(|key| key.verifies(self.signed, self.signature, algorithm)) {
            return Err(InvalidAssertion::Signature);
        }
        let payload = self.base64.decode(self.payload).map_err(|_| InvalidAssertion::Malformed)?;
        json::object(&payload).ok_or(InvalidAssertion::Malformed)
    }

    /// Checks the signer. All AWS load balancers of a region share one key, those of other accounts too, so
    /// only the signer's name in the signed header tells the operator's own load balancer.
    fn check_signer(&self, policy: &Policy) -> Result<(), InvalidAssertion> {
        let Some(signer) = &policy.signer else { return Ok(()) };
        let named = self.header.get("signer").and_then(Value::as_str);
        if named == Some(signer) { Ok(()) } else { Err(InvalidAssertion::Signer) }
    }
}

/// Whether `token`, or one of a list of tokens, has the form of a signed JWT: three parts of which the
/// first is a JSON object that names an algorithm (RFC 7515 section 4.1.1). Says nothing of the signature.
pub(super) fn has_form(token: &[u8]) -> bool {
    let legal = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_=".contains(byte);
    token.split(|byte| b", \t".contains(byte)).any(|token| {
        let mut parts = token.split(|byte| *byte == b'.');
        let (Some(header), Some(payload), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return false;
        };
        payload.iter().chain(signature).all(legal)
            && PADDED_BASE64.decode(header).is_ok_and(|header| {
                serde_json::from_slice::<Value>(&header)
                    .is_ok_and(|header| header.get("alg").is_some())
            })
    })
}

/// Returns the algorithm of `token`, and the id of the key that it names, if the policy accepts the header.
pub(super) fn key_of(
    token: &[u8],
    policy: &Policy,
) -> Result<(Algorithm, Option<String>), InvalidAssertion> {
    let jws = Jws::parse(token, policy.signer.is_some())?;
    let algorithm = jws.algorithm(&policy.algorithms, &TYPES)?;
    jws.check_signer(policy)?;
    Ok((algorithm, jws.key()?.map(str::to_owned)))
}

/// Returns the claims of `token`, if one of `keys` signed it and it passes `policy` at `now`, the time since
/// 1970.
///
/// # Errors
///
/// The first [`InvalidAssertion`] found: faults of the form first, then of the signature, then of the claims.
pub fn verify(
    token: &[u8],
    policy: &Policy,
    keys: &KeySet,
    now: Duration,
) -> Result<Claims, InvalidAssertion> {
    let jws = Jws::parse(token, policy.signer.is_some())?;
    let algorithm = jws.algorithm(&policy.algorithms, &TYPES)?;
    jws.check_signer(policy)?;
    // A shared secret has no id: a token may name one all the same.
    let key = if algorithm.is_symmetric() { None } else { jws.key()? };
    let claims = jws.verified(keys, key, algorithm)?;
    policy.validate(&jws.header, &claims, now)
}

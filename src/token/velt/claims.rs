//! Claims read from a minted JWT. Velt documents neither the claims nor a key to verify them, so the claims
//! are never a reason to trust a token, only a reason to distrust it.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::DOCUMENTED_LIFE;

/// Facts that a minted token shows of itself, without the token: for `doctor`, since Velt documents none of
/// them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TokenFacts {
    /// Length of the token in bytes.
    pub bytes: usize,
    /// `alg` in the token's header. All fields but `bytes` are empty if the token is not a JWT.
    pub algorithm: Option<String>,
    /// Names of the claims, sorted.
    pub claims: Vec<String>,
    /// `iat`, `nbf` and `exp` in Unix seconds.
    pub issued_at: Option<f64>,
    pub not_before: Option<f64>,
    pub expires_at: Option<f64>,
    /// Whether the token names the user for whom it was requested; `None` if the token has no user claim.
    pub names_user: Option<bool>,
}

impl TokenFacts {
    pub(super) fn of(token: &str, user: &str) -> Self {
        let bytes = token.len();
        let (Some(header), Some(claims)) = (part(token, 0), part(token, 1)) else {
            return Self { bytes, ..Self::default() };
        };
        let time = |name: &str| claims.get(name).and_then(Value::as_f64);
        Self {
            bytes,
            algorithm: header.get("alg").and_then(Value::as_str).map(str::to_owned),
            issued_at: time("iat"),
            not_before: time("nbf"),
            expires_at: time("exp"),
            names_user: Claims::peek(token).and_then(|claims| claims.names(user)),
            claims: claims.keys().cloned().collect(),
        }
    }
}

/// Returns a part of `token`, if `token` is a JWT (RFC 7519 section 3) and the part is a JSON object.
fn part(token: &str, index: usize) -> Option<Map<String, Value>> {
    let parts: Vec<&str> = token.split('.').collect();
    let part = parts.get(index).filter(|_| parts.len() >= 3)?;
    let part = URL_SAFE_NO_PAD.decode(part.trim_end_matches('=')).ok()?;
    serde_json::from_slice(&part).ok()
}

/// Claims that the sidecar reads. Each claim is read separately: an odd `exp` must not hide the user.
#[derive(Default)]
pub(super) struct Claims {
    user_id: Option<Value>,
    exp: Option<f64>,
}

impl Claims {
    /// Returns the claims of `token`, if `token` is a JWT.
    pub(super) fn peek(token: &str) -> Option<Self> {
        let mut claims = part(token, 1)?;
        let exp = claims.get("exp").and_then(Value::as_f64);
        Some(Self { user_id: claims.remove("userId"), exp })
    }

    /// Whether the token names this user; `None` if the token has no user claim.
    pub(super) fn names(&self, user: &str) -> Option<bool> {
        match self.user_id.as_ref()? {
            Value::String(named) => Some(named == user),
            Value::Number(named) => Some(named.to_string() == user),
            Value::Null => None,
            _ => Some(false),
        }
    }

    /// Returns the time from `velt_now` to `exp`; zero if `exp` has passed.
    pub(super) fn life(&self, velt_now: Duration) -> Option<Duration> {
        let exp = self.exp.filter(|exp| exp.is_finite())?;
        // Longer than any life that is believed, and far below the value at which `Duration` panics.
        let left = (exp - velt_now.as_secs_f64()).clamp(0.0, DOCUMENTED_LIFE.as_secs_f64());
        Some(Duration::from_secs_f64(left))
    }
}

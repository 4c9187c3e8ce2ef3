//! What can be read of a minted JWT. Velt documents neither its claims nor a key to verify them,
//! so this is never a reason to trust a token, only to distrust it.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::DOCUMENTED_LIFE;
use crate::token::Subject;

/// The claims that matter here. Each is read for itself: an odd `exp` must not hide the user.
#[derive(Default)]
pub(super) struct Claims {
    user_id: Option<Value>,
    exp: Option<f64>,
}

impl Claims {
    /// The claims of `token`, if it is a JWT (RFC 7519 section 3) with a JSON object within.
    pub(super) fn peek(token: &str) -> Option<Self> {
        let mut parts = token.split('.');
        let (_, payload, _) = (parts.next()?, parts.next()?, parts.next()?);
        let payload = URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?;
        let mut claims: Map<String, Value> = serde_json::from_slice(&payload).ok()?;
        let exp = claims.get("exp").and_then(Value::as_f64);
        Some(Self { user_id: claims.remove("userId"), exp })
    }

    /// Whether the token names this user; `None` if it names nobody.
    pub(super) fn names(&self, subject: &Subject) -> Option<bool> {
        match self.user_id.as_ref()? {
            Value::String(user) => Some(**user == *subject.user),
            Value::Number(user) => Some(user.to_string() == *subject.user),
            Value::Null => None,
            _ => Some(false),
        }
    }

    /// From Velt's now to `exp`; zero if that has passed.
    pub(super) fn life(&self, velt_now: Duration) -> Option<Duration> {
        let exp = self.exp.filter(|exp| exp.is_finite())?;
        // Beyond any life that is believed, and far below where `Duration` panics.
        let left = (exp - velt_now.as_secs_f64()).clamp(0.0, DOCUMENTED_LIFE.as_secs_f64());
        Some(Duration::from_secs_f64(left))
    }
}

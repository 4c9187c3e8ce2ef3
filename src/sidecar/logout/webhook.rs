//! Signed calls, by the scheme of Standard Webhooks 1.0.0: the headers `webhook-id`, `webhook-timestamp` and
//! `webhook-signature`, where a signature is `v1,` and the base64 of an HMAC-SHA256 over id, time and body with dots
//! between them.

use std::fmt;
use std::time::Duration;

use aws_lc_rs::hmac::{HMAC_SHA256, Key, verify};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;

use identity::MAX_VALUE_BYTES;
use token::announce::Subject;

const ID: HeaderName = HeaderName::from_static("webhook-id");
const TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

/// Mark before a secret.
const PREFIX: &str = "whsec_";

/// Length of a secret in bytes, as the scheme asks.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// Largest difference between the time of a call and this machine's, as the scheme's libraries have it.
const TOLERANCE: Duration = Duration::from_secs(300);

/// Most signatures that are looked at: a sender signs with two secrets while it changes them.
const MAX_SIGNATURES: usize = 8;

/// Reason why a call is not believed, or not understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WebhookFault {
    /// One of the headers is missing, there twice, or has another form than it should have.
    Headers,
    Time,
    Signature,
    /// The body names no user and no organization, or both.
    Body,
}

impl fmt::Display for WebhookFault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Headers => {
                "webhook-id, webhook-timestamp and webhook-signature each have to be there once: an id \
                 of visible characters without a dot, at most 256; seconds since 1970; and \"v1,\" \
                 with the base64 of the signature"
            }
            Self::Time => "webhook-timestamp is over five minutes away from the sidecar's clock",
            Self::Signature => {
                "no v1 signature is one of logout.webhook.secret over id, timestamp and body, joined by \
                 dots"
            }
            Self::Body => {
                "the body has to be {\"user\":\"ada\"} or {\"organization\":\"acme\"}, with an id of \
                 at most 256 bytes"
            }
        })
    }
}

/// Decodes a secret: `whsec_` and the base64 of 24 to 64 bytes.
fn decode(secret: &str) -> Option<Vec<u8>> {
    let bytes = STANDARD.decode(secret.strip_prefix(PREFIX)?).ok()?;
    SECRET_BYTES.contains(&bytes.len()).then_some(bytes)
}

/// Whether `secret` has the form of a secret: `whsec_` and the base64 of 24 to 64 bytes.
pub fn is_secret(secret: &str) -> bool {
    decode(secret).is_some()
}

/// Keys that sign calls. No `Debug`.
pub(crate) struct WebhookKeys(Vec<Key>);

/// A call whose signature is right.
#[derive(Debug)]
pub(super) struct Signed {
    /// Name of the call, which its sender uses for the repetitions of the call too.
    pub(super) id: String,
    /// Time of the call by its sender, as time since 1970.
    pub(super) time: Duration,
    /// End of the time for which the call could be valid, as time since 1970.
    pub(super) until: Duration,
}

impl WebhookKeys {
    /// Makes keys of secrets that the configuration has checked with [`is_secret`]. Another secret makes no key,
    /// and so signs nothing.
    pub(super) fn new(secrets: &[SecretString]) -> Self {
        let decoded = secrets.iter().filter_map(|secret| decode(secret.expose_secret()));
        Self(decoded.map(|secret| Key::new(HMAC_SHA256, &secret)).collect())
    }

    /// Checks a call at `now`, the time since 1970. Signatures are compared in constant time.
    pub(super) fn check(
        &self,
        headers: &HeaderMap,
        body: &[u8],
        now: Duration,
    ) -> Result<Signed, WebhookFault> {
        let [id, timestamp, signatures] =
            [&ID, &TIMESTAMP, &SIGNATURE].map(|name| only(headers, name));
        let (id, timestamp) = (id?, timestamp?);
        // A dot in the id would let one signature stand for two calls.
        if !matches!(id.len(), 1..=MAX_VALUE_BYTES) || id.contains('.') {
            return Err(WebhookFault::Headers);
        }
        let digits = !timestamp.is_empty() && timestamp.bytes().all(|byte| byte.is_ascii_digit());
        let seconds = timestamp.parse().ok().filter(|_| digits).ok_or(WebhookFault::Headers)?;
        let time = Duration::from_secs(seconds);
        let message = [id.as_bytes(), b".", timestamp.as_bytes(), b".", body].concat();
        let is_signed = signatures?.split(' ').take(MAX_SIGNATURES).any(|signature| {
            let signature =
                signature.strip_prefix("v1,").and_then(|text| STANDARD.decode(text).ok());
            signature.is_some_and(|signature| {
                self.0.iter().any(|key| verify(key, &message, &signature).is_ok())
            })
        });
        if !is_signed {
            return Err(WebhookFault::Signature);
        }
        if time.abs_diff(now) > TOLERANCE {
            return Err(WebhookFault::Time);
        }
        let until = time.saturating_add(TOLERANCE).saturating_add(Duration::from_secs(1));
        Ok(Signed { id: id.to_owned(), time, until })
    }
}

/// Returns the value of a header that is there once, in visible characters and spaces.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<&'a str, WebhookFault> {
    let mut values = headers.get_all(name).iter();
    let value = values.next().filter(|_| values.next().is_none());
    value.and_then(|value| value.to_str().ok()).ok_or(WebhookFault::Headers)
}

/// Body of a call. A sender may add members of its own.
#[derive(Deserialize)]
struct Body {
    user: Option<String>,
    organization: Option<String>,
}

/// Returns whom a body names.
pub(super) fn subject_in(body: &[u8]) -> Result<Subject, WebhookFault> {
    let body: Body = serde_json::from_slice(body).map_err(|_| WebhookFault::Body)?;
    let is_name = |text: &str| matches!(text.len(), 1..=MAX_VALUE_BYTES);
    match (body.user.as_deref(), body.organization.as_deref()) {
        (Some(user), None) if is_name(user) => Ok(Subject::User(user.into())),
        (None, Some(organization)) if is_name(organization) => {
            Ok(Subject::Organization(organization.into()))
        }
        _ => Err(WebhookFault::Body),
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::hmac::sign;
    use http::HeaderValue;

    use super::*;

    const NOW: Duration = Duration::from_secs(1_700_000_000);
    const BODY: &[u8] = br#"{"user":"ada"}"#;

    fn secret(byte: u8) -> SecretString {
        format!("{PREFIX}{}", STANDARD.encode([byte; 32])).into()
    }

    fn signature(byte: u8, message: &str) -> String {
        let key = Key::new(HMAC_SHA256, &[byte; 32]);
        format!("v1,{}", STANDARD.encode(sign(&key, message.as_bytes())))
    }

    fn headers(id: &str, timestamp: &str, signature: &str) -> HeaderMap {
        let values = [(ID, id), (TIMESTAMP, timestamp), (SIGNATURE, signature)];
        values
            .into_iter()
            .map(|(name, value)| (name, HeaderValue::from_str(value).expect("a value")))
            .collect()
    }

    #[test]
    fn signature_of_the_scheme_is_believed() {
        // The example of the scheme's own libraries: `tests` of standard-webhooks 1.0.
        let keys = WebhookKeys::new(&["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".into()]);
        let body = br#"{"test": 2432232314}"#;
        let signature = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        let headers = headers("msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", signature);
        let signed = keys.check(&headers, body, Duration::from_secs(1_614_265_330));
        assert_eq!(signed.expect("signed").id, "msg_p5jXN8AQM9LWM0D4loKWxJek");
    }

    #[test]
    fn each_of_two_secrets_signs_and_another_does_not() {
        let keys = WebhookKeys::new(&[secret(1), secret(2)]);
        let check =
            |signature: &str| keys.check(&headers("m", "1700000000", signature), BODY, NOW).err();
        let message = r#"m.1700000000.{"user":"ada"}"#;
        let [first, second, other] = [1, 2, 3].map(|byte| signature(byte, message));
        assert_eq!(check(&first), None);
        assert_eq!(check(&second), None);
        assert_eq!(check(&format!("v1a,{other} {other} {second}")), None);
        for wrong in [
            other.as_str(),
            "v1,",
            "v1,AAAA",
            "v2,AAAA",
            first.trim_start_matches("v1,"),
            &first.replace("v1,", "v1="),
            &format!("{first}x"),
            &format!("{}{first}", format!("{other} ").repeat(MAX_SIGNATURES)),
        ] {
            assert_eq!(check(wrong), Some(WebhookFault::Signature), "{wrong}");
        }
    }

    #[test]
    fn t70_changed_calls_and_faulty_headers_are_refused() {
        let keys = WebhookKeys::new(&[secret(1)]);
        let signature = signature(1, r#"m.1700000000.{"user":"ada"}"#);
        let check = |headers: &HeaderMap, body: &[u8]| keys.check(headers, body, NOW).err();
        for (id, timestamp, body, fault) in [
            ("n", "1700000000", BODY, WebhookFault::Signature),
            ("m", "1700000001", BODY, WebhookFault::Signature),
            ("m", "1700000000", &br#"{"user":"eve"}"#[..], WebhookFault::Signature),
            ("m.1700000000", "1700000000", BODY, WebhookFault::Headers),
            ("", "1700000000", BODY, WebhookFault::Headers),
            ("m", "+1700000000", BODY, WebhookFault::Headers),
            ("m", "", BODY, WebhookFault::Headers),
            ("m", "99999999999999999999999", BODY, WebhookFault::Headers),
        ] {
            let headers = headers(id, timestamp, &signature);
            assert_eq!(check(&headers, body), Some(fault), "{id:?} {timestamp:?}");
        }
        for name in [ID, TIMESTAMP, SIGNATURE] {
            let mut missing = headers("m", "1700000000", &signature);
            let value = missing.remove(&name).expect("a value");
            assert_eq!(check(&missing, BODY), Some(WebhookFault::Headers));
            let mut twice = headers("m", "1700000000", &signature);
            twice.append(name, value);
            assert_eq!(check(&twice, BODY), Some(WebhookFault::Headers));
        }
    }

    #[test]
    fn call_is_believed_for_five_minutes() {
        let keys = WebhookKeys::new(&[secret(1)]);
        let signature = signature(1, r#"m.1700000000.{"user":"ada"}"#);
        let check = |now| keys.check(&headers("m", "1700000000", &signature), BODY, now);
        let ago = |time: Duration| NOW.saturating_sub(time);
        for now in [ago(TOLERANCE), NOW, NOW + TOLERANCE] {
            assert!(check(now).expect("signed").until > now);
        }
        let second = Duration::from_secs(1);
        for now in [ago(TOLERANCE + second), NOW + TOLERANCE + second, Duration::ZERO] {
            assert_eq!(check(now).err(), Some(WebhookFault::Time));
        }
    }

    #[test]
    fn body_names_one_user_or_one_organization() {
        let named = |body: &str| subject_in(body.as_bytes());
        assert!(named(r#"{"user":"ada"}"#) == Ok(Subject::User("ada".into())));
        let escaped = named(r#"{"user":"\u0061da","type":"user.removed"}"#);
        assert!(escaped == Ok(Subject::User("ada".into())));
        let organization = Subject::Organization("acme".into());
        assert!(named(r#"{"organization":"acme","user":null}"#) == Ok(organization));
        let long = format!(r#"{{"user":"{}"}}"#, "x".repeat(257));
        for faulty in [
            "",
            "[]",
            "{}",
            r#"{"user":""}"#,
            r#"{"user":7}"#,
            r#"{"user":"ada","user":"eve"}"#,
            r#"{"user":"ada","organization":"acme"}"#,
            &long,
        ] {
            assert!(named(faulty) == Err(WebhookFault::Body), "{faulty}");
        }
    }

    #[test]
    fn secrets_have_the_form_of_the_scheme() {
        assert!(is_secret(secret(1).expose_secret()));
        for faulty in ["", "whsec_", "whsec_!!!", "whsec_AAAA", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"]
        {
            assert!(!is_secret(faulty), "{faulty}");
        }
    }
}

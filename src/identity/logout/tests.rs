//! Tests of the checks of OpenID Connect Back-Channel Logout 1.0, section 2.6, one by one.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ground::metrics::Metrics;
use serde_json::json;

use super::*;
use crate::keys::{Fetch, FetchError, Fetching};

const NOW: u64 = 1_700_000_000;

/// Publisher of one key; `None` if it is down.
struct Publisher(Option<Value>);

impl Fetch for Publisher {
    fn fetch<'a>(&'a self, _: &'a reqwest::Url) -> Fetching<'a> {
        let keys = self.0.as_ref().map(|jwk| json!({ "keys": [jwk] }).to_string().into_bytes());
        Box::pin(async move { keys.map(Into::into).ok_or(FetchError::Unreachable) })
    }
}

/// A provider and a checker of its logout tokens.
struct Stage {
    pair: EcdsaKeyPair,
    tokens: LogoutTokens,
}

impl Stage {
    fn set(user_claim: &str, is_up: bool) -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key");
        let point = pair.public_key().as_ref();
        let [x, y] = [&point[1..33], &point[33..]].map(|part| URL_SAFE_NO_PAD.encode(part));
        let jwk = json!({ "kty": "EC", "crv": "P-256", "kid": "1", "x": x, "y": y });
        let location = KeyLocation::Set("https://keys.example/".parse().expect("a URL"));
        let source = LogoutSource {
            issuer: "https://id.example".into(),
            audience: vec!["front".into()],
            algorithms: vec![Algorithm::Es256],
            keys: location.clone(),
            roots: Roots::Bundled,
            user: ClaimPath::parse(user_claim).expect("a path"),
        };
        let keys = Keys::new(location, Publisher(is_up.then_some(jwk)), Metrics::new().identity);
        Self { pair, tokens: LogoutTokens::with_keys(source, Arc::new(keys)) }
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        let [header, claims] =
            [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
        let message = format!("{header}.{claims}");
        let signature = self.pair.sign(&SystemRandom::new(), message.as_bytes()).expect("signed");
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    async fn check(&self, token: &str) -> Result<LogoutToken, LogoutRefusal> {
        self.tokens.check(token.as_bytes(), Duration::from_secs(NOW)).await
    }
}

fn header() -> Value {
    json!({ "alg": "ES256", "typ": "logout+jwt", "kid": "1" })
}

fn claims() -> Value {
    json!({
        "iss": "https://id.example", "aud": "front", "sub": "ada", "jti": "1",
        "iat": NOW, "exp": NOW + 120, "events": { EVENT: {} },
    })
}

/// Returns `value` with members replaced, or removed where the new value is `null`.
fn with(mut value: Value, members: &Value) -> Value {
    for (name, member) in members.as_object().expect("an object") {
        let object = value.as_object_mut().expect("an object");
        if member.is_null() {
            object.remove(name);
        } else {
            object.insert(name.clone(), member.clone());
        }
    }
    value
}

#[tokio::test]
async fn valid_logout_tokens_name_their_user() {
    let stage = Stage::set("sub", true);
    let changes = [
        json!({}),
        json!({ "sid": "s" }),
        json!({ "aud": ["other", "front"] }),
        json!({ "exp": null }),
        json!({ "iat": NOW + 59 }),
        json!({ "iat": NOW - 359, "exp": null }),
        json!({ "exp": NOW - 59 }),
        json!({ "unknown": { "any": "thing" } }),
        json!({ "events": { EVENT: {}, "urn:other": {} } }),
    ];
    for change in changes {
        let token = stage.sign(&header(), &with(claims(), &change));
        let checked = stage.check(&token).await;
        let checked = checked.unwrap_or_else(|refusal| panic!("{change}: {refusal:?}"));
        assert!(&*checked.user == "ada", "{change}");
        assert_eq!(checked.id, "1");
    }
    for typ in [json!(null), json!("JWT"), json!("application/logout+jwt"), json!("LOGOUT+JWT")] {
        let token = stage.sign(&with(header(), &json!({ "typ": typ })), &claims());
        assert!(stage.check(&token).await.is_ok(), "{typ}");
    }
}

#[tokio::test]
async fn t70_each_fault_of_the_claims_is_refused() {
    use InvalidLogout as Invalid;
    let stage = Stage::set("sub", true);
    let faults = [
        (json!({ "iss": "https://other.example" }), Invalid::Issuer),
        (json!({ "iss": "https://id.example/" }), Invalid::Issuer),
        (json!({ "iss": null }), Invalid::Issuer),
        (json!({ "aud": "other" }), Invalid::Audience),
        (json!({ "aud": ["other"] }), Invalid::Audience),
        (json!({ "aud": { "front": 1 } }), Invalid::Audience),
        (json!({ "aud": null }), Invalid::Audience),
        (json!({ "iat": null }), Invalid::NoTime),
        (json!({ "iat": "1700000000" }), Invalid::NoTime),
        (json!({ "exp": "never" }), Invalid::NoTime),
        (json!({ "iat": NOW + 61 }), Invalid::NotYetValid),
        (json!({ "nbf": NOW + 61 }), Invalid::NotYetValid),
        (json!({ "exp": NOW - 60 }), Invalid::Expired),
        (json!({ "iat": NOW - 360, "exp": NOW + 9999 }), Invalid::Expired),
        (json!({ "jti": null }), Invalid::NoId),
        (json!({ "jti": "" }), Invalid::NoId),
        (json!({ "jti": 7 }), Invalid::NoId),
        (json!({ "jti": "x".repeat(257) }), Invalid::NoId),
        (json!({ "events": null }), Invalid::Events),
        (json!({ "events": {} }), Invalid::Events),
        (json!({ "events": { EVENT: true } }), Invalid::Events),
        (json!({ "events": [EVENT] }), Invalid::Events),
        (json!({ "events": { "urn:other": {} } }), Invalid::Events),
        (json!({ "nonce": "n" }), Invalid::Nonce),
        (json!({ "nonce": "" }), Invalid::Nonce),
        (json!({ "sub": null, "sid": "s" }), Invalid::SessionAlone),
        (json!({ "sub": null }), Invalid::NoSubject),
        (json!({ "sub": "" }), Invalid::User),
        (json!({ "sub": "x".repeat(257) }), Invalid::User),
        (json!({ "sub": ["ada"] }), Invalid::User),
        (json!({ "sub": " ada" }), Invalid::User),
        (json!({ "sid": 7 }), Invalid::User),
        (json!({ "sid": "" }), Invalid::User),
    ];
    for (fault, expected) in faults {
        let token = stage.sign(&header(), &with(claims(), &fault));
        let refusal = stage.check(&token).await.err();
        assert_eq!(refusal, Some(LogoutRefusal::Invalid(expected)), "{fault}");
    }
}

#[tokio::test]
async fn t70_each_fault_of_the_signature_is_refused() {
    use InvalidLogout as Invalid;
    let stage = Stage::set("sub", true);
    let faults = [
        (json!({ "alg": "none" }), Invalid::Algorithm),
        (json!({ "alg": "HS256" }), Invalid::Algorithm),
        (json!({ "alg": "RS256" }), Invalid::Algorithm),
        (json!({ "alg": null }), Invalid::Malformed),
        (json!({ "typ": "at+jwt" }), Invalid::Malformed),
        (json!({ "typ": "secevent+jwt" }), Invalid::Malformed),
        (json!({ "crit": ["exp"] }), Invalid::Malformed),
        (json!({ "kid": "2" }), Invalid::UnknownKey),
    ];
    for (fault, expected) in faults {
        let token = stage.sign(&with(header(), &fault), &claims());
        let refusal = stage.check(&token).await.err();
        assert_eq!(refusal, Some(LogoutRefusal::Invalid(expected)), "{fault}");
    }
    let signed = stage.sign(&header(), &claims());
    let (message, _) = signed.rsplit_once('.').expect("three parts");
    let other = Stage::set("sub", true).sign(&header(), &claims());
    for (token, expected) in [
        (format!("{message}."), Invalid::Signature),
        (other, Invalid::Signature),
        (message.to_owned(), Invalid::Malformed),
        (format!("{signed}.x.y"), Invalid::Malformed),
        (String::new(), Invalid::Malformed),
        ("x".repeat(20_000), Invalid::Malformed),
    ] {
        let refusal = stage.check(&token).await.err();
        assert_eq!(refusal, Some(LogoutRefusal::Invalid(expected)));
    }
}

#[tokio::test]
async fn user_is_read_from_the_claim_that_the_settings_name() {
    let stage = Stage::set("email", true);
    let token = stage.sign(&header(), &with(claims(), &json!({ "email": "ada@example.com" })));
    let checked = stage.check(&token).await.unwrap_or_else(|refusal| panic!("{refusal:?}"));
    assert!(&*checked.user == "ada@example.com");
    let refusal = stage.check(&stage.sign(&header(), &claims())).await.err();
    assert_eq!(refusal, Some(LogoutRefusal::Invalid(InvalidLogout::NoSubject)));
}

#[tokio::test]
async fn logout_without_keys_is_no_fault_of_the_provider() {
    let stage = Stage::set("sub", false);
    let refusal = stage.check(&stage.sign(&header(), &claims())).await.err();
    assert_eq!(refusal, Some(LogoutRefusal::KeysUnavailable));
}

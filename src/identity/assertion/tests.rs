//! Tests of the memory of checked assertions: its entries, and how long an entry is used.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderValue;
use serde_json::{Value, json};

use super::*;
use crate::keys::{Fetch, FetchError, Fetching};
use ground::metrics::Metrics;

const ASSERTION: HeaderName = HeaderName::from_static("x-assertion");
const NOW: Duration = Duration::from_secs(1_700_000_000);

/// Publishes one key until `taken_back` is set.
struct Publisher {
    jwk: Value,
    taken_back: Arc<AtomicBool>,
}

impl Fetch for Publisher {
    fn fetch<'a>(&'a self, _: &'a reqwest::Url) -> Fetching<'a> {
        let keys = json!({ "keys": [self.jwk] }).to_string().into_bytes();
        let taken_back = self.taken_back.load(Ordering::SeqCst);
        Box::pin(
            async move { if taken_back { Err(FetchError::NotFound) } else { Ok(keys.into()) } },
        )
    }
}

struct Stage {
    pair: EcdsaKeyPair,
    assertions: Assertions,
    taken_back: Arc<AtomicBool>,
}

impl Stage {
    fn set() -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key");
        let point = pair.public_key().as_ref();
        let [x, y] = [&point[1..33], &point[33..]].map(|part| URL_SAFE_NO_PAD.encode(part));
        let jwk = json!({ "kty": "EC", "crv": "P-256", "kid": "1", "x": x, "y": y });
        let taken_back = Arc::new(AtomicBool::new(false));
        let location = KeyLocation::Set("https://keys.example/".parse().expect("a URL"));
        let path = |text| ClaimPath::parse(text).expect("a path");
        let policy = Policy {
            issuer: Some("i".into()),
            audience: vec!["a".into()],
            authorized_parties: Vec::new(),
            required: Vec::new(),
            algorithms: vec![Algorithm::Es256],
            leeway: Duration::from_secs(30),
            signer: None,
            claims: ClaimNames::of_user(path("sub")),
        };
        let header = ASSERTION;
        let on_invalid = OnInvalid::Refuse;
        let source = AssertionSource {
            places: Places::new(vec![Place::Header(header)]).expect("a header"),
            format: Format::Jwt,
            keys: Some(location.clone()),
            secrets: Vec::new(),
            roots: ground::tls::Roots::Bundled,
            policy,
            on_invalid,
        };
        let metrics = Metrics::new().identity;
        let publisher = Publisher { jwk, taken_back: Arc::clone(&taken_back) };
        let keys = Keys::new(location, publisher, metrics.clone());
        Self {
            pair,
            assertions: Assertions::with_keys(source, Some(Arc::new(keys)), metrics),
            taken_back,
        }
    }

    fn sign(&self, expires: Duration) -> HeaderValue {
        let claims = json!({ "iss": "i", "aud": "a", "sub": "ada", "exp": expires.as_secs() });
        let signed = format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(r#"{"alg":"ES256","kid":"1"}"#),
            URL_SAFE_NO_PAD.encode(claims.to_string())
        );
        let signature = self.pair.sign(&SystemRandom::new(), signed.as_bytes());
        let signature = URL_SAFE_NO_PAD.encode(signature.expect("signed"));
        HeaderValue::from_str(&format!("{signed}.{signature}")).expect("a value")
    }

    /// Returns the result that is counted when `assertion` comes `seconds` after [`NOW`].
    async fn counted(&self, assertion: &HeaderValue, seconds: u64) -> &'static str {
        let counts = || {
            let all = <AssertionResult as ground::metrics::Label>::ALL;
            all.iter().map(|result| self.assertions.metrics.assertions.get(*result))
        };
        let before: Vec<u64> = counts().collect();
        let now = NOW + Duration::from_secs(seconds);
        let headers = HeaderMap::from_iter([(ASSERTION, assertion.clone())]);
        let Ok(Presented::Assertions(presented, _)) = self.assertions.find(&headers) else {
            panic!("an assertion");
        };
        if self.assertions.recall(&presented, now).is_none() {
            self.assertions.verify(&presented, now).await;
        }
        let changed = counts().zip(before).position(|(now, before)| now > before);
        let all = <AssertionResult as ground::metrics::Label>::ALL;
        ground::metrics::Label::as_str(all[changed.expect("each is counted")])
    }
}

#[tokio::test(start_paused = true)]
async fn t08_checked_assertion_is_cached_a_minute_not_past_its_end() {
    let stage = Stage::set();
    let long = stage.sign(NOW + Duration::from_secs(3600));
    for (seconds, expected) in [
        (0, "verified"),
        (0, "cached"),
        (59, "cached"),
        (60, "verified"),
        // A clock that was set back: nothing that was checked "later" counts.
        (30, "verified"),
        (3599, "verified"),
        (3629, "verified"),
        (3630, "expired"),
    ] {
        assert_eq!(stage.counted(&long, seconds).await, expected, "after {seconds} s");
    }
    let short = stage.sign(NOW + Duration::from_secs(10));
    for (seconds, expected) in
        [(0, "verified"), (9, "cached"), (10, "verified"), (39, "verified"), (40, "expired")]
    {
        assert_eq!(stage.counted(&short, seconds).await, expected, "after {seconds} s");
    }
}

#[tokio::test(start_paused = true)]
async fn t08_forged_assertion_matches_no_cached_one_and_is_not_cached() {
    let stage = Stage::set();
    let good = stage.sign(NOW + Duration::from_secs(3600));
    assert_eq!(stage.counted(&good, 0).await, "verified");
    let mut bytes = good.as_bytes().to_vec();
    let at = bytes.len() - 3;
    bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
    let bad = HeaderValue::from_bytes(&bytes).expect("a value");
    for _ in 0..3 {
        assert_eq!(stage.counted(&bad, 0).await, "signature");
    }
    assert_eq!(stage.counted(&good, 0).await, "cached");
}

#[tokio::test(start_paused = true)]
async fn withdrawn_key_ends_cached_assertions_within_a_minute() {
    let stage = Stage::set();
    let good = stage.sign(NOW + Duration::from_secs(200_000));
    assert_eq!(stage.counted(&good, 0).await, "verified");
    stage.taken_back.store(true, Ordering::SeqCst);
    tokio::time::advance(Duration::from_secs(25 * 3600)).await;
    assert_eq!(stage.counted(&good, 59).await, "cached");
    assert_eq!(stage.counted(&good, 60).await, "keys_unavailable");
}

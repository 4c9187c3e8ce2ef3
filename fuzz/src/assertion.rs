//! User that an assertion names, for any assertion.
//!
//! First line: `r` takes the rest as the token; `s` signs the rest with our key, `f` with a foreign key. To
//! sign, the second line is the header and the lines after it are the claims. An `a` beside these letters
//! reads the token as an AWS load balancer's.

use std::sync::LazyLock;
use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD};
use identity::MAX_VALUE_BYTES;
use identity::assertion::{
    Algorithm, ClaimNames, ClaimPath, Claims, InvalidAssertion, Policy, verify,
};
use identity::keys::KeySet;
use serde_json::{Value, json};

use super::lines;

const NOW: Duration = Duration::from_secs(1_700_000_000);
const LEEWAY: Duration = Duration::from_secs(30);
const ISSUER: &str = "i";
const AUDIENCE: &str = "a";
const SIGNER: &str = "arn:aws:elasticloadbalancing:r:1:loadbalancer/app/x/1";

/// # Panics
///
/// Panics if `verify` returns a user that our issuer did not name, for our audience, at this time.
pub fn check(input: &[u8]) {
    let (options, rest) = lines::first_line(input);
    let aws = options.contains(&b'a');
    if options.contains(&b'r') {
        let verified = verify(rest, &policy(aws), &OURS.public, NOW);
        assert!(verified.is_err(), "only the test's own key can sign");
        return;
    }
    let (header, claims) = lines::first_line(rest);
    let foreign = options.contains(&b'f');
    let signed = if foreign { &FOREIGN } else { &OURS }.sign(header, claims, aws);
    let verified = verify(signed.as_bytes(), &policy(aws), &OURS.public, NOW);
    match verified {
        Ok(_) if foreign => panic!("a foreign signature is believed"),
        Ok(said) => assert_believable(&said, header, claims, aws),
        Err(fault) => {
            assert!(!matches!(fault, InvalidAssertion::Signature) || foreign, "it was ours");
        }
    }
    // The same claims in a token with one changed byte.
    let mut bytes = signed.into_bytes();
    let middle = bytes.len() / 2;
    bytes[middle] = if bytes[middle] == b'A' { b'B' } else { b'A' };
    assert!(verify(&bytes, &policy(aws), &OURS.public, NOW).is_err(), "tampered with");
}

/// Checks the accepted claims a second time, with other code.
fn assert_believable(said: &Claims, header: &[u8], claims: &[u8], aws: bool) {
    let read = |text| serde_json::from_slice::<Value>(text).expect("it was read once");
    let (header, claims) = (read(header), read(claims));
    assert_eq!(header["alg"], "ES256");
    assert!(header["kid"] == "1" || header.get("kid").is_none(), "our key's id or none");
    assert!(header.get("crit").is_none());
    if aws {
        assert_eq!(header["signer"], SIGNER);
    }
    let named = |name: &str| {
        let of_header = header.get(name).filter(|_| aws);
        claims.get(name).into_iter().chain(of_header).collect::<Vec<_>>()
    };
    assert!(!named("iss").is_empty() && named("iss").iter().all(|issuer| **issuer == ISSUER));
    let ends = named("exp");
    assert!(!ends.is_empty());
    for end in ends {
        assert!(end.as_f64().expect("a number") + LEEWAY.as_secs_f64() > NOW.as_secs_f64());
        assert!(said.expires.as_secs_f64() <= end.as_f64().expect("a number") + 1e-3);
    }
    for name in ["nbf", "iat"] {
        let from = claims.get(name).map_or(0.0, |from| from.as_f64().expect("a number"));
        assert!(from <= (NOW + LEEWAY).as_secs_f64(), "{name} is still to come");
    }
    if !aws {
        let audience = &claims["aud"];
        let listed = audience.as_array().is_some_and(|list| list.iter().any(|one| one == AUDIENCE));
        assert!(audience == AUDIENCE || listed, "it is not for us");
    }
    let Some(user) = &said.user else {
        let blank = claims["sub"].as_str().is_some_and(|sub| sub.trim().is_empty());
        assert!(claims["sub"].is_null() || blank, "a user is named");
        return;
    };
    let sub = match &claims["sub"] {
        Value::String(text) => text.clone(),
        number => number.to_string(),
    };
    assert_eq!(*user.id, *sub, "byte for byte");
    assert!((1..=MAX_VALUE_BYTES).contains(&user.id.len()));
    assert!(!user.id.chars().any(char::is_control) && user.id.trim() == &*user.id);
    // An address that can't be used, or that its issuer has not verified, is left out.
    if let Some(email) = user.email.as_deref() {
        assert_eq!(Some(email), claims.pointer("/profile/email").and_then(Value::as_str));
        assert!((1..=MAX_VALUE_BYTES).contains(&email.len()) && email.trim() == email);
        assert!(!email.chars().any(char::is_control));
        assert_ne!(claims.pointer("/profile/email_verified"), Some(&Value::Bool(false)));
    }
}

fn policy(aws: bool) -> Policy {
    let path = |text| ClaimPath::parse(text).expect("a path");
    Policy {
        issuer: Some(ISSUER.into()),
        audience: if aws { Vec::new() } else { vec![AUDIENCE.into()] },
        authorized_parties: Vec::new(),
        required: Vec::new(),
        algorithms: vec![Algorithm::Es256],
        leeway: LEEWAY,
        signer: aws.then(|| SIGNER.into()),
        claims: ClaimNames {
            email: Some(path("profile.email")),
            groups: Some(path("/groups")),
            admin_groups: vec!["admins".into()],
            ..ClaimNames::of_user(path("sub"))
        },
    }
}

/// A private key, and its public key as a key set.
struct Pen {
    pair: EcdsaKeyPair,
    public: KeySet,
}

static OURS: LazyLock<Pen> = LazyLock::new(Pen::make);
static FOREIGN: LazyLock<Pen> = LazyLock::new(Pen::make);

impl Pen {
    fn make() -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key");
        let point = pair.public_key().as_ref();
        let [x, y] = [&point[1..33], &point[33..]].map(|part| URL_SAFE_NO_PAD.encode(part));
        let keys = json!({ "keys": [{ "kty": "EC", "crv": "P-256", "kid": "1", "x": x, "y": y }] });
        let public = KeySet::from_jwks(keys.to_string().as_bytes());
        let Ok(public) = public else { panic!("that is a key") };
        Self { pair, public }
    }

    fn sign(&self, header: &[u8], claims: &[u8], padded: bool) -> String {
        let base64 = if padded { &URL_SAFE } else { &URL_SAFE_NO_PAD };
        let signed = format!("{}.{}", base64.encode(header), base64.encode(claims));
        let signature = self.pair.sign(&SystemRandom::new(), signed.as_bytes());
        format!("{signed}.{}", base64.encode(signature.expect("signed")))
    }
}

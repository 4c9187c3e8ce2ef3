//! Tests of keys and signatures at the edges of their forms.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P256_SHA256_FIXED_SIGNING,
    ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair,
    KeyPair as _, RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY, RSA_PKCS1_SHA256, RSA_PSS_SHA256,
    RsaEncoding, RsaKeyPair,
};
use serde_json::json;

use super::*;

const MESSAGE: &[u8] = b"message";

/// Modulus of 1,024 bits, with the exponent 65,537.
const SHORT_MODULUS: &str = "\
    vpetWW9rvqVuPJ_UW_yLnxqrsQB5TdS2OarF8BOCEcprRiK2P6K19LUv999bX39OFhy4M7\
    -Zkvh907Dpokak9OOaonAHhEu4gNUE9rCJ1mmlT2nx9CmqZlw6YbgDix_WD6OCr772KmtR\
    4V8fsN5b7QN-XDFbQwhsO20Se86eT20";
/// Signature of [`MESSAGE`] by RS256 with the key of [`SHORT_MODULUS`].
const SHORT_SIGNATURE: &str = "\
    AI2WL-qN4HGcfOCbc-jPS7W0dffD326Iem9pIh-CTEsxAhlyIxfxH9k8Y2iiDTGcGCozjR\
    KJM1n8zD_DsfI3eofp0fH_5CxEMfAffnGz_sAnVIL30cJYVTyS3T1AQySpIYrajXcg4sFW\
    -SRiF_7J34J--Li3Idr_rKbvFX4ChFg";

fn base64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn bytes_of(text: &str) -> Vec<u8> {
    decoded(text).expect("base64url")
}

fn set(jwk: &Value) -> Result<KeySet, KeySetError> {
    KeySet::from_jwks(json!({ "keys": [jwk] }).to_string().as_bytes())
}

/// Whether the key `jwk` accepts `signature`, in base64url, as one of [`MESSAGE`]. A key that is left out of
/// its set accepts nothing.
fn accepts(jwk: &Value, signature: &str, algorithm: Algorithm) -> bool {
    let Ok(set) = set(jwk) else { return false };
    set.fitting(None, algorithm).any(|key| key.verifies(MESSAGE, signature, algorithm))
}

fn sign_ecdsa(pkcs8: &[u8], form: &'static EcdsaSigningAlgorithm) -> Vec<u8> {
    let pair = EcdsaKeyPair::from_pkcs8(form, pkcs8).expect("a key");
    pair.sign(&SystemRandom::new(), MESSAGE).expect("signed").as_ref().to_vec()
}

fn sign_rsa(pair: &RsaKeyPair, encoding: &'static dyn RsaEncoding) -> String {
    let mut signature = vec![0; pair.public_modulus_len()];
    pair.sign(encoding, &SystemRandom::new(), MESSAGE, &mut signature).expect("signed");
    base64(signature)
}

fn p256(x: &[u8], y: &[u8]) -> Value {
    json!({ "kty": "EC", "crv": "P-256", "x": base64(x), "y": base64(y) })
}

fn rsa(modulus: &[u8], exponent: &[u8]) -> Value {
    json!({ "kty": "RSA", "n": base64(modulus), "e": base64(exponent) })
}

#[test]
fn ecdsa_signature_has_one_form() {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key");
    let pkcs8 = pair.to_pkcs8v1().expect("PKCS #8");
    let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
    let jwk = p256(x, y);
    let fixed = sign_ecdsa(pkcs8.as_ref(), &ECDSA_P256_SHA256_FIXED_SIGNING);
    let der = sign_ecdsa(pkcs8.as_ref(), &ECDSA_P256_SHA256_ASN1_SIGNING);
    let good = base64(&fixed);
    assert!(accepts(&jwk, &good, Algorithm::Es256));
    for (what, signature) in [
        ("nothing", String::new()),
        ("DER", base64(der)),
        ("padding", format!("{good}==")),
        ("a byte less", base64(&fixed[..63])),
        ("a byte more", base64([&fixed[..], &[0]].concat())),
        ("zeros", base64([0; 64])),
        ("the other alphabet", format!("+/{}", &good[2..])),
        ("a line end", format!("{good}\n")),
    ] {
        assert!(!accepts(&jwk, &signature, Algorithm::Es256), "{what}");
    }
    for algorithm in [Algorithm::Es384, Algorithm::EdDsa, Algorithm::Rs256, Algorithm::Ps256] {
        assert!(!accepts(&jwk, &good, algorithm), "{algorithm:?}");
    }
}

#[test]
fn coordinate_is_a_number_of_at_most_the_width() {
    // A zero where a coordinate below begins would be no part of its number.
    let (pair, point) = loop {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key");
        let point = [&pair.public_key().as_ref()[1..], &[1; 2]].concat();
        if [0, 27, 31, 32].iter().all(|begin| point[*begin] != 0) {
            break (pair, point);
        }
    };
    for (x, y) in
        [(33, 32), (32, 33), (31, 33), (33, 31), (0, 64), (64, 0), (0, 32), (32, 0), (27, 32)]
    {
        let found = set(&p256(&point[..x], &point[x..x + y])).map(|set| set.len());
        assert_eq!(found, Err(KeySetError::NoneUsable), "{x} and {y} bytes");
    }
    let (x, y) = point[..64].split_at(32);
    let padded = json!({ "kty": "EC", "crv": "P-256", "x": base64(x) + "=", "y": base64(y) });
    assert_eq!(set(&padded).map(|set| set.len()), Err(KeySetError::NoneUsable));
    // A key of the wrong form counts as a key, and checks no signature.
    let signature =
        sign_ecdsa(pair.to_pkcs8v1().expect("PKCS #8").as_ref(), &ECDSA_P256_SHA256_FIXED_SIGNING);
    assert!(!accepts(&p256(y, x), &base64(signature), Algorithm::Es256), "off the curve");
}

#[test]
fn zeros_before_a_coordinate_make_no_difference() {
    // One key in 256 has a zero there.
    let (pair, point) = loop {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key");
        let point = pair.public_key().as_ref()[1..].to_vec();
        if point[0] == 0 {
            break (pair, point);
        }
    };
    let signature =
        sign_ecdsa(pair.to_pkcs8v1().expect("PKCS #8").as_ref(), &ECDSA_P256_SHA256_FIXED_SIGNING);
    let (x, y) = point.split_at(32);
    for x in [x, &x[1..], &[&[0], x].concat()] {
        assert!(accepts(&p256(x, y), &base64(&signature), Algorithm::Es256), "{} bytes", x.len());
    }
}

#[test]
fn p384_key_checks_its_own_signatures() {
    let pair = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).expect("a key");
    let (x, y) = pair.public_key().as_ref()[1..].split_at(48);
    let jwk = json!({ "kty": "EC", "crv": "P-384", "x": base64(x), "y": base64(y) });
    let signature =
        sign_ecdsa(pair.to_pkcs8v1().expect("PKCS #8").as_ref(), &ECDSA_P384_SHA384_FIXED_SIGNING);
    assert!(accepts(&jwk, &base64(&signature), Algorithm::Es384));
    assert!(!accepts(&jwk, &base64(&signature), Algorithm::Es256));
    assert!(!accepts(&jwk, &base64(&signature[1..]), Algorithm::Es384));
}

#[test]
fn ed25519_key_has_32_bytes() {
    let pair = Ed25519KeyPair::generate().expect("a key");
    let signature = base64(pair.sign(MESSAGE));
    let key = [pair.public_key().as_ref(), &[0]].concat();
    for (length, expected) in [(32, true), (31, false), (33, false), (0, false)] {
        let jwk = json!({ "kty": "OKP", "crv": "Ed25519", "x": base64(&key[..length]) });
        assert_eq!(accepts(&jwk, &signature, Algorithm::EdDsa), expected, "{length} bytes");
        assert!(!accepts(&jwk, "", Algorithm::EdDsa), "{length} bytes, no signature");
    }
}

#[test]
fn rsa_signature_counts_for_its_own_algorithm_only() {
    let pair = RsaKeyPair::generate(KeySize::Rsa2048).expect("a key");
    // RFC 8017 appendix A.1.1: two headers and a zero before the modulus, the exponent at the end.
    let der = pair.public_key().as_ref();
    let (modulus, exponent) = (&der[9..265], &der[der.len() - 3..]);
    let jwk = rsa(modulus, exponent);
    let (pkcs1, pss) = (sign_rsa(&pair, &RSA_PKCS1_SHA256), sign_rsa(&pair, &RSA_PSS_SHA256));
    for (signature, own) in [(&pkcs1, Algorithm::Rs256), (&pss, Algorithm::Ps256)] {
        for algorithm in [
            Algorithm::Rs256,
            Algorithm::Rs384,
            Algorithm::Rs512,
            Algorithm::Ps256,
            Algorithm::Ps384,
            Algorithm::Ps512,
            Algorithm::Es256,
            Algorithm::EdDsa,
        ] {
            let accepted = accepts(&jwk, signature, algorithm);
            assert_eq!(accepted, algorithm == own, "{own:?} as {algorithm:?}");
        }
    }
    for named in ["PS256", "RS384", "RSA-OAEP", "ES256"] {
        let mut jwk = jwk.clone();
        jwk["alg"] = named.into();
        assert!(!accepts(&jwk, &pkcs1, Algorithm::Rs256), "a key for {named}");
    }
    assert!(!accepts(&jwk, "", Algorithm::Rs256), "no signature");
}

#[test]
fn odd_rsa_keys_accept_no_signature() {
    let pair = RsaKeyPair::generate(KeySize::Rsa2048).expect("a key");
    let der = pair.public_key().as_ref();
    let (modulus, exponent) = (&der[9..265], &der[der.len() - 3..]);
    let signature = sign_rsa(&pair, &RSA_PKCS1_SHA256);
    // RFC 7518 section 6.3.1.1 forbids the zero that some libraries put before a number.
    let with_zeros = rsa(&[&[0], modulus].concat(), &[&[0], exponent].concat());
    assert!(accepts(&with_zeros, &signature, Algorithm::Rs256));
    for (what, modulus, exponent) in [
        ("no modulus", &[][..], exponent),
        ("no exponent", modulus, &[]),
        ("an even exponent", modulus, &[1, 0, 0]),
        ("an exponent of 0", modulus, &[0]),
        ("a modulus over 8,192 bits", &[0xff; 1025], exponent),
    ] {
        assert!(!accepts(&rsa(modulus, exponent), &signature, Algorithm::Rs256), "{what}");
    }
    let short = json!({ "kty": "RSA", "n": SHORT_MODULUS, "e": "AQAB" });
    let numbers = RsaPublicKeyComponents { n: &*bytes_of(SHORT_MODULUS), e: &[1, 0, 1] };
    let any_size = &RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY;
    numbers.verify(any_size, MESSAGE, &bytes_of(SHORT_SIGNATURE)).expect("a right signature");
    assert!(!accepts(&short, SHORT_SIGNATURE, Algorithm::Rs256), "1,024 bits");
}

#[test]
fn rsa_exponent_of_one_lets_no_text_pass_for_its_signature() {
    // With the exponent 1 a signature is the encoded digest itself (RFC 8017 section 9.2).
    const DIGEST_INFO: &[u8] =
        b"\x30\x31\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\0\x04\x20";
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, MESSAGE);
    let fill = [0xff; 256 - 3 - 19 - 32];
    let encoded = [&[0, 1], &fill[..], &[0], DIGEST_INFO, digest.as_ref()].concat();
    let pair = RsaKeyPair::generate(KeySize::Rsa2048).expect("a key");
    let modulus = &pair.public_key().as_ref()[9..265];
    assert!(!accepts(&rsa(modulus, &[1]), &base64(encoded), Algorithm::Rs256));
}

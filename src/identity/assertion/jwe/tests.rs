use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::cipher::{AES_256, EncryptionContext, PaddedBlockEncryptingKey, UnboundCipherKey};
use proptest::prelude::*;

use super::*;

const NAME: &str = "__Secure-authjs.session-token";
const SECRET: &str = "a secret of at least thirty-two bytes";
const CLAIMS: &str = r#"{"sub":"ada","exp":1700000000}"#;

fn secret(text: &str) -> SecretString {
    SecretString::from(text)
}

fn header(sealing: Sealing) -> String {
    format!(r#"{{"alg":"dir","enc":"{}"}}"#, sealing.encryption())
}

/// Seals `content` as the library does, under a header of the test's own.
fn seal(sealing: Sealing, secret_text: &str, header: &str, content: &str) -> String {
    let key = sealing.key(&secret(secret_text), NAME);
    let header = URL_SAFE_NO_PAD.encode(header);
    let (vector, ciphertext, tag) = match sealing {
        Sealing::Authjs => {
            let vector = [7; 16];
            let cipher = UnboundCipherKey::new(&AES_256, &key[32..]).expect("a key");
            let mut bytes = content.as_bytes().to_vec();
            PaddedBlockEncryptingKey::cbc_pkcs7(cipher)
                .and_then(|key| {
                    key.less_safe_encrypt(&mut bytes, EncryptionContext::Iv128(vector.into()))
                })
                .expect("encrypted");
            let bits = (header.len() as u64 * 8).to_be_bytes();
            let covered = [header.as_bytes(), &vector, &bytes, &bits].concat();
            let mac = sign(&MacKey::new(HMAC_SHA512, &key[..32]), &covered);
            (vector.to_vec(), bytes, mac.as_ref()[..32].to_vec())
        }
        Sealing::Nextauth => {
            let vector = [7; 12];
            let cipher = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &key).expect("a key"));
            let mut bytes = content.as_bytes().to_vec();
            let nonce = Nonce::assume_unique_for_key(vector);
            let tag =
                cipher.seal_in_place_separate_tag(nonce, Aad::from(header.as_bytes()), &mut bytes);
            (vector.to_vec(), bytes, tag.expect("encrypted").as_ref().to_vec())
        }
    };
    let [vector, ciphertext, tag] =
        [vector, ciphertext, tag].map(|part| URL_SAFE_NO_PAD.encode(part));
    format!("{header}..{vector}.{ciphertext}.{tag}")
}

fn opened(token: &str, sealing: Sealing, secrets: &[&str]) -> Result<String, InvalidAssertion> {
    let secrets: Vec<SecretString> = secrets.iter().copied().map(secret).collect();
    open(token.as_bytes(), sealing, &secrets, NAME)
        .map(|claims| claims["sub"].as_str().unwrap_or_default().to_owned())
}

const BOTH: [Sealing; 2] = [Sealing::Authjs, Sealing::Nextauth];

#[test]
fn session_opens_with_either_secret_of_a_rotation_alone() {
    for sealing in BOTH {
        let token = seal(sealing, SECRET, &header(sealing), CLAIMS);
        assert_eq!(opened(&token, sealing, &[SECRET]).as_deref(), Ok("ada"));
        assert_eq!(opened(&token, sealing, &["another", SECRET]).as_deref(), Ok("ada"));
        assert_eq!(opened(&token, sealing, &["another"]), Err(InvalidAssertion::Signature));
        assert_eq!(opened(&token, sealing, &[]), Err(InvalidAssertion::Signature));
    }
}

#[test]
fn name_of_the_cookie_is_part_of_the_key_of_authjs() {
    let token = seal(Sealing::Authjs, SECRET, &header(Sealing::Authjs), CLAIMS);
    let other = open(token.as_bytes(), Sealing::Authjs, &[secret(SECRET)], "authjs.session-token");
    assert_eq!(other.err(), Some(InvalidAssertion::Signature));
}

#[test]
fn t66_header_of_a_session_decides_nothing() {
    for (sealing, other) in [(BOTH[0], BOTH[1]), (BOTH[1], BOTH[0])] {
        let enc = sealing.encryption();
        for (header, error) in [
            (header(other), InvalidAssertion::Algorithm),
            (format!(r#"{{"alg":"none","enc":"{enc}"}}"#), InvalidAssertion::Algorithm),
            (format!(r#"{{"alg":"A256KW","enc":"{enc}"}}"#), InvalidAssertion::Algorithm),
            (format!(r#"{{"enc":"{enc}"}}"#), InvalidAssertion::Algorithm),
            (format!(r#"{{"alg":"dir","enc":"{enc}","zip":"DEF"}}"#), InvalidAssertion::Malformed),
            (format!(r#"{{"alg":"dir","enc":"{enc}","crit":["x"]}}"#), InvalidAssertion::Malformed),
            (format!(r#"{{"alg":"none","alg":"dir","enc":"{enc}"}}"#), InvalidAssertion::Malformed),
            ("[]".to_owned(), InvalidAssertion::Malformed),
        ] {
            let token = seal(sealing, SECRET, &header, CLAIMS);
            assert_eq!(opened(&token, sealing, &[SECRET]), Err(error), "{header}");
        }
    }
}

#[test]
fn other_forms_are_malformed() {
    for sealing in BOTH {
        let token = seal(sealing, SECRET, &header(sealing), CLAIMS);
        let parts: Vec<&str> = token.split('.').collect();
        let [header, _, vector, text, tag] = parts[..] else { panic!("five parts") };
        let short = &tag[..tag.len() - 4];
        for faulty in [
            String::from("a.b.c"),
            format!("{token}.x"),
            format!("{header}.AAAA.{vector}.{text}.{tag}"),
            format!("{header}...{text}.{tag}"),
            format!("{header}..{vector}.{text}.{short}"),
            format!("{header}..{vector}.{text}=.{tag}"),
            "A".repeat(MAX_ASSERTION_BYTES + 1),
        ] {
            assert_eq!(
                opened(&faulty, sealing, &[SECRET]),
                Err(InvalidAssertion::Malformed),
                "{faulty}"
            );
        }
        let id = "2c1f4c3e-7d0c-4b6e-9d58-5f6d1c1f5c55";
        assert_eq!(opened(id, sealing, &[SECRET]), Err(InvalidAssertion::SessionId));
        let list = seal(sealing, SECRET, &self::header(sealing), "[1]");
        assert_eq!(opened(&list, sealing, &[SECRET]), Err(InvalidAssertion::Malformed));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A session of which one character is another is refused, or says the same.
    #[test]
    fn changed_session_never_says_something_else(at in 0_usize..400, to in "[A-Za-z0-9_.-]", authjs: bool) {
        let sealing = if authjs { Sealing::Authjs } else { Sealing::Nextauth };
        let mut token = seal(sealing, SECRET, &header(sealing), CLAIMS);
        let at = at % token.len();
        token.replace_range(at..=at, &to);
        if let Ok(sub) = opened(&token, sealing, &[SECRET]) {
            prop_assert_eq!(sub, "ada");
        }
    }
}

//! User that the cookies of a request name, for any cookies.
//!
//! First line: one letter for the form (`j` a JWT, `s` Supabase, `a` Auth.js, `n` NextAuth). Then the lines of
//! `Cookie`. In them `$T` stands for a session of ada that is valid, `$1` and `$2` for its two halves, and `$X` for
//! a session that another secret has made.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::LazyLock;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::cipher::{AES_256, EncryptionContext, PaddedBlockEncryptingKey, UnboundCipherKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use aws_lc_rs::hmac::{HMAC_SHA256, HMAC_SHA512, Key, sign};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::FutureExt as _;
use ground::metrics::{Metrics, RefusalKind};
use ground::peer::Peer;
use ground::tls::Roots;
use http::header::COOKIE;
use http::{HeaderMap, HeaderValue};
use identity::assertion::{
    Algorithm, AssertionSource, ClaimNames, ClaimPath, CookieName, Format, OnInvalid, Place,
    Places, Policy,
};
use identity::{
    Caller, ForwardIdentity, Identified, Identity, OnAmbiguous, Refusal, Settings, Source,
};
use serde_json::json;

use super::lines;

const SECRET: &str = "the secret of the app, of 32 bytes";
const FOREIGN: &str = "another secret, also of 32 bytes..";
/// Name of the cookie, which is part of the key of Auth.js.
const NAME: &str = "session";
/// End of the sessions: the year 2100.
const END: u64 = 4_102_444_800;

/// # Panics
///
/// Panics if a user is named whom no valid session names, or if a clear session names none.
pub fn check(input: &[u8]) {
    let (options, rest) = lines::first_line(input);
    let form = match options.first() {
        Some(b's') => Format::Supabase,
        Some(b'a') => Format::Authjs,
        Some(b'n') => Format::Nextauth,
        _ => Format::Jwt,
    };
    let (valid, foreign) = (session(form, SECRET), session(form, FOREIGN));
    let (head, tail) = valid.split_at(valid.len() / 2);
    let mut headers = HeaderMap::new();
    let mut clear = true;
    for line in rest.split(|byte| *byte == b'\n') {
        let Ok(line) = std::str::from_utf8(line) else { return };
        clear &= line == format!("{NAME}=$T") || !line.contains(NAME);
        let line = line.replace("$T", &valid).replace("$X", &foreign);
        let line = line.replace("$1", head).replace("$2", tail);
        let Ok(value) = HeaderValue::from_str(&line) else { return };
        headers.append(COOKIE, value);
    }
    let before = headers.clone();
    let peer = Peer::of((IpAddr::from(Ipv4Addr::LOCALHOST), 1).into());
    let identified = identity(form).identify(&peer, &mut headers).now_or_never();
    assert_eq!(headers, before, "the app's cookies are the app's");
    let text = String::from_utf8_lossy(rest);
    let once = text.matches(NAME).count() == 1 && text.contains("$T");
    match identified.expect("no keys are fetched") {
        Ok(Identified { caller: Caller::Known(user), by_cookie, .. }) => {
            assert!(by_cookie && *user.id == *"ada", "who has made this session?");
            assert!(text.contains("$T") || text.contains("$1"), "no session of ours is here");
        }
        Ok(Identified { caller: Caller::Anonymous, .. }) => {
            assert!(!(clear && once), "a clear session names no user: {text:?}");
        }
        Ok(_) => panic!("a secret is always at hand"),
        Err(Refusal::Ambiguous { kind: RefusalKind::CookieTwice, .. }) => {
            assert!(text.matches(NAME).count() > 1, "once is not twice");
        }
        Err(refusal) => panic!("a session that is not valid is anonymous: {refusal:?}"),
    }
}

fn identity(form: Format) -> &'static Identity {
    static ALL: LazyLock<Vec<(Format, Identity)>> = LazyLock::new(|| {
        let forms = [Format::Jwt, Format::Supabase, Format::Authjs, Format::Nextauth];
        forms
            .map(|form| (form, Identity::new(settings(form), Metrics::new().identity)))
            .map(|(form, identity)| (form, identity.expect("no TLS is needed")))
            .into()
    });
    ALL.iter()
        .find(|(of, _)| *of == form)
        .map(|(_, identity)| identity)
        .expect("each form is there")
}

fn settings(format: Format) -> Settings {
    let signed = matches!(format, Format::Jwt | Format::Supabase);
    let policy = Policy {
        issuer: signed.then(|| "i".into()),
        audience: if signed { vec!["a".into()] } else { Vec::new() },
        authorized_parties: Vec::new(),
        required: Vec::new(),
        algorithms: vec![Algorithm::Hs256],
        leeway: std::time::Duration::ZERO,
        signer: None,
        claims: ClaimNames::of_user(ClaimPath::parse("sub").expect("a path")),
    };
    let place = Place::Cookie(CookieName::parse(NAME).expect("a name"));
    let source = AssertionSource {
        places: Places::new(vec![place]).expect("a place"),
        format,
        keys: None,
        secrets: vec![SECRET.into()],
        roots: Roots::Bundled,
        policy,
        on_invalid: OnInvalid::Anonymous,
    };
    Settings {
        source: Source::Assertion(Box::new(source)),
        guarded: Vec::new(),
        trusted_peers: Vec::new(),
        trusted_names: Vec::new(),
        secret: None,
        trusted_hosts: Vec::new(),
        trusted_proxies: None,
        ambiguous: OnAmbiguous::Refuse,
        forward: ForwardIdentity::Keep,
        token_headers: Vec::new(),
        details: None,
    }
}

/// Makes a session of ada, as the library of `form` does.
fn session(form: Format, secret: &str) -> String {
    let claims = json!({ "iss": "i", "aud": "a", "sub": "ada", "exp": END }).to_string();
    match form {
        Format::Jwt => signed(&claims, secret),
        Format::Supabase => {
            let json = json!({ "access_token": signed(&claims, secret) }).to_string();
            format!("base64-{}", URL_SAFE_NO_PAD.encode(json))
        }
        Format::Authjs => sealed_by_cbc(&claims, secret),
        Format::Nextauth => sealed_by_gcm(&claims, secret),
    }
}

fn signed(claims: &str, secret: &str) -> String {
    let [header, claims] = [r#"{"alg":"HS256"}"#, claims].map(|part| URL_SAFE_NO_PAD.encode(part));
    let message = format!("{header}.{claims}");
    let signature = sign(&Key::new(HMAC_SHA256, secret.as_bytes()), message.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
}

/// Number of bytes of a derived key.
struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

fn derived(secret: &str, salt: &str, info: &str, length: usize) -> Vec<u8> {
    let mut key = vec![0; length];
    let root = Salt::new(HKDF_SHA256, salt.as_bytes()).extract(secret.as_bytes());
    root.expand(&[info.as_bytes()], Length(length))
        .and_then(|derived| derived.fill(&mut key))
        .expect("a short key");
    key
}

fn compact(header: &str, vector: &[u8], text: &[u8], tag: &[u8]) -> String {
    let [vector, text, tag] = [vector, text, tag].map(|part| URL_SAFE_NO_PAD.encode(part));
    format!("{header}..{vector}.{text}.{tag}")
}

fn sealed_by_cbc(claims: &str, secret: &str) -> String {
    let info = format!("Auth.js Generated Encryption Key ({NAME})");
    let key = derived(secret, NAME, &info, 64);
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"dir","enc":"A256CBC-HS512"}"#);
    let (vector, mut text) = ([7; 16], claims.as_bytes().to_vec());
    let cipher = UnboundCipherKey::new(&AES_256, &key[32..]).expect("a key");
    PaddedBlockEncryptingKey::cbc_pkcs7(cipher)
        .and_then(|key| key.less_safe_encrypt(&mut text, EncryptionContext::Iv128(vector.into())))
        .expect("encrypted");
    let bits = (header.len() as u64 * 8).to_be_bytes();
    let covered = [header.as_bytes(), &vector, &text, &bits].concat();
    let mac = sign(&Key::new(HMAC_SHA512, &key[..32]), &covered);
    compact(&header, &vector, &text, &mac.as_ref()[..32])
}

fn sealed_by_gcm(claims: &str, secret: &str) -> String {
    let key = derived(secret, "", "NextAuth.js Generated Encryption Key", 32);
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"dir","enc":"A256GCM"}"#);
    let (vector, mut text) = ([7; 12], claims.as_bytes().to_vec());
    let cipher = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &key).expect("a key"));
    let (nonce, covered) = (Nonce::assume_unique_for_key(vector), Aad::from(header.as_bytes()));
    let tag = cipher.seal_in_place_separate_tag(nonce, covered, &mut text).expect("encrypted");
    compact(&header, &vector, &text, tag.as_ref())
}

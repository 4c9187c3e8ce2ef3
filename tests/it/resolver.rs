//! Tokens of the sidecar's own for the resolvers of teams that keep Velt's data themselves, and paths of the app
//! that only known callers may ask.

use std::path::Path;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use crate::support::Stage;
use crate::support::client::Answer;
use crate::support::velt::unix_seconds;

const PATH: &str = "/api/velt/resolver-token";
const KEYS: &str = "/api/velt/resolver-keys";

/// Writes a new private key of P-256.
fn write_key(file: &Path) {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key");
    std::fs::write(file, key.serialize_pem()).expect("written");
}

fn toml(folder: &Path) -> String {
    format!(
        "[resolver]\nissuer = \"https://app.example\"\naudience = \"resolvers\"\n\
         key_file = \"{}\"\n",
        folder.join("key.pem").display()
    )
}

/// Returns header and claims of a token if one of the published keys has signed it.
fn checked(token: &str, keys: &Value) -> (Value, Value) {
    let parts: Vec<&str> = token.split('.').collect();
    let decoded = |part: &str| URL_SAFE_NO_PAD.decode(part).expect("base64url");
    let [header, claims] = [parts[0], parts[1]]
        .map(|part| serde_json::from_slice::<Value>(&decoded(part)).expect("JSON"));
    let keys = keys["keys"].as_array().expect("keys");
    let key = keys.iter().find(|key| key["kid"] == header["kid"]).expect("the key of the token");
    let coordinate = |name: &str| decoded(key[name].as_str().expect("a coordinate"));
    let point = [vec![4], coordinate("x"), coordinate("y")].concat();
    let signed = &token[..parts[0].len() + 1 + parts[1].len()];
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)
        .verify(signed.as_bytes(), &decoded(parts[2]))
        .expect("signed by that key");
    (header, claims)
}

async fn keys(stage: &Stage) -> (Answer, Value) {
    let answer = stage.client().get(KEYS).send().await;
    let keys = answer.json();
    (answer, keys)
}

#[tokio::test]
async fn published_keys_check_a_resolver_token_of_the_user() {
    let folder = tempfile::tempdir().expect("a folder");
    write_key(&folder.path().join("key.pem"));
    let stage = Stage::set(&toml(folder.path())).await;
    let answer = stage.get_as("ada", PATH).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let (published, keys) = keys(&stage).await;
    assert_eq!(published.header("cache-control"), Some("public, max-age=300"));
    assert_eq!(published.header("content-type"), Some("application/jwk-set+json"));
    assert!(keys["keys"][0].get("d").is_none(), "the private half stays here");
    let token = answer.json()["token"].as_str().expect("a token").to_owned();
    let (header, claims) = checked(&token, &keys);
    assert_eq!((&header["alg"], &header["typ"]), (&"ES256".into(), &"JWT".into()));
    assert_eq!(claims["sub"], "ada");
    assert_eq!(
        (&claims["iss"], &claims["aud"]),
        (&"https://app.example".into(), &"resolvers".into())
    );
    let (issued, ends) = (claims["iat"].as_u64(), claims["exp"].as_u64());
    assert!(issued.is_some_and(|issued| issued.abs_diff(unix_seconds()) < 5));
    assert_eq!(ends, issued.map(|issued| issued + 300));
    let again = stage.get_as("ada", PATH).await.json();
    assert_ne!(again["token"].as_str(), Some(&*token), "each token has an id of its own");
    assert!(stage.velt.call_count() == 0 && stage.app.journal().is_empty());
    assert_eq!(stage.metric("requests_total{outcome=\"resolver_served\"}").await, 3.0);
}

#[tokio::test]
async fn resolver_token_is_for_known_callers_and_own_pages() {
    let folder = tempfile::tempdir().expect("a folder");
    write_key(&folder.path().join("key.pem"));
    let stage = Stage::set(&toml(folder.path())).await;
    let anonymous = stage.client().get(PATH).send().await;
    assert_eq!((anonymous.status(), &*anonymous.code()), (401, "no_identity"));
    let foreign = stage.client().get(PATH).header("x-forwarded-user", "ada");
    let foreign = foreign.header("sec-fetch-site", "cross-site").send().await;
    assert_eq!((foreign.status(), &*foreign.code()), (403, "cross_origin"));
    let other = stage.get_as("ada", "/api/velt/resolver-token/").await;
    assert_eq!(other.status(), 200);
    assert_eq!(stage.app.journal().len(), 1, "another spelling is the app's");
}

#[tokio::test]
async fn both_keys_are_published_during_a_change_of_keys() {
    let folder = tempfile::tempdir().expect("a folder");
    let [old, new] = ["key.pem", "next.pem"].map(|name| folder.path().join(name));
    write_key(&old);
    write_key(&new);
    let toml = format!("{}other_key_file = \"{}\"\n", toml(folder.path()), new.display());
    let stage = Stage::set(&toml).await;
    let (_, keys) = keys(&stage).await;
    assert_eq!(keys["keys"].as_array().map(Vec::len), Some(2));
    let token = stage.get_as("ada", PATH).await.json();
    let (header, _) = checked(token["token"].as_str().expect("a token"), &keys);
    assert_eq!(header["kid"], keys["keys"][0]["kid"], "the first signs");
}

#[tokio::test]
async fn paths_are_the_apps_without_a_key() {
    let stage = Stage::set("").await;
    for path in [PATH, KEYS] {
        assert_eq!(stage.get_as("ada", path).await.status(), 200);
    }
    assert_eq!(stage.app.journal().len(), 2);
}

#[tokio::test]
async fn anonymous_callers_do_not_reach_the_paths_that_require_a_user() {
    let stage = Stage::set("[identity]\nrequire_on = [\"/api/velt/*\", \"/admin\"]\n").await;
    let paths = [
        "/api/velt/resolver",
        "/API//velt/x",
        "/api%2fvelt/x",
        "/x/../admin",
        "/admin/",
        "/api/velt/a/..%2f..%2f..%2fpublic",
        "/api/velt/..;/x",
    ];
    for path in paths {
        let answer = stage.client().get(path).send().await;
        assert_eq!((answer.status(), &*answer.code()), (401, "no_identity"), "{path}");
        assert_eq!(stage.get_as("ada", path).await.status(), 200, "{path}");
    }
    assert_eq!(stage.app.journal().len(), paths.len(), "the known caller's requests alone");
    assert_eq!(stage.client().get("/api/other").send().await.status(), 200);
    // A preflight has no cookies, and many an app answers OPTIONS as it answers GET.
    let preflight = stage.client().request(http::Method::OPTIONS, "/api/velt/x");
    let preflight = preflight.header("access-control-request-method", "POST").send().await;
    assert_eq!(preflight.status(), 401);
}

#[tokio::test]
async fn calls_of_velts_own_servers_reach_the_app_and_mint_nothing() {
    let stage = Stage::set("").await;
    let call = stage.client().post("/velt/permissions", "{\"data\":{\"requests\":[]}}");
    let answer = call.header("authorization", "Bearer configured-at-velt").send().await;
    assert_eq!((answer.status(), answer.token()), (200, None));
    let arrived = stage.app.journal().pop().expect("a request");
    assert_eq!(arrived.header("authorization"), Some("Bearer configured-at-velt"));
    assert_eq!(stage.velt.call_count(), 0);
}

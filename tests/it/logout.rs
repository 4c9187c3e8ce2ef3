//! Logouts by the word of the identity provider, or of a program that signs its calls: what is believed, and what
//! follows for the user and for others.

mod webhook;
mod websockets;

use aws_lc_rs::hmac::{HMAC_SHA256, Key, sign};
use http::Method;
use serde_json::{Value, json};

use crate::support::Stage;
use crate::support::client::Answer;
use crate::support::issuer::{ISSUER, Issuer, Pen, base64, claims};
use crate::support::raw::Wire;
use crate::support::velt::unix_seconds;

const EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";
const FORM: &str = "application/x-www-form-urlencoded";
const TOKEN: &str = "/api/velt/token";

/// A sidecar that takes logouts from an identity provider.
struct Provider {
    pen: Pen,
    issuer: Issuer,
}

impl Provider {
    async fn start() -> Self {
        let pen = Pen::es256("1");
        let issuer = Issuer::publishing(&[&pen]).await;
        Self { pen, issuer }
    }

    /// Settings of a sidecar that believes this provider's logout tokens. `more` adds to the table `logout`.
    fn toml(&self, more: &str) -> String {
        format!(
            "[logout]\n{more}\n[logout.oidc]\npath = \"/velt/logout\"\nissuer = \"{ISSUER}\"\n\
             audience = [\"app\"]\njwks_url = \"http://{}/keys\"\n",
            self.issuer.server.address
        )
    }

    /// Signs a logout token with these claims beside, or instead of, the usual ones.
    fn token(&self, user: &str, more: &Value) -> String {
        let header = json!({ "alg": "ES256", "typ": "logout+jwt", "kid": "1" });
        self.pen.sign_text(&header.to_string(), &logout_claims(user, more).to_string())
    }
}

/// Returns the claims of a logout token; `null` in `more` removes a claim.
fn logout_claims(user: &str, more: &Value) -> Value {
    let now = unix_seconds();
    let mut claims = json!({
        "iss": ISSUER, "aud": "app", "sub": user, "iat": now, "exp": now + 120,
        "jti": format!("{user}-{now}"), "events": { EVENT: {} },
    });
    for (name, value) in more.as_object().expect("an object") {
        claims[name] = value.clone();
    }
    let object = claims.as_object_mut().expect("an object");
    object.retain(|_, value| !value.is_null());
    claims
}

async fn post(stage: &Stage, token: &str) -> Answer {
    let body = format!("logout_token={token}");
    stage.client().post("/velt/logout", body).header("content-type", FORM).send().await
}

/// Returns the token that a token route serves to `user`.
async fn served(stage: &Stage, user: &str) -> String {
    let answer = stage.get_as(user, TOKEN).await;
    assert_eq!(answer.status(), 200, "{}", answer.text());
    answer.json()["token"].as_str().expect("a token").to_owned()
}

/// Checks an answer to a provider: the error in the form of the specification, kept by no cache, and no redirect.
fn assert_refused(answer: &Answer, status: u16, words: &str) {
    assert_eq!(answer.status(), status, "{words}: {}", answer.text());
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(answer.header("location"), None);
    let json = answer.json();
    assert_eq!(json["error"], "invalid_request");
    let description = json["error_description"].as_str().expect("a description");
    assert!(description.contains(words), "{words}: {description}");
}

#[tokio::test]
async fn t71_logout_takes_the_token_of_its_user_alone() {
    let provider = Provider::start().await;
    let check = "[delivery.check]\npath = \"/velt/check\"\n";
    let stage = Stage::set(&format!("{}{check}", provider.toml(""))).await;
    let (_, bobs) = (served(&stage, "ada").await, served(&stage, "bob").await);
    let answer = post(&stage, &provider.token("ada", &json!({}))).await;
    assert_eq!(answer.status(), 200, "{}", answer.text());
    assert_eq!(answer.header("cache-control"), Some("no-store"));

    let refused = stage.get_as("ada", TOKEN).await;
    assert_eq!((refused.status(), &*refused.code()), (401, "signed_out"));
    // The app's own requests go on.
    let of_app = stage.get_as("ada", "/api/me").await;
    assert_eq!((of_app.status(), of_app.token()), (200, None));
    assert_eq!(of_app.token_status(), Some("signed-out"));
    // A gateway that asks is told too.
    let checked = stage.get_as("ada", "/velt/check").await;
    assert_eq!((checked.token(), checked.token_status()), (None, Some("signed-out")));
    let bob = stage.get_as("bob", "/velt/check").await;
    assert_eq!(bob.token(), Some(&*bobs));
    assert_eq!(served(&stage, "bob").await, bobs, "the same bytes");
    assert_eq!(stage.velt.call_count(), 2, "no token was minted after the logout");
    for (series, value) in [
        ("logouts_total{source=\"oidc\"}", 1.0),
        ("logout_calls_total{result=\"done\"}", 1.0),
        ("logouts_remembered", 1.0),
        ("requests_total{outcome=\"logout_done\"}", 1.0),
        ("requests_total{outcome=\"signed_out\"}", 1.0),
        ("header_deliveries_total{result=\"signed_out\"}", 1.0),
    ] {
        assert_eq!(stage.metric(series).await, value, "{series}");
    }
    assert!(stage.app.journal().iter().all(|arrived| arrived.target == "/api/me"));
}

#[tokio::test]
async fn refusal_that_is_off_forgets_and_mints_anew() {
    let provider = Provider::start().await;
    let stage = Stage::set(&provider.toml("refuse_for = \"off\"")).await;
    let first = served(&stage, "ada").await;
    assert_eq!(post(&stage, &provider.token("ada", &json!({}))).await.status(), 200);
    assert_ne!(served(&stage, "ada").await, first);
}

#[tokio::test]
async fn refusal_of_an_identity_without_a_login_time_ends() {
    let provider = Provider::start().await;
    let stage = Stage::set(&provider.toml("refuse_for = \"100s\"")).await;
    // A logout that was told late counts from its own time.
    let recent = json!({ "iat": unix_seconds() - 60 });
    assert_eq!(post(&stage, &provider.token("ada", &recent)).await.status(), 200);
    assert_eq!(stage.get_as("ada", TOKEN).await.status(), 401);
    let long_ago = json!({ "iat": unix_seconds() - 110 });
    assert_eq!(post(&stage, &provider.token("bob", &long_ago)).await.status(), 200);
    served(&stage, "bob").await;
}

#[tokio::test]
async fn t71_only_a_later_login_lifts_the_refusal() {
    let provider = Provider::start().await;
    let toml = format!("{}{}", provider.issuer.toml(), provider.toml("refuse_for = \"off\""));
    let stage = Stage::set(&toml).await;
    let now = unix_seconds();
    let signed_in = async |at: Option<u64>, issued: u64| {
        let mut claims = claims("ada");
        claims["iat"] = json!(issued);
        if let Some(at) = at {
            claims["auth_time"] = json!(at);
        }
        let assertion = provider.pen.sign(&claims);
        stage.client().get(TOKEN).header("x-assertion", assertion).send().await.status()
    };
    assert_eq!(signed_in(Some(now - 60), now).await, 200);
    let logout = provider.token("ada", &json!({ "iat": now - 30 }));
    assert_eq!(post(&stage, &logout).await.status(), 200);
    assert_eq!(
        signed_in(Some(now - 60), now).await,
        401,
        "an assertion made anew of an old session"
    );
    assert_eq!(signed_in(Some(now - 30), now).await, 401, "the second of the logout");
    assert_eq!(signed_in(Some(now - 29), now).await, 200, "a later login");
    assert_eq!(signed_in(None, now - 40).await, 401, "an assertion from before the logout");
    assert_eq!(signed_in(None, now).await, 200, "refuse_for is off");
}

#[tokio::test]
async fn t70_each_check_refuses_and_changes_nothing() {
    let provider = Provider::start().await;
    let stage = Stage::set(&provider.toml("")).await;
    let adas = served(&stage, "ada").await;
    let (now, other) = (unix_seconds(), Pen::es256("1"));
    let usual = logout_claims("ada", &json!({})).to_string();
    let typed = |kind: &str| json!({ "alg": "ES256", "kid": "1", "typ": kind }).to_string();
    let unsigned = format!("{}.{}.", base64(r#"{"alg":"none"}"#), base64(&usual));
    // The public key as the secret of an HMAC (RFC 8725 section 2.1).
    let confused = {
        let message = format!("{}.{}", base64(r#"{"alg":"HS256","kid":"1"}"#), base64(&usual));
        let key = Key::new(HMAC_SHA256, provider.pen.pem().as_bytes());
        format!("{message}.{}", base64(sign(&key, message.as_bytes())))
    };
    let id_token = provider.pen.sign(&claims("ada"));
    for (token, words) in [
        (unsigned, "algorithm"),
        (confused, "algorithm"),
        (other.sign_text(&typed("logout+jwt"), &usual), "signature"),
        (provider.pen.sign_text(&typed("at+jwt"), &usual), "type logout+jwt"),
        (id_token, "events"),
        (provider.token("ada", &json!({ "aud": "other" })), "aud"),
        (provider.token("ada", &json!({ "iss": "https://other.example" })), "iss"),
        (provider.token("ada", &json!({ "nonce": "n" })), "nonce"),
        (provider.token("ada", &json!({ "events": {} })), "events"),
        (provider.token("ada", &json!({ "jti": null })), "jti"),
        (provider.token("ada", &json!({ "iat": null })), "iat"),
        (provider.token("ada", &json!({ "exp": now - 120 })), "expired"),
        (provider.token("ada", &json!({ "iat": now - 3600, "exp": now + 60 })), "expired"),
        (provider.token("ada", &json!({ "iat": now + 3600 })), "future"),
        (provider.token("ada", &json!({ "sub": null, "sid": "s" })), "session (sid) and no user"),
        (provider.token("ada", &json!({ "sub": null })), "neither sub nor sid"),
        ("x".into(), "no signed JWT"),
        (String::new(), "no parameter logout_token"),
    ] {
        assert_refused(&post(&stage, &token).await, 400, words);
    }
    let good = format!("logout_token={}", provider.token("ada", &json!({})));
    let plain = stage.client().post("/velt/logout", good.clone()).send().await;
    assert_refused(&plain, 400, "Content-Type");
    let twice = stage.client().post("/velt/logout", format!("{good}&{good}"));
    assert_refused(&twice.header("content-type", FORM).send().await, 400, "more than once");
    for method in [Method::GET, Method::PUT, Method::DELETE] {
        let answer = stage.client().request(method, "/velt/logout").send().await;
        assert_refused(&answer, 405, "POST");
        assert_eq!(answer.header("allow"), Some("POST"));
    }
    assert_eq!(served(&stage, "ada").await, adas, "the same bytes");
    assert_eq!(stage.metric("logouts_total{source=\"oidc\"}").await, 0.0);
    assert!(stage.app.journal().is_empty());
}

#[tokio::test]
async fn t70_logout_token_works_once() {
    let provider = Provider::start().await;
    let stage = Stage::set(&provider.toml("")).await;
    let token = provider.token("ada", &json!({}));
    assert_eq!(post(&stage, &token).await.status(), 200);
    assert_refused(&post(&stage, &token).await, 400, "carried out before");
    // The name of the token counts, not its bytes.
    let again = provider.token("ada", &json!({ "sid": "s" }));
    assert_refused(&post(&stage, &again).await, 400, "carried out before");
    assert_eq!(post(&stage, &provider.token("ada", &json!({ "jti": "2" }))).await.status(), 200);
    assert_eq!(stage.metric("logout_calls_total{result=\"replayed\"}").await, 2.0);
}

/// Sorts of requests that providers send and other programs have stumbled over.
#[tokio::test]
async fn logouts_of_real_providers_are_taken() {
    let provider = Provider::start().await;
    let stage = Stage::set(&provider.toml("")).await;
    let body = |user: &str, more: &Value| format!("logout_token={}", provider.token(user, more));
    let send = async |path: &str, kind: &str, body: String, more: &[(&str, &str)]| {
        let mut sending = stage.client().post(path, body).header("content-type", kind);
        for (name, value) in more {
            sending = sending.header(name, value);
        }
        sending.send().await.status()
    };
    let none: &[(&str, &str)] = &[];
    // Keycloak names a charset (keycloak #7357).
    let charset = "application/x-www-form-urlencoded; charset=UTF-8";
    assert_eq!(send("/velt/logout", charset, body("a", &json!({})), none).await, 200);
    // WSO2 posts to a URL with a query (mod_auth_openidc #506).
    let query = "/velt/logout?logout=backchannel";
    assert_eq!(send(query, FORM, body("b", &json!({})), none).await, 200);
    // authentik sends sub alone (nextcloud/user_oidc #1183), the certification suite a session that no ID token had
    // (oidctest #204).
    assert_eq!(send("/velt/logout", FORM, body("c", &json!({})), none).await, 200);
    assert_eq!(send("/velt/logout", FORM, body("d", &json!({ "sid": "new" })), none).await, 200);
    // No cookie, no Origin, or a foreign one: a logout is no request of a browser (spring-security #13841).
    let foreign = &[("origin", "https://id.example"), ("sec-fetch-site", "cross-site")];
    assert_eq!(send("/velt/logout", FORM, body("e", &json!({})), foreign).await, 200);
    // Drafts before 2022 have no exp, and the type JWT.
    let header = provider.pen.header().to_string();
    let claims = logout_claims("f", &json!({ "exp": null })).to_string();
    let old = format!("logout_token={}", provider.pen.sign_text(&header, &claims));
    assert_eq!(send("/velt/logout", FORM, old, none).await, 200);
    // A login proxy in front adds its headers, and an identity that would be refused for the app.
    let twice = &[("x-forwarded-user", "a,b"), ("authorization", "Bearer x")];
    assert_eq!(send("/velt/logout", FORM, body("g", &json!({})), twice).await, 200);
    for user in ["a", "b", "c", "d", "e", "f", "g"] {
        assert_eq!(stage.get_as(user, TOKEN).await.status(), 401, "{user}");
    }
    // Any other spelling of the path is the app's.
    for path in ["/velt/logout/", "/velt//logout", "/Velt/logout", "/velt/%6cogout"] {
        assert_eq!(send(path, FORM, body("h", &json!({})), none).await, 200);
    }
    assert_eq!(stage.app.journal().len(), 4);
    served(&stage, "h").await;
}

#[tokio::test]
async fn t71_mint_under_way_at_the_logout_serves_no_token() {
    let provider = Provider::start().await;
    let stage = Stage::set(&provider.toml("")).await;
    stage.velt.close_gate();
    let asking = stage.client().get(TOKEN).header("x-forwarded-user", "ada");
    let asking = tokio::spawn(asking.send());
    stage.velt.calls_reach(1).await;
    assert_eq!(post(&stage, &provider.token("ada", &json!({}))).await.status(), 200);
    stage.velt.open_gate();
    let refused = asking.await.expect("no panic");
    assert_eq!((refused.status(), &*refused.code()), (401, "signed_out"));
    assert_eq!(stage.metric("tokens_cached").await, 0.0);
}

#[tokio::test]
async fn refusal_for_want_of_a_token_spares_signed_out_users() {
    let provider = Provider::start().await;
    let toml = format!(
        "{}[delivery.header]\non_failure = \"refuse\"\nmax_wait = \"5s\"\n",
        provider.toml("")
    );
    let stage = Stage::set(&toml).await;
    assert_eq!(post(&stage, &provider.token("ada", &json!({}))).await.status(), 200);
    let answer = stage.get_as("ada", "/api/me").await;
    assert_eq!((answer.status(), answer.token_status()), (200, Some("signed-out")));
}

#[tokio::test]
async fn t70_long_and_slow_bodies_hold_up_no_other() {
    let provider = Provider::start().await;
    let stage = Stage::set(&provider.toml("")).await;
    let mut slow = Wire::to(stage.sidecar.addresses.traffic).await;
    slow.send(format!(
        "POST /velt/logout HTTP/1.1\r\nhost: a\r\ncontent-type: {FORM}\r\ncontent-length: 100\r\n\r\nlogout_"
    ))
    .await;
    let long = format!("logout_token={}", "x".repeat(65 * 1024));
    let long = stage.client().post("/velt/logout", long).header("content-type", FORM).send().await;
    assert_refused(&long, 413, "64 KiB");
    assert_eq!(post(&stage, &provider.token("ada", &json!({}))).await.status(), 200);
    let late = slow.head().await;
    assert!(late.starts_with("HTTP/1.1 408"), "{late}");
}

#[tokio::test]
async fn keys_that_cannot_be_fetched_are_the_sidecars_trouble() {
    let provider = Provider::start().await;
    provider.issuer.answer(|_| {
        let mut answer = crate::support::app::plain("down");
        *answer.status_mut() = http::StatusCode::BAD_GATEWAY;
        answer
    });
    let stage = Stage::set(&provider.toml("")).await;
    let token = provider.token("ada", &json!({}));
    let answer = post(&stage, &token).await;
    assert_refused(&answer, 503, "Send the logout again");
    assert_eq!(answer.header("retry-after"), Some("1"));
    provider.issuer.publish(&[&provider.pen]);
    let deadline = tokio::time::Instant::now() + crate::support::PATIENCE;
    while post(&stage, &token).await.status() != 200 {
        assert!(tokio::time::Instant::now() < deadline, "the keys come");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn logout_paths_are_the_apps_by_default() {
    let stage = Stage::set("").await;
    for path in ["/velt/logout", "/velt/logout-webhook"] {
        assert_eq!(stage.client().post(path, "").send().await.status(), 200);
    }
    assert_eq!(stage.app.journal().len(), 2);
}

#[tokio::test]
async fn explain_says_that_a_user_was_signed_out() {
    let provider = Provider::start().await;
    let stage = Stage::set(&provider.toml("")).await;
    assert_eq!(post(&stage, &provider.token("ada", &json!({}))).await.status(), 200);
    let asked = json!({ "target": TOKEN, "headers": [["x-forwarded-user", "ada"]] });
    let told = crate::explain::call(stage.sidecar.addresses.admin, "/explain", &asked).await.json();
    assert_eq!(
        (&told["answer"]["status"], &told["answer"]["code"]),
        (&json!(401), &json!("signed_out"))
    );
    let steps = told["steps"].as_array().expect("steps");
    assert!(steps.iter().any(|step| step["step"] == "logout"), "{told}");
    let asked = json!({ "target": "/velt/logout", "method": "POST" });
    let told = crate::explain::call(stage.sidecar.addresses.admin, "/explain", &asked).await.json();
    assert_eq!(told["answer"]["outcome"], "logout_done", "{told}");
}

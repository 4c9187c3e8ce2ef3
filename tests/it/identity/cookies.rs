//! An assertion in a cookie, from outside: which cookie counts, beside which header, and for whose pages.

use ground::metrics::{AssertionResult, RefusalKind};
use serde_json::json;

use super::assertion::result_count;
use super::{assert_ambiguous, refusals_are};
use crate::support::Stage;
use crate::support::client::{Answer, Sending};
use crate::support::issuer::{Issuer, Pen, base64, claims};
use crate::support::velt::{unix_seconds, user_of};

/// A stage that reads the assertions of `issuer` from the cookie `session`, with more lines in
/// `[identity.assertion]`.
async fn reading_cookies(issuer: &Issuer, lines: &str) -> Stage {
    let header = "header = \"X-Assertion\"\n";
    let toml = issuer.toml();
    assert!(toml.contains(header), "{toml}");
    Stage::set(&format!("{}{lines}\n", toml.replace(header, "cookie = [\"session\"]\n"))).await
}

fn with_cookie(stage: &Stage, path: &str, cookie: &str) -> Sending {
    stage.client().get(path).header("cookie", cookie)
}

async fn get(stage: &Stage, cookie: &str) -> Answer {
    with_cookie(stage, "/", cookie).send().await
}

#[track_caller]
fn assert_anonymous(answer: &Answer, what: &str) {
    let (token, status) = (answer.token(), answer.token_status());
    assert_eq!((answer.status(), token, status), (200, None, Some("anonymous")), "{what}");
}

#[tokio::test]
async fn session_in_a_cookie_names_its_user() {
    let pen = Pen::es256("1");
    let issuer = Issuer::publishing(&[&pen]).await;
    let stage = reading_cookies(&issuer, "").await;
    let token = pen.sign(&claims("ada"));
    let (head, tail) = token.split_at(token.len() / 2);
    for cookie in [
        format!("session={token}"),
        format!("a=b; session={token}; c=d"),
        format!("session.1={tail}; session.0={head}"),
    ] {
        let answer = get(&stage, &cookie).await;
        assert_eq!(user_of(answer.token().expect("a token")), "ada");
        let arrived = stage.app.journal().pop().expect("a request");
        assert_eq!(arrived.header("cookie"), Some(&*cookie), "the app has its cookie");
    }
    let answer = with_cookie(&stage, "/", &format!("session={token}")).send_http2().await;
    assert_eq!(user_of(answer.token().expect("a token")), "ada");
}

#[tokio::test]
async fn session_that_does_not_count_leaves_the_request_anonymous() {
    let pen = Pen::es256("1");
    let issuer = Issuer::publishing(&[&pen]).await;
    let stage = reading_cookies(&issuer, "").await;
    let mut old = claims("ada");
    old["exp"] = json!(unix_seconds() - 3600);
    let token = pen.sign(&claims("ada"));
    for (what, cookie) in [
        ("expired", format!("session={}", pen.sign(&old))),
        ("signed by another key", format!("session={}", Pen::es256("1").sign(&claims("ada")))),
        ("cut off", format!("session={}", &token[..token.len() - 4])),
        ("no JWT", "session=1234".to_owned()),
        ("empty", "session=".to_owned()),
        ("a piece is missing", format!("session.1={token}")),
        ("another name", format!("Session={token}")),
    ] {
        assert_anonymous(&get(&stage, &cookie).await, what);
    }
    assert_eq!(result_count(&stage, AssertionResult::Expired).await, 1.0);
    let expired = with_cookie(&stage, "/api/velt/token", &format!("session={}", pen.sign(&old)));
    let answer = expired.header("sec-fetch-site", "same-origin").send().await;
    assert_eq!((answer.status(), &*answer.code()), (401, "no_identity"));
    assert!(answer.text().contains("it has expired; sign in again"), "{}", answer.text());
    let answer = get(&stage, &format!("session={token}")).await;
    assert_eq!(user_of(answer.token().expect("a token")), "ada");
}

#[tokio::test]
async fn t66_cookie_that_came_twice_names_no_user() {
    let pen = Pen::es256("1");
    let issuer = Issuer::publishing(&[&pen]).await;
    let stage = reading_cookies(&issuer, "").await;
    let [ada, eve] = ["ada", "eve"].map(|user| pen.sign(&claims(user)));
    // A page of another subdomain has set its own session for the parent domain.
    let answer = get(&stage, &format!("session={eve}; session={ada}")).await;
    assert_ambiguous(&answer);
    let two = with_cookie(&stage, "/", &format!("session={ada}"));
    assert_ambiguous(&two.header("cookie", format!("session={eve}")).send().await);
    assert_ambiguous(&get(&stage, &format!("session.0={ada}; session.0={eve}")).await);
    refusals_are(&stage, RefusalKind::CookieTwice, 3).await;
    assert!(stage.app.journal().is_empty() && stage.velt.call_count() == 0);
}

#[tokio::test]
async fn t66_places_that_name_different_users_are_refused() {
    let pen = Pen::es256("1");
    let issuer = Issuer::publishing(&[&pen]).await;
    let both = "header = \"X-Assertion\"\nsources = [\"cookie\", \"header\"]";
    let stage = reading_cookies(&issuer, both).await;
    let [ada, eve] = ["ada", "eve"].map(|user| pen.sign(&claims(user)));
    let mut old = claims("eve");
    old["exp"] = json!(unix_seconds() - 3600);
    let old = pen.sign(&old);
    let send = |cookie: &str, header: &str| {
        with_cookie(&stage, "/", &format!("session={cookie}")).header("x-assertion", header).send()
    };
    assert_ambiguous(&send(&ada, &eve).await);
    refusals_are(&stage, RefusalKind::Disagreement, 1).await;
    for header in [&ada, &old, "no JWT"] {
        let answer = send(&ada, header).await;
        assert_eq!(user_of(answer.token().expect("a token")), "ada", "the cookie comes first");
    }
    assert_anonymous(&send(&old, &ada).await, "the first that is there decides");
    let alone = stage.client().get("/").header("x-assertion", &*eve).send().await;
    assert_eq!(user_of(alone.token().expect("a token")), "eve");
}

#[tokio::test]
async fn t66_bare_name_beside_the_guarded_one_counts_for_nothing() {
    let pen = Pen::es256("1");
    let issuer = Issuer::publishing(&[&pen]).await;
    let names = "cookie = [\"__Secure-session\", \"session\"]\n";
    let stage = Stage::set(&issuer.toml().replace("header = \"X-Assertion\"\n", names)).await;
    let [ada, eve] = ["ada", "eve"].map(|user| pen.sign(&claims(user)));
    // A page of another subdomain can set the bare name alone.
    let answer = get(&stage, &format!("session={eve}; __Secure-session={ada}")).await;
    assert_eq!(user_of(answer.token().expect("a token")), "ada");
    let answer = get(&stage, &format!("session={ada}")).await;
    assert_eq!(user_of(answer.token().expect("a token")), "ada", "over plain HTTP");
}

#[tokio::test]
async fn t66_token_route_answers_pages_of_the_same_host_alone() {
    let pen = Pen::es256("1");
    let issuer = Issuer::publishing(&[&pen]).await;
    let stage = reading_cookies(&issuer, "header = \"Authorization\"").await;
    let token = pen.sign(&claims("ada"));
    let cookie = format!("session={token}");
    let ask = |more: &[(&str, &str)]| {
        let asking = with_cookie(&stage, "/api/velt/token", &cookie).without("host");
        let asking = asking.header("host", "app.example:8080");
        more.iter().fold(asking, |asking, (name, value)| asking.header(name, value)).send()
    };
    for more in [
        &[("sec-fetch-site", "same-origin")][..],
        &[("sec-fetch-site", "none")],
        &[("origin", "http://app.example:8080")],
        &[("referer", "http://APP.example:8080/a/page?x")],
        &[("origin", "https://front.example"), ("x-forwarded-host", "front.example")],
    ] {
        let answer = ask(more).await;
        assert_eq!(answer.status(), 200, "{more:?}: {}", answer.text());
    }
    for more in [
        &[][..],
        &[("sec-fetch-site", "cross-site")],
        &[("sec-fetch-site", "same-site")],
        &[("sec-fetch-site", "cross-site"), ("origin", "http://app.example:8080")],
        &[("origin", "http://evil.example")],
        &[("origin", "http://www.app.example:8080")],
        &[("origin", "http://app.example")],
        &[("origin", "https://app.example")],
        &[("origin", "null")],
        &[("origin", "http://evil.example"), ("referer", "http://app.example:8080/")],
        &[("referer", "http://app.example:8080@evil.example/")],
        &[("referer", "http://evil.example/?http://app.example:8080/")],
    ] {
        let answer = ask(more).await;
        assert_eq!((answer.status(), &*answer.code()), (403, "cross_origin"), "{more:?}");
    }
    let bearer = format!("Bearer {token}");
    let program = stage.client().get("/api/velt/token").header("authorization", bearer);
    assert_eq!(program.send().await.status(), 200, "no browser sends this header by itself");
}

#[tokio::test]
async fn shared_secret_checks_hs256_and_nothing_else() {
    const SECRET: &str = "the-secret-of-an-older-supabase-project";
    let pen = Pen::es256("1");
    let issuer = Issuer::publishing(&[&pen]).await;
    let directory = tempfile::tempdir().expect("a directory");
    let (old, new) = (directory.path().join("old"), directory.path().join("new"));
    std::fs::write(&old, format!("{SECRET}\n")).expect("written");
    std::fs::write(&new, format!("{SECRET}-next")).expect("written");
    let lines = format!(
        "algorithms = [\"HS256\", \"ES256\"]\nsecret_file = {old:?}\nnext_secret_file = {new:?}"
    );
    let stage = reading_cookies(&issuer, &lines).await;
    let signed = |secret: &str, header: &str| {
        let message = format!("{}.{}", base64(header), base64(claims("ada").to_string()));
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, secret.as_bytes());
        let signature = aws_lc_rs::hmac::sign(&key, message.as_bytes());
        format!("session={message}.{}", base64(signature.as_ref()))
    };
    let header = r#"{"alg":"HS256","typ":"JWT"}"#;
    for secret in [SECRET.to_owned(), format!("{SECRET}-next")] {
        let answer = get(&stage, &signed(&secret, header)).await;
        assert_eq!(user_of(answer.token().expect("a token")), "ada");
    }
    let public = pen.jwk["x"].as_str().expect("a coordinate");
    for (what, cookie) in [
        ("another secret", signed("another", header)),
        ("the public key as the secret", signed(public, r#"{"alg":"HS256","kid":"1"}"#)),
        ("the secret under an asymmetric name", signed(SECRET, r#"{"alg":"ES256","kid":"1"}"#)),
        ("another length", signed(SECRET, r#"{"alg":"HS512"}"#)),
    ] {
        assert_anonymous(&get(&stage, &cookie).await, what);
    }
    let answer = get(&stage, &format!("session={}", pen.sign(&claims("eve")))).await;
    assert_eq!(user_of(answer.token().expect("a token")), "eve", "keys count beside the secret");
}

#[tokio::test]
async fn claims_bind_a_session_to_its_app() {
    let pen = Pen::es256("1");
    let issuer = Issuer::publishing(&[&pen]).await;
    let lines = "authorized_parties = [\"https://app.example\"]\n\
        required_claims = [\"token_use=id\", \"sts!=pending\"]";
    let stage = reading_cookies(&issuer, lines).await;
    let right = json!({ "azp": "https://app.example", "token_use": "id" });
    for (change, counts) in [
        (json!({}), true),
        (json!({ "sts": "active" }), true),
        (json!({ "sts": "pending" }), false),
        (json!({ "token_use": "access" }), false),
        (json!({ "token_use": null }), false),
        (json!({ "token_use": ["id"] }), false),
        (json!({ "azp": "https://evil.example" }), false),
        (json!({ "azp": ["https://app.example"] }), false),
        (json!({ "azp": null }), false),
    ] {
        let mut claims = claims("ada");
        for (name, value) in
            [&right, &change].into_iter().filter_map(|more| more.as_object()).flatten()
        {
            claims[name] = value.clone();
        }
        let answer = get(&stage, &format!("session={}", pen.sign(&claims))).await;
        assert_eq!(answer.token().is_some(), counts, "{change}");
    }
}

#[tokio::test]
async fn several_names_under_a_pattern_name_no_user() {
    let pen = Pen::es256("1");
    let issuer = Issuer::publishing(&[&pen]).await;
    let toml = issuer.toml().replace("header = \"X-Assertion\"\n", "cookie = [\"id.*.token\"]\n");
    let stage = Stage::set(&toml).await;
    let [ada, eve] = ["ada", "eve"].map(|user| pen.sign(&claims(user)));
    let answer = get(&stage, &format!("id.ada.token={ada}; id.LastUser=ada")).await;
    assert_eq!(user_of(answer.token().expect("a token")), "ada");
    let both = format!("id.ada.token={ada}; id.eve.token={eve}");
    assert_anonymous(&get(&stage, &both).await, "two users in one browser");
    assert_eq!(result_count(&stage, AssertionResult::SeveralCookies).await, 1.0);
}

#[tokio::test]
async fn credentials_of_the_apps_own_leave_the_cookie_its_word() {
    let pen = Pen::es256("1");
    let issuer = Issuer::publishing(&[&pen]).await;
    let stage = reading_cookies(&issuer, "header = \"Authorization\"").await;
    let [ada, eve] = ["ada", "eve"].map(|user| pen.sign(&claims(user)));
    for credentials in ["Bearer opaque", "Basic YTpi"] {
        let asking = with_cookie(&stage, "/", &format!("session={ada}"));
        let answer = asking.header("authorization", credentials).send().await;
        assert_eq!(user_of(answer.token().expect("a token")), "ada", "{credentials}");
        let asking = with_cookie(&stage, "/api/velt/token", &format!("session={ada}"));
        let answer = asking.header("authorization", credentials).send().await;
        assert_eq!(answer.status(), 403, "it is the cookie that names the user");
    }
    let asking = with_cookie(&stage, "/", &format!("session={ada}"));
    assert_ambiguous(&asking.header("authorization", format!("Bearer {eve}")).send().await);
}

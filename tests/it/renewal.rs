//! Time for which a page may use its token, and reports of pages that Velt has refused a token.

use std::time::Duration;

use serde_json::{Value, json};
use token::{Fingerprint, TokenValue};
use tokio::time::Instant;

use crate::support::client::Answer;
use crate::support::velt::{answer, jwt, minted, refused, unix_seconds, user_of};
use crate::support::{PATIENCE, Stage};

const ROUTE: &str = "/api/velt/token";

/// One route that waits for a short time only.
const HASTY: &str = "[[delivery.route]]\npath = \"/api/velt/token\"\nmax_wait = \"300ms\"";

fn fingerprint(token: &str) -> String {
    Fingerprint::of(&TokenValue::parse(token).expect("a token")).to_hex()
}

async fn post(stage: &Stage, user: &str, body: &Value) -> Answer {
    let sending = stage.client().post(ROUTE, body.to_string());
    sending.header("x-forwarded-user", user).send().await
}

async fn token_of(stage: &Stage, user: &str) -> String {
    served(&stage.get_as(user, ROUTE).await)
}

/// Returns the token of an answer of the route.
fn served(answer: &Answer) -> String {
    assert_eq!(answer.status(), 200, "{}", answer.text());
    answer.json()["token"].as_str().expect("a token").to_owned()
}

async fn counted(stage: &Stage, result: &str) -> f64 {
    stage.metric(&format!("refused_tokens_total{{result=\"{result}\"}}")).await
}

/// Has Velt mint tokens of `seconds` from now on, `n` of which tells them apart.
fn mint_for(stage: &Stage, seconds: u64) {
    stage.velt.script(move |call, n| {
        let claims = json!({ "userId": call.user(), "n": n, "exp": unix_seconds() + seconds });
        minted(&jwt(&claims))
    });
}

#[tokio::test]
async fn route_says_until_when_a_token_may_be_used() {
    let stage = Stage::set("").await;
    let now = unix_seconds();
    let told = stage.get_as("ada", ROUTE).await.json()["expiresAt"].as_u64().expect("seconds");
    let life = 172_800 - 60;
    assert!((now + life - 1..=now + life + 5).contains(&told), "{now}: {told}");
    let bare = stage.get_as("ada", "/generate-velt-jwt-token").await;
    assert!(bare.json().is_string(), "{}", bare.text());
}

#[tokio::test]
async fn route_waits_for_the_refresh_of_a_token_about_to_end() {
    let stage = Stage::set("").await;
    mint_for(&stage, 3);
    let first = token_of(&stage, "ada").await;
    let deadline = Instant::now() + PATIENCE;
    let second = loop {
        let token = token_of(&stage, "ada").await;
        if token != first {
            break token;
        }
        assert_eq!(stage.velt.call_count(), 1, "an old token although a refresh has begun");
        assert!(Instant::now() < deadline, "no refresh");
        // A token is due for a refresh by the clock of the process.
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!((user_of(&second).as_str(), stage.velt.call_count()), ("ada", 2));
}

#[tokio::test]
async fn route_serves_the_old_token_while_a_refresh_hangs() {
    let stage = Stage::set(HASTY).await;
    mint_for(&stage, 5);
    let first = token_of(&stage, "ada").await;
    stage.velt.close_gate();
    let deadline = Instant::now() + PATIENCE;
    let waited = loop {
        let begun = Instant::now();
        assert_eq!(token_of(&stage, "ada").await, first);
        if stage.velt.call_count() == 2 {
            break begun.elapsed();
        }
        assert!(Instant::now() < deadline, "no refresh");
        // A token is due for a refresh by the clock of the process.
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert!(waited >= Duration::from_millis(300), "{waited:?}: max_wait was not used");
    // Another user, whose token is not held, is served as before.
    stage.velt.open_gate();
    assert_eq!(user_of(&token_of(&stage, "grace").await), "grace");
}

#[tokio::test]
async fn refused_token_is_minted_anew_once_a_minute_for_each_user() {
    let stage = Stage::set("").await;
    let (ada, grace) = (token_of(&stage, "ada").await, token_of(&stage, "grace").await);
    let renewed = served(&post(&stage, "ada", &json!({ "refused": fingerprint(&ada) })).await);
    assert_ne!(renewed, ada);
    assert_eq!(user_of(&renewed), "ada");
    assert_eq!(token_of(&stage, "ada").await, renewed, "the new token is held");
    assert_eq!(stage.get_as("ada", "/page").await.token(), Some(&*renewed));

    let again = post(&stage, "ada", &json!({ "refused": fingerprint(&renewed) })).await;
    assert_eq!((again.status(), &*again.code()), (429, "renewed_recently"));
    let wait: u64 = again.header("retry-after").expect("a wait").parse().expect("seconds");
    assert!((50..=60).contains(&wait), "{wait}");
    assert_eq!(token_of(&stage, "ada").await, renewed, "a report takes no token away");

    let other = served(&post(&stage, "grace", &json!({ "refused": fingerprint(&grace) })).await);
    assert_eq!(user_of(&other), "grace");
    assert_eq!(stage.velt.call_count(), 4);
    assert_eq!((counted(&stage, "renewed").await, counted(&stage, "too_soon").await), (2.0, 1.0));
}

#[tokio::test]
async fn t68_only_the_users_own_held_token_can_be_refused() {
    let stage = Stage::set("").await;
    let (ada, grace) = (token_of(&stage, "ada").await, token_of(&stage, "grace").await);
    for stale in [fingerprint(&grace), fingerprint("a.b.c"), "0".repeat(64)] {
        assert_eq!(served(&post(&stage, "ada", &json!({ "refused": stale })).await), ada);
    }
    // A user without a token gets a first one.
    let linus = post(&stage, "linus", &json!({ "refused": fingerprint(&ada) })).await;
    assert_eq!(user_of(&served(&linus)), "linus");
    assert_eq!((stage.velt.call_count(), counted(&stage, "not_held").await), (3, 4.0));

    let anonymous = stage.client().post(ROUTE, json!({ "refused": fingerprint(&ada) }).to_string());
    assert_eq!(anonymous.send().await.status(), 401);
    assert_eq!(token_of(&stage, "ada").await, ada);
}

#[tokio::test]
async fn report_that_can_not_be_read_is_refused() {
    let stage = Stage::set("").await;
    let ada = token_of(&stage, "ada").await;
    let (upper, whole) = (fingerprint(&ada).to_uppercase(), json!(ada));
    for odd in [json!(""), json!(upper), whole, json!(7), json!(true), json!(["x"]), json!({})] {
        let answer = post(&stage, "ada", &json!({ "refused": odd })).await;
        assert_eq!((answer.status(), &*answer.code()), (400, "bad_fingerprint"), "{odd}");
    }
    let body = json!({ "userId": "grace", "refused": fingerprint(&ada) });
    assert_eq!(post(&stage, "ada", &body).await.code(), "user_mismatch");
    for none in [json!({ "refused": null }), json!({ "userId": "ada" })] {
        assert_eq!(served(&post(&stage, "ada", &none).await), ada, "{none}");
    }
    assert_eq!(stage.velt.call_count(), 1);
}

#[tokio::test]
async fn reports_of_many_pages_cause_one_mint() {
    let stage = Stage::set("").await;
    let ada = token_of(&stage, "ada").await;
    stage.velt.close_gate();
    let report = json!({ "refused": fingerprint(&ada) });
    let reports = (0..50).map(|_| post(&stage, "ada", &report));
    let open = async {
        stage.velt.calls_reach(2).await;
        // Meanwhile the held token is served to the app's pages.
        assert_eq!(stage.get_as("ada", "/page").await.token(), Some(&*ada));
        stage.velt.open_gate();
    };
    let (answers, ()) = tokio::join!(futures_util::future::join_all(reports), open);
    let renewed: Vec<_> = answers.iter().map(served).collect();
    assert!(renewed.iter().all(|token| *token == renewed[0] && *token != ada), "{renewed:?}");
    assert_eq!(stage.velt.call_count(), 2);
}

#[tokio::test]
async fn failed_renewal_is_told_and_costs_no_second_call() {
    let stage = Stage::set("").await;
    let ada = token_of(&stage, "ada").await;
    stage.velt.script(|_, _| refused(403, "PERMISSION_DENIED"));
    let report = json!({ "refused": fingerprint(&ada) });
    for _ in 0..3 {
        let answer = post(&stage, "ada", &report).await;
        assert_eq!((answer.status(), &*answer.code()), (502, "token_refused"));
    }
    assert_eq!(stage.velt.call_count(), 2, "the refusal is remembered");
    assert_eq!(counted(&stage, "failed").await, 2.0);
    // The app's pages still get the token that Velt once gave.
    assert_eq!(stage.get_as("ada", "/page").await.token(), Some(&*ada));
}

#[tokio::test]
async fn renewal_during_an_outage_leaves_the_other_users_alone() {
    let stage = Stage::set(HASTY).await;
    let (ada, grace) = (token_of(&stage, "ada").await, token_of(&stage, "grace").await);
    stage.velt.script(|_, _| answer(503, ""));
    let report = post(&stage, "ada", &json!({ "refused": fingerprint(&ada) })).await;
    assert!(matches!(report.status(), 503 | 504), "{}", report.text());
    assert!(report.header("retry-after").is_some());
    assert_eq!(token_of(&stage, "grace").await, grace);
}

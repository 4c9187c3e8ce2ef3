//! Keys of assertions: the sidecar fetches them early, keeps them long, and asks for them rarely.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ground::metrics::{AssertionResult, KeyFetchResult, Label, Metrics};
use identity::keys::{
    Fetch, FetchError, Fetching, Found, KeyLocation, KeySet, KeySetError, Keys, MAX_DOCUMENT_BYTES,
    MAX_DOCUMENTS, MAX_KEYS,
};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::{Instant, advance};

use super::assertion::result_count;
use crate::support::Stage;
use crate::support::app::{FakeApp, full};
use crate::support::client::Answer;
use crate::support::issuer::{Issuer, Pen, claims};
use crate::support::raw::{RawApp, unused_address};
use crate::support::velt::user_of;

async fn get_with(stage: &Stage, path: &str, assertion: &str) -> Answer {
    stage.client().get(path).header("x-assertion", assertion).send().await
}

async fn fetches(stage: &Stage, result: KeyFetchResult) -> f64 {
    let series = format!("identity_key_fetches_total{{result=\"{}\"}}", result.as_str());
    stage.metric(&series).await
}

/// Asserts that the request goes on to the app without a token, and that each answer says why.
async fn assert_unverified(stage: &Stage, assertion: &str) {
    let answer = get_with(stage, "/", assertion).await;
    assert_eq!((answer.status(), answer.token_status()), (200, Some("unverified")));
    assert_eq!(answer.token(), None);
    let arrived = stage.app.journal().pop().expect("it arrived");
    assert_eq!(arrived.header("x-assertion"), Some(assertion), "the app may have keys");
    let route = get_with(stage, "/api/velt/token", assertion).await;
    assert_eq!((route.status(), &*route.code()), (503, "identity_unverified"));
    assert!(route.header("retry-after").is_some());
    assert_eq!(stage.velt.call_count(), 0);
    assert_eq!(stage.metric("identity_keys").await, 0.0);
    assert!(stage.metric("identity_keys_age_seconds").await.is_nan());
    assert!(result_count(stage, AssertionResult::KeysUnavailable).await >= 2.0);
}

#[tokio::test]
async fn t08_assertion_without_keys_names_no_user_and_the_app_works() {
    let pen = Pen::es256("1");
    let issuer = Issuer::publishing(&[&pen]).await;
    let good = json!({ "keys": [pen.jwk] }).to_string();
    let answer = |status: u16, name: &'static str, value: &'static str, body: &str| {
        let body = body.to_owned();
        move |_: &_| {
            let response = http::Response::builder().status(status).header(name, value);
            response.body(full(body.clone())).expect("a response")
        }
    };
    let large = format!("{good}{}", " ".repeat(MAX_DOCUMENT_BYTES));
    let many = json!({ "keys": vec![&pen.jwk; MAX_KEYS + 1] }).to_string();
    let symmetric = json!({ "keys": [{ "kty": "oct", "k": "c2VjcmV0", "kid": "1" }] }).to_string();
    for (what, status, name, value, body, expected) in [
        ("an error", 500, "x-app-a", "1", good.as_str(), KeyFetchResult::Status),
        ("nothing there", 404, "x-app-a", "1", &good, KeyFetchResult::Status),
        ("no content", 204, "x-app-a", "1", "", KeyFetchResult::Status),
        ("a redirect", 302, "location", "/elsewhere", &good, KeyFetchResult::Redirect),
        ("a login page", 200, "x-app-a", "1", "<html>", KeyFetchResult::Malformed),
        ("nothing", 200, "x-app-a", "1", "", KeyFetchResult::Malformed),
        ("no keys", 200, "x-app-a", "1", r#"{"keys":[]}"#, KeyFetchResult::Malformed),
        ("another document", 200, "x-app-a", "1", r#"{"issuer":"x"}"#, KeyFetchResult::Malformed),
        ("too many keys", 200, "x-app-a", "1", &many, KeyFetchResult::Malformed),
        ("a shared key", 200, "x-app-a", "1", &symmetric, KeyFetchResult::Malformed),
        ("a gzip bomb", 200, "content-encoding", "gzip", &good, KeyFetchResult::Malformed),
        ("too much", 200, "x-app-a", "1", &large, KeyFetchResult::TooLarge),
    ] {
        println!("{what}");
        issuer.answer(answer(status, name, value, body));
        let stage = Stage::set(&issuer.toml()).await;
        assert_unverified(&stage, &pen.sign(&claims("ada"))).await;
        assert!(fetches(&stage, expected).await >= 1.0, "{what}");
        assert_eq!(fetches(&stage, KeyFetchResult::Fetched).await, 0.0, "{what}");
    }
    assert!(issuer.server.journal().iter().all(|fetch| fetch.target == "/keys"));
}

#[tokio::test]
async fn t10_unchecked_assertion_of_a_stranger_reaches_no_app() {
    let pen = Pen::es256("1");
    let issuer = Issuer::publishing(&[]).await;
    let toml =
        issuer.toml().replacen("[identity]", "[identity]\ntrusted_peers = [\"10.0.0.0/8\"]", 1);
    let stage = Stage::set(&toml).await;
    let answer = get_with(&stage, "/", &pen.sign(&claims("ada"))).await;
    assert_eq!((answer.status(), answer.token_status()), (200, Some("unverified")));
    assert_eq!(stage.app.only().header("x-assertion"), None, "it may be forged");
}

#[tokio::test]
async fn missing_keys_are_an_error_where_a_missing_token_is() {
    let pen = Pen::es256("1");
    let issuer = Issuer::publishing(&[]).await;
    let refuse = "[delivery.header]\non_failure = \"refuse\"\nmax_wait = \"5s\"\n";
    let stage = Stage::set(&format!("{}{refuse}", issuer.toml())).await;
    let answer = get_with(&stage, "/", &pen.sign(&claims("ada"))).await;
    assert_eq!((answer.status(), &*answer.code()), (503, "identity_unverified"));
    assert_eq!(stage.app.journal().len(), 0);
    assert_eq!(stage.client().get("/").send().await.status(), 200, "nobody needs no key");
}

#[tokio::test]
async fn t08_all_keys_with_the_same_id_are_tried() {
    let (one, other, stranger) = (Pen::es256("1"), Pen::es256("1"), Pen::es256("1"));
    let rsa = Pen::rs256("1");
    let issuer = Issuer::publishing(&[&one, &other, &rsa]).await;
    let stage = Stage::set(&issuer.toml()).await;
    for pen in [&one, &other, &rsa] {
        assert!(get_with(&stage, "/", &pen.sign(&claims("ada"))).await.token().is_some());
    }
    let answer = get_with(&stage, "/", &stranger.sign(&claims("ada"))).await;
    assert_eq!(&*answer.code(), "invalid_assertion");
    assert_eq!(result_count(&stage, AssertionResult::Signature).await, 1.0);
}

#[tokio::test]
async fn issuer_that_is_gone_or_hangs_is_told_and_delays_no_start() {
    let pen = Pen::es256("1");
    let issuer = Issuer::publishing(&[&pen]).await;
    let assertion = pen.sign(&claims("ada"));
    let elsewhere = |address: SocketAddr| {
        issuer.toml().replace(&issuer.server.address.to_string(), &address.to_string())
    };
    let stage = Stage::set(&elsewhere(unused_address().await)).await;
    assert_unverified(&stage, &assertion).await;
    assert!(fetches(&stage, KeyFetchResult::Unreachable).await >= 1.0);

    let (gate, silent) = FakeApp::gated().await;
    // The sidecar is up although its first fetch hangs, and an anonymous request does not wait.
    let stage = Stage::set(&elsewhere(silent.address)).await;
    silent.requests_reach(1).await;
    assert_eq!(stage.client().get("/").send().await.token_status(), Some("anonymous"));
    assert_unverified(&stage, &assertion).await;
    drop(gate);

    let broken = RawApp::serving(|mut wire, _| async move {
        wire.head().await;
        wire.send("HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{\"keys\":").await;
    })
    .await;
    let stage = Stage::set(&elsewhere(broken.address)).await;
    assert_unverified(&stage, &assertion).await;
    assert!(fetches(&stage, KeyFetchResult::Unreachable).await >= 1.0);
}

#[tokio::test]
async fn t72_check_waits_for_keys_no_longer_than_for_a_mint() {
    let pen = Pen::es256("1");
    let issuer = Issuer::publishing(&[&pen]).await;
    let (gate, silent) = FakeApp::gated().await;
    let toml =
        issuer.toml().replace(&issuer.server.address.to_string(), &silent.address.to_string());
    let check = "[delivery.check]\npath = \"/velt/check\"\nmax_wait = \"150ms\"\n";
    let stage = Stage::set(&format!("{toml}{check}")).await;
    silent.requests_reach(1).await;
    let begun = Instant::now();
    let answer = get_with(&stage, "/velt/check", &pen.sign(&claims("ada"))).await;
    let took = begun.elapsed();
    assert_eq!((answer.status(), answer.token_status()), (200, Some("unverified")));
    // A request to the app waits for two seconds.
    assert!(took < Duration::from_millis(1_500), "{took:?}");
    drop(gate);
}

#[tokio::test]
async fn requests_wait_together_for_one_key_fetch() {
    let pen = Pen::es256("1");
    let document = json!({ "keys": [pen.jwk] }).to_string();
    let gate = watch::Sender::new(false);
    let opened = gate.subscribe();
    let server = FakeApp::serving(move |_| {
        let (mut opened, document) = (opened.clone(), document.clone());
        async move {
            opened.wait_for(|open| *open).await.expect("the gate outlives the test");
            http::Response::new(full(document))
        }
    })
    .await;
    let issuer = Issuer::publishing(&[&pen]).await;
    let toml =
        issuer.toml().replace(&issuer.server.address.to_string(), &server.address.to_string());
    let stage = Stage::set(&toml).await;
    server.requests_reach(1).await;
    let assertion = pen.sign(&claims("ada"));
    let waiting = futures_util::future::join_all((0..8).map(|_| get_with(&stage, "/", &assertion)));
    let (answers, _) = tokio::join!(waiting, async { gate.send_replace(true) });
    for answer in answers {
        assert_eq!(user_of(answer.token().expect("a token")), "ada");
    }
    assert_eq!(server.journal().len(), 1);
}

#[tokio::test]
async fn a_new_key_is_found_when_it_is_first_used() {
    let (old, new) = (Pen::es256("old"), Pen::rs256("new"));
    let issuer = Issuer::publishing(&[&old]).await;
    let stage = Stage::set(&issuer.toml()).await;
    assert!(get_with(&stage, "/", &old.sign(&claims("ada"))).await.token().is_some());
    issuer.publish(&[&new]);
    let answer = get_with(&stage, "/", &new.sign(&claims("eve"))).await;
    assert_eq!(user_of(answer.token().expect("a token")), "eve");
    assert_eq!(issuer.fetch_count(), 2);
    // The old key is gone: an assertion that was checked a moment ago may live on, but no other
    // assertion.
    let answer = get_with(&stage, "/", &old.sign(&claims("bob"))).await;
    assert_eq!((answer.status(), &*answer.code()), (401, "invalid_assertion"));
    assert_eq!(issuer.fetch_count(), 2, "nobody can have them fetched again and again");
}

#[test]
fn key_set_keeps_only_keys_that_sign() {
    let (ec, rsa, ed) = (Pen::es256("ec"), Pen::rs256("rsa"), Pen::ed25519("ed"));
    let read = |keys: serde_json::Value| {
        KeySet::from_jwks(json!({ "keys": keys, "more": 1 }).to_string().as_bytes())
    };
    let change = |pen: &Pen, name: &str, value: serde_json::Value| {
        let mut jwk = pen.jwk.clone();
        jwk[name] = value;
        jwk
    };
    let all = read(json!([ec.jwk, rsa.jwk, ed.jwk, { "kty": "oct", "k": "AA" }, 1, null, {}]));
    assert_eq!(all.expect("three keys").len(), 3);
    for odd in [
        change(&ec, "use", json!("enc")),
        change(&ec, "key_ops", json!(["encrypt"])),
        change(&ec, "crv", json!("P-384")),
        change(&ec, "crv", json!("secp256k1")),
        change(&ec, "kty", json!("RSA")),
        change(&ec, "x", json!("AA")),
        change(&ec, "x", json!("%%%")),
        change(&ec, "y", serde_json::Value::Null),
        change(&rsa, "n", json!("a b")),
        change(&ed, "crv", json!("X25519")),
    ] {
        assert_eq!(read(json!([odd])).err(), Some(KeySetError::NoneUsable), "{odd}");
    }
    for document in ["", "[]", "{}", r#"{"keys":{}}"#, r#"{"keys":[]} x"#] {
        let error = KeySet::from_jwks(document.as_bytes()).err();
        assert_eq!(error, Some(KeySetError::Malformed), "{document}");
    }
    assert_eq!(KeySet::from_pem("1", ec.pem().as_bytes()).expect("a key").len(), 1);
    let shorter = ec.pem().replace("MFkw", "MFgw");
    for document in ["", "x", &shorter, &ec.pem().replace("PUBLIC", "PRIVATE")] {
        assert_eq!(KeySet::from_pem("1", document.as_bytes()).err(), Some(KeySetError::Malformed));
    }
}

/// Fetcher that returns at once the answer that a test has set.
#[derive(Clone)]
struct Told {
    answer: Arc<Mutex<Result<Vec<u8>, FetchError>>>,
    count: Arc<AtomicUsize>,
}

impl Told {
    fn to(answer: Result<Vec<u8>, FetchError>) -> Self {
        Self { answer: Arc::new(Mutex::new(answer)), count: Arc::default() }
    }

    fn answer(&self, answer: Result<Vec<u8>, FetchError>) {
        *self.answer.lock().expect("no panic") = answer;
    }

    fn count(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }
}

impl Fetch for Told {
    fn fetch<'a>(&'a self, _: &'a reqwest::Url) -> Fetching<'a> {
        self.count.fetch_add(1, Ordering::SeqCst);
        let answer = self.answer.lock().expect("no panic").clone();
        Box::pin(async move { answer.map(Into::into) })
    }
}

fn document(pens: &[&Pen]) -> Vec<u8> {
    let keys: Vec<_> = pens.iter().map(|pen| &pen.jwk).collect();
    json!({ "keys": keys }).to_string().into_bytes()
}

fn keys(told: &Told, each: bool) -> Keys {
    let url = "https://keys.example/below/".parse().expect("a URL");
    let location = if each { KeyLocation::Each(url) } else { KeyLocation::Set(url) };
    Keys::new(location, told.clone(), Metrics::new().identity)
}

/// Lets tasks that are ready do their work.
async fn settle() {
    for _ in 0..16 {
        tokio::task::yield_now().await;
    }
}

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test(start_paused = true)]
async fn keys_are_fetched_hourly_and_kept_a_day_through_failures() {
    let pen = Pen::es256("1");
    let told = Told::to(Ok(document(&[&pen])));
    let keys = keys(&told, false);
    keys.start();
    settle().await;
    assert_eq!(told.count(), 1, "at once");
    advance(HOUR).await;
    settle().await;
    assert_eq!(told.count(), 2, "after an hour at most");
    told.answer(Err(FetchError::Unreachable));
    for _ in 0..23 * 60 {
        advance(Duration::from_secs(60)).await;
        settle().await;
        assert!(keys.held(Some("1")).is_some());
    }
    let attempts = told.count();
    assert!((1300..2000).contains(&attempts), "about one a minute, not {attempts}");
    advance(2 * HOUR).await;
    settle().await;
    assert!(keys.held(Some("1")).is_none(), "after a day they may have been taken back");
    assert!(matches!(keys.wait_for(Some("1")).await, Found::Unavailable));
    told.answer(Ok(document(&[&pen])));
    advance(Duration::from_secs(61)).await;
    settle().await;
    assert!(keys.held(Some("1")).is_some(), "and they come back by themselves");
}

#[tokio::test(start_paused = true)]
async fn an_unknown_key_leads_to_one_fetch_in_half_a_minute() {
    let told = Told::to(Ok(document(&[&Pen::es256("1")])));
    let keys = keys(&told, false);
    keys.start();
    settle().await;
    for round in 1..4 {
        for n in 0..100 {
            let found = keys.wait_for(Some(&format!("made-up-{n}"))).await;
            assert!(matches!(found, Found::Unknown));
        }
        assert_eq!(told.count(), 1 + round);
        advance(Duration::from_secs(30)).await;
    }
    // While the keys can't be fetched, an unknown key may be a new key.
    told.answer(Err(FetchError::Status));
    assert!(matches!(keys.wait_for(Some("new")).await, Found::Unavailable));
    assert!(keys.held(Some("1")).is_some());
}

#[tokio::test(start_paused = true)]
async fn requests_add_no_attempts_to_failing_key_fetches() {
    let told = Told::to(Err(FetchError::Timeout));
    let keys = keys(&told, false);
    keys.start();
    settle().await;
    for _ in 0..100 {
        assert!(matches!(keys.wait_for(Some("1")).await, Found::Unavailable));
    }
    assert_eq!(told.count(), 1);
}

const UUID: &str = "12345678-1234-1234-1234-123456789abc";

#[tokio::test(start_paused = true)]
async fn t08_a_key_id_that_is_no_uuid_never_gets_into_a_url() {
    let told = Told::to(Ok(Pen::es256("1").pem().into_bytes()));
    let keys = keys(&told, true);
    for id in [
        None,
        Some(""),
        Some("../12345678-1234-1234-1234-123456789abc"),
        Some("12345678-1234-1234-1234-123456789ab/"),
        Some("12345678-1234-1234-1234-12345678.../"),
        Some("12345678-1234-1234-1234-123456789ab?"),
        Some("12345678-1234-1234-1234-123456789abcd"),
        Some("12345678x1234-1234-1234-123456789abc"),
        Some("//evil.example/1234-1234-123456789ab"),
        Some("https://evil.example/123456789012345"),
        Some("é2345678-1234-1234-1234-123456789ab"),
    ] {
        assert!(keys.held(id).is_none());
        assert!(matches!(keys.wait_for(id).await, Found::Unknown), "{id:?}");
    }
    assert_eq!(told.count(), 0);
    assert!(matches!(keys.wait_for(Some(UUID)).await, Found::Keys(_)));
    assert!(keys.held(Some(UUID)).is_some());
    assert_eq!(told.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn made_up_key_ids_are_bounded_and_push_no_real_key_out() {
    let told = Told::to(Ok(Pen::es256("1").pem().into_bytes()));
    let keys = keys(&told, true);
    assert!(matches!(keys.wait_for(Some(UUID)).await, Found::Keys(_)));
    told.answer(Err(FetchError::NotFound));
    let made_up = |n: usize| format!("{n:08x}-0000-0000-0000-000000000000");
    for n in 0..9 {
        assert!(matches!(keys.wait_for(Some(&made_up(n))).await, Found::Unknown));
    }
    let before = told.count();
    for n in 9..100 {
        assert!(matches!(keys.wait_for(Some(&made_up(n))).await, Found::Unavailable));
    }
    assert_eq!(told.count(), before, "ten at once and no more");
    for n in 100..100 + 2 * MAX_DOCUMENTS {
        advance(Duration::from_secs(1)).await;
        keys.wait_for(Some(&made_up(n))).await;
    }
    assert_eq!(told.count(), before + 2 * MAX_DOCUMENTS, "then one a second");
    assert!(keys.held(Some(UUID)).is_some());
}

//! Load when all users want a new token at once, and clocks that go wrong.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ground::metrics::Metrics;
use http::HeaderValue;
use http::header::{DATE, RETRY_AFTER};
use token::cache::{Lookup, Settings, TokenCache};
use token::{Freshness, MintError, Minted, Moment, Token, TokenValue};
use tokio::time::{Instant, advance, sleep};

use crate::support::Stage;
use crate::support::double::{Double, HOUR, LIFE, request, resilient};
use crate::support::record::{Tally, record};
use crate::support::velt::{answer, jwt, minted};

const USERS: usize = 1000;

const CONCURRENT: usize = 16;

fn cache_before(double: &Double) -> TokenCache {
    let settings = Settings { max_entries: 100_000, max_bytes: 1 << 30 };
    let mint = Arc::new(resilient(double, CONCURRENT));
    TokenCache::new(mint, &settings, Metrics::new().tokens)
}

/// Asks for every user's token at once, and returns each user's wait and result.
async fn all_users_ask(cache: &TokenCache) -> Vec<(Duration, Result<Token, MintError>)> {
    let asked = Instant::now();
    let lookups: Vec<_> = (0..USERS).map(|n| cache.get(request(&format!("user-{n}")))).collect();
    let waiting = lookups.into_iter().map(|lookup| {
        tokio::spawn(async move {
            let result = lookup.within(HOUR).await.expect("an hour is enough");
            (asked.elapsed(), result)
        })
    });
    let mut results = Vec::new();
    for waiting in waiting.collect::<Vec<_>>() {
        results.push(waiting.await.expect("no panic"));
    }
    results
}

#[tokio::test(start_paused = true)]
async fn t49_active_users_never_wait_when_all_tokens_expire() {
    let double = Double::default();
    let cache = cache_before(&double);
    all_users_ask(&cache).await;
    assert_eq!(double.calls(), USERS);
    // From here on a mint takes as long as a mint of a Velt that starts cold.
    double.latency(Duration::from_secs(1));
    let start = Instant::now();
    let mut refreshes = Vec::new();
    while start.elapsed() < LIFE + HOUR {
        advance(HOUR / 2).await;
        let before = double.calls();
        for n in 0..USERS {
            let lookup = cache.get(request(&format!("user-{n}")));
            assert!(matches!(lookup, Lookup::Ready(Ok(_))), "user {n} after {:?}", start.elapsed());
        }
        // The pause is longer than any mint, so that the next round finds the tokens of these mints.
        sleep(Duration::from_secs(60)).await;
        refreshes.push(double.calls() - before);
    }
    assert!(double.peak() <= CONCURRENT, "{} calls at once", double.peak());
    let most = refreshes.iter().max().expect("rounds");
    assert!(*most <= USERS / 4, "spread over hours: {refreshes:?}");
    assert_eq!(refreshes.iter().sum::<usize>(), USERS, "each once");
}

#[tokio::test(start_paused = true)]
async fn t49_a_thousand_expired_users_are_served_by_one_call_each() {
    let double = Double::default();
    let cache = cache_before(&double);
    all_users_ask(&cache).await;
    advance(LIFE + HOUR).await;
    let minted = double.calls();
    double.latency(Duration::from_millis(500));
    let results = all_users_ask(&cache).await;
    let mut tally = Tally::default();
    for (waited, result) in &results {
        tally.add(*waited, result.is_ok());
    }
    let mut figures = tally.figures();
    figures["calls"] = (double.calls() - minted).into();
    record("velt", "all tokens expired, and a mint takes 500 ms", &figures);
    for (waited, result) in results {
        assert!(result.is_ok(), "Velt is up: {result:?}");
        // At 16 mints in half a second, a thousand take half a minute, and no client waits for longer.
        assert!(waited <= Duration::from_millis(500) * 63, "waited {waited:?}");
    }
    assert!(double.peak() <= CONCURRENT, "{} calls at once", double.peak());
    assert_eq!(double.calls() - minted, USERS, "one call for each");
}

/// Returns `wall`, moved by this number of hours.
fn moved(wall: SystemTime, hours: i32) -> SystemTime {
    let by = HOUR * hours.unsigned_abs();
    if hours < 0 { wall - by } else { wall + by }
}

#[tokio::test(start_paused = true)]
async fn t50_token_ages_by_the_faster_of_two_clocks() {
    let minted = Minted::now(TokenValue::parse("a.b.c").expect("a token"), LIFE);
    let start = Moment::now();
    let token = Token::new(minted, &request("ada"), start);
    for (steady, wall, expected, what) in [
        (1, 1, Freshness::Fresh, "an hour"),
        (1, 0, Freshness::Fresh, "the clock was set back an hour"),
        (1, -1, Freshness::Fresh, "the clock was set back two hours"),
        (1, 2, Freshness::Fresh, "the clock was set forward an hour"),
        (0, 40, Freshness::Due, "suspended for 40 hours"),
        (0, 48, Freshness::Expired, "suspended for two days"),
        (1, 60, Freshness::Expired, "suspended for longer"),
        (40, 39, Freshness::Due, "set back an hour, late"),
        (48, 47, Freshness::Expired, "set back an hour at the end"),
        (48, -1000, Freshness::Expired, "set back by weeks"),
        (47, 47, Freshness::Due, "an hour is left"),
        (46, 48, Freshness::Expired, "set forward at the end"),
    ] {
        let now = Moment { steady: start.steady + HOUR * steady, wall: moved(start.wall, wall) };
        assert_eq!(token.freshness(now), expected, "{what}");
        let left = token.remaining(now);
        assert_eq!(left.is_zero(), expected == Freshness::Expired, "{what}: {left:?}");
    }
}

#[tokio::test]
async fn t50_velts_clock_and_ours_may_be_an_hour_apart() {
    for hours in [-1, 0, 1, -1000, 1000] {
        let stage = Stage::set("[delivery.header]\nmax_wait = \"20s\"").await;
        let velt_now = moved(SystemTime::now(), hours);
        stage.velt.script(move |call, _| {
            let now = velt_now.duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
            let exp = now.as_secs() + 600;
            let claims = serde_json::json!({ "userId": call.user(), "exp": exp });
            let mut response = minted(&jwt(&claims));
            let date = HeaderValue::from_str(&httpdate::fmt_http_date(velt_now)).expect("a value");
            response.headers_mut().insert(DATE, date);
            response
        });
        assert!(stage.get_as("ada", "/").await.token().is_some(), "{hours}");
        let left = stage.metric("outage_headroom_seconds").await;
        // The life of the token is less a margin of a minute, and less the time of a loaded machine.
        assert!((480.0..=540.0).contains(&left), "{hours} h: {left} s");
    }
}

#[tokio::test]
async fn t50_a_retry_after_is_a_date_of_velts_clock() {
    for hours in [-1, 1] {
        let stage = Stage::set("[velt]\nattempt_timeout = \"5s\"\ndeadline = \"5s\"").await;
        stage.velt.script(move |_, _| {
            let velt_now = moved(SystemTime::now(), hours);
            let mut response = answer(503, "");
            let date =
                |time| HeaderValue::from_str(&httpdate::fmt_http_date(time)).expect("a value");
            response.headers_mut().insert(DATE, date(velt_now));
            let until = velt_now + Duration::from_secs(30);
            response.headers_mut().insert(RETRY_AFTER, date(until));
            response
        });
        let answer = stage.get_as("ada", "/api/velt/token").await;
        assert_eq!(answer.status(), 503);
        assert_eq!(answer.header("retry-after"), Some("30"), "{hours}");
        assert_eq!(stage.velt.call_count(), 1, "30 s are past the deadline");
    }
}

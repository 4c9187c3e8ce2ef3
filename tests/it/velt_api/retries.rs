//! Further attempts after an error, and `Retry-After`.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use http::HeaderValue;
use http::header::RETRY_AFTER;
use tokio::time::Instant;

use super::{PATIENT, ask_twice};
use crate::support::Stage;
use crate::support::velt::{answer, minted, refused, token, user_of};

#[tokio::test]
async fn mint_survives_two_bad_answers() {
    for status in [500, 503, 429, 504] {
        let stage = Stage::set(PATIENT).await;
        stage.velt.script(move |call, n| match n {
            1 | 2 => answer(status, ""),
            _ => minted(&token(call.user(), n)),
        });
        let (header, route) = ask_twice(&stage).await;
        assert_eq!(user_of(header.token().expect("a token")), "ada");
        assert_eq!(route.status(), 200);
        assert_eq!(stage.velt.call_count(), 3);
        assert_eq!(stage.metric("mint_attempts_total").await, 3.0);
        assert_eq!(stage.metric("mints_total{outcome=\"minted\"}").await, 1.0);
    }
}

#[tokio::test]
async fn retry_after_is_honoured_in_seconds_and_as_a_date() {
    let date = || httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(2));
    for as_date in [false, true] {
        let stage = Stage::set(PATIENT).await;
        let times: Arc<Mutex<Vec<Instant>>> = Arc::default();
        let journal = Arc::clone(&times);
        stage.velt.script(move |call, n| {
            journal.lock().expect("no panic").push(Instant::now());
            if n > 1 {
                return minted(&token(call.user(), n));
            }
            let mut response = refused(429, "RESOURCE_EXHAUSTED");
            let wait = if as_date { date() } else { "1".to_owned() };
            let wait = HeaderValue::from_str(&wait).expect("a value");
            response.headers_mut().insert(RETRY_AFTER, wait);
            response
        });
        assert!(ask_twice(&stage).await.0.token().is_some());
        let times = times.lock().expect("no panic").clone();
        assert_eq!(times.len(), 2);
        // A date has whole seconds, so up to one of the two seconds may be lost; no backoff is as long.
        let waited = times[1] - times[0];
        assert!(waited >= Duration::from_millis(990), "{waited:?}");
    }
}

#[tokio::test]
async fn retry_after_beyond_the_deadline_is_passed_on() {
    for (status, said, told, calls) in [
        (429, "60", Some("60"), 1),
        (503, "61", Some("61"), 1),
        // The sidecar believes a `Retry-After` only within limits, and a nonsensical one not at all.
        (429, "99999999999", Some("300"), 1),
        (429, "soon", Some("1"), 1),
        (429, "-5", Some("1"), 1),
        (503, "", Some("1"), 3),
        (403, "60", None, 1),
    ] {
        // If Velt names no time, the pause of half a second must be longer than a mint may take.
        let hasty = if calls == 1 { "400ms" } else { "20s" };
        let stage = Stage::set(&PATIENT.replacen("\"20s\"", &format!("\"{hasty}\""), 2)).await;
        stage.velt.script(move |_, _| {
            let mut response = answer(status, "");
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static(said));
            response
        });
        let (_, route) = ask_twice(&stage).await;
        assert_eq!(route.header("retry-after"), told, "{status} {said}");
        assert_eq!(stage.velt.call_count(), calls, "{status} {said}");
    }
}

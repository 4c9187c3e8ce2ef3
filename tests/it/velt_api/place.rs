//! Answers of Velt and answers of a server in its place, which the sidecar tells apart, and dates by
//! Velt's clock.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, DATE};
use http::{HeaderValue, Response};
use http_body_util::Full;
use serde_json::json;

use super::{MALFORMED, PATIENT, REFUSED, UNAVAILABLE, ask_twice, assert_each_comes_to, holding};
use crate::support::Stage;
use crate::support::binary::{CREDENTIALS, finished};
use crate::support::velt::{Call, answer, minted, refused, token, unix_seconds};

const PAGE: &str = "<!doctype html><title>canary: access denied</title>";

fn with(mut response: Response<Full<Bytes>>, name: &str, value: &str) -> Response<Full<Bytes>> {
    let name: http::HeaderName = name.parse().expect("a name");
    response.headers_mut().insert(name, HeaderValue::from_str(value).expect("a value"));
    response
}

#[tokio::test]
async fn a_refusal_that_is_not_velts_is_malformed() {
    let gzip = |status| with(answer(status, "\u{1f}\u{8b}"), CONTENT_ENCODING.as_str(), "gzip");
    let page = |status| with(answer(status, PAGE), CONTENT_TYPE.as_str(), "text/html");
    let rows = [
        ("a firewall's page", page(403), MALFORMED),
        ("a login page", page(401), MALFORMED),
        ("a proxy that knows no such host", page(404), MALFORMED),
        ("a page as JSON by its name", answer(403, PAGE), MALFORMED),
        ("plain text", answer(403, "Access denied by policy 17."), MALFORMED),
        ("a gateway's JSON", answer(403, "{\"message\":\"Forbidden\"}"), MALFORMED),
        ("compressed", gzip(403), MALFORMED),
        ("compressed success", gzip(200), MALFORMED),
        // Any server may say that it is down or busy.
        ("a page of a gateway", page(503), UNAVAILABLE),
        // An answer of Velt's own, under any status and content type.
        ("Velt's", refused(403, "PERMISSION_DENIED"), REFUSED),
        ("Velt's as HTML", with(refused(403, "X"), CONTENT_TYPE.as_str(), "text/html"), REFUSED),
        ("nothing", answer(403, ""), REFUSED),
    ];
    let rows = rows.map(|(name, response, expected)| (name.to_owned(), response, expected));
    assert_each_comes_to(rows.into()).await;
}

#[tokio::test]
async fn a_byte_order_mark_hides_nothing_that_velt_says() {
    let stage = Stage::set(PATIENT).await;
    stage.velt.answer_with(200, &format!("\u{feff}{}", holding(&json!("a.b.c"))));
    assert_eq!(ask_twice(&stage).await.0.token(), Some("a.b.c"));

    let word = "\u{feff}{\"error\":{\"status\":\"RESOURCE_EXHAUSTED\"}}";
    let stage = Stage::set("[velt]\nattempt_timeout = \"400ms\"\ndeadline = \"400ms\"").await;
    stage.velt.answer_with(400, word);
    assert_eq!(stage.get_as("ada", "/api/velt/token").await.code(), "token_rate_limited");
}

#[tokio::test]
async fn a_firewalls_page_blames_no_credentials() {
    let stage = Stage::set(PATIENT).await;
    stage.velt.answer_with(403, PAGE);
    let (_, route) = ask_twice(&stage).await;
    let text = route.text();
    assert!(text.contains("such as a firewall or a proxy, answered HTTP 403"), "{text}");
    assert!(!text.contains("API key"), "{text}");
    // A refusal of Velt's own would suspend the organization, and lead people to Velt's console.
    assert_eq!(stage.metric("refusals_suspended").await, 0.0);
    let endpoint = format!("http://{}/", stage.velt.address);
    let environment = [("VELT_SIDECAR_VELT__ENDPOINT", &*endpoint)];
    let doctor = finished(&["doctor"], &[&CREDENTIALS[..], &environment].concat()).await;
    assert!(doctor.stdout.contains("have the firewall or proxy on the way"), "{}", doctor.stdout);
    assert!(!doctor.stdout.contains("canary"), "{}", doctor.stdout);
}

const DATED: &str = r#"
    [velt]
    api = "v2"
    organization = "org"
    [[velt.resource]]
    type = "folder"
    id = "folder-1"
    expires_in = "2h"
"#;

/// Returns the time at which the grant of a call ends.
fn expires_at(call: &Call) -> u64 {
    let resource = &call.body["data"]["permissions"]["resources"][1];
    resource["expiresAt"].as_u64().expect("whole seconds")
}

#[tokio::test]
async fn grants_are_dated_by_velts_clock() {
    let hour = Duration::from_secs(3600);
    for (ahead, wrong_first) in [(true, true), (false, true), (false, false)] {
        let stage = Stage::set(&format!("{PATIENT}{DATED}")).await;
        stage.velt.script(move |call, n| {
            let now = SystemTime::now();
            let now = match (wrong_first, ahead) {
                (false, _) => now,
                (true, true) => now + hour,
                (true, false) => now - hour,
            };
            // Velt refuses a grant that has ended.
            let ended = ahead && expires_at(call) < unix_seconds() + 2 * 3600 + 1800;
            let response = if ended {
                refused(400, "INVALID_ARGUMENT")
            } else {
                minted(&token(call.user(), n))
            };
            with(response, DATE.as_str(), &httpdate::fmt_http_date(now))
        });
        for user in ["ada", "grace"] {
            assert_eq!(stage.get_as(user, "/api/velt/token").await.status(), 200, "{ahead}");
        }
        let calls = stage.velt.calls();
        // The first call alone shows how wrong this machine's clock is.
        assert_eq!(calls.len(), if wrong_first { 3 } else { 2 });
        let expected = match (wrong_first, ahead) {
            (false, _) => unix_seconds() + 7200,
            (true, true) => unix_seconds() + 7200 + 3600,
            (true, false) => unix_seconds() + 7200 - 3600,
        };
        for call in &calls[usize::from(wrong_first)..] {
            assert!(expires_at(call).abs_diff(expected) < 30, "{call:?}");
        }
        let headroom = stage.metric("outage_headroom_seconds").await;
        assert!((7000.0..=7200.0).contains(&headroom), "{headroom}");
        assert_eq!(stage.metric("mint_attempts_total").await, 2.0);
    }
}

#[tokio::test]
async fn an_undated_grant_is_not_asked_for_twice() {
    let stage = Stage::set(PATIENT).await;
    stage.velt.script(|call, n| {
        let wrong = SystemTime::now() + Duration::from_secs(86_400);
        let exp = unix_seconds() + 86_400 + 3600;
        let jwt = crate::support::velt::jwt(&json!({ "userId": call.user(), "n": n, "exp": exp }));
        with(minted(&jwt), DATE.as_str(), &httpdate::fmt_http_date(wrong))
    });
    assert_eq!(stage.get_as("ada", "/api/velt/token").await.status(), 200);
    assert_eq!(stage.velt.call_count(), 1);
}

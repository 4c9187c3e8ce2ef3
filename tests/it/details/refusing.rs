//! Answers without which there is no token. The app's own response goes out in every case.

use std::time::Duration;

use http::StatusCode;
use tokio::time::Instant;

use super::*;
use crate::support::PATIENCE;

/// Asks for a page and at the token route, and checks that there is no token for this reason.
async fn no_details(stage: &Stage, user: &str, status: u16) {
    let page = stage.get_as(user, "/").await;
    assert_eq!((page.status(), page.token_status()), (200, Some("no-details")), "{user}");
    assert_eq!((page.token(), page.text().as_str()), (None, "hello from the app"));
    let route = token_of(stage, user).await;
    assert_eq!((route.status(), &*route.code()), (status, "no_details"), "{}", route.text());
    let retried = StatusCode::from_u16(status).expect("a status").as_u16() == 503;
    assert_eq!(route.header("retry-after").is_some(), retried, "{user}");
}

#[tokio::test]
async fn t67_answer_about_another_user_gives_no_token() {
    let directory = Directory::default();
    directory.tell("ada", &json!({ "userId": "eve", "email": "eve@canary.example" }));
    let stage = directory.stage("").await;
    no_details(&stage, "ada", 502).await;
    assert!(answers(&stage, "other_user").await >= 1.0, "counted");
    assert_eq!(stage.velt.call_count(), 0);
    let route = token_of(&stage, "ada").await.text();
    assert!(route.contains("X-Velt-User") && !route.contains("canary"), "{route}");
}

#[tokio::test]
async fn status_of_the_app_decides_whether_there_is_a_token() {
    let directory = Directory::default();
    let statuses = [(401, 403), (403, 403), (404, 403), (302, 502), (400, 502), (201, 502)];
    let statuses = [&statuses[..], &[(500, 503), (503, 503)]].concat();
    for (status, _) in &statuses {
        directory.answer(&format!("user-{status}"), *status, "canary");
    }
    let stage = directory.stage("").await;
    for (status, expected) in statuses {
        no_details(&stage, &format!("user-{status}"), expected).await;
    }
    // On a slow machine a failure may be forgotten between the page and the route.
    assert!(answers(&stage, "refused").await >= 3.0);
    assert!(answers(&stage, "failed").await >= 5.0);
    assert_eq!(stage.metric("header_deliveries_total{result=\"no_details\"}").await, 8.0);
    assert_eq!(stage.metric("requests_total{outcome=\"no_details\"}").await, 8.0);
    assert_eq!(stage.velt.call_count(), 0);
}

#[tokio::test]
async fn answer_of_another_form_gives_no_token() {
    let directory = Directory::default();
    let padded = |length: usize| format!("{{\"name\":\"Ada\"}}{}", " ".repeat(length - 14));
    for (user, body) in [
        ("html", "<html>canary</html>".to_owned()),
        ("empty", String::new()),
        ("list", "[]".to_owned()),
        ("type", "{\"isAdmin\":\"canary\"}".to_owned()),
        ("twice", "{\"name\":\"a\",\"name\":\"b\"}".to_owned()),
        ("unknown", "{\"canary\":1}".to_owned()),
        ("blank", "{\"email\":\"\"}".to_owned()),
        ("long", padded(16 * 1024 + 1)),
        ("huge", padded(1 << 20)),
        ("deep", format!("{{\"resources\":{}{}}}", "[".repeat(4000), "]".repeat(4000))),
        ("resources", "{\"resources\":[{\"type\":\"canary\",\"id\":\"d\"}]}".to_owned()),
    ] {
        directory.answer(user, 200, body);
    }
    directory.answer("half", 200, padded(8 * 1024)).answer("whole", 200, padded(16 * 1024));
    let stage = directory.stage("").await;
    for user in ["html", "empty", "list", "type", "twice", "unknown", "blank", "long", "huge"] {
        no_details(&stage, user, 502).await;
    }
    for user in ["deep", "resources"] {
        no_details(&stage, user, 502).await;
        let route = token_of(&stage, user).await.text();
        assert!(!route.contains("canary"), "{route}");
    }
    assert!(answers(&stage, "unusable").await >= 11.0);
    for user in ["half", "whole"] {
        assert_eq!(token_of(&stage, user).await.status(), 200, "{user}");
    }
}

#[tokio::test]
async fn page_in_place_of_details_is_called_a_page() {
    let directory = Directory::default();
    for (user, body) in [
        ("short", "<html>Sign in".to_owned()),
        ("long", format!("<html>{}", "a".repeat(20_000))),
        ("list", "[]".to_owned()),
    ] {
        directory.answer(user, 200, body);
    }
    let stage = directory.stage("").await;
    for (user, is_page) in [("short", true), ("long", true), ("list", false)] {
        let route = token_of(&stage, user).await;
        assert_eq!((route.status(), &*route.code()), (502, "no_details"), "{}", route.text());
        let text = "it is a page in HTML: is that a login page?";
        assert_eq!(route.text().contains(text), is_page, "{}", route.text());
    }
}

#[tokio::test]
async fn app_that_recovers_is_asked_again() {
    let directory = Directory::default();
    directory.answer("ada", 500, "");
    let stage = directory.stage("").await;
    no_details(&stage, "ada", 503).await;
    let deadline = Instant::now() + PATIENCE;
    let mut failures = 0;
    while questions(&stage.app).len() < 3 {
        assert_eq!(token_of(&stage, "ada").await.status(), 503);
        failures += 1;
        assert!(Instant::now() < deadline, "it is asked again");
    }
    assert!(failures > 3, "a failure is remembered");
    directory.tell("ada", &json!({}));
    while token_of(&stage, "ada").await.status() != 200 {
        assert!(Instant::now() < deadline, "it is asked again");
    }
}

#[tokio::test]
async fn app_that_is_down_gives_no_token() {
    let directory = Directory::default();
    directory.tell("ada", &json!({})).tell("grace", &json!({}));
    let mut stage = directory.stage("").await;
    assert_eq!(token_of(&stage, "ada").await.status(), 200);
    stage.app.die().await;
    let route = token_of(&stage, "grace").await;
    assert_eq!((route.status(), &*route.code()), (503, "no_details"), "{}", route.text());
    let text = "No token, since no connection to the app could be made.";
    assert!(route.text().contains(text), "{}", route.text());
    assert_eq!(answers(&stage, "unreachable").await, 1.0);
    assert_eq!(token_of(&stage, "ada").await.status(), 200, "her details are kept");
}

#[tokio::test]
async fn app_that_stands_still_for_one_user_holds_up_no_other() {
    let directory = Directory::default();
    directory.tell("ada", &json!({}));
    let toml = "[identity]\ndetails_timeout = \"700ms\"\n[delivery.header]\nmax_wait = \"150ms\"\n";
    let stage = directory.stage(toml).await;
    let still = stage.get_as("still", "/").await;
    assert_eq!((still.status(), still.token_status()), (200, Some("pending")));
    let (route, page) = tokio::join!(token_of(&stage, "still"), token_of(&stage, "ada"));
    assert_eq!(page.status(), 200, "{}", page.text());
    assert_eq!((route.status(), &*route.code()), (503, "no_details"), "{}", route.text());
    assert_eq!(questions(&stage.app).len(), 2, "the route joined the question of the page");
    assert_eq!(answers(&stage, "timeout").await, 1.0);
}

#[tokio::test]
async fn user_at_many_hosts_crowds_out_no_other_user() {
    let directory = Directory::default();
    directory.tell("ada", &json!({}));
    let toml = "[[delivery.route]]\npath = \"/token\"\nmax_wait = \"20ms\"\n";
    let stage = directory.stage(toml).await;
    let mut codes = Vec::new();
    for host in 0..18 {
        let asking = stage.client().get("/token").header("x-forwarded-user", "still");
        let asking = asking.without("host").header("host", format!("{host}.example"));
        let answer = asking.send_http2().await;
        codes.push((answer.status(), answer.code()));
    }
    let (asked, crowded) = codes.split_at(16);
    assert!(asked.iter().all(|code| *code == (504, "details_pending".into())), "{asked:?}");
    assert!(crowded.iter().all(|code| *code == (503, "no_details".into())), "{crowded:?}");
    assert_eq!(answers(&stage, "crowded").await, 2.0);
    assert_eq!(questions(&stage.app).len(), 16);
    assert_eq!(token_of(&stage, "ada").await.status(), 200);
}

#[tokio::test]
async fn host_that_is_too_long_is_not_asked_for() {
    let directory = Directory::default();
    directory.tell("ada", &json!({}));
    let stage = directory.stage("").await;
    let at = |path: &str| {
        let asking = stage.client().get(path).header("x-forwarded-user", "ada").without("host");
        asking.header("host", format!("{}.example", "a".repeat(300)))
    };
    let route = at("/api/velt/token").send().await;
    assert_eq!((route.status(), &*route.code()), (400, "no_details"), "{}", route.text());
    let page = at("/").send().await;
    assert_eq!((page.status(), page.token_status()), (200, Some("no-details")));
    assert_eq!((questions(&stage.app).len(), stage.velt.call_count()), (0, 0));
    assert_eq!(answers(&stage, "long_host").await, 2.0);
}

#[tokio::test]
async fn token_route_waits_no_longer_than_it_may() {
    let directory = Directory::default();
    let toml = "[[delivery.route]]\npath = \"/token\"\nmax_wait = \"100ms\"\n";
    let stage = directory.stage(toml).await;
    let begun = Instant::now();
    let route = stage.get_as("still", "/token").await;
    assert_eq!((route.status(), &*route.code()), (504, "details_pending"), "{}", route.text());
    assert!(begun.elapsed() < Duration::from_secs(5), "not for details_timeout");
}

#[tokio::test]
async fn refusing_setting_asks_for_details_before_the_app_acts() {
    let directory = Directory::default();
    directory.answer("eve", 403, "").tell("ada", &json!({}));
    let toml = "[delivery.header]\non_failure = \"refuse\"\nmax_wait = \"10s\"\n";
    let stage = directory.stage(toml).await;
    let refused = stage.get_as("eve", "/").await;
    assert_eq!((refused.status(), &*refused.code()), (403, "no_details"));
    assert_eq!(stage.app.journal().len(), 1, "the question alone");
    let page = stage.get_as("ada", "/").await;
    assert!(page.token().is_some());
}

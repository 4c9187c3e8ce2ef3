//! Velt is down: the app notices nothing, and who has a token keeps it.

use crate::support::Stage;
use crate::support::raw::nobody;

#[tokio::test]
async fn a_cached_token_survives_and_a_new_user_is_told_why_there_is_none() {
    let stage = Stage::set("[delivery.header]\nmax_wait = \"10s\"").await;
    let before = stage.get_as("ada", "/").await;
    stage.velt.answer_with(503, r#"{"error":{"status":"UNAVAILABLE","message":"canary"}}"#);
    let after = stage.get_as("ada", "/").await;
    assert_eq!((after.status(), after.token()), (200, before.token()));
    let route = stage.get_as("ada", "/api/velt/token").await;
    assert_eq!(route.json()["token"].as_str(), before.token());

    let grace = stage.get_as("grace", "/").await;
    assert_eq!((grace.status(), &*grace.text()), (200, "hello from the app"));
    assert_eq!((grace.token(), grace.token_status()), (None, Some("unavailable")));
    let route = stage.get_as("grace", "/api/velt/token").await;
    assert_eq!((route.status(), &*route.code()), (503, "token_unavailable"));
    assert!(!route.text().contains("canary"), "nothing of Velt's answer is passed on");
}

#[tokio::test]
async fn after_repeated_failures_nobody_calls_velt_for_a_while() {
    let stage = Stage::set("[delivery.header]\nmax_wait = \"10s\"").await;
    stage.get_as("ada", "/").await;
    stage.velt.answer_with(403, r#"{"error":{"status":"PERMISSION_DENIED"}}"#);
    for n in 0..50 {
        let answer = stage.get_as(&format!("user-{n}"), "/").await;
        assert_eq!((answer.status(), answer.token()), (200, None));
    }
    // One for ada, five until the breaker opened, and perhaps a probe on a slow machine.
    let calls = stage.velt.call_count();
    assert!((6..=8).contains(&calls), "{calls} calls");
    assert_eq!(stage.metric("breaker_open").await, 1.0);
    assert!(stage.get_as("ada", "/").await.token().is_some());
}

#[tokio::test]
async fn nobody_listening_at_velt_is_unavailable_too() {
    let address = nobody().await;
    let toml =
        format!("[velt]\nendpoint = \"http://{address}/\"\n[delivery.header]\nmax_wait = \"10s\"");
    let stage = Stage::set(&toml).await;
    let answer = stage.get_as("ada", "/").await;
    assert_eq!((answer.status(), answer.token_status()), (200, Some("unavailable")));
    assert_eq!(stage.metric("mints_total{outcome=\"unavailable\"}").await, 1.0);
}

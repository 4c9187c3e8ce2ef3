//! An outage of Velt: the app notices nothing, and a user who has a token keeps the token.

use crate::support::Stage;
use crate::support::raw::unused_address;

#[tokio::test]
async fn cached_token_survives_and_a_new_user_is_told_of_the_outage() {
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
async fn repeated_refusals_suspend_calls_without_an_outage() {
    let stage = Stage::set("[delivery.header]\nmax_wait = \"10s\"").await;
    stage.get_as("ada", "/").await;
    stage.velt.answer_with(403, r#"{"error":{"status":"PERMISSION_DENIED"}}"#);
    let stage = &stage;
    let asking = (0..200).map(|n| async move { stage.get_as(&format!("user-{n}"), "/").await });
    for answer in futures_util::future::join_all(asking).await {
        assert_eq!((answer.status(), answer.token()), (200, None));
    }
    // One call for ada, as many calls as run at once, and the probes of the seconds for which the other
    // requests waited.
    let calls = stage.velt.call_count();
    assert!((6..=80).contains(&calls), "{calls} calls");
    let unasked = stage.metric("mints_total{outcome=\"suspended_refused\"}").await;
    assert!(unasked >= 100.0, "{unasked} mints without a call");
    assert_eq!(stage.metric("breaker_open").await, 0.0, "Velt is not down");
    assert!(stage.get_as("ada", "/").await.token().is_some());
}

#[tokio::test]
async fn closed_port_at_velt_is_unavailable() {
    let address = unused_address().await;
    let toml =
        format!("[velt]\nendpoint = \"http://{address}/\"\n[delivery.header]\nmax_wait = \"10s\"");
    let stage = Stage::set(&toml).await;
    let answer = stage.get_as("ada", "/").await;
    assert_eq!((answer.status(), answer.token_status()), (200, Some("unavailable")));
    assert_eq!(stage.metric("mints_total{outcome=\"connect_failed\"}").await, 1.0);
}

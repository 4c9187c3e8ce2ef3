//! Answers that never come or never end, and connections that break.

use std::future::pending;
use std::time::Duration;

use tokio::time::interval;

use super::{Expected, TIMEOUT, UNAVAILABLE};
use crate::support::Stage;
use crate::support::raw::RawApp;

const HASTY: &str = r#"
    [velt]
    attempt_timeout = "300ms"
    deadline = "5s"
    [delivery.header]
    max_wait = "20s"
    [[delivery.route]]
    path = "/api/velt/token"
    max_wait = "20s"
"#;

/// Asserts the effects of a Velt that is nothing but a socket, as [`assert_comes_to`] does.
async fn assert_socket_comes_to(velt: &RawApp, expected: Expected) {
    let stage =
        Stage::set(&format!("{HASTY}[velt]\nendpoint = \"http://{}/\"", velt.address)).await;
    let header = stage.get_as("ada", "/").await;
    assert_eq!((header.status(), header.token()), (200, None));
    assert_eq!(header.token_status(), Some(expected.word));
    let series = format!("mints_total{{outcome=\"{}\"}}", expected.label);
    assert_eq!(stage.metric(&series).await, 1.0);
    assert_eq!(stage.metric("mint_attempts_total").await, expected.calls as f64);
    assert_eq!(velt.connection_count(), expected.calls);
}

#[tokio::test]
async fn t44_missing_answer_is_a_timeout() {
    for path in ["/", "/api/velt/token"] {
        let stage = Stage::set(HASTY).await;
        stage.velt.close_gate();
        let answer = stage.get_as("ada", path).await;
        if path == "/" {
            assert_eq!((answer.status(), answer.token_status()), (200, Some("timeout")));
        } else {
            assert_eq!((answer.status(), &*answer.code()), (504, "token_timeout"));
            assert_eq!(answer.header("retry-after"), Some("1"));
        }
        assert_eq!(stage.velt.call_count(), 3);
    }
}

#[tokio::test]
async fn t44_endless_answer_is_a_timeout() {
    let stuck = RawApp::serving(|mut wire, _| async move {
        wire.read_to("}}").await;
        wire.send("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"result\":").await;
        pending::<()>().await;
    })
    .await;
    assert_socket_comes_to(&stuck, TIMEOUT).await;

    let dripping = RawApp::serving(|mut wire, _| async move {
        wire.read_to("}}").await;
        wire.send("HTTP/1.1 200 OK\r\ncontent-length: 60000\r\n\r\n").await;
        let mut ticks = interval(Duration::from_millis(20));
        // The loop ends when the sidecar has had enough of the answer.
        while wire.try_send(" ").await {
            ticks.tick().await;
        }
    })
    .await;
    assert_socket_comes_to(&dripping, TIMEOUT).await;
}

#[tokio::test]
async fn t44_broken_connection_is_unavailable() {
    for said in [
        "",
        "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"result\":",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{}",
        "SSH-2.0-canary\r\n\r\n",
    ] {
        let breaking = RawApp::serving(move |mut wire, _| async move {
            wire.read_to("}}").await;
            wire.send(said).await;
            wire.end().await;
        })
        .await;
        assert_socket_comes_to(&breaking, UNAVAILABLE).await;
    }
}

#[tokio::test]
async fn deadline_ends_a_mint_before_its_last_attempt() {
    let toml = "[velt]\nattempt_timeout = \"300ms\"\ndeadline = \"300ms\"\n\
                [delivery.header]\nmax_wait = \"20s\"";
    let stage = Stage::set(toml).await;
    stage.velt.close_gate();
    assert_eq!(stage.get_as("ada", "/").await.token_status(), Some("timeout"));
    assert_eq!(stage.velt.call_count(), 1);
}

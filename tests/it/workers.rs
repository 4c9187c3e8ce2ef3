//! Two threads that serve: each connection belongs to one of them, and the threads share what they must
//! share.

use std::collections::BTreeSet;

use crate::support::app::FakeApp;
use crate::support::raw::{RawApp, SWITCHED, Wire};
use crate::support::velt::FakeVelt;
use crate::support::{Stage, TestSidecar};

const TWO: &str = "[runtime]\nworkers = \"2\"\n";

const REQUEST: &str = "GET /api/x HTTP/1.1\r\nhost: a\r\nx-forwarded-user: ada\r\n\r\n";

/// Connections that stay open, dealt out to the threads in turn.
async fn connections<const COUNT: usize>(stage: &Stage) -> [Wire; COUNT] {
    let mut wires = Vec::new();
    for count in 1..=COUNT {
        wires.push(Wire::to(stage.sidecar.addresses.traffic).await);
        // The number of open connections decides which thread gets the next connection.
        stage.sidecar.metric_reaches("connections_open", count as f64).await;
    }
    wires.try_into().unwrap_or_else(|_| unreachable!("as many as were asked for"))
}

async fn answer(wire: &mut Wire) -> String {
    wire.send(REQUEST).await;
    let head = wire.head().await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let length = head.split("content-length: ").nth(1).expect("a length").split('\r').next();
    wire.read_exactly(length.expect("a line").parse().expect("a number")).await;
    head
}

fn token(head: &str) -> &str {
    head.split("x-velt-token: ").nth(1).expect("a token").split('\r').next().expect("a line")
}

#[tokio::test]
async fn workers_have_own_app_connections_and_share_tokens() {
    let stage = Stage::set(TWO).await;
    let mut wires = connections::<4>(&stage).await;
    let mut tokens = BTreeSet::new();
    for _ in 0..3 {
        for wire in &mut wires {
            tokens.insert(token(&answer(wire).await).to_owned());
        }
    }
    assert_eq!(tokens.len(), 1, "one user, one token");
    assert_eq!(stage.velt.call_count(), 1, "and one mint, whoever asks");
    // A thread whose requests come one after the other needs one connection.
    assert_eq!(stage.app.connection_count(), 2, "one for each thread");
    assert_eq!(stage.metric("token_lookups_total{result=\"fresh\"}").await, 11.0);
}

#[tokio::test]
async fn mint_of_one_worker_is_joined_by_the_other() {
    let stage = Stage::set(&format!("{TWO}[delivery.header]\nmax_wait = \"20s\"\n")).await;
    let [mut one, mut other] = connections(&stage).await;
    stage.velt.close_gate();
    one.send(REQUEST).await;
    stage.velt.calls_reach(1).await;
    other.send(REQUEST).await;
    stage.sidecar.metric_reaches("token_lookups_total{result=\"joined\"}", 1.0).await;
    // The client that started the mint leaves; its thread goes on with the mint.
    drop(one);
    stage.sidecar.metric_reaches("connections_open", 1.0).await;
    stage.velt.open_gate();
    token(&other.head().await);
    assert_eq!(stage.velt.call_count(), 1);
}

#[tokio::test]
async fn workers_finish_their_requests_before_the_end() {
    let (gate, app) = FakeApp::gated().await;
    let mut stage = Stage::with(app, TWO).await;
    let wires = connections::<2>(&stage).await;
    let mut waiting = Vec::new();
    for mut wire in wires {
        wire.send(REQUEST).await;
        waiting.push(wire);
    }
    stage.app.requests_reach(2).await;
    stage.sidecar.terminate();
    stage.sidecar.metric_reaches("ready", 0.0).await;
    gate.send_replace(true);
    for mut wire in waiting {
        let received = wire.rest().await;
        assert!(received.starts_with("HTTP/1.1 200") && received.ends_with("late"), "{received}");
    }
    stage.sidecar.ended().await;
}

#[tokio::test]
async fn deadline_cuts_off_requests_of_all_workers() {
    let (_never, app) = FakeApp::gated().await;
    let mut stage = Stage::with(app, &format!("{TWO}[shutdown]\ndeadline = \"50ms\"\n")).await;
    let mut wires = connections::<2>(&stage).await;
    for wire in &mut wires {
        wire.send(REQUEST).await;
    }
    stage.app.requests_reach(2).await;
    stage.sidecar.terminate();
    stage.sidecar.ended().await;
    // The thread that runs the rest of the test goes on; the other thread has ended with the sidecar.
    assert_eq!(wires[1].rest().await, "");
}

#[tokio::test]
async fn tunnels_of_all_workers_are_told_of_the_shutdown() {
    let app = RawApp::serving(|mut wire, _| async move {
        wire.head().await;
        wire.send(SWITCHED).await;
        // A close frame of a client, and the answer to it.
        wire.read_exactly(8).await;
        wire.send([0x88, 0x02, 0x03, 0xe9]).await;
    })
    .await;
    let velt = FakeVelt::start().await;
    let mut sidecar = TestSidecar::start(&app.address.to_string(), velt.address, TWO);
    let mut wires = Vec::new();
    for count in 1..=2 {
        let mut wire = Wire::to(sidecar.addresses.traffic).await;
        wire.send(
            "GET /ws HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        )
        .await;
        assert!(wire.head().await.starts_with("HTTP/1.1 101"));
        sidecar.metric_reaches("tunnels_open", f64::from(count)).await;
        wires.push(wire);
    }
    sidecar.terminate();
    for wire in &mut wires {
        // Close, two bytes, 1001: going away (RFC 6455 section 7.4.1).
        assert_eq!(wire.read_exactly(4).await, [0x88, 0x02, 0x03, 0xe9]);
        // The client's answer, masked with zeros.
        wire.send([0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe9]).await;
    }
    sidecar.ended().await;
}

#[tokio::test]
async fn configured_number_of_workers_serves() {
    let stage = Stage::set("[runtime]\nworkers = \"4\"").await;
    let mut wires = connections::<8>(&stage).await;
    for wire in &mut wires {
        answer(wire).await;
    }
    assert_eq!(stage.app.connection_count(), 4);
}

//! Clients that use up their time, and those beside them who do not.

use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};

use crate::support::Stage;
use crate::support::app::FakeApp;
use crate::support::raw::Wire;

const SHORT: &str = "[listen]\nidle_timeout = \"300ms\"\nheader_timeout = \"100ms\"\n\
                     write_timeout = \"200ms\"";

fn closed(reason: &str) -> String {
    format!("connections_closed_total{{reason=\"{reason}\"}}")
}

#[tokio::test]
async fn t39_a_head_that_comes_slowly_is_cut_off() {
    let stage = Stage::set(SHORT).await;
    let mut slow = Wire::to(stage.sidecar.addresses.traffic).await;
    slow.send("GET / HTTP/1.1\r\nhost: a\r\nx-slow").await;
    assert_eq!(slow.rest().await, "");
    stage.sidecar.metric_reaches(&closed("slow_head"), 1.0).await;
    assert_eq!(stage.app.journal().len(), 0);
}

#[tokio::test]
async fn a_connection_without_a_request_is_closed_after_the_idle_time() {
    let stage = Stage::set(SHORT).await;
    let mut wire = Wire::to(stage.sidecar.addresses.traffic).await;
    wire.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let received = wire.rest().await;
    assert!(received.starts_with("HTTP/1.1 200"), "{received}");
    stage.sidecar.metric_reaches(&closed("idle"), 1.0).await;
}

#[tokio::test]
async fn a_request_may_take_longer_than_the_idle_time() {
    let app = FakeApp::serving(|_| async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        crate::support::app::plain("late")
    })
    .await;
    let stage = Stage::with(app, SHORT).await;
    assert_eq!(stage.client().get("/").send().await.text(), "late");
    assert_eq!(stage.client().get("/").send_http2().await.text(), "late");
}

#[tokio::test]
async fn t39_a_client_that_does_not_read_is_cut_off_and_its_app_request_with_it() {
    let app = FakeApp::answering(|_| {
        let chunk = Bytes::from(vec![b'x'; 64 * 1024]);
        let frames = futures_util::stream::repeat_with(move || Ok(Frame::data(chunk.clone())));
        Response::new(StreamBody::new(frames).boxed())
    })
    .await;
    let stage = Stage::with(app, SHORT).await;
    let mut lazy = Wire::to(stage.sidecar.addresses.traffic).await;
    lazy.send("GET /endless HTTP/1.1\r\nhost: a\r\n\r\n").await;
    stage.sidecar.metric_reaches(&closed("stalled"), 1.0).await;
    stage.sidecar.metric_reaches("requests_in_flight", 0.0).await;
    stage.sidecar.metric_reaches("app_connections", 0.0).await;
}

#[tokio::test]
async fn an_idle_http2_connection_is_told_and_closed() {
    let stage = Stage::set(SHORT).await;
    let stream = tokio::net::TcpStream::connect(stage.sidecar.addresses.traffic).await;
    let io = hyper_util::rt::TokioIo::new(stream.expect("it listens"));
    let executor = hyper_util::rt::TokioExecutor::new();
    let handshake = hyper::client::conn::http2::handshake::<_, _, String>(executor, io).await;
    let (_sender, connection) = handshake.expect("HTTP/2");
    connection.await.expect("closed in order");
    stage.sidecar.metric_reaches(&closed("idle"), 1.0).await;
}

#[tokio::test]
async fn connections_over_the_limit_are_closed_at_once_and_counted() {
    let stage = Stage::set("[listen]\nmax_connections = 2").await;
    let mut kept = Vec::new();
    for _ in 0..2 {
        let mut wire = Wire::to(stage.sidecar.addresses.traffic).await;
        wire.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        wire.head().await;
        kept.push(wire);
    }
    assert_eq!(Wire::to(stage.sidecar.addresses.traffic).await.rest().await, "");
    assert_eq!(stage.metric("connections_refused_total").await, 1.0);
    drop(kept);
    stage.sidecar.metric_reaches("connections_open", 0.0).await;
    assert_eq!(stage.client().get("/").send().await.status(), 200);
}

//! Effects on clients of an app that dies, comes back or stands still.

use std::net::SocketAddr;
use std::sync::Arc;

use http::{Request, Response};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Incoming;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::support::Stage;
use crate::support::app::{AppBody, FakeApp, plain};
use crate::support::client::{Client, Sending};
use crate::support::raw::Wire;

/// One request of a load: its begin, its end and its status.
struct Asked {
    began: Instant,
    ended: Instant,
    /// `None` if the answer was broken off, as it has to be if the app dies in the middle of it.
    status: Option<u16>,
}

/// Sends requests until `stop` is true.
async fn load(address: SocketAddr, stop: watch::Receiver<bool>, path: &str) -> Vec<Asked> {
    let mut asked = Vec::new();
    while !*stop.borrow() {
        let began = Instant::now();
        let status = answered(Client::to(address).get(path)).await.ok();
        asked.push(Asked { began, ended: Instant::now(), status });
    }
    asked
}

/// The status of an answer that came to its end.
async fn answered(sending: Sending) -> hyper::Result<u16> {
    let response = sending.try_begin().await?;
    let status = response.status().as_u16();
    response.into_body().collect().await?;
    Ok(status)
}

async fn restarts_cause_502_only_while_the_app_is_down(protocol: &str) {
    let h2c = protocol == "h2c";
    let any = "127.0.0.1:0".parse().expect("an address");
    let app = FakeApp::restart(any, h2c).await;
    let address = app.address;
    let mut stage = Stage::with(app, &format!("[app]\nprotocol = \"{protocol}\"")).await;
    let stop = watch::Sender::new(false);
    let sidecar = stage.sidecar.addresses.traffic;
    let clients: Vec<_> =
        (0..3).map(|_| tokio::spawn(load(sidecar, stop.subscribe(), "/"))).collect();
    let mut down = Vec::new();
    for _ in 0..20 {
        // All kept-alive connections belong to the app that died.
        for method in ["GET", "POST"] {
            let sending = stage.client().request(method.parse().expect("a method"), "/");
            let answer = sending.send().await;
            assert_eq!(answer.status(), 200, "{method} to an app that is back: {}", answer.text());
        }
        let died = Instant::now();
        stage.app.die().await;
        let answer = stage.client().get("/").send().await;
        assert_eq!((answer.status(), &*answer.code()), (502, "app_unreachable"));
        stage.app = FakeApp::restart(address, h2c).await;
        down.push((died, Instant::now()));
    }
    stop.send_replace(true);
    let (mut served, mut failed) = (0, 0);
    for client in clients {
        for Asked { began, ended, status } in client.await.expect("no panic") {
            let while_down = down.iter().any(|(died, back)| began <= *back && ended >= *died);
            let well = status == Some(200);
            let dying = matches!(status, Some(502) | None) && while_down;
            assert!(well || dying, "{status:?} while it was up");
            *(if well { &mut served } else { &mut failed }) += 1;
        }
    }
    assert!(served > 20, "{served} served, {failed} failed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restarts_of_an_http1_app_cause_502_only_while_it_is_down() {
    restarts_cause_502_only_while_the_app_is_down("http1").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restarts_of_an_h2c_app_cause_502_only_while_it_is_down() {
    restarts_cause_502_only_while_the_app_is_down("h2c").await;
}

const STILL: &str = "[app]\nstream_idle_timeout = \"50ms\"";

/// Reads nothing and answers nothing.
async fn stand_still(_: Request<Incoming>) -> Response<AppBody> {
    std::future::pending().await
}

#[tokio::test]
async fn a_request_whose_body_stands_still_is_408_if_a_limit_is_set() {
    let stage = Stage::with(FakeApp::serving(stand_still).await, STILL).await;
    let mut wire = Wire::to(stage.sidecar.addresses.traffic).await;
    wire.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nhalf").await;
    let head = wire.head().await;
    assert!(head.starts_with("HTTP/1.1 408"), "{head}");
    assert!(wire.rest().await.contains("stream_idle"), "and the connection closes");
    assert_eq!(stage.metric("requests_total{outcome=\"stream_idle\"}").await, 1.0);
}

#[tokio::test]
async fn a_response_that_stands_still_is_broken_off_if_a_limit_is_set() {
    let app = FakeApp::answering(|_| {
        let still = futures_util::stream::pending::<std::io::Result<_>>();
        let mut response = plain("");
        *response.body_mut() = StreamBody::new(still).boxed();
        response
    })
    .await;
    let stage = Stage::with(app, STILL).await;
    let response = stage.client().get("/").begin().await;
    assert_eq!(response.status(), 200);
    assert!(response.into_body().collect().await.is_err(), "not taken for the whole");
    assert_eq!(stage.metric("responses_aborted_total{by=\"idle\"}").await, 1.0);
}

#[tokio::test]
async fn request_that_moves_one_way_does_not_stand_still() {
    let drained = Arc::new(tokio::sync::Notify::new());
    let notify = Arc::clone(&drained);
    let app = FakeApp::serving(move |request: Request<Incoming>| {
        let drained = Arc::clone(&notify);
        // The head comes at once; the answer ends when the request has ended.
        async move {
            let end = async move {
                request.into_body().collect().await.expect("a whole request");
                drained.notify_one();
                None::<std::io::Result<http_body::Frame<bytes::Bytes>>>
            };
            let body = futures_util::stream::once(end);
            let body = futures_util::StreamExt::filter_map(body, std::future::ready);
            Response::new(StreamBody::new(Box::pin(body)).boxed())
        }
    })
    .await;
    let stage = Stage::with(app, "[app]\nstream_idle_timeout = \"200ms\"").await;
    let mut wire = Wire::to(stage.sidecar.addresses.traffic).await;
    wire.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 8\r\n\r\n").await;
    wire.head().await;
    let began = Instant::now();
    for _ in 0..8 {
        // The pause takes real time, because the test is about elapsed time.
        tokio::time::sleep(std::time::Duration::from_millis(60)).await;
        wire.send("x").await;
    }
    drained.notified().await;
    assert!(began.elapsed().as_millis() > 400);
    assert_eq!(wire.read_to("0\r\n\r\n").await, "0\r\n\r\n", "whole");
}

//! Server-sent events of a Node app. Each event is sent only after the test has read the previous event, so a
//! sidecar that held bytes back would hold them for ever.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use tokio::time::timeout;

use crate::neighbour::{PATIENCE, Sidecar};
use crate::program::Program;
use crate::wire::{Protocol, send};

const EVENTS: u64 = 25;

/// Reads the bytes that come next.
async fn next(body: &mut Incoming) -> Bytes {
    let frame = timeout(PATIENCE, body.frame()).await.expect("an event before the next is sent");
    let frame = frame.expect("it never ends").expect("it is not broken off");
    frame.into_data().expect("data")
}

fn microseconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64() * 1e6
}

fn from_hex(text: &str) -> Vec<u8> {
    let byte = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal");
    (0..text.len()).step_by(2).map(byte).collect()
}

/// Follows events up to their number in the test. Returns the median time from write to read.
async fn follow(
    app: &mut Program,
    server: std::net::SocketAddr,
    protocol: Protocol,
    coding: &str,
) -> Duration {
    let request = Request::get(format!("/events?coding={coding}")).body(Empty::<Bytes>::new());
    let (response, connection) = send(server, protocol, request.expect("a request")).await;
    let headers = response.headers();
    assert_eq!(headers["content-type"], "text/event-stream");
    assert_eq!(
        headers.get("content-encoding").map_or("identity", |coding| coding.to_str().expect("text")),
        coding
    );
    let mut body = response.into_body();
    let mut times = Vec::new();
    for number in 0..EVENTS {
        app.say("next");
        let mut received = next(&mut body).await.to_vec();
        let at = microseconds();
        let line = app.line().await;
        assert_eq!(line["number"], number);
        let written = from_hex(line["bytes"].as_str().expect("hexadecimal"));
        while received.len() < written.len() {
            received.extend(next(&mut body).await);
        }
        assert_eq!(received, written, "event {number}");
        times.push((at - line["at"].as_f64().expect("a time")).max(0.0));
    }
    drop((body, connection));
    // The app notices that the client has left.
    let closed = app.value_of("whole").await;
    assert_eq!(closed, false);
    app.say("for the loop that still waits");
    times.sort_by(f64::total_cmp);
    Duration::from_secs_f64(times[times.len() / 2] / 1e6)
}

#[tokio::test(flavor = "multi_thread")]
async fn events_arrive_one_by_one_and_a_leaving_client_is_noticed() {
    for app_speaks in [Protocol::Http1, Protocol::H2c] {
        let (mut app, address) =
            Program::node("streams_app.js", &[&app_speaks.to_string()]).listening().await;
        let protocol = app_speaks.to_string();
        let settings = [("VELT_SIDECAR_APP__PROTOCOL", &*protocol)];
        let sidecar = Sidecar::start_with(address, &settings).await;
        for coding in ["identity", "gzip"] {
            let direct = follow(&mut app, address, app_speaks, coding).await;
            print!("SSE, {coding}, app {app_speaks}: direct {direct:.0?}");
            for client_speaks in [Protocol::Http1, Protocol::H2c] {
                let sidecar = sidecar.addresses.traffic;
                let through = follow(&mut app, sidecar, client_speaks, coding).await;
                print!(", through to {client_speaks} {through:.0?}");
            }
            println!();
        }
    }
}

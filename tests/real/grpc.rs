//! gRPC as Python's `grpcio` speaks it, client and server, through a sidecar in front of an h2c app. Both
//! ends print what they see, and must see the same through the sidecar as directly.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Version};
use http_body::Body as _;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::neighbour::Sidecar;
use crate::program::Program;
use crate::record::{milliseconds, record};
use crate::sidecar_process::SidecarProcess;

const H2C: (&str, &str) = ("VELT_SIDECAR_APP__PROTOCOL", "h2c");

/// Headers that the sidecar adds, as docs/proxying.md and docs/delivery.md say.
const DOCUMENTED: [&str; 5] =
    ["date", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-velt-token-status"];

async fn app() -> (Program, SocketAddr) {
    Program::python("grpc_app.py", &["0"]).listening().await
}

fn client(servers: &[SocketAddr], scenario: &str) -> Program {
    let servers: Vec<_> = servers.iter().map(ToString::to_string).collect();
    Program::python("grpc_client.py", &[&servers.join(","), scenario])
}

/// Removes the documented headers from all lists of metadata. Returns how many were found; `through` the
/// sidecar there must be some.
fn without_documented(lines: &mut [Value]) -> usize {
    let mut found = 0;
    for line in lines.iter_mut().filter_map(Value::as_object_mut) {
        for list in line.values_mut().filter_map(Value::as_array_mut) {
            let before = list.len();
            list.retain(|pair| !pair[0].as_str().is_some_and(|name| DOCUMENTED.contains(&name)));
            found += before - list.len();
        }
    }
    found
}

/// Returns the lines that the client printed, and the app's lines about `calls` calls.
async fn play(
    app: &mut Program,
    server: SocketAddr,
    scenario: &str,
    calls: usize,
) -> [Vec<Value>; 2] {
    let client = client(&[server], scenario).rest().await;
    let mut seen = Vec::new();
    while seen.len() < calls {
        let line = app.line().await;
        if line.get("call").is_some() {
            seen.push(line);
        }
    }
    // Calls that run at the same time end in any order.
    seen.sort_by_key(Value::to_string);
    [client, seen]
}

#[tokio::test(flavor = "multi_thread")]
async fn client_and_server_see_the_same_calls_direct_and_through() {
    let (mut app, address) = app().await;
    let sidecar = Sidecar::start_with(address, &[H2C]).await;
    // Number of lines that the client prints, and that the app prints.
    for (scenario, lines, calls) in [
        ("shapes", 8, 8),
        ("statuses", 33, 32),
        ("deadlines", 3, 3),
        ("large", 3, 3),
        ("hundred", 1, 100),
    ] {
        let direct = play(&mut app, address, scenario, calls).await;
        let mut through = play(&mut app, sidecar.addresses.traffic, scenario, calls).await;
        let mut differences = 0;
        for ((who, direct), through) in
            ["the client", "the app"].into_iter().zip(&direct).zip(&mut through)
        {
            let documented = without_documented(through);
            assert!(
                documented > 0 || scenario == "hundred",
                "{scenario}: it went past the sidecar"
            );
            assert_eq!(direct.len(), through.len(), "{scenario}: {who}: {direct:?} {through:?}");
            differences += direct.iter().zip(&*through).filter(|(one, other)| one != other).count();
        }
        let figures = json!({ "calls": calls, "differences": differences });
        record("grpc", scenario, &figures);
        assert_eq!(direct, through, "{scenario}");
        assert_eq!(direct[0].len(), lines, "{scenario}: {direct:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn deadlines_and_statuses_are_what_grpc_says_they_are() {
    let (mut app, address) = app().await;
    let sidecar = Sidecar::start_with(address, &[H2C]).await;
    let [client, seen] = play(&mut app, sidecar.addresses.traffic, "deadlines", 3).await;
    let codes: Vec<_> = client.iter().map(|line| &line["code"]).collect();
    assert_eq!(codes, ["OK", "DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED"], "{client:?}");
    assert!(client[1..].iter().all(|line| line["at_once"] == true), "{client:?}");
    let deadlines: Vec<_> = seen.iter().map(|line| (&line["call"], &line["deadline"])).collect();
    assert!(deadlines.iter().all(|(_, deadline)| deadline.is_number()), "{deadlines:?}");
}

/// Cancels two calls, one between its messages and one before the first message. Returns the times until the
/// app knew.
async fn cancel(app: &mut Program, server: SocketAddr) -> Vec<Duration> {
    let mut client = client(&[server], "cancellation");
    let mut times = Vec::new();
    for call in ["hang", "silent"] {
        if call == "hang" {
            client.value_of("first").await;
        } else {
            client.say("");
            app.value_of("waiting").await;
        }
        let cancelled = Instant::now();
        client.say("");
        assert_eq!(client.value_of("code").await, "CANCELLED", "{call}");
        let line = app.line().await;
        assert_eq!((&line["call"], &line["active"]), (&call.into(), &false.into()), "{line}");
        times.push(cancelled.elapsed());
    }
    times
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_call_is_cancelled_at_the_app() {
    let (mut app, address) = app().await;
    let sidecar = Sidecar::start_with(address, &[H2C]).await;
    let direct = cancel(&mut app, address).await;
    let through = cancel(&mut app, sidecar.addresses.traffic).await;
    for (name, times) in [("direct", &direct), ("through", &through)] {
        let slowest = times.iter().max().copied().unwrap_or_default();
        record("cancelled_call", name, &json!({ "slowest_ms": milliseconds(slowest) }));
    }
    println!("from the client's cancel to the app's: direct {direct:?}, through {through:?}");
    assert!(through.iter().all(|time| *time < Duration::from_secs(5)), "{through:?}");
}

/// Returns the head of the answer to a call, and whether the answer ended with the head.
async fn head_of(server: SocketAddr, method: &str) -> (HeaderMap, bool) {
    let stream = TcpStream::connect(server).await.expect("it listens");
    let (mut sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("HTTP/2");
    tokio::spawn(connection);
    let request = Request::post(format!("http://app.example/test.Service/{method}"))
        .version(Version::HTTP_2)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Full::new(Bytes::from_static(&[0; 5])))
        .expect("a request");
    let response = sender.send_request(request).await.expect("an answer");
    let (head, body) = response.into_parts();
    let ended = body.is_end_stream();
    let rest = body.collect().await.expect("to its end");
    assert!(!ended || rest.trailers().is_none());
    (head.headers, ended)
}

#[tokio::test(flavor = "multi_thread")]
async fn trailers_only_answer_stays_trailers_only() {
    let (_app, address) = app().await;
    let sidecar = Sidecar::start_with(address, &[H2C]).await;
    for (method, only) in [("nothing", true), ("unary", false)] {
        let (direct, direct_ended) = head_of(address, method).await;
        let (mut through, through_ended) = head_of(sidecar.addresses.traffic, method).await;
        for name in DOCUMENTED {
            through.remove(name);
        }
        assert_eq!((direct_ended, through_ended), (only, only), "{method}");
        assert_eq!(direct, through, "{method}");
        assert_eq!(direct.contains_key("grpc-status"), only, "{method}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ending_sidecar_finishes_its_calls_and_gets_no_more() {
    let (_app, address) = app().await;
    let deadline = ("VELT_SIDECAR_SHUTDOWN__DEADLINE", "20s");
    let settings = [H2C, deadline, ("VELT_SIDECAR_SHUTDOWN__GRACE", "0s")];
    let one = SidecarProcess::start(address, &settings).await;
    let another = SidecarProcess::start(address, &settings).await;
    let mut client = client(&[one.traffic, another.traffic], "on_demand");
    client.say("before");
    assert_eq!(client.value_of("answer").await, "re: before");
    one.terminate();
    // The sidecar announces its end with GOAWAY while a call is under way.
    while client.value_of("state").await != "IDLE" {}
    client.say("meanwhile");
    assert_eq!(client.value_of("answer").await, "re: meanwhile");
    client.say("other");
    assert_eq!(client.value_of("other").await["code"], "OK", "at the other one");
    client.say("rest");
    let rest = client.value_of("rest").await;
    assert_eq!((&rest["code"], &rest["messages"]), (&"OK".into(), &Value::Array(Vec::new())));
    one.ended().await;
    another.terminate();
    while client.value_of("state").await != "IDLE" {}
    another.ended().await;
    client.say("other");
    assert_eq!(client.value_of("other").await["code"], "UNAVAILABLE");
}

/// Ends the app under a client and starts it again. Returns the codes of four calls: with an answer before
/// the end, without one, begun while there is no app, and begun afterwards.
async fn restart(
    mut app: Program,
    address: SocketAddr,
    server: SocketAddr,
) -> (Program, [Value; 4]) {
    let mut client = client(&[server], "on_demand");
    client.say("hello");
    assert_eq!(client.value_of("answer").await, "re: hello");
    client.say("silent");
    app.value_of("waiting").await;
    drop(app);
    client.say("rest");
    let answered = client.value_of("rest").await["code"].take();
    client.say("silence");
    let silent = client.value_of("silence").await["code"].take();
    client.say("other");
    let without = client.value_of("other").await["code"].take();
    let port = address.port().to_string();
    let (app, _) = Program::python("grpc_app.py", &[&port]).listening().await;
    // Without a sidecar, the client itself has to notice the new app.
    client.say("patient");
    let afterwards = client.value_of("patient").await["code"].take();
    (app, [answered, silent, without, afterwards])
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_restarts_is_unavailable_and_then_available_again() {
    let (app, address) = app().await;
    let sidecar = Sidecar::start_with(address, &[H2C]).await;
    let (app, direct) = restart(app, address, address).await;
    assert_eq!(direct, ["UNAVAILABLE", "UNAVAILABLE", "UNAVAILABLE", "OK"]);
    let (_app, through) = restart(app, address, sidecar.addresses.traffic).await;
    // The first call ends with a reset stream; directly, it ended with a closed connection.
    assert_eq!(through, ["INTERNAL", "UNAVAILABLE", "UNAVAILABLE", "OK"]);
}

//! Running out of file descriptors: connected clients are served on, and new clients once descriptors are
//! free.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use super::serve_app;
use crate::frames::{END_STREAM, opening, request, stream};
use crate::neighbour::PATIENCE;
use crate::sidecar_process::SidecarProcess;

/// Limit of open files for the whole process, which needs some 20 of them for itself.
const FILES: u32 = 128;

/// Connections of clients for which descriptors remain: two descriptors for each, after 64 in reserve, 4 for
/// the second thread, and an eighth of all for the admin port.
const CONNECTIONS: usize = 22;

async fn connect(sidecar: &SidecarProcess) -> TcpStream {
    TcpStream::connect(sidecar.traffic).await.expect("the kernel takes it")
}

/// Sends a request on a connection that is kept alive, and returns the status.
async fn ask(stream: &mut TcpStream) -> String {
    stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.expect("it is open");
    let mut answer = vec![0; 4096];
    let read = timeout(PATIENCE, stream.read(&mut answer)).await.expect("an answer in time");
    let answer = String::from_utf8_lossy(&answer[..read.expect("an answer")]).into_owned();
    answer.split(' ').nth(1).unwrap_or_default().to_owned()
}

/// Opens more streams than there are descriptors; each stream takes a descriptor for the app.
async fn exhaust(sidecar: &SidecarProcess) -> TcpStream {
    let mut attacker = connect(sidecar).await;
    let held = (0..150).flat_map(|nth| request(stream(nth), END_STREAM, "GET", "/held"));
    let bytes = [opening(), held.collect()].concat();
    attacker.write_all(&bytes).await.expect("it reads");
    let none_left = "app_connects_total{result=\"failed\"}";
    sidecar.metric_is(none_left, |failed| failed > 0.0).await;
    attacker
}

#[tokio::test(flavor = "multi_thread")]
async fn sidecar_survives_running_out_of_descriptors() {
    let (_app, app) = serve_app().await;
    let mut sidecar = SidecarProcess::start_with_files(FILES, app, &[]).await;
    // Opens the metrics' connection while descriptors are left.
    sidecar.metric_is("ready", |ready| ready > 0.0).await;
    let mut established = connect(&sidecar).await;
    assert_eq!(ask(&mut established).await, "200");

    let attacker = exhaust(&sidecar).await;
    let waiting = connect(&sidecar).await;
    let errors = sidecar.metric_is("accept_errors_total", |errors| errors > 0.0).await;
    // A connection to the app was idle, and one of the streams has taken it.
    assert!(["200", "502"].contains(&&*ask(&mut established).await), "it is answered");

    let (start, cpu) = (Instant::now(), sidecar.cpu_time());
    // CPU time and errors are counted over this second.
    sleep(Duration::from_secs(1)).await;
    let (took, cpu) = (start.elapsed(), sidecar.cpu_time().saturating_sub(cpu));
    let more = sidecar.metric("accept_errors_total").await.expect("a metric") - errors;
    println!("{took:?} without descriptors: {more} accept errors, {cpu:?} of CPU time");
    assert!(cpu < took / 5, "{cpu:?} of CPU time in {took:?}");
    assert!((1.0..60.0).contains(&more), "{more} accept errors in {took:?}");

    drop(attacker);
    sidecar.line_with("can't accept connections").await;
    sidecar.line_with("accepting connections again").await;
    let mut waiting = waiting;
    assert_eq!(ask(&mut waiting).await, "200", "whoever has waited is served");
    assert_eq!(ask(&mut established).await, "200");
    assert_eq!(ask(&mut connect(&sidecar).await).await, "200");
    assert!(sidecar.line_count() < 20, "one line, not one for each error");
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_leave_descriptors_for_other_clients() {
    let (_app, app) = serve_app().await;
    let sidecar = SidecarProcess::start_with_files(FILES, app, &[]).await;
    let warning = format!("max_connections = 10000: taking {CONNECTIONS}");
    assert!(sidecar.has_logged(&warning), "it says so");
    let mut established = connect(&sidecar).await;
    assert_eq!(ask(&mut established).await, "200");
    let mut idle = Vec::new();
    for _ in 0..100 {
        idle.push(connect(&sidecar).await);
    }
    let refused = (101 - CONNECTIONS) as f64;
    sidecar.metric_is("connections_refused_total", |count| count >= refused).await;
    // The idle connection to the app is not needed: the sidecar has a connection for each client.
    for stream in idle.iter_mut().take(CONNECTIONS - 1).chain([&mut established]) {
        assert_eq!(ask(stream).await, "200");
    }
    assert_eq!(sidecar.metric("accept_errors_total").await, Ok(0.0));
    drop(idle);
    sidecar.metric_is("connections_open", |open| open < 2.0).await;
    assert_eq!(ask(&mut connect(&sidecar).await).await, "200");
}

#[tokio::test(flavor = "multi_thread")]
async fn soft_limit_is_raised_without_a_log_line() {
    let (_app, app) = serve_app().await;
    let settings = [("VELT_SIDECAR_LISTEN__MAX_CONNECTIONS", "1000")];
    let mut sidecar = SidecarProcess::start_with_soft_limit(FILES, app, &settings).await;
    let mut clients = Vec::new();
    for _ in 0..200 {
        clients.push(connect(&sidecar).await);
    }
    sidecar.metric_is("connections_open", |open| (open - 200.0).abs() < 0.5).await;
    assert_eq!(sidecar.line_count(), 1, "nothing but where it listens");
}

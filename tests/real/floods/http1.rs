//! Floods over HTTP/1.1, of bytes that are no HTTP, and of connections.

use std::time::Duration;

use hop::listener::raise_descriptor_limit;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{End, Flood, Probe, TURN, play_all, serve_app, tenth};
use crate::neighbour::eventually;
use crate::record::record;
use crate::sidecar_process::SidecarProcess;

/// A piece of arbitrary content.
const FILLING: &[u8; 4096] = &[b'a'; 4096];

const CLOSED: &str = "connections_closed_total{reason=\"idle\"}";

fn head(first: &str, lines: &str) -> Vec<u8> {
    format!("{first} HTTP/1.1\r\nhost: a\r\n{lines}\r\n").into_bytes()
}

/// Returns a head that is never finished.
fn unfinished(line: &str) -> Vec<u8> {
    format!("GET / HTTP/1.1\r\nhost: a\r\n{line}").into_bytes()
}

fn filling(_: u32) -> Vec<u8> {
    FILLING.to_vec()
}

fn heads() -> Vec<Flood> {
    let closed = End::Closed("slow_head");
    let mut slow = Flood::new("slow heads", unfinished("x-slow: "), |_| b"a".to_vec(), closed);
    slow.connections = 500;
    slow.pace = Duration::from_millis(50);
    let mut silent = Flood::new("half a preface", b"PR".to_vec(), filling, closed);
    silent.connections = 500;
    silent.step = None;
    let headers = |nth| format!("x-{nth}: a\r\n").into_bytes();
    let too_large = End::Closed("too_large");
    vec![
        slow,
        silent,
        Flood::new("headers without end", unfinished(""), headers, too_large),
        Flood::new("a header line without end", unfinished("x: "), filling, too_large),
        Flood::new("a target without end", b"GET /".to_vec(), filling, too_large),
        Flood::new("no HTTP", b"\x16\x03\x01\x02".to_vec(), filling, End::Closed("bad_request")),
    ]
}

fn bodies() -> Vec<Flood> {
    let post = |lines| head("POST /sink", lines);
    let chunked =
        |start: &str| [&post("transfer-encoding: chunked\r\n"), start.as_bytes()].concat();
    let byte = |_| b"a".to_vec();
    let mut slow = Flood::new("slow bodies", post("content-length: 10000\r\n"), byte, End::Borne);
    slow.connections = 200;
    slow.pace = Duration::from_millis(50);
    let extensions = Flood::new("chunk extensions", chunked("1;"), filling, End::Refused);
    let tiny = |_| b"1\r\na\r\n".repeat(100);
    let mut chunks = Flood::new("chunks of one byte", chunked(""), tiny, End::Borne);
    // Bytes that are sent faster than the sidecar reads wait in the kernel, and are read before the end.
    chunks.pace = Duration::from_millis(10);
    let trailers = |nth| format!("x-{nth}: a\r\n").into_bytes();
    let trailers = Flood::new("trailers without end", chunked("0\r\n"), trailers, End::Refused);
    let trailer =
        Flood::new("a trailer line without end", chunked("0\r\nx: "), filling, End::Refused);
    vec![slow, extensions, chunks, trailers, trailer]
}

fn readers() -> Vec<Flood> {
    let stalled = End::Closed("stalled");
    let mut lazy = Flood::new("slow readers", head("GET /endless", ""), filling, stalled);
    // 64 KiB and a little for the app's side of each connection, besides the kernel's buffers.
    (lazy.connections, lazy.step, lazy.reads, lazy.growth) = (200, None, false, 96.0);
    let requests = |_| head("GET /large", "").repeat(100);
    let mut pipelined = Flood::new("pipelined requests", Vec::new(), requests, stalled);
    pipelined.reads = false;
    let read = Flood::new("pipelined requests, read", Vec::new(), requests, End::Borne);
    vec![lazy, pipelined, read]
}

#[tokio::test(flavor = "multi_thread")]
async fn t38_t39_http1_floods_leave_other_clients_served() {
    play_all(heads().into_iter().chain(bodies()).chain(readers()).collect()).await;
}

/// Opens connections that ask nothing after `said`, and waits until all of them are counted. Prints the
/// memory of each connection in the sidecar, in KiB.
async fn open(
    sidecar: &mut SidecarProcess,
    name: &str,
    count: usize,
    said: &[u8],
    connections: &mut Vec<TcpStream>,
) -> u64 {
    let before = sidecar.memory();
    for _ in 0..count {
        let mut stream = TcpStream::connect(sidecar.traffic).await.expect("it listens");
        stream.write_all(said).await.expect("it reads");
        if !said.is_empty() {
            // Reads the answer first, so that the machine is not busy with all connections at once.
            stream.read_exact(&mut [0]).await.expect("an answer");
        }
        connections.push(stream);
    }
    let open = connections.len() as f64;
    eventually(name, async || {
        // A busy machine may have taken so long that the sidecar has closed the first connections.
        let seen = sidecar.metric("connections_open").await? + sidecar.metric(CLOSED).await?;
        if seen >= open { Ok(()) } else { Err(format!("{seen} of {open}")) }
    })
    .await;
    let (during, cpu) = (sidecar.memory(), sidecar.cpu_time());
    let each = during.saturating_sub(before) / count as u64;
    println!("{count} connections, {name}: {each} KiB each, {during} KiB in all, {cpu:?} of CPU");
    each
}

#[tokio::test(flavor = "multi_thread")]
async fn t38_ten_thousand_idle_connections_cost_little_and_are_closed() {
    let _turn = TURN.lock().await;
    // Two descriptors for each connection, and some in reserve, of the limit that the system sets for each
    // process.
    let limit = usize::try_from(raise_descriptor_limit()).unwrap_or(usize::MAX);
    let most = 10_000.min((limit - 100) / 2);
    let settings =
        [("VELT_SIDECAR_LISTEN__IDLE_TIMEOUT", "8s"), ("VELT_SIDECAR_APP__CONNECT_TIMEOUT", "10s")];
    let (_app, app) = serve_app().await;
    let mut sidecar = SidecarProcess::start(app, &settings).await;
    let probe = Probe::start(sidecar.traffic).await;
    let mut idle = Vec::with_capacity(most);
    let asked = head("GET /", "");
    let kept = open(&mut sidecar, "kept alive after a request", most / 10, &asked, &mut idle).await;
    let silent = open(&mut sidecar, "silent", most - most / 10, b"", &mut idle).await;
    assert!(kept < 40 && silent < 20, "{kept} and {silent} KiB for each idle connection");
    sidecar.metric_is(CLOSED, |value| value >= most as f64).await;
    let served = probe.end().await.expect("others are served");
    let figures = json!({
        "connections": most,
        "kept_kib": kept,
        "silent_kib": silent,
        "requests": served.times.len(),
        "p99_ms": tenth(served.percentile(99)),
    });
    record("idle_connections", "idle connections", &figures);
    println!("others' requests, p50 and p99 in ms: {served}; {} KiB after", sidecar.memory());
}

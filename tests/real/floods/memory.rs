//! Many requests that stand still at once: the memory of each request, the return of the memory after their
//! end, and a process that stays below its container's limit.
//!
//! The long form (`VELT_SIDECAR_LONG=1`) has a limit of 256 MiB, as the shipped pod has, and a load of a
//! thousand downloads, a thousand uploads and forty connections of HTTP/2.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hop::listener::raise_descriptor_limit;
use serde_json::json;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, sleep};

use super::{Probe, TURN, serve_app, tenth};
use crate::frames::{END_STREAM, WINDOW_UPDATE, frame, literal, opening_with, request, stream};
use crate::record::{left_out, record};
use crate::sidecar_process::SidecarProcess;

/// Memory that a stalled exchange over HTTP/1.1 and a stalled stream of HTTP/2 may cost, in KiB.
const EXCHANGE: f64 = 64.0;
/// Bound for a stream. An unoptimized build has larger futures; 32 is the bound of the released binary.
const STREAM: f64 = if cfg!(debug_assertions) { 48.0 } else { 32.0 };

/// Memory that may be kept when the load has gone, in KiB, and the time after which it is measured.
const KEPT: u64 = 8 * 1024;
const RETURN: Duration = Duration::from_secs(10);

const STREAMS: u32 = 200;
const INITIAL_WINDOW_SIZE: u16 = 4;

/// Opens a connection of a client that reads nothing, or can't write more. Dropping the stream ends the
/// client.
async fn client(sidecar: &SidecarProcess, opening: &[u8]) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("an option");
    let stream = socket.connect(sidecar.traffic).await.expect("it listens");
    let mut rest = opening;
    while !rest.is_empty() {
        stream.writable().await.expect("open");
        // The sidecar may have ended the connection.
        match stream.try_write(rest) {
            Ok(written) => rest = &rest[written..],
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => break,
        }
    }
    stream
}

async fn download(sidecar: &SidecarProcess) -> TcpStream {
    client(sidecar, b"GET /endless HTTP/1.1\r\nhost: a\r\n\r\n").await
}

async fn upload(sidecar: &SidecarProcess) -> TcpStream {
    let head = b"POST /unread HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000000\r\n\r\n";
    client(sidecar, head).await
}

/// Goes on with uploads until no more bytes are taken.
async fn fill(uploads: &[TcpStream]) {
    let piece = vec![b'x'; 64 * 1024];
    let mut still = 0;
    while still < 5 {
        let mut written = 0;
        for upload in uploads {
            written += upload.try_write(&piece).unwrap_or(0);
        }
        still = if written == 0 { still + 1 } else { 0 };
        // The sidecar reads meanwhile. No event tells that it reads no more.
        sleep(Duration::from_millis(20)).await;
    }
}

/// Opens a connection of HTTP/2 with windows of 16 bytes on [`STREAMS`] endless answers.
async fn streams(sidecar: &SidecarProcess, path: &str) -> TcpStream {
    let requests = (0..STREAMS).flat_map(|nth| request(stream(nth), END_STREAM, "GET", path));
    let opening = opening_with(&[(INITIAL_WINDOW_SIZE, 16)]);
    client(sidecar, &opening.into_iter().chain(requests).collect::<Vec<_>>()).await
}

/// Opens all windows of [`streams`] by a byte.
fn drip(connections: &[TcpStream]) {
    let open =
        (0..STREAMS).flat_map(|nth| frame(WINDOW_UPDATE, 0, stream(nth), &1_u32.to_be_bytes()));
    let open: Vec<u8> = open.collect();
    for connection in connections {
        // If the socket has no room for the frames, they are sent the next time.
        let _ = connection.try_write(&open);
    }
}

/// Waits until the sidecar's memory no longer grows, and returns it in KiB.
async fn settled(sidecar: &mut SidecarProcess) -> u64 {
    let mut last = sidecar.memory();
    let mut still = 0;
    while still < 10 {
        // The kernel sends no event when memory stops growing.
        sleep(Duration::from_millis(50)).await;
        let now = sidecar.memory();
        still = if now.abs_diff(last) < 256 { still + 1 } else { 0 };
        last = now;
    }
    last
}

/// Memory in KiB before a load and under the load.
struct Load {
    name: &'static str,
    /// Number of requests or connections that stand still.
    count: u32,
    before: u64,
    during: u64,
}

impl Load {
    /// Waits until memory is back at its former value, with [`KEPT`] on top. Records the memory at all three
    /// times, and checks that one of the requests cost no more than `most` KiB.
    async fn returns(self, sidecar: &mut SidecarProcess, most: f64) {
        let Self { name, count, before, during } = self;
        let each = during.saturating_sub(before) as f64 / f64::from(count);
        let gone = Instant::now();
        let mut after = sidecar.memory();
        while after > before + KEPT && gone.elapsed() < RETURN {
            // The kernel sends no event when memory is given back.
            sleep(Duration::from_millis(100)).await;
            after = sidecar.memory();
        }
        let mib = |kib: u64| tenth(kib as f64 / 1024.0);
        let figures = json!({
            "count": count,
            "before_mib": mib(before),
            "during_mib": mib(during),
            "after_mib": mib(after),
            "each_kib": tenth(each),
        });
        record("standing_memory", name, &figures);
        println!("| {name} | {count} | {before} | {during} | {after} | {each:.1} |");
        assert!(each <= most, "{name}: {each} KiB each");
        assert!(after <= before + KEPT, "{name}: {before} KiB before, {after} KiB after");
    }
}

const COUNT: u32 = 400;

/// Starts a sidecar, warms it up, and returns the memory that it has then.
async fn warm(app: std::net::SocketAddr) -> (SidecarProcess, u64) {
    raise_descriptor_limit();
    let mut sidecar = SidecarProcess::start(app, &[("VELT_SIDECAR_APP__IDLE_TIMEOUT", "1s")]).await;
    Probe::start(sidecar.traffic).await.end().await.unwrap_or_else(|error| panic!("{error}"));
    let before = settled(&mut sidecar).await;
    (sidecar, before)
}

#[tokio::test]
async fn stalled_downloads_cost_little_and_memory_returns() {
    let _turn = TURN.lock().await;
    let (_app, app) = serve_app().await;
    let (mut sidecar, before) = warm(app).await;
    let mut stalled = Vec::new();
    for _ in 0..COUNT {
        stalled.push(download(&sidecar).await);
    }
    let during = settled(&mut sidecar).await;
    drop(stalled);
    let load = Load { name: "downloads, unread", count: COUNT, before, during };
    load.returns(&mut sidecar, EXCHANGE).await;
}

#[tokio::test]
async fn stalled_uploads_cost_little_and_memory_returns() {
    let _turn = TURN.lock().await;
    let (_app, app) = serve_app().await;
    let (mut sidecar, before) = warm(app).await;
    let mut stalled = Vec::new();
    for _ in 0..COUNT {
        stalled.push(upload(&sidecar).await);
    }
    fill(&stalled).await;
    let during = settled(&mut sidecar).await;
    drop(stalled);
    let load = Load { name: "uploads, unread by the app", count: COUNT, before, during };
    load.returns(&mut sidecar, EXCHANGE).await;
}

#[tokio::test]
async fn stalled_streams_cost_little_and_memory_returns() {
    let _turn = TURN.lock().await;
    let (_app, app) = serve_app().await;
    let (mut sidecar, before) = warm(app).await;
    let mut stalled = Vec::new();
    for _ in 0..6 {
        stalled.push(streams(&sidecar, "/endless").await);
    }
    for _ in 0..20 {
        drip(&stalled);
        // The sidecar sends the bytes of these windows before the next windows open.
        sleep(Duration::from_millis(10)).await;
    }
    let during = settled(&mut sidecar).await;
    drop(stalled);
    let load =
        Load { name: "streams of HTTP/2 with no window", count: STREAMS * 6, before, during };
    load.returns(&mut sidecar, STREAM).await;
}

#[tokio::test]
async fn idle_connections_leave_no_memory_behind() {
    let _turn = TURN.lock().await;
    let (_app, app) = serve_app().await;
    let (mut sidecar, before) = warm(app).await;
    let mut idle = Vec::new();
    for _ in 0..1500 {
        idle.push(client(&sidecar, b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await);
    }
    let during = settled(&mut sidecar).await;
    drop(idle);
    let load = Load { name: "connections, idle after a request", count: 1500, before, during };
    load.returns(&mut sidecar, f64::INFINITY).await;
}

/// A control group with a limit on memory, which is removed at its end.
struct Container(PathBuf);

impl Container {
    /// Makes the group. Says so and returns `None` if this machine does not allow a group.
    fn new(limit: u64) -> Option<Self> {
        let name = format!("velt-sidecar-test-{}", std::process::id());
        let version1 = Path::new("/sys/fs/cgroup/memory");
        let (top, file) = if version1.exists() {
            (version1, "memory.limit_in_bytes")
        } else {
            (Path::new("/sys/fs/cgroup"), "memory.max")
        };
        let container = Self(top.join(name));
        let made = fs::create_dir(&container.0)
            .and_then(|()| fs::write(container.0.join(file), limit.to_string()));
        if let Err(error) = made {
            left_out(&format!("no control group with a memory limit can be made here: {error}"));
            return None;
        }
        Some(container)
    }
}

impl Drop for Container {
    #[allow(clippy::disallowed_methods, reason = "nothing else runs when a test has ended")]
    fn drop(&mut self) {
        // The kernel takes a moment to forget a process; a group that stays is empty.
        for _ in 0..20 {
            if fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

#[tokio::test]
async fn stalled_clients_leave_others_served_below_the_limit() {
    let _turn = TURN.lock().await;
    let long = env::var_os("VELT_SIDECAR_LONG").is_some();
    let (limit, many, few) = if long { (256, 1000, 40) } else { (96, 260, 15) };
    let Some(container) = Container::new(limit << 20) else { return };
    raise_descriptor_limit();
    let (_app, app) = serve_app().await;
    let mut sidecar = SidecarProcess::start_in(&container.0, app, &[]).await;
    sidecar.metric_is("memory_limit_bytes", |bytes| bytes >= (limit << 20) as f64).await;
    let probe = Probe::start(sidecar.traffic).await;
    let (mut downloads, mut uploads, mut connections) = (Vec::new(), Vec::new(), Vec::new());
    let mut peak = 0;
    for nth in 0..many {
        downloads.push(download(&sidecar).await);
        uploads.push(upload(&sidecar).await);
        if nth % (many / few) == 0 {
            connections.push(streams(&sidecar, "/endless").await);
            // Each byte in 200 heads refers to an entry of the dynamic table: the HTTP/2 Bomb.
            connections.push(bomb(&sidecar).await);
        }
        peak = peak.max(sidecar.memory());
    }
    fill(&uploads).await;
    for _ in 0..20 {
        drip(&connections);
        // The sidecar sends the bytes of these windows before its memory is read.
        sleep(Duration::from_millis(50)).await;
        peak = peak.max(sidecar.memory());
    }
    let served = probe.end().await.unwrap_or_else(|error| panic!("{error}"));
    let closed = "connections_closed_total{reason=\"memory\"}";
    println!("| at most {peak} KiB of {} | {served} |", limit << 10);
    let figures = json!({
        "limit_mib": limit,
        "during_mib": tenth(peak as f64 / 1024.0),
        "downloads": many,
        "uploads": many,
        "http2_connections": connections.len(),
        "requests": served.times.len(),
        "p99_ms": tenth(served.percentile(99)),
    });
    record("memory_limit", "stalled clients in a container", &figures);
    assert!(peak < limit << 10, "the limit was reached: {peak} KiB");
    sidecar.metric_is(closed, |count| count > 0.0).await;
    let warned = sidecar.line_with("memory is nearly used up").await;
    assert!(sidecar.line_count() < 20, "{warned}");
}

/// Opens a connection whose 200 requests have cookies of 1,000 crumbs each, with one byte for each crumb.
async fn bomb(sidecar: &SidecarProcess) -> TcpStream {
    use crate::frames::{END_HEADERS, HEADERS, block};
    let requests = (0..STREAMS).flat_map(|nth| {
        let path = [(":method", "GET"), (":scheme", "http"), (":path", "/held")];
        let mut fields = block(&path);
        if nth == 0 {
            fields.extend(literal(0x40, "cookie", "c"));
        }
        fields.extend([0x80 | 0x3e].repeat(1000));
        frame(HEADERS, END_HEADERS | END_STREAM, stream(nth), &fields)
    });
    let opening = opening_with(&[(INITIAL_WINDOW_SIZE, 16)]);
    client(sidecar, &opening.into_iter().chain(requests).collect::<Vec<_>>()).await
}

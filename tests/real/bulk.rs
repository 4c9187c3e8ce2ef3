//! Bodies far larger than the bound on the sidecar's memory, up and down, with clients and apps that read and
//! with clients and apps that do not.

use std::env;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::Request;
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use crate::neighbour::{PATIENCE, Task, eventually};
use crate::program::Program;
use crate::sidecar_process::SidecarProcess;
use crate::wire::{Protocol, send};

const MIB: u64 = 1 << 20;

/// Bound on the growth of the sidecar's memory during these tests.
const MAY_GROW: u64 = 16 * MIB;

/// Returns the bytes that may be under way while no side reads: the largest size that Linux lets the buffers
/// of two connections grow to, and 8 MiB for the client, the sidecar and the app.
fn may_be_under_way() -> u64 {
    let largest = |limit: &str| {
        let limits = std::fs::read_to_string(format!("/proc/sys/net/ipv4/{limit}"));
        let limits = limits.expect("Linux");
        limits.split_whitespace().last().expect("a limit").parse::<u64>().expect("a number")
    };
    2 * (largest("tcp_rmem") + largest("tcp_wmem")) + 8 * MIB
}

/// Number of equal readings in a row after which a figure counts as stopped.
const LOOKS: u32 = 20;

/// Returns the bytes in each direction.
fn size() -> u64 {
    if env::var_os("VELT_SIDECAR_LONG").is_some() { 1024 * MIB } else { 128 * MIB }
}

/// A body that is generated while it is sent.
struct Upload {
    left: u64,
    made: Arc<AtomicU64>,
    known: bool,
}

impl Body for Upload {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        static CHUNK: [u8; 65536] = [b'u'; 65536];
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let length = self.left.min(CHUNK.len() as u64);
        self.left -= length;
        self.made.fetch_add(length, Ordering::Relaxed);
        let length = usize::try_from(length).expect("a chunk's");
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&CHUNK[..length])))))
    }

    fn size_hint(&self) -> SizeHint {
        if self.known { SizeHint::with_exact(self.left) } else { SizeHint::default() }
    }
}

/// A sidecar in front of an app, and the largest memory that the sidecar has had.
struct Stage {
    app_address: SocketAddr,
    sidecar: Arc<Mutex<SidecarProcess>>,
    before: u64,
    peak: Arc<AtomicU64>,
}

impl Stage {
    async fn set(app_speaks: Protocol) -> (Program, Self) {
        let protocol = app_speaks.to_string();
        let (app, app_address) = Program::node("streams_app.js", &[&protocol]).listening().await;
        let settings = [("VELT_SIDECAR_APP__PROTOCOL", &*protocol)];
        let sidecar = SidecarProcess::start(app_address, &settings).await;
        let sidecar = Arc::new(Mutex::new(sidecar));
        let mut stage = Self { app_address, sidecar, before: 0, peak: Arc::default() };
        // The cost of the first requests does not count as growth.
        for client_speaks in [Protocol::Http1, Protocol::H2c] {
            stage.download(client_speaks, "length", MIB).await;
            stage.upload(client_speaks, true, "/discard", MIB).await;
        }
        stage.before = 1024 * stage.sidecar.lock().await.memory();
        stage.peak.store(0, Ordering::Relaxed);
        (app, stage)
    }

    async fn look(&self) {
        let resident = 1024 * self.sidecar.lock().await.memory();
        self.peak.fetch_max(resident, Ordering::Relaxed);
    }

    /// Reads until so many bytes have been read.
    async fn read(&self, body: &mut Incoming, read: &mut u64, until: u64) {
        let mut looked = *read;
        while *read < until {
            let frame = timeout(PATIENCE, body.frame()).await.expect("more in time");
            let frame = frame.expect("not yet the end").expect("it is not broken off");
            *read += frame.into_data().expect("data").len() as u64;
            if *read > looked + 4 * MIB {
                looked = *read;
                self.look().await;
            }
        }
    }

    async fn begin_download(
        &self,
        client_speaks: Protocol,
        framing: &str,
        bytes: u64,
    ) -> (Incoming, Task) {
        let target = format!("/produce?bytes={bytes}&framing={framing}");
        let request = Request::get(target).body(Empty::<Bytes>::new()).expect("a request");
        let traffic = self.sidecar.lock().await.traffic;
        let (response, connection) = send(traffic, client_speaks, request).await;
        let known = response.headers().contains_key("content-length");
        assert_eq!(known, framing == "length", "{:?}", response.headers());
        (response.into_body(), connection)
    }

    async fn download(&self, client_speaks: Protocol, framing: &str, bytes: u64) {
        let (mut body, _connection) = self.begin_download(client_speaks, framing, bytes).await;
        let mut read = 0;
        self.read(&mut body, &mut read, bytes).await;
        assert_eq!(read, bytes);
        let rest = body.collect().await.expect("its end");
        assert!(rest.to_bytes().is_empty(), "more than it should be");
    }

    /// Sends a body; meanwhile `during` looks at how much of the body has been generated.
    async fn upload_while(
        &self,
        client_speaks: Protocol,
        known: bool,
        path: &str,
        bytes: u64,
        during: impl AsyncFnOnce(&AtomicU64),
    ) {
        let made = Arc::new(AtomicU64::new(0));
        let body = Upload { left: bytes, made: Arc::clone(&made), known };
        let request = Request::post(path).body(body).expect("a request");
        let traffic = self.sidecar.lock().await.traffic;
        let sending = async {
            let (response, _connection) = send(traffic, client_speaks, request).await;
            let answer = response.into_body().collect().await.expect("an answer");
            assert_eq!(answer.to_bytes(), bytes.to_string(), "what the app has had");
        };
        tokio::join!(sending, during(&made));
    }

    async fn upload(&self, client_speaks: Protocol, known: bool, path: &str, bytes: u64) {
        let watching = async |made: &AtomicU64| {
            while made.load(Ordering::Relaxed) < bytes {
                self.look().await;
                tokio::task::yield_now().await;
            }
        };
        self.upload_while(client_speaks, known, path, bytes, watching).await;
    }

    /// Waits until a figure has stopped growing, and returns it.
    async fn standstill(&self, mut figure: impl AsyncFnMut() -> u64) -> u64 {
        let (mut last, mut same) = (u64::MAX, 0);
        eventually("nothing to move", async || {
            self.look().await;
            let now = figure().await;
            same = if now == last { same + 1 } else { 0 };
            last = now;
            if same == LOOKS { Ok(now) } else { Err(now.to_string()) }
        })
        .await
    }

    /// Returns the bytes of the body in progress that the app has generated or taken.
    async fn progress(&self) -> u64 {
        let request = Request::get("/progress").body(Empty::<Bytes>::new()).expect("a request");
        let (response, _connection) = send(self.app_address, Protocol::Http1, request).await;
        let text = response.into_body().collect().await.expect("an answer").to_bytes();
        std::str::from_utf8(&text).expect("text").parse().expect("a number")
    }

    /// Prints the memory that the transfer took, and fails if it is above the bound.
    fn check(&self, what: &str, started: Instant, bytes: u64) {
        let grown = self.peak.swap(0, Ordering::Relaxed).saturating_sub(self.before);
        let rate = (bytes / MIB) as f64 / started.elapsed().as_secs_f64();
        println!(
            "{what}: {} MiB at {rate:.0} MiB/s, {} MiB resident before, {:.1} MiB more at most",
            bytes / MIB,
            self.before / MIB,
            grown as f64 / MIB as f64
        );
        assert!(grown <= MAY_GROW, "{what}: {grown} bytes more");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn large_bodies_take_no_memory() {
    for app_speaks in [Protocol::Http1, Protocol::H2c] {
        let (_app, stage) = Stage::set(app_speaks).await;
        for client_speaks in [Protocol::Http1, Protocol::H2c] {
            for framing in ["length", "none"] {
                let what = format!("app {app_speaks}, client {client_speaks}, {framing}");
                let started = Instant::now();
                stage.download(client_speaks, framing, size()).await;
                stage.check(&format!("down, {what}"), started, size());
                let started = Instant::now();
                stage.upload(client_speaks, framing == "length", "/discard", size()).await;
                stage.check(&format!("up, {what}"), started, size());
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn peer_that_reads_nothing_stops_the_writer() {
    let (mut app, stage) = Stage::set(Protocol::Http1).await;
    let limit = may_be_under_way();
    let size = size().max(2 * limit);
    for client_speaks in [Protocol::Http1, Protocol::H2c] {
        let started = Instant::now();
        let (mut body, _connection) = stage.begin_download(client_speaks, "none", size).await;
        let mut read = 0;
        stage.read(&mut body, &mut read, MIB).await;
        let made = stage.standstill(async || stage.progress().await).await;
        assert!(made - read < limit, "{made} bytes made and {read} read");
        println!("a client that does not read: {} MiB under way", (made - read) / MIB);
        stage.read(&mut body, &mut read, size).await;
        stage.check(&format!("a slow client, {client_speaks}"), started, size);

        let started = Instant::now();
        let watching = async |made: &AtomicU64| {
            let made = stage.standstill(async || made.load(Ordering::Relaxed)).await;
            assert!(made < limit, "{made} bytes made and none read");
            println!("an app that does not read: {} MiB under way", made / MIB);
            app.say("now it reads");
        };
        stage.upload_while(client_speaks, true, "/dawdle", size, watching).await;
        stage.check(&format!("a slow app, {client_speaks}"), started, size);
    }
}

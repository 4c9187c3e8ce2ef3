//! Requests that stand still in front of real apps: Node, gunicorn and nginx serve other requests
//! meanwhile, and each costs the sidecar little memory. `tests/it/standing_still.rs` has every
//! protocol, and when a request that stands still is ended; `benches/peers stalls` has the memory of
//! the released binary.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::{Request, Version};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty, StreamBody};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use socket2::SockRef;
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::neighbour::{PATIENCE, Process, http_client, tool};
use crate::program::{APPS, Program};
use crate::sidecar_process::SidecarProcess;
use crate::wire::Protocol;

/// Requests that stand still before memory is measured, so that the sidecar has more connections than
/// large buffers; and requests that are measured.
const BEFORE: usize = 90;
const MORE: usize = 110;

/// Bytes of an answer that stands still.
const ENDLESS: u64 = 1 << 40;

/// Bytes of an answer to other clients, and of their uploads.
const LARGE: usize = 300_007;

/// TCP segments of a network. With the segments of loopback, the kernel would hold 2.6 MB for each connection
/// (`benches/peers stalls`).
const SEGMENT: u32 = 1_460;

/// Time within which other requests must be answered.
const PROMPT: Duration = Duration::from_secs(8);

type Upload = UnsyncBoxBody<Bytes, Infallible>;

/// A way to stand still.
#[derive(Clone, Copy, Debug)]
enum Stall {
    /// The client reads nothing of an answer without an end.
    Download,
    /// The client sends a body without an end, of which the app reads nothing.
    Upload,
    /// The client sends nothing of the body that its request has.
    Silence,
}

/// Requests that stand still for as long as this value lives.
struct Standing {
    sidecar: SocketAddr,
    speaks: Protocol,
    tasks: JoinSet<()>,
}

impl Standing {
    fn new(sidecar: SocketAddr, speaks: Protocol) -> Self {
        Self { sidecar, speaks, tasks: JoinSet::new() }
    }

    /// Adds requests, over HTTP/2 fifty on a connection.
    async fn add(&mut self, stall: Stall, count: usize, target: &str) {
        if self.speaks == Protocol::Http1 {
            for _ in 0..count {
                let io = TokioIo::new(connect(self.sidecar).await);
                let (mut sender, connection) = http1::handshake(io).await.expect("HTTP/1.1");
                self.tasks.spawn(async { drop(connection.await) });
                let mut request = stall.request(target);
                request.headers_mut().insert("host", "app.example".parse().expect("a value"));
                self.send(stall, async move { sender.send_request(request).await }).await;
            }
            return;
        }
        for first in (0..count).step_by(50) {
            let io = TokioIo::new(connect(self.sidecar).await);
            let (sender, connection) = http2::Builder::new(TokioExecutor::new())
                .initial_connection_window_size(1 << 26)
                .handshake(io)
                .await
                .expect("HTTP/2");
            self.tasks.spawn(async { drop(connection.await) });
            for _ in first..count.min(first + 50) {
                let mut sender = sender.clone();
                let mut request = stall.request(&format!("http://app.example{target}"));
                *request.version_mut() = Version::HTTP_2;
                self.send(stall, async move { sender.send_request(request).await }).await;
            }
        }
    }

    /// Sends a request, and keeps its answer if one comes.
    async fn send<F>(&mut self, stall: Stall, sending: F)
    where
        F: Future<Output = hyper::Result<http::Response<hyper::body::Incoming>>> + Send + 'static,
    {
        if matches!(stall, Stall::Download) {
            let answer = timeout(PATIENCE, sending).await.expect("a head in time");
            let answer = answer.expect("an answer");
            assert_eq!(answer.status(), 200);
            self.tasks.spawn(async move {
                let _answer = answer;
                std::future::pending::<()>().await;
            });
        } else {
            self.tasks.spawn(async move {
                let _answer = sending.await;
                std::future::pending::<()>().await;
            });
        }
    }
}

impl Stall {
    fn request(self, target: &str) -> Request<Upload> {
        let body = match self {
            Self::Download => Empty::new().boxed_unsync(),
            Self::Upload => {
                let piece = || Ok(Frame::data(Bytes::from_static(&[b'u'; 16_384])));
                StreamBody::new(stream::repeat_with(piece)).boxed_unsync()
            }
            Self::Silence => StreamBody::new(stream::pending::<Result<Frame<Bytes>, Infallible>>())
                .boxed_unsync(),
        };
        let request = match self {
            Self::Download => Request::get(target),
            Self::Upload | Self::Silence => Request::post(target),
        };
        request.header("x-forwarded-user", "ada").body(body).expect("a request")
    }
}

/// Opens a connection of a client at the far end of a network, with small buffers.
async fn connect(address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    SockRef::from(&socket).set_tcp_mss(SEGMENT).expect("an option");
    socket.set_recv_buffer_size(16 * 1024).expect("an option");
    socket.set_send_buffer_size(16 * 1024).expect("an option");
    socket.connect(address).await.expect("it listens")
}

/// Waits until the sidecar's memory no longer grows, and returns it in KiB.
async fn settled(sidecar: &mut SidecarProcess) -> u64 {
    let begun = Instant::now();
    let (mut most, mut grew) = (0, begun);
    while grew.elapsed() < Duration::from_millis(500) {
        assert!(begun.elapsed() < PATIENCE, "memory grows and grows");
        let now = sidecar.own_memory();
        if now > most + 32 {
            grew = Instant::now();
        }
        most = most.max(now);
        // The kernel sends no event when memory stops growing.
        sleep(Duration::from_millis(20)).await;
    }
    most
}

/// Makes requests stand still in front of Node, checks that other requests are served, and returns the memory
/// of a request that stands still in KiB.
async fn stand_before_node(stall: Stall, app_speaks: Protocol, client: Protocol) -> u64 {
    let protocol = app_speaks.to_string();
    let (_app, app) = Program::node("streams_app.js", &[&protocol]).listening().await;
    let settings = [("VELT_SIDECAR_APP__PROTOCOL", &*protocol)];
    let mut sidecar = SidecarProcess::start(app, &settings).await;
    let target = match stall {
        Stall::Download => format!("/produce?bytes={ENDLESS}&framing=none"),
        Stall::Upload => "/dawdle".to_owned(),
        Stall::Silence => "/discard".to_owned(),
    };
    let mut standing = Standing::new(sidecar.traffic, client);
    standing.add(stall, BEFORE, &target).await;
    let before = settled(&mut sidecar).await;
    standing.add(stall, MORE, &target).await;
    let after = settled(&mut sidecar).await;
    let each = after.saturating_sub(before) / MORE as u64;
    println!("{stall:?}, app {app_speaks}, client {client}: {each} KiB each, {before} KiB before");
    let large = format!("/produce?bytes={LARGE}&framing=length");
    others_are_served(sidecar.traffic, "/discard", &large).await;
    each
}

/// Uploads a large body, and asks for a large answer if there is a place for it.
async fn others_are_served(sidecar: SocketAddr, upload_to: &str, large: &str) {
    let client = http_client();
    let url = |path: &str| format!("http://{sidecar}{path}");
    let others = async {
        let taken = client.post(url(upload_to)).body(vec![b'x'; LARGE]).send().await;
        assert_eq!(taken.expect("an answer").status(), 200, "{upload_to}");
        let answer = client.get(url(large)).send().await.expect("an answer");
        assert_eq!(answer.status(), 200, "{large}");
        answer.bytes().await.expect("a whole body").len()
    };
    let bytes = timeout(PROMPT, others).await.expect("others are served at once");
    assert!(bytes == LARGE || large == "/", "{bytes} bytes");
}

/// Most memory of a request that stands still, in KiB. An upload over HTTP/2 fills its window of 32 KiB, and
/// one more frame of 16 KiB waits in the connection to the app. Streams cost less in the released binary
/// (`benches/peers`), whose futures are smaller.
fn most(stall: Stall, client: Protocol) -> u64 {
    match (stall, client) {
        (Stall::Upload, Protocol::H2c) => 96,
        _ => 64,
    }
}

async fn stand_before_each_node(stall: Stall) {
    let mut costly = Vec::new();
    for app_speaks in [Protocol::Http1, Protocol::H2c] {
        for client in [Protocol::Http1, Protocol::H2c] {
            let each = stand_before_node(stall, app_speaks, client).await;
            if each > most(stall, client) {
                costly.push(format!("app {app_speaks}, client {client}: {each} KiB each"));
            }
        }
    }
    assert!(costly.is_empty(), "{stall:?}: {costly:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn downloads_unread_from_node_cost_little() {
    stand_before_each_node(Stall::Download).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_unread_by_node_cost_little() {
    stand_before_each_node(Stall::Upload).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_uploads_to_node_cost_little() {
    stand_before_each_node(Stall::Silence).await;
}

/// Runs gunicorn with a thread for each request that stands still, and a few more.
#[tokio::test(flavor = "multi_thread")]
async fn silent_uploads_to_gunicorn_leave_others_served() {
    let command = |port: u16| {
        let mut gunicorn = Command::new(tool("gunicorn"));
        gunicorn.args(["--chdir", APPS, "--bind", &format!("127.0.0.1:{port}")]);
        gunicorn.args(["--worker-class", "gthread", "--threads", "40", "--log-level", "critical"]);
        gunicorn.arg("wsgi_app:application").env("PYTHONDONTWRITEBYTECODE", "1");
        gunicorn.stdin(Stdio::null()).stdout(Stdio::null());
        gunicorn
    };
    let (app, address) = Process::start_on_free_port(command, answers).await;
    let sidecar = SidecarProcess::start(address, &[]).await;
    for speaks in [Protocol::Http1, Protocol::H2c] {
        let mut standing = Standing::new(sidecar.traffic, speaks);
        standing.add(Stall::Silence, 31, "/").await;
        for _ in 0..20 {
            others_are_served(sidecar.traffic, "/", "/").await;
        }
    }
    // gunicorn ends its worker too.
    app.terminate();
}

#[tokio::test(flavor = "multi_thread")]
async fn downloads_unread_from_nginx_leave_others_served() {
    let folder = tempfile::tempdir().expect("a folder");
    let files = folder.path().join("files");
    std::fs::create_dir(&files).expect("a folder in it");
    std::fs::write(files.join("endless.txt"), vec![b'x'; 32 << 20]).expect("a file in it");
    std::fs::write(files.join("large.txt"), vec![b'x'; LARGE]).expect("a file in it");
    let config = std::fs::read_to_string(Path::new(APPS).join("files.conf")).expect("it is there");
    // Nothing is compressed, so that the length of an answer is known.
    let config = config.replace("gzip on;", "gzip off;");
    let command = |port: u16| {
        let config = config.replace("PORT", &port.to_string());
        std::fs::write(folder.path().join("nginx.conf"), config).expect("a file in the folder");
        let mut nginx = Command::new(tool("nginx"));
        nginx.arg("-p").arg(folder.path()).args(["-c", "nginx.conf", "-e", "error.log"]);
        nginx.stdin(Stdio::null());
        nginx
    };
    let (_app, address) = Process::start_on_free_port(command, answers).await;
    let sidecar = SidecarProcess::start(address, &[]).await;
    for speaks in [Protocol::Http1, Protocol::H2c] {
        let mut standing = Standing::new(sidecar.traffic, speaks);
        standing.add(Stall::Download, 57, "/endless.txt").await;
        let client = http_client();
        for _ in 0..20 {
            let asked = client.get(format!("http://{}/large.txt", sidecar.traffic)).send();
            let answer = timeout(PROMPT, asked).await.expect("at once").expect("an answer");
            assert_eq!(answer.bytes().await.expect("a whole body").len(), LARGE);
        }
    }
}

/// Fails if an app does not answer.
async fn answers(address: SocketAddr) -> Result<(), String> {
    let answer = http_client().get(format!("http://{address}/")).send().await;
    answer.map(drop).map_err(|error| error.to_string())
}

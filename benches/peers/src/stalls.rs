//! Memory that a proxy holds for requests that stand still: downloads that the client does not read, uploads
//! that the app does not read, and HTTP/2 streams whose windows the client opens byte by byte.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, StatusCode, Version};
use socket2::SockRef;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::{JoinSet, LocalSet};
use tokio::time::sleep;

use crate::load::BROWSER;
use crate::peer::{self, Peer, Running, Setting};
use crate::report::Report;
use crate::{Bench, Result, app, tokens};

/// Rows of the report, in the order of [`Kind::ALL`].
pub const ROWS: [&str; 3] =
    ["bytes per stalled download", "bytes per stalled upload", "bytes per stalled HTTP/2 stream"];

pub const DOWNLOAD: &[u8] = b"/stalls/download";
pub const UPLOAD: &[u8] = b"/stalls/upload";

/// Bytes in a body that stands still: more than the buffers of a proxy and of the kernel take.
pub const BODY: usize = 10_000_000;

/// The largest TCP segment of every connection here except on the proxy's own half. The kernel gives a
/// connection over loopback, with segments of 64 KiB, a send buffer of 2.6 MB: a thousand such connections
/// would reach the machine's limit. With the segments of a network, the kernel gives 87 KB.
pub const SEGMENT: u32 = 1_460;

/// Bytes of a client's receive and send buffer in the kernel, so that the buffers hold little of a body.
const SOCKET_BUFFER: u32 = 16 * 1024;

/// Requests that stand still at the same time. HAProxy is configured for 4,000 connections, and takes two
/// connections for each request; nginx has 15,000.
const STALLED: usize = 1_000;

/// Streams on one connection: as many as HAProxy allows by default. nginx is set to 128, and the sidecar
/// allows 200.
const STREAMS: usize = 100;

/// Time between two bytes by which the client opens a stream's window.
const DRIP: Duration = Duration::from_millis(400);

/// Time for which a proxy's memory is watched once all requests stand still, then the time at the end in
/// which the memory must not have grown.
const WATCH: Duration = Duration::from_secs(1);
const QUIET: Duration = Duration::from_millis(400);
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Clone, Copy)]
enum Kind {
    Download,
    Upload,
    Stream,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Download, Self::Upload, Self::Stream];
}

/// Returns the body of a download, and of an upload.
pub fn body() -> Bytes {
    static BYTES: [u8; BODY] = [b'x'; BODY];
    Bytes::from_static(&BYTES)
}

/// Makes the peer of this socket send segments no larger than the segments of a network.
pub fn as_on_a_network(socket: &impl AsFd) -> std::io::Result<()> {
    SockRef::from(socket).set_tcp_mss(SEGMENT)
}

pub fn measure(bench: &Bench, report: &mut Report) -> Result<()> {
    let setting = Setting { app: bench.backend.distant_app, ..bench.setting.clone() };
    for peer in [Peer::Sidecar, Peer::Nginx, Peer::Haproxy] {
        for (kind, row) in Kind::ALL.into_iter().zip(ROWS) {
            eprintln!("{}: {row}", peer.name());
            let one = Running::start(peer, &setting)?;
            let grown = growth(bench, &one, kind);
            bench.backend.end_stalls();
            let grown = grown.map_err(|problem| format!("{}: {row}: {problem}", peer.name()))?;
            report.put(row, peer, 0, grown / STALLED as f64);
        }
    }
    Ok(())
}

/// Returns the bytes by which the proxy's memory has grown at most while all requests stood still.
fn growth(bench: &Bench, one: &Running, kind: Kind) -> Result<f64> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        // Code that a proxy's first request loads into memory is not part of a request's cost.
        drop(Standing::begin(bench, one, kind, 1).await?);
        let before = one.tree.memory()?.proportional;
        let mut standing = Standing::begin(bench, one, kind, STALLED).await?;
        let most = standing.watch(one).await?;
        if !peer::ask(one.http1, "/api/small", None)?.is_ok() {
            return Err("another client is not served".into());
        }
        Ok(most - before)
    })
}

/// Requests that stand still for as long as this value lives.
#[derive(Default)]
struct Standing {
    downloads: Vec<TcpStream>,
    tasks: JoinSet<Result<()>>,
}

impl Standing {
    /// Starts `count` requests, and waits until the app has all of them and they stand still.
    async fn begin(bench: &Bench, one: &Running, kind: Kind, count: usize) -> Result<Self> {
        let app_had = bench.backend.stalled();
        let mut standing = Self::default();
        match kind {
            Kind::Download => standing.download(one.http1, count).await?,
            Kind::Upload => standing.upload(one.http1, count).await?,
            Kind::Stream => standing.stream(one.h2c, count).await?,
        }
        let deadline = Instant::now() + PATIENCE;
        while bench.backend.stalled() - app_had < count {
            standing.check()?;
            if Instant::now() > deadline {
                let there = bench.backend.stalled() - app_had;
                return Err(format!("{there} of {count} requests are at the app").into());
            }
            sleep(Duration::from_millis(5)).await;
        }
        Ok(standing)
    }

    /// Asks for bodies, and reads only the heads.
    async fn download(&mut self, address: SocketAddr, count: usize) -> Result<()> {
        for _ in 0..count {
            let mut stream = connect(address).await?;
            stream.write_all(request("GET", DOWNLOAD, "")?.as_bytes()).await?;
            self.downloads.push(stream);
        }
        for stream in &mut self.downloads {
            let mut head = Vec::with_capacity(1024);
            while app::head_end(&head).is_none() {
                if stream.read_buf(&mut head).await? == 0 {
                    return Err("a download ended before its head".into());
                }
            }
            if !head.starts_with(b"HTTP/1.1 200 ") {
                return Err("a download was refused".into());
            }
        }
        Ok(())
    }

    /// Sends bodies until the proxy takes no more.
    async fn upload(&mut self, address: SocketAddr, count: usize) -> Result<()> {
        for _ in 0..count {
            let mut stream = connect(address).await?;
            let length = format!("Content-Length: {BODY}\r\n");
            stream.write_all(request("POST", UPLOAD, &length)?.as_bytes()).await?;
            self.tasks.spawn_local(async move {
                stream.write_all(&body()).await?;
                Err("an upload was taken as a whole".into())
            });
        }
        Ok(())
    }

    /// Asks for bodies over HTTP/2, and takes a byte of each body now and then.
    async fn stream(&mut self, address: SocketAddr, count: usize) -> Result<()> {
        for _ in 0..count.div_ceil(STREAMS) {
            let (mut sender, connection) = h2::client::Builder::new()
                .initial_window_size(1)
                .initial_max_send_streams(STREAMS)
                .handshake::<_, Bytes>(connect(address).await?)
                .await?;
            self.tasks.spawn_local(async move {
                connection.await?;
                Err("an HTTP/2 connection ended".into())
            });
            for _ in 0..count.min(STREAMS) {
                sender = sender.ready().await?;
                let (answer, _) = sender.send_request(request_over_http2()?, true)?;
                self.tasks.spawn_local(async move {
                    let answer = answer.await?;
                    if answer.status() != StatusCode::OK {
                        return Err(format!("a stream was answered {}", answer.status()).into());
                    }
                    let mut body = answer.into_body();
                    while let Some(bytes) = body.data().await {
                        sleep(DRIP).await;
                        body.flow_control().release_capacity(bytes?.len())?;
                    }
                    Err("a stream ended".into())
                });
            }
            // Keeps the sender: dropping it would end the connection once its streams have ended.
            self.tasks.spawn_local(async move {
                let _sender = sender;
                std::future::pending().await
            });
        }
        Ok(())
    }

    /// Fails if a request has ended.
    fn check(&mut self) -> Result<()> {
        self.tasks.try_join_next().map_or(Ok(()), |ended| ended?)
    }

    /// Returns the most memory that the proxy has had since all requests stand still, in bytes.
    async fn watch(&mut self, one: &Running) -> Result<f64> {
        let begun = Instant::now();
        let (mut most, mut grew) = (0.0_f64, begun);
        while begun.elapsed() < WATCH || grew.elapsed() < QUIET {
            if begun.elapsed() > PATIENCE {
                return Err("the memory does not stop growing".into());
            }
            let now = one.tree.memory()?.proportional;
            if now > most * 1.005 {
                grew = Instant::now();
            }
            most = most.max(now);
            self.check()?;
            sleep(Duration::from_millis(20)).await;
        }
        Ok(most)
    }
}

/// Opens a connection of a client at the far end of a network, with small buffers.
async fn connect(address: SocketAddr) -> Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    as_on_a_network(&socket)?;
    socket.set_recv_buffer_size(SOCKET_BUFFER)?;
    socket.set_send_buffer_size(SOCKET_BUFFER)?;
    Ok(socket.connect(address).await?)
}

fn request(method: &str, path: &[u8], more: &str) -> Result<String> {
    let path = str::from_utf8(path)?;
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: app.example.com\r\n{more}");
    for (name, value) in BROWSER {
        write!(head, "{name}: {value}\r\n")?;
    }
    write!(head, "X-Forwarded-User: {}\r\n\r\n", tokens::user(0))?;
    Ok(head)
}

fn request_over_http2() -> Result<Request<()>> {
    let uri = format!("http://app.example.com{}", str::from_utf8(DOWNLOAD)?);
    let mut request =
        Request::get(uri).version(Version::HTTP_2).header("x-forwarded-user", tokens::user(0));
    for (name, value) in BROWSER {
        request = request.header(name, value);
    }
    Ok(request.body(())?)
}

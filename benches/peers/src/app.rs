//! The app behind every proxy, and the API that mints, on a thread of their own.
//!
//! Reads and writes only the forms of HTTP that the proxies use, at little cost: the app shares its core with
//! the load, and the CPU time that it saves lets the load send more requests.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Notify;
use tokio::time::sleep;

use crate::{stalls, tokens};

/// Bytes in the answer of `/api/small`.
pub const SMALL: usize = 1024;

/// Bytes in the answer of `/api/large`.
pub const LARGE: usize = 100 * 1024;

/// Key of RFC 6455, section 1.3, which every handshake here uses, and the answer to the key.
pub const WEBSOCKET_KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const WEBSOCKET_ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// Bytes of a message to be echoed; below 126, so that its length is one byte.
pub const MESSAGE: usize = 100;

/// Time between two events.
const EVENT_INTERVAL: Duration = Duration::from_millis(20);

/// A running app and token API.
pub struct Backend {
    pub app: SocketAddr,
    /// Address of the app at which the kernel treats it as one at the far end of a network: see
    /// [`stalls::SEGMENT`].
    pub distant_app: SocketAddr,
    pub api: SocketAddr,
    state: Arc<State>,
}

struct State {
    mints: AtomicUsize,
    mint_millis: AtomicU64,
    /// Requests with which the app has stood still since the start.
    stalled: AtomicUsize,
    /// Notified when the app must drop all requests with which it stands still.
    stalls_over: Notify,
    epoch: Instant,
    small: Vec<u8>,
    large: Vec<u8>,
}

impl Backend {
    /// Binds the app and the API, and serves both from now on.
    pub fn start(epoch: Instant) -> io::Result<Self> {
        let state = Arc::new(State {
            mints: AtomicUsize::new(0),
            mint_millis: AtomicU64::new(0),
            stalled: AtomicUsize::new(0),
            stalls_over: Notify::new(),
            epoch,
            small: page(SMALL),
            large: page(LARGE),
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (app, distant_app, api) = runtime.block_on(async {
            let (app, distant_app) = (listen()?, listen()?);
            stalls::as_on_a_network(&distant_app)?;
            Ok::<_, io::Error>((app, distant_app, listen()?))
        })?;
        let backend = Self {
            app: app.local_addr()?,
            distant_app: distant_app.local_addr()?,
            api: api.local_addr()?,
            state: Arc::clone(&state),
        };
        std::thread::Builder::new().name("app".to_owned()).spawn(move || {
            runtime.spawn(accept(api, Arc::clone(&state)));
            runtime.spawn(accept(distant_app, Arc::clone(&state)));
            runtime.block_on(accept(app, state));
        })?;
        Ok(backend)
    }

    /// Returns the number of mints so far.
    pub fn mints(&self) -> usize {
        self.state.mints.load(Ordering::Relaxed)
    }

    /// Returns the number of requests with which the app has stood still so far.
    pub fn stalled(&self) -> usize {
        self.state.stalled.load(Ordering::Relaxed)
    }

    /// Ends every request with which the app stands still.
    pub fn end_stalls(&self) {
        self.state.stalls_over.notify_waiters();
    }

    /// Sets how long every mint takes from now on.
    pub fn set_mint_time(&self, time: Duration) {
        let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        self.state.mint_millis.store(millis, Ordering::Relaxed);
    }
}

/// Makes a listener on a free port, whose queue has room for a thousand connections at once.
fn listen() -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    socket.listen(4096)
}

/// Makes an answer with a forged token, which must not reach the page.
fn page(bytes: usize) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {bytes}\r\n\
         Server: app\r\nVary: Accept-Encoding\r\nX-Request-Id: 4f1c2d7ab9e04c55\r\n\
         X-Velt-Token: forged\r\nCache-Control: no-cache\r\n\r\n"
    );
    let mut answer = head.into_bytes();
    answer.resize(answer.len() + bytes, b'x');
    answer
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    loop {
        // Accepting fails if, for example, no file descriptor is left; the waiting requests make the
        // measurement fail.
        let Ok((stream, _)) = listener.accept().await else { continue };
        let _ = stream.set_nodelay(true);
        let state = Arc::clone(&state);
        // An error only ends this connection, since the proxy has closed it.
        tokio::spawn(async move { drop(state.serve(stream).await) });
    }
}

impl State {
    async fn serve(&self, mut stream: TcpStream) -> io::Result<()> {
        let mut buffer = Vec::with_capacity(16 * 1024);
        loop {
            let Some(head) = read_head(&mut stream, &mut buffer).await? else { return Ok(()) };
            let closes = header(&buffer[..head], "connection")
                .is_some_and(|value| value.eq_ignore_ascii_case(b"close"));
            let path = buffer.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
            match path {
                b"/api/large" => stream.write_all(&self.large).await?,
                b"/events" => return self.stream_events(stream).await,
                b"/socket" => return echo(stream).await,
                stalls::DOWNLOAD | stalls::UPLOAD => return self.stall(stream, &buffer).await,
                b"/" => {
                    let length = content_length(&buffer[..head]);
                    while buffer.len() < head + length {
                        read_some(&mut stream, &mut buffer).await?;
                    }
                    let answer = self.mint(&buffer[head..head + length]).await;
                    stream.write_all(answer.as_bytes()).await?;
                    buffer.drain(..length);
                }
                _ => stream.write_all(&self.small).await?,
            }
            if closes {
                return Ok(());
            }
            buffer.drain(..head);
        }
    }

    async fn mint(&self, body: &[u8]) -> String {
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        let Some(user) = body["data"]["userId"].as_str() else {
            return "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n".to_owned();
        };
        self.mints.fetch_add(1, Ordering::Relaxed);
        let millis = self.mint_millis.load(Ordering::Relaxed);
        if millis > 0 {
            sleep(Duration::from_millis(millis)).await;
        }
        let token = tokens::token_of(user);
        let body = format!(r#"{{"result":{{"status":"success","data":{{"token":"{token}"}}}}}}"#);
        format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    }

    /// Sends a body that is too large for any buffer, or reads nothing of the request's body.
    async fn stall(&self, mut stream: TcpStream, request: &[u8]) -> io::Result<()> {
        let over = self.stalls_over.notified();
        self.stalled.fetch_add(1, Ordering::Relaxed);
        let sending = async {
            if request.starts_with(b"POST ") {
                return std::future::pending().await;
            }
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", stalls::BODY);
            stream.write_all(head.as_bytes()).await?;
            stream.write_all(&stalls::body()).await
        };
        tokio::select! {
            sent = sending => sent,
            () = over => Ok(()),
        }
    }

    /// Sends events that carry the time at which each event was sent.
    async fn stream_events(&self, mut stream: TcpStream) -> io::Result<()> {
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\
                    Cache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n";
        stream.write_all(head.as_bytes()).await?;
        loop {
            sleep(EVENT_INTERVAL).await;
            let event = format!("data: {:018}\n\n", self.epoch.elapsed().as_nanos());
            stream.write_all(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes()).await?;
        }
    }
}

async fn echo(mut stream: TcpStream) -> io::Result<()> {
    let head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {WEBSOCKET_ACCEPT}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    // The load's mask is zero, so that the payload needs no unmasking: opcode, length, mask, payload.
    let mut message = [0; 6 + MESSAGE];
    loop {
        stream.read_exact(&mut message).await?;
        message[4] = message[0];
        message[5] = message[1] & 0x7f;
        stream.write_all(&message[4..]).await?;
    }
}

/// Reads until a head is complete, and returns its length; `None` at the end of the connection.
async fn read_head(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> io::Result<Option<usize>> {
    loop {
        if let Some(end) = head_end(buffer) {
            return Ok(Some(end));
        }
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
}

async fn read_some(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> io::Result<()> {
    match stream.read_buf(buffer).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

/// Returns the length of the head at the start of the bytes, its empty line included.
pub fn head_end(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|start| start + 4)
}

/// Returns the value of a header in a head of HTTP/1.1, by its name in any case.
pub fn header<'a>(head: &'a [u8], name: &str) -> Option<&'a [u8]> {
    head.split(|byte| *byte == b'\n').find_map(|line| {
        let (found, value) = line.split_at_checked(name.len())?;
        let value = value.strip_prefix(b":")?;
        found.eq_ignore_ascii_case(name.as_bytes()).then(|| value.trim_ascii())
    })
}

fn content_length(head: &[u8]) -> usize {
    let value = header(head, "content-length").and_then(|value| str::from_utf8(value).ok());
    value.and_then(|value| value.parse().ok()).unwrap_or(0)
}

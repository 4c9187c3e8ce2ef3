//! Load as fast as a proxy takes it, over HTTP/1.1 and WebSocket. Every answer is checked.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::{LocalSet, spawn_local};
use tokio::time::sleep;

use crate::app::{self, MESSAGE, WEBSOCKET_KEY};
use crate::multiplexed;
use crate::tokens::Users;
use crate::{Result, events};

/// Requests under way at a time, regardless of the number of open connections.
pub const AT_A_TIME: usize = 64;

/// Kind of request that a load repeats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Job {
    /// The app's answer of 1 KiB, with the user's token in a header.
    Header,
    /// The token route.
    Route,
    /// The answer of `Header`, over HTTP/2 without TLS: 8 connections of 8 streams.
    H2c,
    /// The answer of `Header`, with a body of 100 KiB.
    Large,
    /// Messages of 100 bytes that the app echoes.
    WebSocket,
    /// An event every 20 ms on each of 8 streams.
    Events,
}

impl Job {
    pub fn path(self) -> &'static str {
        match self {
            Self::Header | Self::H2c => "/api/small",
            Self::Route => "/api/velt/token",
            Self::Large => "/api/large",
            Self::WebSocket => "/socket",
            Self::Events => "/events",
        }
    }
}

/// Requests to send, and the users for whom they are sent.
#[derive(Clone)]
pub struct Load {
    pub address: SocketAddr,
    pub job: Job,
    pub connections: usize,
    pub users: Users,
    /// Whether every answer must carry the user's token.
    pub with_token: bool,
    /// Bytes of request headers beyond a browser's headers.
    pub padding: usize,
    /// Time from which events count.
    pub epoch: Instant,
}

/// Result of a window.
pub struct Seen {
    pub requests: f64,
    /// Latencies in microseconds, ascending.
    pub latencies: Vec<f64>,
}

/// State that all connections of a load share.
#[derive(Default)]
pub struct Progress {
    turn: Cell<usize>,
    requests: Cell<u64>,
    recording: Cell<bool>,
    stopped: Cell<bool>,
    latencies: RefCell<Vec<f64>>,
    failure: RefCell<Option<String>>,
}

impl Progress {
    /// Returns the number of the next request.
    pub fn next_turn(&self) -> usize {
        self.turn.replace(self.turn.get() + 1)
    }

    pub fn is_over(&self) -> bool {
        self.stopped.get() || self.failure.borrow().is_some()
    }

    pub fn record(&self, latency: Duration) {
        self.requests.set(self.requests.get() + 1);
        if self.recording.get() {
            self.latencies.borrow_mut().push(latency.as_secs_f64() * 1e6);
        }
    }

    pub fn fail(&self, problem: String) {
        // An error that comes of cutting connections at the end is not the proxy's fault.
        if !self.stopped.get() {
            self.failure.borrow_mut().get_or_insert(problem);
        }
    }
}

impl Load {
    /// Runs for `warm_up`, then for `window`, and calls `at_edge` at the two ends of `window`.
    pub fn run(
        self,
        warm_up: Duration,
        window: Duration,
        mut at_edge: impl FnMut() -> Result<()>,
    ) -> Result<Seen> {
        let progress = Rc::new(Progress::default());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let shared = Rc::clone(&progress);
        let requests = LocalSet::new().block_on(&runtime, async move {
            self.open(&shared).await?;
            sleep(warm_up).await;
            at_edge()?;
            shared.recording.set(true);
            let before = shared.requests.get();
            let end = Instant::now() + window;
            while Instant::now() < end && !shared.is_over() {
                sleep(Duration::from_millis(10).min(end - Instant::now())).await;
            }
            let requests = shared.requests.get() - before;
            shared.recording.set(false);
            at_edge()?;
            shared.stopped.set(true);
            Ok::<_, Box<dyn std::error::Error>>(requests)
        })?;
        if let Some(problem) = progress.failure.take() {
            return Err(problem.into());
        }
        let mut latencies = progress.latencies.take();
        latencies.sort_by(f64::total_cmp);
        Ok(Seen { requests: requests as f64, latencies })
    }

    /// Sends `count` requests over all connections, and then ends.
    pub fn run_through(self, count: usize) -> Result<()> {
        let progress = Rc::new(Progress::default());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let shared = Rc::clone(&progress);
        LocalSet::new().block_on(&runtime, async move {
            self.open(&shared).await?;
            while shared.requests.get() < count as u64 && !shared.is_over() {
                sleep(Duration::from_millis(1)).await;
            }
            shared.stopped.set(true);
            Ok::<_, Box<dyn std::error::Error>>(())
        })?;
        progress.failure.take().map_or(Ok(()), |problem| Err(problem.into()))
    }

    /// Opens as many WebSockets as there are connections, echoes one message on each, and calls `look` while
    /// all WebSockets are open and quiet.
    pub fn hold(&self, look: impl FnOnce() -> Result<f64>) -> Result<f64> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let mut connections = Vec::new();
            for turn in 0..self.connections {
                let mut connection = Connection::open(self).await?;
                connection.echo(turn).await?;
                connections.push(connection);
            }
            look()
        })
    }

    /// Opens every connection, and starts requests on all of them.
    async fn open(&self, progress: &Rc<Progress>) -> Result<()> {
        match self.job {
            Job::H2c => return multiplexed::open(self, progress).await,
            Job::Events => return events::open(self, progress).await,
            _ => {}
        }
        let takers = self.connections.min(AT_A_TIME);
        for taker in 0..takers {
            let mut connections = Vec::new();
            for _ in (taker..self.connections).step_by(takers) {
                connections.push(Connection::open(self).await?);
            }
            let (load, progress) = (self.clone(), Rc::clone(progress));
            spawn_local(async move {
                if let Err(problem) = load.keep_asking(connections, &progress).await {
                    progress.fail(problem.to_string());
                }
            });
        }
        Ok(())
    }

    async fn keep_asking(
        &self,
        mut connections: Vec<Connection>,
        progress: &Progress,
    ) -> Result<()> {
        let count = connections.len();
        for at in (0..count).cycle() {
            if progress.is_over() {
                break;
            }
            let connection = &mut connections[at];
            let turn = progress.next_turn();
            let started = Instant::now();
            if self.job == Job::WebSocket {
                connection.echo(turn).await?;
            } else {
                self.users.with(turn, |user, _| connection.write_request(user));
                connection.exchange(self.job).await?;
                self.users.with(turn, |user, token| connection.check(self, user, token))?;
            }
            progress.record(started.elapsed());
        }
        Ok(())
    }

    /// Returns a request up to the name of its user, as a browser sends it.
    pub fn request_start(&self) -> String {
        let mut lines = vec![format!("GET {} HTTP/1.1", self.job.path())];
        lines.push("Host: app.example.com".to_owned());
        lines.extend(BROWSER.iter().map(|(name, value)| format!("{name}: {value}")));
        let padding = "p".repeat(1024 - "X-Padding-0: \r\n".len());
        lines.extend((0..self.padding / 1024).map(|at| format!("X-Padding-{at}: {padding}")));
        lines.push("X-Forwarded-User: ".to_owned());
        lines.join("\r\n")
    }
}

/// Headers of a page's own request that has passed a login proxy.
pub const BROWSER: [(&str, &str); 11] = [
    ("User-Agent", "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0"),
    ("Accept", "application/json"),
    ("Accept-Language", "en-GB,en;q=0.8,de;q=0.5"),
    ("Accept-Encoding", "gzip, deflate, br, zstd"),
    ("Referer", "https://app.example.com/documents/4711"),
    ("Cookie", "_session=4f1c2d7ab9e04c55a3a1d2f0b6c8e9d1; theme=dark"),
    ("Sec-Fetch-Dest", "empty"),
    ("Sec-Fetch-Mode", "cors"),
    ("Sec-Fetch-Site", "same-origin"),
    ("X-Forwarded-For", "203.0.113.7"),
    ("X-Forwarded-Proto", "https"),
];

/// A kept-alive connection, with room for one request and one answer.
struct Connection {
    stream: TcpStream,
    start: Rc<str>,
    request: Vec<u8>,
    answer: Vec<u8>,
    head: usize,
}

impl Connection {
    async fn open(load: &Load) -> Result<Self> {
        let stream = TcpStream::connect(load.address).await?;
        stream.set_nodelay(true)?;
        let mut connection = Self {
            stream,
            start: load.request_start().into(),
            request: Vec::new(),
            answer: Vec::with_capacity(4096),
            head: 0,
        };
        if load.job == Job::WebSocket {
            connection.upgrade().await?;
        }
        Ok(connection)
    }

    fn write_request(&mut self, user: &str) {
        self.request.clear();
        self.request.extend_from_slice(self.start.as_bytes());
        self.request.extend_from_slice(user.as_bytes());
        self.request.extend_from_slice(b"\r\n\r\n");
    }

    /// Sends the request and reads the answer to its end.
    async fn exchange(&mut self, job: Job) -> Result<()> {
        self.stream.write_all(&self.request).await?;
        self.answer.clear();
        self.head = loop {
            self.read().await?;
            if let Some(end) = app::head_end(&self.answer) {
                break end;
            }
        };
        let length = app::header(&self.answer[..self.head], "content-length")
            .and_then(|value| str::from_utf8(value).ok()?.parse::<usize>().ok())
            .ok_or_else(|| format!("{}: an answer without Content-Length", job.path()))?;
        while self.answer.len() < self.head + length {
            self.read().await?;
        }
        Ok(())
    }

    async fn read(&mut self) -> Result<()> {
        if self.answer.len() > 4096 {
            self.answer.reserve(64 * 1024);
        }
        match self.stream.read_buf(&mut self.answer).await? {
            0 => Err("a connection was closed before its answer had ended".into()),
            _ => Ok(()),
        }
    }

    fn check(&self, load: &Load, user: &str, token: &str) -> Result<()> {
        let (head, body) = self.answer.split_at(self.head);
        if !head.starts_with(b"HTTP/1.1 200 ") {
            let line = String::from_utf8_lossy(&head[..head.len().min(40)]).into_owned();
            return Err(format!("{}: answered {line:?}", load.job.path()).into());
        }
        let is_right = match load.job {
            Job::Route => body.get(10..10 + token.len()) == Some(token.as_bytes()),
            Job::Large => body.len() == app::LARGE,
            _ => body.len() == app::SMALL,
        };
        let has_token = load.job == Job::Route
            || !load.with_token
            || app::header(head, "x-velt-token") == Some(token.as_bytes());
        if !is_right || !has_token {
            return Err(format!("{}: not {user}'s answer", load.job.path()).into());
        }
        Ok(())
    }

    async fn upgrade(&mut self) -> Result<()> {
        let user = "user-0000000@example.com";
        let request = format!(
            "{}{user}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {WEBSOCKET_KEY}\r\n\r\n",
            self.start
        );
        self.stream.write_all(request.as_bytes()).await?;
        while app::head_end(&self.answer).is_none() {
            self.read().await?;
        }
        if !self.answer.starts_with(b"HTTP/1.1 101 ") {
            return Err("a WebSocket was refused".into());
        }
        Ok(())
    }

    /// Sends a message and checks its echo, in frames of RFC 6455, section 5.2.
    async fn echo(&mut self, turn: usize) -> Result<()> {
        let text = format!("{turn:0MESSAGE$}");
        self.request.clear();
        // Binary and complete; masked with zeros, so that the app need not unmask.
        self.request.extend_from_slice(&[0x82, 0x80 | u8::try_from(MESSAGE)?, 0, 0, 0, 0]);
        self.request.extend_from_slice(text.as_bytes());
        self.stream.write_all(&self.request).await?;
        let mut frame = [0; 2 + MESSAGE];
        self.stream.read_exact(&mut frame).await?;
        if frame[..2] != [0x82, u8::try_from(MESSAGE)?] || frame[2..] != *text.as_bytes() {
            return Err("a message came back as another".into());
        }
        Ok(())
    }
}

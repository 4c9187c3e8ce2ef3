//! Instructions that a request costs in the sidecar's own code. A busy machine does not change this figure,
//! so a review can compare it.
//!
//! The real binary runs under `valgrind --tool=callgrind`, one worker, in front of an app in this process and
//! of the sidecar's own emulator in the place of Velt. Each job is asked for in rounds of eight requests, one
//! on each connection, and a round begins when the previous round has been answered. The count of a run
//! without the job's requests is subtracted, so that neither the start nor the mints are in the figure. The
//! kernel's part of a request is not in it either.
//!
//! `benches/README.md` says how to run this and what the numbers mean.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::future::ready;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::try_join_all;
use http::{Request, Response, StatusCode, Version};
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};

use self::support::websocket::{self, WebSocket};
use self::support::{BROWSER, Result, Running, free_addresses};

/// Connections of the load, or streams of its one HTTP/2 connection.
const CONNECTIONS: usize = 8;

/// Users who send requests in turn.
const USERS: usize = 100;

/// Rounds of a job. A round is a request on every connection.
const ROUNDS: usize = 250;

/// Bytes of the app's answer.
const BODY: usize = 1024;

/// Share by which a count may lie above its baseline: from run to run, the requests of a round reach the
/// sidecar in slightly different reads.
const TOLERANCE: f64 = 0.02;

/// Time limit of a round. valgrind makes programs some fifty times slower.
const PATIENCE: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    // `cargo test --all-targets` runs benches too, as a check that they build.
    if !std::env::args().any(|argument| argument == "--bench") {
        println!("instructions counts only when it is run by `cargo bench`");
        return ExitCode::SUCCESS;
    }
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("instructions: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<ExitCode> {
    let arguments = Arguments::parse(std::env::args().skip(1))?;
    let found = Command::new("valgrind").arg("--version").stdout(Stdio::null()).status();
    found.map_err(|error| format!("valgrind can't be run ({error}): apt-get install valgrind"))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let without = runtime.block_on(count(&arguments, None))?;
    let mut counts = BTreeMap::new();
    for job in Job::ALL {
        let with = runtime.block_on(count(&arguments, Some(job)))?;
        let each = with.saturating_sub(without) / (ROUNDS * CONNECTIONS) as u64;
        println!("{:10} {each:8}", job.name());
        counts.insert(job.name().to_owned(), each);
    }
    let baseline = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/instructions.json");
    match arguments.then {
        Then::Nothing => Ok(ExitCode::SUCCESS),
        Then::Record => {
            fs::write(&baseline, format!("{:#}\n", serde_json::to_value(&counts)?))?;
            Ok(ExitCode::SUCCESS)
        }
        Then::Check => check(&counts, &fs::read_to_string(&baseline)?),
    }
}

/// Compares the counts with the recorded baseline. Fails if a job costs more than the tolerance allows.
fn check(counts: &BTreeMap<String, u64>, baseline: &str) -> Result<ExitCode> {
    let baseline: BTreeMap<String, u64> = serde_json::from_str(baseline)?;
    let mut code = ExitCode::SUCCESS;
    for (job, count) in counts {
        let expected = baseline.get(job).ok_or(format!("the baseline has no {job}"))?;
        let change = *count as f64 / *expected as f64 - 1.0;
        println!("{job:10} {:+.1} % against the baseline", 100.0 * change);
        if change > TOLERANCE {
            println!(
                "{job} costs more than it did. Take it away, or, if it is worth it, say so in the \
                 commit and record the new count: cargo bench --bench instructions -- --record"
            );
            code = ExitCode::FAILURE;
        }
        if change < -TOLERANCE {
            println!("{job} costs less than it did: record the new count, so that it stays so");
        }
    }
    Ok(code)
}

struct Arguments {
    sidecar: PathBuf,
    /// Folder in which callgrind's files are kept, for `callgrind_annotate`.
    keep: Option<PathBuf>,
    then: Then,
}

/// Use of the counts.
enum Then {
    Nothing,
    /// The counts become the baseline.
    Record,
    /// The counts are compared with the baseline.
    Check,
}

impl Arguments {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self> {
        let sidecar = PathBuf::from(env!("CARGO_BIN_EXE_velt-sidecar"));
        let mut parsed = Self { sidecar, keep: None, then: Then::Nothing };
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
            match argument.as_str() {
                "--bench" => {}
                "--sidecar" => parsed.sidecar = value()?.into(),
                "--keep" => parsed.keep = Some(value()?.into()),
                "--record" => parsed.then = Then::Record,
                "--check" => parsed.then = Then::Check,
                _ => {
                    let usage = "--record, --check, --keep DIRECTORY, --sidecar FILE";
                    return Err(format!("{argument} is none of {usage}").into());
                }
            }
        }
        Ok(parsed)
    }
}

/// Kind of request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Job {
    /// The app's answer, without a signed-in user.
    Anonymous,
    /// The app's answer with a token from the cache.
    Hit,
    /// The app's answer with a token from the cache, over HTTP/2.
    HitHttp2,
    /// A token from the cache by the sidecar's own route.
    Route,
    /// A WebSocket's frame and the app's answer to it.
    Frame,
}

impl Job {
    const ALL: [Self; 5] = [Self::Anonymous, Self::Hit, Self::HitHttp2, Self::Route, Self::Frame];

    fn name(self) -> &'static str {
        match self {
            Self::Anonymous => "anonymous",
            Self::Hit => "hit",
            Self::HitHttp2 => "hit-http2",
            Self::Route => "route",
            Self::Frame => "frame",
        }
    }

    fn version(self) -> Version {
        if self == Self::HitHttp2 { Version::HTTP_2 } else { Version::HTTP_11 }
    }

    /// Makes a request as a browser behind a login proxy sends it.
    fn request(self, user: usize) -> Request<Empty<Bytes>> {
        let path = if self == Self::Route { "/api/velt/token" } else { "/api/small" };
        let mut request = if self.version() == Version::HTTP_2 {
            Request::get(format!("http://app.example.com{path}")).version(Version::HTTP_2)
        } else {
            Request::get(path).header("host", "app.example.com")
        };
        for (name, value) in BROWSER {
            request = request.header(name, value);
        }
        if self != Self::Anonymous {
            request = request.header("x-forwarded-user", format!("user-{user}@example.com"));
        }
        request.body(Empty::new()).expect("a request")
    }

    /// Whether `answer` is the answer to this job, so that no other answer is counted for it.
    fn is_answered_by(self, answer: &Response<Bytes>) -> bool {
        let has_token = answer.headers().contains_key("x-velt-token");
        answer.status() == StatusCode::OK
            && match self {
                Self::Anonymous => !has_token && answer.body().len() == BODY,
                Self::Hit | Self::HitHttp2 => has_token && answer.body().len() == BODY,
                Self::Route => answer.body().starts_with(b"{\"token\":\""),
                // `Sender::ask` checks a frame where it is read.
                Self::Frame => false,
            }
    }
}

/// Counts the instructions of one run of the sidecar: its start, for each job as many rounds as ask for every
/// user once, the further rounds of `job`, and its end.
async fn count(arguments: &Arguments, job: Option<Job>) -> Result<u64> {
    let directory = TempDir::with_prefix("velt-sidecar-instructions-")?;
    let app = TcpListener::bind("127.0.0.1:0").await?;
    let app_address = app.local_addr()?;
    let serving = tokio::spawn(serve_app(app));
    let [emulator_address, sidecar_address] = free_addresses()?;
    let mut emulator = Running::emulator(Command::new(&arguments.sidecar), emulator_address)?;
    let config = directory.path().join("sidecar.toml");
    // The first request of a user waits for a mint, which takes long under valgrind on a busy machine.
    fs::write(
        &config,
        format!(
            "listen.address = \"{sidecar_address}\"\n\
             admin.address = \"127.0.0.1:0\"\n\
             app.address = \"{app_address}\"\n\
             log.level = \"warn\"\n\
             velt.endpoint = \"http://{emulator_address}/\"\n\
             velt.api_key = \"bench\"\n\
             delivery.header.max_wait = \"20s\"\n"
        ),
    )?;
    let file = match &arguments.keep {
        Some(keep) => {
            fs::create_dir_all(keep)?;
            keep.join(format!("{}.callgrind", job.map_or("none", Job::name)))
        }
        None => directory.path().join("callgrind"),
    };
    let mut sidecar = Command::new("valgrind");
    sidecar
        .args(["--tool=callgrind", "--quiet"])
        .arg(format!("--callgrind-out-file={}", file.display()))
        .arg(&arguments.sidecar)
        .arg("--config")
        .arg(&config)
        .env("VELT_AUTH_TOKEN", "bench")
        .env("VELT_SIDECAR_RUNTIME__WORKERS", "1");
    let mut sidecar = Running::spawn("the sidecar", &mut sidecar)?;
    emulator.wait_for(emulator_address, PATIENCE)?;
    sidecar.wait_for(sidecar_address, PATIENCE)?;

    for kind in Job::ALL {
        let mut load = Load::open(sidecar_address, kind).await?;
        let rounds = if Some(kind) == job { ROUNDS } else { 0 };
        // Enough rounds to ask for all users, so that all tokens are in the cache.
        for round in 0..USERS.div_ceil(CONNECTIONS) + rounds {
            load.round(round).await?;
        }
    }
    // Runs beside this thread, on which the app must notice that its WebSockets have ended.
    tokio::task::spawn_blocking(|| sidecar.end()).await??;
    serving.abort();
    let dump = fs::read_to_string(&file)?;
    let total = dump.lines().find_map(|line| line.strip_prefix("totals: "));
    Ok(total.ok_or("callgrind wrote no totals")?.trim().parse()?)
}

/// Connections of a job.
struct Load {
    job: Job,
    senders: Vec<Sender>,
}

enum Sender {
    Http1(http1::SendRequest<Empty<Bytes>>),
    Http2(http2::SendRequest<Empty<Bytes>>),
    WebSocket(WebSocket),
}

impl Sender {
    /// Sends a request as `user`, and checks the answer.
    async fn ask(&mut self, job: Job, user: usize) -> Result<()> {
        let answer = match self {
            Self::Http1(sender) => {
                sender.ready().await?;
                sender.send_request(job.request(user)).await?
            }
            Self::Http2(sender) => sender.send_request(job.request(user)).await?,
            Self::WebSocket(socket) => return socket.exchange().await,
        };
        let (head, body) = answer.into_parts();
        let answer = Response::from_parts(head, body.collect().await?.to_bytes());
        if job.is_answered_by(&answer) {
            return Ok(());
        }
        Err(format!("{}: a wrong answer: {}", job.name(), answer.status()).into())
    }
}

impl Load {
    async fn open(address: SocketAddr, job: Job) -> Result<Self> {
        let mut senders = Vec::new();
        if job == Job::Frame {
            for _ in 0..CONNECTIONS {
                senders.push(Sender::WebSocket(WebSocket::open(address).await?));
            }
        } else if job.version() == Version::HTTP_2 {
            let io = TokioIo::new(TcpStream::connect(address).await?);
            let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
            tokio::spawn(connection);
            senders.extend((0..CONNECTIONS).map(|_| Sender::Http2(sender.clone())));
        } else {
            for _ in 0..CONNECTIONS {
                let io = TokioIo::new(TcpStream::connect(address).await?);
                let (sender, connection) = http1::handshake(io).await?;
                tokio::spawn(connection);
                senders.push(Sender::Http1(sender));
            }
        }
        Ok(Self { job, senders })
    }

    async fn round(&mut self, round: usize) -> Result<()> {
        let job = self.job;
        let asking = self.senders.iter_mut().enumerate().map(|(index, sender)| {
            let user = (round * CONNECTIONS + index) % USERS;
            sender.ask(job, user)
        });
        let answered: Result<Vec<()>> =
            tokio::time::timeout(PATIENCE, try_join_all(asking)).await?;
        answered.map(drop)
    }
}

async fn serve_app(listener: TcpListener) {
    let body = Bytes::from(vec![b'x'; BODY]);
    while let Ok((stream, _)) = listener.accept().await {
        let body = body.clone();
        let service = service_fn(move |mut request: Request<Incoming>| {
            if request.uri().path() == websocket::PATH {
                return ready(Ok(websocket::switch(&mut request)));
            }
            let answer = Response::builder()
                .header("content-type", "application/json")
                .header("server", "app")
                .header("vary", "Accept-Encoding")
                .header("x-request-id", "4f1c2d7ab9e04c55")
                .header("cache-control", "no-cache")
                .body(Full::new(body.clone()));
            ready(answer)
        });
        let serving = hyper::server::conn::http1::Builder::new();
        tokio::spawn(serving.serve_connection(TokioIo::new(stream), service).with_upgrades());
    }
}

//! Training run for the released binary: a day of an app's life in half a minute.
//!
//! The sidecar runs as two processes, one in plain text before an app that speaks HTTP/1.1, and one with TLS
//! before an app that speaks HTTP/2. Each process is asked over both versions for the things that a browser
//! asks for: small answers and large answers, streams, uploads, tokens by the route, a WebSocket. Some
//! requests come from users whose tokens have to be minted first, some from anonymous clients. Every answer
//! is checked.
//!
//! Nothing is measured: `deploy/optimized` runs this bench with a binary that counts its branches.

mod support;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::try_join_all;
use futures_util::stream;
use http::{Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use reqwest::{Certificate, Client};
use tempfile::TempDir;
use tokio::net::TcpListener;

use self::support::websocket::{self, WebSocket};
use self::support::{BROWSER, Result, Running, free_addresses};

/// Requests under way at a time.
const CONCURRENCY: usize = 16;

/// Rounds of a job, unless `--rounds` says otherwise.
const ROUNDS: usize = 60;

/// More users than a round has requests, so that some requests start a mint and most do not.
const USERS: usize = 200;

/// Factor by which the most frequent request of an app is sent more often than the others.
const USUAL: usize = 5;

const SMALL: usize = 1024;
const LARGE: usize = 100 * 1024;

/// Frames sent on a WebSocket; the app answers each frame.
const FRAMES: usize = 500;

const PATIENCE: Duration = Duration::from_secs(30);

type AppBody = BoxBody<Bytes, std::convert::Infallible>;

fn main() -> ExitCode {
    // `cargo test --all-targets` runs benches too, as a check that they build.
    if !std::env::args().any(|argument| argument == "--bench") {
        println!("training runs only by `cargo bench`");
        return ExitCode::SUCCESS;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let trained = runtime.map_err(Into::into).and_then(|runtime| runtime.block_on(train()));
    match trained {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("training: {error}");
            ExitCode::FAILURE
        }
    }
}

struct Arguments {
    sidecar: PathBuf,
    rounds: usize,
}

impl Arguments {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self> {
        let sidecar = PathBuf::from(env!("CARGO_BIN_EXE_velt-sidecar"));
        let mut parsed = Self { sidecar, rounds: ROUNDS };
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
            match argument.as_str() {
                "--bench" => {}
                "--sidecar" => parsed.sidecar = value()?.into(),
                "--rounds" => parsed.rounds = value()?.parse()?,
                _ => {
                    let usage = "--sidecar FILE, --rounds N";
                    return Err(format!("{argument} is none of {usage}").into());
                }
            }
        }
        Ok(parsed)
    }
}

async fn train() -> Result<()> {
    let Arguments { sidecar, rounds } = Arguments::parse(std::env::args().skip(1))?;
    // Another crate may have installed the same provider already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let stage = Stage::set(&sidecar).await?;
    let (plain, encrypted) =
        (format!("http://{}", stage.plain), format!("https://{}", stage.encrypted));
    let trusting = || Client::builder().tls_certs_only([stage.root.clone()]);
    for (client, base) in [
        (Client::builder().http1_only(), &plain),
        (Client::builder().http2_prior_knowledge(), &plain),
        (trusting().http1_only(), &encrypted),
        (trusting(), &encrypted),
    ] {
        ask_all(&client.no_proxy().timeout(PATIENCE).build()?, base, rounds).await?;
    }
    try_join_all((0..CONCURRENCY).map(|_| live(stage.plain))).await?;
    // Runs beside this thread, on which the apps must notice that their clients close the connections.
    tokio::task::spawn_blocking(|| stage.sidecars.into_iter().try_for_each(Running::end)).await?
}

/// Two sidecars, their apps, and an emulator in the place of Velt.
struct Stage {
    plain: SocketAddr,
    encrypted: SocketAddr,
    /// Certificate that vouches for the second sidecar.
    root: Certificate,
    sidecars: [Running; 2],
    _emulator: Running,
    _directory: TempDir,
}

impl Stage {
    async fn set(binary: &Path) -> Result<Self> {
        let directory = TempDir::with_prefix("velt-sidecar-training-")?;
        let [velt, plain, encrypted] = free_addresses()?;
        let mut emulator = Running::emulator(Command::new(binary), velt)?;
        emulator.wait_for(velt, PATIENCE)?;

        let start = |name, address: SocketAddr, rest: &str| -> Result<Running> {
            let config = directory.path().join(format!("{name}.toml"));
            let text = format!(
                "listen.address = \"{address}\"\nadmin.address = \"127.0.0.1:0\"\n\
                 log.level = \"error\"\nshutdown.grace = \"0s\"\nvelt.api_key = \"training\"\n\
                 velt.endpoint = \"http://{velt}/\"\n{rest}"
            );
            fs::write(&config, text)?;
            let mut command = Command::new(binary);
            command.arg("--config").arg(&config).env("VELT_AUTH_TOKEN", "training");
            let mut sidecar = Running::spawn(name, &mut command)?;
            sidecar.wait_for(address, PATIENCE)?;
            Ok(sidecar)
        };
        let over_http1 = format!("app.address = \"{}\"\n", serve_app(false).await?);
        let (tls, root) = certify(directory.path())?;
        let app = serve_app(true).await?;
        let over_http2 = format!("app.address = \"{app}\"\napp.protocol = \"h2c\"\n{tls}");
        let sidecars =
            [start("plain", plain, &over_http1)?, start("encrypted", encrypted, &over_http2)?];
        Ok(Self { plain, encrypted, root, sidecars, _emulator: emulator, _directory: directory })
    }
}

/// Makes a self-signed certificate for the loopback address. Returns the settings to listen with it, and the
/// certificate to trust.
fn certify(directory: &Path) -> Result<(String, Certificate)> {
    let issued = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()])?;
    let (certificate, key) = (directory.join("tls.crt"), directory.join("tls.key"));
    fs::write(&certificate, issued.cert.pem())?;
    fs::write(&key, issued.signing_key.serialize_pem())?;
    let (certificate, key) = (certificate.display(), key.display());
    let tls = format!(
        "listen.tls.certificate_file = \"{certificate}\"\nlisten.tls.key_file = \"{key}\"\n"
    );
    Ok((tls, Certificate::from_pem(issued.cert.pem().as_bytes())?))
}

/// Sends all kinds of requests to the sidecar at `base`.
async fn ask_all(client: &Client, base: &str, rounds: usize) -> Result<()> {
    for path in ["/api/small", "/api/stream", "/api/large", "/api/upload", "/api/velt/token"] {
        let often = if path == "/api/small" { USUAL } else { 1 };
        for round in 0..rounds * often {
            let asking = (0..CONCURRENCY).map(|index| {
                let nth = round * CONCURRENCY + index;
                // One request of five has no user, except on the route that answers only users.
                let user =
                    (!nth.is_multiple_of(5) || path == "/api/velt/token").then_some(nth % USERS);
                ask(client, base, path, user)
            });
            try_join_all(asking).await?;
        }
    }
    Ok(())
}

/// Sends a request as a browser behind a login proxy does, and checks the answer.
async fn ask(client: &Client, base: &str, path: &str, user: Option<usize>) -> Result<()> {
    let url = format!("{base}{path}");
    let mut request = if path == "/api/upload" {
        client.post(&url).body(vec![b'x'; LARGE])
    } else {
        client.get(&url)
    };
    for (name, value) in BROWSER {
        request = request.header(name, value);
    }
    if let Some(user) = user {
        request = request.header("x-forwarded-user", format!("user-{user:07}@example.com"));
    }
    let answer = request.send().await?;
    let (status, token) = (answer.status(), answer.headers().contains_key("x-velt-token"));
    let body = answer.bytes().await?;
    let whole = match path {
        "/api/velt/token" => body.starts_with(b"{\"token\":\""),
        "/api/large" => body.len() == LARGE,
        "/api/stream" => body.len() == 8 * SMALL,
        _ => body.len() == SMALL,
    };
    let is_injected = user.is_some() && path != "/api/velt/token";
    if status == StatusCode::OK && whole && token == is_injected {
        return Ok(());
    }
    Err(format!("{url}: a wrong answer: {status}, {} bytes", body.len()).into())
}

/// Opens a WebSocket, exchanges frames, and closes it.
async fn live(address: SocketAddr) -> Result<()> {
    let mut socket = WebSocket::open(address).await?;
    for _ in 0..FRAMES {
        socket.exchange().await?;
    }
    Ok(())
}

/// Serves an app until the end, over HTTP/1.1 or over HTTP/2.
async fn serve_app(http2: bool) -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (io, service) = (TokioIo::new(stream), service_fn(answer));
            if http2 {
                let serving = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                tokio::spawn(serving.serve_connection(io, service));
            } else {
                let serving = hyper::server::conn::http1::Builder::new();
                tokio::spawn(serving.serve_connection(io, service).with_upgrades());
            }
        }
    });
    Ok(address)
}

async fn answer(mut request: Request<Incoming>) -> hyper::Result<Response<AppBody>> {
    let full = |bytes: usize| Full::new(Bytes::from(vec![b'x'; bytes])).boxed();
    let body = match request.uri().path() {
        websocket::PATH => return Ok(websocket::switch(&mut request).map(Full::boxed)),
        "/api/large" => full(LARGE),
        "/api/stream" => {
            let frame = |_| Ok(Frame::data(Bytes::from_static(&[b'x'; SMALL])));
            StreamBody::new(stream::iter((0..8).map(frame))).boxed()
        }
        _ => {
            request.body_mut().collect().await?;
            full(SMALL)
        }
    };
    let answer = Response::builder()
        .header("content-type", "application/json")
        .header("server", "app")
        .header("vary", "Accept-Encoding")
        .header("x-request-id", "4f1c2d7ab9e04c55")
        .header("cache-control", "no-cache")
        .body(body);
    Ok(answer.expect("headers of constants"))
}

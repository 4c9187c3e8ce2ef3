//! Floods against the sidecar as a process. The sidecar's memory stays bounded, other clients are served
//! meanwhile, the attackers are disconnected, and the right counter rises.
//!
//! The test prints a line per flood (`cargo test --test real floods -- --nocapture`). With
//! `VELT_SIDECAR_LONG=1` each flood lasts twenty seconds and comes from four times as many connections.

mod descriptors;
mod http1;
mod http2;
mod memory;

use std::convert::Infallible;
use std::env;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use ground::metrics::ListenerMetrics;
use hop::listener::{self, Listener, Phase, raise_descriptor_limit};
use http::{Request, Response};
use http_body::Frame;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Incoming;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::runtime::Builder;
use tokio::sync::{Mutex, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, sleep, timeout};

use crate::neighbour::{LOOPBACK, PATIENCE, eventually, http_client};
use crate::record::record;
use crate::sidecar_process::SidecarProcess;

/// Time between two readings of the sidecar's memory.
const GLANCE: Duration = Duration::from_millis(10);

/// Limits short enough to be reached within a flood.
const SHORT: &[(&str, &str)] = &[
    ("VELT_SIDECAR_LISTEN__IDLE_TIMEOUT", "1s"),
    ("VELT_SIDECAR_LISTEN__HEADER_TIMEOUT", "500ms"),
    ("VELT_SIDECAR_LISTEN__WRITE_TIMEOUT", "500ms"),
    // The app shares the machine with the attackers, so its speed must not matter.
    ("VELT_SIDECAR_APP__CONNECT_TIMEOUT", "10s"),
];

/// Reaction of the sidecar to a flood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The sidecar disconnects the client, with this reason.
    Closed(&'static str),
    /// The sidecar ends or refuses the request; other tests check the form of the refusal.
    Refused,
    /// The sidecar goes on serving: the client is within its limits.
    Borne,
}

/// Behaviour of the attackers.
struct Flood {
    name: &'static str,
    connections: usize,
    /// Bytes that each attacker sends first.
    opening: Vec<u8>,
    /// Piece that is sent as the nth after the opening, without end. `None` sends no more bytes.
    step: Option<fn(u32) -> Vec<u8>>,
    /// Time between two pieces.
    pace: Duration,
    /// Whether the attackers read the answers.
    reads: bool,
    end: End,
    /// Bound on the growth of the sidecar's memory, in MiB.
    growth: f64,
}

impl Flood {
    fn new(name: &'static str, opening: Vec<u8>, step: fn(u32) -> Vec<u8>, end: End) -> Self {
        let step = Some(step);
        let (connections, pace) = (2, Duration::ZERO);
        Self { name, connections, opening, step, pace, reads: true, end, growth: 32.0 }
    }

    /// Whether an attacker notices that the sidecar has disconnected it.
    fn notices(&self) -> bool {
        self.reads || self.step.is_some()
    }

    /// Runs the flood and checks its effect; prints a line of the table.
    async fn play(mut self) {
        let long = env::var_os("VELT_SIDECAR_LONG").is_some();
        let lasts = if long { Duration::from_secs(20) } else { Duration::from_millis(250) };
        if long {
            self.connections *= 4;
            self.growth *= 4.0;
        }
        raise_descriptor_limit();
        let (_app, app) = serve_app().await;
        let mut sidecar = SidecarProcess::start(app, SHORT).await;
        let probe = Probe::start(sidecar.traffic).await;
        let (before, cpu) = (sidecar.memory(), sidecar.cpu_time());

        let name = self.name;
        let (connections, end, growth) = (self.connections, self.end, self.growth);
        let flood = Arc::new(self);
        let (stop, stopped) = watch::channel(false);
        let effect = Arc::new(Effect::default());
        let mut attackers = JoinSet::new();
        for _ in 0..connections {
            let (flood, effect) = (Arc::clone(&flood), Arc::clone(&effect));
            attackers.spawn(attack(flood, sidecar.traffic, effect, stopped.clone()));
        }
        let mut peak = watch_memory(&mut sidecar, lasts).await;
        // Waits until the sidecar has disconnected the first attacker, or, if attackers do not notice, all of
        // them.
        if let End::Closed(reason) = end {
            let series = format!("connections_closed_total{{reason=\"{reason}\"}}");
            let least = if flood.notices() { 1.0 } else { connections as f64 };
            sidecar.metric_is(&series, |count| count >= least).await;
        }
        if end != End::Borne && flood.notices() {
            let seen = || effect.disconnected.load(Ordering::Relaxed);
            eventually(name, async || if seen() > 0 { Ok(()) } else { Err(String::new()) }).await;
        }
        peak = peak.max(sidecar.memory());
        stop.send_replace(true);
        while let Some(attacker) = attackers.join_next().await {
            attacker.expect("no panic");
        }
        let (sent, disconnected) =
            (effect.sent.load(Ordering::Relaxed), effect.disconnected.load(Ordering::Relaxed));
        // Only the probe's connection is left.
        sidecar.metric_is("connections_open", |count| count <= 1.0).await;
        let served = match probe.end().await {
            Ok(served) => served,
            Err(error) => panic!("{name}: {error}\n{}", sidecar.metrics().await),
        };
        let memory = [before, peak, sidecar.memory()].map(|kib| kib as f64 / 1024.0);
        let [before, peak, after] = memory;
        let line = format!(
            "| {name} | {connections} | {:.1} | {disconnected} | {before:.1} | {peak:.1} | \
             {after:.1} | {:.2} | {served} |",
            sent as f64 / (1024.0 * 1024.0),
            sidecar.cpu_time().saturating_sub(cpu).as_secs_f64(),
        );
        println!("{line}");
        let figures = json!({
            "connections": connections,
            "seconds": lasts.as_secs_f64(),
            "sent_mib": tenth(sent as f64 / (1024.0 * 1024.0)),
            "disconnected": disconnected,
            "before_mib": tenth(before),
            "during_mib": tenth(peak),
            "after_mib": tenth(after),
            "bound_mib": growth,
            "requests": served.times.len(),
            "p99_ms": tenth(served.percentile(99)),
        });
        record("floods", name, &figures);
        assert!(peak - before < growth, "{name}: memory grew: {line}");
        assert!(sidecar.line_count() < 50, "{name}: the log is flooded too");
        match end {
            End::Borne => assert_eq!(disconnected, 0, "{line}"),
            End::Closed(_) | End::Refused => assert!(disconnected >= 1, "{line}"),
        }
    }
}

/// Returns the largest memory of the sidecar within `lasts`, in KiB.
async fn watch_memory(sidecar: &mut SidecarProcess, lasts: Duration) -> u64 {
    let (mut look, over) = (interval(GLANCE), Instant::now() + lasts);
    let mut peak = 0;
    while Instant::now() < over {
        look.tick().await;
        peak = peak.max(sidecar.memory());
    }
    peak
}

/// Effect of all attackers together.
#[derive(Default)]
struct Effect {
    /// Bytes sent.
    sent: AtomicU64,
    /// Number of times that an attacker was disconnected.
    disconnected: AtomicU64,
}

/// Floods from one connection after another until told to stop.
async fn attack(
    flood: Arc<Flood>,
    address: SocketAddr,
    effect: Arc<Effect>,
    mut stopped: watch::Receiver<bool>,
) {
    let Effect { sent, disconnected } = &*effect;
    while !*stopped.borrow() {
        let Ok(stream) = TcpStream::connect(address).await else { continue };
        let (mut reader, mut writer) = stream.into_split();
        let writing = async {
            writer.write_all(&flood.opening).await?;
            sent.fetch_add(flood.opening.len() as u64, Ordering::Relaxed);
            let Some(step) = flood.step else { return std::future::pending().await };
            for nth in 0.. {
                let piece = step(nth);
                writer.write_all(&piece).await?;
                sent.fetch_add(piece.len() as u64, Ordering::Relaxed);
                if flood.pace > Duration::ZERO {
                    // Some floods are slow on purpose.
                    sleep(flood.pace).await;
                }
            }
            std::io::Result::Ok(())
        };
        let mut buffer = vec![0; 64 * 1024];
        let reading = async {
            if !flood.reads {
                return std::future::pending().await;
            }
            while reader.read(&mut buffer).await.is_ok_and(|count| count > 0) {}
        };
        tokio::select! {
            _ = writing => { disconnected.fetch_add(1, Ordering::Relaxed); }
            () = reading => { disconnected.fetch_add(1, Ordering::Relaxed); }
            () = async { let _ = stopped.wait_for(|stopped| *stopped).await; } => {
                if !flood.notices() {
                    // Reads on to find out whether the sidecar has disconnected the attacker already.
                    let rest = async {
                        while reader.read(&mut buffer).await.is_ok_and(|count| count > 0) {}
                    };
                    let ended = timeout(PATIENCE, rest).await.is_ok();
                    disconnected.fetch_add(u64::from(ended), Ordering::Relaxed);
                }
            }
        }
    }
}

/// A well-behaved client, on a thread of its own so that the attackers do not slow it down.
struct Probe {
    stop: watch::Sender<bool>,
    served: oneshot::Receiver<Result<Served, String>>,
}

/// Times of the probe's requests, in ascending order.
struct Served {
    times: Vec<Duration>,
}

impl Served {
    /// Returns a percentile in milliseconds.
    fn percentile(&self, nth: usize) -> f64 {
        self.times[(self.times.len() - 1) * nth / 100].as_secs_f64() * 1e3
    }
}

/// Formats the last columns of the table.
impl fmt::Display for Served {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (p50, p99) = (self.percentile(50), self.percentile(99));
        write!(formatter, "{} | {p50:.1} | {p99:.1}", self.times.len())
    }
}

/// Rounds a figure for the record.
fn tenth(figure: f64) -> f64 {
    (figure * 10.0).round() / 10.0
}

impl Probe {
    /// Starts the client, and returns when the sidecar is warm.
    async fn start(address: SocketAddr) -> Self {
        let (stop, stopped) = watch::channel(false);
        let client = http_client();
        let get = async move || {
            let begun = Instant::now();
            // A new connection for each request, so that the sidecar closes none as idle when the machine is
            // busy.
            let sent = client.get(format!("http://{address}/")).header("connection", "close");
            let sent = sent.send().await;
            let answer = sent.map_err(|error| format!("another client: {error:?}"))?;
            let status = answer.status();
            let text = answer.text().await.map_err(|error| format!("another client: {error:?}"))?;
            if status != 200 || text != "hello" {
                return Err(format!("another client was answered {status}: {text}"));
            }
            Ok(begun.elapsed())
        };
        let (warm, warmed) = oneshot::channel();
        let (end, served) = oneshot::channel();
        on_a_thread(async move {
            let asking = async {
                for _ in 0..10 {
                    get().await?;
                }
                // An error means that the test has ended already.
                let _ = warm.send(());
                let mut times = Vec::new();
                while !*stopped.borrow() {
                    times.push(get().await?);
                    // As often as a person's browser asks, so that the probe is no flood itself.
                    sleep(Duration::from_millis(2)).await;
                }
                times.sort_unstable();
                Ok(Served { times })
            };
            let _ = end.send(asking.await);
        });
        warmed.await.expect("a sidecar that nobody floods");
        Self { stop, served }
    }

    /// Stops the client. Fails if one of its requests has failed.
    async fn end(self) -> Result<Served, String> {
        self.stop.send_replace(true);
        let ended = timeout(PATIENCE, self.served).await;
        ended.map_err(|_| "another client waits for an answer")?.expect("no panic")
    }
}

type AppBody = BoxBody<Bytes, Infallible>;

/// Starts an app with an answer for each kind of flood, on a thread of its own, so that the attackers do not
/// keep the app busy. The app ends when the returned sender is dropped.
async fn serve_app() -> (watch::Sender<Phase>, SocketAddr) {
    let (stop, stopping) = watch::channel(Phase::Serving);
    let (bound, address) = oneshot::channel();
    on_a_thread(async move {
        let settings = listener::Settings::at(LOOPBACK);
        let listener = Listener::bind(settings, ListenerMetrics::detached()).expect("a free port");
        bound.send(listener.address().expect("it is bound")).expect("the test waits for it");
        let mut stopped = stopping.clone();
        tokio::select! {
            () = listener.serve(|_: &_, _: &_, request| answer(request), stopping) => {}
            // The app's endless answers would not end by themselves.
            _ = stopped.changed() => {}
        }
    });
    (stop, address.await.expect("it is bound"))
}

fn on_a_thread(future: impl Future<Output = ()> + Send + 'static) {
    std::thread::spawn(|| {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(future);
    });
}

async fn answer(request: Request<Incoming>) -> Response<AppBody> {
    let body = match request.uri().path() {
        "/endless" => {
            let chunk = Bytes::from_static(&[b'x'; 16 * 1024]);
            let frames = stream::repeat_with(move || Ok(Frame::data(chunk.clone())));
            StreamBody::new(frames).boxed()
        }
        // Sends a head, and never the body.
        "/held" => StreamBody::new(stream::pending()).boxed(),
        // Reads nothing of the request's body, and sends no answer.
        "/unread" => {
            let unread = request.into_body();
            let never = async move {
                let _unread = unread;
                std::future::pending::<Result<Frame<Bytes>, Infallible>>().await
            };
            StreamBody::new(stream::once(never)).boxed()
        }
        "/large" => Full::new(Bytes::from_static(&[b'x'; 16 * 1024])).boxed(),
        "/sink" => {
            // Answers only after the whole request.
            let _ = request.into_body().collect().await;
            Full::new(Bytes::from_static(b"taken")).boxed()
        }
        _ => Full::new(Bytes::from_static(b"hello")).boxed(),
    };
    Response::new(body)
}

/// Locked while a flood is measured.
static TURN: Mutex<()> = Mutex::const_new(());

const COLUMNS: &str = "| flood | connections | MiB sent | disconnected | MiB before | at most | \
                       after | CPU s | others' requests | p50 ms | p99 ms |";

/// Plays the floods one after another, since each flood measures a process and the machine has few cores.
async fn play_all(floods: Vec<Flood>) {
    let _turn = TURN.lock().await;
    println!("{COLUMNS}");
    for flood in floods {
        flood.play().await;
    }
}

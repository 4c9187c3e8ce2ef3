//! What is measured in interleaved rounds: every job at every peer, in another order each time, the
//! peers of a job one right after another. A ratio is taken within a round, and what the machine does
//! from one minute to the next is not to be in it.

use std::hash::{BuildHasher as _, RandomState};
use std::net::SocketAddr;
use std::time::Instant;

use crate::load::{Job, Load, Seen};
use crate::peer::{Peer, Running};
use crate::report::Report;
use crate::tokens::Users;
use crate::{Bench, PROXY_CORE, Result, USERS, paced, process};

/// Of a core, that others may take before a window counts as disturbed.
const FOREIGN_SHARE: f64 = 0.05;

/// By how much the pace of the core may differ before and after.
const PACE_SHARE: f64 = 0.10;

/// Requests until node runs compiled code.
const COMPILING: usize = 10_000;

/// How often a disturbed window is measured again.
const REPEATS: usize = 2;

/// A job, and how it is put.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Saturated(Job),
    Paced,
}

impl Kind {
    const ALL: [Self; 7] = [
        Self::Saturated(Job::Header),
        Self::Saturated(Job::Route),
        Self::Saturated(Job::H2c),
        Self::Saturated(Job::Large),
        Self::Saturated(Job::WebSocket),
        Self::Paced,
        Self::Saturated(Job::Events),
    ];

    fn word(self) -> &'static str {
        match self {
            Self::Saturated(Job::Header) => "header",
            Self::Saturated(Job::Route) => "route",
            Self::Saturated(Job::H2c) => "h2c",
            Self::Saturated(Job::Large) => "large",
            Self::Saturated(Job::WebSocket) => "websocket",
            Self::Saturated(Job::Events) => "events",
            Self::Paced => "paced",
        }
    }

    fn suits(self, peer: Peer) -> bool {
        match self {
            Self::Saturated(Job::Route) => peer.has_tokens(),
            // Node's HTTP/2 server is another one, which Express does not run on.
            Self::Saturated(Job::H2c) => peer != Peer::Express && peer != Peer::Direct,
            Self::Saturated(Job::Events) | Self::Paced => true,
            Self::Saturated(_) => peer != Peer::Direct,
        }
    }
}

/// One look at one job of one peer.
pub struct Window {
    pub seen: Seen,
    pub seconds: f64,
    /// Of the proxy's processes, per request.
    pub cpu_micros: f64,
    /// How much of the proxy's core others had.
    pub foreign: f64,
    pub is_disturbed: bool,
}

/// What the two edges of a window have seen.
#[derive(Clone, Copy)]
struct Edge {
    at: Instant,
    cpu: f64,
    busy: f64,
    own: f64,
}

pub fn measure(bench: &Bench, report: &mut Report) -> Result<()> {
    let kinds: Vec<Kind> =
        Kind::ALL.into_iter().filter(|kind| bench.plan.wants(kind.word())).collect();
    if kinds.is_empty() {
        return Ok(());
    }
    let running = start_all(bench)?;
    let mut cases: Vec<(Kind, Option<&Running>)> = Vec::new();
    for kind in &kinds {
        for one in running.iter().map(Some).chain([None]) {
            if kind.suits(peer_of(one)) {
                cases.push((*kind, one));
            }
        }
    }
    let random = RandomState::new();
    for round in 0..bench.plan.rounds {
        eprintln!("round {} of {}", round + 1, bench.plan.rounds);
        cases.sort_by_cached_key(|(kind, one)| {
            let (job, peer) = (kind.word(), peer_of(*one).name());
            (random.hash_one((round, job)), random.hash_one((round, job, peer)))
        });
        for &(kind, one) in &cases {
            let peer = peer_of(one);
            let window = undisturbed(bench, report, || look(bench, kind, one))
                .map_err(|problem| format!("{}, {}: {problem}", peer.name(), kind.word()))?;
            note(report, kind, peer, round, &window);
        }
    }
    report.subtract_direct();
    Ok(())
}

/// `None` is the app itself.
fn peer_of(one: Option<&Running>) -> Peer {
    one.map_or(Peer::Direct, |one| one.peer)
}

fn start_all(bench: &Bench) -> Result<Vec<Running>> {
    let mut running = Vec::new();
    for peer in Peer::PROXIES {
        eprintln!("checking {}", peer.name());
        let one = Running::start(peer, &bench.setting)?;
        one.verify(50)?;
        // Every user's token is there before anything is measured.
        if peer.has_tokens() {
            warm(bench, &one, 0, USERS)?;
        }
        // node is slow until it has compiled what it runs most.
        if peer == Peer::Express {
            load(bench, Job::Header, one.http1, true).run_through(COMPILING)?;
            load(bench, Job::Route, one.http1, true).run_through(COMPILING)?;
        }
        running.push(one);
    }
    Ok(running)
}

/// Has every one of some users asked for, and his token looked at.
pub fn warm(bench: &Bench, one: &Running, first: usize, count: usize) -> Result<()> {
    let load = Load { users: Users::new(first, count), ..load(bench, Job::Route, one.http1, true) };
    load.run_through(count)
}

/// As everything but `scale` asks: 64 connections, and all users in turn.
pub fn load(bench: &Bench, job: Job, address: SocketAddr, with_token: bool) -> Load {
    Load {
        address,
        job,
        connections: 64,
        users: Users::new(0, USERS),
        with_token,
        padding: 0,
        epoch: bench.epoch,
    }
}

/// Measures again what was disturbed, as long as there is time, and says so in the report. Of windows
/// that all were, the least disturbed one counts.
pub fn undisturbed(
    bench: &Bench,
    report: &mut Report,
    mut look: impl FnMut() -> Result<Window>,
) -> Result<Window> {
    report.windows += 1;
    let mut window = look()?;
    for _ in 0..REPEATS {
        if !window.is_disturbed || bench.epoch.elapsed() > bench.plan.repeat_until {
            break;
        }
        report.repeated += 1;
        let again = look()?;
        if !again.is_disturbed || again.foreign < window.foreign {
            window = again;
        }
    }
    report.disturbed += usize::from(window.is_disturbed);
    Ok(window)
}

fn look(bench: &Bench, kind: Kind, one: Option<&Running>) -> Result<Window> {
    let plan = &bench.plan;
    let job = match kind {
        Kind::Saturated(job) => job,
        Kind::Paced => Job::Header,
    };
    let address = one.map_or(bench.setting.app, |one| match job {
        Job::H2c => one.h2c,
        _ => one.http1,
    });
    let with_token = one.is_some_and(|one| one.peer.has_tokens());
    let load = load(bench, job, address, with_token);
    match kind {
        Kind::Saturated(_) => {
            window(one, &[PROXY_CORE], |at_edge| load.run(plan.warm_up, plan.window, at_edge))
        }
        Kind::Paced => window(one, &[PROXY_CORE], |at_edge| {
            at_edge()?;
            let seen = paced::run(&load, USERS, plan.paced_window)?;
            at_edge()?;
            Ok(seen)
        }),
    }
}

/// Runs a load, and reads what the kernel counted between its two edges.
pub fn window(
    one: Option<&Running>,
    cores: &[usize],
    run: impl FnOnce(&mut dyn FnMut() -> Result<()>) -> Result<Seen>,
) -> Result<Window> {
    let pace_before = process::pace(PROXY_CORE)?;
    let mut edges = Vec::new();
    let seen = run(&mut || {
        edges.push(Edge {
            at: Instant::now(),
            cpu: one.map_or(Ok(0.0), |one| one.tree.cpu_micros())?,
            busy: process::busy_micros(cores)?,
            own: process::own_micros()?,
        });
        Ok(())
    })?;
    let pace_after = process::pace(PROXY_CORE)?;
    let [start, end] = edges[..] else { return Err("a window without two edges".into()) };
    let seconds = (end.at - start.at).as_secs_f64();
    let cpu = end.cpu - start.cpu;
    // Where the load shares the proxy's cores, it is no stranger.
    let ours = if cores.len() > 1 { cpu + end.own - start.own } else { cpu };
    let foreign = (end.busy - start.busy - ours) / (seconds * 1e6 * cores.len() as f64);
    let pace = pace_after.as_secs_f64() / pace_before.as_secs_f64();
    if seen.requests < 1.0 {
        return Err("nothing was answered".into());
    }
    Ok(Window {
        cpu_micros: cpu / seen.requests,
        seconds,
        foreign,
        is_disturbed: foreign > FOREIGN_SHARE || (pace - 1.0).abs() > PACE_SHARE,
        seen,
    })
}

/// The least value that so many parts of a thousand do not exceed.
pub fn quantile(ascending: &[f64], thousandths: usize) -> f64 {
    let at = (ascending.len() * thousandths).div_ceil(1_000).max(1) - 1;
    ascending.get(at).copied().unwrap_or(f64::NAN)
}

fn note(report: &mut Report, kind: Kind, peer: Peer, round: usize, window: &Window) {
    let rate = window.seen.requests / window.seconds;
    let latency = |thousandths| quantile(&window.seen.latencies, thousandths);
    let mut put = |row: &str, value| report.put(row, peer, round, value);
    match kind {
        Kind::Saturated(Job::Events) => {
            put("an event on its way, p50, us", latency(500));
            put("an event on its way, p99, us", latency(990));
        }
        Kind::Saturated(Job::Large) => {
            let gib = crate::app::LARGE as f64 / f64::from(1 << 30);
            put("100 KiB bodies: CPU s/GiB", window.cpu_micros / 1e6 / gib);
            put("100 KiB bodies: requests/s", rate);
        }
        Kind::Saturated(job) => {
            let name = match job {
                Job::Header => "header job",
                Job::Route => "route job",
                Job::H2c => "header job, h2c",
                _ => "WebSocket echo",
            };
            put(&format!("{name}: CPU us/request"), window.cpu_micros);
            put(&format!("{name}: requests/s"), rate);
        }
        Kind::Paced => {
            for (word, thousandths) in [("p50", 500), ("p90", 900), ("p99", 990), ("p99.9", 999)] {
                put(&format!("2,000 requests/s: added {word}, us"), latency(thousandths));
            }
            if peer != Peer::Direct {
                put("2,000 requests/s: CPU us/request", window.cpu_micros);
            }
        }
    }
}

//! Measurements in interleaved rounds: every job, in another order each time. In a round, the peers of a job
//! take turns of a fraction of a second each. The figure of a peer is the sum over all of its turns. A ratio
//! is taken within a round, so that the machine's changes from one second to the next are not in the ratio.

use std::hash::{BuildHasher as _, RandomState};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::load::{Job, Load, Seen};
use crate::peer::{Peer, Running};
use crate::report::Report;
use crate::tokens::Users;
use crate::{Bench, PROXY_CORE, Plan, Result, USERS, paced, process};

/// Share of a core that other processes may take before a round of a job counts as disturbed.
const FOREIGN_SHARE: f64 = 0.05;

/// Share by which the pace of the core may differ before and after a round.
const PACE_SHARE: f64 = 0.10;

/// Requests after which node runs compiled code.
const COMPILING: usize = 10_000;

/// Number of times that a disturbed round of a job is measured again.
const REPEATS: usize = 2;

/// A job, and the way in which its requests are sent.
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

    fn turns(self, plan: &Plan) -> Turns {
        if self == Self::Paced { plan.paced } else { plan.saturated }
    }

    fn suits(self, peer: Peer) -> bool {
        match self {
            Self::Saturated(Job::Route) => peer.has_tokens(),
            // Express does not run on node's HTTP/2 server, which is a separate one.
            Self::Saturated(Job::H2c) => peer != Peer::Express && peer != Peer::Direct,
            Self::Saturated(Job::Events) | Self::Paced => true,
            Self::Saturated(_) => peer != Peer::Direct,
        }
    }
}

/// Sum of a peer's turns.
#[derive(Default)]
pub struct Window {
    requests: f64,
    seconds: f64,
    /// Microseconds of the proxy's processes.
    cpu: f64,
    /// Latencies in microseconds, ascending.
    pub latencies: Vec<f64>,
}

impl Window {
    /// Returns microseconds of CPU time per request.
    pub fn cpu_micros(&self) -> f64 {
        self.cpu / self.requests
    }

    fn add(&mut self, turn: Self) {
        self.requests += turn.requests;
        self.seconds += turn.seconds;
        self.cpu += turn.cpu;
        self.latencies.extend(turn.latencies);
    }

    /// Returns requests per second.
    pub fn rate(&self) -> f64 {
        self.requests / self.seconds
    }
}

/// Result of one round of one job.
pub struct Round {
    /// Windows of the peers, in the order in which the peers were given.
    pub windows: Vec<Window>,
    /// Share of the proxies' cores that other processes had.
    foreign: f64,
    is_disturbed: bool,
}

/// Number and length of the turns of each peer.
#[derive(Clone, Copy)]
pub struct Turns {
    pub count: usize,
    /// Warm-up of each turn.
    pub warm_up: Duration,
    /// Measured time of each turn.
    pub window: Duration,
}

pub fn measure(bench: &Bench, report: &mut Report) -> Result<()> {
    let kinds: Vec<Kind> =
        Kind::ALL.into_iter().filter(|kind| bench.plan.wants(kind.word())).collect();
    if kinds.is_empty() {
        return Ok(());
    }
    let running = start_all(bench)?;
    let everybody: Vec<Option<&Running>> = running.iter().map(Some).chain([None]).collect();
    let random = RandomState::new();
    for round in 0..bench.plan.rounds {
        eprintln!("round {} of {}", round + 1, bench.plan.rounds);
        let mut kinds = kinds.clone();
        kinds.sort_by_cached_key(|kind| random.hash_one((round, kind)));
        for kind in kinds {
            let mut peers = everybody.clone();
            peers.retain(|one| kind.suits(peer_of(*one)));
            let turns = kind.turns(&bench.plan);
            let measured = undisturbed(bench, report, || {
                take_turns(&peers, &[PROXY_CORE], turns.count, |one, at_edge| {
                    look(bench, kind, one, turns, at_edge)
                })
            });
            let measured = measured.map_err(|problem| format!("{}: {problem}", kind.word()))?;
            for (one, window) in peers.into_iter().zip(&measured.windows) {
                note(report, kind, peer_of(one), round, window);
            }
        }
    }
    report.subtract_direct();
    Ok(())
}

/// Returns the kind of a peer. `None` is the app itself.
fn peer_of(one: Option<&Running>) -> Peer {
    one.map_or(Peer::Direct, |one| one.peer)
}

fn start_all(bench: &Bench) -> Result<Vec<Running>> {
    let mut running = Vec::new();
    for peer in Peer::PROXIES {
        eprintln!("checking {}", peer.name());
        let one = Running::start(peer, &bench.setting)?;
        one.verify(50)?;
        // Caches the tokens of all users before the first measurement.
        if peer.has_tokens() {
            warm(bench, &one, 0, USERS)?;
        }
        // node is slow until it has compiled its most frequent code.
        if peer == Peer::Express {
            load(bench, Job::Header, one.http1, true).run_through(COMPILING)?;
            load(bench, Job::Route, one.http1, true).run_through(COMPILING)?;
        }
        running.push(one);
    }
    Ok(running)
}

/// Asks for the token of each of some users, and checks every token.
pub fn warm(bench: &Bench, one: &Running, first: usize, count: usize) -> Result<()> {
    let load = Load { users: Users::new(first, count), ..load(bench, Job::Route, one.http1, true) };
    load.run_through(count)
}

/// Makes the load of all measurements but `scale`: 64 connections, and all users in turn.
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

/// Measures a disturbed round again, as long as there is time, and counts this in the report. If all repeats
/// are disturbed, returns the least disturbed round.
pub fn undisturbed(
    bench: &Bench,
    report: &mut Report,
    mut measure: impl FnMut() -> Result<Round>,
) -> Result<Round> {
    report.measured += 1;
    let mut round = measure()?;
    for _ in 0..REPEATS {
        if !round.is_disturbed || bench.epoch.elapsed() > bench.plan.repeat_until {
            break;
        }
        report.repeated += 1;
        let again = measure()?;
        if !again.is_disturbed || again.foreign < round.foreign {
            round = again;
        }
    }
    report.disturbed += usize::from(round.is_disturbed);
    Ok(round)
}

/// Calls `look` for each of some peers in turn, in another order each time, and reads the kernel's counters
/// before and after. `look` calls its argument at the two ends of its window.
pub fn take_turns(
    peers: &[Option<&Running>],
    cores: &[usize],
    turns: usize,
    mut look: impl FnMut(Option<&Running>, &mut dyn FnMut() -> Result<()>) -> Result<Seen>,
) -> Result<Round> {
    let random = RandomState::new();
    let mut windows: Vec<Window> = peers.iter().map(|_| Window::default()).collect();
    let pace_before = process::pace(PROXY_CORE)?;
    let before = Counted::now(peers, cores)?;
    for turn in 0..turns {
        let mut order: Vec<usize> = (0..peers.len()).collect();
        order.sort_by_cached_key(|at| random.hash_one((turn, at)));
        for at in order {
            let seen = turn_of(peers[at], &mut look);
            windows[at]
                .add(seen.map_err(|problem| format!("{}: {problem}", peer_of(peers[at]).name()))?);
        }
    }
    let foreign = before.foreign_share(&Counted::now(peers, cores)?, cores);
    let pace = process::pace(PROXY_CORE)?.as_secs_f64() / pace_before.as_secs_f64();
    for window in &mut windows {
        window.latencies.sort_by(f64::total_cmp);
    }
    let is_disturbed = foreign > FOREIGN_SHARE || (pace - 1.0).abs() > PACE_SHARE;
    Ok(Round { windows, foreign, is_disturbed })
}

fn turn_of(
    one: Option<&Running>,
    look: impl FnOnce(Option<&Running>, &mut dyn FnMut() -> Result<()>) -> Result<Seen>,
) -> Result<Window> {
    let mut edges = Vec::new();
    let Seen { requests, latencies } = look(one, &mut || {
        let cpu = one.map_or(Ok(0.0), |one| one.tree.cpu_micros())?;
        edges.push((Instant::now(), cpu));
        Ok(())
    })?;
    let [(start, before), (end, after)] = edges[..] else {
        return Err("a window without two edges".into());
    };
    if requests < 1.0 {
        return Err("nothing was answered".into());
    }
    let seconds = (end - start).as_secs_f64();
    Ok(Window { requests, seconds, cpu: after - before, latencies })
}

/// Counters of the kernel.
struct Counted {
    at: Instant,
    /// Microseconds in which the cores were busy.
    busy: f64,
    /// Part of `busy` that the measurement used.
    ours: f64,
}

impl Counted {
    fn now(peers: &[Option<&Running>], cores: &[usize]) -> Result<Self> {
        // If the load shares the proxies' cores, its time is not foreign.
        let mut ours = if cores.len() > 1 { process::own_micros()? } else { 0.0 };
        for one in peers.iter().flatten() {
            ours += one.tree.cpu_micros()?;
        }
        Ok(Self { at: Instant::now(), busy: process::busy_micros(cores)?, ours })
    }

    /// Returns the share of the cores that other processes have had since this reading.
    fn foreign_share(&self, later: &Self, cores: &[usize]) -> f64 {
        let foreign = later.busy - self.busy - (later.ours - self.ours);
        foreign / ((later.at - self.at).as_secs_f64() * 1e6 * cores.len() as f64)
    }
}

fn look(
    bench: &Bench,
    kind: Kind,
    one: Option<&Running>,
    turns: Turns,
    at_edge: &mut dyn FnMut() -> Result<()>,
) -> Result<Seen> {
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
        Kind::Saturated(_) => load.run(turns.warm_up, turns.window, at_edge),
        Kind::Paced => paced::run(&load, USERS, turns.warm_up, turns.window, at_edge),
    }
}

/// Returns the least value that so many thousandths of the values do not exceed.
pub fn quantile(ascending: &[f64], thousandths: usize) -> f64 {
    let at = (ascending.len() * thousandths).div_ceil(1_000).max(1) - 1;
    ascending.get(at).copied().unwrap_or(f64::NAN)
}

fn note(report: &mut Report, kind: Kind, peer: Peer, round: usize, window: &Window) {
    let latency = |thousandths| quantile(&window.latencies, thousandths);
    let mut put = |row: &str, value| report.put(row, peer, round, value);
    match kind {
        Kind::Saturated(Job::Events) => {
            put("an event on its way, p50, us", latency(500));
            put("an event on its way, p99, us", latency(990));
        }
        Kind::Saturated(Job::Large) => {
            let gib = crate::app::LARGE as f64 / f64::from(1 << 30);
            put("100 KiB bodies: CPU s/GiB", window.cpu_micros() / 1e6 / gib);
            put("100 KiB bodies: requests/s", window.rate());
        }
        Kind::Saturated(job) => {
            let name = match job {
                Job::Header => "header job",
                Job::Route => "route job",
                Job::H2c => "header job, h2c",
                _ => "WebSocket echo",
            };
            put(&format!("{name}: CPU us/request"), window.cpu_micros());
            put(&format!("{name}: requests/s"), window.rate());
        }
        Kind::Paced => {
            for (word, thousandths) in [("p50", 500), ("p90", 900), ("p99", 990), ("p99.9", 999)] {
                put(&format!("2,000 requests/s: added {word}, us"), latency(thousandths));
            }
            if peer != Peer::Direct {
                put("2,000 requests/s: CPU us/request", window.cpu_micros());
            }
        }
    }
}

//! Comparison of the sidecar with the proxies that a careful user would set up instead, on one machine.
//! `benches/peers/run` starts this program; `docs/performance.md` explains the measurements.

mod alone;
mod app;
mod burst;
mod events;
mod load;
mod multiplexed;
mod paced;
mod peer;
mod process;
mod report;
mod rounds;
mod scale;
mod stalls;
mod tokens;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::app::Backend;
use crate::peer::Setting;
use crate::report::Report;
use crate::rounds::Turns;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Core of the proxies, and core of the load, the app and the token API.
const PROXY_CORE: usize = 0;
const OTHER_CORE: usize = 1;

/// Users who are asked for in turn.
const USERS: usize = 1_000;

const USAGE: &str = "--short, --only header|route|h2c|large|websocket|paced|events|alone|stalls|burst|\
                     scale|workers (more than once), --rounds N, --sidecar FILE, --files DIRECTORY, --work DIRECTORY, \
                     --modules DIRECTORY";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("peers: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let plan = Plan::parse(std::env::args().skip(1))?;
    if std::thread::available_parallelism()?.get() < 2 {
        return Err("two cores are needed: one for the proxy, one for the rest".into());
    }
    process::pin(&[OTHER_CORE])?;
    let epoch = Instant::now();
    let backend = Backend::start(epoch)?;
    let setting = Setting {
        files: plan.files.clone(),
        work: plan.work.clone(),
        sidecar: plan.sidecar.clone(),
        modules: plan.modules.clone(),
        app: backend.app,
        api: backend.api,
        cores: vec![PROXY_CORE],
        workers: 1,
        capacity: 100_000,
        max_wait: "5s",
    };
    let bench = Bench { plan, setting, backend, epoch };
    let mut report = Report::default();
    if bench.plan.wants("alone") {
        alone::measure(&bench, &mut report)?;
    }
    if bench.plan.wants("stalls") {
        stalls::measure(&bench, &mut report)?;
    }
    if bench.plan.wants("burst") {
        burst::measure(&bench, &mut report)?;
    }
    rounds::measure(&bench, &mut report)?;
    if bench.plan.wants("scale") {
        scale::measure(&bench, &mut report)?;
    }
    if bench.plan.wants("workers") {
        scale::with_two_cores(&bench, &mut report)?;
    }
    print!("{}", report.text());
    eprintln!("done in {} s", epoch.elapsed().as_secs());
    Ok(())
}

/// Parts that all measurements share.
pub struct Bench {
    plan: Plan,
    setting: Setting,
    backend: Backend,
    epoch: Instant,
}

/// Measurements to make, and their lengths.
struct Plan {
    short: bool,
    only: Vec<String>,
    rounds: usize,
    /// Turns of the jobs that run as fast as a proxy takes them.
    saturated: Turns,
    /// Turns at a fixed rate: each connection is asked over 30 times a second.
    paced: Turns,
    /// Time since the start of the run until which a disturbed round is measured again.
    repeat_until: Duration,
    files: PathBuf,
    work: PathBuf,
    sidecar: PathBuf,
    modules: PathBuf,
}

impl Plan {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self> {
        let mut plan = Self {
            short: false,
            only: Vec::new(),
            rounds: 9,
            saturated: Turns {
                count: 6,
                warm_up: Duration::from_millis(50),
                window: Duration::from_millis(160),
            },
            paced: Turns {
                count: 3,
                warm_up: Duration::from_millis(150),
                window: Duration::from_millis(500),
            },
            repeat_until: Duration::from_mins(13),
            files: "benches/peers".into(),
            work: std::env::temp_dir(),
            sidecar: "target/release/velt-sidecar".into(),
            modules: "/usr/lib/nginx/modules".into(),
        };
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
            match argument.as_str() {
                "--short" => {
                    plan.short = true;
                    plan.rounds = 3;
                    plan.saturated.count = 4;
                    plan.paced.count = 2;
                    plan.repeat_until = Duration::from_secs(100);
                }
                "--only" => plan.only.push(value()?),
                "--rounds" => plan.rounds = value()?.parse::<usize>()?.max(1),
                "--files" => plan.files = value()?.into(),
                "--work" => plan.work = value()?.into(),
                "--sidecar" => plan.sidecar = value()?.into(),
                "--modules" => plan.modules = value()?.into(),
                _ => return Err(format!("{argument} is none of {USAGE}").into()),
            }
        }
        Ok(plan)
    }

    fn wants(&self, part: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == part)
    }
}

//! Growth of cost with connections, cached users, request headers and cores. Compares the sidecar with nginx
//! + Lua; no other proxy runs.

use std::time::Duration;

use crate::load::{AT_A_TIME, Job, Load};
use crate::peer::{Peer, Running, Setting};
use crate::report::Report;
use crate::rounds::Turns;
use crate::tokens::Users;
use crate::{Bench, OTHER_CORE, PROXY_CORE, Result, USERS, process, rounds};

const MANY_USERS: usize = 1_000_000;
const SHORT_MANY_USERS: usize = 50_000;

/// Warm-up in which every connection of the largest step is asked.
const MANY_WARM_UP: Duration = Duration::from_millis(300);

const PEERS: [Peer; 2] = [Peer::Sidecar, Peer::NginxLua];

/// A change to the header job over 64 connections of 1,000 users.
struct Step {
    name: String,
    connections: usize,
    users: usize,
    padding: usize,
    /// Cores of the proxy.
    cores: Vec<usize>,
}

impl Step {
    fn new(name: String) -> Self {
        Self { name, connections: 64, users: USERS, padding: 0, cores: vec![PROXY_CORE] }
    }
}

pub fn measure(bench: &Bench, report: &mut Report) -> Result<()> {
    let mut steps: Vec<Step> = [1, 64, 1_000, process::most_connections()]
        .into_iter()
        .map(|count| Step { connections: count, ..Step::new(format!("{count} connections")) })
        .collect();
    steps.push(Step { padding: 8 * 1024, ..Step::new("8 KiB of headers".to_owned()) });
    let running = start(bench, &bench.setting)?;
    for round in 0..bench.plan.rounds.min(3) {
        for step in &steps {
            look(bench, report, &running, step, round)?;
        }
    }
    drop(running);
    with_many_users(bench, report)
}

fn start(bench: &Bench, setting: &Setting) -> Result<Vec<Running>> {
    let mut running = Vec::new();
    for peer in PEERS {
        let one = Running::start(peer, setting)?;
        rounds::warm(bench, &one, 0, USERS)?;
        running.push(one);
    }
    Ok(running)
}

fn with_many_users(bench: &Bench, report: &mut Report) -> Result<()> {
    let users = if bench.plan.short { SHORT_MANY_USERS } else { MANY_USERS };
    let name = format!("{users} cached users");
    let setting = Setting { capacity: users + USERS, ..bench.setting.clone() };
    let mut running = Vec::new();
    for peer in PEERS {
        eprintln!("{}: {name}", peer.name());
        let one = Running::start(peer, &setting)?;
        rounds::warm(bench, &one, 0, USERS)?;
        let before = one.tree.memory()?.proportional;
        rounds::warm(bench, &one, USERS, users - USERS)?;
        let grown = one.tree.memory()?.proportional - before;
        let row = format!("{name}: bytes per user");
        report.put(&row, peer, 0, grown / (users - USERS) as f64);
        running.push(one);
    }
    let step = Step { users, ..Step::new(name) };
    for round in 0..bench.plan.rounds.min(3) {
        look(bench, report, &running, &step, round)?;
    }
    Ok(())
}

/// Measures both proxies with two workers on both cores, which they share with the load.
pub fn with_two_cores(bench: &Bench, report: &mut Report) -> Result<()> {
    let cores = [PROXY_CORE, OTHER_CORE];
    let setting = Setting { cores: cores.to_vec(), workers: 2, ..bench.setting.clone() };
    let running = start(bench, &setting)?;
    process::pin(&cores)?;
    let step = Step { cores: cores.to_vec(), ..Step::new("2 workers".to_owned()) };
    for round in 0..bench.plan.rounds {
        look(bench, report, &running, &step, round)?;
    }
    process::pin(&[OTHER_CORE])?;
    Ok(())
}

fn look(
    bench: &Bench,
    report: &mut Report,
    running: &[Running],
    step: &Step,
    round: usize,
) -> Result<()> {
    let peers: Vec<Option<&Running>> = running.iter().map(Some).collect();
    let mut turns = bench.plan.saturated;
    if step.connections > AT_A_TIME {
        // So many connections take longer to open than a turn lasts.
        let whole = turns.window * u32::try_from(turns.count)?;
        turns = Turns { count: 1, warm_up: MANY_WARM_UP, window: whole };
    }
    let measured = rounds::undisturbed(bench, report, || {
        rounds::take_turns(&peers, &step.cores, turns.count, |one, at_edge| {
            let address = one.map_or(bench.setting.app, |one| one.http1);
            let load = Load {
                connections: step.connections,
                users: Users::new(0, step.users),
                padding: step.padding,
                ..rounds::load(bench, Job::Header, address, true)
            };
            load.run(turns.warm_up, turns.window, at_edge)
        })
    });
    let measured = measured.map_err(|problem| format!("{}: {problem}", step.name))?;
    for (one, window) in running.iter().zip(&measured.windows) {
        let mut put = |what: &str, value| {
            report.put(&format!("{}: {what}", step.name), one.peer, round, value);
        };
        put("CPU us/request", window.cpu_micros());
        put("requests/s", window.rate());
        put("p99, us", rounds::quantile(&window.latencies, 990));
    }
    Ok(())
}

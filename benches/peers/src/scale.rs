//! How cost grows: with connections, cached users, request headers and cores. The sidecar and
//! nginx + Lua, each alone.

use std::collections::HashMap;

use crate::load::{Job, Load};
use crate::peer::{Peer, Running, Setting};
use crate::report::Report;
use crate::tokens::Users;
use crate::{Bench, OTHER_CORE, PROXY_CORE, Result, USERS, process, rounds};

const MANY_USERS: usize = 1_000_000;
const SHORT_MANY_USERS: usize = 50_000;

const PEERS: [Peer; 2] = [Peer::Sidecar, Peer::NginxLua];

/// One way to differ from the header job over 64 connections of 1,000 users.
struct Step {
    name: String,
    connections: usize,
    users: usize,
    padding: usize,
    /// Of the proxy.
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
    let running: HashMap<Peer, Running> = start(bench, &bench.setting)?;
    for round in 0..bench.plan.rounds.min(3) {
        for step in &steps {
            for peer in PEERS {
                look(bench, report, &running[&peer], step, round)?;
            }
        }
    }
    drop(running);
    with_many_users(bench, report)
}

fn start(bench: &Bench, setting: &Setting) -> Result<HashMap<Peer, Running>> {
    let mut running = HashMap::new();
    for peer in PEERS {
        let one = Running::start(peer, setting)?;
        rounds::warm(bench, &one, 0, USERS)?;
        running.insert(peer, one);
    }
    Ok(running)
}

fn with_many_users(bench: &Bench, report: &mut Report) -> Result<()> {
    let users = if bench.plan.short { SHORT_MANY_USERS } else { MANY_USERS };
    let name = format!("{users} cached users");
    let setting = Setting { capacity: users + USERS, ..bench.setting.clone() };
    let mut running = HashMap::new();
    for peer in PEERS {
        eprintln!("{}: {name}", peer.name());
        let one = Running::start(peer, &setting)?;
        rounds::warm(bench, &one, 0, USERS)?;
        let before = one.tree.memory()?.proportional;
        rounds::warm(bench, &one, USERS, users - USERS)?;
        let grown = one.tree.memory()?.proportional - before;
        let row = format!("{name}: bytes per user");
        report.put(&row, peer, 0, grown / (users - USERS) as f64);
        running.insert(peer, one);
    }
    let step = Step { users, ..Step::new(name) };
    for round in 0..bench.plan.rounds.min(3) {
        for peer in PEERS {
            look(bench, report, &running[&peer], &step, round)?;
        }
    }
    Ok(())
}

/// Both engines with two workers on both cores, which they share with the load.
pub fn with_two_cores(bench: &Bench, report: &mut Report) -> Result<()> {
    let cores = [PROXY_CORE, OTHER_CORE];
    let setting = Setting { cores: cores.to_vec(), workers: 2, ..bench.setting.clone() };
    let running = start(bench, &setting)?;
    process::pin(&cores)?;
    let step = Step { cores: cores.to_vec(), ..Step::new("2 workers".to_owned()) };
    for round in 0..bench.plan.rounds {
        for peer in PEERS {
            look(bench, report, &running[&peer], &step, round)?;
        }
    }
    process::pin(&[OTHER_CORE])?;
    Ok(())
}

fn look(
    bench: &Bench,
    report: &mut Report,
    one: &Running,
    step: &Step,
    round: usize,
) -> Result<()> {
    let plan = &bench.plan;
    let load = Load {
        connections: step.connections,
        users: Users::new(0, step.users),
        padding: step.padding,
        ..rounds::load(bench, Job::Header, one.http1, true)
    };
    let window = rounds::undisturbed(bench, report, || {
        let load = load.clone();
        rounds::window(Some(one), &step.cores, |at_edge| {
            load.run(plan.warm_up, plan.window, at_edge)
        })
    })
    .map_err(|problem| format!("{}, {}: {problem}", one.peer.name(), step.name))?;
    let mut put = |what: &str, value| {
        report.put(&format!("{}: {what}", step.name), one.peer, round, value);
    };
    put("CPU us/request", window.cpu_micros);
    put("requests/s", window.seen.requests / window.seconds);
    put("p99, us", rounds::quantile(&window.seen.latencies, 990));
    Ok(())
}

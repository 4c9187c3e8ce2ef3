//! Measurements of each peer while no other peer runs: start, memory, mints.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use crate::load::{Job, Load};
use crate::peer::{Peer, Running};
use crate::report::Report;
use crate::{Bench, Result, app, rounds, tokens};

/// Users with which a cache is filled to measure the memory of one user. Before, as many as [`WARM`] users
/// have opened every connection and grown every buffer.
const FILL: usize = 20_000;
const SHORT_FILL: usize = 5_000;
const WARM: usize = 2_000;

/// WebSockets that are open while a proxy's memory is read; the difference of the two readings is the
/// sockets' memory.
const FEW_SOCKETS: usize = 100;
const MANY_SOCKETS: usize = 1_000;

/// Requests at once.
const BURST: usize = 1_000;

/// Time of a mint while a burst waits for it: the time of a call across a country.
const MINT_TIME: Duration = Duration::from_millis(50);

/// Number of the first user of the bursts. No other measurement asks for the users from here on.
const COLD: usize = 5_000_000;

pub fn measure(bench: &Bench, report: &mut Report) -> Result<()> {
    let starts = if bench.plan.short { 3 } else { 10 };
    for peer in Peer::PROXIES {
        eprintln!("{} alone", peer.name());
        for round in 0..starts {
            let one = Running::start(peer, &bench.setting)?;
            let millis = one.started_in.as_secs_f64() * 1e3;
            report.put("start to first answer, ms", peer, round, millis);
            let memory = one.tree.memory()?;
            report.put("idle: resident, MiB", peer, round, memory.resident / MIB);
            report.put("idle: proportional, MiB", peer, round, memory.proportional / MIB);
        }
        let one = Running::start(peer, &bench.setting)?;
        report.put("bytes per quiet WebSocket", peer, 0, bytes_per_socket(bench, &one)?);
        if !peer.has_tokens() {
            continue;
        }
        let one = Running::start(peer, &bench.setting)?;
        let fill = if bench.plan.short { SHORT_FILL } else { FILL };
        report.put("bytes per cached user", peer, 0, bytes_per_user(bench, &one, fill)?);
        for (round, users) in [1, 100].into_iter().enumerate() {
            let mints = mints_of_a_burst(bench, &one, COLD + 1_000 * round, users)?;
            let row = format!("mints for {BURST} requests at once, cold users: {users}");
            report.put(&row, peer, 0, mints);
        }
    }
    Ok(())
}

const MIB: f64 = 1024.0 * 1024.0;

/// Returns the memory that a cached user adds to a running proxy, in bytes of its proportional share.
pub fn bytes_per_user(bench: &Bench, one: &Running, users: usize) -> Result<f64> {
    rounds::warm(bench, one, 0, WARM)?;
    let before = one.tree.memory()?.proportional;
    rounds::warm(bench, one, WARM, users)?;
    let after = one.tree.memory()?.proportional;
    Ok((after - before) / users as f64)
}

/// Returns the memory that a quiet WebSocket adds to a running proxy, in bytes of its proportional share.
fn bytes_per_socket(bench: &Bench, one: &Running) -> Result<f64> {
    let with = |connections| {
        let load = rounds::load(bench, Job::WebSocket, one.http1, false);
        Load { connections, ..load }.hold(|| Ok(one.tree.memory()?.proportional))
    };
    let (few, many) = (with(FEW_SOCKETS)?, with(MANY_SOCKETS)?);
    Ok((many - few) / (MANY_SOCKETS - FEW_SOCKETS) as f64)
}

/// Sends all requests before it reads any answer, and counts the mints of these requests.
fn mints_of_a_burst(bench: &Bench, one: &Running, first: usize, users: usize) -> Result<f64> {
    let mut connections = Vec::new();
    for _ in 0..BURST {
        let stream = TcpStream::connect(one.http1)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        connections.push(stream);
    }
    bench.backend.set_mint_time(MINT_TIME);
    let before = bench.backend.mints();
    for (number, stream) in connections.iter_mut().enumerate() {
        let user = tokens::user(first + number % users);
        let request = format!(
            "GET /api/velt/token HTTP/1.1\r\nHost: app.example.com\r\nConnection: close\r\n\
             X-Forwarded-User: {user}\r\n\r\n"
        );
        stream.write_all(request.as_bytes())?;
    }
    for (number, mut stream) in connections.into_iter().enumerate() {
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        let token = tokens::token_of(&tokens::user(first + number % users));
        let end = app::head_end(&answer).unwrap_or(0);
        if answer[end..] != *format!(r#"{{"token":"{token}"}}"#).as_bytes() {
            let text = String::from_utf8_lossy(&answer[..answer.len().min(80)]).into_owned();
            return Err(format!("{}: a wrong answer in a burst: {text:?}", one.peer.name()).into());
        }
    }
    bench.backend.set_mint_time(Duration::ZERO);
    Ok((bench.backend.mints() - before) as f64)
}

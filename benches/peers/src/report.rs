//! Tables of the results.

use std::collections::HashMap;
use std::fmt::Write as _;

use crate::peer::Peer;
use crate::{burst, stalls};

/// Results, by row, peer and round.
#[derive(Default)]
pub struct Report {
    rows: Vec<String>,
    values: HashMap<(String, Peer), Vec<(usize, f64)>>,
    /// Rounds of a job that are in the tables.
    pub measured: usize,
    /// Rounds that were measured and thrown away because other processes disturbed them.
    pub repeated: usize,
    /// Rounds in the tables that were disturbed at every repeat.
    pub disturbed: usize,
}

/// A bound for a result: `must` has to hold, `aim` is the goal.
struct Target {
    what: &'static str,
    row: &'static str,
    /// Peer of a ratio; `None` for a figure of the sidecar alone.
    peer: Option<Peer>,
    must: f64,
    aim: f64,
    more_is_better: bool,
}

const fn ratio(what: &'static str, row: &'static str, peer: Peer, must: f64, aim: f64) -> Target {
    Target { what, row, peer: Some(peer), must, aim, more_is_better: false }
}

const fn ours(what: &'static str, row: &'static str, must: f64, aim: f64) -> Target {
    Target { what, row, peer: None, must, aim, more_is_better: false }
}

const LUA: Peer = Peer::NginxLua;

const TARGETS: [Target; 20] = [
    ratio("header job, CPU", "header job: CPU us/request", LUA, 1.0, 0.85),
    ratio("route job, CPU", "route job: CPU us/request", LUA, 1.0, 0.85),
    ratio("HTTP/2 cleartext, CPU", "header job, h2c: CPU us/request", LUA, 1.0, 1.0),
    ratio(
        "HTTP/2 cleartext, CPU",
        "header job, h2c: CPU us/request",
        Peer::HaproxyMap,
        f64::INFINITY,
        1.0,
    ),
    ratio("100 KiB bodies, CPU", "100 KiB bodies: CPU s/GiB", LUA, 1.0, 0.9),
    ratio("WebSocket, CPU", "WebSocket echo: CPU us/request", LUA, 1.05, 0.9),
    ratio("added p50", "2,000 requests/s: added p50, us", LUA, 1.0, 1.0),
    ratio("added p90", "2,000 requests/s: added p90, us", LUA, 1.0, 1.0),
    Target {
        what: "header job, requests/s",
        row: "header job: requests/s",
        peer: Some(Peer::Express),
        must: 4.0,
        aim: 4.0,
        more_is_better: true,
    },
    ours("start-up, ms", "start to first answer, ms", 10.0, 10.0),
    ours("idle, MiB (PSS)", "idle: proportional, MiB", 8.0, 8.0),
    ours("bytes per cached user", "bytes per cached user", 1_400.0, 1_100.0),
    ours("mints, 1 user", "mints for 1000 requests at once, cold users: 1", 1.0, 1.0),
    ours("mints, 100 users", "mints for 1000 requests at once, cold users: 100", 100.0, 100.0),
    ours("bytes per stalled download", stalls::ROWS[0], 65_536.0, 65_536.0),
    ours("bytes per stalled upload", stalls::ROWS[1], 65_536.0, 65_536.0),
    ours("bytes per stalled HTTP/2 stream", stalls::ROWS[2], 32_768.0, 32_768.0),
    ours("burst: answers without a token, %", burst::WITHOUT_TOKEN, 1.0, 0.0),
    ours("burst: mints for 100 users", burst::MINTS, 100.0, 100.0),
    ratio("2 workers, CPU", "2 workers: CPU us/request", LUA, 1.0, 0.85),
];

impl Report {
    pub fn put(&mut self, row: &str, peer: Peer, round: usize, value: f64) {
        if !self.rows.iter().any(|known| known == row) {
            self.rows.push(row.to_owned());
        }
        self.values.entry((row.to_owned(), peer)).or_default().push((round, value));
    }

    /// Turns whole latencies into added latencies: subtracts the latency of the same load without a proxy in
    /// the same round.
    pub fn subtract_direct(&mut self) {
        for row in self.rows.iter().filter(|row| row.contains("added")) {
            let direct = self.values.get(&(row.clone(), Peer::Direct)).cloned().unwrap_or_default();
            for peer in Peer::PROXIES {
                for (round, value) in self.values.entry((row.clone(), peer)).or_default() {
                    let base = direct.iter().find(|(other, _)| other == round);
                    *value -= base.map_or(0.0, |(_, base)| *base);
                }
            }
        }
    }

    fn of(&self, row: &str, peer: Peer) -> &[(usize, f64)] {
        self.values.get(&(row.to_owned(), peer)).map_or(&[], Vec::as_slice)
    }

    fn ratios(&self, row: &str, peer: Peer) -> Vec<f64> {
        let theirs = self.of(row, peer);
        self.of(row, Peer::Sidecar)
            .iter()
            .filter_map(|(round, ours)| {
                let (_, theirs) = theirs.iter().find(|(other, _)| other == round)?;
                // An added latency of zero or less is noise, so it gives no ratio.
                (*theirs > 0.0 && *ours > 0.0).then(|| ours / theirs)
            })
            .collect()
    }

    pub fn text(&self) -> String {
        // Puts rows that only two proxies have into separate tables.
        let (few, many): (Vec<&str>, Vec<&str>) =
            self.rows.iter().map(String::as_str).partition(|row| self.columns(&[row]).len() < 3);
        let mut text = self.ratio_table(&many);
        text += &self.figure_table(&many);
        text += &self.ratio_table(&few);
        text += &self.figure_table(&few);
        text += &self.target_table();
        // Writing to a string does not fail.
        let _ = write!(
            text,
            "\n{} rounds of a job; {} more were thrown away because something else ran on the \
             proxies' core, and of those in the tables {} were disturbed to the last.\n",
            self.measured, self.repeated, self.disturbed,
        );
        text
    }

    /// Returns the peers for which any of these rows has a figure.
    fn columns(&self, rows: &[&str]) -> Vec<Peer> {
        let peers = Peer::PROXIES.into_iter().chain([Peer::Direct]);
        peers.filter(|peer| rows.iter().any(|row| !self.of(row, *peer).is_empty())).collect()
    }

    fn ratio_table(&self, rows: &[&str]) -> String {
        let mut peers = self.columns(rows);
        peers.retain(|peer| !matches!(peer, Peer::Sidecar | Peer::Direct));
        table("velt-sidecar / peer", &peers, rows, |row, peer| spread(self.ratios(row, peer), 2))
    }

    fn figure_table(&self, rows: &[&str]) -> String {
        table("figures", &self.columns(rows), rows, |row, peer| {
            let values: Vec<f64> = self.of(row, peer).iter().map(|(_, value)| *value).collect();
            let digits = digits_of(&values);
            spread(values, digits)
        })
    }

    fn target_table(&self) -> String {
        let mut text = String::from(
            "\n| target | against | must | aim | measured | |\n|---|---|---|---|---|---|\n",
        );
        for target in &TARGETS {
            let values = match target.peer {
                Some(peer) => self.ratios(target.row, peer),
                None => {
                    self.of(target.row, Peer::Sidecar).iter().map(|(_, value)| *value).collect()
                }
            };
            if values.is_empty() {
                continue;
            }
            let (measured, _, _) = median(values.clone());
            let meets = |bound: f64| {
                if target.more_is_better { measured >= bound } else { measured <= bound }
            };
            let verdict = match (meets(target.must), meets(target.aim)) {
                (true, true) => "met",
                (true, false) if target.must.is_infinite() => "aim missed",
                (true, false) => "met, aim missed",
                (false, _) => "**missed**",
            };
            let against = target.peer.map_or("itself", Peer::name);
            let must =
                if target.must.is_finite() { target.must.to_string() } else { String::new() };
            let digits = if target.peer.is_some() { 2 } else { digits_of(&values) };
            let _ = writeln!(
                text,
                "| {} | {against} | {must} | {} | {} | {verdict} |",
                target.what,
                target.aim,
                spread(values, digits),
            );
        }
        text
    }
}

/// Formats a table in Markdown; empty without rows or columns.
fn table(
    title: &str,
    peers: &[Peer],
    rows: &[&str],
    cell: impl Fn(&str, Peer) -> String,
) -> String {
    if rows.is_empty() || peers.is_empty() {
        return String::new();
    }
    let names: Vec<&str> = peers.iter().map(|peer| peer.name()).collect();
    let mut text = format!("\n| {title} | {} |\n|---|", names.join(" | "));
    text += &"---|".repeat(peers.len());
    text.push('\n');
    for row in rows {
        let cells: Vec<String> = peers.iter().map(|peer| cell(row, *peer)).collect();
        // Writing to a string does not fail.
        let _ = writeln!(text, "| {row} | {} |", cells.join(" | "));
    }
    text
}

/// Returns the number of decimal places that make sense for figures of this size.
fn digits_of(values: &[f64]) -> usize {
    let largest = values.iter().fold(0.0_f64, |largest, value| largest.max(value.abs()));
    match largest {
        0.0..10.0 => 2,
        10.0..100.0 => 1,
        _ => 0,
    }
}

/// Returns the median, the least and the most; NaN if there are no values.
fn median(mut values: Vec<f64>) -> (f64, f64, f64) {
    values.sort_by(f64::total_cmp);
    let [first, .., last] = values[..] else {
        let only = values.first().copied().unwrap_or(f64::NAN);
        return (only, only, only);
    };
    (values[values.len() / 2], first, last)
}

/// Formats `median (least–most)`; empty if there are no values.
fn spread(values: Vec<f64>, digits: usize) -> String {
    match values.len() {
        0 => String::new(),
        1 => format!("{:.digits$}", values[0]),
        _ => {
            let (median, least, most) = median(values);
            format!("{median:.digits$} ({least:.digits$}–{most:.digits$})")
        }
    }
}

//! The table "What happens when" of the README: its commands are run in a shell, against the demo.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use crate::neighbour::{Process, tool};

const README: &str = include_str!("../../README.md");

/// Address of the demo in the README.
const DEMO: &str = "127.0.0.1:4180";

/// Seconds that a command may take: Velt counts as down for 30 s at most.
const PATIENCE: &str = "60";

/// Row of the table.
struct Row {
    case: &'static str,
    command: &'static str,
    status: &'static str,
    /// Texts that the answer has, where `...` stands for any text.
    parts: Vec<&'static str>,
    outcome: Option<&'static str>,
}

/// Returns the texts between backticks.
fn quoted(cell: &'static str) -> Vec<&'static str> {
    cell.split('`').skip(1).step_by(2).collect()
}

/// Returns the set-up of the section, and the rows of its table.
fn section() -> (&'static str, Vec<Row>) {
    let (_, section) = README.split_once("\n## What happens when\n").expect("the section");
    let (_, rest) = section.split_once("```sh\n").expect("the set-up");
    let (set_up, rest) = rest.split_once("```\n").expect("its end");
    let rows = rest.lines().skip_while(|line| !line.starts_with("|---")).skip(1);
    let row = |line: &'static str| {
        let cells: Vec<_> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let [case, command, status, outcome] = cells[..] else { panic!("four cells: {line}") };
        let status_code = status.split(',').next().expect("split has a first part");
        let command = command.trim_matches('`');
        let outcome = quoted(outcome).first().copied();
        Row { case, command, status: status_code, parts: quoted(status), outcome }
    };
    (set_up, rows.take_while(|line| line.starts_with('|')).map(row).collect())
}

/// Starts the demo, and returns its address.
fn demo() -> (Process, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_velt-sidecar"));
    command.args(["demo", "--listen", "127.0.0.1:0"]).stdout(Stdio::piped());
    let mut demo = Process::start(&mut command);
    let lines = BufReader::new(demo.child().stdout.take().expect("a pipe")).lines();
    let mut lines = lines.map(|line| line.expect("text"));
    let line = lines.find(|line| line.contains("open http://")).expect("where to open it");
    let (_, address) = line.split_once("http://").expect("found above");
    let address = address.trim_end_matches('/').to_owned();
    // The demo prints on, and would end if no program read it.
    std::thread::spawn(move || lines.for_each(drop));
    (demo, address)
}

/// Runs the command after the set-up, and returns what it prints.
fn run(set_up: &str, command: &str) -> String {
    let mut bash = Command::new(tool("timeout"));
    bash.args([PATIENCE, "bash", "-c", &format!("{set_up}{command}")]).stdin(Stdio::null());
    let ended = bash.output().expect("a shell");
    String::from_utf8_lossy(&ended.stdout).into_owned()
}

/// Number of requests with this outcome until now.
fn count(set_up: &str, outcome: &str) -> u64 {
    let metrics = run(set_up, "curl -s $ADMIN/metrics");
    let name = format!("velt_sidecar_requests_total{{outcome=\"{outcome}\"}} ");
    let line = metrics.lines().find_map(|line| line.strip_prefix(&*name));
    line.unwrap_or_else(|| panic!("no {name} in {metrics}")).parse().expect("a count")
}

/// Whether `text` has the parts of `pattern` between `...`, in this order. Names of headers come in any case.
fn has(text: &str, pattern: &str) -> bool {
    let text = text.to_lowercase();
    let mut rest = &*text;
    pattern.to_lowercase().split("...").all(|part| {
        let found = rest.split_once(part);
        rest = found.map_or("", |(_, after)| after);
        found.is_some()
    })
}

#[test]
fn table_of_the_readme_says_what_happens() {
    let (_demo, address) = demo();
    let (set_up, rows) = section();
    assert!(set_up.contains(DEMO), "the README's demo is at {DEMO}");
    let set_up = set_up.replace(DEMO, &address);
    assert!(rows.len() >= 14, "only {} rows", rows.len());
    for Row { case, command, status, parts, outcome } in rows {
        let before = outcome.map(|outcome| count(&set_up, outcome));
        let printed = run(&set_up, command);
        assert!(has(&printed, &format!("HTTP/1.1 {status} ")), "{case}: {printed}");
        for part in parts {
            assert!(has(&printed, part), "{case}: no {part} in {printed}");
        }
        let after = outcome.map(|outcome| count(&set_up, outcome));
        assert!(after > before || outcome.is_none(), "{case}: no {outcome:?} was counted");
    }
}

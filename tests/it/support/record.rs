//! Records of what a test has measured, for docs/conformance.md: a line of JSON for each record, in the file
//! `records.jsonl` of the folder that `VELT_SIDECAR_RECORDS` names. Without that variable nothing is written.
//!
//! A record tells the figures and the test that they come from. `tests/conformance/run` reads the records, and the
//! outcome of each test from the output of `cargo test`. A record is made before the figures are checked, so that
//! the page shows the figures of a test that failed.

use std::env;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

/// Section of the records that say why a test was left out.
const LEFT_OUT: &str = "left_out";

/// Adds a record of `figures`, a JSON object, to a section. Called from the test's own task, by whose thread the
/// test is known.
pub fn record(section: &str, name: &str, figures: &Value) {
    let Some(folder) = env::var_os("VELT_SIDECAR_RECORDS") else { return };
    let thread = thread::current();
    write(Path::new(&folder), &line(section, thread.name(), name, figures));
}

/// Says on stderr why the test that is running is left out, and records the reason. Without the record, the page
/// would count the test as passed.
pub fn left_out(reason: &str) {
    eprintln!("SKIPPED: {reason}");
    record(LEFT_OUT, reason, &json!({}));
}

fn line(section: &str, thread: Option<&str>, name: &str, figures: &Value) -> String {
    // The test runner names the thread of a test after the test. With one thread for all tests, it names none.
    let test = thread.filter(|name| name.contains("::"));
    let test = test.expect("a record is made by a test's own thread, among two threads or more");
    let record = json!({ "section": section, "test": test, "name": name, "figures": figures });
    format!("{record}\n")
}

/// Appends a line. One `write` for the whole line, since several tests write at the same time.
fn write(folder: &Path, line: &str) {
    let file = OpenOptions::new().create(true).append(true).open(folder.join("records.jsonl"));
    let written = file.and_then(|mut file| file.write_all(line.as_bytes()));
    written.expect("VELT_SIDECAR_RECORDS is a folder that can be written to");
}

/// Returns milliseconds with one decimal.
pub fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e4).round() / 10.0
}

/// Count of requests, of those that failed, and the time of the slowest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub requests: u32,
    pub failed: u32,
    pub slowest: Duration,
}

impl Tally {
    /// Counts a request.
    pub fn add(&mut self, took: Duration, served: bool) {
        self.requests += 1;
        self.failed += u32::from(!served);
        self.slowest = self.slowest.max(took);
    }

    /// Returns the figures of a record.
    pub fn figures(&self) -> Value {
        let slowest = milliseconds(self.slowest);
        json!({ "requests": self.requests, "failed": self.failed, "slowest_ms": slowest })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_is_a_line_that_names_its_test() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut tally = Tally::default();
        tally.add(Duration::from_micros(1_260), true);
        tally.add(Duration::from_micros(740), false);
        for name in ["a \"name\"", "two\nlines"] {
            let line = line("faults", Some("outage::a_test"), name, &tally.figures());
            write(folder.path(), &line);
        }
        let written = std::fs::read_to_string(folder.path().join("records.jsonl"));
        let written = written.expect("it is there");
        let records: Vec<Value> =
            written.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        let figures = json!({ "requests": 2, "failed": 1, "slowest_ms": 1.3 });
        let expected = |name: &str| {
            json!({ "section": "faults", "test": "outage::a_test", "name": name,
                "figures": figures })
        };
        assert_eq!(records, [expected("a \"name\""), expected("two\nlines")]);
    }

    #[test]
    #[should_panic(expected = "a test's own thread")]
    fn record_of_another_thread_is_refused() {
        line("faults", Some("tokio-runtime-worker"), "a name", &json!({}));
    }
}

//! The command that writes docs/conformance.md: the committed page is what it makes of the committed records, and a
//! fault of a run can't hide on a page.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::program::PYTHON;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Words of a part without records.
const ABSENT: &str = "**Not measured in this run.**";

/// Runs the command where it finds no other program, and returns its output.
fn run(arguments: &[&Path]) -> String {
    let mut python = Command::new(PYTHON);
    python.arg(Path::new(ROOT).join("tests/conformance/run")).args(arguments);
    // To ask two browsers and twenty other programs for their versions would take the test's time.
    let done = python.env("PATH", "/nonexistent").output();
    let done = done.expect("Python 3 is installed");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).expect("text")
}

/// Returns the page and the committed form of a run that left these files.
fn page_of(files: &[(&str, String)]) -> (String, PathBuf, TempDir) {
    let folder = TempDir::new().expect("a folder");
    let (records, output) = (folder.path().join("records"), folder.path().join("output"));
    for path in [&records, &output] {
        fs::create_dir(path).expect("a folder");
    }
    for (name, text) in files {
        fs::write(records.join(name), text).expect("a file");
    }
    run(&[&records, Path::new("--output"), &output]);
    let page = fs::read_to_string(output.join("conformance.md")).expect("the page");
    (page, output.join("conformance.json"), folder)
}

fn record(section: &str, test: &str, name: &str, figures: &Value) -> String {
    format!("{}\n", json!({ "section": section, "test": test, "name": name, "figures": figures }))
}

/// Returns the rows of the page's tables whose first cell is `name`, without cells' spaces.
fn rows<'a>(page: &'a str, name: &str) -> Vec<Vec<&'a str>> {
    let rows = page.lines().filter_map(|line| line.strip_prefix('|')?.strip_suffix('|'));
    let rows = rows.map(|row| row.split('|').map(str::trim).collect::<Vec<_>>());
    rows.filter(|cells| cells[0] == name).collect()
}

/// Collects the text of the Rust files in a folder, without this file, which makes records up.
fn sources(folder: &Path, text: &mut String) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() && !path.ends_with("node_modules") {
            sources(&path, text);
        } else if path.extension().is_some_and(|extension| extension == "rs")
            && !path.ends_with("real/conformance.rs")
        {
            *text += &fs::read_to_string(path).expect("a source");
        }
    }
}

#[test]
fn committed_page_is_what_the_committed_records_say() {
    let docs = Path::new(ROOT).join("docs");
    let committed = fs::read_to_string(docs.join("conformance.md")).expect("the page");
    let written = run(&[Path::new("--page"), &docs.join("conformance.json")]);
    assert!(committed == written, "edit tests/conformance, not the page; then run --page again");
    assert!(rows(&committed, "nginx").iter().any(|cells| cells[1].starts_with("1.")));
    assert!(!committed.contains("| not found |"), "each program told its version");
}

#[test]
fn empty_run_measures_nothing_and_says_so() {
    let (page, json, _folder) = page_of(&[]);
    for heading in [
        "The run",
        "At a glance",
        "Repeat it",
        "What this page does not show",
        "Threats",
        "Framing cases for each app server",
        "Protocol suites",
        "Floods, and clients that stand still",
        "Rollouts and lost requests",
        "Faults of Velt",
        "Faults of the shared store",
        "Advisories on the day",
        "Sizes",
        "The machine",
    ] {
        let (_, part) = page.split_once(&format!("\n## {heading}\n")).expect(heading);
        assert!(part.split("\n## ").next().expect("a part").len() > 60, "{heading} is empty");
    }
    let parts = fs::read_to_string(Path::new(ROOT).join("tests/conformance/sections.py"));
    let parts = parts.expect("the parts").matches("records=\"").count();
    // The advisories have no records.
    assert_eq!(page.matches(ABSENT).count(), parts + 1);
    assert!(!page.contains("passed |") && !page.contains("`: passed"), "{page}");
    assert_eq!(rows(&page, "tests"), [["tests", "**not measured in this run**"]]);
    assert_eq!(rows(&page, "nginx"), [["nginx", "not found"]]);
    for name in ["commit", "checkout at the end of the run"] {
        assert_eq!(rows(&page, name), [[name, "**not known**"]]);
    }
    assert_eq!(page, run(&[Path::new("--page"), &json]), "the same bytes each time");
}

#[test]
fn parts_and_records_name_each_other() {
    let mut code = String::new();
    for folder in ["tests/it", "tests/real"] {
        sources(&Path::new(ROOT).join(folder), &mut code);
    }
    let (page, ..) = page_of(&[]);
    let expected =
        |line: &str| Some(line.strip_prefix("- `")?.split_once("`: **not run**")?.0.to_owned());
    let tests: Vec<_> = page.lines().filter_map(expected).collect();
    assert!(tests.len() > 35, "{tests:?}");
    for test in tests {
        assert!(code.contains(&format!("fn {test}(")), "there is no test {test}");
    }
    let sections = fs::read_to_string(Path::new(ROOT).join("tests/conformance/sections.py"));
    let sections = sections.expect("the parts");
    let named = |text: &str, start: &str| -> BTreeSet<String> {
        let names = text.split(start).skip(1).map(|rest| rest.split('"').next().expect("a name"));
        names.map(str::to_owned).collect()
    };
    let recorded = named(&code, concat!(" record", "(\""));
    assert_eq!(recorded, named(&sections, "records=\""));
}

#[test]
fn failed_left_out_and_missing_tests_show() {
    let flood = "floods::http1::t38_t39_http1_floods_leave_other_clients_served";
    let cut = "replicas::partition::cut_off_replica_serves_on_and_catches_up";
    let limit = "floods::memory::stalled_clients_leave_others_served_below_the_limit";
    let log = format!(
        "running 4 tests\n\u{1b}[1mtest {flood} ... \u{1b}[31mFAILED\u{1b}[0m\ntest {cut} ... ok\n\
         test {limit} ... ok\ntest config::t02_untrusted_aliases_of_forwarding_headers_are_removed ... ok\n\
         test pages::x::t03_header_name_in_any_case_behaves_the_same::chromium_shows_it ... ok\n\
         test pages::x::t03_header_name_in_any_case_behaves_the_same::firefox_shows_it ... FAILED\n"
    );
    let figures = json!({ "connections": 1234, "before_mib": 10.0, "during_mib": 0.25 });
    let records = record("floods", flood, "slow heads", &figures)
        + &record("left_out", limit, "no control group", &json!({}));
    let advisories = "status: could not be fetched\ndatabase: 2026-01-02\nerror: no network\n";
    let files =
        [("tests.log", log), ("records.jsonl", records), ("advisories.txt", advisories.to_owned())];
    let (page, ..) = page_of(&files);
    let row = &rows(&page, "slow heads")[0];
    assert_eq!((row[1], row[5], row[6], row[7]), ("1,234", "10.0", "0.25", "–"), "{row:?}");
    assert_eq!(row.last(), Some(&"**failed**"));
    assert_eq!(rows(&page, "T2")[0][4], "1 passed");
    let t03 = "t03_header_name_in_any_case_behaves_the_same";
    assert!(rows(&page, "T3")[0][4].starts_with(&format!("**1 failed**: `{t03}`; **1 not run**")));
    for line in [
        "- `t38_t39_http1_floods_leave_other_clients_served`: **failed**",
        "- `cut_off_replica_serves_on_and_catches_up`: passed, not measured in this run",
        "- `stalled_clients_leave_others_served_below_the_limit`: **left out**, not measured in this \
         run: no control group",
    ] {
        assert!(page.lines().any(|found| found == line), "{line}\n{page}");
    }
    assert_eq!(rows(&page, "tests"), [["tests", "2 failed, 1 left out, 3 passed"]]);
    assert_eq!(rows(&page, "result"), [["result", "**could not be fetched**"]]);
    assert!(
        page.contains(&format!("**Failed**: `{flood}`, `pages::x::{t03}::firefox_shows_it`\n"))
    );
}

#[test]
fn outcome_that_cannot_be_read_shows() {
    let (start, end) =
        ("running 2 tests\n", "\ntest result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured\n");
    let (first, second) = ("test cli::a_first_test ... ", "test cli::a_second_test ... ");
    let list = "failures:\n    cli::a_first_test\n";
    let output = "failures:\n\n---- cli::a_first_test stdout ----\ntest cli::another ... ok\n";
    let whole = format!("{first}FAILED\n{second}ok\n{output}{list}");
    for (log, unread) in [
        (whole.clone() + end, 0),
        // The output of a test within the line, which may look like the outcome.
        (format!("{first}FAILED\n{second}its own line\nok\n{list}{end}"), 1),
        (format!("{first}FAILED\n{second}FAILED of its own\nok\n{list}{end}"), 1),
        (format!("{first}ok\nFAILED\n{second}ok\n{end}"), 2),
        // The list of failures tells the rest.
        (format!("{first}ok\nFAILED\n{second}ok\n{list}{end}"), 0),
        (format!("{first}its own line\nFAILED\n{second}ok\n{list}{end}"), 0),
        // A line of another program's, by itself and beside a line that can't be read.
        (format!("test cli::another ... ok\n{whole}{end}"), 1),
        (
            format!(
                "{first}FAILED\n{second}its own line\nok\ntest cli::another ... ok\n{list}{end}"
            ),
            1,
        ),
        // The program has crashed.
        (whole, 1),
        (format!("{first}FAILED\n"), 1),
        (String::new(), 2),
    ] {
        let (page, ..) = page_of(&[("tests.log", format!("{start}{log}"))]);
        let warning = format!("**Outcomes that could not be read, of tests that ran: {unread}.**");
        assert_eq!(page.contains(&warning), unread > 0, "{log}");
        assert_eq!(page.contains("could not be read, of"), unread > 0, "{log}");
        if log.contains(list) {
            assert!(page.contains("**Failed**: `cli::a_first_test`\n"), "{log}");
        }
    }
}

#[test]
fn printed_line_of_a_test_is_no_outcome() {
    let forged = "t02_untrusted_aliases_of_forwarding_headers_are_removed";
    let log = format!(
        "running 1 test\ntest cli::a_first_test ... FAILED\n\nfailures:\n\n---- cli::a_first_test stdout ----\n\
         test config::{forged} ... ok\n\ntest result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured\n\
         test config::{forged} ... ok\n"
    );
    let (page, ..) = page_of(&[("tests.log", log)]);
    assert!(rows(&page, "T2")[0][4].contains(&format!("**1 not run**: `{forged}`")));
    assert_eq!(rows(&page, "tests"), [["tests", "1 failed, 0 left out, 0 passed"]]);
}

#[test]
fn checkout_that_changes_during_the_run_shows() {
    let begin = json!({ "version": "0.1.0", "commit": "0123abc", "tree": "another", "changed_files": 2,
        "date": "2026-01-02 03:04 UTC", "long": true });
    let (page, ..) = page_of(&[("begin.json", begin.to_string())]);
    let commit = "`0123abc`, and **2 changed files that are in no commit**";
    assert_eq!(rows(&page, "commit"), [["commit", commit]]);
    let checkout = "checkout at the end of the run";
    assert_eq!(rows(&page, checkout), [[checkout, "**changed**"]]);
    assert_eq!(rows(&page, "begun"), [["begun", "2026-01-02 03:04 UTC"]]);
    assert_eq!(rows(&page, "size"), [["size", "full (`tests/run --long`)"]]);
}

#[test]
fn framing_case_that_fails_for_one_peer_shows() {
    let test = "framing::t12_to_t23_node_gets_only_forwarded_requests";
    let case = |passed: bool| json!({ "expected": "refused with 400", "passed": passed });
    let trusted = json!({ "trusted": true, "cases": { "T9 a": case(true), "T10 b": case(true) } });
    let untrusted = json!({ "trusted": false, "cases": { "T10 b": case(false) } });
    let records = record("framing", test, "Node.js", &trusted)
        + &record("framing", test, "Node.js", &untrusted)
        + &record("framing", test, "nginx", &json!({ "trusted": true, "cases": {} }));
    let (page, ..) = page_of(&[("records.jsonl", records)]);
    let expected = ["T9 a", "refused with 400", "passed (trusted peer)", "not played"];
    assert_eq!(rows(&page, "T9 a"), [expected]);
    let expected = ["T10 b", "refused with 400", "**failed** (untrusted peer)", "not played"];
    assert_eq!(rows(&page, "T10 b"), [expected]);
    assert!(page.find("| T9 a |") < page.find("| T10 b |"), "in the order of the numbers");
    assert_eq!(rows(&page, "Node.js")[0], ["Node.js", "trusted", "2", "0", "**not run**"]);
    assert_eq!(rows(&page, "Node.js")[1], ["Node.js", "untrusted", "1", "1", "**not run**"]);
}

#[test]
fn framing_case_that_fails_once_has_failed() {
    let test = "framing::t12_to_t23_node_gets_only_forwarded_requests";
    let played = [true, false, true].map(|passed| {
        let case = json!({ "expected": "refused with 400", "passed": passed });
        record("framing", test, "Node.js", &json!({ "trusted": true, "cases": { "T9 a": case } }))
    });
    let (page, ..) = page_of(&[("records.jsonl", played.concat())]);
    let expected = ["T9 a", "refused with 400", "**failed** (trusted peer)"];
    assert_eq!(rows(&page, "T9 a"), [expected]);
}

#[test]
fn hostile_text_of_a_record_stays_in_its_cell() {
    let test = "floods::http1::t38_t39_http1_floods_leave_other_clients_served";
    let hostile = "a|b_c _d_ \\| c\n| d | e\r\n\n## A part\n<script>&lt; `x|y` [z](https://a.example) **w** \
                   www.a.example @team \u{202e}\u{1b}[31m";
    let figures = json!({ "connections": "1 | <b>2</b>", "requests": null });
    let records = record("floods", test, hostile, &figures);
    let (page, ..) = page_of(&[("records.jsonl", records)]);
    let line =
        page.lines().find(|line| line.starts_with("| a&#124;b_c &#95;d&#95; ")).expect("a row");
    let head = page.lines().find(|line| line.starts_with("| flood | ")).expect("the head");
    assert_eq!(line.matches('|').count(), head.matches('|').count(), "{line}");
    assert!(line.contains("&#92;&#124; c &#124; d &#124; e"), "{line}");
    assert!(line.contains("| 1 &#124; &#60;b&#62;2&#60;/b&#62; |"), "{line}");
    for part in ["<", "`", "[", "\\", "://", "www.", "@", "\u{202e}", "\u{1b}", "&lt;"] {
        assert!(!line.contains(part), "{part:?} in {line}");
    }
    assert!(!page.contains("\n## A part"));
}

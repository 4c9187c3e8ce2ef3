//! The workflows name files that are there, and the notes of a release are those of its version.

use std::fs;
use std::path::Path;

use super::finished;

#[test]
fn notes_are_the_changelogs_section_of_the_version() {
    let version = env!("CARGO_PKG_VERSION");
    let output = finished("deploy/notes", &[version]);
    let notes = String::from_utf8(output.stdout).expect("text");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(notes.contains("### Added"), "{notes}");
    let headings = notes.lines().filter(|line| line.starts_with("## "));
    assert_eq!(headings.count(), 0, "{notes}");
    let changelog = fs::read_to_string("CHANGELOG.md").expect("the changelog");
    assert!(changelog.contains(notes.trim()), "{notes}");
    let other = finished("deploy/notes", &["0.0.9"]);
    assert_eq!(other.status.code(), Some(1), "a version that is not the newest");
}

#[test]
fn changelog_begins_with_what_is_unreleased() {
    let changelog = fs::read_to_string("CHANGELOG.md").expect("the changelog");
    let headings: Vec<_> = changelog.lines().filter(|line| line.starts_with("## ")).collect();
    assert_eq!(headings[0], "## [Unreleased]");
    let version = env!("CARGO_PKG_VERSION");
    assert!(headings[1].starts_with(&format!("## [{version}] - ")), "{headings:?}");
}

#[test]
fn workflows_run_scripts_that_are_there() {
    let mut seen = 0;
    for workflow in fs::read_dir(".github/workflows").expect("the workflows") {
        let workflow = workflow.expect("an entry").path();
        let text = fs::read_to_string(&workflow).expect("a workflow");
        let code = text.lines().filter(|line| !line.trim_start().starts_with('#'));
        for word in code.flat_map(str::split_whitespace) {
            let word = word.trim_matches(['"', '\'', '(', ')', ',']);
            let script = [".ci/", "tests/run", "deploy/"].iter().any(|from| word.starts_with(from));
            if script {
                // The counts come from another job.
                let exists = Path::new(word).exists() || word == "deploy/counts.profdata";
                assert!(exists, "{}: {word}", workflow.display());
                seen += 1;
            }
        }
    }
    assert!(seen > 10, "only {seen}");
}

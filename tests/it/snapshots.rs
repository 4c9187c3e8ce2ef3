//! Checks that each snapshot belongs to a test, and that no run of the tests writes one by itself.

use std::fs;
use std::path::{Path, PathBuf};

/// Adds the files below `folder` whose names end like this.
fn collect(folder: &Path, ending: &str, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            collect(&path, ending, files);
        } else if path.extension().is_some_and(|extension| extension == ending) {
            files.push(path);
        }
    }
}

#[test]
fn each_snapshot_is_named_by_a_test() {
    let (mut sources, mut snapshots) = (Vec::new(), Vec::new());
    collect(Path::new("tests/it"), "rs", &mut sources);
    collect(Path::new("tests/it"), "snap", &mut snapshots);
    let sources: String =
        sources.iter().map(|path| fs::read_to_string(path).expect("a source")).collect();
    assert!(snapshots.len() > 50, "the snapshots have moved");
    for snapshot in snapshots {
        let stem = snapshot.file_stem().expect("a name").to_str().expect("plain text");
        // Before the name stands the path of the module, if insta has put it there.
        let name = stem.rsplit("__").next().expect("a name");
        assert!(sources.contains(&format!("\"{name}\"")), "{} has no test", snapshot.display());
    }
}

#[test]
fn run_of_the_tests_writes_no_snapshot() {
    let settings = fs::read_to_string(".config/insta.yaml").expect(".config/insta.yaml");
    assert!(settings.contains("\n  update: \"no\"\n"), "{settings}");
}

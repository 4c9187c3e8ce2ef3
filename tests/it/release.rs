//! Releases: the same sources give the same binary in any folder, and each file has the version of the manifest.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use self::project::Project;

mod notes;
mod project;

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

fn home_of_cargo() -> String {
    let own = std::env::var("CARGO_HOME");
    own.unwrap_or_else(|_| format!("{}/.cargo", std::env::var("HOME").expect("a home")))
}

#[test]
fn release_has_the_same_bytes_from_any_folder_and_environment() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().to_str().expect("text");
    let one = Project::new(folder.path().join("one"));
    let other = Project::new(folder.path().join("other/and/deeper"));
    let first = one.built(&[]);
    // What a developer's machine may have set.
    let second = other.built(&[
        ("CARGO_BUILD_JOBS", "1"),
        ("CARGO_INCREMENTAL", "1"),
        ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "0"),
        ("CFLAGS", "-O0"),
        ("RUSTFLAGS", "-Cdebug-assertions=yes"),
        ("SOURCE_DATE_EPOCH", "1"),
    ]);
    assert!(first == second, "{}{}", one.run(), other.run());
    for place in ["/velt-sidecar/inner/place.c", "/target/", "/crates/bytes-"] {
        assert!(contains(&first, place), "{place}: the project shows no path of that kind");
    }
    for place in [path, &home_of_cargo()] {
        assert!(!contains(&first, place), "{place} is in the binary");
    }
    // cargo's own build has these paths, so the comparison above would see them.
    let plain = [one.built_by_cargo(), other.built_by_cargo()];
    assert!(plain.iter().all(|binary| contains(binary, path)));
    assert!(plain[0] != plain[1]);
}

#[test]
fn reproduce_tells_the_same_bytes_from_others() {
    let folder = tempfile::tempdir().expect("a folder");
    let project = Project::new(folder.path().join("project"));
    let same = project.built_twice();
    assert!(same.status.success(), "{}", String::from_utf8_lossy(&same.stderr));
    assert!(String::from_utf8_lossy(&same.stdout).starts_with("same: "), "{same:?}");
    project.vary();
    let others = project.built_twice();
    assert_eq!(others.status.code(), Some(1), "{others:?}");
    let said = String::from_utf8_lossy(&others.stderr);
    for part in ["different: ", "rustc 1.", "section .rodata differs: "] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[test]
fn optimized_refuses_folders_that_no_flag_can_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let project = Project::new(folder.path().join("with space"));
    let output = project.optimized(&["--plain"], &[]);
    assert_eq!(output.status.code(), Some(64));
    assert!(String::from_utf8_lossy(&output.stderr).contains("has a space"), "{output:?}");
}

#[test]
fn scripts_of_releases_say_how_they_are_used() {
    for (script, arguments) in [
        ("deploy/optimized", &["--profile"][..]),
        ("deploy/optimized", &["--train"]),
        ("deploy/optimized", &["--unknown"]),
        ("deploy/reproduce", &[]),
        ("deploy/reproduce", &["--twice", "--sha256", "0"]),
        ("deploy/reproduce", &["--profile", "LICENSE", "--binary", "LICENSE", "--sha256", "0"]),
        ("deploy/reproduce", &["--profile", "LICENSE", "--sha256", ""]),
        ("deploy/notes", &[]),
    ] {
        let output = finished(script, arguments);
        assert_eq!(output.status.code(), Some(64), "{script} {arguments:?}");
        let usage = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(usage.contains(&format!("  {script} ")), "{usage}");
    }
}

fn finished(script: &str, arguments: &[&str]) -> Output {
    Command::new(script).args(arguments).output().expect("it starts")
}

/// Adds the names of versions that a file of `deploy` gives to the image or a chart.
fn versions_in(folder: &Path, found: &mut Vec<(PathBuf, String)>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            versions_in(&path, found);
            continue;
        }
        // Counts of a release, which a build of the image reads there, are no text.
        let Ok(text) = fs::read_to_string(&path) else { continue };
        for before in ["velt-sidecar:", "ARG VERSION=", "\nversion: ", "\nappVersion: \""] {
            for after in text.split(before).skip(1) {
                let number = |sign: char| sign.is_ascii_digit() || sign == '.';
                let end = after.find(|sign| !number(sign)).unwrap_or(after.len());
                if after.starts_with(|sign: char| sign.is_ascii_digit()) {
                    found.push((path.clone(), after[..end].trim_end_matches('.').to_owned()));
                }
            }
        }
    }
}

#[test]
fn files_of_deploy_name_the_version_of_the_manifest() {
    let mut found = Vec::new();
    versions_in(Path::new("deploy"), &mut found);
    assert!(found.len() > 12, "{found:?}");
    found.retain(|(_, version)| version != env!("CARGO_PKG_VERSION"));
    assert_eq!(found, []);
}

//! The examples have valid settings, and all the files that a reader needs. `tests/real` starts them.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::binary::{CREDENTIALS, finished_in};

/// Secret that the example with a signed session shares with its sidecar.
const SESSION_SECRET: (&str, &str) =
    ("VELT_SIDECAR_IDENTITY__ASSERTION__SECRET", "a-secret-of-the-app-with-32-bytes-or-more");

/// Folders of the examples.
fn examples() -> Vec<PathBuf> {
    let entries = fs::read_dir("examples").expect("the examples");
    let folders = entries.map(|entry| entry.expect("an entry").path());
    let mut examples: Vec<_> = folders.filter(|it| it.join("sidecar.toml").is_file()).collect();
    examples.sort();
    assert!(examples.len() >= 5, "{examples:?}");
    examples
}

fn name(example: &Path) -> &str {
    example.file_name().and_then(|name| name.to_str()).expect("a name")
}

fn read(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

#[tokio::test]
async fn check_accepts_the_settings_of_each_example() {
    for example in examples() {
        let mut environment = CREDENTIALS.to_vec();
        if read(&example.join("sidecar.toml")).contains("[identity.assertion]") {
            environment.push(SESSION_SECRET);
        }
        let check = finished_in(&example, &["check"], &environment).await;
        assert_eq!(check.code, Some(0), "{}: {}", example.display(), check.stderr);
    }
}

#[test]
fn each_example_has_its_files_and_is_in_the_index() {
    let index = read(Path::new("examples/README.md"));
    let run = read(Path::new("examples/run"));
    for example in examples() {
        let name = name(&example);
        assert!(index.contains(&format!("| [{name}]({name}/)")), "README.md lacks {name}");
        assert!(run.contains(&format!("\n{name})")), "run does not start {name}");
        for file in ["README.md", "package.json", "package-lock.json"] {
            assert!(example.join(file).is_file(), "{name} lacks {file}");
        }
        let command = format!("`examples/run {name}`");
        assert!(read(&example.join("README.md")).contains(&command), "{name}");
    }
}

#[test]
fn locked_packages_have_hashes() {
    for example in examples() {
        let lock = read(&example.join("package-lock.json"));
        let lock: serde_json::Value = serde_json::from_str(&lock).expect("JSON");
        let packages = lock["packages"].as_object().expect("packages");
        for (place, package) in packages {
            // The example itself, and the copy of the package that is in this repository.
            let is_own = place.is_empty() || place == "node_modules/velt-sidecar";
            let has_hash = package["integrity"].is_string();
            assert!(is_own || has_hash, "{}: {place}", example.display());
        }
    }
}

//! What deploy/ ships, by the tools that its users run, by Kubernetes' own schemas, and by the code:
//! what a manifest sets is a valid configuration, and what it names is there.

mod files;
mod helm;
mod image;
mod kustomize;
mod monitoring;
mod pod;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::neighbour::tool;

/// The oldest and the newest version that the native sidecar is meant for, and some between.
const NATIVE: &[&str] = &["1.29", "1.30", "1.33", "1.35", "1.37"];

/// Those that the ordinary container is for as well.
const BEFORE_NATIVE: &[&str] = &["1.25", "1.26", "1.27", "1.28"];

/// A file of deploy/, or of these tests.
fn file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Runs a tool to its end: what it prints on standard output, or, if it fails, everything.
fn run(command: &mut Command, input: &str) -> Result<String, String> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let mut stdin = child.stdin.take().expect("piped");
    let input = input.to_owned();
    // It may print before it has read everything, and end before it has read anything.
    let writing = std::thread::spawn(move || drop(stdin.write_all(input.as_bytes())));
    let ended = child.wait_with_output().expect("it ends");
    writing.join().expect("no panic");
    let printed = String::from_utf8(ended.stdout).expect("text");
    if ended.status.success() {
        return Ok(printed);
    }
    Err(format!(
        "{command:?}: {}\n{printed}{}",
        ended.status,
        String::from_utf8_lossy(&ended.stderr)
    ))
}

/// The same for a tool that has nothing to complain of.
fn run_well(command: &mut Command, input: &str) -> String {
    run(command, input).unwrap_or_else(|error| panic!("{error}"))
}

/// Runs a script of this folder with the interpreter that has its modules.
fn python(script: &str, arguments: &[&str], input: &str) -> String {
    let mut python = Command::new(tool("python-of-deploy"));
    python.arg(file("tests/real/deploy").join(script)).args(arguments);
    run_well(&mut python, input)
}

/// The documents of a YAML file.
fn documents(yaml: &str) -> Vec<Value> {
    serde_json::from_str(&python("documents.py", &[], yaml)).expect("JSON")
}

/// What the API's schemas of these versions complain of.
fn complaints(objects: &[Value], versions: &[&str]) -> String {
    let objects = serde_json::to_string(objects).expect("string keys");
    python("validate.py", versions, &objects)
}

/// The objects of a kind.
fn of_kind<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    objects.iter().filter(|object| object["kind"] == kind).collect()
}

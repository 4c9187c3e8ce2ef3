//! Files of deploy/, checked by the tools that operators run, by Kubernetes' own schemas, and by the code:
//! each manifest's settings are a valid configuration, and each thing that a manifest names exists.

mod chosen;
mod clusters;
mod files;
mod helm;
mod image;
mod inject;
mod kustomize;
mod monitoring;
mod package;
mod platforms;
mod pod;
mod store;
mod vex;
mod workflows;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::neighbour::tool;

/// Oldest and newest version that the native sidecar supports, and some between.
const NATIVE: &[&str] = &["1.29", "1.30", "1.33", "1.35", "1.37"];

/// Versions that only the ordinary container supports.
const BEFORE_NATIVE: &[&str] = &["1.25", "1.26", "1.27", "1.28"];

/// Returns the path of a file of the project, by its path in the repository.
fn file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Runs a tool to its end. Returns its standard output, or an error with its whole output if it fails.
fn run(command: &mut Command, input: &str) -> Result<String, String> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let mut stdin = child.stdin.take().expect("piped");
    let input = input.to_owned();
    // Written by a thread: the tool may print before it has read all input, and end before it has read any.
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

/// Runs a tool that must succeed, and returns its standard output.
fn run_well(command: &mut Command, input: &str) -> String {
    run(command, input).unwrap_or_else(|error| panic!("{error}"))
}

/// Runs a script of this folder with the interpreter that has its modules.
fn python(script: &str, arguments: &[&str], input: &str) -> String {
    python_of("python-of-deploy", script, arguments, input)
}

/// Runs a script of this folder with the named interpreter.
fn python_of(interpreter: &str, script: &str, arguments: &[&str], input: &str) -> String {
    let mut python = Command::new(tool(interpreter));
    python.arg(file("tests/real/deploy").join(script)).args(arguments);
    run_well(&mut python, input)
}

/// Returns the documents of a YAML file.
fn documents(yaml: &str) -> Vec<Value> {
    serde_json::from_str(&python("documents.py", &[], yaml)).expect("JSON")
}

/// Returns the complaints of the API's schemas of these versions.
fn complaints(objects: &[Value], versions: &[&str]) -> String {
    let objects = serde_json::to_string(objects).expect("string keys");
    python("validate.py", versions, &objects)
}

/// Returns the objects of a kind.
fn of_kind<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    objects.iter().filter(|object| object["kind"] == kind).collect()
}

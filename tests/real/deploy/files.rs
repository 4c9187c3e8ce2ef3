//! Files of deploy/, checked by the linters of their kinds.

use std::process::Command;

use super::{file, run, run_well};
use crate::neighbour::tool;

#[test]
fn yamllint_finds_nothing() {
    let mut yamllint = Command::new(tool("yamllint"));
    yamllint.args(["--strict", "--config-data"]);
    // Lines may be as long as prose; GitHub's `on` is no truth value.
    yamllint.arg(
        "{extends: default, rules: {line-length: {max: 160}, document-start: disable, \
        comments: {min-spaces-from-content: 1}, truthy: {check-keys: false}, \
        indentation: {spaces: 2, indent-sequences: consistent}}}",
    );
    for path in [
        "deploy/kustomize",
        "deploy/examples",
        "deploy/inject",
        "deploy/helm/velt-sidecar-injector/policies",
        "deploy/monitoring",
        "deploy/cloud-run",
        "deploy/compose",
        ".github",
    ] {
        yamllint.arg(file(path));
    }
    run_well(&mut yamllint, "");
}

#[test]
fn hadolint_accepts_the_dockerfile_and_faults_a_bad_one() {
    let mut hadolint = Command::new(tool("hadolint"));
    run_well(hadolint.arg(file("deploy/Dockerfile")), "");
    let bad = run(Command::new(tool("hadolint")).arg("-"), "FROM debian\nRUN cd /tmp\n");
    assert!(bad.is_err_and(|said| said.contains("DL3006")), "it looks at all");
}

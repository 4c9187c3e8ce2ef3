//! Files of deploy/ and the workflows, checked by the linters of their kinds.

use std::fs;
use std::process::Command;

use serde_json::Value;

use super::{documents, file, run, run_well};
use crate::neighbour::tool;

const RELEASE: &str = ".github/workflows/release.yaml";
const PULL_REQUEST: &str = ".github/workflows/pull-request.yaml";

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

#[test]
fn zizmor_accepts_the_workflows_and_faults_a_bad_one() {
    let zizmor = |path: &std::path::Path| {
        let mut zizmor = Command::new(tool("zizmor"));
        zizmor.args(["--offline", "--no-config", "--no-progress", "--persona=pedantic"]).arg(path);
        run(&mut zizmor, "")
    };
    for workflow in [RELEASE, PULL_REQUEST] {
        zizmor(&file(workflow)).unwrap_or_else(|error| panic!("{error}"));
    }
    let folder = tempfile::tempdir().expect("a folder");
    let bad = folder.path().join("bad.yaml");
    let text = fs::read_to_string(file(RELEASE)).expect("the workflow");
    fs::write(&bad, text.replace("permissions: {}", "permissions: write-all")).expect("a disk");
    let found = zizmor(&bad).expect_err("it looks at all");
    assert!(found.contains("excessive-permissions"), "{found}");
}

#[test]
fn the_workflow_runs_the_tests_before_it_publishes_anything() {
    let text = fs::read_to_string(file(RELEASE)).expect("the workflow");
    let workflow = &documents(&text)[0];
    let jobs = workflow["jobs"].as_object().expect("jobs");
    assert!(jobs["test"]["steps"].to_string().contains("tests/run"), "{text}");
    // Every job that may write waits for the tests, directly or through another job.
    let waits_for = |job: &str| -> Vec<String> {
        let needs = &jobs[job]["needs"];
        let one = needs.as_str().into_iter();
        let many = needs.as_array().into_iter().flatten().filter_map(|need| need.as_str());
        one.chain(many).map(str::to_owned).collect()
    };
    for (name, job) in jobs {
        if job["permissions"].to_string().contains("write") {
            let mut open = waits_for(name);
            while let Some(next) = open.pop() {
                if next == "test" {
                    open = vec!["test".into()];
                    break;
                }
                open.extend(waits_for(&next));
            }
            assert_eq!(open, ["test"], "{name} waits for the tests");
        }
    }
    for architecture in ["amd64", "arm64"] {
        assert!(text.contains(&format!("linux/{architecture}")), "{architecture}");
    }
}

/// Returns the text that a step's commands write to `GITHUB_ENV`, in a repository whose name has capitals.
fn environment_after(step: &Value) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    let left = folder.path().join("env");
    let mut bash = Command::new("bash");
    bash.args(["-eo", "pipefail", "-c", step["run"].as_str().expect("commands")]);
    bash.env("GITHUB_ENV", &left).env("REGISTRY", "ghcr.io");
    bash.env("GITHUB_REPOSITORY", "Acme-Corp/Velt-Sidecar");
    run_well(&mut bash, "");
    fs::read_to_string(left).expect("it is written")
}

#[test]
fn names_of_images_are_lower_case_in_any_repository() {
    let text = fs::read_to_string(file(RELEASE)).expect("the workflow");
    let workflow = &documents(&text)[0];
    let jobs = workflow["jobs"].as_object().expect("jobs");
    let mut named = 0;
    for (name, job) in jobs {
        let steps = job["steps"].as_array().expect("steps");
        let uses = |step: &Value| step.to_string().contains("IMAGE");
        let Some(first) = steps.iter().find(|step| uses(step)) else { continue };
        let left = environment_after(first);
        assert_eq!(left, "IMAGE=ghcr.io/acme-corp/velt-sidecar\n", "{name}");
        named += 1;
    }
    assert_eq!(named, 2, "of the image, and of what is published");
    // The contexts have the name as written, and no function to change it.
    for as_written in ["github.repository }}", "github.repository_owner"] {
        assert!(!text.contains(as_written), "{as_written}");
    }
    assert!(text.contains("${GITHUB_REPOSITORY_OWNER,,}/charts"), "{text}");
}

//! The workflows: what a linter finds, the order of jobs, their rights, and names in repositories of any spelling.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use serde_json::{Map, Value};

use super::{documents, file, run, run_well};
use crate::neighbour::tool;

const RELEASE: &str = ".github/workflows/release.yaml";
const BUILD: &str = ".github/workflows/build.yaml";
const PULL_REQUEST: &str = ".github/workflows/pull-request.yaml";

fn read(workflow: &str) -> String {
    fs::read_to_string(file(workflow)).expect("the workflow")
}

fn jobs(workflow: &str) -> Map<String, Value> {
    documents(&read(workflow))[0]["jobs"].as_object().expect("jobs").clone()
}

/// Returns the names of the jobs that must end before the named job, directly or through another job.
fn earlier(jobs: &Map<String, Value>, job: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut open = vec![job.to_owned()];
    while let Some(next) = open.pop() {
        let needs = &jobs[&next]["needs"];
        let one = needs.as_str().into_iter();
        let many = needs.as_array().into_iter().flatten().filter_map(Value::as_str);
        for need in one.chain(many) {
            if found.insert(need.to_owned()) {
                open.push(need.to_owned());
            }
        }
    }
    found
}

fn steps(job: &Value) -> &[Value] {
    job["steps"].as_array().map_or(&[], Vec::as_slice)
}

#[test]
fn zizmor_accepts_the_workflows_and_faults_a_bad_one() {
    let zizmor = |path: &Path| {
        let mut zizmor = Command::new(tool("zizmor"));
        zizmor.args(["--offline", "--no-config", "--no-progress", "--persona=pedantic"]).arg(path);
        run(&mut zizmor, "")
    };
    for workflow in [RELEASE, BUILD, PULL_REQUEST] {
        zizmor(&file(workflow)).unwrap_or_else(|error| panic!("{error}"));
    }
    let folder = tempfile::tempdir().expect("a folder");
    let bad = folder.path().join("bad.yaml");
    fs::write(&bad, read(RELEASE).replace("permissions: {}", "permissions: write-all"))
        .expect("a disk");
    let found = zizmor(&bad).expect_err("it looks at all");
    assert!(found.contains("excessive-permissions"), "{found}");
}

#[test]
fn release_runs_the_tests_before_it_publishes_anything() {
    let release = jobs(RELEASE);
    let tests = release["test"]["steps"].to_string();
    assert!(tests.contains("\"tests/run\""), "{tests}");
    for (name, job) in &release {
        if job["permissions"].to_string().contains("write") {
            assert!(earlier(&release, name).contains("test"), "{name} waits for the tests");
        }
    }
    assert_eq!(release["build"]["uses"], format!("./{BUILD}"));
}

#[test]
fn release_has_the_conformance_page_of_its_tests() {
    let jobs = jobs(RELEASE);
    let of_tests = steps(&jobs["test"]);
    let run = of_tests.iter().position(|step| step["run"] == "tests/run").expect("the tests");
    assert!(of_tests[run]["env"]["VELT_SIDECAR_RECORDS"].is_string(), "{}", of_tests[run]);
    let kept = &of_tests[run + 1];
    assert_eq!(kept["with"]["path"], "docs/conformance.*", "{kept}");
    let number = jobs["test"]["outputs"]["conformance"].as_str().expect("its number");
    assert_eq!(
        number,
        format!("${{{{ steps.{}.outputs.artifact-id }}}}", kept["id"].as_str().expect("an id"))
    );
    let published = jobs["publish"]["steps"].to_string();
    assert!(published.contains("needs.test.outputs.conformance"), "{published}");
    assert!(published.contains("conformance/conformance.{md,json} dist/"), "{published}");
}

#[test]
fn release_publishes_only_what_was_built_twice() {
    let build = jobs(BUILD);
    let again = build["again"]["steps"].to_string();
    assert!(again.contains("deploy/reproduce --profile"), "{again}");
    let image = build["image"]["steps"].to_string();
    assert!(image.contains("cmp from-image binary/velt-sidecar"), "{image}");
    // The last job of the build waits for both, and the release waits for the build.
    let before = earlier(&build, "index");
    assert!(before.contains("again") && before.contains("image"), "{before:?}");
    assert!(earlier(&jobs(RELEASE), "publish").contains("build"));
    for name in ["train", "binary", "again", "image"] {
        let matrix = build[name]["strategy"]["matrix"]["include"].to_string();
        for target in ["x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"] {
            assert!(matrix.contains(target), "{name}: {target}");
        }
    }
}

#[test]
fn rehearsal_has_no_step_that_publishes() {
    let only_tags = "github.ref_type == 'tag' && github.event_name == 'push'";
    let release = jobs(RELEASE);
    let publish = release["build"]["with"]["publish"].as_str().expect("an expression");
    assert_eq!(publish, format!("${{{{ {only_tags} }}}}"));
    assert_eq!(release["publish"]["if"], only_tags);
    let build = jobs(BUILD);
    for (name, job) in &build {
        if job["if"] == "inputs.publish" {
            continue;
        }
        for step in steps(job) {
            let text = step.to_string();
            let writes = ["attest-build", "push=true", "login-action"]
                .iter()
                .any(|word| text.contains(word));
            assert!(!writes || step["if"] == "inputs.publish", "{name}: {text}");
        }
    }
}

#[test]
fn provenance_comes_from_the_called_workflow_alone() {
    // A caller could build something else and have it attested.
    assert!(!read(RELEASE).contains("attest-build-provenance"));
    let build = &documents(&read(BUILD))[0];
    let inputs = build["on"]["workflow_call"]["inputs"].as_object();
    // YAML 1.1 reads the key `on` as true.
    let inputs = inputs.or_else(|| build["true"]["workflow_call"]["inputs"].as_object());
    let names: Vec<_> = inputs.expect("inputs").keys().collect();
    assert_eq!(names, ["publish"], "nothing that gets into the build");
    for name in ["attest", "image", "index"] {
        let job = &jobs(BUILD)[name];
        assert!(job["steps"].to_string().contains("attest-build-provenance"), "{name}");
    }
    assert!(earlier(&jobs(BUILD), "attest").contains("again"), "only what was built twice");
}

#[test]
fn code_of_others_runs_only_in_jobs_without_rights() {
    // A build script can read the token that asks for the job's identity, and sign what it likes.
    let mut found = Vec::new();
    for workflow in [RELEASE, BUILD] {
        for (name, job) in &jobs(workflow) {
            let commands = steps(job).iter().filter_map(|step| step["run"].as_str());
            let commands: String = commands.collect();
            let words =
                ["cargo ", "deploy/optimized", "deploy/reproduce", "deploy/package", "tests/run"];
            if words.iter().any(|word| commands.contains(word)) {
                assert!(!job["permissions"].to_string().contains("write"), "{name}");
                found.push(name.clone());
            }
        }
    }
    assert_eq!(found, ["contents", "test", "again", "binary", "train"]);
}

#[test]
fn jobs_take_only_the_artifacts_that_earlier_jobs_name() {
    // A job of the caller can store an artifact of any name, but not one with a number that is taken.
    let mut taken = 0;
    for workflow in [RELEASE, BUILD] {
        for (name, job) in &jobs(workflow) {
            let downloads = steps(job).iter().filter(|step| {
                step["uses"]
                    .as_str()
                    .is_some_and(|uses| uses.starts_with("actions/download-artifact@"))
            });
            for with in downloads.map(|step| &step["with"]) {
                assert!(with["name"].is_null() && with["pattern"].is_null(), "{name}: {with}");
                let ids = with["artifact-ids"].as_str().unwrap_or_else(|| panic!("{name}: {with}"));
                let expected: &[&str] = match (workflow, with["path"].as_str()) {
                    (RELEASE, Some("dist")) => &["needs.build.outputs.dist"],
                    (RELEASE, Some("contents")) => &["needs.contents.outputs.number"],
                    (RELEASE, Some("conformance")) => &["needs.test.outputs.conformance"],
                    (BUILD, Some("dist")) => &["steps.choose.outputs.dist"],
                    (BUILD, Some("binary")) => &["steps.choose.outputs.binary"],
                    _ => &["steps.choose.outputs.counts"],
                };
                let ids = ids.strip_prefix("${{ ").and_then(|ids| ids.strip_suffix(" }}"));
                assert!(expected.contains(&ids.expect("an expression")), "{name}: {with}");
                taken += 1;
            }
        }
    }
    assert_eq!(taken, 10, "counts and binary thrice each, and files of the release");
    let build = jobs(BUILD);
    for machine in ["x86_64", "aarch64"] {
        let dist = format!("dist-{machine}");
        for (job, output) in
            [("train", machine), ("binary", machine), ("binary", &dist), ("image", machine)]
        {
            let told = &build[job]["outputs"][output];
            assert_eq!(*told, format!("${{{{ steps.note.outputs.{output} }}}}"), "{job}");
            let line = format!("{}$MACHINE=", output.strip_suffix(machine).expect("its end"));
            assert!(build[job]["steps"].to_string().contains(&line), "{job}: {output}");
        }
    }
}

#[test]
fn job_without_the_number_of_an_artifact_fails() {
    for (name, job) in &jobs(BUILD) {
        let choice = steps(job).iter().find(|step| step["id"] == "choose");
        let Some(step) = choice else { continue };
        let variables: Vec<_> = step["env"].as_object().expect("variables").keys().collect();
        for (machine, left_out) in [("aarch64", ""), ("aarch64", "AARCH64"), ("x86_64", "X86_64")] {
            let folder = tempfile::tempdir().expect("a folder");
            let output = folder.path().join("output");
            let mut bash = Command::new("bash");
            bash.args(["-eo", "pipefail", "-c", step["run"].as_str().expect("commands")]);
            for variable in &variables {
                let is_left_out = !left_out.is_empty() && variable.starts_with(left_out);
                bash.env(variable, if is_left_out { "" } else { variable.as_str() });
            }
            bash.env("MACHINE", machine).env("GITHUB_OUTPUT", &output);
            assert_eq!(run(&mut bash, "").is_ok(), left_out.is_empty(), "{name}: {machine}");
            if left_out.is_empty() {
                let told = fs::read_to_string(output).expect("it is written");
                for line in told.lines() {
                    let (kind, number) = line.split_once('=').expect("a name and a value");
                    assert_eq!(number, format!("AARCH64_{}", kind.to_uppercase()), "{name}");
                }
            }
        }
    }
}

#[test]
fn release_goes_on_only_when_it_is_known_to_be_unpublished() {
    let release = jobs(RELEASE);
    let commands = steps(&release["unpublished"])[0]["run"].as_str().expect("commands");
    let folder = tempfile::tempdir().expect("a folder");
    let gh = folder.path().join("gh");
    let path = format!("{}:/usr/bin:/bin", folder.path().display());
    for (answer, goes_on) in [
        ("true", true),
        ("printf 'v0.0.9\\nv0.1.01\\nv0x1.0\\n'", true),
        ("printf 'v0.0.9\\nv0.1.0\\n'", false),
        ("echo 'HTTP 502' >&2; exit 1", false),
    ] {
        fs::write(&gh, format!("#!/bin/sh\n{answer}\n")).expect("a script");
        fs::set_permissions(&gh, Permissions::from_mode(0o755)).expect("it can be run");
        let mut bash = Command::new("bash");
        bash.args(["-eo", "pipefail", "-c", commands]).env("PATH", &path);
        bash.env("GITHUB_REPOSITORY", "acme/velt-sidecar").env("GITHUB_REF_NAME", "v0.1.0");
        assert_eq!(run(&mut bash, "").is_ok(), goes_on, "{answer}");
    }
}

#[test]
fn actions_are_named_by_commits() {
    for workflow in [RELEASE, BUILD, PULL_REQUEST] {
        for line in read(workflow).lines().filter(|line| line.contains("uses: ")) {
            let (_, action) = line.split_once("uses: ").expect("filtered");
            if action.starts_with("./") {
                continue;
            }
            let (_, reference) = action.split_once('@').unwrap_or_else(|| panic!("{line}"));
            let (commit, version) = reference.split_once(" # v").unwrap_or((reference, ""));
            let is_commit = commit.len() == 40 && commit.chars().all(|c| c.is_ascii_hexdigit());
            assert!(is_commit && !version.is_empty(), "{workflow}: {line}");
        }
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
    let mut named = 0;
    for workflow in [RELEASE, BUILD] {
        for (name, job) in &jobs(workflow) {
            let uses = |step: &&Value| step.to_string().contains("IMAGE");
            let Some(first) = steps(job).iter().find(uses) else { continue };
            let left = environment_after(first);
            assert_eq!(left, "IMAGE=ghcr.io/acme-corp/velt-sidecar\n", "{name}");
            named += 1;
        }
        // The contexts have the name as written, and no function to change it.
        for as_written in ["github.repository }}", "github.repository_owner"] {
            assert!(!read(workflow).contains(as_written), "{workflow}: {as_written}");
        }
    }
    assert_eq!(named, 3, "the images, their index, and what is published");
    assert!(read(RELEASE).contains("${GITHUB_REPOSITORY_OWNER,,}/charts"));
}

#[test]
fn commands_of_workflows_are_valid_shell() {
    let mut checked = 0;
    for workflow in [RELEASE, BUILD] {
        let shell = &documents(&read(workflow))[0]["defaults"]["run"]["shell"];
        assert_eq!(*shell, "bash", "{workflow}: a container's own is sh");
    }
    for workflow in [RELEASE, BUILD, PULL_REQUEST] {
        for (name, job) in &jobs(workflow) {
            for commands in steps(job).iter().filter_map(|step| step["run"].as_str()) {
                // Expressions would be put in before the shell reads the commands: a template injection.
                assert!(!commands.contains("${{"), "{name}: {commands}");
                run_well(Command::new("bash").arg("-n"), commands);
                checked += 1;
            }
        }
    }
    assert!(checked > 30, "only {checked}");
}

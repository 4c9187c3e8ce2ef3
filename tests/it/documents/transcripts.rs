//! Fenced blocks of documents: what shows output is a transcript, and each transcript is what the commands print.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use super::session::{Session, all_sessions, blocks, documents};
use crate::support::app::FakeApp;

/// Transcripts that another test runs, since they need more than a shell: page, heading, test.
const ELSEWHERE: [(&str, &str, &str); 1] =
    [("docs/kubernetes.md", "With Kustomize", "transcript_of_chosen_is_what_it_prints")];

/// Languages of blocks that show what is not a command: files, log lines, drawings.
const NO_COMMANDS: [&str; 22] = [
    "apache",
    "caddyfile",
    "diff",
    "haproxy",
    "html",
    "ini",
    "java",
    "js",
    "json",
    "jsx",
    "nginx",
    "php",
    "promql",
    "python",
    "ruby",
    "rust",
    "text",
    "toml",
    "ts",
    "tsx",
    "xml",
    "yaml",
];

/// Programs, words of the shell and scripts of the repository with which a line of an `sh` block may begin.
const COMMANDS: &[&str] = &[
    "/sources/deploy/reproduce",
    "apt-get",
    "aws",
    "az",
    "benches/peers/run",
    "cargo",
    "cd",
    "chown",
    "cosign",
    "cp",
    "curl",
    "deploy/kustomize/chosen",
    "deploy/optimized",
    "deploy/package",
    "diff",
    "docker",
    "done",
    "dpkg",
    "editor",
    "examples/run",
    "exec",
    "export",
    "fly",
    "for",
    "fuzz/run",
    "gcloud",
    "gh",
    "git",
    "grype",
    "helm",
    "install",
    "just",
    "kill",
    "kubectl",
    "ln",
    "man",
    "mkdir",
    "mv",
    "nomad",
    "npm",
    "openssl",
    "printf",
    "redis-server",
    "sha256sum",
    "sleep",
    "sudo",
    "systemctl",
    "tar",
    "tests/run",
    "trivy",
    "umask",
    "until",
    "velt-sidecar",
    "wait",
    "while",
];

fn is_elsewhere(session: &Session) -> bool {
    ELSEWHERE.iter().any(|(page, heading, _)| session.name() == format!("{page}, {heading:?}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transcripts_are_what_the_commands_print() {
    let app = FakeApp::start().await;
    let mut compared = 0;
    for session in all_sessions() {
        if session.needs_other_programs() || is_elsewhere(&session) {
            continue;
        }
        let address = app.address;
        let path = std::env::var("PATH").unwrap_or_default();
        let running = tokio::task::spawn_blocking(move || session.assert_prints(address, &path));
        if let Err(failed) = running.await {
            std::panic::resume_unwind(failed.into_panic());
        }
        compared += 1;
    }
    assert!(compared >= 10, "only {compared} transcripts");
}

#[test]
fn each_transcript_has_a_test() {
    let sessions = all_sessions();
    for session in &sessions {
        let name = session.name();
        assert!(
            !session.is_forbidden() || is_elsewhere(session),
            "{name} may change other machines"
        );
    }
    let names: BTreeSet<_> = sessions.iter().map(Session::name).collect();
    for (page, heading, test) in ELSEWHERE {
        assert!(names.contains(&format!("{page}, {heading:?}")), "{page}: no transcript {heading}");
        let source = fs::read_to_string("tests/real/deploy/chosen.rs").expect("the tests");
        assert!(source.contains(&format!("fn {test}()")), "{page}: there is no test {test}");
    }
}

#[test]
fn blocks_of_commands_show_no_output() {
    for page in documents() {
        let text = fs::read_to_string(&page).expect("a document");
        for (_, block) in blocks(&text) {
            let place = format!("{}:{}", page.display(), block.line);
            match &*block.language {
                "sh" => assert_commands_alone(&place, &block.text),
                "console" => assert_shows_output(&place, &block.text),
                other => assert!(NO_COMMANDS.contains(&other), "{place}: a block in {other:?}"),
            }
        }
    }
}

/// Asserts that a block can be copied into a shell.
fn assert_commands_alone(place: &str, text: &str) {
    let bash = Command::new("bash").args(["-n", "-c", text]).output().expect("bash is installed");
    assert!(bash.status.success(), "{place}: {}", String::from_utf8_lossy(&bash.stderr));
    for line in text.replace("\\\n", " ").lines() {
        assert!(!line.starts_with("$ "), "{place}: a prompt can't be copied: {line}");
        let first = first_word(line);
        let is_known = first.is_empty()
            || COMMANDS.contains(&first)
            || text.contains(&format!("{first}() {{"));
        assert!(is_known, "{place}: {first:?} is no command, or add it to COMMANDS: {line}");
    }
}

/// Returns the word of a line that names a command, without variables before it. It is empty where there is none.
fn first_word(line: &str) -> &str {
    let mut rest = line.trim_start();
    loop {
        let is_name = |sign: char| sign.is_ascii_alphanumeric() || sign == '_';
        let after = rest.trim_start_matches(is_name);
        let is_comment = rest.starts_with(['#', '}', '{']);
        if is_comment || rest.is_empty() || after.starts_with("() {") {
            return "";
        }
        let Some(value) = after.strip_prefix('=').filter(|_| after.len() < rest.len()) else {
            return rest.split([' ', ';']).next().unwrap_or(rest);
        };
        rest = after_value(value);
    }
}

/// Skips a value, in quotes or in `$(...)`, and the space behind it.
fn after_value(value: &str) -> &str {
    let (mut depth, mut quote) = (0, None);
    for (at, sign) in value.char_indices() {
        match (sign, quote) {
            (_, Some(open)) if sign == open => quote = None,
            ('\'' | '"', None) => quote = Some(sign),
            ('(', None) => depth += 1,
            (')', None) => depth -= 1,
            (' ', None) if depth == 0 => return value[at..].trim_start(),
            _ => {}
        }
    }
    ""
}

fn assert_shows_output(place: &str, text: &str) {
    assert!(text.starts_with("$ "), "{place}: a transcript begins with a command");
    let shown = text.lines().filter(|line| !line.starts_with("$ ")).count();
    assert!(
        shown > 0,
        "{place}: without output it is a block of commands: write sh, without prompts"
    );
}

#[test]
fn first_words_are_found_behind_variables() {
    for (line, word) in [
        ("curl -i x", "curl"),
        ("A=b C=\"d e\" curl", "curl"),
        ("key=$(printf %s \"$X\" | cut -c1-2)", ""),
        ("id=\"msg_$(openssl rand -hex 12)\" time=$(date +%s) body='{\"a\": 1}'", ""),
        ("# a comment", ""),
        ("replica() {", ""),
        ("answered with a token: 9033", "answered"),
    ] {
        assert_eq!(first_word(line), word, "{line}");
    }
}

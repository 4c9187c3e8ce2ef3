//! Checks the language of texts that a person reads: messages of the program, documents, deployment files,
//! the demo's page, and `#` comments.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Line, OF_ONE_PERSON, VAGUE, collect, lines_with};

/// Folders and files of which each line is checked.
const TEXTS: [&str; 12] = [
    ".github",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "README.md",
    "SECURITY.md",
    "deploy",
    "docs",
    "examples",
    "sidecar.toml",
    "src/tools/demo/page",
    "src/tools/emulator/browser-sdk.js",
];

/// Ends of the names of files that have `#` comments. Scripts without an ending begin with `#!`.
const WITH_COMMENTS: [&str; 11] =
    ["cfg", "conf", "env", "gitignore", "py", "sh", "toml", "tpl", "txt", "yaml", "yml"];

/// Folders with files that are not the project's own.
const NOT_OURS: [&str; 7] =
    [".git", ".next", ".venv", "corpus", "node_modules", "packages", "target"];

/// The one vague word that a setting has as a value (`tracing.sampled_by`), in quotes.
const VALUE: &str = "\"anyone\"";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Adds the files at or below `path`.
fn walk(path: &Path, files: &mut Vec<PathBuf>) {
    if !path.is_dir() {
        files.push(path.to_owned());
        return;
    }
    for entry in fs::read_dir(path).expect("a folder") {
        let path = entry.expect("an entry").path();
        if !NOT_OURS.iter().any(|name| path.ends_with(name)) {
            walk(&path, files);
        }
    }
}

/// Returns each file's name and text, without files that are not text.
fn read(files: &[PathBuf]) -> impl Iterator<Item = (String, String)> {
    files.iter().filter_map(|file| {
        let text = fs::read_to_string(file).ok()?;
        let name = file.strip_prefix(root()).expect("below the root").display().to_string();
        Some((name, text))
    })
}

fn line(name: &str, number: usize, text: &str) -> Line {
    let text = text.replace("\\\"", "\"").replace(VALUE, "");
    Line { place: format!("{name}:{number}"), text, begins: false }
}

/// Returns the lines of a text. Code between backticks is left out: names of tests have rules of their own.
fn prose(name: &str, text: &str) -> Vec<Line> {
    let outside = |text: &str| text.split('`').step_by(2).collect::<String>();
    text.lines().zip(1..).map(|(text, number)| line(name, number, &outside(text))).collect()
}

/// Returns the comments that begin with `#`.
fn hash_comments(name: &str, text: &str) -> Vec<Line> {
    let comment = |text: &str| {
        let alone = text.trim_start().strip_prefix('#').map(str::to_owned);
        alone.or_else(|| text.split_once(" # ").map(|(_, comment)| comment.to_owned()))
    };
    let lines = text.lines().zip(1..);
    lines.filter_map(|(text, number)| Some(line(name, number, &comment(text)?))).collect()
}

/// Returns the string literals of Rust code up to its unit tests.
fn literals(name: &str, code: &str) -> Vec<Line> {
    let end = code.find("#[cfg(test)]\nmod ").unwrap_or(code.len());
    let code = &code[..end];
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(offset) = code[at..].find(['"', '/', '\'']) {
        let start = at + offset;
        let rest = &code[start..];
        at = start + 1;
        if rest.starts_with("//") {
            at = start + rest.find('\n').unwrap_or(rest.len());
        } else if rest.starts_with("'\"'") || rest.starts_with("'\\") {
            at = start + 3;
        } else if let Some(inner) = rest.strip_prefix('"') {
            let before = code[..start].trim_end_matches('#');
            let hashes = start - before.len();
            let length = if before.ends_with('r') {
                inner.find(&format!("\"{}", "#".repeat(hashes)))
            } else {
                let mut escaped = false;
                inner.find(|sign| {
                    let ends = sign == '"' && !escaped;
                    escaped = sign == '\\' && !escaped;
                    ends
                })
            };
            let text = &inner[..length.expect("the literal's end")];
            at = start + text.len() + 2;
            let number = code[..start].lines().count();
            if format!("\"{text}\"") != VALUE {
                found.push(line(name, number, text));
            }
        }
    }
    found
}

/// Asserts that none of the lines has a word that leaves open who acts, or a word for one person.
fn assert_plain(lines: &[Line], at_least: usize) {
    assert!(lines.len() > at_least, "only {} lines: the files have moved", lines.len());
    assert_eq!(lines_with(&VAGUE, lines), [""; 0], "name who acts");
    assert_eq!(lines_with(&OF_ONE_PERSON, lines), [""; 0], "a person is they");
}

#[test]
fn messages_name_who_acts() {
    let mut files = Vec::new();
    collect(&root().join("src"), &mut files);
    // Modules of unit tests in files of their own.
    files.retain(|file| !file.ends_with("tests.rs") && !file.iter().any(|part| part == "tests"));
    let lines: Vec<_> = read(&files).flat_map(|(name, code)| literals(&name, &code)).collect();
    assert_plain(&lines, 3_000);
}

#[test]
fn documents_name_who_acts() {
    let mut files = Vec::new();
    for path in TEXTS {
        walk(&root().join(path), &mut files);
    }
    let lines: Vec<_> = read(&files).flat_map(|(name, text)| prose(&name, &text)).collect();
    assert_plain(&lines, 8_000);
}

#[test]
fn hash_comments_name_who_acts() {
    let mut files = Vec::new();
    walk(root(), &mut files);
    let lines = read(&files).filter(|(name, text)| {
        let ending = Path::new(name).extension();
        let listed =
            ending.is_some_and(|ending| WITH_COMMENTS.iter().any(|other| ending == *other));
        listed || text.starts_with("#!") || name.ends_with("Dockerfile")
    });
    let lines: Vec<_> = lines.flat_map(|(name, text)| hash_comments(&name, &text)).collect();
    assert_plain(&lines, 700);
}

#[test]
fn wrong_words_are_found_where_a_person_reads_them() {
    let [vague, other, ..] = VAGUE;
    let code = r##"
        // @ stands in a comment, which another test reads.
        const QUOTE: char = '"';
        let said = "@ \"asks\"";
        let raw = r#"a "path" of his"#;
        let value = ["anyone", "\"anyone\" or \"trusted_peers\""];
        let end = "plain";
#[cfg(test)]
mod tests { const NAME: &str = "@"; }
"##;
    let found = literals("a.rs", &code.replace('@', vague));
    assert_eq!(lines_with(&VAGUE, &found), [format!("a.rs:4: {vague} \"asks\"")]);
    assert_eq!(lines_with(&OF_ONE_PERSON, &found), ["a.rs:5: a \"path\" of his"]);
    assert!(found.iter().any(|line| line.text == "plain"), "the scan got out of step");

    let text = format!("{vague} is\n`t01_{vague}_is` and {other}-s\nset \"anyone\" or {vague}");
    let expected = [
        format!("a.md:1: {vague} is"),
        format!("a.md:2:  and {other}-s"),
        format!("a.md:3: set  or {vague}"),
    ];
    assert_eq!(lines_with(&VAGUE, &prose("a.md", &text)), expected);

    let script = format!("# {vague}\n{other}=1\nrun # for {other}\n    # he\n");
    let found = hash_comments("run", &script);
    let expected = [format!("run:1:  {vague}"), format!("run:3: for {other}")];
    assert_eq!(lines_with(&VAGUE, &found), expected);
    assert_eq!(lines_with(&OF_ONE_PERSON, &found), ["run:4:  he"]);
}

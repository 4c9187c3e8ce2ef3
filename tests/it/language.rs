//! Checks the language of comments: plain words, and doc comments that begin with a noun or a verb.

use std::fs;
use std::path::{Path, PathBuf};

mod text;

/// Words that leave open who acts. A comment names the client, the login proxy, the app or the operator.
const VAGUE: [&str; 11] = [
    "whoever",
    "whatever",
    "whichever",
    "nobody",
    "anybody",
    "somebody",
    "everybody",
    "someone",
    "anyone",
    "everyone",
    "whomever",
];

/// Most of these words in 1,000 lines of comments.
const MOST_VAGUE: usize = 2;

/// Words for one person. A user, a client or an operator is "they".
const OF_ONE_PERSON: [&str; 4] = ["he", "his", "him", "himself"];

/// Prepositions, pronouns and question words with which no doc comment begins.
const WRONG_BEGINNINGS: [&str; 39] = [
    "After", "Among", "As", "At", "Before", "Behind", "Beside", "Between", "By", "For", "From",
    "How", "In", "It", "Its", "Like", "Of", "On", "Over", "Since", "Such", "That", "Their",
    "These", "They", "This", "Those", "Through", "To", "Under", "Until", "What", "When", "Where",
    "Which", "Who", "Whose", "With", "Without",
];

/// One comment line of a file.
struct Line {
    /// File and line, for the message.
    place: String,
    text: String,
    /// Whether the line is the first of a doc comment.
    begins: bool,
}

/// All comment lines of the sources, tests, benches and fuzz targets.
fn comment_lines() -> Vec<Line> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for folder in ["src", "tests/it", "tests/real", "benches", "fuzz"] {
        collect(&root.join(folder), &mut files);
    }
    let mut lines = Vec::new();
    for file in files {
        let source = fs::read_to_string(&file).expect("a source file");
        let name = file.strip_prefix(root).expect("below the root").display().to_string();
        let mut in_doc = false;
        for (index, line) in source.lines().enumerate() {
            let comment = line.trim_start().strip_prefix("//");
            let doc = comment.and_then(|rest| rest.strip_prefix(['/', '!']));
            if let Some(text) = doc.or(comment) {
                let place = format!("{name}:{}", index + 1);
                let begins = doc.is_some() && !in_doc;
                lines.push(Line { place, text: text.trim().to_owned(), begins });
            }
            in_doc = doc.is_some();
        }
    }
    assert!(lines.len() > 3_000, "the folders have moved");
    lines
}

/// Adds the Rust files below `folder`, without installed packages and build results.
fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let is_own = !path.ends_with("node_modules") && !path.ends_with("target");
        if path.is_dir() && is_own {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// Places of the lines in which one of `words` stands, with the line.
fn lines_with(words: &[&str], lines: &[Line]) -> Vec<String> {
    let has_word = |text: &str| {
        let mut parts = text.split(|sign: char| !sign.is_alphanumeric());
        parts.any(|part| words.iter().any(|word| part.eq_ignore_ascii_case(word)))
    };
    let found = lines.iter().filter(|line| has_word(&line.text));
    found.map(|line| format!("{}: {}", line.place, line.text)).collect()
}

#[test]
fn comments_name_who_acts() {
    let lines = comment_lines();
    let vague = lines_with(&VAGUE, &lines);
    assert!(
        vague.len() * 1_000 <= MOST_VAGUE * lines.len(),
        "{} vague words in {} lines of comments; name who acts:\n{}",
        vague.len(),
        lines.len(),
        vague.join("\n")
    );
}

#[test]
fn comments_call_a_person_they() {
    assert_eq!(lines_with(&OF_ONE_PERSON, &comment_lines()), [""; 0]);
}

#[test]
fn doc_comments_begin_with_a_noun_or_a_verb() {
    let begins_wrong = |line: &&Line| {
        let first = line.text.split(|sign: char| !sign.is_alphanumeric()).next();
        line.begins && first.is_some_and(|first| WRONG_BEGINNINGS.contains(&first))
    };
    let lines = comment_lines();
    let wrong: Vec<_> = lines.iter().filter(begins_wrong).collect();
    let wrong: Vec<_> =
        wrong.into_iter().map(|line| format!("{}: {}", line.place, line.text)).collect();
    assert_eq!(wrong, [""; 0]);
}

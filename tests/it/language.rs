//! Checks the language of comments and of names of tests: plain words, doc comments that begin with a noun or
//! a verb, and names that begin with their subject.

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

/// Length of the longest test name, with its prefix.
const LONGEST_NAME: usize = 60;

/// Words with which no test name begins, besides [`WRONG_BEGINNINGS`].
const WRONG_NAME_BEGINNINGS: [&str; 7] = ["during", "if", "neither", "nor", "so", "there", "while"];

/// One comment line of a file.
struct Line {
    /// File and line, for the message.
    place: String,
    text: String,
    /// Whether the line is the first of a doc comment or of a paragraph of it.
    begins: bool,
}

/// All comment lines of the sources, tests, benches and fuzz targets.
fn comment_lines() -> Vec<Line> {
    let mut lines = Vec::new();
    for (name, source) in sources() {
        let mut in_doc = false;
        for (index, line) in source.lines().enumerate() {
            let comment = line.trim_start().strip_prefix("//");
            let doc = comment.and_then(|rest| rest.strip_prefix(['/', '!']));
            if let Some(text) = doc.or(comment) {
                let place = format!("{name}:{}", index + 1);
                let begins = doc.is_some() && !in_doc;
                lines.push(Line { place, text: text.trim().to_owned(), begins });
            }
            // An empty line ends a paragraph.
            in_doc = doc.is_some_and(|text| !text.trim().is_empty());
        }
    }
    assert!(lines.len() > 3_000, "the folders have moved");
    lines
}

/// Returns name and text of each file of the sources, tests, benches and fuzz targets.
fn sources() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for folder in ["src", "tests/it", "tests/real", "benches", "fuzz"] {
        collect(&root.join(folder), &mut files);
    }
    let read = |file: PathBuf| {
        let name = file.strip_prefix(root).expect("below the root").display().to_string();
        (name, fs::read_to_string(&file).expect("a source file"))
    };
    files.into_iter().map(read).collect()
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

/// Names of the functions below a test attribute, with the number of their line.
fn test_names(source: &str) -> Vec<(usize, &str)> {
    let mut names = Vec::new();
    let mut is_test = false;
    for (index, line) in source.lines().enumerate() {
        let line = line.trim_start();
        is_test |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
        let mut words = line.split(' ');
        if is_test && !line.starts_with("//") && words.any(|word| word == "fn") {
            let rest = words.next().unwrap_or_default();
            let end = rest.find(|sign: char| !sign.is_alphanumeric() && sign != '_');
            names.push((index + 1, &rest[..end.unwrap_or(rest.len())]));
            is_test = false;
        }
    }
    names
}

/// Returns what is wrong with the name of a test.
fn fault_of_name(name: &str) -> Option<String> {
    // A prefix is a letter and a number (`t08_`, `v1_`), or several of them (`t12_to_t23_`).
    let is_prefix = |word: &str| {
        let is_numbered = |number: &str| !number.is_empty() && number.parse::<u32>().is_ok();
        word.strip_prefix(char::is_alphabetic).is_some_and(is_numbered)
    };
    let words: Vec<_> = name.split('_').collect();
    let has_prefix = is_prefix(words[0]);
    let mut rest =
        words.iter().skip_while(|word| has_prefix && (is_prefix(word) || **word == "to"));
    let first = *rest.next().unwrap_or(&"");
    let is_vague = |word: &str| {
        let word = word.strip_suffix('s').unwrap_or(word);
        VAGUE.contains(&word)
    };
    if name.len() > LONGEST_NAME {
        return Some(format!("has {} characters: write at most {LONGEST_NAME}", name.len()));
    }
    if let Some(word) = words.iter().find(|word| is_vague(word) || OF_ONE_PERSON.contains(word)) {
        return Some(format!("has the word {word:?}: name who acts (client, app, Velt, operator)"));
    }
    let begins = |words: &[&str]| words.iter().any(|word| word.eq_ignore_ascii_case(first));
    (begins(&WRONG_BEGINNINGS) || begins(&WRONG_NAME_BEGINNINGS)).then(|| {
        format!("begins with {first:?}: begin with the subject (refresh_failure_keeps_valid_token)")
    })
}

#[test]
fn test_names_have_a_subject_and_no_vague_word() {
    let (mut count, mut wrong) = (0, Vec::new());
    for (file, source) in sources() {
        for (line, name) in test_names(&source) {
            count += 1;
            let fault = fault_of_name(name);
            wrong.extend(fault.map(|fault| format!("{file}:{line}: {name} {fault}")));
        }
    }
    assert!(count > 900, "{count} tests: the folders have moved");
    assert!(wrong.is_empty(), "{} wrong names of tests:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn name_check_finds_each_fault() {
    let sample = [
        "#[test]",
        "fn client_gets_a_token() {}",
        "fn what_a_helper_does() {}",
        "    #[tokio::test(start_paused = true)]",
        "    #[ignore = \"fn of a reason\"]",
        "    // fn of a comment",
        "    async fn it_waits<T>() {}",
    ];
    let sample = sample.join("\n");
    assert_eq!(test_names(&sample), [(2, "client_gets_a_token"), (7, "it_waits")]);
    let longest = "x".repeat(LONGEST_NAME);
    for good in ["client_gets_a_token", "t12_to_t23_nginx_gets_no_more", "v1_mints", &longest] {
        assert_eq!(fault_of_name(good), None);
    }
    for (bad, part) in [
        (&*format!("{longest}x"), "has 61 characters"),
        ("client_gets_what_nobody_has", "\"nobody\""),
        ("token_is_nobodys", "\"nobodys\""),
        ("user_keeps_his_token", "\"his\""),
        ("to_the_app_goes_no_token", "begins with \"to\""),
        ("it_waits", "begins with \"it\""),
        ("t08_without_keys_no_user_is_named", "begins with \"without\""),
        ("t12_to_t23_what_is_forwarded_arrives", "begins with \"what\""),
        ("while_velt_is_down_no_token_is_lost", "begins with \"while\""),
    ] {
        let fault = fault_of_name(bad).unwrap_or_else(|| panic!("{bad} has no fault"));
        assert!(fault.contains(part), "{bad}: {fault}");
    }
}

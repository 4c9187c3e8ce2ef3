//! The glossary: each of its words is used elsewhere, and most of all on the page that it links.

use std::fs;
use std::path::Path;

/// Rows of the glossary: word, explanation, target of the link.
fn rows(page: &str) -> Vec<(&str, &str, &str)> {
    let mut rows = Vec::new();
    for row in page.lines().filter(|line| line.starts_with("| ") && line.contains("](")) {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let [word, meaning, more] = cells[..] else { panic!("three cells: {row}") };
        let (_, target) = more.split_once("](").expect("a link");
        rows.push((word, meaning, target.trim_end_matches(')')));
    }
    rows
}

/// Returns the text in lower case, with one space between words, since a word may go on in the next line.
fn plain(text: &str) -> String {
    text.to_lowercase().split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn words_of_the_glossary_are_used_where_it_links() {
    let page = fs::read_to_string("docs/glossary.md").expect("the glossary");
    let rows = rows(&page);
    assert!(rows.len() >= 30, "only {} words", rows.len());
    for (word, meaning, target) in &rows {
        let text = fs::read_to_string(Path::new("docs").join(target)).expect(target);
        let uses = plain(&text).matches(&*plain(word)).count();
        assert!(uses > 0, "{target} does not use {word:?}");
        assert!(
            meaning.len() > 20 && !meaning.ends_with('.'),
            "{word}: one phrase says what it is"
        );
    }
    assert!(rows.is_sorted_by_key(|(word, ..)| *word), "words stand in the order of the alphabet");
}

//! Checks the threat model's table: every row is there, and every test that a row names.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Collects the names of all functions of the tests and of the tests within the sources.
fn functions(folder: &Path, names: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            functions(&path, names);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("a source");
            names.extend(text.split("fn ").skip(1).map(|rest| {
                let end = rest.find(|char: char| !char.is_alphanumeric() && char != '_');
                rest[..end.unwrap_or(rest.len())].to_owned()
            }));
        }
    }
}

#[test]
fn docs_security_md_has_every_row_and_names_tests_that_exist() {
    let mut known = BTreeSet::new();
    for folder in ["src", "tests/it", "tests/real"] {
        functions(Path::new(folder), &mut known);
    }
    let text = fs::read_to_string("docs/security.md").expect("docs/security.md");
    let rows: Vec<_> = text.lines().filter(|line| line.starts_with("| T")).collect();
    let mut last = 0;
    for row in rows {
        let cells: Vec<_> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let number: usize = cells[0][1..].parse().expect("a number");
        // From T52 on, a row is added when the code that it asks for is there.
        assert!(number == last + 1 || number > last.max(51), "T{} is missing: {row}", last + 1);
        last = number;
        assert_eq!(cells.len(), 5, "{row}");
        let tests: Vec<_> = cells[3].split('`').skip(1).step_by(2).collect();
        assert!(!tests.is_empty() || cells[3].starts_with("none"), "T{number} says why: {row}");
        for test in tests {
            assert!(known.contains(test), "there is no test {test}, which T{number} names");
        }
    }
    assert!(last >= 51, "the table ends with T{last}");
}

//! Reading of a pasted curl command, for any text.

use tools::explain::curl::{parse, words};

/// # Panics
///
/// Panics if quoted words are not read back unchanged, or if `parse` makes a request without a target.
pub fn check(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let Ok(words) = words(text) else { return };
    let quoted: Vec<_> = words.iter().map(|word| quote(word)).collect();
    let again = tools::explain::curl::words(&quoted.join(" \\\n"));
    assert_eq!(again.as_ref(), Ok(&words), "quoted as bash quotes: {quoted:?}");
    let Ok((asked, notes)) = parse(&words) else { return };
    assert!(!asked.target.is_empty(), "a request without a target");
    assert!(notes.len() <= text.len(), "more notes than there was to note");
    for (name, _) in &asked.headers {
        assert!(
            !name.is_empty() || text.contains(':') || text.contains(';'),
            "a header of nothing"
        );
    }
}

/// Quotes `word` for bash, in single quotes.
fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

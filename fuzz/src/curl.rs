//! What is made of a pasted curl command, whatever stands in it.

use velt_sidecar::explain::curl::{parse, words};

/// # Panics
///
/// If words that are quoted are not read as they were, or a request comes of nothing.
pub fn check(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let Ok(words) = words(text) else { return };
    let quoted: Vec<_> = words.iter().map(|word| quote(word)).collect();
    let again = velt_sidecar::explain::curl::words(&quoted.join(" \\\n"));
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

/// As bash's `printf %q` has it.
fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

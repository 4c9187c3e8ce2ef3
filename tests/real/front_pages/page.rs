//! A page of `docs/fronts` or `docs/logins`: its fenced blocks, from which a test starts programs.

use std::fs;

/// Folder of the documents.
const DOCUMENTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs");

/// A page.
pub struct Page {
    name: &'static str,
    text: String,
}

impl Page {
    /// Reads the page of a front.
    pub fn named(name: &'static str) -> Self {
        Self::in_folder("fronts", name)
    }

    /// Reads a page of a folder below `docs`.
    pub fn in_folder(folder: &str, name: &'static str) -> Self {
        let file = format!("{DOCUMENTS}/{folder}/{name}.md");
        let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{file}: {error}"));
        Self { name, text }
    }

    /// Whether the page has this text, in one line or over several.
    pub fn says(&self, text: &str) -> bool {
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        words(&self.text).contains(&words(text))
    }

    /// Returns the fenced block number `number` in `language`, counted from 0.
    ///
    /// # Panics
    ///
    /// Panics if the page has no such block.
    pub fn block(&self, language: &str, number: usize) -> &str {
        let opening = format!("\n```{language}\n");
        let block = self.text.split(&*opening).nth(number + 1);
        let block = block.unwrap_or_else(|| panic!("{}: no {language} {number}", self.name));
        block.split("\n```").next().expect("split has a first part")
    }

    /// Returns the block with each `(from, to)` replaced by the reader's own values.
    ///
    /// # Panics
    ///
    /// Panics if a `from` is not in the block.
    pub fn filled(&self, language: &str, number: usize, own: &[(&str, &str)]) -> String {
        let mut text = self.block(language, number).to_owned();
        for (from, to) in own {
            assert!(text.contains(from), "{}: no {from:?} in {language} {number}", self.name);
            text = text.replace(from, to);
        }
        text
    }
}

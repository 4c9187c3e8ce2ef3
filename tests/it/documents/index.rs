//! The index of the documents, and the beginning of each page.

use std::fs;
use std::path::{Path, PathBuf};

use super::session::documents;

/// Headings of the index, in the order in which a reader needs them.
const ORDER: [&str; 11] = [
    "Try it",
    "Put it in front of your app",
    "Kubernetes",
    "Other platforms",
    "Logins",
    "Fronts",
    "The browser",
    "Operations",
    "Reference",
    "Security",
    "Decisions",
];

/// Words with which a page begins: what its reader can do afterwards.
const BEGINNING: &str = "After this page you can ";

fn read(page: &Path) -> String {
    fs::read_to_string(page).unwrap_or_else(|error| panic!("{}: {error}", page.display()))
}

fn pages() -> Vec<PathBuf> {
    let mut pages = documents();
    pages.retain(|page| page.starts_with("docs"));
    pages
}

/// A page of one decision has a form of its own: `docs/decisions/README.md` says what a reader can do with them.
fn is_decision(page: &Path) -> bool {
    page.starts_with("docs/decisions") && !page.ends_with("README.md")
}

#[test]
fn each_page_begins_with_what_a_reader_can_do() {
    for page in pages().iter().filter(|page| !is_decision(page)) {
        let text = read(page);
        let mut paragraphs = text.split("\n\n");
        let (title, first) = (paragraphs.next(), paragraphs.next());
        let place = page.display();
        assert!(title.is_some_and(|title| title.starts_with("# ")), "{place}: no title");
        let first = first.unwrap_or_default();
        assert!(first.starts_with(BEGINNING), "{place} begins with {first:?}, not {BEGINNING:?}");
    }
}

#[test]
fn index_has_the_order_in_which_a_reader_needs_it() {
    let index = read(Path::new("docs/README.md"));
    let headings: Vec<_> = index.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    assert_eq!(headings, ORDER);
}

/// Number of links to `target` in an index of `folder`.
fn links(index: &str, folder: &Path, target: &Path) -> usize {
    let entries = index.lines().filter(|line| line.starts_with("- ") || line.starts_with('|'));
    let linked = entries.flat_map(|line| line.split("](").skip(1));
    let linked = linked.map(|rest| folder.join(rest.split([')', '#']).next().unwrap_or(rest)));
    linked.filter(|path| path == target).count()
}

#[test]
fn index_names_each_page_once() {
    let index = read(Path::new("docs/README.md"));
    let docs = Path::new("docs");
    for page in pages() {
        let place = page.display();
        let folder = page.parent().expect("a folder");
        let own = folder.join("README.md");
        if page == own {
            let expected = usize::from(folder != docs);
            assert_eq!(links(&index, docs, &page), expected, "{place} in docs/README.md");
        } else if folder != docs && own.exists() {
            // Fronts and others name some pages twice, in tables of other subjects.
            assert!(links(&read(&own), folder, &page) > 0, "{place} is not in {}", own.display());
            assert_eq!(links(&index, docs, &page), 0, "{place} is in two indexes");
        } else {
            assert_eq!(links(&index, docs, &page), 1, "{place} in docs/README.md");
        }
    }
}

//! Checks of documents: the program accepts their configurations and prints their transcripts, their links lead
//! somewhere, and each page is in an index and begins with what the reader can do after it.

mod exit_codes;
mod glossary;
mod index;
mod session;
mod transcripts;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::support::binary::{CREDENTIALS, finished_in};

/// A folder with a page for each product of a kind, and an index.
struct Folder {
    path: &'static str,
    /// The sections of a page, in this order.
    sections: &'static [&'static str],
    /// Number of pages below which a page is missing.
    least: usize,
}

const FRONTS: Folder = Folder {
    path: "docs/fronts",
    sections: &[
        "## The front",
        "## The sidecar",
        "## What is believed, and why",
        "## The trap",
        "## See that it works",
    ],
    least: 15,
};

const GATEWAYS: Folder = Folder {
    path: "docs/gateways",
    sections: &[
        "## The gateway",
        "## The sidecar",
        "## What is believed, and why",
        "## The trap",
        "## See that it works",
    ],
    least: 7,
};

const LOGINS: Folder = Folder {
    path: "docs/logins",
    sections: &[
        "## The app",
        "## The sidecar",
        "## What is believed, and why",
        "## The trap",
        "## An expired session",
        "## See that it works",
    ],
    least: 12,
};

const PLATFORMS: Folder = Folder {
    path: "docs/platforms",
    sections: &[
        "## What trusts what",
        "## Where secrets come from",
        "## What ends when",
        "## See that it works",
        "## Tried and not tried",
    ],
    least: 6,
};

/// A value for `identity.secret` where a page has a `secret_header`.
const SECRET: (&str, &str) =
    ("VELT_SIDECAR_IDENTITY__SECRET", "a-secret-of-the-front-with-32-bytes-or-more");

/// A value for `identity.assertion.secret` where the app's own secret proves a session.
const SESSION_SECRET: (&str, &str) =
    ("VELT_SIDECAR_IDENTITY__ASSERTION__SECRET", "a-secret-of-the-app-with-32-bytes-or-more");

/// Lines of configurations that need [`SESSION_SECRET`].
const SEALED: [&str; 3] =
    ["preset = \"authjs\"", "preset = \"nextauth\"", "algorithms = [\"HS256\"]"];

fn read(file: impl AsRef<Path>) -> String {
    let file = file.as_ref();
    fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

fn documents_in(folder: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder of documents");
    let files = entries.map(|entry| entry.expect("an entry").path());
    let mut files: Vec<_> =
        files.filter(|file| file.extension().is_some_and(|it| it == "md")).collect();
    files.sort();
    files
}

impl Folder {
    /// The pages, without their index.
    fn pages(&self) -> Vec<PathBuf> {
        let mut pages = documents_in(self.path);
        pages.retain(|file| !file.ends_with("README.md"));
        assert!(pages.len() >= self.least, "only {} pages in {}", pages.len(), self.path);
        pages
    }
}

/// The fenced blocks in `language`, without the indent of a list.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let opening = format!("```{language}");
    let mut blocks = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.trim_start() == opening {
            let indent = line.len() - line.trim_start().len();
            let block = lines.by_ref().take_while(|line| line.trim_start() != "```");
            let block = block.flat_map(|line| [line.get(indent..).unwrap_or(""), "\n"]);
            blocks.push(block.collect());
        }
    }
    blocks
}

/// Asserts that the page has all its parts in their order.
fn has_its_parts(page: &Path, sections: &[&str]) {
    let (text, page) = (read(page), page.display());
    let mut rest = &*text;
    for &section in sections {
        let heading = format!("\n{section}\n");
        let (before, after) = rest
            .split_once(&*heading)
            .unwrap_or_else(|| panic!("{page}: no {section}, or not in its place"));
        assert!(after.len() > 100, "{page}: nothing in {section}");
        // The configuration of the front, or the lines of the app, stand before the section about the sidecar.
        let is_first = section != "## The sidecar" || before.contains("\n```");
        assert!(is_first, "{page}: no front or app");
        rest = after;
    }
    let commands = blocks(rest, "sh");
    assert_eq!(commands.len(), 1, "{page}: one command shows that it works");
    assert!(commands[0].starts_with("curl "), "{page}: {}", commands[0]);
    let sources = text.rsplit("\nSources: ").next().expect("split has a last part");
    assert!(sources.contains("](https://"), "{page}: no source of its facts");
}

#[test]
fn each_page_of_a_front_or_login_has_all_its_parts() {
    for folder in [FRONTS, GATEWAYS, LOGINS] {
        for page in folder.pages() {
            has_its_parts(&page, folder.sections);
        }
    }
}

#[test]
fn each_page_of_a_platform_has_all_its_parts_and_is_indexed() {
    let index = read("docs/platforms/README.md");
    for page in PLATFORMS.pages() {
        let text = read(&page);
        let mut rest = &*text;
        for section in PLATFORMS.sections {
            let parts = rest.split_once(&*format!("\n{section}\n"));
            let (_, after) = parts.unwrap_or_else(|| panic!("{}: no {section}", page.display()));
            rest = after;
        }
        let (_, shows) = text.split_once("\n## See that it works\n").expect("found above");
        let (shows, _) = shows.split_once("\n## ").expect("a section follows");
        let commands = blocks(shows, "sh");
        assert_eq!(commands.len(), 1, "{}: one block shows that it works", page.display());
        assert_eq!(commands[0].lines().count(), 1, "{}: {}", page.display(), commands[0]);
        assert!(rest.contains("\nNot tried: "), "{}: what was not tried", page.display());
        assert!(text.contains("](../../deploy/"), "{}: no file to copy", page.display());
        let name = page.file_name().and_then(|name| name.to_str()).expect("a name");
        assert_eq!(index.matches(&format!("| [{name}]({name}) |")).count(), 1, "{name}");
    }
}

#[test]
fn indexes_of_fronts_and_logins_name_each_page_once() {
    for folder in [FRONTS, GATEWAYS, LOGINS] {
        let index = read(format!("{}/README.md", folder.path));
        // The first table is the index.
        let lines = index.lines().skip_while(|line| !line.starts_with('|'));
        let rows: Vec<_> = lines.take_while(|line| line.starts_with('|')).collect();
        let pages = folder.pages();
        // The table has a heading and a line beneath the heading.
        assert_eq!(rows.len(), pages.len() + 2, "{rows:#?}");
        for page in pages {
            let name = page.file_name().and_then(|name| name.to_str()).expect("a name");
            let link = format!("[{name}]({name}) |");
            let named = rows.iter().filter(|row| row.contains(&link)).count();
            assert_eq!(named, 1, "{link}");
        }
    }
}

#[tokio::test]
async fn check_accepts_the_configurations_in_documents() {
    let mut checked = 0;
    let pages = FRONTS.pages().into_iter().chain(GATEWAYS.pages()).chain(LOGINS.pages());
    for document in pages.chain(["README.md".into()]) {
        let configurations = blocks(&read(&document), "toml");
        assert!(!configurations.is_empty(), "{}: no sidecar.toml", document.display());
        for text in configurations {
            let folder = tempfile::tempdir().expect("a folder");
            fs::write(folder.path().join("sidecar.toml"), &text).expect("a file in it");
            let mut environment = CREDENTIALS.to_vec();
            if text.contains("secret_header") {
                environment.push(SECRET);
            }
            if SEALED.iter().any(|line| text.contains(line)) {
                environment.push(SESSION_SECRET);
            }
            let check = finished_in(folder.path(), &["check"], &environment).await;
            assert_eq!(check.code, Some(0), "{}: {text}{}", document.display(), check.stderr);
            checked += 1;
        }
    }
    assert!(checked >= 35, "only {checked} configurations");
}

#[tokio::test]
async fn settings_on_all_other_pages_are_accepted() {
    let mut checked = 0;
    for page in session::documents() {
        // These sections show files that are wrong; their transcripts are compared.
        let is_wrong = |heading: &str| ["Errors", "In a pipeline"].contains(&heading);
        let blocks = session::blocks(&read(&page)).into_iter();
        let files =
            blocks.filter(|(heading, block)| block.language == "toml" && !is_wrong(heading));
        for (_, block) in files.filter(|_| page.starts_with("docs")) {
            let folder = tempfile::tempdir().expect("a folder");
            fs::write(folder.path().join("sidecar.toml"), &block.text).expect("a file in it");
            // The files of secrets, certificates and keys are on the reader's machine only.
            let check = finished_in(folder.path(), &["check", "--without-secrets"], &[]).await;
            let place = format!("{}:{}", page.display(), block.line);
            assert_eq!(check.code, Some(0), "{place}: {}", check.stderr);
            checked += 1;
        }
    }
    assert!(checked >= 60, "only {checked} blocks of settings");
}

/// The name of a heading in links, as GitHub makes it.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().chars().filter(|it| it.is_alphanumeric() || " -_".contains(*it));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    headings.map(|line| anchor(line.trim_start_matches('#'))).collect()
}

#[test]
fn links_between_documents_lead_somewhere() {
    let mut documents = session::documents();
    documents.retain(|file| !file.ends_with("CHANGELOG.md"));
    let mut followed = 0;
    for document in documents {
        let text = read(&document);
        for link in text.split("](").skip(1) {
            let link = link.split(')').next().expect("split has a first part");
            if link.contains("://") {
                continue;
            }
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let folder = document.parent().expect("a folder");
            let target = if file.is_empty() { document.clone() } else { folder.join(file) };
            assert!(target.exists(), "{}: {link}", document.display());
            let known = heading.is_empty() || anchors(&read(&target)).contains(heading);
            assert!(known, "{}: no such heading: {link}", document.display());
            followed += 1;
        }
    }
    assert!(followed > 100, "only {followed} links");
}

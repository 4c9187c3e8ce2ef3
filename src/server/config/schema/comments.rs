//! Comments of the sample file, by the keys and tables that they describe.

use std::collections::BTreeMap;

use super::Declarations;

/// Comments by path.
pub(super) struct Comments(BTreeMap<Vec<String>, String>);

impl Comments {
    /// Reads the comments of `file`. Only the paths in `declared` count as keys: other lines are text, even if they
    /// look like `key = value`.
    pub(super) fn of(file: &str, declared: &Declarations) -> Self {
        let mut reading = Reading::new(declared);
        file.lines().for_each(|line| reading.read(line));
        Self(reading.found)
    }

    /// Returns the comment about the key or table `path`.
    pub(super) fn get(&self, path: &[String]) -> Option<&str> {
        self.0.get(path).map(String::as_str)
    }
}

struct Reading<'a> {
    declared: &'a Declarations,
    found: BTreeMap<Vec<String>, String>,
    table: Vec<String>,
    /// Title of the part of the file.
    title: String,
    /// Lines of the comment that was read last.
    comment: Vec<String>,
    /// Whether the last line was part of the comment, so that the next line goes on with it.
    goes_on: bool,
}

impl<'a> Reading<'a> {
    fn new(declared: &'a Declarations) -> Self {
        Self {
            declared,
            found: BTreeMap::new(),
            table: Vec::new(),
            title: String::new(),
            comment: Vec::new(),
            goes_on: false,
        }
    }

    fn read(&mut self, line: &str) {
        let is_comment = line.starts_with('#');
        let content = line.trim_start_matches('#').trim();
        if let Some(path) = table_of(content)
            && self.declared.contains_key(&path)
        {
            let title = std::mem::take(&mut self.title);
            if self.comment.is_empty() && !title.is_empty() {
                self.comment.push(format!("{title}."));
            }
            self.describe(path.clone());
            self.table = path;
            self.end();
        } else if let Some(path) = self.key_of(content) {
            // Keys that follow each other share a comment.
            self.describe(path);
            self.goes_on = false;
        } else if let Some(title) = content.strip_prefix("---- ") {
            title.trim_end_matches('-').trim_end().clone_into(&mut self.title);
            self.end();
        } else if is_comment && !content.is_empty() {
            if !self.goes_on {
                self.comment.clear();
            }
            self.comment.push(content.to_owned());
            self.goes_on = true;
        } else if line.is_empty() {
            self.end();
        }
    }

    fn end(&mut self) {
        self.comment.clear();
        self.goes_on = false;
    }

    fn describe(&mut self, path: Vec<String>) {
        if !self.comment.is_empty() {
            self.found.entry(path).or_insert_with(|| self.comment.join(" "));
        }
    }

    /// Returns the path of the key that a line has, in use or as an example.
    fn key_of(&self, content: &str) -> Option<Vec<String>> {
        let (key, _) = content.split_once(" = ")?;
        let path: Vec<String> = self.table.iter().cloned().chain([key.to_owned()]).collect();
        self.declared.contains_key(&path).then_some(path)
    }
}

/// Returns the path in the header of a table.
fn table_of(content: &str) -> Option<Vec<String>> {
    let name = content.strip_prefix('[')?.strip_suffix(']')?;
    let name = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    Some(name.split('.').map(str::to_owned).collect())
}

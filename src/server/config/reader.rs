//! Reads settings from a TOML document with the environment laid over it, and gathers every
//! complaint instead of stopping at the first.
//!
//! The tables ask for each key once, with its type and default. This one call finds the value, notes its
//! source for `check`, and complains with file, line and what to write instead (`values`, `secret`). A table
//! is read by a function that [`Section::section`] calls. When the function returns, the keys for which the
//! function has not asked are unknown.

mod guess;
mod report;
mod secret;
mod values;
mod variable;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use self::report::FingerprintKey;
pub use self::report::{Code, Complaint, Effective, Fingerprint, Place, Source, Unchecked};
pub use self::secret::{Inline, Secrets};
use super::schema::{Declaration, Declarations};

/// Prefix of each setting's own variable. The credentials `VELT_API_KEY` and `VELT_AUTH_TOKEN` lack the
/// prefix.
pub const ENV_PREFIX: &str = "VELT_SIDECAR_";

/// Path of the setting whose secret keys the fingerprints of all secrets.
const AUTH_TOKEN: &str = "velt.auth_token";

/// A document, and the environment whose variables override the document's keys.
pub struct Reader<'a> {
    text: &'a str,
    environment: &'a BTreeMap<String, String>,
    /// Variables that hold an array, parsed.
    arrays: BTreeMap<String, Spanned<DeValue<'a>>>,
    read_variables: RefCell<BTreeSet<String>>,
    complaints: RefCell<Vec<Complaint>>,
    effective: RefCell<Vec<Effective>>,
    /// Paths of the keys that were given with another value than their default.
    different: RefCell<BTreeSet<String>>,
    /// Number of tables read so far.
    tables: Cell<usize>,
    secrets: Secrets,
    /// Secrets that are not here, if [`Secrets::MayBeAbsent`].
    unchecked: RefCell<Vec<Unchecked>>,
    /// Keys for which the tables have asked; `None` unless the schema is wanted.
    declared: Option<RefCell<Declarations>>,
}

impl<'a> Reader<'a> {
    pub fn new(text: &'a str, environment: &'a BTreeMap<String, String>) -> Self {
        let tables = |(name, text): (&'a String, &'a String)| {
            let looks_so = name.starts_with(ENV_PREFIX) && values::is_array(text);
            let parsed = looks_so.then(|| DeValue::parse(text.trim()).ok()).flatten()?;
            Some((name.clone(), parsed))
        };
        Self {
            text,
            environment,
            arrays: environment.iter().filter_map(tables).collect(),
            read_variables: RefCell::default(),
            complaints: RefCell::default(),
            effective: RefCell::default(),
            different: RefCell::default(),
            tables: Cell::new(0),
            secrets: Secrets::Needed,
            unchecked: RefCell::default(),
            declared: None,
        }
    }

    /// Notes each key for which a table asks, for [`Self::declared`].
    pub fn surveying(self) -> Self {
        Self { declared: Some(RefCell::default()), ..self }
    }

    /// Reads with or without the secrets.
    pub fn with_secrets(self, secrets: Secrets) -> Self {
        Self { secrets, ..self }
    }

    /// Returns the keys for which the tables have asked.
    pub fn declared(self) -> Declarations {
        self.declared.map(RefCell::into_inner).unwrap_or_default()
    }

    /// Returns the document's top level, and complains about everything that is not TOML.
    pub fn document(&self) -> DeTable<'a> {
        let (document, errors) = DeTable::parse_recoverable(self.text);
        for error in errors {
            let line = error.span().map_or(1, |span| self.line(&span));
            self.complain(Complaint {
                code: Code::NotToml,
                key: None,
                place: Place::Line(line),
                problem: format!("this is not TOML: {}", error.message()),
                remedy: "see sidecar.toml of the release for every key".into(),
            });
        }
        document.into_inner()
    }

    /// Notes a complaint, unless it is about a secret that is not here.
    pub fn complain(&self, complaint: Complaint) {
        let is_unchecked = |key: &String| {
            let secret = key.strip_suffix("_file").unwrap_or(key);
            self.unchecked.borrow().iter().any(|unchecked| unchecked.key == secret)
        };
        if !complaint.key.as_ref().is_some_and(is_unchecked) {
            self.complaints.borrow_mut().push(complaint);
        }
    }

    /// Returns what was found, with complaints about variables that look like settings and are none.
    pub fn finish(self) -> Findings {
        let read = self.read_variables.into_inner();
        let mut complaints = self.complaints.into_inner();
        for (name, value) in self.environment {
            if !read.contains(name)
                && let Some(remedy) = variable::remedy(name, value, &read)
            {
                complaints.push(Complaint {
                    code: Code::UnknownVariable,
                    key: None,
                    place: Place::Environment(name.clone()),
                    problem: "there is no such setting".into(),
                    remedy,
                });
            }
        }
        complaints.sort_by(|one, other| one.place.cmp(&other.place));
        let mut effective = self.effective.into_inner();
        key_fingerprints(&mut effective);
        Findings { effective, complaints, unchecked: self.unchecked.into_inner() }
    }

    fn line(&self, span: &Range<usize>) -> usize {
        1 + self.text.bytes().take(span.start).filter(|byte| *byte == b'\n').count()
    }

    fn variable(&self, name: &str) -> Option<&'a str> {
        self.read_variables.borrow_mut().insert(name.to_owned());
        self.environment.get(name).map(String::as_str)
    }
}

/// Result of reading a configuration, beside the settings.
pub struct Findings {
    pub effective: Vec<Effective>,
    pub complaints: Vec<Complaint>,
    pub unchecked: Vec<Unchecked>,
}

/// A table of the document, for the time in which a function reads the table.
pub struct Section<'r, 'a> {
    reader: &'r Reader<'a>,
    path: String,
    /// Line of the table's header or of its first key, or the variable that holds the table.
    place: Place,
    table: Option<&'r DeTable<'a>>,
    asked: RefCell<Vec<String>>,
    number: usize,
    /// Variables that may override the table's keys or hold the table.
    overlay: Overlay,
}

/// Relation of a table to the environment.
#[derive(Clone)]
enum Overlay {
    /// Each key has a variable of its own.
    Keys,
    /// A table of an array in the file: only the array as a whole has a variable.
    None,
    /// A table of an array that stands in this variable.
    Within(String),
}

/// A value as it stands in the file or in a variable.
struct Found {
    place: Place,
    text: String,
}

impl<'r, 'a> Section<'r, 'a> {
    /// Reads the whole document by `read`, and complains about the keys for which `read` has not asked.
    pub fn top<T>(
        reader: &'r Reader<'a>,
        table: &'r DeTable<'a>,
        read: impl FnOnce(&Self) -> T,
    ) -> T {
        Self::new(reader, String::new(), Place::Missing, Some(table), Overlay::Keys).read_by(read)
    }

    /// Reads the table `name` within this one by `read`, and complains about the keys for which `read` has
    /// not asked. The table is empty if the document lacks it.
    pub fn section<T>(&self, name: &str, read: impl FnOnce(&Self) -> T) -> T {
        self.open(name).read_by(read)
    }

    /// Reads the tables of the array `name` by `read`, and complains about the keys for which `read` has not
    /// asked. Returns `None`, and does not call `read`, if the array is missing or has the wrong type.
    pub fn sections<T>(&self, name: &str, read: impl FnOnce(&[Self]) -> T) -> Option<T> {
        let sections = self.open_array(name)?;
        let settings = read(&sections);
        for section in &sections {
            section.complain_about_unknown();
        }
        Some(settings)
    }

    fn new(
        reader: &'r Reader<'a>,
        path: String,
        place: Place,
        table: Option<&'r DeTable<'a>>,
        overlay: Overlay,
    ) -> Self {
        let (asked, number) = (RefCell::default(), reader.tables.get());
        reader.tables.set(number + 1);
        Self { reader, path, place, table, asked, number, overlay }
    }

    fn read_by<T>(self, read: impl FnOnce(&Self) -> T) -> T {
        let settings = read(&self);
        self.complain_about_unknown();
        settings
    }

    fn open(&self, name: &str) -> Self {
        let path = self.path_of(name);
        self.declare(name, Declaration::default());
        let Some(value) = self.entry(name) else {
            return Self::new(self.reader, path, Place::Missing, None, self.overlay.clone());
        };
        let place = self.place_at(&value.span());
        let table = value.get_ref().as_table();
        if table.is_none() {
            self.mistyped(name, place.clone(), &format!("a table: [{path}]"));
        }
        Self::new(self.reader, path, place, table, self.overlay.clone())
    }

    fn open_array(&self, name: &str) -> Option<Vec<Self>> {
        let path = self.path_of(name);
        self.declare(name, Declaration { is_list: true, ..Declaration::default() });
        let variable = self.variable(name).map(|(name, _)| name);
        let (value, overlay) = match &variable {
            Some(variable) => (self.reader.arrays.get(variable), Overlay::Within(variable.clone())),
            None => (Some(self.entry(name)?), Overlay::None),
        };
        let Some(value) = value else {
            let place = Place::Environment(variable.unwrap_or_default());
            self.mistyped(name, place, "an array of tables: [{ key = \"value\" }, ...]");
            return None;
        };
        let place_at = |span: &Range<usize>| match &overlay {
            Overlay::Within(variable) => Place::Environment(variable.clone()),
            _ => self.place_at(span),
        };
        let place = place_at(&value.span());
        let Some(array) = value.get_ref().as_array() else {
            self.mistyped(name, place, &format!("an array of tables: [[{path}]]"));
            return None;
        };
        let tables = array.iter().map(|item| {
            let place = place_at(&item.span());
            let table = item.get_ref().as_table();
            if table.is_none() {
                self.mistyped(name, place.clone(), &format!("a table: [[{path}]]"));
            }
            Self::new(self.reader, path.clone(), place, table, overlay.clone())
        });
        Some(tables.collect())
    }

    /// Complains about `key`, if it was given, else about this table.
    pub fn complain_about(&self, key: &str, problem: &str, remedy: &str) {
        self.complain_by(Code::Conflict, key, problem, remedy);
    }

    /// Complains about `key`, which another setting leaves without effect.
    pub fn complain_of_no_effect(&self, key: &str, problem: &str, remedy: &str) {
        self.complain_by(Code::NoEffect, key, problem, remedy);
    }

    /// Complains about `key`, which is missing.
    pub fn complain_of_missing(&self, key: &str, problem: &str, remedy: &str) {
        self.complain_by(Code::Missing, key, problem, remedy);
    }

    fn complain_by(&self, code: Code, key: &str, problem: &str, remedy: &str) {
        let place = self.place_of(key).unwrap_or_else(|| self.place.clone());
        let problem = format!("{}: {problem}", self.path_of(key));
        self.complain(code, key, place, problem, remedy.into());
    }

    /// Complains about each of `keys` that was given with another value than its default, because another setting
    /// leaves it without effect. Keys with a default stand in every file that was copied from `sidecar.toml`. Must come
    /// after the keys have been read.
    pub fn refuse_other(&self, keys: &[&str], problem: &str, remedy: &str) {
        for key in keys {
            if self.reader.different.borrow().contains(&self.path_of(key)) {
                self.complain_of_no_effect(key, problem, remedy);
            }
        }
    }

    /// Whether there is a complaint about `key` already, so that its value says nothing about other keys.
    pub fn is_refused(&self, key: &str) -> bool {
        let path = self.path_of(key);
        self.reader.complaints.borrow().iter().any(|it| it.key.as_ref() == Some(&path))
    }

    /// Whether `key` was given.
    pub fn has(&self, key: &str) -> bool {
        self.place_of(key).is_some()
    }

    fn mistyped(&self, key: &str, place: Place, expected: &str) {
        let problem = format!("{} has the wrong type", self.path_of(key));
        self.complain(Code::WrongType, key, place, problem, format!("write {expected}"));
    }

    fn complain(&self, code: Code, key: &str, place: Place, problem: String, remedy: String) {
        let key = Some(self.path_of(key));
        self.reader.complain(Complaint { code, key, place, problem, remedy });
    }

    /// Notes a key for which the table asks, if the schema is wanted. What an earlier call has noted stays.
    fn declare(&self, key: &str, declaration: Declaration) {
        let Some(declared) = &self.reader.declared else { return };
        let tables = self.path.split('.').filter(|name| !name.is_empty());
        let path = tables.chain([key]).map(str::to_owned).collect();
        declared.borrow_mut().entry(path).or_default().merge(declaration);
    }

    fn entry(&self, key: &str) -> Option<&'r Spanned<DeValue<'a>>> {
        self.asked.borrow_mut().push(key.to_owned());
        self.table?.get(key)
    }

    fn variable(&self, key: &str) -> Option<(String, &'a str)> {
        self.asked.borrow_mut().push(key.to_owned());
        if !matches!(self.overlay, Overlay::Keys) {
            return None;
        }
        let name = variable_name(&self.path, key);
        self.reader.variable(&name).map(|text| (name, text))
    }

    fn place_of(&self, key: &str) -> Option<Place> {
        let in_file = || {
            let value = self.table?.get(key)?;
            Some(self.place_at(&value.span()))
        };
        let name = variable_name(&self.path, key);
        let in_environment =
            matches!(self.overlay, Overlay::Keys) && self.reader.environment.contains_key(&name);
        if in_environment { Some(Place::Environment(name)) } else { in_file() }
    }

    fn place_at(&self, span: &Range<usize>) -> Place {
        match &self.overlay {
            Overlay::Within(variable) => Place::Environment(variable.clone()),
            Overlay::Keys | Overlay::None => Place::Line(self.reader.line(span)),
        }
    }

    fn record(&self, key: &str, value: &str, source: Source) {
        self.record_with(key, value, source, None);
    }

    fn record_with(
        &self,
        key: &str,
        value: &str,
        source: Source,
        fingerprint: Option<Fingerprint>,
    ) {
        self.reader.effective.borrow_mut().push(Effective {
            header: match self.overlay {
                Overlay::Keys => format!("[{}]", self.path),
                Overlay::None | Overlay::Within(_) => format!("[[{}]]", self.path),
            },
            table: self.number,
            key: key.to_owned(),
            value: value.to_owned(),
            fingerprint,
            source,
        });
    }

    fn differs(&self, key: &str) {
        self.reader.different.borrow_mut().insert(self.path_of(key));
    }

    fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// Complains about the keys of the table for which the reading has not asked.
    fn complain_about_unknown(&self) {
        let Some(table) = self.table else { return };
        let asked = self.asked.borrow();
        for (key, value) in table {
            let name: &str = key.get_ref();
            if !asked.iter().any(|asked| asked == name) {
                let port = value.get_ref().as_integer();
                let port = port.as_ref().map(|port| port as &dyn Display);
                let known = || nearest(name, asked.iter().map(String::as_str));
                let remedy = guess::remedy(&self.path_of(name), port)
                    .or_else(|| known().map(|nearest| format!("did you mean {nearest}?")))
                    .unwrap_or_else(|| "remove it".into());
                let problem = format!("there is no setting {}", self.path_of(name));
                self.complain(Code::UnknownKey, name, self.place_at(&key.span()), problem, remedy);
            }
        }
    }
}

/// Gives the fingerprints of secrets their digits.
fn key_fingerprints(effective: &mut [Effective]) {
    let auth_token = effective.iter().find(|setting| setting.path() == AUTH_TOKEN);
    let key = FingerprintKey::of(auth_token.and_then(|setting| setting.fingerprint.as_ref()));
    for setting in effective {
        setting.fingerprint = setting.fingerprint.map(|fingerprint| fingerprint.keyed(&key));
    }
}

/// Returns `VELT_SIDECAR_<SECTION>__<KEY>`, the name of the key's variable.
pub(super) fn variable_name(path: &str, key: &str) -> String {
    let section = path.to_uppercase().replace('.', "__");
    format!("{ENV_PREFIX}{section}__{}", key.to_uppercase())
}

/// Returns the name in `known` that was probably meant.
fn nearest<'n>(name: &str, known: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let (likeness, nearest) = known
        .map(|known| (strsim::jaro_winkler(name, known), known))
        .max_by(|one, other| one.0.total_cmp(&other.0))?;
    (likeness > 0.85).then_some(nearest)
}

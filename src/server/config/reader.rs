//! Reads settings from a TOML document with the environment laid over it, and gathers every
//! complaint instead of stopping at the first.
//!
//! The tables ask for each key once, with its type and default. This one call finds the value, notes its
//! source for `check`, and complains with file, line and what to write instead.

mod report;
mod secret;
mod variable;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

pub use self::report::{Complaint, Effective, Fingerprint, Place, Source};
pub use self::secret::Inline;
use self::secret::in_quotes;
use super::setting::Setting;

/// Prefix of each setting's own variable. The credentials `VELT_API_KEY` and `VELT_AUTH_TOKEN` lack the
/// prefix.
pub const ENV_PREFIX: &str = "VELT_SIDECAR_";

/// A document, and the environment whose variables override the document's keys.
pub struct Reader<'a> {
    text: &'a str,
    environment: &'a BTreeMap<String, String>,
    /// Variables that hold an array, parsed.
    arrays: BTreeMap<String, Spanned<DeValue<'a>>>,
    read_variables: RefCell<BTreeSet<String>>,
    complaints: RefCell<Vec<Complaint>>,
    effective: RefCell<Vec<Effective>>,
    /// Number of tables read so far.
    tables: Cell<usize>,
}

impl<'a> Reader<'a> {
    pub fn new(text: &'a str, environment: &'a BTreeMap<String, String>) -> Self {
        let tables = |(name, text): (&'a String, &'a String)| {
            let looks_so = name.starts_with(ENV_PREFIX) && text.trim_start().starts_with('[');
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
            tables: Cell::new(0),
        }
    }

    /// Returns the document's top level, and complains about everything that is not TOML.
    pub fn document(&self) -> DeTable<'a> {
        let (document, errors) = DeTable::parse_recoverable(self.text);
        for error in errors {
            let line = error.span().map_or(1, |span| self.line(&span));
            self.complain(Complaint {
                place: Place::Line(line),
                problem: format!("this is not TOML: {}", error.message()),
                remedy: "see sidecar.toml of the release for every key".into(),
            });
        }
        document.into_inner()
    }

    pub fn complain(&self, complaint: Complaint) {
        self.complaints.borrow_mut().push(complaint);
    }

    /// Returns the values in force and all complaints, among them complaints about variables that look like
    /// settings and are none.
    pub fn finish(self) -> (Vec<Effective>, Vec<Complaint>) {
        let read = self.read_variables.into_inner();
        let mut complaints = self.complaints.into_inner();
        for (name, value) in self.environment {
            if !read.contains(name)
                && let Some(remedy) = variable::remedy(name, value, &read)
            {
                complaints.push(Complaint {
                    place: Place::Environment(name.clone()),
                    problem: "there is no such setting".into(),
                    remedy,
                });
            }
        }
        complaints.sort_by(|one, other| one.place.cmp(&other.place));
        (self.effective.into_inner(), complaints)
    }

    fn line(&self, span: &Range<usize>) -> usize {
        1 + self.text.bytes().take(span.start).filter(|byte| *byte == b'\n').count()
    }

    fn variable(&self, name: &str) -> Option<&'a str> {
        self.read_variables.borrow_mut().insert(name.to_owned());
        self.environment.get(name).map(String::as_str)
    }
}

/// A table of the document. Dropping a `Section` complains about the keys of its table that were never asked
/// for.
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
    /// Returns the section of the whole document.
    pub fn top(reader: &'r Reader<'a>, table: &'r DeTable<'a>) -> Self {
        Self::new(reader, String::new(), Place::Missing, Some(table), Overlay::Keys)
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

    /// Returns the table `name` within this one, or an empty section if the document lacks the table.
    pub fn section(&self, name: &str) -> Section<'r, 'a> {
        let path = self.path_of(name);
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

    /// Returns the tables of the array `name`. `None` if the array is missing or has the wrong type.
    pub fn sections(&self, name: &str) -> Option<Vec<Section<'r, 'a>>> {
        let path = self.path_of(name);
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

    /// Returns the value of `key`, or `default`, which must be a valid value itself.
    pub fn value<T: Setting>(&self, key: &str, default: &str) -> T {
        let found = self.found(key, T::BARE, T::EXPECTED);
        let parsed = found.as_ref().and_then(|found| self.parse(key, found));
        self.note(
            key,
            &rendered::<T>(found.as_ref().map_or(default, |found| &found.text)),
            found.as_ref(),
        );
        parsed.unwrap_or_else(|| T::parse(default).expect("defaults are valid"))
    }

    /// Returns the value of `key` if it is there and valid.
    pub fn optional<T: Setting>(&self, key: &str) -> Option<T> {
        let found = self.found(key, T::BARE, T::EXPECTED)?;
        let parsed = self.parse(key, &found);
        self.note(key, &rendered::<T>(&found.text), Some(&found));
        parsed
    }

    /// Returns the value of `key`, else the value that the preset in force has for `key`.
    pub fn optional_or<T: Setting>(&self, key: &str, preset: Option<&str>) -> Option<T> {
        match preset {
            Some(preset) if !self.has(key) => {
                // Ask for the key all the same, so that it counts as known.
                self.optional::<T>(key);
                self.record(key, &rendered::<T>(preset), Source::Preset);
                T::parse(preset)
            }
            _ => self.optional(key),
        }
    }

    /// Returns the values of the array `key`, else the values that the preset in force has for `key`.
    pub fn list_or<T: Setting>(&self, key: &str, preset: &[&str]) -> Option<Vec<T>> {
        if self.has(key) {
            return Some(self.list(key, &[]));
        }
        self.variable(key);
        let values: Vec<String> = preset.iter().map(|item| rendered::<T>(item)).collect();
        self.record(key, &format!("[{}]", values.join(", ")), Source::Preset);
        preset.iter().map(|item| T::parse(item)).collect()
    }

    /// Returns the values of the array `key` if it is there.
    pub fn optional_list<T: Setting>(&self, key: &str) -> Option<Vec<T>> {
        self.variable(key);
        self.has(key).then(|| self.list(key, &[]))
    }

    /// Complains about `key` if it was given, because another setting leaves `key` without effect.
    pub fn refuse(&self, key: &str, problem: &str, remedy: &str) {
        self.variable(key);
        if self.has(key) {
            self.complain_about(key, problem, remedy);
        }
    }

    /// Returns the value of `key`, which has no default, and complains if `key` is missing.
    pub fn required<T: Setting>(&self, key: &str) -> Option<T> {
        if self.has(key) {
            return self.optional(key);
        }
        self.complain(
            self.place.clone(),
            format!("{} is missing", self.path_of(key)),
            format!("write {key} = {}", T::EXPECTED),
        );
        None
    }

    /// Returns the values of the array `key`. A variable has them as TOML or separated by commas.
    pub fn list<T: Setting>(&self, key: &str, default: &[&str]) -> Vec<T> {
        let found = self.found_list(key, T::EXPECTED);
        let (items, source) = match &found {
            Some((place, items)) => (items.iter().map(String::as_str).collect(), Some(place)),
            None => (default.to_vec(), None),
        };
        let values: Vec<String> = items.iter().map(|item| rendered::<T>(item)).collect();
        self.record(key, &format!("[{}]", values.join(", ")), source_of(source));
        let parse = |item: &&str| {
            let found =
                source.map(|place| Found { place: place.clone(), text: (*item).to_owned() });
            found.map_or_else(|| T::parse(item), |found| self.parse(key, &found))
        };
        items.iter().filter_map(parse).collect()
    }

    /// Returns the values of the array `key`, else `default`. The default is recorded as left out, because
    /// `decider` decides in its place.
    pub fn list_unless<T: Setting>(
        &self,
        key: &str,
        decider: &'static str,
        default: &[&str],
    ) -> Vec<T> {
        if self.has(key) {
            return self.list(key, default);
        }
        // Ask for the key all the same, so that it counts as known.
        self.variable(key);
        self.record(key, "left out", Source::LeftOut(decider));
        default.iter().filter_map(|item| T::parse(item)).collect()
    }

    /// Records `value` as a default that is in force.
    pub fn note_default(&self, key: &str, value: &str) {
        self.record(key, value, Source::Default);
    }

    /// Complains about `key`, if it was given, else about this table.
    pub fn complain_about(&self, key: &str, problem: &str, remedy: &str) {
        let place = self.place_of(key).unwrap_or_else(|| self.place.clone());
        self.complain(place, format!("{}: {problem}", self.path_of(key)), remedy.into());
    }

    /// Whether `key` was given.
    pub fn has(&self, key: &str) -> bool {
        self.place_of(key).is_some()
    }

    fn found(&self, key: &str, bare: bool, expected: &str) -> Option<Found> {
        if let Some((name, text)) = self.variable(key) {
            return Some(Found { place: Place::Environment(name), text: text.to_owned() });
        }
        let value = self.entry(key)?;
        let place = self.place_at(&value.span());
        let text = scalar(value, bare);
        if text.is_none() {
            self.mistyped(key, place.clone(), expected);
        }
        Some(Found { place, text: text? })
    }

    fn found_list(&self, key: &str, expected: &str) -> Option<(Place, Vec<String>)> {
        let variable = self.variable(key);
        let (value, place) = match variable {
            // A TOML array. The arms below read a list separated by commas.
            Some((name, text)) if text.trim_start().starts_with('[') => {
                (self.reader.arrays.get(&name), Place::Environment(name))
            }
            // Keep the text as one item, so that `parse` complains about the quotes.
            Some((name, text)) if in_quotes(text.trim()) => {
                return Some((Place::Environment(name), vec![text.trim().to_owned()]));
            }
            Some((name, text)) => {
                let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
                return Some((Place::Environment(name), items.map(str::to_owned).collect()));
            }
            None => {
                let value = self.entry(key)?;
                (Some(value), self.place_at(&value.span()))
            }
        };
        let items = value.and_then(|value| {
            let array = value.get_ref().as_array()?;
            array.iter().map(|item| scalar(item, false)).collect::<Option<_>>()
        });
        if items.is_none() {
            self.mistyped(key, place.clone(), &format!("a list: [{expected}, ...]"));
        }
        Some((place, items?))
    }

    fn parse<T: Setting>(&self, key: &str, found: &Found) -> Option<T> {
        if matches!(found.place, Place::Environment(_)) && in_quotes(&found.text) {
            let problem =
                format!("{}: it is in quotes, which count as part of it", self.path_of(key));
            self.complain(found.place.clone(), problem, "write it without quotes".into());
            return None;
        }
        let parsed = T::parse(&found.text);
        if parsed.is_none() {
            // A URL may hold a password, and complaints are logged.
            let shown = if may_hold_password(&found.text) {
                "its value".to_owned()
            } else {
                format!("{:?}", found.text)
            };
            let problem = format!("{}: {shown} won't do", self.path_of(key));
            self.complain(found.place.clone(), problem, format!("write {}", T::EXPECTED));
        }
        parsed
    }

    fn mistyped(&self, key: &str, place: Place, expected: &str) {
        let problem = format!("{} has the wrong type", self.path_of(key));
        self.complain(place, problem, format!("write {expected}"));
    }

    fn complain(&self, place: Place, problem: String, remedy: String) {
        self.reader.complain(Complaint { place, problem, remedy });
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

    fn note(&self, key: &str, value: &str, found: Option<&Found>) {
        self.record(key, value, source_of(found.map(|found| &found.place)));
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

    fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }
}

impl Drop for Section<'_, '_> {
    fn drop(&mut self) {
        let Some(table) = self.table else { return };
        let asked = self.asked.borrow();
        for (key, _) in table {
            let name: &str = key.get_ref();
            if !asked.iter().any(|asked| asked == name) {
                let remedy = match nearest(name, asked.iter().map(String::as_str)) {
                    Some(nearest) => format!("did you mean {nearest}?"),
                    None => "remove it".into(),
                };
                let problem = format!("there is no setting {}", self.path_of(name));
                self.complain(self.place_at(&key.span()), problem, remedy);
            }
        }
    }
}

/// Whether `text` has the form of `user:password@host`, behind a scheme or not.
fn may_hold_password(text: &str) -> bool {
    text.rsplit_once('@').is_some_and(|(before, _)| before.contains(':'))
}

fn source_of(place: Option<&Place>) -> Source {
    place.cloned().map_or(Source::Default, Source::Place)
}

/// Returns `VELT_SIDECAR_<SECTION>__<KEY>`, the name of the key's variable.
fn variable_name(path: &str, key: &str) -> String {
    let section = path.to_uppercase().replace('.', "__");
    format!("{ENV_PREFIX}{section}__{}", key.to_uppercase())
}

/// Returns a string's content, or with `bare` the text of a number or boolean without underscores. `None` for
/// another type of value.
fn scalar(value: &Spanned<DeValue<'_>>, bare: bool) -> Option<String> {
    match value.get_ref() {
        DeValue::String(text) if !bare => Some(text.to_string()),
        // The text keeps a prefix such as `0x`, so that the number is not read as a decimal one.
        DeValue::Integer(number) if bare => Some(number.to_string().replace('_', "")),
        DeValue::Float(number) if bare => Some(number.to_string().replace('_', "")),
        DeValue::Boolean(flag) if bare => Some(flag.to_string()),
        _ => None,
    }
}

/// Writes a value as TOML. JSON strings are TOML basic strings, except that TOML also escapes U+007F.
fn rendered<T: Setting>(text: &str) -> String {
    if T::BARE {
        return text.to_owned();
    }
    serde_json::Value::from(text).to_string().replace('\u{7f}', "\\u007f")
}

/// Returns the name in `known` that was probably meant.
fn nearest<'n>(name: &str, known: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let (likeness, nearest) = known
        .map(|known| (strsim::jaro_winkler(name, known), known))
        .max_by(|one, other| one.0.total_cmp(&other.0))?;
    (likeness > 0.85).then_some(nearest)
}

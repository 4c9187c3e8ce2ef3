//! Reads settings from a TOML document with the environment laid over it, and gathers every
//! complaint instead of stopping at the first.
//!
//! Each key is asked for once, with its type and default. That one call finds the value, notes
//! where it came from for `check`, and complains with file, line and what to write instead.

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

/// What every variable of ours begins with.
pub const ENV_PREFIX: &str = "VELT_SIDECAR_";

/// One document and the environment over it.
pub struct Reader<'a> {
    text: &'a str,
    environment: &'a BTreeMap<String, String>,
    /// Variables that hold an array, parsed.
    arrays: BTreeMap<String, Spanned<DeValue<'a>>>,
    read_variables: RefCell<BTreeSet<String>>,
    complaints: RefCell<Vec<Complaint>>,
    effective: RefCell<Vec<Effective>>,
    /// Tables read so far.
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

    /// The document's top level. Complains about everything that is not TOML.
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

    /// Ends the reading: complains about variables that nobody asked for.
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

/// One table of the document. Dropping it complains about the keys that nobody asked for.
pub struct Section<'r, 'a> {
    reader: &'r Reader<'a>,
    path: String,
    /// The line of its header, or of the first of its keys.
    place: Place,
    table: Option<&'r DeTable<'a>>,
    asked: RefCell<Vec<String>>,
    number: usize,
    /// Where this table's keys may be overridden, or come from.
    overlay: Overlay,
}

/// How a table relates to the environment.
#[derive(Clone)]
enum Overlay {
    /// Each key has a variable of its own.
    Keys,
    /// A table of an array in the file: only the array as a whole has a variable.
    None,
    /// A table of an array that stands in this variable.
    Within(String),
}

/// A value as found.
struct Found {
    place: Place,
    text: String,
}

impl<'r, 'a> Section<'r, 'a> {
    /// The whole document.
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

    /// The table `name` within this one, empty if it is not there.
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

    /// The tables of the array `name`; `None` if it is not there.
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

    /// The value of `key`, or `default`, which must be such a value itself.
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

    /// The value of `key` if it is there.
    pub fn optional<T: Setting>(&self, key: &str) -> Option<T> {
        let found = self.found(key, T::BARE, T::EXPECTED)?;
        let parsed = self.parse(key, &found);
        self.note(key, &rendered::<T>(&found.text), Some(&found));
        parsed
    }

    /// The value of `key`, else what the preset in force has for it.
    pub fn optional_or<T: Setting>(&self, key: &str, preset: Option<&str>) -> Option<T> {
        match preset {
            Some(preset) if !self.has(key) => {
                // Asked for all the same, so that it is known.
                self.optional::<T>(key);
                self.record(key, &rendered::<T>(preset), Source::Preset);
                T::parse(preset)
            }
            _ => self.optional(key),
        }
    }

    /// The values of the array `key`, else those that the preset in force has for it.
    pub fn list_or<T: Setting>(&self, key: &str, preset: &[&str]) -> Option<Vec<T>> {
        if self.has(key) {
            return Some(self.list(key, &[]));
        }
        self.variable(key);
        let values: Vec<String> = preset.iter().map(|item| rendered::<T>(item)).collect();
        self.record(key, &format!("[{}]", values.join(", ")), Source::Preset);
        preset.iter().map(|item| T::parse(item)).collect()
    }

    /// The values of the array `key` if it is there.
    pub fn optional_list<T: Setting>(&self, key: &str) -> Option<Vec<T>> {
        self.variable(key);
        self.has(key).then(|| self.list(key, &[]))
    }

    /// Complains about `key` if it was given, since something else leaves it without effect.
    pub fn refuse(&self, key: &str, problem: &str, remedy: &str) {
        self.variable(key);
        if self.has(key) {
            self.complain_about(key, problem, remedy);
        }
    }

    /// The value of `key`, which has no default: complains if it is not there.
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

    /// The values of the array `key`; in a variable, as TOML or separated by commas.
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

    /// The values of the array `key`, else `default`, which has no say beside `decider` and is not shown.
    pub fn list_unless<T: Setting>(
        &self,
        key: &str,
        decider: &'static str,
        default: &[&str],
    ) -> Vec<T> {
        if self.has(key) {
            return self.list(key, default);
        }
        // Asked for all the same, so that it is known.
        self.variable(key);
        self.record(key, "left out", Source::LeftOut(decider));
        default.iter().filter_map(|item| T::parse(item)).collect()
    }

    /// Notes a value in force that nobody has set.
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
            // As TOML, or in the way that is easier to write.
            Some((name, text)) if text.trim_start().starts_with('[') => {
                (self.reader.arrays.get(&name), Place::Environment(name))
            }
            // Kept as one item, so that its parser complains of the quotes.
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
            self.complain(found.place.clone(), problem, "write it without".into());
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

/// `VELT_SIDECAR_<SECTION>__<KEY>`.
fn variable_name(path: &str, key: &str) -> String {
    let section = path.to_uppercase().replace('.', "__");
    format!("{ENV_PREFIX}{section}__{}", key.to_uppercase())
}

/// A string as it is, a bare value as it is written.
fn scalar(value: &Spanned<DeValue<'_>>, bare: bool) -> Option<String> {
    match value.get_ref() {
        DeValue::String(text) if !bare => Some(text.to_string()),
        // With its `0x`, where it has one, so that it is not read as another number.
        DeValue::Integer(number) if bare => Some(number.to_string().replace('_', "")),
        DeValue::Float(number) if bare => Some(number.to_string().replace('_', "")),
        DeValue::Boolean(flag) if bare => Some(flag.to_string()),
        _ => None,
    }
}

/// JSON's strings are TOML's basic strings, but for one character that TOML wants escaped.
fn rendered<T: Setting>(text: &str) -> String {
    if T::BARE {
        return text.to_owned();
    }
    serde_json::Value::from(text).to_string().replace('\u{7f}', "\\u007f")
}

/// The one of `known` that was probably meant.
fn nearest<'n>(name: &str, known: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let (likeness, nearest) = known
        .map(|known| (strsim::jaro_winkler(name, known), known))
        .max_by(|one, other| one.0.total_cmp(&other.0))?;
    (likeness > 0.85).then_some(nearest)
}

//! Values of a table: alone or in a list, with a default, needed, or refused.

use std::net::Ipv6Addr;

use super::super::schema::Declaration;
use super::super::setting::Setting;
use toml::Spanned;
use toml::de::DeValue;

use super::secret::in_quotes;
use super::{Code, Found, Place, Section, Source};

impl Section<'_, '_> {
    /// Returns the value of `key`, or `default`, which must be a valid value itself.
    pub fn value<T: Setting>(&self, key: &str, default: &str) -> T {
        self.declare_value::<T>(key, Some(default));
        let found = self.found(key, T::BARE, T::EXPECTED);
        let parsed = found.as_ref().and_then(|found| self.parse(key, found));
        if found.as_ref().is_some_and(|found| found.text != default) {
            self.differs(key);
        }
        self.note(
            key,
            &rendered::<T>(found.as_ref().map_or(default, |found| &found.text)),
            found.as_ref(),
        );
        parsed.unwrap_or_else(|| T::parse(default).expect("defaults are valid"))
    }

    /// Returns the value of `key` if it is there and valid.
    pub fn optional<T: Setting>(&self, key: &str) -> Option<T> {
        self.declare_value::<T>(key, None);
        let found = self.found(key, T::BARE, T::EXPECTED)?;
        self.differs(key);
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
        self.declare_list::<T>(key, None);
        if self.has(key) {
            return Some(self.list_of(key, &[]));
        }
        self.variable(key);
        let values: Vec<String> = preset.iter().map(|item| rendered::<T>(item)).collect();
        self.record(key, &format!("[{}]", values.join(", ")), Source::Preset);
        preset.iter().map(|item| T::parse(item)).collect()
    }

    /// Returns the values of the array `key` if it is there.
    pub fn optional_list<T: Setting>(&self, key: &str) -> Option<Vec<T>> {
        self.declare_list::<T>(key, None);
        self.variable(key);
        self.has(key).then(|| self.list_of(key, &[]))
    }

    /// Complains about `key` if it was given, because another setting leaves `key` without effect.
    pub fn refuse(&self, key: &str, problem: &str, remedy: &str) {
        self.variable(key);
        if self.has(key) {
            self.complain_of_no_effect(key, problem, remedy);
        }
    }

    /// Returns the value of `key`, which has no default, and complains if `key` is missing.
    pub fn required<T: Setting>(&self, key: &str) -> Option<T> {
        self.declare_value::<T>(key, None);
        self.declare(key, Declaration { is_required: true, ..Declaration::default() });
        if self.has(key) {
            return self.optional(key);
        }
        self.complain(
            Code::Missing,
            key,
            self.place.clone(),
            format!("{} is missing", self.path_of(key)),
            format!("write {key} = {}", T::EXPECTED),
        );
        None
    }

    /// Returns the values of the array `key`. A variable has them as TOML or separated by commas.
    pub fn list<T: Setting>(&self, key: &str, default: &[&str]) -> Vec<T> {
        self.declare_list::<T>(key, Some(default));
        self.list_of(key, default)
    }

    fn list_of<T: Setting>(&self, key: &str, default: &[&str]) -> Vec<T> {
        let found = self.found_list(key, T::EXPECTED);
        let (items, source) = match &found {
            Some((place, items)) => (items.iter().map(String::as_str).collect(), Some(place)),
            None => (default.to_vec(), None),
        };
        if items != default {
            self.differs(key);
        }
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
        self.declare_list::<T>(key, None);
        if self.has(key) {
            return self.list_of(key, default);
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

    pub(super) fn found(&self, key: &str, bare: bool, expected: &str) -> Option<Found> {
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
            Some((name, text)) if is_array(text) => {
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
            let remedy = "write it without quotes".into();
            self.complain(Code::InvalidValue, key, found.place.clone(), problem, remedy);
            return None;
        }
        let parsed = T::parse(&found.text);
        if parsed.is_none() {
            // A URL may hold a password, and complaints are logged.
            let (shown, correction) = if may_hold_password(&found.text) {
                ("its value".to_owned(), None)
            } else {
                (format!("{:?}", found.text), T::correction(&found.text))
            };
            let problem = format!("{}: {shown} won't do", self.path_of(key));
            let remedy = format!("write {}", correction.as_deref().unwrap_or(T::EXPECTED));
            self.complain(Code::InvalidValue, key, found.place.clone(), problem, remedy);
        }
        parsed
    }

    pub(super) fn declare_value<T: Setting>(&self, key: &str, default: Option<&str>) {
        let default = default.map(|text| vec![text.to_owned()]);
        self.declare_form::<T>(key, false, default);
    }

    fn declare_list<T: Setting>(&self, key: &str, default: Option<&[&str]>) {
        let default = default.map(|items| items.iter().map(|item| (*item).to_owned()).collect());
        self.declare_form::<T>(key, true, default);
    }

    fn declare_form<T: Setting>(&self, key: &str, is_list: bool, default: Option<Vec<String>>) {
        let (form, expected) = (Some(T::form()), T::EXPECTED);
        let is_required = false;
        self.declare(key, Declaration { form, expected, is_list, is_required, default });
    }

    fn note(&self, key: &str, value: &str, found: Option<&Found>) {
        self.record(key, value, source_of(found.map(|found| &found.place)));
    }
}

/// Whether the text of a variable is a TOML array: a list may also begin with an address such as `[::1]:6379`.
pub(super) fn is_array(text: &str) -> bool {
    let Some(rest) = text.trim_start().strip_prefix('[') else { return false };
    let inner = rest.split_once(']').map(|(inner, _)| inner);
    inner.is_none_or(|inner| inner.parse::<Ipv6Addr>().is_err())
}

/// Whether `text` has the form of `user:password@host`, behind a scheme or not.
fn may_hold_password(text: &str) -> bool {
    text.rsplit_once('@').is_some_and(|(before, _)| before.contains(':'))
}

fn source_of(place: Option<&Place>) -> Source {
    place.cloned().map_or(Source::Default, Source::Place)
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

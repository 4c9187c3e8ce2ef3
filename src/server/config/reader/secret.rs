//! Reads secrets: from a variable or a file, and where allowed from the document itself.

use std::path::PathBuf;

use http::HeaderValue;
use secrecy::SecretString;

use super::report::REDACTED;
use super::{Fingerprint, Found, Place, Section, Source};

/// Permission for a secret to stand in the configuration file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inline {
    Allowed,
    Refused,
}

/// Characters around or in a secret that are hardly part of the secret. Holds the complaint, and what to do.
struct Flaw(&'static str, &'static str);

impl Flaw {
    fn of(text: &str) -> Option<Self> {
        let copied = "write the secret alone, such as by: printf %s \"$SECRET\" > file";
        if text.starts_with('\u{feff}') {
            return Some(Self(
                "begins with a byte order mark, which would count as part of it",
                copied,
            ));
        }
        if in_quotes(text) {
            return Some(Self(
                "is in quotes, which would count as part of it",
                "write it without quotes",
            ));
        }
        let unseen = |character: char| match character {
            // In order: bytes that were not UTF-8, soft hyphen, characters of no width and marks of
            // direction, joiners.
            '\u{fffd}'
            | '\u{ad}'
            | '\u{200b}'..='\u{200f}'
            | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}' => true,
            _ => !character.is_ascii() && (character.is_whitespace() || character.is_control()),
        };
        text.contains(unseen).then_some(Self("holds a character that can't be seen", copied))
    }
}

/// Whether `text` is in quotes, which an environment file may leave around a value.
pub(super) fn in_quotes(text: &str) -> bool {
    const PAIRS: [(char, char); 5] =
        [('"', '"'), ('\'', '\''), ('`', '`'), ('\u{201c}', '\u{201d}'), ('\u{2018}', '\u{2019}')];
    let inner = |(open, close): (char, char)| text.strip_prefix(open)?.strip_suffix(close);
    PAIRS.into_iter().any(|pair| inner(pair).is_some())
}

impl Section<'_, '_> {
    /// Returns a secret that is needed: from the file that `<key>_file` names, from `variable`, or from the
    /// document if `inline` allows it. Complains if it returns `None`.
    pub fn secret(&self, key: &str, variable: &str, inline: Inline) -> Option<SecretString> {
        let file_key = format!("{key}_file");
        let anywhere =
            self.has(key) || self.has(&file_key) || self.reader.environment.contains_key(variable);
        if !anywhere {
            let problem = format!("{} is missing", self.path_of(key));
            self.complain(Place::Missing, problem, self.secret_remedy(&file_key, variable));
        }
        self.optional_secret(key, variable, inline)
    }

    /// Returns a secret from the same places as [`Self::secret`], but does not complain if the secret is
    /// missing.
    pub fn optional_secret(
        &self,
        key: &str,
        variable: &str,
        inline: Inline,
    ) -> Option<SecretString> {
        let file_key = format!("{key}_file");
        let path: Option<PathBuf> = self.optional(&file_key);
        let in_variable = self.reader.variable(variable).map(|text| Found {
            place: Place::Environment(variable.to_owned()),
            text: text.to_owned(),
        });
        let in_file = match inline {
            Inline::Allowed => self.found(key, false, "a string"),
            Inline::Refused => {
                self.refuse_inline(key, &file_key, variable);
                None
            }
        };
        let given = [path.is_some(), in_variable.is_some(), in_file.is_some()];
        let count = given.into_iter().filter(|given| *given).count();
        if count > 1 {
            let place = self.place_of(key).or_else(|| self.place_of(&file_key));
            self.complain(
                place.unwrap_or(Place::Missing),
                format!("{} is given in more than one place", self.path_of(key)),
                format!("keep one of them, such as the variable {variable} or {file_key}"),
            );
        }
        let found = match path {
            Some(path) => {
                let place = self.place_of(&file_key).unwrap_or(Place::Missing);
                let text = self.secret_file(&path, &place)?;
                Some(Found { place, text })
            }
            None => in_variable.or(in_file),
        };
        let Found { place, text } = found?;
        let text = text.trim_end_matches(['\r', '\n']);
        let fingerprint = Fingerprint::of_secret(text.as_bytes());
        let source = Source::Place(place.clone());
        self.record_with(key, REDACTED, source, Some(fingerprint));
        if text.trim().is_empty() {
            let remedy = self.secret_remedy(&file_key, variable);
            self.complain(place, format!("{} is empty", self.path_of(key)), remedy);
            return None;
        }
        if let Some(flaw) = Flaw::of(text) {
            self.complain(place, format!("{} {}", self.path_of(key), flaw.0), flaw.1.into());
            return None;
        }
        if HeaderValue::from_str(text).is_err() {
            let problem = format!("{} holds bytes that no header can carry", self.path_of(key));
            self.complain(place, problem, "copy it again, alone and whole".into());
            return None;
        }
        Some(SecretString::from(text))
    }

    /// Returns the path of a file whose content counts as part of the configuration: new content is a change
    /// of the setting.
    pub fn content_file(&self, key: &str) -> Option<PathBuf> {
        let path: PathBuf = self.optional(key)?;
        // The code that uses the file complains if the file can't be read.
        let content = std::fs::read(&path).unwrap_or_default();
        let mut effective = self.reader.effective.borrow_mut();
        if let Some(noted) = effective.last_mut() {
            noted.fingerprint = Some(Fingerprint::of(&content));
        }
        Some(path)
    }

    fn secret_remedy(&self, file_key: &str, variable: &str) -> String {
        format!(
            "set the environment variable {variable}, or {file_key} = \"/path/to/file\" in [{}]",
            self.path
        )
    }

    fn refuse_inline(&self, key: &str, file_key: &str, variable: &str) {
        // Ask for the key, so that it is not also reported as an unknown key or variable.
        self.variable(key);
        let place = self.place_of(key);
        // The setting's own variable may be the secret's variable, which is allowed.
        if let Some(place) = place.filter(|place| *place != Place::Environment(variable.into())) {
            self.complain(
                place,
                format!("{} is a secret and must not stand here", self.path_of(key)),
                format!("remove it; set the variable {variable}, or {file_key} = \"/path\""),
            );
        }
    }

    fn secret_file(&self, path: &PathBuf, place: &Place) -> Option<String> {
        let problem = match std::fs::read_to_string(path) {
            Ok(text) if text.trim().is_empty() => "it is empty".to_owned(),
            Ok(text) => return Some(text),
            Err(error) => error.to_string(),
        };
        self.complain(
            place.clone(),
            format!("{} can't be used: {problem}", path.display()),
            "mount the Secret there, readable by the sidecar's user, or name another file".into(),
        );
        None
    }
}

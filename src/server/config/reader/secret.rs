//! Reads secrets: from a variable or a file, and where allowed from the document itself.

use std::path::PathBuf;

use http::HeaderValue;
use secrecy::SecretString;

use super::report::REDACTED;
use super::{Code, Fingerprint, Found, Place, Section, Source, Unchecked};

/// Permission for a secret to stand in the configuration file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inline {
    Allowed,
    Refused,
}

/// Whether the secrets have to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Secrets {
    Needed,
    /// A secret that is not here is noted, and a stand-in takes its place: the configuration is checked on another
    /// machine than the one that has the secrets.
    MayBeAbsent,
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
        // No secret of Velt's, and none that openssl makes, has such a form.
        let is_template = [("${", "}"), ("{{", "}}"), ("{env.", "}"), ("$(", ")")];
        if is_template.iter().any(|(start, end)| text.starts_with(start) && text.ends_with(end)) {
            return Some(Self(
                "is a template that was not filled in",
                "write the secret itself, or name the variable or the file that holds it",
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
            if let Some(stand_in) = self.stand_in(key, variable) {
                return Some(stand_in);
            }
            let problem = format!("{} is missing", self.path_of(key));
            let remedy = self.secret_remedy(&file_key, variable);
            self.complain(Code::Missing, key, Place::Missing, problem, remedy);
        }
        self.optional_secret(key, variable, inline)
    }

    /// Returns a stand-in for a secret that is needed and not given, if secrets may be absent. The secret is noted as
    /// not checked.
    pub fn stand_in(&self, key: &str, place: &str) -> Option<SecretString> {
        if self.reader.secrets == Secrets::Needed {
            return None;
        }
        let key = self.path_of(key);
        // No secret is the same as another, and each is long enough.
        let stand_in = format!("stand-in for the secret {key}, which is not on this machine");
        let place = place.to_owned();
        self.reader.unchecked.borrow_mut().push(Unchecked { key, place });
        Some(SecretString::from(stand_in))
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
        if inline == Inline::Allowed {
            self.declare_value::<String>(key, None);
        }
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
                Code::GivenTwice,
                key,
                place.unwrap_or(Place::Missing),
                format!("{} is given in more than one place", self.path_of(key)),
                format!("keep one of them, such as the variable {variable} or {file_key}"),
            );
        }
        let absent = match (&path, &in_variable) {
            // Only a look can tell that a file is absent: an error says that it may be there.
            (Some(path), _) => {
                matches!(path.try_exists(), Ok(false)).then(|| path.display().to_string())
            }
            // A secret that a pipeline lacks is an empty variable in many of them.
            (None, Some(found)) => found.text.trim().is_empty().then(|| variable.to_owned()),
            (None, None) => None,
        };
        if let Some(stand_in) = absent.and_then(|place| self.stand_in(key, &place)) {
            return Some(stand_in);
        }
        let found = match path {
            Some(path) => {
                let place = self.place_of(&file_key).unwrap_or(Place::Missing);
                let text = self.secret_file(key, &path, &place)?;
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
            let problem = format!("{} is empty", self.path_of(key));
            self.complain(Code::UnusableSecret, key, place, problem, remedy);
            return None;
        }
        if let Some(flaw) = Flaw::of(text) {
            let problem = format!("{} {}", self.path_of(key), flaw.0);
            self.complain(Code::UnusableSecret, key, place, problem, flaw.1.into());
            return None;
        }
        // A store takes any text for a password, and no header carries it.
        if !key.ends_with("password") && HeaderValue::from_str(text).is_err() {
            let problem = format!("{} holds bytes that no header can carry", self.path_of(key));
            let remedy = "copy it again, alone and whole".into();
            self.complain(Code::UnusableSecret, key, place, problem, remedy);
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
                Code::SecretInPlainSight,
                key,
                place,
                format!("{} is a secret and must not stand here", self.path_of(key)),
                format!("remove it; set the variable {variable}, or {file_key} = \"/path\""),
            );
        }
    }

    fn secret_file(&self, key: &str, path: &PathBuf, place: &Place) -> Option<String> {
        let problem = match std::fs::read_to_string(path) {
            Ok(text) if text.trim().is_empty() => "it is empty".to_owned(),
            Ok(text) => return Some(text),
            Err(error) => error.to_string(),
        };
        self.complain(
            Code::UnusableSecret,
            key,
            place.clone(),
            format!("{} can't be used: {problem}", path.display()),
            "mount the Secret there, readable by the sidecar's user, or name another file".into(),
        );
        None
    }
}

//! Origin of a configuration, from which the configuration can be read again.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Config, ConfigError, Effective, Secrets};
use ground::tls::is_replaced_at_once;

/// Number of further readings until two agree, and the pause before each reading: an editor empties a file
/// and writes its new text a moment later.
const READINGS: u32 = 5;
const SETTLING: Duration = Duration::from_millis(20);

/// A file and the environment that overrides it. Only a file that the operator has not named may be absent.
#[derive(Clone)]
pub struct Origin {
    file: PathBuf,
    is_named: bool,
    /// Environment at the start of the process; nothing changes it from outside.
    environment: BTreeMap<String, String>,
    secrets: Secrets,
    /// Content of the file when the configuration was taken. `None` if the file was absent, or if no
    /// configuration has been taken.
    taken: Option<String>,
}

/// Shows the file alone, since the environment has secrets in it.
impl fmt::Debug for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, is_named, .. } = self;
        formatter.debug_struct("Origin").field("file", file).field("is_named", is_named).finish()
    }
}

/// Error of reading a configuration, which is the operator's fault.
#[derive(Debug)]
pub enum LoadError {
    Unreadable {
        file: PathBuf,
        source: io::Error,
    },
    /// The file has nothing in it, not even a comment: an editor has not written the text yet, or the text
    /// was lost.
    Empty {
        file: PathBuf,
    },
    Wrong(ConfigError),
}

/// Result of one reading.
pub struct Reading {
    text: Option<String>,
    /// Configuration by the text that is in the file now.
    pub config: Result<Config, LoadError>,
    /// Configuration by the text that was taken, with the present secrets. `None` if the file still has
    /// that text.
    pub taken: Option<Result<Config, LoadError>>,
}

impl Reading {
    /// Compares the text of the file, and the content of secrets and other files that the text names.
    pub fn shows_the_same_as(&self, other: &Self) -> bool {
        let shown = |config: &Result<Config, LoadError>| match config {
            Ok(config) => config.effective.iter().map(Effective::shown).collect(),
            Err(error) => vec![error.to_string()],
        };
        self.text == other.text
            && shown(&self.config) == shown(&other.config)
            && self.taken.as_ref().map(shown) == other.taken.as_ref().map(shown)
    }
}

impl LoadError {
    /// Returns what is wrong.
    pub fn problem(&self) -> String {
        match self {
            Self::Unreadable { file, source } => {
                format!("{} can't be read: {source}", file.display())
            }
            Self::Empty { file } => format!("{} is empty", file.display()),
            Self::Wrong(error) => error.to_string(),
        }
    }

    /// Returns what to do about it. Empty for [`Self::Wrong`], whose complaints say so each by itself.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Unreadable { source, .. } => match source.kind() {
                io::ErrorKind::NotFound => {
                    "give the path of a file that is there: --config /path/to/sidecar.toml; or \
                     leave --config out if the environment has all settings"
                }
                io::ErrorKind::PermissionDenied => "let the sidecar's user read it (chmod a+r)",
                io::ErrorKind::IsADirectory => {
                    "give the path of the file in it: --config /path/to/sidecar.toml"
                }
                io::ErrorKind::InvalidData => "save it as UTF-8",
                _ => "give another file: --config /path/to/sidecar.toml",
            },
            Self::Empty { .. } => {
                "write the configuration into it, or a comment if the environment has all of it"
            }
            Self::Wrong(_) => "",
        }
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wrong(error) => error.fmt(formatter),
            _ => write!(formatter, "{}\n    -> {}", self.problem(), self.remedy()),
        }
    }
}

impl Error for LoadError {}

impl Origin {
    /// Takes `file` if the operator has named one, else `sidecar.toml`, which may be absent: the environment
    /// can hold all settings.
    pub fn new(file: Option<&Path>, environment: BTreeMap<String, String>) -> Self {
        let is_named = file.is_some();
        let file = file.unwrap_or(Path::new("sidecar.toml")).to_owned();
        Self { file, is_named, environment, secrets: Secrets::Needed, taken: None }
    }

    /// Reads with or without the secrets from now on.
    pub fn with_secrets(self, secrets: Secrets) -> Self {
        Self { secrets, ..self }
    }

    /// Returns the file, whether or not it is there.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Reads the file, and each file that it names for a secret.
    ///
    /// # Errors
    ///
    /// See [`LoadError`].
    pub fn load(&self) -> Result<Config, LoadError> {
        self.load_now().config
    }

    /// Reads the files until two readings in a row agree, because an editor may have written a file only
    /// half. Gives up after `READINGS` further readings. Blocks for at least the time between two readings.
    #[allow(clippy::disallowed_methods, reason = "says that it blocks")]
    pub fn read_settled(&self) -> Reading {
        let mut found = self.load_now();
        for _ in 0..READINGS {
            std::thread::sleep(SETTLING);
            let again = self.load_now();
            let is_settled = again.shows_the_same_as(&found);
            found = again;
            if is_settled {
                break;
            }
        }
        found
    }

    /// Whether the value that `reading` has for the setting `path` can't be half written: it is in a file of
    /// a mounted Secret or `ConfigMap`, and the configuration's text is in one too or has not changed.
    pub fn is_replaced_at_once(&self, reading: &Reading, path: &str) -> bool {
        let file = reading.config.as_ref().ok().and_then(|config| config.file_of(path));
        let is_old_text = reading.text == self.taken;
        (is_old_text || is_replaced_at_once(&self.file))
            && is_replaced_at_once(file.as_deref().unwrap_or(&self.file))
    }

    fn load_now(&self) -> Reading {
        let (text, config) = match self.read() {
            Ok(text) => (text.clone(), self.parse(text)),
            Err(error) => (None, Err(error)),
        };
        let is_taken = config.is_ok() && text == self.taken;
        let taken = (!is_taken).then(|| self.parse(self.taken.clone()));
        Reading { text, config, taken }
    }

    /// Returns the name of the file for messages, and the text with which a sidecar would start. An empty
    /// file is an error, as at a start.
    pub fn text_for_start(&self) -> (String, io::Result<String>) {
        let (name, text) = self.text();
        let is_empty = text.as_ref().is_ok_and(|text| self.is_lost(text));
        let text = if is_empty {
            Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it is empty, without even a comment"))
        } else {
            text
        };
        (name, text)
    }

    /// Whether the file is there and empty. A device such as `/dev/null` is empty on purpose.
    fn is_lost(&self, text: &str) -> bool {
        text.trim_start_matches('\u{feff}').trim().is_empty()
            && std::fs::metadata(&self.file).is_ok_and(|file| file.is_file())
    }

    /// Returns the name of the file for messages, and its text. The text is empty if the file is absent and
    /// may be.
    pub fn text(&self) -> (String, io::Result<String>) {
        let text = self.try_read().map(Option::unwrap_or_default);
        (self.file.display().to_string(), text)
    }

    fn read(&self) -> Result<Option<String>, LoadError> {
        let unreadable = |source| LoadError::Unreadable { file: self.file.clone(), source };
        self.try_read().map_err(unreadable)
    }

    /// Reads the file. Returns `None` if the file is absent and may be.
    fn try_read(&self) -> io::Result<Option<String>> {
        match std::fs::read_to_string(&self.file) {
            Ok(text) => Ok(Some(text)),
            Err(error) if !self.is_named && error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn parse(&self, text: Option<String>) -> Result<Config, LoadError> {
        if text.as_ref().is_some_and(|text| self.is_lost(text)) {
            return Err(LoadError::Empty { file: self.file.clone() });
        }
        // A file that was read once may no longer be absent.
        let is_named = self.is_named || text.is_some();
        let name = self.file.display().to_string();
        let (text_now, environment) = (text.as_deref().unwrap_or_default(), &self.environment);
        let config = Config::parse_with(&name, text_now, environment, self.secrets);
        let origin = Self { is_named, taken: text, ..self.clone() };
        Ok(Config { origin: Some(origin), ..config.map_err(LoadError::Wrong)? })
    }
}

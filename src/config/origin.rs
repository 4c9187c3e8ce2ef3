//! Where a configuration comes from, so that it can be read again.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Config, ConfigError, Effective};

/// How often files are read again until two readings agree, and the pause before each reading: an
/// editor empties a file and writes its new text a moment later.
const READINGS: u32 = 5;
const SETTLING: Duration = Duration::from_millis(20);

/// A file, which may be absent if nobody has named it, and the environment over it.
#[derive(Clone, Debug)]
pub struct Origin {
    file: PathBuf,
    is_named: bool,
    /// As it was when the process began; nothing changes it from outside.
    environment: BTreeMap<String, String>,
}

/// Why a configuration could not be read. The operator's fault.
#[derive(Debug)]
pub enum LoadError {
    Unreadable {
        file: PathBuf,
        source: io::Error,
    },
    /// It has nothing in it, not even a comment: somebody is about to write it.
    Empty {
        file: PathBuf,
    },
    Wrong(ConfigError),
}

/// What one reading has found.
struct Found {
    text: Option<String>,
    config: Result<Config, LoadError>,
}

impl Found {
    /// Compares the text of the file, and the content of secrets and other files that the text names.
    fn shows_the_same_as(&self, other: &Self) -> bool {
        let shown = |found: &Self| {
            let config = found.config.as_ref().ok()?;
            Some(config.effective.iter().map(Effective::shown).collect::<Vec<_>>())
        };
        self.text == other.text && shown(self) == shown(other)
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { file, source } => {
                write!(formatter, "{} can't be read: {source}", file.display())
            }
            Self::Empty { file } => {
                write!(formatter, "{} is empty: write what is in force into it", file.display())
            }
            Self::Wrong(error) => error.fmt(formatter),
        }
    }
}

impl Error for LoadError {}

impl Origin {
    /// `file` if somebody has named one, else `sidecar.toml` if it is there: everything can be set
    /// by environment.
    pub fn new(file: Option<&Path>, environment: BTreeMap<String, String>) -> Self {
        let is_named = file.is_some();
        let file = file.unwrap_or(Path::new("sidecar.toml")).to_owned();
        Self { file, is_named, environment }
    }

    /// Reads it, and every file that it names for a secret.
    ///
    /// # Errors
    ///
    /// See [`LoadError`].
    pub fn load(&self) -> Result<Config, LoadError> {
        let text = self.read()?;
        self.parse(text)
    }

    /// Reads the files until two readings in a row find the same: an editor may have written any of
    /// them only half. Blocks for at least the time between two readings.
    ///
    /// # Errors
    ///
    /// See [`LoadError`].
    #[allow(clippy::disallowed_methods, reason = "says that it blocks")]
    pub fn load_settled(&self) -> Result<Config, LoadError> {
        let mut found = self.look()?;
        for _ in 0..READINGS {
            std::thread::sleep(SETTLING);
            let again = self.look()?;
            let is_settled = again.shows_the_same_as(&found);
            found = again;
            if is_settled {
                break;
            }
        }
        match found.text {
            Some(text) if text.is_empty() && self.is_named => {
                Err(LoadError::Empty { file: self.file.clone() })
            }
            _ => found.config,
        }
    }

    fn look(&self) -> Result<Found, LoadError> {
        let text = self.read()?;
        Ok(Found { config: self.parse(text.clone()), text })
    }

    /// How to name the file in messages, and its text, which is empty if it may be absent and is.
    pub fn text(&self) -> (String, io::Result<String>) {
        let text = self.try_read().map(Option::unwrap_or_default);
        (self.file.display().to_string(), text)
    }

    fn read(&self) -> Result<Option<String>, LoadError> {
        let unreadable = |source| LoadError::Unreadable { file: self.file.clone(), source };
        self.try_read().map_err(unreadable)
    }

    /// `None` if it is absent, and may be.
    fn try_read(&self) -> io::Result<Option<String>> {
        match std::fs::read_to_string(&self.file) {
            Ok(text) => Ok(Some(text)),
            Err(error) if !self.is_named && error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn parse(&self, text: Option<String>) -> Result<Config, LoadError> {
        // One that was there may not go away.
        let is_named = self.is_named || text.is_some();
        let origin = Self { is_named, ..self.clone() };
        let name = self.file.display().to_string();
        let config = Config::parse(&name, &text.unwrap_or_default(), &self.environment);
        Ok(Config { origin: Some(origin), ..config.map_err(LoadError::Wrong)? })
    }
}

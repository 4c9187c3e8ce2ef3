//! Log lines for rare events: starting, ending, Velt failing and coming back.

use std::error::Error;
use std::fmt;
use std::io;

/// How much is logged.
pub type Level = tracing::Level;

/// How a line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Text,
    Json,
}

/// What to log, and how.
#[derive(Clone, Debug)]
pub struct Settings {
    pub level: Level,
    pub format: Format,
}

/// Prints an error with all that caused it.
pub struct Chain<'a>(pub &'a (dyn Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(cause) = source {
            write!(formatter, ": {cause}")?;
            source = cause.source();
        }
        Ok(())
    }
}

/// Sends log lines to standard error. The first call in a process decides.
pub fn init(settings: &Settings) {
    let lines = tracing_subscriber::fmt()
        .with_max_level(settings.level)
        .with_writer(io::stderr)
        .with_target(false);
    // An error says that a subscriber is there already, as in a process with several sidecars.
    let _ = match settings.format {
        Format::Text => lines.with_ansi(false).try_init(),
        Format::Json => lines.json().flatten_event(true).try_init(),
    };
}

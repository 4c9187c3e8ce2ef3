//! Log lines for rare events: starting, ending, Velt failing and coming back.

use std::error::Error;
use std::fmt;
use std::io;

use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

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
    let lines = tracing_subscriber::fmt().with_max_level(settings.level).with_writer(io::stderr);
    let lines = lines.with_target(false);
    // An error says that a subscriber is there already, as in a process with several sidecars.
    let _ = match settings.format {
        Format::Text => lines.with_ansi(false).finish().with(filter(settings.level)).try_init(),
        Format::Json => {
            let lines = lines.json().flatten_event(true).finish();
            lines.with(filter(settings.level)).try_init()
        }
    };
}

/// Everything from `level` on, but for what h2 warns of: that is what a client has sent, for each
/// frame of it, so that a flood of frames would be one of lines.
fn filter(level: Level) -> Targets {
    let of_clients = if level == Level::DEBUG { level } else { Level::ERROR };
    Targets::new().with_default(level).with_target("h2", of_clients)
}

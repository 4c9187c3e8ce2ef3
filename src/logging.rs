//! Log lines for rare events: starting, ending, Velt failing and coming back.
//!
//! What others say (an app, Velt, a certificate) can end up in a line, so each event is one line
//! whatever is in it. Only events of this crate are written, at any level: what the libraries
//! below log of a message, headers included, is theirs to decide and not ours to check.

use std::error::Error;
use std::fmt::{self, Write as _};
use std::io::{self, Write};
use std::panic::PanicHookInfo;
use std::sync::{Arc, Mutex, PoisonError};

use tracing::{Subscriber, error};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{registry, reload};

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

/// How much is logged, for changing it while the sidecar runs. Clones are the same switch.
#[derive(Clone)]
pub struct LevelSwitch {
    level: Arc<Mutex<Level>>,
    /// `None` where the log is not ours to change.
    change: Option<Arc<dyn Fn(Level) -> bool + Send + Sync>>,
}

impl LevelSwitch {
    /// For a process whose log is somebody else's: shows `level`, and can't be changed.
    pub fn fixed(level: Level) -> Self {
        Self { level: Arc::new(Mutex::new(level)), change: None }
    }

    /// The level in force.
    pub fn level(&self) -> Level {
        *self.level.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Logs by `level` from now on. `false` if the log is not ours to change.
    pub fn set(&self, level: Level) -> bool {
        // Held meanwhile, so that what is shown is what was set last.
        let mut shown = self.level.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = self.change.as_ref().is_some_and(|change| change(level));
        if changed {
            *shown = level;
        }
        changed
    }
}

/// The level that `text` names, as `log.level` has it.
pub fn level(text: &str) -> Option<Level> {
    matches!(text, "error" | "warn" | "info" | "debug").then(|| text.parse().ok()).flatten()
}

/// Sends log lines to standard error, and panics with them. The first call in a process decides,
/// and only what it returns changes the level.
pub fn init(settings: &Settings) -> LevelSwitch {
    let (subscriber, switch) = switched(settings, io::stderr);
    // An error says that a subscriber is there already, as in a process with several sidecars.
    if subscriber.try_init().is_err() {
        return LevelSwitch::fixed(settings.level);
    }
    std::panic::set_hook(Box::new(log_panic));
    switch
}

/// What [`init`] installs, with the lines sent elsewhere.
pub fn subscriber<W>(settings: &Settings, writer: W) -> impl Subscriber + Send + Sync
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    switched(settings, writer).0
}

/// The same, and what changes its level.
pub fn switched<W>(settings: &Settings, writer: W) -> (impl Subscriber + Send + Sync, LevelSwitch)
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(OneLine(writer))
        .with_target(false)
        .with_ansi(false);
    let lines = match settings.format {
        Format::Text => lines.boxed(),
        Format::Json => lines.json().flatten_event(true).boxed(),
    };
    // The binary's crate has the library's name.
    let ours = |level| Targets::new().with_target(env!("CARGO_CRATE_NAME"), level);
    let (filter, handle) = reload::Layer::new(ours(settings.level));
    let level = Arc::new(Mutex::new(settings.level));
    let change = Arc::new(move |level| handle.reload(ours(level)).is_ok());
    (registry().with(lines).with(filter), LevelSwitch { level, change: Some(change) })
}

/// Says where a panic was, in a line like any other. What it says may quote a request, unless it
/// was written down in the source.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let place = panic.location().map_or_else(String::new, ToString::to_string);
    let said = panic.payload().downcast_ref::<&'static str>();
    error!(place, said = said.unwrap_or(&"(not logged)"), "a panic, which is a bug of the sidecar");
}

/// Keeps each event, which arrives as one write, on one line of visible text.
struct OneLine<W>(W);

impl<'a, W: MakeWriter<'a>> MakeWriter<'a> for OneLine<W> {
    type Writer = OneLine<W::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        OneLine(self.0.make_writer())
    }
}

impl<W: Write> Write for OneLine<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let mut line = escaped(text.strip_suffix('\n').unwrap_or(&text));
        line.push('\n');
        self.0.write_all(line.as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Whether `char` ends a line, steers a terminal or turns the direction of text around. It is then
/// written as `\uXXXX`, which is right in JSON too, where such a thing only stands in strings.
pub fn must_be_escaped(char: char) -> bool {
    char.is_control()
        // Line and paragraph separators, marks, embeddings, overrides and isolates
        // (Unicode Standard Annex 9, section 2).
        || matches!(char, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}')
        || matches!(char, '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// `line` with every such character escaped.
pub fn escaped(line: &str) -> String {
    let mut escaped = String::with_capacity(line.len() + 1);
    for char in line.chars() {
        if must_be_escaped(char) {
            // Writing to a string does not fail.
            let _ = write!(escaped, "\\u{:04x}", u32::from(char));
        } else {
            escaped.push(char);
        }
    }
    escaped
}

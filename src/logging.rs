//! Log lines for rare events: starting, ending, Velt failing and coming back.
//!
//! What others say (an app, Velt, a certificate) can end up in a line, so each event is one line
//! whatever is in it. Only events of this crate are written, at any level: what the libraries
//! below log of a message, headers included, is theirs to decide and not ours to check.

use std::error::Error;
use std::fmt::{self, Write as _};
use std::io::{self, Write};
use std::panic::PanicHookInfo;

use tracing::{Subscriber, error};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::registry;
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

/// Sends log lines to standard error, and panics with them. The first call in a process decides.
pub fn init(settings: &Settings) {
    // An error says that a subscriber is there already, as in a process with several sidecars.
    if subscriber(settings, io::stderr).try_init().is_ok() {
        std::panic::set_hook(Box::new(log_panic));
    }
}

/// What [`init`] installs, with the lines sent elsewhere.
pub fn subscriber<W>(settings: &Settings, writer: W) -> impl Subscriber + Send + Sync
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
    let ours = Targets::new().with_target(env!("CARGO_CRATE_NAME"), settings.level);
    registry().with(lines).with(ours)
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

fn escaped(line: &str) -> String {
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

//! Log lines for rare events: starting, ending, Velt failing and coming back.
//!
//! No thread that serves waits for the reader of standard error: lines are queued, and a thread of
//! their own writes them (`lines`). At the level `debug` a client can cause a line for each request.
//!
//! Text of an app, of Velt or of a certificate can end up in a line, so each event is written as one
//! line (`OneLine`). Only events of this crate are written, at any level: events of the libraries
//! below may hold headers of a message, and this crate has not checked them.

use std::error::Error;
use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd as _;
use std::panic::PanicHookInfo;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus::IntCounter;
use tracing::{Metadata, Subscriber, error, warn};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{registry, reload};

use crate::lines::{Habits, Lines};

/// Time that a panicking thread waits until its line is written: the panic may end the process.
const PANIC_PATIENCE: Duration = Duration::from_millis(100);

/// Level of detail of the log.
pub type Level = tracing::Level;

/// Format of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Text,
    Json,
}

/// Settings of the log.
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

/// Log of this process: its lines, and its level, which can be changed while the sidecar runs. Clones
/// share one log.
#[derive(Clone)]
pub struct Log {
    level: Arc<Mutex<Level>>,
    /// Changes the level; `None` if the log belongs to an embedding process.
    change: Option<Arc<Change>>,
    /// Queue of lines; `None` if lines are written without a queue.
    lines: Option<Arc<Lines>>,
    dropped: IntCounter,
}

type Change = dyn Fn(Level) -> bool + Send + Sync;

impl Log {
    /// Log that the embedding process writes: shows `level`, which can't be changed.
    pub fn fixed(level: Level) -> Self {
        let (level, dropped) = (Arc::new(Mutex::new(level)), dropped());
        Self { level, change: None, lines: None, dropped }
    }

    /// The level in force.
    pub fn level(&self) -> Level {
        *self.level.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the level to `level`. `false` if the log belongs to an embedding process.
    pub fn set_level(&self, level: Level) -> bool {
        // Locked meanwhile, so that the level that is shown is the level that was set last.
        let mut shown = self.level.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = self.change.as_ref().is_some_and(|change| change(level));
        if changed {
            *shown = level;
        }
        changed
    }

    /// Lines dropped so far because standard error did not take them in time.
    pub fn dropped(&self) -> u64 {
        self.dropped.get()
    }

    /// Waits at most `patience` until the queued lines have been written, and returns whether they
    /// have. Blocks the thread.
    pub fn flush(&self, patience: Duration) -> bool {
        self.lines.as_ref().is_none_or(|lines| lines.flush(patience))
    }
}

/// Counter of dropped lines, which exists before the metrics do; a scrape copies its count.
fn dropped() -> IntCounter {
    IntCounter::new("log_dropped", "Lines lost.").expect("a valid metric")
}

/// Returns the level that `text` names, as `log.level` has it.
pub fn level(text: &str) -> Option<Level> {
    matches!(text, "error" | "warn" | "info" | "debug").then(|| text.parse().ok()).flatten()
}

/// Sends log lines to standard error, and panics with them. The first call in a process decides,
/// and only the log that it returns can change the level.
pub fn init(settings: &Settings) -> Log {
    let dropped = dropped();
    // If no thread or descriptor is left, the thread that logs writes its own lines.
    let lines = start_lines(dropped.clone()).ok();
    let (subscriber, level, change) = switched(settings, Sink { lines: lines.clone() });
    // An error says that a subscriber is there already, as in a process with several sidecars.
    if subscriber.try_init().is_err() {
        return Log::fixed(settings.level);
    }
    let log = Log { level, change: Some(change), lines, dropped };
    let panicking = log.clone();
    std::panic::set_hook(Box::new(move |panic| {
        log_panic(panic);
        panicking.flush(PANIC_PATIENCE);
    }));
    log
}

/// Starts the thread that writes to standard error.
fn start_lines(dropped: IntCounter) -> io::Result<Arc<Lines>> {
    // Duplicates the descriptor: a thread that stalls in `Stderr` would hold its lock.
    let stderr = File::from(io::stderr().as_fd().try_clone_to_owned()?);
    let habits = Habits {
        thread: "log",
        gathering: Duration::ZERO,
        dropped,
        // A failed write to standard error has nowhere to be reported.
        failed: |_| {},
        resumed: |lines| {
            warn!(lines, "log lines were dropped: standard error was not read in time");
        },
    };
    Lines::start(stderr, habits)
}

/// Returns the subscriber that [`init`] installs, but writes the lines to `writer`.
pub fn subscriber<W>(settings: &Settings, writer: W) -> impl Subscriber + Send + Sync
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    switched(settings, writer).0
}

/// Beginning of the name of each of our crates. Events of other crates are not logged.
const OUR_CRATES: &str = "velt_sidecar";

/// Subscriber that writes to `writer`, with its level and the handle that changes the level.
fn switched<W>(
    settings: &Settings,
    writer: W,
) -> (impl Subscriber + Send + Sync, Arc<Mutex<Level>>, Arc<Change>)
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
    let ours = |level| Targets::new().with_target(OUR_CRATES, level);
    let (filter, handle) = reload::Layer::new(ours(settings.level));
    let level = Arc::new(Mutex::new(settings.level));
    let change = Arc::new(move |level| handle.reload(ours(level)).is_ok());
    (registry().with(lines).with(filter), level, change)
}

/// Logs the place of a panic. The panic's message is logged only if it is a literal of the source, because
/// any other message may quote a request.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let place = panic.location().map_or_else(String::new, ToString::to_string);
    let said = panic.payload().downcast_ref::<&'static str>();
    error!(place, said = said.unwrap_or(&"(not logged)"), "a panic, which is a bug of the sidecar");
}

/// Destination of events: the queue, or standard error itself if there is no queue.
struct Sink {
    lines: Option<Arc<Lines>>,
}

/// One event while its line is written.
struct Event {
    lines: Option<Arc<Lines>>,
    is_urgent: bool,
}

impl<'a> MakeWriter<'a> for Sink {
    type Writer = Event;

    fn make_writer(&'a self) -> Event {
        Event { lines: self.lines.clone(), is_urgent: false }
    }

    fn make_writer_for(&'a self, event: &Metadata<'_>) -> Event {
        // Lines at `warn` and `error` have bytes of their own, so that a flood at `debug` does not drop
        // them.
        Event { is_urgent: *event.level() <= Level::WARN, ..self.make_writer() }
    }
}

impl Write for Event {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let append = |lines: &mut Vec<u8>| lines.extend_from_slice(line);
        match &self.lines {
            Some(lines) if self.is_urgent => lines.append_urgent(append),
            Some(lines) => lines.append(append),
            None => io::stderr().write_all(line)?,
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Keeps each event, which arrives as one write, on one line of visible text.
struct OneLine<W>(W);

impl<'a, W: MakeWriter<'a>> MakeWriter<'a> for OneLine<W> {
    type Writer = OneLine<W::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        OneLine(self.0.make_writer())
    }

    fn make_writer_for(&'a self, event: &Metadata<'_>) -> Self::Writer {
        OneLine(self.0.make_writer_for(event))
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

/// Whether `char` ends a line, steers a terminal or turns the direction of text around. Such a character is
/// written as `\uXXXX`, which is right in JSON too, where it only stands in strings.
pub fn must_be_escaped(char: char) -> bool {
    char.is_control()
        // Line and paragraph separators, marks, embeddings, overrides and isolates
        // (Unicode Standard Annex 9, section 2).
        || matches!(char, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}')
        || matches!(char, '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// Returns `line` with every character escaped for which [`must_be_escaped`] is true.
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

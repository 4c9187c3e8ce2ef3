//! The access log: one structured line per request, on standard output.
//!
//! Threads that serve requests never wait for the reader of the log: they append a line to a buffer of
//! bounded size, and a thread of its own writes the buffer out in batches. While the reader stalls and the
//! buffer is full, lines are dropped and counted.

mod line;

use std::io::{self, Write};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus::IntCounter;
use tracing::warn;

pub use self::line::{End, Line};
use ground::lines::{Habits, Lines};

/// Time that the thread waits after the first line of a batch, so that further lines join the batch.
const GATHERING: Duration = Duration::from_millis(20);

/// Format of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One object per line.
    Json,
    /// `key=value`, as in logfmt.
    Text,
    /// No line at all.
    Off,
}

/// Settings of the access log.
#[derive(Clone, Debug)]
pub struct Settings {
    pub format: Format,
    /// Share of the requests that went well for which a line is written, from 0 to 1. Every other request
    /// gets a line.
    pub sample: f64,
    /// Whether a line names the user.
    pub user: bool,
}

/// Destination of the lines. Clones write to the same destination. When the last clone is dropped, the thread
/// writes everything out and ends.
#[derive(Clone)]
pub struct AccessLog {
    /// `None` if it is off.
    open: Option<Arc<Open>>,
}

struct Open {
    format: Format,
    names_users: bool,
    sampler: Sampler,
    lines: Arc<Lines>,
}

impl AccessLog {
    /// Writes to standard output. `dropped` counts the lines that could not be written.
    ///
    /// # Errors
    ///
    /// The system's error if no thread or no file descriptor is left. Never an error if the log is off.
    pub fn start(settings: &Settings, dropped: IntCounter) -> io::Result<Self> {
        if settings.format == Format::Off {
            return Ok(Self::off());
        }
        // A file instead of `Stdout`, which would look for line ends and write at each.
        let stdout = io::stdout().as_fd().try_clone_to_owned()?;
        Self::to(std::fs::File::from(stdout), settings, dropped)
    }

    /// Writes nothing.
    pub fn off() -> Self {
        Self { open: None }
    }

    /// Writes to `out`, in any format but `Off`.
    ///
    /// # Errors
    ///
    /// The system's error if no thread is left.
    pub fn to(
        out: impl Write + Send + 'static,
        settings: &Settings,
        dropped: IntCounter,
    ) -> io::Result<Self> {
        let habits = Habits {
            thread: "access-log",
            gathering: GATHERING,
            dropped,
            failed: |error| {
                warn!(%error, "standard output takes no lines of the access log; they are dropped");
            },
            resumed: |_| {},
        };
        let lines = Lines::start(out, habits)?;
        let sampler = Sampler::new(settings.sample);
        let open = Open { format: settings.format, names_users: settings.user, sampler, lines };
        Ok(Self { open: Some(Arc::new(open)) })
    }

    /// Whether there is anything to note of a request.
    pub fn is_on(&self) -> bool {
        self.open.is_some()
    }

    /// Whether a line names the user.
    pub fn names_users(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.names_users)
    }

    /// Queues a line, or drops and counts it. Never waits for the reader.
    pub fn write(&self, line: &Line<'_>) {
        if let Some(open) = &self.open
            && (!line.went_well() || open.sampler.takes_next())
        {
            open.lines.append(|lines| line.format(open.format, lines));
        }
    }

    /// Waits until the queued lines have been written, at most `patience`. Returns whether they have been
    /// written.
    pub async fn flush(&self, patience: Duration) -> bool {
        let Some(open) = &self.open else { return true };
        let lines = Arc::clone(&open.lines);
        let waiting = tokio::task::spawn_blocking(move || lines.flush(patience));
        waiting.await.unwrap_or(false)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.lines.close();
    }
}

/// Chooses a share of the requests, evenly spread. Each request adds the golden ratio to `position`, which
/// wraps around, and is chosen if `position` was below `bound`.
struct Sampler {
    /// `None` chooses every request.
    bound: Option<u64>,
    position: AtomicU64,
}

impl Sampler {
    fn new(share: f64) -> Self {
        // The cast saturates, and 0 stays 0.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let bound = (share < 1.0).then_some((share * u64::MAX as f64) as u64);
        Self { bound, position: AtomicU64::new(0) }
    }

    fn takes_next(&self) -> bool {
        // 2^64 divided by the golden ratio.
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        self.bound.is_none_or(|bound| self.position.fetch_add(STEP, Ordering::Relaxed) < bound)
    }
}

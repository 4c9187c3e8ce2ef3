//! The buffer between those who serve and the thread that writes.
//!
//! A buffer of bytes and not a channel of lines: its bound is one of memory, a line costs no
//! allocation, and the thread is woken once per batch instead of once per line.

use std::io::{self, ErrorKind, Write};
use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use prometheus::IntCounter;
use tracing::warn;

/// What may wait to be written, in bytes: some 3,000 lines.
const MAX_BYTES: usize = 1 << 20;

/// A batch of this size is written at once.
const BATCH_BYTES: usize = 64 << 10;

/// How long the first line of a batch waits for others.
const GATHERING: Duration = Duration::from_millis(20);

/// A standard output that somebody has made non-blocking is tried again after this.
const FULL_PIPE_PAUSE: Duration = Duration::from_millis(10);

/// Lines on their way to the thread that writes them.
pub(super) struct Queue {
    state: Mutex<State>,
    /// Tells the thread that there is something to do.
    wanted: Condvar,
    /// Tells who flushes that everything is written.
    written: Condvar,
    dropped: IntCounter,
}

#[derive(Default)]
struct State {
    lines: Vec<u8>,
    thread: Activity,
    /// Somebody waits for the end of what is there: no more gathering.
    flushing: bool,
    closed: bool,
}

/// What the thread does.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Activity {
    /// Waits for a line.
    #[default]
    Idle,
    /// Waits for more of them.
    Gathering,
    Writing,
}

impl Queue {
    /// Starts the thread, which writes to `out` until the queue is closed and empty.
    pub(super) fn start(
        out: impl Write + Send + 'static,
        dropped: IntCounter,
    ) -> io::Result<Arc<Self>> {
        let (state, wanted, written) = Default::default();
        let queue = Arc::new(Self { state, wanted, written, dropped });
        let theirs = Arc::clone(&queue);
        let write = move || theirs.write_batches(out);
        thread::Builder::new().name("access-log".into()).spawn(write)?;
        Ok(queue)
    }

    /// Has `write` append a line, unless the buffer is full.
    pub(super) fn append(&self, write: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.state();
        if state.lines.len() >= MAX_BYTES {
            drop(state);
            self.dropped.inc();
            return;
        }
        write(&mut state.lines);
        let wake = match state.thread {
            Activity::Idle => true,
            Activity::Gathering => state.lines.len() >= BATCH_BYTES,
            Activity::Writing => false,
        };
        if wake {
            // Once is enough: waking takes a system call.
            state.thread = Activity::Writing;
            drop(state);
            self.wanted.notify_one();
        }
    }

    /// Waits until everything is written, at most `patience`; whether that was enough.
    pub(super) fn flush(&self, patience: Duration) -> bool {
        let mut state = self.state();
        state.flushing = true;
        self.wanted.notify_one();
        let busy = |state: &mut State| !state.lines.is_empty() || state.thread != Activity::Idle;
        let waited = self.written.wait_timeout_while(state, patience, busy);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.flushing = false;
        !busy(&mut state)
    }

    /// Lets the thread end, once it has written what is there.
    pub(super) fn close(&self) {
        self.state().closed = true;
        self.wanted.notify_one();
    }

    fn write_batches(&self, mut out: impl Write) {
        let mut batch = Vec::new();
        let mut worked = true;
        while self.take_batch(&mut batch) {
            let mut rest = batch.as_slice();
            let result = write_all(&mut out, &mut rest);
            if let Err(error) = &result {
                let lost = rest.split(|byte| *byte == b'\n').count() - 1;
                self.dropped.inc_by(lost as u64);
                if worked {
                    warn!(%error, "standard output takes no lines of the access log; they are dropped");
                }
            }
            worked = result.is_ok();
            batch.clear();
            // A burst is over some time; its memory need not stay.
            batch.shrink_to(BATCH_BYTES);
        }
    }

    /// Waits for lines and puts them into `batch`, which is empty; `false` if there are no more.
    fn take_batch(&self, batch: &mut Vec<u8>) -> bool {
        let mut state = self.state();
        if state.lines.is_empty() {
            state.thread = Activity::Idle;
            self.written.notify_all();
            let idle = |state: &mut State| state.lines.is_empty() && !state.closed;
            state = self.wanted.wait_while(state, idle).unwrap_or_else(PoisonError::into_inner);
        }
        state.thread = Activity::Gathering;
        let gathers =
            |state: &mut State| state.lines.len() < BATCH_BYTES && !state.flushing && !state.closed;
        let waited = self.wanted.wait_timeout_while(state, GATHERING, gathers);
        (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.thread = Activity::Writing;
        mem::swap(&mut state.lines, batch);
        !batch.is_empty()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes all of `rest`, and leaves there what could not be written.
fn write_all(out: &mut impl Write, rest: &mut &[u8]) -> io::Result<()> {
    while !rest.is_empty() {
        match out.write(rest) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => *rest = &rest[count..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                thread::park_timeout(FULL_PIPE_PAUSE);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

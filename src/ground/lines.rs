//! Lines for standard output or standard error: a buffer, and the thread that writes it out.
//!
//! Threads that serve append lines and do not wait for the reader of the output (`tests/it/log.rs`,
//! `tests/it/access_log.rs`). While the reader stalls and the buffer is full, lines are dropped and counted.
//! The buffer holds bytes, where a channel would hold lines: bytes bound memory, a line costs no allocation,
//! and the thread is woken once for each batch.

use std::io::{self, ErrorKind, Write};
use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use prometheus::IntCounter;

/// Most bytes that may wait to be written: some 3,000 lines.
const MAX_BYTES: usize = 1 << 20;

/// Bytes of urgent lines that may wait when [`MAX_BYTES`] are waiting already.
const URGENT_BYTES: usize = 64 << 10;

/// A batch of this size is written at once.
const BATCH_BYTES: usize = 64 << 10;

/// Pause before the next try to write to a standard output that is non-blocking and full.
const FULL_PIPE_PAUSE: Duration = Duration::from_millis(10);

/// Settings of one log: how its lines are gathered, counted and reported.
pub struct Habits {
    /// Name of the thread that writes.
    pub thread: &'static str,
    /// Time that the thread waits after the first line of a batch, so that further lines join the batch.
    pub gathering: Duration,
    /// Counts lines that are dropped.
    pub dropped: IntCounter,
    /// Called by the writing thread with the first write error after a success.
    pub failed: fn(&io::Error),
    /// Called by the writing thread after a write if lines were dropped since the last call, with their
    /// count.
    pub resumed: fn(u64),
}

/// Lines on their way to the thread that writes them.
pub struct Lines {
    state: Mutex<State>,
    /// Tells the thread that there is something to do.
    wanted: Condvar,
    /// Tells the callers of `flush` that everything is written.
    written: Condvar,
    habits: Habits,
}

#[derive(Default)]
struct State {
    lines: Vec<u8>,
    thread: Activity,
    /// Whether a caller of `flush` waits for the end of the lines: the thread gathers no more.
    flushing: bool,
    closed: bool,
}

/// State of the thread.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Activity {
    /// Waits for a line.
    #[default]
    Idle,
    /// Waits for more lines.
    Gathering,
    Writing,
}

impl Lines {
    /// Starts the thread, which writes to `out` until the queue is closed and empty.
    ///
    /// # Errors
    ///
    /// The system's error if it can start no thread.
    pub fn start(out: impl Write + Send + 'static, habits: Habits) -> io::Result<Arc<Self>> {
        let name = habits.thread.to_owned();
        let (state, wanted, written) = Default::default();
        let lines = Arc::new(Self { state, wanted, written, habits });
        let theirs = Arc::clone(&lines);
        thread::Builder::new().name(name).spawn(move || theirs.write_batches(out))?;
        Ok(lines)
    }

    /// Has `write` append a line, unless the buffer is full.
    pub fn append(&self, write: impl FnOnce(&mut Vec<u8>)) {
        self.append_within(MAX_BYTES, write);
    }

    /// Lets `write` append a line, into the bytes reserved for urgent lines if all others are taken.
    pub fn append_urgent(&self, write: impl FnOnce(&mut Vec<u8>)) {
        self.append_within(MAX_BYTES + URGENT_BYTES, write);
    }

    fn append_within(&self, bound: usize, write: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.state();
        if state.lines.len() >= bound {
            drop(state);
            self.habits.dropped.inc();
            return;
        }
        write(&mut state.lines);
        let wake = match state.thread {
            Activity::Idle => true,
            Activity::Gathering => state.lines.len() >= BATCH_BYTES,
            Activity::Writing => false,
        };
        if wake {
            // Wakes the thread once only: waking takes a system call.
            state.thread = Activity::Writing;
            drop(state);
            self.wanted.notify_one();
        }
    }

    /// Waits until everything is written, at most `patience`. Returns whether everything is written.
    pub fn flush(&self, patience: Duration) -> bool {
        let mut state = self.state();
        state.flushing = true;
        self.wanted.notify_one();
        let busy = |state: &mut State| !state.lines.is_empty() || state.thread != Activity::Idle;
        let waited = self.written.wait_timeout_while(state, patience, busy);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.flushing = false;
        !busy(&mut state)
    }

    /// Lets the thread end after it has written the lines that are left.
    pub fn close(&self) {
        self.state().closed = true;
        self.wanted.notify_one();
    }

    fn write_batches(&self, mut out: impl Write) {
        let mut batch = Vec::new();
        let Habits { dropped, failed, resumed, .. } = &self.habits;
        let (mut worked, mut told) = (true, 0);
        while self.take_batch(&mut batch) {
            let mut rest = batch.as_slice();
            let result = write_all(&mut out, &mut rest);
            if let Err(error) = &result {
                let lost = rest.split(|byte| *byte == b'\n').count() - 1;
                dropped.inc_by(lost as u64);
                if worked {
                    failed(error);
                }
            }
            worked = result.is_ok();
            let lost = dropped.get();
            if worked && lost > told {
                resumed(lost - told);
                told = lost;
            }
            batch.clear();
            // A burst is over some time, and its memory need not stay.
            batch.shrink_to(BATCH_BYTES);
        }
    }

    /// Waits for lines and puts them into `batch`, which is empty. `false` if no more lines will come.
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
        let waited = self.wanted.wait_timeout_while(state, self.habits.gathering, gathers);
        (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.thread = Activity::Writing;
        mem::swap(&mut state.lines, batch);
        !batch.is_empty()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes all of `rest`. After an error, `rest` holds the bytes that could not be written.
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::mpsc;

    use super::*;

    /// An output that takes nothing until the test lets it.
    struct Stalled(mpsc::Receiver<()>);

    impl Write for Stalled {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // An error says that nothing stalls any more.
            let _ = self.0.recv();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    static RESUMED: AtomicU64 = AtomicU64::new(0);

    #[test]
    fn urgent_lines_have_room_when_the_buffer_is_full() {
        const LINE: [u8; 1000] = [b'x'; 1000];
        let (go, gate) = mpsc::channel();
        let dropped = IntCounter::new("dropped", "Dropped.").expect("a valid metric");
        let habits = Habits {
            thread: "test",
            gathering: Duration::ZERO,
            dropped: dropped.clone(),
            failed: |_| {},
            resumed: |count| {
                RESUMED.fetch_add(count, Ordering::SeqCst);
            },
        };
        let lines = Lines::start(Stalled(gate), habits).expect("a thread");
        let line = |lines: &mut Vec<u8>| lines.extend_from_slice(&LINE);
        while dropped.get() < 3 {
            lines.append(line);
        }
        for _ in 0..URGENT_BYTES / LINE.len() {
            lines.append_urgent(line);
        }
        assert_eq!(dropped.get(), 3);
        while dropped.get() < 7 {
            lines.append_urgent(line);
        }
        assert!(!lines.flush(Duration::from_millis(1)), "nothing is read");
        drop(go);
        assert!(lines.flush(Duration::from_secs(20)));
        assert_eq!(RESUMED.load(Ordering::SeqCst), 7, "told of each lost line once");
        lines.close();
    }
}

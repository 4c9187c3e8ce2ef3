//! The thread that measures memory, ends the connections that hold most near the limit, and has freed memory
//! given back.

use std::cmp::Reverse;
use std::hint::black_box;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::Instant;
use tracing::warn;

use super::meter::Meter;
use super::{Holder, Memory, MemoryMetrics, State};

/// Pauses between two measurements: far from the limit, and at half of the limit or more.
const FAR: Duration = Duration::from_millis(100);
const NEAR: Duration = Duration::from_millis(5);

/// Pause between two questions to the kernel for its own memory, from half of the limit on. The answer is a
/// file of two kilobytes.
const KERNEL_NEAR: Duration = Duration::from_millis(20);

/// Bytes a second that a process takes at most. Half of the limit must not pass between two measurements.
const FASTEST: u64 = 1 << 30;

/// Longest time for which clients are not read. If memory is not free by then, what is left of it is better
/// used than kept.
const PAUSED: Duration = Duration::from_millis(500);

/// Time for which requests are watched for movement before the largest holders are ended. The same time must
/// pass after connections were ended, so that their memory is free.
const WATCHED: Duration = Duration::from_millis(100);
/// Time for which requests are watched when hardly any memory is left.
const WATCHED_LAST: Duration = Duration::from_millis(15);

/// Pause between two rounds in which allocators tidy up, and the number of rounds after connections
/// have ended. One thread may free memory that another thread has allocated; the other thread can give
/// that memory back only in a later round.
const TIDY: Duration = Duration::from_secs(2);
const TIDY_ROUNDS: u32 = 3;
/// Pause between two rounds while memory is nearly used up.
const TIDY_FULL: Duration = Duration::from_millis(20);

/// Connections that must end, or bytes that must be taken, before allocators tidy up.
const TIDY_GONE: usize = 16;
const TIDY_GROWN: u64 = 8 << 20;

/// Pause between two log lines about connections that were ended.
const LOGGED: Duration = Duration::from_secs(60);

/// Keeps memory watched until it is dropped.
pub struct Watch {
    _stop: SyncSender<()>,
}

impl Watch {
    /// Starts the thread. `limit` is the memory that the process may take; `workers` are the threads that
    /// serve.
    ///
    /// # Errors
    ///
    /// The system's error if it can start no thread.
    pub fn start(
        memory: &Memory,
        limit: Option<u64>,
        workers: Vec<Handle>,
        metrics: MemoryMetrics,
    ) -> io::Result<Self> {
        metrics.limit.set(limit.map_or(0, gauge));
        let (stop, stopped) = sync_channel(0);
        let state = Arc::clone(&memory.0);
        let watching = move || Watching::new(state, limit, workers, metrics).run(&stopped);
        // The thread needs less than the smallest stack that the system gives.
        let thread = thread::Builder::new().name("velt-memory".to_owned()).stack_size(64 * 1024);
        thread.spawn(watching)?;
        Ok(Self { _stop: stop })
    }
}

struct Watching {
    state: Arc<State>,
    limit: Option<u64>,
    workers: Vec<Handle>,
    metrics: MemoryMetrics,
    meter: Meter,
    /// Bytes that the kernel held when it was last asked, and the time of the question.
    kernel: (u64, Instant),
    /// Time of the last [`Holder::mark`]; `None` while memory is not watched.
    marked: Option<Instant>,
    /// Connections that were ended and are not free yet, with what each was estimated to hold.
    ending: Vec<(u64, Weak<dyn Holder>)>,
    /// Bytes that were taken when connections were last ended.
    used_at_end: u64,
    tidied: Instant,
    rounds: u32,
    /// Bytes that were taken after allocators last tidied up, and connections that had ended by then.
    settled: (u64, usize),
    /// Connections ended since the last log line, and the time of the line.
    ended: usize,
    logged: Option<Instant>,
}

impl Watching {
    fn new(
        state: Arc<State>,
        limit: Option<u64>,
        workers: Vec<Handle>,
        metrics: MemoryMetrics,
    ) -> Self {
        let (meter, now) = (Meter::new(), Instant::now());
        let (kernel, settled) = ((meter.of_kernel(), now), (meter.own(), 0));
        let (rounds, ended, ending) = (0, 0, Vec::new());
        let (marked, logged, tidied) = (None, None, now);
        Self {
            state,
            limit,
            workers,
            metrics,
            meter,
            kernel,
            marked,
            ending,
            used_at_end: 0,
            tidied,
            rounds,
            settled,
            ended,
            logged,
        }
    }

    fn run(mut self, stopped: &Receiver<()>) {
        let mut pause = FAR;
        while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(pause) {
            let now = Instant::now();
            let own = self.meter.own();
            let old = if self.marked.is_some() { KERNEL_NEAR } else { FAR };
            if now.duration_since(self.kernel.1) >= old {
                self.kernel = (self.meter.of_kernel(), now);
            }
            let used = own + self.kernel.0;
            self.metrics.used.set(gauge(used));
            let wary = self.limit.is_some_and(|limit| self.guard(used, limit, now));
            pause = match (wary, self.limit) {
                (true, _) => NEAR,
                (false, Some(limit)) => until_wary(used, limit),
                // Without a limit no connection has to be ended in time: an idle sidecar is woken as rarely
                // as tidying asks.
                (false, None) => TIDY,
            };
            if now.duration_since(self.tidied) >= TIDY {
                self.tidy_if_due(own, now);
            }
        }
        // Without this thread, the pause would have no end.
        self.state.pause.set(false);
    }

    /// Keeps the process below its limit. Returns whether more than half of the limit is taken.
    fn guard(&mut self, used: u64, limit: u64, now: Instant) -> bool {
        let (wary, full) = (used > limit / 2, used > limit / 10 * 7);
        self.note_fullness(full, now);
        if wary != self.state.wary.swap(wary, Ordering::Relaxed) {
            self.state.update_shortage();
        }
        if !wary {
            self.marked = None;
            self.used_at_end = 0;
            self.ending.clear();
            return false;
        }
        let Some(marked) = self.marked else {
            self.mark(now);
            return true;
        };
        let watched = now.duration_since(marked);
        if full && now.duration_since(self.tidied) >= TIDY_FULL {
            self.tidy(now);
        }
        // Waits until the memory of connections that were ended is free, unless that takes too long or
        // more memory is taken meanwhile.
        self.ending.retain(|(_, holder)| holder.strong_count() > 0);
        let free = self.ending.is_empty();
        let grows = used > self.used_at_end + limit / 32;
        let enough = match free {
            _ if grows && full => WATCHED_LAST,
            true => WATCHED,
            false => 5 * WATCHED,
        };
        if full && watched >= enough {
            self.used_at_end = used;
            let soon_free: u64 = self.ending.iter().map(|(held, _)| held).sum();
            self.end_largest((used - limit / 10 * 6).saturating_sub(soon_free), now);
            self.mark(now);
        } else if watched >= 10 * WATCHED {
            self.mark(now);
        }
        true
    }

    /// Notes since when memory has been `full`. For the first [`PAUSED`] of that time, clients are not read.
    fn note_fullness(&self, full: bool, now: Instant) {
        let since = {
            let mut since = self.state.full();
            *since = if full { since.or(Some(now)) } else { None };
            *since
        };
        self.state.pause.set(since.is_some_and(|since| now.duration_since(since) < PAUSED));
    }

    fn mark(&mut self, now: Instant) {
        self.state.open().iter().for_each(|holder| holder.mark());
        self.marked = Some(now);
    }

    /// Ends the connections that hold most, half of `excess` at a time, since `held` is an estimate. Of those
    /// that hold the same, the newest end last: their answers may be about to come.
    fn end_largest(&mut self, excess: u64, now: Instant) {
        let holders = self.state.open();
        let mut holders: Vec<(u64, Arc<dyn Holder>)> =
            holders.into_iter().map(|holder| (holder.holds(), holder)).collect();
        let held: u64 = holders.iter().map(|(held, _)| held).sum();
        holders.sort_by_key(|(held, _)| Reverse(*held));
        let mut freed = 0;
        // If connections hold little of the memory, ending them would not help.
        for (held, holder) in holders.iter().take_while(|_| held > excess / 4) {
            if freed >= excess.div_ceil(2) {
                break;
            }
            if holder.end() {
                freed += held;
                self.ending.push((*held, Arc::downgrade(holder)));
                self.ended += 1;
            }
        }
        if freed > 0 && self.logged.is_none_or(|logged| now.duration_since(logged) >= LOGGED) {
            self.logged = Some(now);
            let ended = std::mem::take(&mut self.ended);
            warn!(
                ended,
                excess,
                held,
                "memory is nearly used up: connections that hold most of it without moving are ended; \
                 raise the container's memory limit, or lower listen.max_connections"
            );
        }
    }

    /// Lets allocators tidy up when connections have ended or memory has grown since the last time.
    fn tidy_if_due(&mut self, own: u64, now: Instant) {
        let gone = self.state.gone();
        if gone - self.settled.1 >= TIDY_GONE || own > self.settled.0 + TIDY_GROWN {
            self.rounds = TIDY_ROUNDS;
            self.settled = (own, gone);
        }
        if self.rounds > 0 {
            self.rounds -= 1;
            self.tidy(now);
            self.settled.0 = self.settled.0.min(own);
        } else {
            self.tidied = now;
        }
    }

    fn tidy(&mut self, now: Instant) {
        for worker in &self.workers {
            worker.spawn(async { tidy_thread() });
        }
        tidy_thread();
        self.tidied = now;
    }
}

/// Returns the time until the next measurement, if half of `limit` is not `used` yet.
fn until_wary(used: u64, limit: u64) -> Duration {
    let left = (limit / 2).saturating_sub(used);
    Duration::from_micros(left / (FASTEST / 1_000_000)).clamp(NEAR, FAR)
}

/// Bytes that no address space has room for, but just few enough that mimalloc looks for them.
const IMPOSSIBLE: u64 = (1 << 48) - (1 << 20);

/// Makes mimalloc give free memory of this thread back to the system. By itself, mimalloc does so only
/// in passing, when the thread goes on to allocate. But it gives back all free memory before it reports
/// that memory has run out (`_mi_malloc_generic`), and an allocation of this size brings that about.
/// There is no safe function for this.
fn tidy_thread() {
    let bytes = usize::try_from(IMPOSSIBLE).unwrap_or(usize::MAX / 2);
    let mut impossible: Vec<u8> = Vec::new();
    let refused = impossible.try_reserve_exact(black_box(bytes));
    // `black_box` keeps the compiler from leaving the allocation out.
    black_box((refused.is_err(), impossible.capacity()));
}

fn gauge(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;
    use crate::metrics::Metrics;

    const LIMIT: u64 = 100 << 20;

    /// A connection that holds 30 MiB, and is not freed when it is ended.
    #[derive(Default)]
    struct Large {
        ended: AtomicBool,
    }

    impl Holder for Large {
        fn holds(&self) -> u64 {
            30 << 20
        }

        fn mark(&self) {}

        fn end(&self) -> bool {
            !self.ended.swap(true, Ordering::Relaxed)
        }
    }

    fn watching(memory: &Memory) -> Watching {
        Watching::new(Arc::clone(&memory.0), Some(LIMIT), Vec::new(), Metrics::new().memory)
    }

    #[test]
    fn clients_are_paused_half_a_second_of_a_shortage() {
        let memory = Memory::default();
        let (mut watching, start) = (watching(&memory), Instant::now());
        for (percent, milliseconds, paused) in [
            (60, 0, false),
            (71, 10, true),
            (99, 509, true),
            (99, 510, false),
            (80, 5000, false),
            (69, 5010, false),
            (71, 5020, true),
        ] {
            let now = start + Duration::from_millis(milliseconds);
            watching.guard(LIMIT / 100 * percent, LIMIT, now);
            assert_eq!(memory.0.pause.is_on(), paused, "{percent} % after {milliseconds} ms");
        }
    }

    #[test]
    fn connections_that_are_about_to_be_free_count_as_freed() {
        let memory = Memory::default();
        let clients: Vec<Arc<Large>> = (0..3).map(|_| Arc::default()).collect();
        for client in &clients {
            let client: Weak<Large> = Arc::downgrade(client);
            memory.register(client);
        }
        let (mut watching, start) = (watching(&memory), Instant::now());
        let ended = || clients.iter().filter(|client| client.ended.load(Ordering::Relaxed)).count();
        for (milliseconds, expected) in [(0, 0), (50, 1), (1000, 1), (2000, 1)] {
            watching.guard(LIMIT / 100 * 88, LIMIT, start + Duration::from_millis(milliseconds));
            assert_eq!(ended(), expected, "after {milliseconds} ms");
        }
    }

    #[test]
    fn measurements_are_closer_the_less_is_left() {
        assert_eq!(until_wary(0, 1 << 30), FAR);
        assert_eq!(until_wary(8 << 20, 96 << 20), Duration::from_micros((40 << 20) / 1073));
        assert_eq!(until_wary(48 << 20, 96 << 20), NEAR);
    }
}

//! Processes, and the kernel's figures about them.

use std::error::Error;
use std::fs;
use std::io;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use rustix::process::{CpuSet, Pid, Resource, Signal, getrlimit, kill_process, sched_setaffinity};

use crate::Result;

/// Microseconds in a tick of `/proc/stat`: `USER_HZ` is 100 on every Linux that Rust supports.
const TICK_MICROS: f64 = 10_000.0;

/// Makes the calling thread, and all threads and processes that it starts, run on these cores only.
pub fn pin(cores: &[usize]) -> io::Result<()> {
    let mut set = CpuSet::new();
    for core in cores {
        set.set(*core);
    }
    Ok(sched_setaffinity(None, &set)?)
}

/// Returns the number of connections that a proxy can serve at a time under this process's limit of open
/// files, at most 10,000: at worst, each connection needs another connection to the app.
pub fn most_connections() -> usize {
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from(files / 2).unwrap_or(usize::MAX).saturating_sub(100).min(10_000)
}

/// A child process with its children, ended with its owner.
pub struct Tree {
    child: Child,
    members: Vec<u32>,
}

impl Tree {
    /// Starts a program on some cores.
    pub fn spawn(command: &mut Command, cores: &[usize]) -> io::Result<Self> {
        // A child inherits the cores of the thread that starts it.
        let child = std::thread::scope(|scope| {
            let starter = scope.spawn(|| {
                pin(cores)?;
                command.spawn()
            });
            starter
                .join()
                .map_err(|_| io::Error::other("the thread that starts programs failed"))?
        })?;
        Ok(Self { members: vec![child.id()], child })
    }

    /// Finds all descendants that the child has by now.
    pub fn look_for_members(&mut self) -> io::Result<()> {
        let mut parents = Vec::new();
        for entry in fs::read_dir("/proc")? {
            let Some(id) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            // The file of a process that has ended meanwhile can't be read.
            if let Ok(stat) = fs::read_to_string(format!("/proc/{id}/stat"))
                && let Some((_, fields)) = stat.rsplit_once(')')
                && let Some(Ok(parent)) = fields.split_whitespace().nth(1).map(str::parse::<u32>)
            {
                parents.push((id, parent));
            }
        }
        self.members.truncate(1);
        while let Some((id, _)) = parents
            .iter()
            .find(|(id, parent)| self.members.contains(parent) && !self.members.contains(id))
        {
            self.members.push(*id);
        }
        Ok(())
    }

    /// Returns the exit status if the child has ended by itself.
    pub fn ended(&mut self) -> io::Result<Option<std::process::ExitStatus>> {
        self.child.try_wait()
    }

    /// Returns the microseconds that all threads of the tree have run so far.
    pub fn cpu_micros(&self) -> Result<f64> {
        let mut nanos = 0.0;
        for id in &self.members {
            // Some of nginx's processes end when their work is done.
            let Ok(threads) = fs::read_dir(format!("/proc/{id}/task")) else { continue };
            for thread in threads {
                // A thread may end meanwhile.
                let times =
                    fs::read_to_string(thread?.path().join("schedstat")).unwrap_or_default();
                nanos += times.split(' ').next().unwrap_or_default().parse().unwrap_or(0.0);
            }
        }
        if nanos == 0.0 {
            return Err("this kernel tells no run times in /proc/PID/task/*/schedstat".into());
        }
        Ok(nanos / 1e3)
    }

    /// Returns the resident and the proportional memory of the tree.
    pub fn memory(&self) -> Result<Memory> {
        let mut memory = Memory { resident: 0.0, proportional: 0.0 };
        for id in &self.members {
            let Ok(rollup) = fs::read_to_string(format!("/proc/{id}/smaps_rollup")) else {
                continue;
            };
            let kilobytes = |name: &str| -> std::result::Result<f64, Box<dyn Error>> {
                let line = rollup.lines().find_map(|line| line.strip_prefix(name));
                let value = line.and_then(|line| line.split_whitespace().next());
                Ok(value.ok_or("an unreadable smaps_rollup")?.parse()?)
            };
            memory.resident += kilobytes("Rss:")? * 1024.0;
            memory.proportional += kilobytes("Pss:")? * 1024.0;
        }
        Ok(memory)
    }
}

/// Memory of a tree of processes, in bytes.
#[derive(Clone, Copy)]
pub struct Memory {
    /// Sum of the resident sets; a page that two processes share counts twice.
    pub resident: f64,
    /// Sum of all pages, each page divided by the number of processes that share it.
    pub proportional: f64,
}

impl Drop for Tree {
    fn drop(&mut self) {
        // A process that has ended already gets no signal.
        if let Some(id) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(id, Signal::Term);
        }
        let deadline = Instant::now() + Duration::from_secs(3);
        while Instant::now() < deadline {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns the microseconds in which some cores have been busy since the machine started.
pub fn busy_micros(cores: &[usize]) -> Result<f64> {
    let stat = fs::read_to_string("/proc/stat")?;
    let mut ticks = 0.0;
    for core in cores {
        let name = format!("cpu{core} ");
        let line = stat.lines().find_map(|line| line.strip_prefix(&name));
        let fields: Vec<f64> = line
            .ok_or("a core is missing in /proc/stat")?
            .split_whitespace()
            .map(|field| field.parse().unwrap_or(0.0))
            .collect();
        // user, nice, system, irq, softirq, steal; not idle and iowait.
        ticks += [0, 1, 2, 5, 6, 7].iter().filter_map(|at| fields.get(*at)).sum::<f64>();
    }
    Ok(ticks * TICK_MICROS)
}

/// Returns the microseconds that this process has run so far.
pub fn own_micros() -> Result<f64> {
    let mut nanos = 0.0;
    for thread in fs::read_dir("/proc/self/task")? {
        let times = fs::read_to_string(thread?.path().join("schedstat")).unwrap_or_default();
        nanos += times.split(' ').next().unwrap_or_default().parse().unwrap_or(0.0);
    }
    Ok(nanos / 1e3)
}

/// Measures how long a fixed piece of work takes on a core. A longer time shows a core that runs slower, or
/// that another process uses.
pub fn pace(core: usize) -> Result<Duration> {
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| -> io::Result<Duration> {
            pin(&[core])?;
            let mut best = Duration::MAX;
            for _ in 0..3 {
                let started = Instant::now();
                let mut state = 1_u64;
                for step in 0..2_000_000_u64 {
                    state = std::hint::black_box(state.wrapping_mul(31) ^ step);
                }
                std::hint::black_box(state);
                best = best.min(started.elapsed());
            }
            Ok(best)
        });
        Ok(worker.join().map_err(|_| "the thread that measures the core failed")??)
    })
}

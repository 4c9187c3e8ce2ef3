//! Simulation of replicas and their users in virtual time: mints, calls to the store, memory, and the tokens
//! that a user is given, with and without the second level, with and without session affinity.
//!
//! The life of a token and the moment of its refresh come from `token::Token`; `docs/scale.md` states the
//! rest of the method and what the simulation leaves out. `benches/scale.rs` prints and records the figures,
//! `tests/it/scale.rs` checks the simulation against cases that can be calculated.

pub mod cluster;
pub mod draws;
pub mod held;
pub mod lives;
pub mod store;
pub mod tables;
pub mod tally;
pub mod traffic;

use std::ops::Range;

use token::cache::Settings;

use self::cluster::Cluster;
use self::lives::Lives;
use self::tally::Figures;
use self::traffic::{BUSIEST_HOUR, Traffic};

/// Virtual time since the start of the simulation.
pub type Millis = u32;

/// Number of a user.
pub type User = u32;

pub const SECOND: Millis = 1_000;
pub const MINUTE: Millis = 60 * SECOND;
pub const HOUR: Millis = 60 * MINUTE;
pub const DAY: Millis = 24 * HOUR;

/// First of the days in the figures. Before it, the caches fill: a token lives two days.
pub const STEADY_DAY: u32 = 2;

/// Day with a rollout at its busiest hour.
pub const ROLLOUT_DAY: u32 = 3;

/// Day with a rollout at its busiest hour while Velt is down.
pub const OUTAGE_DAY: u32 = 4;

const DAYS: u32 = 5;

/// Time for which Velt is down, from [`OUTAGE_LEAD`] before the rollout.
const OUTAGE: Millis = HOUR;

/// Time by which the outage begins before the rollout.
const OUTAGE_LEAD: Millis = 5 * MINUTE;

/// Time between two waves of a rollout, in which the new pods of a wave become ready.
const WAVE_EVERY: Millis = 2 * MINUTE;

/// Waves of a rollout with `maxSurge: 25%`, the default of a Deployment.
const WAVES: u32 = 4;

/// Length of a token with a few resources in it, as in `benches/token_cache.rs`.
pub const TOKEN_BYTES: usize = 900;

/// Bytes that the product's cache counts for an entry beside the token (`ENTRY_OVERHEAD` in
/// `src/token/cache/slot.rs`; `tests/it/scale.rs` asks the cache).
pub const ENTRY_OVERHEAD: usize = 620;

/// Bounds of a replica's cache by default; `tests/it/scale.rs` compares them with `sidecar.toml`.
pub const BOUNDS: Settings = Settings { max_entries: 100_000, max_bytes: 256 << 20 };

/// Seed of the recorded figures.
pub const SEED: u64 = 22;

/// Extent of an installation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Size {
    pub replicas: u32,
    pub users: User,
    /// Sessions that a user begins in a day, on average over all users.
    pub sessions_per_day: f64,
}

/// Way in which the replicas work together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scenario {
    /// Whether the replicas share their tokens in a store.
    pub second_level: bool,
    /// Whether a user stays with one replica for as long as its pod lives; without it, each request goes to
    /// any.
    pub affinity: bool,
}

impl Scenario {
    pub const ALL: [Self; 4] = [
        Self { second_level: false, affinity: false },
        Self { second_level: false, affinity: true },
        Self { second_level: true, affinity: false },
        Self { second_level: true, affinity: true },
    ];

    /// Returns the heading of the scenario's column.
    pub fn name(self) -> &'static str {
        match (self.second_level, self.affinity) {
            (false, false) => "alone",
            (false, true) => "affinity",
            (true, false) => "second level",
            (true, true) => "both",
        }
    }
}

/// Events of a simulation beside its traffic.
#[derive(Clone, Debug, Default)]
pub struct Events {
    /// Waves of the rollouts, in order: the moment, and the replicas whose pods are replaced.
    pub waves: Vec<(Millis, Range<u32>)>,
    /// Time for which Velt is down.
    pub outage: Range<Millis>,
    /// Moment at which the tokens held are counted.
    pub census: Millis,
}

impl Events {
    /// Returns the events of the recorded days.
    fn of(replicas: u32) -> Self {
        let [quiet, down] = [ROLLOUT_DAY, OUTAGE_DAY].map(|day| day * DAY + BUSIEST_HOUR);
        let mut waves = rollout(replicas, quiet);
        waves.extend(rollout(replicas, down));
        let outage = down - OUTAGE_LEAD..down - OUTAGE_LEAD + OUTAGE;
        Self { waves, outage, census: (STEADY_DAY + 1) * DAY }
    }
}

/// Returns the waves of a rollout that begins at `from`.
pub fn rollout(replicas: u32, from: Millis) -> Vec<(Millis, Range<u32>)> {
    let surge = replicas.div_ceil(WAVES);
    let firsts = (0..replicas).step_by(surge as usize);
    let waves = firsts.map(|first| first..replicas.min(first + surge));
    waves.zip(0..).map(|(pods, wave)| (from + wave * WAVE_EVERY, pods)).collect()
}

/// Returns the number of entries at which a cache within `settings` is full, each of a token of
/// [`TOKEN_BYTES`]. By the rule of `TokenCache::new`: an entry weighs its bytes, but at least its share of
/// `max_bytes`.
pub fn entries_within(settings: &Settings) -> usize {
    let share = (settings.max_bytes / settings.max_entries).max(1);
    let capacity = (share * settings.max_entries).min(settings.max_bytes);
    let weight = share.max((TOKEN_BYTES + ENTRY_OVERHEAD) as u64);
    usize::try_from(capacity / weight).expect("a cache that fits memory")
}

/// Simulates the recorded days.
pub fn simulate(size: Size, scenario: Scenario, lives: &Lives, seed: u64) -> Figures {
    let until = DAYS * DAY;
    let events = Events::of(size.replicas);
    let mut cluster = Cluster::new(size, scenario, lives, events, seed);
    for request in Traffic::new(size.users, size.sessions_per_day, until, seed) {
        cluster.ask(request);
    }
    cluster.end(until)
}

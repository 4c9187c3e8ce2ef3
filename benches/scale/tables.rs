//! Tables of the figures, and their place in `docs/scale.md`.

use std::sync::Mutex;

use super::lives::Lives;
use super::store::Call;
use super::tally::{Day, Figures};
use super::traffic::{
    BUSIEST_HOUR, PAUSE_SECONDS, REQUESTS_PER_VIEW, SESSION_MEDIAN_SECONDS, SESSION_SPREAD,
    USER_SPREAD, WAVE,
};
use super::{
    DAY, ENTRY_OVERHEAD, HOUR, ROLLOUT_DAY, SECOND, STEADY_DAY, Scenario, Size, TOKEN_BYTES,
    cluster, simulate,
};

/// Document that holds the tables.
pub const DOCUMENT: &str = "docs/scale.md";

/// Sessions of a user in a day in all recorded tables.
const SESSIONS_PER_DAY: f64 = 1.5;

/// Installation of the first table.
pub const LARGE: Size =
    Size { replicas: 200, users: 1_000_000, sessions_per_day: SESSIONS_PER_DAY };

/// Installations of the second table. The first [`SMALL`] of them are simulated in every run of the tests.
pub const SIZES: [Size; 5] = [
    Size { replicas: 2, users: 200, sessions_per_day: SESSIONS_PER_DAY },
    Size { replicas: 3, users: 1_000, sessions_per_day: SESSIONS_PER_DAY },
    Size { replicas: 10, users: 20_000, sessions_per_day: SESSIONS_PER_DAY },
    Size { replicas: 40, users: 200_000, sessions_per_day: SESSIONS_PER_DAY },
    LARGE,
];

/// Number of installations that the tests simulate.
pub const SMALL: usize = 2;

/// Memory of Redis for a sealed token of [`TOKEN_BYTES`] with its name: 100,000 of them took this much each
/// of `used_memory` (Redis 7.0.15).
const STORED_BYTES: f64 = 1_190.0;

/// Bytes that the cache counts for a token.
const HELD_BYTES: f64 = (TOKEN_BYTES + ENTRY_OVERHEAD) as f64;

const MEBIBYTE: f64 = 1024.0 * 1024.0;

/// Text before and after the tables.
const BEGIN: &str = "<!-- begin: written by `cargo bench --bench scale -- --record` -->\n";
const END: &str = "<!-- end -->\n";

/// A line of the first table.
enum Row {
    /// Heading of the lines below it.
    Part(&'static str),
    Figure(&'static str, fn(&Figures) -> f64),
    /// A figure that there is only with the second level.
    OfStore(&'static str, fn(&Figures) -> f64),
}

const ROWS: &[Row] = &[
    Row::Part("*A day like any other*"),
    Row::Figure("requests with a token, a second", |it| a_second(it.steady().requests)),
    Row::Figure("mints", |it| it.steady().mints as f64),
    Row::Figure("mints a second, busiest minute", |it| it.busiest_mints(STEADY_DAY)),
    Row::Figure("requests that wait for a mint or the store, %", |it| {
        100.0 * share(it.steady().waits, it.steady().requests)
    }),
    Row::Figure("another string than before, for each active user", |it| {
        share(it.steady().changes, it.steady().active_users)
    }),
    Row::Figure("another string within a session, in 100 sessions", |it| {
        changed_sessions(&it.steady())
    }),
    Row::Figure("tokens that a replica holds", |it| it.tally.census.held),
    Row::Figure("memory of these tokens, MiB", |it| it.tally.census.held * HELD_BYTES / MEBIBYTE),
    Row::Figure("tokens pushed out of full caches", |it| it.steady().evictions as f64),
    Row::OfStore("tokens in the store", |it| it.tally.census.stored as f64),
    Row::OfStore("memory of the store for these, MiB", |it| {
        it.tally.census.stored as f64 * STORED_BYTES / MEBIBYTE
    }),
    Row::OfStore("calls to the store a second, mean", calls_a_second),
    Row::OfStore("calls to the store a second, busiest minute", |it| it.busiest_calls(STEADY_DAY)),
    Row::OfStore("of the mean: to follow the events", follow_a_second),
    Row::OfStore("of the mean: reads because of an event", |it| {
        a_second(it.steady().calls[Call::Follow as usize])
    }),
    Row::Part("*Rollout at the busiest hour*"),
    Row::Figure("mints in the hour of the rollout", |it| it.rollout_mints() as f64),
    Row::Figure("mints a second, busiest minute of the day", |it| it.busiest_mints(ROLLOUT_DAY)),
    Row::OfStore("calls to the store a second, busiest minute of the day", |it| {
        it.busiest_calls(ROLLOUT_DAY)
    }),
    Row::Figure("another string within a session, in 100 sessions of the day", |it| {
        changed_sessions(&it.tally.of_day(ROLLOUT_DAY))
    }),
    Row::Part("*Rollout while Velt is down for an hour*"),
    Row::Figure("users who ask in this hour", |it| it.tally.outage.asked as f64),
    Row::Figure("of these, users without a token", |it| it.tally.outage.without_token as f64),
    Row::Figure("of these, users for whom there was a good token before", |it| {
        it.tally.outage.needlessly as f64
    }),
];

impl Row {
    fn write(&self, of: &[Figures; 4]) -> String {
        let (name, figure_of, of_store) = match self {
            Self::Part(name) => return line(name, [const { String::new() }; 4]),
            Self::Figure(name, figure_of) => (name, figure_of, false),
            Self::OfStore(name, figure_of) => (name, figure_of, true),
        };
        let cell = |figures: &Figures| {
            if of_store && !figures.scenario.second_level {
                return String::new();
            }
            figure(figure_of(figures))
        };
        line(name, of.each_ref().map(cell))
    }
}

fn a_second(number: u64) -> f64 {
    number as f64 / f64::from(DAY / SECOND)
}

fn share(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64
}

/// Returns the strings that changed within a session, in 100 sessions of a day.
fn changed_sessions(day: &Day) -> f64 {
    100.0 * share(day.changes_in_session, day.sessions)
}

fn follow_a_second(figures: &Figures) -> f64 {
    figures.following(a_second(figures.steady().events))
}

fn calls_a_second(figures: &Figures) -> f64 {
    a_second(figures.steady().calls.iter().sum()) + follow_a_second(figures)
}

/// Simulates installations in each scenario, two at once, the last installation first. Each simulation takes
/// up to a gigabyte.
pub fn simulate_all(sizes: &[Size], seed: u64) -> Vec<[Figures; 4]> {
    let lives: Vec<_> = sizes.iter().map(|size| Lives::of(size.users)).collect();
    let jobs = (0..sizes.len()).flat_map(|size| Scenario::ALL.map(|scenario| (size, scenario)));
    let jobs: Vec<_> = jobs.collect();
    let (left, done) = (Mutex::new(jobs.len()), Mutex::new(vec![None; jobs.len()]));
    let next = || {
        let mut left = left.lock().expect("no panic");
        *left = left.checked_sub(1)?;
        Some(*left)
    };
    let work = || {
        while let Some(job) = next() {
            let (size, scenario) = jobs[job];
            let figures = simulate(sizes[size], scenario, &lives[size], seed);
            done.lock().expect("no panic")[job] = Some(figures);
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(work);
        work();
    });
    let done = done.into_inner().expect("no panic");
    let done: Vec<_> =
        done.into_iter().map(|figures| figures.expect("each was simulated")).collect();
    let (of_sizes, _) = done.as_chunks::<4>();
    of_sizes.to_vec()
}

/// Returns the table of one installation: a column for each scenario.
pub fn table(of: &[Figures; 4]) -> String {
    let names = of.each_ref().map(|figures| figures.scenario.name().to_owned());
    let heading = line("", names) + &line("---", ["--:"; 4].map(str::to_owned));
    ROWS.iter().fold(heading, |table, row| table + &row.write(of))
}

/// Returns the heading of the table of installations.
pub fn sizes_heading() -> String {
    let names = [
        "mints: alone",
        "affinity",
        "second level",
        "both",
        "another string in 100 sessions: alone",
        "affinity",
        "second level",
        "both",
        "without a token in the outage, % of users who ask: alone",
        "affinity",
        "second level",
        "both",
        "calls to the store a second: second level",
        "both",
    ];
    let names = names.map(str::to_owned);
    line("replicas, users", names.clone()) + &line("---", names.map(|_| "--:".to_owned()))
}

/// Returns the line of an installation in the table of installations.
pub fn sizes_line(of: &[Figures; 4]) -> String {
    let Size { replicas, users, .. } = of[0].size;
    let mints = |it: &Figures| it.steady().mints as f64;
    let changed = |it: &Figures| changed_sessions(&it.steady());
    let without_token = |it: &Figures| {
        let outage = it.tally.outage;
        100.0 * share(outage.without_token, outage.asked)
    };
    let mut cells = [of.each_ref().map(mints), of.each_ref().map(changed)].concat();
    cells.extend(of.each_ref().map(without_token));
    let stored = of.iter().filter(|it| it.scenario.second_level);
    cells.extend(stored.map(calls_a_second));
    let name = format!("{replicas}, {}", figure(f64::from(users)));
    line(&name, cells.into_iter().map(figure))
}

/// Returns what is assumed, in a sentence that changes with the code.
pub fn assumptions() -> String {
    format!(
        "A user begins {SESSIONS_PER_DAY} sessions a day on average (log-normal over the users, deviation of the \
         logarithm {USER_SPREAD}), most around {}:00: the rate is 1 ± {WAVE} of its mean. A session lasts {} \
         minutes in the median (log-normal, {SESSION_SPREAD}), with a view every {PAUSE_SECONDS} s on average \
         and {REQUESTS_PER_VIEW} requests with a token in a view. A mint takes {} ms. A token has {TOKEN_BYTES} \
         bytes, for which the cache counts {} bytes.\n",
        BUSIEST_HOUR / HOUR,
        SESSION_MEDIAN_SECONDS / 60.0,
        cluster::MINT_LATENCY,
        TOKEN_BYTES + ENTRY_OVERHEAD,
    )
}

/// Returns what stands between the marks of the document: the assumptions, the table of [`LARGE`], and the
/// table of [`SIZES`].
pub fn section(installations: &[[Figures; 4]]) -> Option<String> {
    let large = installations.last()?;
    let lines = installations.iter().map(sizes_line).collect::<String>();
    let Size { replicas, users, .. } = large[0].size;
    Some(format!(
        "{}\n{replicas} replicas and {} users on the third day, then a rollout on the fourth and one while Velt \
         is down on the fifth:\n\n{}\nOther installations, on the same days:\n\n{}{lines}",
        assumptions(),
        figure(f64::from(users)),
        table(large),
        sizes_heading(),
    ))
}

/// Returns the section of a document that stands between the marks.
pub fn recorded(document: &str) -> Option<&str> {
    let (_, rest) = document.split_once(BEGIN)?;
    Some(rest.split_once(END)?.0)
}

/// Returns the document with another section between the marks.
pub fn with_section(document: &str, section: &str) -> Option<String> {
    let (before, rest) = document.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n{section}\n{END}{after}"))
}

fn line(first: &str, cells: impl IntoIterator<Item = String>) -> String {
    let cells = cells.into_iter().fold(String::new(), |line, cell| line + " " + &cell + " |");
    format!("| {first} |{cells}\n")
}

/// Writes a number with three digits that count, and with commas between thousands.
pub fn figure(number: f64) -> String {
    let places = match number.abs() {
        0.0 | 100.0.. => 0,
        10.0.. => 1,
        1.0.. => 2,
        _ => 3,
    };
    let mut digits = format!("{number:.places$}");
    let whole = digits.find('.').unwrap_or(digits.len());
    // Digits beyond the third are rounded.
    if whole > 3 {
        let scale = 10_f64.powi(i32::try_from(whole).expect("a few digits") - 3);
        digits = format!("{:.0}", (number / scale).round() * scale);
    }
    let whole = digits.find('.').unwrap_or(digits.len());
    for place in (1..whole).rev().filter(|place| (whole - place) % 3 == 0) {
        digits.insert(place, ',');
    }
    digits
}

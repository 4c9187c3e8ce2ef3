//! Checks of the simulation behind `docs/scale.md`: against the product, against cases that can be
//! calculated, and against the figures on record.

#[path = "../../benches/scale/model.rs"]
#[allow(dead_code, reason = "the bench uses the rest")]
mod model;

mod product;

use std::fs;
use std::sync::LazyLock;

use self::model::cluster::Cluster;
use self::model::draws::Draws;
use self::model::held::{Held, Known};
use self::model::lives::Lives;
use self::model::store::Call;
use self::model::tables::{self, DOCUMENT, SIZES, SMALL};
use self::model::tally::Figures;
use self::model::traffic::{
    PAUSE_SECONDS, REQUESTS_PER_VIEW, Request, SESSION_MEDIAN_SECONDS, SESSION_SPREAD, Traffic,
    WAVE,
};
use self::model::{
    DAY, Events, HOUR, MINUTE, Millis, SECOND, SEED, Scenario, Size, User, rollout, simulate,
};

/// Part by which a recorded figure may differ: another C library rounds a logarithm in another way, and
/// another version of the standard library may hash users in another order.
const TOLERANCE: f64 = 0.03;

const ALONE: Scenario = Scenario { second_level: false, affinity: false };
const AFFINITY: Scenario = Scenario { second_level: false, affinity: true };
const SECOND_LEVEL: Scenario = Scenario { second_level: true, affinity: false };
const BOTH: Scenario = Scenario { second_level: true, affinity: true };

/// Figures of the small installations.
static FIGURES: LazyLock<Vec<[Figures; 4]>> = LazyLock::new(|| {
    // The third one takes a minute without optimization.
    let is_long = std::env::var_os("VELT_SIDECAR_LONG").is_some();
    let sizes = if is_long { SMALL + 1 } else { SMALL };
    tables::simulate_all(&SIZES[..sizes], SEED)
});

fn size(replicas: u32, users: User) -> Size {
    Size { replicas, users, sessions_per_day: 1.0 }
}

fn no_census() -> Events {
    Events { census: Millis::MAX, ..Events::default() }
}

/// Lets `users` ask at each of these times.
fn asked(
    size: Size,
    scenario: Scenario,
    events: Events,
    times: impl Iterator<Item = Millis>,
) -> Figures {
    let lives = Lives::of(size.users);
    let mut cluster = Cluster::new(size, scenario, &lives, events, SEED);
    let mut last = 0;
    for at in times {
        last = at;
        for user in 0..size.users {
            cluster.ask(Request { at, user, begins_session: at == 0 });
        }
    }
    cluster.end(last + HOUR)
}

fn every(pause: Millis, until: Millis) -> impl Iterator<Item = Millis> {
    (0..until).step_by(pause as usize)
}

fn sum(figures: &Figures, of: impl Fn(&model::tally::Day) -> u64) -> u64 {
    (0..40).map(|day| of(&figures.tally.of_day(day))).sum()
}

fn mints(figures: &Figures) -> u64 {
    sum(figures, |day| day.mints)
}

fn calls(figures: &Figures, call: Call) -> u64 {
    sum(figures, |day| day.calls[call as usize])
}

/// Asserts that a figure is as calculated, but for a part.
fn assert_near(figure: f64, calculated: f64, part: f64) {
    let difference = (figure / calculated - 1.0).abs();
    assert!(difference <= part, "{figure} is not {calculated}");
}

#[test]
fn user_on_one_replica_has_a_mint_for_each_due_age() {
    let (until, pause) = (20 * DAY, 10 * SECOND);
    let due = Lives::of(1).due_age(0);
    for scenario in Scenario::ALL {
        let figures = asked(size(1, 1), scenario, no_census(), every(pause, until));
        // The first request after the due age of a token that is there when its mint has ended.
        let cycle = (due + model::cluster::MINT_LATENCY).div_ceil(pause) * pause;
        assert_eq!(mints(&figures), u64::from(until.div_ceil(cycle)), "{scenario:?}");
        let a_day = f64::from(DAY) / f64::from(cycle);
        assert!((24.0 / (48.0 * 0.8)..=24.0 / (47.9 * 0.7)).contains(&a_day), "{a_day}");
        assert_eq!(sum(&figures, |day| day.changes), mints(&figures) - 1, "{scenario:?}");
    }
}

#[test]
fn replica_alone_mints_for_each_user_it_meets() {
    let (replicas, users, times) = (8, 4_000, 5);
    let figures = asked(size(replicas, users), ALONE, no_census(), every(MINUTE, times * MINUTE));
    let missed = (1.0 - 1.0 / f64::from(replicas)).powi(5);
    let met = f64::from(replicas) * (1.0 - missed);
    assert_near(mints(&figures) as f64, f64::from(users) * met, 0.02);
}

#[test]
fn second_level_or_affinity_spares_all_other_mints() {
    for scenario in [AFFINITY, SECOND_LEVEL, BOTH] {
        let figures = asked(size(8, 500), scenario, no_census(), every(MINUTE, HOUR));
        assert_eq!(mints(&figures), 500, "{scenario:?}");
        assert_eq!(sum(&figures, |day| day.changes), 0, "{scenario:?}");
        let writes = if scenario.second_level { 500 } else { 0 };
        assert_eq!(calls(&figures, Call::Write), writes, "{scenario:?}");
        assert_eq!(calls(&figures, Call::Release), writes, "{scenario:?}");
    }
    // With affinity, no replica but the user's own reads the store.
    let figures = asked(size(8, 500), BOTH, no_census(), every(MINUTE, HOUR));
    assert_eq!(calls(&figures, Call::Read), 500);
}

#[test]
fn requests_that_come_together_share_a_mint() {
    // All within the 200 ms that a mint takes, at any of four replicas.
    let times = || (0..10).map(|time| time * 15);
    let one = asked(size(4, 300), SECOND_LEVEL, no_census(), times());
    assert_eq!(mints(&one), 300);
    // A replica that finds the lease taken asks again at growing pauses.
    let waits = calls(&one, Call::Lease) - 300;
    assert!(waits > 300, "{waits} waits");
    let alone = asked(size(4, 300), ALONE, no_census(), times());
    let met = 4.0 * (1.0 - 0.75_f64.powi(10));
    assert_near(mints(&alone) as f64, 300.0 * met, 0.02);
}

#[test]
fn string_changes_as_often_as_the_replica() {
    let figures = asked(size(2, 50), ALONE, no_census(), every(SECOND, 2_000 * SECOND));
    let requests = sum(&figures, |day| day.requests) as f64;
    assert_near(sum(&figures, |day| day.changes) as f64, requests / 2.0, 0.02);
}

#[test]
fn each_other_replica_reads_a_replaced_token() {
    let due = Lives::of(1).due_age(0);
    // Enough requests for each replica to hold the token, and one that finds the token due.
    let times = every(SECOND, 200 * SECOND).chain([due + MINUTE, due + 2 * MINUTE]);
    let figures = asked(size(6, 1), SECOND_LEVEL, no_census(), times);
    let counted = [
        (Call::Read, 6 + 1),
        (Call::Lease, 2),
        (Call::Write, 2),
        (Call::Release, 2),
        (Call::Follow, 5),
    ];
    for (call, count) in counted {
        assert_eq!(calls(&figures, call), count, "{call:?}");
    }
    assert_eq!(sum(&figures, |day| day.events), 1);
    assert_eq!((mints(&figures), sum(&figures, |day| day.changes)), (2, 1));
}

#[test]
fn replica_follows_events_at_least_once_a_second() {
    let figures = asked(size(6, 1), SECOND_LEVEL, no_census(), every(SECOND, SECOND));
    // Two calls of six replicas for each round: one a second without events, one for each of many events.
    assert_near(figures.following(0.0), 12.0, 1e-9);
    assert_near(figures.following(1e-6), 12.0, 1e-5);
    assert_near(figures.following(50.0), 600.0, 1e-9);
    // Pauses of a second at most between events that come once a second on average.
    let (mut draws, mut rounds, events) = (Draws::new(SEED), 0_u64, 20_000);
    for _ in 0..events {
        let mut pause = draws.exponential(1.0);
        while pause > 1.0 {
            (pause, rounds) = (pause - 1.0, rounds + 1);
        }
        rounds += 1;
    }
    assert_near(figures.following(1.0), 12.0 * rounds as f64 / f64::from(events), 0.02);
}

#[test]
fn rollout_replaces_each_pod_once_in_four_waves() {
    for (replicas, waves) in [(1, 1), (2, 2), (3, 3), (10, 4), (200, 4)] {
        let all = rollout(replicas, HOUR);
        assert_eq!(all.len(), waves, "{replicas} replicas");
        let places: Vec<_> = all.iter().flat_map(|(_, places)| places.clone()).collect();
        assert_eq!(places, (0..replicas).collect::<Vec<_>>());
        assert!(all.is_sorted_by_key(|(at, _)| *at));
    }
}

#[test]
fn rollout_costs_a_mint_for_each_user_without_a_store() {
    // Two requests, and the whole rollout between them: each user's pod is gone.
    let times = || [0, 2 * HOUR].into_iter();
    let events = || Events { waves: rollout(10, HOUR), ..no_census() };
    for (scenario, expected) in
        [(ALONE, 1_000), (AFFINITY, 1_000), (SECOND_LEVEL, 500), (BOTH, 500)]
    {
        let figures = asked(size(10, 500), scenario, events(), times());
        assert_eq!(mints(&figures), expected, "{scenario:?}");
    }
}

#[test]
fn outage_takes_tokens_from_those_who_were_never_minted_for() {
    let half = |at| if at == 0 { 0..100 } else { 0..200 };
    let lives = Lives::of(200);
    for (scenario, without, needlessly) in [(ALONE, 200, 100), (SECOND_LEVEL, 100, 0)] {
        let events = Events { waves: rollout(4, HOUR), outage: HOUR..3 * HOUR, ..no_census() };
        let mut cluster = Cluster::new(size(4, 200), scenario, &lives, events, SEED);
        for at in [0, 2 * HOUR] {
            for user in half(at) {
                cluster.ask(Request { at, user, begins_session: true });
            }
        }
        let outage = cluster.end(4 * HOUR).tally.outage;
        assert_eq!((outage.asked, outage.without_token), (200, without), "{scenario:?}");
        assert_eq!(outage.needlessly, needlessly, "{scenario:?}");
    }
}

#[test]
fn traffic_has_the_sessions_and_the_wave_it_promises() {
    let (users, days, sessions) = (3_000, 6, 1.5);
    let traffic = || Traffic::new(users, sessions, days * DAY, SEED);
    let requests: Vec<_> = traffic().collect();
    assert!(requests.is_sorted_by_key(|request| request.at));
    assert!(traffic().eq(requests.iter().copied()), "the same for equal seeds");
    let other = Traffic::new(users, sessions, days * DAY, SEED + 1);
    assert!(!other.take(100).eq(requests.iter().take(100).copied()), "others for other seeds");
    let begun: Vec<_> = requests.iter().filter(|request| request.begins_session).collect();
    let expected = f64::from(users) * f64::from(days) * sessions;
    // No session begins while the user's last one goes on.
    assert_near(begun.len() as f64, expected, 0.05);
    let minutes = SESSION_MEDIAN_SECONDS * (SESSION_SPREAD * SESSION_SPREAD / 2.0).exp();
    let views = (1.0 + minutes / PAUSE_SECONDS) * REQUESTS_PER_VIEW as f64;
    assert_near(requests.len() as f64 / begun.len() as f64, views, 0.05);
    let by_day = begun.iter().filter(|it| (8 * HOUR..20 * HOUR).contains(&(it.at % DAY)));
    let share = by_day.count() as f64 / begun.len() as f64;
    assert_near(share, 0.5 + WAVE / std::f64::consts::PI, 0.02);
}

#[test]
fn full_cache_drops_the_least_recently_used() {
    let (mut held, mut draws) = (Held::new(20), Draws::new(SEED));
    // Users in the order of their last use, with what is held for them.
    let mut expected: Vec<(User, Known)> = Vec::new();
    for at in 0..20_000 {
        let user = draws.below(35);
        let place = expected.iter().position(|(held, _)| *held == user);
        if draws.below(2) == 0 {
            let known = place.map(|place| expected[place].1);
            assert_eq!(held.peek(user), known);
            assert_eq!(held.look_up(user, at), known);
            if let Some(place) = place {
                expected[place..].rotate_left(1);
            }
        } else {
            let known = Known { minted_at: at, number: at };
            let evicts = place.is_none() && expected.len() == 20;
            assert_eq!(held.put(user, known, at), evicts);
            if let Some(place) = place.or(evicts.then_some(0)) {
                expected.remove(place);
            }
            expected.push((user, known));
        }
        assert_eq!(held.len(), expected.len());
    }
    held.sweep(20_000 + 49 * HOUR);
    assert_eq!(held.len(), 0);
}

#[test]
fn second_level_leaves_a_good_token_to_every_user() {
    for [alone, _, second_level, both] in FIGURES.iter() {
        for figures in [second_level, both] {
            assert_eq!(figures.tally.outage.needlessly, 0, "{:?}", figures.size);
        }
        assert!(alone.tally.outage.needlessly > 0, "{:?}", alone.size);
        assert_eq!(alone.steady().requests, both.steady().requests, "the same traffic");
        let other = Scenario { second_level: true, affinity: false };
        let again = simulate(alone.size, other, &Lives::of(alone.size.users), SEED);
        assert_eq!(again.steady().mints, second_level.steady().mints, "the same figures");
    }
}

/// Returns the numbers in the cells of a line of a table.
fn numbers(line: &str) -> Vec<f64> {
    let cells = line.split('|').skip(2).map(|cell| cell.trim().replace(',', ""));
    cells.filter_map(|cell| cell.parse().ok()).collect()
}

#[test]
fn recorded_figures_are_those_of_the_simulation() {
    let document = fs::read_to_string(DOCUMENT).expect(DOCUMENT);
    let recorded = tables::recorded(&document).expect("the marks around the figures");
    let advice = "is not on record: cargo bench --bench scale -- --record";
    for figures in FIGURES.iter() {
        let line = tables::sizes_line(figures);
        let name = line.split('|').nth(1).expect("a name");
        let found = recorded.lines().find(|found| found.split('|').nth(1) == Some(name));
        let found = found.unwrap_or_else(|| panic!("{name} {advice}"));
        let (old, new) = (numbers(found), numbers(&line));
        assert_eq!(old.len(), new.len(), "{found}");
        for (old, new) in old.into_iter().zip(new) {
            let near = (old - new).abs() <= TOLERANCE * new.abs().max(0.01);
            assert!(near, "{new} {advice}\n{found}\n{line}");
        }
    }
    // The long tables are not simulated here; but their forms and assumptions are those of the code.
    let sample = &FIGURES[0];
    let named = |line: &str| line.split('|').nth(1).map(str::to_owned);
    for line in tables::table(sample).lines().chain(tables::sizes_heading().lines()) {
        assert!(recorded.lines().any(|found| named(found) == named(line)), "{line} {advice}");
    }
    assert!(recorded.contains(&tables::assumptions()), "{} {advice}", tables::assumptions());
    for Size { replicas, users, .. } in SIZES {
        let name = format!("| {replicas}, {} |", tables::figure(users.into()));
        assert!(recorded.contains(&name), "{name} {advice}");
    }
}

#[test]
fn section_takes_the_place_between_the_marks() {
    let document = fs::read_to_string(DOCUMENT).expect(DOCUMENT);
    let changed = tables::with_section(&document, "figures\n").expect("the marks");
    assert_eq!(tables::recorded(&changed), Some("\nfigures\n\n"));
    let recorded = tables::recorded(&document).expect("the marks");
    let section = format!("{}\n", recorded.trim_matches('\n'));
    let back = tables::with_section(&changed, &section);
    assert_eq!(back.as_deref().map(str::trim), Some(document.trim()));
    assert_eq!(tables::with_section("no marks", ""), None);
}

#[test]
fn figures_keep_three_digits() {
    for (number, text) in [
        (0.0, "0"),
        (0.0456, "0.046"),
        (4.567, "4.57"),
        (45.67, "45.7"),
        (456.7, "457"),
        (4_567.0, "4,570"),
        (45_678.0, "45,700"),
        (999_999.0, "1,000,000"),
        (12_345_678.0, "12,300,000"),
    ] {
        assert_eq!(tables::figure(number), text);
    }
}

//! Counts of a simulation.

use super::held::Known;
use super::store::Call;
use super::traffic::BUSIEST_HOUR;
use super::{DAY, HOUR, MINUTE, Millis, ROLLOUT_DAY, STEADY_DAY, Scenario, Size};

/// Counts of one day.
#[derive(Clone, Debug, Default)]
pub struct Day {
    pub requests: u64,
    pub sessions: u64,
    pub active_users: u64,
    pub mints: u64,
    /// Requests whose answer waits for the store or for a mint.
    pub waits: u64,
    /// Tokens handed to a user who was last handed another string.
    pub changes: u64,
    /// Tokens among `changes` that were handed out within a session.
    pub changes_in_session: u64,
    /// Entries that made room in a full cache.
    pub evictions: u64,
    pub calls: [u64; Call::COUNT],
    /// Events that a token was replaced.
    pub events: u64,
}

/// Users in the time for which Velt is down, each counted once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outage {
    pub asked: u64,
    pub without_token: u64,
    /// Users without a token for whom a good token had been minted before.
    pub needlessly: u64,
}

/// Tokens held at the end of the steady day.
#[derive(Clone, Copy, Debug, Default)]
pub struct Census {
    /// Tokens of a replica, on average.
    pub held: f64,
    /// Tokens of the fullest replica.
    pub most_held: usize,
    pub stored: usize,
}

/// Counts by day and minute.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    days: Vec<Day>,
    minutes: Vec<Minute>,
    pub outage: Outage,
    pub census: Census,
}

#[derive(Clone, Copy, Debug, Default)]
struct Minute {
    mints: u32,
    calls: u32,
    events: u32,
}

impl Tally {
    /// Returns the counts of the day of a moment.
    pub fn day(&mut self, at: Millis) -> &mut Day {
        slot(&mut self.days, at / DAY)
    }

    /// Returns the counts of a day, zero for a day without a request.
    pub fn of_day(&self, day: u32) -> Day {
        self.days.get(day as usize).cloned().unwrap_or_default()
    }

    pub fn mint(&mut self, at: Millis) {
        self.day(at).mints += 1;
        slot(&mut self.minutes, at / MINUTE).mints += 1;
    }

    pub fn call(&mut self, call: Call, at: Millis) {
        self.day(at).calls[call as usize] += 1;
        slot(&mut self.minutes, at / MINUTE).calls += 1;
    }

    /// Counts an event that a token was replaced.
    pub fn event(&mut self, at: Millis) {
        self.day(at).events += 1;
        slot(&mut self.minutes, at / MINUTE).events += 1;
    }

    /// Returns the minute of each mint, in order.
    pub fn minutes_of_mints(&self) -> impl Iterator<Item = usize> {
        let minutes = self.minutes.iter().enumerate();
        minutes.flat_map(|(minute, counts)| (0..counts.mints).map(move |_| minute))
    }

    /// Returns the counts of the minutes of a span.
    fn between(&self, from: Millis, until: Millis) -> impl Iterator<Item = Minute> {
        let span = (until - from) / MINUTE;
        self.minutes.iter().copied().skip((from / MINUTE) as usize).take(span as usize)
    }
}

/// Returns the element at `index`, after zeros if there were fewer.
fn slot<T: Clone + Default>(list: &mut Vec<T>, index: u32) -> &mut T {
    let index = index as usize;
    if list.len() <= index {
        list.resize(index + 1, T::default());
    }
    &mut list[index]
}

/// Result of a simulation.
#[derive(Clone, Debug)]
pub struct Figures {
    pub size: Size,
    pub scenario: Scenario,
    pub tally: Tally,
}

impl Figures {
    /// Returns the steady day.
    pub fn steady(&self) -> Day {
        self.tally.of_day(STEADY_DAY)
    }

    /// Returns the mints of each second in the busiest minute of a day.
    pub fn busiest_mints(&self, day: u32) -> f64 {
        let minutes = self.tally.between(day * DAY, (day + 1) * DAY);
        f64::from(minutes.map(|minute| minute.mints).max().unwrap_or(0)) / 60.0
    }

    /// Returns the calls to the store of each second in the busiest minute of a day.
    pub fn busiest_calls(&self, day: u32) -> f64 {
        let minutes = self.tally.between(day * DAY, (day + 1) * DAY);
        let calls = minutes.map(|minute| {
            f64::from(minute.calls) / 60.0 + self.following(f64::from(minute.events) / 60.0)
        });
        calls.fold(0.0, f64::max)
    }

    /// Returns the calls of each second by which all replicas follow the events, where there are `events` of
    /// them in a second. A replica reads the streams and looks whether the store was flushed, again after
    /// each event and after a second without one (`src/shared/follow.rs`): for events that come independently
    /// of each other, a renewal process of this rate.
    pub fn following(&self, events: f64) -> f64 {
        let rounds = if events > 0.0 { events / -(-events).exp_m1() } else { 1.0 };
        2.0 * rounds * f64::from(self.size.replicas)
    }

    /// Returns the mints in the hour from the beginning of the rollout.
    pub fn rollout_mints(&self) -> u64 {
        let from = ROLLOUT_DAY * DAY + BUSIEST_HOUR;
        self.tally.between(from, from + HOUR).map(|minute| u64::from(minute.mints)).sum()
    }
}

/// History of one user: the token handed last, and the time of the last request.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    /// Number of the token handed last.
    last: Option<u32>,
    /// Whether a token has been handed in the session under way.
    in_session: bool,
    /// Day of the last request, counted from 1.
    day: u32,
    asked_in_outage: bool,
    without_token: bool,
    /// Moment of the user's newest mint.
    newest: Option<Millis>,
}

impl Seen {
    /// Notes a request.
    pub fn ask(&mut self, begins_session: bool, at: Millis, velt_is_down: bool, tally: &mut Tally) {
        let day = tally.day(at);
        day.requests += 1;
        if begins_session {
            day.sessions += 1;
            self.in_session = false;
        }
        let today = at / DAY + 1;
        if self.day != today {
            self.day = today;
            day.active_users += 1;
        }
        if velt_is_down && !self.asked_in_outage {
            self.asked_in_outage = true;
            tally.outage.asked += 1;
        }
    }

    /// Notes a mint for the user.
    pub fn mint(&mut self, at: Millis) {
        self.newest = Some(at);
    }

    /// Notes a token handed to the user.
    pub fn hand(&mut self, known: Known, day: &mut Day) {
        if self.last.is_some_and(|last| last != known.number) {
            day.changes += 1;
            day.changes_in_session += u64::from(self.in_session);
        }
        self.last = Some(known.number);
        self.in_session = true;
    }

    /// Notes an answer without a token. `lives` tells whether a token minted at a moment is still good.
    pub fn deny(&mut self, lives: impl Fn(Millis) -> bool, outage: &mut Outage) {
        if !self.without_token {
            self.without_token = true;
            outage.without_token += 1;
            outage.needlessly += u64::from(self.newest.is_some_and(lives));
        }
    }
}

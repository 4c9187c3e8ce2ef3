//! Requests of all users in virtual time: sessions in a daily wave, views in a session, requests in a view.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::f64::consts::TAU;

use super::draws::Draws;
use super::{DAY, HOUR, Millis, SECOND, User};

/// Share by which the rate of new sessions rises above its mean at the busiest hour, and falls below it half
/// a day later.
pub const WAVE: f64 = 0.8;

/// Hour of the day at which most sessions begin.
pub const BUSIEST_HOUR: Millis = 14 * HOUR;

/// Median length of a session. With [`SESSION_SPREAD`] the mean is 16.5 minutes.
pub const SESSION_MEDIAN_SECONDS: f64 = 600.0;

/// Deviation of the logarithm of a session's length.
pub const SESSION_SPREAD: f64 = 1.0;

/// Deviation of the logarithm of a user's own rate of sessions: a few users are there all day, many now and
/// then.
pub const USER_SPREAD: f64 = 1.0;

/// Mean pause between two views of a session.
pub const PAUSE_SECONDS: f64 = 180.0;

/// Shortest pause between two views.
const LEAST_PAUSE_SECONDS: f64 = 1.0;

/// Times after the beginning of a view at which its later requests follow. Sooner than a mint ends, so that
/// the second request of a cold view meets the mint under way.
const FOLLOWING: [Millis; 1] = [60];

/// Requests of a view that carry a token: a call of the token route, and a call of the app's API.
pub const REQUESTS_PER_VIEW: usize = 1 + FOLLOWING.len();

/// A request whose answer carries a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    pub at: Millis,
    pub user: User,
    /// Whether this is the first request of a session.
    pub begins_session: bool,
}

/// Requests in the order of their times. The same for equal arguments.
pub struct Traffic {
    draws: Draws,
    until: Millis,
    /// Sessions of each user in a millisecond, on average.
    rates: Vec<f64>,
    /// End of each user's session.
    ends: Vec<Millis>,
    /// Next view of each user: its time, its user, and whether the view begins a session.
    views: BinaryHeap<Reverse<(Millis, User, bool)>>,
    /// Requests that follow the first request of a view. In order, because all wait for the same time.
    following: [VecDeque<(Millis, User)>; FOLLOWING.len()],
}

impl Traffic {
    /// Begins the traffic of `users`, who begin `sessions_per_day` each on average, until a moment.
    pub fn new(users: User, sessions_per_day: f64, until: Millis, seed: u64) -> Self {
        let mut draws = Draws::new(seed);
        // The median of a log-normal distribution whose mean is the number of sessions.
        let median = sessions_per_day / f64::from(DAY) * (-USER_SPREAD * USER_SPREAD / 2.0).exp();
        let rates = (0..users).map(|_| draws.log_normal(median, USER_SPREAD)).collect();
        let mut traffic = Self {
            draws,
            until,
            rates,
            ends: vec![0; users as usize],
            views: BinaryHeap::with_capacity(users as usize),
            following: Default::default(),
        };
        for user in 0..users {
            traffic.plan_session(user, 0);
        }
        traffic
    }

    /// Plans the next session of `user` after `from`: draws at the highest rate of the day, and takes a draw
    /// with the share that the rate of its hour has of it (Lewis and Shedler's thinning).
    fn plan_session(&mut self, user: User, from: Millis) {
        let mean = 1.0 / (self.rates[user as usize] * (1.0 + WAVE));
        let mut at = f64::from(from);
        loop {
            at += self.draws.exponential(mean);
            if at >= f64::from(self.until) {
                return;
            }
            if self.draws.fraction() * (1.0 + WAVE) <= wave(at) {
                break;
            }
        }
        let begins = millis(at);
        let length = self.draws.log_normal(SESSION_MEDIAN_SECONDS, SESSION_SPREAD);
        self.ends[user as usize] = millis(at + length * f64::from(SECOND));
        self.views.push(Reverse((begins, user, true)));
    }

    /// Plans the view after the view at `at`, or the next session.
    fn plan_view(&mut self, user: User, at: Millis) {
        let pause = self.draws.exponential(PAUSE_SECONDS).max(LEAST_PAUSE_SECONDS);
        let next = millis(f64::from(at) + pause * f64::from(SECOND));
        let end = self.ends[user as usize];
        if next <= end {
            self.views.push(Reverse((next, user, false)));
        } else {
            self.plan_session(user, end.max(at));
        }
    }

    /// Begins the next view, and plans what follows from it.
    fn view(&mut self) -> Option<Request> {
        let Reverse((at, user, begins_session)) = self.views.pop()?;
        for (queue, after) in self.following.iter_mut().zip(FOLLOWING) {
            queue.push_back((at + after, user));
        }
        self.plan_view(user, at);
        Some(Request { at, user, begins_session })
    }
}

impl Iterator for Traffic {
    type Item = Request;

    fn next(&mut self) -> Option<Request> {
        let heads = self.following.iter().enumerate();
        let heads = heads.filter_map(|(queue, requests)| Some((requests.front()?.0, queue)));
        let (followed, queue) = heads.min().unwrap_or((Millis::MAX, 0));
        let viewed = self.views.peek().map_or(Millis::MAX, |Reverse((at, ..))| *at);
        let request = if viewed <= followed {
            self.view()?
        } else {
            let (at, user) = self.following[queue].pop_front()?;
            Request { at, user, begins_session: false }
        };
        (request.at < self.until).then_some(request)
    }
}

/// Returns the rate of new sessions at a time, as a multiple of the day's mean.
fn wave(at: f64) -> f64 {
    let turn = (at - f64::from(BUSIEST_HOUR)) / f64::from(DAY);
    1.0 + WAVE * (TAU * turn).cos()
}

/// Rounds a time down to whole milliseconds; a time beyond 49 days is 49 days.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "`as` saturates, and times are not negative"
)]
fn millis(at: f64) -> Millis {
    at as Millis
}

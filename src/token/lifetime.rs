//! A token with its time of mint, its refresh time and its end.

use std::sync::LazyLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use super::{MintRequest, Minted, TokenValue};

/// Share of a token's life after which it is refreshed, before jitter.
///
/// Three quarters of the documented 48 h leave half a day for Velt to come back.
const REFRESH_AFTER: f64 = 0.75;

/// Width of the jitter around [`REFRESH_AFTER`], as a share of life, so that users who signed in
/// together do not refresh together.
const REFRESH_JITTER: f64 = 0.10;

/// Time before the end of a token from which it is not served, since it must still work when the page uses
/// it.
const EXPIRY_MARGIN: Duration = Duration::from_secs(60);

/// A moment by two clocks. The steady clock never steps, but stands still while the machine is suspended. The
/// wall clock counts that time, but can be set back and forth.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    pub steady: Instant,
    pub wall: SystemTime,
}

impl Moment {
    /// Reads both clocks.
    pub fn now() -> Self {
        Self { steady: Instant::now(), wall: SystemTime::now() }
    }

    /// Returns the time since `earlier` by the clock that counts more, so that neither a suspended machine
    /// nor a clock that is set back makes a token younger.
    pub fn since(self, earlier: Self) -> Duration {
        Stamp::of(self).since(Stamp::of(earlier))
    }
}

/// A [`Moment`] in half the space: signed nanoseconds since two origins, common to the whole process. Exact
/// for 292 years before and after the origin, and saturating beyond.
#[derive(Clone, Copy, Debug)]
struct Stamp {
    steady: i64,
    wall: i64,
}

impl Stamp {
    fn of(moment: Moment) -> Self {
        // Any instant will do, even an origin that is later than some of the moments.
        static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);
        let (steady, origin) = (moment.steady, *ORIGIN);
        let steady = match steady.checked_duration_since(origin) {
            Some(after) => nanos(after),
            None => -nanos(origin - steady),
        };
        let wall = match moment.wall.duration_since(UNIX_EPOCH) {
            Ok(after) => nanos(after),
            Err(before) => -nanos(before.duration()),
        };
        Self { steady, wall }
    }

    fn before(self, by: Duration) -> Self {
        let by = nanos(by);
        Self { steady: self.steady.saturating_sub(by), wall: self.wall.saturating_sub(by) }
    }

    fn since(self, earlier: Self) -> Duration {
        let steady = self.steady.saturating_sub(earlier.steady);
        let wall = self.wall.saturating_sub(earlier.wall);
        // A negative difference means that both clocks were set back: count zero.
        Duration::from_nanos(u64::try_from(steady.max(wall)).unwrap_or(0))
    }
}

fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

/// Returns whole milliseconds, rounded down, so that the stored life is never longer than the token's life. A
/// life above 49 days is stored as 49 days.
fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

/// A token with its place in time. Small, because the cache holds a token for each user and each answer that
/// carries the token is given a clone.
#[derive(Clone, Debug)]
pub struct Token {
    value: TokenValue,
    minted_at: Stamp,
    refresh_after_millis: u32,
    life_millis: u32,
}

/// Use that may be made of a token at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// The token may be served.
    Fresh,
    /// The token may be served, and is to be refreshed once in the background.
    Due,
    /// The token must not be served again.
    Expired,
}

impl Token {
    /// Dates a token, minted just now or by another replica before. The hash of `request` spreads the refreshes of different users.
    pub fn new(minted: Minted, request: &MintRequest, now: Moment) -> Self {
        // Takes a tenth from lives so short that the margin would use them up.
        let life = minted.life.saturating_sub(EXPIRY_MARGIN.min(minted.life / 10));
        let life_millis = millis(life);
        let life = Duration::from_millis(life_millis.into());
        let share = REFRESH_AFTER + REFRESH_JITTER * (request.fraction() - 0.5);
        Self {
            minted_at: Stamp::of(now).before(minted.age()),
            value: minted.value,
            refresh_after_millis: millis(life.mul_f64(share)),
            life_millis,
        }
    }

    /// Returns the use that may be made of this token at `now`.
    pub fn freshness(&self, now: Moment) -> Freshness {
        let age = self.age(now);
        if age >= self.life() {
            Freshness::Expired
        } else if age >= Duration::from_millis(self.refresh_after_millis.into()) {
            Freshness::Due
        } else {
            Freshness::Fresh
        }
    }

    /// Returns how much longer the token may be served.
    pub fn remaining(&self, now: Moment) -> Duration {
        self.life().saturating_sub(self.age(now))
    }

    /// Returns the end of the time for which the token may be served.
    pub fn expires_at(&self, now: Moment) -> SystemTime {
        now.wall + self.remaining(now)
    }

    /// Returns the time of the mint, by the wall clock of this machine.
    pub fn minted_at(&self) -> SystemTime {
        let nanos = Duration::from_nanos(self.minted_at.wall.unsigned_abs());
        if self.minted_at.wall < 0 { UNIX_EPOCH - nanos } else { UNIX_EPOCH + nanos }
    }

    /// Returns the whole life from the mint on, as [`Minted::life`] had it, rounded down.
    pub fn whole_life(&self) -> Duration {
        let served = self.life();
        // The inverse of what `new` takes off.
        if served >= EXPIRY_MARGIN * 9 { served + EXPIRY_MARGIN } else { served * 10 / 9 }
    }

    /// Returns the token itself.
    pub fn value(&self) -> &TokenValue {
        &self.value
    }

    fn age(&self, now: Moment) -> Duration {
        Stamp::of(now).since(self.minted_at)
    }

    fn life(&self) -> Duration {
        Duration::from_millis(self.life_millis.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::velt::Api;
    use crate::{Details, Issuer, MintPlan, Origin};

    const DAY: Duration = Duration::from_secs(24 * 3600);
    const NANO: Duration = Duration::from_nanos(1);
    const MILLI: Duration = Duration::from_millis(1);

    fn request() -> MintRequest {
        let issuer = Issuer {
            api: Api::V2,
            endpoint: "https://velt".into(),
            credentials_generation: 0,
            organization: None,
            resources: [].into(),
        };
        let request = MintPlan::new(issuer, false).request("ada".into(), Details::default());
        request.expect("no organization is needed")
    }

    fn token(life: Duration, now: Moment) -> Token {
        let value = TokenValue::parse("a.b.c").expect("a token");
        Token::new(Minted::now(value, life), &request(), now)
    }

    fn later(moment: Moment, by: Duration) -> Moment {
        Moment { steady: moment.steady + by, wall: moment.wall + by }
    }

    #[test]
    fn token_keeps_its_size() {
        // A token fills most of a cache slot, whose size is bounded by a test in `cache/slot.rs`.
        assert_eq!(size_of::<Token>(), 64);
    }

    #[test]
    fn no_token_lives_longer_than_velt_said() {
        let now = Moment::now();
        let half = Duration::from_micros(500);
        for life in [
            half,
            MILLI,
            MILLI + half,
            Duration::from_nanos(59_999_999_999),
            DAY * 2,
            DAY * 2 + half,
            DAY * 2 + NANO * 999_999,
            DAY * 49,
            DAY * 50,
            DAY * 36_500,
            Duration::MAX,
        ] {
            let token = token(life, now);
            let exact = life.saturating_sub(EXPIRY_MARGIN.min(life / 10));
            let left = token.remaining(now);
            assert!(left <= exact, "{life:?} became {left:?}");
            assert!(exact > DAY * 49 || exact < left + MILLI, "{life:?} became {left:?}");
            assert_eq!(token.freshness(later(now, left)), Freshness::Expired, "{life:?}");
            if let Some(before) = left.checked_sub(NANO) {
                assert_ne!(token.freshness(later(now, before)), Freshness::Expired, "{life:?}");
                assert_eq!(token.remaining(later(now, before)), NANO, "{life:?}");
            }
            let refresh_after = Duration::from_millis(token.refresh_after_millis.into());
            assert!(refresh_after <= exact.mul_f64(0.8), "{life:?}: {refresh_after:?}");
        }
    }

    #[test]
    fn life_beyond_the_stored_range_is_shortened() {
        let now = Moment::now();
        let longest = Duration::from_millis(u32::MAX.into());
        for life in [longest + EXPIRY_MARGIN, longest + EXPIRY_MARGIN + MILLI, DAY * 365] {
            assert_eq!(token(life, now).remaining(now), longest, "{life:?}");
        }
        assert_eq!(token(longest, now).remaining(now) + EXPIRY_MARGIN, longest);
    }

    #[test]
    fn whole_life_is_the_life_that_the_mint_gave() {
        let now = Moment::now();
        for life in
            [MILLI * 9000, DAY / 288, Duration::from_millis(599_990), MILLI * 600_000, DAY * 2]
        {
            let whole = token(life, now).whole_life();
            assert!(whole <= life && whole + MILLI * 3 > life, "{life:?} became {whole:?}");
        }
    }

    #[test]
    fn token_of_another_replica_is_as_old_as_it_is() {
        let now = later(Moment::now(), DAY);
        let of_age = |age| {
            let minted = Minted {
                origin: Origin::Replica { age, superseded: false },
                ..Minted::now(TokenValue::parse("a.b.c").expect("a token"), DAY * 2)
            };
            Token::new(minted, &request(), now)
        };
        let (young, old) = (of_age(Duration::ZERO), of_age(DAY));
        assert_eq!(young.remaining(now), old.remaining(now) + DAY);
        assert_eq!(old.minted_at(), now.wall - DAY);
        assert_eq!(young.freshness(now), Freshness::Fresh);
        assert_eq!(old.freshness(later(now, DAY * 5 / 8)), Freshness::Due);
        assert_eq!(of_age(DAY * 3).freshness(now), Freshness::Expired);
    }

    #[test]
    fn moment_before_the_origin_counts_exactly() {
        let now = Moment::now();
        // The first moment that a process converts sets the origin.
        Stamp::of(now);
        for wall in [UNIX_EPOCH, UNIX_EPOCH - DAY, UNIX_EPOCH + DAY, now.wall] {
            for by in [Duration::ZERO, NANO, MILLI, DAY, DAY * 1000] {
                let early = Moment { steady: now.steady, wall };
                let Some(steady) = now.steady.checked_sub(MILLI) else { continue };
                let early = [early, Moment { steady, wall: wall - MILLI }];
                for early in early {
                    assert_eq!(later(early, by).since(early), by, "from {wall:?}");
                    assert_eq!(early.since(later(early, by)), Duration::ZERO, "from {wall:?}");
                    let stopped = Moment { steady: early.steady, wall: early.wall + by };
                    assert_eq!(stopped.since(early), by, "suspended");
                    let set_back = Moment { steady: early.steady + by, wall: early.wall - by };
                    assert_eq!(set_back.since(early), by, "set back");
                }
            }
        }
    }
}

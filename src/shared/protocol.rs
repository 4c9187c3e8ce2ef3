//! The decisions about shared tokens, as pure functions: which stored token counts, and what a mint does next.
//!
//! There are two rules. First, a stored token counts only if it knows every forget that concerns it: the nonces of
//! the forgets that were in force when its mint began are sealed with the token, and are compared without a clock.
//! Second, a lease only spares mints: a replica that loses the lease, or waits for its holder in vain, mints.
//! `tests/it/shared_model.rs` explores these functions.

use std::time::Duration;

/// Longest time for which a replica waits for the mint of another replica before it mints itself.
pub const LEASE_PATIENCE: Duration = Duration::from_secs(10);

/// Longest part of [`LEASE_PATIENCE`] for which a replica goes on waiting while the store does not answer, and then for
/// the token that the holder of the lease writes when the store is back. A failover takes one to five seconds, so a
/// lease that was seen before the failover still spares a mint after the failover.
pub const OUTAGE_PATIENCE: Duration = Duration::from_secs(5);

/// Time after which a lease ends by itself if its holder does not renew it, because the holder has died or can't
/// reach the store.
pub const LEASE_LIFE: Duration = Duration::from_secs(3);

/// First pause before a replica asks the store again for the token that another replica mints. Each further pause is
/// half as long again.
pub const FIRST_PAUSE: Duration = Duration::from_millis(20);

/// Longest such pause.
pub const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// Most by which the clocks of two replicas may differ. If a token seems to be minted further than this in the
/// future, this replica can't tell when the token ends. The same length as the margin before the end of a token, in
/// which it is not served.
pub const CLOCK_DIFFERENCE: Duration = Duration::from_secs(60);

/// End of a token's life in which no replica serves it, as in the token cache.
const LAST_MINUTE: Duration = Duration::from_secs(60);

/// Random number that identifies a forget.
pub type Nonce = [u8; 16];

/// Mark of a forget. A later mark of the same subject is greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mark {
    /// Milliseconds since 1970; always later than the previous mark of the same subject.
    pub time: u64,
    pub nonce: Nonce,
}

impl Mark {
    /// Returns the mark of a forget at `now`, after the mark `before` of the same subject.
    pub fn after(before: Option<Self>, now: u64, nonce: Nonce) -> Self {
        let earliest = before.map_or(0, |before| before.time.saturating_add(1));
        Self { time: now.max(earliest), nonce }
    }
}

/// Returns the mark in force for one subject: the later of the mark in the store and the mark that this replica has
/// heard of. The store may have lost its last writes, or an attacker may have deleted the mark there.
pub fn in_force(stored: Option<Mark>, heard: Option<Mark>) -> Option<Mark> {
    stored.max(heard)
}

/// Facts of a stored token, as they were sealed with it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Facts {
    /// Milliseconds since 1970.
    pub minted_at: u64,
    /// Life from the mint on.
    pub life: Duration,
    /// Nonces of the marks that were in force when the mint began.
    pub known: Vec<Nonce>,
    /// Fingerprint of the credentials of the mint.
    pub credentials: [u8; 8],
}

/// Token that a mint asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Wanted {
    /// Any token that may be served.
    Any,
    /// A token that was minted later than this, in milliseconds since 1970.
    Younger(u64),
}

/// Result of judging a stored token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Serve { age: Duration, superseded: bool },
    Ignore(Reason),
}

/// Reason why a stored token is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Mint before a forget that concerns the token.
    Forgotten,
    /// End of the token's life.
    Ended,
    /// Token that is to be replaced, or an older one.
    Old,
    /// Mint later than now, by the clock of this replica.
    Clock,
}

/// Judges a stored token at `now` (milliseconds since 1970). `marks` are the marks in force for the token's request.
pub fn judge(
    facts: &Facts,
    marks: &[Mark],
    wanted: Wanted,
    credentials: [u8; 8],
    now: u64,
) -> Verdict {
    if !marks.iter().all(|mark| facts.known.contains(&mark.nonce)) {
        return Verdict::Ignore(Reason::Forgotten);
    }
    if facts.minted_at > now.saturating_add(millis(CLOCK_DIFFERENCE)) {
        return Verdict::Ignore(Reason::Clock);
    }
    let age = Duration::from_millis(now.saturating_sub(facts.minted_at));
    // In the last minute of its life, or the last tenth of a short one, a token is not served, so none is taken.
    if age + LAST_MINUTE.min(facts.life / 10) >= facts.life {
        return Verdict::Ignore(Reason::Ended);
    }
    let superseded = facts.credentials != credentials;
    match wanted {
        // A token of other credentials does not replace the token that is held.
        Wanted::Younger(than) if facts.minted_at <= than || superseded => {
            Verdict::Ignore(Reason::Old)
        }
        _ => Verdict::Serve { age, superseded },
    }
}

/// Answer of the store to a mint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The store did not answer, or not in time.
    Fault,
    /// The store was read. `usable` says whether it has a token that may be served.
    Read { usable: bool },
    /// The lease was asked for, and the store read again.
    Lease { won: bool, usable: bool },
}

/// Next step of a mint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Serve,
    /// Ask for the lease, and read again.
    TakeLease,
    /// Wait, and ask for the lease again.
    Wait(Duration),
    /// Wait, and read again without asking for the lease: its holder may have minted while the store did not answer,
    /// and has yet to write.
    WaitOut(Duration),
    /// Ask Velt.
    Mint {
        leased: bool,
    },
}

/// Course of one mint through the store.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Course {
    pause: Duration,
    patience: Duration,
    outage_patience: Duration,
    seen: Seen,
}

/// Lease, as the store's last answers have shown it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Seen {
    /// Nothing yet.
    Nothing,
    /// Another replica holds the lease.
    Held,
    /// Another replica held the lease, and then the store did not answer.
    HeldBeforeOutage,
}

impl Default for Course {
    fn default() -> Self {
        Self::with_patience(LEASE_PATIENCE)
    }
}

impl Course {
    /// Makes the course of a mint that waits for the mint of another replica for at most `patience`.
    pub fn with_patience(patience: Duration) -> Self {
        let outage_patience = OUTAGE_PATIENCE.min(patience);
        Self { pause: FIRST_PAUSE, patience, outage_patience, seen: Seen::Nothing }
    }

    /// Returns the next step after the store's `answer`.
    pub fn after(&mut self, answer: Answer) -> Step {
        match answer {
            Answer::Read { usable: true } | Answer::Lease { usable: true, .. } => Step::Serve,
            Answer::Lease { won: true, .. } => Step::Mint { leased: true },
            Answer::Lease { won: false, .. } => {
                self.seen = Seen::Held;
                self.pause().map_or(Step::Mint { leased: false }, Step::Wait)
            }
            Answer::Fault => self.wait_out().unwrap_or(Step::Mint { leased: false }),
            Answer::Read { usable: false } => match self.seen {
                Seen::HeldBeforeOutage => self.wait_out().unwrap_or(Step::TakeLease),
                Seen::Nothing | Seen::Held => Step::TakeLease,
            },
        }
    }

    /// Waits for the token of another replica through an outage of the store, if that replica was seen to mint.
    fn wait_out(&mut self) -> Option<Step> {
        if self.seen == Seen::Nothing || self.outage_patience.is_zero() {
            return None;
        }
        self.seen = Seen::HeldBeforeOutage;
        let pause = self.pause()?.min(self.outage_patience);
        self.outage_patience -= pause;
        Some(Step::WaitOut(pause))
    }

    /// Takes the next pause from the patience that is left.
    fn pause(&mut self) -> Option<Duration> {
        let pause = self.pause.min(self.patience);
        self.patience -= pause;
        self.pause = (self.pause * 3 / 2).min(LONGEST_PAUSE);
        (!pause.is_zero()).then_some(pause)
    }
}

/// Returns whole milliseconds.
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFE: Duration = Duration::from_secs(48 * 3600);
    const NOW: u64 = 1_800_000_000_000;

    fn facts(minted_at: u64, known: &[u8]) -> Facts {
        let known = known.iter().map(|byte| [*byte; 16]).collect();
        Facts { minted_at, life: LIFE, known, credentials: [1; 8] }
    }

    fn mark(byte: u8) -> Mark {
        Mark { time: NOW, nonce: [byte; 16] }
    }

    fn judged(facts: &Facts, marks: &[Mark], wanted: Wanted) -> Verdict {
        judge(facts, marks, wanted, [1; 8], NOW)
    }

    #[test]
    fn token_counts_if_it_knows_every_forget() {
        let ignored = Verdict::Ignore(Reason::Forgotten);
        let served = Verdict::Serve { age: Duration::ZERO, superseded: false };
        for (known, marks, verdict) in [
            (&[][..], &[][..], served),
            (&[1], &[], served),
            (&[1], &[mark(1)], served),
            (&[1, 2], &[mark(2), mark(1)], served),
            (&[], &[mark(1)], ignored),
            (&[2], &[mark(1)], ignored),
            (&[1], &[mark(1), mark(2)], ignored),
        ] {
            let judged = judged(&facts(NOW, known), marks, Wanted::Any);
            assert_eq!(judged, verdict, "{known:?} {marks:?}");
        }
    }

    #[test]
    fn token_lives_by_its_own_age() {
        let age = |age: u64, wanted| judged(&facts(NOW - age, &[]), &[], wanted);
        let served = |age| Verdict::Serve { age: Duration::from_millis(age), superseded: false };
        let life = millis(LIFE);
        let last = life - millis(LAST_MINUTE);
        assert_eq!(age(last - 1, Wanted::Any), served(last - 1));
        assert_eq!(age(last, Wanted::Any), Verdict::Ignore(Reason::Ended));
        assert_eq!(age(5, Wanted::Younger(NOW - 6)), served(5));
        assert_eq!(age(5, Wanted::Younger(NOW - 5)), Verdict::Ignore(Reason::Old));
        let ahead = millis(CLOCK_DIFFERENCE);
        let early = judged(&facts(NOW + ahead, &[]), &[], Wanted::Any);
        assert_eq!(early, served(0));
        let early = judged(&facts(NOW + ahead + 1, &[]), &[], Wanted::Any);
        assert_eq!(early, Verdict::Ignore(Reason::Clock));
    }

    #[test]
    fn token_of_other_credentials_is_superseded() {
        let other = Facts { credentials: [2; 8], ..facts(NOW, &[]) };
        let any = judged(&other, &[], Wanted::Any);
        assert_eq!(any, Verdict::Serve { age: Duration::ZERO, superseded: true });
        let younger = judged(&other, &[], Wanted::Younger(NOW - 9));
        assert_eq!(younger, Verdict::Ignore(Reason::Old));
    }

    #[test]
    fn later_mark_wins_also_by_a_slow_clock() {
        let first = Mark::after(None, NOW, [1; 16]);
        let second = Mark::after(Some(first), NOW - 5000, [0; 16]);
        assert!(second > first);
        assert_eq!(in_force(Some(first), Some(second)), Some(second));
        assert_eq!(in_force(Some(second), Some(first)), Some(second));
        assert_eq!(in_force(None, Some(first)), Some(first));
        assert_eq!(in_force(None, None), None);
    }

    #[test]
    fn mint_waits_for_another_replica_within_its_patience() {
        let mut course = Course::default();
        assert_eq!(course.after(Answer::Read { usable: false }), Step::TakeLease);
        let (mut waited, mut asked) = (Duration::ZERO, 0);
        let lost = Answer::Lease { won: false, usable: false };
        while let Step::Wait(pause) = course.after(lost) {
            assert!(pause <= LONGEST_PAUSE && !pause.is_zero());
            waited += pause;
            asked += 1;
        }
        assert_eq!(waited, LEASE_PATIENCE);
        assert!(asked < 60, "asked {asked} times");
        assert_eq!(course.after(lost), Step::Mint { leased: false });
    }

    /// Returns the course of a mint that has seen another replica's lease.
    fn waiting() -> Course {
        let mut course = Course::default();
        assert_eq!(course.after(Answer::Read { usable: false }), Step::TakeLease);
        let lost = course.after(Answer::Lease { won: false, usable: false });
        assert_eq!(lost, Step::Wait(FIRST_PAUSE));
        course
    }

    /// Answers a course that waits, until it no longer waits an outage out. Returns the time waited, and the step
    /// after it.
    fn outwaited(
        course: &mut Course,
        mut answer: impl FnMut(Duration) -> Answer,
    ) -> (Duration, Step) {
        let mut waited = Duration::ZERO;
        loop {
            match course.after(answer(waited)) {
                Step::WaitOut(pause) => {
                    assert!(pause <= LONGEST_PAUSE && !pause.is_zero());
                    waited += pause;
                }
                step => return (waited, step),
            }
        }
    }

    #[test]
    fn lease_seen_before_an_outage_is_waited_for_a_while() {
        let (waited, step) = outwaited(&mut waiting(), |_| Answer::Fault);
        assert_eq!((waited, step), (OUTAGE_PATIENCE, Step::Mint { leased: false }));

        // A lease that was not seen is not waited for.
        let mut course = Course::default();
        assert_eq!(course.after(Answer::Read { usable: false }), Step::TakeLease);
        assert_eq!(course.after(Answer::Fault), Step::Mint { leased: false });
    }

    #[test]
    fn store_that_is_back_is_read_before_a_lease_is_taken() {
        let back = Duration::from_secs(2);
        let answer = |waited| {
            if waited < back { Answer::Fault } else { Answer::Read { usable: false } }
        };
        let mut course = waiting();
        assert_eq!(outwaited(&mut course, answer), (OUTAGE_PATIENCE, Step::TakeLease));
        // The patience with outages is used up, the patience with the next holder is not.
        let lost = Answer::Lease { won: false, usable: false };
        assert_eq!(course.after(lost), Step::Wait(LONGEST_PAUSE));
        assert_eq!(course.after(Answer::Fault), Step::Mint { leased: false });

        let answer = |waited| {
            if waited < back { Answer::Fault } else { Answer::Read { usable: waited > 2 * back } }
        };
        let (waited, step) = outwaited(&mut waiting(), answer);
        assert!(step == Step::Serve && waited < OUTAGE_PATIENCE, "{step:?} after {waited:?}");
    }

    #[test]
    fn each_answer_has_its_step() {
        for (answer, step) in [
            (Answer::Fault, Step::Mint { leased: false }),
            (Answer::Read { usable: true }, Step::Serve),
            (Answer::Lease { won: false, usable: true }, Step::Serve),
            (Answer::Lease { won: true, usable: true }, Step::Serve),
            (Answer::Lease { won: true, usable: false }, Step::Mint { leased: true }),
            (Answer::Lease { won: false, usable: false }, Step::Wait(FIRST_PAUSE)),
        ] {
            assert_eq!(Course::default().after(answer), step, "{answer:?}");
        }
    }
}

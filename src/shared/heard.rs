//! The forgets that this replica has heard of. These stay in force even if the store loses them, or an attacker
//! deletes them there.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::entry::Forget;
use crate::protocol::{Mark, millis};
use token::announce::Subject;

/// Time for which this replica and the store remember a forget: no token from before the forget lives longer.
pub const FORGET_LIFE: Duration = Duration::from_secs(50 * 3600);

/// Most forgets that this replica remembers, at about 200 bytes each: enough for 2,000 an hour. Beyond that, this
/// replica drops the oldest forget, and only the store knows it.
const MAX_HEARD: usize = 100_000;

#[derive(Default)]
pub struct Heard {
    marks: Mutex<Marks>,
    /// Forgets that were noted, and those of them whose tokens have left the memory of this replica.
    begun: AtomicU64,
    done: AtomicU64,
}

#[derive(Default)]
struct Marks {
    by_subject: HashMap<Subject, (Mark, Option<u64>)>,
    by_age: BTreeMap<Mark, Subject>,
}

impl Heard {
    /// Notes a forget at `now` (milliseconds since 1970, by this replica's clock). Returns whether it is news: later
    /// than each forget of its subject that was heard of, or the logout that is the reason for the last one.
    pub fn note(&self, forget: &Forget, now: u64) -> bool {
        let mut marks = self.locked();
        let Forget { subject, mark, logout_at } = forget.clone();
        let before = marks.by_subject.get(&subject).copied();
        if let Some((last, known)) = before
            && last >= mark
        {
            let is_its_logout = last == mark && logout_at > known;
            if is_its_logout {
                marks.by_subject.insert(subject, (mark, logout_at));
            }
            return is_its_logout;
        }
        if let Some((last, _)) = before {
            marks.by_age.remove(&last);
        }
        // A later forget for another reason does not end a logout.
        let logout_at = logout_at.max(before.and_then(|(_, logout_at)| logout_at));
        marks.by_age.insert(mark, subject.clone());
        marks.by_subject.insert(subject, (mark, logout_at));
        while let Some((first, _)) = marks.by_age.first_key_value()
            && (first.time < oldest(now) || marks.by_subject.len() > MAX_HEARD)
        {
            let (_, subject) = marks.by_age.pop_first().expect("there is a first");
            marks.by_subject.remove(&subject);
        }
        true
    }

    /// Returns the mark of the last forget of `subject`, if it still matters at `now` (milliseconds since 1970).
    pub fn mark(&self, subject: &Subject, now: u64) -> Option<Mark> {
        let mark = self.locked().by_subject.get(subject).map(|(mark, _)| *mark);
        mark.filter(|mark| mark.time >= oldest(now))
    }

    /// Returns the last forget of `subject`.
    pub fn forget(&self, subject: &Subject) -> Option<Forget> {
        let (mark, logout_at) = *self.locked().by_subject.get(subject)?;
        Some(Forget { subject: subject.clone(), mark, logout_at })
    }

    /// Returns the forgets that are in force at `now` (milliseconds since 1970), the latest first.
    pub fn all(&self, now: u64) -> Vec<Forget> {
        let marks = self.locked();
        let latest = marks.by_age.iter().rev().take_while(|(mark, _)| mark.time >= oldest(now));
        let forget = |(mark, subject): (&Mark, &Subject)| {
            let logout_at = marks.by_subject.get(subject).and_then(|(_, logout_at)| *logout_at);
            Forget { subject: subject.clone(), mark: *mark, logout_at }
        };
        latest.map(forget).collect()
    }

    /// Says that `count` forgets are about to be noted, whose tokens then have to leave the memory of this replica. They
    /// have left it when the returned value is dropped.
    pub fn begin(&self, count: usize) -> Settling<'_> {
        self.begun.fetch_add(count as u64, Ordering::SeqCst);
        Settling { done: &self.done, count: count as u64 }
    }

    /// Returns a number that changes with each forget, unless memory may still hold a token from before a forget that
    /// was noted. Such a token must not be shared as if it were younger than the forget.
    pub fn settled(&self) -> Option<u64> {
        let done = self.done.load(Ordering::SeqCst);
        Some(self.begun.load(Ordering::SeqCst)).filter(|begun| *begun == done)
    }

    fn locked(&self) -> MutexGuard<'_, Marks> {
        self.marks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the time of the oldest forget that still matters.
fn oldest(now: u64) -> u64 {
    now.saturating_sub(millis(FORGET_LIFE))
}

/// Forgets that were noted, and whose tokens memory may still hold.
pub struct Settling<'a> {
    done: &'a AtomicU64,
    count: u64,
}

impl Drop for Settling<'_> {
    fn drop(&mut self) {
        self.done.fetch_add(self.count, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forget(user: &str, time: u64, nonce: u8) -> Forget {
        let mark = Mark { time, nonce: [nonce; 16] };
        Forget { subject: Subject::User(user.into()), mark, logout_at: None }
    }

    #[test]
    fn later_forget_of_a_subject_replaces_the_earlier_one() {
        let (heard, now) = (Heard::default(), 1_800_000_000_000);
        let (first, second) = (forget("ada", now, 1), forget("ada", now + 1, 0));
        assert!(heard.note(&first, now) && heard.note(&second, now));
        assert!(!heard.note(&first, now) && !heard.note(&second, now), "heard before");
        assert_eq!(heard.mark(&second.subject, now), Some(second.mark));
        let life = millis(FORGET_LIFE);
        assert_eq!(heard.mark(&second.subject, now + 1 + life), Some(second.mark));
        assert_eq!(heard.mark(&second.subject, now + 2 + life), None, "no token is that old");
        assert!(heard.note(&forget("eve", now, 2), now));
        let all = heard.all(now + 1);
        assert!(all == [second.clone(), forget("eve", now, 2)]);
        assert_eq!(heard.mark(&Subject::Organization("ada".into()), now), None);
    }

    #[test]
    fn logout_is_news_after_its_mark_and_outlives_other_forgets() {
        let (heard, now) = (Heard::default(), 1_800_000_000_000);
        let mark_alone = forget("ada", now, 1);
        let logout = Forget { logout_at: Some(now - 5), ..mark_alone.clone() };
        assert!(heard.note(&mark_alone, now) && heard.note(&logout, now));
        assert!(!heard.note(&logout, now) && !heard.note(&mark_alone, now), "heard before");
        assert!(heard.note(&forget("ada", now + 1, 2), now));
        let last = heard.forget(&logout.subject).expect("a forget");
        assert_eq!((last.mark.time, last.logout_at), (now + 1, Some(now - 5)));
    }

    #[test]
    fn forget_of_a_clock_far_ahead_displaces_no_other() {
        let (heard, now) = (Heard::default(), 1_800_000_000_000);
        let ahead = now + 2 * millis(FORGET_LIFE);
        assert!(
            heard.note(&forget("ada", now, 1), now) && heard.note(&forget("eve", ahead, 2), now)
        );
        assert!(heard.mark(&Subject::User("ada".into()), now).is_some());
    }

    #[test]
    fn memory_is_settled_between_forgets() {
        let heard = Heard::default();
        let before = heard.settled().expect("there was no forget");
        let (one, other) = (heard.begin(2), heard.begin(1));
        assert_eq!(heard.settled(), None);
        drop(one);
        assert_eq!(heard.settled(), None);
        drop(other);
        assert!(heard.settled().is_some_and(|after| after != before));
    }

    #[test]
    fn memory_of_forgets_is_bounded() {
        let heard = Heard::default();
        for time in 0..=MAX_HEARD as u64 {
            heard.note(&forget(&time.to_string(), 1_000 + time, 0), 1_000);
        }
        assert_eq!(heard.all(0).len(), MAX_HEARD);
        assert_eq!(heard.mark(&Subject::User("0".into()), 1_000), None, "the oldest goes");
        let later = 2_000 + MAX_HEARD as u64 + millis(FORGET_LIFE);
        assert!(heard.all(later).is_empty());
        heard.note(&forget("ada", later, 0), later);
        assert_eq!(heard.all(0).len(), 1);
    }
}

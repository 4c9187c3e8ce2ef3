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
    /// Notes a forget. Returns whether the forget is news: later than each noted forget of its subject.
    pub fn note(&self, forget: &Forget) -> bool {
        let mut marks = self.locked();
        let before = marks.by_subject.get(&forget.subject).map(|(mark, _)| *mark);
        if before >= Some(forget.mark) {
            return false;
        }
        if let Some(before) = before {
            marks.by_age.remove(&before);
        }
        let Forget { subject, mark, logout_at } = forget.clone();
        marks.by_age.insert(mark, subject.clone());
        marks.by_subject.insert(subject, (mark, logout_at));
        let oldest = mark.time.saturating_sub(millis(FORGET_LIFE));
        while let Some((first, _)) = marks.by_age.first_key_value()
            && (first.time < oldest || marks.by_subject.len() > MAX_HEARD)
        {
            let (_, subject) = marks.by_age.pop_first().expect("there is a first");
            marks.by_subject.remove(&subject);
        }
        true
    }

    /// Returns the mark of the last forget of `subject`.
    pub fn mark(&self, subject: &Subject) -> Option<Mark> {
        self.locked().by_subject.get(subject).map(|(mark, _)| *mark)
    }

    /// Returns the last forget of `subject`.
    pub fn forget(&self, subject: &Subject) -> Option<Forget> {
        let (mark, logout_at) = *self.locked().by_subject.get(subject)?;
        Some(Forget { subject: subject.clone(), mark, logout_at })
    }

    /// Returns the forgets that are in force at `now` (milliseconds since 1970), the latest first.
    pub fn all(&self, now: u64) -> Vec<Forget> {
        let marks = self.locked();
        let oldest = now.saturating_sub(millis(FORGET_LIFE));
        let latest = marks.by_age.iter().rev().take_while(|(mark, _)| mark.time >= oldest);
        let forget = |(mark, subject): (&Mark, &Subject)| {
            let logout_at = marks.by_subject.get(subject).and_then(|(_, logout_at)| *logout_at);
            Forget { subject: subject.clone(), mark: *mark, logout_at }
        };
        latest.map(forget).collect()
    }

    /// Says that forgets are about to be noted, whose tokens then have to leave the memory of this replica.
    pub fn begin(&self, count: usize) {
        self.begun.fetch_add(count as u64, Ordering::SeqCst);
    }

    /// Says that the tokens of that many noted forgets have left the memory.
    pub fn end(&self, count: usize) {
        self.done.fetch_add(count as u64, Ordering::SeqCst);
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
        assert!(heard.note(&first) && heard.note(&second));
        assert!(!heard.note(&first) && !heard.note(&second), "heard before");
        assert_eq!(heard.mark(&second.subject), Some(second.mark));
        assert!(heard.note(&forget("eve", now, 2)));
        let all = heard.all(now + 1);
        assert!(all == [second.clone(), forget("eve", now, 2)]);
        assert_eq!(heard.mark(&Subject::Organization("ada".into())), None);
    }

    #[test]
    fn memory_is_settled_between_forgets() {
        let heard = Heard::default();
        let before = heard.settled().expect("there was no forget");
        heard.begin(2);
        assert_eq!(heard.settled(), None);
        heard.end(1);
        assert_eq!(heard.settled(), None);
        heard.end(1);
        assert!(heard.settled().is_some_and(|after| after != before));
    }

    #[test]
    fn memory_of_forgets_is_bounded() {
        let heard = Heard::default();
        for time in 0..=MAX_HEARD as u64 {
            heard.note(&forget(&time.to_string(), 1_000 + time, 0));
        }
        assert_eq!(heard.all(0).len(), MAX_HEARD);
        assert_eq!(heard.mark(&Subject::User("0".into())), None, "the oldest goes");
        let later = 2_000 + MAX_HEARD as u64 + millis(FORGET_LIFE);
        assert!(heard.all(later).is_empty());
        heard.note(&forget("ada", later, 0));
        assert_eq!(heard.all(0).len(), 1);
    }
}

//! Pauses between attempts: longer and longer, and of random length, so that replicas do not return all at once.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::time::Duration;

use tokio::time::Instant;

/// Pauses that double from the first to the longest.
pub struct Pauses {
    first: Duration,
    longest: Duration,
    next: Duration,
    jitter: RandomState,
}

impl Pauses {
    /// Makes pauses that begin with `first` and grow to `longest`, before jitter.
    pub fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, next: first, jitter: RandomState::new() }
    }

    /// Returns the next pause: half to one and a half of its length.
    pub fn take(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(self.longest);
        let noise = u32::try_from(self.jitter.hash_one(Instant::now()) % 1024).unwrap_or(0);
        pause / 2 + pause * noise / 1024
    }

    /// Begins with the first pause again.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let mut pauses = Pauses::new(Duration::from_millis(200), Duration::from_secs(5));
        let mut lengths =
            |count: usize| -> Vec<u128> { (0..count).map(|_| pauses.take().as_millis()).collect() };
        for (pause, middle) in
            lengths(8).into_iter().zip([200, 400, 800, 1600, 3200, 5000, 5000, 5000])
        {
            assert!((middle / 2..=middle * 3 / 2).contains(&pause), "{pause} for {middle}");
        }
        assert!(lengths(40).windows(2).any(|pair| pair[0] != pair[1]), "jitter");
        pauses.reset();
        assert!(pauses.take() <= Duration::from_millis(300));
    }
}

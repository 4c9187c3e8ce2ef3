//! Tells the log that a peer's `X-Forwarded-*` were replaced: an app then sees the wrong scheme, and
//! answers with redirects that never end, and nothing else would tell why.

use std::net::IpAddr;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;

use super::headers::Replaced;

/// Between two lines of one thread that serves.
const INTERVAL: Duration = Duration::from_secs(60);

/// Writes at most one line in [`INTERVAL`]; a counter has every request.
pub(super) struct Replacements(Mutex<Untold>);

struct Untold {
    requests: u64,
    /// When the next line may be written.
    next: Instant,
}

impl Replacements {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Untold { requests: 0, next: Instant::now() }))
    }

    /// Takes note of a request of `peer`, and writes a line if one is due.
    pub(super) fn tell(&self, replaced: &Replaced, peer: IpAddr) {
        let Some(requests) = self.due(Instant::now()) else { return };
        let header = replaced.header.as_ref().map_or("", |header| header.as_str());
        warn!(
            %peer,
            header,
            requests,
            "what a peer said of scheme, host and client address was replaced: if the peer is your \
             front, name it in identity.trusted_proxies"
        );
    }

    /// How many requests the line that is due tells of.
    fn due(&self, now: Instant) -> Option<u64> {
        let mut untold = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        untold.requests += 1;
        (now >= untold.next).then(|| {
            untold.next = now + INTERVAL;
            std::mem::take(&mut untold.requests)
        })
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_line_a_minute_tells_of_all_requests() {
        let replacements = Replacements::new();
        assert_eq!(replacements.due(Instant::now()), Some(1), "the first is told at once");
        for _ in 0..1000 {
            assert_eq!(replacements.due(Instant::now()), None);
        }
        advance(INTERVAL).await;
        assert_eq!(replacements.due(Instant::now()), Some(1001));
        assert_eq!(replacements.due(Instant::now()), None);
    }
}

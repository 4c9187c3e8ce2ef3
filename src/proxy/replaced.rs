//! Log lines about peers whose `X-Forwarded-*` were replaced. If such a peer is the front, the app sees the
//! wrong scheme and may answer with redirects that never end: the log says why.

use std::net::IpAddr;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;

use super::headers::Replaced;

/// Least time between two lines of one worker thread.
const INTERVAL: Duration = Duration::from_secs(60);

/// Writes at most one line in [`INTERVAL`], with the number of requests since the last line.
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

    /// Number of requests for the line, if a line is due.
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

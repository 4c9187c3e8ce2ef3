//! Velt's clock, by which grants are dated: the pod's own clock may be wrong by hours.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::HeaderMap;
use http::header::DATE;

/// Difference of the two clocks that does not matter to a grant. `Date` has whole seconds only.
const TOLERANCE: Duration = Duration::from_secs(5);

/// Velt's clock, by the `Date` of Velt's last answer (RFC 9110 section 6.6.1). Before the first answer, the
/// clock of this machine.
#[derive(Default)]
pub(super) struct Clock {
    /// Milliseconds that Velt is ahead of this machine.
    ahead: AtomicI64,
}

impl Clock {
    /// Velt's time, as time since 1970.
    pub(super) fn now(&self) -> Duration {
        let ahead = self.ahead.load(Ordering::Relaxed);
        let apart = Duration::from_millis(ahead.unsigned_abs());
        if ahead < 0 { unix_now().saturating_sub(apart) } else { unix_now() + apart }
    }

    /// Sets the clock by the head of an answer. Returns whether the clock was off by more than [`TOLERANCE`],
    /// so that the request of this answer was misdated.
    pub(super) fn set_by(&self, headers: &HeaderMap) -> bool {
        let Some(velt_now) = date(headers) else { return false };
        let was_wrong = velt_now.abs_diff(self.now()) > TOLERANCE;
        let millis = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        self.ahead.store(millis(velt_now) - millis(unix_now()), Ordering::Relaxed);
        was_wrong
    }
}

fn date(headers: &HeaderMap) -> Option<Duration> {
    let date = httpdate::parse_http_date(headers.get(DATE)?.to_str().ok()?).ok()?;
    date.duration_since(UNIX_EPOCH).ok()
}

fn unix_now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

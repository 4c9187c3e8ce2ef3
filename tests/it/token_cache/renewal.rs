//! The bound of renewals, in virtual time.

use std::time::Duration;

use token::Fingerprint;
use token::cache::Renewal;
use token::{Moment, Token};
use tokio::time::advance;

use super::Bench;
use crate::support::double::{request, text};

const SECOND: Duration = Duration::from_secs(1);

impl Bench {
    /// Returns the held token.
    async fn held(&self, user: &str) -> Token {
        let lookup = self.cache.get(request(user));
        lookup.within(SECOND).await.expect("no wait").expect("a token")
    }

    /// Reports the held token of `user`, and returns the rest of the minute if the report came too soon.
    async fn report(&self, user: &str) -> Option<Duration> {
        let refused = Fingerprint::of(self.held(user).await.value());
        match self.cache.renew(request(user), refused, None, Moment::now()) {
            Renewal::Renewing(lookup) => {
                lookup.within(SECOND).await.expect("the mint has ended").expect("a token");
                None
            }
            Renewal::TooSoon { retry_after } => Some(retry_after),
            Renewal::NotHeld => panic!("the token is held"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn each_user_has_one_renewal_a_minute() {
    let bench = Bench::new();
    assert_eq!(bench.report("ada").await, None);
    for (wait, left) in [(0, 60), (7, 53), (52, 1)] {
        advance(wait * SECOND).await;
        assert_eq!(bench.report("ada").await, Some(left * SECOND));
        // Reports that came too soon do not prolong the minute.
    }
    assert_eq!(bench.report("grace").await, None, "another user has a minute of her own");
    advance(SECOND).await;
    assert_eq!(bench.report("ada").await, None);
    assert_eq!(bench.report("ada").await, Some(60 * SECOND));
    assert_eq!(bench.double.calls(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_thousand_users_who_report_without_end_are_bounded() {
    let bench = Bench::new();
    let users: Vec<_> = (0..1000).map(|n| format!("user-{n}")).collect();
    for _ in 0..7 {
        for user in &users {
            bench.report(user).await;
        }
        advance(11 * SECOND).await;
    }
    // A first token and two renewals each: at 0 and at 66 seconds.
    assert_eq!(bench.double.calls(), 3000);
}

#[tokio::test(start_paused = true)]
async fn forgotten_token_can_not_be_reported() {
    let bench = Bench::new();
    let held = bench.held("ada").await;
    bench.cache.invalidate(token::cache::Whose::User("ada"));
    let refused = Fingerprint::of(held.value());
    let renewal = bench.cache.renew(request("ada"), refused, None, Moment::now());
    assert!(matches!(renewal, Renewal::NotHeld));
    assert_ne!(text(&bench.held("ada").await), text(&held));
}

//! The bound of renewals, in virtual time.

use std::sync::Arc;
use std::time::Duration;

use token::Fingerprint;
use token::cache::{Lookup, Renewal};
use token::{Moment, Token};
use tokio::time::{advance, sleep};

use super::{Bench, settle, unavailable};
use crate::support::double::{HOUR, request, text};

const SECOND: Duration = Duration::from_secs(1);

impl Bench {
    /// Returns the held token.
    async fn held(&self, user: &str) -> Token {
        self.held_within(user, SECOND).await
    }

    /// Returns the token, which may have to be minted first.
    async fn held_within(&self, user: &str, patience: Duration) -> Token {
        let lookup = self.cache.get(request(user));
        lookup.within(patience).await.expect("no longer wait").expect("a token")
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
async fn t68_each_user_has_one_renewal_a_minute() {
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
async fn t68_users_who_report_without_end_are_bounded() {
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

#[tokio::test(start_paused = true)]
async fn failed_renewal_does_not_use_up_the_minute() {
    let bench = Bench::new();
    let held = bench.held("ada").await;
    let refused = Fingerprint::of(held.value());
    bench.double.then(Err(unavailable()));
    let report = || bench.cache.renew(request("ada"), refused, None, Moment::now());
    let Renewal::Renewing(first) = report() else { panic!("the token is held") };
    assert!(matches!(first.within(SECOND).await, Ok(Err(_))));
    settle().await;
    let Renewal::Renewing(at_once) = report() else { panic!("the failure is told") };
    assert!(matches!(at_once, Lookup::Ready(Err(_))), "from memory");
    assert_eq!(bench.double.calls(), 2);
    advance(31 * SECOND).await;
    let Renewal::Renewing(later) = report() else { panic!("the minute is left") };
    let token = later.within(SECOND).await.expect("the mint has ended").expect("a token");
    assert_ne!(text(&token), text(&held));
    settle().await;
    assert_eq!(bench.report("ada").await, Some(60 * SECOND), "this one counts");
}

#[tokio::test(start_paused = true)]
async fn token_of_former_credentials_is_renewed_at_any_time() {
    let bench = Bench::new();
    assert_eq!(bench.report("ada").await, None);
    assert_eq!(bench.report("ada").await, Some(60 * SECOND));
    bench.cache.replace_mint(Arc::new(bench.double.clone()), true);
    assert_eq!(bench.report("ada").await, None, "it is refused with good reason");
    assert_eq!(bench.report("ada").await, Some(60 * SECOND));
}

#[tokio::test(start_paused = true)]
async fn refresh_under_way_is_joined_until_one_has_failed() {
    let bench = Bench::new();
    bench.double.latency(SECOND);
    assert!(bench.cache.refresh_under_way(&request("ada")).is_none());
    bench.held_within("ada", 2 * SECOND).await;
    advance(40 * HOUR).await;
    bench.double.then(Err(unavailable()));
    bench.held("ada").await;
    let refresh = bench.cache.refresh_under_way(&request("ada")).expect("a refresh");
    assert!(matches!(Lookup::Pending(refresh).within(2 * SECOND).await, Ok(Err(_))));
    advance(HOUR).await;
    bench.held("ada").await;
    settle().await;
    assert!(bench.cache.refresh_under_way(&request("ada")).is_none(), "it most likely fails too");
    assert_eq!(bench.double.calls(), 3, "and yet it is tried");
}

#[tokio::test(start_paused = true)]
async fn wait_for_a_refresh_makes_it_no_more_urgent() {
    let bench = Bench::new();
    bench.held("ada").await;
    advance(40 * HOUR).await;
    bench.double.latency(SECOND);
    bench.held("ada").await;
    settle().await;
    assert!(bench.cache.refresh_under_way(&request("ada")).is_some());
    sleep(2 * SECOND).await;
    assert_eq!(bench.double.urgent(), [true, false], "newcomers go first");
}

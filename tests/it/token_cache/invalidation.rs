//! Forgetting tokens, in virtual time: a token that was asked for before does not come back after.

use std::time::Duration;

use token::cache::{Forgotten, Known, Whose};
use tokio::time::{advance, sleep};

use super::{Bench, settle, unavailable};
use crate::support::double::{HOUR, LIFE, request, text};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn invalidated_mint_is_not_kept_and_spares_its_successor() {
    let bench = Bench::new();
    bench.double.latency(10 * SECOND);
    let first = bench.cache.get(request("ada"));
    sleep(5 * SECOND).await;
    let forgotten = bench.cache.invalidate(Whose::User("ada"));
    assert_eq!(forgotten, Forgotten { entries: 0, mints: 1 });
    let second = bench.cache.get(request("ada"));
    settle().await;
    assert_eq!(bench.double.calls(), 2, "nobody joins what was called off");

    // The first mint ends five seconds before the second.
    let first = first.within(HOUR).await.expect("in time").expect("a token");
    assert!(matches!(bench.cache.peek(&request("ada")), Known::InFlight));
    let third = bench.cache.get(request("ada"));
    let second = second.within(HOUR).await.expect("in time").expect("a token");
    let third = third.within(HOUR).await.expect("in time").expect("a token");
    assert_eq!((text(&second), bench.double.calls()), (text(&third), 2), "the second was joined");
    assert_ne!(text(&first), text(&second));
    assert_eq!(bench.get("ada").await.expect("a token"), text(&second));
}

#[tokio::test(start_paused = true)]
async fn invalidated_refresh_is_not_kept_and_spares_its_successor() {
    for fails in [false, true] {
        let bench = Bench::new();
        let old = bench.get("ada").await.expect("a token");
        advance(39 * HOUR).await;
        bench.double.latency(SECOND);
        bench.double.then(if fails { Err(unavailable()) } else { Ok(LIFE) });
        assert_eq!(bench.get("ada").await.expect("still good"), old);
        settle().await;
        assert!(matches!(bench.cache.peek(&request("ada")), Known::Due { refreshing: true, .. }));
        let forgotten = bench.cache.invalidate(Whose::Everybody);
        assert_eq!(forgotten, Forgotten { entries: 1, mints: 1 });
        sleep(2 * SECOND).await;
        assert!(matches!(bench.cache.peek(&request("ada")), Known::Absent), "fails: {fails}");
        let new = bench.get("ada").await.expect("a token");
        assert_eq!((bench.double.calls(), new == old), (3, false));
    }
}

#[tokio::test(start_paused = true)]
async fn a_peek_says_what_a_look_up_would_find_and_changes_nothing() {
    let bench = Bench::new();
    let peek = |user: &str| bench.cache.peek(&request(user));
    assert!(matches!(peek("ada"), Known::Absent));
    bench.get("ada").await.expect("a token");
    assert!(matches!(peek("ada"), Known::Fresh { remaining } if remaining > 47 * HOUR));
    advance(40 * HOUR).await;
    assert!(matches!(peek("ada"), Known::Due { refreshing: false, .. }));
    settle().await;
    assert_eq!(bench.double.calls(), 1, "no refresh was started");
    advance(8 * HOUR).await;
    assert!(matches!(peek("ada"), Known::Expired));
    bench.double.otherwise(Some(unavailable()));
    bench.get("eve").await.expect_err("a failure");
    let Known::FailedRecently { retry_in, .. } = peek("eve") else { panic!("it is remembered") };
    assert_eq!(retry_in, SECOND);
    advance(retry_in).await;
    assert!(matches!(peek("eve"), Known::Absent));
    settle().await;
    assert_eq!(bench.double.calls(), 2, "nothing was minted");
}

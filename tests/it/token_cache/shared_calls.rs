//! Shared resources of mints: calls at once, the queue, Velt's rate limit, and evidence held against
//! users, organizations and Velt. Latencies do not divide the deadline, and there are always several
//! users.

use std::sync::Arc;
use std::time::Duration;

use ground::metrics::{Metrics, MintOutcome, TokenMetrics};
use token::admission::Admission;
use token::cache::{self, TokenCache};
use token::resilience::{self, Bounds, Resilient};
use token::{Details, MintError, MintRequest, RefusedStatus, Unfinished};
use tokio::time::{Instant, advance, sleep};

use super::{refused, settle, unavailable};
use crate::support::double::{Double, HOUR, plan, request};

const SECOND: Duration = Duration::from_secs(1);

/// Cache in front of shared calls to Velt, in virtual time.
struct Shared {
    double: Double,
    cache: TokenCache,
    metrics: TokenMetrics,
    admission: Arc<Admission>,
}

impl Shared {
    fn with(floor: usize, ceiling: usize) -> Self {
        let (double, metrics) = (Double::default(), Metrics::new().tokens);
        let settings = resilience::Settings {
            attempt_timeout: Duration::from_secs(3),
            deadline: Duration::from_secs(8),
            concurrency: Bounds { floor, ceiling },
        };
        let mint = Resilient::new(double.clone(), settings, metrics.clone());
        let admission = mint.admission();
        let settings = cache::Settings { max_entries: 100_000, max_bytes: 1 << 30 };
        let cache = TokenCache::new(Arc::new(mint), &settings, metrics.clone());
        Self { double, cache, metrics, admission }
    }

    fn breaker_open(&self) -> i64 {
        self.admission.observe(&self.metrics);
        self.metrics.breaker_open.get()
    }

    /// Asks as a page does: four tries, a second apart, each of at most 5 s.
    async fn page(&self, request: MintRequest) -> Result<Duration, Vec<String>> {
        let start = Instant::now();
        let mut told = Vec::new();
        for _ in 0..4 {
            match self.cache.get(request.clone()).within(5 * SECOND).await {
                Ok(Ok(_)) => return Ok(start.elapsed()),
                Ok(Err(error)) => told.push(error.to_string()),
                Err(stage) => told.push(format!("{stage:?}")),
            }
            sleep(SECOND).await;
        }
        Err(told)
    }

    /// Loads pages of `users` users at once, and returns how long the last of them waited.
    async fn pages(self: &Arc<Self>, users: usize) -> Duration {
        let pages: Vec<_> = (0..users)
            .map(|n| {
                let shared = Arc::clone(self);
                tokio::spawn(async move { shared.page(request(&format!("user-{n}"))).await })
            })
            .collect();
        let mut longest = Duration::ZERO;
        for page in pages {
            let waited = page.await.expect("no panic");
            longest = longest.max(waited.unwrap_or_else(|told| panic!("no token: {told:?}")));
        }
        longest
    }
}

fn of_organization(user: &str, organization: &str) -> MintRequest {
    let details = Details { organization: Some(organization.into()), ..Details::default() };
    plan().request(user.into(), details).expect("a request")
}

fn invalid() -> MintError {
    MintError::Refused { status: RefusedStatus::InvalidArgument, http_status: 400 }
}

#[tokio::test(start_paused = true)]
async fn burst_of_pages_is_served_at_any_latency() {
    for (users, milliseconds, ceiling) in
        [(200, 1000, 16), (800, 300, 16), (600, 500, 16), (170, 1300, 16), (200, 1000, 48)]
    {
        let shared = Arc::new(Shared::with(4, ceiling));
        let latency = Duration::from_millis(milliseconds);
        shared.double.latency(latency);
        let last = shared.pages(users).await;
        let ideal = latency.mul_f64(users as f64 / ceiling as f64);
        let row = format!("{users} users at {latency:?}, {ceiling} at once");
        assert!(last <= ideal.mul_f64(1.15) + 2 * SECOND, "{row}: {last:?}, {ideal:?} at best");
        assert_eq!((shared.double.calls(), shared.double.cut_off()), (users, 0), "{row}");
        assert_eq!(shared.metrics.mints.get(MintOutcome::Minted), users as u64, "{row}");
        assert_eq!(shared.breaker_open(), 0, "{row}");
    }
}

#[tokio::test(start_paused = true)]
async fn cold_users_of_a_fast_velt_are_minted_within_max_wait() {
    let shared = Arc::new(Shared::with(4, 48));
    shared.double.latency(Duration::from_millis(53));
    let lookups: Vec<_> = (0..100).map(|n| shared.cache.get(request(&format!("u{n}")))).collect();
    let waiting = lookups.into_iter().map(|lookup| lookup.within(Duration::from_millis(250)));
    let results = futures_util::future::join_all(waiting).await;
    assert!(results.iter().all(|result| matches!(result, Ok(Ok(_)))));
    assert!(shared.double.peak() <= 48, "{} at once", shared.double.peak());
}

#[tokio::test(start_paused = true)]
async fn hiccup_of_velt_costs_no_user_a_token() {
    for users in [5, 29] {
        let shared = Arc::new(Shared::with(4, 48));
        shared.double.otherwise(Some(unavailable()));
        let pages = tokio::spawn({
            let shared = Arc::clone(&shared);
            async move { shared.pages(users).await }
        });
        sleep(Duration::from_millis(100)).await;
        shared.double.otherwise(None);
        let last = pages.await.expect("no panic");
        assert!(last < 2 * SECOND, "{users} users: {last:?}");
        let next = shared.page(request("the-next")).await.expect("a token");
        assert_eq!(next, Duration::ZERO, "{users} users before");
    }
}

#[tokio::test(start_paused = true)]
async fn call_that_was_sent_is_never_cut_by_the_deadline() {
    let shared = Shared::with(1, 1);
    // The first two calls fail at 2.9 s and at 6 s; the third, begun before 8 s, ends after it.
    shared.double.latency(Duration::from_millis(2900));
    shared.double.then(Err(unavailable()));
    shared.double.then(Err(unavailable()));
    let result = shared.cache.get(request("ada")).within(HOUR).await.expect("the mint has ended");
    assert!(result.is_ok(), "{result:?}");
    assert_eq!((shared.double.calls(), shared.double.cut_off()), (3, 0));
}

#[tokio::test(start_paused = true)]
async fn queued_caller_is_told_of_the_queue_and_not_of_velt() {
    let shared = Shared::with(1, 1);
    shared.double.latency(Duration::from_millis(2900));
    let first = shared.cache.get(request("ada"));
    let second = shared.cache.get(request("grace"));
    let told = second.within(SECOND).await.expect_err("it waits");
    assert!(matches!(told, Unfinished::Queued), "{told:?}");
    // The call begins at 2.9 s: of the 3.3 s that this caller waits, the queue took most.
    let third = shared.cache.get(request("grace")).within(Duration::from_millis(2300)).await;
    assert!(matches!(third, Err(Unfinished::Queued)), "{third:?}");
    assert!(first.within(HOUR).await.expect("the mint has ended").is_ok());
    // No client asks for these tokens any more, and a call for the last would begin after 8 s.
    for n in 0..5 {
        drop(shared.cache.get(request(&format!("user-{n}"))));
    }
    sleep(60 * SECOND).await;
    assert!(shared.metrics.mints.get(MintOutcome::Queued) >= 1);
    assert_eq!(shared.metrics.mints.get(MintOutcome::Timeout), 0);
    assert!(!MintError::Queued.to_string().contains("did not answer"));
    assert_eq!(shared.breaker_open(), 0);
}

#[tokio::test(start_paused = true)]
async fn caller_is_told_why_the_calls_before_have_failed() {
    for error in [unavailable(), MintError::Timeout] {
        // The second call begins at 1.4 s or so, and the third one at 3.1 s.
        for (latency, patience) in [(1300, 1900), (1300, 1350), (1300, 3300), (2300, 5000)] {
            let shared = Shared::with(4, 48);
            shared.double.otherwise(Some(error.clone()));
            shared.double.latency(Duration::from_millis(latency));
            let asked = shared.cache.get(request("ada"));
            let told = asked.within(Duration::from_millis(patience)).await.expect_err("it waits");
            let Unfinished::Held(told) = told else { panic!("{told:?} after {patience} ms") };
            assert_eq!(told.to_string(), error.to_string());
        }
        let shared = Shared::with(4, 48);
        shared.double.latency(2 * SECOND);
        let told = shared.cache.get(request("ada")).within(SECOND).await.expect_err("it waits");
        assert!(matches!(told, Unfinished::Called), "{told:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn user_who_keeps_asking_keeps_the_place_in_the_queue() {
    let shared = Shared::with(1, 1);
    shared.double.latency(Duration::from_millis(2900));
    for n in 0..5 {
        drop(shared.cache.get(request(&format!("user-{n}"))));
    }
    let start = Instant::now();
    loop {
        let asked = shared.cache.get(request("ada")).within(Duration::from_millis(250)).await;
        if let Ok(result) = asked {
            assert!(result.is_ok(), "{result:?}");
            break;
        }
        assert!(start.elapsed() < 30 * SECOND, "never served");
        advance(SECOND).await;
    }
}

#[tokio::test(start_paused = true)]
async fn refusals_of_one_organization_cost_another_nothing() {
    for error in [invalid(), refused()] {
        let shared = Arc::new(Shared::with(4, 48));
        shared.double.otherwise(Some(error));
        let start = Instant::now();
        while start.elapsed() < 30 * SECOND {
            for n in 0..120 {
                drop(shared.cache.get(of_organization(&format!("user-{n}"), "acme")));
            }
            advance(3 * SECOND).await;
            settle().await;
        }
        let calls = shared.double.calls();
        assert!(calls < 60, "{calls} calls for dead credentials in half a minute");
        shared.double.otherwise(None);
        let innocent = shared.page(of_organization("ada", "initech")).await.expect("a token");
        assert!(innocent < 2 * SECOND, "{innocent:?}");
        assert_eq!(shared.breaker_open(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn refusals_of_many_organizations_cost_another_nothing() {
    for organizations in [1, 2, 3, 7, 40] {
        let shared = Arc::new(Shared::with(4, 48));
        shared.double.otherwise(Some(refused()));
        shared.double.serve("initech");
        let ask = async || {
            for n in 0..120 {
                let organization = format!("organization-{}", n % organizations);
                drop(shared.cache.get(of_organization(&format!("user-{n}"), &organization)));
            }
            advance(3 * SECOND).await;
            settle().await;
        };
        for _ in 0..23 {
            ask().await;
        }
        let innocent = shared.page(of_organization("ada", "initech")).await.expect("a token");
        assert!(innocent < 2 * SECOND, "{innocent:?} with {organizations} organizations");
        let calls = shared.double.calls();
        for _ in 0..20 {
            ask().await;
        }
        let more = shared.double.calls() - calls;
        assert!(more <= 5 * organizations, "{more} calls in a minute");
        let second = shared.page(of_organization("bob", "initech")).await.expect("a token");
        assert!(second < 2 * SECOND, "{second:?} with {organizations} organizations");
    }
}

#[tokio::test(start_paused = true)]
async fn dead_credentials_cost_a_handful_of_calls() {
    for organizations in [1, 2, 3, 7, 97] {
        let shared = Shared::with(4, 48);
        shared.double.otherwise(Some(invalid()));
        let (mut n, mut minutes) = (0, Vec::new());
        for _ in 0..20 {
            let before = shared.double.calls();
            for _ in 0..60 * 20 {
                n += 1;
                let organization = (n % organizations).to_string();
                drop(shared.cache.get(of_organization(&n.to_string(), &organization)));
                if n % 20 == 0 {
                    advance(SECOND).await;
                    settle().await;
                }
            }
            minutes.push(shared.double.calls() - before);
        }
        assert!(minutes[0] <= 85, "{organizations} organizations: {minutes:?}");
        assert!(minutes[1..].iter().all(|calls| *calls <= 12), "{organizations}: {minutes:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_refused_user_alone_opens_no_breaker() {
    for error in [invalid(), refused(), unavailable()] {
        let shared = Shared::with(4, 48);
        shared.double.otherwise(Some(error.clone()));
        let start = Instant::now();
        while start.elapsed() < 1800 * SECOND {
            drop(shared.cache.get(request("ada")));
            advance(4 * SECOND).await;
            settle().await;
            assert_eq!(shared.breaker_open(), 0, "{error} after {:?}", start.elapsed());
            assert_eq!(shared.metrics.refusals_suspended.get(), 0, "{error}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn rate_limit_paces_the_key_and_serves_all() {
    let shared = Arc::new(Shared::with(4, 48));
    shared.double.at_most(20, SECOND, Some(SECOND));
    let last = shared.pages(200).await;
    assert!(last < 14 * SECOND, "{last:?}");
    assert_eq!(shared.breaker_open(), 0);
    assert_eq!(shared.metrics.mints.get(MintOutcome::Minted), 200);
}

#[tokio::test(start_paused = true)]
async fn long_retry_after_leaves_a_few_calls_and_is_told() {
    let shared = Arc::new(Shared::with(4, 48));
    let minute = Duration::from_secs(60);
    shared.double.otherwise(Some(MintError::RateLimited { retry_after: Some(minute) }));
    assert!(shared.page(request("first")).await.is_err());
    let (before, start) = (shared.double.calls(), Instant::now());
    let mut n = 0;
    while start.elapsed() < 5 * minute {
        n += 1;
        let result = shared.cache.get(request(&format!("user-{}", n % 53))).within(HOUR).await;
        let error = result.expect("the mint has ended").expect_err("limited");
        let MintError::RateLimited { retry_after: Some(wait) } = error else {
            panic!("{error:?}");
        };
        let since = *shared.double.came().last().expect("a call");
        let left = (since + minute).saturating_duration_since(Instant::now());
        assert!(wait.abs_diff(left) < SECOND, "told {wait:?} where {left:?} are left");
        advance(Duration::from_millis(330)).await;
    }
    let calls = shared.double.calls() - before;
    assert!((4..=25).contains(&calls), "{calls} calls in five minutes");
}

#[tokio::test(start_paused = true)]
async fn retry_after_of_zero_leaves_the_back_off() {
    for retry_after in [Some(Duration::ZERO), None] {
        let shared = Shared::with(4, 48);
        shared.double.otherwise(Some(MintError::RateLimited { retry_after }));
        let start = Instant::now();
        let mut n = 0;
        while start.elapsed() < 60 * SECOND {
            n += 1;
            drop(shared.cache.get(request(&format!("user-{n}"))));
            advance(Duration::from_millis(370)).await;
            settle().await;
        }
        let calls = shared.double.calls();
        assert!((4..=12).contains(&calls), "{calls} calls in a minute");
    }
}

#[tokio::test(start_paused = true)]
async fn newcomers_go_before_refreshes() {
    let shared = Arc::new(Shared::with(16, 16));
    for n in 0..2000 {
        shared
            .cache
            .get(request(&format!("user-{n}")))
            .within(HOUR)
            .await
            .expect("the mint has ended")
            .expect("a token");
    }
    shared.double.latency(Duration::from_millis(2100));
    advance(41 * HOUR).await;
    for second in 0..40 {
        for n in 0..2000 {
            drop(shared.cache.get(request(&format!("user-{n}"))));
        }
        let newcomer = shared.page(request(&format!("newcomer-{second}")));
        let waited = newcomer.await.expect("a token");
        assert!(waited < 4 * SECOND, "newcomer {second}: {waited:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn refresh_becomes_urgent_when_its_token_expires() {
    let shared = Arc::new(Shared::with(1, 1));
    shared.double.then(Ok(Duration::from_secs(400)));
    shared
        .cache
        .get(request("ada"))
        .within(HOUR)
        .await
        .expect("the mint has ended")
        .expect("a token");
    // The token is due and about to expire, while another user's call takes its time and refreshes
    // wait.
    advance(Duration::from_secs(338)).await;
    shared.double.latency(Duration::from_millis(2900));
    let other = shared.cache.get(request("grace"));
    assert!(matches!(shared.cache.get(request("ada")).within(SECOND).await, Ok(Ok(_))));
    advance(Duration::from_secs(3)).await;
    for n in 0..3 {
        drop(shared.cache.get(request(&format!("user-{n}"))));
    }
    let waited = shared.page(request("ada")).await.expect("a token");
    assert!(waited < 12 * SECOND, "{waited:?}");
    drop(other);
}

#[tokio::test(start_paused = true)]
async fn retries_of_one_moment_are_spread() {
    let shared = Shared::with(48, 48);
    shared.double.otherwise(Some(unavailable()));
    for n in 0..9 {
        drop(shared.cache.get(request(&format!("user-{n}"))));
    }
    let start = Instant::now();
    sleep(Duration::from_millis(201)).await;
    let retried: Vec<_> = shared.double.came().into_iter().skip(9).map(|at| at - start).collect();
    let (first, last) = (retried.iter().min(), retried.iter().max());
    let (first, last) = (*first.expect("retries"), *last.expect("retries"));
    assert!(first >= Duration::from_millis(100), "{first:?}");
    assert!(last.abs_diff(first) >= Duration::from_millis(30), "{first:?} to {last:?}");
}

#[tokio::test(start_paused = true)]
async fn suspension_is_remembered_no_longer_than_it_lasts() {
    let shared = Shared::with(4, 4);
    shared.double.otherwise(Some(unavailable()));
    let start = Instant::now();
    let mut n = 0;
    // Fails until a pause is longer than a mint waits.
    let pause = loop {
        n += 1;
        let result = shared.cache.get(request(&format!("user-{n}"))).within(HOUR).await;
        match result.expect("the mint has ended") {
            Err(MintError::Suspended { retry_after, .. }) => break retry_after,
            other => assert!(other.is_err(), "{other:?}"),
        }
        assert!(start.elapsed() < HOUR);
    };
    let (name, calls) = (format!("user-{n}"), shared.double.calls());
    advance(pause.checked_sub(Duration::from_millis(20)).expect("a long pause")).await;
    let again = shared.cache.get(request(&name)).within(Duration::ZERO).await;
    let Ok(Err(MintError::Suspended { retry_after, .. })) = again else {
        panic!("{:?}", again.err())
    };
    assert!(retry_after <= Duration::from_millis(20), "told {retry_after:?}");
    assert_eq!(shared.double.calls(), calls);
    shared.double.otherwise(None);
    advance(Duration::from_millis(20)).await;
    let result = shared.cache.get(request(&name)).within(HOUR).await.expect("the mint has ended");
    assert!(result.is_ok(), "{result:?}");
}

#[tokio::test(start_paused = true)]
async fn gauge_falls_when_the_pause_is_over_though_no_client_asks() {
    let shared = Shared::with(4, 48);
    shared.double.otherwise(Some(unavailable()));
    for n in 0..40 {
        drop(shared.cache.get(request(&format!("user-{n}"))));
        advance(Duration::from_millis(70)).await;
        settle().await;
    }
    assert_eq!(shared.breaker_open(), 1);
    advance(60 * SECOND).await;
    settle().await;
    advance(60 * SECOND).await;
    settle().await;
    assert_eq!(shared.breaker_open(), 0);
}

#[tokio::test(start_paused = true)]
async fn probe_that_tells_nothing_does_not_suspend_for_ever() {
    for silent in [unavailable(), MintError::RateLimited { retry_after: None }] {
        let shared = Arc::new(Shared::with(4, 48));
        shared.double.otherwise(Some(refused()));
        for n in 0..8 {
            let asked = shared.cache.get(request(&format!("user-{n}"))).within(HOUR).await;
            assert!(asked.expect("the mint has ended").is_err());
        }
        shared.admission.observe(&shared.metrics);
        assert_eq!(shared.metrics.refusals_suspended.get(), 1);
        // Failed probes of a minute say nothing about refusals; then Velt answers again.
        shared.double.otherwise(Some(silent.clone()));
        for n in 0..20 {
            drop(shared.cache.get(request(&format!("prober-{n}"))));
            advance(3 * SECOND).await;
            settle().await;
        }
        shared.double.otherwise(None);
        advance(60 * SECOND).await;
        let waited = shared.page(request("ada")).await.expect("a token");
        assert!(waited < SECOND, "after {silent}: {waited:?}");
    }
}

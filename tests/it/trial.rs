//! Trial mints (`[velt.trial]`): when they are made, what they displace, and where their tokens go.

use std::sync::Arc;
use std::time::Duration;

use ground::metrics::Metrics;
use token::cache::{Settings as CacheSettings, TokenCache};
use token::trial::{Settings, Trial};
use token::{Demand, Mint as _, MintError};
use tokio::time::{Instant, sleep};

use crate::config::{parse, tells};
use crate::support::Stage;
use crate::support::double::{Double, LIFE, plan, request, resilient};

const MINUTE: Duration = Duration::from_secs(60);

const DOWN: MintError =
    MintError::Unavailable { http_status: Some(503), retry_after: None, source: None };

fn settings(interval: Duration) -> Settings {
    Settings { user: "velt-sidecar-trial".into(), organization: None, interval }
}

/// Starts trial mints by `double`.
fn start(double: &Double, calls: usize, interval: Duration) -> (Arc<Trial>, Metrics) {
    let metrics = Metrics::new();
    let trial = Arc::new(Trial::new(metrics.trial.clone()));
    trial.set(Some(&settings(interval)), &plan(), Some(Arc::new(resilient(double, calls))));
    let running = Arc::clone(&trial);
    tokio::spawn(async move { running.run().await });
    (trial, metrics)
}

fn value(metrics: &Metrics, name: &str) -> f64 {
    let page = String::from_utf8(metrics.encode().expect("a page")).expect("text");
    let line = page.lines().find_map(|line| line.strip_prefix(&format!("velt_sidecar_{name} ")));
    line.expect("a series").parse().expect("a number")
}

#[tokio::test(start_paused = true)]
async fn trial_mints_come_at_their_interval_with_jitter() {
    let (double, begun) = (Double::default(), Instant::now());
    let _running = start(&double, 4, 7 * MINUTE);
    sleep(700 * MINUTE).await;
    let came = double.came();
    assert!(came[0] - begun <= MINUTE * 7 / 10, "{:?}", came[0] - begun);
    assert!((92..=112).contains(&came.len()), "{}", came.len());
    let waits: Vec<_> = came.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let bounds = MINUTE * 63 / 10..=MINUTE * 78 / 10;
    assert!(waits.iter().all(|wait| bounds.contains(wait)), "{waits:?}");
    assert!(waits.windows(2).any(|pair| pair[0] != pair[1]), "no two replicas keep in step");
}

#[tokio::test(start_paused = true)]
async fn failures_of_trial_mints_are_counted_in_a_row() {
    let double = Double::default();
    double.otherwise(Some(DOWN));
    let (_trial, metrics) = start(&double, 4, MINUTE);
    assert!(value(&metrics, "trial_last_success_timestamp_seconds").is_nan());
    sleep(MINUTE * 37 / 10).await;
    let failed = value(&metrics, "trial_mints_total{outcome=\"unavailable\"}");
    assert!((3.0..=5.0).contains(&failed), "{failed}");
    assert_eq!(value(&metrics, "trial_failures"), failed);
    double.otherwise(None);
    sleep(2 * MINUTE).await;
    assert_eq!(value(&metrics, "trial_failures"), 0.0);
    assert!(value(&metrics, "trial_mints_total{outcome=\"minted\"}") >= 1.0);
    assert!(value(&metrics, "trial_last_success_timestamp_seconds") > 1.0e9);
    assert_eq!(value(&metrics, "mints_total{outcome=\"minted\"}"), 0.0, "no user's mint");
}

#[tokio::test(start_paused = true)]
async fn trial_mint_waits_for_each_users_mint() {
    const CALLS: usize = 3;
    let double = Double::default();
    double.latency(Duration::from_secs(2));
    let mint = Arc::new(resilient(&double, CALLS));
    let cache = TokenCache::new(
        Arc::clone(&mint) as _,
        &CacheSettings { max_entries: 100, max_bytes: 1 << 20 },
        Metrics::new().tokens,
    );
    // Two of three calls are taken: the last one is not for a trial mint.
    let _users: Vec<_> = ["ada", "grace"].map(|user| cache.get(request(user))).into();
    sleep(Duration::from_millis(1)).await;
    let (trial, wanted) = (Arc::clone(&mint), request("velt-sidecar-trial"));
    let trial = tokio::spawn(async move { trial.mint(&wanted, &Demand::spare()).await });
    sleep(Duration::from_millis(300)).await;
    assert_eq!(double.calls(), 2, "the trial mint waits");
    // A third user comes after the trial mint, and goes first.
    let begun = Instant::now();
    let third = cache.get(request("linus")).within(MINUTE).await.expect("in time");
    assert!(third.is_ok() && begun.elapsed() <= Duration::from_millis(2001), "no wait for a turn");
    assert!(trial.await.expect("no panic").is_ok(), "its turn comes when calls are free");
    assert_eq!(double.calls(), 4);
}

#[tokio::test(start_paused = true)]
async fn users_have_all_calls_beside_a_trial_mint() {
    const CALLS: usize = 3;
    let double = Double::default();
    double.latency(Duration::from_secs(2));
    let mint = Arc::new(resilient(&double, CALLS));
    let (trial, wanted) = (Arc::clone(&mint), request("velt-sidecar-trial"));
    let trial = tokio::spawn(async move { trial.mint(&wanted, &Demand::spare()).await });
    sleep(Duration::from_millis(7)).await;
    assert_eq!(double.calls(), 1, "the trial mint's call is under way");
    let begun = Instant::now();
    let users = (0..CALLS).map(|n| {
        let (mint, wanted) = (Arc::clone(&mint), request(&format!("user-{n}")));
        tokio::spawn(async move { mint.mint(&wanted, &Demand::urgent()).await })
    });
    for user in users.collect::<Vec<_>>() {
        assert!(user.await.expect("no panic").is_ok());
    }
    assert!(begun.elapsed() <= Duration::from_millis(2001), "{:?}", begun.elapsed());
    assert_eq!(double.peak(), CALLS + 1);
    assert!(trial.await.expect("no panic").is_ok());
}

#[tokio::test(start_paused = true)]
async fn trial_mints_never_take_the_last_call() {
    let double = Double::default();
    let (_trial, metrics) = start(&double, 1, MINUTE);
    sleep(5 * MINUTE).await;
    assert_eq!(double.calls(), 0);
    assert!(value(&metrics, "trial_mints_total{outcome=\"queued\"}") >= 3.0);
    assert_eq!(value(&metrics, "trial_failures"), 0.0, "that shows nothing about Velt");
}

#[tokio::test(start_paused = true)]
async fn trial_mints_begin_and_end_with_the_settings() {
    let double = Double::default();
    let (trial, metrics) = start(&double, 4, MINUTE);
    sleep(MINUTE * 5 / 2).await;
    trial.set(None, &plan(), None);
    sleep(Duration::from_secs(1)).await;
    let so_far = double.calls();
    assert!(so_far >= 2);
    sleep(10 * MINUTE).await;
    assert_eq!(double.calls(), so_far);
    assert!(value(&metrics, "trial_last_success_timestamp_seconds").is_nan());
    let other = Double::default();
    trial.set(Some(&settings(MINUTE)), &plan(), Some(Arc::new(resilient(&other, 4))));
    sleep(MINUTE).await;
    assert!(other.calls() >= 1 && double.calls() == so_far, "by the new mint");
    // Another client alone changes no schedule: reloads must not add mints.
    let same = Double::default();
    for _ in 0..20 {
        trial.set(Some(&settings(MINUTE)), &plan(), Some(Arc::new(resilient(&same, 4))));
        sleep(Duration::from_millis(50)).await;
    }
    assert!(same.calls() <= 1, "{}", same.calls());
    assert!(LIFE > MINUTE);
}

#[tokio::test]
async fn token_of_a_trial_mint_is_served_to_no_request() {
    let stage = Stage::set("[velt.trial]\nuser = \"velt-sidecar-trial\"\ninterval = \"1m\"").await;
    // The first mint begins within six seconds.
    while stage.metric("trial_mints_total{outcome=\"minted\"}").await < 1.0 {
        sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(stage.velt.calls().len(), 1);
    assert_eq!(stage.metric("tokens_cached").await, 0.0);
    let asking = stage.client().get("/api/velt/token");
    let asked = asking.header("x-forwarded-user", "velt-sidecar-trial").send().await;
    assert_eq!((asked.status(), stage.velt.calls().len()), (200, 2), "minted anew");
}

#[test]
fn trial_settings_that_can_not_work_are_refused() {
    let line = |line: usize, rest: &str| format!("  sidecar.toml:{line}: velt.trial.{rest}");
    tells(
        parse("[velt.trial]\nuser = \"u\"\ninterval = \"59s\"", &[]),
        &line(
            3,
            "interval: each replica would call Velt more than once a minute\n    -> write \"1m\" or more",
        ),
    );
    tells(
        parse("[velt.trial]\norganization = \"o\"", &[]),
        &line(
            2,
            "organization: it has no effect without the user to mint for\n    \
             -> write user = \"velt-sidecar-trial\" in [velt.trial], or remove it",
        ),
    );
    tells(
        parse("[velt]\nmin_concurrent = 1\n[velt.trial]\nuser = \"u\"", &[]),
        &line(
            4,
            "user: its mint never takes the last call that may run at once, and so would never begin\n    \
             -> write min_concurrent = 2 or more in [velt], and max_concurrent too, or remove it",
        ),
    );
    let unnamed = "[velt]\napi = \"v2\"\n[velt.trial]\nuser = \"u\"\n[identity]\norganization_header = \"X-O\"";
    let error = parse(unnamed, &[]).expect_err("refused").to_string();
    assert!(error.contains("velt.trial.organization: it is missing"), "{error}");
}

//! Replicas that the network cuts off from the store, in silence or in one direction only.

use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, sleep};

use super::fleet::{Fleet, Home};
use super::network::{CUTS, Cut, Network};
use crate::neighbour::{claims_of, eventually};
use crate::pages::velt::user_of;
use crate::record::{milliseconds, record};
use crate::shared_store::servers::{Options, RedisServer};

/// Time that a request may take besides its wait for the store, because the machine may be busy.
const NOISE: Duration = Duration::from_millis(350);

/// Longest wait of a request for the store: `shared.patience`.
const PATIENCE: Duration = Duration::from_millis(50);

/// Longest time from the end of a cut until the replica has caught up: a pause between attempts to connect, three
/// seconds at most, an attempt that began during the cut, and a second for a forget.
const CATCH_UP: Duration = Duration::from_secs(5);

/// Longest time until another replica mints in place of one that is cut off: a lease of three seconds, and more
/// because the machine may be busy.
const LEASE_AND_MORE: Duration = Duration::from_secs(5);

/// Settings that let a request wait for its mint while the test holds the mint back.
const PATIENT: [(&str, &str); 2] = [
    ("VELT__ATTEMPT_TIMEOUT", "15s"),
    ("DELIVERY__ROUTE", r#"[{ path = "/api/velt/token", max_wait = "20s" }]"#),
];

/// A store and three replicas, each in a namespace of its own.
struct Scene {
    fleet: Fleet,
    _redis: RedisServer,
    network: Network,
}

impl Scene {
    /// `None` where this process may not make namespaces.
    async fn set() -> Option<Self> {
        let network = Network::make(3)?;
        let (namespace, address) = network.store();
        let host = address.to_string();
        let options = Options {
            host: Some(&host),
            namespace: Some(&namespace),
            settings: &["--protected-mode", "no"],
            ..Options::default()
        };
        let redis = RedisServer::start_with(&options).await;
        let replicas = network.replicas();
        let homes: Vec<Home<'_>> = replicas.iter().map(|(name, at)| (&**name, *at)).collect();
        let fleet = Fleet::start_apart(&redis.place(), network.here(), &homes, &PATIENT).await;
        Some(Self { fleet, _redis: redis, network })
    }
}

/// Times of requests at the cut-off replica.
#[derive(Default)]
struct Times(Vec<Duration>);

impl Times {
    /// Asks replica 0 for the token of `user`. A request that fails ends the test.
    async fn ask(&mut self, fleet: &Fleet, user: &str) -> String {
        let begun = Instant::now();
        let token = fleet.ask(0, user).await.token();
        self.0.push(begun.elapsed());
        token
    }

    fn slowest(&self) -> Duration {
        self.0.iter().max().copied().unwrap_or_default()
    }

    /// Returns the number of requests that took longer than `limit`.
    fn over(&self, limit: Duration) -> usize {
        self.0.iter().filter(|took| **took > limit).count()
    }
}

/// Waits until replica 0 is cut off or is not, by its own word. Asks for tokens meanwhile: for Ada's, which is in
/// memory and must stay `held`, and for those of users who come for the first time.
async fn asks_until(
    fleet: &Fleet,
    cut_off: bool,
    held: Option<&str>,
    times: &mut Times,
    label: &str,
) {
    let begun = Instant::now();
    let mut number = 0;
    loop {
        let metric = fleet.replicas[0].metric("shared_cut_off").await.expect("a series");
        if (metric > 0.5) == cut_off {
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(25), "{label}: it stays {metric}");
        let token = times.ask(fleet, "ada").await;
        if held.is_some_and(|held| held != token) {
            let number = |token: &str| claims_of(token)["n"].clone();
            panic!(
                "{label}, after {:?}: token {} in place of {}; {}",
                begun.elapsed(),
                number(&token),
                number(held.unwrap_or_default()),
                fleet.replicas[0].metrics().await
            );
        }
        times.ask(fleet, &format!("{label}-{number}")).await;
        number += 1;
        sleep(Duration::from_millis(37)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cut_off_replica_serves_on_and_catches_up() {
    let Some(scene) = Scene::set().await else { return };
    for how in CUTS {
        is_cut_off_and_catches_up(&scene, how).await;
    }
}

/// Ada comes all the time. Eve stands still: she comes only before the cut and after it.
async fn is_cut_off_and_catches_up(scene: &Scene, how: Cut) {
    let fleet = &scene.fleet;
    let mut before = Times::default();
    for number in 0..13 {
        before.ask(fleet, &format!("{how:?}-before-{number}")).await;
    }
    let (eve, ada) = (settled(fleet, "eve").await, settled(fleet, "ada").await);
    scene.network.cut(0, how);
    let cut = Instant::now();
    for user in ["ada", "eve"] {
        assert_eq!(fleet.forget(1, &json!({ "user": user })).await, "told", "{how:?}");
    }
    // The answer to a read that has begun still arrives where packets are lost on their way to the store only.
    let held = (how != Cut::FromReplica).then_some(&*ada);
    let mut times = Times::default();
    asks_until(fleet, true, held, &mut times, &format!("{how:?}-cut")).await;
    let noticed = cut.elapsed();
    for number in 0..13 {
        let token = times.ask(fleet, "ada").await;
        assert!(held.is_none_or(|held| held == token), "{how:?}: held while the store is away");
        times.ask(fleet, &format!("{how:?}-off-{number}")).await;
    }
    scene.network.heal(0, how);
    let healed = Instant::now();
    asks_until(fleet, false, None, &mut times, &format!("{how:?}-healed")).await;
    let back = healed.elapsed();
    // Eve's first request comes as soon as the replica says that it hears of forgets.
    assert_ne!(fleet.ask(0, "eve").await.token(), eve, "{how:?}: forgotten");
    eventually("no old token of Ada's", async || {
        let tokens = fleet.ask_all("ada").await;
        if tokens.contains(&ada) { Err(format!("{tokens:?}")) } else { Ok(()) }
    })
    .await;
    let caught_up = healed.elapsed();
    println!(
        "{how:?}: {} requests at the cut-off replica, none failed, the slowest {:?} (before the cut {:?}); \
         noticed after {noticed:?}, hears again after {back:?}, caught up after {caught_up:?}",
        times.0.len(),
        times.slowest(),
        before.slowest()
    );
    let figures = json!({
        "requests": times.0.len(),
        "slowest_ms": milliseconds(times.slowest()),
        "noticed_ms": milliseconds(noticed),
        "caught_up_ms": milliseconds(caught_up),
    });
    record("partitions", &format!("{how:?}"), &figures);
    // One request in ten may have waited for the machine.
    let limit = before.slowest() + PATIENCE + NOISE;
    assert!(times.over(limit) <= times.0.len() / 10, "{how:?}: {:?}", times.0);
    assert!(caught_up < CATCH_UP, "{how:?}: {caught_up:?}");
}

/// Waits until all replicas serve the same token of `user`, and nothing is left to write. On a busy machine, a replica
/// may mint for itself first.
async fn settled(fleet: &Fleet, user: &str) -> String {
    eventually("one token on all replicas", async || {
        let tokens = fleet.ask_all(user).await;
        let unwritten = fleet.sum("shared_unwritten").await;
        let is_one = tokens.iter().all(|token| *token == tokens[0]);
        if is_one && unwritten == 0 { Ok(tokens[0].clone()) } else { Err(format!("{tokens:?}")) }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lease_of_a_cut_off_replica_is_taken_over() {
    let Some(scene) = Scene::set().await else { return };
    for how in [Cut::Silent, Cut::ToReplica, Cut::FromReplica] {
        is_cut_off_while_it_mints(&scene, how).await;
        scene.network.heal(0, how);
        scene.fleet.all_hear().await;
    }
}

/// Velt holds back the mint of one user at the replica that is cut off. Another user's requests go on.
async fn is_cut_off_while_it_mints(scene: &Scene, how: Cut) {
    let (fleet, held) = (&scene.fleet, format!("held-{how:?}"));
    let calls = || fleet.velt.calls().iter().filter(|call| call.user() == held).count();
    fleet.velt.close_gate_for(&held);
    let others = async {
        eventually(
            "the first call",
            async || if calls() > 0 { Ok(()) } else { Err(String::new()) },
        )
        .await;
        scene.network.cut(0, how);
        let (cut, mut times, mut number) = (Instant::now(), Times::default(), 0);
        // The second call is that of another replica, because the first replica does not try again so early.
        while calls() < 2 && cut.elapsed() < LEASE_AND_MORE {
            times.ask(fleet, &format!("{how:?}-other-{number}")).await;
            number += 1;
            sleep(Duration::from_millis(31)).await;
        }
        let taken_over = cut.elapsed();
        fleet.velt.open_gate();
        println!(
            "{how:?}: lease taken over after {taken_over:?}; {number} others, slowest {:?}",
            times.slowest()
        );
        let figures = json!({
            "requests": times.0.len(),
                "slowest_ms": milliseconds(times.slowest()),
            "taken_over_ms": milliseconds(taken_over),
        });
        record("leases", &format!("{how:?}"), &figures);
        assert!(taken_over < LEASE_AND_MORE, "{how:?}: the lease is not taken over");
        assert!(times.over(PATIENCE + NOISE) <= times.0.len() / 10, "{how:?}: {:?}", times.0);
    };
    let second = async {
        eventually(
            "the first call",
            async || if calls() > 0 { Ok(()) } else { Err(String::new()) },
        )
        .await;
        fleet.ask(1, &held).await.token()
    };
    let (first, second, ()) = tokio::join!(fleet.ask(0, &held), second, others);
    assert_eq!((user_of(&first.token()), user_of(&second)), (held.clone(), held.clone()));
    assert_eq!(calls(), 2, "{how:?}");
}

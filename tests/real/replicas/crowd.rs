//! Many users who ask all replicas for tokens at once.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::json;
use tokio::sync::Mutex;

use super::fleet::{Asked, Fleet};
use crate::pages::velt::user_of;
use crate::record::record;
use crate::shared_store::servers::{RedisServer, SentinelGroup};

/// Returns the number of users, and of requests of each user to each replica. `VELT_SIDECAR_CROWD` sets the number of
/// users: `tests/run --long` has 1,000, with an optimized build, since two cores that run five replicas without
/// optimization can't answer so many in the time for which a replica waits for another.
fn size() -> (usize, usize) {
    let users = std::env::var("VELT_SIDECAR_CROWD").ok();
    users.map_or((103, 2), |users| (users.parse().expect("a number of users"), 4))
}

/// Settings that let a request wait for its mint even on a busy machine.
const PATIENT: [(&str, &str); 3] = [
    ("VELT__ATTEMPT_TIMEOUT", "15s"),
    ("DELIVERY__ROUTE", ROUTES),
    // Five replicas of a build without optimization take more than the default of 50 ms to read an answer.
    ("SHARED__PATIENCE", "500ms"),
];

const ROUTES: &str = r#"[{ path = "/api/velt/token", max_wait = "20s" }]"#;

/// Checks that each answer has a token of its own user. Returns how often a user got another token than before.
fn check(answers: Vec<(String, Asked)>) -> usize {
    let mut tokens: HashMap<String, String> = HashMap::new();
    let mut several = 0;
    for (user, asked) in answers {
        let token = asked.token();
        assert_eq!(user_of(&token), user);
        if tokens.insert(user, token.clone()).is_some_and(|before| before != token) {
            several += 1;
        }
    }
    several
}

/// Records the requests of a crowd, those without a token, and the mints.
fn tell(name: &str, users: usize, answers: &[(String, Asked)], mints: usize) {
    let failed = answers.iter().filter(|(_, asked)| !matches!(asked, Asked::Token(_))).count();
    let figures = json!({ "users": users, "replicas": 5, "requests": answers.len(),
        "failed": failed, "mints": mints });
    record("crowds", name, &figures);
}

/// Held by a crowd: two at once would measure each other.
static ALONE: Mutex<()> = Mutex::const_new(());

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cold_users_on_five_replicas_cost_a_mint_each() {
    let _alone = ALONE.lock().await;
    let (users, times) = size();
    let redis = RedisServer::start().await;
    let fleet = Fleet::start(5, &redis.place(), &PATIENT).await;
    fleet.velt.answer_after(Duration::from_millis(53));
    fleet.velt.close_gate();
    let (answers, ()) = tokio::join!(fleet.ask_at_once(users, times), async {
        fleet.all_wait(users).await;
        fleet.velt.open_gate();
    });
    tell("all users are new", users, &answers, fleet.velt.call_count());
    let several = check(answers);
    assert_eq!((fleet.velt.call_count(), several), (users, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn primary_that_dies_costs_few_mints_and_no_request() {
    let _alone = ALONE.lock().await;
    let (users, times) = size();
    let mut group = SentinelGroup::start().await;
    let fleet = Fleet::start(5, &group.place(), &PATIENT).await;
    fleet.velt.answer_after(Duration::from_millis(53));
    // All requests have come, and each replica knows who mints, before the first token is there.
    fleet.velt.close_gate();
    let (answers, ()) = tokio::join!(fleet.ask_at_once(users, times), async {
        fleet.all_wait(users).await;
        fleet.velt.open_gate();
        fleet.velt.calls_reach(users / 2).await;
        group.servers[0].kill();
    });
    let calls = fleet.velt.call_count();
    tell("the store's primary dies", users, &answers, calls);
    check(answers);
    println!("{users} users, {calls} mints");
    assert!(calls >= users && calls <= users + users / 20, "{calls} mints for {users} users");
    group.is_primary(1).await;
    fleet.all_hear().await;
    let word = fleet.forget(0, &serde_json::json!({ "user": "user-1" })).await;
    assert_eq!(word, "told", "by the new primary");
}

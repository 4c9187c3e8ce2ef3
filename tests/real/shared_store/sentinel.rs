//! A primary that Sentinels replace.

use std::time::Duration;

use redis::Value;
use shared::store::{Fault, Place, State};
use tokio::time::{Instant, sleep, timeout};

use super::servers::{Options, SentinelGroup, Version};
use super::{IN_TIME, LEISURE, Subject, bulk, get, set};
use crate::neighbour::eventually;

/// Longest time without a store at a failover: half a second until the Sentinels take the primary for down, a
/// second or two for their election, a second for the role of the new primary.
const FAILOVER: Duration = Duration::from_secs(12);

/// Starts a group, and a store that has written an entry that the replica has too.
async fn started(version: Version) -> (SentinelGroup, Subject) {
    let group = SentinelGroup::start_with(&Options { version, ..Options::default() }).await;
    let subject = Subject::connected(group.place()).await;
    assert_eq!(subject.call(set("key", "value")).await, Ok(Value::Okay));
    eventually("the write to be copied", async || {
        let copied = group.servers[1].ask(&["GET", "key"]).await;
        if copied == bulk("value") { Ok(()) } else { Err(format!("{copied:?}")) }
    })
    .await;
    (group, subject)
}

/// Calls until the new primary answers. Each call costs no more than its time.
async fn follows(subject: &Subject) {
    let started = Instant::now();
    loop {
        let asked = Instant::now();
        let called = subject.call_in_haste(set("probe", "1")).await;
        assert!(asked.elapsed() < IN_TIME, "{:?}", asked.elapsed());
        if called.is_ok() {
            break;
        }
        assert!(started.elapsed() < FAILOVER, "{called:?}");
        sleep(Duration::from_millis(7)).await;
    }
    assert_eq!(subject.call(get("key")).await, Ok(bulk("value")));
}

#[tokio::test]
async fn store_follows_the_primary() {
    let all =
        (killed(Version::Debian), killed(Version::Oldest), stalled(), moved_without_a_fault());
    tokio::join!(all.0, all.1, all.2, all.3);
}

async fn killed(version: Version) {
    let (mut group, subject) = started(version).await;
    let mut listener = subject.store.listener().await.expect("a connection");
    // With one Sentinel of three gone, the others elect.
    group.kill_sentinels(0..1);
    group.servers[0].kill();
    subject.state_is("a lost primary", |state| state != State::Connected).await;
    follows(&subject).await;
    let answer = listener.call(get("key"), LEISURE).await;
    assert_eq!(answer, Ok(bulk("value")), "the listener has moved as well");

    // The primary of before comes back empty, and as a primary until the Sentinels have told it.
    group.servers[0].restart().await;
    for _ in 0..20 {
        assert_eq!(subject.call(get("key")).await, Ok(bulk("value")));
        sleep(Duration::from_millis(11)).await;
    }

    let Place::Sentinel { sentinels, .. } = group.place() else { panic!("it is") };
    let other = Subject::at(Place::Sentinel { sentinels, primary: "other".to_owned() });
    other.is_refused(Fault::NoPrimary).await;
}

/// A primary whose sockets stay open, and never answer.
async fn stalled() {
    let (group, subject) = started(Version::Debian).await;
    group.servers[0].stall();
    subject.state_is("a ping in vain", |state| state != State::Connected).await;
    follows(&subject).await;
    group.servers[0].resume();
    assert_eq!(subject.call(get("key")).await, Ok(bulk("value")));
}

/// A failover by an operator. The primary of before serves on for about eight seconds, until the Sentinels make it a
/// replica; the store has left it long before.
async fn moved_without_a_fault() {
    let (group, subject) = started(Version::Debian).await;
    group.fail_over().await;
    timeout(FAILOVER, group.is_primary(1)).await.expect("a failover");
    group.servers[1].ask(&["SET", "key", "newer"]).await;
    let moved =
        eventually("an answer of the new primary", async || match subject.call(get("key")).await {
            Ok(answer) if answer == bulk("newer") => Ok(()),
            other => Err(format!("{other:?}")),
        });
    timeout(Duration::from_secs(4), moved).await.expect("a store that follows");
    assert_eq!(subject.call(set("key", "newest")).await, Ok(Value::Okay));
    assert_eq!(group.servers[1].ask(&["GET", "key"]).await, bulk("newest"));
}

//! A primary that Sentinels replace.

use std::time::Duration;

use redis::Value;
use shared::store::{Fault, Place};
use tokio::time::Instant;

use super::servers::SentinelGroup;
use super::{Subject, bulk, get, set};
use crate::neighbour::eventually;

#[tokio::test]
async fn store_follows_the_primary() {
    let mut group = SentinelGroup::start().await;
    let subject = Subject::connected(group.place()).await;
    assert_eq!(subject.call(set("key", "value")).await, Ok(Value::Okay));
    eventually("the write to be copied", async || {
        let copied = group.servers[1].ask(&["GET", "key"]).await;
        if copied == bulk("value") { Ok(()) } else { Err(format!("{copied:?}")) }
    })
    .await;
    let mut listener = subject.store.listener().await.expect("a connection");

    // With one Sentinel of three gone, the others elect.
    group.kill_sentinels(0..1);
    group.servers[0].kill();
    let started = Instant::now();
    subject.is_back().await;
    let took = started.elapsed();
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert_eq!(subject.call(get("key")).await, Ok(bulk("value")));
    let answer = listener.call(get("key"), Duration::from_secs(1)).await;
    assert_eq!(answer, Ok(bulk("value")), "the listener has moved as well");

    // The primary of before comes back as one until the Sentinels have told it. It is not used.
    group.servers[0].restart().await;
    for _ in 0..20 {
        assert_eq!(subject.call(get("key")).await, Ok(bulk("value")));
        tokio::time::sleep(Duration::from_millis(11)).await;
    }

    let Place::Sentinel { sentinels, .. } = group.place() else { panic!("it is") };
    let other = Subject::at(Place::Sentinel { sentinels, primary: "other".to_owned() });
    other.is_refused(Fault::NoPrimary).await;
}

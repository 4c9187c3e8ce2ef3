//! Calls that block, on a connection of their own.

use std::time::Duration;

use redis::{Cmd, Value, cmd};
use shared::store::{Fault, Place};
use tokio::time::{Instant, timeout};

use super::servers::{Options, RedisServer, Version};
use super::{LEISURE, PATIENCE, Subject, get};

/// Longest time that a read blocks.
const BLOCK: Duration = Duration::from_millis(700);

fn read_after(id: &str) -> Cmd {
    let mut command = cmd("XREAD");
    command.arg("BLOCK").arg(BLOCK.as_millis()).arg("STREAMS").arg("events").arg(id);
    command
}

fn add(value: &str) -> Cmd {
    let mut command = cmd("XADD");
    command.arg("events").arg("*").arg("kind").arg(value);
    command
}

with_each_version!(blocked_read_holds_up_no_call_and_hears_the_event);

async fn blocked_read_holds_up_no_call_and_hears_the_event(version: Version) {
    let server = RedisServer::start_with(&Options { version, ..Options::default() }).await;
    hears(server.place()).await;
}

/// Hears an event at a place, while other calls are answered.
pub async fn hears(place: Place) {
    let subject = Subject::connected(place).await;
    let mut listener = subject.store.listener().await.expect("a connection");
    let within = BLOCK + LEISURE;
    assert_eq!(listener.call(read_after("$"), within).await, Ok(Value::Nil), "no event in time");
    let hearing = tokio::spawn(async move {
        let heard = listener.call(read_after("$"), within).await;
        (heard, Instant::now(), listener)
    });
    let mut written = Instant::now();
    for _ in 0..20 {
        written = Instant::now();
        assert_eq!(subject.call(get("key")).await, Ok(Value::Nil));
        tokio::time::sleep(Duration::from_millis(7)).await;
    }
    subject.call(add("forget")).await.expect("added");
    let (heard, at, mut listener) = hearing.await.expect("no panic");
    assert!(format!("{heard:?}").contains("events"), "{heard:?}");
    assert!(at - written < BLOCK, "{:?}", at - written);
    let again = listener.call(read_after("0"), within).await;
    assert_eq!(again, heard, "the event stays in the stream");
}

#[tokio::test]
async fn listener_connects_again_after_a_fault() {
    let mut server = RedisServer::start().await;
    let subject = Subject::connected(server.place()).await;
    let mut listener = subject.store.listener().await.expect("a connection");
    server.stall();
    let stalled = listener.call(read_after("$"), PATIENCE).await;
    assert_eq!(stalled, Err(Fault::Timeout));
    server.kill();
    let gone = timeout(BLOCK, listener.call(read_after("$"), BLOCK)).await.expect("at once");
    assert!(matches!(gone, Err(Fault::Broken | Fault::NotConnected)), "{gone:?}");
    server.restart().await;
    subject.is_back().await;
    subject.call(add("forget")).await.expect("added");
    let heard = listener.call(read_after("0"), LEISURE).await.expect("an event");
    assert!(format!("{heard:?}").contains("forget"), "{heard:?}");
}

//! A cluster: keys on every node, slots that move, a node that dies.

use std::time::Duration;

use redis::Value;
use shared::store::{Fault, Place, State};
use tokio::time::Instant;

use super::listening;
use super::servers::{Cluster, Options, RedisServer, Version};
use super::{AT_ONCE, LEISURE, Subject, bulk, get, set};

/// Slot of a key, as the cluster computes it.
async fn slot_of(cluster: &Cluster, key: &str) -> u16 {
    let slot = cluster.nodes[0].ask(&["CLUSTER", "KEYSLOT", key]).await;
    redis::from_redis_value(slot).expect("a number")
}

/// Returns a key with a slot of this node.
pub async fn key_on(cluster: &Cluster, node: usize) -> String {
    for number in 0..1_000 {
        let key = format!("velt:t:{number}");
        if usize::from(slot_of(cluster, &key).await) * 3 / 16_384 == node {
            return key;
        }
    }
    panic!("a third of the keys are on a node")
}

with_each_version!(cluster_serves_while_slots_move_and_a_node_dies);

/// One test for all, since a new cluster takes two seconds.
async fn cluster_serves_while_slots_move_and_a_node_dies(version: Version) {
    let mut cluster = Cluster::start_with(&Options { version, ..Options::default() }).await;
    keys_are_found_on_every_node(&cluster).await;
    moved_slot_is_followed(&cluster).await;
    slot_on_its_way_is_asked_for(&cluster).await;
    listening::hears(cluster.place()).await;
    node_taken_for_a_server_is_told_apart(&cluster).await;
    dead_node_costs_only_its_own_keys(&mut cluster).await;
}

async fn keys_are_found_on_every_node(cluster: &Cluster) {
    // One address is enough.
    let Place::Cluster(mut seeds) = cluster.place() else { panic!("it is") };
    seeds.truncate(1);
    writes_on_every_node(&Subject::connected(Place::Cluster(seeds)).await, cluster).await;
}

/// Writes and reads keys of every node.
pub async fn writes_on_every_node(subject: &Subject, cluster: &Cluster) {
    let keys: Vec<String> = (0..90).map(|number| format!("velt:t:{number}")).collect();
    let writes = keys.iter().map(|key| set(key, key)).collect();
    let written = subject.store.call(writes, LEISURE).await;
    assert_eq!(written, Ok(vec![Value::Okay; 90]));
    let reads = keys.iter().map(|key| get(key)).collect();
    let expected = keys.iter().map(|key| bulk(key)).collect();
    assert_eq!(subject.store.call(reads, LEISURE).await, Ok(expected));
    for node in &cluster.nodes {
        let size: u64 = redis::from_redis_value(node.ask(&["DBSIZE"]).await).expect("a number");
        assert!(size > 10, "{size}");
    }
    let facts = subject.store.inspect().await.expect("facts");
    assert!(facts.is_cluster);
}

async fn moved_slot_is_followed(cluster: &Cluster) {
    let subject = Subject::connected(cluster.place()).await;
    follows_a_moved_slot(&subject, cluster, "moved").await;
}

/// Writes a key that ends in `name` just after its slot has moved to another node.
pub async fn follows_a_moved_slot(subject: &Subject, cluster: &Cluster, name: &str) {
    let moved = format!("velt:{name}");
    let slot = slot_of(cluster, &moved).await;
    let owner = usize::from(slot) * 3 / 16_384;
    let to = (owner + 1) % 3;
    assert_eq!(subject.call(get(&moved)).await, Ok(Value::Nil));
    cluster.move_slot(slot, owner, to).await;
    assert_eq!(subject.call(set(&moved, "there")).await, Ok(Value::Okay), "followed at once");
    assert_eq!(cluster.nodes[to].ask(&["GET", &moved]).await, bulk("there"));
}

async fn slot_on_its_way_is_asked_for(cluster: &Cluster) {
    let subject = Subject::connected(cluster.place()).await;
    let key = key_on(cluster, 1).await;
    let slot = slot_of(cluster, &key).await.to_string();
    let id = async |node: usize| -> String {
        redis::from_redis_value(cluster.nodes[node].ask(&["CLUSTER", "MYID"]).await).expect("an id")
    };
    let (from, to) = (id(1).await, id(2).await);
    cluster.nodes[2].ask(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from]).await;
    cluster.nodes[1].ask(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to]).await;
    assert_eq!(subject.call(set(&key, "value")).await, Ok(Value::Okay));
    assert_eq!(subject.call(get(&key)).await, Ok(bulk("value")));
}

async fn dead_node_costs_only_its_own_keys(cluster: &mut Cluster) {
    let subject = Subject::connected(cluster.place()).await;
    let (dead, living) = (key_on(cluster, 2).await, key_on(cluster, 0).await);
    cluster.nodes[2].kill();
    subject.state_is("a lost node", |state| state != State::Connected).await;
    let started = Instant::now();
    let mut calls = 0;
    while started.elapsed() < Duration::from_millis(1_300) {
        assert_eq!(subject.call(set(&living, "value")).await, Ok(Value::Okay));
        let asked = Instant::now();
        assert_eq!(subject.call(get(&dead)).await, Err(Fault::NotConnected));
        assert!(asked.elapsed() < AT_ONCE, "{:?}", asked.elapsed());
        calls += 1;
    }
    assert!(calls > 10, "{calls}");
    assert_eq!(subject.metrics.connected.get(), 0, "not all nodes are");
}

async fn node_taken_for_a_server_is_told_apart(cluster: &Cluster) {
    let subject = Subject::connected(cluster.nodes[0].place()).await;
    let key = key_on(cluster, 1).await;
    assert_eq!(subject.call(get(&key)).await, Err(Fault::Other("MOVED")));
}

#[tokio::test]
async fn server_taken_for_a_cluster_is_told_apart() {
    let server = RedisServer::start().await;
    let subject = Subject::at(Place::Cluster(vec![server.address()]));
    subject.is_refused(Fault::Other("ERR")).await;
    assert_eq!(subject.call(get("key")).await, Err(Fault::NotConnected));
}

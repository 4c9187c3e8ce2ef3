//! Addresses of IPv6, and the ways in which a cluster names its nodes.

use std::net::{Ipv6Addr, TcpListener};

use redis::Value;
use shared::store::Place;

use super::cluster::{follows_a_moved_slot, writes_on_every_node};
use super::servers::{Cluster, Options, RedisServer, SentinelGroup};
use super::{Subject, bulk, get, listening, set};
use crate::neighbour::eventually;
use crate::record::left_out;

/// Whether this machine has IPv6. Says so if it has not, because the test is then left out.
pub fn has_ipv6() -> bool {
    let has = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok();
    if !has {
        left_out("this machine has no IPv6");
    }
    has
}

/// Listens on IPv6 alone.
const SIX: Options<'_> = Options { host: Some("::1"), ..Options::DEFAULT };

#[tokio::test]
async fn server_is_reached_over_ipv6() {
    if !has_ipv6() {
        return;
    }
    let server = RedisServer::start_with(&SIX).await;
    assert_eq!(server.address().to_string(), format!("[::1]:{}", server.port));
    let subject = Subject::connected(server.place()).await;
    assert_eq!(subject.call(set("key", "value")).await, Ok(Value::Okay));
}

#[tokio::test]
async fn primary_that_sentinels_name_by_ipv6_is_followed() {
    if !has_ipv6() {
        return;
    }
    let group = SentinelGroup::start_with(&SIX).await;
    let subject = Subject::connected(group.place()).await;
    assert_eq!(subject.call(set("key", "value")).await, Ok(Value::Okay));
    group.fail_over().await;
    group.is_primary(1).await;
    group.servers[1].ask(&["SET", "key", "newer"]).await;
    eventually("an answer of the new primary", async || {
        let answer = subject.call(get("key")).await;
        if answer == Ok(bulk("newer")) { Ok(()) } else { Err(format!("{answer:?}")) }
    })
    .await;
}

#[tokio::test]
async fn cluster_over_ipv6_is_followed_however_it_names_its_nodes() {
    if !has_ipv6() {
        return;
    }
    let cluster = Cluster::start_with(&SIX).await;
    let subject = Subject::connected(cluster.place()).await;
    writes_on_every_node(&subject, &cluster).await;
    follows_a_moved_slot(&subject, &cluster, "moved").await;
    listening::hears(cluster.place()).await;
    // The answer to `CLUSTER SLOTS` and the redirections then have no host: a client takes the one that it asked.
    for node in &cluster.nodes {
        let setting = ["cluster-preferred-endpoint-type", "unknown-endpoint"];
        node.ask(&["CONFIG", "SET", setting[0], setting[1]]).await;
    }
    let Place::Cluster(seeds) = cluster.place() else { panic!("it is") };
    let subject = Subject::connected(Place::Cluster(seeds[2..].to_vec())).await;
    writes_on_every_node(&subject, &cluster).await;
    follows_a_moved_slot(&subject, &cluster, "again").await;
}

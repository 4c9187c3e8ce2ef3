//! TLS with Sentinels and in a cluster: which certificates are accepted, and that another costs no call its time.

use ground::tls::Roots;
use redis::Value;
use shared::store::{Address, Fault, Place, Settings, State};
use tokio::time::Instant;

use super::cluster::{follows_a_moved_slot, writes_on_every_node};
use super::families::has_ipv6;
use super::servers::{Cluster, Options, RedisServer, SentinelGroup, Tls};
use super::{AT_ONCE, Subject, get, set, settings};
use crate::certificates::{Authority, Folder};

/// Name under which no server is reached.
const ELSEWHERE: [&str; 1] = ["elsewhere.example"];

/// An authority, and its certificate in a file.
struct Trust {
    authority: Authority,
    roots: Roots,
    _folder: Folder,
}

impl Trust {
    fn new() -> Self {
        let (authority, folder) = (Authority::new(), Folder::new());
        let roots = Roots::File(folder.write("ca.crt", authority.pem()).into());
        Self { authority, roots, _folder: folder }
    }

    fn certify<'a>(&'a self, names: &'a [&'a str]) -> Tls<'a> {
        Tls { authority: &self.authority, names }
    }

    /// Starts a store whose servers this authority vouches for.
    fn store_at(&self, place: Place) -> Subject {
        Subject::with(Settings { tls: Some(self.roots.clone()), ..settings(place) })
    }
}

/// Checks that a call fails at once, and for want of a connection.
async fn fails_at_once(subject: &Subject) {
    let asked = Instant::now();
    assert_eq!(subject.call_in_haste(get("key")).await, Err(Fault::NotConnected));
    assert!(asked.elapsed() < AT_ONCE, "{:?}", asked.elapsed());
}

fn by_name(server: &RedisServer) -> Address {
    Address::Tcp { host: "localhost".to_owned(), port: server.port }
}

#[tokio::test]
async fn sentinels_and_the_primary_each_need_a_certificate() {
    let (trust, stranger) = (Trust::new(), Trust::new());
    let fitting = Tls::of(&trust.authority);
    let options = Options { tls: Some(fitting), ..Options::default() };
    let group = SentinelGroup::start_with(&options).await;
    stranger.store_at(group.place()).is_refused(Fault::Untrusted).await;
    let subject = trust.store_at(group.place());
    subject.is_connected().await;
    assert_eq!(subject.call(set("key", "value")).await, Ok(Value::Okay));
    // A certificate of the same authority, which has another name.
    group.servers[0].present(&trust.certify(&ELSEWHERE)).await;
    subject.is_refused(Fault::Untrusted).await;
    fails_at_once(&subject).await;
    // Sentinels compare no names, so that the primary stays the primary until an operator says otherwise.
    group.fail_over().await;
    group.is_primary(1).await;
    subject.is_connected().await;
    assert_eq!(subject.call(set("key", "value")).await, Ok(Value::Okay));
    // A primary whose certificate fits, behind Sentinels whose own does not.
    let options = Options { tls: Some(trust.certify(&ELSEWHERE)), ..Options::default() };
    let group = SentinelGroup::start_with(&options).await;
    for server in &group.servers {
        server.present(&fitting).await;
    }
    trust.store_at(group.place()).is_refused(Fault::Untrusted).await;
}

#[tokio::test]
async fn primary_that_sentinels_announce_by_name_needs_that_name() {
    let trust = Trust::new();
    let tls = Some(trust.certify(&["localhost"]));
    let options = Options { host: Some("localhost"), tls, ..Options::default() };
    let group = SentinelGroup::start_with(&options).await;
    let subject = trust.store_at(group.place());
    subject.is_connected().await;
    assert_eq!(subject.call(set("key", "value")).await, Ok(Value::Okay));
    group.servers[0].present(&trust.certify(&["127.0.0.1"])).await;
    subject.is_refused(Fault::Untrusted).await;
}

#[tokio::test]
async fn nodes_of_a_cluster_need_the_name_that_they_announce() {
    let trust = Trust::new();
    let settings = [
        "--cluster-announce-hostname",
        "localhost",
        "--cluster-preferred-endpoint-type",
        "hostname",
    ];
    let tls = Some(trust.certify(&["localhost"]));
    let options = Options { settings: &settings, tls, ..Options::default() };
    let cluster = Cluster::start_with(&options).await;
    let seeds: Vec<Address> = cluster.nodes.iter().map(by_name).collect();
    let subject = trust.store_at(Place::Cluster(seeds.clone()));
    subject.is_connected().await;
    writes_on_every_node(&subject, &cluster).await;
    follows_a_moved_slot(&subject, &cluster, "moved").await;
    // The nodes announce an address that is not in their certificates.
    for node in &cluster.nodes {
        node.ask(&["CONFIG", "SET", "cluster-preferred-endpoint-type", "ip"]).await;
    }
    let subject = trust.store_at(Place::Cluster(seeds.clone()));
    subject.is_refused(Fault::Untrusted).await;
    fails_at_once(&subject).await;
    // The certificate of one node then has the address, and keys of that node are served again.
    cluster.nodes[0].present(&Tls::of(&trust.authority)).await;
    let key = super::cluster::key_on(&cluster, 0).await;
    crate::neighbour::eventually("an answer of the node", async || {
        subject.call(get(&key)).await.map(drop).map_err(|fault| fault.to_string())
    })
    .await;
    assert_ne!(subject.store.state(), State::Connected, "not all nodes are");
}

#[tokio::test]
async fn certificate_for_an_address_of_ipv6_is_checked() {
    if !has_ipv6() {
        return;
    }
    let trust = Trust::new();
    let six = ["::1"];
    let tls = Some(trust.certify(&six));
    let options = Options { host: Some("::1"), tls, ..Options::default() };
    let server = RedisServer::start_with(&options).await;
    let subject = trust.store_at(server.place());
    subject.is_connected().await;
    server.present(&trust.certify(&["127.0.0.1", "localhost"])).await;
    subject.is_refused(Fault::Untrusted).await;
    fails_at_once(&subject).await;
    server.present(&trust.certify(&six)).await;
    subject.is_connected().await;
    assert_eq!(subject.call(set("key", "value")).await, Ok(Value::Okay));
}

//! The rights that `docs/shared.md` gives to the sidecar's user are enough.

use super::fleet::{Fleet, counts};
use crate::shared_store::servers::{Cluster, Options, RedisServer, SentinelGroup, Version};
use serde_json::json;
use shared::store::Place;

const DOCUMENT: &str = include_str!("../../../docs/shared.md");

/// Name and password of the user, for servers.
const LOGIN: [(&str, &str); 2] =
    [("SHARED__USER", "velt-sidecar"), ("SHARED__PASSWORD", "PASSWORD")];

/// Name and password of the user, for Sentinels.
const SENTINEL_LOGIN: [(&str, &str); 2] =
    [("SHARED__SENTINEL_USER", "velt-sidecar"), ("SHARED__SENTINEL_PASSWORD", "PASSWORD")];

/// Returns the first text of the document that begins with `begin`, up to `end`, as words.
fn words(begin: &str, end: char) -> Vec<String> {
    let (_, rest) = DOCUMENT.split_once(begin).unwrap_or_else(|| panic!("no {begin:?}"));
    let (text, _) = rest.split_once(end).expect("an end");
    // In a table, a backslash keeps a stroke from being the end of a cell.
    text.replace('\\', "").split(' ').map(str::to_owned).collect()
}

fn set_user<'a>(rules: impl IntoIterator<Item = &'a String>) -> Vec<&'a str> {
    ["ACL", "SETUSER"].into_iter().chain(rules.into_iter().map(|word| &**word)).collect()
}

/// Uses all that replicas do with a store, and checks that no right was missing.
async fn are_enough(place: &Place, version: Version) {
    let mut settings = LOGIN.to_vec();
    if let Place::Sentinel { .. } = place {
        settings.extend(SENTINEL_LOGIN);
    }
    let fleet = Fleet::start(2, place, &settings).await;
    for user in ["ada", "eve", "bob"] {
        let tokens = fleet.ask_all(user).await;
        assert_eq!(tokens[0], tokens[1], "{version:?}, {user}");
        fleet.report_refused(0, user, &tokens[0]).await.token();
    }
    assert_eq!(fleet.forget(0, &json!({ "user": "ada" })).await, "told");
    counts(&fleet.replicas[1], "shared_forgets_total{origin=\"elsewhere\"}", 1).await;
    for denied in ["shared_calls_total", "shared_connects_total"] {
        assert_eq!(fleet.sum(&format!("{denied}{{result=\"denied\"}}")).await, 0, "{version:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documented_rights_are_enough_in_each_version() {
    let server_rules = words("ACL SETUSER ", '\n');
    let in_cluster = words("| `mode = \"cluster\"` | `", '`');
    let at_sentinels = words("at each Sentinel: `ACL SETUSER ", '`');
    for version in [Version::Debian, Version::Oldest] {
        let options = Options { version, ..Options::default() };
        let (server, group, cluster) = tokio::join!(
            RedisServer::start_with(&options),
            SentinelGroup::start_with(&options),
            Cluster::start_with(&options)
        );
        server.ask(&set_user(&server_rules)).await;
        are_enough(&server.place(), version).await;
        for node in &cluster.nodes {
            node.ask(&set_user(server_rules.iter().chain(&in_cluster))).await;
        }
        are_enough(&cluster.place(), version).await;
        for server in &group.servers {
            server.ask(&set_user(&server_rules)).await;
        }
        group.ask_sentinels(&set_user(&at_sentinels)).await;
        are_enough(&group.place(), version).await;
    }
}

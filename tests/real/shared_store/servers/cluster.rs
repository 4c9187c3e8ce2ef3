//! Servers that share the slots of a cluster.

use shared::store::Place;

use super::{DOWN_AFTER, Options, RedisServer, ask};
use crate::neighbour::eventually;

/// One past the last slot of a cluster.
const SLOTS: usize = 16_384;

/// A cluster of three nodes, each with a third of the slots, and without replicas.
pub struct Cluster {
    pub nodes: Vec<RedisServer>,
}

impl Cluster {
    /// Starts a cluster, which takes about 2 s: a node of a new cluster refuses commands for so long.
    pub async fn start() -> Self {
        Self::start_with(&Options::default()).await
    }

    /// Starts a cluster with more settings for its nodes.
    pub async fn start_with(options: &Options<'_>) -> Self {
        // Slots of living nodes are served while another node is down.
        let own = [
            "--cluster-enabled",
            "yes",
            "--cluster-node-timeout",
            DOWN_AFTER,
            "--cluster-require-full-coverage",
            "no",
        ];
        let mut settings = [options.settings, &own].concat();
        if options.tls.is_some() {
            settings.extend(["--tls-cluster", "yes"]);
        }
        let options = Options { settings: &settings, ..*options };
        let (first, second, third) = tokio::join!(
            RedisServer::start_with(&options),
            RedisServer::start_with(&options),
            RedisServer::start_with(&options)
        );
        let cluster = Self { nodes: vec![first, second, third] };
        cluster.share_slots().await;
        cluster
    }

    async fn share_slots(&self) {
        let count = self.nodes.len();
        for (index, node) in self.nodes.iter().enumerate() {
            node.ask(&["CLUSTER", "SET-CONFIG-EPOCH", &(index + 1).to_string()]).await;
            let (first, end) = (SLOTS * index / count, SLOTS * (index + 1) / count);
            // Before 7.0, there is no `ADDSLOTSRANGE`.
            let slots: Vec<String> = (first..end).map(|slot| slot.to_string()).collect();
            let slots = slots.iter().map(|slot| &**slot);
            node.ask(&["CLUSTER", "ADDSLOTS"].into_iter().chain(slots).collect::<Vec<_>>()).await;
        }
        for other in &self.nodes[1..] {
            let bus = other.arguments.iter().skip_while(|word| *word != "--cluster-port").nth(1);
            let bus = bus.cloned().unwrap_or_else(|| (other.port + 10_000).to_string());
            let port = other.port.to_string();
            self.nodes[0].ask(&["CLUSTER", "MEET", &other.host, &port, &bus]).await;
        }
        for node in &self.nodes {
            eventually("a cluster that serves", async || {
                let answer = ask(&node.folder, &["CLUSTER", "INFO"]).await;
                let text = format!("{answer:?}");
                let known = format!("cluster_known_nodes:{count}");
                let serves = text.contains("cluster_state:ok") && text.contains(&known);
                if serves && text.contains("cluster_slots_ok:16384") { Ok(()) } else { Err(text) }
            })
            .await;
        }
    }

    pub fn place(&self) -> Place {
        Place::Cluster(self.nodes.iter().map(RedisServer::address).collect())
    }

    /// Moves a slot without keys from its node to another, as an operator who scales out does.
    pub async fn move_slot(&self, slot: u16, from: usize, to: usize) {
        let slot = slot.to_string();
        let id = format!("{:?}", self.nodes[to].ask(&["CLUSTER", "MYID"]).await);
        let id = id.split(|sign: char| !sign.is_ascii_hexdigit()).find(|word| word.len() == 40);
        let id = id.expect("40 digits");
        // The new owner first, so that no node sends clients to a node that does not know of its luck.
        for node in [to, from] {
            self.nodes[node].ask(&["CLUSTER", "SETSLOT", &slot, "NODE", id]).await;
        }
    }
}

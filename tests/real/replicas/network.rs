//! Network namespaces that act as hosts: one for each replica, one for the store, and a router between them.
//!
//! Each replica has two links. Its front link leads to this machine, where the client, the app and the stand-in for
//! Velt are, and its back link to the router. A test cuts back links only.

use std::net::Ipv4Addr;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::neighbour::tool;
use crate::record::left_out;

/// Address of the store. Addresses of back links are known in the namespaces only.
const STORE: Ipv4Addr = Ipv4Addr::new(10, 255, 0, 2);

/// Number of networks that this process has made.
static NETWORKS: AtomicU32 = AtomicU32::new(0);

/// Ways in which packets between a replica and the store are lost. Nothing answers in their place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// The router's end of the link goes down: both ends notice that the link has no carrier.
    Down,
    /// The router drops all packets, in both directions.
    Silent,
    /// The router drops packets to the replica: the store hears the replica, and is not heard.
    ToReplica,
    /// The router drops packets from the replica.
    FromReplica,
}

pub const CUTS: [Cut; 4] = [Cut::Down, Cut::Silent, Cut::ToReplica, Cut::FromReplica];

/// Namespaces of one test. They go when the value is dropped, also when the test panics.
pub struct Network {
    /// Begins the names of all namespaces and links.
    name: String,
    replicas: u8,
    /// Number of the first address of front links.
    first: u16,
}

impl Network {
    /// Makes namespaces for so many replicas, four at most. Returns `None` where this process may not make them, and
    /// says so.
    pub fn make(replicas: u8) -> Option<Self> {
        let (process, scene) = (std::process::id(), NETWORKS.fetch_add(1, Ordering::Relaxed));
        // The network is among those for benchmarks (RFC 2544), with 16 addresses for each of two networks of a process.
        let number = (2 * process + scene % 2) % 4_096;
        let first = u16::try_from(number * 16).expect("below 65,536");
        let network = Self { name: format!("vn{process}n{scene}"), replicas, first };
        let router = network.router();
        if !ip(&format!("netns add {router}")) {
            left_out("`ip netns add` needs root and iproute2");
            return None;
        }
        let forward = "echo 1 > /proc/sys/net/ipv4/ip_forward";
        let forwarding =
            Command::new(tool("ip")).args(["netns", "exec", &router, "sh", "-c", forward]).status();
        assert!(forwarding.is_ok_and(|status| status.success()), "{forward}");
        for index in 0..=replicas {
            network.plug_in(index);
        }
        Some(network)
    }

    fn router(&self) -> String {
        format!("{}r", self.name)
    }

    /// Returns the namespace of the store, which has index 0, or of a replica.
    fn host(&self, index: u8) -> String {
        format!("{}h{index}", self.name)
    }

    /// Makes a host with its links. The host with index 0 has no front link.
    fn plug_in(&self, index: u8) {
        let (host, router, name) = (self.host(index), self.router(), &self.name);
        run(&format!("netns add {host}"));
        run(&format!("-n {host} link set lo up"));
        let back = format!("{name}b{index}");
        run(&format!("-n {router} link add {back} type veth peer name back netns {host}"));
        run(&format!("-n {router} addr add 10.255.{index}.1/30 dev {back}"));
        run(&format!("-n {router} link set {back} up"));
        run(&format!("-n {host} addr add 10.255.{index}.2/30 dev back"));
        run(&format!("-n {host} link set back up"));
        run(&format!("-n {host} route add 10.255.0.0/16 via 10.255.{index}.1"));
        let Some(replica) = index.checked_sub(1) else { return };
        let (near, far) = (self.front(replica, 1), self.front(replica, 2));
        let front = format!("{name}f{index}");
        run(&format!("link add {front} type veth peer name front netns {host}"));
        run(&format!("addr add {near}/30 dev {front}"));
        run(&format!("link set {front} up"));
        run(&format!("-n {host} addr add {far}/30 dev front"));
        run(&format!("-n {host} link set front up"));
        run(&format!("-n {host} route add default via {near}"));
    }

    /// Returns an address of a front link: 1 is this machine's, 2 the replica's.
    fn front(&self, replica: u8, end: u16) -> Ipv4Addr {
        let [high, low] = (self.first + 4 * u16::from(replica) + end).to_be_bytes();
        Ipv4Addr::new(198, 19, high, low)
    }

    /// Returns the address at which all replicas reach this machine.
    pub fn here(&self) -> Ipv4Addr {
        self.front(0, 1)
    }

    /// Returns the namespace and the address of the store.
    pub fn store(&self) -> (String, Ipv4Addr) {
        (self.host(0), STORE)
    }

    /// Returns the namespace and the front address of each replica.
    pub fn replicas(&self) -> Vec<(String, Ipv4Addr)> {
        (0..self.replicas).map(|index| (self.host(index + 1), self.front(index, 2))).collect()
    }

    /// Cuts a replica off from the store.
    pub fn cut(&self, replica: u8, how: Cut) {
        self.change(replica, how, "add", "down");
    }

    /// Undoes [`cut`](Self::cut).
    pub fn heal(&self, replica: u8, how: Cut) {
        self.change(replica, how, "del", "up");
    }

    fn change(&self, replica: u8, how: Cut, verb: &str, state: &str) {
        let (router, index) = (self.router(), replica + 1);
        if how == Cut::Down {
            run(&format!("-n {router} link set {}b{index} {state}", self.name));
        }
        if matches!(how, Cut::Silent | Cut::ToReplica) {
            run(&format!("-n {router} route {verb} blackhole 10.255.{index}.2/32"));
        }
        if matches!(how, Cut::Silent | Cut::FromReplica) {
            run(&format!("-n {router} rule {verb} from 10.255.{index}.2 blackhole"));
        }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // Some may not have been made.
        for index in 1..=self.replicas {
            ip(&format!("link del {}f{index}", self.name));
        }
        // A namespace takes its links with it.
        for name in (0..=self.replicas).map(|index| self.host(index)).chain([self.router()]) {
            ip(&format!("netns del {name}"));
        }
    }
}

fn ip(arguments: &str) -> bool {
    let ran = Command::new(tool("ip")).args(arguments.split(' ')).stderr(Stdio::null()).status();
    ran.is_ok_and(|status| status.success())
}

fn run(arguments: &str) {
    assert!(ip(arguments), "ip {arguments}");
}

//! A network namespace that acts as a pod: addresses of its own, one link to this machine, names of its own.

use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};

use crate::neighbour::tool;

/// Number of pods that this process has made.
static PODS: AtomicU16 = AtomicU16::new(0);

/// Families of addresses that a pod has beside loopback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Families {
    Ipv6,
    Both,
}

/// A pod. The namespace goes when the value is dropped, also when the test panics.
pub struct Pod {
    pub name: String,
    /// The pod's own address of IPv6.
    pub ipv6: IpAddr,
    /// The pod's own address of IPv4, which a pod of one family lacks.
    pub ipv4: IpAddr,
    /// Addresses of this machine on the link: the login proxy's of each family, and another client's.
    pub proxy6: IpAddr,
    pub proxy4: IpAddr,
    pub stranger6: IpAddr,
}

impl Pod {
    /// Makes a pod. Returns `None` where this process may not make one, and says so.
    pub fn make(families: Families) -> Option<Self> {
        let number = PODS.fetch_add(1, Ordering::Relaxed);
        let process = std::process::id();
        let name = format!("vp{process}n{number}");
        let [high, low] =
            [process >> 16, process & 0xffff].map(|part| u16::try_from(part).expect("16 bits"));
        let six =
            |last: u16| IpAddr::V6(Ipv6Addr::new(0xfd00, 0x76 + number, high, low, 0, 0, 0, last));
        // The network is among those for benchmarks (RFC 2544); other tests have its other half.
        let first = u16::try_from((4 * process + u32::from(number)) % 16_384).expect("14 bits") * 4;
        let four = |last: u16| {
            let [third, fourth] = (first + last).to_be_bytes();
            IpAddr::V4(Ipv4Addr::new(198, 18, third, fourth))
        };
        let pod = Self {
            name,
            ipv6: six(2),
            ipv4: four(2),
            proxy6: six(1),
            proxy4: four(1),
            stranger6: six(5),
        };
        if !ip(&format!("netns add {}", pod.name)) {
            eprintln!("SKIPPED: `ip netns add` needs root and iproute2");
            return None;
        }
        pod.plug_in(families);
        Some(pod)
    }

    fn plug_in(&self, families: Families) {
        let (name, link) = (&self.name, self.link());
        run(&format!("-n {name} link set lo up"));
        run(&format!("link add {link} type veth peer name eth0 netns {name}"));
        for address in [self.proxy6, self.stranger6] {
            run(&format!("addr add {address}/64 dev {link} nodad"));
        }
        run(&format!("-n {name} addr add {}/64 dev eth0 nodad", self.ipv6));
        if families == Families::Both {
            run(&format!("addr add {}/30 dev {link}", self.proxy4));
            run(&format!("-n {name} addr add {}/30 dev eth0", self.ipv4));
        }
        run(&format!("link set {link} up"));
        run(&format!("-n {name} link set eth0 up"));
    }

    fn link(&self) -> String {
        format!("{}l", self.name)
    }

    /// Gives names to addresses, in the pod alone, beside `localhost`.
    pub fn know(&self, names: &[(IpAddr, &str)]) {
        let mut hosts = "127.0.0.1 localhost\n::1 localhost\n".to_owned();
        for (address, name) in names {
            writeln!(hosts, "{address} {name}").expect("a string takes all");
        }
        fs::create_dir_all(self.folder()).expect("root may make it");
        fs::write(self.folder().join("hosts"), hosts).expect("a disk");
    }

    /// Folder whose files `ip netns exec` lays over those of `/etc`.
    fn folder(&self) -> PathBuf {
        PathBuf::from("/etc/netns").join(&self.name)
    }

    /// Returns a command that runs `program` in the pod.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(tool("ip"));
        command.args(["netns", "exec", &self.name]).arg(program).stdin(Stdio::null());
        command
    }

    /// Runs a program of the system in the pod. Returns whether it has succeeded.
    pub fn run(&self, program: &str, arguments: &str) -> bool {
        let status = self.command(tool(program)).args(arguments.split(' ')).status();
        status.is_ok_and(|status| status.success())
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        // Some may not have been made. The namespace takes its end of the link with it.
        ip(&format!("link del {}", self.link()));
        ip(&format!("netns del {}", self.name));
        let _ = fs::remove_dir_all(self.folder());
    }
}

fn ip(arguments: &str) -> bool {
    let ran = Command::new(tool("ip")).args(arguments.split(' ')).stderr(Stdio::null()).status();
    ran.is_ok_and(|status| status.success())
}

fn run(arguments: &str) {
    assert!(ip(arguments), "ip {arguments}");
}

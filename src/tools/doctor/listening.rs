//! Checks the addresses at which the sidecar listens, which clients can get there, and which of them it
//! believes.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use reqwest::Url;

use super::{Check, Finding, Findings, Surroundings};
use crate::mesh;
use ground::outgoing;
use ground::tls::Roots;
use hop::listener;
use identity::{OF_MESHES, Source};

/// Time limit for an answer of a sidecar's admin port, which is on this machine.
const ADMIN_PATIENCE: Duration = Duration::from_secs(2);

/// Longest prefix of a range that is a whole private network rather than the place of a login proxy.
const WIDE_V4: u8 = 12;
const WIDE_V6: u8 = 32;

pub(super) async fn look_at_ports(around: Arc<Surroundings>) -> Vec<Finding> {
    let config = &around.config;
    let mut findings = Findings::of(Check::Ports);
    let ports =
        [("listen.address", config.listen.address), ("admin.address", config.admin.address)];
    for (setting, address) in ports {
        let place = format!("{setting} {address}");
        match listener::claim(address) {
            Ok(()) => findings.ok(place, "free"),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                if is_sidecar(config.admin.address).await {
                    let remedy = "do nothing if doctor is meant to look at a running sidecar";
                    findings.note(
                        place,
                        "in use, by a velt-sidecar that answers at admin.address",
                        remedy,
                    );
                } else {
                    let remedy = "stop the process that listens there, or choose another port";
                    findings.fatal(place, "in use, and not by a velt-sidecar", remedy);
                }
            }
            Err(error) => {
                let remedy = match error.kind() {
                    io::ErrorKind::PermissionDenied => {
                        "choose a port from 1024 on, or give the container the capability \
                         NET_BIND_SERVICE"
                    }
                    _ => "choose an address of this machine",
                };
                findings.fatal(place, format!("it can't be listened on: {error}"), remedy);
            }
        }
    }
    let admin = config.admin.address;
    let place = format!("admin.address {admin}");
    if !admin.ip().is_loopback() {
        findings.note(
            place,
            "any client that reaches this port can read metrics and health, but no secrets",
            "let only Prometheus and the kubelet reach it, by a NetworkPolicy",
        );
    } else if around.in_kubernetes() {
        findings.note(
            place,
            "the kubelet's probes and Prometheus come from outside the pod and can't reach it",
            "write address = \"[::]:9901\" in [admin], unless nothing probes or scrapes",
        );
    }
    findings.all()
}

async fn is_sidecar(admin: SocketAddr) -> bool {
    let mut address = admin;
    if admin.ip().is_unspecified() {
        address.set_ip(Ipv4Addr::LOCALHOST.into());
    }
    let asking = async {
        let url: Url = format!("http://{address}/healthz/live").parse().ok()?;
        let client = outgoing::client(&url, &Roots::Bundled, ADMIN_PATIENCE).ok()?;
        let answer = client.get(url).timeout(ADMIN_PATIENCE).send().await.ok()?;
        let found = answer.status() == 200;
        let body = outgoing::read_capped(answer, 64).await.ok()??;
        Some(found && body == b"ok\n")
    };
    asking.await.unwrap_or(false)
}

pub(super) fn look_at_trust(around: &Surroundings) -> Vec<Finding> {
    let mut findings = Findings::of(Check::Trust);
    let identity = &around.config.identity;
    let place = "identity.trusted_peers";
    let anchored = identity.secret.is_some() || !identity.trusted_names.is_empty();
    let by_peer = matches!(identity.source, Source::Header(_));
    let stake = if by_peer {
        "any client in there can name any user and get their token"
    } else {
        "any client in there may send the app plain headers about the user"
    };
    let wide: Vec<String> = identity
        .trusted_peers
        .iter()
        .filter(|range| is_wide(range))
        .map(IpNet::to_string)
        .collect();
    let only_loopback = identity.trusted_peers.iter().all(|range| is_loopback(range.addr()));
    if anchored {
        let what = "a secret or a certificate's name vouches for the login proxy";
        findings.ok(place, what);
    } else if by_peer && look_at_meshes(around, &mut findings) {
        // Behind a mesh an address proves nothing, so the width of a range does not matter.
    } else if !wide.is_empty() {
        findings.warning(
            place,
            format!("{} is a whole private network: {stake}", wide.join(", ")),
            "name the login proxy's own range, or have it show a secret (secret_header) or a \
             certificate (trusted_names)",
        );
    } else if only_loopback && by_peer && around.in_kubernetes() {
        findings.note(
            place,
            "only this pod is believed: with the login proxy in another pod, every user is anonymous, and \
             the app is told http and the login proxy's address",
            "name the range of the login proxy's pods, unless it is a container of this pod",
        );
    } else {
        let ranges: Vec<String> = identity.trusted_peers.iter().map(IpNet::to_string).collect();
        findings.ok(place, format!("{} believed", ranges.join(", ")));
        if by_peer && !around.in_kubernetes() {
            look_at_own_addresses(around, &mut findings);
        }
    }
    look_at_proxies(identity.trusted_proxies.as_deref(), &mut findings);
    let listen = around.config.listen.address;
    if only_loopback && by_peer && !anchored && !listen.ip().is_loopback() {
        findings.note(
            format!("listen.address {listen}"),
            "open to every address, while only loopback is believed",
            format!(
                "write address = \"127.0.0.1:{}\" in [listen] if the login proxy is in this pod \
                 or on this machine, so that no other host can connect",
                listen.port()
            ),
        );
    }
    findings.all()
}

/// Warns of a service mesh in the pod, and of trusted loopback addresses that only meshes use. Returns
/// whether there was one of the two.
fn look_at_meshes(around: &Surroundings, findings: &mut Findings) -> bool {
    let place = "identity.trusted_peers";
    if let Some(mesh) = mesh::found(&around.config, &around.root) {
        findings.warning(
            place,
            format!(
                "a service mesh, {mesh}, hands every caller on from an address of this pod: an \
                 address does not identify the login proxy"
            ),
            "let the login proxy show a secret (secret_header), or believe a signature (source = \
             \"assertion\"), or exclude listen.address's port from the mesh and let the login proxy show \
             a certificate (trusted_names)",
        );
        return true;
    }
    let from_meshes = loopback_of_meshes(&around.config.identity.trusted_peers);
    if let Some(range) = from_meshes {
        findings.warning(
            place,
            format!(
                "{range} has addresses in it from which no process here connects, but from \
                 which service meshes hand every caller on (Istio: 127.0.0.6, ::6)"
            ),
            "write trusted_peers = [\"127.0.0.1\", \"::1\"], which is the default",
        );
    }
    from_meshes.is_some()
}

/// Tells of an address of this machine in a trusted range: a login proxy on this machine that connects by that address is
/// not believed. A range of pods holds each pod itself, so that this would be told in every pod.
fn look_at_own_addresses(around: &Surroundings, findings: &mut Findings) {
    let peers = &around.config.identity.trusted_peers;
    let is_single = |range: &IpNet| range.prefix_len() == range.max_prefix_len();
    for address in own_addresses(&around.root) {
        let holding: Vec<_> = peers.iter().filter(|range| range.contains(&address)).collect();
        if address.is_loopback() || holding.iter().any(|range| is_single(range)) {
            continue;
        }
        if let Some(range) = holding.first() {
            findings.note(
                "identity.trusted_peers",
                format!(
                    "{range} holds {address}, an address of this machine: a peer that connects from there \
                     is not believed"
                ),
                format!(
                    "have a login proxy on this machine connect by 127.0.0.1 and name that address, or add \
                     {address} by itself"
                ),
            );
        }
    }
}

/// Returns the addresses in this network namespace. Returns none on a system without `/proc/net`.
fn own_addresses(root: &Path) -> BTreeSet<IpAddr> {
    let read = |file: &str| fs::read_to_string(root.join(file)).unwrap_or_default();
    let (tree, interfaces) = (read("proc/net/fib_trie"), read("proc/net/if_inet6"));
    let mut found = BTreeSet::new();
    let mut last = None;
    for line in tree.lines().map(str::trim) {
        if let Some(address) = line.strip_prefix("|-- ") {
            last = address.parse::<Ipv4Addr>().ok();
        } else if line == "/32 host LOCAL" {
            found.extend(last.map(IpAddr::V4));
        }
    }
    let digits = interfaces.lines().filter_map(|line| line.split(' ').next());
    let numbers = digits.filter_map(|digits| u128::from_str_radix(digits, 16).ok());
    found.extend(numbers.map(|number| IpAddr::V6(Ipv6Addr::from(number))));
    found
}

/// Reports the peers whose `X-Forwarded-*` are kept, if `identity.trusted_proxies` is written.
fn look_at_proxies(written: Option<&[IpNet]>, findings: &mut Findings) {
    let place = "identity.trusted_proxies";
    match written {
        None => {}
        Some([]) => findings.note(
            place,
            "no peer is believed in X-Forwarded-*: the app is told the sidecar's own scheme, and \
             the front's address for every client",
            "name the front's addresses, unless clients connect to the sidecar themselves",
        ),
        Some(ranges) => {
            let ranges: Vec<String> = ranges.iter().map(IpNet::to_string).collect();
            findings.ok(place, format!("{} believed in X-Forwarded-*", ranges.join(", ")));
        }
    }
}

/// Returns a range with loopback addresses other than the two from which processes connect.
fn loopback_of_meshes(ranges: &[IpNet]) -> Option<&IpNet> {
    let usual = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    ranges.iter().find(|range| {
        let is_single = range.prefix_len() == range.max_prefix_len();
        let is_loopback =
            is_loopback(range.addr()) && !(is_single && usual.contains(&range.addr()));
        is_loopback
            || OF_MESHES.iter().any(|address| range.contains(address) && range.prefix_len() > 0)
    })
}

fn is_loopback(address: IpAddr) -> bool {
    address.is_loopback()
}

fn is_wide(range: &IpNet) -> bool {
    let length = match range {
        IpNet::V4(_) => WIDE_V4,
        IpNet::V6(_) => WIDE_V6,
    };
    range.prefix_len() <= length && !is_loopback(range.addr())
}

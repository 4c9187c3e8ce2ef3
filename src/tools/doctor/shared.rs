//! Checks the store that replicas share: whether the sidecar can use the store, and whether the store keeps tokens
//! and forgets. Each finding is a warning at most, because the sidecar starts and serves without the store.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{Check, Finding, Findings, Surroundings};
use ground::logging::Chain;
use ground::metrics::Metrics;
use shared::rehearse;
use shared::store::{Address, Blame, Fault, Inspection, Place, State, Store};

/// Time for which the check waits for a connection.
const CONNECT: Duration = Duration::from_secs(3);

/// Pause between two checks whether there is a connection.
const GLANCE: Duration = Duration::from_millis(20);

/// Oldest version of Redis that has all the commands: `XADD` with `MINID` came last.
const OLDEST: (u32, u32) = (6, 2);

/// Difference between the clocks of store and sidecar from which the check warns: the clocks of replicas are then
/// likely to differ too.
const CLOCK_WRONG: Duration = Duration::from_secs(30);

pub(super) async fn check(around: Arc<Surroundings>) -> Vec<Finding> {
    let mut findings = Findings::of(Check::Shared);
    let Some(settings) = &around.config.shared else { return findings.all() };
    let place = format!("shared.addresses {}", said(&settings.store.place));
    let store = match Store::start(settings.store.clone(), Metrics::new().store) {
        Ok(store) => store,
        Err(error) => {
            findings.warning(place, Chain(&error).to_string(), "mend shared.ca_file or [outgoing]");
            return findings.all();
        }
    };
    let began = Instant::now();
    let fault = connected(&store).await.err();
    let took = began.elapsed();
    if let Some(fault) = fault {
        return unusable(place, fault, findings);
    }
    if let Err(fault) = rehearse(&store, &settings.prefix).await {
        return unusable(place, fault, findings);
    }
    match store.inspect().await {
        Ok(inspection) => look_at(&inspection, &place, took, &mut findings),
        Err(_) => {
            findings.ok(&*place, format!("connected after {took:.1?}; it tells nothing of itself"));
        }
    }
    let is_here = is_on_this_machine(&settings.store.place);
    if settings.store.tls.is_none() && settings.store.password.is_some() && !is_here {
        findings.warning(
            "shared.tls",
            "the password is sent without TLS",
            "write tls = true in [shared], or make sure that the network is encrypted",
        );
    }
    findings.all()
}

/// Waits until the store is connected.
async fn connected(store: &Store) -> Result<(), Fault> {
    let deadline = Instant::now() + CONNECT;
    loop {
        let fault = match store.state() {
            State::Connected => return Ok(()),
            State::Connecting { last } => last.unwrap_or(Fault::Timeout),
            State::Suspended { .. } => Fault::Suspended,
        };
        if Instant::now() >= deadline {
            return Err(fault);
        }
        sleep(GLANCE).await;
    }
}

fn unusable(place: String, fault: Fault, mut findings: Findings) -> Vec<Finding> {
    let remedy = match fault.blame() {
        Blame::Network => {
            "let the sidecar reach it: is the server up, and does a NetworkPolicy block the way?"
        }
        Blame::Operator => "change [shared], or the server's settings, as it says",
        Blame::Server => {
            "look at the server's log, and whether shared.addresses leads to Redis or Valkey"
        }
        Blame::Ours => "try again when fewer calls are under way",
    };
    let meanwhile = "until then, each replica mints for itself; see docs/shared.md";
    findings.warning(place, format!("it can't be used: {fault}"), format!("{remedy}; {meanwhile}"));
    findings.all()
}

fn look_at(seen: &Inspection, place: &str, took: Duration, findings: &mut Findings) {
    let Inspection { software, version, memory_policy, .. } = seen;
    findings.ok(
        place,
        format!("{software} {version}, connected after {took:.1?}; all commands may be used"),
    );
    if software == "redis" && is_older(version) {
        findings.warning(
            place,
            format!("Redis {version} is too old"),
            "use Redis 6.2 or later, or Valkey",
        );
    }
    let is_bounded = seen.most_memory.is_some();
    if is_bounded && memory_policy == "noeviction" {
        findings.warning(
            place,
            "when its memory is full, it takes neither tokens nor forgets (maxmemory-policy noeviction)",
            "set maxmemory-policy volatile-ttl",
        );
    }
    if is_bounded && memory_policy.starts_with("allkeys-") {
        findings.warning(
            place,
            format!("when its memory is full, it may drop the list of forgets (maxmemory-policy {memory_policy})"),
            "set maxmemory-policy volatile-ttl, or give it a database server of its own",
        );
    }
    let apart = seen.clock_difference;
    if apart > CLOCK_WRONG {
        findings.warning(
            "this node",
            format!("its clock and the store's differ by {} s", apart.as_secs()),
            "set both clocks by NTP: tokens of a replica whose clock is a minute ahead are not served",
        );
    }
}

fn is_older(version: &str) -> bool {
    let mut numbers = version.split('.').map_while(|number| number.parse::<u32>().ok());
    let (Some(major), Some(minor)) = (numbers.next(), numbers.next()) else { return false };
    (major, minor) < OLDEST
}

fn addresses(place: &Place) -> &[Address] {
    match place {
        Place::Server(address) => std::slice::from_ref(address),
        Place::Sentinel { sentinels, .. } => sentinels,
        Place::Cluster(nodes) => nodes,
    }
}

fn said(place: &Place) -> String {
    let addresses: Vec<_> = addresses(place).iter().map(ToString::to_string).collect();
    addresses.join(", ")
}

fn is_on_this_machine(place: &Place) -> bool {
    addresses(place).iter().all(|address| match address {
        Address::Unix(_) => true,
        Address::Tcp { host, .. } => {
            host == "localhost"
                || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_number() {
        for (version, older) in [
            ("6.0.20", true),
            ("5.0", true),
            ("6.2.0", false),
            ("7.0.15", false),
            ("10.1", false),
            ("x", false),
        ] {
            assert_eq!(is_older(version), older, "{version}");
        }
    }
}

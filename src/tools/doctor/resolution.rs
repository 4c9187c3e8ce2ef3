//! Checks whether the names of Velt, the issuer of assertions, the app and the proxy have addresses, and how
//! long it takes to learn them.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Url;
use tokio::net::lookup_host;
use tokio::time::Instant;

use super::route::route_to;
use super::{Check, Finding, Findings, Surroundings};
use hop::proxy::Address;
use identity::Source;

/// Time after which a look-up is slow: a name server in the cluster answers within a few milliseconds.
const SLOW: Duration = Duration::from_secs(1);

/// Most addresses that are shown.
const SHOWN: usize = 4;

pub(super) async fn check(around: Arc<Surroundings>) -> Vec<Finding> {
    let mut findings = Findings::of(Check::Resolution);
    for (setting, host, port) in names(&around) {
        let place = format!("{setting} {host}");
        let began = Instant::now();
        let found = lookup_host((host.as_str(), port)).await;
        let took = began.elapsed();
        match found {
            Ok(addresses) => {
                let addresses: Vec<IpAddr> = addresses.map(|address| address.ip()).collect();
                resolved(place, &addresses, took, &mut findings);
            }
            Err(error) => findings.problem(
                place,
                format!("it has no address ({took:.0?}): {error}"),
                "check the spelling, and that this pod reaches its name server (dnsPolicy; a \
                 NetworkPolicy has to allow port 53)",
            ),
        }
    }
    findings.all()
}

fn resolved(place: String, addresses: &[IpAddr], took: Duration, findings: &mut Findings) {
    let mut shown: Vec<String> = addresses.iter().take(SHOWN).map(IpAddr::to_string).collect();
    if addresses.len() > SHOWN {
        shown.push(format!("{} more", addresses.len() - SHOWN));
    }
    let what = format!("{} after {took:.0?}", shown.join(", "));
    if took > SLOW {
        let remedy = "look at the pod's name server and at ndots in its resolv.conf: every new \
                      connection waits for it";
        findings.warning(place, what, remedy);
    } else {
        findings.ok(place, what);
    }
}

/// Returns setting, host and port of each server that the sidecar calls by its name.
fn names(around: &Surroundings) -> Vec<(&'static str, String, u16)> {
    let mut called = Vec::new();
    let mut call = |setting, url: &Url| {
        // A proxy resolves the server's name itself. Then only the proxy's own name has to be known here.
        match route_to(url, around).proxy {
            Some(proxy) => called.push((proxy.variable, proxy.host, proxy.port)),
            None => {
                called.push((setting, host_of(url), url.port_or_known_default().unwrap_or(443)));
            }
        }
    };
    call("velt.endpoint", &around.config.velt.endpoint);
    if let Source::Assertion(source) = &around.config.identity.source
        && let Some(location) = &source.keys
    {
        call("identity.assertion", location.url());
    }
    if let Some(Address::Tcp(authority)) = around.config.app.as_ref().map(|app| &app.address)
        && let Some((host, port)) = authority.rsplit_once(':')
    {
        called.push(("app.address", host.to_owned(), port.parse().unwrap_or_default()));
    }
    called.retain(|(_, host, _)| host.trim_matches(['[', ']']).parse::<IpAddr>().is_err());
    called.dedup();
    called
}

fn host_of(url: &Url) -> String {
    url.host_str().unwrap_or_default().to_owned()
}

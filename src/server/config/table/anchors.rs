//! Keys of the table `identity` about peers, beside `trusted_peers`: the app's own host names, the fronts
//! whose word on scheme and address is kept, and a check for meshes, behind which an address proves nothing.

use ipnet::IpNet;

use super::super::reader::Section;
use super::super::words::{HostName, SourceName};
use super::preset::Preset;
use identity::{OF_MESHES, Settings, Source, holds_everyone};

/// Reads `trusted_hosts`, the app's own names in `Host`.
pub fn read_hosts(section: &Section<'_, '_>, peers_alone: bool) -> Vec<String> {
    let hosts: Vec<HostName> = section.list("trusted_hosts", &[]);
    if !hosts.is_empty() && !peers_alone {
        section.complain_of_no_effect(
            "trusted_hosts",
            "it has no effect while a secret or a certificate decides whether a peer is trusted",
            "remove it: a page in a browser has neither a secret nor a certificate",
        );
    }
    hosts.into_iter().map(|host| host.0).collect()
}

/// Reads `trusted_proxies`: the peers whose word on the client's address, scheme and host is kept.
pub fn read_proxies(section: &Section<'_, '_>) -> Option<Vec<IpNet>> {
    section.optional_list("trusted_proxies")
}

/// Refuses a preset behind a mesh that trusts addresses, unless the operator has written the addresses.
pub fn check_mesh(
    section: &Section<'_, '_>,
    preset: Option<&Preset>,
    source: SourceName,
    vouched: bool,
) {
    let meshed = preset.filter(|preset| preset.is_behind_mesh && source == SourceName::Header);
    let Some(preset) = meshed.filter(|_| !vouched && !section.has("trusted_peers")) else { return };
    section.complain_about(
        "preset",
        &format!(
            "behind {} every caller connects from an address of this pod (127.0.0.6, 127.0.0.1), \
             so an address does not identify the login proxy",
            preset.name
        ),
        "let the login proxy show a secret (secret_header); or believe its signature: source = \
         \"assertion\"; or, if the traffic port is excluded from the mesh, let it show a certificate \
         (trusted_names) or write its addresses as trusted_peers",
    );
}

/// Complains if no peer is trusted, and if every peer is trusted, or every caller of a mesh, without
/// `dangerously_trust_every_peer`.
pub fn check_trust(section: &Section<'_, '_>, settings: &Settings, reckless: bool) {
    let (peers, by_peer) = (&settings.trusted_peers, matches!(settings.source, Source::Header(_)));
    if peers.is_empty() && by_peer {
        section.complain_about(
            "trusted_peers",
            "no peer is trusted, so there would never be an identity",
            "name the login proxy's addresses: trusted_peers = [\"127.0.0.1\", \"::1\"] if it runs in \
             the same pod",
        );
    }
    let everyone = peers.iter().any(holds_everyone);
    // A secret that is given but not valid counts too: it has been complained of already.
    let vouched = settings.secret.is_some() || !settings.trusted_names.is_empty();
    if everyone && !reckless && !vouched {
        let problem = if by_peer {
            "any client that reaches this port could name any user and get their token"
        } else {
            "any client that reaches this port could set the X-Forwarded-* headers that the app \
             believes"
        };
        section.complain_about(
            "trusted_peers",
            problem,
            "name the login proxy's addresses, such as [\"10.42.0.0/16\"]; if a network policy \
             lets only the login proxy in, write dangerously_trust_every_peer = true",
        );
    }
    let meshed = peers.iter().find(|range| by_peer && !vouched && holds_mesh(range));
    if let Some(range) = meshed.filter(|_| !everyone && !reckless) {
        section.complain_about(
            "trusted_peers",
            &format!(
                "{range} holds an address from which the proxy of a service mesh hands every caller on \
                 (Istio: 127.0.0.6 and ::6), and any of them could name any user and get their token"
            ),
            "write [\"127.0.0.1\", \"::1\"] if the login proxy is in the same pod; in a mesh let it show \
             a secret (secret_header) or a signature (source = \"assertion\"); if a policy of the mesh \
             lets only the login proxy in, write dangerously_trust_every_peer = true",
        );
    }
    let everyone = everyone || meshed.is_some();
    if reckless && (!everyone || vouched) {
        let problem = if vouched {
            "it has no effect while a secret or a certificate decides whether a peer is trusted"
        } else {
            "it has no effect while trusted_peers names ranges"
        };
        section.complain_of_no_effect("dangerously_trust_every_peer", problem, "remove it");
    }
}

/// Whether a range holds an address from which Istio's proxy hands callers on.
fn holds_mesh(range: &IpNet) -> bool {
    OF_MESHES.iter().any(|address| range.contains(address))
}

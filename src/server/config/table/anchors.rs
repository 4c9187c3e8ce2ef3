//! Keys of the table `identity` about peers, beside `trusted_peers`: the app's own host names, the fronts
//! whose word on scheme and address is kept, and a check for meshes, behind which an address proves nothing.

use ipnet::IpNet;

use super::super::reader::Section;
use super::super::words::{HostName, SourceName};
use super::preset::Preset;

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

//! Finds a service mesh whose proxy takes the connections to this pod. Every caller then connects to the
//! sidecar from an address of the pod's own, as a login proxy in the pod does.

use std::fs;
use std::path::Path;

use super::Surroundings;

/// Meshes, each with the port at which its proxy takes redirected connections. Other meshes are left out:
/// an app may as well listen at their ports.
const MESHES: [(&str, u16); 2] = [("Istio or Kuma", 15_006), ("Linkerd", 4143)];

/// State of a listening socket in `/proc/net/tcp` (`TCP_LISTEN` of Linux).
const LISTENING: &str = "0A";

/// Returns the mesh in front of this pod, in words.
pub(super) fn found(around: &Surroundings) -> Option<String> {
    let is_preset = around.config.effective.iter().any(|setting| {
        setting.header == "[identity]" && setting.key == "preset" && setting.value == "\"istio\""
    });
    if is_preset {
        return Some("Istio (identity.preset)".to_owned());
    }
    let ports = listening_ports(&around.root);
    let (name, port) = MESHES.into_iter().find(|(_, port)| ports.contains(port))?;
    Some(format!("{name} (its proxy listens at port {port})"))
}

/// Returns the ports with a listener in this network namespace, which all containers of a pod share. Returns
/// no port on a system without `/proc/net/tcp`.
fn listening_ports(root: &Path) -> Vec<u16> {
    let tables = ["proc/net/tcp", "proc/net/tcp6"].map(|file| fs::read_to_string(root.join(file)));
    let port = |line: &str| {
        let mut fields = line.split_whitespace();
        let (_, local, _, state) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        let (_, port) = local.rsplit_once(':').filter(|_| state == LISTENING)?;
        u16::from_str_radix(port, 16).ok()
    };
    tables
        .into_iter()
        .flatten()
        .flat_map(|table| table.lines().filter_map(port).collect::<Vec<_>>())
        .collect()
}

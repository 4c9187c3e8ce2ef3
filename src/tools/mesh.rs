//! Finds a service mesh whose proxy takes the connections to this pod. Every caller then connects to the
//! sidecar from an address of the pod's own, as a login proxy in the pod does.

use std::fs;
use std::path::Path;
use std::time::Duration;

use identity::Source;
use server::config::Config;
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tracing::warn;

/// Meshes, each with the port at which its proxy takes redirected connections. Other meshes are left out:
/// an app may as well listen at their ports.
const MESHES: [(&str, u16); 2] = [("Istio or Kuma", 15_006), ("Linkerd", 4143)];

/// State of a listening socket in `/proc/net/tcp` (`TCP_LISTEN` of Linux).
const LISTENING: &str = "0A";

/// Times between looks for a proxy. A proxy that is an ordinary container starts after the sidecar.
const LOOKS: [Duration; 4] =
    [Duration::ZERO, Duration::from_secs(5), Duration::from_secs(60), Duration::from_secs(600)];

/// Returns the mesh in front of this pod, in words.
pub(crate) fn found(config: &Config, root: &Path) -> Option<String> {
    let is_preset = config.effective.iter().any(|setting| {
        setting.header == "[identity]" && setting.key == "preset" && setting.value == "\"istio\""
    });
    if is_preset {
        return Some("Istio (identity.preset)".to_owned());
    }
    listening(root)
}

/// Whether an address alone makes a peer the login proxy.
pub(crate) fn is_by_address(config: &Config) -> bool {
    let identity = &config.identity;
    matches!(identity.source, Source::Header(_))
        && identity.secret.is_none()
        && identity.trusted_names.is_empty()
}

/// Looks for a mesh's proxy now and a few times later, and logs a warning when one is there.
pub(crate) async fn warn_when_found() {
    for pause in LOOKS {
        sleep(pause).await;
        // The table of sockets is long where there are many connections.
        let mesh = spawn_blocking(|| listening(Path::new("/"))).await;
        let Some(mesh) = mesh.expect("the look does not panic") else { continue };
        warn!(
            mesh,
            "a service mesh hands every caller on from an address of this pod, and only an address tells \
             who the login proxy is (identity.trusted_peers): callers may name any user, or no user is \
             known; have the login proxy show a secret (identity.secret_header), or believe a signature \
             (identity.source = \"assertion\")"
        );
        return;
    }
}

fn listening(root: &Path) -> Option<String> {
    let ports = listening_ports(root);
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

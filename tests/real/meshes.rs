//! A service mesh in the pod: Envoy takes the connections to the sidecar's port, as Istio's and Linkerd's
//! proxies do, and hands each caller on from an address of the pod.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::process::Stdio;

use serde_json::json;
use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::namespace::{Families, Pod};
use crate::neighbour::{
    CREDENTIALS, Process, RunningEmulator, claims_of, eventually, http_client_builder,
    start_emulator_at, tool,
};
use crate::sidecar_process::SidecarProcess;

const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// Port at which Istio's proxy takes connections that are redirected to it.
const INBOUND: u16 = 15_006;

/// Ways in which a mesh's proxy hands a caller on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Handing {
    /// Connects to the address that the caller has asked for, from 127.0.0.6 or `::6`, as Istio does.
    PodFrom(&'static str),
    /// Connects to the address that the caller has asked for, from the same address: Linkerd, and Istio in some
    /// versions.
    Pod,
    /// Connects to 127.0.0.1: Consul, `defaultEndpoint` of Istio's Sidecar, and older versions of Istio and Linkerd.
    Loopback,
}

/// A mesh's proxy in a pod.
struct Mesh {
    _process: Process,
    _folder: TempDir,
}

impl Mesh {
    async fn start(pod: &Pod, handing: Handing) -> Self {
        let cluster = match handing {
            Handing::Loopback => json!({
                "name": "pod", "type": "STATIC",
                "load_assignment": {"cluster_name": "pod", "endpoints": [{"lb_endpoints": [{"endpoint": {
                    "address": {"socket_address": {"address": "127.0.0.1", "port_value": 8080}}}}]}]},
            }),
            Handing::Pod => {
                json!({"name": "pod", "type": "ORIGINAL_DST", "lb_policy": "CLUSTER_PROVIDED"})
            }
            Handing::PodFrom(source) => json!({
                "name": "pod", "type": "ORIGINAL_DST", "lb_policy": "CLUSTER_PROVIDED",
                "upstream_bind_config": {"source_address": {"address": source, "port_value": 0}},
            }),
        };
        let folder = TempDir::new().expect("a folder");
        let file = folder.path().join("envoy.json");
        fs::write(&file, configuration(&cluster).to_string()).expect("a disk");
        let mut envoy = pod.command(tool("envoy"));
        envoy.arg("-c").arg(&file).args(["--concurrency", "1", "--disable-hot-restart"]);
        envoy.args(["--log-level", "error"]).stdout(Stdio::null());
        let process = Process::start(&mut envoy);
        eventually("the mesh's proxy to listen", async || {
            let connected = TcpStream::connect((pod.ipv4, INBOUND)).await;
            connected.map(drop).map_err(|error| error.to_string())
        })
        .await;
        Self { _process: process, _folder: folder }
    }
}

fn configuration(cluster: &serde_json::Value) -> serde_json::Value {
    let typed = |name: &str, kind: &str| json!({"name": name, "typed_config": {"@type": format!("type.googleapis.com/{kind}")}});
    let router = "envoy.extensions.filters.http.router.v3.Router";
    let mut manager = typed(
        "manager",
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
    );
    let settings = manager["typed_config"].as_object_mut().expect("an object");
    settings.insert("stat_prefix".into(), json!("inbound"));
    settings.insert("http_filters".into(), json!([typed("router", router)]));
    let route = json!({"match": {"prefix": "/"}, "route": {"cluster": "pod"}});
    let host = json!({"name": "all", "domains": ["*"], "routes": [route]});
    settings.insert("route_config".into(), json!({"virtual_hosts": [host]}));
    let original = "envoy.extensions.filters.listener.original_dst.v3.OriginalDst";
    json!({"static_resources": {
        "listeners": [{
            "name": "inbound",
            "address": {"socket_address": {"address": "::", "port_value": INBOUND, "ipv4_compat": true}},
            "listener_filters": [typed("original_dst", original)],
            "filter_chains": [{"filters": [manager]}],
        }],
        "clusters": [cluster],
    }})
}

async fn started(pod: &Pod, emulator: &RunningEmulator, more: &[(&str, &str)]) -> SidecarProcess {
    let endpoint = format!("http://{}/", emulator.address);
    let (api_key, auth_token) = CREDENTIALS;
    let settings = [
        ("VELT_API_KEY", api_key),
        ("VELT_AUTH_TOKEN", auth_token),
        ("VELT_SIDECAR_LISTEN__ADDRESS", "[::]:8080"),
        ("VELT_SIDECAR_VELT__ENDPOINT", &endpoint),
        ("VELT_SIDECAR_VELT__ALLOW_PLAINTEXT", "true"),
    ];
    let settings: Vec<_> = settings.iter().chain(more).copied().collect();
    let unused = SocketAddr::from(([127, 0, 0, 1], 3000));
    SidecarProcess::start_in_namespace(&pod.name, unused, &settings).await
}

/// Asks for a token in the name of `user`. Returns the status, and the user whom the token names.
async fn ask(to: IpAddr, user: &str, secret: Option<&str>) -> (u16, Option<String>) {
    let http = http_client_builder().build().expect("a client");
    let url = format!("http://{}/api/velt/token", SocketAddr::new(to, 8080));
    let mut request = http.get(url).header("x-forwarded-user", user);
    if let Some(secret) = secret {
        request = request.header("x-sidecar-secret", secret);
    }
    let answer = request.send().await.expect("an answer");
    let status = answer.status().as_u16();
    let body = answer.bytes().await.expect("a body");
    let body: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
    let token = body["token"].as_str().map(claims_of);
    (status, token.map(|claims| claims["userId"].as_str().expect("a user").to_owned()))
}

/// A pod of a mesh, whose connections to port 8080 go to the mesh's proxy.
fn meshed() -> Option<Pod> {
    let pod = Pod::make(Families::Both)?;
    let rule = "-t nat -A PREROUTING -p tcp --dport 8080 -j REDIRECT --to-ports 15006";
    for program in ["iptables", "ip6tables"] {
        assert!(pod.run(program, rule), "{program} {rule}");
    }
    // As Istio's own container does before the pod starts.
    assert!(pod.run("ip", "addr add ::6/128 dev lo"));
    Some(pod)
}

#[tokio::test]
async fn t53_addresses_name_no_user_behind_a_mesh() {
    let Some(pod) = meshed() else { return };
    let emulator = start_emulator_at((pod.proxy6, 0).into()).await;
    let range = format!("{}/30,{}/64", pod.proxy4, pod.proxy6);
    let by_range = [("VELT_SIDECAR_IDENTITY__TRUSTED_PEERS", &*range)];
    for (handing, to) in [
        (Handing::PodFrom("127.0.0.6"), pod.ipv4),
        (Handing::PodFrom("::6"), pod.ipv6),
        (Handing::Pod, pod.ipv4),
        (Handing::Pod, pod.ipv6),
    ] {
        let _mesh = Mesh::start(&pod, handing).await;
        for settings in [&[][..], &by_range] {
            let mut sidecar = started(&pod, &emulator, settings).await;
            sidecar.line_with("a service mesh hands every caller on").await;
            let asked = ask(to, "ada", None).await;
            assert_eq!(asked, (401, None), "{handing:?} to {to} with {settings:?}");
        }
    }
}

#[tokio::test]
async fn t53_secret_tells_the_login_proxy_behind_a_mesh() {
    let Some(pod) = meshed() else { return };
    let emulator = start_emulator_at((pod.proxy6, 0).into()).await;
    let settings = [
        ("VELT_SIDECAR_IDENTITY__SECRET_HEADER", "X-Sidecar-Secret"),
        ("VELT_SIDECAR_IDENTITY__SECRET", SECRET),
    ];
    for handing in [Handing::PodFrom("127.0.0.6"), Handing::Pod, Handing::Loopback] {
        let _mesh = Mesh::start(&pod, handing).await;
        let _sidecar = started(&pod, &emulator, &settings).await;
        for user in ["ada", "bob"] {
            let through_the_proxy = ask(pod.ipv4, user, Some(SECRET)).await;
            assert_eq!(through_the_proxy, (200, Some(user.to_owned())), "{handing:?}");
        }
        for secret in [None, Some(""), Some("fedcba9876543210fedcba9876543210")] {
            assert_eq!(ask(pod.ipv4, "ada", secret).await, (401, None), "{handing:?} {secret:?}");
        }
    }
}

#[tokio::test]
async fn t53_mesh_that_hands_on_from_loopback_is_told() {
    let Some(pod) = meshed() else { return };
    let emulator = start_emulator_at((pod.proxy6, 0).into()).await;
    let mut sidecar = started(&pod, &emulator, &[]).await;
    let _mesh = Mesh::start(&pod, Handing::Loopback).await;
    // The documents say so: here an address can't tell callers apart, and the log and `doctor` warn.
    assert_eq!(ask(pod.ipv4, "ada", None).await, (200, Some("ada".to_owned())));
    let line = sidecar.line_with("a service mesh hands every caller on").await;
    assert!(line.contains("Istio or Kuma") && line.contains("secret_header"), "{line}");
}

//! Pods of IPv6 alone and of both families: probes, trust, the app, Velt and proxies, over real addresses.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::process::Stdio;

use tempfile::TempDir;
use tokio::net::TcpListener;

use crate::namespace::{Families, Pod};
use crate::neighbour::{
    CREDENTIALS, Process, RunningEmulator, eventually, http_client_builder, start_emulator_at,
};
use crate::sidecar_process::SidecarProcess;

const SIDECAR: &str = env!("CARGO_BIN_EXE_velt-sidecar");

/// Port of the app in a pod, which has its ports for itself.
const APP: u16 = 3000;

/// Settings of the component for Kubernetes, without the files of its Secret.
fn of_the_component() -> BTreeMap<String, String> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/kustomize/common/settings.env");
    let file = fs::read_to_string(path).expect("the component's settings");
    let pairs = file.lines().filter_map(|line| line.split_once('='));
    let pairs = pairs.filter(|(name, _)| !name.starts_with('#') && !name.ends_with("_FILE"));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// Starts the sidecar in the pod as the component does, with Velt at `endpoint` and further settings.
async fn started(
    pod: &Pod,
    app: &str,
    velt: (&RunningEmulator, &str),
    more: &[(&str, &str)],
) -> SidecarProcess {
    let mut settings = of_the_component();
    let (emulator, host) = velt;
    let endpoint = format!("http://{host}:{}/", emulator.address.port());
    let (api_key, auth_token) = CREDENTIALS;
    for (name, value) in [
        ("VELT_API_KEY", api_key),
        ("VELT_AUTH_TOKEN", auth_token),
        ("VELT_SIDECAR_APP__ADDRESS", app),
        ("VELT_SIDECAR_VELT__ENDPOINT", &endpoint),
        ("VELT_SIDECAR_VELT__ALLOW_PLAINTEXT", "true"),
        // The test reads the ports there.
        ("VELT_SIDECAR_LOG__FORMAT", "text"),
    ]
    .iter()
    .chain(more)
    {
        settings.insert((*name).to_owned(), (*value).to_owned());
    }
    let settings: Vec<_> = settings.iter().map(|(name, value)| (&**name, &**value)).collect();
    let unused = SocketAddr::from(([127, 0, 0, 1], APP));
    SidecarProcess::start_in_namespace(&pod.name, unused, &settings).await
}

/// An app that listens at one address of the pod.
struct App {
    _process: Process,
    _folder: TempDir,
}

impl App {
    async fn start(pod: &Pod, address: &str) -> Self {
        let folder = TempDir::new().expect("a folder");
        fs::write(folder.path().join("index.html"), "the app").expect("a disk");
        let mut python = pod.command("/usr/bin/python3");
        python.args(["-m", "http.server", &APP.to_string(), "--bind", address]);
        let silent = Stdio::null;
        let process =
            Process::start(python.current_dir(folder.path()).stderr(silent()).stdout(silent()));
        let url = format!("http://{}/", SocketAddr::new(address.parse().expect("an address"), APP));
        eventually("the app to listen", async || {
            let asked = pod.command("/usr/bin/curl").args(["-sfo", "/dev/null", &url]).status();
            if asked.is_ok_and(|status| status.success()) { Ok(()) } else { Err(url.clone()) }
        })
        .await;
        Self { _process: process, _folder: folder }
    }
}

/// Asks as `from` for Ada's token, or for another path. Returns status and body.
async fn ask(from: IpAddr, to: IpAddr, port: u16, path: &str) -> (u16, String) {
    let http = http_client_builder().local_address(from).build().expect("a client");
    let url = format!("http://{}{path}", SocketAddr::new(to, port));
    let answer = http.get(url).header("x-forwarded-user", "ada").send().await.expect("an answer");
    (answer.status().as_u16(), answer.text().await.expect("a body"))
}

const TOKEN: &str = "/api/velt/token";

#[tokio::test]
async fn ipv6_only_pod_is_probed_asked_and_drained() {
    let Some(pod) = Pod::make(Families::Ipv6) else { return };
    // DNS64 leaves the address of IPv4 in the answer, to which no way leads here.
    let unreachable = IpAddr::from([192, 0, 2, 1]);
    pod.know(&[(unreachable, "velt.test"), (pod.proxy6, "velt.test")]);
    let emulator = start_emulator_at((pod.proxy6, 0).into()).await;
    let _app = App::start(&pod, "::1").await;
    let trusted = [("VELT_SIDECAR_IDENTITY__TRUSTED_PEERS", &*pod.proxy6.to_string())];
    let sidecar = started(&pod, "[::1]:3000", (&emulator, "velt.test"), &trusted).await;
    assert_eq!((sidecar.traffic.port(), sidecar.admin.port()), (8080, 9901));

    let (status, token) = ask(pod.proxy6, pod.ipv6, 8080, TOKEN).await;
    assert!(status == 200 && token.contains("\"token\""), "{status} {token}");
    assert_eq!(ask(pod.stranger6, pod.ipv6, 8080, TOKEN).await.0, 401);
    assert_eq!(ask(pod.proxy6, pod.ipv6, 8080, "/").await, (200, "the app".to_owned()));
    // The kubelet and Prometheus.
    for path in ["/healthz/startup", "/healthz/ready", "/healthz/live"] {
        assert_eq!(ask(pod.stranger6, pod.ipv6, 9901, path).await.0, 200, "{path}");
    }
    let (_, metrics) = ask(pod.stranger6, pod.ipv6, 9901, "/metrics").await;
    assert!(metrics.contains("velt_sidecar_ready 1"), "{metrics}");

    let url = format!("http://[{}]:9901", pod.ipv6);
    let environment = ("VELT_SIDECAR_ADMIN__ADDRESS", "[::]:9901");
    let end = |arguments: &[&str]| {
        let mut command = pod.command(SIDECAR);
        let status = command.args(arguments).env(environment.0, environment.1).status();
        status.expect("it starts").code()
    };
    assert_eq!(end(&["health", "--ready"]), Some(0));
    assert_eq!(end(&["health", "--ready", "--admin", &url]), Some(0));
    assert_eq!(end(&["drain"]), Some(0));
    assert_eq!(end(&["health", "--ready", "--admin", &url]), Some(1));
    assert_eq!(ask(pod.stranger6, pod.ipv6, 9901, "/healthz/ready").await.0, 503);
    assert_eq!(ask(pod.proxy6, pod.ipv6, 8080, "/").await.0, 200, "it serves to the end");
}

#[tokio::test]
async fn app_of_one_family_is_found_by_the_name_localhost() {
    let Some(pod) = Pod::make(Families::Ipv6) else { return };
    pod.know(&[]);
    let emulator = start_emulator_at((pod.proxy6, 0).into()).await;
    let host = format!("[{}]", pod.proxy6);
    for (listening, address, status) in [
        ("::1", "localhost:3000", 200),
        ("127.0.0.1", "localhost:3000", 200),
        ("127.0.0.1", "127.0.0.1:3000", 200),
        ("::1", "127.0.0.1:3000", 502),
        ("127.0.0.1", "[::1]:3000", 502),
    ] {
        let _app = App::start(&pod, listening).await;
        let sidecar = started(&pod, address, (&emulator, &host), &[]).await;
        let asked = ask(pod.proxy6, pod.ipv6, sidecar.traffic.port(), "/").await.0;
        assert_eq!(asked, status, "{listening} by {address}");
    }
}

#[tokio::test]
async fn dual_stack_pod_believes_only_the_families_that_are_named() {
    let Some(pod) = Pod::make(Families::Both) else { return };
    let emulator = start_emulator_at((pod.proxy6, 0).into()).await;
    let host = format!("[{}]", pod.proxy6);
    let (four, six) = (pod.proxy4.to_string(), format!("{}/64", pod.proxy6));
    let mapped = format!("::ffff:{four}");
    let of_both = format!("{four},{six}");
    for (trusted, by_four, by_six) in
        [(&four, 200, 401), (&mapped, 200, 401), (&six, 401, 200), (&of_both, 200, 200)]
    {
        let trusted = [("VELT_SIDECAR_IDENTITY__TRUSTED_PEERS", &**trusted)];
        let _sidecar = started(&pod, "127.0.0.1:3000", (&emulator, &host), &trusted).await;
        assert_eq!(ask(pod.proxy4, pod.ipv4, 8080, TOKEN).await.0, by_four, "{trusted:?}");
        assert_eq!(ask(pod.proxy6, pod.ipv6, 8080, TOKEN).await.0, by_six, "{trusted:?}");
        assert_eq!(ask(pod.proxy4, pod.ipv4, 9901, "/healthz/ready").await.0, 200);
    }
}

#[tokio::test]
async fn addresses_of_ipv6_in_no_proxy_are_reached_directly() {
    let Some(pod) = Pod::make(Families::Ipv6) else { return };
    let emulator = start_emulator_at((pod.proxy6, 0).into()).await;
    // Neither speaks: it matters which of them is called.
    let velt = TcpListener::bind((pod.stranger6, 0)).await.expect("a free port");
    let proxy = TcpListener::bind((pod.proxy6, 0)).await.expect("a free port");
    let endpoint = format!("https://{}/", velt.local_addr().expect("it is bound"));
    let through = format!("http://{}", proxy.local_addr().expect("it is bound"));
    let (trusted, bare) = (pod.proxy6.to_string(), pod.stranger6.to_string());
    for (exempt, direct) in [
        (&*bare, true),
        ("fd00::/8", true),
        ("velt.dev, fd00::/8", true),
        ("fd01::/16", false),
        (&*format!("[{bare}]"), false),
    ] {
        let settings = [
            ("VELT_SIDECAR_IDENTITY__TRUSTED_PEERS", &*trusted),
            ("VELT_SIDECAR_VELT__ENDPOINT", &*endpoint),
            ("VELT_SIDECAR_VELT__ALLOW_PLAINTEXT", "false"),
            ("HTTPS_PROXY", &*through),
            ("NO_PROXY", exempt),
        ];
        let _sidecar = started(&pod, "127.0.0.1:3000", (&emulator, "unused"), &settings).await;
        let asking = tokio::spawn(ask(pod.proxy6, pod.ipv6, 8080, TOKEN));
        let called = tokio::select! {
            called = velt.accept() => called.map(|_| true),
            called = proxy.accept() => called.map(|_| false),
        };
        assert_eq!(called.expect("a connection"), direct, "{exempt}");
        asking.abort();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t53_second_address_of_a_pod_names_no_user() {
    let Some(pod) = Pod::make(Families::Both) else { return };
    // As those of a second network of the pod's, or of keepalived.
    let (first, second) = ("10.77.3.3", "10.77.9.9");
    for address in [first, second] {
        assert!(pod.run("ip", &format!("addr add {address}/16 dev eth0")), "{address}");
    }
    let emulator = start_emulator_at((pod.proxy6, 0).into()).await;
    let host = format!("[{}]", pod.proxy6);
    for (peers, status) in [("10.77.0.0/16", "401"), ("10.77.0.0/16,10.77.3.3", "200")] {
        let trusted = [("VELT_SIDECAR_IDENTITY__TRUSTED_PEERS", peers)];
        let mut sidecar = started(&pod, "127.0.0.1:3000", (&emulator, &host), &trusted).await;
        // A program of the pod, as the proxy of a mesh, connects to both addresses from the first.
        for address in [first, second] {
            let url = format!("http://{address}:{}{TOKEN}", sidecar.traffic.port());
            let mut curl = pod.command("/usr/bin/curl");
            curl.args(["-so", "/dev/null", "-w", "%{local_ip} %{http_code}"]);
            let asked =
                curl.args(["-H", "x-forwarded-user: ada", &url]).stdout(Stdio::piped()).output();
            let told = String::from_utf8(asked.expect("curl is installed").stdout).expect("text");
            assert_eq!(told, format!("{first} {status}"), "{peers}: {url}");
        }
        if status == "401" {
            sidecar.line_with("the peer has this sidecar's own address").await;
        }
    }
}

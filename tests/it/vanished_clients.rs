//! Clients that vanish without closing, as when their host loses power or its network.

use std::io::Read as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use http::Response;
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

use crate::support::app::FakeApp;
use crate::support::record::left_out;
use crate::support::{PATIENCE, Stage};

fn ip(arguments: &str) -> bool {
    let ran = Command::new("ip").args(arguments.split(' ')).stderr(Stdio::null()).status();
    ran.is_ok_and(|status| status.success())
}

/// A network namespace that acts as another host, with a wire to this host. Dropping it removes the
/// namespace.
struct Host {
    name: String,
    /// Address of this host, as the other host sees it.
    here: String,
}

impl Host {
    /// Makes the namespace; `None` where this process may not make one.
    fn plug_in() -> Option<Self> {
        let number = std::process::id() % 16_000;
        let name = format!("velt-{number}");
        // The network is among those for benchmarks (RFC 2544), with four addresses for each process.
        let network = |last| {
            let host = 4 * number + last;
            format!("198.18.{}.{}", host / 256, host % 256)
        };
        let (here, there) = (network(1), network(2));
        if !ip(&format!("netns add {name}")) {
            return None;
        }
        let host = Self { name, here };
        let Self { name, here } = &host;
        let plugged = ip(&format!("link add {name}-a type veth peer name {name}-b netns {name}"))
            && ip(&format!("addr add {here}/30 dev {name}-a"))
            && ip(&format!("link set {name}-a up"))
            && ip(&format!("-n {name} addr add {there}/30 dev {name}-b"))
            && ip(&format!("-n {name} link set {name}-b up"));
        plugged.then_some(host)
    }

    /// Cuts the wire: no packet from the other host arrives here any more, and neither end is told.
    fn vanish(&self) {
        let Self { name, here } = self;
        assert!(ip(&format!("-n {name} route add blackhole {here}/32")));
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        ip(&format!("netns del {}", self.name));
    }
}

/// Client on the other host.
struct Client(Child);

impl Drop for Client {
    fn drop(&mut self) {
        // The client may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// App that sends an event every now and then.
async fn events() -> FakeApp {
    FakeApp::answering(|_| {
        let events = futures_util::stream::unfold((), |()| async {
            // An event stream has pauses. They are shorter than the write timeout of the test.
            sleep(Duration::from_millis(230)).await;
            Some((Ok(Frame::data("data: 1\n\n".into())), ()))
        });
        Response::new(StreamBody::new(events).boxed())
    })
    .await
}

#[tokio::test]
async fn vanished_client_of_event_stream_is_found() {
    let Some(host) = Host::plug_in() else {
        left_out("`ip netns add` needs root and iproute2");
        return;
    };
    // A client may leave bytes unacknowledged for half as long again as this limit.
    let toml = "[listen]\naddress = \"0.0.0.0:0\"\nwrite_timeout = \"2s\"";
    let stage = Stage::with(events().await, toml).await;
    let (here, port) = (&host.here, stage.sidecar.addresses.traffic.port());
    let script = format!(
        "exec 3<>/dev/tcp/{here}/{port}; printf 'GET / HTTP/1.1\\r\\nhost: a\\r\\n\\r\\n' >&3; exec cat <&3"
    );
    let client = Command::new("ip")
        .args(["netns", "exec", &host.name, "bash", "-c", &script])
        .stdout(Stdio::piped())
        .spawn();
    let mut client = Client(client.expect("it can be started"));
    let mut answer = client.0.stdout.take().expect("piped");
    let reading = spawn_blocking(move || answer.read_exact(&mut [0; 200]).map(|()| answer));
    let read = timeout(PATIENCE, reading).await.expect("in time").expect("no panic");
    let _open = read.expect("events");
    assert_eq!(stage.metric("app_connections").await, 1.0);
    host.vanish();
    stage.sidecar.metric_reaches("app_connections", 0.0).await;
    stage.sidecar.metric_reaches("connections_open", 0.0).await;
}

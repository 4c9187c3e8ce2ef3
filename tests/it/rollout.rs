//! A rollout as Kubernetes does it: pods come and go one by one behind a balancer that follows their
//! readiness, clients keep their connections for as long as they may, and none of them loses a request.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tools::probe::{self, Probe};

use crate::shutdown::load;
use crate::support::app::FakeApp;
use crate::support::binary::finished;
use crate::support::record::record;
use crate::support::velt::FakeVelt;
use crate::support::{PATIENCE, TestSidecar};

/// Time between two looks at every pod's readiness, as a kubelet's `periodSeconds`.
const PROBE_PERIOD: Duration = Duration::from_millis(20);

/// Settings of deploy/kustomize/common/settings.env.
const SETTINGS: &str = "[shutdown]\ngrace = \"0s\"";

/// A sidecar and its app.
struct Pod {
    app: FakeApp,
    sidecar: TestSidecar,
}

/// Order in which a pod's containers end.
#[derive(Clone, Copy, Debug)]
enum Order {
    /// The app ends before the sidecar is sent SIGTERM, as with native sidecars.
    AppFirst,
    /// Ordinary containers end all at once and in any order; the app may be gone before the sidecar
    /// notices SIGTERM.
    Together,
}

impl Pod {
    async fn start(velt: &FakeVelt) -> Self {
        let app = FakeApp::start().await;
        let sidecar = TestSidecar::start(&app.address.to_string(), velt.address, SETTINGS);
        Self { app, sidecar }
    }

    /// Ends the pod: first the preStop hooks of all containers, side by side.
    async fn end(mut self, balancer: &Balancer, order: Order) {
        let (traffic, admin) = (self.sidecar.addresses.traffic, self.sidecar.addresses.admin);
        let url = format!("http://{admin}");
        let hook = finished(&["drain", "--admin", &url], &[]).await;
        assert_eq!(hook.code, Some(0), "{}", hook.stderr);
        // The app's preStop sleep lasts for as long as this wait.
        balancer.has_left(traffic).await;
        match order {
            Order::AppFirst => {
                self.app.die().await;
                self.sidecar.terminate();
            }
            Order::Together => {
                self.sidecar.terminate();
                self.app.die().await;
            }
        }
        self.sidecar.ended().await;
        balancer.forget(traffic);
    }
}

/// State of a pod, as the balancer knows it.
struct Endpoint {
    admin: SocketAddr,
    ready: bool,
    /// Number of connections that the balancer carries to the pod.
    open: usize,
}

/// Carries connections to pods that are ready, in turn.
#[derive(Clone)]
struct Balancer {
    address: SocketAddr,
    endpoints: watch::Sender<BTreeMap<SocketAddr, Endpoint>>,
    tasks: Arc<Mutex<Vec<JoinHandle<()>>>>,
}

impl Balancer {
    async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let balancer = Self { address, endpoints: watch::Sender::default(), tasks: Arc::default() };
        let (carrying, probing) = (balancer.clone(), balancer.clone());
        let tasks = [
            tokio::spawn(async move { carrying.carry(listener).await }),
            tokio::spawn(async move { probing.probe().await }),
        ];
        balancer.tasks.lock().expect("no panic").extend(tasks);
        balancer
    }

    async fn carry(&self, listener: TcpListener) {
        for turn in 0_usize.. {
            let (mut client, _) = listener.accept().await.expect("a connection");
            let pod = {
                let endpoints = self.endpoints.borrow();
                let ready: Vec<_> = endpoints.iter().filter(|(_, pod)| pod.ready).collect();
                *ready.get(turn % ready.len().max(1)).expect("a pod is ready at any time").0
            };
            let endpoints = self.endpoints.clone();
            let count = move |change: isize| {
                endpoints.send_modify(|endpoints| {
                    let endpoint = endpoints.get_mut(&pod).expect("it is forgotten last");
                    endpoint.open = endpoint.open.checked_add_signed(change).expect("counted");
                });
            };
            count(1);
            tokio::spawn(async move {
                // If the connection breaks, the client loses a request and says so.
                if let Ok(mut stream) = TcpStream::connect(pod).await {
                    let _ = copy_bidirectional(&mut client, &mut stream).await;
                }
                count(-1);
            });
        }
    }

    async fn probe(&self) {
        loop {
            let pods: Vec<_> =
                self.endpoints.borrow().iter().map(|(pod, known)| (*pod, known.admin)).collect();
            for (pod, admin) in pods {
                let ready = is_ready(admin).await;
                self.endpoints.send_if_modified(|endpoints| {
                    let Some(known) = endpoints.get_mut(&pod) else { return false };
                    std::mem::replace(&mut known.ready, ready) != ready
                });
            }
            // A kubelet looks by the clock; a change of readiness sends it no event.
            sleep(PROBE_PERIOD).await;
        }
    }

    /// Adds a pod, and waits until it is ready.
    async fn add(&self, pod: &Pod) {
        let (traffic, admin) = (pod.sidecar.addresses.traffic, pod.sidecar.addresses.admin);
        let endpoint = Endpoint { admin, ready: false, open: 0 };
        self.endpoints.send_modify(|endpoints| {
            endpoints.insert(traffic, endpoint);
        });
        self.wait("ready", traffic, |endpoint| endpoint.ready).await;
    }

    /// Waits until no connection goes to `pod`, and none will.
    async fn has_left(&self, pod: SocketAddr) {
        self.wait("left", pod, |endpoint| !endpoint.ready && endpoint.open == 0).await;
    }

    async fn wait(&self, what: &str, pod: SocketAddr, fits: impl Fn(&Endpoint) -> bool) {
        let mut endpoints = self.endpoints.subscribe();
        let waiting = endpoints.wait_for(|endpoints| fits(&endpoints[&pod]));
        let waited = timeout(PATIENCE, waiting).await;
        assert!(waited.is_ok(), "{pod} is never {what}");
    }

    fn forget(&self, pod: SocketAddr) {
        self.endpoints.send_modify(|endpoints| {
            endpoints.remove(&pod);
        });
    }
}

async fn is_ready(admin: SocketAddr) -> bool {
    // The sidecar may have ended, or may be about to end.
    let asking = move || probe::ask(&format!("http://{admin}"), Probe::Ready).is_ok();
    tokio::task::spawn_blocking(asking).await.expect("no panic")
}

/// Pods that are replaced while clients ask.
const REPLACED: usize = 8;

/// Replaces both pods of a deployment, several times over, under load.
async fn roll_out(order: Order) {
    let velt = FakeVelt::start().await;
    let balancer = Balancer::start().await;
    let mut pods = Vec::new();
    for _ in 0..2 {
        let pod = Pod::start(&velt).await;
        balancer.add(&pod).await;
        pods.push(pod);
    }
    let stop = watch::Sender::new(false);
    let clients: Vec<_> =
        (0..4).map(|_| tokio::spawn(load(balancer.address, stop.subscribe()))).collect();
    for _ in 0..REPLACED {
        // maxUnavailable: 0, maxSurge: 1.
        let new = Pod::start(&velt).await;
        balancer.add(&new).await;
        let old = pods.remove(0);
        old.end(&balancer, order).await;
        pods.push(new);
    }
    stop.send_replace(true);
    // A client stops at its first request that fails.
    let (mut answered, mut lost) = (0, Vec::new());
    for client in clients {
        match client.await.expect("no panic") {
            Ok(requests) => answered += requests,
            Err(error) => lost.push(error),
        }
    }
    let figures = json!({ "pods": REPLACED, "requests": answered, "lost": lost.len() });
    record("rollouts", &format!("{order:?}"), &figures);
    assert!(lost.is_empty(), "{lost:?}");
    assert!(answered >= 4 * 8, "only {answered} requests were under way");
    for task in balancer.tasks.lock().expect("no panic").drain(..) {
        assert!(!task.is_finished(), "the balancer has panicked");
        task.abort();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollout_with_native_sidecars_loses_no_request() {
    roll_out(Order::AppFirst).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollout_with_ordinary_containers_loses_no_request() {
    roll_out(Order::Together).await;
}

//! Half-written content is not put into force, however long its writer stands still between two looks.

use ground::tls::RESTED;
use tokio::time::Instant;

use super::{Folder, Mounted, Pod, connect};
use crate::support::certificates::{Authority, VALID};
use crate::support::client::Client;

/// Many looks in the time for which new content has to rest.
const HASTY: &str = "[reload]\ninterval = \"20ms\"\n";

/// Waits until the sidecar has looked `count` more times.
async fn looks(pod: &Pod, count: f64) {
    let so_far = pod.sidecar.metric("reload_looks_total").await;
    pod.sidecar.metric_exceeds("reload_looks_total", so_far + count).await;
}

#[tokio::test]
async fn secret_is_taken_once_its_file_stays_unchanged() {
    let pod = Pod::start(HASTY).await;
    for part in ["second", "second-to", "second-token"] {
        pod.folder.write("token", part);
        looks(&pod, 8.0).await;
        assert_eq!(pod.reloads("config").await, [0.0, 0.0, 0.0], "{part}");
    }
    pod.sidecar.metric_reaches("reloads_total{part=\"config\"}", 1.0).await;
    assert_eq!(pod.get_as("ada", "/api/velt/token").await.status(), 200);
    let calls = pod.velt.calls();
    assert!(calls.iter().all(|call| call.body["data"]["authToken"] == "second-token"));
    assert_eq!(pod.reloads("config").await, [1.0, 0.0, 0.0], "no half was complained of");
}

#[tokio::test]
async fn secret_beside_a_wrong_configuration_must_stay_unchanged() {
    let pod = Pod::start(HASTY).await;
    pod.folder.write("sidecar.toml", "[wrong");
    pod.sidecar.metric_reaches("reload_failing{part=\"config\"}", 1.0).await;
    pod.folder.write("token", "second");
    looks(&pod, 8.0).await;
    pod.folder.write("token", "second-token");
    pod.sidecar.metric_reaches("reloads_total{part=\"config\"}", 1.0).await;
    assert_eq!(pod.get_as("ada", "/api/velt/token").await.status(), 200);
    let last = pod.velt.calls().pop().expect("a call");
    assert_eq!(last.body["data"]["authToken"], "second-token");
}

#[tokio::test]
async fn bundle_is_taken_once_its_file_stays_unchanged() {
    let (one, two, folder) = (Authority::new(), Authority::new(), Folder::new());
    folder.write_pair(&one.issue(&["localhost"], VALID));
    folder.write("ca.crt", one.pem());
    let toml = format!("{}client_ca_file = \"FOLDERca.crt\"\n{HASTY}", folder.toml());
    let pod = Pod::with(folder, &toml).await;
    // The first half is a whole certificate, but not the certificate from before.
    pod.folder.write("ca.crt", two.pem());
    looks(&pod, 8.0).await;
    assert_eq!(pod.reloads("listen_tls").await, [0.0, 0.0, 0.0]);
    pod.folder.write("ca.crt", format!("{}{}", two.pem(), one.pem()));
    pod.sidecar.metric_reaches("reloads_total{part=\"listen_tls\"}", 1.0).await;
    for authority in [&one, &two] {
        let client = one.client(Some(&authority.issue(&["front"], VALID)), &["http/1.1"]);
        let stream = connect(pod.sidecar.addresses.traffic, &client).await.expect("a handshake");
        let sending = Client::to(pod.sidecar.addresses.traffic).get("/");
        assert!(sending.try_send_over(stream).await.is_ok());
    }
    assert_eq!(pod.reloads("listen_tls").await, [1.0, 0.0, 0.0]);
}

#[tokio::test]
async fn a_mounted_secret_is_taken_at_once() {
    let folder = Folder::new();
    let mut secret = Mounted::new(folder.path("secret").into(), &[("t", "old-token")]);
    let toml = format!("{HASTY}[velt]\nauth_token_file = \"FOLDERsecret/t\"\n");
    let pod = Pod::with(folder, &toml).await;
    secret.replace(&[("t", "new-token")]);
    let since = Instant::now();
    pod.sidecar.metric_reaches("reloads_total{part=\"config\"}", 1.0).await;
    assert!(since.elapsed() < RESTED, "{:?}", since.elapsed());
    assert_eq!(pod.get_as("ada", "/api/velt/token").await.status(), 200);
    assert_eq!(pod.velt.calls()[0].body["data"]["authToken"], "new-token");
}

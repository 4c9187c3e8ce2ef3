//! Files that are read again while the sidecar runs: configuration, secrets, certificates.

mod half;
mod whole;

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use aws_lc_rs::hmac::{self, HMAC_SHA256, Key};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use server::Addresses;
use server::config::Origin;
use server::reload::Trigger;
use tokio::sync::oneshot::{self, error::TryRecvError};
use tokio::task::JoinSet;

use crate::support::app::FakeApp;
use crate::support::binary::Running;
use crate::support::certificates::{Authority, EXPIRED, Folder, Leaf, VALID, connect, terminate};
use crate::support::client::{Answer, Client};
use crate::support::issuer::{Issuer, Pen, claims};
use crate::support::velt::{FakeVelt, minted, refused, token, unix_seconds};
use crate::support::{API_KEY, TestSidecar, document};

/// A sidecar that was started from files, as in a pod.
struct Pod {
    app: FakeApp,
    velt: FakeVelt,
    folder: Folder,
    sidecar: TestSidecar,
    trigger: Trigger,
    toml: String,
}

impl Pod {
    /// Starts a sidecar with credentials in files; `FOLDER` in `toml` stands for their folder.
    async fn start(toml: &str) -> Self {
        Self::with(Folder::new(), toml).await
    }

    async fn with(folder: Folder, toml: &str) -> Self {
        let (app, velt) = (FakeApp::start().await, FakeVelt::start().await);
        folder.write("key", API_KEY);
        folder.write("token", "first-token");
        let files = format!(
            "[velt]\napi_key_file = \"{}\"\nauth_token_file = \"{}\"\n",
            folder.path("key"),
            folder.path("token")
        );
        let toml = toml.replace("FOLDER", &folder.path(""));
        let whole = document(&app.address.to_string(), velt.address, &format!("{toml}\n{files}"));
        let file = folder.write("sidecar.toml", &whole);
        let origin = Origin::new(Some(Path::new(&file)), BTreeMap::new());
        let config = origin.load().unwrap_or_else(|error| panic!("{error}"));
        let (sidecar, trigger) = TestSidecar::run_reloading(config);
        Self { app, velt, folder, sidecar, trigger, toml: whole }
    }

    /// Replaces a part of the configuration, and makes the sidecar look at the file.
    async fn change(&mut self, from: &str, to: &str) {
        assert!(self.toml.contains(from), "{from} in {}", self.toml);
        self.toml = self.toml.replacen(from, to, 1);
        self.folder.write("sidecar.toml", &self.toml);
        self.trigger.reload().await;
    }

    async fn get_as(&self, user: &str, path: &str) -> Answer {
        let client = Client::to(self.sidecar.addresses.traffic);
        client.get(path).header("x-forwarded-user", user).send().await
    }

    async fn reloads(&self, part: &str) -> [f64; 3] {
        let mut counts = [0.0; 3];
        for (count, name) in
            counts.iter_mut().zip(["reloads_total", "reload_rejections_total", "reload_failing"])
        {
            *count = self.sidecar.metric(&format!("{name}{{part=\"{part}\"}}")).await;
        }
        counts
    }
}

#[tokio::test]
async fn a_setting_takes_effect_without_a_restart() {
    let mut pod = Pod::start("[delivery.header]\npaths = [\"/a\"]\n").await;
    assert!(pod.get_as("ada", "/b").await.token().is_none());
    pod.change("paths = [\"/a\"]", "paths = [\"/b\"]").await;
    assert!(pod.get_as("ada", "/b").await.token().is_some());
    assert!(pod.get_as("ada", "/a").await.token().is_none());
    assert_eq!(pod.reloads("config").await, [1.0, 0.0, 0.0]);
    pod.trigger.reload().await;
    assert_eq!(pod.reloads("config").await, [1.0, 0.0, 0.0], "nothing new is no reload");

    // The trusted peers.
    pod.change(
        "[delivery.header]",
        "[identity]\ntrusted_peers = [\"192.0.2.1\"]\n[delivery.header]",
    )
    .await;
    assert!(pod.get_as("ada", "/b").await.token().is_none());
    // The path of a token route.
    let route = "[[delivery.route]]\npath = \"/token\"\n[identity]\n";
    pod.change("[identity]\ntrusted_peers = [\"192.0.2.1\"]\n", route).await;
    assert_eq!(pod.get_as("ada", "/token").await.status(), 200);
    assert_eq!(pod.app.journal().iter().filter(|arrived| arrived.target == "/token").count(), 0);
}

#[tokio::test]
async fn setting_that_needs_a_restart_waits_and_the_rest_takes_effect() {
    let mut pod =
        Pod::start("[listen]\nmax_headers = 50\n[delivery.header]\npaths = [\"/a\"]\n").await;
    pod.change("max_headers = 50", "max_headers = 5").await;
    let waiting = "config_restart_needed";
    assert_eq!(pod.sidecar.metric(waiting).await, 1.0);
    assert_eq!(pod.reloads("config").await, [0.0, 0.0, 0.0]);
    pod.change("paths = [\"/a\"]", "paths = [\"/b\"]").await;
    assert_eq!(pod.reloads("config").await, [1.0, 0.0, 0.0]);
    let many = (0..10).fold(Client::to(pod.sidecar.addresses.traffic).get("/b"), |sending, n| {
        sending.header(&format!("x-app-{n}"), "1")
    });
    let answer = many.header("x-forwarded-user", "ada").send().await;
    assert!(answer.token().is_some(), "more headers than the new limit: {answer:?}");
    assert_eq!(pod.sidecar.metric(waiting).await, 1.0, "it is told for as long as it waits");
    pod.change("max_headers = 5", "max_headers = 50").await;
    assert_eq!(pod.sidecar.metric(waiting).await, 0.0);
}

#[tokio::test]
async fn bad_configuration_is_told_once_and_the_last_good_one_stays() {
    let mut pod = Pod::start("[delivery.header]\npaths = [\"/a\"]\n").await;
    let good = pod.toml.clone();
    for (number, bad) in [
        good.replace("[\"/a\"]", "[\"a\"]"),
        good.replace("paths", "path"),
        "[delivery.header".to_owned(),
        String::new(),
    ]
    .iter()
    .enumerate()
    {
        pod.folder.write("sidecar.toml", bad);
        pod.trigger.reload().await;
        assert_eq!(pod.reloads("config").await, [0.0, number as f64 + 1.0, 1.0], "{bad}");
        assert!(pod.get_as("ada", "/a").await.token().is_some());
    }
    fs::remove_file(pod.folder.path("sidecar.toml")).expect("removed");
    pod.trigger.reload().await;
    assert_eq!(pod.reloads("config").await, [0.0, 5.0, 1.0]);
    pod.folder.write("sidecar.toml", &good);
    pod.trigger.reload().await;
    assert_eq!(pod.reloads("config").await, [0.0, 5.0, 0.0], "what is in force lies there again");
    pod.change("[\"/a\"]", "[\"/b\"]").await;
    assert_eq!(pod.reloads("config").await, [1.0, 5.0, 0.0]);
}

#[tokio::test]
async fn changed_files_are_found_without_a_signal() {
    let mut pod =
        Pod::start("[reload]\ninterval = \"50ms\"\n[delivery.header]\npaths = [\"/a\"]\n").await;
    pod.toml = pod.toml.replace("[\"/a\"]", "[\"/b\"]");
    pod.folder.write("sidecar.toml", &pod.toml);
    pod.sidecar.metric_reaches("reloads_total{part=\"config\"}", 1.0).await;
    assert!(pod.get_as("ada", "/b").await.token().is_some());
    // Bad content is counted once, however often it is looked at.
    pod.folder.write("sidecar.toml", "[nonsense");
    pod.sidecar.metric_reaches("reload_failing{part=\"config\"}", 1.0).await;
    let looks = pod.sidecar.metric("reload_looks_total").await;
    pod.sidecar.metric_exceeds("reload_looks_total", looks + 2.0).await;
    assert_eq!(pod.reloads("config").await, [1.0, 1.0, 1.0]);
}

/// Makes each reading of the file at `path` find the next of `versions`; the last version stays.
fn found_in_turn(path: &str, versions: Vec<String>) {
    let (path, next) = (path.to_owned(), format!("{path}.next"));
    let replace_by_pipe = {
        let (path, next) = (path.clone(), next.clone());
        move || {
            let made = Command::new("mkfifo").arg(&next).status().expect("mkfifo is installed");
            assert!(made.success(), "a pipe");
            fs::rename(&next, &path).expect("replaced");
        }
    };
    replace_by_pipe();
    std::thread::spawn(move || {
        let count = versions.len();
        for (nth, version) in versions.into_iter().enumerate() {
            // Opening blocks until the reader opens the pipe.
            let mut pipe = OpenOptions::new().write(true).open(&path).expect("a pipe");
            pipe.write_all(version.as_bytes()).expect("it is read");
            // The reader sees the end only once the next version is in place.
            if nth + 1 < count {
                replace_by_pipe();
            } else {
                fs::write(&next, version).expect("a disk");
                fs::rename(&next, &path).expect("replaced");
            }
        }
    });
}

#[tokio::test]
async fn half_written_configuration_is_waited_for() {
    let pod = Pod::start("[delivery.header]\npaths = [\"/a\"]\n").await;
    let whole = pod.toml.replace("[\"/a\"]", "[\"/b\"]");
    let half = whole[..whole.len() / 2].to_owned();
    let versions = vec![String::new(), half, whole.clone(), whole];
    found_in_turn(&pod.folder.path("sidecar.toml"), versions);
    pod.trigger.reload().await;
    assert_eq!(pod.reloads("config").await, [1.0, 0.0, 0.0], "no half of it was judged");
    assert!(pod.get_as("ada", "/b").await.token().is_some());
}

#[tokio::test]
async fn half_written_secret_is_waited_for() {
    let pod = Pod::start("").await;
    let versions = ["", "second", "second-token", "second-token"].map(str::to_owned).into();
    found_in_turn(&pod.folder.path("token"), versions);
    pod.trigger.reload().await;
    assert_eq!(pod.reloads("config").await, [1.0, 0.0, 0.0], "no half of it was judged");
    assert_eq!(pod.get_as("ada", "/api/velt/token").await.status(), 200);
    let calls = pod.velt.calls();
    assert!(calls.iter().all(|call| call.body["data"]["authToken"] == "second-token"));
}

#[tokio::test]
async fn configuration_that_never_settles_is_judged_as_last_read() {
    let pod = Pod::start("[delivery.header]\npaths = [\"/0\"]\n").await;
    let version = |nth| pod.toml.replace("[\"/0\"]", &format!("[\"/{nth}\"]"));
    found_in_turn(&pod.folder.path("sidecar.toml"), (1..30).map(version).collect());
    pod.trigger.reload().await;
    let [reloads, rejections, _] = pod.reloads("config").await;
    assert_eq!((reloads, rejections), (1.0, 0.0));
    assert!(pod.get_as("ada", "/6").await.token().is_some(), "six readings");
}

/// A mounted Secret as the kubelet lays it out: files are links into `..data`, which is a link itself
/// and is replaced as a whole.
struct Mounted {
    root: PathBuf,
    versions: usize,
}

impl Mounted {
    fn new(root: PathBuf, content: &[(&str, &str)]) -> Self {
        fs::create_dir(&root).expect("a folder");
        let mut mounted = Self { root, versions: 0 };
        mounted.replace(content);
        for (name, _) in content {
            symlink(format!("..data/{name}"), mounted.root.join(name)).expect("a link");
        }
        mounted
    }

    fn replace(&mut self, content: &[(&str, &str)]) {
        self.versions += 1;
        let version = format!("..2026_11_22_{}", self.versions);
        fs::create_dir(self.root.join(&version)).expect("a folder");
        for (name, text) in content {
            fs::write(self.root.join(&version).join(name), text).expect("written");
        }
        let next = self.root.join("..data_tmp");
        symlink(&version, &next).expect("a link");
        fs::rename(&next, self.root.join("..data")).expect("replaced");
    }
}

#[tokio::test]
async fn credentials_are_replaced_and_tokens_of_the_old_ones_live_on() {
    let folder = Folder::new();
    let mut secret = Mounted::new(folder.path("secret").into(), &[("t", "old-token")]);
    let mut pod = Pod::with(folder, "[velt]\nauth_token_file = \"FOLDERsecret/t\"\n").await;
    let old = pod.get_as("ada", "/").await.token().expect("a token").to_owned();
    assert_eq!(pod.velt.calls()[0].body["data"]["authToken"], "old-token");

    secret.replace(&[("t", "new-token")]);
    pod.trigger.reload().await;
    assert_eq!(pod.reloads("config").await, [1.0, 0.0, 0.0]);
    assert_eq!(pod.sidecar.metric("tokens_of_old_credentials").await, 1.0);
    // The cache still serves the old token, although the sidecar calls Velt with the new credentials
    // only.
    assert_eq!(pod.get_as("ada", "/").await.token(), Some(&*old));
    pod.get_as("grace", "/").await.token().expect("a token");
    let calls = pod.velt.calls();
    assert_eq!(calls.last().expect("a call").body["data"]["authToken"], "new-token");

    // Another API key is another workspace, for which the old tokens are of no use.
    pod.folder.write("key", "other-key");
    pod.trigger.reload().await;
    let other = pod.get_as("ada", "/").await.token().expect("a token").to_owned();
    assert_ne!(other, old);
    assert_eq!(pod.velt.calls().last().expect("a call").body["data"]["apiKey"], "other-key");
    pod.toml.clear();
}

#[tokio::test]
async fn new_credentials_end_the_suspension_of_the_old_ones() {
    let pod = Pod::start("").await;
    pod.velt.script(|call, n| {
        if call.body["data"]["authToken"] == "second-token" {
            minted(&token(call.user(), n))
        } else {
            refused(401, "UNAUTHENTICATED")
        }
    });
    // After so many refusals, the sidecar no longer calls Velt.
    for user in ["ada", "grace", "linus", "edsger", "barbara"] {
        assert_eq!(pod.get_as(user, "/api/velt/token").await.code(), "token_refused");
    }
    assert_eq!(pod.sidecar.metric("refusals_suspended").await, 1.0);
    pod.folder.write("token", "second-token");
    pod.trigger.reload().await;
    assert_eq!(pod.sidecar.metric("refusals_suspended").await, 0.0);
    for user in ["ada", "alan"] {
        assert_eq!(pod.get_as(user, "/api/velt/token").await.status(), 200, "{user}");
    }
}

#[tokio::test]
async fn the_shared_secret_is_replaced() {
    let folder = Folder::new();
    let (old, new) = ("o".repeat(40), "n".repeat(40));
    folder.write("shared", &old);
    let toml = "[identity]\nsecret_header = \"X-Sidecar-Secret\"\nsecret_file = \"FOLDERshared\"\n";
    let pod = Pod::with(folder, toml).await;
    let shown = async |secret: &str| {
        let client = Client::to(pod.sidecar.addresses.traffic);
        let sending = client.get("/").header("x-forwarded-user", "ada");
        sending.header("x-sidecar-secret", secret).send().await.token().is_some()
    };
    assert!(shown(&old).await && !shown(&new).await);
    pod.folder.write("shared", &new);
    pod.trigger.reload().await;
    assert!(!shown(&old).await && shown(&new).await);
    pod.folder.write("shared", "short");
    pod.trigger.reload().await;
    assert_eq!(pod.reloads("config").await, [1.0, 1.0, 1.0]);
    assert!(shown(&new).await, "the last good one stays");
}

#[tokio::test]
async fn logouts_outlive_a_reload_that_replaces_the_webhooks_secret() {
    let folder = Folder::new();
    let secret = |byte: u8| format!("whsec_{}", STANDARD.encode([byte; 32]));
    folder.write("webhook", secret(1));
    let toml = "[logout.webhook]\npath = \"/velt/logout\"\nsecret_file = \"FOLDERwebhook\"\n";
    let pod = Pod::with(folder, toml).await;
    let client = || Client::to(pod.sidecar.addresses.traffic);
    let sign_out = async |id: &str, user: &str, byte: u8| {
        let (at, body) = (unix_seconds(), format!("{{\"user\":\"{user}\"}}"));
        let message = format!("{id}.{at}.{body}");
        let signature = hmac::sign(&Key::new(HMAC_SHA256, &[byte; 32]), message.as_bytes());
        let signature = format!("v1,{}", STANDARD.encode(signature));
        let call = client().post("/velt/logout", body).header("webhook-id", id);
        let call = call.header("webhook-timestamp", at.to_string());
        call.header("webhook-signature", signature).send().await.status()
    };
    let status = async |user: &str| {
        let asking = client().get("/api/velt/token").header("x-forwarded-user", user);
        asking.send().await.status()
    };
    assert_eq!((sign_out("1", "ada", 1).await, sign_out("2", "bob", 2).await), (200, 401));
    pod.folder.write("webhook", secret(2));
    pod.trigger.reload().await;
    assert_eq!((sign_out("3", "bob", 1).await, status("bob").await), (401, 200));
    assert_eq!(sign_out("4", "bob", 2).await, 200);
    assert_eq!((status("ada").await, status("bob").await), (401, 401), "both are remembered");
    assert_eq!(sign_out("1", "ada", 2).await, 200, "and so are the calls");
    pod.folder.write("webhook", "short");
    pod.trigger.reload().await;
    assert_eq!(sign_out("5", "eve", 2).await, 200, "the last good one stays");
}

#[tokio::test]
async fn keys_of_assertions_outlive_a_reload_that_is_not_about_them() {
    let pen = Pen::es256("one");
    let issuer = Issuer::publishing(&[&pen]).await;
    let mut pod = Pod::start(&format!("{}leeway = \"30s\"\n", issuer.toml())).await;
    let ask = async |pod: &Pod| {
        let client = Client::to(pod.sidecar.addresses.traffic);
        let assertion = pen.sign(&claims("ada"));
        client.get("/").header("x-assertion", assertion).send().await.token().is_some()
    };
    assert!(ask(&pod).await);
    let fetches = issuer.fetch_count();
    pod.change("leeway = \"30s\"", "leeway = \"20s\"").await;
    assert_eq!(pod.reloads("config").await, [1.0, 0.0, 0.0]);
    assert!(ask(&pod).await);
    assert_eq!(issuer.fetch_count(), fetches);
}

/// The serial number of the certificate that the listener shows now.
async fn shown(pod: &Pod, authority: &Authority) -> Vec<u8> {
    let stream =
        connect(pod.sidecar.addresses.traffic, &authority.client(None, &["http/1.1"])).await;
    let stream = stream.expect("a handshake");
    stream.get_ref().1.peer_certificates().expect("one")[0].to_vec()
}

#[tokio::test]
async fn certificates_are_replaced_and_open_connections_keep_theirs() {
    let (authority, folder) = (Authority::new(), Folder::new());
    let first = authority.issue(&["localhost"], VALID);
    folder.write_pair(&first);
    let toml = folder.toml();
    let pod = Pod::with(folder, &toml).await;
    let client = authority.client(None, &["h2"]);
    let stream = connect(pod.sidecar.addresses.traffic, &client).await.expect("a handshake");
    let (mut sender, connection) = hyper::client::conn::http2::handshake(
        hyper_util::rt::TokioExecutor::new(),
        hyper_util::rt::TokioIo::new(stream),
    )
    .await
    .expect("HTTP/2");
    tokio::spawn(connection);
    let mut still_open = async || {
        let request = http::Request::get("https://localhost/")
            .body(http_body_util::Full::<bytes::Bytes>::default());
        let answer = sender.send_request(request.expect("a request")).await.expect("an answer");
        assert_eq!(answer.status(), 200);
    };
    still_open().await;
    let before = shown(&pod, &authority).await;
    let expiry = "certificate_expiry_timestamp_seconds{certificate=\"listen\"}";
    assert_eq!(pod.sidecar.metric(expiry).await, 4_102_444_800.0);

    let second = authority.issue(&["localhost"], (2020, 2090));
    pod.folder.write("tls.key", &second.key);
    pod.trigger.reload().await;
    assert_eq!(pod.reloads("listen_tls").await, [0.0, 1.0, 1.0], "half of a pair");
    assert_eq!(shown(&pod, &authority).await, before);
    pod.folder.write("tls.crt", &second.certificate);
    pod.trigger.reload().await;
    assert_eq!(pod.reloads("listen_tls").await, [1.0, 1.0, 0.0]);
    let now = shown(&pod, &authority).await;
    assert_ne!(now, before);
    assert_eq!(pod.sidecar.metric(expiry).await, 3_786_912_000.0);
    still_open().await;

    for (rejected, bad) in [
        (2.0, authority.issue(&["localhost"], EXPIRED)),
        (3.0, authority.issue(&["localhost"], (2090, 2100))),
    ] {
        pod.folder.write_pair(&bad);
        pod.trigger.reload().await;
        assert_eq!(pod.reloads("listen_tls").await, [1.0, rejected, 1.0], "not valid now");
        assert_eq!(shown(&pod, &authority).await, now);
    }
    pod.folder.write("tls.crt", &second.certificate[..300]);
    pod.trigger.reload().await;
    assert_eq!(pod.reloads("listen_tls").await, [1.0, 4.0, 1.0], "half of a file");
    fs::remove_file(pod.folder.path("tls.crt")).expect("removed");
    pod.trigger.reload().await;
    assert_eq!(pod.reloads("listen_tls").await, [1.0, 5.0, 1.0], "no file");
    assert_eq!(shown(&pod, &authority).await, now);
    pod.folder.write_pair(&second);
    pod.trigger.reload().await;
    assert_eq!(pod.reloads("listen_tls").await[2], 0.0, "the one in force lies there again");
    still_open().await;
}

#[tokio::test]
async fn client_authorities_are_replaced() {
    let (ours, theirs, folder) = (Authority::new(), Authority::new(), Folder::new());
    folder.write_pair(&ours.issue(&["localhost"], VALID));
    folder.write("ca.crt", ours.pem());
    let toml = format!("{}client_ca_file = \"FOLDERca.crt\"\n", folder.toml());
    let pod = Pod::with(folder, &toml).await;
    let greeted = async |leaf: &Leaf| {
        let client = ours.client(Some(leaf), &["http/1.1"]);
        let Ok(stream) = connect(pod.sidecar.addresses.traffic, &client).await else {
            return false;
        };
        let sending = Client::to(pod.sidecar.addresses.traffic).get("/");
        sending.try_send_over(stream).await.is_ok()
    };
    let (mine, other) = (ours.issue(&["front"], VALID), theirs.issue(&["front"], VALID));
    assert!(greeted(&mine).await && !greeted(&other).await);
    pod.folder.write("ca.crt", theirs.pem());
    pod.trigger.reload().await;
    assert!(!greeted(&mine).await && greeted(&other).await);
}

#[tokio::test]
async fn app_authorities_are_replaced() {
    let (ours, theirs, folder) = (Authority::new(), Authority::new(), Folder::new());
    let app = FakeApp::start().await;
    let address = terminate(app.address, theirs.issue(&["localhost"], VALID).server(&[])).await;
    folder.write("app.crt", ours.pem());
    let toml = format!(
        "[app]\naddress = \"https://localhost:{}\"\nca_file = \"FOLDERapp.crt\"\n",
        address.port()
    );
    let pod = Pod::with(folder, &toml).await;
    assert_eq!(pod.get_as("ada", "/").await.status(), 502);
    pod.folder.write("app.crt", theirs.pem());
    pod.trigger.reload().await;
    assert_eq!(pod.get_as("ada", "/").await.status(), 200);
    assert_eq!(pod.reloads("app_tls").await, [1.0, 0.0, 0.0]);
}

/// Sends requests without a pause over one connection, and returns the number of answers that were whole
/// and right.
async fn load(addresses: Addresses, user: String, mut stop: oneshot::Receiver<()>) -> usize {
    let stream = tokio::net::TcpStream::connect(addresses.traffic).await.expect("it listens");
    let io = hyper_util::rt::TokioIo::new(stream);
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(io).await.expect("HTTP/1.1");
    tokio::spawn(connection);
    let mut answered = 0;
    let mut first = None;
    while stop.try_recv() == Err(TryRecvError::Empty) {
        let request = http::Request::get("/")
            .header("host", "app.example")
            .header("x-forwarded-user", &user)
            .body(http_body_util::Full::<bytes::Bytes>::default());
        let answer = sender.send_request(request.expect("a request")).await.expect("an answer");
        assert_eq!(answer.status(), 200);
        let token = answer.headers().get("x-velt-token").expect("a token").clone();
        assert_eq!(*first.get_or_insert(token.clone()), token, "no cached token is lost");
        http_body_util::BodyExt::collect(answer.into_body()).await.expect("a whole body");
        answered += 1;
    }
    answered
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousand_reloads_fail_no_request_and_lose_no_token() {
    let toml = "[outgoing]\nroots = \"bundled\"\n[delivery.header]\nmax_wait = \"5s\"\n\
         [identity]\nforward_headers = \"keep\"\n";
    let mut pod = Pod::start(toml).await;
    let users = 8;
    let mut loads = JoinSet::new();
    let mut stops = Vec::new();
    for user in 0..users {
        let (stop, stopped) = oneshot::channel();
        stops.push(stop);
        loads.spawn(load(pod.sidecar.addresses, format!("user-{user}"), stopped));
    }
    pod.velt.calls_reach(users).await;
    let reloads = 1000;
    for number in 0..reloads {
        // Two changes in three are about rules, one is about credentials.
        match number % 3 {
            0 => pod.change("\"5s\"", "\"6s\"").await,
            1 => pod.change("\"6s\"", "\"5s\"").await,
            _ => {
                pod.folder.write("token", format!("token-{number}"));
                pod.trigger.reload().await;
            }
        }
    }
    assert_eq!(pod.reloads("config").await, [f64::from(reloads), 0.0, 0.0]);
    drop(stops);
    let answered: usize = loads.join_all().await.into_iter().sum();
    assert!(answered > 1000, "{answered} requests in all that time");
    // The new credentials refresh a token in the background some minutes later, and not now.
    assert_eq!(pod.velt.call_count(), users);
}

/// Starts a sidecar as a process, with a configuration file that can be changed.
async fn process(toml: &str) -> (Running, Folder, FakeApp, FakeVelt, SocketAddr, String) {
    let (app, velt, folder) = (FakeApp::start().await, FakeVelt::start().await, Folder::new());
    folder.write("token", "canary-first-token");
    let toml = format!("{toml}\n[velt]\nauth_token_file = \"{}\"\n", folder.path("token"));
    let document = document(&app.address.to_string(), velt.address, &toml);
    let file = folder.write("sidecar.toml", &document);
    let environment = [("VELT_API_KEY", API_KEY)];
    let running = Running::start(&["run", "--config", &file], &environment);
    let (running, _, admin) = running.listening().await;
    (running, folder, app, velt, admin, document)
}

#[tokio::test]
async fn sighup_reads_all_again_and_one_line_names_the_changes() {
    let toml = "[reload]\ninterval = \"off\"\n[delivery.header]\nmax_wait = \"250ms\"\n";
    let (mut running, folder, _app, _velt, admin, document) = process(toml).await;
    folder.write("sidecar.toml", document.replace("250ms", "300ms"));
    folder.write("token", "canary-second-token");
    running.signal("HUP");
    let line = running.line_with("a new configuration is in force").await;
    for part in [
        "delivery.header.max_wait: \\\"250ms\\\" -> \\\"300ms\\\"",
        "velt.auth_token: keyed:5ee18792 -> keyed:04c96c4c",
    ] {
        assert!(line.contains(part), "{part} in {line}");
    }
    // Its fingerprint is keyed with the auth token, and the API key has not changed.
    assert!(!line.contains("velt.api_key"), "{line}");
    let asking = Client::to(admin).get("/config").without("host").header("host", "127.0.0.1");
    let config = asking.send().await.text();
    assert!(config.contains("max_wait = \"300ms\""), "{config}");

    folder.write("sidecar.toml", "[listen]\nadress = 1\n");
    running.signal("HUP");
    let line = running.line_with("the configuration was rejected").await;
    assert!(line.contains("did you mean address?"), "{line}");
    folder.write("sidecar.toml", document.replace("grace = \"0s\"", "grace = \"1ms\""));
    running.signal("HUP");
    running.line_with("shutdown.grace: \\\"0s\\\" -> \\\"1ms\\\"").await;
    running.signal("HUP");
    running.line_with("nothing new takes effect").await;
    running.signal("TERM");
    let line = running.line_with("not ready, still accepting").await;
    assert!(line.contains("grace=1ms"), "{line}");
    let (status, printed) = running.ended().await;
    assert!(status.success());
    assert!(!printed.contains("canary-"), "{printed}");
}

#[tokio::test]
async fn memory_does_not_grow_with_reloads() {
    let toml = "[reload]\ninterval = \"off\"\n[outgoing]\nroots = \"bundled\"\n";
    let (running, folder, _app, _velt, admin, document) = process(toml).await;
    let scraped = async |series: &str| -> f64 {
        let scrape = Client::to(admin).get("/metrics").send().await.text();
        let line = scrape.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.expect("a series").parse().expect("a number")
    };
    let mut sizes = Vec::new();
    for number in 1..=250_u32 {
        // Changes rules, credentials and both, in turn.
        folder.write("token", format!("token-{}", number / 2));
        let wait = format!("{}s", 1 + number % 2);
        folder.write(
            "sidecar.toml",
            format!("{document}\n[delivery.header]\nmax_wait = \"{wait}\"\n"),
        );
        running.signal("HUP");
        while scraped("velt_sidecar_reloads_total{part=\"config\"}").await < f64::from(number) {
            tokio::task::yield_now().await;
        }
        sizes.push(scraped("process_resident_memory_bytes").await);
    }
    let (early, late) = (sizes[49], sizes[249]);
    assert!(late - early < 4.0 * 1024.0 * 1024.0, "from {early} to {late} bytes in 200 reloads");
}

#[tokio::test]
async fn new_api_key_retires_the_tokens_of_the_old_key() {
    let pod = Pod::start("").await;
    for user in ["ada", "grace", "linus"] {
        assert_eq!(pod.get_as(user, "/api/velt/token").await.status(), 200);
    }
    assert_eq!(pod.sidecar.metric("tokens_cached").await, 3.0);
    pod.folder.write("key", "another-key");
    pod.trigger.reload().await;
    for user in ["ada", "grace"] {
        assert_eq!(pod.get_as(user, "/api/velt/token").await.status(), 200);
    }
    assert_eq!(pod.sidecar.metric("tokens_cached").await, 2.0);
}

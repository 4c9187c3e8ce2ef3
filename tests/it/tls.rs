//! TLS on the listener and towards the app, and names in clients' certificates.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use server::{self, Server, StartError};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::config::parse;
use crate::support::app::FakeApp;
use crate::support::certificates::{Authority, EXPIRED, Folder, Leaf, VALID, connect, terminate};
use crate::support::client::Client;
use crate::support::velt::FakeVelt;
use crate::support::{ONE_WORKER, PATIENCE, Stage, TestSidecar, config, document};
use crate::websocket;

const BOTH: &[&str] = &["h2", "http/1.1"];

/// A sidecar that speaks TLS as `localhost`, and the authority that signed its certificate.
struct Encrypted {
    stage: Stage,
    authority: Authority,
    _folder: Folder,
}

impl Encrypted {
    async fn set(toml: &str) -> Self {
        Self::before(FakeApp::start().await, toml).await
    }

    async fn before(app: FakeApp, toml: &str) -> Self {
        let (authority, folder) = (Authority::new(), Folder::new());
        folder.write_pair(&authority.issue(&["localhost"], VALID));
        folder.write("clients.crt", authority.pem());
        let toml = toml.replace("CLIENTS", &format!("{:?}", folder.path("clients.crt")));
        let stage = Stage::with(app, &format!("{}{toml}", folder.toml())).await;
        Self { stage, authority, _folder: folder }
    }

    fn traffic(&self) -> SocketAddr {
        self.stage.sidecar.addresses.traffic
    }

    async fn handshakes(&self, result: &str) -> f64 {
        self.stage.metric(&format!("tls_handshakes_total{{result=\"{result}\"}}")).await
    }

    async fn handshakes_reach(&self, result: &str, count: f64) {
        let series = format!("tls_handshakes_total{{result=\"{result}\"}}");
        self.stage.sidecar.metric_reaches(&series, count).await;
    }

    /// Whether a handshake is completed: over TLS 1.3 a client learns of a refusal only when it reads.
    async fn is_greeted(&self, config: &Arc<ClientConfig>) -> bool {
        let Ok(mut stream) = connect(self.traffic(), config).await else { return false };
        let request = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
        let mut answer = Vec::new();
        let exchanged = async {
            stream.write_all(request).await?;
            stream.read_to_end(&mut answer).await
        };
        // A refusal is an alert and an end, either of which may be an error here.
        let _ = timeout(PATIENCE, exchanged).await.expect("an answer or an end");
        answer.starts_with(b"HTTP/1.1 200")
    }
}

#[tokio::test]
async fn both_protocols_are_spoken_over_tls_and_the_app_is_told() {
    let encrypted = Encrypted::set("").await;
    for (offered, version) in [
        (BOTH, http::Version::HTTP_2),
        (&["http/1.1"][..], http::Version::HTTP_11),
        // A client that offers no protocol speaks HTTP/1.1.
        (&[][..], http::Version::HTTP_11),
    ] {
        let stream = connect(encrypted.traffic(), &encrypted.authority.client(None, offered)).await;
        let stream = stream.expect("a handshake");
        let sending = Client::to(encrypted.traffic()).get("/");
        let answer = sending.header("x-forwarded-user", "ada").send_over(stream, version).await;
        assert_eq!(answer.status(), 200, "{offered:?}");
        assert!(answer.token().is_some(), "{offered:?}");
        let arrived = encrypted.stage.app.journal().pop().expect("it asked the app");
        assert_eq!(arrived.header("x-forwarded-proto"), Some("https"), "{offered:?}");
    }
    assert_eq!(encrypted.handshakes("completed").await, 3.0);
    assert_eq!(encrypted.stage.metric("connections_total{protocol=\"http2\"}").await, 1.0);
    // The sidecar does not speak a protocol that it does not offer.
    let odd = encrypted.authority.client(None, &["spdy/3"]);
    assert!(connect(encrypted.traffic(), &odd).await.is_err());
    encrypted.handshakes_reach("failed", 1.0).await;
}

#[tokio::test]
async fn plain_http_on_a_tls_port_is_told_to_use_https() {
    let encrypted = Encrypted::set("").await;
    let mut stream = TcpStream::connect(encrypted.traffic()).await.expect("it listens");
    stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.expect("sent");
    let mut answer = String::new();
    // The end may be a reset, since the sidecar has not read the request; the answer comes first.
    let _ = timeout(PATIENCE, stream.read_to_string(&mut answer)).await.expect("an end");
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer:?}");
    assert!(answer.ends_with("This port speaks TLS: ask with https://\n"), "{answer:?}");
    encrypted.handshakes_reach("not_tls", 1.0).await;
    assert_eq!(encrypted.stage.app.journal().len(), 0);
}

#[tokio::test]
async fn a_handshake_ends_in_time_and_waits_for_its_turn() {
    let limits = "handshake_timeout = \"300ms\"\nmax_handshakes = 1\n";
    let encrypted = Encrypted::set(limits).await;
    // This client begins a handshake, and then has the only turn.
    let mut stalled = TcpStream::connect(encrypted.traffic()).await.expect("it listens");
    stalled.write_all(&[22, 3, 1]).await.expect("sent");
    let mut silent = TcpStream::connect(encrypted.traffic()).await.expect("it listens");
    for stream in [&mut stalled, &mut silent] {
        let ended = timeout(PATIENCE, stream.read(&mut [0])).await.expect("an end");
        assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    }
    encrypted.handshakes_reach("timeout", 2.0).await;
    let client = encrypted.authority.client(None, &["http/1.1"]);
    assert!(encrypted.is_greeted(&client).await);
}

#[tokio::test]
async fn an_idle_connection_over_tls_may_be_idle_for_its_whole_time() {
    let toml = "[listen]\nheader_timeout = \"50ms\"\nidle_timeout = \"5s\"\n";
    let encrypted = Encrypted::set(toml).await;
    let client = encrypted.authority.client(None, &["http/1.1"]);
    let mut stream = connect(encrypted.traffic(), &client).await.expect("a handshake");
    // The sidecar looks several times during this wait. TLS's own bytes must not count as the beginning
    // of a head.
    let nothing = timeout(Duration::from_millis(400), stream.read(&mut [0])).await;
    assert!(nothing.is_err(), "{nothing:?}");
    let answer = Client::to(encrypted.traffic()).get("/");
    assert_eq!(answer.send_over(stream, http::Version::HTTP_11).await.status(), 200);
}

/// Returns the token that a client with this certificate gets for the user `ada`, whom the client names.
async fn token_for(encrypted: &Encrypted, certificate: Option<&Leaf>) -> Option<String> {
    let config = encrypted.authority.client(certificate, &["http/1.1"]);
    let stream = connect(encrypted.traffic(), &config).await.expect("a handshake");
    let sending = Client::to(encrypted.traffic()).get("/").header("x-forwarded-user", "ada");
    let answer = sending.send_over(stream, http::Version::HTTP_11).await;
    assert_eq!(answer.status(), 200);
    answer.token().map(str::to_owned)
}

#[tokio::test]
async fn t10_certificate_without_a_trusted_name_is_not_believed() {
    let encrypted = Encrypted::set(
        "client_ca_file = CLIENTS\nclient_certificate = \"optional\"\n[identity]\n\
         trusted_names = [\"front.auth.svc\", \"spiffe://cluster.local/ns/auth/sa/front\"]\n",
    )
    .await;
    for (names, trusted) in [
        (&["front.auth.svc"][..], true),
        (&["other.auth.svc", "FRONT.auth.svc"], true),
        (&["spiffe://cluster.local/ns/auth/sa/front"], true),
        (&["other.auth.svc"], false),
        (&["front.auth.svc.evil.example"], false),
        (&["*.auth.svc"], false),
        (&["spiffe://cluster.local/ns/auth/sa/front2"], false),
        (&[], false),
    ] {
        let leaf = encrypted.authority.issue(names, VALID);
        let token = token_for(&encrypted, Some(&leaf)).await;
        assert_eq!(token.is_some(), trusted, "{names:?}");
        let arrived = encrypted.stage.app.journal().pop().expect("it asked the app");
        let kept = arrived.header("x-forwarded-user").is_some();
        assert_eq!(kept, trusted, "{names:?}: what is not believed does not reach the app");
    }
    assert_eq!(token_for(&encrypted, None).await, None);
    let spoofs = encrypted.stage.metric("spoof_attempts_total{kind=\"identity_header\"}").await;
    assert_eq!(spoofs, 6.0);
}

#[tokio::test]
async fn trusted_name_and_range_must_both_fit() {
    let toml = "client_ca_file = CLIENTS\n[identity]\ntrusted_names = [\"front\"]\n\
         trusted_peers = [\"192.0.2.0/24\"]\n";
    let encrypted = Encrypted::set(toml).await;
    let leaf = encrypted.authority.issue(&["front"], VALID);
    assert_eq!(token_for(&encrypted, Some(&leaf)).await, None);
}

#[tokio::test]
async fn untrusted_client_certificate_is_refused() {
    let toml = "client_ca_file = CLIENTS\nclient_certificate = \"MODE\"\n";
    for (mode, without) in [("required", false), ("optional", true)] {
        let encrypted = Encrypted::set(&toml.replace("MODE", mode)).await;
        let strangers = Authority::new();
        for (leaf, greeted) in [
            (None, without),
            (Some(encrypted.authority.issue(&["front"], VALID)), true),
            (Some(encrypted.authority.issue(&["front"], EXPIRED)), false),
            (Some(strangers.issue(&["front"], VALID)), false),
            (Some(Leaf::self_signed(&["front"], VALID)), false),
        ] {
            let client = encrypted.authority.client(leaf.as_ref(), &["http/1.1"]);
            assert_eq!(encrypted.is_greeted(&client).await, greeted, "{mode}");
        }
        encrypted.handshakes_reach("failed", if without { 3.0 } else { 4.0 }).await;
    }
}

#[tokio::test]
async fn an_app_that_speaks_tls_is_asked_over_tls() {
    for (protocol, offered) in [("http1", &["http/1.1"][..]), ("h2", &["h2"]), ("http1", &[])] {
        let authority = Authority::new();
        let folder = Folder::new();
        let ca = folder.write("ca.crt", authority.pem());
        let app = if protocol == "h2" {
            FakeApp::serving_h2c(|_| async { crate::support::app::plain("over TLS") }).await
        } else {
            FakeApp::start().await
        };
        let server = authority.issue(&["app.internal"], VALID).server(offered);
        let address = terminate(app.address, server).await;
        let toml = format!(
            "{ONE_WORKER}[app]\nprotocol = \"{protocol}\"\nca_file = {ca:?}\n\
             server_name = \"app.internal\"\n"
        );
        let velt = FakeVelt::start().await;
        let sidecar = TestSidecar::start(&format!("https://{address}"), velt.address, &toml);
        let client = Client::to(sidecar.addresses.traffic);
        for _ in 0..2 {
            let answer = client.get("/").header("x-forwarded-user", "ada").send().await;
            assert_eq!(answer.status(), 200, "{protocol}");
            assert!(answer.token().is_some(), "{protocol}");
        }
        assert_eq!(app.journal().len(), 2);
        let connects = sidecar.metric("app_connects_total{result=\"connected\"}").await;
        assert_eq!(connects, 1.0, "{protocol}: kept alive");
        // The client spoke plain HTTP, and the app is told so.
        assert_eq!(app.journal()[0].header("x-forwarded-proto"), Some("http"));
    }
}

#[tokio::test]
async fn a_websocket_passes_over_tls_on_either_side() {
    let app = FakeApp::serving(websocket::echo).await;
    let authority = Authority::new();
    let folder = Folder::new();
    let ca = folder.write("ca.crt", authority.pem());
    let server = authority.issue(&["localhost"], VALID).server(&["http/1.1"]);
    let address = terminate(app.address, server).await;
    let velt = FakeVelt::start().await;
    let toml = format!("{ONE_WORKER}[app]\nca_file = {ca:?}\n");
    let app_side = format!("https://localhost:{}", address.port());
    let sidecar = TestSidecar::start(&app_side, velt.address, &toml);
    let stream = TcpStream::connect(sidecar.addresses.traffic).await.expect("it listens");
    websocket::assert_echoes(stream).await;
    sidecar.metric_reaches("tunnels_open", 0.0).await;

    let encrypted = Encrypted::before(app, "").await;
    let client = encrypted.authority.client(None, &["http/1.1"]);
    let stream = connect(encrypted.traffic(), &client).await.expect("a handshake");
    websocket::assert_echoes(stream).await;
    encrypted.stage.sidecar.metric_reaches("tunnels_open", 0.0).await;
}

#[tokio::test]
async fn an_app_that_shows_the_wrong_certificate_is_sent_nothing() {
    let (authority, strangers) = (Authority::new(), Authority::new());
    let folder = Folder::new();
    let ca = folder.write("ca.crt", authority.pem());
    for (leaf, offered) in [
        (authority.issue(&["other.internal"], VALID), &["h2"][..]),
        (authority.issue(&["app.internal"], EXPIRED), &["h2"]),
        (strangers.issue(&["app.internal"], VALID), &["h2"]),
        // The sidecar would speak a protocol to which this app has not agreed.
        (authority.issue(&["app.internal"], VALID), &[]),
    ] {
        let app = FakeApp::start().await;
        let address = terminate(app.address, leaf.server(offered)).await;
        let toml =
            format!("[app]\nprotocol = \"h2\"\nca_file = {ca:?}\nserver_name = \"app.internal\"\n");
        let velt = FakeVelt::start().await;
        let sidecar = TestSidecar::start(&format!("https://{address}"), velt.address, &toml);
        let answer = Client::to(sidecar.addresses.traffic).get("/").send().await;
        assert_eq!((answer.status(), &*answer.code()), (502, "app_unreachable"));
        assert_eq!(app.journal().len(), 0);
    }
}

#[tokio::test]
async fn velt_may_use_a_certificate_of_a_private_authority() {
    let (authority, strangers) = (Authority::new(), Authority::new());
    let folder = Folder::new();
    let velt = FakeVelt::start().await;
    let server = authority.issue(&["localhost"], VALID).server(&["http/1.1"]);
    let address = terminate(velt.address, server).await;
    for (signer, outcome) in [(&authority, "minted"), (&strangers, "connect_failed")] {
        let ca = folder.write("ca.crt", signer.pem());
        let endpoint = format!("https://localhost:{}/", address.port());
        let stage = Stage::set(&format!(
            "[outgoing]\nca_file = {ca:?}\n[velt]\nendpoint = \"{endpoint}\"\n"
        ))
        .await;
        let answer = stage.get_as("ada", "/").await;
        assert_eq!(answer.token().is_some(), outcome == "minted");
        let series = format!("mints_total{{outcome=\"{outcome}\"}}");
        stage.sidecar.metric_reaches(&series, 1.0).await;
    }
}

/// Starts a sidecar with these files, and asserts that a check of the files finds the same error.
fn start(toml: &str) -> Result<(), StartError> {
    let document = document("127.0.0.1:1", SocketAddr::from(([127, 0, 0, 1], 1)), toml);
    let config = config(&document).expect("a configuration");
    let checked = server::check(&config).map_err(|error| error.to_string());
    let started = Server::bind(config);
    assert_eq!(checked.err(), started.as_ref().err().map(ToString::to_string));
    started.map(|_| ())
}

#[tokio::test]
async fn files_that_will_not_do_are_found_before_the_start() {
    let (authority, folder) = (Authority::new(), Folder::new());
    let (leaf, other) = (authority.issue(&["a"], VALID), authority.issue(&["a"], VALID));
    let good = (leaf.certificate.as_str(), leaf.key.as_str());
    let half = &leaf.certificate[..leaf.certificate.len() / 2];
    let huge = "x".repeat(5 << 20);
    for ((certificate, key), says) in [
        ((good.0, other.key.as_str()), "is not that of the certificate in"),
        ((half, good.1), "has no whole certificate in PEM form"),
        (("", good.1), "has no whole certificate"),
        ((good.0, good.0), "has no whole private key"),
        ((good.1, good.1), "has no whole certificate"),
        ((huge.as_str(), good.1), "is over 4 MiB"),
    ] {
        folder.write("tls.crt", certificate);
        folder.write("tls.key", key);
        let error = start(&folder.toml()).expect_err(says).to_string();
        assert!(error.contains(says), "{error}");
        assert!(!error.contains("PRIVATE"), "{error}");
    }
    folder.write_pair(&leaf);
    start(&folder.toml()).expect("a pair that fits");
    let gone = folder.path("none.crt");
    for toml in [
        format!("{}client_ca_file = {gone:?}\n", folder.toml()),
        format!("[outgoing]\nca_file = {gone:?}\n"),
        format!("[app]\naddress = \"https://localhost:1\"\nca_file = {gone:?}\n"),
    ] {
        let error = start(&toml).expect_err("it is not there");
        let text = ground::logging::Chain(&error).to_string();
        assert!(text.contains("none.crt can't be read"), "{text}");
    }
    // The sidecar takes an expired pair, because no better pair is there yet, and because a front that
    // does not look at the dates would be locked out for nothing.
    folder.write_pair(&authority.issue(&["localhost"], EXPIRED));
    start(&folder.toml()).expect("an expired pair");
}

fn says(toml: &str, expected: &str) {
    let error = parse(toml, &[]).expect_err(expected).to_string();
    assert!(error.contains(expected), "{expected:?} in {error}");
}

#[test]
fn tls_settings_need_each_other() {
    let alone = "no client can show a certificate here";
    says("[identity]\ntrusted_names = [\"front\"]\n", alone);
    says("[listen.tls]\ncertificate_file = \"/a\"\n", "a certificate and its key go together");
    says("[listen.tls]\nkey_file = \"/a\"\n", "a certificate and its key go together");
    says("[listen.tls]\nclient_ca_file = \"/a\"\n", "it has no effect without a certificate");
    says("[listen.tls]\nhandshake_timeout = \"1s\"\n", "it has no effect without a certificate");
    let pair = "[listen.tls]\ncertificate_file = \"/a\"\nkey_file = \"/b\"\n";
    says(&format!("{pair}client_certificate = \"optional\"\n"), "without client_ca_file");
    says(&format!("{pair}[identity]\ntrusted_names = [\"front\"]\n"), alone);
    says("[identity]\ntrusted_names = [\"*.example\"]\n", "subject alternative names");
    says("[app]\nca_file = \"/a\"\n", "it has no effect unless the app speaks TLS");
    says("[app]\nserver_name = \"a\"\n", "it has no effect unless the app speaks TLS");
    says("[app]\nprotocol = \"h2\"\n", "h2 is HTTP/2 over TLS");
    says("[app]\naddress = \"https://a:1\"\nprotocol = \"h2c\"\n", "h2 is HTTP/2 over TLS");
    let long = "a".repeat(64);
    let nameless = format!("[app]\naddress = \"https://{long}:1\"\n");
    says(&nameless, "no certificate can carry this name");
    says("[outgoing]\nroots = \"bundled\"\nca_file = \"/a\"\n", "alone is trusted then");
    says("[outgoing]\nroots = \"none\"\n", "\"auto\", \"system\" or \"bundled\"");
    let reckless = format!(
        "{pair}client_ca_file = \"/c\"\n[identity]\ntrusted_names = [\"front\"]\n\
         dangerously_trust_every_peer = true\n"
    );
    says(&reckless, "while a secret or a certificate decides whether a peer is trusted");
}

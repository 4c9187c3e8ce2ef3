//! Forwarding headers: the app receives what a front says of the client, the scheme and the host,
//! unchanged.

use std::net::{IpAddr, Ipv4Addr};

use http::{HeaderMap, HeaderValue, Method, Response};
use http_body_util::BodyExt as _;
use serde_json::Value;

use crate::support::app::{AppBody, Arrived, FakeApp, full, plain};
use crate::support::binary::Running;
use crate::support::client::{Client, Sending};
use crate::support::issuer::{Issuer, Pen};
use crate::support::velt::{FakeVelt, user_of};
use crate::support::{Stage, document};

/// Settings that trust no peer on loopback.
const STRANGER: &str = "[identity]\ntrusted_peers = [\"10.0.0.0/8\"]\n";

const APP: &str = "[identity]\nsource = \"app\"\napp_path = \"/me\"\n\
    trusted_peers = [\"10.0.0.0/8\"]\n[delivery.header]\nmax_wait = \"10s\"\n";

/// Headers in which a front may name the scheme or the host, each alone.
const SAID: [(&str, &str); 20] = [
    ("x-forwarded-proto", "https"),
    ("x-forwarded-protocol", "ssl"),
    ("x-forwarded-scheme", "https"),
    ("x-forwarded-ssl", "on"),
    ("x-scheme", "https"),
    ("x-url-scheme", "https"),
    ("x-original-proto", "https"),
    ("front-end-https", "on"),
    ("cloudfront-forwarded-proto", "https"),
    ("cf-visitor", "{\"scheme\":\"https\"}"),
    ("x-arr-ssl", "2048|128"),
    ("forwarded", "for=203.0.113.7;proto=https;host=app.example"),
    ("forwarded", "Proto=\"https\""),
    ("x-forwarded-port", "443"),
    ("x_forwarded_proto", "https"),
    ("x-some-other-lb-proto", "https"),
    ("wl-proxy-ssl", "true"),
    ("x-appengine-https", "on"),
    ("fastly-ssl", "1"),
    ("x-client-proto", "https"),
];

fn with(sending: Sending, lines: &[(&str, &str)]) -> Sending {
    lines.iter().fold(sending, |sending, (name, value)| sending.header(name, value))
}

fn values<'a>(headers: &'a HeaderMap, name: &str) -> Vec<&'a str> {
    headers.get_all(name).iter().map(|value| value.to_str().expect("ASCII")).collect()
}

#[tokio::test]
async fn b1_forwarded_for_of_a_trusted_peer_stays_as_it_came() {
    let stage = Stage::set("").await;
    for lines in [
        &[("x-forwarded-for", "203.0.113.7")][..],
        &[("x-forwarded-for", "198.51.100.1, 203.0.113.7")],
        &[("x-forwarded-for", "198.51.100.1"), ("x-forwarded-for", "203.0.113.7:4711")],
        &[("x-forwarded-for", "unknown,[2001:db8::1]")],
    ] {
        for sent_by in ["HTTP/1.1", "HTTP/2"] {
            let sending = with(stage.client().get("/"), lines);
            let sending =
                if sent_by == "HTTP/2" { sending.send_http2().await } else { sending.send().await };
            assert_eq!(sending.status(), 200);
            let arrived = stage.app.journal().pop().expect("it arrived");
            let expected: Vec<&str> = lines.iter().map(|(_, value)| *value).collect();
            assert_eq!(values(&arrived.headers, "x-forwarded-for"), expected, "{sent_by}");
        }
    }
    // The sidecar names the client of a request without a front too.
    stage.client().get("/").send().await;
    let arrived = stage.app.journal().pop().expect("it arrived");
    assert_eq!(arrived.header("x-forwarded-for"), Some("127.0.0.1"));
}

#[tokio::test]
async fn b1_a_setting_adds_the_hop_to_forwarded_for() {
    let stage = Stage::set("[app]\nforwarded_for = \"append\"").await;
    let lines = [("x-forwarded-for", "198.51.100.1"), ("x-forwarded-for", "203.0.113.7")];
    with(stage.client().get("/"), &lines).send().await;
    let arrived = stage.app.only();
    assert_eq!(arrived.header("x-forwarded-for"), Some("198.51.100.1, 203.0.113.7, 127.0.0.1"));
}

#[tokio::test]
async fn b1_sidecar_adds_no_address_beside_another_front_header() {
    let stage = Stage::set("").await;
    for (name, value) in [
        ("x-real-ip", "203.0.113.7"),
        ("forwarded", "for=203.0.113.7"),
        ("client-ip", "203.0.113.7"),
        ("true-client-ip", "203.0.113.7"),
        ("cf-connecting-ip", "203.0.113.7"),
    ] {
        stage.client().get("/").header(name, value).send().await;
        let arrived = stage.app.journal().pop().expect("it arrived");
        assert_eq!(arrived.header("x-forwarded-for"), None, "{name}");
        assert_eq!(arrived.header(name), Some(value));
    }
}

#[tokio::test]
async fn b2_no_word_of_a_trusted_peer_on_the_scheme_is_contradicted() {
    let stage = Stage::set("").await;
    for (name, value) in SAID {
        stage.client().get("/").header(name, value).send().await;
        let arrived = stage.app.journal().pop().expect("it arrived");
        assert_eq!(values(&arrived.headers, name), [value]);
        let ours = if name == "x-forwarded-proto" { Some(value) } else { None };
        assert_eq!(arrived.header("x-forwarded-proto"), ours, "beside {name}: {value}");
    }
    // These headers say nothing of the scheme.
    for (name, value) in [("forwarded", "for=203.0.113.7"), ("x-forwarded-for", "203.0.113.7")] {
        stage.client().get("/").header(name, value).send().await;
        let arrived = stage.app.journal().pop().expect("it arrived");
        assert_eq!(arrived.header("x-forwarded-proto"), Some("http"), "{name}");
    }
}

#[tokio::test]
async fn b2_no_word_of_a_trusted_peer_on_the_host_is_contradicted() {
    let stage = Stage::set("").await;
    for (name, value) in [
        ("x-forwarded-host", "www.example"),
        ("x-original-host", "www.example"),
        ("x-host", "www.example"),
        ("forwarded", "host=www.example;proto=https"),
        ("x-forwarded-port", "8443"),
    ] {
        stage.client().get("/").header(name, value).send().await;
        let arrived = stage.app.journal().pop().expect("it arrived");
        assert_eq!(arrived.header(name), Some(value));
        let ours = if name == "x-forwarded-host" { Some(value) } else { None };
        assert_eq!(arrived.header("x-forwarded-host"), ours, "beside {name}");
    }
}

#[tokio::test]
async fn b3_forwarding_is_kept_if_no_header_names_the_user() {
    let pen = Pen::es256("1");
    let issuer = Issuer::publishing(&[&pen]).await;
    let assertion = issuer.toml().replacen("[identity]", STRANGER, 1);
    for toml in [APP, &assertion] {
        let stage = Stage::set(toml).await;
        for (name, value) in SAID {
            let lines = [(name, value), ("x-forwarded-for", "203.0.113.7")];
            with(stage.client().get("/"), &lines).send().await;
            let arrived = stage.app.journal().pop().expect("it arrived");
            assert_eq!(values(&arrived.headers, name), [value]);
            assert_eq!(arrived.header("x-forwarded-for"), Some("203.0.113.7"));
        }
        assert_eq!(stage.metric("forwarding_replaced_total").await, 0.0);
    }
}

#[tokio::test]
async fn b3_trusted_proxies_decide_whose_scheme_is_believed() {
    let https = |stage: &Stage| stage.client().get("/").header("x-forwarded-proto", "https");
    let user = |sending: Sending| sending.header("x-forwarded-user", "ada");
    for (peers, proxies, scheme, known) in [
        ("10.0.0.0/8", "127.0.0.0/8", "https", false),
        ("127.0.0.1", "10.0.0.0/8", "http", true),
        ("127.0.0.1", "10.0.0.0/8\", \"::ffff:127.0.0.1", "https", true),
    ] {
        let toml = format!(
            "[identity]\ntrusted_peers = [\"{peers}\"]\ntrusted_proxies = [\"{proxies}\"]\n"
        );
        let stage = Stage::set(&toml).await;
        let answer = user(https(&stage)).send().await;
        assert_eq!(answer.token_status() == Some("anonymous"), !known, "{toml}");
        assert_eq!(stage.app.only().header("x-forwarded-proto"), Some(scheme), "{toml}");
    }
    // The sidecar keeps no peer's forwarding headers here, and the app's own word names the user.
    let stage = Stage::set(&APP.replacen("source", "trusted_proxies = []\nsource", 1)).await;
    https(&stage).send().await;
    assert_eq!(stage.app.only().header("x-forwarded-proto"), Some("http"));
}

#[tokio::test]
async fn b3_replaced_headers_are_counted_and_told_in_a_line() {
    let (app, velt) = (FakeApp::start().await, FakeVelt::start().await);
    let toml = format!("{STRANGER}[runtime]\nworkers = \"1\"\n");
    let document = document(&app.address.to_string(), velt.address, &toml);
    let (running, traffic, admin) = Running::configured(&document, &[]).await;
    for _ in 0..50 {
        let sending = Client::to(traffic).get("/").header("x-forwarded-proto", "canary-scheme");
        assert_eq!(sending.send().await.status(), 200);
    }
    let scrape = Client::to(admin).get("/metrics").send().await.text();
    assert!(scrape.contains("velt_sidecar_forwarding_replaced_total 50\n"), "{scrape}");
    running.signal("TERM");
    let (_, printed) = running.ended().await;
    let lines: Vec<&str> = printed.lines().filter(|line| line.contains("were replaced")).collect();
    let [line] = &lines[..] else { panic!("{printed}") };
    for part in ["peer=127.0.0.1", "header=\"x-forwarded-proto\"", "identity.trusted_proxies"] {
        assert!(line.contains(part), "{line}");
    }
    assert!(!printed.contains("canary"), "{printed}");
}

/// An app that insists on https, as Django does with `SECURE_SSL_REDIRECT`, and knows its user by cookie.
fn insisting(request: &Arrived) -> Response<AppBody> {
    let mut response = plain("hello");
    let scheme = request.headers.get("x-forwarded-proto");
    let ssl = request.headers.get("x-forwarded-ssl");
    if scheme.is_none_or(|scheme| scheme != "https") && ssl.is_none() {
        *response.status_mut() = http::StatusCode::MOVED_PERMANENTLY;
        let location = HeaderValue::from_static("https://app.example/me");
        response.headers_mut().insert("location", location);
    } else if request.headers.contains_key("cookie") {
        response.headers_mut().insert("x-velt-user", HeaderValue::from_static("ada"));
    }
    response
}

#[tokio::test]
async fn b4_question_to_the_app_carries_the_forwarding_headers() {
    let stage = Stage::with(FakeApp::answering(insisting).await, APP).await;
    for line in [("x-forwarded-proto", "https"), ("x-forwarded-ssl", "on")] {
        let lines = [
            line,
            ("x-forwarded-for", "203.0.113.7"),
            ("x-forwarded-host", "www.example"),
            ("x-forwarded-port", "443"),
            ("x-forwarded-prefix", "/base"),
            ("cookie", "session=1"),
            // The question carries no identity header of a front, and no other header of the request.
            ("x-forwarded-user", "grace"),
            ("x-other", "1"),
        ];
        let sending = with(stage.client().get("/api/velt/token"), &lines);
        let answer = sending.send().await;
        assert_eq!(answer.status(), 200, "{}", answer.text());
        assert_eq!(user_of(answer.json()["token"].as_str().expect("a token")), "ada");
        let question = stage.app.journal().pop().expect("it was asked");
        for (name, value) in &lines[..6] {
            assert_eq!(question.header(name), Some(*value));
        }
        assert_eq!(question.header("x-forwarded-user"), None);
        assert_eq!(question.header("x-other"), None);
    }
    // The question does not carry forwarding headers of a peer that is no trusted proxy.
    let toml = APP.replacen("source", "trusted_proxies = []\nsource", 1);
    let stage = Stage::with(FakeApp::answering(insisting).await, &toml).await;
    let lines = [("x-forwarded-proto", "https"), ("x-real-ip", "203.0.113.7")];
    let answer = with(stage.client().get("/api/velt/token"), &lines).send().await;
    assert_eq!(answer.status(), 401);
    let question = stage.app.only();
    assert_eq!(question.header("x-forwarded-proto"), Some("http"));
    assert_eq!(question.header("x-real-ip"), None);
}

#[tokio::test]
async fn b4_the_401_says_which_status_the_app_gave() {
    for (status, more) in [
        (200, "Sign in first"),
        (204, "Sign in first"),
        (301, "https"),
        (302, "login page"),
        (401, "Sign in first"),
        (403, "Sign in first"),
        (404, "identity.app_path"),
    ] {
        let app = FakeApp::answering(move |_| {
            let mut response = plain("x");
            *response.status_mut() = status.try_into().expect("a status");
            if status == 204 {
                *response.body_mut() = full("");
            }
            response
        });
        let stage = Stage::with(app.await, APP).await;
        let answer = stage.client().get("/api/velt/token").send().await;
        assert_eq!((answer.status(), &*answer.code()), (401, "no_identity"), "{status}");
        let text = answer.text();
        assert!(text.contains(&format!("answered {status} ")) && text.contains(more), "{text}");
    }
}

/// Sends a request over HTTP/2 that ends with its head, as browsers do. (hyper's client adds a length.)
async fn bodiless(stage: &Stage, method: &Method) -> http::HeaderMap {
    let stream = tokio::net::TcpStream::connect(stage.sidecar.addresses.traffic).await;
    let (sender, connection) =
        h2::client::handshake(stream.expect("it listens")).await.expect("HTTP/2");
    let connection = tokio::spawn(connection);
    let request = http::Request::builder().method(method).uri("http://app.example/");
    let request = request.body(()).expect("a request");
    let mut sender = sender.ready().await.expect("a stream");
    let (response, _) = sender.send_request(request, true).expect("it is sent");
    let response = response.await.expect("an answer");
    assert_eq!(response.status(), 200, "{method}");
    connection.abort();
    response.headers().clone()
}

#[tokio::test]
async fn c6_post_without_a_body_reaches_the_app_with_length_0() {
    let stage = Stage::set("").await;
    for (method, expected) in [
        (Method::POST, Some("0")),
        (Method::PUT, Some("0")),
        (Method::PATCH, Some("0")),
        (Method::GET, None),
        (Method::HEAD, None),
        (Method::DELETE, None),
        (Method::OPTIONS, None),
    ] {
        bodiless(&stage, &method).await;
        let arrived = stage.app.journal().pop().expect("it arrived");
        assert_eq!(arrived.method, method);
        assert_eq!(arrived.header("content-length"), expected, "{method}");
        assert_eq!(arrived.header("transfer-encoding"), None, "{method}");
    }
    // A body of known length.
    let answer = stage.client().post("/", "four").send_http2().await;
    assert_eq!(answer.status(), 200);
    let arrived = stage.app.journal().pop().expect("it arrived");
    assert_eq!(arrived.header("content-length"), Some("4"));
}

#[tokio::test]
async fn c6_an_app_that_wants_a_length_gets_one() {
    // This app requires a length, as IIS and lighttpd do.
    let app = FakeApp::serving(|request| async move {
        let has_length = request.headers().contains_key("content-length");
        let has_coding = request.headers().contains_key("transfer-encoding");
        let body = request.into_body().collect().await.expect("a body").to_bytes();
        let mut response = plain("read");
        if !has_length && !has_coding {
            *response.status_mut() = http::StatusCode::LENGTH_REQUIRED;
        }
        let length = HeaderValue::from(body.len());
        response.headers_mut().insert("x-app-length", length);
        response
    })
    .await;
    let stage = Stage::with(app, "").await;
    let headers = bodiless(&stage, &Method::POST).await;
    assert_eq!(headers["x-app-length"], "0");
}

#[tokio::test]
async fn explain_tells_whether_forwarding_headers_are_kept() {
    for (toml, lines, verdict, parts) in [
        (
            "",
            &[("x-forwarded-proto", "https")][..],
            "kept",
            &["x-forwarded-proto", "trusted_peers"][..],
        ),
        (
            STRANGER,
            &[("x-forwarded-ssl", "on")],
            "replaced",
            &["x-forwarded-ssl", "trusted_proxies"],
        ),
        (APP, &[("forwarded", "proto=https")], "kept", &["forwarded", "identity.source"]),
        (
            "[identity]\ntrusted_proxies = [\"10.0.0.0/8\"]",
            &[("x-real-ip", "203.0.113.7")],
            "replaced",
            &["x-real-ip", "trusted_proxies"],
        ),
    ] {
        let stage = Stage::set(toml).await;
        let headers: Vec<Value> =
            lines.iter().map(|(name, value)| serde_json::json!([name, value])).collect();
        let asked = serde_json::json!({ "target": "/", "headers": headers });
        let admin = stage.sidecar.addresses.admin;
        let report = crate::explain::call(admin, "/explain", &asked).await.json();
        let steps = report["steps"].as_array().expect("steps");
        let step = steps.iter().find(|step| step["step"] == "forwarding");
        let step = step.unwrap_or_else(|| panic!("no such step in {report:#}"));
        assert_eq!(step["verdict"], verdict);
        for part in parts {
            assert!(step.to_string().contains(part), "{part} in {step}");
        }
        // The sidecar does what `explain` has said.
        with(stage.client().get("/"), lines).send().await;
        let arrived = stage.app.only();
        let (name, value) = lines[0];
        let kept = arrived.headers.get(name).is_some_and(|arrived| arrived == value);
        assert_eq!(kept, verdict == "kept", "{name}");
    }
}

/// Sends `request` from a loopback address, as a service mesh does.
async fn from_mesh(address: std::net::SocketAddr, request: &str) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    let source = (IpAddr::V4(Ipv4Addr::new(127, 0, 0, 6)), 0).into();
    socket.bind(source).expect("every address of 127.0.0.0/8 is this machine's");
    let mut stream = socket.connect(address).await.expect("it listens");
    stream.write_all(request.as_bytes()).await.expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    answer
}

#[tokio::test]
async fn t53_callers_through_a_mesh_are_untrusted_by_default() {
    let stage = Stage::set("").await;
    let ask = "GET /api/velt/token HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\
               x-forwarded-user: ada\r\n\r\n";
    let answer = from_mesh(stage.sidecar.addresses.traffic, ask).await;
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
    assert_eq!(stage.velt.call_count(), 0);
    assert_eq!(stage.get_as("ada", "/api/velt/token").await.status(), 200, "but 127.0.0.1 is");
}

/// An address of this machine other than loopback. Nothing is sent to find it.
fn own_address() -> Option<IpAddr> {
    let socket = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

#[tokio::test]
async fn t53_callers_from_the_pods_own_address_name_no_user() {
    let Some(own) = own_address() else {
        return eprintln!("SKIPPED: this machine has no address but loopback");
    };
    let pods =
        format!("[listen]\naddress = \"0.0.0.0:0\"\n[identity]\ntrusted_peers = [\"{own}/16\"");
    for (more, status) in [("]", 401), (&*format!(", \"{own}\"]"), 200)] {
        let stage = Stage::set(&format!("{pods}{more}")).await;
        let address = (own, stage.sidecar.addresses.traffic.port()).into();
        // Without an address of its own, a program connects to this machine's address from the same address.
        let sending = Client::to(address).get("/api/velt/token").header("x-forwarded-user", "ada");
        assert_eq!(sending.send().await.status(), status, "{pods}{more}");
        let asked = serde_json::json!({
            "target": "/api/velt/token", "headers": [["x-forwarded-user", "ada"]], "peer": own,
        });
        let admin = stage.sidecar.addresses.admin;
        let told = crate::explain::call(admin, "/explain", &asked).await.json().to_string();
        assert_eq!(told.contains("this sidecar's own address"), status == 401, "{told}");
        assert_eq!(told.contains("if this pod is in a service mesh"), status == 401, "{told}");
    }
}

#[tokio::test]
async fn t53_no_caller_through_a_mesh_drains_a_pod() {
    let stage = Stage::set("").await;
    let admin = stage.sidecar.addresses.admin;
    for call in ["POST /drain", "POST /cache/invalidate", "GET /config"] {
        let request = format!(
            "{call} HTTP/1.1\r\nhost: {admin}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
        );
        let answer = from_mesh(admin, &request).await;
        assert!(answer.starts_with("HTTP/1.1 403 "), "{call}: {answer}");
        assert!(answer.contains("127.0.0.1"), "{answer}");
    }
    let ready = Client::to(admin).get("/healthz/ready").send().await;
    assert_eq!(ready.status(), 200);
}

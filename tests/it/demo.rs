//! The demo in front of the reader's app: documents get the panel's script, all else passes as it is.

use std::net::SocketAddr;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use http::response::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Incoming;
use serde_json::json;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tools::demo::{Addresses, Demo, OwnApp};

use crate::support::PATIENCE;
use crate::support::app::{AppBody, FakeApp, full};
use crate::support::client::{Answer, Client, Sending};
use crate::support::raw::{RawApp, unused_address};
use crate::support::velt::user_of;
use crate::websocket::echo;

const PAGE: &str = "<!doctype html><html><head><title>x</title></head><body>y</body></html>";
const SCRIPT: &str = "<script src=\"/__velt-demo/panel.js\" data-policy=\"untouched\"></script>";

/// A running demo. Dropping the value ends the demo.
struct Running {
    addresses: Addresses,
    _shutdown: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Running {
    fn before(app: SocketAddr) -> Self {
        Self::start(Some(format!("http://{app}").parse().expect("the address of an app")))
    }

    fn start(app: Option<OwnApp>) -> Self {
        let free = SocketAddr::from(([127, 0, 0, 1], 0));
        let demo = Demo::bind_around(free, app).unwrap_or_else(|error| panic!("{error}"));
        let addresses = demo.addresses();
        let (shutdown, ended) = oneshot::channel::<()>();
        let task = tokio::spawn(demo.run(async {
            // A dropped sender ends the demo just as well.
            let _ = ended.await;
        }));
        Self { addresses, _shutdown: shutdown, task }
    }

    fn client(&self) -> Client {
        Client::to(self.addresses.front)
    }

    /// Opens a page as a browser does.
    async fn opens(&self, path: &str) -> Answer {
        self.client().get(path).header("sec-fetch-dest", "document").send().await
    }

    /// Opens a page with headers that no page of the sidecar's has, such as a policy.
    async fn opens_free(&self, path: &str) -> (Parts, String) {
        let opening = self.client().get(path).header("sec-fetch-dest", "document");
        let (parts, body) = opening.begin().await.into_parts();
        let body = body.collect().await.expect("a whole body").to_bytes();
        (parts, String::from_utf8(body.to_vec()).expect("text"))
    }
}

/// An app that answers each request with this document.
async fn page() -> FakeApp {
    FakeApp::answering(|_| html(PAGE)).await
}

fn html(body: impl Into<Bytes>) -> Response<AppBody> {
    let mut response = Response::new(full(body));
    let html = HeaderValue::from_static("text/html; charset=utf-8");
    response.headers_mut().insert("content-type", html);
    response
}

/// Returns the response with a header more.
fn with(mut response: Response<AppBody>, name: &'static str, value: &str) -> Response<AppBody> {
    response.headers_mut().insert(name, value.parse().expect("a value"));
    response
}

#[tokio::test]
async fn page_of_the_app_gets_the_panel_and_the_app_gets_ada() {
    let app = page().await;
    let demo = Running::before(app.address);
    let opening = demo.client().get("/some/page?q=1").header("sec-fetch-dest", "document");
    let opening = opening.header("accept-encoding", "gzip, br").without("host");
    let answer = opening.header("host", "localhost:9999").send().await;
    assert_eq!(answer.text(), PAGE.replace("<head>", &format!("<head>{SCRIPT}")));
    let arrived = app.only();
    assert_eq!(arrived.target, "/some/page?q=1");
    assert_eq!(arrived.header("host"), Some("localhost:9999"), "so that Origin and Host agree");
    assert_eq!(arrived.header("accept-encoding"), Some("identity"));
    assert_eq!(arrived.header("x-forwarded-user"), Some("ada"));
}

#[tokio::test]
async fn app_sees_the_user_of_the_session_and_no_claim() {
    let app = page().await;
    let demo = Running::before(app.address);
    for (cookie, expected) in [("velt_demo_user=grace", Some("grace")), ("velt_demo_user=", None)] {
        let asking = demo.client().get("/").header("cookie", cookie);
        let asking = asking.header("x-forwarded-user", "linus").header("x_forwarded_user", "eve");
        asking.send().await;
        let arrived = app.journal().pop().expect("a request");
        assert_eq!(arrived.header("x-forwarded-user"), expected);
        assert_eq!(arrived.header("x_forwarded_user"), None);
    }
}

#[tokio::test]
async fn responses_to_scripts_pass_with_their_token() {
    let app = page().await;
    let demo = Running::before(app.address);
    for destination in ["empty", "iframe", "script"] {
        let asking = demo.client().get("/").header("sec-fetch-dest", destination);
        let answer = asking.header("accept-encoding", "gzip").send().await;
        assert_eq!(answer.text(), PAGE, "{destination}");
        let arrived = app.journal().pop().expect("a request");
        assert_eq!(arrived.header("accept-encoding"), Some("gzip"), "{destination}");
    }
    // The route waits for the mint for longer than other responses do.
    let as_grace = |sending: Sending| sending.header("cookie", "velt_demo_user=grace").send();
    assert_eq!(as_grace(demo.client().post("/api/velt/token", "")).await.status(), 200);
    let answer = as_grace(demo.client().get("/api")).await;
    assert_eq!(user_of(answer.token().expect("a token")), "grace");
    let answer = demo.client().get("/api").header("cookie", "velt_demo_user=").send().await;
    assert_eq!(answer.token_status(), Some("anonymous"));
    let seen = demo.client().get("/__velt-demo/responses").send().await.json();
    assert_eq!(
        seen[0],
        json!({"number": 6, "path": "/api", "status": 200, "carried": "anonymous"})
    );
    assert_eq!(seen[1]["carried"], "token");
}

#[tokio::test]
async fn document_that_is_no_plain_html_passes_byte_for_byte() {
    let bytes = Bytes::from_static(b"\x1f\x8b\x08<head>\xff\x00");
    let app = FakeApp::answering(move |arrived| {
        let response = html(bytes.clone());
        match arrived.target.as_str() {
            "/gzip" => with(response, "content-encoding", "gzip"),
            "/json" => with(response, "content-type", "application/json"),
            "/wide" => with(response, "content-type", "text/html; charset=UTF-16"),
            "/bare" => {
                let mut response = response;
                response.headers_mut().remove("content-type");
                response
            }
            "/part" => {
                let mut response = with(response, "content-range", "bytes 0-10/100");
                *response.status_mut() = StatusCode::PARTIAL_CONTENT;
                response
            }
            path => panic!("{path} is in no row"),
        }
    })
    .await;
    let demo = Running::before(app.address);
    for path in ["/gzip", "/json", "/wide", "/bare", "/part"] {
        let answer = demo.opens(path).await;
        assert_eq!(&answer.body()[..], b"\x1f\x8b\x08<head>\xff\x00", "{path}");
        assert_eq!(answer.header("content-length"), Some("11"), "{path}");
    }
}

#[tokio::test]
async fn head_and_304_stay_as_the_app_says() {
    let app = FakeApp::answering(|arrived| {
        if arrived.headers.contains_key("if-none-match") {
            let mut response = with(html(""), "etag", "\"a\"");
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            return response;
        }
        with(html(PAGE), "etag", "\"a\"")
    })
    .await;
    let demo = Running::before(app.address);
    let head = demo.client().request(Method::HEAD, "/").header("sec-fetch-dest", "document");
    let head = head.send().await;
    assert_eq!(head.header("content-length"), Some(&*PAGE.len().to_string()));

    let page = demo.opens("/").await;
    // The bytes are not the app's, so the tag no longer says that they are.
    assert_eq!(page.header("etag"), Some("W/\"a\""));
    assert!(page.text().contains(SCRIPT));
    let again = demo.client().get("/").header("if-none-match", "\"a\"");
    let of_image = again.header("sec-fetch-dest", "image").send().await;
    assert_eq!((of_image.status(), of_image.body().len()), (304, 0));
    assert_eq!(of_image.header("etag"), Some("\"a\""));
    // The browser's copy of a document has the script, and perhaps a policy that is not the app's.
    let again = demo.client().get("/").header("if-none-match", "W/\"a\"");
    let of_page = again.header("sec-fetch-dest", "document").send().await;
    assert_eq!(of_page.status(), 200);
    assert!(of_page.text().contains(SCRIPT));
}

#[tokio::test]
async fn policy_of_the_app_lets_the_panel_in() {
    let app = FakeApp::answering(|arrived| {
        let policy = match arrived.target.as_str() {
            "/self" => "default-src 'self'",
            "/nonce" => "script-src 'nonce-abc' 'strict-dynamic'",
            _ => "default-src 'none'",
        };
        with(html(PAGE), "content-security-policy", policy)
    })
    .await;
    let demo = Running::before(app.address);
    let open = async |path: &str| {
        let (parts, text) = demo.opens_free(path).await;
        let policy = parts.headers["content-security-policy"].to_str().expect("ASCII");
        (policy.to_owned(), text)
    };
    let (policy, text) = open("/self").await;
    assert_eq!(policy, "default-src 'self'");
    assert!(text.contains(SCRIPT), "{text}");

    let (policy, text) = open("/nonce").await;
    assert_eq!(policy, "script-src 'nonce-abc' 'strict-dynamic'");
    assert!(text.contains("nonce=\"abc\" data-policy=\"nonce\""), "{text}");

    let (policy, text) = open("/none").await;
    let added = policy.strip_prefix("default-src 'none'; script-src-elem 'nonce-");
    let nonce = added.and_then(|rest| rest.strip_suffix('\'')).expect("a nonce of the demo's");
    assert!(nonce.len() >= 22, "{nonce}");
    assert!(text.contains(&format!("nonce=\"{nonce}\" data-policy=\"widened\"")), "{text}");
    let (again, _) = open("/none").await;
    assert_ne!(again, policy, "a nonce is used once");
}

#[tokio::test]
async fn page_waits_for_an_app_that_is_down_and_finds_it() {
    let address = unused_address().await;
    let demo = Running::before(address);
    let (waiting, text) = demo.opens_free("/deep/page").await;
    assert_eq!(waiting.status, 502);
    assert_eq!(waiting.headers["retry-after"], "1");
    assert!(text.contains("Your app does not answer yet"), "{text}");
    assert!(text.contains(&address.to_string()), "{text}");
    for path in ["/__velt-demo/waiting.js", "/__velt-demo/style.css"] {
        assert!(text.contains(path), "{text}");
        assert_eq!(demo.client().get(path).send().await.status(), 200);
    }
    let by_script = demo.client().get("/api").send().await;
    assert_eq!((by_script.status(), &*by_script.code()), (502, "app_unreachable"));
    let state = || async { demo.client().get("/__velt-demo/app").send().await.json() };
    assert_eq!(state().await, json!({ "address": address.to_string(), "up": false }));
    let token = demo.client().post("/api/velt/token", "").send().await;
    assert_eq!(token.status(), 200, "the route needs no app");

    let _app = FakeApp::restart(address, false).await;
    assert_eq!(state().await["up"], true);
    assert_eq!(demo.opens("/deep/page").await.text(), "hello from the app");
}

#[tokio::test]
async fn sidecars_page_about_a_broken_app_stays_as_it_is() {
    let app = RawApp::serving(|mut wire, _| async move {
        wire.head().await;
    })
    .await;
    let demo = Running::before(app.address);
    let opening = demo.client().get("/").header("sec-fetch-dest", "document");
    let (parts, body) = opening.header("accept", "text/html").begin().await.into_parts();
    let body = body.collect().await.expect("a whole body").to_bytes();
    let text = String::from_utf8(body.to_vec()).expect("text");
    assert_eq!(parts.status, 502);
    assert!(text.contains("<code>app_"), "{text}");
    assert!(!text.contains("/__velt-demo/"), "{text}");
}

#[tokio::test]
async fn web_socket_of_a_development_server_passes() {
    let app = FakeApp::serving(echo).await;
    let demo = Running::before(app.address);
    let stream = TcpStream::connect(demo.addresses.front).await.expect("it listens");
    let host = format!("localhost:{}", demo.addresses.front.port());
    // As Vite's client connects: at the root, with a protocol and a token.
    let request = Request::builder()
        .uri(format!("ws://{host}/?token=a-B_1"))
        .header("host", &host)
        .header("origin", format!("http://{host}"))
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
        .header("sec-fetch-dest", "websocket")
        .body(())
        .expect("a request");
    let (mut socket, _) =
        tokio_tungstenite::client_async(request, stream).await.expect("a WebSocket");
    for text in ["ping", "{\"type\":\"update\"}"] {
        socket.send(Message::text(text)).await.expect("it is open");
        let echoed = timeout(PATIENCE, socket.next()).await.expect("in time").expect("no end");
        assert_eq!(echoed.expect("no error"), Message::text(text));
    }
    let arrived = app.only();
    assert_eq!(arrived.target, "/?token=a-B_1");
    assert_eq!(arrived.header("origin"), Some(&*format!("http://{host}")));
    assert_eq!(arrived.header("host"), Some(&*host));
    assert_eq!(arrived.header("x-forwarded-user"), Some("ada"));
}

/// An app that answers with a body whose pieces a test sends one by one.
async fn streaming(kind: &'static str) -> (mpsc::Sender<&'static str>, FakeApp) {
    let (pieces, receiver) = mpsc::channel::<&'static str>(1);
    let receiver = std::sync::Mutex::new(Some(receiver));
    let app = FakeApp::answering(move |_| {
        let mut receiver = receiver.lock().expect("no panic").take().expect("asked once");
        let pieces = futures_util::stream::poll_fn(move |context| {
            let data = |piece: &'static str| Ok(Frame::data(Bytes::from_static(piece.as_bytes())));
            receiver.poll_recv(context).map(|piece| piece.map(data))
        });
        with(Response::new(BodyExt::boxed(StreamBody::new(pieces))), "content-type", kind)
    })
    .await;
    (pieces, app)
}

async fn next_text(body: &mut Incoming) -> String {
    let frame = timeout(PATIENCE, body.frame()).await.expect("a frame in time");
    let frame = frame.expect("no end yet").expect("no error");
    String::from_utf8(frame.into_data().expect("data").to_vec()).expect("text")
}

#[tokio::test]
async fn server_sent_events_arrive_one_by_one() {
    let (events, app) = streaming("text/event-stream").await;
    let demo = Running::before(app.address);
    let asking = demo.client().get("/events").header("sec-fetch-dest", "empty");
    let mut body = asking.begin().await.into_body();
    for event in ["data: 1\n\n", "data: 2\n\n"] {
        events.send(event).await.expect("it is read");
        assert_eq!(next_text(&mut body).await, event);
    }
}

#[tokio::test]
async fn document_that_streams_is_not_held_back() {
    let (pieces, app) = streaming("text/html").await;
    let demo = Running::before(app.address);
    let opening = demo.client().get("/").header("sec-fetch-dest", "document");
    let mut body = opening.begin().await.into_body();
    let with_script = format!("<head>{SCRIPT}<title>");
    for (sent, expected) in [
        ("<!doctype html><html>", "<!doctype html><html>"),
        ("<head><title>", &*with_script),
        ("shell</title><p>one", "shell</title><p>one"),
        ("<p>two", "<p>two"),
    ] {
        pieces.send(sent).await.expect("it is read");
        assert_eq!(next_text(&mut body).await, expected);
    }
    drop(pieces);
    assert!(timeout(PATIENCE, body.frame()).await.expect("in time").is_none());
}

#[tokio::test]
async fn large_bodies_pass_whole_in_both_directions() {
    let app = FakeApp::serving(async |request: Request<Incoming>| {
        let kind = request.headers()["content-type"].clone();
        let body = request.into_body().map_err(std::io::Error::other).boxed();
        let mut response = Response::new(body);
        response.headers_mut().insert("content-type", kind);
        response
    })
    .await;
    let demo = Running::before(app.address);
    let text = "<p>0123456789".repeat(400_000);
    for (kind, destination, expected) in [
        ("application/octet-stream", "empty", text.clone()),
        ("text/html", "document", format!("{SCRIPT}{text}")),
    ] {
        let sending = demo.client().post("/", text.clone()).header("content-type", kind);
        let answer = sending.header("sec-fetch-dest", destination).send().await;
        assert!(answer.text() == expected, "{kind}");
    }
}

#[tokio::test]
async fn signing_in_and_out_sets_the_cookie_of_the_demo_alone() {
    let app = page().await;
    let demo = Running::before(app.address);
    for (user, cookie) in [
        ("grace", "velt_demo_user=grace; Path=/; HttpOnly; SameSite=Lax"),
        ("", "velt_demo_user=; Path=/; HttpOnly; SameSite=Lax"),
    ] {
        let body = json!({ "user": user }).to_string();
        let by_script = demo.client().post("/__velt-demo/login", body).send().await;
        assert_eq!((by_script.status(), by_script.header("set-cookie")), (204, Some(cookie)));
        for (to, expected) in [
            ("%2Fpage%3Fq%3D1%23part", "/page?q=1#part"),
            ("https%3A%2F%2Fevil.example", "/"),
            ("%2F%2Fevil.example", "/"),
            ("%2F%09%2Fevil.example", "/"),
            ("%2F%5Cevil.example", "/"),
            ("%2Fx%0D%0Aa%3A1", "/"),
        ] {
            let path = format!("/__velt-demo/login?user={user}&to={to}");
            let answer = demo.client().get(&path).send().await;
            assert_eq!((answer.status(), answer.header("location")), (303, Some(expected)), "{to}");
            assert_eq!(answer.header("set-cookie"), Some(cookie));
        }
    }
    let unknown = demo.client().post("/__velt-demo/login", "{\"user\":\"eve\"}").send().await;
    assert_eq!((unknown.status(), unknown.header("set-cookie")), (400, None));
    assert_eq!(app.journal().len(), 0);
}

#[tokio::test]
async fn panel_knows_the_user_of_its_session() {
    let demo = Running::before(page().await.address);
    for (cookie, expected) in [("a=1", "\"user\":\"ada\""), ("velt_demo_user=", "\"user\":null")] {
        let script = demo.client().get("/__velt-demo/panel.js").header("cookie", cookie);
        let script = script.send().await;
        assert_eq!(script.header("cache-control"), Some("no-store"));
        assert_eq!(script.header("content-type"), Some("text/javascript; charset=utf-8"));
        assert!(script.text().contains(expected), "{}", script.text());
    }
}

#[tokio::test]
async fn pages_of_other_sites_reach_none_of_the_demos_paths() {
    let app = page().await;
    let demo = Running::before(app.address);
    for site in ["cross-site", "same-site"] {
        for path in ["login?user=grace", "config", "metrics", "responses", "emulator/journal"] {
            let asking = demo.client().get(&format!("/__velt-demo/{path}"));
            let answer = asking.header("sec-fetch-site", site).send().await;
            assert_eq!(answer.status(), 403, "{path}");
            assert_eq!(answer.header("set-cookie"), None, "{path}");
        }
    }
    assert_eq!(app.journal().len(), 0);
}

#[tokio::test]
async fn one_port_shows_the_whole_demo() {
    for app in [None, Some(page().await.address)] {
        let demo =
            Running::start(app.map(|app| app.to_string().parse().expect("the address of an app")));
        let get = async |path: &str| {
            let asking = demo.client().get(path).without("host").header("host", "localhost:9999");
            asking.header("sec-fetch-site", "same-origin").send().await
        };
        let config = get("/__velt-demo/config").await.json();
        assert_eq!(config["emulatorUrl"], format!("http://{}", demo.addresses.emulator));
        assert!(get("/__velt-demo/metrics").await.text().contains("velt_sidecar_build_info"));
        assert_eq!(get("/__velt-demo/emulator/behaviour").await.json()["latency_ms"], 120);
        let token = demo.client().post("/api/velt/token", "").send().await.json()["token"].clone();
        let body = json!({ "token": token }).to_string();
        let verified = demo.client().post("/__velt-demo/emulator/verify", body).send().await;
        assert_eq!(verified.json()["claims"]["userId"], "ada");
        for path in ["/v2/auth/generate_token", "/v1/auth/token/get"] {
            let mint = demo.client().post(&format!("/__velt-demo{path}"), "{}").send().await;
            assert_eq!(mint.status(), 404, "{path}");
        }
    }
}

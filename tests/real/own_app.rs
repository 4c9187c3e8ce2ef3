//! The demo in front of the reader's app, in a real browser: the panel in the app's pages.

use std::net::SocketAddr;

use http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use serde_json::{Value, json};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tools::demo::{Addresses, Demo, OwnApp};

use crate::neighbour::{LOOPBACK, Task, eventually, serve_app, serve_app_at};
use crate::webdriver::{Browser, Page, in_browser_with, visit};

/// A page that fills its window exactly, and counts what its scripts can do.
const PAGE: &str = "<!doctype html><html lang=en><head><title>app</title><style>\
    html, body { margin: 0; height: 100%; } body { display: flex; } * { color: red; }\
    body > :last-child { flex: 1; }</style></head>\
    <body><main data-testid=\"main\">app</main><script src=\"/page.js\"></script></body></html>";

/// The page's own requests, by each way that a page has.
const SCRIPT: &str = "window.seen = {};\
    const request = new XMLHttpRequest();\
    request.open('GET', '/api/list');\
    request.onload = () => { seen.list = JSON.parse(request.responseText); };\
    request.send();\
    fetch('/api/me').then((answer) => answer.json()).then((me) => { seen.me = me; });\
    const stopped = new AbortController();\
    fetch('/api/slow', stopped).catch((error) => { seen.stopped = error.name; });\
    stopped.abort();\
    seen.scripts = document.scripts.length;\
    seen.fetch = `${fetch.name} ${fetch.length}`;";

/// A demo in front of an app. Ends when this value is dropped.
struct Stage {
    addresses: Addresses,
    _running: (oneshot::Sender<()>, Task),
}

impl Stage {
    fn before(app: SocketAddr) -> Self {
        Self::start(Some(app.to_string().parse().expect("the address of an app")))
    }

    fn start(app: Option<OwnApp>) -> Self {
        let demo = Demo::bind_around(LOOPBACK, app).unwrap_or_else(|error| panic!("{error}"));
        let addresses = demo.addresses();
        let (stop, stopped) = oneshot::channel::<()>();
        let running = Task::spawn(demo.run(async move {
            // A dropped sender stops the demo too.
            let _ = stopped.await;
        }));
        Self { addresses, _running: (stop, running) }
    }

    /// Runs `test` on a page of the app. Each name of this machine will do, and the demo knows none of them.
    async fn visit(&self, name: &str, path: &str, test: impl AsyncFnOnce(&Page)) {
        self.visit_in(Browser::Chromium, name, path, test).await;
    }

    async fn visit_in(
        &self,
        browser: Browser,
        name: &str,
        path: &str,
        test: impl AsyncFnOnce(&Page),
    ) {
        let url = format!("http://localhost:{}{path}", self.addresses.front.port());
        visit(browser, name, &url, test).await;
    }
}

/// Answers as an app whose path decides its policy.
fn answer(request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let path = request.uri().path();
    let (kind, body) = match path {
        "/page.js" => ("text/javascript", SCRIPT.to_owned()),
        "/api/list" => ("application/json", "[1,2]".to_owned()),
        "/api/me" | "/api/slow" => {
            let user = request.headers().get("x-forwarded-user");
            let user = user.and_then(|user| user.to_str().ok());
            ("application/json", json!({ "user": user }).to_string())
        }
        "/nonce" => ("text/html", PAGE.replace("<script ", "<script nonce=\"n0\" ")),
        _ => ("text/html", PAGE.to_owned()),
    };
    let mut response = Response::new(Full::from(body));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    let policy = match path {
        "/self" => {
            "default-src 'self'; style-src 'unsafe-inline'; require-trusted-types-for 'script'"
        }
        "/nonce" => "script-src 'nonce-n0' 'strict-dynamic'; object-src 'none'",
        "/none" => "default-src 'none'; style-src 'unsafe-inline'",
        "/favicon.ico" => {
            *response.status_mut() = StatusCode::NO_CONTENT;
            return response;
        }
        _ => return response,
    };
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    response
}

/// Returns the text of an element of the panel, `Null` without a panel.
async fn panel(page: &Page, test_id: &str) -> Value {
    let script = format!(
        "const root = document.querySelector('velt-demo-panel')?.shadowRoot;\
         return root?.querySelector('[data-testid=\"{test_id}\"]')?.innerText ?? null"
    );
    page.script(&script).await
}

async fn wait_for_panel(page: &Page, test_id: &str, expected: &str) -> String {
    eventually(&format!("{test_id} of the panel to say {expected:?}"), async || {
        let text = panel(page, test_id).await;
        let text = text.as_str().unwrap_or("there is no panel").to_owned();
        if text.contains(expected) { Ok(text) } else { Err(text) }
    })
    .await
}

/// Presses a button of the panel, which may lead to another page at once.
async fn press(page: &Page, test_id: &str) {
    let script = format!(
        "document.querySelector('velt-demo-panel').shadowRoot\
         .querySelector('[data-testid=\"{test_id}\"]').click()"
    );
    page.script(&script).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn panel_shows_who_is_signed_in_and_what_responses_carried() {
    show_who_is_signed_in(Browser::Chromium).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn panel_shows_the_same_in_firefox() {
    show_who_is_signed_in(Browser::Firefox).await;
}

async fn show_who_is_signed_in(browser: Browser) {
    let (_app, address) = serve_app(answer).await;
    let stage = Stage::before(address);
    stage
        .visit_in(browser, "panel", "/plain", async |page| {
            page.expect_failures(401);
            for (button, user, name) in
                [(None, "ada", "Ada Lovelace"), (Some("user-grace"), "grace", "Grace Hopper")]
            {
                if let Some(button) = button {
                    press(page, button).await;
                }
                wait_for_panel(page, "user", name).await;
                wait_for_panel(page, "route", &format!("200, token: {user}, 47 h")).await;
                // All of the page's requests are there, the first among them.
                for path in ["/api/me", "/api/list"] {
                    let responses = wait_for_panel(page, "responses", path).await;
                    let words: Vec<_> = responses.split_whitespace().collect();
                    let at = words.iter().position(|word| *word == path).expect("it is there");
                    assert_eq!(words[at - 1], "200");
                    assert_eq!(words[at + 1..at + 3], ["token:", user], "{responses}");
                }
                assert_eq!(page.script("return seen.me").await, json!({ "user": user }));
            }
            press(page, "user-none").await;
            wait_for_panel(page, "user", "Signed out").await;
            wait_for_panel(page, "route", "401, no_identity").await;
            wait_for_panel(page, "responses", "anonymous").await;
            assert_eq!(page.script("return seen.me").await, json!({ "user": null }));
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn panel_changes_no_behaviour_of_the_page() {
    let (_app, address) = serve_app(answer).await;
    let stage = Stage::before(address);
    stage
        .visit("unfelt", "/plain", async |page| {
            wait_for_panel(page, "responses", "/api/list").await;
            let seen = page.script("return seen").await;
            assert_eq!(seen["list"], json!([1, 2]));
            assert_eq!(seen["stopped"], "AbortError");
            assert_eq!(seen["scripts"], 1, "the panel's script has left the document");
            assert_eq!(seen["fetch"], "fetch 1");
            let measure = "const box = document.querySelector('main').getBoundingClientRect();\
                const root = document.documentElement;\
                return [box.width, box.height, root.scrollWidth, root.scrollHeight,\
                document.body.childElementCount]";
            let with = page.script(measure).await;
            let collapsed = "const root = document.querySelector('velt-demo-panel').shadowRoot;\
                return getComputedStyle(root.querySelector('strong')).color";
            assert_ne!(page.script(collapsed).await, "rgb(255, 0, 0)", "the app's style stays out");
            // A framework that replaces the whole document keeps the panel.
            page.script(
                "const old = document.documentElement; old.replaceWith(old.cloneNode(true))",
            )
            .await;
            wait_for_panel(page, "user", "Ada Lovelace").await;
            page.script("document.querySelector('velt-demo-panel').style = 'display: none'").await;
            assert_eq!(page.script(measure).await, with);
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_of_the_app_let_the_panel_in_and_nothing_else() {
    let (_app, address) = serve_app(answer).await;
    let stage = Stage::before(address);
    for (path, told) in [("/self", ""), ("/nonce", "carries the nonce of this page")] {
        stage
            .visit("policy", path, async |page| {
                let policy = wait_for_panel(page, "policy", told).await;
                assert_eq!(policy.is_empty(), told.is_empty(), "{policy}");
                wait_for_panel(page, "route", "200, token: ada").await;
                wait_for_panel(page, "responses", "/api/me").await;
            })
            .await;
    }
    stage
        .visit("policy-none", "/none", async |page| {
            // The page's own script and every request are forbidden, as without the panel.
            page.expect_complaints("violates the following Content Security Policy");
            page.expect_complaints("because it violates the document's Content Security Policy");
            wait_for_panel(page, "route", "connect-src").await;
            wait_for_panel(page, "policy", "added the panel").await;
            assert_eq!(page.script("return typeof seen").await, "undefined");
            press(page, "user-grace").await;
            wait_for_panel(page, "user", "Grace Hopper").await;
            assert_eq!(page.script("return location.pathname").await, "/none");
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn app_with_long_connections_works_behind_the_demo() {
    // The demo's own app stands for the reader's: it has modules, a WebSocket, events and a strict policy.
    let inner = Stage::start(None);
    let stage = Stage::before(inner.addresses.app.expect("the demo's own app"));
    stage
        .visit("long_connections", "/", async |page| {
            page.wait_for_attribute("ws-status", "data-status", "open").await;
            wait_for_panel(page, "user", "Ada Lovelace").await;
            // A collapsed panel covers little of the page.
            press(page, "collapse").await;
            page.type_into("ws-input", "one").await;
            page.click("ws-send").await;
            page.wait_for_text("ws-log", "#1 ada: one").await;
            page.wait_for_text("sse-log", "#2 ada ").await;
            page.wait_for_attribute("route-verdict", "data-verdict", "accepted").await;
            page.wait_for_attribute("header-verdict", "data-verdict", "accepted").await;
            press(page, "collapse").await;
            wait_for_panel(page, "responses", "/api/me").await;
        })
        .await;
}

/// Passes connections on to `to`, as `ssh -L` does. Returns the port on this side.
async fn forward_port(to: SocketAddr) -> (Task, u16) {
    let listener = TcpListener::bind(LOOPBACK).await.expect("a free port");
    let port = listener.local_addr().expect("it is bound").port();
    let task = Task::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut far = TcpStream::connect(to).await.expect("the demo listens");
                // Browsers break connections off.
                let _ = copy_bidirectional(&mut near, &mut far).await;
            });
        }
    });
    (task, port)
}

#[tokio::test(flavor = "multi_thread")]
async fn one_forwarded_port_shows_the_whole_demo() {
    let inner = Stage::start(None);
    let around = Stage::before(inner.addresses.app.expect("the demo's own app"));
    for stage in [&inner, &around] {
        let (_forwarding, port) = forward_port(stage.addresses.front).await;
        // The page's policy forbids requests to any other origin, and the browser would complain of one.
        in_browser_with("forwarded", &format!("http://localhost:{port}/"), &[], async |page| {
            page.wait_for_attribute("ws-status", "data-status", "open").await;
            for verdict in ["route-verdict", "header-verdict"] {
                page.wait_for_attribute(verdict, "data-verdict", "accepted").await;
            }
            page.wait_for_text("sse-log", "#1 ada ").await;
            page.wait_for_text("figure-cached", "1").await;
            assert_eq!(page.text("address-proxy").await, format!("localhost:{port}"));
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn page_that_waits_opens_the_app_when_it_is_there() {
    let (app, address) = serve_app(answer).await;
    drop(app);
    let stage = Stage::before(address);
    stage
        .visit("waiting", "/plain?deep", async |page| {
            page.expect_failures(502);
            page.wait_for_text("app", &address.to_string()).await;
            let (_app, _) = serve_app_at(address, answer).await;
            page.wait_for_text("main", "app").await;
            assert_eq!(page.script("return location.search").await, "?deep");
            wait_for_panel(page, "user", "Ada Lovelace").await;
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn demos_own_page_shows_all_responses_and_takes_velt_down() {
    let (_app, address) = serve_app(answer).await;
    let stage = Stage::before(address);
    stage
        .visit("around", "/__velt-demo/", async |page| {
            page.expect_failures(503);
            page.wait_for_text("app-state", "answers").await;
            assert_eq!(page.text("app").await, address.to_string());
            page.wait_for_attribute("user-ada", "aria-pressed", "true").await;
            page.script("return fetch('/api/list').then(() => null)").await;
            let responses = page.wait_for_text("responses", "/api/list").await;
            assert!(responses.contains("200 /api/list token"), "{responses}");
            page.click("velt-down").await;
            page.wait_for_attribute("velt-down", "data-down", "true").await;
            page.click("user-grace").await;
            page.wait_for_text("route", "HTTP 503").await;
            page.click("velt-down").await;
            page.wait_for_attribute("velt-down", "data-down", "false").await;
        })
        .await;
}

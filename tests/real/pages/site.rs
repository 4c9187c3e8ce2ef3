//! The parts of a site: Velt's stand-in, the sidecar as a process, the app with the pages of `apps/pages`, and
//! a login front in front of them.

use std::fs;
use std::path::Path;
use std::sync::Mutex;

use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::front::Front;
use super::velt::FakeVelt;
use crate::neighbour::{Task, eventually, serve_app};
use crate::program::APPS;
use crate::sidecar_process::SidecarProcess;
use crate::webdriver::{Browser, Page, visit};

/// Folder of the package, as it is published.
const PACKAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/frontend/dist");

const HTML: &str = "text/html; charset=utf-8";

/// Host of the app. Browsers trust names below `localhost` as they trust HTTPS.
pub const APP: &str = "app.localhost";

/// Path of the token.
pub const ROUTE: &str = "/api/velt/token";

/// Path of the token as a bare string.
pub const STRING_ROUTE: &str = "/generate-velt-jwt-token";

/// All parts of the site, without the browser.
pub struct Site {
    pub velt: FakeVelt,
    pub front: Front,
    _sidecar: SidecarProcess,
    app: Mutex<Option<Task>>,
    _folder: TempDir,
}

impl Site {
    /// Opens a site whose sidecar has more settings, without their common prefix.
    pub async fn open(settings: &[(&str, &str)]) -> Self {
        // On a busy machine a test may take seconds to open Velt's gate.
        Self::open_with_wait("20s", settings).await
    }

    /// Opens a site like [`Site::open`], where a request for a token waits for a mint at most this time.
    pub async fn open_with_wait(max_wait: &str, settings: &[(&str, &str)]) -> Self {
        let velt = FakeVelt::start().await;
        let (app, app_address) = serve_app(answer).await;
        let folder = TempDir::new().expect("a folder for the configuration");
        let file = folder.path().join("sidecar.toml");
        let text = format!(
            r#"
            [velt]
            endpoint = "http://{}/"
            attempt_timeout = "20s"
            deadline = "25s"
            [delivery.header]
            paths = ["/api/*"]
            [[delivery.route]]
            path = "{ROUTE}"
            max_wait = "{max_wait}"
            [[delivery.route]]
            path = "{STRING_ROUTE}"
            shape = "string"
            "#,
            velt.address
        );
        fs::write(&file, text).expect("a file in it");
        let settings: Vec<_> =
            settings.iter().map(|(key, value)| (format!("VELT_SIDECAR_{key}"), *value)).collect();
        let settings: Vec<_> = settings.iter().map(|(key, value)| (&**key, *value)).collect();
        let sidecar = SidecarProcess::start_with_config(&file, app_address, &settings).await;
        let front = Front::start(sidecar.traffic);
        Self { velt, front, _sidecar: sidecar, app: Mutex::new(Some(app)), _folder: folder }
    }

    /// Returns the address of `path` at a host whose name leads to this machine.
    pub fn url(&self, host: &str, path: &str) -> String {
        format!("http://{host}:{}{path}", self.front.address.port())
    }

    /// Runs `test` in the browser on the app's page, signed in as Ada.
    pub async fn visit(&self, browser: Browser, name: &str, test: impl AsyncFnOnce(&Page)) {
        visit(browser, name, &self.url(APP, "/sign-in?user=ada"), test).await;
    }

    /// Ends the app.
    pub fn stop_app(&self) {
        *self.app.lock().expect("no panic") = None;
    }

    /// Returns the number of requests for the token that have reached the sidecar.
    pub fn token_requests(&self) -> usize {
        self.front.seen_at(ROUTE).len()
    }
}

/// Lets the page ask for a token, without waiting for it.
pub async fn begin_to_ask(page: &Page) {
    page.script("window.ended = null; ask().then((end) => { window.ended = end; });").await;
}

/// Waits for the end of what [`begin_to_ask`] has begun.
pub async fn end_of_asking(page: &Page) -> Value {
    eventually("the request for a token to end", async || {
        let ended = page.script("return ended").await;
        if ended.is_null() { Err("no end".into()) } else { Ok(ended) }
    })
    .await
}

/// Waits until the page has heard, once, that its user is signed out.
pub async fn hears_of_sign_out(page: &Page) {
    eventually("the page to hear of a sign-out", async || {
        let count = page.script("return signedOut").await;
        if count == 1 { Ok(()) } else { Err(count.to_string()) }
    })
    .await;
}

/// Answers as the app: with pages and scripts of `apps/pages`, and at `/api/me` with the user.
fn answer(request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
    match request.uri().path() {
        "/api/me" => {
            let me = json!({ "userId": header("x-forwarded-user") });
            respond("application/json", me.to_string())
        }
        "/" => respond(HTML, filled("page.html", header)),
        "/rendered" => respond(HTML, filled("rendered.html", header)),
        "/shared" => {
            // Lets pages of all origins read the timings of this document.
            let mut page = respond(HTML, filled("page.html", header));
            page.headers_mut().insert("timing-allow-origin", HeaderValue::from_static("*"));
            page
        }
        "/react" => respond(HTML, filled("react.html", header)),
        "/velt-sidecar/index.js" => package("index.js"),
        "/velt-sidecar/sha256.js" => package("sha256.js"),
        path => script(path.trim_start_matches('/')),
    }
}

/// Returns a page with what the app knows of the user from these request headers.
fn filled<'a>(page: &str, header: impl Fn(&str) -> Option<&'a str>) -> String {
    let token = header("x-velt-token").map_or(Value::Null, Value::from);
    let page = file(page).replace("USER", header("x-forwarded-user").unwrap_or_default());
    let page = page.replace("STATUS", header("x-velt-token-status").unwrap_or_default());
    page.replace("TOKEN", &token.to_string())
}

/// Answers with a script of the package.
fn package(name: &str) -> Response<Full<Bytes>> {
    respond("text/javascript", read(&Path::new(PACKAGE).join(name)))
}

/// Answers with a script of `apps/pages`.
fn script(name: &str) -> Response<Full<Bytes>> {
    let known = ["page.js", "client.js", "react.js", "modules.js"];
    let is_module = name.starts_with("node_modules/") && !name.contains("..");
    if known.contains(&name) || is_module {
        return respond("text/javascript", file(name));
    }
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::NOT_FOUND;
    response
}

fn file(name: &str) -> String {
    read(&Path::new(APPS).join("pages").join(name))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn respond(kind: &str, text: String) -> Response<Full<Bytes>> {
    let response = Response::builder().header(CONTENT_TYPE, kind);
    response.body(Full::from(text)).expect("a response")
}

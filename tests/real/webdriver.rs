//! A browser, Chromium or Firefox, driven by W3C's `WebDriver` protocol: the few commands that the tests need.
//!
//! `chromedriver` and `geckodriver` speak `WebDriver` over plain HTTP, so a page of JSON replaces a dependency.
//! What the protocol lacks is asked for in its successor, `WebDriver BiDi`: see [`bidi`].

mod bidi;
mod driver;

use std::future::poll_fn;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Mutex;
use std::task::Poll;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use http::header::CONTENT_TYPE;
use reqwest::Client;
use serde_json::{Value, json};

pub use self::driver::Browser;
use self::driver::Session;
use crate::neighbour::{eventually, http_client};

/// Arguments with which names that the tests invent lead to this machine. Firefox always has such a setting.
const NAMES: [&str; 1] =
    ["--host-resolver-rules=MAP *.example 127.0.0.1, MAP *.localhost 127.0.0.1"];

/// Key that marks an element in the protocol's JSON.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// A page in a browser and a profile of its own. With several tabs, the page of the tab last turned to.
pub struct Page {
    http: Client,
    /// URL of the session; every command is below it.
    url: String,
    /// Complaints of the browser that the test expects.
    expected: Mutex<Vec<String>>,
    browser: Browser,
    session: Session,
}

/// A tab of a browser.
#[derive(Clone, PartialEq, Eq)]
pub struct Tab(String);

/// Runs `test` on the page at `address`. If it fails, the message names a screenshot. Fails as well if the
/// browser complained of something that the test did not expect.
pub async fn in_browser(name: &str, address: SocketAddr, test: impl AsyncFnOnce(&Page)) {
    in_browser_with(name, &format!("http://{address}/"), &[], test).await;
}

/// Runs `test` like [`in_browser`], on the page at `url` and in a browser with more arguments.
pub async fn in_browser_with(
    name: &str,
    url: &str,
    arguments: &[String],
    test: impl AsyncFnOnce(&Page),
) {
    let page = Page::open(Browser::Chromium, arguments).await;
    page.undergo(name, url, test).await;
}

/// Runs `test` like [`in_browser`], on the page at `url` and in this browser, for which all names below
/// `.example` and `.localhost` lead to this machine.
pub async fn visit(browser: Browser, name: &str, url: &str, test: impl AsyncFnOnce(&Page)) {
    let names =
        if browser == Browser::Chromium { NAMES.map(str::to_owned).to_vec() } else { vec![] };
    let page = Page::open(browser, &names).await;
    page.undergo(&format!("{name}-{browser}"), url, test).await;
}

/// Runs `future`. Returns its panic, if it panicked.
async fn catch_panic(future: impl Future<Output = ()>) -> std::thread::Result<()> {
    let mut future = pin!(future);
    poll_fn(|context| {
        let polling = AssertUnwindSafe(|| future.as_mut().poll(context));
        catch_unwind(polling).map_or_else(|panic| Poll::Ready(Err(panic)), |poll| poll.map(Ok))
    })
    .await
}

impl Page {
    async fn open(browser: Browser, more: &[String]) -> Self {
        let http = http_client();
        let session = Session::open(&http, browser, more).await;
        Self { http, url: session.url(), expected: Mutex::default(), browser, session }
    }

    /// Goes to `url` and runs `test`. A failure's message has the browser, a screenshot and the console.
    async fn undergo(&self, name: &str, url: &str, test: impl AsyncFnOnce(&Self)) {
        let visit = async {
            self.navigate(url).await;
            test(self).await;
            self.assert_no_complaints().await;
        };
        let Err(panic) = catch_panic(visit).await else { return };
        let message = panic.downcast_ref::<String>().map(String::as_str);
        let message = message.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or_default();
        let screenshot = self.save_screenshot(name).await;
        let complaints = self.complaints().await;
        panic!(
            "in {}: {message}\nscreenshot: {}\nthe browser's console: {complaints:#?}",
            self.browser,
            screenshot.display()
        );
    }

    /// Lets requests of the page fail with `status`, of which the browser would complain.
    pub fn expect_failures(&self, status: u16) {
        self.expect_complaints(&format!("responded with a status of {status} "));
    }

    /// Lets the browser complain with a text that holds `part`.
    pub fn expect_complaints(&self, part: &str) {
        self.expected.lock().expect("nobody panics with it").push(part.to_owned());
    }

    pub async fn navigate(&self, url: &str) {
        self.command(Method::POST, "url", Some(&json!({ "url": url }))).await;
    }

    pub async fn reload(&self) {
        self.command(Method::POST, "refresh", Some(&json!({}))).await;
    }

    /// Goes back in the tab's history, as by the button of the browser.
    pub async fn go_back(&self) {
        self.command(Method::POST, "back", Some(&json!({}))).await;
    }

    /// Returns the tab in which the page is.
    pub async fn tab(&self) -> Tab {
        let handle = self.command(Method::GET, "window", None).await;
        Tab(handle.as_str().expect("a handle").into())
    }

    /// Opens a tab, turns to it, and goes to `url` there.
    pub async fn open_tab(&self, url: &str) -> Tab {
        let kind = json!({ "type": "tab" });
        let opened = self.command(Method::POST, "window/new", Some(&kind)).await;
        let tab = Tab(opened["handle"].as_str().expect("a handle").into());
        self.turn_to(&tab).await;
        self.navigate(url).await;
        tab
    }

    /// Returns all tabs.
    pub async fn tabs(&self) -> Vec<Tab> {
        let handles = self.command(Method::GET, "window/handles", None).await;
        let handles = handles.as_array().expect("a list of handles").iter();
        handles.map(|handle| Tab(handle.as_str().expect("a handle").into())).collect()
    }

    /// Closes the page's tab. A test has to turn to another one then.
    pub async fn close_tab(&self) {
        self.command(Method::DELETE, "window", None).await;
    }

    /// Lets all that follows concern this tab.
    pub async fn turn_to(&self, tab: &Tab) {
        self.command(Method::POST, "window", Some(&json!({ "handle": tab.0 }))).await;
    }

    /// Takes the network away from the page's tab, or gives it back.
    pub async fn set_offline(&self, offline: bool) {
        let conditions = offline.then(|| json!({ "type": "offline" }));
        let parameters =
            json!({ "networkConditions": conditions, "contexts": [self.tab().await.0] });
        bidi::command(&self.session.bidi, "emulation.setNetworkConditions", &parameters).await;
    }

    /// Clicks as a person does: the element has to be visible, enabled and not covered.
    pub async fn click(&self, test_id: &str) {
        let element = done(self.find(test_id).await);
        self.command(Method::POST, &format!("element/{element}/click"), Some(&json!({}))).await;
    }

    pub async fn type_into(&self, test_id: &str, text: &str) {
        let element = done(self.find(test_id).await);
        let path = format!("element/{element}/value");
        self.command(Method::POST, &path, Some(&json!({ "text": text }))).await;
    }

    /// Returns the text as rendered, without hidden parts.
    pub async fn text(&self, test_id: &str) -> String {
        done(self.try_text(test_id).await)
    }

    /// Returns an attribute of an element, empty if the attribute is absent.
    pub async fn attribute(&self, test_id: &str, name: &str) -> String {
        done(self.try_attribute(test_id, name).await)
    }

    /// Runs `body` (of a function) in the page, and returns its result.
    pub async fn script(&self, body: &str) -> Value {
        let script = json!({ "script": body, "args": [] });
        self.command(Method::POST, "execute/sync", Some(&script)).await
    }

    /// Waits until an attribute of an element has a value.
    pub async fn wait_for_attribute(&self, test_id: &str, name: &str, expected: &str) {
        let what = format!("{test_id} to have {name}={expected}");
        eventually(&what, async || {
            let value = self.try_attribute(test_id, name).await?;
            if value == expected { Ok(()) } else { Err(value) }
        })
        .await;
    }

    /// Waits until the text of an element holds `expected`, and returns the whole text.
    pub async fn wait_for_text(&self, test_id: &str, expected: &str) -> String {
        let what = format!("{test_id} to say {expected:?}");
        eventually(&what, async || {
            let text = self.try_text(test_id).await?;
            if text.contains(expected) { Ok(text) } else { Err(text) }
        })
        .await
    }

    /// Saves a screenshot under `name`, below cargo's folder for the files of tests.
    pub async fn save_screenshot(&self, name: &str) -> PathBuf {
        let png = self.command(Method::GET, "screenshot", None).await;
        let png = STANDARD.decode(png.as_str().expect("a picture")).expect("base64");
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.png"));
        std::fs::write(&file, png).expect("the folder is there");
        file
    }

    async fn assert_no_complaints(&self) {
        let complaints = self.complaints().await;
        assert!(complaints.is_empty(), "the browser complains: {complaints:#?}");
    }

    /// Returns the errors and the breaches of the page's policy in the browser's console, except the failed
    /// requests that the test expects. Only Chromium's driver tells them.
    async fn complaints(&self) -> Vec<String> {
        if self.browser != Browser::Chromium {
            return Vec::new();
        }
        let log = json!({ "type": "browser" });
        let log = self.command(Method::POST, "se/log", Some(&log)).await;
        let expected = self.expected.lock().expect("nobody panics with it").clone();
        let entries = log.as_array().expect("a list of entries").iter();
        let complaints = entries.filter(|entry| {
            let message = entry["message"].as_str().unwrap_or_default();
            let is_expected = expected.iter().any(|part| message.contains(part));
            // A breach of a report-only policy is a warning in the log.
            let is_complaint = entry["level"] == "SEVERE" || entry["source"] == "security";
            is_complaint && !is_expected
        });
        complaints.map(ToString::to_string).collect()
    }

    async fn try_text(&self, test_id: &str) -> Result<String, String> {
        let element = self.find(test_id).await?;
        let text = self.send(Method::GET, &format!("element/{element}/text"), None).await?;
        Ok(text.as_str().expect("a text").into())
    }

    async fn try_attribute(&self, test_id: &str, name: &str) -> Result<String, String> {
        let element = self.find(test_id).await?;
        let path = format!("element/{element}/attribute/{name}");
        let value = self.send(Method::GET, &path, None).await?;
        Ok(value.as_str().unwrap_or_default().into())
    }

    async fn find(&self, test_id: &str) -> Result<String, String> {
        let selector = format!("[data-testid=\"{test_id}\"]");
        let using = json!({ "using": "css selector", "value": selector });
        let found = self.send(Method::POST, "element", Some(&using)).await?;
        Ok(found[ELEMENT].as_str().expect("an element").into())
    }

    async fn command(&self, method: Method, path: &str, body: Option<&Value>) -> Value {
        done(self.send(method, path, body).await)
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, String> {
        send(&self.http, method, &format!("{}/{path}", self.url), body).await
    }
}

/// Sends a command and unpacks its answer.
async fn send(
    http: &Client,
    method: Method,
    url: &str,
    body: Option<&Value>,
) -> Result<Value, String> {
    let mut request = http.request(method, url);
    if let Some(body) = body {
        request = request.header(CONTENT_TYPE, "application/json").body(body.to_string());
    }
    let answer = request.send().await.map_err(|error| format!("{error:?}"))?;
    let succeeded = answer.status().is_success();
    let answer = answer.bytes().await.map_err(|error| format!("{error:?}"))?;
    let mut answer: Value = serde_json::from_slice(&answer).map_err(|error| error.to_string())?;
    let value = answer["value"].take();
    if succeeded {
        return Ok(value);
    }
    let (error, message) = (&value["error"], value["message"].as_str().unwrap_or_default());
    // The lines that follow are addresses in the driver's memory.
    Err(format!("{error}: {}", message.lines().next().unwrap_or_default()))
}

fn done<T>(result: Result<T, String>) -> T {
    result.unwrap_or_else(|error| panic!("WebDriver: {error}"))
}

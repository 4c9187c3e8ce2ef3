//! A browser, driven by W3C's `WebDriver` protocol: the few commands that the tests need.
//!
//! `chromedriver` speaks `WebDriver` over plain HTTP, so a page of JSON replaces a dependency.

use std::future::poll_fn;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::{ChildStdout, Command, Stdio};
use std::sync::Mutex;
use std::task::Poll;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use http::header::CONTENT_TYPE;
use reqwest::Client;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::neighbour::{PATIENCE, PORTS_TO_TRY, Process, eventually, http_client, tool};

/// Arguments for a run without a display, in a container, without traffic beyond loopback.
const ARGUMENTS: [&str; 9] = [
    "--headless",
    // Chromium's own sandbox needs privileges that a container lacks.
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    // /dev/shm is 64 MiB in a container.
    "--disable-dev-shm-usage",
];

/// Key that marks an element in the protocol's JSON.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// A page in a browser and a profile of its own.
pub struct Page {
    http: Client,
    /// URL of the session; every command is below it.
    url: String,
    /// Complaints of the browser that the test expects.
    expected: Mutex<Vec<String>>,
    _session: Session,
}

/// Session of a browser. First the browser is closed, then the driver ends, then the profile is removed.
struct Session {
    path: String,
    driver: Driver,
    _profile: TempDir,
}

impl Drop for Session {
    /// Closes the browser, which would outlive a driver that is killed.
    fn drop(&mut self) {
        let Ok(mut driver) = TcpStream::connect(self.driver.address) else { return };
        let (path, host) = (&self.path, self.driver.address);
        let request =
            format!("DELETE {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        // Errors are ignored, since a destructor can't return them.
        let _ = driver.set_read_timeout(Some(PATIENCE));
        let _ = driver.write_all(request.as_bytes());
        let _ = driver.read(&mut [0]);
    }
}

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
    let page = Page::open(arguments).await;
    let visit = async {
        page.navigate(url).await;
        test(&page).await;
        page.assert_no_complaints().await;
    };
    let Err(panic) = catch_panic(visit).await else { return };
    let message = panic.downcast_ref::<String>().map(String::as_str);
    let message = message.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or_default();
    let screenshot = page.save_screenshot(name).await;
    let complaints = page.complaints().await;
    panic!(
        "{message}\nscreenshot: {}\nthe browser's console: {complaints:#?}",
        screenshot.display()
    );
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
    async fn open(more: &[String]) -> Self {
        let chromium = tool("chromium");
        let profile = TempDir::new().expect("a folder for the profile");
        let driver = Driver::start();
        let mut arguments = ARGUMENTS.map(str::to_owned).to_vec();
        arguments.push(format!("--user-data-dir={}", profile.path().display()));
        arguments.push("--window-size=1280,1200".into());
        arguments.extend_from_slice(more);
        let capabilities = json!({ "capabilities": { "alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": { "binary": chromium, "args": arguments },
            "goog:loggingPrefs": { "browser": "ALL" },
        }}});
        let http = http_client();
        let sessions = format!("http://{}/session", driver.address);
        let answer = done(send(&http, Method::POST, &sessions, Some(&capabilities)).await);
        let id = answer["sessionId"].as_str().expect("a session's id");
        let path = format!("/session/{id}");
        let url = format!("http://{}{path}", driver.address);
        let session = Session { path, driver, _profile: profile };
        Self { http, url, expected: Mutex::default(), _session: session }
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
    /// requests that the test expects.
    async fn complaints(&self) -> Vec<String> {
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

/// A driver on a port of its own choice.
struct Driver {
    address: SocketAddr,
    _process: Process,
    /// Kept open: the driver would die of writing to a closed pipe.
    _output: BufReader<ChildStdout>,
}

impl Driver {
    /// Starts a driver. The driver chooses a port of one address family and needs the same port of the other
    /// family. If another program has that port, the driver ends at once, and the next driver chooses another
    /// port.
    fn start() -> Self {
        let mut said = String::new();
        (0..PORTS_TO_TRY)
            .find_map(|_| Self::try_start(&mut said))
            .unwrap_or_else(|| panic!("chromedriver ended at once, {PORTS_TO_TRY} times: {said}"))
    }

    fn try_start(said: &mut String) -> Option<Self> {
        let mut command = Command::new(tool("chromedriver"));
        command.arg("--port=0").stdin(Stdio::null()).stdout(Stdio::piped());
        let mut process = Process::start(&mut command);
        let output = process.child().stdout.take().expect("it is piped");
        let mut output = BufReader::new(output);
        while output.read_line(said).expect("chromedriver writes text") > 0 {
            let last = said.lines().last().unwrap_or_default();
            let port = last.split_once("started successfully on port ");
            if let Some(port) = port.and_then(|(_, port)| port.trim_end_matches('.').parse().ok()) {
                let address = (Ipv4Addr::LOCALHOST, port).into();
                return Some(Self { address, _process: process, _output: output });
            }
        }
        None
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

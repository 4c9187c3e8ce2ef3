//! Browsers, their drivers, and a session in one: how each of them is started and ended.

use std::fmt;
use std::fs::canonicalize;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{ChildStdout, Command, Stdio};

use http::Method;
use reqwest::Client;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{done, send};
use crate::neighbour::{PATIENCE, PORTS_TO_TRY, Process, tool};

/// Arguments of Chromium for a run without a display, in a container, without traffic beyond loopback.
const CHROMIUM_ARGUMENTS: [&str; 10] = [
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
    "--window-size=1280,1200",
];

const FIREFOX_ARGUMENTS: [&str; 3] = ["-headless", "--width=1280", "--height=1200"];

/// A browser that the tests drive.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Browser {
    Chromium,
    Firefox,
}

impl fmt::Display for Browser {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Chromium => "chromium",
            Self::Firefox => "firefox",
        })
    }
}

impl Browser {
    /// Returns the command of the driver, which chooses a port.
    fn driver(self) -> Command {
        match self {
            Self::Chromium => {
                let mut driver = Command::new(tool("chromedriver"));
                driver.arg("--port=0");
                driver
            }
            Self::Firefox => {
                let mut driver = Command::new(tool("geckodriver"));
                // Without the second port, each driver would take 9222.
                driver.args(["--port=0", "--websocket-port=0"]);
                // Firefox would print lines of its own among those of the tests.
                driver.stderr(Stdio::null());
                driver
            }
        }
    }

    /// Returns the port from the line in which the driver names it.
    fn port_in(self, line: &str) -> Option<u16> {
        let before = match self {
            Self::Chromium => "started successfully on port ",
            Self::Firefox => "Listening on 127.0.0.1:",
        };
        let (_, port) = line.trim_end().split_once(before)?;
        port.trim_end_matches('.').parse().ok()
    }

    /// Returns what the driver is asked for: this browser with an empty profile.
    fn capabilities(self, profile: &Path, more: &[String]) -> Value {
        let always = match self {
            Self::Chromium => {
                let mut arguments = CHROMIUM_ARGUMENTS.map(str::to_owned).to_vec();
                arguments.push(format!("--user-data-dir={}", profile.display()));
                arguments.extend_from_slice(more);
                json!({
                    "browserName": "chrome",
                    "goog:chromeOptions": { "binary": tool("chromium"), "args": arguments },
                    "goog:loggingPrefs": { "browser": "ALL" },
                    "webSocketUrl": true,
                })
            }
            Self::Firefox => {
                let mut arguments = FIREFOX_ARGUMENTS.map(str::to_owned).to_vec();
                arguments.extend(["-profile".into(), profile.display().to_string()]);
                arguments.extend_from_slice(more);
                // The driver looks for files beside the program, so it wants no link to it.
                let program = canonicalize(tool("firefox-esr")).expect("it is there");
                json!({
                    "browserName": "firefox",
                    "moz:firefoxOptions": {
                        "binary": program,
                        "args": arguments,
                        "prefs": {
                            // All names lead to this machine, and no request of the browser's own leaves it.
                            "network.dns.native-is-localhost": true,
                            // Errors of the browser's own scripts would be printed among the tests.
                            "browser.dom.window.dump.enabled": false,
                        },
                    },
                    "webSocketUrl": true,
                })
            }
        };
        json!({ "capabilities": { "alwaysMatch": always } })
    }
}

/// Session of a browser. First the browser is closed, then the driver ends, then the profile is removed.
pub struct Session {
    path: String,
    /// Address at which the session speaks `WebDriver BiDi`.
    pub bidi: String,
    driver: Driver,
    _profile: TempDir,
}

impl Session {
    /// Opens a session of a new browser, which is started with more arguments.
    pub async fn open(http: &Client, browser: Browser, more: &[String]) -> Self {
        let profile = TempDir::new().expect("a folder for the profile");
        let driver = Driver::start(browser);
        let capabilities = browser.capabilities(profile.path(), more);
        let sessions = format!("http://{}/session", driver.address);
        let answer = done(send(http, Method::POST, &sessions, Some(&capabilities)).await);
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        let path = format!("/session/{}", text(&answer["sessionId"]));
        let bidi = text(&answer["capabilities"]["webSocketUrl"]);
        Self { path, bidi, driver, _profile: profile }
    }

    /// URL of the session; every command is below it.
    pub fn url(&self) -> String {
        format!("http://{}{}", self.driver.address, self.path)
    }
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

/// A driver on a port of its own choice.
struct Driver {
    address: SocketAddr,
    _process: Process,
    /// Kept open: the driver would die of writing to a closed pipe.
    _output: BufReader<ChildStdout>,
}

impl Driver {
    /// Starts a driver. The driver of Chromium chooses a port of one address family and needs the same port of
    /// the other family. If another program has that port, the driver ends at once, and the next driver
    /// chooses another port.
    fn start(browser: Browser) -> Self {
        let mut said = String::new();
        (0..PORTS_TO_TRY).find_map(|_| Self::try_start(browser, &mut said)).unwrap_or_else(|| {
            panic!("the driver of {browser} ended at once, {PORTS_TO_TRY} times: {said}")
        })
    }

    fn try_start(browser: Browser, said: &mut String) -> Option<Self> {
        let mut command = browser.driver();
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut process = Process::start(&mut command);
        let output = process.child().stdout.take().expect("it is piped");
        let mut output = BufReader::new(output);
        while output.read_line(said).expect("the driver writes text") > 0 {
            let last = said.lines().last().unwrap_or_default();
            if let Some(port) = browser.port_in(last) {
                let address = (Ipv4Addr::LOCALHOST, port).into();
                return Some(Self { address, _process: process, _output: output });
            }
        }
        None
    }
}

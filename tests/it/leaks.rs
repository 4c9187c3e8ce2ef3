//! Leaks: no secret, token, cookie or user gets into a log, a metric or another client's answer, and no
//! log line can be forged.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use ground::logging::{self, Format, Level};
use ground::metrics::Outcome;
use serde_json::Value;
use tracing::{error, info};
use tracing_subscriber::fmt::MakeWriter;

use crate::support::app::FakeApp;
use crate::support::binary::{CREDENTIALS, Running, finished_in};
use crate::support::client::Client;
use crate::support::collector::FakeCollector;
use crate::support::document;
use crate::support::issuer::{Issuer, Pen, claims};
use crate::support::outcomes::{Said, Surroundings};
use crate::support::raw::Wire;
use crate::support::velt::FakeVelt;

/// Log lines in memory.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().expect("no panic").clone()).expect("text")
    }
}

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no panic").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// Returns the tokens that were handed out, and asserts that no other answer holds a token.
fn tokens_in(said: &[Said]) -> Vec<String> {
    let mut tokens = Vec::new();
    for Said { outcome, text } in said {
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        if *outcome == Outcome::TokenServed {
            let json: Value = serde_json::from_str(body).expect("JSON");
            tokens.push(json["token"].as_str().expect("a token").to_owned());
            assert!(!head.contains("eyJ"), "{head}");
        } else if *outcome == Outcome::Forwarded {
            let token = head.lines().find_map(|line| line.strip_prefix("x-velt-token: "));
            tokens.push(token.unwrap_or_else(|| panic!("a token: {head}")).to_owned());
        } else {
            assert!(!text.contains("eyJ"), "{outcome:?} holds a token: {text}");
        }
        assert!(!text.to_lowercase().contains("canary"), "{outcome:?}: {text}");
    }
    tokens
}

fn assert_clean(what: &str, text: &str, tokens: &[String]) {
    let canaries = text.to_lowercase().matches("canary").count();
    assert_eq!(canaries, 0, "{what}: {text}");
    for token in tokens {
        for part in token.split('.') {
            assert!(!text.contains(part), "a part of a token is in {what}: {text}");
        }
    }
}

/// Asserts that the canaries reached Velt, since a canary that is nowhere would prove nothing.
fn assert_velt_was_told(surroundings: &Surroundings) {
    let calls = format!("{:?}", surroundings.velt.calls());
    for canary in ["canary-user-ada", "canary-org", "canary@mail.example", "Canary canary-name"] {
        assert!(calls.contains(canary), "{canary} did not reach Velt: {calls}");
    }
}

/// Sends heads and bodies that never become a request, and requests that lie.
async fn send_garbage(surroundings: &Surroundings, traffic: SocketAddr) {
    for garbage in [
        "canary\r\n\r\n",
        "GET / HTTP/1.1\r\ncanary header: canary\r\n\r\n",
        "GET /canary\u{0} HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: canary canary\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\ncontent-length: canary\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\ncanary\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nx-forwarded-user: canary\u{1b}[2J\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nx-forwarded-user: canary\u{202e}\u{2028}\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\ncanarycanarycanary",
    ] {
        let mut wire = Wire::to(traffic).await;
        wire.send(garbage).await;
        wire.end().await;
        assert_clean("an answer", &wire.rest().await, &[]);
    }
    assert_velt_was_told(surroundings);
}

/// Asserts that the spans hold the path of a request, and nothing else of the request.
fn assert_spans_clean(collector: &FakeCollector, tokens: &[String]) {
    let spans = collector.spans();
    for name in ["GET", "POST /api/velt/token", "mint"] {
        assert!(spans.iter().any(|span| span["name"] == name), "a span is called {name}");
    }
    for body in collector.bodies() {
        assert_clean("the spans", &body.replace(PATH, ""), tokens);
    }
}

/// Path of the requests that spans and the access log tell of.
const PATH: &str = "/canary-path";

/// Ends a sidecar whose metrics and log must hold nothing of the requests, and returns the log.
async fn ends_clean(running: Running, admin: SocketAddr, tokens: &[String]) -> String {
    let asking = Client::to(admin);
    let host = admin.to_string();
    for path in ["/metrics", "/config", "/refusals", "/log/level"] {
        let answer = asking.get(path).without("host").header("host", &host).send().await;
        assert_eq!(answer.status(), 200, "{path}");
        assert_clean(path, &answer.text(), tokens);
    }
    for (path, body) in
        [("/explain", r#"{"target":"/api/velt/token"}"#), ("/explain", r#"{"target":"canary"}"#)]
    {
        let posted = asking.post(path, body).header("content-type", "application/json");
        let answer = posted.without("host").header("host", &host).send().await;
        // The answer may name the target that the call asked about, and nothing else.
        assert_clean(path, &answer.text().replace("\\\"canary\\\" is no path", ""), tokens);
    }
    running.signal("TERM");
    let (status, printed) = running.ended().await;
    assert_eq!(status.code(), Some(0), "{printed}");
    // The access log may hold the path, but only in the path's own field.
    let told = ["\"path\":\"", " path=\""].map(|field| format!("{field}{PATH}\""));
    let untold = told.iter().fold(printed.clone(), |text, told| text.replace(told, ""));
    assert_clean("the log", &untold, tokens);
    printed
}

#[tokio::test]
async fn t40_no_outcome_leaks_a_secret_at_the_lowest_log_level() {
    for format in ["text", "json"] {
        let surroundings = Surroundings::start().await;
        let collector = FakeCollector::start().await;
        let toml = format!("{}create = true\n", collector.toml());
        let (running, traffic, admin) = surroundings.binary(format, &toml).await;
        let said = surroundings.provoke(traffic, admin).await;
        send_garbage(&surroundings, traffic).await;
        let tokens = tokens_in(&said);
        assert!(tokens.len() >= 5, "tokens were handed out");
        let printed = ends_clean(running, admin, &tokens).await;
        assert_spans_clean(&collector, &tokens);
        let logged = ["a mint failed", "the app gave no answer", "PERMISSION_DENIED"];
        for expected in logged.into_iter().chain(["token_served", "app_timeout"]) {
            assert!(printed.contains(expected), "{expected} is not logged: {printed}");
        }
        // Libraries log header values and bytes of messages at their lowest levels.
        for library in ["hyper", "h2::", "reqwest", "TRACE", "connecting to"] {
            assert!(!printed.contains(library), "{library} writes to our log: {printed}");
        }
        if format == "json" {
            for line in printed.lines() {
                assert!(serde_json::from_str::<Value>(line).is_ok(), "not JSON: {line}");
            }
        }
    }
}

#[tokio::test]
async fn t40_own_events_hold_no_secret_even_at_trace() {
    let (ours, libraries) = (Lines::default(), Lines::default());
    let everything = tracing_subscriber::fmt()
        .with_max_level(Level::TRACE)
        .with_ansi(false)
        .with_writer({
            let (ours, libraries) = (ours.clone(), libraries.clone());
            move || Both { ours: ours.clone(), libraries: libraries.clone() }
        })
        .finish();
    // Tasks of this runtime run on this thread.
    let _watching = tracing::subscriber::set_default(everything);
    let surroundings = Surroundings::start().await;
    let sidecar = surroundings.sidecar();
    let addresses = sidecar.addresses;
    let said = surroundings.provoke(addresses.traffic, addresses.admin).await;
    send_garbage(&surroundings, addresses.traffic).await;
    let tokens = tokens_in(&said);
    let (ours, libraries) = (ours.text(), libraries.text());
    assert!(ours.contains("a mint failed") && libraries.contains("hyper"), "both were captured");
    assert_clean("our own log", &ours, &tokens);
}

/// Sorts lines into the sidecar's own and the libraries' lines.
struct Both {
    ours: Lines,
    libraries: Lines,
}

impl io::Write for Both {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let is_ours = String::from_utf8_lossy(line).contains(" velt_sidecar");
        let lines = if is_ours { &mut self.ours } else { &mut self.libraries };
        lines.write(line)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn t40_no_library_can_write_a_line_at_any_level() {
    for format in [Format::Text, Format::Json] {
        let lines = Lines::default();
        let settings = logging::Settings { level: Level::TRACE, format };
        tracing::subscriber::with_default(logging::subscriber(&settings, lines.clone()), || {
            error!(target: "hyper::proto", "x-velt-token: canary");
            error!(target: "h2", "canary");
            error!(target: "reqwest::connect", "canary");
            info!(target: "velt_sidecar_server::reload", "ours");
        });
        let text = lines.text();
        assert!(text.contains("ours") && !text.contains("canary"), "{text}");
    }
}

#[tokio::test]
async fn t40_check_and_its_complaints_never_show_a_secret() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| {
        std::fs::write(folder.path().join(name), text).expect("written");
    };
    write("key", "canary-from-a-file\n");
    write("bad", "canary\u{1}canary");
    for (toml, code) in [
        ("[velt]\napi_key = \"canary-in-the-file\"", 78),
        ("[velt]\nauth_token = \"canary-in-the-file\"", 78),
        ("[velt]\nauth_token = canary-in-the-file", 78),
        ("[velt]\nauth_token = \"canary-in-the-file", 78),
        ("[velt]\nauth_token = \"canary\" \"canary\"", 78),
        ("[velt]\nauth_token = [\"canary\"]", 78),
        ("[velt]\napi_key = [\"canary\"]", 78),
        ("[velt]\napi_key = \"canary\"\napi_key = \"canary\"", 78),
        ("[velt]\nauth_token_file = \"key\"", 78),
        ("[velt]\nauth_token_file = \"bad\"", 78),
        ("[velt]\nauth-token = \"canary\"", 78),
        ("", 78),
        ("# nothing", 0),
    ] {
        write("sidecar.toml", toml);
        for command in ["check", "run"] {
            if code == 0 && command == "run" {
                continue;
            }
            let finished = finished_in(folder.path(), &[command], &CREDENTIALS).await;
            assert_eq!(finished.code, Some(code), "{toml}: {}", finished.stderr);
            let printed = format!("{}{}", finished.stdout, finished.stderr);
            assert!(!printed.contains("canary"), "{toml}: {printed}");
        }
    }
    let misspelt = [("VELT_SIDECAR_VELT__AUTH_TOKEN", "canary"), ("VELT_API_KEY", "canary\u{7}")];
    let finished = finished_in(folder.path(), &["check"], &misspelt).await;
    assert_eq!(finished.code, Some(78));
    assert!(!finished.stderr.contains("canary"), "{}", finished.stderr);
}

/// Texts with which a log line must not end, forge another line, steer a terminal or turn text around.
pub(crate) const NASTY: [&str; 10] = [
    "a\nINFO all is well",
    "a\r\n{\"level\":\"INFO\"}",
    "a\u{1b}[2J\u{1b}]0;title\u{7}",
    "a\u{9b}31m",
    "a\u{202e}gnp.exe\u{202c}",
    "a\u{2066}b\u{2069}\u{200f}\u{61c}",
    "a\u{2028}b\u{2029}c\u{85}d",
    "a\0b\u{8}\u{7f}",
    "a\tb\u{b}\u{c}",
    "\"}\n{\"level\":\"ERROR\"",
];

#[test]
fn t41_each_logged_event_is_one_line_of_visible_text() {
    for format in [Format::Text, Format::Json] {
        for nasty in NASTY {
            let lines = Lines::default();
            let settings = logging::Settings { level: Level::INFO, format };
            let told = io::Error::other(nasty);
            tracing::subscriber::with_default(
                logging::subscriber(&settings, lines.clone()),
                || {
                    // The text is the whole message, a field of either kind, and a cause.
                    error!(target: "velt_sidecar", plain = nasty, "{nasty}");
                    error!(target: "velt_sidecar", shown = %nasty, debugged = ?nasty, "x");
                    error!(target: "velt_sidecar", error = %logging::Chain(&told), "x");
                },
            );
            let text = lines.text();
            let written: Vec<_> = text.split_inclusive('\n').collect();
            assert_eq!(written.len(), 3, "{format:?} {nasty:?}: {text:?}");
            for line in written {
                let line = line.strip_suffix('\n').expect("an end");
                let odd = line.chars().find(|char| {
                    char.is_control()
                        || ('\u{200e}'..='\u{206f}').contains(char)
                        || *char == '\u{61c}'
                });
                assert_eq!(odd, None, "{format:?} {nasty:?}: {line:?}");
                if format == Format::Json {
                    let json: Value = serde_json::from_str(line).expect("JSON");
                    let said =
                        ["plain", "shown", "error"].iter().find_map(|key| json[key].as_str());
                    assert_eq!(said, Some(nasty), "the text is all there: {line}");
                }
            }
        }
    }
}

#[test]
fn t41_plain_log_line_stays_unchanged() {
    let lines = Lines::default();
    let settings = logging::Settings { level: Level::INFO, format: Format::Text };
    let text = "Grüße, 名前 🙂 \\ \"quoted\"";
    tracing::subscriber::with_default(logging::subscriber(&settings, lines.clone()), || {
        info!(target: "velt_sidecar", "{text}");
    });
    assert!(lines.text().ends_with(&format!(" INFO {text}\n")), "{}", lines.text());
}

/// Process of the next test, since a panic hook is the whole process's. No test by itself.
#[test]
#[ignore = "run by t40_panic_is_logged_without_its_formatted_message"]
fn process_panics_for_the_next_test() {
    let format = Format::Text;
    logging::init(&logging::Settings { level: Level::INFO, format });
    let quoted = String::from("canary\nof a request");
    let panicking = std::thread::spawn(move || panic!("{quoted}"));
    assert!(panicking.join().is_err());
    let panicking = std::thread::spawn(|| panic!("written in the source"));
    assert!(panicking.join().is_err());
}

#[test]
fn t40_panic_is_logged_without_its_formatted_message() {
    let myself = std::env::current_exe().expect("a path");
    let mut child = std::process::Command::new(myself);
    child.args(["--ignored", "--exact", "leaks::process_panics_for_the_next_test", "--nocapture"]);
    let output = child.output().expect("it runs");
    let printed = String::from_utf8(output.stderr).expect("text");
    assert!(output.status.success(), "{printed}");
    let lines: Vec<_> = printed.lines().filter(|line| line.contains(" ERROR ")).collect();
    assert_eq!(lines.len(), 2, "{printed}");
    assert!(lines.iter().all(|line| line.contains("leaks.rs:")), "it says where: {printed}");
    assert!(lines[1].contains("written in the source"), "{printed}");
    assert!(!printed.contains("canary"), "{printed}");
}

/// Checks assertions, for which the outcomes above have no place.
#[tokio::test]
async fn t40_no_assertion_is_logged_valid_or_not() {
    let pen = Pen::es256("key");
    let issuer = Issuer::publishing(&[&pen]).await;
    let valid = pen.sign(&claims("canary-user"));
    let expired = {
        let mut claims = claims("canary-user");
        claims["exp"] = 1.into();
        pen.sign(&claims)
    };
    let foreign = Pen::es256("key").sign(&claims("canary-eve"));
    let velt = FakeVelt::start().await;
    let app = FakeApp::start().await;
    let without_keys = issuer.toml().replace(&issuer.server.address.to_string(), "127.0.0.1:1");
    let mut tokens = vec![valid.clone(), expired.clone(), foreign.clone()];
    for (toml, expected) in [(issuer.toml(), [200, 401, 401, 401]), (without_keys, [503; 4])] {
        let toml = format!("{toml}[log]\nlevel = \"debug\"\n");
        let document = document(&app.address.to_string(), velt.address, &toml);
        let environment = [("RUST_LOG", "trace")];
        let (running, traffic, admin) = Running::configured(&document, &environment).await;
        let malformed = valid.replace('.', ".canary");
        let asserted = [&valid, &expired, &foreign, &malformed];
        for (assertion, expected) in asserted.into_iter().zip(expected) {
            let sending = Client::to(traffic).get("/api/velt/token");
            let answer = sending.header("x-assertion", assertion).send().await;
            assert_eq!(answer.status(), expected, "{}", answer.text());
            if expected == 200 {
                tokens.push(answer.json()["token"].as_str().expect("a token").to_owned());
            } else {
                assert_clean("an answer", &answer.text(), &tokens);
            }
        }
        ends_clean(running, admin, &tokens).await;
    }
}

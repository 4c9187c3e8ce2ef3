//! Access log: one line for each request, with nothing in it that should not be there. No request waits
//! for the reader of the log.

use std::future::pending;
use std::io::{self, ErrorKind, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, mpsc};
use std::time::{Duration, UNIX_EPOCH};

use ground::metrics::{HeaderDelivery, Metrics, Outcome};
use ground::trace::TraceId;
use http::{StatusCode, Version};
use prometheus::IntCounter;
use serde_json::{Value, json};
use sidecar::access_log::{AccessLog, End, Format, Line, Settings};
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::leaks::NASTY;
use crate::support::app::FakeApp;
use crate::support::binary::Running;
use crate::support::client::Client;
use crate::support::outcomes::{HANDSHAKE, Surroundings};
use crate::support::raw::{RawApp, SWITCHED, Wire};
use crate::support::velt::FakeVelt;
use crate::support::{PATIENCE, document};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

/// Returns the line of a request that went well.
fn line() -> Line<'static> {
    Line {
        time: UNIX_EPOCH + Duration::from_millis(1_795_377_527_922),
        peer: IpAddr::V4(Ipv4Addr::LOCALHOST),
        method: "GET",
        path: "/api/me",
        version: Version::HTTP_11,
        status: Some(StatusCode::OK),
        outcome: Outcome::Forwarded,
        token: Some(HeaderDelivery::Injected),
        request_bytes: 0,
        response_bytes: 1234,
        total: Duration::from_micros(12_345),
        added: Duration::from_micros(45),
        app: Some(Duration::from_micros(12_300)),
        end: End::Whole,
        trace: TraceId::parse(TRACE.as_bytes()),
        user: None,
    }
}

fn formatted(line: &Line<'_>, format: Format) -> String {
    let mut out = Vec::new();
    line.format(format, &mut out);
    String::from_utf8(out).expect("text")
}

#[test]
fn access_log_line_has_every_field_in_both_formats() {
    let trace = format!("\"{TRACE}\"");
    let json = |tail: &str| {
        format!(
            "{{\"time\":\"2026-11-22T19:58:47.922Z\",\"peer\":\"127.0.0.1\",\"method\":\"GET\",\
             \"path\":\"/api/me\",\"protocol\":\"HTTP/1.1\",{tail}}}\n"
        )
    };
    let gone = Line {
        status: None,
        outcome: Outcome::ClientGone,
        token: None,
        app: None,
        end: End::ClientLeft,
        trace: None,
        ..line()
    };
    for (line, tail) in [
        (
            line(),
            format!(
                "\"status\":200,\"outcome\":\"forwarded\",\"token\":\"injected\",\"request_bytes\":0,\
                 \"response_bytes\":1234,\"total_ms\":12.345,\"added_ms\":0.045,\"app_ms\":12.300,\
                 \"end\":\"whole\",\"trace_id\":{trace}"
            ),
        ),
        (
            Line { user: Some(Some("ada \"the\" first")), ..gone.clone() },
            "\"status\":null,\"outcome\":\"client_gone\",\"token\":null,\"request_bytes\":0,\
             \"response_bytes\":1234,\"total_ms\":12.345,\"added_ms\":0.045,\"app_ms\":null,\
             \"end\":\"client_left\",\"trace_id\":null,\"user\":\"ada \\\"the\\\" first\""
                .into(),
        ),
    ] {
        assert_eq!(formatted(&line, Format::Json), json(&tail));
    }
    assert_eq!(
        formatted(&Line { user: Some(None), version: Version::HTTP_2, ..line() }, Format::Text),
        format!(
            "time=2026-11-22T19:58:47.922Z peer=127.0.0.1 method=\"GET\" path=\"/api/me\" \
             protocol=HTTP/2 status=200 outcome=forwarded token=injected request_bytes=0 \
             response_bytes=1234 total_ms=12.345 added_ms=0.045 app_ms=12.300 end=whole \
             trace_id={TRACE} user=-\n"
        )
    );
    let text = formatted(&gone, Format::Text);
    assert!(text.contains("status=- outcome=client_gone token=- "), "{text}");
    assert!(text.ends_with(" app_ms=- end=client_left trace_id=-\n"), "{text}");
}

#[test]
fn log_times_follow_the_calendar() {
    for (seconds, expected) in [
        (0, "1970-01-01T00:00:00"),
        (951_782_399, "2000-02-28T23:59:59"),
        (951_782_400, "2000-02-29T00:00:00"),
        (951_868_800, "2000-03-01T00:00:00"),
        (1_709_164_800, "2024-02-29T00:00:00"),
        (1_735_689_599, "2024-12-31T23:59:59"),
        (1_735_689_600, "2025-01-01T00:00:00"),
        (1_740_787_200, "2025-03-01T00:00:00"),
        (4_107_542_400, "2100-03-01T00:00:00"),
        (253_402_300_799, "9999-12-31T23:59:59"),
    ] {
        let time = UNIX_EPOCH + Duration::from_millis(seconds * 1000 + 7);
        let text = formatted(&Line { time, ..line() }, Format::Json);
        assert!(text.starts_with(&format!("{{\"time\":\"{expected}.007Z\"")), "{text}");
    }
}

#[test]
fn t41_access_log_entry_is_one_line_of_visible_text() {
    for nasty in NASTY {
        for format in [Format::Json, Format::Text] {
            let line = Line { path: nasty, method: nasty, user: Some(Some(nasty)), ..line() };
            let text = formatted(&line, format);
            let text = text.strip_suffix('\n').expect("an end");
            let odd = text.chars().find(|char| {
                char.is_control() || ('\u{200e}'..='\u{206f}').contains(char) || *char == '\u{61c}'
            });
            assert_eq!(odd, None, "{format:?} {nasty:?}: {text:?}");
            if format == Format::Json {
                let json: Value = serde_json::from_str(text).expect("JSON");
                assert_eq!([&json["path"], &json["user"]], [nasty; 2], "nothing is lost: {text}");
            } else {
                // Quotes within a value are escaped, so that no value can pose as another field.
                let plain = text.replace("\\\\", "").replace("\\\"", "");
                assert_eq!(plain.matches('"').count(), 6, "{text}");
            }
        }
    }
}

/// Hands every write to the test, and waits until the test has taken it.
struct Watched(mpsc::SyncSender<Vec<u8>>);

impl Write for Watched {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.send(bytes.to_vec()).map_err(|_| ErrorKind::BrokenPipe)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn counter() -> IntCounter {
    Metrics::new().access_log_dropped
}

fn settings(sample: f64) -> Settings {
    Settings { format: Format::Json, sample, user: false }
}

/// Makes a log whose reader takes nothing until the test receives.
fn watched(sample: f64) -> (AccessLog, mpsc::Receiver<Vec<u8>>, IntCounter) {
    let (sender, written) = mpsc::sync_channel(0);
    let dropped = counter();
    let log = AccessLog::to(Watched(sender), &settings(sample), dropped.clone()).expect("a thread");
    (log, written, dropped)
}

/// Returns all lines that are written until the log has ended.
fn rest(written: &mpsc::Receiver<Vec<u8>>) -> Vec<String> {
    let mut all = Vec::new();
    loop {
        match written.recv_timeout(PATIENCE) {
            Ok(bytes) => all.extend(bytes),
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
            Err(mpsc::RecvTimeoutError::Timeout) => panic!("its thread does not end"),
        }
    }
    let text = String::from_utf8(all).expect("text");
    assert!(text.is_empty() || text.ends_with('\n'), "whole lines: {text}");
    text.lines().map(str::to_owned).collect()
}

#[test]
fn stalled_log_reader_costs_lines_and_no_request_waits() {
    let (log, written, dropped) = watched(1.0);
    let mut lines: u64 = 0;
    // The log's memory is bounded: some 3,000 lines wait, and a batch is being written.
    while dropped.get() < 1000 {
        log.write(&line());
        lines += 1;
        assert!(lines < 20_000, "nothing is dropped");
    }
    drop(log);
    let written = rest(&written);
    assert_eq!(written.len() as u64 + dropped.get(), lines, "each line is written or counted");
    assert!(written.len() > 2000, "{} lines", written.len());
    let expected = formatted(&line(), Format::Json);
    assert!(written.iter().all(|line| *line == expected.trim_end()), "no line is torn");
}

#[test]
fn lines_are_written_in_batches_as_they_came() {
    let (log, written, dropped) = watched(1.0);
    let paths: Vec<String> = (0..500).map(|n| format!("/{n}")).collect();
    for path in &paths {
        log.write(&Line { path, ..line() });
    }
    drop(log);
    let mut batches = 0;
    let mut all = String::new();
    while let Ok(batch) = written.recv_timeout(PATIENCE) {
        all += std::str::from_utf8(&batch).expect("text");
        batches += 1;
    }
    let read = all.lines().map(|line| {
        let json: Value = serde_json::from_str(line).expect("JSON");
        json["path"].as_str().expect("a path").to_owned()
    });
    assert_eq!(read.collect::<Vec<_>>(), paths);
    assert!(batches < 50, "{batches} batches");
    assert_eq!(dropped.get(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn flush_waits_for_queued_lines_until_its_limit() {
    let (log, written, _) = watched(1.0);
    assert!(log.flush(PATIENCE).await, "there is nothing");
    log.write(&line());
    assert!(!log.flush(Duration::from_millis(1)).await, "nobody reads");
    let reading = std::thread::spawn(move || rest(&written));
    assert!(log.flush(PATIENCE).await);
    drop(log);
    assert_eq!(reading.join().expect("no panic").len(), 1);
}

/// A standard output with every fault that a standard output can have.
struct Faulty {
    errors: Vec<ErrorKind>,
    sink: mpsc::Sender<Vec<u8>>,
}

impl Write for Faulty {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(error) = self.errors.pop() {
            return Err(error.into());
        }
        // Takes a few bytes at a time, as a pipe that is nearly full does.
        let some = &bytes[..bytes.len().min(7)];
        self.sink.send(some.to_vec()).map_err(|_| ErrorKind::BrokenPipe)?;
        Ok(some.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn write_error_loses_its_line_and_the_next_is_written() {
    for (errors, lost) in [
        (vec![ErrorKind::Interrupted, ErrorKind::WouldBlock, ErrorKind::Interrupted], 0),
        (vec![ErrorKind::BrokenPipe], 1),
        (vec![ErrorKind::StorageFull, ErrorKind::WouldBlock], 1),
    ] {
        let (sink, written) = mpsc::channel();
        let dropped = counter();
        let faulty = Faulty { errors: errors.clone(), sink };
        let log = AccessLog::to(faulty, &settings(1.0), dropped.clone()).expect("a thread");
        for _ in 0..2 {
            log.write(&line());
            assert!(log.flush(PATIENCE).await);
        }
        assert_eq!(dropped.get(), lost, "{errors:?}");
        drop(log);
        assert_eq!(rest(&written).len() as u64, 2 - lost, "{errors:?}");
    }
}

#[test]
fn successes_are_sampled_and_failures_always_logged() {
    for (sample, expected) in [(0.0, 0), (0.01, 10), (0.25, 250), (1.0, 1000)] {
        let (log, written, _) = watched(sample);
        let reading = std::thread::spawn(move || rest(&written));
        for _ in 0..1000 {
            log.write(&line());
        }
        let bad = [
            Line { status: Some(StatusCode::NOT_FOUND), ..line() },
            Line { status: Some(StatusCode::BAD_GATEWAY), outcome: Outcome::AppBroken, ..line() },
            Line { outcome: Outcome::IdentityRefused, ..line() },
            Line { end: End::AppBrokeOff, ..line() },
            Line { end: End::ClientLeft, ..line() },
            Line { status: None, outcome: Outcome::ClientGone, ..line() },
        ];
        for line in &bad {
            log.write(line);
        }
        drop(log);
        let written = reading.join().expect("no panic").len() - bad.len();
        // The sample is spread evenly, so the count is off by 3 at most.
        assert!(written.abs_diff(expected) <= 3, "{written} and not {expected}");
    }
}

/// Starts a binary that writes an access log, in front of `app`.
async fn logging(app: SocketAddr, toml: &str) -> (Running, SocketAddr, SocketAddr) {
    let velt = FakeVelt::start().await;
    let toml = format!("{toml}\n[access_log]\nformat = \"json\"\n");
    Running::configured(&document(&app.to_string(), velt.address, &toml), &[]).await
}

async fn next_line(running: &mut Running) -> Value {
    serde_json::from_str(&running.line_with("{\"time\":").await).expect("JSON")
}

/// Removes the times, which no test can know.
fn without_times(mut line: Value) -> Value {
    let fields = line.as_object_mut().expect("an object");
    for time in ["time", "total_ms", "added_ms"] {
        assert!(fields.remove(time).is_some(), "{time} is there");
    }
    line
}

#[tokio::test]
async fn each_kind_of_request_leaves_its_line() {
    let app = FakeApp::start().await;
    let (mut running, traffic, _) = logging(app.address, "").await;
    let client = Client::to(traffic);
    let parent = format!("00-{TRACE}-b7ad6b7169203331-01");

    let sending = client.post("/api/me?secret=1", "12345").header("x-forwarded-user", "ada");
    sending.header("traceparent", &parent).send().await;
    let line = next_line(&mut running).await;
    let (total, added) = (line["total_ms"].as_f64(), line["added_ms"].as_f64());
    let app_time = line["app_ms"].as_f64();
    assert!(app_time > Some(0.0) && added > Some(0.0) && total >= app_time, "{line}");
    let mut line = without_times(line);
    line["app_ms"] = Value::Null;
    assert_eq!(
        line,
        json!({
            "peer": "127.0.0.1", "method": "POST", "path": "/api/me", "protocol": "HTTP/1.1",
            "status": 200, "outcome": "forwarded", "token": "injected", "request_bytes": 5,
            "response_bytes": 18, "app_ms": null, "end": "whole", "trace_id": TRACE,
        })
    );

    let sending = client.post("/api/velt/token", "{}").header("x-forwarded-user", "ada");
    let answer = sending.send_http2().await;
    let line = without_times(next_line(&mut running).await);
    assert_eq!(
        line,
        json!({
            "peer": "127.0.0.1", "method": "POST", "path": "/api/velt/token", "protocol": "HTTP/2",
            "status": 200, "outcome": "token_served", "token": null, "request_bytes": 2,
            "response_bytes": answer.body().len(), "app_ms": null, "end": "whole", "trace_id": null,
        })
    );

    for (sending, expected) in [
        (client.get("/api/velt/token"), json!([401, "no_identity", null])),
        (client.get("/"), json!([200, "forwarded", "anonymous"])),
        (client.get("/").header("host", "twice"), json!([400, "bad_request", null])),
        (
            client.get("/").header("traceparent", "00-nonsense"),
            json!([200, "forwarded", "anonymous"]),
        ),
    ] {
        sending.send().await;
        let line = next_line(&mut running).await;
        assert_eq!(json!([line["status"], line["outcome"], line["token"]]), expected, "{line}");
        assert_eq!((&line["trace_id"], line.get("user")), (&Value::Null, None), "{line}");
    }
}

#[tokio::test]
async fn a_line_says_how_its_response_ended() {
    const CHUNK: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n";
    let silent = Arc::new(Notify::new());
    let asked = Arc::clone(&silent);
    let app = RawApp::serving(move |mut wire, _| {
        let asked = Arc::clone(&asked);
        async move {
            let head = wire.head().await;
            match head.split(' ').nth(1).expect("a target") {
                "/ws" => {
                    wire.send(SWITCHED).await;
                    pending::<()>().await;
                }
                "/breaks" => wire.send(CHUNK).await,
                "/silent" => {
                    asked.notify_one();
                    pending::<()>().await;
                }
                // This answer never ends.
                _ => {
                    wire.send(CHUNK).await;
                    pending::<()>().await;
                }
            }
        }
    })
    .await;
    let toml = "[app]\nstream_idle_timeout = \"500ms\"";
    let (mut running, traffic, _) = logging(app.address, toml).await;
    for (path, headers, leaves_after, expected) in [
        ("/ws", HANDSHAKE, None, json!([101, "upgraded", "whole", 0])),
        ("/breaks", "", None, json!([200, "forwarded", "app_broke_off", 3])),
        ("/stands-still", "", None, json!([200, "forwarded", "idle", 3])),
        ("/endless", "", Some("abc"), json!([200, "forwarded", "client_left", 3])),
        ("/silent", "", Some(""), json!([null, "client_gone", "client_left", 0])),
    ] {
        let mut wire = Wire::to(traffic).await;
        wire.send(format!("GET {path} HTTP/1.1\r\nhost: a\r\n{headers}\r\n")).await;
        match leaves_after {
            Some("") => timeout(PATIENCE, silent.notified()).await.expect("it is asked"),
            Some(seen) => drop(wire.read_to(seen).await),
            None if path == "/ws" => drop(wire.head().await),
            None => drop(wire.rest().await),
        }
        wire.reset();
        let line = next_line(&mut running).await;
        let said = json!([line["status"], line["outcome"], line["end"], line["response_bytes"]]);
        assert_eq!(said, expected, "{line}");
        assert!(line["app_ms"].is_number(), "the app was waited for: {line}");
    }
}

#[tokio::test]
async fn user_is_logged_only_if_configured() {
    let app = FakeApp::start().await;
    let (mut running, traffic, _) = logging(app.address, "[access_log]\nuser = true").await;
    for (user, expected) in [(Some("ada"), json!("ada")), (None, Value::Null)] {
        let sending = Client::to(traffic).get("/");
        match user {
            Some(user) => sending.header("x-forwarded-user", user).send().await,
            None => sending.send().await,
        };
        assert_eq!(next_line(&mut running).await.get("user"), Some(&expected));
    }
}

#[tokio::test]
async fn a_path_of_any_length_and_content_is_one_bounded_line() {
    let app = FakeApp::start().await;
    let (mut running, traffic, _) = logging(app.address, "").await;
    let long = format!("/{}", "a".repeat(10_000));
    for path in [&*long, "/a\"},{\"x\":\"y", "/ü\u{202e}"] {
        let mut wire = Wire::to(traffic).await;
        wire.send(format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")).await;
        let head = wire.head().await;
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        let line = running.line_with("{\"time\":").await;
        let logged: Value = serde_json::from_str(&line).expect("JSON");
        let logged = logged["path"].as_str().expect("a path").to_owned();
        assert!(path.starts_with(&logged) && logged.len() > 5, "{line}");
        assert!(line.len() < 2000, "{} bytes", line.len());
        assert!(!line.contains('\u{202e}'), "{line:?}");
    }
}

#[tokio::test]
async fn line_of_a_request_at_shutdown_is_written() {
    let (gate, app) = FakeApp::gated().await;
    let (mut running, traffic, _) = logging(app.address, "").await;
    let request = tokio::spawn(Client::to(traffic).get("/").send());
    app.requests_reach(1).await;
    running.signal("TERM");
    running.line_with("shutdown begins").await;
    gate.send_replace(true);
    assert_eq!(request.await.expect("no panic").status(), 200);
    let (status, printed) = running.ended().await;
    assert_eq!(status.code(), Some(0), "{printed}");
    let lines = printed.lines().filter(|line| line.starts_with("{\"time\":")).count();
    assert_eq!(lines, 1, "{printed}");
}

#[tokio::test]
async fn every_outcome_has_a_line() {
    let surroundings = Surroundings::start().await;
    let (running, traffic, admin) = surroundings.binary("json", "").await;
    let said = surroundings.provoke(traffic, admin).await;
    running.signal("TERM");
    let (_, printed) = running.ended().await;
    let lines = printed.lines().filter_map(|line| {
        let json: Value = serde_json::from_str(line).ok()?;
        json["outcome"].as_str().map(str::to_owned)
    });
    let mut words: Vec<String> = lines.collect();
    for one in said {
        use ground::metrics::Label as _;
        let word = one.outcome.as_str();
        let at = words.iter().position(|logged| logged == word);
        words.swap_remove(at.unwrap_or_else(|| panic!("no line says {word}: {printed}")));
    }
    assert_eq!(words, ["client_gone"], "and nothing else is logged");
}

//! Real app servers behind a sidecar, and clients that send invalid or ambiguous requests. For any bytes, the
//! app must read the same requests as the sidecar does, or must not get the bytes.
//!
//! `cases` has the cases; `Stage::play` plays a case.

mod cases;
mod stage;
mod wire;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::neighbour::tool;
use crate::record::record;
use stage::Stage;

/// A request that must reach the app only if the client has sent it as a request.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nhost: a\r\nx-forwarded-user: eve\r\n\r\n";

const APPS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/real/apps");

/// A request as an app has read it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    method: String,
    target: String,
    /// Bytes of the body.
    length: usize,
    /// User that the app reads from the request.
    user: Option<String>,
}

impl Seen {
    fn new(method: &str, target: &str, length: usize, user: &str) -> Self {
        let user = Some(user.to_owned()).filter(|user| !user.is_empty());
        Self { method: method.to_owned(), target: target.to_owned(), length, user }
    }

    fn smuggled() -> Self {
        Self::new("GET", "/smuggled", 0, "eve")
    }
}

/// State of a connection after its last answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    /// The connection serves another request.
    Open,
    Closed,
    Either,
    /// The client ends the connection within its request.
    Left,
}

#[derive(Clone, Debug)]
enum Expected {
    /// The sidecar sends one answer, then ends the connection. The app gets nothing.
    Refused(u16),
    /// The answers have these statuses, and the app reads exactly these requests.
    Answered { statuses: Vec<u16>, seen: Vec<Seen>, then: Then },
    /// The body can't be read to its end. The sidecar notices this by itself or, if `ended`, by the client's
    /// end. The app gets no whole request, and the connection ends.
    CutOff { ended: bool },
    /// The sidecar forwards a legal request that some apps refuse. The app reads this request or none.
    UpToTheApp(Seen),
}

use Expected::{Answered, CutOff, Refused, UpToTheApp};

struct Case {
    name: String,
    bytes: Vec<u8>,
    expected: Expected,
    about: About,
}

impl Case {
    fn is_http2(&self) -> bool {
        self.bytes.starts_with(b"PRI ")
    }

    /// Says what must come of the case, for the record.
    fn words(&self) -> String {
        match &self.expected {
            Refused(_) if self.is_http2() => "refused by a status or a reset".to_owned(),
            Refused(status) => format!("refused with {status}"),
            Answered { seen, .. } if seen.len() == 1 => "one request reaches the app".to_owned(),
            Answered { seen, .. } => format!("{} requests reach the app", seen.len()),
            CutOff { .. } => "cut off, no whole request reaches the app".to_owned(),
            UpToTheApp(_) => "forwarded, and the app may refuse it".to_owned(),
        }
    }
}

/// Property by which a case differs under some settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum About {
    Framing,
    /// The case does not apply where no peer is trusted.
    Identity,
    /// An app that speaks only HTTP/2 can't take the case.
    WebSocket,
    /// nginx breaks an HTTP/2 connection off when a request ends in trailers.
    Trailers,
}

/// Plays every case to one app, with a trusted front and without a trusted peer.
async fn play_all(app: &str, protocol: &str, command: impl Fn(&Path, &Path) -> Command) {
    let mut failures = Vec::new();
    for trusted in [true, false] {
        let mut stage = Stage::set(&command, protocol, trusted).await;
        let mut results: BTreeMap<String, Value> = BTreeMap::new();
        for mut case in cases::all() {
            match (case.about, &case.expected) {
                (About::Identity, _) if !trusted => continue,
                (About::WebSocket, _) if protocol == "h2c" => case.expected = Refused(502),
                (About::Trailers, Answered { seen, .. }) if protocol == "h2c" => {
                    case.expected = UpToTheApp(seen[0].clone());
                }
                _ => {}
            }
            let played = stage.play(&case).await;
            let result = json!({ "expected": case.words(), "passed": played.is_ok() });
            assert!(results.insert(case.name.clone(), result).is_none(), "{}: twice", case.name);
            if let Err(failure) = played {
                failures.push(format!("{} (trusted: {trusted}): {failure}", case.name));
            }
        }
        record("framing", app, &json!({ "trusted": trusted, "cases": results }));
    }
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn t12_to_t23_node_gets_only_forwarded_requests() {
    play_all("Node.js", "http1", |_, socket| {
        let mut node = Command::new(tool("node"));
        node.arg(Path::new(APPS).join("node_app.js")).arg(socket);
        node
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn t12_to_t23_gunicorn_gets_only_forwarded_requests() {
    play_all("gunicorn", "http1", |_, socket| {
        let mut gunicorn = Command::new(tool("gunicorn"));
        gunicorn.args(["--chdir", APPS, "--bind"]).arg(format!("unix:{}", socket.display()));
        // The default class of workers closes after each request, so that no request could follow.
        gunicorn.args(["--worker-class", "gthread", "--threads", "4", "--keep-alive", "75"]);
        // Above the sidecar's own limits, so that the sidecar's limits decide.
        gunicorn.args(["--limit-request-line", "0", "--limit-request-field_size", "0"]);
        gunicorn.args(["--limit-request-fields", "1000", "--log-level", "critical"]);
        gunicorn.arg("wsgi_app:application").env("PYTHONDONTWRITEBYTECODE", "1");
        gunicorn
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn t12_to_t23_nginx_gets_only_forwarded_requests() {
    play_all("nginx", "http1", |folder, _| nginx(folder, "")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn t12_to_t23_nginx_gets_only_forwarded_requests_over_http2() {
    play_all("nginx over HTTP/2", "h2c", |folder, _| nginx(folder, "http2")).await;
}

fn nginx(folder: &Path, protocol: &str) -> Command {
    let config = std::fs::read_to_string(Path::new(APPS).join("nginx.conf")).expect("it is there");
    let config = config.replace("FOLDER", folder.to_str().expect("a plain path"));
    let config = config.replace("PROTOCOL", protocol);
    std::fs::write(folder.join("nginx.conf"), config).expect("a file in the folder");
    let mut nginx = Command::new(tool("nginx"));
    nginx.arg("-p").arg(folder).args(["-c", "nginx.conf", "-e", "error.log"]);
    nginx
}

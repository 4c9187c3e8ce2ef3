//! Requests whose answers depend on framing and negotiation, written by hand to nginx serving files and to
//! Node, directly and through a sidecar. Status, headers, body and the state of the connection afterwards
//! must be the same, except where docs/proxying.md documents a difference.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::neighbour::{PATIENCE, Process, Sidecar, http_client, tool};
use crate::program::{APPS, Program};

/// Headers that are not compared: headers of each hop, headers that the sidecar adds, and `Date`, which
/// changes with time.
const OF_THE_HOP: [&str; 4] = ["connection", "date", "keep-alive", "x-velt-token-status"];

/// Difference of an answer that docs/proxying.md documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Differs {
    Nowhere,
    /// The sidecar drops 1xx answers other than 100.
    Interim,
    /// The sidecar chunks a body that ends with the app's connection.
    Chunked,
    /// Answers to HTTP/1.0 have the version HTTP/1.0, which belongs to each hop (RFC 9110 section 2.5).
    Version,
    /// The sidecar sends a 304 without a length, since a 304 has no body (RFC 9110 section 8.6).
    Length,
    /// The sidecar removes a length beside chunks (RFC 9112 section 6.3).
    Contradiction,
}

use Differs::{Chunked, Contradiction, Interim, Length, Nowhere, Version};

struct Case {
    name: String,
    head: String,
    body: Vec<u8>,
    /// Whether the client sends the body only after the server has asked for it.
    waits: bool,
    differs: Differs,
}

/// Answer that has come back.
struct Answer {
    interim: Vec<u16>,
    status: String,
    headers: Vec<(String, String)>,
    /// End of the body as the message frames it: length, chunks or the connection's end.
    framing: &'static str,
    body: Vec<u8>,
    /// Whether the connection still serves another request.
    open: bool,
}

impl Case {
    /// Whether the client would send another request on its connection.
    fn wants_more(&self) -> bool {
        let persists = self.head.contains("HTTP/1.1\r\n") || self.head.contains("keep-alive");
        persists && !self.head.contains("Connection: close")
    }
}

struct Connection {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Connection {
    async fn more(&mut self) -> bool {
        let mut buffer = [0; 8192];
        let read = timeout(PATIENCE, self.stream.read(&mut buffer)).await.expect("more in time");
        // A reset counts as an end of the connection.
        let read = read.unwrap_or(0);
        self.read.extend_from_slice(&buffer[..read]);
        read > 0
    }

    /// Returns all bytes up to `end`, without `end`.
    async fn up_to(&mut self, end: &str) -> Option<String> {
        loop {
            let at = self.read.windows(end.len()).position(|window| window == end.as_bytes());
            if let Some(at) = at {
                let found: Vec<u8> = self.read.drain(..at + end.len()).collect();
                return Some(String::from_utf8_lossy(&found[..at]).into_owned());
            }
            if !self.more().await {
                return None;
            }
        }
    }

    async fn exactly(&mut self, length: usize) -> Vec<u8> {
        while self.read.len() < length {
            assert!(self.more().await, "ended after {} of {length} bytes", self.read.len());
        }
        self.read.drain(..length).collect()
    }

    async fn body(
        &mut self,
        method: &str,
        status: &str,
        headers: &[(String, String)],
    ) -> (&'static str, Vec<u8>) {
        let value = |name| headers.iter().find(|(own, _)| own == name).map(|(_, value)| value);
        if method == "HEAD" || matches!(&status[9..12], "204" | "304") {
            return ("none", Vec::new());
        }
        if value("transfer-encoding").is_some() {
            let mut body = Vec::new();
            loop {
                let length = self.up_to("\r\n").await.expect("a chunk");
                let length = usize::from_str_radix(&length, 16).expect("a length");
                body.extend(self.exactly(length).await);
                assert_eq!(self.exactly(2).await, b"\r\n");
                if length == 0 {
                    return ("chunks", body);
                }
            }
        }
        if let Some(length) = value("content-length") {
            return ("length", self.exactly(length.parse().expect("a number")).await);
        }
        while self.more().await {}
        ("end", std::mem::take(&mut self.read))
    }
}

/// Sends a case and reads the answer.
async fn exchange(server: SocketAddr, case: &Case) -> Answer {
    let stream = TcpStream::connect(server).await.expect("it listens");
    let mut connection = Connection { stream, read: Vec::new() };
    let first: &[u8] = if case.waits { b"" } else { &case.body };
    let sent = [case.head.as_bytes(), first].concat();
    connection.stream.write_all(&sent).await.expect("it reads");
    let mut interim = Vec::new();
    let (status, mut headers) = loop {
        let head = connection.up_to("\r\n\r\n").await.expect("an answer");
        let mut lines = head.split("\r\n");
        let status = lines.next().expect("a status").to_owned();
        let code: u16 = status[9..12].parse().expect("a status");
        if code >= 200 {
            let header = |line: &str| {
                let (name, value) = line.split_once(':').expect("a header");
                (name.to_lowercase(), value.trim().to_owned())
            };
            break (status, lines.map(header).collect::<Vec<_>>());
        }
        interim.push(code);
        if code == 100 && case.waits {
            connection.stream.write_all(&case.body).await.expect("it has asked for it");
        }
    };
    let method = case.head.split(' ').next().expect("a method");
    let (framing, mut body) = connection.body(method, &status, &headers).await;
    neutral_boundary(&mut headers, &mut body);
    headers.retain(|(name, _)| !OF_THE_HOP.contains(&&**name) && name != "transfer-encoding");
    headers.sort();
    // A client that was not asked for its body sends the body or closes (RFC 9110, 10.1.1): a server may take what
    // follows for the body.
    let may_go_on = !case.waits || interim.contains(&100);
    let again = "GET /plain.txt HTTP/1.1\r\nHost: app.example\r\nConnection: close\r\n\r\n";
    let open = may_go_on && {
        let _ = connection.stream.write_all(again.as_bytes()).await;
        connection.up_to("\r\n\r\n").await.is_some()
    };
    Answer { interim, status, headers, framing, body, open }
}

/// Replaces the boundary of a multipart answer, since nginx numbers its boundaries.
fn neutral_boundary(headers: &mut [(String, String)], body: &mut Vec<u8>) {
    for (_, value) in headers {
        if let Some((kind, boundary)) = value.split_once("; boundary=") {
            let text = String::from_utf8_lossy(body).replace(boundary, "BOUNDARY");
            *body = text.into_bytes();
            *value = format!("{kind}; boundary=BOUNDARY");
        }
    }
}

/// A list of cases that is being built.
#[derive(Default)]
struct Cases(Vec<Case>);

impl Cases {
    /// Adds a case with a request line and further header lines.
    fn add(
        &mut self,
        line: &str,
        headers: &str,
        body: impl AsRef<[u8]>,
        differs: Differs,
    ) -> &mut Case {
        let mut head = format!("{line}\r\n");
        if line.ends_with("/1.1") {
            head.push_str("Host: app.example\r\n");
        }
        for header in headers.lines() {
            head.push_str(header.trim());
            head.push_str("\r\n");
        }
        head.push_str("\r\n");
        let (name, body) = (format!("{line} {headers:?}"), body.as_ref().to_vec());
        self.0.push(Case { name, head, body, waits: false, differs });
        self.0.last_mut().expect("just pushed")
    }

    fn get(&mut self, path: &str, headers: &str) {
        self.add(&format!("GET {path} HTTP/1.1"), headers, "", Nowhere);
    }

    fn head(&mut self, path: &str, headers: &str) {
        self.add(&format!("HEAD {path} HTTP/1.1"), headers, "", Nowhere);
    }
}

/// Returns cases for files with this validator and date.
fn file_cases(etag: &str, modified: &str) -> Vec<Case> {
    let mut cases = Cases::default();
    for path in [
        "/plain.txt",
        "/page.html",
        "/empty.txt",
        "/pixel.png",
        "/missing",
        "/204",
        "/gone",
        "/moved",
    ] {
        for coding in
            ["", "Accept-Encoding: gzip", "Accept-Encoding: identity;q=0.5, br, gzip;q=0.1"]
        {
            cases.get(path, coding);
            cases.head(path, coding);
        }
    }
    for range in [
        "bytes=0-0",
        "bytes=0-99",
        "bytes=100-",
        "bytes=-1",
        "bytes=0-",
        "bytes=999999999-",
        "bytes=5-2",
        "bytes=0-0,10-19,-5",
        "bytes=0-9, 0-9",
        "bytes=x",
        "lines=1-2",
    ] {
        cases.get("/plain.txt", &format!("Range: {range}"));
        cases.head("/plain.txt", &format!("Range: {range}"));
        cases.get("/page.html", &format!("Range: {range}\nAccept-Encoding: gzip"));
    }
    for validator in [etag, "\"other\"", modified, "Mon, 01 Jan 1990 00:00:00 GMT"] {
        cases.get("/plain.txt", &format!("Range: bytes=0-9\nIf-Range: {validator}"));
    }
    for condition in [
        format!("If-None-Match: {etag}"),
        format!("If-None-Match: W/{etag}, \"other\""),
        "If-None-Match: *".into(),
        "If-None-Match: \"other\"".into(),
        format!("If-Modified-Since: {modified}"),
        "If-Modified-Since: Mon, 01 Jan 1990 00:00:00 GMT".into(),
        format!("If-Match: {etag}"),
        "If-Match: \"other\"".into(),
        format!("If-Unmodified-Since: {modified}"),
        "If-Unmodified-Since: Mon, 01 Jan 1990 00:00:00 GMT".into(),
    ] {
        cases.get("/plain.txt", &condition);
        cases.head("/plain.txt", &condition);
        cases.get("/page.html", &format!("{condition}\nAccept-Encoding: gzip"));
    }
    for (line, headers) in [
        ("GET /plain.txt HTTP/1.1", "Connection: close"),
        ("GET /page.html HTTP/1.1", "Connection: close\nAccept-Encoding: gzip"),
        ("GET http://app.example/plain.txt HTTP/1.1", ""),
        ("GET http://app.example/plain.txt?a=b HTTP/1.1", "Range: bytes=0-3"),
        ("GET /plain.txt?a=b&c=%20 HTTP/1.1", ""),
        ("POST /plain.txt HTTP/1.1", "Content-Length: 0"),
        ("DELETE /plain.txt HTTP/1.1", ""),
        ("OPTIONS /plain.txt HTTP/1.1", ""),
    ] {
        cases.add(line, headers, "", Nowhere);
    }
    for (path, headers) in [
        ("/plain.txt", ""),
        ("/plain.txt", "Host: app.example"),
        ("/plain.txt", "Connection: keep-alive"),
        ("/page.html", "Accept-Encoding: gzip"),
        ("/page.html", "Accept-Encoding: gzip\nConnection: keep-alive"),
        ("/plain.txt", "Range: bytes=0-9\nConnection: keep-alive"),
        ("/204", "Connection: keep-alive"),
        ("/missing", ""),
    ] {
        cases.add(&format!("GET {path} HTTP/1.0"), headers, "", Version);
        cases.add(&format!("HEAD {path} HTTP/1.0"), headers, "", Version);
    }
    cases.0
}

fn app_cases() -> Vec<Case> {
    let mut cases = Cases::default();
    for connection in ["", "Connection: close"] {
        cases.add("GET /304 HTTP/1.1", connection, "", Length);
    }
    cases.head("/304", "");
    for path in ["/length", "/empty", "/chunked", "/chunked-empty", "/204", "/reason"] {
        cases.get(path, "");
        cases.head(path, "");
        cases.get(path, "Connection: close");
        cases.add(&format!("GET {path} HTTP/1.0"), "", "", Version);
        cases.add(&format!("GET {path} HTTP/1.0"), "Connection: keep-alive", "", Version);
    }
    for path in ["/both", "/both-reversed"] {
        cases.add(&format!("GET {path} HTTP/1.1"), "", "", Contradiction);
        cases.add(&format!("HEAD {path} HTTP/1.1"), "", "", Contradiction);
    }
    for (method, headers, body) in [
        ("GET", "", ""),
        ("POST", "Content-Length: 0", ""),
        ("POST", "Transfer-Encoding: chunked", "0\r\n\r\n"),
        ("POST", "Transfer-Encoding: chunked", "3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n"),
        ("PUT", "Content-Length: 5", "hello"),
        ("PATCH", "Content-Length: 5\nAccept-Encoding: gzip, br\nRange: bytes=0-1", "hello"),
        ("DELETE", "", ""),
        ("GET", "Content-Length: 5", "hello"),
        ("GET", "Transfer-Encoding: chunked", "3\r\nabc\r\n0\r\n\r\n"),
        ("OPTIONS", "", ""),
    ] {
        cases.add(&format!("{method} /echo HTTP/1.1"), headers, body, Nowhere);
        cases.add(&format!("{method} http://app.example/echo HTTP/1.1"), headers, body, Nowhere);
    }
    cases.add("POST /echo HTTP/1.0", "Content-Length: 5", "hello", Version);
    for path in ["/echo", "/length", "/refuse"] {
        let line = format!("POST {path} HTTP/1.1");
        let length = "Expect: 100-continue\nContent-Length: 5";
        cases.add(&line, length, "hello", Nowhere).waits = true;
        let chunked = "Expect: 100-continue\nTransfer-Encoding: chunked";
        cases.add(&line, chunked, "5\r\nhello\r\n0\r\n\r\n", Nowhere).waits = true;
    }
    // The client does not wait for the 100 that it asks for.
    cases.add("POST /echo HTTP/1.1", "Expect: 100-continue\nContent-Length: 5", "hello", Nowhere);
    cases.add("GET /hints HTTP/1.1", "", "", Interim);
    cases.add("GET /processing HTTP/1.1", "", "", Interim);
    cases.add("GET /close HTTP/1.1", "", "", Nowhere);
    cases.add("HEAD /close HTTP/1.1", "", "", Nowhere);
    cases.add("GET /until-the-end HTTP/1.1", "", "", Chunked);
    cases.add("GET /until-the-end HTTP/1.0", "", "", Version);
    cases.0
}

/// Returns the first difference.
fn difference(direct: &Answer, through: &Answer) -> Option<String> {
    let head = |answer: &Answer| {
        let Answer { interim, status, headers, framing, open, .. } = answer;
        format!("{interim:?} {status} {headers:?} {framing}, open: {open}")
    };
    if head(direct) != head(through) {
        return Some(format!("{}\n  became {}", head(direct), head(through)));
    }
    let (direct, through) = (&direct.body, &through.body);
    (direct != through).then(|| format!("{} bytes became {}", direct.len(), through.len()))
}

/// Plays cases to a server, directly and through a sidecar.
async fn compare(server: SocketAddr, cases: Vec<Case>) {
    let sidecar = Sidecar::start(server).await;
    let mut failures = Vec::new();
    for case in &cases {
        let mut direct = exchange(server, case).await;
        let through = exchange(sidecar.addresses.traffic, case).await;
        match case.differs {
            Nowhere => {}
            Interim => {
                assert!(!direct.interim.is_empty(), "{}", case.name);
                direct.interim.clear();
            }
            Chunked => {
                assert_eq!(direct.framing, "end", "{}", case.name);
                direct.framing = "chunks";
            }
            Version => direct.status = direct.status.replace("HTTP/1.1", "HTTP/1.0"),
            Length | Contradiction => direct.headers.retain(|(name, _)| name != "content-length"),
        }
        // The app decides about its own connection, and nginx closes it after a 412 without a header. The
        // client's connection ends if the client wants that, if a body has no other end, or if the server did
        // not ask for a body.
        if case.wants_more() && direct.framing != "end" && !case.waits {
            direct.open = true;
        }
        if let Some(difference) = difference(&direct, &through) {
            failures.push(format!("{}: {difference}", case.name));
        }
    }
    println!("{} messages twice", cases.len());
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}

/// An nginx that serves files.
struct Files {
    address: SocketAddr,
    _process: Process,
    _folder: TempDir,
}

impl Files {
    async fn serve() -> Self {
        let folder = TempDir::new().expect("a folder for nginx");
        let files = folder.path().join("files");
        std::fs::create_dir(&files).expect("a folder in it");
        let lines: String = (0..1500)
            .flat_map(|number| ["line ".into(), number.to_string(), "\n".into()])
            .collect();
        for (name, content) in [
            ("plain.txt", lines.clone().into_bytes()),
            ("page.html", format!("<pre>{lines}</pre>\n").into_bytes()),
            ("empty.txt", Vec::new()),
            ("pixel.png", (0..=255).cycle().take(3000).collect()),
        ] {
            std::fs::write(files.join(name), content).expect("a file in it");
        }
        let config =
            std::fs::read_to_string(Path::new(APPS).join("files.conf")).expect("it is there");
        let command = |port: u16| {
            let config = config.replace("PORT", &port.to_string());
            std::fs::write(folder.path().join("nginx.conf"), config).expect("a file in the folder");
            let mut nginx = Command::new(tool("nginx"));
            nginx.arg("-p").arg(folder.path()).args(["-c", "nginx.conf", "-e", "error.log"]);
            nginx.stdin(Stdio::null());
            nginx
        };
        let ready = async |address: SocketAddr| {
            let answer = http_client().get(format!("http://{address}/plain.txt")).send().await;
            answer.map(drop).map_err(|error| error.to_string())
        };
        let (process, address) = Process::start_on_free_port(command, ready).await;
        Self { address, _process: process, _folder: folder }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_nginx_arrive_as_they_would_without_a_sidecar() {
    let files = Files::serve().await;
    let answer = http_client().get(format!("http://{}/plain.txt", files.address)).send().await;
    let headers = answer.expect("an answer").headers().clone();
    let header = |name: &str| headers[name].to_str().expect("text").to_owned();
    compare(files.address, file_cases(&header("etag"), &header("last-modified"))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_node_arrive_as_they_would_without_a_sidecar() {
    let (_app, address) = Program::node("messages_app.js", &[]).listening().await;
    compare(address, app_cases()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_of_pythons_old_server_are_read_whole() {
    let (_app, address) = Program::python("old_app.py", &[]).listening().await;
    let sidecar = Sidecar::start(address).await;
    let url = |path: &str| format!("http://{}{path}", sidecar.addresses.traffic);
    let chunked = http_client().get(url("/chunked")).send().await.expect("an answer");
    assert_eq!(chunked.text().await.expect("a whole body"), "hello");
    let folded = http_client().get(url("/folded")).send().await.expect("an answer");
    assert_eq!(folded.headers()["x-folded"], "one, two");
    assert_eq!(folded.headers()["x-spaced"], "three");
    assert_eq!(folded.text().await.expect("a whole body"), "hello");
}

//! Real app servers behind a sidecar, and clients that send invalid or ambiguous requests. For any bytes, the
//! app must read the same requests as the sidecar does, or must not get the bytes.
//!
//! `cases` and `http2_cases` have the cases; `Stage::play` plays a case.

use std::path::Path;
use std::process::{Command, Stdio};

use serde::Deserialize;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::frames::{
    self, DATA, END_HEADERS, END_STREAM, Frame, GOAWAY, HEADERS, PREFACE, RESET, STATUS_200, block,
    frame,
};
use crate::neighbour::{
    PATIENCE, Process, Sidecar, claims_of, eventually, http_client, lines_of, tool,
};

/// A request that must reach the app only if the client has sent it as a request.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nhost: a\r\nx-forwarded-user: eve\r\n\r\n";

/// Trusted address that no peer has, for a sidecar that trusts no peer.
const NOBODY_TRUSTED: (&str, &str) = ("VELT_SIDECAR_IDENTITY__TRUSTED_PEERS", "192.0.2.1/32");

/// Outcomes of requests that the app has answered.
const FORWARDED: [&str; 1] = ["forwarded"];

/// Outcomes of requests that the app may have got, whole or not, with or without an answer.
const TRIED: [&str; 3] = ["forwarded", "client_gone", "app_broken"];

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

/// Line that an app prints about a request, see `apps/`.
#[derive(Debug, Deserialize)]
struct Line {
    #[serde(default)]
    method: String,
    target: String,
    #[serde(default)]
    length: Value,
    #[serde(default)]
    users: Vec<String>,
    /// Whether the app did not read the request to its end, or did not understand it.
    #[serde(default)]
    broken: bool,
    status: Option<String>,
}

impl Line {
    /// Returns the request, if it was a whole request.
    fn whole(&self) -> Option<Seen> {
        if self.broken || self.status.as_ref().is_some_and(|status| status != "200") {
            return None;
        }
        let length = match &self.length {
            Value::String(length) if length.is_empty() => 0,
            Value::String(length) => length.parse().expect("a length"),
            length => length.as_u64().expect("a length").try_into().expect("a length"),
        };
        Some(Seen::new(&self.method, &self.target, length, &self.users.join("|")))
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

fn passed(seen: Vec<Seen>, then: Then) -> Expected {
    Answered { statuses: vec![200; seen.len()], seen, then }
}

fn one(method: &str, target: &str, length: usize, then: Then) -> Expected {
    passed(vec![Seen::new(method, target, length, "ada")], then)
}

/// A list of cases that is being built.
#[derive(Default)]
struct Cases(Vec<Case>);

impl Cases {
    fn raw(&mut self, name: &str, bytes: impl AsRef<[u8]>, expected: Expected) {
        let mut bytes = bytes.as_ref().to_vec();
        // A client that is refused has always sent a further request.
        if matches!(expected, Refused(_) | CutOff { ended: false }) {
            bytes.extend_from_slice(SMUGGLED.as_bytes());
        }
        self.0.push(Case { name: name.to_owned(), bytes, expected, about: About::Framing });
    }

    /// Sets the property of the last case.
    fn about(&mut self, about: About) {
        self.0.last_mut().expect("a case").about = about;
    }

    /// Adds a GET with these further lines, each with its line end.
    fn get(&mut self, name: &str, lines: impl AsRef<[u8]>, expected: Expected) {
        self.request(name, "GET /case HTTP/1.1", lines, "", expected);
    }

    fn post(&mut self, name: &str, lines: &str, body: &str, expected: Expected) {
        self.request(name, "POST /case HTTP/1.1", lines, body, expected);
    }

    fn chunked(&mut self, name: &str, body: &str, expected: Expected) {
        self.post(name, "transfer-encoding: chunked\r\n", body, expected);
    }

    fn request(
        &mut self,
        name: &str,
        first: &str,
        lines: impl AsRef<[u8]>,
        body: &str,
        expected: Expected,
    ) {
        let start = format!("{first}\r\nhost: a\r\nx-forwarded-user: ada\r\n");
        let bytes = [start.as_bytes(), lines.as_ref(), b"\r\n", body.as_bytes()].concat();
        self.raw(name, bytes, expected);
    }

    fn http2(&mut self, name: &str, bytes: Vec<u8>, expected: Expected) {
        let name = format!("HTTP/2: {name}");
        self.0.push(Case { name, bytes, expected, about: About::Framing });
    }

    /// Adds a request that has no lines but these and the user's.
    fn line(&mut self, name: &str, first: &str, lines: &str, expected: Expected) {
        self.raw(name, format!("{first}\r\n{lines}x-forwarded-user: ada\r\n\r\n"), expected);
    }
}

fn cases() -> Vec<Case> {
    let mut cases = Cases::default();
    content_lengths(&mut cases);
    transfer_codings(&mut cases);
    lines(&mut cases);
    chunks(&mut cases);
    targets_and_hosts(&mut cases);
    sizes(&mut cases);
    connections(&mut cases);
    early_answers(&mut cases);
    wishes(&mut cases);
    identities(&mut cases);
    cases.0
}

fn content_lengths(cases: &mut Cases) {
    let length = SMUGGLED.len();
    for value in [
        "+4",
        "-4",
        "4, 4",
        "4,5",
        "",
        "0x4",
        "4 4",
        "4;",
        "4.0",
        "4e0",
        "４",
        "18446744073709551616",
    ] {
        let name = format!("T23 Content-Length {value:?}");
        cases.post(&name, &format!("content-length: {value}\r\n"), "body", Refused(400));
    }
    for (first, second) in [(0, length), (length, 0), (4, 5)] {
        let lines = format!("content-length: {first}\r\nContent-Length: {second}\r\n");
        let name = format!("T23 Content-Length {first} and {second}");
        cases.post(&name, &lines, SMUGGLED, Refused(400));
    }
    let twice = "content-length: 4\r\ncontent-length: 4\r\n";
    cases.post("T23 Content-Length twice", twice, "body", one("POST", "/case", 4, Then::Open));
    for value in ["0004", " 4 ", "\t4\t"] {
        let name = format!("T23 Content-Length {value:?}");
        let lines = format!("content-length:{value}\r\n");
        cases.post(&name, &lines, "body", one("POST", "/case", 4, Then::Open));
    }
    let all = format!("content-length: {length}\r\n");
    cases.post("T23 a request as a body", &all, SMUGGLED, one("POST", "/case", length, Then::Open));
    for method in ["GET", "HEAD", "DELETE", "OPTIONS"] {
        let first = format!("{method} /case HTTP/1.1");
        let name = format!("T23 a request as the body of a {method}");
        cases.request(&name, &first, &all, SMUGGLED, one(method, "/case", length, Then::Open));
    }
    let short = "content-length: 200\r\n";
    cases.post("T23 a body that is too short", short, SMUGGLED, CutOff { ended: true });
    for value in ["9223372036854775808", "18446744073709551613"] {
        let name = format!("T23 Content-Length {value}");
        let lines = format!("content-length: {value}\r\n");
        cases.post(&name, &lines, SMUGGLED, CutOff { ended: true });
    }
    let most = "content-length: 18446744073709551615\r\n";
    cases.post("T23 Content-Length 2^64 - 1", most, "", Refused(431));
    // WSGI, PHP and CGI write both headers with an underscore.
    for line in [format!("content_length: {length}\r\n"), "transfer_encoding: chunked\r\n".into()] {
        let seen = vec![Seen::new("POST", "/case", 0, "ada"), Seen::smuggled()];
        cases.post(&format!("T23 {line:?}"), &line, SMUGGLED, passed(seen, Then::Open));
    }
}

fn transfer_codings(cases: &mut Cases) {
    let ended = format!("0\r\n\r\n{SMUGGLED}");
    let length = SMUGGLED.len();
    for other in [ended.len().to_string(), "4".into(), "0".into()] {
        for lines in [
            format!("content-length: {other}\r\ntransfer-encoding: chunked\r\n"),
            format!("transfer-encoding: chunked\r\ncontent-length: {other}\r\n"),
        ] {
            let name = format!("T19 {lines:?}");
            cases.post(&name, &lines, &ended, one("POST", "/case", 0, Then::Closed));
        }
    }
    let hidden = format!("{length:x}\r\n{SMUGGLED}\r\n0\r\n\r\n");
    for lines in [
        "content-length: 4\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: chunked\r\ncontent-length: 4\r\n",
    ] {
        let name = format!("T19 {lines:?} and a request in the chunk");
        cases.post(&name, lines, &hidden, one("POST", "/case", length, Then::Closed));
    }
    for coding in ["CHUNKED", " chunked", "\tChunked\t", "chunked  "] {
        let name = format!("T23 Transfer-Encoding {coding:?}");
        let lines = format!("transfer-encoding:{coding}\r\n");
        cases.post(&name, &lines, &hidden, one("POST", "/case", length, Then::Open));
    }
    for (coding, status) in [
        ("gzip", 400),
        ("identity", 400),
        ("xchunked", 400),
        ("chunkedx", 400),
        ("chunked, gzip", 400),
        ("chunked ,", 400),
        ("chunked;q=1", 400),
        ("\"chunked\"", 400),
        ("chunk ed", 400),
        ("\x0bchunked", 400),
        ("\x0cchunked", 400),
        ("chunked\x0b", 400),
        ("chun\0ked", 400),
        ("", 400),
        ("chunked\r\ntransfer-encoding: identity", 400),
        ("gzip, chunked", 501),
        ("identity, chunked", 501),
        ("chunked, chunked", 501),
        (", chunked", 501),
        ("\u{a0}chunked", 400),
        ("chunked\r\ntransfer-encoding: chunked", 501),
        ("identity\r\ntransfer-encoding: chunked", 501),
    ] {
        let lines = format!("transfer-encoding: {coding}\r\n");
        cases.post(&format!("T23 {lines:?}"), &lines, &ended, Refused(status));
        let lines = format!("content-length: {}\r\n{lines}", ended.len());
        cases.post(&format!("T19 {lines:?}"), &lines, &ended, Refused(status));
    }
    for line in [
        "transfer-encoding : chunked",
        "transfer-encoding\x0b: chunked",
        "transfer-encoding\0: chunked",
    ] {
        let lines = format!("{line}\r\ncontent-length: {}\r\n", ended.len());
        cases.post(&format!("T23 {line:?}"), &lines, &ended, Refused(400));
    }
    for lines in
        ["transfer-encoding: chunked\r\n", "transfer-encoding: chunked\r\ncontent-length: 4\r\n"]
    {
        let name = format!("T17 {lines:?} in HTTP/1.0");
        cases.request(&name, "POST /case HTTP/1.0", lines, &ended, Refused(400));
    }
}

fn lines(cases: &mut Cases) {
    for (name, line) in [
        ("a bare CR in a value", "x-a: b\rc\r\n"),
        ("a header after a bare CR", "x-a: b\rcontent-length: 40\r\n"),
        ("CR CR LF", "x-a: b\r\r\n"),
        ("obs-fold with a space", "x-a: b\r\n c\r\n"),
        ("obs-fold with a tab", "x-a: b\r\n\tc\r\n"),
        ("a folded Content-Length", "content-length:\r\n 4\r\n"),
        ("a space before the colon", "content-length : 4\r\n"),
        ("a tab before the colon", "content-length\t: 4\r\n"),
        ("no name", ": b\r\n"),
        ("no colon", "content-length 4\r\n"),
        ("a space in a name", "content length: 4\r\n"),
    ] {
        cases.get(&format!("T23 {name}"), line, Refused(400));
    }
    let folded = "GET /case HTTP/1.1\r\n host: a\r\nx-forwarded-user: ada\r\n\r\n";
    cases.raw("T23 a space before the first name", folded, Refused(400));
    let crs = "GET /case HTTP/1.1\rhost: a\rx-forwarded-user: ada\r\r";
    cases.raw("T23 lines that end in CR", crs, Refused(400));
    let lfs = "POST /case HTTP/1.1\nhost: a\nx-forwarded-user: ada\ncontent-length: 4\n\nbody";
    cases.raw("T23 lines that end in LF", lfs, one("POST", "/case", 4, Then::Open));
    let lfs = format!("GET /case HTTP/1.1\r\nhost: a\r\nx-forwarded-user: ada\n\n{SMUGGLED}");
    let seen = vec![Seen::new("GET", "/case", 0, "ada"), Seen::smuggled()];
    cases.raw("T23 a head that ends in LF LF", lfs, passed(seen, Then::Open));
    let hidden = format!("x-a: b\ncontent-length: {}\r\n", SMUGGLED.len());
    let expected = one("POST", "/case", SMUGGLED.len(), Then::Open);
    cases.post("T23 a header after a bare LF", &hidden, SMUGGLED, expected);
    for byte in [0_u8, 1, 8, 0x0b, 0x0c, 0x0e, 0x1b, 0x1f, 0x7f] {
        let value = [b"x-a: b", &[byte][..], b"c\r\n"].concat();
        cases.get(&format!("T43 {byte:#04x} in a value"), value, Refused(400));
    }
    for byte in
        [0_u8, 1, 9, 0x0b, 0x1f, b' ', b'"', b'(', b',', b'/', b'@', b'[', b'{', 0x7f, 0x80, 0xff]
    {
        let line = [b"x-a", &[byte][..], b"b: c\r\n"].concat();
        cases.get(&format!("T43 {byte:#04x} in a name"), line, Refused(400));
    }
    for byte in [0x80_u8, 0xa0, 0xff, b'\t'] {
        let line = [b"x-a: b", &[byte][..], b"c\r\n"].concat();
        let expected = one("GET", "/case", 0, Then::Open);
        cases.get(&format!("T43 {byte:#04x} in a value"), line, expected);
    }
}

fn chunks(cases: &mut Cases) {
    let open = || one("POST", "/case", 4, Then::Open);
    for (name, body) in [
        ("one", "4\r\nbody\r\n0\r\n\r\n"),
        ("four", "1\r\nb\r\n1\r\no\r\n1\r\nd\r\n1\r\ny\r\n0\r\n\r\n"),
        ("leading zeros", "0000000000000000000000004\r\nbody\r\n000\r\n\r\n"),
        ("an extension", "4;a=b\r\nbody\r\n0;c\r\n\r\n"),
        ("an extension with quotes", "4;a=\"0\"\r\nbody\r\n0\r\n\r\n"),
        ("a space after the size", "4 \r\nbody\r\n0\r\n\r\n"),
        ("trailers", "4\r\nbody\r\n0\r\nx-sum: 1\r\n\r\n"),
        (
            "framing in trailers",
            "4\r\nbody\r\n0\r\ncontent-length: 9\r\ntransfer-encoding: x\r\n\r\n",
        ),
        ("an identity in trailers", "4\r\nbody\r\n0\r\nx-forwarded-user: eve\r\n\r\n"),
    ] {
        cases.chunked(&format!("T23 chunks: {name}"), body, open());
        if name.contains("trailers") {
            cases.about(About::Trailers);
        }
    }
    let length = SMUGGLED.len();
    for (name, body) in [
        ("2^64", "10000000000000004\r\nbody\r\n0\r\n\r\n".to_owned()),
        ("2^68", "100000000000000004\r\nbody\r\n0\r\n\r\n".into()),
        ("-4", "-4\r\nbody\r\n0\r\n\r\n".into()),
        ("+4", "+4\r\nbody\r\n0\r\n\r\n".into()),
        ("0x4", "0x4\r\nbody\r\n0\r\n\r\n".into()),
        ("4_0", "4_0\r\nbody\r\n0\r\n\r\n".into()),
        ("4.0", "4.0\r\nbody\r\n0\r\n\r\n".into()),
        ("a space before the size", " 4\r\nbody\r\n0\r\n\r\n".into()),
        ("no size", "\r\nbody\r\n0\r\n\r\n".into()),
        ("only an extension", ";a\r\nbody\r\n0\r\n\r\n".into()),
        ("g", "g\r\nbody\r\n0\r\n\r\n".into()),
        ("two sizes", "4 4\r\nbody\r\n0\r\n\r\n".into()),
        ("NUL after the size", "4\0\r\nbody\r\n0\r\n\r\n".into()),
        ("a size that ends in LF", format!("4\nbody\r\n0\r\n\r\n{SMUGGLED}")),
        ("a size that ends in CR", format!("4\rbody\r\n0\r\n\r\n{SMUGGLED}")),
        ("LF in an extension", format!("{length:x};\n{SMUGGLED}\r\n0\r\n\r\n")),
        ("CR in an extension", format!("{length:x};a\rb\r\n{SMUGGLED}\r\n0\r\n\r\n")),
        ("a chunk without an end", "4\r\nbody0\r\n\r\n".into()),
        ("a chunk that ends in LF", "4\r\nbody\n0\r\n\r\n".into()),
        ("a chunk that ends in CR", "4\r\nbody\r0\r\n\r\n".into()),
        ("a chunk that ends in any two bytes", "4\r\nbodyXX0\r\n\r\n".into()),
        ("a longer chunk than its size", "4\r\nbodies\r\n0\r\n\r\n".into()),
        ("a last chunk that ends in LF", "4\r\nbody\r\n0\n\n".into()),
        ("a request in the place of trailers", "4\r\nbody\r\n0\r\n".into()),
        ("a trailer with a space before the colon", "4\r\nbody\r\n0\r\nx-a : b\r\n\r\n".into()),
        ("a folded trailer", "4\r\nbody\r\n0\r\nx-a: b\r\n c\r\n\r\n".into()),
    ] {
        cases.chunked(&format!("T23 chunks: {name}"), &body, CutOff { ended: false });
    }
    for (name, body) in [
        ("no last CRLF", "4\r\nbody\r\n0\r\n"),
        ("half a CRLF", "4\r\nbody\r\n0\r\n\r"),
        ("no last chunk", "4\r\nbody\r\n"),
        ("a size of 2^64 - 1", "ffffffffffffffff\r\nbody\r\n0\r\n\r\n"),
        ("nothing", ""),
    ] {
        cases.chunked(&format!("T23 chunks: {name}"), body, CutOff { ended: true });
    }
}

fn targets_and_hosts(cases: &mut Cases) {
    for first in [
        "GET  /case HTTP/1.1",
        "GET\t/case HTTP/1.1",
        " GET /case HTTP/1.1",
        "GET /case",
        "GET /case ",
        "GET /case HTTP/1.1 ",
        "GET /case HTTP/1.1\0",
        "GET /case\0 HTTP/1.1",
        "GET /ca se HTTP/1.1",
        "GET /case HTTP/0.9",
        "GET /case HTTP/1.2",
        "GET /case HTTP/1.10",
        "GET /case HTTP/2.0",
        "GET /case http/1.1",
        "GET /case HTTP/+1.1",
        "G\0T /case HTTP/1.1",
        "G(T /case HTTP/1.1",
        "GET case HTTP/1.1",
        "GET /< HTTP/1.1",
        "GET /` HTTP/1.1",
        "GET /?> HTTP/1.1",
        "GET * HTTP/1.1",
        "GET a:80 HTTP/1.1",
        "GET http://b/case HTTP/1.1",
        "GET http://user@a/case HTTP/1.1",
        "GET http:///case HTTP/1.1",
        "GET http://a:b:c/case HTTP/1.1",
    ] {
        cases.line(&format!("T23 {first:?}"), first, "host: a\r\n", Refused(400));
    }
    for first in ["CONNECT a:80 HTTP/1.1", "CONNECT /case HTTP/1.1", "TRACE /case HTTP/1.1"] {
        cases.line(&format!("T21 {first:?}"), first, "host: a\r\n", Refused(501));
    }
    for (target, app) in [
        ("http://a/case", "/case"),
        ("HTTP://A/case", "/case"),
        ("https://a/case", "/case"),
        ("http://a", "/"),
        ("http://a?x=1", "/?x=1"),
        ("//b/case", "//b/case"),
        ("/a/../case;b/%2e%2E/%2f?c=http://b/../#", "/a/../case;b/%2e%2E/%2f?c=http://b/../"),
        ("/case#fragment", "/case"),
        ("/case'\"|{}^?'|{}^`\\", "/case'\"|{}^?'|{}^`\\"),
    ] {
        let first = format!("GET {target} HTTP/1.1");
        let expected = one("GET", app, 0, Then::Open);
        cases.line(&format!("T23 {target:?}"), &first, "host: a\r\n", expected);
    }
    for (first, target, method) in [
        ("OPTIONS * HTTP/1.1", "*", "OPTIONS"),
        ("get /case HTTP/1.1", "/case", "get"),
        ("GET /%00 HTTP/1.1", "/%00", "GET"),
        ("X-Y!#$ /case HTTP/1.1", "/case", "X-Y!#$"),
    ] {
        let expected = UpToTheApp(Seen::new(method, target, 0, "ada"));
        cases.line(&format!("T23 {first:?}"), first, "host: a\r\n", expected);
    }
    for (name, lines) in [
        ("none", ""),
        ("two", "host: a\r\nhost: a\r\n"),
        ("two unlike", "host: a\r\nhost: b\r\n"),
        ("a path in it", "host: a/b\r\n"),
        ("a space in it", "host: a b\r\n"),
        ("a list", "host: a, b\r\n"),
        ("a user in it", "host: user@a\r\n"),
        ("half an IPv6 address", "host: [::1\r\n"),
    ] {
        cases.line(&format!("T23 Host: {name}"), "GET /case HTTP/1.1", lines, Refused(400));
    }
    let name = "T23 a target with a host, and none beside it";
    cases.line(name, "GET http://a/case HTTP/1.1", "", Refused(400));
    for host in ["a:80", "[::1]:80", "127.0.0.1"] {
        let lines = format!("host: {host}\r\n");
        let expected = one("GET", "/case", 0, Then::Open);
        cases.line(&format!("T23 Host: {host:?}"), "GET /case HTTP/1.1", &lines, expected);
    }
    for host in ["", "a:b", "a:99999", "a:", "%61", "a;b"] {
        let lines = format!("host: {host}\r\n");
        let expected = UpToTheApp(Seen::new("GET", "/case", 0, "ada"));
        cases.line(&format!("T23 Host: {host:?}"), "GET /case HTTP/1.1", &lines, expected);
    }
    let expected = one("GET", "/case", 0, Then::Closed);
    cases.line("T17 HTTP/1.0 without a Host", "GET /case HTTP/1.0", "", expected);
    let first = "POST /case HTTP/1.0";
    let lines = "content-length: 4\r\nconnection: keep-alive\r\n";
    let expected = one("POST", "/case", 4, Then::Open);
    cases.request("T17 HTTP/1.0 with a body", first, lines, "body", expected);
    cases.request(
        "T17 HTTP/1.0 with the end as its length",
        first,
        "",
        SMUGGLED,
        one("POST", "/case", 0, Then::Closed),
    );
}

fn sizes(cases: &mut Cases) {
    let long = format!("GET /{} HTTP/1.1", "a".repeat(66_000));
    cases.line("T20 a target of 66,000 bytes", &long, "host: a\r\n", Refused(431));
    cases.raw("T20 a target without an end", format!("GET /{}", "a".repeat(400_000)), Refused(431));
    let flood = "x-a: b\r\n".repeat(101);
    cases.get("T20 more than 100 headers", &flood, Refused(431));
    cases.get("T20 headers without an end", "x-a: b\r\n".repeat(50_000), Refused(431));
    let long = format!("x-a: {}\r\n", "b".repeat(66_000));
    cases.get("T20 a header of 66,000 bytes", &long, Refused(431));
    let expected = one("GET", "/case", 0, Then::Open);
    cases.get("T20 98 headers", "x-a: b\r\n".repeat(96), expected.clone());
    cases.get("T20 a header of 60,000 bytes", format!("x-a: {}\r\n", "b".repeat(60_000)), expected);
    let target = format!("/{}", "a".repeat(60_000));
    let expected = one("GET", &target, 0, Then::Open);
    cases.line(
        "T20 a target of 60,000 bytes",
        &format!("GET {target} HTTP/1.1"),
        "host: a\r\n",
        expected,
    );
    let extension = format!("4;{}\r\nbody\r\n0\r\n\r\n", "a".repeat(17_000));
    cases.chunked("T20 an extension of 17,000 bytes", &extension, CutOff { ended: false });
    let trailers = format!("4\r\nbody\r\n0\r\n{}\r\n", "x-a: b\r\n".repeat(5_000));
    cases.chunked("T20 a flood of trailers", &trailers, CutOff { ended: false });
}

fn connections(cases: &mut Cases) {
    let get = Seen::new("GET", "/case", 0, "ada");
    let both = || vec![get.clone(), Seen::smuggled()];
    cases.get("T18 nothing special", "", one("GET", "/case", 0, Then::Open));
    let pipelined = |lines: &str| {
        format!("GET /case HTTP/1.1\r\nhost: a\r\nx-forwarded-user: ada\r\n{lines}\r\n{SMUGGLED}")
    };
    cases.raw("T18 two pipelined", pipelined(""), passed(both(), Then::Open));
    let many = SMUGGLED.repeat(20);
    let seen = vec![Seen::smuggled(); 20];
    cases.raw("T18 twenty pipelined", many, passed(seen, Then::Open));
    let post = format!(
        "POST /case HTTP/1.1\r\nhost: a\r\nx-forwarded-user: ada\r\n\
        content-length: 4\r\n\r\nbody{SMUGGLED}"
    );
    let seen = vec![Seen::new("POST", "/case", 4, "ada"), Seen::smuggled()];
    cases.raw("T18 pipelined after a body", &post, passed(seen.clone(), Then::Open));
    let post = format!(
        "POST /case HTTP/1.1\r\nhost: a\r\nx-forwarded-user: ada\r\n\
        transfer-encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n{SMUGGLED}"
    );
    cases.raw("T18 pipelined after chunks", &post, passed(seen, Then::Open));
    let empty = format!("\r\n\r\n{}", pipelined(""));
    cases.raw("T18 empty lines before a request", empty, passed(both(), Then::Open));
    for lines in ["connection: close\r\n", "connection: close\r\nconnection: keep-alive\r\n"] {
        let expected = one("GET", "/case", 0, Then::Closed);
        cases.raw(&format!("T18 pipelined after {lines:?}"), pipelined(lines), expected);
    }
    let old = pipelined("").replacen("HTTP/1.1", "HTTP/1.0", 1);
    cases.raw("T17 pipelined after HTTP/1.0", old, one("GET", "/case", 0, Then::Closed));
    let old = pipelined("connection: keep-alive\r\n").replacen("HTTP/1.1", "HTTP/1.0", 1);
    cases.raw("T17 pipelined after a kept HTTP/1.0", old, passed(both(), Then::Open));

    let refused = format!("{}GET /case HTTP/1.1\r\n\r\n{SMUGGLED}", pipelined(""));
    let expected = Answered { statuses: vec![200, 200, 400], seen: both(), then: Then::Closed };
    cases.raw("T18 after a request that was refused", refused, expected);
}

/// Adds answers that come before the body has been read.
fn early_answers(cases: &mut Cases) {
    // Answers of the sidecar's own routes.
    let length = SMUGGLED.len();
    for (method, target, status) in [
        ("PUT", "/api/velt/token", 405),
        ("GET", "/api/velt/token", 200),
        ("POST", "/generate-velt-jwt-token", 200),
    ] {
        for (how, body) in [
            (format!("content-length: {length}"), SMUGGLED.to_owned()),
            ("transfer-encoding: chunked".into(), format!("{length:x}\r\n{SMUGGLED}\r\n0\r\n\r\n")),
        ] {
            let request = format!(
                "{method} {target} HTTP/1.1\r\nhost: a\r\n\
                x-forwarded-user: ada\r\n{how}\r\n\r\n{body}"
            );
            let expected =
                Answered { statuses: vec![status], seen: Vec::new(), then: Then::Either };
            let name = format!("T18 a body for {method} {target} with {how}");
            cases.raw(&name, request, expected);
            cases.about(About::Identity);
        }
    }

    // An app's answer, at this path.
    let early = |then| one("POST", "/early", 0, then);
    let first = "POST /early HTTP/1.1";
    for (name, lines, body, then) in [
        ("a body", format!("content-length: {length}\r\n"), SMUGGLED.to_owned(), Then::Either),
        ("half a body", "content-length: 500\r\n".into(), SMUGGLED.into(), Then::Left),
        ("no body", "content-length: 500\r\n".into(), String::new(), Then::Left),
        (
            "half a chunk",
            "transfer-encoding: chunked\r\n".into(),
            format!("fff\r\n{SMUGGLED}"),
            Then::Left,
        ),
    ] {
        let name = format!("T18 an early answer and {name}");
        cases.request(&name, first, lines, &body, early(then));
    }
    // The sidecar may notice the answer or the broken chunk first.
    let body = format!("4\r\nbody0\r\n\r\n{SMUGGLED}");
    let expected = UpToTheApp(Seen::new("POST", "/early", 0, "ada"));
    let lines = "transfer-encoding: chunked\r\n";
    cases.request("T18 an early answer and a broken chunk", first, lines, &body, expected);
    cases.raw("T18 half a head", "GET /case HTTP/1.1\r\nhost: a\r\n", CutOff { ended: true });
}

/// Adds requests with `Connection`, `Upgrade` and `Expect`.
fn wishes(cases: &mut Cases) {
    let length = SMUGGLED.len();
    let pipelined = |lines: &str| {
        format!("GET /case HTTP/1.1\r\nhost: a\r\nx-forwarded-user: ada\r\n{lines}\r\n{SMUGGLED}")
    };
    let both = || vec![Seen::new("GET", "/case", 0, "ada"), Seen::smuggled()];
    for name in ["host", "Content-Length", "transfer-encoding", "X-Forwarded-For", "Forwarded"] {
        let line = format!("connection: close, {name}\r\n");
        cases.post(&format!("T12 {line:?}"), &line, SMUGGLED, Refused(400));
    }
    let odd = [&b"connection: keep-alive, \xff\xfe, "[..], &b"x-odd, ".repeat(1_000), b"\r\n"];
    cases.get("T14 Connection with odd bytes", odd.concat(), one("GET", "/case", 0, Then::Open));

    let websocket = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
        sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let expected = one("GET", "/case", 0, Then::Closed);
    cases.raw("T16 bytes after a WebSocket's handshake", pipelined(websocket), expected);
    cases.about(About::WebSocket);
    let lines = format!("{websocket}content-length: {length}\r\n");
    let expected = one("GET", "/case", length, Then::Closed);
    cases.request("T16 a handshake with a body", "GET /case HTTP/1.1", &lines, SMUGGLED, expected);
    cases.about(About::WebSocket);
    let lines = format!("{websocket}transfer-encoding: chunked\r\n");
    let body = format!("{length:x}\r\n{SMUGGLED}\r\n0\r\n\r\n{SMUGGLED}");
    let expected = one("GET", "/case", length, Then::Closed);
    cases.request("T16 a handshake with chunks", "GET /case HTTP/1.1", &lines, &body, expected);
    cases.about(About::WebSocket);
    let old = pipelined(websocket).replacen("HTTP/1.1", "HTTP/1.0", 1);
    cases.raw("T16 a handshake in HTTP/1.0", old, one("GET", "/case", 0, Then::Closed));
    for upgrade in ["h2c", "h2c, websocket", "TLS/1.0", "HTTP/2.0"] {
        let lines = format!(
            "connection: upgrade, http2-settings\r\nupgrade: {upgrade}\r\n\
            http2-settings: AAMAAABkAAQAAP__\r\n"
        );
        // The sidecar ignores the upgrade, so that the next bytes are a request like any other.
        let expected = passed(both(), Then::Open);
        cases.raw(&format!("T22 upgrade to {upgrade}"), pipelined(&lines), expected);
    }
    let preface = format!("{}{PREFACE}{SMUGGLED}", pipelined(""));
    let expected = passed(both(), Then::Closed);
    cases.raw("T22 an HTTP/2 preface in between", preface, expected);
    // The preface's first line alone is a request with a version that HTTP/1 does not have.
    let line = format!("{}PRI * HTTP/2.0\r\n\r\n{SMUGGLED}", pipelined(""));
    let expected = Answered { statuses: vec![200, 200, 400], seen: both(), then: Then::Closed };
    cases.raw("T22 an HTTP/2 preface's first line in between", line, expected);

    let expect = "expect: 100-continue\r\ncontent-length: 4\r\n";
    cases.post("T23 Expect with a body", expect, "body", one("POST", "/case", 4, Then::Open));
    let odd = "expect: 100-continue, x\r\ncontent-length: 4\r\n";
    let expected = UpToTheApp(Seen::new("POST", "/case", 4, "ada"));
    cases.post("T23 Expect of something else", odd, "body", expected);
}

fn identities(cases: &mut Cases) {
    for lines in [
        "x-forwarded-user: eve\r\n",
        "x_forwarded_user: eve\r\n",
        "X-Forwarded_User: eve\r\n",
        "x-a: b\nx-forwarded-user: eve\r\n",
        "connection: X-Forwarded-User\r\n",
        "trailer: x-forwarded-user\r\n",
    ] {
        cases.get(&format!("T12 {lines:?} beside the front's"), lines, Refused(400));
        cases.about(About::Identity);
    }
}

/// Returns a request over HTTP/2 in frames made by hand, since no library would send most of these.
fn http2(fields: &[(&str, &str)], data: &[&str], trailers: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = frames::opening();
    let end = |last: bool| if last { END_STREAM } else { 0 };
    let flags = END_HEADERS | end(data.is_empty() && trailers.is_empty());
    bytes.extend(frame(HEADERS, flags, 1, &block(fields)));
    for (index, piece) in data.iter().enumerate() {
        let last = index + 1 == data.len() && trailers.is_empty();
        bytes.extend(frame(DATA, end(last), 1, piece.as_bytes()));
    }
    if !trailers.is_empty() {
        bytes.extend(frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(trailers)));
    }
    bytes
}

type Field = (&'static str, &'static str);

const METHOD: Field = (":method", "POST");
const SCHEME: Field = (":scheme", "http");
const AUTHORITY: Field = (":authority", "a");
const PATH: Field = (":path", "/case");
const ADA: Field = ("x-forwarded-user", "ada");

const USUAL: [Field; 5] = [METHOD, SCHEME, AUTHORITY, PATH, ADA];

fn with(more: &[Field]) -> Vec<Field> {
    [&USUAL[..], more].concat()
}

fn http2_cases() -> Vec<Case> {
    let mut cases = Cases::default();
    http2_passed(&mut cases);
    http2_malformed(&mut cases);
    http2_pseudo_headers(&mut cases);
    http2_lengths(&mut cases);
    cases.0
}

fn http2_passed(cases: &mut Cases) {
    let one = |method, length| one(method, "/case", length, Then::Closed);
    let post = |length| one("POST", length);
    cases.http2("nothing special", http2(&USUAL, &[], &[]), post(0));
    cases.http2("a body", http2(&USUAL, &["bo", "dy"], &[]), post(4));
    cases.http2("an empty body", http2(&USUAL, &[""], &[]), post(0));
    cases.http2("a request as a body", http2(&USUAL, &[SMUGGLED], &[]), post(SMUGGLED.len()));
    let get = [(":method", "GET"), SCHEME, AUTHORITY, PATH, ADA];
    let expected = one("GET", SMUGGLED.len());
    cases.http2("a request as the body of a GET", http2(&get, &[SMUGGLED], &[]), expected);
    let trailers = [("x-forwarded-user", "eve"), ("content-length", "9")];
    cases.http2("an identity in trailers", http2(&USUAL, &["body"], &trailers), post(4));
    cases.about(About::Trailers);
    for more in [
        &[("content-length", "4")][..],
        &[("content-length", "04")],
        &[("content-length", "4"), ("content-length", "4")],
        &[("content-length", "4"), ("content-length", "04")],
        &[("host", "a")],
        &[("te", "trailers")],
    ] {
        cases.http2(&format!("{more:?}"), http2(&with(more), &["body"], &[]), post(4));
    }
    let host = [METHOD, SCHEME, PATH, ADA, ("host", "a")];
    cases.http2("a host and no authority", http2(&host, &["body"], &[]), post(4));
}

fn http2_malformed(cases: &mut Cases) {
    for more in [
        ("transfer-encoding", "chunked"),
        ("transfer-encoding", "identity"),
        ("connection", "close"),
        ("connection", "x-forwarded-user"),
        ("keep-alive", "1"),
        ("proxy-connection", "close"),
        ("upgrade", "h2c"),
        ("te", "gzip"),
        ("x-a", "b\r\nx-forwarded-user: eve"),
        ("x-a", "b\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: a\r\nx-forwarded-user: eve\r\n\r\n"),
        ("x-a", "b\nc"),
        ("x-a", "b\rc"),
        ("x-a", "b\0c"),
        ("x-a", "b\x7fc"),
        ("x-a\r\nx-b", "c"),
        ("x-a: b\r\nx-c", "d"),
        ("x-a:b", "c"),
        ("x a", "b"),
        ("X-A", "b"),
        ("", "b"),
        ("content-length", "+4"),
        ("content-length", "-4"),
        ("content-length", "4, 4"),
        ("content-length", "0x4"),
        ("content-length", "18446744073709551616"),
        ("host", "b"),
        (":path", "/smuggled"),
        (":method", "GET"),
        (":authority", "b"),
        (":scheme", "https"),
        (":status", "200"),
        (":unknown", "x"),
        ("x-forwarded-user", "eve"),
        ("x_forwarded_user", "eve"),
    ] {
        for data in [&["body"][..], &[]] {
            let name = format!("{more:?} with {} of data", data.len());
            cases.http2(&name, http2(&with(&[more]), data, &[]), Refused(400));
            if more.0.ends_with("user") {
                cases.about(About::Identity);
            }
        }
    }
}

fn http2_pseudo_headers(cases: &mut Cases) {
    for (name, value) in [
        (":path", "/ca se"),
        (":path", "/case HTTP/1.1\r\nhost: a\r\n\r\nGET /smuggled"),
        (":path", "/ca\0se"),
        (":path", "case"),
        (":path", "*"),
        (":path", ""),
        (":path", "http://a/case"),
        (":method", "GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\nPOST"),
        (":method", "PO ST"),
        (":method", ""),
        (":method", "TRACE"),
        (":method", "CONNECT"),
        (":authority", "a\r\nx-forwarded-user: eve"),
        (":authority", "user@a"),
        (":authority", "a b"),
        (":authority", "a/b"),
        (":scheme", "http://a/smuggled?"),
    ] {
        let changed = USUAL.map(|(own, old)| (own, if own == name { value } else { old }));
        let bytes = http2(&changed, &["body"], &[]);
        cases.http2(&format!("{name} {value:?}"), bytes, Refused(400));
    }
    for missing in [":method", ":scheme", ":path", ":authority"] {
        let left: Vec<_> = USUAL.into_iter().filter(|(name, _)| *name != missing).collect();
        cases.http2(&format!("no {missing}"), http2(&left, &["body"], &[]), Refused(400));
    }
    let late = [ADA, METHOD, SCHEME, AUTHORITY, PATH];
    cases.http2("pseudo-headers after others", http2(&late, &["body"], &[]), Refused(400));
}

fn http2_lengths(cases: &mut Cases) {
    let four = with(&[("content-length", "4")]);
    for (name, data) in [
        ("no data", &[][..]),
        ("none at last", &[""]),
        ("less data", &["bo"]),
        ("more", &["bodies"]),
    ] {
        let name = format!("Content-Length 4 and {name}");
        cases.http2(&name, http2(&four, data, &[]), CutOff { ended: false });
    }
    let unlike = with(&[("content-length", "4"), ("content-length", "5")]);
    cases.http2("Content-Length 4 and 5", http2(&unlike, &["body"], &[]), Refused(400));
    // The request is whole when the rest comes.
    let more = http2(&four, &["body", SMUGGLED], &[]);
    cases.http2(
        "Content-Length 4, and more later",
        more,
        UpToTheApp(Seen::new("POST", "/case", 4, "ada")),
    );
}

/// An app server behind a sidecar, and the lines that the app prints.
struct Stage {
    sidecar: Sidecar,
    trusted: bool,
    over_http2: bool,
    lines: mpsc::UnboundedReceiver<String>,
    http: reqwest::Client,
    fences: usize,
    /// Whether the app may still print a line about the previous case.
    unfinished: bool,
    /// Request of the previous case, if the app has not answered it: the app may still print a line about
    /// this request when it notices that its client has left.
    late: Option<Seen>,
    process: Process,
    _folder: TempDir,
}

/// Status of an answer, and user of the token that came with it.
struct Answer {
    status: u16,
    user: Option<String>,
}

impl Stage {
    async fn set(
        command: impl FnOnce(&Path, &Path) -> Command,
        protocol: &str,
        trusted: bool,
    ) -> Self {
        let folder = TempDir::new().expect("a folder for the app");
        let socket = folder.path().join("app.sock");
        let mut command = command(folder.path(), &socket);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut process = Process::start(&mut command);
        let lines = lines_of(process.child().stdout.take().expect("a pipe"));
        eventually("the app to listen", async || {
            let connected = UnixStream::connect(&socket).await;
            connected.map(drop).map_err(|error| error.to_string())
        })
        .await;
        let app = format!("unix:{}", socket.display());
        let mut settings = vec![("VELT_SIDECAR_APP__PROTOCOL", protocol)];
        if !trusted {
            settings.push(NOBODY_TRUSTED);
        }
        let sidecar = Sidecar::start_with(app, &settings).await;
        let (http, fences, unfinished) = (http_client(), 0, false);
        let over_http2 = protocol == "h2c";
        Self {
            sidecar,
            trusted,
            over_http2,
            lines,
            http,
            fences,
            unfinished,
            late: None,
            process,
            _folder: folder,
        }
    }

    /// Sends one case's bytes, and then a request that must arrive unchanged, on another connection of the
    /// client and most likely the same connection of the app.
    ///
    /// # Errors
    ///
    /// The first difference from the expected result.
    async fn play(&mut self, case: &Case) -> Result<(), String> {
        let (before, tried_before) = (self.count(&FORWARDED).await, self.count(&TRIED).await);
        let (answers, last) = if case.is_http2() {
            (vec![converse_http2(self, &case.bytes).await?], false)
        } else {
            self.converse(case).await?
        };
        let fence = format!("/fence/{}", self.fences);
        self.fences += 1;
        let mut wire = self.wire().await;
        wire.send(format!("GET {fence} HTTP/1.1\r\nhost: a\r\nx-forwarded-user: fence\r\n\r\n"))
            .await;
        let answer = wire.answer().await?.ok_or("the next client got no answer")?;
        if answer.status != 200 {
            return Err(format!("the next client got {}", answer.status));
        }
        let mut seen = self.seen_up_to(&fence, case).await?;
        if last && seen.pop() != Some(self.as_seen(Seen::new("GET", "/last", 0, "last"))) {
            return Err(format!("/last was not the app's last request: {seen:?}"));
        }
        let expected = match &case.expected {
            Answered { seen, .. } => seen.len(),
            UpToTheApp(_) => 1,
            Refused(_) | CutOff { .. } => 0,
        };
        let late = self.late.take();
        if seen.len() > expected && seen.first() == late.as_ref() {
            seen.remove(0);
        }
        let ours = 1 + usize::from(last);
        let forwarded = self.count(&FORWARDED).await - before - ours;
        let tried = self.count(&TRIED).await - tried_before - ours;
        // The counts can't decide this: a request of an earlier client may be among them.
        if let UpToTheApp(request) = &case.expected
            && seen.is_empty()
        {
            self.late = Some(self.as_seen(request.clone()));
        }
        self.check(case, &answers, &seen, forwarded, tried)
    }

    fn check(
        &self,
        case: &Case,
        answers: &[Answer],
        seen: &[Seen],
        forwarded: usize,
        tried: usize,
    ) -> Result<(), String> {
        let statuses: Vec<_> = answers.iter().map(|answer| answer.status).collect();
        let told = || format!("statuses {statuses:?}, {forwarded} forwarded, the app saw {seen:?}");
        let fits = match &case.expected {
            Refused(status) => {
                // A malformed HTTP/2 request is reset, which has no status.
                let refused =
                    if case.is_http2() { statuses != [200] } else { statuses == [*status] };
                refused && seen.is_empty() && forwarded == 0
            }
            Answered { statuses: expected, seen: requests, .. } => {
                let requests: Vec<_> =
                    requests.iter().cloned().map(|request| self.as_seen(request)).collect();
                statuses == *expected && *seen == *requests && forwarded == requests.len()
            }
            CutOff { .. } => {
                // A broken body is not the app's fault. Over HTTP/2 hyper does not tell the sidecar the
                // cause.
                let blamed = |status| status == 200 || status > 499 && !self.over_http2;
                !statuses.iter().any(|status| blamed(*status)) && seen.is_empty()
            }
            UpToTheApp(request) => {
                // gunicorn takes `get` for GET.
                let method = |one: &Seen| one.method.eq_ignore_ascii_case(&request.method);
                let request = |one: &Seen| Seen { method: one.method.clone(), ..request.clone() };
                // An earlier client that has left may be counted late, so the count is only an upper bound.
                seen.len() <= tried.min(1)
                    && seen.iter().all(|one| method(one) && self.as_seen(request(one)) == *one)
            }
        };
        if !fits {
            return Err(told());
        }
        // The token that the sidecar minted shows which user the sidecar has read.
        for (answer, request) in answers.iter().zip(seen) {
            let told = answer.status == 200 && !case.is_http2();
            // Answers to other methods need not carry a token.
            let told = told && matches!(&*request.method, "GET" | "POST");
            if told && answer.user != request.user {
                return Err(format!("a token of {:?} for {request:?}", answer.user));
            }
        }
        Ok(())
    }

    /// Sends a case over HTTP/1.1 and reads its answers. Also returns whether the connection served another
    /// request afterwards.
    async fn converse(&self, case: &Case) -> Result<(Vec<Answer>, bool), String> {
        let mut wire = self.wire().await;
        // Sends one piece, or, where no peer is trusted, many pieces: the bounds of a head must not depend on
        // the pieces.
        let crumbs = if self.trusted { 0 } else { case.bytes.len().min(400) };
        // A whole preface closes the connection without an answer, and its first line alone is answered with
        // 400. Sent in one piece, so that the sidecar's speed does not decide between the two.
        let preface =
            case.bytes.windows(PREFACE.len()).position(|window| window == PREFACE.as_bytes());
        let crumbs = crumbs.min(preface.unwrap_or(crumbs));
        for byte in &case.bytes[..crumbs] {
            wire.send([*byte]).await;
        }
        wire.send(&case.bytes[crumbs..]).await;
        let mut answers = Vec::new();
        let (count, then) = match &case.expected {
            CutOff { ended } => {
                if *ended {
                    wire.end().await;
                }
                (usize::MAX, Then::Closed)
            }
            Refused(_) => (usize::MAX, Then::Closed),
            Answered { statuses, then, .. } => (statuses.len(), *then),
            UpToTheApp(_) => (1, Then::Either),
        };
        while answers.len() < count
            && let Some(answer) = wire.answer().await?
        {
            answers.push(answer);
        }
        if then == Then::Left {
            wire.end().await;
        } else if then != Then::Closed {
            wire.send(
                "GET /last HTTP/1.1\r\nhost: a\r\nx-forwarded-user: last\r\nconnection: close\r\n\r\n",
            )
            .await;
        }
        let after = wire.answer().await?;
        let last = after.is_some();
        match (then, after) {
            (Then::Open | Then::Either, Some(Answer { status: 200, .. }))
            | (Then::Closed | Then::Either | Then::Left, None) => {}
            (_, None) => return Err(format!("closed after {} answers", answers.len())),
            (_, Some(Answer { status, .. })) => {
                return Err(format!("{status} after {} answers", answers.len()));
            }
        }
        if last && wire.answer().await?.is_some() {
            return Err("an answer too many".to_owned());
        }
        Ok((answers, last))
    }

    /// Returns the whole requests that the app has got since the last fence.
    async fn seen_up_to(&mut self, fence: &str, case: &Case) -> Result<Vec<Seen>, String> {
        let was_unfinished = self.unfinished;
        self.unfinished = matches!(case.expected, CutOff { .. } | UpToTheApp(_));
        let mut seen = Vec::new();
        let mut complaint = None;
        loop {
            let line = timeout(PATIENCE, self.lines.recv()).await;
            let line = line.map_err(|_| format!("the app never saw {fence}, but {seen:?}"))?;
            let line = line.ok_or("the app has ended")?;
            let line: Line =
                serde_json::from_str(&line).map_err(|error| format!("{error}: {line}"))?;
            match line.whole() {
                Some(request) if request.target == fence => {
                    let expected = self.as_seen(Seen::new("GET", fence, 0, "fence"));
                    if request != expected {
                        return Err(format!("the next client's request became {request:?}"));
                    }
                    break;
                }
                Some(request) => seen.push(request),
                None if line.target == "/case"
                    || line.target.is_empty()
                    || line.target.starts_with("HPE_") =>
                {
                    if !self.unfinished && !was_unfinished {
                        complaint = Some(format!("the app could not read {line:?}"));
                    }
                }
                None => complaint = Some(format!("the app was sent {line:?}")),
            }
        }
        complaint.map_or(Ok(seen), Err)
    }

    /// Returns the request as the app should see it: an untrusted peer can't name the user.
    fn as_seen(&self, mut request: Seen) -> Seen {
        if !self.trusted {
            request.user = None;
        }
        request
    }

    async fn wire(&self) -> Wire {
        let stream = TcpStream::connect(self.sidecar.addresses.traffic).await;
        let stream = stream.expect("it listens");
        stream.set_nodelay(true).expect("it is open");
        Wire { stream, read: Vec::new() }
    }

    /// Returns how many requests the sidecar has counted with one of these outcomes.
    async fn count(&self, outcomes: &[&str]) -> usize {
        let url = format!("http://{}/metrics", self.sidecar.addresses.admin);
        let text = self.http.get(url).send().await.expect("an answer").text().await;
        let text = text.expect("text");
        let value = |outcome: &&str| {
            let series = format!("velt_sidecar_requests_total{{outcome=\"{outcome}\"}} ");
            let value = text.lines().find_map(|line| line.strip_prefix(&series));
            value.expect("a count").parse::<usize>().expect("a number")
        };
        outcomes.iter().map(value).sum()
    }
}

impl Drop for Stage {
    /// Asks the app to end, since gunicorn has a worker to end too.
    fn drop(&mut self) {
        let id = self.process.child().id().to_string();
        if Command::new("kill").arg(id).status().is_ok_and(|status| status.success()) {
            self.process.wait();
        }
    }
}

impl Case {
    fn is_http2(&self) -> bool {
        self.bytes.starts_with(b"PRI ")
    }
}

/// Connection of a client.
struct Wire {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Wire {
    /// Sends the bytes that the sidecar still takes: it need not read the rest of a refused request.
    async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = timeout(PATIENCE, self.stream.write_all(bytes.as_ref())).await.expect("in time");
    }

    async fn end(&mut self) {
        // The connection may be closed already.
        let _ = self.stream.shutdown().await;
    }

    /// Returns the next final answer, or `None` at the end of the connection.
    async fn answer(&mut self) -> Result<Option<Answer>, String> {
        loop {
            let Some(head) = self.head().await? else { return Ok(None) };
            let status = head.get(9..12).and_then(|status| status.parse().ok());
            let status: u16 = status.ok_or_else(|| format!("no status in {head:?}"))?;
            if status == 100 {
                continue;
            }
            let length = header(&head, "content-length")
                .map_or(0, |length| length.parse().expect("a length of the sidecar's or an app's"));
            while self.read.len() < length {
                if !self.more().await? {
                    return Err(format!("a broken body after {head:?}"));
                }
            }
            self.read.drain(..length);
            let token = header(&head, "x-velt-token").map(claims_of);
            let user = token.map(|claims| claims["userId"].as_str().expect("a user").to_owned());
            return Ok(Some(Answer { status, user }));
        }
    }

    async fn head(&mut self) -> Result<Option<String>, String> {
        loop {
            let end = self.read.windows(4).position(|window| window == b"\r\n\r\n");
            if let Some(end) = end {
                let head = self.read.drain(..end + 4).collect();
                return String::from_utf8(head).map(Some).map_err(|error| error.to_string());
            }
            if !self.more().await? {
                let rest = String::from_utf8_lossy(&self.read);
                return if rest.is_empty() { Ok(None) } else { Err(format!("no head: {rest:?}")) };
            }
        }
    }

    /// Reads more bytes. Returns false at the end of the connection.
    async fn more(&mut self) -> Result<bool, String> {
        let mut buffer = [0; 4096];
        let read = timeout(PATIENCE, self.stream.read(&mut buffer)).await;
        // A reset counts as an end of the connection.
        let read = read.map_err(|_| "the sidecar neither answers nor closes")?.unwrap_or(0);
        self.read.extend_from_slice(&buffer[..read]);
        Ok(read > 0)
    }
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = head.lines().filter_map(|line| line.split_once(": "));
    lines.find(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

/// Sends frames and reads up to the end of the first stream. Only a 200 is told from the other results, which
/// are an answer, a reset, or the end of the connection.
async fn converse_http2(stage: &Stage, bytes: &[u8]) -> Result<Answer, String> {
    let mut wire = stage.wire().await;
    wire.send(bytes).await;
    loop {
        let Some(frame) = Frame::take(&mut wire.read) else {
            if wire.more().await? {
                continue;
            }
            return Ok(Answer { status: 0, user: None });
        };
        match (frame.kind, frame.stream) {
            (HEADERS, 1) if frame.payload[0] == STATUS_200 => {
                return Ok(Answer { status: 200, user: None });
            }
            (HEADERS | RESET, 1) | (GOAWAY, _) => return Ok(Answer { status: 0, user: None }),
            _ => {}
        }
    }
}

/// Plays every case to one app, with a trusted front and without a trusted peer.
async fn play_all(protocol: &str, command: impl Fn(&Path, &Path) -> Command) {
    let mut failures = Vec::new();
    for trusted in [true, false] {
        let mut stage = Stage::set(&command, protocol, trusted).await;
        for mut case in cases().into_iter().chain(http2_cases()) {
            match (case.about, &case.expected) {
                (About::Identity, _) if !trusted => continue,
                (About::WebSocket, _) if protocol == "h2c" => case.expected = Refused(502),
                (About::Trailers, Answered { seen, .. }) if protocol == "h2c" => {
                    case.expected = UpToTheApp(seen[0].clone());
                }
                _ => {}
            }
            if let Err(failure) = stage.play(&case).await {
                failures.push(format!("{} (trusted: {trusted}): {failure}", case.name));
            }
        }
    }
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn t12_to_t23_node_gets_only_forwarded_requests() {
    play_all("http1", |_, socket| {
        let mut node = Command::new(tool("node"));
        node.arg(Path::new(APPS).join("node_app.js")).arg(socket);
        node
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn t12_to_t23_gunicorn_gets_only_forwarded_requests() {
    play_all("http1", |_, socket| {
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
    play_all("http1", |folder, _| nginx(folder, "")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn t12_to_t23_nginx_gets_no_other_requests_over_http2() {
    play_all("h2c", |folder, _| nginx(folder, "http2")).await;
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

//! Lengths and codings of bodies in the head of a request.

use super::{Cases, CutOff, Refused, SMUGGLED, Seen, Then, one, passed};

/// Values of `Content-Length` that are no length.
const NO_LENGTHS: [&str; 12] =
    ["+4", "-4", "4, 4", "4,5", "", "0x4", "4 4", "4;", "4.0", "4e0", "４", "18446744073709551616"];

/// Values of `Transfer-Encoding`, perhaps in two lines, and the status with which each is refused.
const CODINGS: [(&str, u16); 22] = [
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
];

pub(super) fn add(cases: &mut Cases) {
    invalid_lengths(cases);
    valid_lengths(cases);
    lengths_beyond_the_body(cases);
    both_headers(cases);
    valid_codings(cases);
    invalid_codings(cases);
}

fn invalid_lengths(cases: &mut Cases) {
    for value in NO_LENGTHS {
        let name = format!("T23 Content-Length {value:?}");
        cases.post(&name, &format!("content-length: {value}\r\n"), "body", Refused(400));
    }
    let length = SMUGGLED.len();
    for (first, second) in [(0, length), (length, 0), (4, 5)] {
        let lines = format!("content-length: {first}\r\nContent-Length: {second}\r\n");
        let name = format!("T23 Content-Length {first} and {second}");
        cases.post(&name, &lines, SMUGGLED, Refused(400));
    }
}

fn valid_lengths(cases: &mut Cases) {
    let twice = "content-length: 4\r\ncontent-length: 4\r\n";
    cases.post("T23 Content-Length twice", twice, "body", one("POST", "/case", 4, Then::Open));
    for value in ["0004", " 4 ", "\t4\t"] {
        let name = format!("T23 Content-Length {value:?}");
        let lines = format!("content-length:{value}\r\n");
        cases.post(&name, &lines, "body", one("POST", "/case", 4, Then::Open));
    }
    let length = SMUGGLED.len();
    let all = format!("content-length: {length}\r\n");
    cases.post("T23 a request as a body", &all, SMUGGLED, one("POST", "/case", length, Then::Open));
    for method in ["GET", "HEAD", "DELETE", "OPTIONS"] {
        let first = format!("{method} /case HTTP/1.1");
        let name = format!("T23 a request as the body of a {method}");
        cases.request(&name, &first, &all, SMUGGLED, one(method, "/case", length, Then::Open));
    }
}

/// Adds lengths that are greater than the body, and headers that have one of the two names only in part.
fn lengths_beyond_the_body(cases: &mut Cases) {
    let short = "content-length: 200\r\n";
    cases.post("T23 a body that is too short", short, SMUGGLED, CutOff { ended: true });
    for value in ["9223372036854775808", "18446744073709551613"] {
        let name = format!("T23 Content-Length {value}");
        let lines = format!("content-length: {value}\r\n");
        cases.post(&name, &lines, SMUGGLED, CutOff { ended: true });
    }
    let most = "content-length: 18446744073709551615\r\n";
    cases.post("T23 Content-Length 2^64 - 1", most, "", Refused(431));
    let length = SMUGGLED.len();
    // WSGI, PHP and CGI write both headers with an underscore.
    for line in [format!("content_length: {length}\r\n"), "transfer_encoding: chunked\r\n".into()] {
        let seen = vec![Seen::new("POST", "/case", 0, "ada"), Seen::smuggled()];
        cases.post(&format!("T23 {line:?}"), &line, SMUGGLED, passed(seen, Then::Open));
    }
}

/// Returns chunks that end before a request.
fn ended() -> String {
    format!("0\r\n\r\n{SMUGGLED}")
}

/// Returns a chunk that holds a request.
fn hidden() -> String {
    format!("{:x}\r\n{SMUGGLED}\r\n0\r\n\r\n", SMUGGLED.len())
}

fn both_headers(cases: &mut Cases) {
    let ended = ended();
    for other in [ended.len().to_string(), "4".into(), "0".into()] {
        for lines in [
            format!("content-length: {other}\r\ntransfer-encoding: chunked\r\n"),
            format!("transfer-encoding: chunked\r\ncontent-length: {other}\r\n"),
        ] {
            let name = format!("T19 {lines:?}");
            cases.post(&name, &lines, &ended, one("POST", "/case", 0, Then::Closed));
        }
    }
    for lines in [
        "content-length: 4\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: chunked\r\ncontent-length: 4\r\n",
    ] {
        let name = format!("T19 {lines:?} and a request in the chunk");
        cases.post(&name, lines, &hidden(), one("POST", "/case", SMUGGLED.len(), Then::Closed));
    }
}

fn valid_codings(cases: &mut Cases) {
    for coding in ["CHUNKED", " chunked", "\tChunked\t", "chunked  "] {
        let name = format!("T23 Transfer-Encoding {coding:?}");
        let lines = format!("transfer-encoding:{coding}\r\n");
        cases.post(&name, &lines, &hidden(), one("POST", "/case", SMUGGLED.len(), Then::Open));
    }
}

fn invalid_codings(cases: &mut Cases) {
    let ended = ended();
    for (coding, status) in CODINGS {
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

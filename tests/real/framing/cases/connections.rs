//! Requests that share a connection, answers that come early, and what the client wants of the connection.

use super::{
    About, Answered, Cases, CutOff, Refused, SMUGGLED, Seen, Then, UpToTheApp, one, passed,
};
use crate::frames::PREFACE;

pub(super) fn add(cases: &mut Cases) {
    connections(cases);
    ends(cases);
    early_answers_of_the_sidecar(cases);
    early_answers_of_the_app(cases);
    connection_headers(cases);
    handshakes(cases);
    upgrades(cases);
    expectations(cases);
    identities(cases);
}

/// Returns a GET with these further lines, and a request behind it.
fn pipelined(lines: &str) -> String {
    format!("GET /case HTTP/1.1\r\nhost: a\r\nx-forwarded-user: ada\r\n{lines}\r\n{SMUGGLED}")
}

/// Returns what the app sees of two pipelined requests.
fn both() -> Vec<Seen> {
    vec![Seen::new("GET", "/case", 0, "ada"), Seen::smuggled()]
}

fn connections(cases: &mut Cases) {
    cases.get("T18 nothing special", "", one("GET", "/case", 0, Then::Open));
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
}

/// Adds requests after which the connection may end.
fn ends(cases: &mut Cases) {
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

/// Adds answers of the sidecar's own routes that come before the body has been read.
fn early_answers_of_the_sidecar(cases: &mut Cases) {
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
}

/// Adds answers of an app, under `/early`, that come before the body has been read.
fn early_answers_of_the_app(cases: &mut Cases) {
    let length = SMUGGLED.len();
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

fn connection_headers(cases: &mut Cases) {
    for name in ["host", "Content-Length", "transfer-encoding", "X-Forwarded-For", "Forwarded"] {
        let line = format!("connection: close, {name}\r\n");
        cases.post(&format!("T12 {line:?}"), &line, SMUGGLED, Refused(400));
    }
    let odd = [&b"connection: keep-alive, \xff\xfe, "[..], &b"x-odd, ".repeat(1_000), b"\r\n"];
    cases.get("T14 Connection with odd bytes", odd.concat(), one("GET", "/case", 0, Then::Open));
}

/// Adds handshakes of a WebSocket.
fn handshakes(cases: &mut Cases) {
    let length = SMUGGLED.len();
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
}

/// Adds wishes for HTTP/2 on a connection of HTTP/1.1.
fn upgrades(cases: &mut Cases) {
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
}

fn expectations(cases: &mut Cases) {
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

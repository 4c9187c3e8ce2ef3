//! First lines of requests, their targets, and `Host`.

use super::{Cases, Refused, SMUGGLED, Seen, Then, UpToTheApp, one};

/// First lines that are refused.
const FIRST_LINES: [&str; 27] = [
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
];

/// Targets, and what the app sees of each.
const TARGETS: [(&str, &str); 9] = [
    ("http://a/case", "/case"),
    ("HTTP://A/case", "/case"),
    ("https://a/case", "/case"),
    ("http://a", "/"),
    ("http://a?x=1", "/?x=1"),
    ("//b/case", "//b/case"),
    ("/a/../case;b/%2e%2E/%2f?c=http://b/../#", "/a/../case;b/%2e%2E/%2f?c=http://b/../"),
    ("/case#fragment", "/case"),
    ("/case'\"|{}^?'|{}^`\\", "/case'\"|{}^?'|{}^`\\"),
];

/// Lines in the place of `Host` that are refused.
const HOSTS: [(&str, &str); 8] = [
    ("none", ""),
    ("two", "host: a\r\nhost: a\r\n"),
    ("two unlike", "host: a\r\nhost: b\r\n"),
    ("a path in it", "host: a/b\r\n"),
    ("a space in it", "host: a b\r\n"),
    ("a list", "host: a, b\r\n"),
    ("a user in it", "host: user@a\r\n"),
    ("half an IPv6 address", "host: [::1\r\n"),
];

pub(super) fn add(cases: &mut Cases) {
    first_lines(cases);
    targets(cases);
    hosts(cases);
    old_versions(cases);
}

fn first_lines(cases: &mut Cases) {
    for first in FIRST_LINES {
        cases.line(&format!("T23 {first:?}"), first, "host: a\r\n", Refused(400));
    }
    for first in ["CONNECT a:80 HTTP/1.1", "CONNECT /case HTTP/1.1", "TRACE /case HTTP/1.1"] {
        cases.line(&format!("T21 {first:?}"), first, "host: a\r\n", Refused(501));
    }
}

fn targets(cases: &mut Cases) {
    for (target, app) in TARGETS {
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
}

fn hosts(cases: &mut Cases) {
    for (name, lines) in HOSTS {
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
}

fn old_versions(cases: &mut Cases) {
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

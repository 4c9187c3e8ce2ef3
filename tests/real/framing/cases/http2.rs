//! Requests over HTTP/2, in frames made by hand.

use super::{About, Cases, CutOff, Refused, SMUGGLED, Seen, Then, UpToTheApp, one};
use crate::frames::{self, DATA, END_HEADERS, END_STREAM, HEADERS, block, frame};

type Field = (&'static str, &'static str);

const METHOD: Field = (":method", "POST");
const SCHEME: Field = (":scheme", "http");
const AUTHORITY: Field = (":authority", "a");
const PATH: Field = (":path", "/case");
const ADA: Field = ("x-forwarded-user", "ada");

const USUAL: [Field; 5] = [METHOD, SCHEME, AUTHORITY, PATH, ADA];

/// Fields that make the usual request malformed.
const MALFORMED: [Field; 34] = [
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
];

/// Pseudo-headers whose value makes the request malformed.
const PSEUDO_HEADERS: [Field; 17] = [
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
];

pub(super) fn add(cases: &mut Cases) {
    passed(cases);
    malformed(cases);
    pseudo_headers(cases);
    lengths(cases);
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

fn with(more: &[Field]) -> Vec<Field> {
    [&USUAL[..], more].concat()
}

fn passed(cases: &mut Cases) {
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

fn malformed(cases: &mut Cases) {
    for more in MALFORMED {
        for data in [&["body"][..], &[]] {
            let name = format!("{more:?} with {} of data", data.len());
            cases.http2(&name, http2(&with(&[more]), data, &[]), Refused(400));
            if more.0.ends_with("user") {
                cases.about(About::Identity);
            }
        }
    }
}

fn pseudo_headers(cases: &mut Cases) {
    for (name, value) in PSEUDO_HEADERS {
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

fn lengths(cases: &mut Cases) {
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

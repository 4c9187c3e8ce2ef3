//! Lines of a head: their ends, their bytes, and their sizes.

use super::{Cases, CutOff, Refused, SMUGGLED, Seen, Then, one, passed};

/// Lines that no head may have.
const LINES: [(&str, &str); 11] = [
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
];

pub(super) fn add_lines(cases: &mut Cases) {
    for (name, line) in LINES {
        cases.get(&format!("T23 {name}"), line, Refused(400));
    }
    line_ends(cases);
    odd_bytes(cases);
}

fn line_ends(cases: &mut Cases) {
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
}

fn odd_bytes(cases: &mut Cases) {
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

pub(super) fn add_sizes(cases: &mut Cases) {
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

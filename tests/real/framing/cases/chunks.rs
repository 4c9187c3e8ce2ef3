//! Bodies in chunks.

use super::{About, Cases, CutOff, SMUGGLED, Then, one};

/// Chunks that are a body of four bytes.
const WHOLE: [(&str, &str); 9] = [
    ("one", "4\r\nbody\r\n0\r\n\r\n"),
    ("four", "1\r\nb\r\n1\r\no\r\n1\r\nd\r\n1\r\ny\r\n0\r\n\r\n"),
    ("leading zeros", "0000000000000000000000004\r\nbody\r\n000\r\n\r\n"),
    ("an extension", "4;a=b\r\nbody\r\n0;c\r\n\r\n"),
    ("an extension with quotes", "4;a=\"0\"\r\nbody\r\n0\r\n\r\n"),
    ("a space after the size", "4 \r\nbody\r\n0\r\n\r\n"),
    ("trailers", "4\r\nbody\r\n0\r\nx-sum: 1\r\n\r\n"),
    ("framing in trailers", "4\r\nbody\r\n0\r\ncontent-length: 9\r\ntransfer-encoding: x\r\n\r\n"),
    ("an identity in trailers", "4\r\nbody\r\n0\r\nx-forwarded-user: eve\r\n\r\n"),
];

/// Chunks that are broken. `{SMUGGLED}` stands for that request, and `{LENGTH}` for the size of it.
const BROKEN: [(&str, &str); 26] = [
    ("2^64", "10000000000000004\r\nbody\r\n0\r\n\r\n"),
    ("2^68", "100000000000000004\r\nbody\r\n0\r\n\r\n"),
    ("-4", "-4\r\nbody\r\n0\r\n\r\n"),
    ("+4", "+4\r\nbody\r\n0\r\n\r\n"),
    ("0x4", "0x4\r\nbody\r\n0\r\n\r\n"),
    ("4_0", "4_0\r\nbody\r\n0\r\n\r\n"),
    ("4.0", "4.0\r\nbody\r\n0\r\n\r\n"),
    ("a space before the size", " 4\r\nbody\r\n0\r\n\r\n"),
    ("no size", "\r\nbody\r\n0\r\n\r\n"),
    ("only an extension", ";a\r\nbody\r\n0\r\n\r\n"),
    ("g", "g\r\nbody\r\n0\r\n\r\n"),
    ("two sizes", "4 4\r\nbody\r\n0\r\n\r\n"),
    ("NUL after the size", "4\0\r\nbody\r\n0\r\n\r\n"),
    ("a size that ends in LF", "4\nbody\r\n0\r\n\r\n{SMUGGLED}"),
    ("a size that ends in CR", "4\rbody\r\n0\r\n\r\n{SMUGGLED}"),
    ("LF in an extension", "{LENGTH};\n{SMUGGLED}\r\n0\r\n\r\n"),
    ("CR in an extension", "{LENGTH};a\rb\r\n{SMUGGLED}\r\n0\r\n\r\n"),
    ("a chunk without an end", "4\r\nbody0\r\n\r\n"),
    ("a chunk that ends in LF", "4\r\nbody\n0\r\n\r\n"),
    ("a chunk that ends in CR", "4\r\nbody\r0\r\n\r\n"),
    ("a chunk that ends in any two bytes", "4\r\nbodyXX0\r\n\r\n"),
    ("a longer chunk than its size", "4\r\nbodies\r\n0\r\n\r\n"),
    ("a last chunk that ends in LF", "4\r\nbody\r\n0\n\n"),
    ("a request in the place of trailers", "4\r\nbody\r\n0\r\n"),
    ("a trailer with a space before the colon", "4\r\nbody\r\n0\r\nx-a : b\r\n\r\n"),
    ("a folded trailer", "4\r\nbody\r\n0\r\nx-a: b\r\n c\r\n\r\n"),
];

/// Chunks without an end.
const UNENDED: [(&str, &str); 5] = [
    ("no last CRLF", "4\r\nbody\r\n0\r\n"),
    ("half a CRLF", "4\r\nbody\r\n0\r\n\r"),
    ("no last chunk", "4\r\nbody\r\n"),
    ("a size of 2^64 - 1", "ffffffffffffffff\r\nbody\r\n0\r\n\r\n"),
    ("nothing", ""),
];

pub(super) fn add(cases: &mut Cases) {
    for (name, body) in WHOLE {
        let expected = one("POST", "/case", 4, Then::Open);
        cases.chunked(&format!("T23 chunks: {name}"), body, expected);
        if name.contains("trailers") {
            cases.about(About::Trailers);
        }
    }
    let length = format!("{:x}", SMUGGLED.len());
    for (name, body) in BROKEN {
        let body = body.replace("{LENGTH}", &length).replace("{SMUGGLED}", SMUGGLED);
        cases.chunked(&format!("T23 chunks: {name}"), &body, CutOff { ended: false });
    }
    for (name, body) in UNENDED {
        cases.chunked(&format!("T23 chunks: {name}"), body, CutOff { ended: true });
    }
}

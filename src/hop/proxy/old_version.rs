//! Answers of an app that speaks HTTP/1.0.
//!
//! hyper refuses `Transfer-Encoding` in HTTP/1.0. Small servers send it all the same, and most proxies
//! read it. So hyper gets an answer of HTTP/1.0 with the version 1.1 written over it. The pool still does
//! what HTTP/1.0 asks for: the connection ends after the answer, unless the app says `keep-alive` and sends
//! no `Transfer-Encoding` (RFC 9112 sections 6.1 and 9.3).

use std::sync::atomic::{AtomicU8, Ordering};

use http::HeaderMap;
use http::header::{CONNECTION, TRANSFER_ENCODING};

use super::headers::items;

/// Start of every answer of HTTP/1.1 and HTTP/1.0.
const START: &[u8] = b"HTTP/1.";

/// [`Seen`]: the answer's version is not 1.0.
const OTHER: u8 = 0xfe;
/// [`Seen`]: the answer's version is 1.0.
const OLD: u8 = 0xff;

/// State of reading the version of one connection's answer: the number of bytes of [`START`] that have
/// arrived, or [`OTHER`] or [`OLD`] once the version is known.
#[derive(Default)]
pub(super) struct Seen(AtomicU8);

impl Seen {
    /// Notes that a request goes out, so that the next byte to arrive is the first of its answer.
    pub(super) fn begin(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    /// Whether the answer with these `headers` ends its connection because of its version.
    pub(super) fn ends_with(&self, headers: &HeaderMap) -> bool {
        self.0.load(Ordering::Relaxed) == OLD && !persists(headers)
    }

    /// Writes the version 1.1 over the version 1.0. `bytes` may be any part of an answer.
    pub(super) fn pass(&self, bytes: &mut [u8]) {
        let mut seen = self.0.load(Ordering::Relaxed);
        if seen >= OTHER {
            return;
        }
        for byte in bytes {
            match START.get(usize::from(seen)) {
                Some(expected) if expected == byte => seen += 1,
                None if *byte == b'0' => {
                    *byte = b'1';
                    seen = OLD;
                    break;
                }
                _ => {
                    seen = OTHER;
                    break;
                }
            }
        }
        self.0.store(seen, Ordering::Relaxed);
    }
}

/// Whether the app keeps the connection of an answer of HTTP/1.0.
fn persists(headers: &HeaderMap) -> bool {
    let has =
        |wanted: &[u8]| items(headers, &CONNECTION).any(|word| word.eq_ignore_ascii_case(wanted));
    has(b"keep-alive") && !has(b"close") && !headers.contains_key(TRANSFER_ENCODING)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    /// Returns the text that hyper reads of an answer that arrives in `parts`, and whether the answer's
    /// version was 1.0.
    fn read(parts: &[&str]) -> (String, bool) {
        let seen = Seen::default();
        let mut read = String::new();
        for part in parts {
            let mut bytes = part.as_bytes().to_vec();
            seen.pass(&mut bytes);
            read.push_str(&String::from_utf8(bytes).expect("text"));
        }
        (read, seen.ends_with(&HeaderMap::new()))
    }

    #[test]
    fn old_version_is_replaced_in_any_pieces() {
        for parts in
            [&["HTTP/1.0 200 OK"] as &[_], &["HTTP/1.", "0 200 OK"], &["H", "TTP/1.0", " 200 OK"]]
        {
            assert_eq!(read(parts), ("HTTP/1.1 200 OK".into(), true), "{parts:?}");
        }
        for text in ["HTTP/1.1 200 HTTP/1.0", "\r\nHTTP/1.0 200", "HTTP/0.0", "SSH-2.0", "", "HT"] {
            assert_eq!(read(&[text]), (text.into(), false));
        }
    }

    #[test]
    fn version_of_each_answer_on_a_connection_is_checked() {
        let seen = Seen::default();
        for (answer, old) in [("HTTP/1.0 200", true), ("HTTP/1.1 200", false), ("HTTP/1.0", true)] {
            seen.begin();
            let mut bytes = answer.as_bytes().to_vec();
            seen.pass(&mut bytes);
            assert_eq!((bytes[7], seen.ends_with(&HeaderMap::new())), (b'1', old), "{answer}");
            let mut body = b"HTTP/1.0".to_vec();
            seen.pass(&mut body);
            assert_eq!(body, b"HTTP/1.0", "a body is left alone");
        }
    }

    #[test]
    fn old_connection_is_kept_only_if_the_app_says_so() {
        for (lines, kept) in [
            (&[] as &[_], false),
            (&[("connection", "Keep-Alive")], true),
            (&[("connection", "x, keep-alive")], true),
            (&[("connection", "keep-alive"), ("connection", "close")], false),
            (&[("connection", "keep-alive"), ("transfer-encoding", "chunked")], false),
        ] {
            let mut headers = HeaderMap::new();
            for (name, value) in lines {
                headers.append(*name, HeaderValue::from_static(value));
            }
            assert_eq!(persists(&headers), kept, "{lines:?}");
        }
    }
}

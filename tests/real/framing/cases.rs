//! All cases. A case has a name, the bytes of a client, and what must come of them.

mod bodies;
mod chunks;
mod connections;
mod heads;
mod http2;
mod targets;

use super::Expected::{Answered, CutOff, Refused, UpToTheApp};
use super::{About, Case, Expected, SMUGGLED, Seen, Then};

/// Returns the cases of HTTP/1.1, and then those of HTTP/2.
pub(super) fn all() -> Vec<Case> {
    let mut cases = Cases::default();
    bodies::add(&mut cases);
    heads::add_lines(&mut cases);
    chunks::add(&mut cases);
    targets::add(&mut cases);
    heads::add_sizes(&mut cases);
    connections::add(&mut cases);
    http2::add(&mut cases);
    cases.0
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

//! Sets of header names, made once, that nearly no message has any of.

use http::{HeaderMap, HeaderName};

/// A set of header names. To look each of them up in a header map costs a hash of each; here one
/// pass over the map's own names, nearly all of which differ from all of these in length, tells
/// that there is none.
pub struct NameSet {
    names: Box<[HeaderName]>,
    /// A bit for each length that one of them has.
    lengths: u64,
}

impl NameSet {
    /// Of these names.
    pub fn new(names: impl IntoIterator<Item = HeaderName>) -> Self {
        let names: Box<[HeaderName]> = names.into_iter().collect();
        let lengths = names.iter().fold(0, |lengths, name| lengths | length_bit(name));
        Self { names, lengths }
    }

    /// Each of them, in the order in which they were given.
    pub fn iter(&self) -> impl Iterator<Item = &HeaderName> {
        self.names.iter()
    }

    /// Whether one of them is as long as `name`.
    #[inline]
    pub fn has_length_of(&self, name: &HeaderName) -> bool {
        self.lengths & length_bit(name) != 0
    }

    /// Whether `headers` has any of them.
    pub fn is_in(&self, headers: &HeaderMap) -> bool {
        headers.keys().any(|name| self.has_length_of(name) && self.names.contains(name))
    }

    /// Takes all of them out of `headers`.
    pub fn remove_from(&self, headers: &mut HeaderMap) {
        if self.is_in(headers) {
            for name in &self.names {
                headers.remove(name);
            }
        }
    }
}

/// A name longer than 63 bytes shares the bit of a shorter one, which costs a comparison.
#[inline]
fn length_bit(name: &HeaderName) -> u64 {
    1 << (name.as_str().len() % 64)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http::header::{COOKIE, HOST};

    use super::*;

    fn headers(names: &[&str]) -> HeaderMap {
        let value = HeaderValue::from_static("x");
        let name = |name: &&str| HeaderName::from_bytes(name.as_bytes()).expect("a name");
        names.iter().map(|text| (name(text), value.clone())).collect()
    }

    #[test]
    fn a_set_finds_and_removes_its_own_and_nothing_else() {
        let long = "x".repeat(2 + 64);
        let names = ["te", "upgrade", "keep-alive", long.as_str()];
        let name = |text: &str| HeaderName::from_bytes(text.as_bytes()).expect("a name");
        let set = NameSet::new(names.map(name));
        for text in names {
            let mut some = headers(&["host", text, "cookie"]);
            some.append(name(text), HeaderValue::from_static("another"));
            assert!(set.is_in(&some), "{text}");
            set.remove_from(&mut some);
            assert_eq!(some.keys().collect::<Vec<_>>(), [HOST, COOKIE], "{text}");
        }
        // The first is as long as two of them, the last shares the bit of another.
        for name in ["user-agent", "trailer", "dnt", "xx"] {
            let mut none = headers(&["host", name]);
            assert!(!set.is_in(&none), "{name}");
            set.remove_from(&mut none);
            assert_eq!(none.len(), 2, "{name}");
        }
        assert!(!set.is_in(&HeaderMap::new()));
    }
}

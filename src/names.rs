//! Names of headers that nearly no message has, and how to tell that at little cost.

use http::{HeaderMap, HeaderName};

/// The names that a header map has, by a bit of each. To look a name up costs a hash of it, and most
/// that a proxy asks for are not there: one pass over those that are tells it of all of them.
#[derive(Clone, Copy, Default)]
pub struct Names(u64);

impl Names {
    /// Those in `headers`, until one is added.
    pub fn of(headers: &HeaderMap) -> Self {
        headers.keys().fold(Self::default(), Self::with)
    }

    /// These and `name`.
    #[inline]
    pub fn with(self, name: &HeaderName) -> Self {
        Self(self.0 | bit(name))
    }

    /// Whether `name` can be one of them. It may not be there all the same: names share bits.
    pub fn may_have(self, name: &HeaderName) -> bool {
        self.0 & bit(name) != 0
    }
}

/// A set of header names, made once.
pub struct NameSet {
    names: Box<[HeaderName]>,
    bits: Names,
    /// A bit for each length that one of them has.
    lengths: u64,
}

impl NameSet {
    /// Of these names.
    pub fn new(names: impl IntoIterator<Item = HeaderName>) -> Self {
        let names: Box<[HeaderName]> = names.into_iter().collect();
        let bits = names.iter().fold(Names::default(), Names::with);
        let lengths = names.iter().fold(0, |lengths, name| lengths | length_bit(name));
        Self { names, bits, lengths }
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

    /// Those that may be among `names`: nearly always none.
    pub fn among(&self, names: Names) -> impl Iterator<Item = &HeaderName> {
        let candidates: &[HeaderName] = if names.0 & self.bits.0 == 0 { &[] } else { &self.names };
        candidates.iter().filter(move |name| names.may_have(name))
    }

    /// Takes all of them out of `headers`, which has these `names`.
    pub fn remove_from(&self, headers: &mut HeaderMap, names: Names) {
        for name in self.among(names) {
            headers.remove(name);
        }
    }
}

/// By its length and its two ends: of what browsers and apps send, five names in a thousand then share
/// a bit with one that is asked for.
#[inline]
fn bit(name: &HeaderName) -> u64 {
    let name = name.as_str().as_bytes();
    let end = |byte: Option<&u8>| byte.map_or(0, |byte| usize::from(*byte));
    1 << ((name.len() + end(name.first()) + 7 * end(name.last())) % 64)
}

/// A name longer than 63 bytes shares the bit of a shorter one, which costs a comparison.
#[inline]
fn length_bit(name: &HeaderName) -> u64 {
    1 << (name.as_str().len() % 64)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http::header::{
        CONNECTION, CONTENT_LENGTH, COOKIE, HOST, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
    };
    use proptest::collection::vec;
    use proptest::prelude::*;

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
            let names = Names::of(&some);
            assert!(set.among(names).any(|name| name == text), "{text}");
            set.remove_from(&mut some, names);
            assert_eq!(some.keys().collect::<Vec<_>>(), [HOST, COOKIE], "{text}");
        }
        // The first is as long as two of them, the last two share a bit with one.
        for text in ["user-agent", "trailer", "dnt", "xx", "u-grade"] {
            let mut none = headers(&["host", text]);
            let names = Names::of(&none);
            set.remove_from(&mut none, names);
            assert_eq!(none, headers(&["host", text]), "{text}");
        }
        assert_eq!(set.among(Names::of(&HeaderMap::new())).count(), 0);
    }

    proptest! {
        #[test]
        fn a_name_that_is_there_is_never_missed(
            there in vec("[a-z0-9-]{1,80}", 0..20),
            asked in "[a-z0-9-]{1,80}",
        ) {
            let there: Vec<&str> = there.iter().map(String::as_str).collect();
            let names = Names::of(&headers(&there));
            for name in &there {
                let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
                prop_assert!(names.may_have(&name));
                prop_assert!(NameSet::new([HOST, name.clone()]).among(names).any(|found| *found == name));
            }
            let asked = HeaderName::from_bytes(asked.as_bytes()).expect("a name");
            prop_assert_eq!(names.may_have(&asked), NameSet::new([asked]).among(names).count() == 1);
        }
    }

    #[test]
    fn what_nearly_no_message_has_costs_no_look_up() {
        let usual = headers(&[
            "host",
            "user-agent",
            "accept",
            "accept-language",
            "accept-encoding",
            "referer",
            "cookie",
            "sec-fetch-dest",
            "sec-fetch-mode",
            "sec-fetch-site",
            "x-forwarded-for",
            "x-forwarded-proto",
            "x-forwarded-user",
            "x-request-id",
            "origin",
            "cache-control",
        ]);
        let names = Names::of(&usual);
        for name in [CONNECTION, TE, TRAILER, UPGRADE, TRANSFER_ENCODING, CONTENT_LENGTH] {
            assert!(!names.may_have(&name), "{name}");
        }
        assert!(!Names::of(&HeaderMap::new()).may_have(&HOST));
    }
}

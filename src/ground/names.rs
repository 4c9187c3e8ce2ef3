//! Sets of header names, which rule out at little cost the names that nearly no message has.

use http::{HeaderMap, HeaderName};

/// Names that a header map has, as one bit for each name. A look-up of a name costs a hash of the name, and
/// most names that a proxy looks for are absent: a single pass over the names that are there replaces these
/// look-ups.
#[derive(Clone, Copy, Default)]
pub struct Names(u64);

impl Names {
    /// Collects the names in `headers`. Must be made again if a name is added.
    pub fn of(headers: &HeaderMap) -> Self {
        headers.keys().fold(Self::default(), Self::with)
    }

    /// Returns these names and `name`.
    #[inline]
    pub fn with(self, name: &HeaderName) -> Self {
        Self(self.0 | bit(name))
    }

    /// Whether `name` can be among the names. It may be absent all the same: names share bits.
    // Inlined into other crates, where the bit of a standard name becomes a constant: 1 % of a request's
    // instructions.
    #[inline]
    pub fn may_have(self, name: &HeaderName) -> bool {
        self.0 & bit(name) != 0
    }
}

/// A set of header names, made once.
pub struct NameSet {
    names: Box<[HeaderName]>,
    bits: Names,
    /// One bit for each length of a name in the set.
    lengths: u64,
}

impl NameSet {
    /// Makes the set of `names`.
    pub fn new(names: impl IntoIterator<Item = HeaderName>) -> Self {
        let names: Box<[HeaderName]> = names.into_iter().collect();
        let bits = names.iter().fold(Names::default(), Names::with);
        let lengths = names.iter().fold(0, |lengths, name| lengths | length_bit(name));
        Self { names, bits, lengths }
    }

    /// Returns the names, in the order in which they were given.
    pub fn iter(&self) -> impl Iterator<Item = &HeaderName> {
        self.names.iter()
    }

    /// Whether a name in the set is as long as `name`.
    #[inline]
    pub fn has_length_of(&self, name: &HeaderName) -> bool {
        self.lengths & length_bit(name) != 0
    }

    /// Returns the names of the set that may be among `names`: nearly always none.
    pub fn among(&self, names: Names) -> impl Iterator<Item = &HeaderName> {
        let candidates: &[HeaderName] = if names.0 & self.bits.0 == 0 { &[] } else { &self.names };
        candidates.iter().filter(move |name| names.may_have(name))
    }

    /// Removes every name of the set from `headers`, which has these `names`.
    pub fn remove_from(&self, headers: &mut HeaderMap, names: Names) {
        for name in self.among(names) {
            headers.remove(name);
        }
    }
}

/// Returns the bit of a name, by its length and its two ends: five in a thousand names that browsers and apps
/// send share a bit with a name that is looked for.
#[inline]
fn bit(name: &HeaderName) -> u64 {
    let name = name.as_str().as_bytes();
    let end = |byte: Option<&u8>| byte.map_or(0, |byte| usize::from(*byte));
    1 << ((name.len() + end(name.first()) + 7 * end(name.last())) % 64)
}

/// Returns the bit of a name's length. A name longer than 63 bytes shares the bit of a shorter name, which
/// costs a comparison.
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
    fn name_set_finds_and_removes_only_its_names() {
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
        // The first name is as long as two names of the set, the last two share a bit with a name of the set.
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
        fn present_header_name_is_never_missed(
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
    fn usual_headers_cost_no_look_up_of_rare_names() {
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

//! Id of a user, in as little memory as possible: there is one id for each cached user.

use std::hash::{Hash, Hasher};
use std::ops::Deref;

/// Bytes that an id may have without an allocation of its own: enough for a UUID in braces, and for the names
/// that most login services give a user. With this size, a cached user's key is 64 bytes, a size of the
/// allocator's. With a string on the heap, the key takes 80 bytes or more from the first byte of the id.
const INLINE: usize = 38;

/// A user's id, byte for byte as received. The type implements neither `Debug` nor `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct UserId(Text);

/// Text of an id. Each text has one form only, so that equal ids are equal.
#[derive(Clone, PartialEq, Eq)]
enum Text {
    /// The rest of `bytes` is zeros.
    Inline {
        length: u8,
        bytes: [u8; INLINE],
    },
    Long(Box<str>),
}

impl UserId {
    /// Returns the id as text.
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Text::Inline { .. } => str::from_utf8(self.as_bytes()).expect("made of text"),
            Text::Long(text) => text,
        }
    }

    /// Returns the number of bytes that the id has on the heap.
    pub fn owned_bytes(&self) -> usize {
        match &self.0 {
            Text::Inline { .. } => 0,
            Text::Long(text) => text.len(),
        }
    }

    fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Text::Inline { length, bytes } => &bytes[..usize::from(*length)],
            Text::Long(text) => text.as_bytes(),
        }
    }
}

impl From<&str> for UserId {
    fn from(text: &str) -> Self {
        let mut bytes = [0; INLINE];
        let Some(start) = bytes.get_mut(..text.len()) else { return Self(Text::Long(text.into())) };
        start.copy_from_slice(text.as_bytes());
        let length = u8::try_from(text.len()).expect("no more than fits inline");
        Self(Text::Inline { length, bytes })
    }
}

impl Deref for UserId {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

/// Hashes the bytes of the text, without a check that they are text.
impl Hash for UserId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}

#[cfg(test)]
mod tests {
    use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};

    use super::*;

    #[test]
    fn an_id_of_any_length_comes_back_and_equals_itself_alone() {
        let text = "0é日𐀀".repeat(8);
        let starts = (0..=text.len()).filter(|end| text.is_char_boundary(*end));
        // All lengths, with any character at the edge.
        let ids: Vec<String> = starts
            .flat_map(|end| (0..4).map(move |more| (end, more)))
            .map(|(end, more)| "x".repeat(more) + &text[..end])
            .collect();
        assert!((0..=80).all(|length| ids.iter().any(|id| id.len() == length)));
        let hash = BuildHasherDefault::<DefaultHasher>::default();
        for one in &ids {
            let id = UserId::from(one.as_str());
            assert_eq!(id.as_str(), one);
            assert_eq!(id.owned_bytes(), if one.len() > INLINE { one.len() } else { 0 });
            for other in &ids {
                let other_id = UserId::from(other.as_str());
                assert_eq!(id == other_id, one == other);
                assert_eq!(hash.hash_one(&id) == hash.hash_one(&other_id), one == other);
            }
        }
    }

    #[test]
    fn zeros_at_the_end_are_part_of_a_user_id() {
        assert!(UserId::from("ada") != UserId::from("ada\0"));
        assert!(UserId::from("") != UserId::from("\0"));
    }

    #[test]
    fn user_id_keeps_its_size() {
        assert_eq!(size_of::<UserId>(), 40);
        assert_eq!(size_of::<Option<UserId>>(), 40);
    }
}

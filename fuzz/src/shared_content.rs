//! Content of the shared store: entries, marks and events, for any bytes that the store may answer with.
//!
//! The first byte chooses the kind of content, the rest is the content.

use std::sync::LazyLock;

use shared::entry::{Entry, Event, mark_bytes, parse_mark};
use shared::seal::{Kind, SealKeys};

/// # Panics
///
/// Panics if content is read that would not be written in the same bytes, or if bytes open that no key has sealed.
pub fn check(input: &[u8]) {
    static KEYS: LazyLock<SealKeys> = LazyLock::new(|| {
        SealKeys::parse("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=").expect("a key")
    });
    let Some((kind, content)) = input.split_first() else { return };
    let (kind, written) = match kind % 3 {
        0 => (Kind::Entry, Entry::parse(content).map(|entry| entry.bytes())),
        1 => (Kind::Mark, parse_mark(content).map(mark_bytes)),
        _ => (Kind::Event, Event::parse(content).map(|event| event.bytes())),
    };
    if let Some(written) = written {
        assert_eq!(written, content);
    }
    assert!(KEYS.open(kind, b"name", content).is_none(), "no key has sealed this");
}

//! A token, a mark and an event as bytes, before they are sealed.

use std::time::Duration;

use crate::protocol::{Facts, Mark, Nonce, millis};
use crate::seal::Name;
use token::TokenValue;
use token::announce::{self, Logout, Subject};

/// Version of the form in which entries, marks and events are written.
const FORM: u8 = 1;

/// Most marks that an entry knows: those of the organizations that a token can name, of its user and of everything.
const MAX_KNOWN: usize = 256;

/// Longest user id or organization in an event, in bytes.
const MAX_SUBJECT: usize = 1024;

/// A stored token.
pub struct Entry {
    pub facts: Facts,
    pub token: TokenValue,
}

/// Returns the bytes of a subject: the first says of which kind it is, so no two subjects have the same bytes.
pub fn subject_bytes(subject: &Subject) -> Vec<u8> {
    match subject {
        Subject::User(user) => [b"u", user.as_str().as_bytes()].concat(),
        Subject::Organization(organization) => [b"o", organization.as_bytes()].concat(),
        Subject::Everything => b"e".to_vec(),
    }
}

fn parse_subject(bytes: &[u8]) -> Option<Subject> {
    let (kind, text) = bytes.split_first()?;
    let text = str::from_utf8(text).ok().filter(|text| text.len() <= MAX_SUBJECT)?;
    match kind {
        b'u' => Some(Subject::User(text.into())),
        b'o' => Some(Subject::Organization(text.into())),
        b'e' if text.is_empty() => Some(Subject::Everything),
        _ => None,
    }
}

/// A forget: its subject, its mark, and the time of the logout if a logout is its reason.
#[derive(Clone, PartialEq, Eq)]
pub struct Forget {
    pub subject: Subject,
    pub mark: Mark,
    /// Time of the logout in milliseconds since 1970. The user gets no tokens until a later login.
    pub logout_at: Option<u64>,
}

impl Forget {
    /// Makes the forget that `event` asks for.
    pub fn of(event: &announce::Event, mark: Mark) -> Self {
        let logout_at = match event {
            announce::Event::Forget(_) => None,
            announce::Event::Logout(logout) => Some(millis(logout.at)),
        };
        Self { subject: event.subject(), mark, logout_at }
    }

    /// Returns the event that asked for this forget.
    pub fn event(&self) -> announce::Event {
        match (&self.subject, self.logout_at) {
            (Subject::User(user), Some(at)) => announce::Event::Logout(Logout {
                user: user.clone(),
                at: Duration::from_millis(at),
            }),
            (subject, _) => announce::Event::Forget(subject.clone()),
        }
    }
}

/// Event of the stream.
#[derive(Clone, PartialEq, Eq)]
pub enum Event {
    Forget(Forget),
    /// The token with this name was replaced by a younger one.
    Replaced(Name),
}

/// Reads bytes from the front.
struct Reading<'a>(&'a [u8]);

impl<'a> Reading<'a> {
    fn chunk<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (chunk, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*chunk)
    }

    fn number(&mut self) -> Option<u64> {
        self.chunk().map(u64::from_le_bytes)
    }

    fn rest(self) -> &'a [u8] {
        self.0
    }
}

impl Entry {
    /// Returns the bytes of the entry, which [`Self::parse`] reads.
    pub fn bytes(&self) -> Vec<u8> {
        let Facts { minted_at, life, known, credentials } = &self.facts;
        let token = self.token.expose().as_bytes();
        let known = &known[..known.len().min(MAX_KNOWN)];
        let count = u16::try_from(known.len()).expect("few marks");
        let mut bytes = Vec::with_capacity(token.len() + known.len() * 16 + 64);
        bytes.push(FORM);
        bytes.extend_from_slice(&minted_at.to_le_bytes());
        bytes.extend_from_slice(&millis(*life).to_le_bytes());
        bytes.extend_from_slice(credentials);
        bytes.extend_from_slice(&count.to_le_bytes());
        bytes.extend_from_slice(known.as_flattened());
        bytes.extend_from_slice(token);
        bytes
    }

    /// Reads an entry. `None` for any other bytes.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let mut reading = Reading(bytes);
        let [FORM] = reading.chunk()? else { return None };
        let minted_at = reading.number()?;
        let life = Duration::from_millis(reading.number()?);
        let credentials = reading.chunk()?;
        let count = usize::from(u16::from_le_bytes(reading.chunk()?));
        if count > MAX_KNOWN {
            return None;
        }
        let known = (0..count).map(|_| reading.chunk()).collect::<Option<Vec<Nonce>>>()?;
        let token = TokenValue::parse(str::from_utf8(reading.rest()).ok()?)?;
        Some(Self { facts: Facts { minted_at, life, known, credentials }, token })
    }
}

/// Returns the bytes of a mark, which [`parse_mark`] reads.
pub fn mark_bytes(mark: Mark) -> Vec<u8> {
    [&[FORM], &mark.time.to_le_bytes()[..], &mark.nonce].concat()
}

/// Reads a mark. `None` for any other bytes.
pub fn parse_mark(bytes: &[u8]) -> Option<Mark> {
    let mut reading = Reading(bytes);
    let [FORM] = reading.chunk()? else { return None };
    let mark = Mark { time: reading.number()?, nonce: reading.chunk()? };
    reading.rest().is_empty().then_some(mark)
}

impl Event {
    /// Returns the bytes of the event, which [`Self::parse`] reads.
    pub fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Replaced(name) => [&[FORM, b'r'], &name.bytes()[..]].concat(),
            Self::Forget(Forget { subject, mark, logout_at }) => {
                // 0 stands for a forget without a logout.
                let logout_at = logout_at.unwrap_or_default();
                let numbers = [mark.time.to_le_bytes(), logout_at.to_le_bytes()].concat();
                [&[FORM, b'f'], &numbers[..], &mark.nonce, &subject_bytes(subject)].concat()
            }
        }
    }

    /// Reads an event. `None` for any other bytes, such as the event of a later version.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let mut reading = Reading(bytes);
        let [FORM, kind] = reading.chunk()? else { return None };
        match kind {
            b'r' => {
                let name = Name::new(reading.chunk()?);
                reading.rest().is_empty().then_some(Self::Replaced(name))
            }
            b'f' => {
                let (time, logout_at) = (reading.number()?, reading.number()?);
                let mark = Mark { time, nonce: reading.chunk()? };
                let subject = parse_subject(reading.rest())?;
                let logout_at = Some(logout_at).filter(|at| *at > 0);
                Some(Self::Forget(Forget { subject, mark, logout_at }))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(known: usize) -> Entry {
        let known = (0..known).map(|at| [u8::try_from(at % 251).expect("small"); 16]).collect();
        let life = Duration::from_secs(172_800);
        let facts = Facts { minted_at: 1_800_000_000_123, life, known, credentials: *b"12345678" };
        Entry { facts, token: TokenValue::parse("a.b.c").expect("a token") }
    }

    #[test]
    fn entry_comes_back_as_it_was() {
        for known in [0, 1, 3, MAX_KNOWN] {
            let (entry, back) = (entry(known), Entry::parse(&entry(known).bytes()).expect("one"));
            assert_eq!(back.facts, entry.facts);
            assert_eq!(back.token, entry.token);
        }
    }

    #[test]
    fn cut_bytes_are_no_entry() {
        let bytes = entry(2).bytes();
        for length in 0..bytes.len() - 5 {
            assert!(Entry::parse(&bytes[..length]).is_none(), "{length} bytes");
        }
        let mut other = bytes.clone();
        other[0] = FORM + 1;
        assert!(Entry::parse(&other).is_none());
        let mut many = bytes;
        many[25..27].copy_from_slice(&u16::MAX.to_le_bytes());
        assert!(Entry::parse(&many).is_none());
    }

    #[test]
    fn marks_and_events_come_back_as_they_were() {
        let mark = Mark { time: 7, nonce: [9; 16] };
        assert_eq!(parse_mark(&mark_bytes(mark)), Some(mark));
        assert_eq!(parse_mark(&[mark_bytes(mark), vec![0]].concat()), None);
        let subjects = [
            Subject::User("ada".into()),
            Subject::User("".into()),
            Subject::Organization("ada".into()),
            Subject::Everything,
        ];
        let forgets = subjects.into_iter().flat_map(|subject| {
            [None, Some(8)].map(|logout_at| {
                Event::Forget(Forget { subject: subject.clone(), mark, logout_at })
            })
        });
        let replaced = Event::Replaced(Name::new([3; 16]));
        for event in forgets.chain([replaced]) {
            let bytes = event.bytes();
            assert!(Event::parse(&bytes) == Some(event));
            for length in 0..2 {
                assert!(Event::parse(&bytes[..length]).is_none());
            }
        }
        assert!(Event::parse(&[FORM, b'?', 0]).is_none());
    }
}

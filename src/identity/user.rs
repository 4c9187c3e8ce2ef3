//! A user as a trusted source describes them, and the flaws that make parts of the description unusable.

use std::time::Duration;

use super::placeholders::Placeholders;
use ground::grants::{Grants, GrantsError};
use ground::groups::GroupSet;
use ground::metrics::Flaw;
use ground::user_id::UserId;

/// The longest user id, email, name or organization that is believed, in bytes.
pub const MAX_VALUE_BYTES: usize = 256;

/// A user as a trusted source describes them, byte for byte. Has no `Debug`, so that no log shows a user.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct User {
    pub id: UserId,
    pub email: Option<Box<str>>,
    pub name: Option<Box<str>>,
    pub organization: Organization,
    /// `None` unless groups decide it.
    pub is_admin: Option<bool>,
    pub groups: Groups,
    pub grants: Granted,
}

/// Groups of a user, as far as resources depend on groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Groups {
    /// The known groups that the source names. Empty if it names none, or if no resource depends on a group.
    In(GroupSet),
    /// The source gives groups that can't be used. There is no token, since the user's rights are not known.
    Unusable,
}

/// Grants of a user, from the source of the user's identity.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Granted {
    /// The source is not asked for grants.
    NotAsked,
    Given(Grants),
    /// The source was to give grants and gave none that can be used. There is no token, since the user's rights
    /// are not known.
    Unusable(GrantsError),
}

impl Granted {
    /// Returns the reason why grants that were to be had are not known.
    pub fn error(&self) -> Option<GrantsError> {
        match self {
            Self::Unusable(error) => Some(*error),
            Self::NotAsked | Self::Given(_) => None,
        }
    }

    /// Returns the grants, if the source gave usable ones.
    pub fn grants(&self) -> Option<&Grants> {
        match self {
            Self::Given(grants) => Some(grants),
            Self::NotAsked | Self::Unusable(_) => None,
        }
    }
}

impl From<Result<Grants, GrantsError>> for Granted {
    fn from(read: Result<Grants, GrantsError>) -> Self {
        read.map_or_else(Self::Unusable, Self::Given)
    }
}

impl User {
    /// Returns the bytes on the heap that belong to this user alone.
    pub fn owned_bytes(&self) -> usize {
        let texts = [self.email.as_deref(), self.name.as_deref(), self.organization.name()];
        let texts = texts.into_iter().flatten().map(str::len).sum::<usize>();
        self.id.owned_bytes() + texts + self.grants.grants().map_or(0, Grants::bytes)
    }
}

/// The organization of a user, as the source names it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Organization {
    /// The source names no organization: the configured organization stands in, if there is one.
    Unnamed,
    Named(Box<str>),
    /// The source names an organization that can't be used. No organization stands in, so there is no token:
    /// the user must not get into another organization than their own.
    Unusable,
}

impl Organization {
    /// Makes an organization of the name that the source `said`, and of the `flaw` for which a name was
    /// left out.
    pub(super) fn new(said: Option<Box<str>>, flaw: Option<Flaw>) -> Self {
        match (said, flaw) {
            (Some(name), _) => Self::Named(name),
            (None, None | Some(Flaw::Empty | Flaw::Placeholder)) => Self::Unnamed,
            (None, Some(_)) => Self::Unusable,
        }
    }

    /// Name of the organization, if the source gave a usable one.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Named(name) => Some(name),
            Self::Unnamed | Self::Unusable => None,
        }
    }
}

/// A part of a user's description.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attribute {
    /// The user's id. A placeholder is its only flaw that does not refuse the request.
    User,
    Email,
    Name,
    Organization,
    Groups,
    /// The user's grants. Any flaw of them costs the token.
    Grants,
}

impl Attribute {
    const ALL: [Self; 6] =
        [Self::User, Self::Email, Self::Name, Self::Organization, Self::Groups, Self::Grants];

    /// Word for the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Email => "email",
            Self::Name => "name",
            Self::Organization => "organization",
            Self::Groups => "groups",
            Self::Grants => "grants",
        }
    }
}

/// Attributes that a source gave and that can't be used, each with its flaw. Nearly every user has none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flaws([Option<Flaw>; Attribute::ALL.len()]);

impl Flaws {
    /// Makes the flaws of a user in whose place a placeholder stands.
    pub(super) fn placeholder() -> Self {
        let mut flaws = Self::default();
        flaws.add(Attribute::User, Flaw::Placeholder);
        flaws
    }

    pub(super) fn add(&mut self, attribute: Attribute, flaw: Flaw) {
        self.0[attribute as usize] = Some(flaw);
    }

    /// Notes grants that can't be used.
    pub(super) fn note_grants(&mut self, read: &Result<Grants, GrantsError>) {
        let flaw = match read {
            Ok(_) => return,
            Err(GrantsError::Absent) => Flaw::Empty,
            Err(_) => Flaw::NoGrants,
        };
        self.add(Attribute::Grants, flaw);
    }

    /// Returns the flaw of one attribute.
    pub fn of(self, attribute: Attribute) -> Option<Flaw> {
        self.0[attribute as usize]
    }

    /// Returns the attributes that have a flaw, each with its flaw.
    pub fn iter(self) -> impl Iterator<Item = (Attribute, Flaw)> {
        Attribute::ALL
            .into_iter()
            .zip(self.0)
            .filter_map(|(attribute, flaw)| Some((attribute, flaw?)))
    }
}

/// Times at which a user has signed in, as time since 1970. Only assertions tell them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SignedIn {
    /// Time at which the user has shown their credentials (`auth_time`, OpenID Connect Core 1.0 section 2).
    pub at: Option<Duration>,
    /// Time at which the assertion was made (`iat`). Later than the login: proxies and libraries of logins make
    /// assertions anew from an old session, some of them for each request.
    pub issued: Option<Duration>,
}

/// Description of the caller, as a source gives it.
#[derive(Clone)]
pub(super) struct Said {
    /// `None` if the source names no user.
    pub(super) user: Option<User>,
    pub(super) flaws: Flaws,
    pub(super) signed_in: SignedIn,
}

impl Said {
    /// Makes a description of a source that does not tell when the user has signed in.
    pub(super) fn of(user: Option<User>, flaws: Flaws) -> Self {
        Self { user, flaws, signed_in: SignedIn::default() }
    }
}

/// Whether a character is invisible: white space, or a character without width.
fn is_invisible(character: char) -> bool {
    let is_of_no_width =
        matches!(character, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{feff}');
    character.is_whitespace() || is_of_no_width
}

/// Whether `text` has the form of an email address. Velt refuses a user with any other email.
pub(super) fn is_address(text: &str) -> bool {
    let parts = text.rsplit_once('@');
    parts.is_some_and(|(mailbox, domain)| !mailbox.is_empty() && !domain.is_empty())
        && !text.contains(char::is_whitespace)
}

/// Finds the reason why `text` can't be used as a user's id, email, name or organization.
pub(super) fn flaw(text: &str, placeholders: &Placeholders) -> Option<Flaw> {
    // Fast path: nearly all values are printable ASCII without spaces, so there is nothing to trim.
    let is_plain = text.bytes().all(|byte| byte.is_ascii_graphic());
    if is_plain && matches!(text.len(), 1..=MAX_VALUE_BYTES) {
        placeholders.contain(text).then_some(Flaw::Placeholder)
    } else if text.chars().all(is_invisible) {
        Some(Flaw::Empty)
    } else if text.len() > MAX_VALUE_BYTES {
        Some(Flaw::TooLong)
    } else if text.trim().len() != text.len() || text.chars().any(char::is_control) {
        Some(Flaw::BadBytes)
    } else {
        placeholders.contain(text).then_some(Flaw::Placeholder)
    }
}

//! Identity in plain headers.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::placeholders::Placeholders;
use super::user::{Attribute, Flaws, Granted, Groups, Organization, Said, User, flaw, is_address};
use super::{MAX_VALUE_BYTES, Refusal};
use ground::grants::{Grants, GrantsError};
use ground::groups::{GroupSet, KnownGroups};
use ground::metrics::{Flaw, RefusalKind};

/// Identity in plain headers that the login proxy sets.
#[derive(Clone, Debug)]
pub struct HeaderSource {
    pub user: HeaderName,
    pub email: Option<HeaderName>,
    pub name: Option<HeaderName>,
    pub organization: Option<HeaderName>,
    pub groups: Option<HeaderName>,
    /// Character between two groups.
    pub groups_separator: char,
    pub groups_lines: GroupsLines,
    /// Groups whose members are Velt admins. Without any, `is_admin` is not sent.
    pub admin_groups: Vec<String>,
    /// Groups on which resources depend.
    pub known_groups: KnownGroups,
    /// Header with the user's grants, as JSON in Velt's schema.
    pub grants: Option<HeaderName>,
    /// Values that stand for no value.
    pub placeholders: Placeholders,
}

/// Number of lines of groups that the login proxy sends for a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupsLines {
    /// One line, as of every other header about the user. A second line could be the client's, and make
    /// the client an admin.
    One,
    /// Any number of lines, such as one for each group. Guarded headers that are not read may have several
    /// lines too, since one of these headers may hold the groups.
    Several,
}

impl HeaderSource {
    pub(super) fn names(&self) -> impl Iterator<Item = &HeaderName> {
        let optional = [&self.email, &self.name, &self.organization, &self.groups, &self.grants];
        std::iter::once(&self.user).chain(optional.into_iter().flatten())
    }

    /// Reads what `headers` say of a user. A flaw of the user's id refuses the headers, and so does a value
    /// that could be read in two ways; a flaw of another attribute costs that attribute alone.
    pub(super) fn read(&self, headers: &HeaderMap) -> Result<Said, Refusal> {
        let mut reading =
            Reading { headers, placeholders: &self.placeholders, flaws: Flaws::default() };
        let Some(id) = reading.id(&self.user)? else {
            return Ok(Said::of(None, reading.flaws));
        };
        let email = reading.attribute(Attribute::Email, self.email.as_ref(), Commas::Refused)?;
        // "Lovelace, Ada" is one name.
        let name = reading.attribute(Attribute::Name, self.name.as_ref(), Commas::Allowed)?;
        let organization = self.organization.as_ref();
        let named = reading.attribute(Attribute::Organization, organization, Commas::Refused)?;
        let (is_admin, groups) = self.groups(&mut reading)?;
        let user = User {
            id: id.into(),
            email,
            name,
            organization: Organization::new(named, reading.flaws.of(Attribute::Organization)),
            is_admin,
            groups,
            grants: self.grants(&mut reading)?,
        };
        Ok(Said::of(Some(user), reading.flaws))
    }

    /// Reads the user's groups: whether one of them is an admin group, and those on which resources depend. A
    /// group with odd bytes is no admin group, and does not spoil the other groups for that.
    fn groups(&self, reading: &mut Reading<'_>) -> Result<(Option<bool>, Groups), Refusal> {
        let none = Groups::In(GroupSet::default());
        let Some(name) = &self.groups else { return Ok((None, none)) };
        // Checked even if no groups are read here: the app may join two lines, one of them the client's.
        if self.groups_lines == GroupsLines::One {
            only(reading.headers, name)?;
        }
        if self.admin_groups.is_empty() && self.known_groups.is_empty() {
            return Ok((None, none));
        }
        let (mut is_admin, mut known) = (false, GroupSet::default());
        for value in reading.headers.get_all(name) {
            let groups = String::from_utf8_lossy(value.as_bytes());
            for group in groups.split(self.groups_separator) {
                if group.contains(|c: char| c.is_control() || c == char::REPLACEMENT_CHARACTER) {
                    reading.flaws.add(Attribute::Groups, Flaw::BadBytes);
                    continue;
                }
                let group = group.trim_matches(' ');
                is_admin |= self.admin_groups.iter().any(|admin| admin == group);
                known = known.and(self.known_groups.find(group));
            }
        }
        let is_spoilt = reading.flaws.of(Attribute::Groups).is_some();
        let groups = if is_spoilt && !self.known_groups.is_empty() {
            Groups::Unusable
        } else {
            Groups::In(known)
        };
        Ok(((!self.admin_groups.is_empty()).then_some(is_admin), groups))
    }

    /// Reads the user's grants. A line without a value is no list of grants, and neither is an absent line.
    fn grants(&self, reading: &mut Reading<'_>) -> Result<Granted, Refusal> {
        let Some(name) = &self.grants else { return Ok(Granted::NotAsked) };
        let text = only(reading.headers, name)?.map_or(&[][..], HeaderValue::as_bytes).trim_ascii();
        let read = if text.is_empty() { Err(GrantsError::Absent) } else { Grants::parse(text) };
        reading.flaws.note_grants(&read);
        Ok(read.into())
    }
}

/// Rule for commas in a value: a comma is allowed, or is a sign of two values joined to one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Commas {
    Allowed,
    Refused,
}

/// The headers of one message while they are read.
struct Reading<'a> {
    headers: &'a HeaderMap,
    placeholders: &'a Placeholders,
    flaws: Flaws,
}

impl<'a> Reading<'a> {
    /// Reads the user's id. `None` if the line says nothing.
    fn id(&mut self, name: &HeaderName) -> Result<Option<&'a str>, Refusal> {
        let Some(value) = only(self.headers, name)? else { return Ok(None) };
        let refuse = |kind| Err(Refusal::ambiguous(kind, name));
        match checked(value, self.placeholders) {
            Ok(text) if text.contains(',') => refuse(RefusalKind::List),
            Ok(text) => Ok(Some(text)),
            Err(Flaw::Empty) => Ok(None),
            Err(Flaw::Placeholder) => {
                self.flaws = Flaws::placeholder();
                Ok(None)
            }
            Err(Flaw::TooLong) => refuse(RefusalKind::TooLong),
            Err(_) => refuse(RefusalKind::BadBytes),
        }
    }

    /// Reads the one line of `name`. `None` if the header is not there, or if a flaw makes it unusable.
    fn attribute(
        &mut self,
        attribute: Attribute,
        name: Option<&HeaderName>,
        commas: Commas,
    ) -> Result<Option<Box<str>>, Refusal> {
        let Some(name) = name else { return Ok(None) };
        let Some(value) = only(self.headers, name)? else { return Ok(None) };
        match checked(value, self.placeholders) {
            Ok(text) if commas == Commas::Refused && text.contains(',') => {
                Err(Refusal::ambiguous(RefusalKind::List, name))
            }
            Ok(text) if attribute == Attribute::Email && !is_address(text) => {
                self.flaws.add(attribute, Flaw::NoAddress);
                Ok(None)
            }
            Ok(text) => Ok(Some(text.into())),
            Err(flaw) => {
                self.flaws.add(attribute, flaw);
                Ok(None)
            }
        }
    }
}

/// Whether `value` says nothing of a user: it is blank, or one of `placeholders`.
pub(super) fn is_blank(value: &HeaderValue, placeholders: &Placeholders) -> bool {
    matches!(checked(value, placeholders), Err(Flaw::Empty | Flaw::Placeholder))
}

/// Returns `value` as text, or the flaw that makes it unusable. Does not normalise the text: users who differ
/// in a byte are different users.
pub(super) fn checked<'a>(
    value: &'a HeaderValue,
    placeholders: &Placeholders,
) -> Result<&'a str, Flaw> {
    let Ok(text) = std::str::from_utf8(value.as_bytes()) else {
        // Judge the length first, as `flaw` does for text: a long value is too long even if it is not text.
        let too_long = value.len() > MAX_VALUE_BYTES;
        return Err(if too_long { Flaw::TooLong } else { Flaw::BadBytes });
    };
    flaw(text, placeholders).map_or(Ok(text), Err)
}

/// Returns the one line of `name`, or `None` if the header is not there. Refuses a header of several lines.
pub(super) fn only<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> Result<Option<&'a HeaderValue>, Refusal> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (value, None) => Ok(value),
        _ => Err(Refusal::ambiguous(RefusalKind::Repeated, name)),
    }
}

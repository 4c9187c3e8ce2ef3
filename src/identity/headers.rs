//! Identity in plain headers.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::{Caller, Refusal, User, flaw};
use crate::metrics::RefusalKind;

/// Identity in plain headers that the front proxy sets.
#[derive(Clone, Debug)]
pub struct HeaderSource {
    pub user: HeaderName,
    pub email: Option<HeaderName>,
    pub name: Option<HeaderName>,
    pub organization: Option<HeaderName>,
    pub groups: Option<HeaderName>,
    /// What stands between two groups.
    pub groups_separator: char,
    /// Groups whose members are Velt admins. Without any, `is_admin` is not sent.
    pub admin_groups: Vec<String>,
}

impl HeaderSource {
    pub(super) fn names(&self) -> impl Iterator<Item = &HeaderName> {
        let optional = [&self.email, &self.name, &self.organization, &self.groups];
        std::iter::once(&self.user).chain(optional.into_iter().flatten())
    }

    pub(super) fn read(&self, headers: &HeaderMap) -> Result<Caller, Refusal> {
        let Some(id) = single(headers, &self.user, Commas::Refused)? else {
            return Ok(Caller::Anonymous);
        };
        let optional = |name: &Option<HeaderName>, commas| match name {
            Some(name) => Ok(single(headers, name, commas)?.map(Box::from)),
            None => Ok(None),
        };
        Ok(Caller::Known(User {
            id: id.into(),
            email: optional(&self.email, Commas::Refused)?,
            // "Lovelace, Ada" is one name.
            name: optional(&self.name, Commas::Allowed)?,
            organization: optional(&self.organization, Commas::Refused)?,
            is_admin: self.is_admin(headers)?,
        }))
    }

    /// Whether one of the caller's groups is an admin group. Groups are a list by nature: several
    /// lines mean more groups.
    fn is_admin(&self, headers: &HeaderMap) -> Result<Option<bool>, Refusal> {
        let Some(name) = &self.groups else { return Ok(None) };
        if self.admin_groups.is_empty() {
            return Ok(None);
        }
        let mut is_admin = false;
        for value in headers.get_all(name) {
            let groups = text(value)
                .filter(|text| !text.chars().any(char::is_control))
                .ok_or_else(|| Refusal::ambiguous(RefusalKind::BadBytes, name))?;
            is_admin |= groups.split(self.groups_separator).any(|group| {
                self.admin_groups.iter().any(|admin| admin == group.trim_matches(' '))
            });
        }
        Ok(Some(is_admin))
    }
}

/// Whether a comma may stand in a value, or is a sign of two values joined to one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Commas {
    Allowed,
    Refused,
}

/// The one value of `name`, `None` if the header is not there.
fn single<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
    commas: Commas,
) -> Result<Option<&'a str>, Refusal> {
    let Some(value) = only(headers, name)? else { return Ok(None) };
    let refuse = |kind| Err(Refusal::ambiguous(kind, name));
    let Some(text) = text(value) else {
        // Told apart by its length first, as text is.
        let too_long = value.len() > super::MAX_VALUE_BYTES;
        return refuse(if too_long { RefusalKind::TooLong } else { RefusalKind::BadBytes });
    };
    if let Some(kind) = flaw(text) {
        return refuse(kind);
    }
    if commas == Commas::Refused && text.contains(',') {
        return refuse(RefusalKind::List);
    }
    Ok(Some(text))
}

/// The one line of `name`, `None` if the header is not there.
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

/// `value` as UTF-8. No normalisation: users who differ in a byte are different users.
fn text(value: &HeaderValue) -> Option<&str> {
    std::str::from_utf8(value.as_bytes()).ok()
}

//! Answer of the app about a user: one JSON object with the user's id, name, email, organization, rights.
//!
//! The reader is strict. A wrong type, an unknown or repeated key, an empty text or a placeholder makes the
//! whole answer unusable: a part that is left out could be the part that takes a right away.

use std::fmt;

use http::uri::PathAndQuery;
use serde_json::{Map, Value};
use std::time::Duration;

use super::placeholders::Placeholders;
use super::user::{Granted, Groups, Organization, User, flaw, is_address};
use ground::grants::{Grants, GrantsError};
use ground::groups::GroupSet;
use ground::json;
use ground::metrics::{AppAnswerResult, Flaw};
use ground::user_id::UserId;

/// Longest answer that is read, in bytes.
pub const MAX_ANSWER_BYTES: usize = 16 * 1024;

/// Place at which the app tells details of a user, and the bounds of the question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DetailsSource {
    pub path: PathAndQuery,
    /// Longest time from the question to the end of the answer.
    pub timeout: Duration,
    /// Longest time for which an answer is believed.
    pub max_age: Duration,
}

/// Description of a user by the app. Absent parts, and parts that are `null`, are `None`. Has no `Debug`, so
/// that no log shows a user.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct AppAnswer {
    pub user_id: Option<UserId>,
    pub name: Option<Box<str>>,
    pub email: Option<Box<str>>,
    pub organization: Option<Box<str>>,
    pub is_admin: Option<bool>,
    pub resources: Option<Grants>,
}

/// A key of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerKey {
    UserId,
    Name,
    Email,
    OrganizationId,
    IsAdmin,
    Resources,
}

impl AnswerKey {
    const ALL: [Self; 6] = [
        Self::UserId,
        Self::Name,
        Self::Email,
        Self::OrganizationId,
        Self::IsAdmin,
        Self::Resources,
    ];

    /// Returns the key as the app writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UserId => "userId",
            Self::Name => "name",
            Self::Email => "email",
            Self::OrganizationId => "organizationId",
            Self::IsAdmin => "isAdmin",
            Self::Resources => "resources",
        }
    }
}

/// Reason why an answer is unusable. The app's fault. Names no value of the answer, and no unknown key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerFault {
    /// The answer is longer than [`MAX_ANSWER_BYTES`].
    TooLong,
    /// The answer is no JSON object in UTF-8, names a key twice, or is nested too deep.
    NotAnObject,
    /// The answer is no JSON object, and its type is HTML: most likely a login page.
    Html,
    /// The answer has a key that is none of [`AnswerKey`].
    UnknownKey,
    /// The value of this key has a type that the key does not take.
    WrongType(AnswerKey),
    /// The text of this key can't be used.
    Text(AnswerKey, Flaw),
    Resources(GrantsError),
    /// The answer is about another user than the question.
    OtherUser,
    /// The answer at `identity.app_path` says more than the user's id, and the app is not asked for details there.
    DetailsAtAppPath,
}

/// Text that completes "the app's answer can't be used: ".
impl fmt::Display for AnswerFault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => formatter.write_str("it is over 16 KiB"),
            Self::NotAnObject => formatter.write_str(
                "it is not one JSON object in UTF-8, or it names a key twice or nests too deep",
            ),
            Self::Html => formatter.write_str("it is a page in HTML: is that a login page?"),
            Self::UnknownKey => formatter.write_str(
                "it has another key than userId, name, email, organizationId, isAdmin and resources",
            ),
            Self::WrongType(key) => write!(formatter, "{} has a wrong type", key.as_str()),
            Self::Text(key, flaw) => write!(formatter, "{}: {}", key.as_str(), flaw.reason()),
            Self::Resources(error) => write!(formatter, "resources: {error}"),
            Self::OtherUser => formatter.write_str("its userId is not the user that was asked for"),
            Self::DetailsAtAppPath => formatter.write_str(
                "at identity.app_path it says more than userId: write details_path = the same path in \
                 [identity], so that every token has it",
            ),
        }
    }
}

impl std::error::Error for AnswerFault {}

impl AnswerFault {
    /// Returns the fault of an answer of type HTML in which this fault was found. Such a page may be longer than any
    /// answer.
    #[must_use]
    pub fn in_html(self) -> Self {
        match self {
            Self::NotAnObject | Self::TooLong => Self::Html,
            other => other,
        }
    }

    /// Returns the result under which the answer is counted.
    pub fn result(self) -> AppAnswerResult {
        match self {
            Self::OtherUser => AppAnswerResult::OtherUser,
            _ => AppAnswerResult::Unusable,
        }
    }
}

impl AppAnswer {
    /// Reads an answer.
    ///
    /// # Errors
    ///
    /// The first fault found. No part of an answer with a fault counts.
    pub fn parse(bytes: &[u8], placeholders: &Placeholders) -> Result<Self, AnswerFault> {
        if bytes.len() > MAX_ANSWER_BYTES {
            return Err(AnswerFault::TooLong);
        }
        let object = json::object(bytes).ok_or(AnswerFault::NotAnObject)?;
        let mut answer = Self::default();
        for (name, value) in &object {
            let key = AnswerKey::ALL.into_iter().find(|key| key.as_str() == name);
            let key = key.ok_or(AnswerFault::UnknownKey)?;
            if !value.is_null() {
                answer.set(key, value, placeholders)?;
            }
        }
        Ok(answer)
    }

    /// Whether `bytes` are a JSON object that has the key for the user, also without a value. Takes an object that
    /// names things twice too: it means to say who the user is, and [`Self::parse`] refuses it.
    pub(super) fn has_user(bytes: &[u8]) -> bool {
        let object: Option<Map<String, Value>> = serde_json::from_slice(bytes).ok();
        object.is_some_and(|object| object.contains_key(AnswerKey::UserId.as_str()))
    }

    /// Whether the answer says more than who the user is.
    pub(super) fn has_details(&self) -> bool {
        let Self { user_id: _, name, email, organization, is_admin, resources } = self;
        let texts = [name, email, organization];
        texts.into_iter().any(Option::is_some) || is_admin.is_some() || resources.is_some()
    }

    fn set(
        &mut self,
        key: AnswerKey,
        value: &Value,
        placeholders: &Placeholders,
    ) -> Result<(), AnswerFault> {
        let read_text = || text(key, value, placeholders).map(|text| Some(Box::from(text)));
        match key {
            AnswerKey::UserId => {
                // Databases number users; the digits are the id.
                let digits = whole_number(value);
                let id = match &digits {
                    Some(digits) => digits,
                    None => text(key, value, placeholders)?,
                };
                self.user_id = Some(UserId::from(id));
            }
            AnswerKey::Name => self.name = read_text()?,
            AnswerKey::Email => {
                self.email = read_text()?;
                if !self.email.as_deref().is_some_and(is_address) {
                    return Err(AnswerFault::Text(key, Flaw::NoAddress));
                }
            }
            AnswerKey::OrganizationId => self.organization = read_text()?,
            AnswerKey::IsAdmin => {
                let is_admin = value.as_bool().ok_or(AnswerFault::WrongType(key))?;
                self.is_admin = Some(is_admin);
            }
            AnswerKey::Resources => {
                let resources = Grants::from_json(value).map_err(AnswerFault::Resources)?;
                self.resources = Some(resources);
            }
        }
        Ok(())
    }

    /// Adds what the app says to the user that the identity found: a part that the app gives replaces the
    /// part that was found, and an absent part keeps it.
    ///
    /// # Errors
    ///
    /// [`AnswerFault::OtherUser`] if the answer names another user: no answer changes who the user is.
    pub fn complete(self, found: &User) -> Result<User, AnswerFault> {
        if self.user_id.as_ref().is_some_and(|id| *id != found.id) {
            return Err(AnswerFault::OtherUser);
        }
        Ok(self.over(found.clone()))
    }

    /// Makes a user of an answer that is the only source of the user. `None` if the answer names no user.
    pub fn into_user(self) -> Option<User> {
        let id = self.user_id.clone()?;
        Some(self.over(User {
            id,
            email: None,
            name: None,
            organization: Organization::Unnamed,
            is_admin: None,
            groups: Groups::In(GroupSet::default()),
            grants: Granted::NotAsked,
        }))
    }

    /// Returns `user` with the parts of this answer in place of the user's own.
    fn over(self, user: User) -> User {
        let Self { user_id: _, name, email, organization, is_admin, resources } = self;
        User {
            id: user.id,
            email: email.or(user.email),
            name: name.or(user.name),
            organization: organization.map_or(user.organization, Organization::Named),
            is_admin: is_admin.or(user.is_admin),
            groups: user.groups,
            grants: resources.map_or(user.grants, Granted::Given),
        }
    }
}

/// Reads a text by the rules for headers and claims. `null` is no text, because it never comes here.
fn text<'a>(
    key: AnswerKey,
    value: &'a Value,
    placeholders: &Placeholders,
) -> Result<&'a str, AnswerFault> {
    let text = value.as_str().ok_or(AnswerFault::WrongType(key))?;
    flaw(text, placeholders).map_or(Ok(text), |flaw| Err(AnswerFault::Text(key, flaw)))
}

/// Returns the digits of a whole number. A number beyond 64 bits is none, because JSON readers round it.
fn whole_number(value: &Value) -> Option<String> {
    match value {
        Value::Number(number) if !number.is_f64() => Some(number.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests;

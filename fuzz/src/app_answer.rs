//! Reading of the app's answer about a user, for any bytes. The input is the answer's body; the identity has found
//! the user [`USER`].

use ground::groups::GroupSet;
use ground::metrics::Flaw;
use identity::{
    AnswerFault, AppAnswer, Granted, Groups, MAX_ANSWER_BYTES, MAX_VALUE_BYTES, Organization,
    Placeholder, Placeholders, User,
};
use serde_json::{Map, Value};

const USER: &str = "ada";

const KEYS: [&str; 6] = ["userId", "name", "email", "organizationId", "isAdmin", "resources"];

/// # Panics
///
/// Panics if an answer that is used says anything else than its JSON, if it changes who the user is, or if a
/// fault repeats the answer's words.
pub fn check(input: &[u8]) {
    let words = ["null", "undefined", "{...}"].map(|word| Placeholder::parse(word).expect("one"));
    let answer = match AppAnswer::parse(input, &Placeholders::new(words)) {
        Ok(answer) => answer,
        Err(fault) => return assert_silent(fault),
    };
    assert!(input.len() <= MAX_ANSWER_BYTES, "a long answer is not read");
    let json: Map<String, Value> = serde_json::from_slice(input).expect("an object");
    assert!(json.keys().all(|key| KEYS.contains(&key.as_str())), "an unknown key was left out");
    let said = |key: &str| json.get(key).filter(|value| !value.is_null());
    for (key, text) in [
        ("name", answer.name.as_deref()),
        ("email", answer.email.as_deref()),
        ("organizationId", answer.organization.as_deref()),
    ] {
        assert_eq!(said(key), text.map(Value::from).as_ref(), "{key}");
        assert!(text.is_none_or(is_plain), "{key}");
    }
    assert!(answer.email.as_deref().is_none_or(|email| email.contains('@')));
    assert_eq!(said("isAdmin"), answer.is_admin.map(Value::from).as_ref());
    assert_eq!(said("resources").is_some(), answer.resources.is_some());
    let id = said("userId").map(|id| id.as_str().map_or_else(|| id.to_string(), str::to_owned));
    assert_eq!(id.as_deref(), answer.user_id.as_deref());
    assert!(id.as_deref().is_none_or(is_plain));
    assert_complete(answer, id.as_deref());
}

/// Checks what becomes of the user that the identity has found, if the answer names the user `id`.
fn assert_complete(answer: AppAnswer, id: Option<&str>) {
    let found = found();
    let named = answer.clone().into_user();
    assert_eq!(named.map(|user| user.id.to_string()).as_deref(), id);
    let (name, email) = (answer.name.clone(), answer.email.clone());
    match answer.complete(&found) {
        Ok(user) => {
            assert!(id.is_none_or(|id| id == USER), "another user");
            assert_eq!(user.id.as_str(), USER);
            assert_eq!(user.name, name.or(found.name));
            assert_eq!(user.email, email.or(found.email));
        }
        Err(fault) => {
            assert_eq!(fault, AnswerFault::OtherUser);
            assert!(id.is_some_and(|id| id != USER));
        }
    }
}

fn found() -> User {
    User {
        id: USER.into(),
        email: Some("ada@found.example".into()),
        name: None,
        organization: Organization::Unnamed,
        is_admin: None,
        groups: Groups::In(GroupSet::default()),
        grants: Granted::NotAsked,
    }
}

fn is_plain(text: &str) -> bool {
    let length = 1..=MAX_VALUE_BYTES;
    length.contains(&text.len()) && text.trim() == text && !text.chars().any(char::is_control)
}

/// Checks that the text of a fault is one of few: it has no word of the answer's.
fn assert_silent(fault: AnswerFault) {
    let text = fault.to_string();
    assert!(text.len() < 120, "{text}");
    if let AnswerFault::Text(key, flaw) = fault {
        assert!(flaw != Flaw::Unverified && text.starts_with(key.as_str()), "{text}");
    }
}

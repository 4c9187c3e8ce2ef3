use super::super::placeholders::Placeholder;
use super::*;

fn parse(text: &str) -> Result<AppAnswer, AnswerFault> {
    let words = ["null", "undefined", "{...}"].map(|word| Placeholder::parse(word).expect("one"));
    AppAnswer::parse(text.as_bytes(), &Placeholders::new(words))
}

fn answer(text: &str) -> AppAnswer {
    parse(text).unwrap_or_else(|fault| panic!("{text}: {fault}"))
}

fn fault(text: &str) -> Option<AnswerFault> {
    parse(text).err()
}

fn found() -> User {
    User {
        id: "ada".into(),
        email: Some("ada@found.example".into()),
        name: None,
        organization: Organization::Unusable,
        is_admin: Some(true),
        groups: Groups::In(GroupSet::default()),
        grants: Granted::Unusable(GrantsError::Absent),
    }
}

#[test]
fn app_replaces_the_parts_that_it_gives_and_no_others() {
    let whole = answer(
        r#"{"userId":"ada","name":"Lovelace, Ada","email":"a@b.example","organizationId":"o",
            "isAdmin":false,"resources":[{"type":"document","id":"d","accessRole":"viewer"}]}"#,
    );
    let Ok(user) = whole.complete(&found()) else { panic!("the same user") };
    assert_eq!(user.id.as_str(), "ada");
    assert_eq!(user.name.as_deref(), Some("Lovelace, Ada"));
    assert_eq!(user.email.as_deref(), Some("a@b.example"));
    assert_eq!((user.organization.name(), user.is_admin), (Some("o"), Some(false)));
    assert_eq!(user.grants.grants().map(|grants| grants.iter().count()), Some(1));

    let nulls = r#"{"userId":null,"name":null,"email":null,"organizationId":null,"isAdmin":null,
        "resources":null}"#;
    for nothing in ["{}", nulls] {
        let user = answer(nothing).complete(&found());
        assert!(user == Ok(found()), "{nothing}");
    }
}

#[test]
fn t67_answer_names_no_other_user_than_the_identity() {
    for other in [r#""eve""#, r#""ADA""#, r#""ada\u200b""#, "7", r#""Ada""#] {
        let answer = answer(&format!(r#"{{"userId":{other},"name":"Ada"}}"#));
        let completed = answer.complete(&found());
        assert_eq!(completed.err(), Some(AnswerFault::OtherUser), "{other}");
    }
    let escaped = answer(r#"{"userId":"\u0061da"}"#);
    assert!(escaped.complete(&found()).is_ok(), "the same bytes once read");
}

#[test]
fn whole_number_of_a_user_becomes_its_digits() {
    for (number, digits) in [("7", "7"), ("18446744073709551615", "18446744073709551615")] {
        let user = answer(&format!(r#"{{"userId":{number}}}"#)).into_user();
        assert_eq!(user.expect("a user").id.as_str(), digits);
    }
    for number in ["7.0", "1e3", "18446744073709551616"] {
        let fault = fault(&format!(r#"{{"userId":{number}}}"#));
        assert_eq!(fault, Some(AnswerFault::WrongType(AnswerKey::UserId)), "{number}");
    }
    assert!(answer(r#"{"name":"Ada"}"#).into_user().is_none());
}

#[test]
fn answer_with_a_fault_is_unusable_as_a_whole() {
    use AnswerFault::{NotAnObject, Resources, Text, TooLong, UnknownKey, WrongType};
    use AnswerKey::{Email, IsAdmin, Name, OrganizationId, UserId};
    let long = format!(r#"{{"name":"{}"}}"#, "a".repeat(257));
    let deep = format!(r#"{{"resources":{}{}}}"#, "[".repeat(200), "]".repeat(200));
    for (text, expected) in [
        ("", NotAnObject),
        ("[]", NotAnObject),
        ("null", NotAnObject),
        (r#"{"name":"a","name":"a"}"#, NotAnObject),
        (r#"{"name":"a","n\u0061me":"a"}"#, NotAnObject),
        (r#"{"name":"a"} {}"#, NotAnObject),
        (&deep, NotAnObject),
        (r#"{"user":"ada"}"#, UnknownKey),
        (r#"{"userid":"ada"}"#, UnknownKey),
        (r#"{"more":null}"#, UnknownKey),
        (r#"{"name":7}"#, WrongType(Name)),
        (r#"{"userId":["ada"]}"#, WrongType(UserId)),
        (r#"{"organizationId":7}"#, WrongType(OrganizationId)),
        (r#"{"isAdmin":"true"}"#, WrongType(IsAdmin)),
        (r#"{"isAdmin":1}"#, WrongType(IsAdmin)),
        (r#"{"userId":""}"#, Text(UserId, Flaw::Empty)),
        (r#"{"name":" "}"#, Text(Name, Flaw::Empty)),
        (r#"{"name":"a\n"}"#, Text(Name, Flaw::BadBytes)),
        (r#"{"organizationId":"undefined"}"#, Text(OrganizationId, Flaw::Placeholder)),
        (r#"{"userId":"{user}"}"#, Text(UserId, Flaw::Placeholder)),
        (r#"{"email":"ada"}"#, Text(Email, Flaw::NoAddress)),
        (&long, Text(Name, Flaw::TooLong)),
        (r#"{"resources":{}}"#, Resources(GrantsError::WrongForm)),
        (r#"{"resources":[{"type":"document"}]}"#, Resources(GrantsError::WrongForm)),
    ] {
        assert_eq!(fault(text), Some(expected), "{text}");
    }
    assert_eq!(
        AppAnswer::parse(b"{\"name\":\"\xff\"}", &Placeholders::default()).err(),
        Some(NotAnObject)
    );
    let padded = |length: usize| format!("{{}}{}", " ".repeat(length - 2));
    assert_eq!(fault(&padded(MAX_ANSWER_BYTES + 1)), Some(TooLong));
    assert!(parse(&padded(MAX_ANSWER_BYTES)).is_ok());
}

use std::time::Duration;

use super::*;
use ground::groups::GroupSet;
use identity::{Granted, Groups, Organization};

const MAX_AGE: Duration = Duration::from_secs(300);

fn details(max_age: Duration) -> Arc<AppDetails> {
    let path = "/details".parse().expect("a path");
    Arc::new(AppDetails::new(DetailsSource { path, timeout: Duration::from_secs(2), max_age }))
}

fn user(id: &str, organization: Organization) -> User {
    User {
        id: id.into(),
        email: None,
        name: None,
        organization,
        is_admin: None,
        groups: Groups::In(GroupSet::default()),
        grants: Granted::NotAsked,
    }
}

fn key(id: &str) -> Key {
    Key::new(&user(id, Organization::Unnamed), Site::with_host("a.example"))
}

/// Enters a question on the board.
fn asked(details: &Arc<AppDetails>, id: &str) -> Asked {
    match details.join(key(id), Instant::now()) {
        Joined::Own(asked) => asked,
        Joined::Other(_) => panic!("another question is under way"),
    }
}

fn refused() -> NoDetails {
    NoDetails::Refused(StatusCode::FORBIDDEN)
}

#[test]
fn answer_is_kept_for_as_long_as_its_sort_allows() {
    let minute = Duration::from_secs(60);
    for (max_age, detailed, age) in [
        (MAX_AGE, Ok(Arc::new(user("ada", Organization::Unnamed))), MAX_AGE),
        (MAX_AGE, Err(refused()), REFUSAL_MEMORY),
        (MAX_AGE, Err(NoDetails::Timeout), FAILURE_MEMORY),
        (minute, Ok(Arc::new(user("ada", Organization::Unnamed))), minute),
        (Duration::from_secs(4), Err(refused()), Duration::from_secs(4)),
    ] {
        let details = details(max_age);
        let before = Instant::now();
        let asked = asked(&details, "ada");
        assert!(details.kept(&key("ada"), before).is_none(), "not answered yet");
        asked.answer(detailed);
        assert!(details.kept(&key("ada"), before + age.mul_f64(0.999)).is_some());
        assert!(details.kept(&key("ada"), Instant::now() + age).is_none(), "{age:?}");
        assert!(details.kept(&key("eve"), before).is_none(), "for no other user");
    }
}

#[tokio::test]
async fn callers_join_the_question_under_way() {
    let details = details(MAX_AGE);
    let asked = asked(&details, "ada");
    let Joined::Other(Found::Asking(mut joined)) = details.join(key("ada"), Instant::now()) else {
        panic!("one question at a time");
    };
    asked.answer(Err(refused()));
    assert_eq!(joined.detailed().await.err(), Some(refused()));
    let Joined::Other(Found::Kept(kept)) = details.join(key("ada"), Instant::now()) else {
        panic!("the answer is kept");
    };
    assert_eq!(kept.err(), Some(refused()));
}

#[tokio::test]
async fn dropped_question_leaves_the_board() {
    let details = details(MAX_AGE);
    let first = asked(&details, "ada");
    let Joined::Other(Found::Asking(mut joined)) = details.join(key("ada"), Instant::now()) else {
        panic!("one question at a time");
    };
    drop(first);
    assert_eq!(joined.detailed().await.err(), Some(NoDetails::Broken));
    drop(asked(&details, "ada"));
    assert!(details.board().by_key.is_empty());
}

#[test]
fn questions_under_way_are_bounded() {
    let details = details(MAX_AGE);
    let questions: Vec<_> = (0..MAX_QUESTIONS).map(|n| asked(&details, &n.to_string())).collect();
    let Joined::Other(Found::Kept(crowded)) = details.join(key("ada"), Instant::now()) else {
        panic!("no more than the bound");
    };
    assert_eq!(crowded.err(), Some(NoDetails::Crowded));
    assert!(details.kept(&key("ada"), Instant::now()).is_none(), "the next caller asks again");
    drop(questions);
    drop(asked(&details, "ada"));
}

#[test]
fn answer_called_off_is_not_kept() {
    let details = details(MAX_AGE);
    let first = asked(&details, "ada");
    details.forget(Whose::User("ada"), None);
    let second = asked(&details, "ada");
    first.answer(Err(refused()));
    assert!(details.kept(&key("ada"), Instant::now()).is_none());
    second.answer(Ok(Arc::new(user("ada", Organization::Unnamed))));
    assert!(details.kept(&key("ada"), Instant::now()).is_some());
    assert!(details.board().by_key.is_empty());
}

#[test]
fn organization_is_found_in_identity_answer_and_configuration() {
    let acme = || Organization::Named("acme".into());
    let concerns = |found: Organization, said: Option<Organization>, configured: Option<&str>| {
        let key = Key::new(&user("ada", found), Site::with_host("a.example"));
        let said = said.map(|organization| user("ada", organization));
        key.concerns(Whose::Organization("acme"), said.as_ref(), configured)
    };
    assert!(concerns(acme(), Some(acme()), None));
    assert!(concerns(Organization::Unnamed, Some(acme()), None));
    assert!(concerns(Organization::Unnamed, Some(Organization::Unnamed), Some("acme")));
    assert!(concerns(Organization::Unnamed, None, None), "the answer may name it");
    assert!(!concerns(Organization::Unnamed, Some(Organization::Unnamed), Some("other")));
    assert!(!concerns(acme(), Some(Organization::Named("other".into())), None), "replaced");
}

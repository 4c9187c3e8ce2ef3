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
    key_at(id, "a.example")
}

fn key_at(id: &str, host: &str) -> Key {
    Key::new(&user(id, Organization::Unnamed), Site::with_host(host))
}

/// Enters a question on the board.
fn asked(details: &Arc<AppDetails>, id: &str) -> Asked {
    asked_at(details, id, "a.example")
}

fn asked_at(details: &Arc<AppDetails>, id: &str, host: &str) -> Asked {
    match details.join(key_at(id, host), Instant::now()) {
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

/// Enters questions about one user on the board, each for another host.
fn questions_of(details: &Arc<AppDetails>, id: &str, count: usize) -> Vec<Asked> {
    (0..count).map(|host| asked_at(details, id, &format!("{host}.example"))).collect()
}

#[test]
fn user_with_many_hosts_leaves_room_for_other_users() {
    let details = details(MAX_AGE);
    let questions = questions_of(&details, "eve", MAX_QUESTIONS_OF_USER);
    let is_crowded = |id: &str| {
        let joined = details.join(key_at(id, "more.example"), Instant::now());
        matches!(joined, Joined::Other(Found::Kept(Err(NoDetails::Crowded))))
    };
    assert!(is_crowded("eve") && !is_crowded("ada"));
    details.forget(Whose::User("eve"), None);
    assert!(is_crowded("eve"), "questions that are called off go on");
    drop(questions);
    assert!(!is_crowded("eve"));
    let board = details.board();
    assert!(board.under_way == 0 && board.by_user.is_empty() && board.by_key.is_empty());
}

#[test]
fn newest_answers_of_a_user_are_kept() {
    let details = details(MAX_AGE);
    asked(&details, "ada").answer(Err(refused()));
    let hosts: Vec<_> = (0..40).map(|host| format!("{host}.example")).collect();
    for host in &hosts {
        asked_at(&details, "eve", host).answer(Err(refused()));
    }
    let now = Instant::now();
    let kept = |host: &&String| details.kept(&key_at("eve", host), now).is_some();
    let newest: Vec<_> = hosts.iter().filter(kept).collect();
    assert_eq!(newest, hosts[40 - MAX_KEPT_OF_USER..].iter().collect::<Vec<_>>());
    assert!(details.kept(&key("ada"), now).is_some(), "for another user");
}

#[test]
fn organization_that_is_forgotten_takes_its_answers_alone() {
    let details = details(MAX_AGE);
    for (host, organization) in [("a.example", "acme"), ("o.example", "other")] {
        let said = user("ada", Organization::Named(organization.into()));
        asked_at(&details, "ada", host).answer(Ok(Arc::new(said)));
    }
    details.forget(Whose::Organization("acme"), None);
    let is_kept = |host: &str| details.kept(&key_at("ada", host), Instant::now()).is_some();
    assert_eq!((is_kept("a.example"), is_kept("o.example")), (false, true));
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

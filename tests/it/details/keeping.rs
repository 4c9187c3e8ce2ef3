//! Keeping of answers: the identity for which an answer is kept, and the time.

use std::path::Path;

use futures_util::future::join_all;
use server::config::Origin;

use super::*;
use crate::support::certificates::Folder;
use crate::support::velt::FakeVelt;
use crate::support::{API_KEY, TestSidecar, document};

#[tokio::test]
async fn fifty_requests_at_once_are_one_question() {
    let directory = Directory::default();
    directory.tell("ada", &json!({}));
    let stage = directory.stage("").await;
    let answers = join_all((0..50).map(|_| token_of(&stage, "ada"))).await;
    assert!(answers.iter().all(|answer| answer.status() == 200));
    let pages = join_all((0..50).map(|_| stage.get_as("ada", "/"))).await;
    assert!(pages.iter().all(|page| page.token().is_some()));
    assert_eq!((questions(&stage.app).len(), stage.velt.call_count()), (1, 1));
}

#[tokio::test]
async fn t67_answer_kept_for_one_user_is_never_another_users() {
    let directory = Directory::default();
    let users = ["ada", "ADA", "ada ada", "grace"];
    for user in users {
        directory.tell(user, &json!({ "email": format!("{}@a.example", user.replace(' ', "+")) }));
    }
    let stage = directory.stage("").await;
    for _ in 0..2 {
        join_all(users.map(|user| token_of(&stage, user))).await;
    }
    assert_eq!(questions(&stage.app).len(), users.len());
    assert_eq!(stage.velt.call_count(), users.len());
    for call in stage.velt.calls() {
        let email = format!("\"{}@a.example\"", call.user().replace(' ', "+"));
        assert!(call.body.to_string().contains(&email), "{}", call.user());
    }
}

#[tokio::test]
async fn t67_answer_is_kept_for_the_whole_identity() {
    let directory = Directory::default();
    directory.tell("ada", &json!({}));
    let toml = "[identity]\norganization_header = \"X-Org\"\nemail_header = \"X-Email\"\n\
        name_header = \"X-Name\"\ngroups_header = \"X-Groups\"\nadmin_groups = [\"admins\"]\n";
    let stage = directory.stage(toml).await;
    let variants: [&[(&str, &str)]; 10] = [
        &[],
        &[("x-org", "acme")],
        &[("x-org", "other")],
        &[("x-email", "ada@a.example")],
        &[("x-name", "Ada")],
        &[("x-groups", "admins")],
        &[("x-forwarded-host", "tenant.example")],
        &[("x-original-host", "tenant.example")],
        &[("x-forwarded-prefix", "/tenant")],
        &[("x-forwarded-proto", "https")],
    ];
    for _ in 0..2 {
        for headers in variants {
            let mut asking =
                stage.client().get("/api/velt/token").header("x-forwarded-user", "ada");
            for (name, value) in headers {
                asking = asking.header(name, value);
            }
            assert_eq!(asking.send().await.status(), 200);
        }
    }
    assert_eq!(questions(&stage.app).len(), variants.len());
}

#[tokio::test]
async fn old_answer_is_believed_no_longer() {
    let directory = Directory::default();
    directory.tell("ada", &json!({ "organizationId": "first" }));
    let stage = directory.stage("[identity]\ndetails_max_age = \"1ms\"\n").await;
    assert_eq!(token_of(&stage, "ada").await.status(), 200);
    directory.tell("ada", &json!({ "organizationId": "second" }));
    // More than a millisecond passes between two requests over new connections.
    tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    assert_eq!(token_of(&stage, "ada").await.status(), 200);
    assert_eq!(stage.velt.call_count(), 2, "another organization is another token");
    directory.answer("ada", 403, "");
    tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    let refused = token_of(&stage, "ada").await;
    assert_eq!((refused.status(), &*refused.code()), (403, "no_details"), "with a token cached");
}

#[tokio::test]
async fn t67_invalidation_brings_new_rights_at_once() {
    let directory = Directory::default();
    directory.tell("ada", &json!({ "organizationId": "acme" }));
    directory.tell("grace", &json!({ "organizationId": "other" }));
    let guest = json!([{ "type": "organization", "id": "acme", "accessRole": "viewer" }]);
    directory.tell("linus", &json!({})).tell("guest", &json!({ "resources": guest }));
    let stage = directory.stage("").await;
    let ask = async || {
        for user in ["ada", "grace", "linus", "guest"] {
            assert_eq!(token_of(&stage, user).await.status(), 200);
        }
        (questions(&stage.app).len(), stage.velt.call_count())
    };
    assert_eq!(ask().await, (4, 4));
    assert_eq!(ask().await, (4, 4), "all are kept");
    for (whose, count, users) in [
        (json!({ "user": "ada" }), 5, "one user"),
        (json!({ "organization": "other" }), 6, "grace's organization"),
        (json!({ "organization": "configured" }), 8, "that of users who have no other"),
        (json!({ "organization": "acme" }), 10, "ada's own, in which the guest has a right"),
        (json!({ "organization": "unknown" }), 10, "none"),
        (json!({ "everything": true }), 14, "all"),
    ] {
        invalidate(&stage, &whose).await;
        assert_eq!(ask().await, (count, count), "{users}");
    }
}

#[tokio::test]
async fn refused_user_gets_a_token_after_an_invalidation() {
    let directory = Directory::default();
    directory.answer("ada", 403, "");
    let stage = directory.stage("").await;
    assert_eq!(token_of(&stage, "ada").await.status(), 403);
    directory.tell("ada", &json!({}));
    invalidate(&stage, &json!({ "user": "ada" })).await;
    assert_eq!(token_of(&stage, "ada").await.status(), 200);
}

#[tokio::test]
async fn answer_asked_for_before_an_invalidation_is_not_kept() {
    let gate = tokio::sync::watch::Sender::new(false);
    let opened = gate.subscribe();
    let app = FakeApp::serving(move |request| {
        let mut opened = opened.clone();
        async move {
            if request.uri().path() == PATH {
                opened.wait_for(|open| *open).await.expect("the gate outlives the test");
            }
            Response::new(full("{}"))
        }
    })
    .await;
    let stage = Stage::with(app, DETAILS).await;
    let waiting = token_of(&stage, "ada");
    let invalidating = async {
        stage.app.requests_reach(1).await;
        invalidate(&stage, &json!({ "user": "ada" })).await;
        gate.send_replace(true);
    };
    let (answer, ()) = tokio::join!(waiting, invalidating);
    assert_eq!(answer.status(), 200, "who waited for it gets it");
    assert_eq!(token_of(&stage, "ada").await.status(), 200);
    assert_eq!(questions(&stage.app).len(), 2);
}

#[tokio::test]
async fn reload_of_the_identity_alone_forgets_answers() {
    let directory = Directory::default();
    directory.tell("ada", &json!({}));
    let (app, velt, folder) = (directory.app().await, FakeVelt::start().await, Folder::new());
    folder.write("key", API_KEY);
    folder.write("token", "first-token");
    let files = format!(
        "[velt]\napi_key_file = \"{}\"\nauth_token_file = \"{}\"\n",
        folder.path("key"),
        folder.path("token")
    );
    let toml = document(&app.address.to_string(), velt.address, &format!("{DETAILS}\n{files}"));
    let file = folder.write("sidecar.toml", &toml);
    let config = Origin::new(Some(Path::new(&file)), BTreeMap::new()).load();
    let config = config.unwrap_or_else(|error| panic!("{error}"));
    let (sidecar, trigger) = TestSidecar::run_reloading(config);
    let ask = async || {
        let client = Client::to(sidecar.addresses.traffic);
        let answer = client.get("/api/velt/token").header("x-forwarded-user", "ada").send().await;
        assert_eq!(answer.status(), 200, "{}", answer.text());
        questions(&app).iter().map(|question| question.target.clone()).collect::<Vec<_>>()
    };
    assert_eq!(ask().await, [PATH]);
    let toml = toml.replace("max_wait = \"10s\"", "max_wait = \"9s\"");
    folder.write("sidecar.toml", &toml);
    trigger.reload().await;
    assert_eq!(ask().await, [PATH], "kept");
    folder.write("sidecar.toml", toml.replace("velt/details\"", "velt/details?v=2\""));
    trigger.reload().await;
    assert_eq!(ask().await, [PATH, "/api/velt/details?v=2"]);
}

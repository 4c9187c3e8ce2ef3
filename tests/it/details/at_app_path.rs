//! An app that names the user itself: in a header, or in JSON at `identity.app_path`.

use super::*;
use crate::support::velt::user_of;

const APP: &str = "[identity]\nsource = \"app\"\napp_path = \"/me\"\n[velt]\napi = \"v2\"\n\
    organization = \"configured\"\n[delivery.header]\nmax_wait = \"10s\"\n";

/// Starts a sidecar before an app that answers `/me` with this body, and names `user` in a header.
async fn stage(kind: &'static str, body: &str, user: Option<&'static str>) -> Stage {
    stage_with("", kind, body, user).await
}

/// [`stage`] with more settings.
async fn stage_with(
    toml: &str,
    kind: &'static str,
    body: &str,
    user: Option<&'static str>,
) -> Stage {
    let body = body.to_owned();
    let app = FakeApp::answering(move |_| {
        let mut response = Response::new(full(body.clone()));
        response.headers_mut().insert("content-type", kind.parse().expect("a value"));
        if let Some(user) = user {
            response.headers_mut().insert("x-velt-user", user.parse().expect("a value"));
        }
        response
    })
    .await;
    Stage::with(app, &format!("{APP}{toml}")).await
}

async fn token(stage: &Stage) -> Answer {
    stage.client().get("/api/velt/token").header("cookie", "session=1").send().await
}

/// Setting by which the app's answer at `/me` has details, for every token.
const DETAILS_AT_APP_PATH: &str = "[identity]\ndetails_path = \"/me\"\n";

#[tokio::test]
async fn json_at_app_path_says_who_and_what() {
    let body = r#"{"userId":7,"email":"ada@app.example","organizationId":"acme"}"#;
    for kind in ["application/json", "Application/JSON; charset=utf-8"] {
        let stage = stage_with(DETAILS_AT_APP_PATH, kind, body, None).await;
        let answer = token(&stage).await;
        assert_eq!(user_of(answer.json()["token"].as_str().expect("a token")), "7");
        let call = stage.velt.calls()[0].body.to_string();
        assert!(call.contains("\"acme\"") && call.contains("ada@app.example"), "{call}");
        assert_eq!(answers(&stage, "used").await, 2.0, "who, and what");
    }
}

#[tokio::test]
async fn t67_details_at_app_path_are_in_every_token_or_in_none() {
    let resources = r#"[{"type":"document","id":"d","accessRole":"viewer"}]"#;
    for (key, value, sent) in [
        ("name", "\"Ada\"", "\"Ada\""),
        ("email", "\"ada@app.example\"", "\"ada@app.example\""),
        ("organizationId", "\"acme\"", "\"acme\""),
        ("isAdmin", "true", "\"isAdmin\":true"),
        ("resources", resources, "\"viewer\""),
    ] {
        let body = format!("{{\"userId\":\"ada\",\"{key}\":{value}}}");
        let both = stage_with(DETAILS_AT_APP_PATH, "application/json", &body, Some("ada")).await;
        let page = both.client().get("/").header("cookie", "session=1").send().await;
        let route = token(&both).await;
        let route = route.json()["token"].as_str().map(str::to_owned);
        assert_eq!(page.token().map(str::to_owned), route, "{key}");
        assert_eq!(both.velt.call_count(), 1, "the same token");
        assert!(both.velt.calls()[0].body.to_string().contains(sent), "{key}");

        let elsewhere = "[identity]\ndetails_path = \"/elsewhere\"\n";
        for toml in ["", elsewhere] {
            for user in [None, Some("ada")] {
                let stage = stage_with(toml, "application/json", &body, user).await;
                let route = token(&stage).await;
                assert_eq!((route.status(), &*route.code()), (502, "no_details"), "{key}");
                assert!(route.text().contains("details_path = the same path"), "{}", route.text());
                assert_eq!(stage.velt.call_count(), 0);
                assert_eq!(answers(&stage, "unusable").await, 1.0);
            }
        }
    }
}

#[tokio::test]
async fn json_with_the_user_alone_needs_no_details() {
    for body in [r#"{"userId":"ada"}"#, r#"{"userId":"ada","name":null,"resources":null}"#] {
        for user in [None, Some("ada")] {
            let stage = stage("application/json", body, user).await;
            let answer = token(&stage).await;
            assert_eq!(user_of(answer.json()["token"].as_str().expect("a token")), "ada");
            assert!(stage.velt.calls()[0].body.to_string().contains("\"configured\""));
        }
    }
}

#[tokio::test]
async fn json_beside_the_header_names_the_same_user() {
    let body = r#"{"userId":"ada"}"#;
    let same = stage("application/json", body, Some("ada")).await;
    assert_eq!(token(&same).await.status(), 200);

    let other = stage("application/json", body, Some("eve")).await;
    let answer = token(&other).await;
    assert_eq!((answer.status(), &*answer.code()), (502, "no_details"), "{}", answer.text());
    assert_eq!(answers(&other, "other_user").await, 1.0);
    assert_eq!(other.velt.call_count(), 0);
}

#[tokio::test]
async fn json_without_a_user_is_the_apps_own_affair() {
    let long = format!("{{\"more\":\"{}\"}}", "a".repeat(20_000));
    for body in [r#"{"id":1,"id":2}"#, r#"{"session":{"userId":"eve"}}"#, "[]", "oops", &long] {
        let named = stage("application/json", body, Some("ada")).await;
        assert_eq!(token(&named).await.status(), 200, "the header has named the user");
    }
    for body in ["{}", "null", r#"{"userId":null}"#, r#"{"user":"ada"}"#] {
        let unnamed = stage("application/json", body, None).await;
        let answer = token(&unnamed).await;
        assert_eq!((answer.status(), &*answer.code()), (401, "no_identity"), "{body}");
    }
    let text = stage("text/plain", r#"{"userId":"ada"}"#, None).await;
    assert_eq!(token(&text).await.status(), 401, "it does not say that it is JSON");
}

#[tokio::test]
async fn faulty_json_with_a_user_gives_no_token() {
    let long = format!("{{\"userId\":\"ada\"}}{}", " ".repeat(16 * 1024));
    for body in [r#"{"userId":"ada","role":"x"}"#, r#"{"userId":["ada"]}"#, &long] {
        let stage = stage("application/json", body, None).await;
        let answer = token(&stage).await;
        assert_eq!((answer.status(), &*answer.code()), (502, "no_details"), "{}", answer.text());
        assert_eq!(stage.velt.call_count(), 0);
    }
}

#[tokio::test]
async fn t67_json_that_names_the_user_twice_gives_no_token() {
    for body in [
        r#"{"userId":"ada","userId":"ada"}"#,
        r#"{"userId":"ada","userId":"eve"}"#,
        r#"{"userId":"eve","user\u0049d":null}"#,
        r#"{"userId":"ada","name":null,"name":null}"#,
        r#"{"userId":"ada","name":{"first":"a","first":"b"}}"#,
    ] {
        for user in [None, Some("ada")] {
            let stage = stage("application/json", body, user).await;
            let answer = token(&stage).await;
            assert_eq!((answer.status(), &*answer.code()), (502, "no_details"), "{body}");
            assert_eq!(stage.velt.call_count(), 0);
        }
    }
}

#[tokio::test]
async fn user_whom_the_app_names_has_details_too() {
    let directory = Directory::default();
    directory.tell("ada", &json!({ "userId": "ada", "organizationId": "acme" }));
    let told = directory.clone();
    let app = FakeApp::serving(move |request| {
        let mut response = told.find(&request).expect("an answer");
        let named = request.headers().contains_key("cookie");
        if named && !request.uri().path().starts_with(PATH) {
            response.headers_mut().insert("x-velt-user", "ada".parse().expect("a value"));
        }
        async move { response }
    })
    .await;
    let toml = format!("{APP}\n[identity]\ndetails_path = \"{PATH}\"\n");
    let stage = Stage::with(app, &toml).await;
    let page = stage.client().get("/").header("cookie", "session=1").send().await;
    assert_eq!(user_of(page.token().expect("a token")), "ada");
    assert_eq!(token(&stage).await.status(), 200);
    assert_eq!((questions(&stage.app).len(), stage.velt.call_count()), (1, 1));
    assert!(stage.velt.calls()[0].body.to_string().contains("\"acme\""));
    let question = &questions(&stage.app)[0];
    assert_eq!(question.header("x-velt-user"), Some("ada"));
    assert_eq!(question.header("cookie"), Some("session=1"));
    let anonymous = stage.client().get("/").send().await;
    assert_eq!((anonymous.status(), anonymous.token_status()), (200, Some("anonymous")));
}

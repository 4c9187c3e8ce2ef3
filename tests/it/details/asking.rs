//! Questions to the app, and the token that its answer brings.

use super::*;
use crate::support::ONE_WORKER;
use crate::support::issuer::{Issuer, Pen, claims};
use crate::support::velt::user_of;

#[tokio::test]
async fn answer_of_the_app_completes_the_token() {
    let directory = Directory::default();
    directory.tell(
        "ada",
        &json!({ "userId": "ada", "name": "Ada", "email": "ada@app.example", "isAdmin": true,
            "organizationId": "acme" }),
    );
    let stage = directory.stage("[identity]\nemail_header = \"X-Email\"\n").await;
    let page = stage.client().get("/").header("x-forwarded-user", "ada");
    let page = page.header("x-email", "ada@front.example").send().await;
    assert_eq!(user_of(page.token().expect("a token")), "ada");
    let body = stage.velt.calls()[0].body.to_string();
    for part in ["\"acme\"", "\"ada@app.example\"", "\"Ada\"", "\"isAdmin\":true"] {
        assert!(body.contains(part), "{part} in {body}");
    }
    assert!(!body.contains("front.example") && !body.contains("configured"), "{body}");
    assert_eq!(answers(&stage, "used").await, 1.0);
}

#[tokio::test]
async fn app_with_nothing_to_add_leaves_the_identity_as_it_is() {
    let directory = Directory::default();
    directory.answer("ada", 204, "").tell("grace", &json!({}));
    let stage = directory.stage("[identity]\nemail_header = \"X-Email\"\n").await;
    for user in ["ada", "grace"] {
        let asking = stage.client().get("/api/velt/token").header("x-forwarded-user", user);
        let answer = asking.header("x-email", format!("{user}@front.example")).send().await;
        assert_eq!(answer.status(), 200, "{}", answer.text());
    }
    for call in stage.velt.calls() {
        assert!(call.body.to_string().contains(&format!("{}@front.example", call.user())));
    }
    assert_eq!((answers(&stage, "empty").await, answers(&stage, "used").await), (1.0, 1.0));
}

/// Returns a resource in Velt's schema.
fn resource(kind: &str, id: &str, role: &str) -> Value {
    json!({ "type": kind, "id": id, "accessRole": role })
}

#[tokio::test]
async fn resources_of_the_answer_are_the_rights_of_the_token() {
    let directory = Directory::default();
    let viewer = [resource("document", "plan", "viewer"), resource("folder", "f", "editor")];
    directory.tell("ada", &json!({ "organizationId": "acme", "resources": viewer }));
    directory.tell("grace", &json!({ "resources": [] })).tell("linus", &json!({}));
    let toml = "[identity]\ngrants_header = \"X-Grants\"\n";
    let stage = directory.stage(toml).await;
    for user in ["ada", "grace", "linus"] {
        let asking = stage.client().get("/api/velt/token").header("x-forwarded-user", user);
        let front = json!([resource("document", "of-the-front", "editor")]).to_string();
        let answer = asking.header("x-grants", front).send().await;
        assert_eq!(answer.status(), 200, "{}", answer.text());
    }
    let calls = stage.velt.calls();
    let sent = |user: &str| {
        let call = calls.iter().find(|call| call.user() == user).expect("a call");
        call.body["data"]["permissions"].to_string()
    };
    assert!(
        sent("ada").contains("\"plan\"") && sent("ada").contains("\"viewer\""),
        "{}",
        sent("ada")
    );
    assert!(!sent("ada").contains("of-the-front"), "the app's list replaces the front's");
    assert!(!sent("grace").contains("document"), "an empty list takes rights away");
    assert!(sent("linus").contains("of-the-front"), "no list leaves the front's");
}

#[tokio::test]
async fn resources_that_the_api_does_not_send_give_no_token() {
    let directory = Directory::default();
    directory.tell("ada", &json!({ "resources": [resource("document", "plan", "viewer")] }));
    directory.tell("grace", &json!({ "isAdmin": false }));
    let app = directory.app().await;
    let toml = DETAILS.replace("api = \"v2\"\norganization = \"configured\"\n", "");
    let stage = Stage::with(app, &toml).await;
    let page = stage.get_as("ada", "/").await;
    assert_eq!((page.status(), page.token_status()), (200, Some("no-grants")));
    let route = token_of(&stage, "ada").await;
    assert_eq!((route.status(), &*route.code()), (403, "no_grants"), "{}", route.text());
    assert_eq!(stage.velt.call_count(), 0);
    assert_eq!(token_of(&stage, "grace").await.status(), 200);
}

#[tokio::test]
async fn question_has_cookies_host_and_the_user_alone() {
    let directory = Directory::default();
    directory.tell("ada", &json!({}));
    let stage = directory.stage(ONE_WORKER).await;
    let ask = |host: &str| {
        let sending =
            stage.client().post("/api/velt/token", "{}").header("x-forwarded-user", "ada");
        let sending = sending.header("cookie", "a=b").header("cookie", "c=d");
        let sending = sending.without("host").header("host", host);
        sending
            .header("authorization", "Basic x")
            .header("x-other", "1")
            .header("origin", "http://a")
    };
    assert_eq!(ask("one.example").send().await.status(), 200);
    assert_eq!(ask("two.example").send_http2().await.status(), 200);
    let questions = questions(&stage.app);
    let forwarding = ["x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"];
    for (question, host) in questions.iter().zip(["one.example", "two.example"]) {
        assert_eq!((question.method.as_str(), &*question.target), ("GET", PATH));
        let mut names: Vec<_> = question.headers.keys().map(http::HeaderName::as_str).collect();
        names.sort_unstable();
        let own = ["accept", "cookie", "host"];
        assert_eq!(names, [&own[..], &forwarding, &["x-velt-user"]].concat());
        assert_eq!(question.header("accept"), Some("application/json"));
        assert_eq!(question.header("host"), Some(host));
        assert_eq!(question.header("x-velt-user"), Some("ada"));
    }
    assert_eq!(questions.len(), 2, "the app may tell its tenants apart by the host");
    assert_eq!(stage.app.connection_count(), 1, "the connection is used again");
}

#[tokio::test]
async fn assertion_in_authorization_reaches_the_question() {
    let pen = Pen::es256("one");
    let issuer = Issuer::publishing(&[&pen]).await;
    let directory = Directory::default();
    directory.tell("ada", &json!({}));
    let assertion = format!("Bearer {}", pen.sign(&claims("ada")));
    for (header, expected) in [("Authorization", Some(&*assertion)), ("X-Assertion", None)] {
        let toml = issuer.toml().replace("\"X-Assertion\"", &format!("{header:?}"));
        let stage = directory.stage(&toml).await;
        let mut asking = stage.client().get("/api/velt/token").header("authorization", &assertion);
        if expected.is_none() {
            asking = asking.header("x-assertion", pen.sign(&claims("ada")));
        }
        let answer = asking.header("cookie", "a=b").send().await;
        assert_eq!(answer.status(), 200, "{}", answer.text());
        let question = &questions(&stage.app)[0];
        assert_eq!(question.header("authorization"), expected, "{header}");
        assert_eq!(question.header("x-assertion"), None);
        assert_eq!(question.header("x-velt-user"), Some("ada"));
    }
}

#[tokio::test]
async fn word_of_a_trusted_front_reaches_the_question() {
    let directory = Directory::default();
    directory.tell("ada", &json!({}));
    let stage = directory.stage("").await;
    let asking = stage.client().get("/api/velt/token").header("x-forwarded-user", "ada");
    let asking =
        asking.header("x-forwarded-proto", "https").header("x-forwarded-host", "a.example");
    assert_eq!(asking.header("x-forwarded-for", "192.0.2.7").send().await.status(), 200);
    let question = &questions(&stage.app)[0];
    assert_eq!(question.header("x-forwarded-proto"), Some("https"));
    assert_eq!(question.header("x-forwarded-host"), Some("a.example"));
    assert!(question.header("x-forwarded-for").expect("one").starts_with("192.0.2.7"));
}

#[tokio::test]
async fn t67_client_never_says_whom_the_app_is_asked_about() {
    let directory = Directory::default();
    directory.tell("ada", &json!({})).tell("eve", &json!({ "isAdmin": true }));
    let stage = directory.stage("").await;
    for name in ["x-velt-user", "X_Velt_User", "x-velt_user"] {
        for path in ["/", "/api/velt/token", PATH] {
            let sending = stage.client().get(path).header("x-forwarded-user", "ada");
            sending.header(name, "eve").send().await;
        }
    }
    for arrived in stage.app.journal() {
        let mut asked = arrived.headers.iter().filter(|(name, _)| name.as_str().contains("velt"));
        assert!(asked.all(|(_, value)| value == "ada"), "{}", arrived.target);
    }
    let spoofs = stage.metric("spoof_attempts_total{kind=\"token_header\"}").await;
    assert_eq!(spoofs, 9.0, "each copy is removed and counted");
    assert_eq!(stage.velt.calls_by_user().keys().collect::<Vec<_>>(), ["ada"]);
}

#[tokio::test]
async fn anonymous_request_asks_the_app_nothing() {
    let directory = Directory::default();
    let stage = directory.stage("").await;
    let page = stage.client().get("/").send().await;
    assert_eq!((page.status(), page.token_status()), (200, Some("anonymous")));
    assert_eq!(stage.client().get("/api/velt/token").send().await.status(), 401);
    assert_eq!(questions(&stage.app).len(), 0);
}

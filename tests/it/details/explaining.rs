//! Explanations of details: whether the app is asked, what it has answered, and the setting.

use server::explain::{Asked, Report};

use super::*;

/// Asks the sidecar to explain a request of `user` to the token route.
async fn explained(stage: &Stage, user: &str) -> Report {
    explained_at(stage, user, "app.example").await
}

/// Asks for an explanation of a request to this host, or to none if `host` is empty.
async fn explained_at(stage: &Stage, user: &str, host: &str) -> Report {
    let mut headers = vec![("x-forwarded-user".into(), user.into())];
    if !host.is_empty() {
        headers.push(("host".into(), host.into()));
    }
    let asked = Asked { target: "/api/velt/token".into(), headers, ..Asked::default() };
    let call = Client::to(stage.sidecar.addresses.admin)
        .post("/explain", serde_json::to_string(&asked).expect("JSON"))
        .header("content-type", "application/json");
    let answer = call.without("host").header("host", "127.0.0.1").send().await;
    assert_eq!(answer.status(), 200, "{}", answer.text());
    serde_json::from_slice(answer.body()).expect("a report")
}

/// Returns verdict, reason and settings of the step about details.
fn details(report: &Report) -> String {
    let step = report.steps.iter().find(|step| step.step == "details").expect("a step");
    let settings: Vec<_> = step.settings.iter().map(|setting| setting.key.as_str()).collect();
    format!("{}; {}; {}", step.verdict, step.why, settings.join(" "))
}

#[tokio::test]
async fn explain_says_what_the_app_has_told() {
    let directory = Directory::default();
    directory.tell("ada", &json!({ "organizationId": "acme" })).answer("eve", 403, "");
    let stage = directory.stage("").await;
    let before = explained(&stage, "ada").await;
    let said = details(&before);
    assert!(said.starts_with("asked for; no answer about this user is kept"), "{said}");
    assert!(said.ends_with("identity.details_path identity.details_max_age"), "{said}");
    assert_eq!(before.answer.outcome, "token_served", "if the app tells");
    assert_eq!(stage.app.journal().len(), 0, "explain asks no server");

    assert_eq!(token_of(&stage, "ada").await.status(), 200);
    let after = explained(&stage, "ada").await;
    let said = details(&after);
    assert!(
        said.starts_with("user \"ada\", organization \"acme\"; the app has answered"),
        "{said}"
    );
    let token = after.steps.last().expect("steps");
    assert!(token.verdict.starts_with("cached") && token.why.contains("acme"), "{after}");

    assert_eq!(details(&explained_at(&stage, "ada", "").await), said, "an answer for any host");
    let other = details(&explained_at(&stage, "ada", "other.example").await);
    assert!(other.starts_with("asked for"), "{other}");

    let refused = token_of(&stage, "eve").await;
    let report = explained(&stage, "eve").await;
    assert!(details(&report).starts_with("none: the app gives this user none"), "{report}");
    assert_eq!(report.answer.status, refused.status());
    assert_eq!(report.answer.code.as_deref(), Some(&*refused.code()));
    let advice = report.answer.advice.expect("advice");
    assert!(advice.contains("invalidate --user"), "{advice}");
}

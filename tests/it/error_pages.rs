//! Errors as a page where a browser loads one, and as JSON for scripts and programs.

use std::time::Duration;

use crate::support::Stage;
use crate::support::app::FakeApp;
use crate::support::client::{Answer, Sending};
use crate::support::raw::unused_address;
use crate::support::velt::FakeVelt;
use crate::support::{TestSidecar, client::Client};

const BROWSER: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";

fn load(client: &Client, path: &str) -> Sending {
    client.get(path).header("accept", BROWSER).header("sec-fetch-dest", "document")
}

/// Asserts that the answer is a page with this status, that says `code`, and has no script.
fn assert_page(answer: &Answer, status: u16, code: &str) {
    let text = answer.text();
    assert_eq!(answer.status(), status, "{text}");
    assert_eq!(answer.header("content-type"), Some("text/html; charset=utf-8"));
    assert!(text.contains(&format!("<code>{code}</code>")), "{text}");
    assert!(text.starts_with("<!doctype html>") && !text.contains("<script"), "{text}");
    let policy = answer.header("content-security-policy").expect("a policy");
    assert!(policy.starts_with("default-src 'none'"), "{policy}");
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(answer.header("vary"), Some("*"));
}

#[tokio::test]
async fn person_who_loads_a_page_of_an_app_that_is_down_gets_a_page() {
    let velt = FakeVelt::start().await;
    let sidecar = TestSidecar::start(&unused_address().await.to_string(), velt.address, "");
    let client = Client::to(sidecar.addresses.traffic);
    let page = load(&client, "/").send().await;
    assert_page(&page, 502, "app_unreachable");
    assert!(page.text().contains("load this page again"), "{}", page.text());
    // Old browsers send no Fetch Metadata.
    assert_page(&client.get("/").header("accept", BROWSER).send().await, 502, "app_unreachable");
    let framed = client.get("/").header("accept", BROWSER).header("sec-fetch-dest", "iframe");
    assert_page(&framed.send().await, 502, "app_unreachable");
    let over_http2 = load(&client, "/").send_http2().await;
    assert_page(&over_http2, 502, "app_unreachable");
    // The length of HEAD is that of the page.
    let head = client.request(http::Method::HEAD, "/").header("accept", BROWSER).send().await;
    assert_eq!(head.header("content-length"), page.header("content-length"));

    for (accept, dest) in [
        ("*/*", ""),
        ("application/json", ""),
        (BROWSER, "empty"),
        ("*/*", "empty"),
        ("*/*", "document"),
        ("text/html, application/json", ""),
    ] {
        let asking = client.get("/api").header("accept", accept);
        let asking = if dest.is_empty() { asking } else { asking.header("sec-fetch-dest", dest) };
        let answer = asking.send().await;
        assert_eq!((answer.status(), &*answer.code()), (502, "app_unreachable"), "{accept} {dest}");
    }
    assert_eq!(client.get("/").send().await.code(), "app_unreachable");
}

#[tokio::test]
async fn page_says_what_to_do_for_each_kind_of_error() {
    let (_gate, app) = FakeApp::gated().await;
    let settings = "[app]\nresponse_timeout = \"200ms\"\n[identity]\nrequire_on = [\"/closed\"]\n";
    let stage = Stage::with(app, settings).await;
    assert_page(&load(&stage.client(), "/").send().await, 504, "app_timeout");
    let closed = load(&stage.client(), "/closed").send().await;
    assert_page(&closed, 401, "no_identity");
    assert!(closed.header("www-authenticate").is_some());
    assert!(closed.text().contains("Sign in, then"), "{}", closed.text());
    let twice = load(&stage.client(), "/").header("x-forwarded-user", "ada,grace");
    assert_page(&twice.send().await, 400, "ambiguous_identity");
}

#[tokio::test]
async fn page_of_a_refused_token_says_when_to_come_back() {
    let settings = "[delivery.header]\non_failure = \"refuse\"\nmax_wait = \"2s\"\n";
    let stage = Stage::set(settings).await;
    stage.velt.answer_with(503, "");
    // A request that could carry the token, from a browser without Fetch Metadata.
    let loading = stage.client().get("/").header("accept", BROWSER);
    let answer = loading.header("x-forwarded-user", "ada").send().await;
    let retry: u64 = answer.header("retry-after").expect("a time").parse().expect("seconds");
    assert!(Duration::from_secs(retry) >= Duration::from_secs(1));
    assert!(matches!(answer.status(), 503 | 504), "{}", answer.text());
    assert!(answer.text().contains("load this page again"), "{}", answer.text());
}

#[tokio::test]
async fn token_route_answers_json_also_to_a_person() {
    let stage = Stage::set("").await;
    let answer = load(&stage.client(), "/api/velt/token").send().await;
    assert_eq!((answer.status(), &*answer.code()), (401, "no_identity"));
}

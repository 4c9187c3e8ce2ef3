//! Tokens with the load of a page: to the app, in headers of the request, and to the page's own scripts, in
//! `Server-Timing`.

use std::time::Duration;

use http::{Method, Response};
use tokio::time::Instant;

use crate::support::Stage;
use crate::support::app::{AppBody, Arrived, FakeApp, full, plain};
use crate::support::client::{Answer, Sending};
use crate::support::velt::user_of;

const TO_APP: &str = "[delivery.app_header]\npaths = [\"/page\", \"/docs/*\"]\n";
const DOCUMENT: &str = "[delivery.document]\npaths = [\"/page\"]\nmax_wait = \"200ms\"\n";
const PRIVATE: Option<&str> = Some("private, no-store");

/// Makes the app's page, with these headers.
fn page(lines: &[(&'static str, &'static str)]) -> Response<AppBody> {
    let mut response = Response::builder().header("content-type", "text/html");
    for (name, value) in lines {
        response = response.header(*name, *value);
    }
    response.body(full("<p>page</p>")).expect("a response")
}

/// Begins the load of a page as a browser does.
fn load(stage: &Stage, path: &str) -> Sending {
    let sending = stage.client().get(path).header("sec-fetch-dest", "document");
    sending.header("sec-fetch-mode", "navigate").header("accept", "text/html")
}

/// Returns the user of the token that the app was given, and the status.
fn told(arrived: &Arrived) -> (Option<String>, Option<&str>) {
    (arrived.header("x-velt-token").map(user_of), arrived.header("x-velt-token-status"))
}

/// Returns the description of a metric in `Server-Timing`.
fn timing<'a>(answer: &'a Answer, name: &str) -> Option<&'a str> {
    let lines = answer.headers().get_all("server-timing").iter();
    let mut lines = lines.map(|line| line.to_str().expect("visible ASCII"));
    lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(";desc=\"")?.strip_suffix('"'))
}

#[tokio::test]
async fn app_gets_the_token_on_the_named_paths_only() {
    let stage = Stage::set(TO_APP).await;
    for (path, given) in [("/page", true), ("/docs/a", true), ("/pages", false), ("/api/me", false)]
    {
        let sent = load(&stage, path).header("x-forwarded-user", "ada").send().await;
        assert_eq!(sent.status(), 200);
        let arrived = stage.app.journal().pop().expect("a request");
        assert_eq!(told(&arrived).0.as_deref(), given.then_some("ada"), "{path}");
        assert_eq!(told(&arrived).1, None, "{path}");
        // A page load itself can't be read by a script.
        assert_eq!((sent.token(), sent.token_status()), (None, None), "{path}");
    }
    assert_eq!(stage.metric("app_header_deliveries_total{result=\"injected\"}").await, 2.0);
}

#[tokio::test]
async fn t69_client_can_not_forge_the_apps_token_header() {
    let stage = Stage::set(TO_APP).await;
    for (path, user) in [("/page", "ada"), ("/page", ""), ("/other", "ada"), ("/other", "")] {
        for forged in ["x-velt-token", "x-velt-token-status"] {
            let sending =
                load(&stage, path).header(forged, "forged").header("x-forwarded-user", user);
            let answer = sending.send().await;
            assert_eq!(answer.status(), 200, "{path} {user} {forged}");
            let arrived = stage.app.journal().pop().expect("a request");
            for name in ["x-velt-token", "x-velt-token-status"] {
                assert_ne!(arrived.header(name), Some("forged"), "{path} {user} {forged}");
            }
        }
    }
    // A client that calls the header one of the connection alone does not take it from the app.
    let sending = load(&stage, "/page").header("x-forwarded-user", "ada");
    let answer = sending.header("connection", "x-velt-token").send().await;
    let arrived = stage.app.journal().pop().expect("a request");
    assert!(answer.status() == 400 || told(&arrived).0.as_deref() == Some("ada"));
}

#[tokio::test]
async fn t69_configured_names_are_removed_also_while_no_path_is_named() {
    let names = "[delivery.app_header]\nname = \"X-Page-Token\"\nstatus_name = \"X-Page-Status\"\n";
    let stage = Stage::set(names).await;
    for name in ["x-page-token", "X_Page_Token", "x-page-status"] {
        let sending = load(&stage, "/page").header("x-forwarded-user", "ada");
        assert_eq!(sending.header(name, "forged").send().await.status(), 200);
        let arrived = stage.app.journal().pop().expect("a request");
        assert!(!format!("{:?}", arrived.headers).contains("forged"), "{name}: {arrived:?}");
    }
}

#[tokio::test]
async fn t69_page_with_a_token_in_it_is_kept_by_no_cache() {
    let app = FakeApp::answering(|_| {
        page(&[
            ("cache-control", "public, max-age=600"),
            ("expires", "Thu, 01 Jan 2099 00:00:00 GMT"),
            ("cdn-cache-control", "max-age=600"),
            ("surrogate-control", "max-age=600"),
            ("x-accel-expires", "600"),
            ("etag", "\"1\""),
        ])
    })
    .await;
    let stage = Stage::with(app, TO_APP).await;
    let known = load(&stage, "/page").header("x-forwarded-user", "ada").send().await;
    assert_eq!(known.header("cache-control"), PRIVATE);
    for name in ["expires", "cdn-cache-control", "surrogate-control", "x-accel-expires"] {
        assert_eq!(known.header(name), None, "{name}");
    }
    // An anonymous page is the app's to cache, and so is a page on another path.
    for answer in [
        load(&stage, "/page").send().await,
        load(&stage, "/other").header("x-forwarded-user", "ada").send().await,
    ] {
        assert_eq!(answer.header("cache-control"), Some("public, max-age=600"));
        assert_eq!(answer.header("cdn-cache-control"), Some("max-age=600"));
    }
}

#[tokio::test]
async fn page_with_a_token_is_requested_unconditionally() {
    let stage = Stage::set(TO_APP).await;
    for (path, user, expected) in
        [("/page", "ada", None), ("/page", "", Some("\"1\"")), ("/other", "ada", Some("\"1\""))]
    {
        let sending = load(&stage, path).header("x-forwarded-user", user);
        let sending = sending.header("if-none-match", "\"1\"");
        sending.header("if-modified-since", "Thu, 01 Jan 2026 00:00:00 GMT").send().await;
        let arrived = stage.app.journal().pop().expect("a request");
        assert_eq!(arrived.header("if-none-match"), expected, "{path} {user}");
        let since = arrived.header("if-modified-since");
        assert_eq!(since.is_some(), expected.is_some(), "{path} {user}");
    }
}

#[tokio::test]
async fn slow_mint_holds_a_page_back_for_max_wait_only() {
    let stage = Stage::set(TO_APP).await;
    let grace = load(&stage, "/page").header("x-forwarded-user", "grace").send().await;
    assert_eq!(grace.status(), 200);
    stage.velt.close_gate();
    let begun = Instant::now();
    let answer = load(&stage, "/page").header("x-forwarded-user", "ada").send().await;
    assert!(begun.elapsed() >= Duration::from_millis(250));
    let arrived = stage.app.journal().pop().expect("a request");
    assert_eq!(told(&arrived), (None, Some("pending")));
    assert_eq!(answer.header("cache-control"), PRIVATE, "the next page may have the token");
    // Another user's page has its token meanwhile.
    load(&stage, "/page").header("x-forwarded-user", "grace").send().await;
    let arrived = stage.app.journal().pop().expect("a request");
    assert_eq!(told(&arrived).0.as_deref(), Some("grace"));
    stage.velt.open_gate();
    let token = stage.get_as("ada", "/api/velt/token").await.json()["token"].clone();
    load(&stage, "/page").header("x-forwarded-user", "ada").send().await;
    let arrived = stage.app.journal().pop().expect("a request");
    assert_eq!(arrived.header("x-velt-token"), token.as_str());
    assert_eq!(stage.velt.call_count(), 2);
}

#[tokio::test]
async fn app_is_told_why_there_is_no_token() {
    let stage = Stage::set(TO_APP).await;
    stage.velt.answer_with(503, "");
    let answer = load(&stage, "/page").send().await;
    assert_eq!(told(&stage.app.journal().pop().expect("a request")), (None, Some("anonymous")));
    assert_eq!(answer.header("cache-control"), None, "the app decides");
    // Until Velt's refusal is remembered, the mint is still under way.
    stage.get_as("ada", "/api/velt/token").await;
    load(&stage, "/page").header("x-forwarded-user", "ada").send().await;
    let arrived = stage.app.journal().pop().expect("a request");
    assert!(matches!(told(&arrived), (None, Some("unavailable" | "pending"))), "{arrived:?}");
    assert_eq!(stage.metric("app_header_deliveries_total{result=\"anonymous\"}").await, 1.0);
}

#[tokio::test]
async fn prefetches_and_images_get_no_token() {
    let stage = Stage::set(TO_APP).await;
    let as_ada = |sending: Sending| sending.header("x-forwarded-user", "ada").send();
    as_ada(load(&stage, "/page").header("sec-purpose", "prefetch")).await;
    for dest in ["image", "script", "style", "font", "object"] {
        as_ada(stage.client().get("/docs/a").header("sec-fetch-dest", dest)).await;
    }
    as_ada(stage.client().request(Method::OPTIONS, "/page")).await;
    assert!(stage.app.journal().iter().all(|arrived| told(arrived) == (None, None)));
    for dest in ["empty", "iframe"] {
        as_ada(stage.client().get("/page").header("sec-fetch-dest", dest)).await;
        let arrived = stage.app.journal().pop().expect("a request");
        assert_eq!(told(&arrived).0.as_deref(), Some("ada"), "{dest}");
    }
}

#[tokio::test]
async fn fetched_page_has_the_token_both_ways() {
    let stage = Stage::set(TO_APP).await;
    let answer = stage.client().get("/page").header("sec-fetch-dest", "empty");
    let answer = answer.header("x-forwarded-user", "ada").send().await;
    let arrived = stage.app.only();
    assert_eq!(answer.token(), arrived.header("x-velt-token"));
    assert!(answer.token().is_some());
    assert_eq!(stage.velt.call_count(), 1);
}

/// An app that names the user of a cookie at `/session`, and stands still there for "slow".
async fn app_with_sessions() -> FakeApp {
    FakeApp::serving(|request| async move {
        let cookie = request.headers().get("cookie").and_then(|cookie| cookie.to_str().ok());
        let user = cookie.and_then(|cookie| cookie.strip_prefix("session=")).unwrap_or_default();
        let asked = request.uri().path() == "/session";
        if asked && user == "slow" {
            std::future::pending::<()>().await;
        }
        let mut response = plain("page");
        if asked && !user.is_empty() {
            let user = user.parse().expect("a header value");
            response.headers_mut().insert("x-velt-user", user);
        }
        response
    })
    .await
}

#[tokio::test]
async fn app_that_knows_its_users_is_asked_before_its_page() {
    let settings = "[identity]\nsource = \"app\"\napp_path = \"/session\"\n";
    let stage = Stage::with(app_with_sessions().await, &format!("{settings}{TO_APP}")).await;
    for (cookie, expected) in [
        ("session=ada", (Some("ada"), None)),
        ("session=grace", (Some("grace"), None)),
        ("other=1", (None, Some("anonymous"))),
        ("session=slow", (None, Some("pending"))),
        ("session=ada", (Some("ada"), None)),
    ] {
        // A first mint may take longer than a page waits.
        load(&stage, "/page").header("cookie", cookie).send().await;
        let page = load(&stage, "/page").header("cookie", cookie).send().await;
        assert_eq!((page.status(), page.text().as_str()), (200, "page"), "{cookie}");
        let arrived = stage.app.journal().pop().expect("a request");
        let (user, status) = told(&arrived);
        assert_eq!((user.as_deref(), status), expected, "{cookie}");
    }
}

#[tokio::test]
async fn scripts_of_a_document_read_the_token_in_its_timings() {
    let stage = Stage::set(DOCUMENT).await;
    let token = stage.get_as("ada", "/api/velt/token").await.json()["token"].clone();
    let ada = load(&stage, "/page").header("x-forwarded-user", "ada").send().await;
    assert_eq!(timing(&ada, "velt-token"), token.as_str());
    assert_eq!((ada.header("cache-control"), ada.token()), (PRIVATE, None));

    let anonymous = load(&stage, "/page").send().await;
    assert_eq!(timing(&anonymous, "velt-token-status"), Some("anonymous"));
    assert_eq!(anonymous.header("cache-control"), None);

    let other = load(&stage, "/other").header("x-forwarded-user", "ada").send().await;
    assert_eq!(other.header("server-timing"), None);
    assert_eq!(stage.metric("document_deliveries_total{result=\"injected\"}").await, 1.0);
    assert_eq!(stage.metric("document_deliveries_total{result=\"anonymous\"}").await, 1.0);
}

#[tokio::test]
async fn t69_only_a_top_level_document_has_the_token() {
    let stage = Stage::set(DOCUMENT).await;
    let as_ada = |sending: Sending| sending.header("x-forwarded-user", "ada").send();
    for dest in ["iframe", "frame", "object", "embed", "empty", "image"] {
        let answer = as_ada(stage.client().get("/page").header("sec-fetch-dest", dest)).await;
        assert_eq!(answer.header("server-timing"), None, "{dest}");
    }
    assert_eq!(as_ada(stage.client().get("/page")).await.header("server-timing"), None);
    let ahead = load(&stage, "/page").header("sec-purpose", "prefetch;prerender");
    assert_eq!(as_ada(ahead).await.header("server-timing"), None);
}

#[tokio::test]
async fn t69_timings_of_others_and_of_caches_carry_no_token() {
    let app = FakeApp::answering(|arrived| match arrived.target.as_str() {
        "/page?shared" => page(&[("timing-allow-origin", "*")]),
        "/page?sandboxed" => page(&[("content-security-policy", "sandbox allow-scripts")]),
        "/page?stored" => page(&[("cache-control", "max-age=60")]),
        "/page?gone" => {
            let mut response = page(&[]);
            *response.status_mut() = http::StatusCode::NOT_FOUND;
            response
        }
        _ => page(&[
            ("server-timing", "db;dur=5"),
            ("server-timing", "x, velt-token y;desc=\"forged\""),
        ]),
    })
    .await;
    let stage = Stage::with(app, DOCUMENT).await;
    for (path, result, counted) in [
        ("/page?shared", "shared", 1.0),
        ("/page?sandboxed", "shared", 2.0),
        ("/page?stored", "storable", 1.0),
        ("/page?gone", "not_eligible", 1.0),
    ] {
        let answer = load(&stage, path).header("x-forwarded-user", "ada").send().await;
        assert_eq!(answer.header("server-timing"), None, "{path}");
        let series = format!("document_deliveries_total{{result=\"{result}\"}}");
        assert_eq!(stage.metric(&series).await, counted, "{path}");
    }
    for path in ["/page?forged", "/other"] {
        let answer = load(&stage, path).send().await;
        let lines = answer.headers().get_all("server-timing").iter();
        let lines: Vec<_> = lines.map(|line| line.to_str().expect("visible ASCII")).collect();
        assert_eq!(lines.last(), Some(&"db;dur=5"), "{path}");
        assert!(!lines.concat().contains("forged"), "{path}");
    }
}

#[tokio::test]
async fn document_waits_for_its_own_max_wait() {
    let stage = Stage::set(DOCUMENT).await;
    stage.velt.close_gate();
    let begun = Instant::now();
    let pending = load(&stage, "/page").header("x-forwarded-user", "ada").send().await;
    assert_eq!(timing(&pending, "velt-token-status"), Some("pending"));
    assert_eq!(pending.header("cache-control"), PRIVATE);
    assert!(begun.elapsed() >= Duration::from_millis(200));
    stage.velt.open_gate();
}

//! The first render: a token that comes with the document itself, what that does to the back/forward cache, and
//! a document that the app can't give.

use serde_json::{Value, json};

use super::site::{APP, Site, hears_of_sign_out};
use crate::neighbour::eventually;
use crate::webdriver::{Browser, Page};

in_each_browser!(
    document_carries_the_token_to_its_scripts,
    app_renders_the_token_into_its_page,
    going_back_after_sign_out_shows_no_token,
    cacheable_page_gets_no_token_after_sign_out,
    navigation_gets_a_page_when_the_app_is_down,
);

/// Opt-in of the document, and of the app's request header.
const DOCUMENT: (&str, &str) = ("DELIVERY__DOCUMENT__PATHS", "/");
const APP_HEADER: (&str, &str) = ("DELIVERY__APP_HEADER__PATHS", "/rendered");

/// Returns names and descriptions of the document's `Server-Timing`, as the page's scripts see them.
async fn timings(page: &Page) -> Value {
    page.script(
        "const [document] = performance.getEntriesByType('navigation');\
         return (document.serverTiming ?? []).map(({ name, description }) => [name, description])",
    )
    .await
}

async fn document_carries_the_token_to_its_scripts(browser: Browser) {
    let site = Site::open(&[DOCUMENT]).await;
    site.visit(browser, "document", async |page| {
        let timings_of_ada = timings(page).await;
        assert_eq!(timings_of_ada[0][0], "velt-token", "{timings_of_ada}");
        let end = page.script("return ask()").await;
        assert_eq!((&end["user"], &end["token"]), (&json!("ada"), &timings_of_ada[0][1]));
        assert_eq!(site.token_requests(), 0, "the document has brought it");

        // A document does not wait for a slow mint, and its scripts know why there is no token.
        site.velt.close_gate();
        page.navigate(&site.url(APP, "/sign-in?user=grace")).await;
        assert_eq!(timings(page).await, json!([["velt-token-status", "pending"]]));
        site.velt.open_gate();
        assert_eq!(page.script("return ask()").await["user"], "grace");
    })
    .await;
}

async fn app_renders_the_token_into_its_page(browser: Browser) {
    let site = Site::open(&[APP_HEADER]).await;
    site.visit(browser, "rendered", async |page| {
        page.navigate(&site.url(APP, "/rendered")).await;
        let token = page.script("return initial").await;
        let end = page.script("return ask({ initial })").await;
        assert_eq!((&end["user"], &end["token"]), (&json!("ada"), &token));
        assert_eq!(site.token_requests(), 0, "the page has brought it");

        site.velt.close_gate();
        page.navigate(&site.url(APP, "/sign-in?user=grace")).await;
        page.navigate(&site.url(APP, "/rendered")).await;
        let seen = page.script("return [initial, document.body.dataset.status]").await;
        assert_eq!(seen, json!([null, "pending"]));
        site.velt.open_gate();
        assert_eq!(page.script("return ask({ initial })").await["user"], "grace");
    })
    .await;
}

/// Returns whether the page was shown from the back/forward cache the last time.
async fn was_kept(page: &Page) -> bool {
    page.script("return shown.at(-1)").await == true
}

async fn going_back_after_sign_out_shows_no_token(browser: Browser) {
    let site = Site::open(&[DOCUMENT]).await;
    site.visit(browser, "back", async |page| {
        assert_eq!(page.script("return ask()").await["user"], "ada");
        page.navigate(&site.url(APP, "/login")).await;
        page.go_back().await;
        // Firefox keeps no page that must not be stored. Chromium does, as long as no cookie changes.
        assert_eq!(was_kept(page).await, browser == Browser::Chromium);
        assert_eq!(page.script("return ask()").await["user"], "ada");

        page.navigate(&site.url(APP, "/sign-out")).await;
        page.go_back().await;
        let shown = page.script("return [location.pathname, typeof tokens]").await;
        assert_eq!(shown, json!(["/login", "undefined"]));
        assert_eq!(timings(page).await, json!([]));
    })
    .await;
}

async fn cacheable_page_gets_no_token_after_sign_out(browser: Browser) {
    let site = Site::open(&[]).await;
    site.visit(browser, "back-cacheable", async |page| {
        page.expect_failures(401);
        assert_eq!(page.script("return ask()").await["user"], "ada");
        page.navigate(&site.url(APP, "/sign-out")).await;
        page.go_back().await;
        assert!(was_kept(page).await, "either browser keeps a page that may be stored");
        assert_eq!(page.text("user").await, "ada", "as it was, which is the app's to prevent");
        // The page asks by itself whether its user is still signed in.
        hears_of_sign_out(page).await;
        let end = page.script("return ask()").await;
        assert_eq!((&end["code"], &end["token"]), (&json!("signed_out"), &Value::Null), "{end}");
    })
    .await;
}

async fn navigation_gets_a_page_when_the_app_is_down(browser: Browser) {
    let site = Site::open(&[]).await;
    site.visit(browser, "app-down", async |page| {
        page.expect_failures(502);
        site.stop_app();
        let answer = "return fetch('/api/me').then(async (answer) => [\
             answer.status, answer.headers.get('content-type'), (await answer.json()).code])";
        // The sidecar may have connections to the app from before.
        eventually("an error for scripts", async || {
            let answer = page.script(answer).await;
            if answer == json!([502, "application/json", "app_unreachable"]) {
                Ok(())
            } else {
                Err(answer.to_string())
            }
        })
        .await;
        // Tokens do not depend on the app.
        assert_eq!(page.script("return ask()").await["user"], "ada");

        page.navigate(&site.url(APP, "/")).await;
        let shown = page.script(
            "return [document.contentType, document.scripts.length, document.body.innerText,\
             getComputedStyle(document.body).maxWidth]",
        );
        let shown = shown.await;
        assert_eq!((&shown[0], &shown[1]), (&json!("text/html"), &json!(0)), "{shown}");
        assert_eq!(shown[3], "640px", "the page's policy lets its style be");
        let text = shown[2].as_str().expect("a text");
        for part in ["This app does not answer", "load this page again", "app_unreachable"] {
            assert!(text.contains(part), "{text}");
        }
    })
    .await;
}

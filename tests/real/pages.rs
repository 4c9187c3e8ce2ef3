//! All that a page can see of tokens, in Chromium and in Firefox: the app's own page with the package
//! `velt-sidecar`, and pages that are not the app's. Between the browser and the sidecar is a login front that
//! knows users by cookie; in Velt's place is a stand-in whose behaviour the test sets.

/// Makes a test for each browser of each function, which is given the browser.
macro_rules! in_each_browser {
    ($($function:ident),+ $(,)?) => {$(
        mod $function {
            use crate::webdriver::Browser;

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn chromium_shows_it() {
                Box::pin(super::$function(Browser::Chromium)).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn firefox_shows_it() {
                Box::pin(super::$function(Browser::Firefox)).await;
            }
        }
    )+};
}

mod asking;
mod first_render;
mod front;
mod outside;
mod react;
mod site;
mod tabs;
#[path = "../it/support/velt.rs"]
#[allow(dead_code, reason = "the tests without real tools use the rest")]
pub mod velt;

use serde_json::json;

use self::site::{APP, Site};
use crate::neighbour::PATIENCE;
use crate::webdriver::{Browser, visit};

in_each_browser!(harness_drives_tabs_history_and_network);

async fn harness_drives_tabs_history_and_network(browser: Browser) {
    let site = Site::open(&[]).await;
    visit(browser, "harness", &site.url(APP, "/login"), async |page| {
        page.expect_complaints("ERR_INTERNET_DISCONNECTED");
        let first = page.tab().await;
        page.script(
            "window.events = []; for (const name of ['online', 'offline'])\
                     addEventListener(name, () => events.push(name));",
        )
        .await;
        page.set_offline(true).await;
        let fetched =
            "return fetch('/login').then((answer) => answer.status, (error) => error.name)";
        assert_eq!(page.script(fetched).await, "TypeError");
        page.set_offline(false).await;
        assert_eq!(page.script(fetched).await, 200);
        assert_eq!(page.script("return events").await, json!(["offline", "online"]));

        page.open_tab(&site.url("other.localhost", "/login")).await;
        assert_eq!(page.script("return location.hostname").await, "other.localhost");
        page.turn_to(&first).await;
        page.navigate(&site.url("app.example", "/login")).await;
        assert_eq!(page.script("return isSecureContext").await, false);
        page.go_back().await;
        assert_eq!(page.script("return location.hostname").await, APP);
        assert_eq!(page.text("login").await, "Sign in");
    })
    .await;
}

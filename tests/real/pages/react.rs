//! A page with React 19 in `StrictMode`, which renders and runs effects twice, and with a provider made anew by
//! each render.

use serde_json::json;

use super::site::{APP, Site};
use super::velt::user_of;
use crate::neighbour::eventually;
use crate::webdriver::{Browser, Page};

in_each_browser!(rendering_again_mints_and_signs_in_once);

/// Waits until the page's client has a token.
async fn signed_in(page: &Page) {
    eventually("the client to have a token", async || {
        let token = page.script("return window.client?.token ?? null").await;
        if token.is_string() {
            Ok(())
        } else {
            Err(page.script("return failures").await.to_string())
        }
    })
    .await;
}

async fn rendering_again_mints_and_signs_in_once(browser: Browser) {
    const RENDERS: u64 = 5;
    let site = Site::open(&[]).await;
    site.visit(browser, "react", async |page| {
        let render_again = async |count: u64| {
            for _ in 0..RENDERS {
                page.click("again").await;
            }
            page.wait_for_text("again", &count.to_string()).await;
        };
        site.velt.close_gate();
        page.navigate(&site.url(APP, "/react")).await;
        eventually("React to render", async || {
            let rendered = page.script("return window.renders > 0").await;
            if rendered == true {
                Ok(())
            } else {
                Err(page.script("return failures").await.to_string())
            }
        })
        .await;
        render_again(RENDERS).await;
        site.velt.open_gate();
        signed_in(page).await;
        render_again(2 * RENDERS).await;
        let renders = page.script("return renders").await.as_u64().expect("a number");
        assert!(renders >= 4 * RENDERS, "StrictMode renders twice, and not {renders} times");
        assert_eq!(page.script("return client.calls").await, json!(["setVeltAuthProvider"]));
        assert_eq!((site.token_requests(), site.velt.call_count()), (1, 1));

        // The page goes over to another user, as after a change of accounts within the app.
        page.script("return fetch('/sign-in?user=grace').then(() => changeUser('grace'))").await;
        eventually("the client to have the other user's token", async || {
            let token = page.script("return client.token").await;
            let user = user_of(token.as_str().expect("the client had a token"));
            if user == "grace" { Ok(()) } else { Err(user) }
        })
        .await;
        page.click("again").await;
        let calls = page.script("return client.calls").await;
        assert_eq!(calls, json!(["setVeltAuthProvider", "setVeltAuthProvider"]));
        assert_eq!((site.token_requests(), site.velt.call_count()), (2, 2));
        assert_eq!(page.script("return failures").await, json!([]));
    })
    .await;
}

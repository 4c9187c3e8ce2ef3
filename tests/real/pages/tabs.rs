//! Several tabs of one browser, and several users of it, one after the other.

use serde_json::{Value, json};

use super::site::{APP, Site, begin_to_ask, end_of_asking, hears_of_sign_out};
use super::velt::user_of;
use crate::webdriver::{Browser, Page};

in_each_browser!(
    two_tabs_share_one_request,
    tab_that_leaves_holds_up_no_other,
    sign_out_ends_a_request_under_way,
    sign_out_reaches_the_other_tab,
    next_user_gets_no_token_of_the_last,
    page_of_the_last_user_gets_no_token,
    one_page_changes_from_user_to_user,
);

async fn two_tabs_share_one_request(browser: Browser) {
    let site = Site::open(&[]).await;
    site.velt.close_gate();
    site.visit(browser, "two-tabs", async |page| {
        let first = page.tab().await;
        let second = page.open_tab(&site.url(APP, "/")).await;
        page.turn_to(&first).await;
        begin_to_ask(page).await;
        page.turn_to(&second).await;
        begin_to_ask(page).await;
        site.velt.calls_reach(1).await;
        site.velt.open_gate();
        let in_second = end_of_asking(page).await;
        page.turn_to(&first).await;
        let in_first = end_of_asking(page).await;
        assert_eq!(in_first["user"], "ada", "{in_first}");
        assert_eq!(in_first["token"], in_second["token"]);
        assert_eq!((site.token_requests(), site.velt.call_count()), (1, 1));

        // A third tab asks the others.
        page.open_tab(&site.url(APP, "/")).await;
        let in_third = page.script("return ask()").await;
        assert_eq!(in_third["token"], in_first["token"]);
        page.turn_to(&second).await;
        assert_eq!(page.script("return ask()").await["token"], in_first["token"]);
        assert_eq!(site.velt.call_count(), 1);
    })
    .await;
}

async fn tab_that_leaves_holds_up_no_other(browser: Browser) {
    let site = Site::open(&[]).await;
    site.velt.close_gate();
    site.visit(browser, "leaving-tab", async |page| {
        let first = page.tab().await;
        begin_to_ask(page).await;
        let second = page.open_tab(&site.url(APP, "/")).await;
        begin_to_ask(page).await;
        page.open_tab(&site.url(APP, "/")).await;
        begin_to_ask(page).await;
        site.velt.calls_reach(1).await;
        // The first tab has asked. It goes elsewhere, and the second is closed while it waits for its turn.
        page.turn_to(&second).await;
        page.close_tab().await;
        page.turn_to(&first).await;
        page.navigate(&site.url(APP, "/login")).await;
        let left = page.tabs().await.into_iter().find(|tab| *tab != first).expect("a third tab");
        page.turn_to(&left).await;
        site.velt.open_gate();
        assert_eq!(end_of_asking(page).await["user"], "ada");
        assert_eq!(site.velt.call_count(), 1);

        page.turn_to(&first).await;
        page.go_back().await;
        assert_eq!(page.script("return ask()").await["user"], "ada");
    })
    .await;
}

async fn sign_out_ends_a_request_under_way(browser: Browser) {
    let site = Site::open(&[]).await;
    site.velt.close_gate();
    site.visit(browser, "sign-out-under-way", async |page| {
        page.expect_failures(401);
        let first = page.tab().await;
        begin_to_ask(page).await;
        page.open_tab(&site.url(APP, "/")).await;
        begin_to_ask(page).await;
        site.velt.calls_reach(1).await;
        page.script("tokens.signedOut(); return fetch('/sign-out').then(() => null)").await;
        assert_eq!(end_of_asking(page).await["code"], "signed_out");
        site.velt.open_gate();
        page.turn_to(&first).await;
        let end = end_of_asking(page).await;
        assert_eq!((&end["code"], &end["token"]), (&json!("signed_out"), &Value::Null), "{end}");
        assert_eq!(page.script("return ask()").await["code"], "signed_out");
    })
    .await;
}

async fn sign_out_reaches_the_other_tab(browser: Browser) {
    let site = Site::open(&[]).await;
    site.visit(browser, "sign-out", async |page| {
        page.expect_failures(401);
        let first = page.tab().await;
        assert_eq!(page.script("return ask()").await["user"], "ada");
        let second = page.open_tab(&site.url(APP, "/")).await;
        assert_eq!(page.script("return ask()").await["user"], "ada");

        page.turn_to(&first).await;
        page.script("tokens.signedOut(); return fetch('/sign-out').then(() => null)").await;
        page.turn_to(&second).await;
        hears_of_sign_out(page).await;
        for tab in [second, first] {
            page.turn_to(&tab).await;
            let end = page.script("return ask()").await;
            assert_eq!(
                (&end["code"], &end["token"]),
                (&json!("signed_out"), &Value::Null),
                "{end}"
            );
        }
    })
    .await;
}

/// Asserts that Ada's page gets no token while Grace is signed in.
async fn is_anothers_page(page: &Page) {
    let end = page.script("return ask()").await;
    let (code, retryable) = (&end["code"], &end["retryable"]);
    assert_eq!((code, retryable), (&json!("user_mismatch"), &json!(false)), "{end}");
    // A response that the app has fetched as Grace says nothing about Ada.
    let observed = page.script("return tokens.fetch('/api/me').then(ask)").await;
    assert_eq!(observed["token"], Value::Null, "{observed}");
}

async fn next_user_gets_no_token_of_the_last(browser: Browser) {
    let site = Site::open(&[]).await;
    site.visit(browser, "next-user", async |page| {
        page.expect_failures(403);
        // The first tab stays open with Ada's page and token, without a word of a sign-out.
        let first = page.tab().await;
        assert_eq!(page.script("return ask()").await["user"], "ada");
        page.open_tab(&site.url(APP, "/sign-in?user=grace")).await;
        assert_eq!(page.script("return ask()").await["user"], "grace");

        page.turn_to(&first).await;
        hears_of_sign_out(page).await;
        is_anothers_page(page).await;
    })
    .await;
}

async fn page_of_the_last_user_gets_no_token(browser: Browser) {
    let site = Site::open(&[]).await;
    site.visit(browser, "last-user", async |page| {
        page.expect_failures(403);
        let first = page.tab().await;
        page.open_tab(&site.url(APP, "/sign-in?user=grace")).await;
        // Ada's page has asked for nothing before Grace signed in, so the sidecar has to tell it.
        page.turn_to(&first).await;
        is_anothers_page(page).await;
    })
    .await;
}

async fn one_page_changes_from_user_to_user(browser: Browser) {
    let site = Site::open(&[]).await;
    site.visit(browser, "change-of-user", async |page| {
        let sign_in = "return kit.signIn(client, user).then(() => client.token)";
        let adas = page.script(sign_in).await;
        assert_eq!(user_of(adas.as_str().expect("a token")), "ada");
        page.script("return fetch('/sign-in?user=grace').then(() => { window.user = { ...user, userId: 'grace' }; })").await;
        let graces = page.script(sign_in).await;
        assert_eq!(user_of(graces.as_str().expect("a token")), "grace");
        let calls = page.script("return client.calls").await;
        assert_eq!(calls, json!(["setVeltAuthProvider", "signOutUser", "setVeltAuthProvider"]));
        assert_eq!(site.velt.calls_by_user().into_values().max(), Some(1));
    })
    .await;
}

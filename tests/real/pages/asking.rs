//! One page that asks for its token: while Velt is slow, down, or refuses the token; while the page is offline.

use std::fmt::Write as _;

use aws_lc_rs::digest::{SHA256, digest};
use serde_json::{Value, json};

use super::site::{ROUTE, Site, begin_to_ask, end_of_asking};
use crate::neighbour::eventually;
use crate::webdriver::{Browser, Page};

/// Script that gives the client the package's provider, which lets Velt's documented retries be.
const SIGN_IN: &str = "client.setVeltAuthProvider(kit.veltAuthProvider(user)); return null";

in_each_browser!(
    first_visit_waits_for_a_slow_mint,
    token_comes_back_after_an_outage,
    token_comes_back_with_the_network,
    refused_token_is_minted_anew_once,
);

/// Waits until the stand-in of Velt's client has a token, and returns it.
async fn token_of_client(page: &Page) -> String {
    eventually("the client to have a token", async || {
        let token = page.script("return client.token").await;
        let lacking = async || page.script("return String(client.lastError)").await.to_string();
        match token.as_str() {
            Some(token) => Ok(token.to_owned()),
            None => Err(lacking().await),
        }
    })
    .await
}

async fn first_visit_waits_for_a_slow_mint(browser: Browser) {
    // So short that the route too says first that the token is still being minted.
    let site = Site::open_with_wait("100ms", &[]).await;
    site.velt.close_gate();
    site.visit(browser, "slow-mint", async |page| {
        page.expect_failures(504);
        let status = page.script(
            "window.tokens = kit.createVeltTokens({ userId: user.userId, patience: 60_000 });\
             return tokens.fetch('/api/me').then((answer) => answer.headers.get('x-velt-token-status'))",
        );
        assert_eq!(status.await, "pending");
        begin_to_ask(page).await;
        eventually("the page to have been told to wait", async || {
            let asked = site.token_requests();
            if asked > 1 { Ok(()) } else { Err(asked.to_string()) }
        })
        .await;
        assert_eq!(page.script("return ended").await, Value::Null);
        site.velt.open_gate();
        assert_eq!(end_of_asking(page).await["user"], "ada");
        assert_eq!(site.velt.call_count(), 1);
        // Later callers get the token that the page has.
        let asked = site.token_requests();
        let again = page.script("return Promise.all([ask(), ask(), tokens.fetch('/api/me').then(ask)])");
        for end in again.await.as_array().expect("three ends") {
            assert_eq!(end["user"], "ada");
        }
        assert_eq!(site.token_requests(), asked);
    })
    .await;
}

async fn token_comes_back_after_an_outage(browser: Browser) {
    let site = Site::open(&[]).await;
    site.velt.answer_with(503, "{}");
    site.visit(browser, "outage", async |page| {
        for status in [502, 503, 504] {
            page.expect_failures(status);
        }
        let status =
            "return fetch('/api/me').then((answer) => answer.headers.get('x-velt-token-status'))";
        let status = eventually("the header to say so", async || {
            let status = page.script(status).await;
            if status == "unavailable" { Ok(()) } else { Err(status.to_string()) }
        });
        status.await;
        page.script(&format!("window.mark = 'not reloaded'; {SIGN_IN}")).await;
        eventually("the page to have asked", async || {
            if site.token_requests() > 0 { Ok(()) } else { Err("no request".into()) }
        })
        .await;
        let without = page.script("return [client.token, client.calls]").await;
        assert_eq!(without, json!([null, ["setVeltAuthProvider"]]), "no sign-in without a token");
        site.velt.recover();
        token_of_client(page).await;
        assert_eq!(page.script("return mark").await, "not reloaded");
        assert_eq!(page.script("return client.calls").await, json!(["setVeltAuthProvider"]));
        let asked = site.token_requests();
        assert!(asked < 12, "{asked} requests for one token");
    })
    .await;
}

async fn token_comes_back_with_the_network(browser: Browser) {
    let site = Site::open(&[]).await;
    site.visit(browser, "network", async |page| {
        page.expect_complaints("ERR_INTERNET_DISCONNECTED");
        page.set_offline(true).await;
        let end = page.script(
            "const tokens = kit.createVeltTokens({ userId: user.userId, patience: 3000 });\
             return outcome(tokens.generateToken()).finally(() => tokens.close())",
        );
        let end = end.await;
        assert_eq!((&end["code"], &end["retryable"]), (&json!("network"), &json!(true)), "{end}");

        begin_to_ask(page).await;
        page.set_offline(false).await;
        let end = end_of_asking(page).await;
        assert_eq!(end["user"], "ada", "{end}");

        // What the page has already got, it has without a network too.
        page.set_offline(true).await;
        assert_eq!(page.script("return ask()").await, end);
    })
    .await;
}

async fn refused_token_is_minted_anew_once(browser: Browser) {
    let site = Site::open(&[]).await;
    site.visit(browser, "refused", async |page| {
        page.expect_failures(429);
        page.script(SIGN_IN).await;
        let first = token_of_client(page).await;
        let refuse = "client.refused.add(client.token); client.token = null; return client.renew()";
        let renewing = async || {
            page.script(refuse).await;
            page.script("return client.token ? null : client.renew()").await;
        };

        renewing().await;
        let second = token_of_client(page).await;
        assert_ne!(second, first);
        assert_eq!(site.velt.call_count(), 2);
        let reported = reports(&site);
        assert_eq!(reported, [fingerprint(&first)]);

        // The sidecar mints no further token within a minute, and the page does not ask on and on.
        page.script(refuse).await;
        let ended =
            page.script("return client.renew().then(() => String(client.lastError.code))").await;
        assert_eq!(ended, "renewed_recently");
        assert_eq!(page.script("return client.token").await, Value::Null);
        assert_eq!(site.velt.call_count(), 2);
        let reported = reports(&site);
        assert!(reported.len() <= 5, "{} reports of two tokens", reported.len());
        assert!(reported.contains(&fingerprint(&second)));
        assert!(site.token_requests() <= 7, "{} requests", site.token_requests());
        let bodies: Vec<_> =
            site.front.seen_at(ROUTE).iter().map(|seen| seen.body.to_string()).collect();
        assert!(!bodies.concat().contains("eyJ"), "no token goes back: {bodies:?}");
    })
    .await;
}

/// Returns the fingerprints of refused tokens that pages have reported.
fn reports(site: &Site) -> Vec<String> {
    let seen = site.front.seen_at(ROUTE);
    seen.iter().filter_map(|seen| seen.body["refused"].as_str().map(str::to_owned)).collect()
}

/// Returns the SHA-256 of a token's text, in hexadecimal.
fn fingerprint(token: &str) -> String {
    let mut text = String::new();
    for byte in digest(&SHA256, token.as_bytes()).as_ref() {
        write!(text, "{byte:02x}").expect("a string takes all");
    }
    text
}

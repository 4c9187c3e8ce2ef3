//! Pages that are not the app's, a session that has ended, and hosts that browsers do not trust.

use serde_json::{Value, json};

use super::front::SignedOut;
use super::site::{APP, ROUTE, STRING_ROUTE, Site};
use crate::neighbour::eventually;
use crate::webdriver::{Browser, Page, visit};

in_each_browser!(
    foreign_pages_read_no_token,
    ended_session_is_told_as_signed_out,
    page_over_plain_http_gets_its_token,
);

/// Host of another site, and of another origin of the app's own site.
const FOREIGN: [&str; 2] = ["evil.localhost", "www.app.localhost"];

/// Ways in which a page of another origin can have a browser fetch from the app with the user's cookies, and
/// read what it gets. A script, since it has to run in that page.
const ATTEMPTS: &str = "
    window.told = [];
    const tell = (way, url) => (seen) => told.push([way, url, String(seen)]);
    const all = async (response) => [...response.headers].join() + await response.text();
    for (const url of URLS) {
        for (const mode of ['cors', 'no-cors']) {
            for (const method of ['GET', 'POST']) {
                const asked = fetch(url, { mode, method, credentials: 'include' }).then(all);
                asked.then(tell(`${mode} ${method}`, url), tell(`${mode} ${method}`, url));
            }
        }
        for (const tag of ['img', 'script', 'iframe', 'link']) {
            const element = document.createElement(tag);
            element.rel = 'stylesheet';
            element.onload = element.onerror = () => {
                try {
                    tell(tag, url)(element.contentDocument?.documentElement.outerHTML);
                } catch (error) {
                    tell(tag, url)(error.name);
                }
            };
            element[tag === 'link' ? 'href' : 'src'] = url;
            document.body.append(element);
        }
    }";

/// Opens a window with a document of the app, which is the only kind of document that the sidecar puts a token
/// on, and tells what a page of another origin can read of it.
const WINDOW: &str = "
    const opened = open(URL);
    return new Promise((resolve) => {
        const look = () => {
            try {
                // A new window is empty, and of this origin, until its document comes.
                if (opened.location.href === 'about:blank') return setTimeout(look, 25);
                resolve(JSON.stringify(opened.performance.getEntries()));
            } catch (error) {
                resolve(error.name);
            }
            opened.close();
        };
        look();
    });";

async fn foreign_pages_read_no_token(browser: Browser) {
    let site = Site::open(&[("DELIVERY__DOCUMENT__PATHS", "/*")]).await;
    site.visit(browser, "foreign-pages", async |page| {
        let own = page.script("return ask()").await;
        assert_eq!(own["user"], "ada", "{own}");
        // All that these pages try is an error, and Chromium says so.
        page.expect_complaints("");
        let before = site.token_requests();
        for host in FOREIGN {
            page.navigate(&site.url(host, "/login")).await;
            let told = attempts_of(page, &site).await;
            assert!(!told.contains("eyJ"), "a page of {host} has read a token: {told}");
            assert!(!told.contains("velt-token"), "a page of {host} has read a status: {told}");
        }
        assert!(site.token_requests() > before, "no request had the user's cookie");
        page.navigate(&site.url(APP, "/")).await;
        assert_eq!(page.script("return ask()").await["token"], own["token"]);
    })
    .await;
}

/// Lets the page try to read the app's responses. Returns all that it has read.
async fn attempts_of(page: &Page, site: &Site) -> String {
    const WAYS: usize = 8;
    let paths = ["/", "/shared", ROUTE, STRING_ROUTE, "/api/me"];
    let urls = paths.map(|path| site.url(APP, path));
    page.script(&format!("const URLS = {}; {ATTEMPTS}", json!(urls))).await;
    let told = eventually("the attempts to end", async || {
        let told = page.script("return told").await;
        let ended = told.as_array().is_some_and(|told| told.len() == WAYS * urls.len());
        if ended { Ok(told) } else { Err(told.to_string()) }
    })
    .await;
    let window = page.script(&format!("const URL = {}; {WINDOW}", json!(urls[0]))).await;
    assert_eq!(window, "SecurityError");
    let timings = page
        .script(
            "return performance.getEntries().map((entry) => JSON.stringify(entry.serverTiming))",
        )
        .await;
    format!("{told} {timings}")
}

async fn ended_session_is_told_as_signed_out(browser: Browser) {
    let site = Site::open(&[]).await;
    site.visit(browser, "ended-session", async |page| {
        page.expect_failures(401);
        page.expect_complaints("CORS");
        page.expect_complaints("net::ERR_FAILED");
        page.script("return fetch('/sign-out').then(() => null)").await;
        let answers = [
            SignedOut::Redirects,
            SignedOut::RedirectsElsewhere,
            SignedOut::ShowsLogin,
            SignedOut::Refuses,
        ];
        for (number, answer) in answers.into_iter().enumerate() {
            site.front.when_signed_out(answer);
            let end = page.script(
                "const tokens = kit.createVeltTokens({ userId: user.userId, patience: 2000 });\
                 return outcome(tokens.generateToken()).finally(() => tokens.close())",
            );
            let end = end.await;
            let told = (&end["name"], &end["code"], &end["retryable"]);
            assert_eq!(
                told,
                (&json!("TokenError"), &json!("signed_out"), &json!(false)),
                "{number}: {end}"
            );
        }
        assert_eq!(page.script("return ask()").await["code"], "signed_out");
        page.script("return fetch('/sign-in?user=ada').then(() => null)").await;
        assert_eq!(page.script("return ask()").await["user"], "ada", "the same user is back");
        assert_eq!(page.script("return failures").await, json!([]));
    })
    .await;
}

async fn page_over_plain_http_gets_its_token(browser: Browser) {
    const HOST: &str = "app.example";
    let site = Site::open(&[("IDENTITY__TRUSTED_HOSTS", HOST)]).await;
    visit(browser, "plain-http", &site.url(HOST, "/sign-in?user=ada"), async |page| {
        let has = "return [isSecureContext, !!crypto.subtle, !!navigator.locks]";
        assert_eq!(page.script(has).await, json!([false, false, false]));
        let first = page.script("return ask()").await;
        assert_eq!(first["user"], "ada", "{first}");
        let tab = page.tab().await;
        page.open_tab(&site.url(HOST, "/")).await;
        assert_eq!(page.script("return ask()").await["user"], "ada");
        page.turn_to(&tab).await;
        renewed(page, &first).await;
        assert_eq!(site.velt.call_count(), 2);
        assert_eq!(page.script("return failures").await, json!([]));
    })
    .await;
}

/// Reports the token as refused, and waits for another.
async fn renewed(page: &Page, first: &Value) {
    page.script(&format!("tokens.refused({})", first["token"])).await;
    eventually("another token", async || {
        let end = page.script("return ask()").await;
        if end["user"] == "ada" && end["token"] != first["token"] {
            Ok(())
        } else {
            Err(end.to_string())
        }
    })
    .await;
}

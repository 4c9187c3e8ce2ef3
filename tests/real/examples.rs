//! The examples in a real browser: each is started by its documented command, with the sidecar of this build. The
//! pages load Velt's own npm packages, and these load the emulator's stand-in of Velt's SDK.
//!
//! The example without a framework is always tested. The others are tested in the long form
//! (`VELT_SIDECAR_LONG=1`), as they install hundreds of megabytes.

mod example;
mod sdk;

use std::env;
use std::time::Duration;

use serde_json::json;

use self::example::{Example, Login};
use crate::neighbour::eventually;
use crate::record::left_out;
use crate::webdriver::{Page, in_browser};

/// A visit of an example's page in a browser.
struct Visit<'a> {
    page: &'a Page,
    example: &'a Example,
    login: Login,
}

/// Starts an example, and runs `test` on its page.
async fn on_the_example(name: &str, login: Login, test: impl AsyncFnOnce(Visit<'_>)) {
    let example = Example::start(name).await;
    let file = format!("example_{}", name.replace('-', "_"));
    in_browser(&file, example.site, async |page| {
        // Asked without a session, the login proxy and the token route answer 401.
        page.expect_failures(401);
        test(Visit { page, example: &example, login }).await;
    })
    .await;
}

/// Whether the tests of all examples run.
fn is_long() -> bool {
    let is_long = env::var_os("VELT_SIDECAR_LONG").is_some();
    if !is_long {
        left_out("this example is tested in the long form only");
    }
    is_long
}

impl Visit<'_> {
    /// Signs in as a person does, at the page that says that no user is signed in.
    async fn sign_in(&self, user: &str) {
        self.page.wait_for_text("who", "Signed out.").await;
        if self.login == Login::Proxy {
            self.page.click("to-sign-in").await;
        }
        self.wait_for("user").await;
        self.page.type_into("user", user).await;
        self.page.click("sign-in").await;
    }

    /// Signs out, and checks that the page has no token any more.
    async fn sign_out(&self) {
        self.page.click("sign-out").await;
        self.page.wait_for_text("who", "Signed out.").await;
        let asking =
            "return fetch('/api/velt/token', { method: 'POST' }).then(({ status }) => status)";
        assert_eq!(self.page.script(asking).await, 401);
    }

    /// Goes back, after a sign-out: the browser has kept no page with the former user's token.
    async fn go_back_to_no_user(&self) {
        self.page.script("window.isLeft = true; history.back()").await;
        let script = "return window.isLeft ? '' : document.readyState";
        eventually("the page before", async || {
            let state = self.page.script(script).await;
            if state == "complete" { Ok(()) } else { Err(state.to_string()) }
        })
        .await;
        assert_eq!(self.page.text("who").await, "Signed out.");
        assert!(!self.has_token_in_document().await);
    }

    /// Whether the document, with its scripts, holds a JWT.
    async fn has_token_in_document(&self) -> bool {
        let script = "return document.documentElement.outerHTML.includes('eyJ')";
        self.page.script(script).await == true
    }

    /// Waits until the SDK has signed a user in, and returns the number of their token.
    async fn token_of(&self, user: &str) -> u64 {
        self.page.wait_for_text("who", &format!("Signed in as {user}.")).await;
        let text = format!("Signed in to Velt (emulator) as {}, ", self.login.id_of(user));
        let shown = self.page.wait_for_text("velt-emulator", &text).await;
        assert!(shown.ends_with(", organization acme"), "{shown}");
        assert_eq!(self.attribute("data-velt-user").await, self.login.id_of(user));
        self.attribute("data-velt-token").await.parse().expect("a token's number")
    }

    async fn attribute(&self, name: &str) -> String {
        self.page.attribute("velt-emulator", name).await
    }

    async fn wait_for(&self, test_id: &str) {
        let script = format!("return document.querySelector('[data-testid={test_id}]') !== null");
        eventually(test_id, async || {
            let is_there = self.page.script(&script).await;
            if is_there == true { Ok(()) } else { Err(is_there.to_string()) }
        })
        .await;
    }

    /// Asserts how many tokens were minted, and how many sign-ins to Velt there were.
    async fn assert_counts(&self, mints: u64, sign_ins: u64) {
        let journal = self.example.journal().await;
        let counts = json!([journal["mints"], journal["verifications"]]);
        assert_eq!(counts, json!([mints, sign_ins]), "mints and sign-ins: {journal}");
    }

    /// Asserts what the page of Next.js says about its token, and how often it has asked the route for one.
    async fn assert_first_render(&self, said: &str, requests: u64) {
        assert_eq!(self.page.text("first-render").await, said);
        let script =
            "return performance.getEntriesByName(location.origin + '/api/velt/token').length";
        assert_eq!(self.page.script(script).await, requests);
    }
}

/// Signs users in and out: each has a token of their own, once minted, once given to Velt for each page.
async fn users_come_and_go(visit: &Visit<'_>) {
    visit.sign_in("ada").await;
    let adas = visit.token_of("ada").await;
    visit.assert_counts(1, 1).await;
    assert_eq!(visit.attribute("data-velt-sign-ins").await, "1");

    visit.page.reload().await;
    assert_eq!(visit.token_of("ada").await, adas);
    visit.assert_counts(1, 2).await;

    visit.sign_out().await;
    visit.sign_in("grace").await;
    let graces = visit.token_of("grace").await;
    assert_ne!(graces, adas);
    visit.assert_counts(2, 3).await;

    visit.sign_out().await;
    visit.sign_in("ada").await;
    assert_eq!(visit.token_of("ada").await, adas);
    visit.assert_counts(2, 4).await;
}

/// Has the page render again with each letter: no further token, and no further sign-in to Velt.
async fn rendering_again_changes_nothing(visit: &Visit<'_>) {
    let before = visit.example.journal().await;
    visit.page.type_into("note", "written letter by letter").await;
    let note = "return document.querySelector('[data-testid=note]').value";
    assert_eq!(visit.page.script(note).await, "written letter by letter");
    assert_eq!(visit.attribute("data-velt-sign-ins").await, "1");
    assert_eq!(visit.example.journal().await, before);
    let problem = "return document.querySelector('[data-testid=problem]') !== null";
    assert_eq!(visit.page.script(problem).await, false);
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_html_signs_users_in_and_out() {
    on_the_example("html", Login::Proxy, async |visit| users_come_and_go(&visit).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn vite_page_signs_users_in_once_in_strict_mode() {
    if !is_long() {
        return;
    }
    on_the_example("vite-react", Login::Proxy, async |visit| {
        visit.example.assert_types_fit();
        users_come_and_go(&visit).await;
        rendering_again_changes_nothing(&visit).await;
        // Vite's own probe, which says whether hot reload gets through the login proxy and the sidecar.
        let probe = "return new Promise((done) => {\
            const socket = new WebSocket(`ws://${location.host}/`, 'vite-ping');\
            socket.onopen = () => done('open');\
            socket.onerror = () => done('error');\
        })";
        assert_eq!(visit.page.script(probe).await, "open");
        visit.page.save_screenshot("example_vite_react").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn next_page_comes_with_its_token() {
    if !is_long() {
        return;
    }
    on_the_example("nextjs", Login::App, async |visit| {
        visit.example.assert_types_fit();
        users_come_and_go(&visit).await;
        visit.assert_first_render("The page came with a token.", 0).await;
        assert!(visit.has_token_in_document().await);
        rendering_again_changes_nothing(&visit).await;
        visit.page.save_screenshot("example_nextjs").await;

        visit.sign_out().await;
        visit.go_back_to_no_user().await;

        // A first visit while Velt is slow: the page asks the route, and the next page has the token.
        visit.example.delay_mints(Duration::from_secs(2)).await;
        visit.sign_in("linus").await;
        let token = visit.token_of("linus").await;
        visit.assert_first_render("The page came without a token.", 1).await;
        visit.page.reload().await;
        assert_eq!(visit.token_of("linus").await, token);
        visit.assert_first_render("The page came with a token.", 0).await;
        visit.assert_counts(3, 6).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn express_sessions_sign_users_in_and_out() {
    if !is_long() {
        return;
    }
    on_the_example("express", Login::App, async |visit| users_come_and_go(&visit).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn django_sessions_sign_users_in_and_out() {
    if !is_long() {
        return;
    }
    on_the_example("django", Login::Django, async |visit| users_come_and_go(&visit).await).await;
}

//! The demo in a real browser: the tokens that a page behind the sidecar gets, by both deliveries, with Velt
//! up and down. The page is the app's; the test clicks as a person does.

use http::header::CONTENT_TYPE;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tools::demo::{Addresses, Demo};

use crate::neighbour::{LOOPBACK, Task, claims_of, eventually, http_client};
use crate::webdriver::{Page, in_browser};

/// The demo's page, and its addresses.
struct Visit<'a> {
    page: &'a Page,
    addresses: Addresses,
}

/// Runs `test` on the page of a new demo.
async fn on_the_demo(name: &str, test: impl AsyncFnOnce(Visit<'_>)) {
    let demo = Demo::bind(LOOPBACK).unwrap_or_else(|error| panic!("{error}"));
    let addresses = demo.addresses();
    let (stop, stopped) = oneshot::channel::<()>();
    let running = Task::spawn(demo.run(async move {
        // A dropped sender stops the demo too.
        let _ = stopped.await;
    }));
    in_browser(name, addresses.front, async |page| test(Visit { page, addresses }).await).await;
    drop(stop);
    drop(running);
}

impl Visit<'_> {
    /// Waits until the page has done what it was last told to do. The page's WebSocket is open by then. No
    /// person clicks fast enough to act before, and Chromium would complain.
    async fn ready(&self) {
        eventually("the page to be ready", async || {
            let state = self.page.script("return document.body.dataset.state").await;
            if state == "ready" { Ok(()) } else { Err(state.to_string()) }
        })
        .await;
        self.page.wait_for_attribute("ws-status", "data-status", "open").await;
    }

    /// Clicks, and waits until the page has fetched all that follows from the click.
    async fn click_and_wait(&self, test_id: &str) {
        self.page.click(test_id).await;
        self.ready().await;
    }

    /// Signs in, and waits until the page has asked for both tokens.
    async fn sign_in(&self, user: &str) {
        self.ready().await;
        self.click_and_wait(&format!("user-{user}")).await;
        self.assert_signed_in(user).await;
    }

    async fn assert_signed_in(&self, user: &str) {
        assert_eq!(self.page.attribute("current-user", "data-user").await, user);
    }

    async fn token(&self, delivery: &str) -> String {
        self.page.attribute(&format!("{delivery}-token"), "data-token").await
    }

    /// Returns the one token that both deliveries brought, after the page and the emulator have named the
    /// same user.
    async fn agreed_token_of(&self, user: &str) -> String {
        for delivery in ["route", "header"] {
            self.assert_verdict(delivery, "accepted").await;
            let claims = self.page.text(&format!("{delivery}-claims")).await;
            let claims: Value = serde_json::from_str(&claims).expect("claims in JSON");
            assert_eq!(claims["userId"], user, "the claims that the page shows for {delivery}");
        }
        let token = self.token("route").await;
        assert_eq!(token, self.token("header").await);
        assert_eq!(self.page.attribute("same-token", "data-same").await, "yes");
        assert_eq!(claims_of(&token)["userId"], user);
        assert_eq!(self.claims_at_velt(&token).await["userId"], user);
        token
    }

    async fn assert_verdict(&self, delivery: &str, expected: &str) {
        let verdict = self.page.attribute(&format!("{delivery}-verdict"), "data-verdict").await;
        let reason = self.page.text(&format!("{delivery}-reason")).await;
        assert_eq!(verdict, expected, "of the {delivery}'s token; the page says {reason:?}");
    }

    /// Asserts that neither delivery brought a token, and what the page says about each delivery.
    async fn assert_no_token(&self, verdict: &str, of_route: &str, of_header: &str) {
        for (delivery, expected) in [("route", of_route), ("header", of_header)] {
            assert_eq!(self.token(delivery).await, "", "the {delivery}'s token");
            self.assert_verdict(delivery, verdict).await;
            let reason = self.page.text(&format!("{delivery}-reason")).await;
            assert!(reason.contains(expected), "the page says of the {delivery}: {reason:?}");
        }
        assert_eq!(self.page.attribute("same-token", "data-same").await, "none");
    }

    /// Asks the emulator, and not the page, for the claims of this token.
    async fn claims_at_velt(&self, token: &str) -> Value {
        let url = format!("http://{}/emulator/verify", self.addresses.emulator);
        let request = http_client().post(url).header(CONTENT_TYPE, "application/json");
        let answer = request.body(json!({ "token": token }).to_string()).send().await;
        let answer = answer.expect("the emulator answers").bytes().await.expect("to its end");
        let mut answer: Value = serde_json::from_slice(&answer).expect("JSON");
        assert_eq!(answer["valid"], true, "{answer}");
        answer["claims"].take()
    }

    /// Returns the outcome of a forgery, and the page's text about it.
    async fn forgery(&self, attempt: &str) -> (String, String) {
        let what = format!("the forgery by {attempt} to end");
        let entry = eventually(&what, async || {
            let script = format!(
                "const entry = document.querySelector('[data-testid=forge-result] \
                 [data-attempt={attempt}]');\
                 return entry && [entry.dataset.outcome, entry.textContent]"
            );
            let entry = self.page.script(&script).await;
            if entry.is_null() { Err("nothing yet".into()) } else { Ok(entry) }
        })
        .await;
        let word = |index: usize| entry[index].as_str().expect("a text").to_owned();
        (word(0), word(1))
    }

    /// Switches Velt off or on.
    async fn let_velt_be_down(&self, down: bool) {
        self.page.click("velt-down").await;
        self.page.wait_for_attribute("velt-down", "data-down", &down.to_string()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_user_gets_one_own_token_by_route_and_header() {
    on_the_demo("each_user", async |visit| {
        visit.ready().await;
        visit.assert_signed_in("ada").await;
        let adas = visit.agreed_token_of("ada").await;
        assert_eq!(visit.page.text("sign-in-mints").await, "Velt minted 1 token for this.");
        visit.sign_in("grace").await;
        let graces = visit.agreed_token_of("grace").await;
        assert_ne!(adas, graces);
        visit.sign_in("ada").await;
        assert_eq!(visit.agreed_token_of("ada").await, adas, "the cache hands out the same bytes");
        assert_eq!(visit.page.text("sign-in-mints").await, "Velt minted no tokens for this.");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_keeps_the_user_and_the_token() {
    on_the_demo("reload", async |visit| {
        visit.page.expect_failures(401);
        visit.sign_in("linus").await;
        let before = visit.agreed_token_of("linus").await;
        visit.page.reload().await;
        visit.ready().await;
        visit.assert_signed_in("linus").await;
        assert_eq!(visit.agreed_token_of("linus").await, before);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn signed_out_page_has_no_token_and_knows_why() {
    on_the_demo("signed_out", async |visit| {
        visit.page.expect_failures(401);
        let (of_route, of_header) = ("No user is signed in", "X-Velt-Token-Status: anonymous");
        visit.sign_in("ada").await;
        visit.agreed_token_of("ada").await;
        visit.click_and_wait("user-none").await;
        visit.assert_signed_in("").await;
        visit.assert_no_token("no-user", of_route, of_header).await;
        visit.page.reload().await;
        visit.ready().await;
        visit.assert_signed_in("").await;
        visit.assert_no_token("no-user", of_route, of_header).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn web_socket_echoes_as_the_user_who_opened_it() {
    on_the_demo("web_socket", async |visit| {
        visit.page.expect_failures(401);
        visit.ready().await;
        for user in ["ada", "grace"] {
            visit.sign_in(user).await;
            visit.page.type_into("ws-input", "one").await;
            visit.page.click("ws-send").await;
            visit.page.wait_for_text("ws-log", &format!("#1 {user}: one")).await;
            visit.page.type_into("ws-input", "two, with a € and a 🙂").await;
            visit.page.click("ws-send").await;
            visit.page.wait_for_text("ws-log", &format!("#2 {user}: two, with a € and a 🙂")).await;
        }
        visit.page.wait_for_text("figure-in-flight-detail", "WebSocket tunnels: 1").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn server_sent_events_arrive_one_by_one_as_their_user() {
    on_the_demo("events", async |visit| {
        visit.page.expect_failures(401);
        for user in ["ada", "grace"] {
            visit.sign_in(user).await;
            visit.page.wait_for_attribute("sse-status", "data-status", "open").await;
            // The stream never ends, so text that is on the page was not held back.
            visit.page.wait_for_text("sse-log", &format!("#1 {user} ")).await;
            visit.page.wait_for_text("sse-log", &format!("#2 {user} ")).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn known_users_keep_tokens_and_new_users_learn_of_an_outage() {
    on_the_demo("velt_down", async |visit| {
        visit.page.expect_failures(401);
        visit.page.expect_failures(503);
        // A switch of users meets a request for the former user's token on its way.
        visit.page.expect_failures(403);
        visit.sign_in("ada").await;
        let adas = visit.agreed_token_of("ada").await;

        visit.let_velt_be_down(true).await;
        visit.click_and_wait("refresh").await;
        assert_eq!(visit.agreed_token_of("ada").await, adas);

        visit.sign_in("grace").await;
        let of_header = "X-Velt-Token-Status: unavailable";
        visit.assert_no_token("refused", "No token: ", of_header).await;
        visit.sign_in("ada").await;
        assert_eq!(visit.agreed_token_of("ada").await, adas);

        visit.let_velt_be_down(false).await;
        visit.sign_in("grace").await;
        eventually("the sidecar to find out that Velt is back", async || {
            visit.click_and_wait("refresh").await;
            let verdict = visit.page.attribute("header-verdict", "data-verdict").await;
            if verdict == "accepted" { Ok(()) } else { Err(verdict) }
        })
        .await;
        assert_ne!(visit.agreed_token_of("grace").await, adas);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn both_panels_recover_from_an_outage_by_themselves() {
    on_the_demo("recovery", async |visit| {
        visit.page.expect_failures(503);
        visit.ready().await;
        visit.let_velt_be_down(true).await;
        visit.sign_in("linus").await;
        visit.assert_no_token("refused", "No token: ", "X-Velt-Token-Status: unavailable").await;
        for delivery in ["route", "header"] {
            visit.page.wait_for_text(&format!("{delivery}-verdict"), "asking again in").await;
        }
        visit.let_velt_be_down(false).await;
        for delivery in ["route", "header"] {
            let verdict = format!("{delivery}-verdict");
            visit.page.wait_for_attribute(&verdict, "data-verdict", "accepted").await;
        }
        visit.agreed_token_of("linus").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn guide_leads_through_an_outage() {
    on_the_demo("guide", async |visit| {
        visit.page.expect_failures(503);
        visit.ready().await;
        visit.page.wait_for_text("guide", "sign in as Grace").await;
        visit.sign_in("grace").await;
        visit.page.wait_for_text("guide", "Take Velt down").await;
        visit.let_velt_be_down(true).await;
        visit.sign_in("linus").await;
        visit.page.wait_for_text("guide", "Bring Velt back").await;
        visit.let_velt_be_down(false).await;
        visit.page.wait_for_attribute("guide", "data-step", "4").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn posing_as_another_user_never_works() {
    on_the_demo("forge", async |visit| {
        visit.page.expect_failures(401);
        visit.page.expect_failures(403);
        // Ada and linus pose as grace, so grace signs in first and her token is there to be stolen.
        for user in ["grace", "ada", "linus"] {
            visit.sign_in(user).await;
            visit.page.click("forge").await;
            let (outcome, text) = visit.forgery("header").await;
            assert_eq!(outcome, "own-token", "{user} by header: {text}");
            let (outcome, text) = visit.forgery("body").await;
            assert_eq!(outcome, "refused", "{user} by body: {text}");
            assert!(text.contains("names a userId that is not the signed-in user's"), "{text}");
        }
        visit.click_and_wait("user-none").await;
        visit.page.click("forge").await;
        for attempt in ["header", "body"] {
            let (outcome, text) = visit.forgery(attempt).await;
            assert_eq!(outcome, "refused", "nobody by {attempt}: {text}");
            assert!(text.contains("HTTP 401"), "{text}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_of_requests_for_a_known_user_mints_nothing() {
    on_the_demo("burst", async |visit| {
        visit.page.expect_failures(401);
        visit.sign_in("ada").await;
        visit.page.click("burst").await;
        let text = visit.page.wait_for_text("burst-result", "tokens for this").await;
        assert!(text.starts_with("20 tokens, all the same, in "), "{text}");
        assert_eq!(visit.page.attribute("burst-result", "data-mints").await, "0");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_of_requests_for_a_new_user_mints_once() {
    on_the_demo("burst_of_a_new_user", async |visit| {
        visit.page.expect_failures(401);
        visit.ready().await;
        // Calls the route without the page's own logic, which would ask for a token at once.
        let tokens = visit
            .page
            .script(
                "const login = { method: 'POST', body: '{\"user\":\"linus\"}' };\
                 return fetch('/__velt-demo/login', login).then(() => Promise.all(\
                 Array.from({ length: 20 }, () => fetch('/api/velt/token', { method: 'POST' })\
                 .then((response) => response.json()).then(({ token }) => token))))",
            )
            .await;
        let tokens = tokens.as_array().expect("a list").clone();
        assert_eq!(tokens.len(), 20);
        assert_eq!(claims_of(tokens[0].as_str().expect("a token"))["userId"], "linus");
        assert!(tokens.iter().all(|token| *token == tokens[0]), "{tokens:?}");
        // Ada's was minted when the page opened.
        visit.page.wait_for_text("figure-mints", "2").await;
        assert_eq!(visit.page.text("figure-mints").await, "2");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_expires_in_the_page_is_renewed_by_both_ways() {
    on_the_demo("expire", async |visit| {
        visit.page.expect_failures(401);
        visit.sign_in("ada").await;
        let token = visit.agreed_token_of("ada").await;
        visit.page.click("expire").await;
        for delivery in ["route", "header"] {
            let verdict = format!("{delivery}-verdict");
            visit.page.wait_for_text(&verdict, "signed in as ada (renewed 1×)").await;
        }
        assert_eq!(visit.agreed_token_of("ada").await, token);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_figures_on_the_page_follow_what_the_user_does() {
    on_the_demo("figures", async |visit| {
        visit.page.expect_failures(401);
        visit.page.wait_for_text("figure-breaker", "closed").await;
        for (count, user) in ["ada", "grace", "linus"].into_iter().enumerate() {
            visit.sign_in(user).await;
            let count = (count + 1).to_string();
            for figure in ["figure-mints", "figure-cached"] {
                visit.page.wait_for_text(figure, &count).await;
            }
        }
        visit.page.wait_for_text("figure-requests-detail", "token served").await;
        visit.page.wait_for_text("figure-added-detail", "median").await;
        let added = visit.page.text("figure-added").await;
        assert!(added.ends_with("µs") || added.ends_with("ms"), "{added}");
        assert_eq!(visit.page.text("figure-refused").await, "0");
        assert_eq!(visit.page.text("figures-problem").await, "");
    })
    .await;
}

//! The emulator's stand-in of Velt's SDK, as a page uses it: what it refuses, and when it asks again.

use super::example::Login;
use super::{Visit, on_the_example};
use crate::neighbour::eventually;

/// Signs ada in, and puts her token and a user object into the page.
async fn with_adas_token(visit: &Visit<'_>) {
    visit.sign_in("ada").await;
    visit.token_of("ada").await;
    let script = "return fetch('/api/velt/token', { method: 'POST' })\
        .then((answer) => answer.json()).then(({ token }) => {\
          window.adasToken = token;\
          window.userOf = (userId, organizationId) => ({ userId, organizationId });\
          return token.length > 0;\
        })";
    assert_eq!(visit.page.script(script).await, true);
}

#[tokio::test(flavor = "multi_thread")]
async fn sdk_stand_in_refuses_a_token_that_does_not_fit() {
    on_the_example("html", Login::Proxy, async |visit| {
        with_adas_token(&visit).await;
        for (user, said) in [
            (
                "userOf('grace', 'acme')",
                "the token is for the user ada, and the page's user is grace",
            ),
            ("userOf('ada', 'other')", "the token is for the organization acme, not for other"),
            ("userOf('ada', undefined)", "user.organizationId is missing"),
        ] {
            let script = format!(
                "const errors = [];\
                 const provider = {{ user: {user}, generateToken: async () => adasToken,\
                   onError: (error) => errors.push(error.message) }};\
                 return Velt.setVeltAuthProvider(provider).then((user) => [user, ...errors])"
            );
            let result = visit.page.script(&script).await;
            assert_eq!(result, serde_json::json!([null, said]), "{user}");
            let shown = visit.page.text("velt-emulator").await;
            assert_eq!(shown, format!("Not signed in to Velt (emulator): {said}"));
            assert_eq!(visit.attribute("data-velt-user").await, "");
        }
        // A token that is not the emulator's is answered with 401, which the test expects.
        for (options, said) in [
            ("{ throwError: true }", "no token was given to Velt"),
            (
                "{ throwError: true, authToken: 'eyJ.e30.x' }",
                "The token is not from this emulator, or has expired.",
            ),
        ] {
            let script = format!(
                "return Velt.identify(userOf('ada', 'acme'), {options})\
                 .then(() => 'signed in', (error) => error.message)"
            );
            assert_eq!(visit.page.script(&script).await, said);
        }
        let script = "return Velt.identify(userOf('ada', 'acme'), { authToken: adasToken })\
            .then(({ userId }) => userId)";
        assert_eq!(visit.page.script(script).await, "ada");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sdk_stand_in_asks_again_when_a_token_expires() {
    on_the_example("html", Login::Proxy, async |visit| {
        with_adas_token(&visit).await;
        // The emulator's answer says that the token has a twentieth of a second left.
        let script = "const send = window.fetch;\
            window.fetch = async (url, options) => {\
              const answer = await send(url, options);\
              if (!String(url).endsWith('/emulator/verify')) return answer;\
              return Response.json({ ...await answer.json(), remainingSeconds: 0.05 });\
            };\
            window.asked = 0;\
            const generateToken = async () => { window.asked += 1; return adasToken; };\
            return Velt.setVeltAuthProvider({ user: userOf('ada', 'acme'), generateToken })\
            .then(() => window.asked)";
        assert_eq!(visit.page.script(script).await, 1);
        let reaches = async |counter: &str, least: u64| {
            let script = format!("return window.{counter}");
            eventually(counter, async || {
                let count = visit.page.script(&script).await.as_u64().unwrap_or_default();
                if count >= least { Ok(()) } else { Err(count.to_string()) }
            })
            .await;
        };
        reaches("asked", 3).await;

        let script = "window.expired = 0;\
            Velt.on('error').subscribe(({ code }) => { window.expired += code === 'token_expired'; });\
            return Velt.identify(userOf('ada', 'acme'), { authToken: adasToken }).then(() => true)";
        assert_eq!(visit.page.script(script).await, true);
        reaches("expired", 1).await;

        let asked = visit.page.script("return Velt.signOutUser().then(() => window.asked)").await;
        let later = "return new Promise((done) => setTimeout(() => done(window.asked), 300))";
        // Six lives of a token: a sign-out that left the timer running would have asked again.
        assert_eq!(visit.page.script(later).await, asked);
        assert_eq!(visit.page.text("velt-emulator").await, "Signed out of Velt (emulator)");
    })
    .await;
}

//! A visitor of a site behind a front: requirements that hold for honest and for forged requests.

use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::front::{Front, ask};
use super::page::Page;
use super::site::{LONG_PATH, SECRET, Site};
use crate::neighbour::claims_of;

/// Ada's password.
pub const PASSWORD: &str = "password-of-ada";

/// Ada's login, and the headers of the page's front about her.
pub struct Visitor<'a> {
    /// Header of Ada's request.
    pub login: (&'a str, &'a str),
    /// Headers in which the front names the user and gives details, with their values.
    pub said: &'a [(&'a str, &'a str)],
    /// Headers that the front could have set, and has not set.
    pub unsaid: &'a [&'a str],
}

pub fn basic(password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("ada:{password}")))
}

/// Asserts the requirements of every front: the user whom the front names gets the token, no header of a
/// client makes another user, and without the front no header is believed.
pub async fn holds(site: &Site, front: &Front, ada: &Visitor<'_>) {
    let (user_header, _) = ada.said[0];
    let route = front.ask(Method::POST, "/api/velt/token", &[ada.login]).await;
    assert_eq!((route.status, route.user()), (StatusCode::OK, json!("ada")));
    let resources = claims_of(route.token.as_deref().expect("a token"))["resources"].take();
    assert_eq!(resources[0]["id"], "your-organization-id");

    let page = front.ask(Method::GET, "/api/me", &[ada.login]).await;
    assert_eq!((page.status, page.user()), (StatusCode::OK, json!("ada")));
    for (name, value) in ada.said {
        assert_eq!(page.body[name.to_lowercase()], json!([value]), "{name} of {page:?}");
    }
    assert!(!page.body.to_string().contains(SECRET), "the app must not see the secret: {page:?}");
    assert_eq!(page.body["authorization"], Value::Null, "nor a password");
    assert_eq!(page.body["x-forwarded-proto"], json!(["http"]));

    let long = front.ask(Method::GET, LONG_PATH, &[ada.login]).await;
    assert_eq!(long.status, StatusCode::OK, "the front refuses a long head: {long:?}");

    forgeries_fail(front, ada).await;
    let asked = site.asked_of_velt();
    assert!(asked.contains("ada"), "no mint was recorded: {asked}");
    for word in ["grace", "\"isAdmin\":true"] {
        assert!(!asked.contains(word), "{word} has reached Velt: {asked}");
    }

    // Without the front, without the secret and with a wrong secret.
    for secret in ["", "a-secret-that-somebody-else-has-thought-of"] {
        let headers = [(user_header, "ada"), ("x-sidecar-secret", secret)];
        let direct = ask(site.sidecar, Method::POST, "/api/velt/token", &headers).await;
        assert_eq!((direct.status, direct.token), (StatusCode::UNAUTHORIZED, None));
        let direct = ask(site.sidecar, Method::GET, "/api/me", &headers).await;
        assert_eq!(direct.body[user_header.to_lowercase()], Value::Null, "{direct:?}");
    }
}

/// Sends the headers that only the front may set, as a client that is signed in as Ada and as an anonymous
/// client.
pub async fn forgeries_fail(front: &Front, ada: &Visitor<'_>) {
    let mut forgeries = vec![vec![("x-forwarded-for".to_owned(), "203.0.113.9")]];
    let said = ada.said.iter().map(|(name, _)| *name);
    for name in said.chain(ada.unsaid.iter().copied()) {
        let (name, alias) = (name.to_owned(), name.replace('-', "_"));
        let guess = ("x-sidecar-secret".to_owned(), "guessed");
        let grace = |name: &String| (name.clone(), "grace");
        forgeries.extend([
            vec![grace(&name)],
            vec![grace(&name), grace(&name)],
            vec![grace(&alias)],
            vec![grace(&name), guess],
        ]);
    }
    for forgery in &forgeries {
        let forgery: Vec<_> = forgery.iter().map(|(name, value)| (&**name, *value)).collect();
        let signed_in: Vec<_> = [ada.login].into_iter().chain(forgery.iter().copied()).collect();
        let seen = front.ask(Method::GET, "/api/me", &signed_in).await;
        if seen.status != StatusCode::BAD_REQUEST {
            assert_eq!(seen.user(), "ada", "{forgery:?}: {seen:?}");
            for word in ["grace", "203.0.113.9", "guessed"] {
                assert!(!seen.body.to_string().contains(word), "{forgery:?}: {seen:?}");
            }
        }
        let stranger = front.ask(Method::POST, "/api/velt/token", &forgery).await;
        assert_eq!(stranger.token, None, "{forgery:?}");
        assert_ne!(stranger.status, StatusCode::OK, "{forgery:?}");
    }
}

/// Runs the page's `curl`, which has to print a token of Ada's.
pub fn curl_shows_it(page: &Page, front: &Front, own: &[(&str, &str)]) {
    let front = format!("http://{}", front.address);
    let own: Vec<_> = own.iter().copied().chain([("https://app.example.com", &*front)]).collect();
    let command = page.filled("sh", 0, &own);
    let printed = Command::new("sh").args(["-c", &command]).env("NO_PROXY", "*").output();
    let printed = printed.expect("a shell");
    let body: Value = serde_json::from_slice(&printed.stdout)
        .unwrap_or_else(|error| panic!("{command}: {error}: {printed:?}"));
    let token = body["token"].as_str().unwrap_or_else(|| panic!("{command}: {body}"));
    assert_eq!(claims_of(token)["userId"], "ada");
}

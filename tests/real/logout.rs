//! Logouts: at a real `OpenID` provider, which tells the sidecar of them, and by the lines of `docs/logout.md`.

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use http::{Request, Response};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use serde_json::json;
use tokio::task::spawn_blocking;

use crate::login::{LOGOUT_PATH, Site, fetch};
use crate::neighbour::{Sidecar, eventually, http_client, serve_app, tool};
use crate::webdriver::Page;

/// Waits until a token route serves a token to the page.
async fn token(page: &Page) -> String {
    // On a busy machine the mint may take longer than the route waits.
    eventually("a token", async || {
        let answer = fetch(page, "/api/velt/token", &json!({ "method": "POST" })).await;
        answer["body"]["token"].as_str().map(str::to_owned).ok_or_else(|| answer.to_string())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logout_at_the_provider_takes_the_token_of_its_user() {
    let provider = OnceLock::<SocketAddr>::new();
    let site = Site::open_with(|address| {
        let _ = provider.set(address);
        [
            ("LOGOUT__OIDC__PATH", LOGOUT_PATH.to_owned()),
            ("LOGOUT__OIDC__ISSUER", format!("http://{address}")),
            ("LOGOUT__OIDC__AUDIENCE", "front".to_owned()),
            ("LOGOUT__OIDC__JWKS_URL", format!("http://{address}/jwks")),
        ]
    })
    .await;
    let provider = provider.get().expect("the site has a provider");
    let front = site.front;
    site.signed_in("grace", async |graces| {
        let hers = token(graces).await;
        site.signed_in("ada", async |page| {
            token(page).await;
            page.navigate(&format!("http://{provider}/session/end")).await;
            page.click("sign-out").await;
            eventually("the end of the session", async || {
                let text = page.script("return document.body.innerText").await;
                if text == "signed out" { Ok(()) } else { Err(text.to_string()) }
            })
            .await;
            // The session at Apache lives on: the app's pages are served, and the token is not.
            page.navigate(&format!("http://{front}/")).await;
            page.expect_failures(401);
            let refused = fetch(page, "/api/velt/token", &json!({ "method": "POST" })).await;
            assert_eq!(
                (&refused["status"], &refused["body"]["code"]),
                (&json!(401), &json!("signed_out"))
            );
            let of_app = fetch(page, "/api/me", &json!({})).await;
            assert_eq!((&of_app["status"], &of_app["token"]), (&json!(200), &json!(null)));
            assert_eq!(of_app["body"]["users"], json!([["x-forwarded-user", "ada"]]));
        })
        .await;
        assert_eq!(token(graces).await, hers, "the same bytes");
    })
    .await;
    let scrape = http_client().get(format!("http://{}/metrics", site.sidecar.addresses.admin));
    let scrape = scrape.send().await.expect("metrics").text().await.expect("text");
    let done = "velt_sidecar_logout_calls_total{result=\"done\"} 1\n";
    assert!(scrape.contains(done), "the provider had 200 for its one call: {scrape}");
}

/// Answers as an app.
fn hello(_: &Request<Incoming>) -> Response<Full<Bytes>> {
    Response::new(Full::from("hello"))
}

/// Returns the shell lines of the document.
fn lines_of_the_document() -> String {
    let document = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/logout.md");
    let text = std::fs::read_to_string(document).expect("docs/logout.md");
    let (_, lines) = text.split_once("```sh\n").expect("shell lines");
    lines.split_once("```").expect("their end").0.to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lines_of_the_document_sign_a_user_out() {
    let (_app, address) = serve_app(hello).await;
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo=";
    let sidecar = Sidecar::start_with(
        address,
        &[
            ("VELT_SIDECAR_LOGOUT__WEBHOOK__PATH", "/velt/logout-webhook"),
            ("VELT_SIDECAR_LOGOUT__WEBHOOK__SECRET", secret),
        ],
    )
    .await;
    let traffic = sidecar.addresses.traffic;
    let status_of = async |user: &str| {
        let asking = http_client().get(format!("http://{traffic}/api/velt/token"));
        asking.header("x-forwarded-user", user).send().await.expect("an answer").status().as_u16()
    };
    assert_eq!((status_of("ada").await, status_of("bob").await), (200, 200));
    for (secret, expected) in
        [("whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", None), (secret, Some("done"))]
    {
        let mut shell = Command::new(tool("sh"));
        shell
            .args(["-c", &lines_of_the_document()])
            .env("SECRET", secret)
            .env("URL", format!("http://{traffic}/velt/logout-webhook"))
            .stdin(Stdio::null());
        let run = spawn_blocking(move || shell.output()).await.expect("no panic").expect("a shell");
        let said = String::from_utf8_lossy(&run.stdout);
        let result = expected.map(|result| format!("{{\"result\":\"{result}\"}}"));
        assert_eq!(
            (run.status.success(), &*said),
            (expected.is_some(), &*result.unwrap_or_default()),
            "{run:?}"
        );
        let ada = if expected.is_some() { 401 } else { 200 };
        assert_eq!((status_of("ada").await, status_of("bob").await), (ada, 200));
    }
}

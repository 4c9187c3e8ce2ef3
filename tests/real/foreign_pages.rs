//! Pages of other hosts, in a real browser that is signed in to the app by a cookie: what they get of a token.

use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac::{HMAC_SHA256, Key, sign};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{CONTENT_TYPE, SET_COOKIE};
use http::{HeaderValue, Request, Response};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use serde_json::{Value, json};

use crate::neighbour::{Sidecar, Task, claims_of, eventually, http_client, serve_app};
use crate::webdriver::{Page, in_browser_with};

const SECRET: &str = "a-secret-that-the-app-and-the-sidecar-share";

/// Settings that read the session from a cookie.
const SETTINGS: [(&str, &str); 6] = [
    ("VELT_SIDECAR_IDENTITY__SOURCE", "assertion"),
    ("VELT_SIDECAR_IDENTITY__ASSERTION__COOKIE", "session"),
    ("VELT_SIDECAR_IDENTITY__ASSERTION__ALGORITHMS", "HS256"),
    ("VELT_SIDECAR_IDENTITY__ASSERTION__ISSUER", "the-app"),
    ("VELT_SIDECAR_IDENTITY__ASSERTION__AUDIENCE", "the-app"),
    ("VELT_SIDECAR_IDENTITY__ASSERTION__SECRET", SECRET),
];

/// A sidecar in front of an app that signs each visitor of `/sign-in` in as ada.
struct Site {
    sidecar: Sidecar,
    _app: Task,
}

impl Site {
    async fn open() -> Self {
        let (app, address) = serve_app(answer).await;
        Self { sidecar: Sidecar::start_with(address, &SETTINGS).await, _app: app }
    }

    /// Address of `path` at a host whose name leads to this machine.
    fn url(&self, host: &str, path: &str) -> String {
        format!("http://{host}:{}{path}", self.sidecar.addresses.traffic.port())
    }

    /// Number of requests that ended with `outcome`.
    async fn count(&self, outcome: &str) -> u64 {
        let url = format!("http://{}/metrics", self.sidecar.addresses.admin);
        let text =
            http_client().get(url).send().await.expect("metrics").text().await.expect("text");
        let series = format!("velt_sidecar_requests_total{{outcome=\"{outcome}\"}} ");
        let line = text.lines().find_map(|line| line.strip_prefix(&series));
        line.expect("a series").parse().expect("a number")
    }
}

/// Answers as the app: with an empty page, and at `/sign-in` with a session for ada.
fn answer(request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from("<!doctype html><title>app</title>"));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    if request.uri().path() == "/sign-in" {
        // The worst that an app may do: browsers send such a cookie along with requests of any site. They take
        // it where they trust the host, as they do `localhost`.
        let trusted =
            request.headers()["host"].to_str().is_ok_and(|host| host.contains("localhost"));
        let more = if trusted { "; SameSite=None; Secure" } else { "" };
        let cookie = format!("session={}; Path=/{more}", session());
        headers.insert(SET_COOKIE, cookie.parse().expect("legal"));
    }
    response
}

fn session() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let claims = json!({ "iss": "the-app", "aud": "the-app", "sub": "ada", "exp": now + 600 });
    let [header, claims] =
        [json!({ "alg": "HS256" }), claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
    let message = format!("{header}.{claims}");
    let signature = sign(&Key::new(HMAC_SHA256, SECRET.as_bytes()), message.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
}

/// Asks for the token of the app at `url` in all ways in which a page can ask with cookies, and waits for the
/// ends of all.
async fn ask_from(page: &Page, url: &str) -> Value {
    let url = Value::from(url);
    page.script(&format!(
        "window.ends = [];\
         const end = (way) => (seen) => window.ends.push([way, String(seen)]);\
         fetch({url}, {{ credentials: 'include' }}).then((r) => r.text()).then(end('read'), end('no'));\
         fetch({url}, {{ credentials: 'include', mode: 'no-cors' }}).then((r) => r.text())\
             .then(end('opaque'), end('no'));\
         for (const tag of ['img', 'script']) {{\
             const element = document.createElement(tag);\
             element.onload = () => end(tag)('loaded');\
             element.onerror = () => end(tag)('failed');\
             element.referrerPolicy = tag === 'img' ? 'no-referrer' : 'unsafe-url';\
             element.src = {url};\
             document.head.append(element);\
         }}"
    ))
    .await;
    eventually("the requests to end", async || {
        let ends = page.script("return window.ends").await;
        if ends.as_array().is_some_and(|ends| ends.len() == 4) {
            Ok(ends)
        } else {
            Err(ends.to_string())
        }
    })
    .await
}

/// Fetches the token as the app's own page.
async fn token_of_own_page(page: &Page) -> String {
    page.script(
        "window.token = null;\
         fetch('/api/velt/token').then((r) => r.json()).then((j) => { window.token = j.token ?? j.code; })",
    )
    .await;
    let token = eventually("the token", async || {
        let token = page.script("return window.token").await;
        token.as_str().map(str::to_owned).ok_or_else(|| token.to_string())
    });
    token.await
}

/// Signs in at `own`, and checks that a page of `own` gets the token and a page of `foreign` none.
async fn check_pages(name: &str, own: &str, foreign: &str, expected_refusals: u64) {
    let site = Site::open().await;
    let rules =
        "--host-resolver-rules=MAP *.example 127.0.0.1, MAP *.localhost 127.0.0.1".to_owned();
    in_browser_with(name, &site.url(own, "/sign-in"), &[rules], async |page| {
        let token = token_of_own_page(page).await;
        assert_eq!(claims_of(&token)["userId"], "ada");
        for part in ["CORS", "ERR_", "403", "401", "MIME", "blocked"] {
            page.expect_complaints(part);
        }
        page.navigate(&site.url(foreign, "/")).await;
        let ends = ask_from(page, &site.url(own, "/api/velt/token")).await.to_string();
        assert!(!ends.contains("eyJ"), "a page of {foreign} has read a token: {ends}");
    })
    .await;
    assert_eq!(site.count("token_served").await, 1, "the own page's");
    let refused = site.count("cross_origin").await;
    assert!(refused >= expected_refusals, "{refused} of {expected_refusals}");
}

#[tokio::test(flavor = "multi_thread")]
async fn t66_page_of_another_site_gets_no_token_by_cookie() {
    check_pages("another_site", "app.localhost", "evil.localhost", 4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn t66_page_of_a_subdomain_gets_no_token_by_cookie() {
    check_pages("subdomain", "app.localhost", "www.app.localhost", 4).await;
}

/// Checks `Origin` and `Referer`, which have to tell where browsers send no Fetch Metadata: over plain HTTP.
#[tokio::test(flavor = "multi_thread")]
async fn t66_page_of_a_subdomain_gets_no_token_over_plain_http() {
    check_pages("subdomain_plain", "app.example", "www.app.example", 4).await;
}

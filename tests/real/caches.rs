//! Real caches between two users and one sidecar: nginx, Varnish and a browser, in front of an app whose
//! answers may be stored in every way that HTTP has.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::header::{CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use serde_json::json;

use crate::neighbour::{Sidecar, Task, claims_of, eventually, http_client, serve_app};
use crate::nginx::{Nginx, Seen, Underscores};
use crate::varnish::{BUILT_IN, NO_RULES, Varnish};
use crate::webdriver::in_browser;

/// Requests of each user for each path.
const ROUNDS: usize = 100;

/// Header sets that let a cache store a response. No set has `Vary`, except the last.
const WAYS: [&[(&str, &str)]; 14] = [
    &[("cache-control", "public, max-age=600")],
    &[("cache-control", "public")],
    &[("cache-control", "max-age=600")],
    &[("cache-control", "private, max-age=600")],
    &[("cache-control", "s-maxage=600")],
    &[("cache-control", "max-age=600, immutable")],
    &[("cache-control", "no-store"), ("cdn-cache-control", "max-age=600")],
    &[("cache-control", "private"), ("surrogate-control", "max-age=600")],
    &[("x-accel-expires", "600")],
    &[("expires", "Wed, 01 Jan 3000 00:00:00 GMT")],
    // The cache revalidates these after a second, or at every request.
    &[("cache-control", "public, max-age=1")],
    &[("cache-control", "no-cache")],
    // The cache guesses a lifetime (RFC 9111 section 4.2.2).
    &[("last-modified", "Mon, 01 Jan 2001 00:00:00 GMT")],
    &[("cache-control", "public, max-age=600"), ("vary", "accept-encoding")],
];

/// Index in [`WAYS`] of a response that a cache revalidates.
const REVALIDATED: usize = 10;

/// Starts an app that answers `/s/<n>` with the `n`th of [`WAYS`] and a validator. Also returns a counter of
/// the app's 304 answers.
async fn serve_storable() -> (Task, std::net::SocketAddr, Arc<AtomicUsize>) {
    let unmodified = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&unmodified);
    let (task, address) = serve_app(move |request| answer(request, &counter)).await;
    (task, address, unmodified)
}

fn answer(request: &Request<Incoming>, unmodified: &AtomicUsize) -> Response<Full<Bytes>> {
    const TAG: &str = "\"v1\"";
    let path = request.uri().path();
    let way = path.strip_prefix("/s/").and_then(|n| WAYS.get(n.parse::<usize>().ok()?));
    let mut response = Response::new(Full::new(Bytes::from(json!({ "path": path }).to_string())));
    let Some(way) = way else {
        if path == "/" {
            *response.body_mut() = Full::new("<!doctype html><title>An app</title>".into());
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/html"));
        }
        return response;
    };
    if request.headers().get(IF_NONE_MATCH).is_some_and(|tag| tag == TAG) {
        unmodified.fetch_add(1, Ordering::Relaxed);
        response = Response::new(Full::default());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    response.headers_mut().insert(ETAG, HeaderValue::from_static(TAG));
    for (name, value) in *way {
        response.headers_mut().append(*name, HeaderValue::from_static(value));
    }
    response
}

fn paths() -> Vec<(Method, String)> {
    let ways = (0..WAYS.len()).map(|n| (Method::GET, format!("/s/{n}")));
    let routes = [
        (Method::GET, "/api/velt/token"),
        (Method::POST, "/api/velt/token"),
        (Method::GET, "/api/velt/token?x.css"),
        (Method::GET, "/generate-velt-jwt-token"),
    ];
    ways.chain(routes.map(|(method, path)| (method, path.to_owned()))).collect()
}

/// Asks for every path as both users in turn, so that each user could get the other user's token, and asserts
/// that neither does. Returns how often each path came from the cache.
async fn interleave(
    request: impl Fn(Method, &str, &str) -> reqwest::RequestBuilder,
) -> BTreeMap<String, usize> {
    let mut hits = BTreeMap::new();
    for round in 0..ROUNDS {
        for (method, path) in paths() {
            for user in ["ada", "grace"] {
                let seen = Seen::of(request(method.clone(), &path, user)).await;
                let what = format!("round {round}: {method} {path} of {user}");
                assert_eq!(seen.status, StatusCode::OK, "{what}");
                let whose = seen.token().map(|token| claims_of(token)["userId"].clone());
                if let Some(whose) = &whose {
                    assert_eq!(whose, user, "{what}: somebody else's token");
                }
                let stored = matches!(seen.header("x-cache"), Some("HIT" | "REVALIDATED"));
                assert!(!(stored && whose.is_some()), "{what}: a token was stored");
                assert!(!path.contains("velt") || whose.is_some(), "{what}: no token");
                *hits.entry(path.clone()).or_default() += usize::from(stored);
            }
        }
    }
    hits
}

#[tokio::test(flavor = "multi_thread")]
async fn t31_nginx_stores_no_token_of_storable_responses() {
    let (_app, app, unmodified) = serve_storable().await;
    let sidecar = Sidecar::start(app).await;
    let cache = "proxy_cache_revalidate on;";
    let nginx = Nginx::caching(sidecar.addresses.traffic, Underscores::Drop, cache).await;
    let hits = interleave(|method, path, user| nginx.request(method, path, user)).await;
    // Proves that nginx would have stored a token: it has stored the other answers.
    for way in [0, 1, 2, 4, 5, 8, 9, 13] {
        let hits = hits[&format!("/s/{way}")];
        assert!(hits >= 2 * ROUNDS - 2, "{:?} was stored: {hits}", WAYS[way]);
    }
    // T30: a revalidated answer is a 304, which must not carry a token either.
    let path = format!("/s/{REVALIDATED}");
    eventually("nginx to revalidate", async || {
        let seen = Seen::of(nginx.request(Method::GET, &path, "grace")).await;
        assert_eq!(seen.token(), None);
        let state = seen.header("x-cache").unwrap_or_default().to_owned();
        if state == "REVALIDATED" { Ok(()) } else { Err(state) }
    })
    .await;
    assert!(unmodified.load(Ordering::Relaxed) > 0, "the app has said 304");
}

#[tokio::test(flavor = "multi_thread")]
async fn t31_varnish_stores_no_token_of_storable_responses() {
    let (_app, app, unmodified) = serve_storable().await;
    let sidecar = Sidecar::start(app).await;
    let varnish = Varnish::start(sidecar.addresses.traffic, BUILT_IN).await;
    let hits = interleave(|method, path, user| varnish.request(method, path, user)).await;
    for way in [0, 1, 2, 4, 5, 7, 9, 13] {
        let hits = hits[&format!("/s/{way}")];
        assert!(hits >= 2 * ROUNDS - 2, "{:?} was stored: {hits}", WAYS[way]);
    }
    eventually("Varnish to revalidate", async || {
        let path = format!("/s/{REVALIDATED}");
        let seen = Seen::of(varnish.request(Method::GET, &path, "grace")).await;
        assert_eq!(seen.token(), None);
        if unmodified.load(Ordering::Relaxed) > 0 { Ok(()) } else { Err("no 304 yet".into()) }
    })
    .await;
}

/// Whether grace gets ada's token when she asks after ada.
async fn crosses(request: impl Fn(&str) -> reqwest::RequestBuilder) -> bool {
    let adas = Seen::of(request("ada")).await;
    let adas = adas.token().expect("a token").to_owned();
    assert_eq!(claims_of(&adas)["userId"], "ada");
    Seen::of(request("grace")).await.token() == Some(&adas)
}

/// Limit of the promise, documented in docs/delivery.md: an operator whose cache is configured to ignore the
/// answers' headers shares every private answer of the app, and the token with it.
#[tokio::test(flavor = "multi_thread")]
async fn t31_cache_that_ignores_headers_shares_a_token() {
    let (_app, app, _) = serve_storable().await;
    let sidecar = Sidecar::start(app).await;
    let at = sidecar.addresses.traffic;
    let deaf = "proxy_ignore_headers Cache-Control Expires Set-Cookie;";
    let nginx = Nginx::caching(at, Underscores::Drop, deaf).await;
    assert!(crosses(|user| nginx.request(Method::GET, "/api/me", user)).await);
    // The answers of the routes have `Vary: *` as well, which this nginx does not ignore.
    for (method, path) in paths().into_iter().filter(|(_, path)| path.contains("velt")) {
        let crossed = crosses(|user| nginx.request(method.clone(), &path, user)).await;
        assert!(!crossed, "{method} {path}");
    }
    let deafer = "proxy_ignore_headers Cache-Control Expires Set-Cookie Vary;";
    let nginx = Nginx::caching(at, Underscores::Drop, deafer).await;
    assert!(crosses(|user| nginx.request(Method::GET, "/api/velt/token", user)).await);

    let varnish = Varnish::start(at, NO_RULES).await;
    assert!(crosses(|user| varnish.request(Method::GET, "/api/me", user)).await);
    assert!(crosses(|user| varnish.request(Method::GET, "/api/velt/token", user)).await);
    // Varnish stores only answers to GET, even with these rules.
    assert!(!crosses(|user| varnish.request(Method::POST, "/api/velt/token", user)).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn t31_a_browser_keeps_no_token_for_the_next_who_signs_in() {
    let (_app, app, _) = serve_storable().await;
    let sidecar = Sidecar::start(app).await;
    let nginx = Nginx::caching(sidecar.addresses.traffic, Underscores::Drop, "").await;
    in_browser("caches", nginx.address, async |page| {
        // Returns every answer's token and the user whose turn it was, for enough rounds to make at least 100
        // requests of each user, with all that the browser has cached.
        let tokens = page
            .script(&format!(
                "return (async () => {{
                    const seen = [];
                    for (let round = 0; round < 10; round++) {{
                        for (const user of ['ada', 'grace']) {{
                            document.cookie = 'session=of-' + user + '; path=/';
                            for (const path of {paths}) {{
                                const answer = await fetch(path);
                                const body = await answer.json();
                                const token = answer.headers.get('x-velt-token');
                                seen.push([user, path, token ?? body.token ?? null]);
                            }}
                        }}
                    }}
                    return seen;
                }})()",
                paths = json!(
                    (0..WAYS.len())
                        .map(|n| format!("/s/{n}"))
                        .chain(["/api/velt/token".into()])
                        .collect::<Vec<_>>()
                ),
            ))
            .await;
        let mut with_token = BTreeSet::new();
        let seen = tokens.as_array().expect("a list");
        assert_eq!(seen.len(), 2 * 10 * (WAYS.len() + 1));
        for one in seen {
            let [user, path, token] = &one.as_array().expect("three")[..] else { panic!("{one}") };
            if let Some(token) = token.as_str() {
                assert_eq!(claims_of(token)["userId"], *user, "{path}");
                with_token.insert(path.as_str().expect("a path"));
            }
        }
        assert_eq!(with_token, BTreeSet::from(["/api/velt/token", "/s/11", "/s/12"]));
    })
    .await;
}

/// Returns how many requests for a token have ended with this outcome.
async fn counted(sidecar: &Sidecar, outcome: &str) -> usize {
    let url = format!("http://{}/metrics", sidecar.addresses.admin);
    let scrape = http_client().get(url).send().await.expect("an answer").text().await;
    let scrape = scrape.expect("to its end");
    let series = format!("velt_sidecar_requests_total{{outcome=\"{outcome}\"}} ");
    let value = scrape.lines().find_map(|line| line.strip_prefix(&series));
    value.expect("the series").parse().expect("a number")
}

#[tokio::test(flavor = "multi_thread")]
async fn t32_browser_marks_requests_of_other_origins() {
    for (allowed, refused) in [("false", 3), ("true", 2)] {
        let (_app, app, _) = serve_storable().await;
        let setting = [("VELT_SIDECAR_DELIVERY__ALLOW_SAME_SITE", allowed)];
        let sidecar = Sidecar::start_with(app, &setting).await;
        let at = sidecar.addresses.traffic;
        let nginx = Nginx::caching(at, Underscores::Drop, "").await;
        // Another port is another origin of the same site, and gets the same cookies.
        let sibling = Nginx::caching(at, Underscores::Drop, "").await;
        in_browser("cross_origin", nginx.address, async |page| {
            page.expect_failures(403);
            page.expect_complaints("ERR_BLOCKED_BY_RESPONSE");
            page.expect_complaints("CORS");
            page.expect_complaints("net::ERR_FAILED");
            let ask = async |origin: &str, options: &str| {
                page.script(&format!(
                    "document.cookie = 'session=of-ada; path=/';
                     return fetch('{origin}/api/velt/token', {options})
                         .then((answer) => answer.text()).catch((error) => 'blocked')"
                ))
                .await
            };
            let own = ask("", "{ method: 'POST' }").await;
            assert!(own.as_str().expect("a text").contains("eyJ"), "{own}");
            let foreign = format!("http://localhost:{}", nginx.address.port());
            let sibling = format!("http://{}", sibling.address);
            for (origin, options) in [
                (&foreign, "{ method: 'POST', mode: 'no-cors', credentials: 'include' }"),
                (&foreign, "{ credentials: 'include' }"),
                (&sibling, "{ method: 'POST', mode: 'no-cors', credentials: 'include' }"),
            ] {
                // A page of another origin can read no answer, regardless of the sidecar's count.
                assert_eq!(ask(origin, options).await, "blocked", "{origin} {options}");
            }
            assert_eq!(counted(&sidecar, "cross_origin").await, refused);
            assert_eq!(counted(&sidecar, "token_served").await, 4 - refused);
            // Opens the route in the address bar.
            page.navigate(&format!("http://{}/api/velt/token", nginx.address)).await;
            assert_eq!(counted(&sidecar, "token_served").await, 5 - refused);
        })
        .await;
    }
}

//! Pages of the app's own origin get a token; no other page gets a token, and no cache may keep a token.

use http::{HeaderValue, Method};

use crate::support::Stage;
use crate::support::app::{FakeApp, plain};
use crate::support::client::Answer;
use crate::support::velt::user_of;

/// Values of `Sec-Fetch-Site` that a browser may send, and whether the page gets a token.
const SITES: &[(&[&str], bool)] = &[
    (&[], true),
    (&["same-origin"], true),
    (&["none"], true),
    (&["same-site"], false),
    (&["cross-site"], false),
    (&["Same-Origin"], false),
    (&["same-origin, cross-site"], false),
    (&["same-origin", "cross-site"], false),
    (&[""], false),
    (&["something-new"], false),
];

#[tokio::test]
async fn t32_page_of_another_origin_gets_no_token_and_no_mint() {
    let stage = Stage::set("").await;
    let refused = SITES.iter().filter(|(_, passes)| !passes);
    // The refused requests come first, so that a look-up would show as a mint.
    for (sites, passes) in refused.chain(SITES.iter().filter(|(_, passes)| *passes)) {
        for (method, path) in [
            (Method::GET, "/api/velt/token"),
            (Method::POST, "/api/velt/token"),
            (Method::POST, "/generate-velt-jwt-token"),
        ] {
            let asking = stage.client().request(method, path).header("x-forwarded-user", "ada");
            let asking = asking.header("origin", "https://evil.example");
            let asking =
                sites.iter().fold(asking, |asking, site| asking.header("sec-fetch-site", site));
            let answer = asking.send().await;
            if *passes {
                let json = answer.json();
                let token = json.as_str().or(json["token"].as_str()).expect("a token");
                assert_eq!((answer.status(), &*user_of(token)), (200, "ada"), "{sites:?}");
            } else {
                assert_eq!((answer.status(), &*answer.code()), (403, "cross_origin"), "{sites:?}");
                assert_eq!(stage.velt.call_count(), 0, "{sites:?}");
            }
            no_cors(&answer);
        }
    }
    let refusals = SITES.iter().filter(|(_, passes)| !passes).count() as f64 * 3.0;
    assert_eq!(stage.metric("requests_total{outcome=\"cross_origin\"}").await, refusals);
    assert_eq!(stage.app.journal().len(), 0, "it stays our path");
}

#[tokio::test]
async fn t32_app_is_not_asked_for_a_page_of_another_origin() {
    let stage = Stage::set("[identity]\nsource = \"app\"\napp_path = \"/session\"").await;
    for (site, status, asked) in [("cross-site", 403, 0), ("same-site", 403, 0), ("none", 401, 1)] {
        let asking = stage.client().post("/api/velt/token", "").header("cookie", "session=1");
        let answer = asking.header("sec-fetch-site", site).send().await;
        assert_eq!((answer.status(), stage.app.journal().len()), (status, asked), "{site}");
    }
}

/// Asserts that no page elsewhere may read the answer, and that the answer repeats nothing of the
/// request's origin.
fn no_cors(answer: &Answer) {
    let named = |prefix| answer.headers().keys().any(|name| name.as_str().starts_with(prefix));
    assert!(!named("access-control-"), "{answer:?}");
    assert!(!format!("{answer:?}").contains("evil.example"), "{answer:?}");
    assert_eq!(answer.header("cross-origin-resource-policy"), Some("same-origin"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(answer.header("vary"), Some("*"));
}

#[tokio::test]
async fn t32_a_preflight_is_told_nothing() {
    let stage = Stage::set("").await;
    for site in ["cross-site", "same-site", "same-origin"] {
        let asking = stage.client().request(Method::OPTIONS, "/api/velt/token");
        let asking = asking.header("origin", "https://evil.example").header("sec-fetch-site", site);
        let asking = asking.header("access-control-request-method", "POST");
        let answer = asking.header("access-control-request-headers", "x-a").send().await;
        let status = if site == "same-origin" { 405 } else { 403 };
        assert_eq!(answer.status(), status, "{site}");
        no_cors(&answer);
    }
}

#[tokio::test]
async fn t32_pages_of_the_same_site_can_be_let_in() {
    let stage = Stage::set("[delivery]\nallow_same_site = true").await;
    for (site, status) in [("same-site", 200), ("same-origin", 200), ("cross-site", 403)] {
        let asking = stage.client().get("/api/velt/token").header("x-forwarded-user", "ada");
        let answer = asking.header("sec-fetch-site", site).send().await;
        assert_eq!(answer.status(), status, "{site}");
        no_cors(&answer);
    }
}

#[tokio::test]
async fn t32_app_decides_its_own_answers_to_other_origins() {
    let stage = Stage::set("").await;
    let asking = stage.client().get("/api/me").header("x-forwarded-user", "ada");
    let answer = asking.header("sec-fetch-site", "cross-site").send().await;
    assert_eq!((answer.status(), answer.text()), (200, "hello from the app".to_owned()));
}

#[tokio::test]
async fn t29_response_with_a_token_forbids_storing() {
    // Caching that an app may ask for without losing the token.
    const SAID: [&[(&str, &str)]; 7] = [
        &[],
        &[("cache-control", "private")],
        &[("cache-control", "no-cache"), ("etag", "\"1\"")],
        &[("cache-control", "max-age=0, must-revalidate"), ("x-app-1", "1")],
        &[("cache-control", "no-store, max-age=600, public")],
        &[("cache-control", "no-cache"), ("cache-control", "no-transform")],
        &[("cdn-cache-control", "no-store")],
    ];
    let app = FakeApp::answering(|arrived| {
        let n: usize = arrived.target[1..].parse().expect("a number");
        let mut response = plain("x");
        for (name, value) in SAID[n] {
            response.headers_mut().append(*name, HeaderValue::from_static(value));
        }
        response.headers_mut().insert("vary", HeaderValue::from_static("accept"));
        response
    })
    .await;
    let stage = Stage::with(app, "[delivery.header]\nmax_wait = \"20s\"").await;
    for (n, said) in SAID.iter().enumerate() {
        let answer = stage.get_as("ada", &format!("/{n}")).await;
        assert!(answer.token().is_some(), "{said:?}");
        let transform = if n == 5 { ", no-transform" } else { "" };
        let expected = format!("private, no-store{transform}");
        assert_eq!(answer.header("cache-control"), Some(&*expected), "{said:?}");
        // `*` would keep service workers from storing the app's own responses.
        assert_eq!(answer.header("vary"), Some("accept"), "{said:?}");
    }
    for path in ["/api/velt/token", "/generate-velt-jwt-token"] {
        for answer in [stage.get_as("ada", path).await, stage.client().get(path).send().await] {
            no_cors(&answer);
        }
    }
}

/// Headers that browsers send with a request ahead of the user, and headers of other requests.
const PURPOSES: [(&str, &str, bool); 9] = [
    ("sec-purpose", "prefetch", true),
    ("sec-purpose", "prefetch;prerender", true),
    ("sec-purpose", "prefetch; anonymous-client-ip", true),
    ("sec-purpose", "Prefetch", true),
    ("purpose", "prefetch", true),
    ("x-purpose", "preview", true),
    ("x-moz", "prefetch", true),
    ("sec-purpose", "something-new", false),
    ("x-other", "prefetch", false),
];

#[tokio::test]
async fn prefetch_gets_no_token_and_may_be_kept() {
    let app = FakeApp::answering(|_| {
        let mut response = plain("x");
        let value = HeaderValue::from_static("private, no-cache");
        response.headers_mut().insert("cache-control", value);
        response
    })
    .await;
    let stage = Stage::with(app, "[delivery.header]\nmax_wait = \"20s\"").await;
    for (name, value, ahead) in PURPOSES {
        let asking = stage.client().get("/api/me").header("x-forwarded-user", "ada");
        let answer = asking.header("sec-fetch-dest", "empty").header(name, value).send().await;
        assert_eq!(answer.status(), 200, "{name}: {value}");
        assert_eq!(answer.token().is_none(), ahead, "{name}: {value}");
        assert_eq!(answer.token_status(), None, "{name}: {value}");
        let expected = if ahead { "private, no-cache" } else { "private, no-store" };
        assert_eq!(answer.header("cache-control"), Some(expected), "{name}: {value}");
        assert_eq!(stage.velt.call_count(), usize::from(!ahead), "{name}: {value}");
    }
    let arrived = stage.app.journal();
    assert_eq!(arrived[0].header("sec-purpose"), Some("prefetch"), "the app is told");
    let asking = stage.client().get("/api/me").header("sec-purpose", "prefetch").send().await;
    assert_eq!(asking.token_status(), None, "nor for a user who has a token");
    let asking = stage.client().post("/api/velt/token", "").header("x-forwarded-user", "ada");
    assert_eq!(asking.header("sec-purpose", "prefetch").send().await.status(), 200, "a route");
}

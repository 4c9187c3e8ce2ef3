//! The main job: a token for a known caller, by both ways, minted once.

use crate::support::app::{FakeApp, full, plain};
use crate::support::velt::{jwt, minted, unix_seconds, user_of};
use crate::support::{AUTH_TOKEN, Stage};
use http::{Method, Response};

#[tokio::test]
async fn known_user_gets_a_token_in_the_response_header() {
    let stage = Stage::set("").await;
    let answer = stage.get_as("ada", "/api/me").await;
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.text(), "hello from the app");
    assert_eq!(user_of(answer.token().expect("a token")), "ada");
    assert_eq!(answer.header("cache-control"), Some("private, no-store"));
    assert_eq!(answer.token_status(), None);
    assert_eq!(answer.header("x-app-header"), Some("1"));
}

#[tokio::test]
async fn both_routes_serve_the_same_token_in_their_shapes() {
    let stage = Stage::set("").await;
    let header = stage.get_as("ada", "/").await.token().expect("a token").to_owned();
    for method in [Method::GET, Method::POST] {
        let route = |path| {
            let sending = stage.client().request(method.clone(), path);
            sending.header("x-forwarded-user", "ada").send()
        };
        let object = route("/api/velt/token").await;
        assert_eq!(object.json()["token"], *header);
        let string = route("/generate-velt-jwt-token").await;
        assert_eq!(string.json(), serde_json::json!(header));
        for answer in [object, string] {
            assert_eq!(answer.status(), 200);
            assert_eq!(answer.header("content-type"), Some("application/json"));
            assert_eq!(answer.header("cache-control"), Some("no-store"));
            assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
            assert_eq!(answer.header("cross-origin-resource-policy"), Some("same-origin"));
        }
    }
    assert_eq!(stage.velt.call_count(), 1);
    assert_eq!(stage.app.journal().len(), 1, "the routes are not the app's");
}

#[tokio::test]
async fn a_thousand_requests_for_one_cold_user_cost_one_mint() {
    let stage = Stage::set("").await;
    stage.velt.close_gate();
    let requests: Vec<_> = (0..1000)
        .map(|_| {
            let sending = stage.client().get("/api/velt/token").header("x-forwarded-user", "ada");
            tokio::spawn(sending.send())
        })
        .collect();
    let waiting = "token_lookups_total{result=\"joined\"}";
    stage.sidecar.metric_reaches(waiting, 999.0).await;
    stage.velt.open_gate();
    let mut tokens = std::collections::BTreeSet::new();
    for request in requests {
        let answer = request.await.expect("no panic");
        assert_eq!(answer.status(), 200);
        tokens.insert(answer.text());
    }
    assert_eq!(tokens.len(), 1);
    assert_eq!(stage.velt.call_count(), 1);
}

#[tokio::test]
async fn thousand_requests_of_hundred_cold_users_cost_hundred_mints() {
    let stage = Stage::set("[velt]\nmax_concurrent = 100").await;
    stage.velt.close_gate();
    let requests: Vec<_> = (0..1000)
        .map(|n| {
            let user = format!("user-{}", n % 100);
            let sending = stage.client().get("/api/velt/token").header("x-forwarded-user", &user);
            (user, tokio::spawn(sending.send()))
        })
        .collect();
    stage.sidecar.metric_reaches("token_lookups_total{result=\"joined\"}", 900.0).await;
    stage.velt.open_gate();
    for (user, request) in requests {
        let answer = request.await.expect("no panic");
        let token = answer.json()["token"].as_str().expect("a token").to_owned();
        assert_eq!(user_of(&token), user);
    }
    let by_user = stage.velt.calls_by_user();
    assert_eq!(by_user.len(), 100);
    assert!(by_user.values().all(|calls| *calls == 1), "{by_user:?}");
}

#[tokio::test]
async fn anonymous_requests_go_through_without_a_token_and_say_so() {
    let stage = Stage::set("").await;
    let answer = stage.client().get("/").send().await;
    assert_eq!((answer.status(), answer.token()), (200, None));
    assert_eq!(answer.token_status(), Some("anonymous"));
    assert_eq!(answer.header("cache-control"), None, "nothing to protect, nothing changed");
    let route = stage.client().post("/api/velt/token", "").send().await;
    assert_eq!((route.status(), &*route.code()), (401, "no_identity"));
    assert_eq!(stage.velt.call_count(), 0);
}

#[tokio::test]
async fn a_posted_user_id_must_be_the_callers() {
    let stage = Stage::set("").await;
    let post = |body: &'static str| {
        let sending = stage.client().post("/api/velt/token", body);
        sending.header("x-forwarded-user", "42").send()
    };
    for fine in [
        "",
        "{}",
        "not json",
        "[1]",
        r#"{"userId":"42"}"#,
        r#"{"userId":42}"#,
        r#"{"userId":null}"#,
    ] {
        assert_eq!(post(fine).await.status(), 200, "{fine}");
    }
    for wrong in [r#"{"userId":"43"}"#, r#"{"userId":43}"#, r#"{"userId":["42"]}"#] {
        let answer = post(wrong).await;
        assert_eq!((answer.status(), &*answer.code()), (403, "user_mismatch"), "{wrong}");
    }
}

#[tokio::test]
async fn a_route_refuses_other_methods_and_large_bodies() {
    let stage = Stage::set("").await;
    for method in [Method::PUT, Method::DELETE, Method::PATCH, Method::OPTIONS] {
        let sending = stage.client().request(method.clone(), "/api/velt/token");
        let answer = sending.header("x-forwarded-user", "ada").send().await;
        assert_eq!(answer.status(), 405, "{method}");
        assert_eq!(answer.header("allow"), Some("GET, HEAD, POST"));
    }
    let large = stage.client().post("/api/velt/token", vec![b' '; 64 * 1024 + 1]);
    let answer = large.header("x-forwarded-user", "ada").send().await;
    assert_eq!((answer.status(), &*answer.code()), (413, "body_too_large"));
}

#[tokio::test]
async fn a_route_answers_head_as_get_without_the_content() {
    let stage = Stage::set("").await;
    for user in ["ada", ""] {
        let asking = |method: Method| {
            let sending = stage.client().request(method, "/api/velt/token");
            sending.header("x-forwarded-user", user)
        };
        let got = asking(Method::GET).send().await;
        let length = got.text().len().to_string();
        for head in [asking(Method::HEAD).send().await, asking(Method::HEAD).send_http2().await] {
            assert_eq!((head.status(), head.text().len()), (got.status(), 0), "{user:?}");
            assert_eq!(head.header("content-length"), Some(&*length), "as long as GET's");
            for name in ["content-type", "cache-control", "vary", "www-authenticate"] {
                assert_eq!(head.header(name), got.header(name), "{name}");
            }
        }
    }
    assert_eq!(stage.velt.call_count(), 1, "HEAD asks for the same token");
    // Errors beside the routes have no content for HEAD either.
    let twice = stage.client().request(Method::HEAD, "/").header("x-forwarded-user", "a");
    let refused = twice.header("x-forwarded-user", "b").send_http2().await;
    assert_eq!((refused.status(), refused.text().len()), (400, 0));
}

#[tokio::test]
async fn each_401_names_a_challenge_for_which_no_browser_asks() {
    let stage = Stage::set("").await;
    let app = "[identity]\nsource = \"app\"\napp_path = \"/me\"";
    for stage in [stage, Stage::set(app).await] {
        for sending in [
            stage.client().get("/api/velt/token"),
            stage.client().post("/api/velt/token", "{}"),
            stage.client().request(Method::HEAD, "/generate-velt-jwt-token"),
        ] {
            let answer = sending.send().await;
            assert_eq!(answer.status(), 401);
            let challenge = answer.header("www-authenticate");
            assert_eq!(challenge, Some("Bearer realm=\"velt-sidecar\""));
        }
    }
}

#[tokio::test]
async fn body_limit_of_a_route_can_be_set() {
    let stage = Stage::set("[delivery]\nmax_body = \"1KiB\"").await;
    for (length, expected) in [(1024, 200), (1025, 413)] {
        let body = stage.client().post("/api/velt/token", vec![b' '; length]);
        let answer = body.header("x-forwarded-user", "ada").send().await;
        assert_eq!(answer.status(), expected, "{length} bytes: {}", answer.text());
    }
}

#[tokio::test]
async fn only_the_one_spelling_of_a_route_serves_a_token() {
    let stage = Stage::set("[delivery.header]\nenabled = false").await;
    let spellings = [
        "/API/velt/token",
        "/api/velt/token/",
        "//api/velt/token",
        "/api//velt/token",
        "/./api/velt/token",
        "/api/x/../velt/token",
        "/api/velt%2ftoken",
        "/api/velt/%74oken",
        "/api/velt/token;x",
        "/api/velt/token.css",
        "/api/velt/token%00",
        "/api/velt/token%23",
        "http://app.example/api/velt/token",
    ];
    for (n, path) in spellings.into_iter().enumerate() {
        let answer = stage.get_as("ada", path).await;
        assert_eq!(answer.text(), "hello from the app", "{path}");
        let arrived = stage.app.journal().pop().expect("it arrived").target;
        assert_eq!(arrived, path.trim_start_matches("http://app.example"), "byte for byte");
        assert_eq!(stage.app.journal().len(), n + 1);
    }
    assert_eq!(stage.velt.call_count(), 0);
    let with_query = stage.get_as("ada", "/api/velt/token?userId=grace").await;
    assert_eq!(user_of(with_query.json()["token"].as_str().expect("a token")), "ada");
}

#[tokio::test]
async fn token_header_is_only_on_readable_and_unstored_responses() {
    let app = FakeApp::answering(|arrived| match &*arrived.target {
        "/storable" => {
            let mut response = plain("x");
            response.headers_mut().insert("cache-control", "public".parse().expect("a value"));
            response
        }
        "/missing" => Response::builder().status(404).body(full("")).expect("a response"),
        "/moved" => {
            let moved = Response::builder().status(302).header("location", "/");
            moved.body(full("")).expect("a response")
        }
        "/same" => Response::builder().status(304).body(full("")).expect("a response"),
        "/part" => Response::builder().status(206).body(full("x")).expect("a response"),
        _ => plain("x"),
    })
    .await;
    let stage = Stage::with(app, "").await;
    for path in ["/storable", "/missing", "/moved", "/same", "/part"] {
        let answer = stage.get_as("ada", path).await;
        assert_eq!((answer.token(), answer.token_status()), (None, None), "{path}");
    }
    assert_eq!(stage.get_as("ada", "/storable").await.header("cache-control"), Some("public"));
    let document = stage.client().get("/").header("x-forwarded-user", "ada");
    let document = document.header("sec-fetch-dest", "document").send().await;
    assert_eq!((document.token(), document.token_status()), (None, None));
    let fetch = stage.client().get("/").header("x-forwarded-user", "ada");
    assert!(fetch.header("sec-fetch-dest", "empty").send().await.token().is_some());
}

#[tokio::test]
async fn forged_token_header_survives_in_neither_direction() {
    let app = FakeApp::answering(|_| {
        let mut response = plain("x");
        for name in ["x-velt-token", "x-velt-token-status"] {
            response.headers_mut().append(name, "forged".parse().expect("a value"));
            response.headers_mut().append(name, "twice".parse().expect("a value"));
        }
        response.headers_mut().append("connection", "x-velt-token".parse().expect("a value"));
        response
    })
    .await;
    let stage = Stage::with(app, "").await;
    let sending = stage.client().get("/").header("x-forwarded-user", "ada");
    let known = sending.header("x-velt-token", "forged").send().await;
    assert_eq!(user_of(known.token().expect("a token")), "ada");
    assert_eq!(known.token_status(), None);
    let anonymous = stage.client().get("/").send().await;
    assert_eq!((anonymous.token(), anonymous.token_status()), (None, Some("anonymous")));
    assert!(stage.app.journal().iter().all(|arrived| arrived.header("x-velt-token").is_none()));
    assert!(stage.metric("spoof_attempts_total{kind=\"token_header\"}").await >= 1.0);
}

#[tokio::test]
async fn slow_mint_holds_a_response_for_max_wait_and_goes_on() {
    let stage = Stage::set("[delivery.header]\nmax_wait = \"20ms\"").await;
    stage.velt.close_gate();
    let answer = stage.get_as("ada", "/").await;
    assert_eq!((answer.status(), answer.token()), (200, None));
    assert_eq!(answer.token_status(), Some("pending"));
    assert_eq!(answer.header("cache-control"), Some("private, no-store"), "it will be otherwise");
    stage.velt.open_gate();
    stage.sidecar.metric_reaches("mints_total{outcome=\"minted\"}", 1.0).await;
    assert!(stage.get_as("ada", "/").await.token().is_some());
    assert_eq!(stage.velt.call_count(), 1);
}

#[tokio::test]
async fn a_mint_survives_the_caller_who_started_it() {
    let stage = Stage::set("").await;
    stage.velt.close_gate();
    let sending = stage.client().get("/api/velt/token").header("x-forwarded-user", "ada");
    let leaving = tokio::spawn(sending.send());
    stage.velt.calls_reach(1).await;
    leaving.abort();
    stage.sidecar.metric_reaches("requests_total{outcome=\"client_gone\"}", 1.0).await;
    stage.velt.open_gate();
    stage.sidecar.metric_reaches("mints_total{outcome=\"minted\"}", 1.0).await;
    assert_eq!(stage.get_as("ada", "/api/velt/token").await.status(), 200);
    assert_eq!(stage.velt.call_count(), 1);
}

#[tokio::test]
async fn refuse_asks_the_app_only_after_there_is_a_token() {
    let stage = Stage::set("[delivery.header]\non_failure = \"refuse\"\nmax_wait = \"5s\"").await;
    stage.velt.answer_with(503, "{}");
    let refused = stage.get_as("ada", "/").await;
    assert_eq!((refused.status(), &*refused.code()), (503, "token_unavailable"));
    assert!(refused.header("retry-after").is_some());
    assert_eq!(stage.app.journal().len(), 0);
    assert_eq!(stage.client().get("/").send().await.status(), 200, "anonymous callers pass");
}

#[tokio::test]
async fn refuse_answers_after_max_wait_and_the_mint_goes_on() {
    let stage = Stage::set("[delivery.header]\non_failure = \"refuse\"\nmax_wait = \"1s\"").await;
    stage.velt.close_gate();
    let refused = stage.get_as("ada", "/").await;
    assert_eq!((refused.status(), &*refused.code()), (504, "token_pending"));
    assert_eq!(stage.app.journal().len(), 0);
    stage.velt.open_gate();
    stage.sidecar.metric_reaches("mints_total{outcome=\"minted\"}", 1.0).await;
    assert!(stage.get_as("ada", "/").await.token().is_some());
    assert_eq!((stage.velt.call_count(), stage.app.journal().len()), (1, 1));
}

#[tokio::test]
async fn route_and_header_work_over_http2() {
    let stage = Stage::set("").await;
    let ada = || stage.client().get("/api/velt/token").header("x-forwarded-user", "ada");
    let (one, two) = (ada().send_http2().await, ada().send().await);
    assert_eq!(one.text(), two.text());
    let header =
        stage.client().get("/x?y=%2F").header("x-forwarded-user", "ada").send_http2().await;
    assert_eq!(user_of(header.token().expect("a token")), "ada");
    let arrived = stage.app.only();
    assert_eq!((&*arrived.target, arrived.header("host")), ("/x?y=%2F", Some("app.example")));
}

#[tokio::test]
async fn no_secret_or_user_reaches_answers_and_metrics() {
    let stage = Stage::set("").await;
    stage.get_as("ada", "/").await;
    let anonymous = stage.client().get("/").send().await;
    assert!(!format!("{anonymous:?}").contains(AUTH_TOKEN));
    let scrape = stage.sidecar.scrape().await;
    for canary in ["ada", AUTH_TOKEN, crate::support::API_KEY, "eyJ"] {
        assert!(!scrape.contains(canary), "{canary} is in the metrics");
    }
}

#[tokio::test]
async fn token_that_expired_while_the_app_worked_is_replaced() {
    for on_failure in ["omit", "refuse"] {
        token_expires_while_the_app_works(on_failure).await;
    }
}

async fn token_expires_while_the_app_works(on_failure: &str) {
    let (gate, app) = FakeApp::gated().await;
    let header = format!("[delivery.header]\nmax_wait = \"10s\"\non_failure = \"{on_failure}\"");
    let stage = Stage::with(app, &header).await;
    stage.velt.script(|call, n| {
        let life = if n == 1 { 2 } else { 3600 };
        let exp = unix_seconds() + life;
        minted(&jwt(&serde_json::json!({ "userId": call.user(), "n": n, "exp": exp })))
    });
    let first = stage.get_as("ada", "/api/velt/token").await.text();
    let waiting = tokio::spawn(stage.client().get("/").header("x-forwarded-user", "ada").send());
    stage.app.requests_reach(1).await;
    // The life of a token is counted in whole seconds, so its end has to be waited for.
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    gate.send_replace(true);
    let answer = waiting.await.expect("no panic");
    let token = answer.token().expect("a token");
    assert!(!first.contains(token), "the first token has expired: {on_failure}");
    assert_eq!(stage.velt.call_count(), 2);
}

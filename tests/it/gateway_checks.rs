//! Checks of gateways (`auth_request`, `forward_auth`, `ForwardAuth`, `ext_authz`), beside an app and without one.

use std::time::Duration;

use http::Method;
use tokio::time::Instant;

use crate::support::app::{FakeApp, plain};
use crate::support::client::{Answer, Sending};
use crate::support::raw::Wire;
use crate::support::velt::user_of;
use crate::support::{PATIENCE, Stage};

const CHECK: &str = "[delivery.check]\npath = \"/velt/check\"\nmax_wait = \"20s\"\n";
const STRICT: &str =
    "[delivery.check]\npath = \"/velt/check\"\nmax_wait = \"20s\"\nrequire_user = true\n";
const SECRET: &str = "a-secret-of-the-gateway-with-32-bytes";

/// Asks as a gateway whose client is `user`.
fn check(stage: &Stage, user: &str) -> Sending {
    stage.client().get("/velt/check").header("x-forwarded-user", user)
}

/// Returns the user of the token, or the status.
fn told(answer: &Answer) -> (Option<String>, Option<&str>) {
    (answer.token().map(user_of), answer.token_status())
}

/// Asserts what holds for each answer that lets the gateway's client pass.
fn passes(answer: &Answer, of: &str) {
    assert_eq!(answer.status(), 200, "{of}");
    assert!(answer.body().is_empty(), "{of}");
    assert_eq!(answer.header("content-type"), None, "{of}");
    assert_eq!(answer.header("cache-control"), Some("private, no-store"), "{of}");
    assert_eq!(answer.header("vary"), Some("*"), "{of}");
    assert_ne!(answer.token().is_some(), answer.token_status().is_some(), "{of}");
}

#[tokio::test]
async fn check_answers_with_the_token_of_the_gateways_client() {
    let stage = Stage::set(CHECK).await;
    for method in [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::OPTIONS] {
        // Envoy appends the path of its client's request.
        for path in ["/velt/check", "/velt/check?rd=1", "/velt/check/api/me?a=1", "/velt/check*"] {
            for user in ["ada", "grace"] {
                let sending = stage.client().request(method.clone(), path);
                let sending = sending.header("x-forwarded-user", user);
                let answer = sending.send().await;
                passes(&answer, &format!("{method} {path}"));
                assert_eq!(told(&answer), (Some(user.to_owned()), None), "{method} {path}");
            }
        }
    }
    assert!(stage.app.journal().is_empty(), "no check reaches the app");
    assert_eq!(stage.velt.call_count(), 2);
    assert_eq!(stage.metric("check_deliveries_total{result=\"injected\"}").await, 40.0);
    assert_eq!(stage.metric("requests_total{outcome=\"check_answered\"}").await, 40.0);
}

#[tokio::test]
async fn check_is_answered_over_http2_too() {
    let stage = Stage::set(CHECK).await;
    let sending = stage.client().post("/velt/check/upload", "a body that is not read");
    let answer = sending.header("x-forwarded-user", "ada").send_http2().await;
    passes(&answer, "HTTP/2");
    assert_eq!(told(&answer).0.as_deref(), Some("ada"));
}

#[tokio::test]
async fn other_spellings_of_the_check_are_the_apps() {
    let stage = Stage::set(CHECK).await;
    for path in ["/velt/checks", "//velt/check", "/velt%2Fcheck", "/VELT/CHECK", "/velt"] {
        let answer = stage.get_as("ada", path).await;
        assert_eq!(answer.text(), "hello from the app", "{path}");
    }
    let off = Stage::set("").await;
    assert_eq!(off.get_as("ada", "/velt/check").await.text(), "hello from the app");
}

#[tokio::test]
async fn check_without_a_token_lets_the_client_pass() {
    let stage = Stage::set(CHECK).await;
    passes(&stage.client().get("/velt/check").send().await, "no user");
    assert_eq!(told(&stage.client().get("/velt/check").send().await).1, Some("anonymous"));
    for (user, status) in [("", "anonymous"), ("(null)", "anonymous"), ("ada,eve", "ambiguous")] {
        let answer = check(&stage, user).send().await;
        passes(&answer, user);
        assert_eq!(told(&answer), (None, Some(status)), "{user}");
    }
    let twice = check(&stage, "ada").header("x-forwarded-user", "eve").send().await;
    passes(&twice, "twice");
    assert_eq!(told(&twice), (None, Some("ambiguous")));
    // With Velt down, each client passes too, and a cached token is served.
    assert_eq!(told(&check(&stage, "grace").send().await).0.as_deref(), Some("grace"));
    stage.velt.answer_with(503, "");
    let down = check(&stage, "ada").send().await;
    passes(&down, "Velt is down");
    assert_eq!(told(&down), (None, Some("unavailable")));
    assert_eq!(told(&check(&stage, "grace").send().await).0.as_deref(), Some("grace"));
    for (result, count) in [("anonymous", 4.0), ("failed", 3.0), ("injected", 2.0)] {
        let series = format!("check_deliveries_total{{result=\"{result}\"}}");
        assert_eq!(stage.metric(&series).await, count, "{result}");
    }
}

#[tokio::test]
async fn strict_check_refuses_clients_without_a_user_only() {
    let stage = Stage::set(STRICT).await;
    let anonymous = stage.client().get("/velt/check").send().await;
    assert_eq!((anonymous.status(), anonymous.code().as_str()), (401, "no_identity"));
    assert!(anonymous.header("www-authenticate").is_some_and(|it| it.starts_with("Bearer")));
    // nginx makes an error of its own of any other status than 401 and 403.
    let ambiguous = check(&stage, "ada,eve").send().await;
    assert_eq!((ambiguous.status(), ambiguous.code().as_str()), (403, "ambiguous_identity"));
    for refused in [&anonymous, &ambiguous] {
        assert_eq!((refused.token(), refused.token_status()), (None, None));
        assert_eq!(refused.header("cache-control"), Some("no-store"));
    }
    assert_eq!(stage.metric("requests_total{outcome=\"no_identity\"}").await, 1.0);
    let page = stage.client().get("/velt/check/").header("accept", "text/html").send().await;
    assert_eq!(page.status(), 401);
    assert!(page.text().contains("You are not signed in"), "{}", page.text());

    let known = check(&stage, "ada").send().await;
    assert_eq!(told(&known).0.as_deref(), Some("ada"));
    stage.velt.answer_with(503, "");
    let down = check(&stage, "grace").send().await;
    passes(&down, "Velt is down");
    assert_eq!(told(&down), (None, Some("unavailable")));
}

#[tokio::test]
async fn t72_untrusted_gateway_gets_no_token() {
    for (settings, shown) in [
        ("[identity]\ntrusted_peers = [\"10.0.0.0/8\"]\n".to_owned(), None),
        ("[identity]\nsecret_header = \"X-Sidecar-Secret\"\n".to_owned(), None),
        ("[identity]\nsecret_header = \"X-Sidecar-Secret\"\n".to_owned(), Some("guessed")),
    ] {
        let stage = stage_with_secret(&settings).await;
        let sending = check(&stage, "ada");
        let sending = match shown {
            Some(secret) => sending.header("x-sidecar-secret", secret),
            None => sending,
        };
        let answer = sending.send().await;
        passes(&answer, &settings);
        assert_eq!(told(&answer), (None, Some("anonymous")), "{settings}");
        assert_eq!(stage.velt.call_count(), 0);
    }
    let stage = stage_with_secret("[identity]\nsecret_header = \"X-Sidecar-Secret\"\n").await;
    let answer = check(&stage, "ada").header("x-sidecar-secret", SECRET).send().await;
    assert_eq!(told(&answer).0.as_deref(), Some("ada"));
}

/// Sets a stage whose secret is in a file, if the settings name a header for it.
async fn stage_with_secret(settings: &str) -> Stage {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), SECRET).expect("a secret in it");
    let named = format!("{settings}secret_file = \"{}\"\n", file.path().display());
    let settings = if settings.contains("secret_header") { &named } else { settings };
    Stage::set(&format!("{settings}{CHECK}")).await
}

#[tokio::test]
async fn t72_word_about_the_clients_request_names_no_user() {
    let stage = Stage::set(CHECK).await;
    let words = [
        ("x-original-uri", "/api/me?user=eve"),
        ("x-original-method", "DELETE"),
        ("x-original-url", "https://eve@app.example/"),
        ("x-forwarded-uri", "/velt/check?x-forwarded-user=eve"),
        ("x-forwarded-method", "TRACE"),
        ("x-forwarded-host", "eve.example"),
        ("x-envoy-original-path", "/eve"),
        ("x-auth-request-redirect", "https://eve.example/"),
        ("x-auth-request-user", "eve"),
        ("remote-user", "eve"),
    ];
    for user in ["ada", ""] {
        let sending = words
            .iter()
            .fold(check(&stage, user), |sending, (name, value)| sending.header(name, value));
        let answer = sending.send().await;
        passes(&answer, user);
        let expected = if user.is_empty() { None } else { Some("ada") };
        assert_eq!(told(&answer).0.as_deref(), expected);
    }
    assert_eq!(stage.velt.calls_by_user().into_keys().collect::<Vec<_>>(), ["ada"]);
}

#[tokio::test]
async fn t72_clients_own_token_never_comes_back() {
    let stage = Stage::set(CHECK).await;
    for name in ["x-velt-token", "X_Velt_Token", "x-velt-token-status"] {
        for user in ["ada", ""] {
            let answer = check(&stage, user).header(name, "forged").send().await;
            passes(&answer, name);
            assert!(!format!("{:?}", answer.headers()).contains("forged"), "{name}");
        }
    }
    assert_eq!(stage.metric("spoof_attempts_total{kind=\"token_header\"}").await, 6.0);
}

#[tokio::test]
async fn t72_slow_mint_of_one_user_holds_up_no_other() {
    let stage =
        Stage::set("[delivery.check]\npath = \"/velt/check\"\nmax_wait = \"317ms\"\n").await;
    stage.get_as("grace", "/api/velt/token").await;
    stage.velt.close_gate();
    let begun = Instant::now();
    let slow = check(&stage, "ada").send();
    let others = async {
        for _ in 0..7 {
            assert_eq!(told(&check(&stage, "grace").send().await).0.as_deref(), Some("grace"));
        }
        begun.elapsed()
    };
    let (slow, others) = tokio::join!(slow, others);
    passes(&slow, "slow");
    assert_eq!(told(&slow), (None, Some("pending")));
    let whole = begun.elapsed();
    assert!(whole >= Duration::from_millis(317) && whole < Duration::from_secs(2), "{whole:?}");
    assert!(others < whole, "{others:?}");
    stage.velt.open_gate();
    // The mint has gone on.
    let token = stage.get_as("ada", "/api/velt/token").await.json()["token"].clone();
    let later = check(&stage, "ada").send().await;
    assert_eq!((later.token(), stage.velt.call_count()), (token.as_str(), 2));
}

#[tokio::test]
async fn body_of_a_check_is_not_waited_for() {
    let stage = Stage::set(CHECK).await;
    for more in [
        // nginx without proxy_set_header Content-Length "" sends a length and no body.
        "content-length: 77\r\n",
        "content-length: 77\r\nexpect: 100-continue\r\n",
        "transfer-encoding: chunked\r\n",
        // A WebSocket's handshake, as Caddy passes it on to the program that it asks.
        "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
         sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
    ] {
        let mut wire = Wire::to(stage.sidecar.addresses.traffic).await;
        wire.send(format!(
            "GET /velt/check HTTP/1.1\r\nhost: a\r\nx-forwarded-user: ada\r\n{more}\r\n"
        ))
        .await;
        let head = tokio::time::timeout(PATIENCE, wire.head()).await.expect("an answer");
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{more}: {head}");
        assert!(head.contains("x-velt-token: "), "{more}: {head}");
        assert!(head.contains("connection: close"), "{more}: {head}");
    }
}

#[tokio::test]
async fn t72_next_check_is_not_taken_for_a_body() {
    let stage = Stage::set(CHECK).await;
    let check = |user: &str, more: &str| {
        format!("GET /velt/check HTTP/1.1\r\nhost: a\r\nx-forwarded-user: {user}\r\n{more}\r\n")
    };
    let next = check("grace", "");
    // A gateway that sends a client's length and no body, and uses the connection for the next client at once. The
    // client chooses the length, and so the place from which a server would read on.
    for length in [1, next.len() - 30, next.len(), next.len() + 77] {
        let hidden = format!("content-length: {length}\r\n");
        let mut wire = Wire::to(stage.sidecar.addresses.traffic).await;
        wire.send(format!("{}{next}{next}", check("ada", &hidden))).await;
        let answered = wire.rest().await;
        assert_eq!(answered.matches("HTTP/1.1 ").count(), 1, "{length}: {answered}");
        let token = answered.split("x-velt-token: ").nth(1).and_then(|rest| rest.lines().next());
        assert_eq!(token.map(user_of).as_deref(), Some("ada"), "{length}");
    }
}

#[tokio::test]
async fn connection_of_a_gateway_carries_one_check_after_another() {
    let stage = Stage::set(CHECK).await;
    let mut wire = Wire::to(stage.sidecar.addresses.traffic).await;
    for user in ["ada", "grace", "", "ada", "grace"] {
        wire.send(format!(
            "GET /velt/check HTTP/1.1\r\nhost: a\r\nx-forwarded-user: {user}\r\n\r\n"
        ))
        .await;
        let head = wire.head().await;
        let token = head.split("x-velt-token: ").nth(1).and_then(|rest| rest.lines().next());
        assert_eq!(token.map(user_of).unwrap_or_default(), user, "{head}");
    }
}

#[tokio::test]
async fn check_asks_an_app_that_alone_knows_its_users() {
    let app = FakeApp::serving(|request| async move {
        let cookie = request.headers().get("cookie").and_then(|cookie| cookie.to_str().ok());
        let user = cookie.and_then(|cookie| cookie.strip_prefix("session=")).unwrap_or_default();
        if user == "slow" {
            std::future::pending::<()>().await;
        }
        let mut response = plain("session");
        if !user.is_empty() {
            response.headers_mut().insert("x-velt-user", user.parse().expect("a value"));
        }
        response
    })
    .await;
    let settings = "[identity]\nsource = \"app\"\napp_path = \"/session\"\n";
    let wait =
        "[delivery.check]\npath = \"/velt/check\"\nmax_wait = \"1900ms\"\nrequire_user = true\n";
    let stage = Stage::with(app, &format!("{settings}{wait}")).await;
    for (session, status, user) in [
        ("ada", 200, Some("ada")),
        ("slow", 403, None),
        ("", 401, None),
        ("grace", 200, Some("grace")),
    ] {
        let sending =
            stage.client().get("/velt/check").header("cookie", format!("session={session}"));
        let answer = sending.send().await;
        assert_eq!(answer.status(), status, "{session}");
        assert_eq!(told(&answer).0.as_deref(), user, "{session}");
    }
}

#[tokio::test]
async fn sidecar_without_an_app_answers_routes_and_checks_alone() {
    let stage = Stage::set(&format!("[app]\naddress = \"none\"\n{CHECK}")).await;
    assert_eq!(told(&check(&stage, "ada").send().await).0.as_deref(), Some("ada"));
    let route = stage.get_as("ada", "/api/velt/token").await;
    assert_eq!(user_of(route.json()["token"].as_str().expect("a token")), "ada");
    for (path, user) in [("/", "ada"), ("/", ""), ("/api/me", "ada"), ("/velt/checks", "ada")] {
        let other = stage.get_as(user, path).await;
        assert_eq!((other.status(), other.code().as_str()), (404, "no_app"), "{path}");
        assert_eq!(told(&other), (None, None));
        assert_eq!(other.header("cache-control"), Some("no-store"));
    }
    let page = stage.client().get("/").header("accept", "text/html").send().await;
    assert_eq!(page.status(), 404);
    assert!(page.text().contains("app.address"), "{}", page.text());
    assert!(page.header("content-type").is_some_and(|kind| kind.starts_with("text/html")));
    let mut wire = Wire::to(stage.sidecar.addresses.traffic).await;
    wire.send(
        "GET /ws HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    )
    .await;
    assert!(wire.head().await.starts_with("HTTP/1.1 404 "));
    assert_eq!(stage.metric("requests_total{outcome=\"no_app\"}").await, 6.0);
    assert!(stage.app.journal().is_empty());
    assert_eq!(stage.metric("app_connects_total{result=\"failed\"}").await, 0.0);
}

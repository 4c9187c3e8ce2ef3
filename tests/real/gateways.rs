//! Gateways of `docs/gateways`, each started from the text of its page: they ask the sidecar about their clients'
//! requests, and the app behind them knows nothing of the sidecar.

mod place;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use http::Method;
use serde_json::json;
use tokio::time::Instant;

use self::place::{FOR_CACHES, Place, Seen};
use crate::front_pages::front::{Front, nginx_of, written};
use crate::front_pages::page::Page;
use crate::front_pages::visitor::PASSWORD;
use crate::neighbour::{claims_of, tool};

/// Hash of the password in a Caddyfile: by `caddy hash-password --bcrypt-cost 4`.
const BCRYPT: &str = "$2a$04$lhxyUNJ5oU8aDMqqSBBCB.VCqMMCOU3yqIohLfjQ/MVh/zgZBL/dW";

/// Users of the site, of whom each test signs in the ones that it needs.
const USERS: [&str; 4] = ["ada", "grace", "edith", "margaret"];

/// Headers by which a client might say more than it may. The last two are of the check's own request.
const FORGERIES: [(&str, &str); 12] = [
    ("x-velt-token", "forged"),
    ("x-velt-token-status", "forged"),
    ("x-forwarded-user", "forged"),
    ("x-auth-request-user", "forged"),
    ("x-sidecar-secret", "forged"),
    ("x-original-uri", "/forged"),
    ("x-forwarded-uri", "/forged"),
    ("x-forwarded-method", "FORGED"),
    ("x-envoy-original-path", "/forged"),
    ("forwarded", "for=forged"),
    ("x-original-method", "FORGED"),
    ("x-forwarded-email", "forged@example.com"),
];

fn nginx(page: &Page, place: &Place, folder: &Path, port: u16, own: &[(&str, &str)]) -> Command {
    let (listen, here) = (format!("listen 127.0.0.1:{port};"), format!("{}/", folder.display()));
    let (app, sidecar) = (format!("http://{}", place.app), format!("http://{}", place.sidecar));
    let mut filled = vec![
        ("listen 8000;", &*listen),
        ("http://my-app:3000", &*app),
        ("http://velt-sidecar:8080", &*sidecar),
        (
            "http {",
            "http {\naccess_log off;\nclient_body_temp_path body;\nproxy_temp_path proxy;\n\
             fastcgi_temp_path f;\nuwsgi_temp_path u;\nscgi_temp_path s;\n\
             proxy_cache_path cache keys_zone=stored:1m use_temp_path=off;\n",
        ),
    ];
    filled.extend(own);
    filled.push(("/etc/nginx/", &*here));
    let file = written(folder, "nginx.conf", &page.filled("nginx", 0, &filled));
    let users = USERS.map(|user| format!("{user}:{{PLAIN}}{PASSWORD}\n"));
    written(folder, "users", &users.concat());
    nginx_of(folder, &file)
}

fn caddy(page: &Page, place: &Place, folder: &Path, port: u16, own: &[(&str, &str)]) -> Command {
    let listen = format!("http://127.0.0.1:{port} {{");
    let (app, sidecar) = (place.app.to_string(), place.sidecar.to_string());
    let users = USERS.map(|user| format!("{user} {BCRYPT}\n")).concat();
    let mut filled = vec![
        (":8000 {", &*listen),
        ("my-app:3000", &*app),
        ("velt-sidecar:8080", &*sidecar),
        ("ada HASH", &*users),
    ];
    filled.extend(own);
    let text = page.filled("caddyfile", 0, &filled);
    let text = format!("{{\n\tadmin off\n\tpersist_config off\n}}\n{text}\n");
    let file = written(folder, "Caddyfile", &text);
    let mut caddy = Command::new(tool("caddy"));
    caddy.args(["run", "--adapter", "caddyfile", "--config"]).arg(file);
    caddy.env("HOME", folder).stderr(Stdio::null());
    caddy
}

fn envoy(page: &Page, place: &Place, folder: &Path, port: u16, own: &[(&str, &str)]) -> Command {
    let at = |port: u16| format!("address: 127.0.0.1, port_value: {port}");
    let (listen, app) = (at(port), at(place.app.port()));
    let (sidecar, login) = (at(place.sidecar.port()), at(place.login.port()));
    let mut filled = vec![
        ("address: 0.0.0.0, port_value: 8000", &*listen),
        ("address: my-app, port_value: 3000", &*app),
        ("address: velt-sidecar, port_value: 8080", &*sidecar),
        ("address: oauth2-proxy, port_value: 4180", &*login),
    ];
    filled.extend(own);
    let file = written(folder, "envoy.yaml", &page.filled("yaml", 0, &filled));
    let mut envoy = Command::new(tool("envoy"));
    envoy.arg("-c").arg(file).args(["--concurrency", "1", "--disable-hot-restart"]);
    envoy.args(["--log-level", "off"]);
    envoy
}

type Gateway = fn(&Page, &Place, &Path, u16, &[(&str, &str)]) -> Command;

/// Starts the gateway of this page, with these texts of the page replaced.
async fn start(gateway: Gateway, page: &Page, place: &Place, own: &[(&str, &str)]) -> Front {
    Front::start(|folder, port| gateway(page, place, folder, port, own)).await
}

/// Asserts the requirements of every gateway.
async fn holds(gateway: Gateway, name: &'static str) {
    let page = Page::in_folder("gateways", name);
    let mut place = Place::open(&page).await;
    let front = start(gateway, &page, &place, &[]).await;
    for user in ["ada", "grace"] {
        let seen = place.ask(&front, Method::GET, "/api/me?a=1&b=2", user, &[]).await;
        assert_eq!((seen.status, seen.user().as_str()), (200, user), "{seen:?}");
        assert_eq!(seen.told("x-velt-token-status"), None, "{seen:?}");
        assert_eq!(seen.target(), "/api/me?a=1&b=2", "{seen:?}");
        not_stored(&seen);
        let posted = place.ask(&front, Method::POST, "/api/me", user, &[]).await;
        assert_eq!((posted.status, posted.user().as_str()), (200, user), "{posted:?}");
        assert_eq!(posted.body["headers"]["content-length"], json!(["17"]), "{posted:?}");
    }
    // A path for which the gateway does not ask stays the app's.
    let other = place.ask(&front, Method::GET, "/other", "ada", &[]).await;
    assert_eq!((other.status, other.told("cache-control")), (200, Some("public, max-age=600")));
    assert_eq!(claimed(&other), None, "{other:?}");
    curl_shows_it(&page, &front, &place);

    forgeries_fail(&place, &front).await;
    failures_of_the_app_reach_no_cache(&place, &front, name).await;
    others_do_not_wait(&place, &front).await;
    outages_cost_the_token_alone(&mut place, &front).await;
    let asked = place.asked_of_velt();
    assert!(asked.contains("ada") && !asked.contains("forged"), "{asked}");
}

/// Returns the user of the token, if the token is one of Velt's.
fn claimed(seen: &Seen) -> Option<String> {
    let token = seen.told("x-velt-token").filter(|token| token.split('.').count() == 3)?;
    claims_of(token)["userId"].as_str().map(str::to_owned)
}

/// Asserts that the gateway forbids each cache behind it to keep this response, whatever the app has said.
fn not_stored(seen: &Seen) {
    assert_eq!(seen.told("cache-control"), Some("private, no-store"), "{seen:?}");
    for name in FOR_CACHES {
        assert_eq!(seen.told(name), None, "{name}: {seen:?}");
    }
}

/// Sends the headers that only the gateway and the sidecar may set.
async fn forgeries_fail(place: &Place, front: &Front) {
    for forgery in FORGERIES {
        let lines = [forgery];
        let seen = place.ask(front, Method::GET, "/api/me", "ada", &lines).await;
        assert_eq!(seen.user(), "ada", "{forgery:?}: {seen:?}");
        assert!(!seen.headers().contains("orged"), "{forgery:?}: {seen:?}");
        for name in ["x-velt-token", "x-velt-token-status"] {
            assert!(seen.body["headers"].get(name).is_none(), "{forgery:?}: {seen:?}");
        }
        let stranger = place.ask(front, Method::GET, "/api/me", "", &lines).await;
        assert_eq!(claimed(&stranger), None, "{forgery:?}: {stranger:?}");
        // The sidecar is the gateway's alone.
        let check = place.ask(front, Method::GET, "/velt/check", "", &lines).await;
        assert_eq!(claimed(&check), None, "{forgery:?}: {check:?}");
    }
}

/// Has the app answer without a whole success, and break a connection. Envoy can't tell such answers apart.
async fn failures_of_the_app_reach_no_cache(place: &Place, front: &Front, name: &str) {
    for (answer, status) in [("304", 304), ("404", 404), ("500", 500), ("broken", 502)] {
        let path = format!("/api/me?answer={answer}");
        let seen = place.ask(front, Method::GET, &path, "ada", &[]).await;
        assert!(seen.status == status || (status == 502 && seen.status == 503), "{seen:?}");
        if name == "envoy" {
            assert_eq!(seen.told("cache-control"), Some("private, no-store"), "{seen:?}");
        } else {
            assert_eq!(claimed(&seen), None, "{answer}: {seen:?}");
        }
    }
    let before = place.broken();
    place.ask(front, Method::POST, "/api/me?answer=broken", "ada", &[]).await;
    assert_eq!(place.broken(), before + 1, "the app gets a request once");
}

/// Has one user wait for a mint that takes longer than the check waits, and another user not.
async fn others_do_not_wait(place: &Place, front: &Front) {
    place.velt_behaves(json!({ "latency_ms": 2300 })).await;
    let begun = Instant::now();
    let slow = place.ask(front, Method::GET, "/api/me", "edith", &[]);
    let others = async {
        for _ in 0..7 {
            let seen = place.ask(front, Method::GET, "/api/me", "grace", &[]).await;
            assert_eq!(seen.user(), "grace", "{seen:?}");
        }
        begun.elapsed()
    };
    let (slow, others) = tokio::join!(slow, others);
    assert_eq!((slow.status, slow.told("x-velt-token-status")), (200, Some("pending")), "{slow:?}");
    assert_eq!(claimed(&slow), None, "{slow:?}");
    not_stored(&slow);
    let whole = begun.elapsed();
    assert!(whole >= Duration::from_millis(150) && whole < Duration::from_secs(2), "{whole:?}");
    assert!(others < Duration::from_secs(2), "{others:?}");
    place.velt_behaves(json!({})).await;
}

/// Takes Velt away, and then the sidecar.
async fn outages_cost_the_token_alone(place: &mut Place, front: &Front) {
    place.velt_behaves(json!({ "failure": "unavailable" })).await;
    let cached = place.ask(front, Method::GET, "/api/me", "ada", &[]).await;
    assert_eq!(cached.user(), "ada", "{cached:?}");
    let absent = place.ask(front, Method::GET, "/api/me", "margaret", &[]).await;
    assert_eq!((absent.status, claimed(&absent)), (200, None), "{absent:?}");
    assert!(absent.told("x-velt-token-status").is_some(), "{absent:?}");
    assert_eq!(absent.target(), "/api/me");
    not_stored(&absent);

    place.end_the_sidecar().await;
    for (method, body) in [(Method::GET, json!(null)), (Method::POST, json!(["17"]))] {
        let seen = place.ask(front, method, "/api/me?a=1", "ada", &[]).await;
        assert_eq!((seen.status, claimed(&seen)), (200, None), "{seen:?}");
        assert_eq!(seen.target(), "/api/me?a=1");
        assert_eq!(seen.body["headers"]["content-length"], body, "{seen:?}");
        assert_eq!(seen.told("x-velt-token"), None, "the app's own: {seen:?}");
    }
}

/// Runs the page's `curl`, which has to print a token of Ada's.
fn curl_shows_it(page: &Page, front: &Front, place: &Place) {
    let at = format!("http://{}", front.address);
    let mut own = vec![("https://app.example.com", &*at)];
    let words = if page.block("sh", 0).contains("COOKIE") {
        ("COOKIE", place.cookie)
    } else {
        ("PASSWORD", PASSWORD)
    };
    own.push(words);
    let command = page.filled("sh", 0, &own);
    let printed = Command::new("sh").args(["-c", &command]).env("NO_PROXY", "*").output();
    let printed = printed.expect("a shell");
    let text = String::from_utf8_lossy(&printed.stdout).to_lowercase();
    let token = text.lines().find_map(|line| line.strip_prefix("x-velt-token: "));
    assert!(token.is_some_and(|token| token.trim().len() > 20), "{command}: {text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn t72_nginx_asks_as_its_page_says() {
    holds(nginx, "nginx").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn t72_caddy_asks_as_its_page_says() {
    holds(caddy, "caddy").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn t72_envoy_asks_as_its_page_says() {
    holds(envoy, "envoy").await;
}

/// Asserts that a visitor without a user gets the page, and why there is no token.
async fn strangers_pass(gateway: Gateway, name: &'static str, own: &[(&str, &str)]) {
    let page = Page::in_folder("gateways", name);
    let place = Place::open(&page).await;
    let front = start(gateway, &page, &place, own).await;
    let before = place.asked_of_velt();
    let seen = place.ask(&front, Method::GET, "/api/me", "", &[]).await;
    assert_eq!((seen.status, claimed(&seen)), (200, None), "{seen:?}");
    assert_eq!(seen.told("x-velt-token-status"), Some("anonymous"), "{seen:?}");
    assert_eq!(seen.target(), "/api/me");
    let forged = place.ask(&front, Method::GET, "/api/me", "", &FORGERIES).await;
    assert_eq!((forged.status, claimed(&forged)), (200, None), "{forged:?}");
    assert_eq!(place.asked_of_velt(), before, "no mint");
}

#[tokio::test(flavor = "multi_thread")]
async fn visitor_without_a_user_gets_the_page_through_a_gateway() {
    strangers_pass(nginx, "nginx", &[("auth_basic \"my app\";", "auth_basic off;")]).await;
    strangers_pass(caddy, "caddy", &[("basic_auth {", "basic_auth /private/* {")]).await;
    // The login program lets strangers pass here, as oauth2-proxy does on some paths.
    let at = "cluster: oauth2-proxy, timeout: 2s }";
    let below = format!("{at}\n{}path_prefix: /strangers", " ".repeat(24));
    strangers_pass(envoy, "envoy", &[(at, &below)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn t72_cache_of_a_gateway_stores_no_token() {
    let page = Page::in_folder("gateways", "nginx");
    let place = Place::open(&page).await;
    // A cache that ignores what responses say, for all users alike.
    let cache = (
        "location = /api/me {",
        "location = /api/me {\nproxy_cache stored;\nproxy_cache_valid any 10m;\n\
         proxy_cache_key $request_uri;\nproxy_ignore_headers Cache-Control Expires Vary Set-Cookie;\n\
         add_header X-App-Cache $upstream_cache_status always;",
    );
    let front = start(nginx, &page, &place, &[cache]).await;
    let mut hits = 0;
    for round in 0..3 {
        for user in ["ada", "grace"] {
            let seen = place.ask(&front, Method::GET, "/api/me", user, &[]).await;
            assert_eq!((seen.status, seen.user().as_str()), (200, user), "{round}: {seen:?}");
            not_stored(&seen);
            hits += usize::from(seen.told("x-app-cache") == Some("HIT"));
        }
    }
    assert_eq!(hits, 5, "all but the first are from the cache");
}

#[tokio::test(flavor = "multi_thread")]
async fn caddy_gives_the_app_the_token_as_its_page_says() {
    let page = Page::in_folder("gateways", "caddy");
    let place = Place::open(&page).await;
    let sidecar = place.sidecar.to_string();
    let block = page.filled("caddyfile", 1, &[("velt-sidecar:8080", &sidecar)]);
    let rendering =
        format!("handle /rendered {{\n{block}\nreverse_proxy {}\n}}\n\thandle {{", place.app);
    let front = start(caddy, &page, &place, &[("\thandle {", &rendering)]).await;
    for user in ["ada", "grace"] {
        let forged = [("x-velt-token", "forged"), ("x-velt-token-status", "forged")];
        let seen = place.ask(&front, Method::GET, "/rendered", user, &forged).await;
        let given = seen.body["headers"]["x-velt-token"][0].as_str().expect("a token");
        assert_eq!(claims_of(given)["userId"], *user, "{seen:?}");
        assert!(!seen.body["headers"].to_string().contains("forged"), "{seen:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn strict_check_refuses_strangers_through_nginx() {
    let page = Page::in_folder("gateways", "nginx");
    let place =
        Place::open_with(&page, &[("VELT_SIDECAR_DELIVERY__CHECK__REQUIRE_USER", "true")]).await;
    let off = ("auth_basic \"my app\";", "auth_basic off;");
    let front = start(nginx, &page, &place, &[off]).await;
    let seen = place.ask(&front, Method::GET, "/api/me", "", &[]).await;
    assert_eq!((seen.status, claimed(&seen)), (401, None), "{seen:?}");
    assert!(seen.told("www-authenticate").is_some_and(|it| it.starts_with("Bearer")), "{seen:?}");
    assert_eq!(place.ask(&front, Method::GET, "/other", "", &[]).await.status, 200);
}

//! Fronts of `docs/fronts`, each started from the text of its page, in front of a sidecar with the page's own
//! `sidecar.toml`. A test replaces only the values that a reader replaces too: names, ports, secrets.

pub mod front;
pub mod page;
pub mod site;
pub mod visitor;

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use http::{Method, StatusCode};

use self::front::{Front, caddy, nginx, written};
use self::page::Page;
use self::site::{Headers, OPEN_PATH, Site};
use self::visitor::{PASSWORD, Visitor, basic, curl_shows_it, holds};
use crate::apache::apache;
use crate::neighbour::tool;
use crate::program::{APPS, Program};

/// Hashes of Ada's password in fronts: by `caddy hash-password --bcrypt-cost 4` and `openssl passwd -5`.
const BCRYPT: &str = "$2a$04$lhxyUNJ5oU8aDMqqSBBCB.VCqMMCOU3yqIohLfjQ/MVh/zgZBL/dW";
const CRYPT: &str = "$5$saltofada$qhuDp0utrCrOjcTGUp4Y5iMMmAncg.yUuIyUwRUpvn.";

/// Returns the headers of oauth2-proxy with `--set-xauthrequest`.
fn oauth2_proxy(user: &str) -> Headers {
    vec![
        ("x-auth-request-user", user.to_owned()),
        ("x-auth-request-email", format!("{user}@example.com")),
    ]
}

/// Headers that oauth2-proxy can set, but does not set for a user of the test.
const OAUTH2_PROXY_UNSAID: [&str; 3] =
    ["X-Auth-Request-Preferred-Username", "X-Auth-Request-Groups", "X-Auth-Request-Access-Token"];

/// Headers that a front that names only the user does not set, and that a client might send.
const FORWARDED_UNSAID: [&str; 4] = [
    "X-Forwarded-Email",
    "X-Forwarded-Preferred-Username",
    "X-Forwarded-Groups",
    "X-Forwarded-Access-Token",
];

/// Returns no headers, for fronts that check passwords themselves.
fn no_login(_: &str) -> Headers {
    Headers::new()
}

const SESSION: (&str, &str) = ("cookie", "session=of-ada");

#[tokio::test(flavor = "multi_thread")]
async fn nginx_with_auth_basic_is_as_its_page_says() {
    let page = Page::named("nginx");
    let site = Site::open(&page, 0, no_login).await;
    let front = nginx(&page, 0, &site, &[]).await;
    let login = basic(PASSWORD);
    let said = [("X-Forwarded-User", "ada")];
    let ada = Visitor { login: ("authorization", &login), said: &said, unsaid: &FORWARDED_UNSAID };
    holds(&site, &front, &ada).await;
    curl_shows_it(&page, &front, &[("PASSWORD", PASSWORD)]);

    // "The trap": nginx fills $remote_user from a password that it has not checked.
    let unchecked = basic("wrong");
    let seen = front.ask(Method::GET, "/public/", &[("authorization", &unchecked)]).await;
    assert_eq!((seen.status, &seen.token), (StatusCode::OK, &None), "{seen:?}");
    assert!(!seen.body.to_string().contains("ada"), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nginx_with_auth_request_is_as_its_page_says() {
    let page = Page::named("nginx");
    let site = Site::open(&page, 1, oauth2_proxy).await;
    let login = format!("http://{}", site.login);
    let front = nginx(&page, 1, &site, &[("http://oauth2-proxy:4180", &login)]).await;
    let said = [("X-Auth-Request-User", "ada"), ("X-Auth-Request-Email", "ada@example.com")];
    holds(&site, &front, &Visitor { login: SESSION, said: &said, unsaid: &OAUTH2_PROXY_UNSAID })
        .await;
    let cookie = format!("-H 'Cookie: {}'", SESSION.1);
    curl_shows_it(&page, &front, &[("-u ada:PASSWORD", &cookie)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn haproxy_is_as_its_page_says() {
    let page = Page::named("haproxy");
    let site = Site::open(&page, 0, no_login).await;
    let sidecar = site.sidecar.to_string();
    let front = Front::start(|folder, port| {
        let bind = format!("bind 127.0.0.1:{port}");
        let own = [("bind :8000", &*bind), ("my-app:8080", &*sidecar), ("HASH", CRYPT)];
        let file =
            written(folder, "haproxy.cfg", &format!("{}\n", page.filled("haproxy", 0, &own)));
        let mut haproxy = Command::new(tool("haproxy"));
        haproxy.arg("-db").arg("-f").arg(file).stderr(Stdio::null());
        haproxy
    })
    .await;
    let login = basic(PASSWORD);
    let said = [("X-Forwarded-User", "ada")];
    let ada = Visitor { login: ("authorization", &login), said: &said, unsaid: &FORWARDED_UNSAID };
    holds(&site, &front, &ada).await;
    curl_shows_it(&page, &front, &[("PASSWORD", PASSWORD)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn caddy_with_basic_auth_is_as_its_page_says() {
    let page = Page::named("caddy");
    let site = Site::open(&page, 0, no_login).await;
    let front = caddy(&page, 0, &site, &[("HASH", BCRYPT)]).await;
    let login = basic(PASSWORD);
    let said = [("X-Forwarded-User", "ada")];
    let ada = Visitor { login: ("authorization", &login), said: &said, unsaid: &FORWARDED_UNSAID };
    holds(&site, &front, &ada).await;
    curl_shows_it(&page, &front, &[("PASSWORD", PASSWORD)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn caddy_with_forward_auth_is_as_its_page_says() {
    let page = Page::named("caddy");
    let site = Site::open(&page, 1, oauth2_proxy).await;
    let login = site.login.to_string();
    let front = caddy(&page, 1, &site, &[("oauth2-proxy:4180", &login)]).await;
    let said = [("X-Auth-Request-User", "ada"), ("X-Auth-Request-Email", "ada@example.com")];
    holds(&site, &front, &Visitor { login: SESSION, said: &said, unsaid: &OAUTH2_PROXY_UNSAID })
        .await;
    let cookie = format!("-H 'Cookie: {}'", SESSION.1);
    curl_shows_it(&page, &front, &[("-u ada:PASSWORD", &cookie)]);
    // A page is redirected to the login and back with its port and query; a call of the API gets 401.
    let page = front.ask(Method::GET, "/a?b=1&c=2", &[]).await;
    assert_eq!(page.status, StatusCode::FOUND);
    let back = format!("http://{}%2Fa%3Fb%3D1%26c%3D2", front.address);
    assert_eq!(page.location, Some(format!("/oauth2/sign_in?rd={back}")));
    let call = front.ask(Method::GET, "/api/me", &[]).await;
    assert_eq!(call.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test(flavor = "multi_thread")]
async fn authelias_page_is_right_about_caddy_and_the_sidecar() {
    let page = Page::named("authelia");
    let site = Site::open(&page, 0, |user| {
        vec![
            ("remote-user", user.to_owned()),
            ("remote-name", format!("{user} of the test")),
            ("remote-email", format!("{user}@example.com")),
            ("remote-groups", "dev,ops".to_owned()),
        ]
    })
    .await;
    let login = site.login.to_string();
    let front = caddy(&page, 0, &site, &[("authelia:9091", &login)]).await;
    let said = [
        ("Remote-User", "ada"),
        ("Remote-Name", "ada of the test"),
        ("Remote-Email", "ada@example.com"),
        ("Remote-Groups", "dev,ops"),
    ];
    holds(&site, &front, &Visitor { login: SESSION, said: &said, unsaid: &[] }).await;
    curl_shows_it(&page, &front, &[("COOKIE", SESSION.1)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn authentiks_page_is_right_about_caddy_and_the_sidecar() {
    let page = Page::named("authentik");
    let site = Site::open(&page, 0, |user| {
        vec![
            ("x-authentik-uid", user.to_owned()),
            ("x-authentik-username", format!("{user}-by-name")),
            ("x-authentik-email", format!("{user}@example.com")),
            ("x-authentik-groups", "dev|ops".to_owned()),
        ]
    })
    .await;
    let login = site.login.to_string();
    let front = caddy(&page, 0, &site, &[("outpost:9000", &login)]).await;
    let said = [
        ("X-authentik-uid", "ada"),
        ("X-authentik-username", "ada-by-name"),
        ("X-authentik-email", "ada@example.com"),
        ("X-authentik-groups", "dev|ops"),
    ];
    let unsaid = ["X-authentik-name", "X-authentik-entitlements", "X-authentik-jwt"];
    holds(&site, &front, &Visitor { login: SESSION, said: &said, unsaid: &unsaid }).await;
    curl_shows_it(&page, &front, &[("COOKIE", SESSION.1)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn envoy_is_as_its_page_says() {
    let page = Page::named("envoy");
    let site = Site::open(&page, 0, oauth2_proxy).await;
    let (sidecar, login) = (site.sidecar.port(), site.login.port());
    let sidecar = format!("address: 127.0.0.1, port_value: {sidecar}");
    let login = format!("address: 127.0.0.1, port_value: {login}");
    let front = Front::start(|folder, port| {
        let listen = format!("address: 127.0.0.1, port_value: {port}");
        let own = [
            ("address: 0.0.0.0, port_value: 8000", &*listen),
            ("address: my-app, port_value: 8080", &*sidecar),
            ("address: oauth2-proxy, port_value: 4180", &*login),
        ];
        let file = written(folder, "envoy.yaml", &page.filled("yaml", 0, &own));
        let mut envoy = Command::new(tool("envoy"));
        envoy.arg("-c").arg(file).args(["--concurrency", "1", "--disable-hot-restart"]);
        envoy.args(["--log-level", "error"]);
        envoy
    })
    .await;
    let said = [("X-Auth-Request-User", "ada"), ("X-Auth-Request-Email", "ada@example.com")];
    holds(&site, &front, &Visitor { login: SESSION, said: &said, unsaid: &OAUTH2_PROXY_UNSAID })
        .await;
    curl_shows_it(&page, &front, &[("COOKIE", SESSION.1)]);

    // "The trap": the login program says yes to strangers here, and Envoy removes no header after that.
    let forged = [("x-auth-request-user", "grace")];
    let open = front.ask(Method::GET, OPEN_PATH, &forged).await;
    assert_eq!((open.status, &open.token), (StatusCode::OK, &None), "{open:?}");
    assert!(!open.body.to_string().contains("grace"), "{open:?}");
}

/// Signs Ada in at the provider, as a browser does, and returns the cookies of her session.
fn session_at(front: SocketAddr, folder: &Path) -> String {
    let jar = folder.join("cookies");
    let browse = |arguments: &[&str]| {
        let mut curl = Command::new(tool("curl"));
        curl.args(["--noproxy", "*", "-sSL", "-o", "/dev/null", "-w", "%{url_effective}"]);
        let printed = curl.arg("-b").arg(&jar).arg("-c").arg(&jar).args(arguments).output();
        String::from_utf8(printed.expect("curl").stdout).expect("a URL")
    };
    let form = browse(&[&format!("http://{front}/")]);
    assert!(form.contains("/login/"), "no form at {form}");
    let home = browse(&["--data", "user=ada", &form]);
    assert!(home.starts_with(&format!("http://{front}/")), "the login has ended at {home}");
    let jar = std::fs::read_to_string(jar).expect("cookies");
    let fields = jar.lines().map(|line| line.split('\t').collect::<Vec<_>>());
    let cookies = fields.filter(|fields| fields.len() == 7 && fields[5].starts_with("mod_auth"));
    cookies.map(|fields| format!("{}={}", fields[5], fields[6])).collect::<Vec<_>>().join("; ")
}

#[tokio::test(flavor = "multi_thread")]
async fn apache_with_mod_auth_openidc_is_as_its_page_says() {
    let page = Page::named("apache");
    let site = Site::open(&page, 0, no_login).await;
    let installed = Path::new(APPS).join("oidc/node_modules").is_dir();
    assert!(installed, "the provider is missing: run tests/run, which installs it");
    let (mut provider, issuer) = Program::node("oidc/provider.mjs", &[]).listening().await;
    let (issuer, sidecar) = (format!("http://{issuer}"), site.sidecar.to_string());
    let front = Front::start(|folder, port| {
        let (listen, at) = (format!("Listen 127.0.0.1:{port}"), format!("http://127.0.0.1:{port}"));
        let host = format!("<VirtualHost 127.0.0.1:{port}>");
        let own = [
            ("Listen 8000", &*listen),
            ("<VirtualHost *:8000>", &*host),
            ("https://app.example.com", &*at),
            ("https://login.example.com", &*issuer),
            ("OIDCClientID my-app", "OIDCClientID front"),
            ("my-app:8080", &*sidecar),
        ];
        let mut apache = apache(folder, &["auth_openidc"], &page.filled("apache", 0, &own));
        apache.env("OIDC_CLIENT_SECRET", "secret-of-the-front");
        apache.env("OIDC_PASSPHRASE", "passphrase-of-the-test");
        apache
    })
    .await;
    provider.say(format!("http://{}/oidc/callback", front.address));
    provider.value_of("issuer").await;
    let session = session_at(front.address, front.folder.path());
    let said = [
        ("X-Forwarded-User", "ada"),
        ("X-Forwarded-Email", "ada@example.com"),
        ("X-Forwarded-Preferred-Username", "ada of the test"),
    ];
    let unsaid = ["X-Forwarded-Groups", "X-Forwarded-Access-Token"];
    let ada = Visitor { login: ("cookie", &session), said: &said, unsaid: &unsaid };
    holds(&site, &front, &ada).await;
    curl_shows_it(&page, &front, &[("COOKIE", &session)]);
    // A page is redirected to the login; a call of the API gets 401.
    let page = front.ask(Method::GET, "/", &[]).await;
    assert_eq!(page.status, StatusCode::FOUND);
    let call = front.ask(Method::GET, "/api/me", &[]).await;
    assert_eq!(call.status, StatusCode::UNAUTHORIZED);
}

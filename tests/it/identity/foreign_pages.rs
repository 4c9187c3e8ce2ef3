//! Pages of another name that was pointed at this machine do not count as a login proxy; every real login
//! proxy does.

use crate::support::raw::Wire;
use crate::support::{Stage, config};

/// Headers that a browser sends of its own accord over plain HTTP.
const BROWSER: &str = "Connection: keep-alive\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n\
    Accept: */*\r\nAccept-Language: en-US,en;q=0.5\r\nAccept-Encoding: gzip, deflate\r\n";

/// A browser's headers, as a proxy hands them on that adds no header.
const HANDED_ON: &str = "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101\r\n\
    Accept-Language: en-US,en;q=0.5\r\nAccept-Encoding: gzip, deflate\r\n";

/// Returns the token route's status for a request from 127.0.0.1 that names a user. `PORT` stands for
/// the port at which the request comes in.
async fn asked(stage: &Stage, line: &str, lines: &str) -> u16 {
    let traffic = stage.sidecar.addresses.traffic;
    let mut wire = Wire::to(traffic).await;
    let lines = lines.replace("PORT", &traffic.port().to_string());
    let body = if line.starts_with("POST") { "Content-Length: 0\r\n" } else { "" };
    wire.send(format!("{line}\r\n{lines}{body}X-Forwarded-User: ada\r\n\r\n")).await;
    let head = wire.head().await;
    head[9..12].parse().expect("a status")
}

const GET: &str = "GET /api/velt/token HTTP/1.1";
const POST: &str = "POST /api/velt/token HTTP/1.1";

#[tokio::test]
async fn t56_page_of_another_host_gets_no_token() {
    let stage = Stage::set("").await;
    for (line, lines) in [
        (GET, format!("Host: evil.example:PORT\r\n{BROWSER}")),
        (POST, format!("Host: evil.example:PORT\r\nOrigin: http://evil.example:PORT\r\n{BROWSER}")),
        (GET, format!("Host: evil.example\r\n{BROWSER}")),
        (GET, format!("Host: evil\r\n{BROWSER}")),
        (GET, format!("Host: EVIL.example:PORT\r\n{BROWSER}")),
        (GET, format!("Host: localhost.evil.example:PORT\r\n{BROWSER}")),
        (GET, format!("Host: 127.0.0.1.evil.example:PORT\r\n{BROWSER}")),
        // A request through a port that is forwarded to this machine.
        (GET, format!("Host: evil.example:9999\r\n{BROWSER}")),
        // A script may add the headers of a front.
        (GET, format!("Host: evil.example:PORT\r\nX-Forwarded-For: 192.0.2.1\r\n{BROWSER}")),
        (GET, format!("Host: evil.example:PORT\r\nForwarded: for=192.0.2.1\r\n{BROWSER}")),
        (GET, format!("Host: evil.example:PORT\r\nX-Real-IP: 192.0.2.1\r\n{BROWSER}")),
        // A filter has removed `Connection`.
        (POST, format!("Host: evil.example:PORT\r\nOrigin: http://evil.example:PORT\r\n{HANDED_ON}")),
        (POST, format!("Host: evil.example\r\nOrigin: http://evil.example\r\n{HANDED_ON}")),
        (GET, "Host: evil.example:PORT\r\nSec-Fetch-Site: same-origin\r\n".to_owned()),
        // A request of curl, as it was reported of another project.
        (GET, "Host: evil.example:PORT\r\nOrigin: http://127.0.0.1:PORT\r\n".to_owned()),
        // A page of another origin, which the app lets ask (CORS).
        (GET, format!("Host: 127.0.0.1:PORT\r\nOrigin: https://evil.example\r\n{BROWSER}")),
        (GET, format!("Host: localhost:PORT\r\nOrigin: null\r\n{BROWSER}")),
        (
            GET,
            "Host: 127.0.0.1:PORT\r\nOrigin: https://evil.example\r\nSec-Fetch-Site: cross-site\r\n\
             Sec-Fetch-Mode: cors\r\n"
                .to_owned(),
        ),
    ] {
        let status = asked(&stage, line, &lines).await;
        assert!(matches!(status, 401 | 403), "{status} for {line} {lines}");
    }
    assert_eq!(stage.velt.call_count(), 0);
    assert!(stage.metric("spoof_attempts_total{kind=\"identity_header\"}").await >= 16.0);
}

#[tokio::test]
async fn t56_requests_of_real_fronts_are_believed() {
    let stage = Stage::set("").await;
    let fetch = "Sec-Fetch-Site: same-origin\r\nSec-Fetch-Mode: cors\r\nSec-Fetch-Dest: empty\r\n";
    let forwarded = "X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: https\r\n";
    let https = "Origin: https://app.example\r\n";
    for (line, lines) in [
        // oauth2-proxy, Caddy, Traefik.
        (POST, format!("Host: app.example\r\n{https}{fetch}{forwarded}{HANDED_ON}")),
        // Apache, which names the sidecar's own address in Host.
        (
            POST,
            format!(
                "Host: 127.0.0.1:PORT\r\n{https}{fetch}{HANDED_ON}X-Forwarded-For: 192.0.2.1\r\n\
                 X-Forwarded-Host: app.example\r\nX-Forwarded-Server: app.example\r\n\
                 Connection: Keep-Alive\r\n"
            ),
        ),
        // Apache with ProxyAddHeaders Off and ProxyPreserveHost On.
        (POST, format!("Host: app.example\r\n{https}{HANDED_ON}Connection: Keep-Alive\r\n")),
        // nginx before 1.29.7, with nothing but the user set.
        (
            "POST /api/velt/token HTTP/1.0",
            format!("Host: app.example\r\nConnection: close\r\n{https}{fetch}{HANDED_ON}"),
        ),
        (
            "POST /api/velt/token HTTP/1.0",
            format!(
                "Host: sidecar\r\nConnection: close\r\nOrigin: http://app.example\r\n{HANDED_ON}"
            ),
        ),
        // nginx from 1.29.7 on, or nginx with an empty `Connection`: no `Connection` at all.
        (POST, format!("Host: 127.0.0.1:PORT\r\n{https}{fetch}{HANDED_ON}")),
        (POST, format!("Host: 127.0.0.1:PORT\r\nOrigin: http://app.example\r\n{HANDED_ON}")),
        (POST, format!("Host: app.example\r\n{https}{fetch}{HANDED_ON}")),
        (GET, format!("Host: app.example\r\n{fetch}{HANDED_ON}")),
        (GET, format!("Host: app.example\r\n{HANDED_ON}")),
        // nginx as ASP.NET's documentation once configured it.
        (
            POST,
            format!("Host: app.example\r\nConnection: keep-alive\r\n{https}{forwarded}{HANDED_ON}"),
        ),
        // HAProxy, at a port of its own, without TLS and without headers of its own.
        (POST, format!("Host: app.example:8000\r\nOrigin: http://app.example:8000\r\n{HANDED_ON}")),
        // Proxies of Vite and webpack, which developers use.
        (
            POST,
            format!(
                "Host: localhost:5173\r\nConnection: close\r\nOrigin: http://localhost:5173\r\n\
                 {fetch}{HANDED_ON}"
            ),
        ),
        // A link on a page elsewhere, opened by a signed-in user.
        (
            GET,
            format!(
                "Host: app.example\r\nSec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\n\
                 {HANDED_ON}"
            )
            .replace("/api/velt/token", "/"),
        ),
        // A developer on this machine: by address, by localhost, by curl.
        (GET, format!("Host: 127.0.0.1:PORT\r\n{BROWSER}")),
        (POST, format!("Host: localhost:PORT\r\nOrigin: http://localhost:PORT\r\n{BROWSER}")),
        (POST, format!("Host: localhost:PORT\r\nOrigin: http://localhost:5173\r\n{BROWSER}")),
        (GET, format!("Host: [::1]:PORT\r\n{BROWSER}")),
        (GET, format!("Host: app.localhost:PORT\r\n{BROWSER}")),
        (GET, "Host: app.example:PORT\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\n".to_owned()),
        (GET, "Host: app.example\r\nConnection: keep-alive\r\nUser-Agent: python\r\n".to_owned()),
        // A browser through a proxy that adds `Via`, which no script may set.
        (GET, format!("Host: app.example:PORT\r\nVia: 1.1 front\r\n{BROWSER}")),
    ] {
        let status = asked(&stage, line, &lines).await;
        let own_rule = lines.contains("cross-site");
        assert_eq!(status, if own_rule { 403 } else { 200 }, "{line} {lines}");
    }
}

#[tokio::test]
async fn t56_only_configured_hosts_are_trusted() {
    let stage = Stage::set("[identity]\ntrusted_hosts = [\"app.test\", \"Api.Test\"]").await;
    for (lines, status) in [
        (format!("Host: app.test:PORT\r\n{BROWSER}"), 200),
        (format!("Host: APP.TEST\r\n{BROWSER}"), 200),
        (format!("Host: api.test\r\n{HANDED_ON}"), 200),
        (format!("Host: localhost:PORT\r\n{BROWSER}"), 200),
        (format!("Host: 127.0.0.1:PORT\r\n{BROWSER}"), 200),
        (format!("Host: evil.example:PORT\r\n{BROWSER}"), 401),
        ("Host: evil.example\r\nX-Forwarded-For: 192.0.2.1\r\nVia: 1.1 x\r\n".to_owned(), 401),
        (format!("Host: app.test:PORT\r\nOrigin: https://evil.example\r\n{BROWSER}"), 401),
        (format!("Host: app.test.evil.example\r\n{BROWSER}"), 401),
    ] {
        assert_eq!(asked(&stage, GET, &lines).await, status, "{lines}");
    }
    // The authority of a target counts where there is no `Host`, as over HTTP/2.
    for (host, has_token) in [("app.test", true), ("evil.example", false)] {
        let mut wire = Wire::to(stage.sidecar.addresses.traffic).await;
        wire.send(format!("GET http://{host}/ HTTP/1.0\r\nX-Forwarded-User: ada\r\n\r\n")).await;
        assert_eq!(wire.head().await.contains("x-velt-token: "), has_token, "{host}");
    }
}

#[tokio::test]
async fn t56_secret_decides_instead_of_the_host() {
    let toml = "[identity]\nsecret_header = \"X-Sidecar-Secret\"";
    let mut environment = crate::support::environment();
    let secret = "0123456789abcdef0123456789abcdef";
    environment.insert("VELT_SIDECAR_IDENTITY__SECRET".into(), secret.into());
    let (app, velt) = (
        crate::support::app::FakeApp::start().await,
        crate::support::velt::FakeVelt::start().await,
    );
    let document = crate::support::document(&app.address.to_string(), velt.address, toml);
    let config = server::config::Config::parse("sidecar.toml", &document, &environment);
    let config = config.unwrap_or_else(|error| panic!("{error}"));
    let stage = Stage { app, velt, sidecar: crate::support::TestSidecar::run(config) };
    let shown = format!("Host: evil.example:PORT\r\nX-Sidecar-Secret: {secret}\r\n{BROWSER}");
    assert_eq!(asked(&stage, GET, &shown).await, 200);
    let hidden = format!("Host: localhost:PORT\r\n{BROWSER}");
    assert_eq!(asked(&stage, GET, &hidden).await, 401);
}

#[tokio::test]
async fn t56_the_page_and_the_reason_are_told_to_the_operator() {
    let config = config("").unwrap_or_else(|error| panic!("{error}"));
    let headers = [
        ("host", "evil.example:8080"),
        ("connection", "keep-alive"),
        ("origin", "http://evil.example:8080"),
        ("x-forwarded-user", "ada"),
    ];
    let asked = server::explain::Asked {
        target: "/api/velt/token".into(),
        headers: headers.map(|(name, value)| (name.into(), value.into())).into(),
        ..Default::default()
    };
    let report = tools::explain::by_config(&config, asked).await.expect("explained");
    let text = report.to_string();
    assert_eq!(report.answer.status, 401, "{text}");
    for part in ["a page of another site", "identity.trusted_hosts"] {
        assert!(text.contains(part), "{text}");
    }
}

//! Real fronts that add no header about themselves, and a real browser. The sidecar believes the fronts, with
//! all headers that a browser has sent through them, but not a page whose name was pointed at this machine.
//! Also a real app server that refuses requests in which two headers contradict each other about the scheme.

use std::net::SocketAddr;
use std::process::{Command, Stdio};

use http::{HeaderValue, Request, Response};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::neighbour::{
    LOOPBACK, Process, Sidecar, claims_of, eventually, http_client, serve_app, tool,
};
use crate::program::APPS;
use crate::webdriver::in_browser_with;

/// A name that the browser resolves to 127.0.0.1, as a name server would resolve it.
const ANOTHER_NAME: &str = "another-site.example";

/// Headers that a browser sends through a front, without the hop's own headers.
const BROWSER: [(&str, &str); 6] = [
    ("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
    ("accept-language", "en-US,en;q=0.5"),
    ("sec-fetch-site", "same-origin"),
    ("sec-fetch-mode", "cors"),
    ("sec-fetch-dest", "empty"),
    ("referer", "https://app.example/"),
];

fn app(_: &Request<Incoming>) -> Response<Full<Bytes>> {
    let page = "<!doctype html><title>app</title><link rel=icon href=data:,><p>the app</p>";
    let response = Response::builder().header("content-type", "text/html");
    response.body(Full::from(page)).expect("a response")
}

/// Runs nginx in front of `sidecar`, with only the user set, and these lines. One process: a worker would
/// outlive a master that is killed.
fn nginx(folder: &TempDir, port: u16, sidecar: SocketAddr, lines: &str) -> Command {
    let config = format!(
        "user root root;\nmaster_process off;\npid nginx.pid;\nevents {{ worker_connections 64; }}\nhttp {{\n\
         access_log off;\nclient_body_temp_path body;\nproxy_temp_path proxy;\n\
         fastcgi_temp_path fastcgi;\nuwsgi_temp_path uwsgi;\nscgi_temp_path scgi;\n\
         upstream sidecar {{ server {sidecar}; keepalive 4; }}\n\
         server {{ listen 127.0.0.1:{port};\nlocation / {{ proxy_pass http://sidecar;\n\
         proxy_set_header X-Forwarded-User ada;\n{lines}\n}} }} }}\n"
    );
    std::fs::write(folder.path().join("nginx.conf"), config).expect("a file");
    let mut nginx = Command::new(tool("nginx"));
    nginx.arg("-p").arg(folder.path()).args(["-e", "error.log", "-c", "nginx.conf"]);
    nginx.args(["-g", "daemon off;"]).stdin(Stdio::null());
    nginx
}

/// Runs Apache, with these lines.
fn apache(folder: &TempDir, port: u16, sidecar: SocketAddr, lines: &str) -> Command {
    let lines = format!(
        "Listen 127.0.0.1:{port}\nRequestHeader set X-Forwarded-User ada\n\
         ProxyPass / http://{sidecar}/\n{lines}"
    );
    crate::apache::apache(folder.path(), &[], &lines)
}

/// Runs `HAProxy`, with these lines.
fn haproxy(folder: &TempDir, port: u16, sidecar: SocketAddr, lines: &str) -> Command {
    let config = format!(
        "defaults\n mode http\n timeout connect 5s\n timeout client 30s\n timeout server 30s\n\
         frontend front\n bind 127.0.0.1:{port}\n http-request set-header X-Forwarded-User ada\n \
         {lines}\n default_backend sidecar\nbackend sidecar\n server only {sidecar}\n"
    );
    let file = folder.path().join("haproxy.cfg");
    std::fs::write(&file, config).expect("a file");
    let mut haproxy = Command::new(tool("haproxy"));
    haproxy.arg("-db").arg("-f").arg(file).stdin(Stdio::null());
    haproxy
}

type Front = fn(&TempDir, u16, SocketAddr, &str) -> Command;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t56_fronts_that_say_nothing_of_themselves_are_believed() {
    let (_app, app) = serve_app(app).await;
    let sidecar = Sidecar::start(app).await;
    let fronts: [(&str, Front, &str); 8] = [
        ("nginx", nginx, ""),
        ("nginx, Host", nginx, "proxy_set_header Host $http_host;"),
        ("nginx, 1.1", nginx, "proxy_http_version 1.1;\nproxy_set_header Connection \"\";"),
        (
            "nginx, 1.1 and Host",
            nginx,
            "proxy_http_version 1.1;\nproxy_set_header Connection \"\";\n\
             proxy_set_header Host $http_host;",
        ),
        ("Apache", apache, ""),
        ("Apache, Host, no headers", apache, "ProxyPreserveHost On\nProxyAddHeaders Off"),
        ("HAProxy", haproxy, ""),
        ("HAProxy, forwardfor", haproxy, "option forwardfor"),
    ];
    let http = http_client();
    for (name, front, lines) in fronts {
        let folder = TempDir::new().expect("a folder");
        let behind = sidecar.addresses.traffic;
        let command = |port| front(&folder, port, behind, lines);
        let ready = async |address: SocketAddr| {
            let answer = http.get(format!("http://{address}/")).send().await;
            let answer = answer.map_err(|error| error.to_string())?;
            let token = answer.headers().get("x-velt-token");
            if token.is_some() { Ok(()) } else { Err(format!("{answer:?}")) }
        };
        let (_process, address) = Process::start_on_free_port(command, ready).await;
        let port = address.port();
        for (host, origin) in [
            (format!("app.example:{port}"), format!("http://app.example:{port}")),
            ("app.example".to_owned(), "https://app.example".to_owned()),
            (address.to_string(), format!("http://{address}")),
        ] {
            let url = format!("http://{address}/api/velt/token");
            let request = http.post(url).header("host", &host).header("origin", &origin);
            let request = BROWSER
                .iter()
                .fold(request, |request, (name, value)| request.header(*name, *value));
            let answer = request.send().await.expect("an answer");
            let status = answer.status();
            let text = answer.text().await.expect("to its end");
            assert_eq!(status, 200, "{name}, {host}: {text}");
            let token: Value = serde_json::from_str(&text).expect("JSON");
            assert_eq!(claims_of(token["token"].as_str().expect("a token"))["userId"], "ada");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t56_a_browsers_page_of_another_name_names_no_user() {
    let (_app, app) = serve_app(app).await;
    let sidecar = Sidecar::start(app).await;
    let port = sidecar.addresses.traffic.port();
    let resolve = format!("--host-resolver-rules=MAP {ANOTHER_NAME} 127.0.0.1");
    let foreign = format!("http://{ANOTHER_NAME}:{port}/");
    in_browser_with("another-name", &foreign, &[resolve], async |page| {
        let ask = async |path: &str, options: Value| {
            page.script(&format!(
                "return fetch('{path}', {options}).then(async answer => ({{
                    status: answer.status,
                    token: answer.headers.get('x-velt-token'),
                    body: await answer.text(),
                }}))"
            ))
            .await
        };
        page.expect_failures(401);
        for forged in [
            json!({ "X-Forwarded-User": "ada" }),
            json!({ "X-Forwarded-User": "ada", "X-Forwarded-For": "192.0.2.1" }),
            json!({ "X-Forwarded-User": "ada", "Forwarded": "for=192.0.2.1", "X-Real-IP": "1.1.1.1" }),
        ] {
            for method in ["GET", "POST"] {
                let options = json!({ "method": method, "headers": forged });
                let answer = ask("/api/velt/token", options.clone()).await;
                assert_eq!(answer["status"], 401, "{options}: {answer}");
                assert_eq!(ask("/api/me", options).await["token"], Value::Null);
            }
        }
    })
    .await;
    // From the machine's own name, the same request is a developer's who stands in for the login proxy.
    in_browser_with("own-name", &format!("http://localhost:{port}/"), &[], async |page| {
        let token = page
            .script(
                "return fetch('/api/me', { headers: { 'X-Forwarded-User': 'ada' } })
                    .then(answer => answer.headers.get('x-velt-token'))",
            )
            .await;
        assert_eq!(claims_of(token.as_str().expect("a token"))["userId"], "ada");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b2_gunicorn_answers_with_any_scheme_of_a_front() {
    let command = |port: u16| {
        let mut gunicorn = Command::new(tool("gunicorn"));
        gunicorn.args(["--chdir", APPS, "--log-level", "critical", "--bind"]);
        gunicorn.arg(format!("127.0.0.1:{port}")).arg("environ:application");
        gunicorn.env("PYTHONDONTWRITEBYTECODE", "1").stdin(Stdio::null());
        gunicorn
    };
    let http = http_client();
    let ready = async |address: SocketAddr| {
        let answer = http.get(format!("http://{address}/")).send().await;
        let answer = answer.map_err(|error| error.to_string())?;
        let server = answer.headers().get("server").map(HeaderValue::as_bytes);
        if server == Some(b"gunicorn") { Ok(()) } else { Err(format!("{server:?}")) }
    };
    let (gunicorn, address) = Process::start_on_free_port(command, ready).await;
    assert_ne!(address, LOOPBACK);
    let sidecar = Sidecar::start(address).await;
    for (name, value) in [
        ("x-forwarded-ssl", "on"),
        ("x-forwarded-protocol", "ssl"),
        ("x-forwarded-proto", "https"),
        ("forwarded", "proto=https"),
    ] {
        let url = format!("http://{}/", sidecar.addresses.traffic);
        let answer = http.get(url).header(name, value).send().await.expect("an answer");
        assert_eq!(answer.status(), 200, "{name}: {value}");
        let body = answer.bytes().await.expect("to its end");
        let variables: Value = serde_json::from_slice(&body).expect("JSON");
        let said = variables[format!("HTTP_{}", name.to_uppercase().replace('-', "_"))].clone();
        assert_eq!(said, value, "{variables}");
    }
    // gunicorn ends its worker if gunicorn is asked to end.
    gunicorn.terminate();
    eventually("gunicorn to end", async || match tokio::net::TcpStream::connect(address).await {
        Ok(_) => Err("it still listens".to_owned()),
        Err(_) => Ok(()),
    })
    .await;
}

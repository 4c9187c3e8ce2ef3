//! Metrics as Prometheus itself reads them.

use std::io::Write as _;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use http::{Response, StatusCode};
use serde_json::Value;
use tempfile::TempDir;

use crate::neighbour::{Process, Sidecar, eventually, http_client, serve_app, tool};

/// Sends a sidecar requests of every kind, so that all figures have values: served, refused, anonymous,
/// forged, and answered by the app with an error.
pub async fn make_traffic(sidecar: SocketAddr, users: &[&str]) {
    let http = http_client();
    let expect = async |request: reqwest::RequestBuilder, expected: StatusCode| {
        let answer = request.send().await.expect("an answer");
        assert_eq!(answer.status(), expected, "{}", answer.url());
    };
    let url = |path: &str| format!("http://{sidecar}{path}");
    for user in users {
        let get = |path| http.get(url(path)).header("x-forwarded-user", *user);
        expect(get("/"), StatusCode::OK).await;
        expect(get("/generate-velt-jwt-token"), StatusCode::OK).await;
        expect(get("/api/velt/token"), StatusCode::OK).await;
        expect(get("/missing"), StatusCode::NOT_FOUND).await;
        expect(get("/").header("x-forwarded-user", "b"), StatusCode::BAD_REQUEST).await;
    }
    expect(http.get(url("/")), StatusCode::OK).await;
    expect(http.get(url("/api/velt/token")), StatusCode::UNAUTHORIZED).await;
    expect(http.get(url("/")).header("x-velt-token", "forged"), StatusCode::OK).await;
}

/// Starts a sidecar and sends it traffic of `users`. Also returns a guard that keeps its app alive.
pub async fn busy_sidecar(users: &[&str]) -> (Sidecar, impl Drop) {
    let (serving, app) = serve_app(|request| {
        let mut response = Response::default();
        if request.uri().path() == "/missing" {
            *response.status_mut() = StatusCode::NOT_FOUND;
        }
        response
    })
    .await;
    let sidecar = Sidecar::start(app).await;
    make_traffic(sidecar.addresses.traffic, users).await;
    (sidecar, serving)
}

/// Starts a Prometheus that scrapes these admin ports every second and adds `labels` to the results. Also
/// returns the folder of its data.
pub async fn start_prometheus(
    admin_ports: &[SocketAddr],
    labels: &str,
) -> (TempDir, Process, SocketAddr) {
    let folder = TempDir::new().expect("a folder for Prometheus");
    let config = folder.path().join("prometheus.yml");
    let targets: Vec<_> = admin_ports.iter().map(|admin| format!("'{admin}'")).collect();
    let targets = targets.join(", ");
    let text = format!(
        "global: {{ scrape_interval: 1s, scrape_timeout: 1s }}\n\
         scrape_configs:\n  - job_name: velt-sidecar\n    static_configs: [{{ targets: [{targets}], labels: {labels} }}]\n"
    );
    std::fs::write(&config, text).expect("a file for the configuration");
    let http = http_client();
    let start = |port: u16| {
        let mut prometheus = Command::new(tool("prometheus"));
        prometheus
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .args(["--log.level=warn"])
            .stdin(Stdio::null());
        prometheus
    };
    let ready = async |address: SocketAddr| {
        let answer = http.get(format!("http://{address}/-/ready")).send().await;
        match answer {
            Ok(answer) if answer.status().is_success() => Ok(()),
            Ok(answer) => Err(answer.status().to_string()),
            Err(error) => Err(error.to_string()),
        }
    };
    let (prometheus, address) = Process::start_on_free_port(start, ready).await;
    (folder, prometheus, address)
}

#[tokio::test(flavor = "multi_thread")]
async fn promtool_has_nothing_to_complain_of() {
    let (sidecar, _app) = busy_sidecar(&["ada", "grace"]).await;
    let url = format!("http://{}/metrics", sidecar.addresses.admin);
    let scrape = http_client().get(url).send().await.expect("an answer");
    let scrape = scrape.text().await.expect("text");
    assert!(scrape.contains("velt_sidecar_mints_total{outcome=\"minted\"} 2\n"), "{scrape}");

    let mut promtool = Command::new(tool("promtool"));
    promtool.args(["check", "metrics"]).stdin(Stdio::piped());
    promtool.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut promtool = promtool.spawn().expect("promtool starts");
    let mut stdin = promtool.stdin.take().expect("it is piped");
    stdin.write_all(scrape.as_bytes()).expect("promtool reads");
    drop(stdin);
    let checked = promtool.wait_with_output().expect("promtool ends");
    let said = String::from_utf8_lossy(&checked.stderr) + String::from_utf8_lossy(&checked.stdout);
    assert!(checked.status.success() && said.is_empty(), "{}: {said}", checked.status);
}

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_scrapes_a_sidecar_and_counts_its_mints() {
    let users = ["ada", "grace", "linus"];
    let (sidecar, _app) = busy_sidecar(&users).await;
    let (_folder, _prometheus, address) = start_prometheus(&[sidecar.addresses.admin], "{}").await;
    let http = http_client();
    let value = async |query: &str| {
        let url = format!("http://{address}/api/v1/query");
        let answer = http.post(url).header("content-type", "application/x-www-form-urlencoded");
        let answer = answer.body(format!("query={query}")).send().await.expect("an answer");
        let answer: Value = serde_json::from_slice(&answer.bytes().await.expect("to its end"))
            .expect("JSON of Prometheus");
        assert_eq!(answer["status"], "success", "{answer}");
        match answer["data"]["result"].as_array().expect("a list").as_slice() {
            [] => Err("nothing scraped yet".into()),
            [one] => Ok(one["value"][1].as_str().expect("a number as text").to_owned()),
            _ => panic!("one series was asked for: {answer}"),
        }
    };
    let minted = async || value("velt_sidecar_mints_total{outcome=\"minted\"}").await;
    assert_eq!(eventually("a scrape", minted).await, users.len().to_string());
    assert_eq!(value("up{job=\"velt-sidecar\"}").await.as_deref(), Ok("1"));
    let refused = value("velt_sidecar_identity_refusals_total{kind=\"repeated\"}").await;
    assert_eq!(refused, Ok(users.len().to_string()));
    let names = value("count(count by (__name__) ({__name__=~\"velt_sidecar_.%2B\"}))").await;
    let names: u32 = names.expect("scraped").parse().expect("a number");
    assert!(names > 20, "{names} metrics");
}

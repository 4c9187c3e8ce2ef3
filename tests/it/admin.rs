//! The admin port: for the kubelet, Prometheus and a person, and not for pages in a browser.

mod calls;
mod config;
mod crowd;

use http::Method;

use crate::support::client::Client;
use crate::support::{Stage, config as parsed};

const PATHS: [&str; 4] = ["/metrics", "/healthz/live", "/healthz/ready", "/healthz/startup"];

#[test]
fn t51_admin_port_is_local_by_default() {
    let admin = parsed("").expect("the defaults are valid").admin.address;
    assert!(admin.ip().is_loopback(), "{admin}");
}

#[tokio::test]
async fn t51_a_page_in_a_browser_is_refused() {
    let stage = Stage::set("").await;
    let admin = Client::to(stage.sidecar.addresses.admin);
    for path in PATHS.into_iter().chain(["/elsewhere"]) {
        for site in ["same-origin", "same-site", "cross-site", "something-new", ""] {
            let asking = admin.get(path).header("sec-fetch-site", site);
            let answer = asking.header("origin", "https://evil.example").send().await;
            assert_eq!(answer.status(), 403, "{path} {site}");
            assert!(!answer.text().contains("velt_sidecar"), "{}", answer.text());
            assert!(!format!("{answer:?}").contains("evil.example"), "{answer:?}");
        }
        let both = admin.get(path).header("sec-fetch-site", "none");
        let answer = both.header("sec-fetch-site", "cross-site").send().await;
        assert_eq!(answer.status(), 403, "{path}");
    }
}

#[tokio::test]
async fn t51_probes_scrapes_and_a_persons_own_tab_are_answered() {
    let stage = Stage::set("").await;
    let admin = Client::to(stage.sidecar.addresses.admin);
    for path in PATHS {
        for (name, value) in [
            ("user-agent", "kube-probe/1.34"),
            ("user-agent", "Prometheus/3.7.0"),
            ("sec-fetch-site", "none"),
            // Headers of kube-rbac-proxy and of the API server's proxy, which stand in front of admin
            // ports.
            ("x-forwarded-for", "10.0.0.7"),
            ("x-forwarded-host", "metrics.example"),
        ] {
            let answer = admin.get(path).header(name, value).send().await;
            assert_eq!(answer.status(), 200, "{path} {name}: {value}");
            let cors = answer.headers().keys().any(|name| name.as_str().starts_with("access-"));
            assert!(!cors, "{answer:?}");
        }
    }
}

#[tokio::test]
async fn t26_admin_port_serves_no_token_and_no_app() {
    let stage = Stage::set("").await;
    let admin = Client::to(stage.sidecar.addresses.admin);
    for path in ["/", "/api/velt/token", "/generate-velt-jwt-token", "/api/me", "/metrics/.."] {
        let answer = admin.get(path).header("x-forwarded-user", "ada").send().await;
        assert_eq!((answer.status(), answer.token()), (404, None), "{path}");
        let posted = admin.post(path, "").header("x-forwarded-user", "ada").send().await;
        assert_eq!((posted.status(), posted.header("allow")), (405, Some("GET, HEAD")), "{path}");
    }
    for method in [Method::PUT, Method::DELETE, Method::OPTIONS] {
        assert_eq!(admin.request(method, "/metrics").send().await.status(), 405);
    }
    assert_eq!((stage.app.journal().len(), stage.velt.call_count()), (0, 0));
}

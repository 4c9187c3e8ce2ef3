//! Admin calls: which clients may make them, and what they do to a running sidecar.

use http::Method;
use serde_json::{Value, json};

use crate::support::binary::{Running, finished};
use crate::support::client::{Answer, Client, Sending};
use crate::support::velt::{answer, token, user_of};
use crate::support::{Stage, TestSidecar, config, document};

const TOKEN: &str = "canary-0123456789abcdef0123456789";

/// Returns every call in the form that the sidecar accepts.
fn calls(admin: std::net::SocketAddr) -> Vec<(&'static str, Sending)> {
    let client = Client::to(admin);
    let json = |method: Method, path: &'static str, body: Value| {
        let sending = match method {
            Method::POST => client.post(path, body.to_string()),
            method => client.request(method, path).body(body.to_string()),
        };
        (path, sending.header("content-type", "application/json"))
    };
    let calls = vec![
        ("/config", client.get("/config")),
        ("/refusals", client.get("/refusals")),
        ("/log/level", client.get("/log/level")),
        json(Method::POST, "/cache/invalidate", json!({"everything": true})),
        json(Method::POST, "/explain", json!({"target": "/"})),
    ];
    let host = admin.to_string();
    calls
        .into_iter()
        .map(|(path, sending)| (path, sending.without("host").header("host", &host)))
        .collect()
}

#[tokio::test]
async fn t51_calls_are_denied_to_pages_proxies_and_other_names() {
    let stage = Stage::set("").await;
    let admin = stage.sidecar.addresses.admin;
    for (name, value) in [
        ("sec-fetch-site", "same-origin"),
        ("sec-fetch-site", "none"),
        ("origin", "http://127.0.0.1:9901"),
        ("x-forwarded-for", "10.0.0.7"),
        ("forwarded", "for=10.0.0.7"),
        ("host", "rebound.evil.example:9901"),
    ] {
        for (path, sending) in calls(admin) {
            let sending = if name == "host" { sending.without("host") } else { sending };
            let answer = sending.header(name, value).send().await;
            assert_eq!(answer.status(), 403, "{path} {name}: {value}");
            assert!(!answer.text().contains("identity"), "{}", answer.text());
        }
    }
    for (path, sending) in calls(admin) {
        let answer = sending.send().await;
        assert_eq!(answer.status(), 200, "{path}: {}", answer.text());
        assert_eq!(answer.header("cache-control"), Some("no-store"));
    }
    assert_eq!(stage.metric("admin_calls_total{result=\"answered\"}").await, 5.0);
    // The admin port refuses requests of pages (`same-origin`) before it counts them as calls.
    assert_eq!(stage.metric("admin_calls_total{result=\"denied\"}").await, 25.0);
}

#[tokio::test]
async fn t51_every_call_needs_the_token_once_configured() {
    let stage = Stage::set("").await;
    let document = document(&stage.app.address.to_string(), stage.velt.address, "");
    let mut environment = crate::support::environment();
    environment.insert("VELT_SIDECAR_ADMIN_TOKEN".into(), TOKEN.into());
    let config = server::config::Config::parse("sidecar.toml", &document, &environment);
    let sidecar = TestSidecar::run(config.unwrap_or_else(|error| panic!("{error}")));
    let admin = sidecar.addresses.admin;
    for (shown, status) in [
        (None, 401),
        (Some("Bearer wrong".to_owned()), 401),
        (Some(format!("Basic {TOKEN}")), 401),
        (Some(format!("Bearer {TOKEN}")), 200),
    ] {
        for (path, sending) in calls(admin) {
            let sending = match &shown {
                Some(shown) => sending.header("authorization", shown),
                None => sending,
            };
            let answer = sending.send().await;
            assert_eq!(answer.status(), status, "{path} {shown:?}: {}", answer.text());
            let challenge = (status == 401).then_some("Bearer");
            assert_eq!(answer.header("www-authenticate"), challenge, "{path}");
            assert!(!answer.text().contains(TOKEN), "{}", answer.text());
        }
    }
    // Probes and Prometheus have no token.
    for path in ["/metrics", "/healthz/ready", "/healthz/live", "/healthz/startup"] {
        assert_eq!(Client::to(admin).get(path).send().await.status(), 200, "{path}");
    }
}

#[tokio::test]
async fn invalid_admin_call_is_answered_with_a_valid_one() {
    let stage = Stage::set("").await;
    let admin = stage.sidecar.addresses.admin;
    let host = admin.to_string();
    let sent = |sending: Sending| sending.without("host").header("host", &host);
    let client = Client::to(admin);
    for (path, allow) in
        [("/config", "GET"), ("/refusals", "GET"), ("/explain", "POST"), ("/log/level", "GET, PUT")]
    {
        let answer = sent(client.request(Method::DELETE, path)).send().await;
        assert_eq!((answer.status(), answer.header("allow")), (405, Some(allow)), "{path}");
    }
    for (path, body) in [
        ("/cache/invalidate", "{}"),
        ("/cache/invalidate", "{\"user\":\"ada\",\"everything\":true}"),
        ("/cache/invalidate", "{\"user\":7}"),
        ("/cache/invalidate", "{\"users\":\"ada\"}"),
        ("/cache/invalidate", "ada"),
        ("/cache/invalidate", ""),
        ("/explain", "{}"),
        ("/explain", "{\"target\":\"nowhere\"}"),
        ("/explain", "{\"target\":\"/\",\"headers\":[[\"a b\",\"c\"]]}"),
        ("/explain", "{\"target\":\"/\",\"peer\":\"nobody\"}"),
        ("/explain", "{\"target\":\"/\",\"response\":{\"status\":9}}"),
        ("/explain", "[]"),
    ] {
        let posted = sent(client.post(path, body)).header("content-type", "application/json");
        let answer = posted.send().await;
        assert_eq!((answer.status(), &*answer.code()), (400, "unclear"), "{path} {body}");
        // Content types that a page may send without a preflight request.
        for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"] {
            let answer = sent(client.post(path, body)).header("content-type", kind).send().await;
            assert_eq!(answer.status(), 415, "{path} {kind}");
        }
    }
    let large = format!("{{\"target\":\"/{}\"}}", "x".repeat(200 * 1024));
    let posted = sent(client.post("/explain", large)).header("content-type", "application/json");
    assert_eq!(posted.send().await.status(), 413);
    // The tests' process logs nothing by itself.
    let put = client.request(Method::PUT, "/log/level").body("{\"level\":\"debug\"}");
    let put = sent(put).header("content-type", "application/json; charset=utf-8");
    assert_eq!(put.send().await.code(), "fixed_level");
}

#[tokio::test]
async fn the_configuration_is_shown_as_check_shows_it() {
    let toml = "[delivery.header]\npaths = [\"/api/*\"]";
    let stage = Stage::set(toml).await;
    let document = document(&stage.app.address.to_string(), stage.velt.address, toml);
    let described = config(&document).expect("valid").describe();
    let admin = stage.sidecar.addresses.admin;
    let shown = calls(admin).remove(0).1.send().await.text();
    assert_eq!(shown, described);
    assert!(shown.contains("<redacted>") && !shown.contains("canary"), "{shown}");
}

#[tokio::test]
async fn remembered_refusal_holds_only_kind_peer_and_header() {
    let stage = Stage::set("").await;
    for (name, value) in [
        ("x-forwarded-user", "canary-a,canary-b"),
        ("x_forwarded_user", "canary"),
        ("x-velt-token", "canary"),
    ] {
        let sending = stage.client().get("/canary-path").header(name, value);
        let _ = sending.header("cookie", "canary").send().await;
    }
    stage.velt.answer_with(403, "{}");
    stage.get_as("canary-user", "/api/velt/token").await;
    let admin = stage.sidecar.addresses.admin;
    let refusals = calls(admin).remove(1).1.send().await;
    assert!(!refusals.text().contains("canary"), "{}", refusals.text());
    let refusals = refusals.json();
    let recent = refusals["recent"].as_array().expect("a list");
    let told: Vec<_> = recent
        .iter()
        .map(|one| {
            assert!(one["at"].as_str().is_some_and(|at| at.ends_with(" GMT")), "{one}");
            let word = |key: &str| one[key].as_str().unwrap_or("-").to_owned();
            format!("{} {} {} {}", word("what"), word("kind"), word("peer"), word("header"))
        })
        .collect();
    assert_eq!(
        told,
        [
            "token refused - -",
            "spoof token_header 127.0.0.1 x-velt-token",
            "identity alias 127.0.0.1 x-forwarded-user",
            "identity list 127.0.0.1 x-forwarded-user",
        ]
    );
    assert_eq!(
        refusals["totals"],
        json!({
            "identity": {"alias": 1, "list": 1}, "spoof": {"token_header": 1},
            "assertion": {}, "token": {"refused": 1},
        })
    );
    // A flood of one kind of refusal displaces no refusal of another kind.
    for _ in 0..50 {
        let _ = stage.client().get("/").header("x-velt-token", "x").send().await;
    }
    let refusals = calls(admin).remove(1).1.send().await.json();
    let recent = refusals["recent"].as_array().expect("a list");
    let of = |what: &str| recent.iter().filter(|one| one["what"] == what).count();
    assert_eq!((of("spoof"), of("identity"), of("token")), (32, 2, 1));
}

async fn invalidate(stage: &Stage, body: &Value) -> Value {
    let answer: Answer =
        crate::explain::call(stage.sidecar.addresses.admin, "/cache/invalidate", body).await;
    assert_eq!(answer.status(), 200, "{}", answer.text());
    answer.json()
}

#[tokio::test]
async fn invalidation_renews_the_token_of_one_user_only() {
    let v2 = "[velt]\napi = \"v2\"\n[identity]\norganization_header = \"X-Org\"";
    let stage = Stage::set(v2).await;
    stage.velt.script(|call, n| {
        let user = call.body["data"]["userId"].as_str().expect("a user");
        crate::support::velt::minted(&token(user, n))
    });
    let ask = async |user: &str, organization: &str| {
        let asking = stage.client().get("/api/velt/token").header("x-forwarded-user", user);
        asking.header("x-org", organization).send().await.json()["token"].to_string()
    };
    let before = [ask("ada", "a").await, ask("ada", "b").await, ask("eve", "a").await];
    assert_eq!(invalidate(&stage, &json!({"user": "nobody"})).await["entries"], 0);
    let dropped = invalidate(&stage, &json!({"user": "ada"})).await;
    assert_eq!(dropped, json!({"entries": 2, "mints": 0}));
    let after = [ask("ada", "a").await, ask("ada", "b").await, ask("eve", "a").await];
    assert_ne!(before[0], after[0]);
    assert_ne!(before[1], after[1]);
    assert_eq!(before[2], after[2]);
    assert_eq!(invalidate(&stage, &json!({"everything": true})).await["entries"], 3);
    assert_ne!(ask("eve", "a").await, after[2]);
}

#[tokio::test]
async fn mint_under_way_restores_no_invalidated_token() {
    let stage = Stage::set("").await;
    stage.velt.close_gate();
    let traffic = stage.sidecar.addresses.traffic;
    let ask = move || {
        let asking = Client::to(traffic).get("/api/velt/token").header("x-forwarded-user", "ada");
        tokio::spawn(async move { asking.send().await.json()["token"].to_string() })
    };
    let old = ask();
    stage.velt.calls_reach(1).await;
    let dropped = invalidate(&stage, &json!({"user": "ada"})).await;
    assert_eq!(dropped, json!({"entries": 0, "mints": 1}));
    // A new request does not join the mint that began before the invalidation.
    let new = ask();
    stage.velt.calls_reach(2).await;
    stage.velt.open_gate();
    let (old, new) = (old.await.expect("no panic"), new.await.expect("no panic"));
    assert_ne!(old, new);
    assert_eq!(user_of(old.trim_matches('"')), "ada", "who had waited was served");
    assert_eq!(ask().await.expect("no panic"), new, "the one that is kept is the new one");
    assert_eq!(stage.velt.call_count(), 2);
}

#[tokio::test]
async fn a_remembered_refusal_can_be_forgotten() {
    let stage = Stage::set("").await;
    stage.velt.script(|_, _| answer(403, "{}"));
    assert_eq!(stage.get_as("ada", "/api/velt/token").await.status(), 502);
    stage.velt.recover();
    assert_eq!(stage.get_as("ada", "/api/velt/token").await.status(), 502, "it is remembered");
    assert_eq!(invalidate(&stage, &json!({"user": "ada"})).await["entries"], 1);
    assert_eq!(stage.get_as("ada", "/api/velt/token").await.status(), 200);
}

#[tokio::test]
async fn admin_commands_make_the_calls() {
    let variable = [("VELT_SIDECAR_ADMIN_TOKEN", TOKEN), ("VELT_SIDECAR_SHUTDOWN__GRACE", "0s")];
    let (mut running, traffic, admin) = Running::sidecar(&variable).await;
    let url = format!("http://{admin}");
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("token");
    std::fs::write(&file, format!("{TOKEN}\n")).expect("written");
    let file = file.to_str().expect("a plain path");
    let with_file = ["--admin", &url, "--admin-token-file", file];
    for (arguments, expected) in [
        (&["admin", "config"][..], "user_header = \"X-Forwarded-User\""),
        (&["admin", "refusals"], "\"recent\": []"),
        (&["admin", "log-level"], "\"info\""),
        (&["admin", "log-level", "debug"], "\"debug\""),
        (&["admin", "invalidate", "--user", "ada"], "\"entries\": 0"),
        (&["admin", "invalidate", "--organization", "acme"], "\"entries\": 0"),
        (&["admin", "invalidate", "--everything"], "\"entries\": 0"),
        (&["explain", "/api/me"], "no user (anonymous)"),
    ] {
        let finished = finished(&[arguments, &with_file].concat(), &[]).await;
        assert_eq!((finished.code, &*finished.stderr), (Some(0), ""), "{arguments:?}");
        assert!(finished.stdout.contains(expected), "{arguments:?}: {}", finished.stdout);
        assert!(!finished.stdout.contains("canary"), "{}", finished.stdout);
    }
    // At level debug, the sidecar logs that no app answers.
    assert_eq!(Client::to(traffic).get("/").send().await.status(), 502);
    running.line_with("the app gave no answer").await;
    let by_variable = finished(&["admin", "log-level", "info", "--admin", &url], &variable).await;
    assert_eq!(by_variable.code, Some(0), "{}", by_variable.stderr);
    running.line_with("the log's level was changed").await;
    for (arguments, environment, code) in [
        (&["admin", "config"][..], &[][..], 77),
        (&["explain", "/"], &[], 77),
        (&["admin", "config"], &[("VELT_SIDECAR_ADMIN_TOKEN", "wrong")], 77),
        (&["admin", "log-level", "loud"], &variable, 64),
        (&["admin", "invalidate"], &variable, 64),
        (&["admin", "invalidate", "--everything", "--user", "ada"], &variable, 64),
        (&["admin", "invalidate", "--organization", "acme", "--user", "ada"], &variable, 64),
        (&["admin", "config", "--admin-token-file", "nowhere"], &variable, 64),
        (&["admin"], &variable, 64),
    ] {
        let arguments = [arguments, &["--admin", &url]].concat();
        let finished = finished(&arguments, environment).await;
        assert_eq!((finished.code, &*finished.stdout), (Some(code), ""), "{arguments:?}");
        assert!(!finished.stderr.is_empty() && !finished.stderr.contains("canary"));
    }
    let elsewhere = finished(&["admin", "config", "--admin", "http://127.0.0.1:1"], &[]).await;
    assert_eq!(elsewhere.code, Some(69), "{}", elsewhere.stderr);
    running.signal("TERM");
    let (_, printed) = running.ended().await;
    assert!(!printed.contains("canary"), "{printed}");
}

//! `explain` says what happens: the same requests explained and sent, side by side.

mod agreement;
mod curl;

use std::net::SocketAddr;

use serde_json::{Value, json};
use server::explain::{Asked, InForce, Report};
use sidecar::explain::TokenFate;
use tools::explain::by_config;

use crate::support::binary::{CREDENTIALS, finished};
use crate::support::client::{Answer, Client};
use crate::support::issuer::{Issuer, Pen, claims};
use crate::support::{Stage, config};

/// Makes an admin call to this address, in the form that the sidecar accepts.
pub async fn call(admin: SocketAddr, path: &str, body: &Value) -> Answer {
    let sending = Client::to(admin).post(path, body.to_string());
    let sending = sending.without("host").header("host", admin.to_string());
    sending.header("content-type", "application/json").send().await
}

/// Asks a running sidecar to explain a request.
async fn by_sidecar(admin: SocketAddr, asked: &Asked) -> Report {
    let answer = call(admin, "/explain", &serde_json::to_value(asked).expect("JSON")).await;
    assert_eq!(answer.status(), 200, "{}", answer.text());
    serde_json::from_slice(answer.body()).expect("a report")
}

fn asked(target: &str, headers: &[(&str, &str)]) -> Asked {
    let headers = headers.iter().map(|(name, value)| ((*name).into(), (*value).into()));
    Asked { target: target.into(), headers: headers.collect(), ..Asked::default() }
}

/// Returns the lines of a scrape without series that change by themselves or by admin calls.
fn steady(scrape: &str) -> Vec<&str> {
    let moving =
        ["process_", "_admin_calls_total", "_outage_headroom_seconds", "_memory_used_bytes"];
    scrape.lines().filter(|line| !moving.iter().any(|name| line.contains(name))).collect()
}

#[tokio::test]
async fn explain_counts_nothing_mints_nothing_and_asks_no_server() {
    let stage = Stage::set("").await;
    let admin = stage.sidecar.addresses.admin;
    assert_eq!(stage.get_as("ada", "/api/velt/token").await.status(), 200);
    let before = stage.sidecar.scrape().await;
    for (user, path) in [("ada", "/"), ("ada", "/api/velt/token"), ("eve", "/"), ("a,b", "/")] {
        for name in ["x-forwarded-user", "x_forwarded_user", "x-velt-token"] {
            let _ = by_sidecar(admin, &asked(path, &[(name, user)])).await;
        }
    }
    let after = stage.sidecar.scrape().await;
    for (before, after) in steady(&before).into_iter().zip(steady(&after)) {
        assert_eq!(before, after);
    }
    assert_eq!((stage.velt.call_count(), stage.app.journal().len()), (1, 0));
    let refusals = Client::to(admin).get("/refusals").without("host");
    let refusals = refusals.header("host", "localhost").send().await.json();
    assert_eq!(refusals["recent"], json!([]), "{refusals}");
}

#[tokio::test]
async fn a_running_sidecar_says_what_its_cache_holds() {
    let stage = Stage::set("").await;
    let admin = stage.sidecar.addresses.admin;
    let ada = asked("/api/velt/token", &[("x-forwarded-user", "ada")]);
    let token = |report: &Report| {
        let step = report.steps.iter().find(|step| step.step == "token").expect("a look-up");
        format!("{}; {}", step.verdict, step.why)
    };
    let absent = token(&by_sidecar(admin, &ada).await);
    assert!(absent.starts_with("not cached, so minted"), "{absent}");

    stage.velt.close_gate();
    let traffic = stage.sidecar.addresses.traffic;
    let asking = tokio::spawn(async move {
        let sending = Client::to(traffic).get("/api/velt/token");
        sending.header("x-forwarded-user", "ada").send().await.status()
    });
    stage.velt.calls_reach(1).await;
    let in_flight = token(&by_sidecar(admin, &ada).await);
    assert!(in_flight.starts_with("being minted"), "{in_flight}");
    stage.velt.open_gate();
    assert_eq!(asking.await.expect("no panic"), 200);
    let report = by_sidecar(admin, &ada).await;
    assert!(token(&report).starts_with("cached, fresh; for \"ada\", for 48 h"), "{report}");
    assert_eq!(report.answer.token, TokenFate::Delivered);

    stage.velt.answer_with(403, r#"{"error":{"status":"PERMISSION_DENIED","message":"m"}}"#);
    let eve = asked("/api/velt/token", &[("x-forwarded-user", "eve")]);
    assert_eq!(stage.get_as("eve", "/api/velt/token").await.status(), 502);
    let failed = by_sidecar(admin, &eve).await;
    assert!(token(&failed).contains("PERMISSION_DENIED, HTTP 403"), "{failed}");
    assert_eq!(failed.answer.code.as_deref(), Some("token_refused"));

    // Five refusals in a row suspend the organization's calls; a new user of the organization is told
    // so. The pauses double, until a pause is longer than a mint may take.
    for n in 0..8 {
        stage.get_as(&format!("user-{n}"), "/api/velt/token").await;
    }
    let new = asked("/api/velt/token", &[("x-forwarded-user", "new")]);
    let suspended = by_sidecar(admin, &new).await;
    assert!(token(&suspended).starts_with("not cached, and calls suspended for"), "{suspended}");
    assert_eq!(suspended.answer.code.as_deref(), Some("token_refused"));
    assert_eq!(stage.get_as("new", "/api/velt/token").await.code(), "token_refused");
}

const GRANTS: &str = r#"
    [identity]
    grants_header = "X-Grants"
    groups_header = "X-Groups"
    [velt]
    api = "v2"
    organization = "acme"
    [[velt.resource]]
    type = "organization"
    id = "acme"
    role = "viewer"
    [[velt.resource]]
    type = "folder"
    id = "secret-folder"
    groups = ["editors"]
"#;

#[tokio::test]
async fn explain_counts_rights_and_names_their_settings() {
    let stage = Stage::set(GRANTS).await;
    let admin = stage.sidecar.addresses.admin;
    let said = async |step: &str, headers: &[(&str, &str)]| {
        let headers = [&[("x-forwarded-user", "ada")], headers].concat();
        let report = by_sidecar(admin, &asked("/api/velt/token", &headers)).await;
        let text = report.to_string();
        assert!(!text.contains("secret-"), "ids of resources are left out: {text}");
        let step = report.steps.into_iter().find(|it| it.step == step);
        let step = step.unwrap_or_else(|| panic!("no such step in {text}"));
        let keys: Vec<_> =
            step.settings.iter().map(|it| format!("{} = {}", it.key, it.value)).collect();
        (step.verdict, step.why, keys.join(", "))
    };
    let grants = r#"[{"type":"folder","id":"secret-f"},{"type":"document","id":"secret-d"}]"#;
    let headers = [("x-groups", "editors"), ("x-grants", grants)];
    let (verdict, why, keys) = said("rights", &headers).await;
    assert_eq!(verdict, "1 organization, 2 folders, 1 document");
    assert_eq!(why, "2 of 2 from [[velt.resource]], 2 from x-grants");
    let expected = "velt.resource = 2 tables, identity.groups_header = \"X-Groups\", \
                    identity.grants_header = \"X-Grants\"";
    assert_eq!(keys, expected);

    let (verdict, why, _) = said("rights", &[("x-grants", "[]")]).await;
    assert_eq!(verdict, "1 organization");
    assert!(why.starts_with("1 of 2 from [[velt.resource]], 0 from x-grants; "), "{why}");
    assert!(why.contains("Invalid user token"), "{why}");

    for (headers, reason, setting) in [
        (&[][..], "there are none", "identity.grants_header"),
        (&[("x-grants", "secret-")], "they are no JSON", "identity.grants_header"),
        (&[("x-grants", "[]"), ("x-groups", "a\tb")], "groups can't be", "identity.groups_header"),
        (
            &[("x-grants", r#"[{"type":"organization","id":"acme"}]"#)],
            "twice",
            "velt.resource = 2 tables, identity.grants_header",
        ),
    ] {
        let (verdict, why, keys) = said("token", headers).await;
        assert_eq!(verdict, "none");
        assert!(why.contains(reason) && keys.starts_with(setting), "{why}; {keys}");
    }
}

#[tokio::test]
async fn explain_checks_assertions_with_the_keys_in_force() {
    let pen = Pen::es256("key");
    let issuer = Issuer::publishing(&[&pen]).await;
    let stage = Stage::set(&issuer.toml()).await;
    stage.sidecar.metric_reaches("identity_keys", 1.0).await;
    let mut expired = claims("ada");
    expired["exp"] = 1.into();
    let table = [
        (Some(pen.sign(&claims("ada"))), 200, None),
        (Some(pen.sign(&expired)), 401, Some("invalid_assertion")),
        (Some(Pen::es256("key").sign(&claims("eve"))), 401, Some("invalid_assertion")),
        (Some(Pen::es256("other").sign(&claims("eve"))), 401, Some("invalid_assertion")),
        (Some("a.b.c".into()), 401, Some("invalid_assertion")),
        (None, 401, Some("no_identity")),
    ];
    for (assertion, status, code) in table {
        let headers: Vec<_> = assertion.iter().map(|it| ("x-assertion", it.as_str())).collect();
        let asked = asked("/api/velt/token", &headers);
        let report = by_sidecar(stage.sidecar.addresses.admin, &asked).await;
        let answer = &report.answer;
        assert_eq!((answer.status, answer.code.as_deref()), (status, code), "{report}");
        let sending = stage.client().get("/api/velt/token");
        let sending =
            headers.iter().fold(sending, |sending, (name, value)| sending.header(name, value));
        assert_eq!(sending.send().await.status(), status, "{report}");
        assert!(assertion.is_none_or(|it| !report.to_string().contains(&it)), "{report}");
    }
    // `explain` by the configuration alone has no keys, and its report says so.
    let alone = config(&issuer.toml()).unwrap_or_else(|error| panic!("{error}"));
    let valid = pen.sign(&claims("ada"));
    let fetches = issuer.server.journal().len();
    let report = by_config(&alone, asked("/api/velt/token", &[("x-assertion", &valid)])).await;
    let report = report.unwrap_or_else(|error| panic!("{error:?}"));
    assert_eq!(report.answer.code.as_deref(), Some("identity_unverified"));
    assert!(report.to_string().contains("the configuration alone has no keys"), "{report}");
    assert!(report.answer.advice.expect("advice").contains("--admin"));
    assert_eq!(issuer.server.journal().len(), fetches, "nothing was fetched");
}

#[tokio::test]
async fn each_setting_in_an_explanation_exists_with_its_place() {
    let toml = "[identity]\ntrusted_peers = [\"127.0.0.1\"]\n\n[[delivery.route]]\npath = \"/t\"\n";
    let mut environment = crate::support::environment();
    environment.insert("VELT_SIDECAR_DELIVERY__HEADER__PATHS".into(), "/api/*".into());
    let config = server::config::Config::parse("sidecar.toml", toml, &environment);
    let config = config.unwrap_or_else(|error| panic!("{error}"));
    let mut places = Vec::new();
    for (target, headers) in [
        ("/t", &[("x-forwarded-user", "ada")][..]),
        ("/api/x", &[("x-forwarded-user", "ada")]),
        ("/elsewhere", &[]),
        ("/t", &[("x-forwarded-user", "a,b")]),
    ] {
        let report = by_config(&config, asked(target, headers)).await.expect("explained");
        for setting in report.steps.iter().flat_map(|step| &step.settings) {
            assert_ne!(setting.value, "not set", "{} in {report}", setting.key);
            places.push(format!("{} {}", setting.key, setting.place));
        }
    }
    for expected in [
        "identity.trusted_peers line 2",
        "delivery.route.path line 5",
        "delivery.header.paths environment variable VELT_SIDECAR_DELIVERY__HEADER__PATHS",
        "identity.user_header default",
        "identity.on_ambiguous default",
    ] {
        assert!(places.iter().any(|place| place == expected), "{expected}: {places:?}");
    }
    assert!(!InForce::of(&config).text().contains("canary"));
}

#[tokio::test]
async fn explain_names_a_missing_secret_and_no_range_of_all_peers() {
    let toml = "[identity]\nsecret_header = \"X-Sidecar-Secret\"\n";
    let secret = "the-secret-of-the-front-and-the-sidecar";
    let mut environment = crate::support::environment();
    environment.insert("VELT_SIDECAR_IDENTITY__SECRET".into(), secret.into());
    let config = server::config::Config::parse("sidecar.toml", toml, &environment);
    let config = config.unwrap_or_else(|error| panic!("{error}"));
    let (user, wrong) = (("x-forwarded-user", "ada"), ("x-sidecar-secret", "wrong"));
    for headers in [&[][..], &[user], &[user, wrong], &[wrong]] {
        for target in ["/api/velt/token", "/api/me"] {
            let report = by_config(&config, asked(target, headers)).await.expect("explained");
            let advice = report.answer.advice.as_deref().expect("advice");
            for name in ["identity.secret_header", "VELT_SIDECAR_IDENTITY__SECRET"] {
                assert!(advice.contains(name), "{headers:?}: {report}");
            }
            assert!(!report.answer.summary.contains("trusted_peers"), "{report}");
            assert!(!report.to_string().contains("0.0.0.0/0"), "{report}");
        }
    }
    let right = [user, ("x-sidecar-secret", secret)];
    let report = by_config(&config, asked("/api/me", &right)).await.expect("explained").to_string();
    assert!(report.contains("identity.trusted_peers = left out  # the secret decides"), "{report}");
    assert!(!report.contains("0.0.0.0/0"), "{report}");
}

#[tokio::test]
async fn invalid_request_is_a_usage_error_and_a_verdict_is_not() {
    for (arguments, code) in [
        (&["explain"][..], 64),
        (&["explain", "GET", "/a", "/b"], 64),
        (&["explain", "api/me"], 64),
        (&["explain", "/a b"], 64),
        (&["explain", "ftp://a/b"], 64),
        (&["explain", "G T", "/"], 64),
        (&["explain", "-H", "no colon", "/"], 64),
        (&["explain", "-H", "ü: x", "/"], 64),
        (&["explain", "-H", "a: x\ny", "/"], 64),
        (&["explain", "--peer", "nobody", "/"], 64),
        (&["explain", "--response-status", "7", "/"], 64),
        (&["explain", "--http2", "-H", "connection: close", "/"], 64),
        (&["explain", "--curl", "curl 'https://a/"], 64),
        (&["explain", "--curl", "curl -k"], 64),
        (&["explain", "/", "--", "curl", "https://a/"], 64),
        (&["explain", "--admin", "nowhere", "/"], 64),
        (&["explain", "--admin", "http://127.0.0.1:1", "/"], 69),
        (&["explain", "--config", "nowhere.toml", "/"], 78),
        (&["explain", "/"], 0),
        (&["explain", "-H", "x-forwarded-user: a,b", "/"], 0),
        (&["explain", "--", "curl", "https://a/", "--no-such-flag"], 0),
    ] {
        let finished = finished(arguments, &CREDENTIALS).await;
        assert_eq!(finished.code, Some(code), "{arguments:?}: {}", finished.stderr);
        assert_eq!(finished.stdout.is_empty(), code != 0, "{arguments:?}: {}", finished.stdout);
        assert_eq!(finished.stderr.is_empty(), code == 0, "{arguments:?}: {}", finished.stderr);
    }
    assert_eq!(finished(&["explain", "/"], &[]).await.code, Some(78), "without credentials");
}

#[tokio::test]
async fn explain_needs_no_secrets_where_the_flag_says_so() {
    let flag = "--without-secrets";
    let told =
        finished(&["explain", flag, "-H", "x-forwarded-user: ada", "/api/velt/token"], &[]).await;
    assert_eq!(told.code, Some(0), "{}", told.stderr);
    assert!(told.stdout.contains("ada") || told.stdout.contains("token"), "{}", told.stdout);
    assert!(!told.stdout.contains("stand-in"), "{}", told.stdout);
    assert_eq!(told.stderr, "", "no secret decides about this request");
    let environment = [("VELT_SIDECAR_IDENTITY__SECRET_HEADER", "x-secret")];
    let told = finished(&["explain", flag, "-H", "x-secret: right", "/"], &environment).await;
    assert!(told.stdout.contains("x-secret does not hold the secret"), "{}", told.stdout);
    let note =
        "note: identity.secret: VELT_SIDECAR_IDENTITY__SECRET is not here, and a stand-in counts";
    assert!(told.stderr.starts_with(note), "{}", told.stderr);
    let both = finished(&["explain", flag, "--admin", "http://127.0.0.1:1", "/"], &[]).await;
    assert_eq!(both.code, Some(64), "a running sidecar has its secrets");
}

#[tokio::test]
async fn explain_names_the_missing_app_and_not_a_setting_that_is_on() {
    let environment = [
        CREDENTIALS[0],
        CREDENTIALS[1],
        ("VELT_SIDECAR_APP__ADDRESS", "none"),
        ("VELT_SIDECAR_DELIVERY__HEADER__ENABLED", "true"),
    ];
    let told = finished(&["explain", "/api/me"], &environment).await.stdout;
    assert!(told.contains("app.address = \"none\""), "{told}");
    assert!(!told.contains("turned off"), "{told}");
}

#[tokio::test]
async fn json_is_the_same_as_text() {
    let arguments = ["explain", "-H", "x-forwarded-user: ada", "--peer", "10.0.0.7", "/api/me"];
    let text = finished(&arguments, &CREDENTIALS).await.stdout;
    let json = finished(&[&arguments[..], &["--json"]].concat(), &CREDENTIALS).await.stdout;
    let report: Report = serde_json::from_str(&json).expect("a report");
    assert_eq!(report.to_string(), text);
    insta::assert_snapshot!("untrusted_peer", text);
}

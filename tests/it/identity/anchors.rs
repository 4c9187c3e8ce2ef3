//! Anchors of trust: address ranges, a shared secret, or both.

use std::collections::BTreeMap;

use ground::metrics::{Label, RefusalKind};
use http::HeaderMap;
use identity::Identity;
use server::config::Config;

use super::{
    NAMES, UNTRUSTED, as_ada, assert_ambiguous, assert_no_identity, every_alias, every_header_and,
    identified, identity, refusal_count, spoof_count,
};
use crate::support::app::FakeApp;
use crate::support::velt::{FakeVelt, user_of};
use crate::support::{Stage, TestSidecar, document, environment};

#[tokio::test]
async fn t10_untrusted_identity_is_stripped_and_counted() {
    let stage = Stage::set(&every_header_and(UNTRUSTED)).await;
    let forged = || {
        let mut sending = stage.client().get("/");
        for name in NAMES {
            // Headers for which a trusted peer would be refused do not change the answer to an untrusted
            // peer.
            sending = sending.header(name, "ada").header(name, vec![b'x'; 300]);
        }
        for alias in every_alias() {
            sending = sending.header(&alias, b"\xff");
        }
        sending.header("x-app-keep", "1")
    };
    for answer in [forged().send().await, forged().send_http2().await] {
        assert_eq!((answer.status(), answer.token()), (200, None));
        assert_eq!(answer.token_status(), Some("anonymous"));
    }
    assert_eq!(stage.app.journal().len(), 2);
    for arrived in stage.app.journal() {
        assert_no_identity(&arrived.headers);
        assert_eq!(arrived.header("x-app-keep"), Some("1"));
    }
    assert_eq!(spoof_count(&stage, "identity_header").await, 2.0 * NAMES.len() as f64);
    assert_eq!(spoof_count(&stage, "alias").await, 2.0 * every_alias().len() as f64);

    let route = stage.get_as("ada", "/api/velt/token").await;
    assert_eq!((route.status(), &*route.code()), (401, "no_identity"));
    assert_eq!(spoof_count(&stage, "identity_header").await, 2.0 * NAMES.len() as f64 + 1.0);
    for kind in RefusalKind::ALL {
        assert_eq!(refusal_count(&stage, *kind).await, 0.0, "{kind:?}");
    }
    assert_eq!(stage.velt.call_count(), 0);
}

#[tokio::test]
async fn t10_an_untrusted_request_without_identity_is_no_spoof() {
    let stage = Stage::set(&every_header_and(UNTRUSTED)).await;
    assert_eq!(stage.client().get("/").send().await.status(), 200);
    for kind in ["identity_header", "alias", "token_header", "trailer"] {
        assert_eq!(spoof_count(&stage, kind).await, 0.0, "{kind}");
    }
}

#[tokio::test]
async fn t10_ranges_of_ipv4_hold_for_peers_of_a_dual_stack_socket() {
    let trusting = |peers: &str| identity(&format!("[identity]\ntrusted_peers = [{peers}]"));
    let trusts = |identity: &Identity, peer: &str| {
        let identified = identified(identity, peer, &mut HeaderMap::new());
        identified.expect("nothing is ambiguous").trusted
    };
    let private = trusting("\"10.0.0.0/8\", \"fd00::/8\"");
    for peer in ["10.1.2.3", "::ffff:10.1.2.3", "fd12::1"] {
        assert!(trusts(&private, peer), "{peer}");
    }
    for peer in ["11.1.2.3", "::ffff:11.1.2.3", "127.0.0.1", "::1", "::10.1.2.3", "fe80::1"] {
        assert!(!trusts(&private, peer), "{peer}");
    }
    // IPv4 addresses that are written as IPv6 mean the same.
    let mapped = trusting("\"::ffff:10.0.0.0/104\", \"::ffff:192.0.2.7\"");
    for peer in ["10.1.2.3", "::ffff:10.1.2.3", "192.0.2.7", "::ffff:c000:207"] {
        assert!(trusts(&mapped, peer), "{peer}");
    }
    for peer in ["11.1.2.3", "::10.1.2.3", "192.0.2.8", "::1"] {
        assert!(!trusts(&mapped, peer), "{peer}");
    }
    let default = identity("");
    for peer in ["127.0.0.1", "::ffff:127.0.0.1", "::1"] {
        assert!(trusts(&default, peer), "{peer}");
    }
    // Service meshes hand callers on from other addresses of 127.0.0.0/8.
    for peer in
        ["127.0.0.6", "127.9.9.9", "::ffff:127.0.0.6", "10.0.0.1", "::2", "169.254.0.1", "0.0.0.0"]
    {
        assert!(!trusts(&default, peer), "{peer}");
    }
}

#[tokio::test]
async fn forwarding_headers_of_an_untrusted_peer_are_replaced() {
    let stage = Stage::set(&format!("[identity]\n{UNTRUSTED}")).await;
    let mut sending = stage.client().get("/");
    for (name, value) in [
        ("forwarded", "for=203.0.113.7"),
        ("x-forwarded-for", "203.0.113.7"),
        ("x-forwarded-for", "203.0.113.8"),
        ("x-forwarded-host", "evil.example"),
        ("x-forwarded-prefix", "/admin"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-uri", "/admin"),
        ("x-real-ip", "203.0.113.7"),
    ] {
        sending = sending.header(name, value);
    }
    assert_eq!(sending.send().await.status(), 200);
    let arrived = stage.app.only();
    for (name, value) in [
        ("forwarded", None),
        ("x-forwarded-for", Some("127.0.0.1")),
        ("x-forwarded-host", Some("app.example")),
        ("x-forwarded-prefix", None),
        ("x-forwarded-proto", Some("http")),
        ("x-forwarded-uri", None),
        ("x-real-ip", None),
    ] {
        assert_eq!(arrived.header(name), value, "{name}");
    }
}

const SECRET: &str = "0123456789abcdef0123456789abcdef";
const NEXT: &str = "fedcba9876543210fedcba9876543210fedcba98";

/// A stage whose login proxy shows a secret.
async fn with_secret(toml: &str, variables: &[(&str, &str)]) -> Stage {
    let (app, velt) = (FakeApp::start().await, FakeVelt::start().await);
    let mut environment: BTreeMap<String, String> = environment();
    environment.insert("VELT_SIDECAR_IDENTITY__SECRET".into(), SECRET.into());
    environment.extend(variables.iter().map(|(name, value)| ((*name).into(), (*value).into())));
    let toml = format!("[identity]\nsecret_header = \"X-Sidecar-Secret\"\n{toml}");
    let document = document(&app.address.to_string(), velt.address, &toml);
    let config = Config::parse("sidecar.toml", &document, &environment);
    let sidecar = TestSidecar::run(config.unwrap_or_else(|error| panic!("{error}")));
    Stage { app, velt, sidecar }
}

#[tokio::test]
async fn t10_secret_is_believed_and_never_reaches_the_app() {
    let stage = with_secret("", &[]).await;
    for path in ["/", "/api/velt/token"] {
        let answer = as_ada(&stage, path).header("x-sidecar-secret", SECRET).send().await;
        assert_eq!(answer.status(), 200);
        let over_http2 = as_ada(&stage, path).header("x-sidecar-secret", SECRET);
        assert_eq!(over_http2.send_http2().await.status(), 200);
    }
    assert_eq!(stage.velt.calls()[0].user(), "ada");
    for arrived in stage.app.journal() {
        assert_eq!(arrived.header("x-forwarded-user"), Some("ada"));
        assert_eq!(arrived.header("x-sidecar-secret"), None);
    }
    assert_eq!(spoof_count(&stage, "secret").await, 0.0);
}

#[tokio::test]
async fn t10_missing_wrong_or_repeated_secret_is_untrusted() {
    let stage = with_secret("", &[]).await;
    let wrong = [
        "",
        "0",
        &SECRET[1..],
        &SECRET[..31],
        &format!("{SECRET}0"),
        &SECRET.to_uppercase(),
        &format!("{SECRET},{SECRET}"),
        &format!("{SECRET}, {SECRET}"),
        NEXT,
        "X-Sidecar-Secret",
    ];
    let mut requests = Vec::new();
    for wrong in wrong {
        requests.push(as_ada(&stage, "/").header("x-sidecar-secret", wrong));
        let twice = as_ada(&stage, "/").header("x-sidecar-secret", SECRET);
        requests.push(twice.header("x-sidecar-secret", wrong));
    }
    // A secret in an alias of the header counts as no secret, and the app does not see the alias.
    for alias in ["x_sidecar_secret", "x-sidecar_secret", "x.sidecar.secret"] {
        requests.push(as_ada(&stage, "/").header(alias, SECRET));
    }
    let count = requests.len();
    for request in requests {
        let answer = request.send().await;
        assert_eq!((answer.status(), answer.token_status()), (200, Some("anonymous")));
    }
    for arrived in stage.app.journal() {
        assert_no_identity(&arrived.headers);
        assert!(arrived.headers.keys().all(|name| !name.as_str().contains("secret")));
        assert!(arrived.headers.values().all(|value| value != SECRET));
    }
    assert_eq!(spoof_count(&stage, "secret").await, 20.0);
    assert_eq!(spoof_count(&stage, "identity_header").await, count as f64);

    let route = as_ada(&stage, "/api/velt/token").send().await;
    assert_eq!((route.status(), &*route.code()), (401, "no_identity"));
    for name in ["identity.secret_header", "VELT_SIDECAR_IDENTITY__SECRET"] {
        assert!(route.text().contains(name), "{}", route.text());
    }
    assert!(!route.text().contains("trusted_peers"), "{}", route.text());
    assert_eq!(spoof_count(&stage, "secret").await, 20.0, "not to show it is no attempt");
    assert_eq!(stage.velt.call_count(), 0);
}

#[tokio::test]
async fn t10_either_of_two_secrets_is_believed_during_a_change() {
    let stage = with_secret("", &[("VELT_SIDECAR_IDENTITY__NEXT_SECRET", NEXT)]).await;
    for secret in [SECRET, NEXT] {
        let answer = as_ada(&stage, "/").header("x-sidecar-secret", secret).send().await;
        assert_eq!(user_of(answer.token().expect("a token")), "ada");
    }
    let both = format!("{SECRET}{NEXT}");
    let answer = as_ada(&stage, "/").header("x-sidecar-secret", &both).send().await;
    assert_eq!(answer.token_status(), Some("anonymous"));
}

#[tokio::test]
async fn t10_range_and_secret_must_both_hold() {
    let stage = with_secret("trusted_peers = [\"10.0.0.0/8\"]", &[]).await;
    let answer = as_ada(&stage, "/").header("x-sidecar-secret", SECRET).send().await;
    assert_eq!(answer.token_status(), Some("anonymous"), "the right secret from the wrong place");
    assert_no_identity(&stage.app.only().headers);

    let stage = with_secret("trusted_peers = [\"127.0.0.1\"]", &[]).await;
    assert_eq!(as_ada(&stage, "/").send().await.token_status(), Some("anonymous"));
    let answer = as_ada(&stage, "/").header("x-sidecar-secret", SECRET).send().await;
    assert!(answer.token().is_some());
}

#[tokio::test]
async fn t12_secret_can_neither_be_nominated_nor_sent_as_trailer() {
    let stage = with_secret("", &[]).await;
    for list in ["connection", "trailer"] {
        let sending = as_ada(&stage, "/").header("x-sidecar-secret", SECRET);
        assert_ambiguous(&sending.header(list, "X-SIDECAR-Secret").send().await);
    }
    assert_eq!(stage.velt.call_count(), 0);
}

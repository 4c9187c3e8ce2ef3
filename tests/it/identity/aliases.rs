//! One header, one spelling, one value.

use ground::metrics::RefusalKind;
use http::HeaderMap;

use super::{
    DROP, EVERY_HEADER, NAMES, UNTRUSTED, aliases, as_ada, assert_ambiguous, assert_no_identity,
    every_alias, every_header_and, raw_is_refused, refusal_count, refusals_are, refused,
    spoof_count,
};
use crate::support::Stage;
use crate::support::velt::user_of;

#[tokio::test]
async fn t01_an_underscore_alias_is_refused() {
    let stage = Stage::set(EVERY_HEADER).await;
    let aliases = every_alias();
    assert_eq!(aliases.len(), 3 + 4 * 7);
    for alias in &aliases {
        refused(as_ada(&stage, "/").header(alias, "eve")).await;
        refused(stage.client().get("/api/velt/token").header(alias, "eve")).await;
        let over_http2 = as_ada(&stage, "/api/velt/token").header(alias, "ada");
        assert_ambiguous(&over_http2.send_http2().await);
    }
    refusals_are(&stage, RefusalKind::Alias, 3 * aliases.len()).await;
}

#[tokio::test]
async fn t01_an_alias_is_refused_in_any_case() {
    let stage = Stage::set("").await;
    let spellings =
        ["X_Forwarded_User", "X-FORWARDED_USER", "x_forwarded-user", "x_fOrWaRdEd_uSeR"];
    for alias in spellings {
        raw_is_refused(&stage, &format!("X-Forwarded-User: ada\r\n{alias}: eve\r\n")).await;
    }
    refusals_are(&stage, RefusalKind::Alias, spellings.len()).await;
}

#[tokio::test]
async fn t01_dashes_are_an_alias_of_a_name_with_underscores() {
    let stage = Stage::set("[identity]\nuser_header = \"X_Login_User\"").await;
    for alias in ["x-login-user", "x_login-user", "x-login_user"] {
        let sending = stage.client().get("/").header("x_login_user", "ada").header(alias, "eve");
        refused(sending).await;
    }
    refusals_are(&stage, RefusalKind::Alias, 3).await;
    let fine = stage.client().get("/").header("x_login_user", "ada").send().await;
    assert_eq!(user_of(fine.token().expect("a token")), "ada");
}

#[tokio::test]
async fn t01_a_header_that_only_looks_like_an_alias_passes() {
    let stage = Stage::set("").await;
    for name in ["x_forwarded_user_id", "x_forwarded", "xforwardeduser", "x-forwarded-users"] {
        let answer = as_ada(&stage, "/").header(name, "1").send().await;
        assert_eq!(user_of(answer.token().expect("a token")), "ada", "{name}");
        let arrived = stage.app.journal().pop().expect("it arrived");
        assert_eq!(arrived.header(name), Some("1"));
    }
}

#[tokio::test]
async fn t01_dropped_alias_takes_every_identity_header_with_it() {
    let stage = Stage::set(&every_header_and(DROP)).await;
    let aliases = every_alias();
    for (n, alias) in aliases.iter().enumerate() {
        let mut sending = as_ada(&stage, "/").header(alias, "eve");
        for name in &NAMES[1..] {
            sending = sending.header(name, "x");
        }
        let answer = sending.send().await;
        assert_eq!((answer.status(), answer.token()), (200, None), "{alias}");
        assert_eq!(answer.token_status(), Some("anonymous"));
        assert_eq!(stage.app.journal().len(), n + 1);
        assert_no_identity(&stage.app.journal()[n].headers);
    }
    assert_eq!(refusal_count(&stage, RefusalKind::Alias).await, aliases.len() as f64);
    assert_eq!(stage.velt.call_count(), 0);
}

#[tokio::test]
async fn t02_untrusted_aliases_of_forwarding_headers_are_removed() {
    let stage = Stage::set(&format!("[identity]\n{UNTRUSTED}")).await;
    let mut sending = stage.client().get("/");
    let forged = [
        "x_forwarded_for",
        "x-forwarded_proto",
        "x_forwarded-host",
        "x_real_ip",
        "x.forwarded.for",
        "x-forwarded.proto",
        "x.real-ip",
    ];
    for name in forged {
        sending = sending.header(name, "203.0.113.7");
    }
    assert_eq!(sending.send().await.status(), 200);
    let arrived = stage.app.only();
    for name in forged {
        assert_eq!(arrived.header(name), None, "an app that folds names would believe {name}");
    }
}

#[tokio::test]
async fn t03_header_name_in_any_case_behaves_the_same() {
    for name in ["x-forwarded-user", "X-FORWARDED-USER", "x-Forwarded-uSER"] {
        let stage = Stage::set(&format!("[identity]\nuser_header = \"{name}\"")).await;
        refused(as_ada(&stage, "/").header("x-forwarded-user", "eve")).await;
        refusals_are(&stage, RefusalKind::Repeated, 1).await;
        raw_is_refused(&stage, "X-Forwarded-User: ada\r\nx_Forwarded_User: eve\r\n").await;
        let answer = stage.get_as("ada", "/").await;
        assert_eq!(user_of(answer.token().expect("a token")), "ada");
    }
}

#[tokio::test]
async fn t05_repeated_identity_header_is_refused() {
    let stage = Stage::set(EVERY_HEADER).await;
    let mut count = 0;
    for name in &NAMES {
        for second in ["eve", "ada"] {
            let twice = || {
                let sending = stage.client().get("/").without("x-forwarded-user");
                let sending = if *name == "x-forwarded-user" {
                    sending
                } else {
                    sending.header("x-forwarded-user", "ada")
                };
                sending.header(name, "ada").header(name, second)
            };
            refused(twice()).await;
            assert_ambiguous(&twice().send_http2().await);
            count += 2;
        }
    }
    raw_is_refused(&stage, "X-Forwarded-User: ada\r\nx-fORWARDED-uSER: eve\r\n").await;
    raw_is_refused(&stage, "x-forwarded-user: ada\r\nx: y\r\nX-FORWARDED-USER:\r\n").await;
    refusals_are(&stage, RefusalKind::Repeated, count + 2).await;
}

#[tokio::test]
async fn t05_a_list_is_refused_where_one_value_belongs() {
    let stage = Stage::set(EVERY_HEADER).await;
    for list in ["ada,eve", "ada, eve", "ada,", ",ada", ","] {
        refused(stage.client().get("/").header("x-forwarded-user", list)).await;
        refused(as_ada(&stage, "/").header("x-auth-request-email", list)).await;
        let over_http2 = as_ada(&stage, "/").header("x-auth-request-org", list);
        assert_ambiguous(&over_http2.send_http2().await);
    }
    refusals_are(&stage, RefusalKind::List, 15).await;
}

#[tokio::test]
async fn t05_dropped_repeated_header_makes_the_request_anonymous() {
    let stage = Stage::set(&every_header_and(DROP)).await;
    let twice = || as_ada(&stage, "/").header("x-forwarded-user", "eve");
    let answers =
        [twice().send().await, twice().header("x-auth-request-org", "org").send_http2().await];
    for answer in answers {
        assert_eq!((answer.status(), answer.token_status()), (200, Some("anonymous")));
    }
    let route = as_ada(&stage, "/api/velt/token").header("x-forwarded-user", "eve").send().await;
    assert_eq!((route.status(), &*route.code()), (401, "no_identity"));
    assert_eq!(stage.app.journal().len(), 2);
    for arrived in stage.app.journal() {
        assert_no_identity(&arrived.headers);
    }
    assert_eq!(refusal_count(&stage, RefusalKind::Repeated).await, 3.0, "counted all the same");
    assert_eq!(stage.velt.call_count(), 0);
}

#[tokio::test]
async fn t06_unconfigured_headers_change_neither_user_nor_mint() {
    let stage = Stage::set(EVERY_HEADER).await;
    let plainly = as_ada(&stage, "/api/velt/token").send().await;
    let mut sending = as_ada(&stage, "/api/velt/token?userId=eve");
    for name in [
        "authorization",
        "cookie",
        "forwarded",
        "remote-user",
        "x-auth-request-user",
        "x-forwarded-email",
        "x-forwarded-for",
        "x-forwarded-groups",
        "x-forwarded-preferred-username",
        "x-forwarded-uri",
        "x-original-url",
        "x-user-id",
        "x-velt-api-key",
        "x-velt-auth-token",
    ] {
        sending = sending.header(name, "eve");
    }
    assert_eq!(sending.send().await.text(), plainly.text(), "the same token from the cache");
    assert_eq!(stage.velt.call_count(), 1);
    let call = &stage.velt.calls()[0];
    assert!(!call.body.to_string().contains("eve") && !format!("{call:?}").contains("x-forwarded"));
}

#[tokio::test]
async fn t01_spellings_that_php_and_cgi_fold_are_aliases() {
    let stage = Stage::set("").await;
    let aliases = ["x.forwarded.user", "x-forwarded.user", "x~forwarded-user", "x_forwarded|user"];
    for alias in aliases {
        refused(as_ada(&stage, "/").header(alias, "eve")).await;
        assert_ambiguous(&as_ada(&stage, "/").header(alias, "eve").send_http2().await);
    }
    refusals_are(&stage, RefusalKind::Alias, 2 * aliases.len()).await;
}

#[tokio::test]
async fn t01_a_clients_own_token_headers_reach_the_app_in_no_spelling() {
    for identity in ["", UNTRUSTED] {
        let stage = Stage::set(&format!("[identity]\n{identity}")).await;
        let mut sending = stage.client().get("/");
        let mut forged = 0;
        for name in ["x-velt-token", "x-velt-token-status"] {
            for alias in aliases(name).into_iter().chain([name.to_owned()]) {
                sending = sending.header(&alias, "forged");
                forged += 1;
            }
        }
        let sending = sending.header("x.velt.token", "forged").header("x-velt-tokens", "kept");
        assert_eq!(sending.send().await.status(), 200);
        let arrived = stage.app.only();
        assert_eq!(token_names(&arrived.headers), ["x-velt-tokens"]);
        assert_eq!(spoof_count(&stage, "token_header").await, f64::from(forged + 1));
        assert_eq!(stage.velt.call_count(), 0);
    }
}

fn token_names(headers: &HeaderMap) -> Vec<&str> {
    headers.keys().map(http::HeaderName::as_str).filter(|name| name.contains("velt")).collect()
}

#[tokio::test]
async fn t03_token_headers_configured_in_any_case_are_stripped_alike() {
    let stage = Stage::set("[delivery.header]\nname = \"X_VELT-Jwt\"").await;
    let sending = stage.client().get("/").header("x_velt-jwt", "1").header("X-Velt_Jwt", "2");
    assert_eq!(sending.header("x-velt-jwt", "3").send().await.status(), 200);
    assert_eq!(token_names(&stage.app.only().headers), [""; 0]);
}

#[tokio::test]
async fn t04_anonymous_request_has_no_identity_headers_and_no_token() {
    // The login proxy let a request through without naming a user: all other identity headers are the
    // client's.
    let stage = Stage::set(&every_header_and("guarded_headers = [\"X-Access-Token\"]")).await;
    let leftovers = [&NAMES[1..], &["x-access-token"]].concat();
    let forged = |path: &str| {
        let sending = stage.client().get(path).header("x-app-keep", "1");
        leftovers.iter().fold(sending, |sending, name| sending.header(name, "admins"))
    };
    let named_nobody = [
        forged("/").send().await,
        forged("/").send_http2().await,
        forged("/").header("x-forwarded-user", "").send().await,
        forged("/").header("x-forwarded-user", "(null)").send().await,
        // Two lines would be ambiguous if a user were named.
        forged("/").header("x-auth-request-groups", "staff").send().await,
    ];
    for answer in &named_nobody {
        assert_eq!((answer.status(), answer.token_status()), (200, Some("anonymous")));
    }
    let arrived = stage.app.journal();
    assert_eq!(arrived.len(), named_nobody.len());
    for arrived in arrived {
        for name in &leftovers {
            assert_eq!(arrived.header(name), None, "{name} reaches the app");
        }
        assert_eq!(arrived.header("x-app-keep"), Some("1"));
    }
    let route = stage.client().get("/api/velt/token").header("x-auth-request-groups", "admins");
    assert_eq!(route.send().await.code(), "no_identity");
    let expected = named_nobody.len() * leftovers.len() + 1;
    assert_eq!(spoof_count(&stage, "identity_header").await, expected as f64);
    assert_eq!(stage.velt.call_count(), 0);
}

#[tokio::test]
async fn t04_usual_headers_beside_a_user_are_guarded_by_default() {
    let usual = ["email", "preferred-username", "groups", "access-token"];
    let usual = usual.map(|what| format!("X-Forwarded-{what}"));
    for (config, user) in
        [("", "x-forwarded-user"), ("user_header = \"Remote-User\"", "remote-user")]
    {
        let stage = Stage::set(&format!("[identity]\n{config}")).await;
        let sending = || {
            let sending = stage.client().get("/");
            usual.iter().fold(sending, |sending, name| sending.header(name, "admins"))
        };
        assert_eq!(sending().send().await.token_status(), Some("anonymous"), "{user}");
        for name in &usual {
            assert_eq!(stage.app.journal()[0].header(name), None, "{name} reaches the app");
        }
        assert_eq!(spoof_count(&stage, "identity_header").await, usual.len() as f64, "{user}");
        let named = sending().header(user, "ada").send().await;
        assert_eq!(named.token_status(), None, "{user} has a token");
        for name in &usual {
            let arrived = stage.app.journal()[1].header(name).map(str::to_owned);
            assert_eq!(arrived.as_deref(), Some("admins"), "the front's {name}");
        }
    }
}

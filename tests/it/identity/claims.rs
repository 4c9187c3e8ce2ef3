//! Headers that hold no assertion, and what an assertion says beside the user.

use ground::metrics::{AssertionResult, Flaw, Label as _, RefusalKind};
use serde_json::{Value, json};

use super::assertion::{assert_invalid, asserting, believing, result_count, unsigned};
use super::{dropped_count, refusal_count};
use crate::support::Stage;
use crate::support::issuer::{Issuer, Pen, base64, claims};
use crate::support::velt::user_of;

#[tokio::test]
async fn bearer_that_is_no_jwt_is_left_to_the_app() {
    let pen = Pen::rs256("1");
    let issuer = Issuer::publishing(&[&pen]).await;
    let toml = issuer.toml().replace("X-Assertion", "Authorization");
    let stage = Stage::set(&toml).await;
    let head = base64(r#"{"alg":"dir","enc":"A256GCM"}"#);
    let others = [
        "Bearer opaque".to_owned(),
        "Bearer ya29.a0AfB_byC-d".to_owned(),
        "Bearer 3.14.15".to_owned(),
        "Bearer undefined".to_owned(),
        "Bearer github_pat_11AAAA.bbb.ccc".to_owned(),
        format!("Bearer {}.bbb.ccc", base64("[1]")),
        // A signed cookie of Flask's library: three parts, but no JOSE header.
        format!("Bearer {}.ZqHm2A.3kxTzV", base64(r#"{"id":1}"#)),
        // An encrypted token has five parts; a macaroon has no dots.
        format!("Bearer {head}..aXY.Y2lwaGVydGV4dA.dGFn"),
        "Bearer MDAxY2xvY2F0aW9uIGh0dHA=".to_owned(),
        "Bearer ".to_owned(),
        "Token 0123456789abcdef".to_owned(),
        "Negotiate YIIZ".to_owned(),
    ];
    for other in &others {
        let sending = || {
            let sending = stage.client().get("/api/me").header("authorization", other);
            sending.header("x-forwarded-user", "eve")
        };
        for answer in [sending().send().await, sending().send_http2().await] {
            let said = (answer.status(), answer.token_status());
            assert_eq!(said, (200, Some("anonymous")), "{other}");
            let arrived = stage.app.journal().pop().expect("it arrived");
            let expected = Some(other.trim_end());
            assert_eq!(arrived.header("authorization").map(str::trim_end), expected, "untouched");
            assert_eq!(arrived.header("x-forwarded-user"), None);
        }
        let route = stage.client().get("/api/velt/token").header("authorization", other);
        assert_eq!(route.send().await.code(), "no_identity", "{other}");
    }
    for result in AssertionResult::ALL {
        assert_eq!(result_count(&stage, *result).await, 0.0, "{result:?}: none was an assertion");
    }
    assert_eq!(stage.velt.call_count(), 0);

    // A token that has the form of an assertion, but can't be believed, is refused as before.
    let token = pen.sign(&claims("ada"));
    let twice = token.replacen('.', "=.", 1);
    let unsigned = unsigned(&json!({ "alg": "none" }), &claims("ada").to_string());
    for invalid in [&format!("{token}x"), &twice, &unsigned, &format!("{token}, {token}")] {
        let sending = stage.client().get("/").header("authorization", format!("Bearer {invalid}"));
        assert_invalid(&sending.send().await, invalid);
    }
    let stage = Stage::set(&format!("{toml}on_invalid = \"anonymous\"\n")).await;
    let other = format!("Bearer {token}x");
    let answer = stage.client().get("/").header("authorization", &other).send().await;
    assert_eq!((answer.status(), answer.token_status()), (200, Some("anonymous")));
    assert_eq!(stage.app.only().header("authorization"), Some(&*other), "the app's own");
}

/// Settings that read every claim.
const EVERY_CLAIM: &str = "email_claim = \"email\"\nname_claim = \"name\"\n\
    organization_claim = \"org\"\ngroups_claim = \"groups\"\n\
    [identity]\nadmin_groups = [\"admins\"]\n[velt]\napi = \"v2\"\norganization = \"o\"\n";

/// Returns the properties that Velt gets for a user with these claims.
async fn properties(stage: &Stage, pen: &Pen, user: &str, more: Value) -> Value {
    let mut claims = claims(user);
    for (name, value) in more.as_object().expect("an object") {
        claims[name] = value.clone();
    }
    let answer = asserting(stage, "/", &pen.sign(&claims)).send().await;
    assert_eq!(user_of(answer.token().unwrap_or_else(|| panic!("{more}: {answer:?}"))), user);
    stage.velt.calls().pop().expect("a call").body["data"]["userProperties"].clone()
}

#[tokio::test]
async fn a_flawed_claim_beside_the_user_costs_that_claim_alone() {
    let pen = Pen::es256("1");
    let issuer = Issuer::publishing(&[&pen]).await;
    let stage = believing(&issuer, EVERY_CLAIM).await;
    let mut user = 0;
    for (claim, flaw, values) in [
        ("name", Flaw::BadBytes, vec![json!("Ada "), json!(" Ada"), json!("Ada\nL"), json!("\tA")]),
        ("name", Flaw::TooLong, vec![json!("x".repeat(300))]),
        ("name", Flaw::WrongType, vec![json!(["Ada"]), json!({ "first": "Ada" }), json!(true)]),
        ("name", Flaw::Empty, vec![json!(""), json!("  ")]),
        ("email", Flaw::WrongType, vec![json!(["a@a.example", "b@b.example"]), json!(1.5)]),
        ("email", Flaw::Placeholder, vec![json!("null"), json!("${email}")]),
        ("groups", Flaw::WrongType, vec![json!({}), json!(1), json!(false)]),
    ] {
        let before = dropped_count(&stage, flaw).await;
        for value in &values {
            user += 1;
            let mut more = json!({ "email": "a@a.example", "name": "Ada", "groups": ["admins"] });
            more[claim] = value.clone();
            let said = properties(&stage, &pen, &format!("user-{user}"), more).await;
            let mut expected = json!({ "email": "a@a.example", "name": "Ada", "isAdmin": true });
            if claim == "groups" {
                expected["isAdmin"] = json!(false);
            } else {
                expected.as_object_mut().expect("an object").remove(claim);
            }
            assert_eq!(said, expected, "{claim}: {value}");
        }
        let count = values.len() as f64;
        assert_eq!(dropped_count(&stage, flaw).await, before + count, "{claim} {flaw:?}");
    }
    let mixed = json!({ "groups": [1, { "name": "x" }, "admins"] });
    assert_eq!(properties(&stage, &pen, "mixed", mixed).await, json!({ "isAdmin": true }));

    let mut claims = claims("ada");
    claims["org"] = json!(["acme"]);
    let answer = asserting(&stage, "/", &pen.sign(&claims)).send().await;
    assert_eq!((answer.status(), answer.token_status()), (200, Some("no-organization")));
}

#[tokio::test]
async fn an_address_that_is_not_verified_is_left_out() {
    let pen = Pen::es256("1");
    let issuer = Issuer::publishing(&[&pen]).await;
    let stage = believing(&issuer, EVERY_CLAIM).await;
    let mut user = 0;
    for (verified, kept) in [
        (json!(true), true),
        (json!("true"), true),
        (Value::Null, true),
        (json!(false), false),
        (json!("false"), false),
        (json!("False"), false),
        (json!(0), false),
        (json!("0"), false),
        (json!("n"), false),
        (json!("unknown"), false),
        (json!(""), false),
        (json!(2), false),
        (json!([false]), false),
        (json!({}), false),
        (json!(1), true),
        (json!("Yes"), true),
    ] {
        user += 1;
        let more = json!({ "email": "ada@a.example", "email_verified": verified });
        let said = properties(&stage, &pen, &format!("user-{user}"), more).await;
        let expected = kept.then(|| json!("ada@a.example"));
        assert_eq!(said.get("email"), expected.as_ref(), "{verified}");
    }
    assert_eq!(dropped_count(&stage, Flaw::Unverified).await, 11.0);

    // The claim that says whether an address is verified stands beside the address, on every path.
    for (path, more) in [
        ("user.email", json!({ "user": { "email": "a@a.example", "email_verified": false } })),
        (
            "/https:~1~1a.example~1email",
            json!({ "https://a.example/email": "a@a.example",
                "https://a.example/email_verified": false }),
        ),
        ("upn", json!({ "upn": "a@a.example", "email": "a@a.example", "email_verified": false })),
        ("email", json!({ "email": "a@a.example", "emailVerified": false })),
        ("email", json!({ "email": "a@a.example", "verified_email": false })),
        ("email", json!({ "email": "a@a.example", "xms_edov": false })),
    ] {
        let lines = EVERY_CLAIM.replacen("\"email\"", &format!("\"{path}\""), 1);
        let stage = believing(&issuer, &lines).await;
        let said = properties(&stage, &pen, "ada", more).await;
        assert_eq!(said, json!({ "isAdmin": false }), "{path}");
    }
    let lines = EVERY_CLAIM.replacen("\"email\"", "\"upn\"", 1);
    let stage = believing(&issuer, &lines).await;
    let more = json!({ "upn": "a@a.example", "email": "b@b.example", "email_verified": false });
    let said = properties(&stage, &pen, "ada", more).await;
    assert_eq!(said["email"], "a@a.example", "another address than the one that is not verified");
}

#[tokio::test]
async fn placeholder_in_an_assertion_names_no_user() {
    let pen = Pen::es256("1");
    let issuer = Issuer::publishing(&[&pen]).await;
    let stage = believing(&issuer, "").await;
    let words = ["undefined", "null", "(null)", "None", "{{user.id}}", "${sub}"];
    for word in words {
        for _ in 0..2 {
            let sending = asserting(&stage, "/", &pen.sign(&claims(word)));
            let answer = sending.header("x-forwarded-email", "eve@a.example").send().await;
            assert_eq!(
                (answer.status(), answer.token_status()),
                (200, Some("anonymous")),
                "{word}"
            );
        }
    }
    // The header without an assertion: Apache's, Envoy's, and an empty header.
    for word in ["(null)", "-", "%{OIDC_id_token}e"] {
        let answer = asserting(&stage, "/", word).send().await;
        assert_eq!((answer.status(), answer.token_status()), (200, Some("anonymous")), "{word}");
    }
    let count = 2.0 * words.len() as f64 + 3.0;
    assert_eq!(refusal_count(&stage, RefusalKind::Placeholder).await, count);
    for sending in [asserting(&stage, "/", ""), asserting(&stage, "/login", "")] {
        let answer = sending.header("x-forwarded-email", "eve@a.example").send().await;
        assert_eq!((answer.status(), answer.token_status()), (200, Some("anonymous")));
    }
    for arrived in stage.app.journal() {
        assert_eq!(arrived.header("x-forwarded-email"), None, "nobody's address");
    }
    assert_eq!(stage.velt.call_count(), 0);
}

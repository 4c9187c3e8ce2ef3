//! An assertion is believed by its signature and its claims, or not at all.

use ground::metrics::{AssertionResult, Label, RefusalKind};
use serde_json::{Value, json};

use super::{assert_ambiguous, refusals_are, spoof_count};
use crate::support::Stage;
use crate::support::client::{Answer, Sending};
use crate::support::issuer::{ISSUER, Issuer, Pen, base64, claims};
use crate::support::velt::{unix_seconds, user_of};

/// A stage that believes `issuer`, with more lines in `[identity.assertion]`.
pub(super) async fn believing(issuer: &Issuer, lines: &str) -> Stage {
    Stage::set(&format!("{}{lines}\n", issuer.toml())).await
}

pub(super) fn asserting(stage: &Stage, path: &str, assertion: &str) -> Sending {
    stage.client().get(path).header("x-assertion", assertion)
}

pub(super) async fn result_count(stage: &Stage, result: AssertionResult) -> f64 {
    let series = format!("identity_assertions_total{{result=\"{}\"}}", result.as_str());
    stage.metric(&series).await
}

#[track_caller]
pub(super) fn assert_invalid(answer: &Answer, what: &str) {
    assert_eq!((answer.status(), &*answer.code()), (401, "invalid_assertion"), "{what}");
    assert_eq!(answer.header("www-authenticate"), Some("Bearer error=\"invalid_token\""));
    assert_eq!((answer.token(), answer.token_status()), (None, None));
}

/// Returns ada's claims with one claim added or replaced; `null` removes the claim.
fn with(name: &str, value: Value) -> Value {
    let mut claims = claims("ada");
    if value.is_null() {
        claims.as_object_mut().expect("an object").remove(name);
    } else {
        claims[name] = value;
    }
    claims
}

#[tokio::test]
async fn t08_a_signature_of_every_configurable_kind_names_its_user() {
    let pens = [
        Pen::rs256("rs"),
        Pen::ps256("ps"),
        Pen::es256("es256"),
        Pen::es384("es384"),
        Pen::ed25519("ed"),
    ];
    let issuer = Issuer::publishing(&pens.iter().collect::<Vec<_>>()).await;
    let algorithms = "algorithms = [\"RS256\", \"PS256\", \"ES256\", \"ES384\", \"EdDSA\"]";
    let stage = believing(&issuer, algorithms).await;
    for pen in &pens {
        let assertion = pen.sign(&claims(&format!("ada-{}", pen.id())));
        let answer = asserting(&stage, "/", &assertion).send().await;
        assert_eq!(user_of(answer.token().expect("a token")), format!("ada-{}", pen.id()));
        let over_http2 = asserting(&stage, "/api/velt/token", &assertion).send_http2().await;
        assert_eq!(over_http2.json()["token"].as_str(), answer.token());
    }
    let arrived = stage.app.journal();
    assert!(arrived.iter().all(|arrived| arrived.header("x-assertion").is_some()));
    assert_eq!(result_count(&stage, AssertionResult::Verified).await, 5.0);
    assert_eq!(result_count(&stage, AssertionResult::Cached).await, 5.0);
    assert_eq!(issuer.fetch_count(), 1);
    assert_eq!(stage.metric("identity_keys").await, 5.0);
    assert!(stage.metric("identity_keys_age_seconds").await < 60.0);
}

/// Name and text of a token that the sidecar must not believe, and the result that counts the token.
type Forgery = (&'static str, String, AssertionResult);

/// Returns tokens that are not signed by the issuer's keys, or not in the way that their header says.
fn forged_forms(pen: &Pen, rsa: &Pen) -> Vec<Forgery> {
    use AssertionResult::{Algorithm, Malformed, Signature, UnknownKey};
    let good = pen.sign(&claims("ada"));
    let foreign = Pen::es256(pen.id());
    let header = |changes: &[(&str, Value)]| {
        let mut header = pen.header();
        for (name, value) in changes {
            header[*name] = value.clone();
        }
        header.to_string()
    };
    let ada = claims("ada").to_string();
    let under = |changes: &[(&str, Value)]| pen.sign_text(&header(changes), &ada);
    let mut forgeries = vec![
        ("a foreign signer with our key's id", foreign.sign(&claims("ada")), Signature),
        ("no algorithm", unsigned(&json!({ "alg": "none" }), &ada), Algorithm),
        (
            "no algorithm, as ours",
            unsigned(&json!({ "alg": "none", "kid": pen.id() }), &ada),
            Algorithm,
        ),
        ("NONE", under(&[("alg", json!("NONE"))]), Algorithm),
        ("no alg at all", pen.sign_text(&json!({ "kid": pen.id() }).to_string(), &ada), Malformed),
        ("es256 in lower case", under(&[("alg", json!("es256"))]), Algorithm),
        ("an algorithm that is not on the list", under(&[("alg", json!("ES384"))]), Algorithm),
        ("HS256 over our own key", hmac_with(rsa, &ada), Algorithm),
        ("RS256 with the id of an EC key", under(&[("alg", json!("RS256"))]), UnknownKey),
        ("ES256 with the id of an RSA key", under(&[("kid", json!(rsa.id()))]), UnknownKey),
        ("an unknown key", under(&[("kid", json!("other"))]), UnknownKey),
        ("a path for a key", under(&[("kid", json!("../../../dev/null"))]), UnknownKey),
        ("an empty key id", under(&[("kid", json!(""))]), Malformed),
        ("a number for a key id", under(&[("kid", json!(1))]), Malformed),
        ("no key id among several keys", pen.sign_text(r#"{"alg":"ES256"}"#, &ada), UnknownKey),
        (
            "its own key in jwk",
            {
                let header =
                    json!({ "alg": "ES256", "kid": "mine", "jwk": foreign.jwk }).to_string();
                foreign.sign_text(&header, &ada)
            },
            UnknownKey,
        ),
        (
            "its own key in jwk under our id",
            {
                let header = json!({ "alg": "ES256", "kid": pen.id(), "jwk": foreign.jwk,
                "jku": "https://evil.example/keys", "x5u": "https://evil.example/x5u" });
                foreign.sign_text(&header.to_string(), &ada)
            },
            Signature,
        ),
        ("an extension it wants understood", under(&[("crit", json!(["exp"]))]), Malformed),
        ("an empty crit", under(&[("crit", json!([]))]), Malformed),
        ("an unencoded payload", under(&[("b64", json!(false))]), Malformed),
        ("a logout token", under(&[("typ", json!("logout+jwt"))]), Malformed),
        ("a number for a type", under(&[("typ", json!(1))]), Malformed),
        (
            "a header with alg twice",
            {
                let header = format!(r#"{{"alg":"ES256","kid":"{}","alg":"ES256"}}"#, pen.id());
                pen.sign_text(&header, &ada)
            },
            Malformed,
        ),
        (
            "a user twice",
            pen.sign_text(&header(&[]), &ada.replace('}', r#","sub":"eve"}"#)),
            Malformed,
        ),
        ("claims that are no object", pen.sign_text(&header(&[]), "[1]"), Malformed),
        ("claims that are no JSON", pen.sign_text(&header(&[]), "sub=ada"), Malformed),
        ("no token", "ada".into(), Malformed),
        ("an opaque token", "ya29.a0AfB_byC".into(), Malformed),
        ("five parts", format!("{good}.x.y"), Malformed),
        ("four parts", format!("{good}."), Malformed),
        ("no signature", good[..=good.rfind('.').expect("a dot")].to_owned(), Signature),
        ("a padded signature", format!("{good}=="), Signature),
        ("padding", good.replacen('.', "=.", 1), Malformed),
        ("Bearer in a header of its own", format!("Bearer {good}"), Malformed),
        ("two in one", format!("{good},{good}"), Malformed),
        ("too long", pen.sign(&with("x", json!("x".repeat(17_000)))), Malformed),
    ];
    // One changed byte in the claims, and one in the signature, of a token that is believed otherwise.
    let end = good.len() - 5;
    for at in [good.find('.').expect("a dot") + 12, end] {
        let mut bytes = good.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        forgeries.push(("a changed byte", String::from_utf8(bytes).expect("ASCII"), Signature));
    }
    forgeries
}

/// Returns tokens that the issuer's keys have signed, but with claims that the sidecar must not believe.
fn forged_claims(pen: &Pen) -> Vec<Forgery> {
    use AssertionResult::{Audience, Claims, Expired, Issuer, NotYetValid};
    let now = unix_seconds();
    vec![
        ("another issuer", pen.sign(&with("iss", json!("https://evil.example"))), Issuer),
        ("a slash more", pen.sign(&with("iss", json!("https://issuer.example/"))), Issuer),
        ("issuers", pen.sign(&with("iss", json!([ISSUER]))), Issuer),
        ("no issuer", pen.sign(&with("iss", Value::Null)), Issuer),
        ("no audience", pen.sign(&with("aud", Value::Null)), Audience),
        ("another audience", pen.sign(&with("aud", json!("other"))), Audience),
        ("other audiences", pen.sign(&with("aud", json!(["other", "app2", "APP"]))), Audience),
        ("an audience within", pen.sign(&with("aud", json!([["app"]]))), Audience),
        ("no end", pen.sign(&with("exp", Value::Null)), Claims),
        ("an end that is text", pen.sign(&with("exp", json!("9999999999"))), Claims),
        ("an end before 1970", pen.sign(&with("exp", json!(-1))), Claims),
        ("an end beyond all time", pen.sign(&with("exp", json!(1e300))), Claims),
        ("expired", pen.sign(&with("exp", json!(now - 31))), Expired),
        ("expired long ago", pen.sign(&with("exp", json!(0))), Expired),
        ("not yet", pen.sign(&with("nbf", json!(now + 120))), NotYetValid),
        ("issued tomorrow", pen.sign(&with("iat", json!(now + 86_400))), NotYetValid),
        ("a start that is text", pen.sign(&with("nbf", json!("now"))), Claims),
        ("a user of another type", pen.sign(&with("sub", json!(["ada"]))), Claims),
        ("half a user", pen.sign(&with("sub", json!(1.5))), Claims),
        ("a user that is true", pen.sign(&with("sub", json!(true))), Claims),
        ("a user with a line in it", pen.sign(&with("sub", json!("ada\nX-Admin: 1"))), Claims),
        ("a user in spaces", pen.sign(&with("sub", json!(" ada"))), Claims),
        ("a user too long", pen.sign(&with("sub", json!("x".repeat(257)))), Claims),
    ]
}

pub(super) fn unsigned(header: &Value, claims: &str) -> String {
    format!("{}.{}.", base64(header.to_string()), base64(claims))
}

/// Signs with the public key as an HMAC secret, as a library does that takes any key for a shared one.
fn hmac_with(pen: &Pen, claims: &str) -> String {
    use aws_lc_rs::hmac;
    let header = json!({ "alg": "HS256", "kid": pen.id(), "typ": "JWT" });
    let signed = format!("{}.{}", base64(header.to_string()), base64(claims));
    let key = hmac::Key::new(hmac::HMAC_SHA256, pen.jwk.to_string().as_bytes());
    format!("{signed}.{}", base64(hmac::sign(&key, signed.as_bytes())))
}

#[tokio::test]
async fn t08_forged_assertions_are_refused_and_counted() {
    let (pen, rsa) = (Pen::es256("1"), Pen::rs256("2"));
    let issuer = Issuer::publishing(&[&pen, &rsa]).await;
    let stage = believing(&issuer, "").await;
    let forgeries = [forged_forms(&pen, &rsa), forged_claims(&pen)].concat();
    // The valid token comes first, so that a forgery could be mistaken for the token that the sidecar
    // remembers.
    assert!(asserting(&stage, "/", &pen.sign(&claims("ada"))).send().await.token().is_some());
    for (what, token, _) in &forgeries {
        assert_invalid(&asserting(&stage, "/", token).send().await, what);
        let route = asserting(&stage, "/api/velt/token", token).send_http2().await;
        assert_invalid(&route, what);
    }
    for result in AssertionResult::ALL {
        let expected = 2 * forgeries.iter().filter(|(_, _, kind)| kind == result).count();
        let verified = usize::from(*result == AssertionResult::Verified);
        let count = result_count(&stage, *result).await;
        assert_eq!(count, (expected + verified) as f64, "{result:?}");
    }
    let refused = stage.metric("requests_total{outcome=\"invalid_assertion\"}").await;
    assert_eq!(refused, 2.0 * forgeries.len() as f64);
    assert_eq!((stage.app.journal().len(), stage.velt.call_count()), (1, 1));
    // The first unknown key may be a new one and leads to a fetch; the other unknown keys come too soon
    // after it.
    assert_eq!(issuer.fetch_count(), 2);
    let elsewhere = issuer.server.journal().iter().any(|fetch| fetch.target != "/keys");
    assert!(!elsewhere, "nothing in a token leads to a URL");
}

#[tokio::test]
async fn t08_the_last_seconds_of_either_end_are_leeway() {
    let pen = Pen::es256("1");
    let issuer = Issuer::publishing(&[&pen]).await;
    let stage = believing(&issuer, "").await;
    let now = unix_seconds();
    for (name, value) in [("exp", now - 10), ("nbf", now + 10), ("iat", now + 10)] {
        let answer = asserting(&stage, "/", &pen.sign(&with(name, json!(value)))).send().await;
        assert!(answer.token().is_some(), "{name}");
    }
    let stage = believing(&issuer, "leeway = \"0s\"").await;
    let expired = pen.sign(&with("exp", json!(now - 1)));
    assert_invalid(&asserting(&stage, "/", &expired).send().await, "no leeway");
}

#[tokio::test]
async fn t09_nothing_makes_an_unverified_assertion_a_user() {
    let issuer = Issuer::publishing(&[&Pen::es256("1")]).await;
    let forged = Pen::es256("1").sign(&claims("ada"));
    for lines in [
        "on_invalid = \"anonymous\"",
        "algorithms = [\"ES256\"]\nleeway = \"5m\"\non_invalid = \"anonymous\"",
    ] {
        for token in [&*forged, &unsigned(&json!({ "alg": "none" }), &claims("ada").to_string())] {
            let stage = believing(&issuer, lines).await;
            let answer = asserting(&stage, "/", token).send().await;
            assert_eq!((answer.status(), answer.token_status()), (200, Some("anonymous")));
            assert_eq!(stage.app.only().header("x-assertion"), None, "the app might believe it");
            let route = asserting(&stage, "/api/velt/token", token).send().await;
            assert_eq!((route.status(), &*route.code()), (401, "no_identity"));
            assert_eq!(stage.velt.call_count(), 0);
        }
    }
}

#[tokio::test]
async fn t05_repeated_assertion_is_refused_from_any_peer() {
    let pen = Pen::es256("1");
    let issuer = Issuer::publishing(&[&pen]).await;
    for peers in ["", "trusted_peers = [\"10.0.0.0/8\"]"] {
        let toml = issuer.toml().replacen("[identity]", &format!("[identity]\n{peers}"), 1);
        let stage = Stage::set(&toml).await;
        let ada = pen.sign(&claims("ada"));
        let twice = || asserting(&stage, "/", &ada).header("x-assertion", pen.sign(&claims("eve")));
        assert_ambiguous(&twice().send().await);
        assert_ambiguous(&twice().send_http2().await);
        refusals_are(&stage, RefusalKind::Repeated, 2).await;
        for alias in ["x_assertion", "X.ASSERTION"] {
            assert_ambiguous(&asserting(&stage, "/", &ada).header(alias, &ada).send().await);
            assert_ambiguous(&stage.client().get("/").header(alias, &ada).send_http2().await);
        }
        for list in ["connection", "trailer"] {
            let nominated = asserting(&stage, "/", &ada).header(list, "X-Assertion");
            assert_ambiguous(&nominated.send().await);
        }
        assert_eq!((stage.app.journal().len(), stage.velt.call_count()), (0, 0));
    }
}

#[tokio::test]
async fn t10_untrusted_peer_is_believed_by_a_signature_alone() {
    let pen = Pen::es256("1");
    let issuer = Issuer::publishing(&[&pen]).await;
    let toml =
        issuer.toml().replacen("[identity]", "[identity]\ntrusted_peers = [\"10.0.0.0/8\"]", 1);
    let stage = Stage::set(&toml).await;
    let forging = |sending: Sending| {
        let sending = sending.header("x-forwarded-user", "eve").header("x_forwarded_user", "eve");
        sending
            .header("x-forwarded-email", "eve@example.com")
            .header("x-forwarded-for", "192.0.2.1")
    };
    let answer = forging(asserting(&stage, "/", &pen.sign(&claims("ada")))).send().await;
    assert_eq!(user_of(answer.token().expect("a token")), "ada");
    let answer = forging(stage.client().get("/")).send().await;
    assert_eq!(answer.token_status(), Some("anonymous"));
    for arrived in stage.app.journal() {
        for name in ["x-forwarded-user", "x_forwarded_user", "x-forwarded-email"] {
            assert_eq!(arrived.header(name), None, "{name}");
        }
        let kept = Some("192.0.2.1");
        assert_eq!(arrived.header("x-forwarded-for"), kept, "it names no user");
    }
    assert_eq!(spoof_count(&stage, "identity_header").await, 4.0);
    assert_eq!(spoof_count(&stage, "alias").await, 2.0);
}

#[tokio::test]
async fn a_second_plain_line_beside_an_assertion_is_refused() {
    let pen = Pen::es256("1");
    let issuer = Issuer::publishing(&[&pen]).await;
    let stage = believing(&issuer, "").await;
    let assertion = pen.sign(&claims("ada"));
    let twice = |sending: Sending, name: &str| {
        sending.header(name, "ada@a.example").header(name, "eve@a.example")
    };
    let names = ["x-forwarded-user", "x-forwarded-email", "x-forwarded-groups"];
    for name in names {
        assert_ambiguous(&twice(asserting(&stage, "/", &assertion), name).send().await);
        let over_http2 = twice(asserting(&stage, "/api/velt/token", &assertion), name);
        assert_ambiguous(&over_http2.send_http2().await);
    }
    refusals_are(&stage, RefusalKind::Repeated, 6).await;
    for name in names {
        let unsigned = twice(stage.client().get("/"), name).send().await;
        assert_eq!((unsigned.status(), unsigned.token_status()), (200, Some("anonymous")));
        assert_eq!(stage.app.journal().pop().expect("it arrived").header(name), None);
    }
    let twice_unguarded = twice(asserting(&stage, "/", &assertion), "x-app");
    assert_eq!(twice_unguarded.send().await.status(), 200);
}

#[tokio::test]
async fn t04_plain_headers_without_an_assertion_are_removed() {
    let pen = Pen::es256("1");
    let issuer = Issuer::publishing(&[&pen]).await;
    let stage = believing(&issuer, "").await;
    let plain = |sending: Sending| sending.header("x-forwarded-user", "ada");
    let answer = plain(asserting(&stage, "/", &pen.sign(&claims("ada")))).send().await;
    assert!(answer.token().is_some());
    assert_eq!(plain(stage.client().get("/")).send().await.token_status(), Some("anonymous"));
    let arrived = stage.app.journal();
    assert_eq!(arrived[0].header("x-forwarded-user"), Some("ada"), "a trusted peer's, and signed");
    assert_eq!(arrived[1].header("x-forwarded-user"), None);
    assert_eq!(spoof_count(&stage, "identity_header").await, 1.0);
}

#[tokio::test]
async fn t11_assertion_in_a_trailer_is_ignored() {
    let pen = Pen::es256("1");
    let issuer = Issuer::publishing(&[&pen]).await;
    let stage = believing(&issuer, "").await;
    let mut wire = crate::support::raw::Wire::to(stage.sidecar.addresses.traffic).await;
    let assertion = pen.sign(&claims("ada"));
    wire.send(format!(
        "POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n\
         0\r\nx-assertion: {assertion}\r\n\r\n"
    ))
    .await;
    assert!(wire.rest().await.contains("x-velt-token-status: anonymous\r\n"));
    assert_eq!(stage.velt.call_count(), 0);
}

#[tokio::test]
async fn authorization_is_an_assertion_only_if_it_is_a_bearer() {
    let pen = Pen::rs256("1");
    let issuer = Issuer::publishing(&[&pen]).await;
    let toml = issuer.toml().replace("X-Assertion", "Authorization");
    let stage = Stage::set(&toml).await;
    let sending = |value: &str| stage.client().get("/").header("authorization", value);
    let token = pen.sign(&claims("ada"));
    for scheme in ["Bearer", "bearer", "BEARER", "Bearer  "] {
        let answer = sending(&format!("{scheme} {token}")).send().await;
        assert_eq!(user_of(answer.token().expect("a token")), "ada");
    }
    // The comma is a part of the scheme here, and separates no list.
    let others = ["Basic YWRhOnNlY3JldA==", "Digest username=\"ada\", realm=\"x\"", "Bearer", ""];
    for other in others {
        let answer = sending(other).send().await;
        assert_eq!((answer.status(), answer.token_status()), (200, Some("anonymous")), "{other}");
        let arrived = stage.app.journal().pop().expect("it arrived");
        assert_eq!(arrived.header("authorization"), Some(other));
    }
}

#[tokio::test]
async fn claims_reach_velt_by_their_paths_byte_for_byte() {
    let pen = Pen::es256("1");
    let issuer = Issuer::publishing(&[&pen]).await;
    let toml = format!(
        "{}user_claim = \"custom.user.id\"\nemail_claim = \"email\"\nname_claim = \"/na~1me\"\n\
         organization_claim = \"/https:~1~1example.com~1org/id\"\ngroups_claim = \"groups\"\n\
         [identity]\nadmin_groups = [\"admins\"]\n[velt]\napi = \"v2\"\n",
        issuer.toml()
    );
    let stage = Stage::set(&toml).await;
    let full = |user: Value, groups: Value| {
        let mut claims = claims("not this one");
        claims["custom"] = json!({ "user": { "id": user } });
        claims["email"] = json!("ada@example.com");
        claims["na/me"] = json!("Lovelace, Ada");
        claims["https://example.com/org"] = json!({ "id": "org-1" });
        claims["groups"] = groups;
        claims
    };
    for (user, id, groups, is_admin) in [
        (json!("Zoë"), "Zoë", json!(["staff", "admins"]), true),
        (json!("Zoe\u{308}"), "Zoe\u{308}", json!("staff, admins"), true),
        (json!(42), "42", json!(["Admins", "staff,admins"]), false),
        (json!("a,b"), "a,b", Value::Null, false),
    ] {
        let assertion = pen.sign(&full(user, groups));
        let answer = asserting(&stage, "/", &assertion).send().await;
        assert_eq!(user_of(answer.token().expect("a token")), id);
        let call = stage.velt.calls().pop().expect("a call");
        assert_eq!(
            call.body["data"],
            json!({
                "userId": id,
                "userProperties":
                    { "name": "Lovelace, Ada", "email": "ada@example.com", "isAdmin": is_admin },
                "permissions": { "resources": [{ "type": "organization", "id": "org-1" }] },
            })
        );
    }
}

#[tokio::test]
async fn assertion_without_a_user_is_anonymous() {
    let pen = Pen::es256("1");
    let issuer = Issuer::publishing(&[&pen]).await;
    let stage = believing(&issuer, "").await;
    for nobody in [Value::Null, json!(""), json!(" ")] {
        let answer = asserting(&stage, "/", &pen.sign(&with("sub", nobody))).send().await;
        assert_eq!((answer.status(), answer.token_status()), (200, Some("anonymous")));
    }
    let null = claims("ada").to_string().replace("\"ada\"", "null");
    let null = pen.sign_text(&pen.header().to_string(), &null);
    assert_eq!(asserting(&stage, "/", &null).send().await.token_status(), Some("anonymous"));
    assert_eq!(result_count(&stage, AssertionResult::NoUser).await, 4.0);
}

#[tokio::test]
async fn unverified_email_address_is_no_user() {
    let pen = Pen::es256("1");
    let issuer = Issuer::publishing(&[&pen]).await;
    let stage = believing(&issuer, "user_claim = \"email\"").await;
    let mut claims = claims("1");
    claims["email"] = json!("ada@example.com");
    for (verified, believed) in
        [(Value::Null, true), (json!(true), true), (json!(false), false), (json!("false"), false)]
    {
        if !verified.is_null() {
            claims["email_verified"] = verified.clone();
        }
        let answer = asserting(&stage, "/", &pen.sign(&claims)).send().await;
        assert_eq!(answer.token().is_some(), believed, "{verified}");
    }
}

#[tokio::test]
async fn assertion_reaches_the_app_unless_told_otherwise() {
    let pen = Pen::es256("1");
    let issuer = Issuer::publishing(&[&pen]).await;
    let toml = issuer.toml().replacen("[identity]", "[identity]\nforward_headers = \"strip\"", 1);
    let stage = Stage::set(&toml).await;
    let sending = asserting(&stage, "/", &pen.sign(&claims("ada")));
    assert!(sending.header("x-forwarded-user", "ada").send().await.token().is_some());
    let arrived = stage.app.only();
    assert_eq!((arrived.header("x-assertion"), arrived.header("x-forwarded-user")), (None, None));
}

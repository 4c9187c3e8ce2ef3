//! Claims of a token that Velt sends: the user that the token names, and its end of validity.

use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use serde_json::{Value, json};

use super::{MALFORMED, MISMATCH, PATIENT, ask_twice, assert_comes_to};
use crate::support::Stage;
use crate::support::velt::{Call, jwt, minted, token, unix_seconds, user_of};

fn claiming(claims: Value) -> impl Fn(&Call, usize) -> Response<Full<Bytes>> + Send + Sync {
    move |_, _| minted(&jwt(&claims))
}

#[tokio::test]
async fn t36_token_of_another_user_is_not_served() {
    for (n, claims) in [
        json!({ "userId": "eve" }),
        json!({ "userId": "Ada" }),
        json!({ "userId": "ada " }),
        json!({ "userId": "" }),
        json!({ "userId": 5 }),
        json!({ "userId": true }),
        json!({ "userId": ["ada"] }),
        json!({ "userId": { "id": "ada" } }),
        // Another odd claim changes nothing.
        json!({ "userId": "eve", "exp": "tomorrow" }),
        json!({ "userId": "eve", "exp": null }),
    ]
    .into_iter()
    .enumerate()
    {
        let mode = if n % 2 == 0 { "" } else { "[velt]\nverify_user = \"require\"" };
        assert_comes_to(claims.to_string(), mode, claiming(claims), MISMATCH).await;
    }
}

#[tokio::test]
async fn t36_mismatch_displaces_no_token_of_another_user() {
    let stage = Stage::set(PATIENT).await;
    let ada = stage.get_as("ada", "/api/velt/token").await;
    stage.velt.script(|_, n| minted(&token("ada", n)));
    let eve = stage.get_as("eve", "/api/velt/token").await;
    assert_eq!((eve.status(), &*eve.code()), (502, "token_malformed"));
    assert_eq!(stage.get_as("ada", "/api/velt/token").await.text(), ada.text());
    assert_eq!(stage.get_as("eve", "/").await.token(), None);
    assert_eq!(stage.velt.call_count(), 2);
}

#[tokio::test]
async fn t36_token_without_a_user_is_served_unless_required() {
    let unreadable = ["opaque", "a.b.c", "!!.!!.!!", "a.b", &format!("x.{}.y", "A".repeat(500))]
        .map(str::to_owned);
    let silent = [json!({}), json!({ "sub": "eve" }), json!({ "userId": null }), json!([1])];
    for served in unreadable.into_iter().chain(silent.iter().map(jwt)) {
        let stage = Stage::set(PATIENT).await;
        let script = served.clone();
        stage.velt.script(move |_, _| minted(&script));
        assert_eq!(ask_twice(&stage).await.0.token(), Some(&*served));
        let script = move |_: &Call, _: usize| minted(&served);
        let require = "[velt]\nverify_user = \"require\"";
        assert_comes_to("require".into(), require, script, MALFORMED).await;
    }
}

#[tokio::test]
async fn t36_number_that_is_the_users_id_names_the_user() {
    let stage = Stage::set("[velt]\nverify_user = \"require\"").await;
    stage.velt.script(claiming(json!({ "userId": 42 })));
    assert_eq!(stage.get_as("42", "/api/velt/token").await.status(), 200);
}

#[tokio::test]
async fn t36_off_serves_a_token_of_another_user() {
    let stage = Stage::set(&format!("{PATIENT}[velt]\nverify_user = \"off\"")).await;
    stage.velt.script(claiming(json!({ "userId": "eve" })));
    assert_eq!(user_of(ask_twice(&stage).await.0.token().expect("a token")), "eve");
}

#[tokio::test]
async fn expired_token_is_malformed() {
    for exp in [json!(unix_seconds() - 1), json!(0), json!(-1), json!(1.5), json!(-1e300)] {
        let claims = json!({ "userId": "ada", "exp": exp });
        assert_comes_to(claims.to_string(), "", claiming(claims), MALFORMED).await;
    }
}

#[tokio::test]
async fn exp_shortens_a_tokens_life_and_never_lengthens_it() {
    let documented = 48.0 * 3600.0;
    let now = unix_seconds();
    for (exp, longest) in [
        (json!(now + 600), 600.0),
        (json!(now as f64 + 600.5), 600.5),
        (json!(now + 1_000_000), documented),
        (json!(1e300), documented),
        (json!("tomorrow"), documented),
        (json!(null), documented),
    ] {
        let stage = Stage::set(PATIENT).await;
        stage.velt.script(claiming(json!({ "userId": "ada", "exp": exp })));
        assert!(ask_twice(&stage).await.0.token().is_some(), "{exp}");
        let headroom = stage.metric("outage_headroom_seconds").await;
        // The headroom is less a margin of a minute, and less the time of a loaded machine.
        assert!((longest - 120.0..=longest).contains(&headroom), "{exp}: {headroom}");
    }
}

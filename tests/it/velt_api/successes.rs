//! Answers of Velt's that are no errors: usable, malformed, compressed, or a redirect.

use std::net::Ipv4Addr;

use bytes::Bytes;
use http::HeaderValue;
use http::header::{CONTENT_ENCODING, LOCATION};
use http_body_util::Full;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::{MALFORMED, PATIENT, ask_twice, assert_comes_to, assert_each_comes_to, holding};
use crate::support::Stage;
use crate::support::velt::{Call, answer, minted};

#[tokio::test]
async fn t44_success_without_a_usable_token_is_malformed() {
    let bodies = [
        String::new(),
        "<!doctype html><title>canary</title>".into(),
        "canary".into(),
        "\"a.b.c\"".into(),
        "[]".into(),
        "{}".into(),
        json!({ "token": "a.b.c" }).to_string(),
        json!({ "data": { "token": "a.b.c" } }).to_string(),
        json!({ "result": null }).to_string(),
        json!({ "result": { "data": {} } }).to_string(),
        holding(&Value::Null),
        holding(&json!(5)),
        holding(&json!("")),
        holding(&json!(" ")),
        holding(&json!("a b")),
        holding(&json!("a.b.c\n")),
        holding(&json!("a\r\nset-cookie: canary=1")),
        holding(&json!("a\"b")),
        holding(&json!("a\\b")),
        holding(&json!("a\0b")),
        holding(&json!("t\u{f6}ken")),
        holding(&json!("x".repeat(12 * 1024 + 1))),
        format!("{}{}", holding(&json!("a.b.c")), " ".repeat(70 * 1024)),
    ];
    let rows = bodies.into_iter().map(|body| {
        let name = body.chars().take(80).collect();
        (name, answer(200, &body), MALFORMED)
    });
    let mut rows: Vec<_> = rows.collect();
    rows.push(("204".into(), answer(204, ""), MALFORMED));
    assert_each_comes_to(rows).await;
}

#[tokio::test]
async fn t44_largest_token_and_largest_answer_pass() {
    let largest = "x".repeat(12 * 1024);
    let stage = Stage::set(PATIENT).await;
    let script = largest.clone();
    stage.velt.script(move |_, _| minted(&script));
    let (header, route) = ask_twice(&stage).await;
    assert_eq!(header.token(), Some(&*largest));
    assert_eq!(route.json()["token"], largest);

    let stage = Stage::set(PATIENT).await;
    let body = holding(&json!("a.b.c"));
    let body = format!("{body}{}", " ".repeat(64 * 1024 - body.len()));
    stage.velt.answer_with(200, &body);
    assert_eq!(ask_twice(&stage).await.0.token(), Some("a.b.c"));
}

#[tokio::test]
async fn t44_compressed_answer_is_not_unpacked() {
    // `{"result":{"data":{"token":"a.b.c"}}}` by gzip.
    const PACKED: &[u8] =
        b"\x1f\x8b\x08\0\0\0\0\0\x02\x03\xabV*J-.\xcd)Q\xb2\xaaVJI,I\x04\xd1%\xf9\
                            \xd9\xa9yJVJ\x89zIz\xc9J\xb5\xb5\xb5\0\xf1\xf8\xbeH%\0\0\0";
    let script = |_: &Call, _: usize| {
        let mut response = answer(200, "");
        *response.body_mut() = Full::new(Bytes::from_static(PACKED));
        response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        response
    };
    assert_comes_to("gzip".into(), "", script, MALFORMED).await;
}

#[tokio::test]
async fn t44_redirect_is_not_followed() {
    let elsewhere = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
    let location = format!("http://{}/", elsewhere.local_addr().expect("an address"));
    let rows = [300, 301, 302, 303, 304, 307, 308].map(|status| {
        let mut response = answer(status, "");
        let location = HeaderValue::from_str(&location).expect("a value");
        response.headers_mut().insert(LOCATION, location);
        (status.to_string(), response, MALFORMED)
    });
    assert_each_comes_to(rows.into()).await;
    // A connection would be in the queue by now.
    let accepting = elsewhere.into_std().expect("a socket").accept();
    let error = accepting.expect_err("nobody connected");
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
}

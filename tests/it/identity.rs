//! Who is asking: a header is believed from the login proxy, once, and in one spelling.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use proptest::prelude::*;
use serde_json::json;
use tokio::net::TcpStream;
use velt_sidecar::identity::{Caller, Identity};
use velt_sidecar::metrics::{Label, Metrics, RefusalKind};

use crate::support::app::{AppBody, FakeApp, plain};
use crate::support::client::{Answer, Sending};
use crate::support::raw::Wire;
use crate::support::velt::user_of;
use crate::support::{Stage, config, document};

/// A login proxy that says everything there is to say.
const EVERY_HEADER: &str = r#"
    [identity]
    email_header = "X-Auth-Request-Email"
    name_header = "X-Auth-Request-Name"
    organization_header = "X-Auth-Request-Org"
    groups_header = "X-Auth-Request-Groups"
    admin_groups = ["admins", "velt team"]
    [velt]
    api = "v2"
    organization = "org-of-the-config"
"#;

const NAMES: [&str; 5] = [
    "x-forwarded-user",
    "x-auth-request-email",
    "x-auth-request-name",
    "x-auth-request-org",
    "x-auth-request-groups",
];

/// Nothing that connects from loopback is trusted then.
const UNTRUSTED: &str = "trusted_peers = [\"10.0.0.0/8\"]";

const DROP: &str = "on_ambiguous = \"drop\"";

/// Every mix of `-` and `_` but the name itself.
fn aliases(name: &str) -> Vec<String> {
    let dashes: Vec<_> = name.match_indices('-').map(|(at, _)| at).collect();
    let mix = |choice: usize| {
        let mut alias = name.as_bytes().to_vec();
        for (bit, at) in dashes.iter().enumerate() {
            if choice >> bit & 1 == 1 {
                alias[*at] = b'_';
            }
        }
        String::from_utf8(alias).expect("ASCII")
    };
    (1..1 << dashes.len()).map(mix).collect()
}

fn every_alias() -> Vec<String> {
    NAMES.iter().flat_map(|name| aliases(name)).collect()
}

/// [`EVERY_HEADER`] with another line in `[identity]`.
fn every_header_and(line: &str) -> String {
    EVERY_HEADER.replacen("[identity]", &format!("[identity]\n{line}"), 1)
}

/// A request that would be fine but for what a test adds.
fn as_ada(stage: &Stage, path: &str) -> Sending {
    stage.client().get(path).header("x-forwarded-user", "ada")
}

fn assert_ambiguous(answer: &Answer) {
    assert_eq!((answer.status(), &*answer.code()), (400, "ambiguous_identity"), "{answer:?}");
    assert_eq!((answer.token(), answer.token_status()), (None, None));
}

/// Over HTTP/1.1: whoever sent this may have sent more of it, so the connection ends.
async fn refused(sending: Sending) {
    let answer = sending.send().await;
    assert_ambiguous(&answer);
    assert_eq!(answer.header("connection"), Some("close"));
}

/// A request byte for byte.
async fn raw(stage: &Stage, lines: &str) -> String {
    let mut wire = Wire::to(stage.sidecar.addresses.traffic).await;
    wire.send(format!("GET / HTTP/1.1\r\nhost: a\r\n{lines}\r\n")).await;
    wire.rest().await
}

async fn raw_is_refused(stage: &Stage, lines: &str) {
    let received = raw(stage, lines).await;
    assert!(received.starts_with("HTTP/1.1 400 "), "{lines}: {received}");
    assert!(received.contains("connection: close\r\n"), "{received}");
    assert!(received.contains("\"code\":\"ambiguous_identity\""), "{lines}: {received}");
}

/// So many refusals and all of this kind; they cost neither a mint nor a request to the app.
async fn refusals_are(stage: &Stage, kind: RefusalKind, count: usize) {
    for other in RefusalKind::ALL {
        let expected = if *other == kind { count } else { 0 };
        assert_eq!(refusal_count(stage, *other).await, expected as f64, "{other:?}");
    }
    let refused = stage.metric("requests_total{outcome=\"identity_refused\"}").await;
    assert_eq!(refused, count as f64);
    assert_eq!(stage.velt.call_count(), 0, "a refused identity is nobody's token");
    assert_eq!(stage.app.journal().len(), 0, "the app is not asked");
}

async fn refusal_count(stage: &Stage, kind: RefusalKind) -> f64 {
    stage.metric(&format!("identity_refusals_total{{kind=\"{}\"}}", kind.as_str())).await
}

async fn spoof_count(stage: &Stage, kind: &str) -> f64 {
    stage.metric(&format!("spoof_attempts_total{{kind=\"{kind}\"}}")).await
}

/// No identity header, in no spelling, is among these names.
fn assert_no_identity(headers: &HeaderMap) {
    for name in headers.keys() {
        let folded = name.as_str().replace('_', "-");
        assert!(!NAMES.contains(&&*folded), "the app sees {name}");
    }
}

#[tokio::test]
async fn t1_an_underscore_alias_is_refused() {
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
async fn t1_an_alias_is_refused_in_any_case() {
    let stage = Stage::set("").await;
    let spellings =
        ["X_Forwarded_User", "X-FORWARDED_USER", "x_forwarded-user", "x_fOrWaRdEd_uSeR"];
    for alias in spellings {
        raw_is_refused(&stage, &format!("X-Forwarded-User: ada\r\n{alias}: eve\r\n")).await;
    }
    refusals_are(&stage, RefusalKind::Alias, spellings.len()).await;
}

#[tokio::test]
async fn t1_dashes_are_an_alias_of_a_name_configured_with_underscores() {
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
async fn t1_a_header_that_only_looks_like_an_alias_passes() {
    let stage = Stage::set("").await;
    for name in ["x_forwarded_user_id", "x_forwarded", "xforwardeduser", "x-forwarded-users"] {
        let answer = as_ada(&stage, "/").header(name, "1").send().await;
        assert_eq!(user_of(answer.token().expect("a token")), "ada", "{name}");
        let arrived = stage.app.journal().pop().expect("it arrived");
        assert_eq!(arrived.header(name), Some("1"));
    }
}

#[tokio::test]
async fn t1_with_drop_an_alias_takes_every_identity_header_with_it() {
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
async fn t2_an_untrusted_peers_aliases_of_forwarding_headers_do_not_reach_the_app() {
    let stage = Stage::set(&format!("[identity]\n{UNTRUSTED}")).await;
    let mut sending = stage.client().get("/");
    let forged = ["x_forwarded_for", "x-forwarded_proto", "x_forwarded-host", "x_real_ip"];
    for name in forged {
        sending = sending.header(name, "203.0.113.7");
    }
    assert_eq!(sending.send().await.status(), 200);
    let arrived = stage.app.only();
    for name in forged {
        assert_eq!(arrived.header(name), None, "an app that folds _ into - would believe {name}");
    }
}

#[tokio::test]
async fn t3_a_header_name_configured_in_any_case_behaves_the_same() {
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
async fn t5_a_header_that_is_there_twice_is_refused() {
    let stage = Stage::set(EVERY_HEADER).await;
    let mut count = 0;
    // Groups are a list by nature.
    for name in &NAMES[..4] {
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
async fn t5_a_comma_list_is_refused_where_one_value_belongs() {
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
async fn t5_with_drop_a_repeated_header_makes_an_anonymous_request() {
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
async fn t6_no_other_header_has_a_say_in_who_asks_or_what_is_minted() {
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
async fn t10_an_untrusted_peers_identity_is_stripped_counted_and_never_believed() {
    let stage = Stage::set(&every_header_and(UNTRUSTED)).await;
    let forged = || {
        let mut sending = stage.client().get("/");
        for name in NAMES {
            // What would be refused from a trusted peer is no reason to answer anything else.
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
        identity.trusts(peer.parse::<IpAddr>().expect("an address"))
    };
    let private = trusting("\"10.0.0.0/8\", \"fd00::/8\"");
    for peer in ["10.1.2.3", "::ffff:10.1.2.3", "fd12::1"] {
        assert!(trusts(&private, peer), "{peer}");
    }
    for peer in ["11.1.2.3", "::ffff:11.1.2.3", "127.0.0.1", "::1", "::10.1.2.3", "fe80::1"] {
        assert!(!trusts(&private, peer), "{peer}");
    }
    let default = identity("");
    for peer in ["127.0.0.1", "127.9.9.9", "::ffff:127.0.0.1", "::1"] {
        assert!(trusts(&default, peer), "{peer}");
    }
    for peer in ["10.0.0.1", "::2", "169.254.0.1", "0.0.0.0"] {
        assert!(!trusts(&default, peer), "{peer}");
    }
}

/// Answers with the names of all headers and trailers that arrived.
async fn names_of_everything(request: Request<Incoming>) -> Response<AppBody> {
    let (parts, body) = request.into_parts();
    let received = body.collect().await.expect("a body");
    let trailers = received.trailers().cloned().unwrap_or_default();
    let names: BTreeSet<&str> =
        parts.headers.keys().chain(trailers.keys()).map(HeaderName::as_str).collect();
    let names: Vec<_> = names.into_iter().collect();
    let mut response = plain("read");
    let names = HeaderValue::from_str(&names.join(" ")).expect("names");
    response.headers_mut().insert("x-app-received", names);
    response
}

/// `POST /` over HTTP/2 with `trailers` after the body.
async fn post_with_trailers_over_http2(address: SocketAddr, trailers: &[(&str, &str)]) -> Answer {
    let mut map = HeaderMap::new();
    for (name, value) in trailers {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
        map.append(name, HeaderValue::from_str(value).expect("a value"));
    }
    let frames = [Ok(Frame::data(Bytes::from_static(b"x"))), Ok(Frame::trailers(map))];
    let body: AppBody = StreamBody::new(futures_util::stream::iter(frames)).boxed();
    let request = Request::post("http://app.example/").body(body).expect("a request");
    let stream = TcpStream::connect(address).await.expect("it listens");
    let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.expect("HTTP/2");
    tokio::spawn(connection);
    Answer::read(sender.send_request(request).await.expect("an answer")).await
}

const FORGED_TRAILERS: [(&str, &str); 5] = [
    ("x-forwarded-user", "eve"),
    ("x_forwarded_user", "eve"),
    ("x-velt-token", "forged"),
    ("x-velt-token-status", "forged"),
    ("x-sum", "1"),
];

#[tokio::test]
async fn t11_a_trailer_never_becomes_an_identity() {
    for peers in ["", UNTRUSTED] {
        for protocol in ["http1", "h2c"] {
            let app = match protocol {
                "http1" => FakeApp::serving(names_of_everything).await,
                _ => FakeApp::serving_h2c(names_of_everything).await,
            };
            let toml = format!("[app]\nprotocol = \"{protocol}\"\n[identity]\n{peers}");
            let stage = Stage::with(app, &toml).await;

            let mut wire = Wire::to(stage.sidecar.addresses.traffic).await;
            let trailers = FORGED_TRAILERS.map(|(name, value)| format!("{name}: {value}\r\n"));
            wire.send(format!(
                "POST / HTTP/1.1\r\nhost: a\r\nte: trailers\r\ntrailer: x-sum\r\n\
                 connection: te, close\r\ntransfer-encoding: chunked\r\n\r\n\
                 1\r\nx\r\n0\r\n{}\r\n",
                trailers.concat()
            ))
            .await;
            let received = wire.rest().await;
            assert!(received.contains("x-velt-token-status: anonymous\r\n"), "{received}");
            let names = received.lines().find_map(|line| line.strip_prefix("x-app-received: "));
            assert_only_the_sum(names.expect("an answer of the app"));
            assert_eq!(spoof_count(&stage, "trailer").await, 4.0, "{protocol}");

            let address = stage.sidecar.addresses.traffic;
            let answer = post_with_trailers_over_http2(address, &FORGED_TRAILERS).await;
            assert_eq!(answer.token_status(), Some("anonymous"));
            assert_only_the_sum_or_less(answer.header("x-app-received").expect("an answer"));
            assert_eq!(spoof_count(&stage, "trailer").await, 8.0, "{protocol}");
            assert_eq!(stage.velt.call_count(), 0);
        }
    }
}

fn assert_only_the_sum(names: &str) {
    assert!(names.split(' ').any(|name| name == "x-sum"), "{names}");
    assert_only_the_sum_or_less(names);
}

/// Without an announcement an HTTP/1.1 hop drops even the harmless trailer.
fn assert_only_the_sum_or_less(names: &str) {
    for (name, _) in &FORGED_TRAILERS[..4] {
        assert!(names.split(' ').all(|arrived| arrived != *name), "{names}");
    }
}

#[tokio::test]
async fn t11_a_header_announced_as_a_trailer_is_refused() {
    let stage = Stage::set(EVERY_HEADER).await;
    let mut count = 0;
    for name in NAMES.into_iter().chain(["x-velt-token", "x-velt-token-status"]) {
        let upper = name.to_ascii_uppercase();
        for value in [name.to_owned(), upper.clone(), format!("x-sum ,\t{upper}, x-other")] {
            refused(as_ada(&stage, "/").header("trailer", &value)).await;
            count += 1;
        }
        let second_line = stage.client().get("/").header("trailer", "x-sum");
        assert_ambiguous(&second_line.header("trailer", name).send_http2().await);
        count += 1;
    }
    refusals_are(&stage, RefusalKind::Trailer, count).await;
}

#[tokio::test]
async fn t12_a_header_named_in_connection_is_refused() {
    let stage = Stage::set(EVERY_HEADER).await;
    let mut count = 0;
    for name in NAMES.into_iter().chain(["x-velt-token", "x-velt-token-status"]) {
        let upper = name.to_ascii_uppercase();
        for value in [name.to_owned(), upper.clone(), format!("close ,\t{upper}, x-internal")] {
            refused(as_ada(&stage, "/").header("connection", &value)).await;
            count += 1;
        }
        // Absence after the stripping must not count as absence.
        let second_line = stage.client().get("/api/velt/token").header("connection", "keep-alive");
        refused(second_line.header("connection", name)).await;
        count += 1;
    }
    refusals_are(&stage, RefusalKind::ConnectionNominated, count).await;
}

#[tokio::test]
async fn t12_with_drop_a_header_named_in_connection_makes_an_anonymous_request() {
    let stage = Stage::set(&every_header_and(DROP)).await;
    let sending = as_ada(&stage, "/").header("connection", "X-Auth-Request-Email");
    let answer = sending.header("x-auth-request-email", "ada@example.com").send().await;
    assert_eq!((answer.status(), answer.token_status()), (200, Some("anonymous")));
    assert_no_identity(&stage.app.only().headers);
    let count = refusal_count(&stage, RefusalKind::ConnectionNominated).await;
    assert_eq!((count, stage.velt.call_count()), (1.0, 0));
}

#[tokio::test]
async fn t12_an_untrusted_peer_cannot_have_a_forwarding_header_removed_either() {
    let stage = Stage::set(&format!("[identity]\n{UNTRUSTED}")).await;
    let answer = as_ada(&stage, "/").header("connection", "X-Forwarded-User").send().await;
    assert_eq!((answer.status(), &*answer.code()), (400, "bad_request"));
    assert_eq!((stage.app.journal().len(), stage.velt.call_count()), (0, 0));
}

#[tokio::test]
async fn t14_a_huge_or_odd_connection_header_is_read_to_its_end() {
    let stage = Stage::set("").await;
    let padding = "x-internal, ".repeat(8 * 1024 / 12);
    raw_is_refused(&stage, &format!("connection: {padding}x-forwarded-user\r\n")).await;
    refusals_are(&stage, RefusalKind::ConnectionNominated, 1).await;
    let mut wire = Wire::to(stage.sidecar.addresses.traffic).await;
    wire.send(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close, \xff\xfe\r\n\r\n").await;
    let head = wire.head().await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert!(!stage.app.only().headers.contains_key("connection"));
}

#[tokio::test]
async fn t37_users_who_differ_in_a_byte_are_different_users() {
    let stage = Stage::set("").await;
    let users = ["Alice", "alice", "al ice", "Zo\u{eb}", "Zoe\u{308}", "zo\u{eb}", "alice\u{200b}"];
    for user in users {
        let answer = stage.get_as(user, "/api/velt/token").await;
        assert_eq!(user_of(answer.json()["token"].as_str().expect("a token")), user);
    }
    assert_eq!(stage.velt.calls_by_user().len(), users.len());
    assert_eq!(stage.velt.call_count(), users.len());
}

#[tokio::test]
async fn t43_odd_but_legal_user_ids_reach_velt_byte_for_byte() {
    let stage = Stage::set("").await;
    let longest = "x".repeat(256);
    let longest_in_bytes = "é".repeat(128);
    for user in [
        "ada",
        "a",
        "Ada Lovelace",
        "ada@example.com",
        "😀 crab 🦀",
        "王小明",
        r#"a"b\c/d"#,
        "{\"$gt\":\"\"}",
        "a|b;c=d&e?f#g%00",
        "null",
        "../../etc/passwd",
        &longest,
        &longest_in_bytes,
    ] {
        let answer = stage.get_as(user, "/").await;
        assert_eq!(user_of(answer.token().expect("a token")), user);
        let over_http2 = stage.client().get("/").header("x-forwarded-user", user);
        assert_eq!(over_http2.send_http2().await.token(), answer.token());
    }
}

#[tokio::test]
async fn t43_odd_bytes_are_refused_by_their_kind() {
    for (kind, values) in [
        (RefusalKind::Empty, vec![b"".to_vec()]),
        (RefusalKind::TooLong, vec![vec![b'x'; 257], vec![b'x'; 4096], "é".repeat(129).into()]),
        (
            RefusalKind::BadBytes,
            vec![
                b"a\tb".to_vec(),
                b"\xff".to_vec(),
                b"ada\x80".to_vec(),
                // An overlong slash and half of a surrogate pair.
                b"\xc0\xaf".to_vec(),
                b"\xed\xa0\x80".to_vec(),
                "next\u{85}line".into(),
                "\u{a0}ada".into(),
                "ada\u{2003}".into(),
            ],
        ),
    ] {
        let stage = Stage::set(EVERY_HEADER).await;
        let mut count = 0;
        for value in values {
            refused(stage.client().get("/").header("x-forwarded-user", &value)).await;
            let over_http2 = stage.client().get("/").header("x-forwarded-user", &value);
            assert_ambiguous(&over_http2.send_http2().await);
            for name in &NAMES[1..4] {
                refused(as_ada(&stage, "/api/velt/token").header(name, &value)).await;
            }
            count += 5;
        }
        refusals_are(&stage, kind, count).await;
    }
}

#[tokio::test]
async fn t43_groups_may_be_long_but_not_broken() {
    let stage = Stage::set(EVERY_HEADER).await;
    refused(as_ada(&stage, "/").header("x-auth-request-groups", b"admins\xff")).await;
    refused(as_ada(&stage, "/").header("x-auth-request-groups", b"admins\t\x80")).await;
    refusals_are(&stage, RefusalKind::BadBytes, 2).await;
    let groups = "staff,".repeat(500) + "admins";
    as_ada(&stage, "/").header("x-auth-request-groups", groups).send().await;
    assert_eq!(stage.velt.calls()[0].body["data"]["userProperties"]["isAdmin"], true);
}

#[tokio::test]
async fn t43_outer_spaces_are_trimmed_by_http1_and_refused_over_http2() {
    let stage = Stage::set("").await;
    raw_is_refused(&stage, "x-forwarded-user:  \t \r\n").await;
    for spaces in [" ", "  "] {
        let over_http2 = stage.client().get("/").header("x-forwarded-user", spaces);
        assert_ambiguous(&over_http2.send_http2().await);
    }
    refusals_are(&stage, RefusalKind::Empty, 3).await;

    let stage = Stage::set("").await;
    for padded in [" ada", "ada ", "\tada"] {
        let over_http2 = stage.client().get("/").header("x-forwarded-user", padded);
        assert_ambiguous(&over_http2.send_http2().await);
    }
    refusals_are(&stage, RefusalKind::BadBytes, 3).await;

    // RFC 9112 section 5.1: around the value, not of it.
    let received = raw(&stage, "x-forwarded-user: \t ada \r\nconnection: close\r\n").await;
    assert!(received.starts_with("HTTP/1.1 200 "), "{received}");
    assert_eq!(stage.velt.calls()[0].user(), "ada");
}

#[tokio::test]
async fn t43_bytes_that_no_header_may_hold_end_the_connection() {
    let stage = Stage::set("").await;
    for value in [&b"a\0b"[..], b"a\x7fb", b"a\rb", b"a\x01b", b"a\x1b[31m"] {
        let mut wire = Wire::to(stage.sidecar.addresses.traffic).await;
        wire.send(
            [b"GET / HTTP/1.1\r\nhost: a\r\nx-forwarded-user: ", value, b"\r\n\r\n"].concat(),
        )
        .await;
        let received = wire.rest().await;
        assert!(received.starts_with("HTTP/1.1 400 "), "{value:?}: {received}");
    }
    assert_eq!((stage.app.journal().len(), stage.velt.call_count()), (0, 0));
}

#[tokio::test]
async fn the_identity_header_travels_on_to_the_app_unless_told_otherwise() {
    let stage = Stage::set(EVERY_HEADER).await;
    let all = |stage: &Stage| {
        let sending = as_ada(stage, "/").header("x-auth-request-email", "ada@example.com");
        let sending = sending.header("x-auth-request-name", "Ada");
        let sending = sending.header("x-auth-request-org", "org");
        sending.header("x-auth-request-groups", "staff").header("x-forwarded-proto", "https")
    };
    assert!(all(&stage).send().await.token().is_some());
    let arrived = stage.app.only();
    for (name, value) in NAMES.into_iter().zip(["ada", "ada@example.com", "Ada", "org", "staff"]) {
        assert_eq!(arrived.header(name), Some(value));
    }

    let stage = Stage::set(&every_header_and("forward_headers = \"strip\"")).await;
    assert!(all(&stage).send().await.token().is_some(), "read before it is removed");
    let arrived = stage.app.only();
    assert_no_identity(&arrived.headers);
    assert_eq!(arrived.header("x-forwarded-proto"), Some("https"), "that is no identity");
    assert_eq!(spoof_count(&stage, "identity_header").await, 0.0, "nobody forged anything");
}

#[tokio::test]
async fn all_that_the_login_proxy_says_reaches_velt() {
    let stage = Stage::set(EVERY_HEADER).await;
    let sending = as_ada(&stage, "/").header("x-auth-request-email", "ada@example.com");
    let sending = sending.header("x-auth-request-name", "Lovelace, Ada");
    let sending = sending.header("x-auth-request-org", "org-1");
    assert!(sending.header("x-auth-request-groups", "admins").send().await.token().is_some());
    assert_eq!(
        stage.velt.calls()[0].body,
        json!({ "data": {
            "userId": "ada",
            "userProperties":
                { "name": "Lovelace, Ada", "email": "ada@example.com", "isAdmin": true },
            "permissions": { "resources": [{ "type": "organization", "id": "org-1" }] },
        }})
    );
}

#[tokio::test]
async fn what_the_login_proxy_leaves_out_is_absent_and_the_organization_the_configured_one() {
    let stage = Stage::set(EVERY_HEADER).await;
    assert!(stage.get_as("ada", "/").await.token().is_some());
    let resources = json!([{ "type": "organization", "id": "org-of-the-config" }]);
    assert_eq!(
        stage.velt.calls()[0].body,
        json!({ "data": {
            "userId": "ada",
            "userProperties": { "isAdmin": false },
            "permissions": { "resources": resources },
        }})
    );
}

#[tokio::test]
async fn without_an_organization_there_is_no_call_and_a_word_that_says_so() {
    let toml = "[identity]\norganization_header = \"X-Org\"\n[velt]\napi = \"v2\"";
    let stage = Stage::set(toml).await;
    let answer = stage.get_as("ada", "/").await;
    assert_eq!((answer.status(), answer.token_status()), (200, Some("no-organization")));
    let route = stage.get_as("ada", "/api/velt/token").await;
    assert_eq!((route.status(), &*route.code()), (400, "no_organization"));
    assert_eq!(stage.velt.call_count(), 0);
}

#[tokio::test]
async fn an_admin_is_a_member_of_one_of_the_admin_groups_exactly() {
    let stage = Stage::set(EVERY_HEADER).await;
    let mut user = 0;
    for (groups, is_admin) in [
        (&["admins"][..], true),
        (&["staff,admins"], true),
        (&["staff ,  velt team "], true),
        (&["staff", "admins"], true),
        (&["admins", "staff"], true),
        (&[], false),
        (&[""], false),
        (&["staff"], false),
        (&["Admins"], false),
        (&["admins2", "xadmins", "velt"], false),
        (&["velt,team"], false),
    ] {
        user += 1;
        let sending = stage.client().get("/").header("x-forwarded-user", format!("user-{user}"));
        let sending = groups
            .iter()
            .fold(sending, |sending, group| sending.header("x-auth-request-groups", group));
        assert!(sending.send().await.token().is_some());
        let call = stage.velt.calls().pop().expect("a call");
        assert_eq!(call.user(), format!("user-{user}"));
        assert_eq!(call.body["data"]["userProperties"]["isAdmin"], is_admin, "{groups:?}");
    }
}

#[tokio::test]
async fn an_untrusted_peers_word_about_its_own_client_is_replaced() {
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

/// The part alone, as the composition root builds it.
fn identity(toml: &str) -> Identity {
    let nowhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
    let config = config(&document("127.0.0.1:1", nowhere, toml));
    let settings = config.unwrap_or_else(|error| panic!("{error}")).identity;
    let metrics = Metrics::new().requests;
    Identity::new(settings, metrics.identity_refusals, metrics.spoof_attempts)
}

/// Header names that have or could be taken to have a meaning, and one that has none.
fn some_name() -> impl Strategy<Value = String> {
    let mut names: Vec<String> = NAMES.map(str::to_owned).to_vec();
    names.extend(["connection", "trailer", "x-velt-token", "x-other"].map(str::to_owned));
    names.extend(["x_forwarded_user", "x-auth_request-org"].map(str::to_owned));
    prop::sample::select(names)
}

/// What tends to matter, and anything else that a header may hold.
fn some_value() -> impl Strategy<Value = HeaderValue> {
    let words = ["", " ", "ada", "eve", "ada,eve", "admins", "close", "X-Forwarded-User", "x-org"];
    let word = prop::sample::select(words.to_vec()).prop_map(|word| word.as_bytes().to_vec());
    let bytes = prop::collection::vec(any::<u8>(), 0..300);
    prop_oneof![3 => word, 1 => bytes]
        .prop_filter_map("no header holds that", |bytes| HeaderValue::from_bytes(&bytes).ok())
}

fn some_headers() -> impl Strategy<Value = HeaderMap> {
    prop::collection::vec((some_name(), some_value()), 0..8).prop_map(|lines| {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(HeaderName::from_bytes(name.as_bytes()).expect("a name"), value);
        }
        headers
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn t7_whatever_a_header_holds_it_is_that_user_or_a_refusal(value in some_value()) {
        let mut headers = HeaderMap::new();
        headers.insert("x-forwarded-user", value.clone());
        match identity("").identify(true, &mut headers) {
            Ok(Caller::Known(user)) => {
                prop_assert_eq!(user.id.as_bytes(), value.as_bytes());
                prop_assert_eq!(headers.get("x-forwarded-user"), Some(&value));
            }
            Ok(Caller::Anonymous) => prop_assert!(false, "{value:?} is not nobody"),
            Err(refusal) => prop_assert_eq!(refusal.header, "x-forwarded-user"),
        }
    }

    #[test]
    fn t7_a_known_caller_was_named_once_and_an_anonymous_one_not_at_all(
        original in some_headers(),
    ) {
        let mut headers = original.clone();
        let named: Vec<_> = original.get_all("x-forwarded-user").iter().collect();
        match identity(EVERY_HEADER).identify(true, &mut headers) {
            Ok(Caller::Known(user)) => {
                prop_assert_eq!(named.len(), 1);
                prop_assert_eq!(user.id.as_bytes(), named[0].as_bytes());
                let org = original.get("x-auth-request-org").map(HeaderValue::as_bytes);
                prop_assert_eq!(user.organization.as_deref().map(str::as_bytes), org);
                prop_assert!(headers.keys().all(|name| !name.as_str().contains('_')));
            }
            Ok(Caller::Anonymous) => prop_assert!(named.is_empty()),
            // Which of several reasons is given first is nobody's business.
            Err(_) => {}
        }
        prop_assert!(!headers.contains_key("x-velt-token"));
    }

    #[test]
    fn t10_an_untrusted_peer_is_nobody_whatever_he_sends(original in some_headers()) {
        let mut headers = original.clone();
        let caller = identity(EVERY_HEADER).identify(false, &mut headers);
        prop_assert!(matches!(caller, Ok(Caller::Anonymous)));
        assert_no_identity(&headers);
        prop_assert_eq!(
            headers.get_all("x-other").iter().count(),
            original.get_all("x-other").iter().count()
        );
    }

    #[test]
    fn t7_with_drop_nothing_of_an_ambiguous_identity_is_left(original in some_headers()) {
        let mut headers = original.clone();
        let refused = identity(EVERY_HEADER).identify(true, &mut original.clone()).is_err();
        let caller = identity(&every_header_and(DROP)).identify(true, &mut headers);
        if refused {
            prop_assert!(matches!(caller, Ok(Caller::Anonymous)));
            assert_no_identity(&headers);
        } else {
            prop_assert!(caller.is_ok());
        }
    }
}

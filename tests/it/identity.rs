//! Identity of the caller: the sidecar believes a header from the login proxy, once and in one spelling,
//! and an assertion by its signature.

mod alarms;
mod aliases;
mod anchors;
mod app_answer;
mod app_word;
mod assertion;
mod attributes;
mod claims;
mod config;
mod cookies;
mod foreign_pages;
mod keys;
mod no_user;
mod nominated;
mod presets;
mod properties;
mod values;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use futures_util::FutureExt as _;
use ground::metrics::{Flaw, Label, Metrics, RefusalKind};
use ground::peer::Peer;
use http::HeaderMap;
use identity::{Caller, Identified, Identity, Refusal};

use crate::support::client::{Answer, Sending};
use crate::support::raw::Wire;
use crate::support::{Stage, config, document};

/// Settings for a login proxy that sends every identity header.
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

/// Setting that trusts no peer on loopback.
const UNTRUSTED: &str = "trusted_peers = [\"10.0.0.0/8\"]";

const DROP: &str = "on_ambiguous = \"drop\"";

/// Returns `name` with every mix of `-` and `_`, except `name` itself.
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

/// Begins a request as ada, which is good unless a test adds a fault.
fn as_ada(stage: &Stage, path: &str) -> Sending {
    stage.client().get(path).header("x-forwarded-user", "ada")
}

fn assert_ambiguous(answer: &Answer) {
    assert_eq!((answer.status(), &*answer.code()), (400, "ambiguous_identity"), "{answer:?}");
    assert_eq!((answer.token(), answer.token_status()), (None, None));
}

/// Asserts that the sidecar refuses a request over HTTP/1.1 and ends the connection, because its client
/// may have sent more such requests.
async fn refused(sending: Sending) {
    let answer = sending.send().await;
    assert_ambiguous(&answer);
    assert_eq!(answer.header("connection"), Some("close"));
}

/// Sends header lines byte for byte, and returns the whole answer.
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

/// Asserts that `count` requests were refused, all of them for `kind`, and that they cost neither a mint
/// nor a request to the app.
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

/// Returns how often an attribute was left out for this reason.
async fn dropped_count(stage: &Stage, flaw: Flaw) -> f64 {
    let series = format!("identity_attributes_dropped_total{{reason=\"{}\"}}", flaw.as_str());
    stage.metric(&series).await
}

async fn spoof_count(stage: &Stage, kind: &str) -> f64 {
    stage.metric(&format!("spoof_attempts_total{{kind=\"{kind}\"}}")).await
}

/// Asserts that no identity header is among `headers`, in any spelling.
fn assert_no_identity(headers: &HeaderMap) {
    for name in headers.keys() {
        let folded = name.as_str().replace('_', "-");
        assert!(!NAMES.contains(&&*folded), "the app sees {name}");
    }
}

/// Builds the identity part alone, as the composition root does.
fn identity(toml: &str) -> Identity {
    let nowhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
    let config = config(&document("127.0.0.1:1", nowhere, toml));
    let settings = config.unwrap_or_else(|error| panic!("{error}")).identity;
    Identity::new(settings, Metrics::new().identity).expect("TLS")
}

/// Identifies the caller by `headers` from a peer of this address.
fn identified(
    identity: &Identity,
    peer: &str,
    headers: &mut HeaderMap,
) -> Result<Identified, Refusal> {
    let peer = Peer::at(peer.parse::<IpAddr>().expect("an address"));
    identity.identify(&peer, headers).now_or_never().expect("plain headers are read at once")
}

/// Identifies the caller by headers from loopback.
fn caller(identity: &Identity, headers: &mut HeaderMap) -> Result<Caller, Refusal> {
    identified(identity, "127.0.0.1", headers).map(|identified| identified.caller)
}

#[test]
fn identification_keeps_little_memory_per_request() {
    let identity = identity("");
    let (peer, mut headers) = (Peer::at(IpAddr::from([127, 0, 0, 1])), HeaderMap::new());
    let future = identity.identify(&peer, &mut headers);
    let size = std::mem::size_of_val(&future);
    assert!(size <= 416, "{size} bytes, in every request");
}

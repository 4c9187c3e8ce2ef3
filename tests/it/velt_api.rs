//! Calls to Velt, and the meaning of each of Velt's answers, over real HTTP.
//!
//! [`Expected`] has the effects of an answer; `assert_comes_to` checks them for one answer.

mod calls;
mod emulator;
mod errors;
mod place;
mod retries;
mod successes;
mod timeouts;
mod users;

use bytes::Bytes;
use http::header::RETRY_AFTER;
use http::{HeaderValue, Response};
use http_body_util::Full;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::Stage;
use crate::support::client::Answer;
use crate::support::velt::Call;

/// Effects that a test expects of an answer of Velt's.
#[derive(Clone, Copy, Debug)]
struct Expected {
    /// Value of `X-Velt-Token-Status`.
    word: &'static str,
    /// Status of the token route.
    status: u16,
    code: &'static str,
    /// Label of `mints_total`.
    label: &'static str,
    calls: usize,
}

impl Expected {
    fn after(self, calls: usize) -> Self {
        Self { calls, ..self }
    }
}

const REFUSED: Expected =
    Expected { word: "refused", status: 502, code: "token_refused", label: "refused", calls: 1 };
const MALFORMED: Expected = Expected {
    word: "malformed",
    status: 502,
    code: "token_malformed",
    label: "malformed",
    calls: 1,
};
const MISMATCH: Expected = Expected { label: "mismatch", ..MALFORMED };
const RATE_LIMITED: Expected = Expected {
    word: "rate-limited",
    status: 429,
    code: "token_rate_limited",
    label: "rate_limited",
    calls: 1,
};
const UNAVAILABLE: Expected = Expected {
    word: "unavailable",
    status: 503,
    code: "token_unavailable",
    label: "unavailable",
    calls: 3,
};
const TIMEOUT: Expected =
    Expected { word: "timeout", status: 504, code: "token_timeout", label: "timeout", calls: 3 };

/// Settings with limits so long that only Velt's answers decide.
const PATIENT: &str = r#"
    [velt]
    attempt_timeout = "20s"
    deadline = "20s"
    [delivery.header]
    max_wait = "20s"
    [[delivery.route]]
    path = "/api/velt/token"
    max_wait = "20s"
"#;

/// Asks in both ways for the same token while the mint is held, so that one mint answers both.
async fn ask_twice(stage: &Stage) -> (Answer, Answer) {
    stage.velt.close_gate();
    let ask = |path| {
        let sending = stage.client().get(path).header("x-forwarded-user", "ada");
        tokio::spawn(sending.send())
    };
    let (header, route) = (ask("/"), ask("/api/velt/token"));
    stage.sidecar.metric_reaches("token_lookups_total{result=\"joined\"}", 1.0).await;
    stage.velt.open_gate();
    (header.await.expect("no panic"), route.await.expect("no panic"))
}

/// Asserts the expected effects of one answer of Velt's.
async fn assert_comes_to<F>(name: String, toml: &str, script: F, expected: Expected)
where
    F: Fn(&Call, usize) -> Response<Full<Bytes>> + Send + Sync + 'static,
{
    let stage = Stage::set(&format!("{PATIENT}{toml}")).await;
    stage.velt.script(script);
    let (header, route) = ask_twice(&stage).await;
    assert_eq!((header.status(), header.token()), (200, None), "{name}: the app is answered");
    assert_eq!(header.token_status(), Some(expected.word), "{name}");
    assert_eq!((route.status(), &*route.code()), (expected.status, expected.code), "{name}");
    let passing = !matches!(expected.status, 502);
    assert_eq!(route.header("retry-after").is_some(), passing, "{name}");
    assert_eq!(stage.velt.call_count(), expected.calls, "{name}");
    let series = format!("mints_total{{outcome=\"{}\"}}", expected.label);
    assert_eq!(stage.metric(&series).await, 1.0, "{name}");
    assert_eq!(stage.metric("mint_attempts_total").await, expected.calls as f64, "{name}");
    for answer in [header, route] {
        let everything = format!("{answer:?}");
        assert!(!everything.contains("canary"), "{name}: Velt's words are passed on");
    }
}

/// Checks many answers at the same time, since some of them take the time of their retries.
async fn assert_each_comes_to(rows: Vec<(String, Response<Full<Bytes>>, Expected)>) {
    let mut checks = JoinSet::new();
    for (name, mut response, expected) in rows {
        if expected.label == RATE_LIMITED.label {
            // The wait is longer than a mint may take; otherwise the mint would wait for the end of the
            // pause.
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("30"));
        }
        let script = move |_: &Call, _: usize| response.clone();
        checks.spawn(async move { assert_comes_to(name, "", script, expected).await });
    }
    checks.join_all().await;
}

/// Velt's envelope around `token`.
fn holding(token: &Value) -> String {
    json!({ "result": { "status": "success", "data": { "token": token } } }).to_string()
}

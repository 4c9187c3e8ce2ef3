//! Journal of the calls to an emulator: what was sent, without secrets, and what became of it.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use http::StatusCode;
use serde::Serialize;
use serde_json::Value;

use super::schema::is_viewer_alone;

/// Most calls that are kept; older calls are dropped.
const MAX_CALLS: usize = 100;

/// Text in place of a secret.
const REDACTED: &str = "<redacted>";

/// One call for a token.
#[derive(Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Call {
    path: String,
    /// Body of the call, with credentials replaced. `null` if the body is no JSON.
    sent: Value,
    status: u16,
    /// Reason of a refusal.
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<String>,
    /// Part of the request that Velt is reported to refuse later, at identify.
    #[serde(skip_serializing_if = "Option::is_none")]
    warning: Option<&'static str>,
}

/// The last calls, the oldest first.
#[derive(Default)]
pub(super) struct Journal(Mutex<VecDeque<Call>>);

impl Journal {
    /// Notes a call with this body, and its end.
    pub(super) fn note(&self, path: &str, body: &[u8], status: StatusCode, refused: Option<&str>) {
        let mut sent: Value = serde_json::from_slice(body).unwrap_or_default();
        redact(&mut sent);
        let is_refused_later = is_viewer_alone(&sent["data"]["permissions"]["resources"]);
        let warning = (status.is_success() && is_refused_later).then_some(
            "the only resource is an organization with the role viewer, which identify refuses: \
             Invalid user token",
        );
        let (path, refused) = (path.to_owned(), refused.map(str::to_owned));
        let mut calls = self.calls();
        if calls.len() == MAX_CALLS {
            calls.pop_front();
        }
        calls.push_back(Call { path, sent, status: status.as_u16(), refused, warning });
    }

    /// Returns the calls, the oldest first.
    pub(super) fn all(&self) -> Vec<Call> {
        self.calls().iter().cloned().collect()
    }

    fn calls(&self) -> MutexGuard<'_, VecDeque<Call>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Replaces the credentials of a body, which stand in `data`, or beside it in a body that lacks the envelope.
fn redact(sent: &mut Value) {
    let Value::Object(object) = sent else { return };
    for (key, value) in object {
        if key == "apiKey" || key == "authToken" {
            *value = REDACTED.into();
        } else {
            redact(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn journal_keeps_the_last_calls_without_secrets() {
        let journal = Journal::default();
        for number in 0..=MAX_CALLS {
            let body = json!({ "data": { "userId": number, "apiKey": "k", "authToken": "t" } });
            journal.note("/", body.to_string().as_bytes(), StatusCode::OK, None);
        }
        let unwrapped = json!({ "userId": "ada", "authToken": ["t"] });
        let refused = Some("The body must be wrapped in data.");
        journal.note("/", unwrapped.to_string().as_bytes(), StatusCode::BAD_REQUEST, refused);
        journal.note("/", b"{", StatusCode::BAD_REQUEST, Some("The body is not JSON."));
        let calls = json!(journal.all());
        let calls = calls.as_array().expect("a list");
        assert_eq!(calls.len(), MAX_CALLS);
        let data = json!({ "userId": 3, "apiKey": REDACTED, "authToken": REDACTED });
        assert_eq!(calls[0], json!({ "path": "/", "sent": { "data": data }, "status": 200 }));
        let last = &calls[MAX_CALLS - 2..];
        assert_eq!(last[0]["sent"], json!({ "userId": "ada", "authToken": REDACTED }));
        assert_eq!(last[0]["refused"], "The body must be wrapped in data.");
        assert_eq!(last[1]["sent"], Value::Null);
    }
}

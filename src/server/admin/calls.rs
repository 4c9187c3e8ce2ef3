//! Admin calls, which change something or reveal something. Answers are JSON, except for the configuration,
//! and hold no token or secret.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use secrecy::SecretString;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::runtime::Handle;
use tokio::time::timeout;
use tracing::info;

use super::access::{Access, AccessError};
use super::text;
use super::walks::Walks;
use crate::explain::{Asked, InForce, report};
use ground::logging::{self, Log};
use ground::metrics::{AdminCall, Counters, Label, Metrics, MintOutcome, Refused};
use shared::Shared;
use sidecar::explain::Live;
use sidecar::{Applied, Sidecar};
use token::announce::{Announced, Event, Subject};
use token::cache::Forgotten;

/// Longest body of a call, in bytes, and the time limit for a body, which is hardly longer than a request's
/// head.
const MAX_BODY: usize = 128 * 1024;
const BODY_PATIENCE: Duration = Duration::from_secs(10);

/// Parts of the sidecar that the calls act on.
pub struct Calls {
    pub sidecar: Arc<Sidecar>,
    /// The store that replicas share; `None` without one.
    pub shared: Option<Shared>,
    pub current: Arc<ArcSwap<CurrentSettings>>,
    pub log: Log,
    pub metrics: Arc<Metrics>,
    /// Callback that starts the drain, as SIGTERM does: not ready, still accepting, no connection kept alive.
    pub leave: Box<dyn Fn() + Send + Sync>,
}

/// Settings in force, as admin calls need them. A reload replaces them.
pub struct CurrentSettings {
    pub in_force: InForce,
    /// Token that a caller has to show, if one is set.
    pub token: Option<SecretString>,
}

/// The calls, each of which is carried out only if [`Access`] allows its caller to make it.
pub(super) struct GuardedCalls {
    calls: Calls,
    /// Walks of explanations. Invalidations have a queue of their own ([`Sidecar::apply`]): a flood of
    /// explanations must not delay an invalidation.
    explanations: Walks<()>,
}

/// Kind of call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    Config,
    Drain,
    Explain,
    Invalidate,
    Level,
    Refusals,
}

/// Path and methods of each call.
const CALLS: [(&str, Call, &[Method]); 6] = [
    ("/config", Call::Config, &[Method::GET]),
    ("/drain", Call::Drain, &[Method::POST]),
    ("/explain", Call::Explain, &[Method::POST]),
    ("/cache/invalidate", Call::Invalidate, &[Method::POST]),
    ("/log/level", Call::Level, &[Method::GET, Method::PUT]),
    ("/refusals", Call::Refusals, &[Method::GET]),
];

/// Reason why a call is not carried out.
enum CallError {
    Denied(AccessError),
    Method(&'static [Method]),
    /// A fault of the caller, in words.
    Invalid(StatusCode, String),
    /// The log of this process is not the sidecar's.
    FixedLevel,
}

/// The body of `/cache/invalidate`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Invalidation {
    user: Option<String>,
    organization: Option<String>,
    #[serde(default)]
    everything: bool,
}

/// The answer of `/cache/invalidate`.
#[derive(Serialize)]
struct Invalidated {
    entries: usize,
    mints: usize,
    /// Whether the other replicas have been told to forget too, or will be later: `told` or `later`. Absent without a shared store.
    #[serde(skip_serializing_if = "Option::is_none")]
    replicas: Option<&'static str>,
}

/// The body of `/drain`: an empty object. A body is required, because a page can't send one of this type
/// without a preflight.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Drain {}

/// The body of `/log/level`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Level {
    level: String,
}

/// A refusal as `/refusals` shows it.
#[derive(Serialize)]
struct Shown {
    at: String,
    what: &'static str,
    kind: &'static str,
    peer: Option<String>,
    header: Option<String>,
}

impl GuardedCalls {
    pub(super) fn new(calls: Calls) -> Self {
        Self { calls, explanations: Walks::new() }
    }

    /// Whether `path` is one of the calls.
    pub(super) fn is_call(path: &str) -> bool {
        CALLS.iter().any(|(of_call, ..)| *of_call == path)
    }

    /// Carries a call out, if its caller is allowed to make it.
    pub(super) async fn answer(
        &self,
        peer: SocketAddr,
        request: Request<Incoming>,
    ) -> Response<Full<Bytes>> {
        let (result, answer) = match self.carry_out(peer, request).await {
            Ok(answer) => (AdminCall::Answered, answer),
            Err(error @ CallError::Denied(_)) => (AdminCall::Denied, error.answer()),
            Err(error) => (AdminCall::Failed, error.answer()),
        };
        self.calls.metrics.admin_calls.increment(result);
        answer
    }

    async fn carry_out(
        &self,
        peer: SocketAddr,
        request: Request<Incoming>,
    ) -> Result<Response<Full<Bytes>>, CallError> {
        let current = self.calls.current.load_full();
        let access = Access::new(current.token.as_ref());
        access.check(peer, &request).map_err(CallError::Denied)?;
        let path = request.uri().path();
        let call = CALLS.iter().find(|(of_call, ..)| *of_call == path);
        let (_, call, methods) = call.expect("`is_call` was asked");
        if !methods.contains(request.method()) {
            return Err(CallError::Method(methods));
        }
        let calls = &self.calls;
        match (*call, request.method() == Method::PUT) {
            (Call::Config, _) => Ok(text(StatusCode::OK, current.in_force.text().to_owned())),
            (Call::Refusals, _) => Ok(json_of(StatusCode::OK, &calls.refusals())),
            (Call::Drain, _) => {
                let Drain {} = read(request).await?;
                info!(%peer, "draining, as an admin call asked: not ready, still accepting");
                (calls.leave)();
                Ok(json_of(StatusCode::OK, &json!({ "draining": true })))
            }
            (Call::Level, false) => Ok(json_of(StatusCode::OK, &calls.level())),
            (Call::Level, true) => {
                let Level { level } = read(request).await?;
                calls.set_level(&level, peer)
            }
            (Call::Invalidate, _) => {
                let invalidation = read(request).await?;
                self.invalidate(invalidation, peer).await
            }
            (Call::Explain, _) => self.explain(current, read(request).await?).await,
        }
    }

    async fn invalidate(
        &self,
        invalidation: Invalidation,
        peer: SocketAddr,
    ) -> Result<Response<Full<Bytes>>, CallError> {
        let Invalidation { user, organization, everything } = invalidation;
        let subject = match (user, organization, everything) {
            (Some(user), None, false) => Subject::User(user.as_str().into()),
            (None, Some(organization), false) => Subject::Organization(organization.into()),
            (None, None, true) => Subject::Everything,
            _ => {
                let problem = "Write {\"user\":\"ada\"}, {\"organization\":\"acme\"} or \
                               {\"everything\":true}: one of them.";
                return Err(CallError::Invalid(StatusCode::BAD_REQUEST, problem.into()));
            }
        };
        let what = subject.as_str();
        let event = Event::Forget(subject);
        let Applied { forgotten, announced } = self.calls.sidecar.apply_and_announce(event).await;
        let Forgotten { entries, mints } = forgotten;
        let replicas = announced.map(Announced::as_str);
        info!(entries, mints, what, replicas, %peer, "cached tokens were invalidated");
        Ok(json_of(StatusCode::OK, &Invalidated { entries, mints, replicas }))
    }

    async fn explain(
        &self,
        current: Arc<CurrentSettings>,
        asked: Asked,
    ) -> Result<Response<Full<Bytes>>, CallError> {
        let sidecar = Arc::clone(&self.calls.sidecar);
        let shared = self.calls.shared.as_ref().map(Shared::report);
        let explaining = self.explanations.own(move || {
            let (rules, admission) = (sidecar.rules.load_full(), sidecar.admission.load_full());
            let Sidecar { tokens, logouts, .. } = &*sidecar;
            let live = Live { tokens, logouts, admission: &admission };
            Handle::current().block_on(report(&rules, Some(live), shared, &current.in_force, asked))
        });
        let explained = explaining.await;
        let invalid = |error: crate::explain::QuestionError| {
            CallError::Invalid(StatusCode::BAD_REQUEST, error.to_string())
        };
        Ok(json_of(StatusCode::OK, &explained.map_err(invalid)?))
    }
}

impl Calls {
    fn level(&self) -> serde_json::Value {
        json!({ "level": self.log.level().as_str().to_lowercase() })
    }

    fn set_level(&self, level: &str, peer: SocketAddr) -> Result<Response<Full<Bytes>>, CallError> {
        let Some(level) = logging::level(level) else {
            let problem =
                "Write {\"level\":\"debug\"}: \"error\", \"warn\", \"info\" or \"debug\".";
            return Err(CallError::Invalid(StatusCode::BAD_REQUEST, problem.into()));
        };
        if !self.log.set_level(level) {
            return Err(CallError::FixedLevel);
        }
        info!(%level, %peer, "the log's level was changed");
        Ok(json_of(StatusCode::OK, &self.level()))
    }

    fn refusals(&self) -> serde_json::Value {
        let Metrics { identity, tokens, .. } = &*self.metrics;
        let mut mints = totals(&tokens.mints);
        mints.remove(MintOutcome::Minted.as_str());
        json!({
            "totals": {
                "identity": totals(&identity.refusals),
                "assertion": totals(&identity.assertions),
                "spoof": totals(&identity.spoofs),
                "token": mints,
            },
            "recent": identity.recent.all().into_iter().map(shown).collect::<Vec<_>>(),
        })
    }
}

/// Returns the counts so far, by kind.
fn totals<L: Label>(counters: &Counters<L>) -> BTreeMap<&'static str, u64> {
    let counts = L::ALL.iter().map(|kind| (kind.as_str(), counters.get(*kind)));
    counts.filter(|(_, count)| *count > 0).collect()
}

fn shown(refused: Refused) -> Shown {
    let Refused { at, what, kind, peer, header } = refused;
    Shown {
        at: httpdate::fmt_http_date(at),
        what,
        kind,
        peer: peer.map(|peer| peer.to_string()),
        header: header.map(|header| header.to_string()),
    }
}

/// Reads a call's body. The request has to name the body's type: a page can't do that without a preflight
/// (Fetch standard, section 2.2.2).
async fn read<T: DeserializeOwned>(request: Request<Incoming>) -> Result<T, CallError> {
    let invalid = |status, problem: String| CallError::Invalid(status, problem);
    let is_json = request.headers().get(CONTENT_TYPE).is_some_and(|kind| {
        let essence = kind.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default();
        essence.trim_ascii().eq_ignore_ascii_case(b"application/json")
    });
    if !is_json {
        let problem = "Send JSON, with Content-Type: application/json.".into();
        return Err(invalid(StatusCode::UNSUPPORTED_MEDIA_TYPE, problem));
    }
    let reading = Limited::new(request.into_body(), MAX_BODY).collect();
    let Ok(body) = timeout(BODY_PATIENCE, reading).await else {
        let problem = "The body did not arrive in time.".into();
        return Err(invalid(StatusCode::REQUEST_TIMEOUT, problem));
    };
    let body = body.map_err(|error| {
        if error.is::<LengthLimitError>() {
            let problem = format!("The body is over {MAX_BODY} bytes.");
            invalid(StatusCode::PAYLOAD_TOO_LARGE, problem)
        } else {
            invalid(StatusCode::BAD_REQUEST, "The request body broke off before its end.".into())
        }
    })?;
    serde_json::from_slice(&body.to_bytes()).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        let problem = format!(
            "The body is not what this call takes (line {line}, column {column}): see \
             docs/reference/admin-calls.md."
        );
        invalid(StatusCode::BAD_REQUEST, problem)
    })
}

impl CallError {
    fn answer(&self) -> Response<Full<Bytes>> {
        let error = |status, code: &str, text: String| {
            json_of(status, &json!({ "error": text, "code": code }))
        };
        match self {
            Self::Denied(denied) => {
                let mut response = error(denied.status(), "denied", denied.to_string());
                if denied.status() == StatusCode::UNAUTHORIZED {
                    let challenge = HeaderValue::from_static("Bearer");
                    response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
                }
                response
            }
            Self::Method(methods) => {
                let methods: Vec<_> = methods.iter().map(Method::as_str).collect();
                let allow = methods.join(", ");
                let status = StatusCode::METHOD_NOT_ALLOWED;
                let mut response = error(status, "method", format!("Use {allow} here."));
                let allow = HeaderValue::from_str(&allow).expect("methods");
                response.headers_mut().insert(ALLOW, allow);
                response
            }
            Self::Invalid(status, problem) => error(*status, "unclear", problem.clone()),
            Self::FixedLevel => error(
                StatusCode::CONFLICT,
                "fixed_level",
                "The log level of this process can't be changed, since the sidecar does not own \
                 the log (as in the demo): start it with another log.level."
                    .into(),
            ),
        }
    }
}

fn json_of(status: StatusCode, value: &impl Serialize) -> Response<Full<Bytes>> {
    let mut json = serde_json::to_string_pretty(value).expect("string keys");
    json.push('\n');
    let mut response = text(status, json);
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

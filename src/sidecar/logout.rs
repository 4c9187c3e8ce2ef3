//! Logouts by the word of the identity provider, or of a program that signs its calls.
//!
//! A logout forgets the user's tokens, refuses the user a token until they sign in again, and ends their WebSockets
//! if the settings say so. The app's own requests go on: whether the user may still use the app is decided by the
//! login and the app.
//!
//! `form` reads a logout token from a request, and `identity` checks the token. `webhook` checks signed calls.
//! `memory` holds who was signed out, `seen` which calls were carried out, `tunnels` whose WebSockets are open.

mod error;
mod form;
mod memory;
mod seen;
mod tunnels;
mod webhook;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::header::{ALLOW, RETRY_AFTER};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use secrecy::SecretString;
use serde_json::json;
use tracing::{info, warn};

use self::error::LogoutError;
use self::memory::Memory;
use self::seen::{CallId, Seen};
use self::tunnels::Tunnels;
pub use self::webhook::is_secret;
use self::webhook::{WebhookKeys, subject_in};
use crate::error::NoToken;
use crate::inject::own_answer;
use crate::route::read_body;
use crate::{Applied, Rules, Sidecar};
use ground::alarm::Alarms;
use ground::metrics::{
    IdentityMetrics, Label as _, LogoutMetrics, LogoutResult, LogoutSource as HeardFrom, Outcome,
};
use ground::outgoing::TlsError;
use ground::peer::Peer;
use hop::proxy::headers::is_websocket;
use hop::proxy::{Recaller, RequestBody};
use identity::{Caller, LogoutSource, LogoutTokens, SignedIn};
use token::announce::{Announced, Call, Event, Logout as LoggedOut, Subject};

/// Longest body of a call. The longest logout token has 16 KiB, and a form may write each byte as three.
const MAX_BODY: usize = 64 * 1024;

/// Settings of logouts.
#[derive(Clone, Debug)]
pub struct LogoutSettings {
    /// Time after a logout for which a user gets no token whose identity does not tell when they signed in. `None`
    /// refuses such a user nothing.
    pub refuse_for: Option<Duration>,
    /// Whether a logout ends the user's WebSockets.
    pub end_websockets: bool,
    /// Path at which the identity provider posts logout tokens, and what proves them.
    pub oidc: Option<(String, LogoutSource)>,
    /// Path of signed calls, and the secrets that sign them: the second is there while the secret is being changed.
    pub webhook: Option<(String, Vec<SecretString>)>,
}

/// Rules of logouts. A reload replaces them.
pub struct Logout {
    refuse_for: Option<Duration>,
    end_websockets: bool,
    oidc: Option<(String, LogoutTokens)>,
    webhook: Option<(String, WebhookKeys)>,
}

/// The way in which a call tells of a logout.
#[derive(Clone, Copy)]
pub(super) enum Teller<'a> {
    Oidc(&'a LogoutTokens),
    Webhook(&'a WebhookKeys),
}

impl Teller<'_> {
    pub(super) fn source(self) -> HeardFrom {
        match self {
            Self::Oidc(_) => HeardFrom::Oidc,
            Self::Webhook(_) => HeardFrom::Webhook,
        }
    }
}

impl Logout {
    /// Makes the rules. Takes over the keys of `old` if both read the keys from the same place.
    ///
    /// # Errors
    ///
    /// If TLS for fetching keys can't be set up.
    pub fn new(
        settings: LogoutSettings,
        old: Option<&Self>,
        metrics: &IdentityMetrics,
    ) -> Result<Self, TlsError> {
        let old = old.and_then(|old| old.oidc.as_ref()).map(|(_, tokens)| tokens);
        let oidc = settings.oidc.map(|(path, source)| {
            LogoutTokens::new(source, old, metrics.clone()).map(|tokens| (path, tokens))
        });
        Ok(Self {
            refuse_for: settings.refuse_for,
            end_websockets: settings.end_websockets,
            oidc: oidc.transpose()?,
            webhook: settings.webhook.map(|(path, secrets)| (path, WebhookKeys::new(&secrets))),
        })
    }

    /// Begins to fetch the keys of logout tokens, and returns at once. Needs a tokio runtime.
    pub fn start(&self) {
        if let Some((_, tokens)) = &self.oidc {
            tokens.start();
        }
    }

    /// Returns the way in which calls of `path` tell of logouts; `None` if the path is none of theirs.
    pub(super) fn teller(&self, path: &str) -> Option<Teller<'_>> {
        match (&self.oidc, &self.webhook) {
            (Some((of_oidc, tokens)), _) if of_oidc == path => Some(Teller::Oidc(tokens)),
            (_, Some((of_webhook, keys))) if of_webhook == path => Some(Teller::Webhook(keys)),
            _ => None,
        }
    }
}

/// State of logouts. All threads that serve share it, and it outlives a reload.
pub struct Logouts {
    memory: Memory,
    seen: Seen,
    tunnels: Tunnels,
    refused: Alarms<LogoutResult>,
    metrics: LogoutMetrics,
}

impl Logouts {
    /// Makes the state of a sidecar that has heard of no logout.
    pub fn new(metrics: LogoutMetrics) -> Self {
        Self {
            memory: Memory::new(metrics.clone()),
            seen: Seen::default(),
            tunnels: Tunnels::default(),
            refused: Alarms::new(),
            metrics,
        }
    }

    /// Whether this user gets no token at `now`, the time since 1970.
    pub(super) fn refuse(
        &self,
        logout: &Logout,
        user: &str,
        signed_in: SignedIn,
        now: Duration,
    ) -> bool {
        self.memory.refuses(user, signed_in, now, logout.refuse_for)
    }
}

/// Content of a call that may be carried out.
struct Told {
    event: Event,
    id: CallId,
    /// End of the time for which the call could be valid.
    until: Duration,
}

/// Effect of a call that was carried out.
struct Done {
    /// Word for those whom the call concerns.
    what: &'static str,
    /// Entries of the token cache that were forgotten.
    entries: usize,
}

impl Sidecar {
    /// Refuses a token to a user who was signed out and has not signed in since.
    pub(super) fn admit(
        &self,
        rules: &Rules,
        caller: &Caller,
        signed_in: SignedIn,
    ) -> Result<(), NoToken> {
        let (Some(logout), Caller::Known(user)) = (&rules.logout, caller) else { return Ok(()) };
        if self.logouts.memory.is_empty()
            || !self.logouts.refuse(logout, &user.id, signed_in, unix_now())
        {
            return Ok(());
        }
        Err(NoToken::SignedOut)
    }

    /// Makes the WebSocket that `request` asks for one that a logout of its user ends. Returns what ends it, if
    /// the user is yet to be named: see [`Self::ends_with_logout`].
    pub(super) fn recallable(
        &self,
        rules: &Rules,
        caller: &Caller,
        request: &mut Request<RequestBody>,
    ) -> Option<Recaller> {
        let ends = rules.logout.as_ref().is_some_and(|logout| logout.end_websockets);
        if !ends || matches!(caller, Caller::Anonymous | Caller::Unverified) {
            return None;
        }
        if !is_websocket(request) {
            return None;
        }
        let (recaller, recall) = Recaller::pair();
        request.extensions_mut().insert(recall);
        match caller {
            Caller::Known(user) => {
                self.logouts.tunnels.enter(&user.id, recaller);
                None
            }
            _ => Some(recaller),
        }
    }

    /// Enters a WebSocket whose user the app has named in its answer.
    pub(super) fn ends_with_logout(&self, caller: &Caller, recaller: Recaller) {
        if let Caller::Known(user) = caller {
            self.logouts.tunnels.enter(&user.id, recaller);
        }
    }

    /// Takes note of a logout: no token from now on, and no WebSocket if the settings say so.
    pub(super) fn note_logout(&self, logout: &LoggedOut) {
        let rules = self.rules.load();
        // Without rules there is no time for which to refuse a token.
        let Some(rules) = &rules.logout else { return };
        self.logouts.memory.note(&logout.user, logout.at);
        if rules.end_websockets {
            self.logouts.tunnels.end(&logout.user);
        }
    }

    /// Notes logouts that other replicas have announced. A logout that is noted already may be told again, such as with
    /// a later forget, and the user may have signed in since.
    pub(super) fn note_announced(&self, events: &[Event]) {
        for event in events {
            if let Event::Logout(logout) = event
                && !self.logouts.memory.knows(&logout.user, logout.at)
            {
                self.logouts.metrics.logouts.increment(HeardFrom::Replica);
                self.note_logout(logout);
            }
        }
    }

    /// Answers a call of one of the logout paths.
    pub(super) async fn serve_logout(
        self: &Arc<Self>,
        teller: Teller<'_>,
        peer: &Peer,
        request: &mut Request<RequestBody>,
    ) -> (Response<Bytes>, Outcome) {
        let source = teller.source();
        let done = self.carry_out(teller, request).await;
        let result = done.as_ref().map_or_else(|error| error.result(), |_| LogoutResult::Done);
        self.logouts.metrics.calls.increment(result);
        match &done {
            Ok(Done { what, entries }) => {
                // No entry at all may say that the logout names users otherwise than requests do.
                info!(source = source.as_str(), what, entries, "a logout was carried out");
            }
            Err(LogoutError::Replayed) => {}
            Err(error) => {
                if let Some(calls) = self.logouts.refused.raise(result, 1) {
                    let peer = peer.address();
                    warn!(%error, source = source.as_str(), %peer, calls, "a logout was refused");
                }
            }
        }
        let is_done = matches!(
            (&done, source),
            (Ok(_), _) | (Err(LogoutError::Replayed), HeardFrom::Webhook)
        );
        let outcome = if is_done { Outcome::LogoutDone } else { Outcome::LogoutRefused };
        (answer(source, done.err()), outcome)
    }

    async fn carry_out(
        self: &Arc<Self>,
        teller: Teller<'_>,
        request: &mut Request<RequestBody>,
    ) -> Result<Done, LogoutError> {
        if request.method() != Method::POST {
            return Err(LogoutError::Method);
        }
        if let Teller::Oidc(_) = teller {
            form::check_type(request.headers())?;
        }
        let body = read_body(request.body_mut(), MAX_BODY)
            .await
            .map_err(|error| LogoutError::from_body(&error))?;
        let now = unix_now();
        let told = match teller {
            Teller::Oidc(tokens) => read_token(tokens, &body, now).await?,
            Teller::Webhook(keys) => {
                let signed = keys.check(request.headers(), &body, now)?;
                let event = match subject_in(&body)? {
                    // The signed time, so that a call that arrives late, or again, does not sign a user out who has
                    // signed in since.
                    Subject::User(user) => {
                        Event::Logout(LoggedOut { user, at: signed.time.min(now) })
                    }
                    other => Event::Forget(other),
                };
                let id = CallId::of(HeardFrom::Webhook, &signed.id);
                Told { event, id, until: signed.until }
            }
        };
        self.take_effect(teller.source(), told, now).await
    }

    async fn take_effect(
        self: &Arc<Self>,
        source: HeardFrom,
        told: Told,
        now: Duration,
    ) -> Result<Done, LogoutError> {
        let Told { event, id, until } = told;
        let what = event.subject().as_str();
        let call = Call { name: id.into(), life: until.saturating_sub(now) };
        // Asked first: from the entry on, the call is carried out even if the sender leaves.
        if self.is_carried_out(&call).await || !self.logouts.seen.enter(id, until, now) {
            return Err(LogoutError::Replayed);
        }
        if let Event::Logout(_) = event {
            self.logouts.metrics.logouts.increment(source);
        }
        let Applied { forgotten, announced } = self.apply_call(event, Some(call)).await;
        if announced == Some(Announced::Later) {
            // The sender may send the same call again.
            self.logouts.seen.leave(id);
            return Err(LogoutError::NotAnnounced);
        }
        Ok(Done { what, entries: forgotten.entries })
    }
}

/// Reads and checks the logout token in the body of a call.
async fn read_token(
    tokens: &LogoutTokens,
    body: &[u8],
    now: Duration,
) -> Result<Told, LogoutError> {
    let token = form::logout_token(body)?;
    let checked = tokens.check(token.as_bytes(), now).await?;
    // A provider's clock may be ahead, and no login can be later than a logout in the future.
    let at = checked.issued.min(now);
    let event = Event::Logout(LoggedOut { user: checked.user, at });
    Ok(Told { event, id: CallId::of(HeardFrom::Oidc, &checked.id), until: checked.until })
}

/// Makes the answer to a call. A provider gets the form of error that OpenID Connect Back-Channel Logout 1.0,
/// section 2.8, takes from OAuth 2.0.
fn answer(source: HeardFrom, error: Option<LogoutError>) -> Response<Bytes> {
    let done = |word: &str| own_answer(StatusCode::OK, json!({ "result": word }).to_string());
    let error = match error {
        None => return done("done"),
        // A sender repeats a call to which it had no answer, until it has one.
        Some(LogoutError::Replayed) if source == HeardFrom::Webhook => return done("replayed"),
        Some(error) => error,
    };
    let (text, code) = (error.to_string(), error.result().as_str());
    let content = match source {
        HeardFrom::Oidc => {
            json!({ "error": "invalid_request", "error_description": text, "code": code })
        }
        HeardFrom::Webhook | HeardFrom::Replica => json!({ "error": text, "code": code }),
    };
    let mut response = own_answer(error.status(), content.to_string());
    let headers = response.headers_mut();
    match error.status() {
        StatusCode::METHOD_NOT_ALLOWED => {
            headers.insert(ALLOW, HeaderValue::from_static("POST"));
        }
        StatusCode::SERVICE_UNAVAILABLE => {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        _ => {}
    }
    response
}

/// Returns the time since 1970, by this machine's clock.
pub(super) fn unix_now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

//! What is noted of a request on its way, for its line in the access log and its spans. Where neither
//! is wanted, that is its clock alone.

mod spans;

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, Method, Request, Response, StatusCode, Version};
use tokio::time::Instant;

use super::{Sidecar, scheme_of};
use crate::access_log::{AccessLog, End, Line};
use crate::identity::{Caller, Peer};
use crate::metrics::{HeaderDelivery, Outcome};
use crate::proxy::{Address, BodyMeter, RequestBody, Scheme};
use crate::trace::{Recording, Trace};
use crate::user_id::UserId;

/// Longest path in a line. A longer one is cut off, since readers of logs limit the length of a line.
const MAX_PATH_BYTES: usize = 1024;

/// The same for a method, of which only an attacker has one so long.
const MAX_METHOD_BYTES: usize = 32;

/// The clock of a request, and what is noted of it.
pub(super) struct Record {
    started: Instant,
    app_call: AppCall,
    notes: Option<Box<Notes>>,
}

/// The call to the app.
#[derive(Clone, Copy, Default)]
struct AppCall {
    asked: Option<Instant>,
    /// How long the head of the response took.
    took: Option<Duration>,
    status: Option<StatusCode>,
}

impl AppCall {
    /// How long the app has been waited for: so far, if it has not answered.
    fn wait(self) -> Option<Duration> {
        self.took.or_else(|| Some(self.asked?.elapsed()))
    }
}

impl Record {
    /// Starts the clock, and enters the request's trace: its headers are as the app is to see them.
    pub(super) fn begin(
        sidecar: &Sidecar,
        peer: &Peer,
        request: &mut Request<RequestBody>,
    ) -> Self {
        let started = Instant::now();
        let Sidecar { access_log, tracing, upstream, .. } = sidecar;
        let mut record = Self { started, app_call: AppCall::default(), notes: None };
        if access_log.is_on() || tracing.is_on() {
            let is_trusted =
                |headers: &HeaderMap| sidecar.rules.load().identity.trusts(peer, headers);
            let trace = tracing.enter_from(request.headers_mut(), is_trusted);
            let is_recorded = trace.as_ref().is_some_and(|trace| trace.recording.is_some());
            if access_log.is_on() || is_recorded {
                let app = is_recorded.then(|| (upstream.scheme(), upstream.address().clone()));
                let notes = Notes::begin(access_log.clone(), trace, app, started, peer, request);
                record.notes = Some(Box::new(notes));
            }
        }
        record
    }

    /// What a mint that this request starts is to be part of.
    pub(super) fn recording(&self) -> Option<&Recording> {
        self.notes.as_ref()?.trace.as_ref()?.recording.as_ref()
    }

    /// A token route has been asked.
    pub(super) fn routed(&mut self, path: &str) {
        if let Some(notes) = &mut self.notes {
            notes.route = Some(path.into());
        }
    }

    /// Who is asking has been found out.
    pub(super) fn identified(&mut self, caller: &Caller) {
        if let Some(notes) = &mut self.notes
            && let Caller::Known(user) = caller
            && notes.access_log.names_users()
        {
            notes.user = Some(user.id.clone());
        }
    }

    /// The app is about to be asked: now.
    pub(super) fn app_asked(&mut self) -> Instant {
        *self.app_call.asked.insert(Instant::now())
    }

    /// The app has answered, or will not.
    pub(super) fn app_answered<B, E>(&mut self, answer: &Result<Response<B>, E>, now: Instant) {
        self.app_call.took = self.app_call.asked.map(|asked| now.saturating_duration_since(asked));
        self.app_call.status = answer.as_ref().ok().map(Response::status);
    }

    /// What has become of the token on the app's response.
    pub(super) fn delivered(&mut self, delivery: HeaderDelivery) {
        if let Some(notes) = &mut self.notes {
            notes.token = Some(delivery);
        }
    }

    /// The time since the request's head, and the sidecar's own share of it.
    pub(super) fn elapsed(&self) -> (Duration, Duration) {
        let total = self.started.elapsed();
        (total, total.saturating_sub(self.app_call.wait().unwrap_or_default()))
    }

    /// The response's head goes out; what is still to be noted is about its body.
    pub(super) fn answer(
        &mut self,
        status: StatusCode,
        outcome: Outcome,
        added: Duration,
    ) -> Option<Box<Notes>> {
        let mut notes = self.notes.take()?;
        (notes.status, notes.outcome) = (Some(status), outcome);
        (notes.app_call, notes.added) = (self.app_call, added);
        Some(notes)
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        // The client has left before there was a response.
        if let Some(mut notes) = self.notes.take() {
            (notes.app_call, notes.added) = (self.app_call, self.elapsed().1);
        }
    }
}

/// What is noted of a request. Dropped at its end, it becomes a line and spans.
pub(super) struct Notes {
    access_log: AccessLog,
    trace: Option<Trace>,
    /// Whom the span of the call to the app names, if there is to be one.
    app: Option<(Scheme, Address)>,
    started: Instant,
    time: SystemTime,
    peer: IpAddr,
    scheme: Scheme,
    method: Method,
    path: Box<str>,
    version: Version,
    /// The token route that was asked.
    route: Option<Box<str>>,
    request_bytes: Option<BodyMeter>,
    user: Option<UserId>,
    app_call: AppCall,
    added: Duration,
    token: Option<HeaderDelivery>,
    status: Option<StatusCode>,
    outcome: Outcome,
    response_bytes: u64,
    /// `None` while nobody has seen the end, and for ever if the client leaves.
    end: Option<End>,
}

impl Notes {
    fn begin(
        access_log: AccessLog,
        trace: Option<Trace>,
        app: Option<(Scheme, Address)>,
        started: Instant,
        peer: &Peer,
        request: &mut Request<RequestBody>,
    ) -> Self {
        let request_bytes = request.body_mut().measured();
        Self {
            access_log,
            trace,
            app,
            started,
            time: SystemTime::now(),
            peer: peer.address,
            scheme: scheme_of(peer),
            method: request.method().clone(),
            path: shortened(request.uri().path(), MAX_PATH_BYTES).into(),
            version: request.version(),
            route: None,
            request_bytes,
            user: None,
            app_call: AppCall::default(),
            added: Duration::ZERO,
            token: None,
            status: None,
            outcome: Outcome::ClientGone,
            response_bytes: 0,
            end: None,
        }
    }

    /// A part of the response's body goes out.
    pub(super) fn sent(&mut self, bytes: usize) {
        self.response_bytes += bytes as u64;
    }

    /// The response's body has ended. The first word counts.
    pub(super) fn ended(&mut self, end: End) {
        self.end.get_or_insert(end);
    }

    fn log(&self, total: Duration) {
        let user = self.user.as_deref();
        self.access_log.write(&Line {
            time: self.time,
            peer: self.peer,
            method: shortened(self.method.as_str(), MAX_METHOD_BYTES),
            path: &self.path,
            version: self.version,
            status: self.status,
            outcome: self.outcome,
            token: self.token,
            request_bytes: self.request_bytes.as_ref().map_or(0, BodyMeter::bytes),
            response_bytes: self.response_bytes,
            total,
            added: self.added,
            app: self.app_call.wait(),
            end: self.end.unwrap_or(End::ClientLeft),
            trace: self.trace.as_ref().map(|trace| trace.id),
            user: self.access_log.names_users().then_some(user),
        });
    }
}

impl Drop for Notes {
    fn drop(&mut self) {
        let total = self.started.elapsed();
        self.log(total);
        if let Some(Trace { recording: Some(recording), .. }) = &self.trace {
            recording.request(self.request_span(total));
            if let Some(call) = self.app_span() {
                recording.app_call(call);
            }
        }
    }
}

/// `text` up to `bytes`, at the end of a character.
fn shortened(text: &str, bytes: usize) -> &str {
    let end = (0..=bytes.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or_default()]
}

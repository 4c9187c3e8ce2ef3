//! Notes on a request for its line in the access log and its spans. If neither is wanted, a record holds only
//! the clock and the call to the app.

mod spans;

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, Method, Request, Response, StatusCode, Version};
use tokio::time::Instant;

use super::{Sidecar, scheme_of};
use crate::access_log::{AccessLog, End, Line};
use ground::metrics::{HeaderDelivery, Outcome};
use ground::peer::Peer;
use ground::trace::{Recording, Trace};
use ground::user_id::UserId;
use hop::proxy::{Address, BodyMeter, RequestBody, Scheme};
use identity::Caller;

/// Longest path in a line. A longer one is cut off, since readers of logs limit the length of a line.
const MAX_PATH_BYTES: usize = 1024;

/// Longest method in a line. Only an attacker sends a longer one.
const MAX_METHOD_BYTES: usize = 32;

/// Clock and notes of a request.
pub(super) struct Record {
    started: Instant,
    app_call: AppCall,
    notes: Option<Box<Notes>>,
}

/// The call to the app.
#[derive(Clone, Copy, Default)]
struct AppCall {
    asked: Option<Instant>,
    /// Time until the head of the response.
    took: Option<Duration>,
    status: Option<StatusCode>,
}

impl AppCall {
    /// Returns how long the sidecar has waited for the app: so far, if the app has not answered.
    fn wait(self) -> Option<Duration> {
        self.took.or_else(|| Some(self.asked?.elapsed()))
    }
}

impl Record {
    /// Starts the clock, and enters the request's trace. Leaves the request's headers as the app is to see
    /// them.
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
                let app = upstream.as_ref().filter(|_| is_recorded);
                let app = app.map(|app| (app.scheme(), app.address().clone()));
                let notes = Notes::begin(access_log.clone(), trace, app, started, peer, request);
                record.notes = Some(Box::new(notes));
            }
        }
        record
    }

    /// Returns the recording that a mint of this request is to be part of.
    pub(super) fn recording(&self) -> Option<&Recording> {
        self.notes.as_ref()?.trace.as_ref()?.recording.as_ref()
    }

    /// Notes the token route that is asked.
    pub(super) fn routed(&mut self, path: &str) {
        if let Some(notes) = &mut self.notes {
            notes.route = Some(path.into());
        }
    }

    /// Notes the user of the request, if the access log names users.
    pub(super) fn identified(&mut self, caller: &Caller) {
        if let Some(notes) = &mut self.notes
            && let Caller::Known(user) = caller
            && notes.access_log.names_users()
        {
            notes.user = Some(user.id.clone());
        }
    }

    /// Notes that the app is asked now, and returns the time.
    pub(super) fn app_asked(&mut self) -> Instant {
        *self.app_call.asked.insert(Instant::now())
    }

    /// Notes the app's answer, or that the app will not answer.
    pub(super) fn app_answered<B, E>(&mut self, answer: &Result<Response<B>, E>, now: Instant) {
        self.app_call.took = self.app_call.asked.map(|asked| now.saturating_duration_since(asked));
        self.app_call.status = answer.as_ref().ok().map(Response::status);
    }

    /// Notes the result of the token's delivery on the app's response.
    pub(super) fn delivered(&mut self, delivery: HeaderDelivery) {
        if let Some(notes) = &mut self.notes {
            notes.token = Some(delivery);
        }
    }

    /// Returns the time since the request's head, and the sidecar's own share of that time.
    pub(super) fn elapsed(&self) -> (Duration, Duration) {
        let total = self.started.elapsed();
        (total, total.saturating_sub(self.app_call.wait().unwrap_or_default()))
    }

    /// Notes the response's head, and returns the notes for what follows about the response's body.
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

/// Notes on a request. When dropped, they become a line and spans.
pub(super) struct Notes {
    access_log: AccessLog,
    trace: Option<Trace>,
    /// Scheme and address of the app, for the span of the call to the app, if there is to be one.
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
    /// End of the response. `None` until the end is known, and for ever if the client leaves.
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
            peer: peer.address(),
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

    /// Counts a part of the response's body that goes out.
    pub(super) fn sent(&mut self, bytes: usize) {
        self.response_bytes += bytes as u64;
    }

    /// Notes the end of the response's body. The first call counts.
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

/// Returns `text` up to `bytes` bytes, cut at the end of a character.
fn shortened(text: &str, bytes: usize) -> &str {
    let end = (0..=bytes.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or_default()]
}

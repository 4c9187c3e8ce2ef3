//! An app server behind a sidecar, the player of the cases.

use std::path::Path;
use std::process::{Command, Stdio};

use serde::Deserialize;
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::Expected::{Answered, CutOff, Refused, UpToTheApp};
use super::wire::{Answer, Wire, converse_http2};
use super::{Case, Seen, Then};
use crate::frames::PREFACE;
use crate::neighbour::{PATIENCE, Process, Sidecar, eventually, http_client, lines_of};

/// Trusted address that no peer has, for a sidecar that trusts no peer.
const NOBODY_TRUSTED: (&str, &str) = ("VELT_SIDECAR_IDENTITY__TRUSTED_PEERS", "192.0.2.1/32");

/// Outcomes of requests that the app has answered.
const FORWARDED: [&str; 1] = ["forwarded"];

/// Outcomes of requests that the app may have got, whole or not, with or without an answer.
const TRIED: [&str; 3] = ["forwarded", "client_gone", "app_broken"];

/// Line that an app prints about a request, see `apps/`.
#[derive(Debug, Deserialize)]
struct Line {
    #[serde(default)]
    method: String,
    target: String,
    #[serde(default)]
    length: Value,
    #[serde(default)]
    users: Vec<String>,
    /// Whether the app did not read the request to its end, or did not understand it.
    #[serde(default)]
    broken: bool,
    status: Option<String>,
}

impl Line {
    /// Returns the request, if it was a whole request.
    fn whole(&self) -> Option<Seen> {
        if self.broken || self.status.as_ref().is_some_and(|status| status != "200") {
            return None;
        }
        let length = match &self.length {
            Value::String(length) if length.is_empty() => 0,
            Value::String(length) => length.parse().expect("a length"),
            length => length.as_u64().expect("a length").try_into().expect("a length"),
        };
        Some(Seen::new(&self.method, &self.target, length, &self.users.join("|")))
    }
}

/// An app server behind a sidecar, and the lines that the app prints.
pub(super) struct Stage {
    sidecar: Sidecar,
    trusted: bool,
    over_http2: bool,
    lines: mpsc::UnboundedReceiver<String>,
    http: reqwest::Client,
    fences: usize,
    /// Whether the app may still print a line about the previous case.
    unfinished: bool,
    /// Request of the previous case, if the app has not answered it: the app may still print a line about
    /// this request when it notices that its client has left.
    late: Option<Seen>,
    process: Process,
    _folder: TempDir,
}

impl Stage {
    pub(super) async fn set(
        command: impl FnOnce(&Path, &Path) -> Command,
        protocol: &str,
        trusted: bool,
    ) -> Self {
        let folder = TempDir::new().expect("a folder for the app");
        let socket = folder.path().join("app.sock");
        let mut command = command(folder.path(), &socket);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut process = Process::start(&mut command);
        let lines = lines_of(process.child().stdout.take().expect("a pipe"));
        eventually("the app to listen", async || {
            let connected = UnixStream::connect(&socket).await;
            connected.map(drop).map_err(|error| error.to_string())
        })
        .await;
        let app = format!("unix:{}", socket.display());
        let mut settings = vec![("VELT_SIDECAR_APP__PROTOCOL", protocol)];
        if !trusted {
            settings.push(NOBODY_TRUSTED);
        }
        let sidecar = Sidecar::start_with(app, &settings).await;
        let (http, fences, unfinished) = (http_client(), 0, false);
        let over_http2 = protocol == "h2c";
        Self {
            sidecar,
            trusted,
            over_http2,
            lines,
            http,
            fences,
            unfinished,
            late: None,
            process,
            _folder: folder,
        }
    }

    /// Sends one case's bytes, and then a request that must arrive unchanged, on another connection of the
    /// client and most likely the same connection of the app.
    ///
    /// # Errors
    ///
    /// The first difference from the expected result.
    pub(super) async fn play(&mut self, case: &Case) -> Result<(), String> {
        let (before, tried_before) = (self.count(&FORWARDED).await, self.count(&TRIED).await);
        let (answers, last) = if case.is_http2() {
            (vec![converse_http2(self, &case.bytes).await?], false)
        } else {
            self.converse(case).await?
        };
        let fence = format!("/fence/{}", self.fences);
        self.fences += 1;
        let mut wire = self.wire().await;
        wire.send(format!("GET {fence} HTTP/1.1\r\nhost: a\r\nx-forwarded-user: fence\r\n\r\n"))
            .await;
        let answer = wire.answer().await?.ok_or("the next client got no answer")?;
        if answer.status != 200 {
            return Err(format!("the next client got {}", answer.status));
        }
        let mut seen = self.seen_up_to(&fence, case).await?;
        if last && seen.pop() != Some(self.as_seen(Seen::new("GET", "/last", 0, "last"))) {
            return Err(format!("/last was not the app's last request: {seen:?}"));
        }
        let expected = match &case.expected {
            Answered { seen, .. } => seen.len(),
            UpToTheApp(_) => 1,
            Refused(_) | CutOff { .. } => 0,
        };
        let late = self.late.take();
        if seen.len() > expected && seen.first() == late.as_ref() {
            seen.remove(0);
        }
        let ours = 1 + usize::from(last);
        let forwarded = self.count(&FORWARDED).await - before - ours;
        let tried = self.count(&TRIED).await - tried_before - ours;
        // The counts can't decide this: a request of an earlier client may be among them.
        if let UpToTheApp(request) = &case.expected
            && seen.is_empty()
        {
            self.late = Some(self.as_seen(request.clone()));
        }
        self.check(case, &answers, &seen, forwarded, tried)
    }

    fn check(
        &self,
        case: &Case,
        answers: &[Answer],
        seen: &[Seen],
        forwarded: usize,
        tried: usize,
    ) -> Result<(), String> {
        let statuses: Vec<_> = answers.iter().map(|answer| answer.status).collect();
        let told = || format!("statuses {statuses:?}, {forwarded} forwarded, the app saw {seen:?}");
        if !self.fits(case, &statuses, seen, forwarded, tried) {
            return Err(told());
        }
        // The token that the sidecar minted shows which user the sidecar has read.
        for (answer, request) in answers.iter().zip(seen) {
            let told = answer.status == 200 && !case.is_http2();
            // Answers to other methods need not carry a token.
            let told = told && matches!(&*request.method, "GET" | "POST");
            if told && answer.user != request.user {
                return Err(format!("a token of {:?} for {request:?}", answer.user));
            }
        }
        Ok(())
    }

    fn fits(
        &self,
        case: &Case,
        statuses: &[u16],
        seen: &[Seen],
        forwarded: usize,
        tried: usize,
    ) -> bool {
        match &case.expected {
            Refused(status) => {
                // A malformed HTTP/2 request is reset, which has no status.
                let refused =
                    if case.is_http2() { statuses != [200] } else { statuses == [*status] };
                refused && seen.is_empty() && forwarded == 0
            }
            Answered { statuses: expected, seen: requests, .. } => {
                let requests: Vec<_> =
                    requests.iter().cloned().map(|request| self.as_seen(request)).collect();
                statuses == *expected && *seen == *requests && forwarded == requests.len()
            }
            CutOff { .. } => {
                // A broken body is not the app's fault. Over HTTP/2 hyper does not tell the sidecar the
                // cause.
                let blamed = |status| status == 200 || status > 499 && !self.over_http2;
                !statuses.iter().any(|status| blamed(*status)) && seen.is_empty()
            }
            UpToTheApp(request) => {
                // gunicorn takes `get` for GET.
                let method = |one: &Seen| one.method.eq_ignore_ascii_case(&request.method);
                let request = |one: &Seen| Seen { method: one.method.clone(), ..request.clone() };
                // An earlier client that has left may be counted late, so the count is only an upper bound.
                seen.len() <= tried.min(1)
                    && seen.iter().all(|one| method(one) && self.as_seen(request(one)) == *one)
            }
        }
    }

    /// Sends a case over HTTP/1.1 and reads its answers. Also returns whether the connection served another
    /// request afterwards.
    async fn converse(&self, case: &Case) -> Result<(Vec<Answer>, bool), String> {
        let mut wire = self.wire().await;
        self.send(case, &mut wire).await;
        if let CutOff { ended: true } = case.expected {
            wire.end().await;
        }
        let (count, then) = match &case.expected {
            Refused(_) | CutOff { .. } => (usize::MAX, Then::Closed),
            Answered { statuses, then, .. } => (statuses.len(), *then),
            UpToTheApp(_) => (1, Then::Either),
        };
        let mut answers = Vec::new();
        while answers.len() < count
            && let Some(answer) = wire.answer().await?
        {
            answers.push(answer);
        }
        let last = wire.goes_on(then).await;
        last.map_err(|seen| format!("{seen} after {} answers", answers.len()))
            .map(|last| (answers, last))
    }

    /// Sends a case in one piece, or, where no peer is trusted, in many pieces: the bounds of a head must not
    /// depend on the pieces.
    async fn send(&self, case: &Case, wire: &mut Wire) {
        let crumbs = if self.trusted { 0 } else { case.bytes.len().min(400) };
        // A whole preface closes the connection without an answer, and its first line alone is answered with
        // 400. Sent in one piece, so that the sidecar's speed does not decide between the two.
        let preface =
            case.bytes.windows(PREFACE.len()).position(|window| window == PREFACE.as_bytes());
        let crumbs = crumbs.min(preface.unwrap_or(crumbs));
        for byte in &case.bytes[..crumbs] {
            wire.send([*byte]).await;
        }
        wire.send(&case.bytes[crumbs..]).await;
    }

    /// Returns the whole requests that the app has got since the last fence.
    async fn seen_up_to(&mut self, fence: &str, case: &Case) -> Result<Vec<Seen>, String> {
        let was_unfinished = self.unfinished;
        self.unfinished = matches!(case.expected, CutOff { .. } | UpToTheApp(_));
        let mut seen = Vec::new();
        let mut complaint = None;
        loop {
            let line = timeout(PATIENCE, self.lines.recv()).await;
            let line = line.map_err(|_| format!("the app never saw {fence}, but {seen:?}"))?;
            let line = line.ok_or("the app has ended")?;
            let line: Line =
                serde_json::from_str(&line).map_err(|error| format!("{error}: {line}"))?;
            match line.whole() {
                Some(request) if request.target == fence => {
                    let expected = self.as_seen(Seen::new("GET", fence, 0, "fence"));
                    if request != expected {
                        return Err(format!("the next client's request became {request:?}"));
                    }
                    break;
                }
                Some(request) => seen.push(request),
                None if line.target == "/case"
                    || line.target.is_empty()
                    || line.target.starts_with("HPE_") =>
                {
                    if !self.unfinished && !was_unfinished {
                        complaint = Some(format!("the app could not read {line:?}"));
                    }
                }
                None => complaint = Some(format!("the app was sent {line:?}")),
            }
        }
        complaint.map_or(Ok(seen), Err)
    }

    /// Returns the request as the app should see it: an untrusted peer can't name the user.
    fn as_seen(&self, mut request: Seen) -> Seen {
        if !self.trusted {
            request.user = None;
        }
        request
    }

    pub(super) async fn wire(&self) -> Wire {
        let stream = TcpStream::connect(self.sidecar.addresses.traffic).await;
        let stream = stream.expect("it listens");
        stream.set_nodelay(true).expect("it is open");
        Wire::over(stream)
    }

    /// Returns how many requests the sidecar has counted with one of these outcomes.
    async fn count(&self, outcomes: &[&str]) -> usize {
        let url = format!("http://{}/metrics", self.sidecar.addresses.admin);
        let text = self.http.get(url).send().await.expect("an answer").text().await;
        let text = text.expect("text");
        let value = |outcome: &&str| {
            let series = format!("velt_sidecar_requests_total{{outcome=\"{outcome}\"}} ");
            let value = text.lines().find_map(|line| line.strip_prefix(&series));
            value.expect("a count").parse::<usize>().expect("a number")
        };
        outcomes.iter().map(value).sum()
    }
}

impl Drop for Stage {
    /// Asks the app to end, since gunicorn has a worker to end too.
    fn drop(&mut self) {
        let id = self.process.child().id().to_string();
        if Command::new("kill").arg(id).status().is_ok_and(|status| status.success()) {
            self.process.wait();
        }
    }
}

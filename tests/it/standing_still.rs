//! Requests that stand still beside requests that do not notice: each way for a client or an app to
//! stand still, over each protocol of either. `ends` says when a request that stands still is ended.

mod app;
mod client;
mod ends;

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use rustls::ClientConfig;
use tokio::io::AsyncWriteExt as _;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use self::app::{AppSpeaks, Body, LARGE, Moved, drip, nothing, silence, whole};
use self::client::{Client, Duplex, PROMPT, Speaks};
use crate::frames::{END_STREAM, WINDOW_UPDATE, frame, opening_with, request, stream};
use crate::support::certificates::{Authority, Folder, VALID};
use crate::support::record::{Tally, record};
use crate::support::{ONE_WORKER, Stage};

/// Requests that stand still in each case. With hyper's default windows, three or four would hold up
/// all others.
const STALLED: usize = 13;

/// Bytes of an upload that is taken: more than a stream's window.
const UPLOAD: usize = 200_003;

/// A way to stand still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stall {
    /// The client reads nothing of an answer.
    ClientReadsNothing,
    /// The client reads nothing at all of its connection, on which HTTP/2 has many answers.
    ClientReadsNoFrames,
    ClientReadsSlowly,
    /// The client sends nothing of its request's body.
    ClientSendsNothing,
    ClientSendsSlowly,
    /// The app reads nothing of a request's body.
    AppReadsNothing,
    AppAnswersNothing,
    /// The app breaks its answer off.
    AppCloses,
}

/// Cell of the matrix: a way to stand still, and the protocols of the app and the client.
#[derive(Clone, Copy, Debug)]
struct Case {
    stall: Stall,
    app: AppSpeaks,
    client: Speaks,
}

/// A sidecar in front of the app of the matrix, and a client.
struct Set {
    stage: Stage,
    moved: Moved,
    client: Client,
    _folder: Folder,
}

impl Case {
    async fn set(self, toml: &str) -> Set {
        let (authority, folder) = (Authority::new(), Folder::new());
        folder.write_pair(&authority.issue(&["localhost"], VALID));
        let tls = if self.client.is_tls() { folder.toml() } else { String::new() };
        // The test's own lines come before [app], since they may begin other tables.
        let toml = format!("{ONE_WORKER}{tls}{toml}\n[app]\nprotocol = \"{}\"\n", self.app.word());
        let moved = Moved::new();
        let stage = Stage::with(moved.serve(self.app).await, &toml).await;
        let tls = self.client.is_tls().then(|| offering(&authority, self.client));
        let client = Client::new(stage.sidecar.addresses.traffic, self.client, tls);
        Set { stage, moved, client, _folder: folder }
    }
}

/// A client that trusts the authority and speaks one protocol.
fn offering(authority: &Authority, speaks: Speaks) -> Arc<ClientConfig> {
    let name = std::str::from_utf8(speaks.alpn()).expect("ASCII");
    authority.client(None, &[name])
}

fn get(path: &str) -> Request<Body> {
    Request::get(path).body(nothing()).expect("a request")
}

fn post(path: &str, body: Body) -> Request<Body> {
    Request::post(path).body(body).expect("a request")
}

/// Connections and answers that keep requests standing still until this is dropped.
#[derive(Default)]
struct Standing {
    answers: Vec<Response<Incoming>>,
    connections: Vec<Box<dyn Duplex>>,
    tasks: JoinSet<()>,
}

impl Set {
    /// Makes `count` requests stand still, and returns when they do.
    async fn stall(&self, stall: Stall, count: usize) -> Standing {
        let mut standing = Standing::default();
        match stall {
            Stall::ClientReadsNothing => {
                for _ in 0..count {
                    standing.answers.push(self.answered(get("/endless")).await);
                }
                self.moved.stands_still().await;
            }
            Stall::ClientReadsNoFrames => {
                for _ in 0..count {
                    standing.connections.push(self.unread_frames().await);
                }
                self.moved.stands_still().await;
            }
            Stall::ClientReadsSlowly => {
                for _ in 0..count {
                    let mut body = self.answered(get("/endless")).await.into_body();
                    standing.tasks.spawn(async move {
                        while body.frame().await.is_some_and(|frame| frame.is_ok()) {
                            // A client that reads slowly pauses between its reads.
                            sleep(Duration::from_millis(150)).await;
                        }
                    });
                }
            }
            Stall::ClientSendsNothing => {
                standing.send(self, count, || post("/count", silence())).await;
            }
            Stall::ClientSendsSlowly => {
                let slow = || drip(usize::MAX, Duration::from_millis(50));
                standing.send(self, count, || post("/count", slow())).await;
            }
            Stall::AppReadsNothing => {
                standing.send(self, count, || post("/hold", self.moved.endless_upload())).await;
                self.moved.stands_still().await;
            }
            Stall::AppAnswersNothing => standing.send(self, count, || get("/hold")).await,
            Stall::AppCloses => {
                for _ in 0..count {
                    self.is_broken_off().await;
                }
            }
        }
        standing
    }

    /// An answer of 200, up to its head.
    async fn answered(&self, request: Request<Body>) -> Response<Incoming> {
        let answer = self.client.send(request).await.expect("an answer");
        assert_eq!(answer.status(), 200);
        answer
    }

    /// Makes the app break an answer off, and waits until the client hears of it.
    async fn is_broken_off(&self) {
        let mut body = self.answered(get("/broken")).await.into_body();
        let first = timeout(PROMPT, body.frame()).await.expect("in time").expect("a frame");
        assert_eq!(first.expect("whole").into_data().expect("data"), "first");
        self.moved.break_off.notify_one();
        let end = timeout(PROMPT, body.frame()).await.expect("its end in time");
        end.expect("not the end of a whole answer").expect_err("an answer that was broken off");
    }

    /// Connection on which 20 answers of HTTP/2 are on the way, and none of them is read.
    async fn unread_frames(&self) -> Box<dyn Duplex> {
        const WIDE: u32 = 1 << 30;
        let mut connection = self.client.connect().await;
        let requests = (0..20).flat_map(|nth| request(stream(nth), END_STREAM, "GET", "/endless"));
        let settings = opening_with(&[(4, WIDE)]);
        let wide = frame(WINDOW_UPDATE, 0, 0, &WIDE.to_be_bytes());
        let bytes = [settings, wide, requests.collect()].concat();
        connection.write_all(&bytes).await.expect("it reads");
        connection.flush().await.expect("it reads");
        connection
    }

    /// Asks for a large answer, uploads a large body and posts for a token, over the connection of the
    /// requests that stand still, if they share one, and over another connection. Returns the count of these
    /// requests.
    async fn others_are_served(&self) -> Tally {
        let mut tally = Tally::default();
        for client in [&self.client, &self.client.another()] {
            let large = self.all_of(client, get("/large"), &mut tally).await;
            assert_eq!(large.len(), LARGE);
            let upload = post("/count", whole(vec![b'x'; UPLOAD]));
            let uploaded = self.all_of(client, upload, &mut tally).await;
            assert_eq!(uploaded, UPLOAD.to_string().as_bytes());
            let mut request = post("/api/velt/token", whole("{}"));
            let headers = request.headers_mut();
            headers.insert("x-forwarded-user", "ada".parse().expect("a value"));
            headers.insert("content-type", "application/json".parse().expect("a value"));
            let token = self.all_of(client, request, &mut tally).await;
            assert!(token.starts_with(b"{\"token\":"), "{}", String::from_utf8_lossy(&token));
        }
        tally
    }

    async fn all_of(&self, client: &Client, request: Request<Body>, tally: &mut Tally) -> Vec<u8> {
        let (what, begun) = (request.uri().path().to_owned(), Instant::now());
        let answer = client.send(request).await;
        let answer = answer.unwrap_or_else(|error| panic!("{what}: {error:?}"));
        assert_eq!(answer.status(), 200, "{what}");
        let body = timeout(PROMPT, answer.into_body().collect()).await;
        let body = body.unwrap_or_else(|_| panic!("the rest of {what} does not come"));
        let body = body.unwrap_or_else(|error| panic!("{what}: {error:?}"));
        tally.add(begun.elapsed(), true);
        body.to_bytes().to_vec()
    }
}

impl Standing {
    /// Sends requests that are not answered, and returns when the app has them.
    async fn send(&mut self, set: &Set, count: usize, request: impl Fn() -> Request<Body>) {
        for _ in 0..count {
            let client = set.client.sharing().await;
            let sending = request();
            self.tasks.spawn(async move {
                // Other tests check how the request ends.
                let _ = client.begin(sending).await;
            });
        }
        set.stage.app.requests_reach(count).await;
    }
}

/// Runs the cases of a way to stand still, and returns the result of each case's check. Names the cases whose
/// check has failed.
async fn each<F, R>(stall: Stall, clients: &[Speaks], check: F) -> Vec<(Case, R::Output)>
where
    F: Fn(Case) -> R,
    R: Future<Output: Send> + Send + 'static,
{
    let mut running = Vec::new();
    for app in AppSpeaks::ALL {
        for client in clients {
            let case = Case { stall, app, client: *client };
            // Cases run at the same time, since a case waits more than it works.
            running.push((case, tokio::spawn(check(case))));
        }
    }
    let (mut passed, mut failed) = (Vec::new(), Vec::new());
    for (case, task) in running {
        match task.await {
            Ok(result) => passed.push((case, result)),
            Err(error) => failed.push(format!("{case:?}: {}", message(&*error.into_panic()))),
        }
    }
    assert!(failed.is_empty(), "{} cases:\n{}", failed.len(), failed.join("\n"));
    passed
}

/// Message of a panic.
fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}

/// Checks that other clients are served while many requests stand still, with limits that nothing
/// reaches meanwhile.
async fn others_are_served(stall: Stall, clients: &[Speaks]) {
    let served = each(stall, clients, |case| async move {
        let set = case.set("").await;
        let standing = set.stall(case.stall, STALLED).await;
        let tally = set.others_are_served().await;
        drop(standing);
        tally
    });
    for (case, tally) in served.await {
        let mut figures = tally.figures();
        figures["standing_still"] = STALLED.into();
        figures["app"] = format!("{:?}", case.app).into();
        figures["client"] = format!("{:?}", case.client).into();
        record("standing_still", &format!("{stall:?}"), &figures);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unread_downloads_leave_others_served() {
    others_are_served(Stall::ClientReadsNothing, &Speaks::ALL).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unread_connections_leave_others_served() {
    others_are_served(Stall::ClientReadsNoFrames, &[Speaks::Http2, Speaks::TlsHttp2]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_downloads_leave_others_served() {
    others_are_served(Stall::ClientReadsSlowly, &Speaks::ALL).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_uploads_leave_others_served() {
    others_are_served(Stall::ClientSendsNothing, &Speaks::ALL).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_uploads_leave_others_served() {
    others_are_served(Stall::ClientSendsSlowly, &Speaks::ALL).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_unread_by_app_leave_others_served() {
    others_are_served(Stall::AppReadsNothing, &Speaks::ALL).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_app_leaves_others_served() {
    others_are_served(Stall::AppAnswersNothing, &Speaks::ALL).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_broken_off_leave_others_served() {
    others_are_served(Stall::AppCloses, &Speaks::ALL).await;
}

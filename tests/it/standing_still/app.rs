//! The app of the matrix: a path for each way to stand still, and three paths for requests that move.

use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, Stream, StreamExt as _};
use http::{Request, Response};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::Incoming;
use tokio::sync::{Notify, watch};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use crate::support::PATIENCE;
use crate::support::app::{AppBody, FakeApp, full};

/// A body that a client sends.
pub type Body = UnsyncBoxBody<Bytes, Infallible>;

/// Protocol that the app speaks with the sidecar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppSpeaks {
    Http1,
    H2c,
}

impl AppSpeaks {
    pub const ALL: [Self; 2] = [Self::Http1, Self::H2c];

    /// Value of `app.protocol`.
    pub fn word(self) -> &'static str {
        if self == Self::H2c { "h2c" } else { "http1" }
    }
}

/// Bytes of a whole answer: more than the window of a stream, and a multiple of no buffer's size.
pub const LARGE: usize = 300_007;

/// A piece of a body without an end.
const PIECE: &[u8] = &[b'x'; 16_001];

/// State that bodies without an end share: how many of their bytes have been taken, and how many bodies
/// have been dropped.
#[derive(Clone)]
pub struct Moved {
    bytes: Arc<AtomicU64>,
    given_up: watch::Sender<usize>,
    /// Makes the app break off an answer that it has begun.
    pub break_off: Arc<Notify>,
}

impl Moved {
    pub fn new() -> Self {
        Self { bytes: Arc::default(), given_up: watch::Sender::new(0), break_off: Arc::default() }
    }

    /// Waits until no more bytes are taken, so that each body stands still.
    pub async fn stands_still(&self) {
        let (mut ticks, mut last, mut same) = (interval(Duration::from_millis(30)), u64::MAX, 0);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let still = async {
            while same < 8 {
                ticks.tick().await;
                let now = self.bytes.load(Ordering::Relaxed);
                same = if now == last { same + 1 } else { 0 };
                last = now;
            }
        };
        timeout(PATIENCE, still).await.expect("bodies that are not read stand still");
    }

    /// Waits until the sidecar has dropped `count` of the app's bodies without an end.
    pub async fn given_up(&self, count: usize) {
        let mut given_up = self.given_up.subscribe();
        let left = timeout(PATIENCE, given_up.wait_for(|left| *left >= count)).await;
        left.expect("the app is rid of a body that stands still").expect("a sender");
    }

    /// A body without an end that the app sends.
    fn endless(&self) -> impl Stream<Item = io::Result<Frame<Bytes>>> + use<> {
        let (bytes, guard) = (Arc::clone(&self.bytes), GivenUp(self.given_up.clone()));
        stream::repeat_with(move || {
            let _ = &guard;
            bytes.fetch_add(PIECE.len() as u64, Ordering::Relaxed);
            Ok(Frame::data(Bytes::from_static(PIECE)))
        })
    }

    /// A body without an end that a client sends.
    pub fn endless_upload(&self) -> Body {
        let sent = Arc::clone(&self.bytes);
        let pieces = stream::repeat_with(move || {
            sent.fetch_add(PIECE.len() as u64, Ordering::Relaxed);
            Ok(Frame::data(Bytes::from_static(PIECE)))
        });
        StreamBody::new(pieces).boxed_unsync()
    }

    /// Starts the app.
    pub async fn serve(&self, speaks: AppSpeaks) -> FakeApp {
        let moved = self.clone();
        let answer = move |request: Request<Incoming>| {
            let moved = moved.clone();
            async move { moved.answer(request).await }
        };
        match speaks {
            AppSpeaks::Http1 => FakeApp::serving(answer).await,
            AppSpeaks::H2c => FakeApp::serving_h2c(answer).await,
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<AppBody> {
        let body = match request.uri().path() {
            "/endless" => BodyExt::boxed(StreamBody::new(self.endless())),
            // Holds the request, and reads nothing of its body.
            "/hold" => {
                let _body = request.into_body();
                pending().await
            }
            "/broken" => {
                let first = Ok(Frame::data(Bytes::from_static(b"first")));
                let break_off = Arc::clone(&self.break_off);
                let broken = stream::once(async move {
                    // The client has received the bytes before the break.
                    break_off.notified().await;
                    Err(io::Error::other("the app breaks off"))
                });
                BodyExt::boxed(StreamBody::new(stream::iter([first]).chain(broken)))
            }
            "/large" => full(vec![b'x'; LARGE]),
            // A client whose request breaks off gets no answer.
            _ => {
                let body = request.into_body().collect().await;
                full(body.map_or(0, |body| body.to_bytes().len()).to_string())
            }
        };
        Response::new(body)
    }
}

/// Counts a body that is dropped.
struct GivenUp(watch::Sender<usize>);

impl Drop for GivenUp {
    fn drop(&mut self) {
        self.0.send_modify(|left| *left += 1);
    }
}

pub fn nothing() -> Body {
    Empty::new().boxed_unsync()
}

pub fn whole(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).boxed_unsync()
}

/// Body that never sends anything.
pub fn silence() -> Body {
    StreamBody::new(stream::pending::<Result<Frame<Bytes>, Infallible>>()).boxed_unsync()
}

/// Body of `pieces` pieces of 7 bytes with a pause before each.
pub fn drip(pieces: usize, pause: Duration) -> Body {
    let pieces = stream::iter(0..pieces).then(move |_| async move {
        // The sender is slow: the time limits of the tests run during its pauses.
        sleep(pause).await;
        Ok(Frame::data(Bytes::from_static(b"piece, ")))
    });
    StreamBody::new(pieces).boxed_unsync()
}

//! Progress of a request on its way to the app, and the time limit for the app's answer.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use http::header::EXPECT;
use hyper::StatusCode;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, Sleep, sleep};

use super::UpstreamError;
use super::request_body::{GateKeeper, RequestBody};
use super::stream_clock::StreamClock;

/// Time that a client that expects `100 Continue` is kept waiting for an app that does not send it (RFC 9110
/// section 10.1.1 forbids waiting for ever).
const CONTINUE_PATIENCE: Duration = Duration::from_secs(1);

/// Time that a client over HTTP/2 may wait before it sends a body for which the app has asked. hyper's server
/// can't send `100 Continue` over HTTP/2. Most clients send the body after a second all the same.
const UNTOLD_PATIENCE: Duration = Duration::from_secs(3);

/// Progress of a request on its way to the app.
pub(super) struct Progress {
    /// Start of the app's own time.
    pub(super) begun: Instant,
    pub(super) gate: Option<Gate>,
    /// Resolves when the body, if there is one, has been sent to its end.
    pub(super) sent: Option<oneshot::Receiver<()>>,
    pub(super) clock: StreamClock,
}

impl Progress {
    /// Starts the app's response time anew: opening the connection may have taken longer than the whole
    /// response time.
    pub(super) fn connected(&mut self) {
        self.begun = Instant::now();
        self.clock.moved();
    }

    /// Waits for a response's head, and no longer than `patience` of the app's own time, which starts when
    /// the request has been sent to its end. Sets `timer` anew. Meanwhile, serves the gate before the
    /// request's body.
    pub(super) async fn bound<T>(
        &mut self,
        mut sending: Pin<&mut impl Future<Output = T>>,
        mut timer: Pin<&mut Sleep>,
        patience: Duration,
    ) -> Result<T, UpstreamError> {
        if let Some(Gate { asked, keeper, begun }) = &mut self.gate {
            tokio::select! {
                biased;
                // The app has answered without asking for the body: the gate stays closed.
                response = &mut sending => return Ok(response),
                () = asked.notified() => {}
                () = sleep(CONTINUE_PATIENCE) => {}
            }
            keeper.open();
            if let Some(begun) = begun {
                tokio::select! {
                    biased;
                    response = &mut sending => return Ok(response),
                    // An error says that the body has begun, or was dropped.
                    _ = begun => {}
                    () = sleep(UNTOLD_PATIENCE) => return Err(UpstreamError::Expectation),
                }
            }
        }
        let running_out = async {
            if let Some(sent) = &mut self.sent {
                tokio::select! {
                    // An error only says that the sender is gone, which marks the end of the body.
                    _ = sent => {}
                    () = self.clock.ran_out() => return UpstreamError::Idle,
                }
                self.begun = Instant::now();
            }
            timer.as_mut().reset(self.begun + patience);
            timer.await;
            UpstreamError::Timeout
        };
        tokio::select! {
            biased;
            response = &mut sending => Ok(response),
            error = running_out => Err(error),
        }
    }
}

/// Holds a request's body back until the app has asked for it.
pub(super) struct Gate {
    asked: Arc<Notify>,
    pub(super) keeper: GateKeeper,
    /// Resolves when the body begins to come, if the client can't be told to send it.
    begun: Option<oneshot::Receiver<()>>,
}

impl Gate {
    /// Returns the notification that the app asks for the body.
    pub(super) fn asked(&self) -> Arc<Notify> {
        Arc::clone(&self.asked)
    }

    /// Makes a gate, if the request has a body and the client waits for `100 Continue` before it sends the
    /// body.
    pub(super) fn before(request: &mut Request<RequestBody>, from_http2: bool) -> Option<Self> {
        let expect = request.headers().get(EXPECT)?;
        if !expect.as_bytes().eq_ignore_ascii_case(b"100-continue") {
            return None;
        }
        let keeper = request.body_mut().hold_back()?;
        let begun = if from_http2 { request.body_mut().announce() } else { None };
        let asked = Arc::new(Notify::new());
        let asking = Arc::clone(&asked);
        hyper::ext::on_informational(request, move |informational| {
            if informational.status() == StatusCode::CONTINUE {
                asking.notify_one();
            }
        });
        Some(Self { asked, keeper, begun })
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::pin::pin;

    use super::*;

    const PATIENCE: Duration = Duration::from_millis(300);

    fn progress(sent: Option<oneshot::Receiver<()>>) -> Progress {
        let clock = StreamClock::start(None);
        Progress { begun: Instant::now(), gate: None, sent, clock }
    }

    #[tokio::test(start_paused = true)]
    async fn reused_timer_gives_each_request_its_whole_time() {
        let mut timer = pin!(sleep(Duration::ZERO));
        // The timer still runs, has just run out, or ran out long ago.
        for idle in [Duration::ZERO, PATIENCE / 2, PATIENCE, PATIENCE * 100] {
            let answer = pin!(sleep(PATIENCE / 10 * 9));
            let answered = progress(None).bound(answer, timer.as_mut(), PATIENCE).await;
            assert!(answered.is_ok(), "after {idle:?}");
            sleep(idle).await;

            let begun = Instant::now();
            let never = pin!(pending::<()>());
            let bound = progress(None).bound(never, timer.as_mut(), PATIENCE).await;
            assert!(matches!(bound, Err(UpstreamError::Timeout)), "after {idle:?}");
            assert_eq!(begun.elapsed(), PATIENCE, "after {idle:?}");
            sleep(idle).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_apps_time_counts_from_the_end_of_the_request() {
        let mut timer = pin!(sleep(Duration::ZERO));
        let (done, sent) = oneshot::channel();
        let begun = Instant::now();
        tokio::spawn(async move {
            sleep(PATIENCE * 10).await;
            done.send(()).expect("a receiver waits");
        });
        let never = pin!(pending::<()>());
        let bound = progress(Some(sent)).bound(never, timer.as_mut(), PATIENCE).await;
        assert!(matches!(bound, Err(UpstreamError::Timeout)));
        assert_eq!(begun.elapsed(), PATIENCE * 11);
    }
}

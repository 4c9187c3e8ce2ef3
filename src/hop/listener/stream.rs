//! A request of an HTTP/2 connection and the task that runs it, which ends when its client stops
//! reading the answer. The connection and its other requests go on.
//!
//! The socket does not show this, since the client goes on reading the answers to its other requests
//! there. An answer stands still when its body has handed out a piece and hyper does not ask for the
//! next.

use std::cell::Cell;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::rt::Executor;
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep};
use tracing::debug;

/// Bytes that a slow reader reads within `listen.write_timeout`. Most clients open a window again when
/// they have read half of it, so through a large window a slow reader seems to stand still for long.
const SLOWEST: usize = 512 * 1024;

/// Largest window that counts. curl opens 10 MiB.
const LARGEST_WINDOW: usize = 16 * 1024 * 1024;

/// Report of an answer's body while its request's task ran.
#[derive(Clone, Copy)]
enum Said {
    Nothing,
    /// The body has no more for now.
    NoMore,
    /// The body has handed out so many bytes.
    Bytes(usize),
}

thread_local! {
    /// Report of the body since the task was last polled. A thread-local, since a thread polls the body
    /// within its task.
    static SAID: Cell<Said> = const { Cell::new(Said::Nothing) };
}

/// Notes that the body of an answer has handed out bytes, or has no more for now.
pub fn hands_out(bytes: Option<usize>) {
    SAID.set(match (SAID.get(), bytes) {
        (_, None) => Said::NoMore,
        (Said::Bytes(before), Some(bytes)) => Said::Bytes(before + bytes),
        (_, Some(bytes)) => Said::Bytes(bytes),
    });
}

/// Runs the requests of HTTP/2 connections.
#[derive(Clone, Copy)]
pub struct Requests {
    /// Longest time that an answer may stand still.
    pub stalled: Duration,
}

impl<F> Executor<F> for Requests
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, request: F) {
        tokio::spawn(Stream { request, answer: Answer::new(self.stalled) });
    }
}

pin_project! {
    struct Stream<F> {
        #[pin]
        request: F,
        answer: Answer,
    }
}

impl<F: Future> Future for Stream<F> {
    /// Output of the request; `None` if the client has stopped reading the answer.
    type Output = Option<F::Output>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        SAID.set(Said::Nothing);
        if let Poll::Ready(output) = this.request.poll(context) {
            return Poll::Ready(Some(output));
        }
        this.answer.hear(SAID.get());
        ready!(this.answer.poll_stalled(context));
        debug!("an answer over HTTP/2 is ended: its client does not read it");
        Poll::Ready(None)
    }
}

/// Progress of an answer.
struct Answer {
    stalled: Duration,
    /// Bytes handed out.
    sent: usize,
    /// Whether the client gives no room for bytes that the body has handed out.
    stands: bool,
    /// Whether the answer has moved since the timer was last set.
    moved: bool,
    /// Number of times in a row that the timer has found the answer where it was.
    found: u32,
    /// Timer that is set when the answer first stands still, and again whenever it runs out. Setting it
    /// at each standstill would be often for a large answer.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Answer {
    fn new(stalled: Duration) -> Self {
        Self { stalled, sent: 0, stands: false, moved: false, found: 0, timer: None }
    }

    fn hear(&mut self, said: Said) {
        match said {
            Said::Nothing => return,
            Said::NoMore => self.stands = false,
            Said::Bytes(bytes) => {
                self.stands = true;
                self.sent = self.sent.saturating_add(bytes);
            }
        }
        self.moved = true;
    }

    /// Resolves when the answer has stood still for too long.
    fn poll_stalled(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if !self.stands {
            return Poll::Pending;
        }
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(self.stalled)));
        loop {
            ready!(timer.as_mut().poll(context));
            self.found = if std::mem::take(&mut self.moved) { 0 } else { self.found + 1 };
            if self.found > 0
                && self.stalled * self.found
                    >= patience(self.stalled, self.sent.min(LARGEST_WINDOW))
            {
                return Poll::Ready(());
            }
            timer.as_mut().reset(Instant::now() + self.stalled);
        }
    }
}

/// Returns how long a client may stand still that has taken `taken` bytes at once and may be reading them
/// slowly.
pub fn patience(stalled: Duration, taken: usize) -> Duration {
    stalled * u32::try_from(taken / SLOWEST).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    const STALLED: Duration = Duration::from_secs(60);

    /// Hands out `bytes` as often as `times` says, each time with a pause after it, then once more, and
    /// stands still.
    async fn answer(bytes: usize, times: usize, pause: Duration) {
        for _ in 0..times {
            hands_out(Some(bytes));
            sleep(pause).await;
        }
        hands_out(Some(bytes));
        std::future::pending::<()>().await;
    }

    async fn ended_after(request: impl Future<Output = ()> + Send + 'static) -> Duration {
        let began = Instant::now();
        let stream = Stream { request, answer: Answer::new(STALLED) };
        assert!(tokio::spawn(stream).await.expect("no panic").is_none());
        began.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn answer_that_stands_still_is_ended() {
        let after = ended_after(answer(1000, 0, Duration::ZERO)).await;
        assert!(after >= STALLED && after <= 3 * STALLED, "{after:?}");
        let after = ended_after(answer(2 * 1024 * 1024, 0, Duration::ZERO)).await;
        assert!(after >= Duration::from_secs(240) && after < Duration::from_secs(400), "{after:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn answer_that_moves_is_not_ended() {
        let pause = Duration::from_secs(59);
        let after = ended_after(answer(1000, 40, pause)).await;
        assert!(after >= 40 * pause, "{after:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn answer_that_waits_for_the_app_is_not_ended() {
        let request = poll_fn(|_| {
            hands_out(Some(1000));
            hands_out(None);
            Poll::<()>::Pending
        });
        let mut stream = Box::pin(Stream { request, answer: Answer::new(STALLED) });
        let waiting = tokio::time::timeout(Duration::from_secs(10_000), &mut stream).await;
        assert!(waiting.is_err(), "the answer is not ended");
    }
}

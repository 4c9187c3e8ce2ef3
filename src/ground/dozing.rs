//! A future that is polled only when its own waker was woken, not each time that its task was woken.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

/// One of several futures that share a task. A connection's task is woken several times for each request;
/// without this type, each of these times would poll its timers and signals too.
pub struct Dozing<F> {
    future: F,
    own: Arc<OwnWaker>,
    /// Made from `own`, for `future` alone.
    waker: Waker,
    /// Waker of the task, kept here too, so that `own` is locked only when the task has another waker.
    task: Waker,
}

/// Notes that `future` was woken, and wakes the task.
struct OwnWaker {
    woken: AtomicBool,
    task: Mutex<Waker>,
}

impl OwnWaker {
    fn set_task(&self, task: &Waker) {
        self.task.lock().unwrap_or_else(PoisonError::into_inner).clone_from(task);
    }
}

impl Wake for OwnWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.store(true, Ordering::Release);
        self.task.lock().unwrap_or_else(PoisonError::into_inner).wake_by_ref();
    }
}

impl<F: Future + Unpin> Dozing<F> {
    /// Wraps `future`. The first poll reaches `future`.
    pub fn new(future: F) -> Self {
        let task = Waker::noop().clone();
        let own =
            Arc::new(OwnWaker { woken: AtomicBool::new(true), task: Mutex::new(task.clone()) });
        Self { future, waker: Waker::from(Arc::clone(&own)), own, task }
    }
}

impl<F: Future + Unpin> Future for Dozing<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let Self { future, own, waker, task } = &mut *self;
        // Set before `woken` is read: a later wake-up wakes this task.
        if !task.will_wake(context.waker()) {
            task.clone_from(context.waker());
            own.set_task(task);
        }
        // Most often `future` was not woken, and a load costs less than a swap.
        if !own.woken.load(Ordering::Relaxed) || !own.woken.swap(false, Ordering::Acquire) {
            return Poll::Pending;
        }
        Pin::new(future).poll(&mut Context::from_waker(waker))
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::pin;

    use tokio::sync::oneshot;
    use tokio::task::yield_now;

    use super::*;

    #[tokio::test]
    async fn dozing_future_is_polled_once_and_then_when_woken() {
        let (sender, mut receiver) = oneshot::channel();
        let mut polls = 0;
        let mut counted = pin!(poll_fn(|context| {
            polls += 1;
            Pin::new(&mut receiver).poll(context)
        }));
        let mut dozing = Dozing::new(&mut counted);
        for _ in 0..10 {
            let pending = poll_fn(|context| Poll::Ready(Pin::new(&mut dozing).poll(context)));
            assert!(pending.await.is_pending());
            yield_now().await;
        }
        tokio::spawn(async move {
            yield_now().await;
            sender.send(7).expect("a receiver waits");
        });
        assert_eq!(dozing.await, Ok(7));
        assert_eq!(polls, 2);
    }
}

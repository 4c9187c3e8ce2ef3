//! A pause in which clients are not read, because memory is taken faster than connections can be ended.

use std::io;
use std::mem;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use tokio::io::{AsyncRead, ReadBuf};

use super::Memory;
use crate::tcp::{Filter, Filtered};

/// Most tasks that wait for the end of a pause. Further tasks read on: the list is memory too.
const MOST_WAITING: usize = 64 * 1024;

/// Whether clients are read at present, and the tasks that wait until they are.
#[derive(Default)]
pub(super) struct Pause {
    on: AtomicBool,
    waiting: Mutex<Vec<Waker>>,
}

impl Pause {
    /// Begins or ends the pause. Its end wakes the tasks that wait.
    pub(super) fn set(&self, on: bool) {
        if self.on.swap(on, Ordering::AcqRel) && !on {
            mem::take(&mut *self.waiting()).into_iter().for_each(Waker::wake);
        }
    }

    pub(super) fn is_on(&self) -> bool {
        self.on.load(Ordering::Acquire)
    }

    /// Waits until there is no pause.
    pub(super) fn poll_over(&self, context: &mut Context<'_>) -> Poll<()> {
        if !self.is_on() {
            return Poll::Ready(());
        }
        let mut waiting = self.waiting();
        // Look again: the pause may have ended, and its tasks have been woken, before the lock was had.
        if !self.is_on() || waiting.len() >= MOST_WAITING {
            return Poll::Ready(());
        }
        if !waiting.last().is_some_and(|last| last.will_wake(context.waker())) {
            waiting.push(context.waker().clone());
        }
        Poll::Pending
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<Waker>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Does not read a client's stream of HTTP/2 during a pause.
pub struct Paused(Memory);

impl Paused {
    /// Pauses reads of `stream` while `memory` is nearly used up.
    pub fn over<S>(stream: S, memory: Memory) -> Filtered<Self, S> {
        Filtered { filter: Self(memory), stream }
    }
}

impl Filter for Paused {
    fn poll_read<S: AsyncRead + Unpin>(
        &mut self,
        stream: &mut S,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.0.poll_may_read(context));
        Pin::new(stream).poll_read(context, buffer)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::task::Wake;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
    use tokio::task::yield_now;

    use super::*;

    /// Task that does nothing when it is woken.
    struct Task;

    impl Wake for Task {
        fn wake(self: Arc<Self>) {}
    }

    #[tokio::test]
    async fn client_is_read_when_the_pause_is_over() {
        let memory = Memory::default();
        let (ours, mut theirs) = duplex(16);
        let mut stream = Paused::over(ours, memory.clone());
        theirs.write_all(b"ab").await.expect("room");
        assert_eq!(stream.read_u8().await.expect("a byte"), b'a');
        memory.0.pause.set(true);
        let reading = tokio::spawn(async move { stream.read_u8().await });
        for _ in 0..10 {
            yield_now().await;
        }
        assert!(!reading.is_finished());
        memory.0.pause.set(false);
        assert_eq!(reading.await.expect("no panic").expect("a byte"), b'b', "it is woken");
    }

    #[test]
    fn list_of_waiting_tasks_is_bounded() {
        let pause = Pause::default();
        pause.set(true);
        let wakers = [Waker::noop().clone(), Waker::from(Arc::new(Task))];
        let mut waits = 0;
        for nth in 0..2 * MOST_WAITING {
            let mut context = Context::from_waker(&wakers[nth % 2]);
            waits += usize::from(pause.poll_over(&mut context).is_pending());
        }
        assert!(waits >= MOST_WAITING, "{waits}");
        assert!(pause.waiting().len() <= MOST_WAITING);
    }
}

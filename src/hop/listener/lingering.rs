//! The end of a connection whose client may still be sending.
//!
//! The kernel answers with a reset when a socket is closed with unread bytes, or when more bytes reach
//! a closed socket. On a reset the client's kernel throws away the answer that the client has not read
//! yet. Python's `http.client` and Node's `fetch` send their whole body first, and would see a broken
//! pipe. So the sidecar shuts down its sending half, and reads what comes until the client has read its
//! answer and closes, as nginx and Apache do.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::{Instant, timeout_at};

/// Bytes read at a time and thrown away.
const BUFFER: usize = 16 * 1024;

thread_local! {
    /// Buffer that all connections of a thread share, so that a lingering connection holds no memory.
    static DISCARDED: RefCell<Box<[u8]>> = RefCell::new(vec![0; BUFFER].into());
}

/// Bytes that a client may send after its answer.
const MOST_BYTES: usize = 256 * 1024 * 1024;

/// Limits for a client that goes on sending after its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Time without a byte.
    pub quiet: Duration,
    /// Time in all.
    pub most: Duration,
}

impl Patience {
    /// Limits that Apache and nginx have by default.
    pub const USUAL: Self = Self { quiet: Duration::from_secs(2), most: Duration::from_secs(30) };

    /// Limits for a listener that has few connections left or is about to stop: a round trip over a
    /// slow line.
    pub const SHORT: Self =
        Self { quiet: Duration::from_millis(300), most: Duration::from_secs(1) };
}

/// Reads and discards until the client has closed, has been quiet for too long or has sent too much.
/// `patience` is asked again before each wait. A client that owes nothing is not waited for: only what has
/// arrived already is read.
pub async fn linger<S: AsyncRead + Unpin>(
    mut stream: S,
    owes: bool,
    patience: impl Fn() -> Patience,
) {
    let began = Instant::now();
    let (mut left, mut waits) = (MOST_BYTES, owes);
    while left > 0 {
        let Patience { quiet, most } = patience();
        let now = Instant::now();
        let until = if waits { (now + quiet).min(began + most) } else { now };
        let read = poll_fn(|context| discard(Pin::new(&mut stream), context));
        match timeout_at(until, read).await {
            Ok(Ok(bytes)) if bytes > 0 => left = left.saturating_sub(bytes),
            // The client has closed, or has been waited for long enough.
            _ => break,
        }
        // A client that has sent something may send more.
        waits = true;
    }
}

/// Reads once and throws the bytes away.
fn discard<S: AsyncRead>(
    stream: Pin<&mut S>,
    context: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    DISCARDED.with_borrow_mut(|buffer| {
        let mut buffer = ReadBuf::new(buffer);
        ready!(stream.poll_read(context, &mut buffer))?;
        Poll::Ready(Ok(buffer.filled().len()))
    })
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncWriteExt as _, duplex, repeat};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn quiet_client_is_awaited_only_if_it_owes_request_bytes() {
        for (owes, waited) in [(true, Patience::USUAL.quiet), (false, Duration::ZERO)] {
            let (_client, stream) = duplex(100);
            let began = Instant::now();
            linger(stream, owes, || Patience::USUAL).await;
            // tokio's timers are precise to a millisecond.
            assert!(began.elapsed() <= waited + Duration::from_millis(1), "owes: {owes}");
            assert!(began.elapsed() >= waited, "owes: {owes}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn client_that_has_sent_more_is_waited_for() {
        let (mut client, stream) = duplex(100);
        client.write_all(b"more").await.expect("there is room");
        let began = Instant::now();
        linger(stream, false, || Patience::USUAL).await;
        assert!(began.elapsed() >= Patience::USUAL.quiet);
    }

    #[tokio::test(start_paused = true)]
    async fn client_that_sends_slowly_is_closed_in_the_end() {
        let (mut client, stream) = duplex(100);
        let dripping = tokio::spawn(async move {
            while client.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(700)).await;
            }
        });
        let began = Instant::now();
        linger(stream, true, || Patience::USUAL).await;
        assert!(began.elapsed() <= Patience::USUAL.most + Duration::from_millis(1));
        dripping.await.expect("the client sees the end");
    }

    #[tokio::test]
    async fn client_that_floods_is_closed_after_limited_bytes() {
        let read = timeout_at(
            Instant::now() + Duration::from_secs(20),
            linger(repeat(b'x'), true, || Patience::USUAL),
        );
        read.await.expect("lingering ends");
    }
}

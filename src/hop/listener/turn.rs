//! Limit on the bytes of an HTTP/2 connection that are read before they are dealt with.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::coop::poll_proceed;

/// Bytes that a connection reads in one turn of its task. h2 reads as much as there is before it hands over
/// the first request, and a head of a kilobyte can unpack to 250.
const BYTES: usize = 32 * 1024;

/// tokio's budget for a turn, in reads and the like.
const BUDGET: usize = 128;

/// A stream whose task has had its turn when it has read [`BYTES`]. The bytes use up tokio's budget, as reads
/// themselves do, and tokio's socket has nothing more until the next turn. A record that TLS has decrypted by
/// then is still read.
pub struct InTurns<T>(pub T);

impl<T: AsyncRead + Unpin> AsyncRead for InTurns<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = ready!(Pin::new(&mut self.0).poll_read(context, buffer));
        for _ in 0..(buffer.filled().len() - before) / (BYTES / BUDGET) {
            match poll_proceed(context) {
                Poll::Ready(turn) => turn.made_progress(),
                // The task has been told that there is more to do.
                Poll::Pending => break,
            }
        }
        Poll::Ready(read)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for InTurns<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::repeat;
    use tokio::task::yield_now;

    use super::*;

    /// Returns the number of bytes that can be read at once in pieces of `piece` bytes, from a stream without
    /// end.
    async fn read_in_one_turn(piece: usize) -> usize {
        yield_now().await;
        let (mut stream, mut space, mut bytes) = (InTurns(repeat(b'x')), vec![0; piece], 0);
        poll_fn(|context| {
            loop {
                let mut buffer = ReadBuf::new(&mut space);
                match Pin::new(&mut stream).poll_read(context, &mut buffer) {
                    Poll::Ready(read) => read.expect("it can be read"),
                    Poll::Pending => return Poll::Ready(bytes),
                }
                bytes += buffer.filled().len();
            }
        })
        .await
    }

    #[tokio::test]
    async fn turn_ends_by_bytes_read_and_by_number_of_reads() {
        for (piece, bytes) in
            [(1, 128), (16 * 1024, BYTES), (BYTES, BYTES), (1024 * 1024, 1024 * 1024)]
        {
            let read = tokio::spawn(read_in_one_turn(piece)).await.expect("no panic");
            assert_eq!(read, bytes, "in pieces of {piece}");
        }
    }
}

//! Limit on the bytes of an HTTP/2 connection that are read before they are dealt with.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use ground::tcp::{Filter, Filtered};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::task::coop::poll_proceed;

/// Bytes that a connection reads in one turn of its task. h2 reads as much as there is before it hands over
/// the first request, and a head of a kilobyte can unpack to 250.
const BYTES: usize = 32 * 1024;

/// tokio's budget for a turn, in reads and the like.
const BUDGET: usize = 128;

/// Ends the turn of a stream's task when it has read [`BYTES`]. The bytes use up tokio's budget, as reads
/// themselves do, and tokio's socket has nothing more until the next turn. A record that TLS has decrypted by
/// then is still read.
pub struct Turns;

impl Turns {
    /// Limits the turns of the task of `stream`.
    pub fn of<S>(stream: S) -> Filtered<Self, S> {
        Filtered { filter: Self, stream }
    }
}

impl Filter for Turns {
    fn poll_read<S: AsyncRead + Unpin>(
        &mut self,
        stream: &mut S,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = ready!(Pin::new(stream).poll_read(context, buffer));
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
        let (mut stream, mut space, mut bytes) = (Turns::of(repeat(b'x')), vec![0; piece], 0);
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

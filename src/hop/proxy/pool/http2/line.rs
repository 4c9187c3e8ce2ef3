//! The socket below an HTTP/2 connection to the app, and the record of its traffic.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use ground::tcp::{Filter, Filtered};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes that a connection reads before its streams are served. h2 keeps a record of a few hundred bytes for
/// each frame, and a frame can be ten bytes long: this limit bounds the records, because the records of one
/// turn are taken before the next.
const TURN: usize = 32 * 1024;

/// Traffic of a [`Line`].
#[derive(Default)]
pub(super) struct Traffic {
    heard: AtomicBool,
    read_in_turn: AtomicUsize,
    written: AtomicU64,
}

impl Traffic {
    /// Whether the app has sent anything since the last call.
    pub(super) fn was_heard(&self) -> bool {
        self.heard.swap(false, Ordering::Relaxed)
    }

    /// Bytes that the kernel has taken so far.
    pub(super) fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Begins another turn of the connection's task.
    pub(super) fn begin_turn(&self) {
        self.read_in_turn.store(0, Ordering::Relaxed);
    }
}

/// Reads a socket in turns, and does not fail while it is written to.
///
/// An app that closes a connection says in its last frame, GOAWAY, which requests it has not processed.
/// The kernel keeps the frame for the reader, but refuses further writes. So a failed write does not
/// end the connection: the bytes are dropped, and the end comes when all has been read.
pub(super) struct Line {
    traffic: Arc<Traffic>,
    deaf: bool,
}

impl Line {
    /// Wraps the socket `stream`.
    pub(super) fn over<S>(stream: S, traffic: Arc<Traffic>) -> Filtered<Self, S> {
        Filtered { filter: Self { traffic, deaf: false }, stream }
    }

    /// Notes the result of a write, and turns a failure into success.
    fn wrote(
        &mut self,
        offered: usize,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match ready!(written) {
            Ok(0) | Err(_) => {
                self.deaf = true;
                Poll::Ready(Ok(offered))
            }
            Ok(written) => {
                self.traffic.written.fetch_add(written as u64, Ordering::Relaxed);
                Poll::Ready(Ok(written))
            }
        }
    }
}

impl Filter for Line {
    fn poll_read<S: AsyncRead + Unpin>(
        &mut self,
        stream: &mut S,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.traffic.read_in_turn.load(Ordering::Relaxed) >= TURN {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        let read = ready!(Pin::new(stream).poll_read(context, buffer));
        let bytes = buffer.filled().len() - before;
        if bytes > 0 {
            self.traffic.heard.store(true, Ordering::Relaxed);
            self.traffic.read_in_turn.fetch_add(bytes, Ordering::Relaxed);
        }
        Poll::Ready(read)
    }

    fn poll_write<S: AsyncWrite + Unpin>(
        &mut self,
        stream: &mut S,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.deaf || bytes.is_empty() {
            return Poll::Ready(Ok(bytes.len()));
        }
        let written = Pin::new(stream).poll_write(context, bytes);
        self.wrote(bytes.len(), written)
    }

    fn poll_write_vectored<S: AsyncWrite + Unpin>(
        &mut self,
        stream: &mut S,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let offered = slices.iter().map(|slice| slice.len()).sum();
        if self.deaf || offered == 0 {
            return Poll::Ready(Ok(offered));
        }
        let written = Pin::new(stream).poll_write_vectored(context, slices);
        self.wrote(offered, written)
    }

    fn poll_flush<S: AsyncWrite + Unpin>(
        &mut self,
        stream: &mut S,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.deaf && ready!(Pin::new(stream).poll_flush(context)).is_err() {
            self.deaf = true;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown<S: AsyncWrite + Unpin>(
        &mut self,
        stream: &mut S,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        if self.deaf {
            return Poll::Ready(Ok(()));
        }
        Pin::new(stream).poll_shutdown(context)
    }
}

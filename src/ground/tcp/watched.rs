//! A stream that tells a watcher what passes through it.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::filter::{Filter, Filtered};
use super::gathering::write_gathered;

/// Watches the bytes that pass through a stream.
pub trait Watcher: Send + Sync {
    /// Notes `bytes` that have arrived. The caller reads what the watcher leaves in them.
    fn received(&self, _bytes: &mut [u8]) {}

    /// Notes a write. `offered` is what the caller passed; `written` is how many of these bytes the socket
    /// took, `Pending` if its buffer was full, or the error if it took none. The caller receives the value
    /// that the watcher leaves in `written`.
    fn wrote(&self, offered: &[IoSlice<'_>], written: &mut Poll<io::Result<usize>>);
}

/// A stream that reports the bytes that pass through it to a watcher, and gathers small writes.
pub type Watched<S> = Filtered<Watch, S>;

/// Reports the bytes that pass through a stream, and gathers small writes: see `write_gathered`.
pub struct Watch(pub Arc<dyn Watcher>);

impl Watch {
    /// Watches `stream`.
    pub fn over<S>(stream: S, watcher: Arc<dyn Watcher>) -> Watched<S> {
        Filtered { filter: Self(watcher), stream }
    }
}

impl Filter for Watch {
    fn poll_read<S: AsyncRead + Unpin>(
        &mut self,
        stream: &mut S,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.0.received(&mut buffer.filled_mut()[before..]);
        }
        read
    }

    fn poll_write<S: AsyncWrite + Unpin>(
        &mut self,
        stream: &mut S,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut written = Pin::new(stream).poll_write(context, bytes);
        self.0.wrote(&[IoSlice::new(bytes)], &mut written);
        written
    }

    fn poll_write_vectored<S: AsyncWrite + Unpin>(
        &mut self,
        stream: &mut S,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut written = write_gathered(Pin::new(stream), context, slices);
        self.0.wrote(slices, &mut written);
        written
    }
}

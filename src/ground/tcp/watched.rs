//! A stream that tells a watcher what passes through it.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Watches the bytes that pass through a stream.
pub trait Watcher: Send + Sync {
    /// Notes `bytes` that have arrived. The caller reads what the watcher leaves in them.
    fn received(&self, _bytes: &mut [u8]) {}

    /// Notes a write. `offered` is what the caller passed; `written` is how many of these bytes the socket
    /// took, `Pending` if its buffer was full, or the error if it took none. The caller receives the value
    /// that the watcher leaves in `written`.
    fn wrote(&self, offered: &[IoSlice<'_>], written: &mut Poll<io::Result<usize>>);
}

/// A stream that reports the bytes that pass through it to a watcher.
pub struct Watched<T> {
    inner: T,
    watcher: Arc<dyn Watcher>,
}

impl<T> Watched<T> {
    pub fn new(inner: T, watcher: Arc<dyn Watcher>) -> Self {
        Self { inner, watcher }
    }

    pub fn inner(&self) -> &T {
        &self.inner
    }

    /// Returns the arguments of [`Watched::new`].
    pub fn into_parts(self) -> (T, Arc<dyn Watcher>) {
        (self.inner, self.watcher)
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Watched<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.watcher.received(&mut buffer.filled_mut()[before..]);
        }
        read
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Watched<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut written = Pin::new(&mut self.inner).poll_write(context, bytes);
        self.watcher.wrote(&[IoSlice::new(bytes)], &mut written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut written = Pin::new(&mut self.inner).poll_write_vectored(context, slices);
        self.watcher.wrote(slices, &mut written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

//! Streams that do more than pass bytes on: they limit the bytes that are read at once, report bytes, or
//! outlive a failed write. Each is a [`Filter`] over another stream.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Work of a stream beside passing bytes on. Each method stands for the method of the same name of tokio's
/// traits [`AsyncRead`] and [`AsyncWrite`], and by default only calls that method of `stream`.
pub trait Filter {
    /// See [`AsyncRead::poll_read`].
    fn poll_read<S: AsyncRead + Unpin>(
        &mut self,
        stream: &mut S,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(stream).poll_read(context, buffer)
    }

    /// See [`AsyncWrite::poll_write`].
    fn poll_write<S: AsyncWrite + Unpin>(
        &mut self,
        stream: &mut S,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(stream).poll_write(context, bytes)
    }

    /// See [`AsyncWrite::poll_write_vectored`].
    fn poll_write_vectored<S: AsyncWrite + Unpin>(
        &mut self,
        stream: &mut S,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(stream).poll_write_vectored(context, slices)
    }

    /// See [`AsyncWrite::poll_flush`].
    fn poll_flush<S: AsyncWrite + Unpin>(
        &mut self,
        stream: &mut S,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(stream).poll_flush(context)
    }

    /// See [`AsyncWrite::poll_shutdown`].
    fn poll_shutdown<S: AsyncWrite + Unpin>(
        &mut self,
        stream: &mut S,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(stream).poll_shutdown(context)
    }
}

/// A stream with a filter over it.
pub struct Filtered<F, S> {
    pub filter: F,
    pub stream: S,
}

impl<F: Filter + Unpin, S: AsyncRead + Unpin> AsyncRead for Filtered<F, S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { filter, stream } = &mut *self;
        filter.poll_read(stream, context, buffer)
    }
}

impl<F: Filter + Unpin, S: AsyncWrite + Unpin> AsyncWrite for Filtered<F, S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Self { filter, stream } = &mut *self;
        filter.poll_write(stream, context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let Self { filter, stream } = &mut *self;
        filter.poll_write_vectored(stream, context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { filter, stream } = &mut *self;
        filter.poll_flush(stream, context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { filter, stream } = &mut *self;
        filter.poll_shutdown(stream, context)
    }
}

//! Connection of a client that has shut down its sending half: the sidecar still answers, and finds out
//! whether the client is still there.

use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::server::TlsStream;

use super::Filtered;

/// First bytes of every answer over HTTP/1.
const BEGINNING: &[u8] = b"HTTP/1.";

/// Digit that may be put in front of the size of any chunk (RFC 9112 section 7.1).
const ZERO: &[u8] = b"0";

/// Most zeros in front of one size: curl and Go take 16 digits, and hyper writes eight at most.
const ZEROS: usize = 7;

/// Time from the client's FIN to the first byte. A health checker that reads once gets its answer whole
/// if the answer comes within this time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// Time for which an upload stands still before its client is sent a byte, to find out whether the client
/// is still there.
const STANDS_STILL: Duration = Duration::from_secs(3);

/// Pause of the kernel before it asks a client that has shut down its half whether it is still there.
const KERNEL_ASKS: Duration = Duration::from_secs(5);

/// State of a client's connection, as [`HalfOpen`] needs it.
pub trait Waiting: Send + Sync {
    /// Whether the client waits for an answer, or for the rest of one.
    fn waits(&self) -> bool;

    /// Whether the awaited answer is a body in chunks.
    fn is_chunked(&self) -> bool;

    /// Called when the client may leave without waking the connection's task: the task must then be
    /// woken every second, for as long as the client waits.
    fn look_often(&self);
}

/// A stream over a TCP socket.
pub trait OverTcp {
    fn socket(&self) -> &TcpStream;
}

impl OverTcp for TcpStream {
    fn socket(&self) -> &TcpStream {
        self
    }
}

impl<F, S: OverTcp> OverTcp for Filtered<F, S> {
    fn socket(&self) -> &TcpStream {
        self.stream.socket()
    }
}

impl<S: OverTcp> OverTcp for TlsStream<S> {
    fn socket(&self) -> &TcpStream {
        self.get_ref().0.socket()
    }
}

/// Stream of a client, for hyper to speak HTTP/1 over with its option `half_close`.
///
/// A FIN says that the client sends no more. The client may have called `shutdown` or `close`; its
/// kernel shows which of the two only when the client is sent something, since after `close` the kernel
/// answers with a reset. So if the answer takes long, the client is sent the first byte that every
/// answer has, later the second, and so on, and the answer is then sent without these bytes. If an
/// answer in chunks stands still, the byte is a zero in front of the next chunk's size. For any other
/// answer, the kernel's keep-alive finds out, but slowly: Linux forgets a closed connection after a
/// minute (`net.ipv4.tcp_fin_timeout`), and only then answers with a reset.
///
/// An upload that the app does not read can hide the FIN: the kernel takes none before the bytes that it
/// has no room for. So the client of this upload is sent bytes ahead as well.
///
/// hyper reads until it has a whole request, and again when it has answered. In between nothing reads,
/// so this stream looks for the FIN whenever it is flushed; hyper flushes each time it is woken and has
/// nothing left to write.
pub struct HalfOpen<S> {
    stream: S,
    client: Arc<dyn Waiting>,
    /// Whether hyper's last read found nothing, so that the next byte or the FIN will wake hyper.
    reading: bool,
    /// Whether a byte of the answer has been written since the client began to wait.
    begun: bool,
    /// Bytes sent ahead of what hyper writes next: of [`BEGINNING`], or zeros if the answer has begun.
    ahead: usize,
    /// Time to send the next byte ahead, once the client has shut down its half.
    next: Option<Instant>,
    /// Whether the client has shut down its half.
    ended: bool,
    /// Time at which the client's bytes were first found to wait unread.
    unread_since: Option<Instant>,
}

impl<S> HalfOpen<S> {
    pub fn new(stream: S, client: Arc<dyn Waiting>) -> Self {
        let (reading, begun, ended) = (false, false, false);
        Self { stream, client, reading, begun, ahead: 0, next: None, ended, unread_since: None }
    }

    /// Takes out the stream.
    pub fn into_inner(self) -> S {
        self.stream
    }
}

impl<S: AsyncRead + AsyncWrite + OverTcp + Unpin> HalfOpen<S> {
    /// Looks whether the client has shut down its half, or is gone altogether.
    ///
    /// # Errors
    ///
    /// The client is gone.
    fn peek(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        let Some(next) = self.next else { return self.look_for_end(context) };
        if let Some(error) = self.stream.socket().take_error()? {
            return Err(error);
        }
        let now = Instant::now();
        if now >= next
            && let Some(byte) = self.byte_ahead()
            && Pin::new(&mut self.stream).poll_write(context, byte)?.is_ready()
        {
            self.ahead += 1;
            // Later bytes follow ever more rarely, since there are few of them.
            self.next = Some(now + FIRST_PAUSE * (1 << self.ahead));
        }
        Ok(())
    }

    /// Next byte that can be sent ahead without changing the answer that the client will have read.
    fn byte_ahead(&self) -> Option<&'static [u8]> {
        if !self.begun {
            return BEGINNING.get(self.ahead..=self.ahead);
        }
        (self.client.is_chunked() && self.ahead < ZEROS).then_some(ZERO)
    }

    fn look_for_end(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        let socket = self.stream.socket();
        if socket.poll_read_ready(context)?.is_pending() {
            // The FIN will wake the task.
            return Ok(());
        }
        // A FIN behind unread bytes, or a reset after the FIN, will not wake the task.
        self.client.look_often();
        if let Poll::Ready(ready) = pin!(socket.ready(Interest::READABLE)).poll(context)
            && ready?.is_read_closed()
        {
            // Best effort: without keep-alive, a write finds out that the client is gone.
            let asking = TcpKeepalive::new().with_time(KERNEL_ASKS).with_interval(KERNEL_ASKS);
            let _ = SockRef::from(socket).set_tcp_keepalive(&asking);
            (self.next, self.ended) = (Some(Instant::now() + FIRST_PAUSE), true);
            // The end of the stream may be a reset.
            return socket.take_error()?.map_or(Ok(()), Err);
        }
        // The FIN of a client that left may wait behind bytes for which the kernel has no room, until
        // the app reads on.
        let now = Instant::now();
        let unread_since = *self.unread_since.get_or_insert(now);
        if now.saturating_duration_since(unread_since) >= STANDS_STILL {
            self.next = Some(now);
        }
        Ok(())
    }

    /// Writes the beginning of an answer without the bytes that the client has already, and reports all
    /// bytes as written.
    fn begin(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let ahead = self.ahead;
        let Some(rest) = bytes.strip_prefix(&BEGINNING[..ahead]) else {
            return Poll::Ready(Err(io::Error::other("an answer does not begin as HTTP/1 does")));
        };
        let written = ready!(Pin::new(&mut self.stream).poll_write(context, rest))?;
        (self.begun, self.ahead) = (true, 0);
        Poll::Ready(Ok(ahead + written))
    }

    /// Whether the beginning of what hyper writes now has been sent ahead.
    fn goes_on(&mut self) -> bool {
        let goes_on = !self.begun && self.ahead > 0;
        if !goes_on {
            (self.begun, self.ahead) = (true, 0);
        }
        goes_on
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for HalfOpen<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.begun && !self.client.waits() {
            self.begun = false;
        }
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.reading = read.is_pending();
        if !self.ended {
            (self.next, self.unread_since) = (None, None);
        }
        read
    }
}

impl<S: AsyncRead + AsyncWrite + OverTcp + Unpin> AsyncWrite for HalfOpen<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.goes_on() {
            return self.begin(context, bytes);
        }
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.goes_on() {
            // The first slice has all of the answer's head.
            return self.begin(context, slices.first().map_or(&[], |slice| slice));
        }
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.reading && self.client.waits() {
            self.peek(context)?;
        }
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

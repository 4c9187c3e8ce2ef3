//! One direction of a tunnel, from a socket to a socket, with no HTTP between them any more.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, Cursor};
use std::mem::take;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf, split};
use tokio_util::either::Either;

use super::super::stream_clock::StreamClock;
use super::Frames;
use super::ending::{Ending, Reason};
use ground::dozing::Dozing;
use ground::tcp::{Plain, Watcher};

/// Bytes read at a time. If the other side has no room, as many bytes wait for that side.
const BUFFER_BYTES: usize = 16 * 1024;

thread_local! {
    /// Buffer for all tunnels of a thread: it is warm, and a quiet tunnel has none.
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; BUFFER_BYTES].into());
}

/// Returns the two directions of one side, and the watcher that must be kept for as long as they are.
pub fn open(
    upgraded: Upgraded,
) -> (impl AsyncRead + Send + Unpin, impl AsyncWrite + Send + Unpin, Option<Arc<dyn Watcher>>) {
    match Plain::take(upgraded) {
        Ok(Plain { socket, read, watcher }) => {
            let (reader, writer) = socket.into_split();
            (Either::Left(Cursor::new(read).chain(reader)), Either::Left(writer), Some(watcher))
        }
        Err(upgraded) => {
            let (reader, writer) = split(TokioIo::new(upgraded));
            (Either::Right(reader), Either::Right(writer), None)
        }
    }
}

/// Whether the sidecar has sent the client its Close frame.
pub enum Farewell {
    Unsaid,
    Said(Reason),
}

/// One direction of a tunnel.
pub struct Direction<R, W> {
    from: R,
    to: W,
    /// Bytes that were read, and not yet written.
    rest: Vec<u8>,
    /// Whether written bytes may still wait, for TLS to send them.
    unsent: bool,
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Direction<R, W> {
    pub fn new(from: R, to: W) -> Self {
        Self { from, to, rest: Vec::new(), unsent: false }
    }

    /// Carries bytes until their end, and the end itself: half a close leaves the other half open.
    pub async fn carry(mut self, clock: StreamClock) -> io::Result<Farewell> {
        while self.pass(|_| ()).await? > 0 {
            clock.moved();
            self.pass_rest().await?;
        }
        self.to.shutdown().await?;
        Ok(Farewell::Unsaid)
    }

    /// Carries the app's frames to the client, and ends them with a Close frame of the sidecar when told to.
    pub async fn carry_frames(
        mut self,
        ending: Ending,
        clock: StreamClock,
    ) -> io::Result<Farewell> {
        let mut frames = Frames::default();
        let told = pin!(ending.told());
        let mut told = Dozing::new(told);
        loop {
            let read = tokio::select! {
                biased;
                reason = &mut told => return self.say_farewell(frames, clock, reason).await,
                read = self.pass(|bytes| frames.pass(bytes)) => read?,
            };
            if read == 0 {
                self.to.shutdown().await?;
                return Ok(Farewell::Unsaid);
            }
            clock.moved();
            self.pass_rest().await?;
        }
    }

    /// Ends the frame under way, and then the frames. Later bytes from the app are dropped (RFC 6455 section
    /// 5.5.1): the app hears the client's answer to the Close, and closes.
    async fn say_farewell(
        mut self,
        mut frames: Frames,
        clock: StreamClock,
        reason: Reason,
    ) -> io::Result<Farewell> {
        let mut farewell = Farewell::Unsaid;
        let (mut buffer, mut read) = (vec![0; BUFFER_BYTES], 0);
        loop {
            if let Farewell::Unsaid = farewell {
                let rest_of_frame = frames.finish(&buffer[..read]);
                self.to.write_all(&buffer[..rest_of_frame]).await?;
                if frames.may_interject() {
                    self.to.write_all(&reason.close_frame()).await?;
                    farewell = Farewell::Said(reason);
                }
                self.to.flush().await?;
            }
            read = self.from.read(&mut buffer).await?;
            clock.moved();
            if read == 0 {
                self.to.shutdown().await?;
                return Ok(farewell);
            }
        }
    }

    /// Reads what there is, once there is something, and writes as much of it as there is room for. Returns
    /// the number of bytes read, 0 at the end. Nothing is lost if the future is dropped.
    async fn pass(&mut self, mut note: impl FnMut(&[u8])) -> io::Result<usize> {
        poll_fn(|context| self.poll_pass(context, &mut note)).await
    }

    fn poll_pass(
        &mut self,
        context: &mut Context<'_>,
        mut note: impl FnMut(&[u8]),
    ) -> Poll<io::Result<usize>> {
        BUFFER.with_borrow_mut(|buffer| {
            let mut buffer = ReadBuf::new(buffer);
            if Pin::new(&mut self.from).poll_read(context, &mut buffer)?.is_pending() {
                if self.unsent {
                    self.unsent = Pin::new(&mut self.to).poll_flush(context)?.is_pending();
                }
                return Poll::Pending;
            }
            let bytes = buffer.filled();
            if !bytes.is_empty() {
                note(bytes);
                let written = match Pin::new(&mut self.to).poll_write(context, bytes)? {
                    Poll::Ready(written) => written,
                    Poll::Pending => 0,
                };
                self.unsent = true;
                self.rest.extend_from_slice(&bytes[written..]);
            }
            Poll::Ready(Ok(bytes.len()))
        })
    }

    /// Writes the bytes for which there was no room.
    async fn pass_rest(&mut self) -> io::Result<()> {
        if self.rest.is_empty() {
            return Ok(());
        }
        self.to.write_all(&take(&mut self.rest)).await
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::time::Duration;

    use tokio::io::{BufWriter, duplex, empty, repeat, sink};
    use tokio::sync::watch;
    use tokio::time::timeout;

    use super::super::Closing;
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn bytes_are_flushed_even_if_nothing_follows() {
        let (mut app, from) = duplex(64);
        let (to, mut client) = duplex(64);
        // Like TLS, the writer keeps its bytes until it is flushed, or given more.
        let direction = Direction::new(from, BufWriter::new(to));
        tokio::spawn(direction.carry(StreamClock::default()));
        app.write_all(b"one word").await.expect("it is read");
        let mut word = [0; 8];
        let reading = timeout(Duration::from_secs(1), client.read_exact(&mut word));
        reading.await.expect("it comes").expect("no error");
        assert_eq!(&word, b"one word");
    }

    #[tokio::test]
    async fn bytes_without_room_follow_when_there_is_room() {
        let bytes: Vec<u8> = (0..=255).cycle().take(5 * BUFFER_BYTES / 2).collect();
        for room in [1, 100, BUFFER_BYTES, 3 * BUFFER_BYTES] {
            let (to, mut client) = duplex(room);
            let from = Cursor::new(bytes.clone());
            let carrying = tokio::spawn(Direction::new(from, to).carry(StreamClock::default()));
            let mut came = Vec::new();
            client.read_to_end(&mut came).await.expect("an end");
            assert!(came == bytes, "{} of {} bytes with room for {room}", came.len(), bytes.len());
            carrying.await.expect("no panic").expect("no error");
        }
    }

    #[tokio::test]
    async fn gone_client_is_an_error_and_not_awaited() {
        let (to, client) = duplex(64);
        drop(client);
        let carried = Direction::new(repeat(7), to).carry(StreamClock::default()).await;
        assert_eq!(carried.err().map(|error| error.kind()), Some(ErrorKind::BrokenPipe));
    }

    #[tokio::test]
    async fn app_that_never_pauses_is_interrupted_by_a_close_frame() {
        let (told, closing) = watch::channel(Closing::NotYet);
        let (to, mut client) = duplex(BUFFER_BYTES);
        // Two zeros are a frame with nothing in it.
        let direction = Direction::new(repeat(0), to);
        tokio::spawn(direction.carry_frames(Ending::new(closing, None), StreamClock::default()));
        assert_eq!(client.read_u16().await.expect("a frame"), 0);
        told.send_replace(Closing::Told);
        loop {
            match client.read_u16().await.expect("a frame") {
                0 => {}
                close => {
                    break assert_eq!(close.to_be_bytes(), Reason::GoingAway.close_frame()[..2]);
                }
            }
        }
    }

    #[tokio::test]
    async fn farewell_is_sent_once_and_only_to_a_listening_client() {
        let (_told, closing) = watch::channel(Closing::Told);
        let (to, mut client) = duplex(64);
        let direction = Direction::new(Cursor::new(b"\x82\x04more".repeat(100)), to);
        let said = direction.carry_frames(Ending::new(closing, None), StreamClock::default()).await;
        assert!(matches!(said, Ok(Farewell::Said(Reason::GoingAway))));
        let mut came = Vec::new();
        client.read_to_end(&mut came).await.expect("an end");
        assert_eq!(came, [0x88, 2, 0x03, 0xe9], "1001, going away");

        let (_not_yet, closing) = watch::channel(Closing::NotYet);
        let direction = Direction::new(empty(), sink());
        let unsaid =
            direction.carry_frames(Ending::new(closing, None), StreamClock::default()).await;
        assert!(matches!(unsaid, Ok(Farewell::Unsaid)));
    }
}

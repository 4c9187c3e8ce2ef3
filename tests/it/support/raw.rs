//! Plain sockets, for bytes that no HTTP library would send.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::PATIENCE;
use crate::frames::Frame;

/// An app's answer to a handshake with the key `dGhlIHNhbXBsZSBub25jZQ==` (RFC 6455 section 1.3).
pub const SWITCHED: &str = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\n\
    upgrade: websocket\r\nsec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// One end of a connection, and what has been read from it and not yet looked at.
pub struct Wire {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Wire {
    pub async fn to(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).await.expect("it listens"))
    }

    pub fn over(stream: TcpStream) -> Self {
        Self { stream, read: Vec::new() }
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.expect("the peer reads");
    }

    /// Whether the peer still took the bytes.
    pub async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).await.is_ok()
    }

    /// Reads everything up to and including `end`.
    pub async fn read_to(&mut self, end: &str) -> String {
        let end = end.as_bytes();
        loop {
            if let Some(at) = self.read.windows(end.len()).position(|window| window == end) {
                let rest = self.read.split_off(at + end.len());
                let found = std::mem::replace(&mut self.read, rest);
                return String::from_utf8_lossy(&found).into_owned();
            }
            let more = self.more().await;
            assert!(more, "ended before {end:?}: {}", String::from_utf8_lossy(&self.read));
        }
    }

    pub async fn read_exactly(&mut self, count: usize) -> Vec<u8> {
        while self.read.len() < count {
            let more = self.more().await;
            assert!(more, "ended after {} of {count} bytes", self.read.len());
        }
        let rest = self.read.split_off(count);
        std::mem::replace(&mut self.read, rest)
    }

    /// Reads the next HTTP/2 frame, `None` at the end of the connection.
    pub async fn next_frame(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = Frame::take(&mut self.read) {
                return Some(frame);
            }
            if !self.more().await {
                return None;
            }
        }
    }

    /// Reads the next HTTP/2 frame.
    pub async fn frame(&mut self) -> Frame {
        self.next_frame().await.expect("a frame before the end")
    }

    /// Reads up to the next HTTP/2 frame of this kind.
    pub async fn frame_of(&mut self, kind: u8) -> Frame {
        loop {
            let frame = self.frame().await;
            if frame.kind == kind {
                return frame;
            }
        }
    }

    /// Reads the head of a message.
    pub async fn head(&mut self) -> String {
        self.read_to("\r\n\r\n").await
    }

    /// Reads the head of a message; `None` if the peer sends no other message.
    pub async fn try_head(&mut self) -> Option<String> {
        while !self.read.windows(4).any(|window| window == b"\r\n\r\n") {
            if !self.more().await {
                return None;
            }
        }
        Some(self.head().await)
    }

    /// Reads everything up to the end of the connection.
    pub async fn rest(&mut self) -> String {
        String::from_utf8_lossy(&self.rest_of_bytes().await).into_owned()
    }

    /// Reads everything up to the end of the connection, as bytes.
    pub async fn rest_of_bytes(&mut self) -> Vec<u8> {
        while self.more().await {}
        std::mem::take(&mut self.read)
    }

    /// Ends this half of the connection.
    pub async fn end(&mut self) {
        self.stream.shutdown().await.expect("still open");
    }

    /// Closes the connection with a reset, so that the peer learns of it at once.
    pub fn reset(self) {
        let socket = socket2::SockRef::from(&self.stream);
        socket.set_linger(Some(Duration::ZERO)).expect("an option of sockets");
    }

    /// Whether nothing at all has arrived so far.
    pub fn is_silent(&mut self) -> bool {
        let mut probe = [0; 1];
        self.read.is_empty() && self.stream.try_read(&mut probe).is_err()
    }

    async fn more(&mut self) -> bool {
        let mut buffer = [0; 4096];
        let read = timeout(PATIENCE, self.stream.read(&mut buffer)).await.expect("bytes in time");
        // A reset is an end like any other here.
        let read = read.unwrap_or(0);
        self.read.extend_from_slice(&buffer[..read]);
        read > 0
    }
}

/// An app that is nothing but a socket.
pub struct RawApp {
    pub address: SocketAddr,
    connections: Arc<AtomicUsize>,
}

impl RawApp {
    /// Runs `serve` on each connection, with the number of the connection, from 1.
    pub async fn serving<F, R>(serve: F) -> Self
    where
        F: Fn(Wire, usize) -> R + Send + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connections);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("accept");
                let number = counted.fetch_add(1, Ordering::SeqCst) + 1;
                tokio::spawn(serve(Wire::over(stream), number));
            }
        });
        Self { address, connections }
    }

    pub fn connection_count(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

/// Returns an address where no socket listens.
pub async fn unused_address() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
    listener.local_addr().expect("an address")
}

//! How every TCP connection is set up, written to and watched, the clients' and the app's, and had
//! back as a socket when HTTP is done with it.

mod gathering;
mod watched;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::upgrade::{Parts, Upgraded};
use hyper_util::rt::TokioIo;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::memory::Thrifty;

pub use self::gathering::Gathering;
pub use self::watched::{Watched, Watcher};

/// A quiet peer is asked whether it is still there after this time, and again after each pause:
/// one that is gone without a word is found within two minutes, however quiet its stream may be.
const QUIET: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_secs(15);
const ASKED: u32 = 4;

/// Connections that may wait to be accepted, or as many as the system allows
/// (`net.core.somaxconn`, 4,096 by default). tokio asks for 128: one more has to knock again after a
/// second, or is reset, and when an app's pod is replaced, all of its clients knock in one moment.
const BACKLOG: u32 = 4096;

/// Listens at `address`.
///
/// # Errors
///
/// The system's.
///
/// # Panics
///
/// Outside a tokio runtime, which watches the socket.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // Or connections of the process before would keep the port for a minute.
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Sends small messages at once, and finds out when the peer is gone. Best effort: without it,
/// messages are slow and dead connections stay, but nothing is wrong.
pub fn tune(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    let keepalive = TcpKeepalive::new().with_time(QUIET).with_interval(PAUSE).with_retries(ASKED);
    let _ = SockRef::from(stream).set_tcp_keepalive(&keepalive);
}

/// A connection that HTTP has left, as the socket that it is: what passes now passes through nothing else.
pub struct Plain {
    pub socket: TcpStream,
    /// What the peer had sent after its head, and HTTP has read.
    pub read: Bytes,
    /// Whoever was told of what passed, to be kept for as long as the socket.
    pub watcher: Arc<dyn Watcher>,
}

impl Plain {
    /// Takes the socket out of a client's connection, or the app's.
    ///
    /// # Errors
    ///
    /// The connection, if it is encrypted or no TCP.
    pub fn take(upgraded: Upgraded) -> Result<Self, Upgraded> {
        let parts = upgraded.downcast::<TokioIo<Thrifty<Watched<Gathering<TcpStream>>>>>()?;
        let Parts { io, read_buf, .. } = parts;
        let (Gathering(socket), watcher) = io.into_inner().into_inner().into_parts();
        Ok(Self { socket, read: read_buf, watcher })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_tuned_connection_asks_after_its_peer() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let stream = TcpStream::connect(address).await.expect("it listens");
        tune(&stream);
        let socket = SockRef::from(&stream);
        assert!(socket.keepalive().expect("an option"));
        assert_eq!(socket.tcp_keepalive_time().expect("an option"), QUIET);
        assert!(stream.nodelay().expect("an option"));
    }
}

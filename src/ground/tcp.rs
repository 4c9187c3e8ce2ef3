//! Set-up, writing and watching of every TCP connection, the clients' and the app's, and the way back to a
//! plain socket when HTTP is done with it.

mod filter;
mod gathering;
mod half_open;
mod watched;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::upgrade::{Parts, Upgraded};
use hyper_util::rt::TokioIo;
use rustix::io::Errno;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::memory::Thrifty;
use crate::platform;

pub use self::filter::{Filter, Filtered};
pub use self::half_open::{HalfOpen, OverTcp, Waiting};
pub use self::watched::{Watch, Watched, Watcher};

/// Quiet time after which the kernel asks a peer whether it is still there, and the pause before it
/// asks again.
const QUIET: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_secs(15);
const ASKED: u32 = 4;

/// Longest time that an app on another host may leave sent bytes unacknowledged.
pub const UNACKNOWLEDGED: Duration = Duration::from_secs(90);

/// Bytes that may wait in the kernel because the peer does not read. The kernel's default is up to 4 MiB
/// (`net.ipv4.tcp_wmem`), and a socket is writable again only when a third of these bytes has gone: a slow
/// reader would seem to stand still for minutes.
const UNSENT: u32 = 64 * 1024;

/// Connections that may wait to be accepted, or as many as the system allows (`net.core.somaxconn`, 4,096 by
/// default). tokio asks for 128. A client beyond the limit has to try again after a second, or is reset, and
/// when an app's pod is replaced, all of its clients connect in one moment.
const BACKLOG: u32 = 4096;

/// Listens at `address`; `[::]` takes clients of IPv6 and of IPv4, see [`bind`].
///
/// # Errors
///
/// The system's error.
///
/// # Panics
///
/// Outside a tokio runtime, which watches the socket.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    bind(address)?.listen(BACKLOG)
}

/// Takes `address` without listening there.
///
/// The unspecified address of IPv6, `[::]`, stands for both families, also where
/// `net.ipv6.bindv6only` is set: a manifest can't know of which family a pod's addresses are. A system
/// without IPv6 takes `0.0.0.0` instead.
///
/// # Errors
///
/// The system's error.
pub fn bind(address: SocketAddr) -> io::Result<TcpSocket> {
    match bind_exactly(address) {
        Err(error) if address.ip() == Ipv6Addr::UNSPECIFIED && lacks_ipv6(&error) => {
            bind_exactly((Ipv4Addr::UNSPECIFIED, address.port()).into())
        }
        bound => bound,
    }
}

fn bind_exactly(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    if address.ip() == Ipv6Addr::UNSPECIFIED {
        SockRef::from(&socket).set_only_v6(false)?;
    }
    // Otherwise connections of the process before would keep the port for a minute.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// Whether `error` says that the system has no IPv6: no such sockets, or no such addresses.
fn lacks_ipv6(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable
        || error.raw_os_error() == Some(Errno::AFNOSUPPORT.raw_os_error())
}

/// Plain form of a client's address, for settings, logs and the app: a listener of both families sees
/// `::ffff:10.0.0.7` where `10.0.0.7` has connected.
pub fn canonical(peer: SocketAddr) -> SocketAddr {
    match peer.ip().to_canonical() {
        IpAddr::V4(ip) => SocketAddr::new(ip.into(), peer.port()),
        // Keep the whole address: a link-local address carries its interface.
        IpAddr::V6(_) => peer,
    }
}

/// Sends small messages at once, keeps few bytes unsent, and finds out when `peer` is gone: `QUIET`
/// finds a quiet peer, `unacknowledged` a peer that acknowledges nothing. Best effort: without these
/// options, messages are slow and dead connections stay, but nothing is wrong.
pub fn tune(stream: &TcpStream, peer: SocketAddr, unacknowledged: Duration) {
    let _ = stream.set_nodelay(true);
    let socket = SockRef::from(stream);
    let keepalive = TcpKeepalive::new().with_time(QUIET).with_interval(PAUSE).with_retries(ASKED);
    let _ = socket.set_tcp_keepalive(&keepalive);
    let _ = platform::bound_unsent(&socket, UNSENT);
    // Linux counts time in which a peer does not read as unacknowledged (tcp(7)). A peer on this
    // host can't be cut off.
    if !peer.ip().is_loopback() {
        let _ = platform::bound_unacknowledged(&socket, unacknowledged);
    }
}

/// The socket of a connection that HTTP has left: later bytes pass through nothing else.
pub struct Plain {
    pub socket: TcpStream,
    /// Bytes that the peer sent after its head, and that HTTP has read.
    pub read: Bytes,
    /// Watcher of the connection, which must be kept for as long as the socket.
    pub watcher: Arc<dyn Watcher>,
}

impl Plain {
    /// Takes the socket out of a client's connection, or the app's.
    ///
    /// # Errors
    ///
    /// The connection, if it is encrypted or not TCP.
    pub fn take(upgraded: Upgraded) -> Result<Self, Upgraded> {
        match upgraded.downcast::<TokioIo<HalfOpen<Thrifty<Watched<TcpStream>>>>>() {
            Ok(Parts { io, read_buf, .. }) => Ok(Self::of(io.into_inner().into_inner(), read_buf)),
            Err(app) => {
                let Parts { io, read_buf, .. } =
                    app.downcast::<TokioIo<Thrifty<Watched<TcpStream>>>>()?;
                Ok(Self::of(io.into_inner(), read_buf))
            }
        }
    }

    fn of(stream: Thrifty<Watched<TcpStream>>, read: Bytes) -> Self {
        let Filtered { filter: Watch(watcher), stream: socket } = stream.stream;
        Self { socket, read, watcher }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unspecified_ipv6_address_is_of_both_families() {
        let Ok(socket) = bind((Ipv6Addr::UNSPECIFIED, 0).into()) else { panic!("a port is free") };
        // On a machine without IPv6 the socket is of IPv4.
        if socket.local_addr().expect("it is bound").is_ipv6() {
            assert!(!SockRef::from(&socket).only_v6().expect("an option"), "by any sysctl");
        }
        for (error, expected) in [
            (Errno::AFNOSUPPORT, true),
            (Errno::ADDRNOTAVAIL, true),
            (Errno::ADDRINUSE, false),
            (Errno::ACCESS, false),
        ] {
            assert_eq!(lacks_ipv6(&error.into()), expected, "{error}");
        }
    }

    #[test]
    fn peers_of_ipv4_are_written_as_ipv4() {
        for (seen, expected) in [
            ("[::ffff:10.1.2.3]:80", "10.1.2.3:80"),
            ("10.1.2.3:80", "10.1.2.3:80"),
            ("[fd00::7]:80", "[fd00::7]:80"),
            ("[fe80::1%3]:80", "[fe80::1%3]:80"),
            ("[::10.1.2.3]:80", "[::10.1.2.3]:80"),
        ] {
            let peer = canonical(seen.parse().expect("an address"));
            assert_eq!(peer, expected.parse().expect("an address"));
        }
    }

    #[tokio::test]
    async fn tuned_connection_probes_its_peer() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let stream = TcpStream::connect(address).await.expect("it listens");
        tune(&stream, address, UNACKNOWLEDGED);
        let socket = SockRef::from(&stream);
        assert!(socket.keepalive().expect("an option"));
        assert_eq!(socket.tcp_keepalive_time().expect("an option"), QUIET);
        assert!(stream.nodelay().expect("an option"));
    }
}

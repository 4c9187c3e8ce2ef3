//! One stream of bytes to a server: TCP, TLS over TCP, or a unix socket.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ground::tcp;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::fault::Fault;
use super::settings::Address;

/// Longest time for which sent bytes may stay unacknowledged, where the kernel supports such a limit. On the shared
/// connection, the keeper's pings find a dead server earlier; the limit is for connections with calls that block.
const UNACKNOWLEDGED: Duration = Duration::from_secs(10);

/// Head start of each address of a host before the next one. RFC 8305 section 8 suggests 250 ms, but all of
/// connecting may take only a second.
const HEAD_START: Duration = Duration::from_millis(150);

/// Most addresses of a host that are tried.
const MOST_ADDRESSES: usize = 6;

/// A stream over TCP, TLS or a unix socket.
pub(super) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Io for S {}

/// Connects to `address`, with TLS unless it is a unix socket.
pub(super) async fn open(
    address: &Address,
    tls: Option<&Arc<ClientConfig>>,
) -> Result<Box<dyn Io>, Fault> {
    let (host, port) = match address {
        Address::Unix(path) => {
            let stream = UnixStream::connect(path).await.map_err(|_| Fault::Broken)?;
            return Ok(Box::new(stream));
        }
        Address::Tcp { host, port } => (host, *port),
    };
    let stream = connect(host, port).await.map_err(|_| Fault::Broken)?;
    let Some(tls) = tls else { return Ok(Box::new(stream)) };
    let name = ServerName::try_from(host.clone()).map_err(|_| Fault::Untrusted)?;
    let stream = TlsConnector::from(Arc::clone(tls)).connect(name, stream).await;
    Ok(Box::new(stream.map_err(|error| fault_of_handshake(&error))?))
}

/// Connects to the address of `host` that answers first. Some addresses of a name may not answer: those of pods that
/// are gone, or of a family (IPv4, IPv6) that is not routed.
async fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    race(lookup_host((host, port)).await?.take(MOST_ADDRESSES)).await
}

/// Connects to one address after another: begins with the next when an attempt fails or its head start is over (RFC
/// 8305 section 5).
async fn race(mut addresses: impl Iterator<Item = SocketAddr>) -> io::Result<TcpStream> {
    let mut attempts = JoinSet::new();
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    loop {
        match addresses.next() {
            Some(address) => drop(attempts.spawn(connect_to(address))),
            None if attempts.is_empty() => return Err(last),
            None => {}
        }
        match timeout(HEAD_START, attempts.join_next()).await {
            Ok(Some(Ok(Ok(stream)))) => return Ok(stream),
            Ok(Some(Ok(Err(error)))) => last = error,
            Ok(Some(Err(panicked))) => last = panicked.into(),
            Ok(None) | Err(_) => {}
        }
    }
}

async fn connect_to(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    tcp::tune(&stream, address, UNACKNOWLEDGED);
    Ok(stream)
}

/// Tells a certificate that is not accepted from a connection that broke.
fn fault_of_handshake(error: &io::Error) -> Fault {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    if inner.is_some() { Fault::Untrusted } else { Fault::Broken }
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpSocket};
    use tokio::time::Instant;

    use super::*;

    const LOOPBACK: &str = "127.0.0.1:0";

    /// Returns an address that answers no attempt to connect, with the listener and the connections that fill its
    /// queue.
    async fn silent() -> (SocketAddr, TcpListener, JoinSet<io::Result<TcpStream>>) {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(LOOPBACK.parse().expect("an address")).expect("a free port");
        let listener = socket.listen(1).expect("it is bound");
        let address = listener.local_addr().expect("it is bound");
        let mut waiting = JoinSet::new();
        for _ in 0..4 {
            waiting.spawn(TcpStream::connect(address));
        }
        while timeout(HEAD_START, waiting.join_next()).await.is_ok() {}
        waiting.spawn(TcpStream::connect(address));
        (address, listener, waiting)
    }

    #[tokio::test]
    async fn first_address_that_answers_is_used() {
        let living = TcpListener::bind(LOOPBACK).await.expect("a free port");
        let living = living.local_addr().map(|address| (address, living)).expect("it is bound");
        let closed = TcpListener::bind(LOOPBACK).await.expect("a free port");
        let refusing = closed.local_addr().expect("it is bound");
        drop(closed);
        let (silent, _listener, _waiting) = silent().await;
        for (addresses, most) in [
            (vec![living.0], HEAD_START),
            (vec![refusing, living.0], HEAD_START),
            (vec![silent, refusing, living.0], HEAD_START * 2),
            (vec![silent, silent, living.0], HEAD_START * 3),
        ] {
            let started = Instant::now();
            let stream = race(addresses.iter().copied()).await.expect("one answers");
            assert_eq!(stream.peer_addr().expect("it is connected"), living.0);
            assert!(started.elapsed() < most, "{addresses:?}: {:?}", started.elapsed());
        }
        let refused = race([refusing, refusing].into_iter()).await.expect_err("none answers");
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        let none = race(std::iter::empty()).await.expect_err("no address");
        assert_eq!(none.kind(), io::ErrorKind::AddrNotAvailable);
    }
}

//! Opens connections to the app: to an address, to one of the addresses of a name, or to a unix socket.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio::time::sleep;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::proxy::Address;
use ground::tcp;
use ground::tls::ClientTls;

/// Pause before the next address of a name is tried beside the one that has not answered yet (RFC 8305
/// section 5): an address that drops everything must not use up `app.connect_timeout` alone.
const NEXT_ADDRESS: Duration = Duration::from_millis(250);

/// Pauses between attempts on a unix socket whose accept queue is full. The kernel refuses such an
/// attempt at once; over TCP it would send the SYN again.
const FULL_QUEUE_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_FULL_QUEUE_PAUSE: Duration = Duration::from_millis(100);

/// Encrypted bytes that may wait for an app which does not read: one record, less than the 64 KiB of
/// rustls.
const TLS_BUFFER: usize = 16 * 1024;

/// Connection on which nothing has been spoken yet.
pub(in crate::proxy) enum Stream {
    Tcp(TcpStream),
    /// Boxed, because TLS to the app is rare and its stream is large.
    Tls(Box<TlsStream<TcpStream>>),
    Unix(UnixStream),
}

/// Opens a connection to `address`, for HTTP/1.1 or for HTTP/2, within its own time limit.
pub(in crate::proxy) async fn dial(
    address: &Address,
    tls: Option<&ClientTls>,
    http2: bool,
) -> io::Result<Stream> {
    let stream = address.dial().await?;
    match tls {
        Some(tls) => encrypt(stream, tls, http2).await,
        None => Ok(stream),
    }
}

/// Speaks TLS over a connection, for HTTP/1.1 or for HTTP/2.
async fn encrypt(stream: Stream, tls: &ClientTls, http2: bool) -> io::Result<Stream> {
    let Stream::Tcp(stream) = stream else { return Ok(stream) };
    let config = if http2 { tls.http2() } else { tls.http1() };
    let mut stream = TlsConnector::from(config).connect(tls.server_name(), stream).await?;
    stream.get_mut().1.set_buffer_limit(Some(TLS_BUFFER));
    if http2 && stream.get_ref().1.alpn_protocol() != Some(b"h2") {
        return Err(io::Error::other("the app does not offer h2 in its TLS handshake"));
    }
    Ok(Stream::Tls(Box::new(stream)))
}

impl Address {
    async fn dial(&self) -> io::Result<Stream> {
        match self {
            Self::Tcp(authority) => {
                let stream = match authority.parse::<SocketAddr>() {
                    Ok(address) => TcpStream::connect(address).await?,
                    Err(_) => connect_to_one(lookup_host(authority.as_str()).await?).await?,
                };
                tcp::tune(&stream, stream.peer_addr()?, tcp::UNACKNOWLEDGED);
                Ok(Stream::Tcp(stream))
            }
            Self::Unix(path) => connect_to_socket(path).await.map(Stream::Unix),
        }
    }
}

/// Connects to the first of `addresses` that takes the connection. An address that refuses makes way for the
/// next at once.
async fn connect_to_one(mut addresses: impl Iterator<Item = SocketAddr>) -> io::Result<TcpStream> {
    let mut attempts = FuturesUnordered::new();
    let mut failure = io::Error::other("the app's name has no address");
    loop {
        let next = addresses.next();
        let (more, none_left) = (next.is_some(), next.is_none());
        attempts.extend(next.map(TcpStream::connect));
        if none_left && attempts.is_empty() {
            return Err(failure);
        }
        tokio::select! {
            Some(attempt) = attempts.next() => match attempt {
                Ok(stream) => return Ok(stream),
                Err(error) => failure = error,
            },
            () = sleep(NEXT_ADDRESS), if more => {}
        }
    }
}

/// Connects to a unix socket, and waits while its accept queue is full.
async fn connect_to_socket(path: &Path) -> io::Result<UnixStream> {
    let mut pause = FULL_QUEUE_PAUSE;
    loop {
        match UnixStream::connect(path).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => sleep(pause).await,
            connected => return connected,
        }
        pause = (pause * 2).min(LONGEST_FULL_QUEUE_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, UnixListener};
    use tokio::task::JoinSet;
    use tokio::time::{Instant, timeout};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    /// A listener, and an address of this machine that nothing listens at.
    async fn open_and_closed() -> (TcpListener, SocketAddr) {
        let listener = || TcpListener::bind("127.0.0.1:0");
        let (open, closed) = (listener().await.expect("a port"), listener().await.expect("a port"));
        (open, closed.local_addr().expect("an address"))
    }

    #[tokio::test]
    async fn refusing_address_makes_way_for_the_next_at_once() {
        let (open, closed) = open_and_closed().await;
        let addresses = [closed, open.local_addr().expect("an address")];
        let began = Instant::now();
        connect_to_one(addresses.into_iter()).await.expect("the second one listens");
        assert!(began.elapsed() < NEXT_ADDRESS);
        let refused = connect_to_one([closed, closed].into_iter()).await.expect_err("no listener");
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        connect_to_one([].into_iter()).await.expect_err("no address");
    }

    #[tokio::test]
    async fn silent_address_does_not_hold_up_the_next() {
        let (open, _) = open_and_closed().await;
        // A queue of one that is full: the kernel drops further SYNs.
        let silent = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let silent = silent.expect("a socket");
        silent.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a port");
        silent.listen(0).expect("it listens");
        let full = silent.local_addr().expect("an address").as_socket().expect("an address");
        let _first = TcpStream::connect(full).await.expect("there is room for one");
        let addresses = [full, open.local_addr().expect("an address")];
        let connecting = timeout(PATIENCE, connect_to_one(addresses.into_iter()));
        let stream = connecting.await.expect("in time").expect("the second one listens");
        assert_eq!(stream.peer_addr().expect("an address"), addresses[1]);
    }

    #[tokio::test]
    async fn full_queue_of_a_unix_socket_is_waited_for() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("app.sock");
        let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None);
        let socket = socket.expect("a socket");
        socket.bind(&socket2::SockAddr::unix(&path).expect("a path")).expect("it is free");
        socket.listen(1).expect("it listens");
        let mut connecting = JoinSet::new();
        for _ in 0..7 {
            let path = path.clone();
            connecting.spawn(async move { connect_to_socket(&path).await });
        }
        let first = connecting.join_next().await.expect("one").expect("no panic");
        first.expect("there is room for one");
        assert!(UnixStream::connect(&path).await.is_err(), "the queue is full");
        socket.set_nonblocking(true).expect("an option");
        let listener = UnixListener::from_std(socket.into()).expect("a listener");
        let accepting = async {
            loop {
                listener.accept().await.expect("a connection");
            }
        };
        let all = async {
            while let Some(connected) = connecting.join_next().await {
                connected.expect("no panic").expect("accepted in the end");
            }
        };
        tokio::select! {
            () = accepting => unreachable!("it goes on"),
            all = timeout(PATIENCE, all) => all.expect("in time"),
        }
    }

    #[tokio::test]
    async fn missing_unix_socket_is_an_error_at_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("app.sock");
        let missing = timeout(PATIENCE, connect_to_socket(&path)).await.expect("at once");
        assert_eq!(missing.expect_err("no socket").kind(), io::ErrorKind::NotFound);
    }
}

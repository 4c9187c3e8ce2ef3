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
use tokio::time::sleep;
use tokio_rustls::TlsConnector;

use super::fault::Fault;
use super::settings::Address;

/// Longest time that sent bytes stay unacknowledged, where the kernel knows it. The keeper's own pings find a dead
/// server earlier; this ends the sockets of connections that block.
const UNACKNOWLEDGED: Duration = Duration::from_secs(10);

/// Head start of each address of a host before the next one (RFC 8305 section 8 suggests 250 ms; connecting as a
/// whole has a second).
const HEAD_START: Duration = Duration::from_millis(150);

/// Most addresses of a host that are tried.
const MOST_ADDRESSES: usize = 6;

/// A stream of any sort.
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

/// Connects to the address of `host` that answers first: a name may have addresses of pods that are gone, or of a
/// family that is not routed.
async fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut attempts = JoinSet::new();
    for (index, address) in (0..).zip(lookup_host((host, port)).await?.take(MOST_ADDRESSES)) {
        attempts.spawn(async move {
            sleep(HEAD_START * index).await;
            connect_to(address).await
        });
    }
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    while let Some(attempt) = attempts.join_next().await {
        match attempt.map_err(io::Error::from).and_then(|connected| connected) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
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

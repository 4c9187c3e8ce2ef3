//! Asks a running sidecar for its health: for probes in an image that has neither a shell nor curl.
//!
//! A probe is one plain HTTP/1.0 request, written by hand. The kubelet runs a probe every few seconds in the
//! sidecar's own container and within its limits, so a probe starts no runtime, loads no roots and reads no
//! secrets.

use std::error::Error;
use std::fmt;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, ToSocketAddrs as _};
use std::time::Duration;

use http::{StatusCode, Uri};
use tokio::time::Instant;

/// Time limit of a probe, from the connection to the last byte. The kubelet gives an exec probe a second by
/// default, and a sidecar on the same machine answers within a millisecond.
pub const PATIENCE: Duration = Duration::from_secs(1);

/// The longest answer that is looked at, in bytes.
const MAX_ANSWER: usize = 4096;

/// Question to a sidecar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// Liveness: whether the sidecar runs at all. If not, the sidecar should be restarted.
    Live,
    /// Readiness: whether traffic should come to the sidecar.
    Ready,
    /// Start: whether the sidecar has started. If so, the containers after it may start.
    Startup,
}

impl Probe {
    /// Returns the path at which the admin port answers the probe.
    pub fn path(self) -> &'static str {
        match self {
            Self::Live => "/healthz/live",
            Self::Ready => "/healthz/ready",
            Self::Startup => "/healthz/startup",
        }
    }
}

/// Reason why a probe fails.
#[derive(Debug)]
pub enum Unhealthy {
    /// Value of `--admin` that is no URL of an admin port, in a form without secrets. The caller's fault.
    Url(String),
    /// No server answers there, or not in time.
    Unreachable { address: String, source: io::Error },
    /// The sidecar answers no.
    Answered { status: StatusCode, said: String },
    /// The server there speaks no HTTP.
    Odd(String),
}

impl fmt::Display for Unhealthy {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(url) => write!(
                formatter,
                "--admin {url} is no URL of an admin port: write http://127.0.0.1:9901"
            ),
            Self::Unreachable { address, .. } => write!(
                formatter,
                "no sidecar answers at {address}: is it running, and is that its admin.address?"
            ),
            Self::Answered { status, said } => write!(formatter, "{status}: {said}"),
            Self::Odd(address) => write!(
                formatter,
                "the answer from {address} is not from an admin port: is that the sidecar's \
                 admin.address?"
            ),
        }
    }
}

impl Error for Unhealthy {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Unreachable { source, .. } => Some(source),
            _ => None,
        }
    }
}

/// Returns the URL of the admin port that listens at `address`, for a client on the same machine.
pub fn url_of(address: SocketAddr) -> String {
    // A listener at `[::]` takes clients of IPv4 too, and is at `0.0.0.0` on a system without IPv6. So
    // 127.0.0.1 reaches every unspecified address.
    let reachable =
        if address.ip().is_unspecified() { Ipv4Addr::LOCALHOST.into() } else { address.ip() };
    format!("http://{}", SocketAddr::new(reachable, address.port()))
}

/// Asks the admin port at `url`, for at most [`PATIENCE`].
///
/// # Errors
///
/// See [`Unhealthy`].
pub fn ask(url: &str, probe: Probe) -> Result<(), Unhealthy> {
    let deadline = Instant::now() + PATIENCE;
    let uri: Uri = url.parse().map_err(|_| Unhealthy::Url(super::shown_url(url)))?;
    let (Some("http"), Some(host)) = (uri.scheme_str(), uri.host()) else {
        return Err(Unhealthy::Url(super::shown_url(url)));
    };
    let port = uri.port_u16().unwrap_or(80);
    let address = format!("{host}:{port}");
    let answer = exchange(host, port, probe.path(), deadline)
        .map_err(|source| Unhealthy::Unreachable { address: address.clone(), source })?;
    let (status, said) = parse(&answer).ok_or(Unhealthy::Odd(address))?;
    if status == StatusCode::OK { Ok(()) } else { Err(Unhealthy::Answered { status, said }) }
}

fn exchange(host: &str, port: u16, path: &str, deadline: Instant) -> io::Result<Vec<u8>> {
    let left = || {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok::<_, io::Error>(left) }
    };
    let mut addresses = (host.trim_matches(['[', ']']), port).to_socket_addrs()?;
    let address = addresses.next().ok_or(io::ErrorKind::NotFound)?;
    let mut stream = TcpStream::connect_timeout(&address, left()?)?;
    stream.set_write_timeout(Some(left()?))?;
    // HTTP/1.0: the answer ends with the connection.
    let request =
        format!("GET {path} HTTP/1.0\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    let mut chunk = [0; 1024];
    while answer.len() < MAX_ANSWER {
        stream.set_read_timeout(Some(left()?))?;
        match stream.read(&mut chunk)? {
            0 => break,
            read => answer.extend_from_slice(&chunk[..read]),
        }
    }
    Ok(answer)
}

/// Returns status and body of an answer.
fn parse(answer: &[u8]) -> Option<(StatusCode, String)> {
    let text = String::from_utf8_lossy(answer);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.")?.split(' ').nth(1)?;
    // The server may not be a sidecar, so the text that is shown must fit a line of a log.
    let said = body.chars().filter(|it| !it.is_control()).take(200).collect();
    Some((status.parse().ok()?, said))
}

//! Tells HTTP/1.1 from HTTP/2 by a connection's first bytes, without taking them, so that nothing
//! has to be put back.

use std::io;
use std::time::Duration;

use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::Limits;
use ground::metrics::{CloseReason, Protocol};

/// The whole preface (RFC 9113 section 3.4); no HTTP/1.1 method begins with its first four bytes.
const HTTP2_PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Pauses between looks at a preface that comes in pieces. The sidecar can't wait on a socket for more bytes
/// than are there, so the pauses grow: a client that sends a single byte must not cost a wakeup for each
/// millisecond.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// Returns the protocol of a new connection.
///
/// # Errors
///
/// Reason to close the connection instead; `None` if the client has left.
pub async fn protocol(stream: &TcpStream, limits: Limits) -> Result<Protocol, Option<CloseReason>> {
    let begun = timeout(limits.first_byte, stream.peek(&mut [0])).await;
    match begun {
        Err(_) => return Err(Some(CloseReason::Idle)),
        Ok(Ok(1)) => {}
        Ok(_) => return Err(None),
    }
    match timeout(limits.head, speaks_http2(stream)).await {
        Err(_) => Err(Some(CloseReason::SlowHead)),
        Ok(Ok(true)) => Ok(Protocol::Http2),
        Ok(Ok(false)) => Ok(Protocol::Http1),
        Ok(Err(_)) => Err(None),
    }
}

async fn speaks_http2(stream: &TcpStream) -> io::Result<bool> {
    let mut start = [0; HTTP2_PREFACE.len()];
    let mut pause = FIRST_PAUSE;
    loop {
        // Asked before the bytes are looked at, because the last bytes may come together with the end.
        let ended = stream.ready(Interest::READABLE).await?.is_read_closed();
        let seen = stream.peek(&mut start).await?;
        if start[..seen] != HTTP2_PREFACE[..seen] {
            return Ok(false);
        }
        if seen == HTTP2_PREFACE.len() {
            return Ok(true);
        }
        if ended {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        sleep(pause).await;
        pause = (2 * pause).min(LONGEST_PAUSE);
    }
}
